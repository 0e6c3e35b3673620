//! Judging an image: of a registry before a layer is fetched, and of the store under the name it was asked for by.
//!
//! Owns what verdicts are about. The digests that are judged are those that the store has, of documents that are whole and lead to the image; at a
//! start nothing is fetched: what was found when the image was pulled lies beside it. Refuses to know what follows from a verdict.

use jiff::Timestamp;
use kakoi_image::registry::{RegistryError, Resolved};
use kakoi_image::{Carried, Digest, Image, Limits, Reference, intake_time};
use kakoi_trust::{
    BUNDLE, BroughtPolicy, Evidence, Floors, Grounds, Layer, Mode, Repository, SIMPLE_SIGNING, Subject,
    Trust, Verdict, brought_policy, decide, recheck,
};

use crate::engine::Engine;
use crate::life::create::image_refusal;
use crate::refusal::{Answer, Refusal};

use super::Rules;
use super::kept::Kept;
use super::memory::About;

/// What counts as the repository of an image without a name: a scope can name it like any other.
const UNNAMED: &str = "localhost/unnamed";

/// A verdict with what it is about.
pub struct Admission {
    /// The repository under which the image was judged.
    pub repository: Repository,
    /// The verdict.
    pub verdict: Verdict,
    /// The policy that it brings, where it runs and enough keys signed one.
    pub policy: Option<BroughtPolicy>,
    /// Whether signatures were looked for when it was pulled under this name.
    pub has_evidence: bool,
}

pub(super) fn repository_of(name: &str) -> Answer<Repository> {
    Repository::parse(name).map_err(|error| Refusal::forbidden(format!("no scope can cover {name}: {error}")))
}

pub(super) fn of_reference(reference: &Reference) -> Answer<Repository> {
    repository_of(&complete(reference))
}

fn complete(reference: &Reference) -> String {
    format!("{}/{}", reference.registry(), reference.repository())
}

fn trust_digest(digest: &Digest) -> kakoi_trust::Digest {
    kakoi_trust::Digest::parse(&digest.to_string()).expect("both are sha256 and 64 hex digits")
}

/// What an image of a repository is judged by. What the device remembers is asked only where the scope has a question to it, so that damage stops
/// no app that nobody needs to have signed.
fn grounds<'a>(
    trust: &'a Trust,
    repository: &Repository,
    kept: &'a Kept,
    nothing: &'a Floors,
) -> Answer<Grounds<'a>> {
    let rule = trust.rule(repository).map(|(_, rule)| rule);
    Ok(Grounds {
        trust,
        revocations: match rule {
            Some(rule) if !rule.keys.is_empty() => kept.revocations()?,
            _ => None,
        },
        floors: match rule {
            Some(rule) if rule.release => kept.floors()?,
            _ => nothing,
        },
        now: intake_time(Timestamp::now()),
    })
}

/// Whether anything beside an image has a say in whether it runs under this name; where no scope names a key, nothing has.
pub(super) fn asks(trust: &Trust, repository: &Repository) -> bool {
    trust
        .rule(repository)
        .is_some_and(|(_, rule)| rule.mode != Mode::Reject && !rule.keys.is_empty())
}

