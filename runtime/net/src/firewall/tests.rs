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

#[test]
fn what_leaves_bears_the_hosts_address_where_wanted() {
    with_and_without_br_netfilter(|| {
        let mut world = World::new();
        world.network(1, |_| {});
        world.network(2, |network| network.masquerade = false);
        let (a, b) = (world.container(1, 2, None), world.container(2, 2, None));
        world.apply();
        for (from, to, seen) in [
            (&a, format!("{OUTSIDE4}:80"), HOST4),
            (&a, format!("[{OUTSIDE6}]:80"), HOST6),
            (&b, format!("{OUTSIDE4}:80"), "10.9.2.2"),
            (&b, format!("[{OUTSIDE6}]:80"), "fd00:2::2"),
        ] {
            let listener = world.outside.listen(&to);
            let client = from.connect(&to).expect("the way is open");
            assert_eq!(talk(client, &listener), ip(seen), "{to}");
        }
    });
}

#[test]
fn a_published_port_is_reached_from_everywhere_and_nothing_else_is() {
    with_and_without_br_netfilter(|| {
        let mut world = World::new();
        world.network(1, |_| {});
        world.network(2, |_| {});
        let (a, b, c) = (
            world.container(1, 2, None),
            world.container(1, 3, None),
            world.container(2, 2, None),
        );
        world.publish("0.0.0.0:8080", Protocol::Tcp, "10.9.1.2:80");
        world.publish("[::]:8080", Protocol::Tcp, "[fd00:1::2]:80");
        world.publish("192.0.2.1:9090", Protocol::Tcp, "10.9.1.2:80");
        world.apply();
        let host = Namespace::current();
        for (listen, gateway, outer) in [
            ("10.9.1.2:80", "10.9.1.1:8080", format!("{HOST4}:8080")),
            ("[fd00:1::2]:80", "[fd00:1::1]:8080", format!("[{HOST6}]:8080")),
        ] {
            let listener = a.listen(listen);
            let rows = [
                ("outside", &world.outside, outer.as_str()),
                ("neighbour", &b, &outer),
                ("neighbour", &b, gateway),
                ("itself", &a, &outer),
                ("another network", &c, &outer),
                ("the host", &host, &outer),
            ];
            for (who, from, to) in rows {
                let client = from.connect(to);
                let client = client.unwrap_or_else(|error| panic!("{who} to {to}: {error}"));
                let seen = talk(client, &listener);
                if who == "outside" {
                    assert!([ip(OUTSIDE4), ip(OUTSIDE6)].contains(&seen), "{seen}");
                }
            }
        }
        let listener = a.listen("10.9.1.2:80");
        let client = host.connect("127.0.0.1:8080").expect("localhost is meant too");
        assert_eq!(talk(client, &listener), ip("10.9.1.1"));
        let client = world.outside.connect("192.0.2.1:9090").expect("published there");
        talk(client, &listener);
        let refused = host.connect("127.0.0.1:9090").expect_err("published elsewhere");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let refused = world
            .outside
            .connect("192.0.2.1:80")
            .expect_err("the target's port is not the host's");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

        // By its own address it is reached by nobody outside, published or not.
        let unpublished = a.listen("10.9.1.2:81");
        for (to, silent) in [("10.9.1.2:81", &unpublished), ("10.9.1.2:80", &listener)] {
            let begun = begin(&world.outside, to);
            let later = world.outside.connect("192.0.2.1:8080").expect("published");
            talk(later, &listener);
            assert_silent(&begun, silent);
        }
    });
}

#[test]
fn datagrams_are_published_too() {
    with_and_without_br_netfilter(|| {
        let mut world = World::new();
        world.network(1, |_| {});
        let (a, b) = (world.container(1, 2, None), world.container(1, 3, None));
        world.publish("0.0.0.0:5353", Protocol::Udp, "10.9.1.2:53");
        world.apply();
        let server = a.udp("10.9.1.2:53");
        let host = Namespace::current();
        for (from, bind, to) in [
            (&world.outside, "192.0.2.2:0", "192.0.2.1:5353"),
            (&b, "10.9.1.3:0", "10.9.1.1:5353"),
            (&host, "127.0.0.1:0", "127.0.0.1:5353"),
        ] {
            let client = from.udp(bind);
            client.connect(address(to)).expect("a route");
            client.send(b"ask").expect("the way is open");
            let (asked, from) = receive(&server);
            assert_eq!(asked, "ask");
            server.send_to(b"tell", from).expect("the way back");
            assert_eq!(receive(&client), ("tell".to_owned(), address(to)));
        }
    });
}

#[test]
fn networks_do_not_reach_each_other() {
    with_and_without_br_netfilter(|| {
        let mut world = World::new();
        world.network(1, |_| {});
        world.network(2, |_| {});
        let (a, b) = (world.container(1, 2, None), world.container(2, 2, None));
        let neighbour = world.container(2, 3, None);
        world.apply();
        for to in ["10.9.2.2:80", "[fd00:2::2]:80"] {
            let listener = b.listen(to);
            assert_rejected(&a, to);
            talk(neighbour.connect(to).expect("same network"), &listener);
        }
        // The host's own ports are anyone's.
        let listener = TcpListener::bind("0.0.0.0:81").expect("a free port");
        for to in ["10.9.1.1:81", "10.9.2.1:81", "192.0.2.1:81"] {
            talk(a.connect(to).expect("as with Docker"), &listener);
        }
    });
}

#[test]
fn an_internal_network_reaches_itself_only() {
    with_and_without_br_netfilter(|| {
        let mut world = World::new();
        world.network(1, |network| network.internal = true);
        world.network(2, |_| {});
        let (a, b) = (world.container(1, 2, None), world.container(1, 3, None));
        let c = world.container(2, 2, None);
        world.publish("0.0.0.0:8080", Protocol::Tcp, "10.9.2.2:80");
        world.publish("0.0.0.0:8081", Protocol::Tcp, "10.9.1.2:80");
        world.apply();
        let (outer, own, other) = (
            world.outside.listen("192.0.2.2:80"),
            a.listen("10.9.1.2:80"),
            c.listen("10.9.2.2:80"),
        );
        for to in ["192.0.2.2:80", "10.9.2.2:80", "192.0.2.1:8080"] {
            assert_rejected(&a, to);
        }
        assert_rejected(&c, "10.9.1.2:80");
        assert_rejected(&c, "192.0.2.1:8081");
        let begun = begin(&world.outside, "192.0.2.1:8081");
        talk(
            world.outside.connect("192.0.2.1:8080").expect("published"),
            &other,
        );
        assert_silent(&begun, &own);
        // The gateway is as with Docker; the host's other addresses are not inside.
        let _host = TcpListener::bind("[::]:81").expect("a free port");
        for (to, is_open) in [
            ("10.9.1.1:81", true),
            ("[fd00:1::1]:81", true),
            ("192.0.2.1:81", false),
            ("10.9.2.1:81", false),
            ("[2001:db8::1]:81", false),
        ] {
            if is_open {
                drop(a.connect(to).unwrap_or_else(|error| panic!("{to}: {error}")));
            } else {
                assert_rejected(&a, to);
                drop(c.connect(to).unwrap_or_else(|error| panic!("{to}: {error}")));
            }
        }
        own.set_nonblocking(false).expect("a socket");
        talk(b.connect("10.9.1.2:80").expect("same network"), &own);
        talk(c.connect("192.0.2.2:80").expect("not internal"), &outer);
    });
}

