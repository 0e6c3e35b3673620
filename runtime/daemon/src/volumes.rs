//! Named volumes: folders below the root, and their records.
//!
//! Invariant: the folder is there before the record is written and goes after the record is gone... except in removal, where the record goes last: a
//! volume that a client sees always has its folder. A volume that a container mounts is not removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::{Arc, Mutex};

use kakoi_api::volume::{UsageData, Volume};

use crate::clock;
use crate::config::Paths;
use crate::engine::Engine;
use crate::host;
use crate::names;
use crate::quota;
use crate::refusal::{Answer, Refusal};
use crate::state::record::RECORD_FORMAT;
use crate::state::{Record, VolumeRecord, copies};
use kakoi_container::discard::remove_tree;

/// Volumes one daemon takes.
const VOLUMES_MAX: usize = 4096;

/// All volumes.
#[derive(Debug)]
pub struct Volumes {
    rows: Mutex<BTreeMap<String, VolumeRecord>>,
    /// Serialises making and removing.
    turn: tokio::sync::Mutex<()>,
    /// Volumes that are being backed up or restored.
    held: Arc<Mutex<Vec<Copying>>>,
}

/// A volume that is being copied.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Copying {
    name: String,
    act: Use,
}

/// What is being done with a volume's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// They are archived: as often as anybody likes at a time.
    Export,
    /// An archive is put among them: alone.
    Import,
}

/// A volume that is not removed for as long as this lives.
#[derive(Debug)]
pub struct Held {
    all: Arc<Mutex<Vec<Copying>>>,
    own: Copying,
}

impl Held {
    /// The volume's name.
    pub fn name(&self) -> &str {
        &self.own.name
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut all = self.all.lock().expect("no panic while locked");
        if let Some(at) = all.iter().position(|copying| *copying == self.own) {
            all.swap_remove(at);
        }
    }
}

impl Volumes {
    /// The volumes that were kept.
    pub fn new(kept: Vec<VolumeRecord>) -> Self {
        let rows = kept
            .into_iter()
            .map(|volume| (volume.name.clone(), volume))
            .collect();
        Self {
            rows: Mutex::new(rows),
            turn: tokio::sync::Mutex::new(()),
            held: Arc::default(),
        }
    }

    /// All, in the order of their names.
    pub fn all(&self) -> Vec<VolumeRecord> {
        self.rows
            .lock()
            .expect("no panic while locked")
            .values()
            .cloned()
            .collect()
    }

    /// Finds by name.
    pub fn find(&self, name: &str) -> Answer<VolumeRecord> {
        let rows = self.rows.lock().expect("no panic while locked");
        rows.get(name)
            .cloned()
            .ok_or_else(|| Refusal::missing(format!("get {name}: no such volume")))
    }

