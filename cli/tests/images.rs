//! Commands about images, volumes and the engine against a fake daemon.

mod fake;

use std::io::Write as _;
use std::process::Stdio;

use fake::{CHUNKED, Fake, answer, chunk, ran};

#[test]
fn load_sends_the_archive_and_prints_the_names() {
    let fake = Fake::start();
    fake.on("POST /images/load", |_, stream| {
        stream.write_all(CHUNKED).expect("written");
        let lines = concat!(
            "{\"status\":\"Loading layer\",\"id\":\"abc\",\"progressDetail\":{\"current\":5,\"total\":10}}\n",
            "{\"status\":\"Loading layer\",\"id\":\"abc\"}\n",
            "{\"stream\":\"Loaded image: alpine:latest\\n\"}\n"
        );
        stream.write_all(&chunk(lines.as_bytes())).expect("written");
        stream.write_all(&chunk(b"")).expect("written");
    });
    let archive = fake.file("a.tar");
    std::fs::write(&archive, vec![7u8; 300_000]).expect("written");
    let loaded = fake.run(&["load", "-i", &archive.display().to_string()]);
    assert_eq!(
        (loaded.status, loaded.stdout.as_str()),
        (0, "Loaded image: alpine:latest\n")
    );
    assert_eq!(loaded.stderr, "abc: Loading layer\n");
    assert_eq!(fake.wait_for("POST /images/load").body, vec![7u8; 300_000]);
    let mut piped = fake.kakoi(&["load", "-q"]);
    let input = std::fs::File::open(&archive).expect("opened");
    let quiet = ran(piped.stdin(Stdio::from(input)).output().expect("it runs"));
    assert_eq!(
        (quiet.stdout.as_str(), quiet.stderr.as_str()),
        ("Loaded image: alpine:latest\n", "")
    );
}

#[test]
fn a_failure_within_progress_is_a_failure() {
    let fake = Fake::start();
    fake.on("POST /images/load", |_, stream| {
        stream.write_all(CHUNKED).expect("written");
        let line = b"{\"error\":\"it is hostile\",\"errorDetail\":{\"message\":\"it is hostile\"}}\n";
        stream.write_all(&chunk(line)).expect("written");
        stream.write_all(&chunk(b"")).expect("written");
    });
    let archive = fake.file("a.tar");
    std::fs::write(&archive, b"x").expect("written");
    let loaded = fake.run(&["load", "-i", &archive.display().to_string()]);
    assert_eq!(
        (loaded.status, loaded.stderr.as_str()),
        (125, "Error: it is hostile\n")
    );
    let missing = fake.run(&["load", "-i", "/nonexistent.tar"]);
    assert_eq!(missing.status, 125);
    assert!(
        missing.stderr.contains("reading /nonexistent.tar"),
        "{}",
        missing.stderr
    );
    let folder = fake.run(&["load", "-i", "/"]);
    assert!(folder.stderr.contains("is a directory"), "{}", folder.stderr);
}

#[test]
fn import_sends_its_changes_and_prints_the_id() {
    let fake = Fake::start();
    fake.on("POST /images/create", |_, stream| {
        stream
            .write_all(&answer(200, "application/json", b"{\"status\":\"sha256:abc\"}\n"))
            .expect("written");
    });
    let archive = fake.file("a.tar");
    std::fs::write(&archive, b"x").expect("written");
    let name = archive.display().to_string();
    let imported = fake.run(&["import", "-c", "ENV A=1", &name, "host:5000/a:b"]);
    assert_eq!((imported.status, imported.stdout.as_str()), (0, "sha256:abc\n"));
    assert_eq!(
        fake.lines(),
        ["POST /images/create?fromSrc=-&repo=host%3A5000%2Fa&tag=b&changes=ENV%20A%3D1"]
    );
}

#[test]
fn save_writes_aside_and_keeps_an_old_archive_on_failure() {
    let fake = Fake::start();
    let file = fake.file("out.tar");
    let name = file.display().to_string();
    std::fs::write(&file, b"old").expect("written");
    assert_eq!(fake.run(&["save", "-o", &name, "missing"]).status, 125);
    assert_eq!(std::fs::read(&file).expect("read"), b"old");
    // Cut short: half an archive must not bear the name.
    fake.on("GET /images/get", |_, stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            .expect("written");
        stream.shutdown(std::net::Shutdown::Both).expect("shut down");
    });
    assert_eq!(fake.run(&["save", "-o", &name, "a"]).status, 125);
    assert_eq!(std::fs::read(&file).expect("read"), b"old");
    fake.on("GET /images/get", |_, stream| {
        stream
            .write_all(&answer(200, "application/x-tar", b"archive"))
            .expect("written");
    });
    assert_eq!(fake.run(&["save", "-o", &name, "a", "b"]).status, 0);
    assert_eq!(std::fs::read(&file).expect("read"), b"archive");
    assert_eq!(
        fake.lines().last().map(String::as_str),
        Some("GET /images/get?names=a&names=b")
    );
    assert_eq!(fake.run(&["save", "a"]).stdout, "archive");
    let left: Vec<_> = std::fs::read_dir(file.parent().expect("a folder"))
        .expect("read")
        .collect();
    assert_eq!(left.len(), 2, "the socket and the archive: {left:?}");
    assert_eq!(fake.run(&["save", "-o", "/nonexistent/x", "a"]).status, 125);
}

