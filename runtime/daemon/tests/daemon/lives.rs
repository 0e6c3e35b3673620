//! Lives of containers as a client sees them, and what becomes of them when something dies or fills up.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::given::{Daemon, entries, needs_root, shims_below};

/// Polls, with an end, where the kernel gives no event to a foreign process.
fn until(what: &str, mut test: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !test() {
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::yield_now();
    }
}

#[test]
fn a_whole_life_answers_as_docker_does() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.create("web", &["sleep", "100000"], json!({}));
    for path in ["pause", "kill", "exec", "resize?h=1&w=1"] {
        daemon.must(
            409,
            "POST",
            &format!("/containers/web/{path}"),
            Some(json!({"Cmd": ["true"]})),
        );
    }
    daemon.must(304, "POST", "/containers/web/stop", None);
    daemon.must(204, "POST", "/containers/web/start", None);
    daemon.must(304, "POST", "/containers/web/start", None);
    daemon.must(409, "DELETE", "/containers/web", None);
    let taken = daemon.must(
        409,
        "POST",
        "/containers/create?name=web",
        Some(json!({"Image": "bb", "Cmd": ["true"]})),
    );
    assert!(
        taken["message"]
            .as_str()
            .expect("text")
            .starts_with("Conflict. The container name \"/web\" is already in use")
    );
    daemon.must(204, "POST", "/containers/web/pause", None);
    daemon.must(409, "POST", "/containers/web/pause", None);
    daemon.must(409, "DELETE", "/containers/web", None);
    daemon.must(204, "POST", "/containers/web/unpause", None);
    let answer = daemon.must(500, "POST", "/containers/web/unpause", None);
    let text = answer["message"].as_str().expect("text");
    assert!(
        text.starts_with("Container ") && text.ends_with(" is not paused"),
        "{text}"
    );
    daemon.must(204, "POST", "/containers/web/rename?name=site", None);
    daemon.must(404, "GET", "/containers/web/json", None);
    daemon.must(204, "POST", "/containers/site/stop?t=0", None);
    assert_eq!(daemon.state("site")["ExitCode"], 137);
    daemon.must(204, "DELETE", "/containers/site", None);
    daemon.must(404, "DELETE", "/containers/site", None);
    daemon.is_clean();
}

#[test]
fn output_and_exit_code_of_a_short_life_are_kept() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.create(
        "short",
        &["sh", "-c", "echo out; echo err >&2; exit 7"],
        json!({}),
    );
    daemon.must(204, "POST", "/containers/short/start", None);
    let answer = daemon.must(200, "POST", "/containers/short/wait", None);
    assert_eq!(answer["StatusCode"], 7);
    let log = daemon.must(200, "GET", "/containers/short/logs?stdout=1&stderr=1", None);
    let log = log.as_str().expect("bytes");
    assert!(
        log.contains("\u{1}\0\0\0\0\0\0\u{4}out\n") && log.contains("\u{2}\0\0\0\0\0\0\u{4}err\n"),
        "{log:?}"
    );
    daemon.must(400, "GET", "/containers/short/logs", None);
    daemon.is_clean();
}

#[test]
fn a_client_that_leaves_leaves_nothing_half() {
    needs_root!();
    let daemon = Daemon::start();
    for number in 0..8 {
        let name = format!("left-{number}");
        daemon.create(&name, &["sleep", "100000"], json!({}));
        let mut stream = UnixStream::connect(daemon.path("run/kakoid.sock")).expect("a connection");
        let request =
            format!("POST /containers/{name}/start HTTP/1.1\r\nHost: kakoi\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("written");
        let moment = Instant::now() + Duration::from_millis(number * 10);
        while Instant::now() < moment {
            std::thread::yield_now();
        }
        drop(stream);
    }
    for number in 0..8 {
        until("the start", || {
            daemon.state(&format!("left-{number}"))["Running"] == true
        });
    }
    daemon.is_clean();
}

#[test]
fn a_start_that_fails_says_why_and_leaves_nothing() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.create("none", &["nonesuch"], json!({}));
    let answer = daemon.must(400, "POST", "/containers/none/start", None);
    let text = answer["message"].as_str().expect("text");
    assert!(
        text.contains("exec: \"nonesuch\": executable file not found in $PATH"),
        "{text}"
    );
    assert_eq!(daemon.state("none")["ExitCode"], 127);
    assert_eq!(shims_below(daemon.folder.path()), Vec::<u32>::new());
    daemon.create("gone", &["nonesuch"], json!({"AutoRemove": true}));
    daemon.must(400, "POST", "/containers/gone/start", None);
    daemon.must(404, "GET", "/containers/gone/json", None);
    daemon.is_clean();
}

