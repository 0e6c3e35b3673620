//! Files of containers from outside: `docker cp` both ways, export, diff and commit, also where somebody hostile has his hands in them. Numbers are those
//! of the list of traps that re-implementations of Docker's API fell into.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use base64::Engine as _;
use serde_json::{Value, json};

use crate::given::{Daemon, needs_root};

/// An answer as bytes.
pub struct Raw {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

pub fn raw(daemon: &Daemon, method: &str, path: &str, body: &[u8]) -> Raw {
    let mut stream = UnixStream::connect(daemon.path("run/docker.sock")).expect("a connection");
    let head = format!(
        "{method} /v1.47{path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("written");
    for chunk in body.chunks(5000) {
        let line = format!("{:x}\r\n", chunk.len());
        stream
            .write_all(&[line.as_bytes(), chunk, b"\r\n"].concat())
            .expect("written");
    }
    stream.write_all(b"0\r\n\r\n").expect("written");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer");
    let at = bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("a head");
    let head = String::from_utf8_lossy(&bytes[..at]).to_lowercase();
    let mut body = bytes.split_off(at + 4);
    if head.contains("transfer-encoding: chunked") {
        body = unchunked(&body);
    }
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse().ok())
        .expect("a status");
    Raw { status, head, body }
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let at = body.windows(2).position(|two| two == b"\r\n").expect("a chunk");
        let size =
            usize::from_str_radix(std::str::from_utf8(&body[..at]).expect("digits"), 16).expect("a size");
        if size == 0 {
            return whole;
        }
        whole.extend_from_slice(&body[at + 2..at + 2 + size]);
        body = &body[at + 4 + size..];
    }
}

pub fn message(raw: &Raw) -> String {
    let document: Value = serde_json::from_slice(&raw.body).unwrap_or_default();
    document["message"].as_str().unwrap_or_default().to_owned()
}

#[track_caller]
pub fn refused(raw: &Raw, status: u16, words: &str) {
    let said = message(raw);
    assert!(
        raw.status == status && said.contains(words),
        "{} {said:?}",
        raw.status
    );
}

pub enum File<'a> {
    Folder,
    Text(&'a str),
    Link(&'a str),
}

pub fn tar(files: &[(&str, File<'_>)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, file) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        match file {
            File::Folder => {
                header.set_mode(0o755);
                header.set_size(0);
                header.set_entry_type(tar::EntryType::Directory);
            }
            File::Text(text) => header.set_size(text.len() as u64),
            File::Link(target) => {
                header.set_size(0);
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_link_name_literal(target).expect("short");
            }
        }
        // As a hostile writer would, without a look at what it means.
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        let text = if let File::Text(text) = file {
            text.as_bytes()
        } else {
            b""
        };
        archive.append(&header, text).expect("memory");
    }
    archive.into_inner().expect("memory")
}

/// What is in a tar: content of files, targets of links, by name; with owners.
pub fn listed(bytes: &[u8]) -> BTreeMap<String, (String, u64)> {
    let mut archive = tar::Archive::new(bytes);
    let mut found = BTreeMap::new();
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("a whole tar");
        let name = entry.path().expect("a name").display().to_string();
        let uid = entry.header().uid().expect("a number");
        let link = entry
            .link_name()
            .expect("a name")
            .map(|link| link.display().to_string());
        let mut text = String::new();
        entry.read_to_string(&mut text).ok();
        found.insert(name, (link.unwrap_or(text), uid));
    }
    found
}

/// Makes a container as Docker's clients do: under a policy that lets it write.
pub fn create(daemon: &Daemon, name: &str, command: &[&str], host: Value) {
    let body = json!({"Image": "bb", "Cmd": command, "HostConfig": host}).to_string();
    let made = raw(
        daemon,
        "POST",
        &format!("/containers/create?name={name}"),
        body.as_bytes(),
    );
    assert_eq!(made.status, 201, "{}", message(&made));
}

fn run(daemon: &Daemon, name: &str, script: &str) {
    create(daemon, name, &["sh", "-c", script], json!({}));
    daemon.must(204, "POST", &format!("/containers/{name}/start"), None);
    daemon.must(200, "POST", &format!("/containers/{name}/wait"), None);
}

