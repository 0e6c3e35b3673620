//! The reference of the language for people, as markdown.
//!
//! Owns the page's form and what a schema has no place for: defaults, units, limits, and the kernel that a field needs. Fields, types and meanings
//! come from the schema, so that the page cannot say something else than editors do. Invariant: a field without a note does not pass the tests.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

use crate::schema::json_schema;
use crate::syscalls::groups::GROUPS;

/// What is said of a field beside its type and meaning: default, limits and units, the kernel since when.
struct Note {
    section: &'static str,
    field: &'static str,
    default: &'static str,
    limits: &'static str,
    kernel: &'static str,
}

macro_rules! notes {
    ($($section:literal { $($field:literal: $default:literal, $limits:literal, $kernel:literal;)* })*) => {
        &[$($(Note { section: $section, field: $field, default: $default, limits: $limits, kernel: $kernel },)*)*]
    };
}

const NOTES: &[Note] = notes! {
    "Policy" {
        "kakoi": "required", "1", "";
        "name": "the file's name", "64 letters, digits, `-`, `_`, `.`", "";
        "extends": "none", "8 policies; 8 deep; 32 documents in all", "";
        "capabilities": "none", "", "";
        "system_calls": "none", "4096 instructions of a filter", "3.17";
        "files": "none", "", "5.13";
        "network": "no network", "", "";
        "scope": "confined", "", "6.12";
        "devices": "none", "4 wildcards in a path", "";
        "limits": "unlimited", "", "";
        "process": "", "", "";
        "mounts": "none", "", "";
        "user_namespace": "`host`", "`auto`: 65536 ids", "5.19 for overlayfs";
    }
    "CapabilitySets" {
        "allow": "none", "names without `CAP_`", "";
        "deny": "none", "names without `CAP_`", "";
        "ambient": "none", "only what is allowed", "4.3";
    }
    "CallRules" {
        "allow": "none", "", "3.17";
        "deny": "none", "", "3.17";
        "enforce": "`required`", "", "";
    }
    "FullCallRule" {
        "name": "", "", "";
        "names": "", "", "";
        "group": "", "see the list below", "";
        "when": "always", "12 conditions, all of which must hold", "";
        "errno": "`EPERM`", "a name or 1 to 4095", "";
        "log": "`true`", "", "4.14";
        "if_capability": "always", "", "";
        "unless_capability": "never", "", "";
        "enforce": "`required`", "", "";
    }
    "Condition" {
        "argument": "required", "0 to 5", "";
        "is": "`eq`", "", "";
        "value": "required", "64 bits", "";
        "mask": "with `masked_eq`: required", "64 bits", "";
        "width": "64 to allow, 32 to deny", "bits", "";
    }
    "FileRules" {
        "read": "none", "absolute paths", "5.13";
        "write": "none", "absolute paths", "5.13; whole since 6.2";
        "execute": "none", "absolute paths", "5.13";
        "landlock_abi": "what the rules need", "0 to 6", "";
        "enforce": "`required`", "", "";
    }
    "FullPathRule" {
        "path": "required", "4096 characters", "";
        "optional": "`false`", "", "";
        "enforce": "`required`", "", "";
    }
    "Network" {
        "mode": "`none`", "", "";
        "bind": "no port", "1 to 65535; 1024 entries", "6.7";
        "connect": "no port", "1 to 65535; 1024 entries", "6.7";
        "udp": "`false`", "", "";
        "icmp": "`false`", "", "";
        "egress": "whatever its networks reach", "256 destinations", "";
        "peers": "with `egress` none, else every one", "64 names", "";
        "enforce": "`required`", "", "";
    }
    "FullPort" {
        "port": "required", "1 to 65535, or a range", "";
        "enforce": "`required`", "", "";
    }
    "FullDestination" {
        "to": "required", "an address, a network or a name", "";
        "protocol": "with `ports` `tcp`, else every one", "", "";
        "ports": "every one", "1 to 65535; 64 entries", "";
    }
    "Scope" {
        "signals": "`confined`", "", "6.12";
        "abstract_sockets": "`confined`", "", "6.12";
        "enforce": "`required`", "", "";
    }
    "FullDevice" {
        "path": "", "4 wildcards", "";
        "type": "", "", "";
        "major": "every one", "32 bits", "";
        "minor": "every one", "32 bits", "";
        "access": "`rw`", "each letter once", "";
    }
    "Limits" {
        "memory": "unlimited", "bytes; 6 MiB at least", "";
        "swap": "unlimited", "bytes; needs `memory`", "";
        "cpu": "unlimited", "processors; thousandths count", "";
        "pids": "unlimited", "a number", "4.3";
        "files": "the daemon's", "a number", "";
        "io": "unlimited", "", "";
        "tmpfs": "half of the machine's memory", "bytes", "";
    }
    "Io" {
        "read": "unlimited", "bytes per second", "";
        "write": "unlimited", "bytes per second", "";
    }
    "Process" {
        "user": "the image's", "32 bits, or names of the image", "";
        "no_new_privileges": "`true`", "", "3.5";
        "read_only_root": "`false`", "", "";
        "umask": "`022`", "octal, 0 to 777", "";
        "masked_paths": "`standard`", "absolute paths", "";
        "read_only_paths": "`standard`", "absolute paths", "";
    }
    "Mount" {
        "bind": "", "an absolute path; bounded by the ceiling", "";
        "volume": "", "a volume's name", "";
        "tmpfs": "", "bytes", "";
        "target": "required", "an absolute path, not `/`", "";
        "read_only": "`false`", "", "";
    }
};

