//! From a name or a file to a slot that is written, verified and armed.
//!
//! Owns the order: what it is, whether it may come in and fits, then the record, then the slot. What fails because the image is wrong blocks it; what
//! fails because a link or a disk did leaves the install half done, to be given again.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kakoi_host::slots::{
    Held, INDEX_BYTES_MAX, Index, Moved, Reason, Room, Slot, Source, WriteError, read_back, write,
};
use kakoi_image::registry::{Access, Client, Credentials, Parts, Repository, Resolved};
use kakoi_image::{Limits, OsArchive, OsDocuments, Reference, image_digest};
use kakoi_trust::{OS_DOCUMENT_BYTES_MAX, Release, Version, read_os_manifest};

use super::settings::{open_slot, path_of};
use super::source::{Remote, Stream};
use super::{Os, Work, restart_if_due};
use crate::clock;
use crate::engine::Engine;
use crate::refusal::{Answer, Refusal, chain};
use crate::serve::registry::registry_refusal;
use crate::trust::{self, PullRefusal};

/// How often a slot is written that does not keep what was written: flash that fails does so again.
const WRITES_MAX: u32 = 2;

/// Where the image comes from.
pub enum From {
    /// A registry.
    Registry {
        /// The way there.
        client: Box<Client>,
        /// The name.
        reference: Reference,
        /// For the registry of the name.
        credentials: Option<Credentials>,
    },
    /// The tar of an OCI layout.
    File(Box<dyn Read + Send>),
}

/// What is wanted beside the image.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Start the device anew when it is armed.
    pub restart: bool,
    /// Although it failed on this device.
    pub again: bool,
}

/// Is told how far it is; whether anybody listens does not matter.
pub type Tell<'a> = &'a dyn Fn(&Moved, u64);

/// One write at a time, for as long as this lives.
struct Turn<'a>(&'a Os);

impl<'a> Turn<'a> {
    fn take(os: &'a Os) -> Answer<Self> {
        match os.writing.swap(true, Ordering::Acquire) {
            false => Ok(Self(os)),
            true => Err(Refusal::conflict(
                "an operating system is being installed: wait for it (kakoi os status), or stop it (kakoi os rollback)",
            )),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.inner().work = None;
        self.0.writing.store(false, Ordering::Release);
    }
}

/// Installs. Waits for disks and the network; the answer comes when the slot is armed.
pub fn install(engine: &Engine, from: From, wanted: Wanted, tell: Tell<'_>) -> Answer<Moved> {
    let os = &engine.os;
    os.slots()?;
    let _turn = Turn::take(os)?;
    let moved = match from {
        From::Registry {
            client,
            reference,
            credentials,
        } => from_registry(engine, &client, &reference, credentials, wanted, tell),
        From::File(reader) => from_file(engine, reader, wanted, tell),
    }?;
    os.with(|device| device.arm(wanted.restart, &clock::now()))?;
    os.set_trouble("");
    restart_if_due(engine);
    Ok(moved)
}

fn from_registry(
    engine: &Engine,
    client: &Client,
    reference: &Reference,
    credentials: Option<Credentials>,
    wanted: Wanted,
    tell: Tell<'_>,
) -> Answer<Moved> {
    let name = format!("{}/{}", reference.registry(), reference.repository());
    let slots = engine.os.slots()?;
    if name != slots.image {
        return Err(Refusal::forbidden(format!(
            "{name} is not where this device's operating system comes from: host.yaml says {} (slots: image)",
            slots.image
        )));
    }
    trust::refuse_unasked(engine, std::slice::from_ref(reference))?;
    let repository = Repository::new(client, reference, credentials, Access::Pull);
    let tag = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or(kakoi_image::DEFAULT_TAG).to_owned(),
    };
    let limits = &Limits::DEVICE;
    let served = repository.manifest(&tag, limits).map_err(registry_refusal)?;
    let manifest = read_os_manifest(&served.bytes).map_err(os_refusal)?;
    let resolved = Resolved {
        reference,
        top: &served,
        manifest: &served,
        repository: &repository,
    };
    let admission = trust::judge_pull(engine, &resolved).map_err(|refusal| match refusal {
        PullRefusal::Untrusted(refusal) | PullRefusal::Room(refusal) => refusal,
        PullRefusal::Registry(error) => registry_refusal(error),
    })?;
    let release = trust::admit_os(engine, admission)?;
    let config = &manifest.config;
    let config = repository
        .blob(
            &image_digest(&config.digest),
            config.bytes,
            OS_DOCUMENT_BYTES_MAX as u64,
        )
        .map_err(registry_refusal)?;
    let documents = OsDocuments::read(&served.bytes, &config).map_err(os_refusal)?;
    fits(engine, &documents, release.as_ref())?;
    let index = &documents.manifest.index;
    let index = repository
        .blob(&image_digest(&index.digest), index.bytes, INDEX_BYTES_MAX)
        .map_err(registry_refusal)?;
    let image = &documents.manifest.image;
    let mut source = Remote(Parts::new(&repository, image_digest(&image.digest), image.bytes));
    let job = Job {
        engine,
        held: held(&documents, &reference.to_string(), release),
        index: Index::parse(&index, documents.config.block_bytes, image.bytes)
            .map_err(|error| Refusal::bad(error.to_string()))?,
        cancel: Some(client.cancel()),
        wanted,
        tell,
    };
    job.run(&mut source)
}

