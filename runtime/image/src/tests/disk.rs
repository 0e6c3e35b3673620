//! What a power cut leaves of a folder: a model of a file system that keeps what was synced and nothing else for certain.
//!
//! Owns [`Disk`], which looks at a real folder whenever something happens to it, keeps every name and content since its last sync, and draws
//! from these what may be there after a cut ([`Disk::cut`]). It knows nothing of the store: what the code under test does is seen on the folder,
//! by whichever call it was done; only syncs must be told. The folder lies in memory (tmpfs), where an inode's number is never used again.
//!
//! Stricter than ext4 with its journal: half of the cuts keep the order in which names changed, as a journal does, the other half keep or lose
//! each name by itself. Content that was not synced is there, or an older one, or its beginning, or with blocks of zeros, or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File, Metadata, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::fault::Event;

/// Block within which content is torn.
const BLOCK: usize = 512;

/// Numbers from a seed: splitmix64.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// What an inode is, at one moment.
#[derive(Clone, Debug, PartialEq)]
enum Body {
    Folder,
    File(Vec<u8>),
    Link(PathBuf),
    Device(u64),
}

#[derive(Clone, Debug, PartialEq)]
struct Inode {
    body: Body,
    mode: u32,
    owner: (u32, u32),
    modified: SystemTime,
}

/// Something's values since its last sync, with the moments at which they came; the first may be on the disk already.
type Values<T> = Vec<(u64, T)>;

/// The folder as it is, and as it may be on the disk.
pub(crate) struct Disk {
    root: PathBuf,
    now: u64,
    inodes: BTreeMap<u64, Values<Inode>>,
    names: BTreeMap<u64, BTreeMap<OsString, Values<Option<u64>>>>,
}

impl Disk {
    /// Begins with everything on the disk.
    pub(crate) fn new(root: &Path) -> Self {
        let mut disk = Self {
            root: root.to_owned(),
            now: 0,
            inodes: BTreeMap::new(),
            names: BTreeMap::new(),
        };
        disk.look();
        disk.sync_all();
        disk
    }

    /// Takes in an event.
    pub(crate) fn tell(&mut self, event: Event<'_>) {
        self.look();
        match event {
            Event::Point => {}
            Event::AllSynced => self.sync_all(),
            Event::FileSynced(path) => {
                let number = fs::symlink_metadata(path).expect("it was synced").ino();
                self.inodes.get_mut(&number).map(keep_last);
            }
            Event::FolderSynced(path) => {
                let number = fs::symlink_metadata(path).expect("it was synced").ino();
                let names = self.names.get_mut(&number).expect("a folder that was seen");
                names.values_mut().for_each(keep_last);
                names.retain(|_, values| values[0].1.is_some());
                self.inodes.get_mut(&number).map(keep_last);
            }
        }
    }

    fn sync_all(&mut self) {
        self.inodes.values_mut().for_each(keep_last);
        for names in self.names.values_mut() {
            names.values_mut().for_each(keep_last);
            names.retain(|_, values| values[0].1.is_some());
        }
        let named: BTreeSet<u64> = self
            .names
            .values()
            .flat_map(|names| names.values().filter_map(|v| v[0].1))
            .collect();
        let root = fs::symlink_metadata(&self.root).expect("the root").ino();
        self.inodes
            .retain(|number, _| *number == root || named.contains(number));
        self.names
            .retain(|number, _| *number == root || named.contains(number));
    }

    /// Compares the folder with what was there at the last look.
    fn look(&mut self) {
        self.now += 1;
        let mut folders = vec![self.root.clone()];
        let root = fs::symlink_metadata(&self.root).expect("the root");
        self.see(&self.root.clone(), &root);
        while let Some(path) = folders.pop() {
            let number = fs::symlink_metadata(&path).expect("a folder").ino();
            let mut found = BTreeMap::new();
            for entry in fs::read_dir(&path).expect("a folder") {
                let entry = entry.expect("an entry");
                let meta = entry.metadata().expect("an entry");
                self.see(&entry.path(), &meta);
                if meta.is_dir() {
                    folders.push(entry.path());
                }
                found.insert(entry.file_name(), meta.ino());
            }
            let names = self.names.entry(number).or_default();
            for (name, values) in names.iter_mut() {
                let value = found.remove(name);
                change(values, self.now, value);
            }
            for (name, inode) in found {
                // A name that the disk does not have.
                names.insert(name, vec![(0, None), (self.now, Some(inode))]);
            }
        }
    }

