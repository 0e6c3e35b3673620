//! Doors of the kernel: settings, its lockdown, and debugfs.
//!
//! Owns which settings make a door closed, and since when they are there. Sources: the kernel's Documentation/admin-guide/sysctl,
//! kernel_lockdown(7), core(5); LOCKDOWN.md has the table for people.

use kakoi_policy::host::lockdown::{DOORS, Door, Lockdown, Section};

use super::item::{Item, Knob, Undo, Verdict, same};
use super::place::Place;

/// Which values are as closed as the one that is written.
#[derive(Clone, Copy, Debug)]
enum Good {
    /// That one.
    Exactly,
    /// Any number from here on.
    AtLeast(u64),
    /// These.
    OneOf(&'static [&'static str]),
}

/// One setting of a door.
struct Row {
    door: Door,
    name: &'static str,
    value: &'static str,
    good: Good,
    undo: Undo,
    breaks: &'static str,
}

const fn row(door: Door, name: &'static str, value: &'static str, breaks: &'static str) -> Row {
    Row {
        door,
        name,
        value,
        good: Good::Exactly,
        undo: Undo::Now,
        breaks,
    }
}

const fn good(row: Row, good: Good) -> Row {
    Row { good, ..row }
}

/// Stays until the device starts anew.
const fn for_good(row: Row) -> Row {
    Row {
        undo: Undo::Restart,
        ..row
    }
}

const NO_ROUTER: &str = "nothing, unless the network's routers redirect or are reached by source routes";

#[rustfmt::skip]
const ROWS: [Row; 39] = [
    for_good(row(Door::ModuleLoading, "kernel.modules_disabled", "1", "drivers, file systems and parts of netfilter that are not loaded yet")),
    row(Door::Sysrq, "kernel.sysrq", "0", "the key combination and /proc/sysrq-trigger for users"),
    for_good(row(Door::Kexec, "kernel.kexec_load_disabled", "1", "kexec and crash kernels that are not loaded yet")),
    good(row(Door::Ptrace, "kernel.yama.ptrace_scope", "1", "debuggers that attach to what they did not start"), Good::AtLeast(1)),
    good(row(Door::UnprivilegedBpf, "kernel.unprivileged_bpf_disabled", "2", "bpf(2) without privileges"), Good::OneOf(&["1", "2"])),
    row(Door::UnprivilegedBpf, "net.core.bpf_jit_harden", "2", "a little speed of packet filters"),
    row(Door::IoUring, "kernel.io_uring_disabled", "2", "programs that insist on io_uring"),
    good(row(Door::Perf, "kernel.perf_event_paranoid", "3", "perf without privileges"), Good::AtLeast(2)),
    row(Door::KernelLog, "kernel.dmesg_restrict", "1", "dmesg without privileges"),
    row(Door::KernelLog, "kernel.kptr_restrict", "2", "addresses in /proc/kallsyms, for profilers"),
    row(Door::CoreDumps, "kernel.core_pattern", "|/bin/false", "memory images of programs that crash"),
    row(Door::CoreDumps, "fs.suid_dumpable", "0", "memory images of set-user-ID programs"),
    row(Door::Userfaultfd, "vm.unprivileged_userfaultfd", "0", "userfaultfd without privileges"),
    row(Door::LineDisciplines, "dev.tty.ldisc_autoload", "0", "line disciplines that nobody loaded before: PPP, SLIP, CAN over serial lines"),
    row(Door::LineDisciplines, "dev.tty.legacy_tiocsti", "0", "programs that type into terminals"),
    row(Door::UnsafeLinks, "fs.protected_symlinks", "1", "nothing that is well-behaved"),
    row(Door::UnsafeLinks, "fs.protected_hardlinks", "1", "nothing that is well-behaved"),
    good(row(Door::UnsafeLinks, "fs.protected_fifos", "2", "nothing that is well-behaved"), Good::AtLeast(1)),
    good(row(Door::UnsafeLinks, "fs.protected_regular", "2", "nothing that is well-behaved"), Good::AtLeast(1)),
    row(Door::FixedLayout, "kernel.randomize_va_space", "2", "programs that need a fixed layout of memory"),
    good(row(Door::FixedLayout, "vm.mmap_min_addr", "65536", "programs that map the first page"), Good::AtLeast(32_768)),
    good(row(Door::NetworkTricks, "net.ipv4.conf.all.rp_filter", "1", "answers that come by another interface than the way back"), Good::OneOf(&["1", "2"])),
    good(row(Door::NetworkTricks, "net.ipv4.conf.default.rp_filter", "1", "answers that come by another interface than the way back"), Good::OneOf(&["1", "2"])),
    row(Door::NetworkTricks, "net.ipv4.conf.all.accept_redirects", "0", NO_ROUTER),
    row(Door::NetworkTricks, "net.ipv4.conf.default.accept_redirects", "0", NO_ROUTER),
    row(Door::NetworkTricks, "net.ipv4.conf.all.secure_redirects", "0", NO_ROUTER),
    row(Door::NetworkTricks, "net.ipv4.conf.default.secure_redirects", "0", NO_ROUTER),
    row(Door::NetworkTricks, "net.ipv4.conf.all.send_redirects", "0", NO_ROUTER),
    row(Door::NetworkTricks, "net.ipv4.conf.default.send_redirects", "0", NO_ROUTER),
    row(Door::NetworkTricks, "net.ipv4.conf.all.accept_source_route", "0", NO_ROUTER),
    row(Door::NetworkTricks, "net.ipv4.conf.default.accept_source_route", "0", NO_ROUTER),
    row(Door::NetworkTricks, "net.ipv6.conf.all.accept_redirects", "0", NO_ROUTER),
    row(Door::NetworkTricks, "net.ipv6.conf.default.accept_redirects", "0", NO_ROUTER),
    good(row(Door::NetworkTricks, "net.ipv6.conf.all.accept_source_route", "0", NO_ROUTER), Good::OneOf(&["0", "-1"])),
    good(row(Door::NetworkTricks, "net.ipv6.conf.default.accept_source_route", "0", NO_ROUTER), Good::OneOf(&["0", "-1"])),
    row(Door::NetworkTricks, "net.ipv4.icmp_echo_ignore_broadcasts", "1", "pings to everybody"),
    row(Door::NetworkTricks, "net.ipv4.icmp_ignore_bogus_error_responses", "1", "nothing"),
    good(row(Door::NetworkTricks, "net.ipv4.tcp_syncookies", "1", "nothing"), Good::AtLeast(1)),
    row(Door::NetworkTricks, "net.ipv4.tcp_rfc1337", "1", "nothing"),
];

