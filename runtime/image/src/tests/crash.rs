//! Death at every step. A child process dies at the n-th fault point of a load or a removal; its parent then finds the old or the new, and
//! nothing else.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use super::build::{TarBuilder, config, docker_archive};
use super::root;
use super::store::{inventory, load};
use crate::*;

/// Tells the child where to work and on what.
const CHILD: &str = "KAKOI_IMAGE_CRASH_CHILD";
const FAULT: &str = "KAKOI_IMAGE_FAULT";

fn nobody(_: &Digest) -> Vec<Use> {
    Vec::new()
}

fn archive(name: &str) -> Vec<u8> {
    let shared = TarBuilder::new().file("shared", b"in both").finish();
    let own = TarBuilder::new()
        .dir("d/", 0o755)
        .file("d/own", name.as_bytes())
        .finish();
    let layers = vec![shared, own];
    docker_archive(&config(&layers, json!({"author": name})), &layers, &[name])
}

fn step(root: &Path, step: &str) {
    let store = ImageStore::open(root).expect("open");
    match step {
        "load" => drop(load(&store, &archive("new")).expect("loaded")),
        "remove" => drop(store.remove("old", false, &nobody).expect("removed")),
        "replace" => {
            load(&store, &archive("new")).expect("loaded");
            store.remove("old", false, &nobody).expect("removed");
            store.tag("new", "old").expect("tagged");
        }
        other => panic!("unknown step {other}"),
    }
}

/// What the child of the test below does; without its variable, as in an ordinary run, it checks that every step goes through uncut.
#[test]
fn steps_in_a_child() {
    if let Ok(task) = std::env::var(CHILD) {
        let (name, dir) = task.split_once(' ').expect("step and folder");
        return step(Path::new(dir), name);
    }
    if !root("steps_in_a_child") {
        return;
    }
    for name in ["load", "remove", "replace"] {
        let dir = tempfile::tempdir().expect("folder");
        load(&ImageStore::open(dir.path()).expect("open"), &archive("old")).expect("loaded");
        step(dir.path(), name);
    }
}

fn is_whole(store: &ImageStore, name: &str) -> bool {
    let Ok(image) = store.resolve(name) else {
        return false;
    };
    assert_eq!(image.layers.len(), 2);
    let author = &image.document.author;
    assert_eq!(
        std::fs::read(image.layers[0].join("d/own")).expect("own"),
        author.as_bytes()
    );
    assert_eq!(
        std::fs::read(image.layers[1].join("shared")).expect("shared"),
        b"in both"
    );
    let mut saved = Vec::new();
    store
        .save(&[name.to_owned()], ArchiveFormat::Docker, &mut saved)
        .expect("every blob is whole");
    true
}

#[test]
fn death_at_any_step_leaves_the_old_or_the_new() {
    if !root("death_at_any_step_leaves_the_old_or_the_new") {
        return;
    }
    for name in ["load", "remove", "replace"] {
        let mut died = 0;
        loop {
            let dir = tempfile::tempdir().expect("folder");
            load(&ImageStore::open(dir.path()).expect("open"), &archive("old")).expect("loaded");
            let status = Command::new(std::env::current_exe().expect("own program"))
                .args(["--exact", "tests::crash::steps_in_a_child"])
                .env(CHILD, format!("{name} {}", dir.path().display()))
                .env(FAULT, died.to_string())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .expect("child");
            let store = ImageStore::open(dir.path()).expect("opens by itself");
            let (old, new) = (is_whole(&store, "old"), is_whole(&store, "new"));
            match name {
                "load" => assert!(old, "the old image is untouched"),
                "remove" => assert!(!new),
                _ => assert!(old || new, "one of both is there"),
            }
            let images = store.list().expect("list");
            // Whatever no image names is gone: as many unpacked layers as images, and the shared one.
            let layers = inventory(dir.path())
                .iter()
                .filter(|name| name.starts_with("layers/"))
                .count();
            assert_eq!(
                layers,
                if images.is_empty() { 0 } else { images.len() + 1 },
                "{name} {died}"
            );
            assert!(
                !inventory(dir.path())
                    .iter()
                    .any(|name| name.starts_with("staging/")),
                "{name} {died}"
            );
            load(&store, &archive("new")).expect("the next load completes");
            assert!(is_whole(&store, "new"));
            if status.success() {
                assert!(if name == "load" { new } else { true });
                break;
            }
            died += 1;
        }
        assert!(died >= 5, "{name} has only {died} fault points");
    }
}
