//! Healing damage: modes set, what nothing names removed, layers made anew from recipe or blob; and naming what only a registry can heal.
//!
//! A layer's folder holds the only copy of its files' content. Where that is whole, its recipe tells everything else, and the layer is unpacked
//! again from the tar that both give back, verified by its diff id.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::find;
use super::{CheckReport, Damage, Finding, Lost, Outcome, Repair};
use crate::digest::Digest;
use crate::index::{Index, LayerRecord, Record, Stored};
use crate::load::{LoadError, check_diff_id};
use crate::measure::measure_tree;
use crate::partial::PARTIAL;
use crate::remove::{Still, Uses};
use crate::store::{INDEX_LEFT, ImageStore, Staging, StoreError};
use crate::tree::{At, FileError, client_message, remove_tree, rename, sync_dir, sync_file_system};

impl ImageStore {
    pub(super) fn heal(
        &self,
        report: &mut CheckReport,
        repair: Repair,
        uses: Uses<'_>,
        still: Still<'_>,
    ) -> Result<(), StoreError> {
        let is_incomplete = self.state().index.incomplete;
        let seen: Vec<_> = report
            .findings
            .iter()
            .map(|finding| self.identity(finding))
            .collect();
        for finding in &mut report.findings {
            if finding.outcome != Outcome::Found {
                continue;
            }
            finding.outcome = match finding.damage {
                Damage::FolderMode => outcome(self.own(&finding.place, 0o700)),
                Damage::BlobMode | Damage::RecipeMode => outcome(self.own(&finding.place, 0o600)),
                damage
                    if damage.is_stranger()
                        && repair == Repair::Heal
                        && (is_incomplete || !is_ours(&finding.place)) =>
                {
                    continue;
                }
                damage if damage.is_stranger() => outcome(self.remove_stranger(finding)),
                Damage::NameWithoutImage => outcome(self.remove_empty_names()),
                damage if damage.is_of_layer() => self.heal_layer(finding, uses, still)?,
                damage if damage.is_of_recipe() => Outcome::Kept,
                _ => Outcome::Lost,
            };
        }
        lose_recipes_of_lost_layers(&mut report.findings);
        if repair != Repair::Full {
            let index = self.state().index.clone();
            report.lost = lost_of(&index, &report.findings, uses);
            return Ok(());
        }
        within(still, || {
            for (finding, seen) in report.findings.iter_mut().zip(&seen) {
                // What was fetched meanwhile is whole, and is another file.
                let is_left = matches!(finding.outcome, Outcome::Lost | Outcome::Kept);
                if is_left && finding.damage.is_of_content() && self.identity(finding) != *seen {
                    finding.outcome = Outcome::Healed;
                }
            }
            self.give_up(report, uses)
        })
    }

    /// What lies in a finding's place, so that it is known again.
    fn identity(&self, finding: &Finding) -> Option<(u64, u64, u64, i64, i64)> {
        let meta = fs::symlink_metadata(self.root.join(&finding.place)).ok()?;
        Some((
            meta.dev(),
            meta.ino(),
            meta.len(),
            meta.mtime(),
            meta.mtime_nsec(),
        ))
    }

    fn own(&self, place: &str, mode: u32) -> Result<(), FileError> {
        let path = self.root.join(place);
        kakoi_sys::path::own(&path, mode).at("set owner and mode of", &path)
    }

    /// Removes what nothing names, unless something has come to name it.
    fn remove_stranger(&self, finding: &Finding) -> Result<(), FileError> {
        let mut state = self.state();
        let path = self.root.join(&finding.place);
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        // What was found before may be somebody's by now.
        let is_busy = match finding.place.split('/').next() {
            Some("staging") => Some(state.is_at_work(&name)),
            Some(PARTIAL) => Some(state.is_claimed(&name)),
            _ => None,
        };
        match is_busy {
            Some(true) => return Ok(()),
            Some(false) => return remove_tree(&path),
            None => {}
        }
        let digest = Digest::from_hex(name.strip_suffix(".zst").unwrap_or(&name));
        let is_pinned = digest
            .as_ref()
            .is_some_and(|digest| state.pins.contains_key(digest));
        let is_named = digest.as_ref().is_some_and(|digest| {
            let stored = find::blobs(&state.index).get(digest).copied();
            let is_layer = [self.layer_path(digest), self.recipe_path(digest)].contains(&path);
            stored.is_some_and(|stored| self.blob_path(digest, stored) == path)
                || is_layer && state.index.layers().contains(digest)
        });
        if is_pinned || is_named {
            return Ok(());
        }
        self.remove_at_once(&mut state, &path)
    }

    fn remove_empty_names(&self) -> Result<(), StoreError> {
        let mut state = self.state();
        let mut index = state.index.clone();
        let images = &index.images;
        index.tags.retain(|_, id| images.contains_key(id));
        self.commit(&mut state, index)
    }

