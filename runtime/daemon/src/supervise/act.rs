//! What the phases of an app do, by the engine's own ways: the pull, the creation, the start and the stop that everybody uses.
//!
//! Owns no decision: each act is done again after a kill, so each one looks first at what is there. Containers of an app are known by their names,
//! which nobody else may take while the app is there ([`super::Apps::owner_of`]).

use std::sync::Arc;
use std::time::Duration;

use kakoi_image::{ResolveError, StoreError};
use kakoi_policy::App;
use tokio::time::{Instant, sleep, sleep_until};

use super::drive::{Act, Trouble, World};
use super::graves::{self, Grave};
use super::table::{Phase as AppPhase, Release, Slot, State};
use super::{record, request};
use crate::clock;
use crate::engine::Engine;
use crate::life::container::{Container, Phase};
use crate::life::create::{self, image_refusal};
use crate::life::{health, remove, start, stop};
use crate::policy::Door;
use crate::refusal::{Answer, Refusal, chain};
use crate::serve::{logs, registry};

/// Characters of what an app said last.
const WORDS_CHARS_MAX: usize = 200;
/// Longest wait between two attempts.
const PAUSE_SECONDS_MAX: u64 = 60;

/// The engine, as it acts for one app.
pub struct Acts {
    /// The daemon.
    pub engine: Arc<Engine>,
    /// The app.
    pub name: String,
}

pub(super) fn trouble(refusal: &Refusal) -> Trouble {
    Trouble {
        reason: refusal.message.clone(),
        again: !refusal.status.is_client_error(),
    }
}

fn lasting(reason: impl Into<String>) -> Trouble {
    Trouble {
        reason: reason.into(),
        again: false,
    }
}

/// Reads a document again that was taken once.
pub fn document(release: &Release) -> Act<App> {
    let read = kakoi_policy::parse_app("app.yaml", &release.document);
    read.map_err(|why| lasting(format!("its document is not understood by this version: {why}")))
}

/// What the image's name leads to on this device; `None` where there is none.
pub fn local_image(engine: &Engine, name: &str) -> Answer<Option<String>> {
    engine.search_images();
    match engine.images.resolve(name) {
        Ok(image) => Ok(Some(image.id.to_string())),
        Err(StoreError::Resolve(ResolveError::NotFound { .. })) => Ok(None),
        Err(error) => Err(image_refusal(error)),
    }
}

impl Acts {
    pub(super) fn container(&self, slot: Slot) -> Option<Arc<Container>> {
        let name = request::container_name(&self.name, slot);
        let found = self.engine.containers.find(&name).ok();
        found.filter(|container| container.name() == name)
    }

    async fn stop(&self, slot: Slot) -> Act<()> {
        let Some(container) = self.container(slot) else {
            return Ok(());
        };
        let phase = container.shared().phase;
        if !phase.is_up() && phase != Phase::Restarting {
            return Ok(());
        }
        match stop::stop(&self.engine, &container, None, None).await {
            Err(refusal) if refusal.status != hyper::StatusCode::NOT_MODIFIED => Err(trouble(&refusal)),
            _ => Ok(()),
        }
    }

    async fn empty(&self, slot: Slot) -> Act<()> {
        self.stop(slot).await?;
        let Some(container) = self.container(slot) else {
            return Ok(());
        };
        let removed = remove::remove(&self.engine, &container, true, true).await;
        removed.map_err(|refusal| trouble(&refusal))
    }

    /// Whether a container was made for a version: of its image and of its document. What else may lie in the slot is not started for it.
    fn is_of(&self, container: &Container, release: &Release) -> bool {
        let shared = container.shared();
        let record = &shared.record;
        let digest = record.config.labels.get(request::DIGEST_LABEL);
        record.image_id == release.image_id && digest == Some(&release.digest)
    }

    async fn start(&self, release: &Release, cause: start::Cause) -> Act<()> {
        let found = self.container(release.slot);
        let container = match found.filter(|container| self.is_of(container, release)) {
            Some(container) => container,
            None => {
                self.stage(release).await?;
                let made = self.container(release.slot);
                made.ok_or_else(|| lasting("its container is gone again"))?
            }
        };
        if matches!(
            container.shared().phase,
            Phase::Running | Phase::Paused | Phase::Restarting
        ) {
            return Ok(());
        }
        match start::start(&self.engine, &container, cause).await {
            Err(refusal) if refusal.status != hyper::StatusCode::NOT_MODIFIED => Err(Trouble {
                reason: refusal.message,
                again: true,
            }),
            _ => Ok(()),
        }
    }
}

