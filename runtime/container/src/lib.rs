//! A container's life: from a plan to processes, and back to nothing.
//!
//! Keeps libcontainer out of every other crate. Contains no tokio and no HTTP.
#![forbid(unsafe_code)]

pub mod capability;
pub mod cgroup;
pub mod client;
pub mod create;
pub mod discard;
mod executor;
pub mod files;
pub mod frames;
pub mod handle;
pub mod hook;
mod idmap;
mod init;
pub mod join;
mod launch;
mod notify;
pub mod outcome;
pub mod plan;
mod preflight;
mod prepare;
pub mod rootfs;
pub mod spec;
pub mod stage;
pub mod supervise;

#[cfg(test)]
#[path = "../../../integration/src/required.rs"]
mod required;
