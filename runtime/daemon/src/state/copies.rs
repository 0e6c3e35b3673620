//! Second copies of records, beside what they are about, and the records that are made anew from them.
//!
//! Owns `record.json` in a container's durable folder and in a volume's. They are written when a record is made or its name or limits change, and
//! at a start where one is missing; and read only where `state.redb` is damaged; they are not synced, since no power cut damages what was synced. Refuses to keep what happened
//! to a container: a copy knows how it was made, and the folder whether it ever ran.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::record::{Life, RECORD_FORMAT, Record, VolumeRecord};
use super::store::Kept;
use crate::host::create_private_file;

/// A copy's name.
const COPY: &str = "record.json";
/// Where `fsck` puts what it finds. It is there wherever a folder is a file system of its own, and never ours.
pub const LOST_AND_FOUND: &str = "lost+found";
/// Longest copy: an environment at the kernel's limit fits.
const COPY_BYTES_MAX: u64 = 4 << 20;

/// Writes a container's copy. A failure only costs the copy.
pub fn keep(state_dir: &Path, record: &Record) {
    let copy = Record {
        life: Life::default(),
        ..record.clone()
    };
    write(
        state_dir,
        &serde_json::to_vec(&copy).expect("a record is plain data"),
    );
}

/// Writes a volume's copy. A failure only costs the copy.
pub fn keep_volume(volume_dir: &Path, volume: &VolumeRecord) {
    write(
        volume_dir,
        &serde_json::to_vec(volume).expect("a record is plain data"),
    );
}

fn write(folder: &Path, bytes: &[u8]) {
    let (aside, path) = (folder.join("record.json.new"), folder.join(COPY));
    let written = create_private_file(&aside)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&aside, &path));
    if let Err(cause) = written {
        tracing::warn!(path = %path.display(), %cause, "ignoring a copy of a record that cannot be written");
    }
}

fn read<T: serde::de::DeserializeOwned>(folder: &Path) -> Option<T> {
    let path = folder.join(COPY);
    if fs::symlink_metadata(&path).ok()?.len() > COPY_BYTES_MAX {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// A container's record from its copy.
pub fn container(root: &Path, id: &str) -> Option<Record> {
    let folder = root.join("containers").join(id);
    let mut record: Record = read(&folder)?;
    if record.format != RECORD_FORMAT || record.id != id {
        return None;
    }
    // Whether it ran when the records broke, nobody knows; that it ever ran, its receipt tells. What ran and was not stopped by hand starts again.
    record.life.running = folder.join("receipt.json").exists();
    Some(record)
}

/// A volume's record: from its copy, else what its folder tells.
pub fn volume(root: &Path, name: &str) -> VolumeRecord {
    let folder = root.join("volumes").join(name);
    let copy =
        read(&folder).filter(|volume: &VolumeRecord| volume.format == RECORD_FORMAT && volume.name == name);
    copy.unwrap_or_else(|| VolumeRecord {
        format: RECORD_FORMAT,
        name: name.to_owned(),
        created: crate::clock::now(),
        labels: Default::default(),
        options: Default::default(),
        // One too many is found by a person, one too few is lost with its data.
        anonymous: false,
    })
}

/// Every record that folders below `root` tell of, and the containers whose folder tells nothing.
pub fn all(root: &Path) -> (Kept, Vec<String>) {
    let mut kept = Kept::default();
    let mut silent = Vec::new();
    for id in folders(&root.join("containers")) {
        match container(root, &id) {
            Some(record) => kept.containers.push(record),
            None => silent.push(id),
        }
    }
    for name in folders(&root.join("volumes")) {
        if !is_volume(&root.join("volumes").join(&name)) {
            continue;
        }
        kept.volumes.push(volume(root, &name));
    }
    (kept, silent)
}

/// Whether a folder among the volumes looks like one: others are a person's, and only told of.
pub fn is_volume(folder: &Path) -> bool {
    folder.join("_data").is_dir() || folder.join(COPY).exists()
}

/// Writes the copies that are missing: of records that a version before made, or whose copy was lost.
pub fn keep_missing(root: &Path, kept: &Kept) {
    let is_missing = |folder: &Path| folder.is_dir() && !folder.join(COPY).exists();
    for record in &kept.containers {
        let folder = root.join("containers").join(&record.id);
        if is_missing(&folder) {
            keep(&folder, record);
        }
    }
    for volume in &kept.volumes {
        let folder = root.join("volumes").join(&volume.name);
        if is_missing(&folder) {
            keep_volume(&folder, volume);
        }
    }
}

/// Whether any folder below `root` is a container's or a volume's, with or without a copy.
pub fn has_folders(root: &Path) -> bool {
    ["containers", "volumes"]
        .iter()
        .any(|kind| !folders(&root.join(kind)).is_empty())
}

/// Names of folders, without those on their way to removal and without what a file system keeps in its own root.
pub fn folders(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.') && name != LOST_AND_FOUND)
        .collect();
    names.sort();
    names
}

/// Damaged databases that are kept: the first has most in it, and what breaks again and again is not to fill the disk.
const SET_ASIDE_MAX: usize = 3;

fn places(root: &Path) -> Vec<PathBuf> {
    (1..=SET_ASIDE_MAX)
        .map(|number| match number {
            1 => root.join("state.redb.damaged"),
            number => root.join(format!("state.redb.damaged.{number}")),
        })
        .collect()
}

/// Damaged databases, the first that was found to be so first. They lie there until somebody has looked at them, or a repair removes them.
pub fn set_aside(root: &Path) -> Vec<PathBuf> {
    let mut places = places(root);
    places.retain(|path| path.exists());
    places
}

/// Where one more goes: behind those that are there, and where that is too many in place of the last of them.
pub fn next_aside(root: &Path) -> PathBuf {
    let places = places(root);
    // Behind the last, not into a gap: their order is that of their damage.
    let behind = places
        .iter()
        .rposition(|path| path.exists())
        .map_or(0, |at| at + 1);
    places[behind.min(SET_ASIDE_MAX - 1)].clone()
}
