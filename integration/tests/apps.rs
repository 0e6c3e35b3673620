//! Apps: a document makes a container run, a new version commits or the one before comes back, and whoever kills the daemon in between finds the
//! old or the new.
#![forbid(unsafe_code)]

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use kakoi_integration::command::ended;
use kakoi_integration::host::Host;
use kakoi_integration::http::Engine;
use kakoi_integration::registry::Registry;
use kakoi_integration::{image, needs_root, wait};
use serde_json::{Value, json};

/// An update ends within this, whatever comes of it.
const LIMIT: Duration = Duration::from_secs(60);

/// A document of the app `web`; `rest` are further lines.
fn document(generation: u64, image: &str, rest: &str) -> String {
    format!(
        "kakoi: 1\nkind: App\nname: web\ngeneration: {generation}\nimage: {image}\nnetworks: [none]\nupdate: {{trial: 300ms, attempts: 1}}\n{rest}"
    )
}

/// Stays up, and ends at once when asked.
const STAYS: &str = "command: [sh, -c, \"trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done\"]\n";
/// Ends by itself, badly.
const CRASHES: &str = "command: [sh, -c, \"echo broken; exit 7\"]\n";

fn apply(host: &Host, text: &str) -> kakoi_integration::command::Ran {
    host.kakoi_with(&["app", "apply", "-"], text.as_bytes())
}

fn status(host: &Host) -> Value {
    serde_json::from_str(&host.ok(&["app", "status", "web", "--format", "json"])).expect("JSON")
}

/// A version of the image with another content, so that it has another id.
fn version(host: &Host, name: &str) {
    let layer = image::Layer::new().file("version", 0o644, name.as_bytes());
    let config = json!({ "Cmd": ["sh"], "Env": ["PATH=/bin:/usr/bin"] });
    host.load_variant(name, &config, layer).ok();
}

fn remove(host: &Host) {
    host.ok(&["app", "remove", "web"]);
    assert_eq!(host.ok(&["app", "list", "--quiet"]), "");
    assert!(!host.path("root/apps/web.json").exists(), "no record is left");
    host.is_clean();
}

/// How many containers run.
fn running(host: &Host) -> Vec<String> {
    let list = host.ok(&["ps", "--format", "{{.Names}}"]);
    list.lines().map(str::to_owned).collect()
}

#[test]
fn a_good_version_commits_and_the_one_before_is_kept() {
    needs_root!();
    let host = Host::new();
    version(&host, "web:2");
    let first = apply(&host, &document(1, "busybox:test", STAYS)).ok();
    assert_eq!(first, "web: generation 1 is running");
    assert_eq!(running(&host), ["web-a"]);
    // The same once more is nothing to do, and a number alone stops nothing.
    let pid = host.pid("web-a");
    apply(&host, &document(1, "busybox:test", STAYS)).ok();
    apply(&host, &document(2, "busybox:test", STAYS)).ok();
    assert_eq!(host.pid("web-a"), pid);
    assert_eq!(status(&host)["Current"]["Generation"], 2);

    apply(&host, &document(3, "web:2", STAYS)).ok();
    assert_eq!(running(&host), ["web-b"]);
    let state = status(&host);
    assert_eq!(
        (&state["Current"]["Generation"], &state["Previous"]["Generation"]),
        (&json!(3), &json!(2))
    );
    // An app that has a container of an image is not another one.
    let listed = Engine::at(host.path("run/docker.sock")).ask("GET", "/v1.51/images/json", None);
    let images: Value = serde_json::from_str(&listed.text()).expect("JSON");
    let counts: Vec<&Value> = images
        .as_array()
        .into_iter()
        .flatten()
        .map(|row| &row["Containers"])
        .collect();
    assert_eq!(counts, [&json!(1), &json!(1)], "{images}");
    // Nothing takes the fallback away, nor its image.
    host.ok(&["system", "prune", "--all", "--force"]);
    let collected = host.kakoi(&["system", "gc", "--free", "1PiB", "--named"]);
    assert_eq!(collected.code, 1, "there is no such disk: {collected}");
    assert_ne!(host.kakoi(&["rmi", "busybox:test"]).code, 0);
    for words in [
        &["rm", "--force", "web-a"][..],
        &["rename", "web-a", "mine"],
        &["start", "web-a"],
        &["update", "--restart", "always", "web-a"],
        &["create", "--name", "web-a", "web:2"],
    ] {
        let refused = host.kakoi(words);
        assert_ne!(refused.code, 0, "{words:?}");
        assert!(
            refused.stderr.contains("the app web") || refused.stderr.contains("of the app"),
            "{words:?}: {refused}"
        );
    }
    // And it comes back by hand: what was left is not tried again by itself.
    host.ok(&["app", "rollback", "web"]);
    assert_eq!(running(&host), ["web-a"]);
    let refused = apply(&host, &document(3, "web:2", STAYS));
    assert_eq!(refused.code, 125, "{refused}");
    assert!(refused.stderr.contains("left by hand"), "{refused}");
    host.ok(&["app", "unblock", "web"]);
    apply(&host, &document(3, "web:2", STAYS)).ok();
    assert_eq!(running(&host), ["web-b"]);
    let history = host.ok(&["app", "history", "web"]);
    assert!(history.matches("committed").count() == 4, "{history}");
    assert!(host.ok(&["app", "logs", "web"]).contains("up"));
    remove(&host);
}

