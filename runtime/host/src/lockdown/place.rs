//! Where the kernel's files lie, and how they are read and written.
//!
//! Owns the one root below which `/proc`, `/sys`, `/etc` and the rest are looked for, so that a test gives a folder in place of the device.
//! Invariant: whatever lies there, no more than a bound of it is read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// A setting or a short table. A mount table of a gateway has some tens of lines.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Entries of one folder: `/proc` of a busy device has some hundreds.
const ENTRIES_MAX: usize = 16_384;

/// The root of the device's files.
#[derive(Clone, Debug)]
pub struct Place {
    root: PathBuf,
}

impl Place {
    /// The device itself is `/`.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The whole path of something below.
    pub fn path(&self, below: &str) -> PathBuf {
        self.root.join(below.trim_start_matches('/'))
    }

    /// The words of a file without the end of its line; `None` where there is none.
    pub(super) fn read(&self, below: &str) -> io::Result<Option<String>> {
        Ok(self.bytes(below)?.map(|bytes| {
            let text = String::from_utf8_lossy(&bytes);
            text.trim_end_matches(['\n', '\0']).to_owned()
        }))
    }

    /// The same; what cannot be read is as good as missing.
    pub(super) fn word(&self, below: &str) -> Option<String> {
        self.read(below).ok().flatten()
    }

    pub(super) fn bytes(&self, below: &str) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        match File::open(self.path(below)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?,
        };
        Ok(Some(bytes))
    }

    /// Writes a setting as the kernel takes it: in one call, into a file that is there.
    pub(super) fn write(&self, below: &str, value: &str) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(self.path(below))?;
        file.write_all(format!("{value}\n").as_bytes())
    }

    pub(super) fn is_there(&self, below: &str) -> bool {
        self.path(below).symlink_metadata().is_ok()
    }

    /// Names in a folder, sorted; none where it is missing.
    pub(super) fn names(&self, below: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(below)).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.take(ENTRIES_MAX).collect();
        names.sort();
        names
    }

    /// Where a link leads, as it is written.
    pub(super) fn link(&self, below: &str) -> Option<String> {
        let target = fs::read_link(self.path(below)).ok()?;
        Some(target.to_string_lossy().into_owned())
    }

    /// Where a path really lies, below the root.
    pub(super) fn real(&self, below: &str) -> Option<String> {
        let real = fs::canonicalize(self.path(below)).ok()?;
        let root = fs::canonicalize(&self.root).ok()?;
        real.strip_prefix(root)
            .ok()
            .map(Path::to_string_lossy)
            .map(|path| path.into_owned())
    }
}
