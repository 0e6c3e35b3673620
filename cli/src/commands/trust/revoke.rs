//! `kakoi trust revoke`: take a key's word no longer; take, or make, a signed list of revoked keys.

use std::path::{Path, PathBuf};

use http_body_util::{BodyExt as _, Full};
use hyper::Method;
use hyper::body::Bytes;
use kakoi_api::trust::TrustRevoked;
use kakoi_trust::{
    Digest, PEM_CHARS_MAX, Padding, PrivateKey, PublicKey, REVOCATION_BYTES_MAX, edit, sign_revocations,
};

use super::add_key::KeyError;
use super::{file, sign};
use crate::bounded;
use crate::client::{Client, ClientError, Target};
use crate::failure::Failure;
use crate::output;

/// The arguments of `kakoi trust revoke`.
#[derive(clap::Args, Debug)]
#[command(
    group = clap::ArgGroup::new("how").args(["list", "make"]),
    override_usage = "kakoi trust revoke [--reason TEXT] KEY\n       kakoi trust revoke --list FILE\n       kakoi trust revoke --make FILE --version NUMBER --signing-key FILE [--reason TEXT] [PUBLIC-KEY-FILE...]"
)]
pub struct Arguments {
    /// Why, for whoever reads it
    #[arg(long, value_name = "TEXT", default_value = "", conflicts_with = "list")]
    reason: String,
    /// Take a list of revoked keys, signed by those whom trust.yaml lets revoke
    #[arg(long, value_name = "FILE", conflicts_with = "keys")]
    list: Option<PathBuf>,
    /// Make such a list of public keys' files, here and for any device; it is whole, so name all that are revoked
    #[arg(long, value_name = "FILE", requires_all = ["version", "signing_key"])]
    make: Option<PathBuf>,
    /// The number of the list that is made: higher than that of the last one
    #[arg(long, value_name = "NUMBER", requires = "make")]
    version: Option<u64>,
    /// A private key that signs the list that is made
    #[arg(long, value_name = "FILE", requires = "make")]
    signing_key: Vec<PathBuf>,
    /// The key's name in trust.yaml; with --make files of public keys
    #[arg(value_name = "KEY", required_unless_present = "how")]
    keys: Vec<String>,
}

/// A list that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("writing {}", .path.display())]
pub struct WriteError {
    path: PathBuf,
    #[source]
    cause: std::io::Error,
}

/// Revokes.
pub async fn run(arguments: &Arguments, client: &Client) -> Result<u8, Failure> {
    match (&arguments.list, &arguments.make) {
        (Some(list), _) => take(list, client).await,
        (None, Some(path)) => make(path, arguments),
        (None, None) => {
            for key in &arguments.keys {
                file::change(client, |text| edit::revoke_key(text, key, &arguments.reason))?;
                output::line(&format!("{key}: revoked"))?;
            }
            Ok(0)
        }
    }
}

async fn take(path: &Path, client: &Client) -> Result<u8, Failure> {
    let request = || String::from("POST /trust/revocations");
    let document = bounded::read_text(path, REVOCATION_BYTES_MAX as u64)?;
    let body = Full::new(Bytes::from(document))
        .map_err(|never| match never {})
        .boxed_unsync();
    let target = Target::new("/trust/revocations");
    let answer = client.open(Method::POST, &target, body).await?;
    let bytes = answer
        .into_body()
        .collect()
        .await
        .map_err(|cause| ClientError::Protocol {
            request: request(),
            cause,
        })?
        .to_bytes();
    let taken: TrustRevoked = serde_json::from_slice(&bytes).map_err(|cause| ClientError::Json {
        request: request(),
        cause,
    })?;
    output::line(&format!(
        "version {} of the list is in force; keys that it revokes: {}",
        taken.version,
        taken.keys.len()
    ))?;
    Ok(0)
}

fn make(path: &Path, arguments: &Arguments) -> Result<u8, Failure> {
    let mut revoked: Vec<(Digest, String)> = Vec::new();
    for file in &arguments.keys {
        let pem = bounded::read_text(Path::new(file), PEM_CHARS_MAX as u64)?;
        // A fingerprint is the same whatever an RSA key pads with.
        let key = PublicKey::from_pem(&pem, Padding::Pss).map_err(|cause| KeyError {
            path: PathBuf::from(file),
            cause,
        })?;
        revoked.push((key.fingerprint(), arguments.reason.clone()));
    }
    let keys: Vec<PrivateKey> = arguments
        .signing_key
        .iter()
        .map(|path| sign::private_key(path, "pss"))
        .collect::<Result<_, _>>()?;
    let keys: Vec<&PrivateKey> = keys.iter().collect();
    let version = arguments.version.unwrap_or_default();
    let list = sign_revocations(version, &revoked, &keys)?;
    std::fs::write(path, list).map_err(|cause| WriteError {
        path: path.to_owned(),
        cause,
    })?;
    output::line(&format!(
        "version {version} of a list of {} revoked keys: {}",
        revoked.len(),
        path.display()
    ))?;
    Ok(0)
}
