//! The two processes between the caller and the added program.
//!
//! The messenger joins and forks, because only a child lives in the joined pid namespace; that child becomes the caller's by CLONE_PARENT, and
//! the program. Both end by `exit_now`: neither returns to the caller's code.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use kakoi_confine::{Entry, apply};
use kakoi_sys::namespace::{self, Kind};
use kakoi_sys::process::{CloneFlags, Forked, exit_now, fork_with};
use kakoi_sys::{CallError, Errno, descriptors};

use super::{ExecPlan, ExecStdio};
use crate::executor::{chain, confinement_failure};
use crate::frames::FailureKind;
use crate::launch::{Command, exit_code};
use crate::outcome::{self, Failure};

/// Runs in the first fork.
pub(super) fn messenger(plan: &ExecPlan<'_>, status: &OwnedFd, socket: &OwnedFd) -> ! {
    match enter(plan) {
        Ok(()) => {}
        Err(failure) => fail(status, &failure),
    }
    match fork_with(CloneFlags::PARENT, None) {
        Ok(Forked::Child) => {
            let failure = become_program(plan, status, socket);
            fail(status, &failure)
        }
        Ok(Forked::Parent { pid, .. }) => {
            let mut message = vec![b'p'];
            message.extend_from_slice(&pid.as_raw().to_ne_bytes());
            if let Err(error) = kakoi_sys::socket::send_descriptors(socket.as_fd(), &message, &[]) {
                tracing::error!(error = %error, "cannot tell the process id");
            }
            exit_now(0)
        }
        Err(error) => fail(status, &runtime("fork", &error)),
    }
}

fn fail(status: &OwnedFd, failure: &Failure) -> ! {
    if let Err(error) = outcome::tell_failed(status.as_fd(), failure) {
        tracing::error!(error = %chain(&error), "cannot tell why the process does not run");
    }
    exit_now(exit_code(failure.kind))
}

fn runtime(step: &str, error: &dyn std::error::Error) -> Failure {
    Failure::new(FailureKind::Runtime, step, format!("{step}: {}", chain(error)))
}

/// Everything that needs the caller's own view and privileges, then the namespaces.
fn enter(plan: &ExecPlan<'_>) -> Result<(), Failure> {
    if let Some(list) = &plan.extras.affinity_initial {
        affinity(list)?;
    }
    let own = nix::unistd::getpid();
    match plan.sub_cgroup {
        None => plan.cgroup.attach(own),
        Some(below) => plan.cgroup.attach_below(own, below),
    }
    .map_err(|error| runtime("enter the control group", &error))?;
    if let Some(list) = &plan.extras.affinity_final {
        affinity(list)?;
    }
    if let Some((class, level)) = plan.extras.io_priority {
        kakoi_sys::system::set_io_priority(class, level)
            .map_err(|error| runtime("set the I/O priority", &error))?;
    }
    if let Some(score) = plan.oom_score_adj {
        let written = OpenOptions::new()
            .write(true)
            .open("/proc/self/oom_score_adj")
            .and_then(|mut file| file.write_all(score.to_string().as_bytes()));
        written.map_err(|error| runtime("set the OOM score", &error))?;
    }
    // Limits before the user namespace: from inside it none can be raised.
    for (name, soft, hard) in plan.rlimits {
        let resource = kakoi_sys::limit::Resource::named(name).ok_or_else(|| {
            Failure::new(
                FailureKind::Runtime,
                "limits",
                format!("unknown resource limit {name}"),
            )
        })?;
        kakoi_sys::limit::set(0, resource, *soft, *hard)
            .map_err(|error| runtime("set a resource limit", &error))?;
    }
    // The container must not look into us while we are half inside (CVE-2016-9962).
    kakoi_sys::process::set_dumpable(false).map_err(|error| runtime("hide from tracing", &error))?;
    let kinds = foreign_namespaces(plan.container.id().pid);
    namespace::join_process(plan.container.pidfd(), &kinds)
        .map_err(|error| runtime("join the namespaces", &error))?;
    if kinds.contains(&Kind::User) {
        // Ids of the caller mean nothing in there; root of the namespace does what is left to do.
        let root = kakoi_sys::identity::set_groups(&[])
            .or_else(|error| {
                if error.errno == Errno::EPERM {
                    Ok(())
                } else {
                    Err(error)
                }
            })
            .and_then(|()| kakoi_sys::identity::set_group(0))
            .and_then(|()| kakoi_sys::identity::set_user(0));
        root.map_err(|error| runtime("become root of the user namespace", &error))?;
    }
    Ok(())
}