#[test]
fn a_bad_version_comes_back_with_its_reason_and_is_not_tried_again() {
    needs_root!();
    let host = Host::new();
    version(&host, "web:2");
    apply(&host, &document(1, "busybox:test", STAYS)).ok();
    let unhealthy = "health: {command: [\"false\"], period: 100ms, timeout: 5s, failures: 2}\n";
    for (generation, image, rest, reason) in [
        (
            2,
            "web:2",
            CRASHES.to_owned(),
            "ended in its trial with exit code 7",
        ),
        (4, "web:2", format!("{STAYS}{unhealthy}"), "it is unhealthy"),
        (6, "web:2", "command: [/nowhere]\n".to_owned(), "no such file"),
    ] {
        let failed = apply(&host, &document(generation, image, &rest));
        assert_eq!(failed.code, 1, "{failed}");
        assert!(failed.stderr.contains(reason), "{reason}: {failed}");
        assert!(failed.stderr.contains("generation 1 runs"), "{failed}");
        assert_eq!(running(&host), ["web-a"]);
        assert!(host.ok(&["why", "web"]).contains(reason));
        // A number alone does not have it tried again.
        let blocked = apply(&host, &document(generation + 1, image, &rest));
        assert_eq!(blocked.code, 125, "{blocked}");
        assert!(
            blocked.stderr.contains("blocked") && blocked.stderr.contains(reason),
            "{blocked}"
        );
    }
    assert_eq!(status(&host)["Blocked"].as_array().map(Vec::len), Some(3));
    // What fails is said to fail where nothing ran before, too.
    host.ok(&["app", "remove", "--forget", "web"]);
    let failed = apply(&host, &document(1, "busybox:test", CRASHES));
    assert_eq!(failed.code, 1, "{failed}");
    assert!(failed.stderr.contains("nothing ran before"), "{failed}");
    assert_eq!(running(&host), Vec::<String>::new());
    remove(&host);
}

/// The version before outlives updates that fail, in its place or not, and names that lead elsewhere.
#[test]
fn a_version_to_return_to_outlives_failed_updates_and_moved_names() {
    needs_root!();
    let host = Host::new();
    version(&host, "web:2");
    apply(&host, &document(1, "busybox:test", STAYS)).ok();
    apply(&host, &document(2, "web:2", STAYS)).ok();
    let image = |host: &Host, slot: &str| host.ok(&["inspect", "--format", "{{.Image}}", slot]);
    let (first, second) = (image(&host, "web-a"), image(&host, "web-b"));
    assert_eq!(apply(&host, &document(3, "web:2", CRASHES)).code, 1);
    assert_eq!(status(&host)["Previous"]["Generation"], 1);
    // Its container made room, its image did not, though another image has its name now.
    let layer = image::Layer::new().file("other", 0o644, b"other");
    let config = json!({ "Cmd": ["sh"], "Env": ["PATH=/bin:/usr/bin"] });
    host.load_variant("busybox:test", &config, layer).ok();
    host.ok(&["system", "prune", "--all", "--force"]);
    assert_ne!(host.kakoi(&["rmi", &first]).code, 0);
    host.ok(&["app", "rollback", "web"]);
    assert_eq!(
        (running(&host), image(&host, "web-a")),
        (vec!["web-a".to_owned()], first.clone())
    );
    assert_eq!(image(&host, "web-b"), second);
    // A container that somebody else's hand put into the slot is not what the record says, and is not started.
    host.kill_daemon();
    host.start_daemon();
    assert_eq!(
        (running(&host), image(&host, "web-a")),
        (vec!["web-a".to_owned()], first)
    );
    remove(&host);
}

