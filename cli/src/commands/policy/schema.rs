//! `kakoi policy schema`: the JSON Schema of policies.

use crate::failure::Failure;
use crate::listing::pretty;
use crate::output;

/// The arguments of `kakoi policy schema`.
#[derive(clap::Args, Debug)]
pub struct Arguments {}

/// Prints the schema.
pub fn run(_: &Arguments) -> Result<u8, Failure> {
    output::print(&pretty(&kakoi_policy::json_schema())?)?;
    Ok(0)
}
