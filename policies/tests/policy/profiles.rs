//! The shipped profiles, call by call: beside each refusal something that works.

use kakoi_policy::confinement::Seccomp;
use kakoi_policy::kernel::Arch;
use kakoi_policy::{SHIPPED, compile};

use super::given::{kernel, shipped, user};

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
