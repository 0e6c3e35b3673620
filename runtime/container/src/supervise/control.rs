//! What the loop asks of the container: signals, limits, more processes.
//!
//! Owns the way from the daemon's words to the rooms that do it, and from their errors to a kind and a text. Refuses to know about connections.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use kakoi_policy::confinement::Identity;
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;

use super::peer::Joined;
use super::streams::{Ends, Pipes, pipes};
use super::{SuperviseError, host, top};
use crate::cgroup::{Cgroup, OomWatch};
use crate::create::{self, Bundle, Created, Options, Stdio};
use crate::executor::chain;
use crate::frames::{ExecUser, FailureKind, ProcessRow, Stats, Streams};
use crate::handle::{Handle, HandleError};
use crate::join::{self, ExecPlan, ExecStdio, Extras};
use crate::plan::{ProcessPlan, Resources, RunPlan};
use crate::rootfs::Assembled;
use crate::spec;

/// Why a request is not done: whose fault, and the chain of causes.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) kind: FailureKind,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn conflict(message: &str) -> Self {
        Self {
            kind: FailureKind::Conflict,
            message: message.into(),
        }
    }

    pub(crate) fn runtime(act: &str, error: &dyn std::error::Error) -> Self {
        Self {
            kind: FailureKind::Runtime,
            message: format!("{act}: {}", chain(error)),
        }
    }
}

/// A container between its making and its end.
pub(crate) struct Control<'a> {
    plan: &'a RunPlan,
    first: Handle,
    cgroup: Cgroup,
    oom: Option<OomWatch>,
    oom_kills_seen: u64,
}

/// Bytes of all secrets in the environment: more than execve(2) takes.
const SECRETS_BYTES_MAX: u64 = 8 << 20;

/// What stands in the file of the plan's secrets.
fn secrets(plan: &RunPlan) -> Result<Vec<String>, Refusal> {
    let Some(path) = &plan.secret_environment else {
        return Ok(Vec::new());
    };
    let read = || {
        let mut text = String::new();
        let file = fs::File::open(path)?.take(SECRETS_BYTES_MAX);
        std::io::BufReader::new(file).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|error: std::io::Error| Refusal::runtime("read the secrets", &error))?;
    Ok(text.split_terminator('\0').map(str::to_owned).collect())
}

