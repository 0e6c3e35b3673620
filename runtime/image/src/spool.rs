//! An archive's members become files of the staging folder, hashed as they pass.
//!
//! Owns the first pass over an archive, which may come from a pipe and so is read once. Refuses to interpret documents. Member names are only
//! keys of a map here, never paths on the disk. Invariants: a [`Member`] has the digest of its bytes, and a member that is named by, or asked
//! for by, a digest has that digest; a name means one content, for tools differ over which of two counts.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use crate::compression::{Compression, Decoder};
use crate::digest::{Digest, Hashing};
use crate::guard::{Counted, Guarded};
use crate::limits::Limits;
use crate::tree::{At, FileError, create_private};
use kakoi_archive::tarball::{Kind, Reader, TarError};

/// Level of our own zstd frames: at 1 a Cortex-A53 still packs faster than its flash writes.
const ZSTD_LEVEL: i32 = 1;
/// Most bytes after the end of the archive. Tools pad to records of 10 KiB; the rest is read so that a pipe's writer sees no error.
const TRAILER_BYTES_MAX: u64 = 16 << 20;
/// Most links between names that are followed: old `docker save` makes one.
const LINKS_MAX: u32 = 8;
/// Most bytes of all member names together, so that a million long names do not fill the memory.
const NAMES_BYTES_MAX: usize = 4 << 20;

/// A member's bytes in the staging folder.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) digest: Digest,
    /// Bytes as the archive has them.
    pub(crate) size: u64,
    pub(crate) compression: Compression,
    /// Whether the file is a zstd frame of ours.
    pub(crate) is_packed: bool,
    pub(crate) path: PathBuf,
}

/// An archive that was read to its end.
#[derive(Debug, Default)]
pub(crate) struct Spool {
    members: HashMap<String, Member>,
    links: HashMap<String, String>,
    by_digest: HashMap<Digest, Member>,
}

