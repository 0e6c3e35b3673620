//! Attacks on privileges, neighbours and terminals, and on what a careless runtime lets a process inherit.

use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use nix::errno::Errno;

use crate::raw::{Outcome, address, address_mut, call, with_victim};
use crate::{Attack, attack};

const TIOCSTI: usize = 0x5412;
const TIOCLINUX: usize = 0x541C;
const TIOCSCTTY: usize = 0x540E;
const TIOCGPTPEER: usize = 0x5441;
const TIOCSPTLCK: usize = 0x4004_5431;

pub const ATTACKS: &[Attack] = &[
    attack("ptrace", "ptrace of a neighbour", ptrace),
    attack("process-vm-read", "a neighbour's memory", process_vm_read),
    attack("process-vm-write", "a neighbour's memory", process_vm_write),
    attack("pidfd-getfd", "a neighbour's descriptors", pidfd_getfd),
    attack("setuid-root", "becoming root", setuid_root),
    attack("capset-all", "raising every capability", capset_all),
    attack(
        "cap-inheritable",
        "CVE-2022-29162, 2022-24769, 2022-27650",
        cap_inheritable,
    ),
    attack("cap-ambient", "raising an ambient capability", cap_ambient),
    attack(
        "bounding-full",
        "capabilities that a set-user-ID program could give",
        bounding_full,
    ),
    attack(
        "tiocsti",
        "CVE-2019-7303, 2023-1523: typing into a terminal",
        || terminal(TIOCSTI),
    ),
    attack(
        "tiocsti-high-bits",
        "CVE-2019-10063: the number with high bits set",
        || terminal(TIOCSTI | 1 << 32),
    ),
    attack("tioclinux", "CVE-2023-1523: pasting into a console", || {
        terminal(TIOCLINUX)
    }),
    attack(
        "inherited-fd",
        "CVE-2024-21626, LISTEN_FDS: a descriptor of the host",
        inherited_fd,
    ),
    attack("inherited-groups", "groups of the caller", inherited_groups),
    attack(
        "inherited-env",
        "LISTEN_FDS, NOTIFY_SOCKET, LD_PRELOAD of the caller",
        inherited_env,
    ),
    attack(
        "cwd-outside",
        "CVE-2024-21626: a working directory outside the root",
        cwd_outside,
    ),
    attack(
        "session-keyring",
        "a session keyring shared with the caller",
        session_keyring,
    ),
    attack("oom-protect", "leaving the OOM killer's list", oom_protect),
    attack("raise-nofile", "more files than the hard limit", raise_nofile),
    attack("nice", "taking the neighbours' time", past_nice),
];

fn ptrace() -> Outcome {
    match with_victim(|victim| call(libc::SYS_ptrace, &[16, victim.as_raw() as usize, 0, 0])) {
        Ok(result) => result.into(),
        Err(errno) => Outcome::Refused(format!("fork: {errno:?}")),
    }
}

fn process_vm(number: libc::c_long) -> Outcome {
    let buffer = [0_u8; 8];
    let vector = [address(&buffer), buffer.len()];
    match with_victim(|victim| {
        call(
            number,
            &[
                victim.as_raw() as usize,
                address(&vector),
                1,
                address(&vector),
                1,
                0,
            ],
        )
    }) {
        Ok(result) => result.into(),
        Err(errno) => Outcome::Refused(format!("fork: {errno:?}")),
    }
}

fn process_vm_read() -> Outcome {
    process_vm(libc::SYS_process_vm_readv)
}

fn process_vm_write() -> Outcome {
    process_vm(libc::SYS_process_vm_writev)
}

fn pidfd_getfd() -> Outcome {
    let steal = |victim: nix::unistd::Pid| {
        let pidfd = call(libc::SYS_pidfd_open, &[victim.as_raw() as usize, 0])?;
        call(libc::SYS_pidfd_getfd, &[pidfd, 1, 0])
    };
    match with_victim(steal) {
        Ok(result) => result.into(),
        Err(errno) => Outcome::Refused(format!("fork: {errno:?}")),
    }
}

/// Root has nothing to gain by this one, so it first becomes somebody else, for good.
fn setuid_root() -> Outcome {
    if nix::unistd::geteuid().is_root()
        && let Err(errno) = call(libc::SYS_setresuid, &[1000, 1000, 1000])
    {
        return Outcome::Refused(format!("already root, and cannot leave: {errno:?}"));
    }
    call(libc::SYS_setuid, &[0]).into()
}

const CAPABILITY_HEADER: [u32; 2] = [0x2008_0522, 0];

