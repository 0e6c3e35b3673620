//! `kakoi app`: what should run on this device, version after version.
//!
//! Owns the words about how an app stands. Refuses to read documents: the daemon does, and its diagnostics are shown as they come.

use std::path::PathBuf;

use clap::Subcommand;
use hyper::Method;
use kakoi_api::app::{AppBody, AppEvent, AppStatus};
use serde_json::{Value, json};

use super::logs;
use crate::bounded;
use crate::client::{Client, ClientError, Target, empty_body};
use crate::each::{self, Told};
use crate::failure::Failure;
use crate::listing::{Column, Format, Listing, items, pretty};
use crate::{output, text};

/// The longest document: the daemon reads no longer one.
const DOCUMENT_BYTES_MAX: u64 = 256 << 10;

/// The end of the help.
pub const EXIT_STATUS: &str = "Exit status: 0 what was asked for runs; 1 it was tried and does not run, and what worked before does; 125 it was refused and \
                               nothing changed";

const COLUMNS: [Column; 6] = [
    ("Name", "NAME"),
    ("Generation", "GENERATION"),
    ("Phase", "PHASE"),
    ("State", "STATE"),
    ("Image", "IMAGE"),
    ("Note", "NOTE"),
];

/// Commands about apps.
#[derive(Subcommand, Debug)]
pub enum AppCommand {
    /// Have an app run as its document says, or go on with the version before where the new one fails
    #[command(after_help = EXIT_STATUS)]
    Apply(ApplyArguments),
    /// Show what happened to an app
    History(HistoryArguments),
    /// List apps
    #[command(visible_alias = "ls")]
    List(ListArguments),
    /// Show what the version of an app that runs printed
    Logs(LogsArguments),
    /// Take no other version of an app than the one that runs, whatever document comes
    Pin(PinArguments),
    /// Remove apps with their containers; named volumes stay, and no older generation comes back
    #[command(visible_alias = "rm")]
    Remove(RemoveArguments),
    /// Go back to the version before, or stop an update that is under way
    #[command(after_help = EXIT_STATUS)]
    Rollback(RollbackArguments),
    /// Show how an app stands
    Status(StatusArguments),
    /// Let versions that failed be tried again
    Unblock(NamesArguments),
    /// Let apps take other versions again
    Unpin(NamesArguments),
}

/// The arguments of `kakoi app apply`.
#[derive(clap::Args, Debug)]
pub struct ApplyArguments {
    /// Do not wait for the outcome
    #[arg(short, long)]
    detach: bool,
    /// The document; - is standard input
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
}

/// The arguments of `kakoi app rollback`.
#[derive(clap::Args, Debug)]
pub struct RollbackArguments {
    /// Do not wait for the outcome
    #[arg(short, long)]
    detach: bool,
    /// The app
    #[arg(value_name = "NAME")]
    name: String,
}

