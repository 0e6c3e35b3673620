//! Signatures.
//!
//! What must hold: nobody made a signature for the image in question, so whatever the bytes are, the answer is a refusal.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use kakoi_trust::sign::{sign_bundle, sign_classic, sign_release};
use kakoi_trust::{
    BUNDLE, Digest, Floors, Grounds, Layer, Padding, PrivateKey, Release, Repository, Revocations,
    SIGNATURE_ANNOTATION, SIMPLE_SIGNING, Subject, Trust, Verdict, Version, decide, recheck,
};

/// The owner's key, which signs in [`signatures`], though nothing for [`subject`].
static KEY: LazyLock<PrivateKey> = LazyLock::new(|| {
    let pem = PrivateKey::generate().expect("random numbers");
    PrivateKey::from_pem(&pem, None, Padding::Pss).expect("an own key")
});

static TRUST: LazyLock<Trust> = LazyLock::new(|| {
    let pem = KEY.public().to_pem().replace('\n', "\n      ");
    let text = format!(
        "version: 1\nkeys:\n  owner:\n    public_key: |\n      {pem}\nrevocation: {{keys: [owner], threshold: 1}}\n\
         scopes:\n  r.example/app: {{mode: require, keys: [owner]}}\n\
         \n  r.example/released: {{mode: require, keys: [owner], release: true}}\n"
    );
    Trust::parse("trust.yaml", &text).expect("our own trust.yaml")
});

fn subject(repository: &str) -> Subject {
    Subject {
        repository: Repository::parse(repository).expect("a repository"),
        digests: vec![Digest::of(b"an image that nobody signed")],
    }
}

/// Judges a signature: its kind in the first byte, then up to a line's end what is annotated, then the payload. Takes none.
pub fn signature(bytes: &[u8]) -> bool {
    let Some((kind, rest)) = bytes.split_first() else {
        return false;
    };
    let (annotation, payload) = match rest.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&rest[..end], &rest[end + 1..]),
        None => (&b""[..], rest),
    };
    let media_type = if kind % 2 == 0 { SIMPLE_SIGNING } else { BUNDLE };
    let layer = Layer {
        media_type: media_type.to_owned(),
        payload: payload.to_vec(),
        annotations: BTreeMap::from([(
            SIGNATURE_ANNOTATION.to_owned(),
            String::from_utf8_lossy(annotation).into_owned(),
        )]),
    };
    let floors = Floors::none();
    let grounds = Grounds {
        trust: &TRUST,
        revocations: None,
        floors: &floors,
        now: "2026-11-24T12:00:00Z".parse().expect("a time"),
    };
    for repository in ["r.example/app", "r.example/released"] {
        let Verdict::Refused(refusal) = decide(subject(repository), vec![layer.clone()], grounds) else {
            panic!("what nobody signed is trusted in {repository}");
        };
        let shown = refusal.to_string();
        assert!(!shown.contains('\n') && shown.len() < 4096, "{shown:?}");
        assert!(matches!(recheck(&refusal.evidence, grounds), Verdict::Refused(_)));
    }
    assert!(Revocations::verify(payload, &TRUST, None, grounds.now).is_err());
    false
}

/// Signatures to begin with: good ones, of another image.
pub fn signatures() -> Vec<Vec<u8>> {
    let image = Digest::of(b"another image");
    let repository = Repository::parse("r.example/app").expect("a repository");
    let notes = BTreeMap::from([("env".to_owned(), "production".to_owned())]);
    let classic = sign_classic(&KEY, &repository, &image, &notes).expect("signed");
    let bundle = sign_bundle(&KEY, &image, &notes).expect("signed");
    let release = Release {
        name: "app".to_owned(),
        version: Version::parse("1.2.3").expect("a version"),
        digest: image,
    };
    let release = sign_release(&KEY, &release).expect("signed");
    let framed = |kind: u8, layer: &Layer| {
        let note = layer
            .annotations
            .get(SIGNATURE_ANNOTATION)
            .map_or("", String::as_str);
        [&[kind], note.as_bytes(), b"\n", &layer.payload].concat()
    };
    vec![framed(0, &classic), framed(1, &bundle), framed(1, &release)]
}
