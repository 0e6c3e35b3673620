//! Documents of apps: every field is read, and what is not understood is refused at its place.

use kakoi_policy::app::{App, Probe};
use kakoi_policy::parse_app;

const HEAD: &str =
    "kakoi: 1\nkind: App\nname: web\ngeneration: 3\nimage: registry.example.com/acme/web:1.2\n";

fn app(rest: &str) -> App {
    parse_app("web.yaml", &format!("{HEAD}{rest}")).unwrap_or_else(|error| panic!("{rest}: {error}"))
}

/// Expects a refusal; `words` are in it.
fn refused(text: &str, words: &[&str]) {
    let error = parse_app("web.yaml", text).expect_err(text).to_string();
    for word in words {
        assert!(error.contains(word), "{text}: {word} is not in {error}");
    }
}

#[test]
fn every_field_is_read() {
    let app = app(
        "command: [/bin/httpd, \"-f\"]\nargs: [\"-p\", \"80\"]\nenv: {MODE: \"on\", EMPTY: \"\"}\npolicy: web\n\
         volumes: [\"data:/data\", \"/etc/web:/etc/web:ro\"]\nnetworks: [site]\n\
         ports: [\"8080:80\", \"[::1]:53:53/udp\", \"192.0.2.1:1:2\"]\ndevices: [/dev/ttyUSB0, \"/dev/a:/dev/b:rwm\", \"/dev/c:r\"]\n\
         health: {http: {port: 80, path: /ready}, period: 5s, timeout: 500ms, failures: 4, start_period: 1m}\n\
         update: {trial: 1h, attempts: 3}\n",
    );
    assert_eq!(
        app.command.as_deref(),
        Some(&["/bin/httpd".to_owned(), "-f".into()][..])
    );
    assert_eq!(app.env["MODE"], "on");
    assert_eq!(app.env["EMPTY"], "");
    assert!(!app.volumes[0].read_only && app.volumes[1].read_only);
    let port = &app.ports[1];
    assert_eq!(
        (
            port.address.map(|it| it.to_string()).as_deref(),
            port.host,
            port.protocol.as_str()
        ),
        (Some("::1"), 53, "udp")
    );
    let devices: Vec<_> = app
        .devices
        .iter()
        .map(|it| (it.container.as_str(), it.access.as_str()))
        .collect();
    assert_eq!(
        devices,
        [("/dev/ttyUSB0", "rw"), ("/dev/b", "rwm"), ("/dev/c", "r")]
    );
    let health = app.health.expect("tested");
    assert_eq!(
        health.probe,
        Probe::Http {
            port: 80,
            path: "/ready".into()
        }
    );
    assert_eq!(
        (
            health.period_ms,
            health.timeout_ms,
            health.failures,
            health.start_period_ms
        ),
        (5000, 500, 4, 60_000)
    );
    assert_eq!((app.update.trial_ms, app.update.attempts), (3_600_000, 3));
}

#[test]
fn what_is_left_out_has_its_default() {
    let app = app("health: {tcp: 80}\nupdate: {trial: 1s}\n");
    assert_eq!((app.update.trial_ms, app.update.attempts), (1000, 2));
    let health = app.health.expect("tested");
    assert_eq!(
        (health.probe, health.period_ms, health.failures),
        (Probe::Tcp(80), 10_000, 3)
    );
    assert!(app.command.is_none() && app.ports.is_empty() && app.policy.is_none());
}

