//! Pushing: an image of the store goes to a registry.
//!
//! Owns the order: blobs before the configuration, the manifest last, so that a registry never names what it has not. A blob that the registry
//! has is not sent, one that it has in another repository is mounted, a large one goes in pieces so that a break costs one piece. Layers that
//! came compressed go byte for byte as they came, and digests survive; those that came bare are packed with gzip, as Docker does, since every
//! engine reads that.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use ureq::http::{Method, StatusCode, header};

use super::auth::{Credentials, encode};
use super::client::{Client, locked};
use super::document::{Document, OCI_MANIFEST};
use super::error::RegistryError;
use super::repository::{Access, Repository};
use super::session::{Ask, Payload, Session, location};
use crate::digest::{Digest, Hashing};
use crate::index::{LayerRecord, Stored};
use crate::reference::Reference;
use crate::store::{ImageStore, Staging, StoreError};
use crate::tree::{At, FileError, create_private};

/// Blobs sent at a time: the link is what is waited for, two keep it busy.
const PARALLEL_BLOBS: usize = 2;
/// Largest piece of a blob that goes in one request: what a broken link costs. Registries on object storages want at least 5 MiB.
const PIECE_BYTES: u64 = 16 << 20;
/// Bytes between two words about a blob's progress.
const TELL_EVERY_BYTES: u64 = 512 << 10;
/// gzip's own default: what engines pull for years is worth the time once.
const GZIP_LEVEL: u32 = 6;
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
    /// Descriptor's media type.
    media_type: String,
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
            for digest in record
                .layers
                .iter()
                .map(|layer| &layer.blob)
                .chain([&id, &record.manifest])
            {
                staging.pin(&mut state, digest);
            }
            let names = state.index.names_of(&id);
            (id, record, siblings(reference, &names))
        };
        listener(PushEvent::Layers(
            record.layers.iter().map(|layer| layer.diff_id.clone()).collect(),
        ));
        let damaged = || PushError::Manifest {
            digest: record.manifest.clone(),
        };
        let manifest = self.read_blob(&record.manifest, self.limits.manifest_bytes_max)?;
        if Digest::of(&manifest) != record.manifest {
            return Err(damaged());
        }
        let parsed = Document::parse(&manifest, "", &self.limits).map_err(|_| damaged())?;
        let Document::Manifest { config, layers } = parsed else {
            return Err(damaged());
        };
        let mut outgoing = Vec::new();
        for (layer, descriptor) in record.layers.iter().zip(&layers) {
            if !outgoing
                .iter()
                .any(|known: &Outgoing| known.diff_id.as_ref() == Some(&layer.diff_id))
            {
                let media_type = descriptor.media_type.clone();
                outgoing.push(self.prepare(&staging, layer, descriptor.size, media_type, listener)?);
            }
        }
        let mut repository = Repository::new(client, reference, credentials, Access::Push);
        repository.also_from(&siblings);
        self.send_all(&repository, &outgoing, &siblings, listener)?;
        let config = Outgoing {
            diff_id: None,
            digest: id.clone(),
            size: config.size,
            path: self.blob_path(&id, Stored::Plain),
            media_type: config.media_type,
        };
        send(&repository, &config, &[], listener)?;
        let manifest = rewritten(&manifest, &record.layers, &outgoing).ok_or_else(damaged)?;
        put_manifest(&repository, tag, &manifest)
    }

    /// Finds a layer's file, or packs it.
    fn prepare(
        &self,
        staging: &Staging<'_>,
        layer: &LayerRecord,
        size: u64,
        media_type: String,
        listener: &(dyn Fn(PushEvent) -> bool + Sync),
    ) -> Result<Outgoing, PushError> {
        if layer.stored == Stored::Plain {
            return Ok(Outgoing {
                diff_id: Some(layer.diff_id.clone()),
                digest: layer.blob.clone(),
                size,
                path: self.blob_path(&layer.blob, Stored::Plain),
                media_type,
            });
        }
        listener(PushEvent::Layer(layer.diff_id.clone(), PushStep::Packing));
        let damaged = || PushError::Damaged {
            digest: layer.blob.clone(),
        };
        let path = staging.path.join(format!("packed-{}", layer.diff_id.hex()));
        let mut content = Hashing::new(self.open_blob(&layer.blob, layer.stored)?);
        let out = Hashing::new(create_private(&path)?);
        let mut packer = flate2::write::GzEncoder::new(out, flate2::Compression::new(GZIP_LEVEL));
        // The frame has a checksum of its own, so what fails is damage or a full disk; a full disk shows when the file is finished.
        io::copy(&mut content, &mut packer).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull => PushError::from(FileError {
                action: "write",
                path: path.clone(),
                source: error,
            }),
            _ => damaged(),
        })?;
        let (digest, size, _) = packer.finish().at("write", &path)?.finish();
        if content.finish().0 != layer.blob {
            return Err(damaged());
        }
        Ok(Outgoing {
            diff_id: Some(layer.diff_id.clone()),
            digest,
            size,
            path,
            media_type: String::from("application/vnd.oci.image.layer.v1.tar+gzip"),
        })
    }

    /// Sends the layers, a few at a time. The first failure ends the others.
    fn send_all(
        &self,
        repository: &Repository<'_>,
        outgoing: &[Outgoing],
        siblings: &[String],
        listener: &(dyn Fn(PushEvent) -> bool + Sync),
    ) -> Result<(), PushError> {
        let next = AtomicUsize::new(0);
        let failure: Mutex<Option<PushError>> = Mutex::new(None);
        let worker = || {
            while let Some(blob) = outgoing.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(error) = send(repository, blob, siblings, listener) {
                    locked(&failure).get_or_insert(error);
                    repository.own().client.cancel.set();
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..outgoing.len().min(PARALLEL_BLOBS) {
                scope.spawn(worker);
            }
            worker();
        });
        match failure
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
        {
            Some(error) => Err(error),
            None => Ok(()),
        }
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

/// The manifest as it is, or with the layers that were packed; `None` where it is no JSON object of the expected shape.
fn rewritten(manifest: &[u8], layers: &[LayerRecord], outgoing: &[Outgoing]) -> Option<Vec<u8>> {
    if layers.iter().all(|layer| layer.stored == Stored::Plain) {
        return Some(manifest.to_vec());
    }
    let mut document: Value = serde_json::from_slice(manifest).ok()?;
    let descriptors = document.get_mut("layers")?.as_array_mut()?;
    for (descriptor, layer) in descriptors.iter_mut().zip(layers) {
        let sent = outgoing
            .iter()
            .find(|sent| sent.diff_id.as_ref() == Some(&layer.diff_id))?;
        *descriptor = json!({"mediaType": sent.media_type, "digest": sent.digest, "size": sent.size});
    }
    serde_json::to_vec(&document).ok()
}

fn put_manifest(repository: &Repository<'_>, tag: &str, manifest: &[u8]) -> Result<Pushed, PushError> {
    let session = repository.own();
    let kind = serde_json::from_slice::<Value>(manifest).ok();
    let kind = kind.and_then(|document| Some(document.get("mediaType")?.as_str()?.to_owned()));
    let kind = kind.unwrap_or_else(|| OCI_MANIFEST.to_owned());
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
    })
}

