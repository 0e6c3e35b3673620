//! Bridges on the host and links into network namespaces.
//!
//! Owns every link of its scope, and the settings of those alone, but for the two switches without which a host forwards nothing. Knows
//! neither who uses a namespace nor which addresses are free.
//!
//! ```text
//!  container's namespace          host's namespace
//!   eth0 ◄──── veth pair ────► host_link ──► bridge (gateway addresses)
//! ```
//!
//! The pair is made with one end inside in one request; nothing has to be moved or renamed, and what fails half way is gone with the
//! host's end. Links bear the scope's group from birth, so that a crash leaves none that nobody owns.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use kakoi_sys::network::open_within;
use kakoi_sys::{CallError, Errno};
use nix::sys::socket::SockProtocol;

use crate::Scope;
use crate::address::Mac;
use crate::netlink::{Message, NetlinkError, Socket};

pub(crate) mod query;
pub(crate) mod request;
#[cfg(test)]
mod tests;

use query::Found;

/// Addresses of one link: one of each family for each network it is in is one link; more is a mistake.
const ADDRESSES_MAX: usize = 16;

/// IPv4's least (RFC 791) and IPv6's (RFC 8200).
const MTU_MIN: u32 = 68;
const MTU_MIN_IPV6: u32 = 1280;
const MTU_MAX: u32 = 65_535;

/// What a bridge with IPv6 is on its link, as Docker's are.
const GATEWAY_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// How often, and how long between, it is looked whether a bridge forwards for a new port: a tenth of a second in all, where it takes one
/// millisecond.
const PORT_ATTEMPTS: u32 = 100;
const PORT_PAUSE: Duration = Duration::from_millis(1);

/// A network's bridge on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// The interface's name, 1 to 15 bytes.
    pub name: String,
    /// The host's own addresses on it: the gateways, each with the subnet's prefix length. Empty for a bridge that the host has no part in.
    pub addresses: Vec<IpNet>,
    /// In bytes, 68 to 65535; from 1280 where there is an IPv6 address.
    pub mtu: u32,
    /// Whether packets leave it for elsewhere, which needs the host to forward: no for internal networks.
    pub forwards: bool,
}

/// A link from a bridge into a network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The name of the end on the host, 1 to 15 bytes.
    pub host_link: String,
    /// The bridge that the host's end belongs to.
    pub bridge: String,
    /// The name inside, as `eth0`.
    pub name: String,
    /// The address of the end inside.
    pub mac: Mac,
    /// Addresses inside, each with the subnet's prefix length. Without one of IPv6 the end inside gets no link-local address either.
    pub addresses: Vec<IpNet>,
    /// Where default routes lead, at most one of each family; each must lie in a subnet of `addresses`. Empty: no default route.
    pub gateways: Vec<IpAddr>,
    /// In bytes, of both ends.
    pub mtu: u32,
}

/// A link that bears the scope's mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnLink {
    /// The interface's name on the host.
    pub name: String,
    /// What it is.
    pub kind: LinkKind,
}

/// What an own link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A [`Bridge`].
    Bridge,
    /// The host's end of an [`Endpoint`].
    Endpoint,
}

