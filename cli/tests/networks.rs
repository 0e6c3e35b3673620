//! Commands about networks and ports against a fake daemon: what is asked, what is printed, how it ends.

mod fake;

use fake::Fake;
use serde_json::{Value, json};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn body(fake: &Fake, line: &str) -> Value {
    serde_json::from_slice(&fake.wait_for(line).body).expect("JSON")
}

#[test]
fn a_network_is_made_as_asked() {
    let fake = Fake::start();
    fake.json(
        "POST /networks/create",
        201,
        &json!({"Id": ID, "Warning": "mind\u{1b} the gap"}).to_string(),
    );
    let ran = fake.run(&[
        "network",
        "create",
        "--subnet",
        "10.89.0.0/24",
        "--gateway",
        "10.89.0.9",
        "--internal",
        "--label",
        "a=b",
        "-o",
        "mtu=1400",
        "my app",
    ]);
    assert_eq!((ran.status, ran.stdout.as_str()), (0, "my app\n"));
    assert_eq!(ran.stderr, "Warning: mind\u{fffd} the gap\n");
    let asked = body(&fake, "POST /networks/create");
    assert_eq!(asked["Name"], "my app");
    assert_eq!(asked["Driver"], "bridge");
    assert_eq!(
        asked["IPAM"]["Config"],
        json!([{"Subnet": "10.89.0.0/24", "Gateway": "10.89.0.9"}])
    );
    assert_eq!(asked["Internal"], true);
    assert_eq!(asked["Labels"], json!({"a": "b"}));
    assert_eq!(asked["Options"], json!({"com.docker.network.driver.mtu": "1400"}));
}

