//! Testing health on a timer: the image's or the flags' command, run like an `exec`; or a port or page of the container's own loopback.
//!
//! Owns the schedule and the verdict; the verdict is a pure step ([`judge`]).

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kakoi_api::container::{ContainerConfig, Health, HealthConfig, HealthResult};
use kakoi_net::probe;

use super::container::{Container, Phase};
use crate::clock;
use crate::engine::Engine;
use crate::exec;
use crate::refusal::chain;
use crate::shim;

/// Docker's defaults.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: i64 = 3;
/// Results kept: Docker's figure.
const RESULTS_MAX: usize = 5;

/// In a test: connect to a port of the container's own loopback.
pub const TCP: &str = "KAKOI-TCP";
/// In a test: ask there for a page, by port and path.
pub const HTTP: &str = "KAKOI-HTTP";
/// Longest path of a page.
const PATH_BYTES_MAX: usize = 4096;

/// What a test does.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Probe {
    Command(Vec<String>),
    Tcp(u16),
    Http(u16, String),
}

/// How health is tested.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Test {
    probe: Probe,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: i64,
}

impl Test {
    /// `None` where health is not tested.
    fn of(config: &ContainerConfig) -> Option<Self> {
        let health = config.healthcheck.as_ref()?;
        let probe = match health.test.split_first() {
            Some((kind, rest)) if kind == "CMD" && !rest.is_empty() => Probe::Command(rest.to_vec()),
            Some((kind, [line])) if kind == "CMD-SHELL" => {
                let shell = config.shell.clone().filter(|shell| !shell.is_empty());
                let mut command = shell.unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
                command.push(line.clone());
                Probe::Command(command)
            }
            Some((kind, rest)) if matches!(kind.as_str(), TCP | HTTP) => asked(kind, rest)?,
            _ => return None,
        };
        let or = |nanoseconds: i64, default| match u64::try_from(nanoseconds) {
            Ok(0) | Err(_) => default,
            Ok(nanoseconds) => Duration::from_nanos(nanoseconds),
        };
        Some(Self {
            probe,
            interval: or(health.interval, INTERVAL),
            timeout: or(health.timeout, TIMEOUT),
            start_period: or(health.start_period, Duration::ZERO),
            start_interval: or(health.start_interval, START_INTERVAL),
            retries: if health.retries > 0 {
                health.retries
            } else {
                RETRIES
            },
        })
    }
}

/// How long it may take at most from a start until health is known; nothing where it is not tested.
pub fn verdict_time(config: &ContainerConfig) -> Duration {
    let Some(test) = Test::of(config) else {
        return Duration::ZERO;
    };
    let tests = u32::try_from(test.retries).unwrap_or(u32::MAX).saturating_add(1);
    let one = test.interval.max(test.start_interval) + test.timeout;
    // A day is more than anybody waits for a version.
    (test.start_period + one.saturating_mul(tests)).min(Duration::from_secs(24 * 3600))
}

/// Whether a health check of a request is well formed: Docker's rules.
pub fn check(health: &HealthConfig) -> Result<(), String> {
    const SHORTEST: i64 = 1_000_000;
    match health.test.split_first() {
        None => {}
        Some((kind, [])) if kind == "NONE" => {}
        Some((kind, [_, ..])) if kind == "CMD" => {}
        Some((kind, [_])) if kind == "CMD-SHELL" => {}
        Some((kind, rest)) if asked(kind, rest).is_some() => {}
        Some((kind, _)) => {
            return Err(format!(
                "invalid healthcheck: test {kind:?} with a wrong number of arguments"
            ));
        }
    }
    for (name, value) in [
        ("interval", health.interval),
        ("timeout", health.timeout),
        ("start period", health.start_period),
        ("start interval", health.start_interval),
    ] {
        if value != 0 && value < SHORTEST {
            return Err(format!("{name} in Healthcheck cannot be less than 1ms"));
        }
    }
    if health.retries < 0 {
        return Err("retries in Healthcheck cannot be negative".into());
    }
    Ok(())
}

/// A test of a port or page; `None` where it is not written as one.
fn asked(kind: &str, rest: &[String]) -> Option<Probe> {
    let port = |text: &String| text.parse::<u16>().ok().filter(|port| *port > 0);
    let is_path = |path: &String| {
        path.starts_with('/')
            && path.len() <= PATH_BYTES_MAX
            && path.bytes().all(|byte| byte.is_ascii_graphic())
    };
    match (kind, rest) {
        (TCP, [number]) => Some(Probe::Tcp(port(number)?)),
        (HTTP, [number, path]) if is_path(path) => Some(Probe::Http(port(number)?, path.clone())),
        _ => None,
    }
}

/// Makes a test: its exit code, as a command's would be, and what is to be said about it.
async fn run(engine: &Arc<Engine>, container: &Arc<Container>, test: &Test) -> (i32, String) {
    let (port, path) = match &test.probe {
        Probe::Command(command) => return exec::probe(engine, container, command, test.timeout).await,
        Probe::Tcp(port) => (*port, None),
        Probe::Http(port, path) => (*port, Some(path.clone())),
    };
    // The shim has the namespace; a daemon that gave up looking into other processes cannot take it from /proc.
    let netns = match shim::network(&engine.paths.run_dir(&container.id)).await {
        Ok(netns) => netns,
        Err(error) => return (-1, chain(&error)),
    };
    let limit = test.timeout;
    let asked = tokio::task::spawn_blocking(move || match path {
        None => probe::connect(netns.as_fd(), port, limit).map(|()| format!("port {port} answers")),
        Some(path) => probe::get(netns.as_fd(), port, &path, limit).map(|code| format!("status {code}")),
    });
    match asked.await {
        Ok(Ok(said)) => (0, said),
        Ok(Err(error)) => (1, chain(&error)),
        Err(cause) => (-1, cause.to_string()),
    }
}

