//! From a plan to filters.
//!
//! Two programs are loaded, in this order:
//!
//! 1. `policy`: the whole plan. Denied calls give their errno, calls newer than the table give ENOSYS, x32 gives EPERM, other entry points
//!    (i386) kill the process, because their numbers mean other calls. Its refusals are logged where the kernel can.
//! 2. `quiet`: only what is refused by design and tried by every libc, such as `clone3`, and unknown calls. Of two filters with equal answers
//!    the kernel takes the one loaded last, so these refusals are not logged. Everything else is allowed here and left to the first.

use std::collections::BTreeMap;

use super::plan::{Action, Plan};
use crate::bpf::{AssembleError, Branch, Call, RET_ALLOW, RET_ERRNO, RET_KILL_PROCESS, Section, assemble};
use crate::confinement::{Filter, Instruction};
use crate::constants::{ENOSYS, EPERM};
use crate::kernel::{Arch, KernelFacts};
use crate::syscalls::{self, Entry};

/// seccomp(2)'s first argument when a filter is loaded.
const SET_MODE_FILTER: u64 = 1;

pub(crate) fn filters(plan: &Plan, facts: &KernelFacts) -> Result<Vec<Filter>, AssembleError> {
    let filter = |purpose: &str, log, program| Filter {
        purpose: purpose.to_owned(),
        log,
        speculation_allowed: false,
        wait_killable: false,
        listener: None,
        program,
    };
    let mut filters = vec![filter("policy", facts.seccomp_log, policy(plan, facts.arch)?)];
    // A policy that does not let the app load filters does not let us load a second one. The first alone refuses the same calls.
    let loads_another = plan.action("seccomp", &[SET_MODE_FILTER, 0, 0, 0, 0, 0]) == Action::Allow;
    if facts.seccomp_log && loads_another {
        filters.push(filter("quiet", false, quiet(plan, facts.arch)?));
    }
    Ok(filters)
}

fn answer(action: Action) -> u32 {
    match action {
        Action::Allow => RET_ALLOW,
        Action::Deny { errno, .. } => RET_ERRNO | u32::from(errno),
    }
}

fn policy(plan: &Plan, arch: Arch) -> Result<Vec<Instruction>, AssembleError> {
    let entry = Entry::from(arch);
    let denied = RET_ERRNO | u32::from(EPERM);
    // Known calls that no rule names are denied; only unknown numbers are left to `otherwise`.
    let mut calls: BTreeMap<u32, Call> = entry
        .table()
        .iter()
        .map(|(_, number)| {
            (
                *number,
                Call {
                    branches: Vec::new(),
                    otherwise: denied,
                },
            )
        })
        .collect();
    for (name, lines) in &plan.0 {
        let Some(number) = syscalls::number(entry, name) else {
            continue;
        };
        let branches = lines
            .iter()
            .map(|line| Branch {
                when: line.when.clone(),
                ret: answer(line.action),
            })
            .collect();
        calls.insert(
            number,
            Call {
                branches,
                otherwise: denied,
            },
        );
    }
    let section = Section {
        entry,
        calls,
        otherwise: RET_ERRNO | u32::from(ENOSYS),
        x32: Some(denied),
    };
    assemble(&[section], RET_KILL_PROCESS)
}

fn quiet(plan: &Plan, arch: Arch) -> Result<Vec<Instruction>, AssembleError> {
    let entry = Entry::from(arch);
    let mut calls: BTreeMap<u32, Call> = entry
        .table()
        .iter()
        .map(|(_, number)| {
            (
                *number,
                Call {
                    branches: Vec::new(),
                    otherwise: RET_ALLOW,
                },
            )
        })
        .collect();
    for (name, lines) in &plan.0 {
        let Some(number) = syscalls::number(entry, name) else {
            continue;
        };
        // An unlogged denial that stands behind other lines is reached only where those do not hold: they come along, as allowed here.
        let Some(last) = lines
            .iter()
            .rposition(|line| matches!(line.action, Action::Deny { log: false, .. }))
        else {
            continue;
        };
        let branches = lines[..=last]
            .iter()
            .map(|line| {
                let silent = matches!(line.action, Action::Deny { log: false, .. });
                let ret = if silent { answer(line.action) } else { RET_ALLOW };
                Branch {
                    when: line.when.clone(),
                    ret,
                }
            })
            .collect();
        calls.insert(
            number,
            Call {
                branches,
                otherwise: RET_ALLOW,
            },
        );
    }
    let section = Section {
        entry,
        calls,
        otherwise: RET_ERRNO | u32::from(ENOSYS),
        x32: Some(RET_ALLOW),
    };
    assemble(&[section], RET_ALLOW)
}
