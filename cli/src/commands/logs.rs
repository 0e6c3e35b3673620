//! `kakoi logs`: show what containers printed.

use hyper::Method;
use kakoi_api::stream::Output;

use crate::client::{Client, Target, empty_body, next_chunk};
use crate::each;
use crate::failure::Failure;
use crate::frames::Frames;
use crate::{clock, output};

/// How a log is shown.
#[derive(clap::Args, Debug)]
pub struct How {
    /// Go on as the container prints
    #[arg(short, long)]
    follow: bool,
    /// A time before each line
    #[arg(short, long)]
    timestamps: bool,
    /// Only the last N lines, or all
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        default_value = "all",
        allow_negative_numbers = true
    )]
    tail: String,
    /// Only from a time or duration on, as in 10m or 2026-01-31T12:00:00
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only up to a time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

/// The arguments of `kakoi logs`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    how: How,
    /// Of the container that was created last
    #[arg(short, long)]
    latest: bool,
    /// Names or ids of containers
    #[arg(value_name = "CONTAINER")]
    names: Vec<String>,
}

/// Why no log can be shown.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// Not a number of lines.
    #[error("--tail {0:?} is not a number of lines, and not all")]
    Tail(String),
    /// Following needs one.
    #[error("--follow shows one container at a time")]
    SeveralFollowed,
}

/// Shows logs.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    tail(&arguments.how)?;
    let names = if arguments.names.is_empty() || arguments.latest {
        vec![
            each::one(
                client,
                arguments.names.first().map(String::as_str),
                arguments.latest,
            )
            .await?,
        ]
    } else {
        arguments.names.clone()
    };
    if arguments.how.follow && names.len() > 1 {
        return Err(LogsError::SeveralFollowed.into());
    }
    for name in &names {
        of(client, name, &arguments.how).await?;
    }
    Ok(0)
}

fn tail(how: &How) -> Result<&str, LogsError> {
    match how.tail.as_str() {
        "all" | "-1" => Ok("all"),
        number if number.parse::<u64>().is_ok() => Ok(number),
        other => Err(LogsError::Tail(other.to_owned())),
    }
}

/// Shows the log of one container.
pub async fn of(client: &Client, name: &str, how: &How) -> Result<(), Failure> {
    let time = |flag, text: &Option<String>| text.as_deref().map(|text| clock::parse(flag, text)).transpose();
    let (since, until) = (time("--since", &how.since)?, time("--until", &how.until)?);
    let target = Target::new("/containers")
        .segment(name)
        .segment("logs")
        .query("stdout", "1")
        .query("stderr", "1")
        .query("tail", tail(how)?)
        .flag("follow", how.follow)
        .flag("timestamps", how.timestamps)
        .maybe("since", since.as_deref())
        .maybe("until", until.as_deref());
    show(client, &target).await
}

async fn show(client: &Client, target: &Target) -> Result<(), Failure> {
    let answer = client.open(Method::GET, target, empty_body()).await?;
    // The daemon tells by the content type whether a terminal's bytes come as they are: one request less than asking first.
    let is_raw = answer
        .headers()
        .get(hyper::header::CONTENT_TYPE)
        .is_some_and(|kind| {
            kind.as_bytes()
                .starts_with(kakoi_api::stream::CONTENT_TYPE_RAW.as_bytes())
        });
    let mut body = answer.into_body();
    let mut frames = Frames::new();
    let protocol = |cause| crate::client::ClientError::Protocol {
        request: "logs".to_owned(),
        cause,
    };
    while let Some(bytes) = next_chunk(&mut body).await.map_err(protocol)? {
        if is_raw {
            output::write_bytes(&bytes)?;
            continue;
        }
        for (to, piece) in frames.split(&bytes)? {
            match to {
                Output::Stdout => output::write_bytes(piece)?,
                Output::Stderr => output::write_error_bytes(piece)?,
            }
        }
    }
    Ok(())
}
