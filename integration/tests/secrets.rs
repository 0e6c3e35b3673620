//! Secrets reach the containers that are given them, and are found nowhere else.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use kakoi_integration::host::Host;
use kakoi_integration::http::Engine;
use kakoi_integration::{needs_root, network, wait};
use serde_json::Value;

/// What nobody may find.
const VALUE: &str = "correct horse battery staple 7f3a91";

fn create(host: &Host, name: &str, value: &str) {
    host.kakoi_with(&["secret", "create", name, "-"], value.as_bytes())
        .ok();
}

/// Files below a folder that hold the value.
fn holding(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let kind = entry.file_type().expect("it was just read");
        if kind.is_dir() {
            holding(&entry.path(), found);
        } else if kind.is_file() {
            let bytes = fs::read(entry.path()).unwrap_or_default();
            if bytes.windows(VALUE.len()).any(|part| part == VALUE.as_bytes()) {
                found.push(entry.path());
            }
        }
    }
}

/// The value lies in its own file of the store, and in no other.
#[track_caller]
fn is_nowhere_else(host: &Host, name: &str) {
    let mut found = Vec::new();
    for folder in [host.path("root"), host.path("run")] {
        holding(&folder, &mut found);
    }
    assert_eq!(found, [host.path("root").join(format!("secrets/{name}.secret"))]);
}

#[test]
fn a_secret_is_a_file_or_a_variable_of_its_container_and_nothing_else() {
    needs_root!();
    network::own();
    let host = Host::new();
    create(&host, "pw", VALUE);
    let read = |policy: &str, flags: &[&str], script: &str| {
        let words = [
            &["run", "--rm", "--policy", policy][..],
            flags,
            &["busybox:test", "sh", "-c", script],
        ]
        .concat();
        host.kakoi(&words)
    };
    for policy in ["strict", "docker-default"] {
        let seen = read(
            policy,
            &["--secret", "pw"],
            "cat /run/secrets/pw; stat -c ' %a %u:%g' /run/secrets/pw",
        );
        assert_eq!(seen.ok(), format!("{VALUE} 444 0:0"), "{policy}");
        let seen = read(
            policy,
            &["--secret", "pw,target=/etc/app/key,mode=0400,uid=0,gid=7"],
            "cat /etc/app/key; stat -c ' %a %u:%g' /etc/app/key",
        );
        assert_eq!(seen.ok(), format!("{VALUE} 400 0:7"), "{policy}");
        let seen = read(
            policy,
            &["--env", "PW=open", "--secret", "pw,type=env,target=PW"],
            "echo $PW",
        );
        assert_eq!(seen.ok(), VALUE, "{policy}");
        // It is not to be written, and a container that is not given it has nothing of it.
        assert_ne!(
            read(policy, &["--secret", "pw"], "echo x > /run/secrets/pw").code,
            0
        );
        assert_ne!(read(policy, &[], "cat /run/secrets/pw").code, 0);
        assert_eq!(read(policy, &[], "echo \"<$PW>\"").ok(), "<>");
    }
    // Ids inside are those of the container's own user namespace.
    let mapped = read(
        "docker-default",
        &["--userns", "auto", "--secret", "pw,uid=3,mode=0400"],
        "stat -c '%a %u:%g' /run/secrets/pw",
    );
    assert_eq!(mapped.ok(), "400 3:0");
    is_nowhere_else(&host, "pw");
    host.is_clean();
}

#[test]
fn a_container_keeps_its_secrets_over_restarts_and_daemons() {
    needs_root!();
    network::own();
    let host = Host::new();
    create(&host, "pw", VALUE);
    host.ok(&[
        "run",
        "-d",
        "--name",
        "app",
        "--restart",
        "always",
        "--policy",
        "docker-default",
        "--secret",
        "pw",
        "--secret",
        "pw,type=env,target=PW",
        "busybox:test",
        "sh",
        "-c",
        "trap 'exit 0' TERM; sleep 1000 & wait",
    ]);
    let seen = || host.ok(&["exec", "app", "sh", "-c", "echo \"$PW\"; cat /run/secrets/pw"]);
    assert_eq!(seen(), format!("{VALUE}\n{VALUE}"));
    is_nowhere_else(&host, "pw");
    // Inspecting tells the name; nothing tells the value.
    let inspected = host.ok(&["inspect", "app"]);
    assert!(
        inspected.contains("\"pw\"") && !inspected.contains(VALUE),
        "{inspected}"
    );
    for words in [
        &["secret", "inspect", "pw"][..],
        &["secret", "ls", "--format", "json"],
        &["audit", "show"],
    ] {
        assert!(!host.ok(words).contains(VALUE), "{words:?}");
    }

    host.kill_daemon();
    host.start_daemon();
    assert_eq!(seen(), format!("{VALUE}\n{VALUE}"));
    // Ended behind the daemon's back: its restart policy starts it anew, with all it had.
    host.ok(&["exec", "app", "kill", "1"]);
    wait::poll(std::time::Duration::from_secs(20), || {
        let ran = host.kakoi(&["exec", "app", "cat", "/run/secrets/pw"]);
        (ran.code == 0 && host.ok(&["inspect", "--format", "{{.RestartCount}}", "app"]) != "0").then_some(())
    })
    .expect("it runs again");
    assert_eq!(seen(), format!("{VALUE}\n{VALUE}"));

    // Files can be copied out of a container, secrets cannot.
    let copied = host.kakoi(&["cp", "app:/run/secrets/pw", "-"]);
    assert!(!copied.stdout.contains(VALUE), "{copied}");

    // In use it stays; another value is seen at the next start.
    let refused = host.kakoi(&["secret", "rm", "pw"]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("in use by app"), "{}", refused.stderr);
    host.kakoi_with(&["secret", "create", "--replace", "pw", "-"], b"another")
        .ok();
    host.ok(&["restart", "app"]);
    assert_eq!(seen(), "another\nanother");
    host.ok(&["rm", "-f", "app"]);
    host.ok(&["secret", "rm", "pw"]);
    host.kakoi(&["secret", "inspect", "pw"])
        .fails(125, "no such secret: pw");
    assert_eq!(host.kakoi(&["secret", "exists", "pw"]).code, 1);
    host.is_clean();
}

