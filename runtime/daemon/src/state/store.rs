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

use super::copies;
use super::record::{RECORD_FORMAT, Record, VolumeRecord};

const CONTAINERS: TableDefinition<&str, &[u8]> = TableDefinition::new("containers");
pub(super) const VOLUMES: TableDefinition<&str, &[u8]> = TableDefinition::new("volumes");

/// Everything is read once, at the start: the cache only serves writes.
const CACHE_BYTES: usize = 256 << 10;
/// So many daemons may be killed while they read the records, which takes milliseconds, before the records are taken for the reason.
const DEATHS_MAX: u32 = 2;
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
        // A file that is damaged in the wrong place takes its reader down: redb panics, and a panic ends the daemon.
        let deaths = Deaths::begin(root);
        // A new file has nothing in it, and neither have the folders beside it.
        let is_lost = std::fs::metadata(&path).map_or(0, |meta| meta.len()) == 0 && copies::are_there(root);
        let (database, mut kept) = if is_lost {
            make_anew(root, &path, "it was empty")?
        } else if deaths.are_too_many() {
            make_anew(root, &path, "daemons died while they read it")?
        } else {
            let opened = open_file(&path).and_then(|database| {
                let kept = read_all(&database, root)?;
                Ok((database, kept))
            });
            match opened {
                Ok(opened) => opened,
                Err(error) if is_damage(&error) => make_anew(root, &path, &crate::refusal::chain(&error))?,
                Err(error) => return Err(error),
            }
        };
        deaths.end();
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

/// How many daemons in a row died while they read the records. Counted in a file that is there only meanwhile.
struct Deaths {
    path: PathBuf,
    count: u32,
}

impl Deaths {
    fn begin(root: &Path) -> Self {
        let path = root.join("state.redb.opening");
        let count = std::fs::read_to_string(&path)
            .ok()
            .and_then(|text| text.parse().ok());
        let count = count.unwrap_or(0);
        let written = crate::host::create_private_file(&path)
            .and_then(|mut file| io::Write::write_all(&mut file, (count + 1).to_string().as_bytes()));
        if let Err(cause) = written {
            tracing::warn!(%cause, "ignoring that readers of the records cannot be counted");
        }
        Self { path, count }
    }

    fn are_too_many(&self) -> bool {
        self.count >= DEATHS_MAX
    }

    fn end(self) {
        std::fs::remove_file(self.path).ok();
    }
}

pub(super) fn open_file(path: &Path) -> Result<Database, StoreError> {
    let open = |cause: redb::Error| StoreError::Open {
        path: path.to_owned(),
        cause,
    };
    // Containers' environments are in it, and with them secrets.
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|cause| open(redb::Error::Io(cause)))?;
    let backend = FileBackend::new(file).map_err(|cause| open(cause.into()))?;
    open_backend(backend).map_err(open)
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
        redb::Error::Corrupted(_)
        | redb::Error::UpgradeRequired(_)
        | redb::Error::TableTypeMismatch { .. } => true,
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
    match std::fs::rename(path, copies::damaged_path(root)) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(failed(redb::Error::Io(cause))),
        _ => {}
    }
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
            Err(cause) => {
                let key = key.value().to_owned();
                tracing::error!(%key, %cause, "a record is damaged");
                damaged(key);
            }
        }
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
