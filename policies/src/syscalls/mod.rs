//! System calls: which names there are, their numbers on each architecture, and named groups of them.
//!
//! Owns names and numbers. Knows nothing of what a policy allows. Invariant: a name that a policy or a group may use exists in at least one
//! table, so that a misspelt name is an error and never a rule without effect.

pub(crate) mod groups;
pub(crate) mod table;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use crate::kernel::Arch;
use table::Table;

/// The instruction set entry points of a kernel, as audit(7) numbers them (`AUDIT_ARCH_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Entry {
    X86_64,
    I386,
    Aarch64,
    Arm,
}

impl Entry {
    /// What `seccomp_data.arch` holds.
    pub(crate) fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::I386 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    pub(crate) fn table(self) -> Table {
        match self {
            Self::X86_64 => table::X86_64,
            Self::I386 => table::I386,
            Self::Aarch64 => table::AARCH64,
            Self::Arm => table::ARM,
        }
    }
}

impl From<Arch> for Entry {
    fn from(arch: Arch) -> Self {
        match arch {
            Arch::X86_64 => Self::X86_64,
            Arch::Aarch64 => Self::Aarch64,
        }
    }
}

/// The number of a call, or `None` where the architecture has no such call.
pub(crate) fn number(entry: Entry, name: &str) -> Option<u32> {
    let table = entry.table();
    table
        .binary_search_by(|(known, _)| (*known).cmp(name))
        .ok()
        .map(|at| table[at].1)
}

/// The number of a system call on an architecture, or `None` where it has no such call.
pub fn system_call_number(arch: Arch, name: &str) -> Option<u32> {
    number(arch.into(), name)
}

/// The name of a system call that was made through an architecture's entry point, as a record of the kernel gives both.
pub fn system_call_name(audit_arch: u32, number: u32) -> Option<&'static str> {
    let entries = [Entry::X86_64, Entry::Aarch64, Entry::I386, Entry::Arm];
    let entry = entries.into_iter().find(|entry| entry.audit() == audit_arch)?;
    let known = entry.table().iter().find(|(_, known)| *known == number)?;
    Some(known.0)
}

/// Every system call of an architecture, by name.
pub fn system_call_names(arch: Arch) -> impl Iterator<Item = &'static str> {
    Entry::from(arch).table().iter().map(|(name, _)| *name)
}

/// What `seccomp_data.arch` holds on an architecture (`AUDIT_ARCH_*`, linux/audit.h).
pub fn audit_arch(arch: Arch) -> u32 {
    Entry::from(arch).audit()
}

/// Whether any architecture has a call of that name.
pub(crate) fn exists(name: &str) -> bool {
    [Entry::X86_64, Entry::Aarch64, Entry::I386, Entry::Arm]
        .into_iter()
        .any(|entry| number(entry, name).is_some())
}

/// Every name of any architecture, for proposing the nearest; collected once, because a hostile document can ask thousands of times.
pub(crate) fn all_names() -> impl Iterator<Item = &'static str> {
    static NAMES: LazyLock<BTreeSet<&str>> = LazyLock::new(|| {
        [Entry::X86_64, Entry::Aarch64, Entry::I386, Entry::Arm]
            .into_iter()
            .flat_map(|entry| entry.table().iter().map(|(name, _)| *name))
            .collect()
    });
    NAMES.iter().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_and_hold_the_kernels_numbers() {
        for entry in [Entry::X86_64, Entry::Aarch64, Entry::I386, Entry::Arm] {
            assert!(
                entry.table().windows(2).all(|pair| pair[0].0 < pair[1].0),
                "{entry:?} is sorted"
            );
        }
        for (entry, name, want) in [
            (Entry::X86_64, "read", Some(0)),
            (Entry::X86_64, "clone3", Some(435)),
            (Entry::X86_64, "open", Some(2)),
            (Entry::Aarch64, "open", None),
            (Entry::Aarch64, "openat", Some(56)),
            (Entry::I386, "socketcall", Some(102)),
            (Entry::X86_64, "socketcall", None),
            (Entry::Arm, "openat", Some(322)),
        ] {
            assert_eq!(number(entry, name), want, "{entry:?} {name}");
        }
        assert!(exists("socketcall"));
        assert!(!exists("opn"));
    }
}
