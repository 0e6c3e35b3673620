//! Namespaces of other containers, and the shared memory of one whose IPC namespace is joined, taken from their first processes while they are certainly theirs.
//!
//! Owns the way from a container's folder to descriptors of its namespaces. Invariant: no id of a process is trusted that could have changed
//! hands. The other shim names its first process by id and start time; a pidfd is opened and checked against both; the namespaces are opened
//! below `/proc/<id>`; and the process still exists afterwards, so that the id meant it all the while.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kakoi_sys::mount::{attach, clone_from, open_place};
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, umount2};

use super::control::Refusal;
use crate::client;
use crate::frames::{LINE_BYTES_MAX, Reply, Request, State};
use crate::handle::{Handle, HandleError, ProcessId};
use crate::plan::{NamespaceSource, RunPlan};

/// How long another shim may take to answer: it does one thing after another, and a start is the longest of them.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Where the POSIX shared memory of a container lies inside it: it belongs to its IPC namespace in everything but the kernel's books.
const SHARED_MEMORY: &str = "/dev/shm";

/// Descriptors of joined namespaces; the paths by which they are joined hold for as long as this lives.
#[derive(Debug, Default)]
pub(super) struct Joined {
    namespaces: BTreeMap<&'static str, OwnedFd>,
    /// Where the other container's shared memory is mounted, in the shim's own mount namespace.
    shared_memory: Option<PathBuf>,
}

impl Joined {
    /// Opens whatever a plan joins.
    pub(super) fn open(plan: &RunPlan) -> Result<Self, Refusal> {
        let mut joined = Self::default();
        for (kind, name, source) in [
            ("network", "ns/net", &plan.namespaces.network),
            ("pid", "ns/pid", &plan.namespaces.pid),
            ("ipc", "ns/ipc", &plan.namespaces.ipc),
        ] {
            let NamespaceSource::Container { id, run_dir } = source else {
                continue;
            };
            let [found, mounts] = namespaces(id, run_dir, [name, "ns/mnt"])?;
            joined.namespaces.insert(kind, found);
            if kind == "ipc" {
                joined.shared_memory = Some(share_memory(&mounts, &plan.run_dir.join("shm"))?);
            }
        }
        Ok(joined)
    }

    /// Where the other container's shared memory is.
    pub(super) fn shared_memory(&self) -> Option<PathBuf> {
        self.shared_memory.clone()
    }

    /// Takes away what the container has a mount of its own of by now.
    pub(super) fn close(mut self) -> Result<(), Refusal> {
        self.unmount()
            .map_err(|error| Refusal::runtime("unmount the shared memory of another container", &error))
    }

    fn unmount(&mut self) -> std::io::Result<()> {
        let Some(place) = self.shared_memory.take() else {
            return Ok(());
        };
        umount2(&place, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
        std::fs::remove_dir(&place)
    }

    /// Where each is found by this process and its children.
    pub(super) fn paths(&self) -> BTreeMap<&'static str, String> {
        let path = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
        self.namespaces
            .iter()
            .map(|(kind, fd)| (*kind, path(fd)))
            .collect()
    }
}

/// Also where the container was not made: whoever removes the run-time folder must not find another container's memory in it.
impl Drop for Joined {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            tracing::error!(%error, "the shared memory of another container cannot be unmounted");
        }
    }
}

/// Mounts the shared memory of another container in a new folder, in which only this process's mount namespace has it.
fn share_memory(mounts: &OwnedFd, place: &Path) -> Result<PathBuf, Refusal> {
    let failed = |error: &dyn std::error::Error| {
        Refusal::runtime("share the memory of another container (/dev/shm)", error)
    };
    let memory = clone_from(mounts.as_fd(), Path::new(SHARED_MEMORY)).map_err(|error| failed(&error))?;
    // A shim that was killed may have left it, empty: its mounts went with its namespace.
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(place)
        .map_err(|error| failed(&error))?;
    open_place(place)
        .and_then(|place| attach(memory.as_fd(), place.as_fd()))
        .map_err(|error| failed(&error))?;
    Ok(place.to_owned())
}

