//! Signatures as registries carry them, and what each claims.
//!
//! Two formats, told apart by the media type of their layer and by nothing else:
//!
//! | media type | payload | signature |
//! | --- | --- | --- |
//! | `application/vnd.dev.cosign.simplesigning.v1+json` | names digest and repository | in the layer's annotation, over the payload's bytes |
//! | `application/vnd.dev.sigstore.bundle.v0.3+json` | DSSE around an in-toto statement | in the envelope, over its pre-authentication encoding |
//!
//! Owns reading them and the [`Claim`]. Does not decide: who signed, and whether that is enough, is elsewhere. A claim is only read after a
//! signature over its bytes has been verified.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::Digest;
use crate::dsse::{self, Envelope, EnvelopeError};
use crate::json::{self, JsonError};
use crate::name::{NameError, Repository};
use crate::policy::{BroughtPolicy, POLICY_BYTES_MAX, POLICY_PREDICATE};
use crate::release::{RELEASE_NAME_BYTES_MAX, RELEASE_PREDICATE, Version, VersionError};

/// The media type of a payload in the classic form.
pub const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The media type of a bundle.
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// The annotation that carries the classic form's signature.
pub const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// The payload type of an in-toto statement.
pub(crate) const IN_TOTO: &str = "application/vnd.in-toto+json";

/// The most bytes of one signature's payload. Attestations can be larger (bills of materials); they sign nothing here.
pub const PAYLOAD_BYTES_MAX: usize = 256 * 1024;

/// The most subjects of a statement.
const SUBJECTS_MAX: usize = 256;

/// One layer of a signature's manifest, as found; nothing about it is verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// The layer's media type.
    pub media_type: String,
    /// The layer's bytes.
    #[serde(with = "base64_text")]
    pub payload: Vec<u8>,
    /// The layer's annotations.
    pub annotations: BTreeMap<String, String>,
}

mod base64_text {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        STANDARD
            .decode(String::deserialize(from)?)
            .map_err(D::Error::custom)
    }
}

