//! Links for real, in namespaces of the tests' own.

use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use super::*;
use crate::testing::{Namespace, attached, bridge, endpoint, networks, on_a_fresh_host, scope, talk};

fn own_names(host: &Host) -> Vec<String> {
    let mut names: Vec<_> = host
        .own_links()
        .expect("links can be listed")
        .into_iter()
        .map(|link| link.name)
        .collect();
    names.sort();
    names
}

#[test]
fn two_namespaces_and_the_host_reach_each_other() {
    on_a_fresh_host(|| {
        let host = Host::open(&scope("/run/a")).expect("root opens netlink");
        host.ensure_bridge(&bridge("br0", &["10.9.0.1/24", "fd00:9::1/64"]))
            .expect("nothing is in the way");
        let a = attached(&host, &endpoint("va", "br0", &["10.9.0.2/24", "fd00:9::2/64"]));
        let b = attached(&host, &endpoint("vb", "br0", &["10.9.0.3/24", "fd00:9::3/64"]));
        for (listen, seen) in [
            ("10.9.0.3:80", "10.9.0.2"),
            ("[fd00:9::3]:80", "fd00:9::2"),
            ("127.0.0.1:80", "127.0.0.1"),
        ] {
            let listener = b.listen(listen);
            let from = if seen == "127.0.0.1" { &b } else { &a };
            let client = from.connect(listen).expect("the bridge carries it");
            assert_eq!(talk(client, &listener).to_string(), seen);
        }
        // The host by its gateway address, and through the default route by any other.
        let listener = std::net::TcpListener::bind("[::]:81").expect("a free port");
        for address in ["10.9.0.1:81", "[fd00:9::1]:81"] {
            talk(a.connect(address).expect("the host answers"), &listener);
        }
    });
}

#[test]
fn a_default_route_moves_from_link_to_link() {
    on_a_fresh_host(|| {
        let host = Host::open(&scope("/run/a")).expect("root opens netlink");
        for (name, address) in [("br0", "10.9.0.1/24"), ("br1", "10.8.0.1/24")] {
            host.ensure_bridge(&bridge(name, &[address]))
                .expect("nothing is in the way");
        }
        let first = endpoint("va", "br0", &["10.9.0.2/24"]);
        let inside = attached(&host, &first);
        let routed = |address: &str, endpoint: &Endpoint| Endpoint {
            gateways: vec![address.parse().expect("an address")],
            ..endpoint.clone()
        };
        let silent = |endpoint: &Endpoint| Endpoint {
            gateways: vec![],
            ..endpoint.clone()
        };
        let second = Endpoint {
            name: "eth1".into(),
            ..silent(&endpoint("vb", "br1", &["10.8.0.2/24"]))
        };
        let attached = host.attach(inside.as_fd(), &second).expect("another name");
        attached.announce().expect("it is up");
        // An address that only the default route leads to.
        let far = "203.0.113.9:81";
        let leads = |inside: &Namespace| {
            inside.within(|| {
                let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("any port");
                socket.connect(far).ok()?;
                Some(socket.local_addr().ok()?.ip().to_string())
            })
        };
        assert_eq!(leads(&inside).as_deref(), Some("10.9.0.2"));
        host.reroute(inside.as_fd(), &first, &silent(&first))
            .expect("it has one");
        assert_eq!(leads(&inside), None);
        host.reroute(inside.as_fd(), &second, &routed("10.8.0.1", &second))
            .expect("there is room");
        assert_eq!(leads(&inside).as_deref(), Some("10.8.0.2"));
        // Two of one family are too many, and the first stays.
        let refused = host.reroute(inside.as_fd(), &silent(&first), &first);
        assert_eq!(errno(refused), Some(Errno::EEXIST));
        assert_eq!(leads(&inside).as_deref(), Some("10.8.0.2"));
    });
}

