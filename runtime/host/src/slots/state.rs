//! How far an upgrade of the operating system has come. Pure: no disk, no clock.
//!
//! ```text
//! idle ─► fetching ─► written ─► verified ─► armed ─► trial ─► committed
//!            ▲           │                     │ ▲      │          │
//!            └── wrong ──┘    rolled back ◄────┴─│──────┘          │   (and from fetching, written, verified: abandoned)
//!                                                └──── go back ────┘   (to what the other slot still holds)
//! ```
//!
//! What was interrupted in fetching, written or verified waits for the install to be given again, which goes on where it was. Another image may take its
//! place then: nothing of it was ever started.

use serde::{Deserialize, Serialize};

use super::boot::{Control, Slot};

/// What is brought where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upgrade {
    /// The digest of the image's manifest.
    pub image: String,
    /// The slot that gets it.
    pub into: Slot,
}

/// Why the device runs what it ran before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The owner wanted it so.
    Owner,
    /// The image could not be brought into the slot.
    NotWritten(String),
    /// The slot was started as often as it might, and never came up to say that it is well.
    NeverWell,
    /// The slot came up and was not well.
    Unwell(String),
}

/// The state of the latest upgrade.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// There was none yet.
    Idle,
    /// The slot is being written.
    Fetching(Upgrade),
    /// All is written; nothing is verified.
    Written(Upgrade),
    /// The slot was read back and is right.
    Verified(Upgrade),
    /// The boot loader is to try the slot.
    Armed(Upgrade),
    /// The slot runs, and has to show that it is well.
    Trial(Upgrade),
    /// The slot is the good one.
    Committed(Upgrade),
    /// The other slot stays the good one.
    RolledBack(Upgrade, Reason),
}

/// What happens to an upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Someone wants an image.
    Install {
        /// The digest of the image's manifest.
        image: String,
        /// The slot that runs.
        running: Slot,
        /// What the boot loader goes by.
        control: Control,
        /// Whether it is tried once more although it was rolled back.
        again: bool,
    },
    /// Someone wants back what ran before the image that was committed.
    GoBack {
        /// What the other slot holds.
        image: String,
        /// The slot that runs.
        running: Slot,
        /// What the boot loader goes by.
        control: Control,
    },
    /// All bytes were written and synced.
    Wrote,
    /// The slot was read back, and is what the image says or not.
    ReadBack {
        /// Every block is right.
        right: bool,
    },
    /// The boot loader is to be told.
    Arm,
    /// The supervisor has started in a slot, with the boot control as it found it.
    Started {
        /// The slot that runs.
        running: Slot,
        /// What the boot loader goes by.
        control: Control,
    },
    /// The device is well, and the boot control was told.
    Committed,
    /// The device shall not run the image.
    GiveUp(Reason),
}

/// Why an event is not for a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another upgrade has gone too far to be replaced.
    #[error("an upgrade to {0} is armed or on trial; commit it or roll it back first")]
    Busy(String),
    /// The image was rolled back.
    #[error("{0} was rolled back from this device: to try it once more, say --again")]
    Blocked(String),
    /// The image is the one that was committed.
    #[error("{0} is installed")]
    Installed(String),
    /// The boot loader may start the slot that would be written.
    #[error("the boot loader may still start the other slot")]
    InUse,
    /// The event belongs to another phase.
    #[error("the upgrade is in another phase")]
    Phase,
}

/// The state after an event.
pub fn transition(state: State, event: Event) -> Result<State, Refusal> {
    match (state, event) {
        (
            state,
            Event::Install {
                image,
                running,
                control,
                again,
            },
        ) => install(state, image, running, control, again),
        (
            State::Committed(upgrade),
            Event::GoBack {
                image,
                running,
                control,
            },
        ) => go_back(&upgrade, image, running, control),
        (state, Event::Started { running, control }) => Ok(started(state, running, control)),
        (State::Fetching(upgrade), Event::Wrote) => Ok(State::Written(upgrade)),
        (State::Written(upgrade), Event::ReadBack { right: true }) => Ok(State::Verified(upgrade)),
        (State::Written(upgrade), Event::ReadBack { right: false }) => Ok(State::Fetching(upgrade)),
        (State::Verified(upgrade), Event::Arm) => Ok(State::Armed(upgrade)),
        (State::Trial(upgrade), Event::Committed) => Ok(State::Committed(upgrade)),
        (
            State::Fetching(upgrade)
            | State::Written(upgrade)
            | State::Verified(upgrade)
            | State::Armed(upgrade)
            | State::Trial(upgrade),
            Event::GiveUp(reason),
        ) => Ok(State::RolledBack(upgrade, reason)),
        _ => Err(Refusal::Phase),
    }
}

