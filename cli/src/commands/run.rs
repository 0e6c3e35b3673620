//! `kakoi run`: make a container, attach to it, start it, and end as it ends.

use hyper::Method;
use kakoi_api::container::WaitAnswer;
use serde_json::Value;

use super::create::{announce, make};
use crate::client::{Client, ClientError, Target, empty_body};
use crate::create::{Attached, ContainerFlags, ImageAndCommand};
use crate::detach_keys::{self, DetachKeys};
use crate::failure::{ENGINE, Failure, NOT_EXECUTABLE, NOT_FOUND};
use crate::output;
use crate::session::{End, Session, Shows, Subject};

/// The arguments of `kakoi run`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Run in the background and print the id
    #[arg(short, long)]
    pub detach: bool,
    /// Attach only to stdin, stdout or stderr
    #[arg(short, long, value_name = "STREAM", value_parser = ["stdin", "stdout", "stderr"], ignore_case = true, conflicts_with = "detach")]
    pub attach: Vec<String>,
    /// Keys that detach, as in ctrl-p,ctrl-q
    #[arg(long, value_name = "KEYS", default_value = detach_keys::DEFAULT)]
    pub detach_keys: String,
    /// Hand signals to the app: true or false
    #[arg(long, value_name = "BOOL", default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    pub sig_proxy: bool,
    #[command(flatten)]
    flags: ContainerFlags,
    #[command(flatten)]
    what: ImageAndCommand,
}

/// `--pidfile` cannot be written; the container runs on.
#[derive(Debug, thiserror::Error)]
#[error("writing --pidfile {}; the container runs", .path.display())]
pub struct PidfileError {
    /// The file.
    path: std::path::PathBuf,
    /// Why.
    #[source]
    cause: std::io::Error,
}

/// A wait that went wrong after it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// The daemon's words.
    #[error("waiting for the container: {0}")]
    Failed(String),
    /// The connection ended without an answer.
    #[error("the daemon went away while the container ran; the container goes on: see 'kakoi ps'")]
    Gone,
    /// Not an exit code.
    #[error("the daemon sent the exit code {0}, which is none")]
    Code(i64),
}

/// Runs a container.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let keys = DetachKeys::parse(&arguments.detach_keys)?;
    let attached = attached(&arguments);
    let made = make(&arguments.flags, &arguments.what, attached, client).await?;
    if arguments.detach {
        start(client, &made.id).await?;
        note_pid(&arguments.flags, &made.id, client).await?;
        announce(&made.id)?;
        return Ok(0);
    }
    let shows = Shows {
        stdout: attached.stdout,
        stderr: attached.stderr,
    };
    let session = Session {
        client,
        subject: Subject::Container(made.id.clone()),
        has_terminal: arguments.flags.tty,
        sends_input: attached.stdin,
        proxies_signals: arguments.sig_proxy,
        keys,
        shows,
    };
    let target = attach_target(&made.id, attached.stdin, shows);
    let connection = client.hijack(&target, None).await?;
    let waiting = Waiting::begin(client, &made.id, arguments.flags.rm).await?;
    let prepared = session.prepare()?;
    start(client, &made.id).await?;
    note_pid(&arguments.flags, &made.id, client).await?;
    prepared.begin();
    match prepared.run(connection).await? {
        End::Detached => Ok(0),
        End::Closed => waiting.exit_code().await,
    }
}

/// Writes the first process's id where `--pidfile` says. One that has ended already has none, and is not there any more with `--rm`.
async fn note_pid(flags: &ContainerFlags, id: &str, client: &Client) -> Result<(), Failure> {
    let Some(path) = &flags.pidfile else {
        return Ok(());
    };
    let target = Target::new("/containers").segment(id).segment("json");
    let pid = match client.get(target).await {
        Ok(answer) => answer["State"]["Pid"].as_i64().unwrap_or(0),
        Err(error) if error.is_not_found() => 0,
        Err(error) => return Err(error.into()),
    };
    std::fs::write(path, pid.to_string()).map_err(|cause| {
        PidfileError {
            path: path.clone(),
            cause,
        }
        .into()
    })
}

fn attached(arguments: &Arguments) -> Attached {
    if arguments.detach {
        return Attached {
            stdin: false,
            stdout: false,
            stderr: false,
        };
    }
    let has = |word: &str| {
        arguments.attach.is_empty()
            || arguments
                .attach
                .iter()
                .any(|stream| stream.eq_ignore_ascii_case(word))
    };
    Attached {
        stdin: arguments.flags.interactive && has("stdin"),
        stdout: has("stdout"),
        stderr: has("stderr"),
    }
}

/// The request that joins a container's streams.
pub fn attach_target(id: &str, sends_input: bool, shows: Shows) -> Target {
    Target::new("/containers")
        .segment(id)
        .segment("attach")
        .query("stream", "1")
        .flag("stdin", sends_input)
        .flag("stdout", shows.stdout)
        .flag("stderr", shows.stderr)
}

/// Starts a container; a program that does not run gives its own exit status.
pub async fn start(client: &Client, id: &str) -> Result<(), Failure> {
    let target = Target::new("/containers").segment(id).segment("start");
    match client.post(target, None).await {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::new(start_status(&error), error)),
    }
}

/// The exit status of a failed start.
pub fn start_status(error: &ClientError) -> u8 {
    match error {
        ClientError::Refused { kind: Some(kind), .. } => match kind.as_str() {
            "command_not_found" => NOT_FOUND,
            "command_not_executable" => NOT_EXECUTABLE,
            _ => ENGINE,
        },
        _ => ENGINE,
    }
}

/// A wait that was asked for before the start, so that a container that ends at once is not missed.
pub struct Waiting {
    body: crate::client::JsonStream,
}

impl Waiting {
    /// Asks; the daemon answers with its headers at once, and with the exit code at the end.
    pub async fn begin(client: &Client, id: &str, is_removed: bool) -> Result<Self, ClientError> {
        let condition = if is_removed { "removed" } else { "next-exit" };
        let target = Target::new("/containers")
            .segment(id)
            .segment("wait")
            .query("condition", condition);
        Ok(Self {
            body: client.stream(Method::POST, &target, empty_body()).await?,
        })
    }

    /// Waits for the exit code.
    pub async fn exit_code(mut self) -> Result<u8, Failure> {
        match self.body.next().await {
            Ok(Some(answer)) => exit_code(answer),
            // The connection broke: containers outlive their daemon, and whoever reads this must know.
            Ok(None) | Err(ClientError::Protocol { .. }) => Err(WaitError::Gone.into()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Reads the answer to wait.
pub fn exit_code(answer: Value) -> Result<u8, Failure> {
    let answer: WaitAnswer = serde_json::from_value(answer).map_err(|cause| ClientError::Json {
        request: "wait".to_owned(),
        cause,
    })?;
    if let Some(error) = answer.error.filter(|error| !error.message.is_empty()) {
        output::complain(&format!(
            "Error: {}",
            WaitError::Failed(crate::text::printable(&error.message))
        ));
    }
    u8::try_from(answer.status_code).map_err(|_| WaitError::Code(answer.status_code).into())
}
