//! Power cuts at every step of the store's life, in thousands: what was acknowledged is there and whole, what was not is invisible, the store
//! opens by itself, and the next load completes.
//!
//! One run is one seed: it decides what is done, where it is cut and what the cut leaves. A failure names the seed; `KAKOI_CUT_SEED=N` runs it
//! again, `KAKOI_CUTS=N` says how many cuts are made (`make cuts` makes ten thousand).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde_json::json;

use super::build::{TarBuilder, config, docker_archive, gzip};
use super::disk::{Disk, Random, memory};
use super::registry::server::{Server, Shelf, client};
use super::root;
use super::store::load;
use crate::registry::PullOptions;
use crate::*;

/// Cuts of one run of the tests: some seconds.
const CUTS: usize = 400;
/// What the cuts of one event leave differs; so many are tried.
const CUTS_PER_EVENT: usize = 3;
/// Names that images get.
const NAMES: [&str; 3] = ["a:1", "b:1", "c:1"];

/// What is visible: images by id, with their names.
type Visible = BTreeMap<String, BTreeSet<String>>;

fn nobody(_: &Digest) -> Vec<Use> {
    Vec::new()
}

/// An image under a name; its version is in its files, and every other version shares a layer with the one before.
fn archive(name: &str, version: usize) -> Vec<u8> {
    let base = TarBuilder::new()
        .dir("etc/", 0o755)
        .file("etc/base", format!("base {}", version / 2).as_bytes())
        .symlink("etc/link", "base")
        .finish();
    let own = TarBuilder::new()
        .dir("srv/", 0o750)
        .file("srv/own", format!("{name} {version}").as_bytes())
        .file("srv/more", &[7; 1500])
        .file("etc/.wh.gone", b"")
        .finish();
    let layers = vec![base, own];
    docker_archive(&config(&layers, json!({"author": name})), &layers, &[name])
}

/// Everything that a client can see.
fn visible(store: &ImageStore) -> Visible {
    let images = store.list().expect("listed");
    images
        .into_iter()
        .map(|image| (image.id.to_string(), image.repo_tags.into_iter().collect()))
        .collect()
}

/// An image of two layers that a registry has.
struct Remote {
    server: Server,
    layers: [Vec<u8>; 2],
}

impl Remote {
    fn new() -> Self {
        let layer = |number: u8| {
            let tar = TarBuilder::new().dir("srv/", 0o750);
            tar.file(&format!("srv/{number}"), &[number; 900]).finish()
        };
        let layers = [layer(0), layer(1)];
        let shelf = Shelf::default();
        shelf.image("1", &layers, &gzip);
        let server = Server::start(move |request, wire| shelf.answer(request, wire));
        Self { server, layers }
    }

    fn name(&self) -> Reference {
        Reference::parse(&format!("{}/a:1", self.server.name())).expect("a name")
    }

    /// What a pull leaves that broke off after the first layer was done.
    fn break_off(&self, store: &ImageStore) {
        let tar = &self.layers[0];
        let (blob, diff_id) = (Digest::of(&gzip(tar)), Digest::of(tar));
        let staging = store.stage().expect("staged");
        let folder = staging.path.join("layer-0");
        let (made, _) = store
            .unpack_content(&tar[..], &diff_id, &folder)
            .expect("unpacked");
        let kept = store.keep_layer(&staging.path, (&blob, &diff_id), made);
        kept.expect("kept");
    }

    /// The pull after that: what is kept is whole, or is not taken.
    fn pull(&self, store: &ImageStore) {
        let (client, name) = (client(&[&self.server]), self.name());
        let pulled = store.pull(&client, &name, &PullOptions::default(), &|_| true);
        pulled.expect("pulled");
        let image = store.resolve(&name.to_string()).expect("named");
        for (number, layer) in image.layers.iter().rev().enumerate() {
            let file = fs::read(layer.join(format!("srv/{number}"))).expect("a file");
            assert_eq!(file, [number as u8; 900]);
        }
    }
}

/// What is done, as a person would.
fn act(store: &ImageStore, random: &mut Random, remote: &Remote) -> String {
    let name = NAMES[random.below(NAMES.len())];
    match random.below(10) {
        8 => {
            remote.break_off(store);
            "a pull that breaks off".to_owned()
        }
        9 => {
            // One layer is left to fetch, in this thread, which is the one that is watched.
            remote.break_off(store);
            remote.pull(store);
            "a pull that goes on".to_owned()
        }
        0..=3 => {
            let version = random.below(6);
            load(store, &archive(name, version)).expect("loaded");
            format!("load {name} {version}")
        }
        4 => {
            let done = store.remove(name, true, &nobody).is_ok();
            format!("remove {name}: {done}")
        }
        5 => {
            let done = store.tag(name, "extra:1").is_ok();
            format!("tag {name}: {done}")
        }
        6 => {
            store.prune(random.below(2) == 0, &nobody).expect("pruned");
            "prune".to_owned()
        }
        _ => {
            let tar = TarBuilder::new()
                .file("imported", &random.next().to_le_bytes())
                .finish();
            let options = ImportOptions {
                reference: Some("imported:1".to_owned()),
                ..ImportOptions::default()
            };
            store.import(&tar[..], &options, &mut |_| {}).expect("imported");
            "import".to_owned()
        }
    }
}

/// One look at the disk after a cut.
struct Looker {
    disk: Disk,
    place: PathBuf,
    random: Random,
    cuts: usize,
    /// What the cuts of this step showed.
    seen: Vec<Visible>,
    remote: Rc<Remote>,
}

