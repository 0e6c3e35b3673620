//! Confinement as a program meets it: each test applies one to a process that then executes another, and asks that one.
//!
//! A harness of its own, because what is confined must have one thread, and the program that tests is also the one that is confined
//! (`role-confine`) and the one that is executed (`role-report`).

mod given;
#[path = "../../../../integration/src/required.rs"]
mod required;
mod roles;
mod shipped;

use std::process::ExitCode;

use given::{Given, Outcome};
use kakoi_policy::confinement::{CapabilitySets, Identity, Landlock, LandlockRuleset, PathRule, Seccomp};

const CHOWN: u64 = 1;
const SETUID: u64 = 1 << 7;
const SYS_ADMIN: u64 = 1 << 21;

type Check = fn();

const CHECKS: [(&str, Check); 24] = [
    ("exec_holds_what_the_confinement_says", exec_holds_what_it_says),
    ("exec_of_another_user_holds_no_more", exec_of_another_user),
    ("first_process_is_verified", first_process_is_verified),
    ("each_flaw_of_the_first_process_is_found", each_flaw_is_found),
    (
        "without_no_new_privileges_execve_takes_sys_admin",
        execve_takes_sys_admin,
    ),
    ("set_user_id_works_only_without_no_new_privileges", set_user_id),
    ("stale_groups_are_dropped", stale_groups),
    ("inherited_descriptors_are_closed", inherited_descriptors),
    ("a_directory_as_standard_input_is_refused", directory_as_input),
    ("a_working_directory_outside_is_refused", directory_outside),
    ("denied_and_unknown_calls_differ", denied_and_unknown),
    ("other_entry_points_are_refused", other_entry_points),
    (
        "filters_that_refuse_everything_we_ask_are_applied",
        silent_filters,
    ),
    (
        "filters_of_another_architecture_or_none_are_refused",
        wrong_filters,
    ),
    ("landlock_grants_what_is_listed", landlock_grants),
    ("a_missing_path_stops_the_start_by_its_rule", missing_path),
    ("a_folder_of_one_user_does_not_keep_out_another", private_folder),
    (
        "a_kernel_without_the_required_landlock_stops_the_start",
        landlock_missing,
    ),
    ("a_user_namespace_is_confined_as_well", user_namespace),
    ("a_listener_gets_its_descriptor_or_nothing_starts", listener),
    ("shipped_policies_refuse_what_they_say", shipped::calls),
    ("one_allowed_port_lets_nothing_else_out", shipped::ports),
    (
        "set_user_id_works_as_the_shipped_policies_say",
        shipped::set_user_id,
    ),
    ("every_shipped_policy_starts", shipped::every_policy_starts),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("role-confine") => roles::confine(&arguments[1..]),
        Some("role-report") => roles::report(&arguments[1..]),
        Some("--list") => {
            // nextest asks for ignored tests in a second call; there are none.
            if !arguments.iter().any(|argument| argument == "--ignored") {
                CHECKS.iter().for_each(|(name, _)| println!("{name}: test"));
            }
            ExitCode::SUCCESS
        }
        _ => run(&arguments),
    }
}

fn run(arguments: &[String]) -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        required::leave_out("root", "confinement needs root");
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    for (name, check) in CHECKS {
        if wanted.is_empty() || wanted.iter().any(|filter| name.contains(filter.as_str())) {
            check();
            println!("{name}: ok");
        }
    }
    ExitCode::SUCCESS
}

fn sets(held: u64) -> CapabilitySets {
    CapabilitySets {
        bounding: held,
        permitted: held,
        effective: held,
        inheritable: 0,
        ambient: 0,
    }
}

