//! A shim that waits for its container.
//!
//! Starting a program and touching its pages for the first time is a tenth of a container's whole start. So after each start another shim
//! is started, which waits; the next container is handed to it. Owns that one shim and the message that hands over. Refuses to know what
//! a container is. Invariant: at most one waits, and none for longer than [`WAIT_MAX`]: a device on which nothing is started has no process
//! that does nothing. One found dead when a container is to be handed over is no failure: the container gets a shim of its own. One that dies
//! with the container in hand is that start's failure, as any shim's death is: it may have begun.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kakoi_container::frames::SPARE_BYTES_MAX;
use kakoi_sys::socket::send_descriptors;
use tokio::process::{Child, Command};
use tokio::time::sleep;

/// After a start, how long until the next shim is started: the container that starts just now has the processor.
const PREPARE_AFTER: Duration = Duration::from_millis(15);

/// How long a shim waits: longer than a person or a script takes from one container to the next.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// The one shim that waits, or none.
#[derive(Debug, Default)]
pub struct Spare(Mutex<Slot>);

#[derive(Debug, Default)]
struct Slot {
    waiting: Option<Waiting>,
    /// Counts the shims, so that a time that is up means the shim for which it was set.
    number: u64,
    /// Whether somebody is about to start one.
    coming: bool,
}

#[derive(Debug)]
struct Waiting {
    child: Child,
    control: OwnedFd,
}

impl Spare {
    /// Hands a container to the shim that waits: the path of its plan, and the descriptors that [`crate::shim`] gives to every shim.
    /// `None` where none waits.
    pub fn hand_over(&self, plan: &Path, descriptors: [BorrowedFd<'_>; 3]) -> Option<Child> {
        let plan = plan.as_os_str().as_bytes();
        if plan.len() > SPARE_BYTES_MAX {
            return None;
        }
        let Waiting { child, control } = self.slot().waiting.take()?;
        match send_descriptors(control.as_fd(), plan, &descriptors) {
            Ok(_) => Some(child),
            Err(error) => {
                tracing::debug!(%error, "the waiting shim is dead");
                tokio::spawn(end(Waiting { child, control }));
                None
            }
        }
    }

    /// Has a shim wait from a moment from now on. `command` is its program; `run_dir` stands on its command line, to tell whose it is.
    pub fn prepare(self: &Arc<Self>, command: Command, run_dir: &Path) {
        {
            let mut slot = self.slot();
            if slot.coming || slot.waiting.is_some() {
                return;
            }
            slot.coming = true;
        }
        let (spare, run_dir) = (self.clone(), run_dir.as_os_str().to_owned());
        tokio::spawn(async move {
            sleep(PREPARE_AFTER).await;
            let started = start(command, &run_dir);
            let number = {
                let mut slot = spare.slot();
                slot.coming = false;
                slot.number += 1;
                match started {
                    Ok(waiting) => slot.waiting = Some(waiting),
                    Err(error) => return tracing::warn!(%error, "no shim can be prepared, ignoring"),
                }
                slot.number
            };
            sleep(WAIT_MAX).await;
            let late = {
                let mut slot = spare.slot();
                (slot.number == number).then(|| slot.waiting.take()).flatten()
            };
            if let Some(waiting) = late {
                end(waiting).await;
            }
        });
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Slot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn start(mut command: Command, run_dir: &OsStr) -> io::Result<Waiting> {
    let (ours, theirs) = UnixStream::pair()?;
    // It will write its plan's path over these blanks, so that the process list tells which shim has which container.
    let room = " ".repeat(SPARE_BYTES_MAX);
    let child = command
        .arg("spare")
        .arg(run_dir)
        .arg(room)
        .env_clear()
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(Waiting {
        child,
        control: ours.into(),
    })
}

/// Lets a shim go: it ends at the end of its stream.
async fn end(waiting: Waiting) {
    let Waiting { mut child, control } = waiting;
    drop(control);
    if let Err(error) = child.wait().await {
        tracing::warn!(%error, "a shim cannot be reaped, ignoring");
    }
}
