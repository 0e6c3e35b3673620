//! Podman's further words, signals above the usual ones, and refusals that are the client's own affair.
#![forbid(unsafe_code)]

use std::fs;

use kakoi_integration::host::Host;
use kakoi_integration::needs_root;

const FLAGS: [&str; 4] = ["run", "--detach", "--network", "none"];

#[test]
fn a_container_takes_the_place_and_the_words_of_another() {
    needs_root!();
    let host = Host::new();
    let (first, second) = (host.path("first.pid"), host.path("second.pid"));
    let run = |pidfile: &std::path::Path, more: &[&str]| {
        let pidfile = format!("--pidfile={}", pidfile.display());
        let words = [
            &FLAGS[..],
            &["--name", "x", &pidfile],
            more,
            &["busybox:test", "sleep", "1000"],
        ]
        .concat();
        host.kakoi(&words)
    };
    run(&first, &[]).ok();
    let pid = |path: &std::path::Path| fs::read_to_string(path).expect("it was written");
    assert_eq!(pid(&first), host.pid("x").to_string());
    run(&second, &[]).fails(125, "in use");
    assert!(!second.exists(), "nothing ran");
    let zone = "/usr/share/zoneinfo/Etc/GMT-5";
    let has_zones = std::path::Path::new(zone).exists();
    let mut more = vec![
        "--replace",
        "--env",
        "A=1",
        "--unsetenv",
        "A",
        "--expose",
        "80-81",
    ];
    more.extend(has_zones.then_some(["--tz", "Etc/GMT-5"]).into_iter().flatten());
    run(&second, &more).ok();
    assert_eq!(pid(&second), host.pid("x").to_string());
    assert_ne!(pid(&first), pid(&second));
    assert!(!host.ok(&["exec", "x", "env"]).contains("A=1"));
    let ports = host.inspect("x")["Config"]["ExposedPorts"].clone();
    assert!(
        ports["80/tcp"].is_object() && ports["81/tcp"].is_object(),
        "{ports}"
    );
    if has_zones {
        assert_eq!(
            host.ok(&["exec", "x", "cat", "/etc/localtime"]).into_bytes(),
            String::from_utf8_lossy(&fs::read(zone).expect("readable"))
                .trim_end_matches(['\n', '\r'])
                .as_bytes()
        );
    }
    host.kakoi(&["create", "--pidfile", "/nowhere", "busybox:test"])
        .fails(125, "kakoi run");
    let none = host.kakoi(&[&FLAGS[..], &["--tz", "Etc/No-Such-Zone", "busybox:test", "true"]].concat());
    none.fails(125, "does not exist");
    assert!(!std::path::Path::new("/usr/share/zoneinfo/Etc/No-Such-Zone").exists());
}

/// Process 1 hands on what it gets, real-time signals too; the app that one ends says so.
#[test]
fn an_init_hands_on_real_time_signals() {
    needs_root!();
    let host = Host::new();
    for (signal, code) in [("40", "168"), ("64", "192"), ("15", "143")] {
        host.ok(&[
            &FLAGS[..],
            &["--init", "--name", "app", "busybox:test", "sleep", "1000"],
        ]
        .concat());
        host.ok(&["kill", "--signal", signal, "app"]);
        assert_eq!(host.ok(&["wait", "app"]), code, "signal {signal}");
        host.ok(&["rm", "app"]);
    }
}

#[test]
fn what_is_not_paused_is_the_clients_mistake() {
    needs_root!();
    let host = Host::new();
    host.ok(&[&FLAGS[..], &["--name", "x", "busybox:test", "sleep", "1000"]].concat());
    host.kakoi(&["unpause", "x"]).fails(125, "is not paused");
    host.kakoi(&["unpause", "nobody"]).fails(125, "no such container");
    assert!(!host.daemon_log().contains("ERROR"), "{}", host.daemon_log());
    host.ok(&["pause", "x"]);
    host.ok(&["unpause", "x"]);
}
