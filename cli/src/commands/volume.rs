//! `kakoi volume`: named volumes, and their backups.

use std::io;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use hyper::Method;
use kakoi_api::volume::VolumeBody;
use serde_json::{Value, json};

use super::save::{self, SaveError};
use super::{exists, inspect, prune};
use crate::client::{Client, ClientError, Target, empty_body};
use crate::create::read_labels;
use crate::each::{self, Told};
use crate::failure::Failure;
use crate::listing::{Column, Format, Listing, filters, items};
use crate::output;
use crate::progress::Upload;

const COLUMNS: [Column; 2] = [("Driver", "DRIVER"), ("Name", "VOLUME NAME")];

/// Commands about volumes.
#[derive(Subcommand, Debug)]
pub enum VolumeCommand {
    /// Make a volume
    Create(CreateArguments),
    /// Tell by the exit code whether a volume exists
    Exists(exists::Arguments),
    /// Write what a volume holds into an archive
    Export(ExportArguments),
    /// Put an archive into a volume: all or nothing into an empty one, over what is there into any other
    Import(ImportArguments),
    /// Show everything about volumes
    Inspect(inspect::KindArguments),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(ListArguments),
    /// Remove volumes that no container uses
    Prune(prune::VolumeArguments),
    /// Remove volumes
    Rm(RemoveArguments),
}

