//! Volumes of containers with a user namespace: their root owns them, the host's files stay the host's.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use kakoi_integration::command::Ran;
use kakoi_integration::host::Host;
use kakoi_integration::image::Layer;
use kakoi_integration::needs_root;
use serde_json::json;

fn sh(host: &Host, flags: &[&str], image: &str, script: &str) -> Ran {
    let mut words = vec!["run", "--rm", "--network", "none", "--policy", "docker-default"];
    words.extend(flags);
    words.extend([image, "sh", "-c", script]);
    host.kakoi(&words)
}

fn owner(path: &Path) -> (u32, u32) {
    let meta = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (meta.uid(), meta.gid())
}

fn data(host: &Host, volume: &str) -> PathBuf {
    host.path("root/volumes").join(volume).join("_data")
}

#[test]
fn root_of_a_user_namespace_owns_a_volume_and_nothing_of_the_host() {
    needs_root!();
    let host = Host::new();
    let volume = &["--userns", "auto", "--volume", "store:/store"];
    let script =
        "echo a >/store/root && mkdir /store/app && chown 1000:1000 /store/app && stat -c %u:%g /store";
    assert_eq!(sh(&host, volume, "busybox:test", script).ok(), "0:0");
    // On the disk the ids are the container's own, so that the next container, with another range, finds them again.
    let store = data(&host, "store");
    assert_eq!(owner(&store), (0, 0));
    assert_eq!(owner(&store.join("root")), (0, 0));
    assert_eq!(owner(&store.join("app")), (1000, 1000));
    host.ok(&[
        "run",
        "--detach",
        "--userns",
        "auto",
        "--network",
        "none",
        "--name",
        "other",
        "busybox:test",
        "sleep",
        "1000",
    ]);
    let script =
        "stat -c %u:%g /store/root /store/app && cat /store/root && echo b >>/store/root && rm -r /store/app";
    assert_eq!(
        sh(&host, volume, "busybox:test", script).ok(),
        "0:0\n1000:1000\na"
    );
    let as_user = ["--userns", "auto", "--user", "1000", "--volume", "store:/store"];
    // And one without a namespace; a user that is not its owner is refused in either.
    for flags in [&as_user[..], &["--user", "1000", "--volume", "store:/store"]] {
        let ran = sh(
            &host,
            flags,
            "busybox:test",
            "cat /store/root; echo c >>/store/root",
        );
        assert_ne!(ran.code, 0, "{ran}");
        assert_eq!(ran.stdout, "a\nb\n", "{ran}");
    }

    // A bind is the host's: its root is not the container's.
    let folder = host.path("bound");
    fs::create_dir(&folder).expect("a folder");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("its mode");
    let bind = format!("{}:/bound", folder.display());
    let flags = ["--userns", "auto", "--volume", &bind];
    let ran = sh(&host, &flags, "busybox:test", "stat -c %u /bound; touch /bound/x");
    assert_ne!(ran.code, 0, "{ran}");
    assert_eq!(ran.stdout, "65534\n");
    // Nor are the files that the daemon makes for it.
    let ran = sh(&host, volume, "busybox:test", "echo x >>/etc/hostname");
    assert_ne!(ran.code, 0, "{ran}");
    // A read-only volume stays so, and an id outside of the range cannot be given away.
    let ran = sh(
        &host,
        &["--userns", "auto", "--volume", "store:/store:ro"],
        "busybox:test",
        "cat /store/root; touch /store/x",
    );
    assert_ne!(ran.code, 0, "{ran}");
    assert_eq!(ran.stdout, "a\nb\n");
    let ran = sh(&host, volume, "busybox:test", "chown 200000 /store/root");
    assert_ne!(ran.code, 0, "{ran}");
    assert_eq!(owner(&store.join("root")), (0, 0));
}

#[test]
fn a_new_volume_takes_over_the_image_with_the_owners_that_it_has_inside() {
    needs_root!();
    let host = Host::new();
    let layer = Layer::new()
        .folder("data/", 0o750)
        .file("data/config", 0o640, b"from the image");
    host.load_variant("data:1", &json!({ "Cmd": ["true"] }), layer)
        .ok();
    let flags = ["--userns", "auto", "--volume", "full:/data"];
    let script = "stat -c '%u:%g %a' /data /data/config && cat /data/config && echo more >/data/config";
    assert_eq!(
        sh(&host, &flags, "data:1", script).ok(),
        "0:0 750\n0:0 640\nfrom the image"
    );
    let full = data(&host, "full");
    assert_eq!(owner(&full), (0, 0));
    assert_eq!(owner(&full.join("config")), (0, 0));
    assert_eq!(
        fs::read_to_string(full.join("config")).expect("it is there"),
        "more\n"
    );
    // Nobody of the host comes near it.
    assert_eq!(
        fs::metadata(host.path("root/volumes"))
            .expect("it is there")
            .mode()
            & 0o777,
        0o700
    );
}
