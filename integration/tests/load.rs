//! Load, clients that leave, and bytes that are no HTTP: what an engine on a gateway has to outlast. Memory and descriptors are counted, time is not.
#![forbid(unsafe_code)]

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use kakoi_integration::host::{Host, binary};
use kakoi_integration::http::{Engine, Talk};
use kakoi_integration::{image, needs_root, wait};
use serde_json::{Value, json};

const IMAGE: &str = "load:1";
/// What the stock client sends to have the connection.
const UPGRADE: &str = "\nConnection: Upgrade\nUpgrade: tcp";

fn engine(host: &Host) -> Engine {
    let engine = Engine::at(host.path("run/docker.sock"));
    let rootfs = image::busybox_layer(&binary("attacker"));
    let path = "/images/create?fromSrc=-&repo=load&tag=1&changes=ENV%20PATH=/bin";
    let made = engine.ask_bytes("POST", path, "application/x-tar", &rootfs);
    assert_eq!(made.head.status, 200, "{}", made.text());
    engine
}

#[track_caller]
fn create(engine: &Engine, name: &str, fields: Value) {
    let mut body = json!({"Image": IMAGE, "HostConfig": {"NetworkMode": "none"}});
    for (key, value) in fields.as_object().expect("fields") {
        body[key] = value.clone();
    }
    engine.must(
        201,
        "POST",
        &format!("/containers/create?name={name}"),
        Some(&body),
    );
}

#[track_caller]
fn run(engine: &Engine, name: &str, fields: Value) {
    create(engine, name, fields);
    engine.must(204, "POST", &format!("/containers/{name}/start"), None);
}

fn remove_all(engine: &Engine) {
    let rows = engine.must(200, "GET", "/containers/json?all=1", None);
    for row in rows.as_array().into_iter().flatten() {
        let id = row["Id"].as_str().unwrap_or_default();
        engine.must(204, "DELETE", &format!("/containers/{id}?force=1"), None);
    }
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    descriptors: usize,
    threads: usize,
    /// Memory that is its own, in KiB.
    memory_kib: u64,
}

fn held(pid: i32) -> Held {
    let count = |folder: &str| {
        fs::read_dir(format!("/proc/{pid}/{folder}"))
            .expect("it runs")
            .count()
    };
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let memory = memory.and_then(|line| line.split_whitespace().next()?.parse().ok());
    Held {
        descriptors: count("fd"),
        threads: count("task"),
        memory_kib: memory.expect("a number"),
    }
}

/// What the daemon holds just after a start, with the shim that waits for the next container.
#[track_caller]
fn held_with_spare(host: &Host) -> Held {
    wait::until("a shim waits", || host.spare().is_some());
    held(host.daemon_pid().as_raw())
}

/// The shim of a container: its first process's parent.
fn shim_of(host: &Host, name: &str) -> i32 {
    let pid = host.pid(name);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    parent.and_then(|pid| pid.trim().parse().ok()).expect("a parent")
}

#[test]
fn two_hundred_idle_streams_cost_little_and_hinder_nobody() {
    needs_root!();
    const STREAMS: usize = 200;
    /// Per stream: the buffers of both directions (64 KiB each, of which a silent stream touches a page), its descriptors and its task.
    const PER_STREAM_KIB: u64 = 64;
    let host = Host::empty();
    let engine = engine(&host);
    let daemon = host.daemon_pid().as_raw();
    run(
        &engine,
        "quiet",
        json!({"Cmd": ["sh", "-c", "read x; echo $x; sleep 100000"], "OpenStdin": true}),
    );
    let shim = shim_of(&host, "quiet");
    let (before, shim_before) = (held_with_spare(&host), held(shim));
    let mut streams: Vec<Talk> = (0..STREAMS)
        .map(|_| {
            let head = "POST /containers/quiet/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\nHost: docker\nContent-Length: 0";
            let mut talk = engine.send(&format!("{head}{UPGRADE}"), b"");
            assert_eq!(talk.head().status, 101);
            talk
        })
        .collect();
    // Others are served meanwhile, and every stream gets what is said.
    run(&engine, "other", json!({"Cmd": ["sleep", "100000"]}));
    streams[7].write(b"word\n");
    for talk in &mut streams {
        assert_eq!(talk.frame(), Some((1, b"word\n".to_vec())));
    }
    let during = held(daemon);
    let grown = during.memory_kib.saturating_sub(before.memory_kib);
    println!(
        "{STREAMS} streams: {before:?} {during:?}, the shim {shim_before:?} {:?}",
        held(shim)
    );
    assert!(
        grown <= STREAMS as u64 * PER_STREAM_KIB,
        "{STREAMS} streams take {grown} KiB"
    );
    drop(streams);
    // The other container's own watch is all that is more.
    engine.must(204, "DELETE", "/containers/other?force=1", None);
    wait::until("the daemon gives up the streams", || {
        held(daemon).descriptors <= before.descriptors
    });
    wait::until("the shim gives up the streams", || {
        held(shim).descriptors <= shim_before.descriptors
    });
    remove_all(&engine);
    host.is_clean();
}