/// The arguments of `kakoi volume create`.
#[derive(clap::Args, Debug)]
pub struct CreateArguments {
    /// Label
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// Driver: local
    #[arg(short, long, value_name = "DRIVER", default_value = "local")]
    driver: String,
    /// Option of the driver
    #[arg(short, long, value_name = "NAME=VALUE")]
    opt: Vec<String>,
    /// Take a volume of that name as it is, if there is one
    #[arg(long)]
    ignore: bool,
    /// Its name; one is made up where it is absent
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// The arguments of `kakoi volume export`.
#[derive(clap::Args, Debug)]
pub struct ExportArguments {
    /// The archive; standard output where it is absent
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Name of the volume
    #[arg(value_name = "VOLUME")]
    name: String,
}

/// The arguments of `kakoi volume import`.
#[derive(clap::Args, Debug)]
pub struct ImportArguments {
    /// Name of the volume
    #[arg(value_name = "VOLUME")]
    name: String,
    /// The archive, compressed or not; - is standard input
    #[arg(value_name = "FILE|-", default_value = "-")]
    file: PathBuf,
}

/// A volume that must be new is there.
#[derive(Debug, thiserror::Error)]
#[error("volume {name} exists already: use --ignore to take it as it is")]
pub struct ExistsError {
    name: String,
}

/// The arguments of `kakoi volume ls`.
#[derive(clap::Args, Debug)]
pub struct ListArguments {
    /// Only the names
    #[arg(short, long)]
    quiet: bool,
    /// Leave out the titles
    #[arg(short = 'n', long)]
    noheading: bool,
    /// Only those that fit, as in name=data or dangling=true
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// table, json, a template, or table and a template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// The arguments of `kakoi volume rm`.
#[derive(clap::Args, Debug)]
pub struct RemoveArguments {
    /// Say nothing about volumes that do not exist
    #[arg(short, long)]
    force: bool,
    /// All that no container uses, as prune --all does without asking
    #[arg(short, long, conflicts_with = "names")]
    all: bool,
    /// Names of volumes
    #[arg(value_name = "VOLUME", required_unless_present = "all")]
    names: Vec<String>,
}

/// Runs a command about volumes.
pub async fn run(command: VolumeCommand, client: &Client) -> Result<u8, Failure> {
    match command {
        VolumeCommand::Create(arguments) => create(arguments, client).await,
        VolumeCommand::Exists(arguments) => exists::run(arguments, "/volumes", client).await,
        VolumeCommand::Export(arguments) => export(arguments, client).await,
        VolumeCommand::Import(arguments) => import(arguments, client).await,
        VolumeCommand::Inspect(arguments) => inspect::run_volume(arguments, client).await,
        VolumeCommand::Ls(arguments) => list(arguments, client).await,
        VolumeCommand::Prune(arguments) => prune::run_volumes(arguments, client).await,
        VolumeCommand::Rm(arguments) => remove(arguments, client).await,
    }
}

async fn export(arguments: ExportArguments, client: &Client) -> Result<u8, Failure> {
    if arguments.output.is_none() && output::is_terminal() {
        return Err(SaveError::Terminal.into());
    }
    let target = of(&arguments.name, "export");
    let body = client.open(Method::GET, &target, empty_body()).await?.into_body();
    match &arguments.output {
        None => save::copy(body, &mut io::stdout().lock(), Path::new("standard output"), true).await?,
        Some(path) => save::save_to(path, body, true).await?,
    }
    Ok(0)
}

async fn import(arguments: ImportArguments, client: &Client) -> Result<u8, Failure> {
    let file = (arguments.file.as_os_str() != "-").then_some(arguments.file.as_path());
    let (body, bar) = Upload::open(file, false)?.into_body();
    let target = of(&arguments.name, "import");
    let answer = client.open(Method::POST, &target, body).await;
    bar.finish_and_clear();
    answer?;
    Ok(0)
}

/// An action of Kakoi's own API.
fn of(name: &str, action: &str) -> Target {
    Target::new("/volumes").segment(name).segment(action)
}

async fn create(arguments: CreateArguments, client: &Client) -> Result<u8, Failure> {
    // The engine takes a volume that is there for the one that is asked for, as Docker does.
    if let Some(name) = arguments.name.as_ref().filter(|_| !arguments.ignore)
        && inspect::exists(name, "/volumes", client).await?
    {
        return Err(ExistsError { name: name.clone() }.into());
    }
    let body = VolumeBody {
        name: arguments.name.unwrap_or_default(),
        driver: arguments.driver,
        driver_opts: read_labels(&arguments.opt, &[])?,
        labels: read_labels(&arguments.label, &[])?,
    };
    let body = serde_json::to_value(&body).map_err(ClientError::Encode)?;
    let answer = client.post(Target::new("/volumes/create"), Some(&body)).await?;
    output::line(answer["Name"].as_str().unwrap_or_default())?;
    Ok(0)
}

async fn list(arguments: ListArguments, client: &Client) -> Result<u8, Failure> {
    let format = Format::parse(arguments.format.as_deref())?;
    let target = Target::new("/volumes").maybe("filters", filters(&arguments.filter)?.as_deref());
    let answer = client.get(target).await?;
    let raw = match &answer["Volumes"] {
        Value::Null => json!([]),
        list => list.clone(),
    };
    let rows: Vec<Value> = items(&raw)
        .iter()
        .map(|item| {
            let labels = item["Labels"].as_object().into_iter().flatten();
            let labels: Vec<String> = labels
                .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
                .collect();
            json!({
                "Name": item["Name"],
                "Driver": item["Driver"],
                "Mountpoint": item["Mountpoint"],
                "Scope": item["Scope"],
                "CreatedAt": item["CreatedAt"],
                "Labels": labels.join(","),
            })
        })
        .collect();
    if arguments.quiet {
        let names: Vec<String> = rows
            .iter()
            .map(|row| format!("{}\n", row["Name"].as_str().unwrap_or_default()))
            .collect();
        output::print(&names.concat())?;
        return Ok(0);
    }
    let listing = Listing {
        columns: &COLUMNS,
        raw: &raw,
        rows: &rows,
        has_no_titles: arguments.noheading,
    };
    listing.show(&format)?;
    Ok(0)
}

async fn remove(arguments: RemoveArguments, client: &Client) -> Result<u8, Failure> {
    if arguments.all {
        let target =
            Target::new("/volumes/prune").maybe("filters", filters(&["all=true".to_owned()])?.as_deref());
        let answer = client.post(target, None).await?;
        for name in items(&answer["VolumesDeleted"]).iter().filter_map(Value::as_str) {
            output::line(name)?;
        }
        return Ok(0);
    }
    let request = async |name: String| {
        let target = Target::new("/volumes")
            .segment(&name)
            .flag("force", arguments.force);
        match client.delete(target).await {
            Ok(_) => Ok(Told::Line(name)),
            Err(error) if arguments.force && error.is_not_found() => Ok(Told::Nothing),
            Err(error) => Err(error),
        }
    };
    each::run(&arguments.names, request, each::removal_status).await
}
