//! Traps 14 to 26: lists, filters, names, and what is shown of what was asked for.

use serde_json::{Value, json};

use super::{IMAGE, Of, Row, World};

pub const ROWS: &[Row] = &[
    (
        14,
        "the network that is called default",
        Of::Ours,
        default_network,
    ),
    (15, "filters in both forms", Of::All, filter_forms),
    (15, "a broken filter prunes nothing", Of::All, broken_prunes),
    (15, "dangling=false is all", Of::All, dangling),
    (16, "words that are false", Of::All, booleans),
    (17, "words of the state", Of::All, states),
    (18, "null, [] and {}", Of::All, empties),
    (19, "times, and no time", Of::All, times),
    (20, "familiar names and whole ids", Of::All, image_names),
    (21, "the image as id and as typed", Of::All, typed_image),
    (22, "what was sent is kept", Of::All, kept),
    (
        22,
        "a variable without a value is removed",
        Of::All,
        removed_variable,
    ),
    (23, "ports of both families", Of::Ours, ports),
    (24, "addresses, aliases, names", Of::Ours, addresses),
    (25, "networks are made", Of::Ours, networks),
    (26, "connected twice, deleted in use", Of::Ours, connected_twice),
];

fn encoded(value: &Value) -> String {
    let bytes = value.to_string().into_bytes();
    bytes.iter().map(|byte| format!("%{byte:02X}")).collect()
}

/// Names of the containers that fit.
#[track_caller]
fn listed(world: &World, filters: &Value) -> Vec<String> {
    let rows = world.get(&format!("/containers/json?all=1&filters={}", encoded(filters)));
    let rows = rows.as_array().expect("a list").iter();
    rows.map(|row| row["Names"][0].as_str().expect("a name")[1..].to_owned())
        .collect()
}

fn default_network(world: &World) {
    let name = world.create(&json!({
        "Cmd": ["sleep", "100000"], "HostConfig": {"NetworkMode": "default"},
        "NetworkingConfig": {"EndpointsConfig": {"default": {}}},
    }));
    world.start(&name);
    let networks = &world.inspect(&name)["NetworkSettings"]["Networks"];
    let keys: Vec<_> = networks.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["bridge"]);
}

fn filter_forms(world: &World) {
    let name = world.create(&json!({"Cmd": ["true"], "Labels": {"a": "b"}}));
    world.create(&json!({"Cmd": ["true"]}));
    for form in [
        json!({"label": ["a=b"]}),
        json!({"label": {"a=b": true}}),
        json!({"label": ["a"], "name": [name.as_str()]}),
    ] {
        assert_eq!(listed(world, &form), [name.as_str()], "{form}");
    }
    for form in [
        json!({"label": ["a=c"]}),
        json!({"label": {"a=b": true, "x": true}}),
    ] {
        assert_eq!(listed(world, &form), Vec::<String>::new(), "{form}");
    }
    for path in ["/containers/json", "/images/json", "/volumes", "/networks"] {
        let filters = encoded(&json!({"nonsense": ["x"]}));
        let answer = world
            .engine
            .ask("GET", &format!("{path}?filters={filters}"), None);
        assert_eq!(answer.head.status, 400, "{path}: {}", answer.text());
    }
}

fn broken_prunes(world: &World) {
    let name = world.create(&json!({"Cmd": ["true"]}));
    let volume = world
        .engine
        .must(201, "POST", "/volumes/create", Some(&json!({})));
    let volume = volume["Name"].as_str().expect("a name");
    for filters in [
        encoded(&json!({"nonsense": ["x"]})),
        "%7B%7B%7B".into(),
        encoded(&json!("x")),
    ] {
        for kind in ["containers", "images", "volumes", "networks"] {
            let answer = world.post(&format!("/{kind}/prune?filters={filters}"));
            // dockerd's status depends on what is pruned.
            assert!(answer.head.status >= 400, "{kind} {filters}: {}", answer.text());
        }
    }
    world.inspect(&name);
    world.get(&format!("/volumes/{volume}"));
    world
        .engine
        .must(204, "DELETE", &format!("/volumes/{volume}"), None);
}

