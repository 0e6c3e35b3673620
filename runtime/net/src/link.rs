//! Bridges on the host and links into network namespaces.
//!
//! Owns every link of its scope. Knows neither who uses a namespace nor which addresses are free.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use ipnet::IpNet;

use crate::Scope;
use crate::address::Mac;

/// A network's bridge on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// The interface's name, 1 to 15 bytes.
    pub name: String,
    /// The host's own addresses on it: the gateways, each with the subnet's prefix length. Empty for a bridge that the host has no part in.
    pub addresses: Vec<IpNet>,
    /// In bytes, 68 to 65535; from 1280 where there is an IPv6 address.
    pub mtu: u32,
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
    /// The skeleton's answer.
    #[error("links are not built yet")]
    NotBuilt,
    /// A name that the kernel would not take, or would take for a pattern.
    #[error(
        "{name:?} is no interface name: 1 to 15 bytes without blanks, slashes, colons or percent signs, and not a dot"
    )]
    Name {
        /// As given.
        name: String,
    },
    /// A link of that name is there and bears no mark of this scope.
    #[error("interface {name} belongs to someone else")]
    Foreign {
        /// Its name.
        name: String,
    },
}

/// The network namespace that the caller's thread is in when it opens this: the host's.
#[derive(Debug)]
pub struct Host {
    _scope: Scope,
}

impl Host {
    /// Opens a netlink socket in the caller's network namespace.
    pub fn open(scope: &Scope) -> Result<Self, LinkError> {
        Ok(Self {
            _scope: scope.clone(),
        })
    }

    /// Makes a bridge, or changes one of this scope so that it is as wanted: addresses, MTU, up. Writes `net.ipv4.ip_forward` and, with IPv6
    /// addresses, `net.ipv6.conf.all.forwarding` where they are off, and says so in the log: nothing leaves a bridge without them.
    pub fn ensure_bridge(&self, _bridge: &Bridge) -> Result<(), LinkError> {
        Err(LinkError::NotBuilt)
    }

    /// Removes a link of this scope; one that is gone is no error. The other end of an endpoint goes with it.
    pub fn remove_link(&self, _name: &str) -> Result<(), LinkError> {
        Err(LinkError::NotBuilt)
    }

    /// Puts a link into a network namespace: afterwards `lo` and the link are up and everything can be reached that routes and firewall
    /// let through. Nothing is left on failure. Apply the firewall before the first program runs inside.
    pub fn attach(&self, _netns: BorrowedFd<'_>, _endpoint: &Endpoint) -> Result<(), LinkError> {
        Err(LinkError::NotBuilt)
    }

    /// Takes a link out of whatever namespace it leads into, by the name of its end on the host; one that is gone is no error.
    pub fn detach(&self, host_link: &str) -> Result<(), LinkError> {
        self.remove_link(host_link)
    }

    /// The links that bear the scope's mark, for cleaning up after a crash.
    pub fn own_links(&self) -> Result<Vec<OwnLink>, LinkError> {
        Err(LinkError::NotBuilt)
    }

    /// Subnets that the host has addresses in or routes to, without default routes: what a new network must not overlap.
    pub fn taken_subnets(&self) -> Result<Vec<IpNet>, LinkError> {
        Err(LinkError::NotBuilt)
    }
}
