//! The policy language from text to programs: what the shipped profiles allow and refuse, and what goes wrong how.

mod apps;
mod attacks;
mod composing;
mod docker;
mod explaining;
mod fuzz;
mod given;
mod host;
mod language;
mod limits;
mod linting;
mod oci;
mod privileges;
mod profiles;
mod programs;
mod publishing;
mod reaching;