/// Begins to test a container's health, if it is to be tested.
pub fn begin(engine: &Arc<Engine>, container: &Arc<Container>) {
    let test = Test::of(&container.shared().record.config);
    let Some(test) = test else {
        container.shared().health = None;
        return;
    };
    let (engine, target) = (engine.clone(), container.clone());
    let task = tokio::spawn(async move { keep_testing(&engine, &target, &test).await });
    let mut shared = container.shared();
    shared.health = Some(Health {
        status: "starting".into(),
        failing_streak: 0,
        log: Vec::new(),
    });
    if shared.phase.is_up() {
        shared.health_task = Some(task.abort_handle());
    } else {
        task.abort();
    }
}

async fn keep_testing(engine: &Arc<Engine>, container: &Arc<Container>, test: &Test) {
    let begun = tokio::time::Instant::now();
    loop {
        let is_starting = begun.elapsed() < test.start_period
            && container
                .shared()
                .health
                .as_ref()
                .is_some_and(|health| health.status == "starting");
        tokio::time::sleep(if is_starting {
            test.start_interval
        } else {
            test.interval
        })
        .await;
        if container.shared().phase != Phase::Running {
            continue;
        }
        let start = Timestamp::now();
        let (exit_code, output) = run(engine, container, test).await;
        let result = HealthResult {
            start: clock::format(start),
            end: clock::now(),
            exit_code: exit_code.into(),
            output,
        };
        let in_start_period = begun.elapsed() < test.start_period;
        let changed = {
            let mut shared = container.shared();
            let Some(health) = shared.health.as_mut() else {
                return;
            };
            let before = health.status.clone();
            judge(health, result, in_start_period, test.retries);
            (health.status != before).then(|| health.status.clone())
        };
        if let Some(status) = changed {
            engine.events.tell(
                "container",
                &format!("health_status: {status}"),
                &container.id,
                container.attributes(),
            );
        }
    }
}

/// Takes in one result.
fn judge(health: &mut Health, result: HealthResult, in_start_period: bool, retries: i64) {
    if result.exit_code == 0 {
        health.failing_streak = 0;
        health.status = "healthy".into();
    } else if !(in_start_period && health.status == "starting") {
        health.failing_streak += 1;
        if health.failing_streak >= retries {
            health.status = "unhealthy".into();
        }
    }
    health.log.push(result);
    if health.log.len() > RESULTS_MAX {
        health.log.remove(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(exit_code: i64) -> HealthResult {
        HealthResult {
            exit_code,
            ..HealthResult::default()
        }
    }

    #[test]
    fn failures_count_only_after_the_start_period() {
        let mut health = Health {
            status: "starting".into(),
            ..Health::default()
        };
        for _ in 0..9 {
            judge(&mut health, result(1), true, 3);
        }
        assert_eq!(
            (health.status.as_str(), health.failing_streak, health.log.len()),
            ("starting", 0, RESULTS_MAX)
        );
        for _ in 0..2 {
            judge(&mut health, result(1), false, 3);
        }
        assert_eq!(health.status, "starting");
        judge(&mut health, result(-1), false, 3);
        assert_eq!(health.status, "unhealthy");
        judge(&mut health, result(0), false, 3);
        assert_eq!((health.status.as_str(), health.failing_streak), ("healthy", 0));
        judge(&mut health, result(1), true, 3);
        assert_eq!(
            health.failing_streak, 1,
            "a healthy container has left its start period"
        );
    }

    #[test]
    fn reads_commands() {
        let with = |test: &[&str]| {
            let health = HealthConfig {
                test: test.iter().map(|word| (*word).into()).collect(),
                ..Default::default()
            };
            check(&health).map(|()| {
                Test::of(&ContainerConfig {
                    healthcheck: Some(health),
                    ..Default::default()
                })
            })
        };
        let probe = |test: &[&str]| with(test).expect("valid").map(|test| test.probe);
        let command = |test: &[&str]| match probe(test) {
            Some(Probe::Command(words)) => Some(words),
            _ => None,
        };
        assert_eq!(probe(&[TCP, "80"]), Some(Probe::Tcp(80)));
        assert_eq!(probe(&[HTTP, "80", "/x"]), Some(Probe::Http(80, "/x".into())));
        assert_eq!(command(&["CMD", "a", "b"]), Some(vec!["a".into(), "b".into()]));
        assert_eq!(
            command(&["CMD-SHELL", "a b"]),
            Some(vec!["/bin/sh".into(), "-c".into(), "a b".into()])
        );
        assert_eq!(command(&["NONE"]), None);
        assert_eq!(command(&[]), None);
        for bad in [
            &["CMD"][..],
            &["CMD-SHELL"],
            &["CMD-SHELL", "a", "b"],
            &["NONE", "a"],
            &["curl"],
            &[TCP],
            &[TCP, "0"],
            &[TCP, "65536"],
            &[HTTP, "80"],
            &[HTTP, "80", "x"],
            &[HTTP, "80", "/a b"],
            &[HTTP, "80", "/a\r\nHost: b"],
        ] {
            assert!(with(bad).is_err(), "{bad:?}");
        }
    }
}
