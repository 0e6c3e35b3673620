//! Carrying bytes between a client and a process: attach and exec.
//!
//! With `Upgrade` the connection becomes the stream, both ways, half-closing each; without it the answer's body is the output. Invariant: the output is delivered to its end before the connection is closed.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use kakoi_api::stream::{self, CONTENT_TYPE_FRAMED, CONTENT_TYPE_RAW, Output};
use kakoi_container::frames::{Reply as ShimReply, Request as ShimRequest, Streams};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::logs;
use super::reply::{self, Reply};
use super::router::Asked;
use crate::detach::DetachKeys;
use crate::engine::Engine;
use crate::exec::Exec;
use crate::life::container::{Container, Phase};
use crate::life::stop;
use crate::policy::Door;
use crate::refusal::{Answer, Refusal, chain};
use crate::shim::{self, Pending};

/// Bytes carried at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// What is to be known of a stream.
pub struct Terms {
    /// Whether the process has a terminal: its bytes are not framed, and detach keys are looked for.
    pub tty: bool,
    /// Whether the client asked for frames: those of a process with a terminal are made here.
    pub framed: bool,
    /// Whether the client's bytes go to the process.
    pub stdin: bool,
    /// The detach keys.
    pub keys: DetachKeys,
    /// The socket that the client came by.
    pub door: Door,
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
    let container = asked.engine.containers.find(id)?;
    let query = &asked.query;
    let streams = Streams {
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
    };
    let (want_logs, want_stream) = (query.flag("logs"), query.flag("stream"));
    let keys = DetachKeys::parse(query.get("detachKeys").unwrap_or_default())?;
    let (tty, open_stdin) = {
        let shared = container.shared();
        match shared.phase {
            Phase::Paused => {
                return Err(Refusal::conflict(format!(
                    "container {} is paused, unpause the container before attach",
                    container.id
                )));
            }
            Phase::Removing | Phase::Dead => return Err(stop::not_running(&container)),
            _ => (shared.record.config.tty, shared.record.config.open_stdin),
        }
    };
    let past = if want_logs {
        logs::past(&asked.engine, &container, streams.stdout, streams.stderr, tty).await?
    } else {
        Vec::new()
    };
    // A client that asks for no stream gets what the container has said, and the end.
    let live = if want_stream {
        Some(connect(&asked.engine, &container, streams).await?)
    } else {
        None
    };
    let terms = Terms {
        tty,
        framed: !tty,
        stdin: streams.stdin && open_stdin,
        keys,
        door: asked.door,
    };
    asked
        .engine
        .events
        .tell("container", "attach", &container.id, container.attributes());
    Ok(carry(
        &mut asked.request,
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
pub fn carry_exec(
    request: &mut Request<Incoming>,
    terms: Terms,
    stream: BufReader<UnixStream>,
    exec: Arc<Exec>,
) -> Reply {
    // The exit code must be there when the stream closes: the next request asks for it.
    carry(
        request,
        terms,
        Vec::new(),
        async move { Some(stream) },
        async move { exec.ended().await },
    )
}

/// Answers with a stream of one text.
pub fn carry_text(request: &mut Request<Incoming>, door: Door, framed: bool, text: &str) -> Answer<Reply> {
    let terms = Terms {
        tty: !framed,
        framed,
        stdin: false,
        keys: DetachKeys::parse("")?,
        door,
    };
    let past = match framed {
        true => stream::frame(Output::Stdout, text.as_bytes()),
        false => text.as_bytes().to_vec(),
    };
    Ok(carry(request, terms, past, async { None }, async {}))
}

/// Answers with a stream.
fn carry(
    request: &mut Request<Incoming>,
    terms: Terms,
    past: Vec<u8>,
    live: impl Future<Output = Option<BufReader<UnixStream>>> + Send + 'static,
    after: impl Future<Output = ()> + Send + 'static,
) -> Reply {
    let kind = if terms.framed {
        CONTENT_TYPE_FRAMED
    } else {
        CONTENT_TYPE_RAW
    };
    if request.headers().get(UPGRADE).is_none() {
        return carry_in_body(kind, past, live, after);
    }
    let upgrading = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let upgraded = match upgrading.await {
            Ok(upgraded) => upgraded,
            Err(cause) => {
                tracing::debug!(%cause, "a client did not become a stream");
                return;
            }
        };
        let Ok(parts) = upgraded.downcast::<TokioIo<UnixStream>>() else {
            tracing::error!("a connection is no unix socket");
            return;
        };
        let stream = parts.io.into_inner();
        if terms.door == Door::Docker {
            head_is_read(&stream).await;
        }
        let (reader, mut writer) = tokio::io::split(stream);
        // What the client sent right behind its request.
        let reader = io::Cursor::new(parts.read_buf).chain(reader);
        if writer.write_all(&past).await.is_ok()
            && let Some(stream) = live.await
            && exchange(reader, &mut writer, stream, terms).await
        {
            after.await;
        }
        // The client may have left already.
        writer.shutdown().await.ok();
    });
    let mut reply = reply::empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = reply.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}

/// Carries both directions until the output ends, the client detaches, or the client is gone; tells whether the output ended.
async fn exchange<R, W>(mut client: R, out: &mut W, stream: BufReader<UnixStream>, mut terms: Terms) -> bool
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (mut from_shim, mut to_shim) = tokio::io::split(stream);
    let is_wrapped = terms.tty && terms.framed;
    // Ends with whether the client has left; the end of its input closes the process's input, no more.
    let input = async {
        let mut chunk = vec![0; CHUNK_BYTES];
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
        }
    };
    let output = async {
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(count) = from_shim.read(&mut chunk).await
            && count > 0
            && write(out, &chunk[..count], is_wrapped).await
        {}
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

/// Writes to a client, in a frame where it asked for frames of a terminal's bytes; false where it is gone.
async fn write(out: &mut (impl AsyncWrite + Unpin), bytes: &[u8], is_wrapped: bool) -> bool {
    let written = match is_wrapped {
        true => out.write_all(&stream::frame(Output::Stdout, bytes)).await,
        false => out.write_all(bytes).await,
    };
    written.is_ok() && out.flush().await.is_ok()
}

/// Without an upgrade there is no second direction once the answer has begun: the output only.
fn carry_in_body(
    kind: &'static str,
    past: Vec<u8>,
    live: impl Future<Output = Option<BufReader<UnixStream>>> + Send + 'static,
    after: impl Future<Output = ()> + Send + 'static,
) -> Reply {
    let (sender, reply) = reply::stream(kind);
    tokio::spawn(async move {
        if !past.is_empty() && sender.send(Ok(Bytes::from(past))).await.is_err() {
            return;
        }
        let Some(mut stream) = live.await else { return };
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let count = tokio::select! {
                count = stream.read(&mut chunk) => count.unwrap_or(0),
                () = sender.closed() => return,
            };
            if count == 0 {
                break;
            }
            if sender
                .send(Ok(Bytes::copy_from_slice(&chunk[..count])))
                .await
                .is_err()
            {
                return;
            }
        }
        after.await;
    });
    reply
}
