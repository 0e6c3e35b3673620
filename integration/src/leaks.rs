//! What a host left behind: mounts, control groups, processes, namespaces, by the only marks they carry — its folders' paths and its
//! containers' ids.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait;

/// Groups that hold containers and are gone with the last one.
const PARENTS: [&str; 2] = ["kakoi", "kakoi-oci"];

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

/// A process's id and the time of its start, in clock ticks since the boot, so that a number given again is nobody.
type Life = (i32, u64);

/// Who was found to belong to a folder, with the command line: a process that ends loses its memory, then its files, then its namespaces, and only
/// then is a zombie. By what it was called it can be known in the first of these moments alone.
static KNOWN: Mutex<BTreeMap<PathBuf, BTreeMap<Life, String>>> = Mutex::new(BTreeMap::new());

/// Processes that were started with the host's folder on their command line, or that see a file of the host's folder mounted: a container's
/// first process has its `/etc/hosts` from there. One that was found stays among them until the kernel has closed its files.
pub fn processes(folder: &Path) -> Vec<Leftover> {
    let mark = folder.to_str().expect("a temporary folder's name is UTF-8");
    // What is mounted is named from the root of its file system, which may lie between `/` and the folder.
    let name = folder.file_name().and_then(|name| name.to_str());
    let name = format!("/{}/", name.expect("a temporary folder has a name"));
    let own = std::process::id() as i32;
    let mut found = Vec::new();
    for (pid, path) in numbered_processes().filter(|(pid, _)| *pid != own) {
        // A process that ends meanwhile is no leftover.
        let Ok(command) = fs::read(path.join("cmdline")) else {
            continue;
        };
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let in_container = || {
            let table = fs::read_to_string(path.join("mountinfo")).unwrap_or_default();
            // mount id, parent id, device, root (proc_pid_mountinfo(5)).
            table
                .lines()
                .any(|line| line.split(' ').nth(3).is_some_and(|root| root.contains(&name)))
        };
        if command.contains(mark) || in_container() {
            found.push(Leftover { pid, command });
        }
    }
    let mut all = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = all.entry(folder.to_owned()).or_default();
    known.retain(|(pid, then), _| Stat::of(*pid).is_some_and(|now| now.started == *then && !now.is_over()));
    for Leftover { pid, command } in &found {
        if let Some(stat) = Stat::of(*pid).filter(|stat| !stat.is_over()) {
            known.insert((*pid, stat.started), command.clone());
        }
    }
    let ending = known.iter().map(|((pid, _), command)| Leftover {
        pid: *pid,
        command: command.clone(),
    });
    ending.collect()
}

/// What proc_pid_stat(5) tells.
struct Stat {
    state: char,
    threads: u64,
    started: u64,
}

