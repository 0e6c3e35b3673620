//! What a command line asks for beside the policy: `--cap-add`, `--device`, `--privileged` …
//!
//! Owns [`Requests`] and their effect on a [`Composed`](crate::compose::Composed). Whether they may have it is the ceiling's business.

use std::fmt;
use std::net::IpAddr;

use crate::capability::CapabilityWord;
use crate::confinement::{DeviceAccess, MountSource, NetworkMode, PortRange, UserNamespace};

/// Everything a command line can ask for that touches confinement. Empty and `None` ask for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requests {
    /// `--cap-add`.
    pub capabilities_add: Vec<CapabilityWord>,
    /// `--cap-drop`.
    pub capabilities_drop: Vec<CapabilityWord>,
    /// `--privileged`.
    pub privileged: bool,
    /// `--device`.
    pub devices: Vec<DeviceRequest>,
    /// `--device-cgroup-rule`, as numbers.
    pub device_rules: Vec<DeviceNumbersRequest>,
    /// `--user`.
    pub user: Option<String>,
    /// `--read-only`.
    pub read_only_root: Option<bool>,
    /// `--security-opt no-new-privileges`.
    pub no_new_privileges: Option<bool>,
    /// `--security-opt seccomp=unconfined`.
    pub seccomp_unconfined: bool,
    /// `--security-opt seccomp=FILE`: the text of a Docker seccomp profile, which narrows what the policy allows.
    pub seccomp_profile: Option<String>,
    /// `--security-opt systempaths=unconfined`.
    pub system_paths_unconfined: bool,
    /// `--umask`.
    pub umask: Option<u32>,
    /// `--network`.
    pub network: Option<NetworkMode>,
    /// `--publish`, and with `--publish-all` what the image exposes.
    pub publish: Vec<PortRequest>,
    /// `--userns`.
    pub user_namespace: Option<UserNamespace>,
    /// Namespaces shared with the host: `--pid host`, `--ipc host`, `--uts host`, `--cgroupns host`.
    pub host_namespaces: Vec<HostNamespace>,
    /// `--volume`, `--mount`, `--tmpfs`.
    pub mounts: Vec<MountRequest>,
    /// Limits.
    pub limits: LimitRequests,
    /// What it takes from its neighbours.
    pub neighbours: NeighbourRequests,
    /// `--oom-score-adj`.
    pub oom_score_adj: Option<i64>,
    /// `--cgroup-parent`: an absolute path without `.` and `..`, where it is not the place of all containers.
    pub cgroup_parent: Option<String>,
}

impl Requests {
    /// Asks for nothing.
    pub fn none() -> Self {
        Self {
            capabilities_add: Vec::new(),
            capabilities_drop: Vec::new(),
            privileged: false,
            devices: Vec::new(),
            device_rules: Vec::new(),
            user: None,
            read_only_root: None,
            no_new_privileges: None,
            seccomp_unconfined: false,
            seccomp_profile: None,
            system_paths_unconfined: false,
            umask: None,
            network: None,
            publish: Vec::new(),
            user_namespace: None,
            host_namespaces: Vec::new(),
            mounts: Vec::new(),
            limits: LimitRequests::none(),
            neighbours: NeighbourRequests::default(),
            oom_score_adj: None,
            cgroup_parent: None,
        }
    }
}

/// How much of something is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// As much as there is, by a word of somebody's own: what is not said is no amount.
    Unlimited,
    /// So much.
    At(u64),
}

impl Amount {
    /// The number, where it is one.
    pub fn value(self) -> Option<u64> {
        match self {
            Self::Unlimited => None,
            Self::At(value) => Some(value),
        }
    }
}

