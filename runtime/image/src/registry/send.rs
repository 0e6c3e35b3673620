//! Sending an artifact that comes as a stream: large blobs in pieces as they arrive, its documents last.
//!
//! Owns the order. A piece is held in memory until the registry has it, so a stream that cannot be read twice is sent over a bad link all the same.
//! Refuses to know what an artifact is. The digest that the sender names is the registry's to check.

use std::io::{self, Read};

use ureq::http::Method;

use super::attach::Attachment;
use super::auth::encode;
use super::error::RegistryError;
use super::push::{begin, has, place};
use super::repository::Repository;
use super::session::{Ask, Payload};
use crate::artifact::{ArtifactError, OsArchive, image_digest};
use crate::digest::Digest;
use crate::limits::Limits;

/// Bytes of a piece. Registries on object storages want at least 5 MiB.
const PIECE_BYTES: u64 = 8 << 20;
const DOING: &str = "sending a blob";

/// Why an artifact was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The archive is none.
    #[error(transparent)]
    Archive(#[from] ArtifactError),
    /// It ends before its time.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
}

impl Repository<'_> {
    /// Sends an operating system's image with what is signed about it, from a file; gives the digest of its manifest.
    pub fn send_os(&self, from: impl Read, tag: &str) -> Result<Digest, SendError> {
        let mut archive = OsArchive::open(from)?;
        let documents = archive.documents.clone();
        let image = &documents.manifest.image;
        let sent = self.send_blob(&image_digest(&image.digest), image.bytes, archive.image())?;
        sent.map_err(SendError::Read)?;
        let is_manifest = |digest: &Digest| *digest == documents.digest || archive.referrers.contains(digest);
        for (digest, bytes) in &archive.members {
            if !is_manifest(digest) {
                let sent = self.send_blob(digest, bytes.len() as u64, &mut &bytes[..])?;
                sent.map_err(SendError::Read)?;
            }
        }
        let attach = |digest: &Digest, tag: Option<&str>| {
            let attachment = Attachment {
                blobs: &[],
                manifest: &archive.members[digest],
                tag,
            };
            self.attach(&attachment, &Limits::DEVICE)
        };
        attach(&documents.digest, Some(tag).filter(|tag| !tag.is_empty()))?;
        for referrer in &archive.referrers {
            attach(referrer, None)?;
        }
        Ok(documents.digest)
    }

    /// Sends a blob of `size` bytes. One that the registry has is only read.
    ///
    /// # Errors
    /// The outer ones are the registry's, the inner ones the stream's.
    pub fn send_blob(
        &self,
        digest: &Digest,
        size: u64,
        from: &mut dyn Read,
    ) -> Result<io::Result<()>, RegistryError> {
        if has(self, digest)? {
            return Ok(io::copy(&mut from.take(size), &mut io::sink()).map(drop));
        }
        let session = self.own();
        let Some(mut at) = begin(self, "")? else {
            return Err(session.protocol("it says that an upload is done which was not begun"));
        };
        let what = format!("blob {digest}");
        let mut sent = 0;
        let mut piece = Vec::new();
        loop {
            piece.clear();
            let wanted = PIECE_BYTES.min(size - sent);
            match from.take(wanted).read_to_end(&mut piece) {
                Ok(count) if count as u64 == wanted => {}
                Ok(_) => return Ok(Err(io::ErrorKind::UnexpectedEof.into())),
                Err(error) => return Ok(Err(error)),
            }
            let end = sent + wanted;
            let is_last = end == size;
            let separator = if at.contains('?') { '&' } else { '?' };
            let url = match is_last {
                true => format!("{at}{separator}digest={}", encode(&digest.to_string())),
                false => at.clone(),
            };
            let open = || -> io::Result<Box<dyn Read + '_>> { Ok(Box::new(&piece[..])) };
            let answer = session.send(&Ask {
                method: if is_last { Method::PUT } else { Method::PATCH },
                range: (wanted < size).then_some((sent, end)),
                is_repeatable: false,
                payload: Payload::Stream(&open, wanted),
                ..Ask::get(&url, &what, DOING)
            })?;
            if is_last {
                return Ok(Ok(()));
            }
            at = place(session, answer.headers())?;
            sent = end;
        }
    }
}
