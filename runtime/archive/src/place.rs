//! From a tar into a tree that is there already: `docker cp`.
//!
//! Owns what an entry does to what it meets: folders merge, everything else is removed and made anew, never written into, so that nothing of the
//! archive goes through a link or a second name. Devices are left out, as from layers. Invariant: nothing outside the root changes, whatever names
//! and links the archive has and whoever changes the tree meanwhile.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use kakoi_sys::path::{open_beneath, open_in_root};
use kakoi_sys::xattr;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, futimens, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, unlinkat};

use crate::entries::{DEPTH_MAX, Ids, TreeError, kept_xattr, kind_of, look, names, open_folder, os, shown};
use crate::tarball::{Entry, Kind, Reader, TarError};

/// Folders whose times are set at the end, since each new name in them changes the time; further ones keep the time of their last name.
const FOLDER_TIMES_MAX: usize = 1 << 16;

/// How an archive is put into a tree.
pub struct Placing<'a> {
    /// Whether a folder may be replaced by something else, and the other way round.
    pub replaces_kinds: bool,
    /// What the first part of every name becomes: a copy under another name.
    pub named: Option<&'a [u8]>,
    /// Who gets everything, as the disk has it; else owners are the archive's.
    pub owner: Option<(u32, u32)>,
    /// How owners of the archive become those of the disk.
    pub ids: Ids<'a>,
}

