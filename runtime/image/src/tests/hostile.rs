//! Layers that mean harm. Each is unpacked into a folder beside a witness that must not change.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::build::TarBuilder;
use super::root;
use crate::limits::Limits;
use crate::recipe::{self, Rebuilt, Taping};
use crate::tree::create_private;
use crate::unpack::{UnpackError, Unpacked, unpack};
use kakoi_archive::tarball::Reader;

/// A root under construction, and what lies around it.
pub(super) struct Ground {
    dir: tempfile::TempDir,
}

impl Ground {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().expect("folder");
        for folder in ["root", "outside"] {
            fs::create_dir(dir.path().join(folder)).expect("folder");
        }
        fs::write(dir.path().join("outside/witness"), b"untouched").expect("file");
        Self { dir }
    }

    pub(super) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub(super) fn outside(&self) -> String {
        self.dir.path().join("outside").to_string_lossy().into_owned()
    }

    /// Unpacks, looks that nothing happened elsewhere, and that the tar can be made anew.
    pub(super) fn unpack(&self, tar: &[u8], limits: &Limits) -> Result<Unpacked, UnpackError> {
        let work = tempfile::tempdir_in(self.dir.path().parent().expect("a folder above")).expect("folder");
        let scratch = work.path().join("scratch");
        fs::create_dir(&scratch).expect("folder");
        let recipe = create_private(&work.path().join("draft")).expect("file");
        let mut reader = Reader::new(Taping::new(tar, recipe::Writer::new(recipe).expect("recipe")));
        let result = unpack(&mut reader, &self.root(), &scratch, limits);
        let result = result.map(|(unpacked, orphans)| {
            let mut rest = reader.into_inner();
            std::io::copy(&mut rest, &mut std::io::sink()).expect("the rest");
            rest.into_parts().1.finish().expect("recipe");
            let settled = work.path().join("settled");
            let file = create_private(&settled).expect("file");
            recipe::settle(&work.path().join("draft"), &orphans, file).expect("settled");
            let mut rebuilt = Vec::new();
            let mut tar_anew = Rebuilt::open(&settled, &self.root()).expect("recipe");
            tar_anew.read_to_end(&mut rebuilt).expect("made anew");
            assert!(rebuilt == tar, "the tar made anew differs");
            unpacked
        });
        let around: Vec<String> = names(self.dir.path());
        assert_eq!(around, ["outside", "root"], "something appeared beside the root");
        assert_eq!(names(&self.dir.path().join("outside")), ["witness"]);
        let witness = self.dir.path().join("outside/witness");
        assert_eq!(fs::read(&witness).expect("witness"), b"untouched");
        let meta = fs::metadata(&witness).expect("witness");
        assert_eq!((meta.nlink(), meta.mode() & 0o7777), (1, 0o644));
        result
    }
}

pub(super) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("list")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

pub(super) fn refused(name: &str, tar: impl FnOnce(&Ground) -> Vec<u8>, words: &str) {
    let ground = Ground::new();
    let tar = tar(&ground);
    let error = ground
        .unpack(&tar, &Limits::DEVICE)
        .err()
        .unwrap_or_else(|| panic!("{name} was not refused"));
    let mut text = error.to_string();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    assert!(text.contains(words), "{name}: {text}");
}

pub(super) fn allowed(
    name: &str,
    tar: impl FnOnce(&Ground) -> Vec<u8>,
    check: impl FnOnce(&Path, &Unpacked),
) {
    let ground = Ground::new();
    let tar = tar(&ground);
    let unpacked = ground
        .unpack(&tar, &Limits::DEVICE)
        .unwrap_or_else(|error| panic!("{name}: {error:?}"));
    check(&ground.root(), &unpacked);
}

pub(super) fn new() -> TarBuilder {
    TarBuilder::new()
}

