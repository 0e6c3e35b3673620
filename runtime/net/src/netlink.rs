//! Netlink: messages made of attributes, and the sockets that carry them.
//!
//! Owns the encoding that routing, packet filter and connection tracking share. Knows none of their messages. What the kernel sends is
//! read with every length looked at, so that a message of a newer kernel is at worst refused.
//!
//! ```text
//! message    length u32 · kind u16 · flags u16 · sequence u32 · port u32 · body        padded to 4
//! attribute  length u16 · kind u16 (0x8000: holds attributes) · value                 padded to 4
//! ```

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Mutex;

use kakoi_sys::{CallError, Errno};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname, recvfrom,
    sendmsg, setsockopt, socket, sockopt,
};

const HEADER_BYTES: usize = 16;
const NESTED: u16 = 0x8000;
/// Two of the three bits that are no part of an attribute's kind: nested, and network byte order.
const KIND_MASK: u16 = 0x3fff;

/// What one recv takes: the kernel fills dumps up to 32 KiB at a time.
pub(crate) const RECEIVE_BYTES: usize = 65_536;

/// Room for the acknowledgements and notifications of a large transaction.
const BUFFER_BYTES: usize = 4 << 20;

/// What went wrong between the kernel and us.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetlinkError {
    /// The socket itself.
    #[error("the netlink socket failed")]
    Socket(#[from] CallError),
    /// The kernel refused the request.
    #[error("the kernel refused{}{said}", if said.is_empty() { "" } else { ": " })]
    Refused {
        /// Why.
        #[source]
        errno: Errno,
        /// The kernel's own words, where it has some.
        said: String,
    },
    /// An answer that breaks the format.
    #[error("the kernel's answer is malformed")]
    Malformed,
}

impl NetlinkError {
    /// The kernel's reason, if it refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Socket(error) => Some(error.errno),
            Self::Malformed => None,
        }
    }
}

pub(crate) type Result<T> = std::result::Result<T, NetlinkError>;

/// A message in the making.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A request with the fixed part of its body.
    pub fn new(kind: u16, flags: i32, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags as u16 | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        let mut message = Self { bytes };
        message.raw(fixed);
        message
    }

    /// Bytes that are no attribute.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// One attribute. A value is shorter than 64 KiB: the callers' values are names, addresses and numbers.
    pub fn put(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(value.len() + 4).expect("a value is shorter than 64 KiB");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    /// A string with the final zero that the kernel expects.
    pub fn put_str(&mut self, kind: u16, text: &str) -> &mut Self {
        let mut value = text.as_bytes().to_vec();
        value.push(0);
        self.put(kind, &value)
    }

    /// A number in the machine's order.
    pub fn put_u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// A number in network order.
    pub fn put_be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// An attribute that holds attributes.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).expect("callers keep below NEST_BYTES_MAX");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes[start + 2..start + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
        self
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    fn pad(&mut self) {
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, 0);
    }

    fn wants_ack(&mut self, wants: bool) {
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]);
        let ack = libc::NLM_F_ACK as u16;
        let flags = if wants { flags | ack } else { flags & !ack };
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    }

    pub fn finish(mut self, sequence: u32, port: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).expect("a message is shorter than 4 GiB");
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes[12..16].copy_from_slice(&port.to_ne_bytes());
        self.bytes
    }
}

/// A message that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    /// Who asked for it: 0 is the kernel itself.
    pub port: u32,
    pub body: &'a [u8],
}

/// The messages of one datagram.
pub(crate) struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Received<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.0);
        let Some((header, length)) = bytes.get(..HEADER_BYTES).and_then(|header| {
            let length = u32_at(header, 0)? as usize;
            (length >= HEADER_BYTES && length <= bytes.len()).then_some((header, length))
        }) else {
            return Some(Err(NetlinkError::Malformed));
        };
        self.0 = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        Some(Ok(Received {
            kind: half(4),
            flags: half(6),
            sequence: u32_at(header, 8)?,
            port: u32_at(header, 12)?,
            body: &bytes[HEADER_BYTES..length],
        }))
    }
}

