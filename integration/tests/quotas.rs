//! Size limits of volumes on a real ext4 with project quotas, in a mount namespace of the test's own.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;

use kakoi_integration::host::Host;
use kakoi_integration::needs_root;
use kakoi_integration::required::leave_out;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// Runs a command; what it said where it failed.
fn done(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", said.trim())),
    }
}

/// Mounts a new ext4 on the host's root; why this machine cannot.
fn mount_root(image: &Path, root: &Path) -> Result<(), String> {
    let file = std::fs::File::create(image).expect("a file");
    file.set_len(256 << 20).expect("a sparse file");
    let options = ["-q", "-O", "quota,project", "-E", "quotatype=prjquota"];
    done(Command::new("mkfs.ext4").args(options).arg(image))?;
    let options = ["-t", "ext4", "-o", "loop,prjquota"];
    done(Command::new("mount").args(options).args([image, root]))
}

/// The namespace is this thread's, and so its children's: nothing is mounted outside.
fn leave_namespace() {
    unshare(CloneFlags::CLONE_NEWNS).expect("root makes a mount namespace");
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).expect("private");
}

fn project(folder: &Path) -> String {
    let output = Command::new("lsattr")
        .args(["-pd"])
        .arg(folder)
        .output()
        .expect("e2fsprogs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().next().unwrap_or_default().to_owned()
}

#[test]
fn a_volume_ends_at_its_size() {
    needs_root!();
    leave_namespace();
    let host = Host::empty();
    host.stop_daemon();
    let root = host.path("root");
    if let Err(why) = mount_root(&host.path("root.ext4"), &root) {
        host.start_daemon();
        // Needs a loop device and CONFIG_QFMT_V2.
        leave_out("quota", &format!("no ext4 with project quotas here: {why}"));
        return;
    }
    host.start_daemon();
    host.load(&kakoi_integration::image::busybox(
        &kakoi_integration::host::binary("attacker"),
    ))
    .ok();
    holds(&host, &root);
    assert_eq!(host.stop_daemon(), 0);
    umount2(&root, MntFlags::empty()).expect("nobody holds the daemon's root");
    host.start_daemon();
}

/// Tries to write so many MiB into a volume, and says how many bytes came to lie there.
fn fill(host: &Host, volume: &str, mebibytes: u32) -> u64 {
    let script = format!(
        "dd if=/dev/zero of=/data/f bs=64k count={} 2>&1; stat -c =%s /data/f",
        mebibytes * 16
    );
    let mount = format!("{volume}:/data");
    let policy = [
        "run",
        "--rm",
        "--policy",
        "docker-default",
        "--network",
        "none",
        "-v",
        &mount,
    ];
    let said = host
        .kakoi(&[&policy[..], &["busybox:test", "sh", "-c", &script]].concat())
        .stdout;
    let size = said.rsplit('=').next().unwrap_or_default().trim();
    size.parse().unwrap_or_else(|_| panic!("no size in {said}"))
}

fn holds(host: &Host, root: &Path) {
    let folder = |name: &str| -> PathBuf { root.join("volumes").join(name) };
    host.ok(&["volume", "create", "--opt", "o=size=8m", "small"]);
    host.ok(&["volume", "create", "--opt", "size=16m", "large"]);
    host.ok(&["volume", "create", "free"]);
    let (small, large) = (project(&folder("small")), project(&folder("large")));
    assert_ne!(small, large, "two volumes share a project");
    assert_eq!(
        project(&folder("small/_data")),
        small,
        "what is made within counts"
    );
    assert_eq!(project(&folder("free")), "0");
    let shown = host.ok(&["volume", "inspect", "small"]);
    assert!(shown.contains("\"o\": \"size=8m\""), "{shown}");

    let within = |bytes: u64, mebibytes: u64| bytes <= mebibytes << 20 && bytes > (mebibytes - 1) << 20;
    let written = fill(host, "small", 12);
    assert!(within(written, 8), "{written}");
    assert_eq!(fill(host, "large", 12), 12 << 20, "below its size");
    assert_eq!(fill(host, "free", 24), 24 << 20, "without a limit");

    host.kill_daemon();
    host.start_daemon();
    let written = fill(host, "large", 24);
    assert!(within(written, 16), "a daemon later: {written}");
    assert_eq!(project(&folder("large")), large);

    host.ok(&["volume", "rm", "small"]);
    host.ok(&["volume", "create", "--opt", "size=1m", "next"]);
    assert_eq!(
        project(&folder("next")),
        small,
        "a removal gives the project back"
    );
    let written = fill(host, "next", 4);
    assert!(within(written, 1), "the new limit and not the old: {written}");
    host.kakoi(&["volume", "create", "--opt", "size=0", "none"])
        .fails(125, "not a size of a volume");
    assert!(!folder("none").exists());
    std::fs::create_dir_all(folder("foreign/there")).expect("a folder");
    host.kakoi(&["volume", "create", "--opt", "size=1m", "foreign"])
        .fails(125, "holds files of nobody's");
    assert!(folder("foreign/there").exists(), "what is not ours stays");
    for name in ["large", "free", "next"] {
        host.ok(&["volume", "rm", name]);
    }
}
