//! Volumes: what dockerd answers about them, backups and their way back.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::files::{File, create, listed, raw, refused, tar};
use crate::given::{Daemon, needs_root};

fn make(daemon: &Daemon, name: &str, labels: Value) {
    daemon.must(
        201,
        "POST",
        "/volumes/create",
        Some(json!({"Name": name, "Labels": labels})),
    );
}

fn data(daemon: &Daemon, name: &str) -> std::path::PathBuf {
    daemon.path(&format!("root/volumes/{name}/_data"))
}

fn names(answer: &Value) -> Vec<&str> {
    let list = answer.as_array().map_or(&[][..], Vec::as_slice);
    list.iter()
        .map(|item| item["Name"].as_str().or(item.as_str()).expect("a name"))
        .collect()
}

/// A path whose query may stand in a request's line.
fn encoded(path: &str) -> String {
    path.chars().fold(String::new(), |mut whole, character| {
        match character {
            '{' | '}' | '[' | ']' | '"' | '^' | '$' => {
                whole.push_str(&format!("%{:02X}", u32::from(character)))
            }
            character => whole.push(character),
        }
        whole
    })
}

/// Trap 40 and dockerd's texts.
#[test]
fn answers_about_volumes_are_dockerd_s() {
    needs_root!();
    let daemon = Daemon::start();
    let unnamed = daemon.must(201, "POST", "/volumes/create", Some(json!({})));
    let unnamed = unnamed["Name"].as_str().expect("a name");
    assert!(unnamed.len() == 64 && unnamed.bytes().all(|byte| byte.is_ascii_hexdigit()));
    make(&daemon, "a", json!({"kind": "x"}));
    make(&daemon, "b", json!({"kind": "y"}));
    make(&daemon, "used", json!({}));
    create(&daemon, "box", &["true"], json!({"Binds": ["used:/data"]}));
    let id = daemon.ids().remove(0);
    for (filters, found) in [
        (r#"{"label":["kind"]}"#, &["a", "b"][..]),
        (r#"{"label":["kind=y"]}"#, &["b"]),
        (r#"{"label":["kind"],"label!":["kind=y"]}"#, &["a"]),
        (r#"{"dangling":["false"]}"#, &["used"]),
        (r#"{"name":["^a$"]}"#, &["a"]),
        (r#"{"driver":["other"]}"#, &[]),
    ] {
        let answer = raw(
            &daemon,
            "GET",
            &encoded(&format!("/volumes?filters={filters}")),
            b"",
        );
        let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(names(&answer["Volumes"]), found, "{filters}");
    }
    let in_use = format!("remove used: volume is in use - [{id}]");
    for (method, path, body, status, words) in [
        ("GET", "/volumes/nope", "", 404, "get nope: no such volume"),
        ("DELETE", "/volumes/nope", "", 404, "get nope: no such volume"),
        ("DELETE", "/volumes/used", "", 409, in_use.as_str()),
        ("DELETE", "/volumes/used?force=1", "", 409, in_use.as_str()),
        (
            "GET",
            "/volumes?filters={\"until\":[\"1\"]}",
            "",
            400,
            "invalid filter 'until'",
        ),
        (
            "POST",
            "/volumes/prune?filters={\"all\":[\"x\"]}",
            "",
            400,
            "invalid filter 'all=[x]'",
        ),
        (
            "POST",
            "/volumes/create",
            r#"{"Driver":"nfs"}"#,
            404,
            "plugin \"nfs\" not found",
        ),
        (
            "POST",
            "/volumes/create",
            r#"{"Name":"a/b"}"#,
            400,
            "invalid characters",
        ),
        (
            "POST",
            "/volumes/create",
            r#"{"Name":"s","DriverOpts":{"size":"64m"}}"#,
            501,
            "a size limit (64m)",
        ),
        (
            "POST",
            "/volumes/create",
            r#"{"Name":"s","DriverOpts":{"o":"uid=1,size=9m"}}"#,
            501,
            "\"uid=1\"",
        ),
        (
            "POST",
            "/volumes/create",
            r#"{"Name":"s","DriverOpts":{"o":"size=9m"}}"#,
            501,
            "a size limit (9m)",
        ),
        (
            "POST",
            "/volumes/create",
            r#"{"Name":"s","DriverOpts":{"type":"tmpfs","device":"tmpfs","o":"size=9m"}}"#,
            501,
            "--tmpfs PATH:size=SIZE",
        ),
        (
            "POST",
            "/volumes/create",
            r#"{"Name":"s","DriverOpts":{"device":"/etc"}}"#,
            501,
            "\"device\"",
        ),
        ("GET", "/volumes/nope/export", "", 404, "get nope: no such volume"),
        (
            "POST",
            "/volumes/nope/import",
            "",
            404,
            "get nope: no such volume",
        ),
        (
            "POST",
            "/volumes/a/import",
            "no archive",
            400,
            "cannot read the archive",
        ),
    ] {
        refused(
            &raw(&daemon, method, &encoded(path), body.as_bytes()),
            status,
            words,
        );
    }
    daemon.must(404, "GET", "/volumes/s", None);
    daemon.must(204, "DELETE", "/volumes/nope?force=1", None);
    let pruned = daemon.must(200, "POST", "/v1.42/volumes/prune", None);
    assert_eq!(
        names(&pruned["VolumesDeleted"]),
        [unnamed],
        "those without a name"
    );
    let filters = r#"/v1.42/volumes/prune?filters={"all":["true"],"label!":["kind=y"]}"#;
    let pruned = daemon.must(200, "POST", &encoded(filters), None);
    assert_eq!(names(&pruned["VolumesDeleted"]), ["a"]);
    let pruned = daemon.must(200, "POST", "/v1.41/volumes/prune", None);
    assert_eq!(names(&pruned["VolumesDeleted"]), ["b"], "there was no `all` yet");
    daemon.must(204, "DELETE", "/containers/box?force=1", None);
    daemon.must(204, "DELETE", "/volumes/used", None);
    daemon.is_clean();
}

#[test]
fn a_volume_goes_out_as_a_tar_and_comes_back() {
    needs_root!();
    let daemon = Daemon::start();
    make(&daemon, "old", json!({}));
    make(&daemon, "new", json!({}));
    // In use is no obstacle.
    create(
        &daemon,
        "box",
        &["sleep", "100000"],
        json!({"Binds": ["old:/old", "new:/new"], "NetworkMode": "none"}),
    );
    daemon.must(204, "POST", "/containers/box/start", None);
    let old = data(&daemon, "old");
    fs::create_dir(old.join("d")).expect("a folder");
    fs::write(old.join("d/file"), "text").expect("a file");
    fs::set_permissions(old.join("d/file"), fs::Permissions::from_mode(0o600)).expect("a mode");
    std::os::unix::fs::chown(old.join("d/file"), Some(1234), Some(567)).expect("an owner");
    symlink("/etc/shadow", old.join("out")).expect("a link");
    std::os::unix::fs::chown(&old, Some(1234), Some(567)).expect("an owner");
    let export = raw(&daemon, "GET", "/volumes/old/export", b"");
    assert_eq!(export.status, 200);
    let found = listed(&export.body);
    assert_eq!(found["./d/file"], ("text".into(), 1234));
    assert_eq!(found["./out"].0, "/etc/shadow", "a link, not what it leads to");
    // Half of it, and what leads out, leave nothing behind in an empty volume.
    let out = tar(&[("file", File::Text("x")), ("../out", File::Text("x"))]);
    let through = tar(&[("l", File::Link("/etc")), ("l/x", File::Text("x"))]);
    for broken in [&export.body[..700], &out, &through] {
        assert_eq!(raw(&daemon, "POST", "/volumes/new/import", broken).status, 400);
        assert_eq!(fs::read_dir(data(&daemon, "new")).expect("a list").count(), 0);
        assert!(!daemon.path("root/volumes/new/import").exists());
        assert!(!daemon.path("root/volumes/new/out").exists());
    }
    assert_eq!(
        raw(&daemon, "POST", "/volumes/new/import", &export.body).status,
        204
    );
    let new = data(&daemon, "new");
    for name in ["", "d", "d/file"] {
        let meta = |folder: &std::path::Path| {
            let meta = fs::metadata(folder.join(name)).expect("it is there");
            (
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.mtime(),
                meta.mtime_nsec(),
            )
        };
        assert_eq!(meta(&new), meta(&old), "{name:?}");
    }
    assert_eq!(
        fs::read_link(new.join("out")).expect("a link"),
        std::path::Path::new("/etc/shadow")
    );
    // Over what is there; through no link of it.
    let over = tar(&[("d/file", File::Text("newer"))]);
    assert_eq!(raw(&daemon, "POST", "/volumes/new/import", &over).status, 204);
    assert_eq!(
        fs::read_to_string(new.join("d/file")).expect("it is there"),
        "newer"
    );
    assert!(new.join("out").is_symlink());
    let through = tar(&[("out/x", File::Text("x"))]);
    assert_eq!(raw(&daemon, "POST", "/volumes/new/import", &through).status, 400);
    daemon.must(204, "DELETE", "/containers/box?force=1", None);
    daemon.must(204, "DELETE", "/volumes/old", None);
    daemon.must(204, "DELETE", "/volumes/new", None);
    daemon.is_clean();
}

#[test]
fn a_volume_that_is_copied_is_neither_removed_nor_overwritten() {
    needs_root!();
    let daemon = Daemon::start();
    make(&daemon, "big", json!({}));
    // More than sockets and pipes hold, so that the export lasts until it is read.
    fs::write(data(&daemon, "big").join("file"), vec![b'x'; 16 << 20]).expect("a file");
    let mut stream = UnixStream::connect(daemon.path("run/docker.sock")).expect("a connection");
    let head = b"GET /volumes/big/export HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n";
    stream.write_all(head).expect("written");
    let mut begun = [0; 12];
    stream.read_exact(&mut begun).expect("an answer");
    assert_eq!(&begun, b"HTTP/1.1 200");
    for (method, path) in [("DELETE", "/volumes/big"), ("POST", "/volumes/big/import")] {
        refused(
            &raw(&daemon, method, path, b""),
            409,
            "being exported or imported",
        );
    }
    let pruned = daemon.must(200, "POST", "/v1.41/volumes/prune", None);
    assert_eq!(names(&pruned["VolumesDeleted"]), [""; 0]);
    let again = raw(&daemon, "GET", "/volumes/big/export", b"");
    assert!(
        again.status == 200 && again.body.len() > 16 << 20,
        "a second one beside it"
    );
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("the rest");
    assert!(rest.len() > 16 << 20);
    daemon.is_clean();
}
