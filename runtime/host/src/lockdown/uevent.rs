//! What the kernel tells when something is plugged in.
//!
//! A message is only a reason to look: what it says is not acted upon. So one that is forged costs a look, and one that is lost is made good by the next.
//! Source: lib/kobject_uevent.c; `add@/devices/…`, then `KEY=value`, each ended by a zero.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

/// The kernel's own group; the second is udev's.
const KERNEL: u32 = 1;
/// The longest message. Source: UEVENT_BUFFER_SIZE, and room for the path in front.
const MESSAGE_BYTES_MAX: usize = 8 << 10;

/// Kinds of devices that the lockdown is about.
const SUBSYSTEMS: [&str; 6] = ["usb", "block", "rfkill", "net", "tty", "tee"];

/// Whether a message tells of something that the lockdown is about.
pub fn concerns(message: &[u8]) -> bool {
    let mut words = message.split(|byte| *byte == 0);
    let is_one = words.next().is_some_and(|first| first.contains(&b'@'));
    is_one
        && words.any(|word| {
            let subsystem = word.strip_prefix(b"SUBSYSTEM=");
            subsystem.is_some_and(|name| SUBSYSTEMS.iter().any(|known| known.as_bytes() == name))
        })
}

/// The kernel's messages, from now on. They come in the first network namespace of a user namespace alone.
#[derive(Debug)]
pub struct Uevents(OwnedFd);

impl Uevents {
    /// Begins to listen. Needs no capability.
    pub fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL))?;
        Ok(Self(socket))
    }

    /// Waits until something that the lockdown is about came or went.
    pub fn wait(&self) -> io::Result<()> {
        let mut message = vec![0; MESSAGE_BYTES_MAX];
        loop {
            match recv(self.0.as_raw_fd(), &mut message, MsgFlags::empty()) {
                Ok(count) if concerns(&message[..count]) => return Ok(()),
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                // More came than the socket holds: what was missed may have been ours.
                Err(nix::errno::Errno::ENOBUFS) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_concerns_is_a_reason_to_look() {
        let message = |subsystem: &str| {
            format!("add@/devices/x\0ACTION=add\0DEVPATH=/devices/x\0SUBSYSTEM={subsystem}\0SEQNUM=1\0")
        };
        for (subsystem, is_reason) in [
            ("usb", true),
            ("rfkill", true),
            ("block", true),
            ("usbx", false),
            ("cpu", false),
        ] {
            assert_eq!(concerns(message(subsystem).as_bytes()), is_reason, "{subsystem}");
        }
        // udev's own begin otherwise, and belong to another group.
        assert!(!concerns(b"libudev\0SUBSYSTEM=usb\0"));
        assert!(!concerns(b""));
    }
}
