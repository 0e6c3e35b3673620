//! Starting a daemon for a command that finds none.
//!
//! Owns finding `kakoid`, detaching it and waiting for its socket. Refuses to know the daemon's state. Invariants: only root starts one, only on a
//! socket that nobody named by hand, and it outlives this program in a session of its own.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::net::UnixStream;

/// How long a daemon may take to listen: it adopts every running container before it does.
const START_SECONDS_MAX: u64 = 20;
/// How long a daemon that lost the race against another may take to find the other one listening.
const OTHER_SECONDS_MAX: u64 = 20;
/// The exit status of a daemon whose folders another daemon holds.
const OTHER_DAEMON: i32 = 3;
/// The end of the log that is looked at for the reason of a failure.
const LOG_TAIL_BYTES: u64 = 4096;
/// The hidden command under which this program starts the daemon in a session of its own.
pub const DETACH_COMMAND: &str = "__start-daemon";

/// Why no daemon could be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// There is no `kakoid`.
    #[error("no daemon is running, and kakoid is neither beside {} nor in PATH: install it, or start it yourself", .beside.display())]
    NotFound {
        /// This program.
        beside: PathBuf,
    },
    /// The folder of the socket cannot be made.
    #[error("making the run folder {}", .path.display())]
    RunFolder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The daemon's log cannot be opened.
    #[error("opening the daemon's log {}", .path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The program cannot be started.
    #[error("starting {}", .program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// It started and gave up.
    #[error("kakoid gave up ({status}): {reason}")]
    GaveUp {
        /// How it ended.
        status: std::process::ExitStatus,
        /// The last line of its log.
        reason: String,
    },
    /// It runs, and does not listen.
    #[error("kakoid did not listen on {} within {START_SECONDS_MAX} s: see {}", .socket.display(), .log.display())]
    Silent {
        /// The socket.
        socket: PathBuf,
        /// Its log.
        log: PathBuf,
    },
}

/// How a daemon is started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Its durable folder.
    pub root: PathBuf,
    /// Its run-time folder, with the socket and the log.
    pub run: PathBuf,
    /// Its configuration.
    pub config: PathBuf,
    /// How much it logs.
    pub log_level: Option<String>,
}

impl Launch {
    /// Whether this user may start a daemon.
    pub fn is_permitted(&self) -> bool {
        nix::unistd::geteuid().is_root()
    }

    /// Starts a daemon and waits until it accepts a connection.
    pub(super) async fn start(&self, socket: &Path) -> Result<UnixStream, LaunchError> {
        let program = find()?;
        let log = self.run.join("kakoid.log");
        let mut child = self.spawn(&program, &log)?;
        wait(&mut child, socket, &log).await
    }

    fn spawn(&self, program: &Path, log: &Path) -> Result<Child, LaunchError> {
        // The daemon's socket is for its group: the folder must let them through.
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&self.run)
            .map_err(|cause| LaunchError::RunFolder {
                path: self.run.clone(),
                cause,
            })?;
        let open = |error: io::Error| LaunchError::Log {
            path: log.to_owned(),
            cause: error,
        };
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o640)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(log)
            .map_err(open)?;
        let again = file.try_clone().map_err(open)?;
        let own = std::env::current_exe().map_err(|cause| LaunchError::Spawn {
            program: program.to_owned(),
            cause,
        })?;
        let mut command = Command::new(own);
        command.arg(DETACH_COMMAND).arg(program);
        command
            .arg("--root")
            .arg(&self.root)
            .arg("--run")
            .arg(&self.run)
            .arg("--config")
            .arg(&self.config);
        if let Some(level) = &self.log_level {
            command.env("KAKOI_LOG", format!("kakoid={level}"));
        }
        command
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(again)
            .spawn()
            .map_err(|cause| LaunchError::Spawn {
                program: program.to_owned(),
                cause,
            })
    }
}

/// Becomes the daemon, in a session of its own: what the hidden command does.
pub fn detach_and_execute(words: &[std::ffi::OsString]) -> Result<std::convert::Infallible, LaunchError> {
    let (program, arguments) = words.split_first().ok_or_else(|| LaunchError::NotFound {
        beside: PathBuf::new(),
    })?;
    let failed = |cause| LaunchError::Spawn {
        program: PathBuf::from(program),
        cause,
    };
    // Without a session of its own, the terminal's hang-up and Ctrl-C would reach it.
    nix::unistd::setsid().map_err(|errno| failed(io::Error::from(errno)))?;
    Err(failed(Command::new(program).args(arguments).exec()))
}

fn find() -> Result<PathBuf, LaunchError> {
    let own = std::env::current_exe().unwrap_or_default();
    let beside = own.parent().map(|folder| folder.join("kakoid"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join("kakoid"));
    beside
        .into_iter()
        .chain(folders)
        .find(|candidate| candidate.is_file())
        .ok_or(LaunchError::NotFound { beside: own })
}

/// Tries the socket until it answers. The kernel has no event for "somebody listens now" on a path, so this is a bounded retry.
async fn wait(child: &mut Child, socket: &Path, log: &Path) -> Result<UnixStream, LaunchError> {
    let mut deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
    let mut pause = Duration::from_millis(1);
    let mut ended = None;
    loop {
        if let Ok(stream) = UnixStream::connect(socket).await {
            return Ok(stream);
        }
        if ended.is_none()
            && let Ok(Some(status)) = child.try_wait()
        {
            ended = Some(status);
            // Another command may have started a daemon at the same time: ours then gave up, and the other one is about to listen.
            let patience = if status.code() == Some(OTHER_DAEMON) {
                OTHER_SECONDS_MAX
            } else {
                0
            };
            deadline = Instant::now() + Duration::from_secs(patience);
        }
        if Instant::now() >= deadline {
            return Err(match ended {
                Some(status) => LaunchError::GaveUp {
                    status,
                    reason: reason(log),
                },
                None => LaunchError::Silent {
                    socket: socket.to_owned(),
                    log: log.to_owned(),
                },
            });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// The last line of the daemon's log.
fn reason(log: &Path) -> String {
    let tail = || -> io::Result<String> {
        let mut file = fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = tail().unwrap_or_default();
    match text.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(line) => crate::text::printable(line),
        None => format!("it left no word in {}", log.display()),
    }
}
