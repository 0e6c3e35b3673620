//! Loading: an archive's images become images of the store, all of them or none.
//!
//! Owns the order: keep the archive's members aside, read its documents, unpack and verify layers aside, sync, move into place, write the
//! index. Refuses nothing by itself: the formats, the tar and the index have their owners. Invariant: an error, a kill or a power cut at any
//! step leaves the images there were, and what was staged is gone at the latest when the store is next opened.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};
use std::path::PathBuf;
use std::rc::Rc;

use oci_spec::image::{DescriptorBuilder, ImageManifestBuilder, MediaType, SCHEMA_VERSION};

use crate::archive::{ArchiveError, Planned, carried, plan};
use crate::compression::{Compression, Decoder};
use crate::digest::{Digest, Hashing};
use crate::fault;
use crate::guard::{Counted, Guarded};
use crate::index::{LayerRecord, Record, Stored};
use crate::recipe::{self, Taping};
use crate::reference::Reference;
use crate::spool::{Member, SpoolError, spool};
use crate::store::{ImageStore, Staging, StoreError};
use crate::tree::{At, FileError, create_private, make_private_dir, remove_tree, sync_file_system};
use crate::unpack::{UnpackError, unpack};
use kakoi_archive::tarball::{Reader, TarError};

/// An image that was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its id.
    pub id: Digest,
    /// The names it got, in the familiar form; empty where the archive had none.
    pub names: Vec<String>,
}

/// What a caller is told while it waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many bytes of the archive were read.
    Read {
        /// Bytes as they came in.
        bytes: u64,
    },
    /// A layer is being unpacked.
    Layer {
        /// Its diff id.
        diff_id: Digest,
        /// Its place among the image's layers, from 1.
        number: usize,
        /// How many layers the image has.
        of: usize,
        /// Whether the store has it already.
        present: bool,
    },
}