#[test]
fn fifty_start_at_once_on_the_bridge() {
    needs_root!();
    const STARTS: usize = 50;
    let host = Host::empty();
    let engine = engine(&host);
    let bridged = json!({"Cmd": ["sleep", "100000"], "HostConfig": {"NetworkMode": "bridge"}});
    std::thread::scope(|scope| {
        for number in 0..STARTS {
            let (engine, bridged) = (&engine, &bridged);
            scope.spawn(move || run(engine, &format!("n{number}"), bridged.clone()));
        }
    });
    let rows = engine.must(200, "GET", "/containers/json", None);
    let rows = rows.as_array().expect("a list");
    let mut addresses: Vec<&str> = rows
        .iter()
        .filter_map(|row| row["NetworkSettings"]["Networks"]["bridge"]["IPAddress"].as_str())
        .filter(|address| !address.is_empty())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(
        (rows.len(), addresses.len()),
        (STARTS, STARTS),
        "running, and addresses"
    );
    std::thread::scope(|scope| {
        for number in 0..STARTS {
            let engine = &engine;
            let path = format!("/containers/n{number}?force=1");
            scope.spawn(move || engine.must(204, "DELETE", &path, None));
        }
    });
    let network = engine.must(200, "GET", "/networks/bridge", None);
    assert_eq!(network["Containers"], json!({}), "nobody keeps an address");
    host.is_clean();
}

#[test]
fn a_reader_that_never_reads_holds_up_nobody() {
    needs_root!();
    /// Sixteen pieces of 32 KiB wait for a reader, one is being made, and hyper has one of up to 400 KiB; the kernel has the rest. Four such readers, twice.
    const GROWTH_KIB_MAX: u64 = 8 << 10;
    const READERS: usize = 4;
    let host = Host::empty();
    let engine = engine(&host);
    let daemon = host.daemon_pid().as_raw();
    // 13.8 MB, beyond all buffers on the way.
    create(
        &engine,
        "talks",
        json!({"Cmd": ["sh", "-c", "read x; seq 1 2000000"], "OpenStdin": true, "StdinOnce": true}),
    );
    let mut input = engine.send(
        &format!("POST /containers/talks/attach?stream=1&stdin=1 HTTP/1.1\nHost: docker\nContent-Length: 0{UPGRADE}"),
        b"",
    );
    assert_eq!(input.head().status, 101);
    engine.must(204, "POST", "/containers/talks/start", None);
    let before = held_with_spare(&host);
    let readers: Vec<Talk> = (0..READERS)
        .map(|_| {
            let head = "GET /containers/talks/logs?follow=1&stdout=1 HTTP/1.1\nHost: docker";
            let mut talk = engine.send(head, b"");
            assert_eq!(talk.head().status, 200);
            talk
        })
        .collect();
    input.write(b"\n");
    let ended = engine.must(200, "POST", "/containers/talks/wait", None);
    assert_eq!(ended["StatusCode"], 0, "the app says all it has to say");
    let after = held(daemon);
    let grown = after.memory_kib.saturating_sub(before.memory_kib);
    println!("{READERS} readers: {before:?} {after:?}");
    assert!(
        grown <= GROWTH_KIB_MAX,
        "{READERS} readers that do not read take {grown} KiB"
    );
    // Whoever reads gets all of it, the tail at least that the log keeps.
    let logs = engine.ask("GET", "/containers/talks/logs?stdout=1&tail=1", None);
    assert!(logs.body.ends_with(b"2000000\n"), "{}", logs.text());
    drop(readers);
    wait::until("the daemon gives up the readers", || {
        held(daemon).descriptors <= before.descriptors
    });
    remove_all(&engine);
    host.is_clean();
}

