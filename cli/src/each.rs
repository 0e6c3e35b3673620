//! The same request for several containers or images.
//!
//! Owns choosing them (`--all`, `--latest`, `--cidfile`) and telling every failure. Invariant: one that fails does not keep the others from being
//! tried, and the exit status tells it.

use std::path::PathBuf;

use futures_util::future::join_all;

use crate::bounded::{self, ReadError};
use crate::client::{Client, ClientError, Target};
use crate::failure::{ENGINE, Failure, describe};
use crate::listing::{ListingError, filters, items};
use crate::output;

/// How many requests run at once: enough to stop many containers in one grace period, few enough for the daemon's sockets.
const AT_ONCE: usize = 32;
/// A container id and a line break, with room.
const CIDFILE_BYTES_MAX: u64 = 256;

/// Why nothing can be chosen.
#[derive(Debug, thiserror::Error)]
pub enum ChoiceError {
    /// Nothing was named.
    #[error("name at least one container, or use --all or --latest")]
    Nothing,
    /// Names and `--all`.
    #[error("names and --all or --latest cannot be used together")]
    Both,
    /// There is no container.
    #[error("there is no container yet")]
    NoneYet,
    /// A file with an id cannot be read.
    #[error("--cidfile")]
    Cidfile(#[source] ReadError),
    /// A filter.
    #[error(transparent)]
    Filter(#[from] ListingError),
    /// The daemon.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Which containers are meant.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Chosen {
    /// Names or ids of containers
    #[arg(value_name = "CONTAINER")]
    pub names: Vec<String>,
    /// All of them
    #[arg(short, long)]
    pub all: bool,
    /// The one that was created last
    #[arg(short, long, conflicts_with = "all")]
    pub latest: bool,
    /// Those whose id stands in a file
    #[arg(long, value_name = "FILE")]
    pub cidfile: Vec<PathBuf>,
    /// Those that fit, as in name=web or label=app=db
    #[arg(long, value_name = "NAME=VALUE")]
    pub filter: Vec<String>,
}

impl Chosen {
    /// Names what is meant; `status` narrows `--all` to containers of these states, where there are any.
    pub async fn resolve(&self, client: &Client, status: &[&str]) -> Result<Vec<String>, ChoiceError> {
        let mut names = self.names.clone();
        for path in &self.cidfile {
            let text = bounded::read_text(path, CIDFILE_BYTES_MAX).map_err(ChoiceError::Cidfile)?;
            names.push(text.trim().to_owned());
        }
        let selects = self.all || self.latest || !self.filter.is_empty();
        match (selects, names.is_empty()) {
            (false, true) => return Err(ChoiceError::Nothing),
            (false, false) => return Ok(names),
            (true, false) => return Err(ChoiceError::Both),
            (true, true) => {}
        }
        if self.latest {
            return Ok(vec![latest(client).await?]);
        }
        let mut wanted = self.filter.clone();
        wanted.extend(status.iter().map(|word| format!("status={word}")));
        let target = Target::new("/containers/json")
            .query("all", "1")
            .maybe("filters", filters(&wanted)?.as_deref());
        let answer = client.get(target).await?;
        Ok(items(&answer)
            .iter()
            .filter_map(|row| row["Id"].as_str())
            .map(str::to_owned)
            .collect())
    }
}

/// The container that was created last.
pub async fn latest(client: &Client) -> Result<String, ChoiceError> {
    let answer = client
        .get(Target::new("/containers/json").query("limit", "1"))
        .await?;
    items(&answer)
        .first()
        .and_then(|row| row["Id"].as_str())
        .map(str::to_owned)
        .ok_or(ChoiceError::NoneYet)
}

/// One container's name, or the latest where `-l` says so.
pub async fn one(client: &Client, name: Option<&str>, is_latest: bool) -> Result<String, ChoiceError> {
    match (name, is_latest) {
        (Some(name), false) => Ok(name.to_owned()),
        (None, true) => latest(client).await,
        (None, false) => Err(ChoiceError::Nothing),
        (Some(_), true) => Err(ChoiceError::Both),
    }
}

/// What one of several requests came to.
pub enum Told {
    /// This line goes to standard output.
    Line(String),
    /// Nothing to say.
    Nothing,
}

/// Makes the requests; tells each outcome in the order in which the things were named.
pub async fn run<F, O>(names: &[String], request: F, status_of: fn(&ClientError) -> u8) -> Result<u8, Failure>
where
    F: Fn(String) -> O,
    O: Future<Output = Result<Told, ClientError>>,
{
    let mut status = 0;
    for some in names.chunks(AT_ONCE) {
        for outcome in join_all(some.iter().cloned().map(&request)).await {
            match outcome {
                Ok(Told::Line(line)) => output::line(&line)?,
                Ok(Told::Nothing) => {}
                Err(error) => {
                    output::complain(&format!("Error: {}", describe(&error)));
                    let its = status_of(&error);
                    status = if status == 0 { its } else { status.max(its) };
                }
            }
        }
    }
    Ok(status)
}

/// The exit status of a removal that failed, Podman's: 1 where it does not exist, 2 where it is in use or runs.
pub fn removal_status(error: &ClientError) -> u8 {
    match error.status() {
        Some(404) => 1,
        Some(409) => 2,
        _ => ENGINE,
    }
}

/// The exit status of a failed request, for most commands.
pub const fn engine_status(_: &ClientError) -> u8 {
    ENGINE
}
