//! The device's own ports, in a network of the test's own: what is declared is reached, what is not is dropped and told, and all of it goes back.
//!
//! Everything but ports is declared open here, since the rest belongs to the machine; its tests are `kakoi-host`'s, over files.
#![forbid(unsafe_code)]

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};

use kakoi_integration::host::Host;
use kakoi_integration::network::{self, Neighbour};
use kakoi_integration::{needs_root, wait};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

const REST: &str = "  usb: any\n  media: any\n  consoles: any\n  radios: any\n  links: any\n  services: any\n  kernel: any\n  mounts: any\n";

fn declare(host: &Host, ports: &str) {
    let text = format!("kakoi: 1\nkind: Host\nlockdown:\n  check_every: 5s\n  ports: [{ports}]\n{REST}");
    host.file("config/host.yaml", text);
}

/// A daemon that was started with a declaration, which is what lets it look for the owners of ports.
fn declared(ports: &str) -> Host {
    let host = Host::new();
    declare(&host, ports);
    host.stop_daemon();
    host.start_daemon();
    host
}

fn status(host: &Host) -> Value {
    serde_json::from_str(&host.ok(&["host", "status", "--format", "json"])).expect("JSON")
}

fn item(status: &Value, name: &str) -> Value {
    let items = status["Items"].as_array().expect("a list");
    let found = items.iter().find(|item| item["Name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {status:#}")).clone()
}

/// A program that listens for as long as the test runs.
fn listen(port: u16) {
    let listener = TcpListener::bind(("0.0.0.0", port)).expect("a network of our own");
    std::thread::spawn(move || listener.incoming().for_each(drop));
}

/// Which of these take a connection from outside; the last one does, so that all that was asked before was judged.
fn reached(outside: &Neighbour, ports: &'static [u16]) -> Vec<u16> {
    outside.run(move || {
        let (last, others) = ports.split_last().expect("some");
        let begin = |port: u16| {
            let asks = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            asks.set_nonblocking(true).expect("a socket");
            // It is under way, or was refused already.
            drop(asks.connect(&SocketAddr::from(([192, 0, 2, 1], port)).into()));
            (port, asks)
        };
        let asked: Vec<_> = others.iter().copied().map(begin).collect();
        let mut reached = Vec::new();
        let through = TcpStream::connect(("192.0.2.1", *last));
        let answered = asked.iter().filter(|(_, asks)| asks.peer_addr().is_ok());
        reached.extend(answered.map(|(port, _)| *port));
        reached.extend(through.is_ok().then_some(*last));
        reached
    })
}

const PORTS: &[u16] = &[2222, 2323, 8080, 8883, 2007];

#[test]
fn the_world_sees_what_is_declared_and_published() {
    needs_root!();
    let outside = Neighbour::new();
    let host = declared("2007/tcp, \"8883/tcp from 192.0.2.0/24\", 2323/udp");
    [2222, 2323, 8883, 2007].into_iter().for_each(listen);
    let server = [
        "--policy",
        "docker-default",
        "busybox:test",
        "/attacker",
        "serve",
        "tcp",
        "80",
    ];
    host.ok(&[&["run", "-d", "--name", "web", "-p", "8080:80"][..], &server].concat());
    // Nothing is closed by a declaration alone; the app answers when it runs.
    wait::until("everything is reached", || reached(&outside, PORTS) == PORTS);
    let plan = host.ok(&["host", "plan"]);
    assert!(
        plan.contains("ports/filter") && plan.contains("packet filter"),
        "{plan}"
    );
    assert_eq!(status(&host)["Phase"], "off");

    host.ok(&["host", "apply"]);
    assert_eq!(reached(&outside, PORTS), [8080, 8883, 2007]);
    let now = status(&host);
    assert_eq!((&now["Phase"], &now["IsApplied"]), (&"on".into(), &true.into()));
    assert_eq!(item(&now, "ports/filter")["Verdict"], "ok");
    let decoy = item(&now, "ports/2222/tcp");
    assert_eq!(decoy["Verdict"], "drift");
    let me = format!("({})", std::process::id());
    assert!(
        decoy["Actual"].as_str().is_some_and(|who| who.contains(&me)),
        "{decoy}"
    );
    assert_eq!(item(&now, "ports/8883/tcp")["Verdict"], "ok");
    assert!(
        host.ok(&["host", "explain", "ports/2222/tcp"])
            .contains("stop it, or declare its port")
    );
    let differs = host.kakoi(&["host", "diff"]);
    assert_eq!(differs.code, 1);
    assert!(
        differs.stdout.contains("ports/2222/tcp") && !differs.stdout.contains("8883"),
        "{}",
        differs.stdout
    );

    // What somebody takes away is put back, and stands in the audit log.
    let table = network::tables()
        .into_iter()
        .find(|name| name.ends_with("-device"));
    network::flush_table(&table.expect("it stands"));
    wait::until("the filter is put back", || {
        item(&status(&host), "ports/filter")["Verdict"] == "ok"
    });
    wait::until("it is written down", || {
        host.ok(&["audit", "show"]).contains("host correct ports/filter")
    });
    assert_eq!(reached(&outside, PORTS), [8080, 8883, 2007]);

    // An edited file is nothing before it is applied, and what a daemon before applied holds.
    declare(&host, "2007/tcp, 2222/tcp");
    host.kill_daemon();
    host.start_daemon();
    assert_eq!(status(&host)["IsApplied"], false);
    assert_eq!(reached(&outside, PORTS), [8080, 8883, 2007]);
    host.ok(&["host", "apply"]);
    assert_eq!(reached(&outside, PORTS), [2222, 8080, 2007]);

    host.ok(&["host", "release"]);
    assert_eq!(reached(&outside, PORTS), PORTS);
    assert_eq!(host.kakoi(&["host", "release"]).code, 125);
    host.ok(&["rm", "-f", "-t", "0", "web"]);
}

