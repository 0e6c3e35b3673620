//! Named volumes.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::path::Path;

use hyper::StatusCode;
use kakoi_api::volume::{VolumeBody, VolumeList, VolumesPruned};
use kakoi_sys::path::FilesystemKind;

use super::archive::uncompressed;
use super::reply::{self, Reply};
use super::router::Asked;
use crate::files;
use crate::filters::{Filters, name_fits};
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
    if let Some(refusal) = refused_option(&engine.paths.root, &body.name, &body.driver_opts) {
        return Err(refusal);
    }
    let (volume, _) = engine
        .volumes
        .create(engine, &body.name, body.labels, body.driver_opts)
        .await?;
    Ok(reply::json(
        StatusCode::CREATED,
        &engine.volumes.to_wire(engine, &volume),
    ))
}

/// What no option can be: one of the local driver's mounts what it names, which is for an owner to do and not for a client, and no file system below the
/// daemon's root is told limits by it.
fn refused_option(root: &Path, name: &str, options: &BTreeMap<String, String>) -> Option<Refusal> {
    let size = options.get("size").map(String::as_str).or_else(|| {
        let words = options.get("o")?.split(',');
        words.filter_map(|word| word.trim().strip_prefix("size=")).next()
    });
    // A memory file system's size is its own, not a limit of a folder.
    let is_memory = options.get("type").is_some_and(|kind| kind == "tmpfs");
    if let Some(size) = size.filter(|_| !is_memory) {
        return Some(Refusal::unsupported(format!(
            "create {name}: a size limit ({size}) cannot be kept: volumes lie on {}, on which no quota is set here; \
             make a file system of that size on the host (truncate -s {size} FILE, mkfs.ext4 FILE, mount FILE FOLDER) and bind its folder",
            file_system(root)
        )));
    }
    let option = options.keys().next()?;
    Some(Refusal::unsupported(match is_memory {
        true => format!(
            "create {name}: a volume in memory is not supported; give each container its own (--tmpfs PATH:size=SIZE)"
        ),
        false => format!(
            "create {name}: volume option {option:?} is not supported; mount on the host and bind the folder"
        ),
    }))
}

/// The name of a file system as mount(8) has it.
fn file_system(folder: &Path) -> String {
    let kind = kakoi_sys::path::open_start(folder)
        .and_then(|folder| kakoi_sys::path::filesystem_kind(folder.as_fd()));
    match kind {
        Ok(FilesystemKind::Tmpfs) => "tmpfs".to_owned(),
        Ok(FilesystemKind::Overlay) => "overlay".to_owned(),
        // linux/magic.h
        Ok(FilesystemKind::Other(0xef53)) => "ext4".to_owned(),
        Ok(FilesystemKind::Other(0x5846_5342)) => "xfs".to_owned(),
        Ok(FilesystemKind::Other(0x9123_683e)) => "btrfs".to_owned(),
        Ok(FilesystemKind::Other(0xf2f5_2010)) => "f2fs".to_owned(),
        Ok(FilesystemKind::Other(0x2405_1905)) => "ubifs".to_owned(),
        Ok(FilesystemKind::Other(magic)) => format!("a file system of kind {magic:#x}"),
        Ok(_) | Err(_) => "an unknown file system".to_owned(),
    }
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
    Ok(reply::ok(&VolumesPruned {
        volumes_deleted: Some(gone),
        space_reclaimed: bytes,
    }))
}