#[test]
fn a_pinned_app_takes_no_other_version() {
    needs_root!();
    let host = Host::new();
    version(&host, "web:2");
    apply(&host, &document(1, "busybox:test", STAYS)).ok();
    host.ok(&["app", "pin", "--reason", "measured until Friday", "web"]);
    host.kill_daemon();
    host.start_daemon();
    let refused = apply(&host, &document(2, "web:2", STAYS));
    refused.fails(125, "pinned to the version that runs: measured until Friday; let it take others again: kakoi app unpin web");
    assert_eq!(status(&host)["Floor"], 1, "nothing was taken");
    assert!(
        host.ok(&["app", "status", "web"])
            .contains("measured until Friday")
    );
    assert!(host.ok(&["app", "list"]).contains("pinned"));
    host.kakoi(&["app", "pin", "nobody"])
        .fails(125, "No such app: nobody");
    host.ok(&["app", "unpin", "web"]);
    apply(&host, &document(2, "web:2", STAYS)).ok();
    remove(&host);
}

/// Whoever keeps an old document cannot bring it back by having the app removed; the owner can.
#[test]
fn a_removed_app_is_not_followed_by_an_older_generation() {
    needs_root!();
    let host = Host::new();
    apply(&host, &document(5, "busybox:test", STAYS)).ok();
    host.ok(&["app", "remove", "web"]);
    host.stop_daemon();
    host.start_daemon();
    apply(&host, &document(4, "busybox:test", STAYS)).fails(125, "generation 4 is older than generation 5");
    apply(&host, &document(5, "busybox:test", CRASHES))
        .fails(125, "generation 5 is taken by another document");
    // What was taken last may come again.
    apply(&host, &document(5, "busybox:test", STAYS)).ok();
    host.ok(&["app", "remove", "web"]);
    host.ok(&["app", "remove", "--forget", "web"]);
    host.kakoi(&["app", "remove", "--forget", "web"])
        .fails(125, "No such app: web");
    apply(&host, &document(1, "busybox:test", STAYS)).ok();
    host.ok(&["app", "remove", "--forget", "web"]);
    apply(&host, &document(1, "busybox:test", STAYS)).ok();
    remove(&host);
}

#[test]
fn health_is_asked_of_ports_and_pages_without_a_network() {
    needs_root!();
    let host = Host::new();
    let serves = "policy: docker-default\ncommand: [sh, -c, \"mkdir /tmp/w; echo hi > /tmp/w/ready; httpd -p 8080 -h /tmp/w; trap 'exit 0' TERM; while :; do sleep 0.05; done\"]\n";
    for (generation, health, reason) in [
        (1, "{tcp: 8080, period: 100ms}", ""),
        (2, "{http: {port: 8080, path: /ready}, period: 100ms}", ""),
        (
            3,
            "{http: {port: 8080, path: /none}, period: 100ms, failures: 2}",
            "404",
        ),
        (4, "{tcp: 81, period: 100ms, failures: 2}", "port 81"),
        // What is never known in time is no health.
        (
            5,
            "{tcp: 81, period: 100ms, timeout: 100ms, failures: 1, start_period: 1s}",
            "port 81",
        ),
    ] {
        let text = document(generation, "busybox:test", &format!("{serves}health: {health}\n"));
        let ran = apply(&host, &text);
        match reason {
            "" => assert_eq!(ran.code, 0, "{health}: {ran}"),
            reason => {
                assert_eq!(ran.code, 1, "{health}: {ran}");
                assert!(ran.stderr.contains(reason), "{health}: {ran}");
            }
        }
    }
    let state = status(&host);
    assert_eq!(
        (&state["Current"]["Generation"], &state["State"]),
        (&json!(2), &json!("running"))
    );
    remove(&host);
}

