//! Maps of sparse files in tar archives, in GNU's four spellings.
//!
//! Owns [`SparseMap`]. Refuses maps that overlap, go backwards or reach beyond the file. Invariant: the fragments of a map are in order,
//! disjoint and within `size`, so a writer that seeks to each in turn writes every byte once.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::ops::Range;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use tar::Header;

use crate::tarball::{number, numeric};

/// Most fragments of one file: GNU tar makes one per hole; this many need a map of a megabyte.
pub const FRAGMENTS_MAX: usize = 1 << 15;

/// Fields of the old format, in the header and in the blocks after it.
const OLD_FRAGMENTS: Range<usize> = 386..482;
const OLD_EXTENDED: usize = 482;
const REAL_SIZE: Range<usize> = 483..495;
const MORE_FRAGMENTS: Range<usize> = 0..504;
const MORE_EXTENDED: usize = 504;

/// Where the data of a sparse file lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SparseMap {
    /// Offset and length.
    fragments: Vec<(u64, u64)>,
    size: u64,
}

/// Why a sparse map is refused.
#[derive(Debug, thiserror::Error)]
pub enum SparseError {
    /// Fragments overlap, go backwards, reach beyond the file, or do not match the stored data.
    #[error("sparse map does not fit its file")]
    Map,
    /// Too many fragments.
    #[error("sparse map has more than {FRAGMENTS_MAX} fragments")]
    Fragments,
    /// The map could not be read.
    #[error("cannot read the sparse map")]
    Read(#[source] io::Error),
}

impl SparseMap {
    /// The old GNU type `S`: four fragments in the header, more in blocks that follow it.
    pub fn old_gnu(header: &Header, blocks: &mut impl Read) -> Result<Self, SparseError> {
        let header = header.as_bytes();
        let size = positive(&header[REAL_SIZE])?;
        let mut fragments = Vec::new();
        take_entries(&mut fragments, &header[OLD_FRAGMENTS])?;
        let mut more = header[OLD_EXTENDED] != 0;
        while more {
            let mut block = [0u8; 512];
            blocks.read_exact(&mut block).map_err(SparseError::Read)?;
            take_entries(&mut fragments, &block[MORE_FRAGMENTS])?;
            more = block[MORE_EXTENDED] != 0;
        }
        Self::checked(fragments, size)
    }

    /// PAX formats 0.0 and 0.1: `offset,length,offset,length,…`.
    pub fn pax_0(map: &[u8], size: u64) -> Result<Self, SparseError> {
        let mut fragments = Vec::new();
        let mut numbers = map
            .split(|b| *b == b',')
            .map(|text| number(text).ok_or(SparseError::Map));
        while let Some(offset) = numbers.next() {
            let length = numbers.next().ok_or(SparseError::Map)??;
            push(&mut fragments, offset?, length)?;
        }
        Self::checked(fragments, size)
    }

    /// PAX format 1.0: numbers on lines of their own at the start of the body, padded to a block.
    pub fn pax_1_0(body: &mut impl Read, size: u64, body_bytes: u64) -> Result<Self, SparseError> {
        let mut lines = Lines {
            body,
            block: [0; 512],
            at: 512,
            left: body_bytes,
        };
        let count = usize::try_from(lines.number()?).map_err(|_| SparseError::Fragments)?;
        let mut fragments = Vec::new();
        for _ in 0..count {
            let offset = lines.number()?;
            let length = lines.number()?;
            push(&mut fragments, offset, length)?;
        }
        Self::checked(fragments, size)
    }

