//! Who is in which network when things go wrong: changes that fail half-way, meet each other, or are cut off by a daemon's end. Whatever happened, the
//! links in the kernel are those of the records, and the next change of each kind completes.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use kakoi_integration::command::{Ran, ended};
use kakoi_integration::host::Host;
use kakoi_integration::network::{self, Neighbour};
use kakoi_integration::{needs_root, wait};
use serde_json::Value;

const IMAGE: [&str; 3] = ["--policy", "docker-default", "busybox:test"];
/// Longer than any answer on one machine takes.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// A command whose daemon died ends soon.
const LIMIT: Duration = Duration::from_secs(60);
/// Kills per kind of change. `KAKOI_KILLS=N` makes more.
const KILLS: u32 = 5;

/// Runs a server that answers TCP at port 80 with the address that asks.
#[track_caller]
fn serve(host: &Host, name: &str, flags: &[&str]) {
    host.ok(&[
        &["run", "-d", "--name", name],
        flags,
        &IMAGE,
        &["/attacker", "serve", "tcp", "80"],
    ]
    .concat());
}

#[track_caller]
fn asked_by(host: &Host, name: &str, target: &str) -> String {
    let ran = host.kakoi(&["exec", name, "/attacker", "ask", target]);
    ran.stdout.trim_end().to_owned()
}

/// A server that has just been started may not listen yet.
#[track_caller]
fn is_answered(host: &Host, name: &str, target: &str) {
    let mut last = String::new();
    let answered = wait::poll(Duration::from_secs(10), || {
        last = asked_by(host, name, target);
        last.parse::<IpAddr>().is_ok().then_some(())
    });
    assert!(answered.is_some(), "{name} asks {target}: {last}");
}

/// What the test's own side is answered.
fn ask(port: u16) -> Option<String> {
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&target, ANSWER_LIMIT).ok()?;
    stream.set_read_timeout(Some(ANSWER_LIMIT)).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    (!text.is_empty()).then_some(text)
}

/// The networks of a container with its addresses in them, as inspected.
#[track_caller]
fn places(host: &Host, name: &str) -> BTreeSet<(String, String)> {
    let document = host.inspect(name);
    let Value::Object(all) = document["NetworkSettings"]["Networks"].clone() else {
        return BTreeSet::new();
    };
    let place = |(network, place): (String, Value)| {
        let address = place["IPAddress"].as_str().unwrap_or_default().to_owned();
        (network, address)
    };
    all.into_iter().map(place).collect()
}

/// The addresses that a container's own interfaces have.
#[track_caller]
fn addresses_inside(host: &Host, name: &str) -> BTreeSet<String> {
    let shown = host.ok(&["exec", name, "ip", "-4", "-o", "addr"]);
    let words = shown
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let address = |words: Vec<&str>| {
        let at = words.iter().position(|word| *word == "inet")?;
        Some(words.get(at + 1)?.split('/').next()?.to_owned())
    };
    words
        .filter_map(address)
        .filter(|address| address != "127.0.0.1")
        .collect()
}

/// Expects the kernel's links to be those of the records, and no other.
#[track_caller]
fn is_as_recorded(host: &Host, containers: &[&str], when: &str) {
    let mut count = 0;
    for name in containers {
        let recorded = places(host, name);
        let addresses: BTreeSet<String> = recorded.iter().map(|(_, address)| address.clone()).collect();
        assert_eq!(
            addresses_inside(host, name),
            addresses,
            "{when}: {name} in {recorded:?}"
        );
        count += recorded.len();
    }
    let names: Vec<String> = network::links().into_iter().map(|(name, _)| name).collect();
    let is_link = |name: &&String| name.starts_with("kk") && !name.starts_with("kk-");
    assert_eq!(names.iter().filter(is_link).count(), count, "{when}: {names:?}");
    let ids = host.ok(&["network", "ls", "--no-trunc", "-q"]);
    for bridge in names.iter().filter_map(|name| name.strip_prefix("br-")) {
        assert!(
            ids.lines().any(|id| id.starts_with(bridge)),
            "{when}: bridge {bridge} is no network's"
        );
    }
}

#[track_caller]
fn fails_clearly(ran: &Ran, words: &str) {
    ran.is_one_clear_error();
    assert!(ran.stderr.contains(words), "no {words:?} in the error of {ran}");
}

fn spawn(host: &Host, arguments: &[&str]) -> Child {
    host.command()
        .env("KAKOI_HOST", format!("unix://{}", host.socket().display()))
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starting kakoi")
}

