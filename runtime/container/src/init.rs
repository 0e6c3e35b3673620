//! The small init of `--init`: process 1 that reaps and passes signals on.
//!
//! Owns the division of the first process in two before it is confined: process 1, which stays this program, and the app. There is no file of
//! an init inside the container that could be replaced. Process 1 puts itself under the app's confinement with two differences: it never gets new privileges,
//! because it never executes anything, and landlock's scopes are left out, because they would keep it from passing signals to the app, which has
//! a domain of its own. Invariant: it ends with the app and with the app's exit code.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};

use kakoi_confine::{Entry, apply, capabilities_for};
use kakoi_policy::confinement::{Confinement, Landlock};
use kakoi_sys::process::{Forked, exit_now, fork};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::WaitPidFlag;
use nix::unistd::{Pid, getpid, setpgid, tcsetpgrp};

use crate::executor::{chain, confinement_failure};
use crate::frames::FailureKind;
use crate::outcome::{self, Failure};

/// Forks the app's side off, in which it returns; process 1 stays in here until the app ends. `status` is the status pipe, of which only the app's
/// side may keep a writing end: its closing tells that the app runs.
pub(crate) fn divide(confinement: &Confinement, status: RawFd) -> Result<(), Failure> {
    let failed =
        |step: &str, error: &dyn std::error::Error| Failure::new(FailureKind::Runtime, step, chain(error));
    // Blocked before the fork, so that none is lost before process 1 waits for them. The app's side unblocks them when it resets signals.
    SigSet::all()
        .thread_block()
        .map_err(|errno| failed("block signals", &errno))?;
    let (go, go_writer) = kakoi_sys::descriptors::pipe().map_err(|error| failed("make a pipe", &error))?;
    match fork().map_err(|error| failed("fork the app from init", &error))? {
        Forked::Child => {
            drop(go_writer);
            lead_foreground().map_err(|errno| failed("take the foreground", &errno))?;
            // Process 1 confines itself first: an app must not run beside an init that could not.
            match File::from(go).read_exact(&mut [0]) {
                Ok(()) => Ok(()),
                Err(_) => exit_now(125),
            }
        }
        Forked::Parent { pid, .. } => {
            // Nothing is executed here that would close what the runtime left open: its lock, its log, the pipe its starter waits on.
            let mut kept = [status, go_writer.as_raw_fd()];
            kept.sort_unstable();
            let prepared = kakoi_sys::descriptors::close_from(3, &kept)
                .map_err(|error| failed("close the runtime's descriptors", &error))
                .and_then(|()| hide().map_err(|error| failed("hide the runtime's arguments", &error)));
            if let Err(failure) = prepared.and_then(|()| confine(confinement)) {
                report(status, &failure);
                exit_now(125);
            }
            let told = File::from(go_writer).write_all(&[1]);
            if told.is_err() || nix::unistd::close(status).is_err() {
                exit_now(125);
            }
            // Never returns, so `go`, whose descriptor is closed already, is not dropped and closes nothing else's number.
            exit_now(run(pid))
        }
    }
}

/// Process 1 shows the container neither the runtime's arguments, which are paths of the host, nor its memory. The arguments lie where
/// proc_pid_stat(5) says; written through `/proc/self/mem`, which is the kernel's own way to them. Without a `/proc` nobody sees them.
fn hide() -> std::io::Result<()> {
    const ARG_START: usize = 48 - 3;
    nix::sys::prctl::set_name(c"kakoi-init")?;
    let stat = match std::fs::read_to_string("/proc/self/stat") {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        read => read?,
    };
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let mut numbers = fields
        .split_ascii_whitespace()
        .skip(ARG_START)
        .map(str::parse::<u64>);
    let (Some(Ok(start)), Some(Ok(end))) = (numbers.next(), numbers.next()) else {
        return Err(std::io::ErrorKind::InvalidData.into());
    };
    let mut shown = b"kakoi-init".to_vec();
    shown.resize(usize::try_from(end.saturating_sub(start)).unwrap_or(0), 0);
    std::os::unix::fs::FileExt::write_all_at(
        &File::options().write(true).open("/proc/self/mem")?,
        &shown,
        start,
    )?;
    kakoi_sys::process::set_dumpable(false).map_err(|error| error.errno.into())
}

fn report(status: RawFd, failure: &Failure) {
    let copy = kakoi_sys::descriptors::take_inherited(status);
    let told = copy.map(|pipe| outcome::tell_failed(std::os::fd::AsFd::as_fd(&pipe), failure));
    if !matches!(told, Ok(Ok(()))) {
        tracing::error!(message = %failure.message, "cannot tell why init does not run");
    }
}

/// Process 1 never executes a program that could take CAP_SYS_ADMIN from it, so it gives up here what the app loses by `execve`.
fn confine(confinement: &Confinement) -> Result<(), Failure> {
    let mut own = confinement.clone();
    if let Landlock::Ruleset(ruleset) = &mut own.landlock {
        ruleset.scoped = 0;
    }
    if !own.no_new_privileges {
        let call =
            |error: kakoi_sys::CallError| Failure::new(FailureKind::Confinement, "init", chain(&error));
        kakoi_sys::process::set_no_new_privileges().map_err(call)?;
        let wanted = capabilities_for(confinement, &confinement.identity);
        kakoi_sys::capability::set_sets(kakoi_sys::capability::Sets {
            permitted: wanted.permitted,
            effective: wanted.effective,
            inheritable: wanted.inheritable,
        })
        .map_err(call)?;
        own.no_new_privileges = true;
    }
    apply(&own, Entry::FirstProcess, &[])
        .map(drop)
        .map_err(|error| confinement_failure(&error))
}

/// Gives the app a process group of its own and, where there is a terminal, the foreground: a key that makes a signal reaches the app
/// once, not a second time through process 1. SIGTTOU is blocked.
fn lead_foreground() -> Result<(), Errno> {
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    match tcsetpgrp(std::io::stdin(), getpid()) {
        // Standard input is no terminal, or not this session's.
        Ok(()) | Err(Errno::ENOTTY | Errno::EBADF | Errno::EINVAL | Errno::EPERM) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn run(app: Pid) -> i32 {
    loop {
        if let Some(code) = reap(app, true) {
            return code;
        }
        match kakoi_sys::event::wait_for_any_signal() {
            Ok(number) if number == Signal::SIGCHLD as i32 => {}
            // An app that is gone is noticed by the next round.
            Ok(number) => drop(kakoi_sys::process::signal_child(app, number)),
            // A stop and a continuation of our own, by whoever traces or freezes us.
            Err(error) if error.errno == Errno::EINTR => {}
            // A filter that refuses to wait for signals costs their passing on, not the reaping.
            Err(_) => {
                if let Some(code) = reap(app, false) {
                    return code;
                }
            }
        }
    }
}

fn reap(app: Pid, all: bool) -> Option<i32> {
    loop {
        let flags = if all {
            WaitPidFlag::WNOHANG
        } else {
            WaitPidFlag::empty()
        };
        match kakoi_sys::process::reap(None, flags) {
            Ok(None) => return None,
            Ok(Some((pid, code))) if pid == app => return Some(code),
            Ok(Some(_)) => {}
            // Without children there is no app: it cannot be waited for any more.
            Err(_) => return Some(255),
        }
    }
}
