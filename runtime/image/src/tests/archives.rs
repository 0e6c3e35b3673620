//! Archives that are damaged or mean harm, and those that are odd and right. After a refusal the store is as it was.

use std::fs;

use serde_json::{Value, json};

use super::build::{Layout, TarBuilder, config, docker_archive, gzip, zstd};
use super::root;
use super::store::{inventory, load};
use crate::*;

const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

struct Ground {
    dir: tempfile::TempDir,
    store: ImageStore,
    before: Vec<String>,
}

impl Ground {
    /// A store that has an image already.
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("folder");
        let store = ImageStore::open(dir.path()).expect("open");
        let layer = vec![TarBuilder::new().file("old", b"old").finish()];
        load(
            &store,
            &docker_archive(&config(&layer, json!({})), &layer, &["old"]),
        )
        .expect("loaded");
        let before = inventory(dir.path());
        Self { dir, store, before }
    }

    fn refused(&self, name: &str, archive: &[u8], words: &str) {
        let error = load(&self.store, archive)
            .err()
            .unwrap_or_else(|| panic!("{name} was loaded"));
        let text = chain(&error);
        assert!(text.contains(words), "{name}: {text}");
        assert_eq!(
            inventory(self.dir.path()),
            self.before,
            "{name} left something behind"
        );
        assert_eq!(self.store.list().expect("list").len(), 1, "{name}");
    }
}

fn layer() -> Vec<u8> {
    TarBuilder::new().file("new", b"new").finish()
}

fn manifest(value: Value) -> Vec<u8> {
    serde_json::to_vec(&value).expect("json")
}

