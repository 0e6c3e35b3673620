//! What is attached to images: found within bounds whatever strangers attached, kept with the image, and attached by us.

use serde_json::{Value, json};

use super::server::{GZIP, INDEX, MANIFEST, Server, Shelf, client};
use super::*;

const SIGNATURE: &str = "application/x.signature";

fn digest(descriptor: &Value) -> Digest {
    Digest::parse(descriptor["digest"].as_str().expect("text")).expect("a digest")
}

fn serve(shelf: &Shelf) -> Server {
    let served = shelf.clone();
    Server::start(move |request, wire| served.answer(request, wire))
}

/// A manifest with payloads as its layers.
fn carrier(shelf: &Shelf, tag: &str, layers: &[Value]) -> Value {
    let config = shelf.blob("application/vnd.oci.empty.v1+json", b"{}");
    let document = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
    shelf.manifest(tag, MANIFEST, &document)
}

fn found(server: &Server, digests: &[Digest]) -> Result<Vec<Attached>, RegistryError> {
    let client = client(&[server]);
    let name = reference(server, "a:1");
    let repository = Repository::new(&client, &name, None, Access::Pull);
    repository.attached(digests, &[SIGNATURE], &Limits::DEVICE, &|_| false)
}

fn payloads(found: &[Attached]) -> Vec<String> {
    let texts = found
        .iter()
        .map(|one| String::from_utf8_lossy(&one.payload).into_owned());
    texts.collect()
}

#[test]
fn good_signatures_are_found_among_what_strangers_attached() {
    let shelf = Shelf::default();
    let image = digest(&shelf.image("1", &layers()[..1], &gzip));
    let mut noted = shelf.blob(SIGNATURE, b"classic");
    noted["annotations"] = json!({"note": "kept"});
    let mut wordy = shelf.blob(SIGNATURE, b"wordy");
    wordy["annotations"] = json!({"note": "x".repeat(17 << 10)});
    let large = shelf.blob(SIGNATURE, &vec![b'x'; (256 << 10) + 1]);
    let absent = json!({"mediaType": SIGNATURE, "digest": Digest::of(b"absent"), "size": 6});
    let mut short = shelf.blob(SIGNATURE, b"another size");
    short["size"] = json!(3);
    let other = shelf.blob(GZIP, b"no signature");
    carrier(
        &shelf,
        &format!("{}.sig", fallback_tag(&image)),
        &[wordy, large, absent, short, other, noted],
    );
    let referrers = [
        carrier(&shelf, "r1", &[shelf.blob(SIGNATURE, b"bundle")]),
        shelf.manifest_bytes("r2", MANIFEST, b"{\"schemaVersion\":2,\"schemaVersion\":2}"),
        shelf.manifest_bytes("r3", MANIFEST, b"[[[["),
        json!({"mediaType": MANIFEST, "digest": Digest::of(b"gone"), "size": 4}),
        json!({"mediaType": INDEX, "digest": image.to_string(), "size": 4}),
        carrier(&shelf, "r4", &[shelf.blob(SIGNATURE, b"last")]),
    ];
    shelf.manifest(
        &fallback_tag(&image),
        INDEX,
        &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": referrers}),
    );
    let server = serve(&shelf);
    let seen = found(&server, std::slice::from_ref(&image)).expect("the registry answers");
    assert_eq!(payloads(&seen), ["classic", "bundle", "last"]);
    assert_eq!(seen[0].annotations["note"], "kept");
    // Nothing is attached to another digest.
    let nothing = found(&server, &[Digest::of(b"another")]).expect("the registry answers");
    assert_eq!(nothing, []);
}

#[test]
fn number_and_bytes_of_what_is_fetched_are_bounded() {
    let shelf = Shelf::default();
    let image = digest(&shelf.image("1", &layers()[..1], &gzip));
    let many: Vec<Value> = (0..200)
        .map(|number: u32| shelf.blob(SIGNATURE, &number.to_be_bytes()))
        .collect();
    carrier(&shelf, &format!("{}.sig", fallback_tag(&image)), &many);
    let server = serve(&shelf);
    let seen = found(&server, std::slice::from_ref(&image)).expect("the registry answers");
    assert_eq!(seen.len(), ATTACHED_MAX);

    let shelf = Shelf::default();
    let heavy: Vec<Value> = (0..60u8)
        .map(|number| shelf.blob(SIGNATURE, &vec![number; 256 << 10]))
        .collect();
    carrier(&shelf, &format!("{}.sig", fallback_tag(&image)), &heavy);
    let server = serve(&shelf);
    let seen = found(&server, std::slice::from_ref(&image)).expect("the registry answers");
    let bytes: usize = seen.iter().map(|one| one.payload.len()).sum();
    assert_eq!(bytes, 4 << 20);

    let shelf = Shelf::default();
    let referrers: Vec<Value> = (0..300)
        .map(|number| carrier(&shelf, &format!("r{number}"), &[shelf.blob(GZIP, b"nothing")]))
        .collect();
    shelf.manifest(
        &fallback_tag(&image),
        INDEX,
        &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": referrers}),
    );
    let server = serve(&shelf);
    assert_eq!(
        found(&server, std::slice::from_ref(&image)).expect("the registry answers"),
        []
    );
    assert!(
        server.count("/manifests/sha256:") <= 64,
        "{}",
        server.count("/manifests/sha256:")
    );
}

