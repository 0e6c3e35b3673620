//! Image names.
#![no_main]

libfuzzer_sys::fuzz_target!(init: kakoi_fuzz::offer(&kakoi_fuzz::image::references()), |bytes: &[u8]| {
    kakoi_fuzz::image::reference(bytes);
});
