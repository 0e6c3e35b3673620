//! Pseudo-terminals.
//!
//! Both ends are close-on-exec and no controlling terminal from birth. Inside a container the pair must come from the container's own
//! devpts, so that its `ttyname` works: [`open_pair_at`] takes the multiplexer.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use crate::error::{Result, checked, checked_fd};

/// Both ends of a pseudo-terminal.
#[derive(Debug)]
pub struct Pair {
    /// The supervisor's end.
    pub master: OwnedFd,
    /// The program's end.
    pub slave: OwnedFd,
}

/// Makes a pseudo-terminal from `/dev/ptmx` of the caller's mount namespace.
pub fn open_pair() -> Result<Pair> {
    open_pair_at("/dev/ptmx")
}

/// Makes a pseudo-terminal from the multiplexer `ptmx`. The other end is opened through the first one, by no path that the container
/// could have replaced (TIOCGPTPEER, since Linux 4.13).
pub fn open_pair_at(ptmx: &str) -> Result<Pair> {
    use crate::error::Named;
    let flags = nix::fcntl::OFlag::O_RDWR | nix::fcntl::OFlag::O_NOCTTY | nix::fcntl::OFlag::O_CLOEXEC;
    let master = nix::fcntl::open(ptmx, flags, nix::sys::stat::Mode::empty()).named("open(ptmx)")?;
    let master = checked_fd("open(ptmx)", libc::c_long::from(master))?;
    unlock(&master)?;
    let slave = peer(&master)?;
    Ok(Pair { master, slave })
}

/// Lets the other end be opened. On anything but a multiplexer of devpts it fails, which also unmasks a false `/dev/ptmx`.
fn unlock(master: &OwnedFd) -> Result<()> {
    let unlocked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int, which outlives the call.
    let done = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) };
    checked("ioctl(TIOCSPTLCK)", libc::c_long::from(done)).map(drop)
}

fn peer(master: &OwnedFd) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags as a plain number and returns a descriptor.
    let slave = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) };
    checked_fd("ioctl(TIOCGPTPEER)", libc::c_long::from(slave))
}

/// Sets the size of a terminal in characters; its foreground processes get SIGWINCH.
pub fn set_size(terminal: BorrowedFd<'_>, columns: u16, rows: u16) -> Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one winsize, which outlives the call.
    let done = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    checked("ioctl(TIOCSWINSZ)", libc::c_long::from(done)).map(drop)
}

/// Reads the size of a terminal: (columns, rows). Fails with `ENOTTY` on anything else.
pub fn size(terminal: BorrowedFd<'_>) -> Result<(u16, u16)> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes one winsize, which outlives the call.
    let done = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    checked("ioctl(TIOCGWINSZ)", libc::c_long::from(done))?;
    Ok((size.ws_col, size.ws_row))
}

/// Makes `terminal` the controlling terminal of the caller, who must lead a session without one (setsid(2) first).
pub fn set_controlling(terminal: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: TIOCSCTTY takes a plain number.
    let done = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) };
    checked("ioctl(TIOCSCTTY)", libc::c_long::from(done)).map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_pair_carries_bytes_and_its_size() {
        let pair = open_pair().expect("devpts is mounted");
        set_size(pair.master.as_fd(), 132, 43).expect("it is a terminal");
        assert_eq!(size(pair.slave.as_fd()), Ok((132, 43)));
        let (mut master, mut slave) = (std::fs::File::from(pair.master), std::fs::File::from(pair.slave));
        slave.write_all(b"x").expect("the master is open");
        let mut byte = [0];
        master.read_exact(&mut byte).expect("a byte was written");
        assert_eq!(&byte, b"x");
    }

    #[test]
    fn what_is_no_terminal_is_refused() {
        let file = std::fs::File::open("/dev/null").expect("it exists");
        assert_eq!(
            size(file.as_fd()).map_err(|e| e.errno),
            Err(nix::errno::Errno::ENOTTY)
        );
        assert!(open_pair_at("/dev/null").is_err());
    }
}