#[test]
fn without_icc_neighbours_are_silent_but_for_what_is_published() {
    with_and_without_br_netfilter(|| {
        let mut world = World::new();
        world.network(1, |network| network.icc = false);
        let (a, b) = (world.container(1, 2, None), world.container(1, 3, None));
        world.publish("0.0.0.0:8080", Protocol::Tcp, "10.9.1.2:80");
        world.apply();
        let listener = a.listen("10.9.1.2:80");
        let begun = begin(&b, "10.9.1.2:80");
        let outer = world.outside.listen("192.0.2.2:80");
        talk(
            b.connect("192.0.2.2:80").expect("outside is not a neighbour"),
            &outer,
        );
        assert_silent(&begun, &listener);
        listener.set_nonblocking(false).expect("a socket");
        talk(b.connect("192.0.2.1:8080").expect("published"), &listener);
    });
}

#[test]
fn a_link_sends_from_its_own_addresses_only() {
    with_and_without_br_netfilter(|| {
        let mut world = World::new();
        world.network(1, |_| {});
        let (a, b) = (world.container(1, 2, None), world.container(1, 3, None));
        world.apply();
        for (real, false_one, to) in [
            ("10.9.1.3:0", "10.9.1.99", "10.9.1.2:80"),
            ("[fd00:1::3]:0", "fd00:1::99", "[fd00:1::2]:80"),
        ] {
            let server = a.udp(to);
            let honest = b.udp(real);
            let send = |from: &UdpSocket, text: &str| {
                from.send_to(text.as_bytes(), address(to)).expect("a route");
            };
            // Neighbours know each other's MACs from here on, so that the false packet needs nothing but itself.
            send(&honest, "first");
            assert_eq!(receive(&server).0, "first");
            b.add_address(&format!(
                "{false_one}/{}",
                if to.starts_with('[') { 64 } else { 24 }
            ));
            let liar = b.udp(&SocketAddr::new(ip(false_one), 0).to_string());
            send(&liar, "false");
            send(&honest, "honest");
            assert_eq!(receive(&server).0, "honest", "{to}");
            // Not to the host either.
            let host = Namespace::current().udp(if to.starts_with('[') {
                "[fd00:1::1]:70"
            } else {
                "10.9.1.1:70"
            });
            let host_address = host.local_addr().expect("bound");
            honest.send_to(b"first", host_address).expect("a route");
            assert_eq!(receive(&host).0, "first");
            liar.send_to(b"false", host_address).expect("a route");
            honest.send_to(b"honest", host_address).expect("a route");
            assert_eq!(receive(&host).0, "honest", "{to}");
        }
        let (server, honest) = (a.udp("10.9.1.2:90"), b.udp("10.9.1.3:0"));
        b.set_mac(Mac([2, 0x42, 0, 0, 0, 0x77]));
        honest.send_to(b"false", address("10.9.1.2:90")).expect("a route");
        b.set_mac(Mac([2, 0x42, 0, 0, 0, 3]));
        honest
            .send_to(b"honest", address("10.9.1.2:90"))
            .expect("a route");
        assert_eq!(receive(&server).0, "honest");
    });
}

/// Who advertises a neighbour's or the gateway's address would have its packets.
#[test]
fn a_link_advertises_its_own_addresses_only() {
    with_and_without_br_netfilter(|| {
        let mut world = World::new();
        world.network(1, |_| {});
        let (a, b) = (world.container(1, 2, None), world.container(1, 3, None));
        world.apply();
        let host = Namespace::current();
        let liar = b.within(icmpv6);
        for (seen_by, to) in [(&a, "[fd00:1::2]:0"), (&host, "[fd00:1::1]:0")] {
            let receiver = seen_by.within(icmpv6);
            for told in [
                "fd00:1::1",
                "fd00:1::2",
                "fe80::42:ff:fe00:2",
                "2001:db8::2",
                "fd00:1::3",
            ] {
                liar.send_to(&advertisement(told), &address(to).into())
                    .expect("root inside may");
            }
            // Truncated: no address is told at all.
            liar.send_to(&advertisement("fd00:1::3")[..12], &address(to).into())
                .expect("root inside may");
            liar.send_to(&advertisement("fe80::42:ff:fe00:3"), &address(to).into())
                .expect("root inside may");
            let mut heard = Vec::new();
            while heard.last() != Some(&ip("fe80::42:ff:fe00:3")) {
                let mut bytes = [0; 128];
                let count = (&receiver).read(&mut bytes).expect("the last one comes");
                // Solicited by others; the unsolicited ones are the liar's.
                if bytes[0] == 136 && bytes[4] == 0x20 {
                    let target: [u8; 16] = bytes[8..24].try_into().expect("sixteen");
                    assert!(count >= 24, "{heard:?}");
                    heard.push(IpAddr::from(target));
                }
            }
            assert_eq!(heard, [ip("fd00:1::3"), ip("fe80::42:ff:fe00:3")], "{to}");
        }
    });
}

/// A raw socket; neighbours believe nothing that came over a router.
fn icmpv6() -> socket2::Socket {
    let socket =
        socket2::Socket::new(Domain::IPV6, Type::RAW, Some(socket2::Protocol::ICMPV6)).expect("root");
    socket.set_unicast_hops_v6(255).expect("a number of hops");
    socket
        .set_read_timeout(Some(crate::testing::PATIENCE))
        .expect("not zero");
    socket
}

/// An unsolicited neighbour advertisement that overrides what was known, with container 1.3's hardware address.
fn advertisement(told: &str) -> Vec<u8> {
    let IpAddr::V6(told) = ip(told) else {
        unreachable!("addresses of IPv6 are given")
    };
    let mut packet = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    packet.extend(told.octets());
    packet.extend([2, 1, 2, 0x42, 0, 0, 0, 3]);
    packet
}

