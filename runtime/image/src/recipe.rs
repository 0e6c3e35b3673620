//! What a layer's folder does not hold of its tar, so that the very tar can be made anew.
//!
//! Owns the recipe's format, its [`Writer`], the [`Taping`] reader that feeds it while a layer is unpacked, and [`Rebuilt`], the tar made from
//! recipe and folder. Refuses to verify: whoever reads a rebuilt tar hashes it, and the diff id is its name. A recipe takes about a hundredth
//! of its layer, where keeping the blob as it came would take a third.
//!
//! ```text
//! KAKOITR1                                 magic
//! <u64>                                    bytes of the tar, little endian as all numbers here
//! zstd frame with checksum, of records:
//!     01 <u32 length> <bytes>              these bytes of the tar: headers, extensions, padding, bodies that the folder has not
//!     02 <u64 offset> <u64 length> <u16 length> <path>
//!                                          this part of a file of the folder; the path has neither links nor dots
//!     00                                   the end
//! ```
//!
//! Invariant: a recipe whose layer was unpacked and verified gives back the same bytes for as long as the layer's files are what they were.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use kakoi_sys::path::open_beneath;
use nix::fcntl::OFlag;

use crate::compression::WINDOW_LOG_MAX;

const MAGIC: &[u8; 8] = b"KAKOITR1";
/// Magic and size.
const HEAD_BYTES: u64 = 16;
const END: u8 = 0;
const LITERAL: u8 = 1;
const BODY: u8 = 2;
/// Longest literal record; longer runs are several. It is what writer and reader keep in memory.
const LITERAL_BYTES_MAX: usize = 64 << 10;
/// Headers are alike: this level makes them a twentieth and takes less than unpacking them.
const ZSTD_LEVEL: i32 = 3;

/// What a layer had and replaced by a later entry of its own; see [`settle`].
pub(crate) struct Orphan {
    /// Its place in the folder.
    pub(crate) path: Vec<u8>,
    /// How many body records stood before it was replaced.
    pub(crate) bodies: u64,
    /// Where it was put aside: a file or a folder.
    pub(crate) aside: PathBuf,
}

/// Writes a recipe.
pub(crate) struct Writer {
    out: zstd::stream::write::Encoder<'static, File>,
    literal: Vec<u8>,
    tar_bytes: u64,
    bodies: u64,
}

impl Writer {
    /// Begins a recipe in an empty file.
    pub(crate) fn new(mut file: File) -> io::Result<Self> {
        file.write_all(MAGIC)?;
        file.write_all(&0u64.to_le_bytes())?;
        let mut out = zstd::stream::write::Encoder::new(file, ZSTD_LEVEL)?;
        out.include_checksum(true)?;
        Ok(Self {
            out,
            literal: Vec::new(),
            tar_bytes: 0,
            bodies: 0,
        })
    }

    /// Adds bytes of the tar.
    pub(crate) fn literal(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.tar_bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let take = bytes.len().min(LITERAL_BYTES_MAX - self.literal.len());
            self.literal.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if self.literal.len() == LITERAL_BYTES_MAX {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Adds a part of a file of the folder, whose path has at most 4095 bytes: what the kernel takes in one call.
    pub(crate) fn body(&mut self, path: &[u8], offset: u64, length: u64) -> io::Result<()> {
        self.flush()?;
        let path_length = u16::try_from(path.len()).map_err(io::Error::other)?;
        self.out.write_all(&[BODY])?;
        self.out.write_all(&offset.to_le_bytes())?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&path_length.to_le_bytes())?;
        self.out.write_all(path)?;
        self.tar_bytes += length;
        self.bodies += 1;
        Ok(())
    }

    /// How many body records there are.
    pub(crate) fn bodies(&self) -> u64 {
        self.bodies
    }

    /// Ends the recipe.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.out.write_all(&[END])?;
        let file = self.out.finish()?;
        file.write_all_at(&self.tar_bytes.to_le_bytes(), MAGIC.len() as u64)
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.literal.is_empty() {
            self.out.write_all(&[LITERAL])?;
            self.out.write_all(&(self.literal.len() as u32).to_le_bytes())?;
            self.out.write_all(&self.literal)?;
            self.literal.clear();
        }
        Ok(())
    }
}

