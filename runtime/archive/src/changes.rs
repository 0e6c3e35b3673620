//! What a writable layer changed of the layers below it, as overlayfs keeps it.
//!
//! Owns the comparison, and the layer's tar. Refuses folders that were renamed by reference (`trusted.overlay.redirect`), which no mount of ours
//! makes. What the runtime itself put into the layer to mount on is no change. Needs CAP_SYS_ADMIN for `trusted.*` attributes. Invariant: a folder
//! is told before what is in it, and is told at all only where it changed itself or something in it did.

use std::cell::Cell;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use kakoi_sys::path::open_start;
use kakoi_sys::xattr;
use nix::sys::stat::{FileStat, SFlag};

use crate::entries::{DEPTH_MAX, Ids, TreeError, failed, kind_of, look, names, open_folder, os, shown};
use crate::tarball::{Entry, Kind};
use crate::walk::TreeWriter;

const OPAQUE: &std::ffi::CStr = c"trusted.overlay.opaque";
const REDIRECT: &std::ffi::CStr = c"trusted.overlay.redirect";
/// Longest value that a redirection has (PATH_MAX).
const REDIRECT_BYTES_MAX: usize = 4096;

/// What happened to a path. The numbers are Docker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was there and is another.
    Modified = 0,
    /// It is new.
    Added = 1,
    /// It was there and is not.
    Deleted = 2,
}

/// A writable layer and what lies below it.
#[derive(Debug)]
pub struct Layers {
    upper: OwnedFd,
    /// The topmost first.
    lower: Vec<OwnedFd>,
    /// Places for mounts, and the folders that lead to them, from the root without a slash before them.
    places: HashSet<PathBuf>,
}

/// One change, with what is needed to read it.
pub struct Told<'a> {
    /// What happened.
    pub change: Change,
    /// The path from the root, without a slash before it.
    pub path: &'a [u8],
    folder: BorrowedFd<'a>,
    name: &'a OsStr,
    stat: &'a FileStat,
    /// Whether it is a folder that hides one below.
    hides: bool,
}

type Tell<'a> = &'a mut dyn FnMut(&Told<'_>) -> Result<(), TreeError>;

impl Layers {
    /// Opens the layers; `mounts` are paths inside at which something was mounted.
    pub fn open<'a>(
        upper: &Path,
        lower: &[PathBuf],
        mounts: impl Iterator<Item = &'a str>,
    ) -> Result<Self, TreeError> {
        let open = |path: &Path| open_start(path).map_err(|error| failed("open", b"a layer", error.errno));
        let mut places = HashSet::new();
        for mount in mounts {
            let path: PathBuf = Path::new(mount)
                .components()
                .filter(|part| matches!(part, Component::Normal(_)))
                .collect();
            places.extend(path.ancestors().map(Path::to_owned));
        }
        Ok(Self {
            upper: open(upper)?,
            lower: lower.iter().map(|path| open(path)).collect::<Result<_, _>>()?,
            places,
        })
    }

    /// Tells every change. `ids` turns owners of the writable layer into those of the layers below.
    pub fn changes(&self, ids: Ids<'_>, tell: Tell<'_>) -> Result<(), TreeError> {
        let root = Level {
            up: None,
            told: Cell::new(true),
            change: Change::Modified,
            folder: self.upper.as_fd(),
            name: OsStr::new("."),
            path: b"",
            stat: None,
            hides: false,
            depth: 0,
        };
        let lower: Vec<BorrowedFd<'_>> = self.lower.iter().map(AsFd::as_fd).collect();
        let mut visit = Visit {
            places: &self.places,
            ids,
            tell,
        };
        visit.folder(&root, self.upper.as_fd(), &lower)
    }

    /// Writes the changes as a layer's tar, with whiteouts as the image specification has them.
    pub fn write<W: Write>(&self, out: W, ids: Ids<'_>) -> Result<W, TreeError> {
        let mut writer = TreeWriter::new(out, ids);
        self.changes(ids, &mut |told| write_change(&mut writer, told))?;
        writer.finish()
    }
}