#[test]
fn what_cannot_be_given_is_refused_and_leaves_nothing() {
    needs_root!();
    network::own();
    let host = Host::new();
    create(&host, "pw", VALUE);
    host.kakoi_with(&["secret", "create", "binary", "-"], b"a\0b")
        .ok();
    for (flags, words) in [
        (&["--secret", "nobody"][..], "no such secret: nobody"),
        (&["--secret", "binary,type=env"], "give it as a file"),
        (&["--secret", "pw,type=env,target=1X"], "is no variable"),
        (&["--secret", "pw,target=/a/../b"], "it holds '..'"),
        (
            &["--secret", "pw", "--secret", "binary,target=pw"],
            "two secrets at /run/secrets/pw",
        ),
        (
            &["--secret", "pw", "-v", "data:/run/secrets/pw"],
            "Duplicate mount point: /run/secrets/pw",
        ),
    ] {
        let line = [&["create"][..], flags, &["busybox:test", "true"]].concat();
        host.kakoi(&line).fails(125, words);
    }
    assert_eq!(host.ok(&["ps", "--all", "--quiet"]), "");
    for (words, value, said) in [
        (
            &["secret", "create", "pw", "-"][..],
            &b"x"[..],
            "exists already; give it another value with --replace",
        ),
        (&["secret", "create", "a/b", "-"], b"x", "secret name"),
        (&["secret", "create", "../b", "-"], b"x", "secret name"),
        (
            &["secret", "create", "empty", "-"],
            b"",
            "a secret holds 1 to 512000 bytes",
        ),
        (
            &["secret", "create", "large", "-"],
            &vec![b'x'; 600_000],
            "512000 bytes",
        ),
    ] {
        host.kakoi_with(words, value).fails(125, said);
    }
    // Docker's own clients are told what dockerd without a swarm tells them.
    let docker = Engine::at(host.path("run/docker.sock")).ask("GET", "/v1.44/secrets", None);
    assert_eq!(docker.head.status, 503);
    assert!(docker.text().contains("swarm manager"), "{}", docker.text());

    // Damage is told by name; the file stays as it is, and the container that needs it does not start.
    host.ok(&[
        "create",
        "--name",
        "app",
        "--secret",
        "pw",
        "busybox:test",
        "true",
    ]);
    let file = host.path("root").join("secrets/pw.secret");
    fs::write(&file, "{\"for").expect("a file");
    host.kill_daemon();
    host.start_daemon();
    host.kakoi(&["start", "app"])
        .fails(125, "kakoi secret create --replace pw");
    assert_eq!(fs::read(&file).expect("it is there"), b"{\"for");
    host.kakoi_with(&["secret", "create", "--replace", "pw", "-"], VALUE.as_bytes())
        .ok();
    host.ok(&["start", "--attach", "app"]);
    host.ok(&["rm", "app"]);
    host.is_clean();
}

#[test]
fn an_app_is_given_what_its_document_names() {
    needs_root!();
    network::own();
    let host = Host::new();
    create(&host, "pw", VALUE);
    let document = |generation: u32, secrets: &str| {
        format!(
            "kakoi: 1\nkind: App\nname: web\ngeneration: {generation}\nimage: busybox:test\npolicy: docker-default\n\
             command: [sh, -c, \"trap 'exit 0' TERM; sleep 1000 & wait\"]\nupdate: {{trial: 100ms, attempts: 1}}\nsecrets: {secrets}\n"
        )
    };
    let apply = |text: &str| host.kakoi_with(&["app", "apply", "-"], text.as_bytes());
    apply(&document(
        1,
        "[pw, {name: pw, env: PW}, {name: pw, target: /etc/pw, mode: \"0400\"}]",
    ))
    .ok();
    let seen = host.ok(&[
        "exec",
        "web-a",
        "sh",
        "-c",
        "echo $PW; cat /run/secrets/pw; echo; cat /etc/pw",
    ]);
    assert_eq!(seen, [VALUE; 3].join("\n"));
    let failed = apply(&document(2, "[nobody]"));
    failed.fails(125, "no such secret: nobody");
    let status: Value =
        serde_json::from_str(&host.ok(&["app", "status", "web", "--format", "json"])).expect("JSON");
    assert_eq!(status["Current"]["Generation"], 1);
    is_nowhere_else(&host, "pw");
    host.ok(&["app", "remove", "web"]);
    host.is_clean();
}
