//! Attacks on whoever mounts: names that change places under the runtime's hands, paths hidden with a false `/dev/null`, lists too long for a message,
//! and a neighbour that takes all it can.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use kakoi_integration::command::run;
use kakoi_integration::host::{Host, binary};
use kakoi_integration::{bundle, image, needs_root, wait};

const FLAGS: [&str; 3] = ["run", "--network", "none"];

/// Races of one kind; careless code loses within a handful of them.
const RACES: usize = 25;
/// Tries until careless code has lost at last.
const TRIES_MAX: usize = 100_000;

fn open_folder(path: PathBuf) -> PathBuf {
    fs::create_dir_all(&path).expect("making a folder");
    fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).expect("opening a folder");
    path
}

fn names(folder: &Path) -> Vec<std::ffi::OsString> {
    let entries = fs::read_dir(folder).expect("reading a folder");
    entries
        .map(|entry| entry.expect("an entry").file_name())
        .collect()
}

/// CVE-2024-45310, CVE-2021-30465: while an app lets a folder and a link change places, whoever makes what is missing below makes it elsewhere.
/// Neither targets of mounts in a volume, nor working directories of exec, nor missing sources of binds come to lie outside.
#[test]
fn a_race_makes_nothing_on_the_host() {
    needs_root!();
    let host = Host::new();
    let (shared, outside) = (
        open_folder(host.path("shared")),
        open_folder(host.path("outside")),
    );
    host.stop_daemon();
    let ceiling = format!(
        "kakoi: 1\nnetwork: [none]\ncapabilities: [ALL]\nbind_mounts: [{}]\n",
        shared.display()
    );
    host.file("config/ceiling.yaml", ceiling);
    host.start_daemon();
    fs::create_dir(shared.join("real")).expect("making a folder");
    fs::set_permissions(shared.join("real"), PermissionsExt::from_mode(0o777)).expect("opening a folder");
    symlink(&outside, shared.join("link")).expect("making a link");
    let bind = format!("{}:/s", shared.display());
    let run_in = |more: &[&str], words: &[&str]| {
        host.kakoi(&[&FLAGS[..], &["--volume", &bind], more, &["busybox:test"], words].concat())
    };
    run_in(
        &["-d", "--name", "swapper"],
        &["/attacker", "swap", "/s/real", "/s/link"],
    )
    .ok();
    run_in(&["-d", "--name", "holder"], &["sleep", "1000"]).ok();

    // A careless runtime makes folders by their path, and loses.
    let careless = (0..TRIES_MAX).any(|_| {
        drop(fs::create_dir_all(shared.join("real/careless")));
        outside.join("careless").exists()
    });
    assert!(careless, "the race cannot be won here");
    fs::remove_dir(outside.join("careless")).expect("it is there");
    let file = host.file("shared/file", "content");
    let mut started = 0;
    for number in 0..RACES {
        let volume = format!("other:/s/real/volume{number}");
        let single = format!("{file}:/s/real/file{number}");
        let memory = format!("/s/real/memory{number}");
        let ran = run_in(
            &[
                "--rm", "--volume", &volume, "--volume", &single, "--tmpfs", &memory,
            ],
            &["true"],
        );
        started += usize::from(ran.code == 0);
        let missing = format!("{}/real/new{number}:/x", shared.display());
        run_in(&["--rm", "--volume", &missing], &["true"]);
        let inside = format!("/s/real/cwd{number}");
        host.kakoi(&["exec", "--workdir", &inside, "holder", "true"]);
        assert_eq!(
            names(&outside),
            Vec::<std::ffi::OsString>::new(),
            "round {number}"
        );
    }
    assert!(
        host.inspect("swapper")["State"]["Running"] == true,
        "it raced to the end"
    );
    host.ok(&["rm", "--force", "--time", "0", "swapper"]);
    // Without the race all of it works: what was refused was refused for it.
    if fs::symlink_metadata(shared.join("real"))
        .expect("it is there")
        .is_symlink()
    {
        fs::rename(shared.join("link"), shared.join("folder")).expect("renaming");
        fs::rename(shared.join("real"), shared.join("link")).expect("renaming");
        fs::rename(shared.join("folder"), shared.join("real")).expect("renaming");
    }
    let missing = format!("{}/real/quiet:/x", shared.display());
    run_in(
        &["--rm", "--volume", "other:/s/real/quiet2", "--volume", &missing],
        &["true"],
    )
    .ok();
    assert!(
        shared.join("real/quiet").is_dir() && shared.join("real/quiet2").is_dir(),
        "{started} started"
    );
    assert_eq!(names(&outside), Vec::<std::ffi::OsString>::new());
}

