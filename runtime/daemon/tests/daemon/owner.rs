//! The owner's ceiling and the policy's own limits hold against command lines, at creation and at every update after.

use std::fs;

use serde_json::{Value, json};

use crate::given::{Daemon, needs_root};

#[test]
fn what_has_one_answer_here_is_not_taken_for_another() {
    needs_root!();
    let daemon = Daemon::start();
    let iops = json!([{"Path": "/dev/vda", "Rate": 10}]);
    for (status, host) in [
        (400, json!({"Runtime": "evil"})),
        (400, json!({"Isolation": "hyperv"})),
        (404, json!({"VolumeDriver": "nfs", "Binds": ["data:/data"]})),
        (501, json!({"CpuRealtimeRuntime": 1000})),
        (501, json!({"CpuRealtimePeriod": 1000})),
        (
            501,
            json!({"BlkioWeightDevice": [{"Path": "/dev/vda", "Weight": 10}]}),
        ),
        (501, json!({"BlkioDeviceReadIOps": iops})),
        (501, json!({"BlkioDeviceWriteIOps": iops})),
        // Root of the container would be root of the host.
        (403, json!({"UsernsMode": "keep-id"})),
    ] {
        let body = json!({"Image": "bb", "Cmd": ["true"], "HostConfig": host});
        daemon.must(status, "POST", "/containers/create?name=x", Some(body));
    }
    daemon.create(
        "x",
        &["true"],
        json!({"Runtime": "kakoi", "Isolation": "default", "VolumeDriver": "local"}),
    );
    daemon.is_clean();
}

#[test]
fn a_request_that_cannot_be_is_no_failure_of_the_daemon() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.create("x", &["sleep", "1000"], json!({}));
    daemon.must(204, "POST", "/containers/x/start", None);
    let exec = |body: Value| daemon.must(201, "POST", "/containers/x/exec", Some(body))["Id"].clone();
    let begin = |id: &Value| format!("/exec/{}/start", id.as_str().expect("an id"));
    for (place, kind) in [
        ("/nonesuch", "command_not_found"),
        ("/bin/busybox", "command_not_executable"),
    ] {
        let id = exec(json!({"Cmd": ["true"], "WorkingDir": place}));
        let answer = daemon.must(400, "POST", &begin(&id), Some(json!({"Detach": true})));
        let text = answer["message"].as_str().expect("text");
        assert!(text.contains(place), "{text}");
        assert_eq!(answer["kind"], kind, "{answer}");
    }
    let id = exec(json!({"Cmd": ["true"], "WorkingDir": "/bin"}));
    daemon.must(200, "POST", &begin(&id), Some(json!({"Detach": true})));
    daemon.must(
        403,
        "POST",
        "/containers/x/exec",
        Some(json!({"Cmd": ["true"], "Privileged": true})),
    );
    assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
    daemon.is_clean();
}

/// What a running container's control group holds, in version 1 or 2: the file's text in whichever place has it.
fn held(daemon: &Daemon, name: &str, controller: &str, file: &str) -> String {
    let state = daemon.must(200, "GET", &format!("/containers/{name}/json"), None);
    let pid = state["State"]["Pid"].as_i64().expect("a pid");
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
    let path = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        controllers
            .split(',')
            .any(|own| own == controller)
            .then(|| format!("/sys/fs/cgroup/{controllers}{path}/{file}"))
    });
    let text = fs::read_to_string(path.expect("the controller is there")).expect("readable");
    text.trim().to_owned()
}

fn refused(daemon: &Daemon, path: &str, body: Value, says: &[&str]) {
    let answer = daemon.must(403, "POST", path, Some(body.clone()));
    let text = answer["message"].as_str().expect("text");
    for words in says {
        assert!(text.contains(words), "{body}: `{words}` in\n{text}");
    }
}

