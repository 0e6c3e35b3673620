//! Secrets over the API: values go in, and never come out.

use std::collections::BTreeMap;

use http_body_util::{BodyExt, Limited};
use hyper::StatusCode;

use super::reply::{self, Reply};
use super::router::Asked;
use crate::refusal::{Answer, Refusal};
use crate::secrets::{VALUE_BYTES_MAX, Value};

/// `GET /kakoi/v1/secrets`
pub fn list(asked: &Asked) -> Reply {
    reply::ok(&asked.engine.secrets.all(&asked.engine))
}

/// `GET /kakoi/v1/secrets/{name}`
pub fn inspect(asked: &Asked, name: &str) -> Answer<Reply> {
    Ok(reply::ok(&asked.engine.secrets.find(&asked.engine, name)?))
}

/// `POST /kakoi/v1/secrets/create?name=NAME`, the body being the value as it is; `labels` is a JSON object, `replace` exchanges one that is there.
pub async fn create(asked: Asked) -> Answer<Reply> {
    let name = asked
        .query
        .get("name")
        .ok_or_else(|| Refusal::bad("a secret needs a name: POST /kakoi/v1/secrets/create?name=NAME"))?;
    let labels: BTreeMap<String, String> = match asked.query.get("labels") {
        None => BTreeMap::new(),
        Some(text) => serde_json::from_str(text)
            .map_err(|_| Refusal::bad("labels are no JSON object of texts: {\"NAME\": \"VALUE\"}"))?,
    };
    let body = Limited::new(asked.request.into_body(), VALUE_BYTES_MAX);
    let bytes = body.collect().await.map_err(|_| {
        Refusal::bad(format!(
            "the value cannot be read, or is longer than {VALUE_BYTES_MAX} bytes"
        ))
    })?;
    let value = Value::new(bytes.to_bytes().to_vec())?;
    let engine = &asked.engine;
    let secret = engine
        .secrets
        .create(engine, name, labels, &value, asked.query.flag("replace"))?;
    Ok(reply::json(StatusCode::CREATED, &secret))
}

/// `DELETE /kakoi/v1/secrets/{name}`
pub fn delete(asked: &Asked, name: &str) -> Answer<Reply> {
    asked.engine.secrets.remove(&asked.engine, name)?;
    Ok(reply::nothing())
}
