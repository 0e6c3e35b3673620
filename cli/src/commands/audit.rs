//! `kakoi audit`: what was decided on this device, by whom and by which rule.
//!
//! Owns the words about the log. The log itself is the daemon's; its chain is verified there or, for a file that was exported, here.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use hyper::Method;
use kakoi_api::audit::AuditVerdict;
use kakoi_trust::audit::{Fault, Head, LINE_BYTES_MAX, Verifier};
use serde_json::Value;

use super::save;
use crate::client::{Client, Target, empty_body};
use crate::failure::Failure;
use crate::listing::{Column, Format, Listing};
use crate::{clock, output};

/// The end of the help of `verify`.
pub const VERIFIED: &str = "\
The head that is printed is NUMBER:CHAIN of the last entry. Kept elsewhere and given again with --through, it shows \
that nothing was cut off the end and nothing made anew since.

Exit status:
  0    every entry is what was written, and none is missing
  1    the log was changed, or does not lead through the head that was given
  125  the command failed";

const COLUMNS: [Column; 7] = [
    ("seq", "ENTRY"),
    ("at", "TIME"),
    ("verdict", "VERDICT"),
    ("who", "WHO"),
    ("from", "FROM"),
    ("what", "WHAT"),
    ("why", "WHY"),
];

/// Characters of a request and of a rule in the table; all of them stand in the other formats.
const WHAT_CHARS_MAX: usize = 72;
const WHY_CHARS_MAX: usize = 96;

/// Commands about the audit log.
#[derive(Subcommand, Debug)]
pub enum AuditCommand {
    /// Write the whole log into a file, to be verified elsewhere
    Export(ExportArguments),
    /// Show what was decided, the latest last
    Show(ShowArguments),
    /// Tell whether the log is what was written
    #[command(after_help = VERIFIED)]
    Verify(VerifyArguments),
}

