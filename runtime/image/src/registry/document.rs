//! Manifests and indexes as registries serve them.
//!
//! Owns [`Document`]: the reading of OCI and Docker schema 2 documents, and the choice of a platform. Pure. Refuses what could be read as two
//! things (CVE-2021-41190): keys given twice, a manifest that is also an index, a content type that is not the document's. Invariant: digests
//! are verifiable ones, and numbers of layers and platforms are within the limits.

use std::fmt;

use serde::Deserialize;

use crate::archive::architecture;
use crate::digest::Digest;
use crate::limits::Limits;

/// What is accepted for a name, the preferred first.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// A blob that a document names.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlobDescriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What it runs on, in an index.
    #[serde(default)]
    pub platform: Option<Platform>,
    /// Notes.
    #[serde(default)]
    pub annotations: Option<std::collections::BTreeMap<String, String>>,
    /// What an artifact is, in an index of referrers.
    #[serde(default)]
    pub artifact_type: Option<String>,
}

/// What an image runs on, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// `linux`.
    #[serde(default)]
    pub os: String,
    /// `amd64`, `arm64` …
    #[serde(default)]
    pub architecture: String,
    /// `v7`, `v8` …; empty where it does not matter.
    #[serde(default)]
    pub variant: String,
}

/// A document.
#[derive(Clone, Debug)]
pub(crate) enum Document {
    Index(Vec<BlobDescriptor>),
    Manifest {
        config: BlobDescriptor,
        layers: Vec<BlobDescriptor>,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<Vec<BlobDescriptor>>,
    #[serde(default)]
    config: Option<BlobDescriptor>,
    #[serde(default)]
    layers: Option<Vec<BlobDescriptor>>,
}

impl BlobDescriptor {
    /// A blob of our own making.
    pub(crate) fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            platform: None,
            annotations: Default::default(),
            artifact_type: Default::default(),
        }
    }
}

/// Operating systems that images are made for.
const SYSTEMS: [&str; 4] = ["linux", "windows", "darwin", "freebsd"];
/// Architectures by the names that Go and Linux have for them.
const ARCHITECTURES: [&str; 12] = [
    "386", "aarch64", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x", "wasm",
    "x86_64",
];

impl Platform {
    /// This machine.
    pub fn own() -> Self {
        Self {
            os: String::from("linux"),
            architecture: architecture().to_owned(),
            variant: String::new(),
        }
    }

