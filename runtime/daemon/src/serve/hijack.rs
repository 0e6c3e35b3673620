//! Connections that stop being HTTP: after the head of an answer both directions belong to a handler.
//!
//! hyper gives a connection away on an `Upgrade` only, while Docker's oldest clients are answered `200 OK` and speak on. So an answer may carry who takes its
//! connection over ([`taken_over`]), and the conversation is taken apart before hyper has written a byte of it. Invariant: who takes over gets every byte that
//! came behind the request, and a client that only closes its own direction is not taken for one that left.

use std::fmt::Write as _;
use std::io;
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::reply::Reply;

/// A connection that was taken over.
pub struct Line {
    /// The connection.
    pub stream: UnixStream,
    /// What the client sent right behind its request.
    pub ahead: Bytes,
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;
type Carrier = Box<dyn FnOnce(Line) -> Work + Send>;

/// Who takes a connection over; an answer carries it among its extensions, which is why it can be cloned.
#[derive(Clone)]
struct Heir(Arc<Mutex<Option<Carrier>>>);

/// Makes an answer after whose head `carrier` has the connection.
pub fn taken_over<W>(mut reply: Reply, carrier: impl FnOnce(Line) -> W + Send + 'static) -> Reply
where
    W: Future<Output = ()> + Send + 'static,
{
    let carrier: Carrier = Box::new(|line| Box::pin(carrier(line)));
    reply
        .extensions_mut()
        .insert(Heir(Arc::new(Mutex::new(Some(carrier)))));
    reply
}

/// The head of an answer, and who takes over after it.
pub struct Takeover {
    head: String,
    carrier: Carrier,
}

impl Takeover {
    /// Looks whether an answer is such a one.
    pub fn of(reply: &Reply) -> Option<Self> {
        let heir = reply.extensions().get::<Heir>()?;
        let carrier = heir.0.lock().expect("no panic while locked").take()?;
        Some(Self {
            head: head(reply),
            carrier,
        })
    }

    /// Writes the head and hands the connection over; ends with the handler, or with the client, without whom a silent app would keep the streams.
    pub async fn run(self, mut line: Line, gone: &Departure) {
        let work = async move {
            if line.stream.write_all(self.head.as_bytes()).await.is_ok() {
                (self.carrier)(line).await;
            }
        };
        tokio::select! {
            () = work => {}
            () = gone.wait() => {}
        }
    }
}

/// A head as dockerd writes it: some clients look for its very words, upper case included.
fn head(reply: &Reply) -> String {
    let reason = match reply.status() {
        StatusCode::SWITCHING_PROTOCOLS => "UPGRADED",
        status => status.canonical_reason().unwrap_or_default(),
    };
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", reply.status().as_u16());
    for (name, value) in reply.headers() {
        let value = value.to_str().unwrap_or_default();
        write!(head, "{}: {value}\r\n", title_case(name.as_str())).expect("writing to memory");
    }
    head + "\r\n"
}

fn title_case(name: &str) -> String {
    let mut is_first = true;
    let cased = name.chars().map(|letter| {
        let cased = match is_first {
            true => letter.to_ascii_uppercase(),
            false => letter,
        };
        is_first = letter == '-';
        cased
    });
    cased.collect()
}

/// The moment in which the other side of a connection closes all of it, and not just its own direction.
pub struct Departure(pipe::Sender);

impl Departure {
    /// Watches a connection.
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        // A descriptor of its own, and one that is registered for writing alone: what is registered for reading hears of half a close too and cannot
        // tell which. It is no pipe, but it is watched like one.
        let fd = stream.as_fd().try_clone_to_owned()?;
        pipe::Sender::from_owned_fd_unchecked(fd).map(Self)
    }

    /// Waits for it.
    pub async fn wait(&self) {
        // EPOLLHUP is reported unasked (epoll_ctl(2)), and is the only thing that makes such a descriptor readable. It fails when the event loop ends.
        self.0.ready(Interest::READABLE).await.ok();
    }
}

/// Whether the client of a request has left, as the request carries it.
#[derive(Clone, Debug)]
pub struct Left(watch::Receiver<bool>);

impl Left {
    /// Lets a request carry it.
    pub fn tell<B>(request: &mut Request<B>, left: watch::Receiver<bool>) {
        request.extensions_mut().insert(Self(left));
    }

    /// As a request carries it.
    pub fn of<B>(request: &Request<B>) -> Option<Self> {
        request.extensions().get().cloned()
    }

    /// Waits until it has; a conversation that is over counts.
    pub async fn wait(mut self) {
        self.0.wait_for(|has_left| *has_left).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::serve::reply;

    #[test]
    fn heads_are_dockers() {
        let mut answer = reply::empty(StatusCode::SWITCHING_PROTOCOLS);
        let headers = answer.headers_mut();
        for (name, value) in [("content-type", "a/b"), ("api-version", "1.51")] {
            let name = hyper::header::HeaderName::from_static(name);
            headers.insert(name, hyper::header::HeaderValue::from_static(value));
        }
        assert_eq!(
            head(&answer),
            "HTTP/1.1 101 UPGRADED\r\nContent-Type: a/b\r\nApi-Version: 1.51\r\n\r\n"
        );
        assert!(head(&reply::empty(StatusCode::OK)).starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(Takeover::of(&answer).is_none());
    }

    #[tokio::test]
    async fn half_a_close_is_no_departure() {
        let (ours, mut theirs) = UnixStream::pair().expect("socketpair works");
        let gone = Departure::of(&ours).expect("watched");
        theirs.shutdown().await.expect("half closed");
        // It is known to have arrived when it can be read.
        ours.readable().await.expect("readable");
        assert_eq!(ours.try_read(&mut [0; 1]).expect("an end"), 0);
        let waiting = gone.wait().now_or_never();
        assert!(waiting.is_none(), "half a close was taken for a whole one");
        drop(theirs);
        gone.wait().await;
    }

    #[tokio::test]
    async fn who_takes_over_gets_the_line() {
        let (ours, mut theirs) = UnixStream::pair().expect("socketpair works");
        let answer = taken_over(reply::empty(StatusCode::OK), |mut line: Line| async move {
            line.stream.write_all(&line.ahead).await.expect("written");
        });
        let takeover = Takeover::of(&answer).expect("it has an heir");
        assert!(Takeover::of(&answer).is_none(), "taken over twice");
        let ahead = Bytes::from_static(b"typed");
        let gone = Departure::of(&ours).expect("watched");
        takeover.run(Line { stream: ours, ahead }, &gone).await;
        // It keeps the connection open, as long as the conversation has it.
        drop(gone);
        let mut said = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut theirs, &mut said)
            .await
            .expect("read");
        assert_eq!(said, "HTTP/1.1 200 OK\r\n\r\ntyped");
    }
}
