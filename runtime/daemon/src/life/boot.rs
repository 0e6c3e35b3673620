//! Taking over what the daemon before left: living shims, dead ones, half-made and half-removed containers.
//!
//! Three sources: the records, the durable folders, the run-time folders. A folder without a record was never confirmed to anybody, or its removal was
//! begun: it goes, unless a shim lives that has it. A record with a living shim is adopted; one without is down, and its restart policy decides.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use kakoi_container::discard::remove_tree;
use kakoi_container::frames::Exit;

use super::container::{Container, Phase};
use super::{freeze, health, remove, watch};
use crate::check;
use crate::clock;
use crate::engine::Engine;
use crate::refusal::chain;
use crate::restart::{self, Policy};
use crate::secrets::give;
use crate::shim::{self, Word};
use crate::state::{Record, copies};

/// How long a shim may take to tell its state: it is a local socket and one thread, so this is a machine under water.
const SHIM_WAIT: std::time::Duration = std::time::Duration::from_secs(10);

/// Takes over every container. Fails for none: what cannot be taken over is logged and left as `dead`. Where the records were damaged,
/// now or at an earlier start (`is_damaged`), a folder without one may be somebody's container: it stays until a person has a repair made.
pub async fn take_over(engine: &Arc<Engine>, records: Vec<Record>, is_damaged: bool) {
    let mut known = BTreeSet::new();
    engine
        .networks
        .recall(engine, records.iter().map(|record| record.id.as_str()));
    for record in records {
        known.insert(record.id.clone());
        take_over_one(engine, record).await;
    }
    if !is_damaged {
        sweep(engine, &known).await;
    }
    let settling = engine.clone();
    let settled = tokio::task::spawn_blocking(move || settling.networks.settle()).await;
    match settled {
        Ok(Ok(())) => {}
        Ok(Err(refusal)) => tracing::error!(error = chain(&refusal), "networks cannot be taken over"),
        Err(cause) => tracing::error!(%cause, "taking over networks broke off"),
    }
    for container in engine.containers.all() {
        start_again(engine, &container).await;
    }
}

async fn take_over_one(engine: &Arc<Engine>, record: Record) {
    let id = record.id.clone();
    let state_dir = engine.paths.state_dir(&id);
    let run_dir = engine.paths.run_dir(&id);
    if let Some(slot) = record.id_slot {
        engine.ids.occupy(slot);
    }
    // The record of one that removes itself is not written again for its removal: without its plan it was being removed.
    let removing =
        record.life.removing || (record.host_config.auto_remove && !state_dir.join("plan.json").exists());
    let phase = if record.life.started_at.is_some() {
        Phase::Exited
    } else {
        Phase::Created
    };
    let container = Arc::new(Container::new(record, phase));
    engine.containers.insert(container.clone());
    let living = tokio::time::timeout(SHIM_WAIT, ask_state(&run_dir))
        .await
        .unwrap_or_else(|_| {
            tracing::error!(container = %id, "its shim does not answer");
            None
        });
    if let Some((events, state)) = living {
        engine.networks.adopt(engine, &id).await;
        adopt(engine, &container, events, state).await;
    } else {
        settle(engine, &container, &state_dir, &run_dir).await;
        engine.networks.leave(engine, &id).await;
    }
    if !container.shared().record.secrets.is_empty() {
        give::sweep(&run_dir);
    }
    if removing {
        if let Err(refusal) = remove::remove(engine, &container, true, true).await {
            tracing::error!(container = %id, error = chain(&refusal), "a removal that was begun cannot be finished");
        }
    } else if container.shared().record.host_config.auto_remove && !container.pulse().borrow().shim {
        let has_run = container.shared().record.life.finished_at.is_some();
        if has_run {
            remove::remove_ended(engine, &container).await;
        }
    }
}

/// Whether a shim lives, and how its container stands.
async fn ask_state(run_dir: &Path) -> Option<(shim::Watch, kakoi_container::frames::State)> {
    let mut events = shim::watch(run_dir).await.ok()?;
    match events.next().await {
        Ok(Some(Word::State(state))) => Some((events, state)),
        _ => None,
    }
}

