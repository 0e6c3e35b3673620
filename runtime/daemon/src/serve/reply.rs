//! Answers: JSON, nothing, errors, streams.

use std::io;

use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use kakoi_api::ErrorBody;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::refusal::{Refusal, chain};

/// A body of any kind.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;
/// An answer.
pub type Reply = Response<Body>;
/// The end at which a streamed body is written.
pub type Sender = mpsc::Sender<Result<Bytes, io::Error>>;

/// Chunks of a streamed body that wait for the client.
const CHUNKS_MAX: usize = 16;

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn with_type(status: StatusCode, kind: &'static str, body: Body) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}

/// JSON.
pub fn json(status: StatusCode, value: &impl Serialize) -> Reply {
    let mut bytes = serde_json::to_vec(value).expect("wire types are plain data");
    bytes.push(b'\n');
    with_type(status, "application/json", full(bytes.into()))
}

/// 200 and JSON.
pub fn ok(value: &impl Serialize) -> Reply {
    json(StatusCode::OK, value)
}

/// 204.
pub fn nothing() -> Reply {
    empty(StatusCode::NO_CONTENT)
}

/// A status without a body.
pub fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(full(Bytes::new()));
    *reply.status_mut() = status;
    reply
}

/// Plain text.
pub fn text(status: StatusCode, text: &'static str) -> Reply {
    with_type(
        status,
        "text/plain; charset=utf-8",
        full(Bytes::from_static(text.as_bytes())),
    )
}

/// 200 and a body that comes bit by bit; the headers go out at once.
pub fn stream(kind: &'static str) -> (Sender, Reply) {
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    let chunks = stream::unfold(receiver, |mut receiver| async move {
        let chunk: Result<Bytes, io::Error> = receiver.recv().await?;
        Some((chunk.map(Frame::data), receiver))
    });
    (
        sender,
        with_type(StatusCode::OK, kind, StreamBody::new(chunks).boxed_unsync()),
    )
}

/// Sends one line of JSON; false when the client is gone.
pub async fn send_line(sender: &Sender, value: &impl Serialize) -> bool {
    let mut line = serde_json::to_vec(value).expect("wire types are plain data");
    line.extend_from_slice(b"\r\n");
    sender.send(Ok(line.into())).await.is_ok()
}

/// An error; what the engine or the host is to blame for goes to the log.
pub fn refusal(refusal: &Refusal) -> Reply {
    let is_ours = refusal.status.is_server_error() && refusal.status != StatusCode::NOT_IMPLEMENTED;
    if is_ours && !refusal.is_mistake {
        tracing::error!(
            status = refusal.status.as_u16(),
            error = chain(refusal),
            "a request failed"
        );
    }
    if refusal.status == StatusCode::NOT_MODIFIED {
        return empty(refusal.status);
    }
    json(
        refusal.status,
        &ErrorBody {
            message: refusal.message.clone(),
            kind: refusal.kind.to_owned(),
        },
    )
}
