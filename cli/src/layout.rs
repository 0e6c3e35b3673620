//! Images that come from no registry: `oci:`, `oci-archive:` and `docker-archive:` before a path, as skopeo writes them.
//!
//! Owns telling such a name from an image's, and reading an OCI layout that is a folder (a USB stick, an SD card) as the archive that the daemon
//! takes. Refuses to judge what is in it: the daemon verifies every digest. Only plain files of the layout are read, no link is followed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::vec;

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

const BLOCK_BYTES: u64 = 512;
/// Two empty blocks end a tar (POSIX, pax).
const END_BYTES: usize = 1024;

/// The path of a name that is a place of files; an image may be called `oci` too, so the path must look like one.
pub fn path_of(name: &str) -> Option<&Path> {
    let rest = ["oci:", "oci-archive:", "docker-archive:"]
        .iter()
        .find_map(|transport| name.strip_prefix(transport))?;
    rest.starts_with(['/', '.']).then(|| Path::new(rest))
}

/// An OCI layout's folder, read as a tar.
pub struct LayoutTar {
    members: vec::IntoIter<(String, PathBuf)>,
    /// Header, padding or end, on their way out.
    pending: io::Cursor<Vec<u8>>,
    body: Option<(File, u64)>,
    padding: usize,
    ended: bool,
}

impl LayoutTar {
    /// Lists a layout; one that lacks its index or blobs is an error.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let mut members = Vec::new();
        for name in ["oci-layout", "index.json"] {
            let path = folder.join(name);
            path.symlink_metadata()?;
            members.push((name.to_owned(), path));
        }
        let mut blobs = Vec::new();
        for entry in fs::read_dir(folder.join("blobs/sha256"))? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string()
                && name.len() == 64
                && name.bytes().all(|b| b.is_ascii_hexdigit())
            {
                let bytes = entry.metadata()?.len();
                blobs.push((bytes, format!("blobs/sha256/{name}"), entry.path()));
            }
        }
        // Documents before what they describe: who reads an operating system's image has to know it first.
        blobs.sort();
        members.extend(blobs.into_iter().map(|(_, name, path)| (name, path)));
        Ok(Self {
            members: members.into_iter(),
            pending: io::Cursor::default(),
            body: None,
            padding: 0,
            ended: false,
        })
    }

    fn next_member(&mut self) -> io::Result<()> {
        match self.members.next() {
            Some((name, path)) => {
                let flags = O_NOFOLLOW | O_NONBLOCK;
                let file = OpenOptions::new().read(true).custom_flags(flags).open(&path)?;
                let found = file.metadata()?;
                if !found.is_file() {
                    return Err(io::Error::other(format!("{} is no plain file", path.display())));
                }
                let size = found.len();
                self.pending = io::Cursor::new(header(&name, size));
                self.padding = (size.next_multiple_of(BLOCK_BYTES) - size) as usize;
                self.body = Some((file, size));
            }
            None => {
                self.pending = io::Cursor::new(vec![0; END_BYTES]);
                self.ended = true;
            }
        }
        Ok(())
    }
}

impl Read for LayoutTar {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.pending.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            match self.body.take() {
                Some((_, 0)) => self.pending = io::Cursor::new(vec![0; self.padding]),
                Some((mut file, left)) => {
                    let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                    let count = file.read(&mut buffer[..want])?;
                    if count == 0 {
                        return Err(io::Error::new(
                            io::ErrorKind::UnexpectedEof,
                            "a file of the layout became shorter",
                        ));
                    }
                    self.body = Some((file, left - count as u64));
                    return Ok(count);
                }
                None if self.ended => return Ok(0),
                None => self.next_member()?,
            }
        }
    }
}

/// A ustar header of a plain file; sizes beyond 8 GiB in base 256, as GNU and Go write them.
fn header(name: &str, size: u64) -> Vec<u8> {
    let mut block = vec![0u8; BLOCK_BYTES as usize];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    match size < 1 << 33 {
        true => put(124, format!("{size:011o}\0").as_bytes()),
        false => {
            put(124, &[0x80]);
            put(128, &size.to_be_bytes());
        }
    }
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn only_paths_are_places() {
        for (name, path) in [
            ("oci:/media/usb/app.tar", Some("/media/usb/app.tar")),
            ("docker-archive:./a", Some("./a")),
            ("oci-archive:../a", Some("../a")),
            ("oci:latest", None),
            ("docker-archive:1", None),
            ("registry.example/oci:/x", None),
            ("busybox", None),
        ] {
            assert_eq!(path_of(name), path.map(Path::new), "{name}");
        }
    }

    /// As GNU tar reads it.
    #[test]
    fn a_layout_is_a_tar_and_links_are_not_followed() {
        let dir = tempfile::tempdir().expect("folder");
        let layout = dir.path().join("layout");
        let blob = "ab".repeat(32);
        fs::create_dir_all(layout.join("blobs/sha256")).expect("folder");
        assert!(LayoutTar::open(&layout).is_err(), "no index");
        fs::write(layout.join("oci-layout"), b"{}").expect("file");
        fs::write(layout.join("index.json"), b"").expect("file");
        fs::write(layout.join("blobs/sha256").join(&blob), vec![7; 1025]).expect("file");
        fs::write(layout.join("blobs/sha256/notes.txt"), b"not of the layout").expect("file");
        let mut tar = Vec::new();
        LayoutTar::open(&layout)
            .expect("a layout")
            .read_to_end(&mut tar)
            .expect("read");
        fs::write(dir.path().join("made.tar"), tar).expect("file");
        let listed = Command::new("tar")
            .args(["-tvf", "made.tar"])
            .current_dir(dir.path())
            .stderr(Stdio::inherit())
            .output()
            .expect("tar");
        let listed = String::from_utf8(listed.stdout).expect("text");
        let names: Vec<&str> = listed
            .lines()
            .filter_map(|line| line.split_whitespace().last())
            .collect();
        let wanted = format!("blobs/sha256/{blob}");
        assert_eq!(names, ["oci-layout", "index.json", &wanted], "{listed}");
        assert!(listed.contains(" 1025 "), "{listed}");
        fs::remove_file(layout.join("index.json")).expect("removed");
        std::os::unix::fs::symlink("oci-layout", layout.join("index.json")).expect("link");
        let read = LayoutTar::open(&layout)
            .expect("listed")
            .read_to_end(&mut Vec::new());
        assert!(read.is_err(), "a link was followed");
    }
}
