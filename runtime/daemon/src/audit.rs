//! The audit log: every decision, in files that only grow, each line bound to all before it.
//!
//! Owns where the lines lie and when they are on disk; their form and the chain are `kakoi_trust::audit`'s. Lines are written as they come, so that a
//! daemon that is killed loses none. They are synced at once where something was refused, which nobody may undo by pulling the plug, at most once in
//! a second; and half a minute later otherwise, since flash wears by syncs and not by lines. Nothing is written while nothing is decided.
//!
//! ```text
//! audit/00000000000000000001.log     the entries from that number on, at most 256 KiB of them; the sixteen latest files are kept
//! ```
//!
//! Invariant: what stands in a file is never changed. What a power cut tore off the end is cut away, and that is told; damage stays where it is, and the
//! log goes on with a chain of its own behind it, so that a verification always finds the place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use kakoi_trust::audit::{Decision, Head, LINE_BYTES_MAX, Verdict, Verifier};
use tokio::sync::Notify;

use crate::clock;
use crate::engine::Engine;

/// Bytes of a file. All of them are read again when a daemon starts.
const SEGMENT_BYTES_MAX: u64 = 256 << 10;
/// Files that are kept: 4 MiB, some ten thousand decisions.
const SEGMENTS_MAX: usize = 16;
/// What a file's name ends with.
const SUFFIX: &str = ".log";
/// How long what was allowed may wait for its sync.
const SYNC_WAIT: Duration = Duration::from_secs(30);
/// The least time between two syncs: who has a thousand requests refused costs the flash one write a second.
const SYNC_PAUSE: Duration = Duration::from_secs(1);
/// Who the daemon is in its own log.
const SELF: &str = "kakoid";

struct Log {
    folder: PathBuf,
    file: File,
    head: Head,
    bytes: u64,
    is_dirty: bool,
    is_urgent: bool,
    /// Decisions that could not be written; told with the next that can.
    lost: u64,
}

/// The log, open.
pub struct Audit {
    log: Mutex<Log>,
    changed: Notify,
}

impl Audit {
    /// Goes on with the log of the daemon before.
    pub fn open(root: &Path) -> io::Result<Self> {
        let folder = root.join("audit");
        let mut told = Vec::new();
        let (file, head, bytes) = match segments(&folder)?.pop() {
            None => begin_segment(&folder, Head::NONE)?,
            Some(latest) => go_on(&folder, &latest, &mut told)?,
        };
        let audit = Self {
            log: Mutex::new(Log {
                folder,
                file,
                head,
                bytes,
                is_dirty: false,
                is_urgent: false,
                lost: 0,
            }),
            changed: Notify::new(),
        };
        for (what, why) in told {
            tracing::error!(what, why, "the audit log was not whole");
            audit.note_own(&what, Verdict::Failed, &why);
        }
        Ok(audit)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().expect("no panic while locked")
    }

    /// Writes a decision. One that cannot be written is counted, and told of by the next that can.
    pub fn note(&self, decision: &Decision) {
        let mut log = self.log();
        if log.lost > 0 {
            let lost = own(
                "audit log",
                Verdict::Failed,
                &format!("{} decisions could not be written", log.lost),
            );
            if log.append(&lost).is_ok() {
                log.lost = 0;
            }
        }
        if let Err(error) = log.append(decision) {
            if log.lost == 0 {
                tracing::error!(%error, "a decision cannot be written into the audit log; further ones are counted");
            }
            log.lost += 1;
        }
        drop(log);
        self.changed.notify_one();
    }

    /// Writes what the daemon decided by itself.
    pub fn note_own(&self, what: &str, verdict: Verdict, why: &str) {
        self.note(&own(what, verdict, why));
    }

    /// Has all that was written on disk.
    pub fn sync(&self) -> io::Result<()> {
        let file = {
            let mut log = self.log();
            log.is_urgent = false;
            if !std::mem::take(&mut log.is_dirty) {
                return Ok(());
            }
            log.file.try_clone()?
        };
        // A file that is full was synced when the next one was begun.
        file.sync_data()
    }

    /// The end of the log.
    pub fn head(&self) -> Head {
        self.log().head
    }

