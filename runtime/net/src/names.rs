//! The DNS server at 127.0.0.11 of a network namespace.
//!
//! Owns its sockets and the wire format. Which names there are it asks for ([`Names`]); the rest it forwards from the host's namespace, as it
//! came. Keeps no answers: the upstreams do.
//!
//! ```text
//!  inside                                            the host
//!   resolver ──► 127.0.0.11:53 ─(redirect)─► sockets of ours ──► names, or an upstream server
//! ```
//!
//! The sockets have ports that the kernel chose, and a table inside leads port 53 of 127.0.0.11 to them, so that a container may itself
//! serve names at `0.0.0.0:53`. Whoever has CAP_NET_ADMIN inside may take the table away, and harms nobody else by it.
//!
//! Queries come from hostile programs and answers from anywhere: both are bounded in number, size and time, an upstream is asked from a fresh
//! port with an id that cannot be guessed, and only what answers the question under that id is believed.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kakoi_sys::network::open_within;
use kakoi_sys::{CallError, Errno};
use nix::sys::socket::SockProtocol;
use tokio::task::JoinHandle;

use crate::netlink::{NetlinkError, Socket};
use crate::nft::{
    Batch, Chain, Element, Family, Field, Header, Hook, HookNumber, Load, Set, Step, Table, concat,
};

mod forward;
mod host;
mod server;
#[cfg(test)]
mod tests;
mod wire;

use host::Upstreams;
pub use host::host_upstreams;

/// Where a namespace's resolver asks: `nameserver 127.0.0.11`.
pub const SERVER: IpAddr = IpAddr::V4(OWN);
const OWN: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The table inside. It is the only one of Kakoi there, so that every daemon may call it the same.
const TABLE_NAME: &str = "kakoi-names";

const TABLE: Table = Table {
    family: Family::Ipv4,
    sets: &[Set {
        name: "servers",
        key: &[Field::Ipv4, Field::Protocol, Field::Port],
        data: &[Field::Ipv4, Field::Port],
        ranges: false,
        timeouts: false,
    }],
    chains: &[Chain {
        name: "output",
        hook: Some(Hook {
            kind: "nat",
            number: HookNumber::Output,
            priority: -100,
        }),
        rules: &[&[Step::Dnat(
            Family::Ipv4,
            &[
                Load::Payload(Header::Network, 16, 4),
                Load::Meta(16, 1),
                Load::Payload(Header::Transport, 2, 2),
            ],
            "servers",
        )]],
    }],
};

/// Upstream servers that are asked at most; resolvers know three (MAXNS).
const UPSTREAMS_MAX: usize = 8;

/// What one server knows, as seen from the namespace that it serves. Called on the runtime's threads: answers from memory.
pub trait Names: Send + Sync + 'static {
    /// Addresses of a name, of both families; `None`: not one of ours, ask the upstreams. Lower case, without the final dot.
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>>;

    /// The name of an address; `None`: not one of ours, ask the upstreams.
    fn name(&self, address: IpAddr) -> Option<String>;

    /// Whether a name that is not ours may be asked upstream; else the answer is REFUSED. Empty for names that are no text.
    fn may_ask(&self, name: &str) -> bool;

    /// Whether [`Names::resolved`] is to be called: it costs a thread for each answer.
    fn wants_resolved(&self) -> bool {
        true
    }

    /// Addresses that an upstream gave for a name, before the answer is sent on: lets the firewall through. Called on a thread that may block.
    fn resolved(&self, name: &str, addresses: &[(IpAddr, Duration)]);
}

