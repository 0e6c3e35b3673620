//! The stored form of a container and of a volume: JSON, one document each.
//!
//! The policy's compiled form is not here: it stands in the container's `plan.json`, from where the shim and `exec` read it.

use std::collections::BTreeMap;

use kakoi_api::container::{ContainerConfig, HostConfig, MountPoint};
use kakoi_api::network::EndpointSettings;
use kakoi_api::secret::SecretUse;
use kakoi_policy::OwnLimits;
use kakoi_policy::confinement::{PolicyIdentity, Reach};
use serde::{Deserialize, Serialize};

/// The version of the stored forms.
pub const RECORD_FORMAT: u32 = 1;

/// A container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`RECORD_FORMAT`] when it was written.
    pub format: u32,
    /// 64 lower-case hex digits.
    pub id: String,
    /// Without a leading `/`.
    pub name: String,
    /// RFC 3339.
    pub created: String,
    /// `sha256:…`
    pub image_id: String,
    /// The repository under whose name the image was trusted when the container was made; its starts are judged by it.
    #[serde(default)]
    pub trusted_as: String,
    /// What was asked for, completed from the image.
    pub config: ContainerConfig,
    /// What was asked for.
    pub host_config: HostConfig,
    /// What it asks of networks, by name of network.
    #[serde(default)]
    pub networks: BTreeMap<String, EndpointSettings>,
    /// What its policy lets it reach there.
    #[serde(default)]
    pub reach: Reach,
    /// Program and arguments, never empty.
    pub args: Vec<String>,
    /// The mounts that came of it.
    pub mounts: Vec<MountPoint>,
    /// The secrets that it is given, with every place filled in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretUse>,
    /// Volumes that go when the container goes.
    pub anonymous_volumes: Vec<String>,
    /// The policy that confines it.
    pub policy: PolicyIdentity,
    /// What the policy itself said of limits: what an update is judged by.
    pub limits: OwnLimits,
    /// Its range of host ids, where it has a user namespace of its own.
    pub id_slot: Option<u32>,
    /// What happened to it.
    pub life: Life,
}

/// What happened to a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Life {
    /// Whether a start was begun whose end is not recorded: written before the shim is spawned.
    pub running: bool,
    /// When it was started last.
    pub started_at: Option<String>,
    /// When it ended last.
    pub finished_at: Option<String>,
    /// How it ended last.
    pub exit_code: i32,
    /// Whether the kernel killed a process of the last run at the memory limit.
    pub oom_killed: bool,
    /// Why the last start or run failed.
    pub error: String,
    /// Whether a person stopped it last.
    pub stopped_by_hand: bool,
    /// Restarts in a row by its restart policy.
    pub restarts: u32,
    /// Whether its restart policy would have it run, and the owner's trust does not: it starts when that changes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// Whether its removal was begun: written before the first file goes.
    pub removing: bool,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeRecord {
    /// [`RECORD_FORMAT`] when it was written.
    pub format: u32,
    /// Its name.
    pub name: String,
    /// RFC 3339.
    pub created: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Options, kept as they came.
    pub options: BTreeMap<String, String>,
    /// Whether it was made for one container without a name.
    pub anonymous: bool,
}
