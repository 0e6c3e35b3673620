//! Decisions over real signatures: those that cosign and skopeo made (`tests/vectors`) and our own, whole and tampered with.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::sign::{classic_artifact, sign_bundle, sign_classic, sign_release};
use crate::*;

const IMAGE: &str = "sha256:616941cb78c12b9932624cd6aa07b14a2cc5d4444dbd7e7188f5d012027f2943";
const PASSWORD: &str = "throw-away";

macro_rules! vector {
    ($name:literal) => {
        include_str!(concat!("../tests/vectors/", $name))
    };
}

fn now() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().expect("a time")
}

fn key() -> PrivateKey {
    let pem = PrivateKey::generate().expect("random numbers");
    PrivateKey::from_pem(&pem, None, Padding::Pss).expect("own key")
}

fn image() -> Digest {
    Digest::parse(IMAGE).expect("a digest")
}

fn subject(repository: &str) -> Subject {
    Subject {
        repository: Repository::parse(repository).expect(repository),
        digests: vec![image()],
    }
}

/// A layer as a registry client reads it from a signature's manifest.
fn layer(manifest: &str, payload: &str) -> Layer {
    let manifest: Value = serde_json::from_str(manifest).expect("a manifest");
    let layer = &manifest["layers"][0];
    assert_eq!(
        layer["digest"],
        json!(Digest::of(payload.as_bytes())),
        "the vector is whole"
    );
    Layer {
        media_type: layer["mediaType"].as_str().expect("a type").to_owned(),
        payload: payload.as_bytes().to_vec(),
        annotations: serde_json::from_value(layer["annotations"].clone()).unwrap_or_default(),
    }
}

