//! What Docker's clients say of a container's place in a network beside its address: links, link-local addresses, gateway modes.

use serde_json::{Value, json};

use crate::given::{Daemon, needs_root};

fn made(daemon: &Daemon, name: &str, host: Value, networks: Value) {
    let mut body = json!({
        "Image": "bb", "Cmd": ["sleep", "1000"], "HostConfig": host,
        "NetworkingConfig": {"EndpointsConfig": networks},
    });
    body["HostConfig"]["SecurityOpt"] = json!(["kakoi=docker-default"]);
    daemon.must(
        201,
        "POST",
        &format!("/containers/create?name={name}"),
        Some(body),
    );
    daemon.must(204, "POST", &format!("/containers/{name}/start"), None);
}

fn says(daemon: &Daemon, status: u16, method: &str, path: &str, body: Option<Value>, words: &str) {
    let answer = daemon.must(status, method, path, body);
    let message = answer["message"].as_str().unwrap_or_default();
    assert!(message.contains(words), "{path}: no {words:?} in {message}");
}

#[test]
fn a_link_goes_and_its_containers_stay() {
    needs_root!();
    let mut daemon = Daemon::start();
    daemon.must(201, "POST", "/networks/create", Some(json!({"Name": "app"})));
    made(&daemon, "db", json!({"NetworkMode": "bridge"}), json!({}));
    made(
        &daemon,
        "web",
        json!({"NetworkMode": "bridge", "Links": ["db:store", "db:data"]}),
        json!({}),
    );
    made(
        &daemon,
        "page",
        json!({"NetworkMode": "app"}),
        json!({"app": {"Links": ["web:front"]}}),
    );
    for (path, status, words) in [
        (
            "/containers/db?link=1",
            500,
            "Conflict, cannot remove the default link name of the container",
        ),
        ("/containers/nobody?link=1", 404, "No such container: nobody"),
        (
            "/containers/web/nothing?link=1",
            404,
            "No such container: web/nothing",
        ),
        (
            "/containers/nobody/store?link=1",
            404,
            "No such container: nobody/store",
        ),
        ("/containers/web/store", 404, "No such container"),
        ("/containers/web/store?force=1", 404, "No such container"),
    ] {
        says(&daemon, status, "DELETE", path, None, words);
    }
    let links = |daemon: &Daemon| {
        let inspected = daemon.must(200, "GET", "/containers/web/json", None);
        inspected["HostConfig"]["Links"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(links(&daemon), 2);
    // Forced or not: a link is what goes.
    daemon.must(204, "DELETE", "/containers/web/store?link=1&force=1&v=1", None);
    daemon.must(204, "DELETE", "/containers/page/front?link=1", None);
    assert_eq!(links(&daemon), 1);
    for again in [false, true] {
        if again {
            daemon.kill();
            daemon.up();
        }
        assert_eq!(links(&daemon), 1);
        says(
            &daemon,
            404,
            "DELETE",
            "/containers/web/store?link=1",
            None,
            "web/store",
        );
        for name in ["db", "web", "page"] {
            assert_eq!(daemon.state(name)["Status"], "running", "{name}");
        }
    }
    for name in ["db", "web", "page"] {
        daemon.must(204, "DELETE", &format!("/containers/{name}?force=1"), None);
    }
    daemon.must(204, "DELETE", "/networks/app", None);
    daemon.is_clean();
}

#[test]
fn link_local_addresses_are_held_and_nobody_elses() {
    needs_root!();
    let daemon = Daemon::start();
    let at = |address: &str| json!({"bridge": {"IPAMConfig": {"LinkLocalIPs": [address]}}});
    let bridge = || json!({"NetworkMode": "bridge"});
    made(&daemon, "one", bridge(), at("169.254.8.8"));
    let inspected = daemon.must(200, "GET", "/containers/one/json", None);
    let place = &inspected["NetworkSettings"]["Networks"]["bridge"];
    assert_eq!(place["IPAMConfig"]["LinkLocalIPs"], json!(["169.254.8.8"]));
    let pid = daemon.state("one")["Pid"].clone();
    let held = std::fs::read_to_string(format!("/proc/{pid}/net/fib_trie")).expect("it runs");
    assert!(held.contains("169.254.8.8"), "{held}");
    made(&daemon, "two", bridge(), at("169.254.8.9"));
    for address in [
        "10.0.0.1",
        "192.0.2.1",
        "127.0.0.1",
        "0.0.0.0",
        "fd00::1",
        "nothing",
    ] {
        let body = json!({"Image": "bb", "Cmd": ["true"], "HostConfig": bridge(), "NetworkingConfig": {"EndpointsConfig": at(address)}});
        let words = format!("invalid link-local IP address: {address}");
        says(
            &daemon,
            400,
            "POST",
            "/containers/create?name=x",
            Some(body),
            &words,
        );
    }
    let body = json!({"Image": "bb", "Cmd": ["true"], "HostConfig": {"NetworkMode": "bridge", "SecurityOpt": ["kakoi=docker-default"]}, "NetworkingConfig": {"EndpointsConfig": at("169.254.8.8")}});
    daemon.must(201, "POST", "/containers/create?name=thief", Some(body));
    says(
        &daemon,
        403,
        "POST",
        "/containers/thief/start",
        None,
        "Address already in use: 169.254.8.8",
    );
    daemon.must(204, "DELETE", "/containers/one?force=1", None);
    daemon.must(204, "POST", "/containers/thief/start", None);
    for name in ["two", "thief"] {
        daemon.must(204, "DELETE", &format!("/containers/{name}?force=1"), None);
    }
    daemon.is_clean();
}

#[test]
fn a_gateway_mode_that_is_not_there_is_refused() {
    needs_root!();
    let daemon = Daemon::start();
    for family in ["ipv4", "ipv6"] {
        let option = format!("com.docker.network.bridge.gateway_mode_{family}");
        for (mode, status, words) in [
            ("routed", 501, "is not there"),
            ("isolated", 501, "is not there"),
            ("nat-unprotected", 501, "is not there"),
            ("open", 400, "unknown gateway mode open"),
        ] {
            let body = json!({"Name": "app", "Options": {&option: mode}});
            says(&daemon, status, "POST", "/networks/create", Some(body), words);
        }
        let made = daemon.must(
            201,
            "POST",
            "/networks/create",
            Some(json!({"Name": "app", "Options": {&option: "nat"}})),
        );
        assert_eq!(made["Warning"], "", "{made}");
        daemon.must(204, "DELETE", "/networks/app", None);
    }
    daemon.is_clean();
}

/// Records that are damaged come back from copies: a network that was left must not.
#[test]
fn the_copy_of_a_record_names_the_networks_of_now() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.must(201, "POST", "/networks/create", Some(json!({"Name": "app"})));
    made(
        &daemon,
        "web",
        json!({"NetworkMode": "bridge", "Links": []}),
        json!({}),
    );
    let id = daemon.must(200, "GET", "/containers/web/json", None)["Id"].clone();
    let copy = daemon.path(&format!(
        "root/containers/{}/record.json",
        id.as_str().expect("an id")
    ));
    let names = || -> Vec<String> {
        let text = std::fs::read_to_string(&copy).expect("it has a copy");
        let record: Value = serde_json::from_str(&text).expect("JSON");
        let networks = record["networks"].as_object().expect("networks");
        networks.keys().cloned().collect()
    };
    assert_eq!(names(), ["bridge"]);
    let who = || Some(json!({"Container": "web"}));
    daemon.must(200, "POST", "/networks/app/connect", who());
    assert_eq!(names(), ["app", "bridge"]);
    daemon.must(200, "POST", "/networks/bridge/disconnect", who());
    assert_eq!(names(), ["app"]);
    daemon.must(204, "DELETE", "/containers/web?force=1", None);
    daemon.must(204, "DELETE", "/networks/app", None);
    daemon.is_clean();
}
