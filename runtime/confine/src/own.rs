//! What Kakoi's own processes keep for themselves.
//!
//! Owns the lists of capabilities that the daemon and the shim need, and the giving up of the rest. Why each entry is
//! there stands in `runtime/ARCHITECTURE.md`, "What Kakoi itself holds", which a test compares with running processes. Invariant: nothing here ever adds: a process that
//! was started with less than a list names runs with less.
//!
//! Root executes with its whole bounding set, so the daemon's bounding set is what a shim may need, and with it what the owner's ceiling lets a
//! container have; what the daemon itself holds is far less.

use caps::Capability::{
    self, CAP_AUDIT_READ, CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_KILL, CAP_MKNOD,
    CAP_NET_ADMIN, CAP_NET_BIND_SERVICE, CAP_SETFCAP, CAP_SETGID, CAP_SETPCAP, CAP_SETUID, CAP_SYS_ADMIN,
    CAP_SYS_CHROOT, CAP_SYS_PTRACE, CAP_SYS_RESOURCE,
};
use kakoi_policy::confinement::{CapabilitySets, Confinement};
use kakoi_sys::capability as kernel;

use crate::capability::{CapabilityError, drop_bounding, verify};
use crate::identity::{self, IdentityError};

/// The daemon's own work: layers and volumes with their owners, modes, nodes and extended attributes, the kernel's records of refusals, and
/// networks with published ports.
const DAEMON: [Capability; 10] = [
    CAP_AUDIT_READ,
    CAP_CHOWN,
    CAP_DAC_OVERRIDE,
    CAP_FOWNER,
    CAP_FSETID,
    CAP_MKNOD,
    CAP_NET_ADMIN,
    CAP_NET_BIND_SERVICE,
    CAP_SETFCAP,
    CAP_SYS_ADMIN,
];

/// A shim's while it makes a container.
const MAKING: [Capability; 15] = [
    CAP_CHOWN,
    CAP_DAC_OVERRIDE,
    CAP_FOWNER,
    CAP_FSETID,
    CAP_KILL,
    CAP_MKNOD,
    CAP_NET_ADMIN,
    CAP_SETFCAP,
    CAP_SETGID,
    CAP_SETPCAP,
    CAP_SETUID,
    CAP_SYS_ADMIN,
    CAP_SYS_CHROOT,
    CAP_SYS_PTRACE,
    CAP_SYS_RESOURCE,
];

/// A shim's while its container runs: to signal it, to add processes, to take it apart.
const SUPERVISING: [Capability; 10] = [
    CAP_CHOWN,
    CAP_DAC_OVERRIDE,
    CAP_KILL,
    CAP_SETGID,
    CAP_SETPCAP,
    CAP_SETUID,
    CAP_SYS_ADMIN,
    CAP_SYS_CHROOT,
    CAP_SYS_PTRACE,
    CAP_SYS_RESOURCE,
];

/// What reads and writes the files of a container from outside, whoever they belong to.
const FILES: [Capability; 5] = [CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_SETFCAP];

/// Why privileges were not given up.
#[derive(Debug, thiserror::Error)]
pub enum NarrowError {
    /// A capability set.
    #[error("give up capabilities")]
    Capability(#[source] CapabilityError),
    /// no_new_privs.
    #[error("give up new privileges")]
    Identity(#[source] IdentityError),
}

/// A part that a process of ours plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// The daemon, under a ceiling.
    Daemon {
        /// Capabilities that a container may be given at most.
        containers: u64,
        /// Whether no container may gain privileges by `execve`: then nothing that the daemon starts may.
        no_new_privileges: bool,
        /// Whether the device's interfaces are declared: then it looks for the processes behind ports, whatever these hold.
        guards_device: bool,
    },
    /// The shim from its plan to the app's start.
    Making(Granted<'a>),
    /// The shim from then on.
    Supervising(Granted<'a>),
    /// The shim that copies files, once it sees nothing but the container's.
    Files {
        /// Whether it reads attributes that only the host's root may (`trusted.overlay.*`).
        attributes: bool,
    },
}

/// What a container is given, which its shim must hold to hand it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted<'a> {
    /// The container's confinement.
    pub confinement: &'a Confinement,
    /// Whether it has a user namespace of its own: who enters one holds every capability there, and needs none here.
    pub has_user_namespace: bool,
}

impl Granted<'_> {
    fn mask(self) -> u64 {
        let sets = self.confinement.capabilities;
        match self.has_user_namespace {
            true => 0,
            false => sets.bounding | sets.permitted | sets.inheritable | sets.ambient,
        }
    }
}

impl Part<'_> {
    /// The bounding set, and what is held.
    fn sets(self) -> (u64, u64) {
        match self {
            Self::Daemon {
                containers,
                no_new_privileges,
                guards_device,
            } => {
                let bounding = mask(&DAEMON) | mask(&MAKING) | containers;
                // Under no_new_privs `execve` gives no more than is held.
                let held = if no_new_privileges {
                    bounding
                } else {
                    mask(&DAEMON) | guard_mask(guards_device)
                };
                (bounding, held)
            }
            Self::Making(granted) => {
                let kept = mask(&MAKING) | granted.mask();
                (kept, kept)
            }
            Self::Supervising(granted) => {
                let kept = mask(&SUPERVISING) | granted.mask();
                (kept, kept)
            }
            Self::Files { attributes } => {
                let more = if attributes { mask(&[CAP_SYS_ADMIN]) } else { 0 };
                (mask(&FILES) | more, mask(&FILES) | more)
            }
        }
    }

