//! Looking for damage. Only reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::{CheckReport, Damage, Depth, Finding, Outcome};
use crate::compression::Decoder;
use crate::config::ConfigDocument;
use crate::digest::{Digest, Hashing};
use crate::index::{Index, LayerRecord, Stored};
use crate::measure::measure_tree;
use crate::partial::{PARTIAL, is_partial};
use crate::store::{INDEX, INDEX_ASIDE, INDEX_PREVIOUS, ImageStore, LOST_AND_FOUND, StoreError};
use crate::tree::{At, FileError};

/// The store's own folders.
const FOLDERS: [&str; 7] = [
    "",
    "blobs",
    "blobs/sha256",
    "layers",
    "recipes",
    PARTIAL,
    "staging",
];
/// What lies in the store's folder itself.
const TOP: [&str; 8] = [
    "lock",
    INDEX,
    INDEX_PREVIOUS,
    "blobs",
    "layers",
    "recipes",
    PARTIAL,
    "staging",
];

/// What the folders hold that the index does not name, looked at while nothing moves.
struct Listed {
    index: Index,
    strangers: Vec<(Damage, String, Option<Digest>)>,
}

impl ImageStore {
    pub(super) fn find_damage(&self, depth: Depth) -> Result<(CheckReport, Index), StoreError> {
        let mut report = CheckReport::default();
        report.findings.append(&mut self.state().opening);
        for folder in FOLDERS {
            let path = self.root.join(folder);
            let meta = fs::symlink_metadata(&path).at("look at", &path)?;
            if !is_private(&meta, 0o700) {
                report.findings.push(finding(Damage::FolderMode, folder, None));
            }
        }
        let listed = self.list_strangers()?;
        let index = listed.index;
        for (damage, place, digest) in listed.strangers {
            report.findings.push(finding(damage, &place, digest));
        }
        for name in index
            .tags
            .iter()
            .filter(|(_, id)| !index.images.contains_key(*id))
        {
            let place = name.0.familiar();
            report
                .findings
                .push(finding(Damage::NameWithoutImage, &place, None));
        }
        let blobs = blobs(&index);
        let layers = layers(&index);
        (report.images, report.blobs, report.layers) = (index.images.len(), blobs.len(), layers.len());
        let mut bad = BTreeSet::new();
        for (blob, stored) in &blobs {
            for damage in self.look_at_blob(&index, blob, *stored, depth) {
                if damage != Damage::BlobMode {
                    bad.insert(blob.clone());
                }
                let place = self.blob_path(blob, *stored);
                report.findings.push(self.finding_at(damage, &place, blob));
            }
        }
        self.look_at_documents(&index, &mut bad, &mut report);
        for (diff_id, sources) in &layers {
            let found = self.look_at_recipe(&index, diff_id, sources);
            for damage in &found {
                let place = self.recipe_path(diff_id);
                report.findings.push(self.finding_at(*damage, &place, diff_id));
            }
            let has_recipe = !found.iter().any(|damage| damage.is_of_content());
            if let Some(damage) = self.look_at_layer(&index, diff_id, sources, depth, &|source| {
                if source.stored == Stored::Recipe {
                    has_recipe
                } else {
                    !bad.contains(&source.blob)
                }
            }) {
                let place = self.layer_path(diff_id);
                report.findings.push(self.finding_at(damage, &place, diff_id));
            }
        }
        self.forget_removed(&mut report);
        for finding in &mut report.findings {
            if let Some(digest) = &finding.digest {
                finding.images = needing(&index, digest);
            }
        }
        Ok((report, index))
    }

    fn finding_at(&self, damage: Damage, place: &Path, digest: &Digest) -> Finding {
        let place = place.strip_prefix(&self.root).unwrap_or(place);
        finding(damage, &place.to_string_lossy(), Some(digest.clone()))
    }

