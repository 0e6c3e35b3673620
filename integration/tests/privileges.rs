//! What Kakoi's own processes hold, read from the kernel and compared with the table of `runtime/ARCHITECTURE.md`.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use kakoi_integration::host::Host;
use kakoi_integration::{needs_root, wait};
use kakoi_policy::Capability;
use nix::sys::signal::{Signal, kill};

const ARCHITECTURE: &str = include_str!("../../runtime/ARCHITECTURE.md");

/// Docker's fourteen and two more: what the built-in ceiling lets a container have.
const BUILT_IN: [&str; 16] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
    "SYS_NICE",
];

/// What `strict` lets an app have.
const STRICT: [&str; 7] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
];

/// The capabilities that have a cross in a column of the documented table.
fn documented(column: &str) -> u64 {
    let mut rows = ARCHITECTURE
        .lines()
        .skip_while(|line| !line.starts_with("| capability |"))
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    let head = rows.next().expect("the table is there");
    let index = head
        .iter()
        .position(|cell| *cell == column)
        .expect("the column is there");
    let names: Vec<String> = rows
        .skip(1)
        .filter(|row| row[index] == "x")
        .map(|row| row[1].to_owned())
        .collect();
    assert!(!names.is_empty());
    held_here() & mask(names.iter().map(String::as_str))
}

/// A machine may hold less than the kernel knows; what is started on it gets no more.
fn held_here() -> u64 {
    holds(Path::new("/proc/self/status")).bounding
}

fn mask<'a>(names: impl IntoIterator<Item = &'a str>) -> u64 {
    let bit = |name: &str| name.parse::<Capability>().expect("a capability").bit();
    names.into_iter().fold(0, |bits, name| bits | bit(name))
}

/// What the kernel says of a task.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Holds {
    inheritable: u64,
    permitted: u64,
    effective: u64,
    bounding: u64,
    ambient: u64,
    no_new_privileges: bool,
}

fn holds(status: &Path) -> Holds {
    let text = fs::read_to_string(status).expect("the process runs");
    let field = |name: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .expect("the kernel writes it");
        line.split_whitespace().nth(1).expect("it has a value").to_owned()
    };
    let set = |name: &str| u64::from_str_radix(&field(name), 16).expect("it is hex");
    Holds {
        inheritable: set("CapInh:"),
        permitted: set("CapPrm:"),
        effective: set("CapEff:"),
        bounding: set("CapBnd:"),
        ambient: set("CapAmb:"),
        no_new_privileges: field("NoNewPrivs:") == "1",
    }
}

/// Of every thread of a process; they must agree.
fn of_process(pid: i32) -> Holds {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let all: BTreeSet<Holds> = tasks
        .map(|task| holds(&task.expect("a task").path().join("status")))
        .collect();
    assert_eq!(all.len(), 1, "threads differ: {all:#x?}");
    all.into_iter().next().expect("one")
}

/// The shim is the parent of the container's first process.
fn shim_of(host: &Host, name: &str) -> i32 {
    let status = fs::read_to_string(format!("/proc/{}/status", host.pid(name))).expect("it runs");
    let parent = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .expect("it has a parent");
    let pid = parent.trim().parse().expect("a number");
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).expect("it runs");
    assert_eq!(name.trim(), "kakoi-shim");
    pid
}

fn run(host: &Host, name: &str, flags: &[&str]) {
    let mut words = vec!["run", "--detach", "--network", "none", "--name", name];
    words.extend(flags);
    words.extend(["busybox:test", "sleep", "1000"]);
    host.ok(&words);
}

#[test]
fn the_daemon_and_the_shim_hold_what_the_table_says() {
    needs_root!();
    let host = Host::new();
    let daemon = of_process(host.daemon_pid().as_raw());
    let (own, making) = (documented("daemon"), documented("making"));
    let expected = Holds {
        inheritable: 0,
        permitted: own,
        effective: own,
        bounding: own | making | mask(BUILT_IN),
        ambient: 0,
        no_new_privileges: false,
    };
    assert_eq!(daemon, expected, "{daemon:#x?} {expected:#x?}");
    // What it gave up is also gone from what it could execute.
    assert_eq!(
        daemon.bounding
            & mask([
                "SYS_MODULE",
                "SYS_RAWIO",
                "SYS_TIME",
                "SYS_BOOT",
                "MAC_ADMIN",
                "BPF"
            ]),
        0
    );

    let running = documented("running");
    // The container, the flags, what it is granted, and no_new_privs.
    let docker = mask(BUILT_IN) & !mask(["IPC_LOCK", "SYS_NICE"]);
    for (name, flags, granted, no_new_privileges) in [
        ("strict", &[][..], mask(STRICT), true),
        ("raw", &["--policy", "docker-default"][..], docker, false),
        (
            "mapped",
            &["--policy", "docker-default", "--userns", "auto"][..],
            0,
            false,
        ),
    ] {
        run(&host, name, flags);
        let held = of_process(shim_of(&host, name));
        let kept = running | granted;
        let expected = Holds {
            inheritable: 0,
            permitted: kept,
            effective: kept,
            bounding: kept,
            ambient: 0,
            no_new_privileges,
        };
        assert_eq!(held, expected, "{name}: {held:#x?} {expected:#x?}");
        // What is left is enough for all that a shim does.
        assert_eq!(
            host.ok(&["exec", "--user", "1000:1000", name, "id", "-u"]),
            "1000"
        );
        assert_eq!(host.ok(&["exec", name, "id", "-u"]), "0");
        host.ok(&["exec", "--tty", name, "true"]);
        host.ok(&["pause", name]);
        host.ok(&["unpause", name]);
        host.ok(&["update", "--memory", "64m", name]);
        host.ok(&["top", name]);
        host.ok(&["stats", "--no-stream", name]);
        host.ok(&["kill", "--signal", "KILL", name]);
        host.until_state(name, "Status", &"exited".into());
        host.ok(&["start", name]);
        host.ok(&["stop", "--time", "0", name]);
    }
}

