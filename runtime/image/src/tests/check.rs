//! Every kind of damage, done on purpose: a check reports exactly that, a repair heals it or names the image, and a second check finds nothing.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::build::{TarBuilder, config, docker_archive};
use super::root;
use super::store::load;
use crate::*;

fn nobody(_: &Digest) -> Vec<Use> {
    Vec::new()
}

/// The container that uses an image, and whether it runs; none before it is made.
fn used_by(image: &Digest, running: impl Fn() -> Option<bool>) -> impl Fn(&Digest) -> Vec<Use> {
    move |id| {
        let running = running().filter(|_| id == image);
        let by = running.map(|running| Use {
            container: "c0ffee".to_owned(),
            running,
        });
        by.into_iter().collect()
    }
}

fn in_use() -> Outcome {
    Outcome::InUse {
        container: "c0ffee".to_owned(),
    }
}

fn read_index(images: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(images.join("index.json")).expect("index")).expect("json")
}

/// Changes what an index says.
fn edit_index(images: &Path, edits: impl FnOnce(&mut serde_json::Value)) {
    let mut index = read_index(images);
    edits(&mut index);
    fs::write(images.join("index.json"), index.to_string()).expect("index");
}

const INDEXES: [&str; 2] = ["index.json", "index.json.previous"];

fn write(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    fs::write(path, bytes).expect("a file");
}

fn folder(path: impl AsRef<Path>) {
    fs::create_dir_all(path).expect("a folder");
}

fn gone(path: impl AsRef<Path>) {
    let is_folder = fs::symlink_metadata(&path).expect("there").is_dir();
    match is_folder {
        true => fs::remove_dir_all(path).expect("gone"),
        false => fs::remove_file(path).expect("gone"),
    }
}

/// A link in something's place.
fn link(target: &str, path: &Path) {
    gone(path);
    std::os::unix::fs::symlink(target, path).expect("a link");
}

fn owner(path: &Path, uid: u32) {
    std::os::unix::fs::chown(path, Some(uid), None).expect("an owner");
}

fn archive(name: &str) -> Vec<u8> {
    let shared = TarBuilder::new().file("shared", b"in both").finish();
    let own = TarBuilder::new()
        .dir("d/", 0o755)
        .file("d/own", name.as_bytes())
        .file("d/more", b"more")
        .symlink("link", "d/own")
        .file("d/.wh.gone", b"")
        .finish();
    let layers = vec![shared, own];
    docker_archive(&config(&layers, json!({"author": name})), &layers, &[name])
}

/// A store with an image that is damaged and one that is not; they share a layer.
struct Given {
    dir: tempfile::TempDir,
    store: Option<ImageStore>,
    hurt: Paths,
}

/// Where the damaged image's own files lie.
struct Paths {
    images: PathBuf,
    config: PathBuf,
    manifest: PathBuf,
    recipe: PathBuf,
    layer: PathBuf,
}

impl Given {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("folder");
        let store = ImageStore::open(dir.path()).expect("open");
        load(&store, &archive("whole:1")).expect("loaded");
        load(&store, &archive("hurt:1")).expect("loaded");
        let hurt = paths(&store, "hurt:1");
        Self {
            dir,
            store: Some(store),
            hurt,
        }
    }

    fn store(&self) -> &ImageStore {
        self.store.as_ref().expect("open")
    }

    fn again(&mut self) {
        self.store = None;
        self.store = Some(ImageStore::open(self.dir.path()).expect("opens by itself"));
    }

    fn images(&self) -> PathBuf {
        self.dir.path().join("images")
    }

    /// Does something to the store's folder while nobody has it open.
    fn meanwhile(&mut self, hurts: impl FnOnce(&Path)) {
        self.store = None;
        hurts(&self.images());
        self.again();
    }

    fn id(&self, name: &str) -> Digest {
        self.store().resolve(name).expect("there").id
    }

    fn has(&self, name: &str) -> bool {
        self.store().resolve(name).is_ok()
    }

    fn load(&self, name: &str) {
        load(self.store(), &archive(name)).expect("the next load completes");
    }

    fn check(&self, depth: Depth, repair: Repair) -> CheckReport {
        self.check_with(depth, repair, &nobody)
    }

    /// What a look at everything finds.
    fn found(&self) -> Vec<Damage> {
        kinds(&self.check(Content, Repair::No))
    }

    /// A repair during which something is done before things stand still.
    fn check_while(&self, depth: Depth, uses: crate::remove::Uses<'_>, between: impl Fn()) -> CheckReport {
        let still = |work: &mut dyn FnMut()| {
            between();
            work();
        };
        self.store()
            .check(depth, Repair::Full, uses, &still)
            .expect("checked")
    }

    fn check_with(&self, depth: Depth, repair: Repair, uses: crate::remove::Uses<'_>) -> CheckReport {
        self.store()
            .check(depth, repair, uses, &|work| work())
            .expect("checked")
    }
}

