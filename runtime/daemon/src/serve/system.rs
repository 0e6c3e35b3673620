//! The engine itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use hyper::StatusCode;
use jiff::Timestamp;
use kakoi_api::kakoi::{Doctor, Finding};
use kakoi_api::system::{
    Commit, Component, DiskUsage, Event, FirewallBackend, IndexConfig, Info, PlatformName, RegistryConfig,
    SwarmInfo, Version,
};
use kakoi_api::{API_VERSION, API_VERSION_MIN};
use kakoi_confine::FindingState;
use kakoi_image::registry::{Registry, Transport};
use kakoi_image::{Depth, Repair};
use kakoi_policy::kernel::{Arch, CgroupMode, KernelFacts};
use tokio::sync::broadcast::error::RecvError;

use super::reply::{self, Reply};
use super::router::Asked;
use super::{containers, images, stats, view};
use crate::clock;
use crate::config::read_registries;
use crate::filters::Filters;
use crate::life::container::Phase;
use crate::refusal::{Answer, Refusal};

/// The registry of names without one.
const OFFICIAL: &str = "docker.io";

/// `GET /_ping`
pub fn ping() -> Reply {
    let mut reply = reply::text(StatusCode::OK, "OK");
    let headers = reply.headers_mut();
    for (name, value) in [
        ("builder-version", "1"),
        ("swarm", "inactive"),
        ("cache-control", "no-cache, no-store, must-revalidate"),
        ("pragma", "no-cache"),
    ] {
        headers.insert(name, hyper::header::HeaderValue::from_static(value));
    }
    reply
}

/// `GET /version`
pub fn version(asked: &Asked) -> Reply {
    let own = env!("CARGO_PKG_VERSION").to_owned();
    let arch = arch(asked.engine.facts.arch).to_owned();
    let kernel = asked.engine.facts.release.clone();
    let details = BTreeMap::from([
        ("ApiVersion".to_owned(), API_VERSION.to_owned()),
        ("MinAPIVersion".to_owned(), API_VERSION_MIN.to_owned()),
        ("Arch".to_owned(), arch.clone()),
        ("Os".to_owned(), "linux".to_owned()),
        ("KernelVersion".to_owned(), kernel.clone()),
        ("BuildTime".to_owned(), String::new()),
        ("GitCommit".to_owned(), String::new()),
        ("GoVersion".to_owned(), String::new()),
        ("Experimental".to_owned(), "false".to_owned()),
    ]);
    reply::ok(&Version {
        platform: PlatformName { name: "Kakoi".into() },
        components: vec![Component {
            name: "Engine".into(),
            version: own.clone(),
            details,
        }],
        version: own,
        api_version: API_VERSION.into(),
        min_api_version: API_VERSION_MIN.into(),
        os: "linux".into(),
        arch,
        kernel_version: kernel,
        ..Version::default()
    })
}

/// The architecture in Go's words.
fn arch(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "amd64",
        Arch::Aarch64 => "arm64",
    }
}

/// `GET /info`
pub async fn info(asked: &Asked) -> Answer<Reply> {
    let engine = &asked.engine;
    let all = engine.containers.all();
    let phases: Vec<Phase> = all.iter().map(|container| container.shared().phase).collect();
    let count = |test: fn(&Phase) -> bool| wire_count(phases.iter().filter(|phase| test(phase)).count());
    let images = {
        let store = engine.images.clone();
        tokio::task::spawn_blocking(move || store.disk_usage().map(|usage| usage.images))
            .await
            .map_err(|cause| Refusal::failed("counting images failed", cause))?
            .map_err(crate::life::create::image_refusal)?
    };
    Ok(reply::ok(&Info {
        id: engine.id.clone(),
        containers: count(|_| true),
        containers_running: count(|phase| *phase == Phase::Running),
        containers_paused: count(|phase| *phase == Phase::Paused),
        containers_stopped: count(|phase| !phase.is_up()),
        images: i64::try_from(images).unwrap_or(i64::MAX),
        driver: view::driver(engine).into(),
        docker_root_dir: engine.paths.root.display().to_string(),
        plugins: BTreeMap::from([
            ("Volume".to_owned(), vec!["local".to_owned()]),
            ("Network".to_owned(), vec!["host".to_owned(), "none".to_owned()]),
            ("Log".to_owned(), vec!["json-file".to_owned(), "none".to_owned()]),
        ]),
        n_fd: fs::read_dir("/proc/self/fd").map_or(-1, |entries| wire_count(entries.count())),
        n_goroutines: fs::read_dir("/proc/self/task").map_or(-1, |entries| wire_count(entries.count())),
        system_time: clock::now(),
        logging_driver: "json-file".into(),
        n_events_listener: i64::try_from(engine.events.listeners()).unwrap_or(i64::MAX),
        server_version: env!("CARGO_PKG_VERSION").into(),
        runtimes: BTreeMap::from([("kakoi".to_owned(), serde_json::json!({"path": "kakoi-shim"}))]),
        default_runtime: "kakoi".into(),
        swarm: SwarmInfo {
            local_node_state: "inactive".into(),
        },
        live_restore_enabled: true,
        init_binary: "kakoi-shim".into(),
        containerd_commit: no_part(),
        runc_commit: no_part(),
        init_commit: no_part(),
        firewall_backend: FirewallBackend {
            driver: "nftables".into(),
        },
        registry_config: registry_config(&engine.paths.config),
        ..host_part(&engine.facts)
    }))
}

