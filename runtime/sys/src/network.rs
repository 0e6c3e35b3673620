//! Network namespaces: the one setting that every container needs, and sockets in other namespaces.
//!
//! Owns the only way in which a thread of the daemon enters a namespace: for as long as it takes to open sockets there.

use std::mem::size_of_val;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::error::{CallError, Named, Result, checked};
use crate::namespace::{Kind, join};

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

/// Opens sockets in another network namespace: runs `open` in a fresh thread that has joined it and ends afterwards, so that no thread of the
/// caller is ever elsewhere. A socket stays in the namespace that it was made in. Needs CAP_SYS_ADMIN over the namespace and over the
/// caller's own user namespace.
pub fn open_within<T: Send>(netns: BorrowedFd<'_>, open: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, || join(netns, Kind::Net).map(|()| open()))
            .map_err(|_| CallError {
                call: "clone",
                errno: Errno::EAGAIN,
            })?;
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Makes a netlink socket's refusals carry the kernel's own words (NETLINK_EXT_ACK, since Linux 4.12) instead of the request.
pub fn explain_refusals(netlink: BorrowedFd<'_>) -> Result<()> {
    for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
        let on: libc::c_int = 1;
        // SAFETY: reads one integer, which outlives the call, and its size is given.
        let done = unsafe {
            libc::setsockopt(
                netlink.as_raw_fd(),
                libc::SOL_NETLINK,
                option,
                (&raw const on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
        checked("setsockopt(SOL_NETLINK)", libc::c_long::from(done))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn own_namespace() -> u64 {
        let link = std::fs::metadata("/proc/thread-self/ns/net").expect("a thread has a network namespace");
        link.ino()
    }

    #[test]
    fn only_the_fresh_thread_is_elsewhere() {
        if !nix::unistd::geteuid().is_root() {
            crate::required::leave_out("root", "network namespaces need root");
            return;
        }
        let (elsewhere, number) = std::thread::spawn(|| {
            crate::namespace::unshare(&[Kind::Net]).expect("root makes namespaces");
            let file = std::fs::File::open("/proc/thread-self/ns/net").expect("it is there");
            (file, own_namespace())
        })
        .join()
        .expect("no panic");
        let before = own_namespace();
        assert_eq!(open_within(elsewhere.as_fd(), own_namespace), Ok(number));
        assert_eq!(own_namespace(), before);
        assert_ne!(before, number);
    }

    #[test]
    fn what_is_no_network_namespace_is_refused() {
        let other = std::fs::File::open("/proc/thread-self/ns/uts").expect("it is there");
        let refused = open_within(other.as_fd(), || ()).expect_err("another kind");
        assert_eq!((refused.call, refused.errno), ("setns", Errno::EINVAL));
        let null = std::fs::File::open("/dev/null").expect("it is there");
        assert!(open_within(null.as_fd(), || ()).is_err());
    }
}
