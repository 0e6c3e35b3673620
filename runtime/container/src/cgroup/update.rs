//! Changing limits of a group that runs.
//!
//! Owns the order of writes, which matters in version 1: memory may never exceed memory and swap together, so which of the two files is
//! written first depends on the direction. A limit whose controller is missing is an error, never a silent loss.

use std::path::{Path, PathBuf};

use kakoi_policy::kernel::CgroupMode;

use super::{Cgroup, CgroupError, read, write as put};
use crate::plan::Resources;

pub(super) fn write(cgroup: &Cgroup, resources: &Resources) -> Result<(), CgroupError> {
    let v2 = cgroup.mode == CgroupMode::V2;
    if resources.memory_bytes.is_some()
        || resources.memory_and_swap_bytes.is_some()
        || resources.memory_reservation_bytes.is_some()
    {
        let folder = need(cgroup, "memory", "a memory limit")?;
        if v2 {
            memory_v2(folder, resources)
        } else {
            memory_v1(folder, resources)
        }?;
    }
    if resources.cpu_shares.is_some() || resources.cpu_quota_us.is_some() || resources.cpu_period_us.is_some()
    {
        let folder = need(cgroup, "cpu", "a cpu limit")?;
        if v2 {
            cpu_v2(folder, resources)
        } else {
            cpu_v1(folder, resources)
        }?;
    }
    let sets = [
        ("cpuset.cpus", &resources.cpuset_cpus),
        ("cpuset.mems", &resources.cpuset_mems),
    ];
    for (name, value) in sets {
        if let Some(value) = value {
            put(&need(cgroup, "cpuset", "a cpuset")?.join(name), value)?;
        }
    }
    if let Some(pids) = resources.pids {
        put(
            &need(cgroup, "pids", "a pids limit")?.join("pids.max"),
            &number_or_max(pids),
        )?;
    }
    io(cgroup, resources)
}

fn need<'a>(
    cgroup: &'a Cgroup,
    controller: &'static str,
    limit: &'static str,
) -> Result<&'a Path, CgroupError> {
    cgroup
        .folder(controller)
        .filter(|folder| folder.is_dir())
        .ok_or(CgroupError::NoController { controller, limit })
}

fn memory_v1(folder: &Path, resources: &Resources) -> Result<(), CgroupError> {
    let memory = folder.join("memory.limit_in_bytes");
    let both = folder.join("memory.memsw.limit_in_bytes");
    let minus_one = |bytes: u64| {
        if bytes == u64::MAX {
            "-1".to_owned()
        } else {
            bytes.to_string()
        }
    };
    let mut writes: Vec<(&PathBuf, String)> = vec![];
    if let Some(bytes) = resources.memory_bytes {
        writes.push((&memory, minus_one(bytes)));
    }
    if let Some(bytes) = resources.memory_and_swap_bytes {
        writes.push((&both, minus_one(bytes)));
    }
    let raises = match resources.memory_bytes {
        Some(bytes) if both.exists() => read(&both)?.trim().parse::<u64>().is_ok_and(|now| bytes > now),
        _ => false,
    };
    if raises {
        writes.reverse();
    }
    for (file, value) in writes {
        put(file, &value)?;
    }
    match resources.memory_reservation_bytes {
        Some(bytes) => put(&folder.join("memory.soft_limit_in_bytes"), &minus_one(bytes)),
        None => Ok(()),
    }
}

fn memory_v2(folder: &Path, resources: &Resources) -> Result<(), CgroupError> {
    if let Some(both) = resources.memory_and_swap_bytes {
        let memory = match resources.memory_bytes {
            Some(bytes) => bytes,
            None => read(&folder.join("memory.max"))?
                .trim()
                .parse()
                .unwrap_or(u64::MAX),
        };
        // Version 2 counts swap alone.
        let swap = if both == u64::MAX {
            u64::MAX
        } else {
            both.saturating_sub(memory)
        };
        put(&folder.join("memory.swap.max"), &number_or_max(swap))?;
    }
    if let Some(bytes) = resources.memory_bytes {
        put(&folder.join("memory.max"), &number_or_max(bytes))?;
    }
    match resources.memory_reservation_bytes {
        Some(bytes) => put(&folder.join("memory.low"), &number_or_max(bytes)),
        None => Ok(()),
    }
}

