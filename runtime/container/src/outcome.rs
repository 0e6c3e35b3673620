//! What a child tells its parent before it becomes the app.
//!
//! Owns the lines on the status pipe. The child holds the only writing end, close-on-exec: a line `started` followed by the end of the
//! stream means that `execve` succeeded; a line `failed` says why not; the end without a line means that the child died. Refuses to know
//! who the child is. Invariant: no success is reported that the kernel did not confirm by closing the pipe.
//!
//! ```text
//! {"started":{"policy":…,"steps":[…],"losses":[]}}
//! {"failed":{"kind":"command_not_found","step":"execve","rule":null,"message":"…"}}
//! ```

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use kakoi_policy::confinement::Receipt;
use serde::{Deserialize, Serialize};

use crate::frames::FailureKind;

/// The most bytes that are read from the pipe: a receipt and a failure fit many times.
const BYTES_MAX: u64 = 256 << 10;

/// One line of the pipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Started(Receipt),
    Failed(Failure),
}

/// Why a process does not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Whose fault it is.
    pub kind: FailureKind,
    /// What was being done (`landlock`, `execve`, `working directory` …).
    pub step: String,
    /// The policy rule behind it, where it is one rule's.
    pub rule: Option<String>,
    /// The chain of causes, outermost first.
    pub message: String,
}

impl Failure {
    /// Makes one without a rule.
    pub fn new(kind: FailureKind, step: &str, message: impl Into<String>) -> Self {
        Self {
            kind,
            step: step.to_owned(),
            rule: None,
            message: message.into(),
        }
    }
}

/// Why no outcome could be told.
#[derive(Debug, thiserror::Error)]
pub enum OutcomeError {
    /// The pipe could not be read or written.
    #[error("use the status pipe")]
    Pipe(#[source] std::io::Error),
    /// A line is not ours.
    #[error("read the status line")]
    Line(#[source] serde_json::Error),
    /// The child ended without a word.
    #[error("the process ended before it executed the program")]
    Died,
    /// The child said why it does not run.
    #[error("{}", .0.message)]
    Failed(Failure),
}

/// Writes that confinement is in force. Directly before `execve`.
pub(crate) fn tell_started(pipe: BorrowedFd<'_>, receipt: &Receipt) -> Result<(), OutcomeError> {
    tell(pipe, &Line::Started(receipt.clone()))
}

/// Writes why the process ends.
pub(crate) fn tell_failed(pipe: BorrowedFd<'_>, failure: &Failure) -> Result<(), OutcomeError> {
    tell(pipe, &Line::Failed(failure.clone()))
}

fn tell(pipe: BorrowedFd<'_>, line: &Line) -> Result<(), OutcomeError> {
    let mut text = serde_json::to_vec(line).map_err(OutcomeError::Line)?;
    text.push(b'\n');
    let mut file = File::from(pipe.try_clone_to_owned().map_err(OutcomeError::Pipe)?);
    file.write_all(&text).map_err(OutcomeError::Pipe)
}

/// Waits until the pipe is closed and tells what it said.
pub fn read(pipe: OwnedFd) -> Result<Receipt, OutcomeError> {
    let mut text = Vec::new();
    File::from(pipe)
        .take(BYTES_MAX)
        .read_to_end(&mut text)
        .map_err(OutcomeError::Pipe)?;
    parse(&text)
}

/// Reads what is there without waiting for the end: for a child that is known to have ended.
pub(crate) fn read_now(pipe: OwnedFd) -> Result<Receipt, OutcomeError> {
    kakoi_sys::descriptors::set_nonblocking(pipe.as_fd())
        .map_err(|error| OutcomeError::Pipe(std::io::Error::from_raw_os_error(error.errno as i32)))?;
    let mut file = File::from(pipe).take(BYTES_MAX);
    let mut text = Vec::new();
    match file.read_to_end(&mut text) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
        Err(error) => return Err(OutcomeError::Pipe(error)),
    }
    parse(&text)
}

/// The failure that a hook process of ours wrote in its list's place; `None` where it wrote none.
pub(crate) fn read_failure(path: &std::path::Path) -> Option<Failure> {
    let mut text = Vec::new();
    File::open(path)
        .ok()?
        .take(BYTES_MAX)
        .read_to_end(&mut text)
        .ok()?;
    match serde_json::from_slice(&text).ok()? {
        Line::Failed(failure) => Some(failure),
        Line::Started(_) => None,
    }
}

fn parse(text: &[u8]) -> Result<Receipt, OutcomeError> {
    let mut outcome = Err(OutcomeError::Died);
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line).map_err(OutcomeError::Line)? {
            // A failure is final whatever was said before: `execve` itself can fail after the receipt.
            Line::Failed(failure) => return Err(OutcomeError::Failed(failure)),
            Line::Started(receipt) => outcome = Ok(receipt),
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use kakoi_policy::confinement::PolicyIdentity;

    fn receipt() -> Receipt {
        Receipt {
            policy: PolicyIdentity {
                name: "strict".into(),
                sha256: "00".into(),
            },
            steps: vec![],
            losses: vec![],
        }
    }

    #[test]
    fn the_last_word_counts() {
        let failure = Failure::new(FailureKind::CommandNotFound, "execve", "no such file");
        let (reader, writer) = kakoi_sys::descriptors::pipe().expect("a pipe");
        tell_started(writer.as_fd(), &receipt()).expect("written");
        drop(writer);
        assert_eq!(read(reader).expect("started"), receipt());

        let (reader, writer) = kakoi_sys::descriptors::pipe().expect("a pipe");
        tell_started(writer.as_fd(), &receipt()).expect("written");
        tell_failed(writer.as_fd(), &failure).expect("written");
        drop(writer);
        assert!(matches!(read(reader), Err(OutcomeError::Failed(told)) if told == failure));

        let (reader, writer) = kakoi_sys::descriptors::pipe().expect("a pipe");
        drop(writer);
        assert!(matches!(read(reader), Err(OutcomeError::Died)));
    }

    #[test]
    fn foreign_lines_are_refused() {
        assert!(matches!(parse(b"hello\n"), Err(OutcomeError::Line(_))));
    }
}
