//! The policy language, version 1, as types: what one document says, and what is left when documents are composed.
//!
//! Owns [`Policy`] and the sections. Knows nothing of YAML and of kernels. Invariant: every grant carries the place where it was written, so
//! that every refusal and every loss can name its rule.

use std::collections::BTreeSet;
use std::fmt;

use crate::capability::{Capability, CapabilityWord};
use crate::confinement::{Destination, DeviceAccess, DeviceKind, MountSource, NetworkMode, UserNamespace};
use crate::diagnostics::Origin;

/// The version of the language.
pub const LANGUAGE_VERSION: u32 = 1;

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sited<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub origin: Origin,
}

impl<T> Sited<T> {
    pub(crate) fn new(value: T, origin: Origin) -> Self {
        Self { value, origin }
    }
}

/// What happens to a rule that the kernel cannot enforce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforce {
    /// The container does not start.
    Required,
    /// The container starts; the loss stands in its receipt.
    BestEffort,
}

/// One document, read and checked, before its parents are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The policy's name: the `name` field, else the document's.
    pub name: String,
    /// The document's name, as it stands in origins.
    pub file: String,
    /// The document's text, for messages that come up later.
    pub text: String,
    /// The parents, in order; later ones override earlier ones.
    pub extends: Vec<Sited<String>>,
    /// What the document itself says.
    pub(crate) rules: Rules,
}

/// Everything a policy can say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) capabilities: Capabilities,
    pub(crate) calls: Calls,
    pub(crate) files: Files,
    pub(crate) network: Network,
    pub(crate) scope: Scope,
    pub(crate) devices: Vec<DeviceEntry>,
    pub(crate) limits: LimitSet,
    pub(crate) process: Process,
    pub(crate) mounts: Vec<MountEntry>,
    pub(crate) user_namespace: Option<Sited<UserNamespace>>,
}

impl Rules {
    /// Rules that say nothing, which is: deny.
    pub(crate) fn silent() -> Self {
        Self {
            capabilities: Capabilities {
                allow: Vec::new(),
                deny: Vec::new(),
                ambient: Vec::new(),
            },
            calls: Calls {
                unconfined: None,
                allow: Vec::new(),
                deny: Vec::new(),
            },
            files: Files {
                unconfined: None,
                abi_min: None,
                read: Vec::new(),
                write: Vec::new(),
                execute: Vec::new(),
            },
            network: Network {
                mode: None,
                bind: Ports {
                    any: None,
                    entries: Vec::new(),
                },
                connect: Ports {
                    any: None,
                    entries: Vec::new(),
                },
                udp: None,
                icmp: None,
                egress: None,
                peers: None,
            },
            scope: Scope {
                signals: None,
                abstract_sockets: None,
            },
            devices: Vec::new(),
            limits: LimitSet::none(),
            process: Process {
                user: None,
                no_new_privileges: None,
                read_only_root: None,
                umask: None,
                masked_paths: None,
                read_only_paths: None,
            },
            mounts: Vec::new(),
            user_namespace: None,
        }
    }
}

/// `capabilities`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Capabilities {
    pub(crate) allow: Vec<Sited<CapabilityWord>>,
    pub(crate) deny: Vec<Sited<CapabilityWord>>,
    pub(crate) ambient: Vec<Sited<Capability>>,
}

/// `system_calls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Calls {
    /// `system_calls: unconfined`.
    pub(crate) unconfined: Option<Origin>,
    pub(crate) allow: Vec<CallRule>,
    pub(crate) deny: Vec<CallRule>,
}

/// One entry of `system_calls.allow` or `.deny`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallRule {
    pub(crate) subject: CallSubject,
    pub(crate) when: Vec<Condition>,
    /// What a denied call returns; `None` is EPERM.
    pub(crate) errno: Option<u16>,
    /// Whether refusals are reported; only `deny` rules may turn it off.
    pub(crate) log: bool,
    /// The rule counts only if one of these is held.
    pub(crate) if_capabilities: BTreeSet<Capability>,
    /// The rule counts only if none of these is held.
    pub(crate) unless_capabilities: BTreeSet<Capability>,
    pub(crate) enforce: Enforce,
    pub(crate) origin: Origin,
}