/// The arguments of commands about several apps.
#[derive(clap::Args, Debug)]
pub struct NamesArguments {
    /// The apps
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

/// The arguments of `kakoi app pin`.
#[derive(clap::Args, Debug)]
pub struct PinArguments {
    /// Why, for whoever is refused
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// The app
    #[arg(value_name = "NAME")]
    name: String,
}

/// The arguments of `kakoi app remove`.
#[derive(clap::Args, Debug)]
pub struct RemoveArguments {
    /// Forget which generation was taken last, too, also of apps that were removed before: an older document may come again
    #[arg(long)]
    forget: bool,
    /// The apps
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

/// The arguments of `kakoi app list`.
#[derive(clap::Args, Debug)]
pub struct ListArguments {
    /// Only the names
    #[arg(short, long)]
    quiet: bool,
    /// Leave out the titles
    #[arg(short = 'n', long)]
    noheading: bool,
    /// table, json, a template, or table and a template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// The arguments of `kakoi app status`.
#[derive(clap::Args, Debug)]
pub struct StatusArguments {
    /// text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    format: String,
    /// The app
    #[arg(value_name = "NAME")]
    name: String,
}

/// The arguments of `kakoi app history`.
#[derive(clap::Args, Debug)]
pub struct HistoryArguments {
    /// text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    format: String,
    /// The app
    #[arg(value_name = "NAME")]
    name: String,
}

/// The arguments of `kakoi app logs`.
#[derive(clap::Args, Debug)]
pub struct LogsArguments {
    #[command(flatten)]
    how: logs::How,
    /// The app
    #[arg(value_name = "NAME")]
    name: String,
}

/// Why a command about apps failed.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// It was tried, and does not run.
    #[error("app {name}: {why}")]
    Failed {
        /// The app.
        name: String,
        /// Why.
        why: String,
    },
    /// Nothing ran yet.
    #[error("app {0} has no version that ran: kakoi app status {0}")]
    NothingYet(String),
}

/// Runs a command about apps.
pub async fn run(command: AppCommand, client: &Client) -> Result<u8, Failure> {
    match command {
        AppCommand::Apply(arguments) => apply(&arguments, client).await,
        AppCommand::History(arguments) => history(&arguments, client).await,
        AppCommand::List(arguments) => list(arguments, client).await,
        AppCommand::Logs(arguments) => show_logs(arguments, client).await,
        AppCommand::Pin(arguments) => {
            let body = json!({ "Reason": arguments.reason });
            client
                .post(of(&arguments.name).segment("pin"), Some(&body))
                .await?;
            output::line(&arguments.name)?;
            Ok(0)
        }
        AppCommand::Unpin(arguments) => {
            let request = async |name: String| {
                client.post(of(&name).segment("unpin"), None).await?;
                Ok(Told::Line(name))
            };
            each::run(&arguments.names, request, each::engine_status).await
        }
        AppCommand::Remove(arguments) => {
            let request = async |name: String| {
                client.delete(of(&name).flag("forget", arguments.forget)).await?;
                Ok(Told::Line(name))
            };
            each::run(&arguments.names, request, each::engine_status).await
        }
        AppCommand::Rollback(arguments) => {
            let target = of(&arguments.name)
                .segment("rollback")
                .flag("wait", !arguments.detach);
            follow(client, &target, empty_body()).await
        }
        AppCommand::Status(arguments) => status(&arguments, client).await,
        AppCommand::Unblock(arguments) => {
            let request = async |name: String| {
                client.post(of(&name).segment("unblock"), None).await?;
                Ok(Told::Line(name))
            };
            each::run(&arguments.names, request, each::engine_status).await
        }
    }
}

fn of(name: &str) -> Target {
    Target::new("/apps").segment(name)
}

fn read<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, ClientError> {
    serde_json::from_value(value.clone()).map_err(|cause| ClientError::Json {
        request: "apps".to_owned(),
        cause,
    })
}

async fn apply(arguments: &ApplyArguments, client: &Client) -> Result<u8, Failure> {
    let is_input = arguments.file.as_os_str() == "-";
    let body = AppBody {
        document: bounded::read_text(&arguments.file, DOCUMENT_BYTES_MAX)?,
        file: match is_input {
            true => "standard input".to_owned(),
            false => arguments.file.display().to_string(),
        },
    };
    let body = serde_json::to_value(&body).map_err(ClientError::Encode)?;
    let target = Target::new("/apps").flag("wait", !arguments.detach);
    follow(client, &target, crate::client::json_body(Some(&body))?).await
}

/// Tells each phase as it comes, and what came of it all.
async fn follow(client: &Client, target: &Target, body: crate::client::Body) -> Result<u8, Failure> {
    let mut lines = client.stream(Method::POST, target, body).await?;
    let mut last: Option<AppStatus> = None;
    while let Some(line) = lines.next().await? {
        let status: AppStatus = read(&line)?;
        if status.phase != "steady" {
            output::complain(&said_of_phase(&status));
        }
        last = Some(status);
    }
    let Some(status) = last else {
        return Ok(0);
    };
    let why = match (status.failure.as_str(), status.trouble.as_str()) {
        _ if status.phase != "steady" => {
            // Nobody waits for it.
            output::line(&status.name)?;
            return Ok(0);
        }
        ("", "") => {
            output::line(&said_of_end(&status))?;
            return Ok(0);
        }
        ("", trouble) => trouble.to_owned(),
        (failure, "") => format!("{failure}; {}", returned(&status)),
        (failure, trouble) => format!("{failure}; and what worked before is not back: {trouble}"),
    };
    Err(Failure::new(
        1,
        AppError::Failed {
            name: status.name,
            why: text::printable(&why),
        },
    ))
}

fn returned(status: &AppStatus) -> String {
    match &status.current {
        Some(current) => format!("generation {} runs", current.generation),
        None => "nothing ran before".to_owned(),
    }
}

fn said_of_phase(status: &AppStatus) -> String {
    let name = text::cell(&status.name);
    let about = status.candidate.as_ref().or(status.current.as_ref());
    let generation = about.map_or(status.floor, |version| version.generation);
    let attempt = match status.attempt {
        1 => String::new(),
        number => format!(", attempt {number}"),
    };
    format!("{name}: {} (generation {generation}{attempt})", status.phase)
}

fn said_of_end(status: &AppStatus) -> String {
    let current = status.current.as_ref();
    let generation = current.map_or(0, |version| version.generation);
    format!(
        "{}: generation {generation} is {}",
        text::cell(&status.name),
        text::cell(&status.state)
    )
}

async fn list(arguments: ListArguments, client: &Client) -> Result<u8, Failure> {
    let format = Format::parse(arguments.format.as_deref())?;
    let raw = client.get(Target::new("/apps")).await?;
    let all: Vec<AppStatus> = read(&raw)?;
    if arguments.quiet {
        let names: Vec<String> = all.iter().map(|app| format!("{}\n", app.name)).collect();
        output::print(&names.concat())?;
        return Ok(0);
    }
    let rows: Vec<Value> = all.iter().map(row).collect();
    let listing = Listing {
        columns: &COLUMNS,
        raw: &raw,
        rows: &rows,
        has_no_titles: arguments.noheading,
    };
    listing.show(&format)?;
    Ok(0)
}

fn row(status: &AppStatus) -> Value {
    let shown = status.current.as_ref().or(status.candidate.as_ref());
    let note = match (status.trouble.as_str(), status.failure.as_str()) {
        ("", "") if status.pinned.is_some() => "pinned",
        ("", "") => "",
        ("", _) => "the last update failed",
        _ => "not as it should be",
    };
    json!({
        "Name": status.name,
        "Generation": shown.map_or(status.floor, |version| version.generation).to_string(),
        "Phase": status.phase,
        "State": match status.health.as_str() {
            "" => status.state.clone(),
            health => format!("{} ({health})", status.state),
        },
        "Image": shown.map(|version| version.image.clone()).unwrap_or_default(),
        "Note": note,
    })
}

async fn status(arguments: &StatusArguments, client: &Client) -> Result<u8, Failure> {
    let raw = client.get(of(&arguments.name)).await?;
    if arguments.format == "json" {
        output::print(&pretty(&raw)?)?;
        return Ok(0);
    }
    output::print(&spoken(&read(&raw)?))?;
    Ok(0)
}

/// How an app stands, for people.
pub fn spoken(status: &AppStatus) -> String {
    let mut rows = vec![
        ("name", status.name.clone()),
        ("phase", format!("{} since {}", status.phase, status.since)),
    ];
    for (label, version) in [
        ("runs", &status.current),
        ("tried", &status.candidate),
        ("fallback", &status.previous),
    ] {
        let Some(version) = version else { continue };
        let state = match (label, status.health.as_str()) {
            ("runs", "") => format!(", {}", status.state),
            ("runs", health) => format!(", {}, {health}", status.state),
            _ => String::new(),
        };
        let said = format!(
            "generation {}, {} in {}{state}",
            version.generation, version.image, version.container
        );
        rows.push((label, said));
    }
    for (label, words) in [("failed", &status.failure), ("trouble", &status.trouble)] {
        if !words.is_empty() {
            rows.push((label, words.clone()));
        }
    }
    if let Some(reason) = &status.pinned {
        let said = match reason.as_str() {
            "" => "to the version that runs".to_owned(),
            reason => format!("to the version that runs: {reason}"),
        };
        rows.push(("pinned", said));
    }
    for blocked in &status.blocked {
        let said = format!(
            "generation {} since {}: {}",
            blocked.generation, blocked.at, blocked.reason
        );
        rows.push(("blocked", said));
    }
    let mut page = String::new();
    for (label, said) in rows {
        page.push_str(&format!("{label:<9} {}\n", text::cell(&said)));
    }
    page
}

async fn history(arguments: &HistoryArguments, client: &Client) -> Result<u8, Failure> {
    let raw = client.get(of(&arguments.name).segment("history")).await?;
    if arguments.format == "json" {
        output::print(&pretty(&raw)?)?;
        return Ok(0);
    }
    for item in items(&raw) {
        let event: AppEvent = read(item)?;
        let reason = match event.reason.as_str() {
            "" => String::new(),
            reason => format!(": {reason}"),
        };
        let said = format!(
            "{}  generation {}  {}{reason}",
            event.at, event.generation, event.what
        );
        output::line(&text::cell(&said))?;
    }
    Ok(0)
}

async fn show_logs(arguments: LogsArguments, client: &Client) -> Result<u8, Failure> {
    let status: AppStatus = read(&client.get(of(&arguments.name)).await?)?;
    let version = match status.phase.as_str() {
        "trial" => status.candidate.or(status.current),
        _ => status.current,
    };
    let version = version.ok_or(AppError::NothingYet(arguments.name))?;
    logs::of(client, &version.container, &arguments.how).await?;
    Ok(0)
}
