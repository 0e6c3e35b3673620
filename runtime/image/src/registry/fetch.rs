//! Fetching the layers of a pull: hashed, decompressed, hashed again and unpacked, in one pass over each.
//!
//! Owns the [`Job`]s of a pull, their workers, and what is done with what an earlier pull left. Refuses to know documents and names. Invariants:
//! what comes out has the digest of its blob and its diff id, however it was put together; memory does not grow with the layers.

use std::cell::{Cell, RefCell};
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::blob::BlobStream;
use super::client::locked;
use super::document::BlobDescriptor;
use super::error::RegistryError;
use super::pull::{LayerStep, Listener, PullError, PullEvent};
use super::repository::Repository;
use super::session::Session;
use crate::compression::Decoder;
use crate::digest::{Digest, Hashing};
use crate::fault;
use crate::guard::{Counted, Guarded};
use crate::load::{LoadError, Made, check_diff_id};
use crate::partial::{Beginning, Claim};
use crate::store::{ImageStore, Staging};

/// Layers fetched at a time: two cores are busy with two, the third fills the waits for the network. More would only take memory: a zstd
/// window each.
const PARALLEL_LAYERS: usize = 3;
/// Bytes between two words about a layer's progress.
const TELL_EVERY_BYTES: u64 = 512 << 10;
/// Of what comes after a layer that does not unpack, so much is read to say whether the registry sent something else than was asked for.
const DRAIN_BYTES_MAX: u64 = 64 << 20;

/// A blob that is to be fetched, once, however often the image has it.
pub(super) struct Job<'a> {
    pub(super) blob: &'a BlobDescriptor,
    pub(super) diff_id: &'a Digest,
    /// False where the store has the unpacked layer from another blob: then it is only verified.
    pub(super) unpacks: bool,
}

/// What became of a job.
pub(super) struct Fetched<'a> {
    /// Where it was unpacked.
    pub(super) made: Option<Made>,
    /// Bytes of its files.
    pub(super) bytes: u64,
    /// Where it was put so that it outlives a failure of the others.
    pub(super) claim: Option<Claim<'a>>,
}

/// The jobs of one pull at work.
struct Work<'a, 'w> {
    store: &'a ImageStore,
    repository: &'w Repository<'w>,
    staging: &'w Path,
    listener: Listener<'w>,
    /// Jobs that are not done.
    left: AtomicUsize,
}

