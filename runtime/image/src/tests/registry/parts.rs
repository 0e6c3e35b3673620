//! Parts of a blob from registries that know ranges, that do not, that break off and that lie.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::reference;
use super::server::{Request, Server, Shelf, Wire, answer, client, reply};
use crate::registry::*;
use crate::*;

const SIZE: usize = 1 << 20;
const WANTED: [(u64, u64); 4] = [
    (0, 4096),
    (40_960, 49_152),
    (500_000, 700_000),
    (1_048_000, SIZE as u64),
];

fn blob() -> Vec<u8> {
    (0..SIZE as u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

fn server(answer: impl Fn(&Request, &mut dyn Wire, &Shelf) + Send + Sync + 'static) -> Server {
    let shelf = Shelf::default();
    shelf.blob("x", &blob());
    Server::start(move |request, wire| answer(request, wire, &shelf))
}

/// Reads what is wanted; says how many bytes came over the wire.
fn read(parts: &mut Parts<'_, '_>) -> Result<u64, RegistryError> {
    let blob = blob();
    for (from, until) in WANTED {
        let mut found = Vec::new();
        let taken = parts.read::<()>(from, until, &mut |bytes| {
            found.extend_from_slice(bytes);
            Ok(())
        })?;
        taken.expect("taken");
        assert_eq!(found, blob[from as usize..until as usize], "{from}..{until}");
    }
    Ok(parts.bytes())
}

fn wanted() -> u64 {
    WANTED.iter().map(|(from, until)| until - from).sum()
}

fn without_ranges(request: &Request, wire: &mut dyn Wire, shelf: &Shelf) {
    let mut request = request.clone();
    request.headers.remove("range");
    shelf.answer(&request, wire);
}

#[test]
fn only_what_is_wanted_is_fetched() {
    let server = server(|request, wire, shelf| shelf.answer(request, wire));
    let client = client(&[&server]);
    let repository = Repository::new(&client, &reference(&server, "acme/os:1"), None, Access::Pull);
    let mut parts = Parts::new(&repository, Digest::of(&blob()), SIZE as u64);
    assert_eq!(read(&mut parts).expect("read"), wanted());
    assert!(!parts.distrust(), "there is nobody else");
}

#[test]
fn a_registry_without_ranges_is_read_once() {
    let server = server(without_ranges);
    let client = client(&[&server]);
    let repository = Repository::new(&client, &reference(&server, "acme/os:1"), None, Access::Pull);
    let mut parts = Parts::new(&repository, Digest::of(&blob()), SIZE as u64);
    assert_eq!(read(&mut parts).expect("read"), SIZE as u64);
    assert!(server.count("/blobs/") <= 2, "once to see, once to read");
}

#[test]
fn a_link_that_breaks_costs_what_was_under_way_and_one_that_is_gone_is_an_error() {
    let broken = AtomicUsize::new(0);
    let server = server(move |request, wire, shelf| {
        let mut whole = Vec::new();
        shelf.answer(request, &mut std::io::Cursor::new(&mut whole));
        let is_large = whole.len() > 100_000 && broken.fetch_add(1, Ordering::SeqCst) == 0;
        let cut = if is_large {
            whole.len() - 50_000
        } else {
            whole.len()
        };
        drop(wire.write_all(&whole[..cut]));
    });
    let client = client(&[&server]);
    let repository = Repository::new(&client, &reference(&server, "acme/os:1"), None, Access::Pull);
    let mut parts = Parts::new(&repository, Digest::of(&blob()), SIZE as u64);
    assert_eq!(read(&mut parts).expect("read"), wanted());
    let mut absent = Parts::new(&repository, Digest::of(b"another"), SIZE as u64);
    assert!(matches!(read(&mut absent), Err(RegistryError::NotFound { .. })));
}

/// One that says it sends what was asked for and sends something else in its headers.
#[test]
fn an_answer_that_is_another_part_is_refused() {
    for range in [
        "bytes 1-4096/1048576",
        "bytes 0-4096/1048576",
        "bytes x",
        "items 0-4095/9",
    ] {
        let server = server(move |request, wire, _| {
            let _ = request;
            drop(wire.write_all(&answer(206, &[("Content-Range", range)], &[0; 4096])));
        });
        let client = client(&[&server]);
        let repository = Repository::new(&client, &reference(&server, "acme/os:1"), None, Access::Pull);
        let mut parts = Parts::new(&repository, Digest::of(&blob()), SIZE as u64);
        let refused = parts.read::<()>(0, 4096, &mut |_| Ok(()));
        assert!(refused.is_err(), "{range}");
    }
}

#[test]
fn a_mirror_that_knows_no_ranges_or_lies_is_left() {
    let mirror = server(without_ranges);
    let origin = server(|request, wire, shelf| shelf.answer(request, wire));
    let mut settings = Registries::default();
    for (server, mirrors) in [(&mirror, vec![]), (&origin, vec![mirror.name()])] {
        let registry = Registry {
            transport: Some(Transport::Http),
            mirrors,
            ..Registry::default()
        };
        settings.registries.insert(server.name(), registry);
    }
    let client = Client::new(settings, Proxies::default(), super::server::IMPATIENT);
    let repository = Repository::new(&client, &reference(&origin, "acme/os:1"), None, Access::Pull);
    let mut parts = Parts::new(&repository, Digest::of(&blob()), SIZE as u64);
    assert_eq!(read(&mut parts).expect("read"), wanted());
    assert_eq!(mirror.count("/blobs/"), 1);
    // What comes is wrong, says whoever reads: the registry itself is asked then.
    let mut parts = Parts::new(&repository, Digest::of(&blob()), SIZE as u64);
    assert!(parts.distrust() && !parts.distrust());
    assert_eq!(read(&mut parts).expect("read"), wanted());
    assert_eq!(mirror.count("/blobs/"), 1);
}

#[test]
fn a_stream_is_sent_in_pieces_and_not_again() {
    let shelf = Shelf::default();
    let served = shelf.clone();
    let server = Server::start(move |request, wire| match request.path.contains("refused") {
        true => reply(wire, 403, &[], b""),
        false => served.answer(request, wire),
    });
    let client = client(&[&server]);
    let repository = Repository::new(&client, &reference(&server, "acme/os:1"), None, Access::Push);
    let bytes: Vec<u8> = blob().iter().cycle().take(20 << 20).copied().collect();
    let digest = Digest::of(&bytes);
    let size = bytes.len() as u64;
    repository
        .send_blob(&digest, size, &mut &bytes[..])
        .expect("a registry")
        .expect("a stream");
    assert_eq!(shelf.blob_of(&digest.to_string()), Some(bytes.clone()));
    let puts = |server: &Server| {
        server
            .requests()
            .iter()
            .filter(|request| request.method == "PUT")
            .count()
    };
    let mut again = &bytes[..];
    repository
        .send_blob(&digest, size, &mut again)
        .expect("a registry")
        .expect("a stream");
    assert!(
        again.is_empty() && puts(&server) == 1,
        "the stream is read, and nothing sent"
    );
    let short = repository.send_blob(&Digest::of(b"y"), 100, &mut &bytes[..50]);
    assert!(short.expect("a registry").is_err(), "a stream that is too short");
    let refused = Repository::new(&client, &reference(&server, "refused/os:1"), None, Access::Push);
    assert!(refused.send_blob(&digest, size, &mut &bytes[..]).is_err());
}