    /// Reads `linux/arm64/v8`, `linux/arm64`, `arm64` or `linux`. A lone word is a known one, as in containerd.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [os] if SYSTEMS.contains(&os) => (os, architecture(), ""),
            [architecture] if ARCHITECTURES.contains(&architecture) => ("linux", architecture, ""),
            [os, architecture] => (os, architecture, ""),
            [os, architecture, variant] => (os, architecture, variant),
            _ => return None,
        };
        let is_word =
            |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !is_word(os) || !is_word(architecture) || !(variant.is_empty() || is_word(variant)) {
            return None;
        }
        let architecture = match architecture {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Some(Self {
            os: os.to_ascii_lowercase(),
            architecture: architecture.to_ascii_lowercase(),
            variant: variant.to_ascii_lowercase(),
        })
    }

    /// How well another platform serves where this one is wanted, 0 being best.
    fn fitness(&self, other: &Self) -> Option<u32> {
        if self.os != other.os || self.architecture != other.architecture {
            return None;
        }
        // arm64 and arm64/v8 are the same thing.
        let variant = |platform: &Self| match (platform.architecture.as_str(), platform.variant.as_str()) {
            ("arm64", "") => String::from("v8"),
            (_, variant) => variant.to_owned(),
        };
        match (variant(self).as_str(), variant(other).as_str()) {
            (wanted, found) if wanted == found => Some(0),
            (_, "") => Some(1),
            // What is wanted is left open: amd64/v2 and arm/v7 may need more than this machine has, so they are the last choice.
            ("", _) => Some(2),
            _ => None,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

impl Document {
    /// Reads a document that was served under a content type. The error is what is wrong with it.
    pub(crate) fn parse(bytes: &[u8], content_type: &str, limits: &Limits) -> Result<Self, String> {
        if content_type.starts_with(SCHEMA_1) {
            return Err(String::from(
                "it has schema 1, which has been out of use since 2017: push the image again with a newer tool",
            ));
        }
        let wire: Wire = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if wire.schema_version != 2 {
            return Err(format!("it has schema version {}, not 2", wire.schema_version));
        }
        let said = wire.media_type.as_deref().unwrap_or_default();
        if is_known(said) && is_known(content_type) && said != content_type {
            return Err(format!("it calls itself {said} and was served as {content_type}"));
        }
        let kind = if said.is_empty() { content_type } else { said };
        match (wire.manifests, wire.config, wire.layers) {
            (Some(manifests), None, None) if kind != OCI_MANIFEST && kind != DOCKER_MANIFEST => {
                at_most(manifests.len(), limits.descriptors_max, "manifests")?;
                Ok(Self::Index(manifests))
            }
            (None, Some(config), Some(layers)) if kind != OCI_INDEX && kind != DOCKER_LIST => {
                at_most(layers.len(), limits.layers_max, "layers")?;
                let total = layers
                    .iter()
                    .try_fold(0u64, |sum, layer| sum.checked_add(layer.size));
                total.ok_or("its layers' sizes are beyond all measure")?;
                Ok(Self::Manifest { config, layers })
            }
            _ => Err(String::from("it is neither an image's manifest nor an index")),
        }
    }
}

/// Chooses the manifest for a platform; the error lists what there is.
pub(crate) fn choose<'a>(
    manifests: &'a [BlobDescriptor],
    wanted: &Platform,
) -> Result<&'a BlobDescriptor, String> {
    let is_attestation = |descriptor: &BlobDescriptor| {
        let notes = descriptor.annotations.as_ref();
        notes.is_some_and(|notes| notes.contains_key("vnd.docker.reference.type"))
    };
    let images = || manifests.iter().filter(|descriptor| !is_attestation(descriptor));
    let fitting = images().filter_map(|descriptor| {
        let fitness = match &descriptor.platform {
            Some(platform) => wanted.fitness(platform)?,
            // It says nothing: its configuration will.
            None => 3,
        };
        Some((fitness, descriptor))
    });
    if let Some((_, best)) = fitting.min_by_key(|(fitness, _)| *fitness) {
        return Ok(best);
    }
    let names: Vec<String> = images()
        .filter_map(|descriptor| descriptor.platform.as_ref())
        .map(|platform| super::error::plain(&platform.to_string()))
        .take(20)
        .collect();
    Err(names.join(", "))
}

/// Whether a media type is that of an index.
pub(crate) fn is_index(media_type: &str) -> bool {
    media_type == OCI_INDEX || media_type == DOCKER_LIST
}

/// Whether a configuration is that of a container image.
pub(crate) fn is_image_config(media_type: &str) -> bool {
    media_type == OCI_CONFIG || media_type == DOCKER_CONFIG
}

fn is_known(media_type: &str) -> bool {
    [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].contains(&media_type)
}

