//! Images that attack whoever starts them: links where a runtime writes, working directories that lead out, environments meant for its helpers.
#![forbid(unsafe_code)]

use std::process::Command;

use kakoi_integration::command::run;
use kakoi_integration::host::{Host, binary};
use kakoi_integration::image::{self, Layer};
use kakoi_integration::{bundle, needs_root, wait};
use serde_json::json;

const FLAGS: [&str; 3] = ["run", "--network", "none"];

/// CVE-2024-21626 as it was: a runtime that leaves a folder of the host open and changes into it behind the new root.
fn outside_by_a_leaked_descriptor(host: &Host) -> String {
    let rootfs = host.path("plain");
    std::fs::create_dir(&rootfs).expect("making a folder");
    let layer = host.file("plain.tar", image::busybox_layer(&binary("attacker")));
    run(
        Command::new("tar").arg("-C").arg(&rootfs).args(["-xf", &layer]),
        b"",
    )
    .ok();
    let script = "mount -t proc proc \"$1/proc\" && exec 7</ && \
        exec unshare --root=\"$1\" --wd=/proc/self/fd/7 /attacker cwd-outside";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "bash", "-c", script, "bash"])
        .arg(&rootfs);
    run(&mut command, b"").ok()
}

/// CVE-2024-21626: a working directory by a leaked descriptor, from the flag, the image and exec.
#[test]
fn working_directories_stay_inside() {
    needs_root!();
    let host = Host::new();
    let unconfined = outside_by_a_leaked_descriptor(&host);
    assert!(unconfined.contains("cwd-outside effective"), "{unconfined}");
    let attack = ["busybox:test", "/attacker", "cwd-outside"];
    let policy = ["--policy", "docker-default"];
    host.ok(&[
        &FLAGS[..],
        &policy,
        &["-d", "--name", "inside", "busybox:test", "sleep", "1000"],
    ]
    .concat());
    for descriptor in 3..=20 {
        let folder = format!("/proc/self/fd/{descriptor}");
        let workdir = ["--workdir", &folder];
        let first = host.kakoi(&[&FLAGS[..], &policy, &["--rm"], &workdir, &attack].concat());
        let added = host.kakoi(&[&["exec"][..], &workdir, &["inside"], &attack[1..]].concat());
        for ran in [first, added] {
            stays_inside(&ran);
        }
    }
    // The neighbour: a folder of the container's own.
    let own = ["--workdir", "/var/empty"];
    let ran = host.ok(&[&FLAGS[..], &policy, &["--rm"], &own, &attack].concat());
    assert!(ran.contains("cwd-outside refused inside"), "{ran}");
    host.load_variant(
        "leaky:1",
        &json!({ "Cmd": ["/attacker", "cwd-outside"], "WorkingDir": "/proc/self/fd/7" }),
        Layer::new(),
    )
    .ok();
    stays_inside(&host.kakoi(&[&FLAGS[..], &policy, &["--rm", "leaky:1"]].concat()));
}

/// Either the start is refused because of its working directory, which is made (by a hook process) or changed into, or the app is inside.
fn stays_inside(ran: &kakoi_integration::command::Ran) {
    if ran.code == 0 {
        assert!(ran.stdout.contains("cwd-outside refused inside"), "{ran}");
    } else {
        assert!(
            ["change to the working directory", "mount /proc/self/fd/"]
                .iter()
                .any(|words| ran.stderr.contains(words)),
            "{ran}"
        );
    }
}

