//! The way to standard output and standard error.
//!
//! Owns what happens when the reader goes away (`kakoi ps | head -1`): the command ends quietly. Refuses to know formats. Invariant: no command
//! writes to standard output past this module, except the byte streams of containers.

use std::io::{self, IsTerminal as _, Write as _};

use crate::failure::{Failure, OUTPUT_CLOSED};

/// Standard output cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("writing to standard output")]
pub struct OutputError(#[source] io::Error);

/// Writes text to standard output at once.
pub fn print(text: &str) -> Result<(), Failure> {
    write_bytes(text.as_bytes())
}

/// Writes a line to standard output at once.
pub fn line(text: &str) -> Result<(), Failure> {
    let mut whole = String::with_capacity(text.len() + 1);
    whole.push_str(text);
    whole.push('\n');
    write_bytes(whole.as_bytes())
}

/// Writes bytes to standard output at once.
pub fn write_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    closed_is_quiet(stdout.write_all(bytes).and_then(|()| stdout.flush()))
}

/// Turns a write's outcome into a command's: a reader that went away is no error worth a word.
pub fn closed_is_quiet(outcome: io::Result<()>) -> Result<(), Failure> {
    match outcome {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::silent(OUTPUT_CLOSED)),
        Err(error) => Err(OutputError(error).into()),
    }
}

/// Writes a line to standard error; a standard error that is closed has nobody to tell.
pub fn complain(text: &str) {
    if writeln!(io::stderr().lock(), "{text}").is_err() {
        // Nobody reads: there is no further place to say so.
    }
}

/// Whether standard output is a terminal.
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Writes bytes to standard error at once.
pub fn write_error_bytes(bytes: &[u8]) -> Result<(), Failure> {
    closed_is_quiet(io::stderr().lock().write_all(bytes))
}