/// The arguments of `kakoi audit export`.
#[derive(clap::Args, Debug)]
pub struct ExportArguments {
    /// The file; standard output where it is absent
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// The arguments of `kakoi audit show`.
#[derive(clap::Args, Debug)]
pub struct ShowArguments {
    /// Only decisions from this time on
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only decisions up to this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only these: allowed, refused or failed
    #[arg(long, value_name = "VERDICT", value_parser = ["allowed", "refused", "failed"])]
    verdict: Option<String>,
    /// Only the latest
    #[arg(short = 'n', long, value_name = "COUNT")]
    tail: Option<usize>,
    /// table, json, a template, or table and a template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// The arguments of `kakoi audit verify`.
#[derive(clap::Args, Debug)]
pub struct VerifyArguments {
    /// A file that was exported, instead of this device's log
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// A head that was kept elsewhere, through which the log has to lead
    #[arg(long, value_name = "NUMBER:CHAIN", value_parser = head)]
    through: Option<Head>,
}

/// Why a command about the audit log failed.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file cannot be read.
    #[error("reading {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The answer is none.
    #[error("the daemon's answer about its audit log is not understood")]
    Answer(#[source] serde_json::Error),
}

fn head(text: &str) -> Result<Head, String> {
    Head::parse(text)
        .ok_or_else(|| "a number, a colon and 64 hex digits, as `kakoi audit verify` prints them".into())
}

/// Runs a command about the audit log.
pub async fn run(command: AuditCommand, client: &Client) -> Result<u8, Failure> {
    match command {
        AuditCommand::Export(arguments) => export(&arguments, client).await,
        AuditCommand::Show(arguments) => show(arguments, client).await,
        AuditCommand::Verify(arguments) => verify(&arguments, client).await,
    }
}

async fn export(arguments: &ExportArguments, client: &Client) -> Result<u8, Failure> {
    let target = Target::new("/audit");
    let body = client.open(Method::GET, &target, empty_body()).await?.into_body();
    match &arguments.output {
        None => save::copy(body, &mut io::stdout().lock(), Path::new("standard output"), true).await?,
        Some(path) => save::save_to(path, body, true).await?,
    }
    Ok(0)
}

async fn show(arguments: ShowArguments, client: &Client) -> Result<u8, Failure> {
    let format = Format::parse(arguments.format.as_deref())?;
    let limit = |flag, text: Option<&str>| {
        let time = text.map(|text| clock::parse(flag, text)).transpose();
        time.map(|time| time.and_then(|time| time.parse::<f64>().ok()))
    };
    let since = limit("--since", arguments.since.as_deref())?;
    let until = limit("--until", arguments.until.as_deref())?;
    let mut stream = client
        .stream(Method::GET, &Target::new("/audit"), empty_body())
        .await?;
    let mut rows = Vec::new();
    while let Some(line) = stream.next().await? {
        // A file's first line says where it goes on.
        if line.get("audit").is_some() {
            continue;
        }
        let at = line["at"].as_str().and_then(clock::seconds_of);
        let is_in_time = at
            .is_none_or(|at| since.is_none_or(|since| since <= at) && until.is_none_or(|until| at <= until));
        let is_asked_for = arguments
            .verdict
            .as_deref()
            .is_none_or(|verdict| line["verdict"] == verdict);
        if is_in_time && is_asked_for {
            rows.push(line);
        }
    }
    if let Some(count) = arguments.tail {
        rows.drain(..rows.len().saturating_sub(count));
    }
    let shown: Vec<Value> = match format {
        Format::Table => rows.iter().map(in_a_line).collect(),
        _ => rows.clone(),
    };
    let listing = Listing {
        columns: &COLUMNS,
        raw: &Value::Array(rows),
        rows: &shown,
        has_no_titles: false,
    };
    listing.show(&format)?;
    Ok(0)
}

/// What of an entry a line of a terminal has room for: seconds, and the beginning of a rule of many lines.
fn in_a_line(entry: &Value) -> Value {
    let mut row = entry.clone();
    let text = |field: &str| entry[field].as_str().unwrap_or_default();
    let cut = |text: &str, most: usize| match text.chars().count() > most {
        true => text.chars().take(most).chain(['…']).collect(),
        false => text.to_owned(),
    };
    row["at"] = Value::from(match text("at").split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text("at").to_owned(),
    });
    row["what"] = Value::from(cut(text("what"), WHAT_CHARS_MAX));
    row["why"] = Value::from(cut(text("why"), WHY_CHARS_MAX));
    row
}

async fn verify(arguments: &VerifyArguments, client: &Client) -> Result<u8, Failure> {
    let verdict = match &arguments.file {
        Some(path) => verify_file(path, arguments.through).map_err(|cause| AuditError::Read {
            path: path.clone(),
            cause,
        })?,
        None => {
            let through = arguments.through.map(|head| head.to_string());
            let target = Target::new("/audit/verify").maybe("through", through.as_deref());
            serde_json::from_value(client.get(target).await?).map_err(AuditError::Answer)?
        }
    };
    if !verdict.is_whole {
        output::complain(&format!("the audit log is not whole: {}", verdict.fault));
        return Ok(1);
    }
    output::line(&format!(
        "entries {} to {} are whole",
        verdict.first, verdict.last
    ))?;
    output::line(&format!("head {}", verdict.head))?;
    Ok(0)
}

/// Verifies an exported log line by line.
fn verify_file(path: &Path, through: Option<Head>) -> io::Result<AuditVerdict> {
    let mut verifier = Verifier::through(through);
    let mut lines = BufReader::new(File::open(path)?);
    let mut fault: Option<String> = None;
    while fault.is_none() {
        let mut line = Vec::new();
        let most = LINE_BYTES_MAX as u64 + 2;
        if (&mut lines).take(most).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        fault = match line.pop_if(|byte| *byte == b'\n') {
            Some(_) => verifier.take(&line).err().map(|fault| fault.to_string()),
            None => Some("the last line is not whole".into()),
        };
    }
    let head = verifier.head();
    let missing = verifier
        .missing()
        .map(|missing| format!("it does not lead through {missing}"));
    let nothing = head.is_none().then(|| Fault::Beginning.to_string());
    let fault = fault.or(nothing).or(missing);
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let head = head.unwrap_or(Head::NONE);
    Ok(AuditVerdict {
        is_whole: fault.is_none(),
        fault: fault.unwrap_or_default(),
        first: count(verifier.first()),
        last: count(head.seq),
        head: head.to_string(),
    })
}