/// Judges, and looks for the policy that the image brings.
pub(super) fn judged(
    engine: &Engine,
    rules: &Rules,
    repository: &Repository,
    judge: impl FnOnce(Grounds<'_>) -> Verdict,
) -> Answer<(Verdict, Option<BroughtPolicy>)> {
    let nothing = Floors::none();
    let grounds = grounds(&rules.trust, repository, &rules.kept, &nothing)?;
    let verdict = judge(grounds);
    let policy = match &verdict {
        Verdict::Trusted(evidence) | Verdict::Audited { evidence, .. } => brought_policy(evidence, grounds)
            .unwrap_or_else(|short| {
                let said = format!("{repository}: {short}");
                if engine.trust.is_news(&said) {
                    tracing::warn!("{said}");
                }
                None
            }),
        Verdict::Refused(_) => None,
    };
    Ok((verdict, policy))
}

/// Why a pull does not go on.
#[derive(Debug, thiserror::Error)]
pub enum PullRefusal {
    /// It is not trusted.
    #[error(transparent)]
    Untrusted(Refusal),
    /// No room could be made for it.
    #[error(transparent)]
    Room(Refusal),
    /// Its signatures cannot be looked for.
    #[error("looking for signatures")]
    Registry(#[source] RegistryError),
}

/// Judges an image of a registry, with the signatures that are found there.
pub fn judge_pull(engine: &Engine, resolved: &Resolved<'_, '_>) -> Result<Admission, PullRefusal> {
    let repository = of_reference(resolved.reference).map_err(PullRefusal::Untrusted)?;
    let rules = engine.trust.rules().map_err(PullRefusal::Untrusted)?;
    let mut digests = vec![resolved.top.digest.clone()];
    if resolved.manifest.digest != resolved.top.digest {
        digests.push(resolved.manifest.digest.clone());
    }
    let subject = Subject {
        repository: repository.clone(),
        digests: digests.iter().map(trust_digest).collect(),
    };
    let found = if asks(&rules.trust, &repository) {
        let kinds = [SIMPLE_SIGNING, BUNDLE];
        let nothing = Floors::none();
        let grounds =
            grounds(&rules.trust, &repository, &rules.kept, &nothing).map_err(PullRefusal::Untrusted)?;
        let is_enough = |layers: &[Layer]| {
            let verdict = decide(subject.clone(), layers.to_vec(), grounds);
            matches!(
                verdict,
                Verdict::Trusted(_) | Verdict::Audited { complaint: None, .. }
            )
        };
        let attached = resolved
            .repository
            .attached(&digests, &kinds, &Limits::DEVICE, &is_enough);
        attached.map_err(PullRefusal::Registry)?
    } else {
        Vec::new()
    };
    let (verdict, policy) = judged(engine, &rules, &repository, |grounds| {
        decide(subject, found, grounds)
    })
    .map_err(PullRefusal::Untrusted)?;
    Ok(Admission {
        repository,
        verdict,
        policy,
        has_evidence: true,
    })
}

/// Judges what comes in a file, by the signatures in it, under the repository that the owner lets such a thing come from: a file may claim any name.
pub fn judge_file(engine: &Engine, name: &str, digest: &Digest, attached: Vec<Layer>) -> Answer<Admission> {
    let repository = repository_of(name)?;
    let rules = engine.trust.rules()?;
    let subject = Subject {
        repository: repository.clone(),
        digests: vec![trust_digest(digest)],
    };
    let kinds = [SIMPLE_SIGNING, BUNDLE];
    let layers: Vec<Layer> = attached
        .into_iter()
        .filter(|layer| kinds.contains(&layer.media_type.as_str()))
        .collect();
    let (verdict, policy) = judged(engine, &rules, &repository, |grounds| {
        decide(subject, layers, grounds)
    })?;
    Ok(Admission {
        repository,
        verdict,
        policy,
        has_evidence: true,
    })
}

/// Judges by the signatures that came with an image in archives, the validity of keys by when they came, as after a pull: all of them, by when
/// the last came; where that is not enough, those that were there before, by theirs. So a key may expire between two loads.
fn decide_carried(subject: &Subject, carried: &[Carried], grounds: Grounds<'_>) -> Verdict {
    let mut first = None;
    for count in (1..=carried.len()).rev() {
        let known = &carried[..count];
        let times = known.iter().filter_map(|carried| carried.loaded.parse().ok());
        let now = times.max().unwrap_or(grounds.now);
        let attached = known.iter().flat_map(|carried| carried.attached.iter().cloned());
        let layers = attached.filter(|layer| {
            let kinds = [SIMPLE_SIGNING, BUNDLE];
            kinds.contains(&layer.media_type.as_str())
        });
        let verdict = decide(subject.clone(), layers.collect(), Grounds { now, ..grounds });
        match verdict {
            Verdict::Trusted(_) | Verdict::Audited { complaint: None, .. } => return verdict,
            worse => first.get_or_insert(worse),
        };
    }
    first.unwrap_or_else(|| decide(subject.clone(), Vec::new(), grounds))
}

/// What judging an image of the store under a repository's name would be about.
///
/// # Errors
/// The image is not there.
pub(super) fn about(engine: &Engine, id: &Digest, repository: &Repository) -> Answer<About> {
    let origin = engine.images.origin_digests(id, &spelled(engine, id, repository));
    Ok(About {
        image: id.clone(),
        repository: repository.to_string(),
        origin: origin.map_err(image_refusal)?,
    })
}

/// Evidence lies under the name that was pulled, whose registry may have been spelled in another way.
fn spelled(engine: &Engine, id: &Digest, repository: &Repository) -> String {
    let names = engine.images.repositories(id).into_iter();
    let mut same = names.filter(|name| Repository::parse(name).is_ok_and(|name| name == *repository));
    same.next().unwrap_or_else(|| repository.to_string())
}

/// Judges an image of the store under a repository's name, from what lies beside it, and remembers what comes of it.
pub(super) fn from_store(
    engine: &Engine,
    rules: &Rules,
    id: &Digest,
    repository: Repository,
) -> Answer<Admission> {
    let before = about(engine, id, &repository)?;
    let admission = judge_stored(engine, rules, id, repository)?;
    // Where evidence was added meanwhile, nobody knows which was judged.
    if about(engine, id, &admission.repository)? == before {
        engine.trust.memory.keep(rules, before, admission.settled());
    }
    Ok(admission)
}

fn judge_stored(engine: &Engine, rules: &Rules, id: &Digest, repository: Repository) -> Answer<Admission> {
    let origin = engine
        .images
        .evidence(id, &spelled(engine, id, &repository))
        .map_err(image_refusal)?;
    let digests: Vec<_> = origin.documents.iter().map(trust_digest).collect();
    let has_evidence = origin.evidence.is_some();
    let (verdict, policy) = match origin.evidence {
        None => {
            let subject = Subject {
                repository: repository.clone(),
                digests,
            };
            judged(engine, rules, &repository, |grounds| {
                decide_carried(&subject, &origin.carried, grounds)
            })?
        }
        Some(bytes) => {
            let evidence: Evidence = serde_json::from_slice(&bytes).map_err(|cause| {
                let said =
                    format!("what is kept of the signatures of {repository} is damaged: pull it again");
                Refusal::failed(said, cause)
            })?;
            let is_about_it = evidence.subject.repository == repository
                && evidence
                    .subject
                    .digests
                    .iter()
                    .all(|digest| digests.contains(digest));
            if !is_about_it {
                return Err(Refusal::forbidden(format!(
                    "what is kept of the signatures of {repository} is about another image: pull it again"
                )));
            }
            judged(engine, rules, &repository, |grounds| recheck(&evidence, grounds))?
        }
    };
    Ok(Admission {
        repository,
        verdict,
        policy,
        has_evidence,
    })
}

/// The repositories under which an image is judged: that of the name it was asked for by; by its id it may run if any of its names lets it.
pub(super) fn repositories(engine: &Engine, id: &Digest, name: Option<&str>) -> Answer<Vec<Repository>> {
    if let Some(name) = name {
        return Ok(vec![repository_of(name)?]);
    }
    let mut names = engine.images.repositories(id);
    if names.is_empty() {
        names.push(UNNAMED.to_owned());
    }
    names.iter().map(|name| repository_of(name)).collect()
}

/// The repository of the name that an image was asked for by.
pub(super) fn asked_as(image: &Image) -> Answer<Option<String>> {
    let Some(name) = &image.name else { return Ok(None) };
    let reference = Reference::parse(name).map_err(|error| Refusal::bad(error.to_string()))?;
    Ok(Some(complete(&reference)))
}

/// Judges an image of the store by what is trusted now.
pub fn examine(engine: &Engine, image: &Image) -> Answer<Admission> {
    let rules = engine.trust.rules()?;
    let name = asked_as(image)?;
    let repositories = repositories(engine, &image.id, name.as_deref())?;
    examine_by(engine, &rules, &image.id, repositories)
}

/// Judges an image of the store under each of several names, of which the best holds.
pub(super) fn examine_by(
    engine: &Engine,
    rules: &Rules,
    id: &Digest,
    repositories: Vec<Repository>,
) -> Answer<Admission> {
    let mut best: Option<Admission> = None;
    for repository in repositories {
        let admission = from_store(engine, rules, id, repository)?;
        let is_better = match (&admission.verdict, best.as_ref().map(|best| &best.verdict)) {
            (Verdict::Trusted(_), _) => return Ok(admission),
            (_, None) => true,
            (Verdict::Audited { .. }, Some(Verdict::Refused(_))) => true,
            _ => false,
        };
        if is_better {
            best = Some(admission);
        }
    }
    Ok(best.expect("there was a name"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kakoi_trust::{Layer, Padding, PrivateKey, edit, sign::sign_bundle};

    use super::*;

    #[test]
    fn damage_stops_only_what_must_be_signed() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["floors.json", "revocations.json"] {
            std::fs::write(folder.path().join(name), "{").expect("damaged");
        }
        let kept = Kept::open(folder.path());
        let pem = PrivateKey::generate().expect("random numbers");
        let key = PrivateKey::from_pem(&pem, None, Padding::Pss).expect("own key");
        let keys = edit::add_key(None, "acme", key.public(), None, None).expect("added");
        let scopes =
            "scopes:\n  r.example/free: {mode: audit}\n  r.example/keys: {mode: audit, keys: [acme]}\n";
        let trust = Trust::parse("t", &format!("{keys}{scopes}")).expect("valid");
        let nothing = Floors::none();
        let asked = |name: &str| {
            let repository = Repository::parse(name).expect("a name");
            grounds(&trust, &repository, &kept, &nothing).map(drop)
        };
        assert!(asked("r.example/free/app").is_ok() && asked("elsewhere.example/app").is_ok());
        let refusal = asked("r.example/keys/app").expect_err("who knows which keys are revoked");
        assert_eq!(refusal.status.as_u16(), 403);
        let floors = kept.floors().map(drop).expect_err("damaged");
        assert!(floors.message.contains("remove"), "{}", floors.message);
    }

    #[test]
    fn a_load_after_a_key_expired_takes_nothing_away() {
        let pem = PrivateKey::generate().expect("random numbers");
        let key = PrivateKey::from_pem(&pem, None, Padding::Pss).expect("own key");
        let keys = edit::add_key(None, "acme", key.public(), None, None).expect("added");
        let keys = format!(
            "{}    not_after: 2026-06-01T00:00:00Z\n",
            keys.trim_end().to_owned() + "\n"
        );
        let scope = "scopes:\n  r.example/a:\n    mode: require\n    keys: [acme]\n";
        let trust = Trust::parse("t", &format!("{keys}{scope}")).expect("valid");
        let image = kakoi_trust::Digest::of(b"image");
        let signed = sign_bundle(&key, &image, &BTreeMap::new()).expect("signed");
        let batch = |loaded: &str, payload: &[u8]| Carried {
            loaded: loaded.to_owned(),
            attached: vec![Layer {
                media_type: signed.media_type.clone(),
                payload: payload.to_vec(),
                annotations: signed.annotations.clone(),
            }],
        };
        let subject = Subject {
            repository: Repository::parse("r.example/a/b").expect("a name"),
            digests: vec![image],
        };
        let floors = Floors::none();
        let is_trusted = |carried: &[Carried]| {
            let grounds = Grounds {
                trust: &trust,
                revocations: None,
                floors: &floors,
                now: "2026-09-01T00:00:00Z".parse().expect("a time"),
            };
            matches!(decide_carried(&subject, carried, grounds), Verdict::Trusted(_))
        };
        let (early, late) = ("2026-05-01T00:00:00Z", "2026-07-01T00:00:00Z");
        let good = || batch(early, &signed.payload);
        assert!(is_trusted(&[good()]));
        assert!(is_trusted(&[good(), batch(late, b"another's")]));
        assert!(!is_trusted(&[batch(late, &signed.payload)]));
        // A clock that was set back between two loads makes no key young again.
        assert!(!is_trusted(&[
            batch(late, b"another's"),
            batch(early, &signed.payload)
        ]));
        assert!(!is_trusted(&[batch("no time", &signed.payload)]));
        assert!(!is_trusted(&[]));
    }
}