fn paths(store: &ImageStore, name: &str) -> Paths {
    let state = store.state();
    let id = state.index.find(name).expect("named").id().clone();
    let record = &state.index.images[&id];
    let own = &record.layers[1];
    Paths {
        images: store.path().to_owned(),
        config: store.blob_path(&id, crate::index::Stored::Plain),
        manifest: store.blob_path(&record.manifest, crate::index::Stored::Plain),
        recipe: store.recipe_path(&own.diff_id),
        layer: store.layer_path(&own.diff_id),
    }
}

/// Every file of the undamaged image, as it lies on the disk.
fn untouched(given: &Given) -> BTreeSet<(PathBuf, u64, i64, u32)> {
    let whole = paths(given.store(), "whole:1");
    let shared = given.store().resolve("whole:1").expect("whole").layers.remove(1);
    let mut files = BTreeSet::new();
    let mut left = vec![whole.config, whole.manifest, whole.recipe, whole.layer, shared];
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).expect("the undamaged image is there");
        if meta.is_dir() {
            left.extend(
                fs::read_dir(&path)
                    .expect("list")
                    .map(|entry| entry.expect("entry").path()),
            );
        }
        files.insert((path, meta.ino(), meta.mtime(), meta.mode()));
    }
    files
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("mode");
}

/// Other bytes of the same length and time.
fn flip(path: &Path) {
    let time = fs::metadata(path).expect("file").modified().expect("time");
    let mut bytes = fs::read(path).expect("file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    fs::write(path, bytes).expect("file");
    fs::File::options()
        .write(true)
        .open(path)
        .and_then(|file| file.set_modified(time))
        .expect("time");
}

fn cut(path: &Path) {
    let bytes = fs::read(path).expect("file");
    fs::write(path, &bytes[..bytes.len() / 2]).expect("file");
}

/// What a repair makes of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Heals,
    Loses,
    /// The image runs, and is named until it is fetched again.
    Keeps,
}

struct Row {
    name: &'static str,
    /// The least depth that finds it.
    depth: Depth,
    finds: &'static [Damage],
    then: Then,
    hurts: fn(&Paths),
}

/// A row in a line, or two: what is done, who finds what, what becomes of it, and how it is done.
macro_rules! rows {
    ($($name:literal, $depth:ident, [$($finds:ident),*], $then:ident, $hurts:expr;)*) => {
        &[$(Row { name: $name, depth: $depth, finds: &[$($finds),*], then: $then, hurts: $hurts }),*]
    };
}

use Damage::*;
use Depth::{Content, Metadata, Names};
use Then::{Heals, Keeps, Loses};

const STRANGER: &str = "00000000000000000000000000000000000000000000000000000000000000aa";