fn namespaces(id: &str, run_dir: &Path, names: [&str; 2]) -> Result<[OwnedFd; 2], Refusal> {
    let gone = || Refusal::conflict(&format!("cannot join a non running container: {id}"));
    let failed =
        |error: &dyn std::error::Error| Refusal::runtime("open the namespace of another container", error);
    let state = ask(run_dir).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => gone(),
        _ => failed(&error),
    })?;
    if state.started_at.is_empty() {
        return Err(gone());
    }
    let process = Handle::open(ProcessId {
        pid: state.pid,
        start_time: state.start_time,
    })
    .map_err(|error| match error {
        HandleError::Gone(_) => gone(),
        other => failed(&other),
    })?;
    let folder = File::open(format!("/proc/{}", state.pid)).map_err(|error| failed(&error))?;
    let open = |name: &str| {
        kakoi_sys::namespace::open_in_process(folder.as_fd(), name, OFlag::O_RDONLY)
            .map_err(|error| failed(&error))
    };
    let (found, owner) = ([open(names[0])?, open(names[1])?], open("ns/user")?);
    if !process.is_alive() {
        return Err(gone());
    }
    let inode = |file: &File| file.metadata().map(|data| (data.dev(), data.ino()));
    let own = File::open("/proc/self/ns/user").and_then(|file| inode(&file));
    match (own, inode(&File::from(owner))) {
        (Ok(own), Ok(theirs)) if own == theirs => Ok(found),
        _ => Err(Refusal::conflict(&format!(
            "container {id} is in a user namespace of its own: its namespaces cannot be joined"
        ))),
    }
}

fn ask(run_dir: &Path) -> std::io::Result<State> {
    use std::io::{Error, ErrorKind};
    // A socket's name takes 107 bytes; through the folder's descriptor any folder fits.
    let folder = File::open(run_dir)?;
    let mut stream = UnixStream::connect(format!("/proc/self/fd/{}/shim.sock", folder.as_raw_fd()))?;
    stream.set_read_timeout(Some(ANSWER_WAIT))?;
    let line = client::encode(&Request::State).map_err(Error::other)?;
    stream.write_all(&line)?;
    let mut answer = Vec::new();
    let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
    BufReader::new(stream)
        .take(limit)
        .read_until(b'\n', &mut answer)?;
    match serde_json::from_slice(&answer)? {
        Reply::State(state) => Ok(state),
        other => Err(Error::new(ErrorKind::InvalidData, format!("{other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shim that answers one request with a process of our choosing.
    fn shim(pid: i32, start_time: u64, started_at: &str) -> (tempfile::TempDir, std::thread::JoinHandle<()>) {
        let folder = tempfile::tempdir().expect("a folder");
        let listener =
            std::os::unix::net::UnixListener::bind(folder.path().join("shim.sock")).expect("a socket");
        let state = State {
            pid,
            start_time,
            supervisor: 0,
            paused: false,
            started_at: started_at.to_owned(),
        };
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).expect("a request");
            let answer = client::encode(&Reply::State(state)).expect("an answer");
            stream.write_all(&answer).expect("it waits");
        });
        (folder, server)
    }

    #[test]
    fn only_the_very_process_is_joined() {
        let own = std::process::id() as i32;
        let start = kakoi_sys::process::start_time(nix::unistd::getpid()).expect("our own");
        let rows = [
            (own, start, "now", true),
            // The id belongs to another process by now.
            (own, start + 1, "now", false),
            // Created, not started.
            (own, start, "", false),
            (i32::MAX - 1, start, "now", false),
        ];
        for (pid, start_time, started_at, is_joined) in rows {
            let (folder, server) = shim(pid, start_time, started_at);
            let opened = namespaces("x", folder.path(), ["ns/net", "ns/ipc"]);
            server.join().expect("it answered");
            assert_eq!(
                opened.is_ok(),
                is_joined,
                "{pid} {start_time} {started_at}: {opened:?}"
            );
            if let Err(refusal) = opened {
                assert!(
                    refusal.message.contains("non running container: x"),
                    "{refusal:?}"
                );
            }
        }
    }

    #[test]
    fn a_container_without_a_shim_does_not_run() {
        let folder = tempfile::tempdir().expect("a folder");
        for run_dir in [folder.path().to_owned(), folder.path().join("missing")] {
            let refusal = namespaces("x", &run_dir, ["ns/net", "ns/ipc"]).expect_err("nobody listens");
            assert!(refusal.message.contains("non running"), "{refusal:?}");
        }
    }
}