    fn see(&mut self, path: &Path, meta: &Metadata) {
        let kind = meta.file_type();
        let body = if kind.is_dir() {
            Body::Folder
        } else if kind.is_file() {
            Body::File(fs::read(path).expect("a file"))
        } else if kind.is_symlink() {
            Body::Link(fs::read_link(path).expect("a link"))
        } else {
            assert!(kind.is_char_device(), "{} is something else", path.display());
            Body::Device(meta.rdev())
        };
        let inode = Inode {
            modified: match body {
                Body::File(_) => meta.modified().expect("a time"),
                _ => SystemTime::UNIX_EPOCH,
            },
            body,
            mode: meta.mode() & 0o7777,
            owner: (meta.uid(), meta.gid()),
        };
        match self.inodes.get_mut(&meta.ino()) {
            Some(values) => change(values, self.now, inode),
            None => {
                let mut empty = inode.clone();
                if let Body::File(content) = &mut empty.body {
                    content.clear();
                }
                self.inodes
                    .insert(meta.ino(), vec![(0, empty), (self.now, inode)]);
            }
        }
    }

    /// Puts into `to`, an empty folder, what a cut at this moment may leave.
    pub(crate) fn cut(&self, random: &mut Random, to: &Path) {
        let in_order = random.below(2) == 0;
        let mut oldest = self.now;
        for values in self.names.values().flat_map(BTreeMap::values) {
            if let Some((time, _)) = values.get(1) {
                oldest = oldest.min(*time);
            }
        }
        // In order: what changed up to a moment since the oldest change that is not synced.
        let until = oldest.saturating_sub(1) + random.next() % (self.now - oldest + 2);
        let root = fs::symlink_metadata(&self.root).expect("the root").ino();
        let chosen = self.choose(in_order.then_some(until), random);
        let mut placed: BTreeMap<u64, PathBuf> = BTreeMap::new();
        let mut left = vec![(root, to.to_owned())];
        while let Some((number, path)) = left.pop() {
            for (name, inode) in &chosen[&number] {
                let target = path.join(name);
                if let Some(other) = placed.get(inode) {
                    fs::hard_link(other, &target).expect("a link");
                    continue;
                }
                self.place(*inode, random, &target);
                if self.is_folder(*inode) {
                    left.push((*inode, target.clone()));
                }
                placed.insert(*inode, target);
            }
            set_mode(&path, self.last(number));
        }
    }

    /// Which names there are, by folder: each by itself, or all as of one moment.
    fn choose(&self, until: Option<u64>, random: &mut Random) -> BTreeMap<u64, BTreeMap<OsString, u64>> {
        let mut chosen: BTreeMap<u64, BTreeMap<OsString, u64>> = BTreeMap::new();
        // A folder has one name, on every file system: the later one.
        let mut folders: BTreeMap<u64, (u64, u64, OsString)> = BTreeMap::new();
        for (folder, names) in &self.names {
            let of_folder = chosen.entry(*folder).or_default();
            for (name, values) in names {
                let (time, inode) = match until {
                    Some(until) => {
                        let then = values.iter().rev().find(|(time, _)| *time <= until);
                        then.unwrap_or(&values[0])
                    }
                    None => &values[random.below(values.len())],
                };
                let Some(inode) = *inode else { continue };
                if self.is_folder(inode) {
                    let place = (*time, *folder, name.clone());
                    let known = folders.entry(inode).or_insert_with(|| place.clone());
                    *known = place.max(known.clone());
                } else {
                    of_folder.insert(name.clone(), inode);
                }
            }
        }
        for (inode, (_, folder, name)) in folders {
            chosen.entry(folder).or_default().insert(name, inode);
        }
        chosen
    }

    fn is_folder(&self, inode: u64) -> bool {
        matches!(self.last(inode).body, Body::Folder)
    }

    fn last(&self, inode: u64) -> &Inode {
        let values = &self.inodes[&inode];
        &values[values.len() - 1].1
    }

