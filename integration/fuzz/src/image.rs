//! Names, manifests, archives and layers.
//!
//! What must hold: a name that is read reads the same again; a store that refused something holds nothing of it; an image that was taken in is
//! given out again with the digests that it came with, and goes without a trace.

use std::io;
use std::path::Path;

use kakoi_image::{ArchiveFormat, Digest, ImageStore, ImportOptions, Limits, Reference, client_message};
use serde_json::json;

use super::build::{Layout, TarBuilder, config, docker_archive, gzip, zstd};

/// Small, so that a case is quick and what exceeds them is near. A bomb or a sparse file is refused at a megabyte.
const LIMITS: Limits = Limits {
    layer_bytes_max: 1 << 20,
    layer_entries_max: 500,
    folder_names_bytes_max: 64 << 10,
    expansion_max: 100,
    expansion_free_bytes: 1 << 20,
    archive_entries_max: 200,
    ..Limits::DEVICE
};

/// Longest account of an error: it may name a member or a path of the archive.
const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// The content types under which documents are served.
const KINDS: [&str; 5] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/json",
];

/// Reads an image name; tells whether it is one.
pub fn reference(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let Ok(read) = Reference::parse(text) else {
        return false;
    };
    for shown in [read.to_string(), read.familiar()] {
        assert_eq!(
            Reference::parse(&shown).ok().as_ref(),
            Some(&read),
            "{text:?} as {shown:?}"
        );
        let is_harmless =
            |c: char| c.is_ascii_graphic() && !matches!(c, '\\' | '"' | '\'' | '$' | '%' | '?' | '#');
        assert!(shown.chars().all(is_harmless), "{shown:?}");
        assert!(
            !shown.split(['/', ':', '@']).any(|part| part == ".."),
            "{shown:?}"
        );
    }
    true
}

/// Names to begin with.
pub fn references() -> Vec<Vec<u8>> {
    let digest = Digest::of(b"x");
    let pinned = format!("quay.io/a/b:1@{digest}");
    let names = [
        "busybox",
        "ghcr.io/acme/app:1.2",
        "localhost:5000/a__b/c-d",
        "[::1]:5000/x:Y",
        &pinned,
    ];
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

/// Reads a manifest or index under each content type; tells whether it is one.
pub fn manifest(bytes: &[u8]) -> bool {
    let read = KINDS.map(|kind| kakoi_image::fuzzing::document(bytes, kind, &Limits::DEVICE));
    // No bytes are an image's manifest here and an index there.
    let kinds = read.iter().flatten().collect::<Vec<_>>();
    assert!(kinds.windows(2).all(|two| two[0] == two[1]), "{kinds:?}");
    !kinds.is_empty()
}

/// Manifests to begin with.
pub fn manifests() -> Vec<Vec<u8>> {
    let descriptor = json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(b"x"), "size": 1});
    let mut placed = descriptor.clone();
    placed["platform"] = json!({"os": "linux", "architecture": "arm", "variant": "v7", "os.features": []});
    placed["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let documents = [
        json!({"schemaVersion": 2, "mediaType": KINDS[0], "config": descriptor, "layers": [descriptor, descriptor]}),
        json!({"schemaVersion": 2, "mediaType": KINDS[2], "config": descriptor, "layers": []}),
        json!({"schemaVersion": 2, "mediaType": KINDS[1], "manifests": [descriptor, placed]}),
        json!({"schemaVersion": 2, "manifests": [placed], "subject": descriptor, "artifactType": "x"}),
    ];
    documents
        .iter()
        .map(|document| document.to_string().into_bytes())
        .collect()
}

/// A store that archives and layers are thrown at.
pub struct Store {
    folder: tempfile::TempDir,
    store: ImageStore,
}

impl Default for Store {
    fn default() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the store");
        let store = ImageStore::open_limited(folder.path(), LIMITS).expect("a new store");
        Self { folder, store }
    }
}

impl Store {
    /// Loads an archive; tells whether it was taken in.
    pub fn archive(&self, bytes: &[u8]) -> bool {
        let bytes = with_checksums(bytes);
        self.settle(self.store.load(&bytes[..], &mut |_| {}))
    }

    /// Imports a layer's tar; tells whether it was taken in.
    pub fn layer(&self, bytes: &[u8]) -> bool {
        let bytes = with_checksums(bytes);
        let options = ImportOptions::default();
        self.settle(self.store.import(&bytes[..], &options, &mut |_| {}))
    }

