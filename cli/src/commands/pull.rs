//! `kakoi pull`: fetch images from registries, or from files.

use std::path::{Path, PathBuf};

use hyper::Method;
use serde_json::Value;

use super::load::load;
use super::tag::split;
use crate::client::{Client, Target, empty_body};
use crate::credentials::Credentials;
use crate::failure::Failure;
use crate::layout::path_of;
use crate::{output, progress, text};

/// The arguments of `kakoi pull`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Print nothing but the ids
    #[arg(short, long)]
    quiet: bool,
    /// Another platform than this device's, as in linux/arm64
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<String>,
    /// The file with credentials, in Docker's format
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE", hide_env_values = true)]
    authfile: Option<PathBuf>,
    /// The images; after oci:, oci-archive: or docker-archive: the path of an archive, or of a folder that is an OCI layout
    #[arg(value_name = "NAME[:TAG|@DIGEST]", required = true)]
    names: Vec<String>,
}

/// What a pull brought.
pub struct Pulled {
    /// The image's id.
    pub id: String,
    /// Its name, complete: a short one may have been found in one of several registries.
    pub name: String,
}

/// Pulls images.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    for name in &arguments.names {
        if let Some(path) = path_of(name) {
            load(client, Some(path), arguments.quiet).await?;
            continue;
        }
        let platform = arguments.platform.as_deref();
        let pulled = pull(
            client,
            name,
            platform,
            arguments.authfile.as_deref(),
            arguments.quiet,
        )
        .await?;
        output::line(&pulled.id)?;
    }
    Ok(0)
}

/// Pulls one image; progress goes to standard error.
pub async fn pull(
    client: &Client,
    name: &str,
    platform: Option<&str>,
    authfile: Option<&Path>,
    is_quiet: bool,
) -> Result<Pulled, Failure> {
    let (image, tag) = match name.split_once('@') {
        Some((image, digest)) => (image, Some(digest)),
        None => split(name),
    };
    let target = Target::new("/images/create")
        .query("fromImage", image)
        .query("tag", tag.unwrap_or("latest"))
        .maybe("platform", platform)
        .credentials(Credentials::header_for(authfile, name)?);
    let stream = client.stream(Method::POST, &target, empty_body()).await?;
    let aux = progress::show_layers(stream, is_quiet)
        .await?
        .unwrap_or(Value::Null);
    let said = |field: &str| text::printable(aux[field].as_str().unwrap_or_default());
    Ok(Pulled {
        id: said("ID"),
        name: said("Name"),
    })
}