/// What was committed before is tried as anything else is: its slot may have suffered since.
fn go_back(upgrade: &Upgrade, image: String, running: Slot, control: Control) -> Result<State, Refusal> {
    if running != upgrade.into || control.good != running || control.trial.is_some() {
        return Err(Refusal::InUse);
    }
    Ok(State::Armed(Upgrade {
        image,
        into: running.other(),
    }))
}

fn install(
    state: State,
    image: String,
    running: Slot,
    control: Control,
    again: bool,
) -> Result<State, Refusal> {
    match state {
        State::Armed(upgrade) | State::Trial(upgrade) => Err(Refusal::Busy(upgrade.image)),
        State::RolledBack(upgrade, _) if upgrade.image == image && !again => Err(Refusal::Blocked(image)),
        State::Committed(upgrade) if upgrade.image == image => Err(Refusal::Installed(image)),
        // A slot that is half written must not be one that a power cut starts.
        _ if control.good != running || control.trial.is_some() => Err(Refusal::InUse),
        _ => Ok(State::Fetching(Upgrade {
            image,
            into: running.other(),
        })),
    }
}

impl State {
    /// The upgrade that it is about.
    pub fn upgrade(&self) -> Option<&Upgrade> {
        match self {
            Self::Idle => None,
            Self::Fetching(upgrade)
            | Self::Written(upgrade)
            | Self::Verified(upgrade)
            | Self::Armed(upgrade)
            | Self::Trial(upgrade)
            | Self::Committed(upgrade)
            | Self::RolledBack(upgrade, _) => Some(upgrade),
        }
    }

    /// Its word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Fetching(_) => "fetching",
            Self::Written(_) => "written",
            Self::Verified(_) => "verified",
            Self::Armed(_) => "armed",
            Self::Trial(_) => "trial",
            Self::Committed(_) => "committed",
            Self::RolledBack(..) => "rolled-back",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Owner => f.write_str("the owner wanted it so"),
            Self::NotWritten(why) => write!(f, "it could not be written: {why}"),
            Self::NeverWell => f.write_str("it never came up to say that it is well"),
            Self::Unwell(why) => write!(f, "it came up and was not well: {why}"),
        }
    }
}

/// What a start tells. Only an armed upgrade and one on trial learn from it.
fn started(state: State, running: Slot, control: Control) -> State {
    match state {
        State::Armed(upgrade) | State::Trial(upgrade) if control.good == upgrade.into => {
            State::Committed(upgrade)
        }
        State::Armed(upgrade) if running == upgrade.into => State::Trial(upgrade),
        State::Armed(upgrade) if is_spent(&upgrade, control) => State::RolledBack(upgrade, Reason::NeverWell),
        // A trial that was up once and is not now did not last; what is left of it is not waited for.
        State::Trial(upgrade) if running != upgrade.into => State::RolledBack(upgrade, Reason::NeverWell),
        state => state,
    }
}

fn is_spent(upgrade: &Upgrade, control: Control) -> bool {
    control
        .trial
        .is_some_and(|trial| trial.slot == upgrade.into && trial.left == 0)
}

/// What is to be done now, each of which may be done again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing.
    Nothing,
    /// Tell the boot loader to try the slot.
    SetTrial(Slot),
    /// Start the device anew, so that the slot is tried.
    Restart,
    /// Wait until the device is well or not; then commit the slot in the boot control or give up.
    Judge(Slot),
    /// Tell the boot loader that the slot is not to be tried.
    MarkBad(Slot),
}

/// What the state asks for, in the slot that runs and with the boot control as it is.
pub fn due(state: &State, running: Slot, control: Control) -> Act {
    match state {
        State::Armed(upgrade) if running != upgrade.into => match control.trial {
            Some(trial) if trial.slot == upgrade.into => Act::Restart,
            _ => Act::SetTrial(upgrade.into),
        },
        State::Trial(upgrade) if running == upgrade.into => Act::Judge(upgrade.into),
        State::RolledBack(upgrade, _) if control.good == upgrade.into => Act::Nothing,
        State::RolledBack(upgrade, _) if control.trial.is_some() => Act::MarkBad(upgrade.into),
        State::RolledBack(upgrade, _) if running == upgrade.into => Act::Restart,
        _ => Act::Nothing,
    }
}
