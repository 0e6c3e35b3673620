//! `kakoi container prune`, `image prune`, `network prune`, `volume prune`, `system prune`: remove what nothing uses, after asking.

use std::io::{self, IsTerminal as _, Write as _};

use serde_json::Value;

use super::rmi;
use crate::client::{Client, Target};
use crate::each::Told;
use crate::failure::Failure;
use crate::listing::{filters, items};
use crate::{output, text};

/// The longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64;

/// The arguments of `kakoi container prune` and `kakoi network prune`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only those that fit, as in until=24h or label=app=db
    #[arg(long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
}

/// The arguments of `kakoi volume prune`.
#[derive(clap::Args, Debug)]
pub struct VolumeArguments {
    /// Also volumes that have a name
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    common: Arguments,
}

/// The arguments of `kakoi image prune`.
#[derive(clap::Args, Debug)]
pub struct ImageArguments {
    /// Also images that have a name and no container
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    common: Arguments,
}

/// The arguments of `kakoi system prune`.
#[derive(clap::Args, Debug)]
pub struct SystemArguments {
    /// Also images that have a name and no container
    #[arg(short, long)]
    all: bool,
    /// Volumes too
    #[arg(long)]
    volumes: bool,
    #[command(flatten)]
    common: Arguments,
}

/// Nobody can be asked.
#[derive(Debug, thiserror::Error)]
enum AskError {
    /// Standard input is no terminal.
    #[error("standard input is not a terminal, so nobody can be asked: use --force")]
    NoTerminal,
    /// Standard input cannot be read.
    #[error("reading the answer")]
    Read(#[source] io::Error),
}

/// Removes containers that do not run.
pub async fn run_containers(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    if !may(&arguments, "This removes every container that does not run.")? {
        return Ok(0);
    }
    let bytes = containers(&arguments, client).await?;
    reclaimed(bytes)
}

/// Removes images that nothing uses.
pub async fn run_images(arguments: ImageArguments, client: &Client) -> Result<u8, Failure> {
    let which = if arguments.all {
        "no container uses"
    } else {
        "has no name and no container"
    };
    if !may(
        &arguments.common,
        &format!("This removes every image that {which}."),
    )? {
        return Ok(0);
    }
    let bytes = images(&arguments.common, arguments.all, client).await?;
    reclaimed(bytes)
}

/// Removes networks that nothing uses.
pub async fn run_networks(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    if may(&arguments, "This removes every network that no container is in.")? {
        networks(&arguments, client).await?;
    }
    Ok(0)
}

/// Removes volumes that nothing uses.
pub async fn run_volumes(arguments: VolumeArguments, client: &Client) -> Result<u8, Failure> {
    let which = if arguments.all {
        "every volume"
    } else {
        "every volume without a name of its own"
    };
    if !may(
        &arguments.common,
        &format!("This removes {which} that no container uses, with its data."),
    )? {
        return Ok(0);
    }
    let bytes = volumes(&arguments.common, arguments.all, client).await?;
    reclaimed(bytes)
}

/// Removes everything that nothing uses.
pub async fn run_system(arguments: SystemArguments, client: &Client) -> Result<u8, Failure> {
    let more = if arguments.volumes {
        ", and volumes that no container uses, with their data"
    } else {
        ""
    };
    let which = if arguments.all {
        "without a container"
    } else {
        "without a name"
    };
    if !may(
        &arguments.common,
        &format!(
            "This removes containers that do not run, networks without a container, images {which}{more}."
        ),
    )? {
        return Ok(0);
    }
    let mut bytes = containers(&arguments.common, client).await?;
    networks(&arguments.common, client).await?;
    if arguments.volumes {
        bytes += volumes(&arguments.common, false, client).await?;
    }
    bytes += images(&arguments.common, arguments.all, client).await?;
    reclaimed(bytes)
}

async fn containers(arguments: &Arguments, client: &Client) -> Result<f64, Failure> {
    let target = Target::new("/containers/prune").maybe("filters", filters(&arguments.filter)?.as_deref());
    let answer = client.post(target, None).await?;
    names("Deleted Containers:", &answer["ContainersDeleted"])?;
    Ok(space(&answer))
}

async fn images(arguments: &Arguments, all: bool, client: &Client) -> Result<f64, Failure> {
    let mut wanted = arguments.filter.clone();
    wanted.push(format!("dangling={}", !all));
    let target = Target::new("/images/prune").maybe("filters", filters(&wanted)?.as_deref());
    let answer = client.post(target, None).await?;
    if let Told::Line(lines) = rmi::told(&answer["ImagesDeleted"]) {
        output::line(&format!("Deleted Images:\n{lines}\n"))?;
    }
    Ok(space(&answer))
}

async fn networks(arguments: &Arguments, client: &Client) -> Result<(), Failure> {
    let target = Target::new("/networks/prune").maybe("filters", filters(&arguments.filter)?.as_deref());
    let answer = client.post(target, None).await?;
    names("Deleted Networks:", &answer["NetworksDeleted"])
}

async fn volumes(arguments: &Arguments, all: bool, client: &Client) -> Result<f64, Failure> {
    let mut wanted = arguments.filter.clone();
    if all {
        wanted.push("all=true".to_owned());
    }
    let target = Target::new("/volumes/prune").maybe("filters", filters(&wanted)?.as_deref());
    let answer = client.post(target, None).await?;
    names("Deleted Volumes:", &answer["VolumesDeleted"])?;
    Ok(space(&answer))
}

fn names(title: &str, list: &Value) -> Result<(), Failure> {
    let names: Vec<&str> = items(list).iter().filter_map(Value::as_str).collect();
    if names.is_empty() {
        Ok(())
    } else {
        output::line(&format!("{title}\n{}\n", names.join("\n")))
    }
}

fn space(answer: &Value) -> f64 {
    answer["SpaceReclaimed"].as_f64().unwrap_or(0.0)
}

fn reclaimed(bytes: f64) -> Result<u8, Failure> {
    output::line(&format!("Total reclaimed space: {}", text::decimal_size(bytes)))?;
    Ok(0)
}

fn may(arguments: &Arguments, words: &str) -> Result<bool, Failure> {
    if arguments.force {
        return Ok(true);
    }
    if !io::stdin().is_terminal() {
        return Err(AskError::NoTerminal.into());
    }
    output::print(&format!("WARNING! {words}\nGo on? [y/N] "))?;
    io::stdout().flush().map_err(AskError::Read)?;
    let mut answer = String::new();
    let mut limited = io::Read::take(io::stdin().lock(), ANSWER_BYTES_MAX);
    io::BufRead::read_line(&mut io::BufReader::new(&mut limited), &mut answer).map_err(AskError::Read)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
