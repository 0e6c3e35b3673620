//! Namespaces for tests: every test works in ones that it made itself, so that the host's links and firewall are never touched.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use kakoi_sys::namespace::{Kind, unshare};
use kakoi_sys::network::{open_within, raise_loopback};
use nix::sys::socket::SockProtocol;
use socket2::{Domain, Protocol, Type};

use crate::Scope;
use crate::address::Mac;
use crate::link::{Bridge, Endpoint, Host, query, request};
use crate::netlink::{Message, Socket};

/// How long a test waits for what must come. Nothing is measured by it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a test in a thread that is the host of its own: a fresh network namespace with only `lo`. Says so where it cannot.
pub(crate) fn on_a_fresh_host(test: impl FnOnce() + Send) {
    if !nix::unistd::geteuid().is_root() {
        crate::required::leave_out("root", "needs root");
        return;
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(&[Kind::Net]).expect("root makes network namespaces");
            raise_loopback().expect("a new namespace has lo");
            test();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// The same, with and without br_netfilter, which hands bridged packets to the rules for routed ones and is on by default.
pub(crate) fn with_and_without_br_netfilter(test: impl Fn() + Send + Sync) {
    for value in ["0", "1"] {
        on_a_fresh_host(|| {
            for setting in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
                let done = std::fs::write(format!("/proc/sys/net/bridge/{setting}"), value);
                assert!(done.is_ok() || value == "0", "{done:?}");
            }
            test();
        });
    }
}

/// A network namespace without processes.
#[derive(Debug)]
pub(crate) struct Namespace(OwnedFd);

impl Namespace {
    pub fn new() -> Self {
        let file = std::thread::spawn(|| {
            unshare(&[Kind::Net]).expect("root makes network namespaces");
            std::fs::File::open("/proc/thread-self/ns/net").expect("a thread has a network namespace")
        });
        Self(file.join().expect("no panic").into())
    }

    /// The one that the calling thread is in.
    pub fn current() -> Self {
        let file = std::fs::File::open("/proc/thread-self/ns/net");
        Self(file.expect("a thread has a network namespace").into())
    }

    /// What root inside may do to its link: another address.
    pub fn add_address(&self, network: &str) {
        let network: IpNet = network.parse().expect("a network");
        self.request(|index| request::new_address(index, network));
    }

    /// Another MAC.
    pub fn set_mac(&self, mac: Mac) {
        self.request(|index| {
            let mut message = Message::new(libc::RTM_NEWLINK, 0, &request::link_header(index, true));
            message.put(libc::IFLA_ADDRESS, &mac.0);
            message
        });
    }

    /// A packet with its header as it is, by way of `next`.
    pub fn send_packet(&self, next: SocketAddr, packet: &[u8]) {
        self.within(|| {
            let raw = socket2::Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)));
            let raw = raw.expect("root inside may");
            raw.send_to(packet, &next.into()).expect("a route");
        });
    }

    fn request(&self, message: impl Fn(u32) -> Message + Sync) {
        self.within(|| {
            let socket = Socket::open(SockProtocol::NetlinkRoute, 0).expect("root opens netlink");
            let index = query::link(&socket, "eth0")
                .expect("it can be asked")
                .expect("it is there")
                .index;
            socket.request(vec![message(index)]).expect("root inside may");
        });
    }

    /// Opens something inside.
    pub fn within<T: Send>(&self, open: impl FnOnce() -> T + Send) -> T {
        open_within(self.as_fd(), open).expect("the namespace is ours")
    }

    pub fn listen(&self, address: &str) -> TcpListener {
        let address: SocketAddr = address.parse().expect("an address");
        self.within(|| TcpListener::bind(address))
            .expect("the address is there")
    }

    pub fn udp(&self, address: &str) -> UdpSocket {
        let address: SocketAddr = address.parse().expect("an address");
        let socket = self
            .within(|| UdpSocket::bind(address))
            .expect("the address is there");
        socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
        socket
    }

    pub fn connect(&self, address: &str) -> std::io::Result<TcpStream> {
        let address: SocketAddr = address.parse().expect("an address");
        self.within(|| TcpStream::connect_timeout(&address, PATIENCE))
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether bytes go both ways between a connection and a listener that it should have reached. Returns whom the listener saw.
pub(crate) fn talk(mut client: TcpStream, listener: &TcpListener) -> IpAddr {
    let (mut server, from) = listener.accept().expect("a connection waits");
    client.write_all(b"ping").expect("connected");
    let mut bytes = [0; 4];
    server.read_exact(&mut bytes).expect("sent");
    assert_eq!(&bytes, b"ping");
    server.write_all(b"pong").expect("connected");
    client.read_exact(&mut bytes).expect("sent");
    assert_eq!(&bytes, b"pong");
    from.ip()
}

pub(crate) fn scope(name: &str) -> Scope {
    Scope::of_run_folder(Path::new(name))
}

pub(crate) fn networks(list: &[&str]) -> Vec<IpNet> {
    list.iter().map(|text| text.parse().expect("a network")).collect()
}

pub(crate) fn bridge(name: &str, addresses: &[&str]) -> Bridge {
    Bridge {
        name: name.to_owned(),
        addresses: networks(addresses),
        mtu: 1500,
        forwards: true,
    }
}

/// An endpoint `eth0` with a MAC after its last octet, and gateways that are each subnet's first address.
pub(crate) fn endpoint(host_link: &str, bridge: &str, addresses: &[&str]) -> Endpoint {
    let addresses = networks(addresses);
    let last = match addresses[0].addr() {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    };
    Endpoint {
        host_link: host_link.to_owned(),
        bridge: bridge.to_owned(),
        name: "eth0".to_owned(),
        mac: Mac([2, 0x42, 0, 0, 0, last]),
        gateways: addresses.iter().map(first_address).collect(),
        addresses,
        mtu: 1500,
    }
}

/// What gateways are here. (The address before it is every router's, and answers after a random time only.)
fn first_address(network: &IpNet) -> IpAddr {
    let is_ipv6 = matches!(network, IpNet::V6(_));
    network
        .hosts()
        .nth(usize::from(is_ipv6))
        .expect("a subnet has hosts")
}

/// A namespace with an endpoint.
pub(crate) fn attached(host: &Host, endpoint: &Endpoint) -> Namespace {
    let namespace = Namespace::new();
    host.attach(namespace.as_fd(), endpoint)
        .and_then(|attached| attached.announce())
        .unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)));
    namespace
}
