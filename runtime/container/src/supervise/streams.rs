//! The ends of one process's standard streams that the shim holds.
//!
//! Owns reading output and feeding input without ever blocking. Refuses to know who listens. Invariant: input that the process does not read is held up to
//! a limit and then no longer taken from the client.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::log::Stream;

/// Input held for a process that does not read it.
pub(crate) const INPUT_BYTES_FULL: usize = 64 << 10;

/// Our ends; each is absent once closed.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    /// The terminal, in both directions.
    pub(crate) terminal: Option<OwnedFd>,
    /// Where standard input is written.
    pub(crate) stdin: Option<OwnedFd>,
    /// Where standard output is read.
    pub(crate) stdout: Option<OwnedFd>,
    /// Where standard error is read.
    pub(crate) stderr: Option<OwnedFd>,
}

/// The process's ends of pipes, to be given to the child.
#[derive(Debug)]
pub(crate) struct Pipes {
    /// Standard input.
    pub(crate) stdin: OwnedFd,
    /// Standard output.
    pub(crate) stdout: OwnedFd,
    /// Standard error.
    pub(crate) stderr: OwnedFd,
}

/// Makes pipes, or `/dev/null` for streams that nobody wants.
pub(crate) fn pipes(stdin: bool, output: bool) -> io::Result<(Ends, Pipes)> {
    let pipe = || kakoi_sys::descriptors::pipe().map_err(|error| io::Error::from(error.errno));
    let null = |write: bool| -> io::Result<OwnedFd> {
        Ok(File::options()
            .read(!write)
            .write(write)
            .open("/dev/null")?
            .into())
    };
    let mut ends = Ends::default();
    let theirs_stdin = if stdin {
        let (reader, writer) = pipe()?;
        ends.stdin = Some(writer);
        reader
    } else {
        null(false)?
    };
    let (stdout, stderr) = if output {
        let (out_reader, out_writer) = pipe()?;
        let (err_reader, err_writer) = pipe()?;
        ends.stdout = Some(out_reader);
        ends.stderr = Some(err_reader);
        (out_writer, err_writer)
    } else {
        (null(true)?, null(true)?)
    };
    Ok((
        ends,
        Pipes {
            stdin: theirs_stdin,
            stdout,
            stderr,
        },
    ))
}

/// One process's streams as the loop serves them.
#[derive(Debug)]
pub(crate) struct ProcessStreams {
    ends: Ends,
    input: Vec<u8>,
    is_input_ending: bool,
}

/// What a read gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// This many bytes.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// The stream has ended.
    End,
}

impl ProcessStreams {
    pub(crate) fn new(ends: Ends) -> io::Result<Self> {
        for end in [&ends.terminal, &ends.stdin, &ends.stdout, &ends.stderr]
            .into_iter()
            .flatten()
        {
            kakoi_sys::descriptors::set_nonblocking(end.as_fd())
                .map_err(|error| io::Error::from(error.errno))?;
        }
        Ok(Self {
            ends,
            input: Vec::new(),
            is_input_ending: false,
        })
    }

