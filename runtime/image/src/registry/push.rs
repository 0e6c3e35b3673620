//! Pushing: an image of the store goes to a registry.
//!
//! Owns the order: blobs before the configuration, the manifest last, so that a registry never names what it has not. A layer that the registry
//! has, here or in another repository, by the digest it came with, is not sent. The others are made anew from what is unpacked and packed with
//! gzip, as Docker does: they hold the same bytes and have another digest, and so does the manifest; [`Pushed::formerly`] says so. What is large
//! goes in pieces, so that a break costs one piece.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use ureq::http::{Method, StatusCode, header};

use super::auth::{Credentials, encode};
use super::client::{Client, locked};
use super::document::{BlobDescriptor, Document, OCI_MANIFEST};
use super::error::RegistryError;
use super::repository::{Access, Repository};
use super::session::{Ask, Payload, Session, location};
use crate::digest::{Digest, Hashing};
use crate::index::{LayerRecord, Record, Stored};
use crate::reference::Reference;
use crate::store::{ImageStore, StoreError};
use crate::tree::{At, FileError, create_private};

/// Blobs sent at a time: the link is what is waited for, two keep it busy.
const PARALLEL_BLOBS: usize = 2;
/// Largest piece of a blob that goes in one request: what a broken link costs. Registries on object storages want at least 5 MiB.
const PIECE_BYTES: u64 = 16 << 20;
/// Bytes between two words about a blob's progress.
const TELL_EVERY_BYTES: u64 = 512 << 10;
/// gzip's own default: what engines pull for years is worth the time once.
const GZIP_LEVEL: u32 = 6;
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const DOING: &str = "sending a layer";

/// What a caller is told; it answers whether to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushEvent {
    /// The layers of the image, by their diff ids, the lowest first.
    Layers(Vec<Digest>),
    /// One of them.
    Layer(Digest, PushStep),
}

/// How far a layer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushStep {
    /// It is being packed.
    Packing,
    /// The registry has it.
    Present,
    /// The registry took it from another of its repositories.
    Mounted(String),
    /// So many bytes of so many were sent.
    Sending {
        /// Bytes so far.
        bytes: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The registry has it now.
    Done,
}

/// What was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Digest of the manifest.
    pub digest: Digest,
    /// Bytes of the manifest.
    pub size: u64,
    /// The digest with which the image came, where this is another: the registry had not all layers as they came, so they were packed anew.
    pub formerly: Option<Digest>,
}

/// Why nothing was pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The store, or no such image.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer that does not unpack any more.
    #[error("layer {digest} is damaged: load or pull the image again")]
    Damaged {
        /// The blob.
        digest: Digest,
    },
    /// A manifest of the store that does not read as one.
    #[error("manifest {digest} is damaged: load or pull the image again")]
    Manifest {
        /// The manifest.
        digest: Digest,
    },
    /// A digest where a tag is needed.
    #[error("cannot push to a digest: name a tag")]
    Digest,
}

impl From<FileError> for PushError {
    fn from(error: FileError) -> Self {
        Self::Store(error.into())
    }
}

/// A file to be sent.
struct Outgoing {
    diff_id: Option<Digest>,
    digest: Digest,
    size: u64,
    path: PathBuf,
}

/// What a layer is written through.
enum Packer<W: Write> {
    Bare(W),
    Gzip(Box<GzEncoder<W>>),
}

/// One push, for its workers.
struct Push<'a> {
    store: &'a ImageStore,
    repository: &'a Repository<'a>,
    staging: &'a Path,
    siblings: &'a [String],
    /// Media type of layers that were packed anew.
    packed_type: &'static str,
    /// Whether a registry served the image: its digest is then somebody's, and layers that came bare go out as they came.
    keeps_digest: bool,
    listener: &'a (dyn Fn(PushEvent) -> bool + Sync),
}