/// Why an archive is not put into a tree. What came before the entry that failed stays.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The archive.
    #[error("cannot read the archive")]
    Tar(#[source] TarError),
    /// An entry that leads out of the folder.
    #[error("entry {path} is refused: it leads out of the folder")]
    Escape {
        /// Its name.
        path: String,
    },
    /// A folder in the way of something else.
    #[error("cannot overwrite directory \"{path}\" with non-directory")]
    Folder {
        /// Its path.
        path: String,
    },
    /// Something else in the way of a folder.
    #[error("cannot overwrite non-directory \"{path}\" with directory")]
    NotFolder {
        /// Its path.
        path: String,
    },
    /// Something about one entry.
    #[error("cannot {action} {path}")]
    Entry {
        /// What was tried.
        action: &'static str,
        /// Its name, shortened.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is in the way cannot be removed.
    #[error(transparent)]
    Remove(#[from] TreeError),
}

fn failed(entry: &Entry, action: &'static str, source: impl Into<io::Error>) -> PlaceError {
    PlaceError::Entry {
        action,
        path: shown(&entry.path),
        source: source.into(),
    }
}

/// Puts an archive into the folder `base` of the tree: a path from the root with no link in it. That folder itself stays what it is; what the archive says
/// of it is given back, for [`set_folder`].
pub fn place<R: Read>(
    root: BorrowedFd<'_>,
    base: &Path,
    archive: &mut Reader<R>,
    placing: &Placing<'_>,
) -> Result<Option<Entry>, PlaceError> {
    let mut own = None;
    let mut placer = Placer {
        root,
        base,
        placing,
        parent: None,
        times: HashMap::new(),
    };
    while let Some(entry) = archive.next_entry().map_err(PlaceError::Tar)? {
        if entry.kind == Kind::Directory && parts(&entry.path).is_some_and(|parts| parts.is_empty()) {
            own = Some(entry);
            continue;
        }
        placer.entry(&entry, archive)?;
    }
    placer.finish();
    Ok(own)
}

/// Makes an open folder what an archive says of it: owner, mode, attributes, time.
pub fn set_folder(folder: BorrowedFd<'_>, entry: &Entry, placing: &Placing<'_>) -> Result<(), PlaceError> {
    finish_open(placing, entry, folder)?;
    let time = time_of(entry.mtime);
    futimens(folder.as_raw_fd(), &time, &time).map_err(|errno| failed(entry, "set time of", errno))
}

struct Placer<'a> {
    root: BorrowedFd<'a>,
    base: &'a Path,
    placing: &'a Placing<'a>,
    /// The folder of the last entry; forgotten whenever something is removed.
    parent: Option<(PathBuf, Rc<OwnedFd>)>,
    times: HashMap<PathBuf, (i64, u32)>,
}

impl<'a> Placer<'a> {
    /// A name's parts, the first of them as it is to be.
    fn parts<'n>(&self, name: &'n [u8]) -> Option<Vec<&'n [u8]>>
    where
        'a: 'n,
    {
        let mut parts = parts(name)?;
        if let (Some(named), Some(first)) = (self.placing.named, parts.first_mut()) {
            *first = named;
        }
        Some(parts)
    }

    fn entry<R: Read>(&mut self, entry: &Entry, archive: &mut Reader<R>) -> Result<(), PlaceError> {
        let parts = self.parts(&entry.path).ok_or_else(|| escape(&entry.path))?;
        let Some((name, above)) = parts.split_last() else {
            // The folder itself: what it is stays.
            return Ok(());
        };
        let parent = self.parent(entry, above)?;
        let folder = parent.as_fd();
        self.make_way(entry, folder, name)?;
        match entry.kind {
            Kind::Directory => self.folder(entry, folder, name, &parts),
            Kind::File => self.file(entry, folder, name, archive),
            Kind::Symlink => {
                symlinkat(os(&entry.link), Some(folder.as_raw_fd()), os(name))
                    .map_err(|errno| failed(entry, "make link", errno))?;
                self.finish_by_name(entry, folder, name)
            }
            Kind::HardLink => self.hard_link(entry, folder, name),
            Kind::Fifo => {
                mknodat(
                    Some(folder.as_raw_fd()),
                    os(name),
                    SFlag::S_IFIFO,
                    Mode::empty(),
                    0,
                )
                .map_err(|errno| failed(entry, "make pipe", errno))?;
                self.finish_by_name(entry, folder, name)
            }
            Kind::Device { .. } => Ok(()),
        }
    }

    /// Opens the folder of an entry as a process inside would, and makes what is missing of it, for the root inside.
    fn parent(&mut self, entry: &Entry, above: &[&[u8]]) -> Result<Rc<OwnedFd>, PlaceError> {
        let mut path: PathBuf = self.base.to_owned();
        path.extend(above.iter().map(|part| os(part)));
        if let Some((known, folder)) = &self.parent
            && *known == path
        {
            return Ok(folder.clone());
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let open = |path: &Path| open_in_root(self.root, path, flags, 0).map_err(|error| error.errno);
        let folder = match open(&path) {
            Ok(folder) => folder,
            Err(Errno::ENOENT) => {
                let mut path: PathBuf = self.base.to_owned();
                let mut folder = open(&path).map_err(|errno| failed(entry, "open the folder of", errno))?;
                for part in above {
                    path.push(os(part));
                    folder = match open(&path) {
                        Ok(below) => below,
                        Err(Errno::ENOENT) => self
                            .make_parent(folder.as_fd(), part)
                            .map_err(|cause| failed(entry, "make the folder of", cause))?,
                        Err(errno) => return Err(failed(entry, "open the folder of", errno)),
                    };
                }
                folder
            }
            Err(errno) => return Err(failed(entry, "open the folder of", errno)),
        };
        let folder = Rc::new(folder);
        self.parent = Some((path, folder.clone()));
        Ok(folder)
    }

    fn make_parent(&self, folder: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
        mkdirat(
            Some(folder.as_raw_fd()),
            os(name),
            Mode::from_bits_truncate(0o755),
        )?;
        let made = open_folder(folder, os(name))?;
        let (uid, gid) = self.placing.owner.unwrap_or_else(|| (self.placing.ids)(0, 0));
        fchown(
            made.as_raw_fd(),
            Some(Uid::from_raw(uid)),
            Some(Gid::from_raw(gid)),
        )?;
        // The mask has cut the mode.
        fchmod(made.as_raw_fd(), Mode::from_bits_truncate(0o755))?;
        Ok(made)
    }

    /// Removes what is in an entry's place, but for a folder that a folder meets.
    fn make_way(&mut self, entry: &Entry, folder: BorrowedFd<'_>, name: &[u8]) -> Result<(), PlaceError> {
        let found = look(folder, os(name)).map_err(|cause| failed(entry, "look at", cause))?;
        let Some(found) = found else { return Ok(()) };
        let is_folder = kind_of(&found) == SFlag::S_IFDIR;
        let will_be = entry.kind == Kind::Directory;
        let path = || shown(&entry.path);
        match (is_folder, will_be) {
            (true, true) => return Ok(()),
            (true, false) if !self.placing.replaces_kinds => return Err(PlaceError::Folder { path: path() }),
            (false, true) if !self.placing.replaces_kinds => {
                return Err(PlaceError::NotFolder { path: path() });
            }
            _ => {}
        }
        // A device is not made, so nothing makes way for it.
        if matches!(entry.kind, Kind::Device { .. }) {
            return Ok(());
        }
        self.parent = None;
        remove(folder, name, &entry.path, is_folder, 0)?;
        Ok(())
    }

    fn folder(
        &mut self,
        entry: &Entry,
        folder: BorrowedFd<'_>,
        name: &[u8],
        parts: &[&[u8]],
    ) -> Result<(), PlaceError> {
        match mkdirat(Some(folder.as_raw_fd()), os(name), Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(failed(entry, "make folder", errno)),
        }
        let made = open_folder(folder, os(name)).map_err(|cause| failed(entry, "open", cause))?;
        finish_open(self.placing, entry, made.as_fd())?;
        if self.times.len() < FOLDER_TIMES_MAX {
            let mut path: PathBuf = self.base.to_owned();
            path.extend(parts.iter().map(|part| os(part)));
            self.times.insert(path, entry.mtime);
        }
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        entry: &Entry,
        folder: BorrowedFd<'_>,
        name: &[u8],
        archive: &mut Reader<R>,
    ) -> Result<(), PlaceError> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        let opened = open_beneath(folder, Path::new(os(name)), flags, 0o600)
            .map_err(|error| failed(entry, "make", error.errno))?;
        let mut file = File::from(opened);
        let whole = [(0, entry.size)];
        let fragments = entry.sparse.as_ref().map_or(&whole[..], |map| map.fragments());
        for (offset, length) in fragments.iter().filter(|(_, length)| *length > 0) {
            if *offset > 0 {
                file.seek(SeekFrom::Start(*offset))
                    .map_err(|cause| failed(entry, "write", cause))?;
            }
            copy(entry, *length, archive, &mut file)?;
        }
        if let Some(map) = &entry.sparse {
            file.set_len(map.size())
                .map_err(|cause| failed(entry, "write", cause))?;
        }
        finish_open(self.placing, entry, file.as_fd())?;
        let time = time_of(entry.mtime);
        futimens(file.as_raw_fd(), &time, &time).map_err(|errno| failed(entry, "set time of", errno))
    }

    fn hard_link(&mut self, entry: &Entry, folder: BorrowedFd<'_>, name: &[u8]) -> Result<(), PlaceError> {
        let parts = self.parts(&entry.link).ok_or_else(|| escape(&entry.path))?;
        let Some((target, above)) = parts.split_last() else {
            return Err(escape(&entry.path));
        };
        let mut path: PathBuf = self.base.to_owned();
        path.extend(above.iter().map(|part| os(part)));
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let from = open_in_root(self.root, &path, flags, 0)
            .map_err(|error| failed(entry, "find the file that is linked by", error.errno))?;
        linkat(
            Some(from.as_raw_fd()),
            os(target),
            Some(folder.as_raw_fd()),
            os(name),
            AtFlags::empty(),
        )
        .map_err(|errno| failed(entry, "link", errno))
    }

    /// The same for what cannot be opened: links and pipes.
    fn finish_by_name(&self, entry: &Entry, folder: BorrowedFd<'_>, name: &[u8]) -> Result<(), PlaceError> {
        let (uid, gid) = owner_of(self.placing, entry);
        let at = Some(folder.as_raw_fd());
        fchownat(at, os(name), Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(|errno| failed(entry, "set owner of", errno))?;
        if entry.kind == Kind::Fifo {
            // It was just made with no right for anybody; somebody who has put a link in its place since leads this to a file inside, of which the
            // kernel asks nothing but that it is ours to change: within the root that is all there is.
            let mode = Mode::from_bits_truncate(entry.mode & 0o777);
            fchmodat(at, os(name), mode, FchmodatFlags::NoFollowSymlink)
                .or_else(|errno| match errno {
                    // Before Linux 6.6 a mode cannot be set without following.
                    Errno::EOPNOTSUPP => fchmodat(at, os(name), mode, FchmodatFlags::FollowSymlink),
                    errno => Err(errno),
                })
                .map_err(|errno| failed(entry, "set mode of", errno))?;
        }
        let time = time_of(entry.mtime);
        utimensat(at, os(name), &time, &time, UtimensatFlags::NoFollowSymlink)
            .map_err(|errno| failed(entry, "set time of", errno))
    }

    /// Sets the times of folders. One that is gone or replaced since is passed over.
    fn finish(self) {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        for (path, mtime) in &self.times {
            if let Ok(folder) = open_in_root(self.root, path, flags, 0) {
                let time = time_of(*mtime);
                futimens(folder.as_raw_fd(), &time, &time).ok();
            }
        }
    }
}

fn owner_of(placing: &Placing<'_>, entry: &Entry) -> (Uid, Gid) {
    let own = || (placing.ids)(entry.uid, entry.gid);
    let (uid, gid) = placing.owner.unwrap_or_else(own);
    (Uid::from_raw(uid), Gid::from_raw(gid))
}

/// Owner, then mode (a change of owner clears set-user-ID bits), then attributes (it also clears capabilities).
fn finish_open(placing: &Placing<'_>, entry: &Entry, file: BorrowedFd<'_>) -> Result<(), PlaceError> {
    let (uid, gid) = owner_of(placing, entry);
    fchown(file.as_raw_fd(), Some(uid), Some(gid)).map_err(|errno| failed(entry, "set owner of", errno))?;
    fchmod(file.as_raw_fd(), Mode::from_bits_truncate(entry.mode))
        .map_err(|errno| failed(entry, "set mode of", errno))?;
    for (name, value) in &entry.xattrs {
        let Some(name) = kept_xattr(name) else { continue };
        match xattr::set(file, &name, value) {
            // A volume's file system may have none.
            Ok(()) => {}
            Err(error) if error.errno == Errno::EOPNOTSUPP => {}
            Err(error) => return Err(failed(entry, "set attributes of", error.errno)),
        }
    }
    Ok(())
}

/// Removes a name, and what is below it, following nothing.
pub(crate) fn remove(
    folder: BorrowedFd<'_>,
    name: &[u8],
    path: &[u8],
    is_folder: bool,
    depth: usize,
) -> Result<(), TreeError> {
    if depth > DEPTH_MAX {
        return Err(TreeError::TooDeep { path: shown(path) });
    }
    let gone = |cause: io::Error| match cause.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(crate::entries::failed("remove", path, cause)),
    };
    if !is_folder {
        return unlinkat(Some(folder.as_raw_fd()), os(name), UnlinkatFlags::NoRemoveDir)
            .map_err(io::Error::from)
            .or_else(gone);
    }
    let opened = match open_folder(folder, os(name)) {
        Ok(opened) => opened,
        Err(cause) => return gone(cause),
    };
    for below in names(opened.as_fd(), path)? {
        let stat = match look(opened.as_fd(), os(&below)) {
            Ok(stat) => stat,
            Err(cause) => return gone(cause),
        };
        let is_folder = stat.is_some_and(|stat| kind_of(&stat) == SFlag::S_IFDIR);
        let path = [path, b"/", &below].concat();
        remove(opened.as_fd(), &below, &path, is_folder, depth + 1)?;
    }
    unlinkat(Some(folder.as_raw_fd()), os(name), UnlinkatFlags::RemoveDir)
        .map_err(io::Error::from)
        .or_else(gone)
}

