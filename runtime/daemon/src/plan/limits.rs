//! Limits of a container in the wire's words, judged and turned into the plan's.

use std::collections::BTreeMap;

use kakoi_api::container::{HostConfig, LogConfig, UpdateBody};
use kakoi_container::plan::{LogDriver, LogPlan, Resources, Ulimit};
use kakoi_policy::confinement::Limits;

use crate::config::Settings;
use crate::refusal::{Answer, Refusal};

/// The least memory that Docker accepts.
const MEMORY_BYTES_MIN: i64 = 6 << 20;
/// The scheduling period behind a number of processors.
const CPU_PERIOD_US: u64 = 100_000;

/// What flags say of limits beside what the policy language has words for.
pub fn resources(host: &HostConfig, limits: &Limits) -> Answer<Resources> {
    check(host)?;
    let positive = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
    let word = |value: &String| (!value.is_empty()).then(|| value.clone());
    let (cpu_quota_us, cpu_period_us) = match (host.cpu_quota, positive(host.cpu_period), limits.cpu_millis) {
        (quota, period, _) if quota != 0 => (Some(quota), Some(period.unwrap_or(CPU_PERIOD_US))),
        (_, period, Some(millis)) => {
            let period = period.unwrap_or(CPU_PERIOD_US);
            (
                i64::try_from(millis.saturating_mul(period) / 1000).ok(),
                Some(period),
            )
        }
        (_, period, None) => (None, period),
    };
    let memory_and_swap_bytes = match (host.memory_swap, limits.memory_bytes, limits.swap_bytes) {
        (-1, _, _) => Some(u64::MAX),
        (_, Some(memory), Some(swap)) => Some(memory.saturating_add(swap)),
        _ => None,
    };
    Ok(Resources {
        memory_bytes: limits.memory_bytes,
        memory_reservation_bytes: positive(host.memory_reservation),
        memory_and_swap_bytes,
        cpu_shares: positive(host.cpu_shares).map(|shares| shares.clamp(2, 262_144)),
        cpu_quota_us,
        cpu_period_us,
        cpuset_cpus: word(&host.cpuset_cpus),
        cpuset_mems: word(&host.cpuset_mems),
        pids: limits.pids,
        blkio_weight: (host.blkio_weight > 0).then_some(host.blkio_weight),
        io_read_bytes_per_second: limits.io_read_bytes_per_second,
        io_write_bytes_per_second: limits.io_write_bytes_per_second,
        oom_kill: host.oom_kill_disable.map(|disable| !disable),
    })
}

/// What an update changes.
pub fn update(body: &UpdateBody) -> Answer<Resources> {
    let host = HostConfig {
        memory: body.memory,
        memory_swap: body.memory_swap,
        memory_reservation: body.memory_reservation,
        nano_cpus: body.nano_cpus,
        cpu_shares: body.cpu_shares,
        cpu_period: body.cpu_period,
        cpu_quota: body.cpu_quota,
        cpuset_cpus: body.cpuset_cpus.clone(),
        cpuset_mems: body.cpuset_mems.clone(),
        blkio_weight: body.blkio_weight,
        pids_limit: body.pids_limit,
        ..HostConfig::default()
    };
    let asked = Asked::of(&host)?;
    let limits = Limits {
        memory_bytes: asked.memory_bytes,
        swap_bytes: asked.swap_bytes,
        cpu_millis: asked.cpu_millis,
        pids: asked.pids,
        open_files: None,
        io_read_bytes_per_second: None,
        io_write_bytes_per_second: None,
        tmpfs_bytes: None,
    };
    resources(&host, &limits)
}

/// The limits that the policy language has words for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Memory.
    pub memory_bytes: Option<u64>,
    /// Swap beside memory.
    pub swap_bytes: Option<u64>,
    /// Thousandths of a processor.
    pub cpu_millis: Option<u64>,
    /// Processes.
    pub pids: Option<u64>,
    /// Open files per process.
    pub open_files: Option<u64>,
}

impl Asked {
    /// Reads them from the wire.
    pub fn of(host: &HostConfig) -> Answer<Self> {
        check(host)?;
        let positive = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
        let memory_bytes = positive(host.memory);
        let swap_bytes = match (memory_bytes, host.memory_swap) {
            // Docker gives as much swap as memory where nothing is said.
            (Some(memory), 0) => Some(memory),
            (Some(memory), swap) => positive(swap).map(|both| both - memory),
            (None, _) => None,
        };
        let cpu_millis = match (positive(host.nano_cpus), positive(host.cpu_quota)) {
            (Some(nano), _) => Some((nano / 1_000_000).max(1)),
            (None, Some(quota)) => {
                Some((quota * 1000 / positive(host.cpu_period).unwrap_or(CPU_PERIOD_US)).max(1))
            }
            (None, None) => None,
        };
        let open_files = host
            .ulimits
            .iter()
            .find(|limit| limit.name == "nofile")
            .and_then(|limit| positive(limit.hard));
        Ok(Self {
            memory_bytes,
            swap_bytes,
            cpu_millis,
            pids: host.pids_limit.and_then(positive),
            open_files,
        })
    }
}

