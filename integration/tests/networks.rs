//! Networks through the real command line, in a network namespace of the test's own: who reaches whom, by which name and from where, what stays after
//! a restart and a crash, and what of the machine's own network is touched.
//!
//! Containers run under `docker-default`, whose meaning is Docker's. Servers answer with the address that a question seems to come from.
#![forbid(unsafe_code)]

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use kakoi_integration::command::Ran;
use kakoi_integration::host::Host;
use kakoi_integration::network::{self, Neighbour};
use kakoi_integration::{needs_root, wait};
use serde_json::{Value, json};

/// Longer than any answer on one machine takes.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
const IMAGE: [&str; 3] = ["--policy", "docker-default", "busybox:test"];

/// Runs a server that answers TCP at port 80.
#[track_caller]
fn serve(host: &Host, name: &str, flags: &[&str]) {
    serve_with(host, name, flags, &["/attacker", "serve", "tcp", "80"]);
}

#[track_caller]
fn serve_with(host: &Host, name: &str, flags: &[&str], program: &[&str]) {
    host.ok(&[&["run", "-d", "--name", name], flags, &IMAGE, program].concat());
}

/// What a container in a network is answered; errors begin with `refused`.
#[track_caller]
fn asked(host: &Host, network: &str, target: &str) -> String {
    host.kakoi(
        &[
            &["run", "--rm", "--network", network],
            &IMAGE[..],
            &["/attacker", "ask", target],
        ]
        .concat(),
    )
    .stdout
    .trim_end()
    .to_owned()
}

/// What a running container is answered.
#[track_caller]
fn asked_by(host: &Host, name: &str, target: &str) -> String {
    host.kakoi(&["exec", name, "/attacker", "ask", target])
        .stdout
        .trim_end()
        .to_owned()
}

/// What the calling thread is answered over TCP.
fn ask(target: impl Into<SocketAddr>) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&target.into(), ANSWER_LIMIT).ok()?;
    stream.set_read_timeout(Some(ANSWER_LIMIT)).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    (!text.is_empty()).then_some(text)
}

/// A server that has just been started may not listen yet; what should answer soon is asked until it does.
#[track_caller]
fn ask_soon(target: impl Into<SocketAddr>) -> String {
    let target = target.into();
    wait::poll(Duration::from_secs(10), || ask(target))
        .unwrap_or_else(|| panic!("nobody answers at {target}"))
}

fn ask_udp(target: SocketAddr) -> Option<String> {
    let any: IpAddr = if target.is_ipv6() {
        "::".parse().ok()?
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.set_read_timeout(Some(Duration::from_millis(500))).ok()?;
    let mut answer = [0; 64];
    socket.send_to(b"?", target).ok()?;
    let (count, _) = socket.recv_from(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer[..count]).into_owned())
}

const fn loopback(port: u16) -> (Ipv4Addr, u16) {
    (Ipv4Addr::LOCALHOST, port)
}

/// A container's place in a network, as inspected.
#[track_caller]
fn place(host: &Host, name: &str, network: &str) -> Value {
    host.inspect(name)["NetworkSettings"]["Networks"][network].clone()
}

#[track_caller]
fn address(host: &Host, name: &str, network: &str) -> String {
    let place = place(host, name, network);
    let address = place["IPAddress"].as_str().unwrap_or_default();
    assert!(!address.is_empty(), "{name} has an address in {network}: {place}");
    address.to_owned()
}

#[track_caller]
fn fails_clearly(ran: &Ran, words: &str) {
    ran.is_one_clear_error();
    assert!(ran.stderr.contains(words), "no {words:?} in the error of {ran}");
}

