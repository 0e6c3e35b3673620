//! Power cuts under the records, in thousands: a disk in memory that keeps what was synced and, of the rest, whatever it likes.
//!
//! One run is one seed; a failure names it, and `KAKOI_CUT_SEED=N` runs it again. `KAKOI_CUTS=N` says how many cuts are made.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use redb::StorageBackend;

use super::record::{RECORD_FORMAT, VolumeRecord};
use super::store::{Change, VOLUMES, open_backend, open_file, read_all, read_kept, write_batch};

/// Cuts of one run of the tests.
const CUTS: usize = 300;
/// What a disk writes at once.
const SECTOR: usize = 512;

/// Numbers from a seed: splitmix64.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

#[derive(Clone, Debug)]
enum Step {
    Length(u64),
    Write(u64, Vec<u8>),
}

/// What is on the disk for certain, and what was done since.
#[derive(Clone, Debug, Default)]
struct Bytes {
    synced: Vec<u8>,
    since: Vec<Step>,
    now: Vec<u8>,
    /// The disk at moments that a cut may take.
    moments: Vec<(Vec<u8>, Vec<Step>)>,
    /// One in so many steps is such a moment; 0 is none.
    every: usize,
    steps: usize,
}

impl Bytes {
    fn done(&mut self, step: Step) {
        apply(&mut self.now, &step, 0..usize::MAX);
        self.since.push(step);
        self.steps += 1;
        if self.every > 0 && self.steps.is_multiple_of(self.every) {
            self.moments.push((self.synced.clone(), self.since.clone()));
        }
    }
}

/// Does one step, or the sectors of it that are in `kept`.
fn apply(bytes: &mut Vec<u8>, step: &Step, kept: std::ops::Range<usize>) {
    match step {
        Step::Length(length) => bytes.resize(*length as usize, 0),
        Step::Write(offset, data) => {
            let offset = *offset as usize;
            if bytes.len() < offset + data.len() {
                bytes.resize(offset + data.len(), 0);
            }
            let (first, last) = (kept.start.min(data.len()), kept.end.min(data.len()));
            bytes[offset + first..offset + last].copy_from_slice(&data[first..last]);
        }
    }
}

/// What a cut leaves: each step since the last sync is there, or not, or some sectors of it; in half of the cuts the first ones are there and
/// the others are not.
fn cut(moment: &(Vec<u8>, Vec<Step>), random: &mut Random) -> Vec<u8> {
    let (mut bytes, steps) = (moment.0.clone(), &moment.1);
    let in_order = random.below(2) == 0;
    let until = random.below(steps.len() + 1);
    for (number, step) in steps.iter().enumerate() {
        let is_kept = if in_order {
            number < until
        } else {
            random.below(2) == 0
        };
        let kept = match step {
            _ if is_kept => 0..usize::MAX,
            Step::Write(_, data) if random.below(4) == 0 => {
                let sectors = data.len().div_ceil(SECTOR);
                let first = random.below(sectors);
                first * SECTOR..(first + random.below(sectors - first + 1)) * SECTOR
            }
            _ => continue,
        };
        apply(&mut bytes, step, kept);
    }
    bytes
}

/// The disk, as redb sees it.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<Bytes>>);

impl Disk {
    fn of(bytes: Vec<u8>) -> Self {
        let disk = Self::default();
        disk.with(|inner| (inner.synced, inner.now) = (bytes.clone(), bytes));
        disk
    }

