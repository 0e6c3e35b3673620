//! Which kernel settings belong to one container.
//!
//! Owns the list; everything not on it would change the host (CVE-2022-0811: `kernel.core_pattern` through a `+` in a name).

use crate::plan::{NamespacePlan, NamespaceSource};

/// Settings of the IPC namespace (ipc_namespaces(7)).
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// The longest name accepted, in bytes; the kernel's own stay below 80.
const NAME_BYTES_MAX: usize = 128;

/// Tells whether setting `name` (dots, no slashes) changes only a container with these namespaces.
pub fn is_namespaced(name: &str, namespaces: &NamespacePlan) -> bool {
    let plain = name.len() <= NAME_BYTES_MAX
        && name.split('.').all(|part| !part.is_empty())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    let own = |source: &NamespaceSource| *source != NamespaceSource::Host;
    plain
        && ((own(&namespaces.ipc) && (IPC.contains(&name) || name.starts_with("fs.mqueue.")))
            || (own(&namespaces.network) && name.starts_with("net."))
            || (own(&namespaces.uts) && name == "kernel.domainname"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_host_are_refused() {
        let namespaces = |ipc, network| NamespacePlan {
            pid: NamespaceSource::New,
            network,
            ipc,
            uts: NamespaceSource::New,
            cgroup: NamespaceSource::New,
        };
        let own = namespaces(NamespaceSource::New, NamespaceSource::New);
        let host = namespaces(NamespaceSource::Host, NamespaceSource::Host);
        let rows = [
            ("net.ipv4.ip_forward", true, false),
            ("kernel.shmmax", true, false),
            ("fs.mqueue.msg_max", true, false),
            ("kernel.domainname", true, true),
            ("kernel.core_pattern", false, false),
            ("kernel.hostname", false, false),
            ("kernel.shm_rmid_forced+kernel.core_pattern", false, false),
            ("net.ipv4/../../kernel/core_pattern", false, false),
            ("net..ipv4", false, false),
            ("fs.file-max", false, false),
            ("vm.overcommit_memory", false, false),
            ("", false, false),
        ];
        for (name, in_own, in_host) in rows {
            assert_eq!(
                is_namespaced(name, &own),
                in_own,
                "{name} in namespaces of its own"
            );
            assert_eq!(
                is_namespaced(name, &host),
                in_host,
                "{name} in the host's namespaces"
            );
        }
    }
}
