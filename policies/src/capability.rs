//! Linux capabilities by name and number (capabilities(7), Linux 5.9 to 6.18).
//!
//! Owns [`Capability`]. Knows nothing of who may hold one.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::diagnostics::nearest;

/// Names without `CAP_`, the index being the number.
pub(crate) const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// One capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability(u8);

impl Capability {
    /// Every capability Kakoi knows.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..NAMES.len()).map(|n| Self(u8::try_from(n).expect("there are 41 names")))
    }

    /// The kernel's number.
    pub fn number(self) -> u8 {
        self.0
    }

    /// The bit in a capability set.
    pub fn bit(self) -> u64 {
        1 << self.0
    }

    /// The name without `CAP_`.
    pub fn name(self) -> &'static str {
        NAMES[usize::from(self.0)]
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No capability has that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown capability `{word}`{}", .nearest.map(|n| format!(", did you mean `{n}`?")).unwrap_or_default())]
pub struct UnknownCapability {
    /// What was given.
    pub word: String,
    /// The nearest name there is.
    pub nearest: Option<&'static str>,
}

impl FromStr for Capability {
    type Err = UnknownCapability;

    /// Reads a name in either case, with or without `CAP_`, as Docker does.
    fn from_str(word: &str) -> Result<Self, UnknownCapability> {
        let bare = bare(word);
        match NAMES.iter().position(|name| *name == bare) {
            Some(number) => Ok(Self(u8::try_from(number).expect("there are 41 names"))),
            None => Err(UnknownCapability {
                word: word.to_owned(),
                nearest: nearest(&bare, NAMES),
            }),
        }
    }
}

pub(crate) fn bare(word: &str) -> String {
    let upper = word.to_ascii_uppercase();
    upper.strip_prefix("CAP_").map(str::to_owned).unwrap_or(upper)
}

/// A capability, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CapabilityWord {
    /// `ALL`.
    All,
    /// One.
    One(Capability),
}

impl CapabilityWord {
    /// The capabilities that are meant.
    pub fn expand(self) -> BTreeSet<Capability> {
        match self {
            Self::All => Capability::all().collect(),
            Self::One(capability) => BTreeSet::from([capability]),
        }
    }
}

impl FromStr for CapabilityWord {
    type Err = UnknownCapability;

    fn from_str(word: &str) -> Result<Self, UnknownCapability> {
        if word.eq_ignore_ascii_case("all") {
            return Ok(Self::All);
        }
        word.parse().map(Self::One)
    }
}

/// The names in a bit mask, lowest number first; bits without a name are given as numbers.
pub fn names_of(mask: u64) -> Vec<String> {
    (0..64u32)
        .filter(|bit| mask & (1 << bit) != 0)
        .map(|bit| {
            NAMES
                .get(bit as usize)
                .map_or_else(|| bit.to_string(), |name| (*name).to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_every_spelling_docker_takes() {
        for word in ["NET_ADMIN", "net_admin", "CAP_NET_ADMIN", "cap_net_admin"] {
            assert_eq!(
                word.parse::<Capability>().map(Capability::number),
                Ok(12),
                "{word}"
            );
        }
        let error = "NET_ADMN".parse::<Capability>().expect_err("no such capability");
        assert_eq!(error.nearest, Some("NET_ADMIN"));
        assert!("".parse::<Capability>().is_err());
        assert!("CAP_".parse::<Capability>().is_err());
    }

    #[test]
    fn numbers_are_the_kernels() {
        for (name, number) in [
            ("CHOWN", 0),
            ("SETPCAP", 8),
            ("SYS_ADMIN", 21),
            ("MKNOD", 27),
            ("BPF", 39),
        ] {
            assert_eq!(
                name.parse::<Capability>().map(Capability::number),
                Ok(number),
                "{name}"
            );
        }
    }
}
