//! `docker-default` against facts about Docker's own default (moby profiles, seccomp, June 2026): which calls it allows to a container with
//! its default capabilities, which only with one more, which by argument, and that everything else is refused.

use std::collections::BTreeSet;

use kakoi_policy::confinement::Landlock;
use kakoi_policy::kernel::Arch;
use kakoi_policy::{CapabilityWord, Requests, system_call_names};

use super::given;
use super::given::{ALLOW, ENOSYS, EPERM, answer, compiled, shipped, user};

/// Allowed to every container, whatever the arguments.
const ALWAYS: &str = "
    accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown clock_adjtime clock_getres clock_gettime
    clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old
    epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64
    fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fork fremovexattr
    fsetxattr fstat fstatfs fsync ftruncate futex futex_requeue futex_wait futex_waitv futex_wake futimesat getcpu getcwd getdents
    getdents64 getegid geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid
    getresuid getrlimit get_robust_list getrusage getsid getsockname getsockopt get_thread_area gettid gettimeofday getuid getxattr
    getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy io_getevents io_pgetevents
    ioprio_get ioprio_set io_setup io_submit kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lgetxattr link
    linkat listen listmount listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat madvise map_shadow_stack membarrier
    memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mprotect mq_getsetattr mq_notify mq_open
    mq_timedreceive mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at
    nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll
    prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv
    recvfrom recvmmsg recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction
    rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_getaffinity
    sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval sched_setaffinity
    sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop sendfile sendmmsg sendmsg
    sendto setfsgid setfsuid setgid setgroups setitimer setpgid setpriority setregid setresgid setresuid setreuid setrlimit
    set_robust_list setsid setsockopt set_thread_area set_tid_address setuid setxattr setxattrat shmat shmctl shmdt shmget shutdown
    sigaltstack signalfd signalfd4 socketpair splice stat statfs statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee
    tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime
    times tkill truncate umask uname unlink unlinkat uretprobe utime utimensat utimes vfork vmsplice wait4 waitid write writev
    process_vm_readv process_vm_writev ptrace arch_prctl modify_ldt";

