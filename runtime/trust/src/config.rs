//! trust.yaml, version 1: who may sign what.
//!
//! ```yaml
//! version: 1
//! default: reject                      # what no scope covers; `audit` for a laboratory
//! keys:
//!   acme-2026:
//!     public_key: |
//!       -----BEGIN PUBLIC KEY-----
//!       MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE3YMX/98NTQqpVX6DWfIO1DW9Jvzb
//!       4ExXVH7qtUktTmZXvbF8CLlaHGi9rRiqUfHv+PRXpMhzMjH0FMz5oJ/Vew==
//!       -----END PUBLIC KEY-----
//!     not_before: 2026-01-01T00:00:00Z
//!     not_after: 2027-03-01T00:00:00Z  # windows overlap while a key is replaced
//! revocation: {keys: [acme-2026], threshold: 1}
//! scopes:
//!   docker.io/library: {mode: audit}
//!   ghcr.io/acme:
//!     mode: require
//!     keys: [acme-2026]
//!     threshold: 1                     # counted over distinct keys
//!     annotations: {env: production}
//!     release: true                    # a signed release document, and no way back below a committed version
//! downgrades: {ghcr.io/acme/app: 1.3.0}  # but to this version of this release, until the line goes
//! ```
//!
//! Owns the model and its reading. Invariant: whatever is `require` names at least as many distinct keys as its threshold; absent means
//! rejected.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::diagnostics::{Diagnostics, Report, Span, is_unprintable};
use crate::digest::Digest;
use crate::name::{Repository, Scope};
use crate::public::{Padding, PublicKey};
use crate::release::{RELEASE_NAME_BYTES_MAX, Release, Version};
use crate::revocation::{KeyFault, Revocations, standing};
use crate::yaml::{self, Key, Kind, Node};

/// The most keys of one scope, each of which is tried on each signature.
const SCOPE_KEYS_MAX: usize = 32;

/// The predicate type of cosign's own signature of an image.
pub const COSIGN_PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";

/// What happens to images of a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// They run when enough keys have signed them.
    Require,
    /// They run, and what `require` would have said is logged.
    Audit,
    /// They do not run.
    Reject,
}

impl Mode {
    /// Its word in trust.yaml.
    pub fn word(self) -> &'static str {
        match self {
            Mode::Require => "require",
            Mode::Audit => "audit",
            Mode::Reject => "reject",
        }
    }

    /// Reads its word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Mode::Require, Mode::Audit, Mode::Reject]
            .into_iter()
            .find(|mode| mode.word() == word)
    }
}

/// A key with its name and the time in which it signs.
#[derive(Clone, Debug)]
pub struct NamedKey {
    /// The name in trust.yaml, for people.
    pub name: String,
    /// The key.
    pub key: PublicKey,
    /// Not valid before this time.
    pub not_before: Option<Timestamp>,
    /// Not valid from this time on.
    pub not_after: Option<Timestamp>,
    /// Why the owner no longer takes it.
    pub revoked: Option<String>,
}

impl NamedKey {
    /// Whether it counts at a time.
    ///
    /// # Errors
    /// It is revoked, or outside its validity.
    pub fn standing(&self, revocations: Option<&Revocations>, at: Timestamp) -> Result<(), KeyFault> {
        standing(self, revocations, at)
    }
}

/// What one scope demands.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What happens.
    pub mode: Mode,
    /// Names of the keys that count.
    pub keys: Vec<String>,
    /// How many distinct ones must have signed.
    pub threshold: usize,
    /// Annotations that a signature must carry.
    pub annotations: BTreeMap<String, String>,
    /// Whether a signed release document is demanded.
    pub release: bool,
    /// The name that the release document must carry; the repository where none is given.
    pub release_name: Option<String>,
    /// Predicate types of attestations that count as a signature.
    pub predicates: Vec<String>,
}

/// Who may do something, and how many of them it takes.
#[derive(Clone, Debug)]
pub struct Quorum {
    /// Names of keys.
    pub keys: Vec<String>,
    /// How many distinct ones.
    pub threshold: usize,
}

