//! Pulling: a name becomes an image of the store, in one pass over each layer.
//!
//! Owns the order: resolve the tag once, choose the platform, ask whoever admits images, look at the disk, then fetch, hash, decompress, hash
//! and unpack each layer as it arrives, and publish as a load does. Refuses to judge who may sign what. Invariants: after the tag was resolved
//! everything is asked for by digest; an error, a kill or a power cut leaves the images there were; memory does not grow with the layers.

use super::auth::Credentials;
use super::client::Client;
use super::document::{BlobDescriptor, Document, Platform, choose, is_image_config};
use super::error::RegistryError;
use super::fetch::Job;
use super::repository::{Access, Repository, Served};
use crate::config::{ConfigDocument, ConfigError};
use crate::digest::Digest;
use crate::fault;
use crate::guard::{RoomError, check_room};
use crate::index::{LayerRecord, Record, Stored};
use crate::load::{Additions, LoadError, check_diff_id, now, write_member};
use crate::reference::Reference;
use crate::store::{ImageStore, Staging, StoreError};
use crate::tree::{At, FileError};

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
        let pulled = self.pull_whole(client, reference, options, listener);
        // What this pull left, if it broke off, and what others left long ago.
        if let Err(error) = self.sweep_partial(false) {
            tracing::warn!(%error, "ignoring that what pulls left cannot be bounded");
        }
        pulled
    }

    fn pull_whole(
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
    fn fetch_layers<'a>(
        &'a self,
        repository: &Repository<'_>,
        staging: &mut Staging<'a>,
        plan: &Plan,
        diff_ids: &[Digest],
        additions: &mut Additions,
        listener: Listener<'_>,
    ) -> Result<Vec<LayerRecord>, PullError> {
        let mut records: Vec<Option<LayerRecord>> = Vec::new();
        let mut jobs: Vec<Job<'_>> = Vec::new();
        for (blob, diff_id) in plan.layers.iter().zip(diff_ids) {
            let known = self.pin_layer(staging, &blob.digest, diff_id);
            let is_same = |one: &&LayerRecord| one.blob == blob.digest && one.diff_id == *diff_id;
            let known = known.or_else(|| records.iter().flatten().find(is_same).cloned());
            let known = known.or_else(|| self.take_kept(staging, &blob.digest, diff_id, additions));
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
            if let Some(claim) = done.claim {
                staging.take_claim(claim);
            }
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

    /// A layer that a pull which broke off had brought from the same blob; it is published with the rest.
    fn take_kept<'a>(
        &'a self,
        staging: &mut Staging<'a>,
        blob: &Digest,
        diff_id: &Digest,
        additions: &mut Additions,
    ) -> Option<LayerRecord> {
        let (claim, made) = self.kept_layer(blob, diff_id)?;
        staging.take_claim(claim);
        let bytes = made.bytes;
        additions.layers.insert(diff_id.clone(), made);
        Some(LayerRecord {
            diff_id: diff_id.clone(),
            blob: blob.clone(),
            stored: Stored::Recipe,
            bytes,
        })
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
        let room = || check_room(&self.root, needed, &self.limits).at("look at the room for", &self.root);
        if room()?.is_err() {
            self.sweep_partial(true)?;
        }
        Ok(room()??)
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