    /// The index, and what no image and no work in progress has: both at one moment.
    fn list_strangers(&self) -> Result<Listed, FileError> {
        let state = self.state();
        let mut strangers = Vec::new();
        let named = |folder: &str| -> Result<Vec<String>, FileError> {
            let path = self.root.join(folder);
            let mut names = Vec::new();
            for entry in fs::read_dir(&path).at("list", &path)? {
                let name = entry.at("list", &path)?.file_name();
                if name != LOST_AND_FOUND {
                    names.push(name.to_string_lossy().into_owned());
                }
            }
            names.sort();
            Ok(names)
        };
        for name in named("")? {
            // The index aside is there only while the state is locked.
            if name == INDEX_ASIDE || !TOP.contains(&name.as_str()) {
                strangers.push((Damage::Leftover, name, None));
            }
        }
        for name in named("blobs")?.into_iter().filter(|name| name != "sha256") {
            strangers.push((Damage::Leftover, format!("blobs/{name}"), None));
        }
        let (blobs, layers) = (blobs(&state.index), state.index.layers());
        for name in named("blobs/sha256")? {
            let digest = Digest::from_hex(name.strip_suffix(".zst").unwrap_or(&name));
            let is_named = digest.as_ref().is_some_and(|digest| {
                let stored = blobs.get(digest);
                let own = |stored: &Stored| self.blob_path(digest, *stored).ends_with(&name);
                state.pins.contains_key(digest) || stored.is_some_and(own)
            });
            if !is_named {
                strangers.push((Damage::BlobWithoutImage, format!("blobs/sha256/{name}"), None));
            }
        }
        for (folder, damage) in [
            ("layers", Damage::LayerWithoutImage),
            ("recipes", Damage::RecipeWithoutImage),
        ] {
            for name in named(folder)? {
                let digest = Digest::from_hex(&name);
                let is_needed = |digest| layers.contains(&digest) || state.pins.contains_key(&digest);
                if !digest.is_some_and(is_needed) {
                    strangers.push((damage, format!("{folder}/{name}"), None));
                }
            }
        }
        let partial = named(PARTIAL)?.into_iter();
        for name in partial.filter(|name| !is_partial(name) && !state.is_claimed(name)) {
            strangers.push((Damage::Leftover, format!("{PARTIAL}/{name}"), None));
        }
        for name in named("staging")?
            .into_iter()
            .filter(|name| !state.is_at_work(name))
        {
            strangers.push((Damage::Leftover, format!("staging/{name}"), None));
        }
        Ok(Listed {
            index: state.index.clone(),
            strangers,
        })
    }

    fn look_at_blob(&self, index: &Index, blob: &Digest, stored: Stored, depth: Depth) -> Vec<Damage> {
        let path = self.blob_path(blob, stored);
        let Ok(meta) = fs::symlink_metadata(&path) else {
            return vec![Damage::BlobMissing];
        };
        if !meta.is_file() {
            return vec![Damage::BlobKind];
        }
        let mut found = Vec::new();
        if !is_private(&meta, 0o600) {
            found.push(Damage::BlobMode);
        }
        let measured = index.measures.blobs.get(blob);
        if measured.is_some_and(|bytes| *bytes != meta.len()) {
            found.push(Damage::BlobLength);
        } else if depth == Depth::Content && !self.has_digest(blob, stored) {
            found.push(Damage::BlobContent);
        }
        found
    }

    fn has_digest(&self, blob: &Digest, stored: Stored) -> bool {
        let path = self.blob_path(blob, stored);
        let read = File::open(&path).and_then(|file| {
            let mut reader: Hashing<Box<dyn Read>> = Hashing::new(match stored {
                Stored::Zstd => Box::new(Decoder::new(BufReader::new(file))?),
                Stored::Plain | Stored::Recipe => Box::new(file),
            });
            io::copy(&mut reader, &mut io::sink())?;
            Ok(reader.finish().0)
        });
        read.is_ok_and(|found| found == *blob)
    }

    /// Configurations are read for each container: that they read, and name the layers that the index has, costs a page each. It says more than
    /// that the digest is another.
    fn look_at_documents(&self, index: &Index, bad: &mut BTreeSet<Digest>, report: &mut CheckReport) {
        for (id, record) in &index.images {
            let is_other = |finding: &Finding| {
                finding.damage == Damage::BlobContent && finding.digest.as_ref() == Some(id)
            };
            if bad.contains(id) && !report.findings.iter().any(is_other) {
                continue;
            }
            let fits = |document: ConfigDocument| {
                let layers = record.layers.iter().map(|layer| &layer.diff_id);
                layers.eq(document.rootfs.diff_ids.iter())
            };
            if !self.document(id).is_ok_and(fits) {
                bad.insert(id.clone());
                report.findings.retain(|finding| !is_other(finding));
                let place = self.blob_path(id, Stored::Plain);
                report
                    .findings
                    .push(self.finding_at(Damage::DocumentUnreadable, &place, id));
            }
        }
    }

