//! A new index from what lies beside a damaged one.
//!
//! Owns the guess. The index before the last change tells names; the manifests among the blobs tell the rest. Refuses to guess names. Invariant:
//! an image is in the new index only if its documents have their digests and its files are all there; what it does not name stays.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Damage, Finding, Outcome};
use crate::digest::Digest;
use crate::evidence::{CARRIED, Carried, EVIDENCE_BYTES_MAX};
use crate::index::{Index, LayerRecord, Record, Stored};
use crate::load::now;
use crate::measure::measure_tree;
use crate::store::{INDEX, INDEX_PREVIOUS, ImageStore, StoreError, read_index};
use crate::tree::At;

/// What of a manifest leads to its image.
#[derive(Deserialize)]
struct Manifest {
    config: Named,
    layers: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    digest: Digest,
}

/// What of an index of manifests leads to an image.
#[derive(Deserialize)]
struct List {
    manifests: Vec<Named>,
}

/// What of evidence tells whom it is about. No manifest, index or configuration is taken for it, whatever else its author wrote into it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "they are named so that nothing else is taken for evidence"
)]
struct Evidence {
    subject: Subject,
    layers: IgnoredAny,
    decided_at: IgnoredAny,
    downgrade: IgnoredAny,
    scope: IgnoredAny,
    mode: IgnoredAny,
    findings: IgnoredAny,
    release: IgnoredAny,
}

#[derive(Deserialize)]
struct Subject {
    repository: String,
    digests: Vec<Digest>,
}

impl ImageStore {
    /// Puts a new index in the place of a damaged one.
    pub(crate) fn rebuild_index(&self, damage: &StoreError) -> Result<(), StoreError> {
        let mut index = match read_index(&self.root.join(INDEX_PREVIOUS)) {
            Ok(previous) => previous.unwrap_or_else(Index::new),
            Err(StoreError::IndexDamaged { .. }) => Index::new(),
            // Another version's: whoever goes back to that version has its names again.
            Err(error) => return Err(error),
        };
        let whole: BTreeSet<Digest> = index
            .images
            .iter()
            .filter(|(id, record)| self.is_there(id, record))
            .map(|(id, _)| id.clone())
            .collect();
        // One that was removed in order left neither document.
        let is_left = |digest: &Digest| self.blob_path(digest, Stored::Plain).exists();
        index.incomplete |= index
            .images
            .iter()
            .any(|(id, record)| !whole.contains(id) && (is_left(id) || is_left(&record.manifest)));
        index.images.retain(|id, _| whole.contains(id));
        index.tags.retain(|_, id| whole.contains(id));
        let folder = self.root.join("blobs/sha256");
        for entry in fs::read_dir(&folder).at("list", &folder)? {
            let name = entry.at("list", &folder)?.file_name();
            let Some(digest) = name.to_str().and_then(Digest::from_hex) else {
                continue;
            };
            if let Some((id, record)) = self.read_image(&digest)
                && !index.images.contains_key(&id)
            {
                index.images.insert(id, record);
            }
        }
        self.attach_documents(&mut index)?;
        index.incomplete |= self.has_unnamed(&index)?;
        let outcome = if index.incomplete {
            Outcome::Lost
        } else {
            Outcome::Healed
        };
        self.measure_all(&mut index)?;
        tracing::error!(error = %damage, images = index.images.len(), "the image index was made anew");
        let mut state = self.state();
        self.commit(&mut state, index)?;
        state.opening.push(Finding {
            damage: Damage::IndexUnreadable,
            place: INDEX.to_owned(),
            digest: None,
            images: Vec::new(),
            outcome,
        });
        Ok(())
    }

    /// Gives images the documents that name them: indexes that lead to them, and evidence about them. What the evidence says is judged at each
    /// start, as ever.
    fn attach_documents(&self, index: &mut Index) -> Result<(), StoreError> {
        let named = index.blobs();
        let mut unnamed = Vec::new();
        let folder = self.root.join("blobs/sha256");
        for entry in fs::read_dir(&folder).at("list", &folder)? {
            let name = entry.at("list", &folder)?.file_name();
            let digest = name.to_str().and_then(Digest::from_hex);
            let digest = digest.filter(|digest| !named.contains(digest));
            if let Some((digest, bytes)) = digest.and_then(|digest| {
                let bytes = self.document_bytes(&digest)?;
                Some((digest, bytes))
            }) {
                unnamed.push((digest, bytes));
            }
        }
        for (digest, bytes) in &unnamed {
            let Ok(list) = serde_json::from_slice::<List>(bytes) else {
                continue;
            };
            for record in index.images.values_mut() {
                if list.manifests.iter().any(|one| one.digest == record.manifest) {
                    record.documents.insert(digest.clone());
                }
            }
        }
        let mut carried = Vec::new();
        for (digest, bytes) in unnamed {
            if serde_json::from_slice::<Vec<Carried>>(&bytes).is_ok() {
                carried.push(digest);
                continue;
            }
            let Ok(Evidence { subject, .. }) = serde_json::from_slice(&bytes) else {
                continue;
            };
            for record in index.images.values_mut() {
                if subject.digests.contains(&record.manifest) {
                    // A manifest that was pulled is among its own documents.
                    record.documents.insert(record.manifest.clone());
                    let repository = subject.repository.clone();
                    record.evidence.entry(repository).or_insert(digest.clone());
                }
            }
        }
        // It is unverified, of whichever image. Which of several it was, nobody knows.
        if let [carried] = carried.as_slice() {
            for record in index.images.values_mut() {
                record
                    .evidence
                    .entry(CARRIED.to_owned())
                    .or_insert(carried.clone());
            }
        }
        Ok(())
    }

