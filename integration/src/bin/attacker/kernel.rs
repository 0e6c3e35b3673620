//! Attacks on the kernel's surface: calls that an ordinary app never makes and that the advisories of the last ten years went through.
//!
//! Most are a number, arguments, and the knowledge of which check the kernel makes first: an error after the permission check (bad address,
//! invalid argument) means that the gate stood open.

use nix::errno::Errno;

use crate::raw::{Outcome, address, c_path, call};
use crate::{Attack, attack};

const CLONE_NEWNS: usize = 0x0002_0000;
const CLONE_NEWCGROUP: usize = 0x0200_0000;
const CLONE_NEWUTS: usize = 0x0400_0000;
const CLONE_NEWUSER: usize = 0x1000_0000;
const CLONE_NEWNET: usize = 0x4000_0000;
const AT_FDCWD: usize = -100_isize as usize;

pub const ATTACKS: &[Attack] = &[
    attack(
        "unshare-user",
        "CVE-2022-0185, 2023-32233, 2024-1086: a user namespace of one's own",
        || unshare(CLONE_NEWUSER),
    ),
    attack("unshare-mount", "a mount namespace of one's own", || {
        unshare(CLONE_NEWNS)
    }),
    attack("unshare-net", "a network namespace of one's own", || {
        unshare(CLONE_NEWNET)
    }),
    attack("unshare-uts", "CVE-2022-0492: first step", || {
        unshare(CLONE_NEWUTS)
    }),
    attack("unshare-cgroup", "CVE-2022-0492: first step", || {
        unshare(CLONE_NEWUSER | CLONE_NEWCGROUP)
    }),
    attack("clone-user", "a user namespace by clone's flags", clone_user),
    attack(
        "clone3-user",
        "a user namespace by clone3, whose flags no filter can read",
        clone3_user,
    ),
    attack("setns", "joining another namespace", setns),
    attack("mount-tmpfs", "mount", || mount("none", "tmpfs")),
    attack("mount-proc", "a second, unmasked proc", || mount("proc", "proc")),
    attack("mount-overlay", "CVE-2023-0386, 2021-3493", || {
        mount("overlay", "overlay")
    }),
    attack("mount-cgroup", "CVE-2022-0492: a writable hierarchy", || {
        mount("cgroup", "cgroup2")
    }),
    attack("mount-bind", "a bind mount over anything", mount_bind),
    attack("umount", "taking a mask away", umount),
    attack("pivot-root", "another root", pivot_root),
    attack("chroot", "another root", chroot),
    attack("fsopen", "CVE-2022-0185", || {
        past_gate(libc::SYS_fsopen, &[address(b"tmpfs\0"), 0])
    }),
    attack("fsconfig", "CVE-2022-0185", || {
        past_gate(libc::SYS_fsconfig, &[usize::MAX, 0, 0, 0, 0])
    }),
    attack("open-tree", "cloning a mount", || {
        past_gate(libc::SYS_open_tree, &[AT_FDCWD, address(b"/\0"), 1])
    }),
    attack("move-mount", "moving a mount", || {
        past_gate(
            libc::SYS_move_mount,
            &[usize::MAX, address(b"\0"), AT_FDCWD, address(b"/\0"), 4],
        )
    }),
    attack("mount-setattr", "making a mount writable", || {
        past_gate(
            libc::SYS_mount_setattr,
            &[AT_FDCWD, address(b"/proc\0"), 0, address(&[0_u64; 4]), 32],
        )
    }),
    attack("bpf-map", "CVE-2021-31440, 2022-23222, 2021-3490", bpf_map),
    attack("bpf-prog", "CVE-2021-3490: a socket filter", bpf_prog),
    attack(
        "io-uring",
        "CVE-2022-29582, 2023-2598, 2024-0582, 2022-1786",
        || past_gate(libc::SYS_io_uring_setup, &[1, address(&[0_u8; 120])]),
    ),
    attack("keyctl", "CVE-2016-0728 and its class", || {
        past_gate(libc::SYS_keyctl, &[0, -3_isize as usize, 1])
    }),
    attack("add-key", "CVE-2016-0728 and its class", || {
        past_gate(
            libc::SYS_add_key,
            &[
                address(b"user\0"),
                address(b"kakoi\0"),
                address(b"x"),
                1,
                -2_isize as usize,
            ],
        )
    }),
    attack("request-key", "CVE-2016-0728 and its class", || {
        past_gate(
            libc::SYS_request_key,
            &[address(b"user\0"), address(b"kakoi-none\0"), 0, 0],
        )
    }),
    attack("perf-event", "perf_event_open", perf_event),
    attack("userfaultfd", "stretching races", || {
        past_gate(libc::SYS_userfaultfd, &[0o2_000_000])
    }),
    attack("kcmp", "comparing kernel pointers", kcmp),
    attack("open-by-handle", "CVE-2014-9357 Shocker", open_by_handle),
    attack("reboot", "reboot", || past_gate(libc::SYS_reboot, &[0, 0, 0])),
    attack("kexec", "another kernel", || {
        past_gate(libc::SYS_kexec_load, &[0, 1000, 0, 0])
    }),
    attack("init-module", "a kernel module", || {
        past_gate(libc::SYS_init_module, &[0, 0, address(b"\0")])
    }),
    attack("delete-module", "a kernel module", || {
        past_gate(libc::SYS_delete_module, &[address(b"kakoi_none\0"), 0o4000])
    }),
    attack("adjtimex", "the host's clock", adjtimex),
    attack("sethostname", "the host name", || {
        past_gate(libc::SYS_sethostname, &[address(b"intruder"), 8])
    }),
    attack("swapon", "the host's swap", || {
        past_gate(libc::SYS_swapon, &[address(b"/none\0"), 0])
    }),
    attack("quotactl", "the host's quotas", || {
        past_gate(libc::SYS_quotactl, &[0x0080_0002, address(b"/none\0"), 0, 0])
    }),
    attack("acct", "process accounting", || {
        past_gate(libc::SYS_acct, &[address(b"/none/none\0")])
    }),
    attack("syslog", "the kernel's log", || {
        past_gate(libc::SYS_syslog, &[3, address(&[0_u8; 64]), 64])
    }),
    attack("personality", "switching randomisation off", || {
        past_gate(libc::SYS_personality, &[0x0004_0000])
    }),
    attack("fanotify", "watching the whole file system", || {
        past_gate(libc::SYS_fanotify_init, &[0x0000_0004, 0])
    }),
    attack("move-pages", "placing a neighbour's memory", || {
        past_gate(libc::SYS_move_pages, &[0, 0, 0, 0, 0, 0])
    }),
    attack("set-mempolicy", "placing memory", || {
        past_gate(libc::SYS_set_mempolicy, &[0, 0, 0])
    }),
    attack("lookup-dcookie", "a path from a cookie", || {
        past_gate(212, &[0, address(&[0_u8; 8]), 8])
    }),
    attack("vhangup", "hanging up a terminal", || {
        past_gate(libc::SYS_vhangup, &[])
    }),
    attack("unknown-call", "calls newer than the policy", || {
        past_gate(1000, &[])
    }),
    #[cfg(target_arch = "x86_64")]
    attack("int80", "the 32-bit entry", int80),
    #[cfg(target_arch = "x86_64")]
    attack("x32", "the x32 entry", || {
        past_gate(0x4000_0000 + libc::SYS_getpid, &[])
    }),
    #[cfg(target_arch = "x86_64")]
    attack("iopl", "port input and output", || {
        past_gate(libc::SYS_iopl, &[3])
    }),
    #[cfg(target_arch = "x86_64")]
    attack("ioperm", "port input and output", || {
        past_gate(libc::SYS_ioperm, &[0x80, 1, 1])
    }),
    #[cfg(target_arch = "x86_64")]
    attack("modify-ldt", "segments of 16 bits", || {
        past_gate(libc::SYS_modify_ldt, &[0, address(&[0_u8; 16]), 16])
    }),
];

