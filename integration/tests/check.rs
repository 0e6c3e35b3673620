//! `kakoi system check` on a whole device: damage to images, records, containers and volumes, told, healed or named.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kakoi_integration::command::ended;
use kakoi_integration::host::{Host, binary};
use kakoi_integration::image::Layer;
use kakoi_integration::registry::Registry;
use kakoi_integration::{image, leaks, needs_root, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// A container and a volume that nothing mounts, beside the image.
fn given() -> Host {
    let host = Host::new();
    host.ok(&["volume", "create", "--label", "a=b", "store"]);
    fs::write(host.path("root/volumes/store/_data/kept"), b"data").expect("a file");
    host.ok(&[
        "create",
        "--name",
        "app",
        "--network",
        "none",
        "busybox:test",
        "true",
    ]);
    host
}

fn check(host: &Host, flags: &[&str], code: i32) -> Value {
    let ran = host.kakoi(&[&["system", "check", "--format", "json"], flags].concat());
    assert_eq!(ran.code, code, "{ran}");
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"))
}

fn kinds(check: &Value) -> Vec<(String, String)> {
    let findings = check["Findings"].as_array().expect("a list").iter();
    let word = |finding: &Value, field: &str| finding[field].as_str().expect("a word").to_owned();
    findings
        .map(|finding| (word(finding, "Damage"), word(finding, "Outcome")))
        .collect()
}

fn is(check: &Value, expected: &[(&str, &str)], why: &str) {
    let expected: Vec<_> = expected
        .iter()
        .map(|(damage, outcome)| ((*damage).to_owned(), (*outcome).to_owned()))
        .collect();
    assert_eq!(kinds(check), expected, "{why}: {check}");
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("a mode");
}

fn folder_of_app(host: &Host) -> PathBuf {
    let id = host.inspect("app")["Id"].as_str().expect("an id").to_owned();
    host.path(&format!("root/containers/{id}"))
}

/// Damage, what a check tells, what a repair makes of it, and what the next check tells.
#[test]
fn damage_between_records_and_folders() {
    needs_root!();
    struct Row {
        name: &'static str,
        finds: &'static str,
        repaired: &'static str,
        stays: bool,
        hurts: fn(&Host),
    }
    let rows = [
        Row {
            name: "a container's folder goes",
            finds: "container-without-folder",
            repaired: "healed",
            stays: false,
            hurts: |host| fs::remove_dir_all(folder_of_app(host)).expect("gone"),
        },
        Row {
            name: "a container's plan does not read",
            finds: "plan-unreadable",
            repaired: "found",
            stays: true,
            hurts: |host| fs::write(folder_of_app(host).join("plan.json"), b"{").expect("a file"),
        },
        Row {
            name: "a folder of no container",
            finds: "folder-without-container",
            repaired: "healed",
            stays: false,
            hurts: |host| fs::create_dir_all(host.path("root/containers/00ff/upper")).expect("a folder"),
        },
        Row {
            name: "a volume's folder goes",
            finds: "volume-without-folder",
            repaired: "healed",
            stays: false,
            hurts: |host| fs::remove_dir_all(host.path("root/volumes/store/_data")).expect("gone"),
        },
        Row {
            name: "a folder of no volume",
            finds: "folder-without-volume",
            repaired: "healed",
            stays: false,
            hurts: |host| fs::create_dir_all(host.path("root/volumes/found/_data")).expect("a folder"),
        },
        Row {
            name: "everybody enters the containers",
            finds: "folder-mode",
            repaired: "healed",
            stays: false,
            hurts: |host| mode(&host.path("root/containers"), 0o755),
        },
    ];
    for row in rows {
        let (name, host) = (row.name, given());
        is(&check(&host, &[], 0), &[], name);
        (row.hurts)(&host);
        is(&check(&host, &["--hash"], 1), &[(row.finds, "found")], name);
        let code = i32::from(row.stays);
        is(
            &check(&host, &["--repair"], code),
            &[(row.finds, row.repaired)],
            name,
        );
        let stays = [(row.finds, "found")];
        is(
            &check(&host, &[], code),
            if row.stays { &stays } else { &[] },
            name,
        );
        // What was not damaged is there.
        assert_eq!(host.ok(&["images", "--quiet"]).lines().count(), 1, "{name}");
        assert!(
            host.ok(&["volume", "ls", "--quiet"])
                .lines()
                .any(|volume| volume == "store"),
            "{name}"
        );
        match row.finds {
            "container-without-folder" => {}
            "volume-without-folder" => assert!(host.path("root/volumes/store/_data").is_dir()),
            _ => {
                assert_eq!(
                    host.ok(&["ps", "--all", "--format", "{{.Names}}"]),
                    "app",
                    "{name}"
                );
                let kept = fs::read(host.path("root/volumes/store/_data/kept")).expect("a file");
                assert_eq!(kept, b"data", "{name}");
            }
        }
        if row.finds == "folder-without-volume" {
            assert!(
                host.ok(&["volume", "ls", "--quiet"])
                    .lines()
                    .any(|volume| volume == "found"),
                "{name}"
            );
        }
    }
}

/// The daemon opens records that are no records any more, with every container and volume that has a copy.
#[test]
fn damaged_records_come_back_from_their_copies() {
    needs_root!();
    type Hurts = fn(&Path);
    let rows: [(&str, Hurts); 5] = [
        ("garbage", |path| {
            fs::write(path, vec![0x5a; 65536]).expect("a file")
        }),
        ("cut", |path| {
            let bytes = fs::read(path).expect("a file");
            fs::write(path, &bytes[..bytes.len() / 2]).expect("a file");
        }),
        ("zeros", |path| {
            let bytes = fs::read(path).expect("a file").len();
            fs::write(path, vec![0; bytes]).expect("a file");
        }),
        ("empty", |path| fs::write(path, b"").expect("a file")),
        ("gone", |path| fs::remove_file(path).expect("gone")),
    ];
    for (name, hurts) in rows {
        let host = given();
        let id = host.inspect("app")["Id"].clone();
        host.ok(&["rename", "app", "renamed"]);
        assert_eq!(host.stop_daemon(), 0);
        hurts(&host.path("root/state.redb"));
        host.start_daemon();
        assert_eq!(host.inspect("renamed")["Id"], id, "{name}");
        assert_eq!(host.inspect("renamed")["State"]["Status"], "created", "{name}");
        assert_eq!(
            host.ok(&["volume", "inspect", "--format", "{{.Labels.a}}", "store"]),
            "b",
            "{name}"
        );
        // What is gone leaves an empty file aside: it says that something may be missing.
        let told = [("records-unreadable", "healed"), ("leftover", "found")];
        is(&check(&host, &[], 1), &told, name);
        is(&check(&host, &["--repair"], 0), &[("leftover", "healed")], name);
        is(&check(&host, &["--hash"], 0), &[], name);
        // It works on: what is written now is there after the next start.
        host.ok(&["rm", "renamed"]);
        host.ok(&[
            "create",
            "--name",
            "next",
            "--network",
            "none",
            "busybox:test",
            "true",
        ]);
        host.kill_daemon();
        host.start_daemon();
        assert_eq!(
            host.ok(&["ps", "--all", "--format", "{{.Names}}"]),
            "next",
            "{name}"
        );
        is(&check(&host, &[], 0), &[], name);
    }
}

/// A container whose record has no copy is not in the records that are made anew. It and what it wrote stay, however often the daemon starts, until
/// a person has a repair made.
#[test]
fn containers_without_copies_outlive_damaged_records() {
    needs_root!();
    let host = given();
    let folder = folder_of_app(&host);
    assert_eq!(host.stop_daemon(), 0);
    fs::remove_file(folder.join("record.json")).expect("a copy");
    fs::write(host.path("root/state.redb"), vec![0x5a; 65536]).expect("a file");
    for start in 1..=3 {
        host.start_daemon();
        assert_eq!(host.ok(&["ps", "--all", "--quiet"]), "", "start {start}");
        assert!(folder.join("plan.json").exists(), "start {start}");
        if start == 3 {
            check(&host, &["--repair"], 0);
        }
        assert_eq!(host.stop_daemon(), 0);
    }
    host.start_daemon();
    assert!(!folder.exists(), "a person had it repaired");
}

/// An update is in the copy too, and a copy that is missing is written at the next start.
#[test]
fn copies_say_what_was_updated() {
    needs_root!();
    let host = given();
    let copy = folder_of_app(&host).join("record.json");
    let said = || {
        let bytes = fs::read(&copy).expect("a copy");
        let copy: Value = serde_json::from_slice(&bytes).expect("json");
        copy["host_config"]["RestartPolicy"]["Name"].clone()
    };
    host.ok(&["update", "--restart", "unless-stopped", "app"]);
    assert_eq!(said(), "unless-stopped");
    assert_eq!(host.stop_daemon(), 0);
    fs::remove_file(&copy).expect("a copy");
    host.start_daemon();
    assert_eq!(said(), "unless-stopped");
}

/// Images on a whole device: the table of every kind is the store's own; here are the words and the exit codes.
#[test]
fn a_lost_image_is_named() {
    needs_root!();
    let host = Host::new();
    let blobs = host.path("root/images/blobs/sha256");
    let largest = fs::read_dir(&blobs)
        .expect("a folder")
        .flatten()
        .max_by_key(|entry| entry.metadata().expect("a file").len())
        .expect("a blob")
        .path();
    let bytes = fs::read(&largest).expect("a blob");
    fs::write(&largest, &bytes[..bytes.len() - 1]).expect("a blob");
    let ran = host.kakoi(&["system", "check"]);
    assert_eq!(ran.code, 1, "{ran}");
    assert!(
        ran.stdout.contains("image busybox:test is not whole: kakoi load"),
        "{ran}"
    );
    let told = check(&host, &["--repair"], 1);
    assert_eq!(told["Lost"][0]["Names"][0], "busybox:test", "{told}");
    is(&check(&host, &["--hash"], 0), &[], "after the repair");
    host.kakoi(&[
        "run",
        "--rm",
        "--network",
        "none",
        "--pull",
        "never",
        "busybox:test",
        "true",
    ])
    .fails(125, "busybox:test");
    host.load(&kakoi_integration::image::busybox(
        &kakoi_integration::host::binary("attacker"),
    ))
    .ok();
    host.ok(&["run", "--rm", "--network", "none", "busybox:test", "true"]);
    is(&check(&host, &["--hash"], 0), &[], "loaded again");
}

/// After a stop in order nobody looks; after a kill the next daemon does, heals, and tells it once.
#[test]
fn an_unclean_stop_is_looked_after() {
    needs_root!();
    let host = given();
    assert!(host.path("root/running").exists());
    let hurt = host.path("root/images/blobs");
    for (is_clean, expected) in [
        (true, ("folder-mode", "found")),
        (false, ("folder-mode", "healed")),
    ] {
        if is_clean {
            assert_eq!(host.stop_daemon(), 0);
            assert!(!host.path("root/running").exists());
        } else {
            host.kill_daemon();
            assert!(host.path("root/running").exists());
        }
        mode(&hurt, 0o755);
        host.start_daemon();
        is(
            &check(&host, &[], i32::from(is_clean)),
            &[expected],
            "at the start",
        );
        check(&host, &["--repair"], 0);
        is(&check(&host, &[], 0), &[], "told once");
    }
}

/// A container that runs and whose record is lost keeps its folders; once nothing of it listens, a repair ends what is left of it.
#[test]
fn a_running_container_without_a_record_keeps_its_folders() {
    needs_root!();
    for is_shim_killed in [false, true] {
        let host = Host::new();
        host.ok(&[
            "run",
            "-d",
            "--name",
            "app",
            "--network",
            "none",
            "busybox:test",
            "sleep",
            "1000",
        ]);
        let (folder, first) = (folder_of_app(&host), host.pid("app"));
        let id = host.inspect("app")["Id"].as_str().expect("an id").to_owned();
        let shim = leaks::processes(&host.path(""))
            .into_iter()
            .find(|process| process.command.contains("kakoi-shim") && process.command.contains(&id))
            .expect("its shim")
            .pid;
        host.kill_daemon();
        fs::remove_file(folder.join("record.json")).expect("the copy");
        fs::write(host.path("root/state.redb"), b"no records").expect("a file");
        host.start_daemon();
        assert_eq!(host.ok(&["ps", "--all", "--quiet"]), "", "it has no record");

        let told = check(&host, &["--repair"], 1);
        let found = ("folder-without-container".to_owned(), "in-use".to_owned());
        assert!(kinds(&told).contains(&found), "{told}");
        assert!(
            told.to_string().contains(&format!("end process {first}, ")),
            "{told}"
        );
        assert!(folder.join("plan.json").exists() && folder.join("upper").exists());
        assert!(kill(first, None).is_ok(), "it runs");

        let target = if is_shim_killed {
            Pid::from_raw(shim)
        } else {
            first
        };
        kill(target, Signal::SIGKILL).expect("killed");
        wait::until("the shim is gone", || {
            !leaks::processes(&host.path(""))
                .iter()
                .any(|process| process.pid == shim)
        });
        is(
            &check(&host, &["--repair"], 0),
            &[("folder-without-container", "healed")],
            "nothing listens",
        );
        assert!(!folder.exists() && !host.path(&format!("run/containers/{id}")).exists());
        host.is_clean();
    }
}

/// What a start sweeps away is dead: a container that runs and whose record was lost without a trace of damage is left, told of, and swept once it ended.
#[test]
fn a_start_sweeps_no_container_that_runs() {
    needs_root!();
    let host = Host::new();
    let words = ["run", "-d", "--rm", "--name", "app", "--network", "none"];
    host.ok(&[&words[..], &["busybox:test", "sleep", "100000"]].concat());
    let (folder, first) = (folder_of_app(&host), host.pid("app"));
    let id = host.inspect("app")["Id"].as_str().expect("an id").to_owned();
    host.kill_daemon();
    fs::remove_file(host.path(&format!("run/records/{id}.json"))).expect("its record");
    let dead = host.path(&format!("root/containers/{}", "d".repeat(64)));
    for start in 1..=2 {
        fs::create_dir(&dead).expect("a folder");
        host.start_daemon();
        assert!(!dead.exists(), "what is dead goes");
        assert_eq!(host.ok(&["ps", "--all", "--quiet"]), "", "it has no record");
        assert!(kill(first, None).is_ok(), "it runs");
        assert!(folder.join("plan.json").exists(), "it has its folder");
        let log = host.daemon_log();
        assert_eq!(
            log.matches("a container runs that has no record").count(),
            start,
            "{log}"
        );
        assert!(log.contains(&format!("end process {first}, ")), "{log}");
        host.kill_daemon();
    }
    kill(first, Signal::SIGKILL).expect("a process of ours");
    wait::until("the shim is gone", || {
        !leaks::processes(&host.path(""))
            .iter()
            .any(|process| process.command.contains("kakoi-shim") && process.command.contains(&id))
    });
    host.start_daemon();
    assert!(!folder.exists() && !host.path(&format!("run/containers/{id}")).exists());
    host.is_clean();
}

/// What is being made looks like what was left behind; a repair tells them apart.
#[test]
fn a_repair_takes_nothing_from_a_pull_and_a_creation_beside_it() {
    needs_root!();
    let registry = Registry::open();
    let host = Host::new();
    registry.introduce(&host, "{transport: http}");
    let served = registry.image("apps/large:1");
    // Layers that take longer than a check does.
    let layer = |number: u8| {
        let file = |layer: Layer, at: u16| {
            let bytes: Vec<u8> = (0..64u32 << 10).map(|byte| (byte >> 3) as u8 ^ number).collect();
            layer.file(&format!("data-{number}-{at}"), 0o644, &bytes)
        };
        (0..128).fold(Layer::new(), file).finish()
    };
    let layers = [image::busybox_layer(&binary("attacker")), layer(1), layer(2)];
    host.load(&image::archive(&served, &json!({"Cmd": ["true"]}), &layers))
        .ok();
    host.ok(&["push", "--quiet", &served]);
    let mut beside = 0;
    for round in 0..3 {
        host.ok(&["rmi", &served]);
        let name = format!("app-{round}");
        let create = [
            "create",
            "--name",
            &name,
            "--network",
            "none",
            "busybox:test",
            "true",
        ];
        let mut work = [host.spawn(&["pull", "--quiet", &served]), host.spawn(&create)];
        loop {
            let is_done = work
                .iter_mut()
                .all(|command| command.try_wait().expect("a command of ours").is_some());
            is(&check(&host, &["--repair"], 0), &[], "nothing is damaged");
            if is_done {
                break;
            }
            beside += 1;
        }
        for command in &mut work {
            assert_eq!(
                ended(command, Duration::ZERO),
                Some(0),
                "{round}: {}",
                host.daemon_log()
            );
        }
        is(&check(&host, &["--hash"], 0), &[], "all of it is there");
        host.ok(&["start", "--attach", &name]);
        host.ok(&["run", "--rm", "--network", "none", &served, "true"]);
        host.ok(&["rm", &name]);
    }
    assert!(beside > 0, "no repair came between");
}
