//! The decision: may this image run, who says so, and what was wrong with everybody else's word.
//!
//! Owns [`decide`], [`recheck`] and the [`Evidence`] that is stored beside an image. Pure: signatures in, verdict out. Invariants: whatever is
//! not positively shown is refused; a payload is not read before a signature over it was verified with a key of the scope; a threshold counts
//! keys, not signatures and not names.
//!
//! Time: whether a key was in its validity is judged when the image is taken in. At each start the stored evidence is judged by that same
//! time, because a gateway without a battery-backed clock starts in 1970, and because an app must not stop at the hour when its vendor's key
//! is rotated. Revocation, the scope's mode and its keys are judged as they are at the start.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::{Mode, NamedKey, Rule, Trust, chain};
use crate::digest::Digest;
use crate::name::{Repository, Scope};
use crate::public::Padding;
use crate::release::{FloorError, Floors, Release, Version};
use crate::revocation::{KeyFault, Revocations, standing};
use crate::signature::{ClaimedImage, FormatError, Layer, Signed};

/// The most signatures of one image that are looked at. Each costs a verification per key of the scope.
pub const SIGNATURES_MAX: usize = 64;

/// The image in question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// Its repository, as its user named it: never a mirror's.
    pub repository: Repository,
    /// What the tag resolved to, and what runs: the index and the platform's manifest, or the manifest alone.
    pub digests: Vec<Digest>,
}

/// What a decision is made by.
#[derive(Clone, Copy, Debug)]
pub struct Grounds<'a> {
    /// trust.yaml.
    pub trust: &'a Trust,
    /// The list of revoked keys in force.
    pub revocations: Option<&'a Revocations>,
    /// The versions that were committed.
    pub floors: &'a Floors,
    /// The time.
    pub now: Timestamp,
}

/// Whether a release falls below its floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Downgrade {
    /// It does not, or is refused for it.
    Refused,
    /// It does, and trust.yaml names exactly this version of it.
    Permitted,
}

/// What was found about one signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// The digest of the signature's layer.
    pub signature: Digest,
    /// The name of the key that made it; none if no key of the scope did.
    pub key: Option<String>,
    /// The key's fingerprint.
    pub fingerprint: Option<Digest>,
    /// Why it does not count; none if it does.
    pub fault: Option<String>,
}

/// All that a decision was made of: stored beside the image, judged again at each start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// The image.
    pub subject: Subject,
    /// The signatures, whole.
    pub layers: Vec<Layer>,
    /// When it was taken in.
    pub decided_at: Timestamp,
    /// Whether it was let in below its floor; nothing is judged by it later.
    pub downgrade: Downgrade,
    /// The scope that covered it; none for the default.
    pub scope: Option<Scope>,
    /// The scope's mode then.
    pub mode: Mode,
    /// What was found about each signature.
    pub findings: Vec<Finding>,
    /// The release that it is, if one was demanded and shown.
    pub release: Option<Release>,
}

/// The decision.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Enough keys signed it.
    Trusted(Evidence),
    /// It runs because its scope is only audited; the complaint belongs into the log.
    Audited {
        /// What was found.
        evidence: Evidence,
        /// What `require` would have said; none if it would have been trusted.
        complaint: Option<Complaint>,
    },
    /// It does not run.
    Refused(Box<Refusal>),
}

/// Why an image is not trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Complaint {
    /// No scope covers it.
    #[error("no scope of trust.yaml covers it")]
    NoScope,
    /// Its scope says no.
    #[error("scope `{scope}` rejects it")]
    Rejected {
        /// Which.
        scope: Scope,
    },
    /// It carries no signature.
    #[error("it is not signed")]
    Unsigned,
    /// Too few of the keys signed it.
    #[error("{signed} of {threshold} keys signed it{}", faults_shown(.faults))]
    Threshold {
        /// How many distinct keys did.
        signed: usize,
        /// How many must.
        threshold: usize,
        /// What was wrong with the signatures that do not count.
        faults: Vec<String>,
    },
    /// Its release is below the floor.
    #[error("{0}")]
    Floor(FloorError),
    /// More signatures than are looked at, and what was looked at was not enough.
    #[error("it carries {count} signatures; at most {SIGNATURES_MAX} are looked at")]
    TooMany {
        /// How many.
        count: usize,
    },
}