impl World for Acts {
    type Error = std::io::Error;

    async fn fetch(&self, release: &Release) -> Act<String> {
        let app = document(release)?;
        let found = local_image(&self.engine, &app.image).map_err(|refusal| trouble(&refusal))?;
        match found {
            Some(id) => Ok(id),
            None => registry::fetch(&self.engine, &app.image)
                .await
                .map_err(|refusal| trouble(&refusal)),
        }
    }

    async fn verify(&self, release: &Release) -> Act<()> {
        let body = request::body(&document(release)?);
        create::examine(&self.engine, Door::Kakoi, body, Some(&release.image_id))
            .await
            .map_err(|refusal| trouble(&refusal))
    }

    async fn stage(&self, release: &Release) -> Act<()> {
        let app = document(release)?;
        self.empty(release.slot).await?;
        let name = request::container_name(&self.name, release.slot);
        let (body, image) = (request::body(&app), Some(release.image_id.as_str()));
        let made = create::create_of(&self.engine, Door::Kakoi, &name, body, image).await;
        let made = made.map_err(|refusal| trouble(&refusal))?;
        for warning in made.warnings {
            tracing::warn!(app = self.name, warning, "a container of an app");
        }
        Ok(())
    }

    async fn switch(&self, from: Option<&Release>, to: &Release) -> Act<()> {
        if let Some(from) = from
            && self.may_run_beside(from, to)?
        {
            // Another attempt begins anew.
            self.stop(to.slot).await?;
            return self.start(to, start::Cause::Beside).await;
        }
        if let Some(from) = from {
            self.stop(from.slot).await?;
        }
        // Another attempt begins anew, whatever the one before has come to.
        self.stop(to.slot).await?;
        self.start(to, start::Cause::Hand).await
    }

    async fn trial(&self, release: &Release) -> Act<()> {
        let app = document(release)?;
        let container = self.container(release.slot);
        let container = container.ok_or_else(|| lasting("its container was removed in its trial"))?;
        let period = Duration::from_millis(app.update.trial_ms);
        watch(&self.engine, &container, period).await
    }

    async fn settle(&self, runs: Option<&Release>, left: Option<&Release>) -> Act<()> {
        if let Some(runs) = runs {
            self.take_over(runs).await?;
        }
        for slot in Slot::BOTH {
            if runs.is_none_or(|runs| runs.slot != slot) {
                self.stop(slot).await?;
            }
        }
        if let Some(runs) = runs {
            self.start(runs, start::Cause::Hand).await?;
        }
        // What else is in its slot is the version before, which the candidate never came to replace.
        let left = left.filter(|left| runs.is_none_or(|runs| runs.slot != left.slot));
        let is_there = |left: &&Release| {
            let container = self.container(left.slot);
            container.is_some_and(|container| self.is_of(&container, left))
        };
        match left.filter(is_there) {
            Some(left) => self.empty(left.slot).await,
            None => Ok(()),
        }
    }

    async fn is_up(&self, release: &Release) -> bool {
        let container = self.container(release.slot);
        container.is_some_and(|container| {
            self.is_of(&container, release) && container.shared().phase == Phase::Running
        })
    }

    async fn clear(&self) -> Act<()> {
        for slot in Slot::BOTH {
            self.empty(slot).await?;
        }
        Ok(())
    }

    async fn pause(&self, attempt: u64) {
        let doubled = 1_u64.checked_shl(u32::try_from(attempt.saturating_sub(2)).unwrap_or(u32::MAX));
        let seconds = doubled.unwrap_or(PAUSE_SECONDS_MAX).min(PAUSE_SECONDS_MAX);
        sleep(Duration::from_secs(seconds)).await;
    }