#[test]
fn what_is_refused_leaves_nothing() {
    needs_root!();
    let daemon = Daemon::start();
    for (status, body) in [
        (404, json!({"Image": "nope", "Cmd": ["true"]})),
        (400, json!({"Image": "bb"})),
        (
            400,
            json!({"Image": "bb", "Cmd": ["true"], "User": "nobody-at-all"}),
        ),
        (
            400,
            json!({"Image": "bb", "Cmd": ["true"], "Policy": {"Source": "kakoi: 1\nfoo: 1\n"}}),
        ),
        (
            400,
            json!({"Image": "bb", "Cmd": ["true"], "HostConfig": {"Binds": ["/a:b"]}}),
        ),
        (
            403,
            json!({"Image": "bb", "Cmd": ["true"], "HostConfig": {"Privileged": true}}),
        ),
        (
            400,
            json!({"Image": "bb", "Cmd": ["true"], "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "x"}]}}}),
        ),
        (
            400,
            json!({"Image": "bb", "Cmd": ["true"], "HostConfig": {"Memory": 1}}),
        ),
        (
            400,
            json!({"Image": "bb", "Cmd": ["true"], "HostConfig": {"AutoRemove": true, "RestartPolicy": {"Name": "always"}}}),
        ),
    ] {
        let answer = daemon.must(status, "POST", "/containers/create?name=xx", Some(body));
        assert!(answer["message"].is_string(), "{answer}");
    }
    daemon.create("xx", &["true"], json!({}));
    daemon.must(
        400,
        "GET",
        "/containers/json?filters=%7B%22stauts%22%3A%5B%22exited%22%5D%7D",
        None,
    );
    daemon.must(400, "POST", "/containers/xx/wait?condition=soon", None);
    daemon.must(404, "GET", "/nonesuch", None);
    daemon.must(400, "GET", "/v1.99/info", None);
    daemon.is_clean();
}

#[test]
fn restart_policies_count_and_stop_by_hand() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.create(
        "retry",
        &["sh", "-c", "exit 3"],
        json!({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}}),
    );
    daemon.must(204, "POST", "/containers/retry/start", None);
    assert_eq!(
        daemon.must(200, "POST", "/containers/retry/wait", None)["StatusCode"],
        3
    );
    // As with dockerd, each end is told, whatever the restart policy makes of it.
    until("the last attempt", || daemon.state("retry")["Status"] == "exited");
    assert_eq!(
        daemon.must(200, "GET", "/containers/retry/json", None)["RestartCount"],
        2
    );
    let heeding = "trap 'exit 1' USR1; while :; do sleep 0.1; done";
    daemon.create(
        "ever",
        &["sh", "-c", heeding],
        json!({"RestartPolicy": {"Name": "always"}}),
    );
    daemon.must(204, "POST", "/containers/ever/start", None);
    let first = daemon.state("ever")["Pid"].clone();
    until("the restart", || {
        let state = daemon.state("ever");
        if state["Pid"] == first {
            // Again and again: the first may come before the shell heeds it.
            daemon
                .ask("POST", "/containers/ever/kill?signal=USR1", None)
                .expect("an answer");
        }
        state["Running"] == true && state["Pid"] != first
    });
    daemon.must(204, "POST", "/containers/ever/stop?t=0", None);
    daemon.must(200, "POST", "/containers/ever/wait", None);
    assert_eq!(daemon.state("ever")["Status"], "exited");
    daemon.is_clean();
}