/// Threads of work that blocks end by themselves when nobody has needed them for ten seconds.
#[track_caller]
fn threads_end(daemon: i32, before: Held) {
    let ended = wait::poll(Duration::from_secs(30), || {
        (held(daemon).threads <= before.threads).then_some(())
    });
    assert!(ended.is_some(), "{before:?} {:?}", held(daemon));
}

/// A registry that takes connections and never says a word would be asked six times, for a minute each.
#[test]
fn a_pull_that_nobody_waits_for_ends() {
    needs_root!();
    const PULLS: usize = 5;
    let host = Host::empty();
    let registry = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let name = registry.local_addr().expect("bound").to_string();
    host.file(
        "config/registries.yaml",
        format!("registries:\n  \"{name}\": {{transport: http}}\n"),
    );
    let engine = engine(&host);
    let daemon = host.daemon_pid().as_raw();
    let before = held(daemon);
    let head =
        format!("POST /images/create?fromImage={name}/a&tag=1 HTTP/1.1\nHost: docker\nContent-Length: 0");
    let mut asked = Vec::new();
    for _ in 0..PULLS {
        let client = engine.send(&head, b"");
        let (connection, _) = registry.accept().expect("the daemon asks");
        asked.push((client, connection));
    }
    let connections: Vec<_> = asked.into_iter().map(|(_, connection)| connection).collect();
    // The clients have left; the daemon has noticed when only its own connections are more than there were.
    wait::until("the daemon lets the clients go", || {
        held(daemon).descriptors <= before.descriptors + PULLS
    });
    drop(connections);
    wait::until("the daemon gives up the pulls", || {
        held(daemon).descriptors <= before.descriptors
    });
    threads_end(daemon, before);
    host.is_clean();
}

/// Requests whose clients leave in the middle: head and the beginning of a body. `{exec}` is an instance that was just made.
const LEFT: &[(&str, &str, &[u8])] = &[
    (
        "attach",
        "POST /containers/box/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\nContent-Length: 0\nConnection: Upgrade\nUpgrade: tcp",
        b"",
    ),
    (
        "attach of old",
        "POST /containers/box/attach?stream=1&stdout=1 HTTP/1.1\nContent-Length: 0",
        b"",
    ),
    (
        "attach by WebSocket",
        "GET /containers/box/attach/ws?stream=1&stdin=1&stdout=1 HTTP/1.1\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        b"",
    ),
    (
        "attach of one that never ran",
        "POST /containers/made/attach?stream=1&stdout=1 HTTP/1.1\nContent-Length: 0\nConnection: Upgrade\nUpgrade: tcp",
        b"",
    ),
    (
        "exec",
        "POST /exec/{exec}/start HTTP/1.1\nContent-Type: application/json\nContent-Length: 2\nConnection: Upgrade\nUpgrade: tcp",
        b"{}",
    ),
    (
        "exec of old",
        "POST /exec/{exec}/start HTTP/1.1\nContent-Type: application/json\nContent-Length: 2",
        b"{}",
    ),
    ("logs", "GET /containers/box/logs?follow=1&stdout=1 HTTP/1.1", b""),
    (
        "wait",
        "POST /containers/box/wait HTTP/1.1\nContent-Length: 0",
        b"",
    ),
    ("events", "GET /events HTTP/1.1", b""),
    ("stats", "GET /containers/box/stats HTTP/1.1", b""),
    ("export", "GET /containers/box/export HTTP/1.1", b""),
    ("save", "GET /images/load:1/get HTTP/1.1", b""),
    ("copying out", "GET /containers/box/archive?path=/ HTTP/1.1", b""),
    (
        "copying in",
        "PUT /containers/box/archive?path=/tmp HTTP/1.1\nContent-Length: 100000",
        b"half",
    ),
    (
        "load",
        "POST /images/load HTTP/1.1\nContent-Length: 100000",
        b"half",
    ),
    (
        "import",
        "POST /images/create?fromSrc=-&repo=half HTTP/1.1\nTransfer-Encoding: chunked",
        b"4\r\nhalf\r\n",
    ),
    (
        "create",
        "POST /containers/create HTTP/1.1\nContent-Type: application/json\nContent-Length: 100000",
        b"{\"Image\":",
    ),
    ("half a head", "GET /info HTTP/1.1\nHost: docker\nX-", b""),
];

