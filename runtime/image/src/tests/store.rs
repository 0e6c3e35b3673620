//! Loading, resolving, naming and removing.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use serde_json::json;

use super::build::{Layout, TarBuilder, config, docker_archive, gzip, zstd};
use super::root;
use crate::*;

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

fn nobody(_: &Digest) -> Vec<Use> {
    Vec::new()
}

pub(crate) fn load(store: &ImageStore, archive: &[u8]) -> Result<Vec<Loaded>, LoadError> {
    store.load(archive, &mut |_| {})
}

/// What lies in the store's folders, for "nothing was left behind".
pub(crate) fn inventory(root: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for folder in ["blobs/sha256", "layers", "partial", "recipes", "staging"] {
        for entry in fs::read_dir(root.join("images").join(folder)).expect("list") {
            names.push(format!(
                "{folder}/{}",
                entry.expect("entry").file_name().to_string_lossy()
            ));
        }
    }
    names.sort();
    names
}

fn two_layers() -> Vec<Vec<u8>> {
    let base = TarBuilder::new()
        .dir("etc/", 0o755)
        .file("etc/passwd", b"root:x:0:0::/:/bin/sh\n")
        .file("etc/gone", b"x")
        .dir("var/", 0o750)
        .file("var/old", b"x")
        .finish();
    let top = TarBuilder::new()
        .file("etc/.wh.gone", b"")
        .dir("var/", 0o700)
        .file("var/.wh..wh..opq", b"")
        .file("var/new", b"new")
        .finish();
    vec![base, top]
}

