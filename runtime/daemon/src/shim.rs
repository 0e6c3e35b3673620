//! The daemon's side of the shim: spawning it, cleaning up after it, talking to it.
//!
//! Knows the words of [`kakoi_container::frames`] and nothing of what a container is for. Invariant: a shim inherits no environment and no
//! descriptor beyond its control socket (standard input), the pipe of its first answer and a file for what it may have to say (standard error).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use kakoi_container::frames::{Event, Exit, FailureKind, GO_ON, LINE_BYTES_MAX, Ready, Reply, Request};
use kakoi_sys::descriptors::set_close_on_exec;
use kakoi_sys::socket::receive_descriptors;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::refusal::{Answer, Refusal};
use crate::spare::Spare;

/// What a shim may write to its error file before it is of no use to anybody.
const TROUBLE_BYTES_MAX: u64 = 4096;

/// How long a killed shim may take to end; without a dead file system under it, that is no time at all.
const DEATH_MAX: Duration = Duration::from_secs(10);

/// How long cleaning up may take: killing and removing give up by themselves after ten seconds each.
const CLEAN_MAX: Duration = Duration::from_secs(60);

/// A shim that does not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// It cannot be spawned.
    #[error("starting the shim {}", .program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Its socket cannot be made or reached.
    #[error("talking to the shim")]
    Talk(#[source] io::Error),
    /// It says what is not in the vocabulary.
    #[error("the shim answered {line:?}")]
    Nonsense {
        /// The beginning of what it said.
        line: String,
    },
    /// It ended without an answer.
    #[error("the shim ended without an answer{}", if .said.is_empty() { String::new() } else { format!(": {}", .said) })]
    Silent {
        /// The end of what it wrote to standard error.
        said: String,
    },
    /// It hangs.
    #[error("the shim did not answer within {seconds} s and was killed")]
    Slow {
        /// How long it was waited for.
        seconds: u64,
    },
    /// It answered that the request failed.
    #[error("{message}")]
    Failed {
        /// Whose fault it is.
        kind: FailureKind,
        /// The chain of causes.
        message: String,
    },
    /// The network that it waited for is not there.
    #[error("{0}")]
    Network(Refusal),
    /// Cleaning up after a dead one failed.
    #[error("cleaning up after a dead shim: {said}")]
    Clean {
        /// What it wrote to standard error.
        said: String,
    },
}

/// The shim's program. A container could overwrite the one on the disk through a descriptor of its own (CVE-2019-5736), so every shim is executed from
/// a read-only view of it, made once: a shim that has to make its own starts twice.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    sealed: Option<OwnedFd>,
    spare: Arc<Spare>,
    run_dir: PathBuf,
}

impl Program {
    /// Takes the program at `path` as it is now; one that is replaced later is used by the next daemon. `run_dir` is the daemon's.
    pub fn seal(path: &Path, run_dir: &Path) -> Self {
        let sealed = kakoi_sys::sealed::read_only_clone_of(path);
        if let Err(error) = &sealed {
            tracing::warn!(path = %path.display(), %error, "each shim seals itself, ignoring");
        }
        Self {
            path: path.to_owned(),
            sealed: sealed.ok(),
            spare: Arc::default(),
            run_dir: run_dir.to_owned(),
        }
    }

    fn command(&self) -> Command {
        let Some(sealed) = &self.sealed else {
            return Command::new(&self.path);
        };
        let mut command = Command::new(format!("/proc/self/fd/{}", sealed.as_raw_fd()));
        command.arg0(&self.path);
        command
    }
}

impl Program {
    /// A process that copies a container's files, as its standard input asks; it ends with its handle.
    pub fn files(&self, state_dir: &Path) -> Command {
        piped(shim_command(self, state_dir, "files"))
    }

    /// The same for the volume in a folder.
    pub fn volume_files(&self, folder: &Path) -> Command {
        let mut command = self.command();
        command.arg("files").arg("--volume").arg(folder).env_clear();
        piped(command)
    }
}

