//! What is remembered of upgrades: `os.json` in the supervisor's folder, with the reason of a rollback in it.
//!
//! ```json
//! {"format":1,"state":{"trial":{"image":"sha256:…","into":"b"}},
//!  "slots":{"a":{"image":"sha256:…","version":"1.0.0","reference":"registry.example.com/acme/os:1.0","release":null},"b":null},
//!  "restart":false,"returns":0,"floor":"1.0.0","blocked":[],"history":[{"at":"2026-12-01T00:00:00Z","what":"armed","image":"sha256:…","version":"1.1.0","reason":""}]}
//! ```
//!
//! Invariants: a power cut at any step of [`commit`] leaves the record before it or the record after it; one of another format is neither read nor
//! replaced, since the other slot may hold a newer Kakoi.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::boot::Slot;
use super::state::State;

const NAME: &str = "os.json";
const ASIDE: &str = "os.json.aside";
/// The form that is written. A field more is another one.
const FORMAT: u32 = 1;
/// A record is some digests and reasons, bounded below; one beyond this is not ours.
const RECORD_BYTES_MAX: u64 = 256 << 10;
/// The latest events that are remembered: some years of monthly upgrades.
const HISTORY_MAX: usize = 100;
/// The latest images that are not tried again.
const BLOCKED_MAX: usize = 16;
/// The most characters of a reason.
const REASON_CHARS_MAX: usize = 1000;

/// What a slot holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    /// The digest of the image's manifest.
    pub image: String,
    /// The version that its configuration says.
    pub version: String,
    /// Where it came from, for people.
    pub reference: String,
    /// The release that somebody signed it as, name and version.
    pub release: Option<(String, String)>,
}

/// What both slots hold, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slots {
    /// The first.
    pub a: Option<Held>,
    /// The second.
    pub b: Option<Held>,
}

impl Slots {
    /// One of them.
    pub fn of(&self, slot: Slot) -> Option<&Held> {
        match slot {
            Slot::A => self.a.as_ref(),
            Slot::B => self.b.as_ref(),
        }
    }

    pub(super) fn set(&mut self, slot: Slot, held: Option<Held>) {
        match slot {
            Slot::A => self.a = held,
            Slot::B => self.b = held,
        }
    }
}

/// An image that is not tried again by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blocked {
    /// The digest of its manifest.
    pub image: String,
    /// Why.
    pub reason: String,
    /// Since when, RFC 3339.
    pub at: String,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// When, RFC 3339.
    pub at: String,
    /// What: the phase that began.
    pub what: String,
    /// The image that it is about.
    pub image: String,
    /// Its version.
    pub version: String,
    /// Why, where something failed.
    pub reason: String,
}

/// All that is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    format: u32,
    /// How far the latest upgrade is.
    pub state: State,
    /// What the slots hold.
    pub slots: Slots,
    /// The image that is being brought into a slot, until it is what the slot holds.
    pub coming: Option<Held>,
    /// Whether the device is to start anew by itself, once, for what is armed.
    pub restart: bool,
    /// How often it started anew by itself to leave a slot that was given up.
    pub returns: u8,
    /// The highest version that was committed.
    pub floor: Option<String>,
    /// What is not tried again.
    pub blocked: Vec<Blocked>,
    /// What happened, the earliest first.
    pub history: Vec<Entry>,
}

impl Record {
    /// Nothing happened yet.
    pub fn new() -> Self {
        Self {
            format: FORMAT,
            state: State::Idle,
            slots: Slots::default(),
            coming: None,
            restart: false,
            returns: 0,
            floor: None,
            blocked: Vec::new(),
            history: Vec::new(),
        }
    }

    pub(super) fn note(&mut self, at: &str, what: &str, about: (&str, &str), reason: &str) {
        self.history.push(Entry {
            at: at.to_owned(),
            what: what.to_owned(),
            image: about.0.to_owned(),
            version: about.1.to_owned(),
            reason: short(reason),
        });
        let over = self.history.len().saturating_sub(HISTORY_MAX);
        self.history.drain(..over);
    }