/// What hides a path must be the null device, whatever lies at `/dev/null` of the root file system (CVE-2025-31133).
const LOOK: &str = "for f in kcore keys timer_list; do dd if=/proc/$f bs=1 count=1 2>/dev/null | wc -c; done; \
    (echo kakoi-test >/proc/sys/kernel/core_pattern) 2>/dev/null && echo WROTE; true";

#[test]
fn a_false_null_device_hides_no_less() {
    needs_root!();
    let host = Host::new();
    let setting = "/proc/sys/kernel/core_pattern";
    let before = fs::read_to_string(setting).expect("reading a setting");
    let rootfs = host.file("rootfs.tar", image::busybox_layer(&binary("attacker")));
    // Only a bundle may come without a file system of its own on /dev.
    let mut document = bundle::document(&["sh", "-c", LOOK]);
    let mounts = document["mounts"].as_array_mut().expect("a list");
    mounts.retain(|mount| !mount["destination"].as_str().expect("a path").starts_with("/dev"));
    let folder = bundle::make(&host.path("bundle"), rootfs.as_ref(), &document);
    let dev = folder.join("rootfs/dev");
    fs::create_dir_all(&dev).expect("making a folder");
    let start = |name: &str| {
        let mut command = Command::new(binary("kakoi-shim"));
        command
            .args(["oci", "--root"])
            .arg(host.path("oci"))
            .args(["run", "--bundle"])
            .arg(&folder)
            .arg(name);
        run(&mut command, b"")
    };
    let honest = start("honest");
    assert_eq!(honest.stdout, "0\n0\n0\n", "{honest}");
    drop(fs::remove_file(dev.join("null")));
    symlink(setting, dev.join("null")).expect("making a link");
    // What a careless runtime binds over the hidden path is the setting itself, open to be written.
    let script = "mount --bind \"$1/dev/null\" \"$1/etc/passwd\" && test -w \"$1/etc/passwd\" && cat \"$1/etc/passwd\"";
    let mut careless = Command::new("unshare");
    careless
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(folder.join("rootfs"));
    assert_eq!(run(&mut careless, b"").ok(), before.trim_end());
    let ran = start("false-null");
    assert!(ran.code != 0 || ran.stdout == "0\n0\n0\n", "{ran}");
    assert!(
        !ran.stdout.contains("WROTE") && !ran.stdout.contains('1'),
        "{ran}"
    );
    // An engine's container has its own /dev, over whatever the image brings; also one that joins, and one for which it changes places.
    let evil = open_folder(host.path("evil"));
    fs::write(evil.join("null"), "").expect("writing a file");
    symlink(setting, evil.join("link")).expect("making a link");
    let over = format!("{}:/dev", evil.display());
    let flags = ["--policy", "docker-default", "--volume", &over];
    let bind = format!("{}:/e", evil.display());
    host.ok(&[
        &FLAGS[..],
        &[
            "-d",
            "--name",
            "swapper",
            "--volume",
            &bind,
            "busybox:test",
            "/attacker",
            "swap",
            "/e/null",
            "/e/link",
        ],
    ]
    .concat());
    for _ in 0..RACES {
        let ran = host.kakoi(&[&FLAGS[..], &["--rm"], &flags, &["busybox:test", "sh", "-c", LOOK]].concat());
        assert!(ran.code != 0 || ran.stdout == "0\n0\n0\n", "{ran}");
        assert!(!ran.stdout.contains("WROTE"), "{ran}");
        assert_eq!(fs::read_to_string(setting).expect("reading a setting"), before);
    }
    host.ok(&["rm", "--force", "--time", "0", "swapper"]);
    host.ok(&[
        &FLAGS[..],
        &[
            "-d",
            "--name",
            "plain",
            "--policy",
            "docker-default",
            "busybox:test",
            "sleep",
            "1000",
        ],
    ]
    .concat());
    assert_eq!(host.ok(&["exec", "plain", "sh", "-c", LOOK]), "0\n0\n0");
    assert_eq!(fs::read_to_string(setting).expect("reading a setting"), before);
}

