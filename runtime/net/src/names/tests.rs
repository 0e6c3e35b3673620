//! The name server for real: asked from inside a namespace, with upstream servers of the tests' own on the host.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::Mutex;

use super::wire::tests::{ask, code, is_truncated};
use super::wire::{A, AAAA, ANY, Code, PTR, Query};
use super::*;
use crate::firewall::tests::{World, assert_rejected};
use crate::firewall::{Admitted, Egress, Firewall, Service};
use crate::testing::{Namespace, PATIENCE, on_a_fresh_host, talk};

/// Two names of ours, and everything that upstreams told.
#[derive(Default)]
struct Known {
    told: Mutex<Vec<(String, IpAddr, u64)>>,
}

impl Names for Known {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let list: &[&str] = match name {
            "web" => &["10.9.0.2", "fd00::2"],
            "old" => &["10.9.0.3", "10.9.0.4", "10.9.0.5"],
            _ => return None,
        };
        Some(
            list.iter()
                .map(|text| text.parse().expect("an address"))
                .collect(),
        )
    }

    fn name(&self, address: IpAddr) -> Option<String> {
        (address.to_string() == "10.9.0.2").then(|| "web.net".to_owned())
    }

    fn may_ask(&self, name: &str) -> bool {
        !name.ends_with("secret")
    }

    fn resolved(&self, name: &str, addresses: &[(IpAddr, Duration)]) {
        let mut told = self.told.lock().expect("no panic");
        let told_now = addresses
            .iter()
            .map(|(to, time)| (name.to_owned(), *to, time.as_secs()));
        told.extend(told_now);
    }
}

/// A namespace with a name server, and the host around it.
struct Inside {
    namespace: Arc<Namespace>,
    known: Arc<Known>,
    /// Dropped, it ends the server.
    _running: tokio::sync::oneshot::Sender<()>,
}

impl Inside {
    fn new(upstreams: &[SocketAddr]) -> Self {
        let namespace = Namespace::new();
        namespace.within(|| kakoi_sys::network::raise_loopback().expect("a new namespace has lo"));
        let known = Arc::new(Known::default());
        Self::of(namespace, known.clone(), known, upstreams)
    }

    fn of(namespace: Namespace, names: Arc<dyn Names>, known: Arc<Known>, upstreams: &[SocketAddr]) -> Self {
        let upstreams = upstreams.to_vec();
        Self::start(namespace, known, move |sockets| {
            Server::start(sockets, names, upstreams)
        })
    }

    fn start(
        namespace: Namespace,
        known: Arc<Known>,
        start: impl FnOnce(Sockets) -> Result<Server, NamesError> + Send + 'static,
    ) -> Self {
        let namespace = Arc::new(namespace);
        let (running, end) = tokio::sync::oneshot::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let own = namespace.clone();
        // A thread starts where its parent is: upstreams are asked from the test's host.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                // Twice, as after a restart of the daemon.
                drop(Sockets::open(own.as_fd()).expect("lo is up"));
                let sockets = Sockets::open(own.as_fd()).expect("lo is up");
                let _server = start(sockets).expect("sockets are there");
                ready.send(()).expect("the test waits");
                drop(end.await);
            });
        });
        is_ready.recv().expect("the server started");
        Self {
            namespace,
            known,
            _running: running,
        }
    }

    fn socket(&self) -> UdpSocket {
        let socket = self.namespace.udp("127.0.0.1:0");
        socket.connect((SERVER, 53)).expect("lo is up");
        socket
    }

    fn ask(&self, query: &[u8]) -> Vec<u8> {
        let socket = self.socket();
        socket.send(query).expect("lo is up");
        let mut answer = vec![0; 65_535];
        let count = socket
            .recv(&mut answer)
            .expect("an answer from where it was asked");
        answer.truncate(count);
        answer
    }

    fn ask_by_tcp(&self, query: &[u8]) -> Vec<u8> {
        let mut stream = self.namespace.connect("127.0.0.11:53").expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        stream
            .write_all(&(query.len() as u16).to_be_bytes())
            .expect("connected");
        stream.write_all(query).expect("connected");
        let mut length = [0; 2];
        stream.read_exact(&mut length).expect("an answer");
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer).expect("an answer");
        answer
    }
}

fn addresses(query: &[u8], answer: &[u8]) -> Vec<String> {
    let query = Query::parse(query).expect("well formed");
    let found = query.addresses(answer).into_iter();
    found.map(|(address, _)| address.to_string()).collect()
}

/// An upstream on the host, by datagrams: what it answers to each query in turn, as long as it is asked.
fn upstream(answer: impl Fn(&[u8], u32) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("lo is up");
    let address = socket.local_addr().expect("bound");
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        let mut number = 0;
        while let Ok((count, from)) = socket.recv_from(&mut bytes) {
            for answer in answer(&bytes[..count], number) {
                socket.send_to(&answer, from).expect("lo is up");
            }
            number += 1;
        }
    });
    address
}

