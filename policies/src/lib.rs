//! The policy language: what a person writes, made into what a kernel enforces.
//!
//! Pure: no input or output, no clock, no system call, so that all of it can be tested and fuzzed on a laptop.
//!
//! ```text
//! text ──parse──▶ Policy ──compose──▶ Composed ──request──▶ Composed ──bound──▶ Composed ──compile──▶ Confinement
//!                 (one file)  (extends)          (flags)               (owner)             (kernel)
//! ```
//!
//! ```
//! use kakoi_policy::{Ceiling, Requests, ShippedOnly, bound, compose, parse};
//!
//! let policy = parse("app.yaml", "kakoi: 1\nextends: [strict]\nfiles: {write: [/data]}\n")?;
//! let composed = compose(&policy, &ShippedOnly)?.request(&Requests::none());
//! let allowed = bound(&composed, &Ceiling::built_in())?;
//! assert_eq!(allowed.name, "app");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod app;
pub mod bpf;
pub mod capability;
pub mod ceiling;
pub mod compile;
pub mod compose;
pub mod confinement;
mod constants;
mod decode;
pub mod diagnostics;
pub mod docker_profile;
mod egress;
pub mod explain;
pub mod host;
pub mod kernel;
mod lint;
pub mod model;
pub mod oci;
pub mod privileges;
mod reference;
pub mod render;
mod request;
mod schema;
pub mod shipped;
mod syscalls;
pub mod units;
mod yaml;

pub use app::{App, parse_app};
pub use capability::{Capability, CapabilityWord};
pub use ceiling::{
    Bounded, Ceiling, Excess, NetworkExcess, OwnLimits, ULIMITS, bound, bound_limits, bound_neighbours,
    bound_network,
};
pub use compile::{CompileError, compile};
pub use compose::{Composed, Resolver, ShippedOnly, compose, unknown_parents};
pub use decode::parse;
pub use diagnostics::{Diagnostic, Diagnostics, Origin, Severity};
pub use explain::{Answer, Question, explain};
pub use host::{Host, parse_host};
pub use lint::lint;
pub use model::Policy;
pub use oci::{OciSeccompError, from_oci};
pub use reference::reference;
pub use request::{
    Amount, DeviceNumbersRequest, DeviceRequest, HostNamespace, LimitRequests, MountRequest,
    NeighbourRequests, NetworkRequest, PortProtocol, PortRequest, Requests, device_access,
};
pub use schema::json_schema;
pub use shipped::{DEFAULT_POLICY, SHIPPED};
pub use syscalls::{audit_arch, system_call_name, system_call_names, system_call_number};
pub use yaml::DOCUMENT_BYTES_MAX;

/// What [`json_schema`] makes, as it is committed: a program that prints it needs none of what makes it.
pub const SCHEMA: &str = include_str!("../schema/kakoi-policy-1.json");

/// What [`reference`] makes, as it is committed.
pub const REFERENCE: &str = include_str!("../REFERENCE.md");