/// A whole trust.yaml.
#[derive(Clone, Debug)]
pub struct Trust {
    default: Mode,
    keys: BTreeMap<String, NamedKey>,
    revocation: Option<Quorum>,
    scopes: BTreeMap<Scope, Rule>,
    downgrades: BTreeMap<String, Version>,
}

impl Trust {
    /// What a device without trust.yaml trusts: nothing.
    pub fn nothing() -> Self {
        Self {
            default: Mode::Reject,
            keys: BTreeMap::new(),
            revocation: None,
            scopes: BTreeMap::new(),
            downgrades: BTreeMap::new(),
        }
    }

    /// Reads trust.yaml; `file` is its name as messages are to show it.
    ///
    /// # Errors
    /// What is wrong, with line and column.
    pub fn parse(file: &str, text: &str) -> Result<Self, Diagnostics> {
        let mut report = Report::new(file, text);
        let trust = yaml::read(text, &mut report).and_then(|node| decode(node, &mut report));
        if trust.is_none() && report.is_clean() {
            report
                .error(Span::START, "an empty document")
                .help("an empty trust.yaml is `version: 1`");
        }
        match (report.finish(), trust) {
            (Some(diagnostics), _) => Err(diagnostics),
            (None, Some(trust)) => Ok(trust),
            (None, None) => unreachable!("a document that gives nothing gives a finding"),
        }
    }

    /// What happens where no scope covers a repository.
    pub fn default_mode(&self) -> Mode {
        self.default
    }

    /// The scopes, in order of their names.
    pub fn scopes(&self) -> impl Iterator<Item = (&Scope, &Rule)> {
        self.scopes.iter()
    }

    /// The keys, in order of their names.
    pub fn keys(&self) -> impl Iterator<Item = &NamedKey> {
        self.keys.values()
    }

    /// The key of a name.
    pub fn key(&self, name: &str) -> Option<&NamedKey> {
        self.keys.get(name)
    }

    /// Who signs revocations.
    pub fn revocation(&self) -> Option<&Quorum> {
        self.revocation.as_ref()
    }

    /// The versions that may run below their floors, by the names of their releases.
    pub fn downgrades(&self) -> impl Iterator<Item = (&str, &Version)> {
        self.downgrades
            .iter()
            .map(|(name, version)| (name.as_str(), version))
    }

    /// Whether exactly this version of this release may run below its floor.
    pub fn permits_downgrade(&self, release: &Release) -> bool {
        self.downgrades.get(&release.name) == Some(&release.version)
    }

    /// The longest scope that covers a repository.
    pub fn rule(&self, repository: &Repository) -> Option<(&Scope, &Rule)> {
        self.scopes
            .iter()
            .filter(|(scope, _)| scope.covers(repository))
            .max_by_key(|(scope, _)| scope.as_str().len())
    }

    /// What happens to images of a repository; a caller that hears [`Mode::Reject`] need not look for signatures.
    pub fn mode(&self, repository: &Repository) -> Mode {
        self.rule(repository).map_or(self.default, |(_, rule)| rule.mode)
    }
}

/// A mapping whose fields are taken out one by one.
struct Fields {
    span: Span,
    entries: Vec<(Key, Option<Node>)>,
}

impl Fields {
    fn open(node: Node, what: &str, known: &[&str], report: &mut Report<'_>) -> Option<Self> {
        let span = node.span;
        let entries = map(node, what, report)?;
        for (key, _) in &entries {
            if !known.contains(&key.text.as_str()) {
                report
                    .error(key.span, format!("unknown field `{}`", printable(&key.text)))
                    .nearest(&key.text, known);
            }
        }
        Some(Self {
            span,
            entries: entries.into_iter().map(|(key, node)| (key, Some(node))).collect(),
        })
    }

