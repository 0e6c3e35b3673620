//! `kakoi events`: what happens, as it happens.

use hyper::Method;
use serde_json::Value;

use crate::client::{Client, Target, empty_body};
use crate::failure::Failure;
use crate::listing::{ListingError, filters};
use crate::template::Template;
use crate::{clock, output, text};

/// The arguments of `kakoi events`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Only those that fit, as in event=die or container=web
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Also what happened from this time on
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// End at this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Go on as things happen: true or false
    #[arg(long, value_name = "BOOL", default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    stream: bool,
    /// json, or a template, as in '{{.Action}} {{.Actor.ID}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Shows events.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let format = match arguments.format.as_deref() {
        None => None,
        Some("json") => Some(Template::parse("{{json .}}").map_err(ListingError::Format)?),
        Some(text) => Some(Template::parse_format(text).map_err(ListingError::Format)?),
    };
    let since = arguments
        .since
        .as_deref()
        .map(|text| clock::parse("--since", text))
        .transpose()?;
    let mut until = arguments
        .until
        .as_deref()
        .map(|text| clock::parse("--until", text))
        .transpose()?;
    if !arguments.stream && until.is_none() {
        // To the nanosecond: what happened in this very second counts.
        until = Some(clock::instant());
    }
    let target = Target::new("/events")
        .maybe("since", since.as_deref())
        .maybe("until", until.as_deref())
        .maybe("filters", filters(&arguments.filter)?.as_deref());
    let mut stream = client.stream(Method::GET, &target, empty_body()).await?;
    while let Some(event) = stream.next().await? {
        let line = match &format {
            Some(template) => template.render(&event).map_err(ListingError::Format)?,
            None => spoken(&event),
        };
        output::line(&line)?;
    }
    Ok(0)
}

/// Shows what happens to the device's interfaces, from now on.
pub async fn follow_host(is_json: bool, client: &Client) -> Result<u8, Failure> {
    let format = is_json.then(|| "json".to_owned());
    let arguments = Arguments {
        filter: vec!["type=host".to_owned()],
        since: None,
        until: None,
        stream: true,
        format,
    };
    run(arguments, client).await
}

/// `2026-01-31T12:00:00.000000000Z container start <id> (image=web, name=a)`.
fn spoken(event: &Value) -> String {
    let word = |value: &Value| text::cell(value.as_str().unwrap_or_default());
    let nanoseconds = event["timeNano"].as_i64().unwrap_or(0);
    let attributes: Vec<String> = event["Actor"]["Attributes"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{}={}", text::cell(name), word(value)))
        .collect();
    let mut line = format!(
        "{} {} {} {}",
        clock::precise(nanoseconds),
        word(&event["Type"]),
        word(&event["Action"]),
        word(&event["Actor"]["ID"])
    );
    if !attributes.is_empty() {
        line.push_str(&format!(" ({})", attributes.join(", ")));
    }
    line
}
