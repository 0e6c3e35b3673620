//! What an archive's documents say: which images it has, of which blobs they consist, and what they are called.
//!
//! Owns the reading of `manifest.json` (docker-archive) and of `index.json` with its indexes and manifests (OCI layout). Refuses to touch
//! layers. Where an archive is both, as `docker save` has made them since 25, `manifest.json` says which images are meant (its OCI index may
//! name platforms that are not in the archive) and the OCI manifests give their bytes, so that digests survive.
//!
//! Invariant: every [`Planned`] image has a configuration that parses and as many layers as that says, each a member of the archive.

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use serde::Deserialize;

use crate::config::{ConfigDocument, ConfigError};
use crate::digest::Digest;
use crate::limits::Limits;
use crate::reference::{Reference, ReferenceError};
use crate::registry::{Attached, Basket, Document, PAYLOAD_BYTES_MAX};
use crate::spool::{Member, Spool};
use crate::tree::FileError;

/// The name containerd and Docker give an image in an OCI index, complete.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// The name in an OCI index: a tag alone by the specification, a whole name as podman and skopeo write it.
const OCI_NAME: &str = "org.opencontainers.image.ref.name";

/// An image to be loaded.
pub(crate) struct Planned {
    pub(crate) id: Digest,
    pub(crate) config: Member,
    /// The manifest's bytes, where the archive has one.
    pub(crate) manifest: Option<Member>,
    /// The lowest first, with the diff id that each must have.
    pub(crate) layers: Vec<(Digest, Member)>,
    pub(crate) tags: Vec<Reference>,
    /// The indexes through which it was found, and its further manifests: signatures may be of them.
    pub(crate) documents: Vec<Member>,
}

/// Why an archive's documents make no image.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Neither format.
    #[error("archive is neither a docker-archive (manifest.json) nor an OCI layout (index.json)")]
    Unknown,
    /// Docker before 1.10.
    #[error(
        "archive was made by a Docker older than 1.10, which has no manifest.json: save it again with a newer one"
    )]
    Ancient,
    /// An empty archive, or one of other artifacts.
    #[error("archive holds no image for linux/{architecture}")]
    NoImage {
        /// This machine's architecture.
        architecture: &'static str,
    },
    /// A document that is no JSON of its kind.
    #[error("cannot read {name} of the archive")]
    Json {
        /// The document.
        name: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// An OCI document that is not of its kind.
    #[error("cannot read {name} of the archive")]
    Oci {
        /// The document.
        name: String,
        /// What is wrong.
        #[source]
        source: oci_spec::OciSpecError,
    },
    /// A document larger than its limit.
    #[error("{name} of the archive is larger than {bytes_max} bytes")]
    TooLarge {
        /// The document.
        name: String,
        /// The limit.
        bytes_max: u64,
    },
    /// A limit on numbers.
    #[error("archive has more than {max} {what}")]
    TooMany {
        /// The limit.
        max: usize,
        /// Of what.
        what: &'static str,
    },
    /// A member that a document names.
    #[error("archive lacks {name}")]
    Missing {
        /// The member.
        name: String,
    },
    /// A digest of another kind than sha256.
    #[error("archive names blob {text:?}, which is no sha256 digest")]
    Digest {
        /// The digest.
        text: String,
    },
    /// A size that a descriptor says and its blob has not.
    #[error("blob {digest} has {size} bytes, its descriptor says {claimed}")]
    Size {
        /// The blob.
        digest: Digest,
        /// Its size.
        size: u64,
        /// What the descriptor says.
        claimed: u64,
    },
    /// A configuration that is none.
    #[error("cannot use image {id}")]
    Config {
        /// The image.
        id: Digest,
        /// What is wrong.
        #[source]
        source: ConfigError,
    },
    /// A configuration and a manifest that do not belong together.
    #[error("image {id} has {layers} layers, its configuration says {diff_ids}")]
    LayerCount {
        /// The image.
        id: Digest,
        /// Layers of the manifest.
        layers: usize,
        /// Layers of the configuration.
        diff_ids: usize,
    },
    /// A name that is none.
    #[error("archive gives an image the name {name:?}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong.
        #[source]
        source: ReferenceError,
    },
    /// The staging folder.
    #[error("cannot read back the archive")]
    File(#[from] FileError),
}

/// Reads an archive's documents.
pub(crate) fn plan(spool: &Spool, limits: &Limits) -> Result<Vec<Planned>, ArchiveError> {
    let planner = Planner { spool, limits };
    let planned = match (spool.member("manifest.json"), spool.member("index.json")) {
        (Some(manifest), index) => planner.docker(manifest, index)?,
        (None, Some(index)) => planner.oci(index)?,
        (None, None) if spool.member("repositories").is_some() => return Err(ArchiveError::Ancient),
        (None, None) => return Err(ArchiveError::Unknown),
    };
    if planned.is_empty() {
        return Err(ArchiveError::NoImage {
            architecture: architecture(),
        });
    }
    Ok(planned)
}

