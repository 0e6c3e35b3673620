//! Against the tools that people use: GNU tar, skopeo, umoci, podman. A tool that is not there is said to be missing, and is needed where
//! `KAKOI_TEST_REQUIRE=root` demands everything (podman excepted: it is large, and skopeo reads archives with the same code).

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::build::{TarBuilder, config, docker_archive};
use super::root;
use super::store::load;
use crate::*;

fn has(tool: &str, needed: bool) -> bool {
    if Command::new(tool)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
    {
        return true;
    }
    crate::required::leave_out(
        if needed { "root" } else { tool },
        &format!("{tool} is not installed"),
    );
    false
}

fn run(dir: &Path, tool: &str, arguments: &[&str]) -> String {
    let output = Command::new(tool)
        .args(arguments)
        .current_dir(dir)
        .output()
        .expect(tool);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{tool} {arguments:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned() + &stderr
}

fn save(store: &ImageStore, name: &str, format: ArchiveFormat, path: &Path) {
    let mut file = fs::File::create(path).expect("file");
    store.save(&[name.to_owned()], format, &mut file).expect("saved");
}

/// An image with a bit of everything, loaded; and its id.
fn sample(store: &ImageStore) -> Digest {
    let base = TarBuilder::new()
        .dir("bin/", 0o755)
        .raw(b'0', b"bin/su", b"", 0o4755, b"program")
        .hard_link("bin/su2", "bin/su")
        .symlink("sbin", "bin")
        .file("gone", b"x")
        .finish();
    let top = TarBuilder::new()
        .file(".wh.gone", b"")
        .dir("var/", 0o700)
        .file("var/.wh..wh..opq", b"")
        .finish();
    let layers = vec![base, top];
    load(
        store,
        &docker_archive(&config(&layers, json!({})), &layers, &["sample:1"]),
    )
    .expect("loaded")[0]
        .id
        .clone()
}

#[test]
fn skopeo_reads_what_we_save_and_we_read_what_it_writes() {
    if !root("skopeo") || !has("skopeo", true) {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let dir = dir.path();
    let store = ImageStore::open(&dir.join("a")).expect("open");
    let id = sample(&store);
    save(&store, "sample:1", ArchiveFormat::Docker, &dir.join("docker.tar"));
    save(&store, "sample:1", ArchiveFormat::Oci, &dir.join("oci.tar"));
    let oci = "oci-archive:oci.tar:docker.io/library/sample:1";
    for source in [
        "docker-archive:docker.tar",
        "docker-archive:docker.tar:sample:1",
        oci,
    ] {
        let inspected: Value =
            serde_json::from_str(&run(dir, "skopeo", &["inspect", "--config", source])).expect("json");
        assert_eq!(
            inspected["rootfs"]["diff_ids"].as_array().map(Vec::len),
            Some(2),
            "{source}"
        );
    }
    let policy = "--insecure-policy";
    let diff_ids =
        |store: &ImageStore, name: &str| store.inspect(name).expect("found").document.rootfs.diff_ids;
    // Between formats skopeo writes the configuration anew, and with it the id; layers are the same in any case.
    for (number, (from, to, same_id)) in [
        (
            "docker-archive:docker.tar",
            "docker-archive:s1.tar:sample:2",
            true,
        ),
        (
            "docker-archive:docker.tar",
            "oci-archive:s1.tar:localhost/sample:2",
            false,
        ),
        (oci, "oci-archive:s1.tar:localhost/sample:2", true),
        (oci, "docker-archive:s1.tar:sample:2", false),
    ]
    .into_iter()
    .enumerate()
    {
        fs::remove_file(dir.join("s1.tar")).ok();
        run(dir, "skopeo", &[policy, "copy", from, to]);
        let other = ImageStore::open(&dir.join(format!("b{number}"))).expect("open");
        let loaded = load(&other, &fs::read(dir.join("s1.tar")).expect("archive")).expect(to);
        assert!(!same_id || loaded[0].id == id, "{from} {to}");
        assert_eq!(loaded[0].names.len(), 1, "{from} {to}");
        assert_eq!(
            diff_ids(&other, &loaded[0].names[0]),
            diff_ids(&store, "sample:1"),
            "{from} {to}"
        );
    }
    // Packed by skopeo, and the same image all the same.
    run(
        dir,
        "skopeo",
        &[
            policy,
            "copy",
            "--dest-compress-format",
            "zstd",
            oci,
            "oci-archive:z.tar:x/y:z",
        ],
    );
    let other = ImageStore::open(&dir.join("z")).expect("open");
    let loaded = load(&other, &fs::read(dir.join("z.tar")).expect("archive")).expect("zstd");
    assert_eq!(
        (&loaded[0].id, &loaded[0].names[..]),
        (&id, &["x/y:z".to_owned()][..])
    );
}

#[test]
fn umoci_unpacks_what_we_save() {
    if !root("umoci") || !has("umoci", true) {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let dir = dir.path();
    let store = ImageStore::open(&dir.join("a")).expect("open");
    sample(&store);
    save(&store, "sample:1", ArchiveFormat::Docker, &dir.join("both.tar"));
    fs::create_dir(dir.join("layout")).expect("folder");
    run(dir, "tar", &["-xf", "both.tar", "-C", "layout"]);
    run(dir, "umoci", &["unpack", "--image", "layout:1", "bundle"]);
    let rootfs = dir.join("bundle/rootfs");
    assert_eq!(fs::read(rootfs.join("sbin/su2")).expect("file"), b"program");
    assert!(!rootfs.join("gone").exists() && rootfs.join("var").is_dir());
}

#[test]
fn podman_loads_what_we_save_and_we_load_what_it_saves() {
    if !root("podman") || !has("podman", false) {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let dir = dir.path();
    let store = ImageStore::open(&dir.join("a")).expect("open");
    let id = sample(&store);
    let (graph, state) = (dir.join("graph"), dir.join("run"));
    let podman = |arguments: &[&str]| {
        let options = [
            "--root",
            graph.to_str().expect("text"),
            "--runroot",
            state.to_str().expect("text"),
        ];
        let options = [&options[..], &["--storage-driver", "vfs"], arguments].concat();
        run(dir, "podman", &options)
    };
    for (number, format) in [ArchiveFormat::Docker, ArchiveFormat::Oci]
        .into_iter()
        .enumerate()
    {
        save(&store, "sample:1", format, &dir.join("ours.tar"));
        podman(&["load", "-q", "-i", "ours.tar"]);
        assert_eq!(
            podman(&["image", "inspect", "--format", "{{.Id}}", "sample:1"]).trim(),
            id.hex(),
            "{format:?}"
        );
        for (kind, theirs) in [("docker-archive", "d.tar"), ("oci-archive", "o.tar")] {
            fs::remove_file(dir.join(theirs)).ok();
            podman(&["save", "-q", "--format", kind, "-o", theirs, "sample:1"]);
            let other = ImageStore::open(&dir.join(format!("b{number}{kind}"))).expect("open");
            let loaded = load(&other, &fs::read(dir.join(theirs)).expect("archive")).expect(kind);
            assert_eq!(
                (&loaded[0].id, &loaded[0].names[..]),
                (&id, &["sample:1".to_owned()][..]),
                "{kind}"
            );
        }
        podman(&["rmi", "-f", "sample:1"]);
    }
}

/// GNU tar makes sparse files, long names, attributes and hard links of its own; what it packs is what is unpacked.
#[test]
fn gnu_tar_is_read_in_all_its_formats() {
    if !root("tar") || !has("tar", true) {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let dir = dir.path();
    let source = dir.join("source");
    fs::create_dir_all(source.join("d".repeat(120)).join("e".repeat(120))).expect("folders");
    fs::write(
        source.join("d".repeat(120)).join("e".repeat(120)).join("f"),
        b"deep",
    )
    .expect("file");
    fs::write(source.join("a"), b"a").expect("file");
    fs::hard_link(source.join("a"), source.join("b")).expect("link");
    std::os::unix::fs::symlink("x".repeat(300), source.join("l")).expect("link");
    let sparse = fs::File::create(source.join("sparse")).expect("file");
    for number in 0..60u64 {
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"data", number * 65536).expect("written");
    }
    sparse.set_len(8 << 20).expect("hole at the end");
    drop(sparse);
    for format in ["gnu", "oldgnu", "posix"] {
        for sparse in [
            &[][..],
            &["--sparse", "--sparse-version=0.0"],
            &["--sparse", "--sparse-version=0.1"],
            &["--sparse", "--sparse-version=1.0"],
        ] {
            let format = format!("--format={format}");
            let arguments = [&["-C", "source", "-cf", "made.tar", &format][..], sparse, &["."]].concat();
            run(dir, "tar", &arguments);
            let root = dir.join("store");
            let store = ImageStore::open(&root).expect("open");
            let tar = fs::read(dir.join("made.tar")).expect("archive");
            let options = ImportOptions {
                reference: Some("made".to_owned()),
                ..ImportOptions::default()
            };
            store.import(&tar[..], &options, &mut |_| {}).expect("imported");
            let layer = store.resolve("made").expect("found").layers[0].clone();
            run(
                dir,
                "diff",
                &["-r", "--no-dereference", "source", layer.to_str().expect("text")],
            );
            drop(store);
            fs::remove_dir_all(&root).expect("removed");
        }
    }
}

#[test]
fn a_real_root_file_system_is_imported() {
    if !root("busybox") || !has("tar", true) {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let dir = dir.path();
    // What every machine has: a folder of several hundred files, links and folders.
    run(dir, "tar", &["-cf", "etc.tar", "-C", "/", "etc"]);
    let store = ImageStore::open(&dir.join("store")).expect("open");
    let options = ImportOptions {
        reference: Some("etc:1".to_owned()),
        message: "from the host".to_owned(),
        changes: vec!["CMD [\"cat\"]".to_owned(), "USER 0".to_owned()],
        architecture: None,
    };
    let tar = fs::read(dir.join("etc.tar")).expect("archive");
    let loaded = store.import(&tar[..], &options, &mut |_| {}).expect("imported");
    assert_eq!(loaded.names, ["etc:1"]);
    let image = store.resolve("etc:1").expect("found");
    assert_eq!(
        image.document.config.cmd.as_deref(),
        Some(&["cat".to_owned()][..])
    );
    run(
        dir,
        "diff",
        &[
            "-r",
            "--no-dereference",
            "/etc",
            image.layers[0].join("etc").to_str().expect("text"),
        ],
    );
    assert_eq!(resolve_user(&image.layers, "root", &[]).expect("root").uid, 0);
    let history = store.history("etc:1").expect("history");
    assert_eq!((history.len(), history[0].comment.as_str()), (1, "from the host"));
}
