//! What a group uses, in one shape for both versions.
//!
//! Owns reading; the shape follows what `docker stats` computes from, so that no client learns which version the host has.
//! Times are in nanoseconds, sizes in bytes.

use std::collections::BTreeMap;
use std::path::Path;

use kakoi_policy::kernel::CgroupMode;
use serde::{Deserialize, Serialize};

use super::{Cgroup, CgroupError, read_if_there};

/// What a group uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Processor time.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Processes.
    pub pids: PidsStats,
    /// Block devices.
    pub blkio: BlkioStats,
}

/// Processor time in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuStats {
    /// In all.
    pub usage_ns: u64,
    /// In user mode.
    pub user_ns: u64,
    /// In kernel mode.
    pub system_ns: u64,
    /// By processor; empty in version 2, which does not tell.
    pub per_cpu_ns: Vec<u64>,
    /// Enforcement periods that passed.
    pub periods: u64,
    /// Periods in which the group was held back.
    pub throttled_periods: u64,
    /// How long it was held back.
    pub throttled_ns: u64,
}

/// Memory in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStats {
    /// In use, page cache included.
    pub usage_bytes: u64,
    /// The most that was in use.
    pub usage_bytes_max: u64,
    /// The limit; `u64::MAX` where there is none.
    pub limit_bytes: u64,
    /// How often the limit was met.
    pub limit_hits: u64,
    /// Swap in use.
    pub swap_bytes: u64,
    /// The kernel's `memory.stat`.
    pub details: BTreeMap<String, u64>,
}

/// Processes and threads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidsStats {
    /// Now.
    pub current: u64,
    /// The limit; `u64::MAX` where there is none.
    pub limit: u64,
}

/// Block devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlkioStats {
    /// Bytes by device and operation.
    pub service_bytes: Vec<BlkioEntry>,
    /// Operations by device and kind.
    pub serviced: Vec<BlkioEntry>,
}

/// One device's figure for one kind of operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlkioEntry {
    /// Major number.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
    /// `read` or `write`.
    pub operation: String,
    /// The figure.
    pub value: u64,
}

pub(super) fn read(cgroup: &Cgroup) -> Result<Stats, CgroupError> {
    let v2 = cgroup.mode == CgroupMode::V2;
    let part = |controller: &str| cgroup.folder(controller).filter(|folder| folder.is_dir());
    let mut stats = Stats::default();
    if let Some(folder) = part("memory") {
        stats.memory = if v2 { memory_v2(folder) } else { memory_v1(folder) }?;
    }
    if let Some(folder) = part("pids") {
        stats.pids.current = number(folder, "pids.current")?;
        stats.pids.limit = limit(folder, "pids.max")?;
    }
    if let Some(folder) = part("blkio") {
        stats.blkio = if v2 { blkio_v2(folder) } else { blkio_v1(folder) }?;
    }
    if v2 {
        if let Some(folder) = part("cpu") {
            stats.cpu = cpu_v2(&text(folder, "cpu.stat")?);
        }
    } else {
        if let Some(folder) = part("cpuacct") {
            cpuacct_v1(folder, &mut stats.cpu)?;
        }
        if let Some(folder) = part("cpu") {
            throttling_v1(&text(folder, "cpu.stat")?, &mut stats.cpu);
        }
    }
    Ok(stats)
}

fn cpu_v2(text: &str) -> CpuStats {
    CpuStats {
        usage_ns: keyed(text, "usage_usec") * 1000,
        user_ns: keyed(text, "user_usec") * 1000,
        system_ns: keyed(text, "system_usec") * 1000,
        per_cpu_ns: vec![],
        periods: keyed(text, "nr_periods"),
        throttled_periods: keyed(text, "nr_throttled"),
        throttled_ns: keyed(text, "throttled_usec") * 1000,
    }
}

fn cpuacct_v1(folder: &Path, cpu: &mut CpuStats) -> Result<(), CgroupError> {
    cpu.usage_ns = number(folder, "cpuacct.usage")?;
    cpu.user_ns = number(folder, "cpuacct.usage_user")?;
    cpu.system_ns = number(folder, "cpuacct.usage_sys")?;
    let per_cpu = text(folder, "cpuacct.usage_percpu")?;
    cpu.per_cpu_ns = per_cpu
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    Ok(())
}

