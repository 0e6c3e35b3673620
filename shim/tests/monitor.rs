//! The shim as the daemon sees it: a real one, over its control socket, as root.
#![forbid(unsafe_code)]

#[path = "monitor/fixture.rs"]
mod fixture;
#[path = "../../integration/src/required.rs"]
mod required;

use std::collections::BTreeSet;
use std::io::Read;
use std::time::{Duration, Instant};

use fixture::{ALL, Ground, NONE, can_run, process, start};
use kakoi_container::frames::{Event, FailureKind, Ready, Reply, Request};
use kakoi_container::plan::{IdMapping, MountKind, MountPlan, RootfsDriver, TerminalSize};

#[test]
fn output_exit_code_and_receipt_are_kept_and_nothing_else() {
    if !can_run() {
        return;
    }
    let ground = Ground::new("output");
    let shim = start(ground.plan("echo out; echo err >&2; exit 7"));
    shim.pid();
    let state = shim.plan.state_dir.clone();
    let log = std::fs::canonicalize(&state).expect("folder").join("log");
    let exit = shim.end();
    assert_eq!((exit.exit_code, exit.oom_killed, exit.lost), (7, false, false));
    let text = std::fs::read_to_string(log).expect("log");
    assert!(
        text.contains(r#"{"log":"out\n","stream":"stdout","#)
            && text.contains(r#"{"log":"err\n","stream":"stderr","#)
    );
    assert!(state.join("receipt.json").exists());
}

#[test]
fn a_program_that_cannot_run_is_told_by_kind_and_leaves_nothing() {
    if !can_run() {
        return;
    }
    let ground = Ground::new("missing");
    let rows = [
        ("/nothing", FailureKind::CommandNotFound, 127),
        ("/etc", FailureKind::CommandNotExecutable, 126),
    ];
    for (program, kind, code) in rows {
        let mut plan = ground.plan("");
        plan.process.args = vec![program.into()];
        let shim = start(plan);
        assert!(
            matches!(&shim.ready, Ready::Failed { kind: told, .. } if *told == kind),
            "{:?}",
            shim.ready
        );
        let exit = shim.end();
        assert_eq!(exit.exit_code, code);
        assert!(exit.start_error.is_some_and(|(told, _)| told == kind));
    }
    let mut plan = ground.plan("true");
    plan.sysctls
        .insert("kernel.core_pattern".into(), "|/bin/sh".into());
    let shim = start(plan);
    assert!(matches!(&shim.ready, Ready::Failed { message, .. } if message.contains("kernel.core_pattern")));
    assert_eq!(shim.end().exit_code, 125);
}

#[test]
fn clients_attach_and_exec_with_and_without_a_terminal() {
    if !can_run() {
        return;
    }
    let ground = Ground::new("attach");
    let mut plan = ground.plan("cat");
    plan.process.stdin_open = true;
    plan.process.stdin_once = true;
    let shim = start(plan);
    let (mut watch, state) = shim.ask(&Request::Watch);
    assert!(matches!(state, Reply::State(state) if state.pid == shim.pid() && !state.paused));

    let (session, reply) = shim.exec("one", "echo out; echo err >&2; cat; exit 3", false);
    assert_eq!(reply, Reply::Stream);
    assert_eq!(session.finish(b"in"), (b"out\nin".to_vec(), b"err\n".to_vec()));
    assert_eq!(
        watch.event(),
        Event::ExecExited {
            exec_id: "one".into(),
            exit_code: 3
        }
    );

    // The client keeps its side open: the session's end alone must end the connection.
    let (mut session, _) = shim.exec("open", "echo done", false);
    let mut rest = Vec::new();
    session.stream.read_to_end(&mut rest).expect("an end in time");
    assert_eq!(
        watch.event(),
        Event::ExecExited {
            exec_id: "open".into(),
            exit_code: 0
        }
    );

    let (mut session, _) = shim.exec("two", "read x; stty size; read x", true);
    let size = TerminalSize {
        width: 101,
        height: 42,
    };
    assert_eq!(
        shim.ask(&Request::Resize {
            exec_id: Some("two".into()),
            size
        })
        .1,
        Reply::Done
    );
    let other = shim
        .ask(&Request::Resize {
            exec_id: Some("nobody".into()),
            size,
        })
        .1;
    assert!(matches!(
        other,
        Reply::Failed {
            kind: FailureKind::Conflict,
            ..
        }
    ));
    session.send(b"\n");
    let text = session.finish_raw(b"\n");
    assert!(String::from_utf8_lossy(&text).contains("42 101"), "{text:?}");
    assert_eq!(
        watch.event(),
        Event::ExecExited {
            exec_id: "two".into(),
            exit_code: 0
        }
    );

    let request = |args: &[&str]| Request::Exec {
        exec_id: "three".into(),
        process: process(args),
        user: None,
        attach: NONE,
    };
    let refused = shim.ask(&request(&["/nothing"])).1;
    assert!(
        matches!(
            refused,
            Reply::Failed {
                kind: FailureKind::CommandNotFound,
                ..
            }
        ),
        "{refused:?}"
    );
    assert!(matches!(
        shim.ask(&request(&["sleep", "1000"])).1,
        Reply::Started { .. }
    ));
    let twice = shim.ask(&request(&["sleep", "1000"])).1;
    assert!(
        matches!(
            twice,
            Reply::Failed {
                kind: FailureKind::Conflict,
                ..
            }
        ),
        "{twice:?}"
    );
    let Reply::Top(rows) = shim.ask(&Request::Top).1 else {
        panic!("no rows")
    };
    assert!(rows.iter().any(|row| row.command == "sleep 1000"), "{rows:?}");
    assert!(matches!(shim.ask(&Request::Stats).1, Reply::Stats(_)));

    let (one, _) = shim.ask(&Request::Attach(ALL));
    let (other, _) = shim.ask(&Request::Attach(fixture::ALL));
    drop(other.stream.shutdown(std::net::Shutdown::Read));
    assert_eq!(one.finish(b"to the app"), (b"to the app".to_vec(), Vec::new()));
    assert_eq!(
        watch.event(),
        Event::ExecExited {
            exec_id: "three".into(),
            exit_code: 137
        }
    );
    assert!(matches!(watch.event(), Event::Exited(exit) if exit.exit_code == 0));
    shim.end();
}

#[test]
fn an_added_process_is_signalled_alone_or_with_what_it_started() {
    if !can_run() {
        return;
    }
    let ground = Ground::new("signals");
    let shim = start(ground.plan("sleep 1000"));
    let (mut watch, _) = shim.ask(&Request::Watch);
    let kill = |exec_id: &str, signal, all| {
        let exec_id = exec_id.into();
        shim.ask(&Request::KillExec { exec_id, signal, all }).1
    };
    let ended = |exec_id: &str, exit_code| Event::ExecExited {
        exec_id: exec_id.into(),
        exit_code,
    };

    let (mut session, _) = shim.exec(
        "polite",
        "sleep 1000 & trap 'kill $!; exit 9' TERM; echo up; wait",
        false,
    );
    assert_eq!(session.first_output(), b"up\n");
    assert_eq!(kill("polite", 15, false), Reply::Done);
    assert_eq!(watch.event(), ended("polite", 9));

    // The child holds the output open: the stream's end shows that it died too.
    let (mut session, _) = shim.exec("family", "sleep 1000 & echo up; wait", false);
    assert_eq!(session.first_output(), b"up\n");
    assert_eq!(kill("family", 9, true), Reply::Done);
    assert_eq!(watch.event(), ended("family", 137));
    // The killed child may be a zombie for a moment longer than its parent: each question is a turn of the shim's loop, which reaps.
    let is_alone = |_| matches!(shim.ask(&Request::Top).1, Reply::Top(rows) if rows.len() == 1);
    assert!((0..1000).any(is_alone));

    for (exec_id, signal, all) in [("family", 9, false), ("nobody", 15, false)] {
        let conflict = FailureKind::Conflict;
        assert!(
            matches!(kill(exec_id, signal, all), Reply::Failed { kind, .. } if kind == conflict),
            "{exec_id}"
        );
    }
    let (_session, _) = shim.exec("last", "read x", false);
    assert!(matches!(kill("last", 65, false), Reply::Failed { .. }));
    assert!(matches!(kill("last", 0, false), Reply::Failed { .. }));
    assert!(matches!(kill("last", 40, true), Reply::Failed { .. }));
    assert_eq!(kill("last", 40, false), Reply::Done);
    assert_eq!(watch.event(), ended("last", 168));
    shim.kill_container(9);
    shim.end();
}

#[test]
fn pausing_stops_the_app_and_refuses_what_does_not_fit() {
    if !can_run() {
        return;
    }
    let ground = Ground::new("pause");
    let shim = start(ground.plan("trap 'exit 5' TERM; while :; do sleep 0.05; done"));
    let conflict = |reply: &Reply| {
        matches!(
            reply,
            Reply::Failed {
                kind: FailureKind::Conflict,
                ..
            }
        )
    };
    assert!(conflict(&shim.ask(&Request::Unpause).1));
    assert_eq!(shim.ask(&Request::Pause).1, Reply::Done);
    assert!(conflict(&shim.ask(&Request::Pause).1));
    assert!(conflict(&shim.exec("x", "true", false).1));
    assert!(matches!(shim.ask(&Request::State).1, Reply::State(state) if state.paused));
    assert_eq!(shim.ask(&Request::Unpause).1, Reply::Done);
    let bad = shim
        .ask(&Request::Kill {
            signal: 99,
            all: false,
        })
        .1;
    assert!(matches!(bad, Reply::Failed { .. }));
    shim.kill_container(15);
    assert_eq!(shim.end().exit_code, 5);

    // A frozen container can be killed.
    let shim = start(ground.plan("sleep 1000"));
    assert_eq!(shim.ask(&Request::Pause).1, Reply::Done);
    shim.kill_container(9);
    assert_eq!(shim.end().exit_code, 137);
}

#[test]
fn a_kill_at_the_memory_limit_is_told_as_such() {
    if !can_run() {
        return;
    }
    let ground = Ground::new("oom");
    let mut plan = ground.plan("read x; tail /dev/zero; exit 4");
    plan.process.stdin_open = true;
    plan.resources.memory_bytes = Some(24 << 20);
    plan.resources.memory_and_swap_bytes = Some(24 << 20);
    let shim = start(plan);
    let (mut watch, _) = shim.ask(&Request::Watch);
    let (mut attached, _) = shim.ask(&Request::Attach(ALL));
    attached.send(b"\n");
    assert_eq!(watch.event(), Event::OomKilled);
    let exit = shim.end();
    assert_eq!((exit.exit_code, exit.oom_killed), (4, true));
    let harmless = start(ground.plan("exit 137"));
    let exit = harmless.end();
    assert_eq!(
        (exit.exit_code, exit.oom_killed),
        (137, false),
        "an exit code alone is no kill"
    );
}

#[test]
fn init_reaps_passes_signals_on_and_hides_the_host() {
    if !can_run() {
        return;
    }
    let ground = Ground::new("init");
    let mut plan =
        ground.plan("trap 'exit 9' TERM; sh -c 'sleep 0.01 & exit' ; echo up; while :; do sleep 0.05; done");
    plan.process.init = true;
    let shim = start(plan);
    let open: BTreeSet<String> = std::fs::read_dir(format!("/proc/{}/fd", shim.pid()))
        .expect("readable")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    assert_eq!(
        open,
        ["0", "1", "2"].map(String::from).into(),
        "init holds nothing of the runtime"
    );
    let (session, _) = shim.exec("see", "cat /proc/1/cmdline; cat /proc/1/environ; echo; ps", false);
    let (stdout, stderr) = session.finish(b"");
    let text = String::from_utf8_lossy(&stdout).replace('\0', "");
    assert!(text.starts_with("kakoi-init\n"), "{text}");
    assert!(
        !text.contains("plan.json"),
        "no path of the host is shown: {text}"
    );
    assert!(
        String::from_utf8_lossy(&stderr).contains("ermission denied"),
        "init's memory is closed"
    );
    shim.kill_container(15);
    assert_eq!(shim.end().exit_code, 9);
}

#[test]
fn watchers_come_and_go_and_garbage_is_refused() {
    if !can_run() {
        return;
    }
    let ground = Ground::new("garbage");
    let shim = start(ground.plan("sleep 1000"));
    drop(shim.ask(&Request::Watch));
    let mut garbage = shim.connect();
    garbage.send(b"{\"kill\":\n");
    assert!(matches!(garbage.word::<Reply>(), Reply::Failed { .. }));
    let mut unknown = shim.connect();
    unknown.send(b"\"reboot\"\n");
    assert!(matches!(unknown.word::<Reply>(), Reply::Failed { .. }));
    let mut giant = shim.connect();
    let piece = vec![b'x'; 1 << 20];
    // The shim answers before the last piece and may close on us.
    for _ in 0..5 {
        if std::io::Write::write_all(&mut giant.stream, &piece).is_err() {
            break;
        }
    }
    let mut mute: Vec<_> = (0..20).map(|_| shim.connect()).collect();
    mute.truncate(10);
    let (mut watch, _) = shim.ask(&Request::Watch);
    shim.kill_container(9);
    assert!(matches!(watch.event(), Event::Exited(exit) if exit.exit_code == 137));
    drop(mute);
    shim.end();
}

#[test]
fn a_client_that_does_not_read_holds_the_app_and_its_leaving_frees_it() {
    if !can_run() {
        return;
    }
    let ground = Ground::new("slow");
    let mut plan = ground.plan("read x; seq 1 400000; exit 6");
    plan.process.stdin_open = true;
    let shim = start(plan);
    let (mut slow, _) = shim.ask(&Request::Attach(ALL));
    slow.send(b"\n");
    // The control socket answers while the app waits for its reader.
    assert!(matches!(shim.ask(&Request::State).1, Reply::State(_)));
    assert!(shim.exit().is_none());
    drop(slow);
    let log = shim.plan.state_dir.join("log");
    assert_eq!(shim.end().exit_code, 6);
    let text = std::fs::read_to_string(log).expect("log");
    assert_eq!(text.lines().count(), 400_000, "no line is lost");
}

#[test]
fn a_killed_shim_takes_its_container_along_and_is_cleaned_up() {
    if !can_run() {
        return;
    }
    let ground = Ground::new("lost");
    let mut shim = start(ground.plan("sleep 1000 & sleep 1000"));
    let pid = shim.pid();
    assert!(!shim.clean(), "a living shim's container is not cleaned up");
    shim.murder();
    // The kernel ends the first process with its parent; it may still be a zombie of whoever inherits it.
    let deadline = Instant::now() + Duration::from_secs(20);
    let runs = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.contains("sleep") && !stat.contains(") Z ")
    };
    while runs() {
        assert!(Instant::now() < deadline, "the container outlives its shim");
        std::thread::yield_now();
    }
    assert!(shim.clean());
    let exit = shim.exit().expect("exit.json");
    assert!(exit.lost && exit.exit_code == 137);
    assert!(!shim.plan.run_dir.exists());
    assert!(shim.clean(), "cleaning twice is fine");
}

#[test]
fn a_second_shim_of_one_container_is_refused() {
    if !can_run() {
        return;
    }
    let ground = Ground::new("twice");
    let first = start(ground.plan("sleep 1000"));
    let second = start(first.plan.clone());
    assert!(matches!(&second.ready, Ready::Failed { message, .. } if message.contains("another shim")));
    assert!(
        matches!(first.ask(&Request::State).1, Reply::State(_)),
        "the first one is not disturbed"
    );
    first.kill_container(9);
    assert_eq!(first.end().exit_code, 137);
}

#[test]
fn the_root_file_system_is_layered_copied_mapped_or_read_only() {
    if !can_run() {
        return;
    }
    let ground = Ground::new("rootfs");
    let run = |change: &dyn Fn(&mut kakoi_container::plan::RunPlan), script: &str| {
        let mut plan = ground.plan(script);
        change(&mut plan);
        let shim = start(plan);
        shim.pid();
        let state = shim.plan.state_dir.clone();
        let code = shim.end().exit_code;
        (
            code,
            std::fs::read_to_string(state.join("log")).unwrap_or_default(),
        )
    };
    let many = |plan: &mut kakoi_container::plan::RunPlan| {
        let base = plan.rootfs.layers[0].clone();
        let make = |number: u32| {
            let layer = plan.state_dir.join(format!("layer,with:signs-{number}"));
            std::fs::create_dir_all(layer.join("etc")).expect("folder");
            std::fs::write(layer.join("etc/top"), number.to_string()).expect("file");
            layer
        };
        plan.rootfs.layers = (0..120).map(make).collect();
        plan.rootfs.layers.push(base);
    };
    let (code, log) = run(&many, "cat /etc/top");
    assert_eq!(code, 0);
    assert!(
        log.contains("\"log\":\"0\""),
        "the first layer is the topmost: {log}"
    );
    assert_eq!(
        run(
            &|plan| plan.rootfs.driver = RootfsDriver::Copy,
            "echo x > /etc/new && cat /etc/new"
        )
        .0,
        0
    );
    assert_eq!(
        run(
            &|plan| plan.confinement.filesystem.read_only_root = true,
            "echo x > /etc/new"
        )
        .0,
        1
    );
    let mapped = |plan: &mut kakoi_container::plan::RunPlan| {
        let mapping = IdMapping {
            inside: 0,
            outside: 231_072,
            count: 65_536,
        };
        plan.id_mappings.uids = vec![mapping];
        plan.id_mappings.gids = vec![mapping];
        plan.process.cwd = "/made/here".into();
        std::fs::write(plan.state_dir.join("hosts"), "127.0.0.1 localhost\n").expect("file");
    };
    let script =
        "set -e; cat /proc/self/uid_map /etc/hosts; [ -O /bin/busybox ]; [ -O . ]; touch /mine; [ -O /mine ]";
    let (code, log) = run(&mapped, script);
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("231072") && log.contains("localhost"), "{log}");
    let volume = tempfile::tempdir().expect("folder");
    let mount = MountPlan {
        target: "/etc".into(),
        kind: MountKind::Bind(volume.path().into()),
        read_only: false,
        options: Vec::new(),
        copy_up: true,
    };
    let with_volume = |plan: &mut kakoi_container::plan::RunPlan| {
        let own = plan.state_dir.join("own");
        std::fs::create_dir_all(own.join("etc")).expect("folder");
        std::fs::write(own.join("etc/from-image"), "yes").expect("file");
        plan.rootfs.layers.insert(0, own);
        plan.mounts.push(mount.clone());
    };
    assert_eq!(
        run(&with_volume, "cat /etc/from-image && echo x > /etc/written").0,
        0
    );
    assert!(volume.path().join("written").exists());
}

