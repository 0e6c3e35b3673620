//! `kakoi why`: what a container was refused lately, by which rule, and what would allow it; of an app, why its last update did not come to be.

use kakoi_api::app::AppStatus;
use kakoi_api::kakoi::{Denial, Denials};

use super::{app, os};
use crate::client::{Client, ClientError, Target};
use crate::failure::Failure;
use crate::listing::pretty;
use crate::{each, output, text};

/// The arguments of `kakoi why`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// In the container that was created last
    #[arg(short, long)]
    latest: bool,
    /// How many kinds of refusals are shown, the latest first
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 10)]
    last: u32,
    /// How they are written: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    format: String,
    /// The container, or an app: then why its last update did not come to be; of `os`, that of the operating system
    #[arg(value_name = "CONTAINER|APP|os")]
    container: Option<String>,
}

/// The daemon hears nothing.
#[derive(Debug, thiserror::Error)]
#[error("{0}; 'kakoi doctor' says what is missing")]
struct NotHeard(String);

/// Shows refusals; a daemon that cannot hear of any is an error, not an empty answer.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let name = each::one(client, arguments.container.as_deref(), arguments.latest).await?;
    let target = Target::new("/containers")
        .segment(&name)
        .segment("denials")
        .query("last", &arguments.last.to_string());
    let raw = match client.get(target).await {
        Err(error) if error.is_not_found() => return of_app(client, &name, &arguments.format, error).await,
        answer => answer?,
    };
    let answer: Denials = serde_json::from_value(raw.clone()).map_err(|cause| ClientError::Json {
        request: "why".to_owned(),
        cause,
    })?;
    if !answer.not_heard_because.is_empty() {
        return Err(Failure::new(125, NotHeard(answer.not_heard_because)));
    }
    match arguments.format.as_str() {
        "json" => output::print(&pretty(&raw)?)?,
        _ => output::print(&spoken(&name, &answer))?,
    }
    Ok(0)
}

/// What is no container may be an app: why its last update did not come to be.
async fn of_app(client: &Client, name: &str, format: &str, error: ClientError) -> Result<u8, Failure> {
    let raw = match client.get(Target::new("/apps").segment(name)).await {
        Err(other) if other.is_not_found() && name == "os" => return os::why(format, client).await,
        // It is neither, and the container was asked for.
        Err(other) if other.is_not_found() => return Err(error.into()),
        answer => answer?,
    };
    if format == "json" {
        output::print(&pretty(&raw)?)?;
        return Ok(0);
    }
    let status: AppStatus = serde_json::from_value(raw).map_err(|cause| ClientError::Json {
        request: "why".to_owned(),
        cause,
    })?;
    if status.failure.is_empty() && status.trouble.is_empty() {
        output::line(&format!("{}: its last update went well", text::cell(name)))?;
    }
    output::print(&app::spoken(&status))?;
    if let Some(version) = &status.current {
        let container = text::cell(&version.container);
        output::line(&format!("what it was refused: kakoi why {container}"))?;
    }
    Ok(0)
}

fn spoken(name: &str, answer: &Denials) -> String {
    let mut page = String::new();
    if answer.denials.is_empty() {
        page.push_str(&format!(
            "{}: no system call was refused since the daemon started\n",
            text::cell(name)
        ));
    }
    for denial in &answer.denials {
        page.push_str(&one(denial, &answer.policy));
    }
    if answer.unattributed + answer.missed > 0 {
        page.push_str(&format!(
            "Not shown: {} of processes that were gone before they could be looked up, of this container or others; records were lost {} times\n",
            answer.unattributed, answer.missed
        ));
    }
    page
}

fn one(denial: &Denial, policy: &str) -> String {
    let times = if denial.count == 1 { "once" } else { "times" };
    let count = if denial.count == 1 {
        String::new()
    } else {
        format!("{} ", denial.count)
    };
    let mut words = format!(
        "{}: {} {count}{times}, last {} in {}\n",
        text::cell(&denial.system_call),
        text::cell(&denial.action),
        text::cell(&denial.last),
        text::cell(&denial.program),
    );
    if denial.because.is_empty() {
        words.push_str(&format!(
            "  because policy {} says so; its text is not kept here\n",
            text::cell(policy)
        ));
    }
    for (label, value) in [("because", &denial.because), ("rule   ", &denial.rule)] {
        if !value.is_empty() {
            words.push_str(&format!("  {label} {}\n", text::cell(value)));
        }
    }
    if !denial.remedy.is_empty() {
        words.push_str("  to allow it, add to the policy:\n");
        for line in denial.remedy.lines() {
            words.push_str(&format!("    {}\n", text::cell(line)));
        }
    }
    words
}