#[test]
fn what_leads_out_is_refused() {
    if !root("what_leads_out_is_refused") {
        return;
    }
    for name in [
        "../outside/witness",
        "a/../../outside/witness",
        "/../outside/x",
        "..",
        "./../root/../outside/x",
    ] {
        refused(name, |_| new().file(name, b"x").finish(), "leads out of the root");
        refused(
            name,
            |_| new().symlink(name, "x").finish(),
            "leads out of the root",
        );
        refused(name, |_| new().dir(name, 0o777).finish(), "leads out of the root");
        refused(
            name,
            |_| new().hard_link("x", name).finish(),
            "leads out of the root",
        );
    }
    refused(
        "whiteout outside",
        |_| new().file("../outside/.wh.witness", b"").finish(),
        "leads out of the root",
    );
    // Links of a layer's own making do not lead out either: they are read as a process inside reads them.
    for target in ["OUTSIDE", "../outside", "../../../../../../../../OUTSIDE"] {
        let named = |ground: &Ground| target.replace("OUTSIDE", &ground.outside());
        allowed(
            "file through a link",
            |ground| {
                new()
                    .symlink("link", &named(ground))
                    .file("link/witness", b"x")
                    .finish()
            },
            |_, _| {},
        );
        allowed(
            "whiteout through a link",
            |ground| {
                new()
                    .symlink("link", &named(ground))
                    .file("link/.wh.witness", b"")
                    .finish()
            },
            |_, _| {},
        );
        allowed(
            "opaque through a link",
            |ground| {
                new()
                    .symlink("link", &named(ground))
                    .file("link/.wh..wh..opq", b"")
                    .finish()
            },
            |_, _| {},
        );
        allowed(
            "mode and owner through a link",
            |ground| new().symlink("link", &named(ground)).dir("link/", 0o777).finish(),
            |root, _| {
                assert!(
                    fs::symlink_metadata(root.join("link"))
                        .expect("replaced")
                        .is_dir()
                )
            },
        );
        refused(
            "hard link through a link",
            |ground| {
                new()
                    .symlink("link", &named(ground))
                    .hard_link("x", "link/witness")
                    .finish()
            },
            "cannot find the target",
        );
        allowed(
            "a link replaced by a file is not written through",
            |ground| {
                new()
                    .symlink("f", &format!("{}/witness", named(ground)))
                    .file("f", b"x")
                    .finish()
            },
            |root, _| assert_eq!(fs::read(root.join("f")).expect("file"), b"x"),
        );
        allowed(
            "a hard link to a link is not written through",
            |ground| {
                let target = format!("{}/witness", named(ground));
                new()
                    .symlink("l", &target)
                    .hard_link("h", "l")
                    .file("h", b"x")
                    .finish()
            },
            |root, _| assert_eq!(fs::read(root.join("h")).expect("file"), b"x"),
        );
    }
    allowed(
        "links in a row",
        |ground| {
            let links = new()
                .symlink("a", "b")
                .symlink("b", "c/d")
                .dir("c/", 0o755)
                .symlink("c/d", &ground.outside());
            links.file("a/e/witness", b"x").finish()
        },
        |root, _| assert!(root.join("c").exists()),
    );
    refused(
        "a circle",
        |_| {
            new()
                .symlink("a", "b")
                .symlink("b", "a")
                .file("a/x", b"")
                .finish()
        },
        "cannot open the folder",
    );
    refused(
        "a file as folder",
        |_| new().file("a", b"").file("a/x", b"").finish(),
        "cannot open the folder",
    );
    allowed(
        "absolute names mean the root",
        |_| new().file("/etc/x", b"x").file("//y", b"y").finish(),
        |root, _| {
            assert_eq!(fs::read(root.join("etc/x")).expect("file"), b"x");
            assert_eq!(fs::read(root.join("y")).expect("file"), b"y");
        },
    );
}

