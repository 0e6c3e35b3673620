//! The store on disk: its folders, its lock, its one index, and what may be collected.
//!
//! Owns every path below `<root>/images`. Refuses to know archive formats. Invariants: only one process has a store open; nothing is named by
//! the index before it is whole, verified and synced; what no image names is removed when the store is opened or an image goes.
//!
//! ```text
//! <root>/images/              0700, as everything below
//!     lock                    locked (flock) for as long as the store is open
//!     index.json              images and tags; replaced as a whole
//!     index.json.previous     the index before its last change, for when the disk damages the one above
//!     blobs/sha256/<hex>      configurations and manifests, byte for byte as they came
//!     layers/<hex>/           an unpacked layer by its diff id, ready as an overlayfs lowerdir
//!     recipes/<hex>           what its folder does not hold of its tar (see `recipe`)
//!     partial/                what pulls that broke off leave for the next ones (see `partial`)
//!     staging/                work in progress; emptied at open
//! ```
//!
//! A layer is kept once, unpacked: folder and recipe give back the very tar for `save` and `push`, and the diff id tells whether they do. The
//! compressed blob is not kept: that would be half as much again of flash, worn for what most devices never do. Versions before kept it
//! (`blobs/sha256/<hex>`, or `<hex>.zst` where it came bare), and such layers are still read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::fcntl::{Flock, FlockArg};

use crate::check::Finding;
use crate::compression::Decoder;
use crate::config::{ConfigDocument, ConfigError};
use crate::digest::Digest;
use crate::fault;
use crate::index::{
    INDEX_FORMAT, INDEX_FORMAT_MIN, Index, LayerRecord, Measures, Record, ResolveError, Stored, WRITER,
};
use crate::limits::Limits;
use crate::load::Made;
use crate::measure::measure_tree;
use crate::partial::{Claim, PARTIAL};
use crate::recipe::Rebuilt;
use crate::tree::{
    At, FileError, REMOVAL, keep_previous, make_private_dir, remove_tree, rename, replace_file, sync_dir,
};

/// The index.
pub(crate) const INDEX: &str = "index.json";
/// The index before its last change.
pub(crate) const INDEX_PREVIOUS: &str = "index.json.previous";
/// The index as it is being written.
pub(crate) const INDEX_ASIDE: &str = "index.json.new";

/// Where `fsck` puts what it finds. It is there wherever a folder is a file system of its own, and never ours.
pub(crate) const LOST_AND_FOUND: &str = "lost+found";

/// What a change of the index leaves where it is cut off.
pub(crate) const INDEX_LEFT: [&str; 2] = [INDEX_ASIDE, "index.json.previous.new"];

/// Largest index read: some ten thousand images, far beyond any device, and a bound for a damaged file.
const INDEX_BYTES_MAX: u64 = 64 << 20;

/// Why the store cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("image store {} is in use by another process", root.display())]
    Locked {
        /// The store.
        root: PathBuf,
    },
    /// A file of the store.
    #[error("image store failed")]
    File(#[from] FileError),
    /// The index is damaged.
    #[error("image index {} is damaged", path.display())]
    IndexDamaged {
        /// The index.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The index is not there, though images are.
    #[error("image index {} is missing", path.display())]
    IndexMissing {
        /// The index.
        path: PathBuf,
    },
    /// The index was written by a newer Kakoi: not damage, and not to be touched.
    #[error(
        "image index has format {format} and was written by {writer}; this version reads formats {INDEX_FORMAT_MIN} to {INDEX_FORMAT}"
    )]
    IndexFormat {
        /// What it says.
        format: u32,
        /// Who wrote it.
        writer: String,
    },
    /// The index says something that this version does not know: not damage, and not to be touched.
    #[error("image index {} was written by {writer} and says what this version does not know", path.display())]
    IndexUnknown {
        /// The index.
        path: PathBuf,
        /// Who wrote it.
        writer: String,
        /// What is not known.
        #[source]
        source: serde_json::Error,
    },
    /// Serialising failed: our own types, so only memory can be the reason.
    #[error("cannot write the image index")]
    IndexWrite(#[source] serde_json::Error),
    /// A name that does not lead to one image.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A configuration in the store that does not read as one.
    #[error("configuration of image {id} is damaged")]
    ConfigDamaged {
        /// The image.
        id: Digest,
        /// What is wrong.
        #[source]
        source: ConfigError,
    },
    /// A manifest, an index or evidence of an image that is not what it was.
    #[error("document {digest} of image {id} is damaged: pull or load the image again")]
    DocumentDamaged {
        /// The image.
        id: Digest,
        /// The document.
        digest: Digest,
    },
    /// A layer that the index names is not there.
    #[error("layer {diff_id} of image {id} is missing: load the image again")]
    LayerMissing {
        /// The image.
        id: Digest,
        /// The layer.
        diff_id: Digest,
    },
}

