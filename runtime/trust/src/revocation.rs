//! The list of revoked keys: signed, versioned, and as good on a stick as from a server.
//!
//! A DSSE envelope of type `application/vnd.kakoi.revocation.v1+json`, signed by as many keys as trust.yaml's `revocation` demands, over
//!
//! ```json
//! {"version":3,"revoked":[{"key":"sha256:<fingerprint of the SPKI>","reason":"laptop stolen"}]}
//! ```
//!
//! The list is whole: a newer version replaces an older one. Invariant: an older version never replaces a newer one, and a key that the list
//! in force revokes signs no further list.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::config::{NamedKey, Trust};
use crate::digest::Digest;
use crate::dsse::{self, Envelope, EnvelopeError};
use crate::json::{self, JsonError};
use crate::private::{PrivateKey, SignError};

/// What the envelope says that it holds.
pub const REVOCATION_TYPE: &str = "application/vnd.kakoi.revocation.v1+json";

/// The most bytes of a document: some thousand keys with their reasons.
pub const REVOCATION_BYTES_MAX: usize = 1024 * 1024;

/// The longest reason that is kept.
const REASON_CHARS_MAX: usize = 200;

/// A list that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocations {
    version: u64,
    revoked: BTreeMap<Digest, String>,
    payload: Digest,
}

