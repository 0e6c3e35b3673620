//! Points at which a test cuts the store off.
//!
//! Owns nothing in a release: [`point`] is empty there. In tests a child process dies at the point that its environment names, without
//! unwinding, as `kill -9` would have it.

/// A place where a process may die.
#[cfg(not(test))]
#[inline(always)]
pub(crate) fn point(_name: &'static str) {}

/// Dies here if the environment variable `KAKOI_IMAGE_FAULT` counts down to this point.
#[cfg(test)]
pub(crate) fn point(_name: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicI64, Ordering};
    static LEFT: OnceLock<AtomicI64> = OnceLock::new();
    let left = LEFT.get_or_init(|| {
        let named = std::env::var("KAKOI_IMAGE_FAULT")
            .ok()
            .and_then(|text| text.parse().ok());
        AtomicI64::new(named.unwrap_or(i64::MAX))
    });
    if left.fetch_sub(1, Ordering::SeqCst) == 0 {
        std::process::abort();
    }
}
