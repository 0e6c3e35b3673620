//! What a pull that broke off leaves for the next one.
//!
//! Owns `<root>/images/partial`: beginnings of blobs, and layers of a pull that did not come to its end. Refuses to fetch, and to judge: whoever
//! goes on from a beginning hashes it again, and the digest of the whole decides. Invariants: nobody but the next pull of the same digest sees
//! any of it; it stays within number, bytes and age; one pull has a thing at a time.
//!
//! ```text
//! partial/<blob>                              the beginning of a layer's blob, as a registry sends it; empty while that is fetched first
//! partial/<blob>-<diff id>-<bytes>/layer      a layer, unpacked, verified and synced; <bytes> are those of its files
//! partial/<blob>-<diff id>-<bytes>/recipe     what its folder does not hold of its tar
//! ```
//!
//! The first time that a blob is fetched none of its packed bytes are written: an undisturbed pull would wear the flash half as much again for
//! nothing. That it was begun is written, an empty file, and whoever finds that at the next pull keeps what comes.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::digest::Digest;
use crate::fault;
use crate::guard::check_room;
use crate::load::Made;
use crate::store::{ImageStore, LOST_AND_FOUND, Staging, State};
use crate::tree::{
    At, FileError, create_private, make_private_dir, remove_tree, rename, sync_dir, sync_file_system,
};

/// The folder, below the store's.
pub(crate) const PARTIAL: &str = "partial";
/// How long something is kept. Who has not tried again for a week has another image by then. A clock that stands in 1970 keeps all; number and
/// bytes bound it then.
const AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// How many bytes are written between two looks at the disk.
const LOOK_EVERY_BYTES: u64 = 4 << 20;

/// Something kept that one pull has for itself; it is free again when this goes.
pub(crate) struct Claim<'a> {
    store: &'a ImageStore,
    name: String,
}

impl Claim<'_> {
    fn path(&self) -> PathBuf {
        self.store.root.join(PARTIAL).join(&self.name)
    }

    /// Removes it: it has served.
    pub(crate) fn remove(&self) -> Result<(), FileError> {
        let mut state = self.store.state();
        self.store
            .discard(&mut state, std::iter::once(self.name.as_str()))
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.store.state().claimed.remove(&self.name);
    }
}

/// The beginning of a blob, as far as it is kept, and as far as this pull adds to it.
pub(crate) struct Beginning<'a> {
    claim: Claim<'a>,
    file: File,
    bytes: u64,
    /// Whether what comes is added; not at the first time, nor where the disk is too full for it.
    grows: bool,
    looked_at: u64,
    size: u64,
}

impl Beginning<'_> {
    /// How many bytes are kept.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads what is kept.
    pub(crate) fn reader(&self) -> Result<impl Read + use<>, FileError> {
        let path = self.claim.path();
        Ok(File::open(&path).at("open", &path)?.take(self.bytes))
    }

    /// Adds what came next. What cannot be written is not kept, and the pull goes on.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        if !self.grows {
            return;
        }
        if self.bytes >= self.looked_at + LOOK_EVERY_BYTES {
            self.looked_at = self.bytes;
            self.grows = self.claim.store.has_room_for_beginning(self.bytes, self.size);
        }
        if let Err(error) = self.file.write_all(bytes) {
            tracing::info!(%error, "ignoring that a layer's beginning cannot be kept");
            self.grows = false;
        } else {
            self.bytes += bytes.len() as u64;
        }
    }

    /// Begins at nothing again, after what was kept turned out to be something else.
    pub(crate) fn restart(&mut self) {
        self.bytes = 0;
        self.looked_at = 0;
        self.grows = self.file.set_len(0).is_ok();
    }

    /// Removes it: it has served, or is good for nothing.
    pub(crate) fn remove(self) -> Result<(), FileError> {
        self.claim.remove()
    }
}

/// One thing in the folder.
struct Kept {
    name: String,
    bytes: u64,
    modified: SystemTime,
}

