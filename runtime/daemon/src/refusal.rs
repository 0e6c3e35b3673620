//! Answers that are not success.
//!
//! Owns [`Refusal`]: one HTTP status, one sentence for the client in Docker's words, and the chain of causes for the log. The client's
//! sentence carries no path of the host unless the client named it.

use std::error::Error;

use hyper::StatusCode;
use kakoi_container::frames::FailureKind;

/// Why a request was not carried out.
#[derive(Debug)]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// The sentence for the client.
    pub message: String,
    /// Why a program did not start, in the API's word; empty otherwise.
    pub kind: &'static str,
    /// Whether it is the client's mistake, whatever the status says: then the log hears nothing.
    pub is_mistake: bool,
    /// The cause, for the log.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

/// What a handler gives back.
pub type Answer<T> = Result<T, Refusal>;

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            kind: "",
            is_mistake: false,
            source: None,
        }
    }

    /// The same, with the kind of a failed start: what gives a command line its exit status without reading words.
    pub fn of_kind(mut self, kind: FailureKind) -> Self {
        self.kind = match kind {
            FailureKind::CommandNotFound => "command_not_found",
            FailureKind::CommandNotExecutable => "command_not_executable",
            FailureKind::Conflict | FailureKind::Confinement | FailureKind::Runtime => "",
        };
        self
    }

    /// The exit code of a program that did not start, where that is what happened.
    pub fn exit_code(&self) -> Option<i32> {
        match self.kind {
            "command_not_found" => Some(127),
            "command_not_executable" => Some(126),
            _ => None,
        }
    }

    /// 304: nothing to do.
    pub fn not_modified() -> Self {
        Self::new(StatusCode::NOT_MODIFIED, "")
    }

    /// 400: the request makes no sense.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 401: a registry wants other credentials.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, message)
    }

    /// 403: the owner, or the policy, does not allow it.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    /// 404: there is no such thing.
    pub fn missing(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// 409: it does not fit the state.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    /// 501: not built yet, or never to be.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, message)
    }

    /// 503: not now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// 500: the engine or the host failed; the cause goes to the log.
    pub fn failed(message: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            message: message.into(),
            kind: "",
            is_mistake: false,
            source: Some(source.into()),
        }
    }

    /// 500 for a mistake of the client's that dockerd calls its own; clients look for that status.
    pub fn mistaken(message: impl Into<String>) -> Self {
        Self {
            is_mistake: true,
            ..Self::broken(message)
        }
    }

    /// 500 without a cause.
    pub fn broken(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl Error for Refusal {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_deref()
            .map(|cause| cause as &(dyn Error + 'static))
    }
}

/// The chain of causes in one line.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        line.push_str(": ");
        line.push_str(&next.to_string());
        cause = next.source();
    }
    line
}
