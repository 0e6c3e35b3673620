//! Connections that the kernel follows, and those of them that have to end.
//!
//! A connection that was let through is let through until it ends, and a sender of datagrams that goes on never ends one. So whatever an
//! endpoint, a published port or a list allowed goes with it: the next packet is judged anew. Decides here, purely, what [`Ended`] covers;
//! entries are deleted one by one, since older kernels take a deletion by filter for one of everything.
//!
//! ```text
//! body    family u8 · 0 u8 · 0 be16 · attributes
//! tuple   1: addresses (v4 source 1, destination 2; v6 3, 4) · 2: protocol (number u8 1, source port be16 2, destination port be16 3)
//! flow    1: tuple as asked · 2: tuple of the answers · 4: protocol's own (TCP 1: state 1 u8) · 12: id
//! ```

use std::collections::BTreeSet;
use std::net::IpAddr;

use kakoi_sys::Errno;

use crate::netlink::{Attributes, Message, Received, Result, Socket};
use crate::nft::{Element, Elements, Family};

const SUBSYSTEM: u16 = 1 << 8;
const NEW: u16 = SUBSYSTEM;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const HEADER_BYTES: usize = 4;
const ASKED: u16 = 1;
const ANSWERED: u16 = 2;
const OWN: u16 = 4;
const ID: u16 = 12;
const NESTED: u16 = 0x8000;
const UDP: u8 = 17;
const TCP: u8 = 6;
/// TCP's states from SYN_SENT to CLOSE_WAIT, in which either side may still say something.
const OPEN_STATES: std::ops::RangeInclusive<u8> = 1..=5;

/// Requests that are on their way at a time: their acknowledgements fit the socket.
const DELETIONS_AT_ONCE: usize = 256;

/// What no longer holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ended {
    /// Addresses of endpoints that are gone.
    addresses: BTreeSet<IpAddr>,
    /// Endpoints that may do less than before.
    narrowed: BTreeSet<IpAddr>,
    /// Protocol, port of the host and target of ports that are published no more.
    withdrawn: BTreeSet<(u8, u16, IpAddr)>,
    /// Ports of the host that datagrams are redirected from only now.
    redirected: BTreeSet<u16>,
    /// Endpoints that nobody speaks to but by a published port.
    direct: BTreeSet<IpAddr>,
}

/// A connection.
struct Flow<'a> {
    family: u8,
    asked: &'a [u8],
    id: &'a [u8],
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    port: u16,
    answers_from: IpAddr,
}

impl Ended {
    /// What held by `before` and does not by `now`.
    pub fn between(before: &Elements, now: &Elements) -> Self {
        let mut ended = Self::default();
        for length in [4, 16] {
            let name = |ipv4: &'static str, ipv6: &'static str| if length == 4 { ipv4 } else { ipv6 };
            let gone = |set| missing(before, now, set);
            let members = gone(name("members4", "members6"));
            ended
                .addresses
                .extend(members.filter_map(|(key, _)| address(&key[16..])));
            let allowed = gone(name("allowed4", "allowed6")).chain(gone(name("peers4", "peers6")));
            ended
                .narrowed
                .extend(allowed.filter_map(|(key, _)| address(&key[..length])));
            let limited = missing(now, before, name("limited4", "limited6"));
            ended.narrowed.extend(limited.filter_map(|(key, _)| address(key)));
            for set in [name("any4", "any6"), name("at4", "at6")] {
                let withdrawn = gone(set).filter_map(|(key, data)| {
                    let (protocol, port) = service(key)?;
                    Some((protocol, port, address(data?.get(..length)?)?))
                });
                ended.withdrawn.extend(withdrawn);
                let published = missing(now, before, set).filter_map(|(key, _)| service(key));
                let datagrams = published.filter(|(protocol, _)| *protocol == UDP);
                ended.redirected.extend(datagrams.map(|(_, port)| port));
            }
        }
        ended
    }

    /// What may have been let through while no rules stood, and would not be by `now`: what an endpoint with a list or of an internal network
    /// began, and what came to any endpoint by no published port. What of it is allowed goes on with its next packet.
    pub fn unjudged(now: &Elements) -> Self {
        let mut ended = Self::default();
        let all = |set| elements(now, set).map(|element| element.key.as_slice());
        let internal: BTreeSet<_> = all("internal").collect();
        for key in all("members4").chain(all("members6")) {
            let (bridge, member) = key.split_at(16);
            ended.direct.extend(address(member));
            if internal.contains(bridge) {
                ended.addresses.extend(address(member));
            }
        }
        let limited = all("limited4").chain(all("limited6"));
        ended.narrowed.extend(limited.filter_map(address));
        ended
    }

    /// Both.
    pub fn add(&mut self, other: Self) {
        self.addresses.extend(other.addresses);
        self.narrowed.extend(other.narrowed);
        self.withdrawn.extend(other.withdrawn);
        self.redirected.extend(other.redirected);
        self.direct.extend(other.direct);
    }

