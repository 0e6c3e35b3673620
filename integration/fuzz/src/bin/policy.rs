//! Policies and ceilings.
#![no_main]

libfuzzer_sys::fuzz_target!(init: kakoi_fuzz::offer(&kakoi_fuzz::policy::policies()), |bytes: &[u8]| {
    kakoi_fuzz::policy::policy(bytes);
});