fn put(daemon: &Daemon, name: &str, path: &str, archive: &[u8]) -> Raw {
    raw(
        daemon,
        "PUT",
        &format!("/containers/{name}/archive?path={path}"),
        archive,
    )
}

fn get(daemon: &Daemon, name: &str, path: &str) -> Raw {
    raw(
        daemon,
        "GET",
        &format!("/containers/{name}/archive?path={path}"),
        b"",
    )
}

fn path_stat(daemon: &Daemon, name: &str, path: &str) -> Value {
    let mut stream = UnixStream::connect(daemon.path("run/docker.sock")).expect("a connection");
    let head = format!(
        "HEAD /containers/{name}/archive?path={path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("written");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let line = text.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("x-docker-container-path-stat")
            .then_some(value)
    });
    let Some(line) = line else {
        return json!(text.lines().next());
    };
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(line)
        .expect("base64");
    serde_json::from_slice(&bytes).expect("a document")
}

/// Traps 36 and 37: Go's mode bits; archives of content type text/plain into a container that was never started.
#[test]
fn files_go_in_and_out_whatever_the_container_does() {
    needs_root!();
    let daemon = Daemon::start();
    create(
        &daemon,
        "box",
        &["sh", "-c", "cat /srv/in/file; sleep 100000"],
        json!({}),
    );
    let archive = tar(&[
        ("in", File::Folder),
        ("in/file", File::Text("hello")),
        ("in/link", File::Link("/srv/in/file")),
    ]);
    refused(
        &put(&daemon, "box", "/srv", &archive),
        404,
        "Could not find the file /srv in container box",
    );
    assert_eq!(
        put(&daemon, "box", "/", &tar(&[("srv", File::Folder)])).status,
        200
    );
    assert_eq!(put(&daemon, "box", "/srv", &archive).status, 200);
    for phase in ["created", "running", "exited"] {
        assert_eq!(daemon.state("box")["Status"], phase);
        let got = get(&daemon, "box", "/srv/in");
        assert_eq!(got.status, 200, "{}", message(&got));
        assert!(
            got.head.contains("x-docker-container-path-stat: "),
            "{}",
            got.head
        );
        let found = listed(&got.body);
        assert_eq!(found["in/file"].0, "hello", "{found:?}");
        assert_eq!(found["in/link"].0, "/srv/in/file");
        assert_eq!(
            listed(&get(&daemon, "box", "/srv/in/.").body)["./file"].0,
            "hello"
        );
        let folder = path_stat(&daemon, "box", "/srv/in");
        assert_eq!(
            (&folder["name"], &folder["mode"]),
            (&json!("in"), &json!(1u32 << 31 | 0o755))
        );
        let link = path_stat(&daemon, "box", "/srv/in/link");
        assert_eq!(link["mode"].as_u64().expect("a number") >> 27, 1, "{link}");
        assert_eq!(link["linkTarget"], "/srv/in/file");
        assert_eq!(path_stat(&daemon, "box", "/srv/none"), "HTTP/1.1 404 Not Found");
        refused(
            &get(&daemon, "box", "/srv/none"),
            404,
            "Could not find the file /srv/none in container box",
        );
        refused(
            &put(&daemon, "box", "/srv/in/file", &archive),
            400,
            "not a directory",
        );
        refused(
            &put(&daemon, "box", "/none", &archive),
            404,
            "/none in container box",
        );
        refused(&raw(&daemon, "GET", "/containers/box/archive", b""), 400, "path");
        refused(&get(&daemon, "none", "/"), 404, "No such container: none");
        match phase {
            "created" => drop(daemon.must(204, "POST", "/containers/box/start", None)),
            "running" => {
                // What is put in while it runs is there for it.
                assert_eq!(
                    put(&daemon, "box", "/srv", &tar(&[("live", File::Text("seen"))])).status,
                    200
                );
                let exec = json!({"Cmd": ["cat", "/srv/live"], "AttachStdout": true});
                let exec = daemon.must(201, "POST", "/containers/box/exec", Some(exec));
                let path = format!("/exec/{}/start", exec["Id"].as_str().expect("an id"));
                let said = daemon.must(200, "POST", &path, Some(json!({})));
                assert!(said.as_str().expect("bytes").contains("seen"), "{said}");
                daemon.must(204, "POST", "/containers/box/stop?t=0", None);
            }
            _ => assert_eq!(listed(&get(&daemon, "box", "/srv/live").body)["live"].0, "seen"),
        }
    }
    daemon.is_clean();
}

