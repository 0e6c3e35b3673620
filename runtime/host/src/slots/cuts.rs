//! A device that is upgraded while its power is cut: at every write of a sector, at every sync, at every step of the record.
//!
//! The disk keeps what was synced; of what was written since, a cut keeps each sector, drops it or tears it, as a seed has it. Whatever happens, a slot
//! that the boot loader starts holds one image whole, and the device comes to rest in the old one or the new one.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::index::hash_of;
use super::state::Act;
use super::*;

const SECTOR: usize = 512;
const BLOCK: usize = 4096;
const BLOCKS: usize = 12;
const IMAGE: usize = BLOCK * BLOCKS - 100;
const SLOT: usize = BLOCK * (BLOCKS + 1);
const SLOTS_AT: [usize; 2] = [8192, 8192 + SLOT];
const TRIES: u8 = 2;
const NOW: &str = "2026-12-01T00:00:00Z";

/// Durable steps that are left before the power is cut. It stays cut until it is set anew.
#[derive(Clone)]
struct Power(Arc<AtomicUsize>);

impl Power {
    fn spend(&self) -> io::Result<()> {
        let spent = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        spent.map(drop).map_err(|_| io::Error::other("power cut"))
    }
}

struct Sectors {
    seen: Vec<u8>,
    synced: Vec<u8>,
    /// Sectors written since the last sync.
    pending: Vec<usize>,
}

/// A part of the disk.
#[derive(Clone)]
struct Part {
    disk: Arc<Mutex<Sectors>>,
    power: Power,
    at: usize,
}

