//! Holds what people promise in DESIGN and STYLE and would forget: arrows between crates, module headers, sizes, the place of unsafe code,
//! banned words in tests, licences, and the shim's closed list of dependencies.
//!
//! Reads the tree and `cargo metadata`; knows nothing of what the code does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Who may depend on whom. An arrow that is not here needs a paragraph in runtime/ARCHITECTURE.md first.
const ARROWS: [(&str, &[&str]); 14] = [
    ("kakoi-policy", &[]),
    ("kakoi-sys", &[]),
    ("kakoi-api", &[]),
    ("kakoi-confine", &["kakoi-policy", "kakoi-sys"]),
    ("kakoi-trust", &[]),
    ("kakoi-archive", &["kakoi-sys"]),
    ("kakoi-image", &["kakoi-archive", "kakoi-sys", "kakoi-trust"]),
    ("kakoi-net", &["kakoi-sys"]),
    ("kakoi-host", &["kakoi-policy", "kakoi-sys"]),
    (
        "kakoi-container",
        &["kakoi-archive", "kakoi-confine", "kakoi-policy", "kakoi-sys"],
    ),
    (
        "kakoid",
        &[
            "kakoi-api",
            "kakoi-confine",
            "kakoi-container",
            "kakoi-host",
            "kakoi-image",
            "kakoi-net",
            "kakoi-policy",
            "kakoi-sys",
            "kakoi-trust",
        ],
    ),
    (
        "kakoi-shim",
        &["kakoi-confine", "kakoi-container", "kakoi-policy", "kakoi-sys"],
    ),
    (
        "kakoi",
        &[
            "kakoi-api",
            "kakoi-archive",
            "kakoi-policy",
            "kakoi-sys",
            "kakoi-trust",
        ],
    ),
    ("kakoi-integration", &["kakoi-api", "kakoi-policy"]),
];

/// Heavy or dangerous crates and the only members that may name them.
const OWNED: [(&str, &[&str]); 8] = [
    ("libcontainer", &["kakoi-container"]),
    ("redb", &["kakoid"]),
    ("axum", &["kakoid"]),
    ("tokio", &["kakoid", "kakoi", "kakoi-net"]),
    ("landlock", &["kakoi-confine"]),
    ("caps", &["kakoi-confine", "kakoi-container"]),
    ("seccompiler", &["kakoi-policy"]),
    ("tar", &["kakoi-archive", "kakoi-image", "kakoi-integration"]),
];

/// Where unsafe code may stand, and why: the crate that quarantines it, and the attacker, whose trade is calling the kernel in ways that no
/// safe wrapper offers.
const UNSAFE_ROOMS: [&str; 2] = ["runtime/sys/", "integration/src/bin/attacker/"];

/// What may be linked into a device's image.
const LICENCES: [&str; 14] = [
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that name no licence but carry its text, which somebody read.
const LICENCES_READ: [(&str, &str); 1] = [("rust-criu", "MIT")];

/// Manifests that say for themselves which dependencies they share.
const WORKSPACES: [&str; 2] = ["Cargo.toml", "integration/fuzz/Cargo.toml"];

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("integration/ lies in the workspace")
        .to_path_buf()
}

/// A source file: its path from the root, and its text before and from the tests on.
struct Source {
    path: String,
    text: String,
    tests_from: usize,
}

impl Source {
    /// The lines that are shipped; everything from the module under `#[cfg(test)]` on, and every file of a `tests/` folder, is test code.
    fn shipped(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().take(self.tests_from)
    }

    fn tests(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().skip(self.tests_from)
    }
}

fn tracked_files() -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("reading a folder of the tree") {
            let entry = entry.expect("reading a folder of the tree");
            let name = entry
                .file_name()
                .into_string()
                .expect("names in the tree are UTF-8");
            let kind = entry.file_type().expect("an entry has a type");
            // What fuzzing finds is kept in the tree's folder and is no part of it.
            let is_made = ["target", ".git", "corpus", "artifacts"].contains(&name.as_str());
            if kind.is_dir() && !is_made {
                folders.push(entry.path());
            } else if kind.is_file() && name != ".git" {
                let path = entry.path();
                found.push(
                    path.strip_prefix(root())
                        .expect("below the root")
                        .display()
                        .to_string(),
                );
            }
        }
    }
    found.sort();
    found
}

