//! Mounts: options of those that everybody writes to, and media that somebody plugged in.
//!
//! Source: proc_pid_mountinfo(5).

use kakoi_policy::host::lockdown::{Lockdown, MOUNT_OPTIONS, MountOption, Section};

use super::item::{Item, Knob, Undo, Verdict, same};
use super::place::Place;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub at: String,
    pub device: String,
    pub kind: String,
    pub source: String,
    pub options: Vec<String>,
}

/// Where everybody, or every service, writes, and what such a mount must not allow.
const SENSITIVE: [(&str, &[MountOption]); 6] = [
    ("/tmp", &[MountOption::Exec, MountOption::Suid, MountOption::Dev]),
    (
        "/var/tmp",
        &[MountOption::Exec, MountOption::Suid, MountOption::Dev],
    ),
    (
        "/dev/shm",
        &[MountOption::Exec, MountOption::Suid, MountOption::Dev],
    ),
    ("/run", &[MountOption::Suid, MountOption::Dev]),
    ("/home", &[MountOption::Suid, MountOption::Dev]),
    ("/proc", &[MountOption::Exec, MountOption::Suid, MountOption::Dev]),
];

/// All mounts, the topmost of a place last.
pub(super) fn table(place: &Place) -> Vec<Mount> {
    let text = place.word("proc/self/mountinfo").unwrap_or_default();
    text.lines().filter_map(parse).collect()
}

fn parse(line: &str) -> Option<Mount> {
    let (front, back) = line.split_once(" - ")?;
    let mut front = front.split(' ').skip(2);
    let device = front.next()?.to_owned();
    let at = unescaped(front.nth(1)?);
    let options = front.next()?.split(',').map(str::to_owned).collect();
    let mut back = back.split(' ');
    Some(Mount {
        at,
        device,
        kind: back.next()?.to_owned(),
        source: unescaped(back.next()?),
        options,
    })
}

/// Spaces, tabs, ends of lines and backslashes are written as three octal digits.
fn unescaped(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let digits = rest.get(at + 1..at + 4);
        let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) else {
            plain.push('\\');
            rest = &rest[at + 1..];
            continue;
        };
        plain.push(char::from(byte));
        rest = &rest[at + 4..];
    }
    plain + rest
}

/// Everything about mounts' options.
pub(super) fn items(lockdown: &Lockdown, place: &Place) -> Vec<Item> {
    let Some(allowances) = lockdown.mounts.only() else {
        return Vec::new();
    };
    let mounts = table(place);
    let judged = SENSITIVE.iter().map(|(at, closed)| {
        let allowed = allowances.iter().filter(|allowance| allowance.at == *at);
        let allowed: Vec<MountOption> = allowed.flat_map(|allowance| allowance.allowed.clone()).collect();
        let wanted: Vec<&str> = MOUNT_OPTIONS
            .iter()
            .filter(|(_, option)| closed.contains(option) && !allowed.contains(option))
            .map(|(word, _)| *word)
            .collect();
        (*at, wanted)
    });
    judged
        .filter(|(_, wanted)| !wanted.is_empty())
        .map(|(at, wanted)| of_mount(at, &wanted, &mounts, place))
        .collect()
}

fn of_mount(at: &str, wanted: &[&str], mounts: &[Mount], place: &Place) -> Item {
    let wanted: Vec<String> = wanted.iter().map(|word| format!("no{word}")).collect();
    let item = Item::new(Section::Mounts, at.trim_start_matches('/'))
        .declared(wanted.join(","))
        .breaks("programs, set-user-ID bits or device nodes that lie there");
    if mounts.is_empty() {
        return item.actual("the mounts cannot be read", Verdict::Unknown);
    }
    let Some(mount) = mounts.iter().rfind(|mount| mount.at == at) else {
        return match place.is_there(at) {
            false => item.actual("there is no such folder", Verdict::Ok),
            true => item
                .actual("no mount of its own", Verdict::Drift)
                .how("not by Kakoi: mount a file system there at boot (fstab)"),
        };
    };
    let held: Vec<&str> = mount.options.iter().map(String::as_str).collect();
    let has_all = wanted.iter().all(|option| held.contains(&option.as_str()));
    let options = |words: &[&str]| -> String {
        let told = ["ro", "nosuid", "nodev", "noexec"];
        let told: Vec<&str> = told.into_iter().filter(|word| words.contains(word)).collect();
        told.join(",")
    };
    let mut becomes = held.clone();
    becomes.extend(wanted.iter().map(String::as_str));
    item.actual(held.join(","), same(has_all))
        .how("mounted anew with these options")
        .turn(
            Knob::Mount(at.to_owned()),
            options(&held),
            options(&becomes),
            Undo::Now,
        )
}