fn check(host: &HostConfig) -> Answer<()> {
    let bad = |message: &str| Err(Refusal::bad(message));
    if host.memory < 0 || (host.memory > 0 && host.memory < MEMORY_BYTES_MIN) {
        return bad("Minimum memory limit allowed is 6MB");
    }
    if host.memory_swap < -1 {
        return bad("Invalid value for memory-swap: it is -1, 0 or a number of bytes");
    }
    if host.memory_swap > 0 && host.memory == 0 {
        return bad("You should always set the Memory limit when using Memoryswap limit, see usage");
    }
    if host.memory_swap > 0 && host.memory_swap < host.memory {
        return bad("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if host.memory_reservation < 0 || (host.memory > 0 && host.memory_reservation > host.memory) {
        return bad("Minimum memory limit can not be less than memory reservation limit, see usage");
    }
    if host.nano_cpus < 0 {
        return bad("Range of CPUs cannot be negative");
    }
    if host.nano_cpus > 0 && (host.cpu_period > 0 || host.cpu_quota > 0) {
        return bad("Conflicting options: Nano CPUs and CPU Period or Quota cannot both be set");
    }
    if host.cpu_period != 0 && !(1000..=1_000_000).contains(&host.cpu_period) {
        return bad("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)");
    }
    if host.cpu_quota != 0 && host.cpu_quota < 1000 {
        return bad("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    if host.cpu_shares < 0 {
        return bad("invalid CPU shares: must be positive");
    }
    if host.blkio_weight != 0 && !(10..=1000).contains(&host.blkio_weight) {
        return bad("Range of blkio weight is from 10 to 1000");
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return bad("Invalid value, range for oom score adj is [-1000, 1000]");
    }
    if host.shm_size < 0 {
        return bad("SHM size can not be less than 0");
    }
    for set in [&host.cpuset_cpus, &host.cpuset_mems] {
        if !set
            .bytes()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b',' | b'-'))
        {
            return Err(Refusal::bad(format!("Invalid value {set} for cpuset")));
        }
    }
    Ok(())
}

