//! The end of a container: what is written down and what is removed.
//!
//! Owns `exit.json` and the way back to nothing, for a shim that ends as it should and, in [`clean`], for one that was killed. Invariant: an
//! `exit.json` that is there is never replaced by a less true one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::{SuperviseError, clock, lock, read_plan};
use crate::discard::{remove_tree, set_aside};
use crate::frames::Exit;
use crate::plan::RunPlan;
use crate::rootfs;

/// The exit code of a container whose shim was lost: its processes were ended by SIGKILL.
const EXIT_CODE_LOST: i32 = 137;

/// Writes `exit.json`: aside, synced, renamed, its folder synced. That of a container that removes itself is not synced: after a power cut there is
/// no such container.
pub(super) fn record(plan: &RunPlan, exit: &Exit) -> Result<(), SuperviseError> {
    let path = plan.state_dir.join("exit.json");
    let aside = plan.state_dir.join("exit.json.new");
    let write = || -> io::Result<()> {
        let mut file = super::create_private_file(&aside)?;
        file.write_all(&serde_json::to_vec(exit).expect("an exit is plain data"))?;
        if plan.is_ephemeral {
            return fs::rename(&aside, &path);
        }
        file.sync_all()?;
        fs::rename(&aside, &path)?;
        File::open(&plan.state_dir)?.sync_all()
    };
    write().map_err(|source| SuperviseError::File {
        act: "write",
        path: path.clone(),
        source,
    })
}

/// What [`remove`] leaves for when nobody waits any more.
#[derive(Debug)]
pub(super) struct Remains {
    /// For [`rootfs::disassemble`]'s reason to be closed last.
    held: Vec<OwnedFd>,
    /// The run-time folder under its other name.
    folder: Option<PathBuf>,
}

impl Remains {
    /// Removes them. Files that stay are swept by the daemon's next start.
    pub(super) fn bury(self) {
        if let Some(folder) = self.folder
            && let Err(error) = remove_tree(&folder)
        {
            tracing::warn!(folder = %folder.display(), %error, "ignoring a folder that stays");
        }
        drop(self.held);
    }
}

/// Removes everything of the container that lives in the kernel and its run-time folder. Goes on after a failure and reports the first one.
pub(super) fn remove(plan: &RunPlan) -> (Result<(), SuperviseError>, Remains) {
    let killed = super::control::remove(plan);
    let (unmounted, held) = match rootfs::disassemble(plan) {
        Ok(held) => (Ok(()), held),
        Err(error) => (
            Err(SuperviseError::Cgroup {
                message: crate::executor::chain(&error),
            }),
            Vec::new(),
        ),
    };
    let (removed, folder) = match set_aside(&plan.run_dir) {
        Ok(folder) => (Ok(()), folder),
        Err(source) => (Err(folder_failed(&plan.run_dir, source)), None),
    };
    (killed.and(unmounted).and(removed), Remains { held, folder })
}

fn folder_failed(path: &Path, source: io::Error) -> SuperviseError {
    SuperviseError::File {
        act: "remove folder",
        path: path.to_path_buf(),
        source,
    }
}

/// Ends what a killed shim left behind. Refuses while the shim lives.
pub fn clean(plan_path: &Path) -> Result<(), SuperviseError> {
    let plan = read_plan(plan_path)?;
    // A run-time folder that is gone says that nothing runs, or that the host was started anew: there is nobody to lock out.
    let held = if plan.run_dir.exists() {
        Some(lock(&plan.run_dir)?)
    } else {
        None
    };
    let killed = super::control::remove(&plan);
    if !plan.state_dir.join("exit.json").exists() {
        let exit = Exit {
            exit_code: EXIT_CODE_LOST,
            finished_at: clock::now(),
            oom_killed: false,
            start_error: None,
            lost: true,
        };
        record(&plan, &exit)?;
    }
    let removed = remove_tree(&plan.run_dir).map_err(|source| folder_failed(&plan.run_dir, source));
    drop(held);
    killed.and(removed)
}