/// CVE-2021-43784: more mounts, and longer names, than fit the 64 KiB of the message by which runc told its first half of them. The rest of such a message
/// switched namespaces off. There is no such message here; what is too much is refused with one error.
#[test]
fn a_long_list_of_mounts_switches_nothing_off() {
    needs_root!();
    let host = Host::new();
    let long = "n".repeat(200);
    let flags = |count: usize| -> Vec<String> {
        let target = |number: usize| format!("store:/m/{long}/{long}/{number}");
        (0..count)
            .flat_map(|number| ["--volume".to_owned(), target(number)])
            .collect()
    };
    let words = |flags: &[String], more: &[&str], command: &[&str]| {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        host.kakoi(&[&FLAGS[..], more, &flags, &["busybox:test"], command].concat())
    };
    let many = flags(250);
    assert!(many.iter().map(String::len).sum::<usize>() > 1 << 16);
    let started = words(
        &many,
        &["-d", "--name", "long", "--userns", "auto"],
        &["sleep", "1000"],
    );
    started.ok();
    let first = host.pid("long").as_raw();
    let link =
        |process: &str, kind: &str| fs::read_link(format!("/proc/{process}/ns/{kind}")).expect("it runs");
    for kind in ["user", "mnt", "pid", "net", "ipc", "uts"] {
        assert_ne!(link(&first.to_string(), kind), link("self", kind), "{kind}");
    }
    let inside = host.ok(&[
        "exec",
        "long",
        "sh",
        "-c",
        "grep -c ' /m/' /proc/self/mountinfo; cut -c1-60 /proc/self/uid_map",
    ]);
    let mut lines = inside.lines();
    assert_eq!(lines.next(), Some("250"), "every one is there: {inside}");
    let map: Vec<&str> = lines.next().expect("a map").split_whitespace().collect();
    assert!(map[0] == "0" && map[1] != "0", "{map:?}");
    let refused = words(&flags(257), &["--rm"], &["true"]);
    refused.is_one_clear_error();
    assert!(refused.stderr.contains("at most 256 mounts"), "{refused}");
    assert_eq!(host.kakoi(&["ps", "-aq"]).ok().lines().count(), 1);
}

/// A container that forks, fills and computes without end has its limits to itself: its neighbour answers every line meanwhile.
#[test]
fn a_neighbour_goes_on_beside_a_bomb() {
    needs_root!();
    let host = Host::new();
    let policy = host.file(
        "bomb.yaml",
        "kakoi: 1\nname: bomb\nextends: [strict]\nlimits: {pids: 40, memory: 24MiB, swap: 0, cpu: 50%, files: 64, tmpfs: 4MiB}\n",
    );
    let mut neighbour = host.spawn(&[
        "run",
        "--rm",
        "-i",
        "--network",
        "none",
        "--name",
        "neighbour",
        "busybox:test",
        "cat",
    ]);
    let mut input = neighbour.stdin.take().expect("it is a pipe");
    let mut output = BufReader::new(neighbour.stdout.take().expect("it is a pipe"));
    let mut answers = |text: &str| {
        input.write_all(text.as_bytes()).expect("it reads");
        let mut line = String::new();
        output.read_line(&mut line).expect("it answers");
        assert_eq!(line, text);
    };
    answers("ready\n");
    // The shell dies of its failed fork; what it started stays, and the first process burns the rest.
    let bomb = "sh -c 'while :; do sleep 1000 & done' 2>/dev/null; cat /dev/zero >/tmp/x 2>/dev/null; \
        exec cat /dev/zero >/dev/null";
    host.ok(&[
        &FLAGS[..],
        &[
            "-d",
            "--name",
            "bomb",
            "--policy",
            &policy,
            "busybox:test",
            "sh",
            "-c",
            bomb,
        ],
    ]
    .concat());
    let pids = |name: &str| fs::read_to_string(format!("/proc/{}/cgroup", host.pid(name))).expect("it runs");
    let group = pids("bomb").lines().find_map(|line| {
        let (_, path) = line.split_once(":pids:").or_else(|| line.split_once("::"))?;
        let place = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"]
            .map(|root| PathBuf::from(format!("{root}{path}/pids.current")));
        place.into_iter().find(|path| path.exists())
    });
    let group = group.expect("it has a group");
    let count = || {
        fs::read_to_string(&group)
            .ok()
            .and_then(|text| text.trim().parse::<u32>().ok())
            .unwrap_or(0)
    };
    wait::until("the bomb is at its limit", || count() == 40);
    for number in 0..200 {
        answers(&format!("line {number}\n"));
        assert!(count() <= 40, "the limit holds");
    }
    assert_eq!(
        host.ok(&["exec", "neighbour", "echo", "also by exec"]),
        "also by exec"
    );
    drop(input);
    assert!(neighbour.wait().expect("a child of ours").success());
}
