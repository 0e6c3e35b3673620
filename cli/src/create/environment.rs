//! Variables and labels, from flags and files.
//!
//! Owns the notation of `--env-file` and `--label-file`. Invariant: a broken line is refused with its file and number; nothing is taken over from the
//! caller's environment that was not named.

use std::path::{Path, PathBuf};

use super::Pairs;
use crate::bounded::{self, ReadError};

/// The largest file of variables: beyond the kernel's own limit for an environment nothing could start.
const FILE_BYTES_MAX: u64 = 2 << 20;

/// A name, and its value where the line has one.
type Line = (String, Option<String>);

/// Why variables cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// A file cannot be read.
    #[error("{flag}")]
    Read {
        /// The flag.
        flag: &'static str,
        /// Why.
        #[source]
        cause: ReadError,
    },
    /// A line of a file is wrong.
    #[error("{}, line {line}: {words}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        words: &'static str,
    },
    /// No name of a variable.
    #[error("--unsetenv {text:?} is not the name of a variable")]
    Unset {
        /// What was written.
        text: String,
    },
    /// A flag is wrong.
    #[error("--env {text:?} has no name before the =")]
    NoName {
        /// What was written.
        text: String,
    },
}

/// Files first, then flags: the last of a name wins.
pub fn read_environment(flags: &[String], files: &[PathBuf]) -> Result<Vec<String>, EnvironmentError> {
    let mut variables = Vec::new();
    for path in files {
        for (name, value) in lines(path, "--env-file")? {
            match value {
                Some(value) => push(&mut variables, name, value),
                None => take_over(&mut variables, &name),
            }
        }
    }
    for flag in flags {
        match flag.split_once('=') {
            Some(("", _)) => return Err(EnvironmentError::NoName { text: flag.clone() }),
            Some((name, value)) => push(&mut variables, name.to_owned(), value.to_owned()),
            None if flag.is_empty() => return Err(EnvironmentError::NoName { text: flag.clone() }),
            None => take_over(&mut variables, flag),
        }
    }
    Ok(variables
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect())
}

/// Takes variables away, the flags' own and, by a name without a value, the image's.
pub(super) fn unset(variables: &mut Vec<String>, names: &[String]) -> Result<(), EnvironmentError> {
    for name in names {
        if name.is_empty() || name.contains('=') {
            return Err(EnvironmentError::Unset { text: name.clone() });
        }
        variables.retain(|entry| entry.split('=').next() != Some(name));
        variables.push(name.clone());
    }
    Ok(())
}

/// Files first, then flags.
pub fn read_labels(flags: &[String], files: &[PathBuf]) -> Result<Pairs, EnvironmentError> {
    let mut labels = Pairs::new();
    for path in files {
        for (name, value) in lines(path, "--label-file")? {
            labels.insert(name, value.unwrap_or_default());
        }
    }
    for flag in flags {
        let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
        labels.insert(name.to_owned(), value.to_owned());
    }
    Ok(labels)
}

fn push(variables: &mut Vec<(String, String)>, name: String, value: String) {
    variables.retain(|(known, _)| *known != name);
    variables.push((name, value));
}

/// `NAME` takes over one variable of the caller's, `NAME*` all that begin so; one that is not set stays unset.
fn take_over(variables: &mut Vec<(String, String)>, name: &str) {
    if let Some(prefix) = name.strip_suffix('*') {
        let mut found: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with(prefix))
            .collect();
        found.sort();
        for (name, value) in found {
            push(variables, name, value);
        }
    } else if let Ok(value) = std::env::var(name) {
        push(variables, name.to_owned(), value);
    }
}

fn lines(path: &Path, flag: &'static str) -> Result<Vec<Line>, EnvironmentError> {
    let text =
        bounded::read_text(path, FILE_BYTES_MAX).map_err(|cause| EnvironmentError::Read { flag, cause })?;
    parse(text.strip_prefix('\u{feff}').unwrap_or(&text)).map_err(|(line, words)| EnvironmentError::Line {
        path: path.to_owned(),
        line,
        words,
    })
}

/// Errors are a line's number and what is wrong with it.
fn parse(text: &str) -> Result<Vec<Line>, (usize, &'static str)> {
    let mut pairs = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |words| Err((index + 1, words));
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (line.trim_end(), None),
        };
        if name.is_empty() {
            return wrong("there is no name before the =");
        }
        if name.contains(char::is_whitespace) {
            return wrong("a name has no white space: write NAME=VALUE, or NAME alone");
        }
        if line.contains('\0') {
            return wrong("a variable cannot hold a zero byte");
        }
        pairs.push((name.to_owned(), value));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_docker_reads_them() {
        let pairs = parse("# note\n\n  A=1 2 \nB=\nC\nD=x=y\r\n").expect("they are variables");
        let expected = [
            ("A", Some("1 2 ")),
            ("B", Some("")),
            ("C", None),
            ("D", Some("x=y")),
        ];
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned)))
            .collect();
        assert_eq!(pairs, expected);
    }

    #[test]
    fn broken_lines_are_named() {
        for (text, line) in [("A=1\n=2", 2), ("A B=1", 1), ("\nA B", 2), ("A=\0", 1)] {
            assert_eq!(parse(text).expect_err(text).0, line, "{text:?}");
        }
    }

    #[test]
    fn flags_win_and_what_is_unset_stays_unset() {
        let flags: Vec<String> = ["A=1", "A=2", "KAKOI_SURELY_UNSET", "B=x=y"]
            .map(str::to_owned)
            .into();
        assert_eq!(
            read_environment(&flags, &[]).expect("they are variables"),
            ["A=2", "B=x=y"]
        );
        assert!(read_environment(&["=1".to_owned()], &[]).is_err());
        assert!(read_environment(&[], &[PathBuf::from("/nonexistent/env")]).is_err());
        assert!(read_environment(&[], &[PathBuf::from("/dev/zero")]).is_err());
    }
}