impl StoreError {
    /// Whether the disk is full.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::File(error) if error.is_disk_full())
    }
}

/// An image, ready to make a container from.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Its id: the digest of its configuration.
    pub id: Digest,
    /// What it was asked for by, where that was a name, in the familiar form.
    pub name: Option<String>,
    /// Its configuration.
    pub document: ConfigDocument,
    /// Unpacked layers, **the topmost first**: overlayfs' `lowerdir` order. A layer that occurs twice is named once, at its topmost place, as
    /// overlayfs refuses a folder given twice; what is seen is the same.
    pub layers: Vec<PathBuf>,
}

/// The images of one root. All methods block; an async caller gives them a thread.
pub struct ImageStore {
    pub(crate) root: PathBuf,
    pub(crate) limits: Limits,
    state: Mutex<State>,
    _lock: Flock<File>,
}

/// What changes while the store is open.
pub(crate) struct State {
    pub(crate) index: Index,
    /// Layers and blobs that work in progress counts on, with the number of its workers.
    pub(crate) pins: BTreeMap<Digest, usize>,
    next_staging: u64,
    /// Names in the staging folder that work in progress has.
    pub(crate) at_work: BTreeSet<String>,
    /// Names in the folder of what pulls left that a pull has.
    pub(crate) claimed: BTreeSet<String>,
    /// What opening the store found and healed; told once by the next check.
    pub(crate) opening: Vec<Finding>,
}