fn cpu_v1(folder: &Path, resources: &Resources) -> Result<(), CgroupError> {
    if let Some(shares) = resources.cpu_shares {
        put(&folder.join("cpu.shares"), &shares.to_string())?;
    }
    if let Some(period) = resources.cpu_period_us {
        put(&folder.join("cpu.cfs_period_us"), &period.to_string())?;
    }
    match resources.cpu_quota_us {
        Some(quota) => put(&folder.join("cpu.cfs_quota_us"), &quota.to_string()),
        None => Ok(()),
    }
}

fn cpu_v2(folder: &Path, resources: &Resources) -> Result<(), CgroupError> {
    if let Some(shares) = resources.cpu_shares {
        put(&folder.join("cpu.weight"), &weight_of_shares(shares).to_string())?;
    }
    if resources.cpu_quota_us.is_none() && resources.cpu_period_us.is_none() {
        return Ok(());
    }
    let now = read(&folder.join("cpu.max"))?;
    let (quota_now, period_now) = now.trim().split_once(' ').unwrap_or(("max", "100000"));
    let quota = match resources.cpu_quota_us {
        Some(quota) if quota > 0 => quota.to_string(),
        Some(_) => "max".to_owned(),
        None => quota_now.to_owned(),
    };
    let period = resources
        .cpu_period_us
        .map_or_else(|| period_now.to_owned(), |period| period.to_string());
    put(&folder.join("cpu.max"), &format!("{quota} {period}"))
}

/// Maps 2..=262144 to 1..=10000 in a straight line, as the OCI runtimes agreed.
pub(super) fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn io(cgroup: &Cgroup, resources: &Resources) -> Result<(), CgroupError> {
    let v2 = cgroup.mode == CgroupMode::V2;
    if let Some(weight) = resources.blkio_weight {
        let folder = need(cgroup, "blkio", "an io weight")?;
        if v2 {
            put(
                &folder.join("io.weight"),
                &format!("default {}", weight_of_blkio(weight)),
            )?;
        } else {
            put(&folder.join("blkio.weight"), &weight.to_string())?;
        }
    }
    let rates = [
        (
            "rbps",
            "blkio.throttle.read_bps_device",
            resources.io_read_bytes_per_second,
        ),
        (
            "wbps",
            "blkio.throttle.write_bps_device",
            resources.io_write_bytes_per_second,
        ),
    ];
    for (key, file, rate) in rates {
        let Some(rate) = rate else { continue };
        let folder = need(cgroup, "blkio", "an io limit")?;
        for device in block_devices() {
            if v2 {
                put(
                    &folder.join("io.max"),
                    &format!("{device} {key}={}", number_or_max(rate)),
                )?;
            } else {
                put(
                    &folder.join(file),
                    &format!("{device} {}", if rate == u64::MAX { 0 } else { rate }),
                )?;
            }
        }
    }
    Ok(())
}

/// Maps 10..=1000 to 1..=10000.
fn weight_of_blkio(weight: u16) -> u64 {
    1 + (u64::from(weight).clamp(10, 1000) - 10) * 9999 / 990
}

/// `major:minor` of each whole block device; loop and memory devices are no storage of their own.
fn block_devices() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/sys/block") else {
        return vec![];
    };
    let real = entries.flatten().filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        !["loop", "ram", "zram", "nbd"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    });
    real.filter_map(|entry| std::fs::read_to_string(entry.path().join("dev")).ok())
        .map(|text| text.trim().to_owned())
        .collect()
}

fn number_or_max(value: u64) -> String {
    if value == u64::MAX {
        "max".to_owned()
    } else {
        value.to_string()
    }
}