fn reply(query: &[u8], code: Code, address: [u8; 4], seconds: u32) -> Vec<u8> {
    let query = Query::parse(query).expect("forwarded as it came");
    query.reply(code, &[(A, address.to_vec())], seconds)
}

#[test]
fn names_of_ours_are_answered_by_both_transports() {
    on_a_fresh_host(|| {
        let inside = Inside::new(&[]);
        for (name, kind, expected) in [
            ("web", A, &["10.9.0.2"][..]),
            ("WEB", AAAA, &["fd00::2"]),
            ("web", ANY, &["10.9.0.2", "fd00::2"]),
            // No address of that family, or no such record: there, and empty.
            ("old", AAAA, &[]),
            ("old", 15, &[]),
        ] {
            let query = ask(9, name, kind, None);
            for answer in [inside.ask(&query), inside.ask_by_tcp(&query)] {
                assert_eq!(code(&answer), Code::NoError as u16, "{name} {kind}");
                let mut found = addresses(&query, &answer);
                found.sort();
                assert_eq!(found, expected, "{name} {kind}");
            }
        }
        // Each time another one first.
        let query = ask(9, "old", A, None);
        let firsts: std::collections::BTreeSet<_> = (0..3)
            .map(|_| addresses(&query, &inside.ask(&query))[0].clone())
            .collect();
        assert_eq!(firsts.len(), 3);

        let pointer = inside.ask(&ask(9, "2.0.9.10.in-addr.arpa", PTR, None));
        assert!(
            pointer.windows(9).any(|bytes| bytes == b"\x03web\x03net\0"),
            "{pointer:?}"
        );
        // Neither ours, nor anybody to ask, nor allowed to be asked.
        for (name, kind, expected) in [
            ("other", A, Code::ServerFailure),
            ("3.0.9.10.in-addr.arpa", PTR, Code::ServerFailure),
            ("top.secret", A, Code::Refused),
        ] {
            let query = ask(9, name, kind, Some(1232));
            for answer in [inside.ask(&query), inside.ask_by_tcp(&query)] {
                assert_eq!(code(&answer), expected as u16, "{name}");
            }
        }
    });
}

#[test]
fn a_container_may_serve_names_itself() {
    on_a_fresh_host(|| {
        let inside = Inside::new(&[]);
        let own = inside.namespace.udp("0.0.0.0:53");
        let query = ask(9, "web", A, None);
        assert_eq!(addresses(&query, &inside.ask(&query)), ["10.9.0.2"]);
        let client = inside.namespace.udp("127.0.0.1:0");
        client.send_to(b"to its own", "127.0.0.1:53").expect("lo is up");
        let mut bytes = [0; 64];
        assert_eq!(own.recv(&mut bytes).expect("it came"), 10);
    });
}

#[test]
fn the_rest_is_forwarded_and_told_before_it_is_answered() {
    on_a_fresh_host(|| {
        let address = upstream(|query, _| vec![reply(query, Code::NoError, [192, 0, 2, 7], 33)]);
        let inside = Inside::new(&[address]);
        let query = ask(77, "WWW.example", A, Some(1232));
        let answer = inside.ask(&query);
        assert_eq!(answer[..2], 77_u16.to_be_bytes());
        assert_eq!(addresses(&query, &answer), ["192.0.2.7"]);
        let told = inside.known.told.lock().expect("no panic").clone();
        assert_eq!(
            told,
            [("www.example".to_owned(), IpAddr::from([192, 0, 2, 7]), 33)]
        );
    });
}

#[test]
fn what_was_not_asked_for_is_not_believed() {
    on_a_fresh_host(|| {
        let address = upstream(|query, _| {
            let good = reply(query, Code::NoError, [192, 0, 2, 7], 33);
            let mut other_id = reply(query, Code::NoError, [6, 6, 6, 6], 33);
            other_id[1] ^= 1;
            let id = u16::from_be_bytes([query[0], query[1]]);
            let other_name = reply(&ask(id, "evil.example", A, None), Code::NoError, [6, 6, 6, 6], 33);
            let mut no_answer = good.clone();
            no_answer[2] &= 0x7f;
            vec![other_id, other_name, no_answer, b"x".to_vec(), Vec::new(), good]
        });
        let inside = Inside::new(&[address]);
        let query = ask(1, "www.example", A, None);
        assert_eq!(addresses(&query, &inside.ask(&query)), ["192.0.2.7"]);
    });
}