    fn look_at_recipe(&self, index: &Index, diff_id: &Digest, sources: &[LayerRecord]) -> Vec<Damage> {
        if sources.iter().all(|source| source.stored != Stored::Recipe) {
            return Vec::new();
        }
        let path = self.recipe_path(diff_id);
        let Ok(meta) = fs::symlink_metadata(&path) else {
            return vec![Damage::RecipeMissing];
        };
        let measured = index.measures.recipes.get(diff_id);
        if !meta.is_file() || measured.is_some_and(|bytes| *bytes != meta.len()) {
            return vec![Damage::RecipeUnreadable];
        }
        if !is_private(&meta, 0o600) {
            return vec![Damage::RecipeMode];
        }
        Vec::new()
    }

    fn look_at_layer(
        &self,
        index: &Index,
        diff_id: &Digest,
        sources: &[LayerRecord],
        depth: Depth,
        is_whole: &dyn Fn(&LayerRecord) -> bool,
    ) -> Option<Damage> {
        let path = self.layer_path(diff_id);
        let Ok(meta) = fs::symlink_metadata(&path) else {
            return Some(Damage::LayerMissing);
        };
        if !meta.is_dir() {
            return Some(Damage::LayerKind);
        }
        if depth == Depth::Names {
            return None;
        }
        let measured = index.measures.layers.get(diff_id);
        // A folder that cannot be walked to its end is not whole.
        let found = measure_tree(&path).ok();
        if found.is_none() || measured.is_some() && measured != found.as_ref() {
            return Some(Damage::LayerFiles);
        }
        let source = sources
            .iter()
            .find(|source| source.stored == Stored::Recipe && is_whole(source))?;
        (depth == Depth::Content && !self.gives_back(source)).then_some(Damage::LayerContent)
    }

    /// Whether a layer's tar still has its diff id.
    pub(super) fn gives_back(&self, layer: &LayerRecord) -> bool {
        let read = self.open_tar(layer).and_then(|(tar, _)| {
            let mut tar = Hashing::new(tar);
            io::copy(&mut tar, &mut io::sink()).at("read", &self.layer_path(&layer.diff_id))?;
            Ok(tar.finish().0)
        });
        read.is_ok_and(|found| found == layer.diff_id)
    }

    /// What was removed while this looked is not missing.
    fn forget_removed(&self, report: &mut CheckReport) {
        let state = self.state();
        let (blobs, layers) = (state.index.blobs(), state.index.layers());
        report.findings.retain(|finding| {
            let digest = finding.digest.as_ref();
            digest.is_none_or(|digest| blobs.contains(digest) || layers.contains(digest))
        });
    }
}

fn finding(damage: Damage, place: &str, digest: Option<Digest>) -> Finding {
    Finding {
        damage,
        place: if place.is_empty() {
            ".".to_owned()
        } else {
            place.to_owned()
        },
        digest,
        images: Vec::new(),
        outcome: Outcome::Found,
    }
}

/// Whether a file has just this mode and belongs to whoever runs the store.
fn is_private(meta: &Metadata, mode: u32) -> bool {
    let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    meta.permissions().mode() & 0o7777 == mode && (meta.uid(), meta.gid()) == own
}

/// Every blob and how its file holds it.
pub(super) fn blobs(index: &Index) -> BTreeMap<Digest, Stored> {
    let mut blobs: BTreeMap<Digest, Stored> = index
        .blobs()
        .into_iter()
        .map(|blob| (blob, Stored::Plain))
        .collect();
    let kept = index.images.values().flat_map(|record| &record.layers);
    for layer in kept.filter(|layer| layer.stored != Stored::Recipe) {
        blobs.insert(layer.blob.clone(), layer.stored);
    }
    blobs
}

/// Every unpacked layer, with what it can be made from.
pub(super) fn layers(index: &Index) -> BTreeMap<Digest, Vec<LayerRecord>> {
    let mut layers: BTreeMap<Digest, Vec<LayerRecord>> = BTreeMap::new();
    for layer in index.images.values().flat_map(|record| &record.layers) {
        let sources = layers.entry(layer.diff_id.clone()).or_default();
        if !sources.contains(layer) {
            sources.push(layer.clone());
        }
    }
    layers
}

/// What the images that need a blob or layer are called.
fn needing(index: &Index, digest: &Digest) -> Vec<String> {
    let mut names = Vec::new();
    for (id, record) in &index.images {
        let needs = id == digest
            || record.manifest == *digest
            || record.documents.contains(digest)
            || record.evidence.values().any(|evidence| evidence == digest)
            || record
                .layers
                .iter()
                .any(|layer| layer.blob == *digest || layer.diff_id == *digest);
        if needs {
            names.extend(super::heal::called(index, id));
        }
    }
    names
}
