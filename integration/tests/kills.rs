//! `kill -9` of the daemon in the middle of pull, load, removal and push, in a loop: what was answered for is there and whole, the next daemon
//! opens by itself, and the next command of each kind completes.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kakoi_integration::command::ended;
use kakoi_integration::host::{Host, binary};
use kakoi_integration::registry::Registry;
use kakoi_integration::{image, needs_root, wait};

/// Kills per kind of work. `KAKOI_KILLS=N` makes more.
const KILLS: u32 = 4;
/// A command that was cut off ends at once; one that was not, soon.
const LIMIT: Duration = Duration::from_secs(60);

/// What one round does, and what must be there after it where it was acknowledged.
struct Work<'a> {
    name: &'static str,
    /// Makes the round's work possible.
    prepares: &'a dyn Fn(&Host),
    arguments: &'a [&'a str],
    /// Whether `busybox:test` is to be there afterwards, if it was acknowledged.
    leaves: bool,
}

fn spawn(host: &Host, arguments: &[&str]) -> Child {
    // A command that names its socket starts no daemon of its own.
    host.command()
        .env("KAKOI_HOST", format!("unix://{}", host.socket().display()))
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starting kakoi")
}

fn has(host: &Host, name: &str) -> bool {
    host.kakoi(&["image", "exists", name]).code == 0
}

/// How long the work takes that is cut off, so that the cuts spread over all of it.
fn length(host: &Host, work: &Work<'_>) -> Duration {
    (work.prepares)(host);
    let begun = Instant::now();
    assert_eq!(
        ended(&mut spawn(host, work.arguments), LIMIT),
        Some(0),
        "{} completes uncut",
        work.name
    );
    begun.elapsed()
}

fn rounds(host: &Host, registry: &Registry, work: &Work<'_>) {
    let kills = std::env::var("KAKOI_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(KILLS);
    let length = length(host, work);
    let (name, mut acknowledged) = (work.name, 0);
    for round in 0..kills {
        (work.prepares)(host);
        let had = has(host, "busybox:test");
        let mut command = spawn(host, work.arguments);
        let moment = Instant::now() + length * round / kills;
        // The moment is the point here, not a state: spin until it has come.
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        host.kill_daemon();
        let is_acknowledged = ended(&mut command, LIMIT).expect("a command whose daemon died ends") == 0;
        host.start_daemon();
        let has_it = has(host, "busybox:test");
        if is_acknowledged {
            acknowledged += 1;
            assert_eq!(has_it, work.leaves, "{name} {round}: acknowledged");
        }
        assert!(
            has_it || !had || !work.leaves,
            "{name} {round}: what was there stays"
        );
        assert!(has(host, "other:1"), "{name} {round}: the neighbour stays");
        let checked = host.kakoi(&["system", "check", "--hash"]);
        assert_eq!(checked.code, 0, "{name} {round}: {checked}");
    }
    println!("{name}: {kills} kills within {length:?}, {acknowledged} acknowledged before");
    // The next of each kind completes.
    let pushed = registry.image("apps/whole:1");
    host.load(&image::busybox(&binary("attacker"))).ok();
    host.ok(&["tag", "busybox:test", &pushed]);
    host.ok(&["push", "--quiet", &pushed]);
    host.ok(&["rmi", &pushed]);
    host.ok(&["pull", "--quiet", &pushed]);
    host.ok(&["rmi", &pushed]);
    host.ok(&["run", "--rm", "--network", "none", "busybox:test", "true"]);
}

#[test]
fn killing_the_daemon_while_it_works_on_images_loses_nothing() {
    needs_root!();
    let registry = Registry::open();
    let host = Host::new();
    registry.introduce(&host, "{transport: http}");
    let archive = host.file("busybox.tar", image::busybox(&binary("attacker")));
    let served = registry.image("apps/tool:1");
    // A neighbour with a layer of its own, which nothing here touches.
    let rootfs = host.file("rootfs.tar", [0u8; 1024]);
    host.ok(&["import", &rootfs, "other:1"]);
    host.ok(&["tag", "busybox:test", &served]);
    host.ok(&["push", "--quiet", &served]);
    let nothing = |host: &Host| {
        for name in ["busybox:test", served.as_str()] {
            host.kakoi(&["rmi", "--force", name]);
        }
    };
    let loaded = |host: &Host| {
        host.ok(&["load", "--quiet", "--input", &archive]);
        host.ok(&["tag", "busybox:test", &served]);
    };
    for work in [
        Work {
            name: "load",
            prepares: &nothing,
            arguments: &["load", "--quiet", "--input", &archive],
            leaves: true,
        },
        Work {
            name: "pull",
            prepares: &nothing,
            arguments: &["pull", "--quiet", &served],
            leaves: false,
        },
        Work {
            name: "removal",
            prepares: &loaded,
            arguments: &["rmi", "--force", "busybox:test", &served],
            leaves: false,
        },
        Work {
            name: "prune",
            prepares: &|host| {
                loaded(host);
                // Its names move on, and it has none.
                host.ok(&["tag", "other:1", "busybox:test"]);
                host.ok(&["tag", "other:1", &served]);
            },
            arguments: &["image", "prune", "--force"],
            leaves: true,
        },
        Work {
            name: "push",
            prepares: &loaded,
            arguments: &["push", "--quiet", &served],
            leaves: true,
        },
    ] {
        rounds(&host, &registry, &work);
    }
    host.is_clean();
}

/// Passes bytes on between the daemon and a registry, as many from there as it is told, and holds the line then.
struct Narrow {
    name: String,
    left: Arc<AtomicU64>,
    passed: Arc<AtomicU64>,
}

impl Narrow {
    fn before(registry: &Registry) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let name = listener.local_addr().expect("bound").to_string();
        let (left, passed) = (Arc::new(AtomicU64::new(u64::MAX)), Arc::new(AtomicU64::new(0)));
        let (to, budget, count) = (registry.name.clone(), Arc::clone(&left), Arc::clone(&passed));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect(&to).expect("the registry listens");
                let (mut asked, mut asks) = (
                    client.try_clone().expect("a copy"),
                    server.try_clone().expect("a copy"),
                );
                std::thread::spawn(move || drop(std::io::copy(&mut asked, &mut asks)));
                let (budget, count) = (Arc::clone(&budget), Arc::clone(&count));
                std::thread::spawn(move || Self::pass(server, client, &budget, &count));
            }
        });
        Self { name, left, passed }
    }

    fn pass(mut from: TcpStream, mut to: TcpStream, left: &AtomicU64, passed: &AtomicU64) {
        let mut buffer = [0; 8 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let taken = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(count as u64)
            });
            if taken.is_err() {
                // Until the other side is gone.
                drop(to.read(&mut [0]));
                return;
            }
            passed.fetch_add(count as u64, Ordering::SeqCst);
            if to.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
        drop(to.shutdown(Shutdown::Write));
    }
}

