//! Secrets: values that apps need and nobody else may see.
//!
//! Owns their files below the root, and what is told of them. Refuses to give a value to anybody but a container ([`give`]): no answer, record, log
//! or error holds one. Invariant: a secret is there whole or not at all; one that cannot be read is left as it is and given to nobody.
//!
//! ```text
//! <root>/secrets/NAME.secret      0600, in a folder of mode 0700
//!     {"format":1,"id":"…","created":"…","updated":"…","labels":{}}⏎ and the value behind it, as it is
//! ```

pub mod give;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use kakoi_api::secret::Secret;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::engine::Engine;
use crate::names;
use crate::refusal::{Answer, Refusal, chain};

/// The version of the stored form.
const SECRET_FORMAT: u32 = 1;
/// Largest value, in bytes. Podman's figure, and Docker's about.
pub const VALUE_BYTES_MAX: usize = 512_000;
/// Secrets of one device.
const SECRETS_MAX: usize = 1024;
/// Longest first line: labels have the room of a request's line.
const HEAD_BYTES_MAX: u64 = 64 << 10;
/// Digits of an id. Podman's.
const ID_DIGITS: usize = 25;
/// What a secret's file ends with.
const SUFFIX: &str = ".secret";

/// A value. Without `Debug`.
pub struct Value(Vec<u8>);

impl Value {
    /// Takes what somebody sent, within the limits.
    pub fn new(bytes: Vec<u8>) -> Answer<Self> {
        match bytes.len() {
            1..=VALUE_BYTES_MAX => Ok(Self(bytes)),
            _ => Err(Refusal::bad(format!(
                "a secret holds 1 to {VALUE_BYTES_MAX} bytes, not {}",
                bytes.len()
            ))),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What is stored of a secret beside its value.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    format: u32,
    id: String,
    created: String,
    updated: String,
    labels: BTreeMap<String, String>,
}

/// All secrets.
#[derive(Debug)]
pub struct Secrets {
    folder: PathBuf,
    /// `None` for one whose file cannot be read.
    rows: Mutex<BTreeMap<String, Option<Head>>>,
}

impl Secrets {
    /// Reads what is known of each. The folder is there.
    pub fn open(root: &Path) -> io::Result<Self> {
        let folder = root.join("secrets");
        let mut rows = BTreeMap::new();
        for entry in fs::read_dir(&folder)? {
            let name = entry?.file_name();
            let Some(name) = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)) else {
                continue;
            };
            let head = open(&folder, name).map(|(head, _)| head);
            if let Err(error) = &head {
                tracing::error!(secret = name, %error, "a secret cannot be read; it is left as it is");
            }
            rows.insert(name.to_owned(), head.ok());
        }
        Ok(Self {
            folder,
            rows: Mutex::new(rows),
        })
    }

    /// All, by name.
    pub fn all(&self, engine: &Engine) -> Vec<Secret> {
        let rows = self.rows.lock().expect("no panic while locked").clone();
        rows.iter()
            .map(|(name, head)| told(engine, name, head.as_ref()))
            .collect()
    }

    /// One, by name or id.
    pub fn find(&self, engine: &Engine, name: &str) -> Answer<Secret> {
        let (name, head) = self.row(name)?;
        Ok(told(engine, &name, head.as_ref()))
    }

    fn row(&self, wanted: &str) -> Answer<(String, Option<Head>)> {
        let rows = self.rows.lock().expect("no panic while locked");
        let found = rows.get_key_value(wanted).or_else(|| {
            rows.iter()
                .find(|(_, head)| head.as_ref().is_some_and(|head| head.id == wanted))
        });
        let (name, head) = found.ok_or_else(|| missing(wanted))?;
        Ok((name.clone(), head.clone()))
    }

