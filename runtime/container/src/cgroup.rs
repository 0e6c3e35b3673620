//! A container's control groups once they exist: freezing, killing, measuring, changing limits, removing.
//!
//! Owns [`Cgroup`], which hides whether the host mounts version 1, both, or version 2. libcontainer makes the groups; what comes after is
//! here, because its own kill and delete race and its statistics miss what `docker stats` needs. Knows nothing of containers: a group is a
//! path below each hierarchy's root. Invariant: no operation leaves the group's own folders.

mod hasten;
mod hierarchy;
mod oci;
mod oom;
mod stats;
mod update;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kakoi_policy::kernel::CgroupMode;
use kakoi_sys::CallError;
use nix::unistd::Pid;

pub use hasten::hasten;
pub use hierarchy::Hierarchies;
pub(crate) use hierarchy::unescape;
pub use oom::OomWatch;
pub use stats::{BlkioEntry, BlkioStats, CpuStats, MemoryStats, PidsStats, Stats};

use crate::plan::Resources;

/// How long freezing, killing and removing may take. The kernel does each in microseconds unless a process sits in an
/// uninterruptible sleep, such as one on a dead network file system; ten seconds is what service supervisors usually allow.
const SETTLE_MAX: Duration = Duration::from_secs(10);

/// Between two looks at a state that the kernel reports no event for.
const SETTLE_STEP_MS: u8 = 1;

/// Groups that hold containers and nothing else, made with the first and removed with the last. Any other parent is somebody's own.
const OWN_PARENTS: [&str; 2] = ["kakoi", "kakoi-oci"];

/// How often a group is made anew after its parent was removed in between. Each time a last container must end within the same microseconds.
const MAKE_ATTEMPTS_MAX: u32 = 64;

/// The hierarchies of version 1 in which libcontainer makes groups, by controller.
const MADE: [&str; 12] = [
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
];

