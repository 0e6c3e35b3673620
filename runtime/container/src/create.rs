//! Making a container: everything up to the moment when its first process waits for `start`.
//!
//! Owns the order: clean the caller, check the root, prepare the document, let libcontainer build, set on the child what only the parent may
//! set. Called from a single-threaded process only; libcontainer forks with its allocator's locks as they are. Invariant: after an error
//! nothing of the container is left.
//!
//! ```text
//! <state_dir>/
//!     bundle/config.json    the prepared document
//!     outcome               FIFO: what the first process says before it becomes the app
//!     stage.json            work for the hook process, where there is any
//!     mounts.json           for a container without a mount namespace: what lay on its root before
//!     lc/<id>/              libcontainer's own state and its start socket
//! ```

mod attach;
mod bundle;
mod diagnose;
mod host_tree;
mod trees;

use std::fs;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use kakoi_policy::confinement::{Confinement, Receipt};
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use serde_json::Value;

use crate::cgroup::{Cgroup, CgroupError};
use crate::executor::{FirstProcess, Parts, chain};
use crate::frames::FailureKind;
use crate::handle::{Handle, HandleError};
use crate::hook::{HookError, HookState, Hooks};
use crate::outcome::{self, Failure, OutcomeError};
use crate::preflight::PreflightError;
use crate::prepare::PrepareError;

/// libcontainer's root below the state folder.
const LIBCONTAINER: &str = "lc";

/// What is to become a container.
#[derive(Debug)]
pub struct Bundle<'a> {
    /// Its name: `[A-Za-z0-9_+.-]`, as libcontainer takes it.
    pub id: &'a str,
    /// A folder of its own, which exists, belongs to the caller alone (0700) and is empty but for the caller's own files.
    pub state_dir: &'a Path,
    /// The folder that hooks are told; a relative `root.path` counts from here.
    pub bundle: &'a Path,
    /// The OCI document.
    pub spec: Value,
    /// `NAME=value` of the first process that no document may hold, in the place of what the document says of the same names.
    pub secrets: Vec<String>,
    /// What confines every process.
    pub confinement: &'a Confinement,
    /// Where the first process reads and writes.
    pub stdio: Stdio,
    /// How many descriptors from 3 on the first process keeps.
    pub preserve_fds: u32,
    /// Annotations, control group and the like as hooks are told them.
    pub options: Options,
}

/// Rarely used switches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Puts a small init of ours before the app: process 1 reaps and passes signals on.
    pub init: bool,
    /// Has the kernel kill the first process when the caller ends, as far as the kernel keeps that promise (PR_SET_PDEATHSIG).
    pub ends_with_caller: bool,
    /// Move the root instead of pivoting: for a runtime whose own root is a ramfs.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
}

/// Where the first process reads and writes.
#[derive(Debug)]
pub enum Stdio {
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
    /// A terminal, whose master is sent over this listening unix socket as `SCM_RIGHTS`. The caller listens before and accepts after.
    Console(PathBuf),
}

