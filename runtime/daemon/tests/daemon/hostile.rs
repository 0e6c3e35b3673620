//! Requests that fit the API's shape and not its sense, drawn from a seed: every route gets hostile names, queries and fields. The daemon is at fault for
//! none of them (no 500), says what is wrong in Docker's form, and has afterwards what it had before.
//!
//! `KAKOI_FUZZ_SEED=N` runs one again, `KAKOI_FUZZ_CASES=N` makes more. A daemon was also judged by schemathesis from Docker's own schema: integration/conformance.md.

use serde_json::{Map, Value, json};

use crate::given::{Daemon, ask, needs_root};

/// Requests of one run of the tests: each route some ten times, in two seconds.
const CASES: u64 = 600;

/// Method, path with `{}` for a name, keys of the query, fields of the body. Left out is what only ends with its client (attach, wait, followed
/// logs and events) and what goes to other hosts (pull, push, auth).
const ROUTES: &[(&str, &str, &[&str], &[&str])] = &[
    (
        "GET",
        "/containers/json",
        &["all", "limit", "size", "filters"],
        &[],
    ),
    ("GET", "/containers/{}/json", &["size"], &[]),
    ("GET", "/containers/{}/top", &["ps_args"], &[]),
    (
        "GET",
        "/containers/{}/logs?stdout=1",
        &["since", "until", "tail", "timestamps"],
        &[],
    ),
    ("GET", "/containers/{}/changes", &[], &[]),
    ("GET", "/containers/{}/stats?stream=0&one-shot=1", &[], &[]),
    ("GET", "/containers/{}/archive", &["path"], &[]),
    ("HEAD", "/containers/{}/archive", &["path"], &[]),
    (
        "PUT",
        "/containers/{}/archive",
        &["path", "noOverwriteDirNonDir", "copyUIDGID"],
        &["x"],
    ),
    (
        "POST",
        "/containers/create",
        &["name", "platform"],
        &[
            "Cmd",
            "Env",
            "User",
            "WorkingDir",
            "Entrypoint",
            "Labels",
            "ExposedPorts",
            "Volumes",
            "StopSignal",
            "StopTimeout",
            "Healthcheck",
            "Hostname",
            "Tty",
            "HostConfig",
            "NetworkingConfig",
        ],
    ),
    ("POST", "/containers/{}/start", &["detachKeys"], &["x"]),
    ("POST", "/containers/{}/stop", &["signal", "t"], &[]),
    ("POST", "/containers/{}/kill", &["signal"], &[]),
    ("POST", "/containers/{}/restart", &["signal", "t"], &[]),
    ("POST", "/containers/{}/pause", &[], &[]),
    ("POST", "/containers/{}/unpause", &[], &[]),
    ("POST", "/containers/{}/resize", &["h", "w"], &[]),
    (
        "POST",
        "/containers/{}/update",
        &[],
        &[
            "Memory",
            "MemorySwap",
            "CpuShares",
            "CpuQuota",
            "CpuPeriod",
            "CpusetCpus",
            "CpusetMems",
            "NanoCpus",
            "PidsLimit",
            "RestartPolicy",
            "BlkioWeight",
            "MemoryReservation",
        ],
    ),
    ("POST", "/containers/{}/rename", &["name"], &[]),
    (
        "POST",
        "/containers/{}/exec",
        &[],
        &[
            "Cmd",
            "Env",
            "User",
            "WorkingDir",
            "Tty",
            "Privileged",
            "DetachKeys",
        ],
    ),
    ("POST", "/containers/prune", &["filters"], &[]),
    ("DELETE", "/containers/{}", &["force", "v", "link"], &[]),
    ("GET", "/exec/{}/json", &[], &[]),
    ("POST", "/exec/{}/start", &[], &["Detach", "Tty"]),
    ("POST", "/exec/{}/resize", &["h", "w"], &[]),
    (
        "GET",
        "/images/json",
        &["all", "filters", "digests", "shared-size", "manifests"],
        &[],
    ),
    ("GET", "/images/{}/json", &["platform", "manifests"], &[]),
    ("GET", "/images/{}/history", &["platform"], &[]),
    ("POST", "/images/{}/tag", &["repo", "tag"], &[]),
    ("POST", "/images/prune", &["filters"], &[]),
    ("POST", "/images/load", &["quiet", "platform"], &["x"]),
    ("GET", "/images/get", &["names", "platform"], &[]),
    ("DELETE", "/images/{}", &["force", "noprune", "platforms"], &[]),
    (
        "POST",
        "/commit",
        &[
            "container",
            "repo",
            "tag",
            "comment",
            "author",
            "pause",
            "changes",
        ],
        &["Cmd", "Env", "Labels"],
    ),
    ("GET", "/networks", &["filters"], &[]),
    ("GET", "/networks/{}", &["verbose", "scope"], &[]),
    (
        "POST",
        "/networks/create",
        &[],
        &[
            "Name",
            "Driver",
            "IPAM",
            "Options",
            "Labels",
            "Internal",
            "EnableIPv6",
            "Scope",
            "ConfigFrom",
        ],
    ),
    (
        "POST",
        "/networks/{}/connect",
        &[],
        &["Container", "EndpointConfig"],
    ),
    ("POST", "/networks/{}/disconnect", &[], &["Container", "Force"]),
    ("POST", "/networks/prune", &["filters"], &[]),
    ("DELETE", "/networks/{}", &[], &[]),
    ("GET", "/volumes", &["filters"], &[]),
    ("GET", "/volumes/{}", &[], &[]),
    (
        "POST",
        "/volumes/create",
        &[],
        &["Name", "Driver", "DriverOpts", "Labels", "ClusterVolumeSpec"],
    ),
    ("POST", "/volumes/prune", &["filters"], &[]),
    ("DELETE", "/volumes/{}", &["force"], &[]),
    ("GET", "/events?until=1", &["since", "filters"], &[]),
    ("GET", "/system/df", &["type", "verbose"], &[]),
    ("GET", "/info", &[], &[]),
    ("GET", "/version", &[], &[]),
    ("POST", "/build", &["t", "platform"], &["x"]),
    ("POST", "/swarm/init", &[], &["ListenAddr"]),
    ("GET", "/secrets/{}", &[], &[]),
    ("TRACE", "/containers/{}/json", &[], &[]),
    ("POST", "/{}/{}", &["x"], &["x"]),
];

