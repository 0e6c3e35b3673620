//! Giving images out: an archive that Docker, containerd, podman and skopeo read, and that loads here with the same ids and digests.
//!
//! Owns the archive's layout: an OCI layout, and beside it, for the docker format, `manifest.json` over the same blobs, as `docker save` makes
//! it since 25. Layers go out as bare tars, made anew and checked against their diff ids on the way; where they came packed, the manifest names
//! the tars instead, and so has another digest. Equal images make equal archives: names in order, times zero.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read, Write};

use oci_spec::image::ImageManifest;
use serde::Serialize;
use serde_json::{Value, json};
use tar::{EntryType, Header};

use crate::digest::{Digest, Hashing};
use crate::index::{Found, Index, LayerRecord, Record};
use crate::reference::Reference;
use crate::registry::{BlobDescriptor, media_type_of, relayered};
use crate::store::{ImageStore, StoreError};
use crate::tree::FileError;

const OCI_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_TAR: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// What an archive is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// docker-archive and OCI layout in one.
    Docker,
    /// OCI layout alone.
    Oci,
}

/// Why an archive is not written.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// No names given.
    #[error("no image to save")]
    Nothing,
    /// The receiving end.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    /// A blob or layer of the store that is not what it was.
    #[error("blob {digest} is damaged: load or pull the image again")]
    Damaged {
        /// The blob.
        digest: Digest,
    },
    /// A manifest of the store that does not read as one.
    #[error("manifest {digest} is damaged: load or pull the image again")]
    Manifest {
        /// The manifest.
        digest: Digest,
        /// What is wrong.
        #[source]
        source: oci_spec::OciSpecError,
    },
    /// Our own documents: only memory can be the reason.
    #[error("cannot write the archive's documents")]
    Document(#[source] serde_json::Error),
    /// The store, or no such image.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<FileError> for SaveError {
    fn from(error: FileError) -> Self {
        Self::Store(StoreError::File(error))
    }
}

/// An image on its way out.
struct Outgoing {
    id: Digest,
    record: Record,
    names: BTreeSet<Reference>,
}

/// What goes into an archive under its digest.
enum Content {
    /// A configuration or manifest.
    Bytes(Vec<u8>),
    Layer(LayerRecord, u64),
}

/// One element of `manifest.json`.
#[derive(Serialize)]
struct DockerImage {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags")]
    repo_tags: Option<Vec<String>>,
    #[serde(rename = "Layers")]
    layers: Vec<String>,
}

