//! The plan of one container: all that the shim must know, written by the daemon before the shim starts.
//!
//! Owns [`RunPlan`] and its stored form, `plan.json`, in the container's folder of the state root. The daemon decides, the shim does: the
//! shim opens no policy, no image document and no database.
//!
//! A container's two folders:
//!
//! ```text
//! <root>/containers/<id>/      durable
//!     plan.json                this plan
//!     exit.json                how it ended; written by the shim, synced
//!     log, log.1 …             output, one JSON object a line
//!     upper/ work/             the writable layer
//!     hosts hostname resolv.conf
//! <run>/containers/<id>/       gone after a reboot
//!     shim.sock                control socket, 0600
//!     lock                     locked by the shim for as long as it lives
//!     runtime/                 libcontainer's state
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;

use kakoi_policy::confinement::Confinement;
use serde::{Deserialize, Serialize};

/// The version of [`RunPlan`]'s stored form.
pub const PLAN_FORMAT: u32 = 1;

/// All that the shim must know to run one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunPlan {
    /// [`PLAN_FORMAT`] when it was written.
    pub format: u32,
    /// 64 lower-case hex digits.
    pub id: String,
    /// The container's name, for messages and the log.
    pub name: String,
    /// Whether the container goes with its end (`--rm`): nothing of it needs to outlive a power cut.
    pub is_ephemeral: bool,
    /// The container's durable folder.
    pub state_dir: PathBuf,
    /// The container's run-time folder.
    pub run_dir: PathBuf,
    /// Where the root file system comes from.
    pub rootfs: RootfsPlan,
    /// The first process.
    pub process: ProcessPlan,
    /// Host name inside, where the container has a UTS namespace of its own.
    pub hostname: String,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// Mounts beside the standard ones (`/proc`, `/dev`, `/dev/shm`, `/sys` …), in order.
    pub mounts: Vec<MountPlan>,
    /// Which namespaces are new, shared with the host or joined.
    pub namespaces: NamespacePlan,
    /// User namespace mappings; empty where the container shares the host's.
    pub id_mappings: IdMappings,
    /// Control group, relative to each hierarchy's root (`/kakoi/<id>`).
    pub cgroup: String,
    /// Limits of the control group, after flags and policy were combined.
    pub resources: Resources,
    /// A file in memory with further `NAME=value` of the first process, each ended by a zero byte: secrets, which stand nowhere else. The daemon makes it
    /// before it starts the shim, and takes it away when the app runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_environment: Option<PathBuf>,
    /// Whether the shim waits, before the app runs, until somebody has furnished the new network namespace.
    #[serde(default)]
    pub awaits_network: bool,
    /// Namespaced kernel settings.
    pub sysctls: BTreeMap<String, String>,
    /// Size of `/dev/shm` in bytes.
    pub shm_bytes: u64,
    /// Where output goes.
    pub log: LogPlan,
    /// OCI annotations.
    pub annotations: BTreeMap<String, String>,
    /// What confines every process of the container.
    pub confinement: Confinement,
}

/// Where the root file system comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootfsPlan {
    /// Folders of unpacked layers, the topmost first.
    pub layers: Vec<PathBuf>,
    /// How the layers become one tree.
    pub driver: RootfsDriver,
}

/// How layers become one tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootfsDriver {
    /// overlayfs over the layers, `upper/` and `work/` in the container's folder.
    Overlay,
    /// A full copy in `upper/`: slow and large, for kernels without overlayfs; the daemon announces it.
    Copy,
}

/// The first process, or one that `exec` adds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessPlan {
    /// Program and arguments; never empty.
    pub args: Vec<String>,
    /// `NAME=value`, complete.
    pub env: Vec<String>,
    /// Absolute working directory, made where it is missing.
    pub cwd: String,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// Whether its standard input stays open for attaching clients; else it reads `/dev/null`.
    pub stdin_open: bool,
    /// Whether standard input is closed after the first attached client leaves.
    pub stdin_once: bool,
    /// Whether a small init of ours is process 1 and reaps (`--init`).
    pub init: bool,
    /// Initial size of the terminal.
    pub terminal_size: Option<TerminalSize>,
    /// `-1000..=1000`.
    pub oom_score_adj: i32,
    /// Resource limits of the process.
    pub ulimits: Vec<Ulimit>,
}

