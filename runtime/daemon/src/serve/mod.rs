//! HTTP on the socket: connections, limits, and from a request to an answer.

pub mod archive;
pub mod attach;
pub mod commit;
pub mod containers;
pub mod denials;
pub mod exec;
pub mod images;
pub mod logs;
mod networks;
pub mod query;
pub mod registry;
pub mod reply;
pub mod room;
pub mod router;
pub mod stats;
pub mod system;
pub mod top;
pub mod trust;
pub mod view;
pub mod volumes;

use std::convert::Infallible;
use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};

use crate::engine::Engine;
use crate::policy::Door;
use crate::refusal::Refusal;

/// Connections at a time. Each one that follows a log or carries an attached terminal is one; beyond this a client waits in the backlog.
const CONNECTIONS_MAX: usize = 512;
/// How long a client may take to send its headers.
const HEADERS_WAIT: Duration = Duration::from_secs(10);
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
    let service = service_fn(move |request| {
        let engine = engine.clone();
        // A task of its own, begun before anybody looks whether the client is still there: one that leaves in the middle of a start must not leave
        // half a start behind, and one that leaves at once has asked all the same.
        let work = tokio::spawn(async move { router::answer(&engine, door, request).await });
        async move {
            Ok::<_, Infallible>(work.await.unwrap_or_else(|cause| {
                reply::refusal(&Refusal::failed("the daemon failed at this request", cause))
            }))
        }
    });
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WAIT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(cause) = conversation.await {
        tracing::debug!(%cause, "a conversation broke off");
    }
}
