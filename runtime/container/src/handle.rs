//! A process that is still the one it was.
//!
//! Owns the pair of process id and start time, and the pidfd opened for it. Refuses bare ids: a number that the kernel has given to someone
//! else answers like an ended process.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use kakoi_sys::process;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// Names a process for as long as the system runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its id in the runtime's pid namespace.
    pub pid: i32,
    /// When it started, in clock ticks since boot (proc_pid_stat(5), field 22).
    pub start_time: u64,
}

/// Why a process could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    /// It ended, or its id belongs to another process now.
    #[error("process {0} has ended")]
    Gone(i32),
    /// The kernel refused.
    #[error("reach process {pid}")]
    Call {
        /// Its id.
        pid: i32,
        /// Why.
        #[source]
        source: kakoi_sys::CallError,
    },
    /// `/proc` could not be read.
    #[error("read the state of process {pid}")]
    Proc {
        /// Its id.
        pid: i32,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A pidfd of a process that was the right one when it was opened; the kernel keeps it so.
#[derive(Debug)]
pub struct Handle {
    id: ProcessId,
    pidfd: OwnedFd,
}

impl Handle {
    /// Opens a process by its bare id: only for a child that cannot have been reaped.
    pub fn of_child(pid: i32) -> Result<Self, HandleError> {
        let pidfd = open(pid)?;
        let start_time = start_time(pid)?;
        Ok(Self {
            id: ProcessId { pid, start_time },
            pidfd,
        })
    }

    /// Opens the process that was named before.
    pub fn open(id: ProcessId) -> Result<Self, HandleError> {
        // The descriptor first: between the two the id cannot change hands unnoticed, because the time is read after it is pinned.
        let pidfd = open(id.pid)?;
        if start_time(id.pid)? != id.start_time {
            return Err(HandleError::Gone(id.pid));
        }
        Ok(Self { id, pidfd })
    }

    /// Its name.
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// Its pidfd; readable when it ends.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Sends a signal; a process that ended answers [`HandleError::Gone`].
    pub fn signal(&self, signal: i32) -> Result<(), HandleError> {
        process::pidfd_send_signal(self.pidfd.as_fd(), signal).map_err(|source| match source.errno {
            kakoi_sys::Errno::ESRCH => HandleError::Gone(self.id.pid),
            _ => HandleError::Call {
                pid: self.id.pid,
                source,
            },
        })
    }

    /// Whether it runs: neither reaped nor a zombie.
    pub fn is_alive(&self) -> bool {
        self.signal(0).is_ok() && !is_zombie(self.id.pid)
    }
}

fn open(pid: i32) -> Result<OwnedFd, HandleError> {
    process::pidfd_open(Pid::from_raw(pid)).map_err(|source| match source.errno {
        kakoi_sys::Errno::ESRCH => HandleError::Gone(pid),
        _ => HandleError::Call { pid, source },
    })
}

fn start_time(pid: i32) -> Result<u64, HandleError> {
    process::start_time(Pid::from_raw(pid)).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => HandleError::Gone(pid),
        _ => HandleError::Proc { pid, source },
    })
}

fn is_zombie(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| {
            stat.rsplit_once(") ")
                .map(|(_, rest)| rest.starts_with(['Z', 'X']))
        })
        .unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_start_time_is_another_process() {
        let own = Handle::of_child(std::process::id().cast_signed()).expect("ourselves");
        assert!(own.is_alive());
        assert!(Handle::open(own.id()).is_ok());
        let other = ProcessId {
            start_time: own.id().start_time + 1,
            ..own.id()
        };
        assert!(matches!(Handle::open(other), Err(HandleError::Gone(_))));
    }
}