/// Attributes of a body: (kind, value). What is cut off ends the list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.0);
        let half = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let length = usize::from(half(0)?);
        let kind = half(2)? & KIND_MASK;
        let value = bytes.get(4..length)?;
        self.0 = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

impl<'a> Attributes<'a> {
    /// The value of the first attribute of a kind.
    pub fn find(mut self, kind: u16) -> Option<&'a [u8]> {
        self.by_ref()
            .find(|(found, _)| *found == kind)
            .map(|(_, value)| value)
    }

    /// A string without its final zero.
    pub fn find_str(self, kind: u16) -> Option<&'a str> {
        let value = self.find(kind)?;
        std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()
    }

    /// A number in the machine's order.
    pub fn find_u32(self, kind: u16) -> Option<u32> {
        u32_at(self.find(kind)?, 0)
    }
}

/// A number in the machine's order.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(
        bytes.get(at..at.checked_add(4)?)?.try_into().ok()?,
    ))
}

/// A netlink socket in the network namespace that its thread was in. One exchange at a time.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    port: u32,
    /// The last sequence number; held during an exchange.
    sequence: Mutex<u32>,
}

impl Socket {
    /// Opens one that hears the multicast groups of a mask.
    pub fn open(protocol: SockProtocol, groups: u32) -> Result<Self> {
        let named = |call: &'static str| move |errno| CallError { call, errno };
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )
        .map_err(named("socket(AF_NETLINK)"))?;
        kakoi_sys::network::explain_refusals(fd.as_fd())?;
        // Beyond the system's limit where we may; a smaller buffer serves too.
        if setsockopt(&fd, sockopt::RcvBufForce, &BUFFER_BYTES).is_err() {
            setsockopt(&fd, sockopt::RcvBuf, &BUFFER_BYTES).map_err(named("setsockopt(SO_RCVBUF)"))?;
        }
        if setsockopt(&fd, sockopt::SndBufForce, &BUFFER_BYTES).is_err() {
            setsockopt(&fd, sockopt::SndBuf, &BUFFER_BYTES).map_err(named("setsockopt(SO_SNDBUF)"))?;
        }
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups)).map_err(named("bind"))?;
        let address: NetlinkAddr = getsockname(fd.as_raw_fd()).map_err(named("getsockname"))?;
        Ok(Self {
            fd,
            port: address.pid(),
            sequence: Mutex::new(0),
        })
    }

    /// What the kernel knows this socket by.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Sends requests in one go, each to be done by itself, and waits for all of them. The first refusal is the error; later requests
    /// were tried nevertheless.
    pub fn request(&self, messages: Vec<Message>) -> Result<()> {
        let mut sequence = self.sequence.lock().unwrap_or_else(|held| held.into_inner());
        let first = sequence.wrapping_add(1);
        let count = messages.len() as u32;
        let mut bytes = Vec::new();
        for (at, mut message) in messages.into_iter().enumerate() {
            message.wants_ack(true);
            bytes.extend(message.finish(first.wrapping_add(at as u32), self.port));
        }
        *sequence = sequence.wrapping_add(count);
        self.send(&bytes)?;
        let (mut open, mut refused) = (count, None);
        while open > 0 {
            self.receive(|received| {
                if received.sequence.wrapping_sub(first) < count && received.kind == libc::NLMSG_ERROR as u16
                {
                    open -= 1;
                    if let Err(error) = verdict(received) {
                        refused.get_or_insert(error);
                    }
                }
                Ok(())
            })?;
        }
        refused.map_or(Ok(()), Err)
    }

    /// Sends the messages of one transaction, of which the last asks for an acknowledgement, and waits for it or for the first refusal.
    pub fn transact(&self, mut messages: Vec<Message>) -> Result<()> {
        let mut sequence = self.sequence.lock().unwrap_or_else(|held| held.into_inner());
        let first = sequence.wrapping_add(1);
        let count = messages.len() as u32;
        let Some(acknowledged) = count.checked_sub(2) else {
            return Ok(());
        };
        let mut bytes = Vec::new();
        for (at, mut message) in messages.drain(..).enumerate() {
            message.wants_ack(at as u32 == acknowledged);
            bytes.extend(message.finish(first.wrapping_add(at as u32), self.port));
        }
        *sequence = sequence.wrapping_add(count);
        self.send(&bytes)?;
        let (mut done, mut refused) = (false, None);
        while !done {
            self.receive(|received| {
                let at = received.sequence.wrapping_sub(first);
                if at < count && received.kind == libc::NLMSG_ERROR as u16 {
                    done = true;
                    if let Err(error) = verdict(received) {
                        refused.get_or_insert(error);
                    }
                }
                Ok(())
            })?;
        }
        refused.map_or(Ok(()), Err)
    }

    /// Asks for something and gives every answer to `each`, until the kernel says it was the last.
    pub fn ask(&self, message: Message, mut each: impl FnMut(Received<'_>)) -> Result<()> {
        let mut sequence = self.sequence.lock().unwrap_or_else(|held| held.into_inner());
        *sequence = sequence.wrapping_add(1);
        let own = *sequence;
        self.send(&message.finish(own, self.port))?;
        let mut done = false;
        while !done {
            self.receive(|received| {
                if received.sequence != own {
                    return Ok(());
                }
                match i32::from(received.kind) {
                    libc::NLMSG_ERROR => {
                        done = true;
                        verdict(received)
                    }
                    libc::NLMSG_DONE => {
                        done = true;
                        Ok(())
                    }
                    _ => {
                        done |= received.flags & libc::NLM_F_MULTI as u16 == 0;
                        each(received);
                        Ok(())
                    }
                }
            })?;
        }
        Ok(())
    }

    /// For whoever waits for notifications elsewhere.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    fn send(&self, bytes: &[u8]) -> Result<()> {
        let kernel = NetlinkAddr::new(0, 0);
        let flags = MsgFlags::MSG_NOSIGNAL;
        loop {
            match sendmsg(
                self.fd.as_raw_fd(),
                &[IoSlice::new(bytes)],
                &[],
                flags,
                Some(&kernel),
            ) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    return Err(CallError {
                        call: "sendmsg",
                        errno,
                    }
                    .into());
                }
            }
        }
    }

    /// Waits for one datagram and gives its messages to `each`.
    fn receive(&self, mut each: impl FnMut(Received<'_>) -> Result<()>) -> Result<()> {
        let mut bytes = vec![0; RECEIVE_BYTES];
        let count = loop {
            match recvfrom::<NetlinkAddr>(self.fd.as_raw_fd(), &mut bytes) {
                // Root inside a container may send to a socket that was opened there: only the kernel, whose port is 0, is believed.
                Ok((count, Some(from))) if from.pid() == 0 => break count,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => {
                    return Err(CallError {
                        call: "recvfrom",
                        errno,
                    }
                    .into());
                }
            }
        };
        for message in Messages(&bytes[..count]) {
            each(message?)?;
        }
        Ok(())
    }
}