#[test]
fn names_are_known_on_networks_of_ones_own_and_nowhere_else() {
    needs_root!();
    let host = Host::new();
    host.ok(&["network", "create", "app"]);
    serve(
        &host,
        "db",
        &["--network", "app:alias=store", "--network-alias", "data"],
    );
    let at = address(&host, "db", "app");
    let id = host.inspect("db")["Id"].as_str().expect("an id")[..12].to_owned();
    for name in ["db", "store", "data", id.as_str(), at.as_str(), "DB"] {
        let answer = asked(&host, "app", &format!("{name}:80"));
        assert!(answer.parse::<IpAddr>().is_ok(), "{name}: {answer}");
    }
    for (network, target) in [("app", "nobody:80"), ("bridge", "db:80"), ("none", "db:80")] {
        let answer = asked(&host, network, target);
        assert!(answer.starts_with("refused"), "{target} from {network}: {answer}");
    }
    // On the network of those who name none there are addresses only.
    serve(&host, "plain", &["--network", "bridge"]);
    let at = address(&host, "plain", "bridge");
    let answer = asked(&host, "bridge", &format!("{at}:80"));
    assert!(answer.parse::<IpAddr>().is_ok(), "{answer}");
    assert!(asked(&host, "bridge", "plain:80").starts_with("refused"));
    let linked = ["run", "--rm", "--network", "bridge", "--link", "plain:friend"];
    let answer = host.ok(&[&linked, &IMAGE[..], &["/attacker", "ask", "friend:80"]].concat());
    assert!(answer.parse::<IpAddr>().is_ok(), "{answer}");
    // Nor do networks reach into each other.
    assert!(asked(&host, "app", &format!("{at}:80")).starts_with("refused"));
    host.ok(&["rename", "db", "newdb"]);
    let answer = asked(&host, "app", "newdb:80");
    assert!(answer.parse::<IpAddr>().is_ok(), "{answer}");
}

#[test]
fn ports_are_reached_from_everywhere_they_are_published() {
    needs_root!();
    let neighbour = Neighbour::new();
    let (gateway, own) = (neighbour.gateway, neighbour.address);
    let host = Host::new();
    host.ok(&["network", "create", "app"]);
    serve(&host, "web", &["--network", "app", "-p", "8080:80"]);
    ask_soon(loopback(8080));
    assert!(
        ask_soon(([0, 0, 0, 0, 0, 0, 0, 1], 8080))
            .parse::<IpAddr>()
            .is_ok()
    );
    assert!(
        ask_soon((gateway, 8080)).parse::<IpAddr>().is_ok(),
        "by the host's own address"
    );
    let answer = neighbour.run(move || ask_soon((gateway, 8080)));
    assert_eq!(
        answer,
        own.to_string(),
        "who asks from outside is seen as who it is"
    );
    // From a container, its own network's and another's, by the host's address.
    for network in ["app", "bridge"] {
        let answer = asked(&host, network, &format!("{gateway}:8080"));
        assert!(answer.parse::<IpAddr>().is_ok(), "from {network}: {answer}");
    }
    assert!(
        asked_by(&host, "web", &format!("{gateway}:8080"))
            .parse::<IpAddr>()
            .is_ok(),
        "by itself"
    );

    serve(&host, "local", &["-p", "127.0.0.1:8081:80"]);
    ask_soon(loopback(8081));
    assert_eq!(
        neighbour.run(move || ask((gateway, 8081))),
        None,
        "loopback is the host's alone"
    );

    serve(&host, "any", &["-p", "80"]);
    let told = host.ok(&["port", "any", "80"]);
    let port: u16 = told
        .lines()
        .next()
        .and_then(|line| line.rsplit_once(':'))
        .and_then(|(_, port)| port.parse().ok())
        .unwrap_or_else(|| panic!("a port in {told}"));
    ask_soon(loopback(port));

    serve(&host, "all", &["--expose", "80", "--expose", "81/udp", "-P"]);
    assert_eq!(host.ok(&["port", "all"]).lines().count(), 4);

    serve(&host, "range", &["-p", "9000-9002:79-81"]);
    ask_soon(loopback(9001));
    let shown = host.ok(&["ps", "--filter", "name=range", "--format", "{{.Ports}}"]);
    assert_eq!(shown, "0.0.0.0:9000-9002->79-81/tcp, [::]:9000-9002->79-81/tcp");
    let listed = host.ok(&["ps", "--filter", "publish=79", "--format", "{{.Names}}"]);
    assert_eq!(listed, "range");
    let listed = host.ok(&["ps", "--filter", "network=app", "--format", "{{.Names}}"]);
    assert_eq!(listed, "web");

    serve_with(
        &host,
        "udp",
        &["-p", "5353:53/udp"],
        &["/attacker", "serve", "udp", "53"],
    );
    for at in [
        SocketAddr::from(loopback(5353)),
        SocketAddr::from((gateway, 5353)),
    ] {
        let answer = wait::poll(Duration::from_secs(10), || ask_udp(at));
        assert!(answer.is_some(), "nobody answers at {at}");
    }
    let answer =
        neighbour.run(move || wait::poll(Duration::from_secs(10), || ask_udp((gateway, 5353).into())));
    assert_eq!(answer, Some(own.to_string()));

    host.ok(&["stop", "--time", "0", "web"]);
    assert_eq!(ask(loopback(8080)), None, "nobody answers for what has stopped");
    assert_eq!(host.ok(&["port", "web"]), "");
}