/// Writes the reference.
pub fn reference() -> String {
    let schema = json_schema();
    let mut page = String::from(
        "# What a policy may say\n\n\
         Version 1 of the language, generated by `kakoi policy schema --format markdown`. A policy is YAML; what it does not say, an app cannot do. Sizes are \
         written `64MiB` or `64M`, processors `0.5` or `500m`, and `unlimited` is a word of its own. A document has at most 256 KiB, 16 levels and 4096 entries; \
         YAML's anchors, merge keys and repeated keys are refused. *Kernel* is the first Linux that enforces a field; where it is older, a rule that is `required` stops \
         the start and one that is `best_effort` stands in the receipt as a loss.\n",
    );
    section(&mut page, &schema, "Policy", &schema);
    for name in sections(&schema) {
        section(&mut page, &schema, &name, &schema["$defs"][&name]);
    }
    page.push_str("\n## System call groups\n\n| group | for |\n| --- | --- |\n");
    for group in GROUPS {
        writeln!(page, "| `{}` | {} |", group.name, group.about).expect("text takes everything");
    }
    page
}

/// The definitions that have fields, in the order in which the page comes to them.
fn sections(schema: &Value) -> Vec<String> {
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    let mut open: Vec<String> = referred(schema.get("properties").unwrap_or(&Value::Null));
    open.reverse();
    while let Some(name) = open.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let definition = &schema["$defs"][&name];
        if definition.get("properties").is_some() {
            found.push(name);
        }
        let mut further = referred(definition);
        further.reverse();
        open.extend(further);
    }
    found
}

/// The definitions that a part of the schema refers to.
fn referred(node: &Value) -> Vec<String> {
    match node {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, value)| match value.as_str() {
                Some(path) if key == "$ref" => vec![last(path)],
                _ => referred(value),
            })
            .collect(),
        Value::Array(list) => list.iter().flat_map(referred).collect(),
        _ => Vec::new(),
    }
}

