//! Containers as clients see them: from record and state to the wire's types.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use kakoi_api::ZERO_TIME;
use kakoi_api::container::{
    ContainerInspect, ContainerState, ContainerSummary, GraphDriver, HostConfig, NetworkSettings,
    SummaryHostConfig, SummaryNetworks,
};
use kakoi_api::kakoi::ContainerKakoi;
use kakoi_policy::confinement::Confinement;
use serde_json::Value;

use crate::clock;
use crate::engine::Engine;
use crate::life::container::{Container, Phase, Shared};
use crate::plan;
use crate::state::Record;

/// Where a container stands.
pub fn state(shared: &Shared) -> ContainerState {
    let life = &shared.record.life;
    let time = |time: &Option<String>| time.clone().unwrap_or_else(|| ZERO_TIME.into());
    ContainerState {
        status: shared.phase.word().into(),
        running: shared.phase.is_up(),
        paused: shared.phase == Phase::Paused,
        restarting: shared.phase == Phase::Restarting,
        oom_killed: life.oom_killed,
        dead: shared.phase == Phase::Dead,
        pid: shared.pid.into(),
        exit_code: if shared.phase.is_up() {
            0
        } else {
            life.exit_code.into()
        },
        error: life.error.clone(),
        started_at: time(&life.started_at),
        finished_at: time(&life.finished_at),
        health: shared.health.clone(),
    }
}

/// The state for people, in Docker's words.
pub fn status(shared: &Shared, now: Timestamp) -> String {
    let life = &shared.record.life;
    let ago = |time: &Option<String>| {
        let time: Timestamp = time.as_deref().and_then(|time| time.parse().ok()).unwrap_or(now);
        clock::human(now.duration_since(time).as_secs())
    };
    match shared.phase {
        Phase::Created => "Created".into(),
        Phase::Running => {
            let health = match shared.health.as_ref().map(|health| health.status.as_str()) {
                None | Some("none") => String::new(),
                Some("starting") => " (health: starting)".into(),
                Some(word) => format!(" ({word})"),
            };
            format!("Up {}{health}", ago(&life.started_at))
        }
        Phase::Paused => format!("Up {} (Paused)", ago(&life.started_at)),
        Phase::Restarting => format!("Restarting ({}) {} ago", life.exit_code, ago(&life.finished_at)),
        Phase::Exited => format!("Exited ({}) {} ago", life.exit_code, ago(&life.finished_at)),
        Phase::Removing => "Removal In Progress".into(),
        Phase::Dead => "Dead".into(),
    }
}

/// A row of the list.
pub fn summary(engine: &Engine, shared: &Shared, image_name: Option<&str>) -> ContainerSummary {
    let record = &shared.record;
    let created: i64 = record
        .created
        .parse::<Timestamp>()
        .map(|time| time.as_second())
        .unwrap_or(0);
    let mut labels = record.config.labels.clone();
    labels.retain(|_, value| !value.contains('\0'));
    ContainerSummary {
        id: record.id.clone(),
        names: vec![format!("/{}", record.name)],
        image: image_name.unwrap_or(&record.config.image).into(),
        image_id: record.image_id.clone(),
        command: record.args.join(" "),
        created,
        ports: engine.networks.ports(record),
        size_rw: None,
        size_root_fs: None,
        labels,
        state: shared.phase.word().into(),
        status: status(shared, Timestamp::now()),
        host_config: SummaryHostConfig {
            network_mode: network_mode(record),
        },
        network_settings: SummaryNetworks {
            networks: engine.networks.places(record),
        },
        mounts: record.mounts.clone(),
        policy: record.policy.name.clone(),
    }
}

fn network_mode(record: &Record) -> String {
    match record.host_config.network_mode.as_str() {
        "" => "default".into(),
        mode => mode.into(),
    }
}

/// What was asked of the host, with what was left open filled in.
fn host_config(record: &Record, confinement: Option<&Confinement>) -> HostConfig {
    let mut host_config = record.host_config.clone();
    host_config.network_mode = network_mode(record);
    if host_config.shm_size == 0 {
        host_config.shm_size = 64 << 20;
    }
    if host_config.log_config.kind.is_empty() {
        host_config.log_config.kind = "json-file".into();
    }
    if host_config.restart_policy.name.is_empty() {
        host_config.restart_policy.name = "no".into();
    }
    host_config.oom_kill_disable.get_or_insert(false);
    if let Some(hidden) = confinement.map(|confinement| &confinement.filesystem) {
        host_config
            .masked_paths
            .get_or_insert_with(|| hidden.masked_paths.clone());
        host_config
            .readonly_paths
            .get_or_insert_with(|| hidden.read_only_paths.clone());
    }
    host_config
}