impl ImageStore {
    /// Opens the store under `root` (the daemon's root, `/var/lib/kakoi`), making it where there is none.
    ///
    /// Locks it against other processes, removes what an unclean stop left, and reads the index.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        Self::open_limited(root, Limits::DEVICE)
    }

    /// The same with other limits.
    pub fn open_limited(root: &Path, limits: Limits) -> Result<Self, StoreError> {
        let root = root.join("images");
        for folder in ["blobs/sha256", "layers", "recipes", PARTIAL, "staging"] {
            make_private_dir(&root.join(folder))?;
        }
        let lock = lock(&root)?;
        let (index, damaged) = match read_index(&root.join(INDEX)) {
            Ok(Some(index)) => (index, None),
            Ok(None) => {
                let path = root.join(INDEX);
                let is_lost = has_content(&root)?;
                (Index::new(), is_lost.then_some(StoreError::IndexMissing { path }))
            }
            Err(error @ StoreError::IndexDamaged { .. }) => (Index::new(), Some(error)),
            Err(error) => return Err(error),
        };
        let store = Self {
            root,
            limits,
            state: Mutex::new(State {
                index,
                pins: BTreeMap::new(),
                next_staging: 0,
                at_work: BTreeSet::new(),
                claimed: BTreeSet::new(),
                opening: Vec::new(),
            }),
            _lock: lock,
        };
        let staging = store.root.join("staging");
        for left in fs::read_dir(&staging).at("list", &staging)? {
            remove_tree(&left.at("list", &staging)?.path())?;
        }
        for name in INDEX_LEFT {
            remove_tree(&store.root.join(name))?;
        }
        if let Some(error) = damaged {
            store.rebuild_index(&error)?;
        }
        let mut state = store.state();
        // From here on a store without an index is one that lost it.
        if !store.root.join(INDEX).exists() {
            store.commit(&mut state, Index::new())?;
        }
        store.collect(&mut state)?;
        drop(state);
        store.sweep_partial(false)?;
        Ok(store)
    }

    /// Finds an image by name (`busybox`, `ghcr.io/x/y:1`, `x@sha256:…`), id or the beginning of an id.
    pub fn resolve(&self, name: &str) -> Result<Image, StoreError> {
        let state = self.state();
        let found = state.index.find(name)?;
        let id = found.id().clone();
        let layers = state.index.images[&id].layers.clone();
        drop(state);
        let document = self.document(&id)?;
        let mut seen = BTreeSet::new();
        let mut paths = Vec::new();
        for layer in layers.iter().rev() {
            let path = self.layer_path(&layer.diff_id);
            if !path.is_dir() {
                return Err(StoreError::LayerMissing {
                    id,
                    diff_id: layer.diff_id.clone(),
                });
            }
            if seen.insert(layer.diff_id.clone()) {
                paths.push(path);
            }
        }
        let name = match &found {
            crate::index::Found::Name(reference, _) => Some(reference.familiar()),
            crate::index::Found::Id(_) => None,
        };
        Ok(Image {
            id,
            name,
            document,
            layers: paths,
        })
    }

    /// Says in which registries short names are looked for, in order, as [`Registries::search`](crate::registry::Registries::search) has them.
    pub fn search_in(&self, registries: &[String]) {
        let mut state = self.state();
        if state.index.search != registries {
            state.index.search = registries.to_vec();
        }
    }

    /// The folder of the store.
    pub fn path(&self) -> &Path {
        &self.root
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // The state changes only after what it says is on disk, so a panic elsewhere leaves it true.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers").join(diff_id.hex())
    }

    pub(crate) fn recipe_path(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("recipes").join(diff_id.hex())
    }

    pub(crate) fn blob_path(&self, blob: &Digest, stored: Stored) -> PathBuf {
        let name = match stored {
            Stored::Plain | Stored::Recipe => blob.hex().to_owned(),
            Stored::Zstd => format!("{}.zst", blob.hex()),
        };
        self.root.join("blobs/sha256").join(name)
    }

    /// Reads a small blob (a configuration, a manifest) whole.
    pub(crate) fn read_blob(&self, blob: &Digest, bytes_max: u64) -> Result<Vec<u8>, StoreError> {
        let path = self.blob_path(blob, Stored::Plain);
        let file = File::open(&path).at("open", &path)?;
        let mut bytes = Vec::new();
        file.take(bytes_max).read_to_end(&mut bytes).at("read", &path)?;
        Ok(bytes)
    }

    /// Opens a layer's tar, and tells its size where that is known. Whoever reads it checks that it has the diff id.
    pub(crate) fn open_tar(&self, layer: &LayerRecord) -> Result<(Box<dyn Read>, Option<u64>), FileError> {
        if layer.stored == Stored::Recipe {
            let recipe = self.recipe_path(&layer.diff_id);
            let tar = Rebuilt::open(&recipe, &self.layer_path(&layer.diff_id)).at("read", &recipe)?;
            let bytes = tar.tar_bytes();
            return Ok((Box::new(tar), Some(bytes)));
        }
        let path = self.blob_path(&layer.blob, layer.stored);
        let file = BufReader::with_capacity(64 * 1024, File::open(&path).at("open", &path)?);
        Ok((Box::new(Decoder::new(file).at("read", &path)?), None))
    }

    pub(crate) fn document(&self, id: &Digest) -> Result<ConfigDocument, StoreError> {
        let bytes = self.read_blob(id, self.limits.config_bytes_max)?;
        ConfigDocument::parse(&bytes).map_err(|source| StoreError::ConfigDamaged {
            id: id.clone(),
            source,
        })
    }

    /// Makes the index durable and then true.
    pub(crate) fn commit(&self, state: &mut State, mut index: Index) -> Result<(), StoreError> {
        index.forget_measures();
        (index.format, index.written_by) = (INDEX_FORMAT, WRITER.to_owned());
        let bytes = serde_json::to_vec(&index).map_err(StoreError::IndexWrite)?;
        let path = self.root.join(INDEX);
        keep_previous(&path, &self.root.join(INDEX_PREVIOUS))?;
        replace_file(&path, &self.root.join(INDEX_ASIDE), &bytes)?;
        state.index = index;
        Ok(())
    }

    /// Removes blobs and unpacked layers that neither an image nor work in progress needs. What has no name of ours is not ours to remove.
    pub(crate) fn collect(&self, state: &mut State) -> Result<(), FileError> {
        if state.index.incomplete {
            return Ok(());
        }
        let blobs = state.index.blobs();
        let layers = state.index.layers();
        let needed = |state: &State, set: &BTreeSet<Digest>, name: &str| {
            let digest = Digest::from_hex(name.strip_suffix(".zst").unwrap_or(name));
            digest.is_none_or(|digest| set.contains(&digest) || state.pins.contains_key(&digest))
        };
        let folder = self.root.join("blobs/sha256");
        for entry in fs::read_dir(&folder).at("list", &folder)? {
            let entry = entry.at("list", &folder)?;
            if !needed(state, &blobs, &entry.file_name().to_string_lossy()) {
                fs::remove_file(entry.path()).at("remove", &entry.path())?;
                fault::point("blob-removed");
            }
        }
        let folder = self.root.join("recipes");
        for entry in fs::read_dir(&folder).at("list", &folder)? {
            let entry = entry.at("list", &folder)?;
            if !needed(state, &layers, &entry.file_name().to_string_lossy()) {
                fs::remove_file(entry.path()).at("remove", &entry.path())?;
                fault::point("recipe-removed");
            }
        }
        let folder = self.root.join("layers");
        for entry in fs::read_dir(&folder).at("list", &folder)? {
            let entry = entry.at("list", &folder)?;
            if !needed(state, &layers, &entry.file_name().to_string_lossy()) {
                self.remove_at_once(state, &entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes a file, or a folder by one rename: half a layer must never stand under a layer's name.
    pub(crate) fn remove_at_once(&self, state: &mut State, path: &Path) -> Result<(), FileError> {
        match self.move_out(state, path)? {
            Some(trash) => remove_tree(&trash),
            None => Ok(()),
        }
    }

    /// Moves something out of its place, to where it can be removed bit by bit; tells where, or that it is not there.
    pub(crate) fn move_out(&self, state: &mut State, path: &Path) -> Result<Option<PathBuf>, FileError> {
        let trash = self.root.join(format!("staging/trash-{}", state.number()));
        match fs::rename(path, &trash) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            renamed => renamed.at("move out of place", path)?,
        }
        fault::point("moved-out");
        Ok(Some(trash))
    }

    /// Makes a folder for work in progress; it goes when the handle does.
    pub(crate) fn stage(&self) -> Result<Staging<'_>, FileError> {
        let mut state = self.state();
        let name = format!("work-{}", state.number());
        let path = self.root.join("staging").join(&name);
        make_private_dir(&path)?;
        state.at_work.insert(name);
        drop(state);
        Ok(Staging {
            store: self,
            path,
            pins: Vec::new(),
            claims: Vec::new(),
        })
    }
}

impl State {
    /// Whether work in progress has a name in the staging folder, or takes apart what it had there.
    pub(crate) fn is_at_work(&self, name: &str) -> bool {
        self.at_work.contains(name.strip_suffix(REMOVAL).unwrap_or(name))
    }

    /// The same in the folder of what pulls left.
    pub(crate) fn is_claimed(&self, name: &str) -> bool {
        self.claimed.contains(name.strip_suffix(REMOVAL).unwrap_or(name))
    }

    fn number(&mut self) -> u64 {
        self.next_staging += 1;
        self.next_staging
    }
}

/// Work in progress: a folder, and what it counts on staying.
pub(crate) struct Staging<'a> {
    store: &'a ImageStore,
    pub(crate) path: PathBuf,
    pins: Vec<Digest>,
    pub(crate) claims: Vec<Claim<'a>>,
}

