//! Groups of system calls, under the names that systemd made known (`@file-system`, `@network-io` …), with contents of our own.
//!
//! Owns which call is in which group. A call may be in several. Invariant: every name exists in a table, and every group has a description.

/// A named group.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// With the `@`.
    pub(crate) name: &'static str,
    /// What it is for, for `policy show` and for the schema.
    pub(crate) about: &'static str,
    calls: &'static str,
}

impl Group {
    pub(crate) fn calls(&self) -> impl Iterator<Item = &'static str> {
        self.calls.split_ascii_whitespace()
    }

    pub(crate) fn contains(&self, call: &str) -> bool {
        self.calls().any(|name| name == call)
    }
}

/// The group of a name with its `@`.
pub(crate) fn find(name: &str) -> Option<&'static Group> {
    GROUPS.iter().find(|group| group.name == name)
}

/// Every group, in the order in which they are shown.
pub(crate) const GROUPS: &[Group] = &[
    Group {
        name: "@basic-io",
        about: "reading, writing, seeking and closing what is already open",
        calls: "read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek _llseek \
                close close_range dup dup2 dup3 pipe pipe2 fcntl fcntl64",
    },
    Group {
        name: "@io-event",
        about: "waiting for descriptors: poll, select, epoll, eventfd",
        calls: "poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64 epoll_create \
                epoll_create1 epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2 \
                eventfd eventfd2",
    },
    Group {
        name: "@file-system",
        about: "opening, naming, linking and describing files; landlock and permissions decide which",
        calls: "open openat openat2 creat stat lstat fstat stat64 lstat64 fstat64 newfstatat fstatat64 \
                statx access faccessat faccessat2 getcwd chdir fchdir getdents getdents64 readlink \
                readlinkat mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat \
                symlink symlinkat truncate truncate64 ftruncate ftruncate64 fallocate fadvise64 \
                fadvise64_64 readahead statfs statfs64 fstatfs fstatfs64 utime utimes futimesat utimensat \
                utimensat_time64 chmod fchmod fchmodat fchmodat2 umask flock copy_file_range sendfile \
                sendfile64 inotify_init inotify_init1 inotify_add_watch inotify_rm_watch cachestat \
                arm_fadvise64_64 mmap mmap2 munmap",
    },
    Group {
        name: "@file-attributes",
        about: "extended attributes of files",
        calls: "getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr setxattr lsetxattr fsetxattr \
                removexattr lremovexattr fremovexattr getxattrat listxattrat setxattrat removexattrat \
                file_getattr file_setattr",
    },
    Group {
        name: "@chown",
        about: "changing who owns a file",
        calls: "chown chown32 lchown lchown32 fchown fchown32 fchownat",
    },
    Group {
        name: "@sync",
        about: "bringing written data to storage",
        calls: "fsync fdatasync msync sync syncfs sync_file_range arm_sync_file_range",
    },
    Group {
        name: "@splice",
        about: "moving data between descriptors inside the kernel",
        calls: "splice tee vmsplice",
    },
    Group {
        name: "@aio",
        about: "the older asynchronous input and output",
        calls: "io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents io_pgetevents_time64",
    },
    Group {
        name: "@io-uring",
        about: "io_uring, whose operations no filter sees",
        calls: "io_uring_setup io_uring_enter io_uring_register",
    },
    Group {
        name: "@network-io",
        about: "using sockets; which kinds may be made is up to conditions on `socket` and to `network`",
        calls: "socket socketpair connect bind listen accept accept4 shutdown getsockname getpeername \
                getsockopt setsockopt send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg \
                recvmmsg_time64 socketcall",
    },
    Group {
        name: "@process",
        about: "starting, waiting for and naming processes and threads",
        calls: "clone clone3 fork vfork execve execveat exit exit_group wait4 waitid waitpid getpid \
                getppid gettid getpgid getpgrp setpgid getsid setsid prctl arch_prctl set_tid_address \
                set_robust_list get_robust_list rseq getrusage times uname getcpu set_thread_area \
                get_thread_area set_tls get_tls cacheflush restart_syscall membarrier personality \
                pidfd_open process_mrelease",
    },
    Group {
        name: "@signal",
        about: "sending, blocking and handling signals",
        calls: "kill tkill tgkill rt_sigaction rt_sigprocmask rt_sigpending rt_sigqueueinfo \
                rt_tgsigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 \
                sigaction sigprocmask sigpending sigreturn sigsuspend sigaltstack signal signalfd \
                signalfd4 pause pidfd_send_signal",
    },
    Group {
        name: "@memory",
        about: "mapping and advising memory",
        calls: "brk mmap mmap2 munmap mremap mprotect madvise mincore msync membarrier memfd_create \
                map_shadow_stack mseal pkey_mprotect pkey_alloc pkey_free remap_file_pages",
    },
    Group {
        name: "@memlock",
        about: "keeping memory from being swapped",
        calls: "mlock mlock2 mlockall munlock munlockall memfd_secret",
    },
    Group {
        name: "@timer",
        about: "sleeping, alarms and timers",
        calls: "nanosleep clock_nanosleep clock_nanosleep_time64 alarm getitimer setitimer timer_create \
                timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 \
                timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64",
    },
    Group {
        name: "@time",
        about: "reading clocks",
        calls: "clock_gettime clock_gettime64 clock_getres clock_getres_time64 gettimeofday time",
    },
    Group {
        name: "@clock",
        about: "setting clocks",
        calls: "adjtimex clock_adjtime clock_adjtime64 clock_settime clock_settime64 settimeofday stime",
    },
    Group {
        name: "@sync-threads",
        about: "futexes",
        calls: "futex futex_time64 futex_waitv futex_wait futex_wake futex_requeue",
    },
    Group {
        name: "@scheduler",
        about: "processor affinity and scheduling",
        calls: "sched_yield sched_getaffinity sched_setaffinity sched_getattr sched_setattr \
                sched_getparam sched_setparam sched_getscheduler sched_setscheduler \
                sched_get_priority_max sched_get_priority_min sched_rr_get_interval \
                sched_rr_get_interval_time64 getpriority setpriority nice ioprio_get ioprio_set",
    },
    Group {
        name: "@resources",
        about: "reading and lowering limits",
        calls: "getrlimit setrlimit ugetrlimit prlimit64 getrusage sysinfo",
    },
    Group {
        name: "@credentials",
        about: "reading ids and capabilities",
        calls: "getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getresuid getresuid32 \
                getresgid getresgid32 getgroups getgroups32 capget",
    },
    Group {
        name: "@setuid",
        about: "changing ids and capabilities, downward unless capabilities say otherwise",
        calls: "setuid setuid32 setgid setgid32 setreuid setreuid32 setregid setregid32 setresuid \
                setresuid32 setresgid setresgid32 setgroups setgroups32 setfsuid setfsuid32 setfsgid \
                setfsgid32 capset",
    },
    Group {
        name: "@random",
        about: "random numbers",
        calls: "getrandom",
    },
    Group {
        name: "@ipc",
        about: "System V and POSIX message queues, semaphores and shared memory",
        calls: "ipc shmget shmat shmctl shmdt semget semop semctl semtimedop semtimedop_time64 msgget \
                msgsnd msgrcv msgctl mq_open mq_unlink mq_timedsend mq_timedsend_time64 mq_timedreceive \
                mq_timedreceive_time64 mq_notify mq_getsetattr",
    },
    Group {
        name: "@sandbox",
        about: "confining oneself further",
        calls: "landlock_create_ruleset landlock_add_rule landlock_restrict_self seccomp",
    },
    Group {
        name: "@device-node",
        about: "making special files",
        calls: "mknod mknodat",
    },
    Group {
        name: "@mount",
        about: "changing what is mounted, and the root",
        calls: "mount umount umount2 pivot_root chroot fsopen fsconfig fsmount fspick open_tree \
                open_tree_attr move_mount mount_setattr",
    },
    Group {
        name: "@mount-info",
        about: "reading the table of mounts",
        calls: "statmount listmount",
    },
    Group {
        name: "@namespace",
        about: "leaving or joining namespaces",
        calls: "unshare setns",
    },
    Group {
        name: "@debug",
        about: "looking into other processes, and the kernel's measuring points",
        calls: "ptrace process_vm_readv process_vm_writev kcmp perf_event_open lookup_dcookie pidfd_getfd \
                process_madvise",
    },
    Group {
        name: "@keyring",
        about: "the kernel's keyring, which has no namespace",
        calls: "add_key request_key keyctl",
    },
    Group {
        name: "@module",
        about: "loading kernel modules",
        calls: "init_module finit_module delete_module create_module query_module get_kernel_syms",
    },
    Group {
        name: "@raw-io",
        about: "hardware ports and other memory",
        calls: "iopl ioperm",
    },
    Group {
        name: "@bpf",
        about: "loading programs into the kernel",
        calls: "bpf",
    },
    Group {
        name: "@reboot",
        about: "rebooting and loading another kernel",
        calls: "reboot kexec_load kexec_file_load",
    },
    Group {
        name: "@swap",
        about: "swap areas",
        calls: "swapon swapoff",
    },
    Group {
        name: "@handles",
        about: "opening files by handle instead of by name",
        calls: "name_to_handle_at open_by_handle_at",
    },
    Group {
        name: "@fanotify",
        about: "watching whole file systems",
        calls: "fanotify_init fanotify_mark",
    },
    Group {
        name: "@numa",
        about: "placing memory on nodes",
        calls: "mbind set_mempolicy get_mempolicy set_mempolicy_home_node migrate_pages move_pages",
    },
    Group {
        name: "@privileged",
        about: "what needs a capability and reaches beyond the container",
        calls: "acct quotactl quotactl_fd sethostname setdomainname syslog vhangup userfaultfd \
                lsm_set_self_attr lsm_get_self_attr lsm_list_modules open_by_handle_at chroot reboot \
                swapon swapoff",
    },
    Group {
        name: "@obsolete",
        about: "calls that nothing current uses",
        calls: "_sysctl afs_syscall bdflush create_module ftime get_kernel_syms getpmsg gtty idle lock \
                modify_ldt mpx nfsservctl prof profil putpmsg query_module security sgetmask ssetmask \
                stty sysfs tuxcall ulimit uselib ustat vserver vm86 vm86old",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_in_a_group_is_a_system_call() {
        for group in GROUPS {
            assert!(group.name.starts_with('@') && !group.about.is_empty());
            for call in group.calls() {
                assert!(crate::syscalls::exists(call), "{call}");
            }
        }
        assert!(find("@mount").is_some_and(|group| group.contains("fsconfig")));
        assert!(find("@mont").is_none());
    }
}
