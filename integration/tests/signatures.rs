//! Signatures in a real registry: what holds, and each way in which one does not.
#![forbid(unsafe_code)]

use std::fs;
use std::path::PathBuf;

use kakoi_integration::command::{Ran, run};
use kakoi_integration::host::{Host, binary};
use kakoi_integration::registry::{Registry, key_pair, tool};
use kakoi_integration::required::leave_out;
use kakoi_integration::{image, needs_root};
use serde_json::{Value, json};

/// A gateway that trusts nothing yet, and a registry that it knows.
struct Lab {
    registry: Registry,
    host: Host,
}

impl Lab {
    fn new() -> Self {
        let registry = Registry::open();
        let host = Host::trusting(None);
        registry.introduce(&host, "{transport: http}");
        Self { registry, host }
    }

    fn name(&self, rest: &str) -> String {
        self.registry.image(rest)
    }

    /// Puts an image into the registry, distinct by its name, and not into the store.
    fn push(&self, rest: &str) -> String {
        let name = self.name(rest);
        let config = json!({"Cmd": ["true"], "Labels": {"distinct": rest}});
        let archive = image::archive(&name, &config, &[image::busybox_layer(&binary("attacker"))]);
        self.host.load(&archive).ok();
        self.host.ok(&["push", "--quiet", &name]);
        self.host.ok(&["rmi", &name]);
        name
    }

    /// A key pair; says the private one's path.
    fn key(&self, name: &str) -> String {
        key_pair(&self.host.path(name))
    }

    fn sign(&self, name: &str, key: &str, more: &[&str]) {
        self.host
            .ok(&[&["trust", "sign", "--key", key, name], more].concat());
    }

    fn require(&self, scope: &str, key: &str) {
        self.host
            .ok(&["trust", "add-key", &self.name(scope), &format!("{key}.pub")]);
    }

    fn pull(&self, name: &str) -> Ran {
        self.host.kakoi(&["pull", "--quiet", name])
    }

    fn run(&self, name: &str) -> Ran {
        self.host
            .kakoi(&["run", "--rm", "--network", "none", name, "true"])
    }

    /// Writes trust.yaml with keys (each a name and the path of its pair) and what stands below.
    fn trust(&self, keys: &[(&str, &str, &str)], rest: &str) {
        let mut text = String::from("version: 1\nkeys:\n");
        for (name, pair, fields) in keys {
            let pem = fs::read_to_string(format!("{pair}.pub")).expect("a public key");
            let pem = pem.trim_end().replace('\n', "\n      ");
            text += &format!("  {name}:\n    public_key: |\n      {pem}\n{fields}");
        }
        self.host.file("config/trust.yaml", text + rest);
    }

    /// The digest that a name leads to.
    fn digest(&self, name: &str) -> String {
        let said = self.host.ok(&["manifest", "inspect", "--verbose", name]);
        let said: Value = serde_json::from_str(&said).expect("JSON");
        said["Descriptor"]["digest"]
            .as_str()
            .expect("a digest")
            .to_owned()
    }

    /// The name of an image's classic signatures.
    fn signatures(&self, name: &str) -> String {
        let (repository, _) = name.rsplit_once(':').expect("a tag");
        format!("{repository}:{}.sig", self.digest(name).replace(':', "-"))
    }
}

fn copy(from: &str, to: &str) {
    tool(
        "skopeo",
        &format!("--insecure-policy copy --src-tls-verify=false --dest-tls-verify=false docker://{from} docker://{to}"),
    )
    .ok();
}

