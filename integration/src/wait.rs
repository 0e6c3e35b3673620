//! Waiting for states that the kernel announces to nobody: a bounded poll, in one place, so that no test has a loop of its own.
//!
//! Whoever can wait for a byte, an event or a process does that instead.

use std::time::{Duration, Instant};

/// Between two looks: short beside anything that is waited for, long beside a look.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks until `look` finds something, for at most `limit`.
pub fn poll<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "the one poll that the others are spared"
        )]
        std::thread::sleep(PAUSE);
    }
}

/// Looks until `look` is true, and panics with `what` when it does not become so in ten seconds.
#[track_caller]
pub fn until(what: &str, mut look: impl FnMut() -> bool) {
    assert!(
        poll(Duration::from_secs(10), || look().then_some(())).is_some(),
        "waited ten seconds for: {what}"
    );
}
