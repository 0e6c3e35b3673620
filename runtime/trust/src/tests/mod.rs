//! Decisions over real signatures: those that cosign and skopeo made (`tests/vectors`) and our own, whole and tampered with.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::sign::{classic_artifact, sign_bundle, sign_classic, sign_release};
use crate::*;

const IMAGE: &str = "sha256:616941cb78c12b9932624cd6aa07b14a2cc5d4444dbd7e7188f5d012027f2943";

macro_rules! vector {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/", $name))
    };
}

// Behind the macro, which they use.
mod document;
mod judging;
mod tampered;
mod vectors;

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
    let text = trust_text(keys, scope);
    Trust::parse("trust.yaml", &text).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

fn trust_text(keys: &[(&str, &PublicKey, &str)], scope: &str) -> String {
    let mut text = "version: 1\nkeys:\n".to_owned();
    for (name, key, fields) in keys {
        let pem = key.to_pem().replace('\n', "\n      ");
        text.push_str(&format!("  {name}:\n    public_key: |\n      {pem}\n{fields}"));
    }
    text.push_str(&format!(
        "scopes:\n  127.0.0.1:5917/acme: {{mode: require, {scope}}}\n"
    ));
    text
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
            assert!(text.contains("kakoi trust allow"), "{text}");
        }
        other => panic!("not refused for {why:?}: {other:?}"),
    }
}

fn public(pem: &str, padding: Padding) -> PublicKey {
    PublicKey::from_pem(pem, padding).expect("a vector's key")
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
