//! `linux.seccomp` of an OCI runtime specification, made into filters (config-linux.md, "Seccomp").
//!
//! Owns the reading of that document and libseccomp's meaning of it, which other runtimes give it: names that no table knows are skipped;
//! of several rules for one call those with conditions come first; of two unconditional ones the first counts; comparisons are of 64 bits.
//! Knows nothing of policies. Invariant: an entry point that the document does not name is killed, unless it names none at all.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::bpf::{
    AssembleError, Branch, Call, RET_ALLOW, RET_ERRNO, RET_KILL_PROCESS, RET_KILL_THREAD, RET_LOG, RET_TRACE,
    RET_TRAP, RET_USER_NOTIF, Section, assemble,
};
use crate::confinement::{Filter, Listener, Seccomp};
use crate::constants::{ENOSYS, EPERM};
use crate::kernel::Arch;
use crate::model::{Condition, Operator, Width};
use crate::syscalls::{self, Entry};

/// The most rules of one document; Docker's default has some 30 with 400 names.
const RULES_MAX: usize = 8192;

/// A document that cannot be made into filters.
#[derive(Debug, thiserror::Error)]
pub enum OciSeccompError {
    /// It is not of the specification's form.
    #[error("read linux.seccomp")]
    Form {
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A word the specification does not have.
    #[error("linux.seccomp: unknown {what} `{word}`")]
    Word {
        /// Which kind of word.
        what: &'static str,
        /// The word.
        word: String,
    },
    /// `SCMP_ACT_NOTIFY` stands where it cannot be.
    #[error("linux.seccomp: {reason}")]
    Notify {
        /// Why not.
        reason: &'static str,
    },
    /// `errnoRet` beside an action that returns none.
    #[error("linux.seccomp: errnoRet with {action}, which returns no error number")]
    Errno {
        /// The action.
        action: String,
    },
    /// An argument's index is not 0 to 5.
    #[error("linux.seccomp: argument index {index} of `{name}` is not 0 to 5")]
    Index {
        /// The call.
        name: String,
        /// The index.
        index: u64,
    },
    /// More rules than can be meant.
    #[error("linux.seccomp: {count} rules, at most {RULES_MAX} are read")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// The program could not be built.
    #[error("build the filter of linux.seccomp")]
    Assemble {
        /// Why.
        #[source]
        source: AssembleError,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    default_action: String,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
    #[serde(default)]
    flags: Option<Vec<String>>,
    #[serde(default)]
    listener_path: Option<String>,
    #[serde(default)]
    listener_metadata: Option<String>,
    #[serde(default)]
    syscalls: Option<Vec<Rule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    names: Vec<String>,
    action: String,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Argument>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u64,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// Makes the filters of `linux.seccomp`.
///
/// Of the flags, `SECCOMP_FILTER_FLAG_TSYNC` has no effect, because the filter is loaded by a process with one thread.
///
/// # Errors
/// A document that is not of the specification's form, or that no program can be made of.
pub fn from_oci(document: &serde_json::Value, arch: Arch) -> Result<Seccomp, OciSeccompError> {
    let document = Document::deserialize(document).map_err(|source| OciSeccompError::Form { source })?;
    let rules = document.syscalls.unwrap_or_default();
    let count = rules.iter().map(|rule| rule.names.len()).sum();
    if count > RULES_MAX {
        return Err(OciSeccompError::TooMany { count });
    }
    let default = action(&document.default_action, document.default_errno_ret)?;
    if default == RET_USER_NOTIF {
        return Err(OciSeccompError::Notify {
            reason: "SCMP_ACT_NOTIFY cannot be the default action",
        });
    }
    let flags = Flags::read(document.flags.as_deref().unwrap_or_default())?;
    let entries = Entries::read(document.architectures.as_deref(), arch)?;
    let notifies = notifies(&rules)?;
    let listener = match (notifies, document.listener_path) {
        (true, None) => {
            return Err(OciSeccompError::Notify {
                reason: "SCMP_ACT_NOTIFY needs a listenerPath",
            });
        }
        (true, Some(path)) => Some(Listener {
            path,
            metadata: document.listener_metadata.unwrap_or_default(),
        }),
        // Told all the same, as crun does: who listens may wait for the descriptor before anything else. Not where the filter would keep the
        // runtime from sending it: nobody needs it.
        (false, Some(path)) if default == RET_ALLOW && !names(&rules, "sendmsg") => Some(Listener {
            path,
            metadata: document.listener_metadata.unwrap_or_default(),
        }),
        (false, _) => None,
    };
    let sections = entries
        .list
        .iter()
        .map(|entry| section(*entry, &rules, default, entries.x32))
        .collect::<Result<Vec<_>, _>>()?;
    let program =
        assemble(&sections, RET_KILL_PROCESS).map_err(|source| OciSeccompError::Assemble { source })?;
    Ok(Seccomp::Filters(vec![Filter {
        purpose: "linux.seccomp".to_owned(),
        log: flags.log,
        speculation_allowed: flags.speculation_allowed,
        wait_killable: flags.wait_killable,
        listener,
        program,
    }]))
}

#[derive(Default)]
struct Flags {
    log: bool,
    speculation_allowed: bool,
    wait_killable: bool,
}

impl Flags {
    fn read(words: &[String]) -> Result<Self, OciSeccompError> {
        let mut flags = Self::default();
        for word in words {
            match word.as_str() {
                "SECCOMP_FILTER_FLAG_LOG" => flags.log = true,
                "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => flags.speculation_allowed = true,
                "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => flags.wait_killable = true,
                "SECCOMP_FILTER_FLAG_TSYNC" => {}
                _ => {
                    return Err(OciSeccompError::Word {
                        what: "flag",
                        word: word.clone(),
                    });
                }
            }
        }
        Ok(flags)
    }
}

/// The flags this reads, for `features`.
pub const FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

/// The actions this reads, for `features`.
pub const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

/// The comparisons this reads, for `features`.
pub const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

/// The architectures a document may name here, for `features`.
pub fn architectures(arch: Arch) -> &'static [&'static str] {
    match arch {
        Arch::X86_64 => &["SCMP_ARCH_X86", "SCMP_ARCH_X86_64", "SCMP_ARCH_X32"],
        Arch::Aarch64 => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
    }
}

/// Every architecture word of the specification; those of other machines are skipped.
const ARCHITECTURES: [&str; 24] = [
    "SCMP_ARCH_NATIVE",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
];

struct Entries {
    list: Vec<Entry>,
    x32: bool,
}

impl Entries {
    /// The native entry point is always among them, as with libseccomp, which starts every filter with it.
    fn read(words: Option<&[String]>, arch: Arch) -> Result<Self, OciSeccompError> {
        let mut entries = Self {
            list: vec![Entry::from(arch)],
            x32: false,
        };
        for word in words.unwrap_or_default() {
            if !ARCHITECTURES.contains(&word.as_str()) {
                return Err(OciSeccompError::Word {
                    what: "architecture",
                    word: word.clone(),
                });
            }
            let entry = match (word.as_str(), arch) {
                ("SCMP_ARCH_X86", Arch::X86_64) => Entry::I386,
                ("SCMP_ARCH_ARM", Arch::Aarch64) => Entry::Arm,
                ("SCMP_ARCH_X32", Arch::X86_64) => {
                    entries.x32 = true;
                    continue;
                }
                _ => continue,
            };
            if !entries.list.contains(&entry) {
                entries.list.push(entry);
            }
        }
        Ok(entries)
    }
}

fn names(rules: &[Rule], call: &str) -> bool {
    rules.iter().flat_map(|rule| &rule.names).any(|name| name == call)
}

/// Whether a listener is needed. The runtime itself sends the descriptor to it after loading, with calls that therefore cannot wait for it.
fn notifies(rules: &[Rule]) -> Result<bool, OciSeccompError> {
    let mut found = false;
    for rule in rules.iter().filter(|rule| rule.action == "SCMP_ACT_NOTIFY") {
        if rule.names.iter().any(|name| name == "write") {
            return Err(OciSeccompError::Notify {
                reason: "SCMP_ACT_NOTIFY cannot be used for the write system call",
            });
        }
        found = true;
    }
    Ok(found)
}

fn action(word: &str, errno: Option<u32>) -> Result<u32, OciSeccompError> {
    if errno.is_some() && !matches!(word, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE") && ACTIONS.contains(&word) {
        return Err(OciSeccompError::Errno {
            action: word.to_owned(),
        });
    }
    // The data is 16 bits; an errno over MAX_ERRNO would not look like an error to libc, and the kernel caps it.
    let data = errno.map(|errno| errno & 0xffff);
    Ok(match word {
        "SCMP_ACT_ALLOW" => RET_ALLOW,
        "SCMP_ACT_ERRNO" => RET_ERRNO | data.unwrap_or(u32::from(EPERM)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => RET_KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => RET_KILL_PROCESS,
        "SCMP_ACT_TRAP" => RET_TRAP,
        "SCMP_ACT_TRACE" => RET_TRACE | data.unwrap_or(u32::from(EPERM)),
        "SCMP_ACT_LOG" => RET_LOG,
        "SCMP_ACT_NOTIFY" => RET_USER_NOTIF,
        _ => {
            return Err(OciSeccompError::Word {
                what: "action",
                word: word.to_owned(),
            });
        }
    })
}

fn section(entry: Entry, rules: &[Rule], default: u32, x32: bool) -> Result<Section, OciSeccompError> {
    let mut calls: BTreeMap<u32, (Vec<Branch>, Option<u32>)> = BTreeMap::new();
    for rule in rules {
        let ret = action(&rule.action, rule.errno_ret)?;
        let groups = conditions(rule)?;
        for name in &rule.names {
            let Some(number) = number(entry, name) else {
                continue;
            };
            let call = calls.entry(number).or_default();
            if groups.is_empty() {
                call.1.get_or_insert(ret);
            }
            call.0.extend(groups.iter().map(|when| Branch {
                when: when.clone(),
                ret,
            }));
        }
    }
    let calls = calls
        .into_iter()
        .map(|(number, (branches, plain))| {
            (
                number,
                Call {
                    branches,
                    otherwise: plain.unwrap_or(default),
                },
            )
        })
        .collect();
    let x32 = if x32 { None } else { Some(refusal(default)) };
    // A number that is newer than every table is one that libseccomp would not know either: where unlisted calls get an error, this one says
    // that it does not exist, as the other runtimes make it, so that libc falls back.
    Ok(Section {
        entry,
        calls: with_unknown(entry, calls, default),
        otherwise: unknown(default),
        x32,
    })
}

fn unknown(default: u32) -> u32 {
    if default & 0xffff_0000 == RET_ERRNO {
        RET_ERRNO | u32::from(ENOSYS)
    } else {
        default
    }
}

/// Gives every known call that no rule names the default, so that what is left over is the unknown.
fn with_unknown(entry: Entry, mut calls: BTreeMap<u32, Call>, default: u32) -> BTreeMap<u32, Call> {
    if unknown(default) != default {
        for (_, number) in entry.table() {
            calls.entry(*number).or_insert(Call {
                branches: Vec::new(),
                otherwise: default,
            });
        }
    }
    calls
}

/// What an x32 call gets that the document does not open: never less than an error.
fn refusal(default: u32) -> u32 {
    if default == RET_ALLOW || default == RET_LOG {
        RET_KILL_PROCESS
    } else {
        default
    }
}

/// A call's number, also under the older names that libseccomp keeps.
fn number(entry: Entry, name: &str) -> Option<u32> {
    let name = match name {
        "umount" if syscalls::number(entry, "umount").is_none() => "umount2",
        other => other,
    };
    syscalls::number(entry, name)
}

/// A rule's conditions: one set of which all must hold, or, where an argument is compared twice, one set for each comparison, because
/// libseccomp before 2.5 could not hold both and every runtime made alternatives of them (runc issue 2735).
fn conditions(rule: &Rule) -> Result<Vec<Vec<Condition>>, OciSeccompError> {
    let arguments = rule.args.as_deref().unwrap_or_default();
    let mut list = Vec::new();
    for argument in arguments {
        let index = u8::try_from(argument.index)
            .ok()
            .filter(|index| *index <= 5)
            .ok_or_else(|| OciSeccompError::Index {
                name: rule.names.first().cloned().unwrap_or_default(),
                index: argument.index,
            })?;
        let (operator, value) = match argument.op.as_str() {
            "SCMP_CMP_EQ" => (Operator::Eq, argument.value),
            "SCMP_CMP_NE" => (Operator::Ne, argument.value),
            "SCMP_CMP_LT" => (Operator::Lt, argument.value),
            "SCMP_CMP_LE" => (Operator::Le, argument.value),
            "SCMP_CMP_GT" => (Operator::Gt, argument.value),
            "SCMP_CMP_GE" => (Operator::Ge, argument.value),
            "SCMP_CMP_MASKED_EQ" => (
                Operator::MaskedEq(argument.value),
                argument.value_two & argument.value,
            ),
            _ => {
                return Err(OciSeccompError::Word {
                    what: "comparison",
                    word: argument.op.clone(),
                });
            }
        };
        list.push(Condition {
            argument: index,
            operator,
            value,
            width: Width::Full64,
        });
    }
    let repeated = list
        .iter()
        .enumerate()
        .any(|(n, one)| list[..n].iter().any(|two| two.argument == one.argument));
    Ok(match (list.is_empty(), repeated) {
        (true, _) => Vec::new(),
        (false, false) => vec![list],
        (false, true) => list.into_iter().map(|condition| vec![condition]).collect(),
    })
}
