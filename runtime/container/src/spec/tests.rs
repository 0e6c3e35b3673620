//! Documents against goldens, and what is refused instead of left out.

use std::collections::BTreeMap;

use kakoi_policy::confinement::{
    CONFINEMENT_FORMAT, Confinement, DeviceAccess, DeviceRule, Filesystem, Identity, Landlock, Limits,
    MountSource, NetworkMode, PolicyIdentity, PolicyMount, Reach, Seccomp, UserNamespace,
};
use kakoi_policy::confinement::{CapabilitySets, DeviceKind};
use kakoi_policy::kernel::Arch;

use super::*;
use crate::plan::{
    IdMappings, LogDriver, LogPlan, MountKind, MountPlan, NamespacePlan, PLAN_FORMAT, ProcessPlan,
    RootfsDriver, RootfsPlan, TerminalSize, Ulimit,
};

fn plan() -> RunPlan {
    RunPlan {
        format: PLAN_FORMAT,
        id: "a".repeat(64),
        name: "golden".into(),
        is_ephemeral: false,
        state_dir: "/state".into(),
        run_dir: "/run".into(),
        rootfs: RootfsPlan {
            layers: vec!["/layer".into()],
            driver: RootfsDriver::Overlay,
        },
        process: ProcessPlan {
            args: vec!["/app".into(), "--serve".into()],
            env: vec!["PATH=/bin".into()],
            cwd: "/srv".into(),
            tty: false,
            stdin_open: false,
            stdin_once: false,
            init: false,
            terminal_size: None,
            oom_score_adj: 0,
            ulimits: Vec::new(),
        },
        hostname: "box".into(),
        domainname: None,
        mounts: Vec::new(),
        namespaces: NamespacePlan {
            pid: NamespaceSource::New,
            network: NamespaceSource::New,
            ipc: NamespaceSource::New,
            uts: NamespaceSource::New,
            cgroup: NamespaceSource::New,
        },
        id_mappings: IdMappings {
            uids: Vec::new(),
            gids: Vec::new(),
        },
        cgroup: "/kakoi/golden".into(),
        resources: Resources::default(),
        secret_environment: None,
        awaits_network: false,
        sysctls: BTreeMap::new(),
        shm_bytes: 64 << 20,
        log: LogPlan {
            driver: LogDriver::None,
            size_bytes_max: 0,
            files_max: 1,
        },
        annotations: BTreeMap::new(),
        confinement: confinement(),
    }
}

fn confinement() -> Confinement {
    Confinement {
        format: CONFINEMENT_FORMAT,
        arch: Arch::X86_64,
        policy: PolicyIdentity {
            name: "golden".into(),
            sha256: "00".into(),
        },
        identity: Identity {
            uid: 1000,
            gid: 1000,
            groups: vec![20],
            umask: 0o027,
        },
        no_new_privileges: true,
        capabilities: CapabilitySets {
            bounding: 1 << 10,
            permitted: 0,
            effective: 0,
            inheritable: 0,
            ambient: 0,
        },
        seccomp: Seccomp::Unconfined,
        landlock: Landlock::Unconfined,
        devices: Vec::new(),
        limits: Limits {
            memory_bytes: None,
            swap_bytes: None,
            cpu_millis: None,
            pids: None,
            open_files: None,
            io_read_bytes_per_second: None,
            io_write_bytes_per_second: None,
            tmpfs_bytes: None,
        },
        filesystem: Filesystem {
            read_only_root: true,
            masked_paths: vec!["/proc/kcore".into()],
            read_only_paths: vec!["/proc/sys".into()],
            mounts: Vec::new(),
        },
        network: NetworkMode::None,
        reach: Reach::Networks,
        user_namespace: UserNamespace::Host,
        losses: Vec::new(),
    }
}

fn view(cgroup_mode: CgroupMode) -> HostView {
    HostView {
        cgroup_mode,
        devices: Vec::new(),
        block_devices: vec![(8, 0), (179, 0)],
        hard_limits: vec![("nofile".into(), 4096)],
        has_message_queues: true,
        identity_files: vec!["hosts".into()],
        sources: Vec::new(),
        joined: BTreeMap::new(),
        shared_memory: None,
    }
}