#[test]
fn a_connection_that_fails_half_way_leaves_nothing_and_can_be_repeated() {
    needs_root!();
    let host = Host::new();
    host.ok(&["network", "create", "first"]);
    let named = "com.docker.network.bridge.name=cable";
    host.ok(&["network", "create", "--opt", named, "second"]);
    serve(&host, "web", &["--network", "first", "-p", "127.0.0.1:8080:80"]);
    wait::until("it answers", || ask(8080).is_some());
    // Somebody takes the bridge away and its name: the links come last, so all that comes before has to be taken back.
    network::remove_link("cable");
    let neighbour = Neighbour::new();
    let before = network::picture();
    for _ in 0..2 {
        let failed = host.kakoi(&["network", "connect", "second", "web"]);
        fails_clearly(&failed, "cable");
        is_as_recorded(&host, &["web"], "after a failure");
        assert!(network::picture() == before, "nothing is left of it");
        assert!(ask(8080).is_some());
    }
    network::remove_link("cable");
    drop(neighbour);
    host.ok(&["network", "connect", "second", "web"]);
    is_as_recorded(&host, &["web"], "repeated");
    host.kill_daemon();
    host.start_daemon();
    is_as_recorded(&host, &["web"], "after a restart");
    host.ok(&["rm", "-f", "--time", "0", "web"]);
}

#[test]
fn published_ports_follow_their_container() {
    needs_root!();
    let host = Host::new();
    host.ok(&["network", "create", "first"]);
    host.ok(&["network", "create", "second"]);
    serve(&host, "web", &["--network", "first", "-p", "127.0.0.1:8080:80"]);
    wait::until("it answers", || ask(8080).is_some());
    host.ok(&["network", "connect", "second", "web"]);
    host.ok(&["network", "disconnect", "first", "web"]);
    assert_eq!(places(&host, "web").len(), 1);
    wait::until("it answers from its other network", || ask(8080).is_some());
    // The last one: nothing but loopback is left, and nothing leads to it.
    host.ok(&["network", "disconnect", "second", "web"]);
    is_as_recorded(&host, &["web"], "in no network");
    assert_eq!(ask(8080), None);
    host.kill_daemon();
    host.start_daemon();
    is_as_recorded(&host, &["web"], "in no network, after a restart");
    host.ok(&["network", "connect", "first", "web"]);
    wait::until("it answers again", || ask(8080).is_some());
    is_as_recorded(&host, &["web"], "back");
    host.ok(&["rm", "-f", "--time", "0", "web"]);
    host.ok(&["network", "rm", "first", "second"]);
}

#[test]
fn whatever_somebody_took_away_comes_back_on_demand() {
    needs_root!();
    let host = Host::new();
    let named = "com.docker.network.bridge.name=first0";
    host.ok(&["network", "create", "--opt", named, "first"]);
    serve(&host, "web", &["--network", "first", "-p", "127.0.0.1:8080:80"]);
    serve(&host, "none", &["--network", "none"]);
    wait::until("it answers", || ask(8080).is_some());
    let links = || {
        network::links()
            .into_iter()
            .map(|(name, _)| name)
            .collect::<BTreeSet<_>>()
    };
    let before = links();
    let link = |name: &&String| name.starts_with("kk") && !name.starts_with("kk-");
    let own = before.iter().find(link).expect("a link of a container").clone();
    for lost in [own.as_str(), "first0"] {
        network::remove_link(lost);
        assert_eq!(ask(8080), None, "{lost} is gone");
        assert_eq!(host.ok(&["network", "reload", "web"]), "web");
        assert_eq!(links(), before);
        is_as_recorded(&host, &["web"], lost);
        wait::until("it answers again", || ask(8080).is_some());
    }
    let routes = host.ok(&["exec", "web", "ip", "route"]);
    assert!(routes.contains("default via "), "{routes}");
    assert_eq!(host.ok(&["network", "reload", "--all"]).lines().count(), 2);
    host.ok(&["stop", "--time", "0", "web"]);
    fails_clearly(&host.kakoi(&["network", "reload", "web"]), "is not running");
    fails_clearly(&host.kakoi(&["network", "reload", "nobody"]), "nobody");
}