impl<'a> Control<'a> {
    /// Makes the container over the assembled root file system; its first process waits for [`Control::start`].
    pub(crate) fn create(plan: &'a RunPlan, rootfs: &Assembled) -> Result<(Self, Ends), Refusal> {
        let joined = Joined::open(plan)?;
        let view = host::view(plan, &rootfs.sources, &joined)?;
        let spec = spec::document(plan, &view, &rootfs.root.to_string_lossy())
            .map_err(|error| Refusal::runtime("make the configuration", &error))?;
        let state_dir = runtime_folder(plan);
        let mut folder = fs::DirBuilder::new();
        let made = folder.recursive(true).mode(0o700).create(&state_dir);
        made.map_err(|error| Refusal::runtime("make the runtime's folder", &error))?;
        let (stdio, mut ends, console) =
            stdio(plan).map_err(|error| Refusal::runtime("make streams", &error))?;
        let bundle = Bundle {
            id: &plan.id,
            state_dir: &state_dir,
            bundle: &plan.state_dir,
            spec,
            secrets: secrets(plan)?,
            confinement: &plan.confinement,
            stdio,
            preserve_fds: 0,
            options: Options {
                init: plan.process.init,
                ends_with_caller: true,
                ..Options::default()
            },
        };
        let Created { process, cgroup, .. } = create::create(bundle).map_err(|error| Refusal {
            kind: error.kind(),
            message: chain(&error),
        })?;
        joined.close()?;
        if let Some(console) = console {
            ends.terminal = Some(console.receive(plan)?);
        }
        let oom = match cgroup.oom_watch() {
            Ok(watch) => watch,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "ignoring that kills at the memory limit cannot be watched");
                None
            }
        };
        Ok((
            Self {
                plan,
                first: process,
                cgroup,
                oom,
                oom_kills_seen: 0,
            },
            ends,
        ))
    }

    /// Lets the first process go on until it executes its program, and stores what the kernel accepted.
    pub(crate) fn start(&mut self) -> Result<i32, Refusal> {
        let receipt = create::start(&runtime_folder(self.plan), &self.plan.id).map_err(|error| Refusal {
            kind: error.kind(),
            message: chain(&error),
        })?;
        let text =
            serde_json::to_vec(&receipt).map_err(|error| Refusal::runtime("write the receipt", &error))?;
        // Not synced: it is of this start only, and the next one writes it anew.
        super::create_private_file(&self.plan.state_dir.join("receipt.json"))
            .and_then(|mut file| io::Write::write_all(&mut file, &text))
            .map_err(|error| Refusal::runtime("write the receipt", &error))?;
        Ok(self.pid())
    }

    /// The container's network namespace. The first process is a child that was not reaped, so its id is still its own.
    pub(crate) fn network(&self) -> Result<OwnedFd, Refusal> {
        let failed =
            |error: &dyn std::error::Error| Refusal::runtime("open the container's network namespace", error);
        let folder = fs::File::open(format!("/proc/{}", self.pid())).map_err(|error| failed(&error))?;
        kakoi_sys::namespace::open_in_process(folder.as_fd(), "ns/net", OFlag::O_RDONLY)
            .map_err(|error| failed(&error))
    }

    pub(crate) fn plan(&self) -> &'a RunPlan {
        self.plan
    }

    pub(crate) fn pid(&self) -> i32 {
        self.first.id().pid
    }

    pub(crate) fn start_time(&self) -> u64 {
        self.first.id().start_time
    }

    pub(crate) fn signal(&self, signal: i32, all: bool) -> Result<(), Refusal> {
        check_signal(signal)?;
        if all {
            return self
                .cgroup
                .signal_all(signal)
                .map_err(|error| Refusal::runtime("signal every process", &error));
        }
        match self.first.signal(signal) {
            Ok(()) => {}
            Err(HandleError::Gone(_)) => return Err(Refusal::conflict("the container has ended")),
            Err(error) => return Err(Refusal::runtime("signal the first process", &error)),
        }
        // A frozen process does not die before it is thawed; who kills means it.
        if signal == Signal::SIGKILL as i32 && self.cgroup.is_frozen().unwrap_or(false) {
            self.thaw()?;
        }
        Ok(())
    }

    pub(crate) fn freeze(&self) -> Result<(), Refusal> {
        self.cgroup
            .freeze()
            .map_err(|error| Refusal::runtime("pause", &error))
    }

    pub(crate) fn thaw(&self) -> Result<(), Refusal> {
        self.cgroup
            .thaw()
            .map_err(|error| Refusal::runtime("unpause", &error))
    }

    pub(crate) fn update(&self, resources: &Resources) -> Result<(), Refusal> {
        self.cgroup
            .update(resources)
            .map_err(|error| Refusal::runtime("update limits", &error))
    }

    pub(crate) fn stats(&self) -> Result<Stats, Refusal> {
        self.cgroup
            .stats()
            .map_err(|error| Refusal::runtime("read what the container uses", &error))
    }

    pub(crate) fn top(&self) -> Result<Vec<ProcessRow>, Refusal> {
        let pids = self
            .cgroup
            .pids()
            .map_err(|error| Refusal::runtime("list processes", &error))?;
        Ok(top::rows(pids))
    }

    /// Adds a process; the caller becomes its parent.
    pub(crate) fn exec(
        &self,
        process: &ProcessPlan,
        user: Option<ExecUser>,
        attach: Streams,
    ) -> Result<(i32, Ends), Refusal> {
        let own = &self.plan.confinement.identity;
        let identity = match user {
            Some(ExecUser { uid, gid, groups }) => Identity {
                uid,
                gid,
                groups,
                umask: own.umask,
            },
            None => own.clone(),
        };
        let (stdio, mut ends) = if process.tty {
            let size = process.terminal_size.map(|size| (size.width, size.height));
            (ExecStdio::Terminal { size }, Ends::default())
        } else {
            let (
                ends,
                Pipes {
                    stdin,
                    stdout,
                    stderr,
                },
            ) = pipes(attach.stdin, attach.stdout || attach.stderr)
                .map_err(|error| Refusal::runtime("make streams", &error))?;
            (
                ExecStdio::Streams {
                    stdin,
                    stdout,
                    stderr,
                },
                ends,
            )
        };
        let rlimits = host::rlimits(&self.plan.process.ulimits, &process.ulimits);
        let added = join::exec(ExecPlan {
            container: &self.first,
            cgroup: &self.cgroup,
            sub_cgroup: None,
            confinement: &self.plan.confinement,
            identity,
            args: &process.args,
            env: &process.env,
            cwd: &process.cwd,
            stdio,
            preserve_fds: 0,
            oom_score_adj: Some(process.oom_score_adj),
            rlimits: &rlimits,
            // As the first process: the shim's own keyring is none of the app's business.
            extras: Extras {
                keyring: Some(format!("_ses.{}", self.plan.id)),
                ..Extras::default()
            },
        })
        .map_err(|error| Refusal {
            kind: error.kind(),
            message: chain(&error),
        })?;
        ends.terminal = added.terminal;
        Ok((added.process.id().pid, ends))
    }

    /// Ends every process of the container that is left.
    pub(crate) fn kill_all(&self) {
        if let Err(error) = self.cgroup.kill_all() {
            tracing::warn!(error = %chain(&error), "ignoring that the container's processes could not be ended at once");
        }
    }

    pub(crate) fn oom_descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.oom.as_ref().map(AsFd::as_fd)
    }

    /// Empties the watch and tells whether the kernel has killed since the last call.
    pub(crate) fn has_oom_kill(&mut self) -> bool {
        if let Some(watch) = &self.oom {
            watch.drain();
        }
        // A group that cannot be read any more has been removed from outside; what it counted is lost.
        let kills = self.cgroup.oom_kills().unwrap_or(self.oom_kills_seen);
        let has_more = kills > self.oom_kills_seen;
        self.oom_kills_seen = kills;
        has_more
    }
}

