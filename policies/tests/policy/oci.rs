//! `linux.seccomp` of OCI documents: what each action, comparison, flag and architecture does to calls.

use kakoi_policy::confinement::{Filter, Seccomp};
use kakoi_policy::kernel::Arch;
use kakoi_policy::{bpf, from_oci, system_call_number};
use serde_json::{Value, json};

use super::given::{ALLOW, ENOSYS, EPERM, KILL_PROCESS};

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;

fn filter(document: &Value) -> Filter {
    match from_oci(document, Arch::X86_64).unwrap_or_else(|error| panic!("{error}: {document}")) {
        Seccomp::Filters(filters) if filters.len() == 1 => filters[0].clone(),
        other => panic!("one filter, not {other:?}"),
    }
}

fn answer(filter: &Filter, call: &str, arguments: &[u64; 6]) -> u32 {
    let number = system_call_number(Arch::X86_64, call).unwrap_or_else(|| panic!("{call}"));
    bpf::evaluate(&filter.program, X86_64, number, arguments).expect("well formed")
}

#[test]
fn every_action_is_the_kernels() {
    for (action, errno, want) in [
        ("SCMP_ACT_ALLOW", None, ALLOW),
        ("SCMP_ACT_ERRNO", None, EPERM),
        ("SCMP_ACT_ERRNO", Some(38), ENOSYS),
        ("SCMP_ACT_ERRNO", Some(0), 0x0005_0000),
        ("SCMP_ACT_KILL", None, 0),
        ("SCMP_ACT_KILL_THREAD", None, 0),
        ("SCMP_ACT_KILL_PROCESS", None, KILL_PROCESS),
        ("SCMP_ACT_TRAP", None, 0x0003_0000),
        ("SCMP_ACT_TRACE", Some(7), 0x7ff0_0007),
        ("SCMP_ACT_TRACE", None, 0x7ff0_0001),
        ("SCMP_ACT_LOG", None, 0x7ffc_0000),
    ] {
        let default = if action == "SCMP_ACT_ALLOW" {
            "SCMP_ACT_ERRNO"
        } else {
            "SCMP_ACT_ALLOW"
        };
        let document = json!({"defaultAction": default, "syscalls": [{"names": ["getcwd", "no_such_call"], "action": action, "errnoRet": errno}]});
        let filter = filter(&document);
        assert_eq!(answer(&filter, "getcwd", &[0; 6]), want, "{action}");
        assert_ne!(
            answer(&filter, "getpid", &[0; 6]),
            want,
            "{action}: only where named"
        );
        if errno != Some(38) {
            let all = json!({"defaultAction": action, "defaultErrnoRet": errno});
            let all = self::filter(&all);
            assert_eq!(answer(&all, "getpid", &[0; 6]), want, "{action} as the default");
        }
    }
}

#[test]
fn notifications_need_a_listener_and_get_one() {
    let rule = json!([{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]);
    let document = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent.sock", "listenerMetadata": "m",
        "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        "syscalls": rule,
    });
    let filter = filter(&document);
    assert_eq!(answer(&filter, "mkdir", &[0; 6]), 0x7fc0_0000);
    assert_eq!(answer(&filter, "rmdir", &[0; 6]), ALLOW);
    let listener = filter.listener.expect("someone answers");
    assert_eq!(
        (listener.path.as_str(), listener.metadata.as_str()),
        ("/run/agent.sock", "m")
    );
    assert!(filter.log && filter.speculation_allowed && filter.wait_killable);
    for (what, document) in [
        (
            "no listener",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rule}),
        ),
        (
            "as the default",
            json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/x"}),
        ),
        (
            "for write, with which the descriptor is sent",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x", "syscalls": [{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}]}),
        ),
    ] {
        assert!(from_oci(&document, Arch::X86_64).is_err(), "{what}");
    }
    let mut unused = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"});
    let told = self::filter(&unused);
    assert_eq!((told.listener.is_some(), told.log), (true, false));
    unused["syscalls"] = json!([{"names": ["sendmsg"], "action": "SCMP_ACT_ERRNO"}]);
    assert_eq!(self::filter(&unused).listener, None, "it could not be told");
}