fn copy(entry: &Entry, mut left: u64, archive: &mut impl Read, file: &mut File) -> Result<(), PlaceError> {
    let mut buffer = [0u8; 32 * 1024];
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        match archive.read(&mut buffer[..want]) {
            Ok(0) => return Err(PlaceError::Tar(TarError::Truncated)),
            Ok(count) => {
                file.write_all(&buffer[..count])
                    .map_err(|cause| failed(entry, "write", cause))?;
                left -= count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(PlaceError::Tar(TarError::Read(error))),
        }
    }
    Ok(())
}

fn escape(path: &[u8]) -> PlaceError {
    PlaceError::Escape { path: shown(path) }
}

/// Splits a name into parts by its text alone; `None` where `..` leads above the start.
fn parts(path: &[u8]) -> Option<Vec<&[u8]>> {
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
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

fn time_of((seconds, nanoseconds): (i64, u32)) -> TimeSpec {
    TimeSpec::new(seconds, i64::from(nanoseconds))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;
    use crate::writer::Writer;
    use kakoi_sys::path::open_start;

    struct Given {
        folder: tempfile::TempDir,
    }

    impl Given {
        /// A root with a folder, a file and links, and something outside that must never change.
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path();
            fs::create_dir_all(path.join("root/srv/d")).expect("folders");
            fs::create_dir(path.join("root/etc")).expect("a folder");
            fs::create_dir(path.join("outside")).expect("a folder");
            fs::write(path.join("outside/file"), "outside").expect("a file");
            fs::write(path.join("root/srv/file"), "old").expect("a file");
            symlink(path.join("outside"), path.join("root/srv/out")).expect("a link");
            symlink("../../../../outside/file", path.join("root/srv/up")).expect("a link");
            symlink("/etc", path.join("root/srv/inner")).expect("a link");
            Self { folder }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn place(&self, archive: &[u8], replaces_kinds: bool) -> Result<(), PlaceError> {
            let root = open_start(&self.path("root")).expect("it is there");
            let placing = Placing {
                replaces_kinds,
                named: None,
                owner: None,
                ids: &|_, _| {
                    let own = nix::unistd::geteuid().as_raw();
                    (own, nix::unistd::getegid().as_raw())
                },
            };
            let placed = place(
                root.as_fd(),
                Path::new("/srv"),
                &mut Reader::new(archive),
                &placing,
            )
            .map(drop);
            let outside = fs::read_to_string(self.path("outside/file")).expect("it is there");
            assert_eq!(outside, "outside");
            assert_eq!(fs::read_dir(self.path("outside")).expect("a list").count(), 1);
            placed
        }
    }

    fn tar(entries: &[(Kind, &str, &str)]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for (kind, path, content) in entries {
            let is_file = *kind == Kind::File;
            let entry = Entry {
                kind: *kind,
                path: (*path).into(),
                link: if is_file { Vec::new() } else { (*content).into() },
                mode: 0o640,
                uid: 0,
                gid: 0,
                mtime: (1_000_000, 0),
                size: if is_file { content.len() as u64 } else { 0 },
                xattrs: Vec::new(),
                sparse: None,
            };
            let entry = Entry {
                mode: if *kind == Kind::Directory {
                    0o750
                } else {
                    entry.mode
                },
                ..entry
            };
            writer.entry(&entry).expect("memory");
            if is_file {
                writer
                    .body(&mut content.as_bytes(), entry.size)
                    .expect("memory")
                    .expect("a body");
            }
        }
        writer.finish().expect("memory")
    }

    #[test]
    fn files_replace_and_folders_merge() {
        let given = Given::new();
        let twin = given.path("root/etc/twin");
        fs::hard_link(given.path("root/srv/file"), &twin).expect("a link");
        let archive = tar(&[
            (Kind::Directory, "d/", ""),
            (Kind::File, "d/new", "1"),
            (Kind::File, "file", "new"),
            (Kind::File, "made/on/the/way", "2"),
            (Kind::HardLink, "d/again", "file"),
            (Kind::Symlink, "link", "/anywhere"),
            (Kind::Fifo, "pipe", ""),
        ]);
        given.place(&archive, false).expect("placed");
        let read = |name: &str| fs::read_to_string(given.path(name)).expect("it is there");
        assert_eq!(
            (read("root/srv/d/new"), read("root/srv/file")),
            ("1".into(), "new".into())
        );
        assert_eq!(read("root/srv/made/on/the/way"), "2");
        assert_eq!(read("root/srv/d/again"), "new");
        assert_eq!(
            fs::read_to_string(twin).expect("it is there"),
            "old",
            "the other name keeps its file"
        );
        let meta = fs::metadata(given.path("root/srv/d")).expect("it is there");
        assert_eq!((meta.mode() & 0o777, meta.mtime()), (0o750, 1_000_000));
    }

    #[test]
    fn links_of_the_tree_lead_nowhere_but_inside() {
        let given = Given::new();
        // In the root, the folder that this link names does not exist.
        let through = given.place(&tar(&[(Kind::File, "out/file", "x")]), true);
        assert!(matches!(through, Err(PlaceError::Entry { .. })), "{through:?}");
        given
            .place(&tar(&[(Kind::File, "up", "x")]), true)
            .expect("the link itself is replaced");
        given
            .place(&tar(&[(Kind::File, "inner/x", "x")]), true)
            .expect("a link inside");
        assert!(given.path("root/etc/x").exists());
    }

    #[test]
    fn links_of_the_archive_lead_nowhere_but_inside() {
        for archive in [
            tar(&[(Kind::File, "../x", "x")]),
            tar(&[(Kind::File, "d/../../x", "x")]),
            tar(&[(Kind::HardLink, "x", "../etc/passwd")]),
            tar(&[(Kind::HardLink, "x", "")]),
        ] {
            let refused = Given::new().place(&archive, true).expect_err("it leads out");
            assert!(matches!(refused, PlaceError::Escape { .. }), "{refused}");
        }
        let given = Given::new();
        let outside = given.path("outside").display().to_string();
        let archive = tar(&[(Kind::Symlink, "l", &outside), (Kind::File, "l/x", "x")]);
        given.place(&archive, true).expect_err("no such folder inside");
        let archive = tar(&[(Kind::Symlink, "m", "../../../.."), (Kind::File, "m/x", "x")]);
        given.place(&archive, true).expect("above the root is the root");
        assert!(given.path("root/x").exists());
        let archive = tar(&[(Kind::HardLink, "h", "out/file")]);
        given.place(&archive, true).expect_err("no such file inside");
    }

    #[test]
    fn kinds_are_replaced_only_where_asked() {
        let given = Given::new();
        let to_file = tar(&[(Kind::File, "d", "x")]);
        let to_folder = tar(&[(Kind::Directory, "file", "")]);
        assert!(matches!(
            given.place(&to_file, false),
            Err(PlaceError::Folder { .. })
        ));
        assert!(matches!(
            given.place(&to_folder, false),
            Err(PlaceError::NotFolder { .. })
        ));
        fs::write(given.path("root/srv/d/below"), "x").expect("a file");
        given.place(&to_file, true).expect("replaced");
        given.place(&to_folder, true).expect("replaced");
        assert!(given.path("root/srv/d").is_file() && given.path("root/srv/file").is_dir());
    }

    #[test]
    fn a_device_is_left_out_and_half_an_archive_is_an_error() {
        let given = Given::new();
        let device = Kind::Device {
            block: true,
            major: 8,
            minor: 0,
        };
        given
            .place(&tar(&[(device, "disk", ""), (device, "file", "")]), true)
            .expect("left out");
        assert!(!given.path("root/srv/disk").exists() && given.path("root/srv/file").is_file());
        let archive = tar(&[(Kind::File, "half", &"x".repeat(2000))]);
        given.place(&archive[..1024], true).expect_err("it is cut off");
        given.place(b"no tar at all", true).expect_err("it is none");
    }
}
