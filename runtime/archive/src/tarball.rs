//! A streaming tar reader for hostile input.
//!
//! Owns the formats: ustar, GNU (long names, base-256 numbers), PAX records, GNU sparse files. Refuses to know what entries are for. Headers'
//! layout is the `tar` crate's; its iterator is not used, because it reads extension records of any size into memory. Where formats
//! leave room (sizes of links, trailing slashes, a lone zero block), this reads as Go's archive/tar does, so that an image means here what it
//! meant to the engine that made it.
//!
//! Invariant: memory is bounded by the constants below, whatever the input says; a truncated archive is an error, never a short file.

use std::io::{self, Read};
use std::ops::Range;

use tar::{EntryType, Header};

use crate::sparse::{SparseError, SparseMap};

/// Size of a tar block.
const BLOCK: usize = 512;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const TYPE: usize = 156;
const MAJOR: Range<usize> = 329..337;
const MINOR: Range<usize> = 337..345;
/// Most bytes of one extension record: names are at most 4096 bytes and extended attributes at most 64 KiB each.
pub const EXTENSION_BYTES_MAX: u64 = 1 << 20;
/// Most extension records before one entry: one of each kind is all that writers make.
pub const EXTENSIONS_MAX: u32 = 8;
/// Longest path and link target: PATH_MAX without its NUL.
pub const PATH_BYTES_MAX: usize = 4095;
/// Most extended attributes of an entry.
pub const XATTRS_MAX: usize = 64;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// Another name of a file of the archive.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A folder.
    Directory,
    /// A pipe.
    Fifo,
    /// A device node.
    Device {
        /// A block device, else a character device.
        block: bool,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// One entry, complete with what its extension records said.
#[derive(Debug)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Its name as the archive has it.
    pub path: Vec<u8>,
    /// What a link leads to.
    pub link: Vec<u8>,
    /// Permissions with the set-ID and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// Bytes that the body reads as, holes included.
    pub size: u64,
    /// Name and value, as the archive says; not yet judged.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the data lies in a sparse file.
    pub sparse: Option<SparseMap>,
}

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream below failed.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// The stream ends inside an entry.
    #[error("archive is truncated")]
    Truncated,
    /// A header whose checksum or number fields make no sense.
    #[error("invalid tar header: {reason}")]
    Header {
        /// What is wrong.
        reason: &'static str,
    },
    /// Extension records that are too many or too large.
    #[error(
        "tar extension records exceed the limit of {EXTENSIONS_MAX} records of {EXTENSION_BYTES_MAX} bytes"
    )]
    ExtensionLimit,
    /// A path longer than the kernel takes.
    #[error("path in archive is longer than {PATH_BYTES_MAX} bytes")]
    PathTooLong,
    /// A type that Docker does not know either.
    #[error("unknown tar entry type {kind:#04x}")]
    UnknownType {
        /// The type byte.
        kind: u8,
    },
    /// A sparse map that makes no sense.
    #[error("invalid sparse file")]
    Sparse(#[source] SparseError),
}

/// Reads entries one after another; reads itself as the current entry's body.
pub struct Reader<R> {
    inner: R,
    /// Bytes of the current body not read yet.
    body: u64,
    /// Bytes between the end of the body and the next header.
    padding: u64,
    finished: bool,
}