#[test]
fn images_have_a_row_per_name() {
    let fake = Fake::start();
    fake.json(
        "GET /images/json",
        200,
        r#"[{"Id":"sha256:0123456789abcdef","RepoTags":["a:1","a:2"],"Created":1,"Size":12345678,"Containers":-1},
            {"Id":"sha256:fedcba9876543210","RepoTags":null,"Created":1,"Size":5,"Containers":0}]"#,
    );
    let page = fake
        .run(&[
            "images",
            "--format",
            "{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}} {{.Containers}}",
        ])
        .stdout;
    assert_eq!(
        page,
        "a:1 0123456789ab 12.3MB N/A\na:2 0123456789ab 12.3MB N/A\n<none>:<none> fedcba987654 5B 0\n"
    );
    assert_eq!(fake.run(&["images", "-q"]).stdout, "0123456789ab\nfedcba987654\n");
    assert_eq!(fake.run(&["image", "ls", "-n"]).stdout.lines().count(), 3);
    fake.run(&["images", "a"]);
    assert!(fake.lines().last().expect("asked").contains("reference"));
}

#[test]
fn rmi_tells_its_effects_and_podman_s_statuses() {
    let fake = Fake::start();
    fake.json(
        "DELETE /images/a:1",
        200,
        r#"[{"Untagged":"a:1"},{"Deleted":"sha256:x"}]"#,
    );
    fake.json("DELETE /images/b", 409, r#"{"message":"conflict: in use"}"#);
    let removed = fake.run(&["rmi", "a:1"]);
    assert_eq!(
        (removed.status, removed.stdout.as_str()),
        (0, "Untagged: a:1\nDeleted: sha256:x\n")
    );
    assert_eq!(fake.run(&["rmi", "b"]).status, 2);
    assert_eq!(fake.run(&["rmi", "missing"]).status, 1);
    assert_eq!(fake.run(&["rmi", "-f", "missing"]).status, 0);
}

#[test]
fn volumes_are_made_listed_and_removed() {
    let fake = Fake::start();
    fake.json("POST /volumes/create", 201, r#"{"Name":"data"}"#);
    fake.json(
        "GET /volumes",
        200,
        r#"{"Volumes":[{"Name":"data","Driver":"local","Labels":{"a":"b"}}],"Warnings":null}"#,
    );
    fake.json("DELETE /volumes/data", 409, r#"{"message":"volume is in use"}"#);
    assert_eq!(
        fake.run(&["volume", "create", "-l", "a=b", "data"]).stdout,
        "data\n"
    );
    assert_eq!(
        fake.run(&["volume", "ls"]).stdout,
        "DRIVER   VOLUME NAME\nlocal    data\n"
    );
    assert_eq!(fake.run(&["volume", "ls", "-q"]).stdout, "data\n");
    assert_eq!(
        fake.run(&["volume", "ls", "--format", "{{.Labels}}"]).stdout,
        "a=b\n"
    );
    assert_eq!(fake.run(&["volume", "rm", "data"]).status, 2);
    assert_eq!(fake.run(&["volume", "rm", "missing"]).status, 1);
    assert_eq!(fake.run(&["volume", "exists", "missing"]).status, 1);
}

#[test]
fn volumes_are_exported_and_imported() {
    let fake = Fake::start();
    fake.json("GET /volumes/data", 200, r#"{"Name":"data"}"#);
    fake.json("POST /volumes/create", 201, r#"{"Name":"data"}"#);
    fake.json("GET /volumes/data/export", 200, "a tar");
    fake.json("POST /volumes/data/import", 204, "");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("data.tar").display().to_string();
    assert_eq!(fake.run(&["volume", "export", "-o", &file, "data"]).status, 0);
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "a tar");
    assert_eq!(fake.run(&["volume", "export", "data"]).stdout, "a tar");
    assert_eq!(fake.run(&["volume", "import", "data", &file]).status, 0);
    assert_eq!(fake.wait_for("POST /volumes/data/import").body, b"a tar");
    assert_eq!(fake.run(&["volume", "import", "missing", &file]).status, 125);
    assert_eq!(
        fake.run(&["volume", "export", "-o", &file, "missing"]).status,
        125
    );
    assert_eq!(
        std::fs::read_to_string(&file).expect("it is there"),
        "a tar",
        "a volume that is not there costs no old archive"
    );
    let again = fake.run(&["volume", "create", "data"]);
    assert!(
        again.status == 125 && again.stderr.contains("use --ignore"),
        "{}",
        again.stderr
    );
    assert_eq!(
        fake.run(&["volume", "create", "--ignore", "data"]).stdout,
        "data\n"
    );
}

#[test]
fn pruning_asks_and_refuses_where_nobody_can_answer() {
    let fake = Fake::start();
    fake.json(
        "POST /containers/prune",
        200,
        r#"{"ContainersDeleted":["a"],"SpaceReclaimed":2000}"#,
    );
    let refused = fake.run(&["container", "prune"]);
    assert_eq!(refused.status, 125);
    assert!(refused.stderr.contains("use --force"));
    assert_eq!(fake.lines(), Vec::<String>::new());
    assert_eq!(
        fake.run(&["container", "prune", "-f"]).stdout,
        "Deleted Containers:\na\n\nTotal reclaimed space: 2kB\n"
    );
}

#[test]
fn the_doctor_s_findings_decide_the_status() {
    let fake = Fake::start();
    fake.json(
        "GET /doctor",
        200,
        r#"{"Findings":[{"Name":"landlock","Status":"ok","Found":"ABI 7"}],"Facts":{}}"#,
    );
    let well = fake.run(&["doctor"]);
    assert_eq!(well.status, 0);
    assert!(well.stdout.contains("every rule"), "{}", well.stdout);
    fake.json(
        "GET /doctor",
        200,
        r#"{"Findings":[{"Name":"landlock","Status":"missing","Found":"nothing","Cost":"no file rules","Remedy":"boot with lsm=landlock"}],"Facts":{}}"#,
    );
    let ill = fake.run(&["doctor"]);
    assert_eq!(ill.status, 1);
    assert!(
        ill.stdout
            .contains("What it costs: no file rules\n  What to do:    boot with lsm=landlock"),
        "{}",
        ill.stdout
    );
}

#[test]
fn events_are_printed_as_they_come() {
    let fake = Fake::start();
    let event = r#"{"Type":"container","Action":"die","Actor":{"ID":"abc","Attributes":{"exitCode":"1","name":"web"}},"time":1,"timeNano":1000000001}"#;
    let line = format!("{event}\n");
    fake.on("GET /events", move |_, stream| {
        stream.write_all(CHUNKED).expect("written");
        let (first, second) = line.as_bytes().split_at(20);
        for piece in [first, second, b"\n" as &[u8], line.as_bytes(), b""] {
            stream.write_all(&chunk(piece)).expect("written");
        }
    });
    let spoken = "1970-01-01T00:00:01.000000001Z container die abc (exitCode=1, name=web)\n";
    assert_eq!(fake.run(&["events"]).stdout, spoken.repeat(2));
    let format = [
        "events",
        "--filter",
        "event=die",
        "--format",
        "{{.Actor.Attributes.name}}",
    ];
    assert_eq!(fake.run(&format).stdout, "web\nweb\n");
    assert_eq!(fake.run(&["events", "--filter", "die"]).status, 125);
}

#[test]
fn stats_are_reckoned_as_docker_reckons_them() {
    let fake = Fake::start();
    fake.json(
        "GET /containers/web/stats",
        200,
        r#"{"name":"/web","id":"0123456789abcdef","pids_stats":{"current":3},
            "cpu_stats":{"cpu_usage":{"total_usage":300},"system_cpu_usage":2000,"online_cpus":2},
            "precpu_stats":{"cpu_usage":{"total_usage":200},"system_cpu_usage":1000},
            "memory_stats":{"usage":2097152,"limit":4194304,"stats":{"inactive_file":1048576}}}"#,
    );
    let ran = fake.run(&[
        "stats",
        "--no-stream",
        "--format",
        "{{.Name}} {{.CPUPerc}} {{.MemUsage}} {{.MemPerc}} {{.PIDs}}",
        "web",
    ]);
    assert_eq!(ran.stdout, "web 20.00% 1MiB / 4MiB 25.00% 3\n");
    assert_eq!(fake.run(&["stats", "--no-stream", "missing"]).status, 125);
}
