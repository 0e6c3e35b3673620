//! Images: a thin layer over the store. Every call blocks, so every call has a thread; archives flow through without being held.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderValue;
use kakoi_api::ErrorBody;
use kakoi_api::container::GraphDriver;
use kakoi_api::image::{
    HistoryEntry, ImageDeleted, ImageInspect, ImageMetadata, ImageSummary, ImagesPruned, NOTE_HEADER,
    Progress as Line, ProgressDetail, RootFs,
};
use kakoi_image::{
    ArchiveFormat, Details, Digest, ImportError, ImportOptions, LoadError, Loaded, Progress, RemoveError,
    Removed, SaveError, Summary, Use, client_message,
};
use tokio::sync::mpsc;

use super::containers::reclaimed;
use super::reply::{self, Reply};
use super::router::Asked;
use super::view;
use super::{containers, registry, room};
use crate::engine::Engine;
use crate::filters::Filters;
use crate::life::create::image_refusal;
use crate::plan::merge;
use crate::policy::Door;
use crate::refusal::{Answer, Refusal, chain};

/// Chunks of an archive between the socket and the store.
const CHUNKS_MAX: usize = 8;
/// Bytes between two lines of progress.
const PROGRESS_BYTES: u64 = 1 << 20;

/// The containers of an image.
fn containers_of(engine: &Engine, id: &str) -> impl Iterator<Item = Use> {
    engine.containers.all().into_iter().filter_map(move |container| {
        let shared = container.shared();
        (shared.record.image_id == id).then(|| Use {
            container: container.id.clone(),
            running: shared.phase.is_up(),
        })
    })
}

/// Who uses an image: containers first, and apps, whose versions may be without one.
pub fn uses(engine: &Engine, image: &Digest) -> Vec<Use> {
    let id = image.to_string();
    let apps = engine.apps.using_image(&id).into_iter();
    let of_apps = apps.map(|(name, running)| Use {
        container: format!("app {name}"),
        running,
    });
    containers_of(engine, &id).chain(of_apps).collect()
}

/// Gives up images that were removed by force while a stopped container used them, once that container is gone.
pub async fn release(engine: &Arc<Engine>) {
    let worked = engine.clone();
    let released = tokio::task::spawn_blocking(move || worked.images.release(&|id| uses(&worked, id))).await;
    match released {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(
            error = chain(&error),
            "ignoring images that could not be given up"
        ),
        Err(error) => tracing::error!(error = chain(&error), "giving up images failed"),
    }
}

pub async fn blocking<T: Send + 'static>(
    engine: &Arc<Engine>,
    work: impl FnOnce(&Engine) -> Answer<T> + Send + 'static,
) -> Answer<T> {
    let engine = engine.clone();
    tokio::task::spawn_blocking(move || work(&engine))
        .await
        .map_err(|cause| Refusal::failed("the image store failed", cause))?
}

fn summary(image: Summary, containers: i64) -> ImageSummary {
    let bytes = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    ImageSummary {
        id: image.id.to_string(),
        parent_id: String::new(),
        repo_tags: image.repo_tags,
        repo_digests: image.repo_digests,
        created: image.created_seconds,
        size: bytes(image.size),
        shared_size: bytes(image.shared_size),
        labels: image.labels,
        containers,
    }
}

/// `GET /images/json`
pub async fn list(asked: &Asked) -> Answer<Reply> {
    let filters = Filters::parse(
        asked.query.get("filters"),
        &[
            "before",
            "dangling",
            "label",
            "label!",
            "reference",
            "since",
            "until",
        ],
    )?;
    let rows = blocking(&asked.engine, move |engine| select(engine, &filters)).await?;
    Ok(reply::ok(&rows))
}

