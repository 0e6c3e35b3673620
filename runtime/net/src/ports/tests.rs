//! Ports and proxies for real, in namespaces of the tests' own.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use super::*;
use crate::testing::{PATIENCE, on_a_fresh_host, talk};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn a_port_is_given_once() {
    on_a_fresh_host(|| {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let held = reserve(ip("0.0.0.0"), 80..=80, protocol).expect("it is free");
            assert_eq!(held.address().to_string(), "0.0.0.0:80");
            for (address, ports, said) in [
                (
                    "0.0.0.0",
                    80..=80,
                    Some("Bind for 0.0.0.0:80 failed: port is already allocated"),
                ),
                (
                    "127.0.0.1",
                    80..=80,
                    Some("Bind for 127.0.0.1:80 failed: port is already allocated"),
                ),
                ("::", 80..=80, None),
                ("0.0.0.0", 80..=81, None),
            ] {
                let second = reserve(ip(address), ports.clone(), protocol);
                assert_eq!(
                    second.as_ref().err().map(ToString::to_string).as_deref(),
                    said,
                    "{address}"
                );
                if let Ok(second) = second {
                    assert_eq!(second.address().port(), *ports.end());
                }
            }
            let both: Vec<_> = (0..2)
                .map(|_| reserve(ip("0.0.0.0"), 90..=91, protocol).expect("two are free"))
                .collect();
            let none = reserve(ip("0.0.0.0"), 90..=91, protocol).expect_err("both are taken");
            assert_eq!(
                none.to_string(),
                "Bind for 0.0.0.0:91 failed: port is already allocated"
            );
            drop((held, both));
            reserve(ip("0.0.0.0"), 80..=80, protocol).expect("it is free again");
        }
        let tcp = reserve(ip("0.0.0.0"), 80..=80, Protocol::Tcp).expect("it is free");
        reserve(ip("0.0.0.0"), 80..=80, Protocol::Udp).expect("another protocol");
        let chosen = reserve(ip("0.0.0.0"), 0..=0, tcp.protocol()).expect("some port is free");
        assert_ne!(chosen.address().port(), 0);
    });
}

/// Whoever came before the firewall knew where to is told to try again, at once, instead of waiting for an answer of nobody's; so is whoever was on his
/// way then.
#[test]
fn early_connections_are_refused() {
    on_a_fresh_host(|| {
        let held = reserve(ip("127.0.0.1"), 80..=80, Protocol::Tcp).expect("it is free");
        let connect = || TcpStream::connect(held.address()).expect("the kernel takes it");
        let refused = |mut connection: TcpStream| {
            connection.set_read_timeout(Some(PATIENCE)).expect("a limit");
            let ended = connection.read(&mut [0]).expect_err("it was reset");
            assert_eq!(ended.kind(), io::ErrorKind::ConnectionReset);
        };
        let early: Vec<_> = (0..3).map(|_| connect()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let refusing = Proxy::refuse(&held).expect("it listens");
            assert!(!refusing.is_carrying() && refusing.serves(&held));
            let asking = tokio::task::spawn_blocking(move || early.into_iter().for_each(refused));
            asking.await.expect("all of them");
            let late = connect();
            tokio::task::spawn_blocking(move || refused(late))
                .await
                .expect("it too");
        });
        reserve(ip("127.0.0.1"), 80..=80, Protocol::Tcp).expect_err("it is still held");
    });
}

/// What another program holds is as taken as what we hold, and what it has left is free at once.
#[test]
fn a_port_of_another_program_is_taken() {
    on_a_fresh_host(|| {
        let theirs = TcpListener::bind("127.0.0.1:80").expect("it is free");
        let client = TcpStream::connect("127.0.0.1:80").expect("it listens");
        let taken = reserve(ip("0.0.0.0"), 80..=80, Protocol::Tcp).expect_err("they listen");
        assert!(matches!(taken, PortError::Taken { .. }), "{taken}");
        // Closed by the listening side first: the connection stays in TIME_WAIT there.
        let (accepted, _) = theirs.accept().expect("a connection waits");
        drop((accepted, theirs));
        drop(client);
        reserve(ip("0.0.0.0"), 80..=80, Protocol::Tcp).expect("nobody listens");

        let foreign = reserve(ip("192.0.2.1"), 80..=80, Protocol::Tcp).expect_err("not our address");
        assert_eq!(foreign.to_string(), "could not bind 192.0.2.1:80/tcp");
        let (first, last) = (9, 8);
        let empty = reserve(ip("0.0.0.0"), first..=last, Protocol::Tcp).expect_err("upside down");
        assert_eq!(empty.to_string(), "9 to 8 is no range of ports");
    });
}

