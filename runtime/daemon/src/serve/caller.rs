//! Who asks: what the kernel says of the other end of a connection.

use tokio::net::UnixStream;

use crate::policy::Door;

/// Whoever is at the other end of a connection.
#[derive(Debug)]
pub struct Caller {
    /// The socket that he came by.
    pub door: Door,
    /// Who he is, for the audit log.
    pub who: String,
}

impl Caller {
    /// The user and the process that connected, as the kernel kept them; either may have gone since, or handed the connection on.
    pub fn on(stream: &UnixStream, door: Door) -> Self {
        let who = match stream.peer_cred() {
            Ok(peer) => match peer.pid() {
                Some(pid) => format!("uid {}, pid {pid}", peer.uid()),
                None => format!("uid {}", peer.uid()),
            },
            Err(cause) => {
                tracing::warn!(%cause, "ignoring that the kernel does not say who has connected");
                "unknown".to_owned()
            }
        };
        Self { door, who }
    }

    /// The entrance, for the audit log.
    pub fn from(&self) -> &'static str {
        match self.door {
            Door::Kakoi => "kakoid.sock",
            Door::Docker => "docker.sock",
        }
    }
}