/// Rows that fit.
pub fn select(engine: &Engine, filters: &Filters) -> Answer<Vec<ImageSummary>> {
    let dangling = filters.flag("dangling")?;
    let created = |key: &str| -> Answer<Option<i64>> {
        let found = filters
            .values(key)
            .first()
            .map(|name| engine.images.inspect(name));
        found
            .transpose()
            .map_err(image_refusal)
            .map(|details| details.map(|details| details.summary.created_seconds))
    };
    let (before, since) = (created("before")?, created("since")?);
    let until = containers::until(filters)?;
    let rows = engine.images.list().map_err(image_refusal)?;
    Ok(rows
        .into_iter()
        .filter(|image| {
            dangling.is_none_or(|wanted| image.repo_tags.is_empty() == wanted)
                && filters.labels(&image.labels)
                && filters.any("reference", |pattern| {
                    image.repo_tags.iter().any(|name| reference_fits(name, pattern))
                })
                && before.is_none_or(|time| image.created_seconds < time)
                && since.is_none_or(|time| image.created_seconds > time)
                && until
                    .as_ref()
                    .is_none_or(|time| image.created.as_ref().is_some_and(|created| created < time))
        })
        .map(|mut image| {
            // As in Docker, only names that fit are shown of an image that was looked for by one.
            image
                .repo_tags
                .retain(|name| filters.any("reference", |pattern| reference_fits(name, pattern)));
            let count = containers_of(engine, &image.id.to_string()).count();
            summary(image, i64::try_from(count).unwrap_or(i64::MAX))
        })
        .collect())
}

/// A name with or without its tag, `*` standing for anything but `/`.
fn reference_fits(name: &str, pattern: &str) -> bool {
    let (repository, tag) = name.rsplit_once(':').unwrap_or((name, ""));
    let (wanted, wanted_tag) = match pattern.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (pattern, None),
    };
    glob(repository, wanted) && wanted_tag.is_none_or(|wanted| glob(tag, wanted))
}

fn glob(text: &str, pattern: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else {
        return text == pattern;
    };
    let Some(rest) = text.strip_prefix(before) else {
        return false;
    };
    (0..=rest.len())
        .filter(|at| rest.is_char_boundary(*at))
        .take_while(|at| !rest[..*at].contains('/'))
        .any(|at| glob(&rest[at..], after))
}

/// `GET /images/{name}/json`
pub async fn inspect(asked: &Asked, name: &str) -> Answer<Reply> {
    let name = name.to_owned();
    let details = blocking(&asked.engine, move |engine| {
        engine.images.inspect(&name).map_err(image_refusal)
    })
    .await?;
    let searched = details.clone();
    let parent = blocking(&asked.engine, move |engine| Ok(parent_of(engine, &searched))).await?;
    Ok(reply::ok(&ImageInspect {
        parent,
        ..inspect_view(&asked.engine, details)
    }))
}

/// The image that one was committed on: one layer less, the same history but for its last step. What came from a registry has no parent, as in Docker.
fn parent_of(engine: &Engine, details: &Details) -> String {
    let own = &details.document;
    let (Some((_, layers)), Some((_, history))) =
        (own.rootfs.diff_ids.split_last(), own.history.split_last())
    else {
        return String::new();
    };
    if layers.is_empty() || !details.summary.repo_digests.is_empty() {
        return String::new();
    }
    let all = engine.images.list().unwrap_or_default().into_iter();
    let mut others = all.filter_map(|row| engine.images.inspect(&row.id.to_string()).ok());
    let parent =
        others.find(|other| other.document.rootfs.diff_ids == layers && other.document.history == history);
    parent.map_or_else(String::new, |other| other.summary.id.to_string())
}

fn inspect_view(engine: &Engine, details: Details) -> ImageInspect {
    let document = details.document;
    let summary = details.summary;
    ImageInspect {
        id: summary.id.to_string(),
        repo_tags: summary.repo_tags,
        repo_digests: summary.repo_digests,
        comment: document.comment,
        created: summary.created.unwrap_or_default(),
        docker_version: document.docker_version,
        author: document.author,
        config: merge::to_wire(&document.config),
        architecture: document.architecture,
        variant: document.variant,
        os: if document.os.is_empty() {
            "linux".into()
        } else {
            document.os
        },
        size: i64::try_from(summary.size).unwrap_or(i64::MAX),
        graph_driver: GraphDriver {
            data: BTreeMap::new(),
            name: view::driver(engine).into(),
        },
        root_fs: RootFs {
            kind: "layers".into(),
            layers: document.rootfs.diff_ids.iter().map(ToString::to_string).collect(),
        },
        metadata: ImageMetadata {
            last_tag_time: summary.loaded,
        },
        ..ImageInspect::default()
    }
}

