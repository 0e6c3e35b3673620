//! The three questions: may it come in, may a container be made of it, may it start.
//!
//! Owns what is asked, about which name, and what is said. The digests that are judged are those that the store has, of documents that are whole
//! and lead to the image; the name is the one under which the image was asked for. At a start nothing is fetched: what was found when the image
//! was pulled lies beside it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kakoi_image::registry::{RegistryError, Resolved};
use kakoi_image::{Carried, Digest, Image, Limits, Reference, intake_time};
use kakoi_trust::{
    BUNDLE, BroughtPolicy, Complaint, Downgrade, Evidence, Floors, Grounds, Mode, Repository, SIMPLE_SIGNING,
    Subject, Trust, Verdict, brought_policy, decide, recheck,
};

use crate::engine::Engine;
use crate::life::create::image_refusal;
use crate::refusal::{Answer, Refusal};
use crate::state::Record;

use super::kept::Kept;

/// What counts as the repository of an image without a name: a scope can name it like any other.
const UNNAMED: &str = "localhost/unnamed";

/// Above this many bytes only those signatures are kept that a key of the scope made: strangers can attach what they like.
const EVIDENCE_BYTES_MAX: usize = 1 << 20;

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

impl Admission {
    /// Lets it pass, or says why not; what only passes because its scope is audited is told once.
    fn settle(self, engine: &Engine) -> Answer<Repository> {
        let Admission {
            repository,
            verdict,
            has_evidence,
            policy: _,
        } = self;
        match verdict {
            Verdict::Trusted(_) => Ok(repository),
            Verdict::Audited { complaint, .. } => {
                tell_audited(engine, &repository, complaint.as_ref());
                Ok(repository)
            }
            Verdict::Refused(refusal) => {
                let mut said = refusal.to_string();
                if !has_evidence && refusal.complaint == Complaint::Unsigned {
                    said.push_str("; or, where it is signed in its registry: kakoi pull ");
                    said.push_str(repository.as_str());
                }
                Err(Refusal::forbidden(said))
            }
        }
    }
}

/// Says once in the log, and once as an event, what runs without being trusted.
fn tell_audited(engine: &Engine, repository: &Repository, complaint: Option<&Complaint>) {
    let why = match complaint {
        Some(complaint) => complaint.to_string(),
        None => String::from("its scope names no keys"),
    };
    if !engine.trust.is_news(&format!("{repository}: {why}")) {
        return;
    }
    tracing::warn!(%repository, why, "runs without being trusted: its scope is only audited");
    let attributes = BTreeMap::from([
        (String::from("name"), repository.to_string()),
        (String::from("reason"), why),
    ]);
    engine
        .events
        .tell("image", "audit", repository.as_str(), attributes);
}

fn repository_of(name: &str) -> Answer<Repository> {
    Repository::parse(name).map_err(|error| Refusal::forbidden(format!("no scope can cover {name}: {error}")))
}

fn of_reference(reference: &Reference) -> Answer<Repository> {
    repository_of(&format!("{}/{}", reference.registry(), reference.repository()))
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
        downgrade: Downgrade::Refused,
    })
}

