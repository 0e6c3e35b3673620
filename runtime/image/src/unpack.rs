//! One layer's tar becomes one folder, whatever the tar says.
//!
//! Owns the meaning of entries. Refuses to trust any name: every parent is opened by openat2(2) with the folder as root, every last
//! component is used with no link followed, and existing files are replaced, never written into. So neither symbolic links, hard links,
//! `..` nor absolute names reach outside; absolute names and links mean what they mean to a process inside, as in Docker.
//!
//! What becomes of special things:
//!
//! | in the tar | in the folder |
//! |---|---|
//! | `.wh.NAME` | character device 0:0 `NAME`, overlayfs' whiteout; a folder of that name in the same layer becomes opaque instead |
//! | `.wh..wh..opq` | `trusted.overlay.opaque=y` on its folder |
//! | other `.wh..wh.*` | nothing: bookkeeping of aufs |
//! | character device 0:0 | refused: it would be a whiteout that scanners of images do not see |
//! | other devices | left out and counted: a container gets its devices from its plan, and a device node under the store would be one on the host |
//! | `security.capability`, `user.*` attributes | kept, `user.overlay.*` excepted |
//! | other attributes | left out and counted: `trusted.overlay.*` would redirect overlayfs to files of its choice |
//! | set-user-ID and set-group-ID bits | kept; the policy decides at the start whether they mean anything |
//!
//! Invariant: nothing outside the folder changes, and limits hold while unpacking, not after.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use kakoi_sys::path::{open_beneath, open_in_root};
use kakoi_sys::xattr;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, fstatat, futimens, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};

use crate::limits::Limits;
use crate::recipe::{Orphan, Taping};
use kakoi_archive::tarball::{Entry, Kind, PATH_BYTES_MAX, Reader, TarError};

/// What overlayfs reads on a folder that hides everything below it.
const OPAQUE: &std::ffi::CStr = c"trusted.overlay.opaque";
/// What begins the name of a whiteout.
const WHITEOUT: &[u8] = b".wh.";
/// Longest file name.
const NAME_BYTES_MAX: usize = 255;
/// Most entries that replace a file or folder of the same layer: engines make none, `tar --append` a few.
const ORPHANS_MAX: u64 = 1 << 16;
/// Most links followed when a parent is looked up; the kernel's own number.
const LINKS_MAX: u32 = 40;

/// What unpacking a layer found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Entries in the tar.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// Device nodes left out.
    pub devices_left_out: u64,
    /// Extended attributes left out.
    pub xattrs_left_out: u64,
}

