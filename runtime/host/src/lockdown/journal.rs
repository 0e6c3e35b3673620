//! What stood before Kakoi changed it: `lockdown.json` in the supervisor's folder.
//!
//! ```json
//! {"format":1,"phase":{"trial":{"boot":"6f0e…","until_ms":61000}},"declared":null,"before":null,
//!  "former":[{"knob":{"file":"proc/sys/kernel/sysrq"},"value":"438","set":"0"}]}
//! ```
//!
//! Invariants: a value is on disk before it is changed, and stays the one from before the first change however often it is changed again; a power cut
//! at any step of [`commit`] leaves the journal before it or the one after it; one of another format is neither read nor replaced.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use kakoi_policy::host::Lockdown;
use serde::{Deserialize, Serialize};

use super::item::Knob;

const NAME: &str = "lockdown.json";
const ASIDE: &str = "lockdown.json.aside";
/// The form that is written.
const FORMAT: u32 = 1;
/// Two declarations and some hundreds of values; one beyond this is not ours.
const BYTES_MAX: u64 = 2 << 20;

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing is enforced.
    Off,
    /// The declaration holds until somebody confirms it, or goes.
    Trial {
        /// The start of the device that it belongs to: with another, it is over.
        boot: String,
        /// Until when, in milliseconds since that start, suspension included: no clock that can be set.
        until_ms: u64,
    },
    /// The declaration holds.
    On,
    /// Everything goes back.
    Release,
}

/// A value from before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Former {
    /// Of what.
    pub knob: Knob,
    /// The value.
    pub value: String,
    /// What Kakoi set instead.
    pub set: String,
}

/// All that is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    format: u32,
    /// How far it is.
    pub phase: Phase,
    /// What is enforced.
    pub declared: Option<Lockdown>,
    /// What was enforced before the trial.
    pub before: Option<Lockdown>,
    /// Values from before, the first changed first.
    pub former: Vec<Former>,
}

impl Journal {
    /// Nothing was changed yet.
    pub fn new() -> Self {
        Self {
            format: FORMAT,
            phase: Phase::Off,
            declared: None,
            before: None,
            former: Vec::new(),
        }
    }

    /// Remembers a value, unless one from before is remembered. Tells whether something is new.
    pub(super) fn remember(&mut self, knob: &Knob, value: &str, set: &str) -> bool {
        if let Some(known) = self.former.iter_mut().find(|former| former.knob == *knob) {
            let is_new = known.set != set;
            set.clone_into(&mut known.set);
            return is_new;
        }
        self.former.push(Former {
            knob: knob.clone(),
            value: value.to_owned(),
            set: set.to_owned(),
        });
        true
    }
}

impl Default for Journal {
    fn default() -> Self {
        Self::new()
    }
}

/// Why the journal does not serve.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A file of ours.
    #[error("{what} the journal of the lockdown")]
    File {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// It is none.
    #[error("the journal of the lockdown is damaged and stays as it is: {NAME}")]
    Damaged(#[source] serde_json::Error),
    /// It is another version's.
    #[error("the journal of the lockdown is of format {0}, which this version does not know: {NAME}")]
    Format(u32),
}

fn file(what: &'static str) -> impl FnOnce(io::Error) -> JournalError {
    move |cause| JournalError::File { what, cause }
}

/// Reads it; a new one where there is none.
pub(super) fn read(folder: &Path) -> Result<Journal, JournalError> {
    #[derive(Deserialize)]
    struct Any {
        format: u32,
    }
    let mut text = String::new();
    match File::open(folder.join(NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Journal::new()),
        opened => opened
            .and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text))
            .map_err(file("reading"))?,
    };
    let any: Any = serde_json::from_str(&text).map_err(JournalError::Damaged)?;
    if any.format != FORMAT {
        return Err(JournalError::Format(any.format));
    }
    serde_json::from_str(&text).map_err(JournalError::Damaged)
}

/// Has it on disk when it returns.
pub(super) fn commit(folder: &Path, journal: &Journal) -> Result<(), JournalError> {
    let text = serde_json::to_vec(journal).map_err(|cause| JournalError::File {
        what: "writing",
        cause: cause.into(),
    })?;
    let aside = folder.join(ASIDE);
    let write = || -> io::Result<()> {
        let mut file = File::create(&aside)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&aside, folder.join(NAME))?;
        File::open(folder)?.sync_all()
    };
    write().map_err(file("writing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_stays() {
        let mut journal = Journal::new();
        let knob = Knob::File("proc/sys/kernel/sysrq".into());
        assert!(journal.remember(&knob, "438", "0"));
        assert!(!journal.remember(&knob, "1", "0"));
        assert!(journal.remember(&knob, "1", "2"));
        assert_eq!(journal.former.len(), 1);
        assert_eq!(
            (journal.former[0].value.as_str(), journal.former[0].set.as_str()),
            ("438", "2")
        );
    }

    #[test]
    fn what_is_not_ours_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let drawn = r#"{"format":1,"phase":{"trial":{"boot":"6f0e","until_ms":61000}},"declared":null,"before":null,
             "former":[{"knob":{"file":"proc/sys/kernel/sysrq"},"value":"438","set":"0"}]}"#;
        fs::write(folder.path().join(NAME), drawn).expect("ours");
        let journal = read(folder.path()).expect("as drawn");
        assert_eq!(journal.former[0].value, "438");
        commit(folder.path(), &journal).expect("ours");
        assert_eq!(read(folder.path()).expect("ours"), journal);
        for (text, is_format) in [
            ("{", false),
            (r#"{"format":2}"#, true),
            (r#"{"format":1,"more":1}"#, false),
        ] {
            fs::write(folder.path().join(NAME), text).expect("ours");
            let error = read(folder.path()).expect_err(text);
            assert_eq!(matches!(error, JournalError::Format(2)), is_format, "{error}");
        }
    }
}
