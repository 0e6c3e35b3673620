//! Descriptors sent over unix sockets (console sockets, seccomp listeners), and who is at the other end.
//!
//! Received descriptors are close-on-exec and owned from birth; a truncated control message is an error, never a silent loss.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use crate::error::{CallError, Named, Result, checked_fd};

/// Most descriptors one message may carry: the kernel's own limit (SCM_MAX_FD).
pub const DESCRIPTORS_MAX: usize = 253;

/// Bytes, in the kernel's own count, that were written to a unix socket and that its other side has not read yet; 0 when it has read all (unix(7),
/// SIOCOUTQ).
pub fn unread(socket: BorrowedFd<'_>) -> Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: the request writes one int, which outlives the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    Errno::result(done).named("ioctl")?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Sends bytes, at least one, and descriptors as one message.
pub fn send_descriptors(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<usize> {
    let raw: Vec<i32> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let controls: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(bytes)],
        controls,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )
    .named("sendmsg")
}

/// Receives one message: how many bytes came into `bytes` (0 at the end of the stream) and which descriptors.
pub fn receive_descriptors(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([i32; DESCRIPTORS_MAX]);
    let mut slices = [IoSliceMut::new(bytes)];
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )
    .named("recvmsg")?;
    let mut received = Vec::new();
    for control in message.cmsgs().named("recvmsg")? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            for fd in raw {
                received.push(checked_fd("recvmsg", libc::c_long::from(fd))?);
            }
        }
    }
    if message.flags.contains(MsgFlags::MSG_CTRUNC) {
        return Err(CallError {
            call: "recvmsg",
            errno: Errno::EMSGSIZE,
        });
    }
    Ok((message.bytes, received))
}

/// The process at the other end of a connected unix socket, when it connected: (process, user, group).
pub fn peer(socket: BorrowedFd<'_>) -> Result<(i32, u32, u32)> {
    let credentials = nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::PeerCredentials)
        .named("getsockopt(SO_PEERCRED)")?;
    Ok((credentials.pid(), credentials.uid(), credentials.gid()))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::descriptors::{Inheritance, inheritance};

    #[test]
    fn a_sent_descriptor_arrives_close_on_exec() {
        let (a, b) = UnixStream::pair().expect("socketpair works");
        let null = std::fs::File::open("/dev/null").expect("it exists");
        send_descriptors(a.as_fd(), b"t", &[null.as_fd()]).expect("the other end is open");
        let mut bytes = [0; 8];
        let (count, descriptors) = receive_descriptors(b.as_fd(), &mut bytes).expect("a message waits");
        assert_eq!((count, descriptors.len()), (1, 1));
        assert_eq!(
            inheritance(descriptors[0].as_raw_fd()),
            Ok(Inheritance::CloseOnExec)
        );
        drop(a);
        let end = receive_descriptors(b.as_fd(), &mut bytes).expect("the end of a stream is no error");
        assert_eq!((end.0, end.1.len()), (0, 0));
    }
}
