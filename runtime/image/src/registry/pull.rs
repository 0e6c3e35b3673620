//! Pulling: a name becomes an image of the store, in one pass over each layer.
//!
//! Owns the order: resolve the tag once, choose the platform, ask whoever admits images, look at the disk, then fetch, hash, decompress, hash
//! and unpack each layer as it arrives, and publish as a load does. Refuses to judge who may sign what. Invariants: after the tag was resolved
//! everything is asked for by digest; an error, a kill or a power cut leaves the images there were; memory does not grow with the layers.

use std::cell::RefCell;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::auth::Credentials;
use super::blob::BlobStream;
use super::client::{Client, locked};
use super::document::{BlobDescriptor, Document, Platform, choose, is_image_config};
use super::error::RegistryError;
use super::repository::{Access, Repository, Served};
use super::session::Session;
use crate::compression::Decoder;
use crate::config::{ConfigDocument, ConfigError};
use crate::digest::{Digest, Hashing};
use crate::fault;
use crate::guard::{Counted, Guarded, RoomError, check_room};
use crate::index::{LayerRecord, Record, Stored};
use crate::load::{Additions, LoadError, Made, check_diff_id, now, write_member};
use crate::reference::Reference;
use crate::store::{ImageStore, Staging, StoreError};
use crate::tree::{At, FileError};

/// Layers fetched at a time: two cores are busy with two, the third fills the waits for the network. More would only take memory: a zstd
/// window each.
const PARALLEL_LAYERS: usize = 3;
/// Bytes between two words about a layer's progress.
const TELL_EVERY_BYTES: u64 = 512 << 10;
/// Of what comes after a layer that does not unpack, so much is read to say whether the registry sent something else than was asked for.
const DRAIN_BYTES_MAX: u64 = 64 << 20;

/// What a caller is told; it answers whether to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullEvent {
    /// The layers of the image, by the digests of their blobs, the lowest first.
    Layers(Vec<Digest>),
    /// One of them.
    Layer(Digest, LayerStep),
}

/// How far a layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerStep {
    /// The store has it.
    Present,
    /// So many bytes of so many were fetched, and unpacked on the way.
    Fetching {
        /// Bytes so far.
        bytes: u64,
        /// Bytes in all.
        total: u64,
    },
    /// It is there and verified.
    Done,
}

/// Listens to a pull, from several threads.
pub type Listener<'a> = &'a (dyn Fn(PullEvent) -> bool + Sync);

/// What was resolved, for whoever decides whether the image may come in: the tag's document (an index or a manifest) and the platform's
/// manifest, which are the same where there is no index.
pub struct Resolved<'a, 'c> {
    /// The name that was asked for.
    pub reference: &'a Reference,
    /// What the name led to.
    pub top: &'a Served,
    /// The manifest that would run.
    pub manifest: &'a Served,
    /// Where signatures are found ([`Repository::referrers`], [`fallback_tag`](super::fallback_tag)).
    pub repository: &'a Repository<'c>,
}

/// Decides whether an image may come in; the error is what the caller is told. What it answers is kept beside the image, as its evidence under
/// this repository ([`ImageStore::evidence`]).
pub type Admit<'a> =
    &'a dyn Fn(&Resolved<'_, '_>) -> Result<Option<Vec<u8>>, Box<dyn std::error::Error + Send + Sync>>;

/// What to pull, besides the name.
#[derive(Default)]
pub struct PullOptions<'a> {
    /// Another platform than this machine's.
    pub platform: Option<Platform>,
    /// For the registry of the name.
    pub credentials: Option<Credentials>,
    /// Asked once the tag is resolved, before anything is fetched that is large.
    pub admit: Option<Admit<'a>>,
}

/// What was pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The image.
    pub id: Digest,
    /// Digest of what the name led to.
    pub digest: Digest,
    /// Whether the store had all of it under this name already.
    pub is_up_to_date: bool,
}

/// Why nothing was pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A layer, or the store.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A configuration that is none.
    #[error("cannot use image {id}")]
    Config {
        /// The image.
        id: Digest,
        /// What is wrong.
        #[source]
        source: ConfigError,
    },
    /// Manifest and configuration that do not belong together.
    #[error("image {id} has {layers} layers, its configuration says {diff_ids}")]
    LayerCount {
        /// The image.
        id: Digest,
        /// Layers of the manifest.
        layers: usize,
        /// Layers of the configuration.
        diff_ids: usize,
    },
    /// Not enough room.
    #[error(transparent)]
    Room(#[from] RoomError),
    /// It may not come in.
    #[error(transparent)]
    Refused(Box<dyn std::error::Error + Send + Sync>),
}

