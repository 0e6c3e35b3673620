//! The kernel's watchdog devices.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::error::{Result, checked};

/// Asks a watchdog to restart the device when it is not fed for `seconds`; returns what it made of that, which may be another number
/// (WDIOC_SETTIMEOUT). Fails with ENOTTY on what is no watchdog, and with EOPNOTSUPP or EINVAL where the hardware's time is fixed or bounded.
pub fn set_timeout(device: BorrowedFd<'_>, seconds: i32) -> Result<i32> {
    let mut granted: libc::c_int = seconds;
    let request = nix::request_code_readwrite!(b'W', 6, size_of::<libc::c_int>());
    // SAFETY: WDIOC_SETTIMEOUT reads and writes one int, which outlives the call.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), request, &raw mut granted) };
    checked("ioctl(WDIOC_SETTIMEOUT)", libc::c_long::from(done))?;
    Ok(granted)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::errno::Errno;

    use super::set_timeout;

    #[test]
    fn what_is_no_watchdog_is_refused() {
        let null = std::fs::File::open("/dev/null").expect("it is there");
        let refused = set_timeout(null.as_fd(), 30).expect_err("no watchdog");
        assert_eq!(refused.errno, Errno::ENOTTY);
    }
}
