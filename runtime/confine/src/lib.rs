//! The security waist: what a kernel can enforce, and the one place where it is told to.
//!
//! Every process of a container passes through [`apply`], the first one and those that `exec` adds, and executes nothing before
//! it holds exactly what its [`Confinement`](kakoi_policy::confinement::Confinement) says. Contains no policy syntax and never retries:
//! a step that fails ends the process, and [`StartFailure`] carries the reason to whoever asked for it.
#![forbid(unsafe_code)]

mod apply;
mod capability;
mod descriptors;
mod devices;
mod doctor;
mod failure;
mod filter;
mod identity;
mod landlock;
mod own;
mod probe;
mod seccomp;

pub use apply::{ApplyError, Entry, apply, apply_with};
pub use capability::{CapabilityError, capabilities_before_apply, capabilities_for};
pub use descriptors::DescriptorError;
pub use devices::guard_devices;
pub use doctor::{Finding, FindingState, doctor};
pub use failure::{MESSAGE_BYTES_MAX, StartFailure};
pub use identity::IdentityError;
pub use landlock::LandlockError;
pub use own::{Granted, NarrowError, Part, narrow};
pub use probe::{ProbeError, probe};
pub use seccomp::{Deliver, SeccompError};
