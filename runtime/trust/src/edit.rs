//! Changing trust.yaml as its owner would: the fields in question, and no comment but on a line that changes.
//!
//! Owns edits of the text, entry by entry. Invariant: what it returns has been read again; an edit that would give a document with errors
//! gives those errors instead.

use jiff::Timestamp;

use crate::config::{Mode, Trust, is_key_name, is_release_name};
use crate::diagnostics::{Diagnostics, Report, is_unprintable};
use crate::name::Scope;
use crate::public::{Algorithm, PublicKey};
use crate::release::Version;
use crate::yaml::{self, Key, Kind, Node};

/// The document of a device that has none yet.
const EMPTY: &str =
    "# Who may sign what: see `kakoi trust show`. What is not named here does not run.\nversion: 1\n";

/// Why an edit was not made.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The document has errors already, or would have them.
    #[error("{0}")]
    Document(Diagnostics),
    /// Written in a way that is not edited.
    #[error("`{field}` of trust.yaml is not a mapping that can be edited here: change it with an editor")]
    Shape {
        /// Where.
        field: String,
    },
    /// Not a name for a key.
    #[error("`{name}` is no name for a key: letters, digits and `-_.@`, at most 64")]
    KeyName {
        /// The name, shortened.
        name: String,
    },
    /// Taken by another key.
    #[error(
        "a key `{name}` is there already: give the new one another name, so that both count while it is rotated in"
    )]
    KeyTaken {
        /// The name.
        name: String,
    },
    /// Not there.
    #[error("there is no key `{name}`")]
    KeyUnknown {
        /// The name.
        name: String,
    },
    /// Not the name of a release.
    #[error("`{name}` is no name of a release: `kakoi trust show` lists those that have a floor")]
    ReleaseName {
        /// The name, shortened.
        name: String,
    },
    /// Nothing was permitted.
    #[error("no downgrade of `{name}` is permitted")]
    DowngradeUnknown {
        /// The name.
        name: String,
    },
}

/// Sets the mode of a scope and adds keys to those that count for it.
pub fn allow(text: Option<&str>, scope: &Scope, mode: Mode, keys: &[String]) -> Result<String, EditError> {
    let text = text.unwrap_or(EMPTY);
    let trust = parse(text)?;
    let mut all: Vec<String> = trust
        .scopes()
        .find(|(known, _)| *known == scope)
        .map(|(_, rule)| rule.keys.clone())
        .unwrap_or_default();
    all.extend(
        keys.iter()
            .filter(|key| !all.contains(key))
            .cloned()
            .collect::<Vec<_>>(),
    );
    let name = scope.as_str();
    let mut edited = set(text, &["scopes", name, "mode"], mode.word())?;
    if !keys.is_empty() {
        let list: Vec<_> = all.iter().map(|key| scalar(key)).collect();
        edited = set(
            &edited,
            &["scopes", name, "keys"],
            &format!("[{}]", list.join(", ")),
        )?;
    }
    parse(&edited)?;
    Ok(edited)
}

/// Adds a key.
pub fn add_key(
    text: Option<&str>,
    name: &str,
    key: &PublicKey,
    not_before: Option<Timestamp>,
    not_after: Option<Timestamp>,
) -> Result<String, EditError> {
    let text = text.unwrap_or(EMPTY);
    if !is_key_name(name) {
        return Err(EditError::KeyName { name: shown(name) });
    }
    if let Some(known) = parse(text)?.key(name) {
        if known.key == *key {
            return Ok(text.to_owned());
        }
        let name = name.to_owned();
        return Err(EditError::KeyTaken { name });
    }
    let pem = key.to_pem();
    let block = pem
        .lines()
        .fold("|".to_owned(), |block, line| block + "\n  " + line);
    let mut edited = set(text, &["keys", name, "public_key"], &block)?;
    if let Algorithm::Rsa(padding) = key.algorithm() {
        edited = set(&edited, &["keys", name, "padding"], padding.word())?;
    }
    for (field, time) in [("not_before", not_before), ("not_after", not_after)] {
        if let Some(time) = time {
            edited = set(&edited, &["keys", name, field], &time.to_string())?;
        }
    }
    parse(&edited)?;
    Ok(edited)
}

/// Marks a key as revoked on this device.
pub fn revoke_key(text: Option<&str>, name: &str, reason: &str) -> Result<String, EditError> {
    let text = text.unwrap_or(EMPTY);
    if parse(text)?.key(name).is_none() {
        return Err(EditError::KeyUnknown { name: shown(name) });
    }
    let reason: String = reason.chars().filter(|c| !is_unprintable(*c)).take(200).collect();
    let reason = if reason.is_empty() {
        "by the owner"
    } else {
        &reason
    };
    let edited = set(text, &["keys", name, "revoked"], &scalar(reason))?;
    parse(&edited)?;
    Ok(edited)
}

