//! Following a running container to its end, and what comes after the end.
//!
//! The end is published as soon as it is known, so that `wait` answers at once. Only then comes what takes time: the shim's own leaving,
//! removal, the next start.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kakoi_container::frames::{Event, Exit};
use tokio::process::Child;
use tokio::sync::watch::Receiver;
use tokio::task::AbortHandle;

use super::container::{Container, Phase};
use super::{remove, start};
use crate::clock;
use crate::engine::Engine;
use crate::refusal::chain;
use crate::restart::{self, Ended, Policy};
use crate::shim::{self, Watch, Word};

/// The exit code of a container whose shim was lost: its processes were killed.
const LOST_EXIT_CODE: i32 = 137;

/// How often it is looked whether a container that is held back may start by now: as often as one that fails is started. It writes nothing.
const LOOK: Duration = Duration::from_secs(60);

/// Follows a container whose shim runs. `child` is the shim where this daemon spawned it.
pub fn follow(engine: Arc<Engine>, container: Arc<Container>, mut events: Watch, child: Option<Child>) {
    tokio::spawn(async move {
        let exit = read_events(&engine, &container, &mut events).await;
        match exit {
            Some(exit) => {
                end(&engine, &container, &exit, "");
                // The run-time folder is the last that a shim takes away before it tells the end. One that removes itself waits for nothing
                // else: the shim's own end, which frees its namespaces, takes longer than all the rest. Where the folder is still there,
                // something went wrong, and what is left is only free when the shim is gone.
                let is_hurried = container.shared().record.host_config.auto_remove;
                if !is_hurried || engine.paths.run_dir(&container.id).exists() {
                    while let Ok(Some(_)) = events.next().await {}
                    leave(&container, child).await;
                } else {
                    let gone = container.clone();
                    tokio::spawn(async move { leave(&gone, child).await });
                }
            }
            None => {
                leave(&container, child).await;
                lost(&engine, &container).await;
            }
        }
        engine.networks.leave(&engine, &container.id).await;
        container.publish(|pulse| pulse.shim = false);
        after_end(&engine, &container).await;
    });
}

async fn read_events(engine: &Arc<Engine>, container: &Arc<Container>, events: &mut Watch) -> Option<Exit> {
    loop {
        match events.next().await {
            Ok(Some(Word::Event(Event::Exited(exit)))) => return Some(exit),
            Ok(Some(Word::Event(Event::OomKilled))) => {
                container.shared().record.life.oom_killed = true;
                engine
                    .events
                    .tell("container", "oom", &container.id, container.attributes());
            }
            Ok(Some(Word::Event(Event::ExecExited { exec_id, exit_code }))) => {
                engine.execs.ended(engine, &exec_id, exit_code);
            }
            Ok(Some(Word::State(_))) => {}
            Ok(None) => return shim::read_exit(&engine.paths.state_dir(&container.id)),
            Err(error) => {
                tracing::warn!(container = %container.id, error = chain(&error), "the shim's events broke off");
                return shim::read_exit(&engine.paths.state_dir(&container.id));
            }
        }
    }
}

async fn leave(container: &Arc<Container>, child: Option<Child>) {
    if let Some(mut child) = child
        && let Err(cause) = child.wait().await
    {
        tracing::warn!(container = %container.id, %cause, "the shim cannot be reaped, ignoring");
    }
}

/// The shim is gone without a word: whatever it left is removed, and the container is down.
async fn lost(engine: &Arc<Engine>, container: &Arc<Container>) {
    let state_dir = engine.paths.state_dir(&container.id);
    tracing::error!(container = %container.id, "the shim was lost");
    let mut trouble = "the container's supervisor was lost; its processes were killed".to_owned();
    if let Err(error) = shim::clean(&engine.shim, &state_dir).await {
        tracing::error!(container = %container.id, error = chain(&error), "cleaning up after a lost shim failed");
        trouble = format!("{trouble}; cleaning up failed");
    }
    let mut exit = shim::read_exit(&state_dir).unwrap_or(Exit {
        exit_code: LOST_EXIT_CODE,
        finished_at: clock::now(),
        oom_killed: false,
        start_error: None,
        lost: true,
    });
    exit.exit_code = if exit.exit_code == 0 {
        LOST_EXIT_CODE
    } else {
        exit.exit_code
    };
    end(engine, container, &exit, &trouble);
}

