//! The way to the daemon: HTTP/1.1 on its unix socket.
//!
//! Owns connections, request bodies, bounds on answers and the daemon's errors as values. Refuses to know what any answer means. Invariants: one
//! connection is used again for each request that does not take it over; no answer is read without a bound.

mod launch;
mod path;
mod stream;

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

pub use launch::{DETACH_COMMAND, Launch, LaunchError, detach_and_execute};
pub use path::Target;
pub use stream::{Hijacked, HijackedInput, HijackedOutput, JsonStream, next_chunk};

/// The longest JSON answer: a list of some ten thousand containers.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// The longest error answer; a policy's diagnostics are the longest of them.
const ERROR_BYTES_MAX: usize = 256 << 10;

/// A request's body.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What goes wrong between this program and the daemon.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket's name cannot be used.
    #[error("{host:?} is not a socket: write unix:///run/kakoi/kakoid.sock")]
    Host {
        /// What was given.
        host: String,
    },
    /// Nobody listens.
    #[error("no daemon is listening on {}: {remedy}", .socket.display())]
    NoDaemon {
        /// Where it was expected.
        socket: PathBuf,
        /// What to type.
        remedy: &'static str,
    },
    /// The socket is there and may not be used.
    #[error("permission denied on {}: become root, or join the group that owns the socket (usermod -aG kakoi $USER)", .socket.display())]
    Permission {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket cannot be connected to.
    #[error("connecting to {}", .socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A daemon could not be started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The daemon went away or broke the protocol.
    #[error("talking to the daemon ({request})")]
    Protocol {
        /// Method and target.
        request: String,
        /// Why.
        #[source]
        cause: hyper::Error,
    },
    /// A request could not be written down.
    #[error("building the request {request}")]
    Request {
        /// Method and target.
        request: String,
        /// Why.
        #[source]
        cause: hyper::http::Error,
    },
    /// A request's JSON could not be made.
    #[error("encoding a request")]
    Encode(#[source] serde_json::Error),
    /// An answer is broken or too long.
    #[error("reading the daemon's answer to {request} ({bytes_max} bytes at most)")]
    Answer {
        /// Method and target.
        request: String,
        /// The bound.
        bytes_max: usize,
        /// Why.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An answer is not the JSON that was expected.
    #[error("understanding the daemon's answer to {request}")]
    Json {
        /// Method and target.
        request: String,
        /// Why.
        #[source]
        cause: serde_json::Error,
    },
    /// The daemon does not hand over the connection.
    #[error("the daemon answered {status} where it should have handed over the connection ({request})")]
    NoUpgrade {
        /// Method and target.
        request: String,
        /// What it answered.
        status: u16,
    },
    /// The daemon refused or failed; the words are its own.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The daemon's words.
        message: String,
        /// Whose fault it is, where the daemon says so.
        kind: Option<String>,
    },
}

impl ClientError {
    /// The HTTP status, where the daemon answered with an error.
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether the daemon knows no such thing.
    pub const fn is_not_found(&self) -> bool {
        matches!(self.status(), Some(404))
    }
}

/// One daemon.
pub struct Client {
    socket: PathBuf,
    launch: Option<Launch>,
    idle: RefCell<Option<SendRequest<Body>>>,
}

impl Client {
    /// Names the daemon at a socket; `launch` says how to start one where nobody listens.
    pub const fn new(socket: PathBuf, launch: Option<Launch>) -> Self {
        Self {
            socket,
            launch,
            idle: RefCell::new(None),
        }
    }

    /// The folder of the owner's files; none where the daemon was named by its socket.
    pub fn config(&self) -> Option<&Path> {
        self.launch.as_ref().map(|launch| launch.config.as_path())
    }

    /// Asks for a JSON document.
    pub async fn get(&self, target: Target) -> Result<Value, ClientError> {
        self.json(Method::GET, target, None).await
    }

    /// Asks for a JSON document where a daemon runs and may be asked; starts none.
    pub async fn get_where_running(&self, target: Target) -> Result<Option<Value>, ClientError> {
        if UnixStream::connect(&self.socket).await.is_err() {
            return Ok(None);
        }
        self.get(target).await.map(Some)
    }

    /// Sends a JSON document, or nothing, and reads a JSON document; an empty answer reads as null.
    pub async fn post(&self, target: Target, body: Option<&Value>) -> Result<Value, ClientError> {
        self.json(Method::POST, target, body).await
    }

    /// Asks for a removal.
    pub async fn delete(&self, target: Target) -> Result<Value, ClientError> {
        self.json(Method::DELETE, target, None).await
    }

    /// Sends bytes as they are, and reads a JSON document.
    pub async fn post_bytes(&self, target: Target, bytes: Vec<u8>) -> Result<Value, ClientError> {
        let body = Full::new(Bytes::from(bytes)).map_err(|never| match never {});
        self.exchange(Method::POST, target, body.boxed_unsync(), false)
            .await
    }

    async fn json(&self, method: Method, target: Target, body: Option<&Value>) -> Result<Value, ClientError> {
        self.exchange(method, target, json_body(body)?, body.is_some())
            .await
    }

    async fn exchange(
        &self,
        method: Method,
        target: Target,
        body: Body,
        is_json: bool,
    ) -> Result<Value, ClientError> {
        let request = format!("{method} {}", target.as_str());
        let (answer, sender) = self.send(method, &target, body, is_json).await?;
        let bytes = collect(answer, ANSWER_BYTES_MAX, &request).await?;
        *self.idle.borrow_mut() = Some(sender);
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|cause| ClientError::Json { request, cause })
    }

    /// Sends a request and hands out the answer as it arrives, after its status was found to be good.
    pub async fn open(
        &self,
        method: Method,
        target: &Target,
        body: Body,
    ) -> Result<Response<Incoming>, ClientError> {
        self.send(method, target, body, false)
            .await
            .map(|(answer, _)| answer)
    }

    /// Asks for a stream of JSON documents.
    pub async fn stream(
        &self,
        method: Method,
        target: &Target,
        body: Body,
    ) -> Result<JsonStream, ClientError> {
        let request = format!("{method} {}", target.as_str());
        Ok(JsonStream::new(
            self.open(method, target, body).await?.into_body(),
            request,
        ))
    }

    /// Asks to take over the connection (`Upgrade: tcp`).
    pub async fn hijack(&self, target: &Target, body: Option<&Value>) -> Result<Hijacked, ClientError> {
        let words = format!("POST {}", target.as_str());
        let mut sender = self.connection().await?;
        let request = Request::post(target.as_str())
            .header(header::HOST, "kakoid")
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "tcp")
            .header(header::CONTENT_TYPE, "application/json")
            .body(json_body(body)?)
            .map_err(|cause| ClientError::Request {
                request: words.clone(),
                cause,
            })?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(|cause| ClientError::Protocol {
                request: words.clone(),
                cause,
            })?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = answer.status().as_u16();
            let answer = judge(answer, &words).await?;
            drop(answer);
            return Err(ClientError::NoUpgrade {
                request: words,
                status,
            });
        }
        let upgraded = hyper::upgrade::on(answer)
            .await
            .map_err(|cause| ClientError::Protocol {
                request: words.clone(),
                cause,
            })?;
        Hijacked::new(upgraded).ok_or(ClientError::NoUpgrade {
            request: words,
            status: 101,
        })
    }

    async fn send(
        &self,
        method: Method,
        target: &Target,
        body: Body,
        has_json: bool,
    ) -> Result<(Response<Incoming>, SendRequest<Body>), ClientError> {
        let words = format!("{method} {}", target.as_str());
        let mut request = Request::builder()
            .method(method)
            .uri(target.as_str())
            .header(header::HOST, "kakoid");
        if has_json {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(credentials) = target.registry_auth() {
            request = request.header(kakoi_api::registry::AUTH_HEADER, credentials);
        }
        let request = request.body(body).map_err(|cause| ClientError::Request {
            request: words.clone(),
            cause,
        })?;
        let mut sender = self.connection().await?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(|cause| ClientError::Protocol {
                request: words.clone(),
                cause,
            })?;
        Ok((judge(answer, &words).await?, sender))
    }

    /// Takes the idle connection where it is usable again, else makes one.
    async fn connection(&self) -> Result<SendRequest<Body>, ClientError> {
        let kept = self.idle.borrow_mut().take();
        if let Some(mut sender) = kept
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        let stream = self.connect().await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|cause| ClientError::Protocol {
                request: "handshake".to_owned(),
                cause,
            })?;
        tokio::spawn(async move {
            // A broken connection shows in the request that waits on it, which has the words to say so.
            connection.with_upgrades().await.ok()
        });
        Ok(sender)
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        let socket = &self.socket;
        let cause = match UnixStream::connect(socket).await {
            Ok(stream) => return Ok(stream),
            Err(cause) => cause,
        };
        match cause.kind() {
            io::ErrorKind::PermissionDenied => Err(ClientError::Permission {
                socket: socket.clone(),
            }),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => match &self.launch {
                Some(launch) if launch.is_permitted() => Ok(launch.start(socket).await?),
                Some(_) => Err(ClientError::NoDaemon {
                    socket: socket.clone(),
                    remedy: "start it as root (systemctl start kakoid, or sudo kakoid)",
                }),
                None => Err(ClientError::NoDaemon {
                    socket: socket.clone(),
                    remedy: "start kakoid there, or correct --host or KAKOI_HOST",
                }),
            },
            _ => Err(ClientError::Connect {
                socket: socket.clone(),
                cause,
            }),
        }
    }
}