/// Answers like a registry that knows the referrers API, and knows nothing by it unless it is told.
fn with_api(shelf: &Shelf, referrers: &[Value]) -> Server {
    let (served, index) = (
        shelf.clone(),
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": referrers}),
    );
    Server::start(move |request, wire| match request.path.contains("/referrers/") {
        true => reply(
            wire,
            200,
            &[("Content-Type", INDEX)],
            index.to_string().as_bytes(),
        ),
        false => served.answer(request, wire),
    })
}

/// A client that asks a mirror before the registry.
fn mirrored(home: &Server, mirror: &Server) -> Client {
    let mut settings = client(&[home, mirror]).settings().clone();
    let entry = settings.registries.get_mut(&home.name()).expect("there");
    entry.mirrors = vec![mirror.name()];
    Client::new(settings, Proxies::default(), super::server::IMPATIENT)
}

#[test]
fn a_list_that_is_empty_does_not_hide_what_lies_under_the_tag() {
    let shelf = Shelf::default();
    let image = digest(&shelf.image("1", &layers()[..1], &gzip));
    let bundle = carrier(&shelf, "r1", &[shelf.blob(SIGNATURE, b"bundle")]);
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [bundle]});
    shelf.manifest(&fallback_tag(&image), INDEX, &index);
    let server = with_api(&shelf, &[]);
    let seen = found(&server, std::slice::from_ref(&image)).expect("the registry answers");
    assert_eq!(payloads(&seen), ["bundle"]);
}

#[test]
fn a_mirror_does_not_hide_what_is_attached() {
    let shelf = Shelf::default();
    let image = digest(&shelf.image("1", &layers()[..1], &gzip));
    let bundle = carrier(&shelf, "r1", &[shelf.blob(SIGNATURE, b"bundle")]);
    let home = with_api(&shelf, std::slice::from_ref(&bundle));
    let ask = |home: &Server, mirror: &Server, is_enough: &dyn Fn(&[Attached]) -> bool| {
        let (client, name) = (mirrored(home, mirror), reference(home, "a:1"));
        let repository = Repository::new(&client, &name, None, Access::Pull);
        let digests = std::slice::from_ref(&image);
        let seen = repository.attached(digests, &[SIGNATURE], &Limits::DEVICE, is_enough);
        payloads(&seen.expect("somebody answers"))
    };
    let is_signed = |found: &[Attached]| payloads(found).contains(&"bundle".to_owned());
    // It says that there is nothing.
    let empty = with_api(&Shelf::default(), &[]);
    assert_eq!(ask(&home, &empty, &is_signed), ["bundle"]);
    assert!(empty.count("/referrers/") == 1 && home.count("/referrers/") == 1);
    // It offers as much of something else as is looked at at all: what the registry has comes before that.
    let junk = Shelf::default();
    let many: Vec<Value> = (0..100)
        .map(|number: u32| junk.blob(SIGNATURE, &number.to_be_bytes()))
        .collect();
    let junk = with_api(&junk, &[carrier(&junk, "junk", &many)]);
    let seen = ask(&home, &junk, &is_signed);
    assert_eq!((seen[0].as_str(), seen.len()), ("bundle", 1 + ATTACHED_MAX));
    // It has what the registry has: that is not asked.
    let before = home.requests().len();
    let whole = with_api(&shelf, &[bundle]);
    assert_eq!(ask(&home, &whole, &is_signed), ["bundle"]);
    assert_eq!(home.requests().len(), before);
    // Both have the same, and it is not enough: once is what it is worth.
    assert_eq!(ask(&home, &whole, &|_| false), ["bundle"]);
    // The registry cannot be asked, or not by us: what the mirror has is what there is.
    for status in [500, 401, 403] {
        let broken = Server::start(move |_, wire| reply(wire, status, &[], b""));
        assert_eq!(ask(&broken, &whole, &|_| false), ["bundle"], "{status}");
        assert!(broken.requests().len() == 1, "{status}: {:?}", broken.requests());
        assert_eq!(ask(&broken, &whole, &is_signed), ["bundle"]);
    }
    // A mirror that cannot be asked hides nothing either; where nobody can, that is no image without signatures.
    let broken = Server::start(|_, wire| reply(wire, 500, &[], b""));
    assert_eq!(ask(&home, &broken, &is_signed), ["bundle"]);
    let (client, name) = (mirrored(&broken, &broken), reference(&broken, "a:1"));
    let repository = Repository::new(&client, &name, None, Access::Pull);
    let digests = std::slice::from_ref(&image);
    let seen = repository.attached(digests, &[SIGNATURE], &Limits::DEVICE, &is_signed);
    assert!(matches!(seen, Err(RegistryError::Status { .. })), "{seen:?}");
}