/// Publishes an end.
pub fn end(engine: &Arc<Engine>, container: &Arc<Container>, exit: &Exit, trouble: &str) {
    let oom = {
        let mut shared = container.shared();
        shared.phase = Phase::Exited;
        shared.freeze = None;
        shared.pid = 0;
        if let Some(task) = shared.health_task.take() {
            task.abort();
        }
        let life = &mut shared.record.life;
        life.running = false;
        life.exit_code = exit.exit_code;
        life.finished_at = Some(exit.finished_at.clone());
        life.oom_killed |= exit.oom_killed;
        life.error = match &exit.start_error {
            Some((_, message)) => message.clone(),
            None => trouble.to_owned(),
        };
        life.oom_killed
    };
    let again = next_start(container).is_some();
    if again {
        // From here on, so that a stop that comes before the next start is scheduled is a stop of that start.
        container.shared().phase = Phase::Restarting;
    }
    container.publish(|pulse| {
        pulse.up = false;
        pulse.restarting = again;
        pulse.ends += 1;
        pulse.exit_code = exit.exit_code;
    });
    engine.execs.container_ended(engine, &container.id);
    tell_places(engine, container, false);
    let mut attributes = container.attributes();
    attributes.insert("exitCode".into(), exit.exit_code.to_string());
    if let Some(ran) = ran(container) {
        attributes.insert("execDuration".into(), ran.as_secs().to_string());
    }
    engine.events.tell("container", "die", &container.id, attributes);
    tracing::info!(container = %container.id, exit_code = exit.exit_code, oom, "ended");
}

/// Tells which networks and volumes a container has from now on, or has no more.
pub fn tell_places(engine: &Engine, container: &Container, has: bool) {
    let record = container.shared().record.clone();
    let tell_networks = || {
        let what = if has { "connect" } else { "disconnect" };
        for (name, place) in engine.networks.places(&record) {
            engine
                .networks
                .tell_of(engine, what, &container.id, &place.network_id, &name);
        }
    };
    // In dockerd's order.
    if !has {
        tell_networks();
    }
    for mount in record.mounts.iter().filter(|mount| mount.kind == "volume") {
        let mut attributes = BTreeMap::from([
            ("container".to_owned(), container.id.clone()),
            ("driver".to_owned(), mount.driver.clone()),
        ]);
        if has {
            attributes.insert("destination".into(), mount.destination.clone());
            attributes.insert("propagation".into(), mount.propagation.clone());
            attributes.insert("read/write".into(), mount.rw.to_string());
        }
        let what = if has { "mount" } else { "unmount" };
        engine.events.tell("volume", what, &mount.name, attributes);
    }
    if has {
        tell_networks();
    }
}

fn ran(container: &Arc<Container>) -> Option<Duration> {
    let shared = container.shared();
    let begun: Timestamp = shared.record.life.started_at.as_deref()?.parse().ok()?;
    let ended: Timestamp = shared.record.life.finished_at.as_deref()?.parse().ok()?;
    ended.duration_since(begun).try_into().ok()
}

/// How long until its restart policy starts it again; `None` if it does not.
pub fn next_start(container: &Arc<Container>) -> Option<Duration> {
    let ran = ran(container).unwrap_or_default();
    let shared = container.shared();
    let policy = Policy::parse(&shared.record.host_config.restart_policy).ok()?;
    let life = &shared.record.life;
    restart::next_start(
        policy,
        &Ended {
            exit_code: life.exit_code,
            stopped_by_hand: life.stopped_by_hand,
            restarts: life.restarts,
            ran,
            last_wait: shared.last_wait,
        },
    )
}

