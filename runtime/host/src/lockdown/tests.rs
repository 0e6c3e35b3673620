//! A device of files: each item is turned wrong, and seen, and corrected where that is declared; and every change is cut at every step.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kakoi_policy::host::Lockdown;
use kakoi_policy::parse_host;

use super::*;

/// What stands outside of the device's files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct World {
    links: BTreeMap<String, bool>,
    is_closed: bool,
    programs: Vec<String>,
    unmounted: Vec<String>,
}

struct Fake {
    world: Arc<Mutex<World>>,
    place: Place,
}

impl Fake {
    fn change_mounts(&self, change: impl Fn(&str) -> Option<String>) -> io::Result<()> {
        let path = self.place.path("proc/self/mountinfo");
        let text = fs::read_to_string(&path)?;
        let lines: Vec<String> = text.lines().filter_map(change).collect();
        fs::write(path, lines.join("\n"))
    }
}

impl Hands for Fake {
    fn set_link(&self, name: &str, is_up: bool) -> io::Result<()> {
        let flags = if is_up { "0x1003" } else { "0x1002" };
        fs::write(self.place.path(&format!("sys/class/net/{name}/flags")), flags)
    }

    fn published(&self) -> Vec<Published> {
        Vec::new()
    }

    fn ports(&self, _: &Lockdown) -> Filter {
        match self.world.lock().expect("no panic").is_closed {
            true => Filter::Stands,
            false => Filter::Missing,
        }
    }

    fn set_ports(&self, declared: Option<&Lockdown>) -> io::Result<()> {
        self.world.lock().expect("no panic").is_closed = declared.is_some();
        Ok(())
    }

    /// As systemctl does with its files.
    fn run(&self, words: &[&str]) -> io::Result<()> {
        self.world
            .lock()
            .expect("no panic")
            .programs
            .push(words.join(" "));
        let unit = words.last().expect("a unit");
        let mask = self.place.path(&format!("etc/systemd/system/{unit}"));
        let started = self.place.path(&format!("run/systemd/units/invocation:{unit}"));
        let is_getty = unit.starts_with("serial-getty");
        match words[1] {
            "mask" => {
                fs::remove_file(started).ok();
                if is_getty {
                    fs::remove_dir_all(self.place.path("proc/41")).ok();
                }
                std::os::unix::fs::symlink("/dev/null", mask)
            }
            "unmask" => match fs::remove_file(mask) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
            "start" => {
                if is_getty {
                    put_getty(&self.place.path(""));
                }
                fs::write(started, "")
            }
            other => Err(io::Error::other(other.to_owned())),
        }
    }

    fn remount(&self, at: &str, options: &str) -> io::Result<()> {
        self.change_mounts(|line| {
            let mut words: Vec<&str> = line.split(' ').collect();
            let own = format!("rw,{options}");
            if words[4] == at {
                words[5] = own.trim_end_matches(',');
            }
            Some(words.join(" "))
        })
    }

    fn unmount(&self, at: &str, _: bool) -> io::Result<()> {
        self.world.lock().expect("no panic").unmounted.push(at.to_owned());
        self.change_mounts(|line| (line.split(' ').nth(4) != Some(at)).then(|| line.to_owned()))
    }

    fn mount(&self, at: &str, kind: &str) -> io::Result<()> {
        let path = self.place.path("proc/self/mountinfo");
        let text = fs::read_to_string(&path)?;
        fs::write(path, format!("{text}\n99 1 0:9 / {at} rw - {kind} {kind} rw"))
    }
}

const BOOT: &str = "proc/sys/kernel/random/boot_id";

