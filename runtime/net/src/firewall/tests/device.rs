//! A device with decoys behind its own ports, and a machine outside that scans all of them.

use super::*;

/// Ports that are scanned at a time: each is a socket of the scanner.
const AT_A_TIME: usize = 500;
/// Always open: whoever gets an answer here knows that all he asked before was judged.
const LAST: u16 = 7;

fn open(protocol: Protocol, ports: RangeInclusive<u16>) -> OpenPorts {
    OpenPorts {
        protocol,
        ports,
        link: None,
        from: None,
    }
}

fn input(open: Vec<OpenPorts>) -> Input {
    Input { open, ping: false }
}

fn filter() -> DeviceFilter {
    DeviceFilter::open(&scope("/run/kakoi")).expect("root opens netlink")
}

/// Which of these TCP ports of an address take a connection. A port whose packets are dropped never answers: what was asked for is over
/// when the last one, asked behind all others on the same way, has answered.
fn scan(from: &Namespace, address: &str, ports: &[u16], last: &TcpListener) -> Vec<u16> {
    let mut found = Vec::new();
    for ports in ports.chunks(AT_A_TIME) {
        let asked: Vec<(u16, socket2::Socket)> =
            from.within(|| ports.iter().map(|port| (*port, begin(address, *port))).collect());
        drop(from.connect(&whole(address, LAST)).expect("it is open"));
        drop(last.accept().expect("it waits"));
        // A connection to the last one itself waits in its queue.
        if ports.contains(&LAST) {
            drop(last.accept().expect("it waits"));
        }
        found.extend(
            asked
                .iter()
                .filter(|(_, socket)| is_through(socket))
                .map(|(port, _)| *port),
        );
    }
    found
}

fn whole(address: &str, port: u16) -> String {
    match address.contains(':') {
        true => format!("[{address}]:{port}"),
        false => format!("{address}:{port}"),
    }
}

/// A connection that is under way, or was refused already.
fn begin(address: &str, port: u16) -> socket2::Socket {
    let to = super::address(&whole(address, port));
    let socket = socket2::Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
    socket.set_nonblocking(true).expect("a socket");
    drop(socket.connect(&to.into()));
    socket
}

fn is_through(socket: &socket2::Socket) -> bool {
    socket.peer_addr().is_ok()
}

/// What a decoy heard before its last datagram.
fn heard(decoy: &UdpSocket) -> Vec<u8> {
    let mut bytes = [0; 16];
    let (count, _) = decoy.recv_from(&mut bytes).expect("the last one comes");
    bytes[..count].to_vec()
}

#[test]
fn a_scan_finds_exactly_what_is_open() {
    on_a_fresh_host(|| {
        let mut world = World::new();
        world.network(1, |_| {});
        let container = world.container(1, 2, None);
        let _target = container.listen("10.9.1.2:80");
        world.publish("0.0.0.0:8080", Protocol::Tcp, "10.9.1.2:80");
        world.apply();
        let here = Namespace::current();
        let decoys = [22, 23, 111, 1883, 5353, 8883, 60_000];
        let _decoys: Vec<TcpListener> = decoys
            .iter()
            .flat_map(|port| {
                [
                    here.listen(&whole(HOST4, *port)),
                    here.listen(&whole(HOST6, *port)),
                ]
            })
            .collect();
        let all: Vec<u16> = [&[LAST], &decoys[..5], &[8080], &decoys[5..]].concat();
        let every: Vec<u16> = (1..=u16::MAX).collect();
        let last4 = here.listen(&whole(HOST4, LAST));
        let last6 = here.listen(&whole(HOST6, LAST));
        assert_eq!(
            scan(&world.outside, HOST4, &all, &last4),
            all,
            "nothing is closed yet"
        );

        let filter = filter();
        let mut wanted = input(vec![
            open(Protocol::Tcp, LAST..=LAST),
            open(Protocol::Tcp, 22..=22),
            open(Protocol::Tcp, 8000..=9000),
            open(Protocol::Udp, 23..=23),
        ]);
        wanted.open.push(OpenPorts {
            link: Some("ext0".to_owned()),
            from: Some("192.0.2.0/30".parse().expect("a network")),
            ..open(Protocol::Tcp, 1883..=1883)
        });
        wanted.open.push(OpenPorts {
            link: Some("other0".to_owned()),
            ..open(Protocol::Tcp, 60_000..=60_000)
        });
        filter.apply(&wanted).expect("root closes ports");
        assert!(filter.stands(&wanted).expect("readable"));
        assert_eq!(
            scan(&world.outside, HOST4, &every, &last4),
            [LAST, 22, 1883, 8080, 8883]
        );
        assert_eq!(
            scan(&world.outside, HOST6, &every, &last6),
            [LAST, 22, 8883],
            "a prefix is of one family"
        );
        // The device itself reaches all of it.
        here.connect("192.0.2.1:23").expect("not from outside");

        filter.remove().expect("root opens ports");
        assert_eq!(scan(&world.outside, HOST4, &all, &last4), all);
    });
}

