//! Pulls that broke off, and the next ones, which go on where they got to.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use super::server::{Request, Server, Shelf, Wire, answer, client, reply};
use super::{Digest, TarBuilder, gzip, inventory, pull, reference, root, zstd};
use crate::registry::*;
use crate::*;

/// Layers of 300 KB are large here.
const LIMITS: Limits = Limits {
    partial_bytes_min: 64 << 10,
    partials_bytes_max: 2 << 20,
    partials_max: 6,
    ..Limits::DEVICE
};

/// A registry whose link breaks after so many bytes of a blob, once and for all, until it is told otherwise.
struct Ground {
    dir: tempfile::TempDir,
    shelf: Shelf,
    server: Server,
    /// Where blobs end.
    reach: &'static AtomicUsize,
}

impl Ground {
    fn new(layers: &[Vec<u8>], pack: &dyn Fn(&[u8]) -> Vec<u8>) -> Self {
        Self::spoilt(layers, pack, |_, _, _| false)
    }

    /// The same with something that may answer for blobs itself, by answering true; it is given their bytes.
    fn spoilt(
        layers: &[Vec<u8>],
        pack: &dyn Fn(&[u8]) -> Vec<u8>,
        spoil: impl Fn(&Request, &mut dyn Wire, &[u8]) -> bool + Send + Sync + 'static,
    ) -> Self {
        let shelf = Shelf::default();
        shelf.image("1", layers, pack);
        let reach: &'static AtomicUsize = Box::leak(Box::default());
        reach.store(usize::MAX, Ordering::SeqCst);
        let served = shelf.clone();
        let server = Server::start(move |request, wire| {
            let digest = request.path.rsplit('/').next().unwrap_or_default();
            let blob = served.blob_of(digest).filter(|bytes| bytes.len() > 64 << 10);
            let Some(bytes) = blob.filter(|_| request.path.contains("/blobs/")) else {
                return served.answer(request, wire);
            };
            let reach = reach.load(Ordering::SeqCst).min(bytes.len());
            if spoil(request, wire, &bytes) {
                return;
            }
            let from = request
                .header("range")
                .trim_start_matches("bytes=")
                .trim_end_matches('-');
            let from: usize = from.parse().unwrap_or(0);
            if from >= reach {
                return reply(wire, 503, &[], b"");
            }
            let mut whole = Vec::new();
            served.answer(request, &mut std::io::Cursor::new(&mut whole));
            drop(wire.write_all(&whole[..whole.len() - (bytes.len() - reach)]));
        });
        Self {
            dir: tempfile::tempdir().expect("folder"),
            shelf,
            server,
            reach,
        }
    }

    /// A store opened anew, as after a kill, and a pull into it that gets as far as `reach`.
    fn pull(&self, reach: usize) -> Result<Pulled, PullError> {
        self.reach.store(reach, Ordering::SeqCst);
        let store = self.store();
        pull(&store, &client(&[&self.server]), &reference(&self.server, "a:1"))
    }

    fn store(&self) -> ImageStore {
        ImageStore::open_limited(self.dir.path(), LIMITS).expect("open")
    }

    /// What is kept: names and bytes of files; folders have none.
    fn kept(&self) -> Vec<(String, u64)> {
        let entries = fs::read_dir(self.partial())
            .expect("list")
            .map(|entry| entry.expect("entry"));
        let mut kept: Vec<_> = entries
            .map(|entry| {
                let meta = entry.metadata().expect("there");
                let bytes = if meta.is_dir() { 0 } else { meta.len() };
                (entry.file_name().to_string_lossy().into_owned(), bytes)
            })
            .collect();
        kept.sort();
        kept
    }

    fn partial(&self) -> PathBuf {
        self.dir.path().join("images/partial")
    }

    /// Ranges that were asked for of blobs, in order; empty where none was.
    fn ranges(&self) -> Vec<String> {
        let requests = self.server.requests();
        let blobs = requests.iter().filter(|request| request.path.contains("/blobs/"));
        blobs.map(|request| request.header("range").to_owned()).collect()
    }

    /// Nobody sees anything of what is kept.
    fn is_unseen(&self) {
        let store = self.store();
        assert!(store.list().expect("list").is_empty());
        let report = store.check(Depth::Content, Repair::No, &|_| Vec::new(), &|work| work());
        assert!(report.expect("checked").findings.is_empty());
        let visible = |name: &String| !name.starts_with("partial/");
        assert!(!inventory(self.dir.path()).iter().any(visible));
    }
}

