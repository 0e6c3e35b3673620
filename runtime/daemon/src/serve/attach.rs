//! Carrying bytes between a client and a process: attach and exec.
//!
//! The connection becomes the stream, both ways, half-closing each: with `Upgrade` behind a 101, without behind a 200, as a WebSocket in messages. Invariant:
//! the output is delivered to its end before the connection is closed.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::StatusCode;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, UPGRADE};
use kakoi_api::stream::{self, CONTENT_TYPE_FRAMED, CONTENT_TYPE_RAW, Output};
use kakoi_container::frames::{Reply as ShimReply, Request as ShimRequest, Streams};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::hijack::{self, Line};
use super::reply::{self, Reply};
use super::router::Asked;
use super::{logs, websocket};
use crate::detach::DetachKeys;
use crate::engine::Engine;
use crate::exec::Exec;
use crate::life::container::{Container, Phase};
use crate::life::stop;
use crate::policy::Door;
use crate::refusal::{Answer, Refusal, chain};
use crate::shim::{self, Pending};

/// Bytes carried at a time at most.
const CHUNK_BYTES: usize = 64 << 10;
/// Bytes carried at a time at first: a stream that says little, as most do, takes little.
const CHUNK_BYTES_FIRST: usize = 4 << 10;

/// Bytes of a request's body that are passed over: an attach has none.
const BODY_BYTES_MAX: usize = 64 << 10;

/// What is to be known of a stream.
pub struct Terms {
    /// Whether the process has a terminal: its bytes are not framed, and detach keys are looked for.
    pub tty: bool,
    /// Whether the client gets frames, whatever the process's own stream looks like.
    pub framed: bool,
    /// Whether the client's bytes go to the process.
    pub stdin: bool,
    /// The detach keys.
    pub keys: DetachKeys,
    /// How the client speaks.
    pub way: Way,
}

/// How a client speaks once its connection is a stream.
#[derive(Clone, Debug)]
pub struct Way {
    /// The socket that it came by.
    door: Door,
    kind: Kind,
    /// Whether it knows a content type of its own for frames.
    tells_frames: bool,
}

#[derive(Clone, Debug)]
enum Kind {
    /// Bytes, behind a 200.
    Bytes,
    /// Bytes, behind a 101.
    Upgraded,
    /// Messages, text ones for the oldest clients; with the headers of the handshake's answer.
    Messages {
        headers: Vec<(HeaderName, HeaderValue)>,
        is_text: bool,
    },
}

impl Way {
    /// As a request asks for it.
    pub fn of(asked: &Asked) -> Self {
        Self {
            door: asked.door,
            kind: match asked.request.headers().contains_key(UPGRADE) {
                true => Kind::Upgraded,
                false => Kind::Bytes,
            },
            tells_frames: !asked.is_before(1, 42),
        }
    }

    /// The head of the answer.
    fn head(&self, framed: bool) -> Reply {
        let kind = match (&self.kind, framed && self.tells_frames) {
            (Kind::Upgraded, true) => CONTENT_TYPE_FRAMED,
            // dockerd's word for whatever follows a 200.
            _ => CONTENT_TYPE_RAW,
        };
        let kind = HeaderValue::from_static(kind);
        let (status, headers) = match &self.kind {
            Kind::Bytes => (StatusCode::OK, vec![(CONTENT_TYPE, kind)]),
            Kind::Upgraded => (
                StatusCode::SWITCHING_PROTOCOLS,
                vec![
                    (CONTENT_TYPE, kind),
                    (CONNECTION, HeaderValue::from_static("Upgrade")),
                    (UPGRADE, HeaderValue::from_static("tcp")),
                ],
            ),
            Kind::Messages { headers, .. } => (StatusCode::SWITCHING_PROTOCOLS, headers.clone()),
        };
        let mut reply = reply::empty(status);
        reply.headers_mut().extend(headers);
        reply
    }
}

/// How long a client may take to read the answer's head before the stream begins all the same.
const HEAD_WAIT: Duration = Duration::from_millis(200);

