//! Further processes in running containers.
//!
//! Instances live in memory only: they end with their container, and Docker's do not outlive its daemon either. Invariant: an instance is marked as running
//! before the shim is asked, so that an end that is told at once finds it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kakoi_api::exec::ExecBody;
use kakoi_api::stream;
use kakoi_container::frames::{ExecUser, Reply, Request, Streams};
use kakoi_container::plan::{ProcessPlan, TerminalSize};
use tokio::io::{AsyncReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::watch;

use crate::engine::Engine;
use crate::life::container::{Container, Phase};
use crate::life::stop;
use crate::names;
use crate::refusal::{Answer, Refusal};
use crate::secrets::give;
use crate::shim;
use crate::signal;

/// Instances that one container may have at a time.
const PER_CONTAINER_MAX: usize = 1024;
/// Bytes of a health test's output that are kept. Docker's figure.
const PROBE_OUTPUT_BYTES_MAX: usize = 4096;
/// How long a killed health test may take to end. In a container that was paused meanwhile it ends only afterwards.
const PROBE_END_WAIT: Duration = Duration::from_secs(5);

/// Where an instance stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecState {
    /// Whether it was started.
    pub started: bool,
    /// Whether it runs.
    pub running: bool,
    /// How it ended.
    pub exit_code: Option<i32>,
    /// Its process id on the host, where known.
    pub pid: i32,
}

/// An instance.
#[derive(Debug)]
pub struct Exec {
    /// 64 lower-case hex digits.
    pub id: String,
    /// Its container.
    pub container_id: String,
    /// What was asked for.
    pub body: ExecBody,
    /// Who it runs as, where that differs from the container.
    pub user: Option<ExecUser>,
    state: watch::Sender<ExecState>,
}

impl Exec {
    /// Where it stands.
    pub fn state(&self) -> ExecState {
        self.state.borrow().clone()
    }

    /// Waits for its end.
    pub async fn ended(&self) {
        let mut state = self.state.subscribe();
        state
            .wait_for(|state| !state.running)
            .await
            .expect("the instance owns the sender");
    }
}

/// All instances.
#[derive(Debug, Default)]
pub struct Execs(Mutex<HashMap<String, Arc<Exec>>>);

impl Execs {
    /// Makes an instance.
    pub fn create(&self, container: &Container, body: ExecBody, user: Option<ExecUser>) -> Answer<Arc<Exec>> {
        let id = names::new_id().map_err(|cause| Refusal::failed("no random bytes for an id", cause))?;
        let exec = Arc::new(Exec {
            id: id.clone(),
            container_id: container.id.clone(),
            body,
            user,
            state: watch::Sender::new(ExecState::default()),
        });
        let mut map = self.0.lock().expect("no panic while locked");
        let mut shared = container.shared();
        if shared.execs.len() >= PER_CONTAINER_MAX {
            // The oldest that are through make room.
            shared.execs.retain(|id| {
                map.get(id)
                    .is_some_and(|exec| exec.state.borrow().exit_code.is_none())
            });
            let live = &shared.execs;
            map.retain(|id, exec| exec.container_id != container.id || live.contains(id));
            if shared.execs.len() >= PER_CONTAINER_MAX {
                return Err(Refusal::unavailable(format!(
                    "container {} has {PER_CONTAINER_MAX} exec instances already",
                    container.id
                )));
            }
        }
        shared.execs.push(id.clone());
        map.insert(id, exec.clone());
        Ok(exec)
    }

    /// Finds an instance.
    pub fn find(&self, id: &str) -> Answer<Arc<Exec>> {
        let map = self.0.lock().expect("no panic while locked");
        map.get(id)
            .cloned()
            .ok_or_else(|| Refusal::missing(format!("No such exec instance: {id}")))
    }

    /// Notes an end.
    pub fn ended(&self, engine: &Engine, id: &str, exit_code: i32) {
        let Ok(exec) = self.find(id) else { return };
        exec.state.send_modify(|state| {
            state.running = false;
            state.exit_code = Some(exit_code);
            state.pid = 0;
        });
        let Ok(container) = engine.containers.find(&exec.container_id) else {
            return;
        };
        let mut attributes = container.attributes();
        attributes.insert("execID".into(), id.into());
        attributes.insert("exitCode".into(), exit_code.to_string());
        engine
            .events
            .tell("container", "exec_die", &container.id, attributes);
    }

