//! The two processes of a test: the one that confines itself and executes, and the one that is executed and reports.

use std::ffi::CString;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use kakoi_confine::{Deliver, Entry, StartFailure, apply_with, capabilities_before_apply};
use kakoi_policy::confinement::{Confinement, Listener};
use kakoi_sys::process::{CloneFlags, Forked};
use kakoi_sys::{capability, descriptors, identity, process, seccomp};
use nix::unistd::{Gid, Uid};

use super::given::{Given, Told, landlock_hidden};

const LEAKED: i32 = 77;

/// Reads what is given, confines itself and executes the command.
pub fn confine(arguments: &[String]) -> ExitCode {
    let given = std::fs::read(&arguments[0]).expect("the test wrote it");
    let given: Given = serde_json::from_slice(&given).expect("the test wrote it");
    // Stale groups, as a caller of the runtime may hold them.
    identity::set_groups(&[0, 7]).expect("root may");
    if given.leak {
        let file = std::fs::File::open("/etc").expect("it exists");
        descriptors::place_at(file.as_fd(), LEAKED).expect("it is open");
    }
    if given.user_namespace {
        in_user_namespace(&given, arguments)
    } else {
        become_confined(&given, arguments)
    }
}

fn in_user_namespace(given: &Given, arguments: &[String]) -> ExitCode {
    let (ready, go) = descriptors::pipe().expect("pipes are cheap");
    match process::fork_with(CloneFlags::NEW_USER, None).expect("there is one thread") {
        Forked::Child => {
            drop(go);
            std::fs::File::from(ready)
                .read_exact(&mut [0])
                .expect("the parent writes");
            become_confined(given, arguments)
        }
        Forked::Parent { pid, pidfd } => {
            for map in ["uid_map", "gid_map"] {
                std::fs::write(format!("/proc/{pid}/{map}"), "0 100000 65536").expect("root may map");
            }
            std::fs::File::from(go).write_all(b"g").expect("the child waits");
            let status = process::wait_pidfd(pidfd.as_fd(), true)
                .expect("it is our child")
                .expect("it ended");
            ExitCode::from(status as u8)
        }
    }
}

fn become_confined(given: &Given, arguments: &[String]) -> ExitCode {
    if given.hide_landlock {
        let hidden = landlock_hidden();
        let program: Vec<_> = hidden.program.iter().map(|i| (i.0, i.1, i.2, i.3)).collect();
        seccomp::load(&program, seccomp::Flags::NONE).expect("root may");
    }
    if given.directory_outside {
        let root = std::path::Path::new(&arguments[0])
            .parent()
            .expect("it is in a folder");
        nix::unistd::chroot(root).expect("root may");
    }
    let container = given.confinement.identity.clone();
    let user = given.exec_as.clone().unwrap_or(container);
    let entry = match given.flaw.as_deref() {
        Some(flaw) => {
            prepare(&given.confinement, flaw);
            Entry::FirstProcess
        }
        None => Entry::Exec(&user),
    };
    let preserved: &[i32] = if given.preserve { &[LEAKED] } else { &[] };
    let mut send = |listener: &Listener, descriptor: BorrowedFd<'_>| {
        let socket = UnixStream::connect(&listener.path).expect("the test listens");
        kakoi_sys::socket::send_descriptors(socket.as_fd(), b"f", &[descriptor]).map(drop)
    };
    let deliver: Option<Deliver<'_>> = if given.deliver { Some(&mut send) } else { None };
    match apply_with(&given.confinement, entry, preserved, deliver) {
        Ok(receipt) => {
            tell(&Told::Receipt(receipt));
            let strings = arguments[1..]
                .iter()
                .map(|argument| CString::new(argument.as_str()).expect("no zeros"));
            let strings: Vec<CString> = strings.collect();
            let references: Vec<_> = strings.iter().map(CString::as_c_str).collect();
            let error = process::execve(references[0], &references, &[]);
            panic!("{error}: {}", error.errno);
        }
        Err(error) => {
            tell(&Told::Failure(StartFailure::from(&error)));
            ExitCode::FAILURE
        }
    }
}

fn tell(told: &Told) {
    println!("{}", serde_json::to_string(told).expect("it is plain data"));
}

/// Leaves what libcontainer leaves to the first process, less or plus one thing.
fn prepare(confinement: &Confinement, flaw: &str) {
    const NET_ADMIN: u64 = 1 << 12;
    let sets = capabilities_before_apply(confinement);
    let extra = |set: &str| if flaw == set { NET_ADMIN } else { 0 };
    identity::set_keep_capabilities(true).expect("it is allowed");
    let bounding = capability::bounding().expect("it is readable");
    (0..=capability::NUMBER_MAX)
        .filter(|number| bounding & !(sets.bounding | extra("bounding")) & 1 << number != 0)
        .for_each(|number| capability::drop_bounding(number).expect("root may"));
    if flaw != "groups" {
        identity::set_groups(&confinement.identity.groups).expect("root may");
    }
    let (user, group) = (
        Uid::from_raw(confinement.identity.uid),
        Gid::from_raw(confinement.identity.gid),
    );
    let saved = if flaw == "saved-group" {
        Gid::from_raw(0)
    } else {
        group
    };
    nix::unistd::setresgid(group, group, saved).expect("root may");
    let saved = if flaw == "saved-user" {
        Uid::from_raw(0)
    } else {
        user
    };
    nix::unistd::setresuid(user, user, saved).expect("root may");
    // Bounded, because nothing else may be inheritable.
    let inheritable = if flaw == "inheritable" { 1 } else { 0 };
    let wanted = capability::Sets {
        permitted: sets.permitted | extra("permitted"),
        effective: sets.effective,
        inheritable: sets.inheritable | inheritable,
    };
    capability::set_sets(wanted).expect("they are permitted");
    if flaw == "ambient" {
        capability::raise_ambient(0).expect("it is permitted and inheritable");
    }
    if flaw != "secure-bits" {
        identity::set_keep_capabilities(false).expect("it is allowed");
    }
    if flaw != "privileges" && confinement.no_new_privileges {
        process::set_no_new_privileges().expect("anyone may");
    }
}

/// Tells what the executed program holds and can do.
pub fn report(arguments: &[String]) -> ExitCode {
    match arguments[0].as_str() {
        "status" => {
            let status = std::fs::read_to_string("/proc/self/status").expect("proc is mounted");
            print!("{status}");
        }
        "descriptors" => {
            let names = std::fs::read_dir("/proc/self/fd")
                .expect("proc is mounted")
                .flatten();
            let mut open: Vec<i32> = names
                .filter_map(|name| name.file_name().to_str()?.parse().ok())
                .collect();
            // One of them was the folder itself, which is closed by now.
            open.retain(|fd| descriptors::inheritance(*fd) != Ok(descriptors::Inheritance::Absent));
            open.sort_unstable();
            let open: Vec<String> = open.iter().map(ToString::to_string).collect();
            println!("{}", open.join(" "));
        }
        "read" => {
            for path in &arguments[1..] {
                match std::fs::read(path) {
                    Ok(_) => println!("{path}: read"),
                    Err(error) => println!("{path}: errno {}", error.raw_os_error().unwrap_or(0)),
                }
            }
        }
        "word" => println!("word"),
        other => panic!("{other}"),
    }
    ExitCode::SUCCESS
}
