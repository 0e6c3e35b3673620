//! The operating system over the API: `/kakoi/v1/os`. What runs below the apps is nothing for Docker's clients.

use std::sync::atomic::{AtomicU64, Ordering};

use hyper::body::Body as _;
use kakoi_api::image::{Progress as Line, ProgressDetail};
use kakoi_host::slots::Moved;

use super::images::{self, Say, blocking, long};
use super::registry;
use super::reply::{self, Reply};
use super::router::Asked;
use crate::os::{self, From, Wanted};
use crate::refusal::{Answer, Refusal};

/// Bytes between two lines of progress.
const TELL_EVERY_BYTES: u64 = 1 << 20;

/// `GET /kakoi/v1/os`
pub async fn show(asked: &Asked) -> Answer<Reply> {
    let status = blocking(&asked.engine, |engine| os::status(&engine.os)).await?;
    Ok(reply::ok(&status))
}

/// `GET /kakoi/v1/os/history`: the oldest first.
pub async fn history(asked: &Asked) -> Answer<Reply> {
    let events = blocking(&asked.engine, |engine| os::history(&engine.os)).await?;
    Ok(reply::ok(&events))
}

/// `POST /kakoi/v1/os/commit`
pub async fn commit(asked: &Asked) -> Answer<Reply> {
    blocking(&asked.engine, os::commit).await?;
    show(asked).await
}

/// `POST /kakoi/v1/os/rollback`, with `restart=1` where the device is to be started anew for it.
pub async fn rollback(asked: &Asked) -> Answer<Reply> {
    let restart = asked.query.flag("restart");
    blocking(&asked.engine, move |engine| os::rollback(engine, restart)).await?;
    show(asked).await
}

/// `POST /kakoi/v1/os/install?name=`, or with the tar of an OCI layout as the body. Goes on where the client leaves, unless it sends the file.
pub async fn install(asked: Asked) -> Answer<Reply> {
    let wanted = Wanted {
        restart: asked.query.flag("restart"),
        again: asked.query.flag("again"),
    };
    let name = asked.query.get("name").unwrap_or_default().to_owned();
    let engine = asked.engine.clone();
    let from = match name.as_str() {
        "" => {
            if asked.request.body().is_end_stream() {
                return Err(Refusal::bad(
                    "a name is needed (name=), or an archive as the body",
                ));
            }
            From::File(Box::new(images::reader(asked.request.into_body())))
        }
        name => registry::os_source(&asked, name)?,
    };
    long(&engine, move |engine, say| {
        let told = AtomicU64::new(0);
        let tell = |moved: &Moved, total: u64| tell(say, &told, moved, total);
        let moved = os::install(engine, from, wanted, &tell)?;
        let status = os::status(&engine.os)?;
        let line = Line {
            status: spoken(&moved),
            aux: serde_json::to_value(&status).ok(),
            ..Line::default()
        };
        Ok(vec![line])
    })
    .await
}

fn tell(say: Say<'_>, told: &AtomicU64, moved: &Moved, total: u64) {
    let sum = moved.sum().min(total);
    let before = told.load(Ordering::Relaxed);
    if sum < before + TELL_EVERY_BYTES && sum < total || sum == before {
        return;
    }
    told.store(sum, Ordering::Relaxed);
    let count = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    // Whether somebody listens or not, the slot is written.
    say(Line {
        status: "Writing".to_owned(),
        progress_detail: Some(ProgressDetail {
            current: count(sum),
            total: count(total),
        }),
        ..Line::default()
    });
}

fn spoken(moved: &Moved) -> String {
    format!(
        "{} bytes fetched, {} copied from the slot that runs, {} there already, {} of zeros",
        moved.fetched + moved.beside,
        moved.copied,
        moved.kept,
        moved.zeros
    )
}

/// `POST /kakoi/v1/os/push?name=`: sends the tar of an OCI layout, as `kakoi os pack` writes it, to a registry.
pub async fn push(asked: Asked) -> Answer<Reply> {
    registry::push_os(asked).await
}
