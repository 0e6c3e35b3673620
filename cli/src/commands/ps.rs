//! `kakoi ps`: list containers.

use serde_json::{Value, json};

use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::listing::{Column, Format, Listing, filters, items};
use crate::{clock, output, ports, text};

/// How much of a command is shown in the table.
const COMMAND_SHOWN: usize = 20;

const COLUMNS: [Column; 8] = [
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("Policy", "POLICY"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
];

/// The arguments of `kakoi ps`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
    /// Only the ids
    #[arg(short, long)]
    quiet: bool,
    /// Only the one that was created last
    #[arg(short, long)]
    latest: bool,
    /// Only the last N that were created
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<u32>,
    /// Sizes too
    #[arg(short, long)]
    size: bool,
    /// Whole ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Leave out the titles
    #[arg(long)]
    noheading: bool,
    /// Only those that fit, as in status=running, name=web, network=app, publish=80/tcp, label=app=db
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// table, json, a template, or table and a template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Order: created, id, image, names, status
    #[arg(long, value_name = "FIELD", value_parser = ["created", "id", "image", "names", "status"])]
    sort: Option<String>,
}

/// Lists containers.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let format = Format::parse(arguments.format.as_deref())?;
    let limit = if arguments.latest { Some(1) } else { arguments.last };
    let target = Target::new("/containers/json")
        .flag("all", arguments.all)
        .flag("size", arguments.size)
        .maybe("limit", limit.map(|limit| limit.to_string()).as_deref())
        .maybe("filters", filters(&arguments.filter)?.as_deref());
    let mut raw = client.get(target).await?;
    sort(&mut raw, arguments.sort.as_deref());
    if arguments.quiet {
        let ids: Vec<String> = items(&raw)
            .iter()
            .map(|item| text::short_id(item["Id"].as_str().unwrap_or_default(), arguments.no_trunc) + "\n")
            .collect();
        output::print(&ids.concat())?;
        return Ok(0);
    }
    let now = clock::now();
    let rows: Vec<Value> = items(&raw)
        .iter()
        .map(|item| row(item, arguments.no_trunc, now))
        .collect();
    let mut columns = COLUMNS.to_vec();
    if arguments.size {
        columns.push(("Size", "SIZE"));
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

fn sort(raw: &mut Value, field: Option<&str>) {
    let (Some(field), Some(list)) = (field, raw.as_array_mut()) else {
        return;
    };
    let key = |item: &Value| match field {
        "id" => item["Id"].to_string(),
        "image" => item["Image"].to_string(),
        "names" => item["Names"].to_string(),
        "status" => item["Status"].to_string(),
        // Digits of one length, so that text sorts as numbers.
        _ => format!("{:020}", item["Created"].as_i64().unwrap_or(0)),
    };
    list.sort_by_key(key);
}

fn names(item: &Value) -> String {
    let names = items(&item["Names"]).iter().filter_map(Value::as_str);
    names
        .map(|name| name.trim_start_matches('/'))
        .collect::<Vec<_>>()
        .join(",")
}

fn row(item: &Value, is_whole: bool, now: i64) -> Value {
    let word = |field: &str| item[field].as_str().unwrap_or_default();
    let created = item["Created"].as_i64().unwrap_or(0);
    let command = if is_whole {
        word("Command").to_owned()
    } else {
        text::ellipsis(word("Command"), COMMAND_SHOWN)
    };
    let image = match word("Image").strip_prefix("sha256:") {
        Some(_) if !is_whole => text::short_id(word("Image"), false),
        _ => word("Image").to_owned(),
    };
    let labels: Vec<String> = item["Labels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
        .collect();
    let mounts: Vec<&str> = items(&item["Mounts"])
        .iter()
        .filter_map(|mount| {
            let name = mount["Name"].as_str().unwrap_or_default();
            if name.is_empty() {
                mount["Source"].as_str()
            } else {
                Some(name)
            }
        })
        .collect();
    let networks: Vec<&str> = item["NetworkSettings"]["Networks"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect();
    json!({
        "ID": text::short_id(word("Id"), is_whole),
        "Names": names(item),
        "Image": image,
        "ImageID": word("ImageID"),
        "Command": format!("\"{command}\""),
        "Created": created,
        "CreatedAt": clock::local(created),
        "RunningFor": text::ago(created, now),
        "State": word("State"),
        "Status": word("Status"),
        "Policy": word("Policy"),
        "Ports": ports::folded(&item["Ports"]),
        "Labels": labels.join(","),
        "Mounts": mounts.join(","),
        "Networks": networks.join(","),
        "Size": size(item),
    })
}

fn size(item: &Value) -> String {
    match (item["SizeRw"].as_f64(), item["SizeRootFs"].as_f64()) {
        (own, Some(whole)) => format!(
            "{} (virtual {})",
            text::decimal_size(own.unwrap_or(0.0)),
            text::decimal_size(whole)
        ),
        (Some(own), None) => text::decimal_size(own),
        (None, None) => String::new(),
    }
}
