//! Limits: what a command line asks, the policy's own, the owner's.

use kakoi_policy::confinement::MountSource;
use kakoi_policy::{Amount, Ceiling, LimitRequests, MountRequest, OwnLimits, Requests, bound, bound_limits};

use super::given::{compiled, composed};

fn ceiling(text: &str) -> Ceiling {
    let text = format!("kakoi: 1\nprivileged: true\n{text}\negress: any\n");
    Ceiling::parse("ceiling.yaml", &text).unwrap_or_else(|errors| panic!("{errors}"))
}

fn limits(change: impl FnOnce(&mut LimitRequests)) -> Requests {
    let mut requests = Requests::none();
    change(&mut requests.limits);
    requests
}

fn tmpfs(bytes: Option<u64>) -> Requests {
    Requests {
        mounts: vec![MountRequest {
            source: MountSource::Tmpfs(bytes),
            target: "/t".to_owned(),
            read_only: false,
        }],
        ..Requests::none()
    }
}

const POLICY: &str = "kakoi: 1\nname: app\nextends: [strict]\nlimits: {memory: 64MiB, files: 64, tmpfs: 1MiB, swap: unlimited}\n";

#[test]
fn a_command_line_lowers_the_policys_own_limits_and_never_raises_one() {
    let app = composed(POLICY);
    let open = ceiling("");
    for (what, asked, says) in [
        (
            "memory",
            limits(|asked| asked.memory = Some(Amount::At(1 << 30))),
            "limits.memory 1GiB (--memory)\n  + allowed: at most 64MiB (app.yaml:4:18)",
        ),
        (
            "files",
            limits(|asked| asked.open_files = Some(Amount::At(10_000))),
            "limits.files 10000 (--ulimit nofile)\n  + allowed: at most 64 (app.yaml:4:32)",
        ),
        (
            "no limit",
            limits(|asked| asked.pids = Some(Amount::Unlimited)),
            "limits.pids unlimited (--pids-limit)\n  + allowed: at most 4096 (<strict>:",
        ),
        (
            "shm",
            limits(|asked| asked.shm = Some(Amount::At(10 << 30))),
            "/dev/shm of 10GiB (--shm-size)\n  + allowed: at most 1MiB",
        ),
        (
            "tmpfs",
            tmpfs(Some(100 << 30)),
            "tmpfs at /t of 100GiB (--tmpfs)\n  + allowed: at most 1MiB",
        ),
        (
            "endless tmpfs",
            tmpfs(Some(u64::MAX)),
            "tmpfs at /t of unlimited (--tmpfs)",
        ),
    ] {
        let shown = bound(&app.clone().request(&asked), &open)
            .expect_err(what)
            .to_string();
        assert!(
            shown.starts_with("the command line asks for more than policy `app` allows\n")
                && shown.contains(says),
            "{what}: {shown}"
        );
        let trimming = ceiling("on_excess: trim\n");
        assert!(
            bound(&app.clone().request(&asked), &trimming).is_err(),
            "{what}: never trimmed"
        );
    }
    for less in [
        limits(|asked| asked.memory = Some(Amount::At(32 << 20))),
        limits(|asked| asked.swap = Some(Amount::Unlimited)),
        limits(|asked| asked.cpu_millis = Some(Amount::At(64_000))),
        limits(|asked| asked.shm = Some(Amount::At(1 << 20))),
        tmpfs(Some(1 << 20)),
        tmpfs(None),
    ] {
        let bounded = bound(&app.clone().request(&less), &open).unwrap_or_else(|excess| panic!("{excess}"));
        let memory = compiled(&bounded).limits.memory_bytes;
        assert_eq!(
            memory,
            less.limits.memory.and_then(Amount::value).or(Some(64 << 20))
        );
    }
}

