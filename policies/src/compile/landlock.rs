//! From `files`, `network` and `scope` to a landlock ruleset, cut to what the kernel's ABI knows.
//!
//! Owns which right needs which ABI, and what is lost below it. Bits are the kernel's (`linux/landlock.h`).

use super::plan::{Action, Plan};
use super::{CompileError, refused};
use crate::compose::Composed;
use crate::confinement::{Landlock, LandlockRuleset, Loss, NetworkMode, PathRule, PortRule};
use crate::diagnostics::Origin;
use crate::kernel::KernelFacts;
use crate::model::{DeviceSubject, Enforce, Files, PathEntry, Ports, ScopeEntry};
use crate::request::HostNamespace;

pub(crate) const EXECUTE: u64 = 1;
pub(crate) const WRITE_FILE: u64 = 1 << 1;
pub(crate) const READ_FILE: u64 = 1 << 2;
pub(crate) const READ_DIR: u64 = 1 << 3;
const REMOVE_DIR: u64 = 1 << 4;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_DIR: u64 = 1 << 7;
const MAKE_REG: u64 = 1 << 8;
const MAKE_SOCK: u64 = 1 << 9;
const MAKE_FIFO: u64 = 1 << 10;
const MAKE_SYM: u64 = 1 << 12;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
pub(crate) const BIND_TCP: u64 = 1;
pub(crate) const CONNECT_TCP: u64 = 1 << 1;
pub(crate) const SCOPE_ABSTRACT: u64 = 1;
pub(crate) const SCOPE_SIGNAL: u64 = 1 << 1;

/// What `read` grants.
pub(crate) const READ: u64 = READ_FILE | READ_DIR;
/// What `execute` grants; reading belongs to it, because interpreters and loaders read what they run.
pub(crate) const RUN: u64 = EXECUTE | READ_FILE;
/// What `write` grants: contents and names, but never device nodes.
pub(crate) const WRITE: u64 = WRITE_FILE
    | TRUNCATE
    | REMOVE_DIR
    | REMOVE_FILE
    | MAKE_DIR
    | MAKE_REG
    | MAKE_SOCK
    | MAKE_FIFO
    | MAKE_SYM
    | REFER;

/// The newest ABI whose rights this version of the language uses.
const ABI_MAX: u32 = 6;

/// The file rights that an ABI controls.
fn handled_fs(abi: u32) -> u64 {
    match abi {
        0 => 0,
        1 => (1 << 13) - 1,
        2 => (1 << 14) - 1,
        3 | 4 => (1 << 15) - 1,
        _ => (1 << 16) - 1,
    }
}

/// The nodes that `devices: [standard]` opens, with the folder of pseudo-terminals.
const STANDARD_NODES: [&str; 9] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/console",
    "/dev/ptmx",
    "/dev/pts",
];

pub(super) fn compile(
    policy: &Composed,
    plan: &Plan,
    facts: &KernelFacts,
    losses: &mut Vec<Loss>,
) -> Result<Landlock, CompileError> {
    let abi = facts.landlock_abi.min(ABI_MAX);
    let mut ruleset = LandlockRuleset {
        abi,
        handled_fs: 0,
        handled_net: 0,
        scoped: 0,
        paths: Vec::new(),
        ports: Vec::new(),
    };
    files(policy, abi, &mut ruleset, losses)?;
    network(policy, plan, abi, &mut ruleset, losses)?;
    scopes(policy, abi, &mut ruleset, losses)?;
    let handles_nothing = ruleset.handled_fs == 0 && ruleset.handled_net == 0 && ruleset.scoped == 0;
    Ok(if handles_nothing {
        Landlock::Unconfined
    } else {
        Landlock::Ruleset(ruleset)
    })
}

fn fact(abi: u32, what: &str, needs: u32) -> String {
    if abi == 0 {
        return "this kernel has no landlock, or it is off".to_owned();
    }
    format!("landlock ABI {abi} of this kernel cannot restrict {what}; ABI {needs} can")
}