/// What a [`CallRule`] is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CallSubject {
    /// Some calls by name.
    Names(Vec<String>),
    /// A group, with its `@`.
    Group(&'static str),
}

impl CallSubject {
    pub(crate) fn is_about(&self, call: &str) -> bool {
        match self {
            Self::Names(names) => names.iter().any(|name| name == call),
            Self::Group(group) => {
                crate::syscalls::groups::find(group).is_some_and(|group| group.contains(call))
            }
        }
    }
}

impl fmt::Display for CallSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Names(names) => f.write_str(&names.join(", ")),
            Self::Group(group) => f.write_str(group),
        }
    }
}

/// A condition on one argument of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Which argument, 0 to 5.
    pub argument: u8,
    /// How it is compared.
    pub operator: Operator,
    /// With what.
    pub value: u64,
    /// How many bits of it.
    pub width: Width,
}

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Less than, unsigned.
    Lt,
    /// Less than or equal, unsigned.
    Le,
    /// Greater than, unsigned.
    Gt,
    /// Greater than or equal, unsigned.
    Ge,
    /// Equal in the bits of a mask.
    MaskedEq(u64),
}

/// How many bits of an argument are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// The low half: what the kernel looks at where the argument is an `int`, a flag word or a request number.
    Low32,
    /// All.
    Full64,
}

impl Condition {
    /// Whether an argument value meets the condition.
    pub fn holds(&self, arguments: &[u64; 6]) -> bool {
        let Some(argument) = arguments.get(usize::from(self.argument)) else {
            return false;
        };
        let (argument, value) = match self.width {
            Width::Low32 => (argument & 0xffff_ffff, self.value & 0xffff_ffff),
            Width::Full64 => (*argument, self.value),
        };
        match self.operator {
            Operator::Eq => argument == value,
            Operator::Ne => argument != value,
            Operator::Lt => argument < value,
            Operator::Le => argument <= value,
            Operator::Gt => argument > value,
            Operator::Ge => argument >= value,
            Operator::MaskedEq(mask) => argument & mask == value & mask,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = match self.width {
            Width::Low32 => " (32 bit)",
            Width::Full64 => "",
        };
        let (n, value) = (self.argument, self.value);
        match self.operator {
            Operator::Eq => write!(f, "argument {n} == {value:#x}{width}"),
            Operator::Ne => write!(f, "argument {n} != {value:#x}{width}"),
            Operator::Lt => write!(f, "argument {n} < {value:#x}{width}"),
            Operator::Le => write!(f, "argument {n} <= {value:#x}{width}"),
            Operator::Gt => write!(f, "argument {n} > {value:#x}{width}"),
            Operator::Ge => write!(f, "argument {n} >= {value:#x}{width}"),
            Operator::MaskedEq(mask) => write!(f, "argument {n} & {mask:#x} == {value:#x}{width}"),
        }
    }
}

/// `files`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    /// `files: unconfined`: no landlock rules on files.
    pub(crate) unconfined: Option<Origin>,
    /// The lowest landlock ABI the policy accepts.
    pub(crate) abi_min: Option<Sited<u32>>,
    pub(crate) read: Vec<PathEntry>,
    pub(crate) write: Vec<PathEntry>,
    pub(crate) execute: Vec<PathEntry>,
}

/// One path of `files`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PathEntry {
    pub(crate) path: String,
    pub(crate) optional: bool,
    pub(crate) enforce: Enforce,
    pub(crate) origin: Origin,
}

/// `network`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) mode: Option<Sited<NetworkMode>>,
    pub(crate) bind: Ports,
    pub(crate) connect: Ports,
    pub(crate) udp: Option<Sited<bool>>,
    pub(crate) icmp: Option<Sited<bool>>,
    pub(crate) egress: Option<Egress>,
    pub(crate) peers: Option<Sited<Vec<String>>>,
}