/// A link that is up and that nobody told of, known before or never: nothing it sends arrives anywhere.
#[test]
fn a_link_that_is_not_in_the_picture_is_closed() {
    with_and_without_br_netfilter(|| {
        let mut world = World::new();
        world.network(1, |_| {});
        let (a, b) = (world.container(1, 2, None), world.container(1, 3, None));
        world.apply();
        let host = Namespace::current();
        for (outer, inner, gateway, own, honest) in [
            (
                "192.0.2.2:70",
                "10.9.1.3:70",
                "10.9.1.1:70",
                "10.9.1.2:0",
                "10.9.1.3:0",
            ),
            (
                "[2001:db8::2]:70",
                "[fd00:1::3]:70",
                "[fd00:1::1]:70",
                "[fd00:1::2]:0",
                "[fd00:1::3]:0",
            ),
        ] {
            let receivers = [world.outside.udp(outer), b.udp(inner), host.udp(gateway)];
            let (closed, open) = (a.udp(own), b.udp(honest));
            let tell = |closed_text: &str| {
                for (to, receiver) in [outer, inner, gateway].into_iter().zip(&receivers) {
                    drop(closed.send_to(closed_text.as_bytes(), address(to)));
                    open.send_to(b"marker", address(to)).expect("a route");
                    if closed_text == "known" {
                        let (text, from) = receive(receiver);
                        assert_eq!(text, "known", "{to}");
                        receiver.send_to(b"answer", from).expect("the way back");
                        assert_eq!(receive(&closed).0, "answer");
                    }
                    assert_eq!(receive(receiver).0, "marker", "{to} after {closed_text}");
                }
            };
            tell("known");
            let known = world.wanted.endpoints.remove(0);
            world.apply();
            tell("detached");
            // Nor is anything told to it.
            open.send_to(b"told", closed.local_addr().expect("bound"))
                .expect("a route");
            tell("still detached");
            closed.set_nonblocking(true).expect("a socket");
            let nothing = closed.recv(&mut [0]).expect_err("nothing came");
            assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
            closed.set_nonblocking(false).expect("a socket");
            world.wanted.endpoints.insert(0, known);
            world.apply();
            tell("known");
        }
    });
}

/// A port that somebody else put into a bridge, and a source address that no member has.
#[test]
fn what_is_no_members_passes_no_bridge_of_ours() {
    with_and_without_br_netfilter(|| {
        let mut world = World::new();
        world.network(1, |_| {});
        let b = world.container(1, 3, None);
        world.apply();
        let link = endpoint("vforeign", "br1", &["10.9.1.9/24", "fd00:1::9/64"]);
        let stranger = attached(&world.host, &link);
        let routes = Socket::open(SockProtocol::NetlinkRoute, 0).expect("root opens netlink");
        let port = query::link(&routes, "vforeign").expect("it can be asked");
        let header = request::link_header(port.expect("it was just made").index, true);
        let mut disown = Message::new(libc::RTM_NEWLINK, 0, &header);
        disown.put_u32(libc::IFLA_GROUP, 0);
        routes.request(vec![disown]).expect("root may");
        let host = Namespace::current();
        for (from, honest, rows) in [
            (
                "10.9.1.9:0",
                "10.9.1.3:0",
                [
                    ("192.0.2.2:70", &world.outside),
                    ("10.9.1.3:70", &b),
                    ("10.9.1.1:70", &host),
                ],
            ),
            (
                "[fd00:1::9]:0",
                "[fd00:1::3]:0",
                [
                    ("[2001:db8::2]:70", &world.outside),
                    ("[fd00:1::3]:70", &b),
                    ("[fd00:1::1]:70", &host),
                ],
            ),
        ] {
            for (to, receiver) in rows {
                let receiver = receiver.udp(to);
                drop(stranger.udp(from).send_to(b"stranger", address(to)));
                b.udp(honest).send_to(b"marker", address(to)).expect("a route");
                assert_eq!(receive(&receiver).0, "marker", "{to}");
            }
        }
        // What the host says to many comes back to itself.
        let many = host.udp("0.0.0.0:71");
        let (group, gateway) = (
            std::net::Ipv4Addr::new(239, 1, 2, 3),
            std::net::Ipv4Addr::new(10, 9, 1, 1),
        );
        many.join_multicast_v4(&group, &gateway).expect("a bridge");
        let speaker = host.udp("10.9.1.1:0");
        socket2::SockRef::from(&speaker)
            .set_multicast_if_v4(&gateway)
            .expect("a bridge");
        speaker
            .send_to(b"many", address("239.1.2.3:71"))
            .expect("a route");
        assert_eq!(receive(&many).0, "many");
    });
}

/// Root inside can send a packet to 127.0.0.1 of the host: its own kernel routes by another address than the header's.
#[test]
fn the_hosts_loopback_is_closed_to_bridges() {
    with_and_without_br_netfilter(|| {
        let mut world = World::new();
        world.network(1, |_| {});
        let a = world.container(1, 2, None);
        world.apply();
        let host = Namespace::current().udp("0.0.0.0:70");
        a.send_packet(
            "10.9.1.1:0".parse().expect("an address"),
            &packet([127, 0, 0, 1], b"false"),
        );
        a.send_packet(
            "10.9.1.1:0".parse().expect("an address"),
            &packet([10, 9, 1, 1], b"honest"),
        );
        assert_eq!(receive(&host).0, "honest");
    });
}

/// A datagram from container 1.2 to port 70; the kernel adds the header's checksum.
fn packet(to: [u8; 4], text: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 9, 1, 2];
    packet.extend(to);
    packet.extend([0, 70, 0, 70, 0, 8 + text.len() as u8, 0, 0]);
    packet.extend(text);
    packet
}

