//! What other engines fell into: rows for the 45 traps that are numbered in `conformance.md`, spoken as bytes on the socket, to a real dockerd first.
//!
//! A row that dockerd fails is wrong, unless it says that the dockerd at hand is too old for it or has no network there.
#![forbid(unsafe_code)]

mod lists;
mod lives;
mod streams;
mod values;

use std::cell::Cell;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use kakoi_integration::host::{Host, binary};
use kakoi_integration::http::{Answer, Engine, Talk};
use kakoi_integration::{command, image, needs_root};
use serde_json::{Value, json};

/// The image that every row uses.
const IMAGE: &str = "traps:1";

/// Who a row is asked of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    /// Both engines.
    All,
    /// Ours alone: the dockerd at hand (20.10, without a network) does not know it yet.
    Ours,
}

/// The number of a trap, what it is, who is asked, and how it is tried; a row that fails panics.
type Row = (u8, &'static str, Of, fn(&World));

/// An engine, and names that nobody has.
struct World {
    engine: Engine,
    /// A folder of the host.
    folder: PathBuf,
    next: Cell<u32>,
}

impl World {
    fn new(engine: Engine, folder: PathBuf) -> Self {
        Self {
            engine,
            folder,
            next: Cell::new(0),
        }
    }

    /// A name that is new.
    fn name(&self) -> String {
        self.next.set(self.next.get() + 1);
        format!("trap-{}", self.next.get())
    }

    #[track_caller]
    fn get(&self, path: &str) -> Value {
        self.engine.must(200, "GET", path, None)
    }

    #[track_caller]
    fn post(&self, path: &str) -> Answer {
        self.engine.ask("POST", path, None)
    }

    /// Makes a container of these fields beside `Image`; without a network, unless they say otherwise.
    #[track_caller]
    fn create(&self, fields: &Value) -> String {
        let name = self.name();
        self.create_named(&name, fields);
        name
    }

    #[track_caller]
    fn create_named(&self, name: &str, fields: &Value) {
        let answer = self.try_create(name, fields);
        assert_eq!(answer.head.status, 201, "{}", answer.text());
    }

    fn try_create(&self, name: &str, fields: &Value) -> Answer {
        let mut body = json!({"Image": IMAGE, "HostConfig": {"NetworkMode": "none"}});
        for (key, value) in fields.as_object().expect("fields") {
            if key == "HostConfig" {
                for (key, value) in value.as_object().expect("fields") {
                    body["HostConfig"][key] = value.clone();
                }
            } else {
                body[key] = value.clone();
            }
        }
        let path = format!("/containers/create?name={name}");
        self.engine.ask("POST", &path, Some(&body))
    }

    /// Makes one that runs a script.
    #[track_caller]
    fn script(&self, script: &str) -> String {
        self.create(&json!({"Cmd": ["sh", "-c", script]}))
    }

    /// The same, running.
    #[track_caller]
    fn running(&self, script: &str) -> String {
        let name = self.script(script);
        self.start(&name);
        name
    }

    #[track_caller]
    fn start(&self, name: &str) {
        let answer = self.post(&format!("/containers/{name}/start"));
        assert_eq!(answer.head.status, 204, "{}", answer.text());
    }

    /// Waits for the end, and says the exit code.
    #[track_caller]
    fn ended(&self, name: &str) -> i64 {
        let answer = self
            .engine
            .must(200, "POST", &format!("/containers/{name}/wait"), None);
        answer["StatusCode"].as_i64().expect("a code")
    }

    #[track_caller]
    fn inspect(&self, name: &str) -> Value {
        self.get(&format!("/containers/{name}/json"))
    }

    fn remove(&self, name: &str) {
        self.engine
            .ask("DELETE", &format!("/containers/{name}?force=1&v=1"), None);
    }

    /// Pulls from something that is no registry; the error must be the answer's own, not a line in it.
    #[track_caller]
    fn refused_pull(&self, headers: &str) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let name = listener.local_addr().expect("bound").to_string();
        // It speaks, but neither TLS nor as a registry does. A dockerd in another network cannot reach it, which is as good.
        let server = std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut begun = [0; 1];
                let is_end = std::io::Read::read(&mut stream, &mut begun).is_ok_and(|_| begun == *b"E");
                if is_end || stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").is_err() {
                    break;
                }
            }
        });
        let path = format!("/images/create?fromImage={name}/a&tag=1");
        let head =
            format!("POST {path} HTTP/1.1\nHost: docker\nConnection: close\nContent-Length: 0{headers}");
        let answer = self.engine.send(&head, b"").answer(true);
        let mut stop = TcpStream::connect(&name).expect("it listens");
        stop.write_all(b"E").expect("it listens");
        server.join().expect("it does not panic");
        let text = answer.text();
        assert!(
            matches!(answer.head.status, 404 | 500),
            "{headers} {}: {text}",
            answer.head.status
        );
        assert!(!answer.message().is_empty(), "{headers}: {text}");
    }

    /// Attaches; the head of the answer is still to be read.
    #[track_caller]
    fn attach(&self, name: &str, query: &str, headers: &str) -> Talk {
        let head =
            format!("POST /containers/{name}/attach?{query} HTTP/1.1\nHost: docker\nContent-Length: 0");
        self.engine.send(&format!("{head}{headers}"), b"")
    }

    /// Makes an exec instance and says its id.
    #[track_caller]
    fn exec(&self, name: &str, body: &Value) -> String {
        let path = format!("/containers/{name}/exec");
        let made = self.engine.must(201, "POST", &path, Some(body));
        made["Id"].as_str().expect("an id").to_owned()
    }

    /// Starts an instance; the head of the answer is still to be read.
    #[track_caller]
    fn exec_start(&self, id: &str, body: &Value, headers: &str) -> Talk {
        let body = body.to_string();
        let head = format!(
            "POST /exec/{id}/start HTTP/1.1\nHost: docker\nContent-Type: application/json\nContent-Length: {}{headers}",
            body.len()
        );
        self.engine.send(&head, body.as_bytes())
    }

    /// Runs a program inside and says its standard output and exit code.
    #[track_caller]
    fn output(&self, name: &str, command: &[&str]) -> (String, i64) {
        let body = json!({"Cmd": command, "AttachStdout": true, "AttachStderr": true});
        let id = self.exec(name, &body);
        let mut talk = self.exec_start(&id, &json!({}), UPGRADE);
        talk.head();
        let (out, _) = kakoi_integration::http::unframed(&talk.rest());
        let code = self.get(&format!("/exec/{id}/json"))["ExitCode"].as_i64();
        (
            String::from_utf8_lossy(&out).into_owned(),
            code.expect("an exit code"),
        )
    }
}