#[test]
fn a_pull_whose_daemon_was_killed_twice_goes_on_where_it_was() {
    needs_root!();
    let registry = Registry::open();
    let host = Host::empty();
    let narrow = Narrow::before(&registry);
    let entry = "{transport: http}";
    host.file(
        "config/registries.yaml",
        format!(
            "registries:\n  \"{}\": {entry}\n  \"{}\": {entry}\n",
            registry.name, narrow.name
        ),
    );
    // One layer that does not pack, so that what is asked for can be counted.
    let mut state = 42u64;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    let large = 12 << 20;
    let content: Vec<u8> = (0..large).map(|_| noise()).collect();
    let layer = image::Layer::new().file("large", 0o644, &content).finish();
    let pushed = registry.image("apps/large:1");
    host.load(&image::archive(
        &pushed,
        &serde_json::json!({"Cmd": ["true"]}),
        &[layer],
    ))
    .ok();
    host.ok(&["push", "--quiet", &pushed]);
    host.ok(&["rmi", &pushed]);
    let name = format!("{}/apps/large:1", narrow.name);
    let partial = host.path("root/images/partial");
    // The largest beginning that is kept; none where there is no file.
    let kept = || -> Option<u64> {
        let entries = std::fs::read_dir(&partial).expect("the store's folder").flatten();
        let files = entries
            .filter_map(|entry| entry.metadata().ok())
            .filter(|meta| meta.is_file());
        files.map(|meta| meta.len()).max()
    };
    let interrupted = |bytes: u64, is_there: &dyn Fn() -> bool| {
        narrow.left.store(bytes, Ordering::SeqCst);
        let mut command = spawn(&host, &["pull", "--quiet", &name]);
        wait::until("the pull is in the middle of a layer", is_there);
        host.kill_daemon();
        assert_ne!(
            ended(&mut command, LIMIT),
            Some(0),
            "it cannot have been acknowledged"
        );
        host.start_daemon();
        assert_eq!(host.ok(&["images", "--quiet"]), "", "nothing of it is seen");
        host.ok(&["system", "check", "--hash"]);
    };
    interrupted(6 << 20, &|| kept().is_some());
    interrupted(9 << 20, &|| kept().is_some_and(|bytes| bytes > 2 << 20));
    let there = kept().expect("kept");
    assert!(there > 2 << 20, "{there}");
    narrow.left.store(u64::MAX, Ordering::SeqCst);
    let before = narrow.passed.load(Ordering::SeqCst);
    host.ok(&["pull", "--quiet", &name]);
    let asked = narrow.passed.load(Ordering::SeqCst) - before;
    println!("{there} bytes of {large} were kept, {asked} were asked for after that");
    // A manifest, a configuration, the heads of answers; and the layer without what is there.
    assert!(
        asked < large as u64 - there + (256 << 10),
        "{asked} after {there}"
    );
    assert_eq!(kept(), None, "what has served is gone");
    host.ok(&["system", "check", "--hash"]);
    host.is_clean();
}

/// A container with something to read, and its state as people see it.
fn with_a_box(host: &Host) -> impl Fn() -> String {
    let writes = "dd if=/dev/zero of=/large bs=1M count=16 2>/dev/null; echo ready; exec sleep 1000";
    host.ok(&[
        "run",
        "-d",
        "--name",
        "box",
        "--network",
        "none",
        "busybox:test",
        "sh",
        "-c",
        writes,
    ]);
    wait::until("the container has written", || {
        host.ok(&["logs", "box"]).contains("ready")
    });
    || {
        host.ok(&["inspect", "--format", "{{.State.Status}}", "box"])
            .trim()
            .to_owned()
    }
}

