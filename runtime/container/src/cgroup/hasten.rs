//! Paying in advance for the first move of a process between control groups.
//!
//! The kernel makes forks cheap at the cost of moves: its lock over both (`cgroup_threadgroup_rwsem`, a per-CPU semaphore) lets the first mover after a
//! pause wait for an RCU grace period, 8 to 16 ms on two processors, and those right after it for microseconds. Whoever knows that a
//! container is about to start can spend that wait beside the rest of the work. Source: kernel/locking/percpu-rwsem.c and kernel/rcu/sync.c.

use super::{CgroupError, Hierarchies, write};

/// Moves this process into the group in which it is, which changes nothing but makes the next move of anybody's quick. Blocks for up to a
/// grace period. Needs the right to write that group's `cgroup.procs`.
pub fn hasten() -> Result<(), CgroupError> {
    let table = std::fs::read_to_string("/proc/self/cgroup").map_err(CgroupError::MountTable)?;
    let own = Hierarchies::of_host()?.own_group(&table);
    let own = own.ok_or(CgroupError::NoHierarchy)?;
    write(&own.join("cgroup.procs"), "0")
}