#[test]
fn what_is_signed_runs_also_offline_and_what_is_not_does_not_come_in() {
    needs_root!();
    let lab = Lab::new();
    let (key, stranger) = (lab.key("acme"), lab.key("stranger"));
    let (classic, bundle) = (lab.push("acme/classic:1"), lab.push("acme/bundle:1"));
    lab.pull(&classic).fails(125, "no scope of trust.yaml covers it");
    // What could not run anyway is asked of nobody, and Docker's clients hear why as a 403.
    let answer = lab.host.raw_request(
        b"POST /v1.47/images/create?fromImage=nowhere.invalid/a&tag=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    );
    assert!(
        answer.starts_with("HTTP/1.1 403")
            && answer.contains("kakoi trust allow nowhere.invalid/a --mode audit"),
        "{answer}"
    );
    lab.require("acme", &key);
    for name in [&classic, &bundle] {
        let refused = lab.pull(name).fails(125, "it is not signed");
        refused.is_one_clear_error();
        lab.sign(name, &stranger, &["--form", "both"]);
        lab.pull(name).fails(125, "no key of the scope made");
    }
    assert_eq!(lab.host.ok(&["images", "--quiet"]), "", "nothing came in");
    let blobs = fs::read_dir(lab.host.path("root/images/blobs/sha256")).expect("a store");
    assert_eq!(blobs.count(), 0);
    lab.sign(&classic, &key, &[]);
    lab.sign(&bundle, &key, &["--form", "bundle"]);
    for name in [&classic, &bundle] {
        let seen = lab.host.ok(&["trust", "check", name]);
        assert!(seen.contains("registry") && seen.contains("by acme"), "{seen}");
        lab.pull(name).ok();
        lab.run(name).ok();
    }
    lab.host
        .ok(&["create", "--name", "kept", "--network", "none", &bundle, "true"]);
    // Without the registry, and after the daemon's death.
    let Lab { registry, host } = lab;
    drop(registry);
    host.kill_daemon();
    host.start_daemon();
    host.ok(&["start", "--attach", "kept"]);
    host.ok(&["run", "--rm", "--network", "none", &classic, "true"]);
    let seen: Value =
        serde_json::from_str(&host.ok(&["trust", "check", "--format", "json", &classic])).expect("JSON");
    assert_eq!(
        (&seen["Place"], &seen["Trusted"], &seen["Mode"]),
        (&json!("store"), &json!(true), &json!("require"))
    );
    // Under a name that nobody signed for, the same image does not run.
    let other = classic.replace("classic", "other");
    host.ok(&["tag", &classic, &other]);
    host.kakoi(&["run", "--rm", "--network", "none", &other, "true"])
        .fails(125, "it is not signed");
    // Revoked is revoked, for what runs already at its next start.
    host.ok(&["trust", "revoke", "acme", "--reason", "laptop lost"]);
    host.kakoi(&["start", "kept"])
        .fails(125, "key `acme` is revoked: laptop lost");
    host.kakoi(&["run", "--rm", "--network", "none", &classic, "true"])
        .fails(125, "laptop lost");
    host.ok(&["rm", "kept"]);
}

#[test]
fn signatures_of_other_images_repositories_and_times_do_not_count() {
    needs_root!();
    let lab = Lab::new();
    let key = lab.key("acme");
    let (signed, other) = (lab.push("acme/app:1"), lab.push("acme/app:2"));
    lab.require("acme", &key);
    lab.sign(&signed, &key, &["--annotation", "env=production"]);
    // The payload is for another image.
    copy(&lab.signatures(&signed), &lab.signatures(&other));
    lab.pull(&other).fails(125, "signed another image");
    // It is for another repository.
    let elsewhere = lab.name("acme/elsewhere:1");
    copy(&signed, &elsewhere);
    copy(&lab.signatures(&signed), &lab.signatures(&elsewhere));
    lab.pull(&elsewhere).fails(125, "signed it for");
    // The tag moved on to what nobody signed.
    let moving = lab.name("acme/app:stable");
    copy(&signed, &moving);
    lab.pull(&moving).ok();
    lab.host.ok(&["rmi", &moving]);
    let unsigned = lab.push("acme/app:3");
    copy(&unsigned, &moving);
    lab.pull(&moving).fails(125, "it is not signed");
    // Annotations that are demanded, and are not there.
    let scope = |fields: &str| {
        format!(
            "scopes:\n  {}: {{mode: require, keys: [acme]{fields}}}\n",
            lab.name("acme")
        )
    };
    let keys = [("acme", key.as_str(), "")];
    lab.trust(&keys, &scope(", annotations: {env: production}"));
    lab.pull(&signed).ok();
    lab.trust(&keys, &scope(", annotations: {env: test}"));
    lab.pull(&signed).fails(125, "env=test");
    lab.run(&signed).fails(125, "env=test");
    // The key's time.
    let times = [
        ("    not_after: 2020-01-01T00:00:00Z\n", "expired"),
        ("    not_before: 2099-01-01T00:00:00Z\n", "not valid before"),
    ];
    for (fields, why) in times {
        lab.trust(&[("acme", key.as_str(), fields)], &scope(""));
        lab.pull(&signed).fails(125, why);
    }
    // A payload that is not what its digest says.
    lab.trust(&keys, &scope(""));
    lab.host.ok(&["rmi", "--all"]);
    let manifest = lab.host.ok(&["manifest", "inspect", &lab.signatures(&signed)]);
    let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    let payload = manifest["layers"][0]["digest"].as_str().expect("a digest");
    let hex = payload.strip_prefix("sha256:").expect("sha256");
    let blob = lab.registry.path(&format!(
        "data/docker/registry/v2/blobs/sha256/{}/{hex}/data",
        &hex[..2]
    ));
    let text = fs::read_to_string(&blob).expect("the payload");
    fs::write(&blob, text.replace("acme/app", "acme/App")).expect("tampered with");
    lab.pull(&signed).fails(125, "not trusted");
}

#[test]
fn a_threshold_counts_distinct_keys() {
    needs_root!();
    let lab = Lab::new();
    let (one, two) = (lab.key("one"), lab.key("two"));
    let name = lab.push("acme/app:1");
    let scope = |fields: &str| format!("scopes:\n  {}: {{mode: require, {fields}}}\n", lab.name("acme"));
    lab.trust(
        &[("one", &one, ""), ("two", &two, "")],
        &scope("keys: [one, two], threshold: 2"),
    );
    lab.sign(&name, &one, &["--form", "both"]);
    lab.sign(&name, &one, &[]);
    lab.pull(&name).fails(125, "1 of 2 keys signed it");
    lab.sign(&name, &two, &[]);
    lab.pull(&name).ok();
    lab.run(&name).ok();
    // One key under two names is one key, and the file says so.
    lab.trust(
        &[("one", &one, ""), ("two", &one, "")],
        &scope("keys: [one, two], threshold: 2"),
    );
    lab.run(&name).fails(125, "1 distinct keys");
    // What is kept of the signatures is not believed when it is not what it was.
    lab.trust(&[("one", &one, "")], &scope("keys: [one]"));
    lab.run(&name).ok();
    let kept = evidence(&lab.host);
    let text = fs::read_to_string(&kept).expect("the evidence");
    fs::write(&kept, text.replace("\"threshold\"", "\"x\"") + " ").expect("damaged");
    assert_ne!(lab.run(&name).code, 0);
    lab.pull(&name).ok();
    lab.run(&name).ok();
}

/// The one blob of the store that is evidence.
fn evidence(host: &Host) -> PathBuf {
    let blobs = fs::read_dir(host.path("root/images/blobs/sha256")).expect("a store");
    let mut found = blobs
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"{\"subject\":{\"repository\":")));
    let path = found.next().expect("evidence is kept");
    assert!(found.next().is_none(), "of one image");
    path
}

