//! Whether the device is well: on trial it is committed for it, or given up for want of it, and its watchdog is fed.
//!
//! The decisions are pure ([`next`], [`unwell`]'s words aside). One task does both, and ends where there is neither a trial nor a watchdog, so that an idle device sleeps. A daemon
//! that stops leaves the watchdog running: the next one goes on feeding it, and where none comes the device is reset.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kakoi_host::slots::Reason;
use kakoi_host::watchdog::{Signs, Verdict, Watchdog, judge};
use kakoi_policy::host::{Commit, Slots, Watchdog as WatchdogRule};

use super::{commit, raise_floors, restart_if_due};
use crate::clock;
use crate::engine::Engine;
use crate::refusal::chain;
use crate::supervise::request;
use crate::supervise::table::{Phase, State};

/// Between two looks at a device on trial.
const LOOK: Duration = Duration::from_secs(1);
/// Parts of the watchdog's time limit after which it is fed: one meal may be late without harm.
const MEALS: u64 = 4;

/// What is to be done about a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Next {
    Wait,
    Commit,
    GiveUp(Reason),
}

/// Decides: how long the daemon has run, how long all has been well, and what is not.
fn next(slots: &Slots, up: Duration, well: Option<Duration>, unwell: &[String]) -> Next {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let is_well = well.is_some_and(|time| milliseconds(time) >= slots.well_for_ms);
    match slots.commit {
        Commit::Well if is_well => return Next::Commit,
        _ if milliseconds(up) < slots.give_up_after_ms => return Next::Wait,
        _ => {}
    }
    Next::GiveUp(match unwell {
        [] if slots.commit == Commit::Manual => {
            Reason::Unwell("nobody committed it in time (host.yaml, slots: commit: manual)".to_owned())
        }
        [] => Reason::Unwell("it was not well for long enough".to_owned()),
        some => Reason::Unwell(some.join("; ")),
    })
}

/// What is not well among apps: all of them, or those that are named.
fn unwell(engine: &Engine, require: Option<&[String]>) -> Vec<String> {
    let all = engine.apps.all();
    let absent = require
        .unwrap_or_default()
        .iter()
        .filter(|name| !all.iter().any(|(known, _)| known == *name));
    let mut found: Vec<String> = absent.map(|name| format!("{name} is not there")).collect();
    for (name, state) in &all {
        if require.is_some_and(|names| !names.contains(name)) {
            continue;
        }
        if let Some(why) = fault(engine, name, state) {
            found.push(format!("{name}: {why}"));
        }
    }
    found
}

/// Why an app is not as it should be.
fn fault(engine: &Engine, name: &str, state: &State) -> Option<String> {
    if !state.trouble.is_empty() {
        return Some(state.trouble.clone());
    }
    if state.phase != Phase::Steady {
        return Some(format!("it is in its {}", state.phase.word()));
    }
    let current = state.current.as_ref()?;
    let container = request::container_name(name, current.slot);
    let Ok(container) = engine.containers.find(&container) else {
        return Some("it has no container".to_owned());
    };
    let shared = container.shared();
    if !shared.phase.is_up() {
        return Some(format!("it is {}", shared.phase.word()));
    }
    let health = shared.health.as_ref().map(|health| health.status.as_str());
    match health {
        None | Some("" | "none" | "healthy") => None,
        Some(word) => Some(format!("it is {word}")),
    }
}

/// Whether the disk of the records takes writes: one whose file system failed is mounted read-only.
fn is_writable(root: &Path) -> bool {
    kakoi_sys::system::is_read_only(root).is_ok_and(|is_read_only| !is_read_only)
}

/// Takes over the slots and the watchdog from whoever was before.
pub fn begin(engine: &Arc<Engine>) {
    let host = &engine.os.host;
    if host.slots.is_none() && host.watchdog.is_none() {
        return;
    }
    let engine = engine.clone();
    tokio::spawn(async move {
        let mut dog = engine.os.host.watchdog.clone().map(Dog::new);
        if engine.os.host.slots.is_some() {
            // A boot loader's program may take its time, and the watchdog does not wait for it.
            let opened = engine.clone();
            let opening = tokio::task::spawn_blocking(move || open(&opened));
            tokio::pin!(opening);
            loop {
                tokio::select! {
                    _ = &mut opening => break,
                    () = pause(&dog, false) => feed(&engine, &mut dog),
                }
            }
        }
        watch(&engine, dog).await;
    });
}

fn open(engine: &Engine) {
    if let Err(refusal) = engine.os.open() {
        tracing::error!(error = chain(&refusal), "the slots cannot be used");
        return;
    }
    if let Err(refusal) = raise_floors(engine) {
        tracing::error!(
            error = chain(&refusal),
            "what was committed does not bound what comes"
        );
    }
    restart_if_due(engine);
}

async fn watch(engine: &Arc<Engine>, mut dog: Option<Dog>) {
    let begun = Instant::now();
    let mut well_since: Option<Instant> = None;
    loop {
        feed(engine, &mut dog);
        let is_on_trial = engine.os.inner().is_on_trial;
        if is_on_trial && let Ok(slots) = engine.os.slots() {
            let mut found = unwell(engine, slots.require.as_deref());
            found.extend(dog.as_ref().and_then(Dog::complaint));
            let now = Instant::now();
            well_since = found.is_empty().then(|| well_since.unwrap_or(now));
            engine.os.inner().waits_for.clone_from(&found);
            let well = well_since.map(|since| now - since);
            match next(slots, now - begun, well, &found) {
                Next::Wait => {}
                decided => act(engine, decided).await,
            }
        }
        if !is_on_trial && dog.is_none() {
            return;
        }
        pause(&dog, is_on_trial).await;
    }
}

