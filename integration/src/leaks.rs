//! What a host left behind: mounts, control groups, processes, namespaces, by the only marks they carry — its folders' paths and its
//! containers' ids.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A process that belongs to a host.
#[derive(Debug)]
pub struct Leftover {
    /// Its id.
    pub pid: i32,
    /// Its command line, for messages.
    pub command: String,
}

fn numbered_processes() -> impl Iterator<Item = (i32, PathBuf)> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
}

/// Processes that were started with the host's folder on their command line, or that live in a mount namespace of one of its containers.
pub fn processes(folder: &Path) -> Vec<Leftover> {
    let mark = folder.to_str().expect("a temporary folder's name is UTF-8");
    let own = std::process::id() as i32;
    let mut found = Vec::new();
    for (pid, path) in numbered_processes().filter(|(pid, _)| *pid != own) {
        // A process that ends meanwhile is no leftover.
        let Ok(command) = fs::read(path.join("cmdline")) else {
            continue;
        };
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let root = fs::read_to_string(path.join("mountinfo")).unwrap_or_default();
        let in_container = root.lines().next().is_some_and(|line| line.contains(mark));
        if command.contains(mark) || in_container {
            found.push(Leftover { pid, command });
        }
    }
    found
}

/// Mounts below or over the host's folder, in our own namespace.
pub fn mounts(folder: &Path) -> Vec<String> {
    let mark = folder.to_str().expect("a temporary folder's name is UTF-8");
    let table = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    table
        .lines()
        .filter(|line| line.contains(mark))
        .filter_map(|line| line.split(' ').nth(4))
        .map(str::to_owned)
        .collect()
}

/// Control groups, in every hierarchy, that carry one of the ids.
pub fn cgroups(ids: &BTreeSet<String>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            if ids.iter().any(|id| name.contains(id.as_str())) {
                found.push(entry.path());
            }
            // A hierarchy, the supervisor's group, the container's, and what the container made itself.
            if depth < 5 {
                folders.push((entry.path(), depth + 1));
            }
        }
    }
    found.sort();
    found
}

/// Names under /run/netns that carry one of the ids.
pub fn network_namespaces(ids: &BTreeSet<String>) -> Vec<String> {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return Vec::new();
    };
    let names = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    names
        .filter(|name| ids.iter().any(|id| name.contains(id.as_str())))
        .collect()
}