/// What of Docker's parts is not there, in its word.
fn no_part() -> Commit {
    Commit { id: "N/A".into() }
}

/// How registries are spoken to, by the owner's file as it is now; one that cannot be read is told to whoever pulls.
fn registry_config(config: &Path) -> RegistryConfig {
    let mut registries = read_registries(config).unwrap_or_default().registries;
    registries.entry(OFFICIAL.to_owned()).or_default();
    let index = |(name, registry): (&String, &Registry)| {
        let config = IndexConfig {
            name: name.clone(),
            mirrors: registry.mirrors.clone(),
            secure: registry
                .transport
                .is_none_or(|transport| transport == Transport::Https),
            official: name == OFFICIAL,
        };
        (name.clone(), config)
    };
    RegistryConfig {
        index_configs: registries.iter().map(index).collect(),
        mirrors: registries[OFFICIAL].mirrors.clone(),
        ..RegistryConfig::default()
    }
}

fn wire_count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// What `info` tells of the machine and its kernel.
fn host_part(facts: &KernelFacts) -> Info {
    let has = |controller: &str| facts.cgroup_controllers.contains(controller);
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let os_release = read("/etc/os-release");
    let field = |name: &str| {
        let line = os_release
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches('"').to_owned()
    };
    let is_v2 = facts.cgroup_mode == CgroupMode::V2;
    Info {
        memory_limit: has("memory"),
        swap_limit: has("memory"),
        cpu_cfs_period: has("cpu"),
        cpu_cfs_quota: has("cpu"),
        cpu_shares: has("cpu"),
        cpu_set: has("cpuset"),
        pids_limit: has("pids"),
        oom_kill_disable: has("memory") && !is_v2,
        ipv4_forwarding: read("/proc/sys/net/ipv4/ip_forward").trim() == "1",
        cgroup_driver: "cgroupfs".into(),
        cgroup_version: if is_v2 { "2" } else { "1" }.into(),
        kernel_version: facts.release.clone(),
        operating_system: field("PRETTY_NAME"),
        os_version: field("VERSION_ID"),
        os_type: "linux".into(),
        architecture: match facts.arch {
            Arch::X86_64 => "x86_64",
            Arch::Aarch64 => "aarch64",
        }
        .into(),
        ncpu: std::thread::available_parallelism().map_or(1, |count| wire_count(count.get())),
        mem_total: stats::memory_total(&read("/proc/meminfo"))
            .and_then(|bytes| i64::try_from(bytes).ok())
            .unwrap_or(0),
        name: read("/proc/sys/kernel/hostname").trim().to_owned(),
        security_options: security_options(facts),
        ..Info::default()
    }
}

fn security_options(facts: &KernelFacts) -> Vec<String> {
    let mut options = Vec::new();
    if facts.seccomp_filter {
        options.push("name=seccomp,profile=builtin".to_owned());
    }
    if facts.landlock_abi > 0 {
        options.push(format!("name=landlock,abi={}", facts.landlock_abi));
    }
    if facts.user_namespaces {
        options.push("name=userns".to_owned());
    }
    options
}

/// `GET /events`
pub fn events(asked: &Asked) -> Answer<Reply> {
    let filters = Filters::parse(
        asked.query.get("filters"),
        &[
            "container",
            "daemon",
            "event",
            "image",
            "label",
            "label!",
            "network",
            "scope",
            "type",
            "volume",
        ],
    )?;
    let now = Timestamp::now();
    let time = |name: &str| -> Answer<Option<i128>> {
        let parsed = asked.query.get(name).map(|text| {
            clock::parse(text, now).ok_or_else(|| Refusal::bad(format!("invalid value {text:?} for {name}")))
        });
        Ok(parsed.transpose()?.map(Timestamp::as_nanosecond))
    };
    let (since, until) = (time("since")?, time("until")?);
    let (past, mut live) = asked.engine.events.listen();
    let (sender, reply) = reply::stream("application/json");
    tokio::spawn(async move {
        let fits = |event: &Event| event_fits(event, &filters);
        let nanoseconds = |event: &Event| i128::from(event.time_nano);
        if since.is_some() || until.is_some() {
            for event in past.iter().filter(|event| fits(event)) {
                let at = nanoseconds(event);
                let in_time = since.is_none_or(|since| at >= since) && until.is_none_or(|until| at <= until);
                if in_time && !reply::send_line(&sender, event).await {
                    return;
                }
            }
        }
        let left = until.map(|until| until - Timestamp::now().as_nanosecond());
        let end = async {
            match left.map(|left| u64::try_from(left.max(0)).unwrap_or(u64::MAX)) {
                Some(nanoseconds) => tokio::time::sleep(std::time::Duration::from_nanos(nanoseconds)).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(end);
        loop {
            let event = tokio::select! {
                event = live.recv() => event,
                () = &mut end => return,
                () = sender.closed() => return,
            };
            match event {
                Ok(event) if fits(&event) => {
                    if !reply::send_line(&sender, &event).await {
                        return;
                    }
                }
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "a slow listener missed events, ignoring")
                }
                Err(RecvError::Closed) => return,
            }
        }
    });
    Ok(reply)
}

