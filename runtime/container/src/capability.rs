//! Capability names of OCI documents and the kernel's numbers.
//!
//! Owns the table (capability.h). Knows nothing of sets a process holds.

/// The kernel's names without `CAP_`, at the index of their number.
pub const NAMES: [&str; 41] = [
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

/// The names in a mask, with `CAP_`.
pub fn names(mask: u64) -> Vec<String> {
    let held = |number: &usize| mask & (1 << number) != 0;
    (0..NAMES.len())
        .filter(held)
        .map(|number| format!("CAP_{}", NAMES[number]))
        .collect()
}

/// The bit of a name, with or without `CAP_`, in any case; `None` for a name that no kernel has.
pub fn bit(name: &str) -> Option<u64> {
    let upper = name.to_ascii_uppercase();
    let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES
        .iter()
        .position(|known| *known == plain)
        .map(|number| 1 << number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bits_agree() {
        for (number, name) in NAMES.iter().enumerate() {
            assert_eq!(bit(name), Some(1 << number));
            assert_eq!(names(1 << number), [format!("CAP_{name}")]);
        }
        assert_eq!(bit("cap_net_raw"), bit("NET_RAW"));
        assert_eq!(bit("CAP_EVERYTHING"), None);
    }
}