    fn place(&self, number: u64, random: &mut Random, target: &Path) {
        let values = &self.inodes[&number];
        let inode = &values[random.below(values.len())].1;
        match &inode.body {
            Body::Folder => fs::create_dir(target).expect("a folder"),
            Body::Link(to) => {
                symlink(to, target).expect("a link");
                return;
            }
            Body::Device(device) => {
                let kind = nix::sys::stat::SFlag::S_IFCHR;
                nix::sys::stat::mknod(target, kind, nix::sys::stat::Mode::empty(), *device)
                    .expect("a device");
            }
            Body::File(content) => {
                let content = if values.len() == 1 {
                    content.clone()
                } else {
                    torn(content.clone(), random)
                };
                fs::write(target, content).expect("a file");
            }
        }
        set_mode(target, inode);
        if matches!(inode.body, Body::File(_)) {
            let file = File::options().write(true).open(target).expect("a file");
            file.set_modified(inode.modified).expect("a time");
        }
    }
}

fn set_mode(target: &Path, inode: &Inode) {
    std::os::unix::fs::lchown(target, Some(inode.owner.0), Some(inode.owner.1)).expect("an owner");
    fs::set_permissions(target, Permissions::from_mode(inode.mode)).expect("a mode");
}

/// Content of which not all reached the disk.
fn torn(mut content: Vec<u8>, random: &mut Random) -> Vec<u8> {
    match random.below(5) {
        0 => content.truncate(random.below(content.len() + 1)),
        1 => {
            let block = random.below(content.len().div_ceil(BLOCK));
            content
                .iter_mut()
                .skip(block * BLOCK)
                .take(BLOCK)
                .for_each(|byte| *byte = 0);
        }
        2 => content.iter_mut().for_each(|byte| *byte = 0),
        3 => content.clear(),
        _ => {}
    }
    content
}

fn keep_last<T: Clone>(values: &mut Values<T>) {
    let last = values[values.len() - 1].clone();
    *values = vec![last];
}

fn change<T: PartialEq>(values: &mut Values<T>, now: u64, value: T) {
    if values.last().is_none_or(|(_, last)| *last != value) {
        values.push((now, value));
    }
}

/// The model itself: what is synced stays, what is not may go, and does.
#[test]
fn a_cut_keeps_what_was_synced_and_loses_the_rest_sometimes() {
    let Some(dir) = memory("a_cut_keeps_what_was_synced_and_loses_the_rest_sometimes") else {
        return;
    };
    let root = dir.path().join("live");
    fs::create_dir(&root).expect("a folder");
    fs::write(root.join("kept"), b"old").expect("a file");
    let mut disk = Disk::new(&root);
    fs::write(root.join("kept"), b"new").expect("a file");
    fs::write(root.join("fresh"), b"fresh").expect("a file");
    disk.tell(Event::Point);
    let outcomes = |disk: &Disk| {
        let mut seen = BTreeSet::new();
        for seed in 0..300 {
            let to = dir.path().join("cut");
            fs::create_dir(&to).expect("a folder");
            disk.cut(&mut Random(seed), &to);
            seen.insert((fs::read(to.join("kept")).ok(), fs::read(to.join("fresh")).ok()));
            fs::remove_dir_all(&to).expect("removed");
        }
        seen
    };
    let seen = outcomes(&disk);
    let has =
        |kept: &[u8], fresh: Option<&[u8]>| seen.contains(&(Some(kept.to_vec()), fresh.map(<[u8]>::to_vec)));
    assert!(has(b"old", None) && has(b"new", Some(b"fresh")) && has(b"", Some(b"")) && has(b"new", None));
    assert!(seen.iter().all(|(kept, _)| kept.is_some()), "its name was synced");
    disk.tell(Event::FileSynced(&root.join("fresh")));
    assert!(
        outcomes(&disk)
            .iter()
            .all(|(_, fresh)| fresh.as_deref().is_none_or(|text| text == b"fresh"))
    );
    disk.tell(Event::FolderSynced(&root));
    assert!(
        outcomes(&disk)
            .iter()
            .all(|(_, fresh)| fresh.as_deref() == Some(b"fresh"))
    );
    disk.tell(Event::AllSynced);
    assert_eq!(
        outcomes(&disk),
        BTreeSet::from([(Some(b"new".to_vec()), Some(b"fresh".to_vec()))])
    );
}

/// A folder in memory; says so where there is none.
pub(crate) fn memory(test: &str) -> Option<tempfile::TempDir> {
    let place = Path::new("/dev/shm");
    let is_memory = nix::sys::statfs::statfs(place)
        .is_ok_and(|found| found.filesystem_type() == nix::sys::statfs::TMPFS_MAGIC);
    if is_memory {
        return Some(tempfile::tempdir_in(place).expect("a folder"));
    }
    crate::required::leave_out("root", &format!("{test}: /dev/shm is no tmpfs"));
    None
}