/// Reads the socket's path out of `unix:///run/kakoi/kakoid.sock`.
pub fn socket_of(host: &str) -> Result<PathBuf, ClientError> {
    match host.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok(PathBuf::from(path)),
        _ => Err(ClientError::Host {
            host: host.to_owned(),
        }),
    }
}

/// No body.
pub fn empty_body() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A JSON document as a body; none where there is none.
pub fn json_body(body: Option<&Value>) -> Result<Body, ClientError> {
    match body {
        None => Ok(empty_body()),
        Some(value) => {
            let bytes = serde_json::to_vec(value).map_err(ClientError::Encode)?;
            Ok(Full::new(Bytes::from(bytes))
                .map_err(|never| match never {})
                .boxed_unsync())
        }
    }
}

/// Lets good answers pass and makes errors of the others. 304 is good: what was asked for is so already.
async fn judge(answer: Response<Incoming>, request: &str) -> Result<Response<Incoming>, ClientError> {
    let status = answer.status();
    if status.is_success() || status == StatusCode::NOT_MODIFIED {
        return Ok(answer);
    }
    let bytes = collect(answer, ERROR_BYTES_MAX, request).await?;
    let document: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    let words = document["message"].as_str().unwrap_or_default().trim();
    let message = if words.is_empty() {
        format!("the daemon answered {status} to {request} without a reason")
    } else {
        crate::text::printable(words)
    };
    let kind = document["kind"].as_str().map(str::to_owned);
    Err(ClientError::Refused {
        status: status.as_u16(),
        message,
        kind,
    })
}

async fn collect(answer: Response<Incoming>, bytes_max: usize, request: &str) -> Result<Bytes, ClientError> {
    match Limited::new(answer.into_body(), bytes_max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(cause) => Err(ClientError::Answer {
            request: request.to_owned(),
            bytes_max,
            cause,
        }),
    }
}