/// A device that is open everywhere, as most come.
const FILES: &[(&str, &str)] = &[
    (BOOT, "one"),
    ("proc/uptime", "100.00 50.00"),
    ("proc/modules", ""),
    (
        "proc/net/tcp",
        "head\n   0: 00000000:0016 00000000:0000 0A 0:0 0:0 0 0 0 77 1\n   1: 0100007F:0277 00000000:0000 0A 0:0 0:0 0 0 0 78 1\n",
    ),
    ("proc/net/udp", "head\n"),
    (
        "proc/self/mountinfo",
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:1 / /tmp rw - tmpfs tmpfs rw\n3 1 0:2 / /proc rw,nosuid,nodev,noexec - proc proc rw\n4 1 0:9 / /sys/kernel/debug rw - debugfs debugfs rw\n5 1 8:17 / /media/stick rw - vfat /dev/sdb1 rw",
    ),
    ("proc/42/comm", "sshd"),
    ("proc/sys/kernel/sysrq", "438"),
    ("proc/sys/kernel/kptr_restrict", "0"),
    ("proc/sys/kernel/dmesg_restrict", "0"),
    ("proc/sys/kernel/yama/ptrace_scope", "0"),
    ("proc/sys/kernel/modules_disabled", "0"),
    ("proc/sys/kernel/kexec_load_disabled", "0"),
    ("proc/sys/kernel/unprivileged_bpf_disabled", "0"),
    ("proc/sys/kernel/unprivileged_userns_clone", "1"),
    ("proc/sys/kernel/perf_event_paranoid", "1"),
    ("proc/sys/kernel/io_uring_disabled", "0"),
    ("proc/sys/kernel/core_pattern", "core"),
    ("proc/sys/kernel/randomize_va_space", "1"),
    ("proc/sys/fs/protected_fifos", "0"),
    ("proc/sys/dev/tty/ldisc_autoload", "1"),
    ("proc/sys/vm/unprivileged_userfaultfd", "1"),
    ("proc/sys/net/ipv4/conf/all/rp_filter", "0"),
    ("proc/sys/kernel/panic", "0"),
    ("sys/kernel/security/lockdown", "[none] integrity confidentiality"),
    ("sys/class/rfkill/rfkill0/type", "wlan"),
    ("sys/class/rfkill/rfkill0/soft", "0"),
    ("sys/class/rfkill/rfkill0/hard", "0"),
    ("sys/class/net/eth0/ifindex", "2"),
    ("sys/class/net/eth0/flags", "0x1003"),
    ("sys/class/net/eth1/ifindex", "3"),
    ("sys/class/net/eth1/flags", "0x1003"),
    ("sys/class/net/kk0/ifindex", "4"),
    ("sys/class/net/kk0/flags", "0x1003"),
    ("sys/class/net/kk0/netdev_group", "7"),
    ("sys/bus/usb/devices/usb1/authorized_default", "1"),
    ("sys/bus/usb/devices/usb1/authorized", "1"),
    ("sys/bus/usb/devices/1-1/authorized", "1"),
    ("sys/bus/usb/devices/1-1/idVendor", "0403"),
    ("sys/bus/usb/devices/1-1/idProduct", "6001"),
    ("sys/bus/usb/devices/1-1/serial", "A1"),
    ("sys/bus/usb/devices/1-2/authorized", "1"),
    ("sys/bus/usb/devices/1-2/idVendor", "0781"),
    ("sys/bus/usb/devices/1-2/idProduct", "5567"),
    ("sys/bus/usb/devices/1-3/authorized", "0"),
    ("sys/bus/usb/devices/1-3/idVendor", "1111"),
    ("sys/bus/usb/devices/1-3/idProduct", "2222"),
    ("sys/devices/platform/usb1/sdb/sdb1/partition", "1"),
    ("sys/devices/platform/usb1/sdb/removable", "1"),
    ("sys/devices/platform/ata1/sda/sda1/partition", "1"),
    ("sys/devices/platform/ata1/sda/removable", "0"),
    ("run/systemd/system/x", ""),
    ("run/systemd/units/invocation:ssh.service", ""),
    ("run/systemd/units/invocation:serial-getty@ttyS0.service", ""),
    ("usr/lib/systemd/system/ssh.service", ""),
    ("usr/lib/systemd/system/serial-getty@.service", ""),
    ("usr/lib/systemd/system/cups.service", ""),
    ("etc/systemd/system/x", ""),
    ("tmp/x", ""),
];

