//! What is remembered of a container between two commands.
//!
//! Owns the folder `<root>/<id>/` and the file `kakoi.json` in it, written aside, synced and renamed. The confinement is in it: `exec` takes it
//! from here, never from the bundle. Invariant: a process is named by id and start time, so that a reused id is nobody.
//!
//! ```text
//! {"format":1,"id":"c1","oci_version":"1.0.2","bundle":"/b","rootfs":"/b/rootfs","created":"…","owner":"root","started":true,
//!  "process":{"pid":7,"start_time":9},"cgroup":"/kakoi-oci/c1","annotations":{},"confinement":{…},"hooks":{…},"app":{…}}
//! ```

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use kakoi_container::cgroup::Cgroup;
use kakoi_container::handle::{Handle, ProcessId};
use kakoi_container::hook::{HookState, Hooks};
use kakoi_policy::confinement::Confinement;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Failed;
use super::policy::{Bounded, User};

/// The version of the stored form.
const FORMAT: u32 = 1;

/// The longest name: a folder's.
const ID_BYTES_MAX: usize = 255;

/// The file below a container's folder.
const FILE: &str = "kakoi.json";

/// The file that is locked while `create` makes the container.
const MAKING_FILE: &str = "making";

/// How long `state` waits for a creation: ten times what one takes.
const MAKING_MS_MAX: u32 = 200;

/// Where containers are remembered.
pub(super) struct Root(PathBuf);

/// One container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub format: u32,
    pub id: String,
    pub oci_version: String,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    pub created: String,
    pub owner: String,
    /// Whether `start` was called.
    pub started: bool,
    pub process: Option<ProcessId>,
    pub cgroup: String,
    pub annotations: BTreeMap<String, String>,
    pub confinement: Confinement,
    /// The user that the container's policy names.
    #[serde(default)]
    pub user: Option<User>,
    pub hooks: Hooks,
    /// The document's `process` object, for what `exec` takes over.
    pub app: Value,
    pub terminal: bool,
}

/// Where a container stands (runtime.md, and `paused` as every runtime has it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl Root {
    pub(super) fn new(given: Option<PathBuf>) -> Result<Self, Failed> {
        let root = given.unwrap_or_else(|| match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(folder) if !nix::unistd::geteuid().is_root() => PathBuf::from(folder).join("kakoi-oci"),
            _ => PathBuf::from("/run/kakoi-oci"),
        });
        std::path::absolute(&root)
            .map(Self)
            .map_err(|error| Failed::of("the state root", &error))
    }

    /// The folder of a container.
    pub(super) fn folder(&self, id: &str) -> Result<PathBuf, Failed> {
        let good = |c: &char| c.is_ascii_alphanumeric() || "_+-.".contains(*c);
        if id.is_empty() || id.len() > ID_BYTES_MAX {
            return Err(Failed::new(format!(
                "container ID {id:?} must have 1 to {ID_BYTES_MAX} bytes"
            )));
        }
        if let Some(bad) = id.chars().find(|c| !good(c)) {
            return Err(Failed::new(format!(
                "invalid character {bad:?} in container ID {id:?}"
            )));
        }
        if id.starts_with('.') {
            return Err(Failed::new(format!(
                "invalid container ID {id:?}: it begins with a dot"
            )));
        }
        Ok(self.0.join(id))
    }

    /// Makes the folder of a new container.
    pub(super) fn make(&self, id: &str) -> Result<PathBuf, Failed> {
        let folder = self.folder(id)?;
        let private =
            |recursive: bool, path: &Path| DirBuilder::new().mode(0o700).recursive(recursive).create(path);
        private(true, &self.0).map_err(|error| Failed::of(&format!("make {}", self.0.display()), &error))?;
        match private(false, &folder) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(Failed::new(format!("container {id} exists already")))
            }
            answer => answer
                .map(|()| folder)
                .map_err(|error| Failed::of(&format!("make the folder of container {id}"), &error)),
        }
    }

    /// Reads a container.
    pub(super) fn load(&self, id: &str) -> Result<Record, Failed> {
        let path = self.folder(id)?.join(FILE);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Failed::new(format!("container {id} does not exist")));
            }
            answer => answer.map_err(|error| Failed::of(&format!("read {}", path.display()), &error))?,
        };
        let record: Record = serde_json::from_slice(&text)
            .map_err(|error| Failed::of(&format!("read {}", path.display()), &error))?;
        if record.format != FORMAT {
            return Err(Failed::new(format!(
                "{} has the unknown format {}",
                path.display(),
                record.format
            )));
        }
        Ok(record)
    }

    /// Holds a container against another command until the answer is dropped.
    pub(super) fn lock(&self, id: &str) -> Result<nix::fcntl::Flock<File>, Failed> {
        let path = self.folder(id)?;
        let file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Failed::new(format!("container {id} does not exist")));
            }
            answer => answer.map_err(|error| Failed::of(&format!("open {}", path.display()), &error))?,
        };
        nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive)
            .map_err(|(_, errno)| Failed::of(&format!("lock {}", path.display()), &errno))
    }

    /// Marks a container as being made, until the answer is dropped.
    pub(super) fn making(&self, id: &str) -> Result<nix::fcntl::Flock<File>, Failed> {
        let path = self.folder(id)?.join(MAKING_FILE);
        let made = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        let file = made.map_err(|error| Failed::of(&format!("make {}", path.display()), &error))?;
        // Let go by a call, not by the end of the last descriptor: the first process has a copy of it until it executes the app.
        nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive)
            .map_err(|(_, errno)| Failed::of(&format!("lock {}", path.display()), &errno))
    }

    /// Reads a container; one that is just being made is waited for, a moment. Who asks while `create` runs wants to know what it led to; a hook
    /// of that creation, for which it waits, gets its answer all the same.
    pub(super) fn load_made(&self, id: &str) -> Result<Record, Failed> {
        let path = self.folder(id)?.join(MAKING_FILE);
        for _ in 0..MAKING_MS_MAX {
            let record = self.load(id)?;
            let Some(file) = record.process.is_none().then(|| File::open(&path).ok()).flatten() else {
                return Ok(record);
            };
            match nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockSharedNonblock) {
                // Nobody makes it any more: what is written now is the last word.
                Ok(_ended) => return self.load(id),
                Err(_) => nix::poll::poll(&mut [], 1u8)
                    .map_err(|errno| Failed::of("wait for the creation", &errno))?,
            };
        }
        self.load(id)
    }

    /// Writes a container.
    pub(super) fn save(&self, record: &Record) -> Result<(), Failed> {
        let folder = self.folder(&record.id)?;
        let write = || -> std::io::Result<()> {
            let aside = folder.join("kakoi.json.new");
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&aside)?;
            file.write_all(&serde_json::to_vec(record)?)?;
            file.sync_all()?;
            fs::rename(&aside, folder.join(FILE))?;
            File::open(&folder)?.sync_all()
        };
        write().map_err(|error| Failed::of(&format!("write the state of container {}", record.id), &error))
    }

    /// Names of all containers.
    pub(super) fn ids(&self) -> Result<Vec<String>, Failed> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            answer => answer.map_err(|error| Failed::of(&format!("read {}", self.0.display()), &error))?,
        };
        let mut ids: Vec<String> = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.path().join(FILE).exists())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        ids.sort();
        Ok(ids)
    }
}

