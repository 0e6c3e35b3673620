//! What packets of this scope's bridges may do.
//!
//! Owns the scope's two nftables tables and touches no other.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

use crate::Scope;
use crate::address::Mac;
use crate::ports::Protocol;

/// Everything that is to hold at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// All networks.
    pub networks: Vec<Network>,
    /// All links into namespaces.
    pub endpoints: Vec<Endpoint>,
    /// All published ports.
    pub published: Vec<Published>,
}

/// A network as packets see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its bridge.
    pub bridge: String,
    /// Reaches nothing but itself, and nothing reaches it.
    pub internal: bool,
    /// Whether its endpoints may talk to each other without publishing.
    pub icc: bool,
    /// Whether what leaves the bridge for the outside bears the host's address.
    pub masquerade: bool,
}

/// One link into a namespace as packets see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The end on the host.
    pub host_link: String,
    /// The bridge it belongs to.
    pub bridge: String,
    /// The only hardware address it may send from.
    pub mac: Mac,
    /// The only addresses it may send from.
    pub addresses: Vec<IpAddr>,
    /// What it may reach; `None`: whatever its network may.
    pub egress: Option<Egress>,
}

/// What one endpoint may reach: nothing, but what is listed. What answers a connection from outside is not asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Egress {
    /// Destinations outside of its bridge, the host's own addresses and ports included.
    pub allowed: Vec<Allowed>,
    /// Addresses of endpoints on the same bridge that it talks to. Both have to list each other; one without [`Egress`] lists everyone.
    pub peers: Vec<IpAddr>,
}

/// One destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Where. For names see [`Firewall::admit`].
    pub network: IpNet,
    /// Over what.
    pub service: Service,
}

/// Protocol and ports of a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// Every protocol and port.
    Any,
    /// These ports.
    Ports {
        /// Of this protocol.
        protocol: Protocol,
        /// First to last.
        ports: RangeInclusive<u16>,
    },
}

/// A published port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The host's address; unspecified: every one of that family.
    pub host_address: IpAddr,
    /// The host's port.
    pub host_port: u16,
    /// Over what.
    pub protocol: Protocol,
    /// Where it leads: of the same family as `host_address`. Ports of the other family are a [`crate::ports::Proxy`]'s.
    pub target: SocketAddr,
    /// The target's bridge.
    pub bridge: String,
}

/// An address that a name was resolved to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Where.
    pub address: IpAddr,
    /// Over what.
    pub service: Service,
    /// For how long; raised to [`ADMITTED_SECONDS_MIN`] and cut to [`ADMITTED_SECONDS_MAX`].
    pub lifetime: Duration,
}

/// A name's address stays admitted at least this long: resolvers and programs keep an answer a little past its time.
pub const ADMITTED_SECONDS_MIN: u64 = 60;
/// And at most this long, so that a resolver cannot open a hole for ever.
pub const ADMITTED_SECONDS_MAX: u64 = 86_400;

/// What could not be done to the firewall.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FirewallError {
    /// The skeleton's answer.
    #[error("the firewall is not built yet")]
    NotBuilt,
}

/// The scope's tables.
#[derive(Debug)]
pub struct Firewall {
    _scope: Scope,
}

impl Firewall {
    /// Opens a netlink socket in the caller's network namespace; changes nothing.
    pub fn open(scope: &Scope) -> Result<Self, FirewallError> {
        Ok(Self {
            _scope: scope.clone(),
        })
    }

    /// Makes everything wanted hold, in one transaction: all of it or nothing. Sends what differs from the last call; the first call, and
    /// one after the tables were taken away, replaces the tables.
    pub fn apply(&self, _wanted: &Wanted) -> Result<(), FirewallError> {
        Err(FirewallError::NotBuilt)
    }

    /// Puts everything applied last, and what was admitted since and still lives, into force again: after [`Watch::lost`].
    pub fn restore(&self) -> Result<(), FirewallError> {
        Err(FirewallError::NotBuilt)
    }

    /// Lets an endpoint, by its address, reach what a name was resolved to, for a time. Returns when it holds.
    pub fn admit(&self, _endpoint: IpAddr, _admitted: &[Admitted]) -> Result<(), FirewallError> {
        Err(FirewallError::NotBuilt)
    }

    /// Removes the scope's tables; that there are none is no error.
    pub fn remove(&self) -> Result<(), FirewallError> {
        Err(FirewallError::NotBuilt)
    }

    /// Watches over the tables.
    pub fn watch(&self) -> Result<Watch, FirewallError> {
        Err(FirewallError::NotBuilt)
    }

    /// Base chains of other tables, and iptables' ones, that drop by their policy what is forwarded: they drop our packets too, whatever our
    /// tables say. Named as `family table chain`, for a warning.
    pub fn foreign_drops(&self) -> Result<Vec<String>, FirewallError> {
        Err(FirewallError::NotBuilt)
    }
}

/// Notices when somebody else takes the scope's tables, or a part of them, away.
#[derive(Debug)]
pub struct Watch {}

impl Watch {
    /// Ends when something is missing. Restore, and call it again.
    pub async fn lost(&mut self) -> Result<(), FirewallError> {
        Err(FirewallError::NotBuilt)
    }
}