    /// Unpacks a layer again, if its tar can be had, and puts it in the damaged one's place.
    fn heal_layer(&self, finding: &Finding, uses: Uses<'_>, still: Still<'_>) -> Result<Outcome, StoreError> {
        let index = self.state().index.clone();
        let Some(diff_id) = &finding.digest else {
            return Ok(Outcome::Lost);
        };
        // Asked here to spare the work, and again where it is exchanged: unpacking takes long enough for a start.
        if let Some(outcome) = in_use(&index, diff_id, uses) {
            return Ok(outcome);
        }
        for source in find::layers(&index).remove(diff_id).unwrap_or_default() {
            let staging = self.stage()?;
            match self.unpack_again(&staging, &source) {
                Ok(fresh) => {
                    let exchanged = self.exchange_layer(&staging, diff_id, &fresh, uses, still);
                    return Ok(exchanged.unwrap_or_else(|error| outcome(Err(error))));
                }
                Err(error) if error.is_disk_full() => {
                    return Ok(Outcome::Failed {
                        reason: client_message(&error),
                    });
                }
                Err(error) => tracing::debug!(layer = %diff_id, %error, "a layer cannot be unpacked again"),
            }
        }
        Ok(Outcome::Lost)
    }

    /// Whether what is left of a damaged layer gives back its tar. Reads that layer's content.
    pub(super) fn can_be_made(&self, index: &Index, finding: &Finding) -> bool {
        let sources = finding
            .digest
            .as_ref()
            .and_then(|id| find::layers(index).remove(id));
        sources
            .unwrap_or_default()
            .iter()
            .any(|source| self.gives_back(source))
    }

    /// Unpacks a layer from what gives back its tar into the staging folder, verified.
    fn unpack_again(&self, staging: &Staging<'_>, layer: &LayerRecord) -> Result<PathBuf, LoadError> {
        let (tar, _) = self.open_tar(layer)?;
        let folder = staging.path.join("layer");
        let (made, found) = self.unpack_content(tar, &layer.diff_id, &folder)?;
        check_diff_id(&layer.diff_id, &layer.blob, found)?;
        Ok(made.folder)
    }

    /// A mounted layer cannot be exchanged under the container that runs on it: `still` keeps new ones from coming.
    fn exchange_layer(
        &self,
        staging: &Staging<'_>,
        diff_id: &Digest,
        fresh: &Path,
        uses: Uses<'_>,
        still: Still<'_>,
    ) -> Result<Outcome, StoreError> {
        sync_file_system(fresh)?;
        let measure = measure_tree(fresh)?;
        within(still, || {
            let index = self.state().index.clone();
            if let Some(outcome) = in_use(&index, diff_id, uses) {
                return Ok(outcome);
            }
            let mut state = self.state();
            let place = self.layer_path(diff_id);
            match fs::symlink_metadata(&place) {
                Ok(_) => rename(&place, &staging.path.join("damaged"))?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).at("look at", &place)?,
            }
            rename(fresh, &place)?;
            sync_dir(&self.root.join("layers"))?;
            if state.index.measures.layers.get(diff_id) != Some(&measure) {
                let mut index = state.index.clone();
                index.measures.layers.insert(diff_id.clone(), measure.clone());
                self.commit(&mut state, index)?;
            }
            Ok(Outcome::Healed)
        })
    }

    /// Takes away the images that are lost and that no container uses, and the damaged files of all of them, so that fetching them again brings whole
    /// ones. Nobody may come to use an image meanwhile.
    fn give_up(&self, report: &mut CheckReport, uses: Uses<'_>) -> Result<(), StoreError> {
        let before = self.state().index.clone();
        report.lost = lost_of(&before, &report.findings, uses);
        let mut state = self.state();
        let mut index = state.index.clone();
        for lost in report.lost.iter().filter(|lost| lost.containers.is_empty()) {
            index.images.remove(&lost.id);
            index.tags.retain(|_, id| *id != lost.id);
        }
        // A person asked: what the index does not name by now is gone or nobody's.
        index.incomplete = false;
        if index != state.index {
            self.commit(&mut state, index)?;
        }
        for finding in &report.findings {
            let is_left = matches!(finding.outcome, Outcome::Lost | Outcome::Kept);
            if finding.damage.is_of_content() && is_left {
                let path = self.root.join(&finding.place);
                let digest = finding.digest.as_ref();
                let is_pinned = digest.is_some_and(|digest| state.pins.contains_key(digest));
                let is_mounted = finding.damage.is_of_layer()
                    && digest.is_some_and(|digest| in_use(&before, digest, uses).is_some());
                if !is_pinned && !is_mounted {
                    self.remove_at_once(&mut state, &path)?;
                }
            }
        }
        self.collect(&mut state)?;
        Ok(())
    }
}