#[test]
fn a_port_that_is_taken_is_told_and_leaves_nothing() {
    needs_root!();
    let host = Host::new();
    serve(&host, "web", &["-p", "8080:80"]);
    ask_soon(loopback(8080));
    let before = network::picture();
    let run = |name: &str, port: &str| {
        host.kakoi(
            &[
                &["run", "-d", "--name", name, "-p", port],
                &IMAGE[..],
                &["sleep", "1000"],
            ]
            .concat(),
        )
    };
    fails_clearly(
        &run("second", "8080:80"),
        "Bind for 0.0.0.0:8080 failed: port is already allocated",
    );
    let listener = TcpListener::bind(loopback(8090)).expect("a free port");
    fails_clearly(&run("third", "8090:80"), "8090");
    fails_clearly(&run("fourth", "192.0.2.99:8091:80"), "8091");
    let after = network::picture();
    let changed: Vec<&String> = after.iter().filter(|line| !before.contains(line)).collect();
    assert!(
        changed.is_empty() && after.len() == before.len(),
        "links, routes and filters change: {changed:#?}"
    );
    assert_eq!(host.inspect("second")["State"]["Running"], false);
    drop(listener);
    // What has failed starts when the port is free.
    host.ok(&["start", "third"]);
    host.ok(&["rm", "-f", "--time", "0", "web"]);
    host.ok(&["start", "second"]);
}

#[test]
fn containers_join_and_leave_while_they_run() {
    needs_root!();
    let host = Host::new();
    host.ok(&["network", "create", "one"]);
    host.ok(&["network", "create", "--subnet", "10.89.7.0/24", "two"]);
    serve(&host, "web", &["--network", "one"]);
    assert!(asked(&host, "two", "web:80").starts_with("refused"));
    host.ok(&[
        "network",
        "connect",
        "--ip",
        "10.89.7.9",
        "--alias",
        "page",
        "two",
        "web",
    ]);
    assert_eq!(address(&host, "web", "two"), "10.89.7.9");
    for (network, name) in [("one", "web"), ("two", "web"), ("two", "page")] {
        let answer = asked(&host, network, &format!("{name}:80"));
        assert!(answer.parse::<IpAddr>().is_ok(), "{name} in {network}: {answer}");
    }
    assert!(
        asked(&host, "one", "page:80").starts_with("refused"),
        "an alias is one network's"
    );
    let members = host.ok(&[
        "network",
        "inspect",
        "-f",
        "{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}",
        "two",
    ]);
    assert_eq!(members, "web 10.89.7.9/24");
    fails_clearly(
        &host.kakoi(&["network", "connect", "two", "web"]),
        "already exists in network two",
    );
    fails_clearly(&host.kakoi(&["network", "rm", "two"]), "has active endpoints");

    host.ok(&["network", "disconnect", "two", "web"]);
    assert!(asked(&host, "two", "web:80").starts_with("refused"));
    let answer = asked(&host, "one", "web:80");
    assert!(answer.parse::<IpAddr>().is_ok(), "the other stays: {answer}");
    fails_clearly(
        &host.kakoi(&["network", "disconnect", "two", "web"]),
        "is not connected",
    );
    host.ok(&["network", "rm", "two"]);

    let ran = host.kakoi(&[
        "events",
        "--stream=false",
        "--since",
        "1h",
        "--filter",
        "type=network",
        "--format",
        "{{.Action}} {{.Actor.Attributes.name}}",
    ]);
    let told: Vec<&str> = ran.stdout.lines().collect();
    for wanted in [
        "create one",
        "create two",
        "connect two",
        "disconnect two",
        "destroy two",
    ] {
        assert!(told.contains(&wanted), "no {wanted:?} in {told:?}");
    }
}