    /// The files as they are now, the oldest first, each with the bytes of it that are whole lines.
    pub fn files(&self) -> io::Result<Vec<(File, u64)>> {
        let log = self.log();
        let mut files = Vec::new();
        for name in segments(&log.folder)? {
            let file = File::open(log.folder.join(name))?;
            let bytes = file.metadata()?.len();
            files.push((file, bytes));
        }
        if let Some(last) = files.last_mut() {
            last.1 = log.bytes;
        }
        Ok(files)
    }
}

impl Log {
    fn append(&mut self, decision: &Decision) -> io::Result<()> {
        if self.bytes >= SEGMENT_BYTES_MAX {
            self.file.sync_data()?;
            (self.file, _, self.bytes) = begin_segment(&self.folder, self.head)?;
            let all = segments(&self.folder)?;
            for old in &all[..all.len().saturating_sub(SEGMENTS_MAX)] {
                fs::remove_file(self.folder.join(old))?;
            }
        }
        let (mut line, head) = self.head.extend(decision);
        line.push('\n');
        if let Err(cause) = self.file.write_all(line.as_bytes()) {
            // Half a line would be torn in the middle of the file.
            self.file.set_len(self.bytes)?;
            return Err(cause);
        }
        self.head = head;
        self.bytes += line.len() as u64;
        self.is_dirty = true;
        self.is_urgent |= decision.verdict == Verdict::Refused;
        Ok(())
    }
}

fn own(what: &str, verdict: Verdict, why: &str) -> Decision {
    Decision {
        at: clock::now(),
        who: SELF.to_owned(),
        from: String::new(),
        what: what.to_owned(),
        verdict,
        why: why.to_owned(),
    }
}

/// Names of the files, the oldest first. The folder is the daemon's own; what else lies there is not looked at.
fn segments(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if let Some(name) = name.to_str().filter(|name| number_of(name).is_some()) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn name_of(seq: u64) -> String {
    format!("{seq:020}{SUFFIX}")
}

fn number_of(name: &str) -> Option<u64> {
    let seq = name.strip_suffix(SUFFIX)?.parse().ok()?;
    (name == name_of(seq)).then_some(seq)
}

/// A file that does not end before its length is known.
fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).read(true).open(path)
}

