//! Traps 1 to 13: waiting, attaching, exec, hijacking.

use kakoi_integration::http::{Talk, unframed};
use serde_json::json;

use super::{Of, Row, UPGRADE, World};

pub const ROWS: &[Row] = &[
    (1, "wait answers its head before the end", Of::All, wait_head),
    (1, "a condition that is none", Of::Ours, wait_for_nonsense),
    (2, "an end at once is seen by next-exit", Of::All, next_exit),
    (
        3,
        "removed comes after the removal, with the code",
        Of::All,
        removed,
    ),
    (
        4,
        "one that never ran is waited for by nobody",
        Of::All,
        never_ran,
    ),
    (
        5,
        "what is attached before the start misses nothing",
        Of::All,
        attach_before,
    ),
    (6, "a bad command is the start's error", Of::All, bad_command),
    (7, "half a close is the end of the input", Of::All, half_close),
    (
        7,
        "half a close right behind the request",
        Of::Ours,
        early_half_close,
    ),
    (8, "all output comes before the end", Of::All, whole_output),
    (8, "all output of a terminal, too", Of::All, whole_terminal),
    (9, "frames unless there is a terminal", Of::All, frames),
    (9, "exec frames by its own terminal", Of::All, exec_frames),
    (
        10,
        "events and logs answer their heads at once",
        Of::All,
        early_heads,
    ),
    (12, "101 with Upgrade, 200 without", Of::All, hijack),
    (12, "exec start, both ways", Of::All, exec_hijack),
    (
        12,
        "the content type goes by the version",
        Of::Ours,
        content_types,
    ),
    (12, "errors come before the upgrade", Of::All, refused_hijack),
    (12, "a WebSocket", Of::All, websocket),
    (
        12,
        "a WebSocket is refused before it is one",
        Of::Ours,
        refused_websocket,
    ),
    (
        13,
        "no size before the start or after the end",
        Of::All,
        resize_refused,
    ),
    (13, "height and width stay apart", Of::All, resize),
    (
        13,
        "the exit code is there when the stream closes",
        Of::All,
        exec_code,
    ),
];

/// The wait of a container, its head read.
#[track_caller]
fn waiting(world: &World, name: &str, condition: &str) -> Talk {
    let head = format!("POST /containers/{name}/wait{condition} HTTP/1.1\nHost: docker\nContent-Length: 0");
    let mut talk = world.engine.send(&head, b"");
    assert_eq!(talk.head().status, 200, "{condition}");
    talk
}

#[track_caller]
fn code(talk: &mut Talk) -> i64 {
    let answer: serde_json::Value = serde_json::from_slice(&talk.chunk()).expect("JSON");
    answer["StatusCode"].as_i64().expect("a code")
}

fn wait_head(world: &World) {
    for condition in ["?condition=next-exit", "?condition=removed"] {
        let name = world.create(&json!({"Cmd": ["true"], "HostConfig": {"AutoRemove": true}}));
        // Its head is read before anybody starts it.
        let mut talk = waiting(world, &name, condition);
        world.start(&name);
        assert_eq!(code(&mut talk), 0);
    }
    let answer = world.post("/containers/nobody/wait");
    assert_eq!(answer.head.status, 404);
}

fn wait_for_nonsense(world: &World) {
    let name = world.script("true");
    let answer = world.post(&format!("/containers/{name}/wait?condition=nonsense"));
    assert_eq!(answer.head.status, 400);
}

fn next_exit(world: &World) {
    let name = world.script("exit 9");
    for _ in 0..5 {
        let mut talk = waiting(world, &name, "?condition=next-exit");
        world.start(&name);
        assert_eq!(code(&mut talk), 9);
    }
}

fn removed(world: &World) {
    let name = world.create(&json!({"Cmd": ["sh", "-c", "exit 7"], "HostConfig": {"AutoRemove": true}}));
    let mut talk = waiting(world, &name, "?condition=removed");
    world.start(&name);
    assert_eq!(code(&mut talk), 7);
    let gone = world.engine.ask("GET", &format!("/containers/{name}/json"), None);
    assert_eq!(gone.head.status, 404, "it answered before the removal");
}

fn never_ran(world: &World) {
    let name = world.script("exit 5");
    assert_eq!(world.ended(&name), 0);
    assert_eq!(world.inspect(&name)["State"]["Status"], "created");
}

fn attach_before(world: &World) {
    let name = world.script("echo first; echo second >&2");
    let mut talk = world.attach(&name, "stream=1&stdout=1&stderr=1", UPGRADE);
    assert_eq!(talk.head().status, 101);
    world.start(&name);
    assert_eq!(
        unframed(&talk.rest()),
        (b"first\n".to_vec(), b"second\n".to_vec())
    );
}