#[test]
fn a_limited_endpoint_reaches_what_is_listed() {
    with_and_without_br_netfilter(|| {
        let mut world = World::new();
        world.network(1, |_| {});
        world.network(2, |_| {});
        let list = [
            allowed("192.0.2.2/32", Protocol::Tcp, 80..=81),
            // Overlaps the first, and has more ports.
            allowed("192.0.2.0/30", Protocol::Tcp, 81..=82),
            allowed("2001:db8::/64", Protocol::Tcp, 80..=80),
            allowed("10.9.2.2/32", Protocol::Tcp, 80..=80),
        ];
        let a = world.container(1, 2, Some(egress(&list, &[])));
        let free = world.container(1, 3, None);
        let other = world.container(2, 2, None);
        world.publish("0.0.0.0:8080", Protocol::Tcp, "10.9.1.2:80");
        world.publish("0.0.0.0:8081", Protocol::Tcp, "10.9.2.2:80");
        world.apply();
        for (to, is_open) in [
            ("192.0.2.2:80", true),
            ("192.0.2.2:81", true),
            ("192.0.2.2:82", true),
            ("192.0.2.2:83", false),
            ("192.0.2.3:80", false),
            ("192.0.2.3:81", true),
            ("192.0.2.3:82", true),
            ("[2001:db8::2]:80", true),
            ("[2001:db8::2]:81", false),
        ] {
            let listener = world.outside.listen(to);
            if is_open {
                talk(
                    a.connect(to).unwrap_or_else(|error| panic!("{to}: {error}")),
                    &listener,
                );
            } else {
                assert_rejected(&a, to);
                talk(free.connect(to).expect("it has no list"), &listener);
            }
        }
        // The host's own ports are destinations like all others.
        let _host = TcpListener::bind("0.0.0.0:81").expect("a free port");
        for to in ["10.9.1.1:81", "192.0.2.1:83"] {
            assert_rejected(&a, to);
        }
        // Through the host into another network: what counts is where it leads, and that it is published.
        let listener = other.listen("10.9.2.2:80");
        talk(a.connect("192.0.2.1:8081").expect("listed"), &listener);
        assert_rejected(&a, "10.9.2.2:80");
        // Who may not talk may be talked to by its published port, and answers.
        let listener = a.listen("10.9.1.2:80");
        talk(
            world.outside.connect("192.0.2.1:8080").expect("published"),
            &listener,
        );
        // Datagrams are another protocol.
        let (server, liar, honest) = (
            world.outside.udp("192.0.2.2:80"),
            a.udp("10.9.1.2:0"),
            free.udp("10.9.1.3:0"),
        );
        drop(liar.send_to(b"false", address("192.0.2.2:80")));
        honest
            .send_to(b"honest", address("192.0.2.2:80"))
            .expect("a route");
        assert_eq!(receive(&server).0, "honest");
    });
}

#[test]
fn limited_neighbours_talk_where_both_say_so() {
    with_and_without_br_netfilter(|| {
        let mut world = World::new();
        world.network(1, |_| {});
        let a = world.container(
            1,
            2,
            Some(egress(&[], &["10.9.1.3", "10.9.1.4", "10.9.1.5", "fd00:1::3"])),
        );
        let b = world.container(1, 3, Some(egress(&[], &["10.9.1.2", "fd00:1::2"])));
        let c = world.container(1, 4, Some(egress(&[], &[])));
        let d = world.container(1, 5, None);
        world.apply();
        let listeners = [
            a.listen("10.9.1.2:80"),
            b.listen("10.9.1.3:80"),
            c.listen("10.9.1.4:80"),
            d.listen("10.9.1.5:80"),
        ];
        // What is refused first, and what follows it shows that it would have come by then.
        let refused = [
            (begin(&a, "10.9.1.4:80"), &listeners[2]),
            (begin(&b, "10.9.1.4:80"), &listeners[2]),
            (begin(&d, "10.9.1.3:80"), &listeners[1]),
            (begin(&c, "10.9.1.5:80"), &listeners[3]),
        ];
        talk(a.connect("10.9.1.3:80").expect("both say so"), &listeners[1]);
        talk(b.connect("10.9.1.2:80").expect("both say so"), &listeners[0]);
        talk(
            a.connect("10.9.1.5:80")
                .expect("one says so, the other has no list"),
            &listeners[3],
        );
        talk(
            d.connect("10.9.1.2:80")
                .expect("one has no list, the other says so"),
            &listeners[0],
        );
        for (begun, listener) in &refused {
            assert_silent(begun, listener);
        }
        // By IPv6 only one pair says so.
        let listener = b.listen("[fd00:1::3]:80");
        talk(a.connect("[fd00:1::3]:80").expect("both say so"), &listener);
        let (server, liar, honest) = (
            b.udp("[fd00:1::3]:90"),
            d.udp("[fd00:1::5]:0"),
            a.udp("[fd00:1::2]:0"),
        );
        liar.send_to(b"false", address("[fd00:1::3]:90"))
            .expect("a route");
        honest
            .send_to(b"honest", address("[fd00:1::3]:90"))
            .expect("a route");
        assert_eq!(receive(&server).0, "honest");
    });
}

#[test]
fn names_open_for_a_time() {
    on_a_fresh_host(|| {
        let mut world = World::new();
        world.network(1, |_| {});
        let a = world.container(1, 2, Some(egress(&[], &[])));
        let b = world.container(1, 3, Some(egress(&[], &[])));
        world.apply();
        let admitted = |to: &str, service: Service| Admitted {
            address: ip(to),
            service,
            lifetime: Duration::from_secs(1),
        };
        let https = Service::Ports {
            protocol: Protocol::Tcp,
            ports: 443..=443,
        };
        let listeners = [
            world.outside.listen("192.0.2.2:443"),
            world.outside.listen("192.0.2.2:80"),
            world.outside.listen("[2001:db8::2]:443"),
        ];
        assert_rejected(&a, "192.0.2.2:443");
        let from = ip("10.9.1.2");
        world
            .firewall
            .admit(
                from,
                &[
                    admitted(OUTSIDE4, https.clone()),
                    admitted(OUTSIDE6, https.clone()),
                ],
            )
            .expect("there is room");
        talk(a.connect("192.0.2.2:443").expect("admitted"), &listeners[0]);
        for (who, to) in [
            (&a, "192.0.2.2:80"),
            (&a, "[2001:db8::2]:443"),
            (&b, "192.0.2.2:443"),
        ] {
            assert_rejected(who, to);
        }
        world
            .firewall
            .admit(ip("fd00:1::2"), &[admitted(OUTSIDE6, https.clone())])
            .expect("there is room");
        talk(a.connect("[2001:db8::2]:443").expect("admitted"), &listeners[2]);
        // Another name of the same address, with other services.
        world
            .firewall
            .admit(
                from,
                &[admitted(OUTSIDE4, Service::Any), admitted(OUTSIDE4, https)],
            )
            .expect("it overlaps and that is no matter");
        talk(a.connect("192.0.2.2:80").expect("admitted"), &listeners[1]);
        // An apply and a restore keep it; forgetting does not.
        world.wanted.published.clear();
        world.apply();
        world.firewall.restore().expect("as before");
        talk(a.connect("192.0.2.2:443").expect("still admitted"), &listeners[0]);
        // The next daemon takes it over, with what is left of its time and no more.
        let live = |firewall: &Firewall| {
            let applied = firewall.lock();
            let all = applied.admitted.values().flatten();
            let left = all.map(|life| life.until.saturating_duration_since(Instant::now()));
            left.collect::<Vec<_>>()
        };
        world.firewall = Firewall::open(&scope("/run/kakoi")).expect("root opens netlink");
        let left = live(&world.firewall);
        assert!(
            left.len() >= 2 && left.iter().all(|left| *left <= Duration::from_secs(90)),
            "{left:?}"
        );
        world.apply();
        assert_eq!(live(&world.firewall).len(), left.len());
        talk(a.connect("192.0.2.2:443").expect("still admitted"), &listeners[0]);
        talk(a.connect("192.0.2.2:80").expect("still admitted"), &listeners[1]);
        assert_rejected(&b, "192.0.2.2:443");

        world.firewall.forget(from).expect("nothing is in the way");
        assert_rejected(&a, "192.0.2.2:443");
        talk(
            a.connect("[2001:db8::2]:443").expect("another address of it"),
            &listeners[2],
        );
    });
}

