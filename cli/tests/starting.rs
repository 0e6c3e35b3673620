//! Finding no daemon: one is started where that may be, and its failure is told in one line.

mod fake;
#[path = "../../integration/src/required.rs"]
mod required;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use fake::{kakoi, ran};

/// Whether this test may run: only root starts a daemon.
fn is_root() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    required::leave_out("root", "only root starts a daemon");
    false
}

/// A folder with a copy of the program and a script beside it that plays the daemon.
fn install(script: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::copy(env!("CARGO_BIN_EXE_kakoi"), folder.path().join("kakoi")).expect("copied");
    let daemon = folder.path().join("kakoid");
    std::fs::write(&daemon, format!("#!/bin/sh\n{script}\n")).expect("written");
    std::fs::set_permissions(&daemon, std::fs::Permissions::from_mode(0o755)).expect("executable");
    folder
}

fn ps(folder: &Path) -> fake::Ran {
    let run = folder.join("run").display().to_string();
    let mut command = std::process::Command::new(folder.join("kakoi"));
    command
        .args([
            "--run",
            &run,
            "--root",
            &run,
            "--config",
            &run,
            "--log-level",
            "info",
            "ps",
        ])
        .env_remove("KAKOI_HOST");
    ran(command.output().expect("it runs"))
}

#[test]
fn a_daemon_that_gives_up_is_told_with_its_reason() {
    if !is_root() {
        return;
    }
    let folder = install("echo 'kakoid: the disk is full' >&2; exit 1");
    let ran = ps(folder.path());
    assert_eq!(ran.status, 125);
    assert_eq!(
        ran.stderr,
        "Error: kakoid gave up (exit status: 1): kakoid: the disk is full\n"
    );
    let silent = install("exit 1");
    assert!(ps(silent.path()).stderr.contains("it left no word in"));
}

#[test]
fn it_gets_its_folders_and_a_session_of_its_own() {
    if !is_root() {
        return;
    }
    let folder = install("echo \"$@\"; echo \"level $KAKOI_LOG\"; cut -d' ' -f1,6 /proc/$$/stat; exit 1");
    assert_eq!(ps(folder.path()).status, 125);
    let run = folder.path().join("run");
    let log = std::fs::read_to_string(run.join("kakoid.log")).expect("a log");
    let lines: Vec<&str> = log.lines().collect();
    let run = run.display();
    assert_eq!(lines[0], format!("--root {run} --run {run} --config {run}"));
    assert_eq!(lines[1], "level kakoid=info");
    let (pid, session) = lines[2].split_once(' ').expect("two numbers");
    assert_eq!(pid, session, "it leads its session");
}

#[test]
fn a_daemon_that_another_holds_is_waited_for() {
    if !is_root() {
        return;
    }
    let folder = install("exit 3");
    std::fs::create_dir(folder.path().join("run")).expect("made");
    let socket = folder.path().join("run/kakoid.sock");
    // The other daemon listens only when this one has given up.
    let log = folder.path().join("run/kakoid.log");
    let other = std::thread::spawn(move || {
        let deadline = std::time::Instant::now() + fake::PATIENCE;
        while !log.exists() {
            assert!(std::time::Instant::now() < deadline, "no daemon was started");
            std::thread::yield_now();
        }
        let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
        // The first connection only finds that somebody listens; the request may come on it or on the next.
        let (mut stream, _) = listener.accept().expect("connected");
        let mut request = [0; 1024];
        let count = std::io::Read::read(&mut stream, &mut request).expect("read");
        assert!(count > 0);
        std::io::Write::write_all(&mut stream, &fake::answer(200, "application/json", b"[]"))
            .expect("written");
    });
    let ran = ps(folder.path());
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""));
    other.join().expect("it answered");
}

#[test]
fn a_socket_that_may_not_be_used_is_told() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("open");
    let program = folder.path().join("kakoi");
    std::fs::copy(env!("CARGO_BIN_EXE_kakoi"), &program).expect("copied");
    let socket = folder.path().join("kakoid.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600)).expect("closed");
    let nobody = |words: &[&str]| {
        let mut command = std::process::Command::new(&program);
        std::os::unix::process::CommandExt::uid(&mut command, 65_534);
        ran(command
            .args(words)
            .env_remove("KAKOI_HOST")
            .output()
            .expect("it runs"))
    };
    let run = folder.path().display().to_string();
    let refused = nobody(&["--run", &run, "ps"]);
    assert_eq!(refused.status, 125);
    assert!(
        refused.stderr.contains("permission denied on"),
        "{}",
        refused.stderr
    );
    assert!(refused.stderr.contains("join the group"), "{}", refused.stderr);
    let none = nobody(&["--run", "/nonexistent", "ps"]);
    assert_eq!(none.status, 125);
    assert!(none.stderr.contains("start it as root"), "{}", none.stderr);
}

#[test]
fn a_folder_that_cannot_be_made_is_told() {
    if !is_root() {
        return;
    }
    let folder = install("exit 0");
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("written");
    let run = file.join("run").display().to_string();
    let mut command = std::process::Command::new(folder.path().join("kakoi"));
    let told = ran(command
        .args(["--run", &run, "ps"])
        .env_remove("KAKOI_HOST")
        .output()
        .expect("it runs"));
    assert_eq!(told.status, 125);
    // Asking a daemon for its versions needs one; asking for help does not.
    assert_eq!(
        ran(kakoi(&["--run", &run, "help"]).output().expect("it runs")).status,
        0
    );
}