const LINKS: &[(&str, &str)] = &[
    ("proc/42/fd/3", "socket:[77]"),
    ("sys/dev/char/4:64", "../../devices/tty/ttyS0"),
    ("sys/dev/block/8:1", "../../devices/platform/ata1/sda/sda1"),
    ("sys/dev/block/8:17", "../../devices/platform/usb1/sdb/sdb1"),
];

const DOCUMENT: &str = "kakoi: 1\nkind: Host\nlockdown:\n  links: [eth0]\n  usb: [\"0403:6001:A1\"]\n  sysctl: {kernel.panic: \"10\"}\n";

fn declared(text: &str) -> Lockdown {
    let host = parse_host("host.yaml", text).unwrap_or_else(|found| panic!("{found}"));
    host.lockdown.expect("it is written")
}

struct Device {
    folder: tempfile::TempDir,
    state: tempfile::TempDir,
    world: Arc<Mutex<World>>,
}

impl Device {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, text) in FILES {
            put(folder.path(), path, text);
        }
        put_getty(folder.path());
        for (path, target) in LINKS {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("it has one")).expect("ours");
            std::os::unix::fs::symlink(target, path).expect("ours");
        }
        // What the kernel makes of a list of descriptors: a serial converter, a disk.
        for (name, class) in [("1-1", 0xff), ("1-2", 8), ("1-3", 3)] {
            let device = [18, 1, 0, 2, 0, 0, 0, 64, 0, 0, 0, 0, 0, 1, 1, 2, 3, 1];
            let bytes = [&device[..], &[9, 4, 0, 0, 0, class, 0, 0, 0]].concat();
            let path = folder
                .path()
                .join(format!("sys/bus/usb/devices/{name}/descriptors"));
            fs::write(path, bytes).expect("ours");
        }
        Self {
            folder,
            state: tempfile::tempdir().expect("a folder"),
            world: Arc::default(),
        }
    }

    fn place(&self) -> Place {
        Place::new(self.folder.path().to_owned())
    }

    fn keeper(&self) -> Keeper {
        let hands = Fake {
            world: self.world.clone(),
            place: self.place(),
        };
        Keeper::open(self.place(), self.state.path().to_owned(), Box::new(hands), 7).expect("a journal")
    }

    fn put(&self, path: &str, text: &str) {
        put(self.folder.path(), path, text);
    }

    fn read(&self, path: &str) -> String {
        let text = fs::read_to_string(self.folder.path().join(path)).expect(path);
        text.trim_end().to_owned()
    }

    /// Everything that Kakoi can turn, to be compared.
    fn everything(&self) -> (BTreeMap<String, String>, bool) {
        let mut all = BTreeMap::new();
        walk(self.folder.path(), self.folder.path(), &mut all);
        // What only a new start of the device undoes.
        for one_way in ["modules_disabled", "kexec_load_disabled"] {
            all.remove(&format!("proc/sys/kernel/{one_way}"));
        }
        all.remove("sys/kernel/security/lockdown");
        let mounts = all.get_mut("proc/self/mountinfo").expect("it is there");
        // The order of mounts is nobody's, and a medium is mounted again by people.
        let mut lines: Vec<&str> = mounts.lines().filter(|line| !line.contains("/media/")).collect();
        lines.sort_by_key(|line| line.split(' ').nth(4).map(str::to_owned));
        *mounts = lines
            .iter()
            .map(|line| line.split_once(" / ").map_or("", |(_, rest)| rest))
            .collect::<Vec<_>>()
            .join("\n");
        (all, self.world.lock().expect("no panic").is_closed)
    }
}

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("it has one")).expect("ours");
    fs::write(path, format!("{text}\n")).expect("ours");
}