    /// Keeps a value. One of that name is exchanged where that is asked for: containers see the new one at their next start.
    pub fn create(
        &self,
        engine: &Engine,
        name: &str,
        labels: BTreeMap<String, String>,
        value: &Value,
        replaces: bool,
    ) -> Answer<Secret> {
        if !names::is_valid(name) {
            return Err(Refusal::bad(format!(
                "secret name {name:?} is not {}",
                names::RULE
            )));
        }
        let mut rows = self.rows.lock().expect("no panic while locked");
        let before = rows.get(name).cloned();
        if before.is_some() && !replaces {
            return Err(Refusal::conflict(format!(
                "secret {name} exists already; give it another value with --replace"
            )));
        }
        if before.is_none() && rows.len() >= SECRETS_MAX {
            return Err(Refusal::unavailable(format!(
                "there are {SECRETS_MAX} secrets already; remove some first"
            )));
        }
        let mut id = names::new_id().map_err(|cause| Refusal::failed("no random bytes for an id", cause))?;
        id.truncate(ID_DIGITS);
        let now = clock::now();
        let head = Head {
            format: SECRET_FORMAT,
            id,
            created: before
                .flatten()
                .map_or_else(|| now.clone(), |before| before.created),
            updated: now,
            labels,
        };
        write(&self.folder, name, &head, value)
            .map_err(|cause| Refusal::failed(format!("secret {name} cannot be written"), cause))?;
        rows.insert(name.to_owned(), Some(head.clone()));
        drop(rows);
        engine.events.tell("secret", "create", &head.id, named(name));
        Ok(told(engine, name, Some(&head)))
    }

    /// Removes one that no container is given.
    pub fn remove(&self, engine: &Engine, name: &str) -> Answer<()> {
        let (name, head) = self.row(name)?;
        let users = users(engine, &name);
        if !users.is_empty() {
            return Err(Refusal::conflict(format!(
                "secret {name} is in use by {}; remove the container first, or give the secret another value with --replace",
                users.join(", ")
            )));
        }
        let removed =
            fs::remove_file(path(&self.folder, &name)).and_then(|()| File::open(&self.folder)?.sync_all());
        removed.map_err(|cause| Refusal::failed(format!("secret {name} cannot be removed"), cause))?;
        self.rows.lock().expect("no panic while locked").remove(&name);
        let id = head.map(|head| head.id).unwrap_or_default();
        engine.events.tell("secret", "remove", &id, named(&name));
        Ok(())
    }

    fn check_there(&self, name: &str) -> Answer<()> {
        let rows = self.rows.lock().expect("no panic while locked");
        match rows.get(name) {
            Some(Some(_)) => Ok(()),
            Some(None) => Err(unreadable(name)),
            None => Err(missing(name)),
        }
    }

    fn value(&self, name: &str) -> Answer<Value> {
        self.check_there(name)?;
        let read = || {
            let mut bytes = Vec::new();
            let (_, rest) = open(&self.folder, name)?;
            rest.take(VALUE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|cause: io::Error| {
            tracing::error!(secret = name, error = chain(&cause), "a secret cannot be read");
            unreadable(name)
        })?;
        Value::new(bytes).map_err(|_| unreadable(name))
    }
}

fn missing(name: &str) -> Refusal {
    Refusal::missing(format!(
        "no such secret: {name}; make it with: kakoi secret create {name} FILE"
    ))
}

fn unreadable(name: &str) -> Refusal {
    Refusal::broken(format!(
        "secret {name} cannot be read; give it a value anew with: kakoi secret create --replace {name} FILE"
    ))
}

fn named(name: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("name".into(), name.to_owned())])
}

/// Containers that are given a secret, by name.
fn users(engine: &Engine, name: &str) -> Vec<String> {
    let mut users: Vec<String> = engine
        .containers
        .all()
        .iter()
        .filter(|container| {
            container
                .shared()
                .record
                .secrets
                .iter()
                .any(|used| used.name == name)
        })
        .map(|container| container.name())
        .collect();
    users.sort();
    users
}

