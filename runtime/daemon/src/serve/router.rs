//! From method and path to a handler. By hand, because image names hold slashes in the middle of a path.

use std::sync::Arc;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use kakoi_api::{API_VERSION, API_VERSION_MIN};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::caller::Caller;
use super::query::{Query, decode};
use super::reply::{self, Reply};
use super::{
    apps, archive, attach, audit, commit, containers, denials, exec, host, images, logs, networks, os,
    registry, room, secrets, stats, system, top, trust, volumes,
};
use crate::engine::Engine;
use crate::policy::Door;
use crate::refusal::{Answer, Refusal};

/// A JSON body: a policy of 256 KiB and an environment at the kernel's limit fit.
const BODY_BYTES_MAX: usize = 4 << 20;

/// dockerd's words for what it does only when it is told to be experimental.
const NO_CHECKPOINTS: &str = "This experimental feature is disabled by default. Start the Docker daemon in experimental mode in order to enable it.";

/// A request, taken apart.
pub struct Asked {
    /// The daemon.
    pub engine: Arc<Engine>,
    /// The socket that it came by.
    pub door: Door,
    /// The query.
    pub query: Query,
    /// The request itself, its body unread.
    pub request: Request<Incoming>,
}

impl Asked {
    /// Whether a client spoke a version of Docker's API before this one. One that names none speaks the newest.
    pub fn is_before(&self, major: u32, minor: u32) -> bool {
        version(self.request.uri().path()).is_some_and(|spoken| spoken < (major, minor))
    }

    /// Reads the body as JSON; an empty one as the type's default.
    pub async fn body<T: DeserializeOwned + Serialize + Default>(&mut self) -> Answer<T> {
        if let Some(kind) = self.request.headers().get(CONTENT_TYPE) {
            let kind = kind.to_str().unwrap_or_default();
            let essence = kind.split(';').next().unwrap_or_default().trim();
            if !essence.is_empty()
                && !essence.eq_ignore_ascii_case("application/json")
                && !essence.starts_with("text/plain")
            {
                return Err(Refusal::bad(format!(
                    "unsupported Content-Type header ({kind}): must be 'application/json'"
                )));
            }
        }
        let body = Limited::new(self.request.body_mut(), BODY_BYTES_MAX);
        let bytes = body
            .collect()
            .await
            .map_err(|cause| Refusal::bad(format!("the request's body cannot be read: {cause}")))?
            .to_bytes();
        kakoi_api::decode(&bytes).map_err(|error| Refusal::bad(error.to_string()))
    }
}

