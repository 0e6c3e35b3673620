//! Registries that mean harm or are broken: one clear error each, in bounded time, and nothing left in the store.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::json;

use super::documents::{drip, without_end};
use super::server::{CONFIG, GZIP, INDEX, MANIFEST, Request, Server, Shelf, Wire, answer, client, reply};
use super::{PAIR, TarBuilder, config, gzip, inventory, layers, pull, reference, root, secret, zstd};
use crate::registry::*;
use crate::*;

/// No case may take longer, however the other side behaves.
const TIME_MAX: Duration = Duration::from_secs(20);

/// Nor may this process ever need more memory, its servers with their bombs of 40 MiB included.
const PEAK_KIB_MAX: u64 = 192 << 10;

/// Pulls `a:1` from a server and expects an error whose whole chain holds `words`.
pub(super) fn refused(what: &str, server: &Server, words: &str) -> PullError {
    let limits = Limits {
        expansion_free_bytes: 1 << 20,
        expansion_max: 50,
        ..Limits::DEVICE
    };
    refused_by(limits, what, server, words)
}

/// The same by other limits.
pub(super) fn refused_by(limits: Limits, what: &str, server: &Server, words: &str) -> PullError {
    let dir = tempfile::tempdir().expect("folder");
    let store = ImageStore::open_limited(dir.path(), limits).expect("open");
    let since = Instant::now();
    let options = PullOptions {
        credentials: secret(),
        ..PullOptions::default()
    };
    let outcome = store.pull(&client(&[server]), &reference(server, "a:1"), &options, &|_| true);
    let error = outcome.expect_err(what);
    let said = client_message(&error);
    assert!(said.contains(words), "{what}: {said}");
    assert!(!said.contains('\n') && said.len() < 600, "{what}: {said}");
    assert!(since.elapsed() < TIME_MAX, "{what}: {:?}", since.elapsed());
    assert!(inventory(dir.path()).is_empty(), "{what}");
    let peak = super::super::fuzz::peak_kib();
    assert!(peak < PEAK_KIB_MAX, "{what}: {peak} KiB");
    error
}

/// A good registry but for what `spoil` answers itself, by answering true.
pub(super) fn spoilt(spoil: impl Fn(&Request, &mut dyn Wire) -> bool + Send + Sync + 'static) -> Server {
    let shelf = Shelf::default();
    shelf.image("1", &layers(), &gzip);
    Server::start(move |request, wire| {
        if !spoil(request, wire) {
            shelf.answer(request, wire);
        }
    })
}

/// The packed layers by the paths they are asked for by; packed once, since a server must not be slow by accident.
fn packed(request: &Request) -> Option<&'static [u8]> {
    static PACKED: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
    let all = PACKED.get_or_init(|| {
        let packed = layers().into_iter().map(|layer| gzip(&layer));
        packed
            .map(|bytes| (Digest::of(&bytes).to_string(), bytes))
            .collect()
    });
    let found = all.iter().find(|(digest, _)| request.path.ends_with(digest));
    found.map(|(_, bytes)| bytes.as_slice())
}

#[test]
fn bodies_that_are_not_what_they_should_be() {
    if !root("bodies_that_are_not_what_they_should_be") {
        return;
    }
    type Spoil = fn(&Request, &mut dyn Wire, Vec<u8>);
    let cases: [(&str, &str, Spoil); 7] = [
        ("other bytes", "with digest sha256:", |_, wire, mut bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            reply(wire, 200, &[], &bytes);
        }),
        ("noise", "with digest sha256:", |_, wire, bytes| {
            reply(wire, 200, &[], &vec![0xaa; bytes.len()])
        }),
        ("too short", "its descriptor says", |_, wire, bytes| {
            reply(wire, 200, &[], &bytes[..100])
        }),
        ("too long", "its descriptor says", |_, wire, mut bytes| {
            bytes.push(0);
            reply(wire, 200, &[], &bytes);
        }),
        ("without end", "its descriptor says", |_, wire, bytes| {
            without_end(wire, 200, &[], &bytes)
        }),
        ("cut off again and again", "cannot reach", |_, wire, bytes| {
            let whole = answer(200, &[], &bytes);
            drop(wire.write_all(&whole[..whole.len() / 3]));
        }),
        (
            "another part",
            "another part",
            |request, wire, bytes| match request.header("range").is_empty() {
                true => {
                    let whole = answer(200, &[], &bytes);
                    drop(wire.write_all(&whole[..whole.len() / 2]));
                }
                false => reply(wire, 206, &[("Content-Range", "bytes 7-9/10")], b"xyz"),
            },
        ),
    ];
    for (what, words, spoil) in cases {
        let server = spoilt(move |request, wire| {
            let layer = packed(request);
            if let Some(bytes) = layer {
                spoil(request, wire, bytes.to_vec());
            }
            layer.is_some()
        });
        refused(what, &server, words);
    }
}