/// Lets exactly one version of a release run below its floor, in place of any that was let before.
pub fn allow_downgrade(text: Option<&str>, name: &str, version: &Version) -> Result<String, EditError> {
    let text = text.unwrap_or(EMPTY);
    parse(text)?;
    if !is_release_name(name) {
        return Err(EditError::ReleaseName { name: shown(name) });
    }
    let edited = set(text, &["downgrades", name], &scalar(&version.to_string()))?;
    parse(&edited)?;
    Ok(edited)
}

/// Takes that back.
pub fn withdraw_downgrade(text: Option<&str>, name: &str) -> Result<String, EditError> {
    let text = text.unwrap_or(EMPTY);
    if !parse(text)?.downgrades().any(|(known, _)| known == name) {
        return Err(EditError::DowngradeUnknown { name: shown(name) });
    }
    let edited = unset(text, "downgrades", name)?;
    parse(&edited)?;
    Ok(edited)
}

/// What somebody typed, as a message can show it.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !is_unprintable(*c)).take(64).collect()
}

fn parse(text: &str) -> Result<Trust, EditError> {
    Trust::parse("trust.yaml", text).map_err(EditError::Document)
}

/// A value as YAML: plain where nobody could take it for something else.
fn scalar(text: &str) -> String {
    let simple = |c: char| c.is_ascii_alphanumeric() || "-_./@".contains(c);
    // A colon is fine inside a word, and registries have ports.
    let inner = |c: char| simple(c) || c == ':';
    if text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(simple)
        && text.chars().all(inner)
    {
        return text.to_owned();
    }
    serde_json::Value::from(text).to_string()
}

/// Sets the value at a path of keys. A value of several lines has its lines after the first indented relative to its key.
fn set(text: &str, path: &[&str], value: &str) -> Result<String, EditError> {
    let mut report = Report::new("trust.yaml", text);
    let root = yaml::read(text, &mut report);
    let (None, Some(root)) = (report.finish(), root) else {
        return Err(shape(path));
    };
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut node = root;
    for (depth, name) in path.iter().enumerate() {
        let Kind::Map { flow: false, entries } = node.kind else {
            return Err(shape(&path[..depth]));
        };
        let indent = entries.first().map_or(0, |(key, _)| key.span.column - 1);
        let is_last = depth + 1 == path.len();
        let Some(at) = entries.iter().position(|(key, _)| key.text == *name) else {
            let (last, _) = entries.last().ok_or_else(|| shape(&path[..depth]))?;
            let end = end_of(&lines, last);
            let added = nested(&path[depth..], value, indent);
            lines.splice(end..end, added);
            return Ok(joined(&lines));
        };
        let (key, child) = &entries[at];
        let start = key.span.line - 1;
        let end = end_of(&lines, key);
        if is_last {
            lines.splice(start..end, nested(&[name], value, indent));
            return Ok(joined(&lines));
        }
        if matches!(child.kind, Kind::Map { flow: false, .. }) {
            node = child.clone();
            continue;
        }
        // `name:` with nothing, `name: {}` and `name: {a: b}` become a block with the new value in it.
        let mut block = vec![format!("{}{}:", " ".repeat(indent), scalar(name))];
        for (key, line) in flat(child, &path[..=depth])? {
            if key != path[depth + 1] {
                block.push(format!("{}{}: {line}", " ".repeat(indent + 2), scalar(&key)));
            } else if depth + 2 < path.len() {
                return Err(shape(&path[..depth + 2]));
            }
        }
        block.extend(nested(&path[depth + 1..], value, indent + 2));
        lines.splice(start..end, block);
        return Ok(joined(&lines));
    }
    Err(shape(path))
}

/// Takes an entry out of a mapping of the document, and the mapping where it was the last.
fn unset(text: &str, field: &str, name: &str) -> Result<String, EditError> {
    let mut report = Report::new("trust.yaml", text);
    let root = yaml::read(text, &mut report);
    let (None, Some(root)) = (report.finish(), root) else {
        return Err(shape(&[field]));
    };
    let Kind::Map { flow: false, entries } = root.kind else {
        return Err(shape(&[]));
    };
    let Some((above, node)) = entries.iter().find(|(key, _)| key.text == field) else {
        return Ok(text.to_owned());
    };
    let Kind::Map { flow, entries } = &node.kind else {
        return Err(shape(&[field]));
    };
    let Some((key, _)) = entries.iter().find(|(key, _)| key.text == name) else {
        return Ok(text.to_owned());
    };
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let (gone, left) = match (entries.len(), flow) {
        (1, _) => (above, Vec::new()),
        (_, false) => (key, Vec::new()),
        (_, true) => {
            let rest = flat(node, &[field])?.into_iter().filter(|(key, _)| key != name);
            let rest: Vec<_> = rest
                .map(|(key, line)| format!("{}: {line}", scalar(&key)))
                .collect();
            (above, vec![format!("{field}: {{{}}}", rest.join(", "))])
        }
    };
    let end = end_of(&lines, gone);
    lines.splice(gone.span.line - 1..end, left);
    Ok(joined(&lines))
}

