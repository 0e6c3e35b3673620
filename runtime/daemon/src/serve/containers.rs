//! Containers: everything but their streams.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::StatusCode;
use kakoi_api::container::{
    ContainerSummary, ContainersPruned, CreateBody, UpdateAnswer, UpdateBody, WaitAnswer, WaitError,
};
use kakoi_api::network::EndpointSettings;
use kakoi_container::frames::{Reply as ShimReply, Request};
use kakoi_container::plan::TerminalSize;

use super::reply::{self, Reply};
use super::router::Asked;
use super::view;
use crate::clock;
use crate::engine::Engine;
use crate::filters::{Filters, name_fits};
use crate::life::container::{Container, Phase, Pulse, Shared};
use crate::life::{create as making, freeze, remove, start as starting, stop as stopping};
use crate::plan::{self, limits};
use crate::refusal::{Answer, Refusal};
use crate::restart::Policy;
use crate::shim;
use crate::state::Record;
use crate::volumes::tree_bytes;

/// Keys that the list knows.
const LIST_KEYS: [&str; 17] = [
    "ancestor",
    "before",
    "expose",
    "exited",
    "health",
    "id",
    "isolation",
    "is-task",
    "label",
    "label!",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
    "policy",
];

/// The words of the `status` filter.
const STATUS_WORDS: [&str; 7] = [
    "created",
    "running",
    "paused",
    "restarting",
    "removing",
    "exited",
    "dead",
];

/// `POST /containers/create`
pub async fn create(mut asked: Asked) -> Answer<Reply> {
    // Most containers are started right after they are made, and `run` is the command that a person waits for.
    starting::hasten();
    let body: CreateBody = asked.body().await?;
    let name = asked.query.get("name").unwrap_or_default().to_owned();
    asked.engine.apps.guard(&name)?;
    let answer = making::create(&asked.engine, asked.door, &name, body).await?;
    Ok(reply::json(StatusCode::CREATED, &answer))
}

/// `GET /containers/json`
pub async fn list(asked: &Asked) -> Answer<Reply> {
    let filters = Filters::parse(asked.query.get("filters"), &LIST_KEYS)?;
    let limit = asked.query.number::<i64>("limit")?.filter(|limit| *limit > 0);
    let all = asked.query.flag("all") || limit.is_some() || !filters.values("status").is_empty();
    let rows = select(&asked.engine, &filters, all, limit)?;
    let rows = if asked.query.flag("size") {
        with_sizes(&asked.engine, rows).await?
    } else {
        rows
    };
    Ok(reply::ok(&rows))
}

/// Measures writable layers, off the event loop.
pub async fn with_sizes(
    engine: &Arc<Engine>,
    mut rows: Vec<ContainerSummary>,
) -> Answer<Vec<ContainerSummary>> {
    let engine = engine.clone();
    tokio::task::spawn_blocking(move || {
        for row in &mut rows {
            let bytes = tree_bytes(&engine.paths.state_dir(&row.id).join("upper"));
            let image = engine
                .images
                .inspect(&row.image_id)
                .map_or(0, |details| details.summary.size);
            row.size_rw = Some(bytes);
            row.size_root_fs = Some(bytes.saturating_add(i64::try_from(image).unwrap_or(i64::MAX)));
        }
        rows
    })
    .await
    .map_err(|cause| Refusal::failed("measuring failed", cause))
}

