//! `kakoi policy ls`: the shipped profiles, and what a running daemon keeps.

use kakoi_policy::SHIPPED;
use serde_json::{Value, json};

use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::listing::{Column, Format, Listing, items};
use crate::output;

const COLUMNS: [Column; 3] = [
    ("Name", "NAME"),
    ("Origin", "ORIGIN"),
    ("Description", "DESCRIPTION"),
];

/// The arguments of `kakoi policy ls`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Only the names
    #[arg(short, long)]
    quiet: bool,
    /// table, json, a template, or table and a template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Lists policies.
pub async fn run(arguments: &Arguments, client: &Client) -> Result<u8, Failure> {
    let format = Format::parse(arguments.format.as_deref())?;
    let raw = match client.get_where_running(Target::new("/policies")).await? {
        Some(list) => list,
        None => shipped(),
    };
    let rows: Vec<Value> = items(&raw).iter().map(row).collect();
    if arguments.quiet {
        let names: Vec<String> = rows
            .iter()
            .map(|row| format!("{}\n", row["Name"].as_str().unwrap_or_default()))
            .collect();
        output::print(&names.concat())?;
        return Ok(0);
    }
    Listing {
        columns: &COLUMNS,
        raw: &raw,
        rows: &rows,
        has_no_titles: false,
    }
    .show(&format)?;
    Ok(0)
}

fn row(item: &Value) -> Value {
    let error = item["Error"].as_str().unwrap_or_default();
    let description = item["Description"].as_str().unwrap_or_default();
    let shown = if error.is_empty() {
        description.to_owned()
    } else {
        format!("cannot be used: {error}")
    };
    json!({ "Name": item["Name"], "Origin": item["Origin"], "Description": shown, "Error": error })
}

/// What every daemon knows, for where none runs.
fn shipped() -> Value {
    let list: Vec<Value> = SHIPPED
        .iter()
        .map(|profile| {
            // A profile's first comment says what it is for, as the daemon reads it too.
            let first = profile
                .text
                .lines()
                .find_map(|line| line.strip_prefix('#'))
                .unwrap_or_default()
                .trim();
            json!({ "Name": profile.name, "Origin": "shipped", "Description": first, "Error": "" })
        })
        .collect();
    Value::Array(list)
}
