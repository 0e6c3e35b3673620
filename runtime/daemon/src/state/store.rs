//! Keeping records.
//!
//! Owns `state.redb`. One thread writes; requests that wait while it syncs share the next sync. Invariant: [`Store::put`] and
//! [`Store::delete`] return after the change is on the disk (in memory, for a container that removes itself).

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::{mpsc, oneshot};

use super::record::{RECORD_FORMAT, Record, VolumeRecord};

const CONTAINERS: TableDefinition<&str, &[u8]> = TableDefinition::new("containers");
const VOLUMES: TableDefinition<&str, &[u8]> = TableDefinition::new("volumes");

/// Everything is read once, at the start: the cache only serves writes.
const CACHE_BYTES: usize = 256 << 10;
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
    /// A record is no record, or of a later version.
    #[error("the record of {key} is damaged or of another version")]
    Damaged {
        /// Id or name.
        key: String,
        /// Why.
        #[source]
        cause: Option<serde_json::Error>,
    },
    /// The writer is gone.
    #[error("the daemon is stopping")]
    Stopping,
}

struct Change {
    table: TableDefinition<'static, &'static str, &'static [u8]>,
    key: String,
    value: Option<Vec<u8>>,
    done: oneshot::Sender<Result<(), std::sync::Arc<redb::Error>>>,
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
}

impl Store {
    /// Opens the records of `root`, and reads them with the ephemeral ones in `records_dir` (`<run>/records`).
    ///
    /// # Errors
    /// The file cannot be opened, is damaged, or another process has it open.
    pub fn open(root: &Path, records_dir: &Path) -> Result<(Self, Kept), StoreError> {
        let path = root.join("state.redb");
        let open = |cause: redb::Error| StoreError::Open {
            path: path.clone(),
            cause,
        };
        // Containers' environments are in it, and with them secrets.
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|cause| open(redb::Error::Io(cause)))?;
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(FileBackend::new(file).map_err(|cause| open(cause.into()))?)
            .map_err(|cause| open(cause.into()))?;
        let mut kept = read_all(&database)?;
        for record in read_ephemeral(records_dir) {
            if !kept.containers.iter().any(|other| other.id == record.id) {
                kept.containers.push(record);
            }
        }
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

fn write_batch(database: &Database, batch: &[Change]) -> Result<(), redb::Error> {
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

fn read_all(database: &Database) -> Result<Kept, StoreError> {
    let read = |cause: redb::Error| StoreError::Read(cause);
    let transaction = database.begin_read().map_err(|cause| read(cause.into()))?;
    let mut kept = Kept::default();
    each(
        &transaction,
        CONTAINERS,
        |record: Record| kept.containers.push(record),
        |record| record.format,
    )?;
    each(
        &transaction,
        VOLUMES,
        |volume: VolumeRecord| kept.volumes.push(volume),
        |volume| volume.format,
    )?;
    Ok(kept)
}

fn each<T: serde::de::DeserializeOwned>(
    transaction: &redb::ReadTransaction,
    table: TableDefinition<&str, &[u8]>,
    mut found: impl FnMut(T),
    format: impl Fn(&T) -> u32,
) -> Result<(), StoreError> {
    let table = match transaction.open_table(table) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(cause) => return Err(StoreError::Read(cause.into())),
    };
    for row in table.iter().map_err(|cause| StoreError::Read(cause.into()))? {
        let (key, value) = row.map_err(|cause| StoreError::Read(cause.into()))?;
        let damaged = |cause| StoreError::Damaged {
            key: key.value().to_owned(),
            cause,
        };
        let document: T = serde_json::from_slice(value.value()).map_err(|cause| damaged(Some(cause)))?;
        if format(&document) != RECORD_FORMAT {
            return Err(damaged(None));
        }
        found(document);
    }
    Ok(())
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
