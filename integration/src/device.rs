//! A device of `integration/device/build`: a copy of its disk, the boot state on it, and the machine that it boots.
//!
//! Owns where things lie on the disk, in the words of `integration/device/build` and `boot.cmd` there. A [`Disk`] is changed from outside only while no
//! machine runs on it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::machine::Machine;
use crate::required;

const SECTOR: u64 = 512;
const BLOCK_BYTES: usize = 4096;
/// The two blocks of boot state.
const BLOCKS_AT: [u64; 2] = [0x800 * SECTOR, 0x808 * SECTOR];
/// The two slots.
const SLOTS_AT: [u64; 2] = [36_864 * SECTOR, 167_936 * SECTOR];

/// Where the disks lie that `make device-test` made, or `None` and a word on why the test is left out.
#[track_caller]
pub fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("KAKOI_DEVICE").map(PathBuf::from);
    if folder.is_none() {
        required::leave_out(
            "device",
            "a test in a virtual machine: `make device-test` makes its disks",
        );
    }
    folder
}

/// One of the two slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    /// Its name on the kernel's command line and in the boot state.
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

/// What a block of boot state says: `boot_seq`, `boot_good`, `boot_try`, `boot_left`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Which of two blocks counts.
    pub seq: u32,
    /// The slot that is known to work.
    pub good: Slot,
    /// The slot that is to be tried.
    pub trial: Option<Slot>,
    /// How many more times.
    pub left: u32,
}

impl State {
    /// The block, as U-Boot's `env import -c` reads it.
    pub fn block(&self) -> Vec<u8> {
        let text = format!(
            "boot_seq={}\0boot_good={}\0boot_try={}\0boot_left={}\0\0",
            self.seq,
            self.good.name(),
            self.trial.map_or("none", Slot::name),
            self.left
        );
        let mut block = vec![0; BLOCK_BYTES];
        block[4..4 + text.len()].copy_from_slice(text.as_bytes());
        let sum = crc32(&block[4..]);
        block[..4].copy_from_slice(&sum.to_le_bytes());
        block
    }

    /// Reads a block; `None` where it is not whole.
    pub fn parse(block: &[u8]) -> Option<Self> {
        let (sum, text) = block.split_at_checked(4)?;
        if crc32(text).to_le_bytes() != sum {
            return None;
        }
        let text = std::str::from_utf8(text).ok()?;
        let words: BTreeMap<_, _> = text.split('\0').filter_map(|line| line.split_once('=')).collect();
        let slot = |name: &str| match words.get(name).copied() {
            Some("a") => Some(Slot::A),
            Some("b") => Some(Slot::B),
            _ => None,
        };
        Some(Self {
            seq: words.get("boot_seq")?.parse().ok()?,
            good: slot("boot_good")?,
            trial: slot("boot_try"),
            left: words.get("boot_left")?.parse().ok()?,
        })
    }
}

/// The CRC-32 of Ethernet and zlib.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xEDB8_8320 & 0_u32.wrapping_sub(sum & 1))
        })
    })
}

/// A device's disk of a test's own.
pub struct Disk {
    made: PathBuf,
    folder: TempDir,
}

impl Disk {
    /// Copies the disk that was made: the same good version in both slots, no boot state, no data.
    pub fn new(made: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("kakoi-device-").tempdir();
        let disk = Self {
            made: made.to_owned(),
            folder: folder.expect("making a temporary folder"),
        };
        let copied = Command::new("cp")
            .arg("--sparse=always")
            .args([made.join("disk"), disk.path()])
            .status();
        assert!(copied.is_ok_and(|status| status.success()), "copying the disk");
        disk
    }

    /// Its file.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn open(&self) -> File {
        let file = OpenOptions::new().read(true).write(true).open(self.path());
        file.expect("opening the disk")
    }

    /// Writes the image of a slot that was made under this name.
    pub fn put(&self, slot: Slot, image: &str) {
        let image = self.made.join(format!("{image}.slot"));
        let mut image = File::open(&image).unwrap_or_else(|error| panic!("{}: {error}", image.display()));
        let mut disk = self.open();
        io::Seek::seek(&mut disk, io::SeekFrom::Start(SLOTS_AT[slot as usize])).expect("seeking");
        io::copy(&mut image, &mut disk).expect("writing a slot");
    }

    /// Writes bytes as they are into one of the two blocks of boot state.
    pub fn write_block(&self, number: usize, bytes: &[u8]) {
        let written = self.open().write_all_at(bytes, BLOCKS_AT[number]);
        written.expect("writing boot state");
    }

    /// Writes the boot state that is to count, and a block that is not whole beside it.
    pub fn set_state(&self, state: &State) {
        self.write_block(0, &state.block());
        self.write_block(1, &[0; BLOCK_BYTES]);
    }

    /// What the two blocks say.
    pub fn states(&self) -> [Option<State>; 2] {
        BLOCKS_AT.map(|at| {
            let mut block = [0; BLOCK_BYTES];
            self.open()
                .read_exact_at(&mut block, at)
                .expect("reading boot state");
            State::parse(&block)
        })
    }

    /// Switches the device on: its firmware is U-Boot, and its hardware watchdog resets it.
    pub fn boot(&self) -> Machine {
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args([
                "-machine",
                "pc,accel=tcg",
                "-cpu",
                "max",
                "-m",
                "1024",
                "-nic",
                "none",
            ])
            .args(["-display", "none", "-serial", "stdio", "-monitor", "none"])
            .args(["-bios", "/usr/lib/u-boot/qemu-x86/u-boot.rom"])
            .args(["-device", "i6300esb", "-action", "watchdog=reset"])
            .arg("-drive")
            .arg(format!(
                "file={},format=raw,if=none,id=disk,cache=unsafe",
                self.path().display()
            ))
            .args(["-device", "virtio-blk-pci,drive=disk,disable-modern=on"]);
        Machine::start(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_read_back_and_a_torn_one_is_not() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        let state = State {
            seq: 7,
            good: Slot::A,
            trial: Some(Slot::B),
            left: 3,
        };
        let mut block = state.block();
        assert_eq!(State::parse(&block), Some(state));
        for at in [0, 4, 20, BLOCK_BYTES - 1] {
            block[at] ^= 1;
            assert_eq!(State::parse(&block), None, "byte {at}");
            block[at] ^= 1;
        }
        assert_eq!(State::parse(&[]), None);
        assert_eq!(State::parse(&[0; BLOCK_BYTES]), None, "an erased block");
    }
}
