//! `kakoi inspect`: everything about containers, images, networks or volumes, as JSON or by a template.

use serde_json::Value;

use crate::client::{Client, ClientError, Target};
use crate::failure::{ENGINE, Failure, describe};
use crate::listing::{ListingError, pretty};
use crate::output;
use crate::template::Template;

/// The arguments of `kakoi inspect`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Only this kind: all, container, image, network, volume
    #[arg(short, long, value_name = "KIND", default_value = "all", value_parser = ["all", "container", "image", "network", "volume"])]
    r#type: String,
    #[command(flatten)]
    of: KindArguments,
}

/// The arguments of inspecting one kind.
#[derive(clap::Args, Debug)]
pub struct KindArguments {
    /// json, or a template, as in '{{.State.Status}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Sizes of containers too
    #[arg(short, long)]
    size: bool,
    /// Names or ids
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

/// Nothing of that name.
#[derive(Debug, thiserror::Error)]
#[error("no such {kind}: {name}")]
struct NoSuchError {
    kind: &'static str,
    name: String,
}

/// A kind of thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Container,
    Image,
    Network,
    Volume,
    Secret,
}

/// Inspects whatever has the name.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let kinds: &[Kind] = match arguments.r#type.as_str() {
        "container" => &[Kind::Container],
        "image" => &[Kind::Image],
        "network" => &[Kind::Network],
        "volume" => &[Kind::Volume],
        _ => &[Kind::Container, Kind::Image, Kind::Network, Kind::Volume],
    };
    inspect(&arguments.of, kinds, client).await
}

/// Inspects containers.
pub async fn run_container(arguments: KindArguments, client: &Client) -> Result<u8, Failure> {
    inspect(&arguments, &[Kind::Container], client).await
}

/// Inspects images.
pub async fn run_image(arguments: KindArguments, client: &Client) -> Result<u8, Failure> {
    inspect(&arguments, &[Kind::Image], client).await
}

/// Inspects networks.
pub async fn run_network(arguments: KindArguments, client: &Client) -> Result<u8, Failure> {
    inspect(&arguments, &[Kind::Network], client).await
}

/// Inspects volumes.
pub async fn run_volume(arguments: KindArguments, client: &Client) -> Result<u8, Failure> {
    inspect(&arguments, &[Kind::Volume], client).await
}

/// Inspects secrets.
pub async fn run_secret(arguments: KindArguments, client: &Client) -> Result<u8, Failure> {
    inspect(&arguments, &[Kind::Secret], client).await
}

async fn inspect(arguments: &KindArguments, kinds: &[Kind], client: &Client) -> Result<u8, Failure> {
    let template = match arguments.format.as_deref() {
        None | Some("json") => None,
        Some(text) => Some(Template::parse_format(text).map_err(ListingError::Format)?),
    };
    let mut found = Vec::new();
    let mut status = 0;
    for name in &arguments.names {
        match find(name, kinds, arguments.size, client).await {
            Ok(document) => found.push(document),
            Err(Failure {
                status: its,
                error: Some(error),
            }) => {
                output::complain(&format!("Error: {}", describe(error.as_ref())));
                status = its;
            }
            Err(silent) => return Err(silent),
        }
    }
    match template {
        None => output::print(&pretty(&Value::Array(found))?)?,
        Some(template) => {
            for document in &found {
                output::line(&template.render(document).map_err(ListingError::Format)?)?;
            }
        }
    }
    Ok(status)
}

async fn find(name: &str, kinds: &[Kind], has_size: bool, client: &Client) -> Result<Value, Failure> {
    let mut last = None;
    for kind in kinds {
        let target = match kind {
            Kind::Container => Target::new("/containers")
                .segment(name)
                .segment("json")
                .flag("size", has_size),
            Kind::Image => Target::new("/images").segment(name).segment("json"),
            Kind::Network => Target::new("/networks").segment(name),
            Kind::Volume => Target::new("/volumes").segment(name),
            Kind::Secret => Target::new("/secrets").segment(name),
        };
        match client.get(target).await {
            Ok(document) => return Ok(document),
            Err(error) if error.is_not_found() => last = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    match last {
        Some(error) if kinds.len() == 1 => Err(error.into()),
        _ => Err(Failure::new(
            ENGINE,
            NoSuchError {
                kind: "container, image, network or volume",
                name: name.to_owned(),
            },
        )),
    }
}

/// Whether something of that name exists.
pub async fn exists(name: &str, collection: &'static str, client: &Client) -> Result<bool, ClientError> {
    let target = match collection {
        "/networks" | "/volumes" | "/secrets" => Target::new(collection).segment(name),
        _ => Target::new(collection).segment(name).segment("json"),
    };
    match client.get(target).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}