/// Everything that a plan can say, at once.
fn full() -> (RunPlan, HostView) {
    let mut plan = plan();
    plan.process.tty = true;
    plan.process.terminal_size = Some(TerminalSize {
        width: 80,
        height: 24,
    });
    plan.process.oom_score_adj = 100;
    plan.process.ulimits = vec![
        Ulimit {
            name: "nofile".into(),
            soft: 9999,
            hard: 9999,
            asked: false,
        },
        Ulimit {
            name: "core".into(),
            soft: 0,
            hard: 0,
            asked: true,
        },
    ];
    plan.domainname = Some("domain".into());
    plan.mounts = vec![
        MountPlan {
            target: "/data/deep".into(),
            kind: MountKind::Bind("/host/data".into()),
            read_only: true,
            options: vec!["nosuid".into()],
            copy_up: false,
        },
        MountPlan {
            target: "/tmp".into(),
            kind: MountKind::Tmpfs,
            read_only: false,
            options: vec!["mode=1777".into()],
            copy_up: false,
        },
    ];
    plan.namespaces.network = NamespaceSource::Path("/run/netns/x".into());
    plan.namespaces.ipc = NamespaceSource::Host;
    let mapping = IdMapping {
        inside: 0,
        outside: 100_000,
        count: 65_536,
    };
    plan.id_mappings = IdMappings {
        uids: vec![mapping],
        gids: vec![mapping],
    };
    plan.resources = Resources {
        memory_bytes: Some(64 << 20),
        memory_reservation_bytes: Some(32 << 20),
        memory_and_swap_bytes: Some(u64::MAX),
        cpu_shares: Some(512),
        cpu_quota_us: Some(50_000),
        cpu_period_us: Some(100_000),
        cpuset_cpus: Some("0".into()),
        cpuset_mems: Some("0".into()),
        pids: Some(64),
        blkio_weight: Some(500),
        io_read_bytes_per_second: Some(1 << 20),
        io_write_bytes_per_second: Some(2 << 20),
        oom_kill: Some(false),
    };
    plan.sysctls.insert("net.core.somaxconn".into(), "128".into());
    plan.annotations.insert("org.example".into(), "yes".into());
    plan.confinement.limits.tmpfs_bytes = Some(1 << 20);
    plan.confinement.filesystem.mounts = vec![PolicyMount {
        source: MountSource::Tmpfs(Some(4096)),
        target: "/cache".into(),
        read_only: false,
        rule: "policy.yaml:3".into(),
    }];
    let access = DeviceAccess {
        read: true,
        write: true,
        mknod: false,
    };
    plan.confinement.devices = vec![
        DeviceRule {
            kind: DeviceKind::Char,
            major: Some(1),
            minor: Some(3),
            access,
            path: Some("/dev/null".into()),
            rule: "standard".into(),
        },
        DeviceRule {
            kind: DeviceKind::All,
            major: None,
            minor: None,
            access,
            path: Some("/dev/ttyUSB*".into()),
            rule: "policy.yaml:9".into(),
        },
    ];
    let mut view = view(CgroupMode::V2);
    view.devices = vec![HostDevice {
        path: "/dev/ttyUSB0".into(),
        kind: DeviceKind::Char,
        major: 188,
        minor: 0,
        mode: 0o660,
        uid: 0,
        gid: 20,
        access,
    }];
    view.sources = vec![("/host/data".into(), "/mnt/sources/0".into())];
    (plan, view)
}

