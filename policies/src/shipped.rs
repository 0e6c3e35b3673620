//! The profiles that come with Kakoi, built into the program so that no file can be missing or stand in for one.
//!
//! Owns their names and texts. Invariant (tested): every one parses and composes.

/// A shipped profile.
#[derive(Debug, PartialEq, Eq)]
pub struct Profile {
    /// What `extends` and `--policy` call it.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

impl Profile {
    /// The document's name in messages; the angle brackets tell it from a file.
    pub fn file(&self) -> String {
        format!("<{}>", self.name)
    }
}

/// The profile that is used where nothing names one.
pub const DEFAULT_POLICY: &str = "strict";

/// Every shipped profile.
pub const SHIPPED: [Profile; 5] = [
    Profile {
        name: "strict",
        text: include_str!("../profiles/strict.yaml"),
    },
    Profile {
        name: "docker-default",
        text: include_str!("../profiles/docker-default.yaml"),
    },
    Profile {
        name: "network-client",
        text: include_str!("../profiles/network-client.yaml"),
    },
    Profile {
        name: "network-server",
        text: include_str!("../profiles/network-server.yaml"),
    },
    Profile {
        name: "privileged",
        text: include_str!("../profiles/privileged.yaml"),
    },
];

/// The profile of a name.
pub fn find(name: &str) -> Option<&'static Profile> {
    SHIPPED.iter().find(|profile| profile.name == name)
}
