//! Reading nodes as typed values, with a message for every way in which they can be wrong.
//!
//! Owns the conversion of scalars and the check for unknown fields. Knows nothing of any field's meaning.

use crate::diagnostics::{Origin, Report, Span};
use crate::model::Enforce;
use crate::units;
use crate::yaml::{Key, Kind, Node};

/// A mapping whose keys were checked, to be taken out one by one.
pub(crate) struct Fields {
    pub(crate) span: Span,
    entries: Vec<(Key, Option<Node>)>,
}

impl Fields {
    /// Opens a mapping; unknown keys are reported with the nearest known one.
    pub(crate) fn open(node: Node, what: &str, known: &[&str], report: &mut Report<'_>) -> Option<Self> {
        let span = node.span;
        let Kind::Map(entries) = node.kind else {
            let noun = node.kind.noun();
            report
                .error(span, format!("{noun} where {what} is expected"))
                .help(format!("{what} is a mapping with the fields {}", quoted(known)));
            return None;
        };
        for (key, _) in &entries {
            if !known.contains(&key.text.as_str()) {
                report
                    .error(key.span, format!("unknown field `{}`", printable(&key.text)))
                    .nearest(&key.text, known.iter().copied());
            }
        }
        let entries = entries.into_iter().map(|(key, node)| (key, Some(node))).collect();
        Some(Self { span, entries })
    }

    /// Takes a field's value; an absent field and one with nothing after its colon are the same as not written.
    pub(crate) fn take(&mut self, name: &str, report: &mut Report<'_>) -> Option<Node> {
        let (key, slot) = self.entries.iter_mut().find(|(key, _)| key.text == name)?;
        let node = slot.take()?;
        if node.kind.noun() == "nothing" {
            report
                .error(key.span, format!("field `{name}` without a value"))
                .help("write the value, or remove the field; an empty list is `[]`");
            return None;
        }
        Some(node)
    }

    /// Takes a field that must be there.
    pub(crate) fn need(&mut self, name: &str, what: &str, report: &mut Report<'_>) -> Option<Node> {
        if !self.entries.iter().any(|(key, _)| key.text == name) {
            report.error(self.span, format!("{what} without `{name}`"));
            return None;
        }
        self.take(name, report)
    }
}