#[test]
fn answers_that_do_not_come() {
    if !root("answers_that_do_not_come") {
        return;
    }
    // Silence from the start, and silence in the middle: the connection stays open until the client gives up.
    let silent = Server::start(|_, wire| drop(wire.read(&mut [0])));
    refused("no head", &silent, "did not answer in time");
    let stalls = spoilt(|request, wire| {
        let layer = packed(request);
        if let Some(bytes) = layer {
            drop(wire.write_all(&answer(200, &[], bytes)[..200]));
            drop(wire.read(&mut [0]));
        }
        layer.is_some()
    });
    refused("a stalled body", &stalls, "did not answer in time");
    let drips = spoilt(|request, wire| {
        let layer = packed(request);
        if let Some(bytes) = layer {
            drip(wire, &answer(200, &[], bytes));
        }
        layer.is_some()
    });
    refused("a dripping body", &drips, "did not answer in time");
}

#[test]
fn documents_that_are_too_much() {
    if !root("documents_that_are_too_much") {
        return;
    }
    let descriptor = json!({"mediaType": CONFIG, "digest": Digest::of(b"x").to_string(), "size": 1});
    let many = json!({"schemaVersion": 2, "config": descriptor, "layers": vec![descriptor.clone(); 5000]});
    let twice = format!("{{\"schemaVersion\":2,\"config\":{descriptor},\"layers\":[],\"layers\":[]}}");
    let both = json!({"schemaVersion": 2, "config": descriptor, "layers": [], "manifests": []});
    let no_json = "\u{1b}[31mnot JSON";
    let artifact = json!({"mediaType": "application/x", "digest": Digest::of(b"x").to_string(), "size": 1});
    let artifact = json!({"schemaVersion": 2, "config": artifact, "layers": []});
    for (what, body, words) in [
        ("giant", vec![b' '; 9 << 20], "of more than"),
        (
            "deep",
            format!("{{\"schemaVersion\":2,\"x\":{}", "[".repeat(200_000)).into_bytes(),
            "cannot use",
        ),
        ("keys twice", twice.into_bytes(), "duplicate field"),
        ("two things at once", both.to_string().into_bytes(), "neither"),
        (
            "thousands of layers",
            many.to_string().into_bytes(),
            "5000 layers",
        ),
        ("no JSON", no_json.as_bytes().to_vec(), "cannot use"),
        ("an artifact", artifact.to_string().into_bytes(), "it is no image"),
    ] {
        let server = Server::start(move |_, wire| reply(wire, 200, &[("Content-Type", MANIFEST)], &body));
        refused(what, &server, words);
    }
    // Without an end, and larger than it says.
    let endless = Server::start(|_, wire| without_end(wire, 200, &[], &[b' '; 16]));
    let error = refused("endless", &endless, "");
    assert!(matches!(
        error,
        PullError::Registry(RegistryError::TooLarge { .. } | RegistryError::TimedOut { .. })
    ));
    let long_head = Server::start(|_, wire| {
        drop(wire.write_all(b"HTTP/1.1 200 OK\r\n"));
        while wire
            .write_all(b"X-Filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n")
            .is_ok()
        {}
    });
    refused("a head without end", &long_head, "breaks the protocol");
}