/// What an OCI layout carries beside its images: the payloads of manifests that its index names, itself or one index further down, and that
/// are no layers. What is malformed or too large belongs to nobody's image, and is passed over.
pub(crate) fn carried(spool: &Spool, limits: &Limits) -> Vec<Attached> {
    let mut basket = Basket::new(None);
    let mut looked_at = 0;
    let Some(index) = spool.member("index.json") else {
        return Vec::new();
    };
    let mut indexes = vec![(index.clone(), 0)];
    while let Some((member, depth)) = indexes.pop() {
        let Some(Document::Index(manifests)) = document_of(&member, limits) else {
            continue;
        };
        for descriptor in manifests {
            looked_at += 1;
            if looked_at > limits.descriptors_max || basket.is_full() {
                return basket.found;
            }
            let Some(member) = spool.blob(&descriptor.digest) else {
                continue;
            };
            match document_of(member, limits) {
                Some(Document::Index(_)) if depth == 0 => indexes.push((member.clone(), 1)),
                Some(Document::Manifest { layers, .. }) => {
                    for layer in layers.iter().filter(|layer| !layer.media_type.contains("tar")) {
                        let payload = spool.blob(&layer.digest).filter(|_| basket.takes(layer));
                        let payload = payload.and_then(|payload| payload.read(PAYLOAD_BYTES_MAX).ok()?);
                        if let Some(payload) = payload {
                            basket.put(layer, payload);
                        }
                    }
                }
                _ => {}
            }
        }
    }
    basket.found
}

fn document_of(member: &Member, limits: &Limits) -> Option<Document> {
    let bytes = member.read(limits.manifest_bytes_max).ok()??;
    Document::parse(&bytes, "", limits).ok()
}

/// This machine's architecture in Go's words.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// One element of `manifest.json`.
#[derive(Deserialize)]
struct DockerImage {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags")]
    repo_tags: Option<Vec<String>>,
    #[serde(rename = "Layers")]
    layers: Option<Vec<String>>,
}

struct Planner<'a> {
    spool: &'a Spool,
    limits: &'a Limits,
}

impl Planner<'_> {
    fn docker(&self, manifest: &Member, index: Option<&Member>) -> Result<Vec<Planned>, ArchiveError> {
        let bytes = self.bytes(manifest, "manifest.json", self.limits.manifest_bytes_max)?;
        let images: Vec<DockerImage> =
            serde_json::from_slice(&bytes).map_err(|source| ArchiveError::Json {
                name: String::from("manifest.json"),
                source,
            })?;
        at_most(images.len(), self.limits.archive_images_max, "images")?;
        let manifests = match index {
            Some(index) => self.manifests(index)?,
            None => Vec::new(),
        };
        let mut planned = Vec::new();
        for image in images {
            let config = self.named(&image.config)?;
            let layers = image.layers.unwrap_or_default();
            at_most(layers.len(), self.limits.layers_max, "layers in an image")?;
            let layers = layers
                .iter()
                .map(|name| self.named(name).cloned())
                .collect::<Result<Vec<_>, _>>()?;
            let blobs: Vec<&Digest> = layers.iter().map(|layer| &layer.digest).collect();
            let of_image = |found: &&OciImage| {
                found.config == config.digest && found.layers.iter().collect::<Vec<_>>() == blobs
            };
            let manifest = manifests
                .iter()
                .find(of_image)
                .map(|found| found.manifest.clone());
            let tags = image.repo_tags.unwrap_or_default();
            at_most(tags.len(), self.limits.descriptors_max, "names for an image")?;
            let tags = tags.iter().map(|name| tag(name)).collect::<Result<Vec<_>, _>>()?;
            planned.push(self.image(config, manifest, layers, tags, Vec::new())?);
        }
        Ok(planned)
    }

    fn oci(&self, index: &Member) -> Result<Vec<Planned>, ArchiveError> {
        let mut planned: Vec<Planned> = Vec::new();
        for found in self.manifests(index)? {
            let config = self.blob(&found.config)?;
            let layers = found.layers.iter().map(|layer| self.blob(layer).cloned());
            let layers = layers.collect::<Result<Vec<_>, _>>()?;
            let tags: Vec<Reference> = found.name.into_iter().collect();
            // One image under several names has a descriptor for each.
            match planned.iter_mut().find(|image| image.id == found.config) {
                Some(image) => {
                    image.tags.extend(tags);
                    image.documents.extend(found.indexes);
                    image.documents.push(found.manifest);
                }
                None => {
                    planned.push(self.image(config, Some(found.manifest), layers, tags, found.indexes)?)
                }
            }
        }
        at_most(planned.len(), self.limits.archive_images_max, "images")?;
        Ok(planned)
    }

    fn image(
        &self,
        config: &Member,
        manifest: Option<Member>,
        layers: Vec<Member>,
        tags: Vec<Reference>,
        documents: Vec<Member>,
    ) -> Result<Planned, ArchiveError> {
        let id = config.digest.clone();
        let bytes = self.bytes(
            config,
            &format!("configuration {id}"),
            self.limits.config_bytes_max,
        )?;
        let document = ConfigDocument::parse(&bytes).map_err(|source| ArchiveError::Config {
            id: id.clone(),
            source,
        })?;
        let diff_ids = document.rootfs.diff_ids.clone();
        at_most(layers.len(), self.limits.layers_max, "layers in an image")?;
        if diff_ids.len() != layers.len() {
            return Err(ArchiveError::LayerCount {
                id,
                layers: layers.len(),
                diff_ids: diff_ids.len(),
            });
        }
        Ok(Planned {
            id,
            config: config.clone(),
            manifest,
            layers: diff_ids.into_iter().zip(layers).collect(),
            tags,
            documents,
        })
    }

    /// Every image manifest that an index leads to and that runs on this machine.
    fn manifests(&self, index: &Member) -> Result<Vec<OciImage>, ArchiveError> {
        let mut walk = Walk {
            planner: self,
            looked_at: 0,
            found: Vec::new(),
        };
        walk.top(index)?;
        Ok(walk.found)
    }

    fn named(&self, name: &str) -> Result<&Member, ArchiveError> {
        self.spool.member(name).ok_or_else(|| ArchiveError::Missing {
            name: name.chars().take(200).collect(),
        })
    }

    fn blob(&self, digest: &Digest) -> Result<&Member, ArchiveError> {
        self.spool.blob(digest).ok_or_else(|| ArchiveError::Missing {
            name: format!("blob {digest}"),
        })
    }

    fn bytes(&self, member: &Member, name: &str, bytes_max: u64) -> Result<Vec<u8>, ArchiveError> {
        member.read(bytes_max)?.ok_or_else(|| ArchiveError::TooLarge {
            name: name.to_owned(),
            bytes_max,
        })
    }
}

