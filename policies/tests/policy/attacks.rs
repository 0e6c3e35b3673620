//! What `strict` closes, attack by attack (CVE numbers and classes), and beside each refusal the ordinary use that stays open.

use kakoi_policy::confinement::{Landlock, LandlockRuleset};
use kakoi_policy::kernel::Arch;

use super::given::{ALLOW, ENOSYS, EPERM, KILL_PROCESS, answer, answer_number, compiled, composed, shipped};

const AF_UNIX: u64 = 1;
const AF_INET: u64 = 2;
const AF_INET6: u64 = 10;
const AF_NETLINK: u64 = 16;
const STREAM: u64 = 1;
const DGRAM: u64 = 2;
const RAW: u64 = 3;
const CLOEXEC: u64 = 0x8_0000;

/// What, call, arguments, answer.
type Row = (&'static str, &'static str, [u64; 3], u32);

/// The arguments of a call whose fourth argument counts.
fn check_fourth(what: &str, call: &str, fourth: u64, want: u32) {
    let confinement = compiled(&shipped("strict"));
    assert_eq!(
        answer(&confinement, call, &[3, 0, 0, fourth, 0, 0]),
        want,
        "{what}"
    );
}

fn check(policy: &str, rows: &[Row]) {
    let confinement = compiled(&shipped(policy));
    for (what, call, [a, b, c], want) in rows {
        assert_eq!(
            answer(&confinement, call, &[*a, *b, *c, 0, 0, 0]),
            *want,
            "{policy}: {what}: {call}({a:#x}, {b:#x}, {c:#x})"
        );
    }
}

#[test]
fn socket_families_and_protocols() {
    check(
        "strict",
        &[
            ("a unix socket", "socket", [AF_UNIX, STREAM, 0], ALLOW),
            (
                "a unix socket pair",
                "socketpair",
                [AF_UNIX, STREAM | CLOEXEC, 0],
                ALLOW,
            ),
            (
                "reading addresses and routes",
                "socket",
                [AF_NETLINK, RAW | CLOEXEC, 0],
                ALLOW,
            ),
            (
                "the same with a dirty high half, which the kernel ignores",
                "socket",
                [1 << 32 | AF_UNIX, STREAM, 0],
                ALLOW,
            ),
            ("CVE-2026-31431 Copy Fail: AF_ALG", "socket", [38, 5, 0], EPERM),
            (
                "AF_ALG with a dirty high half",
                "socket",
                [1 << 32 | 38, 5, 0],
                EPERM,
            ),
            (
                "CVE-2026-43284 Dirty Frag: AF_RXRPC",
                "socket",
                [33, DGRAM, 0],
                EPERM,
            ),
            ("AF_KEY", "socket", [15, RAW, 2], EPERM),
            (
                "CVE-2020-14386, CVE-2017-7308: AF_PACKET",
                "socket",
                [17, RAW, 0x300],
                EPERM,
            ),
            ("CVE-2025-21756: AF_VSOCK", "socket", [40, STREAM, 0], EPERM),
            ("AF_XDP", "socket", [44, RAW, 0], EPERM),
            ("AF_CAN", "socket", [29, RAW, 1], EPERM),
            ("AF_BLUETOOTH", "socket", [31, RAW, 1], EPERM),
            ("AF_TIPC", "socket", [30, DGRAM, 0], EPERM),
            ("AF_SMC", "socket", [43, STREAM, 0], EPERM),
            (
                "CVE-2024-1086, CVE-2022-34918: NETLINK_NETFILTER",
                "socket",
                [AF_NETLINK, RAW, 12],
                EPERM,
            ),
            ("NETLINK_XFRM", "socket", [AF_NETLINK, RAW, 6], EPERM),
            (
                "NETLINK_AUDIT, in the way that PAM understands",
                "socket",
                [AF_NETLINK, RAW, 9],
                0x0005_005d,
            ),
            ("NETLINK_CRYPTO", "socket", [AF_NETLINK, RAW, 21], EPERM),
            ("NETLINK_GENERIC", "socket", [AF_NETLINK, RAW, 16], EPERM),
            ("NETLINK_KOBJECT_UEVENT", "socket", [AF_NETLINK, RAW, 15], EPERM),
            (
                "TCP, which strict grants no port of",
                "socket",
                [AF_INET, STREAM, 0],
                EPERM,
            ),
            ("UDP", "socket", [AF_INET, DGRAM, 0], EPERM),
            ("raw IP", "socket", [AF_INET, RAW, 255], EPERM),
            ("a socket pair of AF_TIPC", "socketpair", [30, STREAM, 0], EPERM),
        ],
    );
    check(
        "network-client",
        &[
            ("TCP", "socket", [AF_INET, STREAM | CLOEXEC, 0], ALLOW),
            ("TCP by number over IPv6", "socket", [AF_INET6, STREAM, 6], ALLOW),
            ("UDP, for names", "socket", [AF_INET, DGRAM | 0x800, 17], ALLOW),
            (
                "MPTCP (landlock-lsm/linux 54)",
                "socket",
                [AF_INET, STREAM, 262],
                EPERM,
            ),
            ("MPTCP over IPv6", "socket", [AF_INET6, STREAM, 262], EPERM),
            ("SCTP", "socket", [AF_INET, STREAM, 132], EPERM),
            ("SCTP, packets", "socket", [AF_INET, 5, 132], EPERM),
            ("SMC", "socket", [AF_INET, STREAM, 256], EPERM),
            ("DCCP", "socket", [AF_INET, 6, 33], EPERM),
            ("UDP-Lite", "socket", [AF_INET, DGRAM, 136], EPERM),
            ("L2TP", "socket", [AF_INET, DGRAM, 115], EPERM),
            (
                "echo requests, which it does not ask for",
                "socket",
                [AF_INET, DGRAM, 1],
                EPERM,
            ),
            ("raw IP", "socket", [AF_INET, RAW, 6], EPERM),
        ],
    );
    check(
        "network-server",
        &[
            ("TCP", "socket", [AF_INET6, STREAM, 0], ALLOW),
            ("UDP is no way out", "socket", [AF_INET, DGRAM, 0], EPERM),
            ("MPTCP", "socket", [AF_INET, STREAM, 262], EPERM),
        ],
    );
}

