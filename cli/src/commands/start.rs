//! `kakoi start`: start containers that were made or have ended.

use super::run::{Waiting, attach_target, start, start_status};
use crate::client::{Client, Target};
use crate::detach_keys::{self, DetachKeys};
use crate::each::{self, Chosen, Told};
use crate::failure::Failure;
use crate::session::{End, Session, Shows, Subject};

/// The arguments of `kakoi start`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Attach to the container's output and pass signals on
    #[arg(short, long)]
    attach: bool,
    /// Attach to the container's standard input
    #[arg(short, long)]
    interactive: bool,
    /// Keys that detach
    #[arg(long, value_name = "KEYS", default_value = detach_keys::DEFAULT)]
    detach_keys: String,
    /// Hand signals to the app: true or false
    #[arg(long, value_name = "BOOL", default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    sig_proxy: bool,
    /// Names or ids of containers
    #[arg(value_name = "CONTAINER")]
    names: Vec<String>,
    /// All that do not run
    #[arg(long)]
    all: bool,
    /// The one that was created last
    #[arg(short, long, conflicts_with = "all")]
    latest: bool,
    /// Those that fit, as in name=web or label=app=db
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
}

/// Several containers cannot share one terminal.
#[derive(Debug, thiserror::Error)]
#[error("only one container can be attached to: leave out --attach and --interactive, or name one")]
pub struct SeveralError;

/// Starts containers.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let keys = DetachKeys::parse(&arguments.detach_keys)?;
    let chosen = Chosen {
        names: arguments.names.clone(),
        all: arguments.all,
        latest: arguments.latest,
        filter: arguments.filter.clone(),
        cidfile: Vec::new(),
    };
    let names = chosen.resolve(client, &["created", "exited"]).await?;
    if !arguments.attach && !arguments.interactive {
        let request = async |name: String| {
            client
                .post(Target::new("/containers").segment(&name).segment("start"), None)
                .await?;
            Ok(Told::Line(name))
        };
        return each::run(&names, request, start_status).await;
    }
    let [name] = names.as_slice() else {
        return Err(SeveralError.into());
    };
    let inspected = client
        .get(Target::new("/containers").segment(name).segment("json"))
        .await?;
    let id = inspected["Id"].as_str().unwrap_or(name).to_owned();
    let sends_input = arguments.interactive && inspected["Config"]["OpenStdin"] == true;
    let session = Session {
        client,
        subject: Subject::Container(id.clone()),
        has_terminal: inspected["Config"]["Tty"] == true,
        sends_input,
        proxies_signals: arguments.sig_proxy,
        keys,
        shows: Shows::ALL,
    };
    let connection = client
        .hijack(&attach_target(&id, sends_input, Shows::ALL), None)
        .await?;
    let is_removed = inspected["HostConfig"]["AutoRemove"] == true;
    let waiting = Waiting::begin(client, &id, is_removed).await?;
    let prepared = session.prepare()?;
    start(client, &id).await?;
    prepared.begin();
    match prepared.run(connection).await? {
        End::Detached => Ok(0),
        End::Closed => waiting.exit_code().await,
    }
}
