//! DSSE envelopes: bytes, what they are, and who signed both.
//!
//! What is signed is not the payload but the pre-authentication encoding of type and payload, so that one kind of document never passes for
//! another. Knows nothing of payloads. Format: github.com/secure-systems-lab/dsse.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::json::{self, JsonError};
use crate::private::{PrivateKey, SignError};

/// The most signatures of one envelope.
const SIGNATURES_MAX: usize = 16;

/// The longest signature: RSA of 8192 bits has 1024 bytes.
pub(crate) const SIGNATURE_BYTES_MAX: usize = 1024;

/// Why a value is no envelope.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// Fields are missing.
    #[error("not a DSSE envelope")]
    Shape(#[source] JsonError),
    /// Payload or signature is no base64, or too long.
    #[error("the envelope's `{field}` is not base64 of a proper length")]
    Base64 {
        /// Which.
        field: &'static str,
    },
    /// None, or more than anybody needs.
    #[error("an envelope with {count} signatures")]
    Signatures {
        /// How many.
        count: usize,
    },
}

/// An envelope, with nothing verified.
pub(crate) struct Envelope {
    pub(crate) payload_type: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) signatures: Vec<Vec<u8>>,
}

impl Envelope {
    pub(crate) fn read(value: &Value) -> Result<Self, EnvelopeError> {
        let payload_type = json::text(value, "payloadType").map_err(EnvelopeError::Shape)?;
        let payload = json::text(value, "payload").map_err(EnvelopeError::Shape)?;
        let payload = STANDARD
            .decode(payload)
            .map_err(|_| EnvelopeError::Base64 { field: "payload" })?;
        let list = json::list(value, "signatures").map_err(EnvelopeError::Shape)?;
        if list.is_empty() || list.len() > SIGNATURES_MAX {
            return Err(EnvelopeError::Signatures { count: list.len() });
        }
        let signatures = list.iter().map(|entry| {
            let text = json::text(entry, "sig").map_err(EnvelopeError::Shape)?;
            decode_signature(text).ok_or(EnvelopeError::Base64 { field: "sig" })
        });
        Ok(Self {
            payload_type: payload_type.to_owned(),
            payload,
            signatures: signatures.collect::<Result<_, _>>()?,
        })
    }

    /// The bytes that the signatures are over.
    pub(crate) fn signed_bytes(&self) -> Vec<u8> {
        pre_authentication(&self.payload_type, &self.payload)
    }
}

/// A signature out of base64; `None` if it is none or longer than any.
pub(crate) fn decode_signature(text: &str) -> Option<Vec<u8>> {
    // Base64 of 1024 bytes has 1368 characters.
    if text.len() > SIGNATURE_BYTES_MAX * 4 / 3 + 4 {
        return None;
    }
    STANDARD.decode(text).ok().filter(|bytes| !bytes.is_empty())
}

/// `"DSSEv1" SP LEN(type) SP type SP LEN(payload) SP payload`
fn pre_authentication(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// Makes an envelope with a signature of each key.
pub(crate) fn seal(payload_type: &str, payload: &[u8], keys: &[&PrivateKey]) -> Result<Value, SignError> {
    let signed = pre_authentication(payload_type, payload);
    let signatures = keys.iter().map(|key| {
        let signature = key.sign(&signed)?;
        Ok(json!({"sig": STANDARD.encode(signature)}))
    });
    Ok(json!({
        "payload": STANDARD.encode(payload),
        "payloadType": payload_type,
        "signatures": signatures.collect::<Result<Vec<_>, _>>()?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_is_the_specification_s() {
        assert_eq!(
            pre_authentication("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }
}
