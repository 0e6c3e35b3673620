//! Endpoints whose destinations are listed: addresses, neighbours, and names that open for a time.

use super::*;

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