#[test]
fn addresses_are_as_asked_and_stay() {
    needs_root!();
    let host = Host::new();
    host.ok(&[
        "network",
        "create",
        "--subnet",
        "10.89.7.0/24",
        "--ip-range",
        "10.89.7.128/25",
        "--gateway",
        "10.89.7.200",
        "--subnet",
        "fd00:89:7::/64",
        "app",
    ]);
    let flags = [
        "--network",
        "app",
        "--ip",
        "10.89.7.9",
        "--ip6",
        "fd00:89:7::9",
        "--mac-address",
        "02:42:00:00:00:09",
        "-p",
        "8080:80",
    ];
    serve(&host, "web", &flags);
    serve(&host, "other", &["--network", "app"]);
    let inside = host.ok(&["exec", "web", "ip", "addr"]);
    for wanted in ["10.89.7.9/24", "fd00:89:7::9/64", "02:42:00:00:00:09"] {
        assert!(inside.contains(wanted), "no {wanted} in {inside}");
    }
    let routes = host.ok(&["exec", "web", "ip", "route"]);
    assert!(routes.contains("default via 10.89.7.200"), "{routes}");
    let at: Ipv4Addr = address(&host, "other", "app").parse().expect("an address");
    assert!(at.octets()[3] >= 128, "{at} is of the range");
    let answer = asked(&host, "app", "[fd00:89:7::9]:80");
    assert!(answer.starts_with("fd00:89:7:"), "{answer}");
    ask_soon(loopback(8080));

    host.ok(&["restart", "--time", "0", "web"]);
    ask_soon(loopback(8080));
    let again = place(&host, "web", "app");
    assert_eq!(
        (
            &again["IPAddress"],
            &again["GlobalIPv6Address"],
            &again["MacAddress"]
        ),
        (
            &json!("10.89.7.9"),
            &json!("fd00:89:7::9"),
            &json!("02:42:00:00:00:09")
        )
    );
    let taken = host.kakoi(
        &[
            &["run", "--rm", "--network", "app", "--ip", "10.89.7.9"],
            &IMAGE[..],
            &["true"],
        ]
        .concat(),
    );
    fails_clearly(&taken, "Address already in use");
    let outside = host.kakoi(
        &[
            &["run", "--rm", "--network", "app", "--ip", "10.90.0.9"],
            &IMAGE[..],
            &["true"],
        ]
        .concat(),
    );
    fails_clearly(&outside, "10.90.0.9");
}