impl Record {
    /// A container that is about to be made: no process yet.
    pub(super) fn new(
        id: &str,
        bundle: &Path,
        rootfs: PathBuf,
        spec: &Value,
        cgroup: &str,
        bounded: &Bounded,
    ) -> Self {
        let uid = nix::unistd::geteuid();
        let owner = nix::unistd::User::from_uid(uid)
            .ok()
            .flatten()
            .map_or_else(|| uid.to_string(), |user| user.name);
        let annotations = spec["annotations"].as_object().into_iter().flatten();
        let app = spec["process"].clone();
        Self {
            format: FORMAT,
            id: id.to_owned(),
            oci_version: spec["ociVersion"].as_str().unwrap_or_default().to_owned(),
            bundle: bundle.to_owned(),
            rootfs,
            created: jiff::Timestamp::now().to_string(),
            owner,
            started: false,
            process: None,
            cgroup: cgroup.to_owned(),
            annotations: annotations
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect(),
            confinement: bounded.confinement.clone(),
            user: bounded.user,
            hooks: Hooks::default(),
            terminal: app.get("terminal").and_then(Value::as_bool).unwrap_or(false),
            app,
        }
    }

    /// The control group.
    pub(super) fn cgroup(&self) -> Result<Cgroup, Failed> {
        Cgroup::at(&self.cgroup).map_err(|error| Failed::of("the container's control group", &error))
    }

    /// The first process, if it lives.
    pub(super) fn handle(&self) -> Option<Handle> {
        let handle = Handle::open(self.process?).ok()?;
        handle.is_alive().then_some(handle)
    }

    /// Where it stands.
    pub(super) fn status(&self) -> Status {
        if self.process.is_none() {
            return Status::Creating;
        }
        if self.handle().is_none() {
            return Status::Stopped;
        }
        let frozen = self
            .cgroup()
            .ok()
            .and_then(|cgroup| cgroup.is_frozen().ok())
            .unwrap_or(false);
        match (frozen, self.started) {
            (true, _) => Status::Paused,
            (false, true) => Status::Running,
            (false, false) => Status::Created,
        }
    }

    /// What hooks are told.
    pub(super) fn hook_state(&self, status: Status) -> HookState {
        HookState {
            oci_version: self.oci_version.clone(),
            id: self.id.clone(),
            status: status.word().to_owned(),
            pid: match status {
                Status::Stopped => None,
                _ => self.process.map(|process| process.pid),
            },
            bundle: self.bundle.clone(),
            annotations: self.annotations.clone(),
        }
    }
}
