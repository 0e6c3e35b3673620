//! HTTP on the socket: connections, limits, and from a request to an answer.

mod apps;
pub mod archive;
pub mod attach;
pub mod audit;
pub mod caller;
pub mod commit;
pub mod containers;
pub mod denials;
pub mod exec;
pub mod hijack;
mod host;
pub mod images;
pub mod logs;
mod networks;
mod os;
pub mod query;
pub mod registry;
pub mod reply;
pub mod room;
pub mod router;
pub mod secrets;
pub mod stats;
pub mod system;
pub mod top;
pub mod trust;
pub mod view;
pub mod volumes;
pub mod websocket;

use std::convert::Infallible;
use std::future;
use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncReadExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;

use self::caller::Caller;
use self::hijack::{Departure, Left, Line, Takeover};
use crate::engine::Engine;
use crate::policy::Door;
use crate::refusal::Refusal;

/// Connections at a time. Each one that follows a log or carries an attached terminal is one; beyond this a client waits in the backlog. One takes two
/// descriptors, a third with a shim at its other end.
const CONNECTIONS_MAX: usize = 512;
/// How long a client may take to send its headers: as long as with dockerd. hyper counts the pause between two requests of one connection too, and a
/// client that uses a connection again just as it is closed takes that for a failure: ten seconds, which a stop may take, were hit.
const HEADERS_WAIT: Duration = Duration::from_secs(300);
/// How long the request of a client that has left is still read for.
const LEFT_WAIT: Duration = Duration::from_secs(1);
/// How long, and how much, of a request is read away whose answer is given. The files of a small build come within both.
const LINGER_WAIT: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 64 << 20;
/// Bytes of a request's head: a label filter of some kilobytes is plenty.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Headers of a request.
const HEADERS_MAX: usize = 64;

/// Serves until `stop` says so.
pub async fn serve(
    engine: Arc<Engine>,
    door: Door,
    listener: StdListener,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let slot = slots
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let stream = tokio::select! {
            _ = stop.changed() => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(cause) => {
                    // Out of descriptors, mostly: connections that end give some back.
                    tracing::warn!(%cause, "a connection cannot be accepted, ignoring");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let engine = engine.clone();
        tokio::spawn(async move {
            converse(engine, door, stream).await;
            drop(slot);
        });
    }
}

async fn converse(engine: Arc<Engine>, door: Door, stream: UnixStream) {
    let gone = match Departure::of(&stream) {
        Ok(gone) => gone,
        Err(cause) => {
            tracing::warn!(%cause, "a connection cannot be watched and is closed");
            return;
        }
    };
    let caller = Arc::new(Caller::on(&stream, door));
    let (take, mut taken) = mpsc::channel(1);
    let (at_work, mut is_at_work) = watch::channel(false);
    let at_work = Arc::new(at_work);
    let (leave, left) = watch::channel(false);
    let service = service_fn(move |mut request: Request<Incoming>| {
        Left::tell(&mut request, left.clone());
        let (engine, caller) = (engine.clone(), caller.clone());
        let (take, at_work) = (take.clone(), at_work.clone());
        at_work.send_replace(true);
        // A task of its own, begun before anybody looks whether the client is still there: one that leaves in the middle of a start must not leave
        // half a start behind, and one that leaves at once has asked all the same.
        let work = tokio::spawn(async move { router::answer(&engine, &caller, request).await });
        Box::pin(async move {
            let answered = work.await.unwrap_or_else(|cause| {
                reply::refusal(&Refusal::failed("the daemon failed at this request", cause))
            });
            at_work.send_replace(false);
            match Takeover::of(&answered) {
                None => Ok::<_, Infallible>(answered),
                // The conversation ends here, unanswered by hyper.
                Some(takeover) => {
                    take.send(takeover).await.ok();
                    future::pending().await
                }
            }
        })
    });
    let mut conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WAIT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        // A client that closes its own direction behind its request waits for the answer; who has left is told by `gone`.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // First, so that what a client sends before it leaves is read.
        biased;
        ended = &mut conversation => {
            told(ended);
            linger(conversation.into_parts().io.into_inner()).await;
        }
        Some(takeover) = taken.recv() => {
            let parts = conversation.into_parts();
            let (stream, ahead) = (parts.io.into_inner(), parts.read_buf);
            takeover.run(Line { stream, ahead }, &gone).await;
        }
        () = gone.wait() => {
            leave.send_replace(true);
            // The handler asks for its request's body first thing, and all of it has arrived.
            let rest = async {
                tokio::select! {
                    ended = &mut conversation => told(ended),
                    _ = is_at_work.wait_for(|is_at_work| !is_at_work) => {}
                }
            };
            timeout(LEFT_WAIT, rest).await.ok();
        }
    }
}

/// Reads away what a client still sends behind an answer that needed none of it. Many clients send a whole body before they look for an answer, and see
/// nothing but a broken connection where the other side has closed.
async fn linger(mut stream: UnixStream) {
    let mut left = LINGER_BYTES_MAX;
    let mut chunk = [0; 8 << 10];
    let rest = async {
        while left > 0
            && let Ok(count) = stream.read(&mut chunk).await
            && count > 0
        {
            left = left.saturating_sub(count);
        }
    };
    timeout(LINGER_WAIT, rest).await.ok();
}

fn told(ended: hyper::Result<()>) {
    if let Err(cause) = ended {
        tracing::debug!(%cause, "a conversation broke off");
    }
}
