//! The seal of the runtime's own program (CVE-2019-5736), with a process that really runs under it.
//!
//! A harness of its own: what is sealed must have one thread from its start, which the standard harness does not give.

#[path = "../../../integration/src/required.rs"]
mod required;

use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::Instant;

use kakoi_sys::{process, sealed};

type Check = fn();

const CHECKS: [(&str, Check); 4] = [
    ("an_unsealed_program_can_be_overwritten_by_root", unsealed),
    ("a_sealed_program_cannot_be_overwritten", under_a_clone),
    ("a_copy_in_memory_cannot_be_overwritten", under_a_copy),
    ("a_clone_is_cheaper_than_a_copy", cost),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("role-plain") => report(),
        Some("role-ensure") => {
            sealed::ensure().expect("it can be sealed");
            report();
        }
        Some("role-copy") => {
            if sealed::seal() == Ok(sealed::Seal::None) {
                let copy = sealed::memory_copy().expect("memory is there");
                let error = process::execveat(copy.as_fd(), &[c"copy", c"role-copy"], &[]);
                panic!("{error}");
            }
            report();
        }
        Some("--list") => {
            // nextest asks for ignored tests in a second call; there are none.
            if !arguments.iter().any(|argument| argument == "--ignored") {
                CHECKS.iter().for_each(|(name, _)| println!("{name}: test"));
            }
        }
        _ => run(&arguments),
    }
}

fn run(arguments: &[String]) {
    let wanted: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    if !nix::unistd::geteuid().is_root() {
        required::leave_out("root", "seals need root");
        return;
    }
    for (name, check) in CHECKS {
        if wanted.is_empty() || wanted.iter().any(|filter| name.contains(filter.as_str())) {
            check();
            println!("{name}: ok");
        }
    }
}

/// Tells the seal, then holds still until its standard input ends.
fn report() {
    println!("{:?}", sealed::seal().expect("proc is mounted"));
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).expect("the parent closes it");
}

/// Runs a copy of this program in a role, and tries to open what it runs for writing, as another process would.
fn attack(role: &str) -> (String, Option<i32>) {
    let folder = tempfile::tempdir().expect("tmp is writable");
    let program = folder.path().join("victim");
    std::fs::copy(std::env::current_exe().expect("it has a path"), &program).expect("there is room");
    let mut victim = Command::new(&program)
        .arg(role)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it is a program");
    let mut line = String::new();
    let stdout = victim.stdout.take().expect("it is piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("it reports");
    let link = format!("/proc/{}/exe", victim.id());
    let place = {
        use std::os::unix::fs::OpenOptionsExt;
        std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH)
            .open(&link)
            .expect("the link leads somewhere")
    };
    // An attribute change through the link, as a process with CAP_SYS_ADMIN would try it.
    let cleared = kakoi_sys::mount::clone_tree(place.as_fd(), kakoi_sys::mount::Reach::One).is_ok();
    drop(victim.stdin.take());
    let place = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&place));
    victim.wait().expect("it was started");
    // The program no longer runs, so "text file busy" does not save it any more: this is the window of the attack.
    let overwritten = std::fs::OpenOptions::new().write(true).open(&place);
    let overwritten = overwritten.and_then(|mut file| std::io::Write::write_all(&mut file, b"hostile"));
    if role != "role-plain" {
        assert!(!cleared, "a sealed mount was cloned");
    }
    (
        line.trim().to_owned(),
        overwritten.err().and_then(|error| error.raw_os_error()),
    )
}

fn unsealed() {
    assert_eq!(attack("role-plain"), ("None".to_owned(), None));
}

fn under_a_clone() {
    assert_eq!(attack("role-ensure"), ("ReadOnly".to_owned(), Some(libc::EROFS)));
}

fn under_a_copy() {
    let (seal, errno) = attack("role-copy");
    assert_eq!(seal, "Memory");
    assert_eq!(errno, Some(libc::EPERM));
}

fn cost() {
    let clone = time(|| drop(sealed::read_only_clone().expect("root may clone")));
    let copy = time(|| drop(sealed::memory_copy().expect("memory is there")));
    println!("clone {clone} us, copy {copy} us");
    assert!(clone < copy, "clone {clone} us, copy {copy} us");
}

/// The least of several runs, in microseconds.
fn time(work: impl Fn()) -> u128 {
    let runs = (0..20).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed().as_micros()
    });
    runs.min().expect("there are runs")
}
