//! Devices, mounts, secrets and limits.

use super::{Found, HeldMount, Privileges};
use crate::compile::landlock::covers;
use crate::confinement::{DeviceAccess, DeviceKind, DeviceRule, Limits, MountSource};
use crate::render::access_word;
use crate::units::show_bytes;

pub(super) fn beyond(from: &Privileges, to: &Privileges, found: &mut Found) {
    devices(&from.confinement.devices, &to.confinement.devices, found);
    mounts(from, to, found);
    for secret in to.secrets.iter().filter(|name| !from.secrets.contains(name)) {
        found.add("secrets", secret);
    }
    limits(&from.confinement.limits, &to.confinement.limits, found);
}

fn devices(was: &[DeviceRule], is: &[DeviceRule], found: &mut Found) {
    for rule in is {
        let granted = was.iter().filter(|had| is_within(had, rule));
        let mut access = rule.access;
        for had in granted {
            access.read &= !had.access.read;
            access.write &= !had.access.write;
            access.mknod &= !had.access.mknod;
        }
        let is_nothing = DeviceAccess {
            read: false,
            write: false,
            mknod: false,
        };
        if access != is_nothing {
            found.add("devices", format!("{} ({})", subject(rule), access_word(access)));
        }
    }
}

/// Whether every node that `inner` stands for is one of `outer`. What is known by its path is compared by it: its numbers are found at a start.
fn is_within(outer: &DeviceRule, inner: &DeviceRule) -> bool {
    let is_all = outer.path.is_none()
        && outer.kind == DeviceKind::All
        && outer.major.is_none()
        && outer.minor.is_none();
    if is_all || outer.path.is_some() || inner.path.is_some() {
        return is_all || outer.path == inner.path;
    }
    (outer.kind == DeviceKind::All || outer.kind == inner.kind)
        && (outer.major.is_none() || outer.major == inner.major)
        && (outer.minor.is_none() || outer.minor == inner.minor)
}

fn subject(rule: &DeviceRule) -> String {
    if let Some(path) = &rule.path {
        return path.clone();
    }
    let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
    match (rule.kind, rule.major, rule.minor) {
        (DeviceKind::All, None, None) => "every device".to_owned(),
        (kind, major, minor) => {
            let kind = match kind {
                DeviceKind::All => "device",
                DeviceKind::Char => "character device",
                DeviceKind::Block => "block device",
            };
            format!("{kind} {}:{}", number(major), number(minor))
        }
    }
}

fn mounts(from: &Privileges, to: &Privileges, found: &mut Found) {
    for mount in &to.mounts {
        let covered: Vec<&HeldMount> = from.mounts.iter().filter(|had| holds(had, mount)).collect();
        let was_written = covered.iter().any(|had| !had.read_only);
        if was_written || (mount.read_only && !covered.is_empty()) {
            continue;
        }
        let what = match &mount.source {
            MountSource::Bind(path) => format!("the device's {path}"),
            MountSource::Volume(name) => format!("the volume {name}"),
            MountSource::Tmpfs(_) => continue,
        };
        let how = match (mount.read_only, covered.is_empty()) {
            (true, _) => "read",
            (false, true) => "read and write",
            (false, false) => "write",
        };
        found.add("mounts", format!("{how} {what}"));
    }
}

fn holds(had: &HeldMount, asked: &HeldMount) -> bool {
    match (&had.source, &asked.source) {
        (MountSource::Bind(folder), MountSource::Bind(path)) => covers(folder, path),
        (had, asked) => had == asked,
    }
}

fn limits(was: &Limits, is: &Limits, found: &mut Found) {
    let bytes = |value: u64| show_bytes(value);
    let rate = |value: u64| format!("{} a second", show_bytes(value));
    let cpus = |value: u64| format!("{}.{:03} processors", value / 1000, value % 1000);
    let count = |value: u64| value.to_string();
    type Row<'a> = (&'a str, Option<u64>, Option<u64>, &'a dyn Fn(u64) -> String);
    let rows: [Row<'_>; 8] = [
        ("memory", was.memory_bytes, is.memory_bytes, &bytes),
        ("swap", was.swap_bytes, is.swap_bytes, &bytes),
        ("processor time", was.cpu_millis, is.cpu_millis, &cpus),
        ("processes", was.pids, is.pids, &count),
        ("open files", was.open_files, is.open_files, &count),
        (
            "reading from disks",
            was.io_read_bytes_per_second,
            is.io_read_bytes_per_second,
            &rate,
        ),
        (
            "writing to disks",
            was.io_write_bytes_per_second,
            is.io_write_bytes_per_second,
            &rate,
        ),
        ("a tmpfs", was.tmpfs_bytes, is.tmpfs_bytes, &bytes),
    ];
    for (name, was, is, show) in rows {
        let Some(had) = was else { continue };
        match is {
            None => found.add_over("limits", format!("{name} without a limit"), show(had)),
            Some(more) if more > had => {
                found.add_over("limits", format!("{name} up to {}", show(more)), show(had))
            }
            Some(_) => {}
        }
    }
}
