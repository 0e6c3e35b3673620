//! What the kernel tells of links, addresses and routes.
//!
//! Reads only. Skips what it does not understand: a newer kernel tells more.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use kakoi_sys::Errno;

use super::request::link_header;
use crate::netlink::{Attributes, Message, Received, Result, Socket, u32_at};

const IFINFOMSG_BYTES: usize = 16;
const IFADDRMSG_BYTES: usize = 8;
/// IF_OPER_UP (RFC 2863).
const OPERATIONAL: u8 = 6;
const RTMSG_BYTES: usize = 12;

/// A link as the kernel tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub index: u32,
    pub name: String,
    pub group: u32,
    /// `bridge`, `veth` …; empty for hardware.
    pub kind: String,
    /// Whether there is somebody at its other end, as those who use it know.
    pub is_operational: bool,
}

fn found(received: Received<'_>) -> Option<Found> {
    let attributes = Attributes(received.body.get(IFINFOMSG_BYTES..)?);
    let info = attributes.find(libc::IFLA_LINKINFO).map(Attributes);
    let kind = info.and_then(|info| info.find_str(libc::IFLA_INFO_KIND));
    Some(Found {
        index: u32_at(received.body, 4)?,
        name: attributes.find_str(libc::IFLA_IFNAME)?.to_owned(),
        group: attributes.find_u32(libc::IFLA_GROUP).unwrap_or(0),
        kind: kind.unwrap_or_default().to_owned(),
        is_operational: attributes.find(libc::IFLA_OPERSTATE) == Some(&[OPERATIONAL]),
    })
}

/// The link of a name, if there is one.
pub(crate) fn link(socket: &Socket, name: &str) -> Result<Option<Found>> {
    let mut message = Message::new(libc::RTM_GETLINK, 0, &link_header(0, false));
    message.put_str(libc::IFLA_IFNAME, name);
    let mut link = None;
    match socket.ask(message, |received| link = found(received)) {
        Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(None),
        done => done.map(|()| link),
    }
}

/// All links.
pub(super) fn links(socket: &Socket) -> Result<Vec<Found>> {
    let message = Message::new(libc::RTM_GETLINK, libc::NLM_F_DUMP, &link_header(0, false));
    let mut links = Vec::new();
    socket.ask(message, |received| links.extend(found(received)))?;
    Ok(links)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::V4(Ipv4Addr::from(octets)));
    }
    let octets = <[u8; 16]>::try_from(bytes).ok()?;
    Some(IpAddr::V6(Ipv6Addr::from(octets)))
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local() || address.is_multicast(),
    }
}

/// Index and address of one message; link-local ones, which the kernel makes, are left out.
fn link_address(received: Received<'_>) -> Option<(u32, IpNet)> {
    let attributes = Attributes(received.body.get(IFADDRMSG_BYTES..)?);
    let bytes = attributes
        .find(libc::IFA_LOCAL)
        .or_else(|| attributes.find(libc::IFA_ADDRESS));
    let network = IpNet::new(address(bytes?)?, *received.body.get(1)?).ok()?;
    (!is_link_local(network.addr())).then_some((u32_at(received.body, 4)?, network))
}

/// The addresses of a link.
pub(super) fn addresses(socket: &Socket, index: u32) -> Result<Vec<IpNet>> {
    let message = Message::new(libc::RTM_GETADDR, libc::NLM_F_DUMP, &[0; IFADDRMSG_BYTES]);
    let mut addresses = Vec::new();
    socket.ask(message, |received| {
        addresses.extend(link_address(received).filter(|(of, _)| *of == index));
    })?;
    Ok(addresses.into_iter().map(|(_, address)| address).collect())
}

/// The subnets of all addresses but those of loopback.
pub(super) fn all_addresses(socket: &Socket) -> Result<Vec<IpNet>> {
    let message = Message::new(libc::RTM_GETADDR, libc::NLM_F_DUMP, &[0; IFADDRMSG_BYTES]);
    let mut networks = Vec::new();
    socket.ask(message, |received| {
        let address = link_address(received).map(|(_, network)| network);
        networks.extend(address.filter(|network| !network.addr().is_loopback()));
    })?;
    Ok(networks.iter().map(IpNet::trunc).collect())
}

/// The destinations of all unicast routes but default ones.
pub(super) fn routes(socket: &Socket) -> Result<Vec<IpNet>> {
    let message = Message::new(libc::RTM_GETROUTE, libc::NLM_F_DUMP, &[0; RTMSG_BYTES]);
    let mut networks = Vec::new();
    socket.ask(message, |received| networks.extend(route(received)))?;
    Ok(networks)
}

fn route(received: Received<'_>) -> Option<IpNet> {
    let length = *received.body.get(1)?;
    let is_unicast = *received.body.get(7)? == libc::RTN_UNICAST;
    let destination = Attributes(received.body.get(RTMSG_BYTES..)?).find(libc::RTA_DST);
    let network = IpNet::new(address(destination?)?, length).ok()?;
    let counts = is_unicast && length > 0 && !is_link_local(network.addr()) && !network.addr().is_loopback();
    counts.then(|| network.trunc())
}
