//! `kakoi trust show`: whose images run here.

use kakoi_api::trust::Trusting;

use crate::client::{Client, ClientError, Target};
use crate::failure::Failure;
use crate::listing::pretty;
use crate::{output, table};

/// The arguments of `kakoi trust show`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// table or json
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

/// Shows what the daemon reads in trust.yaml, and what it remembers.
pub async fn run(arguments: &Arguments, client: &Client) -> Result<u8, Failure> {
    let raw = client.get(Target::new("/trust")).await?;
    if arguments.format == "json" {
        output::print(&pretty(&raw)?)?;
        return Ok(0);
    }
    let trusting: Trusting = serde_json::from_value(raw).map_err(|cause| ClientError::Json {
        request: String::from("GET /trust"),
        cause,
    })?;
    output::print(&spoken(&trusting))?;
    Ok(0)
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

fn spoken(trusting: &Trusting) -> String {
    let mut rows = vec![row(&["SCOPE", "MODE", "SIGNED BY", "RELEASES"])];
    for scope in &trusting.scopes {
        let keys = match scope.keys.as_slice() {
            [] => String::from("anybody or nobody"),
            [key] => key.clone(),
            keys => format!("{} of {}", scope.threshold, keys.join(", ")),
        };
        let notes: Vec<String> = scope
            .annotations
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let keys = match notes.as_slice() {
            [] => keys,
            notes => format!("{keys} with {}", notes.join(", ")),
        };
        let release = if scope.release { "signed" } else { "" };
        rows.push(row(&[&scope.scope, &scope.mode, &keys, release]));
    }
    rows.push(row(&["everything else", &trusting.default]));
    let mut page = table::align(&rows);
    if !trusting.keys.is_empty() {
        let mut rows = vec![row(&["KEY", "SIGNS WITH", "FROM", "UNTIL", "NOW", "FINGERPRINT"])];
        for key in &trusting.keys {
            let state = if key.fault.is_empty() {
                "counts"
            } else {
                &key.fault
            };
            rows.push(row(&[
                &key.name,
                &key.algorithm,
                &key.not_before,
                &key.not_after,
                state,
                &key.fingerprint,
            ]));
        }
        page.push('\n');
        page.push_str(&table::align(&rows));
    }
    if !trusting.floors.is_empty() || !trusting.downgrades.is_empty() {
        let mut rows = vec![row(&["RELEASE", "NOTHING BELOW", "BUT ALSO"])];
        let mut downgrades = trusting.downgrades.clone();
        for floor in &trusting.floors {
            let also = downgrades.remove(&floor.name).unwrap_or_default();
            rows.push(row(&[&floor.name, &floor.version, &also]));
        }
        // Permitted before anything was committed.
        rows.extend(downgrades.iter().map(|(name, version)| row(&[name, "", version])));
        page.push('\n');
        page.push_str(&table::align(&rows));
    }
    if trusting.revocations > 0 {
        page.push_str(&format!(
            "\nlist of revoked keys: version {}\n",
            trusting.revocations
        ));
    }
    page
}
