//! What the boot loader does next, whoever it is.
//!
//! Refuses to guess: which slot runs is what the boot loader told the kernel.

use std::io;

use serde::{Deserialize, Serialize};

use super::medium::Variables;

/// One of the two root slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// The first one.
    A,
    /// The second one.
    B,
}

impl Slot {
    /// The slot that is not this one.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Its letter.
    pub fn word(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// Reads its letter.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "a" => Some(Self::A),
            "b" => Some(Self::B),
            _ => None,
        }
    }
}

/// A slot that the boot loader starts a bounded number of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// The slot on trial; never the good one.
    pub slot: Slot,
    /// How often it may still be started, 0 to 9: boot scripts count down a digit.
    pub left: u8,
}

/// What the boot loader goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// The slot that is started where there is no trial.
    pub good: Slot,
    /// The slot on trial; one with nothing left has failed and stays to tell of it.
    pub trial: Option<Trial>,
}

/// Why a boot control cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The medium fails.
    #[error("cannot {act} the boot state")]
    Medium {
        /// read, write or sync.
        act: &'static str,
        /// What the medium says.
        #[source]
        cause: io::Error,
    },
    /// No copy is whole, or a whole one names no good slot.
    #[error("no copy of the boot state is whole")]
    Damaged,
    /// What was written is not what is read.
    #[error("the boot state does not read back as it was written")]
    ReadBack,
    /// The copies have no room for the state, or their number cannot grow.
    #[error("the boot state has no room left")]
    Full,
    /// The copies would be too small, too large, or lie over each other.
    #[error("copies of {size} bytes at {first} and {second} do not fit")]
    Layout {
        /// Bytes of a copy.
        size: usize,
        /// Where the first lies.
        first: u64,
        /// Where the second lies.
        second: u64,
    },
    /// The slot is the good one, which is neither tried nor marked bad.
    #[error("slot {} is the good one", .0.word())]
    IsGood(Slot),
    /// A trial is of 1 to 9 boots.
    #[error("{0} tries are not 1 to 9")]
    Tries(u8),
    /// The command line names no slot, or more than one.
    #[error("the kernel's command line does not say once which slot it is ({0}=a or {0}=b)")]
    CommandLine(String),
}

/// Reads and changes what the boot loader does next. A power cut in any of the calls leaves the state before it or the state after it.
pub trait BootControl {
    /// What the boot loader would go by now.
    fn read(&mut self) -> Result<Control, ControlError>;

    /// Makes the boot loader go by `control`; returns when it is read back.
    fn write(&mut self, control: Control) -> Result<(), ControlError>;

    /// Lets `slot` be started `tries` times, until it is committed.
    fn set_trial(&mut self, slot: Slot, tries: u8) -> Result<(), ControlError> {
        let now = self.read()?;
        if slot == now.good {
            return Err(ControlError::IsGood(slot));
        }
        if !(1..=9).contains(&tries) {
            return Err(ControlError::Tries(tries));
        }
        let trial = Some(Trial { slot, left: tries });
        self.write(Control { trial, ..now })
    }

    /// Makes `slot` the good one and ends the trial. Writes nothing where that is so already.
    fn commit(&mut self, slot: Slot) -> Result<(), ControlError> {
        let wanted = Control {
            good: slot,
            trial: None,
        };
        if self.read()? == wanted {
            return Ok(());
        }
        self.write(wanted)
    }

    /// Ends the trial of `slot`. Writes nothing where there is none.
    fn mark_bad(&mut self, slot: Slot) -> Result<(), ControlError> {
        let now = self.read()?;
        if slot == now.good {
            return Err(ControlError::IsGood(slot));
        }
        if now.trial.is_none() {
            return Ok(());
        }
        self.write(Control { trial: None, ..now })
    }
}

/// The slot that runs, by a parameter of the kernel's command line (`kakoi.slot`). Refused where it is not said, or said twice.
pub fn booted(command_line: &str, parameter: &str) -> Result<Slot, ControlError> {
    let mut said = command_line
        .split_ascii_whitespace()
        .filter_map(|word| word.strip_prefix(parameter)?.strip_prefix('='));
    match (said.next().and_then(Slot::parse), said.next()) {
        (Some(slot), None) => Ok(slot),
        _ => Err(ControlError::CommandLine(parameter.to_owned())),
    }
}

/// The state as variables. No variable is ever left out: `env import` keeps the old value of one that is not there.
pub(super) fn put(variables: &mut Variables, control: Control) {
    let (trial, left) = match control.trial {
        Some(trial) => (trial.slot.word(), trial.left),
        None => ("none", 0),
    };
    for (name, value) in [
        ("boot_good", control.good.word().to_owned()),
        ("boot_try", trial.to_owned()),
        ("boot_left", left.to_string()),
    ] {
        variables.insert(name.to_owned(), value);
    }
}

/// The state that the variables tell, if they tell one.
pub(super) fn get(variables: &Variables) -> Option<Control> {
    let good = Slot::parse(variables.get("boot_good")?)?;
    let left = match variables.get("boot_left")?.as_bytes() {
        [digit @ b'0'..=b'9'] => digit - b'0',
        _ => return None,
    };
    let trial = match variables.get("boot_try")?.as_str() {
        "none" => None,
        word => Some(Trial {
            slot: Slot::parse(word)?,
            left,
        }),
    };
    if trial.is_some_and(|trial| trial.slot == good) {
        return None;
    }
    Some(Control { good, trial })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_read_and_never_guessed() {
        assert_eq!(
            booted("console=ttyS0 kakoi.slot=b quiet\n", "kakoi.slot").ok(),
            Some(Slot::B)
        );
        assert_eq!(
            booted("kakoi.slot=a rauc.slot=b", "rauc.slot").ok(),
            Some(Slot::B)
        );
        for line in [
            "",
            "quiet",
            "kakoi.slot=",
            "kakoi.slot=c",
            "kakoi.slot=A",
            "xkakoi.slot=a",
            "kakoi.slot=a kakoi.slot=b",
            "kakoi.slot=a kakoi.slot=a",
        ] {
            assert!(booted(line, "kakoi.slot").is_err(), "{line}");
        }
    }

    #[test]
    fn variables_that_tell_no_state_are_refused() {
        let of = |good: &str, trial: &str, left: &str| {
            get(&Variables::from(
                [("boot_good", good), ("boot_try", trial), ("boot_left", left)]
                    .map(|(name, value)| (name.to_owned(), value.to_owned())),
            ))
        };
        assert!(of("a", "b", "9").is_some());
        assert!(of("a", "none", "0").is_some());
        for (good, trial, left) in [
            ("c", "none", "0"),
            ("a", "a", "1"),
            ("a", "", "1"),
            ("a", "b", "10"),
            ("a", "b", "-1"),
            ("a", "b", ""),
            ("a", "b", "x"),
        ] {
            assert_eq!(of(good, trial, left), None, "{good} {trial} {left}");
        }
        assert_eq!(get(&Variables::new()), None);
    }
}