#[test]
fn whiteouts_cannot_be_forged_or_misled() {
    if !root("whiteouts_cannot_be_forged_or_misled") {
        return;
    }
    for name in [".wh.", "a/.wh.", ".wh..", ".wh...", "a/.wh..."] {
        refused(
            name,
            |_| new().dir("a/", 0o755).file(name, b"").finish(),
            "whiteout of nothing",
        );
    }
    refused(
        "device 0:0",
        |_| new().device(b'3', "x", 0, 0).finish(),
        "would be a whiteout",
    );
    refused(
        "hard link to a whiteout",
        |_| new().file(".wh.a", b"").hard_link("b", "a").finish(),
        "target is no file",
    );
    refused(
        "below a whiteout",
        |_| new().file(".wh.a/b", b"").finish(),
        "named like a whiteout",
    );
    refused(
        "folder link to a whiteout name",
        |_| new().symlink("l", ".wh.q").file("l/x", b"").finish(),
        "bad name",
    );
    let is_whiteout = |path: PathBuf| {
        fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_char_device() && meta.rdev() == 0)
    };
    let is_opaque = |path: PathBuf| {
        let folder = File::open(path).expect("folder");
        kakoi_sys::xattr::get(folder.as_fd(), c"trusted.overlay.opaque", 8)
            .expect("attribute")
            .is_some()
    };
    allowed(
        "plain",
        |_| {
            new()
                .dir("d/", 0o755)
                .file("d/.wh.gone", b"")
                .file(".wh..wh.plnk", b"")
                .file(".wh..wh.aufs", b"")
                .finish()
        },
        |root, _| {
            assert!(is_whiteout(root.join("d/gone")) && !is_opaque(root.join("d")));
            assert_eq!(names(root), ["d"]);
        },
    );
    allowed(
        "a whiteout in the layer that brings the name anew",
        |_| {
            new()
                .file("f", b"new")
                .file(".wh.f", b"")
                .file(".wh.g", b"")
                .file("g", b"new")
                .finish()
        },
        |root, _| {
            assert_eq!(fs::read(root.join("f")).expect("file"), b"new");
            assert_eq!(fs::read(root.join("g")).expect("file"), b"new");
        },
    );
    allowed(
        "the same for folders, which then hide what is below",
        |_| {
            new()
                .dir("d/", 0o755)
                .file(".wh.d", b"")
                .file(".wh.e", b"")
                .dir("e/", 0o755)
                .dir("f/", 0o755)
                .finish()
        },
        |root, _| {
            assert!(is_opaque(root.join("d")) && is_opaque(root.join("e")) && !is_opaque(root.join("f")))
        },
    );
    allowed(
        "the root itself opaque",
        |_| new().file(".wh..wh..opq", b"").finish(),
        |root, _| assert!(is_opaque(root.to_owned())),
    );
}

#[test]
fn special_things_are_kept_or_left_out_as_documented() {
    if !root("special_things_are_kept_or_left_out_as_documented") {
        return;
    }
    // cap_net_bind_service, in the kernel's second format.
    let capability: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    allowed(
        "attributes",
        |_| {
            new()
                .pax(&[
                    ("SCHILY.xattr.security.capability", capability),
                    ("SCHILY.xattr.user.note", b"kept"),
                    ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
                    ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
                    ("SCHILY.xattr.trusted.overlay.metacopy", b""),
                    ("SCHILY.xattr.security.selinux", b"x"),
                ])
                .file("f", b"")
                .pax(&[
                    ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
                    ("SCHILY.xattr.trusted.overlay.redirect", b"/"),
                ])
                .dir("d/", 0o755)
                .finish()
        },
        |root, unpacked| {
            let file = File::open(root.join("f")).expect("file");
            let get =
                |name: &std::ffi::CStr| kakoi_sys::xattr::get(file.as_fd(), name, 256).expect("attribute");
            assert_eq!(get(c"security.capability").as_deref(), Some(capability));
            assert_eq!(get(c"user.note").as_deref(), Some(&b"kept"[..]));
            for name in [
                c"user.overlay.redirect",
                c"trusted.overlay.redirect",
                c"trusted.overlay.metacopy",
            ] {
                assert_eq!(get(name), None, "{name:?}");
            }
            let folder = File::open(root.join("d")).expect("folder");
            let opaque =
                kakoi_sys::xattr::get(folder.as_fd(), c"trusted.overlay.opaque", 8).expect("attribute");
            assert_eq!((opaque, unpacked.xattrs_left_out), (None, 6));
        },
    );
    allowed(
        "devices and pipes",
        |_| {
            let tar = new().device(b'3', "null", 1, 3).device(b'4', "sda", 8, 0);
            tar.raw(b'6', b"pipe", b"", 0o640, b"").finish()
        },
        |root, unpacked| {
            assert_eq!(
                (names(root), unpacked.devices_left_out),
                (vec!["pipe".to_owned()], 2)
            );
            let meta = fs::symlink_metadata(root.join("pipe")).expect("pipe");
            assert!(meta.file_type().is_fifo() && meta.mode() & 0o7777 == 0o640);
        },
    );
    allowed(
        "modes, owners, times",
        |_| {
            new()
                .pax(&[("uid", b"1234"), ("gid", b"5678"), ("mtime", b"1600000000.25")])
                .raw(b'0', b"su", b"", 0o4755, b"x")
                .raw(b'5', b"tmp/", b"", 0o1777, b"")
                .pax(&[("mtime", b"-1.5"), ("uid", b"7")])
                .symlink("l", "/anywhere")
                .file("tmp/later", b"")
                .finish()
        },
        |root, _| {
            let su = fs::metadata(root.join("su")).expect("file");
            assert_eq!((su.uid(), su.gid(), su.mode() & 0o7777), (1234, 5678, 0o4755));
            assert_eq!((su.mtime(), su.mtime_nsec()), (1_600_000_000, 250_000_000));
            let tmp = fs::metadata(root.join("tmp")).expect("folder");
            assert_eq!((tmp.mode() & 0o7777, tmp.mtime()), (0o1777, 1_700_000_000));
            let link = fs::symlink_metadata(root.join("l")).expect("link");
            assert_eq!(
                (link.uid(), link.mtime(), link.mtime_nsec()),
                (7, -2, 500_000_000)
            );
        },
    );
}

