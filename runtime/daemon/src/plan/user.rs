//! Who a process is: names become numbers by the image's own files, which `kakoi-image` reads.

use std::path::PathBuf;

use kakoi_image::{UserError, resolve_user};
use kakoi_policy::confinement::Identity;

use crate::refusal::{Answer, Refusal, chain};

/// Who a process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Numbers.
    pub identity: Identity,
    /// Home folder.
    pub home: String,
}

/// Resolves `user[:group]`, names or numbers, empty meaning root; `more` are further groups; `layers` has the topmost first.
pub fn resolve(wanted: &str, more: &[String], umask: u32, layers: &[PathBuf]) -> Answer<User> {
    let wanted = if wanted.is_empty() { "0" } else { wanted };
    let user = resolve_user(layers, wanted, more).map_err(|error: UserError| Refusal::bad(chain(&error)))?;
    let groups = user
        .groups
        .into_iter()
        .filter(|group| *group != user.gid)
        .collect();
    Ok(User {
        identity: Identity {
            uid: user.uid,
            gid: user.gid,
            groups,
            umask,
        },
        home: user.home.unwrap_or_else(|| "/".into()),
    })
}
