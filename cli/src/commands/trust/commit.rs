//! `kakoi trust commit`: accept a release as good, so that nothing older runs any more.

use kakoi_api::trust::TrustCommitted;

use crate::client::{Client, ClientError, Target};
use crate::failure::Failure;
use crate::listing::pretty;
use crate::output;

/// The arguments of `kakoi trust commit`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    format: String,
    /// The image: what a signed release document calls a version of something
    #[arg(value_name = "IMAGE")]
    image: String,
}

/// Raises the floor.
pub async fn run(arguments: &Arguments, client: &Client) -> Result<u8, Failure> {
    let target = Target::new("/trust/commit").query("name", &arguments.image);
    let raw = client.post(target, None).await?;
    if arguments.format == "json" {
        output::print(&pretty(&raw)?)?;
        return Ok(0);
    }
    let committed: TrustCommitted = serde_json::from_value(raw).map_err(|cause| ClientError::Json {
        request: String::from("POST /trust/commit"),
        cause,
    })?;
    let said = match committed.raised {
        true => "committed: nothing older runs from now on",
        false => "was committed already",
    };
    output::line(&format!("{} {} {said}", committed.name, committed.version))?;
    Ok(0)
}