/// Layers that do not pack.
fn layers() -> Vec<Vec<u8>> {
    let mut state = 42u64;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    let layer = |number: u8| {
        let noise: Vec<u8> = (0..300_000).map(|_| noise()).collect();
        TarBuilder::new()
            .file(&format!("file-{number}"), &noise)
            .file("top", &[number; 3])
            .finish()
    };
    (0..4).map(layer).collect()
}

fn one_layer() -> Vec<Vec<u8>> {
    layers()[..1].to_vec()
}

#[test]
fn the_third_pull_goes_on_where_the_second_got_to() {
    if !root("the_third_pull_goes_on_where_the_second_got_to") {
        return;
    }
    for pack in [&gzip as &dyn Fn(&[u8]) -> Vec<u8>, &zstd, &<[u8]>::to_vec] {
        let ground = Ground::new(&one_layer(), pack);
        let packed = pack(&one_layer()[0]);
        let hex = Digest::of(&packed).hex().to_owned();
        // The first pull writes no packed bytes, and notes that it began.
        ground.pull(packed.len() / 3).expect_err("it broke off");
        assert_eq!(ground.kept(), [(hex.clone(), 0)]);
        ground.is_unseen();
        let far = packed.len() * 2 / 3;
        ground.pull(far).expect_err("it broke off");
        assert_eq!(ground.kept(), [(hex.clone(), far as u64)]);
        ground.is_unseen();
        let usage = ground.store().disk_usage().expect("usage");
        assert_eq!((usage.blobs_bytes, usage.layers_bytes), (far as u64, 0));
        // Half a step further, and to the end: what is there is not asked for again.
        let farther = far + 1000;
        ground.pull(farther).expect_err("it broke off");
        assert_eq!(ground.kept(), [(hex, farther as u64)]);
        let before = ground.ranges().len();
        let pulled = ground.pull(usize::MAX).expect("in the end");
        assert_eq!(
            ground.ranges()[before..],
            [String::new(), format!("bytes={farther}-")]
        );
        assert_eq!(ground.kept(), []);
        let store = ground.store();
        let name = reference(&ground.server, "a:1").to_string();
        let image = store.resolve(&name).expect("named");
        assert_eq!(image.id, pulled.id);
        assert_eq!(fs::read(image.layers[0].join("top")).expect("a file"), [0; 3]);
    }
}

#[test]
fn what_is_kept_whole_is_not_asked_for_at_all() {
    if !root("what_is_kept_whole_is_not_asked_for_at_all") {
        return;
    }
    let ground = Ground::new(&one_layer(), &gzip);
    let packed = gzip(&one_layer()[0]);
    let store = ground.store();
    fs::write(ground.partial().join(Digest::of(&packed).hex()), &packed).expect("kept");
    pull(
        &store,
        &client(&[&ground.server]),
        &reference(&ground.server, "a:1"),
    )
    .expect("from what is kept");
    assert_eq!(ground.ranges(), [""], "the configuration alone");
    assert_eq!(ground.kept(), []);
}

#[test]
fn what_was_kept_is_believed_only_with_the_whole() {
    if !root("what_was_kept_is_believed_only_with_the_whole") {
        return;
    }
    let packed = gzip(&one_layer()[0]);
    let hex = Digest::of(&packed).hex().to_owned();
    let half = packed.len() / 2;
    let torn = [&packed[..half / 2], &vec![0; half / 2][..]].concat();
    let longer = [&packed[..], b"x"].concat();
    for (what, kept) in [
        ("noise", vec![0xaa; half]),
        ("torn by a power cut", torn),
        ("longer than the blob", longer),
        ("as long as the blob", vec![0x1f; packed.len()]),
    ] {
        let ground = Ground::new(&one_layer(), &gzip);
        let store = ground.store();
        fs::write(ground.partial().join(&hex), kept).expect("kept");
        let pulled = pull(
            &store,
            &client(&[&ground.server]),
            &reference(&ground.server, "a:1"),
        );
        pulled.unwrap_or_else(|error| panic!("{what}: {}", client_message(&error)));
        assert_eq!(ground.kept(), [], "{what}");
    }
    // A folder in its place, which nobody of ours made.
    let ground = Ground::new(&one_layer(), &gzip);
    let store = ground.store();
    fs::create_dir(ground.partial().join(&hex)).expect("folder");
    pull(
        &store,
        &client(&[&ground.server]),
        &reference(&ground.server, "a:1"),
    )
    .expect("pulled");
}