#[test]
fn damaged_docker_archives_are_refused() {
    if !root("damaged_docker_archives_are_refused") {
        return;
    }
    let ground = Ground::new();
    let layers = vec![layer()];
    let config = config(&layers, json!({}));
    let name = format!("{}.json", Digest::of(&config).hex());
    let good = docker_archive(&config, &layers, &["new"]);
    let with = |manifest: Value| {
        let tar = TarBuilder::new()
            .file(&name, &config)
            .file("l/layer.tar", &layers[0]);
        tar.file("manifest.json", &self::manifest(manifest)).finish()
    };
    let deep = [&br#"[{"x":"#[..], &[b'['; 100_000]].concat();
    for (name, archive, words) in [
        ("empty", vec![], "neither"),
        ("no tar", b"hello".to_vec(), "truncated"),
        ("garbage", vec![b'x'; 4096], "checksum"),
        ("zeros", vec![0; 1024], "neither"),
        ("truncated", good[..good.len() / 2].to_vec(), "truncated"),
        ("truncated gzip", gzip(&good)[..300].to_vec(), "cannot read"),
        ("truncated zstd", zstd(&good)[..300].to_vec(), "cannot read"),
        (
            "ancient",
            TarBuilder::new().file("repositories", b"{}").finish(),
            "older than 1.10",
        ),
        (
            "other tar",
            TarBuilder::new().file("x", b"{}").finish(),
            "neither",
        ),
        (
            "no json",
            TarBuilder::new().file("manifest.json", b"{").finish(),
            "cannot read manifest.json",
        ),
        (
            "deep json",
            TarBuilder::new().file("manifest.json", &deep).finish(),
            "cannot read manifest.json",
        ),
        ("no images", with(json!([])), "holds no image"),
        (
            "config missing",
            with(json!([{"Config": "x.json", "Layers": []}])),
            "lacks x.json",
        ),
        (
            "config outside",
            with(json!([{"Config": "../../etc/passwd", "Layers": []}])),
            "lacks",
        ),
        (
            "layer missing",
            with(json!([{"Config": name, "Layers": ["x"]}])),
            "lacks x",
        ),
        (
            "too few layers",
            with(json!([{"Config": name, "Layers": []}])),
            "0 layers",
        ),
        (
            "bad name",
            with(json!([{"Config": name, "RepoTags": ["A B"], "Layers": ["l/layer.tar"]}])),
            "name \"A B\"",
        ),
        (
            "config as layer",
            with(json!([{"Config": name, "Layers": [name]}])),
            "cannot unpack layer",
        ),
    ] {
        ground.refused(name, &archive, words);
    }
    let swapped = TarBuilder::new().file("other", b"").finish();
    ground.refused(
        "another layer",
        &docker_archive(&config, &[swapped], &[]),
        "configuration says",
    );
    let renamed = format!("{}.json", Digest::of(b"x").hex());
    ground.refused(
        "another config",
        &TarBuilder::new().file(&renamed, &config).finish(),
        "has digest",
    );
    let big = vec![b' '; (4 << 20) + 1];
    ground.refused(
        "giant manifest",
        &TarBuilder::new().file("manifest.json", &big).finish(),
        "larger than",
    );
    let circle = TarBuilder::new()
        .symlink("manifest.json", "a")
        .symlink("a", "manifest.json")
        .file("b", b"");
    ground.refused("links in a circle", &circle.finish(), "neither");
    let many = (0..20_001)
        .fold(TarBuilder::new(), |tar, n| tar.dir(&format!("{n}/"), 0o755))
        .finish();
    ground.refused("too many members", &many, "too many members");
    ground.refused(
        "endless trailer",
        &[good.clone(), vec![0; 17 << 20]].concat(),
        "goes on after",
    );
    let layers128: Vec<&str> = vec!["l/layer.tar"; 128];
    ground.refused(
        "too many layers",
        &with(json!([{"Config": name, "Layers": layers128}])),
        "more than 127",
    );
    load(&ground.store, &good).expect("the good one loads");
}

#[test]
fn damaged_configurations_are_refused() {
    if !root("damaged_configurations_are_refused") {
        return;
    }
    let ground = Ground::new();
    let layers = vec![layer()];
    for (name, extra, words) in [
        ("windows", json!({"os": "windows"}), "operating system"),
        (
            "other root",
            json!({"rootfs": {"type": "layers+base", "diff_ids": []}}),
            "layers+base",
        ),
        (
            "short digest",
            json!({"rootfs": {"type": "layers", "diff_ids": ["sha256:ab"]}}),
            "digest",
        ),
        (
            "other digest",
            json!({"rootfs": {"type": "layers", "diff_ids": ["sha512:ab"]}}),
            "digest",
        ),
        ("no root", json!({"rootfs": null}), "invalid image configuration"),
        (
            "words",
            json!({"config": {"Env": "PATH=/"}}),
            "invalid image configuration",
        ),
        ("NUL", json!({"config": {"Cmd": ["a\u{0}b"]}}), "NUL"),
    ] {
        ground.refused(
            name,
            &docker_archive(&config(&layers, extra), &layers, &[]),
            words,
        );
    }
    // null is absence everywhere, as Go writes it; unknown fields and repeated layers are nothing special.
    let twice = vec![layer(), layer()];
    let odd = json!({"config": {"Cmd": null, "Env": null, "Volumes": null, "ExposedPorts": {"1/tcp": {"x": 1}}, "X": 1}});
    load(
        &ground.store,
        &docker_archive(&config(&twice, odd), &twice, &["odd"]),
    )
    .expect("odd and right");
    assert_eq!(
        ground.store.resolve("odd").expect("found").layers.len(),
        1,
        "overlayfs takes no folder twice"
    );
}

#[test]
fn damaged_layouts_are_refused() {
    if !root("damaged_layouts_are_refused") {
        return;
    }
    let ground = Ground::new();
    let layers = vec![layer()];
    let config = config(&layers, json!({}));
    let image = |layout: &mut Layout| layout.image(&config, &[(GZIP, gzip(&layers[0]))]);

    let mut layout = Layout::default();
    let mut descriptor = image(&mut layout);
    descriptor["size"] = json!(7);
    layout.top(descriptor, json!({}));
    ground.refused("size", &layout.finish(), "its descriptor says 7");

    let mut layout = Layout::default();
    let mut descriptor = image(&mut layout);
    descriptor["digest"] = json!(format!("sha512:{}", "a".repeat(128)));
    layout.top(descriptor, json!({}));
    ground.refused("sha512", &layout.finish(), "no sha256 digest");

    let mut layout = Layout::default();
    let mut descriptor = image(&mut layout);
    for _ in 0..6 {
        descriptor = layout.index(vec![descriptor]);
    }
    layout.top(descriptor, json!({}));
    ground.refused("deep indexes", &layout.finish(), "levels of indexes");

    let mut layout = Layout::default();
    let descriptor = layout.image(
        &config,
        &[(TAR, b"not a tar, but what the manifest says".to_vec())],
    );
    layout.top(descriptor, json!({}));
    ground.refused("no layer", &layout.finish(), "cannot unpack layer");

    let mut layout = Layout::default();
    let descriptor = layout.image(&config, &[(GZIP, gzip(&layers[0])[..40].to_vec())]);
    layout.top(descriptor, json!({}));
    ground.refused("cut layer", &layout.finish(), "layer");

    let mut layout = Layout::default();
    let descriptor = image(&mut layout);
    layout.top(descriptor, json!({"io.containerd.image.name": "-bad-"}));
    ground.refused("name", &layout.finish(), "name \"-bad-\"");

    let mut layout = Layout::default();
    let mut descriptor = image(&mut layout);
    descriptor["platform"] = json!({"architecture": "s390x", "os": "linux"});
    layout.top(descriptor, json!({}));
    ground.refused("another machine", &layout.finish(), "holds no image");

    let mut layout = Layout::default();
    let mut descriptor = image(&mut layout);
    descriptor["digest"] = json!(Digest::of(b"x").to_string());
    layout.top(descriptor, json!({}));
    ground.refused("absent", &layout.finish(), "holds no image");

    let tar = TarBuilder::new()
        .file(&format!("blobs/sha256/{}", Digest::of(b"x").hex()), b"y")
        .finish();
    ground.refused("blob with another digest", &tar, "has digest");
    let twice = br#"{"schemaVersion": 2, "manifests": [], "manifests": []}"#;
    ground.refused(
        "duplicate keys",
        &TarBuilder::new().file("index.json", twice).finish(),
        "cannot read index.json",
    );
}

#[test]
fn bombs_are_refused() {
    if !root("bombs_are_refused") {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let limits = Limits {
        expansion_free_bytes: 1 << 20,
        expansion_max: 100,
        ..Limits::DEVICE
    };
    let store = ImageStore::open_limited(dir.path(), limits).expect("open");
    let layers = vec![TarBuilder::new().file("zeros", &vec![0; 4 << 20]).finish()];
    let config = config(&layers, json!({}));
    let plain = docker_archive(&config, &layers, &[]);
    let refusal = |archive: &[u8]| chain(&load(&store, archive).expect_err("a bomb"));
    assert!(refusal(&gzip(&plain)).contains("expands more than 100 times"));
    assert!(refusal(&zstd(&plain)).contains("expands more than 100 times"));
    for (media_type, blob) in [
        (GZIP, gzip(&layers[0])),
        ("application/vnd.oci.image.layer.v1.tar+zstd", zstd(&layers[0])),
    ] {
        let mut layout = Layout::default();
        let descriptor = layout.image(&config, &[(media_type, blob)]);
        layout.top(descriptor, json!({}));
        assert!(refusal(&layout.finish()).contains("expands more than 100 times"));
    }
    assert_eq!(inventory(dir.path()), [""; 0]);
    // Sent as it is, it is no bomb, though our own packing makes it small.
    load(&store, &plain).expect("loaded");
}

#[test]
fn a_full_disk_leaves_the_store_as_it_was() {
    if !root("a_full_disk_leaves_the_store_as_it_was") {
        return;
    }
    // A file system of its own in a mount namespace of its own, which goes with this thread.
    let run = || {
        use nix::mount::{MsFlags, mount};
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("unshare");
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )
        .expect("private");
        let dir = tempfile::tempdir().expect("folder");
        mount(
            Some("tmpfs"),
            dir.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            Some("size=6m"),
        )
        .expect("tmpfs");
        for (reserve_bytes, room) in [(0, "the disk itself"), (2 << 20, "the reserve")] {
            let limits = Limits {
                reserve_bytes,
                ..Limits::DEVICE
            };
            let store = ImageStore::open_limited(dir.path(), limits).expect("open");
            let small = vec![layer()];
            load(
                &store,
                &docker_archive(&config(&small, json!({})), &small, &["small"]),
            )
            .expect("loaded");
            let before = inventory(dir.path());
            // Bytes that do not pack.
            let mut state = 1u64;
            let noise = |_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            };
            let noise: Vec<u8> = (0..5 << 20).map(noise).collect();
            for size in [3 << 20, 5 << 20] {
                let big = vec![TarBuilder::new().file("noise", &noise[..size]).finish()];
                let archive = docker_archive(&config(&big, json!({})), &big, &["big"]);
                let error = load(&store, &archive).expect_err(room);
                assert!(error.is_disk_full(), "{room}: {}", chain(&error));
                assert_eq!(inventory(dir.path()), before, "{room}");
            }
            assert!(store.resolve("small").is_ok() && store.resolve("big").is_err());
            store
                .remove("small", false, &|_| Vec::new())
                .expect("room can be made");
        }
        nix::mount::umount(dir.path()).expect("umount");
    };
    std::thread::scope(|scope| scope.spawn(run).join()).expect("the thread's own assertions");
}

