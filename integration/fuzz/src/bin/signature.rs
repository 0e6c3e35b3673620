//! Signatures.
#![no_main]

libfuzzer_sys::fuzz_target!(init: kakoi_fuzz::offer(&kakoi_fuzz::signature::signatures()), |bytes: &[u8]| {
    kakoi_fuzz::signature::signature(bytes);
});
