//! The one network setting that every container needs.

use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::error::{Named, Result, checked};

/// Brings the loopback interface of the caller's network namespace up; the kernel gives it its addresses. Needs CAP_NET_ADMIN over the
/// namespace. Source: netdevice(7).
pub fn raise_loopback() -> Result<()> {
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .named("socket")?;
    // SAFETY: ifreq is a structure of integers and a union of such, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, letter) in request.ifr_name.iter_mut().zip(*b"lo") {
        *place = letter as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: reads one ifreq, which outlives the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    checked("ioctl(SIOCSIFFLAGS)", libc::c_long::from(done)).map(drop)
}