impl ImageStore {
    /// Opens what is kept of a blob, and notes that it is being fetched where nothing is. `None` where a blob is too small to be kept, or another
    /// pull has it; a pull does not fail for any of this.
    pub(crate) fn beginning(&self, blob: &Digest, size: u64) -> Option<Beginning<'_>> {
        if size < self.limits.partial_bytes_min {
            return None;
        }
        let claim = self.claim(blob.hex().to_owned())?;
        let path = claim.path();
        let is_ours = |meta: &Metadata| meta.is_file() && meta.len() <= size;
        let known = fs::symlink_metadata(&path).ok().filter(is_ours);
        let bytes = known.as_ref().map(Metadata::len);
        let open = || match known {
            Some(_) => OpenOptions::new().append(true).open(&path).at("open", &path),
            None => {
                remove_tree(&path)?;
                drop(create_private(&path)?);
                OpenOptions::new().append(true).open(&path).at("open", &path)
            }
        };
        match open() {
            Ok(file) => Some(Beginning {
                grows: bytes.is_some_and(|bytes| self.has_room_for_beginning(bytes, size)),
                bytes: bytes.unwrap_or(0),
                claim,
                file,
                looked_at: 0,
                size,
            }),
            Err(error) => {
                tracing::info!(%error, "ignoring that a layer's beginning cannot be kept");
                None
            }
        }
    }

    /// Whether more of a blob may be kept: the rest of it must find room twice, packed and unpacked.
    fn has_room_for_beginning(&self, bytes: u64, size: u64) -> bool {
        let needed = (size - bytes.min(size)).saturating_mul(2);
        let has_room = check_room(&self.root, needed, &self.limits).is_ok_and(|room| room.is_ok());
        bytes < self.limits.partials_bytes_max && has_room
    }

    /// Moves a verified layer of a pull that goes on to where it outlives that pull.
    pub(crate) fn keep_layer<'a>(
        &'a self,
        staging: &std::path::Path,
        (blob, diff_id): (&Digest, &Digest),
        made: Made,
    ) -> Result<(Option<Claim<'a>>, Made), FileError> {
        let name = format!("{}-{}-{}", blob.hex(), diff_id.hex(), made.bytes);
        let Some(claim) = self.claim(name) else {
            return Ok((None, made));
        };
        let (aside, place) = (staging.join(&claim.name), claim.path());
        make_private_dir(&aside)?;
        rename(&made.folder, &aside.join("layer"))?;
        rename(&made.recipe, &aside.join("recipe"))?;
        sync_file_system(&aside)?;
        claim.remove()?;
        rename(&aside, &place)?;
        sync_dir(&self.root.join(PARTIAL))?;
        fault::point("layer-kept");
        let made = Made {
            folder: place.join("layer"),
            recipe: place.join("recipe"),
            bytes: made.bytes,
        };
        Ok((Some(claim), made))
    }

    /// A layer that an earlier pull brought from the same blob.
    pub(crate) fn kept_layer(&self, blob: &Digest, diff_id: &Digest) -> Option<(Claim<'_>, Made)> {
        let prefix = format!("{}-{}-", blob.hex(), diff_id.hex());
        let names = fs::read_dir(self.root.join(PARTIAL)).ok()?.flatten();
        let mut names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let name = names.find(|name| name.starts_with(&prefix))?;
        let bytes = layer_bytes(&name)?;
        let claim = self.claim(name)?;
        let (folder, recipe) = (claim.path().join("layer"), claim.path().join("recipe"));
        let is_whole = folder.is_dir() && recipe.is_file();
        let made = Made {
            folder,
            recipe,
            bytes,
        };
        is_whole.then_some((claim, made))
    }

    /// Removes what is too much, or too old, or with `all` whatever no pull has; tells the bytes.
    pub(crate) fn sweep_partial(&self, all: bool) -> Result<u64, FileError> {
        let mut state = self.state();
        let mut kept = self.list_partial(&state)?;
        kept.sort_by(|a, b| (b.modified, &a.name).cmp(&(a.modified, &b.name)));
        let (mut count, mut bytes) = (0, 0u64);
        kept.retain(|one| {
            let (more, sum) = (count + 1, bytes.saturating_add(one.bytes));
            let is_old = one.modified.elapsed().is_ok_and(|age| age > AGE_MAX);
            let is_too_much = more > self.limits.partials_max || sum > self.limits.partials_bytes_max;
            let goes = all || is_old || is_too_much;
            if !goes {
                (count, bytes) = (more, sum);
            }
            goes
        });
        self.discard(&mut state, kept.iter().map(|one| one.name.as_str()))?;
        Ok(kept.iter().map(|one| one.bytes).sum())
    }

    /// Removes things by their names, each at once: half a layer must never be taken for one, also after a power cut in the middle of this.
    fn discard<'n>(&self, state: &mut State, names: impl Iterator<Item = &'n str>) -> Result<(), FileError> {
        let folder = self.root.join(PARTIAL);
        let mut moved = Vec::new();
        for name in names {
            let path = folder.join(name);
            if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
                moved.extend(self.move_out(state, &path)?);
            } else {
                // Half a beginning is a beginning.
                remove_tree(&path)?;
            }
        }
        if !moved.is_empty() {
            sync_dir(&folder)?;
        }
        moved.iter().try_for_each(|path| remove_tree(path))
    }

    /// Removes what is kept of a blob, unless another pull has it.
    pub(crate) fn forget_partial(&self, blob: &Digest) {
        let kept = self.list_partial(&self.state()).unwrap_or_default();
        for one in kept.into_iter().filter(|one| one.name.starts_with(blob.hex())) {
            if let Some(Err(error)) = self.claim(one.name).map(|claim| claim.remove()) {
                tracing::warn!(%error, "ignoring what a pull left that cannot be removed");
            }
        }
    }

    /// Bytes of what is kept.
    pub(crate) fn partial_bytes(&self) -> Result<u64, FileError> {
        let state = self.state();
        Ok(self.list_partial(&state)?.iter().map(|kept| kept.bytes).sum())
    }

    /// What no pull has at the moment. What has no name of ours is not ours.
    fn list_partial(&self, state: &State) -> Result<Vec<Kept>, FileError> {
        let folder = self.root.join(PARTIAL);
        let mut kept = Vec::new();
        for entry in fs::read_dir(&folder).at("list", &folder)? {
            let entry = entry.at("list", &folder)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !is_partial(&name) || state.claimed.contains(&name) {
                continue;
            }
            let meta = entry.metadata().at("look at", &entry.path())?;
            kept.push(Kept {
                bytes: layer_bytes(&name).unwrap_or(meta.len()),
                modified: meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                name,
            });
        }
        Ok(kept)
    }

    fn claim(&self, name: String) -> Option<Claim<'_>> {
        let is_free = self.state().claimed.insert(name.clone());
        is_free.then_some(Claim { store: self, name })
    }
}

impl<'a> Staging<'a> {
    /// Takes over a layer that is kept: it goes with this work's success, and stays with its failure.
    pub(crate) fn take_claim(&mut self, claim: Claim<'a>) {
        self.claims.push(claim);
    }

    /// Removes what is left of them once they are published. The store's state is not locked.
    pub(crate) fn remove_claims(&self) {
        for claim in &self.claims {
            if let Err(error) = claim.remove() {
                tracing::warn!(%error, "ignoring what a pull left that cannot be removed");
            }
        }
    }
}

/// Whether a name in the folder is one that is given here.
pub(crate) fn is_partial(name: &str) -> bool {
    name != LOST_AND_FOUND && (Digest::from_hex(name).is_some() || layer_bytes(name).is_some())
}

/// The bytes of a kept layer, by its name.
fn layer_bytes(name: &str) -> Option<u64> {
    let mut parts = name.split('-');
    Digest::from_hex(parts.next()?)?;
    Digest::from_hex(parts.next()?)?;
    let bytes = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some(bytes)
}