fn capset_all() -> Outcome {
    // Effective, permitted and inheritable, low and high words; 40 is the newest capability everywhere.
    let low = u32::MAX;
    let high = (1 << 9) - 1;
    let data: [u32; 6] = [low, low, 0, high, high, 0];
    call(libc::SYS_capset, &[address(&CAPABILITY_HEADER), address(&data)]).into()
}

fn cap_inheritable() -> Outcome {
    let mut data = [0_u32; 6];
    match call(
        libc::SYS_capget,
        &[address(&CAPABILITY_HEADER), address_mut(&mut data)],
    ) {
        Ok(_) if data[2] | data[5] != 0 => Outcome::Effective(format!("{:#x}", data[2])),
        Ok(_) => Outcome::Refused("none".into()),
        Err(errno) => Outcome::Refused(format!("{errno:?}")),
    }
}

fn cap_ambient() -> Outcome {
    // PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SYS_ADMIN.
    call(libc::SYS_prctl, &[47, 2, 21, 0, 0]).into()
}

fn bounding_full() -> Outcome {
    // PR_CAPBSET_READ of the capabilities that are as good as the host.
    let dangerous = [
        (21, "sys_admin"),
        (16, "sys_module"),
        (17, "sys_rawio"),
        (19, "sys_ptrace"),
        (2, "dac_read_search"),
    ];
    let held: Vec<_> = dangerous
        .iter()
        .filter(|(number, _)| call(libc::SYS_prctl, &[23, *number, 0, 0, 0]) == Ok(1))
        .map(|(_, name)| *name)
        .collect();
    if held.is_empty() {
        Outcome::Refused("none".into())
    } else {
        Outcome::Effective(held.join(" "))
    }
}

/// Makes a terminal, becomes its session's leader, and attacks it.
fn terminal(request: usize) -> Outcome {
    let master = match std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/ptmx")
    {
        Ok(master) => master,
        Err(error) => return Outcome::Refused(format!("no terminal: {error}")),
    };
    let attempt = || -> Result<usize, Errno> {
        call(libc::SYS_setsid, &[])?;
        let unlocked = 0_i32;
        call(
            libc::SYS_ioctl,
            &[master.as_raw_fd() as usize, TIOCSPTLCK, address(&unlocked)],
        )?;
        // O_RDWR; opening the other end by ioctl needs no path.
        let terminal = call(libc::SYS_ioctl, &[master.as_raw_fd() as usize, TIOCGPTPEER, 2])?;
        call(libc::SYS_ioctl, &[terminal, TIOCSCTTY, 0])?;
        // For TIOCLINUX the byte is the subcode that asks for the shift state.
        let byte = if request == TIOCLINUX { 6_u8 } else { b'x' };
        call(libc::SYS_ioctl, &[terminal, request, address(&byte)])
    };
    let outcome = attempt();
    // Closing this end hangs the session up, and its leader with it, before it could report.
    let _stays_open = master.into_raw_fd();
    match outcome {
        // A pseudo-terminal has no console behind it: the request itself got through.
        Err(Errno::ENOTTY) if request == TIOCLINUX => Outcome::Effective("reached the terminal".into()),
        result => result.into(),
    }
}

fn inherited_fd() -> Outcome {
    // F_GETFD fails on what is not open.
    let open: Vec<_> = (3..1024)
        .filter(|fd| call(libc::SYS_fcntl, &[*fd, 1, 0]).is_ok())
        .map(|fd| fd.to_string())
        .collect();
    if open.is_empty() {
        Outcome::Refused("none".into())
    } else {
        Outcome::Effective(open.join(" "))
    }
}

fn inherited_groups() -> Outcome {
    match nix::unistd::getgroups() {
        // Groups below the first are the container user's own; 7777 is what the suite gives the caller.
        Ok(groups) if groups.iter().any(|group| group.as_raw() == 7777) => {
            Outcome::Effective(format!("{groups:?}"))
        }
        Ok(groups) => Outcome::Refused(format!("{} groups, none of the caller's", groups.len())),
        Err(errno) => Outcome::Refused(format!("{errno:?}")),
    }
}

fn inherited_env() -> Outcome {
    let names = [
        "LISTEN_FDS",
        "LISTEN_PID",
        "NOTIFY_SOCKET",
        "LD_PRELOAD",
        "KAKOI_TEST_CALLER",
    ];
    let found: Vec<_> = names
        .into_iter()
        .filter(|name| std::env::var_os(name).is_some())
        .collect();
    if found.is_empty() {
        Outcome::Refused("none".into())
    } else {
        Outcome::Effective(found.join(" "))
    }
}

