//! What is told about images: lists, details, history, disk usage.
//!
//! Owns the answers' data; the wire's shapes belong to `kakoi-api`. Only reads.

use std::collections::BTreeMap;

use crate::config::{ConfigDocument, HistoryStep};
use crate::digest::Digest;
use crate::index::{Index, Record};
use crate::reference::Reference;
use crate::store::{ImageStore, StoreError};

/// One image in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Its id.
    pub id: Digest,
    /// Familiar names with tags; empty for a dangling image.
    pub repo_tags: Vec<String>,
    /// Familiar names with digests.
    pub repo_digests: Vec<String>,
    /// When it was made; RFC 3339, as its configuration says.
    pub created: Option<String>,
    /// The same in seconds since 1970; 0 where it does not say or is no time.
    pub created_seconds: i64,
    /// When it was loaded; RFC 3339.
    pub loaded: String,
    /// Bytes of files in all its layers.
    pub size: u64,
    /// The part of it that other images have too.
    pub shared_size: u64,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// All about one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Details {
    /// What a list says.
    pub summary: Summary,
    /// Its configuration: architecture, operating system, what it runs, diff ids.
    pub document: ConfigDocument,
    /// The digest of its manifest.
    pub manifest: Digest,
}

/// A step of an image's history, the newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryEntry {
    /// The image's id at the newest step; `None` (`<missing>`) below.
    pub id: Option<Digest>,
    /// Seconds since 1970.
    pub created_seconds: i64,
    /// The command.
    pub created_by: String,
    /// Familiar names, at the newest step.
    pub tags: Vec<String>,
    /// Bytes of the files of its layer.
    pub size: u64,
    /// A note.
    pub comment: String,
}

/// What images take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes of files in unpacked layers, each counted once.
    pub layers_bytes: u64,
    /// Bytes of blobs and recipes.
    pub blobs_bytes: u64,
    /// How many images there are.
    pub images: usize,
}

impl ImageStore {
    /// Every image, the newest first.
    pub fn list(&self) -> Result<Vec<Summary>, StoreError> {
        let index = self.state().index.clone();
        let mut list = Vec::new();
        for (id, record) in index.images.iter().filter(|(_, record)| !record.hidden) {
            list.push(summary(&index, id, record, &self.document(id)?));
        }
        list.sort_by(|a, b| (b.created_seconds, &a.id).cmp(&(a.created_seconds, &b.id)));
        Ok(list)
    }

    /// Whether the store has an image, by its whole id, shown or kept for a container.
    pub fn has(&self, id: &str) -> Result<bool, crate::DigestError> {
        let id = Digest::parse(id)?;
        Ok(self.state().index.images.contains_key(&id))
    }

    /// All about one image.
    pub fn inspect(&self, name: &str) -> Result<Details, StoreError> {
        let index = self.state().index.clone();
        let id = index.find(name)?.id().clone();
        let document = self.document(&id)?;
        let record = &index.images[&id];
        Ok(Details {
            summary: summary(&index, &id, record, &document),
            manifest: record.manifest.clone(),
            document,
        })
    }

    /// How an image was made, the newest step first.
    pub fn history(&self, name: &str) -> Result<Vec<HistoryEntry>, StoreError> {
        let index = self.state().index.clone();
        let id = index.find(name)?.id().clone();
        let document = self.document(&id)?;
        let tags = index.tags_of(&id).iter().map(Reference::familiar).collect();
        Ok(history(&id, &index.images[&id], &document, tags))
    }

    /// What all images take.
    pub fn disk_usage(&self) -> Result<DiskUsage, StoreError> {
        use crate::tree::At;
        let index = self.state().index.clone();
        let unique: BTreeMap<&Digest, u64> = index
            .images
            .values()
            .flat_map(|r| &r.layers)
            .map(|layer| (&layer.diff_id, layer.bytes))
            .collect();
        let mut blobs_bytes = 0;
        for folder in ["blobs/sha256", "recipes"].map(|name| self.root.join(name)) {
            for entry in std::fs::read_dir(&folder).at("list", &folder)? {
                // One that goes away meanwhile takes nothing.
                if let Ok(meta) = entry.at("list", &folder)?.metadata() {
                    blobs_bytes += meta.len();
                }
            }
        }
        blobs_bytes += self.partial_bytes()?;
        Ok(DiskUsage {
            layers_bytes: unique.values().sum(),
            blobs_bytes,
            images: index.images.values().filter(|record| !record.hidden).count(),
        })
    }
}

fn summary(index: &Index, id: &Digest, record: &Record, document: &ConfigDocument) -> Summary {
    let mut used: BTreeMap<&Digest, usize> = BTreeMap::new();
    for other in index.images.values().filter(|other| !other.hidden) {
        let unique: std::collections::BTreeSet<_> = other.layers.iter().map(|layer| &layer.diff_id).collect();
        for diff_id in unique {
            *used.entry(diff_id).or_default() += 1;
        }
    }
    let shared = record
        .layers
        .iter()
        .filter(|layer| used.get(&layer.diff_id).is_some_and(|count| *count > 1));
    Summary {
        id: id.clone(),
        repo_tags: index.tags_of(id).iter().map(Reference::familiar).collect(),
        repo_digests: record.repo_digests.iter().map(Reference::familiar).collect(),
        created_seconds: seconds(document.created.as_deref()),
        created: document.created.clone(),
        loaded: record.loaded.clone(),
        size: record.layers.iter().map(|layer| layer.bytes).sum(),
        shared_size: shared.map(|layer| layer.bytes).sum(),
        labels: document.config.labels.clone(),
    }
}

/// Joins the steps that the configuration tells with the layers; a configuration without history has a step for each layer.
fn history(id: &Digest, record: &Record, document: &ConfigDocument, tags: Vec<String>) -> Vec<HistoryEntry> {
    let told = !document.history.is_empty();
    let steps = match told {
        true => document.history.clone(),
        false => vec![HistoryStep::default(); record.layers.len()],
    };
    let mut layers = record.layers.iter();
    let mut entries: Vec<HistoryEntry> = steps
        .into_iter()
        .map(|step| HistoryEntry {
            id: None,
            created_seconds: seconds(step.created.as_deref()),
            size: if step.empty_layer {
                0
            } else {
                layers.next().map_or(0, |layer| layer.bytes)
            },
            created_by: step.created_by,
            tags: Vec::new(),
            comment: step.comment,
        })
        .collect();
    entries.reverse();
    if let Some(newest) = entries.first_mut() {
        newest.id = Some(id.clone());
        newest.tags = tags;
    }
    entries
}

fn seconds(time: Option<&str>) -> i64 {
    time.and_then(|text| text.parse::<jiff::Timestamp>().ok())
        .map_or(0, jiff::Timestamp::as_second)
}
