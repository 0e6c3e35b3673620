//! What of the device is open: `kakoi_host::lockdown` with hands, a turn, and a watch.
//!
//! | file | owns |
//! |---|---|
//! | `hands.rs` | interfaces, the packet filter, programs and mounts, for the keeper |
//! | `watch.rs` | when it is looked at everything: what tells of changes, a trial's end, a time |
//! | `view.rs` | how it stands, on the wire |
//!
//! Owns the one keeper of the device and the turn to use it. What is declared is read from host.yaml when somebody asks for it, and what is enforced is the
//! keeper's journal: an edited file changes nothing before it is applied. Invariants: nothing is closed that nobody applied; each change that the daemon
//! makes by itself stands in the audit log, and drift is told once.

mod hands;
mod view;
mod watch;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use kakoi_api::host::HostStatus;
use kakoi_host::lockdown::{Keeper, LockdownError, Outcome, Phase, Place};
use kakoi_policy::host::Lockdown as Declared;
use kakoi_trust::audit::Verdict;
use tokio::sync::Notify;

use crate::engine::Engine;
use crate::os::settings;
use crate::refusal::{Answer, Refusal, chain};

pub use watch::begin;

/// The device's interfaces.
#[derive(Default)]
pub struct Lockdown {
    /// Held while a program or a disk is waited for: never on the runtime's thread.
    keeper: Mutex<Option<Keeper>>,
    inner: Mutex<Inner>,
    /// Something changed that the watch has to know.
    kick: Notify,
}

#[derive(Default)]
struct Inner {
    /// What is wrong with the lockdown itself.
    trouble: String,
    /// Drift that was told, by item.
    told: BTreeSet<String>,
}

impl Lockdown {
    /// Nothing is opened yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic while locked")
    }

    /// Does something with the keeper, which is opened by the first.
    fn with<T>(&self, engine: &Engine, act: impl FnOnce(&mut Keeper) -> Answer<T>) -> Answer<T> {
        let mut held = self.keeper.lock().expect("no panic while locked");
        if held.is_none() {
            let hands = hands::Hands::new(engine.networks.clone());
            let opened = Keeper::open(
                Place::new(PathBuf::from("/")),
                engine.paths.root.clone(),
                Box::new(hands),
                engine.networks.scope().group(),
            );
            match opened {
                Ok(keeper) => *held = Some(keeper),
                Err(error) => {
                    let said = chain(&error);
                    self.inner().trouble.clone_from(&said);
                    return Err(Refusal::failed(said, error));
                }
            }
        }
        act(held.as_mut().expect("it was opened"))
    }
}

fn refusal(error: LockdownError) -> Refusal {
    match error {
        LockdownError::NoTrial | LockdownError::NotEnforced => Refusal::conflict(error.to_string()),
        LockdownError::TooLong => Refusal::bad(error.to_string()),
        error => Refusal::failed(chain(&error), error),
    }
}

/// What host.yaml declares now.
fn declared(engine: &Engine) -> Answer<Option<Declared>> {
    let host = settings::read(&engine.paths.config).map_err(|error| Refusal::conflict(chain(&error)))?;
    Ok(host.lockdown)
}

fn need(declared: Option<Declared>) -> Answer<Declared> {
    declared.ok_or_else(|| {
        Refusal::conflict("no interfaces are declared: describe what is open in host.yaml (lockdown:)")
    })
}

/// How everything stands, by what is enforced; where nothing is, by host.yaml.
pub fn status(engine: &Engine) -> Answer<HostStatus> {
    let written = declared(engine)?;
    engine.lockdown.with(engine, |keeper| {
        let by = keeper.journal().declared.clone().or_else(|| written.clone());
        Ok(view::status(engine, keeper, written.as_ref(), by.as_ref()))
    })
}

/// How everything stands by host.yaml, and what an apply would do.
pub fn plan(engine: &Engine) -> Answer<HostStatus> {
    let written = need(declared(engine)?)?;
    engine.lockdown.with(engine, |keeper| {
        Ok(view::status(engine, keeper, Some(&written), Some(&written)))
    })
}

/// Has host.yaml hold.
pub fn apply(engine: &Engine, trial: Option<Duration>) -> Answer<HostStatus> {
    let written = need(declared(engine)?)?;
    act(engine, "apply", |keeper| keeper.apply(&written, trial))
}

/// Keeps what is on trial.
pub fn confirm(engine: &Engine) -> Answer<HostStatus> {
    act(engine, "confirm", Keeper::confirm)
}