/// Waits until the client has read the head of the answer. Docker's own daemon starts a process only then; some of its clients read the head through a buffer
/// and lose whatever of the stream came with it.
async fn head_is_read(stream: &UnixStream) {
    let is_read = async {
        while kakoi_sys::socket::unread(stream.as_fd()).is_ok_and(|bytes| bytes > 0) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    // Past that time the client is at fault.
    tokio::time::timeout(HEAD_WAIT, is_read).await.ok();
}

/// `POST /containers/{id}/attach`
pub async fn attach(mut asked: Asked, id: &str) -> Answer<Reply> {
    let (container, keys) = found(&asked, id)?;
    // A body is nothing to anybody, but what follows it is.
    let body = Limited::new(asked.request.body_mut(), BODY_BYTES_MAX);
    body.collect()
        .await
        .map_err(|cause| Refusal::bad(format!("the request's body cannot be read: {cause}")))?;
    let query = &asked.query;
    let streams = Streams {
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
    };
    let way = Way::of(&asked);
    attach_by(&asked, &container, streams, keys, way).await
}

/// `GET /containers/{id}/attach/ws`
pub async fn attach_ws(asked: Asked, id: &str) -> Answer<Reply> {
    let (container, keys) = found(&asked, id)?;
    let headers = websocket::accept(asked.request.headers())?;
    let query = &asked.query;
    // Clients of old name none and mean all.
    let wants = |name: &str| query.flag(name) || asked.is_before(1, 42);
    let streams = Streams {
        stdin: wants("stdin"),
        stdout: wants("stdout"),
        stderr: wants("stderr"),
    };
    let way = Way {
        door: asked.door,
        kind: Kind::Messages {
            headers,
            is_text: asked.is_before(1, 28),
        },
        tells_frames: false,
    };
    attach_by(&asked, &container, streams, keys, way).await
}

/// The container that a client wants to attach to, in a state in which it can, and the keys to leave it by.
fn found(asked: &Asked, id: &str) -> Answer<(Arc<Container>, DetachKeys)> {
    let keys = DetachKeys::parse(asked.query.get("detachKeys").unwrap_or_default())?;
    let container = asked.engine.containers.find(id)?;
    let phase = container.shared().phase;
    match phase {
        Phase::Paused => Err(Refusal::conflict(format!(
            "container {} is paused, unpause the container before attach",
            container.id
        ))),
        Phase::Removing | Phase::Dead => Err(stop::not_running(&container)),
        _ => Ok((container, keys)),
    }
}

async fn attach_by(
    asked: &Asked,
    container: &Arc<Container>,
    streams: Streams,
    keys: DetachKeys,
    way: Way,
) -> Answer<Reply> {
    let (tty, open_stdin) = {
        let shared = container.shared();
        (shared.record.config.tty, shared.record.config.open_stdin)
    };
    let framed = !tty && !matches!(way.kind, Kind::Messages { .. });
    let past = if asked.query.flag("logs") {
        logs::past(&asked.engine, container, streams.stdout, streams.stderr, !framed).await?
    } else {
        Vec::new()
    };
    // A client that asks for no stream gets what the container has said, and the end.
    let live = if asked.query.flag("stream") {
        Some(connect(&asked.engine, container, streams).await?)
    } else {
        None
    };
    let terms = Terms {
        tty,
        framed,
        stdin: streams.stdin && open_stdin,
        keys,
        way,
    };
    asked
        .engine
        .events
        .tell("container", "attach", &container.id, container.attributes());
    Ok(carry(
        terms,
        past,
        async move {
            let pending = live?;
            match pending.answer().await {
                Ok((ShimReply::Stream, stream)) => Some(stream),
                Ok((other, _)) => {
                    tracing::warn!(?other, "the supervisor does not answer with a stream");
                    None
                }
                Err(error) => {
                    tracing::debug!(error = chain(&error), "attaching came to nothing");
                    None
                }
            }
        },
        async {},
    ))
}

/// Asks for a container's streams: of this run, or, where it is down, of the next.
async fn connect(engine: &Engine, container: &Arc<Container>, streams: Streams) -> Answer<Pending> {
    let run_dir = engine.paths.run_dir(&container.id);
    if !container.pulse().borrow().up {
        // The turn keeps a start from taking the listener away between its making and the connection.
        let _turn = container.turn().await;
        if !container.pulse().borrow().up {
            if container.pulse().borrow().shim {
                container.until(|pulse| !pulse.shim).await;
            }
            if container.shared().listener.is_none() {
                crate::host::make_private_folder(&run_dir)
                    .map_err(|cause| Refusal::failed("preparing the run-time folder failed", cause))?;
                let listener = shim::bind(&run_dir).map_err(|error| stop::talk_failed(container, error))?;
                container.shared().listener = Some(listener);
            }
            return pending(&run_dir, container, streams).await;
        }
    }
    pending(&run_dir, container, streams).await
}

async fn pending(run_dir: &std::path::Path, container: &Container, streams: Streams) -> Answer<Pending> {
    Pending::send(run_dir, &ShimRequest::Attach(streams))
        .await
        .map_err(|error| stop::talk_failed(container, error))
}

/// Answers with the streams of an exec instance that runs.
pub fn carry_exec(terms: Terms, stream: BufReader<UnixStream>, exec: Arc<Exec>) -> Reply {
    // The exit code must be there when the stream closes: the next request asks for it.
    carry(terms, Vec::new(), async move { Some(stream) }, async move {
        exec.ended().await
    })
}

/// Answers with a stream of one text.
pub fn carry_text(way: Way, framed: bool, text: &str) -> Answer<Reply> {
    let terms = Terms {
        tty: !framed,
        framed,
        stdin: false,
        keys: DetachKeys::parse("")?,
        way,
    };
    let past = match framed {
        true => stream::frame(Output::Stdout, text.as_bytes()),
        false => text.as_bytes().to_vec(),
    };
    Ok(carry(terms, past, async { None }, async {}))
}

/// Answers with a stream.
fn carry(
    terms: Terms,
    past: Vec<u8>,
    live: impl Future<Output = Option<BufReader<UnixStream>>> + Send + 'static,
    after: impl Future<Output = ()> + Send + 'static,
) -> Reply {
    let head = terms.way.head(terms.framed);
    hijack::taken_over(head, |line: Line| async move {
        let Way { door, kind, .. } = terms.way.clone();
        if door == Door::Docker {
            head_is_read(&line.stream).await;
        }
        let (reader, writer) = tokio::io::split(line.stream);
        // What the client sent right behind its request.
        let reader = io::Cursor::new(line.ahead).chain(reader);
        let Kind::Messages { is_text, .. } = kind else {
            return converse(reader, writer, terms, past, live, after).await;
        };
        let (near, far) = tokio::io::duplex(CHUNK_BYTES);
        let (near_reader, near_writer) = tokio::io::split(near);
        let conversation = converse(near_reader, near_writer, terms, past, live, after);
        let frames = websocket::carry(reader, writer, far, is_text);
        tokio::pin!(frames);
        tokio::select! {
            // A client that is gone, or that breaks the protocol, ends it all.
            () = &mut frames => return,
            () = conversation => {}
        }
        frames.await;
    })
}

/// Gives a client what was said before, then both directions, then the end.
async fn converse(
    reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    terms: Terms,
    past: Vec<u8>,
    live: impl Future<Output = Option<BufReader<UnixStream>>>,
    after: impl Future<Output = ()>,
) {
    if writer.write_all(&past).await.is_ok()
        && let Some(stream) = live.await
        && exchange(reader, &mut writer, stream, terms).await
    {
        after.await;
    }
    // The client may have left already.
    writer.shutdown().await.ok();
}

/// Carries both directions until the output ends, the client detaches, or the client is gone; tells whether the output ended.
async fn exchange<R, W>(mut client: R, out: &mut W, stream: BufReader<UnixStream>, mut terms: Terms) -> bool
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (mut from_shim, mut to_shim) = tokio::io::split(stream);
    let mut shape = Shape::of(&terms);
    // Ends with whether the client has left; the end of its input closes the process's input, no more.
    let input = async {
        let mut chunk = vec![0; CHUNK_BYTES_FIRST];
        let mut typed = Vec::new();
        loop {
            let count = match client.read(&mut chunk).await {
                Ok(0) => {
                    to_shim.shutdown().await.ok();
                    break false;
                }
                Ok(count) => count,
                Err(_) => break true,
            };
            if !terms.stdin {
                continue;
            }
            typed.clear();
            let detached = if terms.tty {
                terms.keys.feed(&chunk[..count], &mut typed)
            } else {
                typed.extend_from_slice(&chunk[..count]);
                false
            };
            // A process that has closed its input does not end the client's output.
            if to_shim.write_all(&typed).await.is_err() {
                break false;
            }
            if detached {
                break true;
            }
            grow(&mut chunk, count);
        }
    };
    let output = async {
        let mut chunk = vec![0; CHUNK_BYTES_FIRST];
        while let Ok(count) = from_shim.read(&mut chunk).await
            && count > 0
            && shape.write(out, &chunk[..count]).await
        {
            grow(&mut chunk, count);
        }
    };
    tokio::pin!(input, output);
    let has_left = tokio::select! {
        () = &mut output => return true,
        has_left = &mut input => has_left,
    };
    if !has_left {
        output.await;
    }
    !has_left
}

