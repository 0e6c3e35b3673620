//! The policy that `--policy` names.
//!
//! Owns the choice between a file and a name. Refuses to judge the policy: the daemon does. Invariant: what looks like a file is never looked up as a
//! name.

use std::path::Path;

use kakoi_api::kakoi::PolicyChoice;

use crate::bounded::{self, ReadError};

/// The largest policy that is read: the language's own bound is smaller, and its error has line and column.
const POLICY_BYTES_MAX: u64 = 1 << 20;

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file that a flag names cannot be read.
    #[error("--policy")]
    Flag(#[source] ReadError),
    /// A file cannot be read.
    #[error(transparent)]
    Read(ReadError),
    /// Neither a file nor a name.
    #[error("--policy {text:?} is neither a file nor the name of a policy")]
    Neither {
        /// What was written.
        text: String,
    },
}

/// Reads a policy's file, or leaves its name to the daemon.
pub fn choose_policy(text: &str) -> Result<PolicyChoice, PolicyError> {
    if is_file_name(text) {
        return Ok(PolicyChoice {
            // The path as it was given stands in the messages; the policy is called by its last part.
            name: if text == "-" {
                "stdin".to_owned()
            } else {
                text.to_owned()
            },
            source: Some(read(text).map_err(PolicyError::Flag)?),
        });
    }
    if text.is_empty() {
        return Err(PolicyError::Neither {
            text: text.to_owned(),
        });
    }
    Ok(PolicyChoice {
        name: text.to_owned(),
        source: None,
    })
}

/// Reads a policy's file.
pub fn read_policy(path: &str) -> Result<String, PolicyError> {
    read(path).map_err(PolicyError::Read)
}

fn read(path: &str) -> Result<String, ReadError> {
    bounded::read_text(Path::new(path), POLICY_BYTES_MAX)
}

/// Whether a word means a file: it has a slash or a YAML file's ending, or is `-`.
pub fn is_file_name(text: &str) -> bool {
    text.contains('/') || text.ends_with(".yaml") || text.ends_with(".yml") || text == "-"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_and_names_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("app.yaml");
        std::fs::write(&file, "kakoi: 1\n").expect("written");
        let choice = choose_policy(&file.display().to_string()).expect("it is a file");
        assert_eq!(
            (choice.name.as_str(), choice.source.as_deref()),
            (file.display().to_string().as_str(), Some("kakoi: 1\n"))
        );
        assert_eq!(choose_policy("strict").expect("it is a name").source, None);
        assert!(choose_policy("missing.yaml").is_err());
        assert!(choose_policy("").is_err());
    }
}
