//! Verdicts that are remembered, so that a start verifies no signature that an earlier one, or the making of its container, has verified.
//!
//! Owns what a verdict is about and for how long it holds. Invariant: it is found only under the rules by which it was made, with the same documents
//! and evidence beside the image; a changed trust.yaml, floor or list of revoked keys makes all of them void at once. Refusals of damage are not
//! verdicts, and are never remembered.

use std::collections::BTreeMap;
use std::sync::Mutex;

use kakoi_image::{Digest, OriginDigests};

use super::{Rules, locked};

/// Verdicts that are remembered: one per image and name. More images than this a device does not start over and over.
const REMEMBERED_MAX: usize = 256;

/// What a verdict is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct About {
    /// The image.
    pub image: Digest,
    /// Under whose name.
    pub repository: String,
    /// By which documents and evidence.
    pub origin: OriginDigests,
}

/// What comes of a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It runs.
    Runs {
        /// Why it would not if its scope were not audited.
        audited: Option<String>,
        /// The release that runs below its floor.
        downgrade: Option<String>,
    },
    /// It does not, and this is what is said.
    Refused(String),
}

/// What is remembered.
#[derive(Default)]
pub struct Memory(Mutex<Known>);

#[derive(Default)]
struct Known {
    rules: Option<Rules>,
    settled: BTreeMap<About, Settled>,
}

impl Memory {
    /// What came of it under these rules; `None` if that is not known.
    pub fn recall(&self, rules: &Rules, about: &About) -> Option<Settled> {
        let known = locked(&self.0);
        let holds = known.rules.as_ref().is_some_and(|made| made.are(rules));
        known.settled.get(about).filter(|_| holds).cloned()
    }

    /// Remembers it, and nothing that was made under other rules.
    pub fn keep(&self, rules: &Rules, about: About, settled: Settled) {
        let mut known = locked(&self.0);
        let holds = known.rules.as_ref().is_some_and(|made| made.are(rules));
        if !holds || known.settled.len() >= REMEMBERED_MAX {
            known.settled.clear();
            known.rules = Some(rules.clone());
        }
        known.settled.insert(about, settled);
    }
}
