//! Manifests and indexes.
#![no_main]

libfuzzer_sys::fuzz_target!(init: kakoi_fuzz::offer(&kakoi_fuzz::image::manifests()), |bytes: &[u8]| {
    kakoi_fuzz::image::manifest(bytes);
});
