//! `kakoi load`: images out of an archive.

use std::path::PathBuf;

use hyper::Method;

use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::progress::{self, Upload};

/// The arguments of `kakoi load`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The archive; standard input where it is absent
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Print nothing but the names
    #[arg(short, long)]
    quiet: bool,
}

/// Loads images.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let upload = Upload::open(arguments.input.as_deref(), arguments.quiet)?;
    let target = Target::new("/images/load").query("quiet", if arguments.quiet { "1" } else { "0" });
    let (body, bar) = upload.into_body();
    let stream = client.stream(Method::POST, &target, body).await?;
    progress::show(stream, &bar, arguments.quiet).await?;
    Ok(0)
}