pub(crate) fn quoted(words: &[&str]) -> String {
    words
        .iter()
        .map(|word| format!("`{word}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// A word as it may stand in a message: short, and without control characters.
pub(crate) fn printable(word: &str) -> String {
    let mut text: String = word
        .chars()
        .take(64)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    if word.chars().count() > 64 {
        text.push('…');
    }
    text
}

/// The entries of a list.
pub(crate) fn list(node: Node, what: &str, report: &mut Report<'_>) -> Vec<Node> {
    match node.kind {
        Kind::List(entries) => entries,
        kind => {
            report
                .error(
                    node.span,
                    format!("{} where a list of {what} is expected", kind.noun()),
                )
                .help("write `[a, b]`, or one `- entry` a line");
            Vec::new()
        }
    }
}

/// The text of a scalar whose field says what type it is.
pub(crate) fn scalar(node: &Node, what: &str, report: &mut Report<'_>) -> Option<String> {
    match &node.kind {
        Kind::Scalar { text, .. } => Some(text.clone()),
        kind => {
            report.error(node.span, format!("{} where {what} is expected", kind.noun()));
            None
        }
    }
}

/// Plain words that other YAML readers take for something else than text.
const AMBIGUOUS: [&str; 11] = [
    "y", "yes", "n", "no", "on", "off", "true", "false", "null", "~", ".nan",
];

/// A name: text that no YAML reader takes for a boolean or nothing.
pub(crate) fn word(node: &Node, what: &str, report: &mut Report<'_>) -> Option<String> {
    let text = scalar(node, what, report)?;
    let plain = matches!(node.kind, Kind::Scalar { plain: true, .. });
    if plain && AMBIGUOUS.contains(&text.to_ascii_lowercase().as_str()) {
        report
            .error(node.span, format!("`{text}` where {what} is expected"))
            .label("YAML readers disagree about this word")
            .help(format!("if text is meant, quote it: \"{text}\""));
        return None;
    }
    if text.is_empty() {
        report.error(node.span, format!("nothing where {what} is expected"));
        return None;
    }
    Some(text)
}

/// `true` or `false`, and no other spelling.
pub(crate) fn boolean(node: &Node, what: &str, report: &mut Report<'_>) -> Option<bool> {
    let text = scalar(node, what, report)?;
    let plain = matches!(node.kind, Kind::Scalar { plain: true, .. });
    match (text.as_str(), plain) {
        ("true", true) => Some(true),
        ("false", true) => Some(false),
        _ => {
            let help = match text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "y" | "true" => "write `true`",
                "no" | "off" | "n" | "false" => "write `false`",
                _ => "write `true` or `false`",
            };
            report
                .error(
                    node.span,
                    format!(
                        "`{}` where `true` or `false` is expected for {what}",
                        printable(&text)
                    ),
                )
                .help(help);
            None
        }
    }
}

/// A number in a range.
pub(crate) fn number(node: &Node, what: &str, max: u64, report: &mut Report<'_>) -> Option<u64> {
    let text = scalar(node, what, report)?;
    match units::integer(&text) {
        Some(value) if value <= max => Some(value),
        Some(value) => {
            report
                .error(node.span, format!("{value} is too large for {what}"))
                .help(format!("at most {max}"));
            None
        }
        None => {
            let note = report.error(
                node.span,
                format!("`{}` is not a number, which {what} needs", printable(&text)),
            );
            if text.len() > 1 && text.starts_with('0') {
                note.help("leading zeros are refused, because some readers take them for octal");
            }
            None
        }
    }
}

/// One of some words.
pub(crate) fn choice<T: Copy>(
    node: &Node,
    what: &str,
    of: &[(&str, T)],
    report: &mut Report<'_>,
) -> Option<T> {
    let text = scalar(node, what, report)?;
    match of.iter().find(|(name, _)| *name == text) {
        Some((_, value)) => Some(*value),
        None => {
            report
                .error(
                    node.span,
                    format!("unknown word `{}` for {what}", printable(&text)),
                )
                .nearest(&text, of.iter().map(|(name, _)| *name));
            None
        }
    }
}

pub(crate) const ENFORCE: [(&str, Enforce); 2] = [
    ("required", Enforce::Required),
    ("best_effort", Enforce::BestEffort),
];

/// The `enforce` field of a rule, or what its section says.
pub(crate) fn enforce(fields: &mut Fields, otherwise: Enforce, report: &mut Report<'_>) -> Enforce {
    fields
        .take("enforce", report)
        .and_then(|node| choice(&node, "`enforce`", &ENFORCE, report))
        .unwrap_or(otherwise)
}

/// An absolute path without `.`, `..`, doubled slashes or a slash at the end.
pub(crate) fn path(node: &Node, what: &str, globs: bool, report: &mut Report<'_>) -> Option<String> {
    let text = word(node, what, report)?;
    let fault = if !text.starts_with('/') {
        Some("the path must be absolute")
    } else if text.contains('\0') {
        Some("the path holds a NUL byte")
    } else if text != "/"
        && text
            .split('/')
            .skip(1)
            .any(|part| matches!(part, "" | "." | ".."))
    {
        Some("write the path without `.`, `..`, `//` and a slash at the end")
    } else if !globs && text.contains(['*', '?', '[']) {
        Some("this path takes no `*`, `?` or `[`; grant the folder")
    } else if globs && text.matches(['*', '?', '[']).count() > GLOBS_MAX {
        Some("too many `*`, `?` and `[` in one path")
    } else {
        None
    };
    if let Some(fault) = fault {
        report
            .error(node.span, format!("`{}` is not {what}", printable(&text)))
            .help(fault);
        return None;
    }
    Some(text)
}

/// The most wildcards of one path: matching costs grow with each, and no device path needs more.
const GLOBS_MAX: usize = 4;

/// The place of a node.
pub(crate) fn origin(node: &Node, report: &Report<'_>) -> Origin {
    report.origin(node.span)
}
