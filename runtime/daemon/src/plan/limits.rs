//! Limits of a container in the wire's words, judged and turned into the plan's.

use std::collections::BTreeMap;

use kakoi_api::container::{HostConfig, LogConfig, UpdateBody};
use kakoi_container::plan::{LogDriver, LogPlan, Resources, RunPlan, Ulimit};
use kakoi_policy::confinement::Limits;
use kakoi_policy::{Amount, Bounded, Ceiling, LimitRequests, NeighbourRequests, ULIMITS};

use crate::config::Settings;
use crate::refusal::{Answer, Refusal};

/// The least memory that Docker accepts.
const MEMORY_BYTES_MIN: i64 = 6 << 20;
/// The scheduling period behind a number of processors.
const CPU_PERIOD_US: u64 = 100_000;

/// What flags say of limits beside what the policy language has words for. `limits` are those that policy and ceiling left.
pub fn resources(host: &HostConfig, limits: &Limits) -> Answer<Resources> {
    check(host)?;
    if limits.swap_bytes.is_some() && limits.memory_bytes.is_none() {
        // Version 1 counts memory and swap together, so that swap alone has no limit there.
        return Err(Refusal::forbidden(
            "a limit of swap (limits.swap) can be kept only beside one of memory: add limits.memory or --memory",
        ));
    }
    if host.oom_kill_disable == Some(true) && limits.memory_bytes.is_none() {
        return Err(Refusal::bad(
            "--oom-kill-disable needs a limit of memory: without one the whole device would hang",
        ));
    }
    let (cpu_quota_us, cpu_period_us) = cpu(host, limits.cpu_millis);
    let memory_and_swap_bytes = match (limits.memory_bytes, limits.swap_bytes) {
        (Some(memory), Some(swap)) => Some(memory.saturating_add(swap)),
        // Docker gives as much swap as memory where nothing is said.
        (Some(memory), None) if host.memory > 0 && host.memory_swap == 0 => Some(memory.saturating_mul(2)),
        (_, None) if host.memory_swap == -1 => Some(u64::MAX),
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

fn positive(value: i64) -> Option<u64> {
    u64::try_from(value).ok().filter(|value| *value > 0)
}

fn word(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

/// Quota and period: the quota that was asked for as long as it is no more than `millis`.
fn cpu(host: &HostConfig, millis: Option<u64>) -> (Option<i64>, Option<u64>) {
    let period = positive(host.cpu_period);
    let within = |millis: u64| {
        let period = period.unwrap_or(CPU_PERIOD_US);
        (
            i64::try_from(millis.saturating_mul(period) / 1000).ok(),
            Some(period),
        )
    };
    match (positive(host.cpu_quota), millis) {
        (Some(quota), Some(millis)) => {
            let (most, period) = within(millis);
            let quota = i64::try_from(quota).ok();
            (most.min(quota), period)
        }
        (Some(quota), None) => (i64::try_from(quota).ok(), Some(period.unwrap_or(CPU_PERIOD_US))),
        (None, Some(millis)) => within(millis),
        (None, None) => (None, period),
    }
}

/// A container's limits as an update leaves them, and which of those that the policy language has words for it changes.
pub fn updated(held: &HostConfig, body: &UpdateBody) -> Answer<(HostConfig, LimitRequests)> {
    let mut host = held.clone();
    for (held, changed) in [
        (&mut host.memory, body.memory),
        (&mut host.memory_reservation, body.memory_reservation),
        (&mut host.memory_swap, body.memory_swap),
        (&mut host.nano_cpus, body.nano_cpus),
        (&mut host.cpu_shares, body.cpu_shares),
        (&mut host.cpu_period, body.cpu_period),
        (&mut host.cpu_quota, body.cpu_quota),
    ] {
        if changed != 0 {
            *held = changed;
        }
    }
    // The one takes the place of the other.
    if body.nano_cpus != 0 && body.cpu_period == 0 && body.cpu_quota == 0 {
        (host.cpu_period, host.cpu_quota) = (0, 0);
    } else if body.nano_cpus == 0 && (body.cpu_period != 0 || body.cpu_quota != 0) {
        host.nano_cpus = 0;
    }
    for (held, changed) in [
        (&mut host.cpuset_cpus, &body.cpuset_cpus),
        (&mut host.cpuset_mems, &body.cpuset_mems),
    ] {
        if !changed.is_empty() {
            held.clone_from(changed);
        }
    }
    if body.blkio_weight != 0 {
        host.blkio_weight = body.blkio_weight;
    }
    // Nothing said changes nothing; in an update, 0 is a word for no limit.
    host.pids_limit = body
        .pids_limit
        .map(|pids| if pids == 0 { -1 } else { pids })
        .or(host.pids_limit);
    let (before, mut after) = (asked(held)?, asked(&host)?);
    for (is_same, slot) in [
        (before.memory == after.memory, &mut after.memory),
        (before.swap == after.swap, &mut after.swap),
        (before.cpu_millis == after.cpu_millis, &mut after.cpu_millis),
        (
            before.pids == after.pids && body.pids_limit.is_none(),
            &mut after.pids,
        ),
    ] {
        if is_same {
            *slot = None;
        }
    }
    after.open_files = None;
    after.shm = None;
    Ok((host, after))
}

/// What an update writes: what it changed, as far as it was granted. `swap` is the limit that the container has beside one that is asked for.
pub fn update(host: &HostConfig, body: &UpdateBody, granted: &Bounded, swap: Option<u64>) -> Resources {
    let number = |amount: Amount| amount.value().unwrap_or(u64::MAX);
    let limits = &granted.limits;
    let memory_bytes = limits.memory.map(number);
    let memory = memory_bytes.or_else(|| positive(host.memory));
    let is_moved = limits.memory.is_some() || limits.swap.is_some();
    // Without a limit of memory, swap can only be unlimited: anything else was refused with the request.
    let without_memory = limits.swap.map(|_| u64::MAX);
    let memory_and_swap_bytes = memory.filter(|_| is_moved).map_or(without_memory, |memory| {
        let most = granted.most.swap_bytes.unwrap_or(u64::MAX);
        let swap = match limits.swap {
            Some(swap) => number(swap),
            None if host.memory_swap == -1 => u64::MAX,
            None if host.memory_swap > 0 => positive(host.memory_swap - host.memory).unwrap_or(0),
            None => swap.unwrap_or(memory),
        };
        Some(memory.saturating_add(swap.min(most)))
    });
    let (cpu_quota_us, cpu_period_us) = match limits.cpu_millis {
        Some(amount) => cpu(host, amount.value()),
        None => (None, None),
    };
    Resources {
        memory_bytes,
        memory_reservation_bytes: positive(body.memory_reservation),
        memory_and_swap_bytes,
        cpu_shares: positive(body.cpu_shares).map(|shares| shares.clamp(2, 262_144)),
        cpu_quota_us,
        cpu_period_us,
        cpuset_cpus: word(&body.cpuset_cpus),
        cpuset_mems: word(&body.cpuset_mems),
        pids: limits.pids.map(number),
        blkio_weight: (body.blkio_weight > 0).then_some(body.blkio_weight),
        io_read_bytes_per_second: None,
        io_write_bytes_per_second: None,
        oom_kill: None,
    }
}

/// Reads the limits that the policy language has words for from the wire.
pub fn asked(host: &HostConfig) -> Answer<LimitRequests> {
    check(host)?;
    let amount = |value: i64| match value {
        0 => None,
        value => Some(u64::try_from(value).map_or(Amount::Unlimited, Amount::At)),
    };
    let memory = positive(host.memory);
    let swap = match host.memory_swap {
        0 => None,
        -1 => Some(Amount::Unlimited),
        both => u64::try_from(both - host.memory).ok().map(Amount::At),
    };
    // Rounded up: what is judged is never less than what is given.
    let cpu_millis = match (positive(host.nano_cpus), positive(host.cpu_quota)) {
        (Some(nano), _) => Some(nano.div_ceil(1_000_000)),
        (None, Some(quota)) => {
            let period = positive(host.cpu_period).unwrap_or(CPU_PERIOD_US);
            Some(quota.saturating_mul(1000).div_ceil(period))
        }
        (None, None) => None,
    };
    let mut ulimits = host.ulimits.iter();
    let open_files = ulimits.find(|limit| limit.name == "nofile");
    Ok(LimitRequests {
        memory: memory.map(Amount::At),
        swap,
        cpu_millis: cpu_millis.map(Amount::At),
        // Docker's client sends 0 where nobody said anything.
        pids: host.pids_limit.and_then(amount),
        open_files: open_files.map(|limit| u64::try_from(limit.hard).map_or(Amount::Unlimited, Amount::At)),
        shm: positive(host.shm_size).map(Amount::At),
    })
}

/// Reads what is asked for at the neighbours' expense.
pub fn neighbours(host: &HostConfig, settings: &Settings) -> Answer<NeighbourRequests> {
    let hard = |limit: &kakoi_api::container::Ulimit| {
        let most = u64::try_from(limit.hard).map_or(Amount::Unlimited, Amount::At);
        (limit.name.clone(), most)
    };
    let kept = |plan: &LogPlan| plan.size_bytes_max.saturating_mul(u64::from(plan.files_max));
    let (everyones, asked) = (
        kept(&log(&LogConfig::default(), settings)?),
        log(&host.log_config, settings)?,
    );
    let is_more = asked.driver == LogDriver::JsonFile && kept(&asked) > everyones;
    Ok(NeighbourRequests {
        cpu_shares: positive(host.cpu_shares).map(Amount::At),
        io_weight: (host.blkio_weight > 0).then_some(Amount::At(host.blkio_weight.into())),
        memory_reservation: positive(host.memory_reservation).map(Amount::At),
        cpus: word(&host.cpuset_cpus),
        oom_kill_disable: host.oom_kill_disable == Some(true),
        ulimits: host
            .ulimits
            .iter()
            .filter(|limit| limit.name != "nofile")
            .map(hard)
            .collect(),
        log: is_more.then(|| match kept(&asked) {
            u64::MAX => Amount::Unlimited,
            bytes => Amount::At(bytes),
        }),
    })
}

/// The same of an update: what it changes.
pub fn neighbours_updated(body: &UpdateBody) -> NeighbourRequests {
    NeighbourRequests {
        cpu_shares: positive(body.cpu_shares).map(Amount::At),
        io_weight: (body.blkio_weight > 0).then_some(Amount::At(body.blkio_weight.into())),
        memory_reservation: positive(body.memory_reservation).map(Amount::At),
        cpus: word(&body.cpuset_cpus),
        ..NeighbourRequests::default()
    }
}

/// Gives a container that does not ask what the owner lets any have.
pub fn fill(plan: &mut RunPlan, ceiling: &Ceiling) {
    if plan.resources.cpuset_cpus.is_none() {
        plan.resources.cpuset_cpus = ceiling.cpus();
    }
    for (name, most) in ceiling.ulimits() {
        if !plan.process.ulimits.iter().any(|limit| limit.name == name) {
            plan.process.ulimits.push(Ulimit {
                name: name.to_owned(),
                soft: most,
                hard: most,
                asked: false,
            });
        }
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
    for (set, what, name, online) in [
        (
            &host.cpuset_cpus,
            "CPUs",
            "cpus",
            "/sys/devices/system/cpu/online",
        ),
        (
            &host.cpuset_mems,
            "memory nodes",
            "mems",
            "/sys/devices/system/node/online",
        ),
    ] {
        // Without the file there is one of the kind: a kernel that knows no nodes.
        let online = std::fs::read_to_string(online).unwrap_or_else(|_| "0".to_owned());
        check_set(set, what, name, online.trim())?;
    }
    Ok(())
}

/// Whether a list of numbers (`0-1,3`) names only what the device has.
fn check_set(set: &str, what: &str, name: &str, online: &str) -> Answer<()> {
    let Some(asked) = spans(set) else {
        return Err(Refusal::bad(format!("Invalid value {set} for cpuset {name}")));
    };
    let online_spans = spans(online).unwrap_or_default();
    let is_there = |(first, last): &(u32, u32)| {
        online_spans
            .iter()
            .any(|(lowest, highest)| lowest <= first && last <= highest)
    };
    if !asked.iter().all(is_there) {
        return Err(Refusal::bad(format!(
            "Requested {what} are not available - requested {set}, available: {online}"
        )));
    }
    Ok(())
}

/// The numbers of a list, from and to; `None` where it is none.
fn spans(set: &str) -> Option<Vec<(u32, u32)>> {
    let parts = set.split(',').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            (first <= last).then_some((first, last))
        })
        .collect()
}

/// Resource limits of the process. What the policy says stands where no person asked for another.
pub fn ulimits(host: &HostConfig, limits: &Limits) -> Answer<Vec<Ulimit>> {
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
        let is_known = limit.name == "nofile" || ULIMITS.contains(&limit.name.as_str());
        if !is_known || soft > hard || all.iter().any(|other: &Ulimit| other.name == limit.name) {
            return Err(invalid());
        }
        // More than is left was asked for only where the owner trims, and then it stands in the losses.
        let most = limits
            .open_files
            .filter(|_| limit.name == "nofile")
            .unwrap_or(u64::MAX);
        all.push(Ulimit {
            name: limit.name.clone(),
            soft: soft.min(most),
            hard: hard.min(most),
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
                "logger: no log driver named '{other}' is registered"
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
        let read = asked(&host).expect("valid");
        assert_eq!((read.memory, read.swap), (Some(Amount::At(64 << 20)), None));
        assert_eq!(
            (read.cpu_millis, read.pids),
            (Some(Amount::At(1500)), Some(Amount::At(20)))
        );
        let limits = Limits {
            cpu_millis: Some(1500),
            memory_bytes: Some(64 << 20),
            ..unlimited()
        };
        let given = resources(&host, &limits).expect("valid");
        assert_eq!(
            (
                given.cpu_quota_us,
                given.cpu_period_us,
                given.memory_and_swap_bytes
            ),
            (Some(150_000), Some(100_000), Some(128 << 20))
        );
        let both = HostConfig {
            memory: 64 << 20,
            memory_swap: 96 << 20,
            ..Default::default()
        };
        assert_eq!(asked(&both).expect("valid").swap, Some(Amount::At(32 << 20)));
    }

    #[test]
    fn unlimited_is_a_value_of_its_own_and_silence_is_none() {
        let read = |change: fn(&mut HostConfig)| {
            let mut host = HostConfig::default();
            change(&mut host);
            asked(&host).expect("valid")
        };
        assert_eq!(read(|host| host.memory_swap = -1).swap, Some(Amount::Unlimited));
        assert_eq!(
            read(|host| host.pids_limit = Some(-1)).pids,
            Some(Amount::Unlimited)
        );
        assert_eq!(
            read(|host| host.pids_limit = Some(0)).pids,
            None,
            "Docker's client"
        );
        let nofile = read(|host| {
            host.ulimits = vec![WireUlimit {
                name: "nofile".into(),
                soft: -1,
                hard: -1,
            }];
        });
        assert_eq!(nofile.open_files, Some(Amount::Unlimited));
        let host = HostConfig {
            memory_swap: -1,
            ..Default::default()
        };
        let left = |memory, swap| Limits {
            memory_bytes: memory,
            swap_bytes: swap,
            ..unlimited()
        };
        let both = |limits| resources(&host, &limits).expect("valid").memory_and_swap_bytes;
        assert_eq!(both(left(Some(64), None)), Some(u64::MAX));
        assert_eq!(
            both(left(Some(64), Some(10))),
            Some(74),
            "what the owner left wins"
        );
        let refusal = resources(&host, &left(None, Some(10))).expect_err("swap alone cannot be limited");
        assert!(refusal.message.contains("--memory"), "{}", refusal.message);
    }

    #[test]
    fn a_quota_is_judged_rounded_up_and_kept_below_what_is_left() {
        let host = HostConfig {
            cpu_quota: 50_001,
            ..Default::default()
        };
        assert_eq!(asked(&host).expect("valid").cpu_millis, Some(Amount::At(501)));
        for (left, quota) in [(Some(501), 50_001), (Some(200), 20_000), (None, 50_001)] {
            let limits = Limits {
                cpu_millis: left,
                ..unlimited()
            };
            let given = resources(&host, &limits).expect("valid").cpu_quota_us;
            assert_eq!(given, Some(quota), "{left:?}");
        }
    }

    #[test]
    fn an_update_asks_for_what_it_changes() {
        let held = HostConfig {
            memory: 64 << 20,
            cpu_quota: 50_000,
            pids_limit: Some(20),
            ..Default::default()
        };
        let of = |change: fn(&mut UpdateBody)| {
            let mut body = UpdateBody::default();
            change(&mut body);
            updated(&held, &body)
        };
        assert_eq!(of(|_| {}).expect("valid").1, LimitRequests::none());
        let memory = of(|body| body.memory = 128 << 20).expect("valid").1;
        assert_eq!(
            memory,
            LimitRequests {
                memory: Some(Amount::At(128 << 20)),
                ..LimitRequests::none()
            }
        );
        let period = of(|body| body.cpu_period = 10_000).expect("valid").1;
        assert_eq!(
            period.cpu_millis,
            Some(Amount::At(5000)),
            "a shorter period is more time"
        );
        let (host, cpus) = of(|body| body.nano_cpus = 2_000_000_000).expect("valid");
        assert_eq!((host.cpu_quota, cpus.cpu_millis), (0, Some(Amount::At(2000))));
        for none in [0, -1] {
            let body = UpdateBody {
                pids_limit: Some(none),
                ..Default::default()
            };
            let (host, asked) = updated(&held, &body).expect("valid");
            assert_eq!(
                (host.pids_limit, asked.pids),
                (Some(-1), Some(Amount::Unlimited)),
                "{none}"
            );
        }
        assert!(
            of(|body| body.memory_swap = 32 << 20).is_err(),
            "less than the memory it has"
        );
        assert_eq!(
            of(|body| body.memory_swap = 65 << 20).expect("valid").1.swap,
            Some(Amount::At(1 << 20))
        );
    }

    #[test]
    fn an_update_writes_what_was_granted() {
        let host = HostConfig {
            memory: 128 << 20,
            ..Default::default()
        };
        let granted = |limits, swap_most| Bounded {
            limits,
            most: Limits {
                swap_bytes: swap_most,
                ..unlimited()
            },
            trimmed: Vec::new(),
        };
        let none = LimitRequests::none();
        let memory = LimitRequests {
            memory: Some(Amount::At(128 << 20)),
            ..none
        };
        let body = UpdateBody::default();
        let both =
            |limits, most, held| update(&host, &body, &granted(limits, most), held).memory_and_swap_bytes;
        assert_eq!(both(memory, None, None), Some(256 << 20));
        assert_eq!(both(memory, None, Some(10 << 20)), Some(138 << 20));
        assert_eq!(both(memory, Some(1 << 20), Some(10 << 20)), Some(129 << 20));
        assert_eq!(
            both(none, Some(1 << 20), None),
            None,
            "what is not asked is not touched"
        );
        let pids = LimitRequests {
            pids: Some(Amount::Unlimited),
            ..none
        };
        let written = update(&host, &body, &granted(pids, None), None);
        assert_eq!((written.pids, written.memory_bytes), (Some(u64::MAX), None));
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
            assert!(asked(&host).is_err(), "{host:?}");
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
