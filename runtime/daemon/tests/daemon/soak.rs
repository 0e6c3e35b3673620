//! `kill -9` of the daemon at two hundred moments of making, starting and removing containers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::given::{Daemon, ask, entries, needs_root};

const KILLS: u32 = 200;
/// After so many kills everything is compared and cleared away.
const ROUND: u32 = 25;

/// What a client was told before the daemon died.
#[derive(Debug, Default)]
struct Told {
    created: bool,
    started: bool,
    removal_asked: bool,
    removed: bool,
    ephemeral: bool,
}

/// Works as a client does until the daemon is gone.
fn work(socket: PathBuf, name: String, kind: u32) -> Told {
    let mut told = Told {
        ephemeral: kind == 3,
        ..Told::default()
    };
    let command = if told.ephemeral {
        vec!["true"]
    } else {
        vec!["sleep", "100000"]
    };
    let body =
        json!({"Image": "bb", "Cmd": command, "HostConfig": {"AutoRemove": told.ephemeral}}).to_string();
    let ok = |method: &str, path: String, body: &str| {
        matches!(ask(&socket, method, &path, body.as_bytes()), Ok((200..=299, _)))
    };
    told.created = ok("POST", format!("/containers/create?name={name}"), &body);
    if kind == 0 || !told.created {
        return told;
    }
    told.started = ok("POST", format!("/containers/{name}/start"), "");
    if kind == 2 {
        told.removal_asked = true;
        told.removed = ok("DELETE", format!("/containers/{name}?force=1"), "");
    }
    told
}

#[test]
fn killing_the_daemon_loses_and_doubles_nothing() {
    needs_root!();
    let mut daemon = Daemon::start();
    daemon.create("rock", &["sleep", "100000"], json!({}));
    daemon.must(204, "POST", "/containers/rock/start", None);
    let rock = daemon.state("rock")["Pid"].clone();
    let mut told = BTreeMap::new();
    for kill in 0..KILLS {
        let name = format!("pebble-{kill}");
        let socket = daemon.path("run/kakoid.sock");
        let worker = {
            let name = name.clone();
            std::thread::spawn(move || work(socket, name, kill % 4))
        };
        // Moments spread over a whole life; the moment is the point, so there is no event to wait for.
        let moment =
            Instant::now() + Duration::from_micros(u64::from(kill * 7919 % 120_000 / 4 * 4 % 120) * 1000);
        while Instant::now() < moment {
            std::thread::yield_now();
        }
        daemon.kill();
        told.insert(name, worker.join().expect("the worker does not panic"));
        daemon.up();
        if kill % ROUND == ROUND - 1 {
            compare(&daemon, &told);
            told.clear();
            assert_eq!(
                daemon.state("rock")["Pid"],
                rock,
                "the rock was moved by kill {kill}"
            );
        }
    }
    daemon.is_clean();
}

fn compare(daemon: &Daemon, told: &BTreeMap<String, Told>) {
    let rows = daemon.must(200, "GET", "/containers/json?all=1", None);
    let mut held: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for row in rows.as_array().expect("a list") {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let name = text(&row["Names"][0]).trim_start_matches('/').to_owned();
        held.entry(name)
            .or_default()
            .push((text(&row["Id"]), text(&row["State"])));
    }
    for (name, told) in told {
        let rows = held.get(name).map(Vec::as_slice).unwrap_or_default();
        assert!(rows.len() <= 1, "{name} is there {} times", rows.len());
        if told.created && !told.removal_asked && !told.ephemeral {
            assert_eq!(
                rows.len(),
                1,
                "{name} was confirmed and is lost: {told:?}\n{}",
                daemon.log()
            );
        }
        if told.removed {
            assert!(rows.is_empty(), "{name} was removed and is back: {told:?}");
        }
        if told.started && !told.removal_asked && !told.ephemeral {
            assert_eq!(rows[0].1, "running", "{name}: {told:?}\n{}", daemon.log());
        }
    }
    let sorted_ids = || {
        let mut ids = daemon.ids();
        ids.sort();
        ids
    };
    // One that removes itself may be in the middle of it, which nobody but its daemon can wait for.
    let end = Instant::now() + Duration::from_secs(10);
    let mut ids = sorted_ids();
    while entries(&daemon.path("root/containers")) != ids && Instant::now() < end {
        std::thread::yield_now();
        ids = sorted_ids();
    }
    assert_eq!(
        entries(&daemon.path("root/containers")),
        ids,
        "folders and containers differ"
    );
    for id in ids {
        let (status, answer) = daemon
            .ask("GET", &format!("/containers/{id}/json"), None)
            .expect("an answer");
        // One that removes itself may go first.
        if status == 200 && answer["Name"] != "/rock" {
            let (status, answer) = daemon
                .ask("DELETE", &format!("/containers/{id}?force=1"), None)
                .expect("an answer");
            assert!(status == 204 || status == 404, "{answer}");
        }
    }
}