/// Why an archive is not taken in.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The stream failed, or its compression is damaged.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// The archive's own tar.
    #[error("cannot read the archive")]
    Tar(#[source] TarError),
    /// A member whose name is a digest that its bytes do not have.
    #[error("archive member {name:?} has digest {digest}")]
    DigestMismatch {
        /// The name.
        name: String,
        /// The digest of its bytes.
        digest: Digest,
    },
    /// A second member of the same name, with other bytes.
    #[error("archive has two members {name:?} with different content")]
    Repeated {
        /// The name.
        name: String,
    },
    /// More members, or longer names, than [`Limits::archive_entries_max`] allows.
    #[error("archive has too many members")]
    TooManyMembers,
    /// Data that goes on after the archive's end.
    #[error("data goes on after the end of the archive")]
    Trailer,
    /// The staging folder.
    #[error("cannot keep the archive")]
    Keep(#[from] FileError),
}

/// Reads an archive, compressed or not, into `staging`. `progress` is told the bytes read.
pub(crate) fn spool(
    reader: impl Read,
    staging: &Path,
    limits: &Limits,
    progress: &mut dyn FnMut(u64),
) -> Result<Spool, SpoolError> {
    let (counted, count) = Counted::new(reader);
    let decoder = Decoder::new(BufReader::with_capacity(64 * 1024, counted)).map_err(SpoolError::Read)?;
    let mut archive = Reader::new(Guarded::new(decoder, count.clone(), staging, limits));
    let mut spool = Spool::default();
    let (mut entries, mut names_bytes) = (0, 0);
    while let Some(entry) = archive.next_entry().map_err(SpoolError::Tar)? {
        entries += 1;
        names_bytes += entry.path.len() + entry.link.len();
        if entries > limits.archive_entries_max || names_bytes > NAMES_BYTES_MAX {
            return Err(SpoolError::TooManyMembers);
        }
        // A name that is no text cannot be named by a JSON document.
        let Some(name) = member_name(&entry.path) else {
            continue;
        };
        match entry.kind {
            Kind::File if entry.sparse.is_none() => {
                let path = staging.join(format!("member-{entries}"));
                let member = keep(&mut archive, path, &mut || progress(count.get()))?;
                check_name(&name, &member)?;
                spool.put(name, member)?;
            }
            Kind::Symlink => {
                if let Some(target) = link_target(&name, &entry.link) {
                    spool.links.insert(name, target);
                }
            }
            Kind::HardLink => {
                if let Some(target) = member_name(&entry.link) {
                    spool.links.insert(name, target);
                }
            }
            _ => {}
        }
    }
    let mut rest = archive.into_inner().take(TRAILER_BYTES_MAX + 1);
    match io::copy(&mut rest, &mut io::sink()).map_err(SpoolError::Read)? {
        over if over > TRAILER_BYTES_MAX => Err(SpoolError::Trailer),
        _ => Ok(spool),
    }
}

impl Spool {
    /// A member by name, through links.
    pub(crate) fn member(&self, name: &str) -> Option<&Member> {
        let mut name = member_name(name.as_bytes())?;
        for _ in 0..=LINKS_MAX {
            if let Some(member) = self.members.get(&name) {
                return Some(member);
            }
            name = self.links.get(&name)?.clone();
        }
        None
    }

    /// The member with a digest, under whatever name.
    pub(crate) fn blob(&self, digest: &Digest) -> Option<&Member> {
        self.by_digest.get(digest)
    }

    /// Takes a member; what some tools write, the same one again, changes nothing.
    fn put(&mut self, name: String, member: Member) -> Result<(), SpoolError> {
        match self.members.get(&name) {
            Some(known) if known.digest == member.digest => return Ok(()),
            Some(_) => return Err(SpoolError::Repeated { name }),
            None => {}
        }
        self.links.remove(&name);
        self.by_digest.insert(member.digest.clone(), member.clone());
        self.members.insert(name, member);
        Ok(())
    }

    /// Whether the archive has anything in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

impl Member {
    /// Opens the bytes as the archive has them; a layer's own compression stays.
    pub(crate) fn open(&self) -> Result<Box<dyn BufRead>, FileError> {
        let file = BufReader::with_capacity(64 * 1024, File::open(&self.path).at("open", &self.path)?);
        Ok(match self.is_packed {
            false => Box::new(file),
            true => Box::new(BufReader::with_capacity(
                64 * 1024,
                Decoder::new(file).at("read", &self.path)?,
            )),
        })
    }

    /// Reads a document; `None` where it is larger than `bytes_max`.
    pub(crate) fn read(&self, bytes_max: u64) -> Result<Option<Vec<u8>>, FileError> {
        if self.size > bytes_max {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        self.open()?
            .take(bytes_max)
            .read_to_end(&mut bytes)
            .at("read", &self.path)?;
        Ok(Some(bytes))
    }
}

/// Writes the current member to a file: a bare tar as a zstd frame, anything else as it is.
pub(crate) fn keep(
    body: &mut impl Read,
    path: PathBuf,
    tick: &mut dyn FnMut(),
) -> Result<Member, SpoolError> {
    let mut head = [0u8; 512];
    let filled = read_full(body, &mut head).map_err(SpoolError::Read)?;
    let head = &head[..filled];
    let compression = Compression::detect(head);
    let is_packed = compression == Compression::None && is_tar(head);
    let file = create_private(&path)?;
    let (digest, size) = match is_packed {
        false => copy(head, body, file, &path, tick).map(|(digest, size, _)| (digest, size))?,
        true => {
            let mut encoder = zstd::stream::write::Encoder::new(file, ZSTD_LEVEL).at("write", &path)?;
            encoder.include_checksum(true).at("write", &path)?;
            let (digest, size, encoder) = copy(head, body, encoder, &path, tick)?;
            encoder.finish().at("write", &path)?;
            (digest, size)
        }
    };
    Ok(Member {
        digest,
        size,
        compression,
        is_packed,
        path,
    })
}

/// Copies head and body through a hash. A failing source and a failing disk are different errors.
fn copy<W: Write>(
    head: &[u8],
    body: &mut impl Read,
    out: W,
    path: &Path,
    tick: &mut dyn FnMut(),
) -> Result<(Digest, u64, W), SpoolError> {
    let mut out = Hashing::new(out);
    out.write_all(head).at("write", path)?;
    let mut buffer = vec![0u8; 64 * 1024];
    loop {
        match body.read(&mut buffer) {
            Ok(0) => return Ok(out.finish()),
            Ok(count) => out.write_all(&buffer[..count]).at("write", path)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(SpoolError::Read(error)),
        }
        tick();
    }
}

fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// `ustar` at its place, or the zeros of an empty archive.
fn is_tar(head: &[u8]) -> bool {
    head.len() == 512 && (&head[257..262] == b"ustar" || head.iter().all(|b| *b == 0))
}

/// `blobs/sha256/<hex>`, `<hex>.json` (a configuration) and `<hex>.tar` (skopeo's layers) name their content.
fn check_name(name: &str, member: &Member) -> Result<(), SpoolError> {
    let claimed = match name.strip_prefix("blobs/sha256/") {
        Some(hex) => Digest::from_hex(hex),
        None => name.strip_suffix(".json").and_then(Digest::from_hex),
    };
    match claimed {
        Some(digest) if digest != member.digest => Err(SpoolError::DigestMismatch {
            name: name.to_owned(),
            digest: member.digest.clone(),
        }),
        _ => Ok(()),
    }
}

/// A member's name without what means nothing: `./a//b` is `a/b`. `None` where it is no text or leads out.
fn member_name(name: &[u8]) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in std::str::from_utf8(name).ok()?.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Where a symbolic link between members leads: relative to its own folder.
fn link_target(name: &str, link: &[u8]) -> Option<String> {
    let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
    let link = std::str::from_utf8(link).ok()?;
    member_name(format!("{folder}/{link}").as_bytes())
}