impl ImageStore {
    /// Writes images to an archive. One that is given by name takes that name along, one by id takes none, as in Docker.
    pub fn save(
        &self,
        names: &[String],
        format: ArchiveFormat,
        writer: &mut dyn Write,
    ) -> Result<(), SaveError> {
        let mut staging = self.stage()?;
        let mut state = self.state();
        let images = choose(&state.index, names)?;
        // A removal while the archive is written must not take blobs away under it.
        for image in &images {
            staging.pin_image(&mut state, &image.id, &image.record);
        }
        drop(state);
        let mut blobs: BTreeMap<Digest, Content> = BTreeMap::new();
        let mut descriptors = Vec::new();
        let mut docker = Vec::new();
        for image in &images {
            self.describe(image, format, &mut blobs, &mut descriptors)?;
            docker.push(DockerImage {
                config: blob_name(&image.id),
                repo_tags: (!image.names.is_empty())
                    .then(|| image.names.iter().map(Reference::familiar).collect()),
                layers: image
                    .record
                    .layers
                    .iter()
                    .map(|layer| blob_name(&layer.diff_id))
                    .collect(),
            });
        }
        let mut tar = Tar { out: writer };
        tar.folder("blobs/")?;
        tar.folder("blobs/sha256/")?;
        for (digest, content) in &blobs {
            match content {
                Content::Bytes(bytes) => tar.blob(digest, bytes.len() as u64, &bytes[..])?,
                Content::Layer(layer, bytes) => {
                    let (layer, _) = self.open_tar(layer).map_err(|_| damaged(digest))?;
                    tar.blob(digest, *bytes, layer)?;
                }
            }
        }
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": descriptors,
        });
        tar.document("index.json", &index)?;
        if format == ArchiveFormat::Docker {
            tar.document("manifest.json", &docker)?;
        }
        tar.document("oci-layout", &json!({"imageLayoutVersion": "1.0.0"}))?;
        tar.finish()
    }

    /// Whose manifests an archive of [`save`](Self::save) cannot hold as they came, because their layers came packed and go out as bare tars:
    /// names as they were asked for, with the digest that signatures are of.
    pub fn resealed_by_save(&self, names: &[String]) -> Result<Vec<(String, Digest)>, StoreError> {
        let state = self.state();
        let mut resealed = Vec::new();
        for name in names {
            let record = &state.index.images[state.index.find(name)?.id()];
            if record.layers.iter().any(|layer| layer.blob != layer.diff_id) {
                resealed.push((name.clone(), record.manifest.clone()));
            }
        }
        Ok(resealed)
    }

    /// Collects an image's blobs with their sizes, and its descriptors: one for each name.
    fn describe(
        &self,
        image: &Outgoing,
        format: ArchiveFormat,
        blobs: &mut BTreeMap<Digest, Content>,
        descriptors: &mut Vec<Value>,
    ) -> Result<(), SaveError> {
        let digest = &image.record.manifest;
        let bytes = self.read_blob(digest, self.limits.manifest_bytes_max)?;
        if Digest::of(&bytes) != *digest {
            return Err(damaged(digest));
        }
        let manifest = ImageManifest::from_reader(&bytes[..]).map_err(|source| SaveError::Manifest {
            digest: digest.clone(),
            source,
        })?;
        let is_docker = media_type_of(&bytes).starts_with("application/vnd.docker.");
        let mut tars = HashMap::new();
        for layer in &image.record.layers {
            let size = self.tar_bytes(layer).map_err(|_| damaged(&layer.diff_id))?;
            let media_type = if is_docker { DOCKER_TAR } else { OCI_TAR };
            let tar = BlobDescriptor::new(media_type, layer.diff_id.clone(), size);
            tars.insert(layer.diff_id.clone(), tar);
            blobs.insert(layer.diff_id.clone(), Content::Layer(layer.clone(), size));
        }
        let bytes = relayered(&bytes, &image.record.layers, &tars).ok_or_else(|| damaged(digest))?;
        let digest = Digest::of(&bytes);
        let manifest_bytes = bytes.len();
        blobs.insert(digest.clone(), Content::Bytes(bytes));
        let config = self.read_blob(&image.id, self.limits.config_bytes_max)?;
        blobs.insert(image.id.clone(), Content::Bytes(config));
        let document = self.document(&image.id)?;
        let mut platform = json!({"architecture": document.architecture, "os": document.os});
        if !document.variant.is_empty() {
            platform["variant"] = json!(document.variant);
        }
        let media_type = manifest.media_type().as_ref().map(ToString::to_string);
        let descriptor = json!({
            "mediaType": media_type.unwrap_or_else(|| String::from("application/vnd.oci.image.manifest.v1+json")),
            "digest": digest,
            "size": manifest_bytes,
            "platform": platform,
        });
        if image.names.is_empty() {
            descriptors.push(descriptor);
            return Ok(());
        }
        for name in &image.names {
            let mut named = descriptor.clone();
            // The specification has a tag there; podman and skopeo look for the whole name in an archive that is only OCI.
            let short = match format {
                ArchiveFormat::Docker => name.tag().unwrap_or_default().to_owned(),
                ArchiveFormat::Oci => name.to_string(),
            };
            named["annotations"] = json!({
                "io.containerd.image.name": name.to_string(),
                "org.opencontainers.image.ref.name": short,
            });
            descriptors.push(named);
        }
        Ok(())
    }
}

