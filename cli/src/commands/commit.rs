//! `kakoi commit`: make an image of a container and its changes.

use std::path::PathBuf;

use super::tag;
use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::output;

/// The arguments of `kakoi commit`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Who made it
    #[arg(short, long, value_name = "NAME")]
    author: Option<String>,
    /// Change the image's configuration, as in 'CMD ["/bin/sh"]' or 'ENV A=1'
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// A comment in the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Freeze the container meanwhile
    #[arg(short, long)]
    pause: bool,
    /// Write the image's id to this file too
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Print nothing but the id
    #[arg(short, long)]
    quiet: bool,
    /// The container, by name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Name of the image
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
}

/// The id cannot be left where it was asked for.
#[derive(Debug, thiserror::Error)]
#[error("writing the image's id to {}", .path.display())]
pub struct CommitError {
    path: PathBuf,
    #[source]
    cause: std::io::Error,
}

/// Commits a container.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let (repository, tag) = arguments.name.as_deref().map_or((None, None), |name| {
        let (repository, tag) = tag::split(name);
        (Some(repository), tag)
    });
    let mut target = Target::new("/commit")
        .query("container", &arguments.container)
        .query("pause", if arguments.pause { "1" } else { "0" })
        .maybe("repo", repository)
        .maybe("tag", tag)
        .maybe("author", arguments.author.as_deref())
        .maybe("comment", arguments.message.as_deref());
    for instruction in &arguments.change {
        target = target.query("changes", instruction);
    }
    let answer = client.post(target, None).await?;
    let id = answer["Id"].as_str().unwrap_or_default();
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    if let Some(path) = arguments.iidfile {
        std::fs::write(&path, id).map_err(|cause| CommitError { path, cause })?;
    }
    output::line(id)?;
    Ok(0)
}