/// Those in which the container's process is elsewhere than we are: joining one's own user namespace is an error.
fn foreign_namespaces(pid: i32) -> Vec<Kind> {
    let differs = |kind: &Kind| {
        let link =
            |process: &str| std::fs::read_link(format!("/proc/{process}/ns/{}", kind.file_name())).ok();
        let theirs = link(&pid.to_string());
        theirs.is_some() && theirs != link("self")
    };
    namespace::JOIN_ORDER.into_iter().filter(differs).collect()
}

fn affinity(list: &str) -> Result<(), Failure> {
    use nix::sched::{CpuSet, sched_setaffinity};
    let malformed = || {
        Failure::new(
            FailureKind::Runtime,
            "affinity",
            format!("processor list {list:?} is malformed"),
        )
    };
    let mut set = CpuSet::new();
    for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (
            first.trim().parse().map_err(|_| malformed())?,
            last.trim().parse().map_err(|_| malformed())?,
        );
        if first > last || last >= CpuSet::count() {
            return Err(malformed());
        }
        (first..=last)
            .try_for_each(|cpu| set.set(cpu))
            .map_err(|errno| runtime("set the affinity", &errno))?;
    }
    sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)
        .map_err(|errno| runtime("set the affinity", &errno))
}

/// Runs in the second fork, inside every namespace. Comes back only with a reason.
fn become_program(plan: &ExecPlan<'_>, status: &OwnedFd, socket: &OwnedFd) -> Failure {
    match prepare(plan, socket) {
        Err(failure) => failure,
        Ok(command) => launch(plan, &command, status),
    }
}

fn prepare(plan: &ExecPlan<'_>, socket: &OwnedFd) -> Result<Command, Failure> {
    nix::unistd::setsid().map_err(|errno| runtime("start a session", &errno))?;
    if let Some(name) = &plan.extras.keyring {
        match kakoi_sys::system::new_session_keyring(name) {
            Err(error) if !matches!(error.errno, Errno::ENOSYS | Errno::EDQUOT) => {
                return Err(runtime("make a session keyring", &error));
            }
            _ => {}
        }
    }
    streams(plan, socket)?;
    working_directory(plan)?;
    let home = plan.env.iter().any(|entry| entry.starts_with("HOME="));
    let mut env = plan.env.to_vec();
    if !home {
        env.push(format!("HOME={}", home_of(plan.identity.uid)));
    }
    Command::new(plan.args, &env)
}

/// The home folder in the container's own user database; `/` where it says nothing.
fn home_of(uid: u32) -> String {
    // The container's file: it may be a pipe that nobody writes to, or endless.
    const PASSWD_BYTES_MAX: u64 = 1 << 20;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY)
        .open("/etc/passwd");
    let mut text = Vec::new();
    if let Ok(file) = opened
        && let Err(error) = file.take(PASSWD_BYTES_MAX).read_to_end(&mut text)
    {
        tracing::debug!(%error, "cannot read the container's users, ignoring");
    }
    let text = String::from_utf8_lossy(&text);
    let home = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2)?.parse::<u32>().ok()? == uid).then(|| fields.get(5).map(|home| (*home).to_owned()))?
    };
    text.lines()
        .find_map(home)
        .filter(|home| home.starts_with('/'))
        .unwrap_or_else(|| "/".to_owned())
}

