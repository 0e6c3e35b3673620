//! trust.yaml, changed by its owner.
//!
//! Owns the way a change goes: one at a time, written aside, synced, renamed. Refuses to know what changes. Invariant: whoever reads the file
//! sees it before or after a change and never in between, also after a power cut.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use kakoi_trust::DOCUMENT_BYTES_MAX;
use kakoi_trust::edit::EditError;
use nix::fcntl::{Flock, FlockArg};

use crate::bounded::{self, ReadError};
use crate::client::Client;

/// Who may read a trust.yaml that is new: it holds no secrets.
const MODE: u32 = 0o644;

/// Why trust.yaml was not changed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A daemon was named by its socket, and nobody knows where its files are.
    #[error(
        "trust.yaml is changed in the device's own folder: leave out --host and KAKOI_HOST, and name the folder with --config where it is not /etc/kakoi"
    )]
    Elsewhere,
    /// The folder or the file may not be written.
    #[error("only who may write {} decides what runs: become root", .path.display())]
    Permission {
        /// The file.
        path: PathBuf,
    },
    /// A step failed.
    #[error("{action} {}", .path.display())]
    Step {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The change itself.
    #[error(transparent)]
    Edit(#[from] EditError),
}

/// Changes trust.yaml; says whether there was anything to change.
pub fn change(
    client: &Client,
    edit: impl FnOnce(Option<&str>) -> Result<String, EditError>,
) -> Result<bool, FileError> {
    let folder = client.config().ok_or(FileError::Elsewhere)?;
    let path = folder.join("trust.yaml");
    let step = |action: &'static str, path: &Path| {
        let path = path.to_owned();
        move |cause: io::Error| match cause.kind() {
            io::ErrorKind::PermissionDenied => FileError::Permission { path },
            _ => FileError::Step { action, path, cause },
        }
    };
    fs::create_dir_all(folder).map_err(step("making the folder", folder))?;
    let lock = File::open(folder).map_err(step("opening the folder", folder))?;
    // Held until the end: of two changes at a time one would be lost.
    let lock = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, errno)| step("locking the folder", folder)(errno.into()))?;
    let (text, mode) = match fs::metadata(&path) {
        Ok(found) => (
            Some(bounded::read_text(&path, DOCUMENT_BYTES_MAX as u64)?),
            found.mode() & 0o7777,
        ),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => (None, MODE),
        Err(cause) => return Err(step("looking at", &path)(cause)),
    };
    let changed = edit(text.as_deref())?;
    if text.as_deref() == Some(changed.as_str()) {
        return Ok(false);
    }
    let aside = folder.join(".trust.yaml.new");
    match fs::remove_file(&aside) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(step("removing", &aside)(cause)),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&aside)
        .map_err(step("making", &aside))?;
    file.write_all(changed.as_bytes())
        .and_then(|()| file.set_permissions(fs::Permissions::from_mode(mode)))
        .and_then(|()| file.sync_all())
        .map_err(step("writing", &aside))?;
    fs::rename(&aside, &path).map_err(step("replacing", &path))?;
    lock.sync_all().map_err(step("syncing", folder))?;
    Ok(true)
}