#[test]
fn clients_that_leave_take_everything_along() {
    needs_root!();
    const TIMES: usize = 5;
    let host = Host::empty();
    let engine = engine(&host);
    let daemon = host.daemon_pid().as_raw();
    run(
        &engine,
        "box",
        json!({"Cmd": ["sleep", "100000"], "OpenStdin": true}),
    );
    create(&engine, "made", json!({"Cmd": ["true"]}));
    let instance = || {
        let body = json!({"Cmd": ["cat"], "AttachStdin": true, "AttachStdout": true});
        let made = engine.must(201, "POST", "/containers/box/exec", Some(&body));
        made["Id"].as_str().expect("an id").to_owned()
    };
    let before = held_with_spare(&host);
    let mut stay = Vec::new();
    for (what, head, body) in LEFT {
        for is_head_read in [true, false].repeat(TIMES) {
            let head = head.replace("{exec}", &instance());
            let mut talk = engine.send(&head, body);
            // What waits for more of a body has nothing to say yet.
            if is_head_read && body.len() < 3 && *what != "half a head" {
                let status = talk.head().status;
                assert!(matches!(status, 101 | 200), "{what}: {status}");
            }
        }
        let freed = wait::poll(Duration::from_secs(10), || {
            (held(daemon).descriptors <= before.descriptors).then_some(())
        });
        if freed.is_none() {
            stay.push(format!("{what}: {before:?} {:?}", held(daemon)));
        }
    }
    assert!(stay.is_empty(), "{stay:#?}");
    threads_end(daemon, before);
    let images = engine.must(200, "GET", "/images/json", None);
    assert_eq!(
        images.as_array().map(Vec::len),
        Some(1),
        "nothing half is there: {images}"
    );
    let rows = engine.must(200, "GET", "/containers/json?all=1", None);
    assert_eq!(rows.as_array().map(Vec::len), Some(2), "{rows}");
    remove_all(&engine);
    host.is_clean();
}

/// Bytes that no client should send, and the statuses that will do; 0 is an end without an answer.
type Bad = (&'static str, Vec<u8>, &'static [u16]);

const JSON: &str = "Content-Type: application/json\r\n";

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n").into_bytes()
}

fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

fn sent(headers: &str, body: &[u8]) -> Vec<u8> {
    post("/containers/create?name=bad", &format!("{JSON}{headers}"), body)
}

fn whole(body: &str) -> Vec<u8> {
    sent(&format!("Content-Length: {}\r\n", body.len()), body.as_bytes())
}

fn deep(open: &str, close: &str) -> Vec<u8> {
    let (open, close) = (open.repeat(100_000), close.repeat(100_000));
    whole(&format!("{{\"Labels\":{open}1{close}}}"))
}

fn bad_lines() -> Vec<Bad> {
    vec![
        ("nothing", b"\r\n\r\n".to_vec(), &[0, 400]),
        ("no HTTP", b"NONSENSE\r\n\r\n".to_vec(), &[400]),
        ("no version", b"GET /_ping\r\n\r\n".to_vec(), &[400]),
        ("HTTP/9", b"GET /_ping HTTP/9.9\r\n\r\n".to_vec(), &[400, 505]),
        (
            "HTTP/2's preface",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            &[0, 400, 505],
        ),
        (
            "TLS",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(9),
            &[0, 400],
        ),
        (
            "no method that there is",
            b"EAT /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n".to_vec(),
            &[404, 405],
        ),
        (
            "a long path",
            get(&format!("/{}", "a".repeat(200_000))),
            &[400, 414, 431],
        ),
        (
            "a long query",
            get(&format!("/info?{}", "a=b&".repeat(50_000))),
            &[400, 414, 431],
        ),
    ]
}

