//! Images from files: what is loaded comes out again, and what is hostile does not get in.
#![forbid(unsafe_code)]

use kakoi_integration::host::{Host, binary};
use kakoi_integration::image::{self, Layer};
use kakoi_integration::needs_root;
use serde_json::json;
use tar::EntryType;

#[test]
fn a_round_trip_keeps_the_image() {
    needs_root!();
    let host = Host::new();
    let before = host.ok(&["images", "--quiet", "--no-trunc"]);
    let saved = host.path("saved.tar");
    let saved = saved.to_str().expect("UTF-8");
    host.ok(&["save", "--output", saved, "busybox:test"]);
    host.ok(&["tag", "busybox:test", "other:name"]);
    assert!(host.ok(&["images"]).contains("other"));
    host.ok(&["rmi", "other:name", "busybox:test"]);
    assert_eq!(host.ok(&["images", "--quiet"]), "");
    host.ok(&["load", "--input", saved]);
    assert_eq!(host.ok(&["images", "--quiet", "--no-trunc"]), before);
    assert!(host.ok(&["history", "busybox:test"]).contains("harness"));
    assert_eq!(
        host.ok(&[
            "run",
            "--rm",
            "--network",
            "none",
            "busybox:test",
            "echo",
            "alive"
        ]),
        "alive"
    );
}

#[test]
fn a_root_file_system_becomes_an_image() {
    needs_root!();
    let host = Host::empty();
    let rootfs = host.file("rootfs.tar", image::busybox_layer(&binary("attacker")));
    host.ok(&["import", &rootfs, "imported:1"]);
    assert_eq!(
        host.ok(&[
            "run",
            "--rm",
            "--network",
            "none",
            "imported:1",
            "/bin/echo",
            "hi"
        ]),
        "hi"
    );
}

#[test]
fn an_image_in_use_stays() {
    needs_root!();
    let host = Host::new();
    host.ok(&[
        "create",
        "--name",
        "user",
        "--network",
        "none",
        "busybox:test",
        "true",
    ]);
    host.kakoi(&["rmi", "busybox:test"]).is_one_clear_error();
    host.ok(&["rm", "user"]);
    host.ok(&["rmi", "busybox:test"]);
}

/// Archives that try to write outside of their root. Each is refused, or taken in without the write; the host's folder stays as it was.
#[test]
fn hostile_layers_write_nothing_outside() {
    needs_root!();
    let host = Host::empty();
    let outside = host.path("outside");
    std::fs::create_dir(&outside).expect("making a folder");
    std::fs::write(outside.join("victim"), "untouched").expect("writing a file");
    // Names are at most a hundred bytes in the plain form; a link of the folder's own keeps them short.
    let target = outside.to_str().expect("UTF-8");
    let up = format!("{}{}", "../".repeat(12), target.trim_start_matches('/'));
    let victim = format!("{target}/victim");
    let layers: Vec<(&str, Layer)> = vec![
        ("dot-dot", Layer::new().file(&format!("{up}/new"), 0o644, b"x")),
        (
            "absolute",
            Layer::new().file(&format!("{target}/new"), 0o644, b"x"),
        ),
        (
            "through a link",
            Layer::new().link("out", target).file("out/new", 0o644, b"x"),
        ),
        (
            "through a relative link",
            Layer::new().link("out", &up).file("out/new", 0o644, b"x"),
        ),
        (
            "hard link outside",
            Layer::new()
                .entry(EntryType::Link, "in", &victim, 0o644, b"")
                .file("in", 0o644, b"changed"),
        ),
        (
            "hard link through a link",
            Layer::new()
                .link("out", target)
                .entry(EntryType::Link, "in", "out/victim", 0o644, b"")
                .file("in", 0o644, b"changed"),
        ),
        (
            "whiteout outside",
            Layer::new().file(&format!("{up}/.wh.victim"), 0o644, b""),
        ),
        (
            "whiteout through a link",
            Layer::new()
                .link("out", target)
                .file("out/.wh.victim", 0o644, b""),
        ),
        (
            "opaque through a link",
            Layer::new()
                .link("out", target)
                .file("out/.wh..wh..opq", 0o644, b""),
        ),
        (
            "folder through a link",
            Layer::new().link("out", target).folder("out/new/", 0o755),
        ),
        (
            "mode through a link",
            Layer::new().link("out", &victim).folder("out/", 0o777),
        ),
        ("whiteout of dot-dot", Layer::new().file(".wh...", 0o644, b"")),
    ];
    for (what, layer) in layers {
        let ran = host.load(&image::archive("hostile:1", &json!({}), &[layer.finish()]));
        if ran.code != 0 {
            ran.is_one_clear_error();
        }
        let names: Vec<_> = std::fs::read_dir(&outside)
            .expect("reading a folder")
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        assert_eq!(names, ["victim"], "{what}: {ran}");
        assert_eq!(
            std::fs::read_to_string(outside.join("victim")).expect("the victim is there"),
            "untouched",
            "{what}"
        );
    }
}

