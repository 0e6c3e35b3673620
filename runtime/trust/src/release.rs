//! Release documents and the floors they may not fall below.
//!
//! A signature has no age: an old image with a known hole stays signed for ever. A release document gives it a name and a version, and the
//! device remembers per name the highest version that was committed.
//!
//! ```json
//! {"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"…"}}],
//!  "predicateType":"urn:kakoi:release:v1","predicate":{"name":"ghcr.io/acme/app","version":"1.4.0"}}
//! ```
//!
//! Owns [`Version`], [`Release`] and [`Floors`]. Invariant: a floor only rises. Whoever must go below one names the exact version in trust.yaml
//! (`downgrades`), which is judged at each start and leaves the floor where it is.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// The predicate type of a release document.
pub const RELEASE_PREDICATE: &str = "urn:kakoi:release:v1";

/// The longest name of a release: a repository's limit.
pub const RELEASE_NAME_BYTES_MAX: usize = 255;

/// One to four numbers, `1.4.0`. There is no order among words like `rc1` that all people agree on, so there are none.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version {
    numbers: [u64; 4],
    text: String,
}

/// Why a text is no version.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is not a version of one to four numbers, like 1.4.0")]
pub struct VersionError {
    /// The text, shortened.
    pub text: String,
}

impl Version {
    /// Parses a version.
    pub fn parse(text: &str) -> Result<Self, VersionError> {
        let refused = || VersionError {
            text: text.chars().filter(|c| !c.is_control()).take(40).collect(),
        };
        let mut numbers = [0; 4];
        for (at, part) in text.split('.').enumerate() {
            let slot = numbers.get_mut(at).ok_or_else(refused)?;
            if !part.bytes().all(|b| b.is_ascii_digit()) {
                return Err(refused());
            }
            *slot = part.parse().map_err(|_| refused())?;
        }
        Ok(Self {
            numbers,
            text: text.to_owned(),
        })
    }
}

/// By the numbers: `1.4` and `1.4.0` are the same version.
impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.numbers == other.numbers
    }
}

impl Eq for Version {}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.numbers.cmp(&other.numbers)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Version {
    type Error = VersionError;

    fn try_from(text: String) -> Result<Self, VersionError> {
        Self::parse(&text)
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.text
    }
}

/// What a release document says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// What is released.
    pub name: String,
    /// Which version of it.
    pub version: Version,
    /// As which image: an index or a manifest.
    pub digest: Digest,
}

/// Why a release may not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FloorError {
    /// A lower version than one that was committed.
    #[error("{name} {version} is a downgrade: {floor} was committed")]
    Downgrade {
        /// What is released.
        name: String,
        /// Its version.
        version: String,
        /// The highest version that was committed.
        floor: String,
    },
    /// The committed version once more, as another image.
    #[error(
        "{name} {version} was committed as {committed}: another image with the same version is no release"
    )]
    Replaced {
        /// What is released.
        name: String,
        /// Its version.
        version: String,
        /// The image that was committed.
        committed: Digest,
    },
}

/// Per name the highest version that was committed. Stored by whoever commits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Floors(BTreeMap<String, Floor>);

/// One floor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floor {
    /// The version that was committed.
    pub version: Version,
    /// As which image.
    pub digest: Digest,
}

impl Floors {
    /// What a new device has: no version was committed, so no floor bounds anything yet.
    pub fn none() -> Self {
        Self(BTreeMap::new())
    }

    /// The floor of a name.
    pub fn of(&self, name: &str) -> Option<&Floor> {
        self.0.get(name)
    }

    /// All floors, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Floor)> {
        self.0.iter().map(|(name, floor)| (name.as_str(), floor))
    }

    /// Whether a release is at or above its floor.
    pub fn check(&self, release: &Release) -> Result<(), FloorError> {
        let Some(floor) = self.0.get(&release.name) else {
            return Ok(());
        };
        let (name, version) = (release.name.clone(), release.version.to_string());
        if release.version < floor.version {
            return Err(FloorError::Downgrade {
                name,
                version,
                floor: floor.version.to_string(),
            });
        }
        if release.version == floor.version && release.digest != floor.digest {
            return Err(FloorError::Replaced {
                name,
                version,
                committed: floor.digest.clone(),
            });
        }
        Ok(())
    }

    /// Raises the floor to a release that has proved itself; says whether anything changed. Never lowers one, also for a
    /// version that trust.yaml lets run below it.
    pub fn commit(&mut self, release: &Release) -> bool {
        let higher = self
            .0
            .get(&release.name)
            .is_none_or(|floor| release.version > floor.version);
        if higher {
            let floor = Floor {
                version: release.version.clone(),
                digest: release.digest.clone(),
            };
            self.0.insert(release.name.clone(), floor);
        }
        higher
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(version: &str, image: &str) -> Release {
        Release {
            name: "app".into(),
            version: Version::parse(version).expect(version),
            digest: Digest::of(image.as_bytes()),
        }
    }

    #[test]
    fn versions_compare_by_numbers() {
        let ascending = ["0", "0.9", "1", "1.2.3", "1.10", "1.10.0.1", "2", "20261124"];
        for pair in ascending.windows(2) {
            assert!(Version::parse(pair[0]).expect(pair[0]) < Version::parse(pair[1]).expect(pair[1]));
        }
        assert_eq!(
            Version::parse("1").expect("good"),
            Version::parse("1.0.0").expect("good")
        );
        for bad in [
            "",
            ".",
            "1.",
            "v1",
            "1.0-rc1",
            "1.2.3.4.5",
            "+1",
            "-1",
            "99999999999999999999",
            "1 ",
        ] {
            assert!(Version::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn floors_only_rise() {
        let mut floors = Floors::none();
        floors.check(&release("1", "a")).expect("nothing was committed");
        assert!(floors.commit(&release("1.2", "b")));
        floors.check(&release("1.2", "b")).expect("the same again");
        floors.check(&release("1.3", "c")).expect("newer");
        assert!(matches!(
            floors.check(&release("1.1", "a")),
            Err(FloorError::Downgrade { .. })
        ));
        assert!(matches!(
            floors.check(&release("1.2", "x")),
            Err(FloorError::Replaced { .. })
        ));
        assert!(!floors.commit(&release("1.1", "a")));
        assert!(!floors.commit(&release("1.2", "x")));
        assert_eq!(floors.of("app").expect("there").digest, Digest::of(b"b"));
        let stored = serde_json::to_string(&floors).expect("plain data");
        assert_eq!(
            serde_json::from_str::<Floors>(&stored).expect("read back"),
            floors
        );
    }
}
