//! Nothing runs that the owner of the device does not trust: asked when an image is pulled, when a container is made of it, and at each start.
//!
//! Owns `<config>/trust.yaml`, read anew when it has changed, and what is kept under `<root>/trust`: floors and the list of revoked keys. Who may
//! sign what, and whether a signature is one, `kakoi-trust` decides. Refuses to change trust.yaml: whoever may write that file is its owner, and
//! no request to the daemon can widen what runs. Fails closed: no file trusts nothing, a file with an error trusts nothing and says where it is.

mod judge;
mod kept;

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kakoi_trust::{DOCUMENT_BYTES_MAX, Trust};

pub use judge::{
    Admission, PullRefusal, admit_image, admit_pull, admit_start, examine, judge_pull, refuse_unasked,
};
pub use kept::Kept;

use crate::config::read_owner_file;
use crate::refusal::{Answer, Refusal, chain};

/// Complaints that are remembered so that each is told once. One image has one; more than this a device has not.
const TOLD_MAX: usize = 256;

/// What the owner trusts, as it is now.
pub struct Gate {
    file: PathBuf,
    read: Mutex<Option<(Stamp, Arc<Trust>)>>,
    kept: Mutex<Kept>,
    told: Mutex<BTreeSet<String>>,
}

/// Tells one state of the file from the next: a file that was replaced has another inode, one that was written another time of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    changed: (i64, i64),
    bytes: u64,
}

impl Gate {
    /// Stands between `<config>/trust.yaml` and whatever wants to run.
    pub fn open(config: &Path, root: &Path) -> Self {
        Self {
            file: config.join("trust.yaml"),
            read: Mutex::new(None),
            kept: Mutex::new(Kept::open(&root.join("trust"))),
            told: Mutex::new(BTreeSet::new()),
        }
    }

    /// trust.yaml as it is now.
    pub fn trust(&self) -> Answer<Arc<Trust>> {
        let mut read = locked(&self.read);
        let stamp = std::fs::metadata(&self.file).ok().map(|file| Stamp {
            inode: file.ino(),
            changed: (file.ctime(), file.ctime_nsec()),
            bytes: file.len(),
        });
        if let (Some((known, trust)), Some(stamp)) = (&*read, stamp)
            && *known == stamp
        {
            return Ok(Arc::clone(trust));
        }
        *read = None;
        let text = read_owner_file(&self.file, DOCUMENT_BYTES_MAX as u64).map_err(|error| Refusal {
            source: Some(Box::new(error)),
            ..Refusal::forbidden("trust.yaml cannot be read, so nothing is trusted")
        })?;
        let Some(text) = text else {
            return Ok(Arc::new(Trust::nothing()));
        };
        let trust = Trust::parse("trust.yaml", &text).map(Arc::new).map_err(|found| {
            Refusal::forbidden(format!(
                "trust.yaml has errors, so nothing is trusted until they are corrected:\n{found}"
            ))
        })?;
        *read = stamp.map(|stamp| (stamp, Arc::clone(&trust)));
        Ok(trust)
    }

    /// Floors and revocations.
    pub fn kept(&self) -> MutexGuard<'_, Kept> {
        locked(&self.kept)
    }

    /// Whether a complaint is new.
    fn is_news(&self, complaint: &str) -> bool {
        let mut told = locked(&self.told);
        if told.len() >= TOLD_MAX {
            told.clear();
        }
        told.insert(complaint.to_owned())
    }

    /// Looks at the file once, so that the log of a daemon that starts says what is wrong with it.
    pub fn look(&self) {
        match self.trust() {
            Ok(_) if !self.file.exists() => {
                tracing::warn!(path = %self.file.display(), "no trust.yaml: nothing runs until images are allowed (kakoi trust allow)");
            }
            Ok(_) => {}
            Err(refusal) => {
                tracing::error!(path = %self.file.display(), error = chain(&refusal), "nothing is trusted")
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is in there is replaced as a whole, so a panic elsewhere leaves it true.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use kakoi_trust::{Mode, Repository};

    use super::*;

    fn mode(gate: &Gate) -> Answer<Mode> {
        let repository = Repository::parse("docker.io/library/x").expect("a repository");
        gate.trust().map(|trust| trust.mode(&repository))
    }

    #[test]
    fn the_file_is_read_anew_and_fails_closed() {
        let folder = tempfile::tempdir().expect("a folder");
        let gate = Gate::open(folder.path(), &folder.path().join("root"));
        assert_eq!(mode(&gate).expect("no file"), Mode::Reject);
        let file = folder.path().join("trust.yaml");
        fs::write(&file, "version: 1\ndefault: audit\n").expect("written");
        assert_eq!(mode(&gate).expect("a file"), Mode::Audit);
        fs::write(&file, "version: 1\ndefault: adit\n").expect("written");
        let refusal = mode(&gate).expect_err("a typo");
        assert_eq!(refusal.status.as_u16(), 403);
        assert!(refusal.message.contains("trust.yaml:2:"), "{}", refusal.message);
        fs::write(&file, "version: 1\n").expect("written");
        assert_eq!(mode(&gate).expect("corrected"), Mode::Reject);
        fs::remove_file(&file).expect("removed");
        fs::create_dir(&file).expect("no file");
        assert!(mode(&gate).is_err(), "what cannot be read trusts nobody");
    }

    #[test]
    fn a_complaint_is_told_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let gate = Gate::open(folder.path(), folder.path());
        assert!(gate.is_news("a") && !gate.is_news("a") && gate.is_news("b"));
        for number in 0..TOLD_MAX {
            gate.is_news(&number.to_string());
        }
        assert!(locked(&gate.told).len() <= TOLD_MAX);
    }
}
