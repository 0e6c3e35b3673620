//! Resource use of a container, in Docker's fields.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use kakoi_api::ZERO_TIME;
use kakoi_api::stats::{
    BlkioEntry, BlkioStats, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats, Stats, Throttling,
};
use kakoi_container::cgroup::Stats as Used;
use kakoi_container::frames::{Reply as ShimReply, Request};

use super::reply::{self, Reply};
use super::router::Asked;
use crate::clock;
use crate::engine::Engine;
use crate::life::container::Container;
use crate::refusal::Answer;
use crate::shim;

/// Between two samples. Docker's figure.
const INTERVAL: Duration = Duration::from_secs(1);

/// `GET /containers/{id}/stats`
pub async fn stats(asked: &Asked, id: &str) -> Answer<Reply> {
    let container = asked.engine.containers.find(id)?;
    let first = sample(&asked.engine, &container, None).await;
    if !asked.query.flag_or("stream", true) {
        if asked.query.flag("one-shot") || first.pids_stats.current.is_none() {
            return Ok(reply::ok(&first));
        }
        // Two samples, so that the client can tell a rate.
        tokio::time::sleep(INTERVAL).await;
        return Ok(reply::ok(&sample(&asked.engine, &container, Some(&first)).await));
    }
    let (sender, reply) = reply::stream("application/json");
    let (engine, mut last) = (asked.engine.clone(), first);
    tokio::spawn(async move {
        let mut pulse = container.pulse();
        while reply::send_line(&sender, &last).await {
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = sender.closed() => return,
                _ = pulse.wait_for(|pulse| pulse.gone) => return,
            }
            last = sample(&engine, &container, Some(&last)).await;
        }
    });
    Ok(reply)
}

/// One sample; of a container that is down all zero.
async fn sample(engine: &Arc<Engine>, container: &Container, before: Option<&Stats>) -> Stats {
    let (name, pid, is_up) = {
        let shared = container.shared();
        (
            format!("/{}", shared.record.name),
            shared.pid,
            shared.phase.is_up(),
        )
    };
    let used = match is_up {
        true => shim::ask(&engine.paths.run_dir(&container.id), &Request::Stats)
            .await
            .ok(),
        false => None,
    };
    let mut stats = Stats {
        name,
        id: container.id.clone(),
        read: ZERO_TIME.into(),
        preread: before.map_or_else(|| ZERO_TIME.into(), |before| before.read.clone()),
        precpu_stats: before.map(|before| before.cpu_stats.clone()).unwrap_or_default(),
        ..Stats::default()
    };
    if let Some((ShimReply::Stats(used), _)) = used {
        fill(
            &mut stats,
            &used,
            host_cpu_ns(&fs::read_to_string("/proc/stat").unwrap_or_default()),
        );
        stats.networks = networks(&fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default());
    }
    stats
}

fn fill(stats: &mut Stats, used: &Used, host: Option<u64>) {
    let processors =
        std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1));
    stats.read = clock::now();
    let limited = |limit: u64| Some(limit).filter(|limit| *limit != u64::MAX);
    stats.pids_stats = PidsStats {
        current: Some(used.pids.current),
        limit: limited(used.pids.limit),
    };
    stats.cpu_stats = CpuStats {
        cpu_usage: CpuUsage {
            total_usage: used.cpu.usage_ns,
            percpu_usage: (!used.cpu.per_cpu_ns.is_empty()).then(|| used.cpu.per_cpu_ns.clone()),
            usage_in_kernelmode: used.cpu.system_ns,
            usage_in_usermode: used.cpu.user_ns,
        },
        system_cpu_usage: host,
        online_cpus: Some(processors),
        throttling_data: Throttling {
            periods: used.cpu.periods,
            throttled_periods: used.cpu.throttled_periods,
            throttled_time: used.cpu.throttled_ns,
        },
    };
    stats.memory_stats = MemoryStats {
        usage: Some(used.memory.usage_bytes),
        max_usage: Some(used.memory.usage_bytes_max).filter(|peak| *peak > 0),
        stats: used.memory.details.clone(),
        failcnt: Some(used.memory.limit_hits),
        limit: limited(used.memory.limit_bytes)
            .or_else(|| memory_total(&fs::read_to_string("/proc/meminfo").unwrap_or_default())),
    };
    let entries = |list: &[kakoi_container::cgroup::BlkioEntry]| {
        let wire = list.iter().map(|entry| BlkioEntry {
            major: entry.major,
            minor: entry.minor,
            op: entry.operation.clone(),
            value: entry.value,
        });
        Some(wire.collect::<Vec<_>>())
    };
    stats.blkio_stats = BlkioStats {
        io_service_bytes_recursive: entries(&used.blkio.service_bytes),
        io_serviced_recursive: entries(&used.blkio.serviced),
        ..BlkioStats::default()
    };
}

/// Processor time of the whole host, from `/proc/stat`, in nanoseconds.
fn host_cpu_ns(text: &str) -> Option<u64> {
    /// The kernel counts in hundredths of a second for programs, whatever it counts in for itself.
    const NS_PER_TICK: u64 = 10_000_000;
    let ticks: u64 = text
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace()
        .take(8)
        .map(|n| n.parse().unwrap_or(0))
        .sum();
    Some(ticks * NS_PER_TICK)
}

/// All memory of the host, from `/proc/meminfo`.
pub fn memory_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace()
        .next()?
        .parse::<u64>()
        .ok()
        .map(|kib| kib << 10)
}

/// Counters of `/proc/<pid>/net/dev`, less loopback.
fn networks(text: &str) -> BTreeMap<String, NetworkStats> {
    text.lines()
        .skip(2)
        .filter_map(|line| {
            let (name, rest) = line.split_once(':')?;
            let n: Vec<u64> = rest
                .split_whitespace()
                .map(|number| number.parse().unwrap_or(0))
                .collect();
            if name.trim() == "lo" || n.len() < 12 {
                return None;
            }
            let stats = NetworkStats {
                rx_bytes: n[0],
                rx_packets: n[1],
                rx_errors: n[2],
                rx_dropped: n[3],
                tx_bytes: n[8],
                tx_packets: n[9],
                tx_errors: n[10],
                tx_dropped: n[11],
            };
            Some((name.trim().to_owned(), stats))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_tables() {
        assert_eq!(
            host_cpu_ns("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1\n"),
            Some(36 * 10_000_000)
        );
        assert_eq!(host_cpu_ns("x"), None);
        assert_eq!(memory_total("MemTotal:       2 kB\n"), Some(2048));
        let text = "a\nb\n  lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\neth0: 10 1 2 3 0 0 0 0 20 4 5 6 0 0 0 0\n";
        let networks = networks(text);
        assert_eq!(networks.len(), 1);
        assert_eq!((networks["eth0"].rx_bytes, networks["eth0"].tx_dropped), (10, 6));
    }
}