/// Everything about media.
pub(super) fn media(lockdown: &Lockdown, place: &Place) -> Vec<Item> {
    let Some(allowed) = lockdown.media.only() else {
        return Vec::new();
    };
    let mounts = table(place);
    if mounts.is_empty() {
        return vec![
            Item::new(Section::Media, "mounts").actual("the mounts cannot be read", Verdict::Unknown),
        ];
    }
    // What the system itself runs from is no medium that somebody plugged in, wherever it is.
    let system: Vec<&str> = mounts
        .iter()
        .filter(|mount| matches!(mount.at.as_str(), "/" | "/boot" | "/boot/efi" | "/usr" | "/var"))
        .filter_map(|mount| disk_of(&mount.device, place).map(|_| mount.device.as_str()))
        .collect();
    let system: Vec<String> = system
        .iter()
        .filter_map(|device| disk_of(device, place))
        .collect();
    let media = mounts.iter().filter_map(|mount| {
        let disk = disk_of(&mount.device, place)?;
        (is_removable(&disk, place) && !system.contains(&disk)).then_some((mount, disk))
    });
    media
        .map(|(mount, disk)| {
            let is_allowed = allowed.iter().any(|allowed| {
                mount.at == *allowed
                    || mount
                        .at
                        .starts_with(&format!("{}/", allowed.trim_end_matches('/')))
            });
            let declared = if is_allowed {
                "may be mounted here"
            } else {
                "not mounted"
            };
            Item::new(Section::Media, mount.at.trim_start_matches('/'))
                .declared(declared)
                .actual(format!("{} of {disk} is mounted", mount.source), same(is_allowed))
                .how("unmounted; files on it that are open keep it")
                .breaks("whatever reads or writes the medium")
        })
        .map(|item| {
            let at = format!("/{}", item.name.split_once('/').map_or("", |(_, at)| at));
            match item.verdict {
                Verdict::Drift => item.turn(Knob::Medium(at), "mounted", "none", Undo::Person),
                Verdict::Ok | Verdict::Unknown => item,
            }
        })
        .collect()
}

/// The path of the whole disk that a device number is of or on, below `sys/devices`.
fn disk_of(device: &str, place: &Place) -> Option<String> {
    let real = place.real(&format!("sys/dev/block/{device}"))?;
    if place.is_there(&format!("{real}/partition")) {
        return real.rsplit_once('/').map(|(disk, _)| disk.to_owned());
    }
    Some(real)
}

/// Source: Documentation/ABI/stable/sysfs-block. Cards of readers that are soldered in say `SD` and are not marked removable.
fn is_removable(disk: &str, place: &Place) -> bool {
    place.word(&format!("{disk}/removable")).as_deref() == Some("1")
        || disk.contains("/usb")
        || place.word(&format!("{disk}/device/type")).as_deref() == Some("SD")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let line =
            r"36 35 8:17 / /media/a\040b rw,nosuid shared:1 master:2 - vfat /dev/sdb1 rw,errors=continue";
        let mount = parse(line).expect("it is one");
        assert_eq!(mount.at, "/media/a b");
        assert_eq!(mount.device, "8:17");
        assert_eq!(
            (mount.kind.as_str(), mount.source.as_str()),
            ("vfat", "/dev/sdb1")
        );
        assert_eq!(mount.options, ["rw", "nosuid"]);
        for bad in ["", "36 35", "36 35 8:17 / /media rw,nosuid - ", r"\", "é - é"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(unescaped(r"a\9\é\04"), r"a\9\é\04");
    }
}