/// An image of nothing, with a name.
#[track_caller]
fn empty_image(world: &World, repository: &str) {
    let path = format!("/images/create?fromSrc=-&repo={repository}&tag=1");
    let made = world
        .engine
        .ask_bytes("POST", &path, "application/x-tar", &[0; 1024]);
    assert_eq!(made.head.status, 200, "{}", made.text());
}

fn dangling(world: &World) {
    // Keeps the image that the other rows need.
    world.create(&json!({"Cmd": ["true"]}));
    empty_image(world, "named");
    let prune = |word: &str| {
        let filters = encoded(&json!({"dangling": [word]}));
        let answer = world.post(&format!("/images/prune?filters={filters}"));
        assert_eq!(answer.head.status, 200, "{}", answer.text());
        world.engine.ask("GET", "/images/named:1/json", None).head.status
    };
    assert_eq!(prune("true"), 200, "it has a name");
    assert_eq!(prune("false"), 404, "all means all");
}

fn booleans(world: &World) {
    let name = world.create(&json!({"Cmd": ["true"]}));
    for (word, is_true) in [
        ("", false),
        ("0", false),
        ("no", false),
        ("False", false),
        ("none", false),
        ("1", true),
        ("true", true),
        ("yes", true),
        ("anything", true),
    ] {
        let rows = world.get(&format!("/containers/json?all={word}")).to_string();
        assert_eq!(rows.contains(&name), is_true, "{word:?}");
    }
}

fn states(world: &World) {
    let name = world.script("sleep 100000");
    let is = |word: &str| {
        assert_eq!(world.inspect(&name)["State"]["Status"], word);
        assert_eq!(
            listed(world, &json!({"status": [word]})),
            [name.as_str()],
            "{word}"
        );
        let rows = world.get("/containers/json?all=1");
        assert_eq!(rows[0]["State"], word);
    };
    is("created");
    world.start(&name);
    is("running");
    world.post(&format!("/containers/{name}/pause"));
    is("paused");
    world.post(&format!("/containers/{name}/unpause"));
    world.post(&format!("/containers/{name}/kill"));
    world.ended(&name);
    is("exited");
    let filters = encoded(&json!({"status": ["stopped"]}));
    let answer = world
        .engine
        .ask("GET", &format!("/containers/json?filters={filters}"), None);
    assert_eq!(answer.head.status, 400, "{}", answer.text());
}

fn empties(world: &World) {
    let nobody = encoded(&json!({"name": ["nobody-at-all"]}));
    assert_eq!(world.get(&format!("/networks?filters={nobody}")), json!([]));
    assert_eq!(
        world.get(&format!("/containers/json?filters={nobody}")),
        json!([])
    );
    let nothing = encoded(&json!({"label": ["nobody-at-all"]}));
    let pruned = world
        .engine
        .must(200, "POST", &format!("/containers/prune?filters={nothing}"), None);
    assert_eq!(pruned["ContainersDeleted"], Value::Null);
    let name = world.create(&json!({"Cmd": ["true"]}));
    let seen = world.inspect(&name);
    assert_eq!(seen["Config"]["Labels"], json!({}));
    assert_eq!(seen["HostConfig"]["LogConfig"]["Config"], json!({}));
    assert!(
        seen["Config"]["Volumes"]
            .as_object()
            .is_none_or(|volumes| volumes.is_empty())
    );
    assert_eq!(seen["Mounts"], json!([]));
    assert_eq!(seen["ExecIDs"], Value::Null);
    let row = &world.get("/containers/json?all=1")[0];
    assert_eq!((&row["Labels"], &row["Ports"]), (&json!({}), &json!([])));
}

