//! Traps 27 to 39: events, ends, health, restarts, files, figures.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use serde_json::{Value, json};

use super::{Of, Row, World};

pub const ROWS: &[Row] = &[
    (27, "events in Docker's words", Of::All, event_words),
    (28, "the order at the end", Of::All, event_order),
    (29, "a pull that fails at once is an error", Of::All, failed_pull),
    (31, "how long a stop waits", Of::All, stops),
    (32, "health tests", Of::All, health),
    (33, "restarts are counted, and changed live", Of::All, restarts),
    (34, "folders that are made", Of::All, folders),
    (35, "no entry point is not an empty one", Of::All, entry_points),
    (36, "modes are Go's", Of::All, path_stat),
    (37, "copying into what never ran", Of::All, copied_in),
    (38, "columns of top", Of::All, top),
    (39, "figures of running and ended ones", Of::All, stats),
];

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_secs()
}

/// Events since a moment.
#[track_caller]
fn events(world: &World, since: u64) -> Vec<Value> {
    let path = format!("/events?since={since}&until={}", now() + 1);
    let text = world.engine.ask("GET", &path, None).text();
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

fn event_words(world: &World) {
    let since = now();
    let name = world.running("exit 7");
    world.ended(&name);
    world
        .engine
        .must(201, "POST", "/images/traps:1/tag?repo=traps&tag=gone", None);
    world.engine.must(200, "DELETE", "/images/traps:gone", None);
    let made = world.engine.ask_bytes(
        "POST",
        "/images/create?fromSrc=-&repo=fleeting&tag=1",
        "application/x-tar",
        &[0; 1024],
    );
    assert_eq!(made.head.status, 200);
    world.engine.must(200, "DELETE", "/images/fleeting:1", None);
    let all = events(world, since);
    let die = all
        .iter()
        .find(|event| event["Action"] == "die" && event["Actor"]["Attributes"]["name"] == name.as_str());
    let die = die.expect("it died");
    assert_eq!(die["Actor"]["Attributes"]["exitCode"], "7");
    assert_eq!(
        (&die["status"], &die["Type"]),
        (&json!("die"), &json!("container"))
    );
    assert!(
        die["timeNano"].as_i64().expect("a number") / 1_000_000_000
            == die["time"].as_i64().expect("a number")
    );
    for word in ["tag", "untag", "delete"] {
        let found = all
            .iter()
            .any(|event| event["Type"] == "image" && event["Action"] == word);
        assert!(found, "{word}: {all:#?}");
    }
}

fn event_order(world: &World) {
    let since = now();
    let name = world.running("sleep 100000");
    world
        .engine
        .must(204, "POST", &format!("/containers/{name}/stop?t=0"), None);
    world
        .engine
        .must(204, "DELETE", &format!("/containers/{name}"), None);
    let all = events(world, since);
    let words: Vec<&str> = all
        .iter()
        .filter(|event| event["Actor"]["Attributes"]["name"] == name.as_str())
        .filter_map(|event| event["Action"].as_str())
        .collect();
    let at = |word: &str| words.iter().position(|held| *held == word);
    let order = ["create", "start", "kill", "die", "stop", "destroy"].map(at);
    assert!(
        order.iter().all(Option::is_some) && order.is_sorted(),
        "{words:?}"
    );
    assert_eq!(words.last(), Some(&"destroy"));
}

fn failed_pull(world: &World) {
    world.refused_pull("");
    let answer = world.post("/images/create?fromImage=Not+A+Name&tag=1");
    assert_eq!(answer.head.status, 400, "{}", answer.text());
}

fn stops(world: &World) {
    const DEAF: &str = "trap '' TERM; while :; do sleep 1; done";
    const POLITE: &str = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done";
    for (script, fields, query, code) in [
        (DEAF, json!({}), "?t=0", 137),
        (DEAF, json!({"StopTimeout": 0}), "", 137),
        (POLITE, json!({}), "?t=-1", 3),
        (POLITE, json!({"StopTimeout": -1}), "", 3),
        (POLITE, json!({}), "", 3),
    ] {
        let mut fields = fields;
        fields["Cmd"] = json!(["sh", "-c", script]);
        let name = world.create(&fields);
        world.start(&name);
        if script == POLITE {
            let head = format!("GET /containers/{name}/logs?follow=1&stdout=1 HTTP/1.1\nHost: docker");
            let mut log = world.engine.send(&head, b"");
            log.head();
            assert!(log.chunk().ends_with(b"ready\n"));
        }
        world
            .engine
            .must(204, "POST", &format!("/containers/{name}/stop{query}"), None);
        assert_eq!(world.ended(&name), code, "{script} {fields} {query}");
        // Again it is nothing to do.
        assert_eq!(
            world.post(&format!("/containers/{name}/stop{query}")).head.status,
            304
        );
    }
}

fn health(world: &World) {
    let test = json!(["CMD-SHELL", "exit 0"]);
    let name = world.create(&json!({
        "Cmd": ["sleep", "100000"], "Healthcheck": {"Test": test, "Interval": 100_000_000_u64},
    }));
    assert_eq!(
        world.inspect(&name)["Config"]["Healthcheck"]["Test"],
        test,
        "not doubled"
    );
    world.start(&name);
    kakoi_integration::wait::until("it is healthy", || {
        world.inspect(&name)["State"]["Health"]["Status"] == "healthy"
    });
    let log = &world.inspect(&name)["State"]["Health"]["Log"];
    assert_eq!(log[0]["ExitCode"], 0);
    let name = world.create(&json!({"Cmd": ["sleep", "100000"], "Healthcheck": {"Test": ["NONE"]}}));
    world.start(&name);
    assert_eq!(world.inspect(&name)["State"]["Health"], Value::Null);
}

fn restarts(world: &World) {
    let name = world.create(&json!({
        "Cmd": ["sh", "-c", "exit 4"],
        "HostConfig": {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}},
    }));
    world.start(&name);
    kakoi_integration::wait::until("it gives up", || {
        let seen = world.inspect(&name);
        seen["RestartCount"] == 2 && seen["State"]["Status"] == "exited"
    });
    assert_eq!(world.inspect(&name)["State"]["ExitCode"], 4);
    let name = world.running("sleep 100000");
    let policy = json!({"RestartPolicy": {"Name": "unless-stopped"}});
    world
        .engine
        .must(200, "POST", &format!("/containers/{name}/update"), Some(&policy));
    let seen = world.inspect(&name);
    assert_eq!(seen["HostConfig"]["RestartPolicy"]["Name"], "unless-stopped");
    let answer = world.engine.ask(
        "POST",
        &format!("/containers/{name}/update"),
        Some(&json!({"RestartPolicy": {"Name": "sometimes"}})),
    );
    assert_eq!(answer.head.status, 400, "{}", answer.text());
}