    /// Leaves alone what came by ports that are published elsewhere now.
    pub fn keep_published(&mut self) {
        self.withdrawn.clear();
        self.redirected.clear();
    }

    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    fn covers(&self, flow: &Flow<'_>) -> bool {
        let is_direct = flow.answers_from == flow.to;
        self.addresses.contains(&flow.from)
            || self.addresses.contains(&flow.answers_from)
            || self.narrowed.contains(&flow.from)
            || is_direct && self.direct.contains(&flow.to)
            || self
                .withdrawn
                .contains(&(flow.protocol, flow.port, flow.answers_from))
            || flow.protocol == UDP && is_direct && self.redirected.contains(&flow.port)
    }
}

fn elements<'a>(of: &'a Elements, set: &'static str) -> impl Iterator<Item = &'a Element> {
    of.get(&(Family::Inet, set)).into_iter().flatten()
}

/// Keys and data of a set that are in `of` and not in `other`.
fn missing<'a>(
    of: &'a Elements,
    other: &'a Elements,
    set: &'static str,
) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
    let others = other.get(&(Family::Inet, set));
    let missing =
        elements(of, set).filter(move |element| !others.is_some_and(|others| others.contains(element)));
    missing.map(|element| (element.key.as_slice(), element.data.as_deref()))
}

/// Protocol and port, which stand last in a key of published ports.
fn service(key: &[u8]) -> Option<(u8, u16)> {
    let [protocol, _, _, _, high, low, _, _] = *key.last_chunk::<8>()?;
    Some((protocol, u16::from_be_bytes([high, low])))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let ipv4 = <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    ipv4.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

fn read_flow(received: Received<'_>) -> Option<Flow<'_>> {
    let attributes = Attributes(received.body.get(HEADER_BYTES..)?);
    let asked = attributes.find(ASKED)?;
    let (from, to) = ends(asked)?;
    let service = Attributes(Attributes(asked).find(2)?);
    let port = service.find(3).unwrap_or(&[0, 0]);
    (received.kind == NEW).then_some(Flow {
        family: *received.body.first()?,
        asked,
        id: attributes.find(ID)?,
        from,
        to,
        protocol: *service.find(1)?.first()?,
        port: u16::from_be_bytes(port.try_into().ok()?),
        answers_from: ends(attributes.find(ANSWERED)?)?.0,
    })
}

/// Source and destination of a tuple.
fn ends(tuple: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let addresses = Attributes(Attributes(tuple).find(1)?);
    let of = |ipv4: u16, ipv6: u16| address(addresses.find(ipv4).or_else(|| addresses.find(ipv6))?);
    Some((of(1, 3)?, of(2, 4)?))
}

/// How many TCP connections to or from these addresses are open.
pub(super) fn open(socket: &Socket, addresses: &[IpAddr]) -> Result<usize> {
    let mut count = 0;
    let question = Message::new(GET, libc::NLM_F_DUMP, &[0; HEADER_BYTES]);
    socket.ask(question, |received| {
        let is_theirs = |flow: &Flow<'_>| {
            flow.protocol == TCP && (addresses.contains(&flow.from) || addresses.contains(&flow.answers_from))
        };
        let state = || {
            let attributes = Attributes(received.body.get(HEADER_BYTES..)?);
            let own = Attributes(Attributes(attributes.find(OWN)?).find(1)?);
            own.find(1)?.first().copied()
        };
        if read_flow(received).is_some_and(|flow| is_theirs(&flow))
            && state().is_some_and(|state| OPEN_STATES.contains(&state))
        {
            count += 1;
        }
    })?;
    Ok(count)
}

/// Ends what has to. Takes a socket of NETLINK_NETFILTER.
pub(super) fn end(socket: &Socket, ended: &Ended) -> Result<()> {
    if ended.is_nothing() {
        return Ok(());
    }
    let mut deletions = Vec::new();
    let question = Message::new(GET, libc::NLM_F_DUMP, &[0; HEADER_BYTES]);
    socket.ask(question, |received| {
        let flow = read_flow(received).filter(|flow| ended.covers(flow));
        deletions.extend(flow.map(|flow| {
            let mut deletion = Message::new(DELETE, 0, &[flow.family, 0, 0, 0]);
            deletion.put(ASKED | NESTED, flow.asked).put(ID, flow.id);
            deletion
        }));
    })?;
    while !deletions.is_empty() {
        let rest = deletions.split_off(deletions.len().min(DELETIONS_AT_ONCE));
        match socket.request(std::mem::replace(&mut deletions, rest)) {
            // It has ended by itself.
            Err(error) if error.errno() == Some(Errno::ENOENT) => {}
            done => done?,
        }
    }
    Ok(())
}
