//! The words that the daemon starts the shim with.
//!
//! Owns their parsing, by hand: they come from the daemon only, and a start must not pay for a parser with help texts.

use std::ffi::OsString;
use std::os::fd::{AsFd as _, IntoRawFd as _};
use std::path::PathBuf;
use std::process::ExitCode;

use kakoi_container::supervise;

use crate::report;

/// The number of standard output.
const STDOUT: i32 = 1;

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
    if let Err(error) = kakoi_sys::sealed::ensure() {
        return failed("seal the runtime", &error);
    }
    // Executed from a descriptor, it bears the descriptor's number.
    if let Err(errno) = nix::sys::prctl::set_name(c"kakoi-shim") {
        return failed("take a name", &errno);
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