#[test]
fn no_release_goes_below_what_was_committed() {
    needs_root!();
    let lab = Lab::new();
    let key = lab.key("acme");
    let (old, new) = (lab.push("acme/app:1.0"), lab.push("acme/app:1.1"));
    let unreleased = lab.push("acme/app:x");
    let scope = format!(
        "scopes:\n  {}: {{mode: require, keys: [acme], release: true, release_name: gateway}}\n",
        lab.name("acme")
    );
    lab.trust(&[("acme", &key, "")], &scope);
    lab.sign(&unreleased, &key, &["--form", "both"]);
    lab.pull(&unreleased).fails(125, "no release document");
    lab.sign(&old, &key, &["--release", "1.0", "--release-name", "gateway"]);
    lab.sign(&new, &key, &["--release", "1.1"]);
    lab.pull(&new).fails(125, "not as `gateway`");
    lab.sign(&new, &key, &["--release", "1.1", "--release-name", "gateway"]);
    for name in [&old, &new] {
        lab.pull(name).ok();
        lab.run(name).ok();
    }
    lab.host
        .ok(&["create", "--name", "kept", "--network", "none", &old, "true"]);
    let said = lab.host.ok(&["trust", "commit", &new]);
    assert!(said.contains("gateway 1.1 committed"), "{said}");
    let again = lab.host.ok(&["trust", "commit", &new]);
    assert!(again.contains("was committed already"), "{again}");
    for _ in 0..2 {
        let downgrade = "gateway 1.0 is a downgrade: 1.1 was committed";
        lab.pull(&old).fails(125, downgrade);
        lab.run(&old).fails(125, downgrade);
        lab.host.kakoi(&["start", "kept"]).fails(125, downgrade);
        lab.host.kakoi(&["trust", "commit", &old]).fails(125, downgrade);
        lab.run(&new).ok();
        lab.host.kill_daemon();
        lab.host.start_daemon();
    }
    assert!(lab.host.ok(&["trust", "show"]).contains("gateway"));
    // Whoever may write trust.yaml lets one version back, by name and number, until it is withdrawn; nobody else can.
    let remedy = "kakoi trust allow-downgrade gateway 1.0";
    lab.run(&old).fails(125, remedy);
    lab.host.ok(&["trust", "allow-downgrade", "gateway", "0.9"]);
    lab.run(&old).fails(125, "gateway 1.0 is a downgrade");
    let words: Vec<&str> = remedy.split(' ').skip(1).collect();
    lab.host.ok(&words);
    lab.host.ok(&["start", "--attach", "kept"]);
    lab.run(&old).ok();
    lab.run(&new).ok();
    let log = lab.host.daemon_log();
    assert_eq!(log.matches("runs below its floor").count(), 1, "{log}");
    let filters = [
        "events",
        "--stream=false",
        "--since",
        "1h",
        "--filter",
        "event=downgrade",
    ];
    let events = lab.host.ok(&filters);
    assert_eq!(events.lines().count(), 1, "{events}");
    assert!(events.contains("gateway 1.0"), "{events}");
    // To commit what was let back lowers no floor.
    let said = lab.host.ok(&["trust", "commit", &old]);
    assert!(said.contains("was committed already"), "{said}");
    let shown = lab.host.ok(&["trust", "show"]);
    assert!(shown.contains("1.1") && shown.contains("1.0"), "{shown}");
    lab.host
        .ok(&["trust", "allow-downgrade", "gateway", "--withdraw"]);
    lab.host
        .kakoi(&["start", "kept"])
        .fails(125, "gateway 1.0 is a downgrade");
    lab.pull(&old).fails(125, "gateway 1.0 is a downgrade");
    lab.host.ok(&["rm", "kept"]);
}

