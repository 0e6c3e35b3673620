//! Removing a container.
//!
//! The intent (`removing`) is written before the first file goes and the record goes last, so that a daemon that is killed between the two
//! leaves work that the next one finishes.

use std::path::Path;
use std::sync::Arc;

use kakoi_container::discard::{remove_tree, set_aside};

use super::container::{Container, Phase};
use super::stop;
use crate::engine::Engine;
use crate::refusal::{Answer, Refusal, chain};
use crate::shim;
use crate::state::Record;

/// Removes a container on a person's behalf.
pub async fn remove(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    force: bool,
    volumes: bool,
) -> Answer<()> {
    let turn = container.turn().await;
    let (phase, name) = {
        let shared = container.shared();
        (shared.phase, shared.record.name.clone())
    };
    if container.pulse().borrow().gone {
        return Err(Refusal::missing(format!("No such container: {}", container.id)));
    }
    let refuse = |why: &str| {
        Err(Refusal::conflict(format!(
            "cannot remove container \"{name}\": {why}"
        )))
    };
    match phase {
        Phase::Paused if !force => return refuse("container is paused and must be unpaused first"),
        Phase::Running if !force => {
            return refuse("container is running: stop the container before removing or force remove");
        }
        Phase::Restarting if !force => {
            return refuse("container is restarting: stop the container before removing or force remove");
        }
        _ => {}
    }
    {
        let mut shared = container.shared();
        shared.record.life.stopped_by_hand = true;
        if let Some(task) = shared.restart_task.take() {
            task.abort();
        }
    }
    if phase.is_up() {
        stop::kill_and_wait(engine, container).await?;
    }
    if container.pulse().borrow().shim {
        container.until(|pulse| !pulse.shim).await;
    }
    remove_in_turn(engine, container, volumes).await;
    drop(turn);
    let pulse = container.pulse();
    let pulse = pulse.borrow();
    if pulse.gone {
        return Ok(());
    }
    Err(Refusal::broken(format!(
        "container {name} could not be removed: {}",
        pulse.trouble
    )))
}

/// Removes every container that is down and fits.
pub async fn prune(engine: &Arc<Engine>, fits: impl Fn(&Record) -> bool) -> (Vec<String>, i64) {
    let (mut gone, mut bytes) = (Vec::new(), 0);
    for container in engine.containers.all() {
        let is_down = matches!(
            container.shared().phase,
            Phase::Created | Phase::Exited | Phase::Dead
        );
        if !is_down || !fits(&container.shared().record) {
            continue;
        }
        let size = crate::volumes::tree_bytes(&engine.paths.state_dir(&container.id).join("upper"));
        if remove(engine, &container, false, false).await.is_ok() {
            gone.push(container.id.clone());
            bytes += size;
        }
    }
    (gone, bytes)
}

/// Removes a container that removes itself and is down.
pub async fn remove_ended(engine: &Arc<Engine>, container: &Arc<Container>) {
    let _turn = container.turn().await;
    let is_down = matches!(container.shared().phase, Phase::Created | Phase::Exited);
    if is_down && !container.pulse().borrow().gone {
        remove_in_turn(engine, container, true).await;
    }
}

/// Removes a container that is down and whose turn the caller has; the pulse tells how it went.
pub async fn remove_in_turn(engine: &Arc<Engine>, container: &Arc<Container>, volumes: bool) {
    container.shared().phase = Phase::Removing;
    match take_away(engine, container, volumes).await {
        Ok(()) => {
            engine.containers.remove(&container.id);
            engine.execs.forget_container(&container.id);
            engine.denials.forget(&container.id);
            if let Some(slot) = container.shared().record.id_slot {
                engine.ids.release(slot);
            }
            container.publish(|pulse| pulse.gone = true);
            engine
                .events
                .tell("container", "destroy", &container.id, container.attributes());
            crate::serve::images::release(engine).await;
        }
        Err(refusal) => {
            tracing::error!(container = %container.id, error = chain(&refusal), "removing failed");
            container.shared().phase = Phase::Dead;
            container.publish(|pulse| pulse.trouble = refusal.message.clone());
        }
    }
}

async fn take_away(engine: &Arc<Engine>, container: &Arc<Container>, volumes: bool) -> Answer<()> {
    let record = {
        let mut shared = container.shared();
        shared.record.life.removing = true;
        shared.listener = None;
        shared.record.clone()
    };
    let is_ephemeral = record.host_config.auto_remove;
    if !is_ephemeral {
        engine
            .store
            .put(&record)
            .await
            .map_err(|cause| Refusal::failed("the removal cannot be recorded", cause))?;
    }
    let state_dir = engine.paths.state_dir(&record.id);
    let run_dir = engine.paths.run_dir(&record.id);
    remove_folders(engine, &state_dir, &run_dir).await?;
    if volumes {
        engine.volumes.remove_anonymous(engine, &record).await;
    }
    engine
        .store
        .delete(&record)
        .await
        .map_err(|cause| Refusal::failed("the removal cannot be recorded", cause))?;
    Ok(())
}

/// Takes a container's folders away.
async fn remove_folders(engine: &Arc<Engine>, state_dir: &Path, run_dir: &Path) -> Answer<()> {
    let has_leftovers = run_dir.join("runtime").exists();
    if has_leftovers && state_dir.join("plan.json").exists() {
        shim::clean(&engine.shim, state_dir)
            .await
            .map_err(|cause| Refusal::failed("cleaning up before the removal failed", cause))?;
    }
    let mut gone = Vec::new();
    for folder in [state_dir, run_dir] {
        let aside = set_aside(folder)
            .map_err(|cause| Refusal::failed(format!("removing its files failed: {cause}"), cause))?;
        gone.extend(aside);
    }
    // Nobody waits for the files: the container is gone, and what a crash leaves of them is swept at the next start.
    tokio::task::spawn_blocking(move || {
        for folder in gone {
            if let Err(cause) = remove_tree(&folder) {
                tracing::warn!(folder = %folder.display(), %cause, "ignoring files that stay until the next start");
            }
        }
    });
    Ok(())
}
