//! The lives of containers: the table of them, and what moves one from state to state.
//!
//! One lock per container ([`container::Container::turn`]) serialises what people ask for; the task that watches its shim never takes it before the end
//! has been published, so that a stop that holds the turn sees the end it waits for.

pub mod boot;
pub mod container;
pub mod create;
pub mod freeze;
pub mod health;
mod identity;
mod mounts;
pub mod remove;
pub mod start;
pub mod stop;
pub mod table;
pub mod watch;

pub use table::Table;