impl From<FileError> for PullError {
    fn from(error: FileError) -> Self {
        Self::Load(error.into())
    }
}

impl From<StoreError> for PullError {
    fn from(error: StoreError) -> Self {
        Self::Load(error.into())
    }
}

impl PullError {
    /// Whether the disk is full, or would be; the remedy is to remove images.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Room(_) => true,
            Self::Load(error) => error.is_disk_full(),
            _ => false,
        }
    }
}

/// An image's documents, all of them checked against their digests.
struct Plan {
    top: Served,
    /// The indexes between the two, where indexes are nested.
    between: Vec<Served>,
    manifest: Served,
    config: BlobDescriptor,
    layers: Vec<BlobDescriptor>,
}

/// A blob that is to be fetched, once, however often the image has it.
struct Job<'a> {
    blob: &'a BlobDescriptor,
    diff_id: &'a Digest,
    /// False where the store has the unpacked layer from another blob: then it is only verified.
    unpacks: bool,
}

/// What became of a job.
struct Fetched {
    /// Where it was unpacked.
    made: Option<Made>,
    /// Bytes of its files.
    bytes: u64,
}

impl Plan {
    /// What leads to the image.
    fn documents(&self) -> impl Iterator<Item = &Served> {
        [&self.top]
            .into_iter()
            .chain(&self.between)
            .chain([&self.manifest])
    }
}

impl ImageStore {
    /// Pulls an image. A name that another image has moves to it, as in Docker. See [`Client::cancel`] for ending it early.
    pub fn pull(
        &self,
        client: &Client,
        reference: &Reference,
        options: &PullOptions<'_>,
        listener: Listener<'_>,
    ) -> Result<Pulled, PullError> {
        let repository = Repository::new(client, reference, options.credentials.clone(), Access::Pull);
        let wanted = options.platform.clone().unwrap_or_else(Platform::own);
        let plan = self.plan_pull(&repository, &wanted)?;
        let resolved = Resolved {
            reference,
            top: &plan.top,
            manifest: &plan.manifest,
            repository: &repository,
        };
        let admitted = options.admit.map(|admit| admit(&resolved)).transpose();
        let evidence = admitted.map_err(PullError::Refused)?.flatten();
        let id = plan.config.digest.clone();
        let mut staging = self.stage()?;
        let config = repository.blob(&id, plan.config.size, self.limits.config_bytes_max)?;
        let diff_ids = diff_ids(reference, &wanted, &plan, &config)?;
        listener(PullEvent::Layers(
            plan.layers.iter().map(|layer| layer.digest.clone()).collect(),
        ));
        let mut additions = Additions::default();
        let layers = self.fetch_layers(
            &repository,
            &mut staging,
            &plan,
            &diff_ids,
            &mut additions,
            listener,
        )?;
        fault::point("layers-pulled");
        let is_up_to_date = additions.layers.is_empty() && self.is_named(reference, &plan, &id);
        self.keep_documents(&staging, &plan, &config, &mut additions)?;
        let evidence = evidence.map(|bytes| keep_evidence(&staging, &bytes, &mut additions));
        let evidence = evidence.transpose()?.map(|digest| (repository.name(), digest));
        let record = Record {
            manifest: plan.manifest.digest.clone(),
            layers,
            repo_digests: vec![reference.at_digest(plan.top.digest.clone())],
            documents: plan.documents().map(|served| served.digest.clone()).collect(),
            evidence: evidence.into_iter().collect(),
            loaded: now(),
            hidden: false,
        };
        // Docker gives no tag to what was asked for by digest.
        let tags = match reference.digest() {
            Some(_) => Vec::new(),
            None => vec![reference.clone()],
        };
        additions.records.push((id.clone(), record, tags));
        client.cancel.check()?;
        self.publish(staging, additions)?;
        Ok(Pulled {
            id,
            digest: plan.top.digest,
            is_up_to_date,
        })
    }

