//! The three questions: may it come in, may a container be made of it, may it start.
//!
//! Owns what follows from a verdict: what is said to whoever asked, and once in the log and as an event. Invariant: no request waits for the
//! signatures of another, and none are verified twice for a start while nothing has changed (`memory.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;

use kakoi_image::registry::Resolved;
use kakoi_image::{Digest, Image, Reference};
use kakoi_trust::{
    BroughtPolicy, Complaint, Downgrade, Evidence, Mode, Release, Repository, Subject, Verdict, decide,
};

use crate::engine::Engine;
use crate::refusal::{Answer, Refusal};
use crate::state::Record;

use super::judge::{
    Admission, PullRefusal, about, asked_as, asks, examine_by, from_store, judge_pull, judged, of_reference,
    repositories,
};
use super::memory::Settled;
use super::{Rules, aside};

/// Above this many bytes only those signatures are kept that a key of the scope made: strangers can attach what they like.
const EVIDENCE_BYTES_MAX: usize = 1 << 20;

impl Admission {
    /// What comes of it.
    pub(super) fn settled(&self) -> Settled {
        let below_floor = |evidence: &Evidence| match (&evidence.release, evidence.downgrade) {
            (Some(release), Downgrade::Permitted) => Some(format!("{} {}", release.name, release.version)),
            _ => None,
        };
        match &self.verdict {
            Verdict::Trusted(evidence) => Settled::Runs {
                audited: None,
                downgrade: below_floor(evidence),
            },
            Verdict::Audited { evidence, complaint } => Settled::Runs {
                audited: Some(match complaint {
                    Some(complaint) => complaint.to_string(),
                    None => String::from("its scope names no keys"),
                }),
                downgrade: below_floor(evidence),
            },
            Verdict::Refused(refusal) => {
                let mut said = refusal.to_string();
                if !self.has_evidence && refusal.complaint == Complaint::Unsigned {
                    said.push_str("; or, where it is signed in its registry: kakoi pull ");
                    said.push_str(self.repository.as_str());
                }
                Settled::Refused(said)
            }
        }
    }
}

impl Settled {
    /// Lets it pass, or says why not; what passes only because its owner says so is told once.
    fn answer(self, engine: &Engine, repository: &Repository) -> Answer<()> {
        match self {
            Settled::Refused(said) => return Err(Refusal::forbidden(said)),
            Settled::Runs { audited, downgrade } => {
                if let Some(why) = audited {
                    tell(engine, "audit", repository, why);
                }
                if let Some(release) = downgrade {
                    tell(engine, "downgrade", repository, release);
                }
            }
        }
        Ok(())
    }

    /// The lower, the better.
    fn rank(&self) -> u8 {
        match self {
            Settled::Runs { audited: None, .. } => 0,
            Settled::Runs { .. } => 1,
            Settled::Refused(_) => 2,
        }
    }
}

/// Says once in the log, and once as an event, what runs only because the owner lets it.
fn tell(engine: &Engine, action: &str, repository: &Repository, why: String) {
    if !engine.trust.is_news(&format!("{action} {repository}: {why}")) {
        return;
    }
    match action {
        "audit" => {
            tracing::warn!(%repository, why, "runs without being trusted: its scope is only audited");
        }
        _ => {
            tracing::warn!(%repository, release = why, "runs below its floor: trust.yaml permits the downgrade")
        }
    }
    let attributes = BTreeMap::from([
        (String::from("name"), repository.to_string()),
        (String::from("reason"), why),
    ]);
    engine
        .events
        .tell("image", action, repository.as_str(), attributes);
}

/// Refuses a name that no registry needs to be asked about: nothing of any of the repositories that it may mean could run.
pub fn refuse_unasked(engine: &Engine, candidates: &[Reference]) -> Answer<()> {
    let rules = engine.trust.rules()?;
    let mut first = None;
    for reference in candidates {
        let repository = of_reference(reference)?;
        if rules.trust.mode(&repository) != Mode::Reject {
            return Ok(());
        }
        first.get_or_insert(repository);
    }
    let Some(repository) = first else {
        return Ok(());
    };
    // Nothing beside an image has a say where all of them are rejected.
    match unasked(engine, &rules, &repository)? {
        Some(settled) => settled.answer(engine, &repository),
        None => Ok(()),
    }
}

