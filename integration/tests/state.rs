//! What lies on the disk is root's alone: what containers write, and what they were told.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use kakoi_integration::command::run;
use kakoi_integration::host::Host;
use kakoi_integration::needs_root;

/// Lets every user of the machine come as far as the daemon's own folders.
fn open_way(host: &Host) {
    fs::set_permissions(host.path(""), PermissionsExt::from_mode(0o755)).expect("opening a folder");
}

fn mode(path: &Path) -> u32 {
    let meta = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    meta.permissions().mode() & 0o7777
}

/// Everything below a folder that is the daemon's or the shim's, and not a container's own tree, nor libcontainer's, nor on its way to removal.
fn own_entries(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let is_tree = ["upper", "work", "rootfs", "_data", "layers", "runtime"]
            .iter()
            .any(|tree| name == *tree);
        if is_tree || name.to_string_lossy().ends_with(".gone") {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.extend(own_entries(&path));
        }
        all.push(path);
    }
    all
}

/// CVE-2021-41091: a set-user-ID file that a container wrote, run by a user of the host who walks up to it.
#[test]
fn a_containers_files_are_out_of_every_users_reach() {
    needs_root!();
    let host = Host::new();
    open_way(&host);
    host.ok(&["volume", "create", "store"]);
    for (flags, name) in [(&[][..], "plain"), (&["--userns", "auto"][..], "mapped")] {
        host.ok(&[
            &[
                "run",
                "--detach",
                "--network",
                "none",
                "--policy",
                "docker-default",
            ][..],
            &["--name", name, "-v", "store:/v"],
            flags,
            &["busybox:test", "sh", "-c"],
            &["cp /suid /raised && chmod 4755 /raised && cp -p /raised /v/; echo made; sleep 1000"],
        ]
        .concat());
        kakoi_integration::wait::until("the files are made", || host.ok(&["logs", name]).contains("made"));
        let id = host.inspect(name)["Id"].as_str().expect("an id").to_owned();
        let written = host.path(&format!("root/containers/{id}/upper/raised"));
        assert_eq!(mode(&written), 0o4755, "{name}: the container did its part");
        for path in [written, host.path("root/volumes/store/_data/raised")] {
            if !path.exists() {
                assert_eq!(name, "mapped", "{} is missing", path.display());
                continue;
            }
            let mut command = Command::new("setpriv");
            // The shell in between has given up the capabilities that the first program keeps.
            command
                .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
                .args(["sh", "-c", "exec \"$0\" whoami"])
                .arg(&path);
            let ran = run(&mut command, b"");
            assert_ne!(ran.code, 0, "{name}: {ran}");
            assert!(ran.stderr.contains("Permission denied"), "{name}: {ran}");
        }
        host.ok(&["rm", "--force", "--time", "0", name]);
    }
    for folder in [
        "root",
        "root/containers",
        "root/volumes",
        "root/images",
        "root/images/layers",
        "run/containers",
        "run/records",
    ] {
        assert_eq!(mode(&host.path(folder)), 0o700, "{folder}");
    }
    host.ok(&["volume", "rm", "store"]);
    host.is_clean();
}

/// Secrets reach a container by its environment, and so they are in plans and records.
#[test]
fn what_containers_were_told_is_roots_alone() {
    needs_root!();
    let host = Host::new();
    for (flags, name) in [
        (&[][..], "kept"),
        (&["--rm"][..], "brief"),
        (&["--tty"][..], "typed"),
    ] {
        host.ok(&[
            &["run", "--detach", "--network", "none", "--name", name][..],
            &["--env", "TOKEN=secret", "-v", "store:/v"],
            flags,
            &["busybox:test", "sleep", "1000"],
        ]
        .concat());
    }
    host.ok(&["stop", "--time", "0", "kept"]);
    let mut seen = Vec::new();
    for path in own_entries(&host.path("root"))
        .into_iter()
        .chain(own_entries(&host.path("run")))
    {
        let kind = fs::symlink_metadata(&path).expect("it is there").file_type();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let wanted = match name.as_str() {
            // Who may ask the daemon is decided by the group, and so its folder must be passed; containers read their identity files.
            "kakoid.sock" | "docker.sock" => continue,
            "hosts" | "hostname" | "resolv.conf" => 0o644,
            _ if kind.is_dir() => 0o700,
            _ if kind.is_symlink() => continue,
            _ => 0o600,
        };
        let found = mode(&path);
        assert_eq!(found | wanted, wanted, "{} is {found:o}", path.display());
        if kind.is_file() || kind.is_socket() {
            seen.push(name);
        }
    }
    for name in [
        "plan.json",
        "receipt.json",
        "exit.json",
        "state.redb",
        "shim.sock",
        "log",
    ] {
        assert!(
            seen.iter().any(|seen| seen == name),
            "{name} is missing: {seen:?}"
        );
    }
    for name in ["kept", "brief", "typed"] {
        host.ok(&["rm", "--force", "--time", "0", name]);
    }
    host.ok(&["volume", "rm", "store"]);
}