/// Rows that fit, the newest first.
pub fn select(
    engine: &Arc<Engine>,
    filters: &Filters,
    all: bool,
    limit: Option<i64>,
) -> Answer<Vec<ContainerSummary>> {
    let wanted = Wanted::read(engine, filters)?;
    let mut rows = Vec::new();
    for container in engine.containers.all() {
        let shared = container.shared();
        let is_shown = all || shared.phase.is_up() || shared.phase == Phase::Restarting;
        if is_shown && fits(engine, &shared, filters) && wanted.fits(&shared.record, shared.phase) {
            rows.push((
                shared.record.created.clone(),
                view::summary(engine, &shared, None),
            ));
        }
    }
    rows.sort_by(|one, other| other.0.cmp(&one.0));
    if let Some(limit) = limit {
        rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    }
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

/// The filters whose words must be read before any row is looked at.
struct Wanted {
    /// Created before, and since, another container.
    before: Option<String>,
    since: Option<String>,
    exits: Vec<i32>,
    /// Images, as named and by id.
    ancestors: Vec<(String, Option<String>)>,
}

impl Wanted {
    fn read(engine: &Engine, filters: &Filters) -> Answer<Self> {
        for word in filters.values("status") {
            if !STATUS_WORDS.contains(&word.as_str()) {
                return Err(Refusal::bad(format!("invalid filter 'status={word}'")));
            }
        }
        let created_of = |key: &str| -> Answer<Option<String>> {
            filters
                .values(key)
                .first()
                .map(|name| Ok(engine.containers.find(name)?.shared().record.created.clone()))
                .transpose()
        };
        let mut exits = Vec::new();
        for text in filters.values("exited") {
            exits.push(
                text.parse::<i32>()
                    .map_err(|_| Refusal::bad(format!("invalid filter 'exited={text}'")))?,
            );
        }
        let image_id = |name: &String| engine.images.resolve(name).ok().map(|image| image.id.to_string());
        let named = filters.values("ancestor");
        Ok(Self {
            before: created_of("before")?,
            since: created_of("since")?,
            exits,
            ancestors: named.iter().map(|name| (name.clone(), image_id(name))).collect(),
        })
    }

    fn fits(&self, record: &Record, phase: Phase) -> bool {
        let is_of = |(name, id): &(String, Option<String>)| {
            record.config.image == *name || id.as_ref() == Some(&record.image_id)
        };
        (self.exits.is_empty() || (phase == Phase::Exited && self.exits.contains(&record.life.exit_code)))
            && (self.ancestors.is_empty() || self.ancestors.iter().any(is_of))
            && self.before.as_ref().is_none_or(|time| record.created < *time)
            && self.since.as_ref().is_none_or(|time| record.created > *time)
    }
}

/// The filters that a row answers by itself.
fn fits(engine: &Engine, shared: &Shared, filters: &Filters) -> bool {
    let record = &shared.record;
    let health = shared
        .health
        .as_ref()
        .map_or("none", |health| health.status.as_str());
    let has_volume = |wanted: &str| {
        let mut mounts = record.mounts.iter();
        mounts.any(|mount| mount.name == wanted || mount.destination == wanted)
    };
    filters.any("status", |word| word == shared.phase.word())
        && filters.any("id", |id| record.id.starts_with(id))
        && filters.any("name", |name| name_fits(&record.name, name))
        && filters.any("health", |word| word == health)
        && filters.any("policy", |name| name == record.policy.name)
        && filters.any("network", |name| network_fits(record, name))
        && filters.any("volume", has_volume)
        && filters.any("expose", |port| exposes(record, port))
        && filters.any("publish", |port| publishes(engine, record, port))
        && filters.any("is-task", |flag| matches!(flag, "false" | "0"))
        && filters.labels(&record.config.labels)
}

fn network_fits(record: &Record, wanted: &str) -> bool {
    let is_id = |settings: &EndpointSettings| settings.network_id.starts_with(wanted);
    record.host_config.network_mode == wanted
        || record.networks.contains_key(wanted)
        || (!wanted.is_empty() && record.networks.values().any(is_id))
}

/// Whether a port inside is published; without a protocol it is any.
fn publishes(engine: &Engine, record: &Record, wanted: &str) -> bool {
    let (number, kind) = wanted.split_once('/').unwrap_or((wanted, ""));
    let mut ports = engine.networks.ports(record).into_iter();
    ports.any(|port| {
        port.public_port.is_some()
            && port.private_port.to_string() == number
            && (kind.is_empty() || port.kind == kind)
    })
}

fn exposes(record: &Record, port: &str) -> bool {
    let full = if port.contains('/') {
        port.to_owned()
    } else {
        format!("{port}/tcp")
    };
    record
        .config
        .exposed_ports
        .keys()
        .any(|held| *held == full || *held == port)
}

/// `GET /containers/{id}/json`
pub async fn inspect(asked: &Asked, id: &str) -> Answer<Reply> {
    let container = asked.engine.containers.find(id)?;
    let mut answer = view::inspect(&asked.engine, &container);
    if asked.query.flag("size") {
        let row = view::summary(&asked.engine, &container.shared(), None);
        let rows = with_sizes(&asked.engine, vec![row]).await?;
        answer.size_rw = rows[0].size_rw;
        answer.size_root_fs = rows[0].size_root_fs;
    }
    Ok(reply::ok(&answer))
}

/// `POST /containers/{id}/start`
pub async fn start(asked: &Asked, id: &str) -> Answer<Reply> {
    let container = asked.engine.containers.find(id)?;
    asked.engine.apps.guard_start(&container.name())?;
    starting::hasten();
    starting::start(&asked.engine, &container, starting::Cause::Hand).await?;
    Ok(reply::nothing())
}

/// `POST /containers/{id}/stop`
pub async fn stop(asked: &Asked, id: &str) -> Answer<Reply> {
    let container = asked.engine.containers.find(id)?;
    stopping::stop(
        &asked.engine,
        &container,
        asked.query.number("t")?,
        asked.query.get("signal"),
    )
    .await?;
    Ok(reply::nothing())
}

/// `POST /containers/{id}/restart`
pub async fn restart(asked: &Asked, id: &str) -> Answer<Reply> {
    let container = asked.engine.containers.find(id)?;
    asked.engine.apps.guard_start(&container.name())?;
    stopping::restart(
        &asked.engine,
        &container,
        asked.query.number("t")?,
        asked.query.get("signal"),
    )
    .await?;
    Ok(reply::nothing())
}

/// `POST /containers/{id}/kill`
pub async fn kill(asked: &Asked, id: &str) -> Answer<Reply> {
    let container = asked.engine.containers.find(id)?;
    stopping::kill(&asked.engine, &container, asked.query.get("signal")).await?;
    Ok(reply::nothing())
}

/// `POST /containers/{id}/pause`
pub async fn pause(asked: &Asked, id: &str) -> Answer<Reply> {
    let container = asked.engine.containers.find(id)?;
    freeze::pause(&asked.engine, &container).await?;
    Ok(reply::nothing())
}

/// `POST /containers/{id}/unpause`
pub async fn unpause(asked: &Asked, id: &str) -> Answer<Reply> {
    let container = asked.engine.containers.find(id)?;
    freeze::unpause(&asked.engine, &container).await?;
    Ok(reply::nothing())
}

/// `POST /containers/{id}/rename`
pub async fn rename(asked: &Asked, id: &str) -> Answer<Reply> {
    let engine = &asked.engine;
    let container = engine.containers.find(id)?;
    let old = container.name();
    let wanted = asked.query.get("name").unwrap_or_default();
    engine.apps.guard(&old)?;
    engine.apps.guard(wanted)?;
    making::rename(engine, &container, wanted).await?;
    let new = container.name();
    engine.networks.rename(engine, &container.id, &old, &new).await?;
    Ok(reply::nothing())
}

/// `DELETE /containers/{id}`
pub async fn delete(asked: &Asked, id: &str) -> Answer<Reply> {
    // The container of that name stays, whatever else is asked.
    if asked.query.flag("link") {
        asked.engine.networks.unlink(&asked.engine, id).await?;
        return Ok(reply::nothing());
    }
    let container = asked.engine.containers.find(id)?;
    asked.engine.apps.guard(&container.name())?;
    remove::remove(
        &asked.engine,
        &container,
        asked.query.flag("force"),
        asked.query.flag("v"),
    )
    .await?;
    Ok(reply::nothing())
}

/// `POST /containers/prune`
pub async fn prune(asked: &Asked) -> Answer<Reply> {
    let filters = Filters::parse(asked.query.get("filters"), &["label", "label!", "until"])?;
    let until = until(&filters)?;
    let (gone, bytes) = remove::prune(&asked.engine, |record| {
        asked.engine.apps.owner_of(&record.name).is_none()
            && filters.labels(&record.config.labels)
            && until.as_ref().is_none_or(|time| record.created < *time)
    })
    .await;
    asked
        .engine
        .events
        .tell("container", "prune", "", reclaimed(bytes));
    Ok(reply::ok(&ContainersPruned {
        containers_deleted: (!gone.is_empty()).then_some(gone),
        space_reclaimed: bytes,
    }))
}

/// What an event of pruning tells.
pub fn reclaimed(bytes: i64) -> BTreeMap<String, String> {
    BTreeMap::from([("reclaimed".into(), bytes.to_string())])
}

/// The `until` filter as RFC 3339.
pub fn until(filters: &Filters) -> Answer<Option<String>> {
    match filters.values("until") {
        [] => Ok(None),
        [text] => clock::parse(text, jiff::Timestamp::now())
            .map(|time| Some(clock::format(time)))
            .ok_or_else(|| Refusal::bad(format!("invalid filter 'until={text}'"))),
        _ => Err(Refusal::bad("more than one until filter specified")),
    }
}

/// A pair of numbers `h` and `w`.
pub fn size(asked: &Asked) -> Answer<TerminalSize> {
    let side = |name: &str| -> Answer<u16> {
        asked
            .query
            .number::<u16>(name)?
            .ok_or_else(|| Refusal::bad(format!("invalid resize {name}: not a number")))
    };
    Ok(TerminalSize {
        height: side("h")?,
        width: side("w")?,
    })
}

/// `POST /containers/{id}/resize`
pub async fn resize(asked: &Asked, id: &str) -> Answer<Reply> {
    let container = asked.engine.containers.find(id)?;
    let size = size(asked)?;
    if !container.shared().phase.is_up() {
        return Err(stopping::not_running(&container));
    }
    ask(&asked.engine, &container, Request::Resize { exec_id: None, size }).await?;
    Ok(reply::empty(StatusCode::OK))
}

/// Asks a shim for something that is merely done.
pub async fn ask(engine: &Engine, container: &Container, request: Request) -> Answer<()> {
    match shim::ask(&engine.paths.run_dir(&container.id), &request).await {
        Ok((ShimReply::Done, _)) => Ok(()),
        Ok((other, _)) => Err(Refusal::broken(format!(
            "the supervisor of {} answered {other:?}",
            container.id
        ))),
        Err(error) => Err(stopping::talk_failed(container, error)),
    }
}

/// `POST /containers/{id}/update`
pub async fn update(mut asked: Asked, id: &str) -> Answer<Reply> {
    let container = asked.engine.containers.find(id)?;
    asked.engine.apps.guard(&container.name())?;
    let body: UpdateBody = asked.body().await?;
    let policy = body.restart_policy.as_ref().map(Policy::parse).transpose()?;
    let _turn = container.turn().await;
    if container.pulse().borrow().gone {
        return Err(Refusal::missing(format!("No such container: {id}")));
    }
    if container.shared().record.host_config.auto_remove && policy.is_some_and(|policy| policy != Policy::No)
    {
        return Err(Refusal::bad(
            "Restart policy cannot be updated because AutoRemove is enabled for the container",
        ));
    }
    let state_dir = asked.engine.paths.state_dir(&container.id);
    let mut plan = plan::read(&state_dir)?;
    let (mut host, granted) = {
        let record = &container.shared().record;
        let (host, limits) = limits::updated(&record.host_config, &body)?;
        let shelf = asked.engine.shelf();
        let granted = shelf.limits(&record.policy.name, &record.limits, &limits)?;
        shelf.neighbours(&record.policy.name, &limits::neighbours_updated(&body))?;
        (host, granted)
    };
    let changed = limits::update(&host, &body, &granted, plan.confinement.limits.swap_bytes);
    merge_limits(&mut plan.resources, &changed);
    if container.shared().phase.is_up() {
        ask(&asked.engine, &container, Request::Update(changed)).await?;
    }
    let record = {
        let mut shared = container.shared();
        if let Some(policy) = &body.restart_policy {
            host.restart_policy = policy.clone();
        }
        shared.record.host_config = host;
        shared.record.clone()
    };
    plan::write(&state_dir, &plan, !record.host_config.auto_remove)
        .map_err(|cause| Refusal::failed("the plan cannot be written", cause))?;
    asked
        .engine
        .store
        .put(&record)
        .await
        .map_err(|cause| Refusal::failed("the update cannot be recorded", cause))?;
    if !record.host_config.auto_remove {
        crate::state::copies::keep(&state_dir, &record);
    }
    asked
        .engine
        .events
        .tell("container", "update", &container.id, container.attributes());
    let warnings = granted.trimmed.iter();
    let warnings: Vec<String> = warnings
        .map(|loss| format!("not granted: {}: {}", loss.rule, loss.fact))
        .collect();
    Ok(reply::ok(&UpdateAnswer {
        warnings: (!warnings.is_empty()).then_some(warnings),
    }))
}

fn merge_limits(held: &mut kakoi_container::plan::Resources, changed: &kakoi_container::plan::Resources) {
    fn take<T: Clone>(held: &mut Option<T>, changed: &Option<T>) {
        if changed.is_some() {
            held.clone_from(changed);
        }
    }
    take(&mut held.memory_bytes, &changed.memory_bytes);
    take(
        &mut held.memory_reservation_bytes,
        &changed.memory_reservation_bytes,
    );
    take(&mut held.memory_and_swap_bytes, &changed.memory_and_swap_bytes);
    take(&mut held.cpu_shares, &changed.cpu_shares);
    take(&mut held.cpu_quota_us, &changed.cpu_quota_us);
    take(&mut held.cpu_period_us, &changed.cpu_period_us);
    take(&mut held.cpuset_cpus, &changed.cpuset_cpus);
    take(&mut held.cpuset_mems, &changed.cpuset_mems);
    take(&mut held.pids, &changed.pids);
    take(&mut held.blkio_weight, &changed.blkio_weight);
}

/// Which end is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    NotRunning,
    NextExit,
    Removed,
}

