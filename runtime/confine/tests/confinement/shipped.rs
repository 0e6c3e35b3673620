//! The shipped policies as the kernel enforces them: from their text to a program that is refused.
//!
//! What Docker's default lets through stands beside what it refuses; what `strict` refuses was first seen to work without it.

use super::given::Given;

const EPERM: &str = "errno 1";
const EACCES: &str = "errno 13";
const ENOSYS: &str = "errno 38";

/// Makes a system call of x86_64 in a program under a policy; `done` or the errno.
fn call(given: &Given, arguments: &str) -> String {
    given.perl(&format!(
        "my $p = '/kakoi-none/x'; $r = syscall({arguments}); print $r == -1 ? 'errno ' . ($! + 0) : 'done'"
    ))
}

fn is_x86_64() -> bool {
    if !cfg!(target_arch = "x86_64") {
        println!("SKIP calls of shipped policies: the numbers here are x86_64's");
    }
    cfg!(target_arch = "x86_64")
}

/// A call, as Perl's `syscall` takes it, and what it gives unconfined, under Docker's default and under `strict`.
const CALLS: [(&str, &str, &str, &str); 16] = [
    // socket(AF_UNIX), socket(AF_INET), socket(AF_INET, …, IPPROTO_MPTCP), socket(AF_ALG)
    ("41, 1, 1, 0", "done", "done", "done"),
    ("41, 2, 1, 0", "done", "done", EPERM),
    ("41, 2, 1, 262", "done", "done", EPERM),
    ("41, 38, 5, 0", "done or none", EPERM, EPERM),
    // socket(AF_NETLINK) for routes and for netfilter
    ("41, 16, 3, 0", "done", "done", "done"),
    ("41, 16, 3, 12", "done", "done", EPERM),
    // unshare(CLONE_NEWUSER), mount, keyctl, bpf, io_uring_setup, clone3
    ("272, 0x10000000", "done", EPERM, EPERM),
    ("165, 0, 0, 0, 0, 0", "errno 14", EPERM, EPERM),
    ("250, 0, -3, 0", "done", EPERM, EPERM),
    ("321, 0, 0, 0", "errno 22", EPERM, EPERM),
    ("425, 0, 0", "errno 14", EPERM, ENOSYS),
    ("435, 0, 0", "errno 22", ENOSYS, ENOSYS),
    // ioctl(0, TIOCSTI) with and without rubbish in the upper half, which the kernel ignores (CVE-2019-10063)
    ("16, 0, 0x5412, 0", "errno 25", "errno 25", EPERM),
    ("16, 0, 0x100005412, 0", "errno 25", "errno 25", EPERM),
    // mknod of a character device and of a pipe: the folder of a device node is what Docker's capability decides
    ("133, $p, 0020666, 0x103", "errno 2", "errno 2", EPERM),
    ("133, $p, 0010666, 0", "errno 2", "errno 2", "errno 2"),
];

/// Unconfined, Docker's default and `strict` differ where they say so and nowhere else.
pub fn calls() {
    if !is_x86_64() {
        return;
    }
    let policies = [
        Given::unconfined(),
        Given::policy("extends: [docker-default]"),
        Given::policy("extends: [strict]"),
    ];
    for (arguments, free, docker, strict) in CALLS {
        for (given, wanted) in policies.iter().zip([free, docker, strict]) {
            let found = call(given, arguments);
            let name = &given.confinement.policy.name;
            match wanted {
                // Not every kernel has AF_ALG.
                "done or none" => assert!(
                    found == "done" || found == "errno 97",
                    "syscall({arguments}) in {name}: {found}"
                ),
                wanted => assert_eq!(found, wanted, "syscall({arguments}) in {name}"),
            }
        }
    }
}

/// A TCP connection to a port, in three ways.
fn connect(given: &Given, how: &str, port: u16) -> String {
    let (protocol, act) = match how {
        "tcp" => (0, "connect(S, $to)"),
        "mptcp" => (262, "connect(S, $to)"),
        "fastopen" => (0, "defined(send(S, 'x', 0x20000000, $to))"),
        other => unreachable!("{other}"),
    };
    given.perl(&format!(
        "use Socket; my $to = pack_sockaddr_in({port}, inet_aton('127.0.0.1')); \
         (socket(S, AF_INET, SOCK_STREAM, {protocol}) and {act}) ? print 'done' : print 'errno ' . ($! + 0)"
    ))
}

/// One allowed port lets nothing else out, by none of the ways around landlock's rules on ports.
pub fn ports() {
    if kakoi_sys::system::landlock_abi().is_ok_and(|abi| abi < 4) {
        println!("SKIP ports: this kernel's landlock has no rules for them");
        return;
    }
    let listen = || std::net::TcpListener::bind("127.0.0.1:0").expect("loopback is up");
    let port = |listener: &std::net::TcpListener| listener.local_addr().expect("it is bound").port();
    let (allowed, other) = (listen(), listen());
    let policy = format!("extends: [strict]\nnetwork: {{connect: [{}]}}", port(&allowed));
    let (free, confined) = (Given::unconfined(), Given::policy(&policy));
    for (how, to_allowed, to_other) in [
        ("tcp", "done", EACCES),
        ("mptcp", EPERM, EPERM),
        ("fastopen", EPERM, EPERM),
    ] {
        assert_eq!(
            connect(&free, how, port(&other)),
            "done",
            "{how} works without a policy"
        );
        assert_eq!(
            connect(&confined, how, port(&allowed)),
            to_allowed,
            "{how} to the allowed port"
        );
        assert_eq!(
            connect(&confined, how, port(&other)),
            to_other,
            "{how} to another port"
        );
    }
}

/// A set-user-ID program works under Docker's default, and not under `strict`.
pub fn set_user_id() {
    for (policy, effective) in [("docker-default", "0"), ("strict", "1000")] {
        let mut given = Given::policy_of(&format!("extends: [{policy}]"), 1000, 1000);
        given.set_user_id = true;
        let outcome = given.exec();
        assert_eq!(
            outcome.status("Uid").split('\t').nth(1),
            Some(effective),
            "{policy}"
        );
    }
}

/// Every shipped policy starts a program, for root and for another user, and gives it no more than its sets.
pub fn every_policy_starts() {
    for profile in kakoi_policy::SHIPPED {
        for user in [0, 1000] {
            let given = Given::policy_of(&format!("extends: [{}]", profile.name), user, user);
            let outcome = given.exec();
            let bounding = format!("{:016x}", given.confinement.capabilities.bounding);
            assert_eq!(
                outcome.status("CapBnd"),
                bounding,
                "{} of user {user}",
                profile.name
            );
            if user != 0 {
                let ambient = format!("{:016x}", given.confinement.capabilities.ambient);
                assert_eq!(
                    outcome.status("CapEff"),
                    ambient,
                    "{} of user {user}",
                    profile.name
                );
            }
            assert_eq!(
                outcome.status("CapInh"),
                format!("{:016x}", given.confinement.capabilities.inheritable)
            );
        }
    }
}