#[test]
fn an_update_stays_within_policy_and_ceiling() {
    needs_root!();
    let daemon = Daemon::under(
        "capabilities: [ALL]\nnetwork: [none]\nlimits: {memory: 128MiB, cpu: 50%, pids: 5000, swap: 10MiB}",
    );
    daemon.create("app", &["sleep", "1000"], json!({"Memory": 64 << 20}));
    daemon.must(204, "POST", "/containers/app/start", None);
    let pids = held(&daemon, "app", "pids", "pids.max");
    for (body, says) in [
        (json!({"Memory": 1 << 30}), "limits.memory 1GiB (--memory)"),
        (json!({"MemorySwap": -1}), "limits.swap unlimited (--memory-swap)"),
        (
            json!({"NanoCpus": 2_000_000_000_i64}),
            "limits.cpu 2000m (--cpus)",
        ),
        (json!({"CpuQuota": 200_000}), "limits.cpu 2000m (--cpus)"),
        (json!({"PidsLimit": 100_000}), "limits.pids 100000 (--pids-limit)"),
        (json!({"PidsLimit": -1}), "limits.pids unlimited (--pids-limit)"),
        (json!({"PidsLimit": 0}), "limits.pids unlimited (--pids-limit)"),
    ] {
        refused(
            &daemon,
            "/containers/app/update",
            body,
            &[says, "+ allowed: at most", "remedy:"],
        );
    }
    // The policy's own stands below the owner's.
    refused(
        &daemon,
        "/containers/app/update",
        json!({"PidsLimit": 4500}),
        &["policy `strict`", "<strict>:"],
    );
    assert_eq!(
        held(&daemon, "app", "pids", "pids.max"),
        pids,
        "a refusal changes nothing"
    );
    assert_eq!(
        held(&daemon, "app", "memory", "memory.limit_in_bytes"),
        (64 << 20).to_string()
    );
    daemon.must(
        200,
        "POST",
        "/containers/app/update",
        Some(json!({"Memory": 96 << 20, "NanoCpus": 250_000_000, "PidsLimit": 40})),
    );
    assert_eq!(held(&daemon, "app", "pids", "pids.max"), "40");
    assert_eq!(
        held(&daemon, "app", "memory", "memory.limit_in_bytes"),
        (96 << 20).to_string()
    );
    assert_eq!(held(&daemon, "app", "cpu", "cpu.cfs_quota_us"), "25000");
    let inspected = daemon.must(200, "GET", "/containers/app/json", None);
    assert_eq!(inspected["HostConfig"]["PidsLimit"], 40);
    daemon.is_clean();
}

#[test]
fn no_limit_is_applied_where_nobody_set_one() {
    needs_root!();
    let daemon = Daemon::start();
    let host = json!({"SecurityOpt": ["kakoi=docker-default"], "PidsLimit": 30});
    daemon.create("app", &["sleep", "1000"], host);
    daemon.must(204, "POST", "/containers/app/start", None);
    assert_eq!(held(&daemon, "app", "pids", "pids.max"), "30");
    for none in [-1, 0] {
        daemon.must(
            200,
            "POST",
            "/containers/app/update",
            Some(json!({"PidsLimit": 30})),
        );
        daemon.must(
            200,
            "POST",
            "/containers/app/update",
            Some(json!({"PidsLimit": none})),
        );
        assert_eq!(held(&daemon, "app", "pids", "pids.max"), "max", "{none}");
    }
    daemon.is_clean();
}

