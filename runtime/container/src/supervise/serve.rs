//! The shim's loop: everything that can happen to a running container, one thing after another.
//!
//! Owns the set of processes and connections, and who hears what. Refuses to know how a container is made or a limit is set ([`Control`]).
//! Invariant: nothing in the loop blocks but poll(2); the program's output waits for a slow client at most
//! [`STALL_MAX`](super::connection::STALL_MAX).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::WaitPidFlag;

use super::connection::{Connection, Input, Role};
use super::control::{self, Control, Refusal};
use super::log::{Log, Stream};
use super::streams::{Output, ProcessStreams, frame_header};
use crate::frames::{Event, ExecUser, FailureKind, Reply, Request, State, Streams};
use crate::plan::ProcessPlan;

/// Connections served at once; the daemon needs one, and one for each attached client and exec session.
const CONNECTIONS_MAX: usize = 256;

/// Exec sessions that run at once.
const EXECS_MAX: usize = 128;

/// The first process's number.
const FIRST: u64 = 0;

/// How long the last bytes may take to clients after the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// How much one read takes: what a pipe holds.
const READ_BYTES: usize = 64 << 10;

/// One process whose parent is the shim.
#[derive(Debug)]
struct Process {
    number: u64,
    exec_id: Option<String>,
    pid: i32,
    streams: ProcessStreams,
    is_tty: bool,
    is_logged: bool,
    ends_with_client: bool,
}

/// What a descriptor of the poll set stands for.
#[derive(Clone, Copy, Debug)]
enum Source {
    Signals,
    Listener,
    Oom,
    Client(usize),
    Output(usize, Stream),
    Hungry(usize),
}

/// The loop's state.
pub(crate) struct Supervisor<'a> {
    control: Control<'a>,
    signals: SignalFd,
    listener: UnixListener,
    connections: Vec<Connection>,
    processes: Vec<Process>,
    log: Log,
    next_number: u64,
    started_at: String,
    is_paused: bool,
    is_oom_killed: bool,
    buffer: Box<[u8; READ_BYTES]>,
}

/// How the first process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) exit_code: i32,
    pub(crate) is_oom_killed: bool,
}

impl<'a> Supervisor<'a> {
    /// Takes over a container that is created and not yet started.
    pub(crate) fn new(
        control: Control<'a>,
        streams: ProcessStreams,
        listener: UnixListener,
        signals: SignalFd,
        log: Log,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let plan = &control.plan().process;
        let first = Process {
            number: FIRST,
            exec_id: None,
            pid: control.pid(),
            streams,
            is_tty: plan.tty,
            is_logged: true,
            ends_with_client: plan.stdin_once,
        };
        Ok(Self {
            control,
            signals,
            listener,
            connections: Vec::new(),
            processes: vec![first],
            log,
            next_number: FIRST + 1,
            started_at: String::new(),
            is_paused: false,
            is_oom_killed: false,
            buffer: Box::new([0; READ_BYTES]),
        })
    }

    /// Serves what clients sent before the start, so that one that attached early loses nothing.
    pub(crate) fn serve_waiting(&mut self) -> io::Result<()> {
        while self.turn(Some(Duration::ZERO))? {}
        Ok(())
    }