/// What the stock client sends to have the connection.
const UPGRADE: &str = "\nConnection: Upgrade\nUpgrade: tcp";

fn rows() -> Vec<Row> {
    [streams::ROWS, lists::ROWS, lives::ROWS, values::ROWS].concat()
}

/// Asks all rows, and names each one that fails.
fn check(engine: Engine, folder: PathBuf, are_ours: bool) {
    let rootfs = image::busybox_layer(&binary("attacker"));
    let path = "/images/create?fromSrc=-&repo=traps&tag=1&changes=ENV%20PATH=/bin";
    let made = engine.ask_bytes("POST", path, "application/x-tar", &rootfs);
    assert_eq!(made.head.status, 200, "{}", made.text());
    let world = World::new(engine, folder);
    let asked: Vec<Row> = rows()
        .into_iter()
        .filter(|(_, _, of, _)| are_ours || *of == Of::All)
        .collect();
    let mut failed = Vec::new();
    for (trap, what, _, row) in &asked {
        if catch_unwind(AssertUnwindSafe(|| row(&world))).is_err() {
            failed.push(format!("{trap}: {what}"));
        }
        for container in world
            .get("/containers/json?all=1")
            .as_array()
            .into_iter()
            .flatten()
        {
            world.remove(container["Id"].as_str().unwrap_or_default());
        }
    }
    println!("{} rows", asked.len());
    assert!(failed.is_empty(), "{} fall in: {failed:#?}", failed.len());
}

#[test]
fn every_trap_has_a_row_or_a_test_elsewhere() {
    let document = include_str!("../../conformance.md");
    let table = document.split_once("## The 45 traps").expect("a table").1;
    let tried: Vec<u8> = rows().iter().map(|(trap, ..)| *trap).collect();
    for trap in 1..=45 {
        let line = table
            .lines()
            .find(|line| line.starts_with(&format!("| {trap} |")))
            .unwrap_or_else(|| panic!("trap {trap} is not in the table"));
        let says_here = line.contains("`traps`");
        assert_eq!(says_here, tried.contains(&trap), "the table and the rows: {line}");
        assert!(says_here || line.contains('`'), "no test: {line}");
    }
}

#[test]
fn dockerd_is_caught_by_none() {
    needs_root!();
    let host = Host::empty();
    let reference = host.file("reference.sh", include_str!("../docker_reference.sh"));
    // It says that the daemon listens, and holds it until it is let go.
    let hold = host.file("hold.sh", "echo ready; read -r _ || true\n");
    let folder = host.path("docker");
    let mut command = Command::new("unshare");
    // In namespaces of its own: Docker must not touch the machine's network, and all of it ends with the script.
    command.args([
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "bash",
    ]);
    command.args([&reference, &hold, "none"]).arg(&folder);
    let mut daemon = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare runs");
    let mut word = [0; 5];
    let said = daemon.stdout.as_mut().expect("it was piped");
    std::io::Read::read_exact(said, &mut word).expect("dockerd comes up");
    let checked = catch_unwind(AssertUnwindSafe(|| {
        check(Engine::at(folder.join("sock")), host.path(""), false)
    }));
    let mut input = daemon.stdin.take().expect("it was piped");
    input.write_all(b"\n").expect("the script waits");
    let ended = command::ended(&mut daemon, Duration::from_secs(60));
    assert_eq!(ended, Some(0), "dockerd stops");
    if let Err(panic) = checked {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn kakoi_is_caught_by_none() {
    needs_root!();
    let host = Host::empty();
    check(Engine::at(host.path("run/docker.sock")), host.path(""), true);
    host.is_clean();
}
