//! The words between a daemon and a shim, on the shim's control socket.
//!
//! One connection carries one request: a line of JSON from the daemon, a line of JSON from the shim. After [`Reply::Stream`] the
//! connection carries bytes: from the daemon standard input, closed by shutting down its direction; from the shim the terminal's
//! bytes as they are, or, without a terminal, frames of a byte 1 (stdout) or 2 (stderr), three zero bytes, a big-endian 32-bit length and
//! that many bytes. After [`Request::Watch`] the shim sends further [`Event`] lines until the container is gone.
//!
//! The daemon makes and listens on `shim.sock` before it starts the shim, and hands the listening socket over as the shim's standard input.
//! A shim whose standard input is not a listening socket (started by hand) makes the socket itself. Connections that wait when the shim
//! comes up are accepted, and their `attach` requests are answered, before the first process executes its program: a client that attached
//! before the start loses no byte, and the daemon's `watch` misses no exit.
//!
//! ```text
//! → {"kill":{"signal":15,"all":false}}
//! ← "done"
//! ```

use serde::{Deserialize, Serialize};

pub use crate::cgroup::Stats;
use crate::plan::{ProcessPlan, Resources, TerminalSize};

/// The longest line either side accepts, in bytes: room for an environment at the kernel's limit.
pub const LINE_BYTES_MAX: usize = 4 << 20;

/// The most bytes of the path of a plan that is handed to a waiting shim: with a root folder of 256 bytes there is room to spare. A longer
/// one is not handed over.
pub const SPARE_BYTES_MAX: usize = 400;

/// What a daemon sends back to [`Ready::Created`] when the network is there.
pub const GO_ON: u8 = b'\n';

/// What a daemon asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Answers [`Reply::State`], then sends [`Event`]s.
    Watch,
    /// Answers [`Reply::Stream`] and joins the first process's streams.
    Attach(Streams),
    /// Starts another process under the container's stored confinement. Answers [`Reply::Stream`] when it runs and `attach` asks for
    /// any stream, else [`Reply::Started`].
    Exec {
        /// Names the process in later requests and in events.
        exec_id: String,
        /// What is run.
        process: ProcessPlan,
        /// Another user than the container's (`--user`), as numbers.
        user: Option<ExecUser>,
        /// Which streams the connection carries.
        attach: Streams,
    },
    /// Changes the size of a terminal, the first process's where `exec_id` is absent.
    Resize {
        /// Whose terminal.
        exec_id: Option<String>,
        /// The new size.
        size: TerminalSize,
    },
    /// Sends a signal to the first process, or to every process.
    Kill {
        /// The signal's number.
        signal: i32,
        /// Whether every process of the container gets it.
        all: bool,
    },
    /// Sends a signal to a process that [`Request::Exec`] added.
    KillExec {
        /// Which.
        exec_id: String,
        /// The signal's number.
        signal: i32,
        /// Whether every process of its group gets it: what it started and did not put into a group of its own.
        all: bool,
    },
    /// Freezes every process.
    Pause,
    /// Thaws every process.
    Unpause,
    /// Changes limits; fields that are `None` stay as they are.
    Update(Resources),
    /// Tells the shim to answer with its state.
    State,
    /// Answers [`Reply::Top`].
    Top,
    /// Answers [`Reply::Stats`].
    Stats,
    /// Answers [`Reply::Network`].
    Network,
}

/// Which streams a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    /// The connection's bytes go to standard input.
    pub stdin: bool,
    /// Standard output comes back.
    pub stdout: bool,
    /// Standard error comes back.
    pub stderr: bool,
}

/// The user of an added process, as numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecUser {
    /// User id inside.
    pub uid: u32,
    /// Group id inside.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

/// What a shim answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It is done.
    Done,
    /// The state, for [`Request::State`] and [`Request::Watch`].
    State(State),
    /// The connection carries bytes from here on.
    Stream,
    /// The container's processes, for [`Request::Top`].
    Top(Vec<ProcessRow>),
    /// What the container uses, for [`Request::Stats`].
    Stats(Box<Stats>),
    /// The line carries a descriptor of the container's network namespace (`SCM_RIGHTS`), for [`Request::Network`].
    Network,
    /// A process without streams runs.
    Started {
        /// Its id on the host.
        pid: i32,
    },
    /// It was refused or failed.
    Failed {
        /// Whose fault it is.
        kind: FailureKind,
        /// The chain of causes, outermost first.
        message: String,
    },
}

/// Whose fault a failure is; decides the exit code (126, 127) and the HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The program does not exist in the container (127).
    CommandNotFound,
    /// The program cannot be executed (126).
    CommandNotExecutable,
    /// The request does not fit the state (paused, stopped, unknown exec id).
    Conflict,
    /// A confinement rule cannot be enforced here.
    Confinement,
    /// The runtime or the host failed (125).
    Runtime,
}

/// Where the container stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Its first process's id on the host.
    pub pid: i32,
    /// When that process started, in clock ticks since boot: with the id it names the process for good.
    #[serde(default)]
    pub start_time: u64,
    /// The shim's own id on the host; 0 where an earlier version does not tell it.
    #[serde(default)]
    pub supervisor: i32,
    /// Whether it is frozen.
    pub paused: bool,
    /// When the first process was started, RFC 3339.
    pub started_at: String,
}

/// What a shim reports by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A process added by [`Request::Exec`] ended.
    ExecExited {
        /// Which.
        exec_id: String,
        /// Its exit code, 128 + n after signal n.
        exit_code: i32,
    },
    /// The kernel killed a process at the memory limit.
    OomKilled,
    /// The first process ended; `exit.json` holds the same. The last event.
    Exited(Exit),
}

/// How a container ended; also the content of `exit.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code, 128 + n after signal n.
    pub exit_code: i32,
    /// When, RFC 3339.
    pub finished_at: String,
    /// Whether the kernel killed a process at the memory limit.
    pub oom_killed: bool,
    /// Why it never ran, where that is so: kind and chain of causes.
    pub start_error: Option<(FailureKind, String)>,
    /// Whether its shim ended before it: its processes were killed afterwards and the exit code is not theirs.
    #[serde(default)]
    pub lost: bool,
}

/// What the shim writes to its ready descriptor, a line each; it closes it after [`Ready::Ready`] or [`Ready::Failed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ready {
    /// The container is made, and its plan awaits a network: the line carries a descriptor of the container's network namespace
    /// (`SCM_RIGHTS`; the ready descriptor is a unix socket), and the first process executes nothing before [`GO_ON`] comes back. The end of the stream
    /// in its place undoes the container.
    Created,
    /// The first process executes its program. `receipt.json` in the container's folder holds what the kernel accepted.
    Ready {
        /// Its id on the host.
        pid: i32,
    },
    /// It does not run; `exit.json` holds the same.
    Failed {
        /// Whose fault it is.
        kind: FailureKind,
        /// The chain of causes, outermost first.
        message: String,
    },
}

/// One process of a container, read from `/proc`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRow {
    /// Its id on the host.
    pub pid: i32,
    /// Its parent's id on the host.
    pub parent_pid: i32,
    /// Its effective user on the host.
    pub uid: u32,
    /// State letter (proc_pid_stat(5)).
    pub state: char,
    /// Seconds since the epoch when it started.
    pub started_at_s: u64,
    /// Processor time used, in milliseconds.
    pub cpu_ms: u64,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// Controlling terminal, as its device number; 0 without one.
    pub terminal: u64,
    /// Arguments, or the name in brackets where it has none.
    pub command: String,
}