#[test]
fn registries_that_ignore_ranges_or_answer_them_badly() {
    if !root("registries_that_ignore_ranges_or_answer_them_badly") {
        return;
    }
    type Spoil = fn(&Request, &mut dyn Wire, &[u8]) -> bool;
    let packed = gzip(&one_layer()[0]);
    let hex = Digest::of(&packed).hex().to_owned();
    let half = packed.len() / 2;
    let cases: [(&str, bool, Spoil); 5] = [
        ("no ranges", true, |_, wire, bytes| {
            reply(wire, 200, &[], bytes);
            true
        }),
        ("another part", true, |request, wire, _| {
            let is_range = !request.header("range").is_empty();
            if is_range {
                reply(wire, 206, &[("Content-Range", "bytes 7-9/10")], b"xyz");
            }
            is_range
        }),
        ("no such range", true, |request, wire, _| {
            let is_range = !request.header("range").is_empty();
            if is_range {
                reply(wire, 416, &[], b"");
            }
            is_range
        }),
        (
            "another content behind the range",
            true,
            |request, wire, bytes| {
                let from = request
                    .header("range")
                    .trim_start_matches("bytes=")
                    .trim_end_matches('-');
                let Ok(from) = from.parse::<usize>() else {
                    return false;
                };
                let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
                reply(
                    wire,
                    206,
                    &[("Content-Range", &range)],
                    &vec![7; bytes.len() - from],
                );
                true
            },
        ),
        ("another content altogether", false, |_, wire, bytes| {
            reply(wire, 200, &[], &vec![7; bytes.len()]);
            true
        }),
    ];
    for (what, succeeds, spoil) in cases {
        let ground = Ground::spoilt(&one_layer(), &gzip, spoil);
        let store = ground.store();
        fs::write(ground.partial().join(&hex), &packed[..half]).expect("kept");
        let pulled = pull(
            &store,
            &client(&[&ground.server]),
            &reference(&ground.server, "a:1"),
        );
        match pulled {
            Ok(_) => assert!(succeeds, "{what}"),
            Err(error) => {
                let said = client_message(&error);
                assert!(
                    !succeeds && said.contains("with digest sha256:"),
                    "{what}: {said}"
                );
                assert!(inventory(ground.dir.path()).is_empty(), "{what}");
            }
        }
        assert_eq!(ground.kept(), [], "{what}");
    }
}

#[test]
fn layers_that_were_done_are_not_fetched_again() {
    if !root("layers_that_were_done_are_not_fetched_again") {
        return;
    }
    let last = Digest::of(&gzip(&layers()[3])).to_string();
    let is_broken: &'static AtomicUsize = Box::leak(Box::new(AtomicUsize::new(1)));
    let others: &'static AtomicUsize = Box::leak(Box::default());
    // The last layer is refused once the others were asked for, so that they have begun by then.
    let ground = Ground::spoilt(&layers(), &gzip, move |request, wire, _| {
        let is_last = request.path.ends_with(&last);
        others.fetch_add(usize::from(!is_last), Ordering::SeqCst);
        let refuses = is_last && is_broken.load(Ordering::SeqCst) == 1;
        if refuses {
            reply(wire, 503, &[], b"");
        }
        refuses
    });
    ground.pull(usize::MAX).expect_err("the last layer is not there");
    let done = ground
        .kept()
        .iter()
        .filter(|(name, _)| name.contains('-'))
        .count();
    // Three workers: two of the first three were done before the fourth was begun, or more.
    assert!((1..=3).contains(&done), "{:?}", ground.kept());
    ground.is_unseen();
    is_broken.store(0, Ordering::SeqCst);
    let before = others.load(Ordering::SeqCst);
    let store = ground.store();
    let present = Mutex::new(0);
    let listener = |event: PullEvent| {
        let is_present = matches!(event, PullEvent::Layer(_, LayerStep::Present));
        *present.lock().expect("not poisoned") += usize::from(is_present);
        true
    };
    let name = reference(&ground.server, "a:1");
    let options = PullOptions::default();
    store
        .pull(&client(&[&ground.server]), &name, &options, &listener)
        .expect("whole now");
    assert_eq!(present.into_inner().expect("not poisoned"), done);
    assert_eq!(others.load(Ordering::SeqCst) - before, 3 - done);
    assert_eq!(ground.kept(), []);
    let image = store.resolve(&name.to_string()).expect("named");
    for (number, layer) in image.layers.iter().rev().enumerate() {
        assert_eq!(fs::read(layer.join("top")).expect("a file"), [number as u8; 3]);
    }
    let names = [name.to_string()];
    let saved = store.save(&names, ArchiveFormat::Oci, &mut std::io::sink());
    saved.expect("with recipes that fit");
}