fn resolved(last: u16, lifetime_s: u64) -> Admitted {
    Admitted {
        address: IpAddr::from([198, 51, (last >> 8) as u8, last as u8]),
        service: Service::Any,
        lifetime: Duration::from_secs(lifetime_s),
    }
}

/// What the kernel holds of names, and until when at most.
fn held(firewall: &Firewall) -> Vec<Element> {
    events::elements(&firewall.socket, "kakoi", elements::NAMED[0]).expect("root may")
}

#[test]
fn a_name_that_is_resolved_again_changes_nothing() {
    on_a_fresh_host(|| {
        let mut world = World::new();
        world.network(1, |_| {});
        let _a = world.container(1, 2, Some(egress(&[], &[])));
        world.apply();
        let admit = |lifetime_s| {
            let admitted = [resolved(1, lifetime_s), resolved(2, 30)];
            world
                .firewall
                .admit(ip("10.9.1.2"), &admitted)
                .expect("there is room");
        };
        admit(300);
        let before = generation(&world.firewall);
        for _ in 0..100 {
            admit(300);
            admit(60);
        }
        assert_eq!(generation(&world.firewall), before);
        // One that holds much longer does, and takes the others along.
        admit(30_000);
        assert_ne!(generation(&world.firewall), before);
        let longest = held(&world.firewall)
            .iter()
            .filter_map(|element| element.timeout)
            .max();
        assert!(longest > Some(30_000_000), "{longest:?}");
    });
}

