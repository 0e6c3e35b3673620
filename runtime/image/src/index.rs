//! The store's one document of record: which images there are and what they are called.
//!
//! Owns [`Index`], its stored form and the decisions over it (resolving names, what is referenced). Pure. The store writes it as a whole
//! after what it names is durable: that rename is the moment at which an image appears or goes.
//!
//! ```text
//! {
//!   "format": 2,
//!   "written_by": "kakoi 0.1.0",
//!   "images": {
//!     "sha256:9f…": {
//!       "manifest": "sha256:01…",
//!       "layers": [ { "diff_id": "sha256:aa…", "blob": "sha256:bb…", "stored": "recipe", "bytes": 10240 } ],
//!       "repo_digests": [],
//!       "loaded": "2026-11-24T17:00:00Z",
//!       "hidden": false
//!     }
//!   },
//!   "tags": { "docker.io/library/busybox:latest": "sha256:9f…" },
//!   "measures": {
//!     "blobs": { "sha256:9f…": 4096 },
//!     "recipes": { "sha256:aa…": 512 },
//!     "layers": { "sha256:aa…": { "entries": 12, "bytes": 10240, "digest": "sha256:cc…" } }
//!   }
//! }
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::measure::TreeMeasure;
use crate::reference::Reference;

/// The version of the stored form. A new field or variant is a new version: one before this must refuse it rather than take it for damage.
pub const INDEX_FORMAT: u32 = 2;
/// The oldest that is read. It had no `written_by`, and its versions added fields without saying so.
pub const INDEX_FORMAT_MIN: u32 = 1;
/// Who writes it, for whoever cannot read it.
pub(crate) const WRITER: &str = concat!("kakoi ", env!("CARGO_PKG_VERSION"));
/// Fewest hex digits taken for the beginning of an id; Docker takes one, and so do we, but a name wins.
const ID_DIGITS_MIN: usize = 1;

/// Images and tags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Index {
    pub(crate) format: u32,
    /// [`WRITER`] when it was written.
    #[serde(default)]
    pub(crate) written_by: String,
    pub(crate) images: BTreeMap<Digest, Record>,
    pub(crate) tags: BTreeMap<Reference, Digest>,
    /// What the files of all this measured when they were published.
    #[serde(default)]
    pub(crate) measures: Measures,
    /// It was made anew and does not name all that lies beside it: nothing is collected until a full repair.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) incomplete: bool,
    /// Registries in which a short name is looked for, in order. The owner's settings, not stored here.
    #[serde(skip)]
    pub(crate) search: Vec<String>,
}

/// What was published, as [`ImageStore::check`](crate::ImageStore::check) finds it again without reading content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Measures {
    /// Bytes of a blob's file, however it holds the blob.
    pub(crate) blobs: BTreeMap<Digest, u64>,
    /// Bytes of a layer's recipe, by diff id.
    pub(crate) recipes: BTreeMap<Digest, u64>,
    /// Unpacked layers, by diff id.
    pub(crate) layers: BTreeMap<Digest, TreeMeasure>,
}

/// One image. Its id is the digest of its configuration, which is also a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// The manifest: as it came, or made by us for an archive without one.
    pub(crate) manifest: Digest,
    /// The lowest first.
    pub(crate) layers: Vec<LayerRecord>,
    /// `repository@digest` under which a registry served it.
    pub(crate) repo_digests: Vec<Reference>,
    /// Indexes and manifests that registries served for it: what signatures are of, kept to be checked again.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) documents: BTreeSet<Digest>,
    /// By repository, what whoever admitted it under that name wrote down: a blob, read again at each start.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) evidence: BTreeMap<String, Digest>,
    /// RFC 3339.
    pub(crate) loaded: String,
    /// Removed by force while a stopped container uses it: kept for that container, not shown.
    pub(crate) hidden: bool,
}

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LayerRecord {
    /// Digest of the uncompressed tar: the unpacked folder's name.
    pub(crate) diff_id: Digest,
    /// Digest of the blob as the manifest names it.
    pub(crate) blob: Digest,
    /// Where its tar comes from.
    pub(crate) stored: Stored,
    /// Bytes of files in the unpacked layer.
    pub(crate) bytes: u64,
}

/// How the store holds bytes that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stored {
    /// A file has them as they are. Layers of images that an older version took in.
    Plain,
    /// A file has them as a zstd frame of ours. In the staging folder, and bare layers that an older version took in.
    Zstd,
    /// A layer's tar is made anew from its folder and its recipe; there is no blob.
    Recipe,
}

/// Why a name or id does not lead to one image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// There is none.
    #[error("No such image: {name}")]
    NotFound {
        /// What was asked for, in its familiar form.
        name: String,
    },
    /// An id's beginning that several share.
    #[error("image id prefix {prefix} is ambiguous: it fits {count} images")]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// How many.
        count: usize,
    },
    /// Neither a name nor an id.
    #[error("invalid image name {name:?}")]
    Invalid {
        /// What was asked for, shortened.
        name: String,
    },
}

