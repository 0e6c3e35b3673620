//! Tars that are damaged, odd or too much, in every format there is.

use std::fs;
use std::path::Path;

use super::build::header;
use super::hostile::{Ground, allowed, names, new, refused};
use super::root;
use crate::limits::Limits;
use crate::unpack::{UnpackError, Unpacked};

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