#[test]
fn one_server_that_fails_is_not_the_end() {
    on_a_fresh_host(|| {
        let silent = UdpSocket::bind("127.0.0.1:0").expect("lo is up");
        let failing = upstream(|query, _| vec![reply(query, Code::ServerFailure, [6, 6, 6, 6], 1)]);
        let good = upstream(|query, _| vec![reply(query, Code::NoError, [192, 0, 2, 7], 33)]);
        let query = ask(1, "www.example", A, None);
        for first in [
            failing,
            silent.local_addr().expect("bound"),
            "127.0.0.1:9".parse().expect("an address"),
        ] {
            let inside = Inside::new(&[first, good]);
            assert_eq!(addresses(&query, &inside.ask(&query)), ["192.0.2.7"], "{first}");
        }
        // Where all fail, the failure is the answer.
        let inside = Inside::new(&[failing]);
        assert_eq!(code(&inside.ask(&query)), Code::ServerFailure as u16);
        // The second round.
        let at_last = upstream(|query, number| match number {
            0 => Vec::new(),
            _ => vec![reply(query, Code::NoError, [192, 0, 2, 8], 33)],
        });
        let inside = Inside::new(&[at_last]);
        assert_eq!(addresses(&query, &inside.ask(&query)), ["192.0.2.8"]);
    });
}

#[test]
fn large_answers_go_by_tcp() {
    on_a_fresh_host(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("lo is up");
        let address = listener.local_addr().expect("bound");
        let datagrams = UdpSocket::bind(address).expect("the same port by datagrams");
        let many = |query: &[u8]| {
            let records: Vec<_> = (0..100_u8).map(|last| (A, vec![192, 0, 2, last])).collect();
            let query = Query::parse(query).expect("forwarded as it came");
            query.reply(Code::NoError, &records, 5)
        };
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok((count, from)) = datagrams.recv_from(&mut bytes) {
                datagrams.send_to(&many(&bytes[..count]), from).expect("lo is up");
            }
        });
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let mut length = [0; 2];
                stream.read_exact(&mut length).expect("a query");
                let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut query).expect("a query");
                let answer = many(&query);
                stream
                    .write_all(&(answer.len() as u16).to_be_bytes())
                    .expect("connected");
                stream.write_all(&answer).expect("connected");
            }
        });
        let inside = Inside::new(&[address]);
        for (edns, cut) in [(None, true), (Some(1232), true), (Some(4000), false)] {
            let query = ask(3, "many.example", A, edns);
            let answer = inside.ask(&query);
            assert_eq!(is_truncated(&answer), cut, "{edns:?}");
            assert_eq!(addresses(&query, &answer).len(), if cut { 0 } else { 100 });
            assert_eq!(addresses(&query, &inside.ask_by_tcp(&query)).len(), 100);
        }
    });
}

#[test]
fn hostile_queries_harm_nobody() {
    on_a_fresh_host(|| {
        let silent = UdpSocket::bind("127.0.0.1:0").expect("lo is up");
        let inside = Inside::new(&[silent.local_addr().expect("bound")]);
        let socket = inside.socket();
        // Not queries: no answer, or one that says so.
        for bytes in [&[][..], &[1], &[0xff; 600], &[0; 12], &[0xc0; 64]] {
            socket.send(bytes).expect("lo is up");
        }
        // More than are forwarded at a time: the rest is answered at once.
        for id in 0..200_u16 {
            socket.send(&ask(id, "slow.example", A, None)).expect("lo is up");
        }
        let mut bytes = [0; 600];
        loop {
            let count = socket.recv(&mut bytes).expect("the rest is refused");
            if count > 12 && code(&bytes[..count]) == Code::ServerFailure as u16 {
                break;
            }
        }
        // Connections that say nothing, or half of it, take no place from datagrams.
        let mut half: Vec<_> = (0..20)
            .map(|_| inside.namespace.connect("127.0.0.11:53").expect("it listens"))
            .collect();
        for stream in &mut half {
            stream.write_all(&[0]).expect("connected");
        }
        let query = ask(9, "web", A, None);
        assert_eq!(addresses(&query, &inside.ask(&query)), ["10.9.0.2"]);
        // A query longer than any is not waited for.
        drop(half);
        let mut stream = inside.namespace.connect("127.0.0.11:53").expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        stream.write_all(&[0xff, 0xff]).expect("connected");
        assert_eq!(stream.read(&mut bytes).expect("it is closed"), 0);
    });
}

