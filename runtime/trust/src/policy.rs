//! Policies that an image brings: signed, and about this image.
//!
//! ```json
//! {"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"…"}}],
//!  "predicateType":"urn:kakoi:policy:v1","predicate":{"name":"broker.yaml","issued":"2026-11-24T12:00:00Z","policy":"kakoi: 1\n…"}}
//! ```
//!
//! Owns finding the one that holds. Knows nothing of what a policy says: its language has its own reader, and the device's owner a ceiling.
//! Invariants: a policy is taken on the word of as many keys as the image itself would need; of several the one that was issued last, and when
//! one was, that many keys say too: nobody makes an old policy young alone.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::json;

use crate::config::NamedKey;
use crate::digest::Digest;
use crate::private::{PrivateKey, SignError};
use crate::revocation::standing;
use crate::sign::seal_statement;
use crate::signature::{Layer, Signed};
use crate::verify::{Evidence, Grounds};

/// The predicate type of a policy.
pub const POLICY_PREDICATE: &str = "urn:kakoi:policy:v1";

/// The most bytes of a policy that is attached: with its envelope around it, it stays within what is fetched of one signature.
pub const POLICY_BYTES_MAX: usize = 128 * 1024;

/// The longest name of one: a path of who attached it.
const NAME_BYTES_MAX: usize = 255;

/// A policy that was attached to an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BroughtPolicy {
    /// When, in the words of who signed it.
    pub issued: Timestamp,
    /// Its file's name.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Policies that an image brings, of which none holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it brings a policy that {signed} of {threshold} keys signed with the same name and text, so it is not used"
)]
pub struct TooFewSigned {
    /// The most keys that signed the same one.
    pub signed: usize,
    /// How many must.
    pub threshold: usize,
}

impl BroughtPolicy {
    /// Whether its parts are within their limits; a name is shown to people.
    pub(crate) fn is_proper(&self) -> bool {
        !self.name.is_empty()
            && self.name.len() <= NAME_BYTES_MAX
            && !self.name.chars().any(crate::diagnostics::is_unprintable)
            && self.text.len() <= POLICY_BYTES_MAX
    }
}

/// Signs a policy for an image, as a bundle.
pub fn sign_policy(key: &PrivateKey, image: &Digest, policy: &BroughtPolicy) -> Result<Layer, SignError> {
    let subject = json!({"digest": {"sha256": image.hex()}});
    let predicate = json!({"name": policy.name, "issued": policy.issued.to_string(), "policy": policy.text});
    seal_statement(key, &subject, POLICY_PREDICATE, &predicate)
}

