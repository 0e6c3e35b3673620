//! Asking an app, from within its own network namespace, whether it answers.
//!
//! Connects to the namespace's loopback, so that no packet filter stands between and no network has to be there. What comes back is hostile: a bounded
//! beginning of it is read, within one limit of time, and three digits of it are looked at. Blocking.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use kakoi_sys::CallError;
use kakoi_sys::network::open_within;

/// Bytes of an answer that are looked at: `HTTP/1.1 200`.
const STATUS_LINE_BYTES: usize = 12;

/// Why an app does not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// The namespace could not be entered.
    #[error("entering the network namespace")]
    Namespace(#[source] CallError),
    /// Nobody listens, or not in time.
    #[error("connecting to port {port}")]
    Connect {
        /// The port.
        port: u16,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The connection broke, or the time was over.
    #[error("asking port {port}")]
    Talk {
        /// The port.
        port: u16,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// What came is no answer of HTTP.
    #[error("port {0} answers something other than HTTP")]
    NotHttp(u16),
    /// The answer is no good one.
    #[error("the answer has the status {0}")]
    Status(u16),
}

/// Connects to a port of the namespace's loopback, 127.0.0.1 or, where nobody listens there, ::1.
///
/// # Errors
/// What stands in the way.
pub fn connect(netns: BorrowedFd<'_>, port: u16, limit: Duration) -> Result<(), ProbeError> {
    open(netns, port, limit).map(drop)
}

/// Asks for a page there; an answer from 200 to 399 is good.
///
/// # Errors
/// What stands in the way, or the other status.
pub fn get(netns: BorrowedFd<'_>, port: u16, path: &str, limit: Duration) -> Result<u16, ProbeError> {
    let until = Instant::now() + limit;
    let mut stream = open(netns, port, limit)?;
    let talk = |cause| ProbeError::Talk { port, cause };
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nUser-Agent: kakoi\r\n\r\n");
    let mut answer = [0; STATUS_LINE_BYTES];
    let mut have = 0;
    limit_to(&stream, until).map_err(talk)?;
    stream.write_all(request.as_bytes()).map_err(talk)?;
    while have < answer.len() {
        // Before each read: one that sends a byte now and then would never be through.
        limit_to(&stream, until).map_err(talk)?;
        match stream.read(&mut answer[have..]).map_err(talk)? {
            0 => return Err(ProbeError::NotHttp(port)),
            count => have += count,
        }
    }
    match status(&answer) {
        None => Err(ProbeError::NotHttp(port)),
        Some(code @ 200..=399) => Ok(code),
        Some(code) => Err(ProbeError::Status(code)),
    }
}

fn limit_to(stream: &TcpStream, until: Instant) -> io::Result<()> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    stream.set_read_timeout(Some(left))?;
    stream.set_write_timeout(Some(left))
}

fn status(line: &[u8; STATUS_LINE_BYTES]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let ([b'0' | b'1', b' '], digits) = rest.split_at(2) else {
        return None;
    };
    let text = std::str::from_utf8(digits).ok()?;
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

fn open(netns: BorrowedFd<'_>, port: u16, limit: Duration) -> Result<TcpStream, ProbeError> {
    let opened = open_within(netns, || {
        let to = |address| TcpStream::connect_timeout(&SocketAddr::new(address, port), limit);
        to(IpAddr::V4(Ipv4Addr::LOCALHOST)).or_else(|cause| match cause.kind() {
            io::ErrorKind::ConnectionRefused => to(IpAddr::V6(Ipv6Addr::LOCALHOST)).map_err(|_| cause),
            _ => Err(cause),
        })
    });
    opened
        .map_err(ProbeError::Namespace)?
        .map_err(|cause| ProbeError::Connect { port, cause })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_is_read() {
        for (line, code) in [
            (b"HTTP/1.1 200", Some(200)),
            (b"HTTP/1.0 503", Some(503)),
            (b"HTTP/2.0 200", None),
            (b"HTTP/1.1 2x0", None),
            (b"HTTP/1.1 +20", None),
            (b"SSH-2.0-Open", None),
        ] {
            assert_eq!(status(line), code, "{}", String::from_utf8_lossy(line));
        }
    }
}