/// A manifest that was found in an OCI layout.
struct OciImage {
    manifest: Member,
    config: Digest,
    layers: Vec<Digest>,
    name: Option<Reference>,
    indexes: Vec<Member>,
}

struct Walk<'a> {
    planner: &'a Planner<'a>,
    looked_at: usize,
    found: Vec<OciImage>,
}

impl Walk<'_> {
    /// The layout's own index: each descriptor is an image of its own, unless several are one image's platforms.
    fn top(&mut self, index: &Member) -> Result<(), ArchiveError> {
        let index = self.index(index, "index.json")?;
        let manifests = index.manifests();
        for descriptor in manifests {
            let name = name_of(descriptor)?;
            if is_index(descriptor) {
                self.nested(descriptor, &name, 1)?;
            } else if fitness(descriptor).is_some() {
                self.manifest(descriptor, name)?;
            }
        }
        Ok(())
    }

    /// An index that stands for one image: the platform that fits best and whose blobs are in the archive.
    fn nested(
        &mut self,
        descriptor: &Descriptor,
        name: &Option<Reference>,
        depth: u32,
    ) -> Result<bool, ArchiveError> {
        let planner = self.planner;
        if depth > planner.limits.index_depth_max {
            return Err(ArchiveError::TooMany {
                max: planner.limits.index_depth_max as usize,
                what: "levels of indexes",
            });
        }
        let Some(member) = self.look(descriptor)? else {
            return Ok(false);
        };
        let index = self.index(&member, &digest_of(descriptor)?.to_string())?;
        let mut fitting: Vec<(u32, &Descriptor)> = index
            .manifests()
            .iter()
            .filter_map(|inner| Some((fitness(inner)?, inner)))
            .collect();
        fitting.sort_by_key(|(fitness, _)| *fitness);
        for (_, inner) in fitting {
            let found = match is_index(inner) {
                true => self.nested(inner, name, depth + 1)?,
                false => self.manifest(inner, name.clone())?,
            };
            if found {
                // Each index on the way, or a signature of the outermost would lead nowhere.
                let found = self.found.last_mut().expect("one was found just now");
                found.indexes.push(member);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes a manifest, if it is in the archive and is of an image.
    fn manifest(&mut self, descriptor: &Descriptor, name: Option<Reference>) -> Result<bool, ArchiveError> {
        let planner = self.planner;
        let Some(member) = self.look(descriptor)? else {
            return Ok(false);
        };
        let shown = format!("manifest {}", member.digest);
        let bytes = planner.bytes(&member, &shown, planner.limits.manifest_bytes_max)?;
        let manifest = ImageManifest::from_reader(&bytes[..])
            .map_err(|source| ArchiveError::Oci { name: shown, source })?;
        let config = manifest.config().media_type().to_string();
        if !matches!(
            config.as_str(),
            "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json"
        ) {
            return Ok(false);
        }
        // Classic signatures have the shape of an image.
        let is_layer = |layer: &Descriptor| layer.media_type().to_string().contains("tar");
        if !manifest.layers().is_empty() && !manifest.layers().iter().any(is_layer) {
            return Ok(false);
        }
        at_most(
            manifest.layers().len(),
            planner.limits.layers_max,
            "layers in an image",
        )?;
        let config = digest_of(manifest.config())?;
        if planner.spool.blob(&config).is_none() {
            return Ok(false);
        }
        let layers = manifest
            .layers()
            .iter()
            .map(digest_of)
            .collect::<Result<Vec<_>, _>>()?;
        for blob in manifest.layers().iter().chain([manifest.config()]) {
            self.look(blob)?;
        }
        self.found.push(OciImage {
            manifest: member,
            config,
            layers,
            name,
            indexes: Vec::new(),
        });
        Ok(true)
    }

    fn index(&self, member: &Member, name: &str) -> Result<ImageIndex, ArchiveError> {
        let bytes = self
            .planner
            .bytes(member, name, self.planner.limits.manifest_bytes_max)?;
        ImageIndex::from_reader(&bytes[..]).map_err(|source| ArchiveError::Oci {
            name: name.to_owned(),
            source,
        })
    }

    /// The blob of a descriptor, whose size must be what the descriptor says; `None` where the archive has none.
    fn look(&mut self, descriptor: &Descriptor) -> Result<Option<Member>, ArchiveError> {
        self.looked_at += 1;
        at_most(self.looked_at, self.planner.limits.descriptors_max, "descriptors")?;
        let digest = digest_of(descriptor)?;
        let Some(member) = self.planner.spool.blob(&digest) else {
            return Ok(None);
        };
        if member.size != descriptor.size() {
            return Err(ArchiveError::Size {
                digest,
                size: member.size,
                claimed: descriptor.size(),
            });
        }
        Ok(Some(member.clone()))
    }
}

/// How well a descriptor's platform fits this machine, 0 being best; `None` where it does not run here, and for attestations.
fn fitness(descriptor: &Descriptor) -> Option<u32> {
    let is_attestation = annotation(descriptor, "vnd.docker.reference.type").is_some();
    let Some(platform) = descriptor.platform() else {
        return (!is_attestation).then_some(1);
    };
    if is_attestation
        || platform.os().to_string() != "linux"
        || platform.architecture().to_string() != architecture()
    {
        return None;
    }
    match (architecture(), platform.variant().as_deref()) {
        (_, None) => Some(0),
        ("arm64", Some("v8")) => Some(0),
        // amd64/v2 and higher need instructions that this machine may lack: last choice.
        _ => Some(2),
    }
}

fn is_index(descriptor: &Descriptor) -> bool {
    matches!(
        descriptor.media_type().to_string().as_str(),
        "application/vnd.oci.image.index.v1+json"
            | "application/vnd.docker.distribution.manifest.list.v2+json"
    )
}

fn annotation<'a>(descriptor: &'a Descriptor, key: &str) -> Option<&'a str> {
    descriptor.annotations().as_ref()?.get(key).map(String::as_str)
}

/// The image's name: containerd's, else OCI's where that is more than a tag.
fn name_of(descriptor: &Descriptor) -> Result<Option<Reference>, ArchiveError> {
    if let Some(name) = annotation(descriptor, CONTAINERD_NAME) {
        return tag(name).map(Some);
    }
    match annotation(descriptor, OCI_NAME) {
        Some(name) if name.contains(['/', ':']) => tag(name).map(Some),
        _ => Ok(None),
    }
}

fn digest_of(descriptor: &Descriptor) -> Result<Digest, ArchiveError> {
    let text = descriptor.digest().to_string();
    Digest::parse(&text).map_err(|_| ArchiveError::Digest {
        text: text.chars().take(100).collect(),
    })
}

fn tag(name: &str) -> Result<Reference, ArchiveError> {
    Reference::parse_tag(name).map_err(|source| ArchiveError::Name {
        name: name.chars().take(200).collect(),
        source,
    })
}

fn at_most(count: usize, max: usize, what: &'static str) -> Result<(), ArchiveError> {
    if count > max {
        Err(ArchiveError::TooMany { max, what })
    } else {
        Ok(())
    }
}