fn faults_shown(faults: &[String]) -> String {
    match faults {
        [] => String::new(),
        // Three say what is wrong; the evidence has all.
        some => format!(" ({})", some[..some.len().min(3)].join("; ")),
    }
}

/// A refusal: what, why, and the one command that would allow it.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// What was found.
    pub evidence: Evidence,
    /// Why it does not run.
    pub complaint: Complaint,
}

impl Refusal {
    /// The one command that would allow it: as narrow as it can be and still be found useful.
    pub fn remedy(&self) -> String {
        let repository = &self.evidence.subject.repository;
        let scope = match &self.complaint {
            Complaint::Floor(FloorError::Downgrade { name, version, .. }) if is_one_word(name) => {
                return format!("kakoi trust allow-downgrade {name} {version}");
            }
            Complaint::NoScope => repository.neighbourhood(),
            _ => repository.as_str(),
        };
        format!("kakoi trust allow {scope} --mode audit")
    }
}

/// Whether a shell takes it as it stands.
fn is_one_word(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@".contains(&byte);
    !name.starts_with('-') && name.bytes().all(is_plain)
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is not trusted: {}; to allow it all the same: {}",
            self.evidence.subject.repository,
            self.complaint,
            self.remedy()
        )
    }
}

/// Decides about an image that is taken in.
pub fn decide(subject: Subject, layers: Vec<Layer>, grounds: Grounds<'_>) -> Verdict {
    judge(subject, layers, grounds, grounds.now)
}

/// Decides again, from what was stored: at each start, without network.
pub fn recheck(evidence: &Evidence, grounds: Grounds<'_>) -> Verdict {
    judge(
        evidence.subject.clone(),
        evidence.layers.clone(),
        grounds,
        evidence.decided_at,
    )
}

/// `taken_in` is the time by which the validity of keys is judged.
fn judge(subject: Subject, mut layers: Vec<Layer>, grounds: Grounds<'_>, taken_in: Timestamp) -> Verdict {
    let found = grounds.trust.rule(&subject.repository);
    let count = layers.len();
    layers.truncate(SIGNATURES_MAX);
    let mut evidence = Evidence {
        subject,
        layers,
        decided_at: taken_in,
        downgrade: Downgrade::Refused,
        scope: found.map(|(scope, _)| scope.clone()),
        mode: found.map_or(grounds.trust.default_mode(), |(_, rule)| rule.mode),
        findings: Vec::new(),
        release: None,
    };
    let complaint = match found {
        None => Some(Complaint::NoScope),
        Some((scope, rule)) if rule.mode == Mode::Reject => {
            Some(Complaint::Rejected { scope: scope.clone() })
        }
        // A scope that is audited without keys asks nobody, so nobody's word is missing.
        Some((_, rule)) if rule.keys.is_empty() => None,
        Some((_, rule)) => weigh(&mut evidence, rule, grounds).err().map(|complaint| {
            if count > SIGNATURES_MAX {
                Complaint::TooMany { count }
            } else {
                complaint
            }
        }),
    };
    match (evidence.mode, complaint) {
        (Mode::Require, None) => Verdict::Trusted(evidence),
        (Mode::Audit, complaint) => Verdict::Audited { evidence, complaint },
        (Mode::Reject, None) => unreachable!("what is rejected has a complaint"),
        (Mode::Require | Mode::Reject, Some(complaint)) => {
            Verdict::Refused(Box::new(Refusal { evidence, complaint }))
        }
    }
}

