//! From a tree to a tar.
//!
//! Owns the walk: names in order, folders before what is in them, a file with several names once and then as links. Follows no link, and goes
//! wherever something is mounted in the tree. Invariant: somebody who changes the tree meanwhile changes what is archived of it, and nothing else.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};

use crate::entries::{DEPTH_MAX, Detail, Ids, TreeError, entry, failed, look, names, open_folder, os, shown};
use crate::sparse::SparseMap;
use crate::tarball::Kind;
use crate::writer::Writer;

/// Most bytes of names of files that have several: further ones are archived as files of their own.
const LINKS_BYTES_MAX: usize = 16 << 20;

/// Writes trees into an archive.
pub struct TreeWriter<'a, W> {
    out: Writer<W>,
    ids: Ids<'a>,
    detail: Detail,
    links: HashMap<(u64, u64), Vec<u8>>,
    links_bytes: usize,
}

impl<'a, W: Write> TreeWriter<'a, W> {
    /// Begins an archive; `ids` turns owners of the tree into those of the archive.
    pub fn new(out: W, ids: Ids<'a>) -> Self {
        Self {
            out: Writer::new(out),
            ids,
            detail: Detail::Docker,
            links: HashMap::new(),
            links_bytes: 0,
        }
    }

    /// Begins an archive of all that [`restore`](crate::restore::restore) can put back: parts of seconds, attributes of users, and holes as holes.
    pub fn backup(out: W, ids: Ids<'a>) -> Self {
        Self {
            detail: Detail::Backup,
            ..Self::new(out, ids)
        }
    }

    /// Writes what lies in `folder` by this name, with all below it, under another name. `.` is the folder itself.
    pub fn tree(&mut self, folder: BorrowedFd<'_>, name: &OsStr, path: &[u8]) -> Result<(), TreeError> {
        self.step(folder, name, path, 0)
    }

    /// Writes what an open folder holds, each under its own name.
    pub fn contents(&mut self, folder: BorrowedFd<'_>) -> Result<(), TreeError> {
        for name in names(folder, b"/")? {
            self.step(folder, os(&name), &name, 1)?;
        }
        Ok(())
    }

    /// Ends the archive.
    pub fn finish(self) -> Result<W, TreeError> {
        self.out.finish().map_err(TreeError::Write)
    }

    fn step(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &OsStr,
        path: &[u8],
        depth: usize,
    ) -> Result<(), TreeError> {
        if depth > DEPTH_MAX {
            return Err(TreeError::TooDeep { path: shown(path) });
        }
        // What goes away while it is looked for is not there.
        let Some(stat) = look(folder, name).map_err(|source| failed("look at", path, source))? else {
            return Ok(());
        };
        if self.file(folder, name, path, &stat)? != Some(Kind::Directory) {
            return Ok(());
        }
        let below = match open_folder(folder, name) {
            Ok(below) => below,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(failed("open", path, source)),
        };
        let path = path.strip_suffix(b"/").unwrap_or(path);
        for name in names(below.as_fd(), path)? {
            let path = [path, b"/", &name].concat();
            self.step(below.as_fd(), os(&name), &path, depth + 1)?;
        }
        Ok(())
    }