    /// What the loop asks things of.
    pub(crate) fn control(&mut self) -> &mut Control<'a> {
        &mut self.control
    }

    /// Serves until the first process has ended and its output is read.
    pub(crate) fn serve(&mut self, started_at: String) -> io::Result<Ended> {
        self.started_at = started_at;
        loop {
            if let Some(exit_code) = self.reap() {
                return Ok(self.end(exit_code));
            }
            // An exec session that ended takes its connection with it now, not with the next event.
            self.sweep();
            self.turn(self.patience())?;
        }
    }

    /// Tells watchers, sends what still waits and closes every connection.
    pub(crate) fn say_farewell(&mut self, event: Option<&Event>) -> io::Result<()> {
        if let Some(event) = event {
            self.broadcast(event);
        }
        let deadline = Instant::now() + FAREWELL;
        for connection in &mut self.connections {
            connection.role = Role::Leaving;
        }
        loop {
            self.sweep();
            let left = deadline.saturating_duration_since(Instant::now());
            if self.connections.is_empty() || left.is_zero() {
                return Ok(());
            }
            self.turn(Some(left))?;
        }
    }

    /// Waits for one round of events and handles them; tells whether there were any.
    fn turn(&mut self, patience: Option<Duration>) -> io::Result<bool> {
        let mut sources = Vec::with_capacity(8);
        let mut set = Vec::with_capacity(8);
        self.fill(&mut set, &mut sources);
        let timeout = match patience {
            None => PollTimeout::NONE,
            Some(wait) => PollTimeout::try_from(wait.as_millis() + u128::from(!wait.is_zero()))
                .unwrap_or(PollTimeout::MAX),
        };
        match poll(&mut set, timeout) {
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
        let ready: Vec<(Source, PollFlags)> = std::iter::zip(sources, &set)
            .filter_map(|(source, fd)| {
                fd.revents()
                    .filter(|flags| !flags.is_empty())
                    .map(|flags| (source, flags))
            })
            .collect();
        drop(set);
        let happened = !ready.is_empty();
        for (source, flags) in ready {
            self.handle(source, flags);
        }
        self.drop_stalled();
        self.sweep();
        Ok(happened)
    }

    fn fill<'s>(&'s self, set: &mut Vec<PollFd<'s>>, sources: &mut Vec<Source>) {
        let mut add = |fd: BorrowedFd<'s>, flags: PollFlags, source: Source| {
            set.push(PollFd::new(fd, flags));
            sources.push(source);
        };
        add(self.signals.as_fd(), PollFlags::POLLIN, Source::Signals);
        if self.connections.len() < CONNECTIONS_MAX {
            add(self.listener.as_fd(), PollFlags::POLLIN, Source::Listener);
        }
        if let Some(fd) = self.control.oom_descriptor() {
            add(fd, PollFlags::POLLIN | PollFlags::POLLPRI, Source::Oom);
        }
        for (index, connection) in self.connections.iter().enumerate() {
            let mut flags = PollFlags::empty();
            if self.wants_input(connection) {
                flags |= PollFlags::POLLIN;
            }
            if connection.pending() > 0 {
                flags |= PollFlags::POLLOUT;
            }
            // poll(2) reports a hang-up that nobody can act on again and again.
            if connection.is_hung_up && flags.is_empty() {
                continue;
            }
            add(connection.as_fd(), flags, Source::Client(index));
        }
        for (index, process) in self.processes.iter().enumerate() {
            if let Some(fd) = process.streams.hungry() {
                add(fd, PollFlags::POLLOUT, Source::Hungry(index));
            }
            if self.has_full_client(process.number) {
                continue;
            }
            for stream in [Stream::Stdout, Stream::Stderr] {
                if let Some(fd) = process.streams.source(stream) {
                    add(fd, PollFlags::POLLIN, Source::Output(index, stream));
                }
            }
        }
    }

    fn wants_input(&self, connection: &Connection) -> bool {
        match &connection.role {
            Role::Asking => true,
            Role::Watching => !connection.is_input_closed,
            Role::Streaming { process, streams, .. } => {
                let process = self.processes.iter().find(|other| other.number == *process);
                let takes = !streams.stdin
                    || process.is_none_or(|p| p.streams.takes_input() || p.streams.refuses_input());
                !connection.is_input_closed && takes
            }
            Role::Leaving => false,
        }
    }

    fn has_full_client(&self, number: u64) -> bool {
        self.connections.iter().any(|connection| {
            connection.is_full()
                && matches!(connection.role, Role::Streaming { process, .. } if process == number)
        })
    }

    /// How long the loop may sleep: until the first client that blocks a program has to be dropped.
    fn patience(&self) -> Option<Duration> {
        let full = self.connections.iter().filter(|connection| connection.is_full());
        let deadline = full.filter_map(Connection::deadline).min()?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    fn drop_stalled(&mut self) {
        let now = Instant::now();
        for connection in &mut self.connections {
            if connection.is_overdue(now) {
                tracing::warn!("dropping a client that does not read its output");
                connection.is_broken = true;
            }
        }
    }

    fn handle(&mut self, source: Source, flags: PollFlags) {
        match source {
            Source::Signals => self.take_signals(),
            Source::Listener => self.accept(),
            Source::Oom => {
                if self.control.has_oom_kill() {
                    self.note_oom();
                }
            }
            Source::Client(index) => self.serve_client(index, flags),
            Source::Output(index, stream) => {
                self.copy_output(index, stream);
            }
            Source::Hungry(index) => self.processes[index].streams.flush_input(),
        }
    }

    /// SIGCHLD only wakes the loop. A request to end that the host sends to the shim is the container's to hear.
    fn take_signals(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let number = info.ssi_signo.cast_signed();
            if number != Signal::SIGCHLD as i32
                && let Err(refusal) = self.control.signal(Signal::SIGTERM as i32, false)
            {
                tracing::warn!(message = %refusal.message, "ignoring that a signal could not be passed on");
            }
        }
    }

    fn note_oom(&mut self) {
        if !self.is_oom_killed {
            self.is_oom_killed = true;
            self.broadcast(&Event::OomKilled);
        }
    }

    fn accept(&mut self) {
        while self.connections.len() < CONNECTIONS_MAX {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::warn!(%error, "ignoring a connection that could not be accepted");
                    return;
                }
            };
            // The socket's mode keeps others out already; the peer's identity holds where the folder was opened up by hand.
            let own = nix::unistd::geteuid().as_raw();
            match kakoi_sys::socket::peer(stream.as_fd()) {
                Ok((_, uid, _)) if uid == own || uid == 0 => {}
                Ok(_) | Err(_) => continue,
            }
            match Connection::new(stream) {
                Ok(connection) => {
                    self.connections.push(connection);
                    self.serve_client(self.connections.len() - 1, PollFlags::POLLIN);
                }
                Err(error) => tracing::warn!(%error, "ignoring a connection that could not be set up"),
            }
        }
    }

    fn serve_client(&mut self, index: usize, flags: PollFlags) {
        if flags.contains(PollFlags::POLLOUT) {
            self.connections[index].flush();
        }
        let connection = &mut self.connections[index];
        match connection.role {
            Role::Asking => match connection.read_line(&mut self.buffer[..]) {
                Input::Nothing => {}
                Input::Line(line) => self.answer(index, &line),
                Input::TooLong => self.refuse(index, FailureKind::Runtime, "the request is too long".into()),
                Input::Closed => connection.is_broken = true,
            },
            Role::Streaming { process, streams, .. } => self.take_input(index, process, streams),
            Role::Watching | Role::Leaving => {
                if flags.intersects(PollFlags::POLLIN)
                    && connection.read_stream(&mut self.buffer[..]).is_none()
                    && connection.is_input_closed
                {
                    // A watcher has nothing to say; its end of input is its end.
                    connection.is_broken = true;
                }
            }
        }
        let connection = &mut self.connections[index];
        if flags.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
            connection.is_hung_up = true;
            // Input that was sent before the client left still goes to the process.
            let may_have_input = matches!(connection.role, Role::Streaming { streams, .. } if streams.stdin)
                && !connection.is_input_closed;
            connection.is_broken |= !may_have_input;
        }
    }

    fn take_input(&mut self, index: usize, number: u64, streams: Streams) {
        let connection = &mut self.connections[index];
        let process = self.processes.iter_mut().find(|process| process.number == number);
        match process {
            Some(process) if streams.stdin => {
                while process.streams.takes_input() {
                    match connection.read_stream(&mut self.buffer[..]) {
                        Some(bytes) => process.streams.feed(&bytes),
                        None => break,
                    }
                }
                // A process that closed its input must not keep its client's connection from being noticed as closed.
                if process.streams.refuses_input() {
                    connection.read_stream(&mut self.buffer[..]);
                }
                if connection.is_input_closed && process.ends_with_client {
                    process.streams.end_input();
                }
            }
            _ => drop(connection.read_stream(&mut self.buffer[..])),
        }
    }

    /// Removes connections that are done or broken, with what their leaving means.
    fn sweep(&mut self) {
        let mut index = 0;
        while index < self.connections.len() {
            let connection = &self.connections[index];
            let is_done = connection.role == Role::Leaving && connection.pending() == 0;
            if !connection.is_broken && !is_done {
                index += 1;
                continue;
            }
            let connection = self.connections.swap_remove(index);
            if let Role::Streaming { process, streams, .. } = connection.role
                && streams.stdin
                && let Some(process) = self.processes.iter_mut().find(|other| other.number == process)
                && process.ends_with_client
            {
                process.streams.end_input();
            }
        }
    }

    /// Reads once from a process and passes it on; tells whether there was something.
    fn copy_output(&mut self, index: usize, stream: Stream) -> bool {
        let process = &mut self.processes[index];
        let count = match process.streams.read(stream, &mut self.buffer[..]) {
            Output::Bytes(count) => count,
            Output::Nothing | Output::End => return false,
        };
        let bytes = &self.buffer[..count];
        if process.is_logged {
            self.log.take(stream, bytes, &super::clock::now());
        }
        for connection in &mut self.connections {
            let Role::Streaming {
                process: number,
                streams,
                framed,
            } = connection.role
            else {
                continue;
            };
            let is_wanted = match stream {
                Stream::Stdout => streams.stdout,
                Stream::Stderr => streams.stderr,
            };
            if number != process.number || !is_wanted {
                continue;
            }
            if framed {
                connection.send(&frame_header(stream, count));
            }
            connection.send(bytes);
        }
        true
    }

    fn broadcast(&mut self, event: &Event) {
        let line = to_line(event);
        for connection in &mut self.connections {
            if connection.role == Role::Watching {
                connection.send(&line);
                if connection.is_full() {
                    connection.is_broken = true;
                }
            }
        }
    }

    /// Collects ended children; answers the first process's exit code when it is among them.
    fn reap(&mut self) -> Option<i32> {
        let mut first = None;
        loop {
            let flags = WaitPidFlag::WNOHANG | WaitPidFlag::__WALL;
            let Ok(Some((pid, exit_code))) = kakoi_sys::process::reap(None, flags) else {
                return first;
            };
            match self
                .processes
                .iter()
                .position(|process| process.pid == pid.as_raw())
            {
                Some(index) if self.processes[index].number == FIRST => first = Some(exit_code),
                Some(index) => self.end_exec(index, exit_code),
                // A zombie that was inherited as subreaper: reaping it is all it needs.
                None => {}
            }
        }
    }

    fn end_exec(&mut self, index: usize, exit_code: i32) {
        self.drain(index);
        let process = self.processes.swap_remove(index);
        let exec_id = process.exec_id.unwrap_or_default();
        self.broadcast(&Event::ExecExited { exec_id, exit_code });
        for connection in &mut self.connections {
            if matches!(connection.role, Role::Streaming { process: number, .. } if number == process.number)
            {
                connection.role = Role::Leaving;
            }
        }
    }

    /// Reads what an ended process left. Others may still hold its ends and write on, so the amount is bounded by what pipes hold.
    fn drain(&mut self, index: usize) {
        const ROUNDS_MAX: usize = (1 << 20) / READ_BYTES;
        for stream in [Stream::Stdout, Stream::Stderr] {
            for _ in 0..ROUNDS_MAX {
                if !self.copy_output(index, stream) {
                    break;
                }
            }
        }
        self.processes[index].streams.close();
    }

    fn end(&mut self, exit_code: i32) -> Ended {
        // Without a pid namespace of its own the container's other processes outlive the first one.
        self.control.kill_all();
        while self.processes.len() > 1 {
            let index = self.processes.len() - 1;
            let pid = nix::unistd::Pid::from_raw(self.processes[index].pid);
            let code = match kakoi_sys::process::reap(Some(pid), WaitPidFlag::empty()) {
                Ok(Some((_, code))) => code,
                Ok(None) | Err(_) => 137,
            };
            self.end_exec(index, code);
        }
        self.drain(0);
        self.log.flush(&super::clock::now());
        if self.control.has_oom_kill() {
            self.note_oom();
        }
        Ended {
            exit_code,
            is_oom_killed: self.is_oom_killed,
        }
    }

    fn refuse(&mut self, index: usize, kind: FailureKind, message: String) {
        let connection = &mut self.connections[index];
        connection.role = Role::Leaving;
        connection.send(&to_line(&Reply::Failed { kind, message }));
    }

    fn reply(&mut self, index: usize, role: Role, reply: &Reply) {
        let connection = &mut self.connections[index];
        connection.role = role;
        connection.send(&to_line(reply));
    }

    fn answer(&mut self, index: usize, line: &[u8]) {
        let request = match serde_json::from_slice::<Request>(line) {
            Ok(request) => request,
            Err(error) => {
                return self.refuse(
                    index,
                    FailureKind::Runtime,
                    format!("the request cannot be read: {error}"),
                );
            }
        };
        match request {
            Request::Watch => {
                let state = Reply::State(self.state());
                self.reply(index, Role::Watching, &state);
            }
            Request::State => {
                let state = Reply::State(self.state());
                self.reply(index, Role::Leaving, &state);
            }
            Request::Attach(streams) => self.attach(index, FIRST, streams),
            Request::Network => {
                if let Err(refusal) = self.hand_out_network(index) {
                    self.refuse(index, refusal.kind, refusal.message);
                }
            }
            Request::Exec {
                exec_id,
                process,
                user,
                attach,
            } => {
                if let Err(refusal) = self.exec(index, exec_id, &process, user, attach) {
                    self.refuse(index, refusal.kind, refusal.message);
                }
            }
            other => {
                let outcome = self.change(other);
                match outcome {
                    Ok(reply) => self.reply(index, Role::Leaving, &reply),
                    Err(refusal) => self.refuse(index, refusal.kind, refusal.message),
                }
            }
        }
    }

    fn hand_out_network(&mut self, index: usize) -> Result<(), Refusal> {
        let network = self.control.network()?;
        let connection = &mut self.connections[index];
        connection.role = Role::Leaving;
        // Nothing has been sent on this connection yet: the line fits.
        kakoi_sys::socket::send_descriptors(connection.as_fd(), &to_line(&Reply::Network), &[network.as_fd()])
            .map(drop)
            .map_err(|error| Refusal::runtime("hand out the container's network namespace", &error))
    }

    fn state(&self) -> State {
        State {
            pid: self.control.pid(),
            start_time: self.control.start_time(),
            supervisor: nix::unistd::getpid().as_raw(),
            paused: self.is_paused,
            started_at: self.started_at.clone(),
        }
    }

    fn attach(&mut self, index: usize, number: u64, streams: Streams) {
        let process = self.processes.iter().find(|process| process.number == number);
        let framed = process.is_some_and(|process| !process.is_tty);
        let role = Role::Streaming {
            process: number,
            streams,
            framed,
        };
        self.reply(index, role, &Reply::Stream);
        if self.connections[index].has_input() {
            self.take_input(index, number, streams);
        }
    }

    fn exec(
        &mut self,
        index: usize,
        exec_id: String,
        plan: &ProcessPlan,
        user: Option<ExecUser>,
        attach: Streams,
    ) -> Result<(), Refusal> {
        if self.is_paused {
            return Err(Refusal::conflict("the container is paused; unpause it first"));
        }
        if self.started_at.is_empty() {
            return Err(Refusal::conflict("the container has not started"));
        }
        if self.processes.len() > EXECS_MAX {
            return Err(Refusal::conflict("too many exec sessions run in this container"));
        }
        if self
            .processes
            .iter()
            .any(|process| process.exec_id.as_deref() == Some(exec_id.as_str()))
        {
            return Err(Refusal::conflict("an exec session of this id runs already"));
        }
        let (pid, ends) = self.control.exec(plan, user, attach)?;
        let streams =
            ProcessStreams::new(ends).map_err(|error| Refusal::runtime("set up streams", &error))?;
        let number = self.next_number;
        self.next_number += 1;
        let exec_id = Some(exec_id);
        let is_tty = plan.tty;
        self.processes.push(Process {
            number,
            exec_id,
            pid,
            streams,
            is_tty,
            is_logged: false,
            ends_with_client: true,
        });
        if attach.stdin || attach.stdout || attach.stderr {
            self.attach(index, number, attach);
        } else {
            self.reply(index, Role::Leaving, &Reply::Started { pid });
        }
        Ok(())
    }

    fn change(&mut self, request: Request) -> Result<Reply, Refusal> {
        match request {
            Request::Resize { exec_id, size } => {
                let process = self.processes.iter().find(|process| process.exec_id == exec_id);
                let process = process.ok_or_else(|| Refusal::conflict("no such exec session runs"))?;
                // Docker's clients resize whatever runs; without a terminal there is nothing to do.
                if let Some(terminal) = process.streams.terminal() {
                    kakoi_sys::terminal::set_size(terminal, size.width, size.height)
                        .map_err(|error| Refusal::runtime("resize the terminal", &error))?;
                }
            }
            Request::Kill { signal, all } => self.control.signal(signal, all)?,
            Request::KillExec { exec_id, signal, all } => {
                let exec_id = Some(exec_id);
                let process = self.processes.iter().find(|process| process.exec_id == exec_id);
                let process = process.ok_or_else(|| Refusal::conflict("no such exec session runs"))?;
                control::signal_child(process.pid, signal, all)?;
            }
            Request::Pause => {
                if self.is_paused {
                    return Err(Refusal::conflict("the container is paused already"));
                }
                self.control.freeze()?;
                self.is_paused = true;
            }
            Request::Unpause => {
                if !self.is_paused {
                    return Err(Refusal::conflict("the container is not paused"));
                }
                self.control.thaw()?;
                self.is_paused = false;
            }
            Request::Update(resources) => self.control.update(&resources)?,
            Request::Top => return Ok(Reply::Top(self.control.top()?)),
            Request::Stats => return Ok(Reply::Stats(Box::new(self.control.stats()?))),
            Request::Watch
            | Request::State
            | Request::Attach(_)
            | Request::Exec { .. }
            | Request::Network => {
                unreachable!("answered before")
            }
        }
        Ok(Reply::Done)
    }
}

fn to_line<T: serde::Serialize>(value: &T) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("frames have no map with foreign keys");
    line.push(b'\n');
    line
}