fn write_change<W: Write>(writer: &mut TreeWriter<'_, W>, told: &Told<'_>) -> Result<(), TreeError> {
    if told.change != Change::Deleted {
        writer.file(told.folder, told.name, told.path, told.stat)?;
        return match told.hides {
            true => whiteout(writer, &[told.path, b"/.wh..wh..opq"].concat()),
            false => Ok(()),
        };
    }
    let start = told
        .path
        .iter()
        .rposition(|byte| *byte == b'/')
        .map_or(0, |at| at + 1);
    let (folder, name) = told.path.split_at(start);
    whiteout(writer, &[folder, b".wh.", name].concat())
}

fn whiteout<W: Write>(writer: &mut TreeWriter<'_, W>, path: &[u8]) -> Result<(), TreeError> {
    let entry = Entry {
        kind: Kind::File,
        path: path.to_vec(),
        link: Vec::new(),
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: (0, 0),
        size: 0,
        xattrs: Vec::new(),
        sparse: None,
    };
    writer.writer().entry(&entry).map_err(TreeError::Write)
}

/// A folder on the way, told when something in it is.
struct Level<'a> {
    up: Option<&'a Level<'a>>,
    told: Cell<bool>,
    change: Change,
    folder: BorrowedFd<'a>,
    name: &'a OsStr,
    path: &'a [u8],
    stat: Option<&'a FileStat>,
    hides: bool,
    depth: usize,
}

/// What lower layers have by a name.
enum Below {
    Nothing,
    Folder(Vec<OwnedFd>, FileStat),
    Other,
}

struct Visit<'a> {
    places: &'a HashSet<PathBuf>,
    ids: Ids<'a>,
    tell: Tell<'a>,
}

