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
    for folder in ["blobs/sha256", "layers", "staging"] {
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
