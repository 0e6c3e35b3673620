//! `extends`, flags, the owner's ceiling, kernels that lack something, and the canonical text.

use std::collections::BTreeMap;

use kakoi_policy::confinement::{DeviceAccess, Landlock, MountSource, NetworkMode, Reach, Seccomp};
use kakoi_policy::kernel::{Arch, KernelFacts};
use kakoi_policy::render::{canonical, summary};
use kakoi_policy::{
    Amount, Capability, CapabilityWord, Ceiling, CompileError, DeviceRequest, HostNamespace, LimitRequests,
    MountRequest, Requests, Resolver, SHIPPED, ShippedOnly, bound, compile, compose, parse, unknown_parents,
};

use super::given::{ALLOW, EPERM, answer, compiled, composed, kernel, shipped, user, with_landlock};

struct Folder(BTreeMap<&'static str, &'static str>);

impl Resolver for Folder {
    fn resolve(&self, name: &str) -> Option<(String, String)> {
        self.0
            .get(name)
            .map(|text| (format!("{name}.yaml"), (*text).to_owned()))
    }
}

fn refused(policy: &str, others: &[(&'static str, &'static str)]) -> String {
    let policy = parse("app.yaml", policy).unwrap_or_else(|errors| panic!("{errors}"));
    match compose(&policy, &Folder(others.iter().copied().collect())) {
        Err(errors) => errors.to_string(),
        Ok(_) => panic!("composed"),
    }
}

#[test]
fn parents_are_found_and_cycles_too() {
    let missing = refused("kakoi: 1\nextends: [strickt]\n", &[]);
    assert!(
        missing.contains("no policy is called `strickt`") && missing.contains("did you mean `strict`?"),
        "{missing}"
    );
    assert!(missing.contains("--> app.yaml:2:11"), "{missing}");
    let cycle = refused(
        "kakoi: 1\nname: a\nextends: [b]\n",
        &[
            ("b", "kakoi: 1\nname: innocent\nextends: [a]\n"),
            ("a", "kakoi: 1\nextends: [b]\n"),
        ],
    );
    assert!(cycle.contains("extends itself"), "{cycle}");
    let itself = refused("kakoi: 1\nname: a\nextends: [a]\n", &[("a", "kakoi: 1\n")]);
    assert!(itself.contains("a → a"), "{itself}");
    let broken = refused("kakoi: 1\nextends: [b]\n", &[("b", "kakoi: 1\nnmae: x\n")]);
    assert!(
        broken.contains("--> b.yaml:2:1"),
        "the parent's own place: {broken}"
    );
    let deep: Vec<(String, String)> = (0..20)
        .map(|n| (format!("p{n}"), format!("kakoi: 1\nextends: [p{}]\n", n + 1)))
        .collect();
    struct Deep(Vec<(String, String)>);
    impl Resolver for Deep {
        fn resolve(&self, name: &str) -> Option<(String, String)> {
            self.0.iter().find(|(known, _)| known == name).cloned()
        }
    }
    let policy = parse("app.yaml", "kakoi: 1\nextends: [p0]\n").expect("well formed");
    let errors = compose(&policy, &Deep(deep)).expect_err("too deep");
    assert!(errors.to_string().contains("more than 8 deep"), "{errors}");
}

#[test]
fn a_file_cannot_take_the_place_of_a_shipped_profile() {
    let policy = parse("app.yaml", "kakoi: 1\nextends: [strict]\n").expect("well formed");
    let folder = Folder([("strict", "kakoi: 1\nextends: [privileged]\n")].into());
    let composed = compose(&policy, &folder).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(answer(&compiled(&composed), "bpf", &[0; 6]), EPERM);
    // An owner's own `strict` may still build on the shipped one.
    let own = parse(
        "/etc/kakoi/policies/strict.yaml",
        "kakoi: 1\nextends: [strict]\nlimits: {pids: 7}\n",
    )
    .expect("well formed");
    let composed = compose(&own, &ShippedOnly).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(compiled(&composed).limits.pids, Some(7));
}

