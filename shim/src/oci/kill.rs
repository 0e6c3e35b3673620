//! `kill`, `pause` and `resume`.

use super::args::Kill;
use super::state::{Root, Status};
use super::{Failed, list};

pub(super) fn kill(root: &Root, flags: &Kill) -> Result<(), Failed> {
    let signal = number(&flags.signal)?;
    let ids = if flags.regex {
        list::matching(root, &flags.id)?
    } else {
        vec![flags.id.clone()]
    };
    ids.iter().try_for_each(|id| one(root, id, signal, flags.all))
}

fn one(root: &Root, id: &str, signal: i32, all: bool) -> Result<(), Failed> {
    let record = root.load(id)?;
    if all {
        let cgroup = record.cgroup()?;
        let sent = if signal == nix::libc::SIGKILL {
            cgroup.kill_all()
        } else {
            cgroup.signal_all(signal)
        };
        return sent.map_err(|error| Failed::of(&format!("kill container {id}"), &error));
    }
    let gone = || Failed::new(format!("container {id} is not running"));
    let handle = record.handle().ok_or_else(gone)?;
    handle
        .signal(signal)
        .map_err(|error| Failed::of(&format!("kill container {id}"), &error))?;
    // A frozen process takes SIGKILL only when it runs again.
    if signal == nix::libc::SIGKILL && record.status() == Status::Paused {
        record
            .cgroup()?
            .thaw()
            .map_err(|error| Failed::of(&format!("resume container {id}"), &error))?;
    }
    Ok(())
}

/// A signal's number by number or name, with or without `SIG`, real-time signals as `RTMIN+n` and `RTMAX-n`.
fn number(text: &str) -> Result<i32, Failed> {
    let unknown = || Failed::new(format!("unknown signal {text:?}"));
    if let Ok(number) = text.parse::<i32>() {
        return (1..=nix::libc::SIGRTMAX())
            .contains(&number)
            .then_some(number)
            .ok_or_else(unknown);
    }
    let upper = text.to_ascii_uppercase();
    let plain = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str| {
        if rest.is_empty() {
            Some(0)
        } else {
            rest.parse::<i32>().ok()
        }
    };
    if let Some(n) = plain.strip_prefix("RTMIN").and_then(offset) {
        return Ok(nix::libc::SIGRTMIN() + n);
    }
    if let Some(n) = plain.strip_prefix("RTMAX").and_then(offset) {
        return Ok(nix::libc::SIGRTMAX() + n);
    }
    let known: Result<nix::sys::signal::Signal, _> = format!("SIG{plain}").parse();
    known.map(|signal| signal as i32).map_err(|_| unknown())
}

pub(super) fn pause(root: &Root, id: &str) -> Result<(), Failed> {
    let record = root.load(id)?;
    match record.status() {
        Status::Running | Status::Created => {}
        status => {
            return Err(Failed::new(format!(
                "container {id} cannot be paused: it is {}",
                status.word()
            )));
        }
    }
    record
        .cgroup()?
        .freeze()
        .map_err(|error| Failed::of(&format!("pause container {id}"), &error))
}

pub(super) fn resume(root: &Root, id: &str) -> Result<(), Failed> {
    let record = root.load(id)?;
    match record.status() {
        Status::Paused => {}
        status => {
            return Err(Failed::new(format!(
                "container {id} cannot be resumed: it is {}",
                status.word()
            )));
        }
    }
    record
        .cgroup()?
        .thaw()
        .map_err(|error| Failed::of(&format!("resume container {id}"), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_found_by_any_name() {
        for (text, wanted) in [
            ("9", 9),
            ("KILL", 9),
            ("sigterm", 15),
            ("RTMIN+3", nix::libc::SIGRTMIN() + 3),
        ] {
            assert_eq!(number(text).ok(), Some(wanted), "{text}");
        }
        for text in ["0", "-1", "999", "SIGNOTHING", ""] {
            assert!(number(text).is_err(), "{text}");
        }
    }
}