/// Puts everything back.
pub fn release(engine: &Engine) -> Answer<HostStatus> {
    act(engine, "release", Keeper::release)
}

fn act(
    engine: &Engine,
    what: &str,
    act: impl FnOnce(&mut Keeper) -> Result<Vec<Outcome>, LockdownError>,
) -> Answer<HostStatus> {
    let written = declared(engine)?;
    let status = engine.lockdown.with(engine, |keeper| {
        let outcomes = act(keeper).map_err(refusal)?;
        let by = keeper.journal().declared.clone();
        let mut status = view::status(engine, keeper, written.as_ref(), by.as_ref());
        status.steps = outcomes.iter().map(view::outcome).collect();
        Ok(status)
    })?;
    let attributes = [("phase".to_owned(), status.phase.clone())];
    engine
        .events
        .tell("host", what, "lockdown", attributes.into_iter().collect());
    engine.lockdown.kick.notify_one();
    Ok(status)
}

/// Takes up what the journal says, or looks at everything: ends what is over, corrects what is to be, and tells the rest once.
fn round(engine: &Engine, is_first: bool) -> Answer<()> {
    engine.lockdown.with(engine, |keeper| {
        let before = keeper.journal().phase.clone();
        let outcomes = match is_first {
            true => keeper.begin(),
            false => keeper.look(),
        };
        let outcomes = outcomes.map_err(refusal)?;
        if matches!(before, Phase::Trial { .. }) && keeper.journal().phase != before {
            engine.audit.note_own(
                "host trial",
                Verdict::Allowed,
                "nobody confirmed it: it went back",
            );
            tell(engine, "return", "lockdown", "nobody confirmed the trial");
        }
        for outcome in &outcomes {
            note(engine, outcome);
        }
        if let Some(declared) = keeper.journal().declared.clone() {
            tell_drift(engine, &keeper.plan(&declared).items);
        }
        engine.lockdown.inner().trouble.clear();
        Ok(())
    })
}

fn tell(engine: &Engine, what: &str, item: &str, why: &str) {
    let attributes = [("why".to_owned(), why.to_owned())];
    engine
        .events
        .tell("host", what, item, attributes.into_iter().collect());
}

/// What the daemon turned by itself. What fails the same way again is told once.
fn note(engine: &Engine, outcome: &Outcome) {
    let step = &outcome.step;
    let what = format!("host correct {}: {} to {}", step.item, step.from, step.to);
    match &outcome.error {
        None => {
            engine.audit.note_own(&what, Verdict::Allowed, "");
            tell(
                engine,
                "correct",
                &step.item,
                &format!("{} to {}", step.from, step.to),
            );
        }
        Some(error) => {
            let is_new = engine.lockdown.inner().told.insert(format!("{what} {error}"));
            if is_new {
                tracing::warn!(
                    item = step.item,
                    error,
                    "an interface of the device cannot be closed"
                );
                engine.audit.note_own(&what, Verdict::Failed, error);
            }
        }
    }
}

fn tell_drift(engine: &Engine, items: &[kakoi_host::lockdown::Item]) {
    let drifts = items
        .iter()
        .filter(|item| item.verdict == kakoi_host::lockdown::Verdict::Drift);
    let now: BTreeSet<String> = drifts.clone().map(|item| item.name.clone()).collect();
    let fresh: Vec<_> = {
        let mut inner = engine.lockdown.inner();
        // What came right again is told anew when it goes wrong again.
        inner
            .told
            .retain(|told| now.contains(told) || now.iter().any(|name| told.contains(name.as_str())));
        drifts
            .filter(|item| inner.told.insert(item.name.clone()))
            .collect()
    };
    for item in fresh {
        let why = format!("{}, declared: {}", item.actual, item.declared);
        engine
            .audit
            .note_own(&format!("host drift {}", item.name), Verdict::Failed, &why);
        tell(engine, "drift", &item.name, &why);
    }
}

/// Whether something is enforced, how often it is looked at, and how long a trial lasts.
fn pace(engine: &Arc<Engine>) -> Answer<Option<Duration>> {
    engine.lockdown.with(engine, |keeper| {
        let every = match (&keeper.journal().phase, &keeper.journal().declared) {
            (Phase::Off, _) => return Ok(None),
            (_, Some(declared)) => declared.check_every_ms,
            // What could not be put back is tried again.
            (_, None) => 60_000,
        };
        // A trial that is over is ended by a look just behind its end.
        let left = keeper
            .trial_left_ms()
            .map_or(every, |left| left.saturating_add(10));
        Ok(Some(Duration::from_millis(every.min(left))))
    })
}
