//! Points at which a test cuts the store off, and the syncs between them.
//!
//! Owns nothing in a release: [`point`] and [`synced`] are empty there. In tests a child process dies at the point that its environment names,
//! without unwinding, as `kill -9` would have it; or a watcher of the same thread looks at the disk at each point and is told what was synced,
//! which is all that it takes to know what a power cut would leave (`tests::disk`).

/// What a watcher is told.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(test), expect(dead_code, reason = "only tests watch"))]
pub(crate) enum Event<'a> {
    /// A step was done.
    Point,
    /// A file's content is on the disk.
    FileSynced(&'a std::path::Path),
    /// The names in a folder are on the disk.
    FolderSynced(&'a std::path::Path),
    /// Everything is on the disk.
    AllSynced,
}

/// A place where a process may die.
#[cfg(not(test))]
#[inline(always)]
pub(crate) fn point(_name: &'static str) {}

/// Something was synced.
#[cfg(not(test))]
#[inline(always)]
pub(crate) fn synced(_event: Event<'_>) {}

#[cfg(test)]
pub(crate) use watched::{point, synced, watch};

#[cfg(test)]
mod watched {
    use std::cell::RefCell;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::Event;

    /// Who is told of events of one thread.
    type Watcher = Box<dyn FnMut(Event<'_>)>;

    thread_local! {
        static WATCHER: RefCell<Option<Watcher>> = const { RefCell::new(None) };
    }

    /// Dies here if the environment variable `KAKOI_IMAGE_FAULT` counts down to this point; else a watcher may look.
    pub(crate) fn point(_name: &'static str) {
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
        synced(Event::Point);
    }

    /// Tells this thread's watcher, which sees no event of its own doing.
    pub(crate) fn synced(event: Event<'_>) {
        let Some(mut watcher) = WATCHER.with(|cell| cell.borrow_mut().take()) else {
            return;
        };
        watcher(event);
        WATCHER.with(|cell| *cell.borrow_mut() = Some(watcher));
    }

    /// Has a watcher told while `work` is done.
    pub(crate) fn watch<T>(watcher: Watcher, work: impl FnOnce() -> T) -> T {
        WATCHER.with(|cell| *cell.borrow_mut() = Some(watcher));
        let done = work();
        WATCHER.with(|cell| *cell.borrow_mut() = None);
        done
    }
}
