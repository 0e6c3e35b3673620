//! What the code generates, held against files: help of every command, man pages, completions.
//!
//! `KAKOI_BLESS=1 cargo test -p kakoi --test goldens` writes the files anew; the change then shows in review.

mod fake;

use std::path::{Path, PathBuf};

use fake::{kakoi, ran};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

fn check(name: &str, found: &str) {
    let path = folder().join(name);
    if std::env::var_os("KAKOI_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(&path, found).expect("written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, expected, "{} differs: look, then bless", path.display());
}

/// The words of every command, found by walking the help.
fn commands() -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    let mut next = 0;
    while next < all.len() {
        let words: Vec<String> = all[next].clone();
        let page = help(&words);
        let mut is_list = false;
        for line in page.lines() {
            match line {
                "Commands:" => is_list = true,
                "" => is_list = false,
                line if is_list && line.starts_with("  ") && !line.starts_with("   ") => {
                    let word = line.split_whitespace().next().expect("a word");
                    if word != "help" {
                        all.push(words.iter().cloned().chain([word.to_owned()]).collect());
                    }
                }
                _ => {}
            }
        }
        next += 1;
    }
    all
}

fn help(words: &[String]) -> String {
    let mut line: Vec<&str> = words.iter().map(String::as_str).collect();
    line.push("--help");
    let ran = ran(kakoi(&line).output().expect("it runs"));
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{words:?}");
    ran.stdout
}

#[test]
fn help_is_as_it_was() {
    let all = commands();
    assert!(all.len() > 70, "{} commands", all.len());
    for words in all {
        let name = if words.is_empty() {
            "kakoi".to_owned()
        } else {
            format!("kakoi-{}", words.join("-"))
        };
        check(&format!("help/{name}.txt"), &help(&words));
    }
}

#[test]
fn the_schema_is_the_language_s() {
    // Its own golden stands with the language.
    let ran = ran(kakoi(&["policy", "schema"]).output().expect("it runs"));
    let printed: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(printed, kakoi_policy::json_schema());
}

#[test]
fn every_shell_gets_a_script_with_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = ran(kakoi(&["completion", shell]).output().expect("it runs")).stdout;
        for word in ["run", "policy", "doctor", "detach-keys"] {
            assert!(script.contains(word), "{shell} lacks {word}");
        }
    }
    assert_eq!(
        ran(kakoi(&["completion", "nosuchshell"]).output().expect("it runs")).status,
        125
    );
}

#[test]
fn every_command_has_a_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let ran = ran(kakoi(&["man", &folder.path().display().to_string()])
        .output()
        .expect("it runs"));
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""));
    for words in commands() {
        let name = if words.is_empty() {
            "kakoi".to_owned()
        } else {
            format!("kakoi-{}", words.join("-"))
        };
        let page = std::fs::read_to_string(folder.path().join(format!("{name}.1")));
        assert!(page.is_ok_and(|page| page.contains(".SH SYNOPSIS")), "{name}");
    }
}
