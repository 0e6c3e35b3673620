//! Cosign's encrypted private keys: scrypt and NaCl's secretbox around PKCS#8.
//!
//! ```json
//! {"kdf":{"name":"scrypt","params":{"N":65536,"r":8,"p":1},"salt":"…"},"cipher":{"name":"nacl/secretbox","nonce":"…"},"ciphertext":"…"}
//! ```
//!
//! Opens them; making keys is left to cosign. Knows nothing of what is inside.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit;
use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit, StreamCipher};
use serde_json::Value;

use crate::json::{self, JsonError};

/// The most bytes of such a document.
const DOCUMENT_BYTES_MAX: usize = 16 * 1024;

/// scrypt takes 128·N·r bytes; 2^20 would be 1 GiB, and cosign uses 2^16, which are 64 MiB.
const LOG_N_MAX: u8 = 17;

/// Why an encrypted key cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SecretboxError {
    /// Not cosign's document.
    #[error("not an encrypted key of cosign")]
    Json(#[source] JsonError),
    /// Another hash or cipher, or parameters that would take too much memory.
    #[error("not scrypt with at most 128 MiB and nacl/secretbox, which is what cosign uses")]
    Parameters,
    /// The password is wrong or the file was changed.
    #[error("the password is wrong")]
    Password,
}

pub(crate) fn open(document: &[u8], password: &str) -> Result<Vec<u8>, SecretboxError> {
    let document = json::read(document, DOCUMENT_BYTES_MAX).map_err(SecretboxError::Json)?;
    let text = |field| json::text(&document, field).map_err(SecretboxError::Json);
    let bytes = |field| {
        STANDARD
            .decode(text(field)?)
            .map_err(|_| SecretboxError::Parameters)
    };
    if text("kdf.name")? != "scrypt" || text("cipher.name")? != "nacl/secretbox" {
        return Err(SecretboxError::Parameters);
    }
    let parameters = parameters(&document).ok_or(SecretboxError::Parameters)?;
    let salt = bytes("kdf.salt")?;
    let nonce: [u8; 24] = bytes("cipher.nonce")?
        .try_into()
        .map_err(|_| SecretboxError::Parameters)?;
    let mut key = [0; 32];
    scrypt::scrypt(password.as_bytes(), &salt, &parameters, &mut key)
        .map_err(|_| SecretboxError::Parameters)?;
    unseal(&key, &nonce, &bytes("ciphertext")?)
}

fn parameters(document: &Value) -> Option<scrypt::Params> {
    let given = document.get("kdf")?.get("params")?;
    let number = |name: &str| given.get(name)?.as_u64();
    let n = number("N")?;
    let log_n = u8::try_from(n.checked_ilog2()?).ok()?;
    if !n.is_power_of_two() || log_n > LOG_N_MAX || number("r")? > 8 || number("p")? > 8 {
        return None;
    }
    let (r, p) = (
        u32::try_from(number("r")?).ok()?,
        u32::try_from(number("p")?).ok()?,
    );
    scrypt::Params::new(log_n, r, p).ok()
}

/// NaCl's crypto_secretbox_open: the first 32 bytes of the stream key the authenticator, the rest is over the text.
fn unseal(key: &[u8; 32], nonce: &[u8; 24], sealed: &[u8]) -> Result<Vec<u8>, SecretboxError> {
    let (tag, text) = sealed.split_at_checked(16).ok_or(SecretboxError::Password)?;
    let mut stream = XSalsa20::new(key.into(), nonce.into());
    let mut authenticator = [0; 32];
    stream.apply_keystream(&mut authenticator);
    let expected = Poly1305::new(&authenticator.into()).compute_unpadded(text);
    // No secret hangs on the time this takes: whoever holds the file guesses passwords without asking us.
    if expected.as_slice() != tag {
        return Err(SecretboxError::Password);
    }
    let mut plain = text.to_vec();
    stream.apply_keystream(&mut plain);
    Ok(plain)
}