fn bad_heads() -> Vec<Bad> {
    let many: String = (0..2000).map(|number| format!("X-{number}: y\r\n")).collect();
    vec![
        (
            "a flood of headers",
            post("/containers/prune", &many, b""),
            &[400, 431],
        ),
        (
            "a long header",
            post(
                "/containers/prune",
                &format!("X: {}\r\n", "y".repeat(300_000)),
                b"",
            ),
            &[400, 431],
        ),
        (
            "a header without a name",
            post("/containers/prune", ": y\r\n", b""),
            &[400],
        ),
        (
            "a header with NUL",
            post("/containers/prune", "X: \0\r\n", b""),
            &[400],
        ),
        (
            "a folded header",
            post("/containers/prune", "X: a\r\n b\r\n", b""),
            &[400],
        ),
    ]
}

fn bad_bodies() -> Vec<Bad> {
    vec![
        (
            "a length that is none",
            sent("Content-Length: x\r\n", b"{}"),
            &[400],
        ),
        ("a negative length", sent("Content-Length: -1\r\n", b"{}"), &[400]),
        (
            "two lengths",
            sent("Content-Length: 2\r\nContent-Length: 3\r\n", b"{}"),
            &[400],
        ),
        (
            "length and chunks that disagree",
            sent(
                "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
                b"2\r\n{}\r\n0\r\n\r\n",
            ),
            &[400],
        ),
        (
            "chunks without a size",
            sent("Transfer-Encoding: chunked\r\n", b"xyz\r\n{}\r\n"),
            &[400],
        ),
        (
            "a chunk of a huge size",
            sent("Transfer-Encoding: chunked\r\n", b"ffffffffffffffffff\r\n{}\r\n"),
            &[400],
        ),
        (
            "an unknown encoding",
            sent("Transfer-Encoding: brotli\r\n", b"{}"),
            &[400, 501],
        ),
        ("a short body", sent("Content-Length: 100\r\n", b"{}"), &[0, 400]),
        (
            "a huge body",
            whole(&format!("{{\"Image\":\"{}\"}}", "x".repeat(16 << 20))),
            &[0, 400, 413],
        ),
        ("deep lists", deep("[", "]"), &[400]),
        ("deep objects", deep("{\"a\":", "}"), &[400]),
        ("no JSON", whole("{{{"), &[400]),
        (
            "JSON and more",
            whole("{\"Image\":\"load:1\"} {\"Image\":\"x\"}"),
            &[400],
        ),
        ("a list for a body", whole("[]"), &[400]),
        ("a number for an image", whole("{\"Image\":7}"), &[400]),
        (
            "no UTF-8",
            sent("Content-Length: 13\r\n", b"{\"Image\":\"\xff\"}"),
            &[400, 404],
        ),
        (
            "another type",
            post(
                "/containers/create",
                "Content-Type: text/html\r\nContent-Length: 2\r\n",
                b"{}",
            ),
            &[400],
        ),
    ]
}

fn bad_upgrades() -> Vec<Bad> {
    vec![
        (
            "an upgrade to h2c",
            post(
                "/containers/prune",
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\nContent-Length: 0\r\n",
                b"",
            ),
            &[200],
        ),
        (
            "a WebSocket of nothing",
            get("/containers/nobody/attach/ws"),
            &[404],
        ),
        (
            "CONNECT",
            b"CONNECT d:1 HTTP/1.1\r\nHost: d:1\r\nConnection: close\r\n\r\n".to_vec(),
            &[400, 404, 405],
        ),
        (
            "an attach to the engine",
            post(
                "/attach",
                "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n",
                b"",
            ),
            &[404],
        ),
    ]
}

