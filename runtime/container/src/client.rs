//! Both ends of the control socket's words, without input or output.
//!
//! Owns cutting bytes into lines and frames. The daemon reads its sockets in its own way and feeds what came here. Invariant: what a peer sends is held up
//! to a limit and no further.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::frames::LINE_BYTES_MAX;

/// The most bytes that one frame may say it has; the shim's are at most 16 KiB.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// Why bytes are not what the other side should send.
#[derive(Debug, Error)]
pub enum WireError {
    /// A line goes on for too long.
    #[error("line is longer than {LINE_BYTES_MAX} bytes")]
    LineTooLong,
    /// A line is not the expected document.
    #[error("understand line")]
    Line(#[source] serde_json::Error),
    /// A frame's header is not one.
    #[error("frame header {0:?} is malformed")]
    Frame([u8; 8]),
    /// The connection ended in the middle.
    #[error("connection ended in the middle of a message")]
    Cut,
}

/// Writes a word as its line.
pub fn encode<T: Serialize>(word: &T) -> Result<Vec<u8>, WireError> {
    let mut line = serde_json::to_vec(word).map_err(WireError::Line)?;
    if line.len() >= LINE_BYTES_MAX {
        return Err(WireError::LineTooLong);
    }
    line.push(b'\n');
    Ok(line)
}

/// Cuts incoming bytes into lines.
#[derive(Debug, Default)]
pub struct Lines {
    held: Vec<u8>,
    searched: usize,
}

impl Lines {
    /// Takes bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Answers the next whole line, understood; `None` until there is one.
    pub fn next_word<T: DeserializeOwned>(&mut self) -> Result<Option<T>, WireError> {
        let Some(end) = self.held[self.searched..].iter().position(|byte| *byte == b'\n') else {
            self.searched = self.held.len();
            return if self.held.len() > LINE_BYTES_MAX {
                Err(WireError::LineTooLong)
            } else {
                Ok(None)
            };
        };
        let rest = self.held.split_off(self.searched + end + 1);
        let line = std::mem::replace(&mut self.held, rest);
        self.searched = 0;
        serde_json::from_slice(&line).map(Some).map_err(WireError::Line)
    }

    /// Gives back the bytes after the last line: after [`Reply::Stream`](crate::frames::Reply::Stream) they are the stream's first.
    pub fn into_rest(self) -> Vec<u8> {
        self.held
    }

    /// Checks that nothing is left when the connection ends.
    pub fn finish(&self) -> Result<(), WireError> {
        if self.held.is_empty() {
            Ok(())
        } else {
            Err(WireError::Cut)
        }
    }
}

/// Which output a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Cuts incoming bytes into frames (see [`crate::frames`]).
#[derive(Debug, Default)]
pub struct Frames {
    held: Vec<u8>,
}

impl Frames {
    /// Takes bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Answers the next whole frame; `None` until there is one.
    pub fn next_frame(&mut self) -> Result<Option<(FrameStream, Vec<u8>)>, WireError> {
        let Some(header) = self.held.first_chunk::<8>().copied() else {
            return Ok(None);
        };
        let [kind, zeros @ .., a, b, c, d] = header;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let stream = match kind {
            1 => FrameStream::Stdout,
            2 => FrameStream::Stderr,
            _ => return Err(WireError::Frame(header)),
        };
        if zeros != [0; 3] || length > FRAME_BYTES_MAX {
            return Err(WireError::Frame(header));
        }
        if self.held.len() < 8 + length {
            return Ok(None);
        }
        let rest = self.held.split_off(8 + length);
        let mut frame = std::mem::replace(&mut self.held, rest);
        frame.drain(..8);
        Ok(Some((stream, frame)))
    }

    /// Checks that nothing is left when the connection ends.
    pub fn finish(&self) -> Result<(), WireError> {
        if self.held.is_empty() {
            Ok(())
        } else {
            Err(WireError::Cut)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::{Reply, Request};

    #[test]
    fn the_example_in_the_header_of_frames_is_what_is_spoken() {
        let request = Request::Kill {
            signal: 15,
            all: false,
        };
        let header = include_str!("frames.rs");
        for word in [
            encode(&request).expect("fits"),
            encode(&Reply::Done).expect("fits"),
        ] {
            let word = String::from_utf8(word).expect("JSON is UTF-8");
            assert!(header.contains(word.trim_end()), "{word}");
        }
    }

    #[test]
    fn lines_come_whole_however_they_were_cut_and_the_rest_is_kept() {
        let bytes = b"\"done\"\n\"stream\"\nraw";
        for cut in 0..bytes.len() {
            let mut lines = Lines::default();
            let mut words = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                lines.push(part);
                while words.len() < 2
                    && let Some(word) = lines.next_word::<Reply>().expect("well-formed")
                {
                    words.push(word);
                }
            }
            assert_eq!(words, [Reply::Done, Reply::Stream], "cut at {cut}");
            assert!(matches!(lines.finish(), Err(WireError::Cut)));
            assert_eq!(lines.into_rest(), b"raw", "cut at {cut}");
        }
    }

    #[test]
    fn garbage_and_giants_are_refused() {
        let mut lines = Lines::default();
        lines.push(b"{\"kill\":\n");
        assert!(matches!(lines.next_word::<Request>(), Err(WireError::Line(_))));
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; LINE_BYTES_MAX + 1]);
        assert!(matches!(
            lines.next_word::<Request>(),
            Err(WireError::LineTooLong)
        ));
        for header in [
            [3, 0, 0, 0, 0, 0, 0, 1],
            [1, 9, 0, 0, 0, 0, 0, 1],
            [1, 0, 0, 0, 255, 0, 0, 0],
        ] {
            let mut frames = Frames::default();
            frames.push(&header);
            assert!(
                matches!(frames.next_frame(), Err(WireError::Frame(_))),
                "{header:?}"
            );
        }
    }

    #[test]
    fn frames_come_whole_however_they_were_cut() {
        let bytes = [1, 0, 0, 0, 0, 0, 0, 2, b'h', b'i', 2, 0, 0, 0, 0, 0, 0, 0];
        for cut in 0..bytes.len() {
            let mut frames = Frames::default();
            let mut got = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                frames.push(part);
                while let Some(frame) = frames.next_frame().expect("well-formed") {
                    got.push(frame);
                }
            }
            assert_eq!(
                got,
                [
                    (FrameStream::Stdout, b"hi".to_vec()),
                    (FrameStream::Stderr, vec![])
                ]
            );
            frames.finish().expect("nothing is left");
        }
    }
}
