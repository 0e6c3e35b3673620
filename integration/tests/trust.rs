//! Whose images run: the gate at pull, create and start, and what a person is told at it.
#![forbid(unsafe_code)]

use kakoi_integration::host::{Host, binary};
use kakoi_integration::registry::key_pair;
use kakoi_integration::{image, needs_root, wait};
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

/// An image under a name.
fn named(name: &str) -> Vec<u8> {
    image::archive(
        name,
        &json!({"Cmd": ["true"], "Labels": {"name": name}}),
        &[image::busybox_layer(&binary("attacker"))],
    )
}

fn run_it(name: &str) -> [&str; 6] {
    ["run", "--rm", "--network", "none", name, "true"]
}

/// The lines of the log that warn of what runs without being trusted.
fn warnings(host: &Host) -> usize {
    let log = host.daemon_log();
    log.lines()
        .filter(|line| line.contains("without being trusted"))
        .count()
}

#[test]
fn a_device_without_trust_yaml_runs_nothing_and_says_how_to_change_that() {
    needs_root!();
    let host = Host::trusting(None);
    host.load(&image::busybox(&binary("attacker"))).ok();
    let refused = host
        .kakoi(&run_it("busybox:test"))
        .fails(125, "docker.io/library/busybox is not trusted");
    refused.is_one_clear_error();
    let remedy = "kakoi trust allow docker.io/library --mode audit";
    assert!(refused.stderr.contains(remedy), "{refused}");
    // Docker's clients hear the same, as a 403.
    let body = "{\"Image\":\"busybox:test\"}";
    let answer = host.raw_request(
        format!(
            "POST /v1.47/containers/create HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .as_bytes(),
    );
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains(remedy),
        "{answer}"
    );
    assert_eq!(host.kakoi(&["trust", "check", "busybox:test"]).code, 1);
    // What the refusal shows is typed as it stands, and helps at once.
    let words: Vec<&str> = remedy.split(' ').skip(1).collect();
    host.ok(&words);
    host.ok(&run_it("busybox:test"));
    host.ok(&["trust", "check", "busybox:test"]);
    // By its id too, and what has no name is judged as localhost/unnamed.
    let id = host.ok(&["images", "--quiet"]);
    host.ok(&run_it(&id));
    let nameless = image::busybox_layer(&binary("attacker"));
    let nameless = host.kakoi_with(&["import", "-"], &nameless).ok();
    host.kakoi(&run_it(&nameless))
        .fails(125, "localhost/unnamed is not trusted");
}

#[test]
fn scopes_are_whole_components_the_longest_wins_and_a_start_asks_again() {
    needs_root!();
    let trust =
        "version: 1\nscopes:\n  docker.io/apps: {mode: audit}\n  docker.io/apps/bad: {mode: reject}\n";
    let host = Host::trusting(Some(trust));
    for name in ["apps/good:1", "apps/bad:1", "apps-evil/x:1", "apps/bad-not:1"] {
        host.load(&named(name)).ok();
    }
    host.ok(&run_it("apps/good:1"));
    host.ok(&run_it("apps/bad-not:1"));
    host.kakoi(&run_it("apps/bad:1"))
        .fails(125, "scope `docker.io/apps/bad` rejects it");
    host.kakoi(&run_it("apps-evil/x:1"))
        .fails(125, "no scope of trust.yaml covers it");
    // Another name is another scope, for the same files.
    host.ok(&["tag", "apps/good:1", "apps/bad:2"]);
    host.kakoi(&run_it("apps/bad:2")).fails(125, "rejects it");

    host.ok(&[
        "create",
        "--name",
        "kept",
        "--network",
        "none",
        "apps/good:1",
        "true",
    ]);
    host.ok(&["start", "--attach", "kept"]);
    host.ok(&["trust", "allow", "docker.io/apps", "--mode", "reject"]);
    host.kakoi(&["start", "kept"])
        .fails(125, "scope `docker.io/apps` rejects it");
    // The name by which it was trusted decides, whatever the name leads to today.
    host.ok(&["tag", "apps/bad:1", "apps/good:1"]);
    host.ok(&["trust", "allow", "docker.io/apps", "--mode", "audit"]);
    host.ok(&["start", "--attach", "kept"]);
    host.kill_daemon();
    host.start_daemon();
    host.ok(&["start", "--attach", "kept"]);

    // A file with an error trusts nobody, and says where it is.
    host.file("config/trust.yaml", "version: 1\nscope: {}\n");
    let refused = host.kakoi(&["start", "kept"]).fails(125, "trust.yaml:2:1");
    refused.is_one_clear_error();
    assert!(refused.stderr.contains("scopes"), "{refused}");
    host.kakoi(&["trust", "allow", "docker.io/apps"])
        .fails(125, "trust.yaml:2:1");
    host.file("config/trust.yaml", trust);
    host.ok(&["start", "--attach", "kept"]);
    host.ok(&["rm", "kept"]);
}