#[test]
fn grants_unite_denials_win_and_later_values_override() {
    let policy = composed(
        "kakoi: 1\nextends: [strict]\ncapabilities: {allow: [NET_RAW], deny: [CHOWN]}\n\
         system_calls: {allow: [ptrace, unshare, \"@process\", clone3], deny: [ptrace]}\nlimits: {pids: 9}\n\
         process: {user: \"7:8\", umask: \"0027\"}\n",
    );
    let c = compiled(&policy);
    assert_eq!(answer(&c, "unshare", &[0; 6]), ALLOW, "granted by name");
    assert_eq!(answer(&c, "ptrace", &[0; 6]), EPERM, "denied beside the grant");
    assert_ne!(answer(&c, "clone3", &[0; 6]), ALLOW, "denied by the parent");
    assert_eq!(
        answer(&c, "clone", &[0x1000_0011, 0, 0, 0, 0, 0]),
        EPERM,
        "a group does not widen a call named with conditions"
    );
    assert_eq!(c.limits.pids, Some(9));
    let has = |name: &str| c.capabilities.bounding & name.parse::<Capability>().expect("known").bit() != 0;
    assert!(has("NET_RAW") && has("SETUID") && !has("CHOWN"));
    assert_eq!((policy.user(), policy.umask()), (Some("7:8"), 0o027));
    let wide = compiled(&composed(
        "kakoi: 1\nextends: [strict]\nsystem_calls: {allow: [clone]}\n",
    ));
    assert_eq!(
        answer(&wide, "clone", &[0x1000_0011, 0, 0, 0, 0, 0]),
        ALLOW,
        "naming it without conditions does widen"
    );
}

#[test]
fn a_policy_that_says_nothing_allows_nothing() {
    let empty = composed("kakoi: 1\n");
    let error = compile(&empty, &user(0), &kernel(Arch::X86_64)).expect_err("nothing can start");
    assert!(matches!(error, CompileError::NoExecve { .. }), "{error}");
    let no_files = composed("kakoi: 1\nsystem_calls: {allow: [\"@process\"]}\n");
    let error = compile(&no_files, &user(0), &kernel(Arch::X86_64)).expect_err("nothing can start");
    assert!(matches!(error, CompileError::NothingExecutable { .. }), "{error}");
    let least = compiled(&composed(
        "kakoi: 1\nsystem_calls: {allow: [\"@process\"]}\nfiles: {execute: [/app]}\n",
    ));
    assert_eq!(least.capabilities.bounding, 0);
    assert!(least.no_new_privileges && least.devices.is_empty());
    assert_eq!(least.network, NetworkMode::None);
    assert_eq!(
        least.filesystem.masked_paths.len(),
        12,
        "what nothing opens stays hidden"
    );
    assert_eq!(answer(&least, "openat", &[0; 6]), EPERM);
    let Seccomp::Filters(filters) = &least.seccomp else {
        panic!("filtered")
    };
    assert_eq!(
        filters.len(),
        1,
        "an app that may not load filters gets one, because the second could not be loaded"
    );
}

#[test]
fn flags_are_taken_as_docker_takes_them() {
    let word = |name: &str| name.parse::<CapabilityWord>().expect("known");
    let bounding = |add: &[&str], drop: &[&str]| {
        let asked = Requests {
            capabilities_add: add.iter().map(|n| word(n)).collect(),
            capabilities_drop: drop.iter().map(|n| word(n)).collect(),
            ..Requests::none()
        };
        compiled(&shipped("docker-default").request(&asked))
            .capabilities
            .bounding
    };
    assert_eq!(bounding(&[], &["ALL"]), 0);
    assert_eq!(bounding(&["NET_ADMIN"], &["all"]), 1 << 12);
    assert_eq!(bounding(&["ALL"], &[]), (1 << 41) - 1);
    assert_eq!(bounding(&["ALL"], &["SYS_ADMIN"]), ((1 << 41) - 1) & !(1 << 21));
    assert_eq!(bounding(&[], &["CAP_CHOWN"]), 0xa804_25fb & !1);

    let privileged = compiled(&shipped("strict").request(&Requests {
        privileged: true,
        ..Requests::none()
    }));
    assert_eq!(
        (privileged.seccomp, privileged.landlock),
        (Seccomp::Unconfined, Landlock::Unconfined)
    );
    assert!(!privileged.no_new_privileges && privileged.filesystem.masked_paths.is_empty());

    let asked = Requests {
        read_only_root: Some(true),
        no_new_privileges: Some(true),
        limits: LimitRequests {
            memory: Some(Amount::At(64 << 20)),
            ..LimitRequests::none()
        },
        network: Some(NetworkMode::Host),
        devices: vec![DeviceRequest {
            path: "/dev/ttyUSB0".to_owned(),
            access: DeviceAccess {
                read: true,
                write: true,
                mknod: true,
            },
        }],
        ..Requests::none()
    };
    let c = compiled(&shipped("docker-default").request(&asked));
    assert!(c.filesystem.read_only_root && c.no_new_privileges);
    assert_eq!(
        (c.limits.memory_bytes, c.network),
        (Some(64 << 20), NetworkMode::Host)
    );
    assert!(
        c.devices
            .iter()
            .any(|rule| rule.path.as_deref() == Some("/dev/ttyUSB0") && rule.rule.starts_with("--device"))
    );
}

