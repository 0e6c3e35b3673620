//! The audit log: what was decided stands in it, whoever decided it, and what was changed in it is found.
#![forbid(unsafe_code)]

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

use kakoi_integration::host::Host;
use kakoi_integration::http::Engine;
use kakoi_integration::needs_root;
use serde_json::{Value, json};

fn entries(host: &Host) -> Vec<Value> {
    let list = host.ok(&["audit", "show", "--format", "json"]);
    serde_json::from_str(&list).expect("JSON")
}

fn latest(host: &Host) -> PathBuf {
    let mut files: Vec<PathBuf> = fs::read_dir(host.path("root/audit"))
        .expect("the daemon made it")
        .map(|entry| entry.expect("readable").path())
        .collect();
    files.sort();
    files.pop().expect("one is there")
}

fn find<'e>(entries: &'e [Value], what: &str, verdict: &str) -> &'e Value {
    let found = entries.iter().find(|entry| {
        entry["what"].as_str().is_some_and(|text| text.contains(what)) && entry["verdict"] == verdict
    });
    found.unwrap_or_else(|| panic!("no {verdict} {what} in {entries:#?}"))
}

#[test]
fn every_change_and_every_refusal_is_written_down() {
    needs_root!();
    let host = Host::new();
    host.file("config/ceiling.yaml", "kakoi: 1\n");
    host.stop_daemon();
    host.start_daemon();
    host.ok(&["volume", "create", "data"]);
    host.kakoi(&["volume", "rm", "nothing"]);
    let docker = Engine::at(host.path("run/docker.sock"));
    let body = json!({"Image": "busybox:test", "HostConfig": {"Privileged": true}});
    let refused = docker.ask("POST", "/v1.51/containers/create?name=bold", Some(&body));
    assert_eq!(refused.head.status, 403, "{}", refused.text());
    // What only reads leaves nothing.
    let before = entries(&host).len();
    host.ok(&["ps"]);
    host.ok(&["volume", "ls"]);
    let all = entries(&host);
    assert_eq!(all.len(), before);

    let made = find(&all, "/volumes/create", "allowed");
    assert_eq!(made["from"], "kakoid.sock");
    assert!(
        made["who"]
            .as_str()
            .is_some_and(|who| who.starts_with("uid 0, pid ")),
        "{made}"
    );
    let failed = find(&all, "/volumes/nothing", "failed");
    assert!(
        failed["why"].as_str().is_some_and(|why| why.contains("nothing")),
        "{failed}"
    );
    let denied = find(&all, "/containers/create?name=bold", "refused");
    assert_eq!(denied["from"], "docker.sock");
    let why = denied["why"].as_str().expect("a rule");
    let is_told = why.len() > 100 && refused.message().starts_with(why);
    assert!(is_told, "the rule that the client was told of: {why}");
    find(&all, "start of version", "allowed");
    find(&all, "stop", "allowed");

    let table = host.ok(&["audit", "show", "--verdict", "refused", "--tail", "1"]);
    assert!(
        table.contains("VERDICT") && table.contains("name=bold"),
        "{table}"
    );
    assert!(!table.contains("/volumes/create"), "{table}");
    assert_eq!(
        host.ok(&["audit", "show", "--until", "2001-01-01", "--format", "{{.seq}}"]),
        ""
    );
    // Docker's socket tells nothing of it.
    assert_eq!(docker.ask("GET", "/audit", None).head.status, 404);
}

