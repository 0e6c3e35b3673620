//! Traps 40 to 45: names, keys, bodies, credentials.

use serde_json::json;

use super::{IMAGE, Of, Row, World};

pub const ROWS: &[Row] = &[
    (
        40,
        "volumes without a name, and labels that are not",
        Of::All,
        volumes,
    ),
    (41, "keys in any case, and unknown ones", Of::All, keys),
    (42, "image names with slashes and colons", Of::All, image_paths),
    (43, "types, chunks, expectations", Of::All, bodies),
    (44, "how names resolve", Of::All, names),
    (45, "credentials in every form", Of::All, credentials),
];

fn volumes(world: &World) {
    let make = |labels: serde_json::Value| {
        let made = world
            .engine
            .must(201, "POST", "/volumes/create", Some(&json!({"Labels": labels})));
        made["Name"].as_str().expect("a name").to_owned()
    };
    let (kept, gone) = (make(json!({"keep": "1"})), make(json!({})));
    assert!(
        kept.len() == 64 && kept.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{kept}"
    );
    let filters = "%7B%22label%21%22%3A%5B%22keep%22%5D%7D";
    let pruned = world
        .engine
        .must(200, "POST", &format!("/volumes/prune?filters={filters}"), None);
    let pruned = pruned["VolumesDeleted"].as_array().expect("a list");
    assert!(
        pruned.contains(&json!(gone)) && !pruned.contains(&json!(kept)),
        "{pruned:?}"
    );
    world.get(&format!("/volumes/{kept}"));
    world
        .engine
        .must(204, "DELETE", &format!("/volumes/{kept}"), None);
}

fn keys(world: &World) {
    let name = world.name();
    let body = json!({
        "image": IMAGE, "CMD": ["echo", "x"], "hostconfig": {"NETWORKMODE": "none"}, "nonsense": {"a": 1},
    });
    let path = format!("/containers/create?name={name}");
    world.engine.must(201, "POST", &path, Some(&body));
    let seen = world.inspect(&name);
    assert_eq!(seen["Config"]["Cmd"], json!(["echo", "x"]));
    assert_eq!(seen["HostConfig"]["NetworkMode"], "none");
}

fn image_paths(world: &World) {
    let name = "reg.example:5000/a/b/c";
    let tag = format!("/images/{IMAGE}/tag?repo={name}&tag=t");
    world.engine.must(201, "POST", &tag, None);
    let full = format!("{name}:t");
    let seen = world.get(&format!("/images/{full}/json"));
    assert!(
        seen["RepoTags"]
            .as_array()
            .expect("a list")
            .contains(&json!(full))
    );
    world.get(&format!("/images/{full}/history"));
    let tag = format!("/images/{full}/tag?repo={name}&tag=u");
    world.engine.must(201, "POST", &tag, None);
    for tag in ["t", "u"] {
        world
            .engine
            .must(200, "DELETE", &format!("/images/{name}:{tag}"), None);
    }
    let gone = world.engine.ask("GET", &format!("/images/{full}/json"), None);
    assert_eq!(gone.head.status, 404);
}

fn bodies(world: &World) {
    let body = json!({"Image": IMAGE, "HostConfig": {"NetworkMode": "none"}, "Cmd": ["true"]}).to_string();
    let (length, half) = (body.len(), body.len() / 2);
    let chunked = format!(
        "{half:x}\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        &body[..half],
        length - half,
        &body[half..]
    );
    let json = "Content-Type: application/json";
    for (headers, body) in [
        (format!("{json}; charset=utf-8\nContent-Length: {length}"), &body),
        (format!("{json}\nTransfer-Encoding: chunked"), &chunked),
        (
            format!("{json}\nContent-Length: {length}\nExpect: 100-continue"),
            &body,
        ),
    ] {
        let name = world.name();
        let head = format!(
            "POST /containers/create?name={name} HTTP/1.1\nHost: docker\nConnection: close\n{headers}"
        );
        let mut talk = world.engine.send(&head, b"");
        if headers.contains("Expect") {
            assert_eq!(talk.head().status, 100);
        }
        talk.write(body.as_bytes());
        let answer = talk.answer(true);
        assert_eq!(answer.head.status, 201, "{headers}: {}", answer.text());
        world.start(&name);
        // A body that is announced and empty.
        let head = format!(
            "POST /containers/{name}/restart?t=0 HTTP/1.1\nHost: docker\nConnection: close\nTransfer-Encoding: chunked"
        );
        let answer = world.engine.send(&head, b"0\r\n\r\n").answer(true);
        assert_eq!(answer.head.status, 204, "{}", answer.text());
    }
    let head = format!(
        "POST /containers/create HTTP/1.1\nHost: docker\nConnection: close\nContent-Type: application/x-tar\nContent-Length: {length}"
    );
    let answer = world.engine.send(&head, body.as_bytes()).answer(true);
    assert_eq!(answer.head.status, 400, "{}", answer.text());
}

fn names(world: &World) {
    let name = world.script("true");
    let id = world.inspect(&name)["Id"].as_str().expect("an id").to_owned();
    for form in [name.as_str(), &id, &id[..12]] {
        assert_eq!(world.inspect(form)["Id"], id.as_str(), "{form}");
    }
    // A name beats the beginning of an id.
    let other = id[..12].to_owned();
    world.create_named(&other, &json!({"Cmd": ["true"]}));
    assert_eq!(world.inspect(&other)["Name"], format!("/{other}"));
    // A leading slash is the name's.
    let slashed = world.name();
    world.create_named(&format!("%2F{slashed}"), &json!({"Cmd": ["true"]}));
    assert_eq!(world.inspect(&slashed)["Name"], format!("/{slashed}"));
    // Of seventeen ids two begin alike.
    let ids: Vec<String> = (0..17)
        .map(|_| {
            let name = world.script("true");
            world.inspect(&name)["Id"].as_str().expect("an id")[..1].to_owned()
        })
        .collect();
    let shared = ids
        .iter()
        .find(|digit| ids.iter().filter(|other| other == digit).count() > 1);
    let digit = shared.expect("two of seventeen");
    let answer = world
        .engine
        .ask("GET", &format!("/containers/{digit}/json"), None);
    assert!(answer.head.status >= 400, "{}", answer.text());
    assert!(!answer.message().is_empty(), "{}", answer.text());
    let refused = world.try_create(&name, &json!({"Cmd": ["true"]}));
    assert_eq!(refused.head.status, 409, "{}", refused.text());
    assert!(
        refused.message().contains("is already in use by container"),
        "{}",
        refused.text()
    );
}

/// What the registry gets is looked at in the tests of registries.
fn credentials(world: &World) {
    for value in [
        "",
        "e30=",
        // {"username":"a","password":"??>"} in both alphabets.
        "eyJ1c2VybmFtZSI6ImEiLCJwYXNzd29yZCI6Ij8_PiJ9",
        "eyJ1c2VybmFtZSI6ImEiLCJwYXNzd29yZCI6Ij8/PiJ9",
        // {"identitytoken":"t"}
        "eyJpZGVudGl0eXRva2VuIjoidCJ9",
        // Some clients put a word there where there are none.
        "placeholder",
    ] {
        world.refused_pull(&format!("\nX-Registry-Auth: {value}"));
    }
}