/// Why a layer is not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The tar itself.
    #[error("cannot read the layer")]
    Tar(#[source] TarError),
    /// An entry that means harm or nonsense.
    #[error("layer entry {path:?} is refused: {reason}")]
    Refused {
        /// The entry's name, shortened.
        path: String,
        /// Why.
        reason: &'static str,
    },
    /// A limit of [`Limits`].
    #[error("layer exceeds the limit of {limit} {unit}")]
    Limit {
        /// The limit.
        limit: u64,
        /// Of what.
        unit: &'static str,
    },
    /// A call that failed for one entry.
    #[error("cannot {action} layer entry {path:?}")]
    Entry {
        /// What was tried.
        action: &'static str,
        /// The entry's name, shortened.
        path: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl UnpackError {
    /// Whether the disk, or the user's share of it, is full.
    pub fn is_disk_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        match self {
            Self::Entry { source, .. } => matches!(source.kind(), StorageFull | QuotaExceeded),
            // The watch over the stream reports a full disk as a read that fails.
            Self::Tar(TarError::Read(source)) => source.kind() == StorageFull,
            _ => false,
        }
    }
}

/// Unpacks a layer into the empty folder `target`. `scratch` is a folder beside it, which holds what a later entry replaces: the caller removes
/// both. Tells too what was replaced, for the layer's recipe.
///
/// Needs root (owners, devices, `trusted.*`). What was done before an error stays in `target`.
pub(crate) fn unpack<R: Read>(
    layer: &mut Reader<Taping<R>>,
    target: &Path,
    scratch: &Path,
    limits: &Limits,
) -> Result<(Unpacked, Vec<Orphan>), UnpackError> {
    let root_failed = |source| UnpackError::Entry {
        action: "open the folder for",
        path: String::from("/"),
        source,
    };
    let root = File::open(target).map_err(root_failed)?;
    let mut unpacker = Unpacker {
        real_root: real_path(root.as_fd()).map_err(|errno| root_failed(errno.into()))?,
        orphans: Vec::new(),
        root,
        scratch,
        limits,
        parent: None,
        folder_times: HashMap::new(),
        folder_names_bytes: 0,
        report: Unpacked::default(),
    };
    while let Some(entry) = layer.next_entry().map_err(UnpackError::Tar)? {
        unpacker.entry(&entry, layer)?;
    }
    unpacker.finish()
}

struct Unpacker<'a> {
    root: File,
    /// Where it lies on the host.
    real_root: Vec<u8>,
    /// What entries replaced that came with bytes.
    orphans: Vec<Orphan>,
    scratch: &'a Path,
    limits: &'a Limits,
    /// The folder of the last entry: most entries share it with the one before. Forgotten whenever something is removed.
    parent: Option<(Vec<u8>, Rc<Parent>)>,
    /// Folders get their times at the end, since every new name in them changes the time.
    folder_times: HashMap<Vec<u8>, (i64, u32)>,
    folder_names_bytes: u64,
    report: Unpacked,
}

/// A folder of entries.
struct Parent {
    folder: OwnedFd,
    /// Its path from the layer's root with no link in it; `None` where that is longer than the kernel tells.
    path: Option<Vec<u8>>,
}

/// A place for an entry: its folder, and its name in there.
struct Place<'a> {
    folder: BorrowedFd<'a>,
    folder_path: Option<&'a [u8]>,
    name: &'a OsStr,
    entry: &'a Entry,
}

impl Place<'_> {
    /// Its path from the layer's root with no link in it, where a recipe can name it.
    fn path(&self) -> Option<Vec<u8>> {
        let mut path = self.folder_path?.to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(self.name.as_bytes());
        (path.len() <= PATH_BYTES_MAX).then_some(path)
    }
}