const ROWS: &[Row] = rows! {
    "nothing", Names, [], Heals, |_| {};
    "a recipe goes", Names, [RecipeMissing], Keeps, |at| gone(&at.recipe);
    "a recipe is cut", Names, [RecipeUnreadable], Keeps, |at| cut(&at.recipe);
    "a recipe is empty", Names, [RecipeUnreadable], Keeps, |at| write(&at.recipe, b"");
    "a recipe is a folder", Names, [RecipeUnreadable], Keeps, |at| {
        gone(&at.recipe);
        folder(&at.recipe);
    };
    "a recipe is wrong", Content, [LayerContent], Loses, |at| flip(&at.recipe);
    "a file of a layer is wrong", Content, [LayerContent], Loses, |at| flip(&at.layer.join("d/own"));
    "everybody reads a recipe", Names, [RecipeMode], Heals, |at| mode(&at.recipe, 0o644);
    "everybody reads a blob", Names, [BlobMode], Heals, |at| mode(&at.config, 0o644);
    "somebody else owns a blob", Names, [BlobMode], Heals, |at| owner(&at.manifest, 1234);
    "a blob is a folder", Names, [BlobKind], Loses, |at| {
        gone(&at.manifest);
        folder(&at.manifest);
    };
    "a blob is a link", Names, [BlobKind], Loses, |at| link("../elsewhere", &at.manifest);
    "a blob is empty", Names, [BlobLength], Loses, |at| write(&at.manifest, b"");
    "the configuration is cut", Names, [BlobLength], Loses, |at| cut(&at.config);
    "the configuration goes", Names, [BlobMissing], Loses, |at| gone(&at.config);
    "the manifest goes", Names, [BlobMissing], Loses, |at| gone(&at.manifest);
    "the configuration does not read", Names, [DocumentUnreadable], Loses, |at| {
        let bytes = fs::metadata(&at.config).expect("file").len() as usize;
        write(&at.config, vec![b' '; bytes]);
    };
    "the configuration is another", Content, [BlobContent], Loses, |at| {
        let text = fs::read_to_string(&at.config).expect("file");
        write(&at.config, text.replace("PATH=/bin", "PATH=/tmp"));
    };
    "the manifest is wrong", Content, [BlobContent], Loses, |at| flip(&at.manifest);
    "a layer goes", Names, [LayerMissing], Loses, |at| gone(&at.layer);
    "a layer is a file", Names, [LayerKind], Loses, |at| {
        gone(&at.layer);
        write(&at.layer, b"");
    };
    "half a layer", Metadata, [LayerFiles], Loses, |at| gone(at.layer.join("d/more"));
    "a layer without anything", Metadata, [LayerFiles], Loses, |at| {
        gone(&at.layer);
        folder(&at.layer);
    };
    "a file of a layer is cut", Metadata, [LayerFiles], Loses, |at| cut(&at.layer.join("d/own"));
    "a file comes into a layer", Metadata, [LayerFiles], Heals, |at| write(at.layer.join("d/new"), b"");
    "a mode in a layer", Metadata, [LayerFiles], Heals, |at| mode(&at.layer.join("d/own"), 0o4755);
    "an owner in a layer", Metadata, [LayerFiles], Heals, |at| owner(&at.layer.join("d"), 7);
    "a link in a layer", Metadata, [LayerFiles], Heals, |at| link("/etc/shadow", &at.layer.join("link"));
    "a whiteout goes", Metadata, [LayerFiles], Heals, |at| gone(at.layer.join("d/gone"));
    "a layer and its recipe", Names, [RecipeMissing, LayerMissing], Loses, |at| {
        gone(&at.recipe);
        gone(&at.layer);
    };
    "everybody enters the store", Names, [FolderMode], Heals, |at| mode(&at.images, 0o755);
    "everybody enters the layers", Names, [FolderMode], Heals, |at| mode(&at.images.join("layers"), 0o777);
    "a blob too many", Names, [BlobWithoutImage], Heals, |at| write(at.images.join("blobs/sha256").join(STRANGER), b"?");
    "a blob twice", Names, [BlobWithoutImage], Heals, |at| {
        let mut name = at.config.clone().into_os_string();
        name.push(".zst");
        fs::copy(&at.config, name).expect("copied");
    };
    "no blob among blobs", Names, [BlobWithoutImage], Heals, |at| write(at.images.join("blobs/sha256/README"), b"?");
    "a folder beside the blobs", Names, [Leftover], Heals, |at| folder(at.images.join("blobs/sha512/x"));
    "a spool file", Names, [Leftover], Heals, |at| {
        folder(at.images.join("staging/work-900"));
        write(at.images.join("staging/work-900/member-1"), b"half");
    };
    "a folder set aside", Names, [Leftover], Heals, |at| folder(at.images.join("staging/trash-900/etc"));
    "an index that was being written", Names, [Leftover], Heals, |at| write(at.images.join("index.json.new"), b"{");
    "no beginning of a layer", Names, [Leftover], Heals, |at| write(at.images.join("partial/README"), b"?");
    "a file in the store", Names, [Leftover], Heals, |at| write(at.images.join("notes"), b"?");
    "a layer too many", Names, [LayerWithoutImage], Heals, |at| folder(at.images.join("layers").join(STRANGER).join("etc"));
    "no layer among layers", Names, [LayerWithoutImage], Heals, |at| write(at.images.join("layers/x"), b"?");
    "a recipe too many", Names, [RecipeWithoutImage], Heals, |at| write(at.images.join("recipes").join(STRANGER), b"?");
};

