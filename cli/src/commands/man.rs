//! `kakoi man`: the manual pages, from the definitions of the commands.

use std::io;
use std::path::PathBuf;

use clap::CommandFactory as _;

use crate::failure::Failure;

/// The arguments of `kakoi man`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The folder that receives the pages
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// A page cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("writing manual pages into {}", .path.display())]
pub struct ManError {
    path: PathBuf,
    #[source]
    cause: io::Error,
}

/// Writes a page for each command.
pub fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let folder = &arguments.folder;
    let wrong = |cause| ManError {
        path: folder.clone(),
        cause,
    };
    std::fs::create_dir_all(folder).map_err(wrong)?;
    clap_mangen::generate_to(crate::arguments::Arguments::command(), folder).map_err(wrong)?;
    Ok(0)
}