impl Unpacker<'_> {
    fn entry<R: Read>(&mut self, entry: &Entry, layer: &mut Reader<Taping<R>>) -> Result<(), UnpackError> {
        self.report.entries += 1;
        within(self.report.entries, self.limits.layer_entries_max, "entries")?;
        let parts = clean(&entry.path).ok_or_else(|| refused(entry, "it leads out of the root"))?;
        let Some((name, folder)) = parts.split_last() else {
            return self.root_entry(entry);
        };
        if parts.iter().any(|part| part.len() > NAME_BYTES_MAX) {
            return Err(refused(entry, "a name is longer than 255 bytes"));
        }
        if folder.iter().any(|part| part.starts_with(WHITEOUT)) {
            return Err(refused(entry, "it lies in a folder named like a whiteout"));
        }
        let parent = self.parent(folder, entry)?;
        let place = Place {
            folder: parent.folder.as_fd(),
            folder_path: parent.path.as_deref(),
            name: OsStr::from_bytes(name),
            entry,
        };
        match name.strip_prefix(WHITEOUT) {
            Some(b".wh..opq") => self.set_opaque(place.folder, entry),
            Some(meta) if meta.starts_with(WHITEOUT) => Ok(()),
            Some(b"" | b"." | b"..") => Err(refused(entry, "it is a whiteout of nothing")),
            Some(hidden) => self.whiteout(&Place {
                name: OsStr::from_bytes(hidden),
                ..place
            }),
            None => self.put(&place, &parts, layer),
        }
    }

    /// The root itself: only owner, mode, times and attributes.
    fn root_entry(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        if entry.kind != Kind::Directory {
            return Err(refused(entry, "it would replace the root"));
        }
        let root = self
            .root
            .try_clone()
            .map_err(|source| failed(entry, "open", source))?;
        self.set_metadata(root.as_fd(), entry)?;
        self.folder_times.insert(Vec::new(), entry.mtime);
        Ok(())
    }

    fn put<R: Read>(
        &mut self,
        place: &Place<'_>,
        parts: &[&[u8]],
        layer: &mut Reader<Taping<R>>,
    ) -> Result<(), UnpackError> {
        let entry = place.entry;
        let bodies = layer.inner().bodies();
        match entry.kind {
            Kind::Directory => self.directory(place, parts, bodies),
            Kind::File => self.file(place, layer),
            Kind::Symlink => self.symlink(place, bodies),
            Kind::HardLink => self.hard_link(place, bodies),
            Kind::Fifo => {
                self.make_way(place, bodies)?;
                mknodat(
                    Some(place.folder.as_raw_fd()),
                    place.name,
                    SFlag::S_IFIFO,
                    Mode::empty(),
                    0,
                )
                .map_err(|errno| failed(entry, "make pipe for", errno))?;
                self.set_metadata_by_name(place)
            }
            Kind::Device {
                block: false,
                major: 0,
                minor: 0,
            } => Err(refused(entry, "a device 0:0 would be a whiteout")),
            Kind::Device { .. } => {
                self.report.devices_left_out += 1;
                Ok(())
            }
        }
    }

    fn directory(&mut self, place: &Place<'_>, parts: &[&[u8]], bodies: u64) -> Result<(), UnpackError> {
        let entry = place.entry;
        let mut hides = false;
        match self.existing(place)? {
            Some(SFlag::S_IFDIR) => {}
            found => {
                hides = found.is_some() && self.is_whiteout(place);
                self.make_way(place, bodies)?;
                mkdirat(Some(place.folder.as_raw_fd()), place.name, Mode::S_IRWXU)
                    .map_err(|errno| failed(entry, "make folder for", errno))?;
            }
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        let folder = open_beneath(place.folder, Path::new(place.name), flags, 0)
            .map_err(|error| failed(entry, "open", error.errno))?;
        if hides {
            // The whiteout that stood here hid the folder of a lower layer, and its content must stay hidden.
            self.set_opaque(folder.as_fd(), entry)?;
        }
        self.set_metadata(folder.as_fd(), entry)?;
        let path = parts.join(&b'/');
        self.folder_names_bytes += path.len() as u64;
        within(
            self.folder_names_bytes,
            self.limits.folder_names_bytes_max,
            "bytes of folder names",
        )?;
        self.folder_times.insert(path, entry.mtime);
        Ok(())
    }

    fn file<R: Read>(&mut self, place: &Place<'_>, layer: &mut Reader<Taping<R>>) -> Result<(), UnpackError> {
        let entry = place.entry;
        // A hole takes no disk, but a copy of the file would: the whole size counts.
        self.report.bytes = self.report.bytes.saturating_add(entry.size);
        within(self.report.bytes, self.limits.layer_bytes_max, "bytes")?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        let create = || open_beneath(place.folder, Path::new(place.name), flags, 0o600);
        // Hardly ever does something stand there: it is looked for only then.
        let file = match create() {
            Err(error) if error.errno == Errno::EEXIST => {
                self.make_way(place, layer.inner().bodies())?;
                create()
            }
            done => done,
        };
        let mut file = File::from(file.map_err(|error| failed(entry, "create", error.errno))?);
        copy_body(entry, place.path().as_deref(), layer, &mut file)?;
        self.set_metadata(file.as_fd(), entry)?;
        let time = time_spec(entry.mtime);
        futimens(file.as_raw_fd(), &time, &time).map_err(|errno| failed(entry, "set time of", errno))
    }

    fn symlink(&mut self, place: &Place<'_>, bodies: u64) -> Result<(), UnpackError> {
        let entry = place.entry;
        if entry.link.is_empty() {
            return Err(refused(entry, "it is a link to nothing"));
        }
        self.make_way(place, bodies)?;
        symlinkat(
            OsStr::from_bytes(&entry.link),
            Some(place.folder.as_raw_fd()),
            place.name,
        )
        .map_err(|errno| failed(entry, "make link for", errno))?;
        self.set_metadata_by_name(place)
    }

    fn hard_link(&mut self, place: &Place<'_>, bodies: u64) -> Result<(), UnpackError> {
        let entry = place.entry;
        let parts = clean(&entry.link).ok_or_else(|| refused(entry, "its target leads out of the root"))?;
        let Some((name, folder)) = parts.split_last() else {
            return Err(refused(entry, "its target is the root"));
        };
        let name = OsStr::from_bytes(name);
        let source = open_in_root(
            self.root.as_fd(),
            &joined(folder),
            OFlag::O_PATH | OFlag::O_DIRECTORY,
            0,
        )
        .map_err(|error| failed(entry, "find the target of", error.errno))?;
        let source_fd = Some(source.as_raw_fd());
        let found = fstatat(source_fd, name, AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(|errno| failed(entry, "find the target of", errno))?;
        match kind_of(found.st_mode) {
            SFlag::S_IFREG | SFlag::S_IFLNK | SFlag::S_IFIFO => {}
            // Besides folders this is a whiteout, which must not get a second name.
            _ => return Err(refused(entry, "its target is no file")),
        }
        match fstatat(
            Some(place.folder.as_raw_fd()),
            place.name,
            AtFlags::AT_SYMLINK_NOFOLLOW,
        ) {
            // Linked to itself: removing it first would lose it.
            Ok(there) if (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino) => return Ok(()),
            Ok(_) => self.make_way(place, bodies)?,
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(failed(entry, "look at", errno)),
        }
        linkat(
            source_fd,
            name,
            Some(place.folder.as_raw_fd()),
            place.name,
            AtFlags::empty(),
        )
        .map_err(|errno| failed(entry, "link", errno))
    }

    /// Hides a name of lower layers. What this layer itself has by that name stays (image-spec, layer.md: whiteouts apply to lower layers
    /// only); a folder then hides what lower layers have in theirs.
    fn whiteout(&mut self, place: &Place<'_>) -> Result<(), UnpackError> {
        let entry = place.entry;
        match self.existing(place)? {
            Some(SFlag::S_IFDIR) => {
                let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
                let folder = open_beneath(place.folder, Path::new(place.name), flags, 0)
                    .map_err(|error| failed(entry, "open", error.errno))?;
                self.set_opaque(folder.as_fd(), entry)
            }
            Some(_) => Ok(()),
            None => mknodat(
                Some(place.folder.as_raw_fd()),
                place.name,
                SFlag::S_IFCHR,
                Mode::empty(),
                0,
            )
            .map_err(|errno| failed(entry, "make whiteout for", errno)),
        }
    }

    fn set_opaque(&self, folder: BorrowedFd<'_>, entry: &Entry) -> Result<(), UnpackError> {
        xattr::set(folder, OPAQUE, b"y").map_err(|error| failed(entry, "hide what lies below", error.errno))
    }

    /// Removes what stands in an entry's place. Files, and folders with what is in them, are put aside: the recipe needs the bytes that came.
    fn make_way(&mut self, place: &Place<'_>, bodies: u64) -> Result<(), UnpackError> {
        let entry = place.entry;
        match self.existing(place)? {
            None => return Ok(()),
            // A folder leaves the tree whole: removing it by a path within would follow whatever the path leads through.
            Some(SFlag::S_IFDIR | SFlag::S_IFREG) => {
                let number = self.orphans.len();
                within(
                    number as u64 + 1,
                    ORPHANS_MAX,
                    "entries that replace others of the same layer",
                )?;
                let path = place
                    .path()
                    .ok_or_else(|| refused(entry, "it replaces another whose path is too long"))?;
                let aside = self.scratch.join(format!("replaced-{number}"));
                nix::fcntl::renameat(Some(place.folder.as_raw_fd()), place.name, None, &aside)
                    .map_err(|errno| failed(entry, "replace", errno))?;
                self.orphans.push(Orphan { path, bodies, aside });
            }
            Some(_) => unlinkat(
                Some(place.folder.as_raw_fd()),
                place.name,
                UnlinkatFlags::NoRemoveDir,
            )
            .map_err(|errno| failed(entry, "replace", errno))?,
        }
        // The folder of the last entry may have been what was removed, or reached through it.
        self.parent = None;
        Ok(())
    }

    fn existing(&self, place: &Place<'_>) -> Result<Option<SFlag>, UnpackError> {
        match fstatat(
            Some(place.folder.as_raw_fd()),
            place.name,
            AtFlags::AT_SYMLINK_NOFOLLOW,
        ) {
            Ok(found) => Ok(Some(kind_of(found.st_mode))),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(failed(place.entry, "look at", errno)),
        }
    }

    fn is_whiteout(&self, place: &Place<'_>) -> bool {
        fstatat(
            Some(place.folder.as_raw_fd()),
            place.name,
            AtFlags::AT_SYMLINK_NOFOLLOW,
        )
        .is_ok_and(|found| kind_of(found.st_mode) == SFlag::S_IFCHR && found.st_rdev == 0)
    }

    /// Opens the folder an entry lies in, as a process inside would find it, and makes what is missing of it.
    fn parent(&mut self, folder: &[&[u8]], entry: &Entry) -> Result<Rc<Parent>, UnpackError> {
        let key = folder.join(&b'/');
        if let Some((path, parent)) = &self.parent
            && *path == key
        {
            return Ok(Rc::clone(parent));
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let fd = match open_in_root(self.root.as_fd(), &joined(folder), flags, 0) {
            Ok(fd) => fd,
            Err(error) if error.errno == Errno::ENOENT => self.make_parents(folder, entry)?,
            Err(error) => return Err(failed(entry, "open the folder of", error.errno)),
        };
        let path = match real_path(fd.as_fd()) {
            Ok(path) => self.below_root(path),
            Err(Errno::ENAMETOOLONG) => None,
            Err(errno) => return Err(failed(entry, "find the folder of", errno)),
        };
        let parent = Rc::new(Parent { folder: fd, path });
        self.parent = Some((key, Rc::clone(&parent)));
        Ok(parent)
    }

    fn below_root(&self, path: Vec<u8>) -> Option<Vec<u8>> {
        match path.strip_prefix(self.real_root.as_slice())? {
            [] => Some(Vec::new()),
            [b'/', rest @ ..] => Some(rest.to_vec()),
            _ => None,
        }
    }

    /// Walks to a folder part by part, following links by their text, and makes each part that is missing.
    fn make_parents(&mut self, folder: &[&[u8]], entry: &Entry) -> Result<OwnedFd, UnpackError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let open = |real: &[Vec<u8>]| {
            open_beneath(self.root.as_fd(), &joined(real), flags, 0)
                .map_err(|error| failed(entry, "open the folder of", error.errno))
        };
        let mut pending: Vec<Vec<u8>> = folder.iter().rev().map(|part| part.to_vec()).collect();
        let mut real: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        let mut made = 0;
        while let Some(part) = pending.pop() {
            match part.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    real.pop();
                    continue;
                }
                _ => {}
            }
            let here = open(&real)?;
            let name = OsStr::from_bytes(&part);
            match fstatat(Some(here.as_raw_fd()), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(found) if kind_of(found.st_mode) == SFlag::S_IFLNK => {
                    links += 1;
                    let target = readlinkat(Some(here.as_raw_fd()), name)
                        .map_err(|errno| failed(entry, "read a link on the way to", errno))?;
                    let target = target.as_bytes();
                    if links > LINKS_MAX || pending.len() + target.len() > 2 * PATH_BYTES_MAX {
                        return Err(failed(entry, "open the folder of", Errno::ELOOP));
                    }
                    if target.first() == Some(&b'/') {
                        real.clear();
                    }
                    pending.extend(target.split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
                }
                // What is no folder is reported by the open that follows.
                Ok(_) => real.push(part),
                Err(Errno::ENOENT) => {
                    if part.starts_with(WHITEOUT) || part.len() > NAME_BYTES_MAX {
                        return Err(refused(entry, "a folder on the way has a bad name"));
                    }
                    made += 1;
                    mkdirat(Some(here.as_raw_fd()), name, Mode::from_bits_truncate(0o755))
                        .map_err(|errno| failed(entry, "make the folder of", errno))?;
                    real.push(part);
                }
                Err(errno) => return Err(failed(entry, "look at the folder of", errno)),
            }
        }
        let opened = open(&real)?;
        // One entry can ask for two thousand folders; they count like entries.
        self.report.entries += made;
        within(self.report.entries, self.limits.layer_entries_max, "entries")?;
        Ok(opened)
    }

    /// Owner, then mode (a change of owner clears set-user-ID bits), then attributes (it also clears capabilities).
    fn set_metadata(&mut self, file: BorrowedFd<'_>, entry: &Entry) -> Result<(), UnpackError> {
        nix::unistd::fchown(
            file.as_raw_fd(),
            Some(Uid::from_raw(entry.uid)),
            Some(Gid::from_raw(entry.gid)),
        )
        .map_err(|errno| failed(entry, "set owner of", errno))?;
        nix::sys::stat::fchmod(file.as_raw_fd(), Mode::from_bits_truncate(entry.mode))
            .map_err(|errno| failed(entry, "set mode of", errno))?;
        for (name, value) in &entry.xattrs {
            if !is_kept(name) {
                self.report.xattrs_left_out += 1;
                continue;
            }
            let name =
                CString::new(name.as_slice()).map_err(|_| refused(entry, "an attribute's name has a NUL"))?;
            xattr::set(file, &name, value)
                .map_err(|error| failed(entry, "set attributes of", error.errno))?;
        }
        Ok(())
    }

    /// The same for what cannot be opened: links and pipes.
    fn set_metadata_by_name(&mut self, place: &Place<'_>) -> Result<(), UnpackError> {
        let entry = place.entry;
        let folder = Some(place.folder.as_raw_fd());
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        fchownat(
            folder,
            place.name,
            Some(uid),
            Some(gid),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        )
        .map_err(|errno| failed(entry, "set owner of", errno))?;
        if entry.kind == Kind::Fifo {
            // It was just made as a pipe in a folder that nobody else writes to, so there is no link to follow.
            let mode = Mode::from_bits_truncate(entry.mode);
            fchmodat(folder, place.name, mode, FchmodatFlags::FollowSymlink)
                .map_err(|errno| failed(entry, "set mode of", errno))?;
        }
        self.report.xattrs_left_out += entry.xattrs.len() as u64;
        let time = time_spec(entry.mtime);
        utimensat(folder, place.name, &time, &time, UtimensatFlags::NoFollowSymlink)
            .map_err(|errno| failed(entry, "set time of", errno))
    }

    /// Sets the times of folders. One that was replaced since is passed over.
    fn finish(self) -> Result<(Unpacked, Vec<Orphan>), UnpackError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        for (path, mtime) in &self.folder_times {
            let part: &[u8] = if path.is_empty() { b"." } else { path };
            let Ok(folder) = open_in_root(self.root.as_fd(), Path::new(OsStr::from_bytes(part)), flags, 0)
            else {
                continue;
            };
            let time = time_spec(*mtime);
            futimens(folder.as_raw_fd(), &time, &time).map_err(|errno| UnpackError::Entry {
                action: "set time of",
                path: shown(path),
                source: errno.into(),
            })?;
        }
        Ok((self.report, self.orphans))
    }
}