/// The policy that an image brings, by the evidence with which it was let in; none where its scope names no keys, or too few of them signed one.
///
/// # Errors
/// There are policies of keys of the scope, and none holds.
pub fn brought_policy(
    evidence: &Evidence,
    grounds: Grounds<'_>,
) -> Result<Option<BroughtPolicy>, TooFewSigned> {
    let Some((_, rule)) = grounds.trust.rule(&evidence.subject.repository) else {
        return Ok(None);
    };
    let keys: Vec<&NamedKey> = rule
        .keys
        .iter()
        .filter_map(|name| grounds.trust.key(name))
        .filter(|key| standing(key, grounds.revocations, evidence.decided_at).is_ok())
        .collect();
    // By what they say: each signer has a clock of its own, and the last time that a key said it counts.
    let mut signers: BTreeMap<(String, String), BTreeMap<Digest, Timestamp>> = BTreeMap::new();
    for layer in &evidence.layers {
        let Ok(signed) = Signed::find(layer) else {
            continue;
        };
        let maker = keys
            .iter()
            .find(|key| key.key.verify(&signed.message, &signed.signature));
        // What nobody of the scope signed is not read.
        let Some(maker) = maker else {
            continue;
        };
        let Ok(claim) = signed.claim() else {
            continue;
        };
        let is_about_it = claim
            .images
            .iter()
            .any(|image| evidence.subject.digests.contains(&image.digest));
        if let (true, Some(policy)) = (is_about_it, claim.policy) {
            let times = signers.entry((policy.name, policy.text)).or_default();
            let last = times.entry(maker.key.fingerprint()).or_insert(policy.issued);
            *last = policy.issued.max(*last);
        }
    }
    let signed = signers.values().map(BTreeMap::len).max();
    let threshold = rule.threshold.max(1);
    let held = signers.into_iter().filter_map(|((name, text), times)| {
        let mut times: Vec<Timestamp> = times.into_values().collect();
        times.sort_unstable_by(|one, other| other.cmp(one));
        let issued = *times.get(threshold - 1)?;
        Some(BroughtPolicy { issued, name, text })
    });
    match (held.max(), signed) {
        (None, Some(signed)) => Err(TooFewSigned { signed, threshold }),
        (held, _) => Ok(held),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Floors, Padding, Repository, Subject, Trust, Verdict, decide, edit, sign::sign_bundle};

    fn key() -> PrivateKey {
        let pem = PrivateKey::generate().expect("random numbers");
        PrivateKey::from_pem(&pem, None, Padding::Pss).expect("own key")
    }

    fn policy(issued: &str, text: &str) -> BroughtPolicy {
        BroughtPolicy {
            issued: issued.parse().expect("a time"),
            name: String::from("app.yaml"),
            text: text.to_owned(),
        }
    }

    #[test]
    fn the_latest_policy_that_enough_keys_signed_for_this_image_holds() {
        let (one, two, stranger) = (key(), key(), key());
        let text = edit::add_key(None, "one", one.public(), None, None).expect("added");
        let text = edit::add_key(Some(&text), "two", two.public(), None, None).expect("added");
        let scope = |threshold: usize| {
            let scopes = "scopes:\n  r.example/a:\n    mode: audit\n    keys: [one, two]\n";
            Trust::parse("t", &format!("{text}{scopes}    threshold: {threshold}\n")).expect("valid")
        };
        let (image, other) = (Digest::of(b"image"), Digest::of(b"other"));
        let (old, new) = (
            policy("2026-01-01T00:00:00Z", "old"),
            policy("2026-02-01T00:00:00Z", "new"),
        );
        let sign = |key: &PrivateKey, image: &Digest, policy: &BroughtPolicy| {
            sign_policy(key, image, policy).expect("signed")
        };
        let floors = Floors::none();
        let find = |trust: &Trust, layers: Vec<Layer>| {
            let grounds = Grounds {
                trust,
                revocations: None,
                floors: &floors,
                now: "2026-03-01T00:00:00Z".parse().expect("a time"),
            };
            let subject = Subject {
                repository: Repository::parse("r.example/a/b").expect("a name"),
                digests: vec![image.clone()],
            };
            let Verdict::Audited { evidence, complaint } = decide(subject, layers, grounds) else {
                panic!("it is audited");
            };
            (brought_policy(&evidence, grounds), complaint)
        };
        let layers = vec![
            sign(&one, &image, &old),
            sign(&two, &image, &new),
            sign(&one, &image, &new),
        ];
        let short = |signed, threshold| Err(TooFewSigned { signed, threshold });
        assert_eq!(find(&scope(1), layers.clone()).0, Ok(Some(new.clone())));
        assert_eq!(find(&scope(2), layers.clone()).0, Ok(Some(new.clone())));
        assert_eq!(find(&scope(2), layers[..2].to_vec()).0, short(1, 2));
        let twice = vec![
            sign(&one, &image, &new),
            sign(&one, &image, &policy("2026-02-02T00:00:00Z", "new")),
        ];
        assert_eq!(find(&scope(2), twice).0, short(1, 2), "one key twice is one key");
        // Two people sign the same text at two times; neither makes it younger alone.
        let later = policy("2026-04-01T00:00:00Z", "old");
        let both_old = vec![sign(&one, &image, &old), sign(&two, &image, &later)];
        assert_eq!(find(&scope(2), both_old.clone()).0, Ok(Some(old.clone())));
        assert_eq!(
            find(&scope(2), [both_old, layers.clone()].concat()).0,
            Ok(Some(new.clone()))
        );
        assert_eq!(find(&scope(1), vec![sign(&stranger, &image, &new)]).0, Ok(None));
        assert_eq!(find(&scope(1), vec![sign(&one, &other, &new)]).0, Ok(None));
        let huge = policy("2026-02-01T00:00:00Z", &"x".repeat(POLICY_BYTES_MAX + 1));
        assert_eq!(find(&scope(1), vec![sign(&one, &image, &huge)]).0, Ok(None));
        // A policy is no signature of the image, nor the other way round.
        assert!(find(&scope(1), layers).1.is_some());
        let plain = sign_bundle(&one, &image, &BTreeMap::new()).expect("signed");
        let (found, complaint) = find(&scope(1), vec![plain]);
        assert_eq!((found, complaint), (Ok(None), None));
    }
}
