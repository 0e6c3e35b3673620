//! Files of containers: `docker cp` both ways, export, diff.

use std::io::{self, Read};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderName, HeaderValue};
use kakoi_container::files::{Ask, Owner, PathStat};
use serde_json::json;
use tokio::sync::mpsc;

use super::images::{SocketReader, chunks};
use super::reply::{self, Reply};
use super::router::Asked;
use crate::clock;
use crate::files::{self, Chunks};
use crate::life::container::Container;
use crate::plan;
use crate::plan::user;
use crate::refusal::{Answer, Refusal};

/// Docker's header for what lies at a path.
const STAT_HEADER: HeaderName = HeaderName::from_static("x-docker-container-path-stat");
/// Chunks of an archive between two threads.
const CHUNKS_MAX: usize = 4;
/// Bytes of an archive that is unpacked from its compression.
const CHUNK_BYTES: usize = 64 << 10;

fn path(asked: &Asked) -> Answer<String> {
    asked
        .query
        .get("path")
        .map(str::to_owned)
        .ok_or_else(|| Refusal::bad("bad parameter: path cannot be empty"))
}

/// What is missing is named with the container, in Docker's words.
fn in_container(mut refusal: Refusal, id: &str) -> Refusal {
    if refusal.status == StatusCode::NOT_FOUND {
        refusal.message = format!("{} in container {id}", refusal.message);
    }
    refusal
}

fn with_stat(mut reply: Reply, stat: Option<PathStat>) -> Answer<Reply> {
    let stat = stat.ok_or_else(|| Refusal::broken("the container's files were not described"))?;
    let time = jiff::Timestamp::new(stat.mtime_s, i32::try_from(stat.mtime_ns).unwrap_or(0))
        .map_or_else(|_| kakoi_api::ZERO_TIME.to_owned(), clock::format);
    let document = json!({
        "name": stat.name,
        "size": stat.size,
        "mode": stat.mode,
        "mtime": time,
        "linkTarget": stat.link_target,
    });
    let value = HeaderValue::from_str(&STANDARD.encode(document.to_string()))
        .map_err(|cause| Refusal::failed("the file cannot be described", cause))?;
    reply.headers_mut().insert(STAT_HEADER, value);
    Ok(reply)
}

/// `HEAD /containers/{id}/archive`
pub async fn head(asked: &Asked, id: &str) -> Answer<Reply> {
    let container = asked.engine.containers.find(id)?;
    let ask = Ask::Stat { path: path(asked)? };
    let stat = files::ask_only(&asked.engine, &container, ask, None)
        .await
        .map_err(|refusal| in_container(refusal, id))?;
    with_stat(reply::empty(StatusCode::OK), stat)
}

/// `GET /containers/{id}/archive`
pub async fn get(asked: &Asked, id: &str) -> Answer<Reply> {
    let container = asked.engine.containers.find(id)?;
    let ask = Ask::Get { path: path(asked)? };
    let (sink, reply) = reply::stream("application/x-tar");
    let stat = files::ask(&asked.engine, &container, ask, None, sink)
        .await
        .map_err(|refusal| in_container(refusal, id))?;
    asked
        .engine
        .events
        .tell("container", "archive-path", &container.id, container.attributes());
    with_stat(reply, stat)
}

/// `PUT /containers/{id}/archive`
pub async fn put(asked: Asked, id: &str) -> Answer<Reply> {
    let container = asked.engine.containers.find(id)?;
    let owner = match asked.query.flag("copyUIDGID") {
        true => owner(&asked, &container)?,
        false => None,
    };
    let ask = Ask::Put {
        path: path(&asked)?,
        replaces_kinds: !asked.query.flag("noOverwriteDirNonDir"),
        owner,
    };
    let (engine, body) = (asked.engine, asked.request.into_body());
    let input = uncompressed(body).await;
    files::ask_only(&engine, &container, ask, Some(input))
        .await
        .map_err(|refusal| in_container(refusal, id))?;
    engine.events.tell(
        "container",
        "extract-to-dir",
        &container.id,
        container.attributes(),
    );
    Ok(reply::empty(StatusCode::OK))
}

/// Who the container's own process is, where that is said at all.
fn owner(asked: &Asked, container: &Container) -> Answer<Option<Owner>> {
    let wanted = container.shared().record.config.user.clone();
    if wanted.is_empty() {
        return Ok(None);
    }
    let plan = plan::read(&asked.engine.paths.state_dir(&container.id))?;
    let mut layers = vec![plan.state_dir.join("upper")];
    layers.extend(plan.rootfs.layers);
    let user = user::resolve(&wanted, &[], 0, &layers)?.identity;
    Ok(Some(Owner {
        uid: user.uid,
        gid: user.gid,
    }))
}

/// A client's archive, as a tar; one that came compressed is unpacked in a thread that may block.
pub(super) async fn uncompressed(body: Incoming) -> Chunks {
    let mut chunks = chunks(body);
    let first = chunks.recv().await;
    let is_plain = match &first {
        Some(Ok(bytes)) => !kakoi_image::is_compressed(bytes),
        _ => true,
    };
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    if is_plain {
        tokio::spawn(async move {
            let mut next = first;
            while let Some(chunk) = next {
                if sender.send(chunk).await.is_err() {
                    return;
                }
                next = chunks.recv().await;
            }
        });
        return receiver;
    }
    let held = first.and_then(Result::ok).unwrap_or_default();
    let mut reader = SocketReader { chunks, held };
    tokio::task::spawn_blocking(move || {
        let mut copy = || -> io::Result<()> {
            let mut unpacked = kakoi_image::decoded(&mut reader)?;
            let mut buffer = vec![0; CHUNK_BYTES];
            loop {
                let count = unpacked.read(&mut buffer)?;
                if count == 0
                    || sender
                        .blocking_send(Ok(Bytes::copy_from_slice(&buffer[..count])))
                        .is_err()
                {
                    return Ok(());
                }
            }
        };
        if let Err(cause) = copy() {
            sender.blocking_send(Err(cause)).ok();
        }
    });
    receiver
}

/// `GET /containers/{id}/export`
pub async fn export(asked: &Asked, id: &str) -> Answer<Reply> {
    let container = asked.engine.containers.find(id)?;
    let (sink, reply) = reply::stream("application/octet-stream");
    files::ask(&asked.engine, &container, Ask::Export, None, sink).await?;
    asked
        .engine
        .events
        .tell("container", "export", &container.id, container.attributes());
    Ok(reply)
}

/// `GET /containers/{id}/changes`
pub async fn changes(asked: &Asked, id: &str) -> Answer<Reply> {
    let container = asked.engine.containers.find(id)?;
    let (sink, reply) = reply::stream("application/json");
    files::ask(&asked.engine, &container, Ask::Changes, None, sink).await?;
    Ok(reply)
}