fn times(world: &World) {
    let name = world.create(&json!({"Cmd": ["true"]}));
    let seen = world.inspect(&name);
    for field in ["StartedAt", "FinishedAt"] {
        assert_eq!(seen["State"][field], "0001-01-01T00:00:00Z", "{field}");
    }
    world.start(&name);
    world.ended(&name);
    let seen = world.inspect(&name);
    for time in [
        &seen["Created"],
        &seen["State"]["StartedAt"],
        &seen["State"]["FinishedAt"],
    ] {
        let time = time.as_str().expect("text");
        let fraction = time.strip_suffix('Z').and_then(|time| time.split_once('.'));
        let (whole, fraction) = fraction.unwrap_or_else(|| panic!("no fraction in {time}"));
        assert!(whole.len() == 19 && whole.as_bytes()[10] == b'T', "{time}");
        // Nanoseconds; what Go writes drops zeroes at the end.
        assert!((4..=9).contains(&fraction.len()), "{time}");
    }
}

fn image_names(world: &World) {
    let seen = world.get(&format!("/images/{IMAGE}/json"));
    assert_eq!(seen["RepoTags"], json!([IMAGE]));
    let id = seen["Id"].as_str().expect("an id");
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    for name in ["docker.io/library/traps:1", "library/traps:1", id, &id[7..19]] {
        assert_eq!(world.get(&format!("/images/{name}/json"))["Id"], id, "{name}");
    }
    let rows = world.get("/images/json");
    let rows = rows.as_array().expect("a list");
    assert!(
        rows.iter()
            .any(|row| row["Id"] == id && row["RepoTags"] == json!([IMAGE]))
    );
    assert_eq!(world.get(&format!("/images/{IMAGE}/history"))[0]["Id"], id);
    let name = world.create(&json!({"Cmd": ["true"]}));
    let made = world.engine.must(
        201,
        "POST",
        &format!("/commit?container={name}"),
        Some(&json!({})),
    );
    let made = made["Id"].as_str().expect("an id");
    assert!(made.starts_with("sha256:"), "{made}");
    world.engine.must(200, "DELETE", &format!("/images/{made}"), None);
}

fn typed_image(world: &World) {
    let id = world.get(&format!("/images/{IMAGE}/json"))["Id"].clone();
    let name = world.create(&json!({"Cmd": ["true"]}));
    let seen = world.inspect(&name);
    assert_eq!((&seen["Image"], &seen["Config"]["Image"]), (&id, &json!(IMAGE)));
    let rows = world.get("/containers/json?all=1");
    assert_eq!((&rows[0]["Image"], &rows[0]["ImageID"]), (&json!(IMAGE), &id));
}

fn kept(world: &World) {
    let host = json!({
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
        "Tmpfs": {"/t": "rw,size=1m"},
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
        "ExtraHosts": ["a:192.0.2.1"],
        "ShmSize": 1 << 20,
    });
    let name = world.create(&json!({
        "Cmd": ["true"], "HostConfig": host, "StopSignal": "SIGINT", "Labels": {"k": ""}, "Env": ["A=b=c"],
    }));
    let seen = world.inspect(&name);
    for (field, value) in host.as_object().expect("an object") {
        assert_eq!(seen["HostConfig"][field], *value, "{field}");
    }
    assert_eq!(seen["Config"]["StopSignal"], "SIGINT");
    assert_eq!(seen["Config"]["Labels"], json!({"k": ""}));
    let env = seen["Config"]["Env"].as_array().expect("a list");
    assert!(env.contains(&json!("A=b=c")), "{env:?}");
}

fn removed_variable(world: &World) {
    let name = world.create(&json!({"Cmd": ["/bin/busybox", "env"], "Env": ["PATH", "A=1"]}));
    world.start(&name);
    world.ended(&name);
    let said = world
        .engine
        .ask("GET", &format!("/containers/{name}/logs?stdout=1"), None);
    let said = said.text();
    assert!(said.contains("A=1") && !said.contains("PATH="), "{said}");
}

