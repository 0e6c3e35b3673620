//! The requests of rtnetlink(7) that are made, each as one function.
//!
//! Pure. Owns the layouts of `ifinfomsg`, `ifaddrmsg` and `rtmsg`.
//!
//! ```text
//! ifinfomsg  family u8 · 0 u8 · type u16 · index i32 · flags u32 · mask of changed flags u32
//! ifaddrmsg  family u8 · prefix length u8 · flags u8 · scope u8 · index u32
//! rtmsg      family u8 · length of destination u8 · of source u8 · tos u8 · table u8 · protocol u8 · scope u8 · type u8 · flags u32
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;

use ipnet::{IpNet, Ipv6Net};
use sha2::{Digest, Sha256};

use super::{Bridge, Endpoint};
use crate::address::Mac;
use crate::netlink::Message;

const IFLA_INFO_KIND: u16 = libc::IFLA_INFO_KIND;
const IFLA_INFO_DATA: u16 = libc::IFLA_INFO_DATA;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_MODE: u16 = 4;
const VETH_INFO_PEER: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
/// Settings as in `/proc/sys/net/ipv4/conf/<link>`, by number.
const IFLA_INET_CONF: u16 = 1;
const IPV4_DEVCONF_ARP_NOTIFY: u16 = 22;
const ADDR_GEN_MODE_NONE: u8 = 1;
/// IFA_F_NODAD: an address is usable at once; two containers cannot have one, since we give them out.
const IFA_F_NODAD: u8 = 2;
const RTPROT_STATIC: u8 = 4;

pub(crate) fn link_header(index: u32, up: bool) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    if up {
        let flag = (libc::IFF_UP as u32).to_ne_bytes();
        header[8..12].copy_from_slice(&flag);
        header[12..16].copy_from_slice(&flag);
    }
    header
}

pub(super) fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

const NEW: i32 = libc::NLM_F_CREATE | libc::NLM_F_EXCL;

/// A bridge, down. Its MAC is given, since the kernel would change it with every port that comes and goes.
pub(super) fn new_bridge(bridge: &Bridge, group: u32) -> Message {
    let ipv4 = bridge.addresses.iter().find_map(|address| match address {
        IpNet::V4(address) => Some(address.addr()),
        IpNet::V6(_) => None,
    });
    let mac = Mac::of_ipv4(ipv4.unwrap_or_else(|| {
        let digest = Sha256::digest(bridge.name.as_bytes());
        Ipv4Addr::new(digest[0], digest[1], digest[2], digest[3])
    }));
    let mut message = Message::new(libc::RTM_NEWLINK, NEW, &link_header(0, false));
    message
        .put_str(libc::IFLA_IFNAME, &bridge.name)
        .put_u32(libc::IFLA_MTU, bridge.mtu)
        .put_u32(libc::IFLA_GROUP, group)
        .put(libc::IFLA_ADDRESS, &mac.0)
        .nest(libc::IFLA_LINKINFO, |info| {
            info.put(IFLA_INFO_KIND, b"bridge");
        });
    message
}

/// A pair of links, down: one end a port of the bridge, the other inside.
pub(super) fn new_pair(endpoint: &Endpoint, bridge: u32, group: u32, netns: RawFd) -> Message {
    let mut message = Message::new(libc::RTM_NEWLINK, NEW, &link_header(0, false));
    message
        .put_str(libc::IFLA_IFNAME, &endpoint.host_link)
        .put_u32(libc::IFLA_MTU, endpoint.mtu)
        .put_u32(libc::IFLA_GROUP, group)
        .put_u32(libc::IFLA_MASTER, bridge)
        .nest(libc::IFLA_LINKINFO, |info| {
            info.put(IFLA_INFO_KIND, b"veth").nest(IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |peer| {
                    peer.raw(&link_header(0, false))
                        .put_str(libc::IFLA_IFNAME, &endpoint.name)
                        .put_u32(libc::IFLA_MTU, endpoint.mtu)
                        .put(libc::IFLA_ADDRESS, &endpoint.mac.0)
                        .put_u32(libc::IFLA_NET_NS_FD, netns as u32);
                });
            });
        });
    message
}

/// The host's end, up. Sends back (hairpin mode) what the firewall lets through: a container that asks for a port that it published itself, where
/// br_netfilter keeps the redirected packet in the bridge. It is a port and needs no address; left to itself the kernel would give it a link-local one and announce it.
pub(super) fn raise_port(name: &str) -> Message {
    let mut message = Message::new(libc::RTM_NEWLINK, 0, &link_header(0, true));
    message
        .put_str(libc::IFLA_IFNAME, name)
        .nest(libc::IFLA_LINKINFO, |info| {
            info.put(IFLA_INFO_SLAVE_KIND, b"bridge")
                .nest(IFLA_INFO_SLAVE_DATA, |data| {
                    data.put(IFLA_BRPORT_MODE, &[1]);
                });
        });
    message
}