fn told(engine: &Engine, name: &str, head: Option<&Head>) -> Secret {
    let used_by = users(engine, name);
    let name = name.to_owned();
    match head {
        Some(head) => Secret {
            id: head.id.clone(),
            name,
            created_at: head.created.clone(),
            updated_at: head.updated.clone(),
            labels: head.labels.clone(),
            used_by,
        },
        None => Secret {
            name,
            used_by,
            ..Secret::default()
        },
    }
}

fn path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}{SUFFIX}"))
}

/// The head, and a reader at the value.
fn open(folder: &Path, name: &str) -> io::Result<(Head, BufReader<File>)> {
    let mut file = BufReader::new(File::open(path(folder, name))?);
    let mut line = Vec::new();
    (&mut file).take(HEAD_BYTES_MAX).read_until(b'\n', &mut line)?;
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let head: Head = serde_json::from_slice(&line).map_err(|_| invalid("no head of a secret".into()))?;
    if head.format != SECRET_FORMAT {
        return Err(invalid(format!(
            "format {}; this version reads format {SECRET_FORMAT}",
            head.format
        )));
    }
    Ok((head, file))
}

/// Writes aside, synced, and moves into place.
fn write(folder: &Path, name: &str, head: &Head, value: &Value) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(head).expect("a head is plain data");
    bytes.push(b'\n');
    if bytes.len() as u64 > HEAD_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "its labels are too long",
        ));
    }
    let aside = folder.join(format!("{name}{SUFFIX}.new"));
    let mut file = crate::host::create_private_file(&aside)?;
    file.write_all(&bytes)?;
    file.write_all(value.bytes())?;
    file.sync_all()?;
    fs::rename(&aside, path(folder, name))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head {
            format: SECRET_FORMAT,
            id: "00".into(),
            created: "2026-12-01T00:00:00Z".into(),
            updated: "2026-12-01T00:00:00Z".into(),
            labels: BTreeMap::new(),
        }
    }

    #[test]
    fn values_are_kept_as_they_are_and_damage_is_told() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = place.path().join("secrets");
        fs::create_dir(&folder).expect("the daemon's start makes it");
        let value = Value::new(b"line\nanother\0end".to_vec()).expect("within the limits");
        write(&folder, "a.b", &head(), &value).expect("written");
        // What a cut may leave beside it.
        fs::write(folder.join("a.b.secret.new"), "{").expect("a file");
        let secrets = Secrets::open(place.path()).expect("a folder");
        let read = secrets.value("a.b").expect("whole");
        assert_eq!(read.bytes(), value.bytes());
        assert!(secrets.value("a").is_err());

        for damaged in ["", "{}\nvalue", r#"{"format":2}"#] {
            fs::write(path(&folder, "a.b"), damaged).expect("a file");
            let secrets = Secrets::open(place.path()).expect("a folder");
            let refused = secrets.value("a.b").err().expect("it cannot be read").message;
            assert!(refused.contains("--replace a.b"), "{refused}");
            assert!(!refused.contains("value\n"), "{refused}");
        }
        // A value that was cut off whole.
        write(&folder, "a.b", &head(), &value).expect("written");
        let text = fs::read(path(&folder, "a.b")).expect("it is there");
        let line = text.iter().position(|byte| *byte == b'\n').expect("a head");
        fs::write(path(&folder, "a.b"), &text[..=line]).expect("a file");
        let secrets = Secrets::open(place.path()).expect("a folder");
        assert!(secrets.value("a.b").is_err(), "an empty one is none");
    }

    #[test]
    fn values_have_limits() {
        for (bytes, is_good) in [
            (0, false),
            (1, true),
            (VALUE_BYTES_MAX, true),
            (VALUE_BYTES_MAX + 1, false),
        ] {
            assert_eq!(Value::new(vec![b'x'; bytes]).is_ok(), is_good, "{bytes}");
        }
    }
}