/// Looks at every signature and counts the keys behind those that hold.
fn weigh(evidence: &mut Evidence, rule: &Rule, grounds: Grounds<'_>) -> Result<(), Complaint> {
    if evidence.layers.is_empty() {
        return Err(Complaint::Unsigned);
    }
    let keys: Vec<&NamedKey> = rule
        .keys
        .iter()
        .filter_map(|name| grounds.trust.key(name))
        .collect();
    // Who signed which release; a plain signature is of none.
    let mut signers: BTreeMap<Option<(Version, Digest)>, BTreeSet<Digest>> = BTreeMap::new();
    for layer in &evidence.layers {
        let mut finding = Finding {
            signature: Digest::of(&layer.payload),
            key: None,
            fingerprint: None,
            fault: None,
        };
        match examine(layer, &mut finding, &keys, rule, evidence, grounds) {
            Ok((fingerprint, release)) => {
                signers.entry(release).or_default().insert(fingerprint);
            }
            Err(fault) => finding.fault = Some(chain(&fault)),
        }
        evidence.findings.push(finding);
    }
    if rule.release {
        evidence.release = Some(highest_release(&evidence.findings, rule, &signers, evidence)?);
    } else {
        let all: BTreeSet<_> = signers.into_values().flatten().collect();
        enough(&evidence.findings, rule, all.len())?;
    }
    let Some(release) = &evidence.release else {
        return Ok(());
    };
    match grounds.floors.check(release) {
        Err(FloorError::Downgrade { .. }) if grounds.trust.permits_downgrade(release) => {
            evidence.downgrade = Downgrade::Permitted;
            Ok(())
        }
        checked => checked.map_err(Complaint::Floor),
    }
}

fn enough(findings: &[Finding], rule: &Rule, signed: usize) -> Result<(), Complaint> {
    if signed >= rule.threshold {
        return Ok(());
    }
    let mut faults = Vec::new();
    for fault in findings.iter().filter_map(|finding| finding.fault.clone()) {
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }
    Err(Complaint::Threshold {
        signed,
        threshold: rule.threshold,
        faults,
    })
}

/// The highest version that enough keys released as this image.
fn highest_release(
    findings: &[Finding],
    rule: &Rule,
    signers: &BTreeMap<Option<(Version, Digest)>, BTreeSet<Digest>>,
    evidence: &Evidence,
) -> Result<Release, Complaint> {
    let mut signed_max = 0;
    for (release, keys) in signers.iter().rev() {
        let Some((version, digest)) = release else {
            continue;
        };
        signed_max = signed_max.max(keys.len());
        if keys.len() >= rule.threshold {
            return Ok(Release {
                name: release_name(rule, &evidence.subject.repository).to_owned(),
                version: version.clone(),
                digest: digest.clone(),
            });
        }
    }
    enough(findings, rule, signed_max)?;
    unreachable!("too few keys are a complaint")
}

fn release_name<'a>(rule: &'a Rule, repository: &'a Repository) -> &'a str {
    rule.release_name.as_deref().unwrap_or(repository.as_str())
}

/// Why one signature does not count.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("an unreadable signature")]
    Format(#[source] FormatError),
    #[error("no key of the scope made the signature")]
    NoKey,
    #[error(
        "key `{name}` made the signature with the other padding of RSA: if that is meant, its `padding` is `{}`",
        .padding.word()
    )]
    Padding { name: String, padding: Padding },
    #[error("a signature does not count")]
    Key(#[source] KeyFault),
    #[error("key `{name}` signed something that is not understood")]
    Claim {
        name: String,
        #[source]
        cause: FormatError,
    },
    #[error("key `{name}` signed another image, {claimed}")]
    Digest { name: String, claimed: Digest },
    #[error("key `{name}` signed nothing")]
    Nothing { name: String },
    #[error("key `{name}` signed it for {claimed}")]
    Repository { name: String, claimed: Repository },
    #[error("key `{name}` signed it without the annotation `{annotation}`")]
    Annotation { name: String, annotation: String },
    #[error("key `{name}` attested `{predicate}`, which is no signature of the image")]
    Predicate { name: String, predicate: String },
    #[error("key `{name}` signed it, but no release document")]
    NoRelease { name: String },
    #[error("key `{name}` released it as `{claimed}`, not as `{expected}`")]
    ReleaseName {
        name: String,
        claimed: String,
        expected: String,
    },
}

