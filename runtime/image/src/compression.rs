//! Compressed streams: recognised by their first bytes, read with bounded memory.
//!
//! Owns the choice of decoder. Refuses to trust names and media types: a layer that calls itself gzip and is not is read as what it is.
//! Invariant: a decoder needs at most [`WINDOW_LOG_MAX`] of memory, whatever its input says.

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;

/// Largest zstd window, as a power of two: 32 MiB. `zstd -19` needs 8 MiB; a device has 512 MiB in all.
pub const WINDOW_LOG_MAX: u32 = 25;

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip (RFC 1952), also of several members.
    Gzip,
    /// zstd (RFC 8878).
    Zstd,
}

impl Compression {
    /// Tells from the first bytes; none of the three formats begins as another.
    pub fn detect(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, 0x08, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame: zstd:chunked layers begin with data, but other writers may put their notes first.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// Fills the reader's buffer and tells how its stream is compressed. The reader's buffer holds at least four bytes.
pub(crate) fn peek(reader: &mut impl BufRead) -> io::Result<Compression> {
    Ok(Compression::detect(reader.fill_buf()?))
}

/// Whether what begins so is compressed in a way that [`decoded`] reads.
pub fn is_compressed(head: &[u8]) -> bool {
    Compression::detect(head) != Compression::None
}

/// A reader of what a stream holds that may be compressed.
pub fn decoded(reader: impl Read) -> io::Result<impl Read> {
    Decoder::new(io::BufReader::with_capacity(64 * 1024, reader))
}

/// A reader of what a stream holds.
pub(crate) enum Decoder<R: BufRead> {
    Plain(R),
    Gzip(Box<MultiGzDecoder<R>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, R>>),
}

impl<R: BufRead> Decoder<R> {
    /// Chooses by the first bytes.
    pub(crate) fn new(mut reader: R) -> io::Result<Self> {
        Ok(match peek(&mut reader)? {
            Compression::None => Self::Plain(reader),
            Compression::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(reader))),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
                decoder.window_log_max(WINDOW_LOG_MAX)?;
                Self::Zstd(Box::new(decoder))
            }
        })
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(reader) => reader.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Decoder::new(io::BufReader::new(bytes))?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn every_kind_is_read_and_its_damage_noticed() {
        let text = b"layer".repeat(1000);
        let zstd = zstd::encode_all(&text[..], 1).expect("memory");
        let two = [gzip(&text[..100]), gzip(&text[100..])].concat();
        for good in [text.clone(), gzip(&text), two, zstd.clone()] {
            assert_eq!(read(&good).expect("good"), text);
        }
        let mut flipped = gzip(&text);
        let last = flipped.len() - 6;
        flipped[last] ^= 1;
        for bad in [&gzip(&text)[..30], &zstd[..zstd.len() - 3], &flipped[..]] {
            assert!(read(bad).is_err());
        }
    }

    #[test]
    fn a_window_beyond_the_limit_is_refused() {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).expect("memory");
        encoder.window_log(WINDOW_LOG_MAX + 1).expect("known parameter");
        encoder.write_all(&b"x".repeat(1 << 20)).expect("memory");
        assert!(read(&encoder.finish().expect("memory")).is_err());
    }
}
