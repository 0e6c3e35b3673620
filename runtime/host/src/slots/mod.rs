//! Two root slots: which one is good, which one is on trial, and how far an upgrade has come.
//!
//! | to | call |
//! |---|---|
//! | learn which slot runs | [`booted`], from the kernel's command line |
//! | read and change what the boot loader does next | [`BootControl`]: [`BootBlocks`] for boot scripts, [`UbootEnvironment`] for U-Boot's own, [`SystemdBoot`], [`BootCommand`] for any other |
//! | upgrade a device | [`Device`], which keeps the state and tells the boot loader |
//! | bring an image into a slot | [`write`](write()), then [`read_back`], by the image's [`Index`] |
//! | see what decides | [`transition`] and [`due`], pure |
//!
//! Invariants: the state is written before its act, and every act is one that can be done again; so after a power cut [`due`] names what is missing.
//! A slot that is good stays so until the other one is committed.

mod block;
mod boot;
mod command;
#[cfg(test)]
mod cuts;
mod device;
mod environment;
mod index;
#[cfg(test)]
mod interop;
mod medium;
mod record;
mod state;
mod systemd_boot;
#[cfg(test)]
mod tests;
mod write;

pub use block::BootBlocks;
pub use boot::{BootControl, Control, ControlError, Slot, Trial, booted};
pub use command::BootCommand;
pub use device::{Device, DeviceError};
pub use environment::UbootEnvironment;
pub use index::{BLOCK_BYTES, INDEX_BYTES_MAX, Index, IndexError};
pub use medium::Medium;
pub use record::{Blocked, Entry, Held, Record, RecordError, Slots, commit, load};
pub use state::{Act, Event, Reason, Refusal, State, Upgrade, due, transition};
pub use systemd_boot::SystemdBoot;
pub use write::{Moved, Room, Source, Tell, WriteError, read_back, write};
