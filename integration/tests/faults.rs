//! Faults: daemons and shims that are killed, a second daemon, a full disk. No container and no record is lost, and nothing stays behind.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kakoi_integration::command::{ended, run};
use kakoi_integration::guard::Guard;
use kakoi_integration::host::Host;
use kakoi_integration::{image, leaks, needs_root, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

fn detached(host: &Host, name: &str, program: &[&str]) -> String {
    host.ok(&[
        &[
            "run",
            "-d",
            "--name",
            name,
            "--network",
            "none",
            "--policy",
            "docker-default",
            "busybox:test",
        ],
        program,
    ]
    .concat())
}

#[test]
fn containers_outlive_their_daemon() {
    needs_root!();
    let host = Host::new();
    detached(
        &host,
        "survivor",
        &["sh", "-c", "while :; do echo tick; sleep 1; done"],
    );
    let pid = host.pid("survivor");
    host.kill_daemon();
    kill(pid, None).expect("the container runs without its daemon");
    host.start_daemon();
    assert_eq!(host.pid("survivor"), pid);
    assert_eq!(host.ok(&["exec", "survivor", "echo", "adopted"]), "adopted");

    // Stopping it in order leaves containers running too.
    assert_eq!(host.stop_daemon(), 0);
    kill(pid, None).expect("the container runs without its daemon");
    // What ends while nobody looks is known afterwards.
    kill(pid, Signal::SIGKILL).expect("killing the container's process");
    wait::until("the process is gone", || kill(pid, None).is_err());
    host.start_daemon();
    host.until_state("survivor", "Status", &json!("exited"));
    assert_eq!(host.inspect("survivor")["State"]["ExitCode"], 137);
    host.ok(&["rm", "survivor"]);
    host.is_clean();
}

/// A shim that hangs while it starts holds neither the daemon nor the client, and what it had begun goes.
#[test]
fn a_shim_that_hangs_is_given_up() {
    needs_root!();
    let host = Host::new();
    assert_eq!(host.stop_daemon(), 0);
    host.file("config/kakoid.yaml", "start_seconds_max: 2\n");
    host.start_daemon();
    let plan = ["run", "--rm", "--network", "none", "busybox:test", "true"];
    host.ok(&plan);
    // The shim that waits for the next container is the one that can be caught.
    let spare = wait::poll(Duration::from_secs(10), || host.spare()).expect("a shim waits after a start");
    kill(spare, Signal::SIGSTOP).expect("it waits");
    let ran = host.kakoi(&plan);
    assert_eq!(ran.code, 125, "{ran}");
    assert!(ran.stderr.contains("did not answer within 2 s"), "{ran}");
    assert!(kill(spare, None).is_err(), "the shim is gone");
    host.is_clean();
    // The neighbour: one that does not hang is not given up.
    host.ok(&plan);
}

/// A test that is killed leaves nothing either: its guard ends what it started.
#[test]
fn a_killed_test_leaves_nothing() {
    needs_root!();
    let host = Host::new();
    detached(&host, "orphan", &["sleep", "100000"]);
    let container = host.pid("orphan");
    Guard::over(&host.path("")).abandon();
    wait::until("the container is gone", || kill(container, None).is_err());
    // Dead already, but a child of ours until it is waited for.
    host.kill_daemon();
    assert_eq!(host.traces(), Vec::<String>::new());
    assert!(!host.path("").exists());
}

/// A shim that waits is no container's: it goes with its daemon, however that goes, and one that dies is not missed.
#[test]
fn a_shim_that_waits_goes_with_its_daemon() {
    needs_root!();
    let host = Host::new();
    let plan = ["run", "--rm", "--network", "none", "busybox:test", "true"];
    let waiting = || {
        host.ok(&plan);
        wait::poll(Duration::from_secs(10), || host.spare()).expect("a shim waits after a start")
    };
    let gone = |spare: Pid| wait::until("the waiting shim is gone", || kill(spare, None).is_err());
    let spare = waiting();
    assert_eq!(host.stop_daemon(), 0);
    gone(spare);
    host.start_daemon();
    let spare = waiting();
    host.kill_daemon();
    gone(spare);
    host.start_daemon();
    let spare = waiting();
    kill(spare, Signal::SIGKILL).expect("it waits");
    // A dead process that nobody has waited for shows no command line.
    wait::until("it is dead", || host.spare() != Some(spare));
    host.ok(&plan);
    gone(spare);
    // Handed a container, it shows which.
    waiting();
    let id = detached(&host, "shown", &["sleep", "1000"]);
    shim_of(&host, &id);
    host.ok(&["rm", "--force", "--time", "0", "shown"]);
    host.is_clean();
}

/// Kills the daemon some hundred times while containers are made and removed. Whatever was answered for is there afterwards.
#[test]
fn killing_the_daemon_loses_nothing() {
    needs_root!();
    let host = Host::new();
    detached(&host, "rock", &["sleep", "100000"]);
    let rock = host.pid("rock");
    let mut created: BTreeSet<String> = BTreeSet::new();
    // Different moments of the same work: the pause grows from nothing to longer than a whole creation.
    const KILLS: u32 = 200;
    for round in 0..KILLS {
        let name = format!("pebble-{round}");
        // A command that names its socket starts no daemon of its own.
        let mut work = host
            .command()
            .env("KAKOI_HOST", format!("unix://{}", host.socket().display()))
            .args([
                "create",
                "--name",
                &name,
                "--network",
                "none",
                "busybox:test",
                "true",
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starting kakoi");
        let moment = Instant::now() + Duration::from_micros(u64::from(round % 50) * 400);
        // The moment is the point here, not a state: spin until it has come.
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        host.kill_daemon();
        let confirmed = ended(&mut work, Duration::from_secs(30)) == Some(0);
        if confirmed {
            created.insert(name);
        }
        host.start_daemon();
        if round % 20 == 19 {
            let listed: BTreeSet<_> = host
                .ok(&["ps", "--all", "--format", "{{.Names}}"])
                .lines()
                .map(str::to_owned)
                .collect();
            let lost: Vec<_> = created.difference(&listed).collect();
            assert!(
                lost.is_empty(),
                "confirmed and lost after {} kills: {lost:?}",
                round + 1
            );
            assert_eq!(host.pid("rock"), rock, "after {} kills", round + 1);
            for name in listed.iter().filter(|name| *name != "rock") {
                host.ok(&["rm", "--force", name]);
            }
            created.clear();
        }
    }
    host.ok(&["rm", "--force", "--time", "0", "rock"]);
    host.is_clean();
}

fn shim_of(host: &Host, id: &str) -> Pid {
    let shims = leaks::processes(&host.path(""))
        .into_iter()
        .filter(|process| process.command.contains("kakoi-shim") && process.command.contains(id));
    let pids: Vec<_> = shims.map(|process| process.pid).collect();
    assert_eq!(pids.len(), 1, "one shim for {id}");
    Pid::from_raw(pids[0])
}

/// Finding 8: libcontainer deadlocks where another thread holds a lock, so the shim has one, while it runs and while it executes more.
#[test]
fn the_shim_has_one_thread() {
    needs_root!();
    let host = Host::new();
    let id = detached(&host, "single", &["sleep", "1000"]);
    for _ in 0..20 {
        host.ok(&["exec", "single", "true"]);
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", shim_of(&host, &id))).expect("the shim runs");
        assert!(status.contains("Threads:\t1\n"), "{status}");
    }
}

#[test]
fn a_killed_shim_is_cleaned_up_after() {
    needs_root!();
    let host = Host::new();
    let id = detached(&host, "orphan", &["sleep", "1000"]);
    let pid = host.pid("orphan");
    kill(shim_of(&host, &id), Signal::SIGKILL).expect("killing a shim of ours");
    wait::until("the orphan is seen as ended", || {
        host.inspect("orphan")["State"]["Running"] == false
    });
    let state = host.inspect("orphan")["State"].clone();
    assert_ne!(state["Error"], "", "it says what happened: {state}");
    wait::until("its process is gone too", || kill(pid, None).is_err());
    host.ok(&["rm", "orphan"]);
    host.is_clean();
}

#[test]
fn a_killed_shim_is_found_by_the_next_daemon() {
    needs_root!();
    let host = Host::new();
    let id = detached(&host, "orphan", &["sleep", "1000"]);
    let (pid, shim) = (host.pid("orphan"), shim_of(&host, &id));
    host.kill_daemon();
    kill(shim, Signal::SIGKILL).expect("killing a shim of ours");
    host.start_daemon();
    wait::until("the orphan is seen as ended", || {
        host.inspect("orphan")["State"]["Running"] == false
    });
    wait::until("its process is gone too", || kill(pid, None).is_err());
    host.ok(&["rm", "orphan"]);
    host.is_clean();
}

#[test]
fn one_root_has_one_daemon() {
    needs_root!();
    let host = Host::new();
    detached(&host, "mine", &["sleep", "1000"]);
    let second = run(&mut host.daemon_command(), b"");
    assert_ne!(second.code, 0, "{second}");
    assert!(
        second.stderr.contains("another") || second.stderr.contains("already"),
        "{second}"
    );
    assert_eq!(host.ok(&["exec", "mine", "echo", "still here"]), "still here");
}

/// The daemon's folders on a file system that is full: an error that says so, and a daemon that goes on.
#[test]
fn a_full_disk_is_an_error_and_no_more() {
    needs_root!();
    let host = Host::empty();
    host.stop_daemon();
    let root = host.path("root");
    // Room for the database and not for the image.
    let mounted = run(
        Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=6m", "tmpfs"])
            .arg(&root),
        b"",
    );
    assert_eq!(mounted.code, 0, "{mounted}");
    host.start_daemon();
    let ran = host.load(&image::busybox(&kakoi_integration::host::binary("attacker")));
    let answered = host.kakoi(&["images", "--quiet"]);
    host.stop_daemon();
    let unmounted = run(Command::new("umount").arg(&root), b"");
    host.start_daemon();
    assert_eq!(unmounted.code, 0, "{unmounted}");
    ran.is_one_clear_error();
    assert!(ran.stderr.to_lowercase().contains("space"), "{ran}");
    assert_eq!(answered.ok(), "", "no half image is listed");
}

/// A container whose start fails leaves nothing but its record, and says why.
#[test]
fn failed_starts_leave_nothing() {
    needs_root!();
    let host = Host::new();
    for (program, code) in [("/none", 127), ("/etc/passwd", 126)] {
        let ran = host.kakoi(&[
            "run",
            "--rm",
            "--network",
            "none",
            "--policy",
            "docker-default",
            "busybox:test",
            program,
        ]);
        assert_eq!(ran.code, code, "{ran}");
    }
    host.is_clean();
    let log = host.daemon_log();
    assert!(!log.contains("ERROR"), "nobody must act: {log}");
    let policy = host.file(
        "missing.yaml",
        "kakoi: 1\nname: missing\nextends: [strict]\nfiles:\n  read: [/no/such/folder]\n",
    );
    let ran = host.kakoi(&[
        "run",
        "--rm",
        "--network",
        "none",
        "--policy",
        &policy,
        "busybox:test",
        "true",
    ]);
    ran.is_one_clear_error();
    assert!(
        ran.stderr.contains("/no/such/folder"),
        "the error names the rule: {ran}"
    );
    host.is_clean();
}