#[test]
fn a_damaged_store_says_so() {
    if !root("a_damaged_store_says_so") {
        return;
    }
    let ground = Ground::new();
    let Ground { dir, store, .. } = ground;
    let id = store.resolve("old").expect("found").id;
    let index = dir.path().join("images/index.json");
    fs::remove_dir_all(&store.resolve("old").expect("found").layers[0]).expect("removed");
    assert!(matches!(
        store.resolve("old"),
        Err(StoreError::LayerMissing { .. })
    ));
    fs::write(dir.path().join("images/blobs/sha256").join(id.hex()), b"{}").expect("written");
    assert!(matches!(
        store.resolve("old"),
        Err(StoreError::ConfigDamaged { .. })
    ));
    drop(store);
    let good = fs::read(&index).expect("index");
    fs::write(&index, &good[..good.len() / 2]).expect("written");
    let anew = ImageStore::open(dir.path()).expect("a damaged index is made anew");
    assert!(anew.resolve("old").is_err(), "what is not whole is not taken in");
    drop(anew);
    fs::write(&index, br#"{"format": 99, "pictures": {}}"#).expect("written");
    assert!(matches!(
        ImageStore::open(dir.path()),
        Err(StoreError::IndexFormat { format: 99, .. })
    ));
    fs::write(&index, good).expect("written");
    ImageStore::open(dir.path()).expect("another version's index was not touched");
}

#[test]
fn odd_archives_are_read() {
    if !root("odd_archives_are_read") {
        return;
    }
    let ground = Ground::new();
    let layers = vec![layer(), layer()];
    let config = config(&layers, json!({}));
    // Docker before 25 and skopeo share layers between names by links.
    let linked = TarBuilder::new()
        .file("./c.json", &config)
        .file("./a/layer.tar", &layers[0])
        .symlink("b/layer.tar", "../a/layer.tar")
        .file(
            "manifest.json",
            &manifest(
                json!([{"Config": "c.json", "RepoTags": null, "Layers": ["a/layer.tar", "b/layer.tar"]}]),
            ),
        )
        .finish();
    let loaded = load(&ground.store, &linked).expect("linked");
    assert_eq!(
        loaded,
        [Loaded {
            id: Digest::of(&config),
            names: vec![]
        }]
    );
    // An archive that is both: names from manifest.json, digests from the manifest in the layout.
    let mut layout = Layout::default();
    let blob = gzip(&layers[0]);
    let descriptor = layout.image(&config, &[(GZIP, blob.clone()), (GZIP, blob.clone())]);
    let manifest_digest = descriptor["digest"].as_str().expect("digest").to_owned();
    layout.top(
        descriptor,
        json!({"io.containerd.image.name": "docker.io/library/ignored:1"}),
    );
    let mut both = layout.finish();
    both.truncate(both.len() - 1024);
    let name = format!("blobs/sha256/{}", Digest::of(&blob).hex());
    let config_name = format!("blobs/sha256/{}", Digest::of(&config).hex());
    let document = json!([{"Config": config_name, "RepoTags": ["both:1"], "Layers": [name, name]}]);
    both.extend(
        TarBuilder::new()
            .file("manifest.json", &manifest(document))
            .finish(),
    );
    ground
        .store
        .remove(Digest::of(&config).hex(), false, &|_| Vec::new())
        .expect("removed");
    assert_eq!(load(&ground.store, &both).expect("both")[0].names, ["both:1"]);
    assert_eq!(
        ground
            .store
            .inspect("both:1")
            .expect("found")
            .manifest
            .to_string(),
        manifest_digest
    );
    // A tag alone is no name.
    let mut layout = Layout::default();
    let descriptor = layout.image(&config, &[(TAR, layers[0].clone()), (TAR, layers[1].clone())]);
    layout.top(
        descriptor.clone(),
        json!({"org.opencontainers.image.ref.name": "latest"}),
    );
    layout.top(
        descriptor.clone(),
        json!({"org.opencontainers.image.ref.name": "ghcr.io/x/y"}),
    );
    let mut attestation = descriptor;
    attestation["platform"] = json!({"architecture": "unknown", "os": "unknown"});
    layout.top(
        attestation,
        json!({"vnd.docker.reference.type": "attestation-manifest"}),
    );
    let loaded = load(&ground.store, &layout.finish()).expect("named once");
    assert_eq!(
        loaded,
        [Loaded {
            id: Digest::of(&config),
            names: vec!["ghcr.io/x/y:latest".to_owned()]
        }]
    );
}

/// An image that somebody signed, and another configuration of the same size that nobody did: the archive would have the one taken for the other.
#[test]
fn no_archive_borrows_the_documents_of_another_image() {
    if !root("no_archive_borrows_the_documents_of_another_image") {
        return;
    }
    let ground = Ground::new();
    let layer = TarBuilder::new().file("app", b"app").finish();
    let bytes = |entrypoint: &str| {
        config(
            std::slice::from_ref(&layer),
            json!({"config": {"Entrypoint": [entrypoint]}}),
        )
    };
    let (authentic, evil) = (bytes("/good"), bytes("/evil"));
    assert_eq!(authentic.len(), evil.len());
    let mut layout = Layout::default();
    let manifest = layout.image(&authentic, &[(TAR, layer.clone())]);
    let index = layout.index(vec![manifest]);
    let own = layout.image(&evil, &[(TAR, layer.clone())]);
    let name = json!({"io.containerd.image.name": "reg.example/acme/app:1"});
    layout.top(own, name.clone());
    layout.top(index, name);
    let honest = layout.finish();
    let twice = TarBuilder::new()
        .file("x", &authentic)
        .file("x", &evil)
        .unfinished();
    let crafted = [twice, honest.clone()].concat();
    ground.refused("two members of one name", &crafted, "two members \"x\"");
    // The same member again is what some tools write.
    let again = TarBuilder::new()
        .file("x", &authentic)
        .file("x", &authentic)
        .unfinished();
    load(&ground.store, &[again, honest].concat()).expect("loaded");
    let (good, bad) = (Digest::of(&authentic), Digest::of(&evil));
    assert_eq!(ground.store.repositories(&bad), Vec::<String>::new());
    assert_eq!(ground.store.repositories(&good), ["reg.example/acme/app"]);
}