/// Whether an image may come in: asked once its name is resolved, before any layer is fetched. Gives the evidence to be kept beside it.
pub fn admit_pull(engine: &Engine, resolved: &Resolved<'_, '_>) -> Result<Option<Vec<u8>>, PullRefusal> {
    let admission = judge_pull(engine, resolved)?;
    let evidence = match &admission.verdict {
        Verdict::Trusted(evidence) | Verdict::Audited { evidence, .. } => stored(evidence),
        Verdict::Refused(_) => None,
    };
    let settled = admission.settled();
    settled
        .answer(engine, &admission.repository)
        .map_err(PullRefusal::Untrusted)?;
    Ok(evidence)
}

/// Whether an operating system may come in; says which release it is, where its scope demands one.
pub fn admit_os(engine: &Engine, admission: Admission) -> Answer<Option<Release>> {
    let settled = admission.settled();
    settled.answer(engine, &admission.repository)?;
    Ok(match admission.verdict {
        Verdict::Trusted(evidence) | Verdict::Audited { evidence, .. } => evidence.release,
        Verdict::Refused(_) => None,
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

/// What comes of it where nothing beside the image has a say; `None` where signatures have.
fn unasked(engine: &Engine, rules: &Rules, repository: &Repository) -> Answer<Option<Settled>> {
    if asks(&rules.trust, repository) {
        return Ok(None);
    }
    let subject = Subject {
        repository: repository.clone(),
        digests: Vec::new(),
    };
    let (verdict, policy) = judged(engine, rules, repository, |grounds| {
        decide(subject, Vec::new(), grounds)
    })?;
    let admission = Admission {
        repository: repository.clone(),
        verdict,
        policy,
        has_evidence: true,
    };
    Ok(Some(admission.settled()))
}

/// The best of what comes of it under several names; `None` where `look` does not know one of them.
fn best_of(
    repositories: &[Repository],
    mut look: impl FnMut(&Repository) -> Answer<Option<Settled>>,
) -> Answer<Option<(Repository, Settled)>> {
    let mut best: Option<(Repository, Settled)> = None;
    for repository in repositories {
        let Some(settled) = look(repository)? else {
            return Ok(None);
        };
        let is_better = best.as_ref().is_none_or(|(_, best)| settled.rank() < best.rank());
        let is_best = settled.rank() == 0;
        if is_better {
            best = Some((repository.clone(), settled));
        }
        if is_best {
            break;
        }
    }
    Ok(best)
}

/// Whether a container may be made of an image; gives the repository by which its starts are judged, and the policy that the image brings.
pub async fn admit_image(engine: &Arc<Engine>, image: &Image) -> Answer<(Repository, Option<BroughtPolicy>)> {
    let rules = engine.trust.rules()?;
    let name = asked_as(image)?;
    let repositories = repositories(engine, &image.id, name.as_deref())?;
    if let Some((repository, settled)) = best_of(&repositories, |name| unasked(engine, &rules, name))? {
        settled.answer(engine, &repository)?;
        return Ok((repository, None));
    }
    let id = image.id.clone();
    let admission = aside(engine, move |engine| {
        examine_by(engine, &rules, &id, repositories)
    })
    .await?;
    admission.settled().answer(engine, &admission.repository)?;
    Ok((admission.repository, admission.policy))
}

/// Whether a container may start: its image, under the name it had when the container was made, by what is trusted now.
pub async fn admit_start(engine: &Arc<Engine>, record: &Record) -> Answer<()> {
    let rules = engine.trust.rules()?;
    let id = Digest::parse(&record.image_id).map_err(|_| {
        Refusal::forbidden("the container's image has no digest, so nobody can have signed it")
    })?;
    let name = Some(record.trusted_as.as_str()).filter(|name| !name.is_empty());
    let repositories = repositories(engine, &id, name)?;
    let known = best_of(&repositories, |name| {
        let unasked = unasked(engine, &rules, name)?;
        let about = about(engine, &id, name);
        Ok(unasked.or_else(|| engine.trust.memory.recall(&rules, &about.ok()?)))
    })?;
    let (repository, settled) = match known {
        Some(known) => known,
        None => {
            aside(engine, move |engine| {
                let best = best_of(&repositories, |name| match unasked(engine, &rules, name)? {
                    Some(settled) => Ok(Some(settled)),
                    None => Ok(Some(from_store(engine, &rules, &id, name.clone())?.settled())),
                })?;
                Ok(best.expect("there was a name, and it was judged"))
            })
            .await?
        }
    };
    settled.answer(engine, &repository)
}