fn piped(mut command: Command) -> Command {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// A shim whose app runs.
#[derive(Debug)]
pub struct Running {
    /// The first process's id on the host.
    pub pid: i32,
    /// The shim itself, to be reaped.
    pub child: Child,
    /// Where its events come from.
    pub events: Watch,
}

/// Makes the control socket that a shim will inherit.
pub fn bind(run_dir: &Path) -> Result<UnixListener, ShimError> {
    let path = run_dir.join("shim.sock");
    match fs::remove_file(&path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(ShimError::Talk(cause)),
        _ => {}
    }
    let folder = File::open(run_dir).map_err(ShimError::Talk)?;
    let path = short_path(&folder);
    let listener = UnixListener::bind(&path).map_err(ShimError::Talk)?;
    // Until now the folder alone has kept others out, as it does from here on.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(ShimError::Talk)?;
    Ok(listener)
}

/// The control socket's path through its open folder: a run folder and a container's id together easily have more than the 107 bytes that
/// fit into a socket's address (unix(7)).
fn short_path(run_dir: &File) -> PathBuf {
    let fd = std::os::fd::AsRawFd::as_raw_fd(run_dir);
    PathBuf::from(format!("/proc/self/fd/{fd}/shim.sock"))
}

/// Spawns a shim and waits until its app runs, or does not; one that says neither within `limit` is killed, and what it has made stays for
/// [`clean`]. `furnish` is given the network namespace of a container whose plan awaits a network.
pub async fn run(
    program: &Program,
    (state_dir, run_dir): (&Path, &Path),
    listener: UnixListener,
    limit: Duration,
    furnish: impl AsyncFnOnce(OwnedFd) -> Answer<()>,
) -> Result<Running, ShimError> {
    let spawn = |cause| ShimError::Spawn {
        program: program.path.clone(),
        cause,
    };
    let events = watch(run_dir).await?;
    let (reader, writer) = std::os::unix::net::UnixStream::pair().map_err(spawn)?;
    let trouble = run_dir.join("shim.err");
    let said = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&trouble)
        .map_err(spawn)?;
    let descriptors = [listener.as_fd(), writer.as_fd(), said.as_fd()];
    let child = match program.spare.hand_over(&plan_path(state_dir), descriptors) {
        Some(child) => {
            // A listener of our own would keep connections open that nobody serves once the shim is gone.
            drop(listener);
            child
        }
        None => spawn_with(writer.as_fd(), |fd| {
            shim_command(program, state_dir, "run")
                .arg("--ready-fd")
                .arg(fd.to_string())
                .stdin(OwnedFd::from(listener))
                .stdout(Stdio::null())
                .stderr(said)
                .spawn()
        })
        .map_err(spawn)?,
    };
    // Its end of the pipe has to be the only one, or its silence would not be heard.
    drop(writer);
    let Ok(word) = timeout(limit, last_word(reader, furnish)).await else {
        kill(child).await;
        let seconds = limit.as_secs();
        return Err(ShimError::Slow { seconds });
    };
    let word = match word {
        // It undoes what it made, now that nobody answers.
        Err(refused @ ShimError::Network(_)) => {
            reap(child).await;
            return Err(refused);
        }
        word => word?,
    };
    match word {
        Some(Ready::Ready { pid }) => {
            program.spare.prepare(program.command(), &program.run_dir);
            Ok(Running { pid, child, events })
        }
        Some(Ready::Created) => Err(ShimError::Nonsense {
            line: "created, twice".into(),
        }),
        Some(Ready::Failed { kind, message }) => {
            reap(child).await;
            Err(ShimError::Failed { kind, message })
        }
        None => {
            reap(child).await;
            Err(ShimError::Silent { said: tail(&trouble) })
        }
    }
}

/// Spawns a process that inherits one descriptor. Every process is spawned by the one thread of the event loop, so no other one can inherit it
/// in the moment in which it may be.
fn spawn_with(fd: BorrowedFd<'_>, spawn: impl FnOnce(i32) -> io::Result<Child>) -> io::Result<Child> {
    let inheritable = |on: bool| {
        set_close_on_exec(fd, !on).map_err(|error| io::Error::from_raw_os_error(error.errno as i32))
    };
    inheritable(true)?;
    let child = spawn(fd.as_raw_fd());
    inheritable(false)?;
    child
}

fn shim_command(program: &Program, state_dir: &Path, verb: &str) -> Command {
    let mut command = program.command();
    command
        .arg(verb)
        .arg("--plan")
        .arg(plan_path(state_dir))
        .env_clear();
    command
}

fn plan_path(state_dir: &Path) -> PathBuf {
    state_dir.join("plan.json")
}

async fn reap(mut child: Child) {
    if let Err(cause) = child.wait().await {
        tracing::warn!(%cause, "a shim cannot be reaped, ignoring");
    }
}