/// Resource limits of the process. What the policy says stands where no person asked for another.
pub fn ulimits(host: &HostConfig, limits: &Limits) -> Answer<Vec<Ulimit>> {
    const NAMES: [&str; 16] = [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let value = |number: i64| match number {
        -1 => Some(u64::MAX),
        number => u64::try_from(number).ok(),
    };
    let mut all = Vec::new();
    for limit in &host.ulimits {
        let invalid = || {
            Refusal::bad(format!(
                "invalid ulimit {}: {}:{}",
                limit.name, limit.soft, limit.hard
            ))
        };
        let (soft, hard) = (
            value(limit.soft).ok_or_else(invalid)?,
            value(limit.hard).ok_or_else(invalid)?,
        );
        if !NAMES.contains(&limit.name.as_str())
            || soft > hard
            || all.iter().any(|other: &Ulimit| other.name == limit.name)
        {
            return Err(invalid());
        }
        all.push(Ulimit {
            name: limit.name.clone(),
            soft,
            hard,
            asked: true,
        });
    }
    if let Some(files) = limits.open_files
        && !all.iter().any(|limit| limit.name == "nofile")
    {
        all.push(Ulimit {
            name: "nofile".into(),
            soft: files,
            hard: files,
            asked: false,
        });
    }
    Ok(all)
}

/// Where output goes.
pub fn log(config: &LogConfig, settings: &Settings) -> Answer<LogPlan> {
    let driver = match config.kind.as_str() {
        "" | "json-file" | "local" => LogDriver::JsonFile,
        "none" => LogDriver::None,
        other => {
            return Err(Refusal::bad(format!(
                "logger: no log driver named '{other}' is registered; use json-file or none"
            )));
        }
    };
    let mut plan = LogPlan {
        driver,
        size_bytes_max: settings.log_size_bytes_max,
        files_max: settings.log_files_max,
    };
    options(&config.config, &mut plan)?;
    Ok(plan)
}

fn options(options: &BTreeMap<String, String>, plan: &mut LogPlan) -> Answer<()> {
    for (name, value) in options {
        let invalid = || Refusal::bad(format!("invalid value {value:?} for log option '{name}'"));
        match name.as_str() {
            "max-size" if value == "-1" => plan.size_bytes_max = u64::MAX,
            "max-size" => {
                plan.size_bytes_max = bytes(value).filter(|size| *size >= 4096).ok_or_else(invalid)?;
            }
            "max-file" => {
                plan.files_max = value
                    .parse()
                    .ok()
                    .filter(|count| (1..=1000).contains(count))
                    .ok_or_else(invalid)?;
            }
            // Words of Docker's drivers that change nothing here.
            "mode" | "tag" | "labels" | "labels-regex" | "env" | "env-regex" | "compress"
            | "max-buffer-size" => {}
            _ => {
                return Err(Refusal::bad(format!(
                    "unknown log opt '{name}' for json-file log driver"
                )));
            }
        }
    }
    Ok(())
}

/// Reads `10m`, `64k`, `1g`, `4096`, powers of 1024.
pub fn bytes(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let lower = lower
        .strip_suffix("ib")
        .or_else(|| lower.strip_suffix('b'))
        .unwrap_or(&lower);
    let (digits, shift) = match lower.as_bytes().last()? {
        b'k' => (&lower[..lower.len() - 1], 10),
        b'm' => (&lower[..lower.len() - 1], 20),
        b'g' => (&lower[..lower.len() - 1], 30),
        b't' => (&lower[..lower.len() - 1], 40),
        _ => (lower, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use kakoi_api::container::Ulimit as WireUlimit;

    use super::*;

    fn unlimited() -> Limits {
        Limits {
            memory_bytes: None,
            swap_bytes: None,
            cpu_millis: None,
            pids: None,
            open_files: None,
            io_read_bytes_per_second: None,
            io_write_bytes_per_second: None,
            tmpfs_bytes: None,
        }
    }

    #[test]
    fn reads_limits() {
        let host = HostConfig {
            memory: 64 << 20,
            nano_cpus: 1_500_000_000,
            pids_limit: Some(20),
            ..Default::default()
        };
        let asked = Asked::of(&host).expect("valid");
        assert_eq!(
            (asked.memory_bytes, asked.swap_bytes),
            (Some(64 << 20), Some(64 << 20))
        );
        assert_eq!((asked.cpu_millis, asked.pids), (Some(1500), Some(20)));
        let limits = Limits {
            cpu_millis: asked.cpu_millis,
            memory_bytes: asked.memory_bytes,
            ..unlimited()
        };
        let resources = resources(&host, &limits).expect("valid");
        assert_eq!(
            (resources.cpu_quota_us, resources.cpu_period_us),
            (Some(150_000), Some(100_000))
        );
        let both = HostConfig {
            memory: 64 << 20,
            memory_swap: 96 << 20,
            ..Default::default()
        };
        assert_eq!(Asked::of(&both).expect("valid").swap_bytes, Some(32 << 20));
    }

    #[test]
    fn refuses_nonsense() {
        for host in [
            HostConfig {
                memory: 1024,
                ..Default::default()
            },
            HostConfig {
                memory: -1,
                ..Default::default()
            },
            HostConfig {
                memory_swap: 1 << 30,
                ..Default::default()
            },
            HostConfig {
                memory: 64 << 20,
                memory_swap: 32 << 20,
                ..Default::default()
            },
            HostConfig {
                nano_cpus: 1,
                cpu_quota: 5000,
                ..Default::default()
            },
            HostConfig {
                cpu_period: 1,
                ..Default::default()
            },
            HostConfig {
                oom_score_adj: 1001,
                ..Default::default()
            },
            HostConfig {
                cpuset_cpus: "0;1".into(),
                ..Default::default()
            },
            HostConfig {
                blkio_weight: 5,
                ..Default::default()
            },
        ] {
            assert!(Asked::of(&host).is_err(), "{host:?}");
        }
    }

    #[test]
    fn a_policys_open_files_are_a_default() {
        let limits = Limits {
            open_files: Some(1024),
            ..unlimited()
        };
        let own = WireUlimit {
            name: "nofile".into(),
            soft: 10,
            hard: 20,
        };
        let host = HostConfig {
            ulimits: vec![own.clone()],
            ..Default::default()
        };
        let asked = ulimits(&host, &limits).expect("valid");
        assert_eq!(
            asked,
            [Ulimit {
                name: "nofile".into(),
                soft: 10,
                hard: 20,
                asked: true
            }]
        );
        assert!(!ulimits(&HostConfig::default(), &limits).expect("valid")[0].asked);
        for bad in [
            WireUlimit {
                name: "nofiles".into(),
                ..own.clone()
            },
            WireUlimit {
                soft: 30,
                ..own.clone()
            },
            WireUlimit { soft: -2, ..own },
        ] {
            assert!(
                ulimits(
                    &HostConfig {
                        ulimits: vec![bad],
                        ..Default::default()
                    },
                    &limits
                )
                .is_err()
            );
        }
    }

    #[test]
    fn reads_log_options() {
        let settings = Settings::default();
        let config = |kind: &str, pairs: &[(&str, &str)]| LogConfig {
            kind: kind.into(),
            config: pairs
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
        };
        let plan = log(&config("", &[("max-size", "64k"), ("max-file", "2")]), &settings).expect("valid");
        assert_eq!((plan.size_bytes_max, plan.files_max), (64 << 10, 2));
        for bad in [
            config("syslog", &[]),
            config("", &[("max-size", "x")]),
            config("", &[("max-file", "0")]),
        ] {
            assert!(log(&bad, &settings).is_err());
        }
        assert!(log(&config("", &[("max-sizes", "1m")]), &settings).is_err());
    }
}