fn folders(world: &World) {
    let source = world.folder.join("bound/deep");
    let name = world.create(&json!({
        "Cmd": ["pwd"], "WorkingDir": "/made/here", "Volumes": {"/data/": {}},
        "HostConfig": {"Binds": [format!("{}:/bound", source.display())]},
    }));
    world.start(&name);
    assert_eq!(world.ended(&name), 0);
    assert!(source.is_dir(), "the source of a bind is made");
    let said = world
        .engine
        .ask("GET", &format!("/containers/{name}/logs?stdout=1"), None);
    assert!(said.text().ends_with("/made/here\n"), "{}", said.text());
    let seen = world.inspect(&name);
    let mounts = seen["Mounts"].as_array().expect("a list");
    assert!(
        mounts.iter().any(|mount| mount["Destination"] == "/data"),
        "{mounts:?}"
    );
    world.remove(&name);
    fs::remove_dir_all(world.folder.join("bound")).expect("it was made");
}

fn entry_points(world: &World) {
    let path = "/images/create?fromSrc=-&repo=entry&tag=1&changes=ENTRYPOINT%20%5B%22echo%22%2C%22image%22%5D&changes=ENV%20PATH=/bin";
    let rootfs = kakoi_integration::image::busybox_layer(&kakoi_integration::host::binary("attacker"));
    let made = world.engine.ask_bytes("POST", path, "application/x-tar", &rootfs);
    assert_eq!(made.head.status, 200, "{}", made.text());
    for (fields, said) in [
        (json!({"Cmd": ["x"]}), "image x\n"),
        (json!({"Cmd": ["x"], "Entrypoint": null}), "image x\n"),
        (json!({"Cmd": ["echo", "x"], "Entrypoint": []}), "x\n"),
        (json!({"Cmd": ["x"], "Entrypoint": ["echo"]}), "x\n"),
        (json!({"Cmd": ["x"], "Entrypoint": "echo"}), "x\n"),
        (json!({"Cmd": "x"}), "image x\n"),
    ] {
        let mut all = fields.clone();
        all["Image"] = json!("entry:1");
        all["Tty"] = json!(false);
        let name = world.create(&all);
        world.start(&name);
        world.ended(&name);
        let logs = world
            .engine
            .ask("GET", &format!("/containers/{name}/logs?stdout=1"), None);
        let (out, _) = kakoi_integration::http::unframed(&logs.body);
        assert_eq!(String::from_utf8_lossy(&out), said, "{fields}");
        world.remove(&name);
    }
    world.engine.must(200, "DELETE", "/images/entry:1", None);
}

