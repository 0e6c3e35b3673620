//! Exec instances.

use hyper::StatusCode;
use kakoi_api::exec::{ExecAnswer, ExecBody, ExecInspect, ExecProcess, ExecStartBody};
use kakoi_container::frames::{ExecUser, Request};

use super::attach::{self, Terms, Way};
use super::containers;
use super::reply::{self, Reply};
use super::router::Asked;
use crate::detach::DetachKeys;
use crate::engine::Engine;
use crate::exec as instances;
use crate::life::container::{Container, Phase};
use crate::life::stop;
use crate::plan;
use crate::plan::user;
use crate::policy::Door;
use crate::refusal::{Answer, Refusal};
use crate::signal;

/// `POST /containers/{id}/exec`
pub async fn create(mut asked: Asked, id: &str) -> Answer<Reply> {
    let container = asked.engine.containers.find(id)?;
    let body: ExecBody = asked.body().await?;
    match container.shared().phase {
        Phase::Running => {}
        Phase::Paused => {
            return Err(Refusal::conflict(format!(
                "container {} is paused, unpause the container before exec",
                container.id
            )));
        }
        _ => return Err(stop::not_running(&container)),
    }
    let command = body.cmd.clone().unwrap_or_default().0;
    if command.first().is_none_or(String::is_empty) {
        return Err(Refusal::bad("No exec command specified"));
    }
    if command.iter().chain(&body.env).any(|text| text.contains('\0')) {
        return Err(Refusal::bad("arguments and environment cannot hold NUL bytes"));
    }
    if !body.working_dir.is_empty() && !body.working_dir.starts_with('/') {
        return Err(Refusal::bad(format!(
            "working directory {:?} is not an absolute path",
            body.working_dir
        )));
    }
    if body.privileged {
        return Err(Refusal::forbidden(
            "exec --privileged: an added process is as confined as its container; create the container with another policy",
        ));
    }
    DetachKeys::parse(&body.detach_keys)?;
    let user = user_of(&asked.engine, &container, &body.user)?;
    let exec = asked.engine.execs.create(&container, body, user)?;
    let mut attributes = container.attributes();
    attributes.insert("execID".into(), exec.id.clone());
    asked.engine.events.tell(
        "container",
        &format!("exec_create: {}", command.join(" ")),
        &container.id,
        attributes,
    );
    Ok(reply::json(
        StatusCode::CREATED,
        &ExecAnswer { id: exec.id.clone() },
    ))
}

/// Another user than the container's, looked up in the container's own files: its writable layer first.
fn user_of(engine: &Engine, container: &Container, wanted: &str) -> Answer<Option<ExecUser>> {
    if wanted.is_empty() {
        return Ok(None);
    }
    let plan = plan::read(&engine.paths.state_dir(&container.id))?;
    let mut layers = vec![plan.state_dir.join("upper")];
    layers.extend(plan.rootfs.layers);
    let user = user::resolve(wanted, &[], plan.confinement.identity.umask, &layers)?.identity;
    Ok(Some(ExecUser {
        uid: user.uid,
        gid: user.gid,
        groups: user.groups,
    }))
}

/// `POST /exec/{id}/start`
pub async fn start(mut asked: Asked, id: &str) -> Answer<Reply> {
    let exec = asked.engine.execs.find(id)?;
    let body: ExecStartBody = asked.body().await?;
    let container = asked.engine.containers.find(&exec.container_id)?;
    let keys = DetachKeys::parse(&exec.body.detach_keys)?;
    let detach = body.detach || exec.body.detach;
    // Docker frames by what the start says, whatever the instance was made with; a process without a terminal is framed by its shim.
    let framed = match asked.door {
        Door::Docker => !(body.tty && exec.body.tty),
        Door::Kakoi => !exec.body.tty,
    };
    let started = instances::start(&asked.engine, &container, &exec, detach, body.console_size).await;
    let stream = match started {
        // Docker's clients have taken the connection over by then; they read it there, and the exit code of the instance.
        Err(refusal) if refusal.exit_code().is_some() && !detach && asked.door == Door::Docker => {
            let said = not_started(&exec, &refusal);
            return attach::carry_text(Way::of(&asked), framed, &said);
        }
        started => started?,
    };
    match stream {
        Some(stream) => {
            let terms = Terms {
                tty: exec.body.tty,
                framed,
                stdin: exec.body.attach_stdin,
                keys,
                way: Way::of(&asked),
            };
            Ok(attach::carry_exec(terms, stream, exec))
        }
        None => Ok(reply::empty(StatusCode::OK)),
    }
}

/// Why a program did not start, in the words that scripts look for.
fn not_started(exec: &instances::Exec, refusal: &Refusal) -> String {
    let command = exec.body.cmd.clone().unwrap_or_default().0;
    let program = command.first().map_or("", String::as_str);
    let why = match refusal.exit_code() {
        Some(127) if program.contains('/') => format!("stat {program}: no such file or directory"),
        Some(127) => "executable file not found in $PATH".to_owned(),
        _ => refusal.message.replace("Permission denied", "permission denied"),
    };
    format!(
        "OCI runtime exec failed: exec failed: unable to start container process: exec: \"{program}\": {why}: unknown\r\n"
    )
}

/// `GET /exec/{id}/json`
pub fn inspect(asked: &Asked, id: &str) -> Answer<Reply> {
    let exec = asked.engine.execs.find(id)?;
    let state = exec.state();
    let command = exec.body.cmd.clone().unwrap_or_default().0;
    Ok(reply::ok(&ExecInspect {
        id: exec.id.clone(),
        running: state.running,
        exit_code: state.exit_code.map(i64::from),
        process_config: ExecProcess {
            tty: exec.body.tty,
            entrypoint: command.first().cloned().unwrap_or_default(),
            arguments: command.into_iter().skip(1).collect(),
            privileged: exec.body.privileged,
            user: exec.body.user.clone(),
        },
        open_stdin: exec.body.attach_stdin,
        open_stderr: exec.body.attach_stderr,
        open_stdout: exec.body.attach_stdout,
        can_remove: false,
        container_id: exec.container_id.clone(),
        detach_keys: exec.body.detach_keys.clone(),
        pid: state.pid.into(),
    }))
}

/// `POST /exec/{id}/resize`
pub async fn resize(asked: &Asked, id: &str) -> Answer<Reply> {
    let exec = asked.engine.execs.find(id)?;
    let size = containers::size(asked)?;
    let container = asked.engine.containers.find(&exec.container_id)?;
    if !exec.state().running {
        return Err(Refusal::conflict(format!("exec instance {id} is not running")));
    }
    containers::ask(
        &asked.engine,
        &container,
        Request::Resize {
            exec_id: Some(id.into()),
            size,
        },
    )
    .await?;
    Ok(reply::empty(StatusCode::OK))
}

/// `POST /exec/{id}/kill`: Kakoi's own; Docker has no word for it.
pub async fn kill(asked: &Asked, id: &str) -> Answer<Reply> {
    let exec = asked.engine.execs.find(id)?;
    let number = signal::parse(asked.query.get("signal").unwrap_or("TERM"))?;
    let container = asked.engine.containers.find(&exec.container_id)?;
    if !exec.state().running {
        return Err(Refusal::conflict(format!("exec instance {id} is not running")));
    }
    containers::ask(
        &asked.engine,
        &container,
        Request::KillExec {
            exec_id: id.into(),
            signal: number,
            all: false,
        },
    )
    .await?;
    Ok(reply::nothing())
}
