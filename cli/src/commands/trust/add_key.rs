//! `kakoi trust add-key`: let a key sign the images of a scope.

use std::path::PathBuf;

use jiff::Timestamp;
use kakoi_trust::{Mode, PEM_CHARS_MAX, Padding, PublicKey, PublicKeyError, Trust, edit};

use super::{allow, file};
use crate::bounded;
use crate::client::Client;
use crate::failure::Failure;
use crate::output;

/// The arguments of `kakoi trust add-key`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The key's name in trust.yaml; the file's own without it
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What the key's signatures are valid from
    #[arg(long, value_name = "TIME")]
    not_before: Option<Timestamp>,
    /// What they are valid until, as in 2027-03-01T00:00:00Z; let an old key and its successor overlap
    #[arg(long, value_name = "TIME")]
    not_after: Option<Timestamp>,
    /// What an RSA key signs with: pss, or pkcs1v15 as cosign does
    #[arg(long, value_name = "PADDING", default_value = "pss", value_parser = ["pss", "pkcs1v15"])]
    padding: String,
    /// The mode of the scope: require where the scope is new, else what it is
    #[arg(long, value_name = "MODE", value_parser = ["require", "audit", "reject"])]
    mode: Option<String>,
    /// The registry, or a part of it, in whole path components
    #[arg(value_name = "SCOPE")]
    scope: String,
    /// The public key, as cosign and openssl write it (PEM)
    #[arg(value_name = "FILE")]
    key: PathBuf,
}

/// A file that is no public key.
#[derive(Debug, thiserror::Error)]
#[error("{} is no public key that is used here", .path.display())]
pub struct KeyError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub cause: PublicKeyError,
}

/// Adds the key, and lets the scope ask for it.
pub fn run(arguments: &Arguments, client: &Client) -> Result<u8, Failure> {
    let scope = allow::scope(&arguments.scope)?;
    let pem = bounded::read_text(&arguments.key, PEM_CHARS_MAX as u64)?;
    let padding = match arguments.padding.as_str() {
        "pkcs1v15" => Padding::Pkcs1v15,
        _ => Padding::Pss,
    };
    let key = PublicKey::from_pem(&pem, padding).map_err(|cause| KeyError {
        path: arguments.key.clone(),
        cause,
    })?;
    let stem = arguments.key.file_stem().unwrap_or_default().to_string_lossy();
    let name = arguments.name.as_deref().unwrap_or(&stem);
    let mut mode = Mode::Require;
    file::change(client, |text| {
        let added = edit::add_key(text, name, &key, arguments.not_before, arguments.not_after)?;
        let known = Trust::parse("trust.yaml", &added).map_err(edit::EditError::Document)?;
        let there = known.scopes().find(|(other, _)| **other == scope);
        mode = arguments
            .mode
            .as_deref()
            .and_then(Mode::from_word)
            .unwrap_or_else(|| there.map_or(Mode::Require, |(_, rule)| rule.mode));
        edit::allow(Some(&added), &scope, mode, &[name.to_owned()])
    })?;
    output::line(&format!(
        "{name}: {}, {}\n{scope}: {}",
        key.algorithm(),
        key.fingerprint(),
        mode.word()
    ))?;
    Ok(0)
}
