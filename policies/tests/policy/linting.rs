//! Rules that do nothing are pointed out, each with a place and a proposal; what the profiles and examples say is not.

use std::path::PathBuf;

use kakoi_policy::{Diagnostic, SHIPPED, Severity, ShippedOnly, compose, lint, parse};

fn folder(name: &str) -> Vec<PathBuf> {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), name].iter().collect();
    let entries = std::fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .collect();
    files.sort();
    files
}

fn findings(file: &str, text: &str) -> Vec<Diagnostic> {
    let policy = parse(file, text).unwrap_or_else(|errors| panic!("{errors}"));
    let composed = compose(&policy, &ShippedOnly).unwrap_or_else(|errors| panic!("{errors}"));
    lint(&policy, &composed)
}

#[test]
fn each_document_gets_the_committed_findings() {
    let files = folder("goldens/lints");
    assert!(files.len() >= 8, "{files:?}");
    for path in files {
        let text = std::fs::read_to_string(&path).expect("a document");
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let found = findings(&name, &text);
        assert!(!found.is_empty(), "{name}");
        for finding in &found {
            assert_eq!(finding.severity, Severity::Warning);
            assert!(finding.origin.line > 0 && finding.origin.column > 0, "{finding}");
            assert!(finding.help.is_some(), "{finding}");
        }
        let shown: Vec<_> = found.iter().map(ToString::to_string).collect();
        let shown = format!("{}\n", shown.join("\n\n"));
        let golden = path.with_extension("txt");
        if std::env::var_os("KAKOI_UPDATE_GOLDENS").is_some() {
            std::fs::write(&golden, &shown).expect("written");
        }
        let kept = std::fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(
            kept, shown,
            "{name}: look at the difference after KAKOI_UPDATE_GOLDENS=1"
        );
    }
}

#[test]
fn profiles_and_examples_are_free_of_findings() {
    for profile in &SHIPPED {
        if profile.name == "privileged" {
            continue;
        }
        let found = findings(&profile.file(), profile.text);
        assert!(found.is_empty(), "{}: {found:#?}", profile.name);
    }
    for path in folder("examples") {
        let text = std::fs::read_to_string(&path).expect("an example");
        let found = findings("example.yaml", &text);
        assert!(found.is_empty(), "{}: {found:#?}", path.display());
    }
}

#[test]
fn a_document_answers_for_itself_only() {
    // The parent's own doubtful rule is its own document's to be warned about.
    struct Parent;
    impl kakoi_policy::Resolver for Parent {
        fn resolve(&self, name: &str) -> Option<(String, String)> {
            let text = "kakoi: 1\nextends: [strict]\ncapabilities: [SYS_TIME]\n";
            (name == "parent").then(|| ("parent.yaml".to_owned(), text.to_owned()))
        }
    }
    let text = "kakoi: 1\nextends: [parent]\ncapabilities: [SYS_TIME]\n";
    let policy = parse("child.yaml", text).expect("it is right");
    let composed = compose(&policy, &Parent).expect("it is right");
    let found = lint(&policy, &composed);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(
        found[0].message.contains("granted already (parent.yaml:3:16)"),
        "{found:#?}"
    );
}
