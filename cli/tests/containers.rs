//! Commands about containers against a fake daemon: what is asked in which order, what is printed, how it ends.

mod fake;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use fake::{CHUNKED, Fake, Request, UPGRADE, answer, chunk, frame, kakoi, ran};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const ID: &str = "aaaaaaaaaaaabbbbbbbbbbbbccccccccccccddddddddddddeeeeeeeeeeeeffff";

fn path(action: &str) -> String {
    format!("POST /containers/{ID}/{action}")
}

/// A daemon that makes a container and says how it ends.
fn daemon(output: Vec<u8>, code: i64) -> Fake {
    let fake = Fake::start();
    fake.json(
        "POST /containers/create",
        201,
        &format!("{{\"Id\":\"{ID}\",\"Warnings\":[\"mind the gap\"]}}"),
    );
    fake.json(&path("start"), 204, "");
    fake.on(&path("attach"), move |_, stream| {
        stream.write_all(UPGRADE).expect("written");
        stream.write_all(&output).expect("written");
        stream.shutdown(std::net::Shutdown::Both).expect("shut down");
    });
    waits(&fake, code);
    fake
}

/// Answers wait with its headers at once and its body after the start, as an engine does.
fn waits(fake: &Fake, code: i64) {
    fake.on(&path("wait"), move |_, stream| {
        stream.write_all(CHUNKED).expect("written");
        stream
            .write_all(&chunk(format!("{{\"StatusCode\":{code}}}\n").as_bytes()))
            .expect("written");
        stream.write_all(&chunk(b"")).expect("written");
    });
}

