//! A device with two slots: the table of states, its record and the boot control, as one thing that may be cut at any moment.
//!
//! Owns the order: what a start tells is kept before anything is done about it; a state is kept before its act; and what is left to be done is done
//! by whoever comes next. Refuses to know clocks, registries and apps: the caller says when it is, what is written and whether the device is well.

use std::io;
use std::path::PathBuf;

use super::boot::{BootControl, Control, ControlError, Slot};
use super::record::{Held, Record, RecordError, commit_by, load};
use super::state::{Act, Event, Reason, Refusal, State, due, transition};

/// How often the device starts anew by itself to leave a slot that was given up: a boot loader that does not heed it must not make it do so for ever.
const RETURNS_MAX: u8 = 3;

/// Asked before each step of a write of the record; a test cuts the power there.
pub(super) type Before = Box<dyn FnMut(&'static str) -> io::Result<()> + Send>;

/// Why nothing was done, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// It is not the time for it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The boot control.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The image failed on this device.
    #[error("{image} failed on this device ({reason}): to try it once more, say --again")]
    Blocked {
        /// Its digest.
        image: String,
        /// Why it failed.
        reason: String,
    },
    /// Nobody knows what the other slot holds.
    #[error("slot {} holds nothing that is known to have worked", .0.word())]
    NothingBefore(Slot),
}

/// See the module.
pub struct Device {
    folder: PathBuf,
    boot: Box<dyn BootControl + Send>,
    running: Slot,
    tries: u8,
    record: Record,
    before: Before,
}

impl Device {
    /// Takes over from whoever was before, in the slot that runs. Tells the boot loader what it was not told yet; never restarts the device.
    pub fn open(
        folder: PathBuf,
        boot: Box<dyn BootControl + Send>,
        running: Slot,
        tries: u8,
        now: &str,
    ) -> Result<Self, DeviceError> {
        Self::open_by(folder, boot, running, tries, now, Box::new(|_| Ok(())))
    }

    pub(super) fn open_by(
        folder: PathBuf,
        boot: Box<dyn BootControl + Send>,
        running: Slot,
        tries: u8,
        now: &str,
        before: Before,
    ) -> Result<Self, DeviceError> {
        let mut device = Self {
            record: load(&folder)?,
            folder,
            boot,
            running,
            tries,
            before,
        };
        let control = device.boot.read()?;
        device.apply(Event::Started { running, control }, now, |_| {})?;
        device.settle()?;
        Ok(device)
    }

    /// What is remembered.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The slot that runs.
    pub fn running(&self) -> Slot {
        self.running
    }

    /// What the boot loader goes by.
    pub fn control(&mut self) -> Result<Control, DeviceError> {
        Ok(self.boot.read()?)
    }

    /// Whether the image on trial runs, and has to show that it is well.
    pub fn is_on_trial(&self) -> bool {
        matches!(&self.record.state, State::Trial(upgrade) if upgrade.into == self.running)
    }

    /// Begins to bring an image into the slot that does not run, and says which that is. Given again it goes on.
    pub fn install(&mut self, held: Held, again: bool, now: &str) -> Result<Slot, DeviceError> {
        let blocked = self
            .record
            .blocked
            .iter()
            .find(|blocked| blocked.image == held.image);
        if let (Some(blocked), false) = (blocked, again) {
            return Err(DeviceError::Blocked {
                image: held.image,
                reason: blocked.reason.clone(),
            });
        }
        let event = Event::Install {
            image: held.image.clone(),
            running: self.running,
            control: self.boot.read()?,
            again,
        };
        let into = self.running.other();
        self.apply(event, now, |record| {
            record.slots.set(into, None);
            record.blocked.retain(|blocked| blocked.image != held.image);
            record.coming = Some(held);
            record.restart = false;
        })?;
        Ok(into)
    }

    /// All was written and synced.
    pub fn wrote(&mut self, now: &str) -> Result<(), DeviceError> {
        self.apply(Event::Wrote, now, |_| {})
    }

    /// The slot was read back.
    pub fn read_back(&mut self, right: bool, now: &str) -> Result<(), DeviceError> {
        let into = self.running.other();
        self.apply(Event::ReadBack { right }, now, |record| {
            if right {
                let held = record.coming.take();
                record.slots.set(into, held);
            }
        })
    }

    /// Has the boot loader try the slot; with `restart` the caller is to start the device anew ([`Device::takes_restart`]).
    pub fn arm(&mut self, restart: bool, now: &str) -> Result<(), DeviceError> {
        self.apply(Event::Arm, now, |record| record.restart = restart)?;
        self.settle()
    }

