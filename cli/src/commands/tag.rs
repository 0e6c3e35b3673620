//! `kakoi tag`: give an image another name.

use crate::client::{Client, Target};
use crate::failure::Failure;

/// The arguments of `kakoi tag`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The image, by name or id
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Its further names
    #[arg(value_name = "NAME[:TAG]", required = true)]
    names: Vec<String>,
}

/// Tags an image.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    for name in &arguments.names {
        let (repository, tag) = split(name);
        let target = Target::new("/images")
            .segment(&arguments.image)
            .segment("tag")
            .query("repo", repository)
            .maybe("tag", tag);
        client.post(target, None).await?;
    }
    Ok(0)
}

/// A name's repository and tag, where it has one.
pub fn split(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (name, None),
    }
}