fn kinds(report: &CheckReport) -> Vec<Damage> {
    let mut kinds: Vec<Damage> = report.findings.iter().map(|finding| finding.damage).collect();
    kinds.sort();
    kinds
}

fn is_all(report: &CheckReport, outcome: &Outcome) -> bool {
    report.findings.iter().all(|finding| finding.outcome == *outcome)
}

#[test]
fn every_kind_of_damage_is_found_and_healed_or_named() {
    if !root("every_kind_of_damage_is_found_and_healed_or_named") {
        return;
    }
    let mut tried = BTreeSet::from([IndexUnreadable, NameWithoutImage]);
    for row in ROWS {
        let name = row.name;
        let given = Given::new();
        let before = untouched(&given);
        assert_eq!(
            given.check(Content, Repair::No),
            CheckReport {
                images: 2,
                blobs: 4,
                layers: 3,
                ..CheckReport::default()
            }
        );
        (row.hurts)(&given.hurt);
        for depth in [Names, Metadata, Content] {
            let report = given.check(depth, Repair::No);
            let expected = if depth < row.depth { &[] } else { row.finds };
            assert_eq!(kinds(&report), expected, "{name} at {depth:?}: {report:?}");
            assert_eq!(report.is_whole(), expected.is_empty(), "{name}");
            assert!(is_all(&report, &Outcome::Found), "{name}");
            let is_lost = row.then == Loses && !expected.is_empty();
            let named: Vec<_> = report.lost.iter().flat_map(|lost| lost.names.clone()).collect();
            let lost: &[&str] = if is_lost { &["hurt:1"] } else { &[] };
            assert_eq!(named, lost, "{name} at {depth:?}");
        }
        let report = given.check(row.depth, Repair::Full);
        assert_eq!(kinds(&report), row.finds, "{name}");
        let heals = row.then == Heals;
        assert_eq!(is_all(&report, &Outcome::Healed), heals, "{name}: {report:?}");
        assert_eq!(report.is_whole(), heals, "{name}: {report:?}");
        let second = given.check(Content, Repair::No);
        let left: &[Damage] = if row.then == Keeps { &[RecipeMissing] } else { &[] };
        assert_eq!(kinds(&second), left, "{name}: {second:?}");
        assert!(second.lost.is_empty(), "{name}: {second:?}");
        assert_eq!(given.has("hurt:1"), row.then != Loses, "{name}");
        if row.then == Keeps {
            assert_eq!(report.findings[0].outcome, Outcome::Kept, "{name}");
            assert!(given.hurt.layer.is_dir(), "{name}: it runs");
            let (names, mut bytes) = (["hurt:1".to_owned()], Vec::new());
            let saved = given
                .store()
                .save(&names, crate::ArchiveFormat::Docker, &mut bytes);
            assert!(saved.is_err(), "{name}: it cannot be saved");
        }
        assert_eq!(untouched(&given), before, "{name}");
        given.load("hurt:1");
        let last = given.check(Content, Repair::No);
        assert!(last.is_whole() && last.images == 2, "{name}: {last:?}");
        tried.extend(row.finds);
    }
    assert_eq!(tried, BTreeSet::from(Damage::ALL), "each kind is a row");
}

