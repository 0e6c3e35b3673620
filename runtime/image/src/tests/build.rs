//! Builders of layers and archives.

use std::io::Write;

use serde_json::{Value, json};
use tar::{EntryType, Header};

use kakoi_image::Digest;

/// A tar under construction, with no opinion about what makes sense.
#[derive(Clone, Default)]
pub(crate) struct TarBuilder {
    bytes: Vec<u8>,
}

impl TarBuilder {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn dir(self, path: &str, mode: u32) -> Self {
        self.raw(b'5', path.as_bytes(), b"", mode, b"")
    }

    pub(crate) fn file(self, path: &str, body: &[u8]) -> Self {
        self.raw(b'0', path.as_bytes(), b"", 0o644, body)
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.raw(b'2', path.as_bytes(), target.as_bytes(), 0o777, b"")
    }

    pub(crate) fn hard_link(self, path: &str, target: &str) -> Self {
        self.raw(b'1', path.as_bytes(), target.as_bytes(), 0o644, b"")
    }

    pub(crate) fn device(mut self, kind: u8, path: &str, major: u32, minor: u32) -> Self {
        let mut header = header(kind, path.as_bytes(), b"", 0o600, 0);
        header.set_device_major(major).expect("ustar");
        header.set_device_minor(minor).expect("ustar");
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self
    }

    /// PAX records before the next entry.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.raw(b'x', b"pax", b"", 0o644, &body)
    }

    pub(crate) fn raw(mut self, kind: u8, path: &[u8], link: &[u8], mode: u32, body: &[u8]) -> Self {
        let mut header = header(kind, path, link, mode, body.len() as u64);
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.body(body)
    }

    /// Bytes as they are, padded to a block.
    pub(crate) fn body(mut self, body: &[u8]) -> Self {
        self.bytes.extend_from_slice(body);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// What is there so far, without an end.
    pub(crate) fn unfinished(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 1024]);
        self.bytes
    }
}

pub(crate) fn header(kind: u8, path: &[u8], link: &[u8], mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::new(kind));
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_mtime(1_700_000_000);
    let bytes = header.as_mut_bytes();
    let path = &path[..path.len().min(100)];
    bytes[..path.len()].copy_from_slice(path);
    let link = &link[..link.len().min(100)];
    bytes[157..157 + link.len()].copy_from_slice(link);
    header
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("memory")
}

/// A configuration for layers given uncompressed.
pub(crate) fn config(layers: &[Vec<u8>], extra: Value) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    let mut document = json!({
        "created": "2026-01-02T03:04:05Z",
        "architecture": kakoi_image::architecture(),
        "os": "linux",
        "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": layers.iter().map(|_| json!({"created": "2026-01-02T03:04:05Z", "created_by": "/bin/sh -c true"}))
            .collect::<Vec<_>>(),
    });
    for (key, value) in extra.as_object().expect("object") {
        document[key] = value.clone();
    }
    serde_json::to_vec(&document).expect("json")
}

/// A docker-archive as `docker save` before 25 makes it: uncompressed layers under folders of their own.
pub(crate) fn docker_archive(config: &[u8], layers: &[Vec<u8>], tags: &[&str]) -> Vec<u8> {
    let name = format!("{}.json", Digest::of(config).hex());
    let mut tar = TarBuilder::new().file(&name, config);
    let mut names = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let name = format!("layer{number}/layer.tar");
        tar = tar.dir(&format!("layer{number}/"), 0o755).file(&name, layer);
        names.push(name);
    }
    let manifest = json!([{"Config": name, "RepoTags": tags, "Layers": names}]);
    tar.file("manifest.json", &serde_json::to_vec(&manifest).expect("json"))
        .finish()
}

/// An OCI layout under construction.
#[derive(Default)]
pub(crate) struct Layout {
    blobs: Vec<Vec<u8>>,
    top: Vec<Value>,
}

impl Layout {
    pub(crate) fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        self.blobs.push(bytes.to_vec());
        json!({"mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len()})
    }

    pub(crate) fn image(&mut self, config: &[u8], layers: &[(&str, Vec<u8>)]) -> Value {
        let layers: Vec<Value> = layers
            .iter()
            .map(|(media_type, bytes)| self.blob(media_type, bytes))
            .collect();
        let config = self.blob("application/vnd.oci.image.config.v1+json", config);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": layers,
        });
        self.blob(
            "application/vnd.oci.image.manifest.v1+json",
            &serde_json::to_vec(&manifest).expect("json"),
        )
    }

    pub(crate) fn index(&mut self, manifests: Vec<Value>) -> Value {
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        self.blob(
            "application/vnd.oci.image.index.v1+json",
            &serde_json::to_vec(&index).expect("json"),
        )
    }

    pub(crate) fn top(&mut self, mut descriptor: Value, annotations: Value) {
        descriptor["annotations"] = annotations;
        self.top.push(descriptor);
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        let mut tar = TarBuilder::new().dir("blobs/", 0o755).dir("blobs/sha256/", 0o755);
        for blob in &self.blobs {
            tar = tar.file(&format!("blobs/sha256/{}", Digest::of(blob).hex()), blob);
        }
        let index = json!({"schemaVersion": 2, "manifests": self.top});
        tar.file("index.json", &serde_json::to_vec(&index).expect("json"))
            .file("oci-layout", br#"{"imageLayoutVersion": "1.0.0"}"#)
            .finish()
    }
}
