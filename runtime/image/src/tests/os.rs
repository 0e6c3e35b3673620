//! Operating systems' images as files: what `kakoi os pack` writes, and what a stranger makes of it.

use std::io::Read;

use kakoi_trust::{OsConfig, OsManifest, OsPart, Version, os_config, os_manifest};
use serde_json::json;

use super::build::TarBuilder;
use crate::*;

struct Made {
    manifest: Vec<u8>,
    config: Vec<u8>,
    index: Vec<u8>,
    image: Vec<u8>,
}

fn made() -> Made {
    let image = vec![7; 8192];
    let index = [[1; 32], [2; 32]].concat();
    let part = |bytes: &[u8]| OsPart {
        digest: kakoi_trust::Digest::of(bytes),
        bytes: bytes.len() as u64,
    };
    let version = Version::parse("1.2").expect("a version");
    let config = os_config(&OsConfig {
        version: version.clone(),
        board: "gw".into(),
        compatible: vec!["gw".into()],
        bytes: 8192,
        block_bytes: 4096,
        index: part(&index).digest,
    });
    let manifest = OsManifest {
        config: part(&config),
        index: part(&index),
        image: part(&image),
    };
    Made {
        manifest: os_manifest(&manifest, &version),
        config,
        index,
        image,
    }
}

fn name(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", Digest::of(bytes).hex())
}

fn listed(manifests: &[&[u8]]) -> Vec<u8> {
    let listed: Vec<_> = manifests
        .iter()
        .map(|manifest| json!({"mediaType": "x", "digest": Digest::of(manifest), "size": manifest.len()}))
        .collect();
    json!({"schemaVersion": 2, "manifests": listed})
        .to_string()
        .into_bytes()
}

fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = TarBuilder::new();
    for (name, bytes) in members {
        builder = builder.file(name, bytes);
    }
    builder.finish()
}

#[test]
fn documents_come_first_and_the_image_as_a_stream() {
    let made = made();
    let payload = b"payload".to_vec();
    let signature =
        json!({"schemaVersion": 2, "config": {"mediaType": "x", "digest": Digest::of(b"{}"), "size": 2},
        "layers": [{"mediaType": "sig", "digest": Digest::of(&payload), "size": payload.len()}]})
        .to_string()
        .into_bytes();
    let index = listed(&[&made.manifest, &signature]);
    let archive = tar(&[
        ("oci-layout", b"{}"),
        ("index.json", &index),
        (&name(&made.manifest), &made.manifest),
        (&name(&made.config), &made.config),
        (&name(&signature), &signature),
        (&name(&payload), &payload),
        (&name(&made.index), &made.index),
        (&name(&made.image), &made.image),
    ]);
    let mut read = OsArchive::open(&archive[..]).expect("an archive");
    assert_eq!(read.documents.digest, Digest::of(&made.manifest));
    assert_eq!(
        (read.index.clone(), read.referrers.len()),
        (made.index.clone(), 1)
    );
    assert_eq!(read.attached[0].payload, payload);
    let mut image = Vec::new();
    read.image().read_to_end(&mut image).expect("read");
    assert_eq!(image, made.image);
}

#[test]
fn what_is_no_such_archive_is_refused() {
    let made = made();
    let index = listed(&[&made.manifest]);
    let (manifest, config, blocks, image) = (
        name(&made.manifest),
        name(&made.config),
        name(&made.index),
        name(&made.image),
    );
    let whole: Vec<(&str, &[u8])> = vec![
        ("index.json", &index),
        (&manifest, &made.manifest),
        (&config, &made.config),
        (&blocks, &made.index),
        (&image, &made.image),
    ];
    let refused =
        |members: &[(&str, &[u8])]| OsArchive::open(&tar(members)[..]).map(drop).expect_err("refused");
    assert!(OsArchive::open(&tar(&whole)[..]).is_ok());
    for without in 0..whole.len() {
        let mut members = whole.clone();
        members.remove(without);
        assert!(
            matches!(refused(&members), ArtifactError::Missing(_)),
            "without {without}"
        );
    }
    // The image ahead of what it is judged by is one more member that is held, and then nothing names the rest.
    let mut members = whole.clone();
    members.swap(1, 4);
    assert!(matches!(refused(&members), ArtifactError::Missing(_)));
    let mut tampered = made.config.clone();
    tampered[20] ^= 1;
    let mut members = whole.clone();
    members[2].1 = &tampered;
    assert!(matches!(refused(&members), ArtifactError::Damaged { .. }));
    let mut members = whole.clone();
    members[0].1 = b"no json";
    assert!(matches!(refused(&members), ArtifactError::Index(_)));
    let archive = tar(&whole);
    assert!(matches!(
        OsArchive::open(&archive[..1000]).map(drop),
        Err(ArtifactError::Tar(_))
    ));
}

/// Nothing that the archive says makes more of it come into memory than is bounded.
#[test]
fn what_is_large_is_not_held() {
    let mut header = tar(&[("blobs/x", b"")])[..512].to_vec();
    header[124..136].copy_from_slice(b"77777777777\0");
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let refused = OsArchive::open(&header[..]).map(drop);
    assert!(matches!(refused, Err(ArtifactError::Order(_))), "{refused:?}");
}