#[test]
fn later_entries_replace_earlier_ones() {
    if !root("later_entries_replace_earlier_ones") {
        return;
    }
    allowed(
        "kinds change",
        |_| {
            new()
                .file("a", b"file")
                .dir("a/", 0o755)
                .file("a/inside", b"x")
                .dir("b/", 0o755)
                .file("b/deep/er/file", b"x")
                .file("b", b"file")
                .symlink("c", "a")
                .dir("c/", 0o700)
                .file("c/inside", b"y")
                .file("d", b"1")
                .file("d", b"2")
                .hard_link("d", "d")
                .hard_link("e", "d")
                .file("d", b"3")
                .finish()
        },
        |root, _| {
            assert_eq!(fs::read(root.join("a/inside")).expect("file"), b"x");
            assert_eq!(fs::read(root.join("b")).expect("file"), b"file");
            assert_eq!(fs::read(root.join("c/inside")).expect("file"), b"y");
            assert_eq!(fs::read(root.join("d")).expect("file"), b"3");
            assert_eq!(
                fs::read(root.join("e")).expect("a file with a second name is replaced, not written"),
                b"2"
            );
        },
    );
    allowed(
        "the folder of the last entry is replaced",
        |_| {
            new()
                .dir("d/", 0o755)
                .file("d/a", b"x")
                .symlink("d", "e")
                .file("d/b", b"y")
                .finish()
        },
        |root, _| {
            assert_eq!(names(root), ["d", "e"]);
            assert_eq!(names(&root.join("e")), ["b"]);
        },
    );
    allowed(
        "a parent through a link whose target comes later",
        |_| {
            new()
                .symlink("lib", "usr/lib")
                .file("lib/x", b"x")
                .dir("usr/", 0o755)
                .dir("usr/lib/", 0o711)
                .finish()
        },
        |root, _| {
            assert_eq!(fs::read(root.join("usr/lib/x")).expect("file"), b"x");
            assert_eq!(
                fs::metadata(root.join("usr/lib")).expect("folder").mode() & 0o7777,
                0o711
            );
        },
    );
    refused(
        "the root by a file",
        |_| new().file("./", b"x").finish(),
        "replace the root",
    );
    refused(
        "the root by a link",
        |_| new().symlink(".", "/etc").finish(),
        "replace the root",
    );
    refused(
        "a link to nothing",
        |_| new().symlink("x", "").finish(),
        "link to nothing",
    );
    refused(
        "a hard link to a folder",
        |_| new().dir("d/", 0o755).hard_link("x", "d").finish(),
        "target is no file",
    );
    refused(
        "a hard link to nothing",
        |_| new().hard_link("x", "y").finish(),
        "cannot find the target",
    );
    refused(
        "a hard link to the root",
        |_| new().hard_link("x", "/").finish(),
        "target is the root",
    );
}
