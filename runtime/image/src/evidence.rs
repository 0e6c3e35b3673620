//! What is kept of why an image was let in, and what it is kept about.
//!
//! Owns giving it back, and keeping what archives carry. Refuses to know what it says: those are the words of whoever admits images. Invariant: evidence is given only with the
//! documents that it is about, each of which has its digest still, and of which a manifest leads to the image.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::index::Record;
use crate::load::{Additions, now, write_member};
use crate::reference::Reference;
use crate::registry::{Attached, is_manifest_of};
use crate::store::{ImageStore, Staging, StoreError};
use crate::tree::FileError;

/// Where evidence stands that came in an archive: no repository has this name, so it is nobody's own.
const CARRIED: &str = "";

/// The most bytes of evidence that are read back: the signatures of one image with their payloads, and findings about each.
const EVIDENCE_BYTES_MAX: u64 = 8 << 20;

/// What the store knows about an image's way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The documents that lead to the image: manifest, and index where there was one.
    pub documents: Vec<Digest>,
    /// What was written down when it was let in under the repository's name.
    pub evidence: Option<Vec<u8>>,
    /// What came with it in an archive.
    pub carried: Option<Carried>,
}

/// What an archive carried beside its images, signatures among them, whichever image each is of. Nothing about it is verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Carried {
    /// When the archive was loaded, RFC 3339.
    pub loaded: String,
    /// What it carried.
    pub attached: Vec<Attached>,
}

/// Keeps what an archive carried beside each of its images.
pub(crate) fn keep_carried(
    staging: &Staging<'_>,
    attached: Vec<Attached>,
    additions: &mut Additions,
) -> Result<(), FileError> {
    if attached.is_empty() {
        return Ok(());
    }
    let carried = Carried {
        loaded: now(),
        attached,
    };
    let bytes = serde_json::to_vec(&carried).expect("texts serialise");
    let digest = Digest::of(&bytes);
    additions.take_blob(&write_member(staging, "carried", digest.clone(), &bytes)?);
    for (_, record, _) in &mut additions.records {
        record.evidence.insert(CARRIED.to_owned(), digest.clone());
    }
    Ok(())
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
        let own = record.evidence.get(repository).filter(|_| repository != CARRIED);
        let carried = record.evidence.get(CARRIED).filter(|_| own.is_none());
        let origin = Origin {
            evidence: own
                .map(|own| self.whole(id, own, EVIDENCE_BYTES_MAX))
                .transpose()?,
            carried: carried.map(|digest| self.carried(id, digest)).transpose()?,
            documents: documents.into_iter().collect(),
        };
        if origin.evidence.is_none() && origin.carried.is_none() {
            return Ok(origin);
        }
        let mut leads_here = false;
        for document in &origin.documents {
            let bytes = self.whole(id, document, self.limits.manifest_bytes_max)?;
            leads_here |= is_manifest_of(&bytes, id, &self.limits);
        }
        if !leads_here {
            return Err(StoreError::DocumentDamaged {
                id: id.clone(),
                digest: record.manifest,
            });
        }
        Ok(origin)
    }

    fn carried(&self, id: &Digest, digest: &Digest) -> Result<Carried, StoreError> {
        let bytes = self.whole(id, digest, EVIDENCE_BYTES_MAX)?;
        serde_json::from_slice(&bytes).map_err(|_| StoreError::DocumentDamaged {
            id: id.clone(),
            digest: digest.clone(),
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
