//! User, groups, mode mask, no_new_privs and working directory: setting them for `exec`, and reading them back for everyone.

use kakoi_policy::confinement::{Identity, ReceiptStep};
use kakoi_sys::identity::{self as kernel, Ids};
use kakoi_sys::{CallError, process};

use crate::apply::step;

/// Why the identity is not as wanted.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A call failed.
    #[error("system call for the {subject}")]
    Call {
        /// What it was about.
        subject: &'static str,
        /// The call and why.
        #[source]
        source: CallError,
    },
    /// Some of the three ids are not the wanted one.
    #[error("the {subject} is {}, {}, {} (real, effective, saved) instead of {wanted}", held.real, held.effective, held.saved)]
    Id {
        /// User or group.
        subject: &'static str,
        /// What the kernel says.
        held: Ids,
        /// What the confinement says.
        wanted: u32,
    },
    /// The supplementary groups are others.
    #[error("the supplementary groups are {held:?} instead of {wanted:?}")]
    Groups {
        /// What the kernel says.
        held: Vec<u32>,
        /// What the confinement says.
        wanted: Vec<u32>,
    },
    /// no_new_privs is not as wanted.
    #[error("no_new_privs is {held} instead of {wanted}")]
    NoNewPrivileges {
        /// What the kernel says.
        held: bool,
        /// What the confinement says.
        wanted: bool,
    },
    /// Secure bits change what user 0 means.
    #[error("secure bits are {0:#x} instead of 0")]
    SecureBits(u32),
    /// The working directory is not inside the container (CVE-2024-21626).
    #[error("the working directory is outside the container")]
    WorkingDirectoryOutside,
}

/// Becomes another user, keeping the permitted capabilities for the steps that follow.
pub(crate) fn become_user(identity: &Identity) -> Result<(), IdentityError> {
    let call = |subject| move |source| IdentityError::Call { subject, source };
    // Without it, leaving user 0 would empty the permitted set; execve clears the flag again.
    kernel::set_keep_capabilities(true).map_err(call("kept capabilities"))?;
    kernel::set_groups(&identity.groups).map_err(call("supplementary groups"))?;
    kernel::set_group(identity.gid).map_err(call("group"))?;
    kernel::set_user(identity.uid).map_err(call("user"))?;
    // Changing the user may have reset the signal that ties the process to its parent, but never the flag: it is taken back here.
    kernel::set_keep_capabilities(false).map_err(call("kept capabilities"))
}

pub(crate) fn set_no_new_privileges() -> Result<(), IdentityError> {
    process::set_no_new_privileges().map_err(|source| IdentityError::Call {
        subject: "no_new_privs",
        source,
    })
}

pub(crate) fn set_umask(mask: u32) {
    // The old mask is of no interest, and the call cannot fail.
    kernel::set_umask(mask);
}

pub(crate) fn verify_no_new_privileges(wanted: bool) -> Result<ReceiptStep, IdentityError> {
    let call = |subject| move |source| IdentityError::Call { subject, source };
    let held = process::no_new_privileges().map_err(call("no_new_privs"))?;
    if held != wanted {
        return Err(IdentityError::NoNewPrivileges { held, wanted });
    }
    let bits = kakoi_sys::capability::secure_bits().map_err(call("secure bits"))?;
    if bits != 0 {
        return Err(IdentityError::SecureBits(bits));
    }
    Ok(step("no_new_privileges", held.to_string()))
}

pub(crate) fn verify(identity: &Identity) -> Result<ReceiptStep, IdentityError> {
    let call = |subject| move |source| IdentityError::Call { subject, source };
    let users = kernel::users().map_err(call("user"))?;
    if users != Ids::all(identity.uid) {
        return Err(IdentityError::Id {
            subject: "user",
            held: users,
            wanted: identity.uid,
        });
    }
    let primary = kernel::groups_primary().map_err(call("group"))?;
    if primary != Ids::all(identity.gid) {
        return Err(IdentityError::Id {
            subject: "group",
            held: primary,
            wanted: identity.gid,
        });
    }
    let groups = kernel::groups().map_err(call("supplementary groups"))?;
    if !same_groups(&groups, &identity.groups) {
        return Err(IdentityError::Groups {
            held: groups,
            wanted: identity.groups.clone(),
        });
    }
    let held = format!(
        "user {}, group {}, supplementary {groups:?}, mask {:04o}",
        identity.uid, identity.gid, identity.umask
    );
    Ok(step("identity", held))
}

/// The kernel sorts the list and keeps what was given twice.
fn same_groups(held: &[u32], wanted: &[u32]) -> bool {
    let set = |groups: &[u32]| groups.iter().copied().collect::<std::collections::BTreeSet<_>>();
    set(held) == set(wanted)
}

/// A working directory outside the root shows itself by a path that does not begin at it.
pub(crate) fn verify_working_directory() -> Result<(), IdentityError> {
    match std::env::current_dir() {
        Ok(path) if path.is_absolute() => Ok(()),
        _ => Err(IdentityError::WorkingDirectoryOutside),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_compared_as_sets() {
        assert!(same_groups(&[1, 2], &[2, 1, 1]));
        assert!(!same_groups(&[0], &[]));
        assert!(!same_groups(&[], &[0]));
    }
}
