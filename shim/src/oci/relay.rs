//! Standing between the caller's streams and a container in the foreground.
//!
//! Owns receiving a terminal's master, copying both ways with the caller's own terminal raw, passing signals on, and the exit code.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use kakoi_sys::process::{pidfd_send_signal, wait_pidfd};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use serde_json::Value;

use super::Failed;

/// Columns and rows that a process document asks for.
pub(super) fn size_of(process: &Value) -> Option<(u16, u16)> {
    let number = |field: &str| {
        process["consoleSize"][field]
            .as_u64()
            .and_then(|n| u16::try_from(n).ok())
    };
    Some((number("width")?, number("height")?))
}

/// Takes the terminal's master that the container's first process sends.
pub(super) fn accept(listener: &UnixListener, size: Option<(u16, u16)>) -> Result<OwnedFd, Failed> {
    let (stream, _) = listener
        .accept()
        .map_err(|error| Failed::of("accept the terminal", &error))?;
    let mut bytes = [0_u8; 256];
    let (_, mut descriptors) = kakoi_sys::socket::receive_descriptors(stream.as_fd(), &mut bytes)
        .map_err(|error| Failed::of("receive the terminal", &error))?;
    let master = descriptors
        .pop()
        .ok_or_else(|| Failed::new("the container sent no terminal"))?;
    let inherited = kakoi_sys::terminal::size(std::io::stdin().as_fd()).ok();
    if let Some((columns, rows)) = size.or(inherited) {
        kakoi_sys::terminal::set_size(master.as_fd(), columns, rows)
            .map_err(|error| Failed::of("set the terminal's size", &error))?;
    }
    Ok(master)
}

/// Sends a terminal's master to whoever listens.
pub(super) fn hand_over(socket: &Path, master: BorrowedFd<'_>) -> Result<(), Failed> {
    let stream = UnixStream::connect(socket).map_err(|error| {
        Failed::of(
            &format!("connect to the console socket {}", socket.display()),
            &error,
        )
    })?;
    kakoi_sys::socket::send_descriptors(stream.as_fd(), b"/dev/console", &[master])
        .map(drop)
        .map_err(|error| Failed::of("send the terminal", &error))
}

/// Gives the caller's terminal its settings back.
struct Raw(Option<Termios>);

impl Raw {
    fn new() -> Self {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            cfmakeraw(&mut raw);
            if let Err(errno) = tcsetattr(&stdin, SetArg::TCSADRAIN, &raw) {
                complain!("kakoi-oci: cannot make the terminal raw: {errno}");
            }
        }
        Self(before)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0
            && let Err(errno) = tcsetattr(std::io::stdin(), SetArg::TCSADRAIN, before)
        {
            complain!("kakoi-oci: cannot restore the terminal: {errno}");
        }
    }
}

/// Signals that a person or an engine sends to the runtime and means for the container.
const PASSED: [Signal; 12] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGTERM,
    Signal::SIGCONT,
    Signal::SIGTSTP,
    Signal::SIGWINCH,
    Signal::SIGURG,
    Signal::SIGIO,
];

/// Holds signals back from now on, for [`wait`] to pass on: taken only after the app runs, one that comes in between would end the runtime
/// and leave the app alone. What becomes the app unblocks them.
pub(super) fn take_signals() -> Result<SignalFd, Failed> {
    kakoi_sys::event::signal_descriptor(&PASSED).map_err(|error| Failed::of("take signals", &error))
}

/// Waits for a child, and copies its terminal meanwhile. Returns its exit code.
pub(super) fn wait(pidfd: &OwnedFd, master: Option<&OwnedFd>, signals: &SignalFd) -> Result<u8, Failed> {
    let raw = master.map(|_| Raw::new());
    let code = attend(pidfd, master, signals);
    drop(raw);
    code
}

fn attend(pidfd: &OwnedFd, master: Option<&OwnedFd>, signals: &SignalFd) -> Result<u8, Failed> {
    let stdin = std::io::stdin();
    let (mut reading, mut showing) = (master.is_some(), master.is_some());
    loop {
        let mut waited = vec![
            PollFd::new(pidfd.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(master) = master {
            let wanted = |on: bool| if on { PollFlags::POLLIN } else { PollFlags::empty() };
            waited.push(PollFd::new(master.as_fd(), wanted(showing)));
            if reading {
                waited.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
            }
        }
        poll(&mut waited, PollTimeout::NONE).map_err(|errno| Failed::of("wait", &errno))?;
        let ready = |index: usize| waited.get(index).is_some_and(|fd| fd.any().unwrap_or(false));
        let (ended, signalled, output, input) = (ready(0), ready(1), ready(2), ready(3));
        if signalled {
            pass(signals, pidfd, master);
        }
        if let Some(master) = master {
            if output && showing {
                showing = copy(master.as_fd(), std::io::stdout().as_fd());
            }
            if input {
                reading = copy(stdin.as_fd(), master.as_fd());
            }
        }
        if ended {
            if let Some(master) = master {
                drain(master);
            }
            let status = wait_pidfd(pidfd.as_fd(), true)
                .map_err(|error| Failed::of("wait for the process", &error))?;
            let status = status.ok_or_else(|| Failed::new("the process did not end"))?;
            return Ok(u8::try_from(status).unwrap_or(u8::MAX));
        }
    }
}

/// What the terminal still holds when the last process has gone.
fn drain(master: &OwnedFd) {
    loop {
        let mut waited = [PollFd::new(master.as_fd(), PollFlags::POLLIN)];
        let more = poll(&mut waited, PollTimeout::ZERO).is_ok_and(|count| count > 0);
        let readable = waited[0]
            .revents()
            .is_some_and(|events| events.contains(PollFlags::POLLIN));
        if !more || !readable || !copy(master.as_fd(), std::io::stdout().as_fd()) {
            return;
        }
    }
}

/// Copies what is there; false at the end.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut buffer = [0_u8; 8192];
    let length = match nix::unistd::read(from.as_raw_fd(), &mut buffer) {
        Ok(0) => return false,
        Ok(length) => length,
        Err(nix::errno::Errno::EINTR | nix::errno::Errno::EAGAIN) => return true,
        // A terminal whose last user has gone answers EIO.
        Err(_) => return false,
    };
    let Ok(owned) = to.try_clone_to_owned() else {
        return false;
    };
    std::fs::File::from(owned).write_all(&buffer[..length]).is_ok()
}

fn pass(signals: &SignalFd, pidfd: &OwnedFd, master: Option<&OwnedFd>) {
    while let Ok(Some(signal)) = signals.read_signal() {
        let number = signal.ssi_signo as i32;
        if number == Signal::SIGWINCH as i32 {
            let size = kakoi_sys::terminal::size(std::io::stdin().as_fd());
            if let (Some(master), Ok((columns, rows))) = (master, size)
                && let Err(error) = kakoi_sys::terminal::set_size(master.as_fd(), columns, rows)
            {
                complain!("kakoi-oci: {error}");
            }
            continue;
        }
        if let Err(error) = pidfd_send_signal(pidfd.as_fd(), number)
            && error.errno != kakoi_sys::Errno::ESRCH
        {
            complain!("kakoi-oci: {error}");
        }
    }
}
