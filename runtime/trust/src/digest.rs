//! SHA-256 digests as OCI writes them.
//!
//! Owns [`Digest`]. Refuses other algorithms: one that nobody here can compute would be a name, not a digest.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A SHA-256 digest, written `sha256:<64 lower-case hex digits>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// Why a text is no digest.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not a sha256 digest")]
pub struct DigestError {
    /// The text, shortened.
    pub text: String,
}

impl Digest {
    /// Parses `sha256:<hex>`.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let good = text.strip_prefix("sha256:").is_some_and(|hex| {
            hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        });
        if !good {
            return Err(DigestError {
                text: text.chars().take(100).collect(),
            });
        }
        Ok(Self(text.to_owned()))
    }

    /// Computes the digest of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_hash(&ring::digest::digest(&ring::digest::SHA256, bytes))
    }

    fn from_hash(hash: &ring::digest::Digest) -> Self {
        Self(hash.as_ref().iter().fold("sha256:".to_owned(), |mut text, byte| {
            text.push_str(&format!("{byte:02x}"));
            text
        }))
    }

    /// The 32 bytes.
    pub fn bytes(&self) -> [u8; 32] {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => byte - b'0',
            _ => byte - b'a' + 10,
        };
        let (pairs, _) = self.hex().as_bytes().as_chunks::<2>();
        std::array::from_fn(|at| digit(pairs[at][0]) << 4 | digit(pairs[at][1]))
    }

    /// The hex digits alone.
    pub fn hex(&self) -> &str {
        self.0.trim_start_matches("sha256:")
    }
}

/// Computes the digest of what comes in pieces.
pub struct Hasher(ring::digest::Context);

impl Hasher {
    /// Begins.
    pub fn new() -> Self {
        Self(ring::digest::Context::new(&ring::digest::SHA256))
    }

    /// Takes the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all pieces.
    pub fn finish(self) -> Digest {
        Digest::from_hash(&self.0.finish())
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        Self::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_have_the_digest_of_the_whole_and_bytes_their_digits() {
        let mut hasher = Hasher::new();
        hasher.update(b"ab");
        hasher.update(b"c");
        let digest = hasher.finish();
        assert_eq!(digest, Digest::of(b"abc"));
        assert_eq!(digest.bytes()[..4], [0xba, 0x78, 0x16, 0xbf]);
    }
}