/// A call whose permission check comes first: any error but a refusal means that it was let through. ENOSYS counts as refused: a filter
/// says it for calls that the policy does not know.
fn past_gate(number: libc::c_long, arguments: &[usize]) -> Outcome {
    match call(number, arguments) {
        Err(errno @ (Errno::EPERM | Errno::EACCES | Errno::ENOSYS)) => Outcome::Refused(format!("{errno:?}")),
        Err(errno) => Outcome::Effective(format!("reached the call: {errno:?}")),
        Ok(value) => Outcome::Effective(format!("returned {value}")),
    }
}

fn unshare(flags: usize) -> Outcome {
    call(libc::SYS_unshare, &[flags]).into()
}

/// A child of clone returns 0 in itself; it must leave at once.
fn leave_if_child(result: Result<usize, Errno>) -> Outcome {
    if result == Ok(0) {
        std::process::exit(0);
    }
    result.into()
}

fn clone_user() -> Outcome {
    leave_if_child(call(
        libc::SYS_clone,
        &[CLONE_NEWUSER | libc::SIGCHLD as usize, 0, 0, 0, 0],
    ))
}

fn clone3_user() -> Outcome {
    let mut arguments = [0_u64; 8];
    arguments[0] = CLONE_NEWUSER as u64;
    arguments[4] = libc::SIGCHLD as u64;
    leave_if_child(call(
        libc::SYS_clone3,
        &[address(&arguments), size_of_val(&arguments)],
    ))
}

