//! `kakoi container exists`, `kakoi image exists`, `kakoi network exists`, `kakoi secret exists`, `kakoi volume exists`: an answer by the exit code alone, 0 or 1.

use super::inspect;
use crate::client::Client;
use crate::failure::Failure;

/// The arguments of `exists`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Name or id
    #[arg(value_name = "NAME")]
    name: String,
}

/// Answers by the exit status.
pub async fn run(arguments: Arguments, collection: &'static str, client: &Client) -> Result<u8, Failure> {
    Ok(u8::from(
        !inspect::exists(&arguments.name, collection, client).await?,
    ))
}
