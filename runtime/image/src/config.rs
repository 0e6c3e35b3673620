//! An image's configuration document, as Docker and OCI write it.
//!
//! Owns the types and their reading. Pure. Refuses to change a document: its bytes are its identity and are kept as they came; these types
//! are a reading of them. `null` means absent everywhere, as in Go. Unknown fields are passed over.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::Digest;

/// Longest list or map in a document: the largest real ones have some hundred environment entries, labels or steps.
pub const LIST_MAX: usize = 10_000;

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
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
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
    #[serde(default, deserialize_with = "list")]
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
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
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
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// The shell of `RUN`, `CMD` and `ENTRYPOINT` in shell form.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
}

/// How a container's health is told; times in nanoseconds, zero meaning the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `NONE`, `CMD …` or `CMD-SHELL …`; empty inherits.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
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

/// A list of at most [`LIST_MAX`].
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    from.deserialize_any(ListVisitor {
        one: |_| None,
        item: PhantomData,
    })
}

/// A command: a list, or one word, which old Dockers wrote.
fn words<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    struct Words(Vec<String>);
    impl<'de> Deserialize<'de> for Words {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            let visitor = ListVisitor {
                one: |word| Some(word.to_owned()),
                item: PhantomData,
            };
            from.deserialize_any(visitor).map(Words)
        }
    }
    Ok(Option::<Words>::deserialize(from)?.map(|words| words.0))
}

/// Reads a list, stopping at [`LIST_MAX`]: a document of a few megabytes could else become hundreds in memory (`[{},{},…`).
struct ListVisitor<T> {
    /// What a lone string becomes; `None` where it is an error.
    one: fn(&str) -> Option<T>,
    item: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {LIST_MAX}")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Vec<T>, E> {
        match (self.one)(word) {
            Some(item) => Ok(vec![item]),
            None => Err(E::invalid_type(de::Unexpected::Str(word), &self)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            if items.len() >= LIST_MAX {
                return Err(de::Error::invalid_length(LIST_MAX + 1, &self));
            }
            items.push(item);
        }
        Ok(items)
    }
}

/// A set, written as a map of empty objects; what the objects hold is passed over.
fn set<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, Empty>, D::Error> {
    let map: BTreeMap<String, IgnoredAny> = from.deserialize_any(MapVisitor(PhantomData))?;
    Ok(map.into_keys().map(|key| (key, Empty {})).collect())
}

fn labels<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let map: BTreeMap<String, Option<String>> = from.deserialize_any(MapVisitor(PhantomData))?;
    Ok(map
        .into_iter()
        .map(|(key, value)| (key, value.unwrap_or_default()))
        .collect())
}

/// Reads a map, stopping at [`LIST_MAX`]. Of a key given twice the last counts, as in Go.
struct MapVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for MapVisitor<T> {
    type Value = BTreeMap<String, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a map of at most {LIST_MAX}")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(BTreeMap::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut items = BTreeMap::new();
        while let Some((key, value)) = map.next_entry()? {
            items.insert(key, value);
            if items.len() > LIST_MAX {
                return Err(de::Error::invalid_length(items.len(), &self));
            }
        }
        Ok(items)
    }
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(config: serde_json::Value) -> Result<ConfigDocument, ConfigError> {
        let document =
            json!({"rootfs": {"type": "layers", "diff_ids": null}, "config": config, "os": "linux"});
        ConfigDocument::parse(&serde_json::to_vec(&document).expect("json"))
    }

    #[test]
    fn documents_of_all_ages_are_read() {
        assert_eq!(
            parse(json!(null)).expect("no configuration").config,
            ImageConfig::default()
        );
        let config = parse(json!({
            "Cmd": "one word", "Entrypoint": ["a", "b"], "Env": null, "Labels": {"a": null, "b": "c"},
            "ExposedPorts": {"80/tcp": {}, "81/udp": null}, "Volumes": null, "Healthcheck": {"Test": null, "Retries": 3},
            "OnBuild": [], "Shell": null, "Unknown": [[[1]]],
        }));
        let config = config.expect("read").config;
        assert_eq!(config.cmd, Some(vec!["one word".to_owned()]));
        assert_eq!(config.entrypoint, Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(config.labels.into_values().collect::<Vec<_>>(), ["", "c"]);
        assert_eq!(
            config.exposed_ports.into_keys().collect::<Vec<_>>(),
            ["80/tcp", "81/udp"]
        );
        assert_eq!(config.healthcheck.map(|check| check.retries), Some(3));
        // An empty command is one that was taken away, which is not the same as none.
        assert_eq!(parse(json!({"Cmd": []})).expect("read").config.cmd, Some(vec![]));
    }

    #[test]
    fn what_would_fill_the_memory_is_refused() {
        let many = |count: usize| vec![json!(""); count];
        assert!(parse(json!({"Env": many(LIST_MAX)})).is_ok());
        for field in ["Env", "Cmd", "Entrypoint", "OnBuild", "Shell"] {
            assert!(parse(json!({ field: many(LIST_MAX + 1) })).is_err(), "{field}");
        }
        let map: serde_json::Map<_, _> = (0..=LIST_MAX).map(|n| (n.to_string(), json!(null))).collect();
        for field in ["Labels", "Volumes", "ExposedPorts"] {
            assert!(parse(json!({ field: map })).is_err(), "{field}");
        }
        for (field, value) in [
            ("Env", json!("A=1")),
            ("Cmd", json!({})),
            ("Labels", json!([])),
            ("User", json!(0)),
        ] {
            assert!(parse(json!({ field: value })).is_err(), "{field}");
        }
    }
}