/// Why an operation on a control group failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The mount table could not be read.
    #[error("read the mount table")]
    MountTable(#[source] std::io::Error),
    /// The path is not below the root, or climbs.
    #[error("control group path {0:?} is not absolute or contains '..'")]
    Path(String),
    /// No usable hierarchy is mounted.
    #[error("no control group hierarchy is mounted")]
    NoHierarchy,
    /// A control file could not be read.
    #[error("read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A control file did not take a value.
    #[error("write {value:?} to {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// What was written.
        value: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A limit asks for a controller that the host does not have.
    #[error("the host has no {controller} controller, which {limit} needs")]
    NoController {
        /// The controller's kernel name.
        controller: &'static str,
        /// The limit.
        limit: &'static str,
    },
    /// A folder could not be made.
    #[error("make {path}")]
    Make {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A folder could not be removed.
    #[error("remove {path}")]
    Remove {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A state was not reached in time.
    #[error("{path} did not settle within {} s", SETTLE_MAX.as_secs())]
    Settle {
        /// The group.
        path: PathBuf,
    },
    /// A field of an OCI `resources` object makes no sense.
    #[error("resource {field} is malformed")]
    Value {
        /// Its name.
        field: String,
    },
    /// A system call failed.
    #[error("watch {path}")]
    Watch {
        /// The watched file.
        path: PathBuf,
        /// Why.
        #[source]
        source: CallError,
    },
}

/// One container's groups in every hierarchy.
#[derive(Clone, Debug)]
pub struct Cgroup {
    mode: CgroupMode,
    /// The group's folder in each hierarchy that has it, in mount order. In version 2 there is one.
    folders: Vec<Folder>,
    /// The groups above, where they are ours and go with the last container.
    parents: Vec<PathBuf>,
}

/// A group's folder in one hierarchy.
#[derive(Clone, Debug)]
struct Folder {
    /// The controllers bound to the hierarchy, by kernel name; empty for the unified hierarchy.
    controllers: BTreeSet<String>,
    path: PathBuf,
}

impl Cgroup {
    /// Names the group at `path` (`/kakoi/<id>`) in every hierarchy of the host. Does not make it.
    pub fn at(path: &str) -> Result<Self, CgroupError> {
        Self::below(&Hierarchies::of_host()?, path)
    }

    /// Names the group at `path` in the given hierarchies.
    pub fn below(hierarchies: &Hierarchies, path: &str) -> Result<Self, CgroupError> {
        let relative = path.strip_prefix('/').filter(|rest| !rest.is_empty());
        let relative = relative.filter(|rest| !rest.split('/').any(|part| part == ".."));
        let relative = relative.ok_or_else(|| CgroupError::Path(path.to_owned()))?;
        let folders = hierarchies.folders(relative);
        let is_own = |parent: &Path| OWN_PARENTS.iter().any(|own| parent == Path::new(own));
        let parents = match Path::new(relative).parent() {
            Some(parent) if is_own(parent) => folders
                .iter()
                .filter_map(|folder| folder.path.parent().map(Path::to_owned))
                .collect(),
            _ => vec![],
        };
        Ok(Self {
            mode: hierarchies.mode,
            folders,
            parents,
        })
    }

    /// Makes the group in every hierarchy that libcontainer uses, before it does: it gives up where the last other container takes the common
    /// parent away in between, and once a group is there its parent stays.
    pub(crate) fn make(&self) -> Result<(), CgroupError> {
        let is_made = |folder: &&Folder| {
            self.mode == CgroupMode::V2 || MADE.iter().any(|name| folder.controllers.contains(*name))
        };
        for folder in self.folders.iter().filter(is_made) {
            let mut attempts = 0;
            while let Err(source) = std::fs::create_dir_all(&folder.path) {
                attempts += 1;
                if source.kind() != std::io::ErrorKind::NotFound || attempts == MAKE_ATTEMPTS_MAX {
                    return Err(CgroupError::Make {
                        path: folder.path.clone(),
                        source,
                    });
                }
            }
            if self.mode == CgroupMode::V2 {
                pass_controllers_on(&folder.path);
            }
        }
        Ok(())
    }

    /// How the host mounts its groups.
    pub fn mode(&self) -> CgroupMode {
        self.mode
    }

    /// Whether the group exists in any hierarchy.
    pub fn exists(&self) -> bool {
        self.folders.iter().any(|folder| folder.path.is_dir())
    }

    /// The group's folder in the unified hierarchy, for programs that are attached to it; `None` in version 1 and hybrid mode.
    pub fn unified(&self) -> Option<&Path> {
        (self.mode == CgroupMode::V2).then(|| self.folders.first().map(|folder| folder.path.as_path()))?
    }

    /// Moves a process into the group, in every hierarchy where the group exists.
    pub fn attach(&self, pid: Pid) -> Result<(), CgroupError> {
        for folder in self.folders.iter().filter(|folder| folder.path.is_dir()) {
            write(&folder.path.join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(())
    }

    /// Moves a process into a group `below` this one, which is made where it is missing, in every hierarchy.
    pub fn attach_below(&self, pid: Pid, below: &str) -> Result<(), CgroupError> {
        let below = below.trim_matches('/');
        if below.split('/').any(|part| part == "..") {
            return Err(CgroupError::Path(below.to_owned()));
        }
        for folder in self.folders.iter().filter(|folder| folder.path.is_dir()) {
            let path = folder.path.join(below);
            std::fs::create_dir_all(&path).map_err(|source| CgroupError::Write {
                path: path.clone(),
                value: "a new group".to_owned(),
                source,
            })?;
            write(&path.join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(())
    }

    /// The group's folders on version 1 with the names that their hierarchies have inside a container.
    pub(crate) fn views(&self) -> Vec<(String, PathBuf)> {
        let named = self
            .folders
            .iter()
            .filter(|folder| !folder.controllers.is_empty());
        named
            .flat_map(|folder| {
                folder
                    .controllers
                    .iter()
                    .map(|name| (name.clone(), folder.path.clone()))
            })
            .map(|(name, path)| (name.strip_prefix("name=").unwrap_or(&name).to_owned(), path))
            .collect()
    }

    /// Lists every process of the group and of the groups below it.
    pub fn pids(&self) -> Result<BTreeSet<i32>, CgroupError> {
        let mut pids = BTreeSet::new();
        for folder in &self.folders {
            for group in subtree(&folder.path) {
                let text = read_if_there(&group.join("cgroup.procs"))?.unwrap_or_default();
                pids.extend(
                    text.lines()
                        .filter_map(|line| line.parse::<i32>().ok())
                        .filter(|pid| *pid > 0),
                );
            }
        }
        Ok(pids)
    }

    /// Stops every process until [`Self::thaw`]; waits until all have stopped.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        let folder = self.freezer()?;
        if self.mode == CgroupMode::V2 {
            write(&folder.join("cgroup.freeze"), "1")?;
            return settle(folder, || Ok(self.is_frozen()?.then_some(())));
        }
        // A process forked while the group freezes can escape one pass; writing again catches it.
        settle(folder, || {
            write(&folder.join("freezer.state"), "FROZEN")?;
            Ok(self.is_frozen()?.then_some(()))
        })
    }

    /// Lets every process run again.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        let folder = self.freezer()?;
        match self.mode {
            CgroupMode::V2 => write(&folder.join("cgroup.freeze"), "0"),
            CgroupMode::V1 | CgroupMode::Hybrid => write(&folder.join("freezer.state"), "THAWED"),
        }
    }

    /// Tells whether every process is stopped.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        let folder = self.freezer()?;
        Ok(match self.mode {
            CgroupMode::V2 => read(&folder.join("cgroup.events"))?
                .lines()
                .any(|line| line.trim() == "frozen 1"),
            CgroupMode::V1 | CgroupMode::Hybrid => read(&folder.join("freezer.state"))?.trim() == "FROZEN",
        })
    }

    /// Kills every process of the group and waits until it is empty; children that reap are the caller's.
    pub fn kill_all(&self) -> Result<(), CgroupError> {
        let Some(first) = self.folders.first().map(|folder| folder.path.clone()) else {
            return Ok(());
        };
        settle(&first, || {
            if !self.kill_at_once()? {
                self.kill_one_by_one()?;
            }
            Ok(self.living()?.is_empty().then_some(()))
        })
    }

    /// Sends a signal to every process of the group, frozen meanwhile so that none escapes by forking.
    pub fn signal_all(&self, signal: i32) -> Result<(), CgroupError> {
        let frozen = self.freezer().is_ok() && !self.is_frozen()?;
        if frozen {
            self.freeze()?;
        }
        for pid in self.pids()? {
            send(pid, signal);
        }
        if frozen { self.thaw() } else { Ok(()) }
    }

    /// Removes the group and those below it, and with the last group its parent, where that is ours. The group must be empty or about to be; a
    /// group that is not there is no error.
    pub fn delete(&self) -> Result<(), CgroupError> {
        for folder in &self.folders {
            for group in subtree(&folder.path).into_iter().rev() {
                settle(&group, || match std::fs::remove_dir(&group) {
                    Ok(()) => Ok(Some(())),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Some(())),
                    // A killed process leaves its group a moment after its parent has reaped it.
                    Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => Ok(None),
                    Err(source) => Err(CgroupError::Remove {
                        path: group.clone(),
                        source,
                    }),
                })?;
            }
        }
        for parent in &self.parents {
            // Refused while another container's group is in it.
            if let Err(error) = std::fs::remove_dir(parent) {
                tracing::debug!(parent = %parent.display(), %error, "the common group stays");
            }
        }
        Ok(())
    }

    /// Measures what the group uses. A controller that the host lacks leaves its part at zero.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        stats::read(self)
    }

    /// Changes limits; a field that is `None` stays as it is.
    pub fn update(&self, resources: &Resources) -> Result<(), CgroupError> {
        update::write(self, resources)
    }

    /// How often the kernel killed a process at the group's memory limit.
    pub fn oom_kills(&self) -> Result<u64, CgroupError> {
        oom::kills(self)
    }

    /// A descriptor that becomes readable when the group runs into its memory limit; `None` where the memory controller is missing.
    pub fn oom_watch(&self) -> Result<Option<OomWatch>, CgroupError> {
        OomWatch::open(self)
    }

    /// The group's folder in the hierarchy of `controller`, if the host has it.
    fn folder(&self, controller: &str) -> Option<&Path> {
        let found = self.folders.iter().find(|folder| match self.mode {
            CgroupMode::V2 => true,
            CgroupMode::V1 | CgroupMode::Hybrid => folder.controllers.contains(controller),
        });
        found.map(|folder| folder.path.as_path())
    }

    fn freezer(&self) -> Result<&Path, CgroupError> {
        self.folder("freezer").ok_or(CgroupError::NoController {
            controller: "freezer",
            limit: "pause",
        })
    }

    /// Uses `cgroup.kill` (version 2, since Linux 5.14); false where there is none.
    fn kill_at_once(&self) -> Result<bool, CgroupError> {
        let Some(file) = self
            .unified()
            .map(|folder| folder.join("cgroup.kill"))
            .filter(|file| file.exists())
        else {
            return Ok(false);
        };
        write(&file, "1").map(|()| true)
    }

    /// Freezes, so that nothing forks away, kills what is there, and thaws, so that it can die.
    fn kill_one_by_one(&self) -> Result<(), CgroupError> {
        // The usual case, after the container's end; freezing costs a millisecond.
        if self.pids()?.is_empty() {
            return Ok(());
        }
        let can_freeze = self.freezer().is_ok_and(Path::is_dir);
        if can_freeze {
            self.freeze()?;
        }
        for pid in self.pids()? {
            send(pid, nix::libc::SIGKILL);
        }
        if can_freeze { self.thaw() } else { Ok(()) }
    }

    /// The processes that are not zombies: a zombie waits for its parent, not for us.
    fn living(&self) -> Result<Vec<i32>, CgroupError> {
        Ok(self.pids()?.into_iter().filter(|pid| !is_zombie(*pid)).collect())
    }
}

fn is_zombie(pid: i32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        // The state follows the last parenthesis: a process may have any name.
        Ok(text) => text
            .rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])),
        Err(_) => true,
    }
}