impl Stat {
    fn of(pid: i32) -> Option<Self> {
        Self::read(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn read(line: &str) -> Option<Self> {
        // The name may contain anything; behind it come `state`, and as the 18th and 20th `num_threads` and `starttime`.
        let fields: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Self {
            state: fields.first()?.chars().next()?,
            threads: fields.get(17)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }

    /// Whether nothing is left but the word of its end. A first thread that ended is a zombie while others still hold the files of all.
    fn is_over(&self) -> bool {
        matches!(self.state, 'Z' | 'X') && self.threads <= 1
    }
}

/// A namespace's kind and inode, as the kernel writes it: `net:[4026531833]`.
pub type Namespace = String;

/// A process in a namespace that a container of the host has. The kernel gives a namespace's number again as soon as it is free, to another
/// test's container as like as not: only who was seen inside while the container lived can be left over in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    namespace: Namespace,
    pid: i32,
    /// In clock ticks since the boot, so that a number given again is nobody.
    started: u64,
}

/// Everybody in the namespaces of the host's containers, except in those that the test itself is in.
pub fn members(folder: &Path, ids: &BTreeSet<String>) -> BTreeSet<Member> {
    let marked: BTreeSet<i32> = processes(folder).into_iter().map(|process| process.pid).collect();
    let mut all = Vec::new();
    let mut ours = BTreeSet::new();
    for (pid, path) in numbered_processes() {
        let namespaces = namespaces_at(&path);
        let is_grouped = || {
            let groups = fs::read_to_string(path.join("cgroup")).unwrap_or_default();
            ids.iter().any(|id| groups.contains(id.as_str()))
        };
        if marked.contains(&pid) || is_grouped() {
            ours.extend(namespaces.iter().cloned());
        }
        all.push((pid, namespaces));
    }
    let ours = &ours - &namespaces_at(Path::new("/proc/thread-self"));
    let mut found = BTreeSet::new();
    for (pid, namespaces) in all {
        let shared = namespaces.intersection(&ours).cloned();
        if let Some(Stat { started, .. }) = Stat::of(pid) {
            found.extend(shared.map(|namespace| Member {
                namespace,
                pid,
                started,
            }));
        }
    }
    found
}

fn namespaces_at(process: &Path) -> BTreeSet<Namespace> {
    let Ok(entries) = fs::read_dir(process.join("ns")) else {
        return BTreeSet::new();
    };
    entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .map(|link| link.display().to_string())
        .collect()
}

/// Who keeps a namespace alive: processes that were seen in it and still are, descriptors of the test's and of the host's own processes, and
/// mounts in the test's own mount namespace.
pub fn holders(seen: &BTreeSet<Member>, folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for Member {
        namespace,
        pid,
        started: then,
    } in seen
    {
        let path = PathBuf::from(format!("/proc/{pid}"));
        if Stat::of(*pid).is_some_and(|now| now.started == *then) && namespaces_at(&path).contains(namespace)
        {
            found.push(format!("process {pid} is in {namespace}"));
        }
    }
    let namespaces: BTreeSet<&str> = seen.iter().map(|member| member.namespace.as_str()).collect();
    let own = std::process::id() as i32;
    for pid in processes(folder)
        .into_iter()
        .map(|process| process.pid)
        .chain([own])
    {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
        for link in descriptors
            .flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok())
        {
            if link.to_str().is_some_and(|link| namespaces.contains(link)) {
                found.push(format!("process {pid} has {} open", link.display()));
            }
        }
    }
    let table = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    for line in table.lines() {
        let mut fields = line.split(' ').skip(3);
        if let (Some(root), Some(point)) = (fields.next(), fields.next())
            && namespaces.contains(root)
        {
            found.push(format!("{root} is mounted at {point}"));
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

/// Common parents, in every hierarchy, that hold no container any more. One that is being made or removed is among them for a moment.
pub fn empty_parents() -> Vec<PathBuf> {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let roots = hierarchies
        .map(|entry| entry.path())
        .chain(["/sys/fs/cgroup".into()]);
    let parents = roots.flat_map(|root| PARENTS.map(|name| root.join(name)));
    let is_empty = |path: &PathBuf| {
        let entries = fs::read_dir(path).map(|entries| {
            let mut kinds = entries.flatten().filter_map(|entry| entry.file_type().ok());
            kinds.all(|kind| !kind.is_dir())
        });
        entries.unwrap_or(false)
    };
    parents.filter(is_empty).collect()
}

/// Names of the containers whose folders lie in a host's, or in an OCI runtime's state folder.
pub fn ids(folder: &Path) -> BTreeSet<String> {
    let folders = ["root/containers", "run/containers", "state"];
    let entries = folders.iter().flat_map(|name| fs::read_dir(folder.join(name)));
    let names = entries
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    // A shorter one could be a part of somebody else's.
    names.filter(|name| name.len() >= 12).collect()
}

/// Takes leftovers away by force, so that one failing test does not fail the next. What fails here shows in the next search.
pub fn sweep(folder: &Path, seen: &BTreeSet<String>) {
    let mut ids = ids(folder);
    ids.extend(seen.iter().cloned());
    for _ in 0..3 {
        for process in processes(folder) {
            tell(kill(Pid::from_raw(process.pid), Signal::SIGKILL));
        }
    }
    for mount in mounts(folder).iter().rev() {
        tell(umount2(mount.as_str(), MntFlags::MNT_DETACH));
    }
    let emptied = wait::poll(Duration::from_secs(5), || {
        remove_groups(cgroups(&ids).iter().rev());
        // Only now: a parent is empty when its last child is gone.
        remove_groups(empty_parents().iter());
        cgroups(&ids).is_empty().then_some(())
    });
    if emptied.is_none() {
        eprintln!("control groups stay: {:?}", cgroups(&ids));
    }
}

fn remove_groups<'a>(groups: impl Iterator<Item = &'a PathBuf>) {
    for group in groups {
        if let Err(error) = fs::remove_dir(group) {
            eprintln!("removing {}: {error}", group.display());
        }
    }
}

/// Says what went wrong while cleaning up: nothing may stop the clean-up.
fn tell(result: nix::Result<()>) {
    if let Err(errno) = result {
        eprintln!("while cleaning up: {errno}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_over_when_its_last_thread_is() {
        let line = |state: char, threads: u64| {
            format!("7 (a) b) {state} 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 {threads} 0 4242 0 0")
        };
        for (state, threads, is_over) in [
            ('Z', 1, true),
            ('X', 0, true),
            ('Z', 3, false),
            ('R', 1, false),
            ('D', 1, false),
            ('S', 2, false),
        ] {
            let stat = Stat::read(&line(state, threads)).expect("a whole line");
            assert_eq!(stat.started, 4242);
            assert_eq!(stat.is_over(), is_over, "{state} {threads}");
        }
        for torn in ["", "7 (a) Z 1 7", "7 (a"] {
            assert!(Stat::read(torn).is_none(), "{torn:?}");
        }
    }

    #[test]
    fn who_was_found_is_found_until_it_is_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let mark = folder.path().join("x").display().to_string();
        // The shell becomes another program, which no longer bears the mark.
        let mut child = std::process::Command::new("sh")
            .args(["-c", "read line; exec sleep 1000", &mark])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("a shell");
        let pid = child.id() as i32;
        let is_found = || processes(folder.path()).iter().any(|process| process.pid == pid);
        wait::until("it is found by its command line", is_found);
        drop(child.stdin.take());
        let command = format!("/proc/{pid}/cmdline");
        wait::until("it is another program", || {
            fs::read_to_string(&command).is_ok_and(|line| line.starts_with("sleep"))
        });
        assert!(is_found(), "it lives");
        child.kill().expect("a child of ours");
        // Not waited for: a zombie has closed its files.
        wait::until("a zombie is nobody", || !is_found());
        child.wait().expect("a child of ours");
    }
}
