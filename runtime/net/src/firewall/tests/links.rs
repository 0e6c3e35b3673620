//! What a link may send and tell, and who is no member.

use super::*;

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
