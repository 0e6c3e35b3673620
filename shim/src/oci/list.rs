//! `state`, `ps` and `list`.

use serde_json::{Value, json};

use super::Failed;
use super::args::{List, Ps};
use super::state::{Record, Root, Status};

/// The state document of runtime.md with the fields that engines expect beside it.
fn document(record: &Record) -> Value {
    let status = record.status();
    let pid = match status {
        Status::Stopped => 0,
        _ => record.process.map_or(0, |process| process.pid),
    };
    json!({
        "ociVersion": record.oci_version,
        "id": record.id,
        "pid": pid,
        "status": status.word(),
        "bundle": record.bundle,
        "rootfs": record.rootfs,
        "created": record.created,
        "owner": record.owner,
        "annotations": record.annotations,
    })
}

pub(super) fn state(root: &Root, id: &str) -> Result<(), Failed> {
    let record = root.load_made(id)?;
    print(&pretty(&document(&record))?)
}

pub(super) fn pretty(value: &Value) -> Result<String, Failed> {
    serde_json::to_string_pretty(value).map_err(|error| Failed::of("encode", &error))
}

/// Prints a line; a reader that went away is no failure of ours.
pub(super) fn print(text: &str) -> Result<(), Failed> {
    use std::io::Write;
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failed::of("print", &error)),
        _ => Ok(()),
    }
}

pub(super) fn ps(root: &Root, flags: &Ps) -> Result<(), Failed> {
    let record = root.load(&flags.id)?;
    let pids = record
        .cgroup()?
        .pids()
        .map_err(|error| Failed::of("list the processes", &error))?;
    let pids: Vec<i32> = pids.into_iter().collect();
    match flags.format.as_str() {
        "json" => print(&pretty(&json!(pids))?),
        "table" => {
            print("PID")?;
            pids.iter().try_for_each(|pid| print(&pid.to_string()))
        }
        format => Err(Failed::new(format!(
            "unknown format {format:?}: use table or json"
        ))),
    }
}

pub(super) fn list(root: &Root, flags: &List) -> Result<(), Failed> {
    let ids = root.ids()?;
    if flags.quiet {
        return ids.iter().try_for_each(|id| print(id));
    }
    // One that is deleted meanwhile is not there.
    let records: Vec<Record> = ids.iter().filter_map(|id| root.load(id).ok()).collect();
    match flags.format.as_str() {
        "json" => print(&pretty(&Value::Array(records.iter().map(document).collect()))?),
        "table" => {
            let width = records
                .iter()
                .map(|record| record.id.len())
                .max()
                .unwrap_or(0)
                .max(4);
            print(&format!(
                "{:width$} {:7} {:8} {:39} {:30} OWNER",
                "NAME", "PID", "STATUS", "BUNDLE PATH", "CREATED"
            ))?;
            records.iter().try_for_each(|record| {
                let (document, bundle) = (document(record), record.bundle.display().to_string());
                let (pid, status) = (
                    document["pid"].as_i64().unwrap_or(0),
                    document["status"].as_str().unwrap_or(""),
                );
                print(&format!(
                    "{:width$} {pid:<7} {status:8} {bundle:39} {:30} {}",
                    record.id, record.created, record.owner
                ))
            })
        }
        format => Err(Failed::new(format!(
            "unknown format {format:?}: use table or json"
        ))),
    }
}

/// Containers whose name contains the pattern: anchors and `.*` are understood, which is what is used in practice.
pub(super) fn matching(root: &Root, pattern: &str) -> Result<Vec<String>, Failed> {
    Ok(root
        .ids()?
        .into_iter()
        .filter(|id| is_match(pattern, id))
        .collect())
}

fn is_match(pattern: &str, text: &str) -> bool {
    let (anchored, pattern) = pattern
        .strip_prefix('^')
        .map_or((false, pattern), |rest| (true, rest));
    let chars: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let starts = if anchored { 0..=0 } else { 0..=text.len() };
    starts
        .into_iter()
        .any(|start| matches_here(&chars, &text[start..]))
}

fn matches_here(pattern: &[char], text: &[char]) -> bool {
    let one = |p: char, t: &[char]| t.first().is_some_and(|c| p == '.' || p == *c);
    match pattern {
        [] => true,
        ['$'] => text.is_empty(),
        [p, '*', rest @ ..] => (0..=text.len())
            .take_while(|length| text[..*length].iter().all(|c| *p == '.' || p == c))
            .any(|length| matches_here(rest, &text[length..])),
        ['\\', p, rest @ ..] => text.first() == Some(p) && matches_here(rest, &text[1..]),
        [p, rest @ ..] => one(*p, text) && matches_here(rest, &text[1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::is_match;

    #[test]
    fn patterns_are_matched() {
        for (pattern, text) in [
            ("test-.*", "test-1"),
            ("^te", "test"),
            ("st$", "test"),
            ("a.c", "xabcx"),
            ("x*y", "y"),
        ] {
            assert!(is_match(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("^st", "test"), ("te$", "test"), ("a.c", "ac"), (r"a\.c", "abc")] {
            assert!(!is_match(pattern, text), "{pattern} {text}");
        }
    }
}