#[test]
fn resolveds_stub_is_seen_through() {
    let root = tempfile::tempdir().expect("a folder");
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().expect("below the root")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    };
    let found = || {
        let servers = host_upstreams(root.path()).into_iter();
        servers.map(|server| server.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(found(), [""; 0]);
    write(
        "etc/resolv.conf",
        "# nameserver 9.9.9.9\nsearch lan\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 # ours\nnameserver fe80::1%eth0\nnameserver\nnameserver no\nnameservers 8.8.8.8\nnameserver 127.0.0.11\nnameserver 127.0.0.1\n",
    );
    assert_eq!(found(), ["192.0.2.1:53", "[2001:db8::1]:53", "127.0.0.1:53"]);
    write(
        "etc/resolv.conf",
        "nameserver 127.0.0.53\noptions edns0 trust-ad\n",
    );
    assert_eq!(found(), [""; 0]);
    write(
        "run/systemd/resolve/resolv.conf",
        "nameserver 192.0.2.9\nnameserver 127.0.0.54\n",
    );
    assert_eq!(found(), ["192.0.2.9:53"]);
    write("etc/resolv.conf", &"nameserver 192.0.2.1\n".repeat(20));
    assert_eq!(found().len(), 8);
}

/// What the names of a policy do: whoever resolves one may go there, and nowhere else.
struct Opening {
    firewall: Firewall,
    endpoint: IpAddr,
}

impl Names for Opening {
    fn addresses(&self, _name: &str) -> Option<Vec<IpAddr>> {
        None
    }

    fn name(&self, _address: IpAddr) -> Option<String> {
        None
    }

    fn may_ask(&self, name: &str) -> bool {
        name == "good.example"
    }

    fn resolved(&self, _name: &str, addresses: &[(IpAddr, Duration)]) {
        let admitted: Vec<_> = addresses
            .iter()
            .map(|(address, lifetime)| Admitted {
                address: *address,
                service: Service::Ports {
                    protocol: crate::ports::Protocol::Tcp,
                    ports: 443..=443,
                },
                lifetime: *lifetime,
            })
            .collect();
        self.firewall
            .admit(self.endpoint, &admitted)
            .expect("there is room");
    }
}

#[test]
fn a_name_opens_the_way_before_its_address_is_known() {
    on_a_fresh_host(|| {
        let mut world = World::new();
        world.network(1, |_| {});
        let nothing = Egress {
            allowed: Vec::new(),
            peers: Vec::new(),
        };
        let a = world.container(1, 2, Some(nothing));
        world.apply();
        let upstream = upstream(|query, _| vec![reply(query, Code::NoError, [192, 0, 2, 2], 1)]);
        let World {
            firewall, outside, ..
        } = world;
        let opening = Arc::new(Opening {
            firewall,
            endpoint: "10.9.1.2".parse().expect("an address"),
        });
        let inside = Inside::of(a, opening, Arc::default(), &[upstream]);
        let listener = outside.listen("192.0.2.2:443");
        assert_rejected(&inside.namespace, "192.0.2.2:443");
        // A name that may not be asked for opens nothing, whoever else it belongs to.
        assert_eq!(
            code(&inside.ask(&ask(1, "bad.example", A, None))),
            Code::Refused as u16
        );
        assert_rejected(&inside.namespace, "192.0.2.2:443");

        let query = ask(2, "good.example", A, None);
        assert_eq!(addresses(&query, &inside.ask(&query)), ["192.0.2.2"]);
        talk(
            inside
                .namespace
                .connect("192.0.2.2:443")
                .expect("it was resolved"),
            &listener,
        );
        let _other = outside.listen("192.0.2.2:80");
        assert_rejected(&inside.namespace, "192.0.2.2:80");
    });
}

/// A gateway that finds another network asks there: no container has to be started anew.
#[test]
fn the_hosts_servers_are_followed() {
    on_a_fresh_host(|| {
        let servers: Vec<_> = ["127.0.0.2:53", "127.0.0.3:53"]
            .into_iter()
            .map(|address| UdpSocket::bind(address).expect("lo is up"))
            .collect();
        for (last, socket) in (2_u8..).zip(servers) {
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok((count, from)) = socket.recv_from(&mut bytes) {
                    let answer = reply(&bytes[..count], Code::NoError, [192, 0, 2, last], 5);
                    socket.send_to(&answer, from).expect("lo is up");
                }
            });
        }
        let root = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(root.path().join("etc")).expect("a folder");
        let conf = root.path().join("etc/resolv.conf");
        std::fs::write(&conf, "nameserver 127.0.0.2\n").expect("a file");
        let namespace = Namespace::new();
        namespace.within(|| kakoi_sys::network::raise_loopback().expect("a new namespace has lo"));
        let (known, folder) = (Arc::new(Known::default()), root.path().to_owned());
        let inside = Inside::start(namespace, known.clone(), move |sockets| {
            Server::start_following_host(sockets, known, &folder)
        });
        let query = ask(2, "www.example", A, None);
        assert_eq!(addresses(&query, &inside.ask(&query)), ["192.0.2.2"]);
        std::fs::write(&conf, "nameserver 127.0.0.3\n").expect("a file");
        // What was read is believed for a while.
        while addresses(&query, &inside.ask(&query)) != ["192.0.2.3"] {
            std::thread::yield_now();
        }
    });
}
