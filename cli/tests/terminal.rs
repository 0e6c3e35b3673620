//! A person's terminal: raw while the container has it, as it was found afterwards, on every way out.

mod fake;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::sync::{Mutex, mpsc};

use fake::{CHUNKED, Fake, UPGRADE, chunk};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};
use nix::unistd::Pid;

const SIZE: Winsize = Winsize {
    ws_row: 33,
    ws_col: 99,
    ws_xpixel: 0,
    ws_ypixel: 0,
};

/// A program on a terminal, and the container's end of its session.
struct Person {
    fake: Fake,
    child: Child,
    master: File,
    slave: OwnedFd,
    found: Termios,
    container: UnixStream,
}

impl Person {
    /// Starts `run -it` and waits until the container has the terminal; it ends with 5.
    fn start(words: &[&str]) -> Self {
        Self::start_with(words, b"{\"StatusCode\":5}\n")
    }

    /// The same, with another answer to wait.
    fn start_with(words: &[&str], waited: &'static [u8]) -> Self {
        let fake = Fake::start();
        fake.json("POST /containers/create", 201, r#"{"Id":"abc","Warnings":[]}"#);
        let (sender, receiver) = mpsc::channel();
        let sender = Mutex::new(sender);
        fake.on("POST /containers/abc/attach", move |_, stream| {
            stream.write_all(UPGRADE).expect("written");
            sender
                .lock()
                .expect("not poisoned")
                .send(stream.try_clone().expect("cloned"))
                .expect("sent");
            // The connection is the test's now: this thread must not read from it.
            std::thread::park();
        });
        fake.on("POST /containers/abc/wait", |_, stream| {
            stream.write_all(CHUNKED).expect("written");
            stream.write_all(&chunk(waited)).expect("written");
            stream.write_all(&chunk(b"")).expect("written");
        });
        fake.json("POST /containers/abc/start", 204, "");
        fake.json("POST /containers/abc/kill", 204, "");
        fake.json("POST /containers/abc/resize", 200, "");
        let pair = openpty(&SIZE, None).expect("a terminal");
        let end = || Stdio::from(pair.slave.try_clone().expect("cloned"));
        let found = tcgetattr(&pair.slave).expect("settings");
        let child = fake
            .kakoi(words)
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("it starts");
        let container = receiver.recv_timeout(fake::PATIENCE).expect("attached");
        fake.wait_for("POST /containers/abc/start");
        Self {
            fake,
            child,
            master: File::from(pair.master),
            slave: pair.slave,
            found,
            container,
        }
    }

    fn settings(&self) -> Termios {
        tcgetattr(&self.slave).expect("settings")
    }

    /// Reads what the terminal shows until it ends so.
    fn shown(&mut self, end: &str) -> String {
        let mut shown = Vec::new();
        while !String::from_utf8_lossy(&shown).ends_with(end) {
            let mut ready = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            let patience = PollTimeout::try_from(fake::PATIENCE).expect("short");
            assert_eq!(
                poll(&mut ready, patience),
                Ok(1),
                "only {:?}",
                String::from_utf8_lossy(&shown)
            );
            let mut buffer = [0; 4096];
            let count = self.master.read(&mut buffer).expect("read");
            shown.extend_from_slice(&buffer[..count]);
        }
        String::from_utf8(shown).expect("text")
    }

    fn signal(&self, signal: Signal) {
        kill(
            Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")),
            signal,
        )
        .expect("sent");
    }

    /// Waits for the program's end: the status, and the terminal as it was found.
    fn end(mut self) -> Option<i32> {
        let status = self.child.wait().expect("it ends").code();
        assert_eq!(self.settings(), self.found, "the terminal is not as it was found");
        status
    }
}

#[test]
fn the_terminal_is_raw_and_put_back() {
    let mut person = Person::start(&["run", "-it", "alpine"]);
    person.container.write_all(b"hi$ ").expect("written");
    assert_eq!(person.shown("hi$ "), "hi$ ");
    assert!(
        !person
            .settings()
            .local_flags
            .intersects(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
    );
    person.master.write_all(b"ls\r\x03").expect("typed");
    let mut typed = [0; 4];
    person.container.read_exact(&mut typed).expect("read");
    assert_eq!(&typed, b"ls\r\x03");
    person.container.write_all(b"bye\r\n").expect("written");
    person
        .container
        .shutdown(std::net::Shutdown::Both)
        .expect("shut down");
    assert_eq!(person.shown("bye\r\n"), "bye\r\n");
    let body: serde_json::Value =
        serde_json::from_slice(&person.fake.wait_for("POST /containers/create").body).expect("JSON");
    assert_eq!(body["HostConfig"]["ConsoleSize"], serde_json::json!([33, 99]));
    assert_eq!(person.end(), Some(5));
}

#[test]
fn the_keys_detach_and_put_it_back() {
    let mut person = Person::start(&["run", "-it", "alpine"]);
    person.master.write_all(b"x\x10").expect("typed");
    let mut typed = [0; 1];
    person.container.read_exact(&mut typed).expect("read");
    assert_eq!(&typed, b"x");
    person.master.write_all(b"\x11").expect("typed");
    assert_eq!(person.end(), Some(0));
}

#[test]
fn signals_are_proxied_or_make_the_person_leave() {
    let person = Person::start(&["run", "-it", "alpine"]);
    person.signal(Signal::SIGTERM);
    assert!(
        person
            .fake
            .wait_for("POST /containers/abc/kill")
            .line
            .ends_with("signal=SIGTERM")
    );
    person
        .container
        .shutdown(std::net::Shutdown::Both)
        .expect("shut down");
    assert_eq!(person.end(), Some(5));
    let person = Person::start(&["run", "-it", "--sig-proxy=false", "alpine"]);
    person.signal(Signal::SIGHUP);
    assert_eq!(person.end(), Some(0));
}

#[test]
fn a_broken_session_puts_it_back() {
    let person = Person::start(&["run", "-it", "alpine"]);
    person.fake.on("POST /containers/abc/wait", |_, _| {});
    person
        .container
        .shutdown(std::net::Shutdown::Both)
        .expect("shut down");
    assert_eq!(person.end(), Some(5));
}

#[test]
fn a_failed_start_puts_it_back() {
    let fake = Fake::start();
    fake.json("POST /containers/create", 201, r#"{"Id":"abc","Warnings":[]}"#);
    fake.on("POST /containers/abc/attach", |_, stream| {
        stream.write_all(UPGRADE).expect("written")
    });
    fake.on("POST /containers/abc/wait", |_, stream| {
        stream.write_all(CHUNKED).expect("written")
    });
    fake.json(
        "POST /containers/abc/start",
        400,
        r#"{"message":"no such program","kind":"command_not_found"}"#,
    );
    let pair = openpty(&SIZE, None).expect("a terminal");
    let end = || Stdio::from(pair.slave.try_clone().expect("cloned"));
    let found = tcgetattr(&pair.slave).expect("settings");
    let mut child = fake
        .kakoi(&["run", "-it", "alpine"])
        .stdin(end())
        .stdout(end())
        .stderr(end())
        .spawn()
        .expect("it starts");
    assert_eq!(child.wait().expect("it ends").code(), Some(127));
    assert_eq!(tcgetattr(&pair.slave).expect("settings"), found);
}

#[test]
fn archives_are_not_for_terminals() {
    let fake = Fake::start();
    let pair = openpty(&SIZE, None).expect("a terminal");
    let end = || Stdio::from(pair.slave.try_clone().expect("cloned"));
    let saved = fake
        .kakoi(&["save", "a"])
        .stdin(Stdio::null())
        .stdout(end())
        .output()
        .expect("it runs");
    assert_eq!(saved.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&saved.stderr).contains("-o FILE"));
    let loaded = fake.kakoi(&["load"]).stdin(end()).output().expect("it runs");
    assert_eq!(loaded.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&loaded.stderr).contains("-i FILE"));
    assert_eq!(fake.lines(), Vec::<String>::new());
}
