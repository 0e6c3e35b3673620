//! Public keys: reading, comparing, verifying with them.
//!
//! Owns [`PublicKey`]. Invariants: the algorithm comes from the key and from the owner's word about its padding, never from what is verified;
//! every key has exactly one accepted encoding, so equal fingerprints are equal keys.

use std::fmt;

use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use serde::{Deserialize, Serialize};

use crate::der::{self, DerError, Reader};
use crate::digest::Digest;
use crate::pem::{self, PemError};

/// The fewest bits of an RSA modulus: 128 bits of security, which P-256 and Ed25519 have.
pub const RSA_BITS_MIN: usize = 3072;
/// The most bits of an RSA modulus: what ring verifies.
pub const RSA_BITS_MAX: usize = 8192;

const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const PRIME256V1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

/// How an RSA signature is padded. A key has one: accepting either would let the weaker one speak for the stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Padding {
    /// RSASSA-PSS: the better proof, but neither cosign 2.5 nor skopeo 1.18 makes or takes it.
    Pss,
    /// RSASSA-PKCS1-v1_5: what cosign 2.5 makes of RSA keys, and it and skopeo 1.18 take.
    Pkcs1v15,
}

impl Padding {
    /// Its word in trust.yaml.
    pub fn word(self) -> &'static str {
        match self {
            Padding::Pss => "pss",
            Padding::Pkcs1v15 => "pkcs1v15",
        }
    }
}

/// What a key signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA over P-256 with SHA-256.
    EcdsaP256,
    /// Ed25519.
    Ed25519,
    /// RSA with SHA-256.
    Rsa(Padding),
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Algorithm::EcdsaP256 => "ECDSA P-256",
            Algorithm::Ed25519 => "Ed25519",
            Algorithm::Rsa(Padding::Pss) => "RSA-PSS",
            Algorithm::Rsa(Padding::Pkcs1v15) => "RSA PKCS#1 v1.5",
        })
    }
}

/// A public key.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    algorithm: Algorithm,
    /// As ring takes it: a point, 32 bytes or an RSAPublicKey.
    raw: Vec<u8>,
    spki: Vec<u8>,
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}, {})", self.algorithm, self.fingerprint())
    }
}

/// Why a text is no public key that is used here.
#[derive(Debug, thiserror::Error)]
pub enum PublicKeyError {
    /// Not PEM.
    #[error("not a PEM file")]
    Pem(#[source] PemError),
    /// PEM of something else.
    #[error("a PEM block `{label}` where `PUBLIC KEY` is expected")]
    Label {
        /// What it says it is.
        label: String,
    },
    /// Not an SPKI.
    #[error("not a SubjectPublicKeyInfo")]
    Der(#[source] DerError),
    /// A curve or algorithm that is not verified here.
    #[error("neither ECDSA P-256 nor Ed25519 nor RSA")]
    Algorithm,
    /// A compressed point, or bytes of another length.
    #[error("not an uncompressed point")]
    Point,
    /// A modulus that is too short or too long.
    #[error("an RSA key of {bits} bits, where {RSA_BITS_MIN} to {RSA_BITS_MAX} are accepted")]
    RsaBits {
        /// Its length.
        bits: usize,
    },
}

impl PublicKey {
    /// Reads `-----BEGIN PUBLIC KEY-----`. `padding` is what an RSA key signs with; other keys have none.
    pub fn from_pem(text: &str, padding: Padding) -> Result<Self, PublicKeyError> {
        let (label, bytes) = pem::decode(text).map_err(PublicKeyError::Pem)?;
        if label != "PUBLIC KEY" {
            return Err(PublicKeyError::Label {
                label: label.chars().filter(|c| !c.is_control()).take(40).collect(),
            });
        }
        Self::from_spki(&bytes, padding)
    }

    /// Reads a SubjectPublicKeyInfo (RFC 5280, 4.1.2.7; RFC 3279, RFC 8410).
    pub fn from_spki(spki: &[u8], padding: Padding) -> Result<Self, PublicKeyError> {
        let der = PublicKeyError::Der;
        let mut outer = Reader::new(spki);
        let mut info = Reader::new(outer.take(der::SEQUENCE).map_err(der)?);
        outer.end().map_err(der)?;
        let mut algorithm = Reader::new(info.take(der::SEQUENCE).map_err(der)?);
        let bits = info.take(der::BIT_STRING).map_err(der)?;
        info.end().map_err(der)?;
        let raw = bits.strip_prefix(&[0]).ok_or(der(DerError))?;
        let algorithm = match algorithm.take(der::OBJECT_IDENTIFIER).map_err(der)? {
            EC_PUBLIC_KEY => {
                let curve = algorithm.take(der::OBJECT_IDENTIFIER).map_err(der)?;
                if curve != PRIME256V1 {
                    return Err(PublicKeyError::Algorithm);
                }
                algorithm.end().map_err(der)?;
                if raw.len() != 65 || raw[0] != 4 {
                    return Err(PublicKeyError::Point);
                }
                Algorithm::EcdsaP256
            }
            ED25519 => {
                algorithm.end().map_err(der)?;
                if raw.len() != 32 {
                    return Err(PublicKeyError::Point);
                }
                Algorithm::Ed25519
            }
            RSA_ENCRYPTION => {
                let null = algorithm.take(der::NULL).map_err(der)?;
                if !null.is_empty() || !algorithm.is_empty() {
                    return Err(der(DerError));
                }
                check_rsa(raw)?;
                Algorithm::Rsa(padding)
            }
            _ => return Err(PublicKeyError::Algorithm),
        };
        Ok(Self {
            algorithm,
            raw: raw.to_vec(),
            spki: spki.to_vec(),
        })
    }

    /// Wraps what a key pair of ring calls its public key.
    pub(crate) fn from_raw(algorithm: Algorithm, raw: &[u8]) -> Result<Self, PublicKeyError> {
        let oid = |bytes: &[u8]| der::element(der::OBJECT_IDENTIFIER, bytes);
        let (identifier, padding) = match algorithm {
            Algorithm::EcdsaP256 => ([oid(EC_PUBLIC_KEY), oid(PRIME256V1)].concat(), Padding::Pss),
            Algorithm::Ed25519 => (oid(ED25519), Padding::Pss),
            Algorithm::Rsa(padding) => (
                [oid(RSA_ENCRYPTION), der::element(der::NULL, &[])].concat(),
                padding,
            ),
        };
        let bits = der::element(der::BIT_STRING, &[&[0], raw].concat());
        let info = [der::element(der::SEQUENCE, &identifier), bits].concat();
        Self::from_spki(&der::element(der::SEQUENCE, &info), padding)
    }

    /// What it signs with.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// SHA-256 of its SubjectPublicKeyInfo: what tells keys apart, whatever they are called.
    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.spki)
    }

