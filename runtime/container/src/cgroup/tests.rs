//! The groups of this host, and folders that look like groups of other hosts.

use super::*;

fn fake(mode: CgroupMode, path: &Path) -> Cgroup {
    let controllers = ["memory", "cpu", "pids", "freezer", "cpuacct", "blkio", "cpuset"].map(str::to_owned);
    Cgroup {
        mode,
        folders: vec![Folder {
            controllers: controllers.into(),
            path: path.to_owned(),
        }],
        parents: vec![],
    }
}

fn folder(name: &str, files: &[(&str, &str)]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("kakoi-cgroup-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&path).expect("a folder");
    for (file, text) in files {
        std::fs::write(path.join(file), text).expect("a file");
    }
    path
}

#[test]
fn paths_that_leave_the_hierarchy_are_refused() {
    let host = Hierarchies::parse("40 24 0:40 / /cg rw - cgroup2 cgroup2 rw\n").expect("one hierarchy");
    assert!(Cgroup::below(&host, "/kakoi/x").is_ok());
    for path in ["", "/", "kakoi", "/../x", "/kakoi/../../x"] {
        assert!(
            matches!(Cgroup::below(&host, path), Err(CgroupError::Path(_))),
            "{path}"
        );
    }
}

#[test]
fn version_2_is_measured() {
    let files = [
        (
            "cpu.stat",
            "usage_usec 12\nuser_usec 7\nsystem_usec 5\nnr_throttled 2\n",
        ),
        ("memory.current", "4096\n"),
        ("memory.max", "max\n"),
        ("memory.events", "low 0\nmax 3\noom 1\noom_kill 1\n"),
        ("memory.stat", "anon 10\nfile 20\n"),
        ("pids.current", "4\n"),
        ("pids.max", "32\n"),
        (
            "io.stat",
            "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\nnonsense\n",
        ),
    ];
    let path = folder("v2", &files);
    let stats = fake(CgroupMode::V2, &path).stats().expect("stats");
    assert_eq!((stats.cpu.usage_ns, stats.cpu.throttled_periods), (12_000, 2));
    assert_eq!(
        (
            stats.memory.usage_bytes,
            stats.memory.limit_bytes,
            stats.memory.limit_hits
        ),
        (4096, u64::MAX, 3)
    );
    assert_eq!(stats.memory.details["file"], 20);
    assert_eq!((stats.pids.current, stats.pids.limit), (4, 32));
    assert_eq!(stats.blkio.serviced[1].value, 4);
    assert_eq!(fake(CgroupMode::V2, &path).oom_kills().expect("kills"), 1);
    std::fs::remove_dir_all(path).expect("removed");
}

#[test]
fn version_1_is_measured() {
    let files = [
        ("cpuacct.usage", "99\n"),
        ("cpuacct.usage_percpu", "40 59\n"),
        ("memory.usage_in_bytes", "8192\n"),
        ("memory.memsw.usage_in_bytes", "9000\n"),
        ("memory.limit_in_bytes", "9223372036854771712\n"),
        (
            "memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        ),
        (
            "blkio.throttle.io_service_bytes_recursive",
            "8:0 Read 7\n8:0 Sync 7\nTotal 7\n",
        ),
    ];
    let path = folder("v1", &files);
    let stats = fake(CgroupMode::V1, &path).stats().expect("stats");
    assert_eq!((stats.cpu.usage_ns, stats.cpu.per_cpu_ns), (99, vec![40, 59]));
    assert_eq!(
        (stats.memory.swap_bytes, stats.memory.limit_bytes),
        (808, u64::MAX)
    );
    assert_eq!(stats.blkio.service_bytes.len(), 1);
    assert_eq!(fake(CgroupMode::V1, &path).oom_kills().expect("kills"), 2);
    std::fs::remove_dir_all(path).expect("removed");
}

fn nothing() -> Resources {
    Resources::default()
}

#[test]
fn a_limit_without_its_controller_is_refused_by_name() {
    let path = folder("holds", &[("cgroup.controllers", "cpuset memory\n")]);
    let lacks = |resources: serde_json::Value| match fake(CgroupMode::V2, &path).can_hold(&resources) {
        Ok(()) => None,
        Err(CgroupError::NoController { controller, .. }) => Some(controller),
        Err(error) => panic!("{error}"),
    };
    for (resources, lacking) in [
        (serde_json::json!({}), None),
        (serde_json::json!({"memory": {"limit": 4096}}), None),
        (serde_json::json!({"cpu": {"cpus": "0"}}), None),
        (serde_json::json!({"pids": {"limit": 9}}), Some("pids")),
        (
            serde_json::json!({"memory": {"limit": 4096}, "cpu": {"quota": 1000}}),
            Some("cpu"),
        ),
    ] {
        assert_eq!(lacks(resources.clone()), lacking, "{resources}");
    }
    std::fs::remove_dir_all(&path).expect("removed");
}

#[test]
fn each_group_above_passes_its_controllers_on() {
    let root = folder(
        "passes",
        &[("cgroup.controllers", "pids"), ("cgroup.subtree_control", "")],
    );
    let parent = root.join("kakoi");
    std::fs::create_dir_all(parent.join("leaf")).expect("folders");
    std::fs::write(parent.join("cgroup.controllers"), "memory").expect("a file");
    std::fs::write(parent.join("cgroup.subtree_control"), "").expect("a file");
    super::pass_controllers_on(&parent.join("leaf"));
    let said = |path: &std::path::Path| {
        std::fs::read_to_string(path.join("cgroup.subtree_control")).expect("a file")
    };
    assert_eq!((said(&root), said(&parent)), ("+pids".into(), "+memory".into()));
    assert!(
        !root
            .parent()
            .expect("one")
            .join("cgroup.subtree_control")
            .exists()
    );
    std::fs::remove_dir_all(&root).expect("removed");
}

#[test]
fn limits_are_written_in_each_versions_words() {
    let path = folder(
        "update",
        &[
            ("memory.max", ""),
            ("memory.swap.max", ""),
            ("cpu.max", "max 100000"),
            ("pids.max", ""),
        ],
    );
    let change = Resources {
        memory_bytes: Some(100),
        memory_and_swap_bytes: Some(150),
        cpu_quota_us: Some(50_000),
        pids: Some(u64::MAX),
        ..nothing()
    };
    fake(CgroupMode::V2, &path).update(&change).expect("updated");
    let said = |name: &str| std::fs::read_to_string(path.join(name)).expect("a file");
    assert_eq!(said("memory.swap.max"), "50");
    assert!(said("cpu.max").starts_with("50000 100000"));
    assert_eq!(said("pids.max"), "max");
    std::fs::remove_dir_all(&path).expect("removed");
    let lost = fake(CgroupMode::V2, &path).update(&change);
    assert!(matches!(
        lost,
        Err(CgroupError::NoController {
            controller: "memory",
            ..
        })
    ));
}

#[test]
fn shares_become_weights() {
    assert_eq!(
        [2, 1024, 262_144, 9_999_999].map(update::weight_of_shares),
        [1, 39, 10_000, 10_000]
    );
}

/// A group of this host with a sleeping process, gone with its owner.
struct Lived {
    cgroup: Cgroup,
    child: std::process::Child,
}

impl Lived {
    fn new(name: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            crate::required::leave_out("root", "needs root to make control groups");
            return None;
        }
        let cgroup =
            Cgroup::at(&format!("/kakoi-test-{}-{name}/inner", std::process::id())).expect("hierarchies");
        for folder in &cgroup.folders {
            std::fs::create_dir_all(&folder.path).expect("a group");
        }
        let child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .expect("a process");
        let lived = Self { cgroup, child };
        // A new cpuset of version 1 takes no process before it has processors, so that hierarchy is left out.
        for folder in lived
            .cgroup
            .folders
            .iter()
            .filter(|folder| !folder.controllers.contains("cpuset"))
        {
            write(&folder.path.join("cgroup.procs"), &lived.child.id().to_string()).expect("attached");
        }
        Some(lived)
    }
}

impl Drop for Lived {
    fn drop(&mut self) {
        let done = self.cgroup.kill_all();
        self.child.wait().expect("reaped");
        self.cgroup.delete().expect("deleted");
        for folder in &self.cgroup.folders {
            std::fs::remove_dir(folder.path.parent().expect("a parent")).expect("removed");
        }
        done.expect("killed");
    }
}

#[test]
fn a_living_group_freezes_thaws_and_dies() {
    let Some(mut lived) = Lived::new("life") else {
        return;
    };
    let pid = lived.child.id() as i32;
    assert!(lived.cgroup.pids().expect("pids").contains(&pid));
    assert!(!lived.cgroup.is_frozen().expect("state"));
    lived.cgroup.freeze().expect("frozen");
    assert!(lived.cgroup.is_frozen().expect("state"));
    lived.cgroup.thaw().expect("thawed");
    assert!(!lived.cgroup.is_frozen().expect("state"));
    lived.cgroup.freeze().expect("frozen again");
    lived.cgroup.kill_all().expect("killed though frozen");
    assert!(!lived.child.wait().expect("reaped").success());
    assert!(lived.cgroup.pids().expect("pids").is_empty());
}

#[test]
fn a_living_group_takes_limits_and_is_measured() {
    let Some(lived) = Lived::new("limits") else { return };
    lived
        .cgroup
        .update(&Resources {
            memory_bytes: Some(64 << 20),
            pids: Some(7),
            ..nothing()
        })
        .expect("limited");
    let stats = lived.cgroup.stats().expect("stats");
    assert_eq!((stats.memory.limit_bytes, stats.pids.limit), (64 << 20, 7));
    assert_eq!(stats.pids.current, 1);
    lived
        .cgroup
        .update(&Resources {
            memory_bytes: Some(128 << 20),
            ..nothing()
        })
        .expect("raised");
    assert_eq!(lived.cgroup.oom_kills().expect("kills"), 0);
    assert!(lived.cgroup.oom_watch().expect("a watch").is_some());
}

/// Whatever lies between making and removing the parent that two containers share, a start finds it.
#[test]
fn the_common_parent_goes_with_the_last_and_hinders_no_start() {
    if !nix::unistd::geteuid().is_root() {
        crate::required::leave_out("root", "needs root to make control groups");
        return;
    }
    let life = |name: &str| {
        let cgroup =
            Cgroup::at(&format!("/kakoi-oci/test-{}-{name}", std::process::id())).expect("hierarchies");
        for round in 0..50 {
            cgroup
                .make()
                .unwrap_or_else(|error| panic!("round {round}: {error:?}"));
            assert!(cgroup.exists());
            cgroup.delete().expect("deleted");
            assert!(!cgroup.exists());
        }
    };
    std::thread::scope(|scope| {
        for name in ["a", "b", "c"] {
            scope.spawn(move || life(name));
        }
    });
    // Somebody else's parent is left alone.
    let foreign = Cgroup::at(&format!("/kakoi-test-{}/foreign", std::process::id())).expect("hierarchies");
    foreign.make().expect("made");
    foreign.delete().expect("deleted");
    let left: Vec<_> = foreign
        .folders
        .iter()
        .filter_map(|folder| folder.path.parent().filter(|parent| parent.is_dir()))
        .collect();
    assert!(!left.is_empty());
    for parent in left {
        std::fs::remove_dir(parent).expect("removed");
    }
}