/// `POST /containers/{id}/wait`: the headers go out at once, the answer when it comes.
pub fn wait(asked: &Asked, id: &str) -> Answer<Reply> {
    let container = asked.engine.containers.find(id)?;
    let condition = match asked.query.get("condition") {
        None | Some("not-running") => Condition::NotRunning,
        Some("next-exit") => Condition::NextExit,
        Some("removed") => Condition::Removed,
        Some(other) => return Err(Refusal::bad(format!("invalid condition: \"{other}\""))),
    };
    // Registered before the answer begins: an end that comes at once is seen.
    let mut pulse = container.pulse();
    let ends = pulse.borrow_and_update().ends;
    let (sender, reply) = reply::stream("application/json");
    tokio::spawn(async move {
        let is_over = move |pulse: &Pulse| match condition {
            // As in Docker, one that is being started again has ended for who waited until then.
            Condition::NotRunning => pulse.ends > ends || (!pulse.up && !pulse.restarting),
            Condition::NextExit => pulse.ends > ends || pulse.gone,
            Condition::Removed => pulse.gone || !pulse.trouble.is_empty(),
        };
        let last = tokio::select! {
            last = pulse.wait_for(is_over) => last.map(|pulse| pulse.clone()).unwrap_or_default(),
            () = sender.closed() => return,
        };
        let error = (!last.trouble.is_empty()).then(|| WaitError {
            message: last.trouble.clone(),
        });
        let answer = WaitAnswer {
            status_code: last.exit_code.into(),
            error,
        };
        reply::send_line(&sender, &answer).await;
    });
    Ok(reply)
}
