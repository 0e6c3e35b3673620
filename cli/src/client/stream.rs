//! Answers that go on: documents one after another, and connections that were taken over.
//!
//! Owns the splitting of a body into JSON documents and the bytes of a hijacked connection. Invariant: a document has a bound, and bytes that
//! arrived with the answer's head are not lost.

use std::io;

use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::ClientError;

/// The longest single document of a stream; a `stats` sample has about 3 KB.
const DOCUMENT_BYTES_MAX: usize = 4 << 20;
/// How much of a hijacked connection is read at a time.
const CHUNK_BYTES: usize = 32 << 10;

/// A body of JSON documents, one a line.
pub struct JsonStream {
    body: Incoming,
    request: String,
    pending: Vec<u8>,
    is_over: bool,
}

impl JsonStream {
    pub(super) const fn new(body: Incoming, request: String) -> Self {
        Self {
            body,
            request,
            pending: Vec::new(),
            is_over: false,
        }
    }

    /// Waits for the next document; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Value>, ClientError> {
        loop {
            if let Some(end) = self.pending.iter().position(|&byte| byte == b'\n') {
                let rest = self.pending.split_off(end + 1);
                let line = std::mem::replace(&mut self.pending, rest);
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return self.parse(&line).map(Some);
            }
            if self.is_over {
                let line = std::mem::take(&mut self.pending);
                return if line.iter().all(u8::is_ascii_whitespace) {
                    Ok(None)
                } else {
                    self.parse(&line).map(Some)
                };
            }
            match self.chunk().await? {
                Some(bytes) => self.pending.extend_from_slice(&bytes),
                None => self.is_over = true,
            }
            if self.pending.len() > DOCUMENT_BYTES_MAX {
                return Err(ClientError::Answer {
                    request: self.request.clone(),
                    bytes_max: DOCUMENT_BYTES_MAX,
                    cause: "a document of the stream is too long".into(),
                });
            }
        }
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        next_chunk(&mut self.body)
            .await
            .map_err(|cause| ClientError::Protocol {
                request: self.request.clone(),
                cause,
            })
    }

    fn parse(&self, line: &[u8]) -> Result<Value, ClientError> {
        serde_json::from_slice(line).map_err(|cause| ClientError::Json {
            request: self.request.clone(),
            cause,
        })
    }
}

/// Waits for the next bytes of a body.
pub async fn next_chunk(body: &mut Incoming) -> Result<Option<Bytes>, hyper::Error> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// A connection that carries a container's bytes.
pub struct Hijacked {
    early: Bytes,
    stream: UnixStream,
}

impl Hijacked {
    pub(super) fn new(upgraded: Upgraded) -> Option<Self> {
        let parts = upgraded.downcast::<TokioIo<UnixStream>>().ok()?;
        Some(Self {
            early: parts.read_buf,
            stream: parts.io.into_inner(),
        })
    }

    /// Takes it apart into the container's output and its standard input.
    pub fn into_split(self) -> (HijackedOutput, HijackedInput) {
        let (read, write) = self.stream.into_split();
        (
            HijackedOutput {
                early: self.early,
                read,
                buffer: vec![0; CHUNK_BYTES],
            },
            HijackedInput { write },
        )
    }
}

/// The container's output.
pub struct HijackedOutput {
    early: Bytes,
    read: OwnedReadHalf,
    buffer: Vec<u8>,
}

impl HijackedOutput {
    /// Waits for the next bytes; empty at the end.
    pub async fn next(&mut self) -> io::Result<&[u8]> {
        if !self.early.is_empty() {
            let count = self.early.len().min(self.buffer.len());
            self.buffer[..count].copy_from_slice(&self.early.split_to(count));
            return Ok(&self.buffer[..count]);
        }
        let count = self.read.read(&mut self.buffer).await?;
        Ok(&self.buffer[..count])
    }
}

/// The container's standard input.
pub struct HijackedInput {
    write: OwnedWriteHalf,
}

impl HijackedInput {
    /// Sends bytes.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write.write_all(bytes).await
    }

    /// Ends standard input; output goes on.
    pub async fn close(&mut self) -> io::Result<()> {
        self.write.shutdown().await
    }
}
