//! The watchdog, which restarts the device when it is not fed, and the gate that says whether it is.
//!
//! The gate is pure: [`judge`] of [`Signs`]. A process that ends without [`Watchdog::close`] leaves the watchdog running, and so does a kernel with
//! `nowayout`, which does not heed the closing byte.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

use kakoi_sys::CallError;

/// The byte ahead of a close that ends the watch; so no other is ever written but [`FOOD`].
const MAGIC: &[u8] = b"V";
const FOOD: &[u8] = b"\0";

/// Why the watchdog cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WatchdogError {
    /// The device cannot be opened; another process may hold it.
    #[error("cannot open the watchdog")]
    Open(#[source] io::Error),
    /// The device takes no time limit.
    #[error("cannot set the watchdog to {seconds} s")]
    Timeout {
        /// What was asked for.
        seconds: i32,
        /// What the kernel says.
        #[source]
        cause: CallError,
    },
    /// The device cannot be fed or closed.
    #[error("cannot write to the watchdog")]
    Write(#[source] io::Error),
}

/// What a watchdog's device can do.
pub trait Device: Write {
    /// Sets the time limit in seconds; returns the one that holds.
    fn set_timeout(&mut self, seconds: i32) -> Result<i32, CallError>;
}

impl Device for File {
    fn set_timeout(&mut self, seconds: i32) -> Result<i32, CallError> {
        kakoi_sys::watchdog::set_timeout(self.as_fd(), seconds)
    }
}

/// A running watchdog.
pub struct Watchdog<D> {
    device: D,
    timeout_s: i32,
}

impl Watchdog<File> {
    /// Opens the device, from when on it runs, and sets its time limit. Needs root.
    pub fn open(path: &Path, seconds: i32) -> Result<Self, WatchdogError> {
        let device = File::options()
            .write(true)
            .open(path)
            .map_err(WatchdogError::Open)?;
        Self::start(device, seconds)
    }
}

impl<D: Device> Watchdog<D> {
    /// Sets the time limit of a device that is open. One that refuses is closed so that it does not run on.
    pub fn start(mut device: D, seconds: i32) -> Result<Self, WatchdogError> {
        match device.set_timeout(seconds) {
            Ok(timeout_s) => Ok(Self { device, timeout_s }),
            Err(cause) => {
                device.write_all(MAGIC).map_err(WatchdogError::Write)?;
                Err(WatchdogError::Timeout { seconds, cause })
            }
        }
    }

    /// The time limit that holds, in seconds.
    pub fn timeout_s(&self) -> i32 {
        self.timeout_s
    }

    /// Feeds the watchdog if the verdict allows it; says whether it did.
    pub fn feed(&mut self, verdict: &Verdict) -> Result<bool, WatchdogError> {
        if *verdict != Verdict::Well {
            return Ok(false);
        }
        self.device.write_all(FOOD).map_err(WatchdogError::Write)?;
        Ok(true)
    }

    /// Ends the watch, where the kernel allows it.
    pub fn close(mut self) -> Result<(), WatchdogError> {
        self.device.write_all(MAGIC).map_err(WatchdogError::Write)
    }
}

/// What the supervisor knows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signs {
    /// How long ago the event loop last turned.
    pub turned_ms_ago: u64,
    /// How long it may take to turn.
    pub turn_ms_max: u64,
    /// The store took the last write that it was asked for.
    pub store_is_writable: bool,
    /// Required apps that are not healthy.
    pub unwell_apps: Vec<String>,
}

/// Whether the device is really well; if not, the first thing that is wrong, from the supervisor outwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All is well.
    Well,
    /// The event loop hangs.
    Hangs,
    /// Nothing can be kept.
    StoreFails,
    /// This app is not healthy.
    App(String),
}

/// The verdict on the signs.
pub fn judge(signs: &Signs) -> Verdict {
    if signs.turned_ms_ago > signs.turn_ms_max {
        Verdict::Hangs
    } else if !signs.store_is_writable {
        Verdict::StoreFails
    } else if let Some(app) = signs.unwell_apps.first() {
        Verdict::App(app.clone())
    } else {
        Verdict::Well
    }
}

#[cfg(test)]
mod tests {
    use kakoi_sys::Errno;

    use super::*;

    /// A device that keeps what it is fed; its time limit is at most 60 s, and none is refused.
    #[derive(Default)]
    struct Fake(Vec<u8>);

    impl Write for &mut Fake {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Device for &mut Fake {
        fn set_timeout(&mut self, seconds: i32) -> Result<i32, CallError> {
            if seconds < 1 {
                return Err(CallError {
                    call: "ioctl(WDIOC_SETTIMEOUT)",
                    errno: Errno::EINVAL,
                });
            }
            Ok(seconds.min(60))
        }
    }

    fn signs(ago: u64, store_is_writable: bool, apps: &[&str]) -> Signs {
        Signs {
            turned_ms_ago: ago,
            turn_ms_max: 1000,
            store_is_writable,
            unwell_apps: apps.iter().map(|app| (*app).to_owned()).collect(),
        }
    }

    #[test]
    fn it_is_fed_only_while_all_is_well() {
        let web = || Verdict::App("web".to_owned());
        let rows = [
            (signs(0, true, &[]), Verdict::Well),
            (signs(1000, true, &[]), Verdict::Well),
            (signs(1001, true, &[]), Verdict::Hangs),
            (signs(0, false, &[]), Verdict::StoreFails),
            (signs(0, true, &["web", "db"]), web()),
            (signs(1001, false, &["web"]), Verdict::Hangs),
            (signs(0, false, &["web"]), Verdict::StoreFails),
        ];
        for (signs, expected) in rows {
            let mut fake = Fake::default();
            let verdict = judge(&signs);
            assert_eq!(verdict, expected, "{signs:?}");
            let fed = Watchdog::start(&mut fake, 30)
                .and_then(|mut dog| dog.feed(&verdict))
                .expect("it takes food");
            assert_eq!(fed, expected == Verdict::Well);
            // Dropped without a close: nothing tells the kernel to stop watching.
            assert_eq!(fake.0, if fed { FOOD } else { b"" });
        }
    }

    #[test]
    fn a_close_ends_the_watch_and_so_does_a_refused_limit() {
        let mut fake = Fake::default();
        let dog = Watchdog::start(&mut fake, 300).expect("it starts");
        assert_eq!(dog.timeout_s(), 60);
        dog.close().expect("closed");
        assert_eq!(fake.0, MAGIC);

        let mut fake = Fake::default();
        let refused = Watchdog::start(&mut fake, 0).err();
        assert!(matches!(refused, Some(WatchdogError::Timeout { seconds: 0, .. })));
        assert_eq!(fake.0, MAGIC);
    }

    #[test]
    fn what_is_no_watchdog_is_refused() {
        let refused = Watchdog::open(Path::new("/dev/null"), 30).err();
        assert!(matches!(refused, Some(WatchdogError::Timeout { .. })));
        let refused = Watchdog::open(Path::new("/dev/kakoi-none"), 30).err();
        assert!(matches!(refused, Some(WatchdogError::Open(_))));
    }
}
