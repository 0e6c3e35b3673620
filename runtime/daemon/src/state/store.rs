//! Keeping records.
//!
//! Owns `state.redb`. One thread writes; requests that wait while it syncs share the next sync. Invariant: [`Store::put`] and
//! [`Store::delete`] return after the change is on the disk (in memory, for a container that removes itself).

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use redb::backends::FileBackend;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::{mpsc, oneshot};

use super::copies;
use super::record::{RECORD_FORMAT, Record, VolumeRecord};
use crate::host::{ORPHAN_STEP, ORPHAN_WAIT};

const CONTAINERS: TableDefinition<&str, &[u8]> = TableDefinition::new("containers");
pub(super) const VOLUMES: TableDefinition<&str, &[u8]> = TableDefinition::new("volumes");

/// Everything is read once, at the start: the cache only serves writes.
const CACHE_BYTES: usize = 256 << 10;
/// So many daemons of one version may panic in a row while they read the records before the records are taken for the reason.
const PANICS_MAX: u32 = 2;
/// Changes that wait for the writer; more than there can be requests.
const QUEUE_MAX: usize = 1024;
/// Changes that share one sync.
const BATCH_MAX: usize = 64;

/// A record that could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be opened.
    #[error("opening the records in {}", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: redb::Error,
    },
    /// The database cannot be read.
    #[error("reading the records")]
    Read(#[source] redb::Error),
    /// The change is not on the disk.
    #[error("writing a record")]
    Write(#[source] std::sync::Arc<redb::Error>),
    /// An ephemeral record cannot be written.
    #[error("writing {}", .path.display())]
    Ephemeral {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A record of another version: not damage, and not to be touched.
    #[error("the record of {key} has format {format}; this version reads format {RECORD_FORMAT}")]
    Version {
        /// Id or name.
        key: String,
        /// What it says.
        format: u32,
    },
    /// The writer is gone.
    #[error("the daemon is stopping")]
    Stopping,
}

pub(super) struct Change {
    pub(super) table: TableDefinition<'static, &'static str, &'static [u8]>,
    pub(super) key: String,
    pub(super) value: Option<Vec<u8>>,
    pub(super) done: oneshot::Sender<Result<(), std::sync::Arc<redb::Error>>>,
}

/// Where records are kept.
#[derive(Debug)]
pub struct Store {
    writer: mpsc::Sender<Change>,
    records_dir: PathBuf,
}

/// What was kept.
#[derive(Debug, Default)]
pub struct Kept {
    /// Containers.
    pub containers: Vec<Record>,
    /// Volumes.
    pub volumes: Vec<VolumeRecord>,
    /// What was damaged and is healed, or not.
    pub damage: Vec<Damaged>,
    /// Whether something may be missing: now, or since an earlier start whose damaged database nobody has looked at yet.
    pub is_damaged: bool,
}

/// Damage to the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// The container's id or the volume's name; `None` where it is the whole database.
    pub key: Option<String>,
    /// Whether a copy was found.
    pub healed: bool,
}

impl Store {
    /// Opens the records of `root`, and reads them with the ephemeral ones in `records_dir` (`<run>/records`).
    ///
    /// A file that is damaged is set aside, and its records are made anew from their copies ([`copies`]).
    ///
    /// # Errors
    /// The file cannot be opened, or another process has it open.
    pub fn open(root: &Path, records_dir: &Path) -> Result<(Self, Kept), StoreError> {
        let path = root.join("state.redb");
        let open = |cause: redb::Error| StoreError::Open {
            path: path.clone(),
            cause,
        };
        let (database, kept) = read_kept(root, records_dir)?;
        let (writer, queue) = mpsc::channel(QUEUE_MAX);
        std::thread::Builder::new()
            .name("records".into())
            .stack_size(256 << 10)
            .spawn(move || write_changes(&database, queue))
            .map_err(|cause| open(redb::Error::Io(cause)))?;
        Ok((
            Self {
                writer,
                records_dir: records_dir.to_owned(),
            },
            kept,
        ))
    }

    /// Keeps a container.
    pub async fn put(&self, record: &Record) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(record).expect("a record is plain data");
        if record.host_config.auto_remove {
            return self.put_ephemeral(&record.id, &bytes);
        }
        self.change(CONTAINERS, &record.id, Some(bytes)).await
    }

    /// Forgets a container.
    pub async fn delete(&self, record: &Record) -> Result<(), StoreError> {
        if record.host_config.auto_remove {
            let path = self.ephemeral(&record.id);
            return match std::fs::remove_file(&path) {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                    Err(StoreError::Ephemeral { path, cause })
                }
                _ => Ok(()),
            };
        }
        self.change(CONTAINERS, &record.id, None).await
    }

    /// Takes away what stands under a container's id, whatever it is.
    pub async fn forget(&self, id: &str) -> Result<(), StoreError> {
        self.change(CONTAINERS, id, None).await
    }

    /// Keeps a volume.
    pub async fn put_volume(&self, volume: &VolumeRecord) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(volume).expect("a record is plain data");
        self.change(VOLUMES, &volume.name, Some(bytes)).await
    }

    /// Forgets a volume.
    pub async fn delete_volume(&self, name: &str) -> Result<(), StoreError> {
        self.change(VOLUMES, name, None).await
    }

    fn ephemeral(&self, id: &str) -> PathBuf {
        self.records_dir.join(format!("{id}.json"))
    }

    fn put_ephemeral(&self, id: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.ephemeral(id);
        let aside = self.records_dir.join(format!("{id}.new"));
        crate::host::create_private_file(&aside)
            .and_then(|mut file| io::Write::write_all(&mut file, bytes))
            .and_then(|()| std::fs::rename(&aside, &path))
            .map_err(|cause| StoreError::Ephemeral { path, cause })
    }

    async fn change(
        &self,
        table: TableDefinition<'static, &'static str, &'static [u8]>,
        key: &str,
        value: Option<Vec<u8>>,
    ) -> Result<(), StoreError> {
        let (done, written) = oneshot::channel();
        let change = Change {
            table,
            key: key.to_owned(),
            value,
            done,
        };
        self.writer.send(change).await.map_err(|_| StoreError::Stopping)?;
        written
            .await
            .map_err(|_| StoreError::Stopping)?
            .map_err(StoreError::Write)
    }
}