#[test]
fn what_is_not_understood_is_refused_at_its_place() {
    for (rest, words) in [
        ("comand: [x]\n", &["web.yaml:6:1", "did you mean `command`?"][..]),
        (
            "health: {comand: [x]}\n",
            &["web.yaml:6:10", "did you mean `command`?"],
        ),
        ("health: {}\n", &["0 probes"]),
        ("health: {tcp: 80, command: [x]}\n", &["2 probes"]),
        ("health: {tcp: 0}\n", &["too small"]),
        ("health: {tcp: 65536}\n", &["too large"]),
        ("health: {tcp: 80, period: 0s}\n", &["`period` of 0"]),
        ("health: {http: {path: /}}\n", &["without `port`"]),
        ("health: {http: {port: 80, path: \"/ x\"}}\n", &["a page's path"]),
        ("health: {tcp: 80, period: 30}\n", &["a duration"]),
        ("update: {trial: 25h}\n", &["at most a day"]),
        ("update: {attempts: 0}\n", &["too small"]),
        ("update: {attempts: 11}\n", &["too large"]),
        ("update: {window: night}\n", &["unknown field `window`"]),
        ("ports: [\"80\"]\n", &["a published port"]),
        ("ports: [\"80-90:80-90\"]\n", &["one line a port"]),
        ("ports: [\"80:0\"]\n", &["a published port"]),
        ("ports: [\"80:80/icmp\"]\n", &["a published port"]),
        ("ports: [\"host:80:80\"]\n", &["a published port"]),
        ("secrets: [\"a/b\"]\n", &["a secret's name", "kakoi secret ls"]),
        ("secrets: [{target: /x}]\n", &["name"]),
        ("secrets: [{name: pw, target: etc}]\n", &["a secret's place"]),
        ("secrets: [{name: pw, target: /a/../b}]\n", &["a secret's place"]),
        (
            "secrets: [{name: pw, mode: \"0999\"}]\n",
            &["a file's mode", "octal"],
        ),
        ("secrets: [{name: pw, mode: \"4755\"}]\n", &["a file's mode"]),
        ("secrets: [{name: pw, env: 1X}]\n", &["a variable's name"]),
        (
            "secrets: [{name: pw, env: PW, mode: \"0400\"}]\n",
            &["a variable has no path, owner or mode"],
        ),
        ("secrets: [{name: pw, colour: red}]\n", &["colour"]),
        ("volumes: [data]\n", &["a volume"]),
        ("volumes: [\"data:relative\"]\n", &["a volume"]),
        ("volumes: [\"../x:/x\"]\n", &["a volume"]),
        ("volumes: [\"data:/x:z\"]\n", &["a volume"]),
        ("devices: [/etc/passwd]\n", &["a device"]),
        ("devices: [/dev/../etc/passwd]\n", &["a device"]),
        ("devices: [\"/dev/a:x\"]\n", &["a device"]),
        ("networks: [\"container:x\"]\n", &["a network's name"]),
        ("env: [A=b]\n", &["write `env:"]),
        ("env: {A-B: x}\n", &["a variable's name"]),
        ("env: {A: yes}\n", &["disagree"]),
        ("privileged: true\n", &["unknown field `privileged`"]),
        ("generation: 4\n", &["field `generation` twice"]),
    ] {
        refused(&format!("{HEAD}{rest}"), words);
    }
    let many: Vec<String> = (0..65).map(|port| format!("\"{}:1\"", port + 1)).collect();
    refused(
        &format!("{HEAD}ports: [{}]\n", many.join(", ")),
        &["more than 64"],
    );
}

#[test]
fn what_an_app_needs_must_be_there() {
    for (field, words) in [
        ("kakoi: 1\n", "an app without `kakoi`"),
        ("kind: App\n", "an app without `kind`"),
        ("name: web\n", "an app without `name`"),
        ("generation: 3\n", "an app without `generation`"),
        (
            "image: registry.example.com/acme/web:1.2\n",
            "an app without `image`",
        ),
    ] {
        refused(&HEAD.replace(field, ""), &[words]);
    }
    for (field, other, words) in [
        ("kakoi: 1", "kakoi: 2", "version 2"),
        ("kind: App", "kind: Release", "unknown word `Release`"),
        ("name: web", "name: Web", "an app's name"),
        ("name: web", "name: web-", "an app's name"),
        ("name: web", "name: ../web", "an app's name"),
        ("generation: 3", "generation: 0", "too small"),
        ("generation: 3", "generation: -1", "not a number"),
        ("generation: 3", "generation: 9223372036854775808", "too large"),
        ("image: registry", "image: \"a b", ""),
    ] {
        refused(&HEAD.replace(field, other), &[words]);
    }
}
