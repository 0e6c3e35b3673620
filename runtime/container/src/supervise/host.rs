//! What the shim finds out about the host before it makes a container.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit};

use super::control::Refusal;
use super::peer::Joined;
use crate::cgroup::Hierarchies;
use crate::plan::{RunPlan, Ulimit};
use crate::rootfs::IDENTITY_FILES;
use crate::spec::{HostView, find_devices};

/// The kernel's limits by the names of setrlimit(2).
const RESOURCES: [(&str, Resource); 16] = [
    ("as", Resource::RLIMIT_AS),
    ("core", Resource::RLIMIT_CORE),
    ("cpu", Resource::RLIMIT_CPU),
    ("data", Resource::RLIMIT_DATA),
    ("fsize", Resource::RLIMIT_FSIZE),
    ("locks", Resource::RLIMIT_LOCKS),
    ("memlock", Resource::RLIMIT_MEMLOCK),
    ("msgqueue", Resource::RLIMIT_MSGQUEUE),
    ("nice", Resource::RLIMIT_NICE),
    ("nofile", Resource::RLIMIT_NOFILE),
    ("nproc", Resource::RLIMIT_NPROC),
    ("rss", Resource::RLIMIT_RSS),
    ("rtprio", Resource::RLIMIT_RTPRIO),
    ("rttime", Resource::RLIMIT_RTTIME),
    ("sigpending", Resource::RLIMIT_SIGPENDING),
    ("stack", Resource::RLIMIT_STACK),
];

pub(super) fn view(
    plan: &RunPlan,
    sources: &[(PathBuf, PathBuf)],
    joined: &Joined,
) -> Result<HostView, Refusal> {
    let cgroup_mode = Hierarchies::of_host()
        .map(|found| found.mode)
        .map_err(|error| Refusal::runtime("look at control groups", &error))?;
    let devices = find_devices(&plan.confinement.devices)
        .map_err(|error| Refusal::runtime("find the devices of the policy", &error))?;
    let limits = &plan.resources;
    let wants_io = limits.io_read_bytes_per_second.is_some() || limits.io_write_bytes_per_second.is_some();
    let block_devices = if wants_io { block_devices() } else { Vec::new() };
    let exists = |name: &&str| plan.state_dir.join(name).exists();
    let identity_files = IDENTITY_FILES
        .into_iter()
        .filter(exists)
        .map(String::from)
        .collect();
    Ok(HostView {
        cgroup_mode,
        devices,
        block_devices,
        hard_limits: hard_limits(),
        identity_files,
        has_message_queues: Path::new("/dev/mqueue").exists(),
        sources: sources.to_vec(),
        joined: joined.paths(),
        shared_memory: joined.shared_memory(),
    })
}

fn hard_limits() -> Vec<(String, u64)> {
    let limit = |(name, resource): (&str, Resource)| Some((name.to_string(), getrlimit(resource).ok()?.1));
    RESOURCES.into_iter().filter_map(limit).collect()
}

/// An added process gets the container's limits, with its own before them.
pub(super) fn rlimits(container: &[Ulimit], own: &[Ulimit]) -> Vec<(String, u64, u64)> {
    let others = container
        .iter()
        .filter(|limit| !own.iter().any(|other| other.name == limit.name));
    let hard_limits = hard_limits();
    let clamp = |limit: &Ulimit| {
        let known = hard_limits
            .iter()
            .find(|(name, _)| *name == limit.name)
            .map_or(u64::MAX, |(_, hard)| *hard);
        let hard = if limit.asked {
            limit.hard
        } else {
            limit.hard.min(known)
        };
        (limit.name.clone(), limit.soft.min(hard), hard)
    };
    own.iter().chain(others).map(clamp).collect()
}

/// Whole disks; a limit on a disk holds for its partitions. Loops and memory disks are files and memory in the end.
pub fn block_devices() -> Vec<(u32, u32)> {
    let Ok(entries) = fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    let mut found: Vec<(u32, u32)> = entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            !name.starts_with("loop") && !name.starts_with("ram") && !name.starts_with("zram")
        })
        .filter_map(|entry| {
            let numbers = fs::read_to_string(entry.path().join("dev")).ok()?;
            let (major, minor) = numbers.trim().split_once(':')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        })
        .collect();
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_added_process_keeps_the_containers_limits() {
        let limit = |name: &str, value| Ulimit {
            name: name.into(),
            soft: value,
            hard: value,
            asked: true,
        };
        let merged = rlimits(&[limit("nofile", 64), limit("core", 0)], &[limit("nofile", 32)]);
        assert_eq!(merged, [("nofile".into(), 32, 32), ("core".into(), 0, 0)]);
        let default = Ulimit {
            asked: false,
            ..limit("nofile", u64::MAX)
        };
        assert!(
            rlimits(&[default], &[])[0].2 < u64::MAX,
            "a default is clamped to what the host allows"
        );
    }
}