#[test]
fn a_registry_that_cannot_be_asked_is_no_registry_without_signatures() {
    let server = Server::start(|_, wire| reply(wire, 401, &[], b""));
    assert!(found(&server, &[Digest::of(b"x")]).is_err());
}

#[test]
fn evidence_is_kept_with_the_image_and_believed_only_whole() {
    if !root("evidence_is_kept_with_the_image_and_believed_only_whole") {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let store = ImageStore::open(dir.path()).expect("open");
    let shelf = Shelf::default();
    let manifest = digest(&shelf.image("1", &layers()[..1], &gzip));
    let server = serve(&shelf);
    let name = reference(&server, "a:1");
    let repository = format!("{}/a", server.name());
    let pull_with = |evidence: Option<&'static [u8]>| {
        let admit = move |_: &Resolved<'_, '_>| Ok(evidence.map(<[u8]>::to_vec));
        let options = PullOptions {
            admit: Some(&admit),
            ..PullOptions::default()
        };
        store
            .pull(&client(&[&server]), &name, &options, &|_| true)
            .expect("pulled")
            .id
    };
    let id = pull_with(None);
    let origin = store.evidence(&id, &repository).expect("known");
    assert_eq!(
        (origin.documents, origin.evidence, origin.carried),
        (vec![manifest], None, Vec::new())
    );
    // Their digests tell what would be read: another's as soon as it is another.
    let digests = |name: &str| store.origin_digests(&id, name).expect("known");
    let bare = digests(&repository);
    pull_with(Some(b"first"));
    let first = digests(&repository);
    pull_with(Some(b"second"));
    let second = digests(&repository);
    assert!(bare != first && first != second && bare == digests("r.example/other"));
    // What was found once stays where nothing was looked for.
    pull_with(None);
    assert_eq!(digests(&repository), second);
    assert!(
        store
            .origin_digests(&Digest::of(b"no image"), &repository)
            .is_err()
    );
    let kept = |store: &ImageStore| store.evidence(&id, &repository).expect("known").evidence;
    assert_eq!(kept(&store).as_deref(), Some(&b"second"[..]));
    assert_eq!(
        store.evidence(&id, "r.example/other").expect("known").evidence,
        None
    );
    assert_eq!(store.repositories(&id), std::slice::from_ref(&repository));
    drop(store);
    let store = ImageStore::open(dir.path()).expect("opened anew");
    assert_eq!(kept(&store).as_deref(), Some(&b"second"[..]));
    let blobs = dir.path().join("images/blobs/sha256");
    assert!(
        !blobs.join(Digest::of(b"first").hex()).exists(),
        "what was replaced is collected"
    );
    std::fs::write(blobs.join(Digest::of(b"second").hex()), b"forged").expect("damaged");
    assert!(matches!(
        store.evidence(&id, &repository),
        Err(StoreError::DocumentDamaged { .. })
    ));
    assert!(store.evidence(&Digest::of(b"no image"), &repository).is_err());
    store
        .remove(&id.to_string(), true, &|_| Vec::new())
        .expect("removed");
    assert!(inventory(dir.path()).is_empty());
}

#[test]
fn what_is_attached_is_found_again() {
    let shelf = Shelf::default();
    let image = shelf.image("1", &layers()[..1], &gzip);
    let server = serve(&shelf);
    let client = client(&[&server]);
    let name = reference(&server, "a:1");
    let repository = Repository::new(&client, &name, None, Access::Push);
    let attach = |payload: &[u8]| {
        let empty = b"{}".to_vec();
        let descriptor = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len()});
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": SIGNATURE,
            "config": descriptor("application/vnd.oci.empty.v1+json", &empty),
            "layers": [descriptor(SIGNATURE, payload)], "subject": image});
        let manifest = manifest.to_string();
        let attachment = Attachment {
            blobs: &[payload.to_vec(), empty],
            manifest: manifest.as_bytes(),
            tag: None,
        };
        repository.attach(&attachment, &Limits::DEVICE).expect("attached")
    };
    let first = attach(b"one");
    assert_eq!(attach(b"one"), first, "the same again");
    attach(b"two");
    let seen = found(&server, &[digest(&image)]).expect("the registry answers");
    assert_eq!(payloads(&seen), ["one", "two"]);
    let index = shelf
        .manifest_of(&fallback_tag(&digest(&image)))
        .expect("the fallback tag");
    let index: Value = serde_json::from_slice(&index).expect("JSON");
    assert_eq!(index["manifests"].as_array().map(Vec::len), Some(2), "{index}");
    let malformed = Attachment {
        blobs: &[],
        manifest: b"{",
        tag: None,
    };
    assert!(repository.attach(&malformed, &Limits::DEVICE).is_err());
}