#[test]
fn a_verdict_is_remembered_until_what_it_rests_on_changes() {
    needs_root!();
    let lab = Lab::new();
    let (key, owner) = (lab.key("acme"), lab.key("owner"));
    let name = lab.push("acme/app:1");
    let scope = format!(
        "revocation: {{keys: [owner]}}\nscopes:\n  {}: {{mode: require, keys: [acme]}}\n",
        lab.name("acme")
    );
    let keys = [("acme", key.as_str(), ""), ("owner", owner.as_str(), "")];
    lab.trust(&keys, &scope);
    lab.sign(&name, &key, &[]);
    lab.pull(&name).ok();
    let host = &lab.host;
    host.ok(&["create", "--name", "kept", "--network", "none", &name, "true"]);
    let start = || host.kakoi(&["start", "--attach", "kept"]);
    start().ok();
    // What lies on the disk is not verified anew while nothing has changed: it could be gone.
    let path = evidence(host);
    let whole = fs::read(&path).expect("evidence");
    fs::write(&path, b"{}").expect("damaged");
    start().ok();
    // Each change is effective at the very next start, which looks at all of it again.
    lab.trust(&keys, &format!("# another text, the same rules\n{scope}"));
    assert_ne!(start().code, 0);
    fs::write(&path, &whole).expect("healed");
    start().ok();
    let gone = [("acme", key.as_str(), "    revoked: lost\n"), keys[1]];
    lab.trust(&gone, &scope);
    start().fails(125, "key `acme` is revoked: lost");
    lab.trust(&keys, &scope);
    start().ok();
    let list = host.path("list").display().to_string();
    let public = format!("{key}.pub");
    let make = [
        "trust",
        "revoke",
        "--make",
        &list,
        "--version",
        "1",
        "--signing-key",
        &owner,
        &public,
    ];
    host.ok(&make);
    host.ok(&["trust", "revoke", "--list", &list]);
    start().fails(125, "key `acme` is revoked");
    // Nothing is remembered from one daemon to the next.
    for kept in ["revocations.json", "revocations.seen"] {
        fs::remove_file(host.path(&format!("root/trust/{kept}"))).expect("forgotten");
    }
    fs::write(&path, b"{}").expect("damaged");
    host.kill_daemon();
    host.start_daemon();
    assert_ne!(start().code, 0);
    lab.host.ok(&["rm", "kept"]);
}