    fn take(&mut self, name: &str, report: &mut Report<'_>) -> Option<Node> {
        let (key, slot) = self.entries.iter_mut().find(|(key, _)| key.text == name)?;
        let node = slot.take()?;
        if node.kind.noun() == "nothing" {
            report
                .error(key.span, format!("field `{name}` without a value"))
                .help("write the value, or remove the field");
            return None;
        }
        Some(node)
    }

    fn need(&mut self, name: &str, what: &str, report: &mut Report<'_>) -> Option<Node> {
        if !self.entries.iter().any(|(key, _)| key.text == name) {
            report.error(self.span, format!("{what} without `{name}`"));
            return None;
        }
        self.take(name, report)
    }
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !is_unprintable(*c)).take(64).collect()
}

fn map(node: Node, what: &str, report: &mut Report<'_>) -> Option<Vec<(Key, Node)>> {
    match node.kind {
        Kind::Map { entries, .. } => Some(entries),
        kind => {
            report.error(node.span, format!("{} where {what} is expected", kind.noun()));
            None
        }
    }
}

fn text(node: Node, what: &str, report: &mut Report<'_>) -> Option<(String, Span)> {
    match node.kind {
        Kind::Scalar(text) => Some((text, node.span)),
        kind => {
            report.error(node.span, format!("{} where {what} is expected", kind.noun()));
            None
        }
    }
}

fn words(node: Node, what: &str, report: &mut Report<'_>) -> Vec<(String, Span)> {
    let Kind::List(list) = node.kind else {
        report
            .error(
                node.span,
                format!("{} where a list of {what} is expected", node.kind.noun()),
            )
            .help("write `[a, b]`, or one `- entry` a line");
        return Vec::new();
    };
    list.into_iter()
        .filter_map(|node| text(node, what, report))
        .collect()
}

fn choice<T: Copy>(node: Node, what: &str, valid: &[(&str, T)], report: &mut Report<'_>) -> Option<T> {
    let (word, span) = text(node, what, report)?;
    let found = valid
        .iter()
        .find(|(name, _)| *name == word)
        .map(|(_, value)| *value);
    if found.is_none() {
        let names: Vec<_> = valid.iter().map(|(name, _)| *name).collect();
        report
            .error(span, format!("`{}` is not {what}", printable(&word)))
            .nearest(&word, &names);
    }
    found
}

fn decode(node: Node, report: &mut Report<'_>) -> Option<Trust> {
    const FIELDS: [&str; 6] = ["version", "default", "keys", "revocation", "scopes", "downgrades"];
    let mut fields = Fields::open(node, "a trust.yaml", &FIELDS, report)?;
    if let Some(node) = fields.need("version", "a trust.yaml", report) {
        choice(node, "a version that is read here", &[("1", ())], report);
    }
    let mut trust = Trust::nothing();
    if let Some(node) = fields.take("default", report) {
        let modes = [("reject", Mode::Reject), ("audit", Mode::Audit)];
        trust.default = choice(node, "a default", &modes, report).unwrap_or(Mode::Reject);
    }
    for (name, node) in entries(&mut fields, "keys", report) {
        if let Some(key) = named_key(&name, node, report) {
            trust.keys.insert(name.text, key);
        }
    }
    if let Some(node) = fields.take("revocation", report)
        && let Some(mut fields) = Fields::open(node, "who revokes", &["keys", "threshold"], report)
    {
        trust.revocation = quorum(&mut fields, "`revocation`", &trust.keys, report);
    }
    for (name, node) in entries(&mut fields, "scopes", report) {
        let scope = Scope::parse(&name.text);
        if let Err(error) = &scope {
            report.error(name.span, error.to_string());
        }
        let rule = rule(node, &trust.keys, report);
        if let (Ok(scope), Some(rule)) = (scope, rule) {
            trust.scopes.insert(scope, rule);
        }
    }
    for (name, node) in entries(&mut fields, "downgrades", report) {
        if let Some(version) = downgrade(&name, node, report) {
            trust.downgrades.insert(name.text, version);
        }
    }
    Some(trust)
}