#[test]
fn of_an_image_that_will_not_do_nothing_is_kept() {
    if !root("of_an_image_that_will_not_do_nothing_is_kept") {
        return;
    }
    let last = Digest::of(&gzip(&layers()[3])).to_string();
    let ground = Ground::spoilt(&layers(), &gzip, move |request, wire, bytes| {
        let is_last = request.path.ends_with(&last);
        if is_last {
            drop(wire.write_all(&answer(200, &[], &vec![7; bytes.len()])));
        }
        is_last
    });
    let error = ground.pull(usize::MAX).expect_err("its last layer is another");
    assert!(client_message(&error).contains("with digest sha256:"));
    assert_eq!(ground.kept(), []);
    assert!(inventory(ground.dir.path()).is_empty());
    assert!(ground.shelf.manifest_of("1").is_some());
}

#[test]
fn what_is_kept_is_bounded_and_goes_when_room_is_wanted() {
    if !root("what_is_kept_is_bounded_and_goes_when_room_is_wanted") {
        return;
    }
    let ground = Ground::new(&one_layer(), &gzip);
    let store = ground.store();
    let now = SystemTime::now();
    let hours = |count: u64| Duration::from_secs(3600 * count);
    let put = |number: u32, bytes: u64, modified: SystemTime| {
        let name = Digest::of(&number.to_be_bytes()).hex().to_owned();
        let file = File::create(ground.partial().join(&name)).expect("kept");
        file.set_len(bytes).expect("a length");
        file.set_modified(modified).expect("a time");
        name
    };
    let names = || -> Vec<String> { ground.kept().into_iter().map(|(name, _)| name).collect() };
    let is_kept = |name: &String| names().contains(name);
    drop(store);
    // By age: a week, and a clock that was ahead forgets nothing.
    let (old, fresh, ahead) = (
        put(1, 10, now - hours(8 * 24)),
        put(2, 10, now - hours(6 * 24)),
        put(3, 10, now + hours(1000)),
    );
    drop(ground.store());
    assert!(!is_kept(&old) && is_kept(&fresh) && is_kept(&ahead));
    // By number: the latest six.
    let many: Vec<String> = (10..20)
        .map(|number| put(number, 1, now - hours(u64::from(number))))
        .collect();
    drop(ground.store());
    assert!(is_kept(&ahead) && many[..5].iter().all(is_kept), "{:?}", names());
    assert!(
        !is_kept(&fresh) && !many[5..].iter().any(is_kept),
        "{:?}",
        names()
    );
    // By bytes: the latest two megabytes.
    let (large, larger) = (put(30, 1 << 20, now - hours(1)), put(31, 2 << 20, now - hours(2)));
    drop(ground.store());
    assert!(is_kept(&large) && !is_kept(&larger));
    // A layer counts with the bytes that its name tells; a name that is none is not ours, and a check tells of it.
    let hex = Digest::of(b"").hex().to_owned();
    let layer = ground.partial().join(format!("{hex}-{hex}-{}", 3 << 20));
    fs::create_dir(&layer).expect("folder");
    fs::write(ground.partial().join("notes.txt"), "mine").expect("written");
    let store = ground.store();
    assert!(!layer.exists() && is_kept(&"notes.txt".to_owned()));
    let report = store.check(Depth::Names, Repair::No, &|_| Vec::new(), &|work| work());
    let found: Vec<String> = report
        .expect("checked")
        .findings
        .into_iter()
        .map(|one| one.place)
        .collect();
    assert_eq!(found, ["partial/notes.txt"]);
    // Who filters images keeps it: it has neither label nor age.
    let before = names();
    let pruned = store.prune_where(true, &|_| true, &|_| Vec::new());
    assert_eq!((pruned.expect("pruned").reclaimed_bytes, names()), (0, before));
    // Pruning takes all of it, and says how much that was.
    let before: u64 = ground.kept().iter().map(|(_, bytes)| bytes).sum();
    let pruned = store.prune(false, &|_| Vec::new()).expect("pruned");
    assert_eq!(pruned.reclaimed_bytes, before - 4, "all but the notes");
    assert_eq!(names(), ["notes.txt"]);
    // So does making room, before it takes an image.
    pull(
        &store,
        &client(&[&ground.server]),
        &reference(&ground.server, "a:1"),
    )
    .expect("pulled");
    put(40, 1000, now);
    let low = LowWater {
        free_bytes: u64::MAX,
        takes_named: false,
    };
    let made = store.make_room(low, &|_| Vec::new()).expect("made");
    assert_eq!((made.reclaimed_bytes, made.removed.len()), (1000, 0));
    assert_eq!(names(), ["notes.txt"]);
    assert_eq!(store.list().expect("list").len(), 1);
}