/// What heals without taking anything away, as at a daemon's start: an image that is not whole keeps its name.
#[test]
fn healing_takes_no_image_away() {
    if !root("healing_takes_no_image_away") {
        return;
    }
    let given = Given::new();
    cut(&given.hurt.manifest);
    mode(&paths(given.store(), "whole:1").layer.join("d/own"), 0o777);
    let report = given.check(Metadata, Repair::Heal);
    assert_eq!(kinds(&report), [BlobLength, LayerFiles]);
    assert_eq!(report.lost.len(), 1);
    assert!(given.has("hurt:1"), "its name stays, and its files");
    assert!(given.hurt.manifest.exists());
    assert_eq!(given.found(), [BlobLength]);
}

/// An image of a container keeps its name and what is whole of it; fetching it again heals it.
#[test]
fn a_used_image_is_named_and_stays() {
    if !root("a_used_image_is_named_and_stays") {
        return;
    }
    let given = Given::new();
    let hurt = given.id("hurt:1");
    let used = |running| used_by(&hurt, move || Some(running));
    cut(&given.hurt.manifest);
    let report = given.check_with(Content, Repair::Full, &used(false));
    assert_eq!(report.lost[0].containers, ["c0ffee"]);
    assert!(given.has("hurt:1"));
    assert_eq!(given.found(), [BlobMissing], "it stays named until it is whole");
    given.load("hurt:1");
    assert_eq!(given.found(), []);

    // A layer under a running container is not exchanged; under a stopped one it is.
    let more = given.hurt.layer.join("d/more");
    mode(&more, 0o777);
    let report = given.check_with(Metadata, Repair::Full, &used(true));
    assert_eq!(report.findings[0].outcome, in_use());
    let is_healed = || fs::metadata(&more).expect("file").mode() & 0o777 == 0o644;
    assert!(!is_healed());
    let report = given.check_with(Metadata, Repair::Full, &used(false));
    assert!(report.is_whole() && is_healed());
}

#[test]
fn an_unreadable_index_is_made_anew() {
    if !root("an_unreadable_index_is_made_anew") {
        return;
    }
    type Cuts = fn(&Path);
    // The index before the last change knew the first image by name; the second is found by its manifest.
    let rows: [(&str, &[&str], Cuts); 6] = [
        ("gone", &["whole:1"], |images| gone(images.join("index.json"))),
        ("both gone", &[], |images| {
            INDEXES.iter().for_each(|name| gone(images.join(name)))
        }),
        ("cut", &["whole:1"], |images| cut(&images.join("index.json"))),
        ("empty", &["whole:1"], |images| {
            write(images.join("index.json"), b"")
        }),
        ("garbage", &["whole:1"], |images| {
            write(images.join("index.json"), [0x5a; 900])
        }),
        ("both", &[], |images| {
            INDEXES.iter().for_each(|name| write(images.join(name), b"{"))
        }),
    ];
    for (name, names, hurts) in rows {
        let mut given = Given::new();
        let ids = |given: &Given| -> BTreeSet<Digest> {
            let list = given.store().list().expect("list").into_iter();
            list.map(|image| image.id).collect()
        };
        let before = ids(&given);
        given.meanwhile(hurts);
        assert_eq!(ids(&given), before, "{name}: every image is found again");
        for known in ["whole:1", "hurt:1"] {
            assert_eq!(given.has(known), names.contains(&known), "{name}: {known}");
        }
        let report = given.check(Content, Repair::No);
        assert_eq!(kinds(&report), [IndexUnreadable], "{name}: {report:?}");
        assert!(report.is_whole(), "{name}");
        assert_eq!(given.found(), [], "{name}: told once");
        given.load("hurt:1");
        assert_eq!(given.found(), [], "{name}");
    }
}

