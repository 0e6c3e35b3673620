//! Parts of a blob, for whoever has the others: byte ranges of one blob, asked for from front to back.
//!
//! Owns [`Parts`]. A place that knows no ranges is left for the next one; where none is left, the whole is read once and what is not wanted is passed over,
//! so that a bad mirror costs time and never a blob per range. Refuses to verify: whoever reads knows by what, and says [`Parts::distrust`]. Invariants as of
//! `blob`: every wait has an end, every loop is counted.

use std::io::Read;
use std::time::Duration;

use ureq::BodyReader;
use ureq::http::{StatusCode, header};

use super::client::io_error;
use super::error::RegistryError;
use super::repository::Repository;
use super::session::{Ask, Session};
use crate::digest::Digest;

const DOING: &str = "fetching a part of an image";
/// Bytes that are read at a time.
const BUFFER_BYTES: usize = 64 << 10;

/// An answer that is being read: where it is in the blob, and where it ends.
struct Answer {
    body: BodyReader<'static>,
    at: u64,
    end: u64,
    is_whole: bool,
}

/// See the module.
pub struct Parts<'r, 'c> {
    repository: &'r Repository<'c>,
    digest: Digest,
    size: u64,
    /// Which of the repository's places is asked.
    place: usize,
    /// Whether a place that sends the whole will do: no other is left.
    takes_whole: bool,
    answer: Option<Answer>,
    /// Failures without progress between them.
    failures: u32,
    pause: Duration,
    bytes: u64,
}

impl<'r, 'c> Parts<'r, 'c> {
    /// Prepares for reading of a blob of `size` bytes; nothing is asked yet.
    pub fn new(repository: &'r Repository<'c>, digest: Digest, size: u64) -> Self {
        Self {
            pause: repository.own().client.patience.pause,
            repository,
            digest,
            size,
            place: 0,
            takes_whole: false,
            answer: None,
            failures: 0,
            bytes: 0,
        }
    }

    /// All bytes that came over the wire, those that were passed over among them.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What came last is not what it should be: asks another place from now on, or says that there is none.
    pub fn distrust(&mut self) -> bool {
        self.answer = None;
        self.next_place()
    }

    fn next_place(&mut self) -> bool {
        let is_more = self.place + 1 < self.repository.sessions.len();
        self.place += usize::from(is_more);
        is_more
    }

    fn session(&self) -> &'r Session<'c> {
        &self.repository.sessions[self.place]
    }

    /// Reads `from..until` in order; `take` is given each piece and may end it all by its error.
    ///
    /// # Errors
    /// The outer ones are the registry's, the inner ones `take`'s.
    pub fn read<E>(
        &mut self,
        from: u64,
        until: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Result<(), E>, RegistryError> {
        let mut at = from;
        let mut buffer = vec![0; BUFFER_BYTES];
        while at < until {
            self.session().client.cancel.check()?;
            match self.piece(at, until, &mut buffer) {
                Ok(count) => {
                    (self.failures, self.pause) = (0, self.session().client.patience.pause);
                    at += count as u64;
                    if let Err(error) = take(&buffer[..count]) {
                        self.answer = None;
                        return Ok(Err(error));
                    }
                }
                Err(error) => self.recover(error)?,
            }
        }
        Ok(Ok(()))
    }

    /// The next bytes from `at` on, from an answer that is under way or a new one.
    fn piece(&mut self, at: u64, until: u64, buffer: &mut [u8]) -> Result<usize, RegistryError> {
        let is_usable =
            |answer: &Answer| answer.at == at && at < answer.end || answer.is_whole && answer.at <= at;
        if !self.answer.as_ref().is_some_and(is_usable) {
            self.answer = Some(self.ask(at, until)?);
        }
        let registry = self.session().name().to_owned();
        let answer = self.answer.as_mut().expect("it was made sure");
        loop {
            let skips = at - answer.at;
            let wanted = if skips > 0 {
                skips
            } else {
                until.min(answer.end) - at
            };
            let wanted = usize::try_from(wanted).unwrap_or(usize::MAX).min(buffer.len());
            let count = answer
                .body
                .read(&mut buffer[..wanted])
                .map_err(|error| io_error(registry.clone(), DOING, error))?;
            self.bytes += count as u64;
            answer.at += count as u64;
            if count == 0 {
                let found = answer.at;
                return Err(RegistryError::Size {
                    registry,
                    digest: self.digest.clone(),
                    expected: answer.end,
                    found,
                });
            }
            if skips == 0 {
                return Ok(count);
            }
            self.repository.own().client.cancel.check()?;
        }
    }

    fn ask(&self, from: u64, until: u64) -> Result<Answer, RegistryError> {
        let session = self.session();
        let what = format!("blob {}", self.digest);
        let path = self.repository.path(&format!("blobs/{}", self.digest));
        let reply = session.send(&Ask {
            from,
            until: Some(until),
            ..Ask::get(&path, &what, DOING)
        })?;
        let get = |name| reply.headers().get(name).and_then(|value| value.to_str().ok());
        if get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            return Err(session.protocol("it encodes a blob on the way, though that was not asked for"));
        }
        let is_whole = reply.status() != StatusCode::PARTIAL_CONTENT;
        let (at, end) = match get(header::CONTENT_RANGE).filter(|_| !is_whole).map(range) {
            Some(Some(range)) => range,
            Some(None) => (u64::MAX, u64::MAX),
            None if is_whole => (0, self.size),
            None => (u64::MAX, u64::MAX),
        };
        let is_part_wanted = from > 0 || until < self.size;
        if is_whole && is_part_wanted && !self.takes_whole {
            return Err(session.protocol("it sends a whole blob where a part was asked for"));
        }
        if !is_whole && (at != from || end <= at || end > self.size) {
            return Err(session.protocol("it sends another part of a blob than was asked for"));
        }
        let length = get(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
        if length.is_some_and(|length| length != end - at) {
            return Err(session.protocol("it sends a part of another length than it says"));
        }
        Ok(Answer {
            body: reply.into_body().into_reader(),
            at,
            end,
            is_whole,
        })
    }

    /// Decides what a failure means: another place, another attempt, or the end.
    fn recover(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        self.answer = None;
        if matches!(error, RegistryError::Cancelled) {
            return Err(error);
        }
        let session = self.session();
        if self.next_place() {
            tracing::info!(mirror = session.name(), %error, "ignoring a mirror");
            return Ok(());
        }
        if matches!(error, RegistryError::Protocol { .. }) && !self.takes_whole {
            tracing::info!(registry = session.name(), %error, "reading all of a blob for parts of it");
            self.takes_whole = true;
            return Ok(());
        }
        let is_short = matches!(error, RegistryError::Size { .. });
        let patience = session.client.patience;
        self.failures += 1;
        if !(error.is_passing() || is_short) || self.failures >= patience.attempts {
            return Err(error);
        }
        tracing::debug!(%error, "asking for a part again");
        session.client.cancel.pause(self.pause)?;
        self.pause = (self.pause * 2).min(patience.pause_max);
        Ok(())
    }
}

/// First byte and end of `bytes 5-9/10`.
fn range(text: &str) -> Option<(u64, u64)> {
    let (first, last) = text.strip_prefix("bytes ")?.split('/').next()?.split_once('-')?;
    Some((first.parse().ok()?, last.parse::<u64>().ok()?.checked_add(1)?))
}