/// Judges, and looks for the policy that the image brings.
fn judged(
    engine: &Engine,
    trust: &Trust,
    repository: &Repository,
    judge: impl FnOnce(Grounds<'_>) -> Verdict,
) -> Answer<(Verdict, Option<BroughtPolicy>)> {
    let kept = engine.trust.kept();
    let nothing = Floors::none();
    let grounds = grounds(trust, repository, &kept, &nothing)?;
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
    /// Its signatures cannot be looked for.
    #[error("looking for signatures")]
    Registry(#[source] RegistryError),
}

/// Refuses a name that no registry needs to be asked about: nothing of any of the repositories that it may mean could run.
pub fn refuse_unasked(engine: &Engine, candidates: &[Reference]) -> Answer<()> {
    let trust = engine.trust.trust()?;
    let mut first = None;
    for reference in candidates {
        let repository = of_reference(reference)?;
        if trust.mode(&repository) != Mode::Reject {
            return Ok(());
        }
        first.get_or_insert(repository);
    }
    let Some(repository) = first else {
        return Ok(());
    };
    let subject = Subject {
        repository: repository.clone(),
        digests: Vec::new(),
    };
    let (verdict, policy) = judged(engine, &trust, &repository, |grounds| {
        decide(subject, Vec::new(), grounds)
    })?;
    let admission = Admission {
        repository,
        verdict,
        policy,
        has_evidence: true,
    };
    admission.settle(engine).map(drop)
}

/// Whether an image may come in: asked once its name is resolved, before any layer is fetched. Gives the evidence to be kept beside it.
pub fn admit_pull(engine: &Engine, resolved: &Resolved<'_, '_>) -> Result<Option<Vec<u8>>, PullRefusal> {
    let admission = judge_pull(engine, resolved)?;
    let evidence = match &admission.verdict {
        Verdict::Trusted(evidence) | Verdict::Audited { evidence, .. } => stored(evidence),
        Verdict::Refused(_) => None,
    };
    admission.settle(engine).map_err(PullRefusal::Untrusted)?;
    Ok(evidence)
}

/// Judges an image of a registry, with the signatures that are found there.
pub fn judge_pull(engine: &Engine, resolved: &Resolved<'_, '_>) -> Result<Admission, PullRefusal> {
    let repository = of_reference(resolved.reference).map_err(PullRefusal::Untrusted)?;
    let trust = engine.trust.trust().map_err(PullRefusal::Untrusted)?;
    let mut digests = vec![resolved.top.digest.clone()];
    if resolved.manifest.digest != resolved.top.digest {
        digests.push(resolved.manifest.digest.clone());
    }
    let asks = trust
        .rule(&repository)
        .is_some_and(|(_, rule)| rule.mode != Mode::Reject && !rule.keys.is_empty());
    let found = if asks {
        let kinds = [SIMPLE_SIGNING, BUNDLE];
        let attached = resolved.repository.attached(&digests, &kinds, &Limits::DEVICE);
        attached.map_err(PullRefusal::Registry)?
    } else {
        Vec::new()
    };
    let subject = Subject {
        repository: repository.clone(),
        digests: digests.iter().map(trust_digest).collect(),
    };
    let (verdict, policy) = judged(engine, &trust, &repository, |grounds| {
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

/// Evidence as it is kept; none where there was nothing to be found.
fn stored(evidence: &Evidence) -> Option<Vec<u8>> {
    if evidence.layers.is_empty() {
        return None;
    }
    let bytes = serde_json::to_vec(evidence).expect("texts, digests and times serialise");
    if bytes.len() <= EVIDENCE_BYTES_MAX {
        return Some(bytes);
    }
    let mut less = evidence.clone();
    let mut known = evidence.findings.iter().map(|finding| finding.key.is_some());
    less.layers.retain(|_| known.next().unwrap_or(false));
    less.findings.retain(|finding| finding.key.is_some());
    Some(serde_json::to_vec(&less).expect("texts, digests and times serialise"))
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

/// Judges an image of the store under a repository's name, from what lies beside it.
fn from_store(engine: &Engine, trust: &Trust, id: &Digest, repository: Repository) -> Answer<Admission> {
    // Evidence lies under the name that was pulled, whose registry may have been spelled in another way.
    let names = engine.images.repositories(id);
    let spelled = names
        .iter()
        .find(|name| Repository::parse(name).is_ok_and(|name| name == repository));
    let origin = engine
        .images
        .evidence(id, spelled.map_or(repository.as_str(), String::as_str))
        .map_err(image_refusal)?;
    let digests: Vec<_> = origin.documents.iter().map(trust_digest).collect();
    let has_evidence = origin.evidence.is_some();
    let (verdict, policy) = match origin.evidence {
        None => {
            let subject = Subject {
                repository: repository.clone(),
                digests,
            };
            judged(engine, trust, &repository, |grounds| {
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
            judged(engine, trust, &repository, |grounds| recheck(&evidence, grounds))?
        }
    };
    Ok(Admission {
        repository,
        verdict,
        policy,
        has_evidence,
    })
}

/// Judges an image of the store under the name it was asked for by. By its id it may run if any of its names lets it.
pub fn examine(engine: &Engine, image: &Image) -> Answer<Admission> {
    let trust = engine.trust.trust()?;
    if let Some(name) = &image.name {
        let reference = Reference::parse(name).map_err(|error| Refusal::bad(error.to_string()))?;
        return from_store(engine, &trust, &image.id, of_reference(&reference)?);
    }
    any_name(engine, &trust, &image.id)
}

fn any_name(engine: &Engine, trust: &Trust, id: &Digest) -> Answer<Admission> {
    let mut names = engine.images.repositories(id);
    if names.is_empty() {
        names.push(UNNAMED.to_owned());
    }
    let mut best: Option<Admission> = None;
    for name in names {
        let admission = from_store(engine, trust, id, repository_of(&name)?)?;
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

/// Whether a container may be made of an image; gives the repository by which its starts are judged, and the policy that the image brings.
pub fn admit_image(engine: &Engine, image: &Image) -> Answer<(Repository, Option<BroughtPolicy>)> {
    let mut admission = examine(engine, image)?;
    let policy = admission.policy.take();
    Ok((admission.settle(engine)?, policy))
}

/// Whether a container may start: its image, under the name it had when the container was made, by what is trusted now.
pub fn admit_start(engine: &Engine, record: &Record) -> Answer<()> {
    let trust = engine.trust.trust()?;
    let id = Digest::parse(&record.image_id).map_err(|_| {
        Refusal::forbidden("the container's image has no digest, so nobody can have signed it")
    })?;
    let admission = match record.trusted_as.as_str() {
        "" => any_name(engine, &trust, &id)?,
        name => from_store(engine, &trust, &id, repository_of(name)?)?,
    };
    admission.settle(engine).map(drop)
}

#[cfg(test)]
mod tests {
    use kakoi_trust::{Padding, PrivateKey, edit, sign::sign_bundle};

    use kakoi_trust::Layer;

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
                downgrade: Downgrade::Refused,
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