/// Sends a signal to a process that was just listed; one that is gone needs none.
fn send(pid: i32, signal: i32) {
    let Ok(signal) = nix::sys::signal::Signal::try_from(signal) else {
        return;
    };
    if let Err(errno) = nix::sys::signal::kill(Pid::from_raw(pid), signal)
        && errno != nix::errno::Errno::ESRCH
    {
        tracing::warn!(pid, %signal, %errno, "ignoring a signal that could not be sent");
    }
}

/// Calls `attempt` until it gives a value or time is up.
fn settle<T>(
    path: &Path,
    mut attempt: impl FnMut() -> Result<Option<T>, CgroupError>,
) -> Result<T, CgroupError> {
    let start = Instant::now();
    loop {
        if let Some(value) = attempt()? {
            return Ok(value);
        }
        if start.elapsed() > SETTLE_MAX {
            return Err(CgroupError::Settle {
                path: path.to_owned(),
            });
        }
        // poll(2) without descriptors is the pause: an interrupted one only looks again sooner.
        if let Err(errno) = nix::poll::poll(&mut [], SETTLE_STEP_MS) {
            tracing::debug!(%errno, "ignoring an interrupted pause");
        }
    }
}

/// The group and all below it, each before those inside it.
fn subtree(path: &Path) -> Vec<PathBuf> {
    let mut groups = vec![];
    let mut pending = vec![path.to_owned()];
    while let Some(group) = pending.pop() {
        let Ok(entries) = std::fs::read_dir(&group) else {
            continue;
        };
        groups.push(group);
        let folders = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        pending.extend(folders.map(|entry| entry.path()));
    }
    groups
}