fn shape(path: &[&str]) -> EditError {
    EditError::Shape {
        field: path.join(" "),
    }
}

fn joined(lines: &[String]) -> String {
    lines.join("\n") + "\n"
}

/// The line after an entry's last: what is indented deeper belongs to it, comments and blank lines after that do not.
fn end_of(lines: &[String], key: &Key) -> usize {
    let deeper = |line: &str| {
        let text = line.trim_start();
        line.len() - text.len() >= key.span.column && !text.is_empty() && !text.starts_with('#')
    };
    let blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    let mut end = key.span.line;
    for (at, line) in lines.iter().enumerate().skip(key.span.line) {
        if deeper(line) {
            end = at + 1;
        } else if !blank(line) {
            break;
        }
    }
    end
}

fn nested(path: &[&str], value: &str, indent: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for (depth, name) in path.iter().enumerate() {
        lines.push(format!("{}{}:", " ".repeat(indent + 2 * depth), scalar(name)));
    }
    let pad = " ".repeat(indent + 2 * (path.len() - 1));
    let mut rest = value.lines();
    if let (Some(last), Some(first)) = (lines.last_mut(), rest.next()) {
        last.push(' ');
        last.push_str(first);
    }
    lines.extend(rest.map(|line| format!("{pad}{line}")));
    lines
}

/// The entries of a mapping in braces, each value on one line.
fn flat(node: &Node, path: &[&str]) -> Result<Vec<(String, String)>, EditError> {
    let entries = match &node.kind {
        Kind::Map { entries, .. } => entries,
        Kind::Scalar(text) if text.is_empty() => return Ok(Vec::new()),
        _ => return Err(shape(path)),
    };
    Ok(entries
        .iter()
        .map(|(key, node)| (key.text.clone(), one_line(node)))
        .collect())
}