/// Whether a place that nothing names has a name that only this store gives. Others are a person's or a file system's.
fn is_ours(place: &str) -> bool {
    let (folder, name) = place.rsplit_once('/').unwrap_or(("", place));
    match folder {
        "" => INDEX_LEFT.contains(&name),
        "staging" => true,
        "blobs/sha256" => Digest::from_hex(name.strip_suffix(".zst").unwrap_or(name)).is_some(),
        "layers" | "recipes" => Digest::from_hex(name).is_some(),
        _ => false,
    }
}

/// Gives back what the work gives.
fn within<T>(still: Still<'_>, work: impl FnOnce() -> T) -> T {
    let (mut work, mut done) = (Some(work), None);
    still(&mut || done = work.take().map(|work| work()));
    done.expect("whoever keeps things still does the work")
}

/// A recipe whose layer is lost too is of no image that runs.
fn lose_recipes_of_lost_layers(findings: &mut [Finding]) {
    let lost: Vec<Digest> = findings
        .iter()
        .filter(|finding| finding.damage.is_of_layer() && finding.outcome == Outcome::Lost)
        .filter_map(|finding| finding.digest.clone())
        .collect();
    for finding in findings
        .iter_mut()
        .filter(|finding| finding.outcome == Outcome::Kept)
    {
        if finding
            .digest
            .as_ref()
            .is_some_and(|digest| lost.contains(digest))
        {
            finding.outcome = Outcome::Lost;
        }
    }
}

/// Whether a container runs on a layer or is being started on it.
fn in_use(index: &Index, diff_id: &Digest, uses: Uses<'_>) -> Option<Outcome> {
    let images = index.images.iter();
    let having = images.filter(|(_, record)| has_layer(record, diff_id));
    let user = having.flat_map(|(id, _)| uses(id)).find(|user| user.running)?;
    Some(Outcome::InUse {
        container: user.container,
    })
}

/// The images that are lost by what became of the findings.
fn lost_of(index: &Index, findings: &[Finding], uses: Uses<'_>) -> Vec<Lost> {
    let hopeless = hopeless(index, findings, &|finding| finding.outcome == Outcome::Lost);
    hopeless.iter().map(|id| lost(index, id, uses)).collect()
}

fn outcome<E: std::error::Error + 'static>(result: Result<(), E>) -> Outcome {
    match result {
        Ok(()) => Outcome::Healed,
        Err(error) => Outcome::Failed {
            reason: client_message(&error),
        },
    }
}

/// Images that need something damaged of which `is_lost` says that nothing in the store replaces it.
pub(super) fn hopeless(
    index: &Index,
    findings: &[Finding],
    is_lost: &dyn Fn(&Finding) -> bool,
) -> Vec<Digest> {
    let lost: Vec<(&Finding, &Digest)> = findings
        .iter()
        .filter(|finding| finding.damage.is_of_content() && is_lost(finding))
        .filter_map(|finding| Some((finding, finding.digest.as_ref()?)))
        .collect();
    let needs = |id: &Digest, record: &Record| {
        lost.iter().any(|(finding, digest)| match finding.damage {
            damage if damage.is_of_layer() => has_layer(record, digest),
            _ => {
                let layers = record.layers.iter();
                let mut kept = layers.filter(|layer| layer.stored != Stored::Recipe);
                id == *digest
                    || record.manifest == **digest
                    || record.documents.contains(*digest)
                    || record.evidence.values().any(|evidence| evidence == *digest)
                    || kept.any(|layer| layer.blob == **digest)
            }
        })
    };
    index
        .images
        .iter()
        .filter(|(id, record)| needs(id, record))
        .map(|(id, _)| id.clone())
        .collect()
}

fn has_layer(record: &Record, diff_id: &Digest) -> bool {
    record.layers.iter().any(|layer| layer.diff_id == *diff_id)
}

pub(super) fn lost(index: &Index, id: &Digest, uses: Uses<'_>) -> Lost {
    Lost {
        id: id.clone(),
        names: called(index, id),
        is_pulled: !index.images[id].repo_digests.is_empty(),
        containers: uses(id).into_iter().map(|user| user.container).collect(),
    }
}

/// An image's names with tags, else with digests, else its id.
pub(super) fn called(index: &Index, id: &Digest) -> Vec<String> {
    let familiar =
        |names: Vec<crate::reference::Reference>| names.iter().map(|name| name.familiar()).collect();
    let tags: Vec<String> = familiar(index.tags_of(id));
    let names = if tags.is_empty() {
        familiar(index.names_of(id))
    } else {
        tags
    };
    if names.is_empty() {
        vec![id.to_string()]
    } else {
        names
    }
}