impl<R: Read> Reader<R> {
    /// Begins at the start of an archive.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            body: 0,
            padding: 0,
            finished: false,
        }
    }

    /// The stream below.
    pub fn inner(&mut self) -> &mut R {
        &mut self.inner
    }

    /// Goes to the next entry, passing over what is left of the current one.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extensions = Extensions::default();
        for _ in 0..=EXTENSIONS_MAX {
            self.skip_body()?;
            let Some(header) = self.read_header()? else {
                return Ok(None);
            };
            let size = field(&header, SIZE).ok_or(bad("size"))?;
            match header.entry_type() {
                EntryType::XHeader => extensions.pax = self.read_extension(size)?,
                EntryType::GNULongName => extensions.long_name = Some(trim_nul(self.read_extension(size)?)),
                EntryType::GNULongLink => extensions.long_link = Some(trim_nul(self.read_extension(size)?)),
                // Docker passes over global records; `git archive` writes its commit there.
                EntryType::XGlobalHeader => {
                    self.read_extension(size)?;
                }
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
        Err(TarError::ExtensionLimit)
    }

    /// Gives the stream back, to read on to its end.
    pub fn into_inner(self) -> R {
        self.inner
    }

    fn entry(&mut self, header: &Header, extensions: Extensions) -> Result<Entry, TarError> {
        let pax = Pax::parse(&extensions.pax)?;
        let path = extensions
            .long_name
            .or(pax.path)
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let link = extensions
            .long_link
            .or(pax.linkpath)
            .unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned());
        let kind = kind(header, &path)?;
        let mut size = match (kind, pax.size) {
            (Kind::File, Some(size)) => size,
            (Kind::File, None) => field(header, SIZE).ok_or(bad("size"))?,
            // The others have no body, whatever their size field says.
            _ => 0,
        };
        self.body = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        let mut path = path;
        let sparse = if kind == Kind::File {
            self.sparse(header, &pax.sparse)?
        } else {
            None
        };
        if let Some(map) = &sparse {
            if map.data_bytes() != self.body {
                return Err(TarError::Sparse(SparseError::Map));
            }
            size = map.size();
            path = pax.sparse.name.unwrap_or(path);
        }
        if path.len() > PATH_BYTES_MAX || link.len() > PATH_BYTES_MAX {
            return Err(TarError::PathTooLong);
        }
        if path.contains(&0) || link.contains(&0) {
            return Err(bad("path with a NUL"));
        }
        let id = |pax: Option<u64>, range, name| match pax.or_else(|| field(header, range)) {
            // The last id means "unchanged" to chown(2).
            Some(id) if id < u64::from(u32::MAX) => Ok(id as u32),
            _ => Err(bad(name)),
        };
        Ok(Entry {
            kind,
            path,
            link,
            mode: (field(header, MODE).ok_or(bad("mode"))? & 0o7777) as u32,
            uid: id(pax.uid, UID, "uid")?,
            gid: id(pax.gid, GID, "gid")?,
            mtime: match pax.mtime {
                Some(mtime) => mtime,
                None => (numeric(&header.as_bytes()[MTIME]).ok_or(bad("mtime"))?, 0),
            },
            size,
            xattrs: pax.xattrs,
            sparse,
        })
    }

    fn sparse(&mut self, header: &Header, pax: &SparseRecords) -> Result<Option<SparseMap>, TarError> {
        let result = if header.entry_type() == EntryType::GNUSparse {
            let before = self.body;
            let mut blocks = Blocks {
                reader: &mut self.inner,
                bytes: 0,
            };
            let map = SparseMap::old_gnu(header, &mut blocks);
            // The old format's further blocks lie between header and body, outside the size.
            self.body = before;
            map.map(Some)
        } else if pax.major == Some(1) {
            let size = pax.realsize.ok_or(TarError::Sparse(SparseError::Map))?;
            let mut blocks = Blocks {
                reader: &mut self.inner,
                bytes: 0,
            };
            let map = SparseMap::pax_1_0(&mut blocks, size, self.body);
            self.body = self.body.saturating_sub(blocks.bytes);
            map.map(Some)
        } else if let Some(map) = &pax.map {
            let size = pax.realsize.ok_or(TarError::Sparse(SparseError::Map))?;
            SparseMap::pax_0(map, size).map(Some)
        } else {
            Ok(None)
        };
        result.map_err(TarError::Sparse)
    }

    fn skip_body(&mut self) -> Result<(), TarError> {
        let skip = self.body + self.padding;
        (self.body, self.padding) = (0, 0);
        let skipped = io::copy(&mut (&mut self.inner).take(skip), &mut io::sink()).map_err(TarError::Read)?;
        if skipped == skip {
            Ok(())
        } else {
            Err(TarError::Truncated)
        }
    }

    fn read_header(&mut self) -> Result<Option<Header>, TarError> {
        if self.finished {
            return Ok(None);
        }
        let mut block = [0u8; BLOCK];
        if !read_block(&mut self.inner, &mut block)? {
            self.finished = true;
            return Ok(None);
        }
        if block == [0u8; BLOCK] {
            self.finished = true;
            if read_block(&mut self.inner, &mut block)? && block != [0u8; BLOCK] {
                return Err(bad("data after a zero block"));
            }
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        let sum: u32 = block[..148]
            .iter()
            .chain(&block[156..])
            .map(|b| u32::from(*b))
            .sum::<u32>()
            + 8 * 32;
        if field(&header, CHECKSUM) != Some(u64::from(sum)) {
            return Err(bad("checksum"));
        }
        Ok(Some(header))
    }

    fn read_extension(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > EXTENSION_BYTES_MAX {
            return Err(TarError::ExtensionLimit);
        }
        let mut bytes = Vec::new();
        (&mut self.inner)
            .take(size)
            .read_to_end(&mut bytes)
            .map_err(TarError::Read)?;
        if bytes.len() as u64 != size {
            return Err(TarError::Truncated);
        }
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        Ok(bytes)
    }
}

