//! Compose, Debian's own, brings up an app of three services on Docker's socket: a broker, what measures, and a page.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use kakoi_integration::command::{Ran, run};
use kakoi_integration::host::{Host, binary};
use kakoi_integration::{needs_root, needs_root_outside, wait};
use kakoi_policy::Ceiling;

fn compose(host: &Host, arguments: &[&str]) -> Ran {
    compose_of(
        host,
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("compose/compose.yaml"),
        arguments,
    )
}

fn compose_of(host: &Host, file: &Path, arguments: &[&str]) -> Ran {
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
fn what_the_owner_does_not_let_be_published_is_told() {
    needs_root!();
    let host = Host::new();
    let ceiling = Ceiling::built_in_text()
        .replace("publish: any", "publish: [8000-8010]")
        .replace("networks: any", "networks: {subnets: [10.89.0.0/16]}");
    host.file("config/ceiling.yaml", ceiling);
    assert_eq!(host.stop_daemon(), 0);
    host.start_daemon();
    let says = [
        "port 9000 tcp",
        "8000-8010 tcp",
        "config/ceiling.yaml:",
        "`publish`",
    ];
    let tells = |ran: &Ran, words: &[&str]| {
        assert_ne!(ran.code, 0, "{ran}");
        let said = format!("{}{}", ran.stdout, ran.stderr);
        for word in words {
            assert!(said.contains(word), "no {word:?} in {ran}");
        }
    };
    let run = |port: &str| {
        host.kakoi(&[
            "run",
            "--rm",
            "--policy",
            "docker-default",
            "-p",
            port,
            "busybox:test",
            "true",
        ])
    };
    tells(&run("9000:80"), &says);
    tells(&run("80"), &["any free port tcp"]);
    run("8000:80").ok();
    tells(
        &host.kakoi(&["network", "create", "--subnet", "10.90.0.0/24", "x"]),
        &["subnet 10.90.0.0/24", "10.89.0.0/16", "`networks.subnets`"],
    );
    host.ok(&["network", "create", "--subnet", "10.89.1.0/24", "x"]);
    let file = |port: &str| {
        let text = format!(
            "version: \"3\"\nservices: {{web: {{image: \"busybox:test\", command: [sleep, \"1000\"], ports: [\"{port}:80\"]}}}}\n"
        );
        std::path::PathBuf::from(host.file("compose.yaml", text))
    };
    tells(&compose_of(&host, &file("9000"), &["up", "--detach"]), &says);
    let right = file("8000");
    compose_of(&host, &right, &["up", "--detach"]).ok();
    compose_of(&host, &right, &["down", "--timeout", "0"]).ok();
    host.ok(&["network", "rm", "x"]);
    assert_eq!(
        host.ok(&["ps", "--all", "--quiet"]),
        "",
        "a refusal leaves nothing"
    );
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