#[test]
fn a_name_without_an_image_goes() {
    if !root("a_name_without_an_image_goes") {
        return;
    }
    let mut given = Given::new();
    let ghost = json!(format!("sha256:{STRANGER}"));
    given.meanwhile(|images| edit_index(images, |index| index["tags"]["docker.io/library/ghost:1"] = ghost));
    let report = given.check(Names, Repair::No);
    assert_eq!(kinds(&report), [NameWithoutImage]);
    assert_eq!(report.findings[0].place, "ghost:1");
    assert!(given.check(Names, Repair::Full).is_whole());
    assert_eq!(given.found(), []);
    assert!(given.has("whole:1") && given.has("hurt:1"));
}

/// Every file of a store with its content.
fn content(images: &Path) -> BTreeSet<(PathBuf, Vec<u8>)> {
    let (mut files, mut left) = (BTreeSet::new(), vec![images.to_owned()]);
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(&folder).expect("list") {
            let path = entry.expect("entry").path();
            let meta = fs::symlink_metadata(&path).expect("there");
            if meta.is_dir() {
                left.push(path);
            } else if meta.is_file() {
                let bytes = fs::read(&path).expect("file");
                files.insert((path, bytes));
            }
        }
    }
    files
}

/// A version may be taken back: what a newer one wrote is not damage.
#[test]
fn an_index_of_another_version_is_left_alone() {
    if !root("an_index_of_another_version_is_left_alone") {
        return;
    }
    type Edits = fn(&mut serde_json::Value);
    let rows: [(&str, Edits); 4] = [
        ("a format", |index| index["format"] = json!(99)),
        ("a field", |index| index["colours"] = json!({})),
        ("a field of an image", |index| {
            for record in index["images"].as_object_mut().expect("images").values_mut() {
                record["colour"] = json!("blue");
            }
        }),
        ("a variant", |index| {
            for record in index["images"].as_object_mut().expect("images").values_mut() {
                record["layers"][0]["stored"] = json!("elsewhere");
            }
        }),
    ];
    for (name, edits) in rows {
        for is_previous in [false, true] {
            let mut given = Given::new();
            given.store = None;
            let images = given.images();
            edit_index(&images, |index| {
                edits(index);
                index["written_by"] = json!("kakoi 7.5.3");
            });
            if is_previous {
                let [path, previous] = INDEXES.map(|name| images.join(name));
                fs::rename(&path, previous).expect("renamed");
                write(path, b"");
            }
            let before = content(&images);
            for start in 1..=3 {
                let refused = ImageStore::open(given.dir.path()).map(|_| ());
                let told = refused.expect_err("not for this version").to_string();
                assert!(told.contains("kakoi 7.5.3"), "{name} {start}: {told}");
                assert!(
                    content(&images) == before,
                    "{name} {start}: everything lies there"
                );
            }
        }
    }
}

/// An index of the first format, which said less, is read and written anew.
#[test]
fn an_index_of_the_first_format_is_read() {
    if !root("an_index_of_the_first_format_is_read") {
        return;
    }
    let mut given = Given::new();
    given.meanwhile(|images| {
        edit_index(images, |index| {
            index["format"] = json!(1);
            let fields = index.as_object_mut().expect("an object");
            fields.remove("written_by").expect("a field");
            fields.remove("measures").expect("a field");
        })
    });
    assert_eq!(given.found(), []);
    given.store().tag("whole:1", "again:1").expect("tagged");
    assert_eq!(read_index(&given.images())["format"], 2);
    given.again();
    assert!(given.has("again:1"));
}

