//! The state of an upgrade on the disk: `os.json` in the supervisor's folder, with the reason of a rollback in it.
//!
//! Invariant: a power cut at any step of [`commit`] leaves the state before it or the state after it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::state::State;

const NAME: &str = "os.json";
const ASIDE: &str = "os.json.aside";
/// A record is a digest and a reason; one beyond this is not ours.
const RECORD_BYTES_MAX: u64 = 64 << 10;

/// Why a state is not kept or found.
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
    /// The record is too large.
    #[error("the state of the operating system's slots is larger than {RECORD_BYTES_MAX} bytes")]
    TooLarge,
    /// What was written is not what is read.
    #[error("the state of the operating system's slots does not read back as it was written")]
    ReadBack,
}

/// Keeps `state` in `folder`: writes aside, syncs, renames, syncs the folder and reads back.
pub fn commit(folder: &Path, state: &State) -> Result<(), RecordError> {
    commit_by(folder, state, &mut |_| Ok(()))
}

/// The state kept in `folder`; idle where none was.
pub fn load(folder: &Path) -> Result<State, RecordError> {
    let path = folder.join(NAME);
    let bytes = match fs::metadata(&path) {
        Ok(found) if found.len() > RECORD_BYTES_MAX => return Err(RecordError::TooLarge),
        Ok(_) => fs::read(&path).map_err(failed("read"))?,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(State::Idle),
        Err(cause) => return Err(failed("read")(cause)),
    };
    serde_json::from_slice(&bytes).map_err(RecordError::Damaged)
}

fn failed(act: &'static str) -> impl Fn(io::Error) -> RecordError {
    move |cause| RecordError::Disk { act, cause }
}

/// As [`commit`]; `before` is asked ahead of every step, so that a test can cut the power there.
pub(super) fn commit_by(
    folder: &Path,
    state: &State,
    before: &mut dyn FnMut(&'static str) -> io::Result<()>,
) -> Result<(), RecordError> {
    let bytes = serde_json::to_vec(state).map_err(RecordError::Damaged)?;
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
    if load(folder)? != *state {
        return Err(RecordError::ReadBack);
    }
    Ok(())
}