#[test]
fn a_proxy_is_for_what_dnat_cannot_do() {
    for (host, target, needed) in [
        ("0.0.0.0", "10.0.0.2:80", false),
        ("127.0.0.1", "10.0.0.2:80", false),
        ("::", "10.0.0.2:80", true),
        ("2001:db8::1", "10.0.0.2:80", true),
        ("::", "[fd00::2]:80", true),
        ("::1", "[fd00::2]:80", true),
        ("2001:db8::1", "[fd00::2]:80", false),
        ("0.0.0.0", "[fd00::2]:80", true),
    ] {
        assert_eq!(
            needs_proxy(ip(host), target.parse().expect("an address")),
            needed,
            "{host} {target}"
        );
    }
}

/// Runs a proxy in a thread of its own, on the test's host, until the returned value is dropped.
fn proxy(reservation: Reservation, target: SocketAddr) -> tokio::sync::oneshot::Sender<()> {
    let (running, end) = tokio::sync::oneshot::channel::<()>();
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let _proxy = Proxy::start(&reservation, target).expect("it is reserved");
            ready.send(()).expect("the test waits");
            drop(end.await);
        });
    });
    is_ready.recv().expect("the proxy started");
    running
}

#[test]
fn connections_are_carried_with_their_ends() {
    on_a_fresh_host(|| {
        let target = TcpListener::bind("127.0.0.1:81").expect("it is free");
        let reservation = reserve(ip("::"), 80..=80, Protocol::Tcp).expect("it is free");
        let running = proxy(reservation, target.local_addr().expect("bound"));
        talk(TcpStream::connect("[::1]:80").expect("it is carried"), &target);
        // One side ends and still hears the other.
        let mut client = TcpStream::connect("[::1]:80").expect("it is carried");
        client.set_read_timeout(Some(PATIENCE)).expect("not zero");
        let (mut server, _) = target.accept().expect("a connection waits");
        client.write_all(b"all").expect("connected");
        client.shutdown(Shutdown::Write).expect("connected");
        let mut asked = String::new();
        server.read_to_string(&mut asked).expect("an end");
        server.write_all(b"heard").expect("connected");
        drop(server);
        let mut told = String::new();
        client.read_to_string(&mut told).expect("an end");
        assert_eq!((asked.as_str(), told.as_str()), ("all", "heard"));
        // Nobody there: the connection ends.
        drop(target);
        let mut client = TcpStream::connect("[::1]:80").expect("the proxy takes it");
        client.set_read_timeout(Some(PATIENCE)).expect("not zero");
        assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
        // Dropped, it lets go of the port.
        drop(running);
        while let Err(error) = reserve(ip("::"), 80..=80, Protocol::Tcp) {
            assert!(matches!(error, PortError::Taken { .. }), "{error}");
            std::thread::yield_now();
        }
    });
}

#[test]
fn datagrams_are_carried_to_whom_they_are_for() {
    on_a_fresh_host(|| {
        let target = UdpSocket::bind("127.0.0.1:81").expect("it is free");
        target.set_read_timeout(Some(PATIENCE)).expect("not zero");
        let reservation = reserve(ip("::"), 80..=80, Protocol::Udp).expect("it is free");
        let _running = proxy(reservation, target.local_addr().expect("bound"));
        let clients: Vec<_> = (0..3)
            .map(|_| {
                let client = UdpSocket::bind("[::1]:0").expect("a port");
                client.set_read_timeout(Some(PATIENCE)).expect("not zero");
                client.connect("[::1]:80").expect("lo is up");
                client
            })
            .collect();
        for round in 0..2_u8 {
            for (number, client) in (0_u8..).zip(&clients) {
                client.send(&[round, number]).expect("it is carried");
            }
            for _ in &clients {
                let mut bytes = [0; 8];
                let (count, from) = target.recv_from(&mut bytes).expect("it is carried");
                target.send_to(&bytes[..count], from).expect("the way back");
            }
            for (number, client) in (0_u8..).zip(&clients) {
                let mut bytes = [0; 8];
                let count = client.recv(&mut bytes).expect("its own answer");
                assert_eq!(bytes[..count], [round, number]);
            }
        }
    });
}
