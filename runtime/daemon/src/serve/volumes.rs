//! Named volumes.

use hyper::StatusCode;
use kakoi_api::volume::{VolumeBody, VolumeList, VolumesPruned};

use super::archive::uncompressed;
use super::containers::reclaimed;
use super::reply::{self, Reply};
use super::router::Asked;
use crate::files;
use crate::filters::{Filters, name_fits};
use crate::quota;
use crate::refusal::{Answer, Refusal};
use crate::volumes::{Use, users};

/// `GET /volumes`
pub fn list(asked: &Asked) -> Answer<Reply> {
    let filters = Filters::parse(
        asked.query.get("filters"),
        &["dangling", "driver", "label", "label!", "name"],
    )?;
    let dangling = filters.flag("dangling")?;
    let engine = &asked.engine;
    let volumes = engine
        .volumes
        .all()
        .into_iter()
        .filter(|volume| {
            filters.any("name", |name| name_fits(&volume.name, name))
                && filters.any("driver", |driver| driver == "local")
                && filters.labels(&volume.labels)
                && dangling.is_none_or(|wanted| users(engine, &volume.name).is_empty() == wanted)
        })
        .map(|volume| engine.volumes.to_wire(engine, &volume))
        .collect();
    Ok(reply::ok(&VolumeList {
        volumes,
        warnings: None,
    }))
}

/// `POST /volumes/create`
pub async fn create(mut asked: Asked) -> Answer<Reply> {
    let body: VolumeBody = asked.body().await?;
    if !matches!(body.driver.as_str(), "" | "local" | "default") {
        return Err(Refusal::missing(format!("plugin \"{}\" not found", body.driver)));
    }
    let engine = &asked.engine;
    let size = quota::wanted(&engine.paths.root, &body.name, &body.driver_opts)?;
    let (volume, _) = engine
        .volumes
        .create(engine, &body.name, body.labels, body.driver_opts, size)
        .await?;
    Ok(reply::json(
        StatusCode::CREATED,
        &engine.volumes.to_wire(engine, &volume),
    ))
}

/// `GET /volumes/{name}`
pub fn inspect(asked: &Asked, name: &str) -> Answer<Reply> {
    let volume = asked.engine.volumes.find(name)?;
    Ok(reply::ok(&asked.engine.volumes.to_wire(&asked.engine, &volume)))
}

/// `GET /kakoi/v1/volumes/{name}/export`: a tar of all that the volume holds, `./` first. What changes meanwhile is archived as it is found.
pub async fn export(asked: &Asked, name: &str) -> Answer<Reply> {
    let engine = &asked.engine;
    let volume = engine.volumes.hold(name, Use::Export).await?;
    let (sink, reply) = reply::stream("application/x-tar");
    files::export_volume(engine, volume, sink).await?;
    Ok(reply)
}

/// `POST /kakoi/v1/volumes/{name}/import`: puts a tar, compressed or not, into a volume: all or nothing where it is empty, else over what it holds.
pub async fn import(asked: Asked, name: &str) -> Answer<Reply> {
    let volume = asked.engine.volumes.hold(name, Use::Import).await?;
    let input = uncompressed(asked.request.into_body()).await;
    files::import_volume(&asked.engine, volume, input).await?;
    Ok(reply::nothing())
}

/// `DELETE /volumes/{name}`
pub async fn delete(asked: &Asked, name: &str) -> Answer<Reply> {
    match asked.engine.volumes.remove(&asked.engine, name).await {
        Err(refusal) if refusal.status == StatusCode::NOT_FOUND && asked.query.flag("force") => {}
        other => other?,
    }
    Ok(reply::nothing())
}

/// `POST /volumes/prune`: anonymous ones, or, with `all`, every one that nothing uses. Before version 1.42 there was no `all`, and every one was meant.
pub async fn prune(asked: &Asked) -> Answer<Reply> {
    let filters = Filters::parse(asked.query.get("filters"), &["all", "label", "label!"])?;
    let all = filters.flag("all")?.unwrap_or(false) || asked.is_before(1, 42);
    let engine = &asked.engine;
    let (mut gone, mut bytes) = (Vec::new(), 0);
    for volume in engine.volumes.all() {
        if !(all || volume.anonymous)
            || !filters.labels(&volume.labels)
            || !users(engine, &volume.name).is_empty()
        {
            continue;
        }
        let size = engine.volumes.usage(engine, &volume.name).size;
        if engine.volumes.remove(engine, &volume.name).await.is_ok() {
            gone.push(volume.name);
            bytes += size;
        }
    }
    engine.events.tell("volume", "prune", "", reclaimed(bytes));
    Ok(reply::ok(&VolumesPruned {
        volumes_deleted: Some(gone),
        space_reclaimed: bytes,
    }))
}
