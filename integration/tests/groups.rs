//! What a container's control group bounds, measures and lets through, whichever version the host mounts. `make device-test` runs the same in a
//! machine that has version 2 alone.
#![forbid(unsafe_code)]

use kakoi_integration::host::Host;
use kakoi_integration::{needs_root, wait};
use serde_json::{Value, json};
use std::time::Duration;

/// Reads its device, whose neighbour was not given; keeps a processor and some memory busy; ends when it is told to.
const APP: &str = "echo x > /dev/full 2>/dev/null; test -e /dev/full && head -c 4 /dev/full | wc -c; \
    mknod /tmp/mem c 1 1 2>/dev/null; head -c 1 /tmp/mem 2>/dev/null && echo LEAK; \
    dd if=/dev/zero of=/tmp/file bs=64k count=64 2>/dev/null; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; \
    echo ready; exec sleep 10000";

fn measured(host: &Host, name: &str) -> Value {
    let request = format!(
        "GET /v1.41/containers/{name}/stats?stream=false&one-shot=true HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    );
    let answer = host.raw_request(request.as_bytes());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let body = &body[body.find('{').expect("an object")..=body.rfind('}').expect("an object")];
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

#[test]
fn a_group_bounds_and_measures() {
    needs_root!();
    let host = Host::new();
    let flags = "run -d --name app --policy docker-default --memory 64m --memory-reservation 32m --pids-limit 50 --cpus 0.5 --cpu-shares 512 \
        --device /dev/full busybox:test sh -c";
    let words: Vec<&str> = flags.split_whitespace().chain([APP]).collect();
    host.ok(&words);
    let ready = wait::poll(Duration::from_secs(60), || {
        host.ok(&["logs", "app"]).contains("ready").then_some(())
    });
    assert!(ready.is_some(), "{}", host.ok(&["logs", "app"]));
    assert_eq!(host.ok(&["logs", "app"]), "4\nready", "one device and no other");

    let used = measured(&host, "app");
    assert_eq!(used["memory_stats"]["limit"], 64 << 20, "{used}");
    assert_eq!(used["pids_stats"], json!({"current": 1, "limit": 50}), "{used}");
    let at = |pointer: &str| used.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    let memory = at("/memory_stats/usage");
    assert!((1 << 16..64 << 20).contains(&memory), "{used}");
    assert!(at("/cpu_stats/cpu_usage/total_usage") > 1_000_000, "{used}");
    assert!(at("/cpu_stats/throttling_data/periods") > 0, "{used}");
    // What the stock client takes from the usage: in version 1 under another name.
    let caches = [
        "/memory_stats/stats/inactive_file",
        "/memory_stats/stats/total_inactive_file",
    ];
    assert!(caches.iter().any(|name| used.pointer(name).is_some()), "{used}");

    host.ok(&[
        "update",
        "--memory",
        "48m",
        "--memory-swap",
        "48m",
        "--pids-limit",
        "40",
        "--cpus",
        "0.25",
        "app",
    ]);
    let used = measured(&host, "app");
    assert_eq!(used["memory_stats"]["limit"], 48 << 20, "{used}");
    assert_eq!(used["pids_stats"]["limit"], 40, "{used}");
    host.kakoi(&["update", "--pids-limit", "0x", "app"])
        .is_one_clear_error();

    host.ok(&["pause", "app"]);
    host.until_state("app", "Status", &"paused".into());
    host.kakoi(&["exec", "app", "true"]).is_one_clear_error();
    host.ok(&["unpause", "app"]);
    assert_eq!(host.ok(&["exec", "app", "echo", "on"]), "on");
    // What joins is counted with the rest, and ends with it.
    host.kill_daemon();
    host.start_daemon();
    assert_eq!(measured(&host, "app")["memory_stats"]["limit"], 48 << 20);
    host.ok(&["rm", "--force", "--time", "0", "app"]);
    host.is_clean();
}