#[test]
fn a_signed_list_revokes_keys_and_never_gets_older() {
    needs_root!();
    let lab = Lab::new();
    let (key, owner) = (lab.key("acme"), lab.key("owner"));
    let name = lab.push("acme/app:1");
    let rest = format!(
        "revocation: {{keys: [owner]}}\nscopes:\n  {}: {{mode: require, keys: [acme]}}\n",
        lab.name("acme")
    );
    lab.trust(&[("acme", &key, ""), ("owner", &owner, "")], &rest);
    lab.sign(&name, &key, &[]);
    lab.pull(&name).ok();
    let list = |version: &str, signer: &str, keys: &[&str]| {
        let path = lab.host.path(&format!("list-{version}")).display().to_string();
        let words = [
            "trust",
            "revoke",
            "--make",
            &path,
            "--version",
            version,
            "--signing-key",
            signer,
        ];
        lab.host.ok(&[&words[..], keys].concat());
        path
    };
    let public = format!("{key}.pub");
    let forged = list("7", &key, &[&public]);
    lab.host
        .kakoi(&["trust", "revoke", "--list", &forged])
        .fails(125, "0 of 1 keys");
    let (empty, full) = (list("1", &owner, &[]), list("2", &owner, &[&public]));
    lab.host.ok(&["trust", "revoke", "--list", &empty]);
    lab.run(&name).ok();
    lab.host.ok(&["trust", "revoke", "--list", &full]);
    for _ in 0..2 {
        lab.run(&name).fails(125, "key `acme` is revoked");
        lab.pull(&name).fails(125, "key `acme` is revoked");
        lab.host
            .kakoi(&["trust", "revoke", "--list", &empty])
            .fails(125, "version 1 of the revocation list");
        lab.host.kill_daemon();
        lab.host.start_daemon();
    }
    assert!(
        lab.host
            .ok(&["trust", "show"])
            .contains("list of revoked keys: version 2")
    );
}

