//! Named volumes.

use hyper::StatusCode;
use kakoi_api::volume::{VolumeBody, VolumeList, VolumesPruned};

use super::reply::{self, Reply};
use super::router::Asked;
use crate::filters::{Filters, name_fits};
use crate::refusal::{Answer, Refusal};
use crate::volumes::users;

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
    // The local driver's options mount what they name: that is for an owner to do, not for a client.
    if let Some(option) = body.driver_opts.keys().next() {
        return Err(Refusal::unsupported(format!(
            "volume option {option:?} is not supported; mount on the host and bind the folder"
        )));
    }
    let engine = &asked.engine;
    let (volume, _) = engine
        .volumes
        .create(engine, &body.name, body.labels, body.driver_opts)
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

/// `DELETE /volumes/{name}`
pub async fn delete(asked: &Asked, name: &str) -> Answer<Reply> {
    match asked.engine.volumes.remove(&asked.engine, name).await {
        Err(refusal) if refusal.status == StatusCode::NOT_FOUND && asked.query.flag("force") => {}
        other => other?,
    }
    Ok(reply::nothing())
}

/// `POST /volumes/prune`: anonymous ones, or, with `all`, every one that nothing uses.
pub async fn prune(asked: &Asked) -> Answer<Reply> {
    let filters = Filters::parse(asked.query.get("filters"), &["all", "label", "label!"])?;
    let all = filters.flag("all")?.unwrap_or(false);
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
    Ok(reply::ok(&VolumesPruned {
        volumes_deleted: (!gone.is_empty()).then_some(gone),
        space_reclaimed: bytes,
    }))
}