/// A tar's bytes on their way to the unpacker: all of them go into the recipe, but for bodies that become files.
pub(crate) struct Taping<R> {
    inner: R,
    recipe: Writer,
    is_body: bool,
}

impl<R> Taping<R> {
    pub(crate) fn new(inner: R, recipe: Writer) -> Self {
        Self {
            inner,
            recipe,
            is_body: false,
        }
    }

    /// The next `length` bytes become this part of a file; [`end_body`](Self::end_body) says that they have.
    pub(crate) fn begin_body(&mut self, path: &[u8], offset: u64, length: u64) -> io::Result<()> {
        self.recipe.body(path, offset, length)?;
        self.is_body = true;
        Ok(())
    }

    pub(crate) fn end_body(&mut self) {
        self.is_body = false;
    }

    pub(crate) fn bodies(&self) -> u64 {
        self.recipe.bodies()
    }

    pub(crate) fn into_parts(self) -> (R, Writer) {
        (self.inner, self.recipe)
    }
}

impl<R: Read> Read for Taping<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if !self.is_body {
            self.recipe.literal(&buffer[..count])?;
        }
        Ok(count)
    }
}

/// Puts what a layer replaced of its own into its recipe, in full. Rare: no engine makes such layers, only hands do.
pub(crate) fn settle(draft: &Path, orphans: &[Orphan], out: File) -> io::Result<()> {
    let mut reader = Records::open(draft)?;
    let mut writer = Writer::new(out)?;
    let replaced = Replaced::new(orphans);
    let mut bodies = 0;
    while let Some(record) = reader.next_record()? {
        match record {
            Record::Literal => writer.literal(&reader.literal)?,
            Record::Body(body) => {
                bodies += 1;
                match replaced.place(&body.path, bodies) {
                    Some(path) => copy_part(&path, &body, &mut writer)?,
                    None => writer.body(&body.path, body.offset, body.length)?,
                }
            }
        }
    }
    writer.finish()
}

/// What was replaced, by path: a layer may have a million bodies and replace 65536 entries, and not every one is held against every other.
struct Replaced<'a> {
    orphans: &'a [Orphan],
    /// In the order of a walk: a folder, then what is below it.
    spots: Vec<Spot<'a>>,
}

struct Spot<'a> {
    path: &'a [u8],
    /// The nearest spot of which this one is below.
    above: Option<usize>,
    /// Orphans that were here, the first first; so the fewest bodies first.
    numbers: Vec<usize>,
}

impl<'a> Replaced<'a> {
    fn new(orphans: &'a [Orphan]) -> Self {
        let mut numbers: Vec<usize> = (0..orphans.len()).collect();
        numbers.sort_by(|a, b| walk_order(&orphans[*a].path, &orphans[*b].path).then(a.cmp(b)));
        let mut spots: Vec<Spot<'a>> = Vec::new();
        for number in numbers {
            let path = orphans[number].path.as_slice();
            match spots.last_mut() {
                Some(last) if last.path == path => last.numbers.push(number),
                _ => {
                    let mut above = spots.len().checked_sub(1);
                    while let Some(index) = above
                        && !is_below(path, spots[index].path)
                    {
                        above = spots[index].above;
                    }
                    spots.push(Spot {
                        path,
                        above,
                        numbers: vec![number],
                    });
                }
            }
        }
        Self { orphans, spots }
    }

    /// The spots at and above a path, the deepest first.
    fn around<'s>(&'s self, path: &'s [u8]) -> impl Iterator<Item = &'s Spot<'a>> {
        let end = (self.spots).partition_point(|spot| walk_order(spot.path, path).is_le());
        let nearest = end.checked_sub(1).map(|index| &self.spots[index]);
        // All that are looked at are above the nearest, so that what it shares with the path decides for each.
        let shared = nearest.map_or(0, |spot| {
            spot.path.iter().zip(path).take_while(|(a, b)| a == b).count()
        });
        std::iter::successors(nearest, |spot| spot.above.map(|index| &self.spots[index])).filter(
            move |spot| {
                spot.path.len() <= shared && path.get(spot.path.len()).is_none_or(|byte| *byte == b'/')
            },
        )
    }

    /// Where a body is now, if it went with an orphan: the first that was replaced after the body was written.
    fn place(&self, path: &[u8], body: u64) -> Option<PathBuf> {
        let firsts = self.around(path).filter_map(|spot| {
            let later = (spot.numbers).partition_point(|number| self.orphans[*number].bodies < body);
            spot.numbers.get(later)
        });
        let orphan = &self.orphans[*firsts.min()?];
        let rest = &path[orphan.path.len()..];
        Some(match rest.strip_prefix(b"/") {
            Some(rest) => orphan.aside.join(std::ffi::OsStr::from_bytes(rest)),
            None => orphan.aside.clone(),
        })
    }
}

