//! The one ordered function.
//!
//! Owns the order in which a process is confined. Each step says why it stands where it stands; a step that moved would still
//! succeed and protect less, so the order is the invariant of this module.
//!
//! ```text
//!              first process   exec
//! prepare      landlock rules are opened
//! identity     libcontainer    keep capabilities, bounding, groups, ids, sets, ambient, mask
//! verify       no_new_privs, secure bits, five capability sets, ids, groups, working directory, descriptors
//! restrict     landlock, then the filters
//! verify       that filters are in force
//! execve       by the caller, with nothing in between
//! ```

use std::os::fd::RawFd;

use kakoi_policy::confinement::{Confinement, Identity, Receipt, ReceiptStep};

use crate::capability::{self, CapabilityError};
use crate::descriptors::{self, DescriptorError};
use crate::identity::{self, IdentityError};
use crate::landlock::{self, LandlockError};
use crate::seccomp::{self, Deliver, SeccompError};

/// How the caller came to be confined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// The container's first process: libcontainer has set capabilities, ids and groups, and every one of them is verified.
    FirstProcess,
    /// A process that joined: nothing was given up yet. The identity is the container's, or the one that `exec --user` named.
    Exec(&'a Identity),
}

/// Why a process is not confined, and therefore not started.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// User, groups, mode mask, no_new_privs or working directory.
    #[error("identity is not as the policy says")]
    Identity(#[source] IdentityError),
    /// One of the five sets.
    #[error("capabilities are not as the policy says")]
    Capability(#[source] CapabilityError),
    /// The standard streams or an inherited descriptor.
    #[error("descriptors are not safe to hand on")]
    Descriptor(#[source] DescriptorError),
    /// A file, port or scope rule.
    #[error("landlock rules cannot be enforced")]
    Landlock(#[source] LandlockError),
    /// A filter.
    #[error("system call filters cannot be enforced")]
    Seccomp(#[source] SeccompError),
}

/// Confines the calling process, which must have one thread, and tells what the kernel accepted.
///
/// Call it inside the container, after the root was changed and directly before `execve`: without no_new_privs the process still
/// holds CAP_SYS_ADMIN in its user namespace when this returns, and only `execve` takes it. Descriptors from 3 on are
/// closed by that `execve`, except the `preserved` ones. After an error the process must end without executing anything.
///
/// Needs, for [`Entry::Exec`], CAP_SETPCAP, CAP_SETUID and CAP_SETGID in the user namespace, and without no_new_privs CAP_SYS_ADMIN.
pub fn apply(
    confinement: &Confinement,
    entry: Entry<'_>,
    preserved: &[RawFd],
) -> Result<Receipt, ApplyError> {
    apply_with(confinement, entry, preserved, None)
}

/// Does what [`apply`] does, and hands the descriptor of a filter that asks a listener to `deliver`, which sends it to where the
/// [`Listener`](kakoi_policy::confinement::Listener) says. Such filters come from OCI documents only; without `deliver` they are an error.
pub fn apply_with(
    confinement: &Confinement,
    entry: Entry<'_>,
    preserved: &[RawFd],
    deliver: Option<Deliver<'_>>,
) -> Result<Receipt, ApplyError> {
    let identity = match entry {
        Entry::FirstProcess => &confinement.identity,
        Entry::Exec(identity) => identity,
    };
    let wanted = capability::capabilities_for(confinement, identity);
    let held = capability::until_execve(confinement.no_new_privileges, wanted);
    let mut steps = Vec::with_capacity(8);

    // The paths of rules are opened while a joining process is still root inside: a rule on a folder that only the container's own user
    // may enter must not keep another one, whom `exec` named, from starting. Nothing is restricted yet.
    let rules = landlock::prepare(&confinement.landlock).map_err(ApplyError::Landlock)?;

    if let Entry::Exec(identity) = entry {
        // First the bounding set: it needs CAP_SETPCAP, which the sets below take away.
        capability::drop_bounding(held.bounding).map_err(ApplyError::Capability)?;
        // Groups and ids while CAP_SETGID and CAP_SETUID are still held; the group first, because the user takes the right to it.
        identity::become_user(identity).map_err(ApplyError::Identity)?;
        // The sets after the ids: leaving user 0 empties the effective set.
        capability::set(held).map_err(ApplyError::Capability)?;
        // No call that needs privilege follows, except, without no_new_privs, the two that CAP_SYS_ADMIN is kept for.
        if confinement.no_new_privileges {
            identity::set_no_new_privileges().map_err(ApplyError::Identity)?;
        }
    }
    // The mask has no privilege to lose; libcontainer sets none when the OCI document has none.
    identity::set_umask(identity.umask);

    // Descriptors before landlock, which does not restrict what is already open.
    steps.push(descriptors::shut(preserved).map_err(ApplyError::Descriptor)?);

    // Verified before the filters: a filter may refuse the very calls that read this back.
    steps.push(
        identity::verify_no_new_privileges(confinement.no_new_privileges).map_err(ApplyError::Identity)?,
    );
    steps.push(identity::verify(identity).map_err(ApplyError::Identity)?);
    steps.push(capability::verify(held).map_err(ApplyError::Capability)?);
    identity::verify_working_directory().map_err(ApplyError::Identity)?;

    // Landlock before seccomp, whose filters may refuse landlock's calls and the opening of rule paths.
    steps.push(
        rules
            .enforce(confinement.no_new_privileges)
            .map_err(ApplyError::Landlock)?,
    );

    // The filters last: from here on every call of ours is subject to them.
    steps.push(
        seccomp::restrict(confinement.arch, &confinement.seccomp, deliver).map_err(ApplyError::Seccomp)?,
    );

    Ok(Receipt {
        policy: confinement.policy.clone(),
        steps,
        losses: confinement.losses.clone(),
    })
}

/// Makes one line of a receipt.
pub(crate) fn step(mechanism: &str, held: impl Into<String>) -> ReceiptStep {
    ReceiptStep {
        mechanism: mechanism.to_owned(),
        held: held.into(),
    }
}
