//! A streaming tar writer.
//!
//! Owns the layout: ustar headers, and PAX records for what does not fit into one. Refuses to know trees. Sparse files are
//! in GNU's PAX format 1.0. Invariant: a body has the length that its header says, whatever becomes of the file meanwhile.

use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::sparse::SparseMap;
use crate::tarball::{Entry, Kind};

const BLOCK: usize = 512;
/// Longest name that a header itself holds.
const NAME_BYTES_MAX: usize = 100;
/// The header's name of a sparse file; the true one is in its records.
const SPARSE_NAME: &[u8] = b"GNUSparseFile.0/sparse";
/// Largest number in an octal field of eight bytes, and of twelve.
const SMALL_MAX: u64 = 0o777_7777;
const LARGE_MAX: u64 = 0o777_7777_7777;

/// Writes entries one after another.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    /// Begins an archive.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// Writes an entry's headers; a file's body follows by [`body`](Self::body), a sparse one's by [`sparse_body`](Self::sparse_body).
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let records = records(entry);
        if !records.is_empty() {
            let mut header = [0; BLOCK];
            fill(
                &mut header,
                b"PaxHeaders/entry",
                b'x',
                records.len() as u64,
                (0o644, 0, 0),
                0,
            );
            self.out.write_all(&seal(header))?;
            self.out.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        let size = stored_bytes(entry);
        let mtime = u64::try_from(entry.mtime.0).unwrap_or(0).min(LARGE_MAX);
        let mut header = [0; BLOCK];
        // Who does not know the format must not take the map for the file.
        let name = match entry.sparse {
            Some(_) => SPARSE_NAME,
            None => &entry.path,
        };
        fill(
            &mut header,
            name,
            type_of(entry.kind),
            size,
            (entry.mode, entry.uid, entry.gid),
            mtime,
        );
        put(&mut header[157..257], &entry.link);
        if let Kind::Device { major, minor, .. } = entry.kind {
            octal(&mut header[329..337], u64::from(major).min(SMALL_MAX));
            octal(&mut header[337..345], u64::from(minor).min(SMALL_MAX));
        }
        self.out.write_all(&seal(header))
    }

    /// Writes a body of exactly `size` bytes: a file that was cut meanwhile is filled up with zeros, what it grew by is left out.
    ///
    /// # Errors
    /// The outer ones are the archive's, the inner ones the file's, after which the archive goes on.
    pub fn body(&mut self, from: &mut impl Read, size: u64) -> io::Result<io::Result<()>> {
        let read = self.part(from, size)?;
        self.pad(size)?;
        Ok(read)
    }

    /// Writes what a sparse file holds, after its map.
    ///
    /// # Errors
    /// As of [`body`](Self::body).
    pub fn sparse_body(
        &mut self,
        from: &mut (impl Read + Seek),
        map: &SparseMap,
    ) -> io::Result<io::Result<()>> {
        self.out.write_all(&map.to_pax_1_0())?;
        let mut outcome = Ok(());
        for (offset, length) in map.fragments() {
            let sought = from.seek(SeekFrom::Start(*offset)).map(drop);
            outcome = outcome.and(sought).and(self.part(from, *length)?);
        }
        self.pad(map.data_bytes())?;
        Ok(outcome)
    }

    fn part(&mut self, from: &mut impl Read, size: u64) -> io::Result<io::Result<()>> {
        let mut buffer = [0u8; 32 * 1024];
        let mut left = size;
        let mut failed = Ok(());
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let count = match from.read(&mut buffer[..want]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    failed = Err(error);
                    0
                }
                Ok(count) => count,
            };
            if count == 0 {
                let mut zeros = io::repeat(0).take(left);
                io::copy(&mut zeros, &mut self.out)?;
                break;
            }
            self.out.write_all(&buffer[..count])?;
            left -= count as u64;
        }
        Ok(failed)
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let rest = (size % BLOCK as u64) as usize;
        match rest {
            0 => Ok(()),
            rest => self.out.write_all(&[0; BLOCK][rest..]),
        }
    }
}

/// Bytes that the archive stores for an entry's body.
fn stored_bytes(entry: &Entry) -> u64 {
    match (entry.kind, &entry.sparse) {
        (Kind::File, Some(map)) => map.to_pax_1_0().len() as u64 + map.data_bytes(),
        (Kind::File, None) => entry.size,
        _ => 0,
    }
}

fn type_of(kind: Kind) -> u8 {
    match kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::Device { block: false, .. } => b'3',
        Kind::Device { block: true, .. } => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    }
}

fn fill(
    header: &mut [u8; BLOCK],
    name: &[u8],
    kind: u8,
    size: u64,
    (mode, uid, gid): (u32, u32, u32),
    mtime: u64,
) {
    put(&mut header[..NAME_BYTES_MAX], name);
    octal(&mut header[100..108], u64::from(mode & 0o7777));
    octal(&mut header[108..116], u64::from(uid).min(SMALL_MAX));
    octal(&mut header[116..124], u64::from(gid).min(SMALL_MAX));
    octal(&mut header[124..136], size.min(LARGE_MAX));
    octal(&mut header[136..148], mtime);
    header[156] = kind;
    put(&mut header[257..265], b"ustar\x0000");
}

/// Writes the checksum, over a header whose checksum is blanks.
fn seal(mut header: [u8; BLOCK]) -> [u8; BLOCK] {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    octal(&mut header[148..155], u64::from(sum));
    header
}

