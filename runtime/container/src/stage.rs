//! Mounts, nodes and hooks that need our own code inside the container's mount namespace, before its root is changed.
//!
//! Owns what libcontainer's mounting does not do: version 1 control groups (read-only, always), idmapped mounts, `tmpcopyup`, propagation of
//! single mounts, nodes outside /dev. libcontainer runs it as a createContainer hook: a fresh process of this same binary, only for
//! containers that need it. Refuses to know the OCI document: it is given a list. Invariant: each target is opened in the container's root
//! without following a link out of it.

pub(crate) mod mount;
mod options;
mod run;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::hook::{Hook, HookState};

pub use options::OptionError;
pub(crate) use options::{IdMap, StagedKind, StagedMount, is_bind, shares, staged};
pub use run::{StageError, run};

/// The file in the container's state folder that holds a [`Stage`].
pub(crate) const STAGE_FILE: &str = "stage.json";

/// What the hook process is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Stage {
    /// The container's root file system as the runtime sees it.
    pub rootfs: PathBuf,
    /// The container's control group, relative to each hierarchy.
    pub cgroup: String,
    /// Whether the container has a cgroup namespace.
    pub cgroup_namespace: bool,
    /// Mounts in order.
    pub mounts: Vec<StagedMount>,
    /// Device nodes as the OCI document gives them; in a user namespace, where they cannot be made, each with the descriptor of one.
    pub devices: Vec<Value>,
    /// Working directory to make where it is missing.
    pub cwd: Option<String>,
    /// Older hooks of the runtime's namespaces, which come first.
    pub prestart_hooks: Vec<Hook>,
    /// Hooks of the runtime's namespaces.
    pub runtime_hooks: Vec<Hook>,
    /// Hooks of the container's namespaces.
    pub container_hooks: Vec<Hook>,
    /// What hooks read, less the process id.
    pub state: HookState,
}

/// Reads a list of strings.
pub(crate) fn words(object: &Map<String, Value>, field: &str) -> Vec<String> {
    let list = object
        .get(field)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}