#[test]
fn an_internal_network_ends_at_its_bridge() {
    needs_root!();
    let neighbour = Neighbour::new();
    let (gateway, outside) = (neighbour.gateway, neighbour.address);
    let listener = neighbour.run(|| TcpListener::bind(("0.0.0.0", 80)).expect("a port of its own"));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            use std::io::Write;
            let from = stream.peer_addr().expect("somebody").ip().to_string();
            drop((&stream).write_all(from.as_bytes()));
        }
    });
    let host = Host::new();
    host.ok(&["network", "create", "open"]);
    host.ok(&["network", "create", "--internal", "closed"]);
    serve(&host, "web", &["--network", "closed"]);
    let target = format!("{outside}:80");
    assert_eq!(
        asked(&host, "open", &target),
        gateway.to_string(),
        "seen from outside it is the host"
    );
    assert_eq!(asked(&host, "bridge", &target), gateway.to_string());
    assert!(asked(&host, "closed", &target).starts_with("refused"));
    assert!(
        asked(&host, "closed", "web:80").parse::<IpAddr>().is_ok(),
        "inside they reach each other"
    );
    // And nothing reaches in, not even by the address of the container.
    let at: IpAddr = address(&host, "web", "closed").parse().expect("an address");
    assert_eq!(neighbour.run(move || ask((at, 80))), None);
    serve(&host, "shown", &["--network", "open"]);
    let at: IpAddr = address(&host, "shown", "open").parse().expect("an address");
    assert_eq!(
        neighbour.run(move || ask((at, 80))),
        None,
        "what is not published is not reached"
    );
}

#[test]
fn a_network_may_keep_its_containers_apart() {
    needs_root!();
    let host = Host::new();
    host.ok(&[
        "network",
        "create",
        "-o",
        "com.docker.network.bridge.enable_icc=false",
        "apart",
    ]);
    serve(&host, "web", &["--network", "apart", "-p", "8080:80"]);
    ask_soon(loopback(8080));
    assert!(asked(&host, "apart", "web:80").starts_with("refused"));
    let at = address(&host, "web", "apart");
    assert!(asked(&host, "apart", &format!("{at}:80")).starts_with("refused"));
    assert!(
        asked_by(&host, "web", "127.0.0.1:80").parse::<IpAddr>().is_ok(),
        "itself it reaches"
    );
}

#[test]
fn a_daemon_that_was_killed_finds_its_networks_again() {
    needs_root!();
    let host = Host::new();
    host.ok(&["network", "create", "app"]);
    serve(&host, "db", &["--network", "app:alias=store"]);
    serve(&host, "web", &["--network", "app", "-p", "8080:80", "-p", "80"]);
    ask_soon(loopback(8080));
    let before = (
        place(&host, "web", "app"),
        place(&host, "db", "app"),
        host.ok(&["port", "web"]),
    );
    host.kill_daemon();
    host.start_daemon();
    let after = (
        place(&host, "web", "app"),
        place(&host, "db", "app"),
        host.ok(&["port", "web"]),
    );
    assert_eq!(after, before);
    ask_soon(loopback(8080));
    assert!(
        ask_soon(([0, 0, 0, 0, 0, 0, 0, 1], 8080))
            .parse::<IpAddr>()
            .is_ok()
    );
    for name in ["db", "store"] {
        let answer = asked_by(&host, "web", &format!("{name}:80"));
        assert!(answer.parse::<IpAddr>().is_ok(), "{name}: {answer}");
    }
    let answer = asked(&host, "app", "web:80");
    assert!(
        answer.parse::<IpAddr>().is_ok(),
        "a new one reaches the old: {answer}"
    );
    // What it was told before it can take back.
    host.ok(&["network", "disconnect", "app", "db"]);
    host.ok(&["rm", "-f", "--time", "0", "web", "db"]);
    host.ok(&["network", "rm", "app"]);
    assert_eq!(ask(loopback(8080)), None);
}

#[test]
fn two_daemons_do_not_touch_each_other() {
    needs_root!();
    let (one, other) = (Host::new(), Host::new());
    for (host, port) in [(&one, "8081:80"), (&other, "8082:80")] {
        host.ok(&["network", "create", "app"]);
        serve(host, "web", &["--network", "app", "-p", port]);
        serve(host, "plain", &[]);
    }
    let addresses = |host: &Host| [address(host, "web", "app"), address(host, "plain", "bridge")];
    for mine in addresses(&one) {
        assert!(!addresses(&other).contains(&mine), "{mine} is given out twice");
    }
    ask_soon(loopback(8081));
    ask_soon(loopback(8082));
    let answer = asked(&one, "app", &format!("{}:80", addresses(&other)[0]));
    assert!(answer.starts_with("refused"), "{answer}");
    fails_clearly(
        &one.kakoi(&[&["run", "--rm", "-p", "8082:80"], &IMAGE[..], &["true"]].concat()),
        "8082",
    );
    let tables = network::tables();
    drop(one);
    ask_soon(loopback(8082));
    assert!(asked(&other, "app", "web:80").parse::<IpAddr>().is_ok());
    assert!(network::tables().len() <= tables.len());
    other.kill_daemon();
    other.start_daemon();
    ask_soon(loopback(8082));
}

