//! The words between the daemon and `kakoi-shim files`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What the daemon asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Whether the container is up: then its mounted root file system is looked at, which must not be mounted twice.
    pub up: bool,
    /// A folder of the host that is covered, in this process's view alone, by what it needs of its own.
    pub place: PathBuf,
    /// What is to be done.
    pub ask: Ask,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Tells what lies at a path.
    Stat {
        /// The path inside.
        path: String,
    },
    /// The same, and then archives it.
    Get {
        /// The path inside.
        path: String,
    },
    /// Puts an archive into a folder.
    Put {
        /// The folder inside.
        path: String,
        /// Whether a folder may be replaced by something else, and the other way round.
        replaces_kinds: bool,
        /// Who gets everything; else owners are the archive's.
        owner: Option<Owner>,
    },
    /// Archives the whole root file system, without what is mounted in it.
    Export,
    /// Lists what the writable layer changed, as Docker's JSON.
    Changes,
    /// Archives what the writable layer changed, as a layer.
    Layer,
}

/// What is to be done with a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeAsk {
    /// Archives all of it.
    Export,
    /// Puts an archive, which follows on standard input, into it.
    Import,
}

/// Ids inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It begins: bytes follow where any were asked for.
    Ready(Option<PathStat>),
    /// It is done.
    Done,
    /// It is refused, or failed.
    Failed {
        /// How.
        kind: Failure,
        /// For the client.
        message: String,
    },
}

impl Answer {
    pub(super) fn failed(kind: Failure, message: String) -> Self {
        Self::Failed { kind, message }
    }
}

/// How something failed; decides the HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// Nothing is at the path.
    Missing,
    /// The path is no folder.
    NotFolder,
    /// What lies there is read-only.
    ReadOnly,
    /// The path, or an entry of the archive, cannot be.
    Refused,
    /// The disk is full.
    Full,
    /// This kernel cannot.
    Unsupported,
    /// The container has ended since.
    Gone,
}

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathStat {
    /// The last part of the path.
    pub name: String,
    /// Bytes.
    pub size: i64,
    /// In Go's bits (`io/fs.FileMode`), not st_mode's.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime_s: i64,
    /// And nanoseconds.
    pub mtime_ns: i64,
    /// What a link leads to in the end, from the root; empty for everything else.
    pub link_target: String,
}
