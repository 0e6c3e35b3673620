//! The words that clients and the daemon exchange: Docker Engine API v1.51 shapes and Kakoi's own additions.
//!
//! Owns the wire types, their decoding ([`decode()`]) and the framing of streams ([`stream`]). Pure: no handler, no clock, no IO.
//! Invariant: a response carries each field that Docker's carries, `null`, `""` or `0` where there is nothing; a request may leave
//! out or null any field, spell a field's name in any case (Go's decoder allows it, so clients do it) and carry fields unknown here.
//! No type here grants anything by its `Default`: absent means not asked for.
//!
//! The crate is its own because it is pure: daemon, command line and tests share it and nothing else.
#![forbid(unsafe_code)]

#[macro_use]
mod wire;
pub mod app;
pub mod audit;
pub mod container;
pub mod decode;
pub mod exec;
pub mod host;
pub mod image;
pub mod kakoi;
pub mod network;
pub mod os;
pub mod registry;
pub mod secret;
pub mod stats;
pub mod stream;
pub mod system;
pub mod trust;
pub mod volume;

pub use decode::{DecodeError, decode};
pub use wire::{Empty, Words};

/// The newest Engine API version that is spoken.
pub const API_VERSION: &str = "1.51";

/// The oldest Engine API version that is accepted.
pub const API_VERSION_MIN: &str = "1.24";

/// The time that stands for "never", as Go writes its zero time.
pub const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

wire! { "snake_case";
    /// The body of every error answer.
    pub struct ErrorBody {
        /// What went wrong, in one sentence for a person.
        pub message: String,
        /// Kakoi's own: why a program did not start, `command_not_found` (127) or `command_not_executable` (126); absent otherwise.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub kind: String,
    }
}