/// Allowed only to containers that hold the capability. `chroot` is allowed by default, since CAP_SYS_CHROOT is held by default.
const WITH: [(&str, &str); 16] = [
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "SYS_ADMIN",
        "bpf clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount
         mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount2 unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module init_module finit_module"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("SYS_RAWIO", "iopl ioperm"),
    ("SYS_TIME", "settimeofday clock_settime"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYSLOG", "syslog"),
    ("BPF", "bpf"),
    ("PERFMON", "perf_event_open"),
    ("CHOWN", ""),
    ("NET_ADMIN", ""),
];

/// Decided by their arguments, each in a test of its own.
const BY_ARGUMENT: [&str; 3] = ["clone", "personality", "socket"];

#[test]
fn every_system_call_is_allowed_or_refused_as_docker_does() {
    let confinement = compiled(&shipped("docker-default"));
    let always: BTreeSet<&str> = ALWAYS.split_whitespace().chain(["chroot"]).collect();
    assert_eq!(
        always.len(),
        ALWAYS.split_whitespace().count() + 1,
        "no name twice"
    );
    for call in system_call_names(Arch::X86_64).filter(|call| !BY_ARGUMENT.contains(call)) {
        let want = match call {
            call if always.contains(call) => ALLOW,
            "clone3" => ENOSYS,
            _ => EPERM,
        };
        for arguments in [[0; 6], [u64::MAX; 6]] {
            assert_eq!(answer(&confinement, call, &arguments), want, "{call}");
        }
    }
    for call in always {
        assert!(
            system_call_names(Arch::X86_64).any(|known| known == call),
            "{call} is in our table"
        );
    }
}

#[test]
fn a_capability_that_is_added_opens_its_calls_and_no_others() {
    let plain = compiled(&shipped("docker-default"));
    for (name, calls) in WITH {
        let word: CapabilityWord = name.parse().expect("a capability");
        let asked = Requests {
            capabilities_add: vec![word],
            ..Requests::none()
        };
        let with = compiled(&shipped("docker-default").request(&asked));
        let opened: BTreeSet<&str> = calls.split_whitespace().collect();
        for call in system_call_names(Arch::X86_64).filter(|call| !BY_ARGUMENT.contains(call)) {
            let want = if opened.contains(call) {
                ALLOW
            } else {
                answer(&plain, call, &[0; 6])
            };
            assert_eq!(answer(&with, call, &[0; 6]), want, "{call} with {name}");
        }
    }
    let dropped = Requests {
        capabilities_drop: vec![CapabilityWord::All],
        ..Requests::none()
    };
    let without = compiled(&shipped("docker-default").request(&dropped));
    assert_eq!(
        answer(&without, "chroot", &[0; 6]),
        EPERM,
        "chroot needs its capability"
    );
    assert_eq!(without.capabilities.bounding, 0);
}

#[test]
fn sockets_personalities_and_clones_are_judged_by_their_arguments() {
    let confinement = compiled(&shipped("docker-default"));
    let closed = [12, 19, 20, 23, 25, 34, 37, 38, 40, 46, 100, u64::MAX];
    for domain in (1..46).chain(closed) {
        let want = if closed.contains(&domain) { EPERM } else { ALLOW };
        assert_eq!(
            answer(&confinement, "socket", &[domain, 1, 0, 0, 0, 0]),
            want,
            "socket family {domain}"
        );
    }
    for (persona, want) in [
        (0, ALLOW),
        (8, ALLOW),
        (0x2_0000, ALLOW),
        (0x2_0008, ALLOW),
        (0xffff_ffff, ALLOW),
        (0x4_0000, EPERM),
        (1, EPERM),
    ] {
        assert_eq!(
            answer(&confinement, "personality", &[persona, 0, 0, 0, 0, 0]),
            want,
            "personality {persona:#x}"
        );
    }
    for flag in [
        0x2_0000,
        0x200_0000,
        0x400_0000,
        0x800_0000,
        0x1000_0000,
        0x2000_0000,
        0x4000_0000,
    ] {
        assert_eq!(
            answer(&confinement, "clone", &[flag | 0x11, 0, 0, 0, 0, 0]),
            EPERM,
            "clone {flag:#x}"
        );
    }
    assert_eq!(
        answer(&confinement, "clone", &[0x3d_0f00, 0, 0, 0, 0, 0]),
        ALLOW,
        "a thread"
    );
    assert_eq!(
        answer(&confinement, "clone", &[0x11, 0, 0, 0, 0, 0]),
        ALLOW,
        "a process"
    );
}

#[test]
fn the_rest_is_dockers_too() {
    let confinement = compiled(&shipped("docker-default"));
    assert_eq!(
        confinement.capabilities.bounding, 0xa804_25fb,
        "the fourteen, as Docker's containers show in CapBnd"
    );
    assert_eq!(confinement.capabilities.effective, 0xa804_25fb);
    assert_eq!(confinement.capabilities.inheritable, 0, "CVE-2022-24769");
    assert_eq!(confinement.landlock, Landlock::Unconfined);
    assert!(!confinement.no_new_privileges);
    for path in [
        "/proc/kcore",
        "/proc/keys",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
    ] {
        assert!(
            confinement
                .filesystem
                .masked_paths
                .iter()
                .any(|masked| masked == path),
            "{path}"
        );
    }
    assert_eq!(
        confinement.filesystem.read_only_paths,
        [
            "/proc/bus",
            "/proc/fs",
            "/proc/irq",
            "/proc/sys",
            "/proc/sysrq-trigger"
        ]
    );
    let other = kakoi_policy::compile(
        &shipped("docker-default"),
        &user(1000),
        &given::kernel(Arch::X86_64),
    )
    .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        (other.capabilities.bounding, other.capabilities.effective),
        (0xa804_25fb, 0),
        "not root: none in effect"
    );
    assert_eq!((other.capabilities.permitted, other.capabilities.ambient), (0, 0));
}