/// Why there is no container.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The document.
    #[error("prepare the configuration")]
    Prepare(#[source] PrepareError),
    /// The root file system.
    #[error("check the root file system")]
    Preflight(#[source] PreflightError),
    /// A file of the state folder.
    #[error("write {path}")]
    State {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The caller could not be cleaned.
    #[error("{step}")]
    Caller {
        /// What was tried.
        step: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What the kernel can do could not be found out.
    #[error("read the kernel's last capability")]
    Kernel(#[source] kakoi_sys::CallError),
    /// The control group.
    #[error("control group")]
    Cgroup(#[source] CgroupError),
    /// libcontainer. Boxed: its error is large.
    #[error("build the container")]
    Build(#[source] Box<LibcontainerError>),
    /// The first process said why it cannot run.
    #[error("{}", .0.message)]
    Refused(Failure),
    /// A setting of the first process that its parent makes.
    #[error("set {what} of the first process")]
    Child {
        /// What.
        what: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The first process could not be pinned.
    #[error("hold the first process")]
    Handle(#[source] HandleError),
    /// A hook.
    #[error("hook")]
    Hook(#[source] HookError),
}

impl CreateError {
    /// Whose fault it is.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Refused(failure) => failure.kind,
            _ => FailureKind::Runtime,
        }
    }
}

/// A container whose first process waits for [`start`].
#[derive(Debug)]
pub struct Created {
    /// The first process.
    pub process: Handle,
    /// Its control group.
    pub cgroup: Cgroup,
    /// The group's path, relative to each hierarchy.
    pub cgroup_path: String,
    /// The hooks of the document; poststart and poststop are the caller's to run.
    pub hooks: Hooks,
    /// What hooks are told.
    pub state: HookState,
}

/// The control group that [`create`] makes for a document, relative to each hierarchy, for a caller that must know it before.
pub fn control_group(spec: &Value, id: &str) -> String {
    let given = spec["linux"]["cgroupsPath"].as_str();
    crate::prepare::cgroup_path(given, id)
        .to_string_lossy()
        .into_owned()
}

/// Makes a container. The caller must have one thread.
pub fn create(mut bundle: Bundle<'_>) -> Result<Created, CreateError> {
    let state_dir = bundle.state_dir.to_owned();
    let secrets = std::mem::take(&mut bundle.secrets);
    let mut prepared = bundle::prepare(bundle)?;
    // Only now: what was prepared is written down.
    prepared.left.env = with_secrets(&prepared.left.env, secrets);
    let cgroup = prepared.cgroup.clone();
    let built = build(prepared);
    if built.is_err() {
        undo(&state_dir, &cgroup);
    }
    built
}

fn build(prepared: bundle::Prepared<'_>) -> Result<Created, CreateError> {
    let bundle::Prepared {
        id,
        state_dir,
        left,
        state,
        cgroup,
        cgroup_path,
        resources,
        confinement,
        stdio,
        preserve_fds,
        options,
        held,
        owner,
    } = prepared;
    let caller = |step: &'static str| move |source| CreateError::Caller { step, source };
    fill_holes(preserve_fds).map_err(caller("occupy descriptors"))?;
    clean_caller(confinement.capabilities.inheritable)?;
    let (reader, writer) = status_pipe(state_dir, preserve_fds)?;
    let (notify, teller) = crate::notify::connect(confinement)
        .map_err(caller("connect to the seccomp listener"))?
        .unzip();
    attach::own_streams(&stdio, owner)?;
    let lc = |source: LibcontainerError| CreateError::Build(Box::new(source));
    let mut builder = ContainerBuilder::new(id.to_owned(), SyscallType::default())
        .with_root_path(state_dir.join(LIBCONTAINER))
        .and_then(ContainerBuilder::validate_id)
        .map_err(lc)?
        .with_preserved_fds(i32::try_from(preserve_fds).unwrap_or(i32::MAX))
        .with_executor(FirstProcess::new(Parts {
            confinement: confinement.clone(),
            args: left.args.clone(),
            env: left.env.clone(),
            status: writer,
            preserve_fds,
            keyring: (!options.no_new_keyring).then(|| format!("_ses.{id}")),
            start_container: left.hooks.start_container.clone(),
            init: options.init,
            ends_with_caller: options.ends_with_caller,
            state: HookState {
                status: "created".into(),
                ..state.clone()
            },
            notify,
        }));
    builder = with_streams(builder, stdio);
    cgroup
        .make()
        .and_then(|()| cgroup.can_hold(&resources))
        .map_err(CreateError::Cgroup)?;
    let container = run_builder(builder, state_dir, options.no_pivot, reader);
    drop(held);
    let container = container?;
    let pid = container.pid().map_or(0, nix::unistd::Pid::as_raw);
    let process = Handle::of_child(pid).map_err(CreateError::Handle)?;
    settle(&process, teller, &left, &cgroup)?;
    let state = HookState {
        status: "created".into(),
        pid: Some(pid),
        ..state
    };
    Ok(Created {
        process,
        cgroup,
        cgroup_path,
        hooks: left.hooks,
        state,
    })
}

fn with_secrets(env: &[String], secrets: Vec<String>) -> Vec<String> {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let hidden: Vec<String> = secrets.iter().map(|entry| name(entry)).collect();
    let shown = env.iter().filter(|entry| !hidden.contains(&name(entry)));
    shown.cloned().chain(secrets).collect()
}

fn run_builder(
    builder: ContainerBuilder,
    state_dir: &Path,
    no_pivot: bool,
    reader: OwnedFd,
) -> Result<libcontainer::container::Container, CreateError> {
    let built = builder
        .as_init(state_dir.join("bundle"))
        .with_systemd(false)
        .with_detach(true)
        .with_no_pivot(no_pivot)
        .build();
    // The child may have said more than libcontainer's text carries, or the hook process; else what it was about to mount is looked at.
    built.map_err(|error| match outcome::read_now(reader) {
        Err(OutcomeError::Failed(failure)) => CreateError::Refused(failure),
        _ => outcome::read_failure(&state_dir.join(crate::stage::STAGE_FILE))
            .or_else(|| diagnose::mounts(&state_dir.join("bundle")))
            .map_or_else(|| CreateError::Build(Box::new(error)), CreateError::Refused),
    })
}

/// Does what only the parent may, and ends a first process for which that failed.
fn settle(
    process: &Handle,
    teller: Option<crate::notify::PidTeller>,
    left: &crate::prepare::Leftover,
    cgroup: &Cgroup,
) -> Result<(), CreateError> {
    let pid = process.id().pid;
    let settled = teller
        .map_or(Ok(()), |teller| teller.tell(pid))
        .map_err(|source| CreateError::Child {
            what: "the process id".to_owned(),
            source,
        })
        .and_then(|()| attach::finish(pid, left, cgroup));
    if settled.is_err()
        && let Err(error) = process.signal(nix::libc::SIGKILL)
    {
        tracing::warn!(error = %chain(&error), "cannot end the first process, ignoring");
    }
    settled
}

fn with_streams(builder: ContainerBuilder, stdio: Stdio) -> ContainerBuilder {
    match stdio {
        Stdio::Inherit => builder,
        Stdio::Streams {
            stdin,
            stdout,
            stderr,
        } => builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr),
        Stdio::Console(socket) => builder.with_console_socket(Some(socket)),
    }
}

/// What the caller has and the container must not get. libcontainer lets supplementary groups through when the document names none, and
/// keeps descriptors open for `LISTEN_FDS`.
///
/// Inheritable capabilities beyond the bounding set can only be had from a parent that has them: libcontainer cuts the bounding set first.
fn clean_caller(inheritable: u64) -> Result<(), CreateError> {
    if inheritable != 0 {
        let failed = |error: kakoi_sys::CallError| CreateError::Caller {
            step: "set inheritable capabilities",
            source: io(&error),
        };
        let held = kakoi_sys::capability::sets().map_err(failed)?;
        let wanted = kakoi_sys::capability::Sets {
            inheritable: held.inheritable | (inheritable & held.permitted),
            ..held
        };
        kakoi_sys::capability::set_sets(wanted).map_err(failed)?;
    }
    if nix::unistd::geteuid().is_root() {
        kakoi_sys::identity::set_groups(&[]).map_err(|error| CreateError::Caller {
            step: "give up supplementary groups",
            source: std::io::Error::from_raw_os_error(error.errno as i32),
        })?;
    }
    for name in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET"] {
        kakoi_sys::environment::remove(name).map_err(|source| CreateError::Caller {
            step: "clear the environment",
            source,
        })?;
    }
    // Targets of mounts are made with the modes that are asked for, whatever the caller's mask.
    kakoi_sys::identity::set_umask(0o022);
    Ok(())
}

/// Occupies the numbers that the app is to keep and that are not open, or a descriptor of ours would come to lie there and be kept. What
/// occupies them is closed by `execve`.
pub(crate) fn fill_holes(preserve_fds: u32) -> std::io::Result<()> {
    use nix::errno::Errno;
    for fd in (3..).take(preserve_fds as usize) {
        match nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFD) {
            Ok(_) => continue,
            Err(Errno::EBADF) => {}
            Err(errno) => return Err(errno.into()),
        }
        let null = fs::File::open("/dev/null")?;
        if null.as_raw_fd() == fd {
            // The very number that was free; it stays occupied for as long as this process lives.
            let occupied = std::os::fd::IntoRawFd::into_raw_fd(null);
            tracing::debug!(occupied, "a number that the app is to keep was not open");
        } else {
            nix::unistd::dup3(null.as_raw_fd(), fd, OFlag::O_CLOEXEC)?;
        }
    }
    Ok(())
}

/// Of the numbers that the app is to keep, those that the caller had open.
pub(crate) fn kept(preserve_fds: u32) -> Vec<std::os::fd::RawFd> {
    let is_kept = |fd: &i32| {
        nix::fcntl::fcntl(*fd, nix::fcntl::FcntlArg::F_GETFD)
            .is_ok_and(|flags| flags & nix::libc::FD_CLOEXEC == 0)
    };
    (3..).take(preserve_fds as usize).filter(is_kept).collect()
}

/// Makes the FIFO and opens both ends; the writing end above what the app keeps. It is opened for reading as well, so that neither open waits
/// for the other and a write before `start` finds a reader.
fn status_pipe(state_dir: &Path, preserve_fds: u32) -> Result<(OwnedFd, OwnedFd), CreateError> {
    let path = state_dir.join("outcome");
    let failed = |errno: nix::errno::Errno| CreateError::State {
        path: path.clone(),
        source: errno.into(),
    };
    nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).map_err(failed)?;
    let open = |write: bool| {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(write)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(&path);
        file.map(OwnedFd::from).map_err(|source| CreateError::State {
            path: path.clone(),
            source,
        })
    };
    let reader = open(false)?;
    let writer = open(true)?;
    let lowest = 3 + i32::try_from(preserve_fds).unwrap_or(i32::MAX - 3);
    if writer.as_raw_fd() >= lowest {
        return Ok((reader, writer));
    }
    let moved = nix::fcntl::fcntl(writer.as_raw_fd(), nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(lowest))
        .map_err(failed)?;
    let moved = kakoi_sys::descriptors::take_inherited(moved).map_err(|error| CreateError::State {
        path: path.clone(),
        source: io(&error),
    })?;
    Ok((reader, moved))
}

/// The system error of a call.
pub(crate) fn io(error: &kakoi_sys::CallError) -> std::io::Error {
    std::io::Error::from_raw_os_error(error.errno as i32)
}

/// Why a container that was made does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The first process cannot be told to go on.
    #[error("reach the first process")]
    Notify(#[source] std::io::Error),
    /// What it said.
    #[error("start the first process")]
    Outcome(#[source] OutcomeError),
}

impl StartError {
    /// Whose fault it is.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Outcome(OutcomeError::Failed(failure)) => failure.kind,
            _ => FailureKind::Runtime,
        }
    }
}

/// Lets the first process go on and waits until it is the app. `state_dir` is that of the [`Bundle`]; any process of the same user may call it.
pub fn start(state_dir: &Path, id: &str) -> Result<Receipt, StartError> {
    // Opened before the first process goes on: its writing end may be gone afterwards.
    let status = fs::OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(state_dir.join("outcome"))
        .map_err(StartError::Notify)?;
    let flags = nix::fcntl::fcntl(status.as_raw_fd(), nix::fcntl::FcntlArg::F_SETFL(OFlag::empty()));
    flags.map_err(|errno| StartError::Notify(errno.into()))?;
    // By descriptor: the path may be longer than a socket's address can be.
    let folder = fs::File::open(state_dir.join(LIBCONTAINER).join(id)).map_err(StartError::Notify)?;
    let socket = PathBuf::from(format!("/proc/self/fd/{}/notify.sock", folder.as_raw_fd()));
    let mut notify = UnixStream::connect(socket).map_err(StartError::Notify)?;
    notify.write_all(b"start container").map_err(StartError::Notify)?;
    drop(notify);
    outcome::read(OwnedFd::from(status)).map_err(StartError::Outcome)
}

/// Takes away what [`create`] made in a state folder; the folder itself and the caller's files stay.
pub fn remove(state_dir: &Path) -> std::io::Result<()> {
    host_tree::clear(state_dir)?;
    for name in ["bundle", LIBCONTAINER] {
        match fs::remove_dir_all(state_dir.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    for name in ["outcome", crate::stage::STAGE_FILE] {
        match fs::remove_file(state_dir.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn undo(state_dir: &Path, cgroup: &Cgroup) {
    if let Err(error) = cgroup.kill_all().and_then(|()| cgroup.delete()) {
        tracing::warn!(error = %chain(&error), "cannot take the control group away, ignoring");
    }
    if let Err(error) = remove(state_dir) {
        tracing::warn!(error = %error, "cannot take the state away, ignoring");
    }
}