#[test]
fn changes_that_meet_are_made_one_after_the_other() {
    needs_root!();
    let host = Host::new();
    for name in ["one", "two", "three"] {
        host.ok(&["network", "create", name]);
    }
    serve(&host, "web", &["--network", "one"]);
    let both = |first: &[&str], second: &[&str]| {
        let mut running = [spawn(&host, first), spawn(&host, second)];
        running
            .each_mut()
            .map(|child| ended(child, LIMIT).expect("it ends"))
    };
    let connect = ["network", "connect", "two", "web"];
    let mut codes = both(&connect, &connect);
    codes.sort_unstable();
    assert_eq!(codes[0], 0, "one of the same succeeds");
    assert_ne!(codes[1], 0, "the other is told that it is there");
    is_as_recorded(&host, &["web"], "the same twice");
    host.ok(&["network", "disconnect", "two", "web"]);
    assert_eq!(both(&connect, &["network", "connect", "three", "web"]), [0, 0]);
    is_as_recorded(&host, &["web"], "two networks at once");
    // The container goes while it is connected, or before, or after.
    for _ in 0..4 {
        serve(&host, "gone", &["--network", "one"]);
        let [_, removed] = both(
            &["network", "connect", "two", "gone"],
            &["rm", "-f", "--time", "0", "gone"],
        );
        assert_eq!(removed, 0);
        is_as_recorded(&host, &["web"], "connected during removal");
    }
    // So does a network that somebody is about to enter.
    for round in 0..4 {
        host.ok(&["network", "create", "brief"]);
        let [connected, removed] = both(
            &["network", "connect", "brief", "web"],
            &["network", "rm", "brief"],
        );
        assert!(
            connected == 0 || removed == 0,
            "round {round}: {connected} {removed}"
        );
        is_as_recorded(&host, &["web"], "entered during removal");
        if connected == 0 {
            host.ok(&["network", "disconnect", "brief", "web"]);
        }
        if removed != 0 {
            host.ok(&["network", "rm", "brief"]);
        }
    }
}

#[test]
fn peers_are_who_bears_the_name_now() {
    needs_root!();
    let host = Host::new();
    host.ok(&["network", "create", "app"]);
    let policy = |peer: &str| {
        let text =
            format!("kakoi: 1\nname: bounded\nextends: [docker-default]\nnetwork: {{peers: [{peer}]}}\n");
        host.file(&format!("{peer}.yaml"), text)
    };
    let (of_client, of_server) = (policy("server"), policy("client"));
    let run = |name: &str, policy: &str| {
        host.ok(&[
            "run",
            "-d",
            "--name",
            name,
            "--network",
            "app",
            "--policy",
            policy,
            "busybox:test",
            "/attacker",
            "serve",
            "tcp",
            "80",
        ]);
    };
    run("client", &of_client);
    run("server", &of_server);
    is_answered(&host, "client", "server:80");
    let at = places(&host, "server")
        .into_iter()
        .next()
        .expect("it is in a network")
        .1;
    let target = format!("{at}:80");
    host.ok(&["rename", "server", "other"]);
    assert!(
        asked_by(&host, "client", &target).starts_with("refused"),
        "nobody's peer any more"
    );
    // Who takes the name over takes no more than the name: the policy of the other side has to agree.
    serve(&host, "server", &["--network", "app"]);
    is_answered(&host, "client", "server:80");
    assert!(asked_by(&host, "client", &target).starts_with("refused"));
    fails_clearly(&host.kakoi(&["rename", "other", "server"]), "server");
    host.ok(&["rm", "-f", "--time", "0", "server"]);
    host.ok(&["rename", "other", "server"]);
    is_answered(&host, "client", &target);
    host.kill_daemon();
    host.start_daemon();
    is_answered(&host, "client", "server:80");
    host.ok(&["rename", "client", "stranger"]);
    assert!(
        asked_by(&host, "stranger", &target).starts_with("refused"),
        "the other side names it no more"
    );
}

#[test]
fn a_name_that_two_have_leads_to_both() {
    needs_root!();
    let host = Host::new();
    host.ok(&["network", "create", "app"]);
    serve(&host, "db", &["--network", "app"]);
    serve(&host, "shadow", &["--network", "app:alias=db"]);
    serve(&host, "web", &["--network", "app"]);
    let looked_up = host.kakoi(&["exec", "web", "nslookup", "db"]).stdout;
    for name in ["db", "shadow"] {
        let at = places(&host, name)
            .into_iter()
            .next()
            .expect("it is in a network")
            .1;
        assert!(looked_up.contains(&at), "{name} at {at}: {looked_up}");
    }
    fails_clearly(
        &host.kakoi(&[&["create", "--name", "db", "--network", "app"], &IMAGE[..]].concat()),
        "in use",
    );
    fails_clearly(&host.kakoi(&["network", "create", "app"]), "already exists");
    host.ok(&["rm", "-f", "--time", "0", "db"]);
    is_answered(&host, "web", "db:80");
}

