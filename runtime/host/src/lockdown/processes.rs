//! Processes of the device: their names, and programs that offer a login.
//!
//! Source: proc_pid_stat(5), proc_pid_comm(5), proc_pid_cmdline(5). What a process calls itself is shown and never trusted.

use kakoi_policy::host::lockdown::{Lockdown, Section};

use super::item::{Item, Knob, Undo, Verdict};
use super::place::Place;
use super::units::{self, Units};

/// Programs that ask for a name on a terminal.
const LOGINS: [&str; 8] = [
    "agetty", "getty", "mingetty", "fgetty", "mgetty", "sulogin", "login", "askfirst",
];
/// What is shown of a name; the kernel keeps 15 bytes.
const NAME_CHARS_MAX: usize = 32;

/// All numbers.
pub(super) fn ids(place: &Place) -> Vec<u32> {
    let mut ids: Vec<u32> = place
        .names("proc")
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect();
    ids.sort_unstable();
    ids
}

/// A process's name.
pub(super) fn name(place: &Place, pid: u32) -> String {
    let name = place.word(&format!("proc/{pid}/comm")).unwrap_or_default();
    let shown = name.chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX);
    shown.collect()
}

/// The name and terminal of a process: the number is major and minor as in stat(2).
fn terminal(place: &Place, pid: u32) -> Option<(u32, u32)> {
    let stat = place.word(&format!("proc/{pid}/stat"))?;
    // A name may hold anything, brackets and spaces too: what follows the last bracket is the rest.
    let (_, rest) = stat.rsplit_once(") ")?;
    let number: u32 = rest.split(' ').nth(4)?.parse().ok()?;
    (number != 0).then_some((
        (number >> 8) & 0xfff,
        (number & 0xff) | ((number >> 12) & 0xfff00),
    ))
}

/// `tty1`, `ttyS0`: the terminal's name by its number.
fn terminal_name(place: &Place, (major, minor): (u32, u32)) -> String {
    let link = place.link(&format!("sys/dev/char/{major}:{minor}"));
    let named = link.as_deref().and_then(|link| link.rsplit('/').next());
    named.map_or_else(|| format!("terminal {major}:{minor}"), str::to_owned)
}

/// What a getty that has no terminal yet was told to take.
fn told_terminal(place: &Place, pid: u32) -> Option<String> {
    let words = place.word(&format!("proc/{pid}/cmdline"))?;
    let words = words
        .split('\0')
        .skip(1)
        .map(|word| word.trim_start_matches("/dev/"));
    let mut terminals = words.filter(|word| {
        word.starts_with("tty") && word.len() > 3 && word.chars().all(|c| c.is_ascii_alphanumeric())
    });
    terminals.next().map(str::to_owned)
}

/// Everything about consoles.
pub(super) fn items(lockdown: &Lockdown, place: &Place, units: &Units) -> Vec<Item> {
    let Some(allowed) = lockdown.consoles.only() else {
        return Vec::new();
    };
    let pids = ids(place);
    if pids.is_empty() {
        return vec![Item::new(Section::Consoles, "logins").actual("/proc cannot be read", Verdict::Unknown)];
    }
    let mut items: Vec<Item> = Vec::new();
    for pid in pids {
        let name = name(place, pid);
        if !LOGINS.contains(&name.as_str()) {
            continue;
        }
        let terminal = terminal(place, pid)
            .map(|number| terminal_name(place, number))
            .or_else(|| told_terminal(place, pid));
        // Of a session that came over the network: that is a service's.
        if terminal
            .as_deref()
            .is_some_and(|name| name.parse::<u32>().is_ok())
        {
            continue;
        }
        let terminal = terminal.unwrap_or_else(|| "console".to_owned());
        items.push(login(
            &terminal,
            &format!("{name} ({pid}) asks for a login"),
            allowed,
            units,
        ));
    }
    // Two programs of one terminal are one door.
    items.sort_by(|one, other| one.name.cmp(&other.name));
    items.dedup_by(|one, other| one.name == other.name);
    let mut closed = units.closed_gettys(allowed);
    closed.retain(|item| !items.iter().any(|other| other.name == item.name));
    items.extend(closed);
    items
}

fn login(terminal: &str, actual: &str, allowed: &[String], units: &Units) -> Item {
    let item = Item::new(Section::Consoles, terminal);
    if allowed.iter().any(|allowed| allowed == terminal) {
        return item.declared("a login").actual(actual, Verdict::Ok);
    }
    let item = item
        .declared("no login")
        .actual(actual, Verdict::Drift)
        .breaks("whoever logs in at this console");
    match units.getty_of(terminal) {
        Some((unit, state)) => item.how(format!("{unit} is stopped and masked")).turn(
            Knob::Unit(unit),
            state,
            units::CLOSED,
            Undo::Now,
        ),
        None => item.how("not by Kakoi: take it out of the init system's own table (inittab)"),
    }
}
