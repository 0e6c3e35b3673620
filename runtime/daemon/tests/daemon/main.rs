//! The real daemon and the real shim, spoken to over the socket. Needs root.

mod files;
mod given;
mod hostile;
mod knobs;
mod links;
mod lives;
mod owner;
#[path = "../../../../integration/src/required.rs"]
mod required;
mod soak;
mod volumes;