#[test]
fn a_bridge_becomes_what_is_wanted_and_stays_ours() {
    on_a_fresh_host(|| {
        let host = Host::open(&scope("/run/a")).expect("root opens netlink");
        let mut wanted = bridge("br0", &["10.9.0.1/24"]);
        host.ensure_bridge(&wanted).expect("nothing is in the way");
        host.ensure_bridge(&wanted)
            .expect("the second time changes nothing");
        wanted.addresses = networks(&["10.8.0.1/24", "fd00:8::1/64"]);
        wanted.mtu = 1400;
        host.ensure_bridge(&wanted).expect("it is ours");
        assert_eq!(
            host.taken_subnets().expect("the host tells"),
            networks(&["10.8.0.0/24", "fd00:8::/64"])
        );
        for (setting, value) in [
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/br0/accept_ra", "0"),
            ("ipv4/conf/br0/route_localnet", "1"),
            ("ipv4/conf/br0/accept_source_route", "0"),
            ("ipv4/conf/br0/accept_redirects", "0"),
            ("ipv6/conf/br0/accept_redirects", "0"),
            ("ipv6/conf/br0/disable_ipv6", "0"),
        ] {
            let there = std::fs::read_to_string(format!("/proc/sys/net/{setting}")).expect("it is there");
            assert_eq!(there.trim(), value, "{setting}");
        }

        let other = Host::open(&scope("/run/b")).expect("root opens netlink");
        assert!(own_names(&other).is_empty());
        for refused in [other.ensure_bridge(&wanted), other.remove_link("br0")] {
            assert!(matches!(refused, Err(LinkError::Foreign { .. })), "{refused:?}");
        }
        let into_foreign = other.attach(Namespace::new().as_fd(), &endpoint("va", "br0", &["10.8.0.2/24"]));
        assert!(
            matches!(into_foreign, Err(LinkError::Foreign { .. })),
            "{into_foreign:?}"
        );
        assert!(matches!(host.remove_link("lo"), Err(LinkError::Foreign { .. })));

        host.remove_link("br0").expect("it is ours");
        host.remove_link("br0").expect("that it is gone is no error");
        assert!(own_names(&host).is_empty());
    });
}

#[test]
fn an_internal_bridge_makes_no_host_forward() {
    on_a_fresh_host(|| {
        let host = Host::open(&scope("/run/a")).expect("root opens netlink");
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").expect("the namespace is ours");
        let mut wanted = bridge("br0", &["10.9.0.1/24"]);
        wanted.forwards = false;
        host.ensure_bridge(&wanted).expect("nothing is in the way");
        let forward = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").expect("it is there");
        assert_eq!(forward.trim(), "0");
    });
}

#[test]
fn what_fails_leaves_nothing() {
    on_a_fresh_host(|| {
        let host = Host::open(&scope("/run/a")).expect("root opens netlink");
        host.ensure_bridge(&bridge("br0", &["10.9.0.1/24"]))
            .expect("nothing is in the way");
        let there = attached(&host, &endpoint("va", "br0", &["10.9.0.2/24"]));

        // The name is taken inside.
        let again = host.attach(there.as_fd(), &endpoint("vb", "br0", &["10.9.0.3/24"]));
        assert_eq!(errno(again), Some(Errno::EEXIST));
        // The name is taken on the host: the link that has it stays.
        let elsewhere = Namespace::new();
        let same = host.attach(elsewhere.as_fd(), &endpoint("va", "br0", &["10.9.0.3/24"]));
        assert_eq!(errno(same), Some(Errno::EEXIST));
        // A second default route fails after the link was made.
        let mut second = endpoint("vc", "br0", &["10.9.0.4/24"]);
        second.name = "eth1".to_owned();
        assert_eq!(errno(host.attach(there.as_fd(), &second)), Some(Errno::EEXIST));
        // No namespace at all.
        let null = std::fs::File::open("/dev/null").expect("it is there");
        assert!(
            host.attach(null.as_fd(), &endpoint("vd", "br0", &["10.9.0.5/24"]))
                .is_err()
        );

        assert_eq!(own_names(&host), ["br0", "va"]);
        second.gateways.clear();
        let attached = host.attach(there.as_fd(), &second);
        attached
            .and_then(|attached| attached.announce())
            .expect("a second link without a default route");
        assert_eq!(own_names(&host), ["br0", "va", "vc"]);
        host.detach("vc").expect("it is ours");
        host.detach("vc").expect("that it is gone is no error");
        drop(there);
        assert_eq!(own_names(&host)[0], "br0");
    });
}

