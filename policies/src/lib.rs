//! The policy language: what a person writes, made into what a kernel enforces.
//!
//! Pure: no input or output, no clock, no system call, so that all of it can be tested and fuzzed on a laptop.
#![forbid(unsafe_code)]

pub mod confinement;
pub mod kernel;
