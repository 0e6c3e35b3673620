//! Ports of the host that are given to containers.
//!
//! Owns the sockets that keep a published port from everyone else, and the proxy for what DNAT cannot carry.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

/// A transport that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// Why a port is not given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// The skeleton's answer.
    #[error("ports are not built yet")]
    NotBuilt,
    /// Somebody has it. dockerd's text.
    #[error("Bind for {address} failed: port is already allocated")]
    Taken {
        /// The host's address and port.
        address: SocketAddr,
    },
}

/// A port of the host that is ours while this lives.
#[derive(Debug)]
pub struct Reservation {
    address: SocketAddr,
    protocol: Protocol,
}

impl Reservation {
    /// Address and port; never port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The transport.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }
}

/// Reserves the first free port of a range, in the caller's network namespace. `0..=0` lets the kernel choose. A range of one port that is
/// taken is refused as [`PortError::Taken`]; of a longer range its last port is named.
pub fn reserve(
    _address: IpAddr,
    _ports: RangeInclusive<u16>,
    _protocol: Protocol,
) -> Result<Reservation, PortError> {
    Err(PortError::NotBuilt)
}

/// Whether DNAT alone cannot carry everything that is sent to a published port: the families differ, or `::1` is meant too.
pub fn needs_proxy(host_address: IpAddr, target: SocketAddr) -> bool {
    host_address.is_ipv6() || target.is_ipv6()
}

/// Carries, in this process, what reaches the reserved socket itself. Ends when dropped.
#[derive(Debug)]
pub struct Proxy {}

impl Proxy {
    /// Starts on the current tokio runtime. The reservation must outlive the proxy.
    pub fn start(_reservation: &Reservation, _target: SocketAddr) -> Result<Self, PortError> {
        Err(PortError::NotBuilt)
    }
}
