//! Adding a process to a container that runs.
//!
//! Owns the way in: control groups, then the container's namespaces by pidfd, the user namespace among them, then a fork for the pid
//! namespace, a session, a terminal, limits, the working directory, confinement, `execve`. libcontainer's own way joins no user
//! namespace and gives up no privilege, and is never used. Refuses to read any policy or bundle: the confinement is the one stored
//! with the container. Called from a single-threaded process. Invariant: the added process is as confined as the first one, or does not run.

mod child;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use kakoi_policy::confinement::{Confinement, Identity, Receipt};
use kakoi_sys::process::{Forked, fork};
use nix::unistd::Pid;

use crate::cgroup::Cgroup;
use crate::frames::FailureKind;
use crate::handle::{Handle, HandleError};
use crate::outcome::{self, OutcomeError};

/// What is added, and to whom.
#[derive(Debug)]
pub struct ExecPlan<'a> {
    /// The container's first process.
    pub container: &'a Handle,
    /// Its control group.
    pub cgroup: &'a Cgroup,
    /// A group below the container's own to put the process in.
    pub sub_cgroup: Option<&'a str>,
    /// The confinement stored with the container.
    pub confinement: &'a Confinement,
    /// The container's user, or another one.
    pub identity: Identity,
    /// Program and arguments.
    pub args: &'a [String],
    /// `NAME=value`, complete.
    pub env: &'a [String],
    /// Absolute working directory.
    pub cwd: &'a str,
    /// Where the process reads and writes.
    pub stdio: ExecStdio,
    /// How many descriptors from 3 on it keeps.
    pub preserve_fds: u32,
    /// `-1000..=1000`; `None` takes the caller's.
    pub oom_score_adj: Option<i32>,
    /// Resource limits: name, soft, hard.
    pub rlimits: &'a [(String, u64, u64)],
    /// Rarely used settings.
    pub extras: Extras,
}

/// Settings of an added process that few use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// I/O priority: class and level (ioprio_set(2)).
    pub io_priority: Option<(u8, u8)>,
    /// Processors before the process enters the control group, as a list.
    pub affinity_initial: Option<String>,
    /// Processors afterwards.
    pub affinity_final: Option<String>,
    /// Name of the session keyring to make.
    pub keyring: Option<String>,
}

/// Where an added process reads and writes.
#[derive(Debug)]
pub enum ExecStdio {
    /// The caller's own streams.
    Inherit,
    /// These.
    Streams {
        /// Standard input.
        stdin: OwnedFd,
        /// Standard output.
        stdout: OwnedFd,
        /// Standard error.
        stderr: OwnedFd,
    },
    /// A new terminal of the container's own devpts; its master is in [`Added`].
    Terminal {
        /// Columns and rows.
        size: Option<(u16, u16)>,
    },
}

/// A process that was added and runs.
#[derive(Debug)]
pub struct Added {
    /// The process; a child of the caller.
    pub process: Handle,
    /// The master of its terminal, where it has one.
    pub terminal: Option<OwnedFd>,
    /// What confines it.
    pub receipt: Receipt,
}

/// Why no process was added.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The container's first process is gone.
    #[error("reach the container")]
    Container(#[source] HandleError),
    /// Its processes are frozen: a new one would hang with them.
    #[error("the container is paused")]
    Paused,
    /// Numbers of descriptors could not be occupied.
    #[error("occupy descriptors")]
    Descriptors(#[source] std::io::Error),
    /// A system call of the caller's side.
    #[error("{step}")]
    Call {
        /// What was tried.
        step: &'static str,
        /// Why.
        #[source]
        source: kakoi_sys::CallError,
    },
    /// What the process said.
    #[error("start the process")]
    Outcome(#[source] OutcomeError),
    /// The messenger between the two ended without naming the process.
    #[error("the process was not made")]
    NotMade,
}

impl JoinError {
    /// Whose fault it is.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Container(_) | Self::Paused => FailureKind::Conflict,
            Self::Outcome(OutcomeError::Failed(failure)) => failure.kind,
            _ => FailureKind::Runtime,
        }
    }
}

