//! Landlock rules from data.
//!
//! Paths are opened here, inside the container: after the root was changed they name what the app will see. No link is followed, because
//! the app may have made it: the image's own were resolved when the container was created. Every right is required:
//! what this kernel cannot enforce was cut out when the policy was compiled, with a loss on record, and is an error here.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use kakoi_policy::confinement::{Landlock, LandlockRuleset, PathRule, PortRule, ReceiptStep};
use kakoi_sys::path::{PathFile, open_path_file};
use kakoi_sys::{CallError, Errno, system};
use landlock::{
    ABI, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use crate::apply::step;

/// Why the rules cannot be enforced.
#[derive(Debug, thiserror::Error)]
pub enum LandlockError {
    /// The kernel could not be asked.
    #[error("ask for landlock's version")]
    Version(#[source] CallError),
    /// The kernel is older than what the rules need.
    #[error("the rules need landlock ABI {wanted}, and the kernel has {held}")]
    Abi {
        /// What the ruleset says.
        wanted: u32,
        /// What the kernel says; 0 means that it has none.
        held: u32,
        /// The first rule of the policy, for the message.
        rule: Option<String>,
    },
    /// The rules hold bits that belong to no right.
    #[error("the ruleset has unknown {subject} bits {bits:#x}")]
    UnknownBits {
        /// Which rights.
        subject: &'static str,
        /// The whole mask.
        bits: u64,
    },
    /// A path of a required rule cannot be opened.
    #[error("open {path} for the rule {rule}")]
    Path {
        /// The path inside the container.
        path: String,
        /// The rule.
        rule: String,
        /// Why.
        #[source]
        source: CallError,
    },
    /// A path leads over a link, which the app may have made since the container was created.
    #[error(
        "refused: a part of {path}, of the rule {rule}, is a symbolic link that was not in the image; name the folder it leads to in the policy, or remove the link"
    )]
    Link {
        /// The path inside the container.
        path: String,
        /// The rule.
        rule: String,
    },
    /// A rule grants only rights that files do not have, and its path is a file.
    #[error("the rule {rule} grants nothing on {path}, which is a file")]
    NothingOnFile {
        /// The path inside the container.
        path: String,
        /// The rule.
        rule: String,
    },
    /// The kernel refused a rule.
    #[error("add the rule {rule}")]
    Rule {
        /// The rule.
        rule: String,
        /// Why.
        #[source]
        source: RulesetError,
    },
    /// The kernel refused the ruleset.
    #[error("{operation}")]
    Ruleset {
        /// What was tried.
        operation: &'static str,
        /// Why.
        #[source]
        source: RulesetError,
    },
    /// The kernel accepted less than everything.
    #[error("landlock is {0} instead of fully enforced")]
    NotFull(String),
}

impl LandlockError {
    /// The policy rule behind the failure.
    pub(crate) fn rule(&self) -> Option<String> {
        match self {
            Self::Path { rule, .. }
            | Self::Link { rule, .. }
            | Self::NothingOnFile { rule, .. }
            | Self::Rule { rule, .. } => Some(rule.clone()),
            Self::Abi { rule, .. } => rule.clone(),
            _ => None,
        }
    }
}

/// A ruleset whose paths are open, and which restricts no one yet.
pub(crate) struct Prepared(Option<Rules>);

struct Rules {
    created: RulesetCreated,
    abi: u32,
    held: String,
}

/// Opens the paths of every rule. Paths that only a user with more rights can reach are reachable as long as the caller is that user.
pub(crate) fn prepare(landlock: &Landlock) -> Result<Prepared, LandlockError> {
    let ruleset = match landlock {
        Landlock::Unconfined => return Ok(Prepared(None)),
        Landlock::Ruleset(ruleset) => ruleset,
    };
    let held = system::landlock_abi().map_err(LandlockError::Version)?;
    if held < ruleset.abi || ruleset.abi == 0 {
        return Err(LandlockError::Abi {
            wanted: ruleset.abi,
            held,
            rule: first_rule(ruleset),
        });
    }
    let mut created = create(ruleset)?;
    let mut skipped = Vec::new();
    for rule in &ruleset.paths {
        created = match open_rule(rule)? {
            Some(file) => add_path(created, rule, file)?,
            None => {
                skipped.push(rule.path.as_str());
                created
            }
        };
    }
    for rule in &ruleset.ports {
        created = add_port(created, rule)?;
    }
    let held = summary(ruleset, &skipped);
    Ok(Prepared(Some(Rules {
        created,
        abi: ruleset.abi,
        held,
    })))
}

fn summary(ruleset: &LandlockRuleset, skipped: &[&str]) -> String {
    let paths = ruleset.paths.len() - skipped.len();
    let mut text = format!(
        "ABI {}, {paths} paths, {} ports",
        ruleset.abi,
        ruleset.ports.len()
    );
    if ruleset.scoped != 0 {
        text.push_str(&format!(", scopes {:#x}", ruleset.scoped));
    }
    if !skipped.is_empty() {
        text.push_str(&format!(
            "; missing or links, and optional: {}",
            skipped.join(" ")
        ));
    }
    text
}