/// trust.yaml with keys and one scope; `{}` in `scope` is what stands there beside `mode: require`.
fn trust(keys: &[(&str, &PublicKey, &str)], scope: &str) -> Trust {
    let mut text = "version: 1\nkeys:\n".to_owned();
    for (name, key, fields) in keys {
        let pem = key.to_pem().replace('\n', "\n      ");
        text.push_str(&format!("  {name}:\n    public_key: |\n      {pem}\n{fields}"));
    }
    text.push_str(&format!(
        "scopes:\n  127.0.0.1:5917/acme: {{mode: require, {scope}}}\n"
    ));
    Trust::parse("trust.yaml", &text).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

fn verdict(trust: &Trust, repository: &str, layers: Vec<Layer>) -> Verdict {
    decide(subject(repository), layers, grounds(trust, &Floors::none()))
}

fn grounds<'a>(trust: &'a Trust, floors: &'a Floors) -> Grounds<'a> {
    Grounds {
        trust,
        revocations: None,
        floors,
        now: now(),
        downgrade: Downgrade::Refused,
    }
}

#[track_caller]
fn trusted(verdict: Verdict) -> Evidence {
    match verdict {
        Verdict::Trusted(evidence) => evidence,
        other => panic!("not trusted: {other:?}"),
    }
}

#[track_caller]
fn refused(verdict: Verdict, why: &str) {
    match verdict {
        Verdict::Refused(refusal) => {
            let text = refusal.to_string();
            assert!(text.contains(why), "{text:?} does not say {why:?}");
            assert!(text.contains("kakoi trust allow "), "{text}");
        }
        other => panic!("not refused for {why:?}: {other:?}"),
    }
}

fn public(pem: &str, padding: Padding) -> PublicKey {
    PublicKey::from_pem(pem, padding).expect("a vector's key")
}

#[test]
fn signatures_of_cosign_and_skopeo_hold() {
    let p256 = public(vector!("p256.pub"), Padding::Pss);
    let ed = public(vector!("ed.pub"), Padding::Pss);
    let rsa = public(vector!("rsa.pub"), Padding::Pkcs1v15);
    let cases = [
        (
            "p256",
            &p256,
            vector!("p256.manifest.json"),
            vector!("p256.payload.json"),
            "annotations: {env: prod}",
        ),
        (
            "ed",
            &ed,
            vector!("ed.manifest.json"),
            vector!("ed.payload.json"),
            "",
        ),
        (
            "rsa",
            &rsa,
            vector!("rsa.manifest.json"),
            vector!("rsa.payload.json"),
            "",
        ),
        (
            "skopeo",
            &p256,
            vector!("skopeo.manifest.json"),
            vector!("skopeo.payload.json"),
            "",
        ),
        (
            "bundle",
            &p256,
            vector!("bundle.manifest.json"),
            vector!("bundle.payload.json"),
            "",
        ),
        (
            "rel",
            &p256,
            vector!("rel.manifest.json"),
            vector!("rel.payload.json"),
            "release: true, release_name: gateway-app",
        ),
    ];
    let stranger = key();
    for (name, key, manifest, payload, scope) in cases {
        let fields = match key.algorithm() {
            Algorithm::Rsa(padding) => format!("    padding: {}\n", padding.word()),
            _ => String::new(),
        };
        let layers = vec![layer(manifest, payload)];
        let rule = format!("keys: [k], {scope}");
        let trusting = trust(&[("k", key, &fields)], &rule);
        let evidence = trusted(verdict(
            &trusting,
            &format!("127.0.0.1:5917/acme/{name}"),
            layers.clone(),
        ));
        assert_eq!(
            evidence.findings[0].fingerprint,
            Some(key.fingerprint()),
            "{name}"
        );
        // Beside each of them: another repository, another image, another key.
        refused(
            verdict(&trusting, "127.0.0.1:5917/acme/other", layers.clone()),
            "signed it for",
        );
        let mut other = subject(&format!("127.0.0.1:5917/acme/{name}"));
        other.digests = vec![Digest::of(b"another image")];
        let floors = Floors::none();
        refused(
            decide(other, layers.clone(), grounds(&trusting, &floors)),
            "signed another image",
        );
        let distrusting = trust(&[("k", stranger.public(), "")], &rule);
        refused(
            verdict(&distrusting, &format!("127.0.0.1:5917/acme/{name}"), layers),
            "no key of the scope made",
        );
    }
}

#[test]
fn a_release_of_cosign_is_read() {
    let p256 = public(vector!("p256.pub"), Padding::Pss);
    let trusting = trust(
        &[("k", &p256, "")],
        "keys: [k], release: true, release_name: gateway-app",
    );
    let layers = vec![layer(vector!("rel.manifest.json"), vector!("rel.payload.json"))];
    let release = trusted(verdict(&trusting, "127.0.0.1:5917/acme/rel", layers)).release;
    let release = release.expect("a release was demanded");
    assert_eq!(
        (release.name.as_str(), release.version.to_string().as_str()),
        ("gateway-app", "1.4.0")
    );
}

#[test]
fn padding_of_rsa_is_the_owner_s_word() {
    let layers = vec![layer(vector!("rsa.manifest.json"), vector!("rsa.payload.json"))];
    let pss = public(vector!("rsa.pub"), Padding::Pss);
    refused(
        verdict(
            &trust(&[("k", &pss, "")], "keys: [k]"),
            "127.0.0.1:5917/acme/rsa",
            layers,
        ),
        "its `padding` is `pkcs1v15`",
    );
    for padding in [Padding::Pss, Padding::Pkcs1v15] {
        let key = PrivateKey::from_pem(vector!("rsa.pem"), None, padding).expect("a vector's key");
        let repository = Repository::parse("127.0.0.1:5917/acme/x").expect("good");
        let layer = sign_classic(&key, &repository, &image(), &BTreeMap::new()).expect("signed");
        let fields = format!("    padding: {}\n", padding.word());
        let trusting = trust(&[("k", key.public(), &fields)], "keys: [k]");
        trusted(verdict(&trusting, repository.as_str(), vec![layer]));
    }
}

#[test]
fn private_keys_are_read_in_their_forms() {
    let p256 =
        PrivateKey::from_pem(vector!("p256.cosign.key"), Some(PASSWORD), Padding::Pss).expect("cosign's");
    assert_eq!(p256.public(), &public(vector!("p256.pub"), Padding::Pss));
    let ed = PrivateKey::from_pem(vector!("ed.pem"), None, Padding::Pss).expect("PKCS#8");
    assert_eq!(ed.public(), &public(vector!("ed.pub"), Padding::Pss));
    assert_eq!(
        format!("{ed:?}"),
        format!("PrivateKey({})", ed.public().fingerprint())
    );
    let bad = |text: &str, password| PrivateKey::from_pem(text, password, Padding::Pss).expect_err("refused");
    assert!(matches!(
        bad(vector!("p256.cosign.key"), None),
        PrivateKeyError::PasswordMissing
    ));
    assert!(matches!(
        bad(vector!("p256.cosign.key"), Some("wrong")),
        PrivateKeyError::Secretbox(SecretboxError::Password)
    ));
    assert!(matches!(
        bad(vector!("p256.pub"), None),
        PrivateKeyError::Label { .. }
    ));
    assert!(matches!(bad("hello", None), PrivateKeyError::Pem(_)));
    let greedy = json!({"kdf": {"name": "scrypt", "params": {"N": 1u64 << 40, "r": 8, "p": 1}, "salt": ""},
        "cipher": {"name": "nacl/secretbox", "nonce": "A".repeat(32)}, "ciphertext": ""});
    let greedy = pem::encode("ENCRYPTED SIGSTORE PRIVATE KEY", greedy.to_string().as_bytes());
    assert!(matches!(
        bad(&greedy, Some("x")),
        PrivateKeyError::Secretbox(SecretboxError::Parameters)
    ));
}

#[test]
fn weak_and_strange_public_keys_are_refused() {
    let read = |text: &str| PublicKey::from_pem(text, Padding::Pss);
    assert!(matches!(
        read(vector!("rsa2048.pub")),
        Err(PublicKeyError::RsaBits { bits: 2048 })
    ));
    assert!(matches!(
        read(vector!("p384.pub")),
        Err(PublicKeyError::Algorithm)
    ));
    assert!(matches!(
        read(vector!("compressed.pub")),
        Err(PublicKeyError::Point)
    ));
    assert!(matches!(
        read(vector!("ed.pem")),
        Err(PublicKeyError::Label { .. })
    ));
    let (_, spki) = pem::decode(vector!("p256.pub")).expect("PEM");
    for at in 0..spki.len() {
        // No prefix is a key, and no byte before the point can be another one.
        assert!(PublicKey::from_spki(&spki[..at], Padding::Pss).is_err());
        let mut changed = spki.clone();
        changed[at] ^= 0x40;
        assert!(
            at >= 27 || PublicKey::from_spki(&changed, Padding::Pss).is_err(),
            "byte {at}"
        );
    }
    assert!(PublicKey::from_spki(&[&spki[..], &[0]].concat(), Padding::Pss).is_err());
}

/// An owner who trusts `a` and `b`, and signatures of them.
struct Fixture {
    a: PrivateKey,
    b: PrivateKey,
    repository: Repository,
}

impl Fixture {
    fn new() -> Self {
        Self {
            a: key(),
            b: key(),
            repository: Repository::parse("127.0.0.1:5917/acme/app").expect("good"),
        }
    }

    fn classic(&self, key: &PrivateKey) -> Layer {
        sign_classic(key, &self.repository, &image(), &BTreeMap::new()).expect("signed")
    }

    fn bundle(&self, key: &PrivateKey) -> Layer {
        sign_bundle(key, &image(), &BTreeMap::new()).expect("signed")
    }

    fn release(&self, key: &PrivateKey, version: &str) -> Layer {
        let release = Release {
            name: self.repository.to_string(),
            version: Version::parse(version).expect(version),
            digest: image(),
        };
        sign_release(key, &release).expect("signed")
    }

    fn trust(&self, scope: &str) -> Trust {
        trust(&[("a", self.a.public(), ""), ("b", self.b.public(), "")], scope)
    }

    fn decide(&self, trust: &Trust, layers: &[Layer]) -> Verdict {
        verdict(trust, self.repository.as_str(), layers.to_vec())
    }
}

#[test]
fn own_signatures_hold_and_each_change_breaks_them() {
    let fixture = Fixture::new();
    let trusting = fixture.trust("keys: [a, b]");
    for whole in [fixture.classic(&fixture.a), fixture.bundle(&fixture.a)] {
        trusted(fixture.decide(&trusting, std::slice::from_ref(&whole)));
        for at in 0..whole.payload.len() {
            let mut changed = whole.clone();
            changed.payload[at] ^= 1;
            // Bits outside what is signed (a bundle's hint, white space) may change; nothing else may pass.
            if let Verdict::Trusted(evidence) = fixture.decide(&trusting, &[changed.clone()]) {
                assert_eq!(whole.media_type, BUNDLE);
                let before: Value = serde_json::from_slice(&whole.payload).expect("JSON");
                let after: Value = serde_json::from_slice(&changed.payload).expect("JSON");
                assert_eq!(
                    before["dsseEnvelope"]["payload"],
                    after["dsseEnvelope"]["payload"]
                );
                assert_eq!(
                    evidence.findings[0].fingerprint,
                    Some(fixture.a.public().fingerprint())
                );
            }
            let mut short = whole.clone();
            short.payload.truncate(at);
            refused(fixture.decide(&trusting, &[short]), "0 of 1 keys signed it");
        }
    }
    let mut short = fixture.classic(&fixture.a);
    let signature = short.annotations.get_mut(SIGNATURE_ANNOTATION).expect("there");
    signature.truncate(signature.len() - 8);
    refused(
        fixture.decide(&trusting, &[short.clone()]),
        "no key of the scope made",
    );
    short.annotations.clear();
    refused(
        fixture.decide(&trusting, &[short]),
        "no signature in the annotation",
    );
    refused(fixture.decide(&trusting, &[]), "it is not signed");
}

#[test]
fn formats_do_not_pass_for_each_other() {
    let fixture = Fixture::new();
    let trusting = fixture.trust("keys: [a]");
    for (media_type, why) in [
        (BUNDLE, "reading the signature"),
        ("application/vnd.oci.image.layer.v1.tar", "is no signature"),
        ("application/vnd.dev.sigstore.bundle.v0.2+json", "is no signature"),
    ] {
        let mut layer = fixture.classic(&fixture.a);
        layer.media_type = media_type.to_owned();
        refused(fixture.decide(&trusting, &[layer]), why);
    }
    let mut layer = fixture.bundle(&fixture.a);
    layer.media_type = SIMPLE_SIGNING.to_owned();
    refused(
        fixture.decide(&trusting, &[layer]),
        "no signature in the annotation",
    );
    // A signature over the statement's bare bytes, and one over an envelope of another payload type.
    for payload_type in ["application/vnd.in-toto+json", "text/plain"] {
        let mut layer = fixture.bundle(&fixture.a);
        let mut bundle: Value = serde_json::from_slice(&layer.payload).expect("JSON");
        bundle["dsseEnvelope"]["payloadType"] = json!(payload_type);
        let payload = bundle["dsseEnvelope"]["payload"]
            .as_str()
            .expect("text")
            .to_owned();
        use base64::{Engine, engine::general_purpose::STANDARD};
        let bare = fixture
            .a
            .sign(&STANDARD.decode(payload).expect("base64"))
            .expect("signed");
        bundle["dsseEnvelope"]["signatures"][0]["sig"] = json!(STANDARD.encode(bare));
        layer.payload = bundle.to_string().into_bytes();
        refused(fixture.decide(&trusting, &[layer]), "0 of 1 keys");
    }
    // An Ed25519 signature where the owner's key is ECDSA: the key decides what is computed.
    let ed = PrivateKey::from_pem(vector!("ed.pem"), None, Padding::Pss).expect("PKCS#8");
    refused(
        fixture.decide(&trusting, &[fixture.classic(&ed)]),
        "no key of the scope made",
    );
}

#[test]
fn what_is_signed_must_be_a_signature() {
    let fixture = Fixture::new();
    let trusting = fixture.trust("keys: [a]");
    let sign = |payload: String| {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let signature = STANDARD.encode(fixture.a.sign(payload.as_bytes()).expect("signed"));
        Layer {
            media_type: SIMPLE_SIGNING.to_owned(),
            payload: payload.into_bytes(),
            annotations: BTreeMap::from([(SIGNATURE_ANNOTATION.to_owned(), signature)]),
        }
    };
    let good = String::from_utf8(fixture.classic(&fixture.a).payload).expect("text");
    trusted(fixture.decide(&trusting, &[sign(good.clone())]));
    for (payload, why) in [
        (
            good.replace("\"optional\":null", "\"optional\":null,\"optional\":{}"),
            "a key twice",
        ),
        (
            good.replace("container image", "something"),
            "no signature of an image",
        ),
        (good.replace("sha256:", "sha512:"), "no sha256 digest"),
        (good.replace("/acme/app", "/acme/App"), "the payload's repository"),
        (
            good.replace("/acme/app", "/acme/app-evil"),
            "signed it for 127.0.0.1:5917/acme/app-evil",
        ),
        (
            good.replace("docker-reference", "docker-ref"),
            "is missing or of another type",
        ),
        ("[".repeat(10_000), "reading the signature"),
        (good.clone() + &" ".repeat(PAYLOAD_BYTES_MAX), "more than"),
        (good + "{}", "reading the signature"),
        (String::new(), "reading the signature"),
    ] {
        refused(fixture.decide(&trusting, &[sign(payload)]), why);
    }
}

#[test]
fn attestations_are_no_signatures_unless_the_scope_says_so() {
    let fixture = Fixture::new();
    let mut layer = fixture.bundle(&fixture.a);
    let mut bundle: Value = serde_json::from_slice(&layer.payload).expect("JSON");
    let statement = json!({"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://slsa.dev/provenance/v1",
        "subject": [{"name": "", "digest": {"sha256": image().hex()}}], "predicate": {}});
    bundle["dsseEnvelope"] = dsse::seal(
        "application/vnd.in-toto+json",
        statement.to_string().as_bytes(),
        &[&fixture.a],
    )
    .expect("signed");
    layer.payload = bundle.to_string().into_bytes();
    refused(
        fixture.decide(&fixture.trust("keys: [a]"), &[layer.clone()]),
        "attested `https://slsa.dev/provenance/v1`",
    );
    let trusting = fixture.trust("keys: [a], predicates: [https://slsa.dev/provenance/v1]");
    trusted(fixture.decide(&trusting, &[layer]));
}

#[test]
fn a_threshold_counts_keys() {
    let fixture = Fixture::new();
    let both = fixture.trust("keys: [a, b], threshold: 2");
    let (of_a, of_b) = (fixture.classic(&fixture.a), fixture.bundle(&fixture.b));
    trusted(fixture.decide(&both, &[of_a.clone(), of_b.clone()]));
    refused(fixture.decide(&both, std::slice::from_ref(&of_a)), "1 of 2 keys");
    refused(
        fixture.decide(&both, &[of_a.clone(), of_a.clone()]),
        "1 of 2 keys",
    );
    refused(
        fixture.decide(&both, &[of_a.clone(), fixture.bundle(&fixture.a)]),
        "1 of 2 keys",
    );
    // One key under three names is one key; beside a second one such a scope may stand, but its names do not add up.
    let keys = [
        ("a", fixture.a.public(), ""),
        ("c", fixture.a.public(), ""),
        ("b", fixture.b.public(), ""),
    ];
    let twice = trust(&keys, "keys: [a, c, b], threshold: 2");
    refused(
        fixture.decide(&twice, &[of_a.clone(), fixture.classic(&fixture.a)]),
        "1 of 2 keys",
    );
    trusted(fixture.decide(&twice, &[of_a.clone(), of_b]));
    // Signatures are looked at up to a limit, and noise before it does not let anything in.
    let noise = vec![fixture.classic(&key()); SIGNATURES_MAX];
    refused(
        fixture.decide(&both, &[noise, vec![of_a]].concat()),
        "at most 64 are looked at",
    );
}

#[test]
fn keys_have_their_time() {
    let fixture = Fixture::new();
    let layers = [fixture.classic(&fixture.a)];
    let window = |fields: &str| {
        trust(
            &[("a", fixture.a.public(), fields), ("b", fixture.b.public(), "")],
            "keys: [a, b]",
        )
    };
    for (fields, why) in [
        ("    not_before: 2026-11-24T12:00:01Z\n", "is not valid before"),
        ("    not_after: 2026-11-24T12:00:00Z\n", "expired at"),
        ("    revoked: stolen\n", "is revoked: stolen"),
    ] {
        refused(fixture.decide(&window(fields), &layers), why);
    }
    trusted(fixture.decide(
        &window("    not_before: 2026-11-24T12:00:00Z\n    not_after: 2026-11-24T12:00:01Z\n"),
        &layers,
    ));
    // The same key under a name that has expired and one that has not.
    let keys = [
        ("old", fixture.a.public(), "    not_after: 2026-01-01T00:00:00Z\n"),
        ("new", fixture.a.public(), ""),
    ];
    let evidence = trusted(fixture.decide(&trust(&keys, "keys: [old, new]"), &layers));
    assert_eq!(evidence.findings[0].key.as_deref(), Some("new"));
}

#[test]
fn demanded_annotations_must_be_signed() {
    let fixture = Fixture::new();
    let trusting = fixture.trust("keys: [a], annotations: {env: production}");
    let annotations = |value: &str| BTreeMap::from([("env".to_owned(), value.to_owned())]);
    for (value, good) in [("production", true), ("test", false)] {
        let classic =
            sign_classic(&fixture.a, &fixture.repository, &image(), &annotations(value)).expect("signed");
        let bundle = sign_bundle(&fixture.a, &image(), &annotations(value)).expect("signed");
        for mut layer in [classic, bundle] {
            // What stands at the layer is not signed and counts for nothing.
            layer.annotations.insert("env".into(), "production".into());
            let verdict = fixture.decide(&trusting, &[layer]);
            if good {
                trusted(verdict);
            } else {
                refused(verdict, "without the annotation `env=production`");
            }
        }
    }
    refused(
        fixture.decide(&trusting, &[fixture.classic(&fixture.a)]),
        "without the annotation",
    );
}

#[test]
fn releases_do_not_go_back() {
    let fixture = Fixture::new();
    let trusting = fixture.trust("keys: [a, b], release: true");
    let at = |floors: &Floors, downgrade, layers: &[Layer]| {
        let mut grounds = grounds(&trusting, floors);
        grounds.downgrade = downgrade;
        decide(subject(fixture.repository.as_str()), layers.to_vec(), grounds)
    };
    let mut floors = Floors::none();
    let old = [fixture.release(&fixture.a, "1.4.0")];
    let evidence = trusted(at(&floors, Downgrade::Refused, &old));
    let release = evidence.release.expect("demanded");
    floors.commit(&release);
    trusted(at(&floors, Downgrade::Refused, &old));
    floors.commit(&Release {
        version: Version::parse("1.5").expect("good"),
        digest: Digest::of(b"newer"),
        ..release
    });
    refused(
        at(&floors, Downgrade::Refused, &old),
        "is a downgrade: 1.5 was committed",
    );
    let evidence = trusted(at(&floors, Downgrade::Permitted, &old));
    // What was permitted once stays so for that image, and for no other.
    trusted(recheck(&evidence, grounds(&trusting, &floors)));
    refused(
        at(&floors, Downgrade::Refused, &[fixture.release(&fixture.a, "1.5")]),
        "another image with the same version",
    );
    refused(
        at(&floors, Downgrade::Refused, &[fixture.classic(&fixture.a)]),
        "but no release document",
    );
    // The highest version that enough keys released counts: an image may be released again.
    let again = [
        fixture.release(&fixture.a, "1.4.0"),
        fixture.release(&fixture.a, "1.6"),
    ];
    let evidence = trusted(at(&floors, Downgrade::Refused, &again));
    assert_eq!(evidence.release.expect("demanded").version.to_string(), "1.6");
    // Two keys must release the same version.
    let both = fixture.trust("keys: [a, b], release: true, threshold: 2");
    let apart = [
        fixture.release(&fixture.a, "1.6"),
        fixture.release(&fixture.b, "1.7"),
    ];
    refused(fixture.decide(&both, &apart), "1 of 2 keys");
    trusted(fixture.decide(
        &both,
        &[
            fixture.release(&fixture.a, "1.6"),
            fixture.release(&fixture.b, "1.6"),
        ],
    ));
    // Another name's release is none of this one.
    let named = fixture.trust("keys: [a], release: true, release_name: other");
    refused(fixture.decide(&named, &old), "not as `other`");
}

#[test]
fn scopes_decide() {
    let modes = |text: &str| Trust::parse("trust.yaml", text).expect("good");
    let closed = Trust::nothing();
    refused(
        verdict(&closed, "docker.io/library/x", Vec::new()),
        "no scope of trust.yaml covers it; to allow it all the same: kakoi trust allow docker.io/library --mode audit",
    );
    let trust = modes(
        "version: 1\nscopes:\n  docker.io: {mode: audit}\n  docker.io/library: {mode: reject}\n  docker.io/library/good: {mode: audit}\n",
    );
    for (repository, mode) in [
        ("docker.io/acme/x", Mode::Audit),
        ("docker.io/library/x", Mode::Reject),
        ("docker.io/library/good", Mode::Audit),
        ("docker.io/library/good/x", Mode::Audit),
        ("docker.io/library/goody", Mode::Reject),
        ("docker.io/library-evil/x", Mode::Audit),
        ("ghcr.io/docker.io/library/good", Mode::Reject),
    ] {
        let name = Repository::parse(repository).expect(repository);
        assert_eq!(trust.mode(&name), mode, "{repository}");
        match verdict(&trust, repository, Vec::new()) {
            Verdict::Audited { complaint: None, .. } => assert_eq!(mode, Mode::Audit),
            Verdict::Refused(_) => assert_eq!(mode, Mode::Reject),
            other => panic!("{repository}: {other:?}"),
        }
    }
    refused(
        verdict(&trust, "docker.io/library/x", Vec::new()),
        "scope `docker.io/library` rejects it",
    );
    let open = modes("version: 1\ndefault: audit\n");
    assert!(matches!(
        verdict(&open, "docker.io/library/x", Vec::new()),
        Verdict::Audited {
            complaint: Some(Complaint::NoScope),
            ..
        }
    ));
    // An audited scope with keys says what would have been refused.
    let fixture = Fixture::new();
    let pem = fixture.a.public().to_pem().replace('\n', "\n      ");
    let audit = modes(&format!(
        "version: 1\nkeys:\n  a:\n    public_key: |\n      {pem}\nscopes:\n  127.0.0.1:5917: {{mode: audit, keys: [a]}}\n"
    ));
    let complains = |layers: &[Layer]| match fixture.decide(&audit, layers) {
        Verdict::Audited { complaint, .. } => complaint,
        other => panic!("{other:?}"),
    };
    assert_eq!(complains(&[]), Some(Complaint::Unsigned));
    assert_eq!(complains(&[fixture.classic(&fixture.a)]), None);
}

#[test]
fn revocation_works_offline_and_never_goes_back() {
    let fixture = Fixture::new();
    let root = key();
    let pem = |key: &PrivateKey| key.public().to_pem().replace('\n', "\n      ");
    let trust = Trust::parse(
        "trust.yaml",
        &format!(
            "version: 1\nkeys:\n  a:\n    public_key: |\n      {}\n  root:\n    public_key: |\n      {}\nrevocation: {{keys: [root]}}\nscopes:\n  127.0.0.1:5917: {{mode: require, keys: [a]}}\n",
            pem(&fixture.a),
            pem(&root)
        ),
    )
    .expect("good");
    let of_a = (fixture.a.public().fingerprint(), "laptop\nstolen".to_owned());
    let list = |version, keys: &[&PrivateKey], revoked: &[(Digest, String)]| {
        sign_revocations(version, revoked, keys).expect("signed")
    };
    let second = list(2, &[&root], std::slice::from_ref(&of_a));
    let taken = Revocations::verify(&second, &trust, None, now()).expect("signed by root");
    assert_eq!(taken.version(), 2);
    let layers = vec![fixture.classic(&fixture.a)];
    let evidence = trusted(fixture.decide(&trust, &layers));
    let floors = Floors::none();
    let mut offline = grounds(&trust, &floors);
    offline.revocations = Some(&taken);
    refused(
        decide(subject(fixture.repository.as_str()), layers, offline),
        "key `a` is revoked: laptopstolen",
    );
    refused(recheck(&evidence, offline), "is revoked");

    let again = |document: &[u8]| Revocations::verify(document, &trust, Some(&taken), now());
    again(&second).expect("the same list once more");
    again(&list(3, &[&root], &[])).expect("a newer one");
    let old = again(&list(1, &[&root], &[])).expect_err("an older one");
    assert!(matches!(
        old,
        RevocationError::Old {
            version: 1,
            current: 2
        }
    ));
    assert!(
        again(&list(2, &[&root], &[])).is_err(),
        "another list of the same version"
    );
    let unsigned = again(&list(4, &[&fixture.a], &[])).expect_err("not by root");
    assert!(matches!(
        unsigned,
        RevocationError::Threshold {
            signed: 0,
            threshold: 1
        }
    ));
    let nobody = Revocations::verify(&second, &Trust::nothing(), None, now()).expect_err("nobody may");
    assert!(matches!(nobody, RevocationError::NobodyMay));
    // A revoked root revokes nothing further.
    let of_root = (root.public().fingerprint(), String::new());
    let last = again(&list(5, &[&root], &[of_root])).expect("by root, itself");
    let after = list(6, &[&root], &[]);
    assert!(Revocations::verify(&after, &trust, Some(&last), now()).is_err());
    // A statement is no list, even by the right key.
    let bundle: Value = serde_json::from_slice(&fixture.bundle(&root).payload).expect("JSON");
    let envelope = bundle["dsseEnvelope"].to_string();
    assert!(matches!(again(envelope.as_bytes()), Err(RevocationError::Type)));
}

#[test]
fn evidence_is_judged_again_by_what_the_owner_says_now() {
    let fixture = Fixture::new();
    let fields = "    not_after: 2026-12-01T00:00:00Z\n";
    let keys = [("a", fixture.a.public(), fields), ("b", fixture.b.public(), "")];
    let before = trust(&keys, "keys: [a, b]");
    let evidence = trusted(fixture.decide(&before, &[fixture.classic(&fixture.a)]));
    let stored = serde_json::to_vec(&evidence).expect("plain data");
    let evidence: Evidence = serde_json::from_slice(&stored).expect("read back");
    let floors = Floors::none();
    // The clock of a gateway may stand at 1970, and the key may have expired since: neither stops an app that was let in.
    for time in ["1970-01-01T00:00:00Z", "2030-01-01T00:00:00Z"] {
        let mut later = grounds(&before, &floors);
        later.now = time.parse().expect("a time");
        trusted(recheck(&evidence, later));
    }
    // But the owner's mind may have changed.
    let without = trust(&keys, "keys: [b]");
    refused(
        recheck(&evidence, grounds(&without, &floors)),
        "no key of the scope made",
    );
    refused(
        recheck(&evidence, grounds(&Trust::nothing(), &floors)),
        "no scope",
    );
    let mut forged = evidence.clone();
    forged.subject.digests = vec![Digest::of(b"another image")];
    refused(
        recheck(&forged, grounds(&before, &floors)),
        "signed another image",
    );
}

#[test]
fn signatures_are_added_to_those_that_stand_there() {
    let theirs = vector!("p256.manifest.json").as_bytes();
    let fixture = Fixture::new();
    let ours = fixture.classic(&fixture.a);
    let artifact = classic_artifact(Some(theirs), std::slice::from_ref(&ours)).expect("a manifest");
    let manifest: Value = serde_json::from_slice(&artifact.manifest).expect("JSON");
    let before: Value = serde_json::from_slice(theirs).expect("JSON");
    assert_eq!(manifest["layers"][0], before["layers"][0]);
    assert_eq!(manifest["layers"][1]["digest"], json!(Digest::of(&ours.payload)));
    assert_eq!(artifact.blobs.len(), 2);
    assert_eq!(manifest["config"]["digest"], json!(artifact.blobs[1].digest));
    assert!(classic_artifact(Some(b"{}"), &[ours]).is_err());
}

#[test]
fn errors_in_trust_yaml_have_line_and_column() {
    let (a, b) = (key(), key());
    let pem = |key: &PrivateKey| key.public().to_pem().replace('\n', "\n      ");
    let keys = format!(
        "version: 1\nkeys:\n  a:\n    public_key: |\n      {}\n  a2:\n    public_key: |\n      {}\n  b:\n    public_key: |\n      {}\n",
        pem(&a),
        pem(&a),
        pem(&b)
    );
    let lines = keys.lines().count();
    for (text, line, column, message) in [
        ("", 1, 1, "an empty document"),
        ("a: [", 1, 4, "not valid YAML"),
        ("scopes: {}\n", 1, 1, "a trust.yaml without `version`"),
        ("version: 2\n", 1, 10, "`2` is not a version"),
        ("version: 1\nscope: {}\n", 2, 1, "unknown field `scope`"),
        ("version: 1\nversion: 1\n", 2, 1, "field `version` twice"),
        (
            "version: 1\ndefault: require\n",
            2,
            10,
            "`require` is not a default",
        ),
        ("version: 1\nscopes: &a {}\n", 2, 12, "an anchor"),
        ("version: 1\nscopes: !x {}\n", 2, 12, "a tag"),
        ("version: 1\n---\nversion: 1\n", 2, 1, "a second document"),
        (
            "version: 1\nscopes:\n  library: {mode: audit}\n",
            3,
            3,
            "does not begin with a registry",
        ),
        (
            "version: 1\nscopes:\n  docker.io/: {mode: audit}\n",
            3,
            3,
            "is not `REGISTRY/PATH`",
        ),
        (
            "version: 1\nscopes:\n  docker.io: {mode: adit}\n",
            3,
            21,
            "`adit` is not a mode",
        ),
        (
            "version: 1\nscopes:\n  docker.io: {mode: require}\n",
            3,
            14,
            "without `keys`",
        ),
        (
            "version: 1\nscopes:\n  docker.io:\n",
            3,
            3,
            "`docker.io` without a value",
        ),
        (
            "version: 1\nkeys:\n  a: {public_key: x}\n",
            3,
            19,
            "not a public key",
        ),
        (
            "version: 1\nkeys:\n  'a b': {public_key: x}\n",
            3,
            3,
            "no name for a key",
        ),
        ("version: 1\nrevocation: {keys: [x]}\n", 2, 21, "no key `x`"),
    ] {
        let errors = Trust::parse("trust.yaml", text).expect_err(text);
        let found = errors.list().iter().find(|error| error.message.contains(message));
        let found = found.unwrap_or_else(|| panic!("{errors}\nwhere {message:?} is expected"));
        assert_eq!((found.line, found.column), (line, column), "{errors}");
    }
    for (text, message) in [
        (
            "scopes:\n  docker.io: {mode: require, keys: [a, a2], threshold: 2}\n",
            "a threshold of 2, but 1 distinct keys",
        ),
        (
            "scopes:\n  docker.io: {mode: require, keys: [a, c]}\n",
            "no key `c`",
        ),
        (
            "scopes:\n  docker.io: {mode: require, keys: [a], threshold: 0}\n",
            "not a number from 1 on",
        ),
        (
            "scopes:\n  docker.io: {mode: require, keys: []}\n",
            "but 0 distinct keys",
        ),
        (
            "scopes:\n  docker.io: {mode: audit, release_name: x}\n",
            "`release_name` without `release: true`",
        ),
    ] {
        let errors = Trust::parse("trust.yaml", &format!("{keys}{text}")).expect_err(text);
        let found = &errors.list()[0];
        assert!(found.message.contains(message), "{errors}");
        assert!(found.line > lines, "{errors}");
    }
    let shown =
        Trust::parse("trust.yaml", "version: 1\nscopes:\n  docker.io: {mode: adit}\n").expect_err("a slip");
    assert_eq!(
        shown.to_string(),
        "error: `adit` is not a mode\n --> trust.yaml:3:21\n  |\n3 |   docker.io: {mode: adit}\n  |                     ^^^^ did you mean `audit`?\n  = help: expected one of `require`, `audit`, `reject`"
    );
}

#[test]
fn the_drawing_in_config_is_a_trust_yaml() {
    let text: String = include_str!("config.rs")
        .lines()
        .skip_while(|line| *line != "//! ```yaml")
        .skip(1)
        .take_while(|line| *line != "//! ```")
        .map(|line| line.trim_start_matches("//! ").to_owned() + "\n")
        .collect();
    let trust = Trust::parse("trust.yaml", &text).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    let acme = Repository::parse("ghcr.io/acme/app").expect("good");
    let (_, rule) = trust.rule(&acme).expect("covered");
    assert!(rule.release && rule.annotations["env"] == "production");
}

/// Bytes that look random, the same in every run: splitmix64.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).expect("below a usize")
    }

    /// A good document with pieces cut out, doubled, and bytes changed; sometimes nothing but noise.
    fn spoil(&mut self, good: &[u8]) -> Vec<u8> {
        let mut bytes = good.to_vec();
        if self.below(8) == 0 {
            return (0..self.below(200))
                .map(|_| self.next().to_le_bytes()[0])
                .collect();
        }
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            let end = (at + self.below(40)).min(bytes.len());
            match self.below(4) {
                0 => drop(bytes.drain(at..end)),
                1 => {
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
                _ if !bytes.is_empty() => bytes[at] = self.next().to_le_bytes()[0],
                _ => {}
            }
        }
        bytes
    }
}