    async fn keep(&self, state: &State) -> std::io::Result<()> {
        let (root, name, kept) = (self.engine.paths.root.clone(), self.name.clone(), state.clone());
        let written = tokio::task::spawn_blocking(move || record::write(&root, &name, &kept));
        written.await.map_err(std::io::Error::other)??;
        let generation = state.candidate.as_ref().or(state.current.as_ref());
        let generation = generation.map_or(state.floor, |release| release.generation);
        let mut attributes = std::collections::BTreeMap::new();
        attributes.insert("generation".to_owned(), generation.to_string());
        if state.phase == AppPhase::Rollback {
            attributes.insert("reason".to_owned(), state.failure.clone());
        }
        self.engine
            .events
            .tell("app", state.phase.word(), &self.name, attributes);
        Ok(())
    }

    async fn forget(&self, state: &State) -> std::io::Result<()> {
        let (root, name) = (self.engine.paths.root.clone(), self.name.clone());
        let grave = (!state.forgets).then(|| Grave {
            floor: state.floor,
            floor_digest: state.floor_digest.clone(),
        });
        let removed = tokio::task::spawn_blocking(move || {
            graves::put(&root, &name, grave)?;
            record::remove(&root, &name)
        });
        removed.await.map_err(std::io::Error::other)?
    }

    fn now(&self) -> String {
        clock::now()
    }
}

/// How a container on trial looks.
enum Look {
    /// Health is not tested, or it is healthy.
    Good,
    /// Its health is not known yet.
    Starting,
    /// It failed.
    Failed(String),
}

fn look(container: &Container) -> Look {
    let shared = container.shared();
    let life = &shared.record.life;
    if !shared.phase.is_up() || life.restarts > 0 {
        let oom = if life.oom_killed {
            ", having reached its limit of memory"
        } else {
            ""
        };
        let error = match life.error.as_str() {
            "" => String::new(),
            error => format!(": {error}"),
        };
        return Look::Failed(format!(
            "it ended in its trial with exit code {}{oom}{error}",
            life.exit_code
        ));
    }
    match shared
        .health
        .as_ref()
        .map(|health| (health.status.as_str(), &health.log))
    {
        None | Some(("healthy", _)) => Look::Good,
        Some(("unhealthy", log)) => {
            let said = log.last().map(|result| result.output.trim()).unwrap_or_default();
            Look::Failed(match said {
                "" => "it is unhealthy".to_owned(),
                said => format!("it is unhealthy: {said}"),
            })
        }
        Some(_) => Look::Starting,
    }
}

/// The last line that a container printed, for people: its log goes with it.
async fn last_words(engine: &Engine, container: &Container) -> Option<String> {
    let said = logs::past(engine, container, true, true, true).await.ok()?;
    let text = String::from_utf8_lossy(&said);
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    Some(
        line.chars()
            .filter(|c| !c.is_control())
            .take(WORDS_CHARS_MAX)
            .collect(),
    )
}

/// Watches a container for its trial, and for as long as its health may take to be known.
async fn watch(engine: &Engine, container: &Container, period: Duration) -> Act<()> {
    let begun = Instant::now();
    let until = begun + period;
    let most = until + health::verdict_time(&container.shared().record.config);
    let (_, mut events) = engine.events.listen();
    let mut pulse = container.pulse();
    loop {
        let now = Instant::now();
        match look(container) {
            Look::Failed(reason) => {
                let reason = match last_words(engine, container).await {
                    Some(words) => format!("{reason}; it said last: {words}"),
                    None => reason,
                };
                return Err(Trouble { reason, again: true });
            }
            Look::Good if now >= until => return Ok(()),
            Look::Starting if now >= most => {
                return Err(Trouble {
                    reason: format!("it was not healthy within {} seconds", begun.elapsed().as_secs()),
                    again: true,
                });
            }
            Look::Good | Look::Starting => {}
        }
        let wake = if now < until { until } else { most };
        tokio::select! {
            // Whatever happened is looked at above; a listener that is too slow has missed nothing that is not seen there.
            _ = events.recv() => {}
            changed = pulse.changed() => {
                if changed.is_err() {
                    return Err(lasting("its container was removed in its trial"));
                }
            }
            () = sleep_until(wake) => {}
        }
    }
}

/// Tells what did not go well, where nobody asks.
pub fn tell(name: &str, error: &(dyn std::error::Error + 'static)) {
    tracing::error!(app = name, error = chain(error), "an app");
}