/// What is kept below `root` and in `records_dir`, and the database that it is kept in.
pub(super) fn read_kept(root: &Path, records_dir: &Path) -> Result<(Database, Kept), StoreError> {
    // A file that is damaged in the wrong place takes its reader down: redb panics, and a panic ends the daemon.
    let panics = Panics::begin(root);
    let read = read_or_make_anew(root, &root.join("state.redb"), panics.are_too_many());
    // It lived: whatever it says, the file is no reader's death.
    panics.end();
    let (database, mut kept) = read?;
    copies::keep_missing(root, &kept);
    kept.is_damaged = !kept.damage.is_empty() || !copies::set_aside(root).is_empty();
    for record in read_ephemeral(records_dir) {
        if !kept.containers.iter().any(|other| other.id == record.id) {
            kept.containers.push(record);
        }
    }
    Ok((database, kept))
}

/// Reads the records; those that are damaged are made anew. Any other error leaves everything as it is: what cannot be read now, or was written
/// by another version, is not damaged.
fn read_or_make_anew(root: &Path, path: &Path, has_killed: bool) -> Result<(Database, Kept), StoreError> {
    // A new file has nothing in it, and neither have the folders beside it.
    let is_lost = match std::fs::metadata(path) {
        Ok(meta) => meta.len() == 0,
        Err(cause) => cause.kind() == io::ErrorKind::NotFound,
    };
    if is_lost && copies::has_folders(root) {
        return make_anew(root, path, "it was empty");
    }
    if has_killed {
        return make_anew(root, path, "daemons panicked while they read it");
    }
    let opened = open_file(path).and_then(|database| {
        let kept = read_all(&database, root)?;
        Ok((database, kept))
    });
    match opened {
        Err(error) if is_damage(&error) => make_anew(root, path, &crate::refusal::chain(&error)),
        opened => opened,
    }
}

type Hook = dyn Fn(&std::panic::PanicHookInfo<'_>) + Send + Sync;

/// How many daemons of this version in a row panicked while they read the records, counted by a panic hook that is there only meanwhile.
///
/// A daemon that is killed, or loses its power, while it reads is not counted: that says nothing about the records.
pub(super) struct Panics {
    path: PathBuf,
    count: u32,
    before: std::sync::Arc<Hook>,
}

impl Panics {
    pub(super) fn begin(root: &Path) -> Self {
        let path = root.join("state.redb.opening");
        let count = std::fs::read_to_string(&path).ok().and_then(|text| {
            let (count, version) = text.trim_end().split_once(' ')?;
            // Another version may read what this one could not.
            (version == env!("CARGO_PKG_VERSION")).then(|| count.parse().ok())?
        });
        let count: u32 = count.unwrap_or(0);
        let before: std::sync::Arc<Hook> = std::panic::take_hook().into();
        let (reader, counted, next) = (std::thread::current().id(), path.clone(), before.clone());
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().id() == reader {
                let text = format!("{} {}", count.saturating_add(1), env!("CARGO_PKG_VERSION"));
                // The panic itself is told by the next hook; one that is not counted costs a start.
                crate::host::create_private_file(&counted)
                    .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
                    .ok();
            }
            next(info);
        }));
        Self { path, count, before }
    }

    fn are_too_many(&self) -> bool {
        self.count >= PANICS_MAX
    }

    fn end(self) {
        let before = self.before;
        std::panic::set_hook(Box::new(move |info| before(info)));
        std::fs::remove_file(self.path).ok();
    }
}