/// What a request gets under a ceiling: the errors' text, or nothing.
fn excess(base: &str, asked: &Requests, ceiling: &Ceiling) -> Option<String> {
    bound(&shipped(base).request(asked), ceiling)
        .err()
        .map(|excess| excess.to_string())
}

fn bind(source: &str, read_only: bool) -> Requests {
    let mount = MountRequest {
        source: MountSource::Bind(source.to_owned()),
        target: "/x".to_owned(),
        read_only,
    };
    Requests {
        mounts: vec![mount],
        ..Requests::none()
    }
}

#[test]
fn a_mount_that_is_asked_for_may_be_used_as_asked() {
    use kakoi_policy::explain::Verdict;
    use kakoi_policy::{Question, explain};
    let verdict = |policy: &kakoi_policy::Composed, path: &str| {
        explain(policy, &Question::Write(path.to_owned())).verdict
    };
    let strict = shipped("strict");
    assert_eq!(verdict(&strict, "/x/f"), Verdict::Denied);
    let writable = strict.clone().request(&bind("/srv/data", false));
    assert_eq!(verdict(&writable, "/x/f"), Verdict::Allowed);
    assert_eq!(verdict(&writable, "/y"), Verdict::Denied);
    let read_only = strict.clone().request(&bind("/srv/data", true));
    assert_eq!(verdict(&read_only, "/x/f"), Verdict::Denied);
    let mut over_root = bind("/srv/data", false);
    over_root.mounts[0].target = "/".to_owned();
    assert_eq!(
        verdict(&strict.request(&over_root), "/etc/passwd"),
        Verdict::Denied
    );
    // Where a policy leaves files alone, a mount must not begin to confine them.
    let open = shipped("docker-default").request(&bind("/srv/data", false));
    assert_eq!(
        compiled(&open).landlock,
        compiled(&shipped("docker-default")).landlock
    );
}

