//! Every state with every event, and every write of the boot state and of the record as a power cut.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use super::medium::{Variables, encode};
use super::record::commit_by;
use super::*;

const SECTOR: usize = 512;
/// What is kept of the sector that is being written: the checksum and a part of the first variable.
const TORN: usize = 16;
const TRIES: u8 = 3;
const MKENVIMAGE_CRC: [u8; 4] = [0xec, 0x8e, 0x80, 0xc5];

/// A count of durable steps after which the power is cut. It stays cut until it is set anew.
#[derive(Clone)]
pub(super) struct Power(pub(super) Rc<Cell<usize>>);

impl Power {
    fn of(steps: usize) -> Self {
        Self(Rc::new(Cell::new(steps)))
    }

    fn spend(&self) -> io::Result<()> {
        match self.0.get().checked_sub(1) {
            Some(left) => {
                self.0.set(left);
                Ok(())
            }
            None => Err(io::Error::other("power cut")),
        }
    }
}

/// A medium that keeps the sectors written before the power is cut, and a part of the one that is being written.
#[derive(Clone)]
struct Memory {
    bytes: Vec<u8>,
    power: Power,
}

impl Medium for Memory {
    fn read_at(&mut self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        let at = at as usize;
        let found = self.bytes.get(at..at + bytes.len());
        bytes.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        for (number, sector) in bytes.chunks(SECTOR).enumerate() {
            let at = at as usize + number * SECTOR;
            let spent = self.power.spend();
            let kept = if spent.is_ok() { sector.len() } else { TORN };
            self.bytes[at..at + kept].copy_from_slice(&sector[..kept]);
            spent?;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.power.spend()
    }

    fn forget(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn memory(power: &Power) -> Memory {
    Memory {
        bytes: vec![0xff; 8192],
        power: power.clone(),
    }
}

fn blocks(memory: Memory) -> BootBlocks<Memory> {
    BootBlocks::new(memory, 0, 4096).expect("apart")
}

fn environment(memory: Memory) -> UbootEnvironment<Memory> {
    UbootEnvironment::new(memory, 0, 4096, 4096).expect("apart")
}

fn control(good: Slot, trial: Option<(Slot, u8)>) -> Control {
    let trial = trial.map(|(slot, left)| Trial { slot, left });
    Control { good, trial }
}

fn fresh_environment(power: &Power, flag: u8) -> Memory {
    let mut memory = memory(power);
    let variables = Variables::from(
        [
            ("boot_good", "a"),
            ("boot_try", "none"),
            ("boot_left", "0"),
            ("bootdelay", "2"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    let copy = encode(&variables, 4096, Some(flag)).expect("it fits");
    memory.bytes[..4096].copy_from_slice(&copy);
    memory
}

/// Every step of `set_trial` and `commit` is a power cut; the state is the old or the new one, and the call can be made again.
fn check_tearing<C: BootControl>(
    made: impl Fn(&Power) -> Memory,
    open: impl Fn(Memory) -> C,
    memory_of: impl Fn(C) -> Memory,
) {
    let old = control(Slot::A, None);
    let new = control(Slot::A, Some((Slot::B, TRIES)));
    let (mut olds, mut news) = (0, 0);
    for steps in 0..20 {
        let power = Power::of(steps);
        let mut boot = open(made(&power));
        let done = boot.set_trial(Slot::B, TRIES);
        power.0.set(usize::MAX);
        let mut boot = open(memory_of(boot));
        let found = boot.read().expect("one copy is whole");
        assert!(found == old || found == new, "{found:?} after {steps} steps");
        assert!(done.is_err() || found == new, "told as done after {steps} steps");
        olds += usize::from(found == old);
        news += usize::from(found == new);
        boot.set_trial(Slot::B, TRIES).expect("again");
        assert_eq!(boot.read().expect("whole"), new);
        boot.commit(Slot::B).expect("committed");
        assert_eq!(boot.read().expect("whole"), control(Slot::B, None));
    }
    assert!(olds > 0 && news > 0, "{olds} {news}");
}

#[test]
fn a_cut_leaves_the_blocks_old_or_new() {
    check_tearing(memory, blocks, BootBlocks::into_medium);
    // And where both blocks are whole; the older one differs, so that falling back to it would be seen.
    let block = |sequence: u32, good| {
        let mut variables = Variables::from([("boot_seq".to_owned(), sequence.to_string())]);
        boot::put(&mut variables, control(good, None));
        encode(&variables, 4096, None).expect("it fits")
    };
    let (older, newer) = (block(6, Slot::B), block(7, Slot::A));
    for bytes in [[&older[..], &newer].concat(), [&newer[..], &older].concat()] {
        let made = |power: &Power| Memory {
            bytes: bytes.clone(),
            power: power.clone(),
        };
        check_tearing(made, blocks, BootBlocks::into_medium);
    }
}

/// The script writes the number that it read with one try less; of two such blocks that with less left counts, wherever it lies.
#[test]
fn what_a_script_counted_down_counts() {
    let block = |left: u8| {
        let mut variables = Variables::from([("boot_seq".to_owned(), "7".to_owned())]);
        boot::put(&mut variables, control(Slot::A, Some((Slot::B, left))));
        encode(&variables, 4096, None).expect("it fits")
    };
    for (first, second) in [(3, 2), (2, 3), (1, 0), (0, 1)] {
        let mut memory = memory(&Power::of(usize::MAX));
        memory.bytes = [block(first), block(second)].concat();
        let found = blocks(memory).read().expect("whole");
        let least = first.min(second);
        assert_eq!(found, control(Slot::A, Some((Slot::B, least))));
    }
}

#[test]
fn a_cut_leaves_the_environment_old_or_new() {
    for flag in [0, 1, 254, 255] {
        check_tearing(
            |power| fresh_environment(power, flag),
            environment,
            UbootEnvironment::into_medium,
        );
    }
}

#[test]
fn what_is_not_to_be_tried_is_refused() {
    let power = Power::of(usize::MAX);
    let mut boot = blocks(memory(&power));
    assert!(matches!(
        boot.set_trial(Slot::A, 1),
        Err(ControlError::IsGood(Slot::A))
    ));
    assert!(matches!(
        boot.mark_bad(Slot::A),
        Err(ControlError::IsGood(Slot::A))
    ));
    assert!(matches!(boot.set_trial(Slot::B, 0), Err(ControlError::Tries(0))));
    assert!(matches!(
        boot.set_trial(Slot::B, 10),
        Err(ControlError::Tries(10))
    ));
    let untouched = boot.into_medium();
    assert!(untouched.bytes.iter().all(|byte| *byte == 0xff));
    assert!(matches!(
        environment(untouched).read(),
        Err(ControlError::Damaged)
    ));
    assert!(BootBlocks::new(memory(&power), 0, 4095).is_err());
    assert!(UbootEnvironment::new(memory(&power), 0, 4096, 4097).is_err());
    assert!(UbootEnvironment::new(memory(&power), 0, 4096, 63).is_err());
}

#[test]
fn the_drawing_is_what_is_written() {
    let power = Power::of(usize::MAX);
    let mut boot = blocks(memory(&power));
    boot.set_trial(Slot::B, TRIES).expect("set");
    let bytes = boot.into_medium().bytes;
    let text = b"boot_good=a\0boot_left=3\0boot_seq=1\0boot_try=b\0\0";
    assert_eq!(&bytes[4..4 + text.len()], text);
    // What U-Boot's mkenvimage 2023.01 makes of the same variables (`mkenvimage -p 0 -s 4096`).
    assert_eq!(&bytes[..4], &MKENVIMAGE_CRC);
    assert!(bytes[4 + text.len()..4096].iter().all(|byte| *byte == 0));
}

#[test]
fn variables_of_others_stay() {
    let power = Power::of(usize::MAX);
    let mut boot = environment(fresh_environment(&power, 7));
    boot.commit(Slot::B).expect("committed");
    let bytes = boot.into_medium().bytes;
    let copy = medium::decode(&bytes[4096..], 5).expect("whole");
    assert_eq!(copy.get("bootdelay").map(String::as_str), Some("2"));
    assert_eq!(bytes[4096 + 4], 8);
}

fn upgrade() -> Upgrade {
    Upgrade {
        image: "sha256:new".to_owned(),
        into: Slot::B,
    }
}

fn install(image: &str, running: Slot, control: Control, again: bool) -> Event {
    Event::Install {
        image: image.to_owned(),
        running,
        control,
        again,
    }
}

fn go_back(running: Slot, control: Control) -> Event {
    Event::GoBack {
        image: "sha256:old".to_owned(),
        running,
        control,
    }
}

/// A row per state; a letter per event: the phase that follows, or R for a refusal.
#[test]
fn every_state_and_every_event() {
    let started = |running, good, trial| Event::Started {
        running,
        control: control(good, trial),
    };
    let events = [
        install("sha256:new", Slot::A, control(Slot::A, None), false),
        install("sha256:new", Slot::A, control(Slot::A, None), true),
        install("sha256:other", Slot::A, control(Slot::A, None), false),
        install(
            "sha256:other",
            Slot::A,
            control(Slot::A, Some((Slot::B, 0))),
            true,
        ),
        install("sha256:other", Slot::B, control(Slot::A, None), true),
        Event::Wrote,
        Event::ReadBack { right: true },
        Event::ReadBack { right: false },
        Event::Arm,
        started(Slot::A, Slot::A, None),
        started(Slot::A, Slot::A, Some((Slot::B, 1))),
        started(Slot::A, Slot::A, Some((Slot::B, 0))),
        started(Slot::B, Slot::A, Some((Slot::B, 0))),
        started(Slot::B, Slot::B, None),
        Event::Committed,
        Event::GiveUp(Reason::Owner),
        go_back(Slot::B, control(Slot::B, None)),
        go_back(Slot::A, control(Slot::B, None)),
        go_back(Slot::B, control(Slot::A, None)),
        go_back(Slot::B, control(Slot::B, Some((Slot::A, 1)))),
    ];
    let rows = [
        (State::Idle, "fffRRRRRRiiiiiRRRRRR"),
        (State::Fetching(upgrade()), "fffRRwRRRfffffRxRRRR"),
        (State::Written(upgrade()), "fffRRRvfRwwwwwRxRRRR"),
        (State::Verified(upgrade()), "fffRRRRRavvvvvRxRRRR"),
        (State::Armed(upgrade()), "RRRRRRRRRaaxtcRxRRRR"),
        (State::Trial(upgrade()), "RRRRRRRRRxxxtccxRRRR"),
        (State::Committed(upgrade()), "RRfRRRRRRcccccRRaRRR"),
        (
            State::RolledBack(upgrade(), Reason::Owner),
            "RffRRRRRRxxxxxRRRRRR",
        ),
    ];
    for (state, row) in rows {
        let found: String = events
            .iter()
            .map(|event| match transition(state.clone(), event.clone()) {
                Err(_) => 'R',
                Ok(State::Idle) => 'i',
                Ok(State::Fetching(_)) => 'f',
                Ok(State::Written(_)) => 'w',
                Ok(State::Verified(_)) => 'v',
                Ok(State::Armed(_)) => 'a',
                Ok(State::Trial(_)) => 't',
                Ok(State::Committed(_)) => 'c',
                Ok(State::RolledBack(..)) => 'x',
            })
            .collect();
        assert_eq!(found, row, "{state:?}");
    }
}

#[test]
fn a_cut_leaves_the_record_old_or_new() {
    let (mut old, mut new) = (Record::new(), Record::new());
    old.state = State::Fetching(upgrade());
    new.state = State::Written(upgrade());
    for steps in 0..=6 {
        let folder = tempfile::tempdir().expect("a folder");
        commit(folder.path(), &old).expect("kept");
        let power = Power::of(steps);
        let done = commit_by(folder.path(), &new, &mut |_| power.spend());
        assert_eq!(done.is_ok(), steps == 6, "{steps}");
        let expected = if steps > 4 { &new } else { &old };
        assert_eq!(&load(folder.path()).expect("whole"), expected, "{steps}");
        commit(folder.path(), &new).expect("again");
    }
}

#[test]
fn a_record_that_is_none_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(load(folder.path()).expect("none is idle"), Record::new());
    for bytes in [
        &b""[..],
        b"{}",
        b"\"armed\"",
        br#"{"format":1,"state":"idle"}"#,
        br#"{"format":"1"}"#,
    ] {
        std::fs::write(folder.path().join("os.json"), bytes).expect("written");
        assert!(
            matches!(load(folder.path()), Err(RecordError::Damaged(_))),
            "{bytes:?}"
        );
    }
    std::fs::write(folder.path().join("os.json"), vec![b' '; 257 << 10]).expect("written");
    assert!(matches!(load(folder.path()), Err(RecordError::TooLarge)));
    // The other slot may hold a newer Kakoi, whose record is not this one's to replace.
    std::fs::write(folder.path().join("os.json"), br#"{"format":2,"more":true}"#).expect("written");
    assert!(matches!(load(folder.path()), Err(RecordError::Format(2))));
}
