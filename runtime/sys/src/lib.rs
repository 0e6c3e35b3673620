//! Thin safe wrappers over system calls.
//!
//! Exists to quarantine **unsafe**: every unsafe block of Kakoi stands here, one call per block. Only what `nix` and `caps` do not offer
//! safely is wrapped. Owns descriptors as `OwnedFd`, close-on-exec from birth; every error carries the name of the call that failed.
//! Takes no decisions and knows nothing of containers or policies.

pub mod audit;
pub mod bpf;
pub mod capability;
pub mod descriptors;
pub mod environment;
mod error;
pub mod event;
pub mod identity;
pub mod limit;
pub mod mount;
pub mod namespace;
pub mod network;
pub mod path;
pub mod process;
pub mod quota;
pub mod sealed;
pub mod seccomp;
pub mod socket;
pub mod system;
pub mod terminal;
pub mod watchdog;
pub mod xattr;

pub use error::{CallError, Result};
pub use nix::errno::Errno;

#[cfg(test)]
#[path = "../../../integration/src/required.rs"]
mod required;
