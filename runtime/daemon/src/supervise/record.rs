//! The stored form of an app: one JSON document, `apps/NAME.json` in the root folder.
//!
//! ```text
//! {"format":1,"state":{"phase":"steady","floor":3,"floor_digest":"…","current":{…},"candidate":null,"previous":null, …}}
//! ```
//!
//! Written as a whole: aside, synced, moved into place, the folder synced. What cannot be read is left as it is, and its app is not supervised: its
//! floor would be lost with it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::table::State;

/// The version of the stored form.
const APP_FORMAT: u32 = 1;
/// Largest record: three documents of 256 KiB with every character escaped, and the history.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// What a document's name ends with.
const SUFFIX: &str = ".json";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u32,
    state: State,
}

#[derive(Serialize)]
struct Written<'s> {
    format: u32,
    state: &'s State,
}

/// Where records of apps lie.
pub fn folder(root: &Path) -> PathBuf {
    root.join("apps")
}

fn path(root: &Path, name: &str) -> PathBuf {
    folder(root).join(format!("{name}{SUFFIX}"))
}

/// Reads every app there is; what cannot be read stands there as the error.
pub fn read_all(root: &Path) -> io::Result<Vec<(String, io::Result<State>)>> {
    let entries = match fs::read_dir(folder(root)) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(cause),
    };
    let mut all = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        if let Some(name) = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)) {
            all.push((name.to_owned(), read(&path(root, name))));
        }
    }
    all.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(all)
}

fn read(path: &Path) -> io::Result<State> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let document: Document = serde_json::from_slice(&bytes).map_err(|cause| invalid(cause.to_string()))?;
    if document.format != APP_FORMAT {
        return Err(invalid(format!(
            "format {}; this version reads format {APP_FORMAT}",
            document.format
        )));
    }
    Ok(document.state)
}

/// Writes an app, durably.
pub fn write(root: &Path, name: &str, state: &State) -> io::Result<()> {
    let folder = folder(root);
    let written = Written {
        format: APP_FORMAT,
        state,
    };
    let bytes = serde_json::to_vec(&written).expect("a state is plain data");
    let aside = folder.join(format!("{name}.new"));
    let mut file = crate::host::create_private_file(&aside)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&aside, path(root, name))?;
    File::open(&folder)?.sync_all()?;
    match fs::read(path(root, name))? == bytes {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "what is read back is not what was written",
        )),
    }
}

/// Removes an app, durably.
pub fn remove(root: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(path(root, name)) {
        Ok(()) => File::open(folder(root))?.sync_all(),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apps_are_kept_and_damage_is_told() {
        let place = tempfile::tempdir().expect("a folder");
        let root = place.path();
        assert!(read_all(root).expect("none yet").is_empty());
        fs::create_dir(folder(root)).expect("the daemon's start makes it");
        let state = State {
            floor: 7,
            ..State::new()
        };
        write(root, "web", &State::new()).expect("written");
        write(root, "web", &state).expect("written over");
        let all = read_all(root).expect("kept");
        assert_eq!(all.len(), 1, "nothing lies beside it");
        assert_eq!(all[0].1.as_ref().expect("whole").floor, 7, "the later one counts");
        // What a cut may leave of a write that was not finished.
        fs::write(folder(root).join("web.new"), "{").expect("a file");
        assert_eq!(read_all(root).expect("kept").len(), 1);
        for damaged in [
            "",
            "{",
            r#"{"format":2,"state":{}}"#,
            r#"{"format":1,"state":{}}"#,
        ] {
            fs::write(path(root, "web"), damaged).expect("a file");
            let all = read_all(root).expect("the folder is there");
            assert!(all[0].1.is_err(), "{damaged:?}");
        }
        remove(root, "web").expect("removed");
        remove(root, "web").expect("nothing there");
        assert!(read_all(root).expect("none left").is_empty());
    }
}
