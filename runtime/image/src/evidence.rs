//! What is kept of why an image was let in, and what it is kept about.
//!
//! Owns giving it back, and keeping what archives carry. Refuses to know what it says: those are the words of whoever admits images. Invariant: evidence is given only with the
//! documents that it is about, each of which has its digest still and leads to the image: a manifest of it, or an index of such. What an archive
//! carried is added to what others did, and keeps the time at which it first came.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::index::Record;
use crate::limits::Limits;
use crate::load::{Additions, write_member};
use crate::reference::Reference;
use crate::registry::{Attached, Basket, Document};
use crate::store::{ImageStore, Staging, StoreError};
use crate::tree::FileError;

/// Where evidence stands that came in an archive: no repository has this name, so it is nobody's own.
pub(crate) const CARRIED: &str = "";

/// The most bytes of evidence that are read back: the signatures of one image with their payloads, and findings about each.
pub(crate) const EVIDENCE_BYTES_MAX: u64 = 8 << 20;

/// The most archives, each with something new, whose evidence is kept beside one image: each is a time to judge by.
const LOADS_MAX: usize = 16;

/// When this version was made; moved on with each release.
const MADE: &str = "2026-11-30T00:00:00Z";

/// The time by which the validity of keys is judged when something is taken in: the clock's, but never before this version was made. A gateway
/// without a battery starts in 1970, when no key had expired.
pub fn intake_time(clock: Timestamp) -> Timestamp {
    clock.max(MADE.parse().expect("a time"))
}

/// What the store knows about an image's way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The documents that lead to the image: manifest, and index where there was one.
    pub documents: Vec<Digest>,
    /// What was written down when it was let in under the repository's name.
    pub evidence: Option<Vec<u8>>,
    /// What came with it in archives, the earliest first, where nothing was written down.
    pub carried: Vec<Carried>,
}

/// What an [`Origin`] would be read from: while these stay, so does it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OriginDigests {
    documents: BTreeSet<Digest>,
    evidence: Option<Digest>,
}

impl OriginDigests {
    fn of(record: &Record, repository: &str) -> Self {
        let mut documents = record.documents.clone();
        documents.insert(record.manifest.clone());
        let own = record.evidence.get(repository);
        Self {
            documents,
            evidence: own.or_else(|| record.evidence.get(CARRIED)).cloned(),
        }
    }
}

/// What an archive carried beside its images, signatures among them, whichever image each is of. Nothing about it is verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Carried {
    /// When the archive was loaded, RFC 3339; see [`intake_time`].
    pub loaded: String,
    /// What it carried.
    pub attached: Vec<Attached>,
}

/// Adds what came now to what came before, as far as there is room: who fills it cannot push out what is there.
fn united(mut before: Vec<Carried>, attached: &[Attached]) -> Vec<Carried> {
    let mut basket = Basket::new(None);
    for known in before.iter().flat_map(|carried| &carried.attached) {
        basket.add(known.clone());
    }
    let known = basket.found.len();
    for new in attached {
        if !basket.found.contains(new) && !basket.is_full() {
            basket.add(new.clone());
        }
    }
    if before.len() >= LOADS_MAX {
        return before;
    }
    let attached = basket.found.split_off(known);
    if !attached.is_empty() {
        let loaded = intake_time(Timestamp::now()).to_string();
        before.push(Carried { loaded, attached });
    }
    before
}

/// The documents of which each leads to the image: its manifests, and the indexes that list one of those, or such an index.
fn leading(documents: &BTreeMap<Digest, Vec<u8>>, id: &Digest, limits: &Limits) -> BTreeSet<Digest> {
    let mut leads = BTreeSet::new();
    let mut indexes = Vec::new();
    for (digest, bytes) in documents {
        match Document::parse(bytes, "", limits) {
            Ok(Document::Manifest { config, .. }) if config.digest == *id => {
                leads.insert(digest.clone());
            }
            Ok(Document::Index(listed)) => indexes.push((digest, listed)),
            _ => {}
        }
    }
    for _ in 0..=limits.index_depth_max {
        for (digest, listed) in &indexes {
            if listed.iter().any(|listed| leads.contains(&listed.digest)) {
                leads.insert((*digest).clone());
            }
        }
    }
    leads
}

impl ImageStore {
    /// Keeps what an archive carried beside each of its images.
    pub(crate) fn keep_carried(
        &self,
        staging: &Staging<'_>,
        attached: Vec<Attached>,
        additions: &mut Additions,
    ) -> Result<(), FileError> {
        if attached.is_empty() {
            return Ok(());
        }
        let mut kept = Vec::new();
        for (number, (id, record, _)) in additions.records.iter_mut().enumerate() {
            let carried = united(self.carried_before(id), &attached);
            let bytes = serde_json::to_vec(&carried).expect("texts serialise");
            let digest = Digest::of(&bytes);
            kept.push(write_member(
                staging,
                &format!("carried-{number}"),
                digest.clone(),
                &bytes,
            )?);
            record.evidence.insert(CARRIED.to_owned(), digest);
        }
        for member in &kept {
            additions.take_blob(member);
        }
        Ok(())
    }