fn ports(world: &World) {
    for asked in ["", "0"] {
        let name = world.create(&json!({
            "Cmd": ["sleep", "100000"], "ExposedPorts": {"80/tcp": {}, "81/udp": {}},
            "HostConfig": {"NetworkMode": "bridge", "PortBindings": {"80/tcp": [{"HostPort": asked}]}},
        }));
        world.start(&name);
        let seen = &world.inspect(&name)["NetworkSettings"]["Ports"];
        let bindings = seen["80/tcp"].as_array().expect("bindings");
        let addresses: Vec<_> = bindings
            .iter()
            .map(|binding| binding["HostIp"].as_str())
            .collect();
        assert_eq!(addresses, [Some("0.0.0.0"), Some("::")]);
        let port: u16 = bindings[0]["HostPort"]
            .as_str()
            .and_then(|port| port.parse().ok())
            .expect("a port");
        assert!(port > 0);
        assert_eq!(seen["81/udp"], Value::Null);
        let row = &world.get("/containers/json")[0]["Ports"];
        let row = row.as_array().expect("a list");
        let published = json!({"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": port, "Type": "tcp"});
        assert!(row.contains(&published), "{row:?}");
        assert!(
            row.contains(&json!({"PrivatePort": 81, "Type": "udp"})),
            "{row:?}"
        );
        world.remove(&name);
    }
}

fn addresses(world: &World) {
    let network = json!({"Name": "addressed", "IPAM": {"Config": [{"Subnet": "10.77.0.0/24"}]}});
    world.engine.must(201, "POST", "/networks/create", Some(&network));
    let asked = json!({
        "IPAMConfig": {"IPv4Address": "10.77.0.9"}, "Aliases": ["db"], "MacAddress": "02:42:0a:4d:00:09",
    });
    let name = world.create(&json!({
        "Cmd": ["sleep", "100000"], "HostConfig": {"NetworkMode": "addressed"},
        "NetworkingConfig": {"EndpointsConfig": {"addressed": asked}},
    }));
    world.start(&name);
    let seen = world.inspect(&name);
    let endpoint = &seen["NetworkSettings"]["Networks"]["addressed"];
    assert_eq!(endpoint["IPAMConfig"]["IPv4Address"], "10.77.0.9");
    assert_eq!(endpoint["IPAddress"], "10.77.0.9");
    assert_eq!(endpoint["MacAddress"], "02:42:0a:4d:00:09");
    assert_eq!(endpoint["Aliases"], json!(["db"]));
    let names = endpoint["DNSNames"].as_array().expect("a list");
    let short = &seen["Id"].as_str().expect("an id")[..12];
    for wanted in [name.as_str(), "db", short] {
        assert!(names.contains(&json!(wanted)), "{wanted}: {names:?}");
    }
    world.remove(&name);
    world.engine.must(204, "DELETE", "/networks/addressed", None);
}

fn networks(world: &World) {
    let create = |body: Value| {
        world
            .engine
            .ask("POST", "/networks/create", Some(&body))
            .head
            .status
    };
    let ipam = json!({"Driver": "default", "Config": null, "Options": null});
    assert_eq!(create(json!({"Name": "made twice", "IPAM": ipam})), 201);
    assert_eq!(create(json!({"Name": "made twice"})), 409);
    for reserved in ["bridge", "host", "none"] {
        let status = create(json!({"Name": reserved}));
        assert!(matches!(status, 403 | 409), "{reserved}: {status}");
    }
    assert_eq!(create(json!({"Name": ""})), 400);
    let seen = world.get("/networks/made%20twice");
    assert_eq!(seen["Options"], json!({}));
    world.engine.must(204, "DELETE", "/networks/made%20twice", None);
}

fn connected_twice(world: &World) {
    world
        .engine
        .must(201, "POST", "/networks/create", Some(&json!({"Name": "twice"})));
    let name = world.create(&json!({"Cmd": ["sleep", "100000"], "HostConfig": {"NetworkMode": "twice"}}));
    world.start(&name);
    let again = world.engine.ask(
        "POST",
        "/networks/twice/connect",
        Some(&json!({"Container": name})),
    );
    assert_eq!(again.head.status, 403, "{}", again.text());
    assert!(
        again.message().contains("already exists in network twice"),
        "{}",
        again.text()
    );
    let used = world.engine.ask("DELETE", "/networks/twice", None);
    assert_eq!(used.head.status, 403, "{}", used.text());
    assert!(used.message().contains("has active endpoints"), "{}", used.text());
    world.remove(&name);
    world.engine.must(204, "DELETE", "/networks/twice", None);
}
