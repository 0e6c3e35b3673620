//! `kakoi import`: an image out of the archive of a file tree.

use std::path::PathBuf;

use hyper::Method;

use super::tag;
use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::progress::{self, Upload};

/// The arguments of `kakoi import`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Change the image's configuration, as in 'CMD ["/bin/sh"]' or 'ENV A=1'
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// A comment in the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Print nothing but the id
    #[arg(short, long)]
    quiet: bool,
    /// The archive; - is standard input
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
    /// Name of the image
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
}

/// Imports an image.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let file = (arguments.file.as_os_str() != "-").then_some(arguments.file.as_path());
    let upload = Upload::open(file, arguments.quiet)?;
    let (repository, tag) = arguments.name.as_deref().map_or((None, None), |name| {
        let (repository, tag) = tag::split(name);
        (Some(repository), tag)
    });
    let mut target = Target::new("/images/create")
        .query("fromSrc", "-")
        .maybe("repo", repository)
        .maybe("tag", tag)
        .maybe("message", arguments.message.as_deref());
    for instruction in &arguments.change {
        target = target.query("changes", instruction);
    }
    let (body, bar) = upload.into_body();
    let stream = client.stream(Method::POST, &target, body).await?;
    progress::show(stream, &bar, arguments.quiet).await?;
    Ok(0)
}