/// Paths in the order of a walk, so that all that is below a folder follows it.
fn walk_order(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.iter().map(key).cmp(b.iter().map(key))
}

fn is_below(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.first() == Some(&b'/'))
}

fn copy_part(path: &Path, body: &Body, writer: &mut Writer) -> io::Result<()> {
    let start = kakoi_sys::path::open_start(path.parent().unwrap_or(path)).map_err(|error| error.errno)?;
    let name = Path::new(path.file_name().unwrap_or_default());
    let mut file = open_file(&start, name)?;
    file.seek(SeekFrom::Start(body.offset))?;
    let mut part = file.take(body.length);
    let mut buffer = vec![0; LITERAL_BYTES_MAX.min(usize::try_from(body.length).unwrap_or(usize::MAX))];
    let mut left = body.length;
    while left > 0 {
        let count = part.read(&mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        writer.literal(&buffer[..count])?;
        left -= count as u64;
    }
    Ok(())
}

fn open_file(folder: &OwnedFd, path: &Path) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = open_beneath(folder.as_fd(), path, flags, 0).map_err(|error| error.errno)?;
    Ok(File::from(file))
}

/// A part of a file of the folder.
struct Body {
    offset: u64,
    length: u64,
    path: Vec<u8>,
}

enum Record {
    /// Its bytes are in [`Records::literal`].
    Literal,
    Body(Body),
}

/// A recipe's records, one after another.
struct Records {
    input: zstd::stream::read::Decoder<'static, BufReader<File>>,
    tar_bytes: u64,
    literal: Vec<u8>,
    ended: bool,
}

impl Records {
    fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut head = [0; HEAD_BYTES as usize];
        file.read_exact(&mut head)?;
        let (magic, size) = head.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(damaged("it does not begin as one"));
        }
        let tar_bytes = u64::from_le_bytes(size.try_into().expect("eight bytes"));
        let mut input = zstd::stream::read::Decoder::new(file)?;
        input.window_log_max(WINDOW_LOG_MAX)?;
        Ok(Self {
            input,
            tar_bytes,
            literal: Vec::new(),
            ended: false,
        })
    }

    fn next_record(&mut self) -> io::Result<Option<Record>> {
        if self.ended {
            return Ok(None);
        }
        match self.number::<1>()? {
            [END] => {
                // Reads the frame's checksum, and finds what does not belong there.
                if self.input.read(&mut [0])? != 0 {
                    return Err(damaged("it goes on after its end"));
                }
                self.ended = true;
                Ok(None)
            }
            [LITERAL] => {
                let length = u32::from_le_bytes(self.number()?) as usize;
                if length > LITERAL_BYTES_MAX {
                    return Err(damaged("a record is too long"));
                }
                self.literal.resize(length, 0);
                self.input.read_exact(&mut self.literal)?;
                Ok(Some(Record::Literal))
            }
            [BODY] => {
                let offset = u64::from_le_bytes(self.number()?);
                let length = u64::from_le_bytes(self.number()?);
                let mut path = vec![0; usize::from(u16::from_le_bytes(self.number()?))];
                self.input.read_exact(&mut path)?;
                Ok(Some(Record::Body(Body { offset, length, path })))
            }
            _ => Err(damaged("a record is unknown")),
        }
    }

    fn number<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// A layer's tar, made anew as it is read. What is missing or damaged is an error; what was changed shows in the digest.
pub(crate) struct Rebuilt {
    records: Records,
    folder: OwnedFd,
    now: Part,
    left: u64,
}

enum Part {
    None,
    /// What is left of [`Records::literal`].
    Literal(usize),
    File(File, u64),
}

impl Rebuilt {
    /// Opens a recipe for the layer in `folder`.
    pub(crate) fn open(recipe: &Path, folder: &Path) -> io::Result<Self> {
        let records = Records::open(recipe)?;
        Ok(Self {
            left: records.tar_bytes,
            records,
            folder: kakoi_sys::path::open_start(folder).map_err(|error| error.errno)?,
            now: Part::None,
        })
    }

