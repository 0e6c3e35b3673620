//! The content store: images taken in, verified, unpacked, named, told about, given out and removed.
//!
//! A crate of its own for its **dependencies** (tar, zlib, zstd, SHA-256, TLS), which nothing else needs, and because all of its input is hostile.
//! Owns `<root>/images`, and the way to registries ([`registry`]). Refuses to run anything and to know containers (a caller says who uses an image).
//! Blocking throughout; [`ImageStore`] is `Send + Sync`, so an async caller shares it and gives each call a thread.
//!
//! | to | call |
//! |---|---|
//! | open (locks it, cleans up after an unclean stop) | [`ImageStore::open`] |
//! | `load` an archive from any reader | [`ImageStore::load`] → `Vec<`[`Loaded`]`>` |
//! | make a container | [`ImageStore::resolve`] → [`Image`]`{id, document.config, layers}`, **topmost layer first** |
//! | `pull` from a registry | [`ImageStore::pull`] with a [`registry::Client`] |
//! | tell why it was let in | [`ImageStore::evidence`] → [`Origin`] |
//! | `import` a root file system | [`ImageStore::import`] with [`ImportOptions`] |
//! | `commit` a container | [`ImageStore::commit_layer`] with [`CommitOptions`] |
//! | `save` | [`ImageStore::save`] into any writer |
//! | turn `USER` or `--user` into numbers | [`resolve_user`] over [`Image::layers`], for `exec` with the writable layer before them |
//! | `images`, `inspect`, `history`, `system df` | [`ImageStore::list`], [`inspect`](ImageStore::inspect), [`history`](ImageStore::history), [`disk_usage`](ImageStore::disk_usage) |
//! | `tag`, `untag`, `rmi`, `image prune` | [`ImageStore::tag`], [`untag`](ImageStore::untag), [`remove`](ImageStore::remove), [`prune`](ImageStore::prune) |
//! | install an operating system | [`OsArchive`] of a file, or [`OsDocuments`] and [`registry::Parts`] of a registry |
//! | `system check` | [`ImageStore::check`] |
//! | before something comes in | [`ImageStore::make_room`], [`ImageStore::check_room`] |
//! | after a container was removed, and once after the daemon's start | [`ImageStore::release`] |
//! | answer a client with an error | [`client_message`] of it, `is_conflict`, `is_disk_full`; [`ResolveError::NotFound`] is a 404 |
//!
//! Layers are ready as overlayfs lowerdirs: a removed file is a character device 0:0, a folder that hides those below it has
//! `trusted.overlay.opaque=y`. Whoever copies layers instead of mounting them must copy the lowest first, remove what a 0:0 device names, and
//! empty a folder before copying an opaque one over it. A path of a layer has about 90 bytes: for more than 40 layers in one mount(2) call,
//! open them and name them as `/proc/self/fd/N`.
//!
//! Invariants: nothing is visible before it is whole, verified against its digests and synced; no archive writes outside the store; memory does
//! not grow with the archive. See `store` for the disk, `recipe` for what is kept of a layer's tar, `unpack` for what becomes of a tar's entries, `limits` for the bounds.
#![forbid(unsafe_code)]

// Tests that are also fuzz targets name this crate as a stranger does.
#[cfg(test)]
extern crate self as kakoi_image;

mod archive;
mod artifact;
mod changes;
mod check;
mod commit;
mod compression;
mod config;
mod digest;
mod evidence;
mod fault;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod guard;
mod import;
mod index;
mod inspect;
mod layered;
mod limits;
mod load;
mod measure;
mod partial;
mod recipe;
mod reference;
pub mod registry;
mod remove;
mod save;
mod spool;
mod store;
mod tree;
mod unpack;
mod users;

#[cfg(test)]
mod tests;

pub use archive::{ArchiveError, architecture};
pub use artifact::{ARCHIVE_BYTES_MAX, ArtifactError, OsArchive, OsDocuments, image_digest};
pub use changes::{ChangeError, apply_change};
pub use check::{CheckReport, Damage, Depth, Finding, Lost, Outcome, Repair};
pub use commit::{CommitError, CommitOptions};
pub use compression::{decoded, is_compressed};
pub use config::{ConfigDocument, ConfigError, Empty, Healthcheck, HistoryStep, ImageConfig, RootFs};
pub use digest::{Digest, DigestError};
pub use evidence::{Carried, Origin, OriginDigests, intake_time};
pub use guard::{RoomError, StreamRefusal};
pub use import::{ImportError, ImportOptions};
pub use index::ResolveError;
pub use inspect::{Details, DiskUsage, HistoryEntry, Summary};
pub use kakoi_archive::SparseError;
pub use kakoi_archive::tarball::TarError;
pub use layered::real_path;
pub use limits::Limits;
pub use load::{LoadError, Loaded, Progress};
pub use reference::{DEFAULT_REGISTRY, DEFAULT_TAG, Reference, ReferenceError};
pub use remove::{LowWater, Pruned, RemoveError, Removed, Still, Use, Uses};
pub use save::{ArchiveFormat, SaveError};
pub use spool::SpoolError;
pub use store::{Image, ImageStore, StoreError};
pub use tree::{FileError, client_message};
pub use unpack::{UnpackError, Unpacked};
pub use users::{User, UserError, resolve_user};

#[cfg(test)]
#[path = "../../../integration/src/required.rs"]
mod required;
