//! What is small and means harm: configurations, indexes, tokens, errors, and tags that move.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use serde_json::{Value, json};

use super::hostile::{refused, refused_by, spoilt};
use super::server::{CONFIG, GZIP, INDEX, MANIFEST, Request, Server, Shelf, Wire, answer, client, reply};
use super::{TarBuilder, config, gzip, inventory, layers, pull, reference, root};
use crate::*;

/// Writes for as long as somebody reads.
pub(super) fn without_end(wire: &mut dyn Wire, status: u16, headers: &[(&str, &str)], chunk: &[u8]) {
    let headers = [headers, &[("Transfer-Encoding", "chunked")]].concat();
    drop(wire.write_all(&answer(status, &headers, b"")));
    let chunk = [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
    while wire.write_all(&chunk).is_ok() {}
}

/// A byte now and then. The channel is never sent to: it only tells the time.
pub(super) fn drip(wire: &mut dyn Wire, bytes: &[u8]) {
    let (_sender, clock) = mpsc::channel::<()>();
    for byte in bytes {
        let sent = wire
            .write_all(std::slice::from_ref(byte))
            .and_then(|()| wire.flush());
        if sent.is_err() || clock.recv_timeout(Duration::from_millis(4)) == Ok(()) {
            break;
        }
    }
}

/// An image whose configuration is `bytes`, which the registry has under their digest.
fn with_config(bytes: &[u8]) -> Server {
    let shelf = Shelf::default();
    let configuration = shelf.blob(CONFIG, bytes);
    let layer = shelf.blob(GZIP, &gzip(&layers()[0]));
    let document = json!({"schemaVersion": 2, "config": configuration, "layers": [layer]});
    shelf.manifest("1", MANIFEST, &document);
    Server::start(move |request, wire| shelf.answer(request, wire))
}

#[test]
fn configurations_that_are_none() {
    if !root("configurations_that_are_none") {
        return;
    }
    let good = String::from_utf8(config(&layers()[..1], json!({}))).expect("text");
    let deep = format!("{{\"os\":\"linux\",\"config\":{}", "[".repeat(200_000));
    let twice = good.replacen("\"os\":\"linux\"", "\"os\":\"linux\",\"os\":\"linux\"", 1);
    let two_layers = String::from_utf8(config(&layers()[..2], json!({}))).expect("text");
    for (what, bytes, words) in [
        ("no JSON", "\u{1b}[31mnot JSON", "cannot use image"),
        ("deep", &deep, "cannot use image"),
        ("keys twice", &twice, "duplicate field"),
        (
            "another number of layers",
            &two_layers,
            "its configuration says 2",
        ),
    ] {
        refused(what, &with_config(bytes.as_bytes()), words);
    }
    let giant = vec![b' '; 5 << 20];
    refused("giant", &with_config(&giant), "of more than");
}

#[test]
fn configurations_that_are_not_what_was_asked_for() {
    if !root("configurations_that_are_not_what_was_asked_for") {
        return;
    }
    type Spoil = fn(&mut dyn Wire, Vec<u8>);
    let good = config(&layers(), json!({}));
    let cases: [(&str, &str, Spoil); 5] = [
        ("other bytes", "with digest sha256:", |wire, mut bytes| {
            bytes[9] ^= 1;
            reply(wire, 200, &[], &bytes);
        }),
        ("too short", "with digest sha256:", |wire, bytes| {
            reply(wire, 200, &[], &bytes[..20])
        }),
        ("too long", "of more than", |wire, mut bytes| {
            bytes.push(b' ');
            reply(wire, 200, &[], &bytes);
        }),
        ("without end", "of more than", |wire, bytes| {
            without_end(wire, 200, &[], &bytes)
        }),
        ("dripping", "did not answer in time", |wire, bytes| {
            drip(wire, &answer(200, &[], &bytes))
        }),
    ];
    for (what, words, spoil) in cases {
        let (bytes, digest) = (good.clone(), Digest::of(&good).to_string());
        let server = spoilt(move |request, wire| {
            let is_config = request.path.ends_with(&digest);
            if is_config {
                spoil(wire, bytes.clone());
            }
            is_config
        });
        refused(what, &server, words);
    }
}

#[test]
fn indexes_that_lead_nowhere() {
    if !root("indexes_that_lead_nowhere") {
        return;
    }
    let serve = |fill: &dyn Fn(&Shelf) -> Value| {
        let shelf = Shelf::default();
        let index = fill(&shelf);
        shelf.manifest("1", INDEX, &index);
        Server::start(move |request, wire| shelf.answer(request, wire))
    };
    let nested = serve(&|shelf| {
        let inner = shelf.image("inner", &layers()[..1], &gzip);
        (0..6).fold(
            json!({"schemaVersion": 2, "manifests": [inner]}),
            |index, number| {
                let inner = shelf.manifest(&format!("nested{number}"), INDEX, &index);
                json!({"schemaVersion": 2, "manifests": [inner]})
            },
        )
    });
    refused("nested without end", &nested, "nested too deeply");
    assert!(nested.requests().len() <= 8, "{}", nested.requests().len());
    let gone = json!({"mediaType": MANIFEST, "digest": Digest::of(b"gone"), "size": 4});
    let many = serve(&|_| json!({"schemaVersion": 2, "manifests": vec![gone.clone(); 5000]}));
    refused("thousands of manifests", &many, "5000 manifests");
    refused(
        "a manifest that is not there",
        &serve(&|_| json!({"schemaVersion": 2, "manifests": [gone]})),
        "is not in",
    );
    refused(
        "no manifests",
        &serve(&|_| json!({"schemaVersion": 2, "manifests": []})),
        "linux/",
    );
    let longer = serve(&|shelf| {
        let mut inner = shelf.image("inner", &layers()[..1], &gzip);
        inner["size"] = json!(7);
        json!({"schemaVersion": 2, "manifests": [inner]})
    });
    refused("another size", &longer, "its index says it has 7 bytes");
}

#[test]
fn a_tag_that_moves_between_requests_gives_one_image_or_the_other() {
    if !root("a_tag_that_moves_between_requests_gives_one_image_or_the_other") {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let store = ImageStore::open(dir.path()).expect("open");
    let shelf = Shelf::default();
    let images = [
        shelf.image("even", &layers()[..2], &gzip),
        shelf.image("odd", &layers()[2..], &gzip),
    ];
    let asked = Arc::new(AtomicUsize::new(0));
    let (served, count) = (shelf.clone(), Arc::clone(&asked));
    // Whoever asks by tag sees another image each time, and no request by digest is like that.
    let server = Server::start(move |request: &Request, wire: &mut dyn Wire| {
        let mut request = request.clone();
        if request.path.ends_with("/manifests/1") {
            let name = ["even", "odd"][count.fetch_add(1, Ordering::SeqCst) % 2];
            request.path = request
                .path
                .replace("/manifests/1", &format!("/manifests/{name}"));
        }
        served.answer(&request, wire);
    });
    let name = reference(&server, "a:1");
    for (number, image) in images.iter().enumerate() {
        let pulled = pull(&store, &client(&[&server]), &name).expect("one of them");
        assert_eq!(pulled.digest.to_string(), image["digest"]);
        assert_eq!(asked.load(Ordering::SeqCst), number + 1, "the tag is read once");
        let top = store.resolve(&name.to_string()).expect("named").layers[0].join("top");
        assert_eq!(std::fs::read(top).expect("a file"), [number as u8 * 2 + 1; 3]);
    }
    // The name has moved; what it was before has lost it and is there by its digest, as in Docker.
    assert_eq!(store.list().expect("list").len(), 2);
}

#[test]
fn tokens_and_errors_without_end_or_sense() {
    if !root("tokens_and_errors_without_end_or_sense") {
        return;
    }
    type Spoil = fn(&mut dyn Wire);
    let cases: [(&str, &str, Spoil); 6] = [
        ("a token without end", "of more than", |wire| {
            without_end(wire, 200, &[], &[b' '; 4096])
        }),
        ("a dripping token", "did not answer in time", |wire| {
            drip(wire, &answer(200, &[], &[b' '; 4096]))
        }),
        ("a deep token", "sent no token", |wire| {
            reply(wire, 200, &[], "[".repeat(30_000).as_bytes())
        }),
        ("a token service that redirects", "redirects", |wire| {
            reply(wire, 302, &[("Location", "/elsewhere")], b"")
        }),
        ("an error of it without end", "answered 500", |wire| {
            without_end(wire, 500, &[], b"{\"errors\":[")
        }),
        ("a long token", "", |wire| {
            let token = json!({"token": "t".repeat(60 << 10)}).to_string();
            reply(wire, 200, &[], token.as_bytes());
        }),
    ];
    for (what, words, spoil) in cases {
        let server = Server::start(move |request, wire| match request.path.starts_with("/token") {
            true => spoil(wire),
            false => {
                let challenge = format!("Bearer realm=\"http://{}/token\"", request.header("host"));
                reply(wire, 401, &[("WWW-Authenticate", &challenge)], b"");
            }
        });
        refused(what, &server, words);
    }
    for (what, words, spoil) in [
        (
            "an error without end",
            "answered 500",
            (|wire| without_end(wire, 500, &[], b"{\"errors\":[")) as Spoil,
        ),
        ("a terminal's commands in an error", "answered 418", |wire| {
            let said = "{\"errors\":[{\"code\":\"X\",\"message\":\"\\u001b[31mred\\nline\"}]}";
            reply(wire, 418, &[], said.as_bytes());
        }),
        ("a head that drips", "did not answer in time", |wire| {
            drip(wire, &answer(200, &[("X-Filler", &"x".repeat(2000))], b""))
        }),
        ("no HTTP", "breaks the protocol", |wire| {
            drop(wire.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"));
        }),
    ] {
        let error = refused(what, &Server::start(move |_, wire| spoil(wire)), words);
        assert!(!client_message(&error).contains('\u{1b}'), "{what}");
    }
}

#[test]
fn waits_that_nobody_can_want() {
    if !root("waits_that_nobody_can_want") {
        return;
    }
    // Beyond what a clock can hold, and no number at all: the first is not waited for, the others are as if nothing was said.
    for (after, requests) in [
        ("18446744073709551615", 1),
        ("9223372036854775807", 1),
        ("99999999999999999999999", 4),
        ("-1", 4),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 4),
    ] {
        let server = Server::start(move |_, wire| reply(wire, 429, &[("Retry-After", after)], b""));
        refused(after, &server, "too many requests");
        assert_eq!(server.requests().len(), requests, "{after}");
    }
}

#[test]
fn layers_that_mean_harm_are_refused_on_their_way() {
    if !root("layers_that_mean_harm_are_refused_on_their_way") {
        return;
    }
    let new = TarBuilder::new;
    let mut negative = new().file("a", b"").finish();
    negative[124..136].copy_from_slice(&[0xff; 12]);
    let sum: u32 = negative[..512]
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            if (148..156).contains(&at) {
                32
            } else {
                u32::from(*byte)
            }
        })
        .sum();
    negative[148..156].copy_from_slice(format!("{sum:07o}\0").as_bytes());
    let sparse: [(&str, &[u8]); 4] = [
        ("GNU.sparse.major", b"0"),
        ("GNU.sparse.minor", b"1"),
        ("GNU.sparse.size", b"9223372036854775807"),
        ("GNU.sparse.map", b"0,1"),
    ];
    let many = (0..2000).fold(new(), |tar, number| tar.file(&format!("f{number}"), b""));
    for (what, tar, words) in [
        (
            "a way out",
            new().file("../../etc/x", b"x").finish(),
            "leads out of the root",
        ),
        (
            "a link's target outside",
            new().hard_link("x", "../../etc/passwd").finish(),
            "leads out of the root",
        ),
        (
            "a hard link through a link",
            new().symlink("l", "/etc").hard_link("x", "l/passwd").finish(),
            "cannot find the target",
        ),
        (
            "a whiteout outside",
            new().file("../.wh.images", b"").finish(),
            "leads out of the root",
        ),
        (
            "links in a circle",
            new()
                .symlink("a", "b")
                .symlink("b", "a")
                .file("a/x", b"")
                .finish(),
            "cannot open the folder",
        ),
        ("a size below zero", negative, "cannot"),
        (
            "a file larger than all flash",
            new().pax(&sparse).file("s", b"x").finish(),
            "cannot",
        ),
        (
            "a name without end",
            new()
                .raw(b'L', b"././@LongLink", b"", 0o644, &[b'n'; 70_000])
                .file("x", b"")
                .finish(),
            "cannot",
        ),
        (
            "an entry that is cut off",
            many.clone().finish()[..512 * 1000 + 100].to_vec(),
            "cannot",
        ),
        ("no tar", vec![b'x'; 4096], "cannot"),
    ] {
        let (packed, diff_id) = (gzip(&tar), Digest::of(&tar));
        refused(what, &super::hostile::with_layer(packed, diff_id), words);
    }
    let limits = Limits {
        layer_entries_max: 1000,
        ..Limits::DEVICE
    };
    let tar = many.finish();
    let server = super::hostile::with_layer(gzip(&tar), Digest::of(&tar));
    refused_by(limits, "thousands of entries", &server, "1000");
}