/// An image whose manifest is good and whose layer, by its digest too, is `bytes`.
pub(super) fn with_layer(bytes: Vec<u8>, diff_id: Digest) -> Server {
    let shelf = Shelf::default();
    let document = json!({"architecture": crate::architecture(), "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]}});
    let config = shelf.blob(CONFIG, &serde_json::to_vec(&document).expect("json"));
    let layer = shelf.blob(GZIP, &bytes);
    shelf.manifest(
        "1",
        MANIFEST,
        &json!({"schemaVersion": 2, "config": config, "layers": [layer]}),
    );
    Server::start(move |request, wire| shelf.answer(request, wire))
}

#[test]
fn layers_that_do_not_unpack() {
    if !root("layers_that_do_not_unpack") {
        return;
    }
    let tar = TarBuilder::new().file("a", &[7; 100_000]).finish();
    let out = TarBuilder::new().file("../../../escaped", b"x").finish();
    let mut flipped = gzip(&tar);
    let last = flipped.len() - 6;
    flipped[last] ^= 1;
    let packed = zstd(&tar);
    let mut marred = packed.clone();
    marred[5] ^= 0xff;
    let zeros = vec![0; 40 << 20];
    let mut wide = zstd::stream::Encoder::new(Vec::new(), 1).expect("memory");
    wide.window_log(27).expect("known parameter");
    std::io::copy(&mut &zeros[..], &mut wide).expect("memory");
    let wide = wide.finish().expect("memory");
    for (what, bytes, diff_id, words) in [
        ("bad gzip", flipped, Digest::of(&tar), "cannot"),
        (
            "half a gzip",
            gzip(&tar)[..40].to_vec(),
            Digest::of(&tar),
            "cannot",
        ),
        (
            "half a zstd",
            packed[..packed.len() - 3].to_vec(),
            Digest::of(&tar),
            "cannot",
        ),
        ("bad zstd", marred, Digest::of(&tar), "cannot"),
        ("a window of 128 MiB", wide, Digest::of(&zeros), "cannot"),
        (
            "another content",
            gzip(&tar),
            Digest::of(b"other"),
            "its image's configuration says",
        ),
        (
            "a way out",
            gzip(&out),
            Digest::of(&out),
            "it leads out of the root",
        ),
        ("a bomb", gzip(&zeros), Digest::of(&zeros), "expands more than"),
        (
            "a bomb of zstd",
            zstd(&zeros),
            Digest::of(&zeros),
            "expands more than",
        ),
    ] {
        refused(what, &with_layer(bytes, diff_id), words);
    }
}

#[test]
fn an_image_larger_than_the_disk_is_not_begun() {
    if !root("an_image_larger_than_the_disk_is_not_begun") {
        return;
    }
    let shelf = Shelf::default();
    let config = shelf.blob(CONFIG, &config(&[b"x".to_vec()], json!({})));
    let layer = json!({"mediaType": GZIP, "digest": Digest::of(b"y").to_string(), "size": 1u64 << 60});
    shelf.manifest(
        "1",
        MANIFEST,
        &json!({"schemaVersion": 2, "config": config, "layers": [layer]}),
    );
    let server = Server::start(move |request, wire| shelf.answer(request, wire));
    let error = refused("too large", &server, "are free");
    assert!(error.is_disk_full());
    assert_eq!(server.count(&Digest::of(b"y").to_string()), 0);
}

#[test]
fn documents_that_change_behind_their_digest() {
    if !root("documents_that_change_behind_their_digest") {
        return;
    }
    let shelf = Shelf::default();
    let good = shelf.image("good", &layers()[..1], &gzip);
    let other = shelf.image("other", &layers()[1..2], &gzip);
    shelf.manifest("1", INDEX, &json!({"schemaVersion": 2, "manifests": [good]}));
    let swapped = other["digest"].as_str().expect("text").to_owned();
    let wanted = good["digest"].as_str().expect("text").to_owned();
    let server = Server::start(move |request, wire| {
        let mut request = request.clone();
        request.path = request.path.replace(&wanted, &swapped);
        shelf.answer(&request, wire);
    });
    refused("another manifest", &server, "with digest sha256:");
    // A digest in the head that is not the body's.
    let lies = spoilt(|request, wire| {
        let ours = request.path.contains("/manifests/");
        if ours {
            let claimed = Digest::of(b"something else").to_string();
            reply(
                wire,
                200,
                &[("Docker-Content-Digest", &claimed), ("Content-Type", MANIFEST)],
                b"{}",
            );
        }
        ours
    });
    refused("a digest that lies", &lies, "with digest sha256:");
}

#[test]
fn refusals_without_end() {
    if !root("refusals_without_end") {
        return;
    }
    // Whatever token is shown, another is wanted.
    let loops = Server::start(|request, wire| {
        let host = request.header("host");
        match request.path.starts_with("/token") {
            true => reply(wire, 200, &[], br#"{"token":"t"}"#),
            false => {
                let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
                reply(wire, 401, &[("WWW-Authenticate", &challenge)], b"");
            }
        }
    });
    refused("401 for ever", &loops, "kakoi login");
    assert!(loops.requests().len() <= 4, "{}", loops.requests().len());
    let busy = Server::start(|_, wire| reply(wire, 429, &[("Retry-After", "0")], b""));
    refused("429 for ever", &busy, "too many requests");
    assert_eq!(busy.requests().len(), 4);
    let later = Server::start(|_, wire| {
        let said = br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your limit"}]}"#;
        reply(wire, 429, &[("Retry-After", "3600")], said);
    });
    refused(
        "429 for an hour",
        &later,
        "You have reached your limit): try again in 3600 s",
    );
    assert_eq!(later.requests().len(), 1, "nobody waits an hour");
    let broken = Server::start(|_, wire| reply(wire, 500, &[], b"<html>"));
    refused("500 for ever", &broken, "answered 500");
    for (what, body) in [
        ("no token", &b"{}"[..]),
        ("no JSON", b"<html>"),
        ("a header in a token", b"{\"token\":\"a\\r\\nX: y\"}"),
    ] {
        let server = Server::start(move |request, wire| match request.path.starts_with("/token") {
            true => reply(wire, 200, &[], body),
            false => {
                let challenge = format!("Bearer realm=\"http://{}/token\"", request.header("host"));
                reply(wire, 401, &[("WWW-Authenticate", &challenge)], b"");
            }
        });
        refused(what, &server, "sent no token");
    }
}

#[test]
fn redirects_lead_nowhere_bad_and_credentials_stay_behind() {
    if !root("redirects_lead_nowhere_bad_and_credentials_stay_behind") {
        return;
    }
    let endless = Server::start(|request, wire| reply(wire, 307, &[("Location", &request.path)], b""));
    refused("a loop", &endless, "redirects without end");
    assert!(endless.requests().len() <= 6);
    for (what, location, words) in [
        ("plain HTTP elsewhere", "http://127.0.0.1:9/x", "plain HTTP"),
        ("no address", "", "no address"),
        ("another scheme", "file:///etc/passwd", "no address"),
        (
            "somebody's password",
            "http://user:pass@127.0.0.1:9/",
            "without a host",
        ),
    ] {
        let server = Server::start(move |_, wire| reply(wire, 302, &[("Location", location)], b""));
        refused(what, &server, words);
    }
    // To a storage of another host: what is there is taken, and our credentials are not shown, whatever it asks for.
    let shelf = Shelf::default();
    shelf.image("1", &layers(), &gzip);
    let asks = Arc::new(Mutex::new(true));
    let (stored, asked) = (shelf.clone(), asks.clone());
    let storage = Server::start(move |request, wire| match *asked.lock().expect("not poisoned") {
        true => {
            let challenge = format!("Bearer realm=\"http://{}/token\"", request.header("host"));
            reply(
                wire,
                401,
                &[
                    ("WWW-Authenticate", &challenge),
                    ("WWW-Authenticate", "Basic realm=\"x\""),
                ],
                b"",
            );
        }
        false => stored.answer(request, wire),
    });
    let elsewhere = storage.name();
    let home = Server::start(move |request, wire| {
        if request.header("authorization") != PAIR {
            return reply(wire, 401, &[("WWW-Authenticate", "Basic realm=\"x\"")], b"");
        }
        match request.path.contains("/blobs/") {
            true => reply(
                wire,
                307,
                &[("Location", &format!("http://{elsewhere}{}", request.path))],
                b"",
            ),
            false => shelf.answer(request, wire),
        }
    });
    let dir = tempfile::tempdir().expect("folder");
    let store = ImageStore::open(dir.path()).expect("open");
    let options = PullOptions {
        credentials: secret(),
        ..PullOptions::default()
    };
    let try_it = || {
        store.pull(
            &client(&[&home, &storage]),
            &reference(&home, "a:1"),
            &options,
            &|_| true,
        )
    };
    assert!(try_it().is_err());
    assert!(inventory(dir.path()).is_empty());
    *asks.lock().expect("not poisoned") = false;
    try_it().expect("from the storage");
    assert!(
        storage
            .requests()
            .iter()
            .all(|request| request.header("authorization").is_empty())
    );
    assert!(storage.count("/token") == 0);
}

#[test]
fn a_client_that_goes_away_ends_the_pull() {
    if !root("a_client_that_goes_away_ends_the_pull") {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let store = ImageStore::open(dir.path()).expect("open");
    let server = spoilt(|_, _| false);
    let gone = |event: PullEvent| !matches!(event, PullEvent::Layer(..));
    let outcome = store.pull(
        &client(&[&server]),
        &reference(&server, "a:1"),
        &PullOptions::default(),
        &gone,
    );
    assert!(
        matches!(outcome, Err(PullError::Registry(RegistryError::Cancelled))),
        "{outcome:?}"
    );
    assert!(inventory(dir.path()).is_empty());
    pull(&store, &client(&[&server]), &reference(&server, "a:1")).expect("the next one is whole");
}