#[test]
fn exhausted_pools_say_so_and_recover() {
    needs_root!();
    let host = Host::new();
    host.ok(&["network", "create", "--subnet", "10.89.7.0/30", "tiny"]);
    serve(&host, "only", &["--network", "tiny"]);
    let more = [
        &["run", "-d", "--name", "more", "--network", "tiny"],
        &IMAGE[..],
        &["true"],
    ]
    .concat();
    fails_clearly(&host.kakoi(&more), "no available addresses");
    is_as_recorded(&host, &["only"], "an address too few");
    serve(&host, "guest", &["--network", "bridge"]);
    fails_clearly(
        &host.kakoi(&["network", "connect", "tiny", "guest"]),
        "no available addresses",
    );
    is_as_recorded(&host, &["only", "guest"], "an address too few for one that runs");
    host.ok(&["network", "disconnect", "tiny", "only"]);
    host.ok(&["network", "connect", "tiny", "guest"]);
    is_as_recorded(&host, &["only", "guest"], "it was freed");
    host.ok(&["rm", "-f", "--time", "0", "more"]);
    let mut made = 0;
    let refusal = loop {
        let ran = host.kakoi(&["network", "create", &format!("n{made}")]);
        if ran.code != 0 {
            break ran;
        }
        made += 1;
        assert!(made < 256, "there are no so many subnets");
    };
    fails_clearly(&refusal, "--subnet");
    let refused = format!("n{made}");
    assert!(
        !host
            .ok(&["network", "ls", "--format", "{{.Name}}"])
            .lines()
            .any(|name| name == refused)
    );
    is_as_recorded(&host, &["only", "guest"], "a subnet too few");
    host.ok(&["network", "rm", "n0"]);
    host.ok(&["network", "create", &refused]);
}

/// Answers questions for names as somebody would who is after the device: each name leads to the address that it says.
fn answer_names(socket: &UdpSocket, leads: impl Fn(&str) -> Option<Ipv4Addr>) {
    let mut bytes = [0; 512];
    while let Ok((count, from)) = socket.recv_from(&mut bytes) {
        let mut label = String::new();
        let mut at = 12;
        while at < count && bytes[at] != 0 {
            let length = usize::from(bytes[at]);
            if label.is_empty() {
                label = String::from_utf8_lossy(&bytes[at + 1..at + 1 + length]).into_owned();
            }
            at += 1 + length;
        }
        let question = &bytes[12..at + 5];
        // A; the other family has no addresses.
        let found = leads(&label).filter(|_| bytes[at + 2] == 1);
        let mut answer = [
            &bytes[..2],
            &[0x81, 0x80, 0, 1, 0, u8::from(found.is_some()), 0, 0, 0, 0],
        ]
        .concat();
        answer.extend_from_slice(question);
        if let Some(address) = found {
            answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            answer.extend_from_slice(&address.octets());
        }
        drop(socket.send_to(&answer, from));
    }
}

/// A name's owner answers with an address of the device (DNS rebinding): that opens nothing.
#[test]
fn a_name_opens_no_part_of_the_device() {
    needs_root!();
    let neighbour = Neighbour::new();
    let host = Host::new();
    host.ok(&["network", "create", "app"]);
    serve(&host, "near", &["--network", "app"]);
    let near: Ipv4Addr = places(&host, "near")
        .into_iter()
        .next()
        .expect("it is in a network")
        .1
        .parse()
        .expect("an address");
    let own = match neighbour.gateway {
        IpAddr::V4(own) => own,
        IpAddr::V6(own) => panic!("{own} is of the other family"),
    };
    let speak = |listener: TcpListener| {
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                drop((&stream).write_all(b"192.0.2.2"));
            }
        });
    };
    speak(TcpListener::bind((own, 7000)).expect("the namespace is the test's"));
    neighbour.run(move || {
        let names = UdpSocket::bind("192.0.2.2:53").expect("the namespace is the test's");
        std::thread::spawn(move || {
            answer_names(&names, |label| match label {
                "far" => Some(Ipv4Addr::new(192, 0, 2, 2)),
                "own" => Some(own),
                "near" => Some(near),
                "gate" => Some(Ipv4Addr::from(u32::from(near) & !0xffff | 1)),
                "loop" => Some(Ipv4Addr::LOCALHOST),
                "link" => Some(Ipv4Addr::new(169, 254, 169, 254)),
                _ => None,
            });
        });
        let listener = TcpListener::bind("192.0.2.2:7000").expect("the namespace is the test's");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                drop((&stream).write_all(b"192.0.2.2"));
            }
        });
    });
    let policy = host.file(
        "names.yaml",
        "kakoi: 1\nname: names\nextends: [docker-default]\nnetwork: {egress: [\"*.example.test\"]}\n",
    );
    host.ok(&[
        "run",
        "-d",
        "--name",
        "app",
        "--network",
        "app",
        "--dns",
        "192.0.2.2",
        "--policy",
        &policy,
        "busybox:test",
        "/attacker",
        "serve",
        "tcp",
        "80",
    ]);
    is_answered(&host, "app", "far.example.test:7000");
    for target in [
        "own.example.test:7000",
        "gate.example.test:7000",
        "near.example.test:80",
        "loop.example.test:7000",
        "link.example.test:80",
    ] {
        let answer = asked_by(&host, "app", target);
        assert!(answer.starts_with("refused"), "{target}: {answer}");
        assert!(
            !answer.contains("resolve"),
            "the name is answered: {target}: {answer}"
        );
    }
    assert!(
        asked_by(&host, "app", "192.0.2.2:7000").parse::<IpAddr>().is_ok(),
        "what a name opened"
    );
    assert!(asked_by(&host, "app", "far.evil.test:7000").starts_with("refused"));
    // Who is bounded by nothing reaches its neighbour, so that the denial above is one.
    serve(&host, "open", &["--network", "app"]);
    is_answered(&host, "open", &format!("{near}:80"));
}

