//! Commands about registries against a fake daemon.

mod fake;

use std::io::Write as _;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use fake::{CHUNKED, Fake, answer, chunk, ran};

/// What a daemon says while it pulls.
const LINES: &str = concat!(
    "{\"status\":\"Pulling from library/alpine\",\"id\":\"3\"}\n",
    "{\"status\":\"Pulling fs layer\",\"id\":\"0123456789ab\"}\n",
    "{\"status\":\"Downloading\",\"id\":\"0123456789ab\",\"progressDetail\":{\"current\":5,\"total\":10}}\n",
    "{\"status\":\"Pull complete\",\"id\":\"0123456789ab\"}\n",
    "{\"status\":\"Status: Downloaded\\u001b[31m\",\"aux\":{\"ID\":\"sha256:abc\",\"Name\":\"r.example/alpine:3\"}}\n"
);

fn pulls(fake: &Fake) {
    fake.on("POST /images/create", |_, stream| {
        stream.write_all(CHUNKED).expect("written");
        stream.write_all(&chunk(LINES.as_bytes())).expect("written");
        stream.write_all(&chunk(b"")).expect("written");
    });
}

#[test]
fn pull_prints_the_id_and_tells_each_layer() {
    let fake = Fake::start();
    pulls(&fake);
    let pulled = fake.run(&["pull", "--platform", "arm64", "alpine:3"]);
    assert_eq!((pulled.status, pulled.stdout.as_str()), (0, "sha256:abc\n"));
    assert!(
        pulled.stderr.contains("0123456789ab: Pull complete\n"),
        "{}",
        pulled.stderr
    );
    assert!(!pulled.stderr.contains('\u{1b}') && !pulled.stderr.contains("Downloading"));
    let quiet = fake.run(&["pull", "-q", "r:5000/a@sha256:ff"]);
    assert_eq!(
        (quiet.stdout.as_str(), quiet.stderr.as_str()),
        ("sha256:abc\n", "")
    );
    assert_eq!(
        fake.lines(),
        [
            "POST /images/create?fromImage=alpine&tag=3&platform=arm64",
            "POST /images/create?fromImage=r%3A5000%2Fa&tag=sha256%3Aff",
        ]
    );
}

#[test]
fn what_a_registry_refuses_is_said_once() {
    let fake = Fake::start();
    let said = br#"{"message":"manifest alpine:9 is not in docker.io (manifest unknown)"}"#;
    fake.on("POST /images/create", |_, stream| {
        stream
            .write_all(&answer(404, "application/json", said))
            .expect("written");
    });
    let pulled = fake.run(&["pull", "alpine:9"]);
    assert_eq!(pulled.status, 125);
    assert_eq!(
        pulled.stderr,
        "Error: manifest alpine:9 is not in docker.io (manifest unknown)\n"
    );
}

#[test]
fn create_fetches_a_missing_image_and_uses_the_name_it_was_found_by() {
    let fake = Fake::start();
    pulls(&fake);
    let asked = AtomicU32::new(0);
    fake.on("POST /containers/create", move |_, stream| {
        let reply = match asked.fetch_add(1, Ordering::SeqCst) {
            0 => answer(
                404,
                "application/json",
                b"{\"message\":\"No such image: alpine:3\"}",
            ),
            _ => answer(201, "application/json", b"{\"Id\":\"c1\",\"Warnings\":[]}"),
        };
        stream.write_all(&reply).expect("written");
    });
    let never = fake.run(&["create", "--pull", "never", "alpine:3"]);
    assert!(
        never.status == 125 && never.stderr.contains("No such image"),
        "{}",
        never.stderr
    );
    assert_eq!(fake.lines(), ["POST /containers/create"]);

    let fake = Fake::start();
    pulls(&fake);
    let asked = AtomicU32::new(0);
    fake.on("POST /containers/create", move |request, stream| {
        let found = String::from_utf8_lossy(&request.body).contains("\"Image\":\"r.example/alpine:3\"");
        let reply = match asked.fetch_add(1, Ordering::SeqCst) > 0 && found {
            false => answer(
                404,
                "application/json",
                b"{\"message\":\"No such image: alpine:3\"}",
            ),
            true => answer(201, "application/json", b"{\"Id\":\"c1\",\"Warnings\":[]}"),
        };
        stream.write_all(&reply).expect("written");
    });
    let made = fake.run(&["create", "alpine:3"]);
    assert_eq!(
        (made.status, made.stdout.as_str()),
        (0, "c1\n"),
        "{}",
        made.stderr
    );
    assert_eq!(fake.lines().len(), 3);
}

#[test]
fn login_keeps_what_the_registry_took_and_nothing_else() {
    let fake = Fake::start();
    fake.on("POST /auth", |request, stream| {
        let good = String::from_utf8_lossy(&request.body).contains("\"secret\"");
        let reply = match good {
            true => answer(
                200,
                "application/json",
                b"{\"Status\":\"Login Succeeded\",\"IdentityToken\":\"\"}",
            ),
            false => answer(401, "application/json", b"{\"message\":\"wrong\"}"),
        };
        stream.write_all(&reply).expect("written");
    });
    let authfile = fake.file("auth.json");
    let login = |password: &[u8]| {
        let mut command = fake.kakoi(&["login", "-u", "user", "--password-stdin", "r.example"]);
        command.env("REGISTRY_AUTH_FILE", &authfile);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        child
            .stdin
            .take()
            .expect("a pipe")
            .write_all(password)
            .expect("written");
        ran(child.wait_with_output().expect("it ends"))
    };
    assert_eq!(login(b"guess").status, 125);
    assert!(!authfile.exists());
    assert_eq!(login(b"secret\n").stdout, "Login Succeeded!\n");
    let kept = std::fs::read_to_string(&authfile).expect("kept");
    assert!(
        kept.contains("r.example") && kept.contains("dXNlcjpzZWNyZXQ="),
        "{kept}"
    );
    let name = authfile.display().to_string();
    let out = fake.run(&["logout", "--authfile", &name, "r.example"]);
    assert_eq!(out.stdout, "Removed login credentials for r.example\n");
    let again = fake.run(&["logout", "--authfile", &name, "r.example"]);
    assert_eq!(
        (again.status, again.stderr.as_str()),
        (125, "Error: not logged in to r.example\n")
    );
}