#[test]
fn what_may_not_be_is_refused_and_nothing_changes() {
    needs_root!();
    let host = Host::new();
    version(&host, "web:2");
    // A document's errors have their place.
    let misspelt = apply(&host, &document(1, "busybox:test", "comand: [x]\n"));
    assert_eq!(misspelt.code, 125);
    assert!(
        misspelt.stderr.contains("standard input:8:1") && misspelt.stderr.contains("did you mean `command`?"),
        "{misspelt}"
    );
    assert_eq!(host.ok(&["app", "list", "--quiet"]), "", "nothing came of it");
    // The name of somebody else's container is not taken.
    host.ok(&["create", "--name", "web-b", "busybox:test", "true"]);
    let taken = apply(&host, &document(1, "busybox:test", STAYS));
    assert!(taken.code == 125 && taken.stderr.contains("web-b"), "{taken}");
    host.ok(&["rm", "web-b"]);
    assert_eq!(host.ok(&["app", "list", "--quiet"]), "");

    apply(&host, &document(5, "busybox:test", STAYS)).ok();
    let before = (status(&host), host.pid("web-a"), record(&host));
    for (text, words) in [
        (document(4, "web:2", STAYS), "older than generation 5"),
        (document(5, "web:2", STAYS), "taken by another document"),
        (
            document(6, "web:2", &format!("{STAYS}policy: privileged\n")),
            "privileged",
        ),
        (
            document(6, "web:2", &format!("{STAYS}policy: nosuch\n")),
            "nosuch",
        ),
        (
            document(6, "web:2", &format!("{STAYS}devices: [/dev/sda]\n")),
            "/dev/sda",
        ),
        (
            document(6, "web:2", &format!("{STAYS}volumes: [\"/etc:/etc\"]\n")),
            "/etc",
        ),
        (
            document(6, "web:2", STAYS).replace("[none]", "[nosuchnet]"),
            "nosuchnet",
        ),
    ] {
        let refused = apply(&host, &text);
        assert_eq!(refused.code, 125, "{words}: {refused}");
        assert!(refused.stderr.contains(words), "{words}: {refused}");
        assert_eq!(
            (status(&host), host.pid("web-a"), record(&host)),
            before,
            "{words}"
        );
    }
    // The floor outlives the daemon, and nothing is written where nothing changes.
    host.stop_daemon();
    host.start_daemon();
    let refused = apply(&host, &document(4, "web:2", STAYS));
    assert!(
        refused.code == 125 && refused.stderr.contains("older"),
        "{refused}"
    );
    assert_eq!((status(&host), host.pid("web-a"), record(&host)), before);
    // Docker's clients do not see them.
    let docker = Engine(host.path("run/docker.sock"));
    assert_eq!(docker.ask("GET", "/kakoi/v1/apps", None).head.status, 404);
    assert_eq!(
        Engine(host.socket())
            .ask("GET", "/kakoi/v1/apps", None)
            .head
            .status,
        200
    );
    remove(&host);
}

/// The record's inode and time: what tells whether it was written.
fn record(host: &Host) -> (u64, i64, i64) {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(host.path("root/apps/web.json")).expect("a record");
    (meta.ino(), meta.mtime(), meta.mtime_nsec())
}

fn spawn(host: &Host, text: &str) -> Child {
    let path = host.file("update.yaml", text);
    host.command()
        .env("KAKOI_HOST", format!("unix://{}", host.socket().display()))
        .args(["app", "apply", &path])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starting kakoi")
}

/// Waits until all is steady, and says which generation runs.
fn outcome(host: &Host) -> i64 {
    let state = wait::poll(LIMIT, || {
        let state = status(host);
        (state["Phase"] == "steady" && state["State"] == "running").then_some(state)
    });
    let state = state.unwrap_or_else(|| panic!("it does not end: {}", status(host)));
    let current = &state["Current"];
    let name = current["Container"].as_str().expect("a name");
    assert_eq!(running(host), [name], "exactly one runs: {state}");
    let seen = host.ok(&["exec", name, "sh", "-c", "cat /version 2>/dev/null || echo old"]);
    let generation = current["Generation"].as_i64().expect("a number");
    let expected = if current["Image"] == "web:2" {
        "web:2"
    } else {
        "old"
    };
    assert_eq!(seen.trim(), expected, "generation {generation}: {state}");
    generation
}