#[test]
fn comparisons_are_of_all_64_bits() {
    const BIG: u64 = 0x1_0000_0000;
    for (op, value, two, holds, fails) in [
        ("SCMP_CMP_EQ", 5, 0, vec![5], vec![4, BIG + 5]),
        ("SCMP_CMP_NE", 5, 0, vec![4, BIG + 5], vec![5]),
        ("SCMP_CMP_LT", 5, 0, vec![0, 4], vec![5, BIG]),
        ("SCMP_CMP_LE", 5, 0, vec![5], vec![6, BIG]),
        ("SCMP_CMP_GT", 5, 0, vec![6, BIG], vec![5]),
        ("SCMP_CMP_GE", BIG, 0, vec![BIG, u64::MAX], vec![BIG - 1]),
        (
            "SCMP_CMP_MASKED_EQ",
            0xff,
            0x12,
            vec![0x12, 0x3412, BIG + 0x12],
            vec![0x13],
        ),
        (
            "SCMP_CMP_MASKED_EQ",
            0x7e02_0000,
            0,
            vec![0x11, BIG],
            vec![0x1000_0000],
        ),
    ] {
        let document = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 2, "value": value, "valueTwo": two, "op": op}]}]});
        let filter = filter(&document);
        for argument in holds {
            assert_eq!(
                answer(&filter, "clone", &[9, 9, argument, 9, 9, 9]),
                ALLOW,
                "{op} {value:#x}: {argument:#x}"
            );
        }
        for argument in fails {
            assert_eq!(
                answer(&filter, "clone", &[9, 9, argument, 9, 9, 9]),
                EPERM,
                "{op} {value:#x}: {argument:#x}"
            );
        }
    }
}

#[test]
fn several_rules_for_one_call() {
    let eq = |index: u64, value: u64| json!({"index": index, "value": value, "op": "SCMP_CMP_EQ"});
    let document = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [eq(0, 1), eq(1, 2)]},
        {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 97, "args": [eq(0, 3)]},
        {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [eq(0, 0), eq(0, 8)]},
        {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["read"], "action": "SCMP_ACT_KILL"},
        {"names": ["kill"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["kill"], "action": "SCMP_ACT_TRAP", "args": [eq(1, 9)]},
    ]});
    let filter = filter(&document);
    let on = |call: &str, a: u64, b: u64| answer(&filter, call, &[a, b, 0, 0, 0, 0]);
    assert_eq!(
        (on("socket", 1, 2), on("socket", 1, 3), on("socket", 3, 0)),
        (ALLOW, EPERM, 0x0005_0061)
    );
    assert_eq!(
        (
            on("personality", 0, 0),
            on("personality", 8, 0),
            on("personality", 1, 0)
        ),
        (ALLOW, ALLOW, EPERM),
        "runc issue 2735"
    );
    assert_eq!(on("read", 0, 0), ALLOW, "the first of two");
    assert_eq!(
        (on("kill", 1, 9), on("kill", 1, 15)),
        (0x0003_0000, ALLOW),
        "conditions come first"
    );
    assert_eq!(
        bpf::evaluate(&filter.program, X86_64, 1000, &[0; 6]),
        Some(ENOSYS),
        "a call newer than every table"
    );
}

#[test]
fn entry_points_are_open_only_where_the_document_names_them() {
    let rules = json!([{"names": ["write", "mmap2", "umount"], "action": "SCMP_ACT_ALLOW"}]);
    let document = |architectures: Value| {
        filter(&json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": architectures, "syscalls": rules}))
    };
    let on = |filter: &Filter, arch, number| {
        bpf::evaluate(&filter.program, arch, number, &[0; 6]).expect("well formed")
    };
    let native = document(json!(["SCMP_ARCH_X86_64"]));
    assert_eq!(on(&native, X86_64, 1), ALLOW);
    assert_eq!(on(&native, I386, 4), KILL_PROCESS);
    assert_eq!(on(&native, X86_64, 0x4000_0001), EPERM);
    assert_eq!(on(&native, X86_64, 166), ALLOW, "umount, by its newer name");
    let all = document(json!([
        "SCMP_ARCH_X86_64",
        "SCMP_ARCH_X86",
        "SCMP_ARCH_X32",
        "SCMP_ARCH_AARCH64",
        "SCMP_ARCH_RISCV64"
    ]));
    assert_eq!(
        (on(&all, X86_64, 1), on(&all, I386, 4), on(&all, I386, 192)),
        (ALLOW, ALLOW, ALLOW),
        "each by its own numbers"
    );
    assert_eq!((on(&all, I386, 1), on(&all, X86_64, 4)), (EPERM, EPERM));
    assert_eq!(
        (on(&all, X86_64, 0x4000_0001), on(&all, X86_64, 0x4000_0004)),
        (ALLOW, EPERM),
        "x32"
    );
    assert_eq!(on(&all, 0xc000_00b7, 64), KILL_PROCESS, "not this machine's");
    for nothing in [Value::Null, json!([]), json!(["SCMP_ARCH_S390X"])] {
        assert_eq!(
            on(&document(nothing), X86_64, 1),
            ALLOW,
            "the native entry point is always there"
        );
    }
    let open = filter(
        &json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["write"], "action": "SCMP_ACT_ERRNO"}]}),
    );
    assert_ne!(
        on(&open, X86_64, 0x4000_0001),
        ALLOW,
        "a list of denials cannot be stepped around through x32"
    );
    let arm = from_oci(
        &json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_ARM"], "syscalls": rules}),
        Arch::Aarch64,
    );
    let Ok(Seccomp::Filters(filters)) = arm else {
        panic!("{arm:?}")
    };
    assert_eq!(
        (on(&filters[0], 0xc000_00b7, 64), on(&filters[0], 0x4000_0028, 4)),
        (ALLOW, ALLOW)
    );
}

