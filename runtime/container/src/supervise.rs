//! The shim's life: one container from its plan to its end.
//!
//! Owns the order of things: lock, root file system, create, answer who waits already, start, serve, clean up. One thread; nothing here
//! knows the daemon. Invariant: however it goes, `exit.json` is written before anything is removed, and everything has left its place
//! before watchers hear of the end, so that who hears of it may start the container again at once.

pub(crate) mod clock;
mod connection;
mod control;
mod finish;
mod host;
mod log;
mod peer;
mod serve;
mod streams;
mod top;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use kakoi_confine::{Granted, NarrowError, Part, narrow};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use nix::sys::socket::{getsockopt, sockopt};
use thiserror::Error;

use crate::frames::{Event, Exit, FailureKind, GO_ON, Ready};
use crate::plan::{PLAN_FORMAT, RunPlan};
use crate::rootfs;
use control::{Control, Refusal};
use serve::Supervisor;

pub use finish::clean;
pub use host::block_devices;

/// The largest plan accepted, in bytes: room for an environment at the kernel's limit and the largest policy.
const PLAN_BYTES_MAX: u64 = 16 << 20;

/// Why a shim could not do its work. A container that does not start is no such error: it is reported as [`Ready::Failed`] and `exit.json`.
#[derive(Debug, Error)]
pub enum SuperviseError {
    /// The plan cannot be read.
    #[error("read plan {path}")]
    ReadPlan {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The plan is not one of ours.
    #[error("understand plan {path}")]
    ParsePlan {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The plan is of another version.
    #[error("plan {path} has format {found}, this shim reads {PLAN_FORMAT}; recreate the container")]
    PlanFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// Another shim runs this container.
    #[error("container is run by another shim, which holds {path}")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A file or folder cannot be used.
    #[error("{act} {path}")]
    File {
        /// What was tried.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A system call of the set-up failed.
    #[error("{act}")]
    Call {
        /// What was tried.
        act: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Privileges that are not needed could not be given up.
    #[error("give up what the shim does not need")]
    Narrow(#[from] NarrowError),
    /// The control group could not be emptied or removed.
    #[error("remove control group: {message}")]
    Cgroup {
        /// The chain of causes.
        message: String,
    },
}

fn call(act: &'static str) -> impl FnOnce(io::Error) -> SuperviseError {
    move |source| SuperviseError::Call { act, source }
}

fn sys(act: &'static str) -> impl FnOnce(kakoi_sys::CallError) -> SuperviseError {
    move |error| SuperviseError::Call {
        act,
        source: error.errno.into(),
    }
}

/// Reads a plan.
pub fn read_plan(path: &Path) -> Result<RunPlan, SuperviseError> {
    let fail = |source| SuperviseError::ReadPlan {
        path: path.to_path_buf(),
        source,
    };
    let file = File::open(path).map_err(fail)?;
    let mut text = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, PLAN_BYTES_MAX), &mut text).map_err(fail)?;
    let plan: RunPlan = serde_json::from_slice(&text).map_err(|source| SuperviseError::ParsePlan {
        path: path.to_path_buf(),
        source,
    })?;
    match plan.format {
        PLAN_FORMAT => Ok(plan),
        found => Err(SuperviseError::PlanFormat {
            path: path.to_path_buf(),
            found,
        }),
    }
}

/// Runs the container of the plan to its end. `ready_fd` is an inherited descriptor that gets one [`Ready`] line. Needs root and a process with
/// one thread.
pub fn run(plan_path: &Path, ready_fd: i32) -> Result<(), SuperviseError> {
    let mut ready = File::from(
        kakoi_sys::descriptors::take_inherited(ready_fd).map_err(sys("take the ready descriptor"))?,
    );
    // Whatever else was inherited is somebody else's, who may wait for its end for as long as the container lives.
    kakoi_sys::descriptors::close_from(3, &[ready.as_raw_fd()])
        .map_err(sys("close inherited descriptors"))?;
    let outcome = run_told(plan_path, &mut ready);
    if let Err(error) = &outcome {
        // Who started us must not wait for the time-out when even the set-up fails.
        let message = crate::executor::chain(error);
        tell(
            &mut ready,
            &Ready::Failed {
                kind: FailureKind::Runtime,
                message,
            },
        );
    }
    outcome
}

fn run_told(plan_path: &Path, ready: &mut File) -> Result<(), SuperviseError> {
    let plan = read_plan(plan_path)?;
    set_up_process(&plan)?;
    narrow(Part::Making(granted(&plan)))?;
    // Before the socket: a second shim must not take the first one's away.
    let _lock = lock(&plan.run_dir)?;
    let listener = take_listener(&plan.run_dir)?;
    let signals = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
    let signals = kakoi_sys::event::signal_descriptor(&signals).map_err(sys("open a signal descriptor"))?;
    let log = match log::Log::open(&plan.state_dir, &plan.log) {
        Ok(log) => log,
        Err(error) => return fail_start(&plan, ready, None, Refusal::runtime("open the log", &error)),
    };
    let (control, ends) = match begin(&plan) {
        Ok(begun) => begun,
        Err(refusal) => return fail_start(&plan, ready, None, refusal),
    };
    let streams = streams::ProcessStreams::new(ends).map_err(call("set up streams"))?;
    let mut supervisor = Supervisor::new(control, streams, listener, signals, log)
        .map_err(call("set up the control socket"))?;
    supervisor
        .serve_waiting()
        .map_err(call("serve waiting clients"))?;
    if let Err(refusal) = await_network(supervisor.control(), ready) {
        return fail_start(&plan, ready, Some(supervisor), refusal);
    }
    let pid = match supervisor.control().start() {
        Ok(pid) => pid,
        Err(refusal) => return fail_start(&plan, ready, Some(supervisor), refusal),
    };
    if let Err(error) = narrow(Part::Supervising(granted(&plan))) {
        let refusal = Refusal::runtime("supervise the container", &error);
        return fail_start(&plan, ready, Some(supervisor), refusal);
    }
    tell(ready, &Ready::Ready { pid });
    let closed = OpenOptions::new()
        .write(true)
        .open("/dev/null")
        .map_err(call("open /dev/null"))?;
    *ready = closed;
    let ended = supervisor.serve(clock::now()).map_err(call("wait for events"))?;
    let exit = Exit {
        exit_code: ended.exit_code,
        finished_at: clock::now(),
        oom_killed: ended.is_oom_killed,
        start_error: None,
        lost: false,
    };
    finish::record(&plan, &exit)?;
    let (cleaned, remains) = finish::remove(&plan);
    let told = supervisor
        .say_farewell(Some(&Event::Exited(exit)))
        .map_err(call("tell of the end"));
    remains.bury();
    told.and(cleaned)
}

/// Hands out the new network namespace and waits until somebody has furnished it, where the plan says so.
fn await_network(control: &Control<'_>, ready: &mut File) -> Result<(), Refusal> {
    if !control.plan().awaits_network {
        return Ok(());
    }
    let failed = |error: &dyn std::error::Error| Refusal::runtime("wait for the network", error);
    let network = control.network()?;
    let line = to_line(&Ready::Created);
    kakoi_sys::socket::send_descriptors(ready.as_fd(), &line, &[network.as_fd()])
        .map_err(|error| failed(&error))?;
    let mut answer = [0];
    match io::Read::read(ready, &mut answer) {
        Ok(1) if answer[0] == GO_ON => Ok(()),
        Ok(_) => Err(failed(&io::Error::from(io::ErrorKind::UnexpectedEof))),
        Err(error) => Err(failed(&error)),
    }
}

fn granted(plan: &RunPlan) -> Granted<'_> {
    Granted {
        confinement: &plan.confinement,
        has_user_namespace: crate::spec::has_user_namespace(plan),
    }
}

/// From the assembled root file system to a process that waits for its start.
fn begin(plan: &RunPlan) -> Result<(Control<'_>, streams::Ends), Refusal> {
    let failed = |error: &dyn std::error::Error| Refusal::runtime("prepare the root file system", error);
    rootfs::enter_private_namespace().map_err(|error| failed(&error))?;
    let root = rootfs::assemble(plan).map_err(|error| failed(&error))?;
    rootfs::fill_volumes(plan, &root).map_err(|error| failed(&error))?;
    rootfs::make_working_directory(plan, &root.root).map_err(|error| failed(&error))?;
    let made = Control::create(plan, &root)?;
    root.close_sources().map_err(|error| failed(&error))?;
    Ok(made)
}

/// Records why the container does not run, leaves nothing behind and tells who waits.
fn fail_start(
    plan: &RunPlan,
    ready: &mut File,
    supervisor: Option<Supervisor<'_>>,
    refusal: Refusal,
) -> Result<(), SuperviseError> {
    let exit_code = match refusal.kind {
        FailureKind::CommandNotFound => 127,
        FailureKind::CommandNotExecutable => 126,
        _ => 125,
    };
    let exit = Exit {
        exit_code,
        finished_at: clock::now(),
        oom_killed: false,
        start_error: Some((refusal.kind, refusal.message.clone())),
        lost: false,
    };
    finish::record(plan, &exit)?;
    let (cleaned, remains) = finish::remove(plan);
    tell(
        ready,
        &Ready::Failed {
            kind: refusal.kind,
            message: refusal.message,
        },
    );
    let told = supervisor.map_or(Ok(()), |mut supervisor| {
        supervisor
            .say_farewell(Some(&Event::Exited(exit)))
            .map_err(call("tell of the end"))
    });
    remains.bury();
    told.and(cleaned)
}

/// Makes a file, or empties one, that only its owner reads.
fn create_private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

fn tell(ready: &mut File, word: &Ready) {
    if let Err(error) = ready.write_all(&to_line(word)) {
        tracing::warn!(%error, "ignoring that nobody waits for the start");
    }
}

fn to_line(word: &Ready) -> Vec<u8> {
    let mut line = serde_json::to_vec(word).expect("the words are plain data");
    line.push(b'\n');
    line
}

/// Makes a process of its own out of what the daemon started: its own session, the reaper of its descendants, no descriptor but the
/// standard ones, no group and no variable that a container could inherit.
fn set_up_process(plan: &RunPlan) -> Result<(), SuperviseError> {
    if nix::unistd::getsid(None).ok() != Some(nix::unistd::getpid()) {
        // Fails only for a leader of a process group, which is started by hand from a shell and stays in its session.
        if let Err(errno) = nix::unistd::setsid() {
            tracing::debug!(%errno, "no session of our own");
        }
    }
    kakoi_sys::process::set_child_subreaper(true).map_err(sys("become the reaper"))?;
    kakoi_sys::identity::set_groups(&[]).map_err(sys("drop supplementary groups"))?;
    nix::unistd::chdir("/").map_err(|errno| SuperviseError::Call {
        act: "leave the folder",
        source: errno.into(),
    })?;
    kakoi_sys::identity::set_umask(0o022);
    let mut folder = fs::DirBuilder::new();
    folder
        .recursive(true)
        .mode(0o700)
        .create(&plan.run_dir)
        .map_err(|source| SuperviseError::File {
            act: "make folder",
            path: plan.run_dir.clone(),
            source,
        })
}

/// The daemon hands over the listening socket as standard input; a shim started by hand makes its own. Either way standard input is `/dev/null` afterwards.
fn take_listener(run_dir: &Path) -> Result<UnixListener, SuperviseError> {
    let stdin = io::stdin();
    let is_listening = getsockopt(&stdin, sockopt::AcceptConn).unwrap_or(false);
    let listener = if is_listening {
        let copy: OwnedFd = stdin
            .as_fd()
            .try_clone_to_owned()
            .map_err(call("take the control socket"))?;
        UnixListener::from(copy)
    } else {
        let path = run_dir.join("shim.sock");
        let fail = |source| SuperviseError::File {
            act: "listen at",
            path: path.clone(),
            source,
        };
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
            _ => {}
        }
        // A socket's name takes 107 bytes; relative to the folder any folder fits.
        nix::unistd::chdir(run_dir).map_err(|errno| fail(errno.into()))?;
        let old = kakoi_sys::identity::set_umask(0o177);
        let bound = UnixListener::bind("shim.sock");
        kakoi_sys::identity::set_umask(old);
        nix::unistd::chdir("/").map_err(|errno| fail(errno.into()))?;
        bound.map_err(fail)?
    };
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(call("open /dev/null"))?;
    kakoi_sys::descriptors::place_at(null.as_fd(), 0).map_err(sys("replace standard input"))?;
    Ok(listener)
}

fn lock(run_dir: &Path) -> Result<Flock<File>, SuperviseError> {
    let path = run_dir.join("lock");
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path);
    let file = opened.map_err(|source| SuperviseError::File {
        act: "open lock",
        path: path.clone(),
        source,
    })?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(SuperviseError::Locked { path }),
        Err((_, errno)) => Err(SuperviseError::File {
            act: "lock",
            path,
            source: errno.into(),
        }),
    }
}
