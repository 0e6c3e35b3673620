//! `kakoi history`: how an image was made.

use serde_json::{Value, json};

use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::listing::{Column, Format, Listing, items};
use crate::{clock, output, text};

/// How much of a step's command is shown in the table.
const COMMAND_SHOWN: usize = 45;

const COLUMNS: [Column; 5] = [
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];

/// The arguments of `kakoi history`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Only the ids
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// table, json, a template, or table and a template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// The image
    #[arg(value_name = "IMAGE")]
    image: String,
}

/// Shows an image's history.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let format = Format::parse(arguments.format.as_deref())?;
    let raw = client
        .get(
            Target::new("/images")
                .segment(&arguments.image)
                .segment("history"),
        )
        .await?;
    let now = clock::now();
    let rows: Vec<Value> = items(&raw)
        .iter()
        .map(|item| {
            let created = item["Created"].as_i64().unwrap_or(0);
            let by = item["CreatedBy"].as_str().unwrap_or_default();
            let by = if arguments.no_trunc {
                by.to_owned()
            } else {
                text::ellipsis(by, COMMAND_SHOWN)
            };
            json!({
                "ID": text::short_id(item["Id"].as_str().unwrap_or_default(), arguments.no_trunc),
                "CreatedSince": text::ago(created, now),
                "CreatedAt": clock::local(created),
                "CreatedBy": by,
                "Size": text::decimal_size(item["Size"].as_f64().unwrap_or(0.0)),
                "Comment": item["Comment"].as_str().unwrap_or_default(),
                "Tags": item["Tags"],
            })
        })
        .collect();
    if arguments.quiet {
        let ids: Vec<String> = rows
            .iter()
            .map(|row| format!("{}\n", row["ID"].as_str().unwrap_or_default()))
            .collect();
        output::print(&ids.concat())?;
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