fn check(name: &str, plan: &RunPlan, view: &HostView) {
    let document = document(plan, view, "/rootfs").expect("a document");
    serde_json::from_value::<oci_spec::runtime::Spec>(document.clone()).expect("an OCI document");
    let text = format!("{document:#}\n");
    let path = format!("{}/src/spec/goldens/{name}.json", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("KAKOI_BLESS").is_some() {
        std::fs::write(&path, &text).expect("written");
    }
    let golden = std::fs::read_to_string(&path).expect("a golden; KAKOI_BLESS=1 writes it");
    assert_eq!(text, golden, "{path}; KAKOI_BLESS=1 rewrites it");
}

#[test]
fn documents_are_as_the_goldens_say() {
    check("plain-v1", &plan(), &view(CgroupMode::Hybrid));
    let (plan, view) = full();
    check("full-v2", &plan, &view);
}

#[test]
fn control_groups_are_visible_only_where_that_is_safe() {
    let sees = |mode, source| {
        let mut plan = plan();
        plan.namespaces.cgroup = source;
        let document = document(&plan, &view(mode), "/rootfs").expect("a document");
        let mounts = document["mounts"].as_array().expect("mounts").clone();
        mounts
            .into_iter()
            .find(|mount| mount["destination"] == "/sys/fs/cgroup")
            .map(|mount| mount["options"].clone())
    };
    let options = sees(CgroupMode::V2, NamespaceSource::New).expect("mounted on version 2");
    assert!(options.as_array().expect("options").contains(&json!("ro")));
    assert_eq!(sees(CgroupMode::V2, NamespaceSource::Host), None);
    assert_eq!(sees(CgroupMode::V1, NamespaceSource::New), None);
    assert_eq!(sees(CgroupMode::Hybrid, NamespaceSource::New), None);
}

#[test]
fn what_cannot_be_done_is_refused_and_never_left_out() {
    let refused = |change: &dyn Fn(&mut RunPlan)| {
        let mut plan = plan();
        change(&mut plan);
        document(&plan, &view(CgroupMode::V2), "/rootfs").expect_err("refused")
    };
    let sysctl = refused(&|plan| drop(plan.sysctls.insert("kernel.core_pattern".into(), "x".into())));
    assert!(matches!(sysctl, SpecError::SysctlNotNamespaced { .. }));
    let ulimit = Ulimit {
        name: "moon".into(),
        soft: 1,
        hard: 1,
        asked: true,
    };
    let ulimit = refused(&|plan| plan.process.ulimits.push(ulimit.clone()));
    assert!(matches!(ulimit, SpecError::UnknownUlimit { .. }));
    assert!(matches!(
        refused(&|plan| plan.process.args.clear()),
        SpecError::NoProgram
    ));
    // A source is mounted where it was opened, or not at all.
    let unopened = MountPlan {
        target: "/data".into(),
        kind: MountKind::Volume {
            data: "/volumes/x/_data".into(),
            subpath: "sub".into(),
        },
        read_only: false,
        options: vec![],
        copy_up: false,
    };
    assert!(matches!(
        refused(&|plan| plan.mounts.push(unopened.clone())),
        SpecError::SourceNotOpen { .. }
    ));
    for target in ["relative", "/", "/a/../../etc", ""] {
        let mount = MountPlan {
            target: target.into(),
            kind: MountKind::Tmpfs,
            read_only: false,
            options: Vec::new(),
            copy_up: false,
        };
        let error = refused(&|plan| plan.mounts.push(mount.clone()));
        assert!(matches!(error, SpecError::Target { .. }), "{target}");
    }
    let volume = PolicyMount {
        source: MountSource::Volume("data".into()),
        target: "/data".into(),
        read_only: false,
        rule: "policy.yaml:1".into(),
    };
    let missing = refused(&|plan| plan.confinement.filesystem.mounts.push(volume.clone()));
    assert!(matches!(missing, SpecError::VolumeMissing { .. }));
}

#[test]
fn a_policy_that_hides_nothing_and_may_administer_gets_a_writable_sys() {
    let access = |change: &dyn Fn(&mut RunPlan)| {
        let mut plan = plan();
        change(&mut plan);
        let document = document(&plan, &view(CgroupMode::V1), "/rootfs").expect("a document");
        let mounts = document["mounts"].as_array().expect("mounts").clone();
        let sys = mounts
            .into_iter()
            .find(|mount| mount["destination"] == "/sys")
            .expect("/sys");
        sys["options"].as_array().expect("options").contains(&json!("rw"))
    };
    let privileged = |plan: &mut RunPlan| {
        plan.confinement.capabilities.bounding = u64::MAX;
        plan.confinement.filesystem.masked_paths.clear();
        plan.confinement.filesystem.read_only_paths.clear();
    };
    assert!(access(&privileged));
    assert!(!access(&|plan| plan.confinement.capabilities.bounding = u64::MAX));
    assert!(!access(&|plan| plan.confinement.filesystem.masked_paths.clear()));
}