    /// Bytes of the whole tar.
    pub(crate) fn tar_bytes(&self) -> u64 {
        self.records.tar_bytes
    }

    fn next_part(&mut self) -> io::Result<bool> {
        self.now = match self.records.next_record()? {
            None => return Ok(false),
            Some(Record::Literal) => Part::Literal(0),
            Some(Record::Body(body)) => {
                let mut file = open_file(&self.folder, Path::new(std::ffi::OsStr::from_bytes(&body.path)))?;
                if body.offset > 0 {
                    file.seek(SeekFrom::Start(body.offset))?;
                }
                Part::File(file, body.length)
            }
        };
        Ok(true)
    }
}

impl Read for Rebuilt {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let count = match &mut self.now {
                Part::None => 0,
                Part::Literal(done) => {
                    let rest = &self.records.literal[*done..];
                    let count = rest.len().min(buffer.len());
                    buffer[..count].copy_from_slice(&rest[..count]);
                    *done += count;
                    count
                }
                Part::File(_, 0) => 0,
                Part::File(file, left) => {
                    let want = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                    let count = file.read(&mut buffer[..want])?;
                    if count == 0 {
                        return Err(damaged("a file of its layer is shorter than it was"));
                    }
                    *left -= count as u64;
                    count
                }
            };
            if count > 0 {
                self.left = (self.left.checked_sub(count as u64))
                    .ok_or_else(|| damaged("it makes more than it says"))?;
                return Ok(count);
            }
            if !self.next_part()? {
                return match self.left {
                    0 => Ok(0),
                    _ => Err(damaged("it makes less than it says")),
                };
            }
        }
    }
}

