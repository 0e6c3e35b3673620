//! Trust, asked about: what the owner wrote, why an image runs or does not, what was committed and revoked. Nothing here widens what runs: floors
//! only rise, and a list of revoked keys is signed by whom trust.yaml names.

use http_body_util::{BodyExt as _, Limited};
use kakoi_api::trust::{
    TrustCommitted, TrustFinding, TrustFloor, TrustKey, TrustRevoked, TrustScope, TrustVerdict, Trusting,
};
use kakoi_trust::{REVOCATION_BYTES_MAX, Verdict};

use super::images::{blocking, tell};
use super::registry;
use super::reply::{self, Reply};
use super::router::Asked;
use crate::engine::Engine;
use crate::life::create::image_refusal;
use crate::refusal::{Answer, Refusal};
use crate::trust::{self, Admission};

/// `GET /kakoi/v1/trust`
pub fn show(asked: &Asked) -> Answer<Reply> {
    let gate = &asked.engine.trust;
    let trust = gate.trust()?;
    let kept = gate.kept();
    let revocations = kept.revocations()?;
    let now = jiff::Timestamp::now();
    let scopes = trust.scopes().map(|(scope, rule)| TrustScope {
        scope: scope.to_string(),
        mode: rule.mode.word().into(),
        keys: rule.keys.clone(),
        threshold: count(rule.threshold),
        annotations: rule.annotations.clone(),
        release: rule.release,
    });
    let keys = trust.keys().map(|key| TrustKey {
        name: key.name.clone(),
        algorithm: key.key.algorithm().to_string(),
        fingerprint: key.key.fingerprint().to_string(),
        not_before: key.not_before.map(|time| time.to_string()).unwrap_or_default(),
        not_after: key.not_after.map(|time| time.to_string()).unwrap_or_default(),
        fault: key
            .standing(revocations, now)
            .err()
            .map(|fault| fault.to_string())
            .unwrap_or_default(),
    });
    let floors = kept.floors()?.iter().map(|(name, floor)| TrustFloor {
        name: name.to_owned(),
        version: floor.version.to_string(),
        digest: floor.digest.to_string(),
    });
    Ok(reply::ok(&Trusting {
        default: trust.default_mode().word().into(),
        scopes: scopes.collect(),
        keys: keys.collect(),
        floors: floors.collect(),
        downgrades: trust
            .downgrades()
            .map(|(name, version)| (name.to_owned(), version.to_string()))
            .collect(),
        revocations: revocations.map_or(0, |list| i64::try_from(list.version()).unwrap_or(i64::MAX)),
    }))
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// `GET /kakoi/v1/trust/check?name=`: the image of the store, or, where there is none or with `remote=1`, that of its registry, of which only
/// documents are fetched.
pub async fn check(asked: &Asked) -> Answer<Reply> {
    let name = asked.query.get("name").unwrap_or_default().to_owned();
    if name.is_empty() {
        return Err(Refusal::bad("an image is needed (name=)"));
    }
    let is_here = !asked.query.flag("remote") && asked.engine.images.resolve(&name).is_ok();
    let (admission, place) = if is_here {
        let name = name.clone();
        let judged = blocking(&asked.engine, move |engine| examine(engine, &name));
        (judged.await?, "store")
    } else {
        (registry::examine(asked, &name).await?, "registry")
    };
    Ok(reply::ok(&verdict(&name, place, admission)))
}

fn examine(engine: &Engine, name: &str) -> Answer<Admission> {
    let image = engine.images.resolve(name).map_err(image_refusal)?;
    trust::examine(engine, &image)
}

fn verdict(image: &str, place: &str, admission: Admission) -> TrustVerdict {
    let said = TrustVerdict {
        image: image.to_owned(),
        place: place.to_owned(),
        repository: admission.repository.to_string(),
        policy: admission.policy.map(|policy| policy.name).unwrap_or_default(),
        ..TrustVerdict::default()
    };
    let (evidence, said) = match admission.verdict {
        Verdict::Trusted(evidence) => {
            let said = TrustVerdict {
                runs: true,
                trusted: true,
                ..said
            };
            (evidence, said)
        }
        Verdict::Audited { evidence, complaint } => {
            let said = TrustVerdict {
                runs: true,
                complaint: complaint.map_or_else(
                    || String::from("its scope names no keys"),
                    |complaint| complaint.to_string(),
                ),
                ..said
            };
            (evidence, said)
        }
        Verdict::Refused(refusal) => {
            let said = TrustVerdict {
                complaint: refusal.complaint.to_string(),
                remedy: refusal.remedy(),
                ..said
            };
            (refusal.evidence, said)
        }
    };
    let findings = evidence.findings.into_iter().map(|finding| TrustFinding {
        payload: finding.signature.to_string(),
        key: finding.key.unwrap_or_default(),
        fingerprint: finding
            .fingerprint
            .map(|print| print.to_string())
            .unwrap_or_default(),
        fault: finding.fault.unwrap_or_default(),
    });
    TrustVerdict {
        digests: evidence.subject.digests.iter().map(ToString::to_string).collect(),
        scope: evidence.scope.map(|scope| scope.to_string()).unwrap_or_default(),
        mode: evidence.mode.word().into(),
        release: evidence
            .release
            .map(|release| format!("{} {}", release.name, release.version))
            .unwrap_or_default(),
        decided: evidence.decided_at.to_string(),
        signatures: findings.collect(),
        ..said
    }
}

/// `POST /kakoi/v1/trust/commit?name=`: the image has proved itself; no release below its version runs from now on.
pub async fn commit(asked: &Asked) -> Answer<Reply> {
    let name = asked.query.get("name").unwrap_or_default().to_owned();
    let committed = blocking(&asked.engine, move |engine| {
        let admission = examine(engine, &name)?;
        let evidence = match admission.verdict {
            Verdict::Trusted(evidence) => evidence,
            Verdict::Audited {
                evidence,
                complaint: None,
            } => evidence,
            Verdict::Audited {
                complaint: Some(complaint),
                ..
            } => {
                return Err(Refusal::forbidden(format!(
                    "{name} cannot be committed: {complaint}"
                )));
            }
            Verdict::Refused(refusal) => return Err(Refusal::forbidden(refusal.to_string())),
        };
        let release = evidence.release.ok_or_else(|| {
            Refusal::bad(format!(
                "{name} is no release: its scope does not demand one (release: true in trust.yaml)"
            ))
        })?;
        let raised = engine.trust.commit(&release)?;
        if raised {
            tell(engine, "commit", &release.digest.to_string(), &release.name);
        }
        Ok(TrustCommitted {
            name: release.name,
            version: release.version.to_string(),
            raised,
        })
    });
    Ok(reply::ok(&committed.await?))
}

/// `POST /kakoi/v1/trust/revocations`: the body is a signed list of revoked keys.
pub async fn revoke(mut asked: Asked) -> Answer<Reply> {
    let body = Limited::new(asked.request.body_mut(), REVOCATION_BYTES_MAX);
    let bytes = body
        .collect()
        .await
        .map_err(|cause| Refusal::bad(format!("the list of revoked keys cannot be read: {cause}")))?
        .to_bytes();
    let taken = blocking(&asked.engine, move |engine| {
        let version = engine.trust.revoke(&bytes)?;
        let kept = engine.trust.kept();
        tracing::info!(version, "a list of revoked keys was taken");
        let list = kept.revocations()?;
        Ok(TrustRevoked {
            version: i64::try_from(version).unwrap_or(i64::MAX),
            keys: list
                .into_iter()
                .flat_map(kakoi_trust::Revocations::revoked)
                .map(|(key, _)| key.to_string())
                .collect(),
        })
    });
    Ok(reply::ok(&taken.await?))
}