    /// The fingerprint as a sigstore bundle hints at it: base64 of the hash.
    pub(crate) fn hint(&self) -> String {
        use base64::Engine as _;
        let hash = ring::digest::digest(&ring::digest::SHA256, &self.spki);
        base64::engine::general_purpose::STANDARD.encode(hash)
    }

    /// The key as PEM.
    pub fn to_pem(&self) -> String {
        pem::encode("PUBLIC KEY", &self.spki)
    }

    /// Whether a signature over a message was made with this key.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.verify_as(self.algorithm, message, signature)
    }

    /// Whether it was made with this RSA key, but padded in the way that the owner did not name.
    pub(crate) fn verifies_with_other_padding(&self, message: &[u8], signature: &[u8]) -> Option<Padding> {
        let other = match self.algorithm {
            Algorithm::Rsa(Padding::Pss) => Padding::Pkcs1v15,
            Algorithm::Rsa(Padding::Pkcs1v15) => Padding::Pss,
            Algorithm::EcdsaP256 | Algorithm::Ed25519 => return None,
        };
        self.verify_as(Algorithm::Rsa(other), message, signature)
            .then_some(other)
    }

    fn verify_as(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &dyn VerificationAlgorithm = match algorithm {
            Algorithm::EcdsaP256 => &signature::ECDSA_P256_SHA256_ASN1,
            Algorithm::Ed25519 => &signature::ED25519,
            Algorithm::Rsa(Padding::Pss) => &signature::RSA_PSS_2048_8192_SHA256,
            Algorithm::Rsa(Padding::Pkcs1v15) => &signature::RSA_PKCS1_2048_8192_SHA256,
        };
        UnparsedPublicKey::new(algorithm, &self.raw)
            .verify(message, signature)
            .is_ok()
    }
}

/// RSAPublicKey ::= SEQUENCE { modulus INTEGER, publicExponent INTEGER }
fn check_rsa(raw: &[u8]) -> Result<(), PublicKeyError> {
    let der = PublicKeyError::Der;
    let mut outer = Reader::new(raw);
    let mut key = Reader::new(outer.take(der::SEQUENCE).map_err(der)?);
    outer.end().map_err(der)?;
    let modulus = key.positive().map_err(der)?;
    key.positive().map_err(der)?;
    key.end().map_err(der)?;
    let leading = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    let bits = modulus.len() * 8 - leading;
    if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
        return Err(PublicKeyError::RsaBits { bits });
    }
    Ok(())
}