#[test]
fn flags_stay_within_policy_and_ceiling() {
    needs_root!();
    let daemon = Daemon::under(
        "capabilities: [ALL]\nnetwork: [none]\nlimits: {tmpfs: 1MiB}\noom_score_adj: -10\ncgroup_parents: [/kakoi-test-owner]",
    );
    let policy = "kakoi: 1\nname: small\nextends: [strict]\nlimits: {memory: 64MiB, files: 64}\n";
    let create = |host: Value| json!({"Image": "bb", "Cmd": ["true"], "HostConfig": host, "Policy": {"Name": "small.yaml", "Source": policy}});
    let other = format!("/kakoi/{}", "0a".repeat(32));
    for (host, says) in [
        (json!({"Memory": 1 << 30}), "at most 64MiB (small.yaml:4:18)"),
        (
            json!({"Ulimits": [{"Name": "nofile", "Soft": 10_000, "Hard": 10_000}]}),
            "limits.files 10000 (--ulimit nofile)",
        ),
        (json!({"PidsLimit": -1}), "limits.pids unlimited (--pids-limit)"),
        (
            json!({"Tmpfs": {"/t": "size=100g"}}),
            "tmpfs at /t of 100GiB (--tmpfs)",
        ),
        (
            json!({"Tmpfs": {"/t": "nr_blocks=0"}}),
            "tmpfs at /t of unlimited (--tmpfs)",
        ),
        (
            json!({"Mounts": [{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 2 << 20}}]}),
            "tmpfs at /t of 2MiB (--tmpfs)",
        ),
        (json!({"ShmSize": 10_u64 << 30}), "/dev/shm of 10GiB (--shm-size)"),
        (
            json!({"OomScoreAdj": -11}),
            "an OOM score adjustment of -11 (--oom-score-adj)",
        ),
        (
            json!({"CgroupParent": "/system.slice"}),
            "control group below /system.slice (--cgroup-parent)",
        ),
        (
            json!({"CgroupParent": other}),
            "it lies within the group of a container",
        ),
    ] {
        refused(&daemon, "/containers/create?name=x", create(host), &[says]);
    }
    for host in [
        json!({"Memory": 32 << 20, "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 64}]}),
        json!({"Tmpfs": {"/t": "size=1m"}, "ShmSize": 1 << 20, "OomScoreAdj": -10}),
        json!({"CgroupParent": "/kakoi-test-owner/apps"}),
        json!({"CgroupParent": "/kakoi/apps", "OomScoreAdj": 10}),
    ] {
        daemon.must(201, "POST", "/containers/create?name=x", Some(create(host)));
        daemon.must(204, "DELETE", "/containers/x", None);
    }
    daemon.create("y", &["sleep", "1000"], json!({"Tmpfs": {"/t": ""}}));
    daemon.must(204, "POST", "/containers/y/start", None);
    let pid = daemon.state("y")["Pid"].clone();
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("it runs");
    for place in [" /t ", " /dev/shm "] {
        let line = mounts.lines().find(|line| line.contains(place)).expect("mounted");
        assert!(line.contains("size=1024k"), "the owner's size, unasked: {line}");
    }
    daemon.is_clean();
}

#[test]
fn ports_stay_within_the_ceiling() {
    needs_root!();
    let daemon = Daemon::under(
        "privileged: true\nnetwork: [none, bridge, host]\negress: any\npublish: [8000-8010, {ports: [53], protocol: udp, address: 127.0.0.1}]\nnetworks: {}",
    );
    let body = |mode: &str, host: Value| {
        let mut body =
            json!({"Image": "bb", "Cmd": ["true"], "ExposedPorts": {"80/tcp": {}}, "HostConfig": host});
        body["HostConfig"]["NetworkMode"] = json!(mode);
        body
    };
    let bound = |inside: &str, ip: &str, port: &str| json!({"PortBindings": {inside: [{"HostIp": ip, "HostPort": port}]}});
    for (host, says) in [
        (
            bound("80/tcp", "", "9000"),
            "port 9000 tcp at every address of the host (--publish)",
        ),
        (bound("80/tcp", "", "8005-8011"), "port 8005-8011 tcp"),
        (bound("80/tcp", "", ""), "any free port tcp"),
        (bound("80/tcp", "", "0"), "any free port tcp"),
        (json!({"PortBindings": {"80/tcp": null}}), "any free port tcp"),
        (json!({"PublishAllPorts": true}), "any free port tcp"),
        (bound("80/udp", "", "8000"), "port 8000 udp"),
        (bound("53/udp", "", "53"), "port 53 udp at every address"),
        (bound("53/udp", "127.0.0.2", "53"), "port 53 udp at 127.0.0.2"),
        (bound("53/sctp", "127.0.0.1", "53"), "port 53 sctp"),
    ] {
        let words = [says, "ceiling.yaml:", "8000-8010 tcp; 53 udp at 127.0.0.1/32"];
        refused(
            &daemon,
            "/containers/create?name=x",
            body("bridge", host.clone()),
            &words,
        );
        // Nothing is published there.
        daemon.must(201, "POST", "/containers/create?name=x", Some(body("none", host)));
        daemon.must(204, "DELETE", "/containers/x", None);
    }
    for host in [
        json!({}),
        bound("80/tcp", "", "8000-8010"),
        bound("80/tcp", "::1", "8010"),
        bound("53/udp", "127.0.0.1", "53"),
    ] {
        daemon.must(
            201,
            "POST",
            "/containers/create?name=x",
            Some(body("bridge", host)),
        );
        daemon.must(204, "DELETE", "/containers/x", None);
    }
    let network = |subnet: &str| json!({"Name": "app", "IPAM": {"Config": [{"Subnet": subnet}]}});
    refused(
        &daemon,
        "/networks/create",
        network("10.89.0.0/24"),
        &["subnet 10.89.0.0/24 (--subnet)"],
    );
    daemon.must(201, "POST", "/networks/create", Some(json!({"Name": "app"})));
    daemon.must(204, "DELETE", "/networks/app", None);
    let silent = Daemon::under("privileged: true\nnetwork: [none, bridge]");
    let words = ["a network of one's own", "`networks: {}`"];
    refused(&silent, "/networks/create", json!({"Name": "app"}), &words);
    refused(
        &silent,
        "/containers/create?name=x",
        body("bridge", json!({})),
        &["packets to anywhere", "`egress: any`"],
    );
    assert!(
        silent.log().contains("a bridge that no packet leaves"),
        "{}",
        silent.log()
    );
    for daemon in [&daemon, &silent] {
        daemon.is_clean();
    }
}

/// Many clients send all of their files before they read an answer, and see nothing but a broken connection where it came earlier.
#[test]
fn a_build_is_refused_when_its_files_have_come() {
    needs_root!();
    let daemon = Daemon::start();
    let files = Value::from("x".repeat(3 << 20));
    let answer = daemon.must(501, "POST", "/build?t=a", Some(files));
    let text = answer["message"].as_str().expect("text");
    assert!(text.contains("docker save IMAGE | kakoi load"), "{text}");
    daemon.is_clean();
}
