//! An operating system's image as a file: the tar of an OCI layout, read once from front to back.
//!
//! Owns [`OsArchive`]: the documents before the image, each with the digest that names it, and then the image itself as a stream, which is verified by whoever
//! writes it, block by block. So the documents come first, as `kakoi os pack` writes them. Refuses to judge what was signed. Invariant: memory is bounded by
//! [`ARCHIVE_BYTES_MAX`], whatever the archive says.

use std::collections::BTreeMap;
use std::io::Read;

use kakoi_archive::tarball::{Kind, Reader, TarError};
use kakoi_trust::{OsConfig, OsError, OsManifest, agree, read_os_config, read_os_manifest};
use serde::Deserialize;

use crate::digest::Digest;
use crate::limits::Limits;
use crate::registry::{Attached, Basket, BlobDescriptor, Document};

/// The most bytes of all that is not the image: an index of the largest image that there may be, and documents.
pub const ARCHIVE_BYTES_MAX: u64 = (64 << 20) + (8 << 20);
/// The most members before the image.
const MEMBERS_MAX: usize = 256;

/// Why an archive is not the image of an operating system.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The archive.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// A document.
    #[error(transparent)]
    Os(#[from] OsError),
    /// It lacks something.
    #[error("the archive has no {0}: make it with kakoi os pack")]
    Missing(&'static str),
    /// The image comes before what it is to be judged by, or something else is large.
    #[error(
        "the archive holds {0} bytes before its documents are complete: make it with kakoi os pack, which writes the image last"
    )]
    Order(u64),
    /// A member is not what its name says.
    #[error("the archive is damaged: {name} has digest {found}")]
    Damaged {
        /// The digest that names it.
        name: Digest,
        /// What it has.
        found: Digest,
    },
    /// An index that cannot be used.
    #[error("the archive's index.json cannot be used: {0}")]
    Index(String),
}

/// What is known of an operating system's image, all of it by the digest of its manifest.
#[derive(Clone, Debug)]
pub struct OsDocuments {
    /// The digest of the manifest.
    pub digest: Digest,
    /// The manifest.
    pub manifest: OsManifest,
    /// The configuration.
    pub config: OsConfig,
}

impl OsDocuments {
    /// Puts documents together whose bytes have the digests that name them.
    pub fn read(manifest: &[u8], config: &[u8]) -> Result<Self, OsError> {
        let documents = Self {
            digest: Digest::of(manifest),
            manifest: read_os_manifest(manifest)?,
            config: read_os_config(config)?,
        };
        agree(&documents.manifest, &documents.config)?;
        Ok(documents)
    }
}

/// An archive, read up to the image.
pub struct OsArchive<R> {
    /// What it says.
    pub documents: OsDocuments,
    /// The index of blocks.
    pub index: Vec<u8>,
    /// What is signed about it, unverified.
    pub attached: Vec<Attached>,
    /// The documents as they are, the manifest last: by digest, for whoever sends them on.
    pub members: BTreeMap<Digest, Vec<u8>>,
    /// The manifests that refer to it.
    pub referrers: Vec<Digest>,
    reader: Reader<R>,
}

#[derive(Deserialize)]
struct Listed {
    manifests: Vec<BlobDescriptor>,
}

impl<R: Read> OsArchive<R> {
    /// Reads the documents.
    pub fn open(from: R) -> Result<Self, ArtifactError> {
        let mut reader = Reader::new(from);
        let mut members: BTreeMap<Digest, Vec<u8>> = BTreeMap::new();
        let mut listed: Option<Listed> = None;
        let mut bytes = 0;
        for _ in 0..MEMBERS_MAX {
            let Some(entry) = reader.next_entry()? else {
                return Err(ArtifactError::Missing(match listed {
                    None => "index.json",
                    Some(_) => "image of an operating system",
                }));
            };
            if entry.kind != Kind::File || entry.sparse.is_some() {
                continue;
            }
            let name = String::from_utf8_lossy(&entry.path).into_owned();
            let name = name.trim_start_matches("./");
            let digest = name.strip_prefix("blobs/sha256/").and_then(Digest::from_hex);
            if let (Some(listed), Some(digest)) = (&listed, &digest)
                && let Some(found) = complete(listed, &members, digest)?
            {
                let (manifest, documents) = found;
                return Self::finish(reader, documents, &manifest, listed, members);
            }
            bytes += entry.size;
            if bytes > ARCHIVE_BYTES_MAX {
                return Err(ArtifactError::Order(entry.size));
            }
            let mut member = Vec::new();
            reader.read_to_end(&mut member).map_err(TarError::Read)?;
            match (digest, name) {
                (Some(name), _) => {
                    let found = Digest::of(&member);
                    if found != name {
                        return Err(ArtifactError::Damaged { name, found });
                    }
                    members.insert(name, member);
                }
                (None, "index.json") => {
                    let read = serde_json::from_slice(&member);
                    listed = Some(read.map_err(|error| ArtifactError::Index(error.to_string()))?);
                }
                (None, _) => {}
            }
        }
        Err(ArtifactError::Missing("image within its first members"))
    }

    fn finish(
        reader: Reader<R>,
        documents: OsDocuments,
        manifest: &Digest,
        listed: &Listed,
        members: BTreeMap<Digest, Vec<u8>>,
    ) -> Result<Self, ArtifactError> {
        let index = members
            .get(&image_digest(&documents.manifest.index.digest))
            .cloned()
            .ok_or(ArtifactError::Missing("index of blocks before its image"))?;
        let others: Vec<Digest> = listed
            .manifests
            .iter()
            .map(|other| other.digest.clone())
            .filter(|other| other != manifest && members.contains_key(other))
            .collect();
        let mut basket = Basket::new(None);
        for other in &others {
            let Ok(Document::Manifest { layers, .. }) = Document::parse(&members[other], "", &Limits::DEVICE)
            else {
                continue;
            };
            for layer in &layers {
                if let Some(payload) = members.get(&layer.digest).filter(|_| basket.takes(layer)) {
                    basket.put(layer, payload.clone());
                }
            }
        }
        Ok(Self {
            index,
            documents,
            attached: basket.found,
            referrers: others,
            members,
            reader,
        })
    }

    /// Reads the image.
    pub fn image(&mut self) -> &mut impl Read {
        &mut self.reader
    }
}

/// The documents, where `next` is the image that one of the listed manifests names.
fn complete(
    listed: &Listed,
    members: &BTreeMap<Digest, Vec<u8>>,
    next: &Digest,
) -> Result<Option<(Digest, OsDocuments)>, ArtifactError> {
    for descriptor in &listed.manifests {
        let Some(bytes) = members.get(&descriptor.digest) else {
            continue;
        };
        let Ok(manifest) = read_os_manifest(bytes) else {
            continue;
        };
        if image_digest(&manifest.image.digest) != *next {
            continue;
        }
        let config = members.get(&image_digest(&manifest.config.digest));
        let config = config.ok_or(ArtifactError::Missing("configuration before its image"))?;
        let documents = OsDocuments::read(bytes, config)?;
        return Ok(Some((descriptor.digest.clone(), documents)));
    }
    Ok(None)
}

/// The same digest in this crate's form.
pub fn image_digest(digest: &kakoi_trust::Digest) -> Digest {
    Digest::from_hex(digest.hex()).expect("both are 64 hex digits")
}