    /// Notes that a container ended, and with it every process in it.
    pub fn container_ended(&self, engine: &Engine, container_id: &str) {
        let running: Vec<String> = {
            let map = self.0.lock().expect("no panic while locked");
            map.values()
                .filter(|exec| exec.container_id == container_id && exec.state.borrow().running)
                .map(|exec| exec.id.clone())
                .collect()
        };
        for id in running {
            self.ended(engine, &id, 137);
        }
    }

    /// Forgets a container's instances.
    pub fn forget_container(&self, container_id: &str) {
        self.0
            .lock()
            .expect("no panic while locked")
            .retain(|_, exec| exec.container_id != container_id);
    }

    fn forget(&self, container: &Container, id: &str) {
        self.0.lock().expect("no panic while locked").remove(id);
        container.shared().execs.retain(|other| other != id);
    }
}

/// What an instance runs, from the request and the container's own process.
fn process_of(base: ProcessPlan, body: &ExecBody, size: Option<[u16; 2]>) -> ProcessPlan {
    let mut env = base.env;
    for entry in &body.env {
        let name = entry.split('=').next().unwrap_or_default();
        env.retain(|held| held.split('=').next() != Some(name));
        if entry.contains('=') {
            env.push(entry.clone());
        }
    }
    let terminal_size = size
        .or(body.console_size)
        .map(|[height, width]| TerminalSize { width, height });
    ProcessPlan {
        args: body.cmd.clone().unwrap_or_default().0,
        env,
        cwd: if body.working_dir.is_empty() {
            base.cwd
        } else {
            body.working_dir.clone()
        },
        tty: body.tty,
        stdin_open: body.attach_stdin,
        stdin_once: body.attach_stdin,
        init: false,
        terminal_size,
        oom_score_adj: base.oom_score_adj,
        ulimits: base.ulimits,
    }
}

/// Starts an instance. Gives back the connection that carries its streams, where any is attached.
pub async fn start(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    exec: &Arc<Exec>,
    detach: bool,
    size: Option<[u16; 2]>,
) -> Answer<Option<BufReader<UnixStream>>> {
    match container.shared().phase {
        Phase::Running => {}
        Phase::Paused => {
            return Err(Refusal::conflict(format!(
                "container {} is paused, unpause the container before exec",
                container.id
            )));
        }
        _ => return Err(stop::not_running(container)),
    }
    let was_started = exec.state.send_if_modified(|state| {
        let first = !state.started;
        state.started = true;
        state.running |= first;
        first
    });
    if !was_started {
        return Err(Refusal::conflict(format!(
            "exec instance {} was started already",
            exec.id
        )));
    }
    let attach = Streams {
        stdin: !detach && exec.body.attach_stdin,
        stdout: !detach && exec.body.attach_stdout,
        stderr: !detach && exec.body.attach_stderr,
    };
    let result = ask(engine, container, exec, attach, size).await;
    if let Err(refusal) = &result {
        exec.state.send_modify(|state| {
            state.running = false;
            state.exit_code = Some(refusal.exit_code().unwrap_or(126));
        });
    }
    result
}

async fn ask(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    exec: &Arc<Exec>,
    attach: Streams,
    size: Option<[u16; 2]>,
) -> Answer<Option<BufReader<UnixStream>>> {
    let mut base = crate::plan::read(&engine.paths.state_dir(&container.id))?.process;
    give::reveal(engine, &container.shared().record.clone(), &mut base.env)?;
    let request = Request::Exec {
        exec_id: exec.id.clone(),
        process: process_of(base, &exec.body, size),
        user: exec.user.clone(),
        attach,
    };
    let mut attributes = container.attributes();
    attributes.insert("execID".into(), exec.id.clone());
    let line = exec.body.cmd.clone().unwrap_or_default().0.join(" ");
    engine.events.tell(
        "container",
        &format!("exec_start: {line}"),
        &container.id,
        attributes,
    );
    match shim::ask(&engine.paths.run_dir(&container.id), &request).await {
        Ok((Reply::Stream, stream)) => Ok(Some(stream)),
        Ok((Reply::Started { pid }, _)) => {
            exec.state.send_modify(|state| {
                if state.running {
                    state.pid = pid;
                }
            });
            Ok(None)
        }
        Ok((other, _)) => Err(Refusal::broken(format!(
            "the supervisor of {} answered {other:?}",
            container.id
        ))),
        Err(error) => Err(stop::talk_failed(container, error)),
    }
}