impl Visit<'_> {
    fn folder(
        &mut self,
        level: &Level<'_>,
        upper: BorrowedFd<'_>,
        lower: &[BorrowedFd<'_>],
    ) -> Result<(), TreeError> {
        if level.depth > DEPTH_MAX {
            let path = shown(level.path);
            return Err(TreeError::TooDeep { path });
        }
        for name in names(upper, level.path)? {
            let path = match level.path {
                b"" => name.clone(),
                above => [above, b"/", &name].concat(),
            };
            let stat = look(upper, os(&name)).map_err(|source| failed("look at", &path, source))?;
            let Some(stat) = stat else { continue };
            let below = find(lower, os(&name)).map_err(|source| failed("look at", &path, source))?;
            self.file(level, (upper, &name, &path), &stat, below)?;
        }
        Ok(())
    }

    fn file(
        &mut self,
        level: &Level<'_>,
        (upper, name, path): (BorrowedFd<'_>, &[u8], &[u8]),
        stat: &FileStat,
        below: Below,
    ) -> Result<(), TreeError> {
        let is_new = matches!(below, Below::Nothing);
        let mut told = Told {
            change: if is_new { Change::Added } else { Change::Modified },
            path,
            folder: upper,
            name: os(name),
            stat,
            hides: false,
        };
        let is_place = self.places.contains(Path::new(os(path)));
        match kind_of(stat) {
            SFlag::S_IFCHR if stat.st_rdev == 0 => {
                if is_new {
                    return Ok(());
                }
                told.change = Change::Deleted;
            }
            SFlag::S_IFDIR => {
                let opened = open_folder(upper, os(name)).map_err(|source| failed("open", path, source))?;
                return self.enter(level, told, opened, below, is_place);
            }
            SFlag::S_IFREG if is_place && is_new && stat.st_size == 0 => return Ok(()),
            _ => {}
        }
        self.announce(level)?;
        (self.tell)(&told)
    }

    fn enter(
        &mut self,
        level: &Level<'_>,
        told: Told<'_>,
        opened: OwnedFd,
        below: Below,
        is_place: bool,
    ) -> Result<(), TreeError> {
        let attribute = |name, bytes_max| {
            xattr::get(opened.as_fd(), name, bytes_max)
                .map_err(|error| failed("read", told.path, error.errno))
        };
        if attribute(REDIRECT, REDIRECT_BYTES_MAX)?.is_some() {
            let path = shown(told.path);
            return Err(TreeError::Redirected { path });
        }
        let is_opaque = attribute(OPAQUE, 16)?.is_some_and(|value| value == b"y");
        let (mut lower, mut hides) = (Vec::new(), false);
        let is_changed = match below {
            Below::Folder(_, _) if is_opaque => {
                hides = true;
                true
            }
            Below::Folder(folders, other) => {
                lower = folders;
                self.differs(told.stat, &other, is_place)
            }
            Below::Other => true,
            Below::Nothing => !is_place,
        };
        let next = Level {
            up: Some(level),
            told: Cell::new(false),
            change: told.change,
            folder: told.folder,
            name: told.name,
            path: told.path,
            stat: Some(told.stat),
            hides,
            depth: level.depth + 1,
        };
        if is_changed {
            self.announce(&next)?;
        }
        let lower: Vec<BorrowedFd<'_>> = lower.iter().map(AsFd::as_fd).collect();
        self.folder(&next, opened.as_fd(), &lower)
    }

    /// Whether a folder is another than the one below. A place for a mount that was made in it changes its time.
    fn differs(&self, upper: &FileStat, lower: &FileStat, leads_to_place: bool) -> bool {
        let owner = (self.ids)(upper.st_uid, upper.st_gid);
        let is_moved = (upper.st_mtime, upper.st_mtime_nsec) != (lower.st_mtime, lower.st_mtime_nsec);
        upper.st_mode != lower.st_mode
            || owner != (lower.st_uid, lower.st_gid)
            || (is_moved && !leads_to_place)
    }

    /// Tells the folders that lead to a change, those that were not told yet.
    fn announce(&mut self, level: &Level<'_>) -> Result<(), TreeError> {
        if level.told.replace(true) {
            return Ok(());
        }
        if let Some(up) = level.up {
            self.announce(up)?;
        }
        let Some(stat) = level.stat else { return Ok(()) };
        (self.tell)(&Told {
            change: level.change,
            path: level.path,
            folder: level.folder,
            name: level.name,
            stat,
            hides: level.hides,
        })
    }
}

/// Looks for a name in layers, the topmost first.
fn find(lower: &[BorrowedFd<'_>], name: &OsStr) -> std::io::Result<Below> {
    let mut folders = Vec::new();
    let mut topmost = None;
    for layer in lower {
        let Some(stat) = look(*layer, name)? else { continue };
        if kind_of(&stat) != SFlag::S_IFDIR {
            let is_whiteout = kind_of(&stat) == SFlag::S_IFCHR && stat.st_rdev == 0;
            if topmost.is_none() && !is_whiteout {
                return Ok(Below::Other);
            }
            break;
        }
        let folder = open_folder(*layer, name)?;
        let opaque = xattr::get(folder.as_fd(), OPAQUE, 16).map_err(|error| error.errno)?;
        folders.push(folder);
        topmost.get_or_insert(stat);
        if opaque.is_some_and(|value| value == b"y") {
            break;
        }
    }
    Ok(match topmost {
        Some(stat) => Below::Folder(folders, stat),
        None => Below::Nothing,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::fd::AsRawFd;

    use nix::sys::stat::{Mode, mknodat};

    use super::*;
    use crate::tarball::Reader;

    fn whiteout_at(path: &Path) {
        mknodat(None, path, SFlag::S_IFCHR, Mode::empty(), 0).expect("root makes a whiteout");
    }

    /// Two layers below and a writable one above them, as overlayfs would leave it.
    fn given(folder: &Path) -> Layers {
        let (upper, top, base) = (folder.join("upper"), folder.join("top"), folder.join("base"));
        for path in ["etc/conf.d", "same", "gone", "var/lib", "shut"] {
            fs::create_dir_all(base.join(path)).expect("folders");
        }
        for path in [
            "etc/hosts",
            "etc/conf",
            "gone/file",
            "var/lib/data",
            "shut/in",
            "old",
        ] {
            fs::write(base.join(path), "base").expect("a file");
        }
        fs::create_dir_all(&top).expect("a folder");
        whiteout_at(&top.join("old"));
        for path in ["etc", "new", "proc", "shut", "var/lib"] {
            fs::create_dir_all(upper.join(path)).expect("folders");
        }
        fs::write(upper.join("etc/conf"), "upper").expect("a file");
        fs::write(upper.join("etc/resolv.conf"), "").expect("a file");
        fs::write(upper.join("new/file"), "upper").expect("a file");
        fs::write(upper.join("old"), "upper").expect("a file");
        whiteout_at(&upper.join("gone"));
        whiteout_at(&upper.join("never"));
        let shut = fs::File::open(upper.join("shut")).expect("it is there");
        xattr::set(shut.as_fd(), OPAQUE, b"y").expect("root sets it");
        for path in ["etc", "var", "var/lib", "shut"] {
            let time = fs::metadata(base.join(path))
                .and_then(|meta| meta.modified())
                .expect("a time");
            let opened = fs::File::open(upper.join(path)).expect("it is there");
            opened.set_modified(time).expect("a time");
            assert!(opened.as_raw_fd() > 0);
        }
        let mounts = ["/proc", "/etc/resolv.conf", "/etc/hosts"];
        Layers::open(&upper, &[top, base], mounts.into_iter()).expect("they are there")
    }

    #[test]
    fn only_changes_are_told_and_folders_before_what_is_in_them() {
        if !nix::unistd::geteuid().is_root() {
            crate::required::leave_out(
                "root",
                "only_changes_are_told_and_folders_before_what_is_in_them: needs root",
            );
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let layers = given(folder.path());
        let ids = |uid, gid| (uid, gid);
        let mut told = Vec::new();
        layers
            .changes(&ids, &mut |one| {
                told.push((one.change, String::from_utf8_lossy(one.path).into_owned()));
                Ok(())
            })
            .expect("compared");
        let row = |change, path: &str| (change, path.to_owned());
        let wanted = [
            row(Change::Modified, "etc"),
            row(Change::Modified, "etc/conf"),
            row(Change::Deleted, "gone"),
            row(Change::Added, "new"),
            row(Change::Added, "new/file"),
            row(Change::Added, "old"),
            row(Change::Modified, "shut"),
        ];
        assert_eq!(told, wanted);
        let bytes = layers.write(Vec::new(), &ids).expect("written");
        let mut reader = Reader::new(bytes.as_slice());
        let mut names = Vec::new();
        while let Some(entry) = reader.next_entry().expect("whole") {
            names.push(String::from_utf8(entry.path).expect("text"));
            std::io::copy(&mut reader.by_ref(), &mut std::io::sink()).expect("a body");
        }
        assert_eq!(
            names,
            [
                "etc/",
                "etc/conf",
                ".wh.gone",
                "new/",
                "new/file",
                "old",
                "shut/",
                "shut/.wh..wh..opq"
            ]
        );
    }

    #[test]
    fn a_folder_renamed_by_reference_is_refused() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let layers = given(folder.path());
        let new = fs::File::open(folder.path().join("upper/new")).expect("it is there");
        xattr::set(new.as_fd(), REDIRECT, b"/etc").expect("root sets it");
        let refused = layers
            .changes(&|uid, gid| (uid, gid), &mut |_| Ok(()))
            .expect_err("redirected");
        assert!(matches!(refused, TreeError::Redirected { .. }), "{refused}");
    }
}