fn bad_paths() -> Vec<Bad> {
    vec![
        (
            "a path that climbs",
            get("/containers/../../etc/passwd"),
            &[301, 400, 404],
        ),
        (
            "one in escapes",
            get("/containers/%2e%2e/%2e%2e/etc/passwd"),
            &[301, 400, 404],
        ),
        (
            "one with a slash in escapes",
            get("/containers/..%2f..%2fetc/json"),
            &[301, 400, 404],
        ),
        (
            "a volume that climbs",
            get("/volumes/..%2f..%2fcontainers"),
            &[400, 404],
        ),
        (
            "an image that climbs",
            get("/images/..%2f..%2f..%2fetc/json"),
            &[400, 404],
        ),
        ("NUL", get("/containers/a%00b/json"), &[400, 404]),
        ("no UTF-8 in a path", get("/containers/%ff%fe/json"), &[400, 404]),
        (
            "raw bytes in a path",
            b"GET /containers/\xff\xfe/json HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n".to_vec(),
            &[400, 404],
        ),
        ("half an escape", get("/containers/%4/json"), &[400, 404]),
        (
            "a path without a slash",
            b"GET containers/json HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n".to_vec(),
            &[400, 404],
        ),
        (
            "a star",
            b"GET * HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n".to_vec(),
            &[400, 404],
        ),
        ("a version that is none", get("/v1.x/info"), &[400, 404]),
        (
            "a version of many digits",
            get(&format!("/v1.{}/info", "9".repeat(400))),
            &[400, 404],
        ),
        (
            "a filter that is deep",
            get(&format!("/containers/json?filters={}", "%5B".repeat(10_000))),
            &[400],
        ),
        (
            "a number that is none",
            get("/containers/json?limit=x"),
            &[400, 500],
        ),
        (
            "a name that climbs",
            post(
                "/containers/create?name=..%2f..%2fx",
                &format!("{JSON}Content-Length: 18\r\n"),
                b"{\"Image\":\"load:1\"}",
            ),
            &[400],
        ),
        (
            "a name with NUL",
            post(
                "/containers/create?name=a%00b",
                &format!("{JSON}Content-Length: 18\r\n"),
                b"{\"Image\":\"load:1\"}",
            ),
            &[400],
        ),
    ]
}

#[test]
fn bytes_that_are_no_request_change_nothing() {
    needs_root!();
    let host = Host::empty();
    let engine = engine(&host);
    create(&engine, "here", json!({"Cmd": ["true"]}));
    engine.must(201, "POST", "/volumes/create", Some(&json!({"Name": "here"})));
    let daemon = host.daemon_pid().as_raw();
    let picture = || {
        let paths = ["/containers/json?all=1", "/images/json", "/volumes", "/networks"];
        // The state is told with how long it lasts.
        paths.map(|path| {
            let mut value = engine.must(200, "GET", path, None);
            for row in value.as_array_mut().into_iter().flatten() {
                row["Status"] = Value::Null;
            }
            value
        })
    };
    // One of them prunes containers; nothing may be lost but what it was asked for.
    engine.must(204, "DELETE", "/containers/here", None);
    run(&engine, "here", json!({"Cmd": ["sleep", "100000"]}));
    let held_before = held_with_spare(&host);
    let before = picture();
    let bad = [
        bad_lines(),
        bad_heads(),
        bad_bodies(),
        bad_upgrades(),
        bad_paths(),
    ]
    .concat();
    let mut failed = Vec::new();
    for (what, bytes, statuses) in bad {
        let mut talk = engine.connect();
        talk.write(&bytes);
        talk.close_write();
        let answer = talk.answer(true);
        let status = answer.head.status;
        let text = answer.text();
        let is_told = match status {
            // What is no HTTP is answered before any handler is asked.
            0 | 200 => true,
            400 | 414 | 431 | 505 if answer.body.is_empty() => true,
            _ => !answer.message().is_empty(),
        };
        if !statuses.contains(&status) || !is_told || text.contains(host.path("").to_str().expect("UTF-8")) {
            failed.push(format!("{what}: {status} {}", &text[..text.len().min(200)]));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(picture(), before, "something changed");
    assert_eq!(host.daemon_pid().as_raw(), daemon);
    wait::until("the daemon gives up the connections", || {
        held(daemon).descriptors <= held_before.descriptors
    });
    assert!(!host.daemon_log().contains("panicked"), "{}", host.daemon_log());
    remove_all(&engine);
    host.is_clean();
}
