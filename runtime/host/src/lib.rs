//! The device below the apps: the two slots of its operating system, the watchdog, and the interfaces that are open.
//!
//! Knows nothing of containers, registries and signatures: what is written and whether the device is well is said by the caller.
#![forbid(unsafe_code)]

pub mod lockdown;
pub mod slots;
pub mod watchdog;

#[cfg(test)]
#[path = "../../../integration/src/required.rs"]
mod required;