/// Columns and rows of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// One resource limit of a process (setrlimit(2)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// Lower-case name without prefix: `nofile`.
    pub name: String,
    /// The limit in force; `u64::MAX` means unlimited.
    pub soft: u64,
    /// How far it can be raised.
    pub hard: u64,
    /// Whether a person asked for it; a default is clamped to what the host allows, an asked one may fail.
    pub asked: bool,
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPlan {
    /// Absolute path inside.
    pub target: String,
    /// What is mounted.
    pub kind: MountKind,
    /// Whether it is read-only.
    pub read_only: bool,
    /// Further options in the words of mount(8) (`nosuid`, `nodev`, `noexec`, `rprivate`, `mode=1777`).
    pub options: Vec<String>,
    /// Whether an empty volume takes over what the image has at the target.
    pub copy_up: bool,
}

/// What a [`MountPlan`] mounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    /// A path of the host: its real one, which is reached through no link. A start that finds a link on the way refuses.
    Bind(PathBuf),
    /// A volume.
    Volume {
        /// The folder of its files, which no container can move.
        data: PathBuf,
        /// The path below it that is mounted, reached through no link; empty for all of it.
        subpath: PathBuf,
    },
    /// Memory.
    Tmpfs,
    /// A file in memory that is at this path of the host while the container is made, and not before or after: a secret.
    Secret(PathBuf),
}

impl MountKind {
    /// The path of the host by which the source is known; to be opened, it is resolved part by part.
    pub fn source(&self) -> Option<PathBuf> {
        match self {
            Self::Bind(path) | Self::Secret(path) => Some(path.clone()),
            Self::Volume { data, subpath } if subpath.as_os_str().is_empty() => Some(data.clone()),
            Self::Volume { data, subpath } => Some(data.join(subpath)),
            Self::Tmpfs => None,
        }
    }
}

/// Where one namespace comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamespaceSource {
    /// A new one.
    New,
    /// The host's.
    Host,
    /// Joined by path (`/run/kakoi/netns/<id>`).
    Path(PathBuf),
    /// Another container's, which must run when this one starts; only for `pid` and `network`.
    Container {
        /// Its id, for messages.
        id: String,
        /// Its run-time folder, in which its shim listens.
        run_dir: PathBuf,
    },
}

/// The namespaces beside the mount namespace, which is always new, and the user namespace, which [`IdMappings`] decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespacePlan {
    /// Process ids.
    pub pid: NamespaceSource,
    /// Network.
    pub network: NamespaceSource,
    /// System V and POSIX message queues.
    pub ipc: NamespaceSource,
    /// Host name.
    pub uts: NamespaceSource,
    /// The root of the visible control groups.
    pub cgroup: NamespaceSource,
}

/// User and group mappings of a user namespace; both empty where the container shares the host's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMappings {
    /// User ids.
    pub uids: Vec<IdMapping>,
    /// Group ids.
    pub gids: Vec<IdMapping>,
}

/// One line of `/proc/<pid>/uid_map`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// First id inside.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Limits of a control group; `None` leaves the kernel's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Memory the kernel tries to leave, in bytes.
    pub memory_reservation_bytes: Option<u64>,
    /// Memory and swap together in bytes; `u64::MAX` means unlimited swap.
    pub memory_and_swap_bytes: Option<u64>,
    /// Relative weight, 2 to 262144; 1024 is usual.
    pub cpu_shares: Option<u64>,
    /// Microseconds of each period.
    pub cpu_quota_us: Option<i64>,
    /// The period in microseconds.
    pub cpu_period_us: Option<u64>,
    /// Processors, as a list (`0-1,3`).
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, as a list.
    pub cpuset_mems: Option<String>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Relative weight of block I/O, 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// Bytes per second read from each block device.
    pub io_read_bytes_per_second: Option<u64>,
    /// Bytes per second written to each block device.
    pub io_write_bytes_per_second: Option<u64>,
    /// Whether the kernel may kill at the memory limit; `Some(false)` needs a limit.
    pub oom_kill: Option<bool>,
}

/// Where output goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPlan {
    /// Whether output is kept at all.
    pub driver: LogDriver,
    /// Bytes after which the file is rotated.
    pub size_bytes_max: u64,
    /// Files kept, the current one included.
    pub files_max: u32,
}

/// How output is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogDriver {
    /// `log` in the container's folder, one JSON object a line: `{"log":"…\n","stream":"stdout","time":"RFC 3339 with nanoseconds"}`.
    JsonFile,
    /// Not kept.
    None,
}
