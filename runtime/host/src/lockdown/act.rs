//! Turning one knob, and reading back that it turned.
//!
//! Thin: what to turn was decided before. What this crate has no hands for (interfaces, the packet filter, programs) is its caller's, by [`Hands`].

use std::io;

use kakoi_policy::host::Lockdown;

use super::item::Knob;
use super::mounts;
use super::place::Place;
use super::plan::Step;
use super::sockets::{Filter, Published};
use super::units::{self, Init, Units};

/// What the caller does for the lockdown.
pub trait Hands: Send {
    /// Takes a network interface up or down.
    fn set_link(&self, name: &str, is_up: bool) -> io::Result<()>;
    /// Ports that apps published.
    fn published(&self) -> Vec<Published>;
    /// Whether the packet filter stands as a declaration and the published ports want it.
    fn ports(&self, declared: &Lockdown) -> Filter;
    /// Closes the ports that are open neither by declaration nor by an app, or takes the packet filter away.
    fn set_ports(&self, declared: Option<&Lockdown>) -> io::Result<()>;
    /// Runs a program to its end.
    fn run(&self, words: &[&str]) -> io::Result<()>;
    /// Sets the options of a mount (`ro`, `nosuid`, `nodev`, `noexec`), those that are not named being taken away.
    fn remount(&self, at: &str, options: &str) -> io::Result<()>;
    /// Unmounts what is on top of a place, now or not at all; or from sight alone, whoever has files of it open.
    fn unmount(&self, at: &str, is_lazy: bool) -> io::Result<()>;
    /// Mounts a file system of the kernel's own.
    fn mount(&self, at: &str, kind: &str) -> io::Result<()>;
}

/// Turns it. What is not there any more, as a device that was pulled out, needs no turning back.
pub(super) fn turn(
    place: &Place,
    hands: &dyn Hands,
    declared: Option<&Lockdown>,
    step: &Step,
) -> io::Result<()> {
    let to = step.to.as_str();
    let done = match &step.knob {
        Knob::File(path) => file(place, path, to),
        Knob::Link(name) => hands.set_link(name, to == "up"),
        Knob::Unit(name) => unit(place, hands, name, to),
        Knob::Mount(at) => hands.remount(at, to),
        Knob::Filesystem(at) if to == "none" => hands.unmount(at, true),
        // By whoever was killed behind it.
        Knob::Filesystem(at) if is_mounted(place, at, to) => Ok(()),
        Knob::Filesystem(at) => hands.mount(at, to),
        Knob::Medium(at) => hands.unmount(at, false),
        Knob::Ports => hands.set_ports(declared.filter(|_| to == "closed")),
    };
    match done {
        Err(error) if step.is_return && is_gone(&error) => Ok(()),
        done => done,
    }
}

fn is_mounted(place: &Place, at: &str, kind: &str) -> bool {
    let table = mounts::table(place);
    table.iter().any(|mount| mount.at == at && mount.kind == kind)
}

fn is_gone(error: &io::Error) -> bool {
    const ENODEV: i32 = 19;
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(ENODEV)
}

fn file(place: &Place, path: &str, to: &str) -> io::Result<()> {
    place.write(path, to)?;
    let stands = place.read(path)?.unwrap_or_default();
    // The lockdown shows all levels, with the one that holds in brackets.
    let is_it = stands.split_ascii_whitespace().eq(to.split_ascii_whitespace())
        || stands
            .split_ascii_whitespace()
            .any(|word| word == format!("[{to}]"));
    match is_it {
        true => Ok(()),
        false => Err(io::Error::other(format!("it was written and reads {stands:?}"))),
    }
}

fn unit(place: &Place, hands: &dyn Hands, name: &str, to: &str) -> io::Result<()> {
    let init = Units::look(place).init();
    let is_closed = to == units::CLOSED;
    let starts = to.starts_with("started");
    match init {
        Init::Systemd if is_closed => hands.run(&["systemctl", "mask", "--now", "--", name]),
        Init::Systemd => {
            if !to.ends_with(",masked") {
                hands.run(&["systemctl", "unmask", "--", name])?;
            }
            match starts {
                true => hands.run(&["systemctl", "start", "--", name]),
                false => Ok(()),
            }
        }
        Init::OpenRc if is_closed => {
            hands.run(&["rc-update", "--all", "del", name])?;
            hands.run(&["rc-service", "--ifstarted", name, "stop"])
        }
        Init::OpenRc => {
            let levels = to.split_once(',').map_or("", |(_, levels)| levels);
            for level in levels.split('+').filter(|level| !level.is_empty()) {
                hands.run(&["rc-update", "add", name, level])?;
            }
            match starts {
                true => hands.run(&["rc-service", name, "start"]),
                false => Ok(()),
            }
        }
        Init::Other => Err(io::Error::other("nothing that Kakoi steers runs services here")),
    }
}