fn put_blob(given: &Given, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    let path = given.store().blob_path(&digest, crate::index::Stored::Plain);
    write(&path, bytes);
    mode(&path, 0o600);
    digest
}

/// An index that was made anew names again what was written down about images; what it cannot name stays, and is told, until a person has it removed.
#[test]
fn an_index_made_anew_loses_nothing_in_silence() {
    if !root("an_index_made_anew_loses_nothing_in_silence") {
        return;
    }
    const REPOSITORY: &str = "r.example/app";
    for is_more in [false, true] {
        let mut given = Given::new();
        let ids = ["whole:1", "hurt:1"].map(|name| given.id(name));
        let manifest = given.store().state().index.images[&ids[0]].manifest.clone();
        let list = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": manifest.to_string(),
                "size": 500,
                "platform": {"architecture": "amd64", "os": "linux"},
            }],
        });
        let list = put_blob(&given, list.to_string().as_bytes());
        let evidence = json!({
            "subject": {"repository": REPOSITORY, "digests": [list.to_string(), manifest.to_string()]},
            "layers": [], "decided_at": "2026-11-24T17:00:00Z", "downgrade": "refused",
            "scope": null, "mode": "require", "findings": [], "release": null,
        });
        put_blob(&given, evidence.to_string().as_bytes());
        let stranger = is_more.then(|| {
            // What only looks like evidence: whoever wrote a manifest may have written this into it.
            let mut other = evidence.clone();
            other["subject"]["repository"] = json!("r.example/other");
            other["config"] = json!({});
            put_blob(&given, other.to_string().as_bytes())
        });
        given.meanwhile(|images| INDEXES.iter().for_each(|name| gone(images.join(name))));
        let kept = |id: &Digest, name: &str| given.store().evidence(id, name).expect("known");
        let origin = kept(&ids[0], REPOSITORY);
        assert_eq!(origin.evidence, Some(evidence.to_string().into_bytes()));
        assert!(origin.documents.contains(&list) && origin.documents.contains(&manifest));
        assert_eq!(kept(&ids[1], REPOSITORY).evidence, None, "of another image");
        let strangers = kept(&ids[0], "r.example/other");
        assert_eq!(strangers.evidence, None, "a stranger's");
        let report = given.check(Content, Repair::Heal);
        let told = &report.findings[0];
        assert_eq!(told.damage, IndexUnreadable);
        let Some(stranger) = stranger else {
            assert_eq!(told.outcome, Outcome::Healed, "{report:?}");
            assert!(report.is_whole(), "{report:?}");
            continue;
        };
        assert_eq!(told.outcome, Outcome::Lost, "{report:?}");
        assert!(!report.is_whole());
        let place = given.store().blob_path(&stranger, crate::index::Stored::Plain);
        for start in 1..=2 {
            given.again();
            given.load("more:1");
            let report = given.check(Content, Repair::Heal);
            assert_eq!(kinds(&report), [BlobWithoutImage], "{start}: {report:?}");
            assert!(place.exists(), "{start}");
            let low = LowWater {
                free_bytes: u64::MAX,
                takes_named: true,
            };
            let made = given.store().make_room(low, &nobody).expect("looked");
            assert!(made.removed.is_empty(), "{start}: nothing goes by itself");
        }
        assert!(given.check(Content, Repair::Full).is_whole());
        assert!(!place.exists(), "a person had it removed");
        assert_eq!(given.found(), []);
    }
}

