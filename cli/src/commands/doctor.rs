//! `kakoi doctor`: what this device can enforce, what is missing, and what that costs.

use kakoi_api::kakoi::{Doctor, Finding};

use crate::client::{Client, ClientError, Target};
use crate::failure::Failure;
use crate::listing::pretty;
use crate::{output, table, text};

/// The arguments of `kakoi doctor`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// table or json
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

/// Shows the findings; the exit status is 1 where anything is missing.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let raw = client.get(Target::new("/doctor")).await?;
    let doctor: Doctor = serde_json::from_value(raw.clone()).map_err(|cause| ClientError::Json {
        request: "doctor".to_owned(),
        cause,
    })?;
    let is_whole = doctor.findings.iter().all(|finding| finding.status != "missing");
    match arguments.format.as_str() {
        "json" => output::print(&pretty(&raw)?)?,
        _ => output::print(&spoken(&doctor.findings))?,
    }
    Ok(u8::from(!is_whole))
}

fn spoken(findings: &[Finding]) -> String {
    let titles = ["WHAT", "STATE", "FOUND"].map(str::to_owned).to_vec();
    let mut rows = vec![titles];
    for finding in findings {
        // What is well has nothing to cost: some findings say there what was found.
        let found = if finding.found.is_empty() && finding.status == "ok" {
            &finding.cost
        } else {
            &finding.found
        };
        rows.push(vec![finding.name.clone(), finding.status.clone(), found.clone()]);
    }
    let mut page = table::align(&rows);
    for finding in findings.iter().filter(|finding| finding.status != "ok") {
        page.push_str(&format!(
            "\n{}: {}\n",
            text::cell(&finding.name),
            text::cell(&finding.status)
        ));
        if !finding.cost.is_empty() {
            page.push_str(&format!("  What it costs: {}\n", text::cell(&finding.cost)));
        }
        if !finding.remedy.is_empty() {
            page.push_str(&format!("  What to do:    {}\n", text::cell(&finding.remedy)));
        }
    }
    if findings.iter().all(|finding| finding.status == "ok") {
        page.push_str("\nThis device can enforce every rule of a policy.\n");
    }
    page
}
