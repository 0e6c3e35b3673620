//! Pulling from and pushing to registries in threads: good ones here, bad ones in `hostile`.

mod attached;
mod documents;
mod hostile;
mod parts;
mod resume;
pub(super) mod server;
mod tls;

use std::sync::Mutex;

use serde_json::json;

use self::server::{CONFIG, GZIP, INDEX, MANIFEST, Request, Server, Shelf, Wire, client, reply};
use super::build::{TarBuilder, config, gzip, zstd};
use super::root;
use super::store::inventory;
use crate::registry::*;
use crate::*;

fn layers() -> Vec<Vec<u8>> {
    (0..4)
        .map(|number| {
            let noise: Vec<u8> = (0..300_000u32)
                .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
                .collect();
            TarBuilder::new()
                .file(&format!("file-{number}"), &noise)
                .file("top", &[number; 3])
                .finish()
        })
        .collect()
}

fn reference(server: &Server, rest: &str) -> Reference {
    Reference::parse(&format!("{}/{rest}", server.name())).expect("a name")
}

fn pull(store: &ImageStore, client: &Client, reference: &Reference) -> Result<Pulled, PullError> {
    store.pull(client, reference, &PullOptions::default(), &|_| true)
}

#[test]
fn an_image_is_pulled_whole_and_not_again() {
    if !root("an_image_is_pulled_whole_and_not_again") {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let store = ImageStore::open(dir.path()).expect("open");
    let shelf = Shelf::default();
    for (tag, pack) in [
        ("gzip", &gzip as &dyn Fn(&[u8]) -> Vec<u8>),
        ("zstd", &zstd),
        ("plain", &<[u8]>::to_vec),
    ] {
        shelf.image(tag, &layers(), pack);
    }
    let served = shelf.clone();
    let server = Server::start(move |request, wire| served.answer(request, wire));
    for tag in ["gzip", "zstd", "plain"] {
        let name = reference(&server, &format!("some/app:{tag}"));
        let told = Mutex::new(Vec::new());
        let listener = |event| {
            told.lock().expect("not poisoned").push(event);
            true
        };
        let pulled = store.pull(&client(&[&server]), &name, &PullOptions::default(), &listener);
        let pulled = pulled.expect(tag);
        assert!(!pulled.is_up_to_date);
        let image = store.resolve(&name.to_string()).expect("named");
        assert_eq!(image.id, pulled.id);
        assert_eq!(
            std::fs::read(image.layers[0].join("top")).expect("a file"),
            [3; 3]
        );
        let details = store.inspect(&name.to_string()).expect("told about");
        assert!(details.summary.repo_digests.contains(&format!(
            "{}/some/app@{}",
            server.name(),
            pulled.digest
        )));
        let told = told.into_inner().expect("not poisoned");
        let done = |event: &&PullEvent| matches!(event, PullEvent::Layer(_, LayerStep::Done));
        assert!(matches!(&told[0], PullEvent::Layers(layers) if layers.len() == 4));
        assert_eq!(told.iter().filter(done).count(), 4, "{tag}");

        let before = server.count("/blobs/");
        let again = pull(&store, &client(&[&server]), &name).expect("again");
        assert!(again.is_up_to_date);
        assert_eq!(
            server.count("/blobs/"),
            before + 1,
            "only the configuration is asked for"
        );
    }
    assert_eq!(
        store.list().expect("list").len(),
        1,
        "three packings of one image"
    );
    drop(store);
    let store = ImageStore::open(dir.path()).expect("opened anew");
    store
        .remove(&store.list().expect("list")[0].id.to_string(), true, &|_| {
            Vec::new()
        })
        .expect("removed");
    assert!(inventory(dir.path()).is_empty());
}

#[test]
fn the_platform_is_chosen_and_the_tag_is_read_once() {
    if !root("the_platform_is_chosen_and_the_tag_is_read_once") {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let store = ImageStore::open(dir.path()).expect("open");
    let shelf = Shelf::default();
    let mut own = shelf.image("own", &layers()[..1], &gzip);
    own["platform"] = json!({"os": "linux", "architecture": crate::architecture()});
    let layer = TarBuilder::new().file("other", b"x").finish();
    let other = config(std::slice::from_ref(&layer), json!({"architecture": "mips"}));
    let document = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": shelf.blob(CONFIG, &other),
        "layers": [shelf.blob(GZIP, &gzip(&layer))]});
    let mut other = shelf.manifest("other", MANIFEST, &document);
    other["platform"] = json!({"os": "linux", "architecture": "mips"});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [other, own]});
    let index = shelf.manifest("both", INDEX, &index);
    let served = shelf.clone();
    let server = Server::start(move |request, wire| served.answer(request, wire));
    let name = reference(&server, "a:both");
    let pulled = pull(&store, &client(&[&server]), &name).expect("own platform");
    assert_eq!(pulled.digest.to_string(), index["digest"]);
    assert_eq!(server.count("/manifests/both"), 1);
    let mips = PullOptions {
        platform: Platform::parse("linux/mips"),
        ..PullOptions::default()
    };
    store
        .pull(&client(&[&server]), &name, &mips, &|_| true)
        .expect("mips");
    assert_eq!(
        store
            .resolve(&name.to_string())
            .expect("named")
            .document
            .architecture,
        "mips"
    );
    let riscv = PullOptions {
        platform: Platform::parse("riscv64"),
        ..PullOptions::default()
    };
    let refused = store.pull(&client(&[&server]), &name, &riscv, &|_| true);
    let said = refused.expect_err("there is none").to_string();
    assert!(said.contains("linux/mips") && said.contains("riscv64"), "{said}");
    // By digest, and then it has no tag.
    let pinned = Reference::parse(&format!("{}/a@{}", server.name(), pulled.digest)).expect("a name");
    pull(&store, &client(&[&server]), &pinned).expect("by digest");
    // An image of another machine that no index stands before.
    assert!(matches!(
        pull(&store, &client(&[&server]), &reference(&server, "a:other")),
        Err(PullError::Registry(RegistryError::NoPlatform { .. }))
    ));
}

