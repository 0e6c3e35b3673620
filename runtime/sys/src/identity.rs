//! Who a process is: user, groups, file mode mask.
//!
//! All three ids of a kind are always set and read together: a forgotten saved id is a way back to root.

use nix::unistd::{Gid, Uid};

use crate::error::{Named, Result, checked};

/// Real, effective and saved id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// Real.
    pub real: u32,
    /// Effective.
    pub effective: u32,
    /// Saved.
    pub saved: u32,
}

impl Ids {
    /// The same id three times.
    pub const fn all(id: u32) -> Self {
        Self {
            real: id,
            effective: id,
            saved: id,
        }
    }
}

/// Reads the user ids.
pub fn users() -> Result<Ids> {
    let mut ids = Ids::all(u32::MAX);
    // SAFETY: writes three numbers that outlive the call.
    let done = unsafe { libc::getresuid(&raw mut ids.real, &raw mut ids.effective, &raw mut ids.saved) };
    checked("getresuid", libc::c_long::from(done))?;
    Ok(ids)
}

/// Reads the group ids.
pub fn groups_primary() -> Result<Ids> {
    let mut ids = Ids::all(u32::MAX);
    // SAFETY: writes three numbers that outlive the call.
    let done = unsafe { libc::getresgid(&raw mut ids.real, &raw mut ids.effective, &raw mut ids.saved) };
    checked("getresgid", libc::c_long::from(done))?;
    Ok(ids)
}

/// Reads the supplementary groups.
pub fn groups() -> Result<Vec<u32>> {
    nix::unistd::getgroups()
        .map(|groups| groups.into_iter().map(Gid::as_raw).collect())
        .named("getgroups")
}

/// Replaces the supplementary groups. Needs CAP_SETGID in the user namespace.
pub fn set_groups(groups: &[u32]) -> Result<()> {
    let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    nix::unistd::setgroups(&groups).named("setgroups")
}

/// Sets all three group ids. Needs CAP_SETGID in the user namespace.
pub fn set_group(gid: u32) -> Result<()> {
    let gid = Gid::from_raw(gid);
    nix::unistd::setresgid(gid, gid, gid).named("setresgid")
}

/// Sets all three user ids. Needs CAP_SETUID in the user namespace. Leaving 0 clears the effective capabilities, and the permitted ones
/// too unless "keep capabilities" is set.
pub fn set_user(uid: u32) -> Result<()> {
    let uid = Uid::from_raw(uid);
    nix::unistd::setresuid(uid, uid, uid).named("setresuid")
}

/// Sets whether leaving user 0 keeps the permitted capabilities; `execve` clears it.
pub fn set_keep_capabilities(on: bool) -> Result<()> {
    nix::sys::prctl::set_keepcaps(on).named("prctl(PR_SET_KEEPCAPS)")
}

/// Sets the file mode mask and returns the old one.
pub fn set_umask(mask: u32) -> u32 {
    let mask = nix::sys::stat::Mode::from_bits_truncate(mask);
    nix::sys::stat::umask(mask).bits()
}
