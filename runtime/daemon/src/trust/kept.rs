//! What the device remembers of trust: the versions that were committed, and the keys that were revoked.
//!
//! Owns `<root>/trust`. Invariants: a floor never sinks and a list never gets older, across restarts and power cuts too; what cannot be read is
//! no empty list, and stands in the way of whatever `require` would ask.
//!
//! ```text
//! <root>/trust/               0700
//!     floors.json             {"ghcr.io/acme/app":{"version":"1.4.0","digest":"sha256:…"}}
//!     revocations.json        the signed list in force, byte for byte as it was taken
//!     revocations.seen        42: the highest version of it that was taken
//! ```
//!
//! The version is kept a second time so that the list cannot be rolled back by damaging or removing it. It is written after the list: a cut between
//! the two leaves it behind by one, which the next start makes good; a list that is older than what was seen is damage.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use kakoi_trust::{Floors, REVOCATION_BYTES_MAX, Release, RevocationError, Revocations, Trust};

use crate::host;
use crate::refusal::{Answer, Refusal, chain};

/// The most bytes of a version: twenty digits and a line's end.
const SEEN_BYTES_MAX: u64 = 32;
/// The most bytes of floors: some thousand names.
const FLOORS_BYTES_MAX: u64 = 1 << 20;

/// Floors and revocations.
#[derive(Clone)]
pub struct Kept {
    folder: PathBuf,
    floors: Result<Floors, String>,
    revocations: Result<Option<Revocations>, String>,
    /// The highest version of the list that was taken, 0 where none was; why it is not known.
    seen: Result<u64, String>,
}

impl Kept {
    /// Reads what is there.
    pub(super) fn open(folder: &Path) -> Self {
        let path = folder.join("floors.json");
        let floors = read(&path, FLOORS_BYTES_MAX).and_then(|bytes| match bytes {
            None => Ok(Floors::none()),
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|cause| format!("damaged: {cause}")),
        });
        let floors = floors.map_err(|cause| {
            format!(
                "the committed versions cannot be used ({cause}): put {} back from a copy, or remove it, which gives up what was committed; \
                 then start kakoid again",
                path.display()
            )
        });
        let (revocations, seen) = open_revocations(folder);
        for damage in [floors.as_ref().err(), revocations.as_ref().err()]
            .into_iter()
            .flatten()
        {
            tracing::error!(damage, "nothing that must be signed is trusted");
        }
        let kept = Self {
            folder: folder.to_owned(),
            floors,
            revocations,
            seen,
        };
        kept.catch_up();
        kept
    }

    /// The committed versions.
    ///
    /// # Errors
    /// They cannot be read: 403, for whoever asks does so to run something.
    pub fn floors(&self) -> Answer<&Floors> {
        self.floors
            .as_ref()
            .map_err(|why| Refusal::forbidden(why.clone()))
    }

    /// The list in force.
    ///
    /// # Errors
    /// It cannot be read: 403, as above.
    pub fn revocations(&self) -> Answer<Option<&Revocations>> {
        let known = self.revocations.as_ref();
        known
            .map(Option::as_ref)
            .map_err(|why| Refusal::forbidden(why.clone()))
    }

    /// Raises the floor of a release that has proved itself; tells whether it rose.
    pub fn commit(&mut self, release: &Release) -> Answer<bool> {
        let mut floors = self.floors()?.clone();
        if !floors.commit(release) {
            return Ok(false);
        }
        let bytes = serde_json::to_vec(&floors).expect("names, versions and digests serialise");
        self.replace("floors.json", &bytes)?;
        self.floors = Ok(floors);
        Ok(true)
    }

    /// Keeps the version of the list in force a second time where a cut, a loss or an earlier build left it behind.
    fn catch_up(&self) {
        let Ok(Some(list)) = &self.revocations else { return };
        let noted = read(&self.folder.join("revocations.seen"), SEEN_BYTES_MAX);
        let is_noted = noted == Ok(Some(noted_version(list.version())));
        if !is_noted && let Err(refusal) = self.see(list.version()) {
            tracing::warn!(
                refusal = refusal.message,
                "ignoring that the version of the list of revoked keys is kept once only"
            );
        }
    }

    fn see(&self, version: u64) -> Answer<()> {
        self.replace("revocations.seen", &noted_version(version))
    }

    /// Takes a signed list of revoked keys; tells its version. One that is damaged or lost is replaced by one that is at least as new.
    ///
    /// # Errors
    /// 403: too few of those who may have signed it, or it is older than what was seen. 400: it is no such list.
    pub fn revoke(&mut self, document: &[u8], trust: &Trust) -> Answer<u64> {
        let current = self.revocations.as_ref().ok().and_then(Option::as_ref);
        let now = kakoi_image::intake_time(jiff::Timestamp::now());
        let taken = Revocations::verify(document, trust, current, now);
        let list = taken.map_err(|error| match error {
            RevocationError::NobodyMay | RevocationError::Threshold { .. } | RevocationError::Old { .. } => {
                Refusal::forbidden(format!(
                    "the list of revoked keys is not taken: {}",
                    chain(&error)
                ))
            }
            malformed => Refusal::bad(format!(
                "the list of revoked keys is not taken: {}",
                chain(&malformed)
            )),
        })?;
        let seen = self.seen.clone().map_err(Refusal::forbidden)?;
        let version = list.version();
        if version < seen {
            return Err(Refusal::forbidden(format!(
                "the list of revoked keys is not taken: it is version {version}, and this device has had version {seen}; take that or a newer one"
            )));
        }
        self.replace("revocations.json", document)?;
        self.revocations = Ok(Some(list));
        self.see(version)?;
        self.seen = Ok(version);
        Ok(version)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Answer<()> {
        let failed =
            |cause: io::Error| Refusal::failed("what the device remembers of trust cannot be written", cause);
        host::make_private_folder(&self.folder).map_err(|cause| {
            Refusal::failed("what the device remembers of trust cannot be written", cause)
        })?;
        let aside = self.folder.join(format!("{name}.new"));
        let mut file = host::create_private_file(&aside).map_err(failed)?;
        file.write_all(bytes)
            .and_then(|()| file.sync_all())
            .map_err(failed)?;
        fs::rename(&aside, self.folder.join(name)).map_err(failed)?;
        // The folder may be new: then its own name must outlive a power cut too.
        for folder in [Some(self.folder.as_path()), self.folder.parent()]
            .into_iter()
            .flatten()
        {
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(failed)?;
        }
        Ok(())
    }
}

