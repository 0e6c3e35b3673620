//! `kakoi tags` and `kakoi manifest inspect`: what a registry has, without fetching it.

use std::path::PathBuf;

use serde_json::Value;

use crate::client::{Client, Target};
use crate::credentials::Credentials;
use crate::failure::Failure;
use crate::{output, text};

/// The arguments of `kakoi tags`.
#[derive(clap::Args, Debug)]
pub struct TagsArguments {
    /// The file with credentials, in Docker's format
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE", hide_env_values = true)]
    authfile: Option<PathBuf>,
    /// As one JSON document
    #[arg(long)]
    json: bool,
    /// The repository
    #[arg(value_name = "NAME")]
    name: String,
}

/// Commands about manifests.
#[derive(clap::Subcommand, Debug)]
pub enum ManifestCommand {
    /// Show the manifest or index that a name leads to
    Inspect(ManifestArguments),
}

/// The arguments of `kakoi manifest inspect`.
#[derive(clap::Args, Debug)]
pub struct ManifestArguments {
    /// The file with credentials, in Docker's format
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE", hide_env_values = true)]
    authfile: Option<PathBuf>,
    /// Digest, size and type too
    #[arg(short, long)]
    verbose: bool,
    /// The image
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    name: String,
}

/// Lists the tags of a repository.
pub async fn tags(arguments: TagsArguments, client: &Client) -> Result<u8, Failure> {
    let target = Target::new("/registry/tags")
        .query("name", &arguments.name)
        .credentials(Credentials::header_for(
            arguments.authfile.as_deref(),
            &arguments.name,
        )?);
    let answer = client.get(target).await?;
    if arguments.json {
        output::line(&format!("{answer:#}"))?;
        return Ok(0);
    }
    let tags = answer["Tags"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    let lines: String = tags.map(|tag| text::printable(tag) + "\n").collect();
    output::print(&lines)?;
    Ok(0)
}

/// Shows a manifest.
pub async fn manifest(command: ManifestCommand, client: &Client) -> Result<u8, Failure> {
    let ManifestCommand::Inspect(arguments) = command;
    let target = Target::new("/registry/manifest")
        .query("name", &arguments.name)
        .credentials(Credentials::header_for(
            arguments.authfile.as_deref(),
            &arguments.name,
        )?);
    let mut answer = client.get(target).await?;
    let document = answer["Document"].as_str().unwrap_or_default();
    let parsed: Value = serde_json::from_str(document).unwrap_or_else(|_| document.into());
    let shown = match arguments.verbose {
        false => parsed,
        true => {
            answer["Document"] = parsed;
            answer
        }
    };
    output::line(&format!("{shown:#}"))?;
    Ok(0)
}
