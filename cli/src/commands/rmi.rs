//! `kakoi rmi`: remove images.

use serde_json::Value;

use crate::client::{Client, Target};
use crate::each::{self, Told};
use crate::failure::Failure;
use crate::listing::items;

/// The arguments of `kakoi rmi`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Also where containers use it, and without a word where it does not exist
    #[arg(short, long)]
    force: bool,
    /// All images
    #[arg(short, long, conflicts_with = "names")]
    all: bool,
    /// Say nothing about images that do not exist
    #[arg(short, long)]
    ignore: bool,
    /// Keep parents without a name
    #[arg(long)]
    no_prune: bool,
    /// Names or ids of images
    #[arg(value_name = "IMAGE", required_unless_present = "all")]
    names: Vec<String>,
}

/// Removes images.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let names = if arguments.all {
        let answer = client.get(Target::new("/images/json")).await?;
        items(&answer)
            .iter()
            .filter_map(|item| item["Id"].as_str())
            .map(str::to_owned)
            .collect()
    } else {
        arguments.names.clone()
    };
    let request = async |name: String| {
        let target = Target::new("/images")
            .segment(&name)
            .flag("force", arguments.force || arguments.all)
            .flag("noprune", arguments.no_prune);
        match client.delete(target).await {
            Ok(answer) => Ok(told(&answer)),
            Err(error) if (arguments.ignore || arguments.force) && error.is_not_found() => Ok(Told::Nothing),
            Err(error) => Err(error),
        }
    };
    each::run(&names, request, each::removal_status).await
}

/// What was removed, a line each.
pub fn told(answer: &Value) -> Told {
    let lines: Vec<String> = items(answer)
        .iter()
        .filter_map(|effect| {
            let untagged = effect["Untagged"]
                .as_str()
                .filter(|name| !name.is_empty())
                .map(|name| format!("Untagged: {name}"));
            untagged.or_else(|| effect["Deleted"].as_str().map(|id| format!("Deleted: {id}")))
        })
        .collect();
    if lines.is_empty() {
        Told::Nothing
    } else {
        Told::Line(lines.join("\n"))
    }
}
