//! Starting a container.
//!
//! The intent (`running`) is written while the shim comes up and before anybody is told that the container runs. What a daemon that is
//! killed between the two leaves behind, the next one sees by the shim itself.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use kakoi_container::frames::FailureKind;

use super::container::{Container, Phase};
use super::{health, remove, watch};
use crate::clock;
use crate::engine::Engine;
use crate::host;
use crate::networks;
use crate::plan::peers;
use crate::refusal::{Answer, Refusal, chain};
use crate::secrets::give;
use crate::shim::{self, ShimError};
use crate::state::Record;
use crate::trust;

/// Why it is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A person asks.
    Hand,
    /// Its restart policy.
    Policy,
    /// The supervisor, to have it take over from another that runs: until then it publishes nothing.
    Beside,
}

/// Has the kernel get ready for a start, beside whatever else is to be done before it.
pub fn hasten() {
    tokio::task::spawn_blocking(|| {
        if let Err(error) = kakoi_container::cgroup::hasten() {
            tracing::debug!(error = chain(&error), "the next start is not hastened, ignoring");
        }
    });
}

/// Starts a container.
pub async fn start(engine: &Arc<Engine>, container: &Arc<Container>, cause: Cause) -> Answer<()> {
    let turn = container.turn().await;
    let phase = container.shared().phase;
    match phase {
        Phase::Running => return Err(Refusal::not_modified()),
        Phase::Paused => {
            return Err(Refusal::conflict(
                "cannot start a paused container, try unpause instead",
            ));
        }
        Phase::Removing | Phase::Dead => {
            return Err(Refusal::conflict(
                "container is marked for removal and cannot be started",
            ));
        }
        Phase::Created | Phase::Exited | Phase::Restarting => {}
    }
    let started = start_in_turn(engine, container, cause).await;
    drop(turn);
    let auto_remove = container.shared().record.host_config.auto_remove;
    if started.is_err() && auto_remove {
        remove::remove_ended(engine, container).await;
    }
    started
}

/// Starts a container whose turn the caller has.
pub async fn start_in_turn(engine: &Arc<Engine>, container: &Arc<Container>, cause: Cause) -> Answer<()> {
    if container.pulse().borrow().shim {
        container.until(|pulse| !pulse.shim).await;
    }
    if let Some(task) = container.shared().restart_task.take()
        && cause != Cause::Policy
    {
        task.abort();
    }
    let was_waiting = container.shared().phase == Phase::Restarting;
    // From before the image is judged: what the owner changes meanwhile is not missed.
    let changes = engine.trust.changes();
    let result = spawn(engine, container, cause).await;
    match &result {
        Ok(()) => {}
        Err(failure) if failure.is_owners && was_waiting => {
            watch::hold(engine, container, &failure.refusal.message, changes).await;
        }
        Err(failure) => note_failure(engine, container, failure, cause).await,
    }
    result.map_err(|failure| failure.refusal)
}

struct StartFailure {
    exit_code: i32,
    refusal: Refusal,
    /// Whether the image is not trusted: then nothing was attempted, and it is for the owner to change that.
    is_owners: bool,
}

impl From<Refusal> for StartFailure {
    fn from(refusal: Refusal) -> Self {
        Self {
            exit_code: 125,
            refusal,
            is_owners: false,
        }
    }
}

/// Asks whether the image is trusted; what is refused here was no attempt of the app.
async fn admit(
    engine: &Arc<Engine>,
    container: &Container,
    record: &Record,
    cause: Cause,
) -> Result<(), StartFailure> {
    if let Err(refusal) = trust::admit_start(engine, record).await {
        return Err(StartFailure {
            is_owners: true,
            ..refusal.into()
        });
    }
    if cause == Cause::Policy {
        container.shared().record.life.restarts += 1;
    }
    Ok(())
}

async fn spawn(engine: &Arc<Engine>, container: &Arc<Container>, cause: Cause) -> Result<(), StartFailure> {
    let is_networked = networks::ask::is_bridged(&container.shared().record.host_config.network_mode);
    let spawned = spawn_networked(engine, container, cause, is_networked).await;
    if is_networked && spawned.is_err() {
        engine.networks.leave(engine, &container.id).await;
    }
    spawned
}