/// At a start nothing goes whose name the store does not give, and never what a file system keeps in its root.
#[test]
fn healing_takes_nothing_of_others() {
    if !root("healing_takes_nothing_of_others") {
        return;
    }
    let mut given = Given::new();
    let images = given.images();
    for name in ["lost+found", "layers/lost+found", "backup", "blobs/sha512"] {
        folder(images.join(name));
        write(images.join(name).join("file"), b"mine");
    }
    for file in ["notes", "blobs/sha256/README", "layers/x", "recipes/y"] {
        write(images.join(file), b"mine");
    }
    let before = content(&images);
    given.again();
    let report = given.check(Content, Repair::Heal);
    assert_eq!(report.findings.len(), 6, "{report:?}");
    assert!(is_all(&report, &Outcome::Found), "{report:?}");
    assert!(content(&images) == before);
    assert!(given.check(Content, Repair::Full).is_whole());
    for (path, is_there) in [("notes", false), ("backup", false), ("lost+found/file", true)] {
        assert_eq!(images.join(path).exists(), is_there, "{path}");
    }
    assert_eq!(given.found(), []);
    // A link in a folder's place is not followed.
    let outside = tempfile::tempdir().expect("a folder");
    mode(outside.path(), 0o755);
    fs::rename(images.join("recipes"), outside.path().join("recipes")).expect("moved");
    mode(&outside.path().join("recipes"), 0o755);
    std::os::unix::fs::symlink(outside.path().join("recipes"), images.join("recipes")).expect("a link");
    let report = given.check(Names, Repair::Full);
    let failed = |finding: &Finding| matches!(finding.outcome, Outcome::Failed { .. });
    assert!(
        report
            .findings
            .iter()
            .any(|finding| finding.damage == FolderMode && failed(finding)),
        "{report:?}"
    );
    let meta = fs::metadata(outside.path().join("recipes")).expect("there");
    assert_eq!(meta.mode() & 0o7777, 0o755);
}

/// A container that is started while its layer is unpacked again keeps the layer that it has mounted.
#[test]
fn a_layer_is_not_exchanged_under_a_start_that_came_between() {
    if !root("a_layer_is_not_exchanged_under_a_start_that_came_between") {
        return;
    }
    let given = Given::new();
    let hurt = given.id("hurt:1");
    mode(&given.hurt.layer.join("d/more"), 0o777);
    let inode = || fs::metadata(&given.hurt.layer).expect("layer").ino();
    let (before, is_started) = (inode(), Cell::new(false));
    let uses = used_by(&hurt, || Some(is_started.get()));
    // The start comes after the layer was unpacked, and before things stand still.
    let report = given.check_while(Metadata, &uses, || is_started.set(true));
    assert_eq!(report.findings[0].outcome, in_use());
    assert_eq!(inode(), before);
    assert!(given.check(Metadata, Repair::Full).is_whole(), "once it is down");
}

/// What was fetched between the look and the giving up is whole, and stays with its image.
#[test]
fn what_came_anew_since_it_was_found_is_not_given_up() {
    if !root("what_came_anew_since_it_was_found_is_not_given_up") {
        return;
    }
    for then in [Loses, Keeps] {
        let given = Given::new();
        let hurt = match then {
            Keeps => &given.hurt.recipe,
            _ => &given.hurt.manifest,
        };
        let kept = fs::read(hurt).expect("file");
        cut(hurt);
        let report = given.check_while(Content, &nobody, || {
            gone(hurt);
            write(hurt, &kept);
            mode(hurt, 0o600);
        });
        assert!(report.is_whole(), "{report:?}");
        let last = given.check(Content, Repair::No);
        assert!(last.findings.is_empty() && last.images == 2, "{last:?}");
    }
}

/// Somebody who begins to use a lost image before it is given up keeps it.
#[test]
fn a_lost_image_that_came_into_use_keeps_its_name() {
    if !root("a_lost_image_that_came_into_use_keeps_its_name") {
        return;
    }
    let given = Given::new();
    let hurt = given.id("hurt:1");
    cut(&given.hurt.manifest);
    let is_made = Cell::new(false);
    let uses = used_by(&hurt, || is_made.get().then_some(false));
    let report = given.check_while(Content, &uses, || is_made.set(true));
    assert_eq!(report.lost[0].containers, ["c0ffee"]);
    assert!(given.has("hurt:1"));
}
