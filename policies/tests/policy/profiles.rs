//! The shipped profiles, call by call: beside each refusal something that works.

use kakoi_policy::confinement::{Landlock, Seccomp};
use kakoi_policy::kernel::Arch;
use kakoi_policy::{SHIPPED, compile};

use super::given::{
    ALLOW, ENOSYS, EPERM, KILL_PROCESS, answer, answer_number, compiled, kernel, shipped, user,
};

#[test]
fn every_shipped_profile_compiles_on_both_architectures_and_for_every_user() {
    for profile in &SHIPPED {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            for uid in [0, 1000] {
                let confinement = compile(&shipped(profile.name), &user(uid), &kernel(arch))
                    .unwrap_or_else(|error| panic!("{}: {error}", profile.name));
                let Seccomp::Filters(filters) = &confinement.seccomp else {
                    assert_eq!(profile.name, "privileged");
                    continue;
                };
                for filter in filters {
                    println!(
                        "{} {arch:?} {} {}",
                        profile.name,
                        filter.purpose,
                        filter.program.len()
                    );
                    assert!(
                        filter.program.len() < 600,
                        "{} instructions",
                        filter.program.len()
                    );
                }
            }
        }
    }
}

#[test]
fn strict_smoke() {
    let c = compiled(&shipped("strict"));
    let none = [0; 6];
    for call in [
        "read",
        "write",
        "execve",
        "rseq",
        "futex",
        "statx",
        "getrandom",
        "membarrier",
        "prlimit64",
    ] {
        assert_eq!(answer(&c, call, &none), ALLOW, "{call}");
    }
    for call in [
        "bpf",
        "unshare",
        "ptrace",
        "keyctl",
        "mount",
        "userfaultfd",
        "perf_event_open",
        "setns",
    ] {
        assert_eq!(answer(&c, call, &none), EPERM, "{call}");
    }
    for call in ["clone3", "io_uring_setup"] {
        assert_eq!(answer(&c, call, &none), ENOSYS, "{call}");
    }
    assert_eq!(answer_number(&c, 0x4000_0003, 3, &none), KILL_PROCESS);
    assert_eq!(answer_number(&c, 0xc000_003e, 0x4000_0000, &none), EPERM);
    assert_eq!(answer_number(&c, 0xc000_003e, 9999, &none), ENOSYS);
    assert!(matches!(c.landlock, Landlock::Ruleset(_)));
}
