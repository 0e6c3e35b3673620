//! `kakoi system df`: what images, containers and volumes take.

use serde_json::{Value, json};

use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::listing::{Column, Format, Listing, items};
use crate::{output, table, text};

const COLUMNS: [Column; 5] = [
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];

/// The arguments of `kakoi system df`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Every image, container and volume
    #[arg(short, long, conflicts_with = "format")]
    verbose: bool,
    /// table, json, a template, or table and a template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// What one kind of thing takes.
struct Use {
    kind: &'static str,
    total: usize,
    active: usize,
    bytes: f64,
    reclaimable: f64,
}

/// Shows the use of the disk.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let format = Format::parse(arguments.format.as_deref())?;
    let raw = client.get(Target::new("/system/df")).await?;
    if arguments.verbose {
        output::print(&verbose(&raw))?;
        return Ok(0);
    }
    let rows: Vec<Value> = [images(&raw), containers(&raw), volumes(&raw)]
        .into_iter()
        .map(row)
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

fn number(item: &Value, field: &str) -> f64 {
    item[field].as_f64().unwrap_or(0.0).max(0.0)
}

fn images(raw: &Value) -> Use {
    let list = items(&raw["Images"]);
    let unused = list.iter().filter(|item| number(item, "Containers") == 0.0);
    let reclaimable: f64 = unused
        .map(|item| number(item, "Size") - number(item, "SharedSize"))
        .sum();
    let bytes = number(raw, "LayersSize");
    Use {
        kind: "Images",
        total: list.len(),
        active: list
            .iter()
            .filter(|item| number(item, "Containers") > 0.0)
            .count(),
        bytes,
        reclaimable: reclaimable.clamp(0.0, bytes),
    }
}

fn containers(raw: &Value) -> Use {
    let list = items(&raw["Containers"]);
    let is_active =
        |item: &&Value| matches!(item["State"].as_str(), Some("running" | "paused" | "restarting"));
    Use {
        kind: "Containers",
        total: list.len(),
        active: list.iter().filter(is_active).count(),
        bytes: list.iter().map(|item| number(item, "SizeRw")).sum(),
        reclaimable: list
            .iter()
            .filter(|item| !is_active(item))
            .map(|item| number(item, "SizeRw"))
            .sum(),
    }
}

fn volumes(raw: &Value) -> Use {
    let list = items(&raw["Volumes"]);
    let size = |item: &Value| number(&item["UsageData"], "Size");
    let is_used = |item: &&Value| number(&item["UsageData"], "RefCount") > 0.0;
    Use {
        kind: "Local Volumes",
        total: list.len(),
        active: list.iter().filter(is_used).count(),
        bytes: list.iter().map(size).sum(),
        reclaimable: list.iter().filter(|item| !is_used(item)).map(size).sum(),
    }
}

fn row(found: Use) -> Value {
    let share = if found.bytes > 0.0 {
        (found.reclaimable / found.bytes * 100.0) as u32
    } else {
        0
    };
    json!({
        "Type": found.kind,
        "TotalCount": found.total.to_string(),
        "Active": found.active.to_string(),
        "Size": text::decimal_size(found.bytes),
        "Reclaimable": format!("{} ({share}%)", text::decimal_size(found.reclaimable)),
    })
}

fn verbose(raw: &Value) -> String {
    let word = |item: &Value, field: &str| item[field].as_str().unwrap_or_default().to_owned();
    let titled = |titles: &[&str]| vec![titles.iter().map(|title| (*title).to_owned()).collect::<Vec<_>>()];
    let mut images = titled(&["IMAGE", "IMAGE ID", "SIZE", "CONTAINERS"]);
    for item in items(&raw["Images"]) {
        let name = items(&item["RepoTags"])
            .first()
            .and_then(Value::as_str)
            .unwrap_or("<none>")
            .to_owned();
        let size = text::decimal_size(number(item, "Size"));
        images.push(vec![
            name,
            text::short_id(&word(item, "Id"), false),
            size,
            number(item, "Containers").to_string(),
        ]);
    }
    let mut containers = titled(&["CONTAINER ID", "IMAGE", "SIZE", "STATUS", "NAMES"]);
    for item in items(&raw["Containers"]) {
        let names = items(&item["Names"])
            .first()
            .and_then(Value::as_str)
            .unwrap_or_default();
        containers.push(vec![
            text::short_id(&word(item, "Id"), false),
            word(item, "Image"),
            text::decimal_size(number(item, "SizeRw")),
            word(item, "Status"),
            names.trim_start_matches('/').to_owned(),
        ]);
    }
    let mut volumes = titled(&["VOLUME NAME", "LINKS", "SIZE"]);
    for item in items(&raw["Volumes"]) {
        volumes.push(vec![
            word(item, "Name"),
            number(&item["UsageData"], "RefCount").to_string(),
            text::decimal_size(number(&item["UsageData"], "Size")),
        ]);
    }
    format!(
        "Images:\n\n{}\nContainers:\n\n{}\nLocal Volumes:\n\n{}",
        table::align(&images),
        table::align(&containers),
        table::align(&volumes)
    )
}
