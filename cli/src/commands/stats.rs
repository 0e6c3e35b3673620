//! `kakoi stats`: what containers use.

use std::time::Duration;

use futures_util::future::join_all;
use kakoi_api::stats::Stats;
use serde_json::{Value, json};

use crate::client::{Client, ClientError, Target};
use crate::failure::Failure;
use crate::listing::{Column, Format, Listing, ListingError, items};
use crate::{output, text};

const COLUMNS: [Column; 8] = [
    ("ID", "CONTAINER ID"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
];
/// Clears the screen and goes to its top.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// The arguments of `kakoi stats`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Also containers that do not run
    #[arg(short, long)]
    all: bool,
    /// One page, then end
    #[arg(long)]
    no_stream: bool,
    /// Do not clear the screen between pages
    #[arg(long)]
    no_reset: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    /// Seconds between two pages
    #[arg(short, long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// table, json, a template, or table and a template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Names or ids of containers; all that run where there are none
    #[arg(value_name = "CONTAINER")]
    names: Vec<String>,
}

/// Shows use until interrupted, or once.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let format = Format::parse(arguments.format.as_deref())?;
    let resets = !arguments.no_reset && !arguments.no_stream && output::is_terminal();
    loop {
        let page = page(&arguments, &format, client).await?;
        if resets {
            output::print(CLEAR)?;
        }
        output::print(&page)?;
        if arguments.no_stream {
            return Ok(0);
        }
        tokio::time::sleep(Duration::from_secs(arguments.interval)).await;
    }
}

async fn page(arguments: &Arguments, format: &Format, client: &Client) -> Result<String, Failure> {
    let names: Vec<String> = if arguments.names.is_empty() {
        let answer = client
            .get(Target::new("/containers/json").flag("all", arguments.all))
            .await?;
        items(&answer)
            .iter()
            .filter_map(|item| item["Id"].as_str())
            .map(str::to_owned)
            .collect()
    } else {
        arguments.names.clone()
    };
    let asked = join_all(names.iter().map(async |name| {
        client
            .get(
                Target::new("/containers")
                    .segment(name)
                    .segment("stats")
                    .query("stream", "0"),
            )
            .await
    }))
    .await;
    let mut raw = Vec::new();
    let mut rows = Vec::new();
    for answer in asked {
        let sample = match answer {
            Ok(sample) => sample,
            // It was removed between the list and the question; one that was named must be there.
            Err(error) if error.is_not_found() && arguments.names.is_empty() => continue,
            Err(error) => return Err(error.into()),
        };
        let stats: Stats = serde_json::from_value(sample.clone()).map_err(|cause| ClientError::Json {
            request: "stats".to_owned(),
            cause,
        })?;
        rows.push(row(&stats, arguments.no_trunc));
        raw.push(sample);
    }
    let raw = Value::Array(raw);
    let listing = Listing {
        columns: &COLUMNS,
        raw: &raw,
        rows: &rows,
        has_no_titles: false,
    };
    listing.render(format).map_err(|error: ListingError| error.into())
}

fn row(stats: &Stats, is_whole: bool) -> Value {
    // The page cache that can be dropped is not the app's need: Docker and Podman subtract it too.
    let cache = stats
        .memory_stats
        .stats
        .get("total_inactive_file")
        .or(stats.memory_stats.stats.get("inactive_file"));
    let usage = stats.memory_stats.usage.unwrap_or(0);
    let used = usage.saturating_sub(cache.copied().unwrap_or(0)) as f64;
    let limit = stats.memory_stats.limit.unwrap_or(0) as f64;
    let share = if limit > 0.0 { used / limit * 100.0 } else { 0.0 };
    let (received, sent) = stats.networks.values().fold((0, 0), |(received, sent), network| {
        (received + network.rx_bytes, sent + network.tx_bytes)
    });
    let block = |operation: &str| -> u64 {
        let entries = stats.blkio_stats.io_service_bytes_recursive.iter().flatten();
        entries
            .filter(|entry| entry.op.eq_ignore_ascii_case(operation))
            .map(|entry| entry.value)
            .sum()
    };
    json!({
        "ID": text::short_id(&stats.id, is_whole),
        "Container": text::short_id(&stats.id, is_whole),
        "Name": stats.name.trim_start_matches('/'),
        "CPUPerc": format!("{:.2}%", processor_share(stats)),
        "MemUsage": format!("{} / {}", text::binary_size(used), text::binary_size(limit)),
        "MemPerc": format!("{share:.2}%"),
        "NetIO": format!("{} / {}", text::decimal_size(received as f64), text::decimal_size(sent as f64)),
        "BlockIO": format!("{} / {}", text::decimal_size(block("read") as f64), text::decimal_size(block("write") as f64)),
        "PIDs": stats.pids_stats.current.unwrap_or(0),
    })
}

/// The share of one processor between the two samples, in percent.
fn processor_share(stats: &Stats) -> f64 {
    let used = stats.cpu_stats.cpu_usage.total_usage as f64 - stats.precpu_stats.cpu_usage.total_usage as f64;
    let passed = stats.cpu_stats.system_cpu_usage.unwrap_or(0) as f64
        - stats.precpu_stats.system_cpu_usage.unwrap_or(0) as f64;
    let processors = f64::from(stats.cpu_stats.online_cpus.unwrap_or(1).max(1));
    if used > 0.0 && passed > 0.0 {
        used / passed * processors * 100.0
    } else {
        0.0
    }
}