#[test]
fn the_built_in_ceiling_lets_docker_users_work_and_nobody_out() {
    let ceiling = Ceiling::built_in();
    assert_eq!(
        ceiling.default_policy, None,
        "what holds where no policy is named depends on the socket"
    );
    let device = |path: &str| Requests {
        devices: vec![DeviceRequest {
            path: path.to_owned(),
            access: DeviceAccess {
                read: true,
                write: true,
                mknod: true,
            },
        }],
        ..Requests::none()
    };
    let add = |name: &str| Requests {
        capabilities_add: vec![name.parse().expect("known")],
        ..Requests::none()
    };
    for profile in ["strict", "docker-default", "network-client", "network-server"] {
        assert_eq!(excess(profile, &Requests::none(), &ceiling), None, "{profile}");
    }
    for (what, asked) in [
        ("data", bind("/srv/data", false)),
        ("a home", bind("/home/ann/project", false)),
        ("the time zone", bind("/etc/localtime", true)),
        ("a serial line", device("/dev/ttyUSB0")),
        ("locking memory", add("IPC_LOCK")),
        (
            "the host's network",
            Requests {
                network: Some(NetworkMode::Host),
                ..Requests::none()
            },
        ),
    ] {
        assert_eq!(excess("docker-default", &asked, &ceiling), None, "{what}");
    }
    for (what, asked, says) in [
        (
            "privileged",
            Requests {
                privileged: true,
                ..Requests::none()
            },
            "a privileged container (--privileged)",
        ),
        ("the root", bind("/", true), "bind mount of /"),
        (
            "the docker socket",
            bind("/run/docker.sock", false),
            "bind mount of /run/docker.sock",
        ),
        (
            "a way out of an allowed folder",
            bind("/srv/../etc", true),
            "bind mount of /srv/../etc",
        ),
        (
            "a sibling of an allowed folder",
            bind("/srvx", false),
            "bind mount of /srvx",
        ),
        (
            "a read-only file, writable",
            bind("/etc/localtime", false),
            "/etc/localtime read-only",
        ),
        ("a disk", device("/dev/sda"), "device /dev/sda"),
        ("memory", device("/dev/mem"), "device /dev/mem"),
        (
            "a device glob wider than the owner's",
            device("/dev/tty*"),
            "device /dev/tty*",
        ),
        ("out of /dev", device("/dev/snd/../mem"), "device /dev/snd/../mem"),
        ("an admin", add("SYS_ADMIN"), "capability SYS_ADMIN (--cap-add)"),
        ("a debugger", add("SYS_PTRACE"), "capability SYS_PTRACE"),
        (
            "no filter",
            Requests {
                seccomp_unconfined: true,
                ..Requests::none()
            },
            "system calls without a filter",
        ),
        (
            "kernel paths",
            Requests {
                system_paths_unconfined: true,
                ..Requests::none()
            },
            "kernel paths that are hidden",
        ),
        (
            "host pids",
            Requests {
                host_namespaces: vec![HostNamespace::Pid],
                ..Requests::none()
            },
            "the host's pid namespace",
        ),
    ] {
        let shown =
            excess("docker-default", &asked, &ceiling).unwrap_or_else(|| panic!("{what} was allowed"));
        assert!(
            shown.contains(says) && shown.contains("remedy:") && shown.contains("<built-in ceiling>:"),
            "{what}: {shown}"
        );
    }
    let privileged = bound(&shipped("privileged"), &ceiling).expect_err("needs the owner");
    assert!(
        privileged.to_string().contains("<privileged>:"),
        "the profile's own lines: {privileged}"
    );
    for call in ["unshare", "bpf", "mount", "io_uring_setup", "keyctl"] {
        let policy = composed(&format!(
            "kakoi: 1\nextends: [docker-default]\nsystem_calls: {{allow: [{call}]}}\n"
        ));
        assert_eq!(
            answer(&compiled(&policy), call, &[0; 6]),
            ALLOW,
            "{call}: without the owner"
        );
        let shown = bound(&policy, &ceiling).expect_err("needs the owner").to_string();
        assert!(
            shown.contains(&format!("system call {call} (app.yaml:3:24)")),
            "{shown}"
        );
    }
    let harmless = composed("kakoi: 1\nextends: [strict]\nsystem_calls: {allow: [ptrace, \"@numa\"]}\n");
    assert!(bound(&harmless, &ceiling).is_ok());
    let no_masks = composed("kakoi: 1\nextends: [strict]\nprocess: {masked_paths: none}\n");
    assert!(bound(&no_masks, &ceiling).is_err());
}

