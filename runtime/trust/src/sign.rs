//! Making signatures that cosign and skopeo accept, and our own verifier too.
//!
//! Gives bytes and the manifests that carry them; pushing them is a registry client's work. The classic form lies under the tag
//! `sha256-<hex>.sig` beside the image, a bundle refers to its subject.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::config::COSIGN_PREDICATE;
use crate::digest::Digest;
use crate::dsse;
use crate::json::{self, JsonError};
use crate::name::Repository;
use crate::private::{PrivateKey, SignError};
use crate::release::{RELEASE_PREDICATE, Release};
use crate::signature::{BUNDLE, IN_TOTO, Layer, SIGNATURE_ANNOTATION, SIMPLE_SIGNING};

/// The media type of the manifests made here.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The most bytes of a signature manifest that is added to.
const MANIFEST_BYTES_MAX: usize = 1024 * 1024;

/// A blob to push before the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Blob {
    fn of(bytes: Vec<u8>) -> Self {
        Self {
            digest: Digest::of(&bytes),
            bytes,
        }
    }
}

/// A manifest and what it points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// The blobs, in no order.
    pub blobs: Vec<Blob>,
    /// The manifest, of type [`MANIFEST`].
    pub manifest: Vec<u8>,
}

/// What a bundle refers to.
#[derive(Clone, Debug)]
pub struct Target {
    /// The media type of the signed manifest.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub bytes: u64,
}

/// The tag of an image's classic signatures.
pub fn signature_tag(image: &Digest) -> String {
    format!("sha256-{}.sig", image.hex())
}

/// Signs in the classic form.
pub fn sign_classic(
    key: &PrivateKey,
    repository: &Repository,
    image: &Digest,
    annotations: &BTreeMap<String, String>,
) -> Result<Layer, SignError> {
    let optional = if annotations.is_empty() {
        Value::Null
    } else {
        json!(annotations)
    };
    let payload = json!({
        "critical": {
            "identity": {"docker-reference": repository},
            "image": {"docker-manifest-digest": image},
            "type": "cosign container image signature",
        },
        "optional": optional,
    })
    .to_string()
    .into_bytes();
    let signature = STANDARD.encode(key.sign(&payload)?);
    Ok(Layer {
        media_type: SIMPLE_SIGNING.to_owned(),
        payload,
        annotations: BTreeMap::from([(SIGNATURE_ANNOTATION.to_owned(), signature)]),
    })
}

/// Makes the manifest for the tag of [`signature_tag`]: what stands there already stays, the new signatures are added.
///
/// # Errors
/// What stands there is not a manifest with layers.
pub fn classic_artifact(existing: Option<&[u8]>, added: &[Layer]) -> Result<Artifact, JsonError> {
    let mut layers = match existing {
        Some(manifest) => json::list(&json::read(manifest, MANIFEST_BYTES_MAX)?, "layers")?.clone(),
        None => Vec::new(),
    };
    let mut blobs = Vec::new();
    for layer in added {
        let blob = Blob::of(layer.payload.clone());
        layers.push(json!({
            "mediaType": layer.media_type,
            "size": blob.bytes.len(),
            "digest": blob.digest,
            "annotations": layer.annotations,
        }));
        blobs.push(blob);
    }
    // Signatures have the shape of an image so that old registries take them; cosign fills in the same nothing.
    let digests: Vec<_> = layers.iter().map(|layer| layer["digest"].clone()).collect();
    let config = json!({
        "architecture": "",
        "created": "0001-01-01T00:00:00Z",
        "history": vec![json!({"created": "0001-01-01T00:00:00Z"}); layers.len()],
        "os": "",
        "rootfs": {"type": "layers", "diff_ids": digests},
        "config": {},
    });
    let config = Blob::of(config.to_string().into_bytes());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "size": config.bytes.len(),
            "digest": config.digest,
        },
        "layers": layers,
    });
    blobs.push(config);
    Ok(Artifact {
        blobs,
        manifest: manifest.to_string().into_bytes(),
    })
}

/// Signs as a bundle, in cosign's own kind of statement.
pub fn sign_bundle(
    key: &PrivateKey,
    image: &Digest,
    annotations: &BTreeMap<String, String>,
) -> Result<Layer, SignError> {
    let mut subject = json!({"digest": {"sha256": image.hex()}});
    if !annotations.is_empty() {
        subject["annotations"] = json!(annotations);
    }
    seal_statement(key, &subject, COSIGN_PREDICATE, &json!({}))
}

/// Signs a release document, as a bundle.
pub fn sign_release(key: &PrivateKey, release: &Release) -> Result<Layer, SignError> {
    let subject = json!({"digest": {"sha256": release.digest.hex()}});
    let predicate = json!({"name": release.name, "version": release.version});
    seal_statement(key, &subject, RELEASE_PREDICATE, &predicate)
}

pub(crate) fn seal_statement(
    key: &PrivateKey,
    subject: &Value,
    predicate_type: &str,
    predicate: &Value,
) -> Result<Layer, SignError> {
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [subject],
        "predicateType": predicate_type,
        "predicate": predicate,
    });
    let bundle = json!({
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": key.public().hint()}},
        "dsseEnvelope": dsse::seal(IN_TOTO, statement.to_string().as_bytes(), &[key])?,
    });
    Ok(Layer {
        media_type: BUNDLE.to_owned(),
        payload: bundle.to_string().into_bytes(),
        annotations: BTreeMap::new(),
    })
}

/// Makes the manifest by which a bundle refers to its image.
pub fn bundle_artifact(bundle: &Layer, target: &Target) -> Artifact {
    let blob = Blob::of(bundle.payload.clone());
    let empty = Blob::of(b"{}".to_vec());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": BUNDLE,
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "size": empty.bytes.len(),
            "digest": empty.digest,
        },
        "layers": [{"mediaType": BUNDLE, "size": blob.bytes.len(), "digest": blob.digest}],
        "subject": {"mediaType": target.media_type, "size": target.bytes, "digest": target.digest},
        "annotations": {"dev.sigstore.bundle.content": "dsse-envelope"},
    });
    Artifact {
        blobs: vec![blob, empty],
        manifest: manifest.to_string().into_bytes(),
    }
}
