//! `kakoi trust allow-downgrade`: let one version of a release run below its floor.

use kakoi_trust::{Version, VersionError, edit};

use super::file;
use crate::client::Client;
use crate::failure::Failure;
use crate::output;

/// The arguments of `kakoi trust allow-downgrade`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Permit it no longer, from the next start on
    #[arg(long, conflicts_with = "version")]
    withdraw: bool,
    /// The release, as `kakoi trust show` names it; mostly the repository
    #[arg(value_name = "NAME")]
    name: String,
    /// The one version that may run, whatever was committed
    #[arg(value_name = "VERSION", required_unless_present = "withdraw")]
    version: Option<String>,
}

/// A version that is none.
#[derive(Debug, thiserror::Error)]
#[error("not a version")]
pub struct DowngradeError(#[from] VersionError);

/// Edits trust.yaml, as whoever may write it. The floor stays: what is withdrawn is refused again.
pub fn run(arguments: &Arguments, client: &Client) -> Result<u8, Failure> {
    let name = &arguments.name;
    let Some(version) = &arguments.version else {
        file::change(client, |text| edit::withdraw_downgrade(text, name))?;
        output::line(&format!("{name}: nothing below what was committed"))?;
        return Ok(0);
    };
    let version = Version::parse(version).map_err(DowngradeError::from)?;
    file::change(client, |text| edit::allow_downgrade(text, name, &version))?;
    output::line(&format!(
        "{name} {version} may run, and nothing else below what was committed"
    ))?;
    Ok(0)
}