fn put(field: &mut [u8], bytes: &[u8]) {
    let length = bytes.len().min(field.len());
    field[..length].copy_from_slice(&bytes[..length]);
}

fn octal(field: &mut [u8], number: u64) {
    let digits = format!("{number:0width$o}", width = field.len() - 1);
    put(field, digits.as_bytes());
}

/// The PAX records of what a header cannot say.
fn records(entry: &Entry) -> Vec<u8> {
    let mut records = Vec::new();
    let mut add = |key: &[u8], value: &[u8]| {
        // The length counts itself.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + digits(rest);
        if digits(length) != digits(rest) {
            length = rest + digits(length);
        }
        records.extend_from_slice(format!("{length} ").as_bytes());
        records.extend_from_slice(key);
        records.push(b'=');
        records.extend_from_slice(value);
        records.push(b'\n');
    };
    if entry.sparse.is_some() {
        add(b"GNU.sparse.major", b"1");
        add(b"GNU.sparse.minor", b"0");
        add(b"GNU.sparse.name", &entry.path);
        add(b"GNU.sparse.realsize", entry.size.to_string().as_bytes());
    } else if entry.path.len() > NAME_BYTES_MAX {
        add(b"path", &entry.path);
    }
    if entry.link.len() > NAME_BYTES_MAX {
        add(b"linkpath", &entry.link);
    }
    let size = stored_bytes(entry);
    if size > LARGE_MAX {
        add(b"size", size.to_string().as_bytes());
    }
    for (key, id) in [(&b"uid"[..], entry.uid), (b"gid", entry.gid)] {
        if u64::from(id) > SMALL_MAX {
            add(key, id.to_string().as_bytes());
        }
    }
    match (u64::try_from(entry.mtime.0), entry.mtime.1) {
        (Ok(seconds), 0) if seconds > LARGE_MAX => add(b"mtime", seconds.to_string().as_bytes()),
        (Ok(seconds), 1..) => add(b"mtime", format!("{seconds}.{:09}", entry.mtime.1).as_bytes()),
        _ => {}
    }
    for (name, value) in &entry.xattrs {
        add(&[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    records
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tarball::Reader;

    fn entry(path: &str, kind: Kind) -> Entry {
        Entry {
            kind,
            path: path.into(),
            link: Vec::new(),
            mode: 0o4755,
            uid: 1000,
            gid: 1000,
            mtime: (1_700_000_000, 0),
            size: 0,
            xattrs: Vec::new(),
            sparse: None,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let long = "a/".repeat(200) + "b";
        let mut file = entry(&long, Kind::File);
        file.size = 5;
        file.uid = 0x2000_0000;
        file.xattrs = vec![(b"security.capability".to_vec(), vec![0, b'\n', 255])];
        let mut link = entry("link", Kind::Symlink);
        link.link = long.clone().into_bytes();
        let mut late = entry("late", Kind::Directory);
        late.mtime = (1 << 40, 0);
        let device = entry(
            "null",
            Kind::Device {
                block: false,
                major: 1,
                minor: 3,
            },
        );
        let mut writer = Writer::new(Vec::new());
        writer.entry(&file).expect("memory");
        writer
            .body(&mut &b"hello, and more"[..], 5)
            .expect("memory")
            .expect("a file");
        for entry in [&link, &late, &device, &entry("pipe", Kind::Fifo)] {
            writer.entry(entry).expect("memory");
        }
        let bytes = writer.finish().expect("memory");
        let mut reader = Reader::new(bytes.as_slice());
        let read = reader.next_entry().expect("whole").expect("an entry");
        assert_eq!(
            (read.path, read.size, read.uid, read.mode),
            (file.path, 5, 0x2000_0000, 0o4755)
        );
        assert_eq!(read.xattrs, file.xattrs);
        let mut body = Vec::new();
        reader.read_to_end(&mut body).expect("a body");
        assert_eq!(body, b"hello");
        let read = reader.next_entry().expect("whole").expect("an entry");
        assert_eq!((read.kind, read.link), (Kind::Symlink, link.link));
        let read = reader.next_entry().expect("whole").expect("an entry");
        assert_eq!(read.mtime, (1 << 40, 0));
        assert_eq!(
            reader.next_entry().expect("whole").expect("an entry").kind,
            device.kind
        );
        assert_eq!(
            reader.next_entry().expect("whole").expect("an entry").kind,
            Kind::Fifo
        );
        assert!(reader.next_entry().expect("whole").is_none());
    }

    #[test]
    fn a_file_that_was_cut_is_filled_up() {
        let mut writer = Writer::new(Vec::new());
        let mut file = entry("short", Kind::File);
        file.size = 600;
        writer.entry(&file).expect("memory");
        writer
            .body(&mut &b"abc"[..], 600)
            .expect("memory")
            .expect("a file");
        let bytes = writer.finish().expect("memory");
        assert_eq!(bytes.len(), 512 + 1024 + 1024);
        assert_eq!(&bytes[512..516], b"abc\0");
    }

    #[test]
    fn a_records_length_counts_itself() {
        for length in (0..130).chain(900..1010) {
            let mut file = entry("pipe", Kind::Fifo);
            file.xattrs = vec![(b"user.x".to_vec(), vec![b'x'; length])];
            let records = records(&file);
            let said = records.split(|byte| *byte == b' ').next().expect("a length");
            let said: usize = std::str::from_utf8(said)
                .expect("digits")
                .parse()
                .expect("a number");
            assert_eq!(said, records.len());
        }
    }
}