/// A device node in a layer gives its container nothing.
#[test]
fn device_nodes_in_layers_open_nothing() {
    needs_root!();
    let host = Host::empty();
    let loaded = host.load_variant(
        "node:1",
        &json!({ "Cmd": ["sh"] }),
        Layer::new().entry(EntryType::Char, "mem", "", 0o666, b""),
    );
    if loaded.code == 0 {
        let ran = host.kakoi(&[
            "run",
            "--rm",
            "--network",
            "none",
            "--policy",
            "docker-default",
            "node:1",
            "cat",
            "/mem",
        ]);
        assert_ne!(ran.code, 0, "{ran}");
    } else {
        loaded.is_one_clear_error();
    }
}

#[test]
fn broken_archives_leave_nothing() {
    needs_root!();
    let host = Host::empty();
    let good = image::busybox(&binary("attacker"));
    let mut flipped = good.clone();
    // Inside the layer's data: the digest no longer fits.
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    let no_manifest = Layer::new().file("hello", 0o644, b"x").finish();
    let bad_manifest = Layer::new()
        .file(
            "manifest.json",
            0o644,
            b"[{\"Config\":\"../../etc/passwd\",\"Layers\":[]}]",
        )
        .finish();
    let not_json = Layer::new().file("manifest.json", 0o644, b"{{{").finish();
    for (what, archive) in [
        ("empty", &b" "[..]),
        ("noise", &[0xaa; 4096][..]),
        ("truncated", &good[..good.len() / 3]),
        ("a flipped bit", &flipped),
        ("no manifest", &no_manifest),
        ("a manifest that points outside", &bad_manifest),
        ("a manifest that is no JSON", &not_json),
    ] {
        let ran = host.load(archive);
        assert_ne!(ran.code, 0, "{what}: {ran}");
        ran.is_one_clear_error();
        assert_eq!(host.ok(&["images", "--quiet"]), "", "{what}");
    }
    // After all that, a good one still loads.
    host.load(&good).ok();
}

/// What a pull would remove first goes when somebody asks for it: what nothing uses, without a name first, and never what a container uses.
#[test]
fn room_is_made_when_asked_for() {
    needs_root!();
    let host = Host::new();
    let images = || {
        let listed = host.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        // What was made in the same second comes in any order.
        let mut listed: Vec<_> = listed.lines().map(str::to_owned).collect();
        listed.sort();
        listed
    };
    host.ok(&["tag", "busybox:test", "used:1"]);
    host.load_variant("spare:1", &json!({"Env": ["OF=spare"]}), Layer::new())
        .ok();
    host.load_variant("spare:1", &json!({"Env": ["OF=later"]}), Layer::new())
        .ok();
    assert!(images().contains(&"<none>:<none>".to_owned()), "{:?}", images());
    host.ok(&["create", "--name", "user", "busybox:test", "true"]);

    // Nothing is wanted, by the command or by the owner.
    host.kakoi(&["system", "gc"]).fails(
        125,
        "no low-water mark is set: say how much room is wanted (--free)",
    );
    for wrong in ["0", "-1", "much"] {
        assert_ne!(host.kakoi(&["system", "gc", "--free", wrong]).code, 0, "{wrong}");
    }
    // There is as much room already.
    let made = host.ok(&["system", "gc", "--free", "1"]);
    assert!(made.contains("Total reclaimed space: 0B"), "{made}");
    assert_eq!(images().len(), 4, "{:?}", images());
    // More than any disk has: all that may go goes, and it is said that it was not enough.
    host.kakoi(&["system", "gc", "--free", "1024t"]).fails(1, "");
    assert_eq!(images(), ["busybox:test", "spare:1", "used:1"]);
    host.kakoi(&["system", "gc", "--free", "1024t", "--named"])
        .fails(1, "");
    assert_eq!(images(), ["busybox:test", "used:1"]);
    host.ok(&["start", "--attach", "user"]);
}