fn begin_segment(folder: &Path, head: Head) -> io::Result<(File, Head, u64)> {
    let path = folder.join(name_of(head.seq + 1));
    let mut line = head.opening();
    line.push('\n');
    // Aside first: a file without its first line would be damage.
    let aside = folder.join("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)?;
    file.write_all(line.as_bytes())?;
    file.sync_all()?;
    fs::rename(&aside, &path)?;
    File::open(folder)?.sync_all()?;
    Ok((append_to(&path)?, head, line.len() as u64))
}

/// Verifies the latest file and goes on behind its last entry; what is told of it goes to `told`.
fn go_on(folder: &Path, name: &str, told: &mut Vec<(String, String)>) -> io::Result<(File, Head, u64)> {
    let file = append_to(&folder.join(name))?;
    let mut content = Vec::new();
    (&file)
        .take(SEGMENT_BYTES_MAX + 2 * LINE_BYTES_MAX as u64)
        .read_to_end(&mut content)?;
    let whole = content
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let mut verifier = Verifier::default();
    let mut lines = content[..whole]
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    let fault = lines.find_map(|line| verifier.take(line).err());
    match (fault, verifier.head()) {
        (None, Some(head)) => {
            if whole < content.len() {
                file.set_len(whole as u64)?;
                let torn = content.len() - whole;
                told.push((
                    "audit log".into(),
                    format!("{torn} bytes of an entry that was not whole were cut off {name}"),
                ));
            }
            Ok((file, head, whole as u64))
        }
        (fault, _) => {
            let lines = content.iter().filter(|byte| **byte == b'\n').count() as u64;
            // Behind every number that may stand in there, and with a chain that does not go on from it.
            let beyond = Head {
                seq: number_of(name).unwrap_or_default().saturating_add(lines),
                ..Head::NONE
            };
            let why = fault.map_or_else(|| "nothing of it is whole".to_owned(), |fault| fault.to_string());
            told.push((
                "audit log".into(),
                format!("{name} is damaged and stays as it is: {why}"),
            ));
            begin_segment(folder, beyond)
        }
    }
}

/// Syncs what was written, in its time.
pub fn begin(engine: &Arc<Engine>) {
    let engine = engine.clone();
    tokio::spawn(async move {
        loop {
            engine.audit.changed.notified().await;
            let waited = tokio::time::timeout(SYNC_WAIT, async {
                while !engine.audit.log().is_urgent {
                    engine.audit.changed.notified().await;
                }
            });
            // Either is time to sync.
            drop(waited.await);
            let syncing = engine.clone();
            let synced = tokio::task::spawn_blocking(move || syncing.audit.sync());
            if let Ok(Err(error)) = synced.await {
                tracing::error!(%error, "the audit log cannot be synced");
            }
            tokio::time::sleep(SYNC_PAUSE).await;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        fs::create_dir(root.path().join("audit")).expect("the daemon's start makes it");
        root
    }

    fn verify(audit: &Audit) -> Result<(u64, Head), String> {
        let mut verifier = Verifier::default();
        for (mut file, bytes) in audit.files().expect("readable") {
            let mut content = Vec::new();
            file.read_to_end(&mut content).expect("readable");
            for line in content[..bytes as usize]
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
            {
                verifier.take(line).map_err(|fault| fault.to_string())?;
            }
        }
        Ok((verifier.first(), verifier.head().expect("a beginning")))
    }

    fn latest(root: &Path) -> PathBuf {
        let folder = root.join("audit");
        folder.join(segments(&folder).expect("readable").pop().expect("one"))
    }

    #[test]
    fn the_log_goes_on_over_daemons_and_files_and_is_bounded() {
        let root = folder();
        let long = "x".repeat(500);
        for _ in 0..3 {
            let audit = Audit::open(root.path()).expect("opens");
            for _ in 0..4000 {
                audit.note_own("start", Verdict::Allowed, &long);
            }
            assert_eq!(verify(&audit).map(|(_, head)| head), Ok(audit.head()));
        }
        let audit = Audit::open(root.path()).expect("opens");
        assert_eq!(audit.head().seq, 12_000);
        let (first, _) = verify(&audit).expect("whole");
        assert!(first > 1, "the oldest are gone");
        let files = audit.files().expect("readable");
        assert_eq!(files.len(), SEGMENTS_MAX);
        let total: u64 = files.iter().map(|(_, bytes)| bytes).sum();
        assert!(total <= SEGMENTS_MAX as u64 * (SEGMENT_BYTES_MAX + LINE_BYTES_MAX as u64));
    }

    /// Wherever the end is torn off, what is left is whole, and the next daemon goes on behind it.
    #[test]
    fn a_torn_end_is_cut_away_and_told() {
        let root = folder();
        let audit = Audit::open(root.path()).expect("opens");
        audit.note_own("one", Verdict::Allowed, "");
        let kept = audit.log().bytes;
        audit.note_own("two", Verdict::Refused, "a rule");
        let whole = fs::read(latest(root.path())).expect("readable");
        drop(audit);
        for length in kept + 1..whole.len() as u64 {
            fs::write(latest(root.path()), &whole[..length as usize]).expect("writable");
            let audit = Audit::open(root.path()).expect("opens");
            assert_eq!(audit.head().seq, 2, "the first, and what is told of the second");
            verify(&audit).expect("whole");
            let text = fs::read_to_string(latest(root.path())).expect("readable");
            assert!(text.contains("not whole were cut off"), "{text}");
            assert!(!text.contains("a rule"));
        }
    }

    /// Damage is never healed by a start, and hides nothing that comes behind it.
    #[test]
    fn damage_stays_and_is_found() {
        let root = folder();
        let audit = Audit::open(root.path()).expect("opens");
        for number in 0..5 {
            audit.note_own(&format!("what {number}"), Verdict::Allowed, "");
        }
        drop(audit);
        let path = latest(root.path());
        let mut content = fs::read(&path).expect("readable");
        let at = content.len() / 2;
        content[at] ^= 1;
        fs::write(&path, &content).expect("writable");
        for _ in 0..2 {
            let audit = Audit::open(root.path()).expect("opens");
            audit.note_own("behind it", Verdict::Allowed, "");
            verify(&audit).expect_err("the damage is found");
            assert_eq!(fs::read(&path).expect("readable"), content, "and stays");
        }
        let text = fs::read_to_string(latest(root.path())).expect("readable");
        assert!(text.contains("is damaged and stays as it is") && text.contains("behind it"));
        // Nor by a file without anything in it.
        fs::write(latest(root.path()), "").expect("writable");
        let audit = Audit::open(root.path()).expect("opens");
        verify(&audit).expect_err("the damage is found");
    }
}