/// Links that the container, or the archive, has lead nowhere but inside.
#[test]
fn no_name_leads_out_of_the_container() {
    needs_root!();
    let daemon = Daemon::start();
    let secret = daemon.path("secret");
    fs::write(&secret, "of the host").expect("a file");
    let secret = secret.display().to_string();
    run(
        &daemon,
        "box",
        &format!(
            "busybox mkdir /d; busybox ln -s {secret} /d/s; busybox ln -s / /d/r; busybox ln -s ../../../.. /d/up; busybox mkfifo /d/pipe"
        ),
    );
    let got = get(&daemon, "box", "/d/s");
    assert_eq!(listed(&got.body)["s"].0, secret, "the link itself");
    refused(&get(&daemon, "box", "/d/s/"), 404, "Could not find");
    refused(
        &get(&daemon, "box", &format!("/d/r{secret}")),
        404,
        "Could not find",
    );
    refused(
        &get(&daemon, "box", &format!("/d/up{secret}")),
        404,
        "Could not find",
    );
    refused(
        &get(&daemon, "box", &format!("../../..{secret}")),
        404,
        "Could not find",
    );
    assert!(listed(&get(&daemon, "box", "/d/up/bin/sh").body).contains_key("sh"));
    // A pipe is archived as one, and nobody waits for its writer.
    assert!(listed(&get(&daemon, "box", "/d").body).contains_key("d/pipe"));
    let folder = daemon.folder.path().display().to_string();
    for bad in [
        tar(&[("../../x", File::Text("x"))]),
        tar(&[("l", File::Link(&folder)), ("l/x", File::Text("x"))]),
        tar(&[("r/nowhere/../../../../x", File::Text("x"))]),
    ] {
        let answer = put(&daemon, "box", "/d", &bad);
        assert_eq!(answer.status, 400, "{}", message(&answer));
    }
    assert!(!daemon.path("x").exists());
    refused(&put(&daemon, "box", "/d", b"this is no tar"), 400, "archive");
    refused(
        &put(&daemon, "box", "/d", &tar(&[("a", File::Text("x"))])[..700]),
        400,
        "",
    );
    let keeps = "/containers/box/archive?noOverwriteDirNonDir=1&path=";
    refused(
        &raw(
            &daemon,
            "PUT",
            &format!("{keeps}/"),
            &tar(&[("d", File::Text("x"))]),
        ),
        400,
        "cannot overwrite directory",
    );
    refused(
        &raw(
            &daemon,
            "PUT",
            &format!("{keeps}/d"),
            &tar(&[("s", File::Folder)]),
        ),
        400,
        "cannot overwrite non-directory",
    );
    assert_eq!(fs::read_to_string(&secret).expect("it is there"), "of the host");
    daemon.is_clean();
}

#[test]
fn volumes_and_read_only_roots_are_as_the_container_has_them() {
    needs_root!();
    let daemon = Daemon::start();
    let host =
        json!({"Binds": ["data:/data", "kept:/kept:ro"], "ReadonlyRootfs": true, "Tmpfs": {"/tmp": ""}});
    create(&daemon, "box", &["sleep", "100000"], host);
    for phase in ["created", "running"] {
        let archive = tar(&[("file", File::Text("x"))]);
        refused(
            &put(&daemon, "box", "/", &archive),
            403,
            "container rootfs is marked read-only",
        );
        refused(
            &put(&daemon, "box", "/kept", &archive),
            403,
            "mounted volume is marked read-only",
        );
        let answer = put(&daemon, "box", "/data", &archive);
        assert_eq!(answer.status, 200, "{}", message(&answer));
        assert_eq!(listed(&get(&daemon, "box", "/data/file").body)["file"].0, "x");
        assert!(
            listed(&get(&daemon, "box", "/etc/hosts").body)["hosts"]
                .0
                .contains("localhost")
        );
        if phase == "created" {
            daemon.must(204, "POST", "/containers/box/start", None);
        }
    }
    assert_eq!(
        fs::read_to_string(daemon.path("root/volumes/data/_data/file")).expect("it is there"),
        "x"
    );
    // What the kernel provides is not the container's.
    assert!(!listed(&get(&daemon, "box", "/proc").body).contains_key("proc/self"));
    let export = raw(&daemon, "GET", "/containers/box/export", b"");
    let export = listed(&export.body);
    assert!(
        export.contains_key("bin/busybox") && !export.contains_key("data/file"),
        "without volumes"
    );
    daemon.must(204, "DELETE", "/containers/box?force=1", None);
    daemon.must(204, "DELETE", "/volumes/data", None);
    daemon.must(204, "DELETE", "/volumes/kept", None);
    daemon.is_clean();
}

