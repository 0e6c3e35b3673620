//! How a command ends badly: an exit status and, where something is left to say, the error.
//!
//! Owns the exit statuses (Podman's). Refuses to know any command. Invariant: an error that a module returned is printed exactly once, by `main`,
//! with its whole chain.

use std::error::Error;
use std::fmt::Write as _;

/// Kakoi itself failed, or was called wrongly.
pub const ENGINE: u8 = 125;
/// The program in the container cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// The program in the container does not exist.
pub const NOT_FOUND: u8 = 127;
/// The reader of our output went away; what a shell reports for a program that SIGPIPE ended.
pub const OUTPUT_CLOSED: u8 = 141;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub struct Failure {
    /// The exit status.
    pub status: u8,
    /// What to print; `None` where all was said already.
    pub error: Option<Box<dyn Error>>,
}

impl Failure {
    /// A failure of its own exit status.
    pub fn new(status: u8, error: impl Error + 'static) -> Self {
        Self {
            status,
            error: Some(Box::new(error)),
        }
    }

    /// Ends with a status and without a word.
    pub const fn silent(status: u8) -> Self {
        Self { status, error: None }
    }
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(ENGINE, error)
    }
}

/// Writes an error and its causes as one text; further lines of a message are indented so that they read as its continuation.
pub fn describe(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.ends_with(&words) {
            write!(text, ": {words}").expect("writing to a string succeeds");
        }
        cause = inner.source();
    }
    text.trim_end().replace('\n', "\n  ")
}

/// A usage error without the hints that follow it.
pub fn usage_in_one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
    let words: Vec<&str> = lines.collect();
    words.join(" ").trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("opening {name}")]
    struct Outer {
        name: &'static str,
        #[source]
        cause: std::io::Error,
    }

    #[test]
    fn the_chain_is_printed_once_and_in_order() {
        let error = Outer {
            name: "a",
            cause: std::io::Error::other("line one\nline two"),
        };
        assert_eq!(describe(&error), "opening a: line one\n  line two");
    }
}
