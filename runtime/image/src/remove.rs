//! Names given and taken away, images removed: Docker's rules.
//!
//! Owns what may go. Refuses to know containers: the caller says who uses an image. Invariant: an image that a running container uses is
//! never removed, and one that a stopped container uses stays on the disk until that container is gone, even where it was removed by force.

use std::collections::BTreeSet;

use crate::digest::Digest;
use crate::guard::{RoomError, check_room, free_bytes};
use crate::index::{Found, Index, chain_ids};
use crate::reference::{Reference, ReferenceError};
use crate::store::{ImageStore, StoreError};
use crate::tree::At;

/// Digits of an id in messages, as Docker shortens them.
const SHORT_DIGITS: usize = 12;

/// A container that uses an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The container's id, or in words who else uses it.
    pub container: String,
    /// Whether it runs (or is paused).
    pub running: bool,
}

/// Who uses an image, by the image's id.
pub type Uses<'a> = &'a dyn Fn(&Digest) -> Vec<Use>;

/// Does a work while no container is made or started: who uses an image stays as it is for that long.
pub type Still<'a> = &'a dyn Fn(&mut dyn FnMut());

/// One line of an answer to a removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A name was taken away; in the familiar form.
    Untagged(String),
    /// An image, or a layer (by its chain id), was deleted.
    Deleted(Digest),
}

/// What a prune did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Line by line, as removals.
    pub removed: Vec<Removed>,
    /// Bytes of unpacked layers that are free now.
    pub reclaimed_bytes: u64,
}

/// When images go by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LowWater {
    /// Below so many free bytes; 0 means never.
    pub free_bytes: u64,
    /// Images with a name too, not only those without.
    pub takes_named: bool,
}

/// Why nothing was removed or named.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// The last name of an image that a container uses.
    #[error(
        "conflict: unable to remove repository reference \"{reference}\" (must force) - container {container} is using its referenced image {id}"
    )]
    NameInUse {
        /// As it was asked for.
        reference: String,
        /// Short id.
        container: String,
        /// Short id.
        id: String,
    },
    /// An image with names in several repositories, by id.
    #[error(
        "conflict: unable to delete {id} (must be forced) - image is referenced in multiple repositories"
    )]
    SeveralNames {
        /// Short id.
        id: String,
    },
    /// A running container; force does not help.
    #[error(
        "conflict: unable to delete {id} (cannot be forced) - image is being used by running container {container}"
    )]
    Running {
        /// Short id.
        id: String,
        /// Short id.
        container: String,
    },
    /// A stopped container.
    #[error(
        "conflict: unable to delete {id} (must be forced) - image is being used by stopped container {container}"
    )]
    Stopped {
        /// Short id.
        id: String,
        /// Short id.
        container: String,
    },
    /// A name that is none.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The store, or no such image.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RemoveError {
    /// Whether it is a conflict (HTTP 409) rather than a bad name or a failure.
    pub fn is_conflict(&self) -> bool {
        matches!(
            self,
            Self::NameInUse { .. } | Self::SeveralNames { .. } | Self::Running { .. } | Self::Stopped { .. }
        )
    }
}

impl ImageStore {
    /// Gives an image a further name; one that another image has moves.
    pub fn tag(&self, source: &str, target: &str) -> Result<Reference, RemoveError> {
        let target = Reference::parse_tag(target)?;
        let mut state = self.state();
        let id = state.index.find(source).map_err(StoreError::from)?.id().clone();
        if state.index.tags.get(&target) != Some(&id) {
            let mut index = state.index.clone();
            index.tags.insert(target.clone(), id);
            self.commit(&mut state, index)?;
        }
        Ok(target)
    }

    /// Takes a name away and leaves the image, with or without other names (`podman untag`).
    pub fn untag(&self, name: &str) -> Result<Vec<Removed>, RemoveError> {
        let mut state = self.state();
        let mut index = state.index.clone();
        let names = match index.find(name).map_err(StoreError::from)? {
            Found::Name(reference, _) => vec![reference],
            Found::Id(id) => index.names_of(&id),
        };
        let mut removed = Vec::new();
        take_names(&mut index, &names, &mut removed);
        self.commit(&mut state, index)?;
        Ok(removed)
    }

