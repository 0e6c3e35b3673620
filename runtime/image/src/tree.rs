//! Files of our own store: written aside, synced, renamed; trees removed whatever they hold.
//!
//! Owns the order of durable steps. Refuses to know what the files mean. Invariant: a name that matters shows its old or its new content at
//! every moment, also after a power cut.

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::fault::{self, Event};

/// A step of the store that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct FileError {
    /// What was tried.
    pub action: &'static str,
    /// On what.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

impl FileError {
    /// Whether the disk, or the user's share of it, is full.
    pub fn is_disk_full(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }
}

/// An error and its causes in one line for a client, without paths of the host.
///
/// The log gets the chain itself, paths and all.
pub fn client_message(error: &(dyn Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let part = match error.downcast_ref::<FileError>() {
            Some(file) => format!("cannot {} a file of the image store", file.action),
            None => error.to_string(),
        };
        // A transparent error says the same as its cause, and so do the two halves of "cannot read the archive".
        if parts.last() != Some(&part) {
            parts.push(part);
        }
        next = error.source();
    }
    parts.join(": ")
}

/// Gives an I/O result its action and path.
pub(crate) trait At<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, FileError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, FileError> {
        self.map_err(|source| FileError {
            action,
            path: path.to_owned(),
            source,
        })
    }
}

impl<T> At<T> for nix::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, FileError> {
        self.map_err(io::Error::from).at(action, path)
    }
}

/// Makes a folder, and those above it, that only its owner enters: what is in images is nobody's business on the host (CVE-2021-41091).
pub(crate) fn make_private_dir(path: &Path) -> Result<(), FileError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .at("create folder", path)
}

/// Opens a new file that only its owner reads.
pub(crate) fn create_private(path: &Path) -> Result<File, FileError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .at("create", path)
}

/// Syncs a folder: the names in it are then as durable as what they name.
pub(crate) fn sync_dir(path: &Path) -> Result<(), FileError> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .at("sync folder", path)?;
    fault::synced(Event::FolderSynced(path));
    Ok(())
}

/// Writes everything of the file system that holds `path` to its disk: one call for the many files of an unpacked layer.
pub(crate) fn sync_file_system(path: &Path) -> Result<(), FileError> {
    use std::os::fd::AsRawFd;
    let dir = File::open(path).at("open", path)?;
    nix::unistd::syncfs(dir.as_raw_fd()).at("sync file system of", path)?;
    fault::synced(Event::AllSynced);
    Ok(())
}

/// Renames and says so when it fails; both folders must be synced after.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to).at("move into place", to)?;
    fault::point("renamed");
    Ok(())
}

/// Replaces a file's content: written aside, synced, renamed, folder synced.
pub(crate) fn replace_file(path: &Path, aside: &Path, bytes: &[u8]) -> Result<(), FileError> {
    match fs::remove_file(aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).at("remove", aside),
        _ => {}
    }
    let mut file = create_private(aside)?;
    file.write_all(bytes).at("write", aside)?;
    fault::point("index-written");
    file.sync_all().at("sync", aside)?;
    fault::synced(Event::FileSynced(aside));
    rename(aside, path)?;
    match path.parent() {
        Some(folder) => sync_dir(folder),
        None => Ok(()),
    }
}

/// Gives a file a second name under which its content stays when the first is replaced. Costs two names and no content; the caller syncs the
/// folder with its own change.
pub(crate) fn keep_previous(path: &Path, previous: &Path) -> Result<(), FileError> {
    let mut aside = previous.as_os_str().to_owned();
    aside.push(".new");
    let aside = PathBuf::from(aside);
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).at("remove", &aside),
        _ => {}
    }
    match fs::hard_link(path, &aside) {
        Ok(()) => {}
        // The first index has none before it; a file system without hard links has no second name either.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported
            ) =>
        {
            return Ok(());
        }
        Err(error) => return Err(error).at("link", &aside),
    }
    rename(&aside, previous)?;
    // Where the change before was cut off, both names are of one file already, and rename(2) leaves them alone.
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", &aside),
        _ => Ok(()),
    }
}

/// What is put behind a tree's name for the folder in which it is taken apart.
pub(crate) const REMOVAL: &str = ".rm";

/// Removes a tree of any depth with one open folder at a time: subfolders are first moved up beside the tree's root, so that neither the
/// stack nor the path grows with what an image nested.
pub(crate) fn remove_tree(path: &Path) -> Result<(), FileError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).at("remove", path),
        Ok(meta) if !meta.is_dir() => return fs::remove_file(path).at("remove", path),
        Ok(_) => {}
    }
    let mut aside = path.as_os_str().to_owned();
    aside.push(REMOVAL);
    let aside = PathBuf::from(aside);
    make_private_dir(&aside)?;
    let mut next = 0u64;
    let mut queue = Vec::new();
    let mut lift = |from: &Path, queue: &mut Vec<PathBuf>| {
        // Left-overs of an attempt that was cut off keep their names; skip those.
        loop {
            let to = aside.join(next.to_string());
            next += 1;
            if fs::symlink_metadata(&to).is_err() {
                rename(from, &to)?;
                queue.push(to);
                return Ok(());
            }
        }
    };
    for left in fs::read_dir(&aside).at("list", &aside)? {
        queue.push(left.at("list", &aside)?.path());
    }
    lift(path, &mut queue)?;
    while let Some(folder) = queue.pop() {
        for entry in fs::read_dir(&folder).at("list", &folder)? {
            let entry = entry.at("list", &folder)?;
            if entry.file_type().at("look at", &entry.path())?.is_dir() {
                lift(&entry.path(), &mut queue)?;
            } else {
                fs::remove_file(entry.path()).at("remove", &entry.path())?;
            }
        }
        fault::point("folder-emptied");
        fs::remove_dir(&folder).at("remove", &folder)?;
    }
    fs::remove_dir(&aside).at("remove", &aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_deeper_than_a_path_is_removed() {
        let dir = tempfile::tempdir().expect("folder");
        let root = dir.path().join("tree");
        fs::create_dir(&root).expect("folder");
        // Built from the bottom up, since no path reaches the bottom.
        for _ in 0..2100 {
            let next = dir.path().join("next");
            fs::create_dir(&next).expect("folder");
            fs::write(next.join("file"), b"x").expect("file");
            fs::rename(&root, next.join("d")).expect("moved");
            fs::rename(&next, &root).expect("moved");
        }
        remove_tree(&root).expect("removed");
        remove_tree(&root).expect("removing nothing is fine");
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 0);
    }

    #[test]
    fn a_client_reads_no_path_of_the_host() {
        let missing = fs::read("/nowhere/at/all")
            .at("read", Path::new("/var/lib/kakoi/images/x"))
            .expect_err("missing");
        let error = crate::StoreError::File(missing);
        let message = client_message(&error);
        assert_eq!(
            message,
            "image store failed: cannot read a file of the image store: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn a_link_is_removed_and_not_followed() {
        let dir = tempfile::tempdir().expect("folder");
        fs::create_dir(dir.path().join("outside")).expect("folder");
        fs::write(dir.path().join("outside/file"), b"x").expect("file");
        fs::create_dir(dir.path().join("tree")).expect("folder");
        std::os::unix::fs::symlink("../outside", dir.path().join("tree/link")).expect("link");
        remove_tree(&dir.path().join("tree")).expect("removed");
        assert!(dir.path().join("outside/file").exists());
    }
}
