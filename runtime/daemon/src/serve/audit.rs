//! The audit log over the API, and what of all requests goes into it.
//!
//! Every request that may change something does, however it ends, and every one that was refused. What only reads and is allowed does not: a
//! dashboard that looks once a second would push out everything else, and wear the flash.

use std::io::{self, BufRead as _, BufReader, Read as _};

use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, StatusCode};
use kakoi_api::audit::AuditVerdict;
use kakoi_trust::audit::{Decision, Head, LINE_BYTES_MAX, Verdict, Verifier};

use super::caller::Caller;
use super::reply::{self, Reply};
use super::router::Asked;
use crate::clock;
use crate::engine::Engine;
use crate::refusal::{Answer, Refusal};

/// What JSON Lines are called.
const LINES: &str = "application/x-ndjson";
/// Bytes of the log that are sent at a time.
const CHUNK_BYTES: usize = 32 << 10;

/// A request before it is answered.
pub struct Asking {
    what: String,
    is_change: bool,
}

impl Asking {
    /// What is asked for.
    pub fn of(request: &Request<Incoming>) -> Self {
        let (method, uri) = (request.method(), request.uri());
        let reads = [Method::GET, Method::HEAD, Method::OPTIONS];
        // Both are asked by every client about what it sees already, and neither changes a thing.
        let is_idle = ["/wait", "/resize"].iter().any(|end| uri.path().ends_with(end));
        Self {
            what: format!("{method} {uri}"),
            is_change: !reads.contains(method) && !is_idle,
        }
    }

    /// Writes down what was decided.
    pub fn note(self, engine: &Engine, caller: &Caller, answer: &Answer<Reply>) {
        let status = answer
            .as_ref()
            .map_or_else(|refusal| refusal.status, Reply::status);
        let verdict = verdict(status);
        if !self.is_change && verdict != Verdict::Refused {
            return;
        }
        engine.audit.note(&Decision {
            at: clock::now(),
            who: caller.who.clone(),
            from: caller.from().to_owned(),
            what: self.what,
            verdict,
            why: answer.as_ref().err().map(ToString::to_string).unwrap_or_default(),
        });
    }
}

fn verdict(status: StatusCode) -> Verdict {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS => Verdict::Refused,
        status if status.is_client_error() || status.is_server_error() => Verdict::Failed,
        _ => Verdict::Allowed,
    }
}

fn unreadable(cause: io::Error) -> Refusal {
    Refusal::failed("the audit log cannot be read", cause)
}

/// `GET /kakoi/v1/audit`: the log as it stands, the oldest line first.
pub async fn lines(asked: &Asked) -> Answer<Reply> {
    let files = asked.engine.audit.files().map_err(unreadable)?;
    let (sender, reply) = reply::stream(LINES);
    tokio::task::spawn_blocking(move || {
        for (file, bytes) in files {
            let mut rest = file.take(bytes);
            loop {
                let mut chunk = vec![0; CHUNK_BYTES];
                let chunk = match rest.read(&mut chunk) {
                    Ok(0) => break,
                    Ok(count) => {
                        chunk.truncate(count);
                        Ok(Bytes::from(chunk))
                    }
                    Err(cause) => Err(cause),
                };
                let is_last = chunk.is_err();
                if sender.blocking_send(chunk).is_err() || is_last {
                    return;
                }
            }
        }
    });
    Ok(reply)
}

/// `GET /kakoi/v1/audit/verify`, with `through=SEQ:CHAIN` for a head that was kept elsewhere.
pub async fn verify(asked: &Asked) -> Answer<Reply> {
    let through = asked.query.get("through").map(|text| {
        Head::parse(text).ok_or_else(|| {
            Refusal::bad(format!(
                "{text:?} is no head of an audit log: NUMBER:64 hex digits, as `kakoi audit verify` prints it"
            ))
        })
    });
    let through = through.transpose()?;
    let engine = asked.engine.clone();
    let verdict = tokio::task::spawn_blocking(move || examine(&engine, through)).await;
    let verdict = verdict.map_err(|cause| Refusal::failed("the audit log cannot be verified", cause))?;
    Ok(reply::ok(&verdict.map_err(unreadable)?))
}

fn examine(engine: &Engine, through: Option<Head>) -> io::Result<AuditVerdict> {
    let now = engine.audit.head();
    let mut verifier = Verifier::through(through.into_iter().chain([now]));
    let mut fault = None;
    'files: for (file, bytes) in engine.audit.files()? {
        let mut rest = BufReader::new(file.take(bytes));
        loop {
            let mut line = Vec::new();
            let most = LINE_BYTES_MAX as u64 + 2;
            if (&mut rest).take(most).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            if let Err(found) = verifier.take(&line) {
                fault = Some(found.to_string());
                break 'files;
            }
        }
    }
    let head = verifier.head().unwrap_or(Head::NONE);
    if fault.is_none() {
        fault = verifier.missing().map(|missing| match missing == now {
            true => format!("entry {} is not the one that this daemon wrote: the log was cut or made anew", now.seq),
            false => format!(
                "the log does not lead through entry {} with the chain that was given: it was cut or made anew since, or the entry is gone by age",
                missing.seq
            ),
        });
    }
    Ok(AuditVerdict {
        is_whole: fault.is_none(),
        fault: fault.unwrap_or_default(),
        first: i64::try_from(verifier.first()).unwrap_or(i64::MAX),
        last: i64::try_from(head.seq).unwrap_or(i64::MAX),
        head: head.to_string(),
    })
}
