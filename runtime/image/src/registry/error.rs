//! What can go wrong between this device and a registry.
//!
//! Owns [`RegistryError`] and the reading of what registries say about their refusals. Invariant: words that came from a registry are shortened
//! and hold no control character, so they can be shown on a terminal and written to a log.

use std::io;

use serde::Deserialize;

use crate::digest::Digest;

/// Most characters taken over from a registry's message.
const WORDS_MAX: usize = 300;

/// Why a registry did not give or take what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No connection, or one that broke more often than is tried again.
    #[error("cannot reach {registry}")]
    Unreachable {
        /// Host and port.
        registry: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// TLS: an unknown certificate, a wrong name, no TLS at all.
    #[error(
        "cannot talk to {registry} securely: if it has a certificate of its own, name its CA in registries.yaml (registries: {registry}: ca: FILE); if it speaks plain HTTP, say transport: http there"
    )]
    Tls {
        /// Host and port.
        registry: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Too slow.
    #[error("{registry} did not answer in time while {doing}")]
    TimedOut {
        /// Host and port.
        registry: String,
        /// What was being done.
        doing: &'static str,
    },
    /// Wrong credentials, or none.
    #[error("{registry} wants other credentials{}: try kakoi login {registry}", said(.message))]
    Unauthorized {
        /// Host and port.
        registry: String,
        /// Its words.
        message: String,
    },
    /// Known, and not permitted.
    #[error("{registry} denies access to {what}{}", said(.message))]
    Denied {
        /// Host and port.
        registry: String,
        /// What was asked for.
        what: String,
        /// Its words.
        message: String,
    },
    /// Nothing of that name.
    #[error("{what} is not in {registry}{}", said(.message))]
    NotFound {
        /// Host and port.
        registry: String,
        /// What was asked for.
        what: String,
        /// Its words.
        message: String,
    },
    /// Too many requests, for longer than is waited.
    #[error("{registry} has had too many requests{}: try again {}", said(.message), after(*.seconds))]
    RateLimited {
        /// Host and port.
        registry: String,
        /// Its words.
        message: String,
        /// When to come again; 0 where it does not say.
        seconds: u64,
    },
    /// Any other status.
    #[error("{registry} answered {status} while {doing}{}", said(.message))]
    Status {
        /// Host and port.
        registry: String,
        /// The status.
        status: u16,
        /// What was being done.
        doing: &'static str,
        /// Its words.
        message: String,
    },
    /// An answer that is against the protocol.
    #[error("{registry} breaks the protocol: {reason}")]
    Protocol {
        /// Host and port.
        registry: String,
        /// How.
        reason: String,
    },
    /// Bytes that are not those asked for.
    #[error("{registry} sent {what} with digest {found}, not {expected}")]
    DigestMismatch {
        /// Host and port.
        registry: String,
        /// What was asked for.
        what: String,
        /// What it should be.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// More or fewer bytes than the descriptor says.
    #[error("{registry} sent {found} bytes of {digest}, its descriptor says {expected}")]
    Size {
        /// Host and port.
        registry: String,
        /// Which blob.
        digest: Digest,
        /// What the descriptor says.
        expected: u64,
        /// What came, counted until it was clear.
        found: u64,
    },
    /// A document larger than its limit.
    #[error("{registry} sent {what} of more than {bytes_max} bytes")]
    TooLarge {
        /// Host and port.
        registry: String,
        /// What.
        what: String,
        /// The limit.
        bytes_max: u64,
    },
    /// A manifest or index that cannot be used.
    #[error("cannot use {what} from {registry}: {reason}")]
    Document {
        /// Host and port.
        registry: String,
        /// Which.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// An index without a fitting platform.
    #[error("{what} has no image for {wanted}; it has {}", if .found.is_empty() { "none" } else { .found.as_str() })]
    NoPlatform {
        /// The image.
        what: String,
        /// What was wanted.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// A platform that is none.
    #[error(
        "{text:?}: unknown operating system or architecture: invalid argument; write OS/ARCHITECTURE[/VARIANT], as in linux/arm64/v8"
    )]
    Platform {
        /// What was given.
        text: String,
    },
    /// A file that the settings name.
    #[error("cannot use {path} for {registry}: {reason}")]
    Settings {
        /// Host and port.
        registry: String,
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A proxy's address.
    #[error("{variable} is not the address of a proxy: write http://HOST:PORT")]
    Proxy {
        /// The variable.
        variable: &'static str,
    },
    /// Whoever asked is gone, or another part failed.
    #[error("cancelled")]
    Cancelled,
}

impl RegistryError {
    /// Whether another place may have it: what mirrors and short names are tried on for.
    pub fn is_elsewhere(&self) -> bool {
        matches!(
            self,
            Self::NotFound { .. } | Self::Unauthorized { .. } | Self::Denied { .. }
        )
    }

    /// Whether the same may succeed in a moment.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } => true,
            Self::Status { status, .. } => matches!(status, 500 | 502 | 503 | 504),
            _ => false,
        }
    }
}

fn said(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(" ({message})")
    }
}

fn after(seconds: u64) -> String {
    if seconds == 0 {
        String::from("later")
    } else {
        format!("in {seconds} s")
    }
}

/// The first message of a registry's error document (distribution-spec, error codes), or the text itself where it is short and plain.
pub(crate) fn message_of(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Errors {
        #[serde(default)]
        errors: Vec<One>,
        /// What token services and some registries send.
        #[serde(default)]
        details: String,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    match serde_json::from_slice::<Errors>(body) {
        Ok(document) => match document.errors.into_iter().next() {
            Some(one) if !one.message.is_empty() => plain(&one.message),
            Some(one) => plain(&one.code),
            None => plain(&document.details),
        },
        Err(_) if body.first() == Some(&b'<') => String::new(),
        Err(_) => plain(&String::from_utf8_lossy(body)),
    }
}

/// A foreign text on one line, shortened.
pub(crate) fn plain(text: &str) -> String {
    let cleaned: String = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(WORDS_MAX)
        .collect();
    cleaned.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_registries_say_is_shown_plainly() {
        for (body, shown) in [
            (
                &br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#[..],
                "manifest unknown",
            ),
            (br#"{"errors":[{"code":"DENIED"}]}"#, "DENIED"),
            (br#"{"details":"incorrect username or password"}"#, "incorrect username or password"),
            (b"too\x1b[31m many\r\n", "too [31m many"),
            (b"<html>Bad Gateway</html>", ""),
            (b"", ""),
        ] {
            assert_eq!(message_of(body), shown);
        }
        assert_eq!(message_of(&[b'x'; 5000]).len(), WORDS_MAX);
    }
}