/// What a name led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// By one of its names.
    Name(Reference, Digest),
    /// By its id or the beginning of it.
    Id(Digest),
}

impl Found {
    pub(crate) fn id(&self) -> &Digest {
        match self {
            Self::Name(_, id) | Self::Id(id) => id,
        }
    }
}

impl Index {
    pub(crate) fn new() -> Self {
        Self {
            format: INDEX_FORMAT,
            written_by: WRITER.to_owned(),
            images: BTreeMap::new(),
            tags: BTreeMap::new(),
            measures: Measures::default(),
            incomplete: false,
            search: Vec::new(),
        }
    }

    /// Forgets what the files of blobs and layers measured that no image needs any more.
    pub(crate) fn forget_measures(&mut self) {
        let (blobs, layers) = (self.blobs(), self.layers());
        self.measures.blobs.retain(|digest, _| blobs.contains(digest));
        self.measures.recipes.retain(|digest, _| layers.contains(digest));
        self.measures.layers.retain(|digest, _| layers.contains(digest));
    }

    /// Finds an image as Docker does: a whole id first, then a name, then an id's beginning, `sha256:` before it or not.
    pub(crate) fn find(&self, name: &str) -> Result<Found, ResolveError> {
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        if let Some(id) = Digest::from_hex(hex)
            && self.shown(&id)
        {
            return Ok(Found::Id(id));
        }
        let parsed = Reference::parse(name);
        // As it would be pulled first; an archive may have brought it under its familiar name all the same.
        for reference in Reference::candidates(name, &self.search)
            .into_iter()
            .flatten()
            .chain(parsed.iter().cloned())
        {
            if let Some(id) = self.named(&reference) {
                return Ok(Found::Name(reference, id));
            }
        }
        let is_prefix = (ID_DIGITS_MIN..64).contains(&hex.len())
            && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if is_prefix {
            let mut fits = self
                .images
                .keys()
                .filter(|id| id.hex().starts_with(hex) && self.shown(id));
            if let Some(first) = fits.next() {
                return match fits.count() {
                    0 => Ok(Found::Id(first.clone())),
                    others => Err(ResolveError::Ambiguous {
                        prefix: hex.to_owned(),
                        count: others + 1,
                    }),
                };
            }
        }
        match parsed {
            Ok(reference) => Err(ResolveError::NotFound {
                name: reference.familiar(),
            }),
            Err(_) if Digest::from_hex(hex).is_some() || is_prefix => Err(ResolveError::NotFound {
                name: name.to_owned(),
            }),
            Err(_) => Err(ResolveError::Invalid {
                name: name.chars().take(200).collect(),
            }),
        }
    }

    fn named(&self, reference: &Reference) -> Option<Digest> {
        let Some(digest) = reference.digest() else {
            return self.tags.get(reference).cloned();
        };
        let same_repository = |other: &Reference| {
            other.registry() == reference.registry() && other.repository() == reference.repository()
        };
        let served = |(_, record): &(&Digest, &Record)| {
            !record.hidden
                && record
                    .repo_digests
                    .iter()
                    .any(|known| same_repository(known) && known.digest() == Some(digest))
        };
        self.images.iter().find(served).map(|(id, _)| id.clone())
    }

    /// Whether an image is there for people.
    pub(crate) fn shown(&self, id: &Digest) -> bool {
        self.images.get(id).is_some_and(|record| !record.hidden)
    }

    /// The tags of an image, in order.
    pub(crate) fn tags_of(&self, id: &Digest) -> Vec<Reference> {
        self.tags
            .iter()
            .filter(|(_, of)| *of == id)
            .map(|(tag, _)| tag.clone())
            .collect()
    }

    /// Its tags, and the digests under which registries served it.
    pub(crate) fn names_of(&self, id: &Digest) -> Vec<Reference> {
        let digests = self
            .images
            .get(id)
            .map(|record| record.repo_digests.as_slice())
            .unwrap_or_default();
        self.tags_of(id)
            .into_iter()
            .chain(digests.iter().cloned())
            .collect()
    }

    /// Every blob that some image needs: configurations, manifests, and layers that an older version kept.
    pub(crate) fn blobs(&self) -> BTreeSet<Digest> {
        let mut blobs = BTreeSet::new();
        for (id, record) in &self.images {
            blobs.insert(id.clone());
            blobs.insert(record.manifest.clone());
            blobs.extend(record.documents.iter().cloned());
            blobs.extend(record.evidence.values().cloned());
            let kept = record
                .layers
                .iter()
                .filter(|layer| layer.stored != Stored::Recipe);
            blobs.extend(kept.map(|layer| layer.blob.clone()));
        }
        blobs
    }

    /// Every unpacked layer that some image needs.
    pub(crate) fn layers(&self) -> BTreeSet<Digest> {
        self.images
            .values()
            .flat_map(|record| &record.layers)
            .map(|layer| layer.diff_id.clone())
            .collect()
    }
}