/// The log of a daemon that is killed goes on without a gap.
#[test]
fn a_killed_daemon_loses_no_entry() {
    needs_root!();
    let host = Host::new();
    for number in 0..5 {
        host.ok(&["volume", "create", &format!("v{number}")]);
        host.kill_daemon();
        host.start_daemon();
    }
    let all = entries(&host);
    for number in 0..5 {
        assert!(
            all.iter().any(|entry| entry["verdict"] == "allowed"
                && entry["what"]
                    .as_str()
                    .is_some_and(|what| what.contains("/volumes/create"))),
            "v{number}"
        );
    }
    let created = all.iter().filter(|entry| {
        entry["what"]
            .as_str()
            .is_some_and(|what| what.contains("/volumes/create"))
    });
    assert_eq!(created.count(), 5);
    let numbers: Vec<u64> = all
        .iter()
        .map(|entry| entry["seq"].as_u64().expect("a number"))
        .collect();
    assert_eq!(numbers, (1..=all.len() as u64).collect::<Vec<_>>());
    host.ok(&["audit", "verify"]);
}

#[test]
fn what_was_changed_cut_off_or_made_anew_is_found() {
    needs_root!();
    let host = Host::new();
    for name in ["one", "two", "three"] {
        host.ok(&["volume", "create", name]);
    }
    let verified = host.ok(&["audit", "verify"]);
    let head = verified
        .lines()
        .find_map(|line| line.strip_prefix("head "))
        .expect("a head")
        .to_owned();
    let copy = host.path("log.jsonl").display().to_string();
    host.ok(&["audit", "export", "--output", &copy]);
    let offline = host.ok(&["audit", "verify", "--file", &copy, "--through", &head]);
    assert_eq!(offline, verified);

    // One byte, in a copy and under the daemon's feet.
    let whole = fs::read(&copy).expect("exported");
    let at = whole.len() / 2;
    let mut flipped = whole.clone();
    flipped[at] ^= 1;
    fs::write(&copy, &flipped).expect("writable");
    let found = host.kakoi(&["audit", "verify", "--file", &copy]);
    assert_eq!(found.code, 1);
    assert!(found.stderr.contains("not whole"), "{}", found.stderr);
    let file = latest(&host);
    let before = fs::read(&file).expect("readable");
    fs::write(&file, &flipped).expect("writable");
    assert_eq!(host.kakoi(&["audit", "verify"]).code, 1);
    fs::write(&file, &before).expect("writable");
    host.ok(&["audit", "verify", "--through", &head]);

    // Cut after a whole line: nothing but what was kept elsewhere shows it, and the daemon that wrote it.
    let cut = before[..before.len() - 1]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .expect("lines")
        + 1;
    fs::write(&copy, &before[..cut]).expect("writable");
    host.ok(&["audit", "verify", "--file", &copy]);
    let found = host.kakoi(&["audit", "verify", "--file", &copy, "--through", &head]);
    assert_eq!(found.code, 1, "{}", found.stdout);
    OpenOptions::new()
        .write(true)
        .open(&file)
        .expect("writable")
        .set_len(cut as u64)
        .expect("cut");
    let found = host.kakoi(&["audit", "verify"]);
    assert_eq!(found.code, 1);
    assert!(found.stderr.contains("cut or made anew"), "{}", found.stderr);

    // A start does not heal it for whoever kept the head, and tells of a torn end.
    OpenOptions::new()
        .append(true)
        .open(&file)
        .expect("writable")
        .write_all(b"{\"seq\":")
        .expect("torn");
    host.kill_daemon();
    host.start_daemon();
    host.ok(&["audit", "verify"]);
    assert_eq!(host.kakoi(&["audit", "verify", "--through", &head]).code, 1);
    find(&entries(&host), "audit log", "failed");

    for bad in ["1", "1:2", "x:00"] {
        let refused = host.kakoi(&["audit", "verify", "--through", bad]);
        assert_eq!(refused.code, 125, "{}", refused.stderr);
        assert!(refused.stderr.contains("64 hex digits"), "{}", refused.stderr);
        let answer =
            Engine::at(host.socket()).ask("GET", &format!("/kakoi/v1/audit/verify?through={bad}"), None);
        assert_eq!(answer.head.status, 400);
    }
    let missing = host.kakoi(&["audit", "verify", "--file", "/nothing/there"]);
    assert_eq!(missing.code, 125);
}
