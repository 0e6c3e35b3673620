//! `kakoi diff`: list what a container changed of its image's files.

use serde_json::{Value, json};

use crate::client::{Client, Target};
use crate::each;
use crate::failure::Failure;
use crate::listing::{self, items};
use crate::output;

/// The arguments of `kakoi diff`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// `json` instead of lines
    #[arg(long, value_name = "json", value_parser = ["json"])]
    format: Option<String>,
    /// Of the container that was created last
    #[arg(short, long)]
    latest: bool,
    /// The container, by name or id
    #[arg(value_name = "CONTAINER")]
    name: Option<String>,
}

/// Lists changes: A for added, C for changed, D for deleted.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let name = each::one(client, arguments.name.as_deref(), arguments.latest).await?;
    let target = Target::new("/containers").segment(&name).segment("changes");
    let answer = client.get(target).await?;
    let rows = items(&answer);
    let path = |row: &Value| row["Path"].as_str().unwrap_or_default().to_owned();
    if arguments.format.is_some() {
        let of = |kind: u64| -> Vec<String> {
            let fitting = rows.iter().filter(|row| row["Kind"] == kind);
            fitting.map(path).collect()
        };
        let document = json!({"changed": of(0), "added": of(1), "deleted": of(2)});
        output::line(&listing::pretty(&document)?)?;
        return Ok(0);
    }
    for row in rows {
        let word = match row["Kind"].as_u64() {
            Some(0) => 'C',
            Some(1) => 'A',
            _ => 'D',
        };
        output::line(&format!("{word} {}", path(row)))?;
    }
    Ok(0)
}