fn one_line(node: &Node) -> String {
    match &node.kind {
        Kind::Scalar(text) => scalar(text),
        Kind::List(list) => format!("[{}]", list.iter().map(one_line).collect::<Vec<_>>().join(", ")),
        Kind::Map { entries, .. } => {
            let pairs = entries.iter();
            let pairs = pairs.map(|(key, node)| format!("{}: {}", scalar(&key.text), one_line(node)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::public::Padding;

    const KEY: &str = include_str!("../tests/vectors/p256.pub");
    const OTHER: &str = include_str!("../tests/vectors/ed.pub");

    fn key(pem: &str) -> PublicKey {
        PublicKey::from_pem(pem, Padding::Pss).expect("a vector")
    }

    fn scope(text: &str) -> Scope {
        Scope::parse(text).expect(text)
    }

    #[test]
    fn a_first_file_grows_from_nothing() {
        let text = allow(None, &scope("docker.io/library"), Mode::Audit, &[]).expect("allowed");
        assert!(
            text.ends_with("version: 1\nscopes:\n  docker.io/library:\n    mode: audit\n"),
            "{text}"
        );
        let text = add_key(Some(&text), "acme", &key(KEY), None, Some(Timestamp::MAX)).expect("added");
        let text = allow(
            Some(&text),
            &scope("ghcr.io/acme"),
            Mode::Require,
            &["acme".into()],
        )
        .expect("allowed");
        let text = allow(Some(&text), &scope("[::1]:5000/x"), Mode::Reject, &[]).expect("allowed");
        let text = revoke_key(Some(&text), "acme", "lost: \"the laptop\"").expect("revoked");
        let trust = parse(&text).expect("own text");
        assert_eq!(trust.scopes().count(), 3);
        let acme = trust.key("acme").expect("added");
        assert_eq!(acme.revoked.as_deref(), Some("lost: \"the laptop\""));
        assert_eq!(acme.key, key(KEY));
    }

    #[test]
    fn comments_and_other_fields_stay() {
        let before = "version: 1\n# keys of the fleet\nscopes:\n  # the base images\n  docker.io/library: {mode: audit, release: false} # soon: require\n\n  # ours\n  ghcr.io/acme:\n    release: true\n    mode: reject # for now\n    # who signs\n\n# the end\ndefault: reject\n";
        let text = add_key(Some(before), "a", &key(KEY), None, None).expect("added");
        let text = allow(Some(&text), &scope("ghcr.io/acme"), Mode::Audit, &["a".into()]).expect("allowed");
        let text = allow(Some(&text), &scope("docker.io/library"), Mode::Reject, &[]).expect("allowed");
        for kept in [
            "# keys of the fleet",
            "# the base images",
            "# ours",
            "# who signs",
            "# the end",
            "    release: true",
        ] {
            assert!(text.contains(kept), "{kept} is gone:\n{text}");
        }
        let trust = parse(&text).expect("own text");
        let modes: Vec<_> = trust
            .scopes()
            .map(|(_, rule)| (rule.mode, rule.release))
            .collect();
        assert_eq!(modes, [(Mode::Reject, false), (Mode::Audit, true)]);
    }

    #[test]
    fn a_downgrade_is_permitted_by_the_version_and_withdrawn() {
        let version = |text: &str| Version::parse(text).expect(text);
        let text = allow_downgrade(None, "ghcr.io/acme/app", &version("1.3")).expect("allowed");
        let text = allow_downgrade(Some(&text), "other thing", &version("2")).expect("allowed");
        let text = allow_downgrade(Some(&text), "ghcr.io/acme/app", &version("1.2.0")).expect("another");
        let told = |text: &str| -> Vec<String> {
            let trust = parse(text).expect("own text");
            let told = trust.downgrades();
            told.map(|(name, version)| format!("{name} {version}")).collect()
        };
        assert_eq!(told(&text), ["ghcr.io/acme/app 1.2.0", "other thing 2"]);
        let less = withdraw_downgrade(Some(&text), "ghcr.io/acme/app").expect("withdrawn");
        assert_eq!(told(&less), ["other thing 2"]);
        let none = withdraw_downgrade(Some(&less), "other thing").expect("withdrawn");
        assert_eq!(none, EMPTY, "nothing is left of it");
        // Written by a person in another way, with what stands around it.
        let flow = "version: 1\n# for the fair\ndowngrades: {a: 1, b: 2} # soon\n# below\ndefault: audit\n";
        let less = withdraw_downgrade(Some(flow), "a").expect("withdrawn");
        assert_eq!(told(&less), ["b 2"]);
        assert!(
            less.contains("# for the fair") && less.contains("# below"),
            "{less}"
        );
        let block = "version: 1\ndowngrades:\n  # was broken\n  a: 1\n  b: 2\nscopes: {}\n";
        let less = withdraw_downgrade(Some(block), "b").expect("withdrawn");
        assert_eq!(
            less,
            "version: 1\ndowngrades:\n  # was broken\n  a: 1\nscopes: {}\n"
        );
        for (name, text) in [("a", None), ("c", Some(block))] {
            assert!(matches!(
                withdraw_downgrade(text, name),
                Err(EditError::DowngradeUnknown { .. })
            ));
        }
        for name in ["", "a\nb", &"x".repeat(300)] {
            assert!(matches!(
                allow_downgrade(None, name, &version("1")),
                Err(EditError::ReleaseName { .. })
            ));
        }
        assert!(allow_downgrade(Some("{version: 1}\n"), "a", &version("1")).is_err());
    }

    #[test]
    fn edits_that_cannot_be_made_say_so() {
        let flow = "{version: 1}\n";
        assert!(matches!(
            allow(Some(flow), &scope("a.b"), Mode::Audit, &[]),
            Err(EditError::Shape { .. })
        ));
        assert!(matches!(
            allow(Some("version: 2\n"), &scope("a.b"), Mode::Audit, &[]),
            Err(EditError::Document(_))
        ));
        assert!(
            allow(None, &scope("a.b"), Mode::Require, &[]).is_err(),
            "nobody could sign"
        );
        assert!(allow(None, &scope("a.b"), Mode::Require, &["nobody".into()]).is_err());
        let text = add_key(None, "a", &key(KEY), None, None).expect("added");
        assert_eq!(
            add_key(Some(&text), "a", &key(KEY), None, None).expect("the same"),
            text
        );
        assert!(matches!(
            add_key(Some(&text), "a", &key(OTHER), None, None),
            Err(EditError::KeyTaken { .. })
        ));
        assert!(add_key(Some(&text), "a b", &key(OTHER), None, None).is_err());
        assert!(revoke_key(Some(&text), "b", "").is_err());
    }
}