/// Opens the file. The folders' lock keeps daemons apart, but a predecessor's goes before its records do: who still has these is waited for.
pub(super) fn open_file(path: &Path) -> Result<Database, StoreError> {
    let deadline = Instant::now() + ORPHAN_WAIT;
    loop {
        match open_file_now(path) {
            Err(redb::Error::DatabaseAlreadyOpen) if Instant::now() < deadline => {
                std::thread::park_timeout(ORPHAN_STEP);
            }
            opened => {
                return opened.map_err(|cause| StoreError::Open {
                    path: path.to_owned(),
                    cause,
                });
            }
        }
    }
}

fn open_file_now(path: &Path) -> Result<Database, redb::Error> {
    // Containers' environments are in it, and with them secrets.
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(redb::Error::Io)?;
    open_backend(FileBackend::new(file)?)
}

/// Opens the database over whatever holds its bytes.
pub(super) fn open_backend(backend: impl redb::StorageBackend) -> Result<Database, redb::Error> {
    Ok(Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create_with_backend(backend)?)
}

/// Whether it is the file's content that is wrong, rather than that it cannot be read now.
fn is_damage(error: &StoreError) -> bool {
    let (StoreError::Open { cause, .. } | StoreError::Read(cause)) = error else {
        return false;
    };
    match cause {
        // A newer redb's file is told only by these words.
        redb::Error::Corrupted(text) => !text.starts_with("Expected file format version"),
        redb::Error::TableTypeMismatch { .. } => true,
        redb::Error::Io(cause) => matches!(
            cause.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
        ),
        _ => false,
    }
}

/// Sets the damaged file aside and fills a new one with what the copies tell.
fn make_anew(root: &Path, path: &Path, error: &str) -> Result<(Database, Kept), StoreError> {
    let failed = |cause: redb::Error| StoreError::Open {
        path: path.to_owned(),
        cause,
    };
    tracing::error!(
        error,
        "the records are damaged; they are set aside and made anew from their copies"
    );
    let aside = copies::next_aside(root);
    let is_lost = std::fs::metadata(path).map_or(true, |meta| meta.len() == 0);
    let is_aside = if is_lost && !copies::set_aside(root).is_empty() {
        // Nothing is to be kept of it, and least of all in place of what is.
        Ok(())
    } else {
        match std::fs::rename(path, &aside) {
            // What is gone leaves an empty file: as long as something lies there, no folder without a record is removed.
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                crate::host::create_private_file(&aside).map(drop)
            }
            renamed => renamed,
        }
    };
    is_aside.map_err(|cause| failed(redb::Error::Io(cause)))?;
    let database = open_file(path)?;
    let (mut kept, silent) = copies::all(root);
    fill(&database, &kept).map_err(failed)?;
    kept.damage.push(Damaged {
        key: None,
        healed: true,
    });
    kept.damage.extend(silent.into_iter().map(|id| Damaged {
        key: Some(id),
        healed: false,
    }));
    Ok((database, kept))
}

fn fill(database: &Database, kept: &Kept) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut table = transaction.open_table(CONTAINERS)?;
        for record in &kept.containers {
            let bytes = serde_json::to_vec(record).expect("a record is plain data");
            table.insert(record.id.as_str(), bytes.as_slice())?;
        }
        let mut table = transaction.open_table(VOLUMES)?;
        for volume in &kept.volumes {
            let bytes = serde_json::to_vec(volume).expect("a record is plain data");
            table.insert(volume.name.as_str(), bytes.as_slice())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn write_changes(database: &Database, mut queue: mpsc::Receiver<Change>) {
    while let Some(first) = queue.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX
            && let Ok(next) = queue.try_recv()
        {
            batch.push(next);
        }
        let result = write_batch(database, &batch).map_err(std::sync::Arc::new);
        for change in batch {
            // An error means that the request was given up; the change stands all the same.
            change.done.send(result.clone()).ok();
        }
    }
}