/// `lo`, the first interface of every namespace, up.
pub(super) fn raise_loopback() -> Message {
    raise(1, None)
}

/// A link up.
pub(super) fn raise(index: u32, mtu: Option<u32>) -> Message {
    let mut message = Message::new(libc::RTM_NEWLINK, 0, &link_header(index, true));
    if let Some(mtu) = mtu {
        message.put_u32(libc::IFLA_MTU, mtu);
    }
    message
}

/// A link's MAC, which it has already: giving it is what makes the kernel announce the addresses (`arp_notify`).
pub(super) fn announce(index: u32, mac: Mac) -> Message {
    let mut message = Message::new(libc::RTM_NEWLINK, 0, &link_header(index, false));
    message.put(libc::IFLA_ADDRESS, &mac.0);
    message
}

/// A link down.
pub(super) fn lower(index: u32) -> Message {
    let mut header = link_header(index, true);
    header[8..12].fill(0);
    Message::new(libc::RTM_NEWLINK, 0, &header)
}

/// Settings of a link that is still down, named by its index or, with index 0, its name. It gets no link-local IPv6 address but what it is
/// given: those that the kernel makes serve only after a second of duplicate address detection, and without one a host asks no neighbour on
/// behalf of others. And it announces its IPv4 addresses ([`announce`]). A name beside an index is a new name to the kernel, also where it is the
/// old one, and before Linux 6.2 a link that is up takes none (EBUSY).
pub(super) fn settle(index: u32, name: &str) -> Message {
    let mut message = Message::new(libc::RTM_NEWLINK, 0, &link_header(index, false));
    if index == 0 {
        message.put_str(libc::IFLA_IFNAME, name);
    }
    message.nest(libc::IFLA_AF_SPEC, |families| {
        families.nest(libc::AF_INET as u16, |ipv4| {
            ipv4.nest(IFLA_INET_CONF, |settings| {
                settings.put_u32(IPV4_DEVCONF_ARP_NOTIFY, 1);
            });
        });
        // Without IPv6 in the kernel there is nothing to say.
        if std::path::Path::new("/proc/sys/net/ipv6").exists() {
            families.nest(libc::AF_INET6 as u16, |ipv6| {
                ipv6.put(IFLA_INET6_ADDR_GEN_MODE, &[ADDR_GEN_MODE_NONE]);
            });
        }
    });
    message
}

pub(super) fn delete_link(index: u32) -> Message {
    Message::new(libc::RTM_DELLINK, 0, &link_header(index, false))
}

fn address_header(index: u32, address: IpNet, flags: u8) -> [u8; 8] {
    let mut header = [family(address.addr()), address.prefix_len(), flags, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&index.to_ne_bytes());
    header
}

pub(crate) fn new_address(index: u32, address: IpNet) -> Message {
    let flags = match address {
        IpNet::V4(_) => 0,
        IpNet::V6(_) => IFA_F_NODAD,
    };
    let octets = octets(address.addr());
    let mut message = Message::new(libc::RTM_NEWADDR, NEW, &address_header(index, address, flags));
    message
        .put(libc::IFA_LOCAL, &octets)
        .put(libc::IFA_ADDRESS, &octets);
    if let IpNet::V4(address) = address
        && address.prefix_len() < 31
    {
        message.put(libc::IFA_BROADCAST, &address.broadcast().octets());
    }
    message
}

/// A link-local address, whether it is there or not.
pub(super) fn link_local(index: u32, address: Ipv6Addr) -> Message {
    let network = Ipv6Net::new_assert(address, 64);
    let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    let header = address_header(index, IpNet::V6(network), IFA_F_NODAD);
    let mut message = Message::new(libc::RTM_NEWADDR, flags, &header);
    message.put(libc::IFA_LOCAL, &address.octets());
    message
}

pub(super) fn delete_address(index: u32, address: IpNet) -> Message {
    let mut message = Message::new(libc::RTM_DELADDR, 0, &address_header(index, address, 0));
    message.put(libc::IFA_LOCAL, &octets(address.addr()));
    message
}

pub(super) fn new_default_route(index: u32, gateway: IpAddr) -> Message {
    default_route(libc::RTM_NEWROUTE, NEW, index, gateway)
}

pub(super) fn delete_default_route(index: u32, gateway: IpAddr) -> Message {
    default_route(libc::RTM_DELROUTE, 0, index, gateway)
}

fn default_route(kind: u16, flags: i32, index: u32, gateway: IpAddr) -> Message {
    let header = [
        family(gateway),
        0,
        0,
        0,
        libc::RT_TABLE_MAIN,
        RTPROT_STATIC,
        libc::RT_SCOPE_UNIVERSE,
        libc::RTN_UNICAST,
        0,
        0,
        0,
        0,
    ];
    let mut message = Message::new(kind, flags, &header);
    message
        .put(libc::RTA_GATEWAY, &octets(gateway))
        .put_u32(libc::RTA_OIF, index);
    message
}
