//! The small init of `--init`: process 1 that reaps and passes signals on.
//!
//! Owns the life of process 1 after the app was forked from it. It is this program, not executed anew: there is no file inside the container to replace,
//! and what it holds is what the app holds, because it puts itself under the same confinement. Invariant: it ends with the app and with
//! the app's exit code.

use kakoi_sys::process::exit_code;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, setpgid, tcsetpgrp};

/// Prepares and runs process 1.
#[derive(Debug)]
pub struct Init {
    signals: SigSet,
}

impl Init {
    /// Blocks every signal, so that none is lost between the fork and [`Init::run`]. Call before forking; the app's side unblocks them.
    pub fn prepare() -> Result<Self, Errno> {
        let signals = SigSet::all();
        signals.thread_block()?;
        Ok(Self { signals })
    }

    /// Gives the app's side a process group of its own and, where there is a terminal, the foreground: a key that makes a signal reaches the
    /// app once, not a second time through process 1. Call in the child, while every signal is blocked.
    pub fn lead_foreground() -> Result<(), Errno> {
        setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
        match tcsetpgrp(std::io::stdin(), getpid()) {
            // Standard input is no terminal, or not this session's.
            Ok(()) | Err(Errno::ENOTTY | Errno::EBADF | Errno::EINVAL | Errno::EPERM) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Passes signals to `app` and reaps until it ends; returns its exit code.
    pub fn run(self, app: Pid) -> i32 {
        loop {
            if let Some(code) = reap(app) {
                return code;
            }
            match self.signals.wait() {
                Ok(Signal::SIGCHLD) | Err(_) => {}
                // An app that is gone is noticed by the next round.
                Ok(signal) => drop(kill(app, signal)),
            }
        }
    }
}

fn reap(app: Pid) -> Option<i32> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return None,
            Ok(status) if status.pid() == Some(app) => return Some(exit_code(status)),
            Ok(_) | Err(Errno::EINTR) => {}
            // Without children there is no app: it cannot be waited for any more.
            Err(_) => return Some(255),
        }
    }
}
