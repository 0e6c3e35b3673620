//! Apps over the API: `/kakoi/v1/apps`. Docker's clients know nothing of them, so they are not on Docker's socket.

use kakoi_api::app::{AppBlocked, AppBody, AppEvent, AppPin, AppStatus, AppVersion};

use super::reply::{self, Reply};
use super::router::Asked;
use crate::engine::Engine;
use crate::refusal::{Answer, Refusal};
use crate::supervise::table::{Event, Phase, Release, State};
use crate::supervise::{self, Standing, request};

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn version(name: &str, release: &Release) -> AppVersion {
    // A document that was taken is understood, unless another version took it.
    let app = kakoi_policy::parse_app("app.yaml", &release.document).ok();
    AppVersion {
        generation: count(release.generation),
        image: app.as_ref().map(|app| app.image.clone()).unwrap_or_default(),
        policy: app.and_then(|app| app.policy).unwrap_or_default(),
        image_id: release.image_id.clone(),
        container: request::container_name(name, release.slot),
        digest: release.digest.clone(),
    }
}

fn status(engine: &Engine, name: &str, state: &State) -> AppStatus {
    let view = |release: &Option<Release>| release.as_ref().map(|release| version(name, release));
    let current = view(&state.current);
    let container = current
        .as_ref()
        .and_then(|current| engine.containers.find(&current.container).ok());
    let (word, health) = match (&current, container) {
        (None, _) => (String::new(), String::new()),
        (Some(_), None) => ("missing".to_owned(), String::new()),
        (Some(_), Some(container)) => {
            let shared = container.shared();
            let health = shared.health.as_ref().filter(|_| shared.phase.is_up());
            (
                shared.phase.word().to_owned(),
                health.map(|health| health.status.clone()).unwrap_or_default(),
            )
        }
    };
    let blocked = state.blocked.iter().map(|blocked| AppBlocked {
        generation: count(blocked.generation),
        digest: blocked.digest.clone(),
        image_id: blocked.image_id.clone(),
        reason: blocked.reason.clone(),
        at: blocked.at.clone(),
    });
    AppStatus {
        name: name.to_owned(),
        phase: state.phase.word().to_owned(),
        since: state.since.clone(),
        attempt: count(state.attempt),
        floor: count(state.floor),
        current,
        candidate: view(&state.candidate),
        previous: view(&state.previous),
        state: word,
        health,
        failure: state.failure.clone(),
        trouble: state.trouble.clone(),
        blocked: blocked.collect(),
        pinned: state.pinned.clone(),
    }
}

/// `GET /kakoi/v1/apps`
pub fn list(asked: &Asked) -> Answer<Reply> {
    let all = asked.engine.apps.all();
    let rows: Vec<AppStatus> = all
        .iter()
        .map(|(name, state)| status(&asked.engine, name, state))
        .collect();
    Ok(reply::ok(&rows))
}

/// `GET /kakoi/v1/apps/{name}`
pub fn show(asked: &Asked, name: &str) -> Answer<Reply> {
    let state = asked.engine.apps.find(name)?.borrow().clone();
    Ok(reply::ok(&status(&asked.engine, name, &state)))
}

/// `GET /kakoi/v1/apps/{name}/history`: the oldest first.
pub fn history(asked: &Asked, name: &str) -> Answer<Reply> {
    let state = asked.engine.apps.find(name)?.borrow().clone();
    let rows: Vec<AppEvent> = state
        .history
        .into_iter()
        .map(|event| AppEvent {
            at: event.at,
            what: event.what,
            generation: count(event.generation),
            reason: event.reason,
        })
        .collect();
    Ok(reply::ok(&rows))
}

/// `POST /kakoi/v1/apps`: takes a document. The answer comes when it was taken; with `wait=1` it goes on, one line of status for each phase, until
/// all is steady.
pub async fn apply(mut asked: Asked) -> Answer<Reply> {
    let body: AppBody = asked.body().await?;
    if body.document.is_empty() {
        return Err(Refusal::bad("a document is needed (Document)"));
    }
    let file = if body.file.is_empty() {
        "app.yaml"
    } else {
        &body.file
    };
    let (name, standing) = supervise::apply(&asked.engine, file, &body.document).await?;
    Ok(answer(&asked, name, standing))
}

/// `POST /kakoi/v1/apps/{name}/rollback`, with `wait=1` as above.
pub async fn rollback(asked: &Asked, name: &str) -> Answer<Reply> {
    let standing = supervise::order(&asked.engine, name, Event::Rollback).await?;
    Ok(answer(asked, name.to_owned(), standing))
}

/// `POST /kakoi/v1/apps/{name}/unblock`
pub async fn unblock(asked: &Asked, name: &str) -> Answer<Reply> {
    told(asked, name, Event::Unblock).await
}

/// `POST /kakoi/v1/apps/{name}/pin`: no other version is taken until `unpin`.
pub async fn pin(mut asked: Asked, name: &str) -> Answer<Reply> {
    let body: AppPin = asked.body().await?;
    told(&asked, name, Event::Pin { reason: body.reason }).await
}

/// `POST /kakoi/v1/apps/{name}/unpin`
pub async fn unpin(asked: &Asked, name: &str) -> Answer<Reply> {
    told(asked, name, Event::Unpin).await
}

async fn told(asked: &Asked, name: &str, event: Event) -> Answer<Reply> {
    let standing = supervise::order(&asked.engine, name, event).await?;
    let state = standing.borrow().clone();
    Ok(reply::ok(&status(&asked.engine, name, &state)))
}

/// `DELETE /kakoi/v1/apps/{name}`: answered when nothing of it is left but its volumes, and, without `forget=1`, which generation was taken last.
pub async fn delete(asked: &Asked, name: &str) -> Answer<Reply> {
    let forgets = asked.query.flag("forget");
    if forgets && supervise::forget(&asked.engine, name).await? {
        return Ok(reply::nothing());
    }
    let mut standing = supervise::order(&asked.engine, name, Event::Remove { forgets }).await?;
    supervise::until_steady(&mut standing).await;
    if asked.engine.apps.find(name).is_ok() {
        return Err(Refusal::broken(format!(
            "the app {name} could not be removed whole; the next start of the daemon goes on with it"
        )));
    }
    Ok(reply::nothing())
}

fn answer(asked: &Asked, name: String, mut standing: Standing) -> Reply {
    if !asked.query.flag("wait") {
        let state = standing.borrow().clone();
        return reply::ok(&status(&asked.engine, &name, &state));
    }
    let engine = asked.engine.clone();
    let (sender, reply) = reply::stream("application/json");
    tokio::spawn(async move {
        loop {
            let state = standing.borrow_and_update().clone();
            let is_last = state.phase == Phase::Steady;
            let is_heard = reply::send_line(&sender, &status(&engine, &name, &state)).await;
            // An error means that the app is gone.
            if is_last || !is_heard || standing.changed().await.is_err() {
                return;
            }
        }
    });
    reply
}
