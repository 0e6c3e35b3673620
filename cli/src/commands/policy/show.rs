//! `kakoi policy show`: a policy with everything it extends, or what becomes of it on this device.

use kakoi_policy::confinement::Identity;
use kakoi_policy::kernel::KernelFacts;
use kakoi_policy::{compile, render};

use super::source::{composed, text_of};
use crate::client::{Client, ClientError, Target};
use crate::failure::Failure;
use crate::listing::{ListingError, pretty};
use crate::output;

/// The arguments of `kakoi policy show`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The document as it was written, without what it extends
    #[arg(long, conflicts_with = "confinement")]
    source: bool,
    /// What becomes of it on the daemon's kernel, for root where no user is given
    #[arg(long)]
    confinement: bool,
    /// With --confinement: the process's user and group, as numbers
    #[arg(
        short,
        long,
        value_name = "UID[:GID]",
        requires = "confinement",
        default_value = "0:0"
    )]
    user: String,
    /// With --confinement: text or json
    #[arg(long, value_name = "FORMAT", requires = "confinement", value_parser = ["text", "json"])]
    format: Option<String>,
    /// The policy: a file, or a name
    #[arg(value_name = "FILE|NAME")]
    policy: String,
}

/// Not numbers.
#[derive(Debug, thiserror::Error)]
#[error(
    "--user {text:?} is not UID or UID:GID in numbers: names are looked up in an image, and there is none here"
)]
struct UserError {
    text: String,
}

/// Shows a policy.
pub async fn run(arguments: &Arguments, client: &Client) -> Result<u8, Failure> {
    if arguments.source {
        let (_, text) = text_of(&arguments.policy, client).await?;
        output::print(&text)?;
        return Ok(0);
    }
    let policy = composed(&arguments.policy, client).await?;
    if !arguments.confinement {
        output::print(&render::canonical(&policy))?;
        return Ok(0);
    }
    let identity = identity(&arguments.user, policy.umask())?;
    let doctor = client.get(Target::new("/doctor")).await?;
    let facts: KernelFacts =
        serde_json::from_value(doctor["Facts"].clone()).map_err(|cause| ClientError::Json {
            request: "doctor".to_owned(),
            cause,
        })?;
    let confinement = compile(&policy, &identity, &facts)?;
    if arguments.format.as_deref() == Some("json") {
        output::print(&pretty(
            &serde_json::to_value(&confinement).map_err(ListingError::Json)?,
        )?)?;
    } else {
        output::line(render::summary(&confinement).trim_end())?;
    }
    Ok(0)
}

fn identity(text: &str, umask: u32) -> Result<Identity, UserError> {
    let wrong = || UserError {
        text: text.to_owned(),
    };
    let (uid, gid) = text.split_once(':').unwrap_or((text, "0"));
    Ok(Identity {
        uid: uid.parse().map_err(|_| wrong())?,
        gid: gid.parse().map_err(|_| wrong())?,
        groups: Vec::new(),
        umask,
    })
}
