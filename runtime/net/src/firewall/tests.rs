//! The firewall for real: a host of the test's own, containers, and a machine outside, all network namespaces.

use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use socket2::{Domain, Type};

use super::*;
use crate::link::{Host, query, request};
use crate::netlink::{Attributes, Message};
use crate::nft::Element;
use crate::testing::{
    Namespace, attached, bridge, endpoint, on_a_fresh_host, scope, talk, with_and_without_br_netfilter,
};

mod device;
mod kept;
mod limited;
mod links;
mod reach;

const OUTSIDE4: &str = "192.0.2.2";
const OUTSIDE6: &str = "2001:db8::2";
const HOST4: &str = "192.0.2.1";
const HOST6: &str = "2001:db8::1";

/// A host between bridges and one machine outside.
pub(crate) struct World {
    host: Host,
    pub firewall: Firewall,
    pub outside: Namespace,
    wanted: Wanted,
}

impl World {
    /// The machine outside hangs on a link of another scope: for the firewall it is anybody's.
    pub fn new() -> Self {
        let other = Host::open(&scope("/run/other")).expect("root opens netlink");
        let ext = bridge("ext0", &["192.0.2.1/24", "2001:db8::1/64"]);
        other.ensure_bridge(&ext).expect("nothing is in the way");
        let link = endpoint(
            "vext",
            "ext0",
            &["192.0.2.2/24", "2001:db8::2/64", "192.0.2.3/24"],
        );
        let mut link = link;
        link.gateways.truncate(2);
        Self {
            outside: attached(&other, &link),
            host: Host::open(&scope("/run/kakoi")).expect("root opens netlink"),
            firewall: Firewall::open(&scope("/run/kakoi")).expect("root opens netlink"),
            wanted: Wanted::default(),
        }
    }

    /// Network N has 10.9.N.0/24 and fd00:N::/64.
    pub fn network(&mut self, number: u8, change: impl FnOnce(&mut Network)) {
        let name = format!("br{number}");
        let gateways = [format!("10.9.{number}.1/24"), format!("fd00:{number}::1/64")];
        self.host
            .ensure_bridge(&bridge(&name, &[&gateways[0], &gateways[1]]))
            .expect("nothing is in the way");
        let mut network = Network {
            bridge: name,
            internal: false,
            icc: true,
            masquerade: true,
        };
        change(&mut network);
        self.wanted.networks.push(network);
    }

    pub fn container(&mut self, network: u8, number: u8, egress: Option<Egress>) -> Namespace {
        let addresses = [
            format!("10.9.{network}.{number}/24"),
            format!("fd00:{network}::{number}/64"),
        ];
        let link = endpoint(
            &format!("v{network}-{number}"),
            &format!("br{network}"),
            &[&addresses[0], &addresses[1]],
        );
        self.wanted.endpoints.push(Endpoint {
            host_link: link.host_link.clone(),
            bridge: link.bridge.clone(),
            mac: link.mac,
            addresses: link.addresses.iter().map(IpNet::addr).collect(),
            egress,
        });
        attached(&self.host, &link)
    }

    fn publish(&mut self, host: &str, protocol: Protocol, target: &str) {
        let (host, target): (SocketAddr, SocketAddr) = (address(host), address(target));
        let network = match target.ip() {
            IpAddr::V4(address) => u16::from(address.octets()[2]),
            IpAddr::V6(address) => address.segments()[1],
        };
        self.wanted.published.push(Published {
            host_address: host.ip(),
            host_port: host.port(),
            protocol,
            target,
            bridge: format!("br{network}"),
        });
    }

    pub fn apply(&self) {
        self.firewall
            .apply(&self.wanted)
            .unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)));
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn allowed(network: &str, protocol: Protocol, ports: RangeInclusive<u16>) -> Allowed {
    Allowed {
        network: network.parse().expect("a network"),
        service: Service::Ports { protocol, ports },
    }
}

fn egress(allowed: &[Allowed], peers: &[&str]) -> Egress {
    Egress {
        allowed: allowed.to_vec(),
        peers: peers.iter().map(|peer| ip(peer)).collect(),
    }
}

/// That a connection is refused at once, by a packet that says it is prohibited.
pub(crate) fn assert_rejected(from: &Namespace, to: &str) {
    let error = from.connect(to).expect_err(to);
    let kinds = [ErrorKind::HostUnreachable, ErrorKind::PermissionDenied];
    assert!(kinds.contains(&error.kind()), "{to}: {error}");
}

/// A connection that was begun: its first packet is on its way.
fn begin(from: &Namespace, to: &str) -> TcpStream {
    let to = address(to);
    let begun = from.within(|| {
        let socket = socket2::Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        let begun = socket.connect(&to.into()).expect_err("it takes a while");
        assert_eq!(begun.raw_os_error(), Some(libc::EINPROGRESS));
        socket
    });
    TcpStream::from(begun)
}

/// That nothing of what was begun has come, although something that was begun later has.
fn assert_silent(begun: &TcpStream, listener: &TcpListener) {
    listener.set_nonblocking(true).expect("a socket");
    let none = listener.accept().expect_err("nobody came");
    assert_eq!(none.kind(), ErrorKind::WouldBlock);
    assert_eq!(
        begun.peer_addr().expect_err("not connected").kind(),
        ErrorKind::NotConnected
    );
}

fn receive(socket: &UdpSocket) -> (String, SocketAddr) {
    let mut bytes = [0; 64];
    let (count, from) = socket.recv_from(&mut bytes).expect("something comes");
    (String::from_utf8_lossy(&bytes[..count]).into_owned(), from)
}

/// Names of all tables, with their families.
fn tables(firewall: &Firewall) -> Vec<(u8, String)> {
    let mut tables = Vec::new();
    let question = crate::netlink::Message::new(10 << 8 | 1, libc::NLM_F_DUMP, &[0; 4]);
    firewall
        .socket
        .ask(question, |received| {
            let name = Attributes(&received.body[4..])
                .find_str(1)
                .expect("a table has a name");
            tables.push((received.body[0], name.to_owned()));
        })
        .expect("tables can be listed");
    tables.sort();
    tables
}

/// The number of the ruleset: it rises with every transaction.
fn generation(firewall: &Firewall) -> Vec<u8> {
    let mut found = Vec::new();
    let question = crate::netlink::Message::new(10 << 8 | 16, 0, &[0; 4]);
    firewall
        .socket
        .ask(question, |received| {
            found = Attributes(&received.body[4..])
                .find(1)
                .expect("it has a number")
                .to_vec();
        })
        .expect("it can be asked");
    found
}