/// Makes room for more once there was as much as there is room for.
fn grow(chunk: &mut Vec<u8>, count: usize) {
    if count == chunk.len() && count < CHUNK_BYTES {
        chunk.resize(CHUNK_BYTES, 0);
    }
}

/// From the process's stream to the client's: a process without a terminal is framed by its shim.
enum Shape {
    AsItIs,
    /// A terminal's bytes, for a client that asked for frames.
    Framed,
    /// Without the frames, for one that has messages.
    Unframed(Unframed),
}

impl Shape {
    fn of(terms: &Terms) -> Self {
        match (terms.tty, terms.framed) {
            (true, true) => Self::Framed,
            (false, false) => Self::Unframed(Unframed::default()),
            (true, false) | (false, true) => Self::AsItIs,
        }
    }

    /// Writes to a client; false where it is gone.
    async fn write(&mut self, out: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> bool {
        let written = match self {
            Self::AsItIs => out.write_all(bytes).await,
            Self::Framed => out.write_all(&stream::frame(Output::Stdout, bytes)).await,
            Self::Unframed(unframed) => out.write_all(&unframed.feed(bytes)).await,
        };
        written.is_ok() && out.flush().await.is_ok()
    }
}

/// Takes frames off a stream that comes in pieces.
#[derive(Debug, Default)]
struct Unframed {
    header: Vec<u8>,
    /// Bytes of the current frame that are still to come.
    rest: usize,
}

impl Unframed {
    fn feed(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        while !bytes.is_empty() {
            let wanted = match self.rest {
                0 => stream::HEADER_BYTES - self.header.len(),
                rest => rest,
            };
            let (piece, after) = bytes.split_at(wanted.min(bytes.len()));
            bytes = after;
            if self.rest > 0 {
                out.extend_from_slice(piece);
                self.rest -= piece.len();
                continue;
            }
            self.header.extend_from_slice(piece);
            if let Ok(header) = <[u8; stream::HEADER_BYTES]>::try_from(self.header.as_slice()) {
                // Only a shim of ours writes here.
                self.rest = stream::parse_header(&header).map_or(0, |(_, length)| length as usize);
                self.header.clear();
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_off_wherever_the_stream_is_cut() {
        let mut whole = stream::frame(Output::Stdout, b"one");
        whole.extend(stream::frame(Output::Stderr, b""));
        whole.extend(stream::frame(Output::Stderr, b"two"));
        for size in 1..=whole.len() {
            let mut unframed = Unframed::default();
            let pieces = whole.chunks(size);
            let out: Vec<u8> = pieces.flat_map(|piece| unframed.feed(piece)).collect();
            assert_eq!(out, b"onetwo", "in pieces of {size}");
        }
    }
}