#[test]
fn killing_the_daemon_in_an_update_ends_in_the_old_or_the_new() {
    needs_root!();
    let host = Host::new();
    version(&host, "web:2");
    let kills: u32 = std::env::var("KAKOI_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(8);
    let old = |generation| document(generation, "busybox:test", STAYS);
    let new = |generation| document(generation, "web:2", STAYS);
    apply(&host, &old(1)).ok();
    let begun = Instant::now();
    apply(&host, &new(2)).ok();
    let length = begun.elapsed();
    let (mut ran, mut went_on) = (2, 0);
    for round in 0..kills {
        let state = status(&host);
        let asked = state["Floor"].as_u64().expect("a number") + 1;
        let is_new = state["Current"]["Image"] == "web:2";
        host.ok(&["app", "unblock", "web"]);
        let mut command = spawn(&host, &if is_new { old(asked) } else { new(asked) });
        let moment = Instant::now() + length * round / kills;
        // The moment is the point here, not a state: spin until it has come.
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        host.kill_daemon();
        ended(&mut command, LIMIT).expect("a command whose daemon died ends");
        host.start_daemon();
        let runs = outcome(&host);
        let is_whole = runs == ran || u64::try_from(runs) == Ok(asked);
        assert!(
            is_whole,
            "round {round}: {runs} runs, where {ran} ran and {asked} was asked for"
        );
        went_on += u32::from(runs != ran);
        ran = runs;
    }
    println!("{kills} kills within {length:?}: {went_on} ended in the new version");
    remove(&host);
}

#[test]
fn an_image_that_is_not_here_is_fetched_or_given_up() {
    needs_root!();
    let registry = Registry::open();
    let host = Host::new();
    registry.introduce(&host, "{transport: http}");
    let (there, missing) = (registry.image("apps/web:2"), registry.image("apps/none:1"));
    version(&host, &there);
    host.ok(&["push", "--quiet", &there]);
    host.ok(&["rmi", &there]);
    apply(&host, &document(1, "busybox:test", STAYS)).ok();
    let pid = host.pid("web-a");
    let failed = apply(&host, &document(2, &missing, STAYS));
    assert_eq!(failed.code, 1, "{failed}");
    assert!(failed.stderr.contains("generation 2, fetch"), "{failed}");
    assert_eq!(host.pid("web-a"), pid, "what runs is not touched");
    assert_eq!(status(&host)["Blocked"], json!([]), "nothing was tried of it");
    apply(&host, &document(3, &there, STAYS)).ok();
    assert_eq!(running(&host), ["web-b"]);
    // From here on no network is needed, in either direction.
    drop(registry);
    host.ok(&["app", "rollback", "web"]);
    host.ok(&["app", "rollback", "web"]);
    assert_eq!(running(&host), ["web-b"]);
    remove(&host);
}

#[test]
fn an_app_comes_up_with_the_device() {
    needs_root!();
    let host = Host::new();
    version(&host, "web:2");
    apply(&host, &document(1, "busybox:test", STAYS)).ok();
    apply(&host, &document(2, "web:2", STAYS)).ok();
    // As after a power cut: the daemon and the supervisor of the container are gone.
    let pid = host.pid("web-b");
    host.kill_daemon();
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("killing a process of ours");
    host.start_daemon();
    assert_eq!(outcome(&host), 2);
    // A person stopped it, or took it away behind the supervisor's back: what should run comes back.
    host.ok(&["stop", "web-b"]);
    apply(&host, &document(2, "web:2", STAYS)).ok();
    assert_eq!(outcome(&host), 2);
    // A record that cannot be read is not made anew: what it forbade would be allowed.
    host.stop_daemon();
    let path = host.path("root/apps/web.json");
    let whole = std::fs::read(&path).expect("a record");
    std::fs::write(&path, &whole[..whole.len() / 2]).expect("written");
    host.start_daemon();
    let refused = apply(&host, &document(9, "web:2", STAYS));
    assert!(
        refused.code == 125 && refused.stderr.contains("cannot be read"),
        "{refused}"
    );
    assert_eq!(running(&host), ["web-b"], "it goes on");
    host.stop_daemon();
    std::fs::write(&path, whole).expect("written");
    host.start_daemon();
    assert_eq!(outcome(&host), 2);
    remove(&host);
}
