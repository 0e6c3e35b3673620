//! A real registry on loopback, with TLS and passwords: what Kakoi pushes others pull, and what others push Kakoi pulls and runs.
#![forbid(unsafe_code)]

use std::process::Command;

use kakoi_integration::command;
use kakoi_integration::host::{Host, binary};
use kakoi_integration::registry::{Registry, tool};
use kakoi_integration::{image, needs_root};
use serde_json::{Value, json};

#[test]
fn what_is_pushed_behind_tls_and_a_password_is_pulled_by_others_and_back() {
    needs_root!();
    let registry = Registry::guarded();
    let host = Host::new();
    let (ours, copied) = (registry.image("apps/ours:1"), registry.image("apps/copied:2"));
    host.ok(&["tag", "busybox:test", &ours]);
    // Nobody is trusted without being told so.
    let stranger = host.kakoi(&["push", "--quiet", &ours]);
    assert!(
        stranger.code == 125 && stranger.stderr.contains("registries.yaml"),
        "{stranger}"
    );
    registry.introduce(&host, &format!("{{ca: {}}}", registry.text("certs/ca.crt")));
    let authfile = host.path("auth.json").display().to_string();
    let refused = host.kakoi(&["push", "--authfile", &authfile, &ours]);
    assert!(
        refused.code == 125 && refused.stderr.contains("kakoi login"),
        "{refused}"
    );
    let login = |password: &[u8]| {
        let words = [
            "login",
            "--username",
            "user",
            "--password-stdin",
            "--authfile",
            &authfile,
            &registry.name,
        ];
        host.kakoi_with(&words, password)
    };
    assert_eq!(login(b"guess").code, 125);
    login(b"secret\n").ok();
    host.ok(&["push", "--authfile", &authfile, &ours]);
    assert_eq!(
        host.ok(&["tags", "--authfile", &authfile, &registry.image("apps/ours")]),
        "1"
    );
    let manifest = host.ok(&["manifest", "inspect", "--authfile", &authfile, &ours]);
    let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    assert_eq!(manifest["schemaVersion"], 2);

    let certs = registry.text("certs");
    let store = format!(
        "--root {0}/podman --runroot {0}/run --storage-driver vfs",
        registry.path("").display()
    );
    tool(
        "podman",
        &format!("{store} pull --quiet --cert-dir {certs} --creds user:secret {ours}"),
    )
    .ok();
    let listed = tool(
        "podman",
        &format!("{store} images --format {{{{.Repository}}}}:{{{{.Tag}}}}"),
    )
    .ok();
    assert!(listed.contains(&ours), "{listed}");

    let access = format!(
        "--insecure-policy copy --src-cert-dir {certs} --dest-cert-dir {certs} --src-creds user:secret --dest-creds user:secret"
    );
    let id = host
        .ok(&["images", "--quiet", "--no-trunc"])
        .lines()
        .next()
        .map(str::to_owned);
    for (form, target) in [
        ("--format v2s2", registry.image("apps/schema2:1")),
        (
            "--format oci --dest-compress-format zstd",
            registry.image("apps/zstd:1"),
        ),
        ("--format oci", copied),
    ] {
        tool(
            "skopeo",
            &format!("{access} {form} docker://{ours} docker://{target}"),
        )
        .ok();
        let pulled = host.ok(&["pull", "--quiet", "--authfile", &authfile, &target]);
        if form != "--format v2s2" {
            assert_eq!(Some(pulled), id, "{form}: the configuration is the same");
        }
        let said = host.ok(&["run", "--rm", "--network", "none", &target, "echo", "alive"]);
        assert_eq!(said, "alive", "{form}");
    }
    host.ok(&["logout", "--authfile", &authfile, &registry.name]);
    assert_eq!(
        host.kakoi(&["pull", "--authfile", &authfile, &registry.image("apps/zstd:1")])
            .code,
        125
    );
}

#[test]
fn run_fetches_what_is_missing_and_only_where_it_may() {
    needs_root!();
    let registry = Registry::open();
    let host = Host::empty();
    let name = registry.image("library/tool:1");
    let archive = host.file("tool.tar", image::busybox(&binary("attacker")));
    tool(
        "skopeo",
        &format!("--insecure-policy copy --dest-tls-verify=false docker-archive:{archive} docker://{name}"),
    )
    .ok();
    let run_it = |when: &'static str| {
        host.kakoi(&[
            "run",
            "--rm",
            "--network",
            "none",
            "--pull",
            when,
            &name,
            "echo",
            "here",
        ])
    };
    // Plain HTTP is spoken only where the owner says so, on loopback too.
    let refused = run_it("missing");
    assert!(
        refused.code == 125 && refused.stderr.contains("transport: http"),
        "{refused}"
    );
    registry.introduce(&host, "{transport: http}");
    assert_eq!(run_it("never").code, 125);
    assert_eq!(run_it("missing").ok(), "here");
    assert_eq!(run_it("never").ok(), "here");
    let again = run_it("always");
    assert!(again.stderr.contains("up to date"), "{again}");
    assert_eq!(host.ok(&["images", "--quiet"]).lines().count(), 1);
    host.kakoi(&["pull", &registry.image("library/tool:2")])
        .is_one_clear_error();
    host.kakoi(&["pull", "--platform", "linux/mips", &name])
        .is_one_clear_error();
    // A short name is looked for where the owner says, and becomes the name under which it was found.
    host.ok(&["rmi", &name]);
    host.file(
        "config/registries.yaml",
        format!(
            "search: [\"{0}\"]\nregistries:\n  \"{0}\": {{transport: http}}\n",
            registry.name
        ),
    );
    let short = host.ok(&[
        "run",
        "--rm",
        "--network",
        "none",
        "library/tool:1",
        "echo",
        "short",
    ]);
    assert_eq!(short, "short");
    assert!(host.ok(&["images"]).contains(&registry.name));
    // And is found there when it is here.
    for command in [
        &[
            "run",
            "--rm",
            "--network",
            "none",
            "--pull",
            "never",
            "library/tool:1",
            "true",
        ][..],
        &["inspect", "library/tool:1"],
        &["rmi", "library/tool:1"],
    ] {
        host.ok(command);
    }
}

