//! Bad input: each malformed policy, flag and API body gets one clear error, and leaves no mount, group, process, folder or record.
#![forbid(unsafe_code)]

use kakoi_integration::host::Host;
use kakoi_integration::needs_root;

/// A command line that must fail: arguments, exit code, and a word that the error must have.
type Row = (&'static [&'static str], i32, &'static str);

const FLAGS: &[Row] = &[
    (
        &[
            "run",
            "--pull",
            "never",
            "--network",
            "none",
            "no-such:image",
            "true",
        ],
        125,
        "no-such",
    ),
    (
        &["run", "--network", "bridge-of-nowhere", "busybox:test", "true"],
        125,
        "network",
    ),
    (
        &["run", "--network", "container:nobody", "busybox:test", "true"],
        125,
        "nobody",
    ),
    (
        &[
            "run",
            "--network",
            "container:nobody",
            "--hostname",
            "a",
            "busybox:test",
            "true",
        ],
        125,
        "conflicting options: hostname and the network mode",
    ),
    (
        &["run", "--ipc", "container:nobody", "busybox:test", "true"],
        125,
        "nobody",
    ),
    (
        &["run", "--ipc", "container:", "busybox:test", "true"],
        125,
        "mode: container:",
    ),
    (
        &["run", "--volumes-from", "nobody", "busybox:test", "true"],
        125,
        "nobody",
    ),
    (
        &["run", "--cgroupns", "shared", "busybox:test", "true"],
        125,
        "cgroup namespace",
    ),
    (
        &["run", "--cgroup-parent", "../up", "busybox:test", "true"],
        125,
        "cgroup parent",
    ),
    (
        &["run", "--memory", "lots", "busybox:test", "true"],
        125,
        "memory",
    ),
    (&["run", "--memory", "1k", "busybox:test", "true"], 125, "memory"),
    (
        &["run", "--user", "nobody-at-all", "busybox:test", "true"],
        125,
        "nobody-at-all",
    ),
    (&["run", "--user", "0x0", "busybox:test", "true"], 125, "0x0"),
    (
        &["run", "--user", "4294967296", "busybox:test", "true"],
        125,
        "4294967296",
    ),
    (&["run", "--user", "-1", "busybox:test", "true"], 125, "-1"),
    (
        &["run", "--workdir", "relative", "busybox:test", "true"],
        125,
        "relative",
    ),
    (
        &["run", "--ulimit", "nofile", "busybox:test", "true"],
        125,
        "ulimit",
    ),
    (
        &["run", "--ulimit", "nofile=10:5", "busybox:test", "true"],
        125,
        "nofile",
    ),
    (
        &["run", "--cap-add", "CAP_FLYING", "busybox:test", "true"],
        125,
        "flying",
    ),
    (
        &["run", "--tmpfs", "relative", "busybox:test", "true"],
        125,
        "relative",
    ),
    (
        &[
            "run",
            "-v",
            "/no/such/folder/at/all/../x:relative",
            "busybox:test",
            "true",
        ],
        125,
        "relative",
    ),
    (
        &["run", "--restart", "sometimes", "busybox:test", "true"],
        125,
        "sometimes",
    ),
    (&["run", "--name", "a/b", "busybox:test", "true"], 125, "a/b"),
    (
        &[
            "run",
            "--sysctl",
            "kernel.core_pattern=|/evil",
            "busybox:test",
            "true",
        ],
        125,
        "core_pattern",
    ),
    (
        &["run", "--policy", "no-such-profile", "busybox:test", "true"],
        125,
        "no-such-profile",
    ),
    (
        &["run", "--no-such-flag", "busybox:test", "true"],
        125,
        "no-such-flag",
    ),
    (&["run"], 125, "image"),
    (&["start", "no-such-container"], 125, "no-such-container"),
    (&["exec", "no-such-container", "true"], 125, "no-such-container"),
    (&["logs", "no-such-container"], 125, "no-such-container"),
    (&["kill", "no-such-container"], 125, "no-such-container"),
    (&["no-such-command"], 125, "no-such-command"),
];

