//! Nothing runs that the owner of the device does not trust: asked when an image is pulled, when a container is made of it, and at each start.
//!
//! Owns `<config>/trust.yaml`, read anew when it has changed, and what is kept under `<root>/trust`: floors and the list of revoked keys. Who may
//! sign what, and whether a signature is one, `kakoi-trust` decides. Refuses to change trust.yaml: whoever may write that file is its owner, and
//! no request to the daemon can widen what runs. Fails closed: no file trusts nothing, a file with an error trusts nothing and says where it is.

mod admit;
mod judge;
mod kept;
mod memory;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kakoi_trust::{DOCUMENT_BYTES_MAX, Digest, Release, Trust};
use tokio::sync::{Semaphore, oneshot, watch};

pub use admit::{admit_image, admit_os, admit_pull, admit_start, refuse_unasked};
pub use judge::{Admission, PullRefusal, examine, judge_file, judge_pull};
pub use kept::Kept;

use memory::Memory;

use crate::config::read_owner_file;
use crate::engine::Engine;
use crate::refusal::{Answer, Refusal, chain};

/// Complaints that are remembered so that each is told once. One image has one; more than this a device has not.
const TOLD_MAX: usize = 256;

/// Images that are judged at a time: a start is not to wait for all of a device's, and two is what slow processors have.
const JUDGED_MAX: usize = 2;
/// The stack of a thread that judges: that of the runtime's threads for blocking work.
const JUDGE_STACK_BYTES: usize = 512 << 10;

/// What the owner trusts, as it is now.
pub struct Gate {
    file: PathBuf,
    read: Mutex<Option<(Digest, Arc<Trust>)>>,
    kept: Mutex<Arc<Kept>>,
    /// Held while what is kept changes: of two changes at a time one would be lost.
    changing: Mutex<()>,
    told: Mutex<BTreeSet<String>>,
    memory: Memory,
    judges: Arc<Semaphore>,
    changes: watch::Sender<()>,
}

/// All that an image is judged by, as it was at one moment.
#[derive(Clone)]
pub struct Rules {
    /// trust.yaml.
    pub trust: Arc<Trust>,
    /// Floors and revocations.
    pub kept: Arc<Kept>,
}

impl Rules {
    /// Whether they are those of the same moment: nothing was read anew or changed since.
    fn are(&self, others: &Rules) -> bool {
        Arc::ptr_eq(&self.trust, &others.trust) && Arc::ptr_eq(&self.kept, &others.kept)
    }
}

impl Gate {
    /// Stands between `<config>/trust.yaml` and whatever wants to run.
    pub fn open(config: &Path, root: &Path) -> Self {
        Self {
            file: config.join("trust.yaml"),
            read: Mutex::new(None),
            kept: Mutex::new(Arc::new(Kept::open(&root.join("trust")))),
            changing: Mutex::new(()),
            told: Mutex::new(BTreeSet::new()),
            memory: Memory::default(),
            judges: Arc::new(Semaphore::new(JUDGED_MAX)),
            changes: watch::Sender::new(()),
        }
    }

    /// trust.yaml as it is now: read each time, for no time stamp tells two changes within one tick of the clock apart, and parsed when it is another.
    pub fn trust(&self) -> Answer<Arc<Trust>> {
        let mut read = locked(&self.read);
        let text = read_owner_file(&self.file, DOCUMENT_BYTES_MAX as u64).map_err(|error| Refusal {
            source: Some(Box::new(error)),
            ..Refusal::forbidden("trust.yaml cannot be read, so nothing is trusted")
        })?;
        let Some(text) = text else {
            *read = None;
            return Ok(Arc::new(Trust::nothing()));
        };
        let digest = Digest::of(text.as_bytes());
        if let Some((known, trust)) = &*read
            && *known == digest
        {
            return Ok(Arc::clone(trust));
        }
        *read = None;
        let trust = Trust::parse("trust.yaml", &text).map(Arc::new).map_err(|found| {
            Refusal::forbidden(format!(
                "trust.yaml has errors, so nothing is trusted until they are corrected:\n{found}"
            ))
        })?;
        *read = Some((digest, Arc::clone(&trust)));
        self.wake();
        Ok(trust)
    }

    /// Floors and revocations, as they are now.
    pub fn kept(&self) -> Arc<Kept> {
        Arc::clone(&locked(&self.kept))
    }

    /// All that an image is judged by, as it is now.
    pub fn rules(&self) -> Answer<Rules> {
        Ok(Rules {
            trust: self.trust()?,
            kept: self.kept(),
        })
    }

    /// Raises the floor of a release that has proved itself; tells whether it rose.
    pub fn commit(&self, release: &Release) -> Answer<bool> {
        self.change(|kept| kept.commit(release))
    }

    /// Takes a signed list of revoked keys; tells its version.
    pub fn revoke(&self, document: &[u8]) -> Answer<u64> {
        let trust = self.trust()?;
        self.change(|kept| kept.revoke(document, &trust))
    }

    /// The next start is judged by what changed.
    fn change<T>(&self, change: impl FnOnce(&mut Kept) -> Answer<T>) -> Answer<T> {
        let _turn = locked(&self.changing);
        let mut kept = Kept::clone(&self.kept());
        let done = change(&mut kept)?;
        *locked(&self.kept) = Arc::new(kept);
        self.wake();
        Ok(done)
    }

    /// Has those who wait for the owner look again.
    pub fn wake(&self) {
        self.changes.send_replace(());
    }

    /// Tells of each moment from now on after which something may be allowed that was not.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
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

/// Judges on a thread of its own: signatures take slow processors milliseconds, for which no other request is to wait. Not on one of the runtime's
/// for blocking work, which pulls may all hold.
async fn aside<T: Send + 'static>(
    engine: &Arc<Engine>,
    judge: impl FnOnce(&Engine) -> Answer<T> + Send + 'static,
) -> Answer<T> {
    let turn = Arc::clone(&engine.trust.judges).acquire_owned().await;
    let turn = turn.expect("nobody closes the semaphore");
    let (sender, verdict) = oneshot::channel();
    let judging = Arc::clone(engine);
    std::thread::Builder::new()
        .name("judge".into())
        .stack_size(JUDGE_STACK_BYTES)
        .spawn(move || {
            // A client that left hears nothing.
            sender.send(judge(&judging)).ok();
            drop(turn);
        })
        .map_err(|cause| Refusal::failed("the image cannot be judged", cause))?;
    verdict
        .await
        .unwrap_or_else(|_| Err(Refusal::broken("the image was not judged: see the daemon's log")))
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
