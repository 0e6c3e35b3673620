//! `POST /commit`: a container's changes become an image.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::StatusCode;
use kakoi_api::container::ContainerConfig;
use kakoi_container::files::Ask;
use kakoi_image::{CommitError, CommitOptions, Digest, ImageConfig, apply_change, client_message};
use serde_json::json;
use tokio::sync::mpsc;

use super::images::{self, SocketReader};
use super::reply::{self, Reply};
use super::router::Asked;
use crate::engine::Engine;
use crate::files;
use crate::life::container::Container;
use crate::life::create::image_refusal;
use crate::life::freeze;
use crate::plan::merge;
use crate::refusal::{Answer, Refusal, chain};

/// Chunks of the layer between the process that reads it and the store.
const CHUNKS_MAX: usize = 8;

/// `POST /commit`
pub async fn commit(mut asked: Asked) -> Answer<Reply> {
    let name = asked
        .query
        .get("container")
        .ok_or_else(|| Refusal::bad("no container is named (container=)"))?;
    let container = asked.engine.containers.find(name)?;
    let given: ContainerConfig = asked.body().await?;
    let query = &asked.query;
    let reference = query.get("repo").map(|repository| match query.get("tag") {
        Some(tag) => format!("{repository}:{tag}"),
        None => repository.to_owned(),
    });
    let (image_id, own, command) = {
        let shared = container.shared();
        let record = &shared.record;
        (
            record.image_id.clone(),
            record.config.clone(),
            record.args.join(" "),
        )
    };
    let options = CommitOptions {
        reference,
        author: query.get("author").unwrap_or_default().to_owned(),
        comment: query.get("comment").unwrap_or_default().to_owned(),
        config: configuration(&given, &own, &query.all("changes"))?,
        created_by: command,
    };
    let base = Digest::parse(&image_id)
        .map_err(|cause| Refusal::failed("the container's image cannot be named", cause))?;
    super::room::make(&asked.engine).await?;
    let held = match query.flag_or("pause", true) {
        true => freeze::hold(&asked.engine, &container).await?,
        false => None,
    };
    let work = {
        let (engine, container, options) = (asked.engine.clone(), container.clone(), options.clone());
        // A task of its own: whatever becomes of it, what is frozen thaws.
        tokio::spawn(async move { take(&engine, &container, base, options).await })
    };
    let made = work
        .await
        .unwrap_or_else(|cause| Err(Refusal::failed("the daemon failed at this commit", cause)));
    let thawed = match held {
        Some(held) => freeze::release(&asked.engine, &container, held).await,
        None => Ok(()),
    };
    let (id, names) = match (made, thawed) {
        (made, Ok(())) => made?,
        (made, Err(refusal)) => return Err(still_frozen(&container, made.map(|(id, _)| id), &refusal)),
    };
    let mut attributes = container.attributes();
    attributes.insert("comment".into(), options.comment);
    attributes.insert("imageID".into(), id.clone());
    attributes.extend(names.first().map(|name| ("imageRef".to_owned(), name.clone())));
    let events = &asked.engine.events;
    events.tell("container", "commit", &container.id, attributes);
    for name in &names {
        let attributes = BTreeMap::from([("name".to_owned(), name.clone())]);
        events.tell("image", "tag", &id, attributes);
    }
    Ok(reply::json(StatusCode::CREATED, &json!({ "Id": id })))
}

/// A commit whose container does not thaw: told to the client, which would otherwise wonder about an app that stands still.
fn still_frozen(container: &Container, made: Answer<String>, why: &Refusal) -> Refusal {
    tracing::error!(container = %container.id, error = chain(why), "a commit leaves its container frozen");
    let outcome = match made {
        Ok(id) => format!("the image {id} was made"),
        Err(refusal) => format!("the commit failed ({})", refusal.message),
    };
    Refusal::broken(format!(
        "{outcome}, but container {name} is still paused: {}; unpause it, or stop it, by hand",
        why.message,
        name = container.name()
    ))
}

/// What containers of the new image inherit: the request's own words, changed, and what they leave open from the container.
fn configuration(given: &ContainerConfig, own: &ContainerConfig, changes: &[&str]) -> Answer<ImageConfig> {
    let mut config = merge::from_wire(given);
    let lines = changes.iter().flat_map(|change| change.lines());
    for change in lines.filter(|line| !line.trim().is_empty()) {
        apply_change(&mut config, change).map_err(|error| Refusal::bad(error.to_string()))?;
    }
    let merged = merge::merge(&merge::to_wire(&config), &merge::from_wire(own));
    Ok(merge::from_wire(&merged))
}

/// Takes the layer in, from a process that reads it.
async fn take(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    base: Digest,
    options: CommitOptions,
) -> Answer<(String, Vec<String>)> {
    let (sink, chunks) = mpsc::channel(CHUNKS_MAX);
    files::ask(engine, container, Ask::Layer, None, sink).await?;
    images::blocking(engine, move |engine| {
        let layer = SocketReader {
            chunks,
            held: Default::default(),
        };
        let loaded = engine
            .images
            .commit_layer(&base, layer, &options)
            .map_err(refusal)?;
        Ok((loaded.id.to_string(), loaded.names))
    })
    .await
}

fn refusal(error: CommitError) -> Refusal {
    match error {
        CommitError::Reference(error) => Refusal::bad(error.to_string()),
        CommitError::Load(kakoi_image::LoadError::Store(error)) => image_refusal(error),
        CommitError::Load(error) => images::load_refusal(error),
        CommitError::Manifest => Refusal::failed(client_message(&error), error),
    }
}
