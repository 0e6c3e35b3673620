//! Healing damage: modes set, what nothing names removed, layers made anew from recipe or blob; and naming what only a registry can heal.
//!
//! A layer's folder holds the only copy of its files' content. Where that is whole, its recipe tells everything else, and the layer is unpacked
//! again from the tar that both give back, verified by its diff id.

use std::fs;
use std::path::{Path, PathBuf};

use super::find;
use super::{CheckReport, Damage, Finding, Lost, Outcome, Repair};
use crate::digest::Digest;
use crate::index::{Index, LayerRecord, Record, Stored};
use crate::load::{LoadError, check_diff_id};
use crate::measure::measure_tree;
use crate::remove::Uses;
use crate::store::{INDEX_LEFT, ImageStore, Staging, StoreError};
use crate::tree::{At, FileError, client_message, remove_tree, rename, sync_dir, sync_file_system};

impl ImageStore {
    pub(super) fn heal(
        &self,
        report: &mut CheckReport,
        repair: Repair,
        uses: Uses<'_>,
    ) -> Result<(), StoreError> {
        let is_incomplete = self.state().index.incomplete;
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
                damage if damage.is_of_layer() => self.heal_layer(finding, uses)?,
                _ => Outcome::Lost,
            };
        }
        let index = self.state().index.clone();
        let hopeless = hopeless(&index, &report.findings, &|finding| {
            finding.outcome == Outcome::Lost
        });
        report.lost = hopeless.iter().map(|id| lost(&index, id, uses)).collect();
        if repair == Repair::Full {
            self.give_up(report)?;
        }
        Ok(())
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
        if finding.place.starts_with("staging/") {
            return if state.at_work.contains(&name) {
                Ok(())
            } else {
                remove_tree(&path)
            };
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
    fn heal_layer(&self, finding: &Finding, uses: Uses<'_>) -> Result<Outcome, StoreError> {
        let index = self.state().index.clone();
        let Some(diff_id) = &finding.digest else {
            return Ok(Outcome::Lost);
        };
        // A mounted layer cannot be exchanged under the container that runs on it.
        let having = index
            .images
            .iter()
            .filter(|(_, record)| has_layer(record, diff_id));
        let running = having.flat_map(|(id, _)| uses(id)).find(|user| user.running);
        if let Some(user) = running {
            return Ok(Outcome::InUse {
                container: user.container,
            });
        }
        for source in find::layers(&index).remove(diff_id).unwrap_or_default() {
            let staging = self.stage()?;
            match self.unpack_again(&staging, &source) {
                Ok(fresh) => return Ok(outcome(self.exchange_layer(&staging, diff_id, &fresh))),
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

    fn exchange_layer(
        &self,
        staging: &Staging<'_>,
        diff_id: &Digest,
        fresh: &Path,
    ) -> Result<(), StoreError> {
        sync_file_system(fresh)?;
        let mut state = self.state();
        let place = self.layer_path(diff_id);
        match fs::symlink_metadata(&place) {
            Ok(_) => rename(&place, &staging.path.join("damaged"))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).at("look at", &place)?,
        }
        rename(fresh, &place)?;
        sync_dir(&self.root.join("layers"))?;
        let measure = measure_tree(&place)?;
        if state.index.measures.layers.get(diff_id) != Some(&measure) {
            let mut index = state.index.clone();
            index.measures.layers.insert(diff_id.clone(), measure);
            self.commit(&mut state, index)?;
        }
        Ok(())
    }

    /// Takes away the images that are lost and that no container uses, and the damaged files of all of them, so that fetching them again brings whole
    /// ones.
    fn give_up(&self, report: &CheckReport) -> Result<(), StoreError> {
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
            if finding.damage.is_of_content() && finding.outcome == Outcome::Lost {
                let path = self.root.join(&finding.place);
                let is_pinned = finding
                    .digest
                    .as_ref()
                    .is_some_and(|digest| state.pins.contains_key(digest));
                if !is_pinned {
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
            damage if damage.is_of_layer() || damage.is_of_recipe() => has_layer(record, digest),
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
