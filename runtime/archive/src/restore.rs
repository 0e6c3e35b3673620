//! A backup of a whole folder put back: `kakoi volume import`.
//!
//! Owns what becomes of the folder. Into an empty one goes all of an archive or nothing: it is unpacked aside, on the same file system, and moved in name by
//! name when its end was read. Into any other it goes over what is there, as [`place`] does, and what came before a failure stays. Invariant: nothing
//! outside both folders changes, whatever the archive says and whoever changes them meanwhile.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{RenameFlags, renameat2};
use nix::sys::stat::{Mode, SFlag, mkdirat};
use nix::unistd::syncfs;

use crate::entries::{Ids, failed, kind_of, look, names, open_folder, os};
use crate::place::{PlaceError, Placing, place, remove, set_folder};
use crate::tarball::{Entry, Reader, TarError};

/// The folders of one restore, both in the same folder.
#[derive(Clone, Copy, Debug)]
pub struct Folders<'a> {
    /// Where the archive goes.
    pub name: &'a str,
    /// Where it is unpacked first; whatever lies there goes away.
    pub aside: &'a str,
}

/// Puts an archive into a folder of the open folder `above`, and makes sure of it that it lies on the disk.
///
/// The archive is read to its very end. Needs CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID and CAP_SETFCAP to keep what it says.
pub fn restore<R: Read>(
    above: BorrowedFd<'_>,
    folders: Folders<'_>,
    archive: Reader<R>,
    ids: Ids<'_>,
) -> Result<(), PlaceError> {
    let placing = Placing {
        replaces_kinds: true,
        named: None,
        owner: None,
        ids,
    };
    let target = open(above, folders.name)?;
    clear(above, folders.aside)?;
    let own = if names(target.as_fd(), b"/")?.is_empty() {
        let outcome = aside(above, folders.aside, target.as_fd(), archive, &placing);
        let cleared = clear(above, folders.aside);
        let own = outcome?;
        cleared?;
        own
    } else {
        unpack(target.as_fd(), archive, &placing)?
    };
    if let Some(own) = own {
        set_folder(target.as_fd(), &own, &placing)?;
    }
    syncfs(target.as_raw_fd()).map_err(|errno| failed("sync", b"/", errno).into())
}