/// Where an open folder lies.
fn real_path(folder: BorrowedFd<'_>) -> nix::Result<Vec<u8>> {
    let link = format!("/proc/self/fd/{}", folder.as_raw_fd());
    nix::fcntl::readlink(link.as_str()).map(|path| path.into_vec())
}

/// Copies an entry's data into its new file; the recipe names it by `path`, or takes the data in where there is none. Reading and writing fail
/// with errors of their own.
fn copy_body<R: Read>(
    entry: &Entry,
    path: Option<&[u8]>,
    layer: &mut Reader<Taping<R>>,
    file: &mut File,
) -> Result<(), UnpackError> {
    let whole = [(0, entry.size)];
    let fragments = match &entry.sparse {
        Some(map) => map.fragments(),
        None => &whole,
    };
    let writing = |source| failed(entry, "write", source);
    for (offset, length) in fragments.iter().filter(|(_, length)| *length > 0) {
        if *offset > 0 {
            file.seek(SeekFrom::Start(*offset)).map_err(writing)?;
        }
        if let Some(path) = path {
            layer
                .inner()
                .begin_body(path, *offset, *length)
                .map_err(writing)?;
        }
        let copied = copy_part(entry, *length, layer, file);
        layer.inner().end_body();
        copied?;
    }
    match &entry.sparse {
        Some(map) => file.set_len(map.size()).map_err(writing),
        None => Ok(()),
    }
}