#[test]
fn a_docker_archive_becomes_an_image() {
    if !root("a_docker_archive_becomes_an_image") {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let store = ImageStore::open(dir.path()).expect("open");
    let layers = two_layers();
    let config = config(&layers, json!({}));
    let archive = docker_archive(&config, &layers, &["busybox:1", "localhost/x:latest"]);
    for bytes in [archive.clone(), gzip(&archive), zstd(&archive)] {
        let loaded = load(&store, &bytes).expect("loaded");
        assert_eq!(loaded[0].id, Digest::of(&config));
        assert_eq!(loaded[0].names, ["busybox:1", "localhost/x:latest"]);
    }
    let image = store.resolve("docker.io/library/busybox:1").expect("found");
    assert_eq!(image.name.as_deref(), Some("busybox:1"));
    assert_eq!(
        image.document.config.cmd.as_deref(),
        Some(&["/bin/sh".to_owned()][..])
    );
    let [top, base] = &image.layers[..] else {
        panic!("two layers: {:?}", image.layers);
    };
    assert_eq!(fs::read(base.join("etc/gone")).expect("kept below"), b"x");
    let whiteout = fs::symlink_metadata(top.join("etc/gone")).expect("whiteout");
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    assert_eq!(fs::read(top.join("var/new")).expect("file"), b"new");
    assert_eq!(
        fs::metadata(top.join("var")).expect("folder").mode() & 0o7777,
        0o700
    );
    let var = fs::File::open(top.join("var")).expect("folder");
    let opaque = kakoi_sys::xattr::get(std::os::fd::AsFd::as_fd(&var), c"trusted.overlay.opaque", 8);
    assert_eq!(opaque.expect("attribute").as_deref(), Some(&b"y"[..]));
    assert_eq!(
        fs::metadata(top.join("var")).expect("folder").mtime(),
        1_700_000_000
    );
    // Found by any beginning of its id, with the algorithm before it or not.
    let id = image.id.clone();
    for name in [
        id.to_string(),
        id.hex().to_owned(),
        id.hex()[..12].to_owned(),
        format!("sha256:{}", &id.hex()[..5]),
    ] {
        assert_eq!(store.resolve(&name).expect("found").id, id, "{name}");
    }
    assert!(
        matches!(store.resolve("nope"), Err(StoreError::Resolve(ResolveError::NotFound { name })) if name == "nope:latest")
    );
    assert!(matches!(
        store.resolve("../etc"),
        Err(StoreError::Resolve(ResolveError::Invalid { .. }))
    ));

    let before = inventory(dir.path());
    drop(store);
    let store = ImageStore::open(dir.path()).expect("open again");
    assert_eq!(inventory(dir.path()), before);
    assert!(store.resolve("busybox:1").is_ok());
    assert!(matches!(
        ImageStore::open(dir.path()),
        Err(StoreError::Locked { .. })
    ));
    store.remove("busybox:1", false, &nobody).expect("untagged");
    let removed = store.remove("localhost/x", false, &nobody).expect("removed");
    assert_eq!(
        removed[..2],
        [
            Removed::Untagged("localhost/x:latest".to_owned()),
            Removed::Deleted(id)
        ]
    );
    assert_eq!(removed.len(), 4);
    assert!(inventory(dir.path()).is_empty(), "{:?}", inventory(dir.path()));
}

#[test]
fn an_oci_layout_becomes_an_image() {
    if !root("an_oci_layout_becomes_an_image") {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let store = ImageStore::open(dir.path()).expect("open");
    let layers = two_layers();
    let config = config(&layers, json!({}));
    let mut layout = Layout::default();
    let mut ours = layout.image(&config, &[(GZIP, gzip(&layers[0])), (ZSTD, zstd(&layers[1]))]);
    ours["platform"] = json!({"architecture": architecture(), "os": "linux"});
    let mut other = ours.clone();
    other["digest"] = json!(Digest::of(b"not here").to_string());
    other["platform"] = json!({"architecture": "s390x", "os": "linux"});
    let index = layout.index(vec![other, ours]);
    let index = layout.index(vec![index]);
    layout.top(
        index,
        json!({"org.opencontainers.image.ref.name": "quay.io/some/app:2"}),
    );
    let loaded = load(&store, &layout.finish()).expect("loaded");
    assert_eq!(
        loaded,
        [Loaded {
            id: Digest::of(&config),
            names: vec!["quay.io/some/app:2".to_owned()]
        }]
    );
    assert_eq!(
        store.resolve("quay.io/some/app:2").expect("found").layers.len(),
        2
    );
}

/// Uses of images that a test invents.
fn used(by: &str, running: bool) -> impl Fn(&Digest) -> Vec<Use> {
    let by = by.to_owned();
    move |_| {
        vec![Use {
            container: by.clone(),
            running,
        }]
    }
}

#[test]
fn removal_follows_dockers_rules() {
    if !root("removal_follows_dockers_rules") {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let store = ImageStore::open(dir.path()).expect("open");
    let layers = two_layers();
    let archive = docker_archive(&config(&layers, json!({})), &layers, &["a:1"]);
    let fresh = || load(&store, &archive).expect("loaded")[0].id.clone();
    let id = fresh();
    let hex = id.hex().to_owned();
    let untagged = |name: &str| Removed::Untagged(name.to_owned());

    // A name among several goes alone, used or not.
    store.tag("a:1", "b:2").expect("tagged");
    assert_eq!(
        store.remove("b:2", false, &used("c", true)).expect("untagged"),
        [untagged("b:2")]
    );
    // The last one does not, while a container needs it; forced, it does, and the image stays.
    let container = "0123456789abcdef";
    for running in [true, false] {
        let error = store
            .remove("a:1", false, &used(container, running))
            .expect_err("in use");
        let text = format!(
            "conflict: unable to remove repository reference \"a:1\" (must force) - container 0123456789ab is using its referenced image {}",
            &hex[..12]
        );
        assert_eq!((error.to_string(), error.is_conflict()), (text, true));
    }
    assert_eq!(
        store.remove("a:1", true, &used(container, true)).expect("forced"),
        [untagged("a:1")]
    );
    assert_eq!(store.list().expect("list")[0].repo_tags, [""; 0]);
    // By id: never while it runs, by force while it is stopped.
    let error = store
        .remove(&hex, true, &used(container, true))
        .expect_err("running");
    assert_eq!(
        error.to_string(),
        format!(
            "conflict: unable to delete {} (cannot be forced) - image is being used by running container 0123456789ab",
            &hex[..12]
        )
    );
    let error = store
        .remove(&hex, false, &used(container, false))
        .expect_err("stopped");
    assert!(
        error
            .to_string()
            .contains("(must be forced) - image is being used by stopped container")
    );
    let files = store.resolve(&hex).expect("found").layers;
    assert_eq!(
        store.remove(&hex, true, &used(container, false)).expect("forced"),
        [Removed::Deleted(id.clone())]
    );
    assert!(store.resolve(&hex).is_err() && store.list().expect("list").is_empty());
    assert!(
        files.iter().all(|layer| layer.is_dir()),
        "the stopped container keeps its files"
    );
    store.release(&used(container, false)).expect("still used");
    assert!(files[0].is_dir());
    store.release(&nobody).expect("released");
    assert!(inventory(dir.path()).is_empty());

    // Loaded again while it was only hidden, it is there again.
    fresh();
    store
        .remove("a:1", true, &used(container, false))
        .expect("forced");
    fresh();
    store.release(&nobody).expect("nothing to release");
    assert!(store.resolve("a:1").is_ok());
    // By id with several names only by force.
    store.tag("a:1", "b:2").expect("tagged");
    assert!(matches!(
        store.remove(&hex, false, &nobody),
        Err(RemoveError::SeveralNames { .. })
    ));
    let removed = store.remove(&hex, true, &nobody).expect("forced");
    assert_eq!(
        removed[..3],
        [untagged("a:1"), untagged("b:2"), Removed::Deleted(id)]
    );
    assert!(matches!(
        store.remove("a:1", true, &nobody),
        Err(RemoveError::Store(StoreError::Resolve(_)))
    ));
}

#[test]
fn names_move_and_dangling_images_are_pruned() {
    if !root("names_move_and_dangling_images_are_pruned") {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let store = ImageStore::open(dir.path()).expect("open");
    let layers = two_layers();
    let first = docker_archive(&config(&layers, json!({})), &layers, &["app"]);
    let newer = config(
        &layers[..1],
        json!({"created": "2026-06-01T00:00:00Z", "config": {"Labels": {"k": "v"}}}),
    );
    let second = docker_archive(&newer, &layers[..1], &["app"]);
    let old = load(&store, &first).expect("loaded")[0].id.clone();
    let new = load(&store, &second).expect("loaded")[0].id.clone();
    assert_eq!(store.resolve("app").expect("found").id, new);
    let list = store.list().expect("list");
    assert_eq!(
        list.iter().map(|summary| &summary.id).collect::<Vec<_>>(),
        [&new, &old],
        "the newest first"
    );
    assert_eq!(
        (&list[0].repo_tags[..], &list[1].repo_tags[..]),
        (&["app:latest".to_owned()][..], &[][..])
    );
    // The base has 22 + 1 + 1 bytes of files and is in both; the top adds 3.
    assert_eq!(
        (
            list[0].size,
            list[0].shared_size,
            list[1].size,
            list[1].shared_size
        ),
        (24, 24, 27, 24)
    );
    assert_eq!(
        (list[0].created_seconds, list[0].labels["k"].as_str()),
        (1_780_272_000, "v")
    );
    assert!(store.tag("app", "App").is_err() && store.tag("nope", "x").is_err());
    assert_eq!(store.prune(false, &used("c", false)).expect("in use").removed, []);
    let pruned = store.prune(false, &nobody).expect("pruned");
    assert_eq!(
        (pruned.removed.len(), pruned.reclaimed_bytes),
        (2, 3),
        "{pruned:?}"
    );
    assert!(store.resolve("app").is_ok() && store.resolve(old.hex()).is_err());
    assert_eq!(
        store.untag("app").expect("untagged"),
        [Removed::Untagged("app:latest".to_owned())]
    );
    store.prune(true, &nobody).expect("pruned");
    assert!(inventory(dir.path()).is_empty());
    assert_eq!(store.disk_usage().expect("usage"), DiskUsage::default());
}

#[test]
fn details_and_history_are_told() {
    if !root("details_and_history_are_told") {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let store = ImageStore::open(dir.path()).expect("open");
    let layers = two_layers();
    let history = json!([
        {"created": "2026-01-01T00:00:00Z", "created_by": "ADD file:1"},
        {"created": "2026-01-02T00:00:00Z", "created_by": "ENV A=1", "empty_layer": true},
        {"created": "2026-01-03T00:00:00.5Z", "created_by": "COPY x", "comment": "buildkit"},
    ]);
    let bytes = config(
        &layers,
        json!({"history": history, "variant": "v2", "author": "me"}),
    );
    let id = load(&store, &docker_archive(&bytes, &layers, &["x:1", "x:2"])).expect("loaded")[0]
        .id
        .clone();
    let entry = |created_seconds, created_by: &str, size, comment: &str| HistoryEntry {
        id: None,
        created_seconds,
        created_by: created_by.to_owned(),
        tags: Vec::new(),
        size,
        comment: comment.to_owned(),
    };
    let newest = HistoryEntry {
        id: Some(id.clone()),
        tags: vec!["x:1".to_owned(), "x:2".to_owned()],
        ..entry(1_767_398_400, "COPY x", 3, "buildkit")
    };
    let expected = [
        newest,
        entry(1_767_312_000, "ENV A=1", 0, ""),
        entry(1_767_225_600, "ADD file:1", 24, ""),
    ];
    assert_eq!(store.history("x:2").expect("history"), expected);
    let details = store.inspect(id.hex()).expect("details");
    assert_eq!(
        (
            details.document.variant.as_str(),
            details.document.author.as_str()
        ),
        ("v2", "me")
    );
    assert_eq!(
        details.document.rootfs.diff_ids,
        [Digest::of(&layers[0]), Digest::of(&layers[1])]
    );
    assert_eq!(details.summary, store.list().expect("list")[0]);
    assert_eq!(details.summary.repo_digests, [""; 0]);
}

#[test]
fn what_is_saved_loads_as_the_same() {
    if !root("what_is_saved_loads_as_the_same") {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let store = ImageStore::open(dir.path()).expect("open");
    let layers = two_layers();
    load(
        &store,
        &docker_archive(
            &config(&layers, json!({})),
            &layers,
            &["plain:1", "quay.io/q/plain:2"],
        ),
    )
    .expect("loaded");
    let packed = config(&layers[..1], json!({"author": "packed"}));
    let mut layout = Layout::default();
    let descriptor = layout.image(&packed, &[(GZIP, gzip(&layers[0]))]);
    layout.top(
        descriptor,
        json!({"io.containerd.image.name": "docker.io/library/packed:1"}),
    );
    load(&store, &layout.finish()).expect("loaded");
    let names = ["plain:1", "quay.io/q/plain:2", "packed:1"].map(str::to_owned);
    for format in [ArchiveFormat::Docker, ArchiveFormat::Oci] {
        let mut saved = Vec::new();
        store.save(&names, format, &mut saved).expect("saved");
        let other_dir = tempfile::tempdir().expect("folder");
        let other = ImageStore::open(other_dir.path()).expect("open");
        assert_eq!(load(&other, &saved).expect("loaded").len(), 2);
        for name in &names {
            let (here, there) = (
                store.inspect(name).expect("here"),
                other.inspect(name).expect("there"),
            );
            assert_eq!(here.summary.id, there.summary.id, "{name}");
            // A layer that came packed goes out as its tar.
            assert_eq!(here.manifest == there.manifest, name != "packed:1", "{name}");
            assert_eq!(here.summary.size, there.summary.size);
        }
        let mut again = Vec::new();
        other.save(&names, format, &mut again).expect("saved again");
        assert_eq!(saved, again, "the same images make the same bytes");
        assert_eq!(inventory(dir.path()).len(), inventory(other_dir.path()).len());
    }
    // By id no name goes along.
    let mut saved = Vec::new();
    let id = store.inspect("plain:1").expect("found").summary.id;
    store
        .save(&[id.hex()[..12].to_owned()], ArchiveFormat::Docker, &mut saved)
        .expect("saved");
    let other_dir = tempfile::tempdir().expect("folder");
    let loaded = load(&ImageStore::open(other_dir.path()).expect("open"), &saved).expect("loaded");
    assert_eq!(loaded, [Loaded { id, names: vec![] }]);
    assert!(matches!(
        store.save(&[], ArchiveFormat::Oci, &mut Vec::new()),
        Err(SaveError::Nothing)
    ));
    // Damage is noticed on the way out: a file of a layer that is not what it was, and a recipe.
    let is_damaged = || {
        let saved = store.save(&names, ArchiveFormat::Oci, &mut Vec::new());
        assert!(matches!(saved, Err(SaveError::Damaged { .. })), "{saved:?}");
    };
    let file = store.resolve("packed:1").expect("found").layers[0].join("etc/passwd");
    let good = fs::read(&file).expect("file");
    for bad in [
        &b"root::0:0::/:/bin/sh\nx\n"[..],
        &good[1..],
        &[&good[..], b"more"].concat()[1..],
    ] {
        fs::write(&file, bad).expect("written");
        is_damaged();
    }
    fs::write(&file, good).expect("written");
    store
        .save(&names, ArchiveFormat::Oci, &mut Vec::new())
        .expect("whole");
    for recipe in fs::read_dir(dir.path().join("images/recipes")).expect("list") {
        let path = recipe.expect("recipe").path();
        let bytes = fs::read(&path).expect("recipe");
        let mut flipped = bytes.clone();
        let middle = bytes.len() / 2;
        flipped[middle] ^= 1;
        let mut short = bytes.clone();
        short[8] ^= 1;
        for bad in [&bytes[..bytes.len() - 5], b"", &flipped, &short] {
            fs::write(&path, bad).expect("written");
            is_damaged();
        }
        fs::write(&path, bytes).expect("written");
    }
}

/// Loads and removals of images that share a layer, at once: what is there at the end is whole, and nothing else is there.
#[test]
fn work_at_once_takes_nothing_from_each_other() {
    if !root("work_at_once_takes_nothing_from_each_other") {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let store = ImageStore::open(dir.path()).expect("open");
    let archive = |number: usize| {
        let own = TarBuilder::new()
            .file("own", number.to_string().as_bytes())
            .finish();
        let layers = vec![two_layers()[0].clone(), own];
        docker_archive(
            &config(&layers, json!({"author": number.to_string()})),
            &layers,
            &[&format!("n:{number}")],
        )
    };
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (store, archive) = (&store, archive(number));
            scope.spawn(move || {
                let name = format!("n:{number}");
                for _ in 0..10 {
                    load(store, &archive).expect("loaded");
                    let image = store.resolve(&name).expect("whole");
                    assert_eq!(
                        fs::read(image.layers[0].join("own")).expect("own"),
                        number.to_string().as_bytes()
                    );
                    assert!(image.layers[1].join("etc/passwd").exists());
                    store
                        .save(
                            std::slice::from_ref(&name),
                            ArchiveFormat::Oci,
                            &mut std::io::sink(),
                        )
                        .expect("saved");
                    store.remove(&name, false, &nobody).expect("removed");
                }
                load(store, &archive).expect("loaded");
            });
        }
    });
    assert_eq!(store.list().expect("list").len(), 4);
    assert_eq!(
        inventory(dir.path())
            .iter()
            .filter(|name| name.starts_with("layers/"))
            .count(),
        5
    );
    store.prune(true, &nobody).expect("pruned");
    assert!(inventory(dir.path()).is_empty());
}

/// The kernel as judge: what overlayfs makes of the folders.
#[test]
fn overlayfs_shows_what_the_layers_say() {
    if !root("overlayfs_shows_what_the_layers_say") {
        return;
    }
    let mut layers = two_layers();
    layers.push(
        TarBuilder::new()
            // A folder that lower layers fill becomes a file, a file a folder, and a removed folder comes back empty.
            .file("var", b"now a file")
            .dir("etc/passwd/", 0o755)
            .file("etc/passwd/root", b"x")
            .finish(),
    );
    layers.push(
        TarBuilder::new()
            .file(".wh.etc", b"")
            .dir("etc/", 0o755)
            .file("etc/only", b"x")
            .finish(),
    );
    // The lowest layer once more on top: files that were removed are back, as the order says.
    layers.push(layers[0].clone());
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
        let store = ImageStore::open(dir.path()).expect("open");
        let merged = dir.path().join("merged");
        fs::create_dir(&merged).expect("folder");
        let seen = |count: usize| {
            let layers = &layers[..count];
            load(
                &store,
                &docker_archive(&config(layers, json!({})), layers, &["x"]),
            )
            .expect("loaded");
            let lower = store.resolve("x").expect("found").layers;
            let lower: Vec<String> = lower
                .iter()
                .map(|path| path.to_string_lossy().into_owned())
                .collect();
            // A single lowerdir needs an upper one.
            let options = match lower.len() {
                1 => format!(
                    "lowerdir={}:{}",
                    lower[0],
                    dir.path().join("images/staging").display()
                ),
                _ => format!("lowerdir={}", lower.join(":")),
            };
            mount(
                Some("overlay"),
                &merged,
                Some("overlay"),
                MsFlags::MS_RDONLY,
                Some(&options[..]),
            )
            .expect("overlay");
            let mut paths = Vec::new();
            let mut folders = vec![merged.clone()];
            while let Some(folder) = folders.pop() {
                for entry in fs::read_dir(folder).expect("list") {
                    let entry = entry.expect("entry");
                    if entry.file_type().expect("type").is_dir() {
                        folders.push(entry.path());
                    } else {
                        let path = entry.path();
                        paths.push(
                            path.strip_prefix(&merged)
                                .expect("inside")
                                .to_string_lossy()
                                .into_owned(),
                        );
                    }
                }
            }
            nix::mount::umount(&merged).expect("umount");
            paths.sort();
            paths
        };
        assert_eq!(seen(1), ["etc/gone", "etc/passwd", "var/old"]);
        assert_eq!(seen(2), ["etc/passwd", "var/new"]);
        assert_eq!(seen(3), ["etc/passwd/root", "var"]);
        assert_eq!(seen(4), ["etc/only", "var"]);
        assert_eq!(seen(5), ["etc/gone", "etc/only", "etc/passwd", "var/old"]);
    };
    std::thread::scope(|scope| scope.spawn(run).join()).expect("the thread's own assertions");
}

/// Below the low-water mark images without a name go, the longest here first; named ones only where that is wanted; used ones never.
#[test]
fn room_is_made_by_what_nothing_uses() {
    if !root("room_is_made_by_what_nothing_uses") {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let store = ImageStore::open(dir.path()).expect("open");
    let layers = two_layers();
    let image = |author: &str, names: &[&str]| {
        let archive = docker_archive(&config(&layers, json!({"author": author})), &layers, names);
        load(&store, &archive).expect("loaded")[0].id.clone()
    };
    let (first, second) = (image("first", &["x:1"]), image("second", &["x:1"]));
    let (named, used) = (image("named", &["y:1"]), image("used", &[]));
    let uses = |id: &Digest| {
        let user = (*id == used).then(|| Use {
            container: "c".to_owned(),
            running: false,
        });
        user.into_iter().collect::<Vec<_>>()
    };
    let low = |free_bytes, takes_named| LowWater {
        free_bytes,
        takes_named,
    };
    let ids = |store: &ImageStore| -> std::collections::BTreeSet<Digest> {
        store
            .list()
            .expect("list")
            .into_iter()
            .map(|image| image.id)
            .collect()
    };
    // There is room: nothing goes.
    for enough in [low(0, true), low(1, true)] {
        assert_eq!(store.make_room(enough, &uses).expect("looked"), Pruned::default());
    }
    // No disk has so much: all that may go goes, and it ends.
    let made = store.make_room(low(u64::MAX, false), &uses).expect("made");
    assert_eq!(made.removed[0], Removed::Deleted(first));
    assert_eq!(ids(&store), [second.clone(), named.clone(), used.clone()].into());
    let made = store.make_room(low(u64::MAX, true), &uses).expect("made");
    let untagged: Vec<_> = made
        .removed
        .iter()
        .filter(|removed| matches!(removed, Removed::Untagged(_)))
        .collect();
    assert_eq!(
        untagged,
        [
            &Removed::Untagged("x:1".to_owned()),
            &Removed::Untagged("y:1".to_owned())
        ]
    );
    assert_eq!(ids(&store), [used.clone()].into());
    store.check_room(1).expect("looked").expect("there is room");
    let error = store
        .check_room(u64::MAX)
        .expect("looked")
        .expect_err("no disk has so much");
    assert!(error.to_string().contains("kakoi system prune"), "{error}");
}