#[test]
fn flags_of_sending() {
    for (call, position) in [("sendto", 3), ("sendmmsg", 3)] {
        assert_eq!(position, 3);
        check_fourth("an ordinary send", call, 0x4000, ALLOW);
        check_fourth("TCP Fast Open (landlock-lsm/linux 41)", call, 0x2000_0000, EPERM);
        check_fourth(
            "the same among other flags and a dirty high half",
            call,
            0x1_2000_4000,
            EPERM,
        );
        check_fourth("CVE-2025-38236: out-of-band data", call, 1, EPERM);
    }
    check(
        "strict",
        &[
            ("an ordinary send", "sendmsg", [3, 0, 0x4000], ALLOW),
            ("TCP Fast Open", "sendmsg", [3, 0, 0x2000_0000], EPERM),
            ("CVE-2025-38236", "sendmsg", [3, 0, 1 << 32 | 1], EPERM),
            ("an ordinary option", "setsockopt", [3, 6, 1], ALLOW),
            ("TCP_FASTOPEN_CONNECT", "setsockopt", [3, 6, 30], EPERM),
            ("TCP_ULP", "setsockopt", [3, 6, 31], EPERM),
            (
                "the same numbers at another level",
                "setsockopt",
                [3, 1, 30],
                ALLOW,
            ),
        ],
    );
}

#[test]
fn namespaces_and_mounts() {
    check(
        "strict",
        &[
            ("a process", "clone", [0x0120_0011, 0, 0], ALLOW),
            ("a thread", "clone", [0x003d_0f00, 0, 0], ALLOW),
            (
                "CVE-2022-0185, CVE-2023-32233 …: a user namespace",
                "clone",
                [0x1000_0011, 0, 0],
                EPERM,
            ),
            ("a mount namespace", "clone", [0x0002_0011, 0, 0], EPERM),
            ("a network namespace", "clone", [0x4000_0011, 0, 0], EPERM),
            (
                "CVE-2022-0492: a cgroup namespace",
                "clone",
                [0x0200_0011, 0, 0],
                EPERM,
            ),
            ("clone3, whose flags no filter sees", "clone3", [0, 88, 0], ENOSYS),
            ("unshare", "unshare", [0x1000_0000, 0, 0], EPERM),
            ("setns", "setns", [3, 0, 0], EPERM),
            ("CVE-2023-0386: mounting overlayfs", "mount", [0, 0, 0], EPERM),
            ("CVE-2022-0185: fsconfig", "fsconfig", [3, 0, 0], EPERM),
            ("fsopen", "fsopen", [0, 0, 0], EPERM),
            ("move_mount", "move_mount", [0, 0, 0], EPERM),
            ("open_tree", "open_tree", [0, 0, 0], EPERM),
            ("mount_setattr", "mount_setattr", [0, 0, 0], EPERM),
            ("umount2", "umount2", [0, 0, 0], EPERM),
            ("pivot_root", "pivot_root", [0, 0, 0], EPERM),
            ("chroot", "chroot", [0, 0, 0], EPERM),
            ("opening a file", "openat", [0, 0, 0], ALLOW),
        ],
    );
}

