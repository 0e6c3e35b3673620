//! `kakoi quadlet`: apps as files in the style of systemd's units.

use std::io;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};

use crate::failure::{ENGINE, Failure};
use crate::listing::{Column, Format, Listing};
use crate::output;
use crate::quadlet::{FOLDERS, Made, Unit, Wrong, read, services, translate};

/// The variable that names other folders, as Podman has it.
const FOLDERS_VARIABLE: &str = "QUADLET_UNIT_DIRS";

const COLUMNS: [Column; 4] = [
    ("Unit", "UNIT"),
    ("Kind", "KIND"),
    ("Name", "NAME"),
    ("Path", "PATH ON DISK"),
];

/// Commands about Quadlet files.
#[derive(Subcommand, Debug)]
pub enum QuadletCommand {
    /// Tell whether files are right, and what is wrong with them
    Check(CheckArguments),
    /// Write the services that run them, as systemd asks its generators to
    Generate(GenerateArguments),
    /// List files and their services
    Ls(ListArguments),
}

/// The arguments of `kakoi quadlet check`.
#[derive(clap::Args, Debug)]
pub struct CheckArguments {
    /// Files, or folders of files (default: where Quadlet files lie)
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// The arguments of `kakoi quadlet generate`.
#[derive(clap::Args, Debug)]
pub struct GenerateArguments {
    /// Print the services instead of writing them
    #[arg(long)]
    dry_run: bool,
    /// A folder of Quadlet files in place of the usual ones
    #[arg(long, value_name = "DIR")]
    from: Vec<PathBuf>,
    /// Where services are written
    #[arg(value_name = "NORMAL-DIR", required_unless_present = "dry_run")]
    normal: Option<PathBuf>,
    /// Taken, since systemd names it; nothing is written there
    #[arg(value_name = "EARLY-DIR")]
    early: Option<PathBuf>,
    /// Taken, since systemd names it; nothing is written there
    #[arg(value_name = "LATE-DIR")]
    late: Option<PathBuf>,
}

/// The arguments of `kakoi quadlet ls`.
#[derive(clap::Args, Debug)]
pub struct ListArguments {
    /// Leave out the titles
    #[arg(short = 'n', long)]
    noheading: bool,
    /// table, json, a template, or table and a template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Files, or folders of files (default: where Quadlet files lie)
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// What goes wrong beside the files.
#[derive(Debug, thiserror::Error)]
enum QuadletError {
    /// A service cannot be written.
    #[error("writing {}", .path.display())]
    Write {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// This program does not know where it lies.
    #[error("finding this program's path")]
    Program(#[source] io::Error),
}

/// Runs a command about Quadlet files; none asks the daemon.
pub fn run(command: QuadletCommand) -> Result<u8, Failure> {
    match command {
        QuadletCommand::Check(arguments) => check(&arguments),
        QuadletCommand::Generate(arguments) => generate(&arguments),
        QuadletCommand::Ls(arguments) => list(&arguments),
    }
}

/// What was named, or the usual folders that are there.
fn places(named: &[PathBuf]) -> Vec<PathBuf> {
    if !named.is_empty() {
        return named.to_vec();
    }
    let usual: Vec<PathBuf> = match std::env::var_os(FOLDERS_VARIABLE) {
        Some(list) if !list.is_empty() => std::env::split_paths(&list).collect(),
        _ => FOLDERS.iter().map(PathBuf::from).collect(),
    };
    usual.into_iter().filter(|folder| folder.is_dir()).collect()
}

fn units(named: &[PathBuf]) -> (Vec<Unit>, Vec<Wrong>) {
    let (sources, mut wrong) = read(&places(named));
    let (units, more) = translate(&sources);
    wrong.extend(more);
    (units, wrong)
}

/// Says what is wrong; the status tells that something is.
fn tell(wrong: &[Wrong]) -> u8 {
    for one in wrong {
        output::complain(&format!("Error: {one}"));
    }
    if wrong.is_empty() { 0 } else { ENGINE }
}

fn check(arguments: &CheckArguments) -> Result<u8, Failure> {
    let (units, wrong) = units(&arguments.paths);
    for unit in &units {
        output::line(&format!("{}: {}", unit.path.display(), unit.service))?;
    }
    Ok(tell(&wrong))
}

fn list(arguments: &ListArguments) -> Result<u8, Failure> {
    let format = Format::parse(arguments.format.as_deref())?;
    let (units, wrong) = units(&arguments.paths);
    let rows: Vec<Value> = units
        .iter()
        .map(|unit| {
            json!({
                "Unit": unit.service,
                "Kind": unit.kind.word(),
                "Name": unit.resource,
                "Path": unit.path.display().to_string(),
                "Command": unit.start(),
            })
        })
        .collect();
    let raw = Value::Array(rows.clone());
    let listing = Listing {
        columns: &COLUMNS,
        raw: &raw,
        rows: &rows,
        has_no_titles: arguments.noheading,
    };
    listing.show(&format)?;
    Ok(tell(&wrong))
}

/// Files that are right get their services whatever is wrong with others: an app must not miss its start for another's mistake.
fn generate(arguments: &GenerateArguments) -> Result<u8, Failure> {
    let program = std::env::current_exe().map_err(QuadletError::Program)?;
    let (units, wrong) = units(&arguments.from);
    let made = services(&units, &program);
    match &arguments.normal {
        Some(folder) if !arguments.dry_run => {
            for one in &made {
                write(folder, one)?;
            }
        }
        _ => {
            for one in &made {
                output::print(&format!("---{}---\n{}\n", one.name, one.text))?;
            }
        }
    }
    Ok(tell(&wrong))
}

fn write(folder: &Path, made: &Made) -> Result<(), QuadletError> {
    let wrong = |path: &Path, cause| QuadletError::Write {
        path: path.to_owned(),
        cause,
    };
    let path = folder.join(&made.name);
    std::fs::write(&path, &made.text).map_err(|cause| wrong(&path, cause))?;
    for link in &made.links {
        let at = folder.join(link);
        let mut target = PathBuf::new();
        if link.components().count() > 1 {
            let parent = at.parent().unwrap_or(folder);
            std::fs::create_dir_all(parent).map_err(|cause| wrong(parent, cause))?;
            target.push("..");
        }
        match std::os::unix::fs::symlink(target.join(&made.name), &at) {
            Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => return Err(wrong(&at, cause)),
            _ => {}
        }
    }
    Ok(())
}