fn bad_command(world: &World) {
    let name = world.create(&json!({"Cmd": ["/no/such/program"]}));
    let mut talk = world.attach(&name, "stream=1&stdout=1", UPGRADE);
    assert_eq!(talk.head().status, 101, "the error is not the attach's");
    let refused = world.post(&format!("/containers/{name}/start"));
    assert_eq!(refused.head.status, 400, "{}", refused.text());
    assert!(refused.message().contains("no such file"), "{}", refused.text());
    assert_eq!(talk.rest(), b"", "the stream ends");
}

fn half_close(world: &World) {
    let fields = json!({"Cmd": ["sh", "-c", "cat; echo end"], "OpenStdin": true, "StdinOnce": true});
    for headers in [UPGRADE, ""] {
        let name = world.create(&fields);
        let mut talk = world.attach(&name, "stream=1&stdin=1&stdout=1", headers);
        talk.head();
        world.start(&name);
        talk.write(b"typed\n");
        talk.close_write();
        assert_eq!(unframed(&talk.rest()).0, b"typed\nend\n", "{headers:?}");
        assert_eq!(world.ended(&name), 0);
    }
}

/// As a script does that pipes request and input into the socket. dockerd loses what came with the request.
fn early_half_close(world: &World) {
    let name = world.running("sleep 100000");
    let body = json!({"Cmd": ["sh", "-c", "cat; echo end"], "AttachStdin": true, "AttachStdout": true});
    for headers in [UPGRADE, ""] {
        let id = world.exec(&name, &body);
        let mut talk = world.exec_start(&id, &json!({}), headers);
        talk.write(b"typed\n");
        talk.close_write();
        talk.head();
        assert_eq!(unframed(&talk.rest()).0, b"typed\nend\n", "{headers:?}");
    }
    // And one that asks for nothing but an answer.
    let talk = world.engine.send("GET /_ping HTTP/1.1\nHost: docker", b"");
    talk.close_write();
    let mut talk = talk;
    assert_eq!(talk.answer(true).text(), "OK");
}

const LINES: &str = "seq 1 40000; seq 1 40000 >&2; echo last";

fn whole_output(world: &World) {
    let name = world.script(LINES);
    let mut talk = world.attach(&name, "stream=1&stdout=1&stderr=1", UPGRADE);
    talk.head();
    world.start(&name);
    let numbers: String = (1..=40000).map(|number| format!("{number}\n")).collect();
    let (out, err) = unframed(&talk.rest());
    assert!(out == format!("{numbers}last\n").as_bytes() && err == numbers.as_bytes());
    let name = world.running("sleep 100000");
    let (out, code) = world.output(&name, &["sh", "-c", LINES]);
    assert!(out == format!("{numbers}last\n") && code == 0);
}

fn whole_terminal(world: &World) {
    let name = world.running("sleep 100000");
    for _ in 0..10 {
        let body = json!({"Cmd": ["echo", "hello", "out"], "AttachStdout": true, "Tty": true});
        let id = world.exec(&name, &body);
        let mut talk = world.exec_start(&id, &json!({"Tty": true}), UPGRADE);
        talk.head();
        assert_eq!(talk.rest(), b"hello out\r\n");
    }
}

fn frames(world: &World) {
    let name = world.script("echo out; sleep 0; echo err >&2");
    let mut talk = world.attach(&name, "stream=1&stdout=1&stderr=1", UPGRADE);
    talk.head();
    world.start(&name);
    let mut frames = [talk.frame(), talk.frame()];
    frames.sort();
    assert_eq!(
        frames,
        [Some((1, b"out\n".to_vec())), Some((2, b"err\n".to_vec()))]
    );
    let name = world.create(&json!({"Cmd": ["echo", "plain"], "Tty": true}));
    let mut talk = world.attach(&name, "stream=1&stdout=1", UPGRADE);
    talk.head();
    world.start(&name);
    assert_eq!(talk.rest(), b"plain\r\n");
    // What the log has is framed alike.
    let logs = world
        .engine
        .ask("GET", &format!("/containers/{name}/logs?stdout=1"), None);
    assert_eq!(logs.body, b"plain\r\n");
}

fn exec_frames(world: &World) {
    // The container has a terminal, the instance has none.
    let name = world.create(&json!({"Cmd": ["sleep", "100000"], "Tty": true}));
    world.start(&name);
    assert_eq!(world.output(&name, &["echo", "framed"]), ("framed\n".into(), 0));
}

