//! `kakoi os`: the operating system of a device with two slots.
//!
//! Owns the words about how it stands. Making an image happens in this process ([`pack`]); installing one is the daemon's.

mod pack;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use hyper::Method;
use kakoi_api::image::Progress;
use kakoi_api::os::{OsEvent, OsHeld, OsStatus};
use serde_json::Value;

use crate::client::{Client, ClientError, JsonStream, Target, empty_body};
use crate::credentials::Credentials;
use crate::failure::Failure;
use crate::layout::path_of;
use crate::listing::{items, pretty};
use crate::progress::{self, ProgressError, Upload};
use crate::{output, text};

/// The end of the help.
const EXIT_STATUS: &str =
    "Exit status: 0 it is armed, and runs after the next start of the device; 125 it is not";

/// Commands about the operating system.
#[derive(Subcommand, Debug)]
pub enum OsCommand {
    /// Make the slot that runs the good one, without waiting for the device to be well
    Commit,
    /// Show what happened to the operating system
    History(FormatArguments),
    /// Bring an image into the slot that does not run, and have the boot loader try it
    #[command(after_help = EXIT_STATUS)]
    Install(InstallArguments),
    /// Make an artifact of the image of a slot, to be pushed, or carried as a file
    Pack(pack::Arguments),
    /// Send an artifact that was packed to a registry
    Push(PushArguments),
    /// Stop an install, leave an image on trial, or go back to what ran before the one that was committed
    Rollback(RollbackArguments),
    /// Show how it stands with the slots
    Status(FormatArguments),
}

/// How an answer is written.
#[derive(clap::Args, Debug)]
pub struct FormatArguments {
    /// text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    format: String,
}

/// The arguments of `kakoi os install`.
#[derive(clap::Args, Debug)]
pub struct InstallArguments {
    /// Start the device anew when the slot is written
    #[arg(long)]
    reboot: bool,
    /// Although the image failed on this device before
    #[arg(long)]
    again: bool,
    /// Print nothing while it works
    #[arg(short, long)]
    quiet: bool,
    /// The file with credentials, in Docker's format
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE", hide_env_values = true)]
    authfile: Option<PathBuf>,
    /// The image in its registry; or the path of a file or folder, with / or . in front
    #[arg(value_name = "NAME[:TAG|@DIGEST]|FILE")]
    source: String,
}

/// The arguments of `kakoi os push`.
#[derive(clap::Args, Debug)]
pub struct PushArguments {
    /// Print nothing while it works
    #[arg(short, long)]
    quiet: bool,
    /// The file with credentials, in Docker's format
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE", hide_env_values = true)]
    authfile: Option<PathBuf>,
    /// What `kakoi os pack` wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where to
    #[arg(value_name = "NAME:TAG")]
    name: String,
}

/// The arguments of `kakoi os rollback`.
#[derive(clap::Args, Debug)]
pub struct RollbackArguments {
    /// Start the device anew to go back to what ran before
    #[arg(long)]
    reboot: bool,
}

/// Runs a command about the operating system.
pub async fn run(command: OsCommand, client: &Client) -> Result<u8, Failure> {
    match command {
        OsCommand::Commit => told(&client.post(Target::new("/os").segment("commit"), None).await?),
        OsCommand::History(arguments) => history(&arguments, client).await,
        OsCommand::Install(arguments) => install(&arguments, client).await,
        OsCommand::Pack(arguments) => pack::run(&arguments),
        OsCommand::Push(arguments) => push(&arguments, client).await,
        OsCommand::Rollback(arguments) => {
            let target = Target::new("/os")
                .segment("rollback")
                .flag("restart", arguments.reboot);
            told(&client.post(target, None).await?)
        }
        OsCommand::Status(arguments) => status(&arguments, client).await,
    }
}

fn read<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, ClientError> {
    serde_json::from_value(value.clone()).map_err(|cause| ClientError::Json {
        request: "os".to_owned(),
        cause,
    })
}

fn told(raw: &Value) -> Result<u8, Failure> {
    output::print(&spoken(&read(raw)?))?;
    Ok(0)
}

/// The path that a source is, where it is one.
fn file_of(source: &str) -> Option<&Path> {
    let is_path = source.starts_with(['/', '.']);
    path_of(source).or(is_path.then(|| Path::new(source)))
}

