//! `kakoi policy`: policies, checked, shown and explained.

use clap::Subcommand;
use serde_json::{Value, json};

use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::listing::{Column, Format, Listing, items};

const COLUMNS: [Column; 3] = [
    ("Name", "NAME"),
    ("Origin", "ORIGIN"),
    ("Description", "DESCRIPTION"),
];

/// Commands about policies.
#[derive(Subcommand, Debug)]
pub enum PolicyCommand {
    /// List the policies that the daemon knows
    #[command(visible_alias = "list")]
    Ls(ListArguments),
}

/// The arguments of `kakoi policy ls`.
#[derive(clap::Args, Debug)]
pub struct ListArguments {
    /// table, json, a template, or table and a template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Runs a command about policies.
pub async fn run(command: PolicyCommand, client: &Client) -> Result<u8, Failure> {
    match command {
        PolicyCommand::Ls(arguments) => list(arguments, client).await,
    }
}

async fn list(arguments: ListArguments, client: &Client) -> Result<u8, Failure> {
    let format = Format::parse(arguments.format.as_deref())?;
    let raw = client.get(Target::new("/policies")).await?;
    let rows: Vec<Value> = items(&raw)
        .iter()
        .map(|item| {
            let error = item["Error"].as_str().unwrap_or_default();
            let description = item["Description"].as_str().unwrap_or_default();
            let shown = if error.is_empty() {
                description.to_owned()
            } else {
                format!("cannot be used: {error}")
            };
            json!({ "Name": item["Name"], "Origin": item["Origin"], "Description": shown, "Error": error })
        })
        .collect();
    Listing {
        columns: &COLUMNS,
        raw: &raw,
        rows: &rows,
        has_no_titles: false,
    }
    .show(&format)?;
    Ok(0)
}