#[test]
fn the_runtime_cannot_be_overwritten_from_inside() {
    if !can_run() {
        return;
    }
    // CVE-2019-5736: process 1 under --init is the runtime's own program.
    let ground = Ground::new("seal");
    let mut plan = ground.plan("read x");
    plan.process.init = true;
    plan.process.stdin_open = true;
    // With CAP_SYS_PTRACE the link can be followed at all.
    plan.confinement.capabilities.bounding |= 1 << 19;
    plan.confinement.capabilities.permitted |= 1 << 19;
    plan.confinement.capabilities.effective |= 1 << 19;
    let before = std::fs::metadata(env!("CARGO_BIN_EXE_kakoi-shim"))
        .expect("the shim")
        .len();
    let shim = start(plan);
    let script = "head -c 4 /proc/1/exe | tail -c 3; echo x >> /proc/1/exe && echo WRITTEN";
    let (session, _) = shim.exec("attack", script, false);
    let (stdout, stderr) = session.finish(b"");
    assert_eq!(
        stdout, b"ELF",
        "the attacker reaches the program and cannot write to it"
    );
    let words = String::from_utf8_lossy(&stderr).into_owned();
    assert!(
        words.contains("Read-only") || words.contains("Text file busy"),
        "{words}"
    );
    assert_eq!(
        std::fs::metadata(env!("CARGO_BIN_EXE_kakoi-shim"))
            .expect("the shim")
            .len(),
        before
    );
    shim.kill_container(9);
    shim.end();
}