fn read(path: &Path) -> Result<String, CgroupError> {
    std::fs::read_to_string(path).map_err(|source| CgroupError::Read {
        path: path.to_owned(),
        source,
    })
}

/// Reads a control file that a kernel or a group on its way out may not have.
fn read_if_there(path: &Path) -> Result<Option<String>, CgroupError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => Ok(None),
        Err(source) => Err(CgroupError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Version 2 gives a group the controllers that those above it pass on, so each passes on all that it has. A group that has processes of its own
/// cannot: a limit that needs the controller is refused with its name.
fn pass_controllers_on(group: &Path) {
    let above = group.ancestors().skip(1);
    let above: Vec<_> = above
        .map(|above| above.join("cgroup.subtree_control"))
        .take_while(|control| control.exists())
        .collect();
    for control in above.iter().rev() {
        let has = read_if_there(&control.with_file_name("cgroup.controllers"));
        for controller in has.ok().flatten().unwrap_or_default().split_whitespace() {
            // One by one: together they would all fail with one.
            if let Err(error) = write(control, &format!("+{controller}")) {
                tracing::debug!(controller, error = %crate::executor::chain(&error), "not passed on, ignoring");
            }
        }
    }
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    let failed = |source| CgroupError::Write {
        path: path.to_owned(),
        value: value.to_owned(),
        source,
    };
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(failed)?;
    file.write_all(value.as_bytes()).map_err(failed)
}

#[cfg(test)]
mod tests;