    /// Removes a name, and the image with its last one; or an image by id.
    ///
    /// `force` takes an image with several names by id, and one that stopped containers use: those keep its files until they are removed
    /// ([`ImageStore::release`]).
    pub fn remove(&self, name: &str, force: bool, uses: Uses<'_>) -> Result<Vec<Removed>, RemoveError> {
        let mut state = self.state();
        let mut index = state.index.clone();
        let mut removed = Vec::new();
        decide(&mut index, name, force, uses, &mut removed)?;
        self.commit(&mut state, index)?;
        self.collect(&mut state).map_err(StoreError::from)?;
        Ok(removed)
    }

    /// Removes images without a name, or with `all` every image that no container uses; and what pulls that broke off left.
    pub fn prune(&self, all: bool, uses: Uses<'_>) -> Result<Pruned, RemoveError> {
        let mut pruned = self.prune_where(all, &|_| true, uses)?;
        pruned.reclaimed_bytes += self.sweep_partial(true).map_err(StoreError::from)?;
        Ok(pruned)
    }

    /// Of images without a name, or with `all` of all that no container uses, those that `wanted` takes, by id (filters of the API: labels, age).
    /// What pulls left stays: it has neither label nor age, so nobody who filters asked for it.
    pub fn prune_where(
        &self,
        all: bool,
        wanted: &dyn Fn(&Digest) -> bool,
        uses: Uses<'_>,
    ) -> Result<Pruned, RemoveError> {
        let mut state = self.state();
        let mut index = state.index.clone();
        let before = unpacked_bytes(&index);
        let mut pruned = Pruned::default();
        let candidates: Vec<Digest> = index
            .images
            .keys()
            .filter(|id| index.shown(id))
            .cloned()
            .collect();
        for id in candidates {
            let names = index.tags_of(&id);
            if (all || names.is_empty()) && uses(&id).is_empty() && wanted(&id) {
                let names = index.names_of(&id);
                take_names(&mut index, &names, &mut pruned.removed);
                delete(&mut index, &id, false, &mut pruned.removed);
            }
        }
        pruned.reclaimed_bytes = before - unpacked_bytes(&index);
        self.commit(&mut state, index)?;
        self.collect(&mut state).map_err(StoreError::from)?;
        Ok(pruned)
    }

    /// Removes what pulls that broke off left, and then images that no container uses, those without a name before those with one and the longest here before the later, until the disk
    /// has as much room as `low` wants or none is left.
    pub fn make_room(&self, low: LowWater, uses: Uses<'_>) -> Result<Pruned, RemoveError> {
        let mut made = Pruned::default();
        if self.free_bytes()? < low.free_bytes {
            made.reclaimed_bytes += self.sweep_partial(true).map_err(StoreError::from)?;
        }
        while self.free_bytes()? < low.free_bytes {
            let mut state = self.state();
            let mut index = state.index.clone();
            // It would take images and free nothing.
            if index.incomplete {
                break;
            }
            let candidates = index
                .images
                .iter()
                .filter(|(id, record)| !record.hidden && uses(id).is_empty());
            let oldest = candidates
                .map(|(id, record)| (!index.tags_of(id).is_empty(), record.loaded.clone(), id.clone()))
                .filter(|(is_named, _, _)| low.takes_named || !is_named)
                .min();
            let Some((_, _, id)) = oldest else { break };
            let before = unpacked_bytes(&index);
            let names = index.names_of(&id);
            take_names(&mut index, &names, &mut made.removed);
            delete(&mut index, &id, false, &mut made.removed);
            made.reclaimed_bytes += before - unpacked_bytes(&index);
            self.commit(&mut state, index)?;
            self.collect(&mut state).map_err(StoreError::from)?;
        }
        Ok(made)
    }

    /// Bytes that are free where the store lies, what is kept free among them.
    pub fn free_bytes(&self) -> Result<u64, StoreError> {
        Ok(free_bytes(&self.root).at("look at the room for", &self.root)?)
    }

    /// Whether so many bytes more leave what is kept free. Unpacking takes more than an archive's own size: this says only what cannot be.
    pub fn check_room(&self, needed: u64) -> Result<Result<(), RoomError>, StoreError> {
        Ok(check_room(&self.root, needed, &self.limits).at("look at the room for", &self.root)?)
    }

    /// Removes what was kept only for containers that are gone now. The caller calls it after removing a container.
    pub fn release(&self, uses: Uses<'_>) -> Result<(), StoreError> {
        let mut state = self.state();
        let mut index = state.index.clone();
        index
            .images
            .retain(|id, record| !record.hidden || !uses(id).is_empty());
        if index != state.index {
            self.commit(&mut state, index)?;
            self.collect(&mut state)?;
        }
        Ok(())
    }
}