    fn with<T>(&self, work: impl FnOnce(&mut Bytes) -> T) -> T {
        work(&mut self.0.lock().expect("no panic while locked"))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.with(|bytes| bytes.now.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let offset = offset as usize;
        self.with(|bytes| match bytes.now.get(offset..offset + out.len()) {
            Some(found) => {
                out.copy_from_slice(found);
                Ok(())
            }
            None => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        })
    }

    fn set_len(&self, length: u64) -> Result<(), io::Error> {
        self.with(|bytes| bytes.done(Step::Length(length)));
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.with(|bytes| {
            bytes.synced = bytes.now.clone();
            bytes.since.clear();
        });
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.with(|bytes| bytes.done(Step::Write(offset, data.to_vec())));
        Ok(())
    }
}

type Kept = BTreeMap<String, String>;

/// Opens what a cut left and reads all of it.
fn look(bytes: Vec<u8>) -> Kept {
    let database = open_backend(Disk::of(bytes)).expect("the records open by themselves");
    let kept = read_all(&database, Path::new("/nonexistent")).expect("they read");
    assert!(kept.damage.is_empty(), "{:?}", kept.damage);
    // It works on.
    let (change, _written) = put("after", "the cut");
    write_batch(&database, &[change]).expect("the next change is written");
    kept.volumes
        .into_iter()
        .map(|volume| (volume.name, volume.created))
        .collect()
}

fn put(
    name: &str,
    value: &str,
) -> (
    Change,
    tokio::sync::oneshot::Receiver<Result<(), Arc<redb::Error>>>,
) {
    let volume = VolumeRecord {
        format: RECORD_FORMAT,
        name: name.to_owned(),
        created: value.to_owned(),
        labels: BTreeMap::from([("size".to_owned(), "x".repeat(value.len() * 40))]),
        options: BTreeMap::new(),
        anonymous: false,
    };
    change(name, Some(serde_json::to_vec(&volume).expect("plain data")))
}

fn change(
    name: &str,
    value: Option<Vec<u8>>,
) -> (
    Change,
    tokio::sync::oneshot::Receiver<Result<(), Arc<redb::Error>>>,
) {
    let (done, written) = tokio::sync::oneshot::channel();
    let change = Change {
        table: VOLUMES,
        key: name.to_owned(),
        value,
        done,
    };
    (change, written)
}

/// One life of the records, cut at many steps of every commit.
fn life(seed: u64, cuts_max: usize) -> usize {
    let mut random = Random(seed);
    let disk = Disk::default();
    let database = open_backend(disk.clone()).expect("a new database");
    let (mut before, mut cuts) = (Kept::new(), 0);
    while cuts < cuts_max {
        let mut after = before.clone();
        let mut batch = Vec::new();
        for _ in 0..=random.below(4) {
            let name = format!("volume-{}", random.below(12));
            if random.below(3) == 0 {
                after.remove(&name);
                batch.push(change(&name, None).0);
            } else {
                let value = format!("{:x}", random.next() >> random.below(60));
                batch.push(put(&name, &value).0);
                after.insert(name, value);
            }
        }
        disk.with(|bytes| {
            bytes.moments.clear();
            bytes.every = 1 + random.below(4);
        });
        write_batch(&database, &batch).expect("written");
        let mut moments = disk.with(|bytes| {
            bytes.every = 0;
            std::mem::take(&mut bytes.moments)
        });
        for moment in &moments {
            let found = look(cut(moment, &mut random));
            assert!(
                found == before || found == after,
                "{found:?} is neither {before:?} nor {after:?}"
            );
        }
        // It was acknowledged.
        moments.push(disk.with(|bytes| (bytes.synced.clone(), bytes.since.clone())));
        let last = &moments[moments.len() - 1];
        assert_eq!(look(cut(last, &mut random)), after, "acknowledged and lost");
        cuts += moments.len();
        before = after;
    }
    cuts
}

#[test]
fn power_cuts_lose_no_record_that_was_acknowledged() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let wanted = number("KAKOI_CUTS").map_or(CUTS, |cuts| cuts as usize);
    let first = number("KAKOI_CUT_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let (mut cuts, mut seed) = (0, first);
    while cuts < wanted {
        println!("KAKOI_CUT_SEED={seed}");
        cuts += life(seed, wanted.min(500));
        seed += 1;
    }
    println!(
        "{cuts} power cuts of the records, seeds {first} to {}: nothing was lost",
        seed - 1
    );
}

/// A file beside the records that a reader of them left.
const COUNTED: &str = "state.redb.opening";

/// A root with records in which one volume stands, and a folder of it.
fn root_with_volume() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join("volumes/kept");
    std::fs::create_dir_all(folder.join("_data")).expect("a folder");
    drop(open_file(&dir.path().join("state.redb")).expect("new records"));
    dir
}

fn open(root: &Path) -> Result<super::store::Kept, super::StoreError> {
    read_kept(root, &root.join("run")).map(|(_, kept)| kept)
}

/// redb panics on some damage, and a panic ends the daemon: the third start sets the records aside, and not one before.
#[test]
fn records_that_make_their_readers_panic_are_set_aside() {
    let version = env!("CARGO_PKG_VERSION");
    for (panics, is_anew) in [
        (format!("1 {version}"), false),
        (format!("2 {version}"), true),
        // Another version's panics, kills as a version before counted them, and nonsense.
        ("2 0.0.0".to_owned(), false),
        ("2".to_owned(), false),
        ("nonsense".to_owned(), false),
    ] {
        let dir = root_with_volume();
        let root = dir.path();
        std::fs::write(root.join(COUNTED), &panics).expect("a file");
        let kept = open(root).expect("they open");
        let anew = kept
            .damage
            .iter()
            .any(|damage| damage.key.is_none() && damage.healed);
        assert_eq!(anew, is_anew, "{panics}");
        assert_eq!(!super::copies::set_aside(root).is_empty(), is_anew, "{panics}");
        assert_eq!(
            kept.volumes.len(),
            usize::from(is_anew),
            "a folder's record comes back"
        );
        assert!(!root.join(COUNTED).exists(), "{panics}: this one lived");
    }
}

/// A reader that panics is counted; one that is killed leaves without a word, however often.
#[test]
fn only_panics_are_counted() {
    let dir = root_with_volume();
    let root = dir.path();
    let counted = || std::fs::read_to_string(root.join(COUNTED)).ok();
    for _ in 0..9 {
        drop(super::store::Panics::begin(root));
        assert_eq!(counted(), None, "killed");
        drop(std::panic::take_hook());
    }
    assert!(open(root).expect("they open").damage.is_empty());
    for panics in 1..=2 {
        let reading = std::panic::catch_unwind(|| {
            drop(super::store::Panics::begin(root));
            panic!("as redb does");
        });
        drop(std::panic::take_hook());
        assert!(reading.is_err());
        assert_eq!(counted(), Some(format!("{panics} {}", env!("CARGO_PKG_VERSION"))));
    }
    assert_eq!(open(root).expect("made anew").damage.len(), 1);
}