async fn spawn_networked(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    cause: Cause,
    is_networked: bool,
) -> Result<(), StartFailure> {
    let record = container.shared().record.clone();
    admit(engine, container, &record, cause).await?;
    if is_networked {
        let is_beside = cause == Cause::Beside;
        engine.networks.prepare(engine, &record, is_beside).await?;
    }
    peers::check_running(engine, &record.host_config)?;
    let state_dir = engine.paths.state_dir(&container.id);
    let run_dir = engine.paths.run_dir(&container.id);
    let program = record.args.first().cloned().unwrap_or_default();
    let failed = |error: ShimError| as_failure(&container.id, &program, error);
    host::make_private_folder(&run_dir)
        .map_err(|cause| Refusal::failed("preparing the run-time folder failed", cause))?;
    shim::forget_exit(&state_dir)
        .map_err(|cause| Refusal::failed("forgetting the last exit failed", cause))?;
    let waiting = container.shared().listener.take();
    let listener = match waiting {
        Some(listener) => listener,
        None => shim::bind(&run_dir).map_err(failed)?,
    };
    let laid_out = give::lay_out(engine, &record)?;
    let record = {
        // Nobody exchanges or removes a layer between looking at who has it mounted and doing so.
        let _image_turn = engine.image_turn.read().await;
        let record = mark_running(container, cause);
        container.publish(|pulse| {
            pulse.up = true;
            pulse.restarting = false;
            pulse.shim = true;
        });
        record
    };
    let limit = Duration::from_secs(engine.settings.start_seconds_max.into());
    let (stored, running) = tokio::join!(
        store_intent(engine, &record),
        shim::run(
            &engine.shim,
            (&state_dir, &run_dir),
            listener,
            limit,
            async |network| { engine.networks.furnish(engine, &container.id, network).await }
        )
    );
    // The container's own mounts hold them now.
    drop(laid_out);
    let running = match running {
        Ok(running) => running,
        Err(error) => {
            tidy(engine, container).await;
            return Err(failed(error));
        }
    };
    announce(engine, container, running);
    if let Err(cause) = stored {
        super::stop::kill_and_wait(engine, container).await?;
        return Err(Refusal::failed("the start cannot be recorded, so it was undone", cause).into());
    }
    health::begin(engine, container);
    Ok(())
}

/// Its app runs: everybody may know.
fn announce(engine: &Arc<Engine>, container: &Arc<Container>, running: shim::Running) {
    let pid = running.pid;
    {
        let mut shared = container.shared();
        shared.phase = Phase::Running;
        shared.pid = pid;
    }
    watch::tell_places(engine, container, true);
    engine
        .events
        .tell("container", "start", &container.id, container.attributes());
    tracing::info!(container = %container.id, pid, "started");
    watch::follow(
        engine.clone(),
        container.clone(),
        running.events,
        Some(running.child),
    );
}

/// Writes into the record, in memory, that the container is to run; gives the record to be stored.
fn mark_running(container: &Container, cause: Cause) -> Record {
    let mut shared = container.shared();
    let life = &mut shared.record.life;
    life.running = true;
    life.started_at = Some(clock::now());
    life.stopped_by_hand = false;
    life.oom_killed = false;
    life.held = false;
    life.error.clear();
    if cause != Cause::Policy {
        life.restarts = 0;
    }
    shared.held_for.clear();
    shared.record.clone()
}

/// A container that removes itself is down after a power cut whatever its record says, and after the daemon's death its shim tells that it runs:
/// its record needs no second writing.
async fn store_intent(engine: &Arc<Engine>, record: &Record) -> Result<(), crate::state::StoreError> {
    if record.host_config.auto_remove {
        return Ok(());
    }
    engine.store.put(record).await
}

/// Removes what a shim that did not come up left.
async fn tidy(engine: &Arc<Engine>, container: &Arc<Container>) {
    if let Err(error) = shim::clean(&engine.shim, &engine.paths.state_dir(&container.id)).await {
        tracing::error!(container = %container.id, error = chain(&error), "a failed start left something behind");
    }
    fs::remove_file(engine.paths.run_dir(&container.id).join("shim.sock")).ok();
}

