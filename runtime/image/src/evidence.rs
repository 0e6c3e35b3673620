//! What is kept of why an image was let in, and what it is kept about.
//!
//! Owns giving it back. Refuses to know what it says: those are the words of whoever admits images. Invariant: evidence is given only with the
//! documents that it is about, each of which has its digest still, and of which a manifest leads to the image.

use std::collections::BTreeSet;

use crate::digest::Digest;
use crate::index::Record;
use crate::reference::Reference;
use crate::registry::is_manifest_of;
use crate::store::{ImageStore, StoreError};

/// The most bytes of evidence that are read back: the signatures of one image with their payloads, and findings about each.
const EVIDENCE_BYTES_MAX: u64 = 8 << 20;

/// What the store knows about an image's way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The documents that lead to the image: manifest, and index where there was one.
    pub documents: Vec<Digest>,
    /// What was written down when it was let in under the repository's name.
    pub evidence: Option<Vec<u8>>,
}

impl ImageStore {
    /// What was written down about an image when it was let in under a repository's name, `docker.io/library/busybox`.
    ///
    /// # Errors
    /// The image is not there, or its documents, or the evidence, are not what they were.
    pub fn evidence(&self, id: &Digest, repository: &str) -> Result<Origin, StoreError> {
        let record = self.record(id)?;
        let mut documents: BTreeSet<Digest> = record.documents.clone();
        documents.insert(record.manifest.clone());
        let Some(digest) = record.evidence.get(repository) else {
            let documents = documents.into_iter().collect();
            return Ok(Origin {
                documents,
                evidence: None,
            });
        };
        let evidence = self.whole(id, digest, EVIDENCE_BYTES_MAX)?;
        let mut leads_here = false;
        for document in &documents {
            let bytes = self.whole(id, document, self.limits.manifest_bytes_max)?;
            leads_here |= is_manifest_of(&bytes, id, &self.limits);
        }
        if !leads_here {
            return Err(StoreError::DocumentDamaged {
                id: id.clone(),
                digest: record.manifest,
            });
        }
        Ok(Origin {
            documents: documents.into_iter().collect(),
            evidence: Some(evidence),
        })
    }

    /// The repositories under which an image is known here, complete (`docker.io/library/busybox`), those with evidence first.
    pub fn repositories(&self, id: &Digest) -> Vec<String> {
        let state = self.state();
        let names = state.index.names_of(id);
        let complete = |name: &Reference| format!("{}/{}", name.registry(), name.repository());
        let unique: BTreeSet<String> = names.iter().map(complete).collect();
        let evidence = state.index.images.get(id).map(|record| &record.evidence);
        let (mut first, rest): (Vec<_>, Vec<_>) = unique
            .into_iter()
            .partition(|name| evidence.is_some_and(|known| known.contains_key(name)));
        first.extend(rest);
        first
    }

    fn record(&self, id: &Digest) -> Result<Record, StoreError> {
        let state = self.state();
        let found = state.index.images.get(id).cloned();
        found
            .ok_or_else(|| StoreError::Resolve(crate::index::ResolveError::NotFound { name: id.to_string() }))
    }

    /// Reads a document that must still have its digest.
    fn whole(&self, id: &Digest, digest: &Digest, bytes_max: u64) -> Result<Vec<u8>, StoreError> {
        let bytes = self.read_blob(digest, bytes_max)?;
        if Digest::of(&bytes) != *digest {
            return Err(StoreError::DocumentDamaged {
                id: id.clone(),
                digest: digest.clone(),
            });
        }
        Ok(bytes)
    }
}