async fn act(engine: &Arc<Engine>, decided: Next) {
    let engine = engine.clone();
    let done = tokio::task::spawn_blocking(move || match decided {
        Next::Commit => commit(&engine),
        Next::GiveUp(reason) => {
            tracing::error!(%reason, "the operating system on trial is given up");
            engine.os.with(|device| device.give_up(reason, &clock::now()))?;
            restart_if_due(&engine);
            Ok(())
        }
        Next::Wait => Ok(()),
    });
    match done.await {
        Ok(Ok(())) => {}
        Ok(Err(refusal)) => tracing::error!(error = chain(&refusal), "the operating system on trial"),
        Err(error) => tracing::error!(error = chain(&error), "the operating system on trial"),
    }
}

async fn pause(dog: &Option<Dog>, is_on_trial: bool) {
    let meal = dog.as_ref().map_or(LOOK, |dog| dog.rule_meal());
    tokio::time::sleep(if is_on_trial { meal.min(LOOK) } else { meal }).await;
}

fn feed(engine: &Engine, dog: &mut Option<Dog>) {
    let Some(dog) = dog else { return };
    let said = dog.tend(engine);
    let mut inner = engine.os.inner();
    if inner.watchdog != said {
        tracing::info!(watchdog = said, "the watchdog");
        inner.watchdog = said;
    }
}

/// The watchdog with what it is fed by.
struct Dog {
    rule: WatchdogRule,
    open: Option<Watchdog<std::fs::File>>,
    /// When the event loop last came by.
    turned: Instant,
    verdict: Verdict,
    fault: String,
}

impl Dog {
    fn new(rule: WatchdogRule) -> Self {
        Self {
            rule,
            open: None,
            turned: Instant::now(),
            verdict: Verdict::Well,
            fault: String::new(),
        }
    }

    fn rule_meal(&self) -> Duration {
        Duration::from_millis(self.rule.timeout_s * 1000 / MEALS)
    }

    /// What it has against a commit.
    fn complaint(&self) -> Option<String> {
        if !self.fault.is_empty() {
            return Some(format!("the watchdog: {}", self.fault));
        }
        (self.verdict != Verdict::Well).then(|| format!("the watchdog is hungry: {}", spoken(&self.verdict)))
    }

    /// Opens it where it is not, and feeds it where all is well; says how it stands.
    fn tend(&mut self, engine: &Engine) -> String {
        if self.open.is_none() {
            let seconds = i32::try_from(self.rule.timeout_s).unwrap_or(i32::MAX);
            // Held by whoever armed it before this daemon: tried again until that one lets go.
            match Watchdog::open(Path::new(&self.rule.device), seconds) {
                Ok(dog) => {
                    self.open = Some(dog);
                    self.fault.clear();
                }
                Err(error) => {
                    self.fault = chain(&error);
                    self.turned = Instant::now();
                    return format!("unusable: {}", self.fault);
                }
            }
        }
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let signs = Signs {
            turned_ms_ago: milliseconds(self.turned.elapsed()),
            turn_ms_max: self.rule.timeout_s * 1000 * (MEALS - 1) / MEALS,
            store_is_writable: is_writable(&engine.paths.root),
            unwell_apps: match self.rule.require.as_slice() {
                [] => Vec::new(),
                names => unwell(engine, Some(names)),
            },
        };
        self.turned = Instant::now();
        self.verdict = judge(&signs);
        let fed = self.open.as_mut().map(|dog| dog.feed(&self.verdict));
        match fed {
            Some(Ok(true)) => "fed".to_owned(),
            Some(Err(error)) => {
                self.open = None;
                self.fault = chain(&error);
                format!("unusable: {}", self.fault)
            }
            Some(Ok(false)) | None => format!("hungry: {}", spoken(&self.verdict)),
        }
    }
}

fn spoken(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Well => "all is well".to_owned(),
        Verdict::Hangs => "the daemon was stuck for too long".to_owned(),
        Verdict::StoreFails => "the disk of the records takes no writes".to_owned(),
        Verdict::App(words) => words.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(commit: &str) -> Slots {
        let text = format!(
            "kakoi: 1\nkind: Host\nslots: {{board: b, image: r.example/os, a: /dev/a, b: /dev/b, boot: {{command: [/x]}}, \
             well_for: 10s, give_up_after: 60s, commit: {commit}}}\n"
        );
        let host = kakoi_policy::parse_host("host.yaml", &text).expect("valid");
        host.slots.expect("slots")
    }

    #[test]
    fn a_trial_ends_one_way_or_the_other() {
        let seconds = Duration::from_secs;
        let unwell = ["web: it is unhealthy".to_owned()];
        let said = |words: &str| Next::GiveUp(Reason::Unwell(words.to_owned()));
        for (commit, up, well, unwell, expected) in [
            ("well", 1, Some(0), &[][..], Next::Wait),
            ("well", 11, Some(10), &[], Next::Commit),
            ("well", 11, None, &unwell, Next::Wait),
            ("well", 60, None, &unwell, said("web: it is unhealthy")),
            ("well", 60, Some(9), &[], said("it was not well for long enough")),
            ("well", 60, Some(10), &[], Next::Commit),
            ("manual", 59, Some(50), &[], Next::Wait),
            (
                "manual",
                60,
                Some(50),
                &[],
                said("nobody committed it in time (host.yaml, slots: commit: manual)"),
            ),
            ("manual", 60, None, &unwell, said("web: it is unhealthy")),
        ] {
            let found = next(&slots(commit), seconds(up), well.map(seconds), unwell);
            assert_eq!(found, expected, "{commit} {up} {well:?}");
        }
    }
}