fn last(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

fn section(page: &mut String, schema: &Value, name: &str, definition: &Value) {
    let mut line = |text: String| {
        page.push_str(&text);
        page.push('\n');
    };
    line(format!("\n## {name}\n"));
    if let Some(about) = definition["description"].as_str() {
        line(format!("{about}\n"));
    }
    line("| field | type | default | units and limits | kernel | meaning |".to_owned());
    line("| --- | --- | --- | --- | --- | --- |".to_owned());
    for (field, node) in definition["properties"].as_object().into_iter().flatten() {
        let note = NOTES
            .iter()
            .find(|note| note.section == name && note.field == field);
        let (default, limits, kernel) =
            note.map_or(("", "", ""), |note| (note.default, note.limits, note.kernel));
        let about = node["description"].as_str().unwrap_or_default();
        let kind = kind(schema, node);
        let row = [
            &format!("`{field}`"),
            kind.as_str(),
            default,
            limits,
            kernel,
            about,
        ]
        .map(cell);
        line(format!("| {} |", row.join(" | ")));
    }
}

/// Text that does not end its cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// How many words a type may be, to be written out.
const WORDS_MAX: usize = 8;

/// A type in words.
fn kind(schema: &Value, node: &Value) -> String {
    if let Some(path) = node["$ref"].as_str() {
        let name = last(path);
        let definition = &schema["$defs"][&name];
        if definition.get("properties").is_some() {
            return format!("[{name}](#{})", name.to_lowercase());
        }
        return match definition["enum"].as_array() {
            Some(words) if words.len() > WORDS_MAX => spaced(&name),
            _ if name == "Quantity" => "quantity".to_owned(),
            // Words are examples where other text is taken too.
            _ if is_open(definition) => spaced(&name),
            _ => kind(schema, definition),
        };
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(kinds) = node[key].as_array() {
            let mut words: Vec<String> = Vec::new();
            for word in kinds.iter().map(|node| kind(schema, node)) {
                if !word.is_empty() && !words.contains(&word) {
                    words.push(word);
                }
            }
            return words.join(" or ");
        }
    }
    if let Some(words) = node["enum"].as_array() {
        let words: Vec<String> = words.iter().map(shown).collect();
        return words.join(", ");
    }
    if let Some(value) = node.get("const") {
        return shown(value);
    }
    let types = match &node["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        Value::String(one) => vec![one.as_str()],
        _ => Vec::new(),
    };
    let words = types
        .into_iter()
        .filter(|word| *word != "null")
        .map(|word| match word {
            "array" => format!("list of {}", kind(schema, &node["items"])),
            "string" => "text".to_owned(),
            "integer" | "number" => "number".to_owned(),
            "boolean" => "`true`, `false`".to_owned(),
            other => other.to_owned(),
        });
    words.collect::<Vec<_>>().join(" or ")
}

fn is_open(definition: &Value) -> bool {
    let kinds = definition["anyOf"].as_array();
    kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind.get("enum").is_some()) && kinds.len() == 2)
}

fn shown(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| format!("`{value}`"), |text| format!("`{text}`"))
}

/// `SystemCall` as `system call`.
fn spaced(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !text.is_empty() {
            text.push(' ');
        }
        text.extend(c.to_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_its_note_and_every_note_its_field() {
        let schema = json_schema();
        let mut fields = BTreeSet::new();
        let mut add = |section: &str, definition: &Value| {
            for field in definition["properties"].as_object().into_iter().flatten() {
                fields.insert(format!("{section}.{}", field.0));
            }
        };
        add("Policy", &schema);
        for name in sections(&schema) {
            add(&name, &schema["$defs"][&name]);
        }
        let notes: BTreeSet<String> = NOTES
            .iter()
            .map(|note| format!("{}.{}", note.section, note.field))
            .collect();
        assert_eq!(notes.len(), NOTES.len(), "a note twice");
        let differ: Vec<_> = fields.symmetric_difference(&notes).collect();
        assert!(differ.is_empty(), "{differ:?}");
        assert!(fields.len() > 60, "{}", fields.len());
    }

    #[test]
    fn the_limits_of_the_page_are_the_parsers() {
        use crate::yaml::{DEPTH_MAX, DOCUMENT_BYTES_MAX, ENTRIES_MAX};
        assert_eq!(
            (DOCUMENT_BYTES_MAX >> 10, DEPTH_MAX, ENTRIES_MAX),
            (256, 16, 4096)
        );
        let page = reference();
        assert!(page.contains("256 KiB, 16 levels and 4096 entries"));
        // No cell is left open by what stands in it, and no type is unknown.
        for row in page
            .lines()
            .filter(|line| line.starts_with("| `") && line.matches(" | ").count() > 1)
        {
            assert_eq!(row.replace("\\|", "").matches('|').count(), 7, "{row}");
            let kind = row.split(" | ").nth(1).unwrap_or_default();
            assert!(!kind.trim().is_empty(), "no type: {row}");
        }
    }
}
