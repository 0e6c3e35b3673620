//! Bytes at places, as a block device or a file has them, and U-Boot's form of variables in them.
//!
//! The form: a CRC-32 (IEEE, little endian) of what follows it, or of what follows the flag byte where copies are redundant; then NAME=VALUE, each ended
//! by a zero byte; an empty one ends the list, and zero bytes fill the rest.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

/// Where a boot control's state is kept.
pub trait Medium {
    /// Fills `bytes` from offset `at`, or fails.
    fn read_at(&mut self, at: u64, bytes: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes` at offset `at`; a power cut may leave any part of them.
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Returns when all that was written would survive a power cut.
    fn sync(&mut self) -> io::Result<()>;
    /// Has what is read from now on come from the medium, where the platform lets it, and not from a cache. Everything must be synced.
    fn forget(&mut self) -> io::Result<()>;
}

impl Medium for File {
    fn read_at(&mut self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(bytes, at)
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }

    fn forget(&mut self) -> io::Result<()> {
        kakoi_sys::system::forget_pages(self.as_fd()).map_err(io::Error::other)
    }
}

/// Variables by name.
pub(super) type Variables = BTreeMap<String, String>;

/// The variables as a copy of `size` bytes, with the flag byte if one is given; nothing if they do not fit.
pub(super) fn encode(variables: &Variables, size: usize, flag: Option<u8>) -> Option<Vec<u8>> {
    let header = 4 + usize::from(flag.is_some());
    let mut bytes = vec![0; header];
    for (name, value) in variables {
        bytes.extend_from_slice(format!("{name}={value}\0").as_bytes());
    }
    bytes.push(0);
    if bytes.len() > size {
        return None;
    }
    bytes.resize(size, 0);
    if let Some(flag) = flag {
        bytes[4] = flag;
    }
    let sum = crc32(&bytes[header..]).to_le_bytes();
    bytes[..4].copy_from_slice(&sum);
    Some(bytes)
}

/// The variables of a copy whose checksum is right; what comes before them is `header` bytes long.
pub(super) fn decode(bytes: &[u8], header: usize) -> Option<Variables> {
    let data = bytes.get(header..)?;
    let sum = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
    if crc32(data) != sum {
        return None;
    }
    let mut variables = Variables::new();
    for line in data.split(|byte| *byte == 0) {
        if line.is_empty() {
            return Some(variables);
        }
        let (name, value) = std::str::from_utf8(line).ok()?.split_once('=')?;
        variables.insert(name.to_owned(), value.to_owned());
    }
    None
}

/// CRC-32 as in IEEE 802.3, bit by bit: the copies are a few KiB and are read once per boot.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xEDB8_8320 & (sum & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_standard_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let variables = Variables::from([("boot_good".to_owned(), "a".to_owned())]);
        let whole = encode(&variables, 64, None).expect("it fits");
        assert_eq!(decode(&whole, 4).as_ref(), Some(&variables));
        for bit in 0..whole.len() * 8 {
            let mut torn = whole.clone();
            torn[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&torn, 4), None, "bit {bit}");
        }
    }

    #[test]
    fn what_is_no_list_of_variables_is_refused() {
        let sealed = |data: &[u8]| [&crc32(data).to_le_bytes(), data].concat();
        assert!(decode(&sealed(b"a=b\0\0"), 4).is_some());
        for data in [&b"a=b"[..], b"ab\0\0", b"a=\xff\0\0"] {
            assert_eq!(decode(&sealed(data), 4), None, "{data:?}");
        }
        assert_eq!(decode(b"abc", 4), None);
        let long = Variables::from([("a".to_owned(), "b".repeat(64))]);
        assert_eq!(encode(&long, 64, None), None);
    }
}