/// One version: a range would be a floor that falls.
fn downgrade(name: &Key, node: Node, report: &mut Report<'_>) -> Option<Version> {
    if !is_release_name(&name.text) {
        report
            .error(
                name.span,
                format!("`{}` is no name of a release", printable(&name.text)),
            )
            .help("`kakoi trust show` lists the names that have a floor");
    }
    let (word, span) = text(node, "a version", report)?;
    let version = Version::parse(&word);
    if let Err(error) = &version {
        report.error(span, error.to_string());
    }
    version.ok()
}

/// What can stand in a release document as its name, and be shown to people.
pub(crate) fn is_release_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= RELEASE_NAME_BYTES_MAX && !name.chars().any(is_unprintable)
}

/// A mapping from names, each of which must have something to say.
fn entries(fields: &mut Fields, name: &str, report: &mut Report<'_>) -> Vec<(Key, Node)> {
    let node = fields.take(name, report);
    let mut entries = node
        .and_then(|node| map(node, "a mapping from names", report))
        .unwrap_or_default();
    entries.retain(|(key, node)| {
        let silent = node.kind.noun() == "nothing";
        if silent {
            report.error(key.span, format!("`{}` without a value", printable(&key.text)));
        }
        !silent
    });
    entries
}

/// Letters, digits and `-_.@`: what can stand on a command line and in a log.
pub(crate) fn is_key_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && !name.starts_with('-')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.@".contains(&b))
}

fn named_key(name: &Key, node: Node, report: &mut Report<'_>) -> Option<NamedKey> {
    const FIELDS: [&str; 5] = ["public_key", "padding", "not_before", "not_after", "revoked"];
    if !is_key_name(&name.text) {
        report
            .error(
                name.span,
                format!("`{}` is no name for a key", printable(&name.text)),
            )
            .help("letters, digits and `-_.@`, at most 64");
    }
    let mut fields = Fields::open(node, "a key", &FIELDS, report)?;
    let padding = fields.take("padding", report);
    let padding = padding.and_then(|node| {
        let valid = [("pss", Padding::Pss), ("pkcs1v15", Padding::Pkcs1v15)];
        choice(node, "a padding of RSA", &valid, report)
    });
    let pem = fields.need("public_key", "a key", report);
    let key = pem
        .and_then(|node| text(node, "a public key in PEM", report))
        .and_then(
            |(pem, span)| match PublicKey::from_pem(&pem, padding.unwrap_or(Padding::Pss)) {
                Ok(key) => Some(key),
                Err(error) => {
                    report
                        .error(
                            span,
                            format!("not a public key that is used here: {}", chain(&error)),
                        )
                        .help(
                            "ECDSA P-256, Ed25519 or RSA from 3072 bits on, as `-----BEGIN PUBLIC KEY-----`",
                        );
                    None
                }
            },
        );
    let not_before = time(&mut fields, "not_before", report);
    let not_after = time(&mut fields, "not_after", report);
    if let (Some((before, _)), Some((after, span))) = (not_before, not_after)
        && before >= after
    {
        report.error(span, "`not_after` does not come after `not_before`");
    }
    let revoked = fields.take("revoked", report);
    Some(NamedKey {
        name: name.text.clone(),
        key: key?,
        not_before: not_before.map(|(time, _)| time),
        not_after: not_after.map(|(time, _)| time),
        revoked: revoked
            .and_then(|node| text(node, "a reason", report))
            .map(|(reason, _)| printable(&reason)),
    })
}

fn time(fields: &mut Fields, name: &str, report: &mut Report<'_>) -> Option<(Timestamp, Span)> {
    let (word, span) = fields
        .take(name, report)
        .and_then(|node| text(node, "a time", report))?;
    match word.parse() {
        Ok(time) => Some((time, span)),
        Err(_) => {
            report
                .error(span, format!("`{}` is not a time", printable(&word)))
                .help("write it with its zone, `2026-12-31T00:00:00Z`");
            None
        }
    }
}