    /// What earlier archives carried; what is damaged counts for nothing, and is replaced.
    fn carried_before(&self, id: &Digest) -> Vec<Carried> {
        let known = self.record(id).ok();
        let digest = known.and_then(|record| record.evidence.get(CARRIED).cloned());
        let carried = digest.map(|digest| self.carried(id, &digest));
        carried.and_then(Result::ok).unwrap_or_default()
    }

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
        let mut origin = Origin {
            evidence: own
                .map(|own| self.whole(id, own, EVIDENCE_BYTES_MAX))
                .transpose()?,
            carried: carried
                .map(|digest| self.carried(id, digest))
                .transpose()?
                .unwrap_or_default(),
            documents: documents.into_iter().collect(),
        };
        if origin.evidence.is_none() && origin.carried.is_empty() {
            return Ok(origin);
        }
        let mut whole = BTreeMap::new();
        for document in origin.documents {
            let bytes = self.whole(id, &document, self.limits.manifest_bytes_max)?;
            whole.insert(document, bytes);
        }
        let leads = leading(&whole, id, &self.limits);
        if leads.is_empty() {
            return Err(StoreError::DocumentDamaged {
                id: id.clone(),
                digest: record.manifest,
            });
        }
        origin.documents = leads.into_iter().collect();
        Ok(origin)
    }

    /// What [`ImageStore::evidence`] would read, by its digests; reads nothing.
    ///
    /// # Errors
    /// The image is not there.
    pub fn origin_digests(&self, id: &Digest, repository: &str) -> Result<OriginDigests, StoreError> {
        Ok(OriginDigests::of(&self.record(id)?, repository))
    }

    fn carried(&self, id: &Digest, digest: &Digest) -> Result<Vec<Carried>, StoreError> {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn attached(payload: &[u8]) -> Attached {
        Attached {
            media_type: String::from("x"),
            payload: payload.to_vec(),
            annotations: BTreeMap::new(),
        }
    }

    #[test]
    fn only_documents_that_lead_to_the_image_are_its_own() {
        let descriptor = |digest: &Digest| json!({"mediaType": "x", "digest": digest, "size": 1});
        let manifest = |config: &Digest| {
            json!({"schemaVersion": 2, "config": descriptor(config), "layers": []})
                .to_string()
                .into_bytes()
        };
        let index = |of: &Digest| {
            json!({"schemaVersion": 2, "manifests": [descriptor(of)]})
                .to_string()
                .into_bytes()
        };
        let (image, other) = (Digest::of(b"image"), Digest::of(b"other"));
        let mut documents = BTreeMap::new();
        let mut put = |bytes: Vec<u8>| {
            let digest = Digest::of(&bytes);
            documents.insert(digest.clone(), bytes);
            digest
        };
        let own = put(manifest(&image));
        let above = put(index(&own));
        let top = put(index(&above));
        let foreign = put(manifest(&other));
        put(index(&foreign));
        put(index(&image));
        put(b"no document".to_vec());
        let leads = leading(&documents, &image, &Limits::DEVICE);
        assert_eq!(leads, BTreeSet::from([own, above, top]));
    }

    #[test]
    fn what_was_carried_keeps_its_time_and_its_place() {
        let early = || {
            vec![Carried {
                loaded: String::from("2026-05-01T00:00:00Z"),
                attached: vec![attached(b"a")],
            }]
        };
        assert_eq!(united(early(), &[attached(b"a")]), early());
        let more = united(early(), &[attached(b"b"), attached(b"a"), attached(b"b")]);
        assert_eq!((more.len(), &more[..1]), (2, &early()[..]));
        assert_eq!(more[1].attached, [attached(b"b")]);
        assert!(more[1].loaded.as_str() >= MADE);
        // Strangers' payloads fill what is left, and push nothing out.
        let flood: Vec<_> = (0..200u8).map(|number| attached(&[number])).collect();
        let full = united(early(), &flood);
        assert_eq!(full[..1], early());
        assert!(full[1].attached.len() < 200);
        assert_eq!(united(full.clone(), &[attached(b"late")]), full);
        let many = (0..100u8).fold(early(), |before, number| united(before, &[attached(&[number])]));
        assert_eq!(many.len(), LOADS_MAX);
    }

    #[test]
    fn no_intake_is_older_than_this_version() {
        let made: Timestamp = MADE.parse().expect("a time");
        assert_eq!(intake_time(Timestamp::UNIX_EPOCH), made);
        let later = "2100-01-01T00:00:00Z".parse().expect("a time");
        assert_eq!(intake_time(later), later);
    }
}
