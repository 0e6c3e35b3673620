//! Namespaces of other containers, taken from their first processes while they are certainly theirs.
//!
//! Owns the way from a container's folder to descriptors of its namespaces. Invariant: no id of a process is trusted that could have changed
//! hands. The other shim names its first process by id and start time; a pidfd is opened and checked against both; the namespaces are opened
//! below `/proc/<id>`; and the process still exists afterwards, so that the id meant it all the while.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::fcntl::OFlag;

use super::control::Refusal;
use crate::client;
use crate::frames::{LINE_BYTES_MAX, Reply, Request, State};
use crate::handle::{Handle, HandleError, ProcessId};
use crate::plan::{NamespacePlan, NamespaceSource};

/// How long another shim may take to answer: it does one thing after another, and a start is the longest of them.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Descriptors of joined namespaces; the paths by which they are joined hold for as long as this lives.
#[derive(Debug, Default)]
pub(super) struct Joined(BTreeMap<&'static str, OwnedFd>);

impl Joined {
    /// Opens whatever a plan joins.
    pub(super) fn open(plan: &NamespacePlan) -> Result<Self, Refusal> {
        let mut joined = BTreeMap::new();
        for (kind, name, source) in [("network", "ns/net", &plan.network), ("pid", "ns/pid", &plan.pid)] {
            if let NamespaceSource::Container { id, run_dir } = source {
                joined.insert(kind, namespace(id, run_dir, name)?);
            }
        }
        Ok(Self(joined))
    }

    /// Where each is found by this process and its children.
    pub(super) fn paths(&self) -> BTreeMap<&'static str, String> {
        let path = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
        self.0.iter().map(|(kind, fd)| (*kind, path(fd))).collect()
    }
}

fn namespace(id: &str, run_dir: &Path, name: &str) -> Result<OwnedFd, Refusal> {
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
    let (namespace, owner) = (open(name)?, open("ns/user")?);
    if !process.is_alive() {
        return Err(gone());
    }
    let inode = |file: &File| file.metadata().map(|data| (data.dev(), data.ino()));
    let own = File::open("/proc/self/ns/user").and_then(|file| inode(&file));
    match (own, inode(&File::from(owner))) {
        (Ok(own), Ok(theirs)) if own == theirs => Ok(namespace),
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
            let opened = namespace("x", folder.path(), "ns/net");
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
            let refusal = namespace("x", &run_dir, "ns/net").expect_err("nobody listens");
            assert!(refusal.message.contains("non running"), "{refusal:?}");
        }
    }
}