#[test]
fn an_endpoint_takes_no_others_room() {
    on_a_fresh_host(|| {
        let mut world = World::new();
        world.network(1, |_| {});
        let _a = world.container(1, 2, Some(egress(&[], &[])));
        world.apply();
        let greedy = ip("10.9.1.2");
        let admit = |from, list: &[Admitted]| world.firewall.admit(from, list);
        admit(greedy, &[resolved(0, 86_400)]).expect("there is room");
        for last in 1..300 {
            admit(greedy, &[resolved(last, 60 + u64::from(last))]).expect("its own make room");
            let lives = held(&world.firewall);
            assert!(lives.len() <= 256, "{}", lives.len());
            let newest = &resolved(last, 0).address;
            let IpAddr::V4(newest) = newest else {
                unreachable!("it is one")
            };
            assert!(
                lives.iter().any(|element| element.key[4..8] == newest.octets()),
                "{last}"
            );
        }
        // The soonest to run out went, and what lives longest did not.
        let there: Vec<_> = held(&world.firewall)
            .iter()
            .map(|element| element.key[6..8].to_vec())
            .collect();
        assert!(there.contains(&vec![0, 0]) && !there.contains(&vec![0, 1]));
        let many: Vec<_> = (0..257).map(|last| resolved(last, 60)).collect();
        let refused = admit(ip("10.9.1.3"), &many).expect_err("too many at once");
        assert_eq!(
            refused.to_string(),
            "257 addresses of names are to be admitted at once, and 256 is the most"
        );
        // All others together have their bound as well.
        for number in 3..=17 {
            admit(ip(&format!("10.9.1.{number}")), &many[..256]).expect("there is room");
        }
        admit(ip("10.9.1.18"), &many[..256]).expect_err("there is no more");
        admit(greedy, &[resolved(999, 60)]).expect("its own make room");
    });
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

#[test]
fn only_what_differs_is_sent() {
    on_a_fresh_host(|| {
        let mut world = World::new();
        world.network(1, |_| {});
        let a = world.container(1, 2, None);
        world.apply();
        let before = generation(&world.firewall);
        world.apply();
        assert_eq!(generation(&world.firewall), before);

        // A list that changes in place: elements that overlap those that go.
        for list in [
            [allowed("192.0.2.0/24", Protocol::Tcp, 80..=80)],
            [allowed("192.0.2.0/25", Protocol::Tcp, 79..=81)],
        ] {
            world.wanted.endpoints[0].egress = Some(egress(&list, &[]));
            world.apply();
            let listener = world.outside.listen("192.0.2.2:80");
            talk(a.connect("192.0.2.2:80").expect("listed"), &listener);
            assert_rejected(&a, "192.0.2.2:82");
        }
        // A target that changes in place.
        let server = world.container(1, 3, None);
        world.publish("0.0.0.0:8080", Protocol::Tcp, "10.9.1.2:80");
        world.apply();
        world.wanted.published[0].target = address("10.9.1.3:80");
        world.apply();
        let listener = server.listen("10.9.1.3:80");
        talk(
            world.outside.connect("192.0.2.1:8080").expect("published"),
            &listener,
        );
        world.wanted.published.clear();
        world.apply();
        let refused = world
            .outside
            .connect("192.0.2.1:8080")
            .expect_err("no longer published");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn what_others_flush_is_noticed_and_restored() {
    on_a_fresh_host(|| {
        let mut world = World::new();
        world.network(1, |_| {});
        let a = world.container(1, 2, Some(egress(&[], &[])));
        let listener = world.outside.listen("192.0.2.2:80");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let mut watch = {
            let _inside = runtime.enter();
            world.firewall.watch().expect("root may listen")
        };
        // Our own changes, another scope's and what concerns other tables are no loss.
        world.apply();
        world.wanted.networks[0].icc = false;
        world.apply();
        world.firewall.restore().expect("as before");
        let other = Firewall::open(&scope("/run/other")).expect("root opens netlink");
        other.apply(&world.wanted).expect("it has its own tables");
        other.remove().expect("its own");
        let lost = runtime.block_on(async {
            tokio::select! {
                biased;
                lost = watch.lost() => Some(lost),
                () = tokio::task::yield_now() => None,
            }
        });
        assert!(lost.is_none(), "{lost:?}");

        assert_rejected(&a, "192.0.2.2:80");
        let flusher = Firewall::open(&scope("/run/kakoi")).expect("the same name, another socket");
        flusher.remove().expect("anyone with the privilege may");
        runtime.block_on(watch.lost()).expect("noticed");
        let open = a.connect("192.0.2.2:80");
        talk(open.expect("nothing forbids it now"), &listener);
        world.firewall.restore().expect("as before");
        assert_rejected(&a, "192.0.2.2:80");

        // Without a watch the next change finds out.
        flusher.remove().expect("anyone with the privilege may");
        world.wanted.networks[0].icc = true;
        world.apply();
        assert_rejected(&a, "192.0.2.2:80");
    });
}

/// A watch that was not open when it happened tells of it all the same, whatever part is missing.
#[test]
fn a_new_watch_tells_what_was_lost_before() {
    on_a_fresh_host(|| {
        let mut world = World::new();
        world.network(1, |_| {});
        let _a = world.container(1, 2, Some(egress(&[], &[])));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let told_at_once = |firewall: &Firewall| {
            let mut watch = {
                let _inside = runtime.enter();
                firewall.watch().expect("root may listen")
            };
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    lost = watch.lost() => lost.is_ok(),
                    () = tokio::task::yield_now() => false,
                }
            })
        };
        assert!(!told_at_once(&world.firewall), "nothing was applied yet");
        world.apply();
        assert!(!told_at_once(&world.firewall));
        let flusher = Firewall::open(&scope("/run/kakoi")).expect("the same name, another socket");
        let losses: [&dyn Fn(); 3] = [
            &|| flusher.remove().expect("anyone with the privilege may"),
            // An element, and the rules of a chain.
            &|| {
                let wanted =
                    elements::of(&world.wanted, scope("/run/kakoi").group()).expect("it makes sense");
                let set = (crate::nft::Family::Bridge, "limited");
                let mut batch = Batch::new("kakoi");
                batch.remove(set, &wanted[&set]);
                batch.send(&flusher.socket).expect("anyone may");
            },
            &|| {
                let mut flush = Message::new(10 << 8 | 8, 0, &[1, 0, 0, 0]);
                flush.put_str(1, "kakoi").put_str(2, "egress");
                let bounds = |kind: u16| Message::new(kind, 0, &[0, 0, 0, 10]);
                let batch = vec![bounds(0x10), flush, bounds(0x11)];
                flusher.socket.transact(batch).expect("anyone may");
            },
        ];
        for (number, lose) in losses.iter().enumerate() {
            lose();
            assert!(!world.firewall.is_whole().expect("root may look"), "{number}");
            assert!(told_at_once(&world.firewall), "{number}");
            // Until it is restored every new one tells again.
            assert!(told_at_once(&world.firewall), "{number}");
            world.firewall.restore().expect("as before");
            assert!(world.firewall.is_whole().expect("root may look"), "{number}");
            assert!(!told_at_once(&world.firewall), "{number}");
        }
        world.firewall.remove().expect("its own");
        assert!(!told_at_once(&world.firewall), "nothing is wanted");
    });
}

/// Datagrams go to and fro between two sockets, the first asking. Tells whether they did.
fn is_carried(from: &UdpSocket, to: &UdpSocket, marker: &UdpSocket) -> bool {
    let target = to.local_addr().expect("bound");
    drop(from.send_to(b"flow", target));
    marker.send_to(b"marker", target).expect("a route");
    let is_carried = receive(to).0 == "flow";
    if is_carried {
        assert_eq!(receive(to).0, "marker");
    }
    is_carried
}

/// What was opened while no rules stood does not live on.
#[test]
fn a_restore_ends_what_was_let_through_meanwhile() {
    on_a_fresh_host(|| {
        let mut world = World::new();
        world.network(1, |_| {});
        world.network(2, |network| network.internal = true);
        let (limited, inner) = (
            world.container(1, 2, Some(egress(&[], &[]))),
            world.container(2, 2, None),
        );
        let free = world.container(1, 3, None);
        world.apply();
        let outside = world.outside.udp("192.0.2.2:70");
        let exposed = free.udp("10.9.1.3:70");
        let host = Namespace::current().udp("10.9.1.1:0");
        let stranger = world.outside.udp("192.0.2.2:0");
        let rows = [
            (limited.udp("10.9.1.2:0"), &outside),
            (inner.udp("10.9.2.2:0"), &outside),
            (stranger, &exposed),
        ];
        let honest = free.udp("10.9.1.3:0");
        let flusher = Firewall::open(&scope("/run/kakoi")).expect("the same name, another socket");
        // Restored by itself, and by an apply that finds out.
        for round in 0..2 {
            flusher.remove().expect("anyone with the privilege may");
            let marker = |to: &UdpSocket| {
                if std::ptr::eq(to, &raw const exposed) {
                    &host
                } else {
                    &honest
                }
            };
            for (number, (from, to)) in rows.iter().enumerate() {
                assert!(is_carried(from, to, marker(to)), "{number}: nothing forbids it");
                // Answered, it is established.
                to.send_to(b"answer", from.local_addr().expect("bound"))
                    .expect("a route");
                assert_eq!(receive(from).0, "answer", "{number}");
            }
            assert!(is_carried(&honest, &outside, &honest));
            if round == 0 {
                world.firewall.restore().expect("as before");
            } else {
                world.wanted.networks[0].icc = false;
                world.apply();
            }
            for (number, (from, to)) in rows.iter().enumerate() {
                assert!(!is_carried(from, to, marker(to)), "{number} in round {round}");
            }
            assert!(is_carried(&honest, &outside, &honest), "it is allowed");
        }
    });
}

/// The next daemon ends what it does not allow, and nothing else.
#[test]
fn connections_survive_the_next_daemon() {
    on_a_fresh_host(|| {
        let mut world = World::new();
        world.network(1, |_| {});
        let list = [
            allowed("192.0.2.2/32", Protocol::Tcp, 80..=80),
            allowed("192.0.2.2/32", Protocol::Udp, 70..=71),
        ];
        let a = world.container(1, 2, Some(egress(&list, &[])));
        world.publish("0.0.0.0:8080", Protocol::Tcp, "10.9.1.2:80");
        world.apply();
        let listener = world.outside.listen("192.0.2.2:80");
        let mut client = a.connect("192.0.2.2:80").expect("listed");
        let (mut server, _) = listener.accept().expect("it waits");
        let flows = |world: &World| {
            let mut ids = Vec::new();
            let question = Message::new(1 << 8 | 1, libc::NLM_F_DUMP, &[0; 4]);
            world
                .firewall
                .socket
                .ask(question, |received| {
                    let flow = Attributes(&received.body[4..]);
                    let asked = flow.find(1).and_then(|tuple| Attributes(tuple).find(2));
                    // Neighbours and listeners come and go.
                    let protocol = asked.and_then(|service| Attributes(service).find(1));
                    if protocol == Some(&[6]) || protocol == Some(&[17]) {
                        ids.extend(flow.find(12).map(<[u8]>::to_vec));
                    }
                })
                .expect("root may look");
            ids
        };
        let before = flows(&world);
        assert_eq!(before.len(), 1);
        world.firewall = Firewall::open(&scope("/run/kakoi")).expect("root opens netlink");
        world.apply();
        assert_eq!(flows(&world), before);
        for end in [&mut client, &mut server] {
            std::io::Write::write_all(end, b"ping").expect("connected");
        }
        for end in [&mut client, &mut server] {
            let mut bytes = [0; 4];
            end.read_exact(&mut bytes).expect("carried");
        }
        // A picture that became narrower in between.
        world.firewall = Firewall::open(&scope("/run/kakoi")).expect("root opens netlink");
        world.wanted.endpoints[0].egress = Some(egress(&list[1..], &[]));
        world.apply();
        assert_eq!(flows(&world), Vec::<Vec<u8>>::new());
        // Rules that were not whole in between.
        world.wanted.endpoints[0].egress = Some(egress(&list, &[]));
        world.apply();
        let inner = a.udp("10.9.1.2:0");
        let outer = world.outside.udp("192.0.2.2:70");
        assert!(is_carried(&inner, &outer, &inner));
        world.firewall.remove().expect("its own");
        world.firewall = Firewall::open(&scope("/run/kakoi")).expect("root opens netlink");
        world.apply();
        assert_eq!(flows(&world), Vec::<Vec<u8>>::new());
    });
}

#[test]
fn two_scopes_stand_side_by_side() {
    on_a_fresh_host(|| {
        let mut world = World::new();
        world.network(1, |_| {});
        let a = world.container(1, 2, None);
        world.host = Host::open(&scope("/run/second")).expect("root opens netlink");
        world.network(2, |_| {});
        let b = world.container(2, 2, None);
        let split = |number: usize| Wanted {
            networks: vec![world.wanted.networks[number].clone()],
            endpoints: vec![world.wanted.endpoints[number].clone()],
            published: Vec::new(),
        };
        let second = Firewall::open(&scope("/run/second")).expect("root opens netlink");
        world.firewall.apply(&split(0)).expect("the first");
        second.apply(&split(1)).expect("the second");
        let name = scope("/run/second").table().to_owned();
        let both = [
            (1, "kakoi".to_owned()),
            (1, name.clone()),
            (7, "kakoi".to_owned()),
            (7, name.clone()),
        ];
        assert_eq!(tables(&second), both);

        let listener = world.outside.listen("192.0.2.2:80");
        let inner = b.listen("10.9.2.2:80");
        for from in [&a, &b] {
            talk(from.connect("192.0.2.2:80").expect("outside"), &listener);
        }
        // For each the other's bridge is somebody's: it comes from outside, and what is not published is dropped.
        let begun = begin(&a, "10.9.2.2:80");
        talk(a.connect("192.0.2.2:80").expect("outside"), &listener);
        assert_silent(&begun, &inner);

        world.firewall.remove().expect("its own");
        world
            .firewall
            .remove()
            .expect("that there is nothing is no error");
        assert_eq!(tables(&second), [(1, name.clone()), (7, name)]);
    });
}

#[test]
fn drops_of_others_are_reported() {
    on_a_fresh_host(|| {
        let world = World::new();
        world.apply();
        assert!(
            world
                .firewall
                .foreign_drops()
                .expect("chains can be listed")
                .is_empty()
        );
        let rules = "table ip filter {
            chain FORWARD { type filter hook forward priority 0; policy drop; };
            chain INPUT { type filter hook input priority 0; policy drop; };
        };
        table inet polite { chain forward { type filter hook forward priority 0; policy accept; }; };";
        let done = std::process::Command::new("nft").arg(rules).status();
        match done {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                crate::required::leave_out("root", "needs nft(8), of the package nftables");
            }
            done => {
                assert!(done.expect("nft runs").success());
                let drops = world.firewall.foreign_drops().expect("chains can be listed");
                assert_eq!(drops, ["ip filter FORWARD"]);
            }
        }
    });
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    on_a_fresh_host(|| {
        let mut world = World::new();
        world.network(1, |_| {});
        let a = world.container(1, 2, Some(egress(&[], &[])));
        world.apply();
        let good = world.wanted.clone();
        let refuse = |change: &dyn Fn(&mut Wanted)| {
            let mut wanted = good.clone();
            change(&mut wanted);
            world
                .firewall
                .apply(&wanted)
                .expect_err("it makes no sense")
                .to_string()
        };
        type Row<'a> = (&'a dyn Fn(&mut Wanted), &'a str);
        let rows: [Row<'_>; 4] = [
            (
                &|wanted| "sixteen-letters-".clone_into(&mut wanted.networks[0].bridge),
                "\"sixteen-letters-\" is no interface name",
            ),
            (
                &|wanted| String::new().clone_into(&mut wanted.endpoints[0].host_link),
                "\"\" is no interface name",
            ),
            (
                &|wanted| {
                    wanted.published = vec![Published {
                        host_address: ip("::"),
                        host_port: 80,
                        protocol: Protocol::Tcp,
                        target: address("10.9.1.2:80"),
                        bridge: "br1".to_owned(),
                    }];
                },
                "port 80 of :: cannot lead to 10.9.1.2:80: the families differ",
            ),
            (
                &|wanted| {
                    let many = (0..600_u32).map(|number| {
                        allowed(
                            &format!("{}/32", std::net::Ipv4Addr::from(number)),
                            Protocol::Tcp,
                            1..=1,
                        )
                    });
                    wanted.endpoints[0].egress = Some(egress(&many.collect::<Vec<_>>(), &[]));
                },
                "the destinations of v1-2 make 600 rules, and 512 is the most: shorten or order the list",
            ),
        ];
        for (change, expected) in rows {
            assert_eq!(refuse(change), expected);
        }
        let _listener = world.outside.listen("192.0.2.2:80");
        assert_rejected(&a, "192.0.2.2:80");
    });
}