#[test]
fn whoever_admits_images_is_asked_before_layers_are_fetched() {
    if !root("whoever_admits_images_is_asked_before_layers_are_fetched") {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let store = ImageStore::open(dir.path()).expect("open");
    let shelf = Shelf::default();
    let manifest = shelf.image("1", &layers(), &gzip);
    let subject = Digest::parse(manifest["digest"].as_str().expect("text")).expect("digest");
    let referrer = json!({"schemaVersion": 2, "manifests": [manifest]});
    shelf.manifest(&fallback_tag(&subject), INDEX, &referrer);
    let served = shelf.clone();
    let server = Server::start(move |request, wire| served.answer(request, wire));
    let admit = |resolved: &Resolved<'_, '_>| {
        assert_eq!(resolved.top.digest, subject);
        assert_eq!(Digest::of(&resolved.manifest.bytes), subject);
        let found = resolved
            .repository
            .referrers(&subject, &Limits::DEVICE)
            .expect("by the fallback tag");
        assert_eq!(found.len(), 1);
        Err("not signed".into())
    };
    let options = PullOptions {
        admit: Some(&admit),
        ..PullOptions::default()
    };
    let refused = store.pull(&client(&[&server]), &reference(&server, "a:1"), &options, &|_| {
        true
    });
    assert_eq!(refused.expect_err("refused").to_string(), "not signed");
    assert_eq!(server.count("/blobs/"), 0);
    assert!(inventory(dir.path()).is_empty());
}

/// Credentials that servers here take.
const PAIR: &str = "Basic dXNlcjpzZWNyZXQ=";

fn secret() -> Option<Credentials> {
    Some(Credentials {
        username: String::from("user"),
        password: String::from("secret"),
        ..Credentials::default()
    })
}

/// Basic for `/v2/basic/`, tokens for the rest; a token is good for six requests.
fn guarded(shelf: &Shelf, left: &Mutex<u32>, request: &Request, wire: &mut dyn Wire) {
    let host = request.header("host").to_owned();
    if request.path.starts_with("/token?") {
        assert!(request.path.contains("service=here"), "{}", request.path);
        return match request.header("authorization") {
            PAIR => {
                *left.lock().expect("not poisoned") = 6;
                reply(wire, 200, &[], br#"{"token": "t0ken"}"#);
            }
            _ => reply(wire, 401, &[], br#"{"details": "wrong password"}"#),
        };
    }
    let (wanted, challenge) = match request.path.starts_with("/v2/basic/") {
        true => (PAIR, String::from("Basic realm=\"here\"")),
        false => (
            "Bearer t0ken",
            format!("Bearer realm=\"http://{host}/token\",service=\"here\",scope=\"ignored\""),
        ),
    };
    let mut left = left.lock().expect("not poisoned");
    let is_good = request.header("authorization") == wanted && (wanted == PAIR || *left > 0);
    if !is_good {
        let said = br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
        return reply(wire, 401, &[("WWW-Authenticate", &challenge)], said);
    }
    *left = left.saturating_sub(1);
    drop(left);
    shelf.answer(request, wire);
}

#[test]
fn credentials_open_what_is_guarded() {
    if !root("credentials_open_what_is_guarded") {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let store = ImageStore::open(dir.path()).expect("open");
    let shelf = Shelf::default();
    shelf.image("1", &layers(), &gzip);
    let (served, left) = (shelf.clone(), Mutex::new(0));
    let server = Server::start(move |request, wire| guarded(&served, &left, request, wire));
    for name in ["basic/app:1", "token/app:1"] {
        let name = reference(&server, name);
        let wrong = Some(Credentials {
            password: String::from("guess"),
            ..secret().expect("some")
        });
        for credentials in [None, wrong] {
            let options = PullOptions {
                credentials,
                ..PullOptions::default()
            };
            let refused = store.pull(&client(&[&server]), &name, &options, &|_| true);
            let said = refused.expect_err("guarded").to_string();
            assert!(said.contains("kakoi login") && !said.contains("guess"), "{said}");
        }
        assert!(inventory(dir.path()).is_empty());
        let options = PullOptions {
            credentials: secret(),
            ..PullOptions::default()
        };
        store
            .pull(&client(&[&server]), &name, &options, &|_| true)
            .expect("open");
        store
            .remove(&name.to_string(), false, &|_| Vec::new())
            .expect("removed");
    }
}

#[test]
fn mirrors_are_asked_first_and_see_no_credentials() {
    if !root("mirrors_are_asked_first_and_see_no_credentials") {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let store = ImageStore::open(dir.path()).expect("open");
    let shelf = Shelf::default();
    shelf.image("1", &layers(), &gzip);
    let (served, left) = (shelf.clone(), Mutex::new(0));
    let home = Server::start(move |request, wire| guarded(&served, &left, request, wire));
    let served = shelf.clone();
    // It has the manifest, and half of each layer.
    let mirror = Server::start(move |request, wire| match request.path.contains("/blobs/") {
        true => {
            let mut whole = Vec::new();
            served.answer(request, &mut std::io::Cursor::new(&mut whole));
            drop(wire.write_all(&whole[..whole.len() / 2]));
        }
        false => served.answer(request, wire),
    });
    let mut settings = client(&[&home, &mirror]).settings().clone();
    let entry = settings.registries.get_mut(&home.name()).expect("there");
    entry.mirrors = vec![mirror.name(), String::from("127.0.0.1:1")];
    let client = Client::new(settings, Proxies::default(), server::IMPATIENT);
    let options = PullOptions {
        credentials: secret(),
        ..PullOptions::default()
    };
    store
        .pull(&client, &reference(&home, "basic/app:1"), &options, &|_| true)
        .expect("from both");
    assert!(mirror.count("/manifests/") == 1 && home.count("/manifests/") == 0);
    assert!(
        mirror
            .requests()
            .iter()
            .all(|request| request.header("authorization").is_empty())
    );
    assert!(
        home.requests()
            .iter()
            .any(|request| request.header("range").starts_with("bytes="))
    );
}

#[test]
fn a_mirror_with_wrong_layers_is_passed_over_once() {
    if !root("a_mirror_with_wrong_layers_is_passed_over_once") {
        return;
    }
    let shelf = Shelf::default();
    shelf.image("1", &layers(), &gzip);
    // Of the right length, and of other bytes: at its end where it unpacks all the same, or at its head.
    let lying = |shelf: &Shelf, at_end: bool| {
        let served = shelf.clone();
        Server::start(move |request, wire| match request.path.contains("/blobs/") {
            true => {
                let mut whole = Vec::new();
                served.answer(request, &mut std::io::Cursor::new(&mut whole));
                let head = whole.windows(4).position(|four| four == b"\r\n\r\n");
                let head = head.expect("a head") + 4;
                let place = if at_end { whole.len() - 1 } else { head };
                whole[place] ^= 0xff;
                drop(wire.write_all(&whole));
            }
            false => served.answer(request, wire),
        })
    };
    for home_lies in [false, true] {
        let dir = tempfile::tempdir().expect("folder");
        let store = ImageStore::open(dir.path()).expect("open");
        let served = shelf.clone();
        let home = match home_lies {
            true => lying(&shelf, true),
            false => Server::start(move |request, wire| served.answer(request, wire)),
        };
        let mirrors = [lying(&shelf, false), lying(&shelf, true)];
        let mut settings = client(&[&home, &mirrors[0], &mirrors[1]]).settings().clone();
        let entry = settings.registries.get_mut(&home.name()).expect("there");
        entry.mirrors = mirrors.iter().map(Server::name).collect();
        let client = Client::new(settings, Proxies::default(), server::IMPATIENT);
        let name = reference(&home, "basic/app:1");
        let pulled = store.pull(&client, &name, &PullOptions::default(), &|_| true);
        assert_eq!(
            pulled.is_err(),
            home_lies,
            "the digest decides, wherever it is from"
        );
        for server in &mirrors {
            let requests = server.requests();
            let mut blobs: Vec<_> = requests
                .iter()
                .filter(|request| request.path.contains("/blobs/"))
                .collect();
            let asked = blobs.len();
            blobs.sort_by(|a, b| a.path.cmp(&b.path));
            blobs.dedup_by(|a, b| a.path == b.path);
            assert_eq!(asked, blobs.len(), "each blob once");
        }
    }
}

#[test]
fn what_breaks_off_goes_on_and_what_is_refused_for_now_is_asked_again() {
    if !root("what_breaks_off_goes_on_and_what_is_refused_for_now_is_asked_again") {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let store = ImageStore::open(dir.path()).expect("open");
    let shelf = Shelf::default();
    shelf.image("1", &layers(), &gzip);
    let (served, seen) = (
        shelf.clone(),
        Mutex::new(std::collections::BTreeMap::<String, u32>::new()),
    );
    let server = Server::start(move |request, wire| {
        let mut seen = seen.lock().expect("not poisoned");
        let count = seen.entry(request.path.clone()).or_default();
        *count += 1;
        let count = *count;
        drop(seen);
        match count {
            1 => reply(wire, 429, &[("Retry-After", "0")], b""),
            2 => reply(wire, 503, &[], b"<html>"),
            3 if request.path.contains("/blobs/") => {
                let mut whole = Vec::new();
                served.answer(request, &mut std::io::Cursor::new(&mut whole));
                drop(wire.write_all(&whole[..whole.len() * 2 / 3]));
            }
            _ => served.answer(request, wire),
        }
    });
    let name = reference(&server, "a:1");
    pull(&store, &client(&[&server]), &name).expect("in the end");
    assert_eq!(store.resolve(&name.to_string()).expect("named").layers.len(), 4);
}

#[test]
fn an_image_is_pushed_and_comes_back_the_same() {
    if !root("an_image_is_pushed_and_comes_back_the_same") {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let store = ImageStore::open(dir.path()).expect("open");
    let shelf = Shelf::default();
    let original = shelf.image("1", &layers(), &gzip);
    let served = shelf.clone();
    let server = Server::start(move |request, wire| served.answer(request, wire));
    pull(&store, &client(&[&server]), &reference(&server, "a:1")).expect("pulled");
    // Where its layers are they are not sent, and it keeps its digest.
    let second = reference(&server, "c:1");
    store
        .tag(&reference(&server, "a:1").to_string(), &second.to_string())
        .expect("tagged");
    let pushed = store
        .push(&client(&[&server]), &second, None, &|_| true)
        .expect("pushed");
    assert_eq!(
        (pushed.digest.to_string().into(), pushed.formerly),
        (original["digest"].clone(), None)
    );
    assert_eq!(server.count("/blobs/uploads/"), 0);
    // To another registry: made anew, and said so.
    let empty = Shelf::default();
    let (served, left) = (empty.clone(), Mutex::new(0));
    let other = Server::start(move |request, wire| guarded(&served, &left, request, wire));
    let target = reference(&other, "token/b:2");
    store
        .tag(&reference(&server, "a:1").to_string(), &target.to_string())
        .expect("tagged");
    let refused = store.push(&client(&[&other]), &target, None, &|_| true);
    assert!(matches!(
        refused,
        Err(PushError::Registry(RegistryError::Unauthorized { .. }))
    ));
    let pushed = store
        .push(&client(&[&other]), &target, secret(), &|_| true)
        .expect("pushed");
    assert_eq!(
        pushed.formerly.map(|digest| digest.to_string().into()),
        Some(original["digest"].clone())
    );
    let document = empty.manifest_of("2").expect("there");
    assert_eq!(Digest::of(&document), pushed.digest);
    let id = store.resolve(&target.to_string()).expect("named").id;
    let elsewhere = tempfile::tempdir().expect("folder");
    let elsewhere = ImageStore::open(elsewhere.path()).expect("open");
    let options = PullOptions {
        credentials: secret(),
        ..PullOptions::default()
    };
    let back = elsewhere.pull(&client(&[&other]), &target, &options, &|_| true);
    assert_eq!(back.expect("pulled back").id, id);
    // Again: everything is there.
    let before = other.requests().len();
    let told = Mutex::new(0);
    let listener = |event| {
        let present = matches!(event, PushEvent::Layer(_, PushStep::Present));
        *told.lock().expect("not poisoned") += u32::from(present);
        true
    };
    store
        .push(&client(&[&other]), &target, secret(), &listener)
        .expect("again");
    assert_eq!(told.into_inner().expect("not poisoned"), 4);
    // On a busy machine a question may be asked again, which uses the token up sooner, and then the manifest is refused once and sent again:
    // what is written counts, not how often.
    let mut written: Vec<String> = other.requests()[before..]
        .iter()
        .filter(|request| !matches!(request.method.as_str(), "GET" | "HEAD"))
        .map(|request| format!("{} {}", request.method, request.path))
        .collect();
    written.dedup();
    assert_eq!(written, ["PUT /v2/token/b/manifests/2"], "the manifest alone");
}

#[test]
fn a_digest_stays_where_the_very_bytes_can_be_had_again() {
    if !root("a_digest_stays_where_the_very_bytes_can_be_had_again") {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let store = ImageStore::open(dir.path()).expect("open");
    let shelf = Shelf::default();
    let served = shelf.clone();
    let server = Server::start(move |request, wire| served.answer(request, wire));
    let empty = || {
        let shelf = Shelf::default();
        let served = shelf.clone();
        let server = Server::start(move |request, wire| served.answer(request, wire));
        (shelf, server)
    };
    // What another program packed cannot be packed in its way; bare tars go out as they came.
    for (tag, pack, stays) in [
        ("bare", &<[u8]>::to_vec as &dyn Fn(&[u8]) -> Vec<u8>, true),
        ("gzip", &gzip, false),
        ("zstd", &zstd, false),
    ] {
        let original = shelf.image(tag, &layers(), pack);
        let name = reference(&server, &format!("a:{tag}"));
        pull(&store, &client(&[&server]), &name).expect("pulled");
        let names = [name.to_string()];
        let resealed = store.resealed_by_save(&names).expect("known");
        let mut archive = Vec::new();
        store
            .save(&names, ArchiveFormat::Oci, &mut archive)
            .expect("saved");
        let digest = original["digest"].as_str().expect("text");
        let holds = archive
            .windows(digest.len())
            .any(|window| window == digest.as_bytes());
        assert_eq!(holds, stays, "{tag}: the archive names the manifest");
        let told: Vec<String> = resealed.into_iter().map(|(_, was)| was.to_string()).collect();
        assert_eq!(told.is_empty(), stays, "{tag}");
        assert!(told.iter().all(|was| was == digest), "{tag}: {told:?}");
        let (other, elsewhere) = empty();
        let target = reference(&elsewhere, "b:1");
        store.tag(&name.to_string(), &target.to_string()).expect("tagged");
        let pushed = store
            .push(&client(&[&elsewhere]), &target, None, &|_| true)
            .expect("pushed");
        assert_eq!(pushed.digest.to_string() == digest, stays, "{tag}");
        let was = pushed.formerly.map(|was| was.to_string());
        assert_eq!(was.as_deref(), (!stays).then_some(digest), "{tag}");
        // What this code packed it packs the same again: the next registry gets the digest that this one has.
        let second = tempfile::tempdir().expect("folder");
        let second = ImageStore::open(second.path()).expect("open");
        pull(&second, &client(&[&elsewhere]), &target).expect("pulled back");
        let (_, third) = empty();
        let last = reference(&third, "c:1");
        second
            .tag(&target.to_string(), &last.to_string())
            .expect("tagged");
        let again = second
            .push(&client(&[&third]), &last, None, &|_| true)
            .expect("pushed on");
        assert_eq!(
            (again.digest, again.formerly),
            (pushed.digest.clone(), None),
            "{tag}"
        );
        assert!(other.manifest_of(&pushed.digest.to_string()).is_some());
        for name in [name, target] {
            store.untag(&name.to_string()).expect("untagged");
        }
        store.prune(true, &|_| Vec::new()).expect("pruned");
    }
}

#[test]
fn a_bare_layer_is_packed_for_pushing_and_a_large_one_goes_in_pieces() {
    if !root("a_bare_layer_is_packed_for_pushing_and_a_large_one_goes_in_pieces") {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let store = ImageStore::open(dir.path()).expect("open");
    let mut state = 7u64;
    let noise: Vec<u8> = (0..20 << 20)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect();
    let layer = TarBuilder::new().file("noise", &noise).finish();
    let layers = [layer];
    let shelf = Shelf::default();
    let served = shelf.clone();
    let server = Server::start(move |request, wire| served.answer(request, wire));
    let name = reference(&server, "a:1");
    let archive = super::build::docker_archive(&config(&layers, json!({})), &layers, &[&name.to_string()]);
    store.load(&archive[..], &mut |_| {}).expect("loaded");
    let pushed = store
        .push(&client(&[&server]), &name, None, &|_| true)
        .expect("pushed");
    assert!(server.requests().iter().any(|request| request.method == "PATCH"));
    let document = shelf.manifest_of("1").expect("there");
    assert_eq!(Digest::of(&document), pushed.digest);
    let document: serde_json::Value = serde_json::from_slice(&document).expect("json");
    assert_eq!(document["layers"][0]["mediaType"], GZIP);
    assert!(shelf.has_blob(document["layers"][0]["digest"].as_str().expect("text")));
    // And comes back as the same image.
    let id = store.list().expect("list")[0].id.clone();
    store
        .remove(&name.to_string(), false, &|_| Vec::new())
        .expect("removed");
    assert_eq!(pull(&store, &client(&[&server]), &name).expect("pulled").id, id);
}

#[test]
fn tags_are_listed_page_by_page() {
    let server = Server::start(|request, wire| match request.path.contains("last=b") {
        true => reply(wire, 200, &[], br#"{"name":"a","tags":["c","no tag"]}"#),
        false => {
            let link = "</v2/a/tags/list?last=b&n=2>; rel=\"next\"";
            reply(wire, 200, &[("Link", link)], br#"{"name":"a","tags":["a","b"]}"#);
        }
    });
    let client = client(&[&server]);
    let repository = Repository::new(&client, &reference(&server, "a"), None, Access::Pull);
    assert_eq!(repository.tags().expect("listed"), ["a", "b", "c"]);
}
