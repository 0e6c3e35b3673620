//! The interfaces of the device that are open, and everything else closed.
//!
//! What `host.yaml` declares (`kakoi_policy::host::Lockdown`) is compared with what the kernel tells, item by item; what differs is turned, and what
//! stood before is remembered first. LOCKDOWN.md beside this crate says of each item by what it is enforced, since which kernel, and what it would break.
//!
//! | file | owns |
//! |---|---|
//! | `kernel.rs`, `sockets.rs`, `devices.rs`, `mounts.rs`, `processes.rs`, `units.rs`, `hardware.rs` | what is read of a section, and the verdict |
//! | `plan.rs` | from items to steps; pure |
//! | `journal.rs` | the values from before, on disk |
//! | `act.rs` | one step |
//! | `keep.rs` | apply, try, confirm, go back, release, and watch |
//!
//! Everything is read and written below the root of a [`Place`]. Invariants: nothing is green without evidence; nothing is turned before its former value
//! is on disk; a process that is killed at any step leaves a journal by which the next one completes or undoes.

mod act;
mod devices;
mod hardware;
mod item;
mod journal;
mod keep;
mod kernel;
mod mounts;
mod place;
mod plan;
mod processes;
mod sockets;
#[cfg(test)]
mod tests;
mod uevent;
mod units;

use kakoi_policy::host::Lockdown;

pub use act::Hands;
pub use item::{Item, Knob, Turn, Undo, Verdict};
pub use journal::{Former, Journal, JournalError, Phase};
pub use keep::{Keeper, LockdownError, Outcome, Plan};
pub use place::Place;
pub use plan::Step;
pub use sockets::{Filter, Published};
pub use uevent::{Uevents, concerns};
pub use units::{CLOSED, Init, Units};

/// Compares everything that is declared with everything that is so.
pub fn judge(lockdown: &Lockdown, place: &Place, hands: &dyn Hands, own_group: u32) -> Vec<Item> {
    let units = Units::look(place);
    let mut items = sockets::items(lockdown, place, &hands.published(), &hands.ports(lockdown));
    items.extend(devices::usb(lockdown, place));
    items.extend(mounts::media(lockdown, place));
    items.extend(processes::items(lockdown, place, &units));
    items.extend(devices::radios(lockdown, place));
    items.extend(devices::links(lockdown, place, own_group));
    items.extend(units::items(lockdown, &units));
    items.extend(kernel::items(lockdown, place));
    items.extend(mounts::items(lockdown, place));
    items.extend(hardware::items(place));
    items
}
