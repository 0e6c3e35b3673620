//! Folders of the host inside containers: what a policy or a flag names is what is mounted, at the first start and at every later one, and
//! what is mounted gives no more than files.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use kakoi_integration::host::Host;
use kakoi_integration::needs_root;
use serde_json::json;

const FLAGS: [&str; 3] = ["run", "--network", "none"];

/// A folder that apps may write to.
fn open_folder(host: &Host, name: &str) -> PathBuf {
    let path = host.path(name);
    fs::create_dir_all(&path).expect("making a folder");
    fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).expect("opening a folder");
    path
}

/// A bind mount that a policy brings is judged by where it leads, not by how it is written.
#[test]
fn a_policys_links_lead_not_around_the_ceiling() {
    needs_root!();
    let host = Host::new();
    let data = open_folder(&host, "data");
    fs::write(data.join("own"), "own").expect("writing a file");
    symlink("/etc", host.path("outward")).expect("making a link");
    symlink(&data, host.path("inward")).expect("making a link");
    let with = |source: &str| {
        let name = format!("{source}.yaml");
        let text = format!(
            "kakoi: 1\nname: {source}\nextends: [strict]\nmounts:\n  - {{bind: {}, target: /x}}\nfiles:\n  read: [/x]\n",
            host.path(source).display()
        );
        let policy = host.file(&name, text);
        host.kakoi(
            &[
                &FLAGS[..],
                &["--rm", "--policy", &policy, "busybox:test", "ls", "/x"],
            ]
            .concat(),
        )
    };
    let through = with("outward");
    assert!(!through.stdout.contains("shadow"), "{through}");
    assert_eq!(through.code, 125, "{through}");
    assert!(through.stderr.contains("bind mount of /etc"), "{through}");
    let deeper = {
        fs::create_dir(host.path("nested")).expect("making a folder");
        symlink("/etc", host.path("nested/link")).expect("making a link");
        let policy = host.file(
            "deep.yaml",
            format!(
                "kakoi: 1\nname: deep\nextends: [strict]\nmounts:\n  - {{bind: {}/ssl, target: /x}}\n",
                host.path("nested/link").display()
            ),
        );
        host.kakoi(
            &[
                &FLAGS[..],
                &["--rm", "--policy", &policy, "busybox:test", "ls", "/x"],
            ]
            .concat(),
        )
    };
    assert_eq!(deeper.code, 125, "{deeper}");
    assert_eq!(with("data").ok(), "own");
    assert_eq!(with("inward").ok(), "own");
    let gone = with("nowhere");
    assert_eq!(gone.code, 125, "{gone}");
    assert!(gone.stderr.contains("make it first"), "{gone}");
    host.is_clean();
}

/// CVE-2021-30465 and its kin: an app that writes to the folder of one mount puts a link in the place of another's source before it is started again.
#[test]
fn a_source_that_became_a_link_is_not_followed() {
    needs_root!();
    let host = Host::new();
    for (flags, name) in [(&[][..], "plain"), (&["--userns", "auto"][..], "mapped")] {
        let shared = open_folder(&host, name);
        let app = open_folder(&host, &format!("{name}/app"));
        fs::write(app.join("own"), "own").expect("writing a file");
        let (all, one) = (
            format!("{}:/sv", shared.display()),
            format!("{}:/app", app.display()),
        );
        let script = "ls /app; [ -e /sv/app/own ] && mv /sv/app /sv/old && ln -s /etc /sv/app";
        host.ok(&[
            &["create", "--network", "none", "--name", name][..],
            &["-v", &all, "-v", &one],
            flags,
            &["busybox:test", "sh", "-c", script],
        ]
        .concat());
        assert_eq!(host.ok(&["start", "--attach", name]), "own", "{name}");
        let again = host.kakoi(&["start", "--attach", name]);
        assert!(!again.stdout.contains("shadow"), "{name}: {again}");
        assert_ne!(again.code, 0, "{name}: {again}");
        for word in [app.to_str().expect("UTF-8"), "/app", "symbolic link"] {
            assert!(again.stderr.contains(word), "{name}: {word}: {again}");
        }
        // What was there before may be put back.
        fs::remove_file(&app).expect("removing the link");
        fs::rename(shared.join("old"), &app).expect("moving the folder back");
        assert_eq!(host.ok(&["start", "--attach", name]), "own", "{name}");
        host.ok(&["rm", name]);
    }
    host.is_clean();
}