/// The limits that a command line can ask for. `None` asks for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitRequests {
    /// `--memory`, in bytes.
    pub memory: Option<Amount>,
    /// `--memory-swap` less `--memory`, in bytes.
    pub swap: Option<Amount>,
    /// `--cpus`, in thousandths.
    pub cpu_millis: Option<Amount>,
    /// `--pids-limit`.
    pub pids: Option<Amount>,
    /// `--ulimit nofile`, the hard limit.
    pub open_files: Option<Amount>,
    /// `--shm-size`, in bytes; what bounds a tmpfs bounds it.
    pub shm: Option<Amount>,
}

impl LimitRequests {
    /// Asks for nothing.
    pub fn none() -> Self {
        Self {
            memory: None,
            swap: None,
            cpu_millis: None,
            pids: None,
            open_files: None,
            shm: None,
        }
    }
}

/// What a command line can ask for at its neighbours' expense. `None` and empty ask for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NeighbourRequests {
    /// `--cpu-shares`; 1024 is usual.
    pub cpu_shares: Option<Amount>,
    /// `--blkio-weight`, 10 to 1000.
    pub io_weight: Option<Amount>,
    /// `--memory-reservation`, in bytes.
    pub memory_reservation: Option<Amount>,
    /// `--cpuset-cpus`, as it was written.
    pub cpus: Option<String>,
    /// `--oom-kill-disable`.
    pub oom_kill_disable: bool,
    /// `--ulimit`, but for open files: name and hard limit.
    pub ulimits: Vec<(String, Amount)>,
    /// `--log-opt`: bytes of all files together, where they are more than the daemon keeps of everyone.
    pub log: Option<Amount>,
}

/// What a published port carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl fmt::Display for PortProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// `--publish 127.0.0.1:8000-8010:80/tcp`: ports of the host that lead to an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRequest {
    /// The address of the host; `None` is every one, of both families.
    pub address: Option<IpAddr>,
    /// Ports of the host, one of which is taken; `None` is any that is free.
    pub ports: Option<PortRange>,
    /// What it carries.
    pub protocol: PortProtocol,
}

/// `network create`: what a client asks of a network that it makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkRequest {
    /// The network's name, for messages.
    pub name: String,
    /// Subnets that it names: the first address and the length of the prefix. Those that are left to the daemon are not among them.
    pub subnets: Vec<(IpAddr, u8)>,
}

/// `--device /dev/ttyUSB0:/dev/modem:rw`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRequest {
    /// The host's node; absolute and below `/dev`.
    pub path: String,
    /// What is asked for.
    pub access: DeviceAccess,
}

/// `--device-cgroup-rule "c 188:* rw"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceNumbersRequest {
    /// Kind of node.
    pub kind: crate::confinement::DeviceKind,
    /// Major number; `None` is every one.
    pub major: Option<u32>,
    /// Minor number; `None` is every one.
    pub minor: Option<u32>,
    /// What is asked for.
    pub access: DeviceAccess,
}

/// A mount that the command line asks for. The mounts themselves stay in the plan; only their right to be is judged here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountRequest {
    /// What is mounted; a bind's source must be resolved to its real path before it is judged.
    pub source: MountSource,
    /// Absolute path inside.
    pub target: String,
    /// Whether it is read-only.
    pub read_only: bool,
}

/// A namespace of the host that a container may be asked to share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostNamespace {
    /// Process ids.
    Pid,
    /// System V and POSIX message queues.
    Ipc,
    /// Host name.
    Uts,
    /// Control groups.
    Cgroup,
}

impl HostNamespace {
    /// The word for it in a ceiling and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pid => "pid",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Cgroup => "cgroup",
        }
    }
}

/// Reads letters of `rwm`, each at most once and at least one.
pub fn device_access(text: &str) -> Option<DeviceAccess> {
    let mut access = DeviceAccess {
        read: false,
        write: false,
        mknod: false,
    };
    for letter in text.chars() {
        let field = match letter {
            'r' => &mut access.read,
            'w' => &mut access.write,
            'm' => &mut access.mknod,
            _ => return None,
        };
        if std::mem::replace(field, true) {
            return None;
        }
    }
    (!text.is_empty()).then_some(access)
}
