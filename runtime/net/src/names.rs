//! The DNS server at 127.0.0.11 of a network namespace.
//!
//! Owns its sockets and the wire format. Which names there are it asks for ([`Names`]).

use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Where a namespace's resolver asks: `nameserver 127.0.0.11`.
pub const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 11));

/// What one server knows, as seen from the namespace that it serves. Called on the runtime's threads: answers from memory.
pub trait Names: Send + Sync + 'static {
    /// Addresses of a name, of both families; `None`: not one of ours, ask the upstreams. Lower case, without the final dot.
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>>;

    /// The name of an address; `None`: not one of ours, ask the upstreams.
    fn name(&self, address: IpAddr) -> Option<String>;

    /// Whether a name that is not ours may be asked upstream; else the answer is REFUSED.
    fn may_ask(&self, name: &str) -> bool;

    /// Addresses that an upstream gave for a name, before the answer is sent on: lets the firewall through. Called on a thread that may block.
    fn resolved(&self, name: &str, addresses: &[(IpAddr, Duration)]);
}

/// What could not be done for names.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NamesError {
    /// The skeleton's answer.
    #[error("names are not built yet")]
    NotBuilt,
}

/// A server's sockets inside a namespace, with the redirect that leads 127.0.0.11:53 to them.
#[derive(Debug)]
pub struct Sockets {}

impl Sockets {
    /// Opens them; a redirect of an earlier daemon is replaced. Blocking.
    pub fn open(_netns: BorrowedFd<'_>) -> Result<Self, NamesError> {
        Err(NamesError::NotBuilt)
    }
}

/// Answers queries until it is dropped.
#[derive(Debug)]
pub struct Server {}

impl Server {
    /// Starts on the current tokio runtime. `upstreams` are asked in this order, from the network namespace of the runtime's threads.
    pub fn start(
        _sockets: Sockets,
        _names: Arc<dyn Names>,
        _upstreams: Vec<SocketAddr>,
    ) -> Result<Self, NamesError> {
        Err(NamesError::NotBuilt)
    }
}

/// The host's upstream servers: those of `/etc/resolv.conf`, or, where that names systemd-resolved's stub, those it asks itself
/// (`/run/systemd/resolve/resolv.conf`). Never a loopback address of resolved, nor [`SERVER`]. `root` is `/` but in tests.
pub fn host_upstreams(_root: &Path) -> Vec<SocketAddr> {
    Vec::new()
}
