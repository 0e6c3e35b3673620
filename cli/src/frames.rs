//! Splitting an output without a terminal into standard output and standard error.
//!
//! Owns the state between two reads. Refuses to know where the bytes go. Invariant: bytes come out in the order in which they came in, without
//! waiting for a frame to be whole.

use kakoi_api::stream::{HEADER_BYTES, Output, parse_header};

/// The stream is not framed as it should be.
#[derive(Debug, thiserror::Error)]
#[error("the daemon sent output that is not framed")]
pub struct FrameError;

/// Where the splitter stands.
#[derive(Debug)]
pub struct Frames {
    header: [u8; HEADER_BYTES],
    header_length: usize,
    current: Output,
    left: usize,
}

impl Frames {
    /// Stands before the first frame.
    pub const fn new() -> Self {
        Self {
            header: [0; HEADER_BYTES],
            header_length: 0,
            current: Output::Stdout,
            left: 0,
        }
    }

    /// Splits bytes; each piece belongs to one output.
    pub fn split<'b>(&mut self, mut bytes: &'b [u8]) -> Result<Vec<(Output, &'b [u8])>, FrameError> {
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            if self.left == 0 {
                let take = (HEADER_BYTES - self.header_length).min(bytes.len());
                self.header[self.header_length..self.header_length + take].copy_from_slice(&bytes[..take]);
                self.header_length += take;
                bytes = &bytes[take..];
                if self.header_length == HEADER_BYTES {
                    let (output, length) = parse_header(&self.header).ok_or(FrameError)?;
                    self.current = output;
                    self.left = length as usize;
                    self.header_length = 0;
                }
                continue;
            }
            let (piece, rest) = bytes.split_at(self.left.min(bytes.len()));
            pieces.push((self.current, piece));
            self.left -= piece.len();
            bytes = rest;
        }
        Ok(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kakoi_api::stream::frame;

    #[test]
    fn frames_survive_any_cut() {
        let mut stream = frame(Output::Stdout, b"one");
        stream.extend(frame(Output::Stderr, b""));
        stream.extend(frame(Output::Stderr, b"two"));
        for cut in 1..stream.len() {
            let mut frames = Frames::new();
            let (mut out, mut err) = (Vec::new(), Vec::new());
            for part in stream.chunks(cut) {
                for (output, piece) in frames.split(part).expect("they are frames") {
                    if output == Output::Stdout {
                        &mut out
                    } else {
                        &mut err
                    }
                    .extend_from_slice(piece);
                }
            }
            assert_eq!(
                (out.as_slice(), err.as_slice()),
                (&b"one"[..], &b"two"[..]),
                "cut {cut}"
            );
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        assert!(Frames::new().split(b"hello world").is_err());
    }
}