/// Why a list is not taken.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    /// Nobody may revoke.
    #[error("trust.yaml has no `revocation`, so nobody's list is taken")]
    NobodyMay,
    /// Not JSON of an envelope.
    #[error("not a revocation list")]
    Json(#[source] JsonError),
    /// Not an envelope.
    #[error("not a revocation list")]
    Envelope(#[source] EnvelopeError),
    /// An envelope of something else.
    #[error("an envelope that holds no revocation list")]
    Type,
    /// Too few of the keys signed it.
    #[error("signed by {signed} of {threshold} keys that may revoke")]
    Threshold {
        /// How many distinct ones did.
        signed: usize,
        /// How many must.
        threshold: usize,
    },
    /// Its payload is not as drawn above.
    #[error("a revocation list with a malformed `{field}`")]
    Malformed {
        /// Which part.
        field: &'static str,
    },
    /// Older than the one in force, or another one of the same version.
    #[error("version {version} of the revocation list does not replace version {current}")]
    Old {
        /// The version that was offered.
        version: u64,
        /// The version in force.
        current: u64,
    },
}

impl Revocations {
    /// Verifies a list; `current` is the one in force, which is replaced only by a newer one.
    pub fn verify(
        document: &[u8],
        trust: &Trust,
        current: Option<&Revocations>,
        now: Timestamp,
    ) -> Result<Self, RevocationError> {
        let quorum = trust.revocation().ok_or(RevocationError::NobodyMay)?;
        let value = json::read(document, REVOCATION_BYTES_MAX).map_err(RevocationError::Json)?;
        let envelope = Envelope::read(&value).map_err(RevocationError::Envelope)?;
        if envelope.payload_type != REVOCATION_TYPE {
            return Err(RevocationError::Type);
        }
        let signed_bytes = envelope.signed_bytes();
        let signers: BTreeSet<Digest> = quorum
            .keys
            .iter()
            .filter_map(|name| trust.key(name))
            .filter(|key| standing(key, current, now).is_ok())
            .filter(|key| {
                let mut signatures = envelope.signatures.iter();
                signatures.any(|signature| key.key.verify(&signed_bytes, signature))
            })
            .map(|key| key.key.fingerprint())
            .collect();
        if signers.len() < quorum.threshold {
            return Err(RevocationError::Threshold {
                signed: signers.len(),
                threshold: quorum.threshold,
            });
        }
        let list = Self::read(&envelope.payload)?;
        match current {
            Some(current) if list.version <= current.version && list != *current => {
                Err(RevocationError::Old {
                    version: list.version,
                    current: current.version,
                })
            }
            _ => Ok(list),
        }
    }

    /// Reads a list that was verified when it was taken, and kept where root alone writes. Who signed it is not asked again: a key that signed
    /// it may have expired since, and a clock that starts in 1970 must not bring revoked keys back to life.
    ///
    /// # Errors
    /// It is not the document that was kept.
    pub fn restore(document: &[u8]) -> Result<Self, RevocationError> {
        let value = json::read(document, REVOCATION_BYTES_MAX).map_err(RevocationError::Json)?;
        let envelope = Envelope::read(&value).map_err(RevocationError::Envelope)?;
        if envelope.payload_type != REVOCATION_TYPE {
            return Err(RevocationError::Type);
        }
        Self::read(&envelope.payload)
    }

    fn read(payload: &[u8]) -> Result<Self, RevocationError> {
        let malformed = |field| RevocationError::Malformed { field };
        let value = json::read(payload, REVOCATION_BYTES_MAX).map_err(RevocationError::Json)?;
        let version = value.get("version").and_then(Value::as_u64);
        let mut revoked = BTreeMap::new();
        for entry in json::list(&value, "revoked").map_err(RevocationError::Json)? {
            let key = json::text(entry, "key").map_err(RevocationError::Json)?;
            let key = Digest::parse(key).map_err(|_| malformed("key"))?;
            let reason = entry.get("reason").map_or(Some(""), Value::as_str);
            let reason = reason.ok_or(malformed("reason"))?.chars();
            let reason = reason.filter(|c| !c.is_control()).take(REASON_CHARS_MAX);
            revoked.insert(key, reason.collect());
        }
        Ok(Self {
            version: version.ok_or(malformed("version"))?,
            revoked,
            payload: Digest::of(payload),
        })
    }

    /// Its version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The revoked keys and the reasons.
    pub fn revoked(&self) -> impl Iterator<Item = (&Digest, &str)> {
        self.revoked.iter().map(|(key, reason)| (key, reason.as_str()))
    }
}

/// Makes a signed list.
pub fn sign_revocations(
    version: u64,
    revoked: &[(Digest, String)],
    keys: &[&PrivateKey],
) -> Result<Vec<u8>, SignError> {
    let entries: Vec<_> = revoked
        .iter()
        .map(|(key, reason)| json!({"key": key, "reason": reason}))
        .collect();
    let payload = json!({"version": version, "revoked": entries}).to_string();
    let envelope = dsse::seal(REVOCATION_TYPE, payload.as_bytes(), keys)?;
    Ok(envelope.to_string().into_bytes())
}

/// Why a key does not count now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// Before its time.
    #[error("key `{name}` is not valid before {from}")]
    NotYetValid {
        /// The key.
        name: String,
        /// From when on it is.
        from: Timestamp,
    },
    /// After its time.
    #[error("key `{name}` expired at {until}")]
    Expired {
        /// The key.
        name: String,
        /// When.
        until: Timestamp,
    },
    /// Revoked by the owner or by the list.
    #[error("key `{name}` is revoked: {reason}")]
    Revoked {
        /// The key.
        name: String,
        /// Why, in the words of who did.
        reason: String,
    },
}

/// Whether a key counts at a time.
pub(crate) fn standing(
    key: &NamedKey,
    revocations: Option<&Revocations>,
    at: Timestamp,
) -> Result<(), KeyFault> {
    let name = key.name.clone();
    let listed = revocations.and_then(|list| list.revoked.get(&key.key.fingerprint()));
    if let Some(reason) = key.revoked.as_ref().or(listed) {
        let reason = reason.clone();
        return Err(KeyFault::Revoked { name, reason });
    }
    match (key.not_before, key.not_after) {
        (Some(from), _) if at < from => Err(KeyFault::NotYetValid { name, from }),
        (_, Some(until)) if at >= until => Err(KeyFault::Expired { name, until }),
        _ => Ok(()),
    }
}
