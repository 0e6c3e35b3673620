//! Ports of the host that are given to containers.
//!
//! Owns the sockets that keep a published port from everyone else, and the proxy for what DNAT cannot carry. Nearly everything goes by the
//! firewall and never comes here: what comes is sent to an IPv6 address for a container without one, or to `::1`.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;

use socket2::{Domain, Socket, Type};
use tokio::sync::watch;
use tokio::task::JoinHandle;

mod proxy;
#[cfg(test)]
mod tests;

/// Connections to a reserved port that nobody has accepted yet.
const BACKLOG: i32 = 128;

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
    /// Somebody has it. dockerd's text.
    #[error("Bind for {address} failed: port is already allocated")]
    Taken {
        /// The host's address and port.
        address: SocketAddr,
    },
    /// A range without a port in it.
    #[error("{first} to {last} is no range of ports")]
    Range {
        /// As given.
        first: u16,
        /// As given.
        last: u16,
    },
    /// The kernel refused: the address is not the host's, the port is privileged, or the protocol unknown.
    #[error("could not bind {address}/{protocol}")]
    Bind {
        /// The host's address and port.
        address: SocketAddr,
        /// The transport.
        protocol: Protocol,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The proxy's socket.
    #[error("could not serve {address}/{protocol}")]
    Serve {
        /// The host's address and port.
        address: SocketAddr,
        /// The transport.
        protocol: Protocol,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A port of the host that is ours while this lives.
#[derive(Debug)]
pub struct Reservation {
    address: SocketAddr,
    protocol: Protocol,
    socket: Socket,
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
/// taken is refused as [`PortError::Taken`]; of a longer range its last port is named. An IPv6 address takes no port of IPv4. Ports below 1024
/// need CAP_NET_BIND_SERVICE.
pub fn reserve(
    address: IpAddr,
    ports: RangeInclusive<u16>,
    protocol: Protocol,
) -> Result<Reservation, PortError> {
    let (first, last) = (*ports.start(), *ports.end());
    let mut refused = PortError::Range { first, last };
    for port in ports {
        let address = SocketAddr::new(address, port);
        match bind(address, protocol) {
            Ok(reservation) => return Ok(reservation),
            Err(source) if source.kind() == io::ErrorKind::AddrInUse => {
                refused = PortError::Taken { address };
            }
            Err(source) => {
                return Err(PortError::Bind {
                    address,
                    protocol,
                    source,
                });
            }
        }
    }
    Err(refused)
}

fn bind(address: SocketAddr, protocol: Protocol) -> io::Result<Reservation> {
    let (kind, number) = match protocol {
        Protocol::Tcp => (Type::STREAM, socket2::Protocol::TCP),
        Protocol::Udp => (Type::DGRAM, socket2::Protocol::UDP),
        Protocol::Sctp => (Type::STREAM, socket2::Protocol::from(libc::IPPROTO_SCTP)),
    };
    let socket = Socket::new(Domain::for_address(address), kind, Some(number))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if protocol != Protocol::Udp {
        // Connections that ended a moment ago do not keep a port; who listens does.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    if protocol != Protocol::Udp {
        socket.listen(BACKLOG)?;
    }
    let bound = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok(Reservation {
        address: SocketAddr::new(address.ip(), bound.port()),
        protocol,
        socket,
    })
}

/// Whether DNAT alone cannot carry everything that is sent to a published port: the families differ, or `::1` is meant too.
pub fn needs_proxy(host_address: IpAddr, target: SocketAddr) -> bool {
    let is_differing = host_address.is_ipv4() != target.is_ipv4();
    is_differing || host_address.is_ipv6() && (host_address.is_unspecified() || host_address.is_loopback())
}

/// Answers, in this process, what reaches the reserved socket itself: carries it to a target, or refuses it. Ends when dropped, and with it what it
/// carried.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    protocol: Protocol,
    /// None where it refuses.
    target: Option<watch::Sender<SocketAddr>>,
    task: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts on the current tokio runtime, whose threads must be in the network namespace that leads to the target. Keeps the port as the
    /// reservation does. SCTP is not carried, which is logged.
    pub fn start(reservation: &Reservation, target: SocketAddr) -> Result<Self, PortError> {
        let (address, protocol) = (reservation.address, reservation.protocol);
        let (sender, targets) = watch::channel(target);
        Self::answering(reservation, Some(sender), |socket| {
            Ok(match protocol {
                Protocol::Tcp => {
                    let listener = tokio::net::TcpListener::from_std(TcpListener::from(socket))?;
                    Some(tokio::spawn(proxy::carry_connections(listener, targets)))
                }
                Protocol::Udp => {
                    let datagrams = tokio::net::UdpSocket::from_std(UdpSocket::from(socket))?;
                    Some(tokio::spawn(proxy::carry_datagrams(datagrams, targets)))
                }
                Protocol::Sctp => {
                    tracing::warn!(%address, %target, "ignoring SCTP that the firewall does not redirect: no proxy carries it");
                    None
                }
            })
        })
    }

    /// Resets every connection that comes to the reserved socket, for a port that the firewall redirects: one that was begun before it did, and whose
    /// client answers only now, would wait for ever, and whoever is refused tries again. Starts on the current tokio runtime. There is nothing to
    /// refuse in UDP.
    pub fn refuse(reservation: &Reservation) -> Result<Self, PortError> {
        let protocol = reservation.protocol;
        Self::answering(reservation, None, |socket| {
            if protocol == Protocol::Udp {
                return Ok(None);
            }
            let listener = tokio::net::TcpListener::from_std(TcpListener::from(socket))?;
            Ok(Some(tokio::spawn(proxy::refuse_connections(listener))))
        })
    }

    fn answering(
        reservation: &Reservation,
        target: Option<watch::Sender<SocketAddr>>,
        begin: impl FnOnce(Socket) -> io::Result<Option<JoinHandle<()>>>,
    ) -> Result<Self, PortError> {
        let (address, protocol) = (reservation.address, reservation.protocol);
        let adopt = || {
            let socket = reservation.socket.try_clone()?;
            socket.set_nonblocking(true)?;
            begin(socket)
        };
        let task = adopt().map_err(|source| PortError::Serve {
            address,
            protocol,
            source,
        })?;
        Ok(Self {
            address,
            protocol,
            target,
            task,
        })
    }

    /// Whether it carries what comes, or refuses it.
    pub fn is_carrying(&self) -> bool {
        self.target.is_some()
    }

    /// Carries what comes from now on to another target: connections that are being carried go on where they are, datagrams go to the new one.
    /// Nothing changes for one that refuses.
    pub fn retarget(&self, target: SocketAddr) {
        if let Some(targets) = &self.target {
            targets.send_replace(target);
        }
    }

    /// Whether it carries what comes to this reservation.
    pub fn serves(&self, reservation: &Reservation) -> bool {
        self.address == reservation.address && self.protocol == reservation.protocol
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