#[test]
fn an_owners_ceiling_refuses_or_trims_and_names_its_line() {
    let text = "kakoi: 1\ncapabilities: [CHOWN, SETUID]\nnew_privileges: false\nlimits: {memory: 128MiB, pids: 50}\nnetwork: [host, bridge]\negress: any\n";
    let ceiling = Ceiling::parse("ceiling.yaml", text).unwrap_or_else(|errors| panic!("{errors}"));
    let app = composed(
        "kakoi: 1\nname: greedy\nextends: [docker-default]\nlimits: {memory: 1GiB}\nprocess: {no_new_privileges: false}\n",
    );
    let error = bound(&app, &ceiling).expect_err("too much");
    let shown = error.to_string();
    for says in [
        "policy `greedy` asks for more than this device allows",
        "- asked:   capability NET_RAW (<docker-default>:",
        "+ allowed: CHOWN, SETUID (ceiling.yaml:2:15)",
        "- asked:   limits.memory 1GiB (app.yaml:4:18)",
        "+ allowed: at most 128MiB (ceiling.yaml:4:18)",
        "- asked:   programs that raise privileges",
    ] {
        assert!(shown.contains(says), "`{says}` in\n{shown}");
    }
    let trimming = Ceiling::parse(
        "ceiling.yaml",
        &format!("{text}on_excess: trim\nunconfined: true\n"),
    )
    .expect("well formed");
    // What docker-default's device rule grants beyond the standard ones is making nodes that cannot be opened.
    let trimmed = bound(&app, &trimming).unwrap_or_else(|excess| panic!("{excess}"));
    let c = compiled(&trimmed);
    assert_eq!(c.capabilities.bounding, 1 | 1 << 7);
    assert_eq!(
        (c.limits.memory_bytes, c.limits.pids),
        (Some(128 << 20), Some(50))
    );
    assert!(c.no_new_privileges);
    assert!(
        c.losses
            .iter()
            .any(|loss| loss.rule.contains("NET_RAW") && loss.fact.contains("ceiling.yaml:2:15")),
        "{:?}",
        c.losses
    );
    // Some things cannot be taken away without making another app of it.
    let asked = Requests {
        privileged: true,
        ..Requests::none()
    };
    assert!(bound(&app.clone().request(&asked), &trimming).is_err());
    let modest = composed(
        "kakoi: 1\nextends: [strict]\ncapabilities: {deny: [DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID]}\nlimits: {pids: 10}\n",
    );
    assert_eq!(
        compiled(&bound(&modest, &ceiling).unwrap_or_else(|e| panic!("{e}")))
            .limits
            .memory_bytes,
        Some(128 << 20)
    );
    let denying = Ceiling::parse(
        "c.yaml",
        "kakoi: 1\non_excess: trim\ncapabilities: [ALL]\nsystem_calls: {deny: [\"@splice\"]}\n",
    );
    let denying = denying.unwrap_or_else(|errors| panic!("{errors}"));
    let trimmed = compiled(&bound(&shipped("strict"), &denying).unwrap_or_else(|excess| panic!("{excess}")));
    assert_eq!(
        (
            answer(&trimmed, "splice", &[0; 6]),
            answer(&trimmed, "read", &[0; 6])
        ),
        (EPERM, ALLOW)
    );
    assert!(
        trimmed
            .losses
            .iter()
            .any(|loss| loss.fact.contains("c.yaml:4:23")),
        "{:?}",
        trimmed.losses
    );
    assert!(Ceiling::parse("c.yaml", "kakoi: 1\nsystem_calls: {allow: [read]}\n").is_err());
    let open = Ceiling::parse(
        "c.yaml",
        "kakoi: 1\nprivileged: true\nnetwork: [bridge]\negress: any\n",
    )
    .expect("well formed");
    assert!(
        bound(&shipped("privileged"), &open).is_ok(),
        "the owner permits it"
    );
    let wrong =
        Ceiling::parse("c.yaml", "kakoi: 1\nprivilegd: true\nbind_mounts: [srv]\n").expect_err("misspelt");
    assert_eq!(wrong.list().len(), 2, "{wrong}");
}

