//! `kakoi save`: images into an archive.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};

use hyper::Method;
use hyper::body::Incoming;
use kakoi_api::image::NOTE_HEADER;

use crate::client::{Client, ClientError, Target, empty_body, next_chunk};
use crate::failure::Failure;
use crate::{output, progress};

/// The arguments of `kakoi save`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The archive; standard output where it is absent
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// Names or ids of images
    #[arg(value_name = "IMAGE", required = true)]
    names: Vec<String>,
}

/// Why no archive comes out.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// An archive on a terminal helps nobody.
    #[error("an archive is not for a terminal: write it to a file with -o FILE, or redirect it")]
    Terminal,
    /// The file cannot be written.
    #[error("writing {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// Saves images.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    if arguments.output.is_none() && output::is_terminal() {
        return Err(SaveError::Terminal.into());
    }
    let mut target = Target::new("/images/get");
    for name in &arguments.names {
        target = target.query("names", name);
    }
    // Asked before the file is touched: an image that does not exist must not cost an old archive.
    let answer = client.open(Method::GET, &target, empty_body()).await?;
    if let Some(note) = answer.headers().get(NOTE_HEADER).filter(|_| !arguments.quiet) {
        output::complain(&format!("note: {}", String::from_utf8_lossy(note.as_bytes())));
    }
    let body = answer.into_body();
    match &arguments.output {
        None => copy(body, &mut io::stdout().lock(), Path::new("standard output"), true).await?,
        Some(path) => save_to(path, body, arguments.quiet).await?,
    }
    Ok(0)
}

/// Writes aside and renames, so that half an archive never bears the name.
pub(super) async fn save_to(path: &Path, body: Incoming, is_quiet: bool) -> Result<(), Failure> {
    let wrong = |cause| SaveError::Write {
        path: path.to_owned(),
        cause,
    };
    let is_special = std::fs::metadata(path).is_ok_and(|found| !found.is_file());
    if is_special {
        let mut file = OpenOptions::new().write(true).open(path).map_err(wrong)?;
        return copy(body, &mut file, path, is_quiet).await;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let aside = path.with_file_name(name);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&aside)
        .map_err(wrong)?;
    let written = copy(body, &mut file, path, is_quiet).await;
    let named = written.and_then(|()| {
        file.sync_all()
            .and_then(|()| std::fs::rename(&aside, path))
            .map_err(|cause| wrong(cause).into())
    });
    if named.is_err() {
        std::fs::remove_file(&aside).ok();
    }
    named
}

/// Writes what comes to where it goes.
pub(super) async fn copy(
    mut body: Incoming,
    to: &mut impl io::Write,
    path: &Path,
    is_quiet: bool,
) -> Result<(), Failure> {
    let bar = progress::counter("Saving", is_quiet);
    while let Some(bytes) = next_chunk(&mut body)
        .await
        .map_err(|cause| ClientError::Protocol {
            request: "save".to_owned(),
            cause,
        })?
    {
        bar.inc(bytes.len() as u64);
        match to.write_all(&bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return output::closed_is_quiet(Err(error));
            }
            Err(cause) => {
                return Err(SaveError::Write {
                    path: path.to_owned(),
                    cause,
                }
                .into());
            }
        }
    }
    bar.finish_and_clear();
    to.flush().map_err(|cause| {
        SaveError::Write {
            path: path.to_owned(),
            cause,
        }
        .into()
    })
}