/// Runs a health test: its exit code, -1 for one that did not end in time or could not be run, and the beginning of its output.
pub async fn probe(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    command: &[String],
    timeout: Duration,
) -> (i32, String) {
    let body = ExecBody {
        cmd: Some(command.to_vec().into()),
        attach_stdout: true,
        attach_stderr: true,
        ..ExecBody::default()
    };
    let exec = match engine.execs.create(container, body, None) {
        Ok(exec) => exec,
        Err(refusal) => return (-1, refusal.message),
    };
    let mut output = Vec::new();
    let run = async {
        if let Some(stream) = start(engine, container, &exec, false, None).await? {
            collect(stream, &mut output).await;
        }
        exec.ended().await;
        Ok::<_, Refusal>(exec.state().exit_code.unwrap_or(-1))
    };
    let outcome = tokio::time::timeout(timeout, run).await;
    if outcome.is_err() {
        end_probe(engine, container, &exec).await;
    }
    engine.execs.forget(container, &exec.id);
    match outcome {
        Ok(Ok(exit_code)) => (exit_code, String::from_utf8_lossy(&output).into_owned()),
        Ok(Err(refusal)) => (-1, refusal.message),
        Err(_) => (
            -1,
            format!("Health check exceeded timeout ({}ms)", timeout.as_millis()),
        ),
    }
}

/// Kills a test that takes too long, with what it started, and waits for its end: the next one must not find it.
async fn end_probe(engine: &Arc<Engine>, container: &Arc<Container>, exec: &Arc<Exec>) {
    let request = Request::KillExec {
        exec_id: exec.id.clone(),
        signal: signal::KILL,
        all: true,
    };
    match shim::ask(&engine.paths.run_dir(&container.id), &request).await {
        Ok((Reply::Done, _)) => {
            if tokio::time::timeout(PROBE_END_WAIT, exec.ended()).await.is_err() {
                tracing::warn!(container = %container.id, "ignoring that a killed health test has not ended yet");
            }
        }
        // It ended by itself in between, or its container did.
        Ok(_) => {}
        Err(error) => {
            tracing::debug!(container = %container.id, %error, "ignoring that a health test could not be killed");
        }
    }
}

async fn collect(mut stream: BufReader<UnixStream>, output: &mut Vec<u8>) {
    let mut header = [0; stream::HEADER_BYTES];
    while stream.read_exact(&mut header).await.is_ok() {
        let Some((_, length)) = stream::parse_header(&header) else {
            return;
        };
        let mut frame = (&mut stream).take(length.into());
        let mut chunk = [0; 1024];
        loop {
            match frame.read(&mut chunk).await {
                Ok(0) => break,
                Ok(count) => {
                    let room = PROBE_OUTPUT_BYTES_MAX.saturating_sub(output.len());
                    output.extend_from_slice(&chunk[..count.min(room)]);
                }
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_takes_over_what_it_does_not_say() {
        let base = ProcessPlan {
            args: vec!["app".into()],
            env: vec!["A=1".into(), "B=2".into()],
            cwd: "/srv".into(),
            tty: true,
            stdin_open: true,
            stdin_once: false,
            init: true,
            terminal_size: None,
            oom_score_adj: 5,
            ulimits: Vec::new(),
        };
        let body = ExecBody {
            cmd: Some(vec!["sh".to_owned()].into()),
            env: vec!["A=3".into(), "B".into()],
            ..ExecBody::default()
        };
        let process = process_of(base, &body, Some([24, 80]));
        assert_eq!(process.args, ["sh"]);
        assert_eq!(process.env, ["A=3"]);
        assert_eq!(process.cwd, "/srv");
        assert!(!process.tty && !process.init && !process.stdin_open);
        assert_eq!(
            process.terminal_size,
            Some(TerminalSize {
                width: 80,
                height: 24
            })
        );
    }
}