fn open(above: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, PlaceError> {
    open_folder(above, OsStr::new(name)).map_err(|cause| failed("open", name.as_bytes(), cause).into())
}

/// Removes a folder with all that is in it, if it is there.
fn clear(above: BorrowedFd<'_>, name: &str) -> Result<(), PlaceError> {
    let found = look(above, OsStr::new(name)).map_err(|cause| failed("look at", name.as_bytes(), cause))?;
    let Some(found) = found else { return Ok(()) };
    let is_folder = kind_of(&found) == SFlag::S_IFDIR;
    Ok(remove(above, name.as_bytes(), name.as_bytes(), is_folder, 0)?)
}

fn unpack<R: Read>(
    folder: BorrowedFd<'_>,
    mut archive: Reader<R>,
    placing: &Placing<'_>,
) -> Result<Option<Entry>, PlaceError> {
    let own = place(folder, Path::new("/"), &mut archive, placing)?;
    // What follows the archive's end is read too: an error of the stream is one of the archive, and its writer sees none.
    io::copy(&mut archive.into_inner(), &mut io::sink())
        .map_err(|cause| PlaceError::Tar(TarError::Read(cause)))?;
    Ok(own)
}

fn aside<R: Read>(
    above: BorrowedFd<'_>,
    name: &str,
    target: BorrowedFd<'_>,
    archive: Reader<R>,
    placing: &Placing<'_>,
) -> Result<Option<Entry>, PlaceError> {
    mkdirat(Some(above.as_raw_fd()), name, Mode::S_IRWXU)
        .map_err(|errno| failed("make", name.as_bytes(), errno))?;
    let staged = open(above, name)?;
    let own = unpack(staged.as_fd(), archive, placing)?;
    syncfs(staged.as_raw_fd()).map_err(|errno| failed("sync", name.as_bytes(), errno))?;
    let all = names(staged.as_fd(), b"/")?;
    for (at, name) in all.iter().enumerate() {
        if let Err(errno) = rename(staged.as_fd(), target, name) {
            for moved in &all[..at] {
                rename(target, staged.as_fd(), moved).ok();
            }
            return Err(failed("move into the folder", name, errno).into());
        }
    }
    Ok(own)
}

/// Moves a name where none of that name is.
fn rename(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &[u8]) -> nix::Result<()> {
    let (from, to) = (Some(from.as_raw_fd()), Some(to.as_raw_fd()));
    renameat2(from, os(name), to, os(name), RenameFlags::RENAME_NOREPLACE)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
    use std::path::PathBuf;

    use super::*;
    use crate::walk::TreeWriter;
    use kakoi_sys::path::open_start;
    use kakoi_sys::xattr;

    const FOLDERS: Folders<'static> = Folders {
        name: "_data",
        aside: "aside",
    };

    struct Given {
        folder: tempfile::TempDir,
    }

    impl Given {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            fs::create_dir(folder.path().join("_data")).expect("a folder");
            Self { folder }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn backup(&self) -> Vec<u8> {
            let start = open_start(&self.path("_data")).expect("it is there");
            let ids = |uid, gid| (uid, gid);
            let mut writer = TreeWriter::backup(Vec::new(), &ids);
            writer
                .tree(start.as_fd(), OsStr::new("."), b".")
                .expect("archived");
            writer.finish().expect("memory")
        }

        fn restore(&self, archive: &[u8]) -> Result<(), PlaceError> {
            let above = open_start(self.folder.path()).expect("it is there");
            let ids = |uid, gid| (uid, gid);
            let restored = restore(above.as_fd(), FOLDERS, Reader::new(archive), &ids);
            let left: Vec<_> = fs::read_dir(self.folder.path()).expect("a list").collect();
            assert_eq!(left.len(), 1, "nothing aside is left: {left:?}");
            restored
        }

        fn names(&self) -> usize {
            fs::read_dir(self.path("_data")).expect("a list").count()
        }
    }

    fn filled() -> Given {
        let given = Given::new();
        let data = given.path("_data");
        fs::create_dir(data.join("d")).expect("a folder");
        fs::write(data.join("d/file"), "text").expect("a file");
        fs::hard_link(data.join("d/file"), data.join("twin")).expect("a link");
        symlink("/etc/shadow", data.join("link")).expect("a link");
        fs::set_permissions(data.join("d/file"), fs::Permissions::from_mode(0o4710)).expect("a mode");
        let holes = fs::File::create(data.join("holes")).expect("a file");
        holes.set_len(64 << 20).expect("a length");
        holes.write_at(b"middle", 32 << 20).expect("written");
        fs::set_permissions(&data, fs::Permissions::from_mode(0o750)).expect("a mode");
        given
    }

    #[test]
    fn what_was_backed_up_comes_back() {
        let given = filled();
        let folder = open_folder(
            open_start(&given.path("_data")).expect("it is there").as_fd(),
            OsStr::new("d"),
        )
        .expect("it is there");
        let has_attributes = xattr::set(folder.as_fd(), c"user.of", b"a folder").is_ok();
        let archive = given.backup();
        assert!(archive.len() < 1 << 20, "holes are no bytes: {}", archive.len());
        let other = Given::new();
        other.restore(&archive).expect("restored");
        let meta = |given: &Given, name: &str| {
            let meta = fs::symlink_metadata(given.path("_data").join(name)).expect("it is there");
            let mtime = (meta.mtime(), meta.mtime_nsec());
            (
                meta.mode(),
                meta.uid(),
                meta.gid(),
                mtime,
                meta.nlink(),
                meta.len(),
            )
        };
        for name in ["d/file", "twin", "link", "holes"] {
            let (old, new) = (meta(&given, name), meta(&other, name));
            assert_eq!(new, old, "{name}");
        }
        for name in ["", "d"] {
            let (old, new) = (meta(&given, name), meta(&other, name));
            assert_eq!((new.0, new.3), (old.0, old.3), "{name:?}");
        }
        let holes = fs::metadata(other.path("_data/holes")).expect("it is there");
        assert!(holes.blocks() * 512 < 1 << 20, "{} blocks", holes.blocks());
        let read = |given: &Given| fs::read(given.path("_data/holes")).expect("a file");
        assert!(read(&given) == read(&other));
        if has_attributes {
            let folder = open_start(&other.path("_data")).expect("it is there");
            let folder = open_folder(folder.as_fd(), OsStr::new("d")).expect("it is there");
            let value = xattr::get(folder.as_fd(), c"user.of", 64).expect("read");
            assert_eq!(value.as_deref(), Some(&b"a folder"[..]));
        }
    }

    #[test]
    fn into_an_empty_folder_goes_all_or_nothing() {
        let archive = filled().backup();
        let out = tarred(&[("ok", "x"), ("../out", "x")]);
        for broken in [
            &archive[..archive.len() / 2],
            &archive[..700],
            b"no archive at all",
            &out,
        ] {
            let given = Given::new();
            given.restore(broken).expect_err("it is broken");
            assert_eq!(given.names(), 0);
        }
        let given = Given::new();
        fs::create_dir(given.path("aside")).expect("a folder");
        fs::write(given.path("aside/left"), "of a crash").expect("a file");
        given.restore(&archive).expect("restored");
        assert!(!given.path("_data/left").exists() && given.names() == 4);
    }

    #[test]
    fn into_any_other_it_goes_over_what_is_there() {
        let given = filled();
        fs::write(given.path("_data/kept"), "kept").expect("a file");
        given
            .restore(&tarred(&[("d/file", "new"), ("holes", "x")]))
            .expect("over it");
        let read = |name: &str| fs::read_to_string(given.path("_data").join(name)).expect("it is there");
        assert_eq!(
            [read("d/file"), read("twin"), read("kept"), read("holes")],
            ["new", "text", "kept", "x"]
        );
        given
            .restore(&tarred(&[("d/file", "newer"), ("../out", "x")]))
            .expect_err("it leads out");
        assert_eq!(read("d/file"), "newer", "what came before stays");
        given
            .restore(&tarred(&[("link/x", "x")]))
            .expect_err("the link leads nowhere here");
    }

    fn tarred(files: &[(&str, &str)]) -> Vec<u8> {
        let mut writer = crate::writer::Writer::new(Vec::new());
        for (path, text) in files {
            let entry = Entry {
                kind: crate::tarball::Kind::File,
                path: (*path).into(),
                link: Vec::new(),
                mode: 0o640,
                uid: nix::unistd::geteuid().as_raw(),
                gid: nix::unistd::getegid().as_raw(),
                mtime: (1_000_000, 0),
                size: text.len() as u64,
                xattrs: Vec::new(),
                sparse: None,
            };
            writer.entry(&entry).expect("memory");
            writer
                .body(&mut text.as_bytes(), entry.size)
                .expect("memory")
                .expect("a body");
        }
        writer.finish().expect("memory")
    }
}
