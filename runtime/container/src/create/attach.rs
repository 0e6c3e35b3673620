//! What only the parent may set on the first process, between its making and its start.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};

use kakoi_sys::bpf::{Access, DeviceKind, DeviceRule, guard_devices};
use serde_json::Value;

use super::{CreateError, Stdio};
use crate::cgroup::Cgroup;
use crate::prepare::Leftover;

/// Sets resource limits and the OOM score, and on version 2 attaches the device program.
pub(super) fn finish(pid: i32, left: &Leftover, cgroup: &Cgroup) -> Result<(), CreateError> {
    for rlimit in &left.rlimits {
        limit(pid, rlimit)?;
    }
    if let Some(scheduler) = &left.scheduler {
        schedule(pid, scheduler)?;
    }
    if let Some(score) = left.oom_score_adj {
        fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()).map_err(|source| {
            CreateError::Child {
                what: format!("OOM score {score}"),
                source,
            }
        })?;
    }
    if left.new_network {
        raise_loopback(pid).map_err(|source| CreateError::Child {
            what: "the loopback interface".to_owned(),
            source,
        })?;
    }
    if left.no_oom_kill {
        let resources = serde_json::json!({"memory": {"disableOOMKiller": true}});
        cgroup.update_oci(&resources).map_err(CreateError::Cgroup)?;
    }
    guard(&left.device_rules, cgroup)
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

/// A program that is not root must be able to open its own `/proc/self/fd/1`: pipes and sockets become its user's.
pub(super) fn own_streams(stdio: &Stdio, (uid, gid): (u32, u32)) -> Result<(), CreateError> {
    use nix::errno::Errno;
    use nix::sys::stat::SFlag;
    let streams = match stdio {
        Stdio::Inherit => [0, 1, 2],
        Stdio::Streams {
            stdin,
            stdout,
            stderr,
        } => [stdin.as_raw_fd(), stdout.as_raw_fd(), stderr.as_raw_fd()],
        Stdio::Console(_) => return Ok(()),
    };
    let failed = |errno: Errno| CreateError::Child {
        what: "the standard streams".to_owned(),
        source: errno.into(),
    };
    for fd in streams {
        let known = match nix::sys::stat::fstat(fd) {
            Err(Errno::EBADF) => continue,
            answer => answer.map_err(failed)?,
        };
        let kind = SFlag::from_bits_truncate(known.st_mode & SFlag::S_IFMT.bits());
        if ![SFlag::S_IFIFO, SFlag::S_IFSOCK].contains(&kind) || (known.st_uid, known.st_gid) == (uid, gid) {
            continue;
        }
        match nix::unistd::fchown(fd, Some(uid.into()), Some(gid.into())) {
            Ok(()) | Err(Errno::EPERM | Errno::EINVAL | Errno::EROFS) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    Ok(())
}

/// Enters the new network namespace for one call. libcontainer leaves its only interface down.
fn raise_loopback(pid: i32) -> std::io::Result<()> {
    use kakoi_sys::namespace::{Kind, join};
    let io = |error: kakoi_sys::CallError| super::io(&error);
    let own = fs::File::open("/proc/self/ns/net")?;
    let theirs = fs::File::open(format!("/proc/{pid}/ns/net"))?;
    join(theirs.as_fd(), Kind::Net).map_err(io)?;
    let raised = kakoi_sys::network::raise_loopback().map_err(io);
    // Back in any case: this process goes on to serve its own side.
    join(own.as_fd(), Kind::Net).map_err(io)?;
    raised
}

/// Sets policy and parameters (config.md, `process.scheduler`).
fn schedule(pid: i32, scheduler: &Value) -> Result<(), CreateError> {
    let refuse = |what: String| CreateError::Child {
        what: "the scheduler".to_owned(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidInput, what),
    };
    let scheduling = scheduling(scheduler).map_err(refuse)?;
    kakoi_sys::system::set_scheduling_of(pid, scheduling).map_err(|error| CreateError::Child {
        what: "the scheduler".to_owned(),
        source: super::io(&error),
    })
}

/// `SCHED_DEADLINE` (sched.h).
const DEADLINE: u32 = 6;

/// The kernel answers every mistake with EINVAL; these say which it was (sched(7), "SCHED_DEADLINE").
fn deadline(given: &Value, wanted: &kakoi_sys::system::Scheduling) -> Result<(), String> {
    let refuse = |what: String| Err(format!("sched_setattr: `SCHED_DEADLINE` {what}"));
    if given["runtime"].is_null() {
        return refuse("requires `runtime`".to_owned());
    }
    if given["deadline"].is_null() {
        return refuse("requires `deadline`".to_owned());
    }
    let (runtime, deadline, period) = (wanted.runtime, wanted.deadline, wanted.period);
    if runtime == 0 {
        return refuse("runtime must be greater than 0".to_owned());
    }
    if runtime > deadline {
        return refuse(format!("runtime ({runtime}) must be <= deadline ({deadline})"));
    }
    if period != 0 && deadline > period {
        return refuse(format!("deadline ({deadline}) must be <= period ({period})"));
    }
    if !(1024..1 << 63).contains(&runtime) {
        return refuse(format!("runtime {runtime} must be between 1024 and 2^63"));
    }
    Ok(())
}

fn scheduling(scheduler: &Value) -> Result<kakoi_sys::system::Scheduling, String> {
    let policy = match scheduler["policy"].as_str().unwrap_or_default() {
        "SCHED_OTHER" => 0,
        "SCHED_FIFO" => 1,
        "SCHED_RR" => 2,
        "SCHED_BATCH" => 3,
        "SCHED_ISO" => 4,
        "SCHED_IDLE" => 5,
        "SCHED_DEADLINE" => 6,
        other => return Err(format!("unknown scheduler policy {other:?}")),
    };
    let mut flags = 0;
    for flag in scheduler["flags"].as_array().into_iter().flatten() {
        flags |= match flag.as_str().unwrap_or_default() {
            "SCHED_FLAG_RESET_ON_FORK" => 0x01,
            "SCHED_FLAG_RECLAIM" => 0x02,
            "SCHED_FLAG_DL_OVERRUN" => 0x04,
            "SCHED_FLAG_KEEP_POLICY" => 0x08,
            "SCHED_FLAG_KEEP_PARAMS" => 0x10,
            "SCHED_FLAG_UTIL_CLAMP_MIN" => 0x20,
            "SCHED_FLAG_UTIL_CLAMP_MAX" => 0x40,
            other => return Err(format!("unknown scheduler flag {other:?}")),
        };
    }
    let number = |field: &str| scheduler[field].as_u64().unwrap_or(0);
    let small = |field: &str| {
        scheduler[field]
            .as_i64()
            .and_then(|n| i32::try_from(n).ok())
            .unwrap_or(0)
    };
    let scheduling = kakoi_sys::system::Scheduling {
        policy,
        flags,
        nice: small("nice"),
        priority: u32::try_from(small("priority"))
            .map_err(|_| "a scheduler priority is negative".to_owned())?,
        runtime: number("runtime"),
        deadline: number("deadline"),
        period: number("period"),
    };
    if policy == DEADLINE {
        deadline(scheduler, &scheduling)?;
    }
    Ok(scheduling)
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
