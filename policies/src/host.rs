//! The document about the device itself: `kind: Host`, `/etc/kakoi/host.yaml`.
//!
//! Owns which sections there are and reads with the language's own reader, as the apps' document does: an error has line, column and the nearest
//! valid word. Knows nothing of the device. Invariant: a field that is written is understood or refused; a section that is not written is `None`, and
//! what it is about stays as it is.
//!
//! ```
//! let host = kakoi_policy::parse_host(
//!     "host.yaml",
//!     "kakoi: 1\nkind: Host\nlockdown:\n  ports: [\"22/tcp\", \"8883/tcp on eth0 from 10.0.0.0/8\"]\n  usb: [hub]\n",
//! )?;
//! let lockdown = host.lockdown.expect("it is written");
//! assert_eq!(lockdown.ports.only().map(<[_]>::len), Some(2));
//! # Ok::<(), kakoi_policy::Diagnostics>(())
//! ```

use serde::{Deserialize, Serialize};

use crate::decode::fields::{Fields, choice};
use crate::decode::version;
use crate::diagnostics::{Diagnostics, Report};
use crate::yaml::{self, Node};

pub mod lockdown;
pub mod slots;

pub use lockdown::Lockdown;
pub use slots::{Boot, Commit, Slots, Watchdog};

const KEYS: [&str; 5] = ["kakoi", "kind", "lockdown", "slots", "watchdog"];

/// The device as its owner wants it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// What is open; everything else is closed. `None` closes nothing.
    pub lockdown: Option<Lockdown>,
    /// The two slots of the operating system. `None` where Kakoi installs none.
    pub slots: Option<Slots>,
    /// The watchdog. `None` where somebody else feeds it.
    pub watchdog: Option<Watchdog>,
}

/// Reads the document.
///
/// # Errors
/// Every error of the document that can be found at once.
pub fn parse_host(file: &str, text: &str) -> Result<Host, Diagnostics> {
    let mut report = Report::new(file, text);
    let host = yaml::read(text, &mut report).and_then(|node| host(node, &mut report));
    match (host, report.finish()) {
        (_, Some(diagnostics)) => Err(diagnostics),
        (Some(host), None) => Ok(host),
        (None, None) => unreachable!("a document that gives no host gives a diagnostic"),
    }
}

fn host(node: Node, report: &mut Report<'_>) -> Option<Host> {
    let mut fields = Fields::open(node, "a host", &KEYS, report)?;
    version(&mut fields, "a host", report);
    if let Some(kind) = fields.need("kind", "a host", report) {
        choice(&kind, "`kind`", &[("Host", ())], report);
    }
    let lockdown = fields.take("lockdown", report);
    let slots = fields.take("slots", report);
    let watchdog = fields.take("watchdog", report);
    Some(Host {
        lockdown: lockdown.and_then(|node| lockdown::read(node, report)),
        slots: slots.and_then(|node| slots::read(node, report)),
        watchdog: watchdog.and_then(|node| slots::read_watchdog(node, report)),
    })
}
