//! Images made on the spot: docker archives of a static busybox, or of whatever hostile entries a test wants.
//!
//! Owns the making of archives; what a good archive is, is Docker's word (`manifest.json`, a configuration, layers as tars).

use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// A layer in the making.
pub struct Layer {
    tar: Builder<Vec<u8>>,
}

impl Default for Layer {
    fn default() -> Self {
        Self::new()
    }
}

impl Layer {
    /// An empty layer.
    pub fn new() -> Self {
        Self {
            tar: Builder::new(Vec::new()),
        }
    }

    /// Adds an entry whose name is written as it is, `..` and leading slashes included: a checked name would not be hostile.
    pub fn entry(mut self, kind: EntryType, name: &str, link: &str, mode: u32, data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        let raw = header.as_gnu_mut().expect("a GNU header was made");
        raw.name[..name.len()].copy_from_slice(name.as_bytes());
        raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(data.len() as u64);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        if kind == EntryType::Char || kind == EntryType::Block {
            header.set_device_major(1).expect("a major number fits");
            header.set_device_minor(1).expect("a minor number fits");
        }
        header.set_cksum();
        self.tar.append(&header, data).expect("writing to memory");
        self
    }

    /// Adds a folder.
    pub fn folder(self, name: &str, mode: u32) -> Self {
        self.entry(EntryType::Directory, name, "", mode, b"")
    }

    /// Adds a file.
    pub fn file(self, name: &str, mode: u32, data: &[u8]) -> Self {
        self.entry(EntryType::Regular, name, "", mode, data)
    }

    /// Adds a symbolic link.
    pub fn link(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, target, 0o777, b"")
    }

    /// The layer's tar.
    pub fn finish(self) -> Vec<u8> {
        self.tar.into_inner().expect("writing to memory")
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 in lower-case hex.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// A docker archive of one image, as `docker save` writes it. `config` is the image's `config` object (`Cmd`, `Env`, `User` …).
pub fn archive(reference: &str, config: &Value, layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<_> = layers
        .iter()
        .map(|layer| format!("sha256:{}", sha256(layer)))
        .collect();
    let architecture = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    let document = json!({
        "architecture": architecture,
        "os": "linux",
        "created": "2023-11-14T22:13:20Z",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": layers.iter().map(|_| json!({ "created": "2023-11-14T22:13:20Z", "created_by": "harness" })).collect::<Vec<_>>(),
    });
    let document = document.to_string().into_bytes();
    let config_name = format!("{}.json", sha256(&document));
    let layer_names: Vec<_> = diff_ids
        .iter()
        .map(|id| format!("{}/layer.tar", id.trim_start_matches("sha256:")))
        .collect();
    let manifest = json!([{ "Config": config_name, "RepoTags": [reference], "Layers": layer_names }]);

    let mut outer = Layer::new().file(&config_name, 0o644, &document);
    for (name, layer) in layer_names.iter().zip(layers) {
        outer = outer.file(name, 0o644, layer);
    }
    outer
        .file("manifest.json", 0o644, manifest.to_string().as_bytes())
        .finish()
}

/// The words that tests use.
const APPLETS: [&str; 49] = [
    "[", "ash", "cat", "chmod", "chown", "cut", "date", "dd", "df", "echo", "env", "false", "grep", "head",
    "hostname", "httpd", "id", "ip", "kill", "ln", "ls", "mkdir", "mount", "mv", "nc", "nproc", "nslookup",
    "ping", "printf", "ps", "pwd", "readlink", "rm", "sed", "seq", "sh", "sleep", "sort", "stat", "stty",
    "tail", "test", "touch", "tr", "true", "umount", "wc", "wget", "yes",
];

/// A root file system of a static busybox with `root`, `app` (1000) and a set-user-ID copy of the attacker.
pub fn busybox_layer(attacker: &Path) -> Vec<u8> {
    let busybox =
        std::fs::read("/bin/busybox").expect("busybox-static is installed (integration/provision test)");
    let attacker = std::fs::read(attacker).expect("the attacker was built with the tests");
    let mut layer = Layer::new();
    for folder in [
        "bin",
        "data",
        "dev",
        "etc",
        "home",
        "home/app",
        "proc",
        "root",
        "run",
        "sys",
        "usr",
        "usr/bin",
        "var",
        "var/empty",
    ] {
        layer = layer.folder(&format!("{folder}/"), 0o755);
    }
    layer = layer.folder("tmp/", 0o1777).file("bin/busybox", 0o755, &busybox);
    for applet in APPLETS {
        layer = layer.link(&format!("bin/{applet}"), "busybox");
    }
    layer
        .file(
            "etc/passwd",
            0o644,
            b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\n",
        )
        .file("etc/group", 0o644, b"root:x:0:\napp:x:1000:\ndialout:x:20:app\n")
        .file("etc/shadow", 0o600, b"root:*:19000:0:99999:7:::\n")
        .file("etc/hosts", 0o644, b"")
        .file("attacker", 0o755, &attacker)
        .file("suid", 0o4755, &attacker)
        // An interpreter line that names the runtime itself (CVE-2019-5736).
        .file("shim-trick", 0o755, b"#!/proc/self/exe\n")
        .finish()
}

/// The usual test image, `busybox:test`.
pub fn busybox(attacker: &Path) -> Vec<u8> {
    let config = json!({ "Cmd": ["sh"], "Env": ["PATH=/bin:/usr/bin", "FROM_IMAGE=yes"], "WorkingDir": "/" });
    archive("busybox:test", &config, &[busybox_layer(attacker)])
}
