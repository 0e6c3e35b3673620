//! `kakoi trust check`: whether an image would run, and who signed it.

use std::path::PathBuf;

use kakoi_api::trust::TrustVerdict;

use crate::client::{Client, ClientError, Target};
use crate::credentials::Credentials;
use crate::failure::Failure;
use crate::listing::pretty;
use crate::{output, table};

/// The arguments of `kakoi trust check`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Ask its registry, also where the image is here
    #[arg(long)]
    remote: bool,
    /// The file with credentials, in Docker's format
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE", hide_env_values = true)]
    authfile: Option<PathBuf>,
    /// text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    format: String,
    /// The image; one that is not here is looked at in its registry, and not fetched
    #[arg(value_name = "IMAGE")]
    image: String,
}

/// Tells; the exit status is 1 where it would not run.
pub async fn run(arguments: &Arguments, client: &Client) -> Result<u8, Failure> {
    let image = &arguments.image;
    let target = Target::new("/trust/check")
        .query("name", image)
        .flag("remote", arguments.remote)
        .credentials(Credentials::header_for(arguments.authfile.as_deref(), image)?);
    let raw = client.get(target).await?;
    let verdict: TrustVerdict = serde_json::from_value(raw.clone()).map_err(|cause| ClientError::Json {
        request: String::from("GET /trust/check"),
        cause,
    })?;
    match arguments.format.as_str() {
        "json" => output::print(&pretty(&raw)?)?,
        _ => output::print(&spoken(&verdict))?,
    }
    Ok(u8::from(!verdict.runs))
}

fn spoken(verdict: &TrustVerdict) -> String {
    let outcome = match (verdict.runs, verdict.trusted) {
        (true, true) => String::from("runs: it is trusted"),
        (true, false) => format!("runs, but is not trusted: {}", verdict.complaint),
        (false, _) => format!("does not run: {}", verdict.complaint),
    };
    let scope = if verdict.scope.is_empty() {
        "none (the default)"
    } else {
        &verdict.scope
    };
    let row = |what: &str, said: &str| vec![what.to_owned(), said.to_owned()];
    let mut rows = vec![
        row("image", &verdict.image),
        row("verdict", &outcome),
        row("looked at in", &verdict.place),
        row("judged as", &verdict.repository),
        row("scope", scope),
        row("mode", &verdict.mode),
    ];
    rows.extend(verdict.digests.iter().map(|digest| row("digest", digest)));
    if !verdict.release.is_empty() {
        rows.push(row("release", &verdict.release));
    }
    if !verdict.policy.is_empty() {
        rows.push(row("policy", &verdict.policy));
    }
    for finding in &verdict.signatures {
        let said = match (finding.key.as_str(), finding.fault.as_str()) {
            (key, "") => format!("by {key}"),
            ("", fault) => fault.to_owned(),
            (key, fault) => format!("by {key}, does not count: {fault}"),
        };
        rows.push(row("signature", &said));
    }
    if !verdict.remedy.is_empty() {
        rows.push(row("to allow it", &verdict.remedy));
    }
    table::align(&rows)
}
