//! Signatures that were changed, of another form, or noise.

use super::*;

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
