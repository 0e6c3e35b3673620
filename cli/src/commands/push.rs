//! `kakoi push`: send an image to its registry.

use std::path::PathBuf;

use hyper::Method;

use super::tag::split;
use crate::client::{Client, Target, empty_body};
use crate::credentials::Credentials;
use crate::failure::Failure;
use crate::progress;

/// The arguments of `kakoi push`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// The file with credentials, in Docker's format
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE", hide_env_values = true)]
    authfile: Option<PathBuf>,
    /// The image
    #[arg(value_name = "NAME[:TAG]")]
    image: String,
    /// Another name to push it under
    #[arg(value_name = "DESTINATION")]
    destination: Option<String>,
}

/// Pushes an image.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let name = arguments.destination.as_deref().unwrap_or(&arguments.image);
    let (repository, tag) = split(name);
    if arguments.destination.is_some() {
        let target = Target::new("/images")
            .segment(&arguments.image)
            .segment("tag")
            .query("repo", repository)
            .maybe("tag", tag);
        client.post(target, None).await?;
    }
    let target = Target::new("/images")
        .segment(repository)
        .segment("push")
        .query("tag", tag.unwrap_or("latest"))
        .credentials(Credentials::header_for(arguments.authfile.as_deref(), name)?);
    let stream = client.stream(Method::POST, &target, empty_body()).await?;
    progress::show_layers(stream, arguments.quiet).await?;
    Ok(0)
}
