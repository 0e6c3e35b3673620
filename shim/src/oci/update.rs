//! `update` and `events`.

use std::io::Read;
use std::path::Path;

use kakoi_container::cgroup::{BlkioEntry, Stats};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

use super::args::{Events, Update};
use super::state::{Root, Status};
use super::{Failed, list};

/// The largest resources document.
const RESOURCES_BYTES_MAX: u64 = 1 << 20;

pub(super) fn update(root: &Root, flags: &Update) -> Result<(), Failed> {
    let record = root.load(&flags.id)?;
    if record.status() == Status::Stopped {
        return Err(Failed::new(format!(
            "container {} cannot be updated: it is stopped",
            flags.id
        )));
    }
    if flags.l3_cache_schema.is_some() || flags.mem_bw_schema.is_some() {
        return Err(Failed::new("Intel RDT limits cannot be updated by this runtime"));
    }
    let mut resources = match &flags.resources {
        Some(path) => read(path)?,
        None => json!({}),
    };
    if !resources.is_object() {
        return Err(Failed::new("the resources are not a JSON object"));
    }
    let mut put = |section: &str, field: &str, value: Option<Value>| {
        if let Some(value) = value {
            resources[section][field] = value;
        }
    };
    put("blockIO", "weight", flags.blkio_weight.map(Value::from));
    put("cpu", "period", flags.cpu_period.map(Value::from));
    put("cpu", "quota", flags.cpu_quota.map(Value::from));
    put("cpu", "burst", flags.cpu_burst.map(Value::from));
    put("cpu", "idle", flags.cpu_idle.map(Value::from));
    put("cpu", "shares", flags.cpu_share.map(Value::from));
    put("cpu", "realtimePeriod", flags.cpu_rt_period.map(Value::from));
    put("cpu", "realtimeRuntime", flags.cpu_rt_runtime.map(Value::from));
    put("cpu", "cpus", flags.cpuset_cpus.clone().map(Value::from));
    put("cpu", "mems", flags.cpuset_mems.clone().map(Value::from));
    put("pids", "limit", flags.pids_limit.map(Value::from));
    for (field, text) in [
        ("limit", &flags.memory),
        ("reservation", &flags.memory_reservation),
        ("swap", &flags.memory_swap),
    ] {
        put(
            "memory",
            field,
            text.as_deref().map(bytes).transpose()?.map(Value::from),
        );
    }
    record
        .cgroup()?
        .update_oci(&resources)
        .map_err(|error| Failed::of(&format!("update container {}", flags.id), &error))
}

fn read(path: &Path) -> Result<Value, Failed> {
    let mut text = Vec::new();
    let taken = if path == Path::new("-") {
        std::io::stdin().take(RESOURCES_BYTES_MAX).read_to_end(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(RESOURCES_BYTES_MAX).read_to_end(&mut text))
    };
    taken.map_err(|error| Failed::of(&format!("read {}", path.display()), &error))?;
    serde_json::from_slice(&text).map_err(|error| Failed::of(&format!("read {}", path.display()), &error))
}

/// A number of bytes, with k, m or g behind it, or -1 for none.
fn bytes(text: &str) -> Result<i64, Failed> {
    let lower = text.trim().to_ascii_lowercase();
    let plain = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, factor) = match plain.chars().last() {
        Some('k') => (&plain[..plain.len() - 1], 1_i64 << 10),
        Some('m') => (&plain[..plain.len() - 1], 1 << 20),
        Some('g') => (&plain[..plain.len() - 1], 1 << 30),
        _ => (plain, 1),
    };
    let number = digits
        .parse::<i64>()
        .ok()
        .and_then(|number| number.checked_mul(factor));
    number.ok_or_else(|| Failed::new(format!("{text:?} is not a number of bytes")))
}

pub(super) fn events(root: &Root, flags: &Events) -> Result<(), Failed> {
    let seconds = flags
        .interval
        .trim_end_matches('s')
        .parse::<u16>()
        .ok()
        .filter(|seconds| *seconds > 0);
    let seconds = seconds.ok_or_else(|| Failed::new("--interval must be a number of seconds"))?;
    loop {
        let record = root.load(&flags.id)?;
        let Some(handle) = record.handle() else {
            return if flags.stats {
                Err(Failed::new(format!("container {} is not running", flags.id)))
            } else {
                Ok(())
            };
        };
        let stats = record
            .cgroup()?
            .stats()
            .map_err(|error| Failed::of("read the statistics", &error))?;
        list::print(&json!({"type": "stats", "id": flags.id, "data": events_form(&stats)}).to_string())?;
        if flags.stats {
            return Ok(());
        }
        // Until the next time, or the container's end.
        let mut waited = [PollFd::new(handle.pidfd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(u32::from(seconds) * 1000).unwrap_or(PollTimeout::MAX);
        poll(&mut waited, limit).map_err(|errno| Failed::of("wait", &errno))?;
    }
}

/// The names that runc's `events` gave these numbers.
fn events_form(stats: &Stats) -> Value {
    let (cpu, memory, pids) = (&stats.cpu, &stats.memory, &stats.pids);
    let entries = |list: &[BlkioEntry]| -> Vec<Value> {
        let form = |entry: &BlkioEntry| json!({"major": entry.major, "minor": entry.minor, "op": entry.operation, "value": entry.value});
        list.iter().map(form).collect()
    };
    json!({
        "cpu": {
            "usage": {"total": cpu.usage_ns, "percpu": cpu.per_cpu_ns, "kernel": cpu.system_ns, "user": cpu.user_ns},
            "throttling": {
                "periods": cpu.periods,
                "throttledPeriods": cpu.throttled_periods,
                "throttledTime": cpu.throttled_ns,
            },
        },
        "memory": {
            "usage": {
                "usage": memory.usage_bytes,
                "max": memory.usage_bytes_max,
                "limit": memory.limit_bytes,
                "failcnt": memory.limit_hits,
            },
            "swap": {"usage": memory.swap_bytes},
            "raw": memory.details,
        },
        "pids": {"current": pids.current, "limit": pids.limit},
        "blkio": {
            "ioServiceBytesRecursive": entries(&stats.blkio.service_bytes),
            "ioServicedRecursive": entries(&stats.blkio.serviced),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_are_read() {
        for (text, wanted) in [
            ("10", 10),
            ("2k", 2048),
            ("3M", 3 << 20),
            ("1gb", 1 << 30),
            ("-1", -1),
        ] {
            assert_eq!(bytes(text).ok(), Some(wanted), "{text}");
        }
        assert!(bytes("much").is_err() && bytes("").is_err());
    }
}