#[test]
fn what_a_kernel_lacks_stops_the_start_or_stands_in_the_losses() {
    let required = composed("kakoi: 1\nextends: [strict]\nfiles: {write: [/data]}\n");
    let best = composed("kakoi: 1\nextends: [strict]\nfiles: {enforce: best_effort, write: [/data]}\n");
    let error = compile(&required, &user(0), &with_landlock(0)).expect_err("no landlock");
    let shown = error.to_string();
    assert!(
        shown.contains("`files.write` at app.yaml:3:17") && shown.contains("no landlock"),
        "{shown}"
    );
    let lost = compile(&best, &user(0), &with_landlock(0)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(lost.landlock, Landlock::Unconfined);
    assert!(
        lost.losses.iter().any(|loss| loss.rule == "files"),
        "{:?}",
        lost.losses
    );
    for (abi, fs, net, losses) in [
        (1, 0x1fff, 0, 2),
        (2, 0x3fff, 0, 2),
        (3, 0x7fff, 0, 1),
        (4, 0x7fff, 3, 1),
        (5, 0xffff, 3, 0),
        (6, 0xffff, 3, 0),
        (9, 0xffff, 3, 0),
    ] {
        let c = compile(&best, &user(0), &with_landlock(abi)).unwrap_or_else(|error| panic!("{error}"));
        let Landlock::Ruleset(rules) = &c.landlock else {
            panic!("rules under ABI {abi}")
        };
        assert_eq!((rules.handled_fs, rules.handled_net), (fs, net), "ABI {abi}");
        assert!(
            rules.paths.iter().all(|rule| rule.access & !fs == 0),
            "no right that ABI {abi} does not know"
        );
        assert_eq!(c.losses.len(), losses, "ABI {abi}: {:?}", c.losses);
    }
    // A required rule is required whole: what an older ABI leaves of it is a loss only where the policy says that this will do.
    for (abi, what, is_enough) in [
        (1, "truncating", "landlock_abi: 1"),
        (4, "ioctl", "landlock_abi: 4"),
    ] {
        let text = |abi: &str| {
            composed(&format!(
                "kakoi: 1\nextends: [strict]\nfiles: {{write: [/data]{abi}}}\n"
            ))
        };
        let error = compile(&text(""), &user(0), &with_landlock(abi)).expect_err("less than required");
        for word in ["`files.write` at app.yaml:3:17", what, is_enough] {
            assert!(error.to_string().contains(word), "{word}: {error}");
        }
        let named = compile(&text(&format!(", {is_enough}")), &user(0), &with_landlock(abi))
            .unwrap_or_else(|error| panic!("{error}"));
        assert!(
            named.losses.iter().any(|loss| loss.fact.contains(what)),
            "{:?}",
            named.losses
        );
        let whole = compile(&text(""), &user(0), &with_landlock(5)).unwrap_or_else(|error| panic!("{error}"));
        assert!(whole.losses.is_empty(), "{:?}", whole.losses);
    }
    let port = composed("kakoi: 1\nextends: [strict]\nnetwork: {mode: host, bind: [80]}\n");
    let error = compile(&port, &user(0), &with_landlock(3)).expect_err("no TCP rules");
    assert!(
        error.to_string().contains("`network.bind` at app.yaml:3:30") && error.to_string().contains("ABI 4"),
        "{error}"
    );
    let min = composed("kakoi: 1\nextends: [strict]\nfiles: {landlock_abi: 5}\n");
    assert!(compile(&min, &user(0), &with_landlock(4)).is_err());
    assert!(compile(&min, &user(0), &with_landlock(5)).is_ok());
    let scoped =
        composed("kakoi: 1\nextends: [strict]\nnetwork: {mode: host}\nscope: {abstract_sockets: confined}\n");
    let error = compile(&scoped, &user(0), &with_landlock(5)).expect_err("no scopes");
    assert!(error.to_string().contains("scope.abstract_sockets"), "{error}");
    assert!(compile(&scoped, &user(0), &with_landlock(6)).is_ok());
    let bare = KernelFacts {
        seccomp_filter: false,
        ..kernel(Arch::X86_64)
    };
    let error = compile(&shipped("strict"), &user(0), &bare).expect_err("no seccomp");
    assert!(error.to_string().contains("no seccomp filters"), "{error}");
    let silent = KernelFacts {
        seccomp_log: false,
        ..kernel(Arch::X86_64)
    };
    let c = compile(&shipped("strict"), &user(0), &silent).unwrap_or_else(|error| panic!("{error}"));
    assert!(matches!(&c.seccomp, Seccomp::Filters(filters) if filters.len() == 1 && !filters[0].log));
    let old = KernelFacts {
        capability_last: 37,
        ..kernel(Arch::X86_64)
    };
    let c = compile(&shipped("privileged"), &user(0), &old).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(c.capabilities.bounding, (1 << 38) - 1);
}

#[test]
fn ambient_capabilities_are_what_another_user_holds() {
    let policy = composed("kakoi: 1\nextends: [strict]\ncapabilities: {ambient: [NET_BIND_SERVICE]}\n");
    let c = compile(&policy, &user(1000), &kernel(Arch::X86_64)).unwrap_or_else(|error| panic!("{error}"));
    let sets = c.capabilities;
    assert_eq!(
        [sets.permitted, sets.effective, sets.inheritable, sets.ambient],
        [1 << 10; 4]
    );
    let plain = compile(&shipped("strict"), &user(1000), &kernel(Arch::X86_64))
        .unwrap_or_else(|error| panic!("{error}"));
    let sets = plain.capabilities;
    assert_eq!(
        [sets.permitted, sets.effective, sets.inheritable, sets.ambient],
        [0; 4]
    );
    assert_ne!(sets.bounding, 0);
}

#[test]
fn the_canonical_text_is_a_policy_that_means_the_same() {
    let examples = [
        include_str!("../../examples/mosquitto.yaml"),
        include_str!("../../examples/static-site.yaml"),
        include_str!("../../examples/telemetry.yaml"),
        include_str!("../../examples/modbus-gateway.yaml"),
    ];
    let texts: Vec<String> = SHIPPED
        .iter()
        .map(|profile| profile.text)
        .chain(examples)
        .map(str::to_owned)
        .collect();
    for text in &texts {
        let one = composed(text);
        let written = canonical(&one);
        let two = composed(&written);
        assert_eq!(canonical(&two), written, "{}", one.name);
        assert_eq!(one.sha256(), two.sha256());
        for uid in [0, 1000] {
            let strip = |policy| {
                let mut c = compile(policy, &user(uid), &kernel(Arch::X86_64))
                    .unwrap_or_else(|error| panic!("{error}"));
                let Landlock::Ruleset(rules) = &mut c.landlock else {
                    return c;
                };
                rules.paths.iter_mut().for_each(|rule| rule.rule = String::new());
                rules.ports.iter_mut().for_each(|rule| rule.rule = String::new());
                c
            };
            let (mut a, mut b) = (strip(&one), strip(&two));
            for c in [&mut a, &mut b] {
                c.devices.iter_mut().for_each(|rule| rule.rule = String::new());
                if let Reach::Only { destinations, .. } = &mut c.reach {
                    destinations.iter_mut().for_each(|rule| rule.rule = String::new());
                }
                c.filesystem
                    .mounts
                    .iter_mut()
                    .for_each(|mount| mount.rule = String::new());
            }
            assert_eq!(a, b, "{}", one.name);
        }
    }
    let a = composed("kakoi: 1\nextends: [strict]\nlimits: {pids: 5}\n");
    let b = composed("kakoi: 1 # a comment\nlimits:\n  pids: 5\nextends: strict\n");
    assert_eq!(a.sha256(), b.sha256(), "comments and order do not count");
    assert_ne!(
        a.sha256(),
        composed("kakoi: 1\nextends: [strict]\nlimits: {pids: 6}\n").sha256()
    );
    assert!(summary(&compiled(&a)).contains("system calls      filter `policy`"));
}

#[test]
fn a_stored_confinement_is_read_back_as_it_was() {
    for profile in &SHIPPED {
        let c = compiled(&shipped(profile.name));
        let text = serde_json::to_string(&c).expect("plain data");
        let back: kakoi_policy::confinement::Confinement =
            serde_json::from_str(&text).expect("what was written");
        assert_eq!(back, c);
        assert!(text.len() < 40_000, "{} takes {} bytes", profile.name, text.len());
    }
}

#[test]
fn an_unknown_parent_is_found_beside_other_errors() {
    let text = "kakoi: 1\nextends: [strikt, strict, own]\ncapabilites: []\n";
    assert!(parse("app.yaml", text).is_err());
    let folder = Folder(BTreeMap::from([("own", "kakoi: 1\n")]));
    let found = unknown_parents("app.yaml", text, &folder);
    let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 1, "{shown:?}");
    assert!(
        shown[0].contains("no policy is called `strikt`") && shown[0].contains("app.yaml:2:11"),
        "{shown:?}"
    );
    assert!(unknown_parents("app.yaml", "kakoi: [", &folder).is_empty());
}