/// What an acknowledgement says: its number, and with NETLINK_EXT_ACK the kernel's words behind the header of the request.
fn verdict(received: Received<'_>) -> Result<()> {
    const MESSAGE: u16 = 1;
    let number = u32_at(received.body, 0).ok_or(NetlinkError::Malformed)? as i32;
    if number == 0 {
        return Ok(());
    }
    let words = Attributes(received.body.get(4 + HEADER_BYTES..).unwrap_or_default());
    Err(NetlinkError::Refused {
        errno: Errno::from_raw(number.wrapping_neg()),
        said: words.find_str(MESSAGE).unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_as_drawn() {
        let mut message = Message::new(16, libc::NLM_F_ACK, &[1, 2, 3, 4]);
        message.put_str(3, "lo").nest(18, |inner| {
            inner.put(1, b"veth");
        });
        let bytes = message.finish(7, 9);
        let mut drawn = Vec::new();
        drawn.extend(40_u32.to_ne_bytes());
        drawn.extend(16_u16.to_ne_bytes());
        drawn.extend(5_u16.to_ne_bytes());
        drawn.extend(7_u32.to_ne_bytes());
        drawn.extend(9_u32.to_ne_bytes());
        drawn.extend([1, 2, 3, 4]);
        drawn.extend(7_u16.to_ne_bytes());
        drawn.extend(3_u16.to_ne_bytes());
        drawn.extend(b"lo\0\0");
        drawn.extend(12_u16.to_ne_bytes());
        drawn.extend((18_u16 | 0x8000).to_ne_bytes());
        drawn.extend(8_u16.to_ne_bytes());
        drawn.extend(1_u16.to_ne_bytes());
        drawn.extend(b"veth");
        assert_eq!(bytes, drawn);

        let received: Vec<_> = Messages(&bytes).collect::<Result<_>>().expect("well formed");
        assert_eq!(received.len(), 1);
        let attributes = Attributes(&received[0].body[4..]);
        assert_eq!(attributes.find_str(3), Some("lo"));
        assert_eq!(
            attributes.find(18).map(|nested| Attributes(nested).find_str(1)),
            Some(Some("veth"))
        );
        assert_eq!(attributes.find(4), None);
    }

    #[test]
    fn broken_messages_are_refused() {
        for bytes in [
            &[][..],
            &[1],
            &[0; 15],
            &[0; 16],
            &[15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            let whole = Messages(bytes).all(|message| message.is_ok());
            assert_eq!(whole, bytes.is_empty(), "{bytes:?}");
        }
        for bytes in [&[3, 0, 1, 0][..], &[5, 0, 1, 0], &[8, 0, 1], &[0, 0, 0, 0]] {
            assert_eq!(Attributes(bytes).next(), None, "{bytes:?}");
        }
    }

    /// What anyone but the kernel sends to a socket is not an answer.
    #[test]
    fn only_the_kernel_is_believed() {
        crate::testing::on_a_fresh_host(|| {
            let socket = Socket::open(SockProtocol::NetlinkRoute, 0).expect("anyone opens netlink");
            let liar = Socket::open(SockProtocol::NetlinkRoute, 0).expect("anyone opens netlink");
            // A success under the next number, in the queue before the question is asked.
            let lie = Message::new(libc::NLMSG_ERROR as u16, 0, &[0; 20]).finish(1, socket.port());
            let to = NetlinkAddr::new(socket.port(), 0);
            sendmsg(
                liar.fd.as_raw_fd(),
                &[IoSlice::new(&lie)],
                &[],
                MsgFlags::empty(),
                Some(&to),
            )
            .expect("root may send to it");
            let unknown = Message::new(libc::RTM_DELLINK, 0, &[0xff; 16]);
            let refused = socket.request(vec![unknown]).expect_err("there is no such link");
            assert!(matches!(refused, NetlinkError::Refused { .. }), "{refused}");
        });
    }

    /// Whatever comes in, reading it ends and neither panics nor reads beyond.
    #[test]
    fn noise_is_survived() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for round in 0..20_000_u32 {
            let mut message = Message::new(random() as u16, 0, &random().to_ne_bytes());
            message.put(random() as u16, &vec![7; (random() % 40) as usize]);
            message.nest(3, |inner| {
                inner.put_str(1, "x");
            });
            let mut bytes = message.finish(round, 1);
            for _ in 0..random() % 6 {
                let at = (random() % bytes.len() as u64) as usize;
                bytes[at] = random() as u8;
            }
            bytes.truncate((random() % (bytes.len() as u64 + 1)) as usize);
            let mut seen = 0;
            for received in Messages(&bytes).map_while(Result::ok) {
                seen += received.body.len();
                for (_, value) in Attributes(received.body) {
                    assert!(Attributes(value).count() <= value.len());
                }
                drop(verdict(received));
            }
            assert!(seen <= bytes.len());
        }
    }
}