/// `GET /images/{name}/history`
pub async fn history(asked: &Asked, name: &str) -> Answer<Reply> {
    let name = name.to_owned();
    let steps = blocking(&asked.engine, move |engine| {
        engine.images.history(&name).map_err(image_refusal)
    })
    .await?;
    let rows: Vec<HistoryEntry> = steps
        .into_iter()
        .map(|step| HistoryEntry {
            id: step.id.map_or_else(|| "<missing>".into(), |id| id.to_string()),
            created: step.created_seconds,
            created_by: step.created_by,
            tags: (!step.tags.is_empty()).then_some(step.tags),
            size: i64::try_from(step.size).unwrap_or(i64::MAX),
            comment: step.comment,
        })
        .collect();
    Ok(reply::ok(&rows))
}

/// What a client is told of a removal that failed.
pub fn remove_refusal(error: RemoveError) -> Refusal {
    match error {
        conflict if conflict.is_conflict() => Refusal::conflict(conflict.to_string()),
        RemoveError::Store(error) => image_refusal(error),
        other => Refusal::bad(client_message(&other)),
    }
}

pub fn tell(engine: &Engine, action: &str, id: &str, name: &str) {
    engine.events.tell(
        "image",
        action,
        id,
        BTreeMap::from([("name".into(), name.into())]),
    );
}

/// `POST /images/{name}/tag`
pub async fn tag(asked: &Asked, name: &str) -> Answer<Reply> {
    let repository = asked
        .query
        .get("repo")
        .ok_or_else(|| Refusal::bad("a repository is needed (repo=)"))?;
    let target = match asked.query.get("tag") {
        Some(tag) => format!("{repository}:{tag}"),
        None => repository.to_owned(),
    };
    let name = name.to_owned();
    let (id, target) = blocking(&asked.engine, move |engine| {
        let target = engine.images.tag(&name, &target).map_err(remove_refusal)?;
        let id = engine.images.inspect(&name).map_err(image_refusal)?.summary.id;
        Ok((id.to_string(), target.familiar()))
    })
    .await?;
    tell(&asked.engine, "tag", &id, &target);
    Ok(reply::empty(StatusCode::CREATED))
}

/// Tells of what was removed.
pub fn deleted(engine: &Engine, removed: Vec<Removed>) -> Vec<ImageDeleted> {
    removed
        .into_iter()
        .map(|one| match one {
            Removed::Untagged(name) => {
                tell(engine, "untag", &name, &name);
                ImageDeleted {
                    untagged: name,
                    deleted: String::new(),
                }
            }
            Removed::Deleted(id) => {
                tell(engine, "delete", &id.to_string(), &id.to_string());
                ImageDeleted {
                    untagged: String::new(),
                    deleted: id.to_string(),
                }
            }
        })
        .collect()
}

/// `DELETE /images/{name}`
pub async fn delete(asked: &Asked, name: &str) -> Answer<Reply> {
    let force = asked.query.flag("force");
    let name = name.to_owned();
    let _turn = asked.engine.image_turn.write().await;
    let removed = blocking(&asked.engine, move |engine| {
        engine
            .images
            .remove(&name, force, &|id| uses(engine, id))
            .map_err(remove_refusal)
    })
    .await?;
    Ok(reply::ok(&deleted(&asked.engine, removed)))
}

/// `POST /images/prune`: nameless ones, or, with `dangling=false`, every one that nothing uses.
pub async fn prune(asked: &Asked) -> Answer<Reply> {
    let filters = Filters::parse(
        asked.query.get("filters"),
        &["dangling", "label", "label!", "until"],
    )?;
    let all = filters.flag("dangling")? == Some(false);
    let _turn = asked.engine.image_turn.write().await;
    let pruned = blocking(&asked.engine, move |engine| {
        let fitting: Vec<String> = select(engine, &without_dangling(&filters)?)?
            .into_iter()
            .map(|row| row.id)
            .collect();
        let wanted = |id: &Digest| fitting.contains(&id.to_string());
        let uses = |id: &Digest| uses(engine, id);
        let pruned = match without_dangling(&filters)? == Filters::default() {
            true => engine.images.prune(all, &uses),
            false => engine.images.prune_where(all, &wanted, &uses),
        };
        pruned.map_err(remove_refusal)
    })
    .await?;
    let rows = deleted(&asked.engine, pruned.removed);
    let bytes = i64::try_from(pruned.reclaimed_bytes).unwrap_or(i64::MAX);
    asked.engine.events.tell("image", "prune", "", reclaimed(bytes));
    Ok(reply::ok(&ImagesPruned {
        images_deleted: (!rows.is_empty()).then_some(rows),
        space_reclaimed: bytes,
    }))
}

