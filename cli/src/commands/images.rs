//! `kakoi images`: list images.

use serde_json::{Value, json};

use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::listing::{Column, Format, Listing, filters, items};
use crate::{clock, output, text};

const COLUMNS: [Column; 5] = [
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("Size", "SIZE"),
];
const NONE: &str = "<none>";

/// The arguments of `kakoi images`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Also those that only other images are made of
    #[arg(short, long)]
    all: bool,
    /// Only the ids
    #[arg(short, long)]
    quiet: bool,
    /// Digests too
    #[arg(long)]
    digests: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    /// Leave out the titles
    #[arg(short = 'n', long)]
    noheading: bool,
    /// Only those that fit, as in reference=web or dangling=true
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// table, json, a template, or table and a template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Only images of this name
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
}

/// Lists images.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let format = Format::parse(arguments.format.as_deref())?;
    let mut wanted = arguments.filter.clone();
    wanted.extend(arguments.name.iter().map(|name| format!("reference={name}")));
    let target = Target::new("/images/json")
        .flag("all", arguments.all)
        .flag("digests", arguments.digests)
        .maybe("filters", filters(&wanted)?.as_deref());
    let raw = client.get(target).await?;
    if arguments.quiet {
        let mut ids: Vec<String> = items(&raw)
            .iter()
            .map(|item| text::short_id(item["Id"].as_str().unwrap_or_default(), arguments.no_trunc) + "\n")
            .collect();
        ids.dedup();
        output::print(&ids.concat())?;
        return Ok(0);
    }
    let now = clock::now();
    let rows: Vec<Value> = items(&raw)
        .iter()
        .flat_map(|item| rows(item, arguments.no_trunc, now))
        .collect();
    let mut columns = COLUMNS.to_vec();
    if arguments.digests {
        columns.insert(2, ("Digest", "DIGEST"));
    }
    let listing = Listing {
        columns: &columns,
        raw: &raw,
        rows: &rows,
        has_no_titles: arguments.noheading,
    };
    listing.show(&format)?;
    Ok(0)
}

/// One row per name; an image without one has one row all the same.
fn rows(item: &Value, is_whole: bool, now: i64) -> Vec<Value> {
    let created = item["Created"].as_i64().unwrap_or(0);
    let digest = items(&item["RepoDigests"])
        .first()
        .and_then(Value::as_str)
        .and_then(|name| name.split_once('@'))
        .map_or(NONE, |(_, digest)| digest);
    let row = |repository: &str, tag: &str| {
        json!({
            "ID": text::short_id(item["Id"].as_str().unwrap_or_default(), is_whole),
            "Repository": repository,
            "Tag": tag,
            "Digest": digest,
            "Created": created,
            "CreatedAt": clock::local(created),
            "CreatedSince": text::ago(created, now),
            "Size": text::decimal_size(item["Size"].as_f64().unwrap_or(0.0)),
            "Containers": item["Containers"].as_i64().filter(|count| *count >= 0).map_or_else(|| "N/A".to_owned(), |count| count.to_string()),
        })
    };
    let names: Vec<(&str, &str)> = items(&item["RepoTags"])
        .iter()
        .filter_map(Value::as_str)
        .map(split_name)
        .collect();
    if names.is_empty() {
        return vec![row(NONE, NONE)];
    }
    names
        .into_iter()
        .map(|(repository, tag)| row(repository, tag))
        .collect()
}

/// A name's repository and tag: the colon of a registry's port comes before a slash.
fn split_name(name: &str) -> (&str, &str) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, NONE),
    }
}

#[cfg(test)]
mod tests {
    use super::split_name;

    #[test]
    fn a_port_is_not_a_tag() {
        assert_eq!(split_name("a/b:1"), ("a/b", "1"));
        assert_eq!(split_name("host:5000/b"), ("host:5000/b", "<none>"));
        assert_eq!(split_name("host:5000/b:2"), ("host:5000/b", "2"));
    }
}