/// What comes after an end: removal, or a record of it and perhaps the next start.
async fn after_end(engine: &Arc<Engine>, container: &Arc<Container>) {
    let record = container.shared().record.clone();
    if record.host_config.auto_remove {
        let _turn = container.turn().await;
        if container.shared().phase == Phase::Exited {
            remove::remove_in_turn(engine, container, true).await;
        }
        return;
    }
    let _turn = container.turn().await;
    let phase = container.shared().phase;
    if !matches!(phase, Phase::Exited | Phase::Restarting) {
        return;
    }
    match next_start(container) {
        Some(wait) => schedule(engine, container, wait),
        None => {
            container.shared().phase = Phase::Exited;
            container.publish(|pulse| pulse.restarting = false);
        }
    }
    let record = container.shared().record.clone();
    if let Err(error) = engine.store.put(&record).await {
        tracing::error!(container = %container.id, error = chain(&error), "an end cannot be recorded; exit.json has it");
    }
}

/// Starts a container again after a wait, and again if that fails.
pub fn schedule(engine: &Arc<Engine>, container: &Arc<Container>, wait: Duration) {
    let (engine, target) = (engine.clone(), container.clone());
    let task = tokio::spawn(async move {
        tokio::time::sleep(wait).await;
        restart_now(&engine, &target).await;
    });
    {
        let mut shared = container.shared();
        shared.phase = Phase::Restarting;
        shared.last_wait = wait;
        shared.restart_task = Some(task.abort_handle());
    }
    container.publish(|pulse| pulse.restarting = true);
}

/// Whether its restart policy, which may have been changed while it waited, still has it start again.
fn wants_restart(container: &Container) -> bool {
    let policy = Policy::parse(&container.shared().record.host_config.restart_policy);
    policy.is_ok_and(|policy| policy != Policy::No)
}

async fn restart_now(engine: &Arc<Engine>, container: &Arc<Container>) {
    let _turn = container.turn().await;
    if container.shared().phase != Phase::Restarting {
        return;
    }
    // The task must not abort itself when the start takes the handle.
    container.shared().restart_task = None;
    if !wants_restart(container) {
        let record = {
            let mut shared = container.shared();
            shared.phase = Phase::Exited;
            shared.record.life.held = false;
            shared.record.clone()
        };
        container.publish(|pulse| pulse.restarting = false);
        if let Err(error) = engine.store.put(&record).await {
            tracing::error!(container = %container.id, error = chain(&error), "that it is not started again cannot be recorded");
        }
        return;
    }
    let Err(refusal) = start::start_in_turn(engine, container, start::Cause::Policy).await else {
        return;
    };
    if container.shared().phase == Phase::Restarting {
        // Held back.
        return;
    }
    tracing::warn!(container = %container.id, error = %refusal, "a restart failed");
    match next_start(container) {
        Some(wait) => schedule(engine, container, wait),
        None => container.publish(|pulse| pulse.restarting = false),
    }
}

/// Has a container that its restart policy would start, and the owner's trust does not let, wait for the owner. Told and written only when the
/// reason is a new one.
pub async fn hold(engine: &Arc<Engine>, container: &Arc<Container>, why: &str, changes: Receiver<()>) {
    let task = look_later(engine, container, changes);
    let (record, is_told, is_written) = {
        let mut shared = container.shared();
        shared.phase = Phase::Restarting;
        shared.restart_task = Some(task);
        let is_told = std::mem::replace(&mut shared.held_for, why.to_owned()) == why;
        let life = &mut shared.record.life;
        let is_written = life.held && life.error == why;
        life.held = true;
        life.error = why.to_owned();
        (shared.record.clone(), is_told, is_written)
    };
    container.publish(|pulse| pulse.restarting = true);
    if !is_told {
        tracing::warn!(container = %container.id, why, "held back until its image is trusted");
        let mut attributes = container.attributes();
        attributes.insert("reason".into(), why.to_owned());
        engine.events.tell("container", "hold", &container.id, attributes);
    }
    if !is_written && let Err(error) = engine.store.put(&record).await {
        tracing::error!(container = %container.id, error = chain(&error), "what is held back cannot be recorded");
    }
}

/// Starts a container when the owner has changed something, or when it is time to look whether that is so.
fn look_later(engine: &Arc<Engine>, container: &Arc<Container>, mut changes: Receiver<()>) -> AbortHandle {
    let (engine, target) = (engine.clone(), container.clone());
    let task = tokio::spawn(async move {
        // An error would mean that the gate is gone, and with it the daemon.
        drop(tokio::time::timeout(LOOK, changes.changed()).await);
        restart_now(&engine, &target).await;
    });
    task.abort_handle()
}