#[test]
fn the_owners_limits_bound_what_is_unlimited_and_what_is_a_file_in_memory() {
    let app = composed("kakoi: 1\nname: app\nextends: [docker-default]\n");
    let owner = ceiling(
        "network: [bridge]\nlimits: {swap: 10MiB, tmpfs: 1MiB, pids: 50}\noom_score_adj: -100\ncgroup_parents: [/apps]\n",
    );
    let adjusted = |oom_score_adj| Requests {
        oom_score_adj: Some(oom_score_adj),
        ..Requests::none()
    };
    let parent = |path: &str| Requests {
        cgroup_parent: Some(path.to_owned()),
        ..Requests::none()
    };
    let none = ceiling("network: [bridge]\n");
    for (what, asked, says) in [
        (
            "swap",
            limits(|asked| asked.swap = Some(Amount::Unlimited)),
            "limits.swap unlimited (--memory-swap)",
        ),
        (
            "pids",
            limits(|asked| asked.pids = Some(Amount::Unlimited)),
            "limits.pids unlimited (--pids-limit)",
        ),
        ("tmpfs", tmpfs(Some(100 << 30)), "tmpfs at /t of 100GiB (--tmpfs)"),
        (
            "shm",
            limits(|asked| asked.shm = Some(Amount::At(10 << 30))),
            "/dev/shm of 10GiB (--shm-size)",
        ),
        (
            "spared",
            adjusted(-101),
            "an OOM score adjustment of -101 (--oom-score-adj)",
        ),
        (
            "a group",
            parent("/system.slice"),
            "control group below /system.slice (--cgroup-parent)",
        ),
        ("a sibling", parent("/appsx"), "control group below /appsx"),
    ] {
        let shown = bound(&app.clone().request(&asked), &owner)
            .expect_err(what)
            .to_string();
        assert!(
            shown.starts_with("policy `app` asks for more than this device allows\n")
                && shown.contains(says)
                && shown.contains("(ceiling.yaml:"),
            "{what}: {shown}"
        );
    }
    let shown = bound(&app.clone().request(&adjusted(-1)), &none).expect_err("nobody is spared unsaid");
    assert!(shown.to_string().contains("+ allowed: at least 0"), "{shown}");
    assert!(bound(&app.clone().request(&parent("/apps")), &none).is_err());
    for fits in [
        limits(|asked| asked.swap = Some(Amount::At(10 << 20))),
        limits(|asked| asked.shm = Some(Amount::At(1 << 20))),
        tmpfs(Some(1 << 20)),
        tmpfs(None),
        adjusted(-100),
        adjusted(500),
        parent("/apps"),
        parent("/apps/one"),
    ] {
        let bounded = bound(&app.clone().request(&fits), &owner).unwrap_or_else(|excess| panic!("{excess}"));
        assert_eq!(compiled(&bounded).limits.pids, Some(50), "the owner's, unasked");
    }
    for bad in [
        "oom_score_adj: 5",
        "oom_score_adj: -1001",
        "oom_score_adj: low",
        "cgroup_parents: [apps]",
    ] {
        assert!(
            Ceiling::parse("c.yaml", &format!("kakoi: 1\n{bad}\n")).is_err(),
            "{bad}"
        );
    }
    let own = composed("kakoi: 1\nname: app\nextends: [strict]\nmounts: [{tmpfs: 5MiB, target: /t}]\n");
    let shown = bound(&own, &owner).expect_err("a policy's own tmpfs").to_string();
    assert!(shown.contains("tmpfs at /t of 5MiB (app.yaml:4:"), "{shown}");
    let trimming = ceiling("limits: {tmpfs: 1MiB}\non_excess: trim\n");
    let trimmed = compiled(&bound(&own, &trimming).unwrap_or_else(|excess| panic!("{excess}")));
    assert_eq!(
        trimmed.filesystem.mounts[0].source,
        MountSource::Tmpfs(Some(1 << 20))
    );
    assert!(
        trimmed
            .losses
            .iter()
            .any(|loss| loss.rule.contains("tmpfs at /t")),
        "{:?}",
        trimmed.losses
    );
}

#[test]
fn a_made_containers_limits_are_judged_by_its_policy_as_it_was_and_the_ceiling_as_it_is() {
    let own = composed(POLICY).own_limits();
    let stored = serde_json::to_string(&own).expect("plain data");
    let own: OwnLimits = serde_json::from_str(&stored).expect("what was written");
    let owner = ceiling("network: [bridge]\nlimits: {memory: 128MiB, cpu: 50%, pids: 5000}\n");
    let mut asked = LimitRequests::none();
    asked.memory = Some(Amount::At(1 << 30));
    asked.swap = Some(Amount::Unlimited);
    asked.cpu_millis = Some(Amount::At(2000));
    asked.pids = Some(Amount::At(100_000));
    let shown = bound_limits("app", &own, &asked, &owner)
        .expect_err("too much")
        .to_string();
    for says in [
        "more is asked for than policy `app` and this device allow",
        "limits.memory 1GiB (--memory)\n  + allowed: at most 64MiB (app.yaml:4:18)",
        "limits.memory 1GiB (--memory)\n  + allowed: at most 128MiB (ceiling.yaml:4:18)",
        "limits.cpu 2000m (--cpus)\n  + allowed: at most 500m (ceiling.yaml:4:31)",
        "limits.pids 100000 (--pids-limit)\n  + allowed: at most 4096 (<strict>:",
    ] {
        assert!(shown.contains(says), "`{says}` in\n{shown}");
    }
    assert!(
        !shown.contains("limits.swap"),
        "the policy says unlimited, the owner nothing: {shown}"
    );
    asked.memory = Some(Amount::At(64 << 20));
    asked.cpu_millis = Some(Amount::At(500));
    asked.pids = None;
    let bounded = bound_limits("app", &own, &asked, &owner).unwrap_or_else(|excess| panic!("{excess}"));
    assert_eq!(bounded.limits, asked);
    assert_eq!(
        (bounded.most.memory_bytes, bounded.most.pids),
        (Some(64 << 20), Some(4096))
    );
    let silent = composed("kakoi: 1\nextends: [docker-default]\n").own_limits();
    let trimming = ceiling("limits: {pids: 5000}\non_excess: trim\n");
    asked.pids = Some(Amount::Unlimited);
    let bounded = bound_limits("app", &silent, &asked, &trimming).unwrap_or_else(|excess| panic!("{excess}"));
    assert_eq!(bounded.limits.pids, Some(Amount::At(5000)));
    assert_eq!(bounded.trimmed.len(), 1, "{:?}", bounded.trimmed);
}