/// Adds a process and waits until it is the program. The caller must have one thread.
pub fn exec(plan: ExecPlan<'_>) -> Result<Added, JoinError> {
    // Without a freezer nothing can be paused.
    if plan.cgroup.is_frozen().unwrap_or(false) {
        return Err(JoinError::Paused);
    }
    if !plan.container.is_alive() {
        return Err(JoinError::Container(HandleError::Gone(plan.container.id().pid)));
    }
    let call = |step: &'static str| move |source| JoinError::Call { step, source };
    crate::create::fill_holes(plan.preserve_fds).map_err(JoinError::Descriptors)?;
    let (status, status_writer) = outcome_pipe(plan.preserve_fds).map_err(call("make the status pipe"))?;
    let (ours, theirs) = socket_pair().map_err(call("make a socket pair"))?;
    match fork().map_err(call("fork"))? {
        Forked::Child => {
            drop((status, ours));
            child::messenger(&plan, &status_writer, &theirs)
        }
        Forked::Parent { pidfd, .. } => {
            drop((status_writer, theirs));
            let told = receive(ours.as_fd());
            let receipt = outcome::read(status);
            // The messenger ends right after it has forked; reaping it here keeps it out of the caller's own waiting.
            kakoi_sys::process::wait_pidfd(pidfd.as_fd(), true).map_err(call("wait for the messenger"))?;
            let receipt = match receipt {
                Ok(receipt) => receipt,
                Err(error) => {
                    if let Some((pid, _)) = &told {
                        reap(*pid);
                    }
                    return Err(JoinError::Outcome(error));
                }
            };
            let (pid, terminal) = told.ok_or(JoinError::NotMade)?;
            let process = Handle::of_child(pid).map_err(JoinError::Container)?;
            Ok(Added {
                process,
                terminal,
                receipt,
            })
        }
    }
}

/// A process that could not become the program still is our child.
fn reap(pid: i32) {
    if let Err(errno) = nix::sys::wait::waitpid(Pid::from_raw(pid), None) {
        tracing::debug!(%errno, pid, "the failed process is not ours to reap");
    }
}

fn outcome_pipe(preserve_fds: u32) -> kakoi_sys::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = kakoi_sys::descriptors::pipe()?;
    let writer = raise(writer, preserve_fds)?;
    Ok((reader, writer))
}

/// Moves a descriptor above those that the program keeps.
fn raise(fd: OwnedFd, preserve_fds: u32) -> kakoi_sys::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let lowest = 3_i32.saturating_add_unsigned(preserve_fds);
    if fd.as_raw_fd() >= lowest {
        return Ok(fd);
    }
    let moved = nix::fcntl::fcntl(fd.as_raw_fd(), nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(lowest))
        .map_err(|errno| kakoi_sys::CallError { call: "fcntl", errno })?;
    kakoi_sys::descriptors::take_inherited(moved)
}

fn socket_pair() -> kakoi_sys::Result<(OwnedFd, OwnedFd)> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .map_err(|errno| kakoi_sys::CallError {
        call: "socketpair",
        errno,
    })
}

/// Takes what the messenger sends: the process's id as we count, then, from the process, its terminal. `None` if there is no process.
fn receive(socket: BorrowedFd<'_>) -> Option<(i32, Option<OwnedFd>)> {
    let (mut pid, mut terminal) = (None, None);
    loop {
        let mut bytes = [0_u8; 16];
        match kakoi_sys::socket::receive_descriptors(socket, &mut bytes) {
            Ok((0, _)) | Err(_) => break,
            Ok((length, mut descriptors)) => match &bytes[..length] {
                [b'p', rest @ ..] => pid = rest.try_into().ok().map(i32::from_ne_bytes),
                [b't'] => terminal = descriptors.pop(),
                _ => {}
            },
        }
    }
    pid.map(|pid| (pid, terminal))
}