/// Kills a shim that hangs. One that even then does not end, on a dead file system perhaps, is reaped whenever it does.
async fn kill(mut child: Child) {
    if let Err(cause) = child.start_kill() {
        tracing::warn!(%cause, "a shim that hangs cannot be killed, ignoring");
    }
    let reaped = tokio::spawn(reap(child));
    if timeout(DEATH_MAX, reaped).await.is_err() {
        tracing::error!("a shim that was killed does not end");
    }
}

/// Follows what a new shim says until its app runs or does not; `None` where it ends without a word.
async fn last_word(
    ready: std::os::unix::net::UnixStream,
    furnish: impl AsyncFnOnce(OwnedFd) -> Answer<()>,
) -> Result<Option<Ready>, ShimError> {
    ready.set_nonblocking(true).map_err(ShimError::Talk)?;
    let mut ready = UnixStream::from_std(ready).map_err(ShimError::Talk)?;
    let (word, network) = next_word(&ready).await?;
    if word != Some(Ready::Created) {
        return Ok(word);
    }
    let network = network.ok_or_else(|| nonsense(b"created, without a network"))?;
    furnish(network).await.map_err(ShimError::Network)?;
    ready.write_all(&[GO_ON]).await.map_err(ShimError::Talk)?;
    Ok(next_word(&ready).await?.0)
}

/// One line, with the descriptor that came with it; no line at the end of the stream.
async fn next_word(ready: &UnixStream) -> Result<(Option<Ready>, Option<OwnedFd>), ShimError> {
    const READ_BYTES: usize = 4096;
    let (mut line, mut descriptors) = (Vec::new(), Vec::new());
    while line.last() != Some(&b'\n') && line.len() < LINE_BYTES_MAX {
        ready.readable().await.map_err(ShimError::Talk)?;
        let mut bytes = [0; READ_BYTES];
        let received = ready.try_io(tokio::io::Interest::READABLE, || {
            receive_descriptors(ready.as_fd(), &mut bytes).map_err(|error| error.errno.into())
        });
        match received {
            Ok((0, _)) => break,
            Ok((count, more)) => {
                line.extend_from_slice(&bytes[..count]);
                descriptors.extend(more);
            }
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {}
            Err(cause) if cause.kind() == io::ErrorKind::ConnectionReset => break,
            Err(cause) => return Err(ShimError::Talk(cause)),
        }
    }
    if line.is_empty() {
        return Ok((None, None));
    }
    let word = serde_json::from_slice(&line).map_err(|_| nonsense(&line))?;
    Ok((Some(word), descriptors.pop()))
}

/// The network namespace of a running container.
pub async fn network(run_dir: &Path) -> Result<OwnedFd, ShimError> {
    let stream = send(run_dir, &Request::Network).await?;
    loop {
        stream.readable().await.map_err(ShimError::Talk)?;
        let mut bytes = [0; 4096];
        let received = stream.try_io(tokio::io::Interest::READABLE, || {
            receive_descriptors(stream.as_fd(), &mut bytes).map_err(|error| error.errno.into())
        });
        let (count, mut descriptors) = match received {
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => continue,
            received => received.map_err(ShimError::Talk)?,
        };
        return match serde_json::from_slice(&bytes[..count]) {
            Ok(Reply::Network) => descriptors.pop().ok_or_else(|| nonsense(b"network, without one")),
            Ok(Reply::Failed { kind, message }) => Err(ShimError::Failed { kind, message }),
            _ => Err(nonsense(&bytes[..count])),
        };
    }
}

fn nonsense(line: &[u8]) -> ShimError {
    ShimError::Nonsense {
        line: String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned(),
    }
}

fn tail(path: &Path) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TROUBLE_BYTES_MAX)))?;
        let mut bytes = Vec::new();
        file.take(TROUBLE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    read().unwrap_or_default()
}

/// Removes what a dead shim left: processes, control group, mounts; writes `exit.json` where there is none.
pub async fn clean(program: &Program, state_dir: &Path) -> Result<(), ShimError> {
    let output = shim_command(program, state_dir, "clean")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    let output = match timeout(CLEAN_MAX, output).await {
        Ok(output) => output.map_err(|cause| ShimError::Spawn {
            program: program.path.clone(),
            cause,
        })?,
        Err(_) => {
            let seconds = CLEAN_MAX.as_secs();
            return Err(ShimError::Slow { seconds });
        }
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr[..output.stderr.len().min(2000)])
        .trim()
        .to_owned();
    Err(ShimError::Clean {
        said: if said.is_empty() {
            output.status.to_string()
        } else {
            said
        },
    })
}