impl ImageStore {
    /// Pushes the image that a name leads to, under that name. See [`Client::cancel`] for ending it early.
    pub fn push(
        &self,
        client: &Client,
        reference: &Reference,
        credentials: Option<Credentials>,
        listener: &(dyn Fn(PushEvent) -> bool + Sync),
    ) -> Result<Pushed, PushError> {
        let Some(tag) = reference.tag().filter(|_| reference.digest().is_none()) else {
            return Err(PushError::Digest);
        };
        let mut staging = self.stage()?;
        let (id, record, siblings) = {
            let mut state = self.state();
            let id = state
                .index
                .find(&reference.to_string())
                .map_err(StoreError::from)?
                .id()
                .clone();
            let record = state.index.images[&id].clone();
            staging.pin_image(&mut state, &id, &record);
            let names = state.index.names_of(&id);
            (id, record, siblings(reference, &names))
        };
        listener(PushEvent::Layers(
            record.layers.iter().map(|layer| layer.diff_id.clone()).collect(),
        ));
        let damaged = || PushError::Manifest {
            digest: record.manifest.clone(),
        };
        let (manifest, config, layers) = self.manifest_of(&record)?;
        let mut repository = Repository::new(client, reference, credentials, Access::Push);
        repository.also_from(&siblings);
        let is_docker = media_type_of(&manifest).starts_with("application/vnd.docker.");
        let push = Push {
            store: self,
            repository: &repository,
            staging: &staging.path,
            siblings: &siblings,
            packed_type: if is_docker { DOCKER_LAYER } else { OCI_LAYER },
            keeps_digest: !record.repo_digests.is_empty(),
            listener,
        };
        let mut wanted: Vec<(&LayerRecord, &BlobDescriptor)> = record.layers.iter().zip(&layers).collect();
        wanted.sort_by_key(|(layer, _)| &layer.diff_id);
        wanted.dedup_by_key(|(layer, _)| &layer.diff_id);
        let sent = push.layers(&wanted)?;
        let config = Outgoing {
            diff_id: None,
            digest: id.clone(),
            size: config.size,
            path: self.blob_path(&id, Stored::Plain),
        };
        if !push.has(&config.digest, None)? {
            push.send(&config)?;
        }
        let manifest = relayered(&manifest, &record.layers, &sent).ok_or_else(damaged)?;
        // A manifest of our own making, of an archive that had none, is nobody's loss.
        let came_packed = record.layers.iter().any(|layer| layer.blob != layer.diff_id);
        let is_of_others = came_packed || !record.repo_digests.is_empty();
        let formerly = (record.manifest != Digest::of(&manifest) && is_of_others).then_some(record.manifest);
        Ok(Pushed {
            formerly,
            ..put_manifest(&repository, tag, &manifest)?
        })
    }
}

impl ImageStore {
    /// An image's manifest, with its configuration and layers.
    fn manifest_of(
        &self,
        record: &Record,
    ) -> Result<(Vec<u8>, BlobDescriptor, Vec<BlobDescriptor>), PushError> {
        let bytes = self.read_blob(&record.manifest, self.limits.manifest_bytes_max)?;
        let parsed = Document::parse(&bytes, "", &self.limits);
        match parsed {
            Ok(Document::Manifest { config, layers })
                if Digest::of(&bytes) == record.manifest && layers.len() == record.layers.len() =>
            {
                Ok((bytes, config, layers))
            }
            _ => Err(PushError::Manifest {
                digest: record.manifest.clone(),
            }),
        }
    }
}