fn cwd_outside() -> Outcome {
    match std::env::current_dir() {
        Ok(folder) if folder.is_absolute() && folder.exists() => Outcome::Refused("inside".into()),
        Ok(folder) => Outcome::Effective(folder.display().to_string()),
        Err(error) => Outcome::Effective(error.to_string()),
    }
}

fn session_keyring() -> Outcome {
    // KEYCTL_GET_KEYRING_ID of the session keyring, without making one; then its serial as a search target.
    match call(libc::SYS_keyctl, &[0, -3_isize as usize, 0]) {
        Ok(serial) => Outcome::Effective(format!("keyring {serial}")),
        Err(errno) => Outcome::Refused(format!("{errno:?}")),
    }
}

fn oom_protect() -> Outcome {
    match std::fs::write("/proc/self/oom_score_adj", "-1000") {
        Ok(()) => Outcome::Effective("-1000".into()),
        Err(error) => Outcome::Refused(error.to_string()),
    }
}

fn raise_nofile() -> Outcome {
    let huge: [u64; 2] = [1_048_577, 1_048_577];
    let mut now = [0_u64; 2];
    if call(libc::SYS_prlimit64, &[0, 7, 0, address_mut(&mut now)]).is_ok() && now[1] > huge[1] {
        return Outcome::Absent("the hard limit is higher already".into());
    }
    call(libc::SYS_prlimit64, &[0, 7, address(&huge), 0]).into()
}

fn past_nice() -> Outcome {
    call(libc::SYS_setpriority, &[0, 0, -10_isize as usize]).into()
}

/// `attacker time`: nanoseconds a call, the best of many rounds: one that every policy allows, one whose arguments a filter looks at, one
/// that touches files, and one that a policy denies.
pub fn time_calls() -> ExitCode {
    const ROUNDS: u32 = 20;
    const CALLS: u32 = 2000;
    let calls: [(&str, &dyn Fn() -> bool); 4] = [
        ("plain", &|| call(libc::SYS_getppid, &[]).is_ok()),
        ("checked", &|| {
            call(libc::SYS_ioctl, &[usize::MAX, 0x5401, 0]).is_ok()
        }),
        ("open", &|| std::fs::File::open("/etc/passwd").is_ok()),
        ("denied", &|| call(libc::SYS_fsopen, &[0, 0]).is_ok()),
    ];
    for (name, make) in calls {
        let best = (0..ROUNDS)
            .map(|_| {
                let start = std::time::Instant::now();
                (0..CALLS).for_each(|_| {
                    std::hint::black_box(make());
                });
                start.elapsed() / CALLS
            })
            .min()
            .unwrap_or_default();
        println!("{name} {}", best.as_nanos());
    }
    ExitCode::SUCCESS
}

/// `attacker exec PROGRAM…`: becomes another program, to see what that one may do (set-user-ID copies).
pub fn execute(arguments: &[&str]) -> ExitCode {
    let error = Command::new(arguments[0]).args(&arguments[1..]).exec();
    println!("refused {error}");
    ExitCode::from(1)
}

/// `attacker hold memory|pids|files`: takes without end what a limit must end, and says how far it came.
pub fn hold(what: &str) -> ExitCode {
    match what {
        "memory" => {
            let mut held: Vec<Vec<u8>> = Vec::new();
            loop {
                held.push(vec![1; 1 << 20]);
                std::hint::black_box(&held);
            }
        }
        "pids" => {
            let mut children = Vec::new();
            // More than any limit the suite sets; an unlimited container is told apart by reaching it.
            for _ in 0..4096 {
                match Command::new("/attacker").args(["hold", "still"]).spawn() {
                    Ok(child) => children.push(child),
                    Err(error) => {
                        println!("refused {} after {}", error, children.len());
                        for child in &mut children {
                            if let Err(error) = child.kill().and_then(|()| child.wait().map(drop)) {
                                println!("{error}");
                            }
                        }
                        return ExitCode::SUCCESS;
                    }
                }
            }
            println!("effective");
            ExitCode::from(1)
        }
        "files" => {
            let mut held = Vec::new();
            for _ in 0..2_000_000 {
                match std::fs::File::open("/") {
                    Ok(file) => held.push(file),
                    Err(error) => {
                        println!("refused {error} after {}", held.len());
                        return ExitCode::SUCCESS;
                    }
                }
            }
            println!("effective");
            ExitCode::from(1)
        }
        "still" => loop {
            nix::unistd::pause();
        },
        _ => {
            eprintln!("attacker: hold memory, pids, files or still");
            ExitCode::from(2)
        }
    }
}