#[test]
fn an_image_brings_its_policy_within_what_the_owner_allows() {
    needs_root!();
    let lab = Lab::new();
    let (key, stranger) = (lab.key("acme"), lab.key("stranger"));
    let name = lab.push("acme/app:1");
    lab.require("acme", &key);
    lab.sign(&name, &key, &[]);
    let policy = |file: &str, text: &str| {
        lab.host
            .file(file, format!("kakoi: 1\nextends: [strict]\n{text}"))
    };
    let (small, large) = (
        policy("small.yaml", "limits: {pids: 17}\n"),
        policy("large.yaml", "capabilities: {allow: [SYS_ADMIN]}\n"),
    );
    let attach = |file: &str, key: &str| lab.host.kakoi(&["policy", "attach", "--key", key, &name, file]);
    let bad = lab.host.file("bad.yaml", "kakoi: 1\nlimit: {}\n");
    attach(&bad, &key).fails(125, "bad.yaml:2:1");
    // What a stranger attached does not count.
    attach(&small, &stranger).ok();
    lab.pull(&name).ok();
    let of = |name: &str| lab.host.inspect(name)["Kakoi"]["Policy"].clone();
    let create = |container: &str, more: &[&str]| {
        let words = [&["create", "--name", container], more, &[&name, "true"]].concat();
        lab.host.kakoi(&words)
    };
    create("plain", &[]).ok();
    assert_eq!(of("plain"), "strict");
    attach(&small, &key).ok();
    lab.pull(&name).ok();
    create("brought", &[]).ok();
    assert_eq!(of("brought"), "small");
    lab.host.ok(&["start", "--attach", "brought"]);
    let seen = lab.host.ok(&["trust", "check", &name]);
    assert!(seen.contains("small.yaml"), "{seen}");
    // Whoever names another gets that.
    create("named", &["--policy", "network-client"]).ok();
    assert_eq!(of("named"), "network-client");
    // The latest that was attached holds, and the ceiling holds against it.
    lab.host
        .file("config/ceiling.yaml", "kakoi: 1\ncapabilities: [CHOWN]\n");
    lab.host.kill_daemon();
    lab.host.start_daemon();
    attach(&large, &key).ok();
    lab.pull(&name).ok();
    create("excess", &[]).fails(125, "SYS_ADMIN");
    for container in ["plain", "brought", "named"] {
        lab.host.ok(&["rm", container]);
    }
}

#[test]
fn an_archive_carries_its_signatures() {
    needs_root!();
    let lab = Lab::new();
    let (key, stranger) = (lab.key("acme"), lab.key("stranger"));
    let (signed, forged) = (lab.push("acme/app:1"), lab.push("acme/app:2"));
    lab.sign(&signed, &key, &[]);
    lab.sign(&forged, &stranger, &[]);
    lab.require("acme", &key);
    let pack = |name: &str, folder: &str| {
        let layout = lab.host.path(folder);
        for part in [name.to_owned(), lab.signatures(name)] {
            let layout = layout.display();
            tool(
                "skopeo",
                &format!("--insecure-policy copy --src-tls-verify=false docker://{part} oci:{layout}:{part}"),
            )
            .ok();
        }
        let archive = format!("{}.tar", layout.display());
        tool("tar", &format!("-C {} -cf {archive} .", layout.display())).ok();
        archive
    };
    let (good, bad) = (pack(&signed, "good"), pack(&forged, "bad"));
    // The stick goes to a device that sees no registry.
    lab.host.file("config/registries.yaml", "");
    for archive in [&good, &bad] {
        lab.host.ok(&["load", "--input", archive]);
    }
    assert_eq!(
        lab.host.ok(&["images", "--quiet"]).lines().count(),
        2,
        "signatures are no images"
    );
    lab.run(&signed).ok();
    lab.run(&forged).fails(125, "no key of the scope made");
    lab.host.ok(&["trust", "revoke", "acme"]);
    lab.run(&signed).fails(125, "is revoked");
}

/// Whether cosign is here. Debian has it from trixie on, so only a `KAKOI_TEST_REQUIRE` with `cosign` makes its absence a failure.
fn has_cosign() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_here = std::env::split_paths(&path).any(|folder| folder.join("cosign").is_file());
    if !is_here {
        leave_out("cosign", "cosign is not in PATH: Debian has it from trixie on");
    }
    is_here
}

