//! A person at a container: bytes both ways, keys that detach, signals, the window's size.
//!
//! Owns the order in which a session ends: the container's output is written out whole before anything else is said. Refuses to know how the
//! container was started. Invariants: the end of standard input ends only that direction; the terminal is restored before the first word of ours;
//! output that waits for a slow reader holds up neither signals nor typing.

use std::io::{self, Read as _, Write as _};

use hyper::Method;
use kakoi_api::stream::Output;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::client::{Client, ClientError, Hijacked, HijackedInput, HijackedOutput, Target, empty_body};
use crate::detach_keys::{DetachKeys, Typed};
use crate::failure::{Failure, OUTPUT_CLOSED};
use crate::frames::{FrameError, Frames};
use crate::terminal::{self, RawMode, TerminalError};

/// How much of standard input is read at a time, and how many such pieces wait.
const INPUT_BYTES: usize = 32 << 10;
const INPUT_PIECES: usize = 4;
/// The signals that are handed to the subject's process, by number and name.
const PROXIED: [(i32, &str); 6] = [
    (nix::libc::SIGHUP, "SIGHUP"),
    (nix::libc::SIGINT, "SIGINT"),
    (nix::libc::SIGQUIT, "SIGQUIT"),
    (nix::libc::SIGTERM, "SIGTERM"),
    (nix::libc::SIGUSR1, "SIGUSR1"),
    (nix::libc::SIGUSR2, "SIGUSR2"),
];

/// What breaks a session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The terminal.
    #[error(transparent)]
    Terminal(#[from] TerminalError),
    /// The daemon's connection.
    #[error("reading the container's output")]
    Read(#[source] io::Error),
    /// Our own output.
    #[error("writing the container's output")]
    Write(#[source] io::Error),
    /// The daemon's frames.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Signals cannot be caught.
    #[error("catching signals")]
    Signals(#[source] io::Error),
}

/// How a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The container closed its output.
    Closed,
    /// The person detached.
    Detached,
}

/// Whose window and signals these are.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A container's first process.
    Container(String),
    /// A process that `exec` added.
    Exec(String),
}

impl Subject {
    fn target(&self) -> Target {
        match self {
            Self::Container(id) => Target::new("/containers").segment(id),
            Self::Exec(id) => Target::new("/exec").segment(id),
        }
    }

    fn kill(&self, signal: &str) -> Target {
        self.target().segment("kill").query("signal", signal)
    }

    fn resize(&self, (width, height): (u16, u16)) -> Target {
        self.target()
            .segment("resize")
            .query("h", &height.to_string())
            .query("w", &width.to_string())
    }
}

/// What a session is like.
pub struct Session<'c> {
    /// The daemon, for signals and sizes.
    pub client: &'c Client,
    /// Whose window and signals these are.
    pub subject: Subject,
    /// Whether the container has a terminal: bytes come unframed.
    pub has_terminal: bool,
    /// Whether standard input goes to the container.
    pub sends_input: bool,
    /// Whether signals go to the container.
    pub proxies_signals: bool,
    /// The keys that detach; looked for only where there is a terminal.
    pub keys: DetachKeys,
    /// Which outputs are shown.
    pub shows: Shows,
}

/// Which outputs are shown.
#[derive(Clone, Copy, Debug)]
pub struct Shows {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

impl Shows {
    /// Both.
    pub const ALL: Self = Self {
        stdout: true,
        stderr: true,
    };
}

/// A session that is prepared: signals are caught and the terminal is raw from here on.
pub struct Prepared<'c> {
    session: Session<'c>,
    raw: Option<RawMode>,
    signals: Option<Signals>,
    has_begun: watch::Sender<bool>,
}

impl<'c> Session<'c> {
    /// Catches signals and switches the terminal, before the container is started, so that none is lost in between.
    pub fn prepare(self) -> Result<Prepared<'c>, SessionError> {
        let raw = if self.has_terminal && self.sends_input && terminal::is_input() {
            Some(RawMode::enter()?)
        } else {
            None
        };
        // A raw terminal must be put back, so the signals that would end this program are caught in any case.
        let signals = if self.proxies_signals || raw.is_some() {
            Some(Signals::catch().map_err(SessionError::Signals)?)
        } else {
            None
        };
        Ok(Prepared {
            session: self,
            raw,
            signals,
            has_begun: watch::Sender::new(false),
        })
    }
}

impl Prepared<'_> {
    /// Says that the container has been started: signals that came before are delivered now.
    pub fn begin(&self) {
        self.has_begun.send_replace(true);
    }

    /// Runs the session to its end; the terminal is restored when it returns.
    pub async fn run(self, connection: Hijacked) -> Result<End, Failure> {
        let (output, input) = connection.into_split();
        let Self {
            session,
            raw,
            signals,
            has_begun,
        } = self;
        let outcome = tokio::select! {
            end = show(output, session.has_terminal, session.shows) => end,
            () = send(input, session.sends_input, session.has_terminal, session.keys.clone()) => Ok(End::Detached),
            left = attend(&session, signals, &has_begun) => left,
        };
        let was_raw = raw.is_some();
        drop(raw);
        if was_raw && matches!(outcome, Ok(End::Detached)) {
            // The container's prompt stands on this line.
            crate::output::complain("");
        }
        match outcome {
            Err(SessionError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                Err(Failure::silent(OUTPUT_CLOSED))
            }
            Err(error) => Err(error.into()),
            Ok(end) => Ok(end),
        }
    }
}

