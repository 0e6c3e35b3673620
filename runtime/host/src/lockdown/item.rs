//! What is said about one interface of the device.
//!
//! Plain data. Invariant: an item whose state was not read is never [`Verdict::Ok`].

use kakoi_policy::host::lockdown::Section;
use serde::{Deserialize, Serialize};

/// How it stands with an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is as declared, and that was read.
    Ok,
    /// It is not as declared.
    Drift,
    /// Nothing here tells.
    Unknown,
}

impl Verdict {
    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Drift => "drift",
            Self::Unknown => "unknown",
        }
    }
}

/// Something that can be turned, and read back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Knob {
    /// A file of the kernel's, below the root.
    File(String),
    /// Whether a network interface is `up` or `down`.
    Link(String),
    /// A unit of the init system: [`super::units::CLOSED`], or how it stood.
    Unit(String),
    /// Options of a mount, by where it is.
    Mount(String),
    /// A file system of the kernel's own, by where it is mounted: its type, or `none`.
    Filesystem(String),
    /// A medium, by where it is mounted: it is unmounted, and mounted again by people only.
    Medium(String),
    /// The packet filter before the device's ports: `closed` or `open`.
    Ports,
}

/// When what was turned can be turned back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Undo {
    /// At once.
    Now,
    /// By the next start of the device.
    Restart,
    /// By a person.
    Person,
}

impl Undo {
    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Now => "now",
            Self::Restart => "restart",
            Self::Person => "person",
        }
    }
}

/// One interface of the device: declared, actual, and what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// `SECTION/NAME`, the same at each look.
    pub name: String,
    /// The section of the document that it belongs to.
    pub section: Section,
    /// What is declared, for people.
    pub declared: String,
    /// What was read, for people.
    pub actual: String,
    /// The two compared.
    pub verdict: Verdict,
    /// How it is enforced; or why it is not.
    pub how: String,
    /// What stops working where it is enforced.
    pub breaks: String,
    /// What is turned, to which value, where it can be.
    pub turn: Option<Turn>,
}

/// What makes an item right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// What is turned.
    pub knob: Knob,
    /// How it stands, in the knob's own words.
    pub from: String,
    /// How it ought to.
    pub to: String,
    /// When it can be turned back.
    pub undo: Undo,
}

impl Item {
    pub(super) fn new(section: Section, name: impl AsRef<str>) -> Self {
        Self {
            name: format!("{}/{}", section.word(), name.as_ref()),
            section,
            declared: String::new(),
            actual: String::new(),
            verdict: Verdict::Unknown,
            how: String::new(),
            breaks: String::new(),
            turn: None,
        }
    }

    pub(super) fn declared(mut self, declared: impl Into<String>) -> Self {
        self.declared = declared.into();
        self
    }

    pub(super) fn actual(mut self, actual: impl Into<String>, verdict: Verdict) -> Self {
        self.actual = actual.into();
        self.verdict = verdict;
        self
    }

    pub(super) fn how(mut self, how: impl Into<String>) -> Self {
        self.how = how.into();
        self
    }

    pub(super) fn breaks(mut self, breaks: impl Into<String>) -> Self {
        self.breaks = breaks.into();
        self
    }

    pub(super) fn turn(
        mut self,
        knob: Knob,
        from: impl Into<String>,
        to: impl Into<String>,
        undo: Undo,
    ) -> Self {
        self.turn = Some(Turn {
            knob,
            from: from.into(),
            to: to.into(),
            undo,
        });
        self
    }
}

/// The verdict on a comparison.
pub(super) fn same(is_same: bool) -> Verdict {
    match is_same {
        true => Verdict::Ok,
        false => Verdict::Drift,
    }
}
