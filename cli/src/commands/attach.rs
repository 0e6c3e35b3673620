//! `kakoi attach`: join a running container's streams.

use super::run::{Waiting, attach_target};
use crate::client::{Client, Target};
use crate::detach_keys::{self, DetachKeys};
use crate::each;
use crate::failure::Failure;
use crate::session::{End, Session, Shows, Subject};

/// The arguments of `kakoi attach`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Keys that detach
    #[arg(long, value_name = "KEYS", default_value = detach_keys::DEFAULT)]
    detach_keys: String,
    /// Leave standard input alone
    #[arg(long)]
    no_stdin: bool,
    /// Hand signals to the app: true or false
    #[arg(long, value_name = "BOOL", default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    sig_proxy: bool,
    /// The one that was created last
    #[arg(short, long)]
    latest: bool,
    /// Name or id of a container
    #[arg(value_name = "CONTAINER")]
    name: Option<String>,
}

/// Why nothing can be attached to.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// It does not run.
    #[error("you can attach only to running containers: {name} is {status}")]
    NotRunning {
        /// Which.
        name: String,
        /// What it is instead.
        status: String,
    },
    /// It is frozen.
    #[error("{name} is paused: unpause it first")]
    Paused {
        /// Which.
        name: String,
    },
}

/// Attaches to a container.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let keys = DetachKeys::parse(&arguments.detach_keys)?;
    let name = each::one(client, arguments.name.as_deref(), arguments.latest).await?;
    let inspected = client
        .get(Target::new("/containers").segment(&name).segment("json"))
        .await?;
    let id = inspected["Id"].as_str().unwrap_or(&name).to_owned();
    let state = &inspected["State"];
    if state["Paused"] == true {
        return Err(AttachError::Paused { name }.into());
    }
    if state["Running"] != true {
        let status = state["Status"].as_str().unwrap_or("not running").to_owned();
        return Err(AttachError::NotRunning { name, status }.into());
    }
    let sends_input = !arguments.no_stdin && inspected["Config"]["OpenStdin"] == true;
    let has_terminal = inspected["Config"]["Tty"] == true;
    let session = Session {
        client,
        subject: Subject::Container(id.clone()),
        has_terminal,
        sends_input,
        proxies_signals: arguments.sig_proxy,
        keys,
        shows: Shows::ALL,
    };
    let is_removed = inspected["HostConfig"]["AutoRemove"] == true;
    let waiting = Waiting::begin(client, &id, is_removed).await?;
    let connection = client
        .hijack(&attach_target(&id, sends_input, Shows::ALL), None)
        .await?;
    let prepared = session.prepare()?;
    if has_terminal {
        crate::session::fit(client, &Subject::Container(id)).await;
    }
    prepared.begin();
    match prepared.run(connection).await? {
        End::Detached => Ok(0),
        End::Closed => waiting.exit_code().await,
    }
}
