//! Who may sign what: images, releases and policies today, orders by the same means.
//!
//! Pure: bytes in, verdict out. No network, no disk, no clock; the time is an argument. (Making a signature draws random numbers.) So all of it
//! can be fuzzed on a laptop, and the parsers of what strangers sign stand in one place, small enough to be read.
//!
//! | to | call |
//! |---|---|
//! | read trust.yaml | [`Trust::parse`]; a device without one has [`Trust::nothing`] |
//! | ask whether signatures need to be looked for at all | [`Trust::mode`] |
//! | decide about an image with the signatures that were found | [`decide`] → [`Verdict`], whose [`Evidence`] is stored beside the image |
//! | decide again at each start, offline | [`recheck`] of the stored [`Evidence`] |
//! | find the policy that an image brings | [`brought_policy`] of its [`Evidence`] |
//! | take a revocation list | [`Revocations::verify`] |
//! | remember a version that proved itself | [`Floors::commit`] |
//! | read what an operating system's image says of itself | [`read_os_manifest`], [`read_os_config`] |
//! | change trust.yaml as its owner would | [`edit`] |
//! | sign | [`PrivateKey`], [`sign`] |
//! | bind the entries of an audit log, and verify one | [`audit`] |
//!
//! Invariants: what is not positively shown is refused; an algorithm is a property of the owner's key, never of what is verified; keys are told
//! apart by their SubjectPublicKeyInfo, never by their names.
#![forbid(unsafe_code)]

pub mod audit;
mod config;
mod der;
mod diagnostics;
mod digest;
mod dsse;
pub mod edit;
mod json;
mod name;
mod os;
mod pem;
mod policy;
mod private;
mod public;
mod release;
mod revocation;
mod secretbox;
pub mod sign;
mod signature;
mod verify;
mod yaml;

#[cfg(test)]
mod tests;

pub use config::{COSIGN_PREDICATE, Mode, NamedKey, Quorum, Rule, Trust};
pub use der::DerError;
pub use diagnostics::{Diagnostic, Diagnostics};
pub use digest::{Digest, DigestError, Hasher};
pub use dsse::EnvelopeError;
pub use json::JsonError;
pub use name::{NameError, Repository, Scope};
pub use os::{
    OS_ARTIFACT, OS_CONFIG, OS_DOCUMENT_BYTES_MAX, OS_IMAGE, OS_INDEX, OsConfig, OsError, OsManifest, OsPart,
    agree, os_config, os_manifest, read_os_config, read_os_manifest,
};
pub use pem::{PEM_CHARS_MAX, PemError};
pub use policy::{
    BroughtPolicy, POLICY_BYTES_MAX, POLICY_PREDICATE, TooFewSigned, brought_policy, sign_policy,
};
pub use private::{PrivateKey, PrivateKeyError, SignError};
pub use public::{Algorithm, Padding, PublicKey, PublicKeyError, RSA_BITS_MAX, RSA_BITS_MIN};
pub use release::{
    Floor, FloorError, Floors, RELEASE_NAME_BYTES_MAX, RELEASE_PREDICATE, Release, Version, VersionError,
};
pub use revocation::{
    KeyFault, REVOCATION_BYTES_MAX, REVOCATION_TYPE, RevocationError, Revocations, sign_revocations,
};
pub use secretbox::SecretboxError;
pub use signature::{BUNDLE, FormatError, Layer, PAYLOAD_BYTES_MAX, SIGNATURE_ANNOTATION, SIMPLE_SIGNING};
pub use verify::{
    Complaint, Downgrade, Evidence, Finding, Grounds, Refusal, SIGNATURES_MAX, Subject, Verdict, decide,
    recheck,
};
pub use yaml::DOCUMENT_BYTES_MAX;