/// A hundred containers, each with a list and a port, in few transactions.
#[test]
fn many_endpoints_fit() {
    on_a_fresh_host(|| {
        let mut world = World::new();
        world.network(1, |_| {});
        for number in 2..=250_u8 {
            let list: Vec<_> = (0..16)
                .map(|port| allowed("192.0.2.2/32", Protocol::Tcp, port * 10..=port * 10 + 5))
                .collect();
            world.wanted.endpoints.push(Endpoint {
                host_link: format!("v{number}"),
                bridge: "br1".to_owned(),
                mac: Mac([2, 0, 0, 0, 0, number]),
                addresses: vec![ip(&format!("10.9.1.{number}"))],
                egress: Some(egress(&list, &["10.9.1.2", "10.9.1.3"])),
            });
            world.publish(
                &format!("0.0.0.0:{}", 1000 + u16::from(number)),
                Protocol::Tcp,
                &format!("10.9.1.{number}:80"),
            );
        }
        world.apply();
        world.wanted.endpoints.truncate(100);
        world.apply();
        world.firewall.restore().expect("as before");
    });
}
/// A connection that the kernel still follows does not outlive what allowed it, and none keeps a new port from its target.
#[test]
fn flows_end_with_what_they_were_for() {
    on_a_fresh_host(|| {
        let mut world = World::new();
        world.network(1, |_| {});
        let a = world.container(1, 2, None);
        world.apply();
        let client = world.outside.udp("192.0.2.2:0");
        let send = |text: &str| {
            client
                .send_to(text.as_bytes(), address("192.0.2.1:5353"))
                .expect("a route")
        };
        // Asked before it was published: the kernel remembers where that went.
        let host = Namespace::current().udp("192.0.2.1:5353");
        send("early");
        assert_eq!(receive(&host).0, "early");
        drop(host);
        let server = a.udp("10.9.1.2:53");
        world.publish("0.0.0.0:5353", Protocol::Udp, "10.9.1.2:53");
        world.apply();
        send("first");
        assert_eq!(receive(&server).0, "first");

        // Another container gets the address, and publishes nothing.
        world.host.detach("v1-2").expect("it is ours");
        world.wanted.endpoints.clear();
        world.wanted.published.clear();
        world.apply();
        drop((server, a));
        let b = world.container(1, 2, None);
        world.apply();
        let server = b.udp("10.9.1.2:53");
        let host = Namespace::current().udp("192.0.2.1:5353");
        send("late");
        assert_eq!(receive(&host).0, "late");
        server.set_nonblocking(true).expect("a socket");
        assert_eq!(
            server.recv(&mut [0]).expect_err("nothing came").kind(),
            ErrorKind::WouldBlock
        );

        // A list that is shortened ends what it allowed.
        let outside = world.outside.udp("192.0.2.2:70");
        let (inner, marker) = (b.udp("10.9.1.2:0"), b.udp("10.9.1.2:0"));
        let both = [
            allowed("192.0.2.2/32", Protocol::Udp, 70..=70),
            allowed("192.0.2.2/32", Protocol::Udp, 71..=71),
        ];
        world.wanted.endpoints[0].egress = Some(egress(&both, &[]));
        world.apply();
        inner
            .send_to(b"allowed", address("192.0.2.2:70"))
            .expect("a route");
        let (_, from) = receive(&outside);
        outside.send_to(b"back", from).expect("a route");
        assert_eq!(receive(&inner).0, "back");
        world.wanted.endpoints[0].egress = Some(egress(&both[1..], &[]));
        world.apply();
        drop(inner.send_to(b"refused", address("192.0.2.2:70")));
        let end = world.outside.udp("192.0.2.2:71");
        marker
            .send_to(b"marker", address("192.0.2.2:71"))
            .expect("a route");
        assert_eq!(receive(&end).0, "marker");
        outside.set_nonblocking(true).expect("a socket");
        assert_eq!(
            outside.recv(&mut [0]).expect_err("nothing came").kind(),
            ErrorKind::WouldBlock
        );
    });
}