#[test]
fn a_ceiling_bounds_the_daemon_too() {
    needs_root!();
    let host = Host::new();
    host.stop_daemon();
    let ceiling = |text: &str| {
        host.file(
            "config/ceiling.yaml",
            format!("kakoi: 1\nnetwork: [none]\n{text}\n"),
        );
    };
    ceiling("capabilities: [SYS_TIME, CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID]");
    host.start_daemon();
    let daemon = of_process(host.daemon_pid().as_raw());
    assert!(daemon.no_new_privileges, "no container may gain any");
    assert_eq!(daemon.effective, documented("daemon"));
    assert_eq!(
        daemon.bounding,
        documented("daemon") | documented("making") | mask(["SYS_TIME"])
    );
    assert_eq!(daemon.permitted, daemon.bounding);

    let policy = host.file(
        "clock.yaml",
        "kakoi: 1\nname: clock\nextends: [strict]\ncapabilities: [SYS_TIME]\n",
    );
    run(&host, "clock", &["--policy", &policy]);
    let held = of_process(shim_of(&host, "clock"));
    assert_eq!(
        held.permitted,
        documented("running") | mask(STRICT) | mask(["SYS_TIME"])
    );
    let inside = host.ok(&["exec", "clock", "grep", "CapEff", "/proc/self/status"]);
    let granted = mask(STRICT) | mask(["SYS_TIME"]);
    assert!(inside.ends_with(&format!("{granted:016x}")), "{inside}");

    // The daemon cannot take back what it gave up, and says so instead of letting a start fail.
    ceiling(
        "capabilities: [SYS_TIME, CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SYS_MODULE]",
    );
    kill(host.daemon_pid(), Signal::SIGHUP).expect("a child of ours");
    wait::until("the daemon refuses the ceiling", || {
        let log = host.daemon_log();
        log.contains("SYS_MODULE") && log.contains("start kakoid anew")
    });
    let policy = host.file(
        "module.yaml",
        "kakoi: 1\nname: module\nextends: [strict]\ncapabilities: [SYS_MODULE]\n",
    );
    let words = [
        "run",
        "--network",
        "none",
        "--policy",
        &policy,
        "busybox:test",
        "true",
    ];
    host.kakoi(&words).fails(125, "more than this device allows");
    // A new daemon holds it, and adopts the container that runs.
    host.stop_daemon();
    host.start_daemon();
    assert_eq!(host.ok(&words), "");
    assert_eq!(host.ok(&["exec", "clock", "id", "-u"]), "0");
}

#[test]
fn a_privileged_containers_shim_keeps_everything_and_no_one_elses() {
    needs_root!();
    let host = Host::new();
    host.stop_daemon();
    host.file(
        "config/ceiling.yaml",
        "kakoi: 1\nprivileged: true\nnetwork: [none]\nhost_namespaces: [pid, ipc, uts, cgroup]\n",
    );
    host.start_daemon();
    let known = held_here();
    let daemon = of_process(host.daemon_pid().as_raw());
    assert_eq!(daemon.bounding, known);
    assert_eq!(
        daemon.permitted,
        documented("daemon"),
        "what is only handed on is not held"
    );
    run(&host, "all", &["--policy", "privileged"]);
    run(&host, "strict", &[]);
    assert_eq!(of_process(shim_of(&host, "all")).permitted, known);
    assert_eq!(
        of_process(shim_of(&host, "strict")).permitted,
        documented("running") | mask(STRICT)
    );
    let inside = host.ok(&["exec", "all", "grep", "CapEff", "/proc/self/status"]);
    assert!(inside.ends_with(&format!("{known:016x}")), "{inside}");
}
