//! What cosign, skopeo and openssl made (`tests/vectors`): signatures and keys in their forms.

use super::*;

const PASSWORD: &str = "throw-away";

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