#[test]
fn cosign_and_kakoi_take_each_other_s_signatures() {
    needs_root!();
    if !has_cosign() {
        return;
    }
    let lab = Lab::new();
    let key = lab.key("acme");
    let http = "--allow-http-registry --allow-insecure-registry";
    let cosign = |line: String| {
        let mut command = std::process::Command::new("cosign");
        command
            .args(line.split_whitespace())
            .current_dir(lab.host.path(""))
            .env("COSIGN_PASSWORD", "pw");
        run(&mut command, b"")
    };
    cosign("generate-key-pair".into()).ok();
    let theirs = lab.host.path("cosign").display().to_string();
    let (classic, bundle, ours) = (lab.push("acme/a:1"), lab.push("acme/b:1"), lab.push("acme/c:1"));
    lab.require("acme", &theirs);
    for name in [&classic, &bundle, &ours] {
        lab.pull(name).fails(125, "it is not signed");
    }
    cosign(format!(
        "sign -y --key cosign.key --tlog-upload=false {http} {classic}"
    ))
    .ok();
    lab.host.file("predicate.json", "{}");
    cosign(format!(
        "attest -y --key cosign.key --tlog-upload=false --new-bundle-format --type https://sigstore.dev/cosign/sign/v1 --predicate predicate.json {http} {bundle}"
    ))
    .ok();
    for name in [&classic, &bundle] {
        lab.pull(name).ok();
        lab.run(name).ok();
    }
    lab.sign(&ours, &key, &["--form", "both"]);
    lab.pull(&ours).fails(125, "no key of the scope made");
    let verify = |public: &str, name: &str| {
        cosign(format!(
            "verify --key {public} --insecure-ignore-tlog {http} {name}"
        ))
    };
    verify("acme.pub", &ours).ok();
    assert_ne!(verify("cosign.pub", &ours).code, 0);
    assert_ne!(verify("acme.pub", &classic).code, 0);
    cosign("trusted-root create --out root.json".into()).ok();
    cosign(format!(
        "verify-attestation --key acme.pub --new-bundle-format --trusted-root root.json --insecure-ignore-tlog --type https://sigstore.dev/cosign/sign/v1 {http} {ours}"
    ))
    .ok();
    // Added to, by either: all count.
    cosign(format!(
        "sign -y --key cosign.key --tlog-upload=false {http} {ours}"
    ))
    .ok();
    verify("acme.pub", &ours).ok();
    lab.pull(&ours).ok();
}

#[test]
fn a_mirror_with_other_signatures_hides_none_of_the_registry() {
    needs_root!();
    let lab = Lab::new();
    let (key, stranger) = (lab.key("acme"), lab.key("stranger"));
    let name = lab.push("acme/app:1");
    let unsigned = lab.push("acme/unsigned:1");
    lab.require("acme", &key);
    let mirror = Registry::open();
    let there = |name: &str| name.replace(&lab.registry.name, &mirror.name);
    copy(&name, &there(&name));
    copy(&unsigned, &there(&unsigned));
    // A stranger's signature lies at the mirror alone, the owner's at the registry.
    for signed in [&name, &unsigned] {
        lab.sign(signed, &stranger, &["--form", "both"]);
        copy(&lab.signatures(signed), &there(&lab.signatures(signed)));
    }
    lab.sign(&name, &key, &[]);
    lab.host.file(
        "config/registries.yaml",
        format!(
            "registries:\n  \"{0}\": {{transport: http, mirrors: [\"{1}\"]}}\n  \"{1}\": {{transport: http}}\n",
            lab.registry.name, mirror.name
        ),
    );
    lab.pull(&name).ok();
    lab.run(&name).ok();
    lab.pull(&unsigned).fails(125, "no key of the scope made");
    // Without the registry what the mirror has is what there is: too little.
    let Lab { registry, host } = lab;
    let name = registry.image("acme/app:1");
    drop(registry);
    host.ok(&["rmi", &name]);
    host.kakoi(&["pull", "--quiet", &name])
        .fails(125, "no key of the scope made")
        .is_one_clear_error();
}