/// A version as it stands in `revocations.seen`.
fn noted_version(version: u64) -> Vec<u8> {
    format!("{version}\n").into_bytes()
}

/// The list in force and the highest version seen, or what is wrong with each.
fn open_revocations(folder: &Path) -> (Result<Option<Revocations>, String>, Result<u64, String>) {
    let path = folder.join("revocations.seen");
    let noted = read(&path, SEEN_BYTES_MAX).and_then(|bytes| {
        let number = bytes.map(|bytes| String::from_utf8_lossy(&bytes).trim().parse::<u64>());
        number
            .transpose()
            .map_err(|cause| format!("revocations.seen is damaged: {cause}"))
    });
    let list = read(&folder.join("revocations.json"), REVOCATION_BYTES_MAX as u64).and_then(|bytes| {
        let restored = bytes.map(|bytes| Revocations::restore(&bytes)).transpose();
        restored.map_err(|cause| format!("revocations.json is damaged: {}", chain(&cause)))
    });
    let list = match (list, &noted) {
        (Ok(None), Ok(Some(seen))) => Err(format!("revocations.json is lost, which was version {seen}")),
        (Ok(Some(list)), Ok(Some(seen))) if list.version() < *seen => Err(format!(
            "revocations.json is version {}, and version {seen} was taken",
            list.version()
        )),
        (list, _) => list,
    };
    match (list, noted) {
        // A list that can be read says by itself how new it is.
        (Ok(Some(list)), _) => {
            let version = list.version();
            (Ok(Some(list)), Ok(version))
        }
        (Ok(None), Ok(None)) => (Ok(None), Ok(0)),
        (Err(why), Ok(Some(seen))) => {
            let remedy = format!("take version {seen} or a newer one (kakoi trust revoke --list FILE)");
            (
                Err(format!(
                    "the list of revoked keys cannot be used ({why}): {remedy}"
                )),
                Ok(seen),
            )
        }
        (list, noted) => {
            let why = [list.err(), noted.err()]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>();
            let why = format!(
                "the list of revoked keys cannot be used ({}), and which version it was is not known: put revocations.json in {} back from a \
                 copy, or remove it and revocations.seen, which gives up what was revoked; then start kakoid again",
                why.join("; "),
                folder.display()
            );
            (Err(why.clone()), Err(why))
        }
    }
}

/// A small file; `None` where it does not exist.
fn read(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match fs::metadata(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(format!("{name} cannot be read: {cause}")),
        Ok(file) if file.len() > bytes_max => return Err(format!("{name} is longer than {bytes_max} bytes")),
        Ok(_) => {}
    }
    fs::read(path)
        .map(Some)
        .map_err(|cause| format!("{name} cannot be read: {cause}"))
}

#[cfg(test)]
mod tests {
    use kakoi_trust::{Digest, Padding, PrivateKey, Version, edit, sign_revocations};

    use super::*;

    fn release(version: &str) -> Release {
        Release {
            name: "app".into(),
            version: Version::parse(version).expect(version),
            digest: Digest::of(version.as_bytes()),
        }
    }

