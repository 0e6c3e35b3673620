//! What is published, what networks reach of each other, and what leaves them.

use super::*;

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