fn files(
    policy: &Composed,
    abi: u32,
    ruleset: &mut LandlockRuleset,
    losses: &mut Vec<Loss>,
) -> Result<(), CompileError> {
    let section = &policy.rules.files;
    if section.unconfined.is_some() {
        return Ok(());
    }
    let lists = [
        ("files.read", READ, &section.read),
        ("files.write", WRITE, &section.write),
        ("files.execute", RUN, &section.execute),
    ];
    if section.execute.is_empty() {
        return Err(CompileError::NothingExecutable {
            policy: policy.name.clone(),
        });
    }
    if let Some(min) = &section.abi_min
        && abi < min.value
    {
        return Err(refused(
            &min.origin,
            "files.landlock_abi",
            &fact(abi, "what this policy needs", min.value),
        ));
    }
    if abi == 0 {
        for (says, _, entries) in lists {
            if let Some(entry) = entries.iter().find(|entry| entry.enforce == Enforce::Required) {
                return Err(refused(&entry.origin, says, &fact(0, "", 1)));
            }
        }
        losses.push(Loss {
            rule: "files".to_owned(),
            fact: fact(0, "", 1),
        });
        return Ok(());
    }
    later_rights(section, abi, losses)?;
    ruleset.handled_fs = handled_fs(abi);
    for (says, access, entries) in lists {
        for entry in entries {
            ruleset.paths.push(path_rule(
                entry,
                access | device_right(&entry.path, says),
                says,
                ruleset.handled_fs,
            ));
        }
    }
    devices(policy, ruleset);
    Ok(())
}

/// Rights over files that only later ABIs control: a rule that is required is required whole, unless the policy names the lowest ABI that will
/// do, which says that what later ones add is not needed.
fn later_rights(section: &Files, abi: u32, losses: &mut Vec<Loss>) -> Result<(), CompileError> {
    let required = [
        ("files.read", &section.read),
        ("files.write", &section.write),
        ("files.execute", &section.execute),
    ]
    .into_iter()
    .flat_map(|(says, entries)| entries.iter().map(move |entry| (says, entry)))
    .find(|(_, entry)| entry.enforce == Enforce::Required);
    for (needs, what) in [
        (3, "truncating files that may not be written"),
        (5, "ioctl on devices"),
    ] {
        if abi >= needs {
            continue;
        }
        let fact = fact(abi, what, needs);
        if let (None, Some((says, entry))) = (&section.abi_min, required) {
            let choice = format!("{fact} (where that will do, write `files: {{landlock_abi: {abi}}}`)");
            return Err(refused(&entry.origin, says, &choice));
        }
        losses.push(Loss {
            rule: "files".to_owned(),
            fact,
        });
    }
    Ok(())
}

/// Writing below `/dev` includes the requests that terminals and other devices take.
fn device_right(path: &str, says: &str) -> u64 {
    let below = path == "/" || path == "/dev" || path.starts_with("/dev/");
    if says == "files.write" && below {
        IOCTL_DEV
    } else {
        0
    }
}

fn path_rule(entry: &PathEntry, access: u64, says: &str, handled: u64) -> PathRule {
    PathRule {
        path: entry.path.clone(),
        access: access & handled,
        optional: entry.optional,
        rule: format!("{} {says}", entry.origin),
    }
}

/// A device that may be opened is one that landlock must let through.
fn devices(policy: &Composed, ruleset: &mut LandlockRuleset) {
    for entry in &policy.rules.devices {
        let mut access = 0;
        if entry.access.read {
            access |= READ | IOCTL_DEV;
        }
        if entry.access.write {
            access |= WRITE_FILE | TRUNCATE | IOCTL_DEV;
        }
        let paths: Vec<&str> = match &entry.subject {
            DeviceSubject::Standard => STANDARD_NODES.to_vec(),
            DeviceSubject::All | DeviceSubject::Numbers { .. } => vec!["/dev"],
            // The nodes a glob stands for are found when the container starts. Its folder holds only nodes that the device rules allow.
            DeviceSubject::Path(path) if path.contains(['*', '?', '[']) => vec![fixed_folder(path)],
            DeviceSubject::Path(path) => vec![path],
        };
        for path in paths {
            ruleset.paths.push(PathRule {
                path: path.to_owned(),
                access: access & ruleset.handled_fs,
                optional: true,
                rule: format!("{} devices", entry.origin),
            });
        }
    }
    ruleset.paths.retain(|rule| rule.access != 0);
}

