//! `kakoi load`: images out of an archive.

use std::path::{Path, PathBuf};

use hyper::Method;

use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::progress::{self, Upload};

/// The arguments of `kakoi load`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The archive, or a folder that is an OCI layout; standard input where it is absent
    #[arg(short, long, value_name = "PATH")]
    input: Option<PathBuf>,
    /// Print nothing but the names
    #[arg(short, long)]
    quiet: bool,
}

/// Loads images.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    load(client, arguments.input.as_deref(), arguments.quiet).await?;
    Ok(0)
}

/// Loads the images of an archive or of an OCI layout's folder; from standard input where there is no path.
pub async fn load(client: &Client, path: Option<&Path>, is_quiet: bool) -> Result<(), Failure> {
    let upload = Upload::open(path, is_quiet)?;
    let target = Target::new("/images/load").query("quiet", if is_quiet { "1" } else { "0" });
    let (body, bar) = upload.into_body();
    let stream = client.stream(Method::POST, &target, body).await?;
    progress::show(stream, &bar, is_quiet).await?;
    Ok(())
}