/// Why a layer is no signature, or claims nothing that is understood.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Another media type.
    #[error("a layer of type `{media_type}` is no signature")]
    MediaType {
        /// Which.
        media_type: String,
    },
    /// Too large.
    #[error("a signature of {bytes} bytes, more than {PAYLOAD_BYTES_MAX}")]
    TooLarge {
        /// How many.
        bytes: usize,
    },
    /// No annotation with a signature, or one that is no base64.
    #[error("no signature in the annotation `{SIGNATURE_ANNOTATION}`")]
    Annotation,
    /// Not JSON.
    #[error("reading the signature")]
    Json(#[source] JsonError),
    /// Not an envelope.
    #[error("reading the bundle")]
    Envelope(#[source] EnvelopeError),
    /// A bundle of another version, without envelope, or not made with a key.
    #[error("the bundle is not a keyed one of version 0.3 with an in-toto statement")]
    Bundle,
    /// The wrong kind of statement or signing document.
    #[error("a payload of type `{found}` is no signature of an image")]
    Kind {
        /// What it says it is.
        found: String,
    },
    /// Not a digest, or of an algorithm that is not computed here.
    #[error("the payload names no sha256 digest")]
    Digest,
    /// The name of the repository is none.
    #[error("the payload's repository")]
    Repository(#[source] NameError),
    /// A release without a proper version.
    #[error("the release document's version")]
    Version(#[source] VersionError),
    /// A policy without a proper time or name, or too long.
    #[error("a policy with a malformed time or name, or of more than {POLICY_BYTES_MAX} bytes")]
    Policy,
    /// Unreasonably many subjects.
    #[error("a statement about {count} images")]
    Subjects {
        /// How many.
        count: usize,
    },
}

/// A signature with the bytes it is over; still nothing verified.
pub(crate) struct Signed {
    pub(crate) message: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    payload: Vec<u8>,
    bundle: bool,
}

/// What a payload says.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) images: Vec<ClaimedImage>,
    /// The predicate type; the classic form has none.
    pub(crate) predicate: Option<String>,
    /// A release document's name and version.
    pub(crate) release: Option<(String, Version)>,
    /// A policy for the images.
    pub(crate) policy: Option<BroughtPolicy>,
}

/// One image of a claim.
#[derive(Debug)]
pub(crate) struct ClaimedImage {
    pub(crate) digest: Digest,
    /// A bundle names none.
    pub(crate) repository: Option<Repository>,
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Signed {
    /// Finds the signature of a layer.
    pub(crate) fn find(layer: &Layer) -> Result<Self, FormatError> {
        let bytes = layer.payload.len();
        if bytes > PAYLOAD_BYTES_MAX {
            return Err(FormatError::TooLarge { bytes });
        }
        match layer.media_type.as_str() {
            SIMPLE_SIGNING => {
                let annotation = layer.annotations.get(SIGNATURE_ANNOTATION);
                let signature = annotation.and_then(|text| dsse::decode_signature(text));
                Ok(Self {
                    message: layer.payload.clone(),
                    signature: signature.ok_or(FormatError::Annotation)?,
                    payload: layer.payload.clone(),
                    bundle: false,
                })
            }
            BUNDLE => Self::find_in_bundle(&layer.payload),
            other => Err(FormatError::MediaType {
                media_type: shown(other),
            }),
        }
    }

    fn find_in_bundle(bytes: &[u8]) -> Result<Self, FormatError> {
        let bundle = json::read(bytes, PAYLOAD_BYTES_MAX).map_err(FormatError::Json)?;
        let media_type = json::text(&bundle, "mediaType").map_err(FormatError::Json)?;
        let keyed = bundle.pointer("/verificationMaterial/publicKey").is_some();
        let envelope = bundle.get("dsseEnvelope").ok_or(FormatError::Bundle)?;
        if media_type != BUNDLE || !keyed {
            return Err(FormatError::Bundle);
        }
        let envelope = Envelope::read(envelope).map_err(FormatError::Envelope)?;
        if envelope.payload_type != IN_TOTO {
            return Err(FormatError::Bundle);
        }
        let message = envelope.signed_bytes();
        // The bundle's specification allows one.
        let [signature] = <[Vec<u8>; 1]>::try_from(envelope.signatures).map_err(|_| FormatError::Bundle)?;
        Ok(Self {
            message,
            signature,
            payload: envelope.payload,
            bundle: true,
        })
    }

    /// Reads what was signed. Call it only after the signature was verified.
    pub(crate) fn claim(&self) -> Result<Claim, FormatError> {
        let payload = json::read(&self.payload, PAYLOAD_BYTES_MAX).map_err(FormatError::Json)?;
        if self.bundle {
            read_statement(&payload)
        } else {
            read_simple_signing(&payload)
        }
    }
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

/// The simple signing format of containers/image, as cosign writes it.
fn read_simple_signing(payload: &Value) -> Result<Claim, FormatError> {
    let kind = json::text(payload, "critical.type").map_err(FormatError::Json)?;
    if !matches!(
        kind,
        "cosign container image signature" | "atomic container signature"
    ) {
        return Err(FormatError::Kind { found: shown(kind) });
    }
    let digest = json::text(payload, "critical.image.docker-manifest-digest").map_err(FormatError::Json)?;
    let reference = json::text(payload, "critical.identity.docker-reference").map_err(FormatError::Json)?;
    let optional = payload.get("optional").and_then(Value::as_object);
    let image = ClaimedImage {
        digest: Digest::parse(digest).map_err(|_| FormatError::Digest)?,
        repository: Some(Repository::from_docker_reference(reference).map_err(FormatError::Repository)?),
        annotations: texts(optional),
    };
    Ok(Claim {
        images: vec![image],
        predicate: None,
        release: None,
        policy: None,
    })
}

/// An in-toto statement, v0.1 or v1.
fn read_statement(statement: &Value) -> Result<Claim, FormatError> {
    let kind = json::text(statement, "_type").map_err(FormatError::Json)?;
    if !matches!(
        kind,
        "https://in-toto.io/Statement/v0.1" | "https://in-toto.io/Statement/v1"
    ) {
        return Err(FormatError::Kind { found: shown(kind) });
    }
    let predicate = json::text(statement, "predicateType").map_err(FormatError::Json)?;
    let subjects = json::list(statement, "subject").map_err(FormatError::Json)?;
    if subjects.len() > SUBJECTS_MAX {
        return Err(FormatError::Subjects {
            count: subjects.len(),
        });
    }
    let images = subjects.iter().map(|subject| {
        let digest = json::text(subject, "digest.sha256").map_err(FormatError::Json)?;
        let name = subject.get("name").and_then(Value::as_str).unwrap_or_default();
        let repository = (!name.is_empty()).then(|| Repository::from_docker_reference(name));
        Ok(ClaimedImage {
            digest: Digest::parse(&format!("sha256:{digest}")).map_err(|_| FormatError::Digest)?,
            repository: repository.transpose().map_err(FormatError::Repository)?,
            annotations: texts(subject.get("annotations").and_then(Value::as_object)),
        })
    });
    let images = images.collect::<Result<_, _>>()?;
    let release = if predicate == RELEASE_PREDICATE {
        let name = json::text(statement, "predicate.name").map_err(FormatError::Json)?;
        let version = json::text(statement, "predicate.version").map_err(FormatError::Json)?;
        let version = Version::parse(version).map_err(FormatError::Version)?;
        if name.is_empty() || name.len() > RELEASE_NAME_BYTES_MAX {
            let field = "predicate.name";
            return Err(FormatError::Json(JsonError::Field { field }));
        }
        Some((name.to_owned(), version))
    } else {
        None
    };
    let policy = (predicate == POLICY_PREDICATE).then(|| read_policy(statement));
    Ok(Claim {
        images,
        predicate: Some(predicate.to_owned()),
        release,
        policy: policy.transpose()?,
    })
}

fn read_policy(statement: &Value) -> Result<BroughtPolicy, FormatError> {
    let text = |field| json::text(statement, field).map_err(FormatError::Json);
    let policy = BroughtPolicy {
        issued: text("predicate.issued")?
            .parse()
            .map_err(|_| FormatError::Policy)?,
        name: text("predicate.name")?.to_owned(),
        text: text("predicate.policy")?.to_owned(),
    };
    Some(policy)
        .filter(BroughtPolicy::is_proper)
        .ok_or(FormatError::Policy)
}

fn texts(object: Option<&serde_json::Map<String, Value>>) -> BTreeMap<String, String> {
    let pairs = object.into_iter().flatten();
    pairs
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}
