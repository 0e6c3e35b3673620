//! Attaching something small to an image in its registry: a signature, a policy.
//!
//! Owns the order (payloads, manifest, and where the registry keeps no record of what refers to what, the index under the fallback tag) as the
//! distribution specification has it. Refuses to know what it attaches. Reading back is in `signatures`.

use serde_json::{Value, json};
use ureq::http::{Method, header};

use super::document::{OCI_INDEX, OCI_MANIFEST};
use super::error::RegistryError;
use super::push::{begin, has, place};
use super::repository::{Repository, fallback_tag};
use super::session::{Ask, Payload};
use crate::digest::Digest;
use crate::limits::Limits;

/// The most bytes of a manifest or payload that is attached.
pub const ATTACHMENT_BYTES_MAX: usize = 1 << 20;
/// The most documents in the index of what refers to one digest; what is read of it is less.
const REFERRERS_MAX: usize = 1000;

/// What is attached.
#[derive(Clone, Copy, Debug)]
pub struct Attachment<'a> {
    /// The payloads that the manifest names.
    pub blobs: &'a [Vec<u8>],
    /// The manifest.
    pub manifest: &'a [u8],
    /// The tag under which the manifest is kept; by its digest, and found by its subject, without one.
    pub tag: Option<&'a str>,
}

impl Repository<'_> {
    /// Sends it; gives the digest of its manifest.
    ///
    /// # Errors
    /// The registry does not take it, or the manifest is not JSON.
    pub fn attach(&self, attachment: &Attachment<'_>, limits: &Limits) -> Result<Digest, RegistryError> {
        let digest = Digest::of(attachment.manifest);
        let malformed = |reason: String| RegistryError::Document {
            registry: self.own().name().to_owned(),
            what: format!("manifest {digest}"),
            reason,
        };
        let document: Value =
            serde_json::from_slice(attachment.manifest).map_err(|error| malformed(error.to_string()))?;
        for blob in attachment.blobs {
            self.put_small(blob)?;
        }
        let kind = document["mediaType"].as_str().unwrap_or(OCI_MANIFEST);
        let name = attachment.tag.map_or_else(|| digest.to_string(), str::to_owned);
        let knows_subject = self.put_document(&name, attachment.manifest, kind)?;
        let subject = document["subject"]["digest"].as_str();
        if let (Some(subject), false) = (subject, knows_subject) {
            let subject = Digest::parse(subject).map_err(|error| malformed(error.to_string()))?;
            self.list_referrer(&subject, &document, attachment.manifest, limits)?;
        }
        Ok(digest)
    }

    /// Sends a small blob in one piece.
    fn put_small(&self, bytes: &[u8]) -> Result<(), RegistryError> {
        let session = self.own();
        let digest = Digest::of(bytes);
        if has(self, &digest)? {
            return Ok(());
        }
        let Some(to) = begin(self, "")? else {
            return Err(session.protocol("it says that an upload is done which was not begun"));
        };
        let separator = if to.contains('?') { '&' } else { '?' };
        let url = format!(
            "{to}{separator}digest={}",
            super::auth::encode(&digest.to_string())
        );
        let what = format!("blob {digest}");
        let answer = session.send(&Ask {
            method: Method::PUT,
            is_repeatable: false,
            payload: Payload::Bytes(bytes, "application/octet-stream"),
            ..Ask::get(&url, &what, "sending a document")
        })?;
        // Where it lies does not matter; that it says so shows that it took it.
        place(session, answer.headers()).map(drop)
    }

    /// Sends a manifest or index; tells whether the registry took note of what it refers to.
    fn put_document(&self, name: &str, bytes: &[u8], kind: &str) -> Result<bool, RegistryError> {
        let path = self.path(&format!("manifests/{name}"));
        let what = format!("manifest {}:{name}", self.reference.familiar_repository());
        let answer = self.own().send(&Ask {
            method: Method::PUT,
            payload: Payload::Bytes(bytes, kind),
            ..Ask::get(&path, &what, "sending a manifest")
        })?;
        Ok(answer
            .headers()
            .contains_key(header::HeaderName::from_static("oci-subject")))
    }

    /// Adds a document to the index under the fallback tag.
    fn list_referrer(
        &self,
        subject: &Digest,
        document: &Value,
        manifest: &[u8],
        limits: &Limits,
    ) -> Result<(), RegistryError> {
        let tag = fallback_tag(subject);
        let mut index = match self.manifest(&tag, limits) {
            Ok(served) => serde_json::from_slice(&served.bytes).unwrap_or(Value::Null),
            Err(RegistryError::NotFound { .. }) => Value::Null,
            Err(error) => return Err(error),
        };
        if !index["manifests"].is_array() {
            index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []});
        }
        let digest = Digest::of(manifest);
        let kind = [&document["artifactType"], &document["config"]["mediaType"]];
        let kind = kind.into_iter().find_map(Value::as_str).unwrap_or_default();
        let mut entry = json!({
            "mediaType": document["mediaType"].as_str().unwrap_or(OCI_MANIFEST),
            "digest": digest,
            "size": manifest.len(),
            "artifactType": kind,
        });
        if document["annotations"].is_object() {
            entry["annotations"] = document["annotations"].clone();
        }
        let listed = index["manifests"].as_array_mut().expect("it is one, as was seen");
        if listed.iter().any(|known| known["digest"] == entry["digest"]) {
            return Ok(());
        }
        if listed.len() >= REFERRERS_MAX {
            return Err(RegistryError::Document {
                registry: self.own().name().to_owned(),
                what: format!("index {tag}"),
                reason: format!("{REFERRERS_MAX} documents refer to the image already"),
            });
        }
        listed.push(entry);
        self.put_document(&tag, index.to_string().as_bytes(), OCI_INDEX)?;
        Ok(())
    }
}
