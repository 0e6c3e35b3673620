//! Capability sets as the kernel's own numbers.
//!
//! `caps` sets them by name. This module reads all five back, and reaches the numbers that a newer kernel knows and `caps` does not, so
//! that what is verified does not rest on the same table as what was set.

use nix::errno::Errno;

use crate::error::{CallError, Named, Result, checked};

/// The last capability number a mask of 64 bits can hold.
pub const NUMBER_MAX: u8 = 63;

/// The three sets of capget(2), bit n being number n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    /// What the process holds.
    pub permitted: u64,
    /// What the kernel checks.
    pub effective: u64,
    /// What survives `execve` of a program with file capabilities.
    pub inheritable: u64,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`: 64-bit sets, since Linux 2.6.26.
const VERSION_3: u32 = 0x2008_0522;

/// Reads the calling thread's sets.
pub fn sets() -> Result<Sets> {
    let mut header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let mut halves = [Half::default(); 2];
    // SAFETY: version 3 reads the header and writes two halves, all of which outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, halves.as_mut_ptr()) };
    checked("capget", done)?;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok(Sets {
        permitted: join(halves[0].permitted, halves[1].permitted),
        effective: join(halves[0].effective, halves[1].effective),
        inheritable: join(halves[0].inheritable, halves[1].inheritable),
    })
}

/// Sets the calling thread's sets, all three at once. Bits that the kernel does not know are refused or ignored by it.
pub fn set_sets(sets: Sets) -> Result<()> {
    let mut header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let half = |shift: u32| Half {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let halves = [half(0), half(32)];
    // SAFETY: version 3 reads the header and two halves, all of which outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, halves.as_ptr()) };
    checked("capset", done).map(drop)
}

/// Reads the bounding set by asking for every number that the kernel knows.
pub fn bounding() -> Result<u64> {
    collect(|number| {
        // SAFETY: takes and returns plain numbers.
        let value = unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(number), 0, 0, 0) };
        checked("prctl(PR_CAPBSET_READ)", libc::c_long::from(value))
    })
}

/// Reads the ambient set by asking for every number that the kernel knows (since Linux 4.3).
pub fn ambient() -> Result<u64> {
    collect(|number| {
        // SAFETY: takes and returns plain numbers.
        let value = unsafe {
            libc::prctl(
                libc::PR_CAP_AMBIENT,
                libc::PR_CAP_AMBIENT_IS_SET,
                libc::c_ulong::from(number),
                0,
                0,
            )
        };
        checked("prctl(PR_CAP_AMBIENT)", libc::c_long::from(value))
    })
}

/// The last capability number that the kernel knows.
pub fn last() -> Result<u8> {
    let mut last = None;
    for number in 0..=NUMBER_MAX {
        // SAFETY: takes and returns plain numbers.
        let value = unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(number), 0, 0, 0) };
        match checked("prctl(PR_CAPBSET_READ)", libc::c_long::from(value)) {
            Ok(_) => last = Some(number),
            Err(CallError {
                errno: Errno::EINVAL, ..
            }) => break,
            Err(error) => return Err(error),
        }
    }
    last.ok_or(CallError {
        call: "prctl(PR_CAPBSET_READ)",
        errno: Errno::EINVAL,
    })
}

fn collect(ask: impl Fn(u8) -> Result<libc::c_long>) -> Result<u64> {
    let mut held = 0;
    for number in 0..=NUMBER_MAX {
        match ask(number) {
            Ok(0) => {}
            Ok(_) => held |= 1 << number,
            Err(CallError {
                errno: Errno::EINVAL, ..
            }) if number > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(held)
}

/// Takes one number out of the bounding set. Needs CAP_SETPCAP in the user namespace.
pub fn drop_bounding(number: u8) -> Result<()> {
    // SAFETY: takes and returns plain numbers.
    let done = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) };
    checked("prctl(PR_CAPBSET_DROP)", libc::c_long::from(done)).map(drop)
}

/// Empties the ambient set (since Linux 4.3).
pub fn clear_ambient() -> Result<()> {
    // SAFETY: takes and returns plain numbers.
    let done = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    checked("prctl(PR_CAP_AMBIENT)", libc::c_long::from(done)).map(drop)
}

/// Puts one number, which must be permitted and inheritable, into the ambient set.
pub fn raise_ambient(number: u8) -> Result<()> {
    // SAFETY: takes and returns plain numbers.
    let done = unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_RAISE,
            libc::c_ulong::from(number),
            0,
            0,
        )
    };
    checked("prctl(PR_CAP_AMBIENT)", libc::c_long::from(done)).map(drop)
}

/// Reads the secure bits (capabilities(7)); 0 is the usual meaning of user 0.
pub fn secure_bits() -> Result<u32> {
    // SAFETY: takes and returns plain numbers.
    let bits = unsafe { libc::prctl(libc::PR_GET_SECUREBITS, 0, 0, 0, 0) };
    Errno::result(bits)
        .named("prctl(PR_GET_SECUREBITS)")
        .map(|bits| bits as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_agrees_with_proc() {
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("proc is mounted");
        let field = |name: &str| {
            let line = status
                .lines()
                .find(|line| line.starts_with(name))
                .expect("the kernel writes it");
            u64::from_str_radix(line.split_whitespace().nth(1).expect("it has a value"), 16)
                .expect("it is hex")
        };
        let sets = sets().expect("capget works");
        assert_eq!(sets.permitted, field("CapPrm:"));
        assert_eq!(sets.effective, field("CapEff:"));
        assert_eq!(sets.inheritable, field("CapInh:"));
        assert_eq!(bounding(), Ok(field("CapBnd:")));
        assert_eq!(ambient(), Ok(field("CapAmb:")));
    }

    #[test]
    fn the_last_capability_is_the_kernels_own() {
        let last_cap = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").expect("proc is mounted");
        assert_eq!(last(), Ok(last_cap.trim().parse().expect("a number")));
    }

    #[test]
    fn an_unknown_number_is_refused() {
        assert_eq!(drop_bounding(63).map_err(|e| e.errno), Err(Errno::EINVAL));
        assert!(raise_ambient(63).is_err());
    }
}
