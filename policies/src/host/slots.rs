//! The sections `slots` and `watchdog` of a host: the two slots of its operating system, its boot loader, and what resets it.
//!
//! Owns their grammar and limits. Knows nothing of boot loaders and disks: what a field means there is the supervisor's.
//!
//! ```
//! let host = kakoi_policy::parse_host(
//!     "host.yaml",
//!     "kakoi: 1\nkind: Host\nslots:\n  board: gw3\n  image: registry.example.com/acme/os\n  a: /dev/mmcblk0p2\n  b: /dev/mmcblk0p3\n  \
//!      boot:\n    blocks: {device: /dev/mmcblk0, first: 1048576, second: 1052672}\nwatchdog: {timeout: 60s}\n",
//! )?;
//! assert_eq!(host.slots.map(|slots| slots.tries), Some(3));
//! # Ok::<(), kakoi_policy::Diagnostics>(())
//! ```

use serde::{Deserialize, Serialize};

use crate::decode::fields::{Fields, choice, list, number, path, printable, word};
use crate::diagnostics::{Report, Span};
use crate::units;
use crate::yaml::Node;

/// A boot script counts down a digit.
const TRIES_MAX: u64 = 9;
/// Longest time that a trial may take: a day.
const DURATION_MS_MAX: u64 = 24 * 3600 * 1000;
/// A watchdog's time limit: below, a busy device is reset; above, no hardware goes.
const WATCHDOG_S: std::ops::RangeInclusive<u64> = 5..=3600;
/// Words of a command, and apps of a list.
const WORDS_MAX: usize = 64;

/// The two slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    /// Which images are for this device.
    pub board: String,
    /// The repository that they come from; nothing else is installed, and trust.yaml judges by this name.
    pub image: String,
    /// The device of slot a.
    pub a: String,
    /// The device of slot b.
    pub b: String,
    /// How the boot loader is told.
    pub boot: Boot,
    /// The word of the kernel's command line whose value is the slot that runs.
    pub running: String,
    /// How often a slot on trial is started.
    pub tries: u8,
    /// Who commits.
    pub commit: Commit,
    /// Milliseconds that all must be well before the slot is committed.
    pub well_for_ms: u64,
    /// Milliseconds after the start after which a slot that was not well is given up.
    pub give_up_after_ms: u64,
    /// The apps that must be well; all of them where none is named.
    pub require: Option<Vec<String>>,
    /// What starts the device anew.
    pub restart: Vec<String>,
}

/// How the boot loader is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Boot {
    /// Two raw blocks that a boot script reads.
    Blocks {
        /// The device.
        device: String,
        /// Where the first lies, in bytes.
        first: u64,
        /// Where the second lies.
        second: u64,
    },
    /// U-Boot's environment in two copies.
    Uboot {
        /// The device.
        device: String,
        /// Where the first lies, in bytes.
        first: u64,
        /// Where the second lies.
        second: u64,
        /// Bytes of a copy.
        size: u64,
    },
    /// systemd-boot's boot counting.
    SystemdBoot {
        /// The folder of its entries.
        entries: String,
    },
    /// A program with `get-primary`, `set-primary`, `get-state`, `set-state`.
    Command(Vec<String>),
}

/// Who commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Commit {
    /// The supervisor, when the device is well.
    Well,
    /// A person or a program: `kakoi os commit`.
    Manual,
}

/// The watchdog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watchdog {
    /// Its device.
    pub device: String,
    /// Seconds without food after which it resets the device.
    pub timeout_s: u64,
    /// The apps that must be well for it to be fed; none where none is named.
    pub require: Vec<String>,
}

fn refuse(span: Span, text: &str, what: &str, help: &str, report: &mut Report<'_>) {
    report
        .error(span, format!("`{}` is not {what}", printable(text)))
        .help(help);
}