/// Images whose own files are links to the host's: CVE-2026-41579 and its kin, CVE-2025-52565, CVE-2019-19921, CVE-2022-23648.
#[test]
fn links_in_images_lead_nowhere() {
    needs_root!();
    let host = Host::empty();
    let outside = host.path("outside");
    std::fs::create_dir(&outside).expect("making a folder");
    let target = outside.to_str().expect("UTF-8");
    std::fs::write(outside.join("ptmx"), "untouched").expect("writing a file");
    // What the start says; nothing where a mount of the container's own covers the link, which is then never followed.
    for (name, refusal) in [
        ("dev", "/dev in the root file system is a symbolic link"),
        ("proc", "/proc in the root file system is a symbolic link"),
        ("sys", "/sys in the root file system is a symbolic link"),
        ("dev/pts", ""),
        ("dev/shm", ""),
        ("etc/hosts", "/etc/hosts in the image is a symbolic link"),
        ("data", "/data in the image is a symbolic link"),
        ("tmp", "/tmp in the image is a symbolic link"),
    ] {
        // The folder is in the image as well: only then do careless runtimes follow the link (SANDBOX-NOTES).
        let mut layer = Layer::new();
        let mut path = String::new();
        for part in target.trim_start_matches('/').split('/') {
            path = format!("{path}{part}/");
            layer = layer.folder(&path, 0o755);
        }
        let layer = layer
            .file(
                &format!(".wh.{name}")
                    .replace(".wh.dev/", "dev/.wh.")
                    .replace(".wh.etc/", "etc/.wh."),
                0o644,
                b"",
            )
            .finish();
        let linked = Layer::new().link(name, target).finish();
        let base = image::busybox_layer(&binary("attacker"));
        let config = json!({ "Cmd": ["true"], "Volumes": { "/data": {} } });
        let loaded = host.load(&image::archive("linked:1", &config, &[base, layer, linked]));
        // Every name loads: a link within an image is an image's right, and leads nowhere until a runtime follows it.
        loaded.ok();
        let flags = ["--rm", "--tty", "--policy", "docker-default", "--tmpfs", "/tmp"];
        let ran = host.kakoi(
            &[
                &FLAGS[..],
                &flags,
                &["linked:1", "stat", "-c", "%F", "/dev/pts", "/dev/shm"],
            ]
            .concat(),
        );
        if refusal.is_empty() {
            assert_eq!(ran.ok(), "directory\r\ndirectory", "/{name} -> {target}");
        } else {
            ran.fails(125, refusal);
        }
        let names: Vec<_> = std::fs::read_dir(&outside)
            .expect("reading a folder")
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        assert_eq!(names, ["ptmx"], "/{name} -> {target}");
        assert_eq!(
            std::fs::read_to_string(outside.join("ptmx")).expect("it is there"),
            "untouched",
            "/{name} -> {target}"
        );
    }
    host.is_clean();
}

/// CVE-2025-23266: a variable of the image reaches no helper with the host's rights. A hook that a bundle names sees the runtime's own environment;
/// the stand-in is a runtime that hands it the app's.
#[test]
fn an_images_environment_reaches_no_helper() {
    needs_root!();
    let host = Host::new();
    let (careless, ours) = (host.path("careless"), host.path("ours"));
    let hook =
        |to: &std::path::Path| vec!["sh".to_owned(), "-c".to_owned(), format!("env >{}", to.display())];
    let evil = "LD_PRELOAD=/evil.so";
    run(Command::new("env").arg(evil).args(hook(&careless)), b"");
    let seen = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default();
    assert!(seen(&careless).contains(evil), "the hook tells what it sees");

    let rootfs = host.file("rootfs.tar", image::busybox_layer(&binary("attacker")));
    let mut document = bundle::document(&["env"]);
    document["process"]["env"] = json!(["PATH=/bin", evil]);
    let run_hook = |to| json!([{ "path": "/bin/sh", "args": hook(to) }]);
    document["hooks"] =
        json!({ "createRuntime": run_hook(&ours), "poststart": run_hook(&host.path("later")) });
    let folder = bundle::make(&host.path("bundle"), rootfs.as_ref(), &document);
    let state = host.path("oci");
    let mut command = Command::new(binary("kakoi-shim"));
    command
        .args(["oci", "--root"])
        .arg(&state)
        .args(["run", "--bundle"])
        .arg(&folder)
        .arg("hooked");
    let ran = run(&mut command, b"");
    assert!(ran.stdout.contains(evil), "the app has its variable: {ran}");
    for path in [ours, host.path("later")] {
        assert!(seen(&path).contains("PATH="), "the hook ran: {}", path.display());
        assert!(!seen(&path).contains("LD_PRELOAD"), "{}", seen(&path));
    }

    // And under the daemon, by run and by exec: the shim starts with nothing and takes nothing up.
    let config = json!({ "Cmd": ["sleep", "1000"], "Env": [evil, "LD_LIBRARY_PATH=/", "GCONV_PATH=/"] });
    host.load_variant("preload:1", &config, Layer::new()).ok();
    host.ok(&[&FLAGS[..], &["-d", "--name", "preload", "preload:1"]].concat());
    let first = host.pid("preload").as_raw();
    let environment = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/environ")).expect("it runs");
    assert!(environment(first).contains(evil));
    let status = std::fs::read_to_string(format!("/proc/{first}/status")).expect("it runs");
    let shim = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:\t"))
        .expect("a parent");
    let shim: i32 = shim.parse().expect("a number");
    assert_eq!(environment(shim), "", "the shim's own");
    let mut added = host.spawn(&["exec", "--env", "LD_AUDIT=/evil.so", "preload", "sleep", "2000"]);
    wait::until("the added process runs", || {
        let children =
            std::fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).expect("it runs");
        children
            .split_whitespace()
            .any(|pid| environment_of(pid).contains("LD_AUDIT=/evil.so"))
    });
    assert_eq!(environment(shim), "");
    added.kill().expect("killing a child of ours");
    added.wait().expect("reaping a child of ours");
}

/// What a process was started with; nothing of one that is gone.
fn environment_of(pid: &str) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap_or_default()
}