fn damaged(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("recipe is damaged: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head, and a frame of what the drawing says.
    fn drawn(tar_bytes: u64, records: &[&[u8]]) -> Vec<u8> {
        let frame = zstd::encode_all(&records.concat()[..], 1).expect("memory");
        [&b"KAKOITR1"[..], &tar_bytes.to_le_bytes(), &frame].concat()
    }

    fn body(offset: u64, length: u64, path: &[u8]) -> Vec<u8> {
        let path_length = (path.len() as u16).to_le_bytes();
        [
            &[2][..],
            &offset.to_le_bytes(),
            &length.to_le_bytes(),
            &path_length,
            path,
        ]
        .concat()
    }

    fn rebuild(folder: &Path, recipe: &[u8]) -> io::Result<Vec<u8>> {
        let path = folder.join("recipe");
        std::fs::write(&path, recipe)?;
        let mut tar = Vec::new();
        Rebuilt::open(&path, &folder.join("layer"))?.read_to_end(&mut tar)?;
        Ok(tar)
    }

    #[test]
    fn the_drawing_is_read_and_what_is_not_drawn_is_refused() {
        let dir = tempfile::tempdir().expect("folder");
        std::fs::create_dir_all(dir.path().join("layer/d")).expect("folder");
        std::fs::write(dir.path().join("layer/d/file"), b"0123456789").expect("file");
        std::fs::write(dir.path().join("secret"), b"0123456789").expect("file");
        std::os::unix::fs::symlink("file", dir.path().join("layer/d/link")).expect("link");
        let head: &[u8] = b"\x01\x04\0\0\0head";
        let good = drawn(7, &[head, &body(4, 3, b"d/file"), b"\0"]);
        assert_eq!(rebuild(dir.path(), &good).expect("as drawn"), b"head456");
        for (why, bad) in [
            ("magic", good[1..].to_vec()),
            ("cut", good[..good.len() - 6].to_vec()),
            (
                "too small a sum",
                drawn(6, &[head, &body(4, 3, b"d/file"), b"\0"]),
            ),
            (
                "too large a sum",
                drawn(8, &[head, &body(4, 3, b"d/file"), b"\0"]),
            ),
            ("no end", drawn(4, &[head])),
            ("more after the end", drawn(4, &[head, b"\0", head])),
            ("unknown record", drawn(4, &[head, b"\x03\0"])),
            (
                "long literal",
                drawn(4, &[b"\x01\0\0\0\x01", &[0; 1 << 20], b"\0"]),
            ),
            ("a file's end", drawn(7, &[head, &body(8, 3, b"d/file"), b"\0"])),
            ("no file", drawn(7, &[head, &body(0, 3, b"d/other"), b"\0"])),
            ("a link", drawn(7, &[head, &body(0, 3, b"d/link"), b"\0"])),
            ("a folder", drawn(7, &[head, &body(0, 3, b"d"), b"\0"])),
            ("outside", drawn(7, &[head, &body(0, 3, b"../secret"), b"\0"])),
        ] {
            assert!(rebuild(dir.path(), &bad).is_err(), "{why}");
        }
    }

    #[test]
    fn what_was_written_is_made_anew() {
        let dir = tempfile::tempdir().expect("folder");
        std::fs::create_dir_all(dir.path().join("layer")).expect("folder");
        let content: Vec<u8> = (0..200_000u32).map(|n| (n >> 3) as u8).collect();
        std::fs::write(dir.path().join("layer/f"), &content).expect("file");
        let recipe = dir.path().join("made");
        let mut writer = Writer::new(File::create(&recipe).expect("file")).expect("recipe");
        writer.literal(&content[..150_000]).expect("literal");
        writer.body(b"f", 5, 100).expect("body");
        writer.literal(b"tail").expect("literal");
        writer.finish().expect("finished");
        let recipe = std::fs::read(&recipe).expect("recipe");
        let expected = [&content[..150_000], &content[5..105], b"tail"].concat();
        assert!(rebuild(dir.path(), &recipe).expect("made anew") == expected);
    }

    fn orphan(path: &[u8], bodies: u64, number: usize) -> Orphan {
        Orphan {
            path: path.to_vec(),
            bodies,
            aside: PathBuf::from(format!("aside-{number}")),
        }
    }

    /// As it is said, one against all: what the lookup must find too.
    fn one_against_all(orphans: &[Orphan], path: &[u8], body: u64) -> Option<PathBuf> {
        let mut later = orphans.iter().filter(|orphan| orphan.bodies >= body);
        later.find_map(|orphan| match path.strip_prefix(&orphan.path[..])? {
            [] => Some(orphan.aside.clone()),
            [b'/', rest @ ..] => Some(orphan.aside.join(std::ffi::OsStr::from_bytes(rest))),
            _ => None,
        })
    }

    #[test]
    fn what_was_replaced_is_found_as_one_against_all_finds_it() {
        let paths = [
            "a", "a/b", "a/b/c", "a-b", "a.b/c", "a/bb", "b", "a/b/c/d", "", "ab", "a/c",
        ];
        let orphans: Vec<Orphan> = (0..200)
            .map(|n: usize| orphan(paths[n * 7 % 5].as_bytes(), n as u64 / 3, n))
            .collect();
        for few in [0, 1, 2, 5, 17, 200] {
            let replaced = Replaced::new(&orphans[..few]);
            for path in paths {
                for body in 0..70 {
                    assert_eq!(
                        replaced.place(path.as_bytes(), body),
                        one_against_all(&orphans[..few], path.as_bytes(), body),
                        "{path:?}, body {body}, {few} orphans"
                    );
                }
            }
        }
    }

    /// A small tar can replace 65536 entries and go on with a million bodies: each is held against what lies above it, not against all.
    #[test]
    fn a_hostile_layer_has_few_spots_around_each_body() {
        let names = |n: u32| format!("d/{n}").into_bytes();
        let orphans: Vec<Orphan> = (0..1 << 16)
            .map(|n| orphan(&names(n), u64::from(n), n as usize))
            .collect();
        let replaced = Replaced::new(&orphans);
        let looked: usize = (0..1 << 17).map(|n| replaced.around(&names(n)).count()).sum();
        assert_eq!(
            looked,
            1 << 16,
            "one for each that was replaced, none for another"
        );
        let steps: usize = replaced.spots.iter().filter(|spot| spot.above.is_some()).count();
        assert_eq!(steps, 0, "siblings lead nowhere");
        // One spot that was replaced each time.
        let same: Vec<Orphan> = (0..1 << 16).map(|n| orphan(b"d", n, n as usize)).collect();
        let replaced = Replaced::new(&same);
        assert_eq!(replaced.spots.len(), 1);
        assert_eq!(
            replaced.place(b"d/x", 40_000),
            Some(PathBuf::from("aside-40000/x"))
        );
        assert_eq!(replaced.place(b"d/x", 1 << 16), None);
    }
}