#[test]
fn the_next_daemon_adopts_what_lives_and_buries_what_died() {
    needs_root!();
    let mut daemon = Daemon::start();
    for name in ["lives", "ends", "shimless", "again"] {
        let host = if name == "again" {
            json!({"RestartPolicy": {"Name": "unless-stopped"}})
        } else {
            json!({})
        };
        daemon.create(name, &["sleep", "100000"], host);
        daemon.must(204, "POST", &format!("/containers/{name}/start"), None);
    }
    let pid = |daemon: &Daemon, name: &str| daemon.state(name)["Pid"].as_i64().expect("a number");
    let (lives, ends) = (pid(&daemon, "lives"), pid(&daemon, "ends"));
    let parents: Vec<i64> = ["shimless", "again"]
        .iter()
        .map(|name| parent(pid(&daemon, name)))
        .collect();
    daemon.kill();
    assert!(
        Command::new("kill")
            .args(["-9", &ends.to_string()])
            .status()
            .expect("kill runs")
            .success()
    );
    for parent in parents {
        assert!(
            Command::new("kill")
                .args(["-9", &parent.to_string()])
                .status()
                .expect("kill runs")
                .success()
        );
    }
    until("the end of a container", || {
        shims_below(daemon.folder.path()).len() == 1
    });
    daemon.up();
    assert_eq!(pid(&daemon, "lives"), lives);
    assert_eq!(daemon.state("ends")["ExitCode"], 137);
    assert_eq!(daemon.state("shimless")["Status"], "exited");
    assert_eq!(daemon.state("shimless")["ExitCode"], 137);
    until("the restart", || daemon.state("again")["Running"] == true);
    daemon.must(204, "POST", "/containers/lives/stop?t=0", None);
    assert_eq!(daemon.state("lives")["ExitCode"], 137);
    daemon.is_clean();
}

fn parent(pid: i64) -> i64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let after_name = stat.rsplit_once(')').expect("a name in brackets").1;
    after_name
        .split_whitespace()
        .nth(1)
        .expect("a parent")
        .parse()
        .expect("a number")
}

#[test]
fn a_second_daemon_is_told_so() {
    needs_root!();
    let daemon = Daemon::start();
    let (code, said) = daemon.second();
    assert_eq!(code, Some(3));
    assert!(
        said.contains(&format!("another kakoid (pid {}) already uses", daemon.pid())),
        "{said}"
    );
    daemon.must(200, "GET", "/_ping", None);
}

#[test]
fn an_idle_daemon_is_small() {
    needs_root!();
    let daemon = Daemon::start();
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("it runs");
    let anonymous = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .expect("a line");
    let kib: u64 = anonymous
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number");
    // What the file of the program takes differs by profile; the figure of record is the bench's.
    assert!(kib < 6 << 10, "{kib} KiB of memory of its own");
}

/// A mount that goes away with the test.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

#[test]
fn a_full_disk_leaves_nothing_half() {
    needs_root!();
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("root");
    fs::create_dir(&root).expect("a folder");
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256m", "small"])
        .arg(&root)
        .status();
    assert!(mount.expect("mount runs").success());
    let mounted = Mounted(root.clone());
    let mut daemon = Daemon::at(folder);
    daemon.up();
    daemon.load();
    daemon.create("before", &["true"], json!({}));
    let filler = root.join("filler");
    let filled = Command::new("dd")
        .arg("if=/dev/zero")
        .arg(format!("of={}", filler.display()))
        .args(["bs=64k", "status=none"])
        .output();
    assert!(
        !filled.expect("dd runs").status.success(),
        "the disk was meant to be full"
    );
    let mut failures = 0;
    for number in 0..5 {
        let body = json!({"Image": "bb", "Cmd": ["true"]});
        let (status, answer) = daemon
            .ask(
                "POST",
                &format!("/containers/create?name=full-{number}"),
                Some(body),
            )
            .expect("an answer");
        failures += u32::from(status == 500);
        assert!(status == 500 || status == 201, "{answer}");
    }
    assert!(failures > 0, "nothing failed on a full disk");
    let mut ids = daemon.ids();
    ids.sort();
    assert_eq!(entries(&root.join("containers")), ids);
    fs::remove_file(filler).expect("removed");
    daemon.create("after", &["true"], json!({}));
    daemon.must(204, "POST", "/containers/after/start", None);
    assert_eq!(
        daemon.must(200, "POST", "/containers/after/wait", None)["StatusCode"],
        0
    );
    daemon.is_clean();
    drop(daemon);
    drop(mounted);
}
