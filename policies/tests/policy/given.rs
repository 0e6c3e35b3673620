//! What the tests start from: kernels, identities, policies.

use kakoi_policy::confinement::{Confinement, Identity, Seccomp};
use kakoi_policy::kernel::{Arch, CgroupMode, KernelFacts};
use kakoi_policy::{Composed, ShippedOnly, bpf, compile, compose, parse, system_call_number};

/// A kernel with everything, as of Linux 6.18.
pub fn kernel(arch: Arch) -> KernelFacts {
    KernelFacts {
        release: "6.18.0".to_owned(),
        arch,
        landlock_abi: 7,
        seccomp_filter: true,
        seccomp_log: true,
        cgroup_mode: CgroupMode::V2,
        cgroup_controllers: ["cpu", "io", "memory", "pids"].map(str::to_owned).into(),
        capability_last: 40,
        capabilities_held: u64::MAX >> 23,
        user_namespaces: true,
        overlayfs: true,
        security_modules: vec!["capability".to_owned(), "landlock".to_owned()],
    }
}

pub fn with_landlock(abi: u32) -> KernelFacts {
    KernelFacts {
        landlock_abi: abi,
        ..kernel(Arch::X86_64)
    }
}

pub fn user(uid: u32) -> Identity {
    Identity {
        uid,
        gid: uid,
        groups: Vec::new(),
        umask: 0o022,
    }
}

/// Composes a policy from its text.
pub fn composed(text: &str) -> Composed {
    let policy = parse("app.yaml", text).unwrap_or_else(|errors| panic!("{errors}"));
    compose(&policy, &ShippedOnly).unwrap_or_else(|errors| panic!("{errors}"))
}

pub fn shipped(name: &str) -> Composed {
    composed(&format!("kakoi: 1\nname: app\nextends: [{name}]\n"))
}

pub fn compiled(policy: &Composed) -> Confinement {
    compile(policy, &user(0), &kernel(Arch::X86_64)).unwrap_or_else(|error| panic!("{error}"))
}

/// What the kernel would answer: the lowest action of all filters, the newest filter first among equals.
pub fn answer(confinement: &Confinement, call: &str, arguments: &[u64; 6]) -> u32 {
    let number = system_call_number(confinement.arch, call).unwrap_or_else(|| panic!("{call} has a number"));
    answer_number(
        confinement,
        kakoi_policy::audit_arch(confinement.arch),
        number,
        arguments,
    )
}

pub fn answer_number(confinement: &Confinement, arch: u32, number: u32, arguments: &[u64; 6]) -> u32 {
    let Seccomp::Filters(filters) = &confinement.seccomp else {
        return ALLOW;
    };
    let mut strictest = ALLOW;
    for filter in filters.iter().rev() {
        let ret =
            bpf::evaluate(&filter.program, arch, number, arguments).expect("the program is well formed");
        if precedence(ret) < precedence(strictest) {
            strictest = ret;
        }
    }
    strictest
}

/// The kernel compares actions as signed numbers, so that KILL_PROCESS (0x8000_0000) is the lowest.
fn precedence(ret: u32) -> i32 {
    (ret & 0xffff_0000).cast_signed()
}

pub const ALLOW: u32 = 0x7fff_0000;
pub const KILL_PROCESS: u32 = 0x8000_0000;
pub const EPERM: u32 = 0x0005_0001;
pub const ENOSYS: u32 = 0x0005_0026;