#[test]
fn the_machines_own_network_is_as_it_was() {
    needs_root!();
    let neighbour = Neighbour::new();
    network::foreign_table("owners");
    let before = network::picture();
    let known = network::links();
    let host = Host::new();
    host.ok(&["network", "create", "--ipv6", "app"]);
    host.ok(&["network", "create", "--internal", "closed"]);
    serve(
        &host,
        "web",
        &["--network", "app", "--network", "closed", "-p", "8080:80"],
    );
    serve(&host, "plain", &["-p", "8081:80"]);
    ask_soon(loopback(8080));
    host.kill_daemon();
    host.start_daemon();
    let gateway = neighbour.gateway;
    assert!(neighbour.run(move || ask((gateway, 8081))).is_some());
    let during = network::picture();
    for line in &before {
        assert!(during.contains(line), "changed while containers run: {line}");
    }
    host.ok(&["rm", "-f", "--time", "0", "web", "plain"]);
    host.ok(&["network", "rm", "app", "closed"]);
    let left: Vec<String> = network::links()
        .into_iter()
        .filter(|link| !known.contains(link))
        .map(|(name, _)| name)
        .collect();
    assert!(
        left.iter().all(|name| name.starts_with("kk-")) && left.len() <= 1,
        "links stay beside the bridge: {left:?}"
    );
    drop(host);
    let after = network::picture();
    for line in &before {
        assert!(after.contains(line), "changed: {line}");
    }
}

#[test]
fn rules_that_somebody_flushes_come_back() {
    needs_root!();
    let neighbour = Neighbour::new();
    let host = Host::new();
    serve(&host, "web", &["-p", "8080:80"]);
    let gateway = neighbour.gateway;
    neighbour.run(move || ask_soon((gateway, 8080)));
    let tables = network::tables();
    let own = tables
        .iter()
        .find(|name| name.starts_with("kakoi-"))
        .expect("a table")
        .clone();
    network::flush_table(&own);
    wait::until("the table is back", || network::tables() == tables);
    neighbour.run(move || ask_soon((gateway, 8080)));
}

#[test]
fn resolvers_and_hosts_are_as_asked() {
    needs_root!();
    let host = Host::new();
    host.ok(&["network", "create", "app"]);
    let read =
        |flags: &[&str], file: &str| host.ok(&[&["run", "--rm"], flags, &IMAGE, &["cat", file]].concat());
    let own = [
        "--network",
        "bridge",
        "--dns",
        "192.0.2.53",
        "--dns-search",
        "example.com",
        "--dns-option",
        "ndots:2",
    ];
    assert_eq!(
        read(&own, "/etc/resolv.conf"),
        "nameserver 192.0.2.53\nsearch example.com\noptions ndots:2"
    );
    assert!(read(&["--network", "app"], "/etc/resolv.conf").starts_with("nameserver 127.0.0.11"));
    let hosts = read(
        &[
            "--network",
            "app",
            "--add-host",
            "gate:host-gateway",
            "--add-host",
            "a;b:10.0.0.7",
        ],
        "/etc/hosts",
    );
    let line = |name: &str| {
        let found = hosts
            .lines()
            .find(|line| line.split_whitespace().skip(1).any(|word| word == name));
        found
            .and_then(|line| line.split_whitespace().next())
            .map(str::to_owned)
    };
    assert_eq!(
        (line("a").as_deref(), line("b").as_deref()),
        (Some("10.0.0.7"), Some("10.0.0.7"))
    );
    let gate = line("gate").expect("a line").parse::<IpAddr>();
    assert!(gate.is_ok_and(|address| !address.is_loopback()), "{hosts}");
    serve(&host, "web", &["--network", "app"]);
    let shared = host.ok(&[
        &["run", "--rm", "--network", "container:web"],
        &IMAGE[..],
        &["/attacker", "ask", "127.0.0.1:80"],
    ]
    .concat());
    assert_eq!(shared, "127.0.0.1");
}