    /// Makes a volume, of at most `size` bytes; one of that name is given back as it is.
    pub async fn create(
        &self,
        engine: &Engine,
        name: &str,
        labels: BTreeMap<String, String>,
        options: BTreeMap<String, String>,
        size: Option<u64>,
    ) -> Answer<(VolumeRecord, bool)> {
        let _turn = self.turn.lock().await;
        let anonymous = name.is_empty();
        let name = settle_name(name)?;
        if let Ok(held) = self.find(&name) {
            return Ok((held, false));
        }
        if self.rows.lock().expect("no panic while locked").len() >= VOLUMES_MAX {
            return Err(Refusal::unavailable(format!(
                "there are {VOLUMES_MAX} volumes already; remove some first"
            )));
        }
        let volume = VolumeRecord {
            format: RECORD_FORMAT,
            name: name.clone(),
            created: clock::now(),
            labels,
            options,
            anonymous,
        };
        let folder = engine.paths.volume_dir(&name);
        let kept = match make_limited(&engine.paths, &volume, size) {
            Ok(()) => engine.store.put_volume(&volume).await.map_err(|cause| {
                Refusal::failed(format!("create {name}: the volume cannot be recorded"), cause)
            }),
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = kept {
            let project = quota::project_of(&folder);
            // Only an empty folder: what an unknown hand put there is not ours to take.
            fs::remove_file(folder.join("record.json")).ok();
            fs::remove_dir(folder.join("_data"))
                .and_then(|()| fs::remove_dir(&folder))
                .ok();
            if let Some(project) = project.filter(|_| !folder.exists()) {
                quota::release(&engine.paths.root, project);
            }
            return Err(refusal);
        }
        self.rows
            .lock()
            .expect("no panic while locked")
            .insert(name.clone(), volume.clone());
        engine.events.tell(
            "volume",
            "create",
            &name,
            BTreeMap::from([("driver".into(), "local".into())]),
        );
        Ok((volume, true))
    }

    /// Takes in a volume whose folder is there and whose record was lost.
    pub async fn adopt(&self, engine: &Engine, volume: VolumeRecord) -> Answer<()> {
        let _turn = self.turn.lock().await;
        if self.find(&volume.name).is_ok() {
            return Ok(());
        }
        let refused = |cause| Refusal::failed(format!("volume {} cannot be recorded", volume.name), cause);
        make_folders(&engine.paths, &volume.name)
            .map_err(|cause| Refusal::failed(format!("volume {} cannot be made", volume.name), cause))?;
        engine.store.put_volume(&volume).await.map_err(refused)?;
        let mut rows = self.rows.lock().expect("no panic while locked");
        rows.insert(volume.name.clone(), volume);
        Ok(())
    }

    /// Removes a volume that no container mounts.
    pub async fn remove(&self, engine: &Engine, name: &str) -> Answer<()> {
        let _turn = self.turn.lock().await;
        self.find(name)?;
        let users = users(engine, name);
        if !users.is_empty() {
            return Err(Refusal::conflict(format!(
                "remove {name}: volume is in use - [{}]",
                users.into_iter().collect::<Vec<_>>().join(", ")
            )));
        }
        self.take_away(engine, name).await
    }

    /// Keeps a volume from being removed while its files are copied. An import is alone with it, but for the containers that use it.
    pub async fn hold(&self, name: &str, act: Use) -> Answer<Held> {
        let _turn = self.turn.lock().await;
        self.find(name)?;
        let mut all = self.held.lock().expect("no panic while locked");
        let meets = |held: &Copying| held.name == name && (act == Use::Import || held.act == Use::Import);
        if all.iter().any(meets) {
            return Err(Refusal::conflict(format!(
                "volume {name} is being exported or imported; try again when that is done"
            )));
        }
        let own = Copying {
            name: name.to_owned(),
            act,
        };
        all.push(own.clone());
        Ok(Held {
            all: self.held.clone(),
            own,
        })
    }

    fn is_held(&self, name: &str) -> bool {
        let all = self.held.lock().expect("no panic while locked");
        all.iter().any(|copying| copying.name == name)
    }

    async fn take_away(&self, engine: &Engine, name: &str) -> Answer<()> {
        if self.is_held(name) {
            return Err(Refusal::conflict(format!(
                "remove {name}: volume is in use - it is being exported or imported"
            )));
        }
        let folder = engine.paths.volume_dir(name);
        let project = quota::project_of(&folder);
        tokio::task::spawn_blocking(move || remove_tree(&folder))
            .await
            .map_err(|cause| Refusal::failed(format!("remove {name}: removing its files failed"), cause))?
            .map_err(|cause| {
                Refusal::failed(
                    format!("remove {name}: removing its files failed: {cause}"),
                    cause,
                )
            })?;
        if let Some(project) = project {
            quota::release(&engine.paths.root, project);
        }
        engine.store.delete_volume(name).await.map_err(|cause| {
            Refusal::failed(format!("remove {name}: the removal cannot be recorded"), cause)
        })?;
        self.rows.lock().expect("no panic while locked").remove(name);
        engine.events.tell(
            "volume",
            "destroy",
            name,
            BTreeMap::from([("driver".into(), "local".into())]),
        );
        Ok(())
    }

    /// Removes the volumes that were made for a container alone. Failures are logged: the container goes all the same.
    pub async fn remove_anonymous(&self, engine: &Arc<Engine>, record: &Record) {
        let _turn = if record.anonymous_volumes.is_empty() {
            None
        } else {
            Some(self.turn.lock().await)
        };
        for name in &record.anonymous_volumes {
            let mut users = users(engine, name);
            users.remove(&record.id);
            if users.is_empty()
                && self.find(name).is_ok()
                && let Err(refusal) = self.take_away(engine, name).await
            {
                tracing::warn!(volume = %name, error = crate::refusal::chain(&refusal), "ignoring a volume that cannot be removed");
            }
        }
    }

    /// A volume for the wire.
    pub fn to_wire(&self, engine: &Engine, volume: &VolumeRecord) -> Volume {
        Volume {
            created_at: volume.created.clone(),
            driver: "local".into(),
            labels: volume.labels.clone(),
            mountpoint: engine
                .paths
                .volume_dir(&volume.name)
                .join("_data")
                .display()
                .to_string(),
            name: volume.name.clone(),
            options: (!volume.options.is_empty()).then(|| volume.options.clone()),
            scope: "local".into(),
            usage_data: None,
        }
    }

    /// A volume's use.
    pub fn usage(&self, engine: &Engine, name: &str) -> UsageData {
        UsageData {
            size: tree_bytes(&engine.paths.volume_dir(name)),
            ref_count: i64::try_from(users(engine, name).len()).unwrap_or(i64::MAX),
        }
    }
}

/// Makes a new volume's folders and its record's copy, and bounds what comes into it from then on.
fn make_limited(paths: &Paths, volume: &VolumeRecord, size: Option<u64>) -> Answer<()> {
    let name = &volume.name;
    let folder = paths.volume_dir(name);
    let unmade = |cause| Refusal::failed(format!("create {name}: making the folder failed"), cause);
    let unbounded = |cause| Refusal::failed(format!("create {name}: it cannot be bounded"), cause);
    if size.is_some() {
        // First: what is made in the folder, its data and what an import puts aside too, is of the same project.
        host::make_private_folder(&folder).map_err(unmade)?;
        if fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Refusal::conflict(format!(
                "create {name}: {} holds files of nobody's, which no size limit would count; move them away",
                folder.display()
            )));
        }
        quota::begin(&folder).map_err(unbounded)?;
    }
    make_folders(paths, name).map_err(unmade)?;
    copies::keep_volume(&folder, volume);
    match size {
        Some(bytes) => quota::limit(&folder, bytes).map_err(unbounded),
        None => Ok(()),
    }
}