#[test]
fn owners_are_those_inside() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.create(
        "box",
        &["sh", "-c", "sleep 100000"],
        json!({"UsernsMode": "auto"}),
    );
    for phase in ["created", "running", "exited"] {
        let answer = put(&daemon, "box", "/", &tar(&[("given", File::Text("x"))]));
        assert_eq!(answer.status, 200, "{phase}: {}", message(&answer));
        let got = get(&daemon, "box", "/given");
        assert_eq!(got.status, 200, "{phase}: {}\n{}", message(&got), daemon.log());
        let found = listed(&got.body);
        assert_eq!(found["given"], ("x".to_owned(), 0), "{phase}");
        match phase {
            "created" => daemon.must(204, "POST", "/containers/box/start", None),
            _ => daemon.must(204, "POST", "/containers/box/restart?t=0", None),
        };
        if phase == "running" {
            daemon.must(204, "POST", "/containers/box/stop?t=0", None);
        }
    }
    let host = json!({"UsernsMode": "auto"});
    create(&daemon, "writer", &["sh", "-c", "echo x >/mine"], host);
    daemon.must(204, "POST", "/containers/writer/start", None);
    daemon.must(200, "POST", "/containers/writer/wait", None);
    assert_eq!(
        listed(&get(&daemon, "writer", "/mine").body)["mine"],
        ("x\n".to_owned(), 0)
    );
    let changes = daemon.must(200, "GET", "/containers/writer/changes", None);
    assert_eq!(changes, json!([{"Kind": 1, "Path": "/mine"}]));
    daemon.is_clean();
}

#[test]
fn changes_are_listed_and_become_an_image() {
    needs_root!();
    let daemon = Daemon::start();
    create(&daemon, "still", &["true"], json!({}));
    daemon.must(200, "GET", "/containers/still/changes", None);
    run(&daemon, "idle", "true");
    assert_eq!(
        daemon.must(200, "GET", "/containers/idle/changes", None),
        Value::Null
    );
    run(
        &daemon,
        "box",
        "busybox mkdir /new; echo 1 >/new/file; busybox rm /bin/cat; echo x >>/bin/echo",
    );
    let changes = daemon.must(200, "GET", "/containers/box/changes", None);
    let rows: Vec<(String, u64)> = changes
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| {
            (
                row["Path"].as_str().expect("text").to_owned(),
                row["Kind"].as_u64().expect("a number"),
            )
        })
        .collect();
    for wanted in [("/bin", 0), ("/bin/cat", 2), ("/new", 1), ("/new/file", 1)] {
        assert!(rows.contains(&(wanted.0.to_owned(), wanted.1)), "{rows:?}");
    }
    assert!(
        !rows
            .iter()
            .any(|(path, _)| path.starts_with("/proc") || path.starts_with("/etc")),
        "{rows:?}"
    );
    let query = "container=box&repo=made&tag=1&author=me&comment=why&changes=CMD%20%5B%22cat%22%5D&changes=ENV%20A%3Db";
    let made = daemon.must(
        201,
        "POST",
        &format!("/commit?{query}"),
        Some(json!({"Labels": {"from": "body"}})),
    );
    let image = daemon.must(200, "GET", "/images/made:1/json", None);
    assert_eq!(image["Id"], made["Id"]);
    assert_eq!(
        (&image["Author"], &image["Comment"]),
        (&json!("me"), &json!("why"))
    );
    assert_eq!(image["RootFS"]["Layers"].as_array().expect("a list").len(), 2);
    assert_eq!(image["Config"]["Cmd"], json!(["cat"]));
    assert_eq!(image["Config"]["Labels"]["from"], "body");
    let env = image["Config"]["Env"].as_array().expect("a list");
    assert!(env.contains(&json!("A=b")), "{env:?}");
    let body =
        json!({"Image": "made:1", "Cmd": ["sh", "-c", "echo $A; busybox cat /new/file; test ! -e /bin/cat"]});
    daemon.must(201, "POST", "/containers/create?name=again", Some(body));
    daemon.must(204, "POST", "/containers/again/start", None);
    assert_eq!(
        daemon.must(200, "POST", "/containers/again/wait", None)["StatusCode"],
        0
    );
    let log = daemon.must(200, "GET", "/containers/again/logs?stdout=1", None);
    assert!(log.as_str().expect("bytes").contains("b\n"), "{log}");
    for bad in [
        "container=none",
        "repo=x",
        "container=box&changes=RUN%20true",
        "container=box&repo=Not%20A%20Name",
    ] {
        let (status, answer) = daemon
            .ask("POST", &format!("/commit?{bad}"), None)
            .expect("an answer");
        assert!(status == 400 || status == 404, "{bad}: {status} {answer}");
    }
    // A container that runs is paused for it, and runs on after it.
    create(&daemon, "live", &["sleep", "100000"], json!({}));
    daemon.must(204, "POST", "/containers/live/start", None);
    daemon.must(201, "POST", "/commit?container=live", None);
    assert_eq!(daemon.state("live")["Status"], "running");
    daemon.is_clean();
}

