//! Compose, Debian's own, brings up an app of three services on Docker's socket: a broker, what measures, and a page.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use kakoi_integration::command::{Ran, run};
use kakoi_integration::host::{Host, binary};
use kakoi_integration::{needs_root_outside, wait};

fn compose(host: &Host, arguments: &[&str]) -> Ran {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("compose/compose.yaml");
    let mut command = Command::new("docker-compose");
    command
        .args(["--project-name", "app", "--no-ansi", "--file"])
        .arg(file)
        .args(arguments)
        .env(
            "DOCKER_HOST",
            format!("unix://{}", host.path("run/docker.sock").display()),
        )
        .env("HOME", host.path(""))
        .env_remove("DOCKER_CONTEXT");
    run(&mut command, b"")
}

/// What a page answers, without its head.
fn page(address: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (_, body) = text.split_once("\r\n\r\n")?;
    Some(body.trim().to_owned())
}

#[test]
fn an_app_of_three_services_comes_up_in_order_and_goes_whole() {
    needs_root_outside!();
    // The packages come from outside; the app has no outside.
    let folder = tempfile::tempdir().expect("making a folder");
    let archive = folder.path().join("mosquitto.tar");
    let made = run(
        Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/broker-image"))
            .arg(binary("attacker"))
            .arg(&archive),
        b"",
    );
    made.ok();
    kakoi_integration::network::own();
    let host = Host::new();
    host.ok(&["load", "--input", archive.to_str().expect("UTF-8")]);

    compose(&host, &["up", "--detach"]).ok();
    let services = compose(&host, &["ps"]).ok();
    for (service, word) in [
        ("app_broker_1", "Up (healthy)"),
        ("app_sensor_1", "Up"),
        ("app_page_1", "Up"),
    ] {
        let is_up = |line: &str| line.contains(service) && line.contains(word);
        assert!(services.lines().any(is_up), "{service}:\n{services}");
    }
    let began = |name: &str| {
        host.inspect(name)["State"]["StartedAt"]
            .as_str()
            .expect("a time")
            .to_owned()
    };
    let healthy = host.inspect("app_broker_1")["State"]["Health"]["Log"][0]["End"].clone();
    for late in ["app_sensor_1", "app_page_1"] {
        assert!(
            began(late).as_str() > healthy.as_str().expect("a time"),
            "{late} waited for health"
        );
    }
    let address = compose(&host, &["port", "page", "8080"]).ok();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    wait::until("the page", || page(&address).as_deref() == Some("21.5 degrees"));

    // The internal network leads nowhere, and its broker is published to nobody.
    let resolved = compose(
        &host,
        &["exec", "-T", "page", "/bin/busybox", "nslookup", "sensor"],
    );
    assert!(resolved.stdout.contains("Address"), "{resolved}");
    let away = compose(
        &host,
        &[
            "exec",
            "-T",
            "sensor",
            "/bin/busybox",
            "nc",
            "-w",
            "2",
            "192.0.2.1",
            "9",
        ],
    );
    assert_ne!(away.code, 0, "{away}");
    compose(&host, &["port", "broker", "1883"]).ok();
    assert_eq!(compose(&host, &["port", "broker", "1883"]).stdout.trim(), "");

    let scaled = compose(&host, &["up", "--detach", "--scale", "sensor=3"]);
    assert_eq!(scaled.code, 0, "{scaled}");
    assert_eq!(
        host.ok(&["ps", "-q", "--filter", "label=com.docker.compose.service=sensor"])
            .lines()
            .count(),
        3
    );
    let logs = compose(&host, &["logs", "broker"]).ok();
    assert!(logs.contains("mosquitto version"), "{logs}");
    compose(&host, &["down", "--volumes", "--timeout", "1"]).ok();
    assert_eq!(host.ok(&["ps", "-aq"]), "");
    let networks = host.ok(&["network", "ls", "--format", "{{.Name}}"]);
    assert!(!networks.contains("app_"), "{networks}");
    host.is_clean();
}