    pub(super) fn block(&mut self, at: &str, image: &str, reason: &str) {
        self.blocked.retain(|blocked| blocked.image != image);
        self.blocked.push(Blocked {
            image: image.to_owned(),
            reason: short(reason),
            at: at.to_owned(),
        });
        let over = self.blocked.len().saturating_sub(BLOCKED_MAX);
        self.blocked.drain(..over);
    }
}

impl Default for Record {
    fn default() -> Self {
        Self::new()
    }
}

fn short(reason: &str) -> String {
    reason.chars().take(REASON_CHARS_MAX).collect()
}

/// Why a record is not kept or found.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The disk fails.
    #[error("cannot {act} the state of the operating system's slots")]
    Disk {
        /// What was tried.
        act: &'static str,
        /// What the disk says.
        #[source]
        cause: io::Error,
    },
    /// The record is not one.
    #[error("the state of the operating system's slots is damaged")]
    Damaged(#[source] serde_json::Error),
    /// Another version of Kakoi wrote it.
    #[error("the state of the operating system's slots has format {0}, this version of Kakoi reads {FORMAT}")]
    Format(u32),
    /// The record is too large.
    #[error("the state of the operating system's slots is larger than {RECORD_BYTES_MAX} bytes")]
    TooLarge,
    /// What was written is not what is read.
    #[error("the state of the operating system's slots does not read back as it was written")]
    ReadBack,
}

/// Keeps `record` in `folder`: writes aside, syncs, renames, syncs the folder and reads back.
pub fn commit(folder: &Path, record: &Record) -> Result<(), RecordError> {
    commit_by(folder, record, &mut |_| Ok(()))
}

/// The record kept in `folder`; a new one where none was.
pub fn load(folder: &Path) -> Result<Record, RecordError> {
    #[derive(Deserialize)]
    struct Form {
        format: u32,
    }
    let path = folder.join(NAME);
    let bytes = match fs::metadata(&path) {
        Ok(found) if found.len() > RECORD_BYTES_MAX => return Err(RecordError::TooLarge),
        Ok(_) => fs::read(&path).map_err(failed("read"))?,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Record::new()),
        Err(cause) => return Err(failed("read")(cause)),
    };
    let form: Form = serde_json::from_slice(&bytes).map_err(RecordError::Damaged)?;
    if form.format != FORMAT {
        return Err(RecordError::Format(form.format));
    }
    serde_json::from_slice(&bytes).map_err(RecordError::Damaged)
}

fn failed(act: &'static str) -> impl Fn(io::Error) -> RecordError {
    move |cause| RecordError::Disk { act, cause }
}

/// As [`commit`]; `before` is asked ahead of every step, so that a test can cut the power there.
pub(super) fn commit_by(
    folder: &Path,
    record: &Record,
    before: &mut dyn FnMut(&'static str) -> io::Result<()>,
) -> Result<(), RecordError> {
    let bytes = serde_json::to_vec(record).map_err(RecordError::Damaged)?;
    if bytes.len() as u64 > RECORD_BYTES_MAX {
        return Err(RecordError::TooLarge);
    }
    let aside = folder.join(ASIDE);
    let mut step = |act: &'static str, run: &mut dyn FnMut() -> io::Result<()>| {
        before(act).and_then(|()| run()).map_err(failed(act))
    };
    let mut file = None;
    step("create", &mut || {
        file = Some(File::create(&aside)?);
        Ok(())
    })?;
    let mut file = file.expect("the step before made it");
    let half = bytes.len() / 2;
    step("write", &mut || file.write_all(&bytes[..half]))?;
    step("write", &mut || file.write_all(&bytes[half..]))?;
    step("sync", &mut || file.sync_all())?;
    step("rename", &mut || fs::rename(&aside, folder.join(NAME)))?;
    step("sync the folder of", &mut || File::open(folder)?.sync_all())?;
    if load(folder)? != *record {
        return Err(RecordError::ReadBack);
    }
    Ok(())
}
