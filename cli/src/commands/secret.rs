//! `kakoi secret`: values that apps need and nobody else may see. They go to the daemon and never come back.

use std::io::{self, Read as _};
use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{exists, inspect};
use crate::client::{Client, ClientError, Target};
use crate::create::read_labels;
use crate::each::{self, Told};
use crate::failure::Failure;
use crate::listing::{Column, Format, Listing, items};
use crate::output;

const COLUMNS: [Column; 5] = [
    ("ID", "ID"),
    ("Name", "NAME"),
    ("CreatedAt", "CREATED"),
    ("UpdatedAt", "UPDATED"),
    ("UsedBy", "USED BY"),
];

/// Largest value that is read: one byte more than the daemon takes.
const VALUE_BYTES_MAX: u64 = 512_001;

/// Commands about secrets.
#[derive(Subcommand, Debug)]
pub enum SecretCommand {
    /// Keep a value that apps are given and nobody else
    #[command(after_help = "Examples:
  printf %s \"$PASSWORD\" | kakoi secret create db-password -
  kakoi secret create --replace tls-key /media/usb/key.pem
  kakoi run --secret db-password IMAGE                        as /run/secrets/db-password
  kakoi run --secret db-password,type=env,target=PW IMAGE     as $PW")]
    Create(CreateArguments),
    /// Tell by the exit code whether a secret exists
    Exists(exists::Arguments),
    /// Show what is known of secrets; never their values
    Inspect(inspect::KindArguments),
    /// List secrets
    #[command(visible_alias = "list")]
    Ls(ListArguments),
    /// Remove secrets that no container is given
    Rm(RemoveArguments),
}

/// The arguments of `kakoi secret create`.
#[derive(clap::Args, Debug)]
pub struct CreateArguments {
    /// Label
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// Give a secret that is there another value; containers see it at their next start
    #[arg(long)]
    replace: bool,
    /// FILE is the name of a variable of this command
    #[arg(long)]
    env: bool,
    /// Its name
    #[arg(value_name = "NAME")]
    name: String,
    /// The file with the value; - is standard input. Taken as it is, a newline at its end too; at most 512000 bytes
    #[arg(value_name = "FILE|-")]
    file: String,
}

/// The arguments of `kakoi secret ls`.
#[derive(clap::Args, Debug)]
pub struct ListArguments {
    /// Only the ids
    #[arg(short, long)]
    quiet: bool,
    /// Leave out the titles
    #[arg(short = 'n', long)]
    noheading: bool,
    /// table, json, a template, or table and a template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// The arguments of `kakoi secret rm`.
#[derive(clap::Args, Debug)]
pub struct RemoveArguments {
    /// All that no container is given
    #[arg(short, long, conflicts_with = "names")]
    all: bool,
    /// Say nothing about secrets that do not exist
    #[arg(short, long)]
    ignore: bool,
    /// Names or ids of secrets
    #[arg(value_name = "SECRET", required_unless_present = "all")]
    names: Vec<String>,
}

/// A value that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ValueError {
    /// The file.
    #[error("reading {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The variable.
    #[error("there is no variable {0}, or it is not text")]
    Variable(String),
}

/// Runs a command about secrets.
pub async fn run(command: SecretCommand, client: &Client) -> Result<u8, Failure> {
    match command {
        SecretCommand::Create(arguments) => create(arguments, client).await,
        SecretCommand::Exists(arguments) => exists::run(arguments, "/secrets", client).await,
        SecretCommand::Inspect(arguments) => inspect::run_secret(arguments, client).await,
        SecretCommand::Ls(arguments) => list(arguments, client).await,
        SecretCommand::Rm(arguments) => remove(arguments, client).await,
    }
}

fn value(arguments: &CreateArguments) -> Result<Vec<u8>, ValueError> {
    if arguments.env {
        let text = std::env::var(&arguments.file);
        return text
            .map(String::into_bytes)
            .map_err(|_| ValueError::Variable(arguments.file.clone()));
    }
    let mut bytes = Vec::new();
    let read = match arguments.file.as_str() {
        "-" => io::stdin().lock().take(VALUE_BYTES_MAX).read_to_end(&mut bytes),
        path => std::fs::File::open(path).and_then(|file| file.take(VALUE_BYTES_MAX).read_to_end(&mut bytes)),
    };
    read.map_err(|cause| ValueError::Read {
        path: PathBuf::from(&arguments.file),
        cause,
    })?;
    Ok(bytes)
}

async fn create(arguments: CreateArguments, client: &Client) -> Result<u8, Failure> {
    let labels = read_labels(&arguments.label, &[])?;
    let labels = (!labels.is_empty())
        .then(|| serde_json::to_string(&labels).map_err(ClientError::Encode))
        .transpose()?;
    let target = Target::new("/secrets/create")
        .maybe("name", Some(&arguments.name))
        .maybe("labels", labels.as_deref())
        .flag("replace", arguments.replace);
    let made = client.post_bytes(target, value(&arguments)?).await?;
    output::line(made["ID"].as_str().unwrap_or_default())?;
    Ok(0)
}

async fn list(arguments: ListArguments, client: &Client) -> Result<u8, Failure> {
    let format = Format::parse(arguments.format.as_deref())?;
    let raw = client.get(Target::new("/secrets")).await?;
    let rows: Vec<Value> = items(&raw)
        .iter()
        .map(|item| {
            let users: Vec<&str> = items(&item["UsedBy"]).iter().filter_map(Value::as_str).collect();
            json!({
                "ID": item["ID"],
                "Name": item["Name"],
                "CreatedAt": item["CreatedAt"],
                "UpdatedAt": item["UpdatedAt"],
                "Driver": "file",
                "UsedBy": users.join(","),
            })
        })
        .collect();
    if arguments.quiet {
        for row in &rows {
            output::line(row["ID"].as_str().unwrap_or_default())?;
        }
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
    let mut names = arguments.names;
    if arguments.all {
        let all = client.get(Target::new("/secrets")).await?;
        let free = items(&all)
            .iter()
            .filter(|item| items(&item["UsedBy"]).is_empty());
        names = free
            .filter_map(|item| Some(item["Name"].as_str()?.to_owned()))
            .collect();
    }
    let request = async |name: String| match client.delete(Target::new("/secrets").segment(&name)).await {
        Ok(_) => Ok(Told::Line(name)),
        Err(error) if arguments.ignore && error.is_not_found() => Ok(Told::Nothing),
        Err(error) => Err(error),
    };
    each::run(&names, request, each::removal_status).await
}