#[test]
fn datagrams_come_through_where_it_is_open() {
    on_a_fresh_host(|| {
        let world = World::new();
        let here = Namespace::current();
        let filter = filter();
        let wanted = input(vec![
            open(Protocol::Udp, 53..=53),
            open(Protocol::Tcp, 5353..=5353),
        ]);
        filter.apply(&wanted).expect("root closes ports");
        for (address, own) in [(HOST4, "192.0.2.2:0"), (HOST6, "[2001:db8::2]:0")] {
            let sender = world.outside.udp(own);
            for (port, hears) in [(53, true), (5353, false), (161, false)] {
                let decoy = here.udp(&whole(address, port));
                sender.send_to(b"outside", whole(address, port)).expect("sent");
                // From the device itself, which is never closed: behind it nothing comes any more.
                here.udp(&whole(address, 0))
                    .send_to(b"last", whole(address, port))
                    .expect("sent");
                let expected: &[u8] = if hears { b"outside" } else { b"last" };
                assert_eq!(heard(&decoy), expected, "{address} {port}");
            }
        }
    });
}

#[test]
fn whoever_is_connected_stays_and_whoever_comes_is_judged() {
    on_a_fresh_host(|| {
        let world = World::new();
        let here = Namespace::current();
        let filter = filter();
        let last = open(Protocol::Tcp, LAST..=LAST);
        filter
            .apply(&input(vec![open(Protocol::Tcp, 22..=22), last.clone()]))
            .expect("root closes ports");
        let listener = here.listen("192.0.2.1:22");
        let client = world.outside.connect("192.0.2.1:22").expect("open");
        let next = here.listen("192.0.2.1:7");
        filter.apply(&input(vec![last])).expect("root closes ports");
        talk(client, &listener);
        let late = world.outside.within(|| begin(HOST4, 22));
        talk(world.outside.connect("192.0.2.1:7").expect("open"), &next);
        assert!(!is_through(&late));
    });
}

#[test]
fn what_others_take_away_is_seen() {
    on_a_fresh_host(|| {
        let filter = filter();
        let wanted = input(vec![open(Protocol::Tcp, 22..=22)]);
        assert!(!filter.stands(&wanted).expect("readable"), "nothing stands yet");
        filter.apply(&wanted).expect("root closes ports");
        assert!(
            !filter.stands(&input(Vec::new())).expect("readable"),
            "more is open"
        );
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let mut watch = filter.watch().expect("root watches");
            let other = super::super::DeviceFilter::open(&scope("/run/kakoi")).expect("root opens netlink");
            other.remove().expect("another's hand");
            watch.lost().await.expect("it is told");
        });
        assert!(!filter.stands(&wanted).expect("readable"));
        assert!(!filter.is_there().expect("readable"));
    });
}

#[test]
fn a_link_is_turned_whoever_made_it() {
    on_a_fresh_host(|| {
        let world = World::new();
        let host = Host::open(&scope("/run/kakoi")).expect("root opens netlink");
        let is_up = || {
            let socket = Socket::open(SockProtocol::NetlinkRoute, 0).expect("root opens netlink");
            let mut is_up = None;
            let message = Message::new(libc::RTM_GETLINK, libc::NLM_F_DUMP, &[0; 16]);
            let asked = socket.ask(message, |received| {
                let attributes = Attributes(received.body.get(16..).unwrap_or_default());
                if attributes.find_str(libc::IFLA_IFNAME) == Some("ext0") {
                    is_up = received.body.get(8).map(|flags| flags & 1 == 1);
                }
            });
            asked.expect("it can be asked");
            is_up.expect("it is there")
        };
        assert!(is_up());
        host.turn("ext0", false).expect("root may");
        assert!(!is_up());
        host.turn("ext0", true).expect("root may");
        assert!(is_up());
        assert!(host.turn("none0", false).is_err());
        drop(world);
    });
}