fn throttling_v1(text: &str, cpu: &mut CpuStats) {
    cpu.periods = keyed(text, "nr_periods");
    cpu.throttled_periods = keyed(text, "nr_throttled");
    cpu.throttled_ns = keyed(text, "throttled_time");
}

fn memory_v2(folder: &Path) -> Result<MemoryStats, CgroupError> {
    Ok(MemoryStats {
        usage_bytes: number(folder, "memory.current")?,
        usage_bytes_max: number(folder, "memory.peak")?,
        limit_bytes: limit(folder, "memory.max")?,
        limit_hits: keyed(&text(folder, "memory.events")?, "max"),
        swap_bytes: number(folder, "memory.swap.current")?,
        details: details(&text(folder, "memory.stat")?),
    })
}

fn memory_v1(folder: &Path) -> Result<MemoryStats, CgroupError> {
    let usage_bytes = number(folder, "memory.usage_in_bytes")?;
    let limit_bytes = number(folder, "memory.limit_in_bytes")?;
    Ok(MemoryStats {
        usage_bytes,
        usage_bytes_max: number(folder, "memory.max_usage_in_bytes")?,
        // Version 1 says "none" with the largest number of whole pages.
        limit_bytes: if limit_bytes >= (i64::MAX as u64) & !0xffff {
            u64::MAX
        } else {
            limit_bytes
        },
        limit_hits: number(folder, "memory.failcnt")?,
        swap_bytes: number(folder, "memory.memsw.usage_in_bytes")?.saturating_sub(usage_bytes),
        details: details(&text(folder, "memory.stat")?),
    })
}

fn blkio_v1(folder: &Path) -> Result<BlkioStats, CgroupError> {
    let table = |name: &str| -> Result<Vec<BlkioEntry>, CgroupError> {
        Ok(text(folder, name)?.lines().filter_map(blkio_line_v1).collect())
    };
    Ok(BlkioStats {
        service_bytes: table("blkio.throttle.io_service_bytes_recursive")?,
        serviced: table("blkio.throttle.io_serviced_recursive")?,
    })
}

/// `8:0 Read 4096`.
fn blkio_line_v1(line: &str) -> Option<BlkioEntry> {
    let mut words = line.split_whitespace();
    let (major, minor) = words.next()?.split_once(':')?;
    let operation = words
        .next()
        .filter(|word| matches!(*word, "Read" | "Write"))?
        .to_lowercase();
    let value = words.next()?.parse().ok()?;
    Some(BlkioEntry {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        operation,
        value,
    })
}

fn blkio_v2(folder: &Path) -> Result<BlkioStats, CgroupError> {
    let mut stats = BlkioStats::default();
    for line in text(folder, "io.stat")?.lines() {
        blkio_line_v2(line, &mut stats);
    }
    Ok(stats)
}

/// `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 …`.
fn blkio_line_v2(line: &str, stats: &mut BlkioStats) {
    let mut words = line.split_whitespace();
    let device = words.next().and_then(|word| word.split_once(':'));
    let Some((Ok(major), Ok(minor))) = device.map(|(major, minor)| (major.parse(), minor.parse())) else {
        return;
    };
    for (key, value) in words.filter_map(|word| word.split_once('=')) {
        let Ok(value) = value.parse() else { continue };
        let entry = |operation: &str| BlkioEntry {
            major,
            minor,
            operation: operation.to_owned(),
            value,
        };
        match key {
            "rbytes" => stats.service_bytes.push(entry("read")),
            "wbytes" => stats.service_bytes.push(entry("write")),
            "rios" => stats.serviced.push(entry("read")),
            "wios" => stats.serviced.push(entry("write")),
            _ => {}
        }
    }
}

/// The number behind a key in lines of `key number`; 0 where the key is missing.
pub(super) fn keyed(text: &str, key: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

fn details(text: &str) -> BTreeMap<String, u64> {
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs
        .filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?)))
        .collect()
}

fn text(folder: &Path, name: &str) -> Result<String, CgroupError> {
    Ok(read_if_there(&folder.join(name))?.unwrap_or_default())
}

fn number(folder: &Path, name: &str) -> Result<u64, CgroupError> {
    Ok(text(folder, name)?.trim().parse().unwrap_or(0))
}

/// A limit file: a number, or `max`.
fn limit(folder: &Path, name: &str) -> Result<u64, CgroupError> {
    Ok(text(folder, name)?.trim().parse().unwrap_or(u64::MAX))
}
