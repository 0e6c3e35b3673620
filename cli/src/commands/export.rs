//! `kakoi export`: write a container's files into an archive.

use std::io;
use std::path::{Path, PathBuf};

use hyper::Method;

use super::save::{self, SaveError};
use crate::client::{Client, Target, empty_body};
use crate::failure::Failure;
use crate::output;

/// The arguments of `kakoi export`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The archive; standard output where it is absent
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The container, by name or id
    #[arg(value_name = "CONTAINER")]
    name: String,
}

/// Exports a container's root file system, without what is mounted in it.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    if arguments.output.is_none() && output::is_terminal() {
        return Err(SaveError::Terminal.into());
    }
    let target = Target::new("/containers")
        .segment(&arguments.name)
        .segment("export");
    let body = client.open(Method::GET, &target, empty_body()).await?.into_body();
    match &arguments.output {
        None => save::copy(body, &mut io::stdout().lock(), Path::new("standard output"), true).await?,
        Some(path) => save::save_to(path, body, true).await?,
    }
    Ok(0)
}
