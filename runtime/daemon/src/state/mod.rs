//! What the daemon remembers.
//!
//! Two places. Containers live in a redb file below the root, each commit synced, so that neither `kill -9` nor a power cut takes one
//! away. A container that removes itself when it ends is gone after a reboot by definition; its record is a file in the run-time folder
//! (memory), which outlives the daemon and costs no write to flash.

pub mod copies;
#[cfg(test)]
mod cuts;
pub mod record;
pub mod store;

pub use record::{Life, Record, VolumeRecord};
pub use store::{Store, StoreError};