fn exec_holds_what_it_says() {
    let outcome = Given::root().exec();
    assert_eq!(outcome.status("CapBnd"), "0000000000000081");
    assert_eq!(outcome.status("CapPrm"), "0000000000000081");
    assert_eq!(outcome.status("CapEff"), "0000000000000081");
    assert_eq!(outcome.status("NoNewPrivs"), "1");
    assert_eq!(outcome.status("Seccomp"), "2");
    assert_eq!(outcome.status("Seccomp_filters"), "2");
    assert_eq!(outcome.status("Umask"), "0027");
    // CVE-2022-29162 and its kin: nothing inheritable, nothing ambient.
    assert_eq!(outcome.status("CapInh"), "0000000000000000");
    assert_eq!(outcome.status("CapAmb"), "0000000000000000");

    let mut given = Given::user(1000, 100);
    given.confinement.capabilities = CapabilitySets {
        bounding: CHOWN,
        permitted: CHOWN,
        effective: CHOWN,
        inheritable: CHOWN,
        ambient: CHOWN,
    };
    let outcome = given.exec();
    assert_eq!(outcome.status("Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(outcome.status("Gid"), "100\t100\t100\t100");
    assert_eq!(outcome.status("Groups"), "20 100");
    for set in ["CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"] {
        assert_eq!(outcome.status(set), "0000000000000001", "{set}");
    }
}

fn exec_of_another_user() {
    let mut given = Given::root();
    given.exec_as = Some(Identity {
        uid: 1000,
        gid: 100,
        groups: vec![],
        umask: 0o22,
    });
    let outcome = given.exec();
    assert_eq!(outcome.status("Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(outcome.status("CapPrm"), "0000000000000000");
    assert_eq!(outcome.status("CapBnd"), "0000000000000081");

    let mut given = Given::user(1000, 100);
    given.confinement.capabilities = CapabilitySets {
        permitted: 0,
        effective: 0,
        ..sets(CHOWN | SETUID)
    };
    given.exec_as = Some(Identity {
        uid: 0,
        gid: 0,
        groups: vec![],
        umask: 0o22,
    });
    let outcome = given.exec();
    assert_eq!(outcome.status("Uid"), "0\t0\t0\t0");
    assert_eq!(outcome.status("CapPrm"), "0000000000000081");
}

fn first_process_is_verified() {
    let outcome = Given::user(1000, 100).first_process("nothing");
    assert_eq!(outcome.status("Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(outcome.status("Seccomp_filters"), "2");
}

fn each_flaw_is_found() {
    for (flaw, step, word) in [
        ("privileges", "identity", "no_new_privs is false"),
        ("saved-user", "identity", "the user is 1000, 1000, 0"),
        ("saved-group", "identity", "the group is 100, 100, 0"),
        ("groups", "identity", "supplementary groups are [0"),
        ("secure-bits", "identity", "secure bits"),
        ("bounding", "capabilities", "the bounding set"),
        ("permitted", "capabilities", "the permitted set"),
        ("inheritable", "capabilities", "the inheritable set"),
        ("ambient", "capabilities", "the ambient set"),
    ] {
        let failure = Given::user(1000, 100).first_process(flaw).failure();
        assert_eq!(failure.step, step, "{flaw}: {failure:?}");
        assert!(failure.message.contains(word), "{flaw}: {failure:?}");
    }
}

fn execve_takes_sys_admin() {
    for entry in [Given::exec as fn(&Given) -> Outcome, |given| {
        given.first_process("nothing")
    }] {
        let mut given = Given::user(1000, 100);
        given.confinement.no_new_privileges = false;
        let outcome = entry(&given);
        assert_eq!(outcome.status("NoNewPrivs"), "0");
        assert_eq!(outcome.status("Seccomp_filters"), "2");
        for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
            assert_eq!(outcome.status(set), "0000000000000000", "{set}");
        }
        assert_eq!(outcome.status("CapBnd"), "0000000000000081");
    }
    let mut given = Given::root();
    given.confinement.no_new_privileges = false;
    assert_eq!(given.exec().status("CapPrm"), "0000000000000081");
    // Who is allowed it keeps it: the step takes what is not bounded and nothing else.
    given.confinement.capabilities = sets(CHOWN | SYS_ADMIN);
    assert_eq!(given.exec().status("CapPrm"), "0000000000200001");
}

fn set_user_id() {
    for (no_new_privileges, effective) in [(true, "1000"), (false, "0")] {
        let mut given = Given::user(1000, 100);
        given.confinement.no_new_privileges = no_new_privileges;
        given.set_user_id = true;
        let outcome = given.exec();
        assert_eq!(outcome.status("Uid").split('\t').nth(1), Some(effective));
    }
}

fn stale_groups() {
    let mut given = Given::user(1000, 100);
    given.confinement.identity.groups.clear();
    // The harness holds groups 0 and 7 when it begins.
    assert_eq!(given.exec().status("Groups"), "");
}

fn inherited_descriptors() {
    let mut given = Given::root();
    given.leak = true;
    assert_eq!(given.report(&["descriptors"]).line(0), "0 1 2");
    given.preserve = true;
    assert_eq!(given.report(&["descriptors"]).line(0), "0 1 2 77");
}

fn directory_as_input() {
    let mut given = Given::root();
    given.directory_as_input = true;
    let failure = given.exec().failure();
    assert_eq!(failure.step, "descriptors");
    assert!(
        failure.message.contains("standard stream 0 is a directory"),
        "{failure:?}"
    );
}

fn directory_outside() {
    let mut given = Given::root();
    given.directory_outside = true;
    let failure = given.exec().failure();
    assert!(
        failure.message.contains("working directory is outside"),
        "{failure:?}"
    );
}

fn denied_and_unknown() {
    let given = Given::root();
    assert_eq!(given.call(given::CALL_ALLOWED), "done");
    assert_eq!(given.call(given::CALL_DENIED), format!("errno {}", libc::EPERM));
    assert_eq!(given.call(given::CALL_UNKNOWN), format!("errno {}", libc::ENOSYS));
}

fn other_entry_points() {
    if !cfg!(target_arch = "x86_64") {
        println!("SKIP other entry points: only x86_64 has x32");
        return;
    }
    let given = Given::root();
    let x32 = |call| call | 0x4000_0000;
    assert_eq!(
        given.call(x32(given::CALL_ALLOWED)),
        format!("errno {}", libc::ENOSYS)
    );
    // i386's numbers mean other calls: its 1 is exit, and write here.
    let mut free = Given::root();
    free.confinement.seccomp = Seccomp::Unconfined;
    if !free.run_foreign().is_success() {
        println!("SKIP i386 entry point: the kernel runs no 32-bit programs");
        return;
    }
    let outcome = given.run_foreign();
    assert!(outcome.killed_by(libc::SIGSYS), "{outcome:?}");
}

fn silent_filters() {
    // read and prctl are refused, so neither /proc nor the mode can be asked; the program still starts.
    let mut given = Given::root();
    given.confinement.seccomp = Seccomp::Filters(vec![given::filter("silent", &given::SILENT)]);
    let outcome = given.report(&["word"]);
    assert_eq!(outcome.line(0), "word");
    assert!(
        outcome.receipt("seccomp").contains("1 filters accepted"),
        "{outcome:?}"
    );
}

fn wrong_filters() {
    let mut given = Given::root();
    given.confinement.arch = given::other_arch();
    assert!(given.exec().failure().message.contains("the filters are for"));
    let mut given = Given::root();
    given.confinement.seccomp = Seccomp::Filters(vec![]);
    assert_eq!(given.exec().failure().step, "seccomp");
    let mut given = Given::root();
    let mut broken = given::filter("broken", &[]);
    broken.program.pop();
    given.confinement.seccomp = Seccomp::Filters(vec![broken]);
    let failure = given.exec().failure();
    assert_eq!(failure.rule.as_deref(), Some("broken"), "{failure:?}");
}

fn listener() {
    use std::os::fd::AsFd;
    let folder = tempfile::tempdir().expect("tmp is writable");
    let path = folder.path().join("agent");
    let agent = std::os::unix::net::UnixListener::bind(&path).expect("the name is new");
    // An agent that takes the descriptor and closes it: from then on the call it was asked about is ENOSYS.
    let agent = std::thread::spawn(move || {
        let (stream, _) = agent.accept().expect("the process connects");
        let received = kakoi_sys::socket::receive_descriptors(stream.as_fd(), &mut [0; 8]);
        received.expect("a message comes").1.len()
    });
    let mut given = Given::root();
    given.confinement.seccomp = Seccomp::Filters(vec![given::asking_filter(given::CALL_DENIED, &path)]);
    given.deliver = true;
    assert_eq!(given.call(given::CALL_DENIED), format!("errno {}", libc::ENOSYS));
    assert_eq!(agent.join().expect("the agent ends"), 1);

    given.deliver = false;
    let failure = given.exec().failure();
    assert_eq!(failure.rule.as_deref(), Some("asked calls"));
    assert!(failure.message.contains("cannot be reached"), "{failure:?}");
}

/// READ_FILE and READ_DIR beside EXECUTE; the last is not handled, so that programs need no rule of their own.
const READ: u64 = 1 << 2 | 1 << 3;

fn ruleset(paths: Vec<PathRule>) -> Landlock {
    Landlock::Ruleset(LandlockRuleset {
        abi: 1,
        handled_fs: READ,
        handled_net: 0,
        scoped: 0,
        paths,
        ports: vec![],
    })
}

fn path(path: &str, access: u64, optional: bool) -> PathRule {
    PathRule {
        path: path.to_owned(),
        access,
        optional,
        rule: format!("app.yaml:7:3 files.read {path}"),
    }
}

fn landlock_grants() {
    for no_new_privileges in [true, false] {
        let mut given = Given::user(1000, 100);
        given.confinement.no_new_privileges = no_new_privileges;
        let rules = vec![
            path("/proc", READ, false),
            path("/etc/passwd", READ, false),
            path("/no/such", READ, true),
        ];
        given.confinement.landlock = ruleset(rules);
        let outcome = given.report(&["read", "/etc/passwd", "/etc/group"]);
        assert_eq!(outcome.line(0), "/etc/passwd: read");
        assert_eq!(outcome.line(1), format!("/etc/group: errno {}", libc::EACCES));
        assert!(
            outcome
                .receipt("landlock")
                .contains("missing or links, and optional: /no/such"),
            "{outcome:?}"
        );
    }
    let unconfined = Given::user(1000, 100).report(&["read", "/etc/group"]);
    assert_eq!(unconfined.line(0), "/etc/group: read");
}

fn missing_path() {
    let mut given = Given::root();
    given.confinement.landlock = ruleset(vec![path("/no/such", READ, false)]);
    let failure = given.exec().failure();
    assert_eq!(failure.rule.as_deref(), Some("app.yaml:7:3 files.read /no/such"));
    assert!(
        failure.message.contains("/no/such") && failure.message.contains("ENOENT"),
        "{failure:?}"
    );
    // Only rights of directories, on a file: the rule would grant nothing.
    given.confinement.landlock = ruleset(vec![path("/etc/passwd", 1 << 3, false)]);
    assert!(
        given.exec().failure().message.contains("grants nothing"),
        "a rule that grants nothing is an error"
    );
}

fn private_folder() {
    let folder = tempfile::tempdir().expect("tmp is writable");
    let inner = folder.path().join("inner");
    std::fs::create_dir(&inner).expect("the folder is ours");
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .expect("it is ours");
    let rules = ruleset(vec![
        path("/proc", READ, false),
        path(inner.to_str().expect("a plain name"), READ, false),
    ]);
    let mut given = Given::root();
    given.confinement.landlock = rules.clone();
    given.exec_as = Some(Identity {
        uid: 1000,
        gid: 100,
        groups: vec![],
        umask: 0o22,
    });
    assert_eq!(given.exec().status("CapEff"), "0000000000000000");
    // The container's own user cannot use such a rule, which is a mistake in the policy and told as one.
    let mut given = Given::user(1000, 100);
    given.confinement.landlock = rules;
    let failure = given.first_process("nothing").failure();
    assert!(failure.message.contains("EACCES"), "{failure:?}");
}

fn landlock_missing() {
    let mut given = Given::root();
    let Landlock::Ruleset(mut rules) = ruleset(vec![path("/etc", READ, false)]) else {
        unreachable!("it is a ruleset")
    };
    rules.abi = 99;
    given.confinement.landlock = Landlock::Ruleset(rules);
    let failure = given.exec().failure();
    assert!(failure.message.contains("need landlock ABI 99"), "{failure:?}");
    assert_eq!(failure.rule.as_deref(), Some("app.yaml:7:3 files.read /etc"));

    // A kernel without landlock, as far as this process can see.
    given.confinement.landlock = ruleset(vec![path("/etc", READ, false)]);
    given.hide_landlock = true;
    let failure = given.exec().failure();
    assert!(
        failure
            .message
            .contains("need landlock ABI 1, and the kernel has 0"),
        "{failure:?}"
    );
    given.hide_landlock = false;
    given.confinement.landlock = ruleset(vec![path("/proc", READ, false)]);
    assert_eq!(given.exec().status("NoNewPrivs"), "1");
}

fn user_namespace() {
    for no_new_privileges in [true, false] {
        let mut given = Given::root();
        given.user_namespace = true;
        given.confinement.no_new_privileges = no_new_privileges;
        given.confinement.landlock = ruleset(vec![path("/proc", READ, false)]);
        let outcome = given.exec();
        assert_eq!(outcome.status("Uid"), "0\t0\t0\t0");
        assert_eq!(outcome.status("CapPrm"), "0000000000000081");
        assert_eq!(outcome.status("Seccomp_filters"), "2");
        assert_eq!(
            given.report(&["read", "/etc/group"]).line(0),
            format!("/etc/group: errno {}", libc::EACCES)
        );
    }
}