/// A program that asks for logins at ttyS0.
fn put_getty(root: &Path) {
    put(root, "proc/41/comm", "agetty");
    put(root, "proc/41/stat", "41 (agetty) S 1 41 41 1088 41 0");
}

fn walk(root: &Path, folder: &Path, all: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).expect("ours").flatten() {
        let path = entry.path();
        let name = path
            .strip_prefix(root)
            .expect("below")
            .to_string_lossy()
            .into_owned();
        if path.is_symlink() {
            let target = fs::read_link(&path).expect("ours");
            all.insert(name, target.to_string_lossy().into_owned());
        } else if path.is_dir() {
            walk(root, &path, all);
        } else {
            let bytes = fs::read(&path).expect("ours");
            all.insert(name, String::from_utf8_lossy(&bytes).trim_end().to_owned());
        }
    }
}

fn errors(outcomes: &[Outcome]) -> Vec<String> {
    let failed = outcomes.iter().filter_map(|outcome| {
        let error = outcome.error.as_ref()?;
        Some(format!("{}: {error}", outcome.step.item))
    });
    failed.collect()
}

fn verdict(items: &[Item], name: &str) -> Verdict {
    let item = items.iter().find(|item| item.name == name);
    item.unwrap_or_else(|| {
        panic!(
            "{name} is in {:?}",
            items.iter().map(|item| &item.name).collect::<Vec<_>>()
        )
    })
    .verdict
}

#[test]
fn everything_is_closed_and_everything_goes_back() {
    let device = Device::new();
    let before = device.everything();
    let document = declared(DOCUMENT);
    let mut keeper = device.keeper();
    let plan = keeper.plan(&document);
    for name in [
        "ports/filter",
        "ports/22/tcp",
        "usb/usb1",
        "usb/1-2",
        "media/media/stick",
        "consoles/ttyS0",
        "radios/wifi/rfkill0",
        "links/eth1",
        "services/ssh/ssh.service",
        "kernel/kernel.kptr_restrict",
        "kernel/user_namespaces",
        "kernel/lockdown",
        "kernel/debugfs/sys/kernel/debug",
        "kernel/kernel.panic",
        "mounts/tmp",
    ] {
        assert_eq!(verdict(&plan.items, name), Verdict::Drift, "{name}");
    }
    for name in ["usb/1-1", "usb/1-3", "links/eth0", "ports/631/tcp", "mounts/proc"] {
        assert_eq!(verdict(&plan.items, name), Verdict::Ok, "{name}");
    }
    let names: Vec<&String> = plan.items.iter().map(|item| &item.name).collect();
    assert!(
        !names.iter().any(|name| name.contains("kk0")),
        "Kakoi's own: {names:?}"
    );
    assert_eq!(device.everything(), before, "a plan changes nothing");

    assert_eq!(
        errors(&keeper.apply(&document, None).expect("a journal")),
        [""; 0]
    );
    let items = keeper.plan(&document).items;
    let drifts = items.iter().filter(|item| item.verdict == Verdict::Drift);
    let drifts: Vec<&str> = drifts.map(|item| item.name.as_str()).collect();
    // A listener and a process are nobody's to stop, and nothing is mounted by Kakoi.
    assert_eq!(drifts, ["ports/22/tcp", "services/ssh/process", "mounts/run"]);
    assert_eq!(device.read("sys/kernel/security/lockdown"), "integrity");
    assert_eq!(device.world.lock().expect("no panic").unmounted.len(), 2);

    assert_eq!(errors(&keeper.release().expect("a journal")), [""; 0]);
    assert_eq!(device.everything(), before);
    assert_eq!(*keeper.journal(), Journal::new());
}

