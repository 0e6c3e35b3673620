//! `kakoi version`: the versions of this program and of the daemon.

use serde_json::{Value, json};

use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::listing::{ListingError, pretty};
use crate::template::Template;
use crate::{output, table};

/// The arguments of `kakoi version`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// json, or a template, as in '{{.Server.Version}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Shows the versions; a daemon that does not answer is an error after the client's own are shown.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let template = arguments
        .format
        .as_deref()
        .filter(|text| *text != "json")
        .map(Template::parse_format);
    let template = template.transpose().map_err(ListingError::Format)?;
    let mut document = json!({
        "Client": {
            "Version": env!("CARGO_PKG_VERSION"),
            "ApiVersion": kakoi_api::API_VERSION,
            "Os": std::env::consts::OS,
            "Arch": std::env::consts::ARCH,
        },
    });
    let server = client.get(Target::new("/version")).await;
    let failure = match server {
        Ok(server) => {
            document["Server"] = server;
            None
        }
        Err(error) => Some(error),
    };
    match (template, arguments.format) {
        (Some(template), _) => {
            if let Some(error) = failure {
                return Err(error.into());
            }
            output::line(&template.render(&document).map_err(ListingError::Format)?)?;
            return Ok(0);
        }
        (None, Some(_)) => output::print(&pretty(&document)?)?,
        (None, None) => output::print(&spoken(&document))?,
    }
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(0),
    }
}

fn spoken(document: &Value) -> String {
    const LINES: [(&str, &str); 7] = [
        ("Version:", "Version"),
        ("API version:", "ApiVersion"),
        ("Minimum API version:", "MinAPIVersion"),
        ("Git commit:", "GitCommit"),
        ("Built:", "BuildTime"),
        ("OS/Arch:", "Os"),
        ("Kernel:", "KernelVersion"),
    ];
    let mut page = String::new();
    for side in ["Client", "Server"] {
        let part = &document[side];
        if part.is_null() {
            continue;
        }
        if !page.is_empty() {
            page.push('\n');
        }
        page.push_str(&format!("{side}:\n"));
        let mut rows = Vec::new();
        for (title, field) in LINES {
            let Some(words) = part[field].as_str().filter(|words| !words.is_empty()) else {
                continue;
            };
            let words = match field {
                "Os" => format!("{words}/{}", part["Arch"].as_str().unwrap_or_default()),
                _ => words.to_owned(),
            };
            rows.push(vec![format!(" {title}"), words]);
        }
        page.push_str(&table::align(&rows));
    }
    page
}
