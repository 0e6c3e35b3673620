//! Freezing and thawing a container: on a person's behalf, and for as long as a commit reads it.
//!
//! What a commit freezes thaws by itself, whatever becomes of the commit and of this daemon: a file in the container's run-time folder, made before the
//! freeze and removed after the thaw, tells the next daemon. Invariant: the file is there only while a commit alone keeps the container frozen. A
//! person who pauses, unpauses, stops or kills it meanwhile has the last word, and the file goes. It goes with its folder at the end of the run.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kakoi_container::frames::Request;

use super::container::{Container, Phase};
use super::stop::{done, not_running};
use crate::engine::Engine;
use crate::refusal::{Answer, Refusal, chain};
use crate::shim;

/// The file that says that a commit keeps a container frozen.
const MARK: &str = "frozen-by-commit";

/// How long a daemon that ends waits for one container to thaw: a message to a shim and its answer, and perhaps a stop that is under way.
const THAW_WAIT: Duration = Duration::from_secs(5);

/// What commits keep frozen.
#[derive(Clone, Copy, Debug)]
pub struct Freeze {
    /// Tells it from one of an earlier run, or before a person's word.
    serial: u64,
    /// Commits that still read.
    commits: u32,
}

/// One commit's share of a freeze.
#[derive(Debug)]
#[must_use = "the container stays frozen until it is released"]
pub struct Held {
    serial: u64,
}

static SERIAL: AtomicU64 = AtomicU64::new(1);

/// Freezes every process.
pub async fn pause(engine: &Arc<Engine>, container: &Arc<Container>) -> Answer<()> {
    let _turn = container.turn().await;
    let is_taken_over = {
        let shared = container.shared();
        match shared.phase {
            Phase::Running => false,
            Phase::Paused if shared.freeze.is_some() => true,
            Phase::Paused => {
                return Err(Refusal::conflict(format!(
                    "container {} is already paused",
                    container.id
                )));
            }
            _ => return Err(not_running(container)),
        }
    };
    // Before the freeze: one that a daemon before could not remove would undo this pause.
    unmark(engine, container)?;
    container.shared().freeze = None;
    if !is_taken_over {
        freeze(engine, container).await?;
    }
    tell(engine, container, "pause");
    Ok(())
}

/// Thaws every process.
pub async fn unpause(engine: &Arc<Engine>, container: &Arc<Container>) -> Answer<()> {
    let _turn = container.turn().await;
    if container.shared().phase != Phase::Paused {
        return Err(Refusal::mistaken(format!(
            "Container {} is not paused",
            container.id
        )));
    }
    thaw(engine, container).await?;
    tell(engine, container, "unpause");
    Ok(())
}

/// Freezes a container for a commit. `None` where nothing runs that could write, or a person has paused it: it stays as it is.
pub async fn hold(engine: &Arc<Engine>, container: &Arc<Container>) -> Answer<Option<Held>> {
    let _turn = container.turn().await;
    {
        let mut shared = container.shared();
        match (shared.phase, &mut shared.freeze) {
            (Phase::Running, _) => {}
            (Phase::Paused, Some(freeze)) => {
                freeze.commits += 1;
                return Ok(Some(Held {
                    serial: freeze.serial,
                }));
            }
            _ => return Ok(None),
        }
    }
    File::create(mark(engine, container))
        .map_err(|cause| Refusal::failed("that the container is to thaw cannot be noted", cause))?;
    if let Err(refusal) = freeze(engine, container).await {
        unmark(engine, container)?;
        // What has ended meanwhile writes no more.
        return if container.shared().phase == Phase::Running {
            Err(refusal)
        } else {
            Ok(None)
        };
    }
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    {
        let mut shared = container.shared();
        if shared.phase == Phase::Paused {
            shared.freeze = Some(Freeze { serial, commits: 1 });
        }
    }
    tell(engine, container, "pause");
    Ok(Some(Held { serial }))
}

