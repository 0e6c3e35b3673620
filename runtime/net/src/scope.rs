//! One daemon's mark on the host.
//!
//! Owns how the mark is derived, so that a daemon finds again after a crash what it made, and never takes another's for its own.

use std::path::Path;

use sha2::{Digest, Sha256};

/// The run folder whose daemon has the plain name.
const DEFAULT_RUN_FOLDER: &str = "/run/kakoi";

/// What sets the links and tables of one daemon apart from those of every other, derived from its run folder: at most one daemon runs in each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    table: String,
    group: u32,
}

impl Scope {
    /// The scope of the daemon whose run folder this is. The path is taken as it is written: give it absolute and without links.
    pub fn of_run_folder(folder: &Path) -> Self {
        let digest = Sha256::digest(folder.as_os_str().as_encoded_bytes());
        let hash = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
        let table = if folder == Path::new(DEFAULT_RUN_FOLDER) {
            "kakoi".to_owned()
        } else {
            format!("kakoi-{hash:08x}")
        };
        Self {
            table,
            // Groups that people number by hand are small; 0 is every link's default.
            group: hash | 0x8000_0000,
        }
    }

    /// The name of this scope's nftables tables, one of family `inet` and one of family `bridge`.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The group (`ip link show group N`) that this scope's links on the host belong to.
    pub fn group(&self) -> u32 {
        self.group
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_run_folder_has_its_own_mark() {
        let first = Scope::of_run_folder(Path::new("/run/kakoi"));
        let second = Scope::of_run_folder(Path::new("/run/kakoi2"));
        assert_eq!(first.table(), "kakoi");
        assert_eq!(second.table().len(), "kakoi-".len() + 8);
        assert_ne!(first.group(), second.group());
        assert_eq!(second, Scope::of_run_folder(Path::new("/run/kakoi2")));
        assert!(second.group() >= 0x8000_0000);
    }
}
