//! What a later release brings: words that people will type, answered plainly.

use crate::failure::Failure;

/// Whatever follows the word.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Whatever would be said
    #[arg(num_args = 0.., trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    words: Vec<String>,
}

/// What is not there yet.
#[derive(Debug, thiserror::Error)]
pub enum LaterError {
    /// Published ports.
    #[error(
        "published ports come with a later release: a container on --network host uses the device's own ports, as far as its policy permits"
    )]
    Ports,
}

/// Answers the word about ports.
pub fn ports() -> Result<u8, Failure> {
    Err(LaterError::Ports.into())
}
