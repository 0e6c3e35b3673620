//! The person's terminal: raw mode, its size.
//!
//! Owns the terminal's settings while a container uses it. Invariant: whoever changes them puts them back, on return, on failure, on a panic and on a
//! signal that ends the program (which the session turns into a return).

use std::io::IsTerminal as _;
use std::os::fd::AsFd as _;
use std::sync::Mutex;

use nix::sys::termios::{LocalFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// The settings to put back; `None` while the terminal is as it was found.
static FOUND: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal cannot be switched.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    /// There is none.
    #[error("the input device is not a terminal: leave out -t, or run from a terminal")]
    NotATerminal,
    /// Its settings cannot be changed.
    #[error("switching the terminal to raw mode")]
    Switch(#[source] nix::Error),
}

/// Whether standard input is a terminal.
pub fn is_input() -> bool {
    std::io::stdin().is_terminal()
}

/// Columns and rows, of whichever of output, input and error is a terminal.
pub fn size() -> Option<(u16, u16)> {
    let of = |fd: std::os::fd::BorrowedFd<'_>| {
        terminal_size::terminal_size_of(fd).map(|(width, height)| (width.0, height.0))
    };
    of(std::io::stdout().as_fd())
        .or_else(|| of(std::io::stdin().as_fd()))
        .or_else(|| of(std::io::stderr().as_fd()))
}

/// Rows and columns as the API wants them; zeroes where there is no terminal.
pub fn console_size() -> [u16; 2] {
    size().map_or([0, 0], |(width, height)| [height, width])
}

/// Raw mode, until it is dropped.
pub struct RawMode(());

impl RawMode {
    /// Switches standard input's terminal to raw mode.
    pub fn enter() -> Result<Self, TerminalError> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Err(TerminalError::NotATerminal);
        }
        let found = tcgetattr(&stdin).map_err(TerminalError::Switch)?;
        let mut raw = found.clone();
        cfmakeraw(&mut raw);
        *FOUND.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(found);
        let guard = Self(());
        tcsetattr(&stdin, SetArg::TCSADRAIN, &raw).map_err(TerminalError::Switch)?;
        Ok(guard)
    }
}

/// No echo, until it is dropped: for passwords.
pub struct Hidden(());

impl Hidden {
    /// Switches the echo of standard input's terminal off.
    pub fn enter() -> Result<Self, TerminalError> {
        let stdin = std::io::stdin();
        let found = tcgetattr(&stdin).map_err(TerminalError::Switch)?;
        let mut silent = found.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        *FOUND.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(found);
        let guard = Self(());
        tcsetattr(&stdin, SetArg::TCSADRAIN, &silent).map_err(TerminalError::Switch)?;
        Ok(guard)
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        restore();
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Puts the terminal back as it was found; harmless where nothing was changed.
pub fn restore() {
    let Ok(mut found) = FOUND.try_lock() else { return };
    if let Some(settings) = found.take() {
        // A terminal that is gone needs no settings.
        tcsetattr(std::io::stdin(), SetArg::TCSADRAIN, &settings).ok();
    }
}
