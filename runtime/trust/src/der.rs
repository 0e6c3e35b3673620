//! As much of DER as a public key needs, strictly: one encoding for one value, nothing left over.
//!
//! Strictness is what makes comparing bytes the same as comparing keys. Knows tags and lengths, no algorithm.

/// INTEGER.
pub(crate) const INTEGER: u8 = 0x02;
/// BIT STRING.
pub(crate) const BIT_STRING: u8 = 0x03;
/// NULL.
pub(crate) const NULL: u8 = 0x05;
/// OBJECT IDENTIFIER.
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
/// SEQUENCE.
pub(crate) const SEQUENCE: u8 = 0x30;

/// Bytes that are not strict DER of what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the DER that was expected")]
pub struct DerError;

/// What is left to read.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Takes the content of the next element, which must have this tag.
    pub(crate) fn take(&mut self, tag: u8) -> Result<&'a [u8], DerError> {
        let (&found, rest) = self.0.split_first().ok_or(DerError)?;
        let (&first, rest) = rest.split_first().ok_or(DerError)?;
        if found != tag {
            return Err(DerError);
        }
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81 | 0x82 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f)).ok_or(DerError)?;
                let length = bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
                // The short form would have done, or one byte: a second encoding of the same value.
                if length < 0x80 || (bytes.len() == 2 && length < 0x100) {
                    return Err(DerError);
                }
                (length, rest)
            }
            _ => return Err(DerError),
        };
        let (content, rest) = rest.split_at_checked(length).ok_or(DerError)?;
        self.0 = rest;
        Ok(content)
    }

    /// Takes a positive INTEGER: its bytes without the sign.
    pub(crate) fn positive(&mut self) -> Result<&'a [u8], DerError> {
        match self.take(INTEGER)? {
            [0, rest @ ..] if rest.first().is_some_and(|byte| byte & 0x80 != 0) => Ok(rest),
            content @ [first, ..] if *first != 0 && first & 0x80 == 0 => Ok(content),
            _ => Err(DerError),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Fails if anything is left.
    pub(crate) fn end(self) -> Result<(), DerError> {
        self.is_empty().then_some(()).ok_or(DerError)
    }
}

/// Writes an element: the counterpart of [`Reader::take`].
pub(crate) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut bytes = vec![tag];
    match u8::try_from(length) {
        Ok(short @ 0..=0x7f) => bytes.push(short),
        Ok(byte) => bytes.extend([0x81, byte]),
        Err(_) => {
            let length = u16::try_from(length).expect("no key has 64 KiB");
            bytes.push(0x82);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend_from_slice(content);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_has_one_encoding() {
        for length in [0, 1, 127, 128, 255, 256, 5000] {
            let written = element(SEQUENCE, &vec![7; length]);
            let mut reader = Reader::new(&written);
            assert_eq!(reader.take(SEQUENCE).expect("read back").len(), length);
            reader.end().expect("nothing left");
        }
        for bad in [
            &[][..],
            &[0x30],
            &[0x30, 1],
            &[0x31, 0],
            &[0x30, 0x80, 0, 0],
            &[0x30, 0x81, 1, 9],
            &[0x30, 0x82, 0, 1, 9],
        ] {
            assert_eq!(Reader::new(bad).take(SEQUENCE), Err(DerError), "{bad:?}");
        }
        assert_eq!(Reader::new(&[2, 2, 0, 0x80]).positive(), Ok(&[0x80][..]));
        for bad in [&[2, 0][..], &[2, 1, 0], &[2, 1, 0x80], &[2, 2, 0, 1]] {
            assert_eq!(Reader::new(bad).positive(), Err(DerError), "{bad:?}");
        }
    }
}