/// Clients of exports who do not read: as many as the daemon makes copies at a time. What comes after them waits until they leave.
fn dam(host: &Host) -> Vec<UnixStream> {
    let stalled = || {
        let mut stream = UnixStream::connect(host.socket()).expect("the daemon listens");
        stream
            .write_all(b"GET /v1.47/containers/box/export HTTP/1.1\r\nHost: kakoi\r\n\r\n")
            .expect("asking");
        let mut begun = [0; 12];
        stream.read_exact(&mut begun).expect("it is begun");
        assert_eq!(&begun, b"HTTP/1.1 200");
        stream
    };
    (0..8).map(|_| stalled()).collect()
}

/// A commit that has frozen its container and goes on when the dam is dropped.
fn commit_midway(host: &Host, state: &dyn Fn() -> String) -> (Child, Vec<UnixStream>) {
    let dam = dam(host);
    let command = spawn(host, &["commit", "--pause", "box", "made:1"]);
    wait::until("the commit has frozen it", || state() == "paused");
    (command, dam)
}

#[test]
fn a_commit_that_is_cut_off_leaves_nothing_frozen() {
    needs_root!();
    let host = Host::new();
    let state = with_a_box(&host);
    // The daemon is killed.
    let (mut command, dam) = commit_midway(&host, &state);
    host.kill_daemon();
    assert_ne!(ended(&mut command, LIMIT), Some(0));
    drop(dam);
    host.start_daemon();
    assert_eq!(state(), "running", "the next daemon thaws what a commit froze");
    host.ok(&["exec", "box", "true"]);
    assert!(!has(&host, "made:1"));
    // The daemon is asked to end.
    let (mut command, dam) = commit_midway(&host, &state);
    assert_eq!(host.stop_daemon(), 0);
    assert_ne!(ended(&mut command, LIMIT), Some(0));
    drop(dam);
    let frozen = host.path("run/containers").read_dir().expect("the run folder");
    for folder in frozen.flatten() {
        assert!(
            !folder.path().join("frozen-by-commit").exists(),
            "thawed at the end"
        );
    }
    host.start_daemon();
    assert_eq!(
        state(),
        "running",
        "a daemon that ends thaws what its commits froze"
    );
    // The client leaves.
    let (mut command, dam) = commit_midway(&host, &state);
    command.kill().expect("a child of ours");
    command.wait().expect("a child of ours");
    drop(dam);
    wait::until("the commit that nobody waits for thaws it", || {
        state() == "running"
    });
    host.ok(&["exec", "box", "true"]);
    host.ok(&["rm", "--force", "box"]);
    host.is_clean();
}

#[test]
fn a_person_who_pauses_or_stops_during_a_commit_has_the_last_word() {
    needs_root!();
    let host = Host::new();
    let state = with_a_box(&host);
    let (mut command, dam) = commit_midway(&host, &state);
    host.ok(&["pause", "box"]);
    let twice = host.kakoi(&["pause", "box"]);
    assert!(
        twice.code != 0 && twice.stderr.contains("already paused"),
        "{twice}"
    );
    drop(dam);
    assert_eq!(ended(&mut command, LIMIT), Some(0), "the commit completes");
    assert_eq!(state(), "paused", "a person's pause outlives the commit");
    host.kill_daemon();
    host.start_daemon();
    assert_eq!(state(), "paused", "and the daemon");
    // A commit of what a person has paused leaves it so.
    host.ok(&["commit", "--pause", "box", "made:1"]);
    assert_eq!(state(), "paused");
    host.ok(&["unpause", "box"]);
    // Who unpauses it wants it to run, whatever the commit reads; and may pause it again.
    let (mut command, dam) = commit_midway(&host, &state);
    host.ok(&["unpause", "box"]);
    assert_eq!(state(), "running");
    host.ok(&["pause", "box"]);
    drop(dam);
    assert_eq!(ended(&mut command, LIMIT), Some(0));
    assert_eq!(state(), "paused");
    host.ok(&["unpause", "box"]);
    // Two commits: the last one thaws.
    let (mut first, dam) = commit_midway(&host, &state);
    let mut second = spawn(&host, &["commit", "--pause", "box", "made:2"]);
    drop(dam);
    assert_eq!(ended(&mut first, LIMIT), Some(0));
    assert_eq!(ended(&mut second, LIMIT), Some(0));
    assert_eq!(state(), "running");
    // What is killed meanwhile ends, and its next run is not frozen.
    let (mut command, dam) = commit_midway(&host, &state);
    host.ok(&["kill", "box"]);
    assert_eq!(state(), "exited");
    host.ok(&["start", "box"]);
    drop(dam);
    assert!(ended(&mut command, LIMIT).is_some());
    assert_eq!(state(), "running");
    host.ok(&["rm", "--force", "box"]);
    host.is_clean();
}