    /// Whether anything of ours lies in the store that an index does not name.
    fn has_unnamed(&self, index: &Index) -> Result<bool, StoreError> {
        let (blobs, layers) = (index.blobs(), index.layers());
        for (folder, named) in [
            ("blobs/sha256", &blobs),
            ("layers", &layers),
            ("recipes", &layers),
        ] {
            let folder = self.root.join(folder);
            for entry in fs::read_dir(&folder).at("list", &folder)? {
                let name = entry.at("list", &folder)?.file_name();
                let name = name.to_string_lossy();
                let digest = Digest::from_hex(name.strip_suffix(".zst").unwrap_or(&name));
                if digest.is_some_and(|digest| !named.contains(&digest)) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Whether all files of an image are there, and its documents are what their digests say.
    fn is_there(&self, id: &Digest, record: &Record) -> bool {
        let documents = [id, &record.manifest].into_iter().chain(&record.documents);
        let documents = documents.chain(record.evidence.values());
        let is_document = |digest: &Digest| self.document_bytes(digest).is_some();
        documents.into_iter().all(is_document)
            && record.layers.iter().all(|layer| {
                let source = match layer.stored {
                    Stored::Recipe => self.recipe_path(&layer.diff_id),
                    stored => self.blob_path(&layer.blob, stored),
                };
                self.layer_path(&layer.diff_id).is_dir() && source.is_file()
            })
    }

    /// A small blob, if it has its digest.
    fn document_bytes(&self, digest: &Digest) -> Option<Vec<u8>> {
        let limits = &self.limits;
        let bytes_max = limits.manifest_bytes_max.max(limits.config_bytes_max);
        let bytes_max = bytes_max.max(EVIDENCE_BYTES_MAX);
        let bytes = self.read_blob(digest, bytes_max).ok()?;
        (Digest::of(&bytes) == *digest).then_some(bytes)
    }

    /// The image whose manifest a blob is, if all of it is there.
    fn read_image(&self, manifest: &Digest) -> Option<(Digest, Record)> {
        let path = self.blob_path(manifest, Stored::Plain);
        if fs::symlink_metadata(&path).ok()?.len() > self.limits.manifest_bytes_max {
            return None;
        }
        let parts: Manifest = serde_json::from_slice(&self.document_bytes(manifest)?).ok()?;
        let (id, blobs) = (parts.config.digest, parts.layers);
        let document = self.document(&id).ok()?;
        let diff_ids = document.rootfs.diff_ids;
        if diff_ids.len() != blobs.len() {
            return None;
        }
        let layers = diff_ids
            .into_iter()
            .zip(blobs)
            .map(|(diff_id, Named { digest: blob })| {
                let is_file = |stored| self.blob_path(&blob, stored).is_file();
                let stored = match () {
                    () if self.recipe_path(&diff_id).is_file() => Stored::Recipe,
                    () if is_file(Stored::Zstd) => Stored::Zstd,
                    () => Stored::Plain,
                };
                LayerRecord {
                    diff_id,
                    blob,
                    stored,
                    bytes: 0,
                }
            });
        let record = Record {
            manifest: manifest.clone(),
            layers: layers.collect(),
            repo_digests: Vec::new(),
            documents: BTreeSet::new(),
            evidence: BTreeMap::new(),
            loaded: now(),
            hidden: false,
        };
        self.is_there(&id, &record).then_some((id, record))
    }

    /// What is there now is all that is known of what was there before, where the index before did not tell.
    fn measure_all(&self, index: &mut Index) -> Result<(), StoreError> {
        for (blob, stored) in super::find::blobs(index) {
            let path = self.blob_path(&blob, stored);
            let bytes = fs::symlink_metadata(&path).at("look at", &path)?.len();
            index.measures.blobs.entry(blob).or_insert(bytes);
        }
        for diff_id in index.layers() {
            if let Ok(meta) = fs::symlink_metadata(self.recipe_path(&diff_id)) {
                let recipes = &mut index.measures.recipes;
                recipes.entry(diff_id.clone()).or_insert(meta.len());
            }
            let measure = measure_tree(&self.layer_path(&diff_id))?;
            for layer in index.images.values_mut().flat_map(|record| &mut record.layers) {
                if layer.diff_id == diff_id && layer.bytes == 0 {
                    layer.bytes = measure.bytes;
                }
            }
            index.measures.layers.entry(diff_id).or_insert(measure);
        }
        Ok(())
    }
}
