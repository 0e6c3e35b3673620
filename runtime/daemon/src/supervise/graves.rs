//! What is remembered of apps that were removed: which generation was taken last. Without it, whoever keeps an old document could bring back a version
//! with a known fault by having the app removed first.
//!
//! ```text
//! <root>/apps/.graves      {"format":1,"apps":{"web":{"floor":7,"floor_digest":"…"}}}
//! ```
//!
//! Written aside, synced, moved into place, before the app's record goes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::record::folder;

const GRAVES_FORMAT: u32 = 1;
/// Names that are remembered. A device that had more apps than this refuses to remove another one, until some are forgotten.
const GRAVES_MAX: usize = 4096;
const FILE: &str = ".graves";

/// What was taken of one app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grave {
    /// The highest generation.
    pub floor: u64,
    /// The digest of its document.
    pub floor_digest: String,
}

/// By name of app.
pub type Graves = BTreeMap<String, Grave>;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u32,
    apps: Graves,
}

/// Reads all; none where nothing was removed yet.
pub fn read(root: &Path) -> io::Result<Graves> {
    let bytes = match fs::read(folder(root).join(FILE)) {
        Ok(bytes) => bytes,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Graves::new()),
        Err(cause) => return Err(cause),
    };
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let document: Document = serde_json::from_slice(&bytes).map_err(|cause| invalid(cause.to_string()))?;
    match document.format {
        GRAVES_FORMAT => Ok(document.apps),
        format => Err(invalid(format!(
            "format {format}; this version reads format {GRAVES_FORMAT}"
        ))),
    }
}

/// Remembers an app, or, with `None`, forgets it. Writes nothing where nothing changes.
pub fn put(root: &Path, name: &str, grave: Option<Grave>) -> io::Result<()> {
    let before = read(root)?;
    let mut apps = before.clone();
    match grave {
        Some(grave) => apps.insert(name.to_owned(), grave),
        None => apps.remove(name),
    };
    if apps == before {
        return Ok(());
    }
    if apps.len() > GRAVES_MAX {
        return Err(io::Error::other(format!(
            "{GRAVES_MAX} removed apps are remembered; let go of some first: kakoi app remove --forget NAME"
        )));
    }
    let document = Document {
        format: GRAVES_FORMAT,
        apps,
    };
    let bytes = serde_json::to_vec(&document).expect("names and numbers are plain data");
    let aside = folder(root).join(".graves.new");
    let mut file = crate::host::create_private_file(&aside)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&aside, folder(root).join(FILE))?;
    File::open(folder(root))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_is_remembered_until_it_is_forgotten() {
        let place = tempfile::tempdir().expect("a folder");
        let root = place.path();
        fs::create_dir(folder(root)).expect("the daemon's start makes it");
        assert!(read(root).expect("nothing yet").is_empty());
        let grave = Grave {
            floor: 7,
            floor_digest: "ab".into(),
        };
        put(root, "web", Some(grave.clone())).expect("written");
        put(root, "other", Some(grave.clone())).expect("written");
        assert_eq!(read(root).expect("kept").get("web"), Some(&grave));
        put(root, "web", None).expect("forgotten");
        assert_eq!(read(root).expect("kept").len(), 1);
        for damaged in ["", "{}", r#"{"format":2,"apps":{}}"#] {
            fs::write(folder(root).join(FILE), damaged).expect("a file");
            assert!(
                read(root).is_err() && put(root, "web", None).is_err(),
                "{damaged:?}"
            );
        }
    }
}
