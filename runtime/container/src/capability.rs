//! Capability names as OCI documents write them.
//!
//! The table is the policy language's. Knows nothing of sets a process holds.

use kakoi_policy::Capability;

/// The names in a mask, with `CAP_`.
pub fn names(mask: u64) -> Vec<String> {
    Capability::all()
        .filter(|capability| mask & capability.bit() != 0)
        .map(|capability| format!("CAP_{}", capability.name()))
        .collect()
}

/// The bit of a name, with or without `CAP_`, in any case; `None` for a name that no kernel has.
pub fn bit(name: &str) -> Option<u64> {
    name.parse::<Capability>().ok().map(Capability::bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bits_agree() {
        for capability in Capability::all() {
            assert_eq!(bit(capability.name()), Some(capability.bit()));
            assert_eq!(names(capability.bit()), [format!("CAP_{}", capability.name())]);
        }
        assert_eq!(names(u64::MAX).len(), 41);
        assert_eq!(bit("cap_net_raw"), bit("NET_RAW"));
        assert_eq!(bit("CAP_EVERYTHING"), None);
    }
}