#[test]
fn one_that_is_there_is_an_error_unless_it_may_be() {
    let fake = Fake::start();
    fake.json(
        "POST /networks/create",
        409,
        r#"{"message":"network with name app already exists"}"#,
    );
    let ran = fake.run(&["network", "create", "app"]);
    assert_eq!(
        (ran.status, ran.stderr.as_str()),
        (125, "Error: network with name app already exists\n")
    );
    let ran = fake.run(&["network", "create", "--ignore", "app"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (0, "app\n"), "{}", ran.stderr);
    // What cannot be is not asked for.
    let before = fake.lines().len();
    let ran = fake.run(&["network", "create", "--driver", "macvlan", "app"]);
    assert_eq!(ran.status, 125);
    assert!(ran.stderr.contains("--driver \"macvlan\""), "{}", ran.stderr);
    assert_eq!(fake.lines().len(), before);
}

fn listed() -> Fake {
    let fake = Fake::start();
    let network = |id: char, name: &str, driver: &str, subnets: Value| {
        json!({
            "Name": name, "Id": id.to_string().repeat(64), "Created": "2026-01-31T12:00:00Z", "Scope": "local",
            "Driver": driver, "EnableIPv4": true, "EnableIPv6": false, "IPAM": {"Driver": "default", "Config": subnets},
            "Internal": false, "Labels": {"a": "b", "c": ""}, "Options": {},
        })
    };
    let list = json!([
        network(
            'a',
            "app",
            "bridge",
            json!([{"Subnet": "10.89.0.0/24"}, {"Subnet": "fd00:89::/64"}])
        ),
        network('b', "none", "null", Value::Null),
    ]);
    fake.json("GET /networks", 200, &list.to_string());
    fake
}

#[test]
fn networks_are_listed_as_people_know_them() {
    let fake = listed();
    assert_eq!(
        fake.run(&["network", "ls"]).stdout,
        "NETWORK ID     NAME   DRIVER   SCOPE\n\
         aaaaaaaaaaaa   app    bridge   local\n\
         bbbbbbbbbbbb   none   null     local\n"
    );
    assert_eq!(
        fake.run(&["network", "ls", "-n", "--no-trunc"])
            .stdout
            .lines()
            .next(),
        Some(format!("{}   app    bridge   local", "a".repeat(64)).as_str())
    );
    assert_eq!(
        fake.run(&["network", "ls", "-q"]).stdout,
        "aaaaaaaaaaaa\nbbbbbbbbbbbb\n"
    );
    let template = "{{.Name}} {{.Subnets}} {{.Labels}} {{.IPv6}} {{.Internal}} {{.CreatedAt}}";
    assert_eq!(
        fake.run(&["network", "list", "--format", template])
            .stdout
            .lines()
            .next(),
        Some("app 10.89.0.0/24,fd00:89::/64 a=b,c= false false 2026-01-31T12:00:00Z")
    );
    let json: Value =
        serde_json::from_str(&fake.run(&["network", "ls", "--format", "json"]).stdout).expect("JSON");
    assert_eq!(json[0]["IPAM"]["Config"][1]["Subnet"], "fd00:89::/64");
    fake.run(&[
        "network",
        "ls",
        "--filter",
        "driver=bridge",
        "--filter",
        "dangling=true",
    ]);
    assert!(
        fake.lines()
            .iter()
            .any(|line| line.contains("dangling") && line.contains("driver")),
        "{:?}",
        fake.lines()
    );
    for wrong in [
        &["network", "ls", "--format", "{{.Name"][..],
        &["network", "ls", "--filter", "dangling"],
        &["network", "ls", "extra"],
        &["network"],
        &["network", "reload"],
    ] {
        assert_eq!(fake.run(wrong).status, 125, "{wrong:?}");
    }
}

#[test]
fn networks_are_removed_with_podman_s_statuses() {
    let fake = Fake::start();
    fake.json("DELETE /networks/app", 204, "");
    fake.json(
        "DELETE /networks/gone",
        404,
        r#"{"message":"network gone not found"}"#,
    );
    fake.json(
        "DELETE /networks/busy",
        403,
        r#"{"message":"network busy has active endpoints"}"#,
    );
    let ran = fake.run(&["network", "rm", "app"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (0, "app\n"));
    let ran = fake.run(&["network", "rm", "gone", "app"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (1, "app\n"));
    assert_eq!(ran.stderr, "Error: network gone not found\n");
    let ran = fake.run(&["network", "rm", "-f", "gone", "busy"]);
    assert_eq!(
        (ran.status, ran.stderr.as_str()),
        (2, "Error: network busy has active endpoints\n")
    );
    assert_eq!(fake.run(&["network", "rm"]).status, 125);
}

#[test]
fn containers_are_connected_and_disconnected() {
    let fake = Fake::start();
    fake.json("POST /networks/app/connect", 200, "");
    fake.json("POST /networks/app/disconnect", 200, "");
    let ran = fake.run(&[
        "network",
        "connect",
        "--alias",
        "db",
        "--ip",
        "10.89.0.7",
        "--ip6",
        "fd00::7",
        "--mac-address",
        "02:42:00:00:00:07",
        "--gw-priority",
        "-3",
        "app",
        "web",
    ]);
    assert_eq!(
        (ran.status, ran.stdout.as_str(), ran.stderr.as_str()),
        (0, "", "")
    );
    let asked = body(&fake, "POST /networks/app/connect");
    assert_eq!(asked["Container"], "web");
    let endpoint = &asked["EndpointConfig"];
    assert_eq!(endpoint["Aliases"], json!(["db"]));
    assert_eq!(
        endpoint["IPAMConfig"],
        json!({"IPv4Address": "10.89.0.7", "IPv6Address": "fd00::7"})
    );
    assert_eq!(
        (&endpoint["MacAddress"], &endpoint["GwPriority"]),
        (&json!("02:42:00:00:00:07"), &json!(-3))
    );
    assert_eq!(fake.run(&["network", "disconnect", "-f", "app", "web"]).status, 0);
    assert_eq!(
        body(&fake, "POST /networks/app/disconnect"),
        json!({"Container": "web", "Force": true})
    );
    for (words, reason) in [
        (
            &["--ip", "x", "app", "web"][..],
            "--ip \"x\": not an IPv4 address",
        ),
        (&["--ip6", "10.0.0.1", "app", "web"], "--ip6"),
        (
            &["--mac-address", "01:00:00:00:00:01", "app", "web"],
            "many receivers",
        ),
        (&["--alias", "", "app", "web"], "--alias"),
        (&["app"], "CONTAINER"),
    ] {
        let ran = fake.run(&[&["network", "connect"], words].concat());
        assert_eq!(ran.status, 125, "{words:?}");
        assert!(ran.stderr.contains(reason), "{words:?}: {}", ran.stderr);
    }
}

#[test]
fn inspect_finds_networks_and_volumes_too() {
    let fake = Fake::start();
    fake.json("GET /networks/app", 200, r#"{"Name":"app","Driver":"bridge"}"#);
    fake.json("GET /volumes/store", 200, r#"{"Name":"store","Driver":"local"}"#);
    let ran = fake.run(&["inspect", "-f", "{{.Name}} {{.Driver}}", "app", "store"]);
    assert_eq!(
        (ran.status, ran.stdout.as_str()),
        (0, "app bridge\nstore local\n")
    );
    let ran = fake.run(&["inspect", "--type", "network", "store"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (125, "[]\n"));
    assert_eq!(fake.run(&["network", "inspect", "app"]).status, 0);
    let ran = fake.run(&["inspect", "nothing"]);
    assert_eq!(
        (ran.status, ran.stderr.as_str()),
        (
            125,
            "Error: no such container, image, network or volume: nothing\n"
        )
    );
    assert_eq!(fake.run(&["network", "exists", "app"]).status, 0);
    assert_eq!(fake.run(&["network", "exists", "nothing"]).status, 1);
}

#[test]
fn unused_networks_are_removed_after_asking() {
    let fake = Fake::start();
    fake.json(
        "POST /networks/prune",
        200,
        r#"{"NetworksDeleted":["app","web"]}"#,
    );
    let ran = fake.run(&["network", "prune"]);
    assert_eq!(ran.status, 125);
    assert!(ran.stderr.contains("use --force"), "{}", ran.stderr);
    assert!(fake.lines().is_empty(), "nobody was asked");
    assert_eq!(
        fake.run(&["network", "prune", "-f", "--filter", "label=a"])
            .stdout,
        "Deleted Networks:\napp\nweb\n\n"
    );
    fake.json("POST /networks/prune", 200, r#"{"NetworksDeleted":null}"#);
    assert_eq!(fake.run(&["network", "prune", "-f"]).stdout, "");
}

fn published() -> Fake {
    let fake = Fake::start();
    let ports = json!({
        "8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "9000"}],
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
        "53/udp": [{"HostIp": "0.0.0.0", "HostPort": "5353"}],
        "443/tcp": null,
    });
    let document = json!({"Id": ID, "Name": "/web", "NetworkSettings": {"Ports": ports}}).to_string();
    fake.json("GET /containers/web/json", 200, &document);
    fake.json(&format!("GET /containers/{ID}/json"), 200, &document);
    fake.json("GET /containers/json", 200, &json!([{"Id": ID}]).to_string());
    fake
}

#[test]
fn ports_are_told_as_docker_tells_them() {
    let fake = published();
    let all =
        "53/udp -> 0.0.0.0:5353\n80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n8080/tcp -> 127.0.0.1:9000\n";
    assert_eq!(fake.run(&["port", "web"]).stdout, all);
    assert_eq!(fake.run(&["container", "port", "-l"]).stdout, all);
    assert_eq!(
        fake.run(&["port", "web", "80"]).stdout,
        "0.0.0.0:8080\n[::]:8080\n"
    );
    assert_eq!(fake.run(&["port", "-l", "53/UDP"]).stdout, "0.0.0.0:5353\n");
    let each: Vec<String> = all.lines().map(|line| format!("0123456789ab\t{line}")).collect();
    assert_eq!(fake.run(&["port", "-a"]).stdout, each.join("\n") + "\n");
    for (words, reason) in [
        (&["web", "443"][..], "no public port '443/tcp' published for web"),
        (&["web", "53"], "no public port '53/tcp'"),
        (&["web", "http"], "\"http\" is not PORT[/PROTOCOL]"),
        (&["web", "0"], "\"0\" is not PORT"),
        (&["-l", "80", "web"], "--latest names the container"),
        (&["missing"], "the fake knows no"),
        (&["-a", "web"], "cannot be used with"),
        (&[], "name at least one container"),
    ] {
        let ran = fake.run(&[&["port"], words].concat());
        assert_eq!((ran.status, ran.stdout.as_str()), (125, ""), "{words:?}");
        assert!(ran.stderr.contains(reason), "{words:?}: {}", ran.stderr);
    }
}

#[test]
fn ps_shows_where_ports_are() {
    let fake = Fake::start();
    let port = |address: &str| json!({"IP": address, "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"});
    let row = json!([{"Id": ID, "Names": ["/web"], "Ports": [port("0.0.0.0"), port("::")],
        "NetworkSettings": {"Networks": {"app": {}, "back": {}}}}]);
    fake.json("GET /containers/json", 200, &row.to_string());
    let table = fake.run(&["ps"]).stdout;
    assert!(
        table
            .lines()
            .next()
            .is_some_and(|titles| titles.contains("PORTS")),
        "{table}"
    );
    assert!(
        table.contains("0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"),
        "{table}"
    );
    assert_eq!(
        fake.run(&["ps", "--format", "{{.Networks}}"]).stdout,
        "app,back\n"
    );
    fake.run(&["ps", "--filter", "network=app", "--filter", "publish=80"]);
    let line = fake.lines().pop().expect("a request");
    assert!(line.contains("network") && line.contains("publish"), "{line}");
}