/// `dangling` means here which images go, not which are listed.
fn without_dangling(filters: &Filters) -> Answer<Filters> {
    let mut filters = filters.clone();
    filters.drop_key("dangling");
    Ok(filters)
}

/// Reads an archive from the socket, in a thread that may block.
pub struct SocketReader {
    /// What comes.
    pub chunks: mpsc::Receiver<io::Result<Bytes>>,
    /// What came and was not read yet.
    pub held: Bytes,
}

impl Read for SocketReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.held.is_empty() {
            match self.chunks.blocking_recv() {
                None => return Ok(0),
                Some(Ok(chunk)) => self.held = chunk,
                Some(Err(cause)) => return Err(cause),
            }
        }
        let count = buffer.len().min(self.held.len());
        buffer[..count].copy_from_slice(&self.held.split_to(count));
        Ok(count)
    }
}

/// The most bytes that are read in vain, so that a client which only reads after it has written hears why its archive was refused.
const DRAIN_BYTES_MAX: usize = 1 << 30;

/// Reads on without keeping anything. Closing at once would break the client's pipe before it sees the answer.
async fn drain(mut body: Incoming) {
    let mut left = DRAIN_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        let Some(rest) = left.checked_sub(bytes) else {
            return;
        };
        left = rest;
    }
}

/// A request's body, for a thread that may block.
pub fn reader(body: Incoming) -> SocketReader {
    SocketReader {
        chunks: chunks(body),
        held: Bytes::new(),
    }
}

/// A request's body, bit by bit; what nobody takes any more is read in vain.
pub fn chunks(mut body: Incoming) -> mpsc::Receiver<io::Result<Bytes>> {
    let (sender, chunks) = mpsc::channel(CHUNKS_MAX);
    tokio::spawn(async move {
        while let Some(frame) = body.frame().await {
            let chunk = match frame {
                Ok(frame) => match frame.into_data() {
                    Ok(data) => Ok(data),
                    Err(_) => continue,
                },
                Err(cause) => {
                    let said = format!("the client broke off: {cause}");
                    Err(io::Error::new(io::ErrorKind::UnexpectedEof, said))
                }
            };
            let is_last = chunk.is_err();
            if sender.send(chunk).await.is_err() {
                return drain(body).await;
            }
            if is_last {
                return;
            }
        }
    });
    chunks
}

/// What a long operation says while it works.
type Said = Result<Line, Refusal>;

/// Takes a line of progress, from any thread; answers whether somebody is there to read it.
pub type Say<'a> = &'a (dyn Fn(Line) -> bool + Sync);

