//! Making room on the disk: before something comes in, where the owner's low-water mark says so, and when somebody asks for it.

use std::sync::Arc;

use kakoi_api::kakoi::RoomMade;
use kakoi_image::LowWater;

use super::images;
use super::reply::{self, Reply};
use super::router::Asked;
use crate::engine::Engine;
use crate::refusal::{Answer, Refusal};

/// Removes images that nothing uses where the owner's low-water mark says so, before something comes in. Blocks.
pub fn make_now(engine: &Engine) -> Answer<()> {
    let low = LowWater {
        free_bytes: engine.settings.disk_low_bytes,
        takes_named: engine.settings.disk_low_takes_named,
    };
    if low.free_bytes == 0 {
        return Ok(());
    }
    take(engine, low).map(drop)
}

/// The same, for whoever may not block.
pub async fn make(engine: &Arc<Engine>) -> Answer<()> {
    images::blocking(engine, make_now).await
}

/// `POST /kakoi/v1/system/gc`: what a pull would do first, now. `free` is the room that is wanted, in bytes, in place of the owner's mark; `named` lets
/// images with a name go too.
pub async fn collect(asked: &Asked) -> Answer<Reply> {
    let settings = &asked.engine.settings;
    let free_bytes =
        match asked.query.get("free") {
            Some(text) => text.parse().ok().filter(|bytes| *bytes > 0).ok_or_else(|| {
                Refusal::bad(format!("free must be a number of bytes above 0, not {text:?}"))
            })?,
            None => settings.disk_low_bytes,
        };
    if free_bytes == 0 {
        return Err(Refusal::bad(
            "no low-water mark is set: say how much room is wanted (--free), or set disk_low_bytes in kakoid.yaml",
        ));
    }
    let low = LowWater {
        free_bytes,
        takes_named: settings.disk_low_takes_named || asked.query.flag("named"),
    };
    let made = images::blocking(&asked.engine, move |engine| take(engine, low)).await?;
    Ok(reply::ok(&made))
}

fn take(engine: &Engine, low: LowWater) -> Answer<RoomMade> {
    let _turn = engine.image_turn.blocking_write();
    let made = engine
        .images
        .make_room(low, &|id| images::uses(engine, id))
        .map_err(images::remove_refusal)?;
    let rows = images::deleted(engine, made.removed);
    for row in &rows {
        tracing::info!(
            untagged = row.untagged,
            deleted = row.deleted,
            "removed to make room"
        );
    }
    let free = engine
        .images
        .free_bytes()
        .map_err(|error| Refusal::failed("looking at the disk failed", error))?;
    let count = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    Ok(RoomMade {
        images_deleted: rows,
        space_reclaimed: count(made.reclaimed_bytes),
        free: count(free),
        wanted: count(low.free_bytes),
    })
}