/// Brings one blob to the registry, by whichever way is shortest.
fn send(
    repository: &Repository<'_>,
    blob: &Outgoing,
    siblings: &[String],
    listener: &(dyn Fn(PushEvent) -> bool + Sync),
) -> Result<(), PushError> {
    let session = repository.own();
    let tell = |step: PushStep| {
        if let Some(diff_id) = &blob.diff_id
            && !listener(PushEvent::Layer(diff_id.clone(), step))
        {
            session.client.cancel.set();
        }
    };
    if has(repository, &blob.digest)? {
        tell(PushStep::Present);
        return Ok(());
    }
    for sibling in siblings {
        let query = format!(
            "?mount={}&from={}",
            encode(&blob.digest.to_string()),
            encode(sibling)
        );
        match begin(repository, &query) {
            Ok(None) => {
                tell(PushStep::Mounted(sibling.clone()));
                return Ok(());
            }
            // It began an upload instead: that one is left to expire.
            Ok(Some(_)) | Err(RegistryError::Denied { .. } | RegistryError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let patience = session.client.patience;
    let mut pause = patience.pause;
    for attempt in 1.. {
        let error = match upload(repository, blob, &tell) {
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

fn has(repository: &Repository<'_>, digest: &Digest) -> Result<bool, RegistryError> {
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
fn begin(repository: &Repository<'_>, query: &str) -> Result<Option<String>, RegistryError> {
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

fn place(session: &Session<'_>, headers: &ureq::http::HeaderMap) -> Result<String, RegistryError> {
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