#[test]
fn what_was_refused_takes_nothing_from_what_is_there() {
    if !root("what_was_refused_takes_nothing_from_what_is_there") {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let store = ImageStore::open(dir.path()).expect("open");
    let shelf = Shelf::default();
    shelf.image("good", &layers()[..2], &gzip);
    let served = shelf.clone();
    let server = Server::start(move |request, wire| served.answer(request, wire));
    pull(&store, &client(&[&server]), &reference(&server, "a:good")).expect("pulled");
    let before = inventory(dir.path());
    // It shares a layer with the good one, and its second is none.
    let lower = &layers()[0];
    let configuration = shelf.blob(CONFIG, &config(&[lower.clone(), b"x".to_vec()], json!({})));
    let parts = [shelf.blob(GZIP, &gzip(lower)), shelf.blob(GZIP, b"no gzip")];
    shelf.manifest(
        "bad",
        MANIFEST,
        &json!({"schemaVersion": 2, "config": configuration, "layers": parts}),
    );
    pull(&store, &client(&[&server]), &reference(&server, "a:bad")).expect_err("its layer is none");
    assert_eq!(inventory(dir.path()), before);
    let whole = store
        .resolve(&reference(&server, "a:good").to_string())
        .expect("still there");
    assert_eq!(whole.layers.len(), 2);
}