fn streams(plan: &ExecPlan<'_>, socket: &OwnedFd) -> Result<(), Failure> {
    let place = |fd: BorrowedFd<'_>, target: RawFd| {
        descriptors::place_at(fd, target).map_err(|error| runtime("place the standard streams", &error))
    };
    match &plan.stdio {
        ExecStdio::Inherit => Ok(()),
        ExecStdio::Streams {
            stdin,
            stdout,
            stderr,
        } => {
            place(stdin.as_fd(), 0)?;
            place(stdout.as_fd(), 1)?;
            place(stderr.as_fd(), 2)?;
            own_streams(plan)
        }
        ExecStdio::Terminal { size } => {
            let terminal = |error: CallError| runtime("open a terminal", &error);
            let pair = kakoi_sys::terminal::open_pair().map_err(terminal)?;
            if let Some((columns, rows)) = size {
                kakoi_sys::terminal::set_size(pair.slave.as_fd(), *columns, *rows).map_err(terminal)?;
            }
            own(pair.slave.as_raw_fd(), plan)?;
            kakoi_sys::socket::send_descriptors(socket.as_fd(), b"t", &[pair.master.as_fd()])
                .map_err(terminal)?;
            for target in 0..3 {
                place(pair.slave.as_fd(), target)?;
            }
            kakoi_sys::terminal::set_controlling(pair.slave.as_fd()).map_err(terminal)
        }
    }
}

/// A program that is not root must be able to open its own `/proc/self/fd/1`.
fn own_streams(plan: &ExecPlan<'_>) -> Result<(), Failure> {
    for fd in 0..3 {
        let known =
            nix::sys::stat::fstat(fd).map_err(|errno| runtime("look at the standard streams", &errno))?;
        let kind = nix::sys::stat::SFlag::from_bits_truncate(known.st_mode & nix::libc::S_IFMT);
        if kind == nix::sys::stat::SFlag::S_IFIFO {
            own(fd, plan)?;
        }
    }
    Ok(())
}

fn own(fd: RawFd, plan: &ExecPlan<'_>) -> Result<(), Failure> {
    let uid = nix::unistd::Uid::from_raw(plan.identity.uid);
    match nix::unistd::fchown(fd, Some(uid), None) {
        Ok(()) | Err(Errno::EPERM | Errno::EINVAL | Errno::EROFS) => Ok(()),
        Err(errno) => Err(runtime("own the standard streams", &errno)),
    }
}

fn working_directory(plan: &ExecPlan<'_>) -> Result<(), Failure> {
    let cwd = Path::new(plan.cwd);
    if !cwd.is_absolute() {
        return Err(Failure::new(
            FailureKind::Runtime,
            "working directory",
            "the working directory is not absolute",
        ));
    }
    // That the kernel then can name it below our root is verified once more with everything else (CVE-2024-21626).
    nix::unistd::chdir(cwd).map_err(|errno| {
        let kind = match errno {
            Errno::ENOENT => FailureKind::CommandNotFound,
            Errno::ENOTDIR | Errno::EACCES | Errno::ELOOP | Errno::ENAMETOOLONG => {
                FailureKind::CommandNotExecutable
            }
            _ => FailureKind::Runtime,
        };
        let message = format!("change to the working directory {:?}: {}", plan.cwd, errno.desc());
        Failure::new(kind, "working directory", message)
    })
}

fn launch(plan: &ExecPlan<'_>, command: &Command, status: &OwnedFd) -> Failure {
    let signals = kakoi_sys::event::reset_signal_actions().and_then(|()| kakoi_sys::event::unblock_all());
    if let Err(error) = signals {
        return runtime("reset signals", &error);
    }
    let preserved = crate::create::kept(plan.preserve_fds);
    let receipt = match apply(plan.confinement, Entry::Exec(&plan.identity), &preserved) {
        Ok(receipt) => receipt,
        Err(error) => return confinement_failure(&error),
    };
    if let Err(error) = outcome::tell_started(status.as_fd(), &receipt) {
        return runtime("use the status pipe", &error);
    }
    command.execute()
}