/// `keys` and `threshold`, which must fit each other.
fn quorum(
    fields: &mut Fields,
    what: &str,
    known: &BTreeMap<String, NamedKey>,
    report: &mut Report<'_>,
) -> Option<Quorum> {
    let whole = fields.span;
    let mut distinct: BTreeSet<Digest> = BTreeSet::new();
    let mut keys = Vec::new();
    let mut bad = false;
    if let Some(node) = fields.need("keys", what, report) {
        let span = node.span;
        for (name, span) in words(node, "names of keys", report) {
            match known.get(&name) {
                Some(key) => {
                    distinct.insert(key.key.fingerprint());
                }
                None => {
                    bad = true;
                    let names: Vec<_> = known.keys().map(String::as_str).collect();
                    report
                        .error(span, format!("no key `{}` in `keys`", printable(&name)))
                        .nearest(&name, &names);
                }
            }
            keys.push(name);
        }
        if keys.len() > SCOPE_KEYS_MAX {
            report.error(span, format!("more than {SCOPE_KEYS_MAX} keys"));
        }
    } else {
        bad = true;
    }
    let threshold = fields.take("threshold", report);
    let (threshold, span) = match threshold {
        None => (1, whole),
        Some(node) => {
            let (word, span) = text(node, "a number", report)?;
            match word.parse::<usize>() {
                Ok(number @ 1..) => (number, span),
                _ => {
                    report.error(span, format!("`{}` is not a number from 1 on", printable(&word)));
                    return None;
                }
            }
        }
    };
    if !bad && threshold > distinct.len() {
        report
            .error(
                span,
                format!("a threshold of {threshold}, but {} distinct keys", distinct.len()),
            )
            .help("one key under two names counts once");
    }
    Some(Quorum { keys, threshold })
}

fn rule(node: Node, known: &BTreeMap<String, NamedKey>, report: &mut Report<'_>) -> Option<Rule> {
    const FIELDS: [&str; 7] = [
        "mode",
        "keys",
        "threshold",
        "annotations",
        "release",
        "release_name",
        "predicates",
    ];
    let mut fields = Fields::open(node, "a scope", &FIELDS, report)?;
    let modes = [Mode::Require, Mode::Audit, Mode::Reject].map(|mode| (mode.word(), mode));
    let mode = fields
        .need("mode", "a scope", report)
        .and_then(|node| choice(node, "a mode", &modes, report))?;
    let named = fields.entries.iter().any(|(key, _)| key.text == "keys");
    let quorum = if mode == Mode::Require || named {
        quorum(
            &mut fields,
            &format!("a scope of mode `{}`", mode.word()),
            known,
            report,
        )?
    } else {
        Quorum {
            keys: Vec::new(),
            threshold: 1,
        }
    };
    let mut annotations = BTreeMap::new();
    for (key, node) in entries(&mut fields, "annotations", report) {
        if let Some((value, _)) = text(node, "a text", report) {
            annotations.insert(key.text, value);
        }
    }
    let flag = [("true", true), ("false", false)];
    let release = fields
        .take("release", report)
        .and_then(|node| choice(node, "`true` or `false`", &flag, report));
    let release_name = fields
        .take("release_name", report)
        .and_then(|node| text(node, "a name", report));
    if let (Some((_, span)), Some(false) | None) = (&release_name, release) {
        report.error(*span, "`release_name` without `release: true`");
    }
    let predicates = fields
        .take("predicates", report)
        .map(|node| words(node, "predicate types", report));
    Some(Rule {
        mode,
        keys: quorum.keys,
        threshold: quorum.threshold,
        annotations,
        release: release.unwrap_or(false),
        release_name: release_name.map(|(name, _)| name),
        predicates: predicates.map_or_else(
            || vec![COSIGN_PREDICATE.to_owned()],
            |list| list.into_iter().map(|(word, _)| word).collect(),
        ),
    })
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
