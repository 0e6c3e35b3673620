//! Telling a seccomp listener of a container's first process.
//!
//! Owns the message of the OCI runtime specification (config-linux.md, "The Container Process State") and its way: the socket is connected while
//! its path still means the host's, the process's id comes from the parent, because the process itself only knows the container's numbers.
//! Refuses to answer notifications. Invariant: the listener has the descriptor before the app is executed, or there is no app.
//!
//! ```text
//! {"ociVersion":"1.0.2","fds":["seccompFd"],"pid":4422,"metadata":"…","state":{"ociVersion":…,"id":…,"status":"creating",…}}
//! ```

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use kakoi_policy::confinement::{Confinement, Listener, Seccomp};
use kakoi_sys::{CallError, Errno};
use serde::Serialize;

use crate::hook::HookState;

/// The child's end: a connected listener and the pipe on which the parent tells the child's id.
#[derive(Debug)]
pub(crate) struct Notify {
    socket: UnixStream,
    pid: OwnedFd,
}

/// The parent's end.
#[derive(Debug)]
pub(crate) struct PidTeller(OwnedFd);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessState<'a> {
    oci_version: &'a str,
    fds: [&'static str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    state: HookState,
}

/// Connects to the listener of the confinement's filters; `None` where none asks one.
pub(crate) fn connect(confinement: &Confinement) -> std::io::Result<Option<(Notify, PidTeller)>> {
    let Seccomp::Filters(filters) = &confinement.seccomp else {
        return Ok(None);
    };
    let Some(listener) = filters.iter().find_map(|filter| filter.listener.as_ref()) else {
        return Ok(None);
    };
    let socket = UnixStream::connect(&listener.path)?;
    let (pid, teller) = kakoi_sys::descriptors::pipe().map_err(|error| crate::create::io(&error))?;
    Ok(Some((Notify { socket, pid }, PidTeller(teller))))
}

impl PidTeller {
    /// Tells the child its id as the host counts. The pipe holds it until the child reads.
    pub(crate) fn tell(self, pid: i32) -> std::io::Result<()> {
        File::from(self.0).write_all(&pid.to_ne_bytes())
    }
}

impl Notify {
    /// Sends the descriptor and who the process is.
    pub(crate) fn deliver(
        &self,
        listener: &Listener,
        descriptor: BorrowedFd<'_>,
        state: &HookState,
    ) -> Result<(), CallError> {
        let failed = |call: &'static str| {
            move |error: std::io::Error| CallError {
                call,
                errno: Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO)),
            }
        };
        let mut bytes = [0; 4];
        let pid = self.pid.try_clone().map_err(failed("fcntl"))?;
        File::from(pid).read_exact(&mut bytes).map_err(failed("read"))?;
        let pid = i32::from_ne_bytes(bytes);
        let message = serde_json::to_vec(&ProcessState {
            oci_version: &state.oci_version,
            fds: ["seccompFd"],
            pid,
            metadata: &listener.metadata,
            state: HookState {
                pid: Some(pid),
                ..state.clone()
            },
        });
        let message = message.map_err(|error| failed("sendmsg")(error.into()))?;
        kakoi_sys::socket::send_descriptors(self.socket.as_fd(), &message, &[descriptor]).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listener_learns_the_hosts_number_and_gets_the_descriptor() {
        let (ours, theirs) = UnixStream::pair().expect("socketpair works");
        let (pid, teller) = kakoi_sys::descriptors::pipe().expect("pipes are cheap");
        PidTeller(teller).tell(4422).expect("the pipe is empty");
        let notify = Notify { socket: ours, pid };
        let state = HookState {
            oci_version: "1.0.2".into(),
            id: "web".into(),
            status: "created".into(),
            pid: None,
            bundle: "/b".into(),
            annotations: Default::default(),
        };
        let listener = Listener {
            path: "/run/agent".into(),
            metadata: "m".into(),
        };
        let null = File::open("/dev/null").expect("it exists");
        notify
            .deliver(&listener, null.as_fd(), &state)
            .expect("the other end is open");
        let mut bytes = [0; 4096];
        let (count, descriptors) =
            kakoi_sys::socket::receive_descriptors(theirs.as_fd(), &mut bytes).expect("a message waits");
        let told: serde_json::Value = serde_json::from_slice(&bytes[..count]).expect("it is JSON");
        assert_eq!(descriptors.len(), 1);
        assert_eq!(
            (&told["pid"], &told["state"]["pid"]),
            (&4422.into(), &4422.into())
        );
        assert_eq!(
            (&told["fds"][0], &told["metadata"]),
            (&"seccompFd".into(), &"m".into())
        );

        // A parent that died before it told leaves no listener with a wrong number.
        let (pid, teller) = kakoi_sys::descriptors::pipe().expect("pipes are cheap");
        drop(teller);
        let notify = Notify { pid, ..notify };
        assert!(notify.deliver(&listener, null.as_fd(), &state).is_err());
    }
}