/// `network.egress`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Egress {
    /// `any`.
    pub(crate) any: Option<Origin>,
    pub(crate) entries: Vec<EgressEntry>,
    /// The list, which bounds also where it is empty.
    pub(crate) origin: Origin,
}

/// One destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EgressEntry {
    pub(crate) destination: Destination,
    pub(crate) origin: Origin,
}

/// TCP ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    /// `any`.
    pub(crate) any: Option<Origin>,
    pub(crate) entries: Vec<PortEntry>,
}

/// One port, or a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortEntry {
    pub(crate) first: u16,
    pub(crate) last: u16,
    pub(crate) enforce: Enforce,
    pub(crate) origin: Origin,
}

/// `scope`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) signals: Option<ScopeEntry>,
    pub(crate) abstract_sockets: Option<ScopeEntry>,
}

/// One line of `scope`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScopeEntry {
    /// Whether the app is kept among its own.
    pub(crate) confined: bool,
    pub(crate) enforce: Enforce,
    pub(crate) origin: Origin,
}

/// One entry of `devices`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeviceEntry {
    pub(crate) subject: DeviceSubject,
    pub(crate) access: DeviceAccess,
    pub(crate) origin: Origin,
}

/// What a [`DeviceEntry`] is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DeviceSubject {
    /// `standard`: null, zero, full, random, urandom, tty, console, ptmx and pseudo-terminals; making nodes of any number.
    Standard,
    /// `all`.
    All,
    /// A path of the host, perhaps a glob.
    Path(String),
    /// Kind and numbers.
    Numbers {
        kind: DeviceKind,
        major: Option<u32>,
        minor: Option<u32>,
    },
}

/// `limits`; the inner `None` is `unlimited`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LimitSet(pub(crate) [Option<Sited<Option<u64>>>; LIMITS.len()]);

/// The limits, by their place in [`LimitSet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Memory,
    Swap,
    Cpu,
    Pids,
    Files,
    IoRead,
    IoWrite,
    Tmpfs,
}

/// Every limit with the name it has in a policy (`io` is a mapping of two).
pub(crate) const LIMITS: [(Limit, &str); 8] = [
    (Limit::Memory, "memory"),
    (Limit::Swap, "swap"),
    (Limit::Cpu, "cpu"),
    (Limit::Pids, "pids"),
    (Limit::Files, "files"),
    (Limit::IoRead, "io.read"),
    (Limit::IoWrite, "io.write"),
    (Limit::Tmpfs, "tmpfs"),
];

impl LimitSet {
    pub(crate) fn none() -> Self {
        Self([const { None }; LIMITS.len()])
    }

    pub(crate) fn get(&self, limit: Limit) -> Option<&Sited<Option<u64>>> {
        self.0[limit as usize].as_ref()
    }

    pub(crate) fn set(&mut self, limit: Limit, value: Sited<Option<u64>>) {
        self.0[limit as usize] = Some(value);
    }

    pub(crate) fn value(&self, limit: Limit) -> Option<u64> {
        self.get(limit).and_then(|sited| sited.value)
    }
}

/// `process`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) user: Option<Sited<String>>,
    pub(crate) no_new_privileges: Option<Sited<bool>>,
    pub(crate) read_only_root: Option<Sited<bool>>,
    pub(crate) umask: Option<Sited<u32>>,
    pub(crate) masked_paths: Option<PathList>,
    pub(crate) read_only_paths: Option<PathList>,
}

/// `masked_paths` or `read_only_paths`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PathList {
    /// `none`: nothing is hidden, not even what Docker hides.
    None(Origin),
    /// Paths; the word `standard` stands for Docker's list.
    These(Vec<Sited<String>>),
}

/// One entry of `mounts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountEntry {
    pub(crate) source: MountSource,
    pub(crate) target: String,
    pub(crate) read_only: bool,
    pub(crate) origin: Origin,
}