/// Runs a long operation. What fails before it has said anything is an error; after that it is a line.
pub fn long(
    engine: &Arc<Engine>,
    work: impl FnOnce(&Arc<Engine>, Say<'_>) -> Answer<Vec<Line>> + Send + 'static,
) -> impl Future<Output = Answer<Reply>> + Send {
    let (said, mut lines) = mpsc::channel::<Said>(CHUNKS_MAX);
    let engine = engine.clone();
    tokio::task::spawn_blocking(move || {
        // A client that is gone is noticed by the archive that breaks off, and by whoever asks whether it is still there.
        let say = |line: Line| said.blocking_send(Ok(line)).is_ok();
        match work(&engine, &say) {
            Ok(last) => drop(last.into_iter().all(say)),
            Err(refusal) => drop(said.blocking_send(Err(refusal))),
        }
        kakoi_sys::system::give_back_memory();
    });
    async move {
        let first = match lines.recv().await {
            None => return Ok(reply::empty(StatusCode::OK)),
            Some(Err(refusal)) => return Err(refusal),
            Some(Ok(line)) => line,
        };
        let (sender, reply) = reply::stream("application/json");
        tokio::spawn(async move {
            let mut next = Some(Ok(first));
            while let Some(said) = next {
                let line = said.unwrap_or_else(error_line);
                if !reply::send_line(&sender, &line).await {
                    return;
                }
                next = lines.recv().await;
            }
        });
        Ok(reply)
    }
}

fn error_line(refusal: Refusal) -> Line {
    tracing::warn!(error = chain(&refusal), "a long operation failed");
    Line {
        error_detail: Some(ErrorBody {
            message: refusal.message.clone(),
            ..ErrorBody::default()
        }),
        error: refusal.message,
        ..Line::default()
    }
}

/// Passes on progress, a line for each layer and each megabyte.
fn progress<'a>(quiet: bool, say: Say<'a>) -> impl FnMut(Progress) + 'a {
    let mut told = 0;
    move |progress| {
        if quiet {
            return;
        }
        let line = match progress {
            Progress::Read { bytes } if bytes >= told + PROGRESS_BYTES => {
                told = bytes;
                Line {
                    status: "Reading".into(),
                    progress_detail: Some(ProgressDetail {
                        current: i64::try_from(bytes).unwrap_or(i64::MAX),
                        total: 0,
                    }),
                    ..Line::default()
                }
            }
            Progress::Read { .. } => return,
            Progress::Layer { diff_id, present, .. } => Line {
                status: if present {
                    "Already exists"
                } else {
                    "Loading layer"
                }
                .into(),
                id: diff_id.hex().chars().take(12).collect(),
                ..Line::default()
            },
        };
        say(line);
    }
}

pub fn load_refusal(error: LoadError) -> Refusal {
    let said = client_message(&error);
    if error.is_disk_full() {
        return Refusal::failed(
            format!("{said}; remove images (kakoi image prune) or containers to make room"),
            error,
        );
    }
    match error {
        LoadError::Store(_) => Refusal::failed(said, error),
        _ => Refusal {
            source: Some(Box::new(error)),
            ..Refusal::bad(said)
        },
    }
}

fn loaded_line(engine: &Engine, image: &Loaded) -> Vec<Line> {
    let stream = |text: String| Line {
        stream: text,
        ..Line::default()
    };
    let id = image.id.to_string();
    if image.names.is_empty() {
        tell(engine, "load", &id, &id);
        return vec![stream(format!("Loaded image ID: {id}\n"))];
    }
    image
        .names
        .iter()
        .map(|name| {
            tell(engine, "load", &id, name);
            stream(format!("Loaded image: {name}\n"))
        })
        .collect()
}

/// `POST /images/load`
pub async fn load(asked: Asked) -> Answer<Reply> {
    let quiet = asked.query.flag("quiet");
    room::make(&asked.engine).await?;
    let length = asked.request.headers().get(hyper::header::CONTENT_LENGTH);
    if let Some(needed) = length.and_then(|text| text.to_str().ok()?.parse().ok()) {
        let room = asked.engine.images.check_room(needed).map_err(image_refusal)?;
        room.map_err(|error| Refusal::failed(error.to_string(), error))?;
    }
    let door = asked.door;
    let archive = reader(asked.request.into_body());
    long(&asked.engine, move |engine, say| {
        let loaded = engine
            .images
            .load(archive, &mut progress(quiet, say))
            .map_err(load_refusal);
        let loaded = match loaded {
            // Docker's clients look for it in the stream, which theirs has always begun.
            Err(refusal) if door == Door::Docker => return Ok(vec![error_line(refusal)]),
            loaded => loaded?,
        };
        Ok(loaded
            .iter()
            .flat_map(|image| loaded_line(engine, image))
            .collect())
    })
    .await
}

