//! Layers that mean harm. Each is unpacked into a folder beside a witness that must not change.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::build::{TarBuilder, header};
use super::root;
use crate::limits::Limits;
use crate::recipe::{self, Rebuilt, Taping};
use crate::tarball::Reader;
use crate::tree::create_private;
use crate::unpack::{UnpackError, Unpacked, unpack};

/// A root under construction, and what lies around it.
struct Ground {
    dir: tempfile::TempDir,
}

impl Ground {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("folder");
        for folder in ["root", "outside"] {
            fs::create_dir(dir.path().join(folder)).expect("folder");
        }
        fs::write(dir.path().join("outside/witness"), b"untouched").expect("file");
        Self { dir }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn outside(&self) -> String {
        self.dir.path().join("outside").to_string_lossy().into_owned()
    }

    /// Unpacks, looks that nothing happened elsewhere, and that the tar can be made anew.
    fn unpack(&self, tar: &[u8], limits: &Limits) -> Result<Unpacked, UnpackError> {
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

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("list")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn refused(name: &str, tar: impl FnOnce(&Ground) -> Vec<u8>, words: &str) {
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

fn allowed(name: &str, tar: impl FnOnce(&Ground) -> Vec<u8>, check: impl FnOnce(&Path, &Unpacked)) {
    let ground = Ground::new();
    let tar = tar(&ground);
    let unpacked = ground
        .unpack(&tar, &Limits::DEVICE)
        .unwrap_or_else(|error| panic!("{name}: {error:?}"));
    check(&ground.root(), &unpacked);
}

fn new() -> TarBuilder {
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

#[test]
fn formats_are_read_in_full_or_refused() {
    if !root("formats_are_read_in_full_or_refused") {
        return;
    }
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let deep = format!("{}x", "d/".repeat(1500));
    allowed(
        "long names",
        |_| {
            new()
                .raw(b'L', b"././@LongLink", b"", 0, format!("{long}\0").as_bytes())
                .file("short", b"gnu")
                .pax(&[("path", deep.as_bytes())])
                .file("short", b"pax")
                .raw(
                    b'K',
                    b"././@LongLink",
                    b"",
                    0,
                    format!("{}\0", "t".repeat(300)).as_bytes(),
                )
                .symlink("link", "short")
                .raw(b'g', b"global", b"", 0, b"19 path=everywhere\n")
                .file("after-global", b"x")
                .finish()
        },
        |root, _| {
            assert_eq!(fs::read(root.join(&long)).expect("file"), b"gnu");
            assert_eq!(fs::read(root.join(&deep)).expect("file"), b"pax");
            assert_eq!(
                fs::read_link(root.join("link")).expect("link").as_os_str().len(),
                300
            );
            assert!(root.join("after-global").exists());
        },
    );
    let name = "n".repeat(256);
    refused(
        "a name beyond the kernel's",
        |_| new().pax(&[("path", name.as_bytes())]).file("x", b"").finish(),
        "255",
    );
    let path = "p/".repeat(2048);
    refused(
        "a path beyond the kernel's",
        |_| new().pax(&[("path", path.as_bytes())]).file("x", b"").finish(),
        "longer than",
    );
    refused(
        "NUL",
        |_| new().pax(&[("path", b"a\0b")]).file("x", b"").finish(),
        "NUL",
    );
    refused(
        "id -1",
        |_| new().pax(&[("uid", b"4294967295")]).file("x", b"").finish(),
        "uid",
    );
    refused(
        "id beyond",
        |_| new().pax(&[("gid", b"4294967296")]).file("x", b"").finish(),
        "gid",
    );
    refused(
        "signed number",
        |_| new().pax(&[("size", b"-1")]).file("x", b"").finish(),
        "size",
    );
    for record in [
        &b"5 a=b\n"[..],
        b"999999 a=b\n",
        b"x a=b\n",
        b"6 abc\n",
        b"0 a=b\n",
        b"1 \n",
    ] {
        refused(
            "pax record",
            |_| new().raw(b'x', b"p", b"", 0, record).file("x", b"").finish(),
            "pax record",
        );
    }
    refused(
        "unknown type",
        |_| new().raw(b'V', b"x", b"", 0, b"").finish(),
        "unknown tar entry type",
    );
    refused(
        "truncated",
        |_| new().file("x", &[1; 600]).unfinished()[..700].to_vec(),
        "truncated",
    );
    refused(
        "cut header",
        |_| new().file("x", b"").unfinished()[..100].to_vec(),
        "truncated",
    );
    refused(
        "zero block in between",
        |_| new().body(&[0; 512]).file("x", b"").finish(),
        "after a zero block",
    );
    refused(
        "checksum",
        |_| {
            let mut tar = new().file("x", b"").finish();
            tar[0] ^= 1;
            tar
        },
        "checksum",
    );
    refused(
        "endless extension",
        |_| {
            let mut header = header(b'L', b"././@LongLink", b"", 0, 1 << 40);
            header.set_cksum();
            header.as_bytes().to_vec()
        },
        "exceed the limit",
    );
    let chain = |_: &Ground| {
        (0..20)
            .fold(new(), |tar, _| tar.raw(b'g', b"g", b"", 0, b""))
            .file("x", b"")
            .finish()
    };
    refused("a chain of extensions", chain, "exceed the limit");
    // The size of a link is no body, as in Go; else another reader would see other entries.
    allowed(
        "a link with a size",
        |_| {
            let mut link = header(b'2', b"l", b"t", 0o777, 512);
            link.set_cksum();
            [link.as_bytes().to_vec(), new().file("f", b"x").finish()].concat()
        },
        |root, _| assert_eq!(names(root), ["f", "l"]),
    );
    // TARmageddon (CVE-2025-62518): the size in the PAX record counts for the body and for the way to the next header.
    allowed(
        "pax size over header size",
        |_| {
            let inner = new().file("smuggled", b"x").unfinished();
            let size = inner.len().to_string();
            let mut outer = header(b'0', b"outer", b"", 0o644, 0);
            outer.set_cksum();
            let pax = new().pax(&[("size", size.as_bytes())]).unfinished();
            [pax, outer.as_bytes().to_vec(), inner, new().finish()].concat()
        },
        |root, _| assert_eq!(names(root), ["outer"]),
    );
}

#[test]
fn sparse_files_are_read_in_every_spelling() {
    if !root("sparse_files_are_read_in_every_spelling") {
        return;
    }
    let expected = [
        vec![0u8; 1000],
        b"data".to_vec(),
        vec![0; 496],
        b"more".to_vec(),
        vec![0; 500],
    ]
    .concat();
    let check = |root: &Path, _: &Unpacked| assert_eq!(fs::read(root.join("s")).expect("file"), expected);
    let body = b"datamore";
    allowed(
        "pax 0.1",
        |_| {
            let records: [(&str, &[u8]); 3] = [
                ("GNU.sparse.size", b"2004"),
                ("GNU.sparse.map", b"1000,4,1500,4"),
                ("GNU.sparse.name", b"s"),
            ];
            new().pax(&records).file("x", body).finish()
        },
        check,
    );
    allowed(
        "pax 0.0",
        |_| {
            let records: [(&str, &[u8]); 5] = [
                ("GNU.sparse.size", b"2004"),
                ("GNU.sparse.offset", b"1000"),
                ("GNU.sparse.numbytes", b"4"),
                ("GNU.sparse.offset", b"1500"),
                ("GNU.sparse.numbytes", b"4"),
            ];
            new().pax(&records).file("s", body).finish()
        },
        check,
    );
    let pax_1_0 = |map: &str, size: &[u8]| {
        let mut stored = map.as_bytes().to_vec();
        stored.resize(512, 0);
        stored.extend_from_slice(body);
        let records: [(&str, &[u8]); 4] = [
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"s"),
            ("GNU.sparse.realsize", size),
        ];
        new().pax(&records).file("x", &stored).finish()
    };
    allowed("pax 1.0", |_| pax_1_0("2\n1000\n4\n1500\n4\n", b"2004"), check);
    let old = |fragments: &[(u64, u64)], size: u64| {
        let mut header = header(b'S', b"s", b"", 0o644, body.len() as u64);
        let gnu = header.as_gnu_mut().expect("gnu");
        for (entry, (offset, length)) in gnu.sparse.iter_mut().zip(fragments) {
            entry.offset[..12].copy_from_slice(format!("{offset:011o}\0").as_bytes());
            entry.numbytes[..12].copy_from_slice(format!("{length:011o}\0").as_bytes());
        }
        gnu.set_real_size(size);
        header.set_cksum();
        [header.as_bytes().to_vec(), new().body(body).finish()].concat()
    };
    allowed("old GNU", |_| old(&[(1000, 4), (1500, 4)], 2004), check);
    refused(
        "overlapping",
        |_| old(&[(1000, 4), (1002, 4)], 2004),
        "sparse map does not fit",
    );
    refused(
        "backwards",
        |_| old(&[(1000, 4), (500, 4)], 2004),
        "sparse map does not fit",
    );
    refused(
        "beyond the end",
        |_| old(&[(1000, 4), (1500, 4)], 1000),
        "sparse map does not fit",
    );
    refused(
        "more than stored",
        |_| old(&[(0, 4), (100, 400)], 2004),
        "sparse map does not fit",
    );
    refused(
        "no numbers",
        |_| pax_1_0("x\n", b"2004"),
        "sparse map does not fit",
    );
    refused(
        "endless map",
        |_| pax_1_0(&"9".repeat(512), b"2004"),
        "sparse map does not fit",
    );
    refused(
        "too many",
        |_| pax_1_0("18446744073709551615\n", b"2004"),
        "sparse",
    );
    refused(
        "overflow",
        |_| pax_1_0("1\n18446744073709551615\n8\n", b"2004"),
        "sparse map does not fit",
    );
    // A hole costs nothing here, and everything where the image is copied.
    refused(
        "a hole of exabytes",
        |_| pax_1_0("2\n0\n4\n4\n4\n", b"9000000000000000000"),
        "exceeds the limit",
    );
}

#[test]
fn limits_hold_while_unpacking() {
    if !root("limits_hold_while_unpacking") {
        return;
    }
    let limits = Limits {
        layer_entries_max: 10,
        layer_bytes_max: 100,
        ..Limits::DEVICE
    };
    let files = |count: usize| {
        (0..count)
            .fold(new(), |tar, n| tar.file(&format!("f{n}"), b"x"))
            .finish()
    };
    assert_eq!(
        Ground::new().unpack(&files(10), &limits).expect("within").entries,
        10
    );
    let is_limit = |result| matches!(result, Err(UnpackError::Limit { .. }));
    assert!(is_limit(Ground::new().unpack(&files(11), &limits)));
    // Folders that nobody listed count as well.
    assert!(is_limit(
        Ground::new().unpack(&new().file("a/b/c/d/e/f/g/h/i/j/k", b"").finish(), &limits)
    ));
    assert!(
        Ground::new()
            .unpack(&new().file("a", &[0; 100]).finish(), &limits)
            .is_ok()
    );
    assert!(is_limit(Ground::new().unpack(
        &new().file("a", &[0; 50]).file("a", &[0; 51]).finish(),
        &limits
    )));
    // A folder is kept in memory until it gets its time.
    let names = Limits {
        folder_names_bytes_max: 100,
        ..Limits::DEVICE
    };
    let folders = |count: usize| {
        (0..count)
            .fold(new(), |tar, n| tar.dir(&format!("folder{n:04}/"), 0o755))
            .finish()
    };
    assert!(Ground::new().unpack(&folders(10), &names).is_ok());
    assert!(is_limit(Ground::new().unpack(&folders(11), &names)));
    // The size is judged before a byte is written.
    let mut huge = header(b'0', b"a", b"", 0o644, u64::MAX >> 2);
    huge.set_cksum();
    assert!(is_limit(Ground::new().unpack(huge.as_bytes(), &limits)));
}

/// Every layer that is one flipped byte away from a good one is unpacked or refused, and never leaves the root. Checksums are made right
/// again, else nothing would get past them.
#[test]
fn mutations_stay_inside() {
    if !root("mutations_stay_inside") {
        return;
    }
    let good = new()
        .dir("d/", 0o755)
        .symlink("d/l", "../../outside")
        .pax(&[
            ("path", b"d/l/witness"),
            ("SCHILY.xattr.user.x", b"y"),
            ("size", b"3"),
        ])
        .file("x", b"abc")
        .raw(b'L', b"././@LongLink", b"", 0, b"d/../d/long-name\0")
        .hard_link("short", "d/l")
        .file("d/.wh.gone", b"")
        .device(b'3', "null", 1, 3)
        .raw(b'S', b"s", b"", 0o644, b"")
        .finish();
    Ground::new()
        .unpack(&good, &Limits::DEVICE)
        .expect("the good one");
    let mut state = 0x6b61_6b6f_u64;
    let mut random = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let interesting = b"./\0\x80\xff01234567SxLKg=. \n";
    let (mut unpacked, mut refused) = (0, 0);
    for _ in 0..600 {
        let mut tar = good.clone();
        for _ in 0..=random(4) {
            let at = random(tar.len() - 1024);
            tar[at] = interesting[random(interesting.len())];
        }
        for block in tar
            .chunks_exact_mut(512)
            .filter(|block| &block[257..262] == b"ustar")
        {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        match Ground::new().unpack(&tar, &Limits::DEVICE) {
            Ok(_) => unpacked += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(
        unpacked > 20 && refused > 20,
        "{unpacked} unpacked, {refused} refused: the test has lost its point"
    );
}