fn early_heads(world: &World) {
    let name = world.running("sleep 100000");
    for path in [
        "/events".to_owned(),
        format!("/containers/{name}/logs?follow=1&stdout=1"),
    ] {
        let mut talk = world
            .engine
            .send(&format!("GET {path} HTTP/1.1\nHost: docker"), b"");
        assert_eq!(talk.head().status, 200, "{path}");
    }
}

fn hijack(world: &World) {
    for (headers, line) in [
        (UPGRADE, "HTTP/1.1 101 UPGRADED"),
        ("", "HTTP/1.1 200 OK"),
        ("\nUpgrade: tcp", "HTTP/1.1 101 UPGRADED"),
    ] {
        let name = world.create(&json!({"Cmd": ["cat"], "OpenStdin": true, "StdinOnce": true}));
        let mut talk = world.attach(&name, "stream=1&stdin=1&stdout=1", headers);
        let head = talk.head();
        assert_eq!(head.line, line, "{headers:?}");
        for gone in ["transfer-encoding", "content-length"] {
            assert_eq!(head.header(gone), "", "{headers:?}: {gone}");
        }
        let upgrade = if headers.is_empty() { "" } else { "tcp" };
        assert_eq!(head.header("upgrade"), upgrade);
        world.start(&name);
        for word in ["one\n", "two\n"] {
            talk.write(word.as_bytes());
            assert_eq!(talk.frame(), Some((1, word.as_bytes().to_vec())), "{headers:?}");
        }
        talk.close_write();
        assert_eq!(talk.rest(), b"", "{headers:?}");
    }
}

fn exec_hijack(world: &World) {
    let name = world.running("sleep 100000");
    let body = json!({"Cmd": ["cat"], "AttachStdin": true, "AttachStdout": true});
    for (headers, line) in [(UPGRADE, "HTTP/1.1 101 UPGRADED"), ("", "HTTP/1.1 200 OK")] {
        let id = world.exec(&name, &body);
        let mut talk = world.exec_start(&id, &json!({}), headers);
        let head = talk.head();
        assert_eq!((head.line.as_str(), head.header("transfer-encoding")), (line, ""));
        for word in ["one\n", "two\n"] {
            talk.write(word.as_bytes());
            assert_eq!(talk.frame(), Some((1, word.as_bytes().to_vec())), "{headers:?}");
        }
        talk.close_write();
        assert_eq!(talk.rest(), b"", "{headers:?}");
        assert_eq!(world.get(&format!("/exec/{id}/json"))["ExitCode"], 0);
    }
}

fn content_types(world: &World) {
    const RAW: &str = "application/vnd.docker.raw-stream";
    const FRAMED: &str = "application/vnd.docker.multiplexed-stream";
    let name = world.running("sleep 100000");
    let tty = world.create(&json!({"Cmd": ["sleep", "100000"], "Tty": true}));
    world.start(&tty);
    for (version, name, headers, kind) in [
        ("", &name, UPGRADE, FRAMED),
        ("/v1.42", &name, UPGRADE, FRAMED),
        ("/v1.41", &name, UPGRADE, RAW),
        ("/v1.24", &name, UPGRADE, RAW),
        ("", &name, "", RAW),
        ("", &tty, UPGRADE, RAW),
    ] {
        let path = format!("{version}/containers/{name}/attach?stream=1&stdout=1");
        let head = format!("POST {path} HTTP/1.1\nHost: docker\nContent-Length: 0{headers}");
        let head = world.engine.send(&head, b"").head();
        assert_eq!(head.header("content-type"), kind, "{path} {headers:?}");
        if !headers.is_empty() {
            let path = format!("{version}/containers/{name}/logs?stdout=1");
            let answer = world.engine.ask("GET", &path, None);
            assert_eq!(answer.head.header("content-type"), kind, "{path}");
        }
    }
}

fn refused_hijack(world: &World) {
    let name = world.script("sleep 100000");
    let id = "0".repeat(64);
    for headers in [UPGRADE, ""] {
        let refused = world.attach("nobody", "stream=1&stdout=1", headers).head();
        assert_eq!(refused.status, 404, "{headers:?}");
        let refused = world
            .attach(&name, "stream=1&stdout=1&detachKeys=nonsense", headers)
            .head();
        assert_eq!(refused.status, 400, "{headers:?}");
        let refused = world.exec_start(&id, &json!({}), headers).head();
        assert_eq!(refused.status, 404, "{headers:?}");
    }
    world.start(&name);
    assert_eq!(world.post(&format!("/containers/{name}/pause")).head.status, 204);
    for headers in [UPGRADE, ""] {
        let refused = world.attach(&name, "stream=1&stdout=1", headers).head();
        assert_eq!(refused.status, 409, "{headers:?}");
    }
    assert_eq!(
        world.post(&format!("/containers/{name}/unpause")).head.status,
        204
    );
}

