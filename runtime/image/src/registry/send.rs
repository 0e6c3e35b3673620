//! Sending an artifact that comes as a stream: large blobs in pieces as they arrive, its documents last.
//!
//! Owns the order. A piece is held in memory until the registry has it, so a stream that cannot be read twice is sent over a bad link all the same.
//! Refuses to know what an artifact is. The digest that the sender names is the registry's to check.

use std::io::{self, Read};

use ureq::http::Method;

use super::auth::encode;
use super::error::RegistryError;
use super::push::{begin, has, place};
use super::repository::Repository;
use super::session::{Ask, Payload};
use crate::digest::Digest;

/// Bytes of a piece. Registries on object storages want at least 5 MiB.
const PIECE_BYTES: u64 = 8 << 20;
const DOING: &str = "sending a blob";

impl Repository<'_> {
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