/// The same by the app alone, without anybody's help: its restart policy starts it again.
#[test]
fn a_restart_follows_no_link_either() {
    needs_root!();
    let host = Host::new();
    let shared = open_folder(&host, "shared");
    let app = open_folder(&host, "shared/app");
    let (all, one) = (
        format!("{}:/sv", shared.display()),
        format!("{}:/app", app.display()),
    );
    // The third time it would not restart any more.
    let script =
        "[ -e /app/shadow ] && cat /app/shadow > /sv/loot; rmdir /sv/app; ln -s /etc /sv/app; exit 1";
    host.ok(&[
        &FLAGS[..],
        &["-d", "--name", "self", "--restart", "on-failure:2"],
        &["-v", &all, "-v", &one, "busybox:test", "sh", "-c", script],
    ]
    .concat());
    host.until_state("self", "Status", &json!("exited"));
    assert!(app.is_symlink(), "the app did its part");
    assert!(
        !shared.join("loot").exists(),
        "the app read the host's /etc/shadow"
    );
    host.ok(&["rm", "--force", "self"]);
}

/// A folder within a volume: the container that has the whole volume makes a link of it while the other one is down.
#[test]
fn a_volumes_subpath_stays_in_the_volume() {
    needs_root!();
    let host = Host::new();
    host.ok(&["volume", "create", "shared"]);
    let whole = |script: &str| {
        host.ok(&[
            &FLAGS[..],
            &["--rm", "-v", "shared:/v", "busybox:test", "sh", "-c", script],
        ]
        .concat())
    };
    whole("mkdir -p /v/sub/deep && touch /v/sub/own /v/sub/deep/own");
    for subpath in ["sub", "sub/deep"] {
        let mount = format!("type=volume,source=shared,target=/x,volume-subpath={subpath}");
        host.ok(&[
            "create",
            "--network",
            "none",
            "--name",
            "part",
            "--mount",
            &mount,
            "busybox:test",
            "ls",
            "/x",
        ]);
        assert!(
            host.ok(&["start", "--attach", "part"]).contains("own"),
            "{subpath}"
        );
        whole("mv /v/sub /v/old && ln -s / /v/sub && mkdir -p /v/old/deep");
        let again = host.kakoi(&["start", "--attach", "part"]);
        assert!(!again.stdout.contains("etc"), "{subpath}: {again}");
        assert_ne!(again.code, 0, "{subpath}: {again}");
        whole("rm /v/sub && mv /v/old /v/sub");
        assert!(
            host.ok(&["start", "--attach", "part"]).contains("own"),
            "{subpath}"
        );
        host.ok(&["rm", "part"]);
    }
    host.is_clean();
}

/// A source that is gone is named, with where it is mounted and what to do.
#[test]
fn a_source_that_is_gone_is_named() {
    needs_root!();
    let host = Host::new();
    let data = open_folder(&host, "data");
    let bind = format!("{}:/x", data.display());
    host.ok(&[
        "create",
        "--network",
        "none",
        "--name",
        "gone",
        "-v",
        &bind,
        "busybox:test",
        "true",
    ]);
    fs::remove_dir(&data).expect("removing a folder");
    let ran = host.kakoi(&["start", "--attach", "gone"]);
    assert_ne!(ran.code, 0, "{ran}");
    for word in [data.to_str().expect("UTF-8"), "mounted at /x", "put it back"] {
        assert!(ran.stderr.contains(word), "{word}: {ran}");
    }
    host.ok(&["rm", "gone"]);
    host.is_clean();
}

/// Data is files: no device nodes open in it, and in a volume no set-user-ID program raises anybody.
#[test]
fn data_mounts_are_data() {
    needs_root!();
    let host = Host::new();
    let data = open_folder(&host, "data");
    let below = open_folder(&host, "data/below");
    nix::mount::mount(
        Some("tmpfs"),
        &below,
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        Some("size=64k"),
    )
    .expect("mounting a file system below");
    let bind = format!("{}:/b", data.display());
    let options = |flags: &[&str], target: &str| -> String {
        let table = host.ok(&[
            &FLAGS[..],
            &["--rm", "--policy", "docker-default"],
            flags,
            &["busybox:test", "cat", "/proc/self/mounts"],
        ]
        .concat());
        let line = table
            .lines()
            .find(|line| line.split(' ').nth(1) == Some(target))
            .unwrap_or_else(|| panic!("{target} is not mounted: {table}"));
        line.split(' ').nth(3).expect("options").to_owned()
    };
    let has = |options: &str, word: &str| options.split(',').any(|option| option == word);
    let (plain, deep, volume, asked) = (
        options(&["-v", &bind], "/b"),
        options(&["-v", &bind], "/b/below"),
        options(&["-v", "store:/v"], "/v"),
        options(&["-v", "store:/v:suid"], "/v"),
    );
    nix::mount::umount(&below).expect("unmounting it");
    assert!(has(&plain, "nodev") && !has(&plain, "nosuid"), "{plain}");
    assert!(has(&deep, "nodev"), "{deep}");
    assert!(has(&volume, "nodev") && has(&volume, "nosuid"), "{volume}");
    assert!(has(&asked, "nodev") && !has(&asked, "nosuid"), "{asked}");
    host.ok(&["volume", "rm", "store"]);
    host.is_clean();
}