/// Ends a commit's share: the last one thaws, unless a person has had a word meanwhile.
pub async fn release(engine: &Arc<Engine>, container: &Arc<Container>, held: Held) -> Answer<()> {
    let is_ours = |freeze: &Freeze| freeze.serial == held.serial;
    // Without its turn, which a stop that has thawed it may have for long.
    if !container.shared().freeze.as_ref().is_some_and(is_ours) {
        return Ok(());
    }
    let _turn = container.turn().await;
    {
        let mut shared = container.shared();
        let Some(freeze) = shared.freeze.as_mut().filter(|freeze| is_ours(freeze)) else {
            return Ok(());
        };
        freeze.commits -= 1;
        if freeze.commits > 0 {
            return Ok(());
        }
    }
    thaw(engine, container).await?;
    tell(engine, container, "unpause");
    Ok(())
}

/// Thaws what a commit of the daemon before kept frozen. Whether it is frozen now.
pub async fn recall(engine: &Arc<Engine>, container: &Arc<Container>, is_frozen: bool) -> bool {
    if !mark(engine, container).exists() {
        return is_frozen;
    }
    if is_frozen {
        let run_dir = engine.paths.run_dir(&container.id);
        let answer = shim::ask(&run_dir, &Request::Unpause).await;
        if let Err(refusal) = done(container, answer) {
            tracing::error!(container = %container.id, error = chain(&refusal), "what a commit froze does not thaw");
            return true;
        }
        tracing::warn!(container = %container.id, "thawed: a commit was cut off");
    }
    if let Err(refusal) = unmark(engine, container) {
        tracing::warn!(container = %container.id, error = chain(&refusal), "ignoring the mark of a commit");
    }
    false
}

/// Thaws whatever commits of this daemon keep frozen: it ends, and who knows when the next one comes.
pub async fn let_go(engine: &Arc<Engine>) {
    for container in engine.containers.all() {
        let freeze = container.shared().freeze;
        let Some(Freeze { serial, .. }) = freeze else {
            continue;
        };
        if let Some(freeze) = &mut container.shared().freeze {
            freeze.commits = 1;
        }
        let thawed = tokio::time::timeout(THAW_WAIT, release(engine, &container, Held { serial })).await;
        match thawed {
            Ok(Ok(())) => {}
            Ok(Err(refusal)) => {
                tracing::error!(container = %container.id, error = chain(&refusal), "what a commit froze does not thaw");
            }
            Err(_) => tracing::error!(container = %container.id, "what a commit froze does not thaw in time"),
        }
    }
}

/// Thaws a container whose turn the caller has.
pub(super) async fn thaw(engine: &Arc<Engine>, container: &Arc<Container>) -> Answer<()> {
    match shim::ask(&engine.paths.run_dir(&container.id), &Request::Unpause).await {
        Err(_) if !container.pulse().borrow().up => return Ok(()),
        answer => done(container, answer)?,
    }
    {
        let mut shared = container.shared();
        shared.freeze = None;
        if shared.phase == Phase::Paused {
            shared.phase = Phase::Running;
        }
    }
    if let Err(refusal) = unmark(engine, container) {
        // It runs, as was asked; whoever pauses it next is told.
        tracing::warn!(container = %container.id, error = chain(&refusal), "ignoring the mark of a commit");
    }
    Ok(())
}

async fn freeze(engine: &Arc<Engine>, container: &Arc<Container>) -> Answer<()> {
    let run_dir = engine.paths.run_dir(&container.id);
    done(container, shim::ask(&run_dir, &Request::Pause).await)?;
    let mut shared = container.shared();
    if shared.phase == Phase::Running {
        shared.phase = Phase::Paused;
    }
    Ok(())
}

fn mark(engine: &Engine, container: &Container) -> PathBuf {
    engine.paths.run_dir(&container.id).join(MARK)
}

fn unmark(engine: &Engine, container: &Container) -> Answer<()> {
    remove(&mark(engine, container))
        .map_err(|cause| Refusal::failed("the mark of a commit cannot be removed", cause))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}

fn tell(engine: &Engine, container: &Container, action: &str) {
    engine
        .events
        .tell("container", action, &container.id, container.attributes());
}