/// Reads the section `slots`.
pub(super) fn read(node: Node, report: &mut Report<'_>) -> Option<Slots> {
    const KEYS: [&str; 12] = [
        "board",
        "image",
        "a",
        "b",
        "boot",
        "running",
        "tries",
        "commit",
        "well_for",
        "give_up_after",
        "require",
        "restart",
    ];
    let mut fields = Fields::open(node, "slots", &KEYS, report)?;
    let span = fields.span;
    let board = fields.need("board", "a device with slots", report);
    let board = board.and_then(|node| plain(&node, "a board", "-_.,+", report));
    let image = fields.need("image", "a device with slots", report);
    let image = image.and_then(|node| repository(&node, report));
    let mut device = |name: &str, report: &mut Report<'_>| {
        let node = fields.need(name, "a device with slots", report);
        node.and_then(|node| path(&node, "a slot's device", false, report))
    };
    let (a, b) = (device("a", report), device("b", report));
    if a.is_some() && a == b {
        report
            .error(span, "slots a and b are the same device")
            .help("the slot that runs is never written: name two");
    }
    let boot = fields.need("boot", "a device with slots", report);
    let boot = boot.and_then(|node| self::boot(node, report));
    let running = fields.take("running", report);
    let running = running.map(|node| plain(&node, "a word of the kernel's command line", "-_.", report));
    let tries = fields.take("tries", report);
    let tries = tries.map(|node| between(&node, "`tries`", 1..=TRIES_MAX, report));
    let commit = fields.take("commit", report).and_then(|node| {
        choice(
            &node,
            "`commit`",
            &[("well", Commit::Well), ("manual", Commit::Manual)],
            report,
        )
    });
    let (well_for_ms, give_up_after_ms) = times(&mut fields, report);
    let require = fields.take("require", report).map(|node| apps(node, report));
    let restart = fields.take("restart", report).map(|node| command(node, report));
    Some(Slots {
        board: board?,
        image: image?,
        a: a?,
        b: b?,
        boot: boot?,
        running: running.unwrap_or_else(|| Some("kakoi.slot".to_owned()))?,
        tries: tries
            .unwrap_or(Some(3))
            .and_then(|tries| u8::try_from(tries).ok())?,
        commit: commit.unwrap_or(Commit::Well),
        well_for_ms,
        give_up_after_ms,
        require,
        restart: restart.unwrap_or_else(|| Some(vec!["/sbin/reboot".to_owned()]))?,
    })
}

/// How long a trial has to be well, and how long that is waited for.
fn times(fields: &mut Fields, report: &mut Report<'_>) -> (u64, u64) {
    let span = fields.span;
    let mut time = |name: &str, otherwise: u64, report: &mut Report<'_>| {
        let node = fields.take(name, report);
        node.and_then(|node| duration(&node, name, report))
            .unwrap_or(otherwise)
    };
    let well_for_ms = time("well_for", 60_000, report);
    let give_up_after_ms = time("give_up_after", 600_000, report);
    if give_up_after_ms <= well_for_ms {
        report
            .error(span, "a slot would be given up before it could be well for long enough")
            .help("`give_up_after` must be longer than `well_for`; they are 10m and 60s where they are not written");
    }
    (well_for_ms, give_up_after_ms)
}

fn boot(node: Node, report: &mut Report<'_>) -> Option<Boot> {
    const KINDS: [&str; 4] = ["blocks", "uboot", "systemd-boot", "command"];
    let mut fields = Fields::open(node, "a boot control", &KINDS, report)?;
    let span = fields.span;
    let mut found: Vec<Option<Boot>> = Vec::new();
    if let Some(node) = fields.take("blocks", report) {
        found.push(copies(node, false, report));
    }
    if let Some(node) = fields.take("uboot", report) {
        found.push(copies(node, true, report));
    }
    if let Some(node) = fields.take("systemd-boot", report) {
        let inner = Fields::open(node, "systemd-boot", &["entries"], report);
        let entries = inner.and_then(|mut inner| inner.need("entries", "systemd-boot", report));
        let entries = entries.and_then(|node| path(&node, "a folder of entries", false, report));
        found.push(entries.map(|entries| Boot::SystemdBoot { entries }));
    }
    if let Some(node) = fields.take("command", report) {
        found.push(command(node, report).map(Boot::Command));
    }
    if found.len() != 1 {
        report
            .error(span, format!("a device with {} boot controls", found.len()))
            .help("write exactly one of `blocks`, `uboot`, `systemd-boot` and `command`");
        return None;
    }
    found.pop().flatten()
}