#[test]
fn networks_are_found_listed_and_removed() {
    needs_root!();
    let host = Host::new();
    host.ok(&["network", "create", "--label", "of=test", "one"]);
    host.ok(&["network", "create", "two"]);
    host.ok(&["network", "create", "--ignore", "two"]);
    host.ok(&[
        &["create", "--name", "web", "--network", "one"],
        &IMAGE[..],
        &["true"],
    ]
    .concat());
    let names = |flags: &[&str]| host.ok(&[&["network", "ls", "--format", "{{.Name}}"], flags].concat());
    assert_eq!(names(&[]), "bridge\nhost\nnone\none\ntwo");
    assert_eq!(names(&["--filter", "label=of=test"]), "one");
    assert_eq!(names(&["--filter", "type=custom"]), "one\ntwo");
    assert_eq!(names(&["--filter", "driver=null"]), "none");
    let found = host.ok(&["inspect", "-f", "{{.Name}} {{.Driver}}", "two"]);
    assert_eq!(found, "two bridge");
    assert_eq!(host.kakoi(&["network", "exists", "one"]).code, 0);
    assert_eq!(host.kakoi(&["network", "exists", "three"]).code, 1);
    for (words, reason) in [
        (&["network", "create", "one"][..], "already exists"),
        (&["network", "create", "bridge"], "predefined"),
        (&["network", "create", "a/b"], "invalid name"),
        (
            &["network", "create", "--subnet", "10.89.0.1/24", "x"],
            "10.89.0.0/24",
        ),
        (
            &[
                "network",
                "create",
                "--subnet",
                "10.89.0.0/24",
                "--gateway",
                "10.90.0.1",
                "x",
            ],
            "--gateway",
        ),
        (
            &[
                "network",
                "create",
                "--subnet",
                "10.89.0.0/31",
                "--subnet",
                "10.90.0.0/24",
                "x",
            ],
            "subnet",
        ),
        (
            &["network", "create", "-o", "com.docker.network.driver.mtu=1", "x"],
            "mtu",
        ),
        (&["network", "rm", "bridge"], "pre-defined"),
        (&["network", "rm", "three"], "not found"),
        (&["network", "connect", "three", "web"], "not found"),
        (&["network", "connect", "two", "nobody"], "nobody"),
        (&["network", "connect", "host", "web"], "host"),
        (&["network", "disconnect", "two", "web"], "not connected"),
        (&["network", "ls", "--filter", "colour=red"], "filter"),
        (&["network", "inspect", "three"], "not found"),
    ] {
        fails_clearly(&host.kakoi(words), reason);
    }
    let subnet = host.ok(&[
        "network",
        "inspect",
        "-f",
        "{{(index .IPAM.Config 0).Subnet}}",
        "two",
    ]);
    fails_clearly(
        &host.kakoi(&["network", "create", "--subnet", &subnet, "x"]),
        "overlap",
    );
    let missing = host.kakoi(&[&["run", "--rm", "--network", "later"], &IMAGE[..], &["true"]].concat());
    fails_clearly(&missing, "later");
    assert_eq!(host.ok(&["network", "prune", "-f"]), "Deleted Networks:\ntwo");
    assert_eq!(
        names(&["--filter", "type=custom"]),
        "one",
        "a container that does not run keeps its network"
    );
    host.ok(&["rm", "web"]);
    assert!(
        host.ok(&["system", "prune", "-f"])
            .contains("Deleted Networks:\none")
    );
    host.is_clean();
}
