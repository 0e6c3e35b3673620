//! The system call filters: loading them in their order, and seeing that they are in force.

use std::io::Read;

use std::os::fd::BorrowedFd;

use kakoi_policy::confinement::{Filter, Listener, ReceiptStep, Seccomp};
use kakoi_policy::kernel::Arch;
use kakoi_sys::CallError;
use kakoi_sys::seccomp::{Flags, load, load_with_listener, mode};

use crate::apply::step;
use crate::filter::{Verdict, verdict};

/// Sends the descriptor on which a filter's notifications are answered to its [`Listener`].
pub type Deliver<'a> = &'a mut dyn FnMut(&Listener, BorrowedFd<'_>) -> Result<(), CallError>;

/// Why the filters are not in force.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// The program runs on another architecture than the filters are for.
    #[error("the filters are for {wanted:?}, and this is {held:?}")]
    Arch {
        /// What the confinement says.
        wanted: Arch,
        /// What this is; `None` where Kakoi has no table for it.
        held: Option<Arch>,
    },
    /// A list of filters without any would be unconfined by accident.
    #[error("the list of filters is empty")]
    Empty,
    /// Filters were in force already, by whoever started us.
    #[error("system call for the filters")]
    Call(#[source] CallError),
    /// The kernel refused a filter.
    #[error("load the filter for {purpose} of {length} instructions")]
    Load {
        /// What it is for.
        purpose: String,
        /// How long it is.
        length: usize,
        /// Why.
        #[source]
        source: CallError,
    },
    /// A filter asks a listener, and nothing here can send it the descriptor: its calls would fail for ever, or this process would wait
    /// for an answer that nobody can give.
    #[error("the filter for {purpose} asks a listener that cannot be reached from here")]
    Unanswered {
        /// What it is for.
        purpose: String,
    },
    /// The listener did not take the descriptor.
    #[error("send the listener of the filter for {purpose} its descriptor")]
    Deliver {
        /// What it is for.
        purpose: String,
        /// Why.
        #[source]
        source: CallError,
    },
    /// Fewer filters are in force than were loaded.
    #[error("{held} filters are in force instead of {wanted}")]
    Count {
        /// What the kernel says.
        held: usize,
        /// How many there must be.
        wanted: usize,
    },
}

impl SeccompError {
    /// The policy rule behind the failure: the filter's purpose.
    pub(crate) fn rule(&self) -> Option<String> {
        match self {
            Self::Load { purpose, .. } | Self::Unanswered { purpose } | Self::Deliver { purpose, .. } => {
                Some(purpose.clone())
            }
            _ => None,
        }
    }
}

/// Loads the filters. Without no_new_privs needs CAP_SYS_ADMIN in the user namespace.
pub(crate) fn restrict(
    arch: Arch,
    seccomp: &Seccomp,
    mut deliver: Option<Deliver<'_>>,
) -> Result<ReceiptStep, SeccompError> {
    let filters = match seccomp {
        Seccomp::Unconfined => return Ok(step("seccomp", "unconfined")),
        Seccomp::Filters(filters) => filters,
    };
    if Arch::native() != Some(arch) {
        return Err(SeccompError::Arch {
            wanted: arch,
            held: Arch::native(),
        });
    }
    if filters.is_empty() {
        return Err(SeccompError::Empty);
    }
    // Opened before the filters: they may refuse it. The file tells at the time of reading what is in force then.
    let mut status = std::fs::File::open("/proc/self/status").ok();
    let before = status.as_mut().and_then(filter_count);
    for filter in filters {
        load_one(filter, arch, &mut deliver)?;
    }
    let after = status
        .filter(|_| answers(filters, arch, SYS_READ))
        .as_mut()
        .and_then(filter_count);
    let held = match (before, after) {
        (Some(before), Some(after)) => {
            let held = after.saturating_sub(before);
            if held != filters.len() {
                return Err(SeccompError::Count {
                    held,
                    wanted: filters.len(),
                });
            }
            format!("{held} filters")
        }
        // No /proc, a kernel before 5.9, or filters that do not let it be read: the mode tells, unless they refuse that too, and then
        // that refusal does.
        _ => in_force(filters, arch)?,
    };
    let purposes: Vec<&str> = filters.iter().map(|filter| filter.purpose.as_str()).collect();
    Ok(step("seccomp", format!("{held}: {}", purposes.join(", "))))
}

fn load_one(filter: &Filter, arch: Arch, deliver: &mut Option<Deliver<'_>>) -> Result<(), SeccompError> {
    let program: Vec<_> = filter.program.iter().map(|i| (i.0, i.1, i.2, i.3)).collect();
    let mut flags = if filter.log { Flags::LOG } else { Flags::NONE };
    if filter.speculation_allowed {
        flags = flags.with(Flags::SPECULATION_ALLOW);
    }
    let failed = |source| SeccompError::Load {
        purpose: filter.purpose.clone(),
        length: program.len(),
        source,
    };
    let Some(listener) = &filter.listener else {
        return load(&program, flags).map_err(failed);
    };
    if filter.wait_killable {
        flags = flags.with(Flags::WAIT_KILLABLE);
    }
    let purpose = || filter.purpose.clone();
    // The descriptor is sent under the filter itself, which must let that through without asking.
    let sends = verdict(&filter.program, arch, SYS_SENDMSG) == Verdict::Allow;
    let deliver = match deliver {
        Some(deliver) if sends => deliver,
        _ => return Err(SeccompError::Unanswered { purpose: purpose() }),
    };
    let descriptor = load_with_listener(&program, flags).map_err(failed)?;
    deliver(listener, std::os::fd::AsFd::as_fd(&descriptor)).map_err(|source| SeccompError::Deliver {
        purpose: purpose(),
        source,
    })
}

fn in_force(filters: &[Filter], arch: Arch) -> Result<String, SeccompError> {
    if !answers(filters, arch, SYS_PRCTL) {
        return Ok(format!("{} filters accepted", filters.len()));
    }
    match mode().map_err(SeccompError::Call)? {
        2 => Ok(format!("{} filters accepted, mode 2", filters.len())),
        _ => Err(SeccompError::Count {
            held: 0,
            wanted: filters.len(),
        }),
    }
}

#[cfg(target_arch = "x86_64")]
const SYS_READ: u32 = 0;
#[cfg(target_arch = "x86_64")]
const SYS_PRCTL: u32 = 157;
#[cfg(target_arch = "x86_64")]
const SYS_SENDMSG: u32 = 46;
#[cfg(target_arch = "aarch64")]
const SYS_READ: u32 = 63;
#[cfg(target_arch = "aarch64")]
const SYS_PRCTL: u32 = 167;
#[cfg(target_arch = "aarch64")]
const SYS_SENDMSG: u32 = 211;

/// Whether every filter lets a call through, so that asking with it neither fails nor kills.
fn answers(filters: &[Filter], arch: Arch, call: u32) -> bool {
    filters
        .iter()
        .all(|filter| verdict(&filter.program, arch, call) == Verdict::Allow)
}

/// `Seccomp_filters:` of proc_pid_status(5), since Linux 5.9.
fn filter_count(status: &mut std::fs::File) -> Option<usize> {
    use std::io::Seek;
    // The kernel writes about 1.5 KiB; 16 KiB leaves room for long lists of groups without trusting it.
    let mut text = String::new();
    status.rewind().ok()?;
    status.take(16 << 10).read_to_string(&mut text).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Seccomp_filters:"))?;
    line.trim().parse().ok()
}
