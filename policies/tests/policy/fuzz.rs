//! A seeded share of what `make fuzz` does, with the very target of it.

#[path = "../../../integration/fuzz/src/mutate.rs"]
mod mutate;
#[path = "../../../integration/fuzz/src/policy.rs"]
mod targets;

#[test]
fn mutated_policies_are_refused_or_mean_one_thing() {
    let seeds = targets::policies();
    assert_eq!(mutate::cases(&seeds, 1_000, targets::policy), seeds.len());
}