impl Staging<'_> {
    /// Keeps a blob or layer from being collected until this work is over.
    pub(crate) fn pin(&mut self, state: &mut State, digest: &Digest) {
        *state.pins.entry(digest.clone()).or_default() += 1;
        self.pins.push(digest.clone());
    }

    /// The same for all that an image consists of.
    pub(crate) fn pin_image(&mut self, state: &mut State, id: &Digest, record: &Record) {
        for digest in [id, &record.manifest] {
            self.pin(state, digest);
        }
        for layer in &record.layers {
            self.pin(state, &layer.diff_id);
            self.pin(state, &layer.blob);
        }
    }

    /// Moves finished blobs and layers to their places and syncs the folders; tells what they measure. Everything in the staging folder was
    /// synced before.
    pub(crate) fn publish(
        &self,
        blobs: &BTreeMap<Digest, PathBuf>,
        layers: &BTreeMap<Digest, Made>,
    ) -> Result<Measures, FileError> {
        let mut measures = Measures::default();
        for (digest, from) in blobs {
            rename(from, &self.store.blob_path(digest, Stored::Plain))?;
            let to = self.store.blob_path(digest, Stored::Plain);
            let bytes = fs::symlink_metadata(&to).at("look at", &to)?.len();
            measures.blobs.insert(digest.clone(), bytes);
        }
        for (diff_id, made) in layers {
            // Two loads can have unpacked the same layer; both were verified against its diff id, and the first one stays: either recipe fits
            // either folder.
            let recipe = self.store.recipe_path(diff_id);
            if !recipe.exists() {
                rename(&made.recipe, &recipe)?;
            }
            let to = self.store.layer_path(diff_id);
            if !to.exists() {
                rename(&made.folder, &to)?;
            }
            let bytes = fs::symlink_metadata(&recipe).at("look at", &recipe)?.len();
            measures.recipes.insert(diff_id.clone(), bytes);
            measures.layers.insert(diff_id.clone(), measure_tree(&to)?);
        }
        for folder in ["blobs/sha256", "recipes", "layers"] {
            sync_dir(&self.store.root.join(folder))?;
        }
        Ok(measures)
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        let mut state = self.store.state();
        for digest in &self.pins {
            if let Some(count) = state.pins.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    state.pins.remove(digest);
                }
            }
        }
        drop(state);
        if let Err(error) = remove_tree(&self.path) {
            // The next open removes it.
            tracing::warn!(%error, path = %self.path.display(), "ignoring staging folder that cannot be removed");
        }
        // Only now: a check that comes between is not to take it for something that was left behind.
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        self.store.state().at_work.remove(&*name);
    }
}

