//! A container's life through the real command line: how it starts, what it sees, how it is stopped, what stays.
//!
//! Runs under `docker-default`, whose meaning is Docker's, so that what fails here is the life and not the policy.
#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

use kakoi_integration::command::{LIMIT, ended};
use kakoi_integration::host::Host;
use kakoi_integration::{needs_root, needs_root_outside, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

/// One `kakoi run --rm`: flags, program, and what must come out.
struct Case {
    what: &'static str,
    flags: &'static [&'static str],
    program: &'static [&'static str],
    code: i32,
    stdout: &'static str,
}

const fn case(
    what: &'static str,
    flags: &'static [&'static str],
    program: &'static [&'static str],
    code: i32,
    stdout: &'static str,
) -> Case {
    Case {
        what,
        flags,
        program,
        code,
        stdout,
    }
}

const RUN: [&str; 6] = ["run", "--rm", "--network", "none", "--policy", "docker-default"];

fn check(cases: &[Case]) {
    let host = Host::new();
    let mut failures = Vec::new();
    for case in cases {
        let arguments = [&RUN[..], case.flags, &["busybox:test"], case.program].concat();
        let ran = host.kakoi(&arguments);
        if ran.code != case.code || ran.stdout.replace('\r', "").trim_end() != case.stdout {
            failures.push(format!(
                "{}: wanted {} and {:?}: {ran}",
                case.what, case.code, case.stdout
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    host.is_clean();
}

#[test]
fn output_and_exit_codes() {
    needs_root!();
    check(&[
        case("success", &[], &["true"], 0, ""),
        case("failure", &[], &["false"], 1, ""),
        case("its own code", &[], &["sh", "-c", "exit 42"], 42, ""),
        case("a signal", &["--init"], &["sh", "-c", "kill -9 $$"], 137, ""),
        case("standard output", &[], &["echo", "hello"], 0, "hello"),
        case("no such program", &[], &["/no/such/program"], 127, ""),
        case("not a program", &[], &["/etc/passwd"], 126, ""),
        case("no such word", &[], &["no-such-word"], 127, ""),
    ]);
}

#[test]
fn what_a_process_sees() {
    needs_root!();
    check(&[
        case("root by default", &[], &["id", "-u"], 0, "0"),
        case("a user by name", &["--user", "app"], &["id", "-u"], 0, "1000"),
        case(
            "a user by number",
            &["--user", "1234:77"],
            &["sh", "-c", "id -u; id -g"],
            0,
            "1234\n77",
        ),
        case(
            "the user's groups",
            &["--user", "app"],
            &["id", "-G"],
            0,
            "1000 20",
        ),
        case(
            "the image's environment",
            &[],
            &["sh", "-c", "echo $FROM_IMAGE"],
            0,
            "yes",
        ),
        case(
            "a variable",
            &["-e", "A=b c"],
            &["sh", "-c", "echo \"$A\""],
            0,
            "b c",
        ),
        case(
            "a working directory",
            &["-w", "/var/empty"],
            &["pwd"],
            0,
            "/var/empty",
        ),
        case(
            "a host name",
            &["--hostname", "gateway"],
            &["hostname"],
            0,
            "gateway",
        ),
        case(
            "an extra host",
            &["--add-host", "broker:10.9.8.7"],
            &["grep", "-c", "10.9.8.7.*broker", "/etc/hosts"],
            0,
            "1",
        ),
        case("process 1", &[], &["sh", "-c", "echo $$"], 0, "1"),
        case(
            "an init before it",
            &["--init"],
            &["sh", "-c", "test $$ -ne 1 && echo yes"],
            0,
            "yes",
        ),
        case(
            "loopback only",
            &[],
            &["sh", "-c", "grep -c : /proc/net/dev"],
            0,
            "1",
        ),
        case("an entry point", &["--entrypoint", "echo"], &["a", "b"], 0, "a b"),
        case(
            "shared memory",
            &["--shm-size", "1m"],
            &["sh", "-c", "df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2"],
            0,
            "1024",
        ),
    ]);
}

#[test]
fn limits_and_mounts() {
    needs_root!();
    check(&[
        case(
            "files per process",
            &["--ulimit", "nofile=99:100"],
            &["sh", "-c", "ulimit -Sn; ulimit -Hn"],
            0,
            "99\n100",
        ),
        case(
            "a temporary file system",
            &["--tmpfs", "/data:size=1m"],
            &["sh", "-c", "echo x > /data/f && cat /data/f"],
            0,
            "x",
        ),
        case(
            "which is as small as asked",
            &["--tmpfs", "/data:size=1m"],
            &[
                "sh",
                "-c",
                "dd if=/dev/zero of=/data/f bs=1k count=2000 2>/dev/null; test $? -ne 0 && echo full",
            ],
            0,
            "full",
        ),
        case(
            "a read-only root",
            &["--read-only"],
            &["sh", "-c", "touch /etc/x 2>/dev/null || echo refused"],
            0,
            "refused",
        ),
        case(
            "a writable root else",
            &[],
            &["sh", "-c", "touch /etc/x && echo written"],
            0,
            "written",
        ),
        case(
            "processes",
            &["--pids-limit", "20"],
            &["sh", "-c", "/attacker hold pids | cut -d' ' -f1"],
            0,
            "refused",
        ),
        case(
            "files",
            &["--ulimit", "nofile=64:64"],
            &["sh", "-c", "/attacker hold files | cut -d' ' -f1"],
            0,
            "refused",
        ),
        case("the mask of files", &[], &["sh", "-c", "umask"], 0, "0022"),
    ]);
}

#[test]
fn memory_ends_at_its_limit_and_says_so() {
    needs_root!();
    let host = Host::new();
    let ran = host.kakoi(&[
        "run",
        "--name",
        "hog",
        "--network",
        "none",
        "--memory",
        "16m",
        "--policy",
        "docker-default",
        "busybox:test",
        "/attacker",
        "hold",
        "memory",
    ]);
    assert_eq!(ran.code, 137, "{ran}");
    let state = host.inspect("hog")["State"].clone();
    assert_eq!(state["OOMKilled"], true, "{state}");
    // A neighbour that stays below its limit is not blamed.
    host.ok(&[
        "run",
        "--name",
        "fine",
        "--network",
        "none",
        "--memory",
        "64m",
        "--policy",
        "docker-default",
        "busybox:test",
        "true",
    ]);
    assert_eq!(host.inspect("fine")["State"]["OOMKilled"], false);
}

fn detached(host: &Host, name: &str, flags: &[&str], program: &[&str]) {
    let arguments = [
        &[
            "run",
            "-d",
            "--name",
            name,
            "--network",
            "none",
            "--policy",
            "docker-default",
        ],
        flags,
        &["busybox:test"],
        program,
    ];
    host.ok(&arguments.concat());
}

#[test]
fn a_container_lives_and_ends() {
    needs_root!();
    let host = Host::new();
    let id = host.ok(&[
        "create",
        "--name",
        "one",
        "--network",
        "none",
        "--policy",
        "docker-default",
        "busybox:test",
        "sh",
        "-c",
        "echo born; exec sleep 1000",
    ]);
    assert_eq!(id.len(), 64, "{id}");
    host.until_state("one", "Status", &json!("created"));
    host.ok(&["start", "one"]);
    host.until_state("one", "Running", &json!(true));

    host.ok(&["pause", "one"]);
    host.until_state("one", "Paused", &json!(true));
    host.kakoi(&["exec", "one", "true"]).is_one_clear_error();
    host.ok(&["unpause", "one"]);
    host.until_state("one", "Paused", &json!(false));

    assert_eq!(host.ok(&["exec", "one", "echo", "inside"]), "inside");
    assert_eq!(host.kakoi(&["exec", "one", "sh", "-c", "exit 7"]).code, 7);
    assert_eq!(host.kakoi(&["exec", "one", "/none"]).code, 127);
    assert_eq!(
        host.ok(&[
            "exec",
            "--user",
            "app",
            "-e",
            "B=1",
            "-w",
            "/tmp",
            "one",
            "sh",
            "-c",
            "id -u; echo $B; pwd"
        ]),
        "1000\n1\n/tmp"
    );
    assert_eq!(
        host.kakoi_with(&["exec", "-i", "one", "cat"], b"through").ok(),
        "through"
    );

    assert!(host.ok(&["top", "one"]).contains("sleep"));
    assert!(host.ok(&["stats", "--no-stream", "one"]).contains("one"));
    host.ok(&["rename", "one", "uno"]);
    host.kakoi(&["inspect", "one"]).is_one_clear_error();

    // Process 1 of a namespace ignores what it does not handle.
    host.ok(&["stop", "--time", "1", "uno"]);
    host.until_state("uno", "Status", &json!("exited"));
    assert_eq!(host.ok(&["logs", "uno"]), "born");
    host.ok(&["restart", "--time", "1", "uno"]);
    host.until_state("uno", "Running", &json!(true));
    host.kakoi(&["rm", "uno"]).is_one_clear_error();
    host.ok(&["kill", "--signal", "KILL", "uno"]);
    assert_eq!(host.ok(&["wait", "uno"]), "137");
    host.ok(&["rm", "uno"]);
    host.kakoi(&["start", "uno"]).is_one_clear_error();
    host.is_clean();
}

#[test]
fn stop_kills_what_does_not_listen() {
    needs_root!();
    let host = Host::new();
    detached(
        &host,
        "deaf",
        &[],
        &["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"],
    );
    wait::until("the container says ready", || {
        host.kakoi(&["logs", "deaf"]).stdout.contains("ready")
    });
    host.ok(&["stop", "--time", "1", "deaf"]);
    assert_eq!(host.inspect("deaf")["State"]["ExitCode"], 137);
}

#[test]
fn logs_follow_and_cut() {
    needs_root!();
    let host = Host::new();
    detached(
        &host,
        "talker",
        &["-i"],
        &["sh", "-c", "echo one; echo two; echo three >&2; cat"],
    );
    wait::until("three lines", || {
        let ran = host.kakoi(&["logs", "talker"]);
        ran.stdout.lines().count() + ran.stderr.lines().count() == 3
    });
    let ran = host.kakoi(&["logs", "talker"]);
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        ("one\ntwo\n", "three\n"),
        "{ran}"
    );
    let tail = host.kakoi(&["logs", "--tail", "1", "talker"]);
    assert_eq!(tail.stdout + &tail.stderr, "three\n");
    let stamped = host.kakoi(&["logs", "--timestamps", "talker"]);
    assert!(
        stamped
            .stdout
            .lines()
            .all(|line| line.starts_with("20") && line.contains('T')),
        "{stamped}"
    );

    let mut follower = host.spawn(&["logs", "--follow", "--tail", "0", "talker"]);
    let mut writer = host.spawn(&["attach", "talker"]);
    let mut input = writer.stdin.take().expect("stdin was piped");
    input.write_all(b"four\n").expect("writing to attach");
    drop(input);
    let mut line = String::new();
    BufReader::new(follower.stdout.as_mut().expect("stdout was piped"))
        .read_line(&mut line)
        .expect("reading the log");
    assert_eq!(line, "four\n");
    host.ok(&["kill", "talker"]);
    assert!(
        ended(&mut follower, LIMIT).is_some(),
        "following ends with the container"
    );
    assert!(
        ended(&mut writer, LIMIT).is_some(),
        "attaching ends with the container"
    );
}

#[test]
fn restart_policies() {
    needs_root!();
    let host = Host::new();
    detached(
        &host,
        "thrice",
        &["--restart", "on-failure:2"],
        &["sh", "-c", "echo run; exit 3"],
    );
    host.until_state("thrice", "Status", &json!("exited"));
    wait::until("three runs", || {
        host.kakoi(&["logs", "thrice"]).stdout.lines().count() == 3
    });
    assert_eq!(host.inspect("thrice")["RestartCount"], 2);

    detached(&host, "never", &["--restart", "on-failure:5"], &["true"]);
    host.until_state("never", "Status", &json!("exited"));
    assert_eq!(host.inspect("never")["RestartCount"], 0);

    detached(&host, "always", &["--restart", "always"], &["sleep", "1000"]);
    let first = host.pid("always");
    nix::sys::signal::kill(first, nix::sys::signal::Signal::SIGKILL)
        .expect("killing the container's process");
    wait::until("another process", || {
        host.inspect("always")["State"]["Pid"]
            .as_i64()
            .is_some_and(|pid| pid > 1 && pid != i64::from(first.as_raw()))
    });
    host.ok(&["stop", "--time", "1", "always"]);
    host.until_state("always", "Status", &json!("exited"));
}

#[test]
fn health_is_asked_for() {
    needs_root!();
    let host = Host::new();
    let flags = [
        "--health-cmd",
        "test -e /tmp/well",
        "--health-interval",
        "200ms",
        "--health-retries",
        "2",
        "--health-timeout",
        "5s",
    ];
    detached(
        &host,
        "patient",
        &flags,
        &["sh", "-c", "touch /tmp/well; sleep 1000"],
    );
    let health = |value: &str| host.inspect("patient")["State"]["Health"]["Status"] == value;
    wait::until("healthy", || health("healthy"));
    host.ok(&["exec", "patient", "rm", "/tmp/well"]);
    wait::until("unhealthy", || health("unhealthy"));
}

#[test]
fn a_health_test_that_hangs_is_ended() {
    needs_root!();
    let host = Host::new();
    let flags = [
        "--health-cmd",
        "sleep 7777 & sleep 8888; true",
        "--health-interval",
        "100ms",
        "--health-retries",
        "3",
        "--health-timeout",
        "300ms",
    ];
    detached(&host, "hung", &flags, &["sleep", "1000"]);
    let health = || host.inspect("hung")["State"]["Health"].clone();
    wait::until("unhealthy", || health()["Status"] == "unhealthy");
    let result = &health()["Log"][0];
    assert_eq!(result["ExitCode"], -1, "{result}");
    assert!(
        result["Output"]
            .as_str()
            .is_some_and(|text| text.contains("exceeded timeout")),
        "{result}"
    );
    // At most the test that runs just now is there: the shell, and two sleeps that may still bear its name; three tests have run.
    let top = host.ok(&["top", "hung", "-o", "pid,args"]);
    assert!(top.matches("sleep 8888").count() <= 3, "{top}");
    assert!(top.matches("sleep 7777").count() <= 3, "{top}");
    assert!(top.contains("sleep 1000"), "{top}");
}

#[test]
fn signals_reach_an_added_process() {
    needs_root!();
    let host = Host::new();
    detached(&host, "there", &[], &["sleep", "1000"]);
    let script = "trap 'echo heard; exit 9' INT; echo up; while :; do sleep 0.1; done";
    for (signal, code) in [(Signal::SIGINT, 9), (Signal::SIGTERM, 143)] {
        let mut client = host.spawn(&["exec", "there", "sh", "-c", script]);
        let mut output = BufReader::new(client.stdout.take().expect("a pipe"));
        let mut line = String::new();
        output.read_line(&mut line).expect("reading a pipe");
        assert_eq!(line, "up\n");
        kill(Pid::from_raw(client.id() as i32), signal).expect("signalling a child of ours");
        assert_eq!(ended(&mut client, LIMIT), Some(code), "{signal}");
    }
    // The container itself heard nothing.
    assert_eq!(host.inspect("there")["State"]["Status"], "running");
}

#[test]
fn namespaces_of_another_container_are_joined() {
    needs_root!();
    let host = Host::new();
    detached(&host, "first", &[], &["sleep", "1234"]);
    let namespace = |kind: &str| format!("/proc/self/ns/{kind}");
    let of_first = |kind: &str| host.ok(&["exec", "first", "readlink", &namespace(kind)]);
    let joined = |flags: &[&str], program: &[&str]| {
        let fixed = ["run", "--rm", "--policy", "docker-default"];
        host.ok(&[&fixed[..], flags, &["busybox:test"], program].concat())
    };
    let network = ["--network", "container:first"];
    assert_eq!(
        joined(&network, &["readlink", &namespace("net")]),
        of_first("net")
    );
    assert_ne!(
        joined(&network, &["readlink", &namespace("pid")]),
        of_first("pid")
    );
    assert_eq!(
        joined(&network, &["hostname"]),
        host.ok(&["exec", "first", "hostname"])
    );
    let processes = ["--network", "none", "--pid", "container:first"];
    assert_eq!(
        joined(&processes, &["readlink", &namespace("pid")]),
        of_first("pid")
    );
    assert_ne!(
        joined(&processes, &["readlink", &namespace("net")]),
        of_first("net")
    );
    assert!(joined(&processes, &["ps"]).contains("sleep 1234"));
    // No power over a namespace reaches from another user namespace.
    for flags in [&network[..], &processes] {
        let fixed = ["run", "--rm", "--policy", "docker-default", "--userns", "auto"];
        let refused = host.kakoi(&[&fixed[..], flags, &["busybox:test", "true"]].concat());
        assert_eq!(refused.code, 125, "{refused}");
        assert!(refused.stderr.contains("same user namespace"), "{refused}");
    }
    // An added process is where its container is, and the end of process 1 is the end of all.
    detached(&host, "second", &["--pid", "container:first"], &["sleep", "1000"]);
    assert_eq!(
        host.ok(&["exec", "second", "readlink", &namespace("pid")]),
        of_first("pid")
    );
    host.ok(&["kill", "first"]);
    host.until_state("second", "Status", &json!("exited"));
    let refused = host.kakoi(&["start", "second"]);
    assert!(refused.stderr.contains("non running container"), "{refused}");
    host.ok(&["start", "first"]);
    host.ok(&["start", "second"]);
    assert_eq!(
        host.inspect("second")["HostConfig"]["PidMode"],
        format!(
            "container:{}",
            host.inspect("first")["Id"].as_str().expect("an id")
        )
    );
}

#[test]
fn shared_memory_and_queues_of_another_container_are_joined() {
    needs_root!();
    let host = Host::new();
    detached(&host, "private", &[], &["sleep", "1000"]);
    detached(&host, "donor", &["--ipc", "shareable"], &["sleep", "1000"]);
    let namespace = "/proc/self/ns/ipc";
    let of_donor = host.ok(&["exec", "donor", "readlink", namespace]);
    host.ok(&["exec", "donor", "sh", "-c", "echo from-donor >/dev/shm/word"]);
    let fixed = ["--policy", "docker-default", "--network", "none"];
    let run = |flags: &[&str], program: &[&str]| {
        host.kakoi(&[&["run", "--rm"], &fixed[..], flags, &["busybox:test"], program].concat())
    };
    let joins = ["--ipc", "container:donor"];
    assert_eq!(run(&joins, &["readlink", namespace]).ok(), of_donor);
    assert_eq!(run(&joins, &["cat", "/dev/shm/word"]).ok(), "from-donor");
    run(&joins, &["sh", "-c", "echo back >/dev/shm/word"]).ok();
    assert_eq!(host.ok(&["exec", "donor", "cat", "/dev/shm/word"]), "back");
    // It grants no more than its donor has there, and no more than memory.
    for flag in ["nosuid", "nodev", "noexec"] {
        let seen = run(&joins, &["grep", " /dev/shm ", "/proc/mounts"]).ok();
        assert_eq!(seen.lines().count(), 1, "{seen}");
        assert!(seen.contains(" tmpfs ") && seen.contains(flag), "{seen}");
    }
    let sizes = ["sh", "-c", "df -k /dev/shm | tail -1"];
    let own = host.ok(&[&["exec", "donor"], &sizes[..]].concat());
    assert_eq!(
        run(&[&joins[..], &["--shm-size", "1m"]].concat(), &sizes).ok(),
        own
    );
    // Whoever does not join sees nothing of it; nor is one joined that did not say that it may be.
    assert_ne!(run(&[], &["readlink", namespace]).ok(), of_donor);
    assert_ne!(run(&[], &["cat", "/dev/shm/word"]).code, 0);
    run(&["--ipc", "container:private"], &["true"]).fails(125, "non-shareable IPC");
    run(&[&joins[..], &["--userns", "auto"]].concat(), &["true"]).fails(125, "same user namespace");
    run(
        &[&joins[..], &["--sysctl", "kernel.shmmni=8"]].concat(),
        &["true"],
    )
    .fails(125, "ipc namespace");
    // Who joins one that has the host's asks for the host's, which the ceiling does not give.
    run(&["--ipc", "host"], &["true"]).fails(125, "ipc");
    // A start that fails takes nothing from the donor, however often.
    let absent = ["create", "--name", "absent"];
    host.ok(&[&absent[..], &fixed, &joins, &["busybox:test", "nonesuch"]].concat());
    for _ in 0..2 {
        host.kakoi(&["start", "absent"]).fails(127, "nonesuch");
        assert_eq!(host.ok(&["exec", "donor", "cat", "/dev/shm/word"]), "back");
    }
    // One that joined can be joined, an added process is where its container is, and the memory outlives its donor.
    detached(&host, "second", &joins, &["sleep", "1000"]);
    assert_eq!(
        run(&["--ipc", "container:second"], &["cat", "/dev/shm/word"]).ok(),
        "back"
    );
    assert_eq!(host.ok(&["exec", "second", "readlink", namespace]), of_donor);
    let mode = host.inspect("second")["HostConfig"]["IpcMode"].clone();
    let id = host.inspect("donor")["Id"].as_str().expect("an id").to_owned();
    assert_eq!(mode, format!("container:{id}"));
    host.ok(&["kill", "donor"]);
    host.until_state("donor", "Status", &json!("exited"));
    assert_eq!(host.ok(&["exec", "second", "cat", "/dev/shm/word"]), "back");
    host.ok(&["kill", "second"]);
    host.until_state("second", "Status", &json!("exited"));
    let refused = host.kakoi(&["start", "second"]);
    assert!(
        refused
            .stderr
            .contains("cannot join IPC namespace of a non running container"),
        "{refused}"
    );
    host.ok(&["start", "donor"]);
    host.ok(&["start", "second"]);
    assert_ne!(
        host.kakoi(&["exec", "second", "cat", "/dev/shm/word"]).code,
        0,
        "another life"
    );
}

#[test]
fn denials_are_explained() {
    needs_root_outside!();
    let host = Host::new();
    let file = host.file("app.yaml", "kakoi: 1\nname: app\nextends: [strict]\n");
    let doctor = host.kakoi(&["doctor", "--format", "json"]);
    // Again and again: the daemon reads with pauses, all tests are refused on one kernel, and a process that has ended has no container.
    let script = "while :; do unshare -m true; sleep 0.1; done";
    let fixed = [
        "run",
        "-d",
        "--name",
        "app",
        "--network",
        "none",
        "--policy",
        &file,
    ];
    host.ok(&[&fixed[..], &["busybox:test", "sh", "-c", script]].concat());
    if doctor.stdout.contains("tell of none") {
        let refused = host.kakoi(&["why", "app"]);
        assert_eq!(refused.code, 125, "{refused}");
        return;
    }
    let mut page = String::new();
    wait::until("denials", || {
        page = host.ok(&["why", "app"]);
        page.contains("unshare: refused")
    });
    assert!(page.contains("to allow it, add to the policy:"), "{page}");
    assert!(page.contains("allow: [unshare]"), "{page}");
    let words = [
        "events",
        "--stream=false",
        "--since",
        "1h",
        "--filter",
        "event=denial",
    ];
    wait::until("an event", || host.ok(&words).contains("systemCall=unshare"));
    // Another container was refused nothing.
    detached(&host, "calm", &[], &["sleep", "1000"]);
    assert!(host.ok(&["why", "calm"]).contains("no system call was refused"));
    assert!(host.kakoi(&["why", "nobody"]).stderr.contains("nobody"));
}

#[test]
fn flags_of_podman_s_that_people_use() {
    needs_root!();
    let host = Host::new();
    let kept = host.path("kept");
    std::fs::create_dir(&kept).expect("making a folder");
    std::fs::write(kept.join("f"), "bound").expect("writing a file");
    let bind = format!("{}:/bound:ro", kept.display());
    let flags = ["-v", "things:/things", "-v", &bind, "--tmpfs", "/own"];
    let script = "echo kept > /things/f; sleep 1000";
    detached(&host, "giver", &flags, &["sh", "-c", script]);
    wait::until("the file", || {
        host.kakoi(&["exec", "giver", "cat", "/things/f"]).code == 0
    });
    let run = |flags: &[&str], script: &str| {
        let program = ["busybox:test", "sh", "-c", script];
        host.ok(&[&RUN[..], flags, &program].concat()).trim().to_owned()
    };
    let giver = ["--volumes-from", "giver"];
    let script = "cat /things/f /bound/f; test -e /own || echo :none";
    assert_eq!(run(&giver, script), "kept\nbound:none");
    assert_eq!(
        run(&giver, "touch /bound/h 2>/dev/null || echo refused"),
        "refused"
    );
    let read_only = ["--volumes-from", "giver:ro"];
    assert_eq!(
        run(&read_only, "touch /things/h 2>/dev/null || echo refused"),
        "refused"
    );
    let count = "grep -c ip6-localhost /etc/hosts; true";
    assert_eq!(run(&[], count), "1");
    assert_ne!(run(&["--no-hosts"], count), "1");
    // A parent of our own would stay; the usual one is there anyhow.
    let groups = ["--cgroupns", "private", "--cgroup-parent", "/kakoi"];
    assert!(!run(&groups, "cat /proc/self/cgroup").contains("/kakoi/"));
    let groups = [
        "--cgroupns",
        "host",
        "--cgroup-parent",
        "/kakoi-test-parent",
        "--policy",
        "privileged",
    ];
    let refused = host.kakoi(&[&["run", "--rm"], &groups[..], &["busybox:test", "true"]].concat());
    assert_eq!(
        refused.code, 125,
        "the built-in ceiling keeps the host's namespaces: {refused}"
    );
}

#[test]
fn volumes_keep_what_is_written() {
    needs_root!();
    let host = Host::new();
    host.ok(&["volume", "create", "store"]);
    host.ok(&[
        &RUN[..],
        &[
            "-v",
            "store:/data",
            "busybox:test",
            "sh",
            "-c",
            "echo kept > /data/f",
        ],
    ]
    .concat());
    assert_eq!(
        host.ok(&[
            &RUN[..],
            &["-v", "store:/data:ro", "busybox:test", "cat", "/data/f"]
        ]
        .concat()),
        "kept"
    );
    let refused = host.kakoi(
        &[
            &RUN[..],
            &["-v", "store:/data:ro", "busybox:test", "touch", "/data/g"],
        ]
        .concat(),
    );
    assert_ne!(refused.code, 0, "{refused}");
    assert!(host.ok(&["volume", "ls", "--quiet"]).contains("store"));

    let shared = host.path("shared");
    std::fs::create_dir(&shared).expect("making a folder");
    let bind = format!("{}:/data", shared.display());
    host.ok(&[
        &RUN[..],
        &["-v", &bind, "busybox:test", "sh", "-c", "echo out > /data/f"],
    ]
    .concat());
    assert_eq!(
        std::fs::read_to_string(shared.join("f")).expect("the file is on the host"),
        "out\n"
    );
    host.ok(&["volume", "rm", "store"]);
    host.is_clean();
}

#[test]
fn limits_can_be_changed() {
    needs_root!();
    let host = Host::new();
    detached(
        &host,
        "grown",
        &["--memory", "32m", "--pids-limit", "50"],
        &["sleep", "1000"],
    );
    assert_eq!(host.inspect("grown")["HostConfig"]["Memory"], 32 << 20);
    host.ok(&["update", "--memory", "64m", "grown"]);
    assert_eq!(host.inspect("grown")["HostConfig"]["Memory"], 64 << 20);
    assert_eq!(
        host.inspect("grown")["HostConfig"]["PidsLimit"],
        50,
        "what is not named stays"
    );
    host.kakoi(&["update", "--memory", "1", "grown"])
        .is_one_clear_error();
}

#[test]
fn an_init_reaps() {
    needs_root!();
    let host = Host::new();
    detached(
        &host,
        "reaper",
        &["--init"],
        &[
            "sh",
            "-c",
            "for i in 1 2 3; do (sh -c 'true' &) ; done; exec sleep 1000",
        ],
    );
    wait::until("no zombies", || {
        !host
            .ok(&["exec", "reaper", "sh", "-c", "cat /proc/[0-9]*/stat"])
            .contains(") Z ")
    });
}

#[test]
fn detaching_leaves_it_running() {
    needs_root!();
    let host = Host::new();
    detached(&host, "stays", &["-i"], &["cat"]);
    let mut client = host.spawn(&["attach", "--no-stdin", "stays"]);
    client.kill().expect("killing a child of ours");
    assert!(ended(&mut client, Duration::from_secs(10)).is_some());
    host.until_state("stays", "Running", &json!(true));
}