/// One item, turned wrong after everything was closed.
const WRONG: &[(&str, &str, &str)] = &[
    ("kernel/kernel.sysrq", "proc/sys/kernel/sysrq", "1"),
    (
        "kernel/kernel.kptr_restrict",
        "proc/sys/kernel/kptr_restrict",
        "0",
    ),
    (
        "kernel/kernel.dmesg_restrict",
        "proc/sys/kernel/dmesg_restrict",
        "0",
    ),
    (
        "kernel/kernel.yama.ptrace_scope",
        "proc/sys/kernel/yama/ptrace_scope",
        "0",
    ),
    (
        "kernel/kernel.modules_disabled",
        "proc/sys/kernel/modules_disabled",
        "0",
    ),
    (
        "kernel/kernel.kexec_load_disabled",
        "proc/sys/kernel/kexec_load_disabled",
        "0",
    ),
    (
        "kernel/kernel.unprivileged_bpf_disabled",
        "proc/sys/kernel/unprivileged_bpf_disabled",
        "0",
    ),
    (
        "kernel/user_namespaces",
        "proc/sys/kernel/unprivileged_userns_clone",
        "1",
    ),
    (
        "kernel/kernel.perf_event_paranoid",
        "proc/sys/kernel/perf_event_paranoid",
        "-1",
    ),
    (
        "kernel/kernel.io_uring_disabled",
        "proc/sys/kernel/io_uring_disabled",
        "1",
    ),
    (
        "kernel/kernel.core_pattern",
        "proc/sys/kernel/core_pattern",
        "/tmp/core",
    ),
    (
        "kernel/kernel.randomize_va_space",
        "proc/sys/kernel/randomize_va_space",
        "0",
    ),
    ("kernel/fs.protected_fifos", "proc/sys/fs/protected_fifos", "0"),
    (
        "kernel/dev.tty.ldisc_autoload",
        "proc/sys/dev/tty/ldisc_autoload",
        "1",
    ),
    (
        "kernel/vm.unprivileged_userfaultfd",
        "proc/sys/vm/unprivileged_userfaultfd",
        "1",
    ),
    (
        "kernel/net.ipv4.conf.all.rp_filter",
        "proc/sys/net/ipv4/conf/all/rp_filter",
        "0",
    ),
    (
        "kernel/lockdown",
        "sys/kernel/security/lockdown",
        "[none] integrity confidentiality",
    ),
    ("kernel/kernel.panic", "proc/sys/kernel/panic", "0"),
    ("radios/wifi/rfkill0", "sys/class/rfkill/rfkill0/soft", "0"),
    ("links/eth1", "sys/class/net/eth1/flags", "0x1003"),
    ("usb/usb1", "sys/bus/usb/devices/usb1/authorized_default", "1"),
    ("usb/1-1", "sys/bus/usb/devices/1-1/authorized", "0"),
    ("usb/1-2", "sys/bus/usb/devices/1-2/authorized", "1"),
    ("usb/1-3", "sys/bus/usb/devices/1-3/authorized", "1"),
    (
        "mounts/tmp",
        "proc/self/mountinfo",
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:1 / /tmp rw,nosuid,nodev - tmpfs tmpfs rw",
    ),
    (
        "kernel/debugfs/d",
        "proc/self/mountinfo",
        "2 1 0:1 / /tmp rw,nosuid,nodev,noexec - tmpfs tmpfs rw\n9 1 0:9 / /d rw - debugfs debugfs rw",
    ),
    (
        "media/media/stick",
        "proc/self/mountinfo",
        "2 1 0:1 / /tmp rw,nosuid,nodev,noexec - tmpfs tmpfs rw\n5 1 8:17 / /media/stick rw - vfat /dev/sdb1 rw",
    ),
    (
        "services/ssh/ssh.service",
        "run/systemd/units/invocation:ssh.service",
        "",
    ),
    (
        "consoles/ttyS0",
        "run/systemd/units/invocation:serial-getty@ttyS0.service",
        "",
    ),
];