/// The part of a glob up to the last slash before its first wildcard.
fn fixed_folder(glob: &str) -> &str {
    let wild = glob.find(['*', '?', '[']).unwrap_or(glob.len());
    glob[..wild]
        .rfind('/')
        .map_or("/", |slash| if slash == 0 { "/" } else { &glob[..slash] })
}

fn network(
    policy: &Composed,
    plan: &Plan,
    abi: u32,
    ruleset: &mut LandlockRuleset,
    losses: &mut Vec<Loss>,
) -> Result<(), CompileError> {
    for (ports, right, says) in [
        (&policy.rules.network.bind, BIND_TCP, "network.bind"),
        (&policy.rules.network.connect, CONNECT_TCP, "network.connect"),
    ] {
        if ports.any.is_some() {
            continue;
        }
        if abi >= 4 {
            ruleset.handled_net |= right;
            ruleset.ports.extend(port_rules(ports, right, says));
        } else if !tcp_sockets_are_closed(plan) {
            if let Some(entry) = ports
                .entries
                .iter()
                .find(|entry| entry.enforce == Enforce::Required)
            {
                return Err(refused(&entry.origin, says, &fact(abi, "TCP ports", 4)));
            }
            losses.push(Loss {
                rule: says.to_owned(),
                fact: fact(abi, "TCP ports", 4),
            });
        }
    }
    Ok(())
}

/// Whether the system call filter already refuses every TCP socket, which is as good as a rule on ports that grants none.
fn tcp_sockets_are_closed(plan: &Plan) -> bool {
    [2, 10]
        .iter()
        .all(|domain| plan.action("socket", &[*domain, 1, 0, 0, 0, 0]) != Action::Allow)
}

fn port_rules(ports: &Ports, access: u64, says: &str) -> Vec<PortRule> {
    ports
        .entries
        .iter()
        .flat_map(|entry| {
            let rule = format!("{} {says}", entry.origin);
            (entry.first..=entry.last).map(move |port| PortRule {
                port,
                access,
                rule: rule.clone(),
            })
        })
        .collect()
}

/// Scopes are set only where a namespace of the container's own does not already keep it among its own: landlock domains of the first process
/// and of an `exec` are siblings, and a scope would cut them off from each other too.
fn scopes(
    policy: &Composed,
    abi: u32,
    ruleset: &mut LandlockRuleset,
    losses: &mut Vec<Loss>,
) -> Result<(), CompileError> {
    let host_pids = policy
        .host_namespaces
        .iter()
        .any(|n| n.value == HostNamespace::Pid);
    let host_network = policy.network_mode() == NetworkMode::Host;
    for (entry, shared, bit, says, what) in [
        (
            &policy.rules.scope.signals,
            host_pids,
            SCOPE_SIGNAL,
            "scope.signals",
            "signals",
        ),
        (
            &policy.rules.scope.abstract_sockets,
            host_network,
            SCOPE_ABSTRACT,
            "scope.abstract_sockets",
            "abstract unix sockets",
        ),
    ] {
        if !shared || !confined(entry.as_ref()) {
            continue;
        }
        if abi >= 6 {
            ruleset.scoped |= bit;
            continue;
        }
        match entry {
            Some(entry) if entry.enforce == Enforce::Required => {
                return Err(refused(&entry.origin, says, &fact(abi, what, 6)));
            }
            _ => losses.push(Loss {
                rule: says.to_owned(),
                fact: fact(abi, what, 6),
            }),
        }
    }
    Ok(())
}

/// A scope that no document mentions is confined, as everything is that nothing grants.
pub(crate) fn confined(entry: Option<&ScopeEntry>) -> bool {
    entry.is_none_or(|entry| entry.confined)
}

/// The rules of a section that would grant a right on a path, the most specific first; for explaining.
pub(crate) fn granting<'a>(entries: &'a [PathEntry], path: &str) -> Option<&'a Origin> {
    entries
        .iter()
        .filter(|entry| covers(&entry.path, path))
        .max_by_key(|entry| entry.path.len())
        .map(|entry| &entry.origin)
}

/// Whether a path is a folder or lies below it, by whole components.
pub(crate) fn covers(folder: &str, path: &str) -> bool {
    folder == "/"
        || path == folder
        || path
            .strip_prefix(folder)
            .is_some_and(|rest| rest.starts_with('/'))
}