/// The file of a setting.
pub(super) fn file_of(setting: &str) -> String {
    format!("proc/sys/{}", setting.replace('.', "/"))
}

/// Everything about the kernel.
pub(super) fn items(lockdown: &Lockdown, place: &Place) -> Vec<Item> {
    let mut items = Vec::new();
    if let Some(open) = lockdown.kernel.only() {
        let is_closed = |door: Door| !open.contains(&door);
        let rows = ROWS.iter().filter(|row| is_closed(row.door));
        // What the owner says by name goes before what the door says.
        let rows = rows.filter(|row| !lockdown.sysctl.contains_key(row.name));
        items.extend(rows.map(|row| of_row(row, place)));
        if is_closed(Door::UserNamespaces) {
            items.push(user_namespaces(place));
        }
        if is_closed(Door::RawKernel) {
            items.push(raw_kernel(place));
        }
        if is_closed(Door::Debugfs) {
            items.extend(debugfs(place));
        }
    }
    items.extend(lockdown.sysctl.iter().map(|(name, value)| {
        let item = Item::new(Section::Kernel, name).declared(value);
        let item = item.breaks("whatever needs another value");
        setting(
            item,
            name,
            value,
            place,
            |actual| is_same_value(actual, value),
            Undo::Now,
        )
    }));
    items
}

fn door_word(door: Door) -> &'static str {
    let named = DOORS.iter().find(|(_, other)| *other == door);
    named.map_or("", |(word, _)| word)
}

/// Numbers of one line are told apart by tabs.
fn is_same_value(actual: &str, wanted: &str) -> bool {
    actual
        .split_ascii_whitespace()
        .eq(wanted.split_ascii_whitespace())
}

fn of_row(row: &Row, place: &Place) -> Item {
    let item = Item::new(Section::Kernel, row.name)
        .declared(format!("{} closed: {}", door_word(row.door), row.value))
        .breaks(row.breaks);
    let is_good = |actual: &str| match row.good {
        Good::Exactly => actual == row.value,
        Good::AtLeast(least) => actual.parse::<u64>().is_ok_and(|value| value >= least),
        Good::OneOf(values) => values.contains(&actual),
    };
    if row.door == Door::ModuleLoading && !place.is_there("proc/modules") && place.is_there("proc/sys/kernel")
    {
        return item.actual("the kernel is built without modules", Verdict::Ok);
    }
    setting(item, row.name, row.value, place, is_good, row.undo)
}

