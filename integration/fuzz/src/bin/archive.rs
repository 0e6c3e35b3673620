//! Image archives.
#![no_main]

use std::cell::LazyCell;

use kakoi_fuzz::image::Store;

thread_local! {
    // One store for a run: opening one costs more than a case does.
    static STORE: LazyCell<Store> = LazyCell::new(Store::default);
}

libfuzzer_sys::fuzz_target!(init: kakoi_fuzz::offer(&kakoi_fuzz::image::archives()), |bytes: &[u8]| {
    STORE.with(|store| store.archive(bytes));
});
