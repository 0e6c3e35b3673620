//! One client on the control socket.
//!
//! Owns its bytes: the request line as it comes in, what waits to go out, and how long it has waited. Refuses to know what a request does. Invariant:
//! no operation blocks, and neither direction holds more than its limit.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::frames::{LINE_BYTES_MAX, Streams};

/// Output held for a client that reads slowly. At this point the program's output is no longer read, so that the program waits.
pub(crate) const OUTPUT_BYTES_FULL: usize = 256 << 10;

/// How long a client may leave its output untouched while the program waits; after it the client is dropped and the program goes on. A reader on
/// the way to a person (a pager, a stopped terminal) is worth a wait; a service is not to hang on it for ever.
pub(crate) const STALL_MAX: Duration = Duration::from_secs(30);

/// What a connection is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Its request has not come yet.
    Asking,
    /// It gets events.
    Watching,
    /// It carries the streams of the process with this number.
    Streaming {
        /// Which process.
        process: u64,
        /// Which streams.
        streams: Streams,
        /// Whether bytes are in frames.
        framed: bool,
    },
    /// Its answer is on the way; then it is closed.
    Leaving,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    /// What it is for.
    pub(crate) role: Role,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    stalled_since: Option<Instant>,
    /// Whether the client has closed its direction.
    pub(crate) is_input_closed: bool,
    /// Whether the client has closed both; what it sent before may still be to read.
    pub(crate) is_hung_up: bool,
    /// Whether it is to be removed.
    pub(crate) is_broken: bool,
}

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// Nothing yet.
    Nothing,
    /// A line, without its end.
    Line(Vec<u8>),
    /// More than a line may hold.
    TooLong,
    /// The client left.
    Closed,
}

impl Connection {
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            role: Role::Asking,
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            stalled_since: None,
            is_input_closed: false,
            is_hung_up: false,
            is_broken: false,
        })
    }

    /// Reads towards the request line. Bytes after it stay for [`Connection::read_stream`].
    pub(crate) fn read_line(&mut self, buffer: &mut [u8]) -> Input {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Input::Closed,
                Ok(count) => {
                    let searched = self.input.len();
                    self.input.extend_from_slice(&buffer[..count]);
                    if let Some(end) = self.input[searched..].iter().position(|byte| *byte == b'\n') {
                        let rest = self.input.split_off(searched + end + 1);
                        let mut line = std::mem::replace(&mut self.input, rest);
                        line.pop();
                        return Input::Line(line);
                    }
                    if self.input.len() >= LINE_BYTES_MAX {
                        self.input = Vec::new();
                        return Input::TooLong;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Input::Nothing,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Input::Closed,
            }
        }
    }

    /// Reads bytes for standard input; `None` where there are none now. Marks the end.
    pub(crate) fn read_stream(&mut self, buffer: &mut [u8]) -> Option<Vec<u8>> {
        if !self.input.is_empty() {
            return Some(std::mem::take(&mut self.input));
        }
        match self.stream.read(buffer) {
            Ok(0) => {
                self.is_input_closed = true;
                None
            }
            Ok(count) => Some(buffer[..count].to_vec()),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                None
            }
            Err(_) => {
                self.is_broken = true;
                None
            }
        }
    }

    /// Whether bytes that came with the request line wait to be read.
    pub(crate) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Queues bytes and sends what the socket takes now.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        if self.is_broken {
            return;
        }
        self.output.extend_from_slice(bytes);
        self.flush();
    }

    /// Sends what the socket takes now.
    pub(crate) fn flush(&mut self) {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(count) => {
                    self.sent += count;
                    self.stalled_since = None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stalled_since.get_or_insert_with(Instant::now);
                    if self.sent > OUTPUT_BYTES_FULL / 2 {
                        self.output.drain(..self.sent);
                        self.sent = 0;
                    }
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.is_broken = true;
                    break;
                }
            }
        }
        // The memory goes back: most clients never fall behind.
        self.output = Vec::new();
        self.sent = 0;
        self.stalled_since = None;
    }

    /// Bytes that wait to go out.
    pub(crate) fn pending(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Whether the program has to wait for it.
    pub(crate) fn is_full(&self) -> bool {
        self.pending() >= OUTPUT_BYTES_FULL
    }

    /// Whether a program has waited for it for too long.
    pub(crate) fn is_overdue(&self, now: Instant) -> bool {
        self.is_full() && self.deadline().is_some_and(|deadline| deadline <= now)
    }

    /// When it has to be dropped if it takes nothing until then.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.stalled_since.map(|since| since + STALL_MAX)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("socket pair");
        (Connection::new(ours).expect("connection"), theirs)
    }

    #[test]
    fn a_line_is_taken_and_what_follows_stays() {
        let (mut connection, mut client) = pair();
        let mut buffer = [0; 5];
        assert_eq!(connection.read_line(&mut buffer), Input::Nothing);
        client.write_all(b"hello wor").expect("write");
        assert_eq!(connection.read_line(&mut buffer), Input::Nothing);
        client.write_all(b"ld\nstdin").expect("write");
        assert_eq!(
            connection.read_line(&mut buffer),
            Input::Line(b"hello world".to_vec())
        );
        let mut rest = Vec::new();
        while let Some(bytes) = connection.read_stream(&mut buffer) {
            rest.extend(bytes);
        }
        assert_eq!(rest, b"stdin");
        assert!(!connection.is_input_closed);
        client.shutdown(std::net::Shutdown::Write).expect("half close");
        assert_eq!(connection.read_stream(&mut buffer), None);
        assert!(connection.is_input_closed && !connection.is_broken);
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let (mut connection, mut client) = pair();
        let writer = std::thread::spawn(move || client.write_all(&vec![b'x'; LINE_BYTES_MAX + 1]));
        let mut buffer = vec![0; 64 << 10];
        let refused = loop {
            match connection.read_line(&mut buffer) {
                Input::Nothing => std::thread::yield_now(),
                other => break other,
            }
        };
        assert_eq!(refused, Input::TooLong);
        drop(connection);
        drop(writer.join().expect("writer"));
    }

    #[test]
    fn a_client_that_does_not_read_becomes_full_and_one_that_left_is_broken() {
        let (mut connection, mut client) = pair();
        let piece = vec![7; 64 << 10];
        let mut sent = 0;
        while !connection.is_full() {
            connection.send(&piece);
            sent += piece.len();
        }
        let now = Instant::now();
        assert!(!connection.is_overdue(now), "a reader may be slow for a while");
        assert!(connection.is_overdue(now + STALL_MAX));
        let mut received = 0;
        let mut buffer = vec![0; 64 << 10];
        while received < sent {
            received += client.read(&mut buffer).expect("read");
            connection.flush();
        }
        assert_eq!((connection.pending(), connection.deadline()), (0, None));
        assert!(
            !connection.is_overdue(Instant::now() + STALL_MAX),
            "one that caught up is not dropped"
        );
        drop(client);
        connection.send(b"x");
        assert!(connection.is_broken);
    }
}