/// A change that is cut off, and what must be true after it was acknowledged.
struct Change<'a> {
    name: &'static str,
    prepares: &'a dyn Fn(&Host),
    arguments: &'a [&'a str],
    holds: &'a dyn Fn(&Host) -> bool,
}

/// How long the change takes that is cut off, so that the cuts spread over all of it: the shortest of three, since the machine has other work.
fn length(host: &Host, change: &Change<'_>) -> Duration {
    let measure = |_| {
        (change.prepares)(host);
        let begun = Instant::now();
        let code = ended(&mut spawn(host, change.arguments), LIMIT);
        assert_eq!(code, Some(0), "{} completes uncut", change.name);
        begun.elapsed()
    };
    (0..3).map(measure).min().expect("three")
}

fn rounds(host: &Host, change: &Change<'_>) {
    let kills = std::env::var("KAKOI_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(KILLS);
    let length = length(host, change);
    let mut acknowledged = 0;
    for round in 0..kills {
        (change.prepares)(host);
        let mut command = spawn(host, change.arguments);
        let moment = Instant::now() + length * (round + 1) / kills;
        // The moment is the point here, not a state: spin until it has come.
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        host.kill_daemon();
        let is_acknowledged = ended(&mut command, LIMIT).expect("a command whose daemon died ends") == 0;
        host.start_daemon();
        let when = format!("{} {round}", change.name);
        is_as_recorded(host, &["web"], &when);
        if is_acknowledged {
            acknowledged += 1;
            assert!((change.holds)(host), "{when}: acknowledged");
        }
        let routes = host.ok(&["exec", "web", "ip", "route"]);
        assert!(routes.contains("default via "), "{when}: {routes}");
        wait::until("it answers", || ask(8080).is_some());
    }
    println!(
        "{}: {kills} kills within {length:?}, {acknowledged} acknowledged before",
        change.name
    );
}

#[test]
fn killing_the_daemon_while_it_changes_networks_leaves_what_is_recorded() {
    needs_root!();
    let host = Host::new();
    host.ok(&["network", "create", "first"]);
    host.ok(&["network", "create", "second"]);
    serve(&host, "web", &["--network", "first", "-p", "127.0.0.1:8080:80"]);
    wait::until("it answers", || ask(8080).is_some());
    let is_in = |host: &Host| places(host, "web").iter().any(|(network, _)| network == "second");
    let has = |host: &Host| {
        host.ok(&["network", "ls", "--format", "{{.Name}}"])
            .lines()
            .any(|name| name == "third")
    };
    let out = |host: &Host| drop(host.kakoi(&["network", "disconnect", "second", "web"]));
    let within = |host: &Host| drop(host.kakoi(&["network", "connect", "second", "web"]));
    let made = |host: &Host| drop(host.kakoi(&["network", "create", "third"]));
    let gone = |host: &Host| drop(host.kakoi(&["network", "rm", "third"]));
    for change in [
        Change {
            name: "connect",
            prepares: &out,
            arguments: &["network", "connect", "second", "web"],
            holds: &is_in,
        },
        Change {
            name: "disconnect",
            prepares: &within,
            arguments: &["network", "disconnect", "second", "web"],
            holds: &|host| !is_in(host),
        },
        Change {
            name: "create",
            prepares: &gone,
            arguments: &["network", "create", "third"],
            holds: &has,
        },
        Change {
            name: "remove",
            prepares: &made,
            arguments: &["network", "rm", "third"],
            holds: &|host| !has(host),
        },
    ] {
        rounds(&host, &change);
    }
}