    /// The device is well: the slot that runs is the good one from now on.
    pub fn commit(&mut self, now: &str) -> Result<(), DeviceError> {
        if !self.is_on_trial() {
            return Err(Refusal::Phase.into());
        }
        self.boot.commit(self.running)?;
        self.apply(Event::Committed, now, |_| {})
    }

    /// Remembers that nothing below this version is installed any more. Writes nothing where that is known.
    pub fn raise_floor(&mut self, version: &str) -> Result<(), DeviceError> {
        if self.record.floor.as_deref() == Some(version) {
            return Ok(());
        }
        let mut record = self.record.clone();
        record.floor = Some(version.to_owned());
        self.keep(record)
    }

    /// The device shall not run the image of the upgrade that is under way.
    pub fn give_up(&mut self, reason: Reason, now: &str) -> Result<(), DeviceError> {
        self.apply(Event::GiveUp(reason), now, |record| record.restart = false)?;
        self.settle()
    }

    /// Has the boot loader try what ran before the image that was committed.
    pub fn go_back(&mut self, restart: bool, now: &str) -> Result<(), DeviceError> {
        let other = self.running.other();
        let Some(held) = self.record.slots.of(other) else {
            // A device as it was delivered knows of no image, and yet the other slot may be fine: only what is being written is not.
            let is_whole = matches!(self.record.state, State::Committed(_));
            if !is_whole {
                return Err(DeviceError::NothingBefore(other));
            }
            return self.return_to("as delivered".to_owned(), restart, now);
        };
        self.return_to(held.image.clone(), restart, now)
    }

    fn return_to(&mut self, image: String, restart: bool, now: &str) -> Result<(), DeviceError> {
        let event = Event::GoBack {
            image,
            running: self.running,
            control: self.boot.read()?,
        };
        self.apply(event, now, |record| record.restart = restart)?;
        self.settle()
    }

    /// Whether the device is to be started anew now. Asked once for each restart: what was promised is kept before it is answered.
    pub fn takes_restart(&mut self) -> Result<bool, DeviceError> {
        let control = self.boot.read()?;
        if due(&self.record.state, self.running, control) != Act::Restart {
            return Ok(false);
        }
        let mut record = self.record.clone();
        match &record.state {
            State::Armed(_) if record.restart => record.restart = false,
            State::RolledBack(..) if record.returns < RETURNS_MAX => record.returns += 1,
            _ => return Ok(false),
        }
        self.keep(record)?;
        Ok(true)
    }

    /// Tells the boot loader what the state asks for.
    fn settle(&mut self) -> Result<(), DeviceError> {
        let control = self.boot.read()?;
        match due(&self.record.state, self.running, control) {
            Act::SetTrial(slot) => self.boot.set_trial(slot, self.tries)?,
            Act::MarkBad(slot) => self.boot.mark_bad(slot)?,
            Act::Nothing | Act::Restart | Act::Judge(_) => {}
        }
        Ok(())
    }

    /// Keeps what an event makes of the state, with a word in the history; writes nothing where it makes nothing.
    fn apply(&mut self, event: Event, now: &str, also: impl FnOnce(&mut Record)) -> Result<(), DeviceError> {
        let next = transition(self.record.state.clone(), event)?;
        let mut record = self.record.clone();
        let is_new = next != record.state;
        record.state = next;
        also(&mut record);
        if is_new {
            note(&mut record, now);
        }
        match record == self.record {
            true => Ok(()),
            false => self.keep(record),
        }
    }

    fn keep(&mut self, record: Record) -> Result<(), DeviceError> {
        commit_by(&self.folder, &record, &mut self.before)?;
        self.record = record;
        Ok(())
    }
}

/// Writes down what began, and blocks what was given up.
fn note(record: &mut Record, now: &str) {
    let Some(upgrade) = record.state.upgrade().cloned() else {
        return;
    };
    let known = [record.coming.as_ref(), record.slots.of(upgrade.into)];
    let known = known
        .into_iter()
        .flatten()
        .find(|held| held.image == upgrade.image);
    let version = known.map(|held| held.version.clone()).unwrap_or_default();
    let reason = match &record.state {
        State::RolledBack(_, reason) => reason.to_string(),
        _ => String::new(),
    };
    let what = record.state.word();
    record.note(now, what, (&upgrade.image, &version), &reason);
    match &record.state {
        State::RolledBack(..) => {
            record.block(now, &upgrade.image, &reason);
            record.coming = None;
        }
        State::Trial(_) => record.returns = 0,
        _ => {}
    }
}
