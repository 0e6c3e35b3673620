//! `kill -9` of the daemon in the middle of pull, load, removal and push, in a loop: what was answered for is there and whole, the next daemon
//! opens by itself, and the next command of each kind completes.
#![forbid(unsafe_code)]

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use kakoi_integration::command::ended;
use kakoi_integration::host::{Host, binary};
use kakoi_integration::registry::Registry;
use kakoi_integration::{image, needs_root};

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