fn setns() -> Outcome {
    match std::fs::File::open("/proc/self/ns/uts") {
        Ok(file) => {
            use std::os::fd::AsRawFd;
            call(libc::SYS_setns, &[file.as_raw_fd() as usize, 0]).into()
        }
        Err(error) => Outcome::Refused(format!("opening the namespace: {error}")),
    }
}

fn mount(source: &str, kind: &str) -> Outcome {
    let (source, kind) = (c_path(source), c_path(kind));
    // An overlay needs its layers; the folders exist in every image.
    let options: &[u8] = if kind.starts_with(b"overlay") {
        b"lowerdir=/bin:/etc\0"
    } else {
        b"\0"
    };
    let target = b"/tmp\0";
    call(
        libc::SYS_mount,
        &[
            address(&source[..]),
            address(target),
            address(&kind[..]),
            0,
            address(options),
        ],
    )
    .into()
}

fn mount_bind() -> Outcome {
    call(
        libc::SYS_mount,
        &[address(b"/etc\0"), address(b"/tmp\0"), 0, 4096, 0],
    )
    .into()
}

fn umount() -> Outcome {
    past_gate(libc::SYS_umount2, &[address(b"/etc\0"), 2])
}

fn pivot_root() -> Outcome {
    // The right to mount is checked before the names are.
    past_gate(libc::SYS_pivot_root, &[address(b"/none\0"), address(b"/none\0")])
}

fn chroot() -> Outcome {
    call(libc::SYS_chroot, &[address(b"/tmp\0")]).into()
}

fn bpf_map() -> Outcome {
    // BPF_MAP_CREATE: an array of one 4-byte value under a 4-byte key.
    let attributes: [u32; 18] = std::array::from_fn(|at| [2, 4, 4, 1].get(at).copied().unwrap_or(0));
    call(
        libc::SYS_bpf,
        &[0, address(&attributes), size_of_val(&attributes)],
    )
    .into()
}

fn bpf_prog() -> Outcome {
    // BPF_PROG_LOAD of a socket filter: r0 = 0; exit.
    let program: [u64; 2] = [0x0000_0000_0000_00b7, 0x95];
    let licence = b"GPL\0";
    let mut attributes = [0_u64; 9];
    attributes[0] = 1 | (2 << 32);
    attributes[1] = address(&program) as u64;
    attributes[2] = address(licence) as u64;
    call(
        libc::SYS_bpf,
        &[5, address(&attributes), size_of_val(&attributes)],
    )
    .into()
}

fn perf_event() -> Outcome {
    // A software clock of our own process, the least privileged event there is.
    let mut attributes = [0_u32; 28];
    attributes[0] = 1;
    attributes[1] = 112;
    attributes[10] = 0x60;
    past_gate(
        libc::SYS_perf_event_open,
        &[address(&attributes), 0, usize::MAX, usize::MAX, 0],
    )
}

fn kcmp() -> Outcome {
    let own = std::process::id() as usize;
    call(libc::SYS_kcmp, &[own, own, 1, 0, 0]).into()
}

/// Opens the root of the file system that a bind-mounted file of the host lies on, by its well-known number.
fn open_by_handle() -> Outcome {
    use std::os::fd::AsRawFd;
    let Ok(host_file) = std::fs::File::open("/etc/hosts") else {
        return Outcome::Absent("no file of the host to start from".into());
    };
    // struct file_handle: 8 bytes, FILEID_INO32_GEN, inode 2, generation 0.
    let handle: [u32; 4] = [8, 1, 2, 0];
    match call(
        libc::SYS_open_by_handle_at,
        &[host_file.as_raw_fd() as usize, address(&handle), 0],
    ) {
        Ok(fd) => Outcome::Effective(format!("opened the host's root as {fd}")),
        // The gate stood open and the file system had no such number.
        Err(errno @ (Errno::ESTALE | Errno::EINVAL | Errno::EOPNOTSUPP)) => {
            Outcome::Effective(format!("reached the call: {errno:?}"))
        }
        Err(errno) => Outcome::Refused(format!("{errno:?}")),
    }
}

fn adjtimex() -> Outcome {
    // ADJ_TICK with the value it has: needs the right to set the clock, changes nothing.
    let mut time = [0_u64; 26];
    if let Err(errno) = call(libc::SYS_adjtimex, &[address(&time)]) {
        return Outcome::Refused(format!("{errno:?}"));
    }
    // struct timex: tick stands behind modes, offset, freq, maxerror, esterror, status, constant, precision, tolerance, time.
    time[0] = 0x4000;
    call(libc::SYS_adjtimex, &[address(&time)]).into()
}

#[cfg(target_arch = "x86_64")]
fn int80() -> Outcome {
    match crate::raw::int80(20) {
        pid if pid > 0 => Outcome::Effective(format!("32-bit getpid said {pid}")),
        error => Outcome::Refused(format!("{:?}", Errno::from_raw(-error))),
    }
}
