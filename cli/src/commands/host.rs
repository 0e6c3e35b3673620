//! `kakoi host`: what of the device is open, and everything else closed.
//!
//! Owns the words about it. What is read, decided and turned is the daemon's.

use clap::Subcommand;
use kakoi_api::host::{HostItem, HostStatus, HostStep};
use serde_json::Value;

use super::events;
use crate::client::{Client, ClientError, Target};
use crate::failure::Failure;
use crate::listing::pretty;
use crate::{output, table, text};

/// The end of the help of `apply`.
const APPLY_HELP: &str = "\
What is open stands in host.yaml (lockdown:); everything that is not written there is closed. What stood before is remembered, and put back by
`kakoi host release`. What only a new start of the device undoes is left to `kakoi host confirm` while it is a trial.

Examples:
  kakoi host plan
  kakoi host apply --trial 60s && kakoi host confirm

Exit status: 0 all of it was done; 1 something failed; 125 nothing was done";

/// The end of the help of `diff`.
const DIFF_HELP: &str =
    "Exit status: 0 everything that can be read is as declared; 1 something is not; 125 it is not known";

/// The end of the help of `explain`.
const EXPLAIN_HELP: &str = "\
Examples:
  kakoi host explain kernel/kernel.sysrq
  kakoi host explain usb/1-1";

/// Why nothing was shown.
#[derive(Debug, thiserror::Error)]
enum HostError {
    #[error("there is no item {0}; see `kakoi host status` for their names")]
    NoItem(String),
    #[error("--trial {0:?} is not a time: write one as in 60s, from a second to a day")]
    Trial(String),
}

/// Commands about the device's interfaces.
#[derive(Subcommand, Debug)]
pub enum HostCommand {
    /// Close everything that host.yaml does not declare open
    #[command(after_help = APPLY_HELP)]
    Apply(ApplyArguments),
    /// Keep what was applied for a trial
    Confirm(FormatArguments),
    /// Show what is not as declared
    #[command(after_help = DIFF_HELP)]
    Diff(FormatArguments),
    /// Show everything about one item: how it is enforced, and what that breaks
    #[command(after_help = EXPLAIN_HELP)]
    Explain(ExplainArguments),
    /// Show what an apply of host.yaml would do, and do nothing
    Plan(FormatArguments),
    /// Put everything back as it was before the first apply
    Release(FormatArguments),
    /// Show everything that is declared, and how it stands
    Status(FormatArguments),
    /// Show drift and corrections as they happen
    Watch(WatchArguments),
}

/// How an answer is written.
#[derive(clap::Args, Debug)]
pub struct FormatArguments {
    /// text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    format: String,
}

/// The arguments of `kakoi host apply`.
#[derive(clap::Args, Debug)]
pub struct ApplyArguments {
    /// Go back by itself after this time unless confirmed, also if the daemon or the device starts anew meanwhile
    #[arg(long, value_name = "TIME")]
    trial: Option<String>,
    #[command(flatten)]
    format: FormatArguments,
}

/// The arguments of `kakoi host explain`.
#[derive(clap::Args, Debug)]
pub struct ExplainArguments {
    #[command(flatten)]
    format: FormatArguments,
    /// The item's name, as `kakoi host status` shows it
    #[arg(value_name = "ITEM")]
    item: String,
}

/// The arguments of `kakoi host watch`.
#[derive(clap::Args, Debug)]
pub struct WatchArguments {
    /// text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    format: String,
}

/// Runs a command about the device's interfaces.
pub async fn run(command: HostCommand, client: &Client) -> Result<u8, Failure> {
    let target = Target::new("/host");
    match command {
        HostCommand::Apply(arguments) => {
            let trial = arguments.trial.as_deref().map(milliseconds).transpose()?;
            let target = target.segment("apply").maybe("trial", trial.as_deref());
            done(&arguments.format, &client.post(target, None).await?)
        }
        HostCommand::Confirm(arguments) => {
            done(&arguments, &client.post(target.segment("confirm"), None).await?)
        }
        HostCommand::Release(arguments) => {
            done(&arguments, &client.post(target.segment("release"), None).await?)
        }
        HostCommand::Plan(arguments) => {
            show(&arguments, &client.get(target.segment("plan")).await?, planned)?;
            Ok(0)
        }
        HostCommand::Status(arguments) => {
            show(&arguments, &client.get(target).await?, spoken)?;
            Ok(0)
        }
        HostCommand::Diff(arguments) => diff(&arguments, client).await,
        HostCommand::Explain(arguments) => explain(&arguments, client).await,
        HostCommand::Watch(arguments) => events::follow_host(arguments.format == "json", client).await,
    }
}

