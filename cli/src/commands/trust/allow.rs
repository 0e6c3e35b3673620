//! `kakoi trust allow`: let the images of a scope run.

use kakoi_trust::{Mode, NameError, Scope, edit};

use super::file;
use crate::client::Client;
use crate::failure::Failure;
use crate::output;

/// The arguments of `kakoi trust allow`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// require: they run when enough keys signed them; audit: they run, and what is wrong is logged once; reject: they do not run
    #[arg(long, value_name = "MODE", value_parser = ["require", "audit", "reject"])]
    mode: Option<String>,
    /// A key of trust.yaml that counts; with --mode require at least one
    #[arg(long, value_name = "NAME")]
    key: Vec<String>,
    /// The registry, or a part of it, in whole path components: docker.io/library, ghcr.io/acme/app
    #[arg(value_name = "SCOPE")]
    scope: String,
}

/// A scope that is none.
#[derive(Debug, thiserror::Error)]
#[error("not a scope")]
pub struct ScopeError(#[from] NameError);

/// Reads a scope.
pub fn scope(text: &str) -> Result<Scope, ScopeError> {
    Ok(Scope::parse(text)?)
}

/// Changes a scope. Without `--mode` keys are required where any are named, and nothing is where none are.
pub fn run(arguments: &Arguments, client: &Client) -> Result<u8, Failure> {
    let scope = scope(&arguments.scope)?;
    let mode = match arguments.mode.as_deref().and_then(Mode::from_word) {
        Some(mode) => mode,
        None if arguments.key.is_empty() => Mode::Audit,
        None => Mode::Require,
    };
    file::change(client, |text| edit::allow(text, &scope, mode, &arguments.key))?;
    output::line(&format!("{scope}: {}", mode.word()))?;
    Ok(0)
}
