//! A seeded share of what `make fuzz` does, with the very targets of it.

use super::{build, root};

#[path = "../../../../integration/fuzz/src/mutate.rs"]
mod mutate;
#[path = "../../../../integration/fuzz/src/image.rs"]
mod targets;

/// Resident memory of this process at its peak: archives and layers of some kilobytes, however they lie about themselves, must not need more.
const PEAK_KIB_MAX: u64 = 96 << 10;

pub(super) fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.expect("a peak").trim().trim_end_matches(" kB");
    peak.parse().expect("a number")
}

/// Every seed is valid, or its mutations would all end at the same first error.
fn check(seeds: &[Vec<u8>], count: usize, target: impl FnMut(&[u8]) -> bool) {
    assert_eq!(mutate::cases(seeds, count, target), seeds.len());
}

#[test]
fn mutated_names_are_refused_or_read_the_same_again() {
    check(&targets::references(), 20_000, targets::reference);
}

#[test]
fn mutated_manifests_are_one_thing_or_none() {
    check(&targets::manifests(), 5_000, targets::manifest);
}

#[test]
fn mutated_archives_leave_nothing() {
    if root("mutated_archives_leave_nothing") {
        let store = targets::Store::default();
        check(&targets::archives(), 500, |bytes| store.archive(bytes));
        assert!(peak_kib() < PEAK_KIB_MAX, "{} KiB", peak_kib());
    }
}

#[test]
fn mutated_layers_leave_nothing_and_come_out_as_they_went_in() {
    if root("mutated_layers_leave_nothing_and_come_out_as_they_went_in") {
        let store = targets::Store::default();
        check(&targets::layers(), 500, |bytes| store.layer(bytes));
        assert!(peak_kib() < PEAK_KIB_MAX, "{} KiB", peak_kib());
    }
}