#[test]
fn flags() {
    needs_root!();
    let host = Host::new();
    let mut failures = Vec::new();
    for (arguments, code, word) in FLAGS {
        let ran = host.kakoi(arguments);
        let clear = (1..=16).contains(&ran.stderr.lines().count()) && !ran.stderr.contains("panicked");
        if ran.code != *code || !clear || !ran.stderr.to_lowercase().contains(word) {
            failures.push(format!("wanted {code} and {word:?}: {ran}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    host.is_clean();
}

/// Policies that must not start anything, and what the error points at.
const POLICIES: &[(&str, &str, &str)] = &[
    ("empty", "", ""),
    ("not YAML", "kakoi: [1\n", ":"),
    ("a list", "- a\n- b\n", ""),
    (
        "an unknown key",
        "kakoi: 1\nextends: [strict]\ncapabilitys: []\n",
        "capabilities",
    ),
    (
        "an unknown capability",
        "kakoi: 1\nextends: [strict]\ncapabilities: [NET_BIND_SERVISE]\n",
        "net_bind_service",
    ),
    ("an unknown profile", "kakoi: 1\nextends: [strickt]\n", "strict"),
    ("an unknown version", "kakoi: 99\n", "99"),
    (
        "a key twice",
        "kakoi: 1\nextends: [strict]\nextends: [docker-default]\n",
        "extends",
    ),
    (
        "aliases that multiply",
        "kakoi: 1\na: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d]\n",
        "",
    ),
];

#[test]
fn policies() {
    needs_root!();
    let host = Host::new();
    let mut texts: Vec<(String, String, String)> = POLICIES
        .iter()
        .map(|(what, text, word)| ((*what).into(), (*text).into(), (*word).into()))
        .collect();
    texts.push((
        "deep".into(),
        format!("kakoi: 1\nx: {}{}\n", "[".repeat(5000), "]".repeat(5000)),
        String::new(),
    ));
    texts.push((
        "huge".into(),
        format!("kakoi: 1\nx: \"{}\"\n", "y".repeat(8 << 20)),
        String::new(),
    ));
    let mut failures = Vec::new();
    for (what, text, word) in texts {
        let path = host.file("bad.yaml", text);
        for arguments in [
            &["policy", "check", &path][..],
            &[
                "run",
                "--rm",
                "--network",
                "none",
                "--policy",
                &path,
                "busybox:test",
                "true",
            ][..],
        ] {
            let ran = host.kakoi(arguments);
            let lines = ran.stderr.lines().count();
            if ran.code == 0
                || !(1..=700).contains(&lines)
                || ran.stderr.contains("panicked")
                || !ran.stderr.to_lowercase().contains(&word)
            {
                failures.push(format!("{what}: wanted {word:?}: {ran}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    host.is_clean();
}

/// Bodies and heads that no client of ours sends.
#[test]
fn requests() {
    needs_root!();
    let host = Host::new();
    let post = |path: &str, body: &str| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: k\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        host.raw_request(format!("{head}{body}").as_bytes())
    };
    let get = |path: &str| {
        host.raw_request(format!("GET {path} HTTP/1.1\r\nHost: k\r\nConnection: close\r\n\r\n").as_bytes())
    };
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let huge = format!("{{\"Image\":\"{}\"}}", "x".repeat(64 << 20));
    for (what, answer, status) in [
        ("no JSON", post("/kakoi/v1/containers/create", "{{{"), "400"),
        (
            "a wrong type",
            post("/kakoi/v1/containers/create", "{\"Image\":7}"),
            "400",
        ),
        ("no image", post("/kakoi/v1/containers/create", "{}"), "400"),
        (
            "an unknown image",
            post("/kakoi/v1/containers/create", "{\"Image\":\"none:1\"}"),
            "404",
        ),
        ("deep", post("/kakoi/v1/containers/create", &deep), "400"),
        (
            "an unknown container",
            get("/kakoi/v1/containers/none/json"),
            "404",
        ),
        (
            "a path that climbs",
            get("/kakoi/v1/containers/..%2f..%2fetc/json"),
            "404",
        ),
        ("no such path", get("/kakoi/v1/nowhere"), "404"),
    ] {
        let first = answer.lines().next().unwrap_or_default().to_owned();
        assert!(first.contains(status), "{what}: wanted {status}: {answer}");
        assert!(answer.contains("\"message\""), "{what}: {answer}");
        assert!(
            !answer.contains(host.path("").to_str().expect("UTF-8")),
            "{what} shows a path of the host: {answer}"
        );
    }
    let refused = post("/kakoi/v1/containers/create", &huge);
    assert!(
        refused.is_empty() || refused.starts_with("HTTP/1.1 4"),
        "a body of 64 MiB: {}",
        &refused[..refused.len().min(200)]
    );
    assert!(
        host.raw_request(b"NONSENSE\r\n\r\n").starts_with("HTTP/1.1 400"),
        "no HTTP at all"
    );
    // It is still there.
    assert!(get("/kakoi/v1/_ping").starts_with("HTTP/1.1 200"));
    host.is_clean();
}
