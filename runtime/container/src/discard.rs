//! Getting rid of a folder without making anybody wait.
//!
//! Owns the name under which a folder waits for its removal. One rename takes it away, whole or not at all; taking its files apart, which on a
//! flash card takes longer than a container's start, comes after. What a crash leaves is a folder that no record speaks of, which the
//! daemon's next start sweeps.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Renames `folder` to `.<name>.gone` beside it and tells where it lies now; `None` where there is none.
pub fn set_aside(folder: &Path) -> io::Result<Option<PathBuf>> {
    let name = folder.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut aside = std::ffi::OsString::from(".");
    aside.push(name);
    aside.push(".gone");
    let aside = folder.with_file_name(aside);
    match fs::rename(folder, &aside) {
        Ok(()) => Ok(Some(aside)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // A crash left one there before.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            remove_tree(&aside)?;
            fs::rename(folder, &aside).map(|()| Some(aside))
        }
        Err(error) => Err(error),
    }
}

/// Removes a folder with all in it; one that is not there is removed already. Follows no link.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_gone_at_once_and_its_files_later() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = place.path().join("c");
        for round in ["first", "second"] {
            fs::create_dir_all(folder.join("deep")).expect("make");
            fs::write(folder.join("deep/file"), round).expect("write");
            let aside = set_aside(&folder).expect("rename").expect("there was one");
            assert!(!folder.exists());
            assert_eq!(aside, place.path().join(".c.gone"));
            let kept = fs::read_to_string(aside.join("deep/file")).expect("moved, not removed");
            assert_eq!(kept, round);
        }
        assert_eq!(set_aside(&folder).expect("no error"), None);
        remove_tree(&place.path().join(".c.gone")).expect("remove");
        remove_tree(&folder).expect("nothing to remove");
        assert_eq!(fs::read_dir(place.path()).expect("list").count(), 0);
    }
}