fn lock(root: &Path) -> Result<Flock<File>, StoreError> {
    let path = root.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .at("open", &path)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => StoreError::Locked {
            root: root.to_owned(),
        },
        errno => StoreError::File(FileError {
            action: "lock",
            path,
            source: errno.into(),
        }),
    })
}

/// Whether anything lies in the store that only an index can have named.
fn has_content(root: &Path) -> Result<bool, FileError> {
    for folder in ["blobs/sha256", "layers", "recipes"] {
        let path = root.join(folder);
        for entry in fs::read_dir(&path).at("list", &path)? {
            if entry.at("list", &path)?.file_name() != LOST_AND_FOUND {
                return Ok(true);
            }
        }
    }
    Ok(root.join(INDEX_PREVIOUS).exists())
}

/// The index at a path, if there is one. It is damaged where it is no JSON or has no format; what another version wrote is an error of its own.
pub(crate) fn read_index(path: &Path) -> Result<Option<Index>, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).at("open", path).map_err(StoreError::from),
    };
    let mut bytes = Vec::new();
    file.take(INDEX_BYTES_MAX)
        .read_to_end(&mut bytes)
        .at("read", path)?;
    let damaged = |source| StoreError::IndexDamaged {
        path: path.to_owned(),
        source,
    };
    /// Read before the rest, since another format may have other fields.
    #[derive(serde::Deserialize)]
    struct Head {
        format: u32,
        #[serde(default)]
        written_by: String,
    }
    let head: Head = serde_json::from_slice(&bytes).map_err(damaged)?;
    let writer = match head.written_by.as_str() {
        "" => "a version that does not say which".to_owned(),
        written_by => written_by.chars().take(100).collect(),
    };
    if !(INDEX_FORMAT_MIN..=INDEX_FORMAT).contains(&head.format) {
        let format = head.format;
        return Err(StoreError::IndexFormat { format, writer });
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| match source.classify() {
            serde_json::error::Category::Data => StoreError::IndexUnknown {
                path: path.to_owned(),
                writer,
                source,
            },
            _ => damaged(source),
        })
}
