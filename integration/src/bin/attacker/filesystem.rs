//! Attacks by files: knobs of the host, masked paths, device nodes, control groups.
//!
//! Writing is shown by opening for writing: the suite runs these on real machines, and a knob that was turned stays turned.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::process::ExitCode;

use crate::raw::{Outcome, address, c_path, call};
use crate::{Attack, attack};

const S_IFCHR: usize = 0o020_000;
const S_IFBLK: usize = 0o060_000;

pub const ATTACKS: &[Attack] = &[
    attack("sysrq", "restarting the host", || {
        opens_for_writing("/proc/sysrq-trigger")
    }),
    attack("core-pattern", "CVE-2022-0811: a program run by the host", || {
        opens_for_writing("/proc/sys/kernel/core_pattern")
    }),
    attack("modprobe-path", "a program run by the host", || {
        opens_for_writing("/proc/sys/kernel/modprobe")
    }),
    attack("vm-sysctl", "the host's memory", || {
        opens_for_writing("/proc/sys/vm/overcommit_memory")
    }),
    attack("uevent-helper", "a program run by the host", || {
        opens_for_writing("/sys/kernel/uevent_helper")
    }),
    attack("sys-power", "putting the host to sleep", || {
        opens_for_writing("/sys/power/state")
    }),
    attack("sys-block", "a disk's settings", || {
        opens_for_writing("/sys/block/vda/queue/read_ahead_kb")
    }),
    attack("firmware", "CVE-2021-30465's neighbours: firmware", || {
        reads("/sys/firmware/memmap/0/start")
    }),
    attack("kcore", "the kernel's memory", || reads("/proc/kcore")),
    attack("proc-keys", "keys of others", || reads("/proc/keys")),
    attack("timer-list", "the kernel's timers", || reads("/proc/timer_list")),
    attack("kpagecount", "the host's pages", || reads("/proc/kpagecount")),
    attack("dev-mem", "the host's memory", || {
        opens_node("mem", S_IFCHR, 1, 1)
    }),
    attack("dev-kmsg", "the kernel's log", || {
        opens_node("kmsg", S_IFCHR, 1, 11)
    }),
    attack("dev-port", "port input and output", || {
        opens_node("port", S_IFCHR, 1, 4)
    }),
    attack("dev-fuse", "a file system of one's own", || {
        opens_node("fuse", S_IFCHR, 10, 229)
    }),
    attack("dev-loop-control", "loop devices", || {
        opens_node("loop-control", S_IFCHR, 10, 237)
    }),
    attack("raw-disk", "the host's disk", raw_disk),
    attack("mknod-char", "a node for memory", || mknod("knod", S_IFCHR, 1, 1)),
    attack(
        "cgroup-limit",
        "libcontainer: writable control groups",
        cgroup_limit,
    ),
    attack(
        "cgroup-mkdir",
        "libcontainer: writable control groups",
        cgroup_mkdir,
    ),
    attack("release-agent", "CVE-2022-0492", release_agent),
    attack("proc-fs-write", "turning a file system's knob", || {
        opens_for_writing("/proc/sys/fs/protected_hardlinks")
    }),
    attack("irq", "interrupts of the host", || {
        opens_for_writing("/proc/irq/default_smp_affinity")
    }),
    attack("shim-overwrite", "CVE-2019-5736", shim_overwrite),
];

fn told(result: std::io::Result<File>) -> Outcome {
    match result {
        Ok(file) => Outcome::Effective(format!("opened as {}", file.as_raw_fd())),
        Err(error) => Outcome::Refused(errno_name(&error)),
    }
}

fn errno_name(error: &std::io::Error) -> String {
    error.raw_os_error().map_or_else(
        || error.to_string(),
        |raw| format!("{:?}", nix::errno::Errno::from_raw(raw)),
    )
}

fn opens_for_writing(path: &str) -> Outcome {
    told(OpenOptions::new().write(true).open(path))
}

/// A mask shows an empty file, so opening is not enough: there must be something in it.
fn reads(path: &str) -> Outcome {
    use std::io::Read;
    // Some of these give whole words only.
    let mut word = [0; 8];
    match File::open(path).and_then(|mut file| file.read(&mut word)) {
        Ok(1..) => Outcome::Effective("read from it".into()),
        Ok(0) => Outcome::Refused("empty".into()),
        Err(error) => Outcome::Refused(errno_name(&error)),
    }
}

/// Places where a node may be made.
const FOLDERS: [&str; 4] = ["/dev", "/tmp", "/run", "/data"];

fn make_node(name: &str, kind: usize, major: u64, minor: u64) -> Result<String, nix::errno::Errno> {
    let mut last = nix::errno::Errno::ENOENT;
    for folder in FOLDERS {
        let path = format!("{folder}/attacker-{name}-{}", std::process::id());
        let number = ((major << 8) | (minor & 0xff)) as usize;
        match call(
            libc::SYS_mknodat,
            &[
                -100_isize as usize,
                address(&c_path(&path)[..]),
                kind | 0o666,
                number,
            ],
        ) {
            Ok(_) => return Ok(path),
            // Unwritable folders are no answer.
            Err(errno @ (nix::errno::Errno::ENOENT | nix::errno::Errno::EROFS))
                if last == nix::errno::Errno::ENOENT =>
            {
                last = errno
            }
            Err(errno) => last = errno,
        }
    }
    Err(last)
}

