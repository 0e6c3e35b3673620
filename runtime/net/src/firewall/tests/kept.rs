//! The picture in the kernel: what is sent, flushed, put back and outlived.

use super::*;

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