fn setting(
    item: Item,
    name: &str,
    value: &str,
    place: &Place,
    is_good: impl Fn(&str) -> bool,
    undo: Undo,
) -> Item {
    let file = file_of(name);
    match place.read(&file) {
        Ok(Some(actual)) => item
            .how(format!("written to /{file}"))
            .actual(actual.as_str(), same(is_good(&actual)))
            .turn(Knob::File(file), actual, value, undo),
        Ok(None) => item
            .actual("the kernel has no such setting", Verdict::Unknown)
            .how("not at all: an older kernel, or one without what it is about"),
        Err(error) => item
            .actual(format!("it cannot be read: {error}"), Verdict::Unknown)
            .how("not at all")
            .turn(Knob::File(file), "", value, undo),
    }
}

/// Users' namespaces are closed by a setting of some distributions alone: the kernel's own bounds root's too, which containers need.
fn user_namespaces(place: &Place) -> Item {
    const DEBIAN: &str = "kernel.unprivileged_userns_clone";
    const UBUNTU: &str = "kernel.apparmor_restrict_unprivileged_userns";
    const ALL: &str = "user.max_user_namespaces";
    let item = Item::new(Section::Kernel, "user_namespaces")
        .declared("user_namespaces closed to users")
        .breaks("browsers' and desktops' sandboxes");
    for (name, value) in [(DEBIAN, "0"), (UBUNTU, "1")] {
        if place.is_there(&file_of(name)) {
            return setting(item, name, value, place, |actual| actual == value, Undo::Now);
        }
    }
    if !place.is_there("proc/self/ns/user") && place.is_there("proc/self/ns") {
        return item.actual("the kernel is built without them", Verdict::Ok);
    }
    let how = "not by Kakoi: this kernel's only setting, user.max_user_namespaces, would take them from containers too; add it to `sysctl:` where no container has one";
    match place.word(&file_of(ALL)) {
        Some(most) if most == "0" => item.actual("0 at most", Verdict::Ok).how(how),
        Some(most) => item.actual(format!("{most} at most"), Verdict::Drift).how(how),
        None => item.actual("nothing tells", Verdict::Unknown).how(how),
    }
}

/// `none [integrity] confidentiality`. Source: kernel_lockdown(7); Linux 5.4.
fn raw_kernel(place: &Place) -> Item {
    const FILE: &str = "sys/kernel/security/lockdown";
    let item = Item::new(Section::Kernel, "lockdown")
        .declared("raw_kernel closed: integrity")
        .breaks("unsigned modules, /dev/mem, hibernation, raw access to ports and registers");
    let Some(text) = place.word(FILE) else {
        return item
            .actual(format!("/{FILE} is not there"), Verdict::Unknown)
            .how("not at all: the kernel lacks SECURITY_LOCKDOWN_LSM, or securityfs is not mounted");
    };
    let mut levels = text.split_ascii_whitespace();
    let level = levels.find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    let level = level.unwrap_or(&text).to_owned();
    item.actual(
        level.as_str(),
        same(matches!(level.as_str(), "integrity" | "confidentiality")),
    )
    .how(format!("written to /{FILE}"))
    .turn(Knob::File(FILE.to_owned()), level, "integrity", Undo::Restart)
}

fn debugfs(place: &Place) -> Vec<Item> {
    let mounts = super::mounts::table(place);
    let mut items: Vec<Item> = mounts
        .iter()
        .filter(|mount| mount.kind == "debugfs")
        .map(|mount| {
            Item::new(Section::Kernel, format!("debugfs{}", mount.at))
                .declared("debugfs closed: not mounted")
                .actual(format!("mounted at {}", mount.at), Verdict::Drift)
                .how("unmounted")
                .breaks("debugging tools")
                .turn(Knob::Filesystem(mount.at.clone()), "debugfs", "none", Undo::Now)
        })
        .collect();
    if items.is_empty() {
        let item = Item::new(Section::Kernel, "debugfs").declared("debugfs closed: not mounted");
        items.push(match mounts.is_empty() {
            true => item.actual("the mounts cannot be read", Verdict::Unknown),
            false => item.actual("not mounted", Verdict::Ok),
        });
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_door_is_closed_by_something() {
        let elsewhere = [Door::UserNamespaces, Door::RawKernel, Door::Debugfs];
        for (word, door) in DOORS {
            let is_there = ROWS.iter().any(|row| row.door == door) || elsewhere.contains(&door);
            assert!(is_there, "{word}");
        }
    }

    #[test]
    fn what_is_written_is_good() {
        for row in &ROWS {
            let folder = tempfile::tempdir().expect("a folder");
            let place = Place::new(folder.path().to_owned());
            let path = place.path(&file_of(row.name));
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("ours");
            std::fs::write(&path, row.value).expect("ours");
            std::fs::write(place.path("proc/modules"), "").expect("ours");
            assert_eq!(of_row(row, &place).verdict, Verdict::Ok, "{}", row.name);
        }
    }
}