async fn install(arguments: &InstallArguments, client: &Client) -> Result<u8, Failure> {
    let target = Target::new("/os")
        .segment("install")
        .flag("restart", arguments.reboot)
        .flag("again", arguments.again);
    let (target, body) = match file_of(&arguments.source) {
        // The daemon says how far it is with the slot, which is what takes time.
        Some(path) => (target, Upload::open(Some(path), true)?.into_body().0),
        None => {
            let name = &arguments.source;
            let credentials = Credentials::header_for(arguments.authfile.as_deref(), name)?;
            (target.query("name", name).credentials(credentials), empty_body())
        }
    };
    let stream = client.stream(Method::POST, &target, body).await?;
    let (said, aux) = follow(stream, arguments.quiet).await?;
    if !arguments.quiet {
        output::complain(&said);
    }
    let status: OsStatus = read(&aux)?;
    let words = match arguments.reboot {
        true => "the device starts anew to try it",
        false => "start the device anew to try it",
    };
    output::line(&format!(
        "{} is in its slot: {words}",
        text::cell(&status.version)
    ))?;
    Ok(0)
}

async fn push(arguments: &PushArguments, client: &Client) -> Result<u8, Failure> {
    let credentials = Credentials::header_for(arguments.authfile.as_deref(), &arguments.name)?;
    let target = Target::new("/os")
        .segment("push")
        .query("name", &arguments.name)
        .credentials(credentials);
    let (body, bar) = Upload::open(Some(&arguments.file), arguments.quiet)?.into_body();
    let stream = client.stream(Method::POST, &target, body).await?;
    let followed = follow(stream, true).await;
    bar.finish_and_clear();
    output::line(&followed?.0)?;
    Ok(0)
}

/// Shows how far it is; gives the last line, and what a program wants to know.
async fn follow(mut stream: JsonStream, is_quiet: bool) -> Result<(String, Value), Failure> {
    let bar = progress::steps("Writing", is_quiet);
    let (mut said, mut aux) = (String::new(), Value::Null);
    while let Some(document) = stream.next().await? {
        let step: Progress = read(&document)?;
        if let Some(words) = progress::failure(&step) {
            bar.finish_and_clear();
            return Err(ProgressError::Failed(words).into());
        }
        match step.progress_detail {
            Some(detail) => {
                bar.set_length(u64::try_from(detail.total).unwrap_or(0));
                bar.set_position(u64::try_from(detail.current).unwrap_or(0));
            }
            None => said = text::printable(&step.status),
        }
        aux = step.aux.unwrap_or(aux);
    }
    bar.finish_and_clear();
    Ok((said, aux))
}

async fn status(arguments: &FormatArguments, client: &Client) -> Result<u8, Failure> {
    let raw = client.get(Target::new("/os")).await?;
    if arguments.format == "json" {
        output::print(&pretty(&raw)?)?;
        return Ok(0);
    }
    told(&raw)
}

/// Why the last upgrade did not come to be, for `kakoi why os`.
pub async fn why(format: &str, client: &Client) -> Result<u8, Failure> {
    let raw = client.get(Target::new("/os")).await?;
    if format == "json" {
        output::print(&pretty(&raw)?)?;
        return Ok(0);
    }
    let status: OsStatus = read(&raw)?;
    let line = match status.phase.as_str() {
        "rolled-back" => format!("{} was rolled back: {}", named(&status), status.reason),
        "idle" => "nothing was installed yet".to_owned(),
        "committed" => format!("{} runs and is good", named(&status)),
        "trial" if status.waits_for.is_empty() => format!("{} is on trial and well so far", named(&status)),
        "trial" => format!(
            "{} is on trial and waits: {}",
            named(&status),
            status.waits_for.join("; ")
        ),
        phase => format!("{} is {phase}", named(&status)),
    };
    output::line(&text::cell(&line))?;
    for (label, words) in [("trouble", &status.trouble), ("watchdog", &status.watchdog)] {
        if !words.is_empty() {
            output::line(&format!("{label}: {}", text::cell(words)))?;
        }
    }
    Ok(0)
}

fn named(status: &OsStatus) -> String {
    let short: String = status.image.chars().take(19).collect();
    match status.version.as_str() {
        "" => short,
        version => format!("version {version} ({short})"),
    }
}

