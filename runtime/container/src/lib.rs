//! A container's life: from a plan to processes, and back to nothing.
//!
//! Keeps libcontainer out of every other crate. Contains no tokio and no HTTP.
#![forbid(unsafe_code)]

pub mod cgroup;
pub mod frames;
pub mod plan;