#[test]
fn run_asks_in_docker_s_order_and_ends_as_the_app_ends() {
    let mut output = frame(1, b"out\n");
    output.extend(frame(2, b"err\n"));
    output.extend(frame(1, b"last"));
    let fake = daemon(output, 7);
    let ran = fake.run(&["run", "--rm", "-e", "A=1", "alpine", "sh", "-c", "x"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (7, "out\nlast"));
    assert_eq!(ran.stderr, "Warning: mind the gap\nerr\n");
    assert_eq!(
        fake.lines(),
        [
            "POST /containers/create".to_owned(),
            format!("POST /containers/{ID}/attach?stream=1&stdout=1&stderr=1"),
            format!("POST /containers/{ID}/wait?condition=removed"),
            format!("POST /containers/{ID}/start"),
        ]
    );
    let body: serde_json::Value =
        serde_json::from_slice(&fake.wait_for("POST /containers/create").body).expect("JSON");
    assert_eq!(body["Cmd"], serde_json::json!(["sh", "-c", "x"]));
    assert_eq!(body["Env"], serde_json::json!(["A=1"]));
    assert_eq!(body["HostConfig"]["AutoRemove"], true);
}

#[test]
fn run_detached_prints_the_id_and_asks_twice() {
    let fake = daemon(Vec::new(), 0);
    let ran = fake.run(&["run", "-d", "--name", "a b", "alpine"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (0, format!("{ID}\n").as_str()));
    assert_eq!(
        fake.lines(),
        [
            "POST /containers/create?name=a%20b".to_owned(),
            format!("POST /containers/{ID}/start")
        ]
    );
}

#[test]
fn a_large_output_arrives_whole() {
    let mut output = Vec::new();
    for _ in 0..256 {
        output.extend(frame(1, &[b'x'; 65_536]));
    }
    let ran = daemon(output, 0).run(&["run", "alpine"]);
    assert_eq!((ran.status, ran.stdout.len()), (0, 256 * 65_536));
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let fake = daemon(frame(1, &[b'x'; 1 << 20]).repeat(8), 0);
    let mut child = fake.spawn(&["run", "alpine"]);
    drop(child.stdout.take());
    let ran = ran(child.wait_with_output().expect("it ends"));
    assert_eq!(
        (ran.status, ran.stderr.as_str()),
        (141, "Warning: mind the gap\n")
    );
}

#[test]
fn standard_input_is_passed_and_half_closed() {
    let fake = daemon(Vec::new(), 0);
    // Answers only after the end of input: a client that closed both directions would lose the answer.
    fake.on(&path("attach"), |_, stream| {
        stream.write_all(UPGRADE).expect("written");
        let mut input = String::new();
        stream.read_to_string(&mut input).expect("read");
        stream
            .write_all(&frame(1, input.to_uppercase().as_bytes()))
            .expect("written");
        stream.shutdown(std::net::Shutdown::Both).expect("shut down");
    });
    let mut child = fake.spawn(&["run", "-i", "alpine", "cat"]);
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(b"hello")
        .expect("written");
    let ran = ran(child.wait_with_output().expect("it ends"));
    assert_eq!((ran.status, ran.stdout.as_str()), (0, "HELLO"));
}

#[test]
fn signals_reach_the_container_once_it_runs() {
    let fake = daemon(Vec::new(), 143);
    let (sender, receiver) = std::sync::mpsc::channel::<UnixStream>();
    let sender = std::sync::Mutex::new(sender);
    fake.on(&path("attach"), move |_, stream| {
        stream.write_all(UPGRADE).expect("written");
        sender
            .lock()
            .expect("not poisoned")
            .send(stream.try_clone().expect("cloned"))
            .expect("sent");
    });
    fake.json(&path("kill"), 204, "");
    let mut child = fake.spawn(&["run", "alpine"]);
    drop(child.stdin.take());
    fake.wait_for(&path("start"));
    kill(
        Pid::from_raw(i32::try_from(child.id()).expect("a pid")),
        Signal::SIGTERM,
    )
    .expect("sent");
    let request = fake.wait_for(&path("kill"));
    assert!(request.line.ends_with("kill?signal=SIGTERM"), "{}", request.line);
    let stream = receiver.recv().expect("attached");
    stream.shutdown(std::net::Shutdown::Both).expect("shut down");
    assert_eq!(ran(child.wait_with_output().expect("it ends")).status, 143);
}

#[test]
fn a_program_that_does_not_start_has_its_own_status() {
    for (kind, status) in [
        ("command_not_found", 127),
        ("command_not_executable", 126),
        ("runtime", 125),
    ] {
        let fake = daemon(Vec::new(), 0);
        let body = format!("{{\"message\":\"cannot start nope\",\"kind\":\"{kind}\"}}");
        fake.json(&path("start"), 400, &body);
        // The attached stream must not end the command before the start's answer.
        fake.on(&path("attach"), |_, stream| {
            stream.write_all(UPGRADE).expect("written")
        });
        let ran = fake.run(&["run", "alpine", "nope"]);
        assert_eq!((ran.status, ran.stdout.as_str()), (status, ""));
        assert!(
            ran.stderr.ends_with("Error: cannot start nope\n"),
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn refusals_are_printed_over_their_lines() {
    let fake = Fake::start();
    fake.json(
        "POST /containers/create",
        403,
        r#"{"message":"policy `a` asks for too much\n- asked: x\u001b[31m\n+ allowed: y"}"#,
    );
    let ran = fake.run(&["run", "alpine"]);
    assert_eq!(ran.status, 125);
    assert_eq!(
        ran.stderr,
        "Error: policy `a` asks for too much\n  - asked: x\u{fffd}[31m\n  + allowed: y\n"
    );
}

#[test]
fn broken_answers_are_errors_and_no_panics() {
    let cases: [(&str, &[u8], &str); 7] = [
        ("not HTTP", b"hello\r\n\r\n", "talking to the daemon"),
        ("nothing", b"", "talking to the daemon"),
        (
            "not JSON",
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{x}",
            "understanding the daemon's answer",
        ),
        (
            "cut short",
            b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n[]",
            "reading the daemon's answer",
        ),
        (
            "no reason",
            b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n",
            "without a reason",
        ),
        (
            "odd reason",
            b"HTTP/1.1 500 X\r\nContent-Length: 12\r\n\r\n{\"message\":1",
            "without a reason",
        ),
        (
            "null",
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull",
            "CONTAINER ID",
        ),
    ];
    for (name, bytes, words) in cases {
        let fake = Fake::start();
        fake.on(
            "GET /containers/json",
            move |_: &Request, stream: &mut UnixStream| {
                stream.write_all(bytes).expect("written");
                stream.shutdown(std::net::Shutdown::Both).expect("shut down");
            },
        );
        let ran = fake.run(&["ps"]);
        assert!(
            format!("{}{}", ran.stdout, ran.stderr).contains(words),
            "{name}: {ran:?}"
        );
        assert_eq!(ran.status, if name == "null" { 0 } else { 125 }, "{name}");
    }
}

#[test]
fn an_endless_answer_is_cut() {
    let fake = Fake::start();
    fake.on("GET /containers/json", |_, stream| {
        let piece = chunk(&[b' '; 1 << 16]);
        if stream.write_all(CHUNKED).is_ok() {
            while stream.write_all(&piece).is_ok() {}
        }
    });
    let ran = fake.run(&["ps"]);
    assert_eq!(ran.status, 125);
    assert!(ran.stderr.contains("67108864 bytes at most"), "{}", ran.stderr);
}

#[test]
fn a_daemon_that_leaves_during_run_is_told() {
    let fake = daemon(Vec::new(), 0);
    fake.on(&path("wait"), |_, stream| {
        stream.write_all(CHUNKED).expect("written");
        stream.shutdown(std::net::Shutdown::Both).expect("shut down");
    });
    let ran = fake.run(&["run", "alpine"]);
    assert_eq!(ran.status, 125);
    assert!(
        ran.stderr
            .contains("the daemon went away while the container ran"),
        "{}",
        ran.stderr
    );
}

#[test]
fn output_that_is_not_framed_is_refused() {
    let ran = daemon(b"hello, this is no frame".to_vec(), 0).run(&["run", "alpine"]);
    assert_eq!(ran.status, 125);
    assert!(ran.stderr.contains("not framed"), "{}", ran.stderr);
}

#[test]
fn lists_are_tables_json_and_templates() {
    let fake = Fake::start();
    fake.json(
        "GET /containers/json",
        200,
        &format!(
            "[{{\"Id\":\"{ID}\",\"Names\":[\"/web\"],\"Image\":\"nginx\",\"Command\":\"nginx -g daemon off; and more\",\
             \"Created\":1,\"State\":\"running\",\"Status\":\"Up 2 hours\",\"Policy\":\"strict\",\"Labels\":{{\"a\":\"b\"}}}}]"
        ),
    );
    let ran = fake.run(&["ps", "--filter", "status=running", "--filter", "label=a=b"]);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>().join(" "),
        "CONTAINER ID IMAGE COMMAND CREATED STATUS POLICY PORTS NAMES"
    );
    assert!(
        lines[1].starts_with("aaaaaaaaaaaa   nginx   \"nginx -g daemon off…\"   "),
        "{}",
        lines[1]
    );
    assert!(
        lines[1].ends_with("ago   Up 2 hours   strict           web"),
        "{}",
        lines[1]
    );
    assert!(
        fake.lines()[0]
            .contains("filters=%7B%22status%22%3A%5B%22running%22%5D%2C%22label%22%3A%5B%22a%3Db%22%5D%7D")
    );
    assert_eq!(fake.run(&["ps", "-q"]).stdout, "aaaaaaaaaaaa\n");
    assert_eq!(fake.run(&["ps", "-q", "--no-trunc"]).stdout, format!("{ID}\n"));
    assert_eq!(
        fake.run(&["ps", "--format", "{{.Names}}: {{.Labels}}"]).stdout,
        "web: a=b\n"
    );
    assert_eq!(
        fake.run(&[
            "ps",
            "--format",
            "table {{.Names}}\\t{{.RunningFor}}",
            "--noheading"
        ])
        .stdout
        .lines()
        .count(),
        1
    );
    assert!(
        fake.run(&["ps", "--format", "json"])
            .stdout
            .contains("\"Names\": [")
    );
    let wrong = fake.run(&["ps", "--format", "{{.Nope}}"]);
    assert_eq!((wrong.status, wrong.stdout.as_str()), (125, ""));
    assert!(
        wrong
            .stderr
            .contains("there is no field \"Nope\": there are ID, Names"),
        "{}",
        wrong.stderr
    );
}

#[test]
fn several_are_tried_and_each_failure_is_told() {
    let fake = Fake::start();
    fake.json("POST /containers/a/stop", 204, "")
        .json("POST /containers/c/stop", 304, "");
    fake.json(
        "POST /containers/b/stop",
        404,
        r#"{"message":"No such container: b"}"#,
    );
    let ran = fake.run(&["stop", "-t", "3", "a", "b", "c"]);
    assert_eq!(
        (ran.status, ran.stdout.as_str(), ran.stderr.as_str()),
        (125, "a\nc\n", "Error: No such container: b\n")
    );
    assert!(fake.lines().iter().all(|line| line.ends_with("?t=3")));
    let ignoring = fake.run(&["stop", "--ignore", "b"]);
    assert_eq!((ignoring.status, ignoring.stderr.as_str()), (0, ""));
}

#[test]
fn removal_has_podman_s_statuses() {
    let fake = Fake::start();
    fake.json("DELETE /containers/a", 409, r#"{"message":"it runs"}"#);
    assert_eq!(fake.run(&["rm", "a"]).status, 2);
    assert_eq!(fake.run(&["rm", "missing"]).status, 1);
    assert_eq!(fake.run(&["rm", "-f", "missing"]).status, 0);
    assert_eq!(fake.run(&["container", "exists", "missing"]).status, 1);
    assert_eq!(fake.run(&["stop"]).status, 125);
    assert_eq!(fake.run(&["stop", "--all", "a"]).status, 125);
}

#[test]
fn exec_gives_the_program_s_exit_code() {
    let fake = Fake::start();
    fake.json("POST /containers/web/exec", 201, r#"{"Id":"e1"}"#);
    fake.on("POST /exec/e1/start", |_, stream| {
        stream.write_all(UPGRADE).expect("written");
        stream.write_all(&frame(2, b"oops\n")).expect("written");
        stream.shutdown(std::net::Shutdown::Both).expect("shut down");
    });
    fake.json(
        "GET /exec/e1/json",
        200,
        r#"{"ID":"e1","Running":false,"ExitCode":3}"#,
    );
    let ran = fake.run(&["exec", "-e", "A=1", "-w", "/x", "web", "ls", "-l"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (3, "oops\n"));
    let body: serde_json::Value =
        serde_json::from_slice(&fake.wait_for("POST /containers/web/exec").body).expect("JSON");
    assert_eq!(body["Cmd"], serde_json::json!(["ls", "-l"]));
    assert_eq!(body["WorkingDir"], "/x");
    let nothing = fake.run(&["exec", "web"]);
    assert_eq!(nothing.status, 125);
    assert!(nothing.stderr.contains("name the program to run"));
}

#[test]
fn logs_are_split_by_stream() {
    let fake = Fake::start();
    fake.on("GET /containers/web/logs", |_, stream| {
        let mut body = frame(1, b"out\n");
        body.extend(frame(2, b"err\n"));
        stream
            .write_all(&answer(200, "application/vnd.docker.multiplexed-stream", &body))
            .expect("written");
    });
    fake.on("GET /containers/tty/logs", |_, stream| {
        stream
            .write_all(&answer(200, "application/vnd.docker.raw-stream", b"raw\r\n"))
            .expect("written");
    });
    let ran = fake.run(&["logs", "--tail", "5", "-t", "web"]);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
    assert!(
        fake.lines()[0].ends_with("?stdout=1&stderr=1&tail=5&timestamps=1"),
        "{:?}",
        fake.lines()
    );
    assert_eq!(fake.run(&["logs", "tty"]).stdout, "raw\r\n");
    assert_eq!(fake.run(&["logs", "--tail", "x", "web"]).status, 125);
    assert_eq!(fake.run(&["logs", "--since", "yesterday", "web"]).status, 125);
}

#[test]
fn inspect_looks_everywhere_and_applies_templates() {
    let fake = Fake::start();
    fake.json(
        "GET /containers/web/json",
        200,
        r#"{"Id":"1","State":{"Status":"running"},"Config":{"Env":["A=1"]}}"#,
    );
    fake.json("GET /volumes/data", 200, r#"{"Name":"data"}"#);
    assert_eq!(
        fake.run(&[
            "inspect",
            "-f",
            "{{.State.Status}}{{range .Config.Env}} {{.}}{{end}}",
            "web"
        ])
        .stdout,
        "running A=1\n"
    );
    assert!(
        fake.run(&["inspect", "data"])
            .stdout
            .contains("\"Name\": \"data\"")
    );
    let missing = fake.run(&["inspect", "nope"]);
    assert_eq!((missing.status, missing.stdout.as_str()), (125, "[]\n"));
    assert_eq!(
        missing.stderr,
        "Error: no such container, image, network or volume: nope\n"
    );
    assert_eq!(fake.run(&["inspect", "-f", "{{.State", "web"]).status, 125);
}

#[test]
fn a_cidfile_is_written_once() {
    let fake = daemon(Vec::new(), 0);
    let file = fake.file("cid");
    let name = file.display().to_string();
    assert_eq!(fake.run(&["create", "--cidfile", &name, "alpine"]).status, 0);
    assert_eq!(std::fs::read_to_string(&file).expect("written"), ID);
    let again = fake.run(&["create", "--cidfile", &name, "alpine"]);
    assert_eq!(again.status, 125);
    assert!(again.stderr.contains("exists"), "{}", again.stderr);
    fake.json("POST /containers/create", 500, r#"{"message":"no"}"#);
    let other = fake.file("other");
    assert_eq!(
        fake.run(&["create", "--cidfile", &other.display().to_string(), "alpine"])
            .status,
        125
    );
    assert!(!other.exists());
}

#[test]
fn nothing_is_asked_where_flags_are_wrong() {
    let fake = daemon(Vec::new(), 0);
    for words in [
        &["run"][..],
        &["run", "--memory", "x", "alpine"],
        &["run", "--env-file", "/dev/zero", "alpine"],
        &["run", "--detach-keys", "ctrl-", "alpine"],
        &["run", "-p", "80:x", "alpine"],
        &["run", "--nope", "alpine"],
        &["exec", "--env-file", "/nonexistent", "web", "x"],
        &["kill"],
        &["update", "--memory", "lots", "web"],
        &["nope"],
        &[],
    ] {
        let ran = fake.run(words);
        assert_eq!(ran.status, 125, "{words:?}");
        assert_eq!(ran.stdout, "", "{words:?}");
        assert!(!ran.stderr.is_empty(), "{words:?}");
    }
    assert_eq!(fake.lines(), Vec::<String>::new());
}

#[test]
fn without_a_daemon_there_is_one_line_of_advice() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("none.sock");
    let host = format!("unix://{}", socket.display());
    let ran = ran(kakoi(&["--host", &host, "ps"]).output().expect("it runs"));
    assert_eq!(ran.status, 125);
    assert_eq!(
        ran.stderr,
        format!(
            "Error: no daemon is listening on {}: start kakoid there, or correct --host or KAKOI_HOST\n",
            socket.display()
        )
    );
    for wrong in ["tcp://1.2.3.4:1", "relative", "unix://relative"] {
        let ran = fake::ran(kakoi(&["--host", wrong, "ps"]).output().expect("it runs"));
        assert_eq!(ran.status, 125, "{wrong}");
        assert!(ran.stderr.contains("is not a socket"), "{}", ran.stderr);
    }
}