impl Looker {
    fn cut(&mut self) {
        for _ in 0..CUTS_PER_EVENT {
            let to = self.place.join("cut");
            fs::create_dir(&to).expect("a folder");
            self.disk.cut(&mut self.random, &to);
            self.seen.push(look(&to, &self.remote));
            fs::remove_dir_all(&to).expect("removed");
            self.cuts += 1;
        }
    }
}

/// Opens what a cut left, looks at all of it, and works on.
fn look(root: &Path, remote: &Remote) -> Visible {
    let store = ImageStore::open(root).expect("opens by itself");
    let found = visible(&store);
    let report = store
        .check(Depth::Content, Repair::No, &nobody, &|work| work())
        .expect("checked");
    assert!(report.is_whole() && report.findings.is_empty(), "{report:?}");
    for name in found
        .values()
        .flatten()
        .filter(|name| NAMES.contains(&name.as_str()))
    {
        let mut saved = Vec::new();
        let names = [name.clone()];
        store
            .save(&names, ArchiveFormat::Docker, &mut saved)
            .expect("every blob is whole");
    }
    load(&store, &archive("next:1", 9)).expect("the next load completes");
    let next = store.resolve("next:1").expect("it is there");
    assert_eq!(
        fs::read(next.layers[0].join("srv/own")).expect("a file"),
        b"next:1 9"
    );
    store.remove("next:1", false, &nobody).expect("removed");
    let mut kept = fs::read_dir(root.join("images/partial")).expect("a folder");
    if kept.next().is_some() && store.resolve(&remote.name().to_string()).is_err() {
        remote.pull(&store);
        let name = remote.name().to_string();
        store.remove(&name, false, &nobody).expect("removed");
    }
    assert_eq!(visible(&store), found, "working on changes nothing else");
    let report = store
        .check(Depth::Content, Repair::No, &nobody, &|work| work())
        .expect("checked");
    assert!(report.findings.is_empty(), "after working on: {report:?}");
    found
}

/// One life of a store: steps, each of them cut at every event, until there were enough cuts.
fn life(seed: u64, cuts_max: usize, remote: &Rc<Remote>) -> usize {
    let Some(dir) = memory("cuts") else { return 0 };
    let mut random = Random(seed);
    let root = dir.path().join("root");
    fs::create_dir(&root).expect("a folder");
    let looker = Rc::new(RefCell::new(Looker {
        disk: Disk::new(&root),
        place: dir.path().to_owned(),
        random: Random(seed ^ 0x5eed),
        cuts: 0,
        seen: Vec::new(),
        remote: Rc::clone(remote),
    }));
    let watched = |work: &mut dyn FnMut() -> ImageStore| {
        let looker = Rc::clone(&looker);
        let watcher = move |event: crate::fault::Event<'_>| {
            let mut looker = looker.borrow_mut();
            looker.disk.tell(event);
            looker.cut();
        };
        crate::fault::watch(Box::new(watcher), work)
    };
    let mut store = watched(&mut || ImageStore::open(&root).expect("opens"));
    let mut before = visible(&store);
    while looker.borrow().cuts < cuts_max {
        looker.borrow_mut().seen.clear();
        let mut said = String::new();
        let mut held = Some(store);
        store = if random.below(6) == 0 {
            // Stopped, or killed with work in progress on the disk, and opened again.
            said.push_str("open again");
            drop(held.take());
            let left = root.join("images/staging/work-1");
            fs::create_dir_all(left.join("layer-x/etc")).expect("a folder");
            fs::write(left.join("member-1"), b"half").expect("a file");
            fs::write(root.join("images/blobs/sha256").join("ab".repeat(32)), b"orphan").expect("a file");
            watched(&mut || ImageStore::open(&root).expect("opens"))
        } else {
            watched(&mut || {
                let store = held.take().expect("one step");
                said = act(&store, &mut random, remote);
                store
            })
        };
        let after = visible(&store);
        let mut looker = looker.borrow_mut();
        for seen in &looker.seen {
            assert!(
                *seen == before || *seen == after,
                "{said}: a cut shows {seen:?}, neither {before:?} nor {after:?}"
            );
        }
        // It was acknowledged: a cut now shows it, whatever is not synced.
        looker.disk.tell(crate::fault::Event::Point);
        looker.seen.clear();
        looker.cut();
        for seen in &looker.seen {
            assert_eq!(*seen, after, "{said}: acknowledged and lost");
        }
        before = after;
    }
    looker.borrow().cuts
}

#[test]
fn power_cuts_lose_nothing_that_was_acknowledged() {
    if !root("power_cuts_lose_nothing_that_was_acknowledged") {
        return;
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let wanted = number("KAKOI_CUTS").map_or(CUTS, |cuts| cuts as usize);
    let given = number("KAKOI_CUT_SEED");
    let first = given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.expect("after 1970").as_nanos() as u64 % 1_000_000_000
    });
    let remote = Rc::new(Remote::new());
    let (mut cuts, mut seed) = (0, first);
    while cuts < wanted {
        println!("KAKOI_CUT_SEED={seed}");
        // A life is short enough to be run again by its seed.
        let lived = life(seed, wanted.min(1000), &remote);
        if lived == 0 {
            return;
        }
        cuts += lived;
        seed += 1;
    }
    println!(
        "{cuts} power cuts of the image store, seeds {first} to {}: nothing was lost",
        seed - 1
    );
}