impl ImageStore {
    /// Bytes of a layer's tar; one that an older version kept packed is read to tell.
    fn tar_bytes(&self, layer: &LayerRecord) -> io::Result<u64> {
        let (mut tar, bytes) = self.open_tar(layer).map_err(|error| error.source)?;
        match bytes {
            Some(bytes) => Ok(bytes),
            None => io::copy(&mut tar, &mut io::sink()),
        }
    }
}

fn damaged(digest: &Digest) -> SaveError {
    SaveError::Damaged {
        digest: digest.clone(),
    }
}

/// Gathers what was asked for: every image once, with the names it was asked for by.
fn choose(index: &Index, names: &[String]) -> Result<Vec<Outgoing>, SaveError> {
    let mut chosen: Vec<Outgoing> = Vec::new();
    for name in names {
        let found = index.find(name).map_err(StoreError::from)?;
        let id = found.id().clone();
        let position = chosen.iter().position(|image| image.id == id);
        let position = position.unwrap_or_else(|| {
            chosen.push(Outgoing {
                record: index.images[&id].clone(),
                id,
                names: BTreeSet::new(),
            });
            chosen.len() - 1
        });
        match found {
            Found::Name(reference, _) if reference.digest().is_none() => {
                chosen[position].names.insert(reference);
            }
            _ => {}
        }
    }
    if chosen.is_empty() {
        Err(SaveError::Nothing)
    } else {
        Ok(chosen)
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// A tar being written.
struct Tar<'a> {
    out: &'a mut dyn Write,
}

impl Tar<'_> {
    fn folder(&mut self, name: &str) -> Result<(), SaveError> {
        self.header(name, EntryType::Directory, 0)
    }

    fn document(&mut self, name: &str, document: &impl Serialize) -> Result<(), SaveError> {
        let bytes = serde_json::to_vec(document).map_err(SaveError::Document)?;
        self.header(name, EntryType::Regular, bytes.len() as u64)?;
        self.out.write_all(&bytes).map_err(SaveError::Write)?;
        self.pad(bytes.len() as u64)
    }

    /// Writes a blob and checks it on the way; the archive is then cut off, so no reader takes a damaged one for whole.
    fn blob(&mut self, digest: &Digest, size: u64, mut blob: impl Read) -> Result<(), SaveError> {
        self.header(&blob_name(digest), EntryType::Regular, size)?;
        let damaged = || self::damaged(digest);
        let mut hashing = Hashing::new(&mut *self.out);
        let mut buffer = vec![0u8; 64 * 1024];
        let mut left = size;
        loop {
            let count = match blob.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // A recipe that does not fit its folder is damage, whatever failed.
                Err(_) => return Err(damaged()),
            };
            if count == 0 {
                break;
            }
            left = left.checked_sub(count as u64).ok_or_else(damaged)?;
            hashing.write_all(&buffer[..count]).map_err(SaveError::Write)?;
        }
        let (found, _, _) = hashing.finish();
        if left != 0 || found != *digest {
            return Err(damaged());
        }
        self.pad(size)
    }

    fn header(&mut self, name: &str, kind: EntryType, size: u64) -> Result<(), SaveError> {
        let mut header = Header::new_ustar();
        header.set_path(name).map_err(SaveError::Write)?;
        header.set_entry_type(kind);
        header.set_mode(if kind == EntryType::Directory {
            0o755
        } else {
            0o644
        });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        self.out.write_all(header.as_bytes()).map_err(SaveError::Write)
    }

    fn pad(&mut self, size: u64) -> Result<(), SaveError> {
        let padding = (512 - size % 512) % 512;
        self.out
            .write_all(&[0; 512][..padding as usize])
            .map_err(SaveError::Write)
    }

    fn finish(self) -> Result<(), SaveError> {
        self.out.write_all(&[0; 1024]).map_err(SaveError::Write)?;
        self.out.flush().map_err(SaveError::Write)
    }
}
