//! What of the device is open, over the API: `/kakoi/v1/host`. It is nothing for Docker's clients.

use std::time::Duration;

use super::images::blocking;
use super::reply::{self, Reply};
use super::router::Asked;
use crate::lockdown;
use crate::refusal::{Answer, Refusal};

/// `GET /kakoi/v1/host`: by what is enforced, or would be where nothing is.
pub async fn show(asked: &Asked) -> Answer<Reply> {
    let status = blocking(&asked.engine, lockdown::status).await?;
    Ok(reply::ok(&status))
}

/// `GET /kakoi/v1/host/plan`: by host.yaml as it is now.
pub async fn plan(asked: &Asked) -> Answer<Reply> {
    let status = blocking(&asked.engine, lockdown::plan).await?;
    Ok(reply::ok(&status))
}

/// `POST /kakoi/v1/host/apply`, with `trial=MILLISECONDS` where it is to go back by itself.
pub async fn apply(asked: &Asked) -> Answer<Reply> {
    let trial = asked.query.get("trial").map(|text| {
        let milliseconds = text.parse().ok().filter(|milliseconds| *milliseconds > 0);
        milliseconds
            .map(Duration::from_millis)
            .ok_or_else(|| Refusal::bad(format!("{text:?} is no time in milliseconds (trial=)")))
    });
    let trial = trial.transpose()?;
    let status = blocking(&asked.engine, move |engine| lockdown::apply(engine, trial)).await?;
    Ok(reply::ok(&status))
}

/// `POST /kakoi/v1/host/confirm`
pub async fn confirm(asked: &Asked) -> Answer<Reply> {
    let status = blocking(&asked.engine, lockdown::confirm).await?;
    Ok(reply::ok(&status))
}

/// `POST /kakoi/v1/host/release`
pub async fn release(asked: &Asked) -> Answer<Reply> {
    let status = blocking(&asked.engine, lockdown::release).await?;
    Ok(reply::ok(&status))
}