/// What another version wrote, and what cannot be read now, are neither damaged nor a reader's death.
#[test]
fn an_error_that_is_no_damage_leaves_the_records_alone() {
    use super::StoreError;
    let newer = r#"{"format": 99, "name": "kept", "colour": "blue"}"#;
    for row in [newer, r#"{"format": 99}"#] {
        let dir = root_with_volume();
        let (root, path) = (dir.path(), dir.path().join("state.redb"));
        let database = open_file(&path).expect("records");
        let (done, _written) = tokio::sync::oneshot::channel();
        let change = super::store::Change {
            table: super::store::VOLUMES,
            key: "kept".into(),
            value: Some(row.into()),
            done,
        };
        super::store::write_batch(&database, &[change]).expect("written");
        drop(database);
        for start in 1..=5 {
            let refused = open(root).map(|kept| kept.damage);
            let is_version = matches!(refused, Err(StoreError::Version { format: 99, .. }));
            assert!(is_version, "start {start}: {refused:?}");
            assert!(!root.join(COUNTED).exists(), "start {start}");
        }
        assert_eq!(super::copies::set_aside(root), Vec::<PathBuf>::new());
    }
    // A folder cannot be opened for writing.
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(dir.path().join("state.redb")).expect("a folder");
    for start in 1..=5 {
        assert!(
            matches!(open(dir.path()), Err(StoreError::Open { .. })),
            "start {start}"
        );
        assert!(dir.path().join("state.redb").is_dir(), "start {start}");
    }
}

/// Until a repair removed the damaged records, every start knows that something may be missing; and copies that are missing are written.
#[test]
fn damage_is_known_until_somebody_looked_at_it() {
    for is_gone in [true, false] {
        let dir = root_with_volume();
        let (root, path) = (dir.path(), dir.path().join("state.redb"));
        std::fs::create_dir_all(root.join("containers/00ff")).expect("a folder");
        if is_gone {
            std::fs::remove_file(&path).expect("gone");
        } else {
            std::fs::write(&path, [0x5a; 65536]).expect("a file");
        }
        for start in 1..=3 {
            let kept = open(root).expect("they open");
            assert_eq!(
                kept.damage.is_empty(),
                start > 1,
                "start {start}: {:?}",
                kept.damage
            );
            assert!(kept.is_damaged, "start {start}");
            assert!(root.join("volumes/kept/record.json").exists(), "start {start}");
        }
        for path in super::copies::set_aside(root) {
            std::fs::remove_file(path).expect("looked at");
        }
        assert!(!open(root).expect("they open").is_damaged);
    }
    // A file system's own folder is nothing that was lost.
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir_all(dir.path().join("volumes/lost+found")).expect("a folder");
    let kept = open(dir.path()).expect("they open");
    assert!(!kept.is_damaged && kept.volumes.is_empty(), "{kept:?}");
}

/// Damage that comes again destroys no evidence of the damage before, and fills no disk.
#[test]
fn damaged_records_are_kept_three_deep_the_first_for_good() {
    let dir = root_with_volume();
    let (root, path) = (dir.path(), dir.path().join("state.redb"));
    let damage = |number: u8| {
        std::fs::write(&path, [number; 65536]).expect("damaged");
        assert_eq!(open(root).expect("made anew").damage.len(), 1, "{number}");
    };
    let kept = || -> Vec<u8> {
        let aside = super::copies::set_aside(root).into_iter();
        let first = aside.map(|path| std::fs::read(path).expect("kept").first().copied());
        first.map(|byte| byte.unwrap_or(0)).collect()
    };
    for (number, expected) in [
        (1, &[1][..]),
        (2, &[1, 2]),
        (3, &[1, 2, 3]),
        (4, &[1, 2, 4]),
        (5, &[1, 2, 5]),
    ] {
        damage(number);
        assert_eq!(kept(), expected, "{number}");
    }
    // Records that are gone take nothing's place.
    std::fs::remove_file(&path).expect("gone");
    assert_eq!(open(root).expect("made anew").damage.len(), 1);
    assert_eq!(kept(), [1, 2, 5]);
    // Where somebody took one away to look at it, the next goes behind the rest.
    std::fs::remove_file(&super::copies::set_aside(root)[0]).expect("taken away");
    damage(6);
    assert_eq!(kept(), [2, 6]);
    let names: Vec<_> = super::copies::set_aside(root)
        .iter()
        .filter_map(|path| path.extension()?.to_str().map(str::to_owned))
        .collect();
    assert_eq!(names, ["2", "3"]);
    for path in super::copies::set_aside(root) {
        std::fs::remove_file(path).expect("looked at");
    }
    // The first of all may be records that are gone: then an empty file says so.
    std::fs::remove_file(&path).expect("gone");
    open(root).expect("made anew");
    assert_eq!(kept(), [0]);
}