fn copies(node: Node, has_size: bool, report: &mut Report<'_>) -> Option<Boot> {
    let (what, keys): (&str, &[&str]) = match has_size {
        true => ("U-Boot's environment", &["device", "first", "second", "size"]),
        false => ("blocks of boot state", &["device", "first", "second"]),
    };
    let mut fields = Fields::open(node, what, keys, report)?;
    let span = fields.span;
    let device = fields.need("device", what, report);
    let device = device.and_then(|node| path(&node, "a device", false, report));
    let mut offset = |name: &str, report: &mut Report<'_>| {
        let node = fields.need(name, what, report)?;
        number(&node, &format!("`{name}`"), i64::MAX as u64, report)
    };
    let (first, second) = (offset("first", report), offset("second", report));
    let size = match has_size {
        true => offset("size", report),
        false => Some(4096),
    };
    let (device, first, second, size) = (device?, first?, second?, size?);
    if first.abs_diff(second) < size {
        report
            .error(span, "the second copy lies over the first")
            .help(format!("offsets are in bytes, and a copy has {size}"));
        return None;
    }
    Some(match has_size {
        true => Boot::Uboot {
            device,
            first,
            second,
            size,
        },
        false => Boot::Blocks {
            device,
            first,
            second,
        },
    })
}

/// Reads the section `watchdog`.
pub(super) fn read_watchdog(node: Node, report: &mut Report<'_>) -> Option<Watchdog> {
    let mut fields = Fields::open(node, "a watchdog", &["device", "timeout", "require"], report)?;
    let device = fields.take("device", report);
    let device = device.map(|node| path(&node, "a watchdog's device", false, report));
    let timeout = fields.take("timeout", report).map(|node| {
        let milliseconds = duration(&node, "timeout", report)?;
        let seconds = milliseconds / 1000;
        if !WATCHDOG_S.contains(&seconds) || !milliseconds.is_multiple_of(1000) {
            report
                .error(
                    node.span,
                    "a watchdog's `timeout` is a number of seconds from 5s to 1h",
                )
                .help("twice what the device is at most busy with; 60s where it is not written");
            return None;
        }
        Some(seconds)
    });
    let require = fields.take("require", report).map(|node| apps(node, report));
    Some(Watchdog {
        device: device.unwrap_or_else(|| Some("/dev/watchdog".to_owned()))?,
        timeout_s: timeout.unwrap_or(Some(60))?,
        require: require.unwrap_or_default(),
    })
}

fn plain(node: &Node, what: &str, also: &str, report: &mut Report<'_>) -> Option<String> {
    let text = word(node, what, report)?;
    let is_good = text.len() <= 128
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || also.contains(c));
    if !is_good {
        let help = format!("use up to 128 letters, digits and {}", spaced(also));
        refuse(node.span, &text, what, &help, report);
        return None;
    }
    Some(text)
}

fn spaced(characters: &str) -> String {
    let each: Vec<String> = characters.chars().map(|c| format!("`{c}`")).collect();
    each.join(", ")
}

fn repository(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let text = word(node, "a repository", report)?;
    let last = text.rsplit('/').next().unwrap_or_default();
    let is_good = text.contains('/')
        && text.len() <= 255
        && !last.contains(':')
        && !text.contains('@')
        && !text.contains(char::is_whitespace);
    if !is_good {
        let help = "write registry and repository without tag or digest: registry.example.com/acme/os";
        refuse(node.span, &text, "a repository", help, report);
        return None;
    }
    Some(text)
}

fn between(
    node: &Node,
    what: &str,
    range: std::ops::RangeInclusive<u64>,
    report: &mut Report<'_>,
) -> Option<u64> {
    let value = number(node, what, *range.end(), report)?;
    if !range.contains(&value) {
        report
            .error(node.span, format!("{value} is too small for {what}"))
            .help(format!("it is at least {}", range.start()));
        return None;
    }
    Some(value)
}

fn duration(node: &Node, name: &str, report: &mut Report<'_>) -> Option<u64> {
    let text = word(node, name, report)?;
    let found = units::duration_ms(&text).filter(|value| (1..=DURATION_MS_MAX).contains(value));
    if found.is_none() {
        let what = format!("a duration, which `{name}` needs");
        refuse(
            node.span,
            &text,
            &what,
            "write 500ms, 30s, 5m or 1h; at most a day",
            report,
        );
    }
    found
}