fn errno<T: std::fmt::Debug>(done: Result<T>) -> Option<Errno> {
    match done {
        Err(LinkError::Netlink { source, .. }) => source.errno(),
        other => panic!("not refused by the kernel: {other:?}"),
    }
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_made() {
    on_a_fresh_host(|| {
        let host = Host::open(&scope("/run/a")).expect("root opens netlink");
        host.ensure_bridge(&bridge("br0", &["10.9.0.1/24"]))
            .expect("nothing is in the way");
        let namespace = Namespace::new();
        let good = endpoint("va", "br0", &["10.9.0.2/24"]);
        let changed = |change: &dyn Fn(&mut Endpoint)| {
            let mut endpoint = good.clone();
            change(&mut endpoint);
            host.attach(namespace.as_fd(), &endpoint)
                .expect_err("it makes no sense")
                .to_string()
        };
        for name in [
            "",
            ".",
            "..",
            "sixteen-letters-",
            "a/b",
            "a b",
            "veth%d",
            "eth0:1",
            "é",
        ] {
            let said = changed(&|endpoint| name.clone_into(&mut endpoint.host_link));
            assert!(said.contains("is no interface name"), "{name:?}: {said}");
            let said = changed(&|endpoint| name.clone_into(&mut endpoint.name));
            assert!(said.contains("is no interface name"), "{name:?}: {said}");
        }
        type Row<'a> = (&'a dyn Fn(&mut Endpoint), &'a str);
        let rows: [Row<'_>; 7] = [
            (
                &|endpoint| endpoint.mtu = 67,
                "the MTU of eth0 is 67, not 68 to 65535",
            ),
            (
                &|endpoint| endpoint.mtu = 65_536,
                "the MTU of eth0 is 65536, not 68 to 65535",
            ),
            (
                &|endpoint| {
                    endpoint.mtu = 1279;
                    endpoint.addresses.extend(networks(&["fd00::2/64"]));
                },
                "the MTU of eth0 is 1279, not 1280 to 65535",
            ),
            (
                &|endpoint| endpoint.gateways = vec!["10.10.0.1".parse().expect("an address")],
                "gateway 10.10.0.1 is in none of the subnets of eth0",
            ),
            (
                &|endpoint| endpoint.gateways.push("10.9.0.7".parse().expect("an address")),
                "eth0 has more than 16 addresses, or two gateways of one family",
            ),
            (
                &|endpoint| endpoint.addresses = vec![endpoint.addresses[0]; 17],
                "eth0 has more than 16 addresses, or two gateways of one family",
            ),
            (
                &|endpoint| "br1".clone_into(&mut endpoint.bridge),
                "there is no bridge br1",
            ),
        ];
        for (change, expected) in rows {
            assert_eq!(changed(change), expected);
        }
        assert_eq!(own_names(&host), ["br0"]);
    });
}

/// A namespace that belongs to a user namespace, as a container's does.
#[test]
fn a_namespace_of_another_user_is_configured() {
    on_a_fresh_host(|| {
        let host = Host::open(&scope("/run/a")).expect("root opens netlink");
        host.ensure_bridge(&bridge("br0", &["10.9.0.1/24"]))
            .expect("nothing is in the way");
        let mut child = Command::new("unshare")
            .args([
                "--user",
                "--map-root-user",
                "--net",
                "sh",
                "-c",
                "echo; read line",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("util-linux is there");
        let mut line = [0; 1];
        io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut line).expect("it has unshared");
        let netns = std::fs::File::open(format!("/proc/{}/ns/net", child.id())).expect("it runs");
        let done = host.attach(netns.as_fd(), &endpoint("va", "br0", &["10.9.0.2/24"]));
        let names = crate::names::Sockets::open(netns.as_fd());
        drop(child.stdin.take());
        child.wait().expect("it ends with its input");
        done.and_then(|attached| attached.announce())
            .expect("root of the host may");
        names.expect("root of the host may");
    });
}

/// Who knew an address with another MAC learns the new one when the link comes up, and not when the old one has been silent for long.
#[test]
fn a_new_link_announces_its_address() {
    on_a_fresh_host(|| {
        let host = Host::open(&scope("/run/a")).expect("root opens netlink");
        host.ensure_bridge(&bridge("br0", &["10.9.0.1/24"]))
            .expect("nothing is in the way");
        // A bridge without ports forgets its neighbours.
        let _other = attached(&host, &endpoint("vz", "br0", &["10.9.0.9/24"]));
        for last in [7, 8] {
            let mut link = endpoint("va", "br0", &["10.9.0.2/24"]);
            link.mac = Mac([2, 0x42, 0, 0, 0, last]);
            let inside = attached(&host, &link);
            let listener = inside.listen("10.9.0.2:80");
            if last == 7 {
                let host = Namespace::current();
                talk(
                    host.connect("10.9.0.2:80").expect("the bridge carries it"),
                    &listener,
                );
            }
            // Nobody asks, so that nothing but the announcement, which is on its way, can bring it.
            let is_known = || {
                let known = std::fs::read_to_string("/proc/thread-self/net/arp").expect("it is there");
                known.contains(&link.mac.to_string())
            };
            while !is_known() {
                std::thread::yield_now();
            }
            host.detach("va").expect("it is ours");
        }
    });
}

/// A container of a network without IPv6 has none at all: no neighbour reaches it by an address that no rule knows.
#[test]
fn without_ipv6_there_is_no_link_local_address() {
    on_a_fresh_host(|| {
        let host = Host::open(&scope("/run/a")).expect("root opens netlink");
        host.ensure_bridge(&bridge("br0", &["10.9.0.1/24"]))
            .expect("nothing is in the way");
        let inside = attached(&host, &endpoint("va", "br0", &["10.9.0.2/24"]));
        let addresses = || {
            let all = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap_or_default();
            let of_links = all.lines().filter(|line| !line.ends_with("lo"));
            of_links.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(addresses(), [""; 0]);
        assert_eq!(inside.within(addresses), [""; 0]);
    });
}

#[test]
fn a_released_link_is_silent_at_once_and_goes() {
    on_a_fresh_host(|| {
        let host = Host::open(&scope("/run/a")).expect("root opens netlink");
        host.ensure_bridge(&bridge("br0", &["10.9.0.1/24"]))
            .expect("nothing is in the way");
        let old = attached(&host, &endpoint("va", "br0", &["10.9.0.2/24"]));
        let asked = old.udp("10.9.0.2:80");
        host.release("va").expect("it is ours");
        // Its address is another's now, and only that one is reached.
        let new = attached(&host, &endpoint("vb", "br0", &["10.9.0.2/24"]));
        let listener = new.listen("10.9.0.2:80");
        let here = Namespace::current();
        talk(
            here.connect("10.9.0.2:80").expect("the bridge carries it"),
            &listener,
        );
        asked.set_nonblocking(true).expect("a socket");
        assert!(asked.recv(&mut [0]).is_err());
        while own_names(&host) != ["br0", "vb"] {
            std::thread::yield_now();
        }
        host.release("va").expect("that it is gone is no error");
        let other = Host::open(&scope("/run/b")).expect("root opens netlink");
        let foreign = other.release("vb");
        assert!(matches!(foreign, Err(LinkError::Foreign { .. })), "{foreign:?}");
        // A namespace that ends takes its link along: whoever is first, it is gone.
        host.release("vb").expect("it is ours");
        drop((new, listener));
        while own_names(&host) != ["br0"] {
            std::thread::yield_now();
        }
    });
}