impl Prepared {
    /// Restricts the caller. Without no_new_privs needs CAP_SYS_ADMIN in the user namespace.
    pub(crate) fn enforce(self, no_new_privileges: bool) -> Result<ReceiptStep, LandlockError> {
        let Some(rules) = self.0 else {
            return Ok(step("landlock", "unconfined"));
        };
        enforce(rules.created, rules.abi, no_new_privileges)?;
        Ok(step("landlock", rules.held))
    }
}

fn first_rule(ruleset: &LandlockRuleset) -> Option<String> {
    let path = ruleset.paths.first().map(|rule| rule.rule.clone());
    path.or_else(|| ruleset.ports.first().map(|rule| rule.rule.clone()))
}

fn create(ruleset: &LandlockRuleset) -> Result<RulesetCreated, LandlockError> {
    let failed = |operation| move |source| LandlockError::Ruleset { operation, source };
    // Hard requirement: a right that the kernel lacks is an error, never a hole.
    let mut builder = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    if ruleset.handled_fs != 0 {
        let rights = file_rights(ruleset.handled_fs)?;
        builder = builder
            .handle_access(rights)
            .map_err(failed("handle file rights"))?;
    }
    if ruleset.handled_net != 0 {
        let rights = port_rights(ruleset.handled_net)?;
        builder = builder
            .handle_access(rights)
            .map_err(failed("handle port rights"))?;
    }
    if ruleset.scoped != 0 {
        builder = builder
            .scope(scopes(ruleset.scoped)?)
            .map_err(failed("scope the process"))?;
    }
    builder.create().map_err(failed("create the ruleset"))
}

fn file_rights(bits: u64) -> Result<BitFlags<AccessFs>, LandlockError> {
    BitFlags::from_bits(bits).map_err(|_| LandlockError::UnknownBits {
        subject: "file right",
        bits,
    })
}

fn port_rights(bits: u64) -> Result<BitFlags<AccessNet>, LandlockError> {
    BitFlags::from_bits(bits).map_err(|_| LandlockError::UnknownBits {
        subject: "port right",
        bits,
    })
}

fn scopes(bits: u64) -> Result<BitFlags<Scope>, LandlockError> {
    BitFlags::from_bits(bits).map_err(|_| LandlockError::UnknownBits {
        subject: "scope",
        bits,
    })
}

/// Opens a rule's path; `None` where it is missing and may be. No link is followed: an app that writes to one of its folders could otherwise
/// make it lead to what no rule grants, and have that granted by the next start or `exec`.
fn open_rule(rule: &PathRule) -> Result<Option<PathFile>, LandlockError> {
    match open_path_file(&own_process(&rule.path)) {
        Ok(file) => Ok(Some(file)),
        Err(CallError {
            errno: Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EACCES,
            ..
        }) if rule.optional => Ok(None),
        Err(CallError {
            errno: Errno::ELOOP, ..
        }) => Err(LandlockError::Link {
            path: rule.path.clone(),
            rule: rule.rule.clone(),
        }),
        Err(source) => Err(LandlockError::Path {
            path: rule.path.clone(),
            rule: rule.rule.clone(),
            source,
        }),
    }
}

/// `/proc/self` is a link that only the kernel makes; what it leads to is known without following it.
fn own_process(path: &str) -> PathBuf {
    match Path::new(path).strip_prefix("/proc/self") {
        Ok(below) => Path::new("/proc")
            .join(std::process::id().to_string())
            .join(below),
        Err(_) => PathBuf::from(path),
    }
}

fn add_path(
    created: RulesetCreated,
    rule: &PathRule,
    file: PathFile,
) -> Result<RulesetCreated, LandlockError> {
    let mut access = file_rights(rule.access)?;
    let descriptor: OwnedFd = match file {
        PathFile::Directory(fd) => fd,
        PathFile::Other(fd) => {
            // The kernel refuses rights of directories on a file.
            access &= AccessFs::from_file(ABI::V10);
            fd
        }
    };
    if access.is_empty() {
        if rule.optional {
            return Ok(created);
        }
        return Err(LandlockError::NothingOnFile {
            path: rule.path.clone(),
            rule: rule.rule.clone(),
        });
    }
    created
        .add_rule(PathBeneath::new(descriptor, access))
        .map_err(|source| LandlockError::Rule {
            rule: rule.rule.clone(),
            source,
        })
}

fn add_port(created: RulesetCreated, rule: &PortRule) -> Result<RulesetCreated, LandlockError> {
    let access = port_rights(rule.access)?;
    created
        .add_rule(NetPort::new(rule.port, access))
        .map_err(|source| LandlockError::Rule {
            rule: rule.rule.clone(),
            source,
        })
}

fn enforce(created: RulesetCreated, abi: u32, no_new_privileges: bool) -> Result<(), LandlockError> {
    let failed = |source| LandlockError::Ruleset {
        operation: "restrict the process",
        source,
    };
    // The crate would set no_new_privs by itself, also where the policy lets set-user-ID programs work.
    let mut created = created.no_new_privs(no_new_privileges);
    if abi >= 7 {
        // Denials happen after execve, and are not on record without this.
        created = created.log_new_exec(true).map_err(failed)?;
    }
    let status = created.restrict_self().map_err(failed)?;
    match status.ruleset {
        RulesetStatus::FullyEnforced => Ok(()),
        other => Err(LandlockError::NotFull(format!("{other:?}"))),
    }
}
