//! Kills at the memory limit: how many there were, and a descriptor that tells when to look.
//!
//! Source: the kernel's memcg_test and cgroup-v2 documents; `oom_kill` counts in version 1 since Linux 4.13.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use kakoi_policy::kernel::CgroupMode;

use super::{Cgroup, CgroupError, read_if_there, write};

/// Becomes readable when the group meets its memory limit. Read [`Cgroup::oom_kills`] then, and call [`OomWatch::drain`].
#[derive(Debug)]
pub struct OomWatch {
    descriptor: OwnedFd,
    /// Version 1 keeps the event only as long as the watched file is open.
    _watched: Option<File>,
}

impl OomWatch {
    pub(super) fn open(cgroup: &Cgroup) -> Result<Option<Self>, CgroupError> {
        let Some(path) = file(cgroup).filter(|path| path.exists()) else {
            return Ok(None);
        };
        let failed = |source| CgroupError::Watch {
            path: path.clone(),
            source,
        };
        if cgroup.mode == CgroupMode::V2 {
            let descriptor = kakoi_sys::event::watch_modified(&path).map_err(failed)?;
            return Ok(Some(Self {
                descriptor,
                _watched: None,
            }));
        }
        let watched = File::open(&path).map_err(|source| CgroupError::Read {
            path: path.clone(),
            source,
        })?;
        let descriptor = kakoi_sys::event::counter().map_err(failed)?;
        let line = kakoi_sys::event::event_control_line(descriptor.as_fd(), watched.as_fd());
        write(&path.with_file_name("cgroup.event_control"), &line)?;
        Ok(Some(Self {
            descriptor,
            _watched: Some(watched),
        }))
    }

    /// Takes what was reported, so that the descriptor is quiet until the next event.
    pub fn drain(&self) {
        // Both kinds are non-blocking; the content says nothing that the counter does not.
        let mut bytes = [0; 4096];
        while nix::unistd::read(std::os::fd::AsRawFd::as_raw_fd(&self.descriptor), &mut bytes)
            .is_ok_and(|n| n > 0)
        {}
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

pub(super) fn kills(cgroup: &Cgroup) -> Result<u64, CgroupError> {
    let Some(path) = file(cgroup) else { return Ok(0) };
    let text = read_if_there(&path)?.unwrap_or_default();
    Ok(super::stats::keyed(&text, "oom_kill"))
}

fn file(cgroup: &Cgroup) -> Option<PathBuf> {
    let name = match cgroup.mode {
        CgroupMode::V2 => "memory.events",
        CgroupMode::V1 | CgroupMode::Hybrid => "memory.oom_control",
    };
    cgroup.folder("memory").map(|folder: &Path| folder.join(name))
}
