//! Who the process is, what it holds, and what it sees of the kernel.

use super::{Found, Privileges};
use crate::capability::names_of;
use crate::compile::landlock::covers;
use crate::confinement::{CapabilitySets, Identity, UserNamespace};

pub(super) fn beyond(from: &Privileges, to: &Privileges, found: &mut Found) {
    let (was, is) = (&from.confinement, &to.confinement);
    user(&was.identity, &is.identity, found);
    if rank(is.user_namespace) > rank(was.user_namespace) {
        found.add_over(
            "user namespace",
            word(is.user_namespace),
            word(was.user_namespace),
        );
    }
    if was.no_new_privileges && !is.no_new_privileges {
        found.add(
            "privileges",
            "programs that raise them (set-user-ID, file capabilities)",
        );
    }
    capabilities(&was.capabilities, &is.capabilities, found);
    let shared = to.shared_namespaces.iter();
    for namespace in shared.filter(|namespace| !from.shared_namespaces.contains(namespace)) {
        found.add("namespaces", namespace);
    }
    if was.filesystem.read_only_root && !is.filesystem.read_only_root {
        found.add("files", "write anywhere in its own root, which is not read-only");
    }
    let (masked, read_only) = (&is.filesystem.masked_paths, &is.filesystem.read_only_paths);
    let mut tell = |how: &str, paths: Vec<&str>| {
        if !paths.is_empty() {
            found.add("kernel files", format!("{how} {}", paths.join(", ")));
        }
    };
    tell("see", uncovered(&was.filesystem.masked_paths, masked));
    // What is hidden is not written either.
    let bounded: Vec<String> = masked.iter().chain(read_only).cloned().collect();
    tell("write", uncovered(&was.filesystem.read_only_paths, &bounded));
}

fn uncovered<'a>(was: &'a [String], is: &[String]) -> Vec<&'a str> {
    let is_covered = |path: &&str| is.iter().any(|folder| covers(folder, path));
    was.iter()
        .map(String::as_str)
        .filter(|path| !is_covered(path))
        .collect()
}

/// Root may be anybody; any other user has what is its own.
fn user(was: &Identity, is: &Identity, found: &mut Found) {
    let name = |uid: u32| match uid {
        0 => "user 0 (root)".to_owned(),
        uid => format!("user {uid}"),
    };
    if is.uid != was.uid && was.uid != 0 {
        found.add_over("user", name(is.uid), name(was.uid));
    }
    let groups = |identity: &Identity| {
        let mut all = identity.groups.clone();
        all.push(identity.gid);
        all.sort_unstable();
        all.dedup();
        all
    };
    let had = groups(was);
    for group in groups(is) {
        if was.uid != 0 && !had.contains(&group) {
            found.add("user", format!("group {group}"));
        }
    }
}

fn capabilities(was: &CapabilitySets, is: &CapabilitySets, found: &mut Found) {
    let reachable = |sets: &CapabilitySets| sets.bounding | sets.permitted | sets.inheritable | sets.ambient;
    let gained = reachable(is) & !reachable(was);
    if gained != 0 {
        found.add("capabilities", names_of(gained).join(", "));
    }
    let held = is.effective & !was.effective & !gained;
    if held != 0 {
        let words = format!(
            "{} from the start, not by a program that raises it",
            names_of(held).join(", ")
        );
        found.add("capabilities", words);
    }
}

fn rank(namespace: UserNamespace) -> u8 {
    match namespace {
        UserNamespace::Auto => 0,
        UserNamespace::KeepId => 1,
        UserNamespace::Host => 2,
    }
}

fn word(namespace: UserNamespace) -> &'static str {
    match namespace {
        UserNamespace::Auto => "ids of its own",
        UserNamespace::KeepId => "its user is the same number on the device",
        UserNamespace::Host => "the device's own ids",
    }
}