fn texts(node: Node, what: &str, report: &mut Report<'_>) -> Vec<String> {
    let span = node.span;
    let nodes = list(node, what, report);
    if nodes.len() > WORDS_MAX {
        report.error(span, format!("more than {WORDS_MAX} {what}"));
        return Vec::new();
    }
    nodes
        .iter()
        .filter_map(|node| word(node, "a word", report))
        .collect()
}

fn apps(node: Node, report: &mut Report<'_>) -> Vec<String> {
    texts(node, "names of apps", report)
}

/// A program by its absolute path, and its first arguments.
fn command(node: Node, report: &mut Report<'_>) -> Option<Vec<String>> {
    let span = node.span;
    let words = texts(node, "words", report);
    if !words.first().is_some_and(|program| program.starts_with('/')) {
        report
            .error(span, "a command without the absolute path of its program")
            .help("write [/usr/lib/kakoi/boot-control], with arguments behind it where it takes some");
        return None;
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_host;

    const WHOLE: &str = "kakoi: 1
kind: Host
slots:
  board: gw3
  image: registry.example.com:5000/acme/os
  a: /dev/mmcblk0p2
  b: /dev/mmcblk0p3
  boot:
    uboot: {device: /dev/mmcblk0, first: 0x400000, second: 0x410000, size: 65536}
  running: rauc.slot
  tries: 2
  commit: manual
  well_for: 30s
  give_up_after: 5m
  require: [web]
  restart: [/bin/systemctl, reboot]
watchdog: {device: /dev/watchdog1, timeout: 30s, require: [web]}
";

    #[test]
    fn a_whole_document_is_read() {
        let host = parse_host("host.yaml", WHOLE).expect("valid");
        let slots = host.slots.expect("slots");
        let boot = Boot::Uboot {
            device: "/dev/mmcblk0".into(),
            first: 0x40_0000,
            second: 0x41_0000,
            size: 65536,
        };
        assert_eq!((slots.boot, slots.tries, slots.commit), (boot, 2, Commit::Manual));
        assert_eq!((slots.running.as_str(), slots.well_for_ms), ("rauc.slot", 30_000));
        assert_eq!(slots.require, Some(vec!["web".to_owned()]));
        let watchdog = host.watchdog.expect("a watchdog");
        assert_eq!((watchdog.timeout_s, watchdog.require.len()), (30, 1));
        let nothing = parse_host("host.yaml", "kakoi: 1\nkind: Host\n").expect("valid");
        assert_eq!((nothing.slots, nothing.watchdog), (None, None));
    }

    /// What replaces what in the whole document, and the line that is named for it.
    #[test]
    fn what_is_not_understood_is_refused_where_it_stands() {
        for (from, to, line) in [
            ("kind: Host", "kind: App", 2),
            ("  board: gw3\n", "", 4),
            ("board: gw3", "board: \"g w\"", 4),
            ("5000/acme/os", "5000/acme/os:1", 5),
            ("registry.example.com:5000/acme/os", "os", 5),
            ("b: /dev/mmcblk0p3", "b: /dev/mmcblk0p2", 4),
            ("b: /dev/mmcblk0p3", "b: mmcblk0p3", 7),
            ("second: 0x410000", "second: 0x400001", 9),
            ("uboot: {", "grub: {", 9),
            (", size: 65536", "", 9),
            ("    uboot:", "    command: [boot]\n    uboot:", 9),
            ("tries: 2", "tries: 0", 11),
            ("tries: 2", "tries: 10", 11),
            ("commit: manual", "commit: never", 12),
            ("well_for: 30s", "well_for: 6m", 4),
            ("well_for: 30s", "well_for: 30", 13),
            ("require: [web]\n  restart", "require: web\n  restart", 15),
            ("[/bin/systemctl, reboot]", "[systemctl]", 16),
            ("timeout: 30s", "timeout: 1s", 17),
            ("timeout: 30s", "timeout: 1500ms", 17),
            ("timeout: 30s", "time: 30s", 17),
        ] {
            let text = WHOLE.replacen(from, to, 1);
            assert_ne!(text, WHOLE, "{from}");
            let said = parse_host("host.yaml", &text).expect_err(to).to_string();
            assert!(said.contains(&format!("host.yaml:{line}:")), "{to}: {said}");
        }
    }
}