/// Everything.
pub fn inspect(engine: &Engine, container: &Container) -> ContainerInspect {
    let shared = container.shared();
    let record = &shared.record;
    let state_dir = engine.paths.state_dir(&record.id);
    let path = |name: &str| state_dir.join(name).display().to_string();
    let confinement = plan::read(&state_dir).ok().map(|plan| plan.confinement);
    let host_config = host_config(record, confinement.as_ref());
    let mut config = record.config.clone();
    if config.hostname.is_empty() {
        config.hostname = record.id[..12.min(record.id.len())].into();
    }
    ContainerInspect {
        id: record.id.clone(),
        created: record.created.clone(),
        path: record.args.first().cloned().unwrap_or_default(),
        args: record.args.iter().skip(1).cloned().collect(),
        state: state(&shared),
        image: record.image_id.clone(),
        resolv_conf_path: path("resolv.conf"),
        hostname_path: path("hostname"),
        hosts_path: path("hosts"),
        log_path: if host_config.log_config.kind == "none" {
            String::new()
        } else {
            path("log")
        },
        name: format!("/{}", record.name),
        restart_count: record.life.restarts.into(),
        driver: driver(engine).into(),
        platform: "linux".into(),
        exec_ids: live_execs(engine, &shared),
        graph_driver: GraphDriver {
            data: BTreeMap::from([
                ("UpperDir".into(), path("upper")),
                ("WorkDir".into(), path("work")),
            ]),
            name: driver(engine).into(),
        },
        mounts: record.mounts.clone(),
        network_settings: NetworkSettings {
            sandbox_key: if shared.pid > 0 {
                format!("/proc/{}/ns/net", shared.pid)
            } else {
                String::new()
            },
            ..engine.networks.settings(record)
        },
        kakoi: kakoi(&state_dir, record, confinement),
        host_config,
        config,
        ..ContainerInspect::default()
    }
}

/// Processes that exec added and that have not ended.
fn live_execs(engine: &Engine, shared: &Shared) -> Option<Vec<String>> {
    let is_live = |id: &&String| {
        engine
            .execs
            .find(id)
            .is_ok_and(|exec| exec.state().exit_code.is_none())
    };
    let live: Vec<String> = shared.execs.iter().filter(is_live).cloned().collect();
    (!live.is_empty()).then_some(live)
}

/// What confines it: asked for, compiled, and accepted by the kernel.
fn kakoi(state_dir: &Path, record: &Record, confinement: Option<Confinement>) -> ContainerKakoi {
    let confinement = confinement.and_then(|confinement| serde_json::to_value(confinement).ok());
    let receipt = std::fs::read(state_dir.join("receipt.json"))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    ContainerKakoi {
        policy: record.policy.name.clone(),
        policy_sha256: record.policy.sha256.clone(),
        confinement: confinement.unwrap_or(Value::Null),
        receipt: receipt.unwrap_or(Value::Null),
        secrets: record.secrets.clone(),
    }
}

/// How root file systems are made here.
pub fn driver(engine: &Engine) -> &'static str {
    if engine.facts.overlayfs {
        "overlay2"
    } else {
        "copy"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kakoi_api::container::Health;

    #[test]
    fn states_read_as_dockers_do() {
        let now: Timestamp = "2026-11-24T12:00:00Z".parse().expect("a time");
        let container = Container::new(crate::life::start::tests::record("aa"), Phase::Created);
        let mut shared = container.shared();
        assert_eq!(status(&shared, now), "Created");
        assert_eq!(state(&shared).started_at, ZERO_TIME);
        shared.phase = Phase::Running;
        shared.record.life.started_at = Some("2026-11-24T11:57:00Z".into());
        assert_eq!(status(&shared, now), "Up 3 minutes");
        shared.health = Some(Health {
            status: "healthy".into(),
            ..Health::default()
        });
        assert_eq!(status(&shared, now), "Up 3 minutes (healthy)");
        shared.phase = Phase::Exited;
        shared.record.life.exit_code = 3;
        shared.record.life.finished_at = Some("2026-11-24T11:59:59Z".into());
        assert_eq!(status(&shared, now), "Exited (3) 1 second ago");
        assert_eq!((state(&shared).exit_code, state(&shared).running), (3, false));
    }
}