fn of_slot(held: Option<&OsHeld>) -> String {
    match held {
        Some(held) => format!("version {} from {}", held.version, held.reference),
        None => "not known".to_owned(),
    }
}

/// How it stands, for people.
fn spoken(status: &OsStatus) -> String {
    let mark = |slot: &str| {
        let mut marks = Vec::new();
        if status.running == slot {
            marks.push("runs".to_owned());
        }
        if status.good == slot {
            marks.push("is the good one".to_owned());
        }
        if status.trying == slot {
            marks.push(format!("on trial, {} starts left", status.left));
        }
        match marks.is_empty() {
            true => String::new(),
            false => format!(" ({})", marks.join(", ")),
        }
    };
    let mut rows = vec![
        ("board", status.board.clone()),
        ("image", status.repository.clone()),
        ("slot a", of_slot(status.slot_a.as_ref()) + &mark("a")),
        ("slot b", of_slot(status.slot_b.as_ref()) + &mark("b")),
    ];
    let phase = match status.phase.as_str() {
        "" => "not known".to_owned(),
        "idle" => "idle: nothing was installed yet".to_owned(),
        phase => format!("{phase}: {}", named(status)),
    };
    rows.push(("phase", phase));
    if let Some(progress) = &status.progress {
        let done = progress.kept + progress.zeros + progress.copied + progress.fetched;
        rows.push((
            "written",
            format!(
                "{done} of {} bytes, {} of them fetched",
                progress.total, progress.fetched
            ),
        ));
    }
    for words in &status.waits_for {
        rows.push(("waits for", words.clone()));
    }
    if status.needs_restart {
        rows.push(("restart", "the device is to be started anew".to_owned()));
    }
    for (label, words) in [
        ("reason", &status.reason),
        ("floor", &status.floor),
        ("watchdog", &status.watchdog),
        ("trouble", &status.trouble),
    ] {
        if !words.is_empty() {
            rows.push((label, words.clone()));
        }
    }
    for blocked in &status.blocked {
        let short: String = blocked.image.chars().take(19).collect();
        rows.push((
            "blocked",
            format!("{short} since {}: {}", blocked.at, blocked.reason),
        ));
    }
    let mut page = String::new();
    for (label, said) in rows {
        page.push_str(&format!("{label:<9} {}\n", text::cell(&said)));
    }
    page
}

async fn history(arguments: &FormatArguments, client: &Client) -> Result<u8, Failure> {
    let raw = client.get(Target::new("/os").segment("history")).await?;
    if arguments.format == "json" {
        output::print(&pretty(&raw)?)?;
        return Ok(0);
    }
    for item in items(&raw) {
        let event: OsEvent = read(item)?;
        let reason = match event.reason.as_str() {
            "" => String::new(),
            reason => format!(": {reason}"),
        };
        let short: String = event.image.chars().take(19).collect();
        let said = format!("{}  {}  {} {short}{reason}", event.at, event.what, event.version);
        output::line(&text::cell(&said))?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_looks_like_one() {
        for (source, path) in [
            ("/media/usb/os.tar", Some("/media/usb/os.tar")),
            ("./os.tar", Some("./os.tar")),
            ("oci:/os.tar", Some("/os.tar")),
            ("registry.example.com/acme/os:1", None),
            ("os:1", None),
        ] {
            assert_eq!(file_of(source), path.map(Path::new), "{source}");
        }
    }

    #[test]
    fn every_state_is_told() {
        let status = OsStatus {
            board: "gw".into(),
            running: "b".into(),
            good: "a".into(),
            trying: "b".into(),
            left: 1,
            slot_b: Some(OsHeld {
                image: "sha256:1".into(),
                version: "2.0".into(),
                reference: "r.example/os:2\u{1b}[31m".into(),
            }),
            phase: "trial".into(),
            version: "2.0".into(),
            waits_for: vec!["web: it is unhealthy".into()],
            ..OsStatus::default()
        };
        let page = spoken(&status);
        assert!(page.contains("slot a    not known (is the good one)"), "{page}");
        assert!(page.contains("(runs, on trial, 1 starts left)"), "{page}");
        assert!(
            page.contains("waits for web: it is unhealthy") && !page.contains('\u{1b}'),
            "{page}"
        );
    }
}
