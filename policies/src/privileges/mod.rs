//! What one version of an app may do and another may not: the difference of two sets of privileges, in words for the owner who decides.
//!
//! Owns [`Privileges`], everything that bounds one container, and [`difference`]. Pure. Compares what is enforced and never the documents behind it, so
//! that no way of writing a policy hides a gain: where two things cannot be compared, the later one is taken to gain.

mod calls;
mod files;
mod network;
mod process;
mod resources;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::confinement::{Confinement, MountSource};

/// Everything that bounds one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Privileges {
    /// What the kernel holds it to.
    pub confinement: Confinement,
    /// What it mounts beside its image; what is its own alone (memory, volumes that nobody else knows) is left out.
    pub mounts: Vec<HeldMount>,
    /// Ports of the device that lead to it.
    pub ports: Vec<HeldPort>,
    /// Networks of bridges that it is in, by name.
    pub networks: Vec<String>,
    /// Namespaces that it shares with the device or with another container (`pid of the device`).
    pub shared_namespaces: Vec<String>,
    /// Secrets that it is given, by name.
    pub secrets: Vec<String>,
}

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldMount {
    /// What is mounted.
    pub source: MountSource,
    /// Whether it is only read.
    pub read_only: bool,
}

/// A port of the device that leads to a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldPort {
    /// The address of the device; `None` is every one.
    pub address: Option<std::net::IpAddr>,
    /// The first port; 0 is one that the device chooses.
    pub first: u16,
    /// The last port.
    pub last: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// One thing that a version may do and the other may not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Whether the later version may do it; else the earlier one.
    pub gains: bool,
    /// What kind of thing it is, in a word or two (`capabilities`, `files`).
    pub area: String,
    /// The thing, in words.
    pub words: String,
}

impl Privileges {
    /// SHA-256 over all of it: what an approval is given for.
    pub fn sha256(&self) -> String {
        let bytes = serde_json::to_vec(self).expect("privileges are plain data");
        let hash = Sha256::digest(&bytes);
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What `after` may do and `before` may not, and the other way round: gains first.
pub fn difference(before: &Privileges, after: &Privileges) -> Vec<Change> {
    let told = |gains: bool, from: &Privileges, to: &Privileges| {
        beyond(from, to).into_iter().map(move |beyond| beyond.told(gains))
    };
    told(true, before, after)
        .chain(told(false, after, before))
        .collect()
}

/// A thing that one side may do, and what the other side may do instead.
struct Beyond {
    area: &'static str,
    may: String,
    other: Option<String>,
}

impl Beyond {
    fn told(self, gains: bool) -> Change {
        let words = match self.other {
            None => self.may,
            Some(other) if gains => format!("{} (before: {other})", self.may),
            Some(other) => format!("{} (now: {other})", self.may),
        };
        Change {
            gains,
            area: self.area.to_owned(),
            words,
        }
    }
}

/// What is found on the way.
#[derive(Default)]
struct Found(Vec<Beyond>);

impl Found {
    fn add(&mut self, area: &'static str, may: impl Into<String>) {
        self.0.push(Beyond {
            area,
            may: may.into(),
            other: None,
        });
    }

    fn add_over(&mut self, area: &'static str, may: impl Into<String>, other: impl Into<String>) {
        self.0.push(Beyond {
            area,
            may: may.into(),
            other: Some(other.into()),
        });
    }
}

/// What `to` may do and `from` may not.
fn beyond(from: &Privileges, to: &Privileges) -> Vec<Beyond> {
    let mut found = Found::default();
    process::beyond(from, to, &mut found);
    calls::beyond(&from.confinement, &to.confinement, &mut found);
    files::beyond(from, to, &mut found);
    network::beyond(from, to, &mut found);
    resources::beyond(from, to, &mut found);
    found.0
}
