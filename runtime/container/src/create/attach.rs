//! What only the parent may set on the first process, between its making and its start.

use std::fs;
use std::os::fd::AsFd;

use kakoi_sys::bpf::{Access, DeviceKind, DeviceRule, guard_devices};
use serde_json::Value;

use super::CreateError;
use crate::cgroup::Cgroup;

/// Sets resource limits and the OOM score, and on version 2 attaches the device program.
pub(super) fn finish(
    pid: i32,
    rlimits: &[Value],
    oom_score_adj: Option<i32>,
    devices: &[Value],
    cgroup: &Cgroup,
) -> Result<(), CreateError> {
    for rlimit in rlimits {
        limit(pid, rlimit)?;
    }
    if let Some(score) = oom_score_adj {
        fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()).map_err(|source| {
            CreateError::Child {
                what: format!("OOM score {score}"),
                source,
            }
        })?;
    }
    guard(devices, cgroup)
}

/// Version 2 has no file for device rules, and libcontainer, as it is built here, leaves every device open there. Nodes were made already; the
/// program is in force before the app is executed.
fn guard(devices: &[Value], cgroup: &Cgroup) -> Result<(), CreateError> {
    let Some(folder) = cgroup.unified() else {
        return Ok(());
    };
    let failed = |source| CreateError::Child {
        what: "the device rules".to_owned(),
        source,
    };
    let mut rules = devices
        .iter()
        .map(rule)
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| {
            failed(std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                "a device rule is malformed",
            ))
        })?;
    rules.extend(standard());
    let folder = fs::File::open(folder).map_err(failed)?;
    guard_devices(folder.as_fd(), &rules).map_err(|error| failed(super::io(&error)))
}

/// What every container may use, as libcontainer adds it on version 1: null, zero, full, random, urandom, tty, console, ptmx and terminals.
fn standard() -> impl Iterator<Item = DeviceRule> {
    let numbers = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)]
        .map(|(major, minor)| (major, Some(minor)));
    numbers
        .into_iter()
        .chain([(136, None)])
        .map(|(major, minor)| DeviceRule {
            allow: true,
            kind: DeviceKind::Char,
            major: Some(major),
            minor,
            access: Access::ALL,
        })
}

/// One entry of `linux.resources.devices`; a number below zero, like none at all, matches every one.
fn rule(device: &Value) -> Option<DeviceRule> {
    let text = |field: &str, default| device.get(field).map_or(Some(default), Value::as_str);
    let number = |field: &str| match device.get(field) {
        None | Some(Value::Null) => Some(None),
        Some(number) => match number.as_i64()? {
            number if number < 0 => Some(None),
            number => u32::try_from(number).ok().map(Some),
        },
    };
    let access = text("access", "rwm")?;
    let access = if access.is_empty() { "rwm" } else { access };
    if access.chars().any(|letter| !"rwm".contains(letter)) {
        return None;
    }
    Some(DeviceRule {
        allow: device.get("allow")?.as_bool()?,
        kind: match text("type", "a")? {
            "a" | "" => DeviceKind::All,
            "b" => DeviceKind::Block,
            "c" | "u" => DeviceKind::Char,
            _ => return None,
        },
        major: number("major")?,
        minor: number("minor")?,
        access: Access::new(access.contains('r'), access.contains('w'), access.contains('m')),
    })
}

fn limit(pid: i32, rlimit: &Value) -> Result<(), CreateError> {
    let name = rlimit.get("type").and_then(Value::as_str).unwrap_or_default();
    let failed = |source| CreateError::Child {
        what: format!("limit {name}"),
        source,
    };
    let number = |field: &str| rlimit.get(field).and_then(Value::as_u64);
    let malformed = || failed(std::io::Error::from(std::io::ErrorKind::InvalidInput));
    let (Some(soft), Some(hard)) = (number("soft"), number("hard")) else {
        return Err(malformed());
    };
    let resource = kakoi_sys::limit::Resource::named(name).ok_or_else(malformed)?;
    kakoi_sys::limit::set(pid, resource, soft, hard).map_err(|error| failed(super::io(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn device_rules_are_read_as_the_specification_says() {
        let all = rule(&json!({"allow": false, "access": "rwm"})).expect("it is the usual first one");
        let wanted = DeviceRule {
            allow: false,
            kind: DeviceKind::All,
            major: None,
            minor: None,
            access: Access::ALL,
        };
        assert_eq!(all, wanted);
        let null = rule(&json!({"allow": true, "type": "c", "major": 1, "minor": -1, "access": "r"}));
        let wanted = DeviceRule {
            allow: true,
            kind: DeviceKind::Char,
            major: Some(1),
            minor: None,
            access: Access::new(true, false, false),
        };
        assert_eq!(null, Some(wanted));
    }

    #[test]
    fn a_malformed_device_rule_is_none() {
        for malformed in [
            json!({"access": "rwm"}),
            json!({"allow": "yes"}),
            json!({"allow": true, "type": "x"}),
            json!({"allow": true, "access": "rx"}),
            json!({"allow": true, "major": "1"}),
            json!({"allow": true, "major": 4294967296_u64}),
        ] {
            assert_eq!(rule(&malformed), None, "{malformed}");
        }
    }
}