const OPEN: &str = "version: 1\nscopes:\n  docker.io/apps: {mode: audit}\n";
const CLOSED: &str = "version: 1\nscopes:\n  docker.io/apps: {mode: reject}\n";

/// A gateway with an app that a restart policy keeps up, and that runs.
fn keeping_up(policy: &str, names: &[&str]) -> Host {
    let host = Host::trusting(Some(OPEN));
    host.load(&named("apps/good:1")).ok();
    for name in names {
        let words = [
            "run",
            "-d",
            "--network",
            "none",
            "--restart",
            policy,
            "--name",
            name,
        ];
        host.ok(&[&words[..], &["apps/good:1", "sleep", "100000"]].concat());
    }
    host
}

/// Kills an app from outside, as it might end by itself.
fn crash(host: &Host, name: &str) {
    kill(host.pid(name), Signal::SIGKILL).expect("an app of ours");
}

fn hang_up(host: &Host) {
    kill(host.daemon_pid(), Signal::SIGHUP).expect("a daemon of ours");
}

/// Waits until a container is held back.
#[track_caller]
fn until_held(host: &Host, name: &str) {
    wait::until("the container is held back", || {
        let state = host.inspect(name)["State"].clone();
        let error = state["Error"].as_str().unwrap_or_default();
        state["Status"] == "restarting" && error.contains("scope `docker.io/apps` rejects it")
    });
}

/// How often it was told that something is held back: in the log, and as events.
fn told(host: &Host) -> (usize, usize) {
    let log = host.daemon_log();
    let lines = log
        .lines()
        .filter(|line| line.contains("held back until its image is trusted"));
    let filters = [
        "events",
        "--stream=false",
        "--since",
        "1h",
        "--filter",
        "event=hold",
    ];
    (lines.count(), host.ok(&filters).lines().count())
}

#[test]
fn what_is_not_trusted_any_more_is_held_back_told_once_and_starts_when_it_is() {
    needs_root!();
    let host = keeping_up("on-failure:1", &["a", "b"]);
    host.ok(&[
        "create",
        "--name",
        "c",
        "--network",
        "none",
        "apps/good:1",
        "true",
    ]);
    host.file("config/trust.yaml", CLOSED);
    for name in ["a", "b"] {
        crash(&host, name);
        until_held(&host, name);
    }
    host.kakoi(&["start", "c"]).fails(125, "rejects it");
    assert_eq!(told(&host), (2, 2), "{}", host.daemon_log());
    // Looked at again and again, it says nothing, writes nothing and uses up nothing. Who reads another file has everybody look.
    let records = || std::fs::read(host.path("root/state.redb")).expect("records");
    let before = records();
    for number in 0..5 {
        host.file("config/trust.yaml", format!("{CLOSED}# {number}\n"));
        hang_up(&host);
        for name in ["a", "c"] {
            host.kakoi(&["start", name]).fails(125, "rejects it");
        }
        until_held(&host, "a");
    }
    assert!(before == records(), "a refusal that is no news was written");
    assert_eq!(told(&host), (2, 2), "{}", host.daemon_log());
    for name in ["a", "b"] {
        assert_eq!(host.inspect(name)["RestartCount"], 0);
        assert_eq!(host.inspect(name)["State"]["ExitCode"], 137, "the app's own end");
    }
    // Another reason is news.
    host.file("config/trust.yaml", "version: 1\n");
    hang_up(&host);
    wait::until("the other reason", || {
        let error = host.inspect("a")["State"]["Error"].clone();
        error
            .as_str()
            .is_some_and(|error| error.contains("no scope of trust.yaml covers it"))
    });
    wait::until("both are told", || told(&host).0 == 4);
    host.ok(&["rm", "c"]);
    // What a person stops stays down; what waits starts at once, with all its attempts.
    host.ok(&["stop", "b"]);
    assert_eq!(host.inspect("b")["State"]["Status"], "exited");
    host.file("config/trust.yaml", OPEN);
    hang_up(&host);
    host.until_state("a", "Running", &json!(true));
    assert_eq!(host.inspect("a")["RestartCount"], 1);
    assert_eq!(host.inspect("a")["State"]["Error"], "");
    assert_eq!(host.inspect("b")["State"]["Running"], json!(false));
    // The one attempt that it has is used up by the app, not by the owner.
    crash(&host, "a");
    host.until_state("a", "Status", &json!("exited"));
    // One that is held back can be removed, and its policy can be taken from it.
    host.ok(&["start", "a", "b"]);
    host.file("config/trust.yaml", CLOSED);
    for name in ["a", "b"] {
        crash(&host, name);
        until_held(&host, name);
    }
    host.kakoi(&["rm", "a"]).fails(2, "container is restarting");
    host.ok(&["rm", "--force", "a"]);
    host.ok(&["update", "--restart", "no", "b"]);
    host.file("config/trust.yaml", OPEN);
    hang_up(&host);
    host.until_state("b", "Status", &json!("exited"));
    host.ok(&["rm", "b"]);
}