async fn note_failure(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    failure: &StartFailure,
    cause: Cause,
) {
    let (record, is_news) = {
        let mut shared = container.shared();
        let before = shared.record.life.clone();
        shared.phase = if shared.record.life.finished_at.is_some() || cause == Cause::Policy {
            Phase::Exited
        } else {
            Phase::Created
        };
        shared.pid = 0;
        let life = &mut shared.record.life;
        life.running = false;
        life.exit_code = failure.exit_code;
        life.error = failure.refusal.message.clone();
        if shared.phase == Phase::Created {
            shared.record.life.started_at = None;
        }
        (shared.record.clone(), shared.record.life != before)
    };
    container.publish(|pulse| {
        pulse.up = false;
        pulse.shim = false;
        pulse.ends += 1;
        pulse.exit_code = failure.exit_code;
    });
    // Whoever asks again for what is refused writes nothing by it.
    if is_news && let Err(error) = engine.store.put(&record).await {
        tracing::error!(container = %container.id, error = chain(&error), "a failed start cannot be recorded");
    }
}

/// The status and the words that Docker has for a start that failed.
fn as_failure(id: &str, program: &str, error: ShimError) -> StartFailure {
    let task = |said: &str| format!("failed to create task for container: {said}");
    if let ShimError::Network(refusal) = error {
        return refusal.into();
    }
    let (exit_code, refusal) = match &error {
        ShimError::Failed { kind, message } => match kind {
            // Scripts look for these words, whose shape is runc's.
            FailureKind::CommandNotFound if program.contains('/') => {
                let said = format!("exec: \"{program}\": stat {program}: no such file or directory");
                (127, Refusal::bad(task(&said)).of_kind(*kind))
            }
            FailureKind::CommandNotFound => {
                let said = format!("exec: \"{program}\": executable file not found in $PATH");
                (127, Refusal::bad(task(&said)).of_kind(*kind))
            }
            FailureKind::CommandNotExecutable => {
                // The kernel's word as Go writes it: the client looks for it.
                let message = message.replace("Permission denied", "permission denied");
                let said = format!("exec: \"{program}\": {message}");
                (126, Refusal::bad(task(&said)).of_kind(*kind))
            }
            FailureKind::Confinement => (125, Refusal::forbidden(task(message))),
            FailureKind::Conflict => (125, Refusal::conflict(task(message))),
            FailureKind::Runtime => (125, Refusal::broken(task(message))),
        },
        other => {
            let short = &id[..12.min(id.len())];
            (
                125,
                Refusal::broken(format!("starting container {short}: {}", chain(other))),
            )
        }
    };
    tracing::debug!(container = %id, error = chain(&error), "start failed");
    StartFailure {
        exit_code,
        refusal,
        is_owners: false,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use kakoi_policy::confinement::PolicyIdentity;

    use super::*;
    use crate::state::{Life, record::RECORD_FORMAT};

    /// A record of a container that never ran.
    pub(crate) fn record(id: &str) -> Record {
        Record {
            format: RECORD_FORMAT,
            id: id.into(),
            name: format!("name-{id}"),
            created: "2026-11-24T00:00:00Z".into(),
            image_id: "sha256:00".into(),
            trusted_as: String::new(),
            config: Default::default(),
            host_config: Default::default(),
            networks: Default::default(),
            reach: Default::default(),
            args: vec!["true".into()],
            mounts: Vec::new(),
            secrets: Vec::new(),
            anonymous_volumes: Vec::new(),
            policy: PolicyIdentity {
                name: "strict".into(),
                sha256: String::new(),
            },
            limits: Default::default(),
            id_slot: None,
            life: Life::default(),
        }
    }

    #[test]
    fn failures_have_dockers_status_and_exit_code() {
        for (kind, exit_code, status) in [
            (FailureKind::CommandNotFound, 127, 400),
            (FailureKind::CommandNotExecutable, 126, 400),
            (FailureKind::Confinement, 125, 403),
            (FailureKind::Runtime, 125, 500),
        ] {
            let failure = as_failure(
                "0123456789abcdef",
                "app",
                ShimError::Failed {
                    kind,
                    message: "why".into(),
                },
            );
            assert_eq!(
                (failure.exit_code, failure.refusal.status.as_u16()),
                (exit_code, status)
            );
            let not_found = kind == FailureKind::CommandNotFound;
            let end = if not_found {
                "\"app\": executable file not found in $PATH"
            } else {
                "why"
            };
            assert!(
                failure.refusal.message.ends_with(end),
                "{}",
                failure.refusal.message
            );
        }
    }
}
