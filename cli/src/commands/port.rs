//! `kakoi port`: where a container's ports are published.

use serde_json::Value;

use crate::client::{Client, Target};
use crate::each::one;
use crate::failure::{ENGINE, Failure};
use crate::listing::items;
use crate::{output, ports, text};

/// The arguments of `kakoi port`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Of every container that runs
    #[arg(short, long, conflicts_with_all = ["latest", "words"])]
    all: bool,
    /// Of the container that was created last
    #[arg(short, long)]
    latest: bool,
    /// The container, and one of its ports, as in 80 or 53/udp
    #[arg(value_name = "CONTAINER [PORT[/PROTOCOL]]", num_args = 0..=2)]
    words: Vec<String>,
}

/// Why no port can be told.
#[derive(Debug, thiserror::Error)]
enum PortError {
    /// It is not published.
    #[error("no public port '{port}' published for {container}")]
    Unpublished { port: String, container: String },
    /// It is not a port.
    #[error("{text:?} is not PORT[/PROTOCOL], as in 80 or 53/udp")]
    Form { text: String },
    /// Too much was said.
    #[error("--latest names the container: say the port alone")]
    TwoContainers,
}

/// A port inside: its number, its protocol, and its places at the host.
type Row = (u16, String, Vec<String>);

/// Tells where ports are published.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    if arguments.all {
        return all(client).await;
    }
    let mut words = arguments.words.iter().map(String::as_str);
    let name = if arguments.latest { None } else { words.next() };
    let port = words.next().map(wanted).transpose()?;
    if words.next().is_some() {
        return Err(Failure::new(ENGINE, PortError::TwoContainers));
    }
    let name = one(client, name, arguments.latest).await?;
    let document = client
        .get(Target::new("/containers").segment(&name).segment("json"))
        .await?;
    let rows = rows(&document["NetworkSettings"]["Ports"]);
    let Some((number, protocol)) = port else {
        return tell(&rows, "");
    };
    let found = rows
        .iter()
        .find(|(inside, kind, _)| (*inside, kind.as_str()) == (number, protocol.as_str()));
    match found {
        Some((_, _, places)) => {
            output::line(&places.join("\n"))?;
            Ok(0)
        }
        None => Err(Failure::new(
            ENGINE,
            PortError::Unpublished {
                port: format!("{number}/{protocol}"),
                container: name,
            },
        )),
    }
}

/// Of every running container, each line with the container's id before it.
async fn all(client: &Client) -> Result<u8, Failure> {
    let list = client.get(Target::new("/containers/json")).await?;
    for item in items(&list) {
        let id = item["Id"].as_str().unwrap_or_default();
        let document = client
            .get(Target::new("/containers").segment(id).segment("json"))
            .await;
        match document {
            Ok(document) => {
                let before = format!("{}\t", text::short_id(id, false));
                tell(&rows(&document["NetworkSettings"]["Ports"]), &before)?;
            }
            // It ended meanwhile.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(0)
}

fn tell(rows: &[Row], before: &str) -> Result<u8, Failure> {
    let mut text = String::new();
    for (number, protocol, places) in rows {
        for place in places {
            text.push_str(&format!("{before}{number}/{protocol} -> {place}\n"));
        }
    }
    output::print(&text)?;
    Ok(0)
}

fn wanted(text: &str) -> Result<(u16, String), PortError> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    match number.parse::<u16>() {
        Ok(number) if number > 0 && !protocol.is_empty() => Ok((number, protocol.to_ascii_lowercase())),
        _ => Err(PortError::Form {
            text: text.to_owned(),
        }),
    }
}

/// What is published, in the order of the numbers inside.
fn rows(published: &Value) -> Vec<Row> {
    let mut rows: Vec<Row> = published
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(inside, bindings)| {
            let (number, protocol) = inside.split_once('/')?;
            let word = |binding: &Value, field: &str| binding[field].as_str().unwrap_or_default().to_owned();
            let places: Vec<String> = items(bindings)
                .iter()
                .map(|binding| ports::place(&word(binding, "HostIp"), &word(binding, "HostPort")))
                .collect();
            (!places.is_empty()).then_some((number.parse().ok()?, text::cell(protocol), places))
        })
        .collect();
    rows.sort();
    rows
}
