//! An image's configuration document, as Docker and OCI write it.
//!
//! Owns the types and their reading. Pure. Refuses to change a document: its bytes are its identity and are kept as they came; these types
//! are a reading of them. `null` means absent everywhere, as in Go. Unknown fields are passed over.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::Digest;

/// The configuration document (image-spec, config.md, and Docker's additions).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConfigDocument {
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub author: String,
    /// `amd64`, `arm64` …, Go's words.
    #[serde(default, deserialize_with = "or_default")]
    pub architecture: String,
    /// `v7` …
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub variant: String,
    /// `linux`.
    #[serde(default, deserialize_with = "or_default")]
    pub os: String,
    /// What a container of it runs.
    #[serde(default, deserialize_with = "or_default")]
    pub config: ImageConfig,
    /// The layers.
    pub rootfs: RootFs,
    /// How it was made, the oldest step first.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub history: Vec<HistoryStep>,
    /// A note by the maker: Docker's own field.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub comment: String,
    /// Version of the Docker that made it.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub docker_version: String,
}

/// The layers of an image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RootFs {
    /// `layers`.
    #[serde(rename = "type", default, deserialize_with = "or_default")]
    pub kind: String,
    /// Digests of the uncompressed layers, the lowest first.
    #[serde(default, deserialize_with = "or_default")]
    pub diff_ids: Vec<Digest>,
}

/// One step of an image's making.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HistoryStep {
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The command.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub created_by: String,
    /// Who.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub author: String,
    /// A note.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub comment: String,
    /// Whether the step made no layer.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub empty_layer: bool,
}

/// What a container of the image runs; the names are Docker's, which OCI took over.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageConfig {
    /// `user[:group]`, names or numbers.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub user: String,
    /// `port[/protocol]`.
    #[serde(default, deserialize_with = "set", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// `NAME=value`.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub env: Vec<String>,
    /// Program and first arguments.
    #[serde(default, deserialize_with = "words", skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Arguments, or the program where there is no entry point.
    #[serde(default, deserialize_with = "words", skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Whether the command is one string for a shell that is not there: Windows only.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub args_escaped: bool,
    /// Paths that get a volume.
    #[serde(default, deserialize_with = "set", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    /// Working directory.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub working_dir: String,
    /// Labels.
    #[serde(
        default,
        deserialize_with = "labels",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub labels: BTreeMap<String, String>,
    /// Name or number.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub stop_signal: String,
    /// Seconds between stop and kill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// How the container's health is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Commands for builds on top of it.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub on_build: Vec<String>,
    /// The shell of `RUN`, `CMD` and `ENTRYPOINT` in shell form.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub shell: Vec<String>,
}

/// How a container's health is told; times in nanoseconds, zero meaning the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `NONE`, `CMD …` or `CMD-SHELL …`; empty inherits.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub test: Vec<String>,
    /// Between probes.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Longest probe.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Failures that mean unhealthy.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub retries: i64,
    /// In which failures do not count.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Between probes within the start period.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub start_interval: i64,
}

/// Go's `struct{}`: the value of a map that is a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// Why a document is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No JSON, or not of this shape.
    #[error("invalid image configuration")]
    Json(#[source] serde_json::Error),
    /// No root file system made of layers.
    #[error("image configuration has root file system type {kind:?}, not layers")]
    RootFs {
        /// The type.
        kind: String,
    },
    /// Made for something else than Linux.
    #[error("image is for operating system {os:?}, not linux")]
    Os {
        /// The operating system.
        os: String,
    },
    /// An environment entry or argument with a NUL, which no program can be given.
    #[error("image configuration has a NUL byte in {field}")]
    Nul {
        /// The field.
        field: &'static str,
    },
}

impl ConfigDocument {
    /// Reads a document.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        let document: Self = serde_json::from_slice(bytes).map_err(ConfigError::Json)?;
        if !matches!(document.rootfs.kind.as_str(), "layers" | "") {
            return Err(ConfigError::RootFs {
                kind: document.rootfs.kind,
            });
        }
        // Old tools left it out.
        if !matches!(document.os.as_str(), "linux" | "") {
            return Err(ConfigError::Os { os: document.os });
        }
        let config = &document.config;
        let nul = |words: &[String]| words.iter().any(|word| word.contains('\0'));
        for (field, words) in [
            ("Env", &config.env[..]),
            ("Entrypoint", config.entrypoint.as_deref().unwrap_or_default()),
            ("Cmd", config.cmd.as_deref().unwrap_or_default()),
            ("User", std::slice::from_ref(&config.user)),
            ("WorkingDir", std::slice::from_ref(&config.working_dir)),
        ] {
            if nul(words) {
                return Err(ConfigError::Nul { field });
            }
        }
        if config.volumes.keys().any(|path| path.contains('\0')) {
            return Err(ConfigError::Nul { field: "Volumes" });
        }
        Ok(document)
    }
}

/// `null` as the default.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// A command: a list, or one word, which old Dockers wrote.
fn words<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Words {
        Many(Vec<String>),
        One(String),
    }
    Ok(Option::deserialize(from)?.map(|words| match words {
        Words::Many(words) => words,
        Words::One(word) => vec![word],
    }))
}

/// A set, written as a map of empty objects; what the objects hold is passed over.
fn set<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, Empty>, D::Error> {
    let map: Option<HashMap<String, serde::de::IgnoredAny>> = Option::deserialize(from)?;
    Ok(map
        .unwrap_or_default()
        .into_keys()
        .map(|key| (key, Empty {}))
        .collect())
}

fn labels<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let map: Option<BTreeMap<String, Option<String>>> = Option::deserialize(from)?;
    Ok(map
        .unwrap_or_default()
        .into_iter()
        .map(|(key, value)| (key, value.unwrap_or_default()))
        .collect())
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}
