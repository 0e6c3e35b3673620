//! The frames of a stream without a terminal: a byte 1 (stdout) or 2 (stderr), three zero bytes, a big-endian length, the bytes.
//!
//! ```text
//! 01 00 00 00 00 00 00 03  6f 6b 0a     "ok\n" on standard output
//! ```

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 8;

/// The content type of framed streams.
pub const CONTENT_TYPE_FRAMED: &str = "application/vnd.docker.multiplexed-stream";

/// The content type of a terminal's bytes.
pub const CONTENT_TYPE_RAW: &str = "application/vnd.docker.raw-stream";

/// Which output a frame belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Writes the header of a frame of `length` bytes.
pub fn header(output: Output, length: u32) -> [u8; HEADER_BYTES] {
    let [a, b, c, d] = length.to_be_bytes();
    let stream = match output {
        Output::Stdout => 1,
        Output::Stderr => 2,
    };
    [stream, 0, 0, 0, a, b, c, d]
}

/// Reads a frame's header; `None` where it is none. Byte 0 (standard input) counts as standard output, as in Docker's own client.
pub fn parse_header(header: &[u8; HEADER_BYTES]) -> Option<(Output, u32)> {
    let [stream, 0, 0, 0, a, b, c, d] = *header else {
        return None;
    };
    let output = match stream {
        0 | 1 => Output::Stdout,
        2 => Output::Stderr,
        _ => return None,
    };
    Some((output, u32::from_be_bytes([a, b, c, d])))
}

/// Wraps `bytes` in one frame.
pub fn frame(output: Output, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("a chunk is far below 4 GiB");
    let mut framed = Vec::with_capacity(HEADER_BYTES + bytes.len());
    framed.extend_from_slice(&header(output, length));
    framed.extend_from_slice(bytes);
    framed
}

#[cfg(test)]
mod tests {
    use super::{Output, frame, header, parse_header};

    #[test]
    fn the_drawing_in_the_header_holds() {
        assert_eq!(frame(Output::Stdout, b"ok\n"), *b"\x01\0\0\0\0\0\0\x03ok\n");
        assert_eq!(
            parse_header(&header(Output::Stderr, 0x01020304)),
            Some((Output::Stderr, 0x01020304))
        );
    }

    #[test]
    fn refuses_what_is_no_header() {
        assert_eq!(parse_header(b"\x03\0\0\0\0\0\0\0"), None);
        assert_eq!(parse_header(b"\x01\x01\0\0\0\0\0\0"), None);
    }
}