    /// Writes one file, without what is below it; tells what it is.
    pub(crate) fn file(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &OsStr,
        path: &[u8],
        stat: &nix::sys::stat::FileStat,
    ) -> Result<Option<Kind>, TreeError> {
        let made = match entry(folder, name, path, stat, self.ids, self.detail) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            made => made.map_err(|source| failed("read", path, source))?,
        };
        let Some((mut entry, opened)) = made else {
            return Ok(None);
        };
        let kind = entry.kind;
        let Some(mut file) = opened else {
            self.out.entry(&entry).map_err(TreeError::Write)?;
            return Ok(Some(kind));
        };
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key) {
                (entry.kind, entry.link) = (Kind::HardLink, first.clone());
                entry.xattrs.clear();
                self.out.entry(&entry).map_err(TreeError::Write)?;
                return Ok(Some(kind));
            }
            self.links_bytes += path.len();
            if self.links_bytes <= LINKS_BYTES_MAX {
                self.links.insert(key, path.to_vec());
            }
        }
        if self.detail == Detail::Backup {
            let map = SparseMap::of_file(&file, entry.size);
            entry.sparse = map.map_err(|source| failed("read", path, source))?;
        }
        self.out.entry(&entry).map_err(TreeError::Write)?;
        let copied = match &entry.sparse {
            Some(map) => self.out.sparse_body(&mut file, map),
            None => self.out.body(&mut file, entry.size),
        };
        let copied = copied.map_err(TreeError::Write)?;
        copied.map_err(|source| failed("read", path, source))?;
        Ok(Some(kind))
    }

    pub(crate) fn writer(&mut self) -> &mut Writer<W> {
        &mut self.out
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::tarball::Reader;
    use kakoi_sys::path::open_start;

    fn listed(bytes: &[u8]) -> Vec<(String, Kind, String)> {
        let mut reader = Reader::new(bytes);
        let mut found = Vec::new();
        while let Some(entry) = reader.next_entry().expect("a whole archive") {
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
            found.push((text(entry.path), entry.kind, text(entry.link)));
            let mut body = Vec::new();
            reader.read_to_end(&mut body).expect("a body");
        }
        found
    }

    #[test]
    fn a_tree_is_archived_without_following_its_links() {
        let tree = tempfile::tempdir().expect("a folder");
        let root = tree.path().join("root");
        fs::create_dir_all(root.join("d/deep")).expect("folders");
        fs::write(root.join("d/file"), "x").expect("a file");
        fs::hard_link(root.join("d/file"), root.join("d/twin")).expect("a link");
        symlink("/etc/shadow", root.join("d/out")).expect("a link");
        fs::set_permissions(root.join("d/file"), fs::Permissions::from_mode(0o600)).expect("a mode");
        std::os::unix::net::UnixListener::bind(root.join("d/socket")).expect("a socket");
        let start = open_start(&root).expect("it is there");
        let ids = |_, _| (7, 8);
        let mut writer = TreeWriter::new(Vec::new(), &ids);
        writer
            .tree(start.as_fd(), OsStr::new("d"), b"new")
            .expect("archived");
        let bytes = writer.finish().expect("memory");
        let none = String::new;
        assert_eq!(
            listed(&bytes),
            [
                ("new/".into(), Kind::Directory, none()),
                ("new/deep/".into(), Kind::Directory, none()),
                ("new/file".into(), Kind::File, none()),
                ("new/out".into(), Kind::Symlink, "/etc/shadow".into()),
                ("new/twin".into(), Kind::HardLink, "new/file".into()),
            ]
        );
        let mut writer = TreeWriter::new(Vec::new(), &ids);
        writer
            .tree(start.as_fd(), OsStr::new("."), b".")
            .expect("archived");
        let names: Vec<String> = listed(&writer.finish().expect("memory"))
            .into_iter()
            .map(|row| row.0)
            .collect();
        assert_eq!(names[..3], ["./", "./d/", "./d/deep/"]);
    }

    #[test]
    fn a_tree_that_is_too_deep_is_refused() {
        let tree = tempfile::tempdir().expect("a folder");
        let root = tree.path().join("tree");
        fs::create_dir(&root).expect("a folder");
        for _ in 0..=DEPTH_MAX {
            let next = tree.path().join("next");
            fs::create_dir(&next).expect("a folder");
            fs::rename(&root, next.join("d")).expect("moved");
            fs::rename(&next, &root).expect("moved");
        }
        let start = open_start(tree.path()).expect("it is there");
        let ids = |uid, gid| (uid, gid);
        let mut writer = TreeWriter::new(std::io::sink(), &ids);
        let refused = writer
            .tree(start.as_fd(), OsStr::new("tree"), b"tree")
            .expect_err("too deep");
        assert!(matches!(refused, TreeError::TooDeep { .. }), "{refused}");
    }
}