/// Answers a request, and writes down what was decided.
pub async fn answer(engine: &Arc<Engine>, caller: &Caller, request: Request<Incoming>) -> Reply {
    let is_head = request.method() == Method::HEAD;
    let path = request.uri().path().to_owned();
    let decided = audit::Asking::of(&request);
    let answer = route(engine, caller.door, request, &path).await;
    decided.note(engine, caller, &answer);
    let mut reply = match answer {
        Ok(reply) => reply,
        Err(refusal) => reply::refusal(&refusal),
    };
    let headers = reply.headers_mut();
    for (name, value) in [
        ("api-version", API_VERSION),
        ("ostype", "linux"),
        ("docker-experimental", "false"),
        ("server", concat!("Kakoi/", env!("CARGO_PKG_VERSION"), " (linux)")),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    if is_head {
        *reply.body_mut() = reply::empty(StatusCode::OK).into_body();
    }
    reply
}

/// The version in a path; `None` where there is none.
fn version(path: &str) -> Option<(u32, u32)> {
    let (major, minor) = path.strip_prefix("/v")?.split('/').next()?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Takes the version off a path; one that is not spoken is refused in Docker's words.
fn unversioned(path: &str) -> Answer<&str> {
    if let Some(rest) = path.strip_prefix("/kakoi/v1/") {
        return Ok(rest);
    }
    let path = path.strip_prefix('/').unwrap_or(path);
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    let Some(version) = first.strip_prefix('v').filter(|version| version.contains('.')) else {
        return Ok(path);
    };
    let number = |text: &str| -> Option<(u32, u32)> {
        let (major, minor) = text.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let asked = number(version).ok_or_else(|| Refusal::missing("page not found"))?;
    if Some(asked) > number(API_VERSION) {
        return Err(Refusal::bad(format!(
            "client version {version} is too new. Maximum supported API version is {API_VERSION}"
        )));
    }
    if Some(asked) < number(API_VERSION_MIN) {
        return Err(Refusal::bad(format!(
            "client version {version} is too old. Minimum supported API version is {API_VERSION_MIN}, please upgrade your client to a newer version"
        )));
    }
    Ok(rest)
}

async fn route(engine: &Arc<Engine>, door: Door, request: Request<Incoming>, path: &str) -> Answer<Reply> {
    let parts: Vec<String> = unversioned(path)?
        .split('/')
        .filter(|part| !part.is_empty())
        .map(decode)
        .collect::<Answer<_>>()?;
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let query = Query::parse(request.uri().query().unwrap_or_default())?;
    let method = request.method().clone();
    let asked = Asked {
        engine: engine.clone(),
        door,
        query,
        request,
    };
    match parts.first().copied().unwrap_or_default() {
        "containers" => route_containers(asked, &method, &parts[1..]).await,
        "exec" => match (method.as_str(), &parts[1..]) {
            ("GET", [id, "json"]) => exec::inspect(&asked, id),
            ("POST", [id, "start"]) => exec::start(asked, id).await,
            ("POST", [id, "resize"]) => exec::resize(&asked, id).await,
            ("POST", [id, "kill"]) => exec::kill(&asked, id).await,
            _ => unknown(),
        },
        "images" => route_images(asked, &method, &parts[1..]).await,
        "volumes" => match (method.as_str(), &parts[1..]) {
            ("GET", []) => volumes::list(&asked),
            ("POST", ["create"]) => volumes::create(asked).await,
            ("POST", ["prune"]) => volumes::prune(&asked).await,
            ("GET", [name]) => volumes::inspect(&asked, name),
            ("GET", [name, "export"]) => volumes::export(&asked, name).await,
            ("POST", [name, "import"]) => volumes::import(asked, name).await,
            ("DELETE", [name]) => volumes::delete(&asked, name).await,
            _ => unknown(),
        },
        "networks" => route_networks(asked, &method, &parts[1..]).await,
        "audit" if door == Door::Kakoi => match (method.as_str(), &parts[1..]) {
            ("GET", []) => audit::lines(&asked).await,
            ("GET", ["verify"]) => audit::verify(&asked).await,
            _ => unknown(),
        },
        "host" if door == Door::Kakoi => match (method.as_str(), &parts[1..]) {
            ("GET", []) => host::show(&asked).await,
            ("GET", ["plan"]) => host::plan(&asked).await,
            ("POST", ["apply"]) => host::apply(&asked).await,
            ("POST", ["confirm"]) => host::confirm(&asked).await,
            ("POST", ["release"]) => host::release(&asked).await,
            _ => unknown(),
        },
        "os" if door == Door::Kakoi => match (method.as_str(), &parts[1..]) {
            ("GET", []) => os::show(&asked).await,
            ("GET", ["history"]) => os::history(&asked).await,
            ("POST", ["install"]) => os::install(asked).await,
            ("POST", ["commit"]) => os::commit(&asked).await,
            ("POST", ["rollback"]) => os::rollback(&asked).await,
            ("POST", ["push"]) => os::push(asked).await,
            _ => unknown(),
        },
        "secrets" if door == Door::Kakoi => match (method.as_str(), &parts[1..]) {
            ("GET", []) => Ok(secrets::list(&asked)),
            ("POST", ["create"]) => secrets::create(asked).await,
            ("GET", [name]) => secrets::inspect(&asked, name),
            ("DELETE", [name]) => secrets::delete(&asked, name),
            _ => unknown(),
        },
        "apps" if door == Door::Kakoi => route_apps(asked, &method, &parts[1..]).await,
        _ => route_system(asked, &method, &parts).await,
    }
}

async fn route_networks(asked: Asked, method: &Method, parts: &[&str]) -> Answer<Reply> {
    match (method.as_str(), parts) {
        ("GET", []) => networks::list(&asked),
        ("POST", ["create"]) => networks::create(asked).await,
        ("POST", ["prune"]) => networks::prune(&asked).await,
        ("POST", ["reload"]) => networks::reload(&asked).await,
        ("GET", [name]) => networks::inspect(&asked, name),
        ("DELETE", [name]) => networks::delete(&asked, name).await,
        ("POST", [name, "connect"]) => networks::connect(asked, name).await,
        ("POST", [name, "disconnect"]) => networks::disconnect(asked, name).await,
        _ => unknown(),
    }
}

async fn route_apps(asked: Asked, method: &Method, parts: &[&str]) -> Answer<Reply> {
    match (method.as_str(), parts) {
        ("GET", []) => apps::list(&asked),
        ("POST", []) => apps::apply(asked).await,
        ("GET", [name]) => apps::show(&asked, name),
        ("DELETE", [name]) => apps::delete(&asked, name).await,
        ("GET", [name, "history"]) => apps::history(&asked, name),
        ("POST", [name, "rollback"]) => apps::rollback(&asked, name).await,
        ("POST", [name, "unblock"]) => apps::unblock(&asked, name).await,
        ("POST", [name, "pin"]) => apps::pin(asked, name).await,
        ("POST", [name, "unpin"]) => apps::unpin(&asked, name).await,
        _ => unknown(),
    }
}

async fn route_system(asked: Asked, method: &Method, parts: &[&str]) -> Answer<Reply> {
    match (method.as_str(), parts) {
        ("GET" | "HEAD", ["_ping"]) => Ok(system::ping()),
        ("GET", ["version"]) => Ok(system::version(&asked)),
        ("GET", ["info"]) => system::info(&asked).await,
        ("POST", ["commit"]) => commit::commit(asked).await,
        ("POST", ["auth"]) => registry::auth(asked).await,
        ("GET", ["distribution", name @ .., "json"]) => registry::distribution(&asked, &name.join("/")).await,
        ("GET", ["registry", "tags"]) => registry::tags(&asked).await,
        ("GET", ["registry", "manifest"]) => registry::manifest(&asked).await,
        ("POST", ["registry", "attach"]) => registry::attach(asked).await,
        ("GET", ["trust"]) => trust::show(&asked),
        ("GET", ["trust", "check"]) => trust::check(&asked).await,
        ("POST", ["trust", "commit"]) => trust::commit(&asked).await,
        ("POST", ["trust", "revocations"]) => trust::revoke(asked).await,
        ("GET", ["events"]) => system::events(&asked),
        ("GET", ["system", "df"]) => system::disk_usage(&asked).await,
        ("POST", ["system", "gc"]) => room::collect(&asked).await,
        ("POST", ["system", "check"]) => system::check(&asked).await,
        ("GET", ["doctor"]) => Ok(system::doctor(&asked)),
        ("GET", ["policies"]) => Ok(system::policies(&asked)),
        ("GET", ["policies", name]) => system::policy(&asked, name),
        ("GET", ["plugins"]) => Ok(reply::ok(&Vec::<String>::new())),
        (
            _,
            [
                "plugins",
                name @ ..,
                "json" | "enable" | "disable" | "upgrade" | "push" | "set",
            ],
        ) => Err(Refusal::missing(format!(
            "plugin \"{}\" not found",
            name.join("/")
        ))),
        ("POST", ["build", "cancel"]) => Ok(reply::empty(StatusCode::OK)),
        ("POST", ["build"]) => Err(Refusal::unsupported(
            "images are not built here: build elsewhere and load them (docker save IMAGE | kakoi load), or push them to a registry (docker buildx build --push)",
        )),
        ("POST", ["build", "prune"]) => Ok(reply::ok(
            &serde_json::json!({"CachesDeleted": null, "SpaceReclaimed": 0}),
        )),
        (
            _,
            [
                "swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs",
                ..,
            ],
        ) => Err(Refusal::unavailable(
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
        )),
        _ => unknown(),
    }
}

async fn route_containers(asked: Asked, method: &Method, parts: &[&str]) -> Answer<Reply> {
    match (method.as_str(), parts) {
        ("GET", ["json"]) => containers::list(&asked).await,
        ("POST", ["create"]) => containers::create(asked).await,
        ("POST", ["prune"]) => containers::prune(&asked).await,
        ("GET", [id, "json"]) => containers::inspect(&asked, id).await,
        ("GET", [id, "logs"]) => logs::logs(&asked, id).await,
        ("HEAD", [id, "archive"]) => archive::head(&asked, id).await,
        ("GET", [id, "archive"]) => archive::get(&asked, id).await,
        ("PUT", [id, "archive"]) => archive::put(asked, id).await,
        ("GET", [id, "export"]) => archive::export(&asked, id).await,
        ("GET", [id, "changes"]) => archive::changes(&asked, id).await,
        (_, [_, "checkpoints", ..]) => Err(Refusal::unsupported(NO_CHECKPOINTS)),
        ("GET", [id, "top"]) => top::top(&asked, id).await,
        ("GET", [id, "denials"]) => denials::denials(&asked, id),
        ("GET", [id, "stats"]) => stats::stats(&asked, id).await,
        ("POST", [id, "start"]) => containers::start(&asked, id).await,
        ("POST", [id, "stop"]) => containers::stop(&asked, id).await,
        ("POST", [id, "restart"]) => containers::restart(&asked, id).await,
        ("POST", [id, "kill"]) => containers::kill(&asked, id).await,
        ("POST", [id, "pause"]) => containers::pause(&asked, id).await,
        ("POST", [id, "unpause"]) => containers::unpause(&asked, id).await,
        ("POST", [id, "rename"]) => containers::rename(&asked, id).await,
        ("POST", [id, "resize"]) => containers::resize(&asked, id).await,
        ("POST", [id, "update"]) => containers::update(asked, id).await,
        ("POST", [id, "wait"]) => containers::wait(&asked, id),
        ("POST", [id, "attach"]) => attach::attach(asked, id).await,
        ("GET", [id, "attach", "ws"]) => attach::attach_ws(asked, id).await,
        ("POST", [id, "exec"]) => exec::create(asked, id).await,
        ("DELETE", [id]) => containers::delete(&asked, id).await,
        // A link's name: `container/alias`.
        ("DELETE", [id, alias]) => containers::delete(&asked, &format!("{id}/{alias}")).await,
        _ => unknown(),
    }
}

async fn route_images(asked: Asked, method: &Method, parts: &[&str]) -> Answer<Reply> {
    match (method.as_str(), parts) {
        ("GET", ["json"]) => images::list(&asked).await,
        ("GET", ["search"]) => Err(Refusal::unsupported(
            "registries are not searched here: pull an image by its name, or look at its tags (kakoi tags NAME)",
        )),
        ("GET", ["get"]) => images::save(&asked, None),
        ("POST", ["load"]) => images::load(asked).await,
        ("POST", ["create"]) => images::create(asked).await,
        ("POST", ["prune"]) => images::prune(&asked).await,
        ("GET", [name @ .., "json"]) => images::inspect(&asked, &name.join("/")).await,
        ("GET", [name @ .., "history"]) => images::history(&asked, &name.join("/")).await,
        ("GET", [name @ .., "get"]) => images::save(&asked, Some(name.join("/"))),
        ("POST", [name @ .., "tag"]) => images::tag(&asked, &name.join("/")).await,
        ("DELETE", name) if !name.is_empty() => images::delete(&asked, &name.join("/")).await,
        ("POST", [name @ .., "push"]) => registry::push(asked, &name.join("/")).await,
        _ => unknown(),
    }
}

fn unknown() -> Answer<Reply> {
    Err(Refusal::missing("page not found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_taken_off_or_refused() {
        assert_eq!(unversioned("/v1.51/info").expect("newest"), "info");
        assert_eq!(unversioned("/v1.24/a/b").expect("oldest"), "a/b");
        assert_eq!(unversioned("/info").expect("none"), "info");
        assert_eq!(unversioned("/kakoi/v1/doctor").expect("own"), "doctor");
        assert_eq!(unversioned("/volumes/v1").expect("no version"), "volumes/v1");
        assert!(
            unversioned("/v1.99/info")
                .expect_err("too new")
                .message
                .contains("too new")
        );
        assert!(
            unversioned("/v1.20/info")
                .expect_err("too old")
                .message
                .contains("too old")
        );
        assert!(unversioned("/vx.y/info").is_err());
    }
}