/// What could not be done to a link.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// A name that the kernel would not take, or would take for a pattern.
    #[error(
        "{name:?} is no interface name: 1 to 15 letters, digits, dots, dashes and underscores, not . or .."
    )]
    Name {
        /// As given.
        name: String,
    },
    /// An MTU out of range.
    #[error("the MTU of {name} is {mtu}, not {least} to {MTU_MAX}")]
    Mtu {
        /// The interface.
        name: String,
        /// As given.
        mtu: u32,
        /// With these addresses.
        least: u32,
    },
    /// Too many addresses, or two gateways of one family.
    #[error("{name} has more than {ADDRESSES_MAX} addresses, or two gateways of one family")]
    TooMany {
        /// The interface.
        name: String,
    },
    /// A gateway that no address of the link can reach.
    #[error("gateway {gateway} is in none of the subnets of {name}")]
    Gateway {
        /// The interface.
        name: String,
        /// As given.
        gateway: IpAddr,
    },
    /// A link of that name is there and bears no mark of this scope, or is of another kind.
    #[error("interface {name} is there already and belongs to someone else")]
    Foreign {
        /// Its name.
        name: String,
    },
    /// A link that is not there.
    #[error("there is no link {name}")]
    NoLink {
        /// Its name.
        name: String,
    },
    /// A bridge that is not there.
    #[error("there is no bridge {name}")]
    NoBridge {
        /// Its name.
        name: String,
    },
    /// The kernel refused.
    #[error("could not {what} {name}")]
    Netlink {
        /// A verb.
        what: &'static str,
        /// The interface.
        name: String,
        /// Why.
        #[source]
        source: NetlinkError,
    },
    /// The namespace could not be entered.
    #[error("could not enter the network namespace of {name}")]
    Namespace {
        /// The interface that was to lead there.
        name: String,
        /// Why.
        #[source]
        source: CallError,
    },
    /// A setting below `/proc/sys/net`.
    #[error("could not write {value} to {path}")]
    Setting {
        /// The file.
        path: PathBuf,
        /// What was to be written.
        value: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

type Result<T> = std::result::Result<T, LinkError>;

fn no_route_is_done(error: NetlinkError) -> std::result::Result<(), NetlinkError> {
    match error.errno() {
        Some(Errno::ESRCH) => Ok(()),
        _ => Err(error),
    }
}

/// A link that went by itself, with its namespace, is what was wanted.
fn gone_is_done(error: NetlinkError) -> std::result::Result<(), NetlinkError> {
    match error.errno() {
        Some(Errno::ENODEV) => Ok(()),
        _ => Err(error),
    }
}

/// Names what was tried, and to which link.
fn named(what: &'static str, name: &str) -> impl FnOnce(NetlinkError) -> LinkError {
    let name = name.to_owned();
    move |source| LinkError::Netlink { what, name, source }
}

/// The network namespace that the caller's thread is in when it opens this: the host's. Calls must come from threads in that namespace,
/// since settings are written for the caller's.
#[derive(Debug)]
pub struct Host {
    scope: Scope,
    socket: Socket,
}

impl Host {
    /// Opens a netlink socket in the caller's network namespace.
    pub fn open(scope: &Scope) -> Result<Self> {
        let socket = Socket::open(SockProtocol::NetlinkRoute, 0).map_err(named("open", "netlink"))?;
        Ok(Self {
            scope: scope.clone(),
            socket,
        })
    }

    /// Makes a bridge, or changes one of this scope so that it is as wanted: addresses, MTU, up. Where it forwards, writes
    /// `net.ipv4.ip_forward` and, with IPv6 addresses, `net.ipv6.conf.all.forwarding` where they are off, and says so in the log.
    /// A bridge that was made and could not be completed is removed.
    pub fn ensure_bridge(&self, bridge: &Bridge) -> Result<()> {
        check_name(&bridge.name)?;
        check_sizes(&bridge.name, bridge.mtu, &bridge.addresses)?;
        let is_new = match self.find(&bridge.name)? {
            Some(found) if self.owns(&found) && found.kind == "bridge" => false,
            Some(_) => {
                return Err(LinkError::Foreign {
                    name: bridge.name.clone(),
                });
            }
            None => true,
        };
        if is_new {
            self.socket
                .request(vec![request::new_bridge(bridge, self.scope.group())])
                .map_err(named("make bridge", &bridge.name))?;
        }
        let done = self.complete_bridge(bridge);
        if done.is_err() && is_new {
            self.undo(&bridge.name);
        }
        done
    }

    fn complete_bridge(&self, bridge: &Bridge) -> Result<()> {
        let found = self.find(&bridge.name)?.ok_or_else(|| LinkError::NoBridge {
            name: bridge.name.clone(),
        })?;
        setting::write_own(bridge)?;
        let there = query::addresses(&self.socket, found.index)
            .map_err(named("read the addresses of", &bridge.name))?;
        let mut requests = vec![request::settle(found.index, &bridge.name)];
        for address in there.iter().filter(|there| !bridge.addresses.contains(there)) {
            requests.push(request::delete_address(found.index, *address));
        }
        for address in bridge.addresses.iter().filter(|address| !there.contains(address)) {
            requests.push(request::new_address(found.index, *address));
        }
        if bridge.addresses.iter().any(is_ipv6) {
            requests.push(request::link_local(found.index, GATEWAY_LINK_LOCAL));
        }
        requests.push(request::raise(found.index, Some(bridge.mtu)));
        self.socket
            .request(requests)
            .map_err(named("configure bridge", &bridge.name))?;
        if bridge.forwards {
            setting::let_the_host_forward(bridge)?;
        }
        Ok(())
    }

    /// Removes a link of this scope; one that is gone is no error. The other end of an endpoint goes with it.
    pub fn remove_link(&self, name: &str) -> Result<()> {
        check_name(name)?;
        match self.find(name)? {
            None => Ok(()),
            Some(found) if self.owns(&found) => {
                let removed = self.socket.request(vec![request::delete_link(found.index)]);
                removed.or_else(gone_is_done).map_err(named("remove", name))
            }
            Some(_) => Err(LinkError::Foreign {
                name: name.to_owned(),
            }),
        }
    }

    /// Puts a link into a network namespace: afterwards `lo` and the link are up and everything can be reached that routes and firewall
    /// let through. Nothing but a raised `lo` is left on failure. Apply the firewall before the first program runs inside, and have what this gives
    /// announced behind that.
    pub fn attach(&self, netns: BorrowedFd<'_>, endpoint: &Endpoint) -> Result<Attached> {
        check_endpoint(endpoint)?;
        let bridge = match self.find(&endpoint.bridge)? {
            Some(found) if self.owns(&found) && found.kind == "bridge" => found.index,
            Some(_) => {
                return Err(LinkError::Foreign {
                    name: endpoint.bridge.clone(),
                });
            }
            None => {
                return Err(LinkError::NoBridge {
                    name: endpoint.bridge.clone(),
                });
            }
        };
        let pair = request::new_pair(endpoint, bridge, self.scope.group(), netns.as_raw_fd());
        self.socket
            .request(vec![pair])
            .map_err(named("make link", &endpoint.host_link))?;
        let done = self.complete_pair(netns, endpoint);
        if done.is_err() {
            self.undo(&endpoint.host_link);
        }
        done
    }

    fn complete_pair(&self, netns: BorrowedFd<'_>, endpoint: &Endpoint) -> Result<Attached> {
        let host_link = &endpoint.host_link;
        self.socket
            .request(vec![
                request::settle(0, host_link),
                request::raise_port(host_link),
            ])
            .map_err(named("raise", host_link))?;
        let (inside, found) = find_inside(netns, &endpoint.name)?;
        inside
            .request(requests_inside(found.index, endpoint))
            .map_err(named("configure", &endpoint.name))?;
        // The bridge too: its first port is what raises it, and the host's own packets, a question for a MAC among them, would be dropped before.
        self.wait_for(host_link)?;
        self.wait_for(&endpoint.bridge)?;
        Ok(Attached {
            inside,
            index: found.index,
            mac: endpoint.mac,
            name: endpoint.name.clone(),
        })
    }

    /// Waits until a link carries packets: it learns asynchronously that there is somebody at the other end, and drops the first ones until then,
    /// for which TCP and ARP wait a second. Since Linux 6.8 a question is answered only when that has happened.
    fn wait_for(&self, link: &str) -> Result<()> {
        for _ in 0..PORT_ATTEMPTS {
            if self.find(link)?.is_some_and(|found| found.is_operational) {
                return Ok(());
            }
            std::thread::park_timeout(PORT_PAUSE);
        }
        tracing::warn!(link, "ignoring that a link does not carry packets yet");
        Ok(())
    }

    /// Exchanges the default routes of a link inside: those of `before` that `now` lacks go, those that it lacks come. Two links of one namespace
    /// cannot both have one of a family: take it from the one before it is given to the other. One that went already is no error.
    pub fn reroute(&self, netns: BorrowedFd<'_>, before: &Endpoint, now: &Endpoint) -> Result<()> {
        check_endpoint(now)?;
        let (socket, found) = find_inside(netns, &now.name)?;
        let gone = before
            .gateways
            .iter()
            .filter(|gateway| !now.gateways.contains(gateway));
        let come = now
            .gateways
            .iter()
            .filter(|gateway| !before.gateways.contains(gateway));
        for gateway in gone {
            let gone = socket.request(vec![request::delete_default_route(found.index, *gateway)]);
            gone.or_else(no_route_is_done)
                .map_err(named("route", &now.name))?;
        }
        let requests: Vec<_> = come
            .map(|gateway| request::new_default_route(found.index, *gateway))
            .collect();
        if requests.is_empty() {
            return Ok(());
        }
        socket.request(requests).map_err(named("route", &now.name))
    }

    /// Takes a link out of whatever namespace it leads into, by the name of its end on the host; one that is gone is no error.
    pub fn detach(&self, host_link: &str) -> Result<()> {
        self.remove_link(host_link)
    }

    /// The same for a namespace that is at its end: returns as soon as nothing passes the link any more, and removes it in a thread of its own,
    /// since the kernel takes some twenty milliseconds for that. What goes wrong there is logged; [`Host::own_links`] still names it then.
    pub fn release(&self, host_link: &str) -> Result<()> {
        check_name(host_link)?;
        let found = match self.find(host_link)? {
            None => return Ok(()),
            Some(found) if self.owns(&found) => found,
            Some(_) => {
                return Err(LinkError::Foreign {
                    name: host_link.to_owned(),
                });
            }
        };
        let lowered = self.socket.request(vec![request::lower(found.index)]);
        lowered
            .or_else(gone_is_done)
            .map_err(named("take down", host_link))?;
        let name = host_link.to_owned();
        let remove = move || {
            let removed = Socket::open(SockProtocol::NetlinkRoute, 0)
                .and_then(|socket| socket.request(vec![request::delete_link(found.index)]));
            if let Err(error) = removed.or_else(gone_is_done) {
                tracing::warn!(link = name, %error, "ignoring a link that could not be removed");
            }
        };
        let started = std::thread::Builder::new()
            .name("release".to_owned())
            .spawn(remove);
        if started.is_err() {
            // Without a thread to spare it takes its time.
            return self.remove_link(host_link);
        }
        Ok(())
    }

    /// Takes any link of the host up or down, whoever made it. Only what the device's owner declared is to be turned so.
    pub fn turn(&self, name: &str, is_up: bool) -> Result<()> {
        check_name(name)?;
        let found = self.find(name)?.ok_or_else(|| LinkError::NoLink {
            name: name.to_owned(),
        })?;
        let message = match is_up {
            true => request::raise(found.index, None),
            false => request::lower(found.index),
        };
        self.socket.request(vec![message]).map_err(named("turn", name))
    }

    /// The links that bear the scope's mark, for cleaning up after a crash.
    pub fn own_links(&self) -> Result<Vec<OwnLink>> {
        let links = query::links(&self.socket).map_err(named("list", "links"))?;
        let own = links.into_iter().filter(|link| self.owns(link));
        Ok(own
            .map(|link| OwnLink {
                kind: if link.kind == "bridge" {
                    LinkKind::Bridge
                } else {
                    LinkKind::Endpoint
                },
                name: link.name,
            })
            .collect())
    }

    /// Subnets that the host has addresses in or routes to, without default routes and link-local ones: what a new network must not
    /// overlap. Those of own bridges are among them.
    pub fn taken_subnets(&self) -> Result<Vec<IpNet>> {
        let mut taken = query::all_addresses(&self.socket).map_err(named("read", "the host's addresses"))?;
        taken.extend(query::routes(&self.socket).map_err(named("read", "the host's routes"))?);
        taken.sort_unstable();
        taken.dedup();
        Ok(taken)
    }

    fn find(&self, name: &str) -> Result<Option<Found>> {
        query::link(&self.socket, name).map_err(named("look up", name))
    }

    fn owns(&self, found: &Found) -> bool {
        found.group == self.scope.group()
    }

    fn undo(&self, name: &str) {
        if let Err(error) = self.remove_link(name) {
            tracing::warn!(link = name, %error, "ignoring that a half-made link could not be removed");
        }
    }
}

/// A link that was put into a namespace.
#[derive(Debug)]
#[must_use = "nobody hears of its address before it is announced"]
pub struct Attached {
    inside: Socket,
    index: u32,
    mac: Mac,
    name: String,
}

impl Attached {
    /// Tells whoever knew the address with another MAC of this one. Behind the firewall's word, which keeps a link that it does not know silent.
    pub fn announce(&self) -> Result<()> {
        self.inside
            .request(vec![request::announce(self.index, self.mac)])
            .map_err(named("announce", &self.name))
    }
}

/// What is done by a socket inside: routes last, since they lead through the addresses and the link.
fn requests_inside(index: u32, endpoint: &Endpoint) -> Vec<Message> {
    let mut requests = vec![request::raise_loopback(), request::settle(index, &endpoint.name)];
    if endpoint.addresses.iter().any(is_ipv6) {
        requests.push(request::link_local(index, endpoint.mac.link_local()));
    }
    let addresses = endpoint.addresses.iter();
    requests.extend(addresses.map(|address| request::new_address(index, *address)));
    requests.push(request::raise(index, None));
    let gateways = endpoint.gateways.iter();
    requests.extend(gateways.map(|gateway| request::new_default_route(index, *gateway)));
    requests
}

/// A socket inside, and a link there.
fn find_inside(netns: BorrowedFd<'_>, name: &str) -> Result<(Socket, Found)> {
    let socket = open_within(netns, || Socket::open(SockProtocol::NetlinkRoute, 0))
        .map_err(|source| LinkError::Namespace {
            name: name.to_owned(),
            source,
        })?
        .map_err(named("open netlink inside, for", name))?;
    let found = query::link(&socket, name)
        .map_err(named("look up", name))?
        .ok_or_else(|| LinkError::Netlink {
            what: "find inside",
            name: name.to_owned(),
            source: NetlinkError::Malformed,
        })?;
    Ok((socket, found))
}

fn is_ipv6(network: &IpNet) -> bool {
    matches!(network, IpNet::V6(_))
}

/// Refuses what the kernel would not take (dev_valid_name, and `%d` as a pattern), and everything that reads badly in a rule or a path.
fn check_name(name: &str) -> Result<()> {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if name.is_empty() || name.len() > 15 || !name.bytes().all(is_letter) || name == "." || name == ".." {
        return Err(LinkError::Name {
            name: name.to_owned(),
        });
    }
    Ok(())
}

fn check_sizes(name: &str, mtu: u32, addresses: &[IpNet]) -> Result<()> {
    let least = if addresses.iter().any(is_ipv6) {
        MTU_MIN_IPV6
    } else {
        MTU_MIN
    };
    if !(least..=MTU_MAX).contains(&mtu) {
        return Err(LinkError::Mtu {
            name: name.to_owned(),
            mtu,
            least,
        });
    }
    if addresses.len() > ADDRESSES_MAX {
        return Err(LinkError::TooMany {
            name: name.to_owned(),
        });
    }
    Ok(())
}

fn check_endpoint(endpoint: &Endpoint) -> Result<()> {
    for name in [&endpoint.host_link, &endpoint.bridge, &endpoint.name] {
        check_name(name)?;
    }
    check_sizes(&endpoint.name, endpoint.mtu, &endpoint.addresses)?;
    let of_ipv4 = endpoint
        .gateways
        .iter()
        .filter(|gateway| gateway.is_ipv4())
        .count();
    if of_ipv4 > 1 || endpoint.gateways.len() - of_ipv4 > 1 {
        return Err(LinkError::TooMany {
            name: endpoint.name.clone(),
        });
    }
    let is_reachable = |gateway: &IpAddr| endpoint.addresses.iter().any(|address| address.contains(gateway));
    if let Some(gateway) = endpoint.gateways.iter().find(|gateway| !is_reachable(gateway)) {
        return Err(LinkError::Gateway {
            name: endpoint.name.clone(),
            gateway: *gateway,
        });
    }
    Ok(())
}

/// Files below `/proc/sys/net`, which belong to the network namespace of the thread that opens them.
mod setting {
    use super::*;

    const ROOT: &str = "/proc/sys/net";

    /// A bridge's own settings. Router advertisements and redirects come from containers and would give the host addresses and routes
    /// (CVE-2020-13401); a packet that names its own way would leave by another than the one that the firewall judged. A bridge without
    /// IPv6 addresses speaks no IPv6. Ports published on 127.0.0.1 need `route_localnet`; the firewall drops what comes from a bridge for
    /// that network.
    pub fn write_own(bridge: &Bridge) -> Result<()> {
        let name = &bridge.name;
        let has_ipv6 = bridge.addresses.iter().any(is_ipv6);
        let disabled = if has_ipv6 { "0" } else { "1" };
        write_where_there(format!("ipv6/conf/{name}/accept_ra"), "0")?;
        write_where_there(format!("ipv6/conf/{name}/accept_redirects"), "0")?;
        write_where_there(format!("ipv6/conf/{name}/disable_ipv6"), disabled)?;
        write(format!("ipv4/conf/{name}/accept_redirects"), "0")?;
        write(format!("ipv4/conf/{name}/accept_source_route"), "0")?;
        write(format!("ipv4/conf/{name}/route_localnet"), "1")
    }

    pub fn let_the_host_forward(bridge: &Bridge) -> Result<()> {
        if bridge.addresses.iter().any(|address| !is_ipv6(address)) {
            raise("ipv4/ip_forward")?;
        }
        if bridge.addresses.iter().any(is_ipv6) {
            raise("ipv6/conf/all/forwarding")?;
        }
        Ok(())
    }

    fn raise(name: &str) -> Result<()> {
        let path = PathBuf::from(ROOT).join(name);
        if std::fs::read_to_string(&path).is_ok_and(|value| value.trim() != "0") {
            return Ok(());
        }
        write(name.to_owned(), "1")?;
        tracing::info!(
            setting = name,
            "the host forwards from now on, for containers to reach other networks"
        );
        Ok(())
    }

    /// For settings of protocols that the kernel may lack.
    fn write_where_there(name: String, value: &'static str) -> Result<()> {
        match write(name, value) {
            Err(LinkError::Setting { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    fn write(name: String, value: &'static str) -> Result<()> {
        let path = PathBuf::from(ROOT).join(name);
        // Writing what stands there already would need a writable /proc/sys for nothing.
        if std::fs::read_to_string(&path).is_ok_and(|there| there.trim() == value) {
            return Ok(());
        }
        std::fs::write(&path, value).map_err(|source| LinkError::Setting { path, value, source })
    }
}