impl Medium for Part {
    fn read_at(&mut self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        let at = self.at + at as usize;
        bytes.copy_from_slice(&self.disk.lock().expect("whole").seen[at..at + bytes.len()]);
        Ok(())
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk.lock().expect("whole");
        for (number, sector) in bytes.chunks(SECTOR).enumerate() {
            let at = self.at + at as usize + number * SECTOR;
            let spent = self.power.spend();
            // The sector that is being written when the power goes may be on its way.
            disk.seen[at..at + sector.len()].copy_from_slice(sector);
            disk.pending.push(at);
            spent?;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.power.spend()?;
        let mut disk = self.disk.lock().expect("whole");
        let Sectors {
            seen,
            synced,
            pending,
        } = &mut *disk;
        synced.clone_from(seen);
        pending.clear();
        Ok(())
    }

    fn forget(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct World {
    disk: Arc<Mutex<Sectors>>,
    power: Power,
    seed: u64,
}

impl World {
    fn new(steps: usize, seed: u64) -> Self {
        let mut bytes = vec![0xff; SLOTS_AT[1] + SLOT];
        bytes[SLOTS_AT[0]..SLOTS_AT[0] + IMAGE].copy_from_slice(&image(1));
        let disk = Sectors {
            synced: bytes.clone(),
            seen: bytes,
            pending: Vec::new(),
        };
        Self {
            disk: Arc::new(Mutex::new(disk)),
            power: Power(Arc::new(AtomicUsize::new(steps))),
            seed: seed * 2 + 1,
        }
    }

    fn part(&self, at: usize) -> Part {
        Part {
            disk: self.disk.clone(),
            power: self.power.clone(),
            at,
        }
    }

    fn blocks(&self) -> BootBlocks<Part> {
        BootBlocks::new(self.part(0), 0, 4096).expect("apart")
    }

    fn random(&mut self) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed
    }

    /// What was not synced is kept, dropped or torn.
    fn lose(&mut self) {
        let pending = std::mem::take(&mut self.disk.lock().expect("whole").pending);
        for at in pending {
            let kept = [0, SECTOR, SECTOR / 4][(self.random() % 3) as usize];
            let mut disk = self.disk.lock().expect("whole");
            let new = disk.seen[at..at + kept].to_vec();
            disk.synced[at..at + kept].copy_from_slice(&new);
        }
        let mut disk = self.disk.lock().expect("whole");
        disk.seen = disk.synced.clone();
        self.power.0.store(usize::MAX, Ordering::Relaxed);
    }

    /// Starts the device as `integration/device/boot.cmd` does; its own writes are not those that are counted.
    fn boot(&self) -> Slot {
        let left = self.power.0.swap(usize::MAX, Ordering::Relaxed);
        let mut loader = self.blocks();
        let found = loader.read().expect("whole");
        let slot = match found.trial {
            Some(Trial {
                slot,
                left: left @ 1..,
            }) => {
                let trial = Some(Trial { slot, left: left - 1 });
                loader.write(Control { trial, ..found }).expect("counted");
                slot
            }
            _ => found.good,
        };
        self.power.0.store(left, Ordering::Relaxed);
        slot
    }

    fn content(&self, slot: Slot) -> Vec<u8> {
        let at = SLOTS_AT[slot as usize];
        self.disk.lock().expect("whole").seen[at..at + IMAGE].to_vec()
    }
}

/// Version 2 has a block of its own at the front, so that all others move; one of zeros, and one that the old one has not.
fn image(version: u8) -> Vec<u8> {
    let mut blocks: Vec<Vec<u8>> = (0..BLOCKS as u8).map(|block| vec![block + 1; BLOCK]).collect();
    if version > 1 {
        blocks.insert(0, vec![version + 100; BLOCK]);
        blocks[5] = vec![0; BLOCK];
        blocks[8] = vec![version + 150; BLOCK];
    }
    let mut bytes = blocks.concat();
    bytes.truncate(IMAGE);
    bytes
}

fn index(image: &[u8]) -> Index {
    let hashes: Vec<u8> = image.chunks(BLOCK).flat_map(hash_of).collect();
    Index::parse(&hashes, BLOCK as u64, image.len() as u64).expect("an index")
}

fn held(image: &str, version: &str) -> Held {
    Held {
        image: image.to_owned(),
        version: version.to_owned(),
        reference: "registry.example.com/acme/os".to_owned(),
        release: None,
    }
}

/// Whoever has the image, in pieces that fit no block; some of them lie the first time.
struct Server {
    image: Vec<u8>,
    lies: Option<u64>,
    others: u32,
    bytes: u64,
}

impl Server {
    fn honest(version: u8) -> Self {
        Self {
            image: image(version),
            lies: None,
            others: 0,
            bytes: 0,
        }
    }
}

impl Source for Server {
    fn fetch(
        &mut self,
        from: u64,
        to: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        let mut bytes = self.image[from as usize..to as usize].to_vec();
        if let Some(at) = self.lies.filter(|at| (from..to).contains(at)) {
            bytes[(at - from) as usize] ^= 1;
        }
        self.bytes += to - from;
        bytes.chunks(1000).try_for_each(take)
    }

    fn distrust(&mut self) -> bool {
        self.lies = None;
        let next = self.others.checked_sub(1);
        self.others = next.unwrap_or(0);
        next.is_some()
    }
}

fn open(folder: &Path, world: &World, running: Slot) -> Result<Device, DeviceError> {
    let power = world.power.clone();
    Device::open_by(
        folder.to_owned(),
        Box::new(world.blocks()),
        running,
        TRIES,
        NOW,
        Box::new(move |_| power.spend()),
    )
}

/// How the new system fares.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Well,
    Unwell,
    NeverUp,
}

/// Works until the device would start anew (true) or has nothing to do (false).
fn work(folder: &Path, world: &World, running: Slot, fate: Fate) -> Result<bool, Box<dyn std::error::Error>> {
    let mut device = open(folder, world, running)?;
    loop {
        match &device.record().state {
            State::Idle | State::Fetching(_) | State::Written(_) | State::Verified(_) => {
                let into = device.install(held("sha256:new", "2"), false, NOW)?;
                let new = index(&image(2));
                let (mut slot, mut old) = (
                    world.part(SLOTS_AT[into as usize]),
                    world.part(SLOTS_AT[running as usize]),
                );
                let room = |slot| Room {
                    slot,
                    bytes: SLOT as u64,
                };
                let moved = write(
                    &new,
                    room(&mut slot),
                    Some(room(&mut old)),
                    &mut Server::honest(2),
                    &mut |_| true,
                )?;
                assert_eq!(moved.sum(), IMAGE as u64);
                device.wrote(NOW)?;
                let right = read_back(&new, &mut slot)?;
                device.read_back(right, NOW)?;
                device.arm(true, NOW)?;
            }
            State::Trial(_) if fate == Fate::Well => device.commit(NOW)?,
            State::Trial(_) => device.give_up(Reason::Unwell("app web".to_owned()), NOW)?,
            // Whoever sits before it restarts it once more where the word was lost.
            State::Armed(_) => {
                device.takes_restart()?;
                return Ok(true);
            }
            _ => return Ok(device.takes_restart()?),
        }
    }
}

/// Upgrades a device whose power is cut once after `steps` steps. Says whether it was cut.
fn check(fate: Fate, steps: usize, seed: u64) -> bool {
    let folder = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a folder");
    let mut world = World::new(steps, seed);
    let mut was_cut = false;
    for _ in 0..12 {
        let running = world.boot();
        let (old, new) = (image(1), image(2));
        assert_eq!(world.content(Slot::A), old, "{fate:?} {steps}");
        if running == Slot::B {
            assert_eq!(
                world.content(Slot::B),
                new,
                "started half written: {fate:?} {steps}"
            );
            if fate == Fate::NeverUp {
                continue;
            }
        }
        let ended = work(folder.path(), &world, running, fate);
        match ended {
            Ok(true) => {}
            Ok(false) => {
                let record = load(folder.path()).expect("whole");
                let upgrade = Upgrade {
                    image: "sha256:new".to_owned(),
                    into: Slot::B,
                };
                let (state, good) = match fate {
                    Fate::Well => (State::Committed(upgrade), Slot::B),
                    Fate::Unwell => (
                        State::RolledBack(upgrade, Reason::Unwell("app web".to_owned())),
                        Slot::A,
                    ),
                    Fate::NeverUp => (State::RolledBack(upgrade, Reason::NeverWell), Slot::A),
                };
                assert_eq!(record.state, state, "{steps}");
                let found = world.blocks().read().expect("whole");
                assert_eq!(
                    (found.good, found.trial, running),
                    (good, None, good),
                    "{fate:?} {steps}"
                );
                assert_eq!(record.blocked.len(), usize::from(fate != Fate::Well));
                return was_cut;
            }
            Err(_) => {
                assert!(!was_cut, "{fate:?} {steps}: {ended:?}");
                was_cut = true;
                world.lose();
            }
        }
    }
    panic!("{fate:?} with a cut after {steps} steps does not come to rest")
}

#[test]
fn an_upgrade_that_is_cut_anywhere_ends_old_or_new() {
    let mut cuts = 0;
    for fate in [Fate::Well, Fate::Unwell, Fate::NeverUp] {
        let mut steps = 0;
        while check(fate, steps, steps as u64 * 3 + fate as u64) {
            steps += 1;
        }
        cuts += steps;
    }
    println!("{cuts} cuts");
    assert!(cuts >= 300, "{cuts} cuts");
}

#[test]
fn only_what_is_nowhere_is_fetched_and_a_right_slot_is_left_alone() {
    let world = World::new(usize::MAX, 1);
    let new = index(&image(2));
    let (mut slot, mut old) = (world.part(SLOTS_AT[1]), world.part(SLOTS_AT[0]));
    let mut server = Server::honest(2);
    let mut once = |server: &mut Server| {
        let into = Room {
            slot: &mut slot,
            bytes: SLOT as u64,
        };
        let from = Room {
            slot: &mut old,
            bytes: SLOT as u64,
        };
        write(&new, into, Some(from), server, &mut |_| true).expect("written")
    };
    let moved = once(&mut server);
    let block = BLOCK as u64;
    // The new block at the front, the one in the middle, and the last, which is cut short in both at another place.
    assert_eq!(
        (moved.zeros, moved.fetched),
        (block, 2 * block + block - 100),
        "{moved:?}"
    );
    assert_eq!(moved.sum(), IMAGE as u64);
    assert_eq!(server.bytes, moved.fetched + moved.beside);
    let steps = world.power.0.load(Ordering::Relaxed);
    let again = once(&mut server);
    assert_eq!(
        (again.kept, world.power.0.load(Ordering::Relaxed)),
        (IMAGE as u64, steps),
        "nothing is written twice"
    );
}

#[test]
fn what_is_wrong_is_asked_of_another_and_never_written() {
    let new = index(&image(2));
    for (others, is_written) in [(1, true), (0, false)] {
        let world = World::new(usize::MAX, 1);
        let mut slot = world.part(SLOTS_AT[1]);
        let mut server = Server {
            lies: Some(6 * BLOCK as u64 + 7),
            others,
            ..Server::honest(2)
        };
        let into = Room {
            slot: &mut slot,
            bytes: SLOT as u64,
        };
        let written = write(&new, into, None, &mut server, &mut |_| true);
        match written {
            Ok(_) => assert!(is_written && read_back(&new, &mut slot).expect("read")),
            Err(error) => {
                assert!(!is_written && error.is_lasting() && matches!(error, WriteError::Wrong { block: 6 }));
                let content = world.content(Slot::B);
                let at = 6 * BLOCK;
                assert!(
                    content[at..at + BLOCK].iter().all(|byte| *byte == 0xff),
                    "a wrong block was written"
                );
                assert!(!read_back(&new, &mut slot).expect("read"));
            }
        }
    }
}

#[test]
fn what_does_not_fit_or_is_called_off_is_refused() {
    let world = World::new(usize::MAX, 1);
    let new = index(&image(2));
    let mut slot = world.part(SLOTS_AT[1]);
    let mut with = |bytes: usize, goes_on: bool| {
        let into = Room {
            slot: &mut slot,
            bytes: bytes as u64,
        };
        write(&new, into, None, &mut Server::honest(2), &mut |_| goes_on)
    };
    assert!(matches!(with(IMAGE - 1, true), Err(WriteError::TooSmall { .. })));
    assert!(world.content(Slot::B).iter().all(|byte| *byte == 0xff));
    assert!(matches!(with(SLOT, false), Err(WriteError::CalledOff)));
    assert!(with(IMAGE, true).is_ok());
}

/// What went wrong is not tried again until somebody says so, and what ran before comes back when it is wanted.
#[test]
fn what_failed_is_blocked_and_what_ran_before_comes_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut world = World::new(usize::MAX, 1);
    let until_rest = |world: &mut World, fate| {
        for _ in 0..6 {
            let running = world.boot();
            if !work(folder.path(), world, running, fate).expect("no cut") {
                return running;
            }
        }
        panic!("it does not come to rest")
    };
    assert_eq!(until_rest(&mut world, Fate::Unwell), Slot::A);
    let mut device = open(folder.path(), &world, Slot::A).expect("opened");
    assert!(matches!(
        device.go_back(false, NOW),
        Err(DeviceError::NothingBefore(Slot::B) | DeviceError::Refused(_))
    ));
    let blocked = device.install(held("sha256:new", "2"), false, NOW);
    assert!(matches!(blocked, Err(DeviceError::Blocked { reason, .. }) if reason.contains("app web")));
    device
        .install(held("sha256:other", "3"), false, NOW)
        .expect("another");
    device
        .give_up(Reason::NotWritten("no room".to_owned()), NOW)
        .expect("given up");
    let blocked = device.install(held("sha256:new", "2"), false, NOW);
    assert!(blocked.is_err(), "an image in between makes it no better");
    device
        .install(held("sha256:new", "2"), true, NOW)
        .expect("once more");
    assert!(
        matches!(device.install(held("sha256:new", "2"), false, NOW), Ok(Slot::B)),
        "it goes on"
    );
    drop(device);
    assert_eq!(until_rest(&mut world, Fate::Well), Slot::B);
    let mut device = open(folder.path(), &world, Slot::B).expect("opened");
    device.raise_floor("2").expect("kept");
    assert!(matches!(
        device.commit(NOW),
        Err(DeviceError::Refused(Refusal::Phase))
    ));
    device.go_back(true, NOW).expect("back");
    assert!(device.takes_restart().expect("asked") && !device.takes_restart().expect("asked once"));
    drop(device);
    // On trial like anything else, and the good one only when it is well.
    assert_eq!(world.boot(), Slot::A);
    let mut device = open(folder.path(), &world, Slot::A).expect("opened");
    assert!(device.is_on_trial());
    assert_eq!(device.control().expect("whole").good, Slot::B);
    device.commit(NOW).expect("well");
    assert_eq!(device.control().expect("whole").good, Slot::A);
    let record = device.record();
    assert_eq!(record.floor.as_deref(), Some("2"));
    let told: Vec<&str> = record.history.iter().map(|entry| entry.what.as_str()).collect();
    assert_eq!(told.last(), Some(&"committed"));
    assert!(told.contains(&"rolled-back"));
    assert_eq!(
        due(
            &record.state,
            Slot::A,
            Control {
                good: Slot::A,
                trial: None
            }
        ),
        Act::Nothing
    );
}