fn read(value: &Value) -> Result<HostStatus, ClientError> {
    serde_json::from_value(value.clone()).map_err(|cause| ClientError::Json {
        request: "host".to_owned(),
        cause,
    })
}

fn show(format: &FormatArguments, raw: &Value, words: impl Fn(&HostStatus) -> String) -> Result<(), Failure> {
    match format.format.as_str() {
        "json" => output::print(&pretty(raw)?)?,
        _ => output::print(&words(&read(raw)?))?,
    }
    Ok(())
}

fn milliseconds(given: &str) -> Result<String, HostError> {
    let bad = || HostError::Trial(given.to_owned());
    let nanoseconds = text::parse_duration(given).map_err(|_| bad())?;
    let milliseconds = nanoseconds / 1_000_000;
    match (1_000..=86_400_000).contains(&milliseconds) {
        true => Ok(milliseconds.to_string()),
        false => Err(bad()),
    }
}

fn done(format: &FormatArguments, raw: &Value) -> Result<u8, Failure> {
    show(format, raw, acted)?;
    let failed = read(raw)?.steps.iter().any(|step| !step.error.is_empty());
    Ok(u8::from(failed))
}

/// What was done.
fn acted(status: &HostStatus) -> String {
    let mut page = String::new();
    if !status.steps.is_empty() {
        page.push_str(&table::align(&step_rows(&status.steps, true)));
    }
    page.push_str(&standing(status));
    for name in &status.withheld {
        page.push_str(&format!("waits for the confirmation: {}\n", text::cell(name)));
    }
    page
}

fn planned(status: &HostStatus) -> String {
    if status.steps.is_empty() {
        return "nothing is to be done\n".to_owned();
    }
    let mut page = table::align(&step_rows(&status.steps, false));
    let broken = status.items.iter().filter(|item| {
        let is_turned = status.steps.iter().any(|step| step.item == item.name);
        is_turned && !item.breaks.is_empty()
    });
    for item in broken {
        page.push_str(&format!(
            "{} breaks: {}\n",
            text::cell(&item.name),
            text::cell(&item.breaks)
        ));
    }
    page
}

fn step_rows(steps: &[HostStep], is_done: bool) -> Vec<Vec<String>> {
    let last = if is_done { "RESULT" } else { "UNDONE BY" };
    let mut rows = vec![["ITEM", "WHAT", "FROM", "TO", last].map(str::to_owned).to_vec()];
    rows.extend(steps.iter().map(|step| {
        let undone = match step.undo.as_str() {
            "now" => "release",
            "restart" => "a new start of the device",
            _ => "a person",
        };
        let result = match (is_done, step.error.as_str()) {
            (false, _) => undone,
            (true, "") => "done",
            (true, error) => error,
        };
        [&step.item, &step.what, &step.from, &step.to, result]
            .map(str::to_owned)
            .to_vec()
    }));
    rows
}

/// The first line of a status.
fn standing(status: &HostStatus) -> String {
    let count = |verdict: &str| status.items.iter().filter(|item| item.verdict == verdict).count();
    let counts = format!(
        "{} ok, {} drift, {} unknown",
        count("ok"),
        count("drift"),
        count("unknown")
    );
    let phase = match status.phase.as_str() {
        "off" if !status.is_declared => "nothing is enforced, and host.yaml declares nothing".to_owned(),
        "off" => format!("nothing is enforced; by host.yaml {counts}"),
        "trial" => format!(
            "on trial for {} seconds more; {counts}",
            status.trial_left_ms.div_euclid(1000)
        ),
        "release" => "not everything went back yet; it is tried again".to_owned(),
        _ => format!("enforced; {counts}"),
    };
    let mut page = format!("{phase}\n");
    if matches!(status.phase.as_str(), "trial" | "on") && !status.is_applied {
        page.push_str("host.yaml is not what is enforced: see `kakoi host plan`\n");
    }
    if !status.trouble.is_empty() {
        page.push_str(&format!("trouble: {}\n", text::cell(&status.trouble)));
    }
    page
}