#[test]
fn a_trial_ends_by_itself_also_without_its_daemon() {
    needs_root!();
    let outside = Neighbour::new();
    let host = declared("2007/tcp");
    [2222, 2007].into_iter().for_each(listen);
    let ports: &[u16] = &[2222, 2007];
    host.ok(&["host", "apply", "--trial", "1h"]);
    assert_eq!(reached(&outside, ports), [2007]);
    assert_eq!(status(&host)["Phase"], "trial");
    host.ok(&["host", "confirm"]);
    assert_eq!(host.kakoi(&["host", "confirm"]).code, 125);
    // Back to what was confirmed.
    declare(&host, "2007/tcp, 2222/tcp");
    host.ok(&["host", "apply", "--trial", "1s"]);
    assert_eq!(reached(&outside, ports), ports);
    wait::until("nobody confirms", || status(&host)["Phase"] == "on");
    assert_eq!(reached(&outside, ports), [2007]);
    host.ok(&["host", "release"]);
    // Back to nothing, by the next daemon.
    host.ok(&["host", "apply", "--trial", "1s"]);
    host.kill_daemon();
    assert!(network::tables().iter().any(|name| name.ends_with("-device")));
    host.start_daemon();
    wait::until("nobody confirms", || status(&host)["Phase"] == "off");
    assert!(!network::tables().iter().any(|name| name.ends_with("-device")));
    for (arguments, words) in [
        (["host", "apply", "--trial", "0s"], "is not a time"),
        (["host", "apply", "--trial", "2d"], "is not a time"),
    ] {
        let refused = host.kakoi(&arguments);
        assert_eq!(refused.code, 125);
        assert!(refused.stderr.contains(words), "{}", refused.stderr);
    }
}

#[test]
fn drift_is_told_as_it_happens() {
    needs_root!();
    let _outside = Neighbour::new();
    let host = declared("2007/tcp");
    host.ok(&["host", "apply"]);
    let mut watch = host.spawn(&["host", "watch"]);
    let mut said = watch.stdout.take().expect("a pipe");
    listen(2222);
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') && said.read(&mut byte).expect("a pipe") == 1 {
        line.extend(byte);
    }
    let line = String::from_utf8(line).expect("text");
    assert!(line.contains("host drift ports/2222/tcp"), "{line}");
    watch.kill().expect("it runs");
    watch.wait().expect("it ended");
    host.ok(&["host", "release"]);
    // Nothing without a declaration.
    host.file("config/host.yaml", "kakoi: 1\nkind: Host\n");
    let refused = host.kakoi(&["host", "apply"]);
    assert_eq!(refused.code, 125);
    assert!(refused.stderr.contains("lockdown:"), "{}", refused.stderr);
}

#[test]
fn a_daemon_that_is_killed_in_an_apply_leaves_the_old_or_the_new() {
    needs_root!();
    let outside = Neighbour::new();
    let host = declared("2007/tcp");
    [2222, 2007].into_iter().for_each(listen);
    let ports: &[u16] = &[2222, 2007];
    let journal = host.path("root/lockdown.json");
    // When the journal is there, about the time of its steps, and when the filter stands. (Before, the command would start a daemon of its own.)
    for moment in 0..6 {
        let mut apply = host.spawn(&["host", "apply"]);
        match moment % 2 {
            0 => wait::until("the journal is written", || journal.exists()),
            _ => wait::until("the filter stands", || {
                network::tables().iter().any(|name| name.ends_with("-device"))
            }),
        }
        host.kill_daemon();
        apply.wait().expect("it ends with its daemon");
        host.start_daemon();
        wait::until("all of it, or nothing", || {
            let now = status(&host);
            let is_closed = item(&now, "ports/filter")["Verdict"] == "ok";
            (now["Phase"] == "on") == is_closed
        });
        let expected = match status(&host)["Phase"].as_str() {
            Some("on") => &ports[1..],
            _ => ports,
        };
        assert_eq!(reached(&outside, ports), expected, "{moment}");
        host.kakoi(&["host", "release"]);
        assert_eq!(reached(&outside, ports), ports, "{moment}");
        std::fs::remove_file(&journal).ok();
    }
}