    fn effective(self, held: u64) -> u64 {
        match self {
            Self::Daemon { guards_device, .. } => held & (mask(&DAEMON) | guard_mask(guards_device)),
            Self::Making(_) | Self::Supervising(_) | Self::Files { .. } => held,
        }
    }

    fn no_new_privileges(self) -> bool {
        match self {
            Self::Daemon {
                no_new_privileges, ..
            } => no_new_privileges,
            Self::Making(granted) | Self::Supervising(granted) => granted.confinement.no_new_privileges,
            Self::Files { .. } => true,
        }
    }
}

/// Gives up everything that the part does not need, for good, and reads back that it is gone; nothing stays inheritable or ambient.
///
/// Capabilities are a thread's own: call it while the process has one. Needs CAP_SETPCAP, which a daemon has no more afterwards.
pub fn narrow(part: Part<'_>) -> Result<(), NarrowError> {
    narrow_sets(part).map_err(NarrowError::Capability)?;
    if part.no_new_privileges() {
        identity::set_no_new_privileges().map_err(NarrowError::Identity)?;
    }
    Ok(())
}

fn narrow_sets(part: Part<'_>) -> Result<(), CapabilityError> {
    let call = |set| move |source| CapabilityError::Call { set, source };
    let (bounding, permitted) = part.sets();
    let held = kernel::sets().map_err(call("permitted"))?;
    let bounding = bounding & kernel::bounding().map_err(call("bounding"))?;
    drop_bounding(bounding)?;
    kernel::clear_ambient().map_err(call("ambient"))?;
    let permitted = permitted & held.permitted;
    let wanted = CapabilitySets {
        bounding,
        permitted,
        effective: part.effective(permitted),
        inheritable: 0,
        ambient: 0,
    };
    kernel::set_sets(kernel::Sets {
        permitted: wanted.permitted,
        effective: wanted.effective,
        inheritable: wanted.inheritable,
    })
    .map_err(call("permitted"))?;
    verify(wanted).map(drop)
}

/// Whose a port is stands in a folder that is closed to whoever holds less than the process (ptrace(2), access mode checks).
fn guard_mask(guards_device: bool) -> u64 {
    match guards_device {
        true => mask(&[CAP_SYS_PTRACE]),
        false => 0,
    }
}

fn mask(list: &[Capability]) -> u64 {
    list.iter()
        .fold(0, |bits, capability| bits | capability.bitmask())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAEMON_OF_STRICT: Part<'static> = Part::Daemon {
        containers: 0,
        no_new_privileges: false,
        guards_device: false,
    };

    #[test]
    fn each_part_keeps_no_more_than_the_one_before() {
        let (bounding, held) = DAEMON_OF_STRICT.sets();
        assert_eq!(held & !bounding, 0);
        assert_eq!(
            mask(&MAKING) & !bounding,
            0,
            "a shim executed by the daemon gets its list"
        );
        assert_eq!(mask(&SUPERVISING) & !mask(&MAKING), 0);
        assert_eq!(mask(&FILES) & !mask(&MAKING), 0);
        assert_ne!(held, bounding);
    }

    #[test]
    fn nobody_keeps_what_changes_the_kernel_itself() {
        use Capability::*;
        let never = [
            CAP_SYS_MODULE,
            CAP_SYS_RAWIO,
            CAP_SYS_TIME,
            CAP_SYS_BOOT,
            CAP_SYS_PACCT,
            CAP_SYS_TTY_CONFIG,
            CAP_MAC_ADMIN,
            CAP_MAC_OVERRIDE,
            CAP_SYSLOG,
            CAP_WAKE_ALARM,
            CAP_BLOCK_SUSPEND,
            CAP_AUDIT_CONTROL,
            CAP_LINUX_IMMUTABLE,
            CAP_BPF,
            CAP_PERFMON,
        ];
        let (bounding, _) = DAEMON_OF_STRICT.sets();
        assert_eq!(bounding & mask(&never), 0);
    }

    #[test]
    fn under_no_new_privileges_a_shim_still_gets_what_it_needs() {
        let part = Part::Daemon {
            containers: CAP_SYS_TIME_BIT,
            no_new_privileges: true,
            guards_device: false,
        };
        let (bounding, held) = part.sets();
        assert_eq!(held, bounding);
        assert_eq!(held & CAP_SYS_TIME_BIT, CAP_SYS_TIME_BIT);
        assert_eq!(part.effective(held), mask(&DAEMON));
    }

    const CAP_SYS_TIME_BIT: u64 = 1 << 25;
}