const HANDSHAKE: &str = "\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nOrigin: http://docker";

#[track_caller]
fn attach_ws(world: &World, name: &str, query: &str, headers: &str) -> Talk {
    let path = format!("/containers/{name}/attach/ws?{query}");
    world
        .engine
        .send(&format!("GET {path} HTTP/1.1\nHost: docker{headers}"), b"")
}

fn websocket(world: &World) {
    let name =
        world.create(&json!({"Cmd": ["sh", "-c", "cat; echo end"], "OpenStdin": true, "StdinOnce": true}));
    let mut talk = attach_ws(world, &name, "stream=1&stdin=1&stdout=1&stderr=1", HANDSHAKE);
    let head = talk.head();
    assert_eq!(head.status, 101, "{head:?}");
    assert_eq!(
        head.header("sec-websocket-accept"),
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    );
    assert_eq!(head.header("upgrade").to_lowercase(), "websocket");
    world.start(&name);
    talk.write(b"\x82\x86\x01\x01\x01\x01uxqde\x0b");
    assert_eq!(
        talk.take(8),
        b"\x82\x06typed\n",
        "a binary message without a frame of Docker's"
    );
    talk.write(b"\x88\x80\0\0\0\0");
    assert_eq!(talk.take(6), b"\x82\x04end\n", "a close ends the input, no more");
    talk.rest();
    assert_eq!(world.ended(&name), 0);
}

fn refused_websocket(world: &World) {
    let name = world.running("sleep 100000");
    let all = "stream=1&stdout=1";
    for (what, name, query, headers, status) in [
        ("no container", "nobody", all, HANDSHAKE, 404),
        ("bad keys", name.as_str(), "detachKeys=nonsense", HANDSHAKE, 400),
        ("no handshake", name.as_str(), all, "", 400),
        ("another protocol", name.as_str(), all, UPGRADE, 400),
    ] {
        let answer = attach_ws(world, name, query, headers).answer(true);
        assert_eq!(answer.head.status, status, "{what}");
        assert!(!answer.message().is_empty(), "{what}: {}", answer.text());
    }
    for gone in [
        "\nSec-WebSocket-Version: 13",
        "\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ] {
        let answer = attach_ws(world, &name, all, &HANDSHAKE.replace(gone, "")).answer(true);
        assert_eq!(answer.head.status, 400, "without {gone}");
    }
    assert_eq!(world.post(&format!("/containers/{name}/pause")).head.status, 204);
    let answer = attach_ws(world, &name, all, HANDSHAKE).answer(true);
    assert_eq!(answer.head.status, 409);
    assert_eq!(
        world.post(&format!("/containers/{name}/unpause")).head.status,
        204
    );
}

fn resize_refused(world: &World) {
    let name = world.script("true");
    let resize = format!("/containers/{name}/resize?h=10&w=20");
    let answer = world.post(&resize);
    assert_eq!(answer.head.status, 409, "{}", answer.text());
    assert!(answer.message().contains("is not running"), "{}", answer.text());
    world.start(&name);
    assert_eq!(world.ended(&name), 0);
    assert_eq!(world.post(&resize).head.status, 409);
    assert_eq!(world.post(&resize.replace("10", "x")).head.status, 400);
}

fn resize(world: &World) {
    let name = world.create(&json!({
        "Cmd": ["sh", "-c", "read x; stty size"], "OpenStdin": true, "StdinOnce": true, "Tty": true,
    }));
    let mut talk = world.attach(&name, "stream=1&stdin=1&stdout=1", UPGRADE);
    talk.head();
    world.start(&name);
    let answer = world.post(&format!("/containers/{name}/resize?h=11&w=33"));
    assert_eq!(answer.head.status, 200);
    talk.write(b"\n");
    let said = String::from_utf8_lossy(&talk.rest()).into_owned();
    assert!(said.contains("11 33"), "{said:?}");
}

fn exec_code(world: &World) {
    let name = world.running("sleep 100000");
    for number in 1..=10 {
        let script = format!("exit {number}");
        assert_eq!(world.output(&name, &["sh", "-c", &script]).1, number);
    }
}
