//! `kakoi policy schema`: what a policy may say, for editors and for people.

use crate::failure::Failure;
use crate::output;

/// The arguments of `kakoi policy schema`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// How it is written: a JSON Schema for editors, or markdown, a reference for people
    #[arg(long, value_name = "FORMAT", default_value = "json", value_parser = ["json", "markdown"])]
    format: String,
}

/// Prints the schema.
pub fn run(arguments: &Arguments) -> Result<u8, Failure> {
    if arguments.format == "markdown" {
        output::print(kakoi_policy::REFERENCE)?;
    } else {
        output::print(kakoi_policy::SCHEMA)?;
    }
    Ok(0)
}
