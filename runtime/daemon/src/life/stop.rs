//! Ending a container.

use std::sync::Arc;
use std::time::Duration;

use kakoi_container::frames::{Reply, Request};

use super::container::{Container, Phase};
use super::freeze::thaw;
use super::start;
use crate::engine::Engine;
use crate::networks::ask;
use crate::refusal::{Answer, Refusal, chain};
use crate::shim::{self, ShimError};
use crate::signal;

/// Grace where neither the request nor the container says one. Docker's figure.
const GRACE_SECONDS: i64 = 10;
/// How long a killed container may take to end: the kernel may have to wait for a disk.
const KILL_WAIT: Duration = Duration::from_secs(30);

/// Stops a container: its stop signal, `seconds` of grace (negative: without end), then SIGKILL.
pub async fn stop(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    seconds: Option<i64>,
    by_signal: Option<&str>,
) -> Answer<()> {
    let _turn = container.turn().await;
    stop_in_turn(engine, container, seconds, by_signal).await
}

/// Stops a container whose turn the caller has.
pub async fn stop_in_turn(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    seconds: Option<i64>,
    by_signal: Option<&str>,
) -> Answer<()> {
    let phase = container.shared().phase;
    if phase == Phase::Restarting {
        return give_up_restart(engine, container).await;
    }
    if !phase.is_up() {
        return Err(Refusal::not_modified());
    }
    let (word, configured) = {
        let shared = container.shared();
        (
            shared.record.config.stop_signal.clone(),
            shared.record.config.stop_timeout,
        )
    };
    let number = match (by_signal.filter(|word| !word.is_empty()), word.as_str()) {
        (Some(asked), _) => signal::parse(asked)?,
        (None, "") => signal::TERM,
        (None, own) => signal::parse(own)?,
    };
    note_by_hand(engine, container).await?;
    let seconds = seconds.or(configured).unwrap_or(GRACE_SECONDS);
    send(engine, container, number, false).await?;
    tell_kill(engine, container, number);
    if phase == Phase::Paused {
        // A frozen process cannot follow a signal.
        thaw(engine, container).await?;
    }
    let ended = container.until(|pulse| !pulse.up);
    let in_time = match u64::try_from(seconds) {
        Ok(seconds) => tokio::time::timeout(Duration::from_secs(seconds), ended)
            .await
            .is_ok(),
        Err(_) => {
            ended.await;
            true
        }
    };
    if !in_time {
        kill_and_wait(engine, container).await?;
    }
    // Its ports and addresses are free when its supervisor is gone: who stops one may want them for the next.
    if ask::is_bridged(&container.shared().record.host_config.network_mode) {
        let left = container.until(|pulse| !pulse.shim);
        if tokio::time::timeout(KILL_WAIT, left).await.is_err() {
            tracing::warn!(container = %container.id, "its supervisor is still there, ignoring");
        }
    }
    engine
        .events
        .tell("container", "stop", &container.id, container.attributes());
    Ok(())
}

/// Kills every process and waits for the end.
pub async fn kill_and_wait(engine: &Arc<Engine>, container: &Arc<Container>) -> Answer<()> {
    if container.shared().phase.is_up() {
        send(engine, container, signal::KILL, true).await?;
        if container.shared().phase == Phase::Paused {
            thaw(engine, container).await?;
        }
    }
    let ended = container.until(|pulse| !pulse.up);
    tokio::time::timeout(KILL_WAIT, ended).await.map_err(|_| {
        Refusal::broken(format!(
            "container {} did not end within {} seconds of SIGKILL",
            container.id,
            KILL_WAIT.as_secs()
        ))
    })?;
    Ok(())
}

/// Sends a signal on a person's behalf.
pub async fn kill(engine: &Arc<Engine>, container: &Arc<Container>, word: Option<&str>) -> Answer<()> {
    let number = match word.filter(|word| !word.is_empty()) {
        Some(word) => signal::parse(word)?,
        None => signal::KILL,
    };
    let (phase, name, own) = {
        let shared = container.shared();
        (
            shared.phase,
            shared.record.name.clone(),
            shared.record.config.stop_signal.clone(),
        )
    };
    if phase == Phase::Restarting && number == signal::KILL {
        let _turn = container.turn().await;
        return give_up_restart(engine, container).await;
    }
    if !phase.is_up() {
        return Err(Refusal::conflict(format!(
            "cannot kill container: {name}: container {} is not running",
            container.id
        )));
    }
    let own = signal::parse(&own).unwrap_or(signal::TERM);
    if [signal::KILL, signal::TERM, own].contains(&number) {
        note_by_hand(engine, container).await?;
    }
    send(engine, container, number, false).await?;
    tell_kill(engine, container, number);
    if number == signal::KILL {
        if phase == Phase::Paused {
            thaw(engine, container).await?;
        }
        let ended = container.until(|pulse| !pulse.up);
        tokio::time::timeout(KILL_WAIT, ended)
            .await
            .map_err(|_| Refusal::broken(format!("container {} did not end after SIGKILL", container.id)))?;
    }
    Ok(())
}