async fn adopt(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    events: shim::Watch,
    state: kakoi_container::frames::State,
) {
    // Before health is tested, which a frozen app fails.
    let is_frozen = freeze::recall(engine, container, state.paused).await;
    {
        let mut shared = container.shared();
        shared.phase = if is_frozen { Phase::Paused } else { Phase::Running };
        shared.pid = state.pid;
        shared.record.life.running = true;
        shared.record.life.started_at = Some(state.started_at);
    }
    container.publish(|pulse| {
        pulse.up = true;
        pulse.shim = true;
    });
    tracing::info!(container = %container.id, pid = state.pid, "adopted");
    watch::follow(engine.clone(), container.clone(), events, None);
    health::begin(engine, container);
}

/// Brings the record of a container without a living shim to what is true.
async fn settle(engine: &Arc<Engine>, container: &Arc<Container>, state_dir: &Path, run_dir: &Path) {
    let was_running = container.shared().record.life.running;
    // A run-time folder with anything of a run in it: the shim was killed, or the machine stayed up while it ended.
    let has_leftovers = run_dir.join("runtime").exists() || run_dir.join("shim.sock").exists();
    if has_leftovers && let Err(error) = shim::clean(&engine.shim, state_dir).await {
        tracing::error!(container = %container.id, error = chain(&error), "cleaning up after a dead shim failed");
    }
    let exit = shim::read_exit(state_dir);
    if !was_running && (exit.is_none() || container.shared().record.life.finished_at.is_some()) {
        return;
    }
    let exit = exit.unwrap_or(Exit {
        exit_code: 137,
        finished_at: clock::now(),
        oom_killed: false,
        start_error: None,
        lost: true,
    });
    let record = {
        let mut shared = container.shared();
        shared.phase = Phase::Exited;
        let life = &mut shared.record.life;
        life.exit_code = exit.exit_code;
        life.finished_at = Some(exit.finished_at);
        life.oom_killed = exit.oom_killed;
        if let Some((_, message)) = exit.start_error {
            life.error = message;
        }
        shared.record.clone()
    };
    container.publish(|pulse| pulse.exit_code = exit.exit_code);
    // `running` stays set in memory: the restart policy asks whether it was.
    let mut settled = record;
    settled.life.running = false;
    if let Err(error) = engine.store.put(&settled).await {
        tracing::error!(container = %container.id, error = chain(&error), "an end cannot be recorded");
    }
}

/// Applies the restart policy of a container that is down.
async fn start_again(engine: &Arc<Engine>, container: &Arc<Container>) {
    let wait = {
        let mut shared = container.shared();
        // One that was held back may never have run.
        if shared.phase != Phase::Exited && !shared.record.life.held {
            return;
        }
        let was_running = std::mem::replace(&mut shared.record.life.running, false);
        let life = &shared.record.life;
        let Ok(policy) = Policy::parse(&shared.record.host_config.restart_policy) else {
            return;
        };
        let is_held = life.held && policy != Policy::No;
        is_held || restart::starts_at_boot(policy, life.exit_code, was_running, life.stopped_by_hand)
    };
    if wait {
        watch::schedule(engine, container, std::time::Duration::ZERO);
    }
}

/// Removes folders that no record speaks of.
async fn sweep(engine: &Arc<Engine>, known: &BTreeSet<String>) {
    let mut strange = BTreeSet::new();
    for folder in [
        engine.paths.root.join("containers"),
        engine.paths.run.join("containers"),
    ] {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        strange.extend(
            entries
                .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
                .filter(|name| name != copies::LOST_AND_FOUND && !known.contains(name)),
        );
    }
    for id in strange {
        let state_dir = engine.paths.state_dir(&id);
        let run_dir = engine.paths.run_dir(&id);
        // How its record was lost nobody knows: what runs is not killed for it.
        if let Some(remedy) = check::lives(engine, &id).await {
            tracing::error!(container = %id, remedy, "a container runs that has no record, leaving it");
            continue;
        }
        tracing::info!(container = %id, "sweeping a folder without a record");
        if run_dir.join("runtime").exists()
            && state_dir.join("plan.json").exists()
            && let Err(error) = shim::clean(&engine.shim, &state_dir).await
        {
            tracing::error!(container = %id, error = chain(&error), "cleaning up failed, leaving its folders");
            continue;
        }
        for path in [state_dir, run_dir] {
            if let Err(cause) = remove_tree(&path) {
                tracing::error!(path = %path.display(), %cause, "a folder without a record cannot be removed");
            }
        }
    }
}