impl ImageStore {
    /// Does the jobs, a few at a time. The first failure ends the others; what is done by then, and what has begun, the next pull finds.
    pub(super) fn work<'a>(
        &'a self,
        repository: &Repository<'_>,
        staging: &Staging<'_>,
        jobs: &[Job<'_>],
        listener: Listener<'_>,
    ) -> Result<Vec<Fetched<'a>>, PullError> {
        let next = AtomicUsize::new(0);
        let results: Mutex<Vec<Option<Fetched<'a>>>> = Mutex::new(jobs.iter().map(|_| None).collect());
        let failure: Mutex<Option<PullError>> = Mutex::new(None);
        let cancel = &repository.own().client.cancel;
        let work = Work {
            store: self,
            repository,
            staging: &staging.path,
            listener,
            left: AtomicUsize::new(jobs.len()),
        };
        let worker = || {
            while let Some((number, job)) = {
                let number = next.fetch_add(1, Ordering::Relaxed);
                jobs.get(number).map(|job| (number, job))
            } {
                match work.fetch(number, job) {
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
        let results = results
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(error) = failure
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
        {
            drop(results);
            // Of an image that will not do, nothing is of use.
            let blobs = jobs.iter().map(|job| &job.blob.digest);
            if is_of_content(&error) {
                blobs.for_each(|blob| self.forget_partial(blob));
            }
            return Err(error);
        }
        let complete = results.into_iter().collect::<Option<Vec<_>>>();
        Ok(complete.expect("without a failure every job was done"))
    }
}

impl<'a> Work<'a, '_> {
    /// Fetches one blob, from where an earlier pull got to.
    fn fetch(&self, number: usize, job: &Job<'_>) -> Result<Fetched<'a>, PullError> {
        let blob = &job.blob.digest;
        let mut beginning = self.store.beginning(blob, job.blob.size);
        let kept = beginning.as_ref().map_or(0, Beginning::bytes);
        let fetched = self.fetch_anywhere(number, job, &mut beginning, kept > 0);
        if let Some(beginning) = beginning
            && fetched
                .as_ref()
                .err()
                .is_none_or(|error| is_of_content(error) || error.is_disk_full())
        {
            beginning.remove()?;
        }
        let mut fetched = fetched?;
        let is_last = self.left.fetch_sub(1, Ordering::Relaxed) == 1;
        if !is_last && job.blob.size >= self.store.limits.partial_bytes_min {
            fetched = self.keep(job, fetched)?;
        }
        (self.listener)(PullEvent::Layer(blob.clone(), LayerStep::Done));
        fault::point("layer-unpacked");
        Ok(fetched)
    }

    /// Fetches one blob from the first place that has what its digest says; each turn has a place less, or nothing kept any more.
    fn fetch_anywhere(
        &self,
        number: usize,
        job: &Job<'_>,
        beginning: &mut Option<Beginning<'_>>,
        mut has_kept: bool,
    ) -> Result<Fetched<'a>, PullError> {
        let places = &self.repository.sessions;
        let at = Rc::new(Cell::new(0));
        for turn in 0.. {
            let folder = self.staging.join(format!("layer-{number}-{turn}"));
            let first = at.get();
            let error = match self.attempt(job, &folder, beginning.as_mut(), &at) {
                Err(error) if is_of_content(&error) => error,
                tried => return tried,
            };
            let is_wrong = matches!(&error, PullError::Registry(RegistryError::DigestMismatch { .. }));
            let blob = &job.blob.digest;
            let mirror = places[at.get()].name();
            // A power cut may have torn what was kept, and a place may not know ranges well: the whole, from one place, decides.
            if has_kept || at.get() > first {
                tracing::info!(layer = %blob, %error, "ignoring what was kept of a layer, or came from another place");
                has_kept = false;
            } else if is_wrong && at.get() + 1 < places.len() {
                tracing::warn!(layer = %blob, mirror, %error, "ignoring a mirror that serves something else");
                at.set(at.get() + 1);
            } else {
                return Err(error);
            }
            beginning.iter_mut().for_each(Beginning::restart);
        }
        unreachable!("places come to an end")
    }

    /// Others are still on their way, and may fail.
    fn keep(&self, job: &Job<'_>, fetched: Fetched<'a>) -> Result<Fetched<'a>, PullError> {
        let Some(made) = fetched.made else {
            return Ok(fetched);
        };
        let (blob, diff_id) = (&job.blob.digest, job.diff_id);
        let (claim, made) = self.store.keep_layer(self.staging, (blob, diff_id), made)?;
        Ok(Fetched {
            made: Some(made),
            claim,
            ..fetched
        })
    }

