//! `kakoi policy attach`: an image brings its policy, signed.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use kakoi_policy::parse;
use kakoi_trust::sign::bundle_artifact;
use kakoi_trust::{BroughtPolicy, POLICY_BYTES_MAX, sign_policy};

use super::source::compose_with;
use crate::client::Client;
use crate::commands::trust::sign::{Remote, SignError, private_key};
use crate::create::read_policy;
use crate::failure::Failure;
use crate::output;

/// The arguments of `kakoi policy attach`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The private key: PKCS#8 in PEM, or cosign's, whose password stands in COSIGN_PASSWORD
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// What an RSA key signs with: pss, or pkcs1v15 as cosign does
    #[arg(long, value_name = "PADDING", default_value = "pss", value_parser = ["pss", "pkcs1v15"])]
    padding: String,
    /// The file with credentials, in Docker's format
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE", hide_env_values = true)]
    authfile: Option<PathBuf>,
    /// The image, in its registry
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    image: String,
    /// The policy
    #[arg(value_name = "FILE")]
    policy: String,
}

/// A policy that cannot be attached.
#[derive(Debug, thiserror::Error)]
#[error("a policy of {bytes} bytes; {POLICY_BYTES_MAX} can be attached")]
pub struct TooLong {
    bytes: usize,
}

/// Signs the policy for what the name leads to now, and attaches it. Who runs the image without naming a policy gets this one.
pub async fn run(arguments: &Arguments, client: &Client) -> Result<u8, Failure> {
    let text = read_policy(&arguments.policy)?;
    // What is wrong with it is said here, and not on a thousand devices.
    compose_with(&parse(&arguments.policy, &text)?, client).await?;
    if text.len() > POLICY_BYTES_MAX {
        return Err(TooLong { bytes: text.len() }.into());
    }
    let key = private_key(&arguments.key, &arguments.padding)?;
    let remote = Remote::find(client, &arguments.image, arguments.authfile.as_deref()).await?;
    let name = Path::new(&arguments.policy).file_name().unwrap_or_default();
    let policy = BroughtPolicy {
        issued: Timestamp::now(),
        name: name.to_string_lossy().into_owned(),
        text,
    };
    let bundle = sign_policy(&key, &remote.signed.digest, &policy).map_err(SignError::from)?;
    remote
        .attach("", &bundle_artifact(&bundle, &remote.signed))
        .await?;
    output::line(&format!(
        "{}@{}: {}",
        remote.repository, remote.signed.digest, policy.name
    ))?;
    Ok(0)
}
