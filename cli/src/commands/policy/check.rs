//! `kakoi policy check`: whether files are policies, and where they are not.

use std::path::PathBuf;

use kakoi_policy::{Ceiling, Composed, Diagnostic, Diagnostics, Excess, bound, lint, parse};
use serde_json::{Value, json};

use super::source::{compose_with, unknown_parents};
use crate::client::Client;
use crate::create::read_policy;
use crate::failure::{Failure, describe};
use crate::listing::pretty;
use crate::output;

/// The arguments of `kakoi policy check`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// How findings are written: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    format: String,
    /// Also against an owner's ceiling
    #[arg(long, value_name = "FILE")]
    ceiling: Option<PathBuf>,
    /// Take warnings for errors: rules that do nothing, or undo the point
    #[arg(long)]
    strict: bool,
    /// Policy files; - is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<String>,
}

/// A right file, and what to look at in it.
struct Right {
    composed: Composed,
    warnings: Vec<Diagnostic>,
}

/// What is wrong with one file.
enum Wrong {
    Unreadable(String),
    Findings(Diagnostics),
    TooMuch(Excess),
}

/// Checks files; the exit status is 1 where any is wrong, or, under `--strict`, has warnings.
pub async fn run(arguments: &Arguments, client: &Client) -> Result<u8, Failure> {
    let ceiling = match &arguments.ceiling {
        None => None,
        Some(path) => {
            let name = path.display().to_string();
            Some(Ceiling::parse(&name, &read_policy(&name)?)?)
        }
    };
    let mut status = 0;
    let mut documents = Vec::new();
    for file in &arguments.files {
        let outcome = check(file, ceiling.as_ref(), client).await;
        let is_right = outcome
            .as_ref()
            .is_ok_and(|right| !arguments.strict || right.warnings.is_empty());
        if !is_right {
            status = 1;
        }
        if arguments.format == "json" {
            documents.push(document(file, &outcome, is_right));
        } else {
            tell(file, &outcome, is_right)?;
        }
    }
    if arguments.format == "json" {
        output::print(&pretty(&Value::Array(documents))?)?;
    }
    Ok(status)
}

async fn check(file: &str, ceiling: Option<&Ceiling>, client: &Client) -> Result<Right, Wrong> {
    let text = read_policy(file).map_err(|error| Wrong::Unreadable(describe(&error)))?;
    let policy = match parse(file, &text) {
        Ok(policy) => policy,
        Err(found) => {
            let unknown = unknown_parents(file, &text, client).await;
            return Err(Wrong::Findings(found.with(unknown)));
        }
    };
    let composed = compose_with(&policy, client).await.map_err(Wrong::Findings)?;
    let warnings = lint(&policy, &composed);
    let composed = match ceiling {
        Some(ceiling) => bound(&composed, ceiling).map_err(Wrong::TooMuch)?,
        None => composed,
    };
    Ok(Right { composed, warnings })
}

fn tell(file: &str, outcome: &Result<Right, Wrong>, is_right: bool) -> Result<(), Failure> {
    match outcome {
        Ok(Right { composed, warnings }) => {
            for warning in warnings {
                output::complain(&format!("{warning}\n"));
            }
            if !is_right {
                return Ok(());
            }
            let parents: Vec<&str> = composed
                .sources
                .iter()
                .map(|source| source.name.as_str())
                .collect();
            let parents = match parents.split_last() {
                Some((_, parents)) if !parents.is_empty() => format!(", extends {}", parents.join(", ")),
                _ => String::new(),
            };
            return output::line(&format!("{file}: ok ({}{parents})", composed.name));
        }
        Err(Wrong::Unreadable(words)) => output::complain(&format!("Error: {words}")),
        Err(Wrong::Findings(findings)) => output::complain(&format!("{findings}\n")),
        Err(Wrong::TooMuch(excess)) => output::complain(&format!("error: {excess}\n")),
    }
    Ok(())
}

fn document(file: &str, outcome: &Result<Right, Wrong>, is_right: bool) -> Value {
    match outcome {
        Ok(Right { composed, warnings }) => json!({
            "file": file,
            "ok": is_right,
            "name": composed.name,
            "sha256": composed.sha256(),
            "diagnostics": warnings,
            "excess": [],
        }),
        Err(Wrong::Unreadable(words)) => {
            json!({ "file": file, "ok": false, "error": words, "diagnostics": [], "excess": [] })
        }
        Err(Wrong::Findings(findings)) => {
            json!({ "file": file, "ok": false, "diagnostics": findings.to_json(), "excess": [] })
        }
        Err(Wrong::TooMuch(excess)) => {
            json!({ "file": file, "ok": false, "diagnostics": [], "excess": excess.items })
        }
    }
}