/// `POST /images/create`: importing a root file system, or pulling.
pub async fn create(asked: Asked) -> Answer<Reply> {
    let query = &asked.query;
    match query.get("fromSrc") {
        Some("-") => {}
        Some(_) => {
            return Err(Refusal::unsupported(
                "importing from an address is not supported; give the archive itself",
            ));
        }
        None => return registry::pull(asked).await,
    }
    room::make(&asked.engine).await?;
    let reference = query.get("repo").map(|repository| match query.get("tag") {
        Some(tag) => format!("{repository}:{tag}"),
        None => repository.to_owned(),
    });
    let options = ImportOptions {
        reference,
        message: query.get("message").unwrap_or_default().to_owned(),
        changes: query.all("changes").into_iter().map(str::to_owned).collect(),
        architecture: query
            .get("platform")
            .and_then(|platform| platform.split('/').nth(1))
            .map(str::to_owned),
    };
    let archive = reader(asked.request.into_body());
    long(&asked.engine, move |engine, say| {
        let image = engine
            .images
            .import(archive, &options, &mut progress(true, say))
            .map_err(import_refusal)?;
        let id = image.id.to_string();
        tell(engine, "import", &id, image.names.first().unwrap_or(&id));
        Ok(vec![Line {
            status: id,
            ..Line::default()
        }])
    })
    .await
}

fn import_refusal(error: ImportError) -> Refusal {
    match error {
        ImportError::Load(error) => load_refusal(error),
        other => Refusal::bad(client_message(&other)),
    }
}

/// Writes an archive to the socket, from a thread that may block.
struct ToSocket(reply::Sender);

impl Write for ToSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the client is gone");
        self.0
            .blocking_send(Ok(Bytes::copy_from_slice(bytes)))
            .map_err(gone)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `GET /images/get` and `GET /images/{name}/get`
pub fn save(asked: &Asked, name: Option<String>) -> Answer<Reply> {
    let names: Vec<String> = match name {
        Some(name) => vec![name],
        None => asked
            .query
            .all("names")
            .into_iter()
            .flat_map(|list| list.split(','))
            .map(str::to_owned)
            .collect(),
    };
    if names.is_empty() {
        return Err(Refusal::bad("no image to save"));
    }
    // What does not exist is said while there still is a status to say it with.
    for name in &names {
        asked.engine.images.resolve(name).map_err(image_refusal)?;
    }
    let format = match asked.query.get("format") {
        None | Some("docker-archive") => ArchiveFormat::Docker,
        Some("oci-archive") => ArchiveFormat::Oci,
        Some(other) => {
            return Err(Refusal::bad(format!(
                "unknown archive format {other:?}; use docker-archive or oci-archive"
            )));
        }
    };
    let (sender, mut reply) = reply::stream("application/x-tar");
    if let Some(note) = resealed_note(&asked.engine, &names)? {
        reply.headers_mut().insert(NOTE_HEADER, note);
    }
    let engine = asked.engine.clone();
    tokio::task::spawn_blocking(move || {
        let mut out = io::BufWriter::with_capacity(64 << 10, ToSocket(sender.clone()));
        let saved = engine
            .images
            .save(&names, format, &mut out)
            .and_then(|()| out.flush().map_err(SaveError::Write));
        if let Err(error) = saved {
            tracing::warn!(error = chain(&error), "saving broke off");
            let said = client_message(&error);
            // The answer is cut off, so that the client sees that it is not whole.
            sender.blocking_send(Err(io::Error::other(said))).ok();
        }
        kakoi_sys::system::give_back_memory();
    });
    Ok(reply)
}

/// What a person should know of an archive that is on its way: signatures do not go along.
fn resealed_note(engine: &Engine, names: &[String]) -> Answer<Option<HeaderValue>> {
    let resealed = engine.images.resealed_by_save(names).map_err(image_refusal)?;
    let Some((name, was)) = resealed.first() else {
        return Ok(None);
    };
    let others = match resealed.len() {
        1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    let note = format!(
        "{name}{others}: layers are saved unpacked, so the archive's manifest has another digest than {was}, which signatures are of: they do not go along"
    );
    Ok(HeaderValue::from_str(&note).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_fit_patterns() {
        for (name, pattern) in [
            ("alpine:3", "alpine"),
            ("alpine:3", "alp*"),
            ("alpine:3", "*:3"),
            ("ghcr.io/a/b:1", "ghcr.io/*/b"),
            ("localhost:5000/a:1", "localhost:5000/a"),
        ] {
            assert!(reference_fits(name, pattern), "{name} {pattern}");
        }
        for (name, pattern) in [
            ("alpine:3", "alpin"),
            ("alpine:3", "alpine:4"),
            ("a/b:1", "*"),
            ("a:1", ""),
        ] {
            assert!(!reference_fits(name, pattern), "{name} {pattern}");
        }
    }
}