/// The line from which on a file is tests: a module of them, not a method or an import that only tests need.
fn tests_from(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_module = |at: usize| {
        let item = lines[at..].iter().find(|line| !line.starts_with("#["));
        item.is_some_and(|line| {
            line.trim_start_matches("pub")
                .trim_start_matches("(crate)")
                .trim_start()
                .starts_with("mod ")
        })
    };
    (0..lines.len())
        .find(|at| lines[*at] == "#[cfg(test)]" && is_module(*at))
        .unwrap_or(usize::MAX)
}

fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    for path in tracked_files().into_iter().filter(|path| path.ends_with(".rs")) {
        let text = std::fs::read_to_string(root().join(&path)).expect("a source file is UTF-8");
        let is_test_file = path.contains("/tests/") || path.ends_with("/tests.rs");
        let tests_from = if is_test_file { 0 } else { tests_from(&text) };
        sources.push(Source {
            path,
            text,
            tests_from,
        });
    }
    assert!(
        sources.len() > 10,
        "the tree was not found: {} sources",
        sources.len()
    );
    sources
}

fn metadata(dependencies: bool) -> Value {
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    command
        .current_dir(root())
        .args(["metadata", "--format-version", "1", "--locked"]);
    if !dependencies {
        command.arg("--no-deps");
    }
    let output = command.output().expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

fn packages(metadata: &Value) -> &Vec<Value> {
    metadata["packages"].as_array().expect("metadata lists packages")
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// Fails with every finding at once: fixing them one run at a time is no fun.
fn check(what: &str, findings: Vec<String>) {
    assert!(findings.is_empty(), "{what}:\n  {}", findings.join("\n  "));
}

#[test]
fn arrows_only_point_down() {
    let metadata = metadata(false);
    let allowed: BTreeMap<_, _> = ARROWS.into_iter().collect();
    let mut findings = Vec::new();
    for package in packages(&metadata) {
        let name = text(package, "name");
        let Some(targets) = allowed.get(name) else {
            findings.push(format!(
                "{name}: a new crate needs a paragraph in ARCHITECTURE.md and a row here"
            ));
            continue;
        };
        for dependency in package["dependencies"]
            .as_array()
            .expect("a package lists dependencies")
        {
            let target = text(dependency, "name");
            if allowed.contains_key(target) && !targets.contains(&target) {
                findings.push(format!("{name} -> {target}"));
            }
            if let Some((_, owners)) = OWNED.iter().find(|(owned, _)| *owned == target) {
                let test_only = text(dependency, "kind") == "dev";
                if !owners.contains(&name) && !test_only {
                    findings.push(format!(
                        "{name} -> {target}, which belongs to {}",
                        owners.join(", ")
                    ));
                }
            }
        }
    }
    check("forbidden dependencies", findings);
}

#[test]
fn dependencies_say_what_we_would_write_instead() {
    let mut findings = Vec::new();
    for path in WORKSPACES {
        let manifest = std::fs::read_to_string(root().join(path)).expect("a workspace has a manifest");
        let section = manifest
            .split("[workspace.dependencies]")
            .nth(1)
            .expect("shared dependencies");
        let section = section.split("\n[").next().expect("a section ends");
        for line in section
            .lines()
            .filter(|line| line.contains(" = ") && !line.contains("path = "))
        {
            if line.rsplit_once(" # ").is_none_or(|(_, reason)| reason.len() < 3) {
                findings.push(format!("{path}: {line}"));
            }
        }
    }
    check(
        "dependencies without a word on what we would write instead",
        findings,
    );

    let mut strays = Vec::new();
    for path in tracked_files()
        .iter()
        .filter(|path| path.ends_with("/Cargo.toml"))
    {
        let manifest = std::fs::read_to_string(root().join(path)).expect("a manifest is UTF-8");
        let mut inside = false;
        for line in manifest.lines() {
            if line.starts_with('[') {
                inside = line.contains("dependencies") && line != "[workspace.dependencies]";
            } else if inside && line.contains('=') && !line.starts_with('#') && !line.contains("workspace") {
                strays.push(format!("{path}: {line}"));
            }
        }
    }
    check("dependencies outside [workspace.dependencies]", strays);
}

#[test]
fn modules_say_what_they_own() {
    let mut findings = Vec::new();
    for source in sources() {
        if !source.text.starts_with("//! ") {
            findings.push(source.path);
        }
    }
    check("modules without a //! header", findings);
}

#[test]
fn files_and_functions_fit_a_reader() {
    let mut findings = Vec::new();
    for source in sources() {
        let lines: Vec<_> = source.shipped().map(|(_, line)| line).collect();
        if lines.len() > FILE_LINES_MAX {
            findings.push(format!("{}: {} lines", source.path, lines.len()));
        }
        for (name, from, count) in functions(&lines) {
            if count > FUNCTION_LINES_MAX {
                findings.push(format!(
                    "{}:{}: fn {name} has {count} lines of code",
                    source.path,
                    from + 1
                ));
            }
        }
    }
    check("too long", findings);
}

/// Functions of formatted source: name, first line, number of lines. rustfmt closes a body with a brace in the column of its `fn`.
fn functions(lines: &[&str]) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (from, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let Some(name) = function_name(line.trim_start()) else {
            continue;
        };
        let close = format!("{}}}", " ".repeat(indent));
        let one_line = line.ends_with('}') || line.ends_with(';');
        if !one_line && let Some(count) = lines[from..].iter().position(|line| *line == close) {
            // What counts is what must be understood at once: comments and blank lines make that easier.
            let code = |line: &&&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
            found.push((
                name.to_owned(),
                from,
                lines[from..=from + count].iter().filter(code).count(),
            ));
        }
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    let qualifiers = ["pub", "const", "async", "unsafe", "extern", "\"C\""];
    let first = words
        .by_ref()
        .find(|word| !qualifiers.contains(word) && !word.starts_with("pub("))?;
    if first != "fn" {
        return None;
    }
    words.next()?.split(['(', '<']).next()
}

#[test]
fn unsafe_code_stays_in_its_room() {
    let mut findings = Vec::new();
    for source in sources() {
        let room = UNSAFE_ROOMS.iter().any(|room| source.path.starts_with(room));
        let is_root = ["/src/lib.rs", "/src/main.rs"]
            .iter()
            .any(|end| source.path.ends_with(end))
            || (source.path.contains("/src/bin/") && source.path.ends_with("/main.rs"));
        if is_root && !room && !source.text.lines().any(|line| line == "#![forbid(unsafe_code)]") {
            findings.push(format!(
                "{}: a crate root without #![forbid(unsafe_code)]",
                source.path
            ));
        }
        let lines: Vec<_> = source.text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if !code.contains("unsafe {") && !code.contains("unsafe fn") && !code.contains("unsafe impl") {
                continue;
            }
            if source.path.ends_with("tests/tidy.rs") {
                continue;
            }
            if !room {
                findings.push(format!("{}:{}: unsafe code", source.path, at + 1));
            }
            let noted = lines[at.saturating_sub(6)..=at]
                .iter()
                .any(|line| line.contains("SAFETY"));
            if room && !noted && !code.contains("unsafe fn") {
                findings.push(format!(
                    "{}:{}: unsafe code without a SAFETY note",
                    source.path,
                    at + 1
                ));
            }
        }
    }
    check("unsafe code", findings);
}

#[test]
fn tests_neither_sleep_nor_hide() {
    let banned = [
        (concat!("#[ig", "nore"), "a test that nobody runs"),
        (
            concat!("thread::sl", "eep"),
            "wait for the pidfd, the event, the byte",
        ),
        (
            concat!("time::sl", "eep"),
            "wait for the pidfd, the event, the byte",
        ),
    ];
    let mut findings = Vec::new();
    for source in sources() {
        let harness = source.path.starts_with("integration/");
        // The one place that polls, for states that the kernel announces to nobody.
        if source.path == "integration/src/wait.rs" {
            continue;
        }
        let lines: Vec<_> = if harness {
            source.text.lines().enumerate().collect()
        } else {
            source.tests().collect()
        };
        for (at, line) in lines {
            for (word, why) in banned {
                if line.contains(word) {
                    findings.push(format!("{}:{}: {word}: {why}", source.path, at + 1));
                }
            }
        }
    }
    check("tests", findings);
}

#[test]
fn nothing_half_done_is_shipped() {
    let banned = [
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
        concat!("FIX", "ME"),
        concat!("TO", "DO"),
        concat!("dbg", "!("),
    ];
    let mut findings = Vec::new();
    for source in sources() {
        for (at, line) in source.text.lines().enumerate() {
            if banned.iter().any(|word| line.contains(word)) {
                findings.push(format!("{}:{}: {}", source.path, at + 1, line.trim()));
            }
        }
    }
    check("half done", findings);
}

/// The tree must build anywhere: no path of one machine, no package index of one network.
#[test]
fn the_tree_names_no_machine_and_no_registry() {
    let banned = [
        concat!("/wo", "rk/"),
        concat!("bash", "_jobs"),
        concat!("crates", ".io"),
        concat!("pypi", ".org"),
        concat!("deb.debian", ".org"),
        concat!("npmjs", ".org"),
    ];
    let mut findings = Vec::new();
    for path in tracked_files()
        .iter()
        .filter(|path| !path.ends_with("Cargo.lock"))
    {
        let Ok(text) = std::fs::read_to_string(root().join(path)) else {
            continue;
        };
        for (at, line) in text.lines().enumerate() {
            if banned.iter().any(|word| line.contains(word)) {
                findings.push(format!("{path}:{}: {}", at + 1, line.trim()));
            }
        }
    }
    check("names of one machine", findings);
}

#[test]
fn licences_fit_a_device() {
    let metadata = metadata(true);
    let mut findings = Vec::new();
    for package in packages(&metadata) {
        let read = LICENCES_READ
            .iter()
            .find(|(name, _)| *name == text(package, "name"));
        let named = package["license"].as_str().or(read.map(|(_, licence)| *licence));
        let licence = named.unwrap_or_default().replace('/', " OR ");
        if !is_allowed(&licence) {
            findings.push(format!(
                "{} {}: {licence:?}",
                text(package, "name"),
                text(package, "version")
            ));
        }
    }
    check("licences", findings);
}

/// Whether one alternative of an SPDX expression is made of allowed licences only. Parentheses around an alternative are all that occurs.
fn is_allowed(expression: &str) -> bool {
    let flat = expression.replace(['(', ')'], "");
    if expression.contains(" AND (") || expression.contains(") AND ") {
        // `A AND (B OR C)`: every part joined by AND must have an allowed alternative.
        return expression
            .split(" AND ")
            .all(|part| is_allowed(part.trim_matches(['(', ')'])));
    }
    flat.split(" OR ").any(|alternative| {
        alternative
            .split(" AND ")
            .all(|licence| LICENCES.contains(&licence.trim()))
    })
}

#[test]
fn licence_expressions_are_understood() {
    for (expression, allowed) in [
        ("MIT OR Apache-2.0", true),
        ("GPL-3.0-only OR MIT", true),
        ("GPL-3.0-only", false),
        ("MIT AND GPL-3.0-or-later", false),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("(MIT OR Apache-2.0) AND AGPL-3.0", false),
        ("LGPL-3.0-only", false),
        ("", false),
    ] {
        assert_eq!(is_allowed(expression), allowed, "{expression}");
    }
}

/// The shim stays resident beside every container and holds privileges: what is linked into it is a decision, not an accident.
#[test]
fn the_shim_links_only_what_is_listed() {
    let listed: BTreeSet<_> = include_str!("../shim-dependencies.txt")
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(str::to_owned)
        .collect();
    let output = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .current_dir(root())
        .args([
            "tree",
            "-p",
            "kakoi-shim",
            "-e",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
            "--locked",
        ])
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let tree = String::from_utf8(output.stdout).expect("names are UTF-8");
    let linked: BTreeSet<_> = tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect();
    let added: Vec<_> = linked.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&linked).collect();
    assert!(
        added.is_empty() && gone.is_empty(),
        "integration/shim-dependencies.txt: new {added:?}, no longer linked {gone:?}; if it is meant, edit the list and say why"
    );
}

#[test]
fn scanning_finds_what_it_should() {
    let lines = [
        "impl A {",
        "    pub(crate) async fn long(",
        "        a: u8,",
        "    ) {",
        "        a",
        "    }",
        "}",
    ];
    assert_eq!(functions(&lines), [("long".to_owned(), 1, 5)]);
    assert_eq!(function_name("pub const fn x<T>() {"), Some("x"));
    assert_eq!(function_name("let fn_like = 1;"), None);
    let method = "impl A {\n    #[cfg(test)]\n    fn only_here() {}\n}\n";
    assert_eq!(tests_from(method), usize::MAX);
    let module = format!("{method}#[cfg(test)]\n#[allow(unused)]\npub(crate) mod tests {{\n}}\n");
    assert_eq!(tests_from(&module), 4);
}
