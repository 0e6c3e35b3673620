//! `kill -9` of the daemon at two hundred and ten moments of making, starting, stopping, entering and removing containers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::given::{Daemon, ask, entries, needs_root};

const KILLS: u32 = 210;
/// After so many kills everything is compared and cleared away.
const ROUND: u32 = 30;

/// What a client does last, beside making a container and starting it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Last {
    #[default]
    Create,
    Start,
    Remove,
    /// It removes itself.
    End,
    Stop,
    Exec,
}

const LASTS: [Last; 6] = [
    Last::Create,
    Last::Start,
    Last::Remove,
    Last::End,
    Last::Stop,
    Last::Exec,
];

/// What a client was told before the daemon died.
#[derive(Debug, Default)]
struct Told {
    last: Last,
    created: bool,
    started: bool,
    removed: bool,
    stopped: bool,
    executed: bool,
}

/// Works as a client does until the daemon is gone.
fn work(socket: PathBuf, name: String, last: Last) -> Told {
    let mut told = Told {
        last,
        ..Told::default()
    };
    let is_ephemeral = last == Last::End;
    let command = if is_ephemeral {
        vec!["true"]
    } else {
        vec!["sleep", "100000"]
    };
    // What a person stopped is not to come back, whoever was killed meanwhile.
    let restart = if last == Last::Stop {
        "unless-stopped"
    } else {
        "no"
    };
    let host = json!({"AutoRemove": is_ephemeral, "RestartPolicy": {"Name": restart}});
    let body = json!({"Image": "bb", "Cmd": command, "HostConfig": host}).to_string();
    let ask = |method: &str, path: String, body: &str| match ask(&socket, method, &path, body.as_bytes()) {
        Ok((200..=299, answer)) => Some(answer),
        _ => None,
    };
    let ok = |method: &str, path: String| ask(method, path, "").is_some();
    told.created = ask("POST", format!("/containers/create?name={name}"), &body).is_some();
    if last == Last::Create || !told.created {
        return told;
    }
    told.started = ok("POST", format!("/containers/{name}/start"));
    match last {
        Last::Create | Last::Start | Last::End => {}
        Last::Remove => told.removed = ok("DELETE", format!("/containers/{name}?force=1")),
        Last::Stop => told.stopped = ok("POST", format!("/containers/{name}/stop?t=0")),
        Last::Exec => {
            let made = ask("POST", format!("/containers/{name}/exec"), "{\"Cmd\":[\"true\"]}");
            let made: Option<Value> = made.and_then(|answer| serde_json::from_str(answer.trim()).ok());
            if let Some(id) = made.as_ref().and_then(|made| made["Id"].as_str()) {
                told.executed = ask("POST", format!("/exec/{id}/start"), "{\"Detach\":true}").is_some();
            }
        }
    }
    told
}

/// Runs a program in a container whose daemon is another than the one that started it; says how it ended.
fn execute(daemon: &Daemon, name: &str) -> Value {
    let body = json!({"Cmd": ["true"]});
    let made = daemon.must(201, "POST", &format!("/containers/{name}/exec"), Some(body));
    let id = made["Id"].as_str().expect("an id").to_owned();
    daemon.must(
        200,
        "POST",
        &format!("/exec/{id}/start"),
        Some(json!({"Detach": true})),
    );
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let seen = daemon.must(200, "GET", &format!("/exec/{id}/json"), None);
        if seen["Running"] == false || Instant::now() > end {
            return seen["ExitCode"].clone();
        }
        std::thread::yield_now();
    }
}

#[test]
fn killing_the_daemon_loses_and_doubles_nothing() {
    needs_root!();
    let mut daemon = Daemon::start();
    daemon.create("rock", &["sleep", "100000"], json!({}));
    daemon.must(204, "POST", "/containers/rock/start", None);
    let rock = daemon.state("rock")["Pid"].clone();
    let lengths = LASTS.map(|last| {
        let begun = Instant::now();
        let name = format!("whole-{last:?}");
        let told = work(daemon.path("run/kakoid.sock"), name.clone(), last);
        assert!(told.created, "{told:?}");
        let length = begun.elapsed();
        let path = format!("/containers/{name}?force=1");
        daemon.ask("DELETE", &path, None).expect("an answer");
        length
    });
    let (mut told, mut reached) = (BTreeMap::new(), Vec::new());
    for kill in 0..KILLS {
        let name = format!("pebble-{kill}");
        let socket = daemon.path("run/kakoid.sock");
        let worker = {
            let name = name.clone();
            let last = LASTS[kill as usize % LASTS.len()];
            std::thread::spawn(move || work(socket, name, last))
        };
        // Moments spread over a whole life of its kind and a quarter more, after its last answer; the moment is the point, so there is no event to wait for.
        let at = lengths[kill as usize % LASTS.len()] * (kill * 7919 % KILLS) / KILLS * 5 / 4;
        let moment = Instant::now() + at;
        while Instant::now() < moment {
            std::thread::yield_now();
        }
        daemon.kill();
        told.insert(name, worker.join().expect("the worker does not panic"));
        daemon.up();
        if kill % ROUND == ROUND - 1 {
            compare(&daemon, &told);
            for told in told.values() {
                reached.push((
                    told.last,
                    told.started,
                    told.removed || told.stopped || told.executed,
                ));
            }
            told.clear();
            assert_eq!(
                daemon.state("rock")["Pid"],
                rock,
                "the rock was moved by kill {kill}"
            );
        }
    }
    daemon.is_clean();
    for last in LASTS {
        let of_kind: Vec<_> = reached.iter().filter(|(kind, ..)| *kind == last).collect();
        let (started, done) = (
            of_kind.iter().filter(|(_, started, _)| *started).count(),
            of_kind.iter().filter(|(.., is_done)| *is_done).count(),
        );
        let kills = of_kind.len();
        println!("{last:?}: {kills} kills, {started} after the start, {done} after the end");
    }
}

fn compare(daemon: &Daemon, told: &BTreeMap<String, Told>) {
    let rows = daemon.must(200, "GET", "/containers/json?all=1", None);
    let mut held: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for row in rows.as_array().expect("a list") {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = text(&row["Names"][0]).trim_start_matches('/').to_owned();
        held.entry(name)
            .or_default()
            .push((text(&row["Id"]), text(&row["State"])));
    }
    for (name, told) in told {
        let rows = held.get(name).map(Vec::as_slice).unwrap_or_default();
        assert!(rows.len() <= 1, "{name} is there {} times", rows.len());
        if told.removed {
            assert!(rows.is_empty(), "{name} was removed and is back: {told:?}");
        }
        if !told.created || matches!(told.last, Last::Remove | Last::End) {
            continue;
        }
        let why = || format!("{name}: {told:?}\n{}", daemon.log());
        assert_eq!(rows.len(), 1, "it was confirmed and is lost: {}", why());
        let state = rows[0].1.as_str();
        match told.last {
            Last::Stop if told.stopped => assert_eq!(state, "exited", "{}", why()),
            // It may have been asked for and not answered.
            Last::Stop => {}
            _ if told.started => assert_eq!(state, "running", "{}", why()),
            _ => {}
        }
        if told.last == Last::Exec && told.started {
            assert_eq!(execute(daemon, name), 0, "{}", why());
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