/// Trap 11: a client that leaves in the middle leaves nothing.
#[test]
fn a_client_that_leaves_ends_its_copy() {
    needs_root!();
    let daemon = Daemon::start();
    create(&daemon, "box", &["sleep", "100000"], json!({}));
    for _ in 0..12 {
        let mut stream = UnixStream::connect(daemon.path("run/docker.sock")).expect("a connection");
        let head = "PUT /containers/box/archive?path=/ HTTP/1.1\r\nHost: d\r\nContent-Length: 100000\r\n\r\n";
        stream.write_all(head.as_bytes()).expect("written");
        stream
            .write_all(&tar(&[("a", File::Text("x"))])[..600])
            .expect("written");
    }
    for _ in 0..12 {
        let mut stream = UnixStream::connect(daemon.path("run/docker.sock")).expect("a connection");
        let head = "GET /containers/box/export HTTP/1.1\r\nHost: d\r\n\r\n";
        stream.write_all(head.as_bytes()).expect("written");
    }
    // The turn of the container is free again.
    daemon.must(204, "POST", "/containers/box/start", None);
    daemon.is_clean();
}

/// What is not there is refused in dockerd's words, and search says what to do instead.
#[test]
fn what_is_not_there_says_so() {
    needs_root!();
    let daemon = Daemon::start();
    create(&daemon, "box", &["true"], json!({}));
    for (method, path, status, words) in [
        ("GET", "/images/search?term=x", 501, "pull an image by its name"),
        ("GET", "/containers/box/checkpoints", 501, "experimental"),
        ("POST", "/containers/box/checkpoints", 501, "experimental"),
        ("POST", "/build", 501, "build elsewhere"),
        ("POST", "/session", 404, "page not found"),
        ("POST", "/grpc", 404, "page not found"),
        ("GET", "/nodes", 503, "This node is not a swarm manager"),
        ("GET", "/containers/json?filters=%7B", 400, "invalid filters"),
        (
            "POST",
            "/containers/prune?filters=%7B%22nonsense%22%3A%5B%221%22%5D%7D",
            400,
            "invalid filter",
        ),
        (
            "GET",
            "/containers/box/archive?path=%zz",
            400,
            "invalid URL escape",
        ),
        ("PUT", "/containers/box/archive?path=%00", 400, ""),
    ] {
        refused(&raw(&daemon, method, path, b""), status, words);
    }
    assert_eq!(raw(&daemon, "GET", "/plugins", b"").body, b"[]\n");
    // A broken filter has pruned nothing.
    assert_eq!(daemon.state("box")["Status"], "created");
    daemon.is_clean();
}