#[test]
fn what_is_turned_wrong_is_seen_and_corrected_where_declared() {
    let report = format!("{DOCUMENT}  on_drift: report\n");
    for (document, corrects) in [(DOCUMENT, true), (report.as_str(), false)] {
        let device = Device::new();
        let document = declared(document);
        let mut keeper = device.keeper();
        keeper.apply(&document, None).expect("a journal");
        for (name, path, text) in WRONG {
            assert!(keeper.look().expect("a journal").is_empty(), "before {name}");
            let stood = device.read_or_none(path);
            device.make_wrong(name, path, text);
            assert_eq!(
                verdict(&keeper.plan(&document).items, name),
                Verdict::Drift,
                "{name}"
            );
            let outcomes = keeper.look().expect("a journal");
            let done: Vec<&str> = outcomes
                .iter()
                .map(|outcome| outcome.step.item.as_str())
                .collect();
            let expected: &[&str] = if corrects { &[name] } else { &[] };
            assert_eq!(done, expected, "{name}: {:?}", errors(&outcomes));
            let items = keeper.plan(&document).items;
            let item = items.iter().find(|item| item.name == *name);
            let is_wrong = item.is_some_and(|item| item.verdict == Verdict::Drift);
            assert_eq!(is_wrong, !corrects, "{name}: {item:?}");
            device.restore(name, path, stood);
        }
        device.world.lock().expect("no panic").is_closed = false;
        keeper.look().expect("a journal");
        assert_eq!(device.world.lock().expect("no panic").is_closed, corrects);
    }
}

impl Device {
    fn read_or_none(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.folder.path().join(path)).ok()
    }

    /// Of a unit, its mask goes as well.
    fn make_wrong(&self, name: &str, path: &str, text: &str) {
        if let Some(unit) = path.rsplit_once("invocation:").map(|(_, unit)| unit) {
            fs::remove_file(self.folder.path().join(format!("etc/systemd/system/{unit}"))).expect(name);
            if unit.starts_with("serial-getty") {
                put_getty(self.folder.path());
            }
        }
        self.put(path, text);
    }

    fn restore(&self, name: &str, path: &str, stood: Option<String>) {
        match (stood, path.rsplit_once("invocation:")) {
            (Some(text), _) => fs::write(self.folder.path().join(path), text).expect("ours"),
            (None, Some((_, unit))) => {
                fs::remove_file(self.folder.path().join(path)).ok();
                if unit.starts_with("serial-getty") {
                    fs::remove_dir_all(self.folder.path().join("proc/41")).ok();
                }
                let mask = self.folder.path().join(format!("etc/systemd/system/{unit}"));
                std::os::unix::fs::symlink("/dev/null", mask).ok();
            }
            (None, None) => panic!("{name} stood before"),
        }
    }
}

#[test]
fn a_section_is_reported_only() {
    let device = Device::new();
    let document = declared(&format!("{DOCUMENT}  report_only: [radios]\n"));
    let mut keeper = device.keeper();
    keeper.apply(&document, None).expect("a journal");
    device.put("sys/class/rfkill/rfkill0/soft", "0");
    device.put("proc/sys/kernel/sysrq", "1");
    keeper.look().expect("a journal");
    assert_eq!(device.read("sys/class/rfkill/rfkill0/soft"), "0");
    assert_eq!(device.read("proc/sys/kernel/sysrq"), "0");
}

