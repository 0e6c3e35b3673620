//! What is applied: a policy made concrete for one image, one architecture and one kernel.
//!
//! Owns [`Confinement`], the middle of *compile, then apply*. It is plain data without an optional security field: where a mechanism
//! is not used, a named variant says so. It is stored with the container, and `exec` reads it from there, never from a policy file.

use serde::{Deserialize, Serialize};

use crate::kernel::Arch;

/// The version of [`Confinement`]'s stored form.
pub const CONFINEMENT_FORMAT: u32 = 2;

/// A policy compiled for one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confinement {
    /// [`CONFINEMENT_FORMAT`] when it was written.
    pub format: u32,
    /// The architecture that the filters are for.
    pub arch: Arch,
    /// Which policy it was compiled from.
    pub policy: PolicyIdentity,
    /// Who the first process is.
    pub identity: Identity,
    /// Whether `execve` may raise privileges (set-user-ID programs, file capabilities).
    pub no_new_privileges: bool,
    /// All five capability sets.
    pub capabilities: CapabilitySets,
    /// System call filters.
    pub seccomp: Seccomp,
    /// File, port and scope rules.
    pub landlock: Landlock,
    /// Devices that may be opened or made; everything else is denied.
    pub devices: Vec<DeviceRule>,
    /// Resource limits.
    pub limits: Limits,
    /// The view of the file system.
    pub filesystem: Filesystem,
    /// The network the container gets.
    pub network: NetworkMode,
    /// What it may reach through networks of bridges.
    pub reach: Reach,
    /// The user namespace the container gets.
    pub user_namespace: UserNamespace,
    /// Best-effort rules that this kernel cannot enforce.
    pub losses: Vec<Loss>,
}

/// Names the policy a [`Confinement`] came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyIdentity {
    /// The policy's name.
    pub name: String,
    /// SHA-256 over the composed policy, in lower-case hex.
    pub sha256: String,
}

/// The identity of a process, as numbers: names were resolved against the image before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// User id inside the container.
    pub uid: u32,
    /// Group id inside the container.
    pub gid: u32,
    /// Supplementary group ids; empty means none, not the caller's.
    pub groups: Vec<u32>,
    /// File mode creation mask.
    pub umask: u32,
}

/// Capability sets as bit masks, bit n being capability number n.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilitySets {
    /// What can ever be gained.
    pub bounding: u64,
    /// What the process holds.
    pub permitted: u64,
    /// What the kernel checks.
    pub effective: u64,
    /// What survives `execve` of a program with file capabilities.
    pub inheritable: u64,
    /// What survives `execve` of an ordinary program.
    pub ambient: u64,
}

/// The system call filters, in the order in which they are loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seccomp {
    /// No filter: only where the owner's ceiling permits a privileged app.
    Unconfined,
    /// Programs that are stacked; the kernel takes the strictest answer.
    Filters(Vec<Filter>),
}

/// One classic BPF program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// What it is for, in a few words (`unknown calls`, `denied calls`).
    pub purpose: String,
    /// Whether calls it refuses are logged by the kernel (`SECCOMP_FILTER_FLAG_LOG`, since Linux 4.14).
    pub log: bool,
    /// Whether speculative store bypass stays on (`SECCOMP_FILTER_FLAG_SPEC_ALLOW`, since Linux 4.17); only an OCI document asks for it.
    #[serde(default)]
    pub speculation_allowed: bool,
    /// Whether a process that waits for a listener's answer takes fatal signals only (`SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`, since
    /// Linux 5.19); only an OCI document asks for it.
    #[serde(default)]
    pub wait_killable: bool,
    /// Who answers the calls for which the program returns `SECCOMP_RET_USER_NOTIF`, if there are any.
    #[serde(default)]
    pub listener: Option<Listener>,
    /// The instructions.
    pub program: Vec<Instruction>,
}

/// Who answers a filter's notifications (OCI runtime specification, `linux.seccomp.listenerPath`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Path of the unix socket to which the notification descriptor is sent.
    pub path: String,
    /// Passed on to it, not understood here.
    pub metadata: String,
}

/// One instruction (`struct sock_filter`): code, jump if true, jump if false, operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instruction(pub u16, pub u8, pub u8, pub u32);

/// The landlock rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Landlock {
    /// No ruleset: the policy asks for none (`docker-default`, `privileged`), or only for best effort on a kernel without landlock.
    Unconfined,
    /// A ruleset; whatever it handles and no rule grants is denied.
    Ruleset(LandlockRuleset),
}

/// A landlock ruleset as data. Rights are the kernel's bits (`LANDLOCK_ACCESS_*`), already cut to `abi`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LandlockRuleset {
    /// The ABI that the bits below are of.
    pub abi: u32,
    /// File rights under control.
    pub handled_fs: u64,
    /// TCP rights under control.
    pub handled_net: u64,
    /// Scopes (`LANDLOCK_SCOPE_*`).
    pub scoped: u64,
    /// Grants below paths.
    pub paths: Vec<PathRule>,
    /// Grants of TCP ports.
    pub ports: Vec<PortRule>,
}

impl Confinement {
    /// The same for one image: each path of a file rule becomes what `settle` makes of it, the path to which it leads by the image's own links.
    /// Whoever enforces the rules follows no link any more: one that is found then is of the app's making.
    ///
    /// # Errors
    /// The first that `settle` returns.
    pub fn in_image<E>(mut self, mut settle: impl FnMut(&str) -> Result<String, E>) -> Result<Self, E> {
        if let Landlock::Ruleset(ruleset) = &mut self.landlock {
            for rule in &mut ruleset.paths {
                rule.path = settle(&rule.path)?;
            }
        }
        Ok(self)
    }
}