/// What stands in a path, escaped where HTTP wants it.
const NAMES: &[&str] = &[
    "c",
    "c",
    "bb",
    "nope",
    "%00",
    "%ff%fe",
    "..%2f..%2fetc",
    "%2e%2e",
    ".",
    "-",
    "*",
    "a%20b",
    "%E2%80%AE",
    "%",
    "%zz",
    "sha256:",
    "a@b",
    "0000000000000000000000000000000000000000000000000000000000000000",
];

/// What stands in a query, likewise.
const WORDS: &[&str] = &[
    "",
    "0",
    "1",
    "-1",
    "true",
    "null",
    "NaN",
    "1e400",
    "99999999999999999999",
    "-9223372036854775808",
    "%00",
    "%7B",
    "%5B%5D",
    "%7B%7D",
    "%22",
    "%7B%22label%22:%7B%22a%22:true%7D%7D",
    "%7B%22label%22:%5B%22a%22%5D%7D",
    "%7B%22until%22:%5B%22x%22%5D%7D",
    "%7B%22%22:%5B%5D%7D",
    "%7B%22label%22:1%7D",
    "..%2f..%2fetc%2fpasswd",
    "/",
    "a:b:c",
    "linux/amd64",
    "foo/bar/baz/qux",
    "c",
    "bb",
    "%F0%9F%90%8B",
    "65536",
    "SIGKILL",
];

struct Random(u64);

