//! A seeded share of what `make fuzz` does, with the very target of it.

#[path = "../../../integration/fuzz/src/mutate.rs"]
mod mutate;
#[path = "../../../integration/fuzz/src/signature.rs"]
mod signature;

#[test]
fn mutated_signatures_are_refused() {
    let taken = mutate::cases(&signature::signatures(), 1_000, signature::signature);
    assert_eq!(taken, 0);
}