/// Grants rights beneath one path of the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathRule {
    /// Absolute path inside the container; no part of it may be a link when it is enforced.
    pub path: String,
    /// Granted rights for a directory; on a file those that fit a file are used.
    pub access: u64,
    /// Whether a missing path is skipped; else it stops the start.
    pub optional: bool,
    /// The policy rule behind it, for messages (`policy.yaml:12:5 files.read`).
    pub rule: String,
}

/// Grants rights on one TCP port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRule {
    /// The port.
    pub port: u16,
    /// Granted rights (`LANDLOCK_ACCESS_NET_*`).
    pub access: u64,
    /// The policy rule behind it.
    pub rule: String,
}

/// The kind of a device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// Character and block devices.
    All,
    /// Character devices.
    Char,
    /// Block devices.
    Block,
}

/// What may be done with matching devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceAccess {
    /// Open for reading.
    pub read: bool,
    /// Open for writing.
    pub write: bool,
    /// Make a node.
    pub mknod: bool,
}

/// Allows devices; the list starts from nothing allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Kind of node.
    pub kind: DeviceKind,
    /// Major number; `None` matches every one.
    pub major: Option<u32>,
    /// Minor number; `None` matches every one.
    pub minor: Option<u32>,
    /// What is allowed.
    pub access: DeviceAccess,
    /// The host's node that is made inside the container under the same path, where the rule names one. May be a glob (`/dev/ttyUSB*`)
    /// that is resolved on the host when the container starts; kind and numbers are then those of the nodes found.
    pub path: Option<String>,
    /// The policy rule behind it.
    pub rule: String,
}

/// Resource limits; `None` means that the policy sets none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Swap in bytes, beside memory.
    pub swap_bytes: Option<u64>,
    /// Processor time in thousandths of one processor.
    pub cpu_millis: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Open files per process.
    pub open_files: Option<u64>,
    /// Bytes per second read from block devices.
    pub io_read_bytes_per_second: Option<u64>,
    /// Bytes per second written to block devices.
    pub io_write_bytes_per_second: Option<u64>,
    /// Size in bytes of each tmpfs that does not say its own.
    pub tmpfs_bytes: Option<u64>,
}

/// The view of the file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filesystem {
    /// Whether the root is mounted read-only.
    pub read_only_root: bool,
    /// Paths that are hidden.
    pub masked_paths: Vec<String>,
    /// Paths that are made read-only.
    pub read_only_paths: Vec<String>,
    /// Mounts that the policy itself brings.
    pub mounts: Vec<PolicyMount>,
}

/// A mount that a policy asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyMount {
    /// What is mounted.
    pub source: MountSource,
    /// Absolute path inside the container.
    pub target: String,
    /// Whether it is read-only.
    pub read_only: bool,
    /// The policy rule behind it.
    pub rule: String,
}

/// What a [`PolicyMount`] mounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// A path of the host, within the owner's allow-list.
    Bind(String),
    /// A named volume.
    Volume(String),
    /// Memory, with its size in bytes.
    Tmpfs(Option<u64>),
}

/// The network a container gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// A network namespace with nothing but loopback.
    None,
    /// The host's own network.
    Host,
    /// A bridge.
    Bridge,
}

/// What a container may reach through networks of bridges. What answers a connection from outside is not asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Whatever its networks reach.
    Networks,
    /// What is listed, and names of its own device's name server.
    Only {
        /// Destinations beyond its own bridges, the host's own addresses among them.
        destinations: Vec<Destination>,
        /// Containers in the same networks, by name or alias, that it talks to where they list it or list nobody.
        peers: Vec<String>,
    },
}

/// Nothing and nobody: what stands where nobody wrote down what may be reached.
impl Default for Reach {
    fn default() -> Self {
        Self::Only {
            destinations: Vec::new(),
            peers: Vec::new(),
        }
    }
}

/// A destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// Where.
    pub to: Target,
    /// Over what; `None` is everything.
    pub transport: Option<Transport>,
    /// Which ports of `transport`; empty is every one.
    pub ports: Vec<PortRange>,
    /// Where the rule stands.
    pub rule: String,
}

/// Where a destination is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A network, without bits behind its prefix.
    Network {
        /// Its first address.
        address: std::net::IpAddr,
        /// The length of its prefix.
        prefix: u8,
    },
    /// A name, in lower case without a final dot; `*.` before it means every name below.
    Name(String),
}

/// A transport that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Ports from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

/// The user namespace a container gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UserNamespace {
    /// The host's: root inside is root outside, less what confinement takes.
    Host,
    /// A namespace of its own with a range of host ids that no other container has.
    Auto,
    /// A namespace in which the container's user is the same number outside.
    KeepId,
}

/// A best-effort rule that could not be enforced, and the kernel fact that is why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// The policy rule.
    pub rule: String,
    /// The kernel fact (`landlock ABI 3 has no TCP rules`).
    pub fact: String,
}

/// What the kernel accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The policy that was applied.
    pub policy: PolicyIdentity,
    /// One line per step, in the order in which it was applied, with what was read back from the kernel.
    pub steps: Vec<ReceiptStep>,
    /// What stayed unenforced, by the policy's own leave.
    pub losses: Vec<Loss>,
}

/// One step of a [`Receipt`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptStep {
    /// The mechanism (`no_new_privileges`, `capabilities`, `landlock`, `seccomp` …).
    pub mechanism: String,
    /// What the kernel holds now, as read back from it.
    pub held: String,
}