/// Digests of the chains that end at each layer (image-spec, config.md), the lowest first: what Docker prints when it deletes layers.
pub(crate) fn chain_ids(layers: &[LayerRecord]) -> Vec<Digest> {
    let mut chains: Vec<Digest> = Vec::new();
    for layer in layers {
        let chain = match chains.last() {
            None => layer.diff_id.clone(),
            Some(below) => Digest::of(format!("{below} {}", layer.diff_id).as_bytes()),
        };
        chains.push(chain);
    }
    chains
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The stored form as the module's header draws it.
    #[test]
    fn the_drawing_is_read() {
        let drawing: String = include_str!("index.rs")
            .lines()
            .skip_while(|line| *line != "//! ```text")
            .skip(1)
            .take_while(|line| *line != "//! ```")
            .map(|line| line.trim_start_matches("//! "))
            .collect();
        let hex = |short: &str| format!("sha256:{}", short.repeat(32));
        let drawing = ["9f", "01", "aa", "bb", "cc"]
            .iter()
            .fold(drawing, |text, short| {
                text.replace(&format!("sha256:{short}…"), &hex(short))
            });
        let index: Index = serde_json::from_str(&drawing).expect("the drawing is an index");
        let written = serde_json::to_string(&index).expect("json");
        assert_eq!(serde_json::from_str::<Index>(&written).expect("json"), index);
        let image = index.find("busybox").expect("named");
        assert_eq!(image.id().to_string(), hex("9f"));
        assert_eq!((index.blobs().len(), index.layers().len()), (2, 1));
        assert!(serde_json::from_str::<Index>(&drawing.replace("hidden", "hiden")).is_err());
    }

    #[test]
    fn names_win_over_beginnings_of_ids_and_whole_ids_over_names() {
        let mut index = Index::new();
        let ids: Vec<Digest> = ["ab", "ac"]
            .iter()
            .map(|s| Digest::from_hex(&s.repeat(32)).expect("hex"))
            .collect();
        for id in &ids {
            let record = Record {
                manifest: id.clone(),
                layers: Vec::new(),
                repo_digests: Vec::new(),
                documents: BTreeSet::new(),
                evidence: BTreeMap::new(),
                loaded: String::new(),
                hidden: false,
            };
            index.images.insert(id.clone(), record);
        }
        index
            .tags
            .insert(Reference::parse("ab").expect("name"), ids[1].clone());
        assert_eq!(index.find("ab").expect("a name").id(), &ids[1]);
        assert_eq!(index.find("aba").expect("a beginning").id(), &ids[0]);
        assert_eq!(
            index.find("sha256:ab").map(|found| found.id().clone()),
            Ok(ids[0].clone())
        );
        assert_eq!(
            index.find("a"),
            Err(ResolveError::Ambiguous {
                prefix: "a".to_owned(),
                count: 2
            })
        );
        assert_eq!(
            index.find("ad"),
            Err(ResolveError::NotFound {
                name: "ad:latest".to_owned()
            })
        );
        // One that only a stopped container still has is nobody's.
        index.images.get_mut(&ids[0]).expect("there").hidden = true;
        assert!(index.find(ids[0].hex()).is_err());
        assert_eq!(index.find("a").expect("no longer ambiguous").id(), &ids[1]);
    }

    #[test]
    fn short_names_are_looked_for_where_they_are_pulled_from() {
        let mut index = Index::new();
        let ids: Vec<Digest> = ["ab", "ac", "ad"]
            .iter()
            .map(|s| Digest::from_hex(&s.repeat(32)).expect("hex"))
            .collect();
        for (name, id) in [
            ("r.example/app", 0),
            ("s.example/app", 1),
            ("docker.io/library/app", 2),
        ] {
            let name = Reference::parse(name).expect("name");
            index.tags.insert(name, ids[id].clone());
        }
        let found = |index: &Index, name: &str| index.find(name).map(|found| found.id().clone()).ok();
        assert_eq!(found(&index, "app").as_ref(), Some(&ids[2]));
        index.search = ["q.example", "s.example", "r.example"]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(found(&index, "app:latest").as_ref(), Some(&ids[1]));
        index.search.truncate(1);
        assert_eq!(found(&index, "app").as_ref(), Some(&ids[2]));
        assert_eq!(
            found(&index, "q.example/app"),
            None,
            "a name with a registry is complete"
        );
        assert_eq!(found(&index, "x/app"), None);
    }

    #[test]
    fn chains_are_those_of_the_specification() {
        let layer = |text: &str| LayerRecord {
            diff_id: Digest::of(text.as_bytes()),
            blob: Digest::of(b""),
            stored: Stored::Plain,
            bytes: 0,
        };
        let (a, b) = (layer("a"), layer("b"));
        let both = Digest::of(format!("{} {}", a.diff_id, b.diff_id).as_bytes());
        assert_eq!(chain_ids(&[a.clone(), b]), [a.diff_id, both]);
        assert!(chain_ids(&[]).is_empty());
    }
}