/// The current entry's data, without holes. A body that ends early is an error.
impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.body).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let count = self.inner.read(&mut buffer[..want])?;
        if count == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "archive is truncated",
            ));
        }
        self.body -= count as u64;
        Ok(count)
    }
}

/// Counts what the sparse maps take from the stream.
struct Blocks<'a, R> {
    reader: &'a mut R,
    bytes: u64,
}

impl<R: Read> Read for Blocks<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.bytes += count as u64;
        Ok(count)
    }
}

#[derive(Default)]
struct Extensions {
    pax: Vec<u8>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

/// What PAX says about sparse files.
#[derive(Default)]
struct SparseRecords {
    major: Option<u64>,
    realsize: Option<u64>,
    name: Option<Vec<u8>>,
    /// `offset,length,…` of format 0.1, or put together from the records of 0.0.
    map: Option<Vec<u8>>,
}

#[derive(Default)]
struct Pax {
    path: Option<Vec<u8>>,
    linkpath: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: SparseRecords,
}

impl Pax {
    /// Parses `length key=value\n` records.
    fn parse(mut bytes: &[u8]) -> Result<Self, TarError> {
        let mut pax = Self::default();
        while !bytes.is_empty() {
            let space = bytes
                .iter()
                .take(10)
                .position(|b| *b == b' ')
                .ok_or(bad("pax record"))?;
            let length = number(&bytes[..space]).ok_or(bad("pax record"))?;
            let record = usize::try_from(length)
                .ok()
                .and_then(|length| bytes.get(space + 1..length));
            let record = record
                .and_then(|r| r.strip_suffix(b"\n"))
                .ok_or(bad("pax record"))?;
            bytes = &bytes[space + 2 + record.len()..];
            let equals = record.iter().position(|b| *b == b'=').ok_or(bad("pax record"))?;
            pax.set(&record[..equals], &record[equals + 1..])?;
        }
        Ok(pax)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        let numeric = |name| number(value).map(Some).ok_or(bad(name));
        // An empty value takes back what a global record said; those are not read.
        if value.is_empty() && !key.starts_with(b"SCHILY.xattr.") {
            return Ok(());
        }
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.linkpath = Some(value.to_vec()),
            b"size" => self.size = numeric("size")?,
            b"uid" => self.uid = numeric("uid")?,
            b"gid" => self.gid = numeric("gid")?,
            b"mtime" => self.mtime = Some(timestamp(value).ok_or(bad("mtime"))?),
            b"GNU.sparse.major" => self.sparse.major = numeric("sparse major")?,
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse.realsize = numeric("sparse size")?,
            b"GNU.sparse.name" => self.sparse.name = Some(value.to_vec()),
            b"GNU.sparse.map" => self.sparse.map = Some(value.to_vec()),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let map = self.sparse.map.get_or_insert_default();
                if !map.is_empty() {
                    map.push(b',');
                }
                map.extend_from_slice(value);
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    if self.xattrs.len() >= XATTRS_MAX || name.contains(&0) || name.is_empty() {
                        return Err(bad("extended attributes"));
                    }
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

fn kind(header: &Header, path: &[u8]) -> Result<Kind, TarError> {
    let device = |block| {
        let number = |range| {
            let number = field(header, range).and_then(|number| u32::try_from(number).ok());
            number.ok_or(bad("device number"))
        };
        Ok(Kind::Device {
            block,
            major: number(MAJOR)?,
            minor: number(MINOR)?,
        })
    };
    match header.as_bytes()[TYPE] {
        // The oldest tars had no type for directories.
        0 if path.last() == Some(&b'/') => Ok(Kind::Directory),
        0 | b'0' | b'7' | b'S' => Ok(Kind::File),
        b'1' => Ok(Kind::HardLink),
        b'2' => Ok(Kind::Symlink),
        b'3' => device(false),
        b'4' => device(true),
        b'5' => Ok(Kind::Directory),
        b'6' => Ok(Kind::Fifo),
        kind => Err(TarError::UnknownType { kind }),
    }
}

/// A number field of a header that cannot be negative.
fn field(header: &Header, range: Range<usize>) -> Option<u64> {
    u64::try_from(numeric(&header.as_bytes()[range])?).ok()
}

/// A number as headers hold it: octal digits between blanks and NULs, nothing at all meaning 0, or two's complement after a set high bit. As
/// Go reads it; the `tar` crate refuses empty fields, which old tools write.
pub fn numeric(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        let negative = first & 0x40 != 0;
        let start = i128::from(if negative { first | 0x80 } else { first & 0x7f } as i8);
        // Twelve bytes at most, so nothing is shifted out before it is looked at.
        let number = field[1..]
            .iter()
            .fold(start, |number, byte| (number << 8) | i128::from(*byte));
        return i64::try_from(number).ok();
    }
    let end = field
        .iter()
        .rposition(|b| !matches!(b, b' ' | 0))
        .map_or(0, |last| last + 1);
    let start = field.iter().position(|b| !matches!(b, b' ' | 0)).unwrap_or(end);
    let digits = &field[start..end];
    let digits = &digits[..digits.iter().position(|b| *b == 0).unwrap_or(digits.len())];
    let octal = |number: i64, digit: &u8| match digit {
        b'0'..=b'7' => number.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    };
    digits.iter().try_fold(0, octal)
}

/// Reads a whole block; `false` at a clean end.
fn read_block(reader: &mut impl Read, block: &mut [u8; BLOCK]) -> Result<bool, TarError> {
    let mut filled = 0;
    while filled < BLOCK {
        match reader.read(&mut block[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(TarError::Truncated),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(TarError::Read(error)),
        }
    }
    Ok(true)
}

fn trim_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(end);
    }
    bytes
}

/// A plain decimal number.
pub fn number(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits
        .then(|| std::str::from_utf8(text).ok()?.parse().ok())
        .flatten()
}

/// Seconds with an optional fraction and sign.
fn timestamp(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds = i64::try_from(number(seconds.as_bytes())?).ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: u32 = format!("{fraction:0<9.9}").parse().ok()?;
    Some(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

fn bad(reason: &'static str) -> TarError {
    TarError::Header { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        for (field, number) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"7\0garbag\0", Some(7)),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"12345678", None),
            (b"-1\0\0\0\0\0\0", None),
            (b"0x10\0\0\0\0", None),
            (b"1 2\0\0\0\0\0", None),
        ] {
            assert_eq!(numeric(field), number, "{field:?}");
        }
    }

    #[test]
    fn times_have_fractions_and_signs() {
        for (text, time) in [
            ("1", Some((1, 0))),
            ("1.5", Some((1, 500_000_000))),
            ("1.123456789123", Some((1, 123_456_789))),
            ("-1.25", Some((-2, 750_000_000))),
            ("-0.5", Some((-1, 500_000_000))),
            ("1.x", None),
            ("", None),
            (".5", None),
            ("9223372036854775808", None),
        ] {
            assert_eq!(timestamp(text.as_bytes()), time, "{text}");
        }
    }
}