#[test]
fn kernel_surface() {
    check(
        "strict",
        &[
            ("CVE-2021-3490, CVE-2022-23222", "bpf", [5, 0, 0], EPERM),
            (
                "CVE-2022-29582, CVE-2023-2598",
                "io_uring_setup",
                [8, 0, 0],
                ENOSYS,
            ),
            ("io_uring_enter", "io_uring_enter", [3, 0, 0], ENOSYS),
            ("io_uring_register", "io_uring_register", [3, 0, 0], ENOSYS),
            ("epoll stays", "epoll_create1", [0, 0, 0], ALLOW),
            ("CVE-2016-0728", "keyctl", [1, 0, 0], EPERM),
            ("add_key", "add_key", [0, 0, 0], EPERM),
            ("request_key", "request_key", [0, 0, 0], EPERM),
            ("CVE-2014-9357 Shocker", "open_by_handle_at", [3, 0, 0], EPERM),
            ("name_to_handle_at", "name_to_handle_at", [3, 0, 0], EPERM),
            ("ptrace", "ptrace", [16, 1, 0], EPERM),
            ("process_vm_readv", "process_vm_readv", [1, 0, 0], EPERM),
            ("process_vm_writev", "process_vm_writev", [1, 0, 0], EPERM),
            ("kcmp", "kcmp", [1, 1, 0], EPERM),
            ("pidfd_getfd", "pidfd_getfd", [3, 0, 0], EPERM),
            ("pidfd_open stays", "pidfd_open", [1, 0, 0], ALLOW),
            ("perf_event_open", "perf_event_open", [0, 0, 0], EPERM),
            ("userfaultfd", "userfaultfd", [0, 0, 0], EPERM),
            ("kexec_load", "kexec_load", [0, 0, 0], EPERM),
            ("reboot", "reboot", [0, 0, 0], EPERM),
            ("init_module", "init_module", [0, 0, 0], EPERM),
            ("finit_module", "finit_module", [3, 0, 0], EPERM),
            ("iopl", "iopl", [3, 0, 0], EPERM),
            ("modify_ldt", "modify_ldt", [1, 0, 0], EPERM),
            ("the kernel log", "syslog", [3, 0, 0], EPERM),
            ("swapon", "swapon", [0, 0, 0], EPERM),
            ("acct", "acct", [0, 0, 0], EPERM),
            ("settimeofday", "settimeofday", [0, 0, 0], EPERM),
            ("clock_settime", "clock_settime", [0, 0, 0], EPERM),
            ("clock_adjtime", "clock_adjtime", [0, 0, 0], EPERM),
            ("clock_gettime stays", "clock_gettime", [0, 0, 0], ALLOW),
            ("fanotify_init", "fanotify_init", [0, 0, 0], EPERM),
            ("inotify stays", "inotify_init1", [0, 0, 0], ALLOW),
            (
                "personality ADDR_NO_RANDOMIZE",
                "personality",
                [0x4_0000, 0, 0],
                EPERM,
            ),
            (
                "personality READ_IMPLIES_EXEC",
                "personality",
                [0x40_0000, 0, 0],
                EPERM,
            ),
            (
                "asking for the personality",
                "personality",
                [0xffff_ffff, 0, 0],
                ALLOW,
            ),
            (
                "splice stays (Dirty Pipe is closed by the image's read-only storage)",
                "splice",
                [0, 0, 0],
                ALLOW,
            ),
        ],
    );
}