#[test]
fn what_became_untrusted_while_the_daemon_was_down_is_not_started_at_boot_and_is_told() {
    needs_root!();
    for policy in ["always", "unless-stopped", "on-failure"] {
        let host = keeping_up(policy, &["app"]);
        let pid = host.pid("app");
        host.kill_daemon();
        // As a power cut: daemon, supervisor and app are gone, and the records say that it ran.
        kill(supervisor(pid), Signal::SIGKILL).expect("a supervisor of ours");
        kill(pid, Signal::SIGKILL).expect("an app of ours");
        host.file("config/trust.yaml", CLOSED);
        // Held back by one daemon, it is by the next.
        for _ in 0..2 {
            host.start_daemon();
            until_held(&host, "app");
            assert_eq!(told(&host).1, 1, "{policy}: {}", host.daemon_log());
            host.kill_daemon();
        }
        assert_eq!(
            host.daemon_log().matches("held back until").count(),
            2,
            "each daemon tells"
        );
        host.file("config/trust.yaml", OPEN);
        host.start_daemon();
        host.until_state("app", "Running", &json!(true));
        host.ok(&["rm", "--force", "app"]);
    }
}

/// The parent of a process: an app's supervisor.
fn supervisor(app: nix::unistd::Pid) -> nix::unistd::Pid {
    let status = std::fs::read_to_string(format!("/proc/{app}/status")).expect("it runs");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    let parent: i32 = parent.expect("a parent").trim().parse().expect("a number");
    nix::unistd::Pid::from_raw(parent)
}

#[test]
fn what_is_audited_runs_with_one_warning_and_one_event() {
    needs_root!();
    let host = Host::trusting(Some("version: 1\nscopes:\n  docker.io/library: {mode: audit}\n"));
    host.load(&image::busybox(&binary("attacker"))).ok();
    assert_eq!(warnings(&host), 0);
    for _ in 0..3 {
        host.ok(&run_it("busybox:test"));
    }
    assert_eq!(warnings(&host), 1, "{}", host.daemon_log());
    let events = host.ok(&[
        "events",
        "--stream=false",
        "--since",
        "1h",
        "--filter",
        "event=audit",
    ]);
    assert_eq!(events.lines().count(), 1, "{events}");
    assert!(events.contains("docker.io/library/busybox"), "{events}");
}

#[test]
fn trust_yaml_is_changed_without_losing_a_word() {
    needs_root!();
    let host = Host::trusting(Some(
        "# ours\nversion: 1\nscopes:\n  # the base\n  docker.io/library: {mode: audit} # for now\n",
    ));
    let key = key_pair(&host.path("acme"));
    host.ok(&[
        "trust",
        "add-key",
        "ghcr.io/acme",
        &format!("{key}.pub"),
        "--not-after",
        "2099-01-01T00:00:00Z",
    ]);
    host.ok(&["trust", "allow", "docker.io/library", "--mode", "reject"]);
    let text = std::fs::read_to_string(host.path("config/trust.yaml")).expect("read");
    for kept in [
        "# ours",
        "# the base",
        "mode: reject",
        "not_after: 2099-01-01T00:00:00Z",
        "mode: require",
    ] {
        assert!(text.contains(kept), "{kept} is not in\n{text}");
    }
    let shown = host.ok(&["trust", "show"]);
    for word in [
        "ghcr.io/acme",
        "require",
        "acme",
        "ECDSA P-256",
        "counts",
        "everything else",
        "reject",
    ] {
        assert!(shown.contains(word), "{word} is not in\n{shown}");
    }
    host.ok(&["trust", "revoke", "acme", "--reason", "lost"]);
    let shown: Value = serde_json::from_str(&host.ok(&["trust", "show", "--format", "json"])).expect("JSON");
    assert_eq!(shown["Keys"][0]["Fault"], "key `acme` is revoked: lost");
    // Beside each: what is refused leaves the file as it is.
    let before = std::fs::read(host.path("config/trust.yaml")).expect("read");
    for bad in [
        &["trust", "allow", "library"][..],
        &["trust", "allow", "docker.io/Library"],
        &["trust", "allow", "docker.io/x", "--mode", "require"],
        &["trust", "allow", "docker.io/x", "--key", "nobody"],
        &["trust", "allow", "docker.io/x", "--mode", "adit"],
        &["trust", "add-key", "docker.io/x", "/etc/passwd"],
        &["trust", "revoke", "nobody"],
        &["trust", "revoke"],
        &["trust", "commit", "nosuch"],
        &["trust", "allow-downgrade", "gateway"],
        &["trust", "allow-downgrade", "gateway", "1.x"],
        &["trust", "allow-downgrade", "", "1.0"],
        &["trust", "allow-downgrade", "gateway", "1.0", "--withdraw"],
        &["trust", "allow-downgrade", "gateway", "--withdraw"],
    ] {
        assert_ne!(host.kakoi(bad).code, 0, "{bad:?}");
    }
    assert_eq!(
        std::fs::read(host.path("config/trust.yaml")).expect("read"),
        before
    );
    assert!(!host.path("config/.trust.yaml.new").exists());
}
