//! The words that the daemon starts the shim with.
//!
//! Owns their parsing, by hand: they come from the daemon only, and a start must not pay for a parser with help texts.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, IntoRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use kakoi_container::files::FilesError;
use kakoi_container::frames::SPARE_BYTES_MAX;
use kakoi_container::supervise;

use crate::report;

const STDIN: i32 = 0;
const STDOUT: i32 = 1;
const STDERR: i32 = 2;

/// `run --plan PLAN --ready-fd N`, where N is 1 or above the standard streams.
pub(crate) fn run(args: &[OsString]) -> ExitCode {
    report::begin();
    let [plan_word, plan, fd_word, fd] = args else {
        return usage("run --plan PLAN --ready-fd N");
    };
    let fd = fd
        .to_str()
        .and_then(|text| text.parse::<i32>().ok())
        .filter(|fd| *fd == STDOUT || *fd > 2);
    let Some(fd) = fd.filter(|_| plan_word == "--plan" && fd_word == "--ready-fd") else {
        return usage("run --plan PLAN --ready-fd N");
    };
    if let Err(code) = begin() {
        return code;
    }
    let fd = if fd == STDOUT {
        match leave_standard_output() {
            Ok(fd) => fd,
            Err(error) => return failed("take the ready descriptor", &error),
        }
    } else {
        fd
    };
    match supervise::run(&PathBuf::from(plan), fd) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed("run", &error),
    }
}

/// What comes first wherever a container follows.
fn begin() -> Result<(), ExitCode> {
    kakoi_sys::sealed::ensure().map_err(|error| failed("seal the runtime", &error))?;
    // Executed from a descriptor, it bears the descriptor's number.
    nix::sys::prctl::set_name(c"kakoi-shim").map_err(|errno| failed("take a name", &errno))
}

/// `spare RUN_DIR ROOM`: waits until the daemon hands over a container and then runs it, or until the stream ends and there is none.
///
/// RUN_DIR tells people whose it is; ROOM is blanks, over which the plan's path is written. The message is that path, with the descriptors
/// that `run` inherits: the control socket, the one for the first answer, the one for complaints.
pub(crate) fn spare(args: &[OsString]) -> ExitCode {
    report::begin();
    if args.len() != 2 {
        return usage("spare RUN_DIR ROOM");
    }
    if let Err(code) = begin() {
        return code;
    }
    let mut path = [0; SPARE_BYTES_MAX];
    let (length, descriptors) =
        match kakoi_sys::socket::receive_descriptors(std::io::stdin().as_fd(), &mut path) {
            Ok((0, _)) => return ExitCode::SUCCESS,
            Ok(received) => received,
            Err(error) => return failed("wait for a container", &error),
        };
    let Ok([listener, ready, complaints]) = <[OwnedFd; 3]>::try_from(descriptors) else {
        return usage("spare RUN_DIR ROOM");
    };
    let placed = kakoi_sys::descriptors::place_at(complaints.as_fd(), STDERR)
        .and_then(|()| kakoi_sys::descriptors::place_at(listener.as_fd(), STDIN));
    if let Err(error) = placed {
        return failed("take the descriptors", &error);
    }
    drop((listener, complaints));
    let plan = PathBuf::from(OsStr::from_bytes(&path[..length]));
    let words = [
        "kakoi-shim".as_ref(),
        "run".as_ref(),
        "--plan".as_ref(),
        plan.as_os_str(),
    ];
    if let Err(error) = kakoi_sys::process::set_command_line(&words) {
        complain!("kakoi-shim: taking the container's command line, ignoring: {error}");
    }
    match supervise::run(&plan, ready.into_raw_fd()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed("run", &error),
    }
}

/// Moves standard output to a descriptor above the standard ones and puts `/dev/null` in its place. A safe parent can hand over nothing but
/// the three standard streams; closing one later would let the next opened file take its number.
fn leave_standard_output() -> Result<i32, std::io::Error> {
    let moved = std::io::stdout().as_fd().try_clone_to_owned()?;
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    kakoi_sys::descriptors::place_at(null.as_fd(), STDOUT).map_err(std::io::Error::other)?;
    Ok(moved.into_raw_fd())
}

/// `clean --plan PLAN`
pub(crate) fn clean(args: &[OsString]) -> ExitCode {
    report::begin();
    let [word, plan] = args else {
        return usage("clean --plan PLAN");
    };
    if word != "--plan" {
        return usage("clean --plan PLAN");
    }
    match supervise::clean(&PathBuf::from(plan)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed("clean", &error),
    }
}

/// `files --plan PLAN`, `files --volume FOLDER`
pub(crate) fn files(args: &[OsString]) -> ExitCode {
    report::begin();
    let serve: fn(&Path) -> Result<(), FilesError> = match args.first().and_then(|word| word.to_str()) {
        Some("--plan") if args.len() == 2 => kakoi_container::files::serve,
        Some("--volume") if args.len() == 2 => kakoi_container::files::serve_volume,
        _ => return usage("files --plan PLAN | --volume FOLDER"),
    };
    // What it reads is the container's to change; the program must not be (CVE-2019-5736).
    if let Err(code) = begin() {
        return code;
    }
    match serve(Path::new(&args[1])) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed("files", &error),
    }
}

/// `stage POINT FD`
pub(crate) fn stage(args: &[OsString]) -> ExitCode {
    report::begin();
    let (point, list) = match args {
        [point, list] => (point, list.to_str().and_then(|text| text.parse().ok())),
        _ => return usage("stage POINT FD"),
    };
    let Some(list) = list else {
        return usage("stage POINT FD");
    };
    match kakoi_container::stage::run(list, &point.to_string_lossy()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed("stage", &error),
    }
}

fn usage(words: &str) -> ExitCode {
    complain!("usage: kakoi-shim {words}");
    ExitCode::from(2)
}

fn failed(act: &str, error: &dyn std::error::Error) -> ExitCode {
    complain!("kakoi-shim: {act}: {}", report::chain(error));
    ExitCode::FAILURE
}