fn from_file(engine: &Engine, from: Box<dyn Read + Send>, wanted: Wanted, tell: Tell<'_>) -> Answer<Moved> {
    let opened = OsArchive::open(from);
    let mut archive = opened.map_err(|error| Refusal {
        source: Some(Box::new(std::io::Error::other(chain(&error)))),
        ..Refusal::bad(chain(&error))
    })?;
    let slots = engine.os.slots()?;
    let documents = archive.documents.clone();
    let attached = std::mem::take(&mut archive.attached);
    let admission = trust::judge_file(engine, &slots.image, &documents.digest, attached)?;
    let release = trust::admit_os(engine, admission)?;
    fits(engine, &documents, release.as_ref())?;
    let index = Index::parse(
        &archive.index,
        documents.config.block_bytes,
        documents.manifest.image.bytes,
    );
    let reference = format!("a file of {}", slots.image);
    let job = Job {
        engine,
        held: held(&documents, &reference, release),
        index: index.map_err(|error| Refusal::bad(error.to_string()))?,
        cancel: None,
        wanted,
        tell,
    };
    archive.index = Vec::new();
    job.run(&mut Stream::new(archive.image()))
}

fn os_refusal(error: kakoi_trust::OsError) -> Refusal {
    Refusal::bad(chain(&error))
}

fn held(documents: &OsDocuments, reference: &str, release: Option<Release>) -> Held {
    Held {
        image: documents.digest.to_string(),
        version: documents.config.version.to_string(),
        reference: reference.to_owned(),
        release: release.map(|release| (release.name, release.version.to_string())),
    }
}

/// Whether it is for this device, and not older than what was committed.
fn fits(engine: &Engine, documents: &OsDocuments, release: Option<&Release>) -> Answer<()> {
    let slots = engine.os.slots()?;
    let config = &documents.config;
    if !config.compatible.contains(&slots.board) {
        return Err(Refusal::conflict(format!(
            "the image is for {}, this device is a {} (host.yaml, slots: board)",
            config.compatible.join(", "),
            slots.board
        )));
    }
    if let Some(release) = release
        && release.version != config.version
    {
        return Err(Refusal::forbidden(format!(
            "the image says that it is version {}, and was released as {}",
            config.version, release.version
        )));
    }
    let floor = engine.os.with(|device| Ok(device.record().floor.clone()))?;
    let floor = floor.as_deref().and_then(|floor| Version::parse(floor).ok());
    let trust = engine.trust.trust()?;
    let is_permitted = trust
        .downgrades()
        .any(|(name, version)| name == slots.image && *version == config.version);
    match floor {
        Some(floor) if config.version < floor && !is_permitted => Err(Refusal::forbidden(format!(
            "version {} is a downgrade: {floor} was committed; to allow it all the same: kakoi trust allow-downgrade {} {}",
            config.version, slots.image, config.version
        ))),
        _ => Ok(()),
    }
}

/// An image that was let in.
struct Job<'a> {
    engine: &'a Engine,
    held: Held,
    index: Index,
    cancel: Option<Arc<kakoi_image::registry::Cancel>>,
    wanted: Wanted,
    tell: Tell<'a>,
}

