//! Networks over the wire.

use hyper::StatusCode;
use kakoi_api::network::{
    Network, NetworkBody, NetworkConnect, NetworkCreated, NetworkDisconnect, NetworksPruned,
};

use super::containers::{reclaimed, until};
use super::reply::{self, Reply};
use super::router::Asked;
use crate::filters::{Filters, name_fits};
use crate::networks::{BRIDGE, FIXED};
use crate::refusal::{Answer, Refusal};

/// `GET /networks`
pub fn list(asked: &Asked) -> Answer<Reply> {
    let filters = Filters::parse(
        asked.query.get("filters"),
        &[
            "dangling", "driver", "id", "label", "label!", "name", "scope", "type",
        ],
    )?;
    let dangling = filters.flag("dangling")?;
    for kind in filters.values("type") {
        if !matches!(kind.as_str(), "custom" | "builtin") {
            return Err(Refusal::bad(format!("invalid filter: 'type'='{kind}'")));
        }
    }
    let is_used = |network: &Network| is_predefined(&network.name) || !network.containers.is_empty();
    let mut networks = asked.engine.networks.to_wire(&asked.engine);
    networks.retain(|network| {
        let kind = if is_predefined(&network.name) {
            "builtin"
        } else {
            "custom"
        };
        filters.any("name", |name| name_fits(&network.name, name))
            && filters.any("id", |id| network.id.contains(id))
            && filters.any("driver", |driver| driver == network.driver)
            && filters.any("scope", |scope| scope == network.scope)
            && filters.any("type", |wanted| wanted == kind)
            && filters.labels(&network.labels)
            && dangling.is_none_or(|wanted| is_used(network) != wanted)
    });
    for network in &mut networks {
        network.containers.clear();
    }
    Ok(reply::ok(&networks))
}

fn is_predefined(name: &str) -> bool {
    name == BRIDGE || FIXED.iter().any(|(fixed, _)| *fixed == name)
}

/// `POST /networks/create`
pub async fn create(mut asked: Asked) -> Answer<Reply> {
    let body: NetworkBody = asked.body().await?;
    let engine = &asked.engine;
    let (id, warning) = engine.networks.create(engine, &body).await?;
    Ok(reply::json(StatusCode::CREATED, &NetworkCreated { id, warning }))
}

/// `GET /networks/{name}`
pub fn inspect(asked: &Asked, name: &str) -> Answer<Reply> {
    match asked.query.get("scope").unwrap_or_default() {
        "" | "local" => {}
        _ => return Err(Refusal::missing(format!("network {name} not found"))),
    }
    let network = asked.engine.networks.named_to_wire(&asked.engine, name)?;
    Ok(reply::ok(&network))
}

/// `DELETE /networks/{name}`
pub async fn delete(asked: &Asked, name: &str) -> Answer<Reply> {
    asked.engine.networks.remove(&asked.engine, name).await?;
    Ok(reply::nothing())
}

/// `POST /networks/{name}/connect`
pub async fn connect(mut asked: Asked, name: &str) -> Answer<Reply> {
    let body: NetworkConnect = asked.body().await?;
    let engine = &asked.engine;
    let container = engine.containers.find(&body.container)?;
    engine
        .networks
        .connect(engine, name, &container, body.endpoint_config.unwrap_or_default())
        .await?;
    Ok(reply::empty(StatusCode::OK))
}

/// `POST /networks/{name}/disconnect`
pub async fn disconnect(mut asked: Asked, name: &str) -> Answer<Reply> {
    let body: NetworkDisconnect = asked.body().await?;
    let engine = &asked.engine;
    engine
        .networks
        .disconnect(engine, name, &body.container, body.force)
        .await?;
    Ok(reply::empty(StatusCode::OK))
}

/// `POST /kakoi/v1/networks/reload?container=NAME`
pub async fn reload(asked: &Asked) -> Answer<Reply> {
    let engine = &asked.engine;
    let name = asked.query.get("container").unwrap_or_default();
    let container = engine.containers.find(name)?;
    engine.networks.reload(engine, &container).await?;
    Ok(reply::nothing())
}

/// `POST /networks/prune`: those that no container is in, running or not.
pub async fn prune(asked: &Asked) -> Answer<Reply> {
    let filters = Filters::parse(asked.query.get("filters"), &["label", "label!", "until"])?;
    let until = until(&filters)?;
    let engine = &asked.engine;
    let mut gone = Vec::new();
    for network in engine.networks.all() {
        let is_asked_for = || {
            let mut containers = engine.containers.all().into_iter();
            containers.any(|container| container.shared().record.networks.contains_key(&network.name))
        };
        if is_predefined(&network.name)
            || !filters.labels(&network.labels)
            || until.as_ref().is_some_and(|time| network.created >= *time)
            || is_asked_for()
        {
            continue;
        }
        if engine.networks.remove(engine, &network.id).await.is_ok() {
            gone.push(network.name);
        }
    }
    engine.events.tell("network", "prune", "", reclaimed(0));
    Ok(reply::ok(&NetworksPruned {
        networks_deleted: (!gone.is_empty()).then_some(gone),
    }))
}