/// After any sequence of pictures the kernel holds the last one, element by element.
#[test]
fn the_kernel_holds_what_was_wanted_last() {
    on_a_fresh_host(|| {
        let mut state = 0xbb67_ae85_84ca_a73b_u64;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let firewall = Firewall::open(&scope("/run/kakoi")).expect("root opens netlink");
        for round in 0..60 {
            let mut wanted = Wanted::default();
            for number in 1..=3 {
                wanted.networks.push(Network {
                    bridge: format!("br{number}"),
                    internal: random(4) == 0,
                    icc: random(4) > 0,
                    masquerade: random(4) > 0,
                });
            }
            for number in 2..12_u8 {
                if random(3) == 0 {
                    continue;
                }
                let bridge = 1 + random(3);
                let target = [
                    format!("10.9.{bridge}.{number}"),
                    format!("fd00:{bridge}::{number}"),
                ];
                let list: Vec<_> = (0..random(4))
                    .map(|_| {
                        let (first, more) = (random(100) as u16, random(100) as u16);
                        let network = format!("192.0.{}.0/{}", random(4) * 64, 16 + random(9));
                        let network = network.parse::<IpNet>().expect("a network").trunc();
                        allowed(&network.to_string(), Protocol::Tcp, first..=first + more)
                    })
                    .collect();
                wanted.endpoints.push(Endpoint {
                    host_link: format!("v{number}"),
                    bridge: format!("br{bridge}"),
                    mac: Mac([2, 0, 0, 0, random(4) as u8, number]),
                    addresses: target.iter().map(|text| ip(text)).collect(),
                    egress: (random(2) == 0).then(|| egress(&list, &["10.9.1.2", "10.9.1.3", "10.9.2.4"])),
                });
                for (family, host) in ["0.0.0.0", "::"].into_iter().enumerate() {
                    if random(2) == 0 {
                        wanted.published.push(Published {
                            host_address: ip(host),
                            host_port: 8000 + u16::from(number),
                            protocol: [Protocol::Tcp, Protocol::Udp][random(2) as usize],
                            target: SocketAddr::new(ip(&target[family]), 80 + random(2) as u16),
                            bridge: format!("br{bridge}"),
                        });
                    }
                }
            }
            firewall.apply(&wanted).expect("it makes sense");
            let wanted = elements::of(&wanted, scope("/run/kakoi").group()).expect("it makes sense");
            for table in &tables::TABLES {
                for set in table.sets {
                    let there = events::elements(&firewall.socket, "kakoi", (table.family, set.name));
                    let there: std::collections::BTreeSet<_> = there.expect("root may").into_iter().collect();
                    let expected = wanted.get(&(table.family, set.name)).cloned().unwrap_or_default();
                    assert_eq!(there, expected, "round {round}: {:?} {}", table.family, set.name);
                }
            }
        }
    });
}
