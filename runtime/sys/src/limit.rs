//! Resource limits of another process (prlimit(2)).

use crate::error::{Result, checked};

/// A resource by its number (getrlimit(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource(libc::__rlimit_resource_t);

impl Resource {
    /// Finds a resource by its name in the manual, `RLIMIT_NOFILE`, or in lower case without the prefix.
    pub fn named(name: &str) -> Option<Self> {
        let upper = name.to_ascii_uppercase();
        let number = match upper.strip_prefix("RLIMIT_").unwrap_or(&upper) {
            "AS" => libc::RLIMIT_AS,
            "CORE" => libc::RLIMIT_CORE,
            "CPU" => libc::RLIMIT_CPU,
            "DATA" => libc::RLIMIT_DATA,
            "FSIZE" => libc::RLIMIT_FSIZE,
            "LOCKS" => libc::RLIMIT_LOCKS,
            "MEMLOCK" => libc::RLIMIT_MEMLOCK,
            "MSGQUEUE" => libc::RLIMIT_MSGQUEUE,
            "NICE" => libc::RLIMIT_NICE,
            "NOFILE" => libc::RLIMIT_NOFILE,
            "NPROC" => libc::RLIMIT_NPROC,
            "RSS" => libc::RLIMIT_RSS,
            "RTPRIO" => libc::RLIMIT_RTPRIO,
            "RTTIME" => libc::RLIMIT_RTTIME,
            "SIGPENDING" => libc::RLIMIT_SIGPENDING,
            "STACK" => libc::RLIMIT_STACK,
            _ => return None,
        };
        Some(Self(number))
    }
}

/// Sets a limit of a process, 0 being the caller; `u64::MAX` is unlimited. Raising a hard limit needs CAP_SYS_RESOURCE in the first
/// user namespace.
pub fn set(pid: i32, resource: Resource, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: both pointers are valid for the call, the old limit is not asked for.
    let answer = unsafe { libc::prlimit(pid, resource.0, &limit, std::ptr::null_mut()) };
    checked("prlimit", i64::from(answer)).map(drop)
}

/// The caller's own limit: soft, hard.
pub fn own(resource: Resource) -> Result<(u64, u64)> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both pointers are valid for the call, no new limit is given.
    let answer = unsafe { libc::prlimit(0, resource.0, std::ptr::null(), &mut limit) };
    checked("prlimit", i64::from(answer)).map(|_| (limit.rlim_cur, limit.rlim_max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_both_forms() {
        assert_eq!(Resource::named("RLIMIT_NOFILE"), Resource::named("nofile"));
        assert_eq!(Resource::named("RLIMIT_NOTHING"), None);
        let core = Resource::named("core").expect("known");
        set(0, core, 0, u64::MAX)
            .or_else(|_| set(0, core, 0, 0))
            .expect("lowering is always allowed");
    }
}
