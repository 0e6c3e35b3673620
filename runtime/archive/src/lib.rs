//! Tars and the trees they come from and go to: what a layer, `docker cp`, an export and a commit have in common.
//!
//! A crate of its own because two very different processes need it and neither the other's company: the image store, which links TLS and codecs, and
//! the shim, which holds privileges and links as little as can be. Owns the tar format, read ([`tarball`]) and written ([`writer`]), the walk through a tree that
//! somebody hostile may be changing ([`walk`]), putting entries into such a tree ([`place`]), putting back a backup ([`restore`]), and what a writable layer changed ([`changes`]). Knows neither
//! images nor containers.
//!
//! Invariants: every step in a tree is taken by a descriptor, with no link followed but within the root that was given; memory grows neither with
//! the archive nor with the files of a tree, but with the names of its largest folder and its hard links, both bounded.
#![forbid(unsafe_code)]

pub mod changes;
mod entries;
pub mod place;
pub mod restore;
mod sparse;
pub mod tarball;
pub mod walk;
pub mod writer;

pub use entries::{Ids, TreeError};
pub use sparse::{SparseError, SparseMap};

#[cfg(test)]
#[path = "../../../integration/src/required.rs"]
mod required;
