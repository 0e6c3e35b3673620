//! Where the blocks of an image come from: ranges of a registry's blob, or a file that is read from front to back.

use std::io::{self, Read};

use kakoi_host::slots::{Source, WriteError};
use kakoi_image::registry::{Parts, RegistryError};

/// Bytes that are read of a file at a time.
const BUFFER_BYTES: usize = 64 << 10;

/// A registry.
pub struct Remote<'r, 'c>(pub Parts<'r, 'c>);

impl Source for Remote<'_, '_> {
    fn fetch(
        &mut self,
        from: u64,
        to: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        match self.0.read(from, to, take) {
            Ok(taken) => taken,
            Err(RegistryError::Cancelled) => Err(WriteError::CalledOff),
            Err(error) => Err(WriteError::Source(Box::new(error))),
        }
    }

    fn distrust(&mut self) -> bool {
        self.0.distrust()
    }
}

/// A file, of which what is not wanted is passed over.
pub struct Stream<R> {
    from: R,
    at: u64,
}

impl<R: Read> Stream<R> {
    /// Begins at the image's first byte.
    pub fn new(from: R) -> Self {
        Self { from, at: 0 }
    }
}

impl<R: Read> Source for Stream<R> {
    fn fetch(
        &mut self,
        from: u64,
        to: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        let wrong = |cause: io::Error| WriteError::Source(Box::new(cause));
        let short = || wrong(io::ErrorKind::UnexpectedEof.into());
        if from < self.at {
            return Err(short());
        }
        let skipped = io::copy(&mut (&mut self.from).take(from - self.at), &mut io::sink());
        self.at += skipped.map_err(wrong)?;
        if self.at != from {
            return Err(short());
        }
        let mut buffer = vec![0; BUFFER_BYTES];
        while self.at < to {
            let wanted = usize::try_from(to - self.at)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let count = self.from.read(&mut buffer[..wanted]).map_err(wrong)?;
            if count == 0 {
                return Err(short());
            }
            self.at += count as u64;
            take(&buffer[..count])?;
        }
        Ok(())
    }

    fn distrust(&mut self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_read_forward_and_ends_where_it_ends() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut stream = Stream::new(&bytes[..]);
        let read = |stream: &mut Stream<&[u8]>, from, to| {
            let mut found = Vec::new();
            let done = stream.fetch(from, to, &mut |bytes| {
                found.extend_from_slice(bytes);
                Ok(())
            });
            done.map(|()| found)
        };
        assert_eq!(read(&mut stream, 10, 20).expect("read"), bytes[10..20]);
        assert_eq!(read(&mut stream, 100, 256).expect("read"), bytes[100..]);
        assert!(
            matches!(read(&mut stream, 10, 20), Err(WriteError::Source(_))),
            "it is past"
        );
        assert!(
            matches!(read(&mut stream, 256, 300), Err(WriteError::Source(_))),
            "it has ended"
        );
        assert!(!stream.distrust());
    }
}
