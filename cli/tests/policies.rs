//! Commands about policies, without a daemon and with one that keeps some.

mod fake;

use fake::{Fake, Ran, kakoi, ran};

fn alone(words: &[&str]) -> Ran {
    let folder = tempfile::tempdir().expect("a folder");
    let run = folder.path().display().to_string();
    ran(kakoi(&[&["--run", &run], words].concat())
        .output()
        .expect("it runs"))
}

fn policy(name: &str, text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join(name);
    std::fs::write(&file, text).expect("written");
    let name = file.display().to_string();
    (folder, name)
}

#[test]
fn right_policies_pass_and_wrong_ones_are_pointed_at() {
    let (_right, right) = policy("right.yaml", "kakoi: 1\nname: right\nextends: [strict]\n");
    let (_wrong, wrong) = policy("wrong.yaml", "kakoi: 1\nname: wrong\ncapabilites: [NET_RAW]\n");
    let passed = alone(&["policy", "check", &right]);
    assert_eq!(
        (passed.status, passed.stdout),
        (0, format!("{right}: ok (right, extends <strict>)\n"))
    );
    let failed = alone(&["policy", "check", &right, &wrong]);
    assert_eq!(failed.status, 1);
    assert!(failed.stderr.contains("wrong.yaml:3:1"), "{}", failed.stderr);
    assert!(
        failed.stderr.contains("did you mean `capabilities`?"),
        "{}",
        failed.stderr
    );
    let json = alone(&[
        "policy",
        "check",
        "--format",
        "json",
        &right,
        &wrong,
        "/nonexistent",
    ]);
    assert_eq!(json.status, 1);
    let list: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(
        [&list[0]["ok"], &list[1]["ok"], &list[2]["ok"]],
        [true, false, false]
    );
    assert_eq!(list[1]["diagnostics"][0]["origin"]["line"], 3);
}

#[test]
fn rules_that_do_nothing_are_warned_about_and_refused_where_asked() {
    let (_folder, file) = policy(
        "idle.yaml",
        "kakoi: 1\nextends: [strict]\ncapabilities: [CHOWN]\n",
    );
    let warned = alone(&["policy", "check", &file]);
    assert_eq!(warned.status, 0, "{}", warned.stderr);
    assert!(
        warned.stderr.contains("warning: CHOWN is granted already"),
        "{}",
        warned.stderr
    );
    assert!(warned.stderr.contains("idle.yaml:3:16"), "{}", warned.stderr);
    assert!(warned.stdout.contains("idle.yaml: ok"), "{}", warned.stdout);
    let refused = alone(&["policy", "check", "--strict", &file]);
    assert_eq!(
        (refused.status, refused.stdout.as_str()),
        (1, ""),
        "{}",
        refused.stderr
    );
    assert!(refused.stderr.contains("warning: CHOWN"), "{}", refused.stderr);
    let json = alone(&["policy", "check", "--strict", "--format", "json", &file]);
    let list: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!((json.status, &list[0]["ok"]), (1, &serde_json::json!(false)));
    assert_eq!(list[0]["diagnostics"][0]["severity"], "warning");
    let (_folder, file) = policy(
        "busy.yaml",
        "kakoi: 1\nextends: [strict]\nfiles: {write: [/data]}\n",
    );
    let passed = alone(&["policy", "check", "--strict", &file]);
    assert_eq!((passed.status, passed.stderr.as_str()), (0, ""));
}

#[test]
fn hostile_files_end_with_one_error() {
    for text in ["", "\0", "kakoi: 1\nname: [", "&a [*a]", "- - - - -"] {
        let (_folder, file) = policy("hostile.yaml", text);
        let ran = alone(&["policy", "check", &file]);
        assert_eq!(ran.status, 1, "{text:?}");
        assert!(!ran.stderr.is_empty(), "{text:?}");
    }
    let huge = alone(&["policy", "check", "/dev/zero"]);
    assert_eq!(huge.status, 1);
    assert!(huge.stderr.contains("more than"), "{}", huge.stderr);
}

#[test]
fn questions_are_answered_and_bad_ones_refused() {
    let denied = alone(&[
        "policy",
        "explain",
        "strict",
        "--syscall",
        "mount",
        "--capability",
        "NET_RAW",
    ]);
    assert_eq!(denied.status, 0);
    assert!(
        denied.stdout.contains("system call mount: denied"),
        "{}",
        denied.stdout
    );
    assert!(
        denied.stdout.contains("capability NET_RAW: denied"),
        "{}",
        denied.stdout
    );
    let allowed = alone(&[
        "policy",
        "explain",
        "strict",
        "--syscall",
        "read",
        "--format",
        "json",
    ]);
    assert!(
        allowed.stdout.contains("\"verdict\": \"allowed\""),
        "{}",
        allowed.stdout
    );
    for words in [
        &["policy", "explain", "strict"][..],
        &["policy", "explain", "strict", "--read", "relative"],
        &["policy", "explain", "strict", "--bind", "70000"],
        &["policy", "explain", "strict", "--device", "x:1:2"],
        &["policy", "explain", "strict", "--capability", "FLY"],
        &["policy", "explain", "nosuchpolicy", "--read", "/"],
    ] {
        let ran = alone(words);
        assert_eq!((ran.status, ran.stdout.as_str()), (125, ""), "{words:?}");
    }
}

#[test]
fn shown_policies_are_policies() {
    for name in [
        "strict",
        "docker-default",
        "network-client",
        "network-server",
        "privileged",
    ] {
        let shown = alone(&["policy", "show", name]);
        assert_eq!(shown.status, 0, "{}", shown.stderr);
        assert!(shown.stdout.starts_with("kakoi: 1\n"), "{}", shown.stdout);
        assert!(
            alone(&["policy", "show", "--source", name])
                .stdout
                .contains("kakoi: 1")
        );
    }
    assert!(alone(&["policy", "ls"]).stdout.contains("docker-default"));
}

#[test]
fn a_daemon_s_own_policies_are_found() {
    let fake = Fake::start();
    fake.json(
        "GET /policies/site",
        200,
        r#"{"Name":"site","Origin":"local","Source":"kakoi: 1\nname: site\nextends: [strict]\n"}"#,
    );
    let (_folder, file) = policy("app.yaml", "kakoi: 1\nname: app\nextends: [site]\n");
    let checked = fake.run(&["policy", "check", &file]);
    assert_eq!(checked.status, 0, "{}", checked.stderr);
    assert!(
        checked.stdout.contains("extends <strict>, site"),
        "{}",
        checked.stdout
    );
    assert_eq!(
        fake.run(&["policy", "show", "--source", "site"]).stdout,
        "kakoi: 1\nname: site\nextends: [strict]\n"
    );
    let (_folder, file) = policy("app.yaml", "kakoi: 1\nname: app\nextends: [other]\n");
    assert_eq!(fake.run(&["policy", "check", &file]).status, 1);
    assert_eq!(alone(&["policy", "check", &file]).status, 1);
}