    #[test]
    fn floors_outlive_the_daemon_and_only_rise() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("trust");
        let mut kept = Kept::open(&path);
        assert!(kept.commit(&release("1.2")).expect("written"));
        assert!(!kept.commit(&release("1.1")).expect("nothing to do"));
        let kept = Kept::open(&path);
        let floors = kept.floors().expect("read");
        assert!(floors.check(&release("1.1")).is_err() && floors.check(&release("1.3")).is_ok());
        fs::write(path.join("floors.json"), "{\"app\":").expect("damaged");
        let mut kept = Kept::open(&path);
        assert_eq!(kept.floors().expect_err("damaged").status.as_u16(), 403);
        assert!(
            kept.commit(&release("1.3")).is_err(),
            "no floor is forgotten by damage"
        );
    }

    #[test]
    fn revocations_outlive_the_daemon_and_never_get_older() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("trust");
        let pem = PrivateKey::generate().expect("random numbers");
        let key = PrivateKey::from_pem(&pem, None, Padding::Pss).expect("a key");
        let text = edit::add_key(None, "owner", key.public(), None, None).expect("added");
        let trusting = Trust::parse("t", &format!("{text}revocation: {{keys: [owner]}}\n")).expect("valid");
        let list = |version| {
            let revoked = [(Digest::of(b"lost"), String::from("lost"))];
            sign_revocations(version, &revoked, &[&key]).expect("signed")
        };
        let mut kept = Kept::open(&path);
        assert!(kept.revoke(&list(1), &Trust::nothing()).is_err(), "nobody may");
        assert!(kept.revoke(b"{}", &trusting).is_err());
        assert_eq!(kept.revoke(&list(2), &trusting).expect("taken"), 2);
        let mut kept = Kept::open(&path);
        assert_eq!(kept.revocations().expect("read").expect("there").version(), 2);
        assert_eq!(
            kept.revoke(&list(1), &trusting)
                .expect_err("older")
                .status
                .as_u16(),
            403
        );
        let (file, seen) = (path.join("revocations.json"), path.join("revocations.seen"));
        let damages: [&dyn Fn(); 3] = [
            &|| fs::write(&file, "{}").expect("damaged"),
            &|| fs::remove_file(&file).expect("lost"),
            &|| fs::write(&file, list(1)).expect("rolled back"),
        ];
        for (damage, newest) in damages.iter().zip([2, 3, 3]) {
            damage();
            let mut kept = Kept::open(&path);
            let refusal = kept.revocations().map(drop).expect_err("revokes nothing");
            assert!(
                refusal
                    .message
                    .contains(&format!("take version {newest} or a newer")),
                "{}",
                refusal.message
            );
            let older = kept.revoke(&list(newest - 1), &trusting).expect_err("a rollback");
            assert_eq!(older.status.as_u16(), 403, "{}", older.message);
            assert!(
                Kept::open(&path).revocations().is_err(),
                "a refusal heals nothing"
            );
            let healed = if newest == 2 { 3 } else { newest };
            assert_eq!(kept.revoke(&list(healed), &trusting).expect("healed"), healed);
            assert!(Kept::open(&path).revocations().is_ok());
        }
        // What was seen is made good from the list: after a cut, for an earlier build's list, after damage.
        for behind in [Some("2\n"), None, Some("many")] {
            match behind {
                Some(text) => fs::write(&seen, text).expect("written"),
                None => fs::remove_file(&seen).expect("removed"),
            }
            assert!(Kept::open(&path).revocations().is_ok());
            assert_eq!(fs::read_to_string(&seen).expect("made good"), "3\n");
        }
    }

    #[test]
    fn with_both_damaged_no_list_is_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let pem = PrivateKey::generate().expect("random numbers");
        let key = PrivateKey::from_pem(&pem, None, Padding::Pss).expect("a key");
        let text = edit::add_key(None, "owner", key.public(), None, None).expect("added");
        let trusting = Trust::parse("t", &format!("{text}revocation: {{keys: [owner]}}\n")).expect("valid");
        let list = sign_revocations(9, &[], &[&key]).expect("signed");
        for (file, seen) in [
            (Some("{"), Some("?")),
            (Some("{"), None),
            (None, Some("?")),
            (None, Some("")),
        ] {
            for (name, text) in [("revocations.json", file), ("revocations.seen", seen)] {
                let path = folder.path().join(name);
                match text {
                    Some(text) => fs::write(path, text).expect("damaged"),
                    None => drop(fs::remove_file(path)),
                }
            }
            let mut kept = Kept::open(folder.path());
            assert!(kept.revocations().is_err(), "{file:?} {seen:?}");
            let refusal = kept.revoke(&list, &trusting).expect_err("it may be older");
            assert_eq!(refusal.status.as_u16(), 403);
            assert!(refusal.message.contains("remove it"), "{}", refusal.message);
        }
    }
}