/// The key behind one signature, and the release it is part of.
fn examine(
    layer: &Layer,
    finding: &mut Finding,
    keys: &[&NamedKey],
    rule: &Rule,
    evidence: &Evidence,
    grounds: Grounds<'_>,
) -> Result<(Digest, Option<(Version, Digest)>), Fault> {
    let signed = Signed::find(layer).map_err(Fault::Format)?;
    let makers: Vec<_> = keys
        .iter()
        .filter(|key| key.key.verify(&signed.message, &signed.signature))
        .collect();
    let Some(first) = makers.first() else {
        return Err(padding_fault(&signed, keys).unwrap_or(Fault::NoKey));
    };
    // One key may stand under several names with different windows: any name under which it counts will do.
    let judged = makers
        .iter()
        .map(|key| standing(key, grounds.revocations, evidence.decided_at).map(|()| key));
    let valid = judged.clone().find_map(Result::ok).unwrap_or(first);
    let name = valid.name.clone();
    finding.key = Some(name.clone());
    finding.fingerprint = Some(valid.key.fingerprint());
    standing(valid, grounds.revocations, evidence.decided_at).map_err(Fault::Key)?;

    let claim = signed.claim().map_err(|cause| Fault::Claim {
        name: name.clone(),
        cause,
    })?;
    let image = claimed_image(&claim.images, &name, rule, evidence)?;
    match (&claim.predicate, claim.release) {
        (_, Some((claimed, version))) => {
            let expected = release_name(rule, &evidence.subject.repository);
            if claimed != expected && (rule.release || rule.release_name.is_some()) {
                let (claimed, expected) = (shown(&claimed), expected.to_owned());
                return Err(Fault::ReleaseName {
                    name,
                    claimed,
                    expected,
                });
            }
            Ok((valid.key.fingerprint(), Some((version, image.digest.clone()))))
        }
        (Some(predicate), None) if !rule.predicates.contains(predicate) => Err(Fault::Predicate {
            name,
            predicate: shown(predicate),
        }),
        _ if rule.release => Err(Fault::NoRelease { name }),
        _ => Ok((valid.key.fingerprint(), None)),
    }
}

fn padding_fault(signed: &Signed, keys: &[&NamedKey]) -> Option<Fault> {
    keys.iter().find_map(|key| {
        let padding = key
            .key
            .verifies_with_other_padding(&signed.message, &signed.signature)?;
        Some(Fault::Padding {
            name: key.name.clone(),
            padding,
        })
    })
}

/// The image of a claim that is the one in question, with all that the scope demands of it.
fn claimed_image<'c>(
    images: &'c [ClaimedImage],
    name: &str,
    rule: &Rule,
    evidence: &Evidence,
) -> Result<&'c ClaimedImage, Fault> {
    let name = name.to_owned();
    let Some(first) = images.first() else {
        return Err(Fault::Nothing { name });
    };
    let subject = &evidence.subject;
    let Some(image) = images
        .iter()
        .find(|image| subject.digests.contains(&image.digest))
    else {
        let claimed = first.digest.clone();
        return Err(Fault::Digest { name, claimed });
    };
    if let Some(claimed) = &image.repository
        && *claimed != subject.repository
    {
        let claimed = claimed.clone();
        return Err(Fault::Repository { name, claimed });
    }
    let mut demanded = rule.annotations.iter();
    if let Some((key, value)) = demanded.find(|(key, value)| image.annotations.get(*key) != Some(*value)) {
        let annotation = format!("{key}={value}");
        return Err(Fault::Annotation { name, annotation });
    }
    Ok(image)
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}