#[track_caller]
fn stat(world: &World, name: &str, path: &str) -> Value {
    let answer = world
        .engine
        .ask("HEAD", &format!("/containers/{name}/archive?path={path}"), None);
    assert_eq!(answer.head.status, 200, "{path}");
    let header = answer.head.header("x-docker-container-path-stat").to_owned();
    let bytes = base64::engine::general_purpose::STANDARD.decode(header);
    serde_json::from_slice(&bytes.expect("base64")).expect("JSON")
}

fn path_stat(world: &World) {
    const DIR: u64 = 1 << 31;
    const SYMLINK: u64 = 1 << 27;
    const STICKY: u64 = 1 << 20;
    let name = world.create(&json!({"Cmd": ["true"]}));
    for (path, mode) in [
        ("/bin", DIR | 0o755),
        ("/bin/busybox", 0o755),
        ("/bin/sh", SYMLINK | 0o777),
        ("/tmp", DIR | STICKY | 0o777),
        ("/suid", (1 << 23) | 0o755),
    ] {
        assert_eq!(stat(world, &name, path)["mode"].as_u64(), Some(mode), "{path}");
    }
    let link = stat(world, &name, "/bin/sh");
    assert!(
        link["linkTarget"].as_str().expect("text").ends_with("busybox"),
        "{link}"
    );
    let gone = world
        .engine
        .ask("HEAD", &format!("/containers/{name}/archive?path=/gone"), None);
    assert_eq!(gone.head.status, 404);
}

fn copied_in(world: &World) {
    let name = world.create(&json!({"Cmd": ["cat", "/tmp/given"]}));
    let layer = kakoi_integration::image::Layer::new();
    let archive = layer.file("given", 0o644, b"given").finish();
    let put = |path: &str, kind: &str| {
        let path = format!("/containers/{name}/archive?noOverwriteDirNonDir=true&path={path}");
        world.engine.ask_bytes("PUT", &path, kind, &archive).head.status
    };
    assert_eq!(put("/tmp", "text/plain"), 200);
    assert_eq!(put("/tmp", "application/x-tar"), 200);
    assert_eq!(put("/no/such/folder", "application/x-tar"), 404);
    assert!(put("/bin/busybox", "application/x-tar") >= 400, "no folder");
    world.start(&name);
    assert_eq!(world.ended(&name), 0);
    let logs = world
        .engine
        .ask("GET", &format!("/containers/{name}/logs?stdout=1"), None);
    assert!(logs.text().ends_with("given"), "{}", logs.text());
}

fn top(world: &World) {
    let name = world.running("sleep 100000 & sleep 200000; true");
    for query in ["", "?ps_args=-ef", "?ps_args=-o%20pid,args"] {
        let seen = world.get(&format!("/containers/{name}/top{query}"));
        let titles = seen["Titles"].as_array().expect("titles").len();
        let rows = seen["Processes"].as_array().expect("rows");
        assert!(rows.len() >= 2, "{seen}");
        for row in rows {
            assert_eq!(row.as_array().expect("a row").len(), titles, "{query}: {row}");
        }
        assert!(
            rows.iter().any(|row| row.to_string().contains("sleep 200000")),
            "{seen}"
        );
    }
}

fn stats(world: &World) {
    let name = world.running("while :; do :; done");
    let seen = world.get(&format!("/containers/{name}/stats?stream=0"));
    assert!(seen["cpu_stats"]["online_cpus"].as_u64() > Some(0), "{seen}");
    assert!(
        seen["cpu_stats"]["cpu_usage"]["total_usage"].as_u64() > Some(0),
        "{seen}"
    );
    assert!(seen["memory_stats"]["limit"].as_u64() > Some(0), "{seen}");
    // Without one-shot it is measured twice, so that a share can be told.
    assert!(
        seen["precpu_stats"]["system_cpu_usage"].as_u64() > Some(0),
        "{seen}"
    );
    world
        .engine
        .must(204, "POST", &format!("/containers/{name}/kill"), None);
    world.ended(&name);
    let seen = world.get(&format!("/containers/{name}/stats?stream=0"));
    assert_eq!(seen["read"], "0001-01-01T00:00:00Z");
    assert_eq!(seen["cpu_stats"]["cpu_usage"]["total_usage"], 0);
}