fn event_fits(event: &Event, filters: &Filters) -> bool {
    let name = event.actor.attributes.get("name").map_or("", String::as_str);
    let of = |kind: &str| {
        filters.any(kind, |wanted| {
            event.kind == kind && (event.actor.id.starts_with(wanted) || name == wanted)
        })
    };
    filters.any("type", |kind| kind == event.kind)
        && filters.any("scope", |scope| scope == event.scope)
        && filters.any("event", |action| {
            action == event.action
                || event
                    .action
                    .split_once(':')
                    .is_some_and(|(word, _)| word == action)
        })
        && of("container")
        && filters.any("image", |wanted| {
            (event.kind == "image" && (event.actor.id == wanted || name == wanted))
                || event
                    .actor
                    .attributes
                    .get("image")
                    .is_some_and(|image| image == wanted)
        })
        && of("volume")
        && of("network")
        && of("daemon")
        && filters.labels(&event.actor.attributes)
}

/// `GET /system/df`
pub async fn disk_usage(asked: &Asked) -> Answer<Reply> {
    let engine = asked.engine.clone();
    let rows = containers::select(&engine, &Filters::default(), true, None)?;
    let rows = containers::with_sizes(&engine, rows).await?;
    let measured = engine.clone();
    let (layers, images, volumes) = tokio::task::spawn_blocking(move || -> Answer<_> {
        let usage = measured
            .images
            .disk_usage()
            .map_err(crate::life::create::image_refusal)?;
        let images = images::select(&measured, &Filters::default())?;
        let volumes = measured
            .volumes
            .all()
            .iter()
            .map(|volume| {
                let mut wire = measured.volumes.to_wire(&measured, volume);
                wire.usage_data = Some(measured.volumes.usage(&measured, &volume.name));
                wire
            })
            .collect();
        Ok((usage.layers_bytes, images, volumes))
    })
    .await
    .map_err(|cause| Refusal::failed("measuring failed", cause))??;
    Ok(reply::ok(&DiskUsage {
        layers_size: i64::try_from(layers).unwrap_or(i64::MAX),
        images,
        containers: rows,
        volumes,
        build_cache: Vec::new(),
    }))
}

/// `POST /kakoi/v1/system/check`: `repair` heals what can be healed, `hash` reads everything.
pub async fn check(asked: &Asked) -> Answer<Reply> {
    let flag = |name| asked.query.flag(name);
    let depth = if flag("hash") {
        Depth::Content
    } else {
        Depth::Metadata
    };
    let repair = if flag("repair") { Repair::Full } else { Repair::No };
    Ok(reply::ok(
        &crate::check::check(&asked.engine, depth, repair).await?,
    ))
}

/// `GET /kakoi/v1/doctor`
pub fn doctor(asked: &Asked) -> Reply {
    let findings = kakoi_confine::doctor(&asked.engine.facts)
        .into_iter()
        .map(|finding| Finding {
            name: finding.name,
            status: match finding.state {
                FindingState::Good => "ok",
                FindingState::Reduced => "degraded",
                FindingState::Missing => "missing",
                FindingState::Unknown => "unknown",
            }
            .into(),
            found: String::new(),
            cost: finding.consequence,
            remedy: finding.remedy,
        })
        .collect();
    let facts = serde_json::to_value(&asked.engine.facts).expect("facts are plain data");
    reply::ok(&Doctor { findings, facts })
}

/// `GET /kakoi/v1/policies`
pub fn policies(asked: &Asked) -> Reply {
    reply::ok(&asked.engine.shelf().list())
}

/// `GET /kakoi/v1/policies/{name}`
pub fn policy(asked: &Asked, name: &str) -> Answer<Reply> {
    Ok(reply::ok(&asked.engine.shelf().text(name)?))
}