/// Stops and starts again.
pub async fn restart(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    seconds: Option<i64>,
    word: Option<&str>,
) -> Answer<()> {
    let _turn = container.turn().await;
    match container.shared().phase {
        Phase::Removing | Phase::Dead => {
            return Err(Refusal::conflict(
                "container is marked for removal and cannot be restarted",
            ));
        }
        _ => {}
    }
    // What comes after an end waits for the turn, sees the container running again and lets it be, self-removal included.
    match stop_in_turn(engine, container, seconds, word).await {
        Err(refusal) if refusal.status != hyper::StatusCode::NOT_MODIFIED => return Err(refusal),
        _ => start::start_in_turn(engine, container, start::Cause::Hand).await?,
    }
    engine
        .events
        .tell("container", "restart", &container.id, container.attributes());
    Ok(())
}

async fn give_up_restart(engine: &Arc<Engine>, container: &Arc<Container>) -> Answer<()> {
    if let Some(task) = container.shared().restart_task.take() {
        task.abort();
    }
    {
        let mut shared = container.shared();
        shared.phase = Phase::Exited;
        shared.record.life.held = false;
        shared.held_for.clear();
    }
    container.publish(|pulse| pulse.restarting = false);
    note_by_hand(engine, container).await
}

/// Notes that a person wanted the end, before it comes: the restart policy looks at it.
async fn note_by_hand(engine: &Arc<Engine>, container: &Arc<Container>) -> Answer<()> {
    let record = {
        let mut shared = container.shared();
        shared.record.life.stopped_by_hand = true;
        shared.record.clone()
    };
    let is_kept = !matches!(record.host_config.restart_policy.name.as_str(), "" | "no");
    if !is_kept {
        return Ok(());
    }
    engine
        .store
        .put(&record)
        .await
        .map_err(|cause| Refusal::failed("the stop cannot be recorded", cause))
}

fn tell_kill(engine: &Arc<Engine>, container: &Arc<Container>, number: i32) {
    let mut attributes = container.attributes();
    attributes.insert("signal".into(), number.to_string());
    engine.events.tell("container", "kill", &container.id, attributes);
}

async fn send(engine: &Arc<Engine>, container: &Arc<Container>, number: i32, all: bool) -> Answer<()> {
    let request = Request::Kill { signal: number, all };
    match shim::ask(&engine.paths.run_dir(&container.id), &request).await {
        // It ended meanwhile, or its shim is ending: what was wanted happens anyway.
        Err(ShimError::Talk(_) | ShimError::Silent { .. }) => Ok(()),
        Err(_) if !container.pulse().borrow().up => Ok(()),
        answer => done(container, answer),
    }
}

/// An answer that says that what was asked for is done, or what went wrong.
pub fn done<T>(container: &Container, answer: Result<(Reply, T), ShimError>) -> Answer<()> {
    match answer {
        Ok((Reply::Done, _)) => Ok(()),
        Ok((other, _)) => Err(Refusal::broken(format!(
            "the supervisor of {} answered {other:?}",
            container.id
        ))),
        Err(error) => Err(talk_failed(container, error)),
    }
}

/// A request to a shim that failed, as an answer.
pub fn talk_failed(container: &Container, error: ShimError) -> Refusal {
    use kakoi_container::frames::FailureKind;
    match error {
        ShimError::Failed {
            kind: FailureKind::Conflict,
            message,
        } => Refusal::conflict(message),
        ShimError::Failed {
            kind: kind @ (FailureKind::CommandNotFound | FailureKind::CommandNotExecutable),
            message,
        } => Refusal::bad(message).of_kind(kind),
        ShimError::Failed { message, .. } => Refusal::broken(message),
        ShimError::Talk(_) | ShimError::Silent { .. } if !container.pulse().borrow().up => {
            not_running(container)
        }
        other => {
            let said = chain(&other);
            Refusal::failed(
                format!("the supervisor of container {}: {said}", container.id),
                other,
            )
        }
    }
}

/// 409: it does not run.
pub fn not_running(container: &Container) -> Refusal {
    Refusal::conflict(format!("container {} is not running", container.id))
}
