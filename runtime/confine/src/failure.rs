//! A failure of a child, as it travels through a pipe to its parent.
//!
//! ```text
//! {"step":"landlock","rule":"app.yaml:12:5 files.read","message":"landlock rules cannot be enforced: …"}
//! ```

use serde::{Deserialize, Serialize};

use crate::apply::ApplyError;
use crate::landlock::LandlockError;
use crate::seccomp::SeccompError;

/// The longest message, in bytes: with the rest of the document it stays below PIPE_BUF, so that it is written and read in one piece.
pub const MESSAGE_BYTES_MAX: usize = 2048;

/// Why a process was not started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartFailure {
    /// The mechanism that failed: `identity`, `capabilities`, `descriptors`, `landlock`, `seccomp`; others are the caller's.
    pub step: String,
    /// The policy rule behind it, where it is one rule's.
    pub rule: Option<String>,
    /// The chain of causes, outermost first.
    pub message: String,
}

impl StartFailure {
    /// Makes one from an error and its causes.
    pub fn new(step: &str, rule: Option<String>, error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            message.push_str(": ");
            message.push_str(&error.to_string());
            cause = error.source();
        }
        let mut rule = rule;
        for text in [Some(&mut message), rule.as_mut()].into_iter().flatten() {
            let end = (0..=MESSAGE_BYTES_MAX.min(text.len()))
                .rev()
                .find(|end| text.is_char_boundary(*end));
            text.truncate(end.unwrap_or(0));
        }
        Self {
            step: step.to_owned(),
            rule,
            message,
        }
    }
}

impl From<&ApplyError> for StartFailure {
    fn from(error: &ApplyError) -> Self {
        let (step, rule) = match error {
            ApplyError::Identity(_) => ("identity", None),
            ApplyError::Capability(_) => ("capabilities", None),
            ApplyError::Descriptor(_) => ("descriptors", None),
            ApplyError::Landlock(cause) => ("landlock", LandlockError::rule(cause)),
            ApplyError::Seccomp(cause) => ("seccomp", SeccompError::rule(cause)),
        };
        Self::new(step, rule, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Words(String, #[source] std::io::Error);

    #[test]
    fn the_chain_is_told_and_bounded() {
        let words = |text: String| Words(text, std::io::Error::other("inner"));
        let short = StartFailure::new("landlock", None, &words("outer".into()));
        assert_eq!(short.message, "outer: inner");
        let long = StartFailure::new("landlock", None, &words("ü".repeat(MESSAGE_BYTES_MAX)));
        assert!(long.message.len() <= MESSAGE_BYTES_MAX && long.message.ends_with('ü'));
    }
}