#[test]
fn spoilt_documents_never_panic_and_never_pass() {
    let fixture = Fixture::new();
    let trusting = fixture.trust("keys: [a, b], threshold: 2");
    let yaml = "version: 1\ndefault: audit\nscopes:\n  docker.io: {mode: audit, annotations: {a: b}}\n  ghcr.io/x:\n    mode: reject\n";
    let list = sign_revocations(1, &[], &[&fixture.a]).expect("signed");
    let (_, spki) = pem::decode(vector!("rsa.pub")).expect("PEM");
    let mut noise = Noise(20_261_124);
    for _ in 0..3000 {
        // Two keys are demanded and one signed, so no spoiling may let it pass.
        for layer in [
            fixture.classic(&fixture.a),
            fixture.bundle(&fixture.a),
            fixture.release(&fixture.a, "1"),
        ] {
            let mut spoilt = layer.clone();
            spoilt.payload = noise.spoil(&layer.payload);
            if let Some(signature) = spoilt.annotations.get_mut(SIGNATURE_ANNOTATION) {
                *signature = String::from_utf8_lossy(&noise.spoil(signature.as_bytes())).into_owned();
            }
            assert!(matches!(
                fixture.decide(&trusting, &[layer, spoilt]),
                Verdict::Refused(_)
            ));
        }
        let text = String::from_utf8_lossy(&noise.spoil(yaml.as_bytes())).into_owned();
        match Trust::parse("trust.yaml", &text) {
            Ok(_) => {
                let scope = Scope::parse("quay.io/a").expect("good");
                if let Ok(edited) = edit::allow(Some(&text), &scope, Mode::Audit, &[]) {
                    let trust = Trust::parse("trust.yaml", &edited).expect("an edit reads");
                    assert!(
                        trust
                            .scopes()
                            .any(|(known, rule)| *known == scope && rule.mode == Mode::Audit)
                    );
                }
            }
            Err(errors) => assert!(errors.to_string().contains("trust.yaml:"), "{errors}"),
        }
        let spoilt = noise.spoil(&list);
        assert!(Revocations::verify(&spoilt, &trusting, None, now()).is_err());
        let spoilt = noise.spoil(&spki);
        if let Ok(key) = PublicKey::from_spki(&spoilt, Padding::Pss) {
            assert!(!key.verify(b"message", &spoilt));
        }
        let spoilt = String::from_utf8_lossy(&noise.spoil(vector!("ed.pem").as_bytes())).into_owned();
        drop(PrivateKey::from_pem(&spoilt, None, Padding::Pss));
    }
}
