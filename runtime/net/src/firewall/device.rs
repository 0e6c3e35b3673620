//! What strangers may say to the device itself.
//!
//! Owns one nftables table beside the scope's two, of family `inet`. Refuses to know why a port is open. What belongs to a connection that the kernel
//! tracks is let through, so that nobody is cut off by a change from one table to the next; what begins is judged. Where nothing had connections tracked
//! before the first table, a peer whose packet comes before one of the device's own is taken for one who begins.
//!
//! ```text
//! input   loopback, established and related        accept
//!         invalid                                  drop
//!         neighbours, routers, listeners (ICMPv6)  accept
//!         echo requests                            accept, where they are answered
//!         tcp, udp                                 accept, where the port is open: everywhere, or by that link
//!         else                                     drop
//! ```
//!
//! Ports that lead into a container are redirected before (`tables`) and never come here; those that a [`crate::ports::Proxy`] carries do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use kakoi_sys::Errno;
use nix::sys::socket::SockProtocol;
use tokio::net::UnixDatagram;

use super::boxes::{Box3, disjoint};
use super::elements::{name, per_family};
use super::tables::DEVICE;
use super::{FirewallError, Result, Service, Watch, named, standing};
use crate::Scope;
use crate::netlink::Socket;
use crate::nft::{Batch, Element, Elements, Family, concat, events};
use crate::ports::Protocol;

/// Ports that are open, and whether echo requests are answered. Everything else is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// What may begin from outside.
    pub open: Vec<OpenPorts>,
    /// Whether echo requests are answered.
    pub ping: bool,
}

/// Ports that strangers may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenPorts {
    /// Over what.
    pub protocol: Protocol,
    /// First to last.
    pub ports: RangeInclusive<u16>,
    /// The interface by which it is reached; every one where absent.
    pub link: Option<String>,
    /// From where; everywhere where absent.
    pub from: Option<IpNet>,
}

/// The table. Calls are the caller's to order.
#[derive(Debug)]
pub struct DeviceFilter {
    table: String,
    socket: Socket,
}

impl DeviceFilter {
    /// Opens a netlink socket in the caller's network namespace; changes nothing.
    pub fn open(scope: &Scope) -> Result<Self> {
        Ok(Self {
            table: format!("{}-device", scope.table()),
            socket: Socket::open(SockProtocol::NetlinkNetFilter, 0).map_err(named("open netlink"))?,
        })
    }

    /// Has exactly this open, in one transaction: what stood before stands until then. Needs CAP_NET_ADMIN.
    pub fn apply(&self, input: &Input) -> Result<()> {
        let elements = elements(input)?;
        let mut batch = Batch::new(&self.table);
        batch.remove_table(DEVICE.family);
        batch.make_table(&DEVICE);
        for (set, elements) in &elements {
            batch.add(*set, elements);
        }
        batch.send(&self.socket).map_err(|source| match source.errno() {
            Some(Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT) => {
                FirewallError::Lacking(source)
            }
            _ => named("close the device's ports")(source),
        })
    }

    /// Whether exactly this stands in the kernel.
    pub fn stands(&self, input: &Input) -> Result<bool> {
        let there = standing::read_table(&self.socket, &self.table, &DEVICE);
        let there = there.map_err(named("read the rules that stand"))?;
        let wanted = elements(input)?;
        Ok(there.is_some_and(|there| standing::is_same(&there, &wanted)))
    }

    /// Whether a table of ours stands, whatever is in it.
    pub fn is_there(&self) -> Result<bool> {
        let rules = events::rules(&self.socket, &self.table, DEVICE.family);
        Ok(!rules.map_err(named("read the rules that stand"))?.is_empty())
    }

    /// Removes the table; that there is none is no error.
    pub fn remove(&self) -> Result<()> {
        let mut batch = Batch::new(&self.table);
        batch.remove_table(DEVICE.family);
        batch.send(&self.socket).map_err(named("open the device's ports"))
    }

    /// Tells when somebody else takes something of the table away. Needs a tokio runtime.
    pub fn watch(&self) -> Result<Watch> {
        let socket = Socket::open(SockProtocol::NetlinkNetFilter, events::GROUP)
            .map_err(named("watch the firewall"))?;
        let datagrams = std::os::unix::net::UnixDatagram::from(socket.into_fd());
        datagrams.set_nonblocking(true).map_err(FirewallError::Watch)?;
        Ok(Watch {
            is_lost: false,
            table: self.table.clone(),
            own_port: self.socket.port(),
            socket: UnixDatagram::from_std(datagrams).map_err(FirewallError::Watch)?,
        })
    }
}

/// Everywhere, in both families.
fn everywhere() -> [IpNet; 2] {
    [
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
    ]
}

fn elements(input: &Input) -> Result<Elements> {
    let mut elements = Elements::new();
    if input.ping {
        let protocols = elements.entry((Family::Inet, "echo")).or_default();
        protocols.extend([1_u8, 58].map(|protocol| Element::of(concat(&[&[protocol]]))));
    }
    let mut links: Vec<Option<&str>> = input.open.iter().map(|open| open.link.as_deref()).collect();
    links.sort_unstable();
    links.dedup();
    for link in links {
        for family in everywhere() {
            let of_link = input.open.iter().filter(|open| open.link.as_deref() == link);
            let boxes = of_link.filter_map(|open| {
                let from = open.from.unwrap_or(family);
                let service = Service::Ports {
                    protocol: open.protocol,
                    ports: open.ports.clone(),
                };
                (from.addr().is_ipv4() == family.addr().is_ipv4()).then(|| (Box3::new(from, &service), ()))
            });
            for (piece, ()) in disjoint(boxes) {
                let (set, element) = element(link, family, piece)?;
                elements.entry((Family::Inet, set)).or_default().insert(element);
            }
        }
    }
    Ok(elements)
}

fn element(link: Option<&str>, family: IpNet, piece: Box3) -> Result<(&'static str, Element)> {
    let link = link.map(name).transpose()?;
    let end = |address: u128, protocol: u8, port: u16| {
        let address = match family {
            // Of this family, so that it fits.
            IpNet::V4(_) => Ipv4Addr::from(address as u32).octets().to_vec(),
            IpNet::V6(_) => Ipv6Addr::from(address).octets().to_vec(),
        };
        let mut fields: Vec<&[u8]> = link.iter().map(<[u8; 16]>::as_slice).collect();
        let (protocol, port) = ([protocol], port.to_be_bytes());
        fields.extend([address.as_slice(), &protocol, &port]);
        concat(&fields)
    };
    let (addresses, protocols, ports) = (piece.addresses(), piece.protocols(), piece.ports());
    let element = Element {
        key_end: Some(end(addresses.1, protocols.1, ports.1)),
        ..Element::of(end(addresses.0, protocols.0, ports.0))
    };
    let any: IpAddr = family.addr();
    let set = match link {
        None => per_family("open4", "open6", any),
        Some(_) => per_family("open_on4", "open_on6", any),
    };
    Ok((set, element))
}
