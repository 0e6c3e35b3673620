//! Private keys: reading them and signing with them.
//!
//! Owns [`PrivateKey`], which has no `Debug` that would show it. Used where a person signs, never on the way of verifying. Signing draws
//! random numbers, the one thing in this crate that asks the system for something.

use std::fmt;

use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaEncoding, RsaKeyPair,
};

use crate::pem::{self, PemError};
use crate::public::{Algorithm, Padding, PublicKey, PublicKeyError};
use crate::secretbox::{self, SecretboxError};

/// A private key.
pub struct PrivateKey {
    pair: Pair,
    public: PublicKey,
}

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(Box<RsaKeyPair>, Padding),
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.public.fingerprint())
    }
}

/// Why a text is no private key that signs here.
#[derive(Debug, thiserror::Error)]
pub enum PrivateKeyError {
    /// Not PEM.
    #[error("not a PEM file")]
    Pem(#[source] PemError),
    /// PEM of something else.
    #[error(
        "a PEM block `{label}` where `PRIVATE KEY` or cosign's `ENCRYPTED SIGSTORE PRIVATE KEY` is expected; \
         `openssl pkcs8 -topk8 -nocrypt` converts other forms"
    )]
    Label {
        /// What it says it is.
        label: String,
    },
    /// Encrypted, and no password was given.
    #[error("the key is encrypted, and no password was given")]
    PasswordMissing,
    /// Cosign's form could not be opened.
    #[error("decrypting the key")]
    Secretbox(#[source] SecretboxError),
    /// No PKCS#8, or of an algorithm that does not sign here.
    #[error("not a PKCS#8 key for ECDSA P-256, Ed25519 or RSA ({reason})")]
    Pkcs8 {
        /// What the last reader said.
        reason: String,
    },
    /// Its public half would not be accepted.
    #[error("nobody would accept its signatures")]
    Public(#[source] PublicKeyError),
}

/// The system gave no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("signing: the system gives no random numbers")]
pub struct SignError;

impl PrivateKey {
    /// Reads PKCS#8 in PEM, plain or as cosign encrypts it. `padding` is what an RSA key is to sign with.
    pub fn from_pem(text: &str, password: Option<&str>, padding: Padding) -> Result<Self, PrivateKeyError> {
        let (label, bytes) = pem::decode(text).map_err(PrivateKeyError::Pem)?;
        let pkcs8 = match label {
            "PRIVATE KEY" => bytes,
            "ENCRYPTED SIGSTORE PRIVATE KEY" | "ENCRYPTED COSIGN PRIVATE KEY" => {
                let password = password.ok_or(PrivateKeyError::PasswordMissing)?;
                secretbox::open(&bytes, password).map_err(PrivateKeyError::Secretbox)?
            }
            other => {
                return Err(PrivateKeyError::Label {
                    label: other.chars().filter(|c| !c.is_control()).take(40).collect(),
                });
            }
        };
        Self::from_pkcs8(&pkcs8, padding)
    }

    /// Reads PKCS#8.
    pub fn from_pkcs8(pkcs8: &[u8], padding: Padding) -> Result<Self, PrivateKeyError> {
        let rejected = |error: ring::error::KeyRejected| PrivateKeyError::Pkcs8 {
            reason: error.to_string(),
        };
        let random = SystemRandom::new();
        let ecdsa = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8, &random);
        let (pair, algorithm) = if let Ok(pair) = ecdsa {
            (Pair::Ecdsa(pair), Algorithm::EcdsaP256)
        } else if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8) {
            (Pair::Ed25519(pair), Algorithm::Ed25519)
        } else {
            let pair = RsaKeyPair::from_pkcs8(pkcs8).map_err(rejected)?;
            (Pair::Rsa(Box::new(pair), padding), Algorithm::Rsa(padding))
        };
        let raw = match &pair {
            Pair::Ecdsa(pair) => pair.public_key().as_ref(),
            Pair::Ed25519(pair) => pair.public_key().as_ref(),
            Pair::Rsa(pair, _) => pair.public_key().as_ref(),
        };
        let public = PublicKey::from_raw(algorithm, raw).map_err(PrivateKeyError::Public)?;
        Ok(Self { pair, public })
    }

    /// Makes a new ECDSA P-256 key and returns its PKCS#8 PEM, unencrypted.
    pub fn generate() -> Result<String, SignError> {
        let random = SystemRandom::new();
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).map_err(|_| SignError)?;
        Ok(pem::encode("PRIVATE KEY", pkcs8.as_ref()))
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ecdsa(pair) => pair
                .sign(&random, message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| SignError),
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::Rsa(pair, padding) => {
                let encoding: &dyn RsaEncoding = match padding {
                    Padding::Pss => &RSA_PSS_SHA256,
                    Padding::Pkcs1v15 => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(encoding, &random, message, &mut signature)
                    .map_err(|_| SignError)?;
                Ok(signature)
            }
        }
    }
}
