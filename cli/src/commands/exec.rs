//! `kakoi exec`: run a program in a running container, as confined as the container is.

use std::path::PathBuf;

use kakoi_api::Words;
use kakoi_api::exec::{ExecAnswer, ExecBody, ExecInspect, ExecStartBody};

use super::run::start_status;
use crate::client::{Client, ClientError, Target};
use crate::create::read_environment;
use crate::detach_keys::{self, DetachKeys};
use crate::each;
use crate::failure::Failure;
use crate::session::{End, Session, Shows, Subject};
use crate::{output, terminal};

/// The arguments of `kakoi exec`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Run in the background
    #[arg(short, long)]
    detach: bool,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Give the program a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set a variable; NAME alone takes over the caller's
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read variables from a file of NAME=VALUE lines
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// User and group, names or numbers
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Ask for more privileges; never granted beyond the container's own
    #[arg(long)]
    privileged: bool,
    /// Keys that detach
    #[arg(long, value_name = "KEYS", default_value = detach_keys::DEFAULT)]
    detach_keys: String,
    /// In the container that was created last
    #[arg(short, long)]
    latest: bool,
    /// The container, then the program and its arguments
    #[arg(value_name = "CONTAINER COMMAND [ARG...]", required = true, num_args = 1.., trailing_var_arg = true)]
    words: Vec<String>,
}

/// Why nothing can be executed.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// No program.
    #[error("name the program to run: kakoi exec CONTAINER COMMAND")]
    NoCommand,
    /// The daemon has no exit code.
    #[error("the daemon does not tell how the program ended")]
    NoCode,
}

/// Runs a program.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let keys = DetachKeys::parse(&arguments.detach_keys)?;
    let (name, command) = if arguments.latest {
        (each::latest(client).await?, arguments.words.as_slice())
    } else {
        let (name, command) = arguments.words.split_first().ok_or(ExecError::NoCommand)?;
        (name.clone(), command)
    };
    if command.is_empty() {
        return Err(ExecError::NoCommand.into());
    }
    let id = make(&arguments, command, &name, client).await?;
    let console_size = arguments.tty.then(terminal::console_size);
    let start = ExecStartBody {
        detach: arguments.detach,
        tty: arguments.tty,
        console_size,
    };
    let start = serde_json::to_value(&start).map_err(ClientError::Encode)?;
    let target = Target::new("/exec").segment(&id).segment("start");
    let failed = |error: ClientError| Failure::new(start_status(&error), error);
    if arguments.detach {
        client.post(target, Some(&start)).await.map_err(failed)?;
        output::line(&id)?;
        return Ok(0);
    }
    let session = Session {
        client,
        subject: Subject::Exec(id.clone()),
        has_terminal: arguments.tty,
        sends_input: arguments.interactive,
        proxies_signals: !arguments.tty,
        keys,
        shows: Shows::ALL,
    };
    let connection = client.hijack(&target, Some(&start)).await.map_err(failed)?;
    let prepared = session.prepare()?;
    prepared.begin();
    match prepared.run(connection).await? {
        End::Detached => Ok(0),
        End::Closed => exit_code(client, &id).await,
    }
}

async fn make(
    arguments: &Arguments,
    command: &[String],
    name: &str,
    client: &Client,
) -> Result<String, Failure> {
    let is_attached = !arguments.detach;
    let body = ExecBody {
        user: arguments.user.clone().unwrap_or_default(),
        privileged: arguments.privileged,
        tty: arguments.tty,
        console_size: arguments.tty.then(terminal::console_size),
        attach_stdin: arguments.interactive && is_attached,
        attach_stdout: is_attached,
        attach_stderr: is_attached,
        detach: arguments.detach,
        env: read_environment(&arguments.env, &arguments.env_file)?,
        working_dir: arguments.workdir.clone().unwrap_or_default(),
        cmd: Some(Words(command.to_vec())),
        ..ExecBody::default()
    };
    let body = serde_json::to_value(&body).map_err(ClientError::Encode)?;
    let answer = client
        .post(
            Target::new("/containers").segment(name).segment("exec"),
            Some(&body),
        )
        .await?;
    let answer: ExecAnswer = serde_json::from_value(answer).map_err(|cause| ClientError::Json {
        request: "exec".to_owned(),
        cause,
    })?;
    Ok(answer.id)
}

async fn exit_code(client: &Client, id: &str) -> Result<u8, Failure> {
    let answer = client
        .get(Target::new("/exec").segment(id).segment("json"))
        .await?;
    let answer: ExecInspect = serde_json::from_value(answer).map_err(|cause| ClientError::Json {
        request: "exec".to_owned(),
        cause,
    })?;
    let code = answer.exit_code.ok_or(ExecError::NoCode)?;
    u8::try_from(code).map_err(|_| ExecError::NoCode.into())
}