/// Writes the container's output until it ends.
async fn show(mut output: HijackedOutput, has_terminal: bool, shows: Shows) -> Result<End, SessionError> {
    let mut frames = Frames::new();
    loop {
        let bytes = output.next().await.map_err(SessionError::Read)?;
        if bytes.is_empty() {
            return Ok(End::Closed);
        }
        let pieces = if has_terminal {
            vec![(Output::Stdout, bytes)]
        } else {
            frames.split(bytes)?
        };
        for (to, piece) in pieces {
            let is_shown = match to {
                Output::Stdout => shows.stdout,
                Output::Stderr => shows.stderr,
            };
            if is_shown {
                write(to, piece.to_vec()).await.map_err(SessionError::Write)?;
            }
        }
    }
}

/// Writes on a thread of its own, one piece after another: a slow reader holds up nothing else.
async fn write(to: Output, piece: Vec<u8>) -> io::Result<()> {
    let writing = tokio::task::spawn_blocking(move || match to {
        Output::Stdout => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(&piece).and_then(|()| stdout.flush())
        }
        Output::Stderr => io::stderr().lock().write_all(&piece),
    });
    writing.await.map_err(io::Error::other)?
}

/// Sends standard input; returns only when the person detaches.
async fn send(mut input: HijackedInput, sends: bool, has_terminal: bool, mut keys: DetachKeys) {
    if !sends {
        return std::future::pending().await;
    }
    let mut pieces = read_input();
    while let Some(piece) = pieces.recv().await {
        let (bytes, leaves) = if has_terminal {
            match keys.look(&piece) {
                Typed::Pass(bytes) => (bytes, false),
                Typed::Leave(bytes) => (bytes, true),
            }
        } else {
            (piece, false)
        };
        // A container that reads no more is not the person's mistake: its output and exit code tell the rest.
        if !bytes.is_empty() && input.send(&bytes).await.is_err() {
            return std::future::pending().await;
        }
        if leaves {
            return;
        }
    }
    let rest = keys.rest();
    if rest.is_empty() || input.send(&rest).await.is_ok() {
        input.close().await.ok();
    }
    std::future::pending().await
}

/// Reads standard input on a thread of its own: it may be a file, a pipe or a terminal that others share, so it is never made non-blocking.
fn read_input() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(INPUT_PIECES);
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut buffer = vec![0; INPUT_BYTES];
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    if sender.blocking_send(buffer[..count].to_vec()).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A terminal that hung up ends input like an end of file.
                Err(_) => return,
            }
        }
    });
    receiver
}

/// Delivers signals and sizes; returns only where a signal makes the person leave.
async fn attend(
    session: &Session<'_>,
    signals: Option<Signals>,
    has_begun: &watch::Sender<bool>,
) -> Result<End, SessionError> {
    let Some(mut signals) = signals else {
        return std::future::pending().await;
    };
    let mut begun = has_begun.subscribe();
    // The sender lives as long as this session: waiting cannot fail.
    begun.wait_for(|has_begun| *has_begun).await.ok();
    let mut size = terminal::size();
    loop {
        match signals.next().await {
            None => {
                if session.has_terminal
                    && let Some(now) = terminal::size()
                    && size != Some(now)
                {
                    size = Some(now);
                    tell(session.client, &session.subject.resize(now)).await;
                }
            }
            Some(name) if session.proxies_signals => tell(session.client, &session.subject.kill(name)).await,
            Some(_) => return Ok(End::Detached),
        }
    }
}

/// Makes a terminal inside as large as the person's.
pub async fn fit(client: &Client, subject: &Subject) {
    if let Some(size) = terminal::size() {
        tell(client, &subject.resize(size)).await;
    }
}

/// A request whose failure changes nothing for the person: the container has ended, and its end is about to be told.
async fn tell(client: &Client, target: &Target) {
    let outcome: Result<_, ClientError> = client.open(Method::POST, target, empty_body()).await;
    drop(outcome);
}

/// The caught signals.
struct Signals {
    window: Signal,
    proxied: Vec<(Signal, &'static str)>,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        let mut proxied = Vec::with_capacity(PROXIED.len());
        for (number, name) in PROXIED {
            proxied.push((signal(SignalKind::from_raw(number))?, name));
        }
        Ok(Self {
            window: signal(SignalKind::window_change())?,
            proxied,
        })
    }

    /// The next signal's name; `None` for a change of the window.
    async fn next(&mut self) -> Option<&'static str> {
        let window = &mut self.window;
        let proxied = &mut self.proxied;
        let any = std::future::poll_fn(|context| {
            for (signal, name) in proxied.iter_mut() {
                if signal.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*name);
                }
            }
            std::task::Poll::Pending
        });
        tokio::select! {
            name = any => Some(name),
            _ = window.recv() => None,
        }
    }
}