#[test]
fn documents_that_cannot_be_meant_are_refused() {
    for (what, document, says) in [
        ("no default", json!({}), "read linux.seccomp"),
        (
            "an action",
            json!({"defaultAction": "SCMP_ACT_ALOW"}),
            "unknown action `SCMP_ACT_ALOW`",
        ),
        (
            "a flag",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["X"]}),
            "unknown flag `X`",
        ),
        (
            "an architecture",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["Z80"]}),
            "unknown architecture",
        ),
        (
            "an argument",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}),
            "index 6 of `read`",
        ),
        (
            "a comparison",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 0, "op": "EQ"}]}]}),
            "unknown comparison `EQ`",
        ),
        (
            "an errno of an allowance",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}),
            "returns no error number",
        ),
        (
            "more than fits",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": vec!["read"; 9000], "action": "SCMP_ACT_ERRNO"}]}),
            "at most 8192",
        ),
    ] {
        let error = from_oci(&document, Arch::X86_64)
            .err()
            .unwrap_or_else(|| panic!("{what} was taken"));
        assert!(error.to_string().contains(says), "{what}: {error}");
    }
    let eq = json!({"index": 0, "value": 7, "op": "SCMP_CMP_EQ"});
    let huge: Vec<Value> = (0..1500)
        .map(|_| json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [eq]}))
        .collect();
    let error = from_oci(
        &json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": huge}),
        Arch::X86_64,
    )
    .expect_err("too long");
    assert!(
        std::error::Error::source(&error).is_some_and(|source| source.to_string().contains("at most 4096"))
    );
}

#[test]
fn a_docker_profile_narrows_and_never_widens() {
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [
            {"names": ["mkdir", "bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            {"name": "rmdir", "action": "SCMP_ACT_ERRNO", "args": [], "comment": "old form", "includes": {}, "excludes": {}},
            {"names": ["chown"], "action": "SCMP_ACT_ERRNO", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["fsync"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_ADMIN", "CAP_CHOWN"]}},
            {"names": ["fdatasync"], "action": "SCMP_ACT_ERRNO", "includes": {"caps": ["CAP_SYS_ADMIN", "CAP_CHOWN"]}},
            {"names": ["link"], "action": "SCMP_ACT_ERRNO", "includes": {"minKernel": "4.8"}},
            {"names": ["symlink"], "action": "SCMP_ACT_ERRNO", "includes": {"minKernel": "9.0"}},
            {"names": ["unlink"], "action": "SCMP_ACT_ERRNO", "includes": {"arches": ["arm64"]}}
        ]}"#;
    let asked = kakoi_policy::Requests {
        seccomp_profile: Some(text.to_owned()),
        ..kakoi_policy::Requests::none()
    };
    let plain = super::given::shipped("strict");
    let c = super::given::compiled(&plain.clone().request(&asked));
    let on = |call: &str| super::given::answer(&c, call, &[0; 6]);
    assert_eq!(
        (on("mkdir"), on("rmdir"), on("chmod"), on("link")),
        (ENOSYS, EPERM, EPERM, EPERM)
    );
    assert_eq!(
        (on("chown"), on("symlink"), on("unlink"), on("read")),
        (ALLOW, ALLOW, ALLOW, ALLOW)
    );
    assert_ne!(on("keyctl"), ALLOW, "what the policy denies stays denied");
    assert_ne!(c.policy.sha256, super::given::compiled(&plain).policy.sha256);
    for (what, text) in [
        ("not JSON", "{"),
        ("no default", "{}"),
        (
            "a capability",
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO", "includes": {"caps": ["CAP_X"]}}]}"#,
        ),
        (
            "a version",
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO", "includes": {"minKernel": "x"}}]}"#,
        ),
        (
            "a listener",
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}"#,
        ),
    ] {
        let asked = kakoi_policy::Requests {
            seccomp_profile: Some(text.to_owned()),
            ..kakoi_policy::Requests::none()
        };
        let policy = super::given::shipped("strict").request(&asked);
        let error = kakoi_policy::compile(
            &policy,
            &super::given::user(0),
            &super::given::kernel(Arch::X86_64),
        );
        assert!(
            matches!(error, Err(kakoi_policy::CompileError::Profile { .. })),
            "{what}"
        );
    }
}