fn at_most(count: usize, max: usize, what: &str) -> Result<(), String> {
    if count > max {
        return Err(format!("it has {count} {what}, {max} are the limit"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn descriptor() -> serde_json::Value {
        json!({"mediaType": "x", "digest": Digest::of(b""), "size": 1})
    }

    fn parse(text: &str, kind: &str) -> Result<Document, String> {
        Document::parse(text.as_bytes(), kind, &Limits::DEVICE)
    }

    #[test]
    fn both_kinds_are_read() {
        let manifest =
            json!({"schemaVersion": 2, "config": descriptor(), "layers": [descriptor()]}).to_string();
        assert!(matches!(
            parse(&manifest, OCI_MANIFEST),
            Ok(Document::Manifest { .. })
        ));
        assert!(matches!(
            parse(&manifest, "text/plain"),
            Ok(Document::Manifest { .. })
        ));
        let index =
            json!({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [descriptor()]}).to_string();
        assert!(matches!(parse(&index, DOCKER_LIST), Ok(Document::Index(_))));
    }

    #[test]
    fn what_could_mean_two_things_is_refused() {
        let manifest = json!({"schemaVersion": 2, "config": descriptor(), "layers": []}).to_string();
        let both =
            json!({"schemaVersion": 2, "config": descriptor(), "layers": [], "manifests": []}).to_string();
        let twice = manifest.replacen("\"layers\":[]", "\"layers\":[],\"layers\":[]", 1);
        let sha512 = manifest.replace("sha256:", "sha512:");
        let deep = format!("{{\"schemaVersion\":2,\"x\":{}", "[".repeat(100_000));
        let many = json!({"schemaVersion": 2, "config": descriptor(), "layers": vec![descriptor(); 5000]});
        let huge = json!({"digest": Digest::of(b""), "size": u64::MAX});
        let huge = json!({"schemaVersion": 2, "config": descriptor(), "layers": [huge, descriptor()]});
        for (bad, kind) in [
            (both.as_str(), OCI_MANIFEST),
            (&twice, OCI_MANIFEST),
            (&sha512, OCI_MANIFEST),
            (&deep, OCI_MANIFEST),
            (&many.to_string(), OCI_MANIFEST),
            (&huge.to_string(), OCI_MANIFEST),
            (&manifest, OCI_INDEX),
            (
                &manifest,
                "application/vnd.docker.distribution.manifest.v1+prettyjws",
            ),
            ("{\"schemaVersion\":1}", OCI_MANIFEST),
            ("{\"schemaVersion\":2}", OCI_MANIFEST),
            ("[]", OCI_MANIFEST),
            ("", OCI_MANIFEST),
        ] {
            assert!(parse(bad, kind).is_err(), "{}", &bad[..bad.len().min(200)]);
        }
        let called =
            json!({"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": descriptor(), "layers": []});
        assert!(parse(&called.to_string(), OCI_MANIFEST).is_err());
    }

    #[test]
    fn the_best_platform_is_chosen() {
        let of = |text: &str| -> BlobDescriptor {
            let platform = Platform::parse(text).expect("a platform");
            BlobDescriptor {
                media_type: OCI_MANIFEST.to_owned(),
                digest: Digest::of(text.as_bytes()),
                size: 1,
                platform: Some(platform),
                annotations: None,
                artifact_type: None,
            }
        };
        let list = [
            "windows/amd64",
            "linux/amd64/v3",
            "linux/amd64",
            "linux/arm/v6",
            "linux/arm/v7",
            "linux/arm64/v8",
        ]
        .map(of);
        for (wanted, found) in [
            ("linux/amd64", "linux/amd64"),
            ("x86_64", "linux/amd64"),
            ("linux/arm64", "linux/arm64/v8"),
            ("linux/arm/v7", "linux/arm/v7"),
            ("linux/amd64/v3", "linux/amd64/v3"),
        ] {
            let wanted = Platform::parse(wanted).expect("a platform");
            let chosen = choose(&list, &wanted).expect("one fits");
            assert_eq!(chosen.digest, Digest::of(found.as_bytes()), "{wanted}");
        }
        let missing = choose(&list, &Platform::parse("riscv64").expect("a platform"));
        assert!(missing.expect_err("none").contains("linux/arm/v7"));
        for lone in ["linux", "amd64", "x86_64"] {
            assert!(Platform::parse(lone).is_some(), "{lone}");
        }
        for bad in ["", "/", "linux/", "a/b/c/d", "li nux/amd64", "foo"] {
            assert_eq!(Platform::parse(bad), None, "{bad}");
        }
    }
}
