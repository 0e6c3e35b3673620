//! Records of refused system calls, as the kernel multicasts them.
//!
//! A filter that was loaded with logging makes the kernel write a record of type 1326 for every call it refuses; the multicast group
//! for readers (since Linux 3.16) delivers it without an audit daemon and without auditing being enabled. Needs CAP_AUDIT_READ in the
//! first user namespace. The kernel drops records that nobody reads in time: they are hints for people, not a ledger.
//!
//! ```text
//! audit(1763974800.123:45): auid=4294967295 uid=0 gid=0 ses=4294967295 pid=77 comm="sh" exe="/bin/busybox" sig=0 arch=c000003e syscall=165 compat=0 ip=0x4d code=0x50001
//! ```

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

use crate::error::{CallError, Named, Result};

/// AUDIT_SECCOMP.
const TYPE_SECCOMP: u16 = 1326;

/// AUDIT_NLGRP_READLOG, as a mask.
const GROUP_READ_LOG: u32 = 1;

/// A record is at most AUDIT_MESSAGE_TEXT_MAX (8560) bytes behind a header of 16.
const RECORD_BYTES_MAX: usize = 8560 + HEADER_BYTES;

const HEADER_BYTES: usize = 16;

/// A socket that receives records.
#[derive(Debug)]
pub struct Reader {
    socket: OwnedFd,
}

/// What a reader hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A system call was refused.
    Refusal(Refusal),
    /// Records were dropped, because they were not read in time.
    Lost,
}

/// One refused system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The process, as the first pid namespace numbers it.
    pub pid: i32,
    /// The thread's name: whatever the process says.
    pub name: String,
    /// `AUDIT_ARCH_*` of the entry point.
    pub arch: u32,
    /// The call's number.
    pub syscall: i64,
    /// The filter's answer (`SECCOMP_RET_*` with its data).
    pub action: u32,
}

/// Whether records can be read here. Opens a socket and sends nothing.
pub fn is_available() -> bool {
    Reader::open().is_ok()
}

fn open() -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    socket(
        AddressFamily::Netlink,
        SockType::Raw,
        flags,
        SockProtocol::NetlinkAudit,
    )
    .named("socket(NETLINK_AUDIT)")
}

impl Reader {
    /// Joins the readers' group; close-on-exec.
    pub fn open() -> Result<Self> {
        let socket = open()?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUP_READ_LOG)).named("bind(NETLINK_AUDIT)")?;
        Ok(Self { socket })
    }

    /// Waits for what comes next. Other records are passed over.
    pub fn next(&self) -> Result<Heard> {
        let mut bytes = [0; RECORD_BYTES_MAX];
        loop {
            match recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
                Ok(count) => {
                    if let Some(refusal) = parse_message(&bytes[..count]) {
                        return Ok(Heard::Refusal(refusal));
                    }
                }
                Err(Errno::ENOBUFS) => return Ok(Heard::Lost),
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    return Err(CallError {
                        call: "recv(NETLINK_AUDIT)",
                        errno,
                    });
                }
            }
        }
    }
}

/// Reads one netlink message: a header of length, type, flags, sequence and port, then text. Multicast records give a length that leaves
/// the header out, so the length is not used.
fn parse_message(bytes: &[u8]) -> Option<Refusal> {
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    if kind != TYPE_SECCOMP {
        return None;
    }
    let text = std::str::from_utf8(bytes.get(HEADER_BYTES..)?).ok()?;
    parse_refusal(text.trim_end_matches('\0'))
}

/// The kernel writes a process's name in quotes, or in hex where it holds anything but plain characters, so no name can forge a field.
fn parse_refusal(text: &str) -> Option<Refusal> {
    let field = |name: &str| {
        text.split(' ')
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    };
    let hex = |text: &str| u32::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    Some(Refusal {
        pid: field("pid")?.parse().ok()?,
        name: parse_name(field("comm")?),
        arch: hex(field("arch")?)?,
        syscall: field("syscall")?.parse().ok()?,
        action: hex(field("code")?)?,
    })
}

fn parse_name(text: &str) -> String {
    if let Some(plain) = text.strip_prefix('"') {
        return plain.trim_end_matches('"').to_owned();
    }
    let byte = |pair: &[u8]| {
        std::str::from_utf8(pair)
            .ok()
            .and_then(|pair| u8::from_str_radix(pair, 16).ok())
    };
    match text.as_bytes().chunks(2).map(byte).collect::<Option<Vec<u8>>>() {
        Some(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "audit(1763974800.123:45): auid=4294967295 uid=0 gid=0 ses=4294967295 pid=77 comm=\"sh\" exe=\"/bin/busybox\" sig=0 arch=c000003e syscall=165 compat=0 ip=0x4d code=0x50001";

    fn message(kind: u16, text: &str) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }

    #[test]
    fn the_drawn_record_is_read() {
        let refusal = parse_message(&message(TYPE_SECCOMP, EXAMPLE)).expect("it is the example");
        let wanted = Refusal {
            pid: 77,
            name: "sh".into(),
            arch: 0xc000_003e,
            syscall: 165,
            action: 0x0005_0001,
        };
        assert_eq!(refusal, wanted);
    }

    #[test]
    fn a_hostile_name_forges_no_field_and_other_records_are_passed_over() {
        // The kernel writes `a pid=1` in hex.
        let hostile = EXAMPLE.replace("\"sh\"", "61207069643D31");
        let refusal = parse_message(&message(TYPE_SECCOMP, &hostile)).expect("it is well formed");
        assert_eq!((refusal.pid, refusal.name.as_str()), (77, "a pid=1"));
        assert_eq!(parse_message(&message(1300, EXAMPLE)), None);
        assert_eq!(parse_message(&message(TYPE_SECCOMP, "audit(1): pid=x")), None);
        assert_eq!(parse_message(&[0; 3]), None);
    }
}