#[test]
fn what_is_plugged_in_is_let_in_as_declared() {
    let device = Device::new();
    let document = declared("kakoi: 1\nkind: Host\nlockdown:\n  usb: [hid]\n");
    let mut keeper = device.keeper();
    keeper.apply(&document, None).expect("a journal");
    let plug = |name: &str, classes: &[u8]| {
        let folder = format!("sys/bus/usb/devices/{name}");
        for (file, text) in [("authorized", "0"), ("idVendor", "aaaa"), ("idProduct", "bbbb")] {
            device.put(&format!("{folder}/{file}"), text);
        }
        let mut bytes = vec![18, 1, 0, 2, 0, 0, 0, 64, 0, 0, 0, 0, 0, 1, 1, 2, 3, 1];
        for class in classes {
            bytes.extend([9, 4, 0, 0, 0, *class, 0, 0, 0]);
        }
        fs::write(device.folder.path().join(format!("{folder}/descriptors")), bytes).expect("ours");
    };
    plug("1-4", &[3]);
    plug("1-5", &[3, 8]);
    plug("1-5.1", &[]);
    let outcomes = keeper.look().expect("a journal");
    assert_eq!(outcomes.len(), 1, "{outcomes:?}");
    let authorized = |name: &str| device.read(&format!("sys/bus/usb/devices/{name}/authorized"));
    assert_eq!(
        ["1-3", "1-4", "1-5", "1-5.1"].map(authorized),
        ["1", "1", "0", "0"]
    );
    // What waited for Kakoi waits for nobody when it lets go; what another closed stays closed.
    assert_eq!(errors(&keeper.release().expect("a journal")), [""; 0]);
    assert_eq!(
        ["1-2", "1-3", "1-4", "1-5", "1-5.1"].map(authorized),
        ["1", "0", "1", "1", "1"]
    );
}

#[test]
fn a_trial_ends_by_itself() {
    for (boot, uptime, is_over) in [
        ("one", "159.99 0.0", false),
        ("one", "160.00 0.0", true),
        ("two", "101.00 0.0", true),
    ] {
        let device = Device::new();
        let before = device.everything();
        let document = declared(DOCUMENT);
        let trial = Some(Duration::from_secs(60));
        assert_eq!(
            errors(&device.keeper().apply(&document, trial).expect("a journal")),
            [""; 0]
        );
        assert_ne!(device.everything(), before);
        assert_eq!(
            device.read("proc/sys/kernel/modules_disabled"),
            "0",
            "it waits for the confirmation"
        );
        device.put(BOOT, boot);
        device.put("proc/uptime", uptime);
        // By a process that knows nothing but the journal.
        let mut next = device.keeper();
        assert_eq!(errors(&next.begin().expect("a journal")), [""; 0]);
        device.put(BOOT, "one");
        device.put("proc/uptime", "100.00 50.00");
        assert_eq!(device.everything() == before, is_over, "{boot} {uptime}");
        assert_eq!(matches!(next.confirm(), Err(LockdownError::NoTrial)), is_over);
        let is_set = device.read("proc/sys/kernel/modules_disabled") == "1";
        assert_eq!(is_set, !is_over, "a confirmation does the rest");
    }
}

#[test]
fn a_trial_goes_back_to_what_was_confirmed() {
    let device = Device::new();
    let (first, second) = (
        declared(DOCUMENT),
        declared("kakoi: 1\nkind: Host\nlockdown:\n  radios: [wifi]\n  links: any\n"),
    );
    let mut keeper = device.keeper();
    keeper.apply(&first, None).expect("a journal");
    let confirmed = device.everything();
    keeper
        .apply(&second, Some(Duration::from_secs(60)))
        .expect("a journal");
    assert_eq!(device.read("sys/class/rfkill/rfkill0/soft"), "0");
    assert_eq!(device.read("sys/class/net/eth1/flags"), "0x1003");
    device.put("proc/uptime", "161.00 0.0");
    keeper.look().expect("a journal");
    device.put("proc/uptime", "100.00 50.00");
    assert_eq!(device.everything(), confirmed);
    assert_eq!(keeper.journal().declared, Some(first));
}