/// A folder on a stick, the same as one file, and Docker's form: what skopeo writes is what runs, and what is damaged is refused.
#[test]
fn images_come_from_files_under_their_transport_s_name() {
    needs_root!();
    let source = Host::empty();
    let stick = tempfile::tempdir().expect("a folder");
    let at = |name: &str| stick.path().join(name).display().to_string();
    let archive = image::archive(
        "docker.io/library/tool:1",
        &json!({"Cmd": ["sh"]}),
        &[image::busybox_layer(&binary("attacker"))],
    );
    source.load(&archive).ok();
    source.ok(&["save", "-o", &at("docker.tar"), "tool:1"]);
    let name = "docker.io/library/tool:1";
    for target in [
        format!("oci:{}:{name}", at("folder")),
        format!("oci-archive:{}:{name}", at("oci.tar")),
    ] {
        let from = format!("docker-archive:{}", at("docker.tar"));
        command::run(
            Command::new("skopeo").args(["copy", "--insecure-policy", &from, &target]),
            b"",
        )
        .ok();
    }
    for place in [
        format!("oci:{}", at("folder")),
        format!("oci:{}", at("oci.tar")),
        format!("docker-archive:{}", at("docker.tar")),
    ] {
        let host = Host::empty();
        host.ok(&["pull", &place]);
        let said = host.ok(&[
            "run",
            "--rm",
            "--network",
            "none",
            "--pull",
            "never",
            "tool:1",
            "echo",
            "here",
        ]);
        assert_eq!(said, "here", "{place}");
    }
    let host = Host::empty();
    for place in ["oci:/nowhere/at/all", "docker-archive:/etc/hostname", "oci:/etc"] {
        host.kakoi(&["pull", place]).is_one_clear_error();
    }
    let blobs = stick.path().join("folder/blobs/sha256");
    for blob in std::fs::read_dir(&blobs).expect("blobs") {
        let path = blob.expect("blob").path();
        let good = std::fs::read(&path).expect("blob");
        let mut bad = good.clone();
        bad[0] ^= 1;
        std::fs::write(&path, &bad).expect("damaged");
        host.kakoi(&["pull", &format!("oci:{}", at("folder"))])
            .is_one_clear_error();
        std::fs::write(&path, &good).expect("whole");
    }
    assert_eq!(host.ok(&["images", "--quiet"]), "");
}

#[test]
fn docker_s_words_are_spoken_on_the_socket() {
    needs_root!();
    let registry = Registry::open();
    let host = Host::empty();
    registry.introduce(&host, "{transport: http}");
    let name = registry.image("a:1");
    let archive = image::archive(
        &name,
        &json!({"Cmd": ["sh"]}),
        &[image::busybox_layer(&binary("attacker"))],
    );
    host.load(&archive).ok();
    let ask = |line: &str| {
        host.raw_request(
            format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                .as_bytes(),
        )
    };
    let pushed = ask(&format!("POST /v1.47/images/{}/push?tag=1", registry.image("a")));
    for word in [
        "The push refers to repository",
        "Preparing",
        "Pushed",
        "1: digest: sha256:",
        "\"aux\"",
    ] {
        assert!(pushed.contains(word), "{word}: {pushed}");
    }
    host.ok(&["rmi", &name]);
    let pulled = ask(&format!(
        "POST /v1.47/images/create?fromImage={}&tag=1",
        registry.image("a")
    ));
    for word in [
        "Pulling from a",
        "Pulling fs layer",
        "Downloading",
        "Pull complete",
        "Digest: sha256:",
        "Status: Downloaded newer image",
    ] {
        assert!(pulled.contains(word), "{word}: {pulled}");
    }
    let looked = ask(&format!("GET /v1.47/distribution/{name}/json"));
    assert!(
        looked.contains("\"Descriptor\"") && looked.contains("\"Platforms\""),
        "{looked}"
    );
    let missing = ask(&format!(
        "POST /v1.47/images/create?fromImage={}&tag=9",
        registry.image("a")
    ));
    assert!(
        missing.starts_with("HTTP/1.1 404") && missing.contains("manifest unknown"),
        "{missing}"
    );
}