/// Why a write ended, and what is to become of the install.
enum Failed {
    /// The image is wrong, or its owner wants it no more.
    Lasting(Reason, Refusal),
    /// It may go better.
    Passing(Refusal),
}

impl Job<'_> {
    fn run(self, source: &mut dyn Source) -> Answer<Moved> {
        let os = &self.engine.os;
        let slots = os.slots()?;
        let (running, into) = os.with(|device| Ok((device.running(), device.running().other())))?;
        // What does not fit is refused before anything is remembered of it.
        let room = open_slot(path_of(slots, into), false)
            .map_err(|cause| slot_refusal(into, cause))?
            .1;
        if room < self.index.bytes() {
            let (needs, has) = (self.index.bytes(), room);
            return Err(Refusal::conflict(format!(
                "the image has {needs} bytes, slot {} has {has}",
                into.word()
            )));
        }
        let held = self.held.clone();
        os.with(|device| device.install(held, self.wanted.again, &clock::now()))?;
        match self.write(running, into, source) {
            Ok(moved) => Ok(moved),
            Err(Failed::Lasting(reason, refusal)) => {
                os.with(|device| device.give_up(reason, &clock::now()))?;
                os.set_trouble(refusal.message.clone());
                Err(refusal)
            }
            Err(Failed::Passing(refusal)) => {
                os.set_trouble(format!("{}; give the install again to go on", refusal.message));
                Err(refusal)
            }
        }
    }

    fn write(&self, running: Slot, into: Slot, source: &mut dyn Source) -> Result<Moved, Failed> {
        let os = &self.engine.os;
        let slots = os.slots().map_err(Failed::Passing)?;
        let called_off = Arc::new(AtomicBool::new(false));
        os.inner().work = Some(Work {
            moved: Moved::default(),
            total: self.index.bytes(),
            called_off: called_off.clone(),
            cancel: self.cancel.clone(),
        });
        let passing = |cause| Failed::Passing(slot_refusal(into, cause));
        let (mut slot, bytes) = open_slot(path_of(slots, into), true).map_err(passing)?;
        // Nothing depends on it: what it cannot give is fetched.
        let mut here = open_slot(path_of(slots, running), false).ok();
        let mut done = Moved::default();
        for turn in 1..=WRITES_MAX {
            let room = Room {
                slot: &mut slot,
                bytes,
            };
            let from = here.as_mut().map(|(slot, bytes)| Room { slot, bytes: *bytes });
            let mut tell = |moved: &Moved| {
                if let Some(work) = &mut os.inner().work {
                    work.moved = *moved;
                }
                (self.tell)(moved, self.index.bytes());
                !called_off.load(Ordering::Relaxed)
            };
            let moved = write(&self.index, room, from, source, &mut tell).map_err(write_failed)?;
            if turn == 1 {
                done = moved;
            }
            let keep = |act: &mut dyn FnMut(
                &mut kakoi_host::slots::Device,
            ) -> Result<(), kakoi_host::slots::DeviceError>| {
                os.with(|device| act(device)).map_err(Failed::Passing)
            };
            keep(&mut |device| device.wrote(&clock::now()))?;
            let right = read_back(&self.index, &mut slot).map_err(write_failed)?;
            keep(&mut |device| device.read_back(right, &clock::now()))?;
            if right {
                return Ok(done);
            }
            tracing::warn!(slot = into.word(), "a slot does not keep what was written to it");
        }
        let said = format!("slot {} does not keep what is written to it", into.word());
        Err(Failed::Lasting(
            Reason::NotWritten(said.clone()),
            Refusal::failed(said.clone(), said),
        ))
    }
}

fn slot_refusal(slot: Slot, cause: std::io::Error) -> Refusal {
    let said = format!("slot {} cannot be opened: {cause}", slot.word());
    match cause.kind() {
        std::io::ErrorKind::ResourceBusy => Refusal::conflict(format!("{said}; is it mounted?")),
        _ => Refusal::failed(said, cause),
    }
}

fn write_failed(error: WriteError) -> Failed {
    let said = chain(&error);
    if matches!(error, WriteError::CalledOff) {
        return Failed::Lasting(Reason::Owner, Refusal::conflict("the install was called off"));
    }
    if error.is_lasting() {
        return Failed::Lasting(Reason::NotWritten(said.clone()), Refusal::bad(said));
    }
    Failed::Passing(Refusal::failed(said, error))
}