/// Runs something that is killed after each number of steps, and what the next process makes of it.
fn cut(act: impl Fn(&mut Keeper) -> Result<Vec<Outcome>, LockdownError>, check: impl Fn(&Device, usize)) {
    for steps in 0.. {
        let device = Device::new();
        let mut keeper = device.keeper();
        keeper.steps_left = Some(steps);
        let is_killed = matches!(act(&mut keeper), Err(LockdownError::Killed));
        drop(keeper);
        check(&device, steps);
        if !is_killed {
            assert!(steps > 20, "every step was cut: {steps}");
            return;
        }
    }
}

#[test]
fn an_apply_that_is_killed_at_any_step_is_completed_or_undone() {
    let document = declared(DOCUMENT);
    let whole = Device::new();
    let before = whole.everything();
    whole.keeper().apply(&document, None).expect("a journal");
    let after = whole.everything();
    cut(
        |keeper| keeper.apply(&document, None),
        |device, steps| {
            device.keeper().begin().expect("a journal");
            assert_eq!(device.everything(), after, "completed after {steps}");
            device.keeper().release().expect("a journal");
            assert_eq!(device.everything(), before, "released after {steps}");
        },
    );
    cut(
        |keeper| keeper.apply(&document, Some(Duration::from_secs(60))),
        |device, steps| {
            device.put("proc/uptime", "161.00 0.0");
            device.keeper().begin().expect("a journal");
            device.put("proc/uptime", "100.00 50.00");
            assert_eq!(device.everything(), before, "undone after {steps}");
        },
    );
}

#[test]
fn a_release_that_is_killed_at_any_step_is_completed() {
    let before = Device::new().everything();
    let document = declared(DOCUMENT);
    cut(
        |keeper| {
            let steps = keeper.steps_left.take();
            keeper.apply(&document, None)?;
            keeper.steps_left = steps;
            keeper.release()
        },
        |device, steps| {
            device.keeper().begin().expect("a journal");
            assert_eq!(device.everything(), before, "after {steps}");
        },
    );
}

#[test]
fn nothing_is_green_without_evidence() {
    let device = Device::new();
    let empty = tempfile::tempdir().expect("a folder");
    let place = Place::new(empty.path().to_owned());
    let hands = Fake {
        world: Arc::default(),
        place: place.clone(),
    };
    for item in judge(&declared(DOCUMENT), &place, &hands, 7) {
        // That a folder is not there is told by its parent alone.
        let is_absent = item.actual == "there is no such folder";
        assert!(item.verdict != Verdict::Ok || is_absent, "{item:?}");
    }
    let hands = Fake {
        world: Arc::default(),
        place: device.place(),
    };
    for item in judge(&declared(DOCUMENT), &device.place(), &hands, 7) {
        let is_hardware = item.name.starts_with("hardware/");
        assert!(!is_hardware || item.verdict == Verdict::Unknown, "{item:?}");
        assert!(item.verdict != Verdict::Drift || !item.how.is_empty(), "{item:?}");
    }
    let secure_boot = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    for (bytes, expected) in [([6, 0, 0, 0, 1], Verdict::Ok), ([6, 0, 0, 0, 0], Verdict::Drift)] {
        let path = device.folder.path().join(secure_boot);
        fs::create_dir_all(path.parent().expect("it has one")).expect("ours");
        fs::write(path, bytes).expect("ours");
        let items = judge(&declared(DOCUMENT), &device.place(), &hands, 7);
        assert_eq!(verdict(&items, "hardware/secure_boot"), expected);
    }
}

#[test]
fn an_open_section_is_left_alone() {
    let device = Device::new();
    let before = device.everything();
    let any = "ports usb media consoles radios links services kernel mounts".split(' ');
    let lines: String = any.map(|section| format!("  {section}: any\n")).collect();
    let document = declared(&format!("kakoi: 1\nkind: Host\nlockdown:\n{lines}"));
    let mut keeper = device.keeper();
    assert_eq!(keeper.apply(&document, None).expect("a journal"), []);
    assert_eq!(device.everything(), before);
}
