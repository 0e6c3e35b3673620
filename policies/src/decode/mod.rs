//! From a tree of YAML to a [`Policy`].
//!
//! Owns the grammar: which field stands where and what it may hold. Collects every error of a document. Knows nothing of other documents;
//! composing is elsewhere.

pub(crate) mod calls;
pub(crate) mod egress;
pub(crate) mod fields;
pub(crate) mod sections;

pub(crate) use calls::operator_names;
pub(crate) use sections::{capability_word, limit_set, network_mode};

use crate::diagnostics::{Diagnostics, Report};
use crate::model::{LANGUAGE_VERSION, Policy, Rules, Sited};
use crate::yaml::{self, Kind, Node};
use fields::{Fields, list, number, printable, word};

/// The most parents of one policy.
const EXTENDS_MAX: usize = 8;

/// The fields of a policy.
pub(crate) const KEYS: [&str; 13] = [
    "kakoi",
    "name",
    "extends",
    "capabilities",
    "system_calls",
    "files",
    "network",
    "scope",
    "devices",
    "limits",
    "process",
    "mounts",
    "user_namespace",
];

/// Reads one policy.
///
/// `name` is the document's name as it is to stand in messages; the policy is called so too, unless it says `name`.
///
/// # Errors
/// Every error of the document that can be found at once.
pub fn parse(name: &str, text: &str) -> Result<Policy, Diagnostics> {
    let mut report = Report::new(name, text);
    let policy = yaml::read(text, &mut report).and_then(|node| policy(name, text, node, &mut report));
    match (policy, report.finish()) {
        (_, Some(diagnostics)) => Err(diagnostics),
        (Some(policy), None) => Ok(policy),
        (None, None) => unreachable!("a document that gives no policy gives a diagnostic"),
    }
}

/// The parents that a text names, whatever else is wrong with it.
pub(crate) fn parents(name: &str, text: &str) -> Vec<Sited<String>> {
    let mut report = Report::new(name, text);
    let policy = yaml::read(text, &mut report).and_then(|node| policy(name, text, node, &mut report));
    policy.map(|policy| policy.extends).unwrap_or_default()
}

fn policy(name: &str, text: &str, node: Node, report: &mut Report<'_>) -> Option<Policy> {
    let mut fields = Fields::open(node, "a policy", &KEYS, report)?;
    version(&mut fields, "a policy", report);
    let called = fields
        .take("name", report)
        .and_then(|node| policy_name(&node, report));
    let extends = extends(&mut fields, report);
    let mut rules = Rules::silent();
    sections::take(&mut fields, &mut rules, report);
    if let Some(node) = fields.take("system_calls", report) {
        rules.calls = calls::decode(node, report);
    }
    Some(Policy {
        name: called.unwrap_or_else(|| stem(name).to_owned()),
        file: name.to_owned(),
        text: text.to_owned(),
        extends,
        rules,
    })
}

/// A file's name without folders and `.yaml`.
fn stem(name: &str) -> &str {
    let last = name.rsplit('/').next().unwrap_or(name);
    last.strip_suffix(".yaml")
        .or_else(|| last.strip_suffix(".yml"))
        .unwrap_or(last)
}

/// Checks `kakoi: 1`.
pub(crate) fn version(fields: &mut Fields, what: &str, report: &mut Report<'_>) {
    let Some(node) = fields.need("kakoi", what, report) else {
        return;
    };
    if let Some(version) = number(&node, "`kakoi`, the version of the language,", u64::MAX, report)
        && version != u64::from(LANGUAGE_VERSION)
    {
        report
            .error(
                node.span,
                format!("version {version} of the language is not known"),
            )
            .help(format!("this Kakoi reads version {LANGUAGE_VERSION}"));
    }
}

/// Lower-case letters, digits, `-`, `_` and `.`, starting with a letter or digit: safe as a file name and in a log.
pub(crate) fn policy_name(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let text = word(node, "a policy's name", report)?;
    let well_formed = text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if !well_formed {
        report
            .error(
                node.span,
                format!("`{}` is not a policy's name", printable(&text)),
            )
            .help("use up to 64 letters, digits, `-`, `_` and `.`, starting with a letter or digit");
        return None;
    }
    Some(text)
}

fn extends(fields: &mut Fields, report: &mut Report<'_>) -> Vec<Sited<String>> {
    let Some(node) = fields.take("extends", report) else {
        return Vec::new();
    };
    let span = node.span;
    let nodes = match node.kind {
        Kind::Scalar { .. } => vec![node],
        _ => list(node, "policies", report),
    };
    if nodes.len() > EXTENDS_MAX {
        report.error(span, format!("a policy that extends more than {EXTENDS_MAX}"));
        return Vec::new();
    }
    nodes
        .iter()
        .filter_map(|node| Some(Sited::new(policy_name(node, report)?, report.origin(node.span))))
        .collect()
}

#[cfg(test)]
pub(crate) use calls::{CONDITION_KEYS, KEYS as CALL_KEYS};
