//! The confinement's device rules for version 2 control groups, which have no file to write them to.

use std::os::fd::BorrowedFd;

use kakoi_policy::confinement::{DeviceKind, DeviceRule};
use kakoi_sys::CallError;
use kakoi_sys::bpf;

/// Lets the processes of a version 2 control group, whose folder is `group`, use the devices of `rules` and no others.
///
/// Rules whose path is a glob must have been resolved to numbers before. Called by the runtime, outside the container, before the
/// first process executes anything. Needs CAP_SYS_ADMIN in the first user namespace.
pub fn guard_devices(group: BorrowedFd<'_>, rules: &[DeviceRule]) -> Result<(), CallError> {
    let rules: Vec<bpf::DeviceRule> = rules.iter().map(translated).collect();
    bpf::guard_devices(group, &rules)
}

fn translated(rule: &DeviceRule) -> bpf::DeviceRule {
    bpf::DeviceRule {
        allow: true,
        kind: match rule.kind {
            DeviceKind::All => bpf::DeviceKind::All,
            DeviceKind::Char => bpf::DeviceKind::Char,
            DeviceKind::Block => bpf::DeviceKind::Block,
        },
        major: rule.major,
        minor: rule.minor,
        access: bpf::Access::new(rule.access.read, rule.access.write, rule.access.mknod),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kakoi_policy::confinement::DeviceAccess;

    #[test]
    fn nothing_is_added_in_translation() {
        let access = DeviceAccess {
            read: true,
            write: false,
            mknod: false,
        };
        let rule = DeviceRule {
            kind: DeviceKind::Char,
            major: Some(1),
            minor: None,
            access,
            path: None,
            rule: "devices".into(),
        };
        let wanted = bpf::DeviceRule {
            allow: true,
            kind: bpf::DeviceKind::Char,
            major: Some(1),
            minor: None,
            access: bpf::Access::new(true, false, false),
        };
        assert_eq!(translated(&rule), wanted);
    }
}
