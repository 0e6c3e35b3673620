//! All five capability sets: what is wanted, what must be held until `execve`, setting them, and reading them back.
//!
//! Sets are set through `caps` and read back as the kernel's numbers through `kakoi-sys`, so that the two cannot be wrong together.

use kakoi_policy::confinement::{CapabilitySets, Confinement, Identity, ReceiptStep};
use kakoi_sys::{CallError, capability as kernel};

use crate::apply::step;

const SYS_ADMIN: u64 = 1 << 21;

/// Why the sets are not as wanted.
#[derive(Debug, thiserror::Error)]
pub enum CapabilityError {
    /// A call that sets or reads a set failed.
    #[error("system call for the {set} set")]
    Call {
        /// Which set.
        set: &'static str,
        /// The call and why.
        #[source]
        source: CallError,
    },
    /// `caps` could not set a set.
    #[error("set the {set} set")]
    Set {
        /// Which set.
        set: &'static str,
        /// Why.
        #[source]
        source: caps::errors::CapsError,
    },
    /// The kernel holds another set than the confinement says.
    #[error("the {set} set is {held:#x} instead of {wanted:#x} ({names})")]
    Differs {
        /// Which set.
        set: &'static str,
        /// What the kernel says.
        held: u64,
        /// What the confinement says.
        wanted: u64,
        /// The capabilities in which they differ, by name.
        names: String,
    },
}

/// The sets that a process of this identity has once it runs.
///
/// Those of the confinement for its own user. For another one what `execve` itself would give, within the same bounds: user 0 gets the
/// bounding set, anyone else nothing but the ambient set.
pub fn capabilities_for(confinement: &Confinement, identity: &Identity) -> CapabilitySets {
    let own = confinement.capabilities;
    if identity.uid == confinement.identity.uid {
        return own;
    }
    let held = if identity.uid == 0 {
        own.bounding
    } else {
        own.ambient
    };
    CapabilitySets {
        bounding: own.bounding,
        permitted: held,
        effective: held,
        inheritable: if identity.uid == 0 { 0 } else { own.ambient },
        ambient: if identity.uid == 0 { 0 } else { own.ambient },
    }
}

/// What libcontainer must leave to the first process before [`apply`](crate::apply): the confinement's sets and, without no_new_privs,
/// CAP_SYS_ADMIN, which landlock and seccomp need then. It is in neither the bounding nor the ambient set, so `execve` takes it.
pub fn capabilities_before_apply(confinement: &Confinement) -> CapabilitySets {
    until_execve(confinement.no_new_privileges, confinement.capabilities)
}

pub(crate) fn until_execve(no_new_privileges: bool, sets: CapabilitySets) -> CapabilitySets {
    let extra = if no_new_privileges { 0 } else { SYS_ADMIN };
    CapabilitySets {
        permitted: sets.permitted | extra,
        effective: sets.effective | extra,
        ..sets
    }
}

/// Takes everything that is not in `bounding` out of the bounding set, also numbers that no table of ours names.
pub(crate) fn drop_bounding(bounding: u64) -> Result<(), CapabilityError> {
    let call = |source| CapabilityError::Call {
        set: "bounding",
        source,
    };
    let held = kernel::bounding().map_err(call)?;
    for number in numbers(held & !bounding) {
        kernel::drop_bounding(number).map_err(call)?;
    }
    Ok(())
}

/// Sets the other four. The bounding set must have been cut before.
pub(crate) fn set(sets: CapabilitySets) -> Result<(), CapabilityError> {
    use caps::CapSet::{Ambient, Effective, Inheritable, Permitted};
    // The ambient set first to nothing, or lowering the others would be judged against it. The effective set must be within the permitted
    // one at each moment, so it shrinks first; it was emptied if the user changed, so it grows again last.
    let named = |bits| names_of(bits).collect::<caps::CapsHashSet>();
    for (set, name, bits) in [
        (Ambient, "ambient", 0),
        (Effective, "effective", 0),
        // Before the permitted set shrinks, which bounds what may become inheritable.
        (Inheritable, "inheritable", sets.inheritable),
        (Permitted, "permitted", sets.permitted),
        (Effective, "effective", sets.effective),
        (Ambient, "ambient", sets.ambient),
    ] {
        caps::set(None, set, &named(bits)).map_err(|source| CapabilityError::Set { set: name, source })?;
    }
    Ok(())
}

/// Compares all five sets, bit for bit, with what must be held.
pub(crate) fn verify(wanted: CapabilitySets) -> Result<ReceiptStep, CapabilityError> {
    let call = |set| move |source| CapabilityError::Call { set, source };
    let sets = kernel::sets().map_err(call("permitted"))?;
    let bounding = kernel::bounding().map_err(call("bounding"))?;
    let ambient = kernel::ambient().map_err(call("ambient"))?;
    for (set, held, wanted) in [
        ("bounding", bounding, wanted.bounding),
        ("permitted", sets.permitted, wanted.permitted),
        ("effective", sets.effective, wanted.effective),
        ("inheritable", sets.inheritable, wanted.inheritable),
        ("ambient", ambient, wanted.ambient),
    ] {
        if held != wanted {
            return Err(CapabilityError::Differs {
                set,
                held,
                wanted,
                names: list(held ^ wanted),
            });
        }
    }
    let held = format!(
        "bounding {bounding:#x}, permitted {:#x}, effective {:#x}, inheritable {:#x}, ambient {ambient:#x}{}",
        sets.permitted,
        sets.effective,
        sets.inheritable,
        if sets.permitted & !bounding == 0 {
            ""
        } else {
            "; execve takes what is not bounded"
        },
    );
    Ok(step("capabilities", held))
}

fn numbers(bits: u64) -> impl Iterator<Item = u8> {
    (0..=kernel::NUMBER_MAX).filter(move |number| bits & 1 << number != 0)
}

fn names_of(bits: u64) -> impl Iterator<Item = caps::Capability> {
    caps::all()
        .into_iter()
        .filter(move |capability| bits & capability.bitmask() != 0)
}

/// Names capabilities for a message, unknown ones by number.
pub(crate) fn list(bits: u64) -> String {
    let name = |number: u8| {
        let known = names_of(1 << number).next();
        known.map_or_else(
            || format!("capability {number}"),
            |capability| capability.to_string(),
        )
    };
    numbers(bits).map(name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_no_new_privileges_sys_admin_is_held_but_neither_bounded_nor_ambient() {
        let sets = CapabilitySets {
            bounding: 0x5,
            permitted: 0x5,
            effective: 0x5,
            inheritable: 0,
            ambient: 0,
        };
        let held = until_execve(false, sets);
        assert_eq!(
            (held.permitted, held.effective),
            (0x5 | SYS_ADMIN, 0x5 | SYS_ADMIN)
        );
        assert_eq!((held.bounding, held.inheritable, held.ambient), (0x5, 0, 0));
        assert_eq!(until_execve(true, sets), sets);
    }

    #[test]
    fn differences_are_named() {
        assert_eq!(list(SYS_ADMIN | 1), "CAP_CHOWN, CAP_SYS_ADMIN");
        assert_eq!(list(1 << 63), "capability 63");
    }
}