fn check_signal(signal: i32) -> Result<(), Refusal> {
    if (1..=64).contains(&signal) {
        return Ok(());
    }
    Err(Refusal {
        kind: FailureKind::Runtime,
        message: format!("there is no signal {signal}"),
    })
}

/// Signals a child of the caller that has not been reaped, so that its id, and its group's, which it leads, are still its own.
pub(super) fn signal_child(pid: i32, signal: i32, all: bool) -> Result<(), Refusal> {
    check_signal(signal)?;
    let failed = |error: &dyn std::error::Error| Refusal::runtime("signal the added process", error);
    if !all {
        return Handle::of_child(pid)
            .and_then(|child| child.signal(signal))
            .map_err(|error| failed(&error));
    }
    let signal = Signal::try_from(signal)
        .map_err(|_| Refusal::conflict("a real-time signal goes to one process, not to a group"))?;
    nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid), signal).map_err(|errno| failed(&errno))
}

fn runtime_folder(plan: &RunPlan) -> PathBuf {
    plan.run_dir.join("runtime")
}

/// Takes the control group and the runtime's state away; what is left in the group is killed.
pub(super) fn remove(plan: &RunPlan) -> Result<(), SuperviseError> {
    let fail = |error: &dyn std::error::Error| SuperviseError::Cgroup {
        message: chain(error),
    };
    Cgroup::at(&plan.cgroup)
        .and_then(|cgroup| cgroup.kill_all().and_then(|()| cgroup.delete()))
        .map_err(|error| fail(&error))
}

/// Where the first process's terminal arrives.
struct Console {
    listener: UnixListener,
    path: PathBuf,
}

impl Console {
    fn listen(run_dir: &Path) -> io::Result<Self> {
        let path = run_dir.join("console");
        // A socket's name takes 107 bytes; through the folder's descriptor any folder fits.
        let folder = fs::File::open(run_dir)?;
        let short = format!(
            "/proc/self/fd/{}/console",
            std::os::fd::AsRawFd::as_raw_fd(&folder)
        );
        Ok(Self {
            listener: UnixListener::bind(short)?,
            path,
        })
    }

    /// The container is made: its terminal has been sent.
    fn receive(self, plan: &RunPlan) -> Result<OwnedFd, Refusal> {
        let fail = |error: io::Error| Refusal::runtime("receive the terminal", &error);
        self.listener.set_nonblocking(true).map_err(fail)?;
        let (stream, _) = self.listener.accept().map_err(fail)?;
        let mut name = [0; 4096];
        let received = kakoi_sys::socket::receive_descriptors(stream.as_fd(), &mut name);
        let (_, mut descriptors) = received.map_err(|error| fail(error.errno.into()))?;
        let terminal = descriptors
            .pop()
            .ok_or_else(|| fail(io::ErrorKind::UnexpectedEof.into()))?;
        if let Some(size) = plan.process.terminal_size {
            kakoi_sys::terminal::set_size(terminal.as_fd(), size.width, size.height)
                .map_err(|error| fail(error.errno.into()))?;
        }
        fs::remove_file(&self.path).map_err(fail)?;
        Ok(terminal)
    }
}

fn stdio(plan: &RunPlan) -> io::Result<(Stdio, Ends, Option<Console>)> {
    if plan.process.tty {
        let console = Console::listen(&plan.run_dir)?;
        return Ok((
            Stdio::Console(console.path.clone()),
            Ends::default(),
            Some(console),
        ));
    }
    let (
        ends,
        Pipes {
            stdin,
            stdout,
            stderr,
        },
    ) = pipes(plan.process.stdin_open, true)?;
    Ok((
        Stdio::Streams {
            stdin,
            stdout,
            stderr,
        },
        ends,
        None,
    ))
}