/// Makes a volume's folders where they are missing.
pub fn make_folders(paths: &Paths, name: &str) -> Result<(), host::HostError> {
    let folder = paths.volume_dir(name);
    host::make_private_folder(&folder)?;
    host::make_folder(&folder.join("_data"), 0o755)
}

/// Ids of the containers that mount a volume.
pub fn users(engine: &Engine, name: &str) -> BTreeSet<String> {
    engine
        .containers
        .all()
        .into_iter()
        .filter(|container| {
            container
                .shared()
                .record
                .mounts
                .iter()
                .any(|mount| mount.kind == "volume" && mount.name == name)
        })
        .map(|container| container.id.clone())
        .collect()
}

/// Bytes that a tree occupies; what cannot be read counts as nothing. Follows no link.
pub fn tree_bytes(path: &std::path::Path) -> i64 {
    use std::os::unix::fs::MetadataExt;
    let mut bytes: u64 = 0;
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                bytes += metadata.blocks() * 512;
            }
        }
    }
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A valid name, or a random one where none is given.
fn settle_name(name: &str) -> Answer<String> {
    if name.is_empty() {
        return names::new_id().map_err(|cause| Refusal::failed("no random bytes for a name", cause));
    }
    if names::is_valid(name) {
        return Ok(name.to_owned());
    }
    Err(Refusal::bad(format!(
        "create {name}: \"{name}\" includes invalid characters for a local volume name, only \
         {} are allowed. If you intended to pass a host directory, use absolute path",
        names::RULE
    )))
}