fn copy_part(
    entry: &Entry,
    mut left: u64,
    layer: &mut impl Read,
    file: &mut File,
) -> Result<(), UnpackError> {
    let mut buffer = [0u8; 32 * 1024];
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        match layer.read(&mut buffer[..want]) {
            Ok(0) => return Err(UnpackError::Tar(TarError::Truncated)),
            Ok(count) => {
                file.write_all(&buffer[..count])
                    .map_err(|source| failed(entry, "write", source))?;
                left -= count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(UnpackError::Tar(TarError::Read(error))),
        }
    }
    Ok(())
}

/// Attributes that mean in a container what they meant where the layer was made, and nothing to overlayfs.
fn is_kept(name: &[u8]) -> bool {
    name == b"security.capability" || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

/// Splits a name into parts by its text alone, as Docker does; `None` where `..` leads above the root.
fn clean(path: &[u8]) -> Option<Vec<&[u8]>> {
    let mut parts = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts)
}

/// A relative path of parts; the root itself is `.`.
fn joined<P: AsRef<[u8]>>(parts: &[P]) -> PathBuf {
    if parts.is_empty() {
        return PathBuf::from(".");
    }
    parts
        .iter()
        .map(|part| OsStr::from_bytes(part.as_ref()))
        .collect()
}

fn kind_of(mode: nix::libc::mode_t) -> SFlag {
    SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits())
}

fn time_spec((seconds, nanoseconds): (i64, u32)) -> TimeSpec {
    TimeSpec::new(seconds, i64::from(nanoseconds))
}

fn within(value: u64, limit: u64, unit: &'static str) -> Result<(), UnpackError> {
    if value > limit {
        Err(UnpackError::Limit { limit, unit })
    } else {
        Ok(())
    }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).chars().take(200).collect()
}

fn refused(entry: &Entry, reason: &'static str) -> UnpackError {
    UnpackError::Refused {
        path: shown(&entry.path),
        reason,
    }
}

fn failed(entry: &Entry, action: &'static str, source: impl Into<io::Error>) -> UnpackError {
    UnpackError::Entry {
        action,
        path: shown(&entry.path),
        source: source.into(),
    }
}
