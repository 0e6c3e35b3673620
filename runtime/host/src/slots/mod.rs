//! Two root slots: which one is good, which one is on trial, and how far an upgrade has come.
//!
//! | to | call |
//! |---|---|
//! | learn which slot runs | [`booted`], from the kernel's command line |
//! | read and change what the boot loader does next | [`BootControl`]: [`BootBlocks`] for boot scripts, [`UbootEnvironment`] for U-Boot's own |
//! | decide about a step of an upgrade | [`transition`] |
//! | learn what is to be done now | [`due`] |
//! | keep the state | [`commit`] and [`load`] |
//!
//! Invariants: the state is written before its act, and every act is one that can be done again; so after a power cut [`due`] names what is missing.
//! A slot that is good stays so until the other one is committed.

mod block;
mod boot;
mod environment;
#[cfg(test)]
mod interop;
mod medium;
mod record;
mod state;
#[cfg(test)]
mod tests;

pub use block::BootBlocks;
pub use boot::{BootControl, Control, ControlError, Slot, Trial, booted};
pub use environment::UbootEnvironment;
pub use medium::Medium;
pub use record::{RecordError, commit, load};
pub use state::{Act, Event, Reason, Refusal, State, Upgrade, due, transition};