/// Why an archive was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The archive as a stream.
    #[error("cannot take in the archive")]
    Spool(#[from] SpoolError),
    /// The archive's documents.
    #[error("cannot load the archive")]
    Archive(#[from] ArchiveError),
    /// A layer's tar.
    #[error("cannot unpack layer {diff_id}")]
    Unpack {
        /// The layer.
        diff_id: Digest,
        /// What is wrong.
        #[source]
        source: UnpackError,
    },
    /// A layer's compression.
    #[error("cannot read layer {diff_id}")]
    Layer {
        /// The layer.
        diff_id: Digest,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
    /// A layer that is not what the configuration says.
    #[error("layer {blob} unpacks to {found}, its image's configuration says {diff_id}")]
    DiffId {
        /// The blob.
        blob: Digest,
        /// The digest of its content.
        found: Digest,
        /// What it should be.
        diff_id: Digest,
    },
    /// A manifest of our own that does not serialise: our own bug or no memory.
    #[error("cannot make a manifest")]
    Manifest(#[source] oci_spec::OciSpecError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<FileError> for LoadError {
    fn from(error: FileError) -> Self {
        Self::Store(StoreError::File(error))
    }
}

impl LoadError {
    /// Whether the disk is full; the remedy is to remove images.
    pub fn is_disk_full(&self) -> bool {
        use io::ErrorKind::StorageFull;
        match self {
            Self::Store(error) => error.is_disk_full(),
            Self::Archive(ArchiveError::File(error)) | Self::Spool(SpoolError::Keep(error)) => {
                error.is_disk_full()
            }
            Self::Spool(SpoolError::Read(error) | SpoolError::Tar(TarError::Read(error))) => {
                error.kind() == StorageFull
            }
            Self::Layer { source, .. } => source.kind() == StorageFull,
            Self::Unpack { source, .. } => source.is_disk_full(),
            _ => false,
        }
    }
}

/// A layer in the staging folder, verified.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) folder: PathBuf,
    pub(crate) recipe: PathBuf,
    /// Bytes of files.
    pub(crate) bytes: u64,
}

/// What one image, or several, add to the store.
#[derive(Default)]
pub(crate) struct Additions {
    // In the order of their digests: a test that cuts a load off finds the same order again.
    pub(crate) blobs: BTreeMap<Digest, PathBuf>,
    pub(crate) layers: BTreeMap<Digest, Made>,
    pub(crate) records: Vec<(Digest, Record, Vec<Reference>)>,
}

impl ImageStore {
    /// Loads an archive: docker-archive or OCI layout, plain, gzip or zstd. All its images appear, or none.
    ///
    /// A name that another image has moves to the loaded one, as in Docker. Memory stays bounded; while it lasts, the disk holds the archive
    /// once (uncompressed layers packed) beside the unpacked layers.
    pub fn load(
        &self,
        reader: impl Read,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<Loaded>, LoadError> {
        let mut staging = self.stage()?;
        let spool = spool(reader, &staging.path, &self.limits, &mut |bytes| {
            progress(Progress::Read { bytes })
        })?;
        if spool.is_empty() {
            return Err(LoadError::Archive(ArchiveError::Unknown));
        }
        fault::point("spooled");
        let mut additions = Additions::default();
        for image in plan(&spool, &self.limits)? {
            self.add(&mut staging, &mut additions, image, progress)?;
        }
        self.keep_carried(&staging, carried(&spool, &self.limits), &mut additions)?;
        self.publish(staging, additions)
    }

    /// Unpacks and verifies what an image brings.
    pub(crate) fn add(
        &self,
        staging: &mut Staging<'_>,
        additions: &mut Additions,
        image: Planned,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), LoadError> {
        let of = image.layers.len();
        let mut layers = Vec::with_capacity(of);
        let mut descriptors = Vec::with_capacity(of);
        for (number, (diff_id, member)) in image.layers.iter().enumerate() {
            let known = self.known_layer(staging, diff_id);
            let staged = additions.layers.get(diff_id).map(|made| made.bytes);
            progress(Progress::Layer {
                diff_id: diff_id.clone(),
                number: number + 1,
                of,
                present: known.is_some(),
            });
            let bytes = match known.or(staged) {
                Some(bytes) => {
                    // The folder is the one of the diff id; that the blob belongs to it must be seen all the same.
                    self.verify_layer(staging, diff_id, member)?;
                    bytes
                }
                None => {
                    let folder = staging.path.join(format!("layer-{}", diff_id.hex()));
                    let made = self.unpack_layer(staging, diff_id, member, &folder)?;
                    let bytes = made.bytes;
                    additions.layers.insert(diff_id.clone(), made);
                    bytes
                }
            };
            fault::point("layer-unpacked");
            descriptors.push((layer_media_type(member.compression), member));
            layers.push(LayerRecord {
                diff_id: diff_id.clone(),
                blob: member.digest.clone(),
                stored: Stored::Recipe,
                bytes,
            });
        }
        let manifest = match image.manifest {
            Some(member) => member,
            None => make_manifest(staging, &image.config, &descriptors)?,
        };
        additions.take_blob(&manifest);
        additions.take_blob(&image.config);
        for document in &image.documents {
            additions.take_blob(document);
        }
        let record = Record {
            manifest: manifest.digest,
            layers,
            repo_digests: Vec::new(),
            documents: image.documents.iter().map(|it| it.digest.clone()).collect(),
            evidence: BTreeMap::new(),
            loaded: now(),
            hidden: false,
        };
        additions.records.push((image.id, record, image.tags));
        Ok(())
    }

    /// Makes everything durable, then visible.
    pub(crate) fn publish(
        &self,
        mut staging: Staging<'_>,
        additions: Additions,
    ) -> Result<Vec<Loaded>, LoadError> {
        sync_file_system(&staging.path)?;
        fault::point("staging-synced");
        let mut state = self.state();
        for digest in additions.blobs.keys().chain(additions.layers.keys()) {
            staging.pin(&mut state, digest);
        }
        let measures = staging.publish(&additions.blobs, &additions.layers)?;
        let mut index = state.index.clone();
        index.measures.blobs.extend(measures.blobs);
        index.measures.recipes.extend(measures.recipes);
        index.measures.layers.extend(measures.layers);
        let mut loaded: Vec<Loaded> = Vec::new();
        for (id, record, tags) in additions.records {
            match index.images.get_mut(&id) {
                // The same image again: what it has stays; it is shown again if it was hidden, and learns where else it is served. Of two
                // packings of its layers that registries serve, the later is kept, so that the next pull finds it.
                Some(known) => {
                    known.hidden = false;
                    // Signatures may be of either manifest.
                    known
                        .documents
                        .extend([known.manifest.clone(), record.manifest.clone()]);
                    if !record.repo_digests.is_empty() {
                        (known.manifest, known.layers) = (record.manifest, record.layers);
                    }
                    known.documents.extend(record.documents);
                    known.evidence.extend(record.evidence);
                    for served in record.repo_digests {
                        if !known.repo_digests.contains(&served) {
                            known.repo_digests.push(served);
                        }
                    }
                }
                None => {
                    index.images.insert(id.clone(), record);
                }
            }
            let names = tags.iter().map(Reference::familiar).collect();
            index.tags.extend(tags.into_iter().map(|tag| (tag, id.clone())));
            loaded.push(Loaded { id, names });
        }
        self.commit(&mut state, index)?;
        drop(state);
        staging.remove_claims();
        // Before the next collection: the pins go with the staging folder, what the index names stays.
        drop(staging);
        self.collect(&mut self.state())?;
        Ok(loaded)
    }

    /// Bytes of a layer that some image of the store has with its recipe; it then stays until this work is over.
    pub(crate) fn known_layer(&self, staging: &mut Staging<'_>, diff_id: &Digest) -> Option<u64> {
        let mut state = self.state();
        let layers = state.index.images.values().flat_map(|record| &record.layers);
        let bytes = layers
            .filter(|layer| layer.diff_id == *diff_id)
            .map(|layer| layer.bytes)
            .next()?;
        if !self.layer_path(diff_id).is_dir() || !self.recipe_path(diff_id).is_file() {
            return None;
        }
        staging.pin(&mut state, diff_id);
        Some(bytes)
    }

    /// Checks that a blob's content has the diff id, without unpacking it.
    fn verify_layer(
        &self,
        staging: &Staging<'_>,
        diff_id: &Digest,
        member: &Member,
    ) -> Result<(), LoadError> {
        if member.compression == Compression::None && member.digest == *diff_id {
            return Ok(());
        }
        let mut content = Hashing::new(self.layer_content(staging, diff_id, member)?);
        let layer = |source| LoadError::Layer {
            diff_id: diff_id.clone(),
            source,
        };
        io::copy(&mut content, &mut io::sink()).map_err(layer)?;
        check_diff_id(diff_id, &member.digest, content.finish().0)
    }

    /// Unpacks a blob into a new folder, and checks its diff id.
    pub(crate) fn unpack_layer(
        &self,
        staging: &Staging<'_>,
        diff_id: &Digest,
        member: &Member,
        folder: &std::path::Path,
    ) -> Result<Made, LoadError> {
        let content = self.layer_content(staging, diff_id, member)?;
        let (made, found) = self.unpack_content(content, diff_id, folder)?;
        check_diff_id(diff_id, &member.digest, found)?;
        Ok(made)
    }

    /// Unpacks a layer's uncompressed bytes into a new folder, and writes its recipe beside it; the digest is over all bytes, what follows the
    /// tar's end included.
    pub(crate) fn unpack_content(
        &self,
        content: impl Read,
        diff_id: &Digest,
        folder: &std::path::Path,
    ) -> Result<(Made, Digest), LoadError> {
        make_private_dir(folder)?;
        // The folder is the container's `/`; that nobody on the host gets here is up to the folders above.
        make_root_mode(folder)?;
        let (scratch, recipe) = (folder.with_extension("scratch"), folder.with_extension("recipe"));
        make_private_dir(&scratch)?;
        let writer = recipe::Writer::new(create_private(&recipe)?).at("write", &recipe)?;
        let mut tar = Reader::new(Taping::new(Hashing::new(content), writer));
        let (unpacked, orphans) =
            unpack(&mut tar, folder, &scratch, &self.limits).map_err(|source| LoadError::Unpack {
                diff_id: diff_id.clone(),
                source,
            })?;
        let mut rest = tar.into_inner();
        io::copy(&mut rest, &mut io::sink()).map_err(|source| LoadError::Layer {
            diff_id: diff_id.clone(),
            source,
        })?;
        let (content, writer) = rest.into_parts();
        writer.finish().at("write", &recipe)?;
        let recipe = match orphans.is_empty() {
            true => recipe,
            false => {
                let whole = folder.with_extension("settled");
                recipe::settle(&recipe, &orphans, create_private(&whole)?).at("write", &whole)?;
                whole
            }
        };
        remove_tree(&scratch)?;
        if unpacked.devices_left_out + unpacked.xattrs_left_out > 0 {
            tracing::info!(
                layer = %diff_id,
                devices = unpacked.devices_left_out,
                xattrs = unpacked.xattrs_left_out,
                "left out of a layer"
            );
        }
        let made = Made {
            folder: folder.to_owned(),
            recipe,
            bytes: unpacked.bytes,
        };
        Ok((made, content.finish().0))
    }

    /// A layer's uncompressed bytes, watched.
    fn layer_content(
        &self,
        staging: &Staging<'_>,
        diff_id: &Digest,
        member: &Member,
    ) -> Result<LayerContent, LoadError> {
        let (counted, mut compressed) = Counted::new(member.open()?);
        if member.compression == Compression::None {
            // It came in this size; that we packed it well for keeping says nothing about who sent it.
            compressed = Rc::new(Cell::new(u64::MAX));
        }
        let decoder = Decoder::new(BufReader::with_capacity(64 * 1024, counted)).map_err(|source| {
            LoadError::Layer {
                diff_id: diff_id.clone(),
                source,
            }
        })?;
        Ok(Guarded::new(decoder, compressed, &staging.path, &self.limits))
    }
}

/// A layer's blob, decoded under watch.
type LayerContent = Guarded<Decoder<BufReader<Counted<Box<dyn io::BufRead>>>>>;

impl Additions {
    pub(crate) fn take_blob(&mut self, member: &Member) {
        self.blobs.insert(member.digest.clone(), member.path.clone());
    }
}

pub(crate) fn check_diff_id(diff_id: &Digest, blob: &Digest, found: Digest) -> Result<(), LoadError> {
    if found == *diff_id {
        return Ok(());
    }
    Err(LoadError::DiffId {
        blob: blob.clone(),
        found,
        diff_id: diff_id.clone(),
    })
}

/// A manifest for an image that came without: the same bytes for the same image, whoever makes it.
fn make_manifest(
    staging: &Staging<'_>,
    config: &Member,
    layers: &[(MediaType, &Member)],
) -> Result<Member, LoadError> {
    let descriptor = |media_type: MediaType, member: &Member| {
        let digest = member.digest.to_string().parse::<oci_spec::image::Digest>()?;
        DescriptorBuilder::default()
            .media_type(media_type)
            .digest(digest)
            .size(member.size)
            .build()
    };
    let make = || {
        let layers = layers
            .iter()
            .map(|(media_type, member)| descriptor(media_type.clone(), member));
        ImageManifestBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageManifest)
            .config(descriptor(MediaType::ImageConfig, config)?)
            .layers(layers.collect::<Result<Vec<_>, _>>()?)
            .build()?
            .to_string()
    };
    let bytes = make().map_err(LoadError::Manifest)?.into_bytes();
    let digest = Digest::of(&bytes);
    write_member(
        staging,
        &format!("manifest-{}", config.digest.hex()),
        digest,
        &bytes,
    )
    .map_err(LoadError::from)
}

/// Puts bytes of our own making into the staging folder.
pub(crate) fn write_member(
    staging: &Staging<'_>,
    name: &str,
    digest: Digest,
    bytes: &[u8],
) -> Result<Member, FileError> {
    use std::io::Write;

    let path = staging.path.join(name);
    create_private(&path)?.write_all(bytes).at("write", &path)?;
    Ok(Member {
        digest,
        size: bytes.len() as u64,
        compression: Compression::None,
        is_packed: false,
        path,
    })
}

fn layer_media_type(compression: Compression) -> MediaType {
    match compression {
        Compression::None => MediaType::ImageLayer,
        Compression::Gzip => MediaType::ImageLayerGzip,
        Compression::Zstd => MediaType::ImageLayerZstd,
    }
}

fn make_root_mode(folder: &std::path::Path) -> Result<(), FileError> {
    use std::os::unix::fs::PermissionsExt;

    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).at("set mode of", folder)
}

/// The current time, as records have it.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().to_string()
}
