//! Asking upstream servers.
//!
//! Owns the order, the times and the care: a fresh socket for each attempt, so that each has a port of the kernel's choice, an id that
//! cannot be guessed, and what is not the answer to the question is not looked at further.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::wire::{Query, is_failure, set_id};

/// How long one server has. A resolver waits five seconds before it asks again (resolv.conf(5)), so that two servers have had their turn.
const ATTEMPT_TIME: Duration = Duration::from_millis(2000);

/// How often the list is gone through.
const ROUNDS: u32 = 2;

/// What a datagram from upstream may hold; servers keep below 1232, and whoever asks for more than this is told to use TCP.
const DATAGRAM_BYTES_MAX: usize = 4096;

/// How the asker asked, which is how the servers are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// Asks one server after the other and gives the first answer that is none of failure; else the last failure; else none.
pub(super) async fn ask(
    upstreams: &[SocketAddr],
    query: &Query,
    bytes: &[u8],
    transport: Transport,
) -> Option<Vec<u8>> {
    let mut failure = None;
    for upstream in (0..ROUNDS).flat_map(|_| upstreams) {
        let id = random_id();
        let mut asked = bytes.to_vec();
        set_id(&mut asked, id);
        let attempt = async {
            match transport {
                Transport::Udp => by_udp(*upstream, query, &asked, id).await,
                Transport::Tcp => by_tcp(*upstream, query, &asked, id).await,
            }
        };
        let Ok(Ok(mut answer)) = timeout(ATTEMPT_TIME, attempt).await else {
            continue;
        };
        set_id(&mut answer, query.id);
        if !is_failure(&answer) {
            return Some(answer);
        }
        failure = Some(answer);
    }
    failure
}

/// The standard library's hasher has a secret key of the kernel's random numbers: what it gives for a new key cannot be told beforehand.
fn random_id() -> u16 {
    RandomState::new().build_hasher().finish() as u16
}

async fn by_udp(upstream: SocketAddr, query: &Query, asked: &[u8], id: u16) -> io::Result<Vec<u8>> {
    let any: IpAddr = match upstream {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    // The kernel takes only what comes from there.
    socket.connect(upstream).await?;
    socket.send(asked).await?;
    let mut answer = vec![0; DATAGRAM_BYTES_MAX + 1];
    loop {
        let count = socket.recv(&mut answer).await?;
        if !query.is_answered_by(&answer[..count], id) {
            continue;
        }
        if count > DATAGRAM_BYTES_MAX {
            return Ok(query.truncated());
        }
        answer.truncate(count);
        return Ok(answer);
    }
}

async fn by_tcp(upstream: SocketAddr, query: &Query, asked: &[u8], id: u16) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream).await?;
    write_message(&mut stream, asked).await?;
    let answer = read_message(&mut stream, usize::from(u16::MAX)).await?;
    if !query.is_answered_by(&answer, id) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(answer)
}

/// A message with its length before it (RFC 1035, 4.2.2).
pub(super) async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(message);
    stream.write_all(&bytes).await
}

pub(super) async fn read_message(stream: &mut TcpStream, bytes_max: usize) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length > bytes_max {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}