#[test]
fn whoever_saves_or_pushes_hears_that_signatures_stay_behind() {
    needs_root!();
    let lab = Lab::new();
    let key = lab.key("acme");
    let name = lab.push("acme/app:1");
    lab.require("acme", &key);
    lab.sign(&name, &key, &[]);
    lab.pull(&name).ok();
    let digest = lab.digest(&name);
    let archive = lab.host.path("app.tar").display().to_string();
    let saved = lab.host.kakoi(&["save", "-o", &archive, &name]);
    assert!(
        saved.stderr.contains("note: ")
            && saved.stderr.contains(&digest)
            && saved.stderr.contains("do not go along"),
        "{}",
        saved.stderr
    );
    saved.ok();
    let quiet = lab.host.kakoi(&["save", "--quiet", "-o", &archive, &name]);
    assert_eq!(quiet.stderr, "");
    // As it says: on another gateway the archive's image is not the signed one.
    let other = Host::trusting(Some(
        &fs::read_to_string(lab.host.path("config/trust.yaml")).expect("trust.yaml"),
    ));
    other.ok(&["load", "-i", &archive]);
    other
        .kakoi(&["run", "--rm", "--network", "none", &name, "true"])
        .fails(125, "it is not signed");
    // To a registry that has its layers it goes with its digest; to one that has not, it says so.
    let copy = lab.name("acme/copy:1");
    lab.host.ok(&["tag", &name, &copy]);
    let push = |name: &str| {
        let pushed = lab.host.kakoi(&["push", name]);
        assert_eq!(pushed.code, 0, "{}", pushed.stderr);
        pushed.stdout + &pushed.stderr
    };
    let pushed = push(&copy);
    assert!(
        pushed.contains(&digest) && !pushed.contains("signatures are of that one"),
        "{pushed}"
    );
    // Packed by another program, and brought to a registry that has none of it.
    let foreign = lab.name("acme/foreign:1");
    tool(
        "skopeo",
        &format!(
            "--insecure-policy copy --dest-tls-verify=false --dest-compress-format zstd --src-tls-verify=false docker://{name} docker://{foreign}"
        ),
    )
    .ok();
    lab.sign(&foreign, &key, &[]);
    lab.pull(&foreign).ok();
    let digest = lab.digest(&foreign);
    let elsewhere = Registry::open();
    lab.host.file(
        "config/registries.yaml",
        format!(
            "registries:\n  \"{}\": {{transport: http}}\n  \"{}\": {{transport: http}}\n",
            lab.registry.name, elsewhere.name
        ),
    );
    let there = elsewhere.image("acme/foreign:1");
    lab.host.ok(&["tag", &foreign, &there]);
    let pushed = push(&there);
    assert!(
        pushed.contains(&format!("the digest was {digest}, signatures are of that one")),
        "{pushed}"
    );
}

#[test]
fn room_is_made_only_for_what_may_come_in() {
    needs_root!();
    let lab = Lab::new();
    let key = lab.key("acme");
    let (signed, unsigned) = (lab.push("acme/signed:1"), lab.push("acme/unsigned:1"));
    lab.require("acme", &key);
    lab.sign(&signed, &key, &[]);
    lab.host.load(&image::busybox(&binary("attacker"))).ok();
    // From here on the disk is always too full.
    lab.host.stop_daemon();
    let settings = format!("disk_low_bytes: {}\ndisk_low_takes_named: true\n", 1u64 << 44);
    lab.host.file("config/kakoid.yaml", settings);
    lab.host.start_daemon();
    let images = || lab.host.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    lab.pull(&unsigned).fails(125, "it is not signed");
    lab.pull(&lab.name("acme/nowhere:1")).fails(125, "");
    assert!(images().contains("busybox:test"), "{}", images());
    lab.pull(&signed).ok();
    assert_eq!(images().trim(), signed);
}