    /// Nothing is left of what was refused, nor of what was taken in, once it has been given out and removed.
    fn settle<T>(&self, outcome: Result<T, impl std::error::Error + 'static>) -> bool {
        match &outcome {
            Ok(_) => self.give_out(),
            Err(error) => {
                let said = client_message(error);
                assert!(!said.contains('\n') && said.len() < MESSAGE_BYTES_MAX, "{said:?}");
            }
        }
        self.is_empty();
        outcome.is_ok()
    }

    /// Gives out every image, whose layers must have their diff ids then, and removes it.
    fn give_out(&self) {
        for image in self.store.list().expect("a whole store") {
            let id = image.id.to_string();
            self.store.resolve(&id).expect("an image that was taken in");
            for format in [ArchiveFormat::Docker, ArchiveFormat::Oci] {
                let saved = self
                    .store
                    .save(std::slice::from_ref(&id), format, &mut io::sink());
                saved.expect("what came in goes out again");
            }
            self.store
                .remove(&id, true, &|_| Vec::new())
                .expect("nothing uses it");
        }
    }

    /// Nothing is left, neither in the store nor beside it.
    fn is_empty(&self) {
        let images = self.folder.path().join("images");
        for folder in ["blobs/sha256", "layers", "partial", "recipes", "staging"] {
            assert_eq!(names(&images.join(folder)), [""; 0], "{folder}");
        }
        assert_eq!(names(self.folder.path()), ["images"]);
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder of the store");
    let name = |entry: io::Result<std::fs::DirEntry>| {
        entry
            .expect("an entry")
            .file_name()
            .to_string_lossy()
            .into_owned()
    };
    entries.map(name).collect()
}

/// Tar headers get the checksums that they should have: a mutation of a header would end at its checksum otherwise, and never get further.
fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    const CHECKSUM: std::ops::Range<usize> = 148..156;
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(512) {
        if &block[257..262] != b"ustar" {
            continue;
        }
        block[CHECKSUM].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[CHECKSUM].copy_from_slice(format!("{sum:07o}\0").as_bytes());
    }
    bytes
}

/// Layers to begin with.
pub fn layers() -> Vec<Vec<u8>> {
    let mut sparse_map = b"2\n0\n4\n1000\n4\n".to_vec();
    sparse_map.resize(512, 0);
    sparse_map.extend_from_slice(b"datadata");
    let plain = TarBuilder::new()
        .dir("etc/", 0o755)
        .file("etc/passwd", b"root:x:0:0::/:/bin/sh\n")
        .raw(b'0', b"etc/su", b"", 0o4755, b"program")
        .hard_link("etc/su2", "etc/su")
        .symlink("lib", "usr/lib")
        .file("lib/../etc/x", b"")
        .finish();
    let marked = TarBuilder::new()
        .file(".wh.gone", b"")
        .dir("var/", 0o700)
        .file("var/.wh..wh..opq", b"")
        .device(b'3', "null", 1, 3)
        .device(b'6', "pipe", 0, 0)
        .finish();
    let noted = TarBuilder::new()
        .pax(&[
            ("path", b"long/name"),
            ("mtime", b"1.5"),
            ("uid", b"70000"),
            ("SCHILY.xattr.user.note", b"value"),
            (
                "SCHILY.xattr.security.capability",
                &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            ),
        ])
        .file("short", b"content")
        .raw(b'L', b"././@LongLink", b"", 0o644, &b"n".repeat(150))
        .file("cut", b"x")
        .finish();
    let sparse = TarBuilder::new()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"sparse"),
            ("GNU.sparse.realsize", b"1004"),
        ])
        .file("GNUSparseFile.0/sparse", &sparse_map)
        .finish();
    let packed = [gzip(&plain), zstd(&marked)];
    [plain, marked, noted, sparse].into_iter().chain(packed).collect()
}

/// Archives to begin with.
pub fn archives() -> Vec<Vec<u8>> {
    let all = layers();
    let two = &all[..2];
    let configuration = config(two, json!({}));
    let docker = docker_archive(&configuration, two, &["a:1", "b:2"]);
    let mut layout = Layout::default();
    let packed = [
        ("application/vnd.oci.image.layer.v1.tar+gzip", gzip(&two[0])),
        ("application/vnd.oci.image.layer.v1.tar+zstd", zstd(&two[1])),
    ];
    let image = layout.image(&configuration, &packed);
    let index = layout.index(vec![image]);
    layout.top(index, json!({"org.opencontainers.image.ref.name": "a:1"}));
    let layout = layout.finish();
    vec![gzip(&docker), docker, layout]
}