    /// Where the data of a file of the disk lies; `None` where it has no holes, or its file system does not tell. What lies beyond the last fragment
    /// that a map may have counts as data. Moves the file's position.
    pub fn of_file(file: &File, size: u64) -> io::Result<Option<Self>> {
        let mut fragments: Vec<(u64, u64)> = Vec::new();
        let mut end = 0;
        let seek = |offset: u64, whence| {
            let offset = i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
            lseek(file.as_raw_fd(), offset, whence).map(|at| u64::try_from(at).unwrap_or(0))
        };
        let mut is_sparse = false;
        while end < size {
            let start = match seek(end, Whence::SeekData) {
                Ok(start) => start.min(size),
                // A hole up to the end.
                Err(Errno::ENXIO) => size,
                Err(Errno::EINVAL | Errno::EOPNOTSUPP) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            };
            is_sparse |= start > end;
            if start >= size {
                break;
            }
            let hole = if fragments.len() + 1 == FRAGMENTS_MAX {
                size
            } else {
                // Cut off meanwhile: what is missing is filled up.
                seek(start, Whence::SeekHole).unwrap_or(size).clamp(start, size)
            };
            if hole == start {
                break;
            }
            fragments.push((start, hole - start));
            end = hole;
        }
        (&*file).rewind()?;
        Ok(is_sparse.then_some(Self { fragments, size }))
    }

    /// The map as PAX format 1.0 has it at the start of a body.
    pub(crate) fn to_pax_1_0(&self) -> Vec<u8> {
        let mut text = format!("{}\n", self.fragments.len());
        for (offset, length) in &self.fragments {
            text.push_str(&format!("{offset}\n{length}\n"));
        }
        let mut bytes = text.into_bytes();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    /// The file's size, holes included.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of data that the archive stores.
    pub fn data_bytes(&self) -> u64 {
        self.fragments.iter().map(|(_, length)| length).sum()
    }

    /// Offset and length of each fragment, in order.
    pub fn fragments(&self) -> &[(u64, u64)] {
        &self.fragments
    }

    fn checked(fragments: Vec<(u64, u64)>, size: u64) -> Result<Self, SparseError> {
        let mut end = 0u64;
        for (offset, length) in &fragments {
            if *offset < end {
                return Err(SparseError::Map);
            }
            end = offset.checked_add(*length).ok_or(SparseError::Map)?;
        }
        if end > size {
            Err(SparseError::Map)
        } else {
            Ok(Self { fragments, size })
        }
    }
}

/// Fragments as the old format holds them: pairs of number fields, empty ones at the end.
fn take_entries(fragments: &mut Vec<(u64, u64)>, entries: &[u8]) -> Result<(), SparseError> {
    for entry in entries
        .chunks_exact(24)
        .filter(|entry| entry[0] != 0 && entry[12] != 0)
    {
        push(fragments, positive(&entry[..12])?, positive(&entry[12..])?)?;
    }
    Ok(())
}

fn positive(field: &[u8]) -> Result<u64, SparseError> {
    numeric(field)
        .and_then(|number| u64::try_from(number).ok())
        .ok_or(SparseError::Map)
}

fn push(fragments: &mut Vec<(u64, u64)>, offset: u64, length: u64) -> Result<(), SparseError> {
    if fragments.len() >= FRAGMENTS_MAX {
        return Err(SparseError::Fragments);
    }
    fragments.push((offset, length));
    Ok(())
}

/// Numbers on lines, taken from the body in whole blocks.
struct Lines<'a, R> {
    body: &'a mut R,
    block: [u8; 512],
    at: usize,
    left: u64,
}

impl<R: Read> Lines<'_, R> {
    fn number(&mut self) -> Result<u64, SparseError> {
        let mut digits = Vec::new();
        loop {
            if self.at == self.block.len() {
                self.left = self.left.checked_sub(512).ok_or(SparseError::Map)?;
                self.body.read_exact(&mut self.block).map_err(SparseError::Read)?;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            match byte {
                b'\n' => return number(&digits).ok_or(SparseError::Map),
                // No number of 64 bits has more than twenty digits.
                byte if digits.len() < 20 => digits.push(byte),
                _ => return Err(SparseError::Map),
            }
        }
    }
}