#[test]
fn terminals_and_nodes() {
    check(
        "strict",
        &[
            ("reading a terminal's settings", "ioctl", [0, 0x5401, 0], ALLOW),
            ("its size", "ioctl", [0, 0x5413, 0], ALLOW),
            ("CVE-2019-10063: TIOCSTI", "ioctl", [0, 0x5412, 0], EPERM),
            (
                "CVE-2019-7303: TIOCSTI with a dirty high half",
                "ioctl",
                [0, 0x1_0000_5412, 0],
                EPERM,
            ),
            ("CVE-2023-1523: TIOCLINUX", "ioctl", [0, 0x541c, 0], EPERM),
            (
                "TIOCLINUX with a dirty high half",
                "ioctl",
                [0, 0xffff_ffff_0000_541c, 0],
                EPERM,
            ),
            ("TIOCSETD", "ioctl", [0, 0x5423, 0], EPERM),
            ("TIOCCONS", "ioctl", [0, 0x541d, 0], EPERM),
            ("a named pipe", "mknodat", [0, 0, 0o010_644], ALLOW),
            ("a file", "mknodat", [0, 0, 0o100_644], ALLOW),
            ("a file, by no type", "mknodat", [0, 0, 0o644], ALLOW),
            ("a raw disk", "mknodat", [0, 0, 0o060_644], EPERM),
            ("/dev/mem", "mknodat", [0, 0, 0o020_666], EPERM),
            (
                "/dev/mem with a dirty high half",
                "mknodat",
                [0, 0, 1 << 32 | 0o020_666],
                EPERM,
            ),
            ("/dev/mem by the older call", "mknod", [0, 0o020_666, 0], EPERM),
            (
                "a named pipe by the older call",
                "mknod",
                [0, 0o010_666, 0],
                ALLOW,
            ),
        ],
    );
}

#[test]
fn other_entry_points() {
    for policy in ["strict", "docker-default", "network-client", "network-server"] {
        let c = compiled(&shipped(policy));
        assert_eq!(
            answer_number(&c, 0x4000_0003, 4, &[0; 6]),
            KILL_PROCESS,
            "{policy}: i386 write"
        );
        assert_eq!(
            answer_number(&c, 0xc000_00b7, 64, &[0; 6]),
            KILL_PROCESS,
            "{policy}: arm64 write"
        );
        for number in [0, 1, 101, 520, 547] {
            assert_eq!(
                answer_number(&c, 0xc000_003e, 0x4000_0000 | number, &[0; 6]),
                EPERM,
                "{policy}: x32 {number}"
            );
        }
        assert_eq!(
            answer_number(&c, 0xc000_003e, u32::MAX, &[0; 6]),
            EPERM,
            "{policy}: -1"
        );
        assert_eq!(
            answer_number(&c, 0xc000_003e, 1, &[0; 6]),
            ALLOW,
            "{policy}: write"
        );
        for unknown in [337, 423, 470, 1000, 0x3fff_ffff] {
            assert_eq!(
                answer_number(&c, 0xc000_003e, unknown, &[0; 6]),
                ENOSYS,
                "{policy}: unknown {unknown}"
            );
        }
    }
}

#[test]
fn what_programs_need_to_start_is_there() {
    let needed = "execve brk mmap mprotect munmap mremap madvise openat open read readv pread64 write writev close fstat newfstatat statx \
        lseek access faccessat faccessat2 readlink readlinkat getcwd getdents64 arch_prctl set_tid_address set_robust_list rseq prlimit64 \
        getrlimit getrandom futex futex_waitv rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack rt_sigtimedwait membarrier sched_getaffinity \
        sched_setaffinity sched_yield sched_getparam sched_getscheduler sched_get_priority_max gettid getpid getppid getuid geteuid getgid \
        getegid getgroups uname sysinfo clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday poll ppoll select pselect6 \
        epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 eventfd2 timerfd_create timerfd_settime signalfd4 pipe2 dup dup3 fcntl ioctl flock \
        fsync fdatasync ftruncate fallocate rename renameat2 unlink unlinkat mkdir mkdirat chmod fchmod fchmodat2 chown fchown fchownat umask \
        utimensat getxattr lgetxattr setuid setgid setgroups setresuid setresgid setsid setpgid getpgrp capget capset prctl wait4 waitid \
        kill tgkill exit exit_group vfork fork execveat sendfile copy_file_range bind listen accept4 connect getsockname \
        getpeername setsockopt getsockopt sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg shutdown memfd_create mlock shmget shmat semop \
        mincore close_range pidfd_send_signal inotify_init1 inotify_add_watch io_setup io_submit getcpu times getrusage splice tee landlock_create_ruleset seccomp";
    for arch in [Arch::X86_64, Arch::Aarch64] {
        for policy in ["strict", "docker-default"] {
            let facts = super::given::kernel(arch);
            let c = kakoi_policy::compile(&shipped(policy), &super::given::user(0), &facts)
                .unwrap_or_else(|e| panic!("{e}"));
            for call in needed.split_whitespace() {
                if kakoi_policy::system_call_number(arch, call).is_some() {
                    assert_eq!(answer(&c, call, &[0; 6]), ALLOW, "{policy} {arch:?} {call}");
                }
            }
        }
    }
}