/// Docker's order of questions: a name goes first; the image follows if that was the last and nothing speaks against it.
fn decide(
    index: &mut Index,
    name: &str,
    force: bool,
    uses: Uses<'_>,
    removed: &mut Vec<Removed>,
) -> Result<(), RemoveError> {
    let found = index.find(name).map_err(StoreError::from)?;
    let id = found.id().clone();
    let users = uses(&id);
    let names = index.names_of(&id);
    let is_name = matches!(found, Found::Name(..));
    if let Found::Name(reference, _) = found {
        if !force
            && is_one_name(&names)
            && let Some(user) = users.first()
        {
            return Err(RemoveError::NameInUse {
                reference: reference.familiar(),
                container: short(&user.container),
                id: short(id.hex()),
            });
        }
        take_names(index, std::slice::from_ref(&reference), removed);
        let left = index.names_of(&id);
        let same_repository =
            |name: &&Reference| name.familiar_repository() == reference.familiar_repository();
        if reference.tag().is_some()
            && left
                .iter()
                .filter(same_repository)
                .all(|name| name.tag().is_none())
        {
            // The digests under which the repository served the image go with its last tag there.
            let digests: Vec<Reference> = left.iter().filter(same_repository).cloned().collect();
            take_names(index, &digests, removed);
        }
        if !index.names_of(&id).is_empty() {
            return Ok(());
        }
    } else if !force && !is_one_name(&names) {
        return Err(RemoveError::SeveralNames { id: short(id.hex()) });
    }
    let running = users.iter().find(|user| user.running);
    let stopped = users.iter().find(|user| !user.running);
    match (running, stopped) {
        // The name is gone, the image stays: that is what forcing a name in use means.
        (Some(_), _) if is_name => return Ok(()),
        (Some(user), _) => {
            return Err(RemoveError::Running {
                id: short(id.hex()),
                container: short(&user.container),
            });
        }
        (None, Some(user)) if !force => {
            return Err(RemoveError::Stopped {
                id: short(id.hex()),
                container: short(&user.container),
            });
        }
        _ => {}
    }
    let names = index.names_of(&id);
    take_names(index, &names, removed);
    delete(index, &id, stopped.is_some(), removed);
    Ok(())
}

/// Takes tags away, and digests under which a registry served an image.
fn take_names(index: &mut Index, names: &[Reference], removed: &mut Vec<Removed>) {
    for name in names {
        let mut taken = index.tags.remove(name).is_some();
        for record in index.images.values_mut() {
            let before = record.repo_digests.len();
            record.repo_digests.retain(|known| known != name);
            taken |= record.repo_digests.len() < before;
        }
        if taken {
            removed.push(Removed::Untagged(name.familiar()));
        }
    }
}

/// Removes an image's record, or hides it for the containers that use it, and names the layer chains that nobody else has.
fn delete(index: &mut Index, id: &Digest, keep_files: bool, removed: &mut Vec<Removed>) {
    removed.push(Removed::Deleted(id.clone()));
    if keep_files {
        if let Some(record) = index.images.get_mut(id) {
            record.hidden = true;
        }
        return;
    }
    let Some(record) = index.images.remove(id) else {
        return;
    };
    let others: BTreeSet<Digest> = index
        .images
        .values()
        .flat_map(|other| chain_ids(&other.layers))
        .collect();
    let gone = chain_ids(&record.layers)
        .into_iter()
        .rev()
        .filter(|chain| !others.contains(chain));
    removed.extend(gone.map(Removed::Deleted));
}

/// One tag counts as one name, with the digests of its repository beside it.
fn is_one_name(names: &[Reference]) -> bool {
    let repository = |name: &Reference| name.familiar_repository();
    names.iter().filter(|name| name.tag().is_some()).count() <= 1
        && names
            .windows(2)
            .all(|pair| repository(&pair[0]) == repository(&pair[1]))
}

fn unpacked_bytes(index: &Index) -> u64 {
    let layers = index.images.values().flat_map(|record| &record.layers);
    let unique: std::collections::BTreeMap<&Digest, u64> =
        layers.map(|layer| (&layer.diff_id, layer.bytes)).collect();
    unique.values().sum()
}

/// An id's first digits; what is no id stays whole.
fn short(user: &str) -> String {
    let is_id = user.bytes().all(|byte| byte.is_ascii_hexdigit());
    let most = if is_id { SHORT_DIGITS } else { usize::MAX };
    user.chars().take(most).collect()
}
