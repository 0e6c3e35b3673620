//! The blocks of an image of a slot by their SHA-256: whoever has the index knows of each block whether it is the right one, wherever it came from.
//!
//! ```text
//! 0          32         64
//! ├──────────┼──────────┼─ … ─┤
//! │ SHA-256  │ SHA-256  │     │    of bytes 0 to B, B to 2B …; the last block may be shorter
//! └──────────┴──────────┴─ … ─┘
//! ```
//!
//! An index is believed because its digest stands in a manifest that somebody signed. Knows nothing of where blocks come from.

use sha2::{Digest as _, Sha256};

/// Bytes of a block: a power of two from the page of a file system to what is still little to fetch for one changed byte.
pub const BLOCK_BYTES: std::ops::RangeInclusive<u64> = 4096..=1 << 20;
/// The most bytes of an index: it is held in memory while a slot is written. Two million blocks, of 4 KiB 8 GiB.
pub const INDEX_BYTES_MAX: u64 = 64 << 20;
const HASH_BYTES: usize = 32;

/// What a block is known by.
pub(super) type Hash = [u8; HASH_BYTES];

/// Why an index is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Blocks of a size that is not used.
    #[error("blocks of {0} bytes are not a power of two from 4096 to 1048576")]
    Block(u64),
    /// An image of nothing, or of more than an index may describe.
    #[error("an image of {0} bytes is empty or too large for its blocks")]
    Image(u64),
    /// It does not have a hash for each block.
    #[error("an index of {found} bytes for an image that needs {expected}")]
    Length {
        /// Bytes of the index.
        found: u64,
        /// Bytes that it should have.
        expected: u64,
    },
}

/// The index of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    hashes: Vec<Hash>,
    block_bytes: u64,
    bytes: u64,
}

impl Index {
    /// Reads the index of an image of `bytes` bytes in blocks of `block_bytes`.
    pub fn parse(index: &[u8], block_bytes: u64, bytes: u64) -> Result<Self, IndexError> {
        let expected = Self::length(block_bytes, bytes)?;
        if index.len() as u64 != expected {
            return Err(IndexError::Length {
                found: index.len() as u64,
                expected,
            });
        }
        let (hashes, _) = index.as_chunks::<HASH_BYTES>();
        Ok(Self {
            hashes: hashes.to_vec(),
            block_bytes,
            bytes,
        })
    }

    /// How long such an index is.
    pub fn length(block_bytes: u64, bytes: u64) -> Result<u64, IndexError> {
        if !BLOCK_BYTES.contains(&block_bytes) || !block_bytes.is_power_of_two() {
            return Err(IndexError::Block(block_bytes));
        }
        let length = bytes.div_ceil(block_bytes).saturating_mul(HASH_BYTES as u64);
        match length {
            1..=INDEX_BYTES_MAX => Ok(length),
            _ => Err(IndexError::Image(bytes)),
        }
    }

    /// Bytes of the image.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of a block.
    pub fn block_bytes(&self) -> u64 {
        self.block_bytes
    }

    /// How many blocks there are.
    pub(super) fn count(&self) -> usize {
        self.hashes.len()
    }

    /// Where a block lies.
    pub(super) fn place(&self, block: usize) -> (u64, u64) {
        let from = block as u64 * self.block_bytes;
        (from, (from + self.block_bytes).min(self.bytes))
    }

    pub(super) fn hash(&self, block: usize) -> &Hash {
        &self.hashes[block]
    }

    /// Whether these bytes are that block.
    pub(super) fn is_right(&self, block: usize, bytes: &[u8]) -> bool {
        let (from, to) = self.place(block);
        bytes.len() as u64 == to - from && hash_of(bytes) == self.hashes[block]
    }
}

/// The SHA-256 of a block.
pub(super) fn hash_of(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_has_a_hash_for_each_block() {
        let image = [vec![1; 4096], vec![2; 4096], vec![3; 10]].concat();
        let index: Vec<u8> = image.chunks(4096).flat_map(hash_of).collect();
        let read = Index::parse(&index, 4096, image.len() as u64).expect("an index");
        assert_eq!((read.count(), read.place(2)), (3, (8192, 8202)));
        assert!(read.is_right(0, &image[..4096]) && read.is_right(2, &image[8192..]));
        assert!(!read.is_right(0, &image[4096..8192]) && !read.is_right(2, &image[8192..8200]));
        for (bytes, block, size) in [
            (&index[..95], 4096, 8202),
            (&index[..64], 4096, 8202),
            (&index[..], 4096, 8192),
            (&index[..], 4095, 8202),
            (&index[..], 2048, 8202),
            (&index[..], 2 << 20, 8202),
            (&index[..], 0, 8202),
            (&[][..], 4096, 0),
            (&index[..], 4096, u64::MAX),
        ] {
            assert!(Index::parse(bytes, block, size).is_err(), "{block} {size}");
        }
    }
}