/// A connection that carries events.
#[derive(Debug)]
pub struct Watch {
    reader: BufReader<UnixStream>,
}

/// What a [`Watch`] brings.
#[derive(Debug)]
pub enum Word {
    /// The shim's state, once, first.
    State(kakoi_container::frames::State),
    /// Something happened.
    Event(Event),
}

/// Connects to a shim, living or about to be spawned, and asks for its events.
pub async fn watch(run_dir: &Path) -> Result<Watch, ShimError> {
    let stream = send(run_dir, &Request::Watch).await?;
    Ok(Watch {
        reader: BufReader::new(stream),
    })
}

impl Watch {
    /// The next word; `None` when the shim is gone.
    pub async fn next(&mut self) -> Result<Option<Word>, ShimError> {
        let Some(line) = read_line(&mut self.reader).await? else {
            return Ok(None);
        };
        if let Ok(event) = serde_json::from_slice(&line) {
            return Ok(Some(Word::Event(event)));
        }
        match serde_json::from_slice(&line) {
            Ok(Reply::State(state)) => Ok(Some(Word::State(state))),
            Ok(Reply::Failed { kind, message }) => Err(ShimError::Failed { kind, message }),
            _ => Err(nonsense(&line)),
        }
    }
}

async fn send(run_dir: &Path, request: &Request) -> Result<UnixStream, ShimError> {
    let folder = File::open(run_dir).map_err(ShimError::Talk)?;
    let mut stream = UnixStream::connect(short_path(&folder))
        .await
        .map_err(ShimError::Talk)?;
    let mut line = serde_json::to_vec(request).expect("a request is plain data");
    line.push(b'\n');
    stream.write_all(&line).await.map_err(ShimError::Talk)?;
    Ok(stream)
}

async fn read_line(reader: &mut BufReader<UnixStream>) -> Result<Option<Vec<u8>>, ShimError> {
    let mut line = Vec::new();
    let mut limited = reader.take(LINE_BYTES_MAX as u64);
    match limited.read_until(b'\n', &mut line).await {
        Ok(0) => Ok(None),
        Ok(_) if line.last() == Some(&b'\n') => Ok(Some(line)),
        Ok(_) => Err(nonsense(&line)),
        // A shim that dies with unread requests resets the connection.
        Err(cause) if cause.kind() == io::ErrorKind::ConnectionReset => Ok(None),
        Err(cause) => Err(ShimError::Talk(cause)),
    }
}

/// Sends one request and gives back the answer and the connection, which carries bytes after [`Reply::Stream`].
pub async fn ask(run_dir: &Path, request: &Request) -> Result<(Reply, BufReader<UnixStream>), ShimError> {
    Pending::send(run_dir, request).await?.answer().await
}

/// A request whose answer is not waited for yet.
#[derive(Debug)]
pub struct Pending(BufReader<UnixStream>);

impl Pending {
    /// Sends a request; to a shim that is not spawned yet, too, once its socket is made.
    pub async fn send(run_dir: &Path, request: &Request) -> Result<Self, ShimError> {
        Ok(Self(BufReader::new(send(run_dir, request).await?)))
    }

    /// Waits for the answer.
    pub async fn answer(self) -> Result<(Reply, BufReader<UnixStream>), ShimError> {
        let mut reader = self.0;
        let Some(line) = read_line(&mut reader).await? else {
            return Err(ShimError::Silent { said: String::new() });
        };
        match serde_json::from_slice(&line) {
            Ok(Reply::Failed { kind, message }) => Err(ShimError::Failed { kind, message }),
            Ok(reply) => Ok((reply, reader)),
            Err(_) => Err(nonsense(&line)),
        }
    }
}

/// How a container ended, from the file that its shim wrote; `None` where there is none.
pub fn read_exit(state_dir: &Path) -> Option<Exit> {
    let bytes = fs::read(state_dir.join("exit.json")).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Forgets how the run before ended.
pub fn forget_exit(state_dir: &Path) -> io::Result<()> {
    match fs::remove_file(state_dir.join("exit.json")) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}