fn mknod(name: &str, kind: usize, major: u64, minor: u64) -> Outcome {
    match make_node(name, kind, major, minor) {
        Ok(path) => {
            let removed = std::fs::remove_file(&path);
            Outcome::Effective(format!("made {path}, removing it: {removed:?}"))
        }
        Err(errno) => Outcome::Refused(format!("{errno:?}")),
    }
}

/// Opens a device by its usual path or by a node of one's own making.
fn opens_node(name: &str, kind: usize, major: u64, minor: u64) -> Outcome {
    let usual = File::open(format!("/dev/{name}"));
    if usual.is_ok() {
        return told(usual);
    }
    match make_node(name, kind, major, minor) {
        Ok(path) => {
            let opened = told(File::open(&path));
            match std::fs::remove_file(&path) {
                Ok(()) => opened,
                Err(error) => Outcome::Effective(format!("left {path} behind: {error}")),
            }
        }
        Err(errno) => Outcome::Refused(format!("mknod: {errno:?}")),
    }
}

/// Opens the host's first disk, whose number /proc/partitions tells everyone.
fn raw_disk() -> Outcome {
    let table = std::fs::read_to_string("/proc/partitions").unwrap_or_default();
    let first = table.lines().skip(2).find_map(|line| {
        let mut fields = line.split_whitespace();
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    // A masked table hides nothing: virtio's first disk is guessed as easily.
    let (major, minor) = first.unwrap_or((254, 0));
    opens_node("attacker-disk", S_IFBLK, major, minor)
}

fn cgroup_folder() -> Option<&'static str> {
    [
        "/sys/fs/cgroup/memory",
        "/sys/fs/cgroup/unified",
        "/sys/fs/cgroup",
    ]
    .into_iter()
    .find(|folder| std::fs::metadata(format!("{folder}/cgroup.procs")).is_ok())
}

fn cgroup_limit() -> Outcome {
    match cgroup_folder() {
        Some(folder) => {
            let memory_limit = format!("{folder}/memory.limit_in_bytes");
            let knob = if std::fs::metadata(&memory_limit).is_ok() {
                memory_limit
            } else {
                format!("{folder}/cgroup.procs")
            };
            opens_for_writing(&knob)
        }
        None => Outcome::Refused("no hierarchy in sight".into()),
    }
}

fn cgroup_mkdir() -> Outcome {
    let Some(folder) = cgroup_folder() else {
        return Outcome::Refused("no hierarchy in sight".into());
    };
    let made = format!("{folder}/attacker-{}", std::process::id());
    match std::fs::create_dir(&made).and_then(|()| std::fs::remove_dir(&made)) {
        Ok(()) => Outcome::Effective("made a group".into()),
        Err(error) => Outcome::Refused(errno_name(&error)),
    }
}

fn release_agent() -> Outcome {
    for controller in ["memory", "pids", "cpu", "freezer", "devices", "systemd"] {
        let path = format!("/sys/fs/cgroup/{controller}/release_agent");
        if OpenOptions::new().write(true).open(&path).is_ok() {
            return Outcome::Effective(format!("opened {path}"));
        }
    }
    Outcome::Refused("no release_agent can be opened".into())
}

/// Opens every program of every process in sight for writing that is not the container's own.
fn shim_overwrite() -> Outcome {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Outcome::Refused("no /proc".into());
    };
    let mut seen = 0;
    for entry in entries.flatten() {
        let exe = entry.path().join("exe");
        let Ok(target) = std::fs::read_link(&exe) else {
            continue;
        };
        let target = target.display().to_string();
        if !target.contains("shim") && !target.contains("memfd") {
            continue;
        }
        seen += 1;
        // ETXTBSY comes while it runs, and a later try, after it has ended, would succeed: both are one step from the overwrite.
        match OpenOptions::new().write(true).open(&exe) {
            Ok(_) => return Outcome::Effective(format!("opened {target}")),
            Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) => {
                return Outcome::Effective(format!("{target} is writable once it ends"));
            }
            Err(_) => {}
        }
    }
    Outcome::Refused(format!("{seen} programs of the runtime in sight, none writable"))
}

fn say(result: std::io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => {
            println!("done");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("refused {}", errno_name(&error));
            ExitCode::from(1)
        }
    }
}

/// `attacker touch PATH`: makes or opens a file for writing.
pub fn touch(path: &str) -> ExitCode {
    say(OpenOptions::new().append(true).create(true).open(path).map(drop))
}

/// `attacker read PATH`: reads a file, a folder's list or a link.
pub fn read(path: &str) -> ExitCode {
    let result = match std::fs::metadata(path) {
        Ok(kind) if kind.is_dir() => std::fs::read_dir(path).map(drop),
        _ => std::fs::read(path).map(drop),
    };
    say(result)
}

/// `attacker swap ONE OTHER`: lets two names change places without end, as whoever races a runtime does.
pub fn swap(one: &str, other: &str) -> ExitCode {
    const EXCHANGE: usize = 2;
    let (one, other) = (c_path(one), c_path(other));
    let here = libc::AT_FDCWD as usize;
    loop {
        let arguments = [here, address(&one[..]), here, address(&other[..]), EXCHANGE];
        if let Err(errno) = call(libc::SYS_renameat2, &arguments) {
            println!("swap stopped: {errno:?}");
            return ExitCode::FAILURE;
        }
    }
}