pub(super) fn write_batch(database: &Database, batch: &[Change]) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    for change in batch {
        let mut table = transaction.open_table(change.table)?;
        match &change.value {
            Some(value) => drop(table.insert(change.key.as_str(), value.as_slice())?),
            None => drop(table.remove(change.key.as_str())?),
        }
    }
    transaction.commit()?;
    Ok(())
}

pub(super) fn read_all(database: &Database, root: &Path) -> Result<Kept, StoreError> {
    let read = |cause: redb::Error| StoreError::Read(cause);
    let transaction = database.begin_read().map_err(|cause| read(cause.into()))?;
    let mut kept = Kept::default();
    let mut damaged = Vec::new();
    each(
        &transaction,
        CONTAINERS,
        |record: Record| kept.containers.push(record),
        |record| record.format,
        |id| damaged.push(id),
    )?;
    for id in damaged {
        let copy = copies::container(root, &id);
        let healed = copy.is_some();
        kept.containers.extend(copy);
        kept.damage.push(Damaged {
            key: Some(id),
            healed,
        });
    }
    let mut damaged = Vec::new();
    each(
        &transaction,
        VOLUMES,
        |volume: VolumeRecord| kept.volumes.push(volume),
        |volume| volume.format,
        |name| damaged.push(name),
    )?;
    for name in damaged {
        kept.volumes.push(copies::volume(root, &name));
        kept.damage.push(Damaged {
            key: Some(name),
            healed: true,
        });
    }
    drop(transaction);
    if kept.damage.iter().any(|damage| damage.healed) {
        fill(database, &kept).map_err(read)?;
    }
    Ok(kept)
}

/// Every row of a table; one that is no record is told of by its key.
fn each<T: serde::de::DeserializeOwned>(
    transaction: &redb::ReadTransaction,
    table: TableDefinition<&str, &[u8]>,
    mut found: impl FnMut(T),
    format: impl Fn(&T) -> u32,
    mut damaged: impl FnMut(String),
) -> Result<(), StoreError> {
    let table = match transaction.open_table(table) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(cause) => return Err(StoreError::Read(cause.into())),
    };
    for row in table.iter().map_err(|cause| StoreError::Read(cause.into()))? {
        let (key, value) = row.map_err(|cause| StoreError::Read(cause.into()))?;
        match serde_json::from_slice::<T>(value.value()) {
            Ok(document) if format(&document) == RECORD_FORMAT => found(document),
            Ok(document) => {
                return Err(StoreError::Version {
                    key: key.value().to_owned(),
                    format: format(&document),
                });
            }
            // Another format may have other fields: that it is another is asked first.
            Err(_) if format_of(value.value()).is_some_and(|format| format != RECORD_FORMAT) => {
                return Err(StoreError::Version {
                    key: key.value().to_owned(),
                    format: format_of(value.value()).unwrap_or_default(),
                });
            }
            Err(cause) => {
                let key = key.value().to_owned();
                tracing::error!(%key, %cause, "a record is damaged");
                damaged(key);
            }
        }
    }
    Ok(())
}

/// The format that a record says it has.
fn format_of(bytes: &[u8]) -> Option<u32> {
    #[derive(serde::Deserialize)]
    struct Head {
        format: u32,
    }
    serde_json::from_slice(bytes).ok().map(|head: Head| head.format)
}

/// Ephemeral records. One that is not whole was never confirmed to a client: it goes.
fn read_ephemeral(records_dir: &Path) -> Vec<Record> {
    let Ok(files) = std::fs::read_dir(records_dir) else {
        return Vec::new();
    };
    files
        .filter_map(|file| {
            let path = file.ok()?.path();
            let bytes = std::fs::read(&path).ok()?;
            let record = serde_json::from_slice(&bytes)
                .ok()
                .filter(|record: &Record| record.format == RECORD_FORMAT);
            if record.is_none() {
                tracing::warn!(path = %path.display(), "ignoring and removing a file that is no record");
                std::fs::remove_file(&path).ok();
            }
            record
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often this process has the file open.
    fn times_open(path: &Path) -> usize {
        let open = std::fs::read_dir("/proc/self/fd").expect("a process sees its descriptors");
        open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .filter(|target| target == path)
            .count()
    }

    #[test]
    fn a_predecessor_that_still_closes_is_waited_for() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("state.redb");
        let predecessor = open_file(&path).expect("a new file opens");
        std::thread::scope(|scope| {
            let successor = scope.spawn(|| open_file(&path));
            while times_open(&path) < 2 && !successor.is_finished() {
                std::thread::yield_now();
            }
            drop(predecessor);
            let opened = successor.join().expect("it does not panic");
            opened.expect("the file opens once its holder has let go");
        });
    }
}
