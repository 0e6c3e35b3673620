//! Memory that does not grow with what is loaded. Measured in a process of its own, whose peak nothing else raises.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::build::{TarBuilder, header};
use super::root;
use crate::digest::Hashing;
use crate::*;

const CHILD: &str = "KAKOI_IMAGE_MEMORY_CHILD";
/// Several times what the peak may be.
const LAYER_BYTES: u64 = 192 << 20;
/// Buffers of 64 KiB, a zstd encoder at level 1, the program itself with its tests; a layer larger than memory needs no more.
const PEAK_KIB_MAX: u64 = 24 << 10;

const STACK_BYTES: usize = 512 << 10;

/// Bytes that do not pack, made as they are read.
struct Noise {
    state: u64,
    left: u64,
}

impl Read for Noise {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        for chunk in buffer[..count].chunks_mut(8) {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            chunk.copy_from_slice(&self.state.to_le_bytes()[..chunk.len()]);
        }
        self.left -= count as u64;
        Ok(count)
    }
}

fn file_header(name: &str, size: u64) -> io::Cursor<Vec<u8>> {
    let mut header = header(b'0', name.as_bytes(), b"", 0o644, size);
    header.set_cksum();
    io::Cursor::new(header.as_bytes().to_vec())
}

fn layer() -> impl Read {
    let noise = Noise {
        state: 42,
        left: LAYER_BYTES,
    };
    file_header("noise", LAYER_BYTES)
        .chain(noise)
        .chain(&[0u8; 1024][..])
}

fn load_much(root: &Path) {
    let mut hashing = Hashing::new(layer());
    io::copy(&mut hashing, &mut io::sink()).expect("noise");
    let (diff_id, layer_bytes, _) = hashing.finish();
    let config = json!({"os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}});
    let config = serde_json::to_vec(&config).expect("json");
    let manifest = json!([{"Config": "c", "RepoTags": ["noise"], "Layers": ["l"]}]);
    let rest = TarBuilder::new()
        .file("c", &config)
        .file("manifest.json", &serde_json::to_vec(&manifest).expect("json"))
        .finish();
    let archive = file_header("l", layer_bytes).chain(layer()).chain(&rest[..]);
    let store = ImageStore::open(root).expect("open");
    store.load(archive, &mut |_| {}).expect("loaded");
    store
        .save(&["noise".to_owned()], ArchiveFormat::Docker, &mut io::sink())
        .expect("saved");
}

/// The child's side; in an ordinary run it checks that noise is noise.
#[test]
fn much_is_loaded_in_a_child() {
    match std::env::var(CHILD) {
        Ok(dir) => {
            // kakoid's threads for blocking work have small stacks.
            std::thread::scope(|scope| {
                let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
                let work = thread
                    .spawn_scoped(scope, || load_much(Path::new(&dir)))
                    .expect("thread");
                work.join().expect("loaded");
            });
            let status = fs::read_to_string("/proc/self/status").expect("status");
            fs::write(Path::new(&dir).join("status"), status).expect("written");
        }
        Err(_) => {
            let mut head = [0; 4096];
            layer().read_exact(&mut head).expect("noise");
            assert!(zstd::encode_all(&head[512..], 3).expect("memory").len() > 3000);
        }
    }
}

#[test]
fn memory_does_not_grow_with_the_archive() {
    if !root("memory_does_not_grow_with_the_archive") {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let output = Command::new(std::env::current_exe().expect("own program"))
        .args(["--exact", "tests::memory::much_is_loaded_in_a_child"])
        .env(CHILD, dir.path())
        .output()
        .expect("child");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let status = fs::read_to_string(dir.path().join("status")).expect("status");
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("peak");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("number");
    println!("peak of {peak} KiB for a layer of {} KiB", LAYER_BYTES >> 10);
    assert!(peak < PEAK_KIB_MAX, "{peak} KiB");
}