impl Push<'_> {
    /// Brings the layers, a few at a time; tells what each is in the registry, by its diff id. The first failure ends the others.
    fn layers(
        &self,
        wanted: &[(&LayerRecord, &BlobDescriptor)],
    ) -> Result<HashMap<Digest, BlobDescriptor>, PushError> {
        let next = AtomicUsize::new(0);
        let sent = Mutex::new(HashMap::new());
        let failure: Mutex<Option<PushError>> = Mutex::new(None);
        let worker = || {
            while let Some((layer, descriptor)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                match self.layer(layer, descriptor) {
                    Ok(descriptor) => {
                        locked(&sent).insert(layer.diff_id.clone(), descriptor);
                    }
                    Err(error) => {
                        locked(&failure).get_or_insert(error);
                        self.repository.own().client.cancel.set();
                        return;
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..wanted.len().min(PARALLEL_BLOBS) {
                scope.spawn(worker);
            }
            worker();
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(sent.into_inner().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    /// Brings one layer: as it came where the registry has that, or where it came bare from a registry; else packed anew. What packed it for us
    /// first is not known, so that its very bytes cannot be had again, unless that was this code.
    fn layer(&self, layer: &LayerRecord, descriptor: &BlobDescriptor) -> Result<BlobDescriptor, PushError> {
        if self.has(&descriptor.digest, Some(&layer.diff_id))? {
            return Ok(descriptor.clone());
        }
        let goes_bare = self.keeps_digest && layer.blob == layer.diff_id;
        let packed = self.pack(layer, goes_bare)?;
        if !self.has(&packed.digest, packed.diff_id.as_ref())? {
            self.send(&packed)?;
        }
        // What was packed is not needed again, and the next layer wants the room.
        std::fs::remove_file(&packed.path).at("remove", &packed.path)?;
        Ok(match packed.digest == descriptor.digest {
            true => descriptor.clone(),
            false => BlobDescriptor::new(self.packed_type, packed.digest, packed.size),
        })
    }

    fn tell(&self, diff_id: Option<&Digest>, step: PushStep) {
        if let Some(diff_id) = diff_id
            && !(self.listener)(PushEvent::Layer(diff_id.clone(), step))
        {
            self.repository.own().client.cancel.set();
        }
    }

    /// Makes a layer's tar anew and packs it, or leaves it bare; what is not what it was when it came in is refused.
    fn pack(&self, layer: &LayerRecord, goes_bare: bool) -> Result<Outgoing, PushError> {
        self.tell(Some(&layer.diff_id), PushStep::Packing);
        let damaged = || PushError::Damaged {
            digest: layer.diff_id.clone(),
        };
        let path = self.staging.join(format!("packed-{}", layer.diff_id.hex()));
        let (tar, _) = self.store.open_tar(layer).map_err(|_| damaged())?;
        let mut content = Hashing::new(tar);
        let out = Hashing::new(create_private(&path)?);
        let mut packer = match goes_bare {
            true => Packer::Bare(out),
            false => Packer::Gzip(Box::new(GzEncoder::new(out, Compression::new(GZIP_LEVEL)))),
        };
        let mut buffer = vec![0; 64 << 10];
        loop {
            self.repository.own().client.cancel.check()?;
            let count = match content.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Err(damaged()),
            };
            if count == 0 {
                break;
            }
            let written = match &mut packer {
                Packer::Bare(out) => out.write_all(&buffer[..count]),
                Packer::Gzip(encoder) => encoder.write_all(&buffer[..count]),
            };
            written.at("write", &path)?;
        }
        let out = match packer {
            Packer::Bare(out) => out,
            Packer::Gzip(encoder) => encoder.finish().at("write", &path)?,
        };
        let (digest, size, _) = out.finish();
        if content.finish().0 != layer.diff_id {
            return Err(damaged());
        }
        Ok(Outgoing {
            diff_id: Some(layer.diff_id.clone()),
            digest,
            size,
            path,
        })
    }

    /// Whether the registry has a blob, or takes it from another of its repositories.
    fn has(&self, digest: &Digest, diff_id: Option<&Digest>) -> Result<bool, PushError> {
        if has(self.repository, digest)? {
            self.tell(diff_id, PushStep::Present);
            return Ok(true);
        }
        // The configuration is small: asking costs as much as sending.
        for sibling in self.siblings.iter().filter(|_| diff_id.is_some()) {
            let query = format!("?mount={}&from={}", encode(&digest.to_string()), encode(sibling));
            match begin(self.repository, &query) {
                Ok(None) => {
                    self.tell(diff_id, PushStep::Mounted(sibling.clone()));
                    return Ok(true);
                }
                // It began an upload instead: that one is left to expire.
                Ok(Some(_)) | Err(RegistryError::Denied { .. } | RegistryError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }

    /// Sends a blob that the registry has not.
    fn send(&self, blob: &Outgoing) -> Result<(), PushError> {
        let session = self.repository.own();
        let patience = session.client.patience;
        let tell = |step: PushStep| self.tell(blob.diff_id.as_ref(), step);
        let mut pause = patience.pause;
        for attempt in 1.. {
            let error = match upload(self.repository, blob, &tell) {
                Ok(()) => {
                    tell(PushStep::Done);
                    return Ok(());
                }
                Err(error) => error,
            };
            if !error.is_passing() || attempt >= patience.attempts {
                return Err(error.into());
            }
            tracing::debug!(%error, attempt, "sending a blob anew");
            session.client.cancel.pause(pause)?;
            pause = (pause * 2).min(patience.pause_max);
        }
        unreachable!("the loop ends by returning")
    }
}

/// Other repositories of the same registry that have the image, and so its layers.
fn siblings(reference: &Reference, names: &[Reference]) -> Vec<String> {
    let mut found: Vec<String> = names
        .iter()
        .filter(|name| name.registry() == reference.registry() && name.repository() != reference.repository())
        .map(|name| name.repository().to_owned())
        .collect();
    found.sort();
    found.dedup();
    // One is as good as another, and each costs a request.
    found.truncate(2);
    found
}

/// The manifest as it is where its layers are as they came, else with other descriptors for them; `None` where it is no JSON object of the
/// expected shape.
pub(crate) fn relayered(
    manifest: &[u8],
    layers: &[LayerRecord],
    now: &HashMap<Digest, BlobDescriptor>,
) -> Option<Vec<u8>> {
    let mut document: Value = serde_json::from_slice(manifest).ok()?;
    let descriptors = document.get_mut("layers")?.as_array_mut()?;
    let mut is_same = descriptors.len() == layers.len();
    for (descriptor, layer) in descriptors.iter_mut().zip(layers) {
        let now = now.get(&layer.diff_id)?;
        // Two packings of one layer in one image are rare, and then one will do.
        if descriptor["digest"] != json!(now.digest) {
            is_same = false;
            *descriptor = json!({"mediaType": now.media_type, "digest": now.digest, "size": now.size});
        }
    }
    match is_same {
        true => Some(manifest.to_vec()),
        false => serde_json::to_vec(&document).ok(),
    }
}

/// A manifest's own media type; OCI's may be silent about it.
pub(crate) fn media_type_of(manifest: &[u8]) -> String {
    let document = serde_json::from_slice::<Value>(manifest).ok();
    let kind = document.and_then(|document| Some(document.get("mediaType")?.as_str()?.to_owned()));
    kind.unwrap_or_else(|| OCI_MANIFEST.to_owned())
}

fn put_manifest(repository: &Repository<'_>, tag: &str, manifest: &[u8]) -> Result<Pushed, PushError> {
    let session = repository.own();
    let kind = media_type_of(manifest);
    let path = repository.path(&format!("manifests/{tag}"));
    let what = format!("manifest {}:{tag}", repository.reference.familiar_repository());
    session.send(&Ask {
        method: Method::PUT,
        payload: Payload::Bytes(manifest, &kind),
        ..Ask::get(&path, &what, "sending a manifest")
    })?;
    Ok(Pushed {
        digest: Digest::of(manifest),
        size: manifest.len() as u64,
        formerly: None,
    })
}

pub(super) fn has(repository: &Repository<'_>, digest: &Digest) -> Result<bool, RegistryError> {
    let path = repository.path(&format!("blobs/{digest}"));
    let what = format!("blob {digest}");
    let ask = Ask {
        method: Method::HEAD,
        ..Ask::get(&path, &what, "looking for a layer")
    };
    match repository.own().send(&ask) {
        Ok(_) => Ok(true),
        Err(RegistryError::NotFound { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Begins an upload; tells where it goes on, or `None` where the blob was mounted.
pub(super) fn begin(repository: &Repository<'_>, query: &str) -> Result<Option<String>, RegistryError> {
    let session = repository.own();
    let path = repository.path(&format!("blobs/uploads/{query}"));
    let what = format!("repository {}", repository.reference.familiar_repository());
    let answer = session.send(&Ask {
        method: Method::POST,
        ..Ask::get(&path, &what, DOING)
    })?;
    match answer.status() {
        StatusCode::CREATED => Ok(None),
        _ => place(session, answer.headers()).map(Some),
    }
}

pub(super) fn place(session: &Session<'_>, headers: &ureq::http::HeaderMap) -> Result<String, RegistryError> {
    let found = location(headers).map(str::to_owned);
    found.ok_or_else(|| session.protocol("it does not say where an upload goes on"))
}

/// Sends a blob: in one request, or piece by piece.
fn upload(
    repository: &Repository<'_>,
    blob: &Outgoing,
    tell: &dyn Fn(PushStep),
) -> Result<(), RegistryError> {
    let session = repository.own();
    let Some(mut place_now) = begin(repository, "")? else {
        return Err(session.protocol("it says that an upload is done which was not begun"));
    };
    let mut sent = 0;
    while blob.size - sent > PIECE_BYTES {
        let end = sent + PIECE_BYTES;
        let answer = piece(session, Method::PATCH, &place_now, blob, (sent, end), tell)?;
        place_now = place(session, answer.headers())?;
        let taken = answer
            .headers()
            .get(header::RANGE)
            .and_then(|range| range.to_str().ok());
        let taken = taken.and_then(|range| range.rsplit('-').next()?.parse::<u64>().ok());
        if taken.is_some_and(|last| last + 1 != end) {
            return Err(session.protocol("it took another piece than was sent"));
        }
        sent = end;
    }
    let separator = if place_now.contains('?') { '&' } else { '?' };
    let last = format!(
        "{place_now}{separator}digest={}",
        encode(&blob.digest.to_string())
    );
    piece(session, Method::PUT, &last, blob, (sent, blob.size), tell)?;
    Ok(())
}

fn piece(
    session: &Session<'_>,
    method: Method,
    url: &str,
    blob: &Outgoing,
    (start, end): (u64, u64),
    tell: &dyn Fn(PushStep),
) -> Result<ureq::http::Response<ureq::Body>, RegistryError> {
    let open = || -> io::Result<Box<dyn Read + '_>> {
        let mut file = File::open(&blob.path)?;
        file.seek(SeekFrom::Start(start))?;
        Ok(Box::new(Told {
            inner: file.take(end - start),
            bytes: start,
            told: start,
            total: blob.size,
            tell,
            session,
        }))
    };
    let what = format!("blob {}", blob.digest);
    session.send(&Ask {
        method,
        range: (end - start < blob.size).then_some((start, end)),
        is_repeatable: false,
        payload: Payload::Stream(&open, end - start),
        ..Ask::get(url, &what, DOING)
    })
}

/// Tells what goes out; ends where nobody waits any more.
struct Told<'a, 'c> {
    inner: io::Take<File>,
    bytes: u64,
    told: u64,
    total: u64,
    tell: &'a dyn Fn(PushStep),
    session: &'a Session<'c>,
}

impl Read for Told<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes += count as u64;
        if self.bytes >= self.told + TELL_EVERY_BYTES || self.bytes == self.total && self.told < self.total {
            self.told = self.bytes;
            (self.tell)(PushStep::Sending {
                bytes: self.bytes,
                total: self.total,
            });
            self.session.client.cancel.check().map_err(io::Error::other)?;
        }
        Ok(count)
    }
}