    /// The terminal, where there is one.
    pub(crate) fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.ends.terminal.as_ref().map(AsFd::as_fd)
    }

    /// Where output of `stream` is read; a terminal's counts as standard output.
    pub(crate) fn source(&self, stream: Stream) -> Option<BorrowedFd<'_>> {
        let end = match stream {
            Stream::Stdout => self.ends.terminal.as_ref().or(self.ends.stdout.as_ref()),
            Stream::Stderr => self.ends.stderr.as_ref(),
        };
        end.map(AsFd::as_fd)
    }

    /// Where input waits to be written, if some does.
    pub(crate) fn hungry(&self) -> Option<BorrowedFd<'_>> {
        let sink = self.ends.terminal.as_ref().or(self.ends.stdin.as_ref());
        sink.filter(|_| !self.input.is_empty()).map(AsFd::as_fd)
    }

    /// Whether input can be taken from a client now.
    pub(crate) fn takes_input(&self) -> bool {
        let has_sink = self.ends.terminal.is_some() || self.ends.stdin.is_some();
        has_sink && !self.is_input_ending && self.input.len() < INPUT_BYTES_FULL
    }

    /// Whether input can never be taken any more: what a client still sends is thrown away.
    pub(crate) fn refuses_input(&self) -> bool {
        (self.ends.terminal.is_none() && self.ends.stdin.is_none()) || self.is_input_ending
    }

    pub(crate) fn read(&mut self, stream: Stream, buffer: &mut [u8]) -> Output {
        let end = match stream {
            Stream::Stdout if self.ends.terminal.is_some() => &mut self.ends.terminal,
            Stream::Stdout => &mut self.ends.stdout,
            Stream::Stderr => &mut self.ends.stderr,
        };
        let Some(fd) = end.as_ref() else {
            return Output::End;
        };
        loop {
            match nix::unistd::read(std::os::fd::AsRawFd::as_raw_fd(fd), buffer) {
                // A terminal whose other end is closed answers EIO.
                Ok(0) | Err(nix::errno::Errno::EIO) => {
                    *end = None;
                    return Output::End;
                }
                Ok(count) => return Output::Bytes(count),
                Err(nix::errno::Errno::EAGAIN) => return Output::Nothing,
                Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => {
                    tracing::warn!(%errno, "output cannot be read, closing it");
                    *end = None;
                    return Output::End;
                }
            }
        }
    }

    /// Takes input and writes what the process's side takes now.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        self.flush_input();
    }

    /// Closes standard input after what waits for it. A terminal stays open: its end is a character that the client types.
    pub(crate) fn end_input(&mut self) {
        if self.ends.terminal.is_none() {
            self.is_input_ending = true;
            self.flush_input();
        }
    }

    pub(crate) fn flush_input(&mut self) {
        let sink = self.ends.terminal.as_ref().or(self.ends.stdin.as_ref());
        while let Some(fd) = sink.filter(|_| !self.input.is_empty()) {
            match nix::unistd::write(fd, &self.input) {
                Ok(count) => drop(self.input.drain(..count)),
                Err(nix::errno::Errno::EAGAIN) => return,
                Err(nix::errno::Errno::EINTR) => {}
                Err(_) => {
                    // The process closed its side: what it did not want is dropped.
                    self.input = Vec::new();
                    if self.ends.terminal.is_none() {
                        self.ends.stdin = None;
                    }
                    return;
                }
            }
        }
        if self.input.is_empty() {
            self.input = Vec::new();
            if self.is_input_ending {
                self.ends.stdin = None;
            }
        }
    }

    /// Closes everything.
    pub(crate) fn close(&mut self) {
        self.ends = Ends::default();
        self.input = Vec::new();
    }
}

/// Frames output for a client without a terminal (see [`crate::frames`]).
pub(crate) fn frame_header(stream: Stream, length: usize) -> [u8; 8] {
    let kind = match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    };
    let [a, b, c, d] = u32::try_from(length)
        .expect("a read fits its buffer")
        .to_be_bytes();
    [kind, 0, 0, 0, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn input_reaches_the_process_and_its_end_follows() {
        let (ends, theirs) = pipes(true, true).expect("pipes");
        let mut streams = ProcessStreams::new(ends).expect("streams");
        streams.feed(b"hello");
        streams.end_input();
        assert!(streams.refuses_input());
        let mut text = String::new();
        File::from(theirs.stdin)
            .read_to_string(&mut text)
            .expect("read to the end");
        assert_eq!(text, "hello");

        let mut buffer = [0; 16];
        assert_eq!(streams.read(Stream::Stdout, &mut buffer), Output::Nothing);
        File::from(theirs.stdout).write_all(b"out").expect("write");
        assert_eq!(streams.read(Stream::Stdout, &mut buffer), Output::Bytes(3));
        assert_eq!(streams.read(Stream::Stdout, &mut buffer), Output::End);
        assert!(streams.source(Stream::Stdout).is_none());
    }

    #[test]
    fn a_process_that_reads_nothing_holds_a_bounded_amount() {
        let (ends, theirs) = pipes(true, false).expect("pipes");
        let mut streams = ProcessStreams::new(ends).expect("streams");
        let piece = [1; 4096];
        let mut fed = 0;
        while streams.takes_input() {
            streams.feed(&piece);
            fed += piece.len();
        }
        assert!(fed <= (64 << 10) + INPUT_BYTES_FULL + piece.len(), "{fed}");
        assert!(streams.hungry().is_some());
        drop(theirs);
        streams.flush_input();
        assert!(streams.refuses_input() && streams.hungry().is_none());
    }

    #[test]
    fn frames_carry_stream_and_length() {
        assert_eq!(frame_header(Stream::Stdout, 258), [1, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(frame_header(Stream::Stderr, 1), [2, 0, 0, 0, 0, 0, 0, 1]);
    }
}
