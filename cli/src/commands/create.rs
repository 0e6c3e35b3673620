//! `kakoi create`: make a container without starting it.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use kakoi_api::container::CreateAnswer;
use serde_json::Value;

use super::pull::pull;
use crate::client::{Client, ClientError, Target};
use crate::create::{Attached, ContainerFlags, FlagError, ImageAndCommand, create_body};
use crate::failure::Failure;
use crate::output;

/// The arguments of `kakoi create`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    flags: ContainerFlags,
    #[command(flatten)]
    what: ImageAndCommand,
}

/// What is wrong with `--cidfile`.
#[derive(Debug, thiserror::Error)]
pub enum CidfileError {
    /// It is there already: an id that something may rely on is never overwritten.
    #[error("--cidfile {} exists: remove it, or name another file", .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be written.
    #[error("writing --cidfile {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// Makes a container and prints its id.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    if arguments.flags.pidfile.is_some() {
        return Err(FlagError::Unsupported {
            flag: "--pidfile",
            words: "is written when the container starts: use it with 'kakoi run'",
        }
        .into());
    }
    let streams = Attached {
        stdin: arguments.flags.interactive,
        stdout: true,
        stderr: true,
    };
    let made = make(&arguments.flags, &arguments.what, streams, client).await?;
    announce(&made.id)?;
    Ok(0)
}

/// Prints a new container's id.
pub fn announce(id: &str) -> Result<(), Failure> {
    output::line(id)
}

/// Makes a container, writes its id where `--cidfile` says, and passes the daemon's warnings on.
pub async fn make(
    flags: &ContainerFlags,
    what: &ImageAndCommand,
    attached: Attached,
    client: &Client,
) -> Result<CreateAnswer, Failure> {
    let body = create_body(flags, what, attached)?;
    let mut body = serde_json::to_value(&body).map_err(ClientError::Encode)?;
    // The file is made first: a container whose id nobody learns would be left behind.
    let cidfile = flags.cidfile.as_deref().map(open_cidfile).transpose()?;
    if flags.replace {
        replace(flags, client).await?;
    }
    let answer = match post(flags, &mut body, client).await {
        Ok(answer) => answer,
        Err(error) => {
            if let Some(path) = &flags.cidfile {
                std::fs::remove_file(path).ok();
            }
            return Err(error);
        }
    };
    let answer: CreateAnswer = serde_json::from_value(answer).map_err(|cause| ClientError::Json {
        request: "POST /containers/create".to_owned(),
        cause,
    })?;
    if let (Some(mut file), Some(path)) = (cidfile, &flags.cidfile) {
        file.write_all(answer.id.as_bytes())
            .map_err(|cause| CidfileError::Write {
                path: path.clone(),
                cause,
            })?;
    }
    if !flags.quiet {
        for warning in &answer.warnings {
            output::complain(&format!("Warning: {}", crate::text::printable(warning)));
        }
    }
    Ok(answer)
}

/// Removes the container that has the name.
async fn replace(flags: &ContainerFlags, client: &Client) -> Result<(), ClientError> {
    let name = flags.name.as_deref().unwrap_or_default();
    let target = Target::new("/containers").segment(name).query("force", "1");
    match client.delete(target).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// Asks for the container, and for its image first where that is wanted or missing.
async fn post(flags: &ContainerFlags, body: &mut Value, client: &Client) -> Result<Value, Failure> {
    let target = Target::new("/containers/create").maybe("name", flags.name.as_deref());
    let when = flags.pull.as_deref().unwrap_or("missing");
    if when != "always" {
        match client.post(target.clone(), Some(body)).await {
            // Nothing else can be missing when a container is made.
            Err(error) if error.is_not_found() && when == "missing" => {}
            answer => return Ok(answer?),
        }
    }
    let image = body["Image"].as_str().unwrap_or_default().to_owned();
    let pulled = pull(client, &image, None, flags.authfile.as_deref(), flags.quiet).await?;
    // A short name may have been found in one of several registries.
    if !pulled.name.is_empty() {
        body["Image"] = pulled.name.into();
    }
    Ok(client.post(target, Some(body)).await?)
}

fn open_cidfile(path: &Path) -> Result<std::fs::File, CidfileError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|cause| match cause.kind() {
            io::ErrorKind::AlreadyExists => CidfileError::Exists {
                path: path.to_owned(),
            },
            _ => CidfileError::Write {
                path: path.to_owned(),
                cause,
            },
        })
}
