//! A new index from what lies beside a damaged one.
//!
//! Owns the guess. The index before the last change tells names; the manifests among the blobs tell the rest. Refuses to guess names. Invariant:
//! an image is in the new index only if its documents have their digests and its files are all there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde::Deserialize;

use super::{Damage, Finding, Outcome};
use crate::digest::Digest;
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

impl ImageStore {
    /// Puts a new index in the place of a damaged one.
    pub(crate) fn rebuild_index(&self, damage: &StoreError) -> Result<(), StoreError> {
        let mut index = read_index(&self.root.join(INDEX_PREVIOUS)).unwrap_or_else(|_| Index::new());
        let whole: BTreeSet<Digest> = index
            .images
            .iter()
            .filter(|(id, record)| self.is_there(id, record))
            .map(|(id, _)| id.clone())
            .collect();
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
        self.measure_all(&mut index)?;
        tracing::error!(error = %damage, images = index.images.len(), "the image index was made anew");
        let mut state = self.state();
        self.commit(&mut state, index)?;
        state.opening.push(Finding {
            damage: Damage::IndexUnreadable,
            place: INDEX.to_owned(),
            digest: None,
            images: Vec::new(),
            outcome: Outcome::Healed,
        });
        Ok(())
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
        let bytes_max = self.limits.manifest_bytes_max.max(self.limits.config_bytes_max);
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