impl Random {
    /// splitmix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, count: usize) -> usize {
        (self.next() % count as u64) as usize
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    fn value(&mut self, depth: usize) -> Value {
        match self.below(if depth > 3 { 12 } else { 16 }) {
            0 => Value::Null,
            1 => json!(true),
            2 => json!(-1),
            3 => json!(i64::MIN),
            4 => json!(u64::MAX),
            5 => json!(1e308),
            6 => json!(""),
            7 => json!("\u{0}"),
            8 => json!("../../../etc/passwd"),
            9 => json!("x".repeat(5000)),
            10 => json!(self.of(WORDS)),
            11 => json!(self.of(&[
                "default",
                "bridge",
                "host",
                "container:c",
                "always",
                "0-3",
                "80/tcp",
                "10.0.0.0/8",
                "kakoi=strict"
            ])),
            12 => json!([self.value(depth + 1)]),
            13 => json!([self.value(depth + 1), self.value(depth + 1)]),
            _ => {
                let key = self.of(&[
                    "",
                    "a",
                    "80/tcp",
                    "Name",
                    "Config",
                    "Subnet",
                    "Memory",
                    "Binds",
                    "PortBindings",
                    "NetworkMode",
                    "CapAdd",
                    "Devices",
                    "Test",
                    "IPAMConfig",
                    "Mounts",
                    "Ulimits",
                    "Sysctls",
                    "Tmpfs",
                    "SecurityOpt",
                    "RestartPolicy",
                    "LogConfig",
                ]);
                json!({ key: self.value(depth + 1) })
            }
        }
    }

    /// One request.
    fn request(&mut self) -> (&'static str, String, Vec<u8>) {
        let (method, path, keys, fields) = self.of(ROUTES);
        let mut target = String::new();
        for (number, part) in path.split("{}").enumerate() {
            if number > 0 {
                target.push_str(self.of(NAMES));
            }
            target.push_str(part);
        }
        for _ in 0..self.below(3).min(keys.len()) {
            target.push(if target.contains('?') { '&' } else { '?' });
            target.push_str(&format!("{}={}", self.of(keys), self.of(WORDS)));
        }
        let mut body = Map::new();
        for _ in 0..self.below(4).min(fields.len()) {
            body.insert(self.of(fields).to_owned(), self.value(0));
        }
        if path == "/containers/create" {
            body.insert("Image".into(), json!("bb"));
        }
        let bytes = match self.below(20) {
            0 => b"{".to_vec(),
            1 => b"\xff\x00".to_vec(),
            2 => self.value(0).to_string().into_bytes(),
            _ if fields.is_empty() => Vec::new(),
            _ => Value::Object(body).to_string().into_bytes(),
        };
        (method, target, bytes)
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn hostile_requests_are_the_clients_fault() {
    needs_root!();
    let daemon = Daemon::start();
    let socket = daemon.path("run/docker.sock");
    let seed = number("KAKOI_FUZZ_SEED").unwrap_or_else(|| u64::from(std::process::id()) << 20);
    println!("KAKOI_FUZZ_SEED={seed}");
    let mut random = Random(seed);
    let mut wrong = Vec::new();
    for _ in 0..number("KAKOI_FUZZ_CASES").unwrap_or(CASES) {
        // What is asked about is there, unless a request before took it away, as it may.
        if daemon
            .ask("GET", "/containers/c/json", None)
            .expect("an answer")
            .0
            == 404
        {
            if daemon.ask("GET", "/images/bb/json", None).expect("an answer").0 == 404 {
                daemon.load();
            }
            daemon.create(
                "c",
                &["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"],
                json!({}),
            );
        }
        let (method, target, body) = random.request();
        let shown = format!("{method} {target} {}", String::from_utf8_lossy(&body));
        let (status, text) = match ask(&socket, method, &target, &body) {
            Ok(answer) => answer,
            Err(cause) => {
                wrong.push(format!("{shown}: {cause}"));
                continue;
            }
        };
        let says = serde_json::from_str::<Value>(&text).unwrap_or_default();
        // dockerd's own answers.
        let is_dockers = status == 500
            && ["is not paused", "cannot remove the default link name"]
                .iter()
                .any(|words| text.contains(words));
        let is_said = status < 400
            || method == "HEAD"
            || says["message"].as_str().is_some_and(|words| !words.is_empty());
        if !is_said || (status >= 500 && !matches!(status, 501 | 503) && !is_dockers) {
            wrong.push(format!("{shown}: {status} {text}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "seed {seed}:\n{}\n{}",
        wrong.join("\n"),
        daemon.log()
    );
    daemon.must(200, "GET", "/_ping", None);
    daemon.is_clean();
}