    /// Fetches one blob: hashed, decompressed, hashed again and unpacked, in one pass. It begins at the place `at`, and leaves there where it got to.
    fn attempt(
        &self,
        job: &Job<'_>,
        folder: &Path,
        beginning: Option<&mut Beginning<'_>>,
        at: &Rc<Cell<usize>>,
    ) -> Result<Fetched<'a>, PullError> {
        let places = &self.repository.sessions;
        let (blob, total) = (&job.blob.digest, job.blob.size);
        let url = self.repository.path(&format!("blobs/{blob}"));
        let kept = beginning
            .as_ref()
            .map(|beginning| beginning.reader())
            .transpose()?;
        let from = beginning.as_ref().map_or(0, |beginning| beginning.bytes());
        let (stream, failure) = BlobStream::new(places, Rc::clone(at), &url, blob, total, from);
        let cancel = &self.repository.own().client.cancel;
        let tell = |bytes| {
            let step = LayerStep::Fetching { bytes, total };
            let goes_on = (self.listener)(PullEvent::Layer(blob.clone(), step));
            if !goes_on {
                cancel.set();
            }
            goes_on
        };
        let source = Source {
            kept: kept.map(|reader| Box::new(reader) as Box<dyn Read>),
            stream,
            beginning,
        };
        let intake = Rc::new(RefCell::new(Intake {
            stream: Hashing::new(source),
            told: 0,
            bytes: 0,
            tell: &tell,
        }));
        let unpacked = self.store.take_in(Handle(Rc::clone(&intake)), job, folder);
        // Where somebody else may have it, its digest must say whether this was the layer.
        let drain = if unpacked.is_ok() || at.get() + 1 < places.len() {
            u64::MAX
        } else {
            DRAIN_BYTES_MAX
        };
        let rest = io::copy(&mut Handle(Rc::clone(&intake)).take(drain), &mut io::sink());
        let intake = Rc::into_inner(intake)
            .expect("the readers above are gone")
            .into_inner();
        let failure = failure.borrow_mut().take();
        intake.settle(failure, &places[at.get()], job.blob)?;
        let fetched = unpacked?;
        rest.map_err(|source| LoadError::Layer {
            diff_id: job.diff_id.clone(),
            source,
        })?;
        Ok(fetched)
    }
}

/// Whether an error says that what came is not what should have come; the rest say that it did not come.
fn is_of_content(error: &PullError) -> bool {
    match error {
        PullError::Registry(error) => matches!(
            error,
            RegistryError::DigestMismatch { .. }
                | RegistryError::Size { .. }
                | RegistryError::Protocol { .. }
                | RegistryError::Status { status: 416, .. }
        ),
        PullError::Load(LoadError::Unpack { .. } | LoadError::Layer { .. } | LoadError::DiffId { .. }) => {
            !error.is_disk_full()
        }
        _ => false,
    }
}

impl ImageStore {
    /// Unpacks, or only verifies, what a blob holds.
    fn take_in<'a>(&self, intake: impl Read, job: &Job<'_>, folder: &Path) -> Result<Fetched<'a>, LoadError> {
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
                claim: None,
            });
        }
        let mut content = Hashing::new(content);
        io::copy(&mut content, &mut io::sink()).map_err(layer)?;
        check_diff_id(job.diff_id, &job.blob.digest, content.finish().0)?;
        Ok(Fetched {
            made: None,
            bytes: self.layer_bytes(job.diff_id),
            claim: None,
        })
    }

    fn layer_bytes(&self, diff_id: &Digest) -> u64 {
        let state = self.state();
        let mut layers = state.index.images.values().flat_map(|record| &record.layers);
        let known = layers.find(|layer| layer.diff_id == *diff_id);
        known.map_or(0, |layer| layer.bytes)
    }
}

/// A blob's bytes: first those that are kept, then the registry's, which are kept too where that is wanted.
struct Source<'a, 'k, 's, 'c> {
    kept: Option<Box<dyn Read>>,
    stream: BlobStream<'s, 'c>,
    beginning: Option<&'a mut Beginning<'k>>,
}

impl Read for Source<'_, '_, '_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(kept) = &mut self.kept {
            match kept.read(buffer)? {
                0 => self.kept = None,
                count => return Ok(count),
            }
        }
        let count = self.stream.read(buffer)?;
        if let Some(beginning) = &mut self.beginning {
            beginning.add(&buffer[..count]);
        }
        Ok(count)
    }
}

/// A blob on its way in, hashed.
struct Intake<'a, 'k, 's, 'c> {
    stream: Hashing<Source<'a, 'k, 's, 'c>>,
    bytes: u64,
    told: u64,
    /// Whoever listens answers whether to go on.
    tell: &'a dyn Fn(u64) -> bool,
}

impl Intake<'_, '_, '_, '_> {
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
struct Handle<'a, 'k, 's, 'c>(Rc<RefCell<Intake<'a, 'k, 's, 'c>>>);

impl Read for Handle<'_, '_, '_, '_> {
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