    /// Resolves the name, once.
    fn plan_pull(&self, repository: &Repository<'_>, wanted: &Platform) -> Result<Plan, PullError> {
        let reference = &repository.reference;
        let name = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or(crate::reference::DEFAULT_TAG).to_owned(),
        };
        let limits = &self.limits;
        let refused = |served: &Served, reason: String| RegistryError::Document {
            registry: repository.own().name().to_owned(),
            what: format!("{} ({})", reference.familiar(), served.digest),
            reason,
        };
        let top = repository.manifest(&name, limits)?;
        let mut served = top.clone();
        let mut between = Vec::new();
        for _ in 0..=limits.index_depth_max {
            let read = Document::parse(&served.bytes, &served.media_type, limits);
            match read.map_err(|reason| refused(&served, reason))? {
                Document::Manifest { config, layers } => {
                    if !is_image_config(&config.media_type) {
                        let kind = super::error::plain(&config.media_type);
                        return Err(
                            refused(&served, format!("it is no image, but an artifact ({kind})")).into(),
                        );
                    }
                    return Ok(Plan {
                        top,
                        between,
                        manifest: served,
                        config,
                        layers,
                    });
                }
                Document::Index(manifests) => {
                    let chosen = choose(&manifests, wanted).map_err(|found| RegistryError::NoPlatform {
                        what: reference.familiar(),
                        wanted: wanted.to_string(),
                        found,
                    })?;
                    let index = served;
                    served = repository.manifest(&chosen.digest.to_string(), limits)?;
                    if index.digest != top.digest {
                        between.push(index);
                    }
                    if served.bytes.len() as u64 != chosen.size {
                        let reason = format!("its index says it has {} bytes", chosen.size);
                        return Err(refused(&served, reason).into());
                    }
                }
            }
        }
        Err(refused(&served, String::from("its indexes are nested too deeply")).into())
    }

    fn is_named(&self, reference: &Reference, plan: &Plan, id: &Digest) -> bool {
        let state = self.state();
        let served = reference.at_digest(plan.top.digest.clone());
        let knows = |of: &Digest| {
            let record = state.index.images.get(of);
            of == id && record.is_some_and(|record| !record.hidden && record.repo_digests.contains(&served))
        };
        match reference.digest() {
            Some(_) => knows(id),
            None => state.index.tags.get(reference).is_some_and(knows),
        }
    }

    fn keep_documents(
        &self,
        staging: &Staging<'_>,
        plan: &Plan,
        config: &[u8],
        additions: &mut Additions,
    ) -> Result<(), PullError> {
        additions.take_blob(&write_member(
            staging,
            "config",
            plan.config.digest.clone(),
            config,
        )?);
        for (number, served) in plan.documents().enumerate() {
            let (name, digest) = (format!("document-{number}"), served.digest.clone());
            additions.take_blob(&write_member(staging, &name, digest, &served.bytes)?);
        }
        Ok(())
    }

    /// Brings every layer: what the store has is pinned, the rest is fetched.
    fn fetch_layers(
        &self,
        repository: &Repository<'_>,
        staging: &mut Staging<'_>,
        plan: &Plan,
        diff_ids: &[Digest],
        additions: &mut Additions,
        listener: Listener<'_>,
    ) -> Result<Vec<LayerRecord>, PullError> {
        let mut records: Vec<Option<LayerRecord>> = Vec::new();
        let mut jobs: Vec<Job<'_>> = Vec::new();
        for (blob, diff_id) in plan.layers.iter().zip(diff_ids) {
            let known = self.pin_layer(staging, &blob.digest, diff_id);
            if known.is_some() {
                listener(PullEvent::Layer(blob.digest.clone(), LayerStep::Present));
            } else if let Some(job) = jobs.iter().find(|job| job.blob.digest == blob.digest) {
                // One blob has one content.
                check_diff_id(diff_id, &blob.digest, job.diff_id.clone())?;
            } else {
                let unpacks = self.known_layer(staging, diff_id).is_none();
                jobs.push(Job {
                    blob,
                    diff_id,
                    unpacks,
                });
            }
            records.push(known);
        }
        self.check_space(&jobs)?;
        let fetched = self.work(repository, staging, &jobs, listener)?;
        for (job, done) in jobs.iter().zip(fetched) {
            if let Some(made) = done.made {
                additions.layers.insert(job.diff_id.clone(), made);
            }
            for (record, (blob, diff_id)) in records.iter_mut().zip(plan.layers.iter().zip(diff_ids)) {
                if record.is_none() && blob.digest == job.blob.digest {
                    *record = Some(LayerRecord {
                        diff_id: diff_id.clone(),
                        blob: blob.digest.clone(),
                        stored: Stored::Recipe,
                        bytes: done.bytes,
                    });
                }
            }
        }
        let complete = records.into_iter().collect::<Option<Vec<_>>>();
        Ok(complete.expect("each layer was known or has a job"))
    }

    /// A layer that some image has from the same blob, and whose files are there; it then stays until this work is over.
    fn pin_layer(&self, staging: &mut Staging<'_>, blob: &Digest, diff_id: &Digest) -> Option<LayerRecord> {
        let mut state = self.state();
        let mut layers = state.index.images.values().flat_map(|record| &record.layers);
        let known = layers.find(|layer| layer.blob == *blob && layer.diff_id == *diff_id)?;
        let known = known.clone();
        let source = match known.stored {
            Stored::Recipe => self.recipe_path(diff_id),
            stored => self.blob_path(blob, stored),
        };
        if !self.layer_path(diff_id).is_dir() || !source.is_file() {
            return None;
        }
        staging.pin(&mut state, blob);
        staging.pin(&mut state, diff_id);
        Some(known)
    }

    /// A layer unpacks to no less than it has packed: less room than that is too little for certain.
    fn check_space(&self, jobs: &[Job<'_>]) -> Result<(), PullError> {
        let unpacked = jobs.iter().filter(|job| job.unpacks).map(|job| job.blob.size);
        let needed = unpacked.fold(0, u64::saturating_add);
        Ok(check_room(&self.root, needed, &self.limits).at("look at the room for", &self.root)??)
    }

    /// Does the jobs, a few at a time. The first failure ends the others.
    fn work(
        &self,
        repository: &Repository<'_>,
        staging: &Staging<'_>,
        jobs: &[Job<'_>],
        listener: Listener<'_>,
    ) -> Result<Vec<Fetched>, PullError> {
        let next = AtomicUsize::new(0);
        let results: Mutex<Vec<Option<Fetched>>> = Mutex::new(jobs.iter().map(|_| None).collect());
        let failure: Mutex<Option<PullError>> = Mutex::new(None);
        let cancel = &repository.own().client.cancel;
        let folder = &staging.path;
        let worker = || {
            while let Some((number, job)) = {
                let number = next.fetch_add(1, Ordering::Relaxed);
                jobs.get(number).map(|job| (number, job))
            } {
                match self.fetch(repository, folder, number, job, listener) {
                    Ok(done) => locked(&results)[number] = Some(done),
                    Err(error) => {
                        locked(&failure).get_or_insert(error);
                        cancel.set();
                        return;
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..jobs.len().min(PARALLEL_LAYERS) {
                scope.spawn(worker);
            }
            worker();
        });
        if let Some(error) = failure
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
        {
            return Err(error);
        }
        let results = results
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let complete = results.into_iter().collect::<Option<Vec<_>>>();
        Ok(complete.expect("without a failure every job was done"))
    }

    /// Fetches one blob: hashed, decompressed, hashed again and unpacked, in one pass.
    fn fetch(
        &self,
        repository: &Repository<'_>,
        staging: &Path,
        number: usize,
        job: &Job<'_>,
        listener: Listener<'_>,
    ) -> Result<Fetched, PullError> {
        let blob = &job.blob.digest;
        let url = repository.path(&format!("blobs/{blob}"));
        let (stream, failure) = BlobStream::new(&repository.sessions, &url, blob, job.blob.size);
        let cancel = &repository.own().client.cancel;
        let total = job.blob.size;
        let tell = |bytes| {
            let goes_on = listener(PullEvent::Layer(
                blob.clone(),
                LayerStep::Fetching { bytes, total },
            ));
            if !goes_on {
                cancel.set();
            }
            goes_on
        };
        let intake = Rc::new(RefCell::new(Intake {
            stream: Hashing::new(stream),
            told: 0,
            bytes: 0,
            tell: &tell,
        }));
        let folder = staging.join(format!("layer-{number}"));
        let unpacked = self.take_in(Handle(Rc::clone(&intake)), job, &folder);
        let drain = if unpacked.is_ok() {
            u64::MAX
        } else {
            DRAIN_BYTES_MAX
        };
        let rest = io::copy(&mut Handle(Rc::clone(&intake)).take(drain), &mut io::sink());
        let intake = Rc::into_inner(intake)
            .expect("the readers above are gone")
            .into_inner();
        let failure = failure.borrow_mut().take();
        intake.settle(failure, repository.own(), job.blob)?;
        let fetched = unpacked?;
        rest.map_err(|source| LoadError::Layer {
            diff_id: job.diff_id.clone(),
            source,
        })?;
        listener(PullEvent::Layer(blob.clone(), LayerStep::Done));
        fault::point("layer-unpacked");
        Ok(fetched)
    }

    /// Unpacks, or only verifies, what a blob holds.
    fn take_in(&self, intake: impl Read, job: &Job<'_>, folder: &Path) -> Result<Fetched, LoadError> {
        let layer = |source| LoadError::Layer {
            diff_id: job.diff_id.clone(),
            source,
        };
        let (counted, compressed) = Counted::new(intake);
        let decoder = Decoder::new(BufReader::with_capacity(64 << 10, counted)).map_err(layer)?;
        let content = Guarded::new(decoder, compressed, &self.root, &self.limits);
        if job.unpacks {
            let (made, found) = self.unpack_content(content, job.diff_id, folder)?;
            check_diff_id(job.diff_id, &job.blob.digest, found)?;
            return Ok(Fetched {
                bytes: made.bytes,
                made: Some(made),
            });
        }
        let mut content = Hashing::new(content);
        io::copy(&mut content, &mut io::sink()).map_err(layer)?;
        check_diff_id(job.diff_id, &job.blob.digest, content.finish().0)?;
        Ok(Fetched {
            made: None,
            bytes: self.layer_bytes(job.diff_id),
        })
    }

    fn layer_bytes(&self, diff_id: &Digest) -> u64 {
        let state = self.state();
        let mut layers = state.index.images.values().flat_map(|record| &record.layers);
        let known = layers.find(|layer| layer.diff_id == *diff_id);
        known.map_or(0, |layer| layer.bytes)
    }
}

fn keep_evidence(
    staging: &Staging<'_>,
    bytes: &[u8],
    additions: &mut Additions,
) -> Result<Digest, PullError> {
    let digest = Digest::of(bytes);
    additions.take_blob(&write_member(staging, "evidence", digest.clone(), bytes)?);
    Ok(digest)
}

/// The diff ids of an image's configuration, which must be for the platform and fit the manifest.
fn diff_ids(
    reference: &Reference,
    wanted: &Platform,
    plan: &Plan,
    config: &[u8],
) -> Result<Vec<Digest>, PullError> {
    let id = &plan.config.digest;
    let document = ConfigDocument::parse(config).map_err(|source| PullError::Config {
        id: id.clone(),
        source,
    })?;
    // Old tools left it out.
    if !document.architecture.is_empty() && document.architecture != wanted.architecture {
        return Err(PullError::Registry(RegistryError::NoPlatform {
            what: reference.familiar(),
            wanted: wanted.to_string(),
            found: super::error::plain(&format!("linux/{}", document.architecture)),
        }));
    }
    let diff_ids = document.rootfs.diff_ids;
    if diff_ids.len() != plan.layers.len() {
        return Err(PullError::LayerCount {
            id: id.clone(),
            layers: plan.layers.len(),
            diff_ids: diff_ids.len(),
        });
    }
    Ok(diff_ids)
}

/// A blob on its way in, hashed.
struct Intake<'a, 's, 'c> {
    stream: Hashing<BlobStream<'s, 'c>>,
    bytes: u64,
    told: u64,
    /// Whoever listens answers whether to go on.
    tell: &'a dyn Fn(u64) -> bool,
}

impl Intake<'_, '_, '_> {
    /// Whether the blob came as it should, told before anything that its decoders say.
    fn settle(
        self,
        failure: Option<RegistryError>,
        session: &Session<'_>,
        blob: &BlobDescriptor,
    ) -> Result<(), PullError> {
        if let Some(error) = failure {
            return Err(error.into());
        }
        session.client.cancel.check()?;
        let (found, bytes, _) = self.stream.finish();
        // What does not unpack may simply be something else than was asked for.
        if bytes == blob.size && found != blob.digest {
            let what = format!("blob {}", blob.digest);
            return Err(session.mismatch(what, &blob.digest, found).into());
        }
        Ok(())
    }
}

/// The one reader of an [`Intake`] that decoders own, while the digest stays within reach.
struct Handle<'a, 's, 'c>(Rc<RefCell<Intake<'a, 's, 'c>>>);

impl Read for Handle<'_, '_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut intake = self.0.borrow_mut();
        let count = intake.stream.read(buffer)?;
        intake.bytes += count as u64;
        if intake.bytes >= intake.told + TELL_EVERY_BYTES || count == 0 && intake.told < intake.bytes {
            intake.told = intake.bytes;
            if !(intake.tell)(intake.bytes) {
                return Err(io::Error::other("nobody waits any more"));
            }
        }
        Ok(count)
    }
}