fn ruleset(policy: &str) -> LandlockRuleset {
    match compiled(&shipped(policy)).landlock {
        Landlock::Ruleset(ruleset) => ruleset,
        Landlock::Unconfined => panic!("{policy} has landlock rules"),
    }
}

#[test]
fn files_under_strict() {
    let rules = ruleset("strict");
    let on = |path: &str| {
        rules
            .paths
            .iter()
            .filter(|rule| rule.path == path)
            .fold(0, |access, rule| access | rule.access)
    };
    const EXECUTE: u64 = 1;
    const WRITE_FILE: u64 = 1 << 1;
    const READ_FILE: u64 = 1 << 2;
    const MAKE_REG: u64 = 1 << 8;
    const MAKE_DEVICES: u64 = 1 << 6 | 1 << 11;
    const IOCTL_DEV: u64 = 1 << 15;
    assert_eq!(on("/") & (EXECUTE | READ_FILE), EXECUTE | READ_FILE);
    assert_eq!(
        on("/") & (WRITE_FILE | MAKE_REG | IOCTL_DEV),
        0,
        "the image itself is not written to"
    );
    for folder in ["/tmp", "/run", "/var/tmp", "/dev/shm"] {
        assert_eq!(
            on(folder) & (WRITE_FILE | MAKE_REG),
            WRITE_FILE | MAKE_REG,
            "{folder}"
        );
    }
    for node in ["/dev/null", "/dev/tty", "/dev/pts"] {
        assert_eq!(
            on(node) & (READ_FILE | WRITE_FILE | IOCTL_DEV),
            READ_FILE | WRITE_FILE | IOCTL_DEV,
            "{node}"
        );
    }
    assert!(
        rules.paths.iter().all(|rule| rule.access & MAKE_DEVICES == 0),
        "nobody makes device nodes"
    );
    assert_eq!(rules.handled_fs, 0xffff, "all sixteen rights are under control");
    assert_eq!(rules.handled_net, 3);
    assert!(rules.ports.is_empty());
    for path in [
        "/proc/sysrq-trigger",
        "/proc/kcore",
        "/sys/kernel/debug",
        "/sys/kernel/security",
    ] {
        assert!(
            compiled(&shipped("strict"))
                .filesystem
                .masked_paths
                .iter()
                .any(|p| p == path),
            "{path}"
        );
    }
    assert_eq!(
        compiled(&shipped("strict")).capabilities.inheritable,
        0,
        "CVE-2022-24769"
    );
    assert!(
        compiled(&shipped("strict")).no_new_privileges,
        "CVE-2021-4034 and its kind"
    );
}

#[test]
fn a_policy_with_one_port_lets_nothing_else_out() {
    let policy = composed("kakoi: 1\nextends: [strict]\nnetwork: {mode: host, connect: [8883]}\n");
    let c = compiled(&policy);
    let Landlock::Ruleset(rules) = &c.landlock else {
        panic!("there are rules")
    };
    assert_eq!(
        rules
            .ports
            .iter()
            .map(|rule| (rule.port, rule.access))
            .collect::<Vec<_>>(),
        [(8883, 2)]
    );
    assert_eq!(
        rules.handled_net, 3,
        "binding is under control too, and granted nowhere"
    );
    assert_eq!(
        rules.scoped, 1,
        "CVE-2020-15257: abstract sockets of the host stay out of reach"
    );
    assert_eq!(answer(&c, "socket", &[AF_INET, STREAM, 0, 0, 0, 0]), ALLOW);
    for (what, socket) in [
        ("UDP", [AF_INET, DGRAM, 0]),
        ("UDP over IPv6", [AF_INET6, DGRAM, 17]),
        ("MPTCP", [AF_INET6, STREAM, 262]),
        ("raw", [AF_INET, RAW, 255]),
    ] {
        let [a, b, d] = socket;
        assert_eq!(answer(&c, "socket", &[a, b, d, 0, 0, 0]), EPERM, "{what}");
    }
    assert_eq!(
        answer(&c, "sendto", &[3, 0, 0, 0x2000_0000, 0, 0]),
        EPERM,
        "fast open"
    );
}
