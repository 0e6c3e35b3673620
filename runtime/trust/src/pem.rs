//! PEM: text around DER.
//!
//! Knows labels and base64, nothing of what is inside.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The most characters of a PEM file: an 8192-bit RSA private key has 6,400.
pub const PEM_CHARS_MAX: usize = 16 * 1024;

/// Why a text is not PEM.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// Longer than any key.
    #[error("longer than {PEM_CHARS_MAX} characters")]
    TooLong,
    /// No `-----BEGIN …-----`, no matching end, or something around them.
    #[error("not one PEM block from `-----BEGIN` to `-----END`")]
    Frame,
    /// Not base64.
    #[error("what stands between the lines of a PEM block is not base64")]
    Base64(#[source] base64::DecodeError),
}

/// Reads the one block of a text: its label and content.
pub(crate) fn decode(text: &str) -> Result<(&str, Vec<u8>), PemError> {
    if text.len() > PEM_CHARS_MAX {
        return Err(PemError::TooLong);
    }
    let (label, rest) = text
        .trim()
        .strip_prefix("-----BEGIN ")
        .and_then(|rest| rest.split_once("-----"))
        .ok_or(PemError::Frame)?;
    let end = format!("-----END {label}-----");
    let body = rest.strip_suffix(&end).ok_or(PemError::Frame)?;
    let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let bytes = STANDARD.decode(body).map_err(PemError::Base64)?;
    Ok((label, bytes))
}

/// Writes a block.
pub(crate) fn encode(label: &str, bytes: &[u8]) -> String {
    let body = STANDARD.encode(bytes);
    let lines: String = body
        .as_bytes()
        .chunks(64)
        .map(|line| format!("{}\n", String::from_utf8_lossy(line)))
        .collect();
    format!("-----BEGIN {label}-----\n{lines}-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_whole_or_not() {
        let text = encode("X", &[7; 100]);
        assert_eq!(decode(&text).expect("own block"), ("X", vec![7; 100]));
        for bad in [
            "",
            "-----BEGIN X-----",
            "-----BEGIN X-----\nAAAA\n-----END Y-----",
            "-----BEGIN X-----\n!\n-----END X-----",
            &format!("{text}{text}"),
            &format!("{text}x"),
            &"-".repeat(PEM_CHARS_MAX + 1),
        ] {
            assert!(decode(bad).is_err(), "{bad}");
        }
    }
}
