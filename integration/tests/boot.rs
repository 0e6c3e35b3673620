//! A device with a boot loader and two slots: whatever is wrong with a new version, the old one comes back within the tries it was given.
//!
//! `make device-test` makes the disk; without it the tests are left out. The boot state is written from outside here, so that what is seen is the boot
//! loader's and the watchdog's doing alone.
#![forbid(unsafe_code)]

use kakoi_integration::device::{Disk, Slot, State, folder};
use kakoi_integration::machine::Machine;

/// Two tries of slot b, which holds something new, beside a good slot a.
const TRIAL: State = State {
    seq: 7,
    good: Slot::A,
    trial: Some(Slot::B),
    left: 2,
};

/// Boots a device whose new version is `image`; says what the console said until the old one was up again.
#[track_caller]
fn falls_back(image: &str, signs: &[&str]) {
    let Some(made) = folder() else { return };
    let disk = Disk::new(&made);
    disk.put(Slot::B, image);
    disk.set_state(&TRIAL);
    let mut device = disk.boot();
    for left in [1, 0] {
        device.expect(&format!("good=a try=b left={left} slot=b"));
        for sign in signs {
            device.expect(sign);
        }
    }
    let between = device.expect("good=a try=b left=0 slot=a");
    assert!(!between.contains("DEVICE IS UP"), "{image}: {between}");
    device.expect("DEVICE IS UP version=1");
    assert_eq!(device.ok("kakoi images --quiet").trim(), "");
    device.cut();
    let left: Vec<_> = disk
        .states()
        .into_iter()
        .flatten()
        .map(|state| state.left)
        .collect();
    assert_eq!(
        left,
        [0, 1],
        "each try was counted before it was made, into the other block"
    );
}

#[test]
fn a_kernel_that_panics() {
    falls_back("panic", &["Kernel panic"]);
}

#[test]
fn a_kernel_that_is_none() {
    falls_back("no-kernel", &["KAKOI slot b does not start"]);
}

#[test]
fn a_root_that_does_not_mount() {
    falls_back("no-root", &["RAM: the root does not mount"]);
}

#[test]
fn a_root_without_an_init() {
    falls_back("no-init", &[]);
}

/// The watchdog was set off by the initramfs and nobody is well enough to feed it.
#[test]
fn an_init_that_hangs() {
    falls_back("hang", &["THE INIT HANGS"]);
}

#[test]
fn a_daemon_that_crashes() {
    falls_back("crash", &[]);
}

#[test]
fn a_good_version_is_tried_and_stays_once_it_is_committed() {
    let Some(made) = folder() else { return };
    let disk = Disk::new(&made);
    disk.put(Slot::B, "newer");
    disk.set_state(&TRIAL);
    let mut device = disk.boot();
    device.expect("try=b left=1 slot=b");
    device.expect("DEVICE IS UP version=2");
    device.cut();
    disk.write_block(
        0,
        &State {
            seq: 8,
            good: Slot::B,
            trial: None,
            left: 0,
        }
        .block(),
    );
    for _ in 0..2 {
        let mut device = disk.boot();
        device.expect("seq=8 good=b try=none left=0 slot=b");
        device.expect("DEVICE IS UP version=2");
        device.cut();
    }
}

#[test]
fn blocks_that_are_not_whole_or_old_do_not_count() {
    let Some(made) = folder() else { return };
    let torn = |state: &State| {
        let mut block = state.block();
        block[2048..].fill(0xff);
        block
    };
    let older = State {
        seq: 6,
        good: Slot::B,
        trial: None,
        left: 0,
    };
    let newest = State {
        seq: 10,
        ..older.clone()
    };
    let cases = [
        (
            "none at all",
            vec![0; 4096],
            vec![0xff; 4096],
            "from=none seq=0 good=a try=none left=0 slot=a",
        ),
        (
            "the second torn",
            TRIAL.block(),
            torn(&newest),
            "from=a seq=7 good=a try=b left=1 slot=b",
        ),
        (
            "the first torn",
            torn(&TRIAL),
            older.block(),
            "from=b seq=6 good=b try=none left=0 slot=b",
        ),
        (
            "the second older",
            TRIAL.block(),
            older.block(),
            "from=a seq=7 good=a try=b left=1 slot=b",
        ),
        (
            "the second newer",
            TRIAL.block(),
            newest.block(),
            "from=b seq=10 good=b try=none left=0 slot=b",
        ),
        (
            "counted down in the second",
            TRIAL.block(),
            State { left: 1, ..TRIAL }.block(),
            "from=b seq=7 good=a try=b left=0 slot=b",
        ),
        (
            "counted down in the first",
            State { left: 0, ..TRIAL }.block(),
            State { left: 1, ..TRIAL }.block(),
            "from=a seq=7 good=a try=b left=0 slot=a",
        ),
    ];
    let disk = Disk::new(&made);
    for (what, first, second, said) in cases {
        disk.write_block(0, &first);
        disk.write_block(1, &second);
        let mut device = disk.boot();
        let before = device.expect("KAKOI state ");
        let line = device.expect("\n");
        assert_eq!(line, said, "{what}: {before}");
        device.cut();
    }
}

/// Waits until the app answers, and says how often it was started, by what it wrote into its volume.
#[track_caller]
fn starts(device: &mut Machine) -> usize {
    device.expect("DEVICE IS UP");
    device
        .ok("until wget -q -O - http://127.0.0.1:8080/starts; do sleep 0.2; done; sync")
        .lines()
        .filter(|line| *line == "started")
        .count()
}

#[test]
fn apps_outlive_versions_and_cuts() {
    let Some(made) = folder() else { return };
    let disk = Disk::new(&made);
    let mut device = disk.boot();
    device.expect("DEVICE IS UP version=1");
    device.ok("kakoi load --quiet --input /app.tar");
    device.ok("kakoi run -d --name web --restart always --policy docker-default --memory 32m -p 8080:80 -v store:/data app:1 \
        sh -c 'echo started >> /data/starts; exec httpd -f -p 80 -h /data'");
    device.ok("until wget -q -O - http://127.0.0.1:8080/starts; do sleep 0.2; done; sync");
    device.cut();

    // In the boot loader, in the kernel, while the daemon starts the app again, and when all is well.
    for moment in ["KAKOI state", "Starting kernel", "DEVICE IS UP"] {
        let mut device = disk.boot();
        device.expect(moment);
        device.cut();
    }
    let mut device = disk.boot();
    let before = starts(&mut device);
    assert!(before >= 2, "it was started {before} times");
    let (code, running) = device.run("kakoi ps --all --format '{{.Names}} {{.Status}}'");
    assert!(code == 0 && running.starts_with("web Up"), "{running}");
    device.cut();

    // A new version finds what the old one left, and the old one what the new one did.
    disk.put(Slot::B, "newer");
    disk.set_state(&State { left: 1, ..TRIAL });
    for version in ["slot=b", "slot=a"] {
        let mut device = disk.boot();
        device.expect(version);
        assert!(starts(&mut device) > before, "{version}");
        device.cut();
    }
}
