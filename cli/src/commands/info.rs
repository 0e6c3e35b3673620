//! `kakoi info`: the engine's state.

use serde_json::Value;

use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::listing::{ListingError, items, pretty};
use crate::template::Template;
use crate::{output, text};

/// The arguments of `kakoi info`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// json, or a template, as in '{{.ServerVersion}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Shows the engine's state.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let template = arguments
        .format
        .as_deref()
        .filter(|text| *text != "json")
        .map(Template::parse_format);
    let template = template.transpose().map_err(ListingError::Format)?;
    let info = client.get(Target::new("/info")).await?;
    match (template, arguments.format) {
        (Some(template), _) => output::line(&template.render(&info).map_err(ListingError::Format)?)?,
        (None, Some(_)) => output::print(&pretty(&info)?)?,
        (None, None) => output::print(&spoken(&info))?,
    }
    for warning in items(&info["Warnings"]).iter().filter_map(Value::as_str) {
        output::complain(&text::printable(warning));
    }
    Ok(0)
}

fn spoken(info: &Value) -> String {
    const LINES: [(&str, &str); 17] = [
        ("Containers", "Containers"),
        (" Running", "ContainersRunning"),
        (" Paused", "ContainersPaused"),
        (" Stopped", "ContainersStopped"),
        ("Images", "Images"),
        ("Server Version", "ServerVersion"),
        ("Storage Driver", "Driver"),
        ("Logging Driver", "LoggingDriver"),
        ("Cgroup Driver", "CgroupDriver"),
        ("Cgroup Version", "CgroupVersion"),
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
        ("CPUs", "NCPU"),
        ("Name", "Name"),
        ("ID", "ID"),
    ];
    let mut page = String::new();
    for (title, field) in LINES {
        let value = match &info[field] {
            Value::String(words) => text::cell(words),
            Value::Null => continue,
            other => other.to_string(),
        };
        page.push_str(&format!("{title}: {value}\n"));
    }
    page.push_str(&format!(
        "Total Memory: {}\n",
        text::binary_size(info["MemTotal"].as_f64().unwrap_or(0.0))
    ));
    if let Some(root) = info["DockerRootDir"].as_str() {
        page.push_str(&format!("Root Dir: {}\n", text::cell(root)));
    }
    let options = items(&info["SecurityOptions"]).iter().filter_map(Value::as_str);
    let options: Vec<String> = options.map(text::cell).collect();
    if !options.is_empty() {
        page.push_str(&format!("Security Options:\n  {}\n", options.join("\n  ")));
    }
    page
}