fn item_rows<'a>(items: impl Iterator<Item = &'a HostItem>) -> Vec<Vec<String>> {
    let mut rows = vec![
        ["VERDICT", "ITEM", "DECLARED", "ACTUAL"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(items.map(|item| {
        [&item.verdict, &item.name, &item.declared, &item.actual]
            .map(ToOwned::to_owned)
            .to_vec()
    }));
    rows
}

fn spoken(status: &HostStatus) -> String {
    let mut page = standing(status);
    if !status.items.is_empty() {
        page.push_str(&table::align(&item_rows(status.items.iter())));
    }
    page
}

async fn diff(arguments: &FormatArguments, client: &Client) -> Result<u8, Failure> {
    let mut raw = client.get(Target::new("/host")).await?;
    if let Some(items) = raw.get_mut("Items").and_then(Value::as_array_mut) {
        items.retain(|item| item["Verdict"] != "ok");
    }
    show(arguments, &raw, |status| match status.items.is_empty() {
        true => String::new(),
        false => table::align(&item_rows(status.items.iter())),
    })?;
    let drifts = read(&raw)?.items.iter().any(|item| item.verdict == "drift");
    Ok(u8::from(drifts))
}

async fn explain(arguments: &ExplainArguments, client: &Client) -> Result<u8, Failure> {
    let raw = client.get(Target::new("/host")).await?;
    let items = raw["Items"].as_array();
    let found = items
        .into_iter()
        .flatten()
        .find(|item| item["Name"] == arguments.item.as_str());
    let found = found.ok_or_else(|| HostError::NoItem(arguments.item.clone()))?;
    if arguments.format.format == "json" {
        output::print(&pretty(found)?)?;
        return Ok(0);
    }
    let status = read(&raw)?;
    if let Some(item) = status.items.iter().find(|item| item.name == arguments.item) {
        output::print(&explained(item))?;
    }
    Ok(0)
}

fn explained(item: &HostItem) -> String {
    let undo = match item.undo.as_str() {
        "" => "",
        "now" => "kakoi host release",
        "restart" => "a new start of the device",
        _ => "a person",
    };
    let drift = match (item.undo.as_str(), item.corrects) {
        ("", _) => "told",
        (_, true) => "corrected",
        (_, false) => "told, and left as it is",
    };
    let rows = [
        ("item", item.name.as_str()),
        ("declared", &item.declared),
        ("actual", &item.actual),
        ("verdict", &item.verdict),
        ("enforced", &item.how),
        ("breaks", &item.breaks),
        ("undone by", undo),
        ("drift is", drift),
    ];
    let rows = rows.iter().filter(|(_, words)| !words.is_empty());
    rows.map(|(label, words)| format!("{label:<10} {}\n", text::cell(words)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_is_told() {
        let mut status = HostStatus {
            phase: "trial".into(),
            trial_left_ms: 59_999,
            is_declared: true,
            items: vec![HostItem {
                name: "usb/1-1".into(),
                verdict: "drift".into(),
                actual: "0403:6001 \u{1b}[31m".into(),
                ..HostItem::default()
            }],
            ..HostStatus::default()
        };
        let page = spoken(&status);
        assert!(
            page.starts_with("on trial for 59 seconds more; 0 ok, 1 drift"),
            "{page}"
        );
        assert!(page.contains("host.yaml is not what is enforced"), "{page}");
        assert!(!page.contains('\u{1b}'), "{page}");
        status.phase = "off".into();
        assert!(spoken(&status).starts_with("nothing is enforced; by host.yaml"));
        status.is_declared = false;
        assert!(spoken(&status).contains("declares nothing"));
    }

    #[test]
    fn a_trial_has_bounds() {
        for (text, expected) in [
            ("60s", Some("60000")),
            ("1h", Some("3600000")),
            ("0s", None),
            ("999ms", None),
            ("25h", None),
            ("x", None),
        ] {
            assert_eq!(milliseconds(text).ok().as_deref(), expected, "{text}");
        }
    }
}
