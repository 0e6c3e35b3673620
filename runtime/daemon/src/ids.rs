//! Ranges of host ids for user namespaces: each container that asks has one that no other has.

use std::collections::BTreeSet;
use std::sync::Mutex;

use crate::config::Settings;
use crate::refusal::{Answer, Refusal};

/// Ids in a range: all that 16-bit programs know.
pub const RANGE_IDS: u32 = 65536;

/// The ranges.
#[derive(Debug)]
pub struct IdPool {
    first: u32,
    slots: u32,
    taken: Mutex<BTreeSet<u32>>,
}

impl IdPool {
    /// All ranges are free.
    pub fn new(settings: &Settings) -> Self {
        Self {
            first: settings.subordinate_id_first,
            slots: settings.subordinate_ranges,
            taken: Mutex::default(),
        }
    }

    /// Takes a range.
    pub fn take(&self) -> Answer<u32> {
        let mut taken = self.taken.lock().expect("no panic while locked");
        let slot = (0..self.slots).find(|slot| !taken.contains(slot)).ok_or_else(|| {
            Refusal::unavailable("every range of ids for user namespaces is taken; raise subordinate_ranges in kakoid.yaml")
        })?;
        taken.insert(slot);
        Ok(slot)
    }

    /// Marks a range as taken, from a record.
    pub fn occupy(&self, slot: u32) {
        self.taken.lock().expect("no panic while locked").insert(slot);
    }

    /// Gives a range back.
    pub fn release(&self, slot: u32) {
        self.taken.lock().expect("no panic while locked").remove(&slot);
    }

    /// The first host id of a range.
    pub fn first_id(&self, slot: u32) -> u32 {
        self.first + slot * RANGE_IDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_do_not_overlap_and_run_out() {
        let pool = IdPool::new(&Settings {
            subordinate_ranges: 3,
            ..Settings::default()
        });
        pool.occupy(1);
        let (a, b) = (pool.take().expect("free"), pool.take().expect("free"));
        assert_eq!((a, b), (0, 2));
        assert!(pool.first_id(b) - pool.first_id(a) >= 2 * RANGE_IDS);
        pool.take().expect_err("none left");
        pool.release(a);
        assert_eq!(pool.take().expect("free again"), a);
    }
}