/// What could not be done for names.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NamesError {
    /// The namespace could not be entered.
    #[error("could not enter the network namespace for its name server")]
    Namespace(#[source] CallError),
    /// The sockets.
    #[error("could not open the name server's sockets")]
    Socket(#[source] io::Error),
    /// The table inside.
    #[error("could not lead 127.0.0.11:53 to the name server")]
    Redirect(#[source] NetlinkError),
}

/// A server's sockets inside a namespace, with the redirect that leads 127.0.0.11:53 to them.
#[derive(Debug)]
pub struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Sockets {
    /// Opens them; a redirect of an earlier daemon is replaced. `lo` must be up. Blocking.
    pub fn open(netns: BorrowedFd<'_>) -> Result<Self, NamesError> {
        open_within(netns, || {
            let open = || Ok((UdpSocket::bind((OWN, 0))?, TcpListener::bind((OWN, 0))?));
            let (udp, tcp) = open().map_err(NamesError::Socket)?;
            let ports = udp
                .local_addr()
                .and_then(|udp| Ok((udp.port(), tcp.local_addr()?.port())));
            let (to_udp, to_tcp) = ports.map_err(NamesError::Socket)?;
            redirect(to_udp, to_tcp).map_err(NamesError::Redirect)?;
            Ok(Self { udp, tcp })
        })
        .map_err(NamesError::Namespace)?
    }
}

fn redirect(to_udp: u16, to_tcp: u16) -> Result<(), NetlinkError> {
    const UDP: u8 = 17;
    const TCP: u8 = 6;
    let socket = Socket::open(SockProtocol::NetlinkNetFilter, 0)?;
    let element = |protocol: u8, port: u16| Element {
        data: Some(concat(&[&OWN.octets(), &port.to_be_bytes()])),
        ..Element::of(concat(&[&OWN.octets(), &[protocol], &53_u16.to_be_bytes()]))
    };
    let put = |anew: bool| {
        let mut batch = Batch::new(TABLE_NAME);
        if anew {
            batch.remove_table(TABLE.family);
        }
        batch.make_table(&TABLE);
        batch.add(
            (TABLE.family, "servers"),
            &[element(UDP, to_udp), element(TCP, to_tcp)],
        );
        batch.send(&socket)
    };
    // A table that goes costs the kernel ten milliseconds of waiting for its readers, so that nothing is removed where nothing is.
    match put(false) {
        Err(error) if error.errno() == Some(Errno::EEXIST) => put(true),
        done => done,
    }
}

/// Answers queries until it is dropped.
#[derive(Debug)]
pub struct Server {
    task: JoinHandle<()>,
}

impl Server {
    /// Starts on the current tokio runtime. `upstreams` are asked in this order, from the network namespace of the runtime's threads; the
    /// server itself and what is beyond the eighth are left out.
    pub fn start(
        sockets: Sockets,
        names: Arc<dyn Names>,
        mut upstreams: Vec<SocketAddr>,
    ) -> Result<Self, NamesError> {
        upstreams.retain(|upstream| upstream.ip() != SERVER);
        upstreams.truncate(UPSTREAMS_MAX);
        Self::begin(sockets, names, Upstreams::Given(upstreams))
    }

    /// The same with the host's upstreams ([`host_upstreams`]) as they are when a query comes: a gateway changes networks while its containers
    /// run. `root` is `/` but in tests.
    pub fn start_following_host(
        sockets: Sockets,
        names: Arc<dyn Names>,
        root: &Path,
    ) -> Result<Self, NamesError> {
        Self::begin(sockets, names, Upstreams::of_host(root))
    }

    fn begin(sockets: Sockets, names: Arc<dyn Names>, upstreams: Upstreams) -> Result<Self, NamesError> {
        let adopt = || {
            sockets.udp.set_nonblocking(true)?;
            sockets.tcp.set_nonblocking(true)?;
            let udp = tokio::net::UdpSocket::from_std(sockets.udp)?;
            Ok((udp, tokio::net::TcpListener::from_std(sockets.tcp)?))
        };
        let (udp, tcp) = adopt().map_err(NamesError::Socket)?;
        let answering = server::Answering::new(names, upstreams);
        Ok(Self {
            task: tokio::spawn(server::run(udp, tcp, answering)),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}
