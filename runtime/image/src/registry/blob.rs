//! A blob as a stream that survives broken connections.
//!
//! Owns [`BlobStream`]: a reader that asks again from where it was cut off (RFC 7233 ranges), goes from a mirror to the next place, and ends
//! with exactly the bytes its descriptor says. Refuses to hash: whoever reads does. Invariant: neither a registry that sends slowly, too much,
//! too little or without end, nor one that breaks off again and again, holds a reader for ever.

use std::cell::{Cell, RefCell};
use std::io::{self, Read};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ureq::BodyReader;
use ureq::http::{StatusCode, header};

use super::client::io_error;
use super::error::RegistryError;
use super::session::{Ask, Session};
use crate::digest::Digest;

/// Progress after which a further break counts as the first.
const PROGRESS_BYTES: u64 = 1 << 20;
const DOING: &str = "fetching a layer";

/// Where a reader leaves what really went wrong: an `io::Error` on its way through decoders loses it.
pub(crate) type Slot<E> = Rc<RefCell<Option<E>>>;

/// See the module.
pub(crate) struct BlobStream<'s, 'c> {
    sessions: &'s [Session<'c>],
    /// Which of them is read from; those before it failed.
    at: Rc<Cell<usize>>,
    path: &'s str,
    digest: &'s Digest,
    size: u64,
    offset: u64,
    body: Option<BodyReader<'static>>,
    /// Breaks without [`PROGRESS_BYTES`] between them.
    breaks: u32,
    /// Where the last break was.
    broken_at: u64,
    pause: Duration,
    /// Time spent waiting for bytes, and the bytes that came, in the current window.
    window: (Duration, u64),
    failure: Slot<RegistryError>,
}

impl<'s, 'c> BlobStream<'s, 'c> {
    /// Prepares for reading `size` bytes, without the first `from`; `at` tells which place is read from.
    pub(crate) fn new(
        sessions: &'s [Session<'c>],
        at: Rc<Cell<usize>>,
        path: &'s str,
        digest: &'s Digest,
        size: u64,
        from: u64,
    ) -> (Self, Slot<RegistryError>) {
        let failure: Slot<RegistryError> = Rc::default();
        let stream = Self {
            pause: sessions[at.get()].client.patience.pause,
            sessions,
            at,
            path,
            digest,
            size,
            offset: from,
            body: None,
            breaks: 0,
            broken_at: from,
            window: (Duration::ZERO, 0),
            failure: Rc::clone(&failure),
        };
        (stream, failure)
    }

    fn session(&self) -> &'s Session<'c> {
        &self.sessions[self.at.get()]
    }

    fn registry(&self) -> String {
        self.session().name().to_owned()
    }

    fn wrong_size(&self, found: u64) -> RegistryError {
        RegistryError::Size {
            registry: self.registry(),
            digest: self.digest.clone(),
            expected: self.size,
            found,
        }
    }

    fn next(&mut self, buffer: &mut [u8]) -> Result<usize, RegistryError> {
        loop {
            self.session().client.cancel.check()?;
            match self.attempt(buffer) {
                Ok(count) => return Ok(count),
                Err(error) => self.recover(error)?,
            }
        }
    }

    /// One read, in a connection that is opened where there is none.
    fn attempt(&mut self, buffer: &mut [u8]) -> Result<usize, RegistryError> {
        if self.body.is_none() {
            if self.offset == self.size && self.size > 0 {
                return Ok(0);
            }
            self.open()?;
        }
        let patience = self.session().client.patience;
        let registry = self.registry();
        let body = self.body.as_mut().expect("it was opened");
        let since = Instant::now();
        let read = body.read(buffer);
        let count = read.map_err(|error| io_error(registry.clone(), DOING, error))?;
        if count == 0 {
            self.body = None;
            return match self.offset == self.size {
                true => Ok(0),
                false => Err(self.wrong_size(self.offset)),
            };
        }
        let offset = self.offset + count as u64;
        if offset > self.size {
            return Err(self.wrong_size(offset));
        }
        self.offset = offset;
        let (waited, bytes) = self.window;
        self.window = (waited + since.elapsed(), bytes + count as u64);
        if self.window.0 >= patience.window {
            let is_slow = self.window.1 < patience.window_bytes_min && offset < self.size;
            self.window = (Duration::ZERO, 0);
            if is_slow {
                // What came is good all the same: the next attempt goes on behind it.
                self.body = None;
                self.give_up_or_pause(RegistryError::TimedOut {
                    registry,
                    doing: DOING,
                })?;
            }
        }
        Ok(count)
    }

    /// Decides what a failure means: another place, another attempt, or the end.
    fn recover(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        self.body = None;
        let is_short = matches!(&error, RegistryError::Size { found, .. } if *found < self.size);
        if matches!(error, RegistryError::Cancelled) {
            return Err(error);
        }
        if self.at.get() + 1 < self.sessions.len() {
            tracing::info!(mirror = self.session().name(), %error, "ignoring a mirror");
            self.at.set(self.at.get() + 1);
            return Ok(());
        }
        match error.is_passing() || is_short {
            true => self.give_up_or_pause(error),
            false => Err(error),
        }
    }

    fn give_up_or_pause(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        let client = self.session().client;
        if self.offset - self.broken_at >= PROGRESS_BYTES {
            (self.breaks, self.pause) = (0, client.patience.pause);
        }
        self.broken_at = self.offset;
        self.breaks += 1;
        if self.breaks >= client.patience.attempts {
            return Err(error);
        }
        tracing::debug!(%error, offset = self.offset, "going on where a layer broke off");
        client.cancel.pause(self.pause)?;
        self.pause = (self.pause * 2).min(client.patience.pause_max);
        Ok(())
    }

    fn open(&mut self) -> Result<(), RegistryError> {
        let session = self.session();
        let what = format!("blob {}", self.digest);
        let ask = Ask {
            from: self.offset,
            ..Ask::get(self.path, &what, DOING)
        };
        let answer = session.send(&ask)?;
        let get = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
        if get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            return Err(session.protocol("it encodes a blob on the way, though that was not asked for"));
        }
        let is_part = answer.status() == StatusCode::PARTIAL_CONTENT;
        let starts_at = match is_part {
            true => get(header::CONTENT_RANGE).and_then(range_start),
            false => Some(0),
        };
        let skip = match starts_at {
            Some(start) if start == self.offset => 0,
            // It knows no ranges: what we have is passed over.
            Some(0) => self.offset,
            _ => return Err(session.protocol("it sends another part of a blob than was asked for")),
        };
        let length = get(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
        let due = self.size - starts_at.unwrap_or(0);
        if let Some(length) = length.filter(|length| *length != due) {
            return Err(self.wrong_size(self.size - due + length));
        }
        let mut body = answer.into_body().into_reader();
        let passed = io::copy(&mut (&mut body).take(skip), &mut io::sink());
        match passed {
            Ok(passed) if passed == skip => {}
            Ok(passed) => return Err(self.wrong_size(passed)),
            Err(error) => return Err(io_error(self.registry(), DOING, error)),
        }
        self.body = Some(body);
        Ok(())
    }
}

impl Read for BlobStream<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.next(buffer).map_err(|error| {
            let told = io::Error::other(error.to_string());
            self.failure.borrow_mut().get_or_insert(error);
            told
        })
    }
}

/// The first byte of `bytes 5-9/10`.
fn range_start(text: &str) -> Option<u64> {
    text.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}
