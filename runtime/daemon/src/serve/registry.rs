//! Registries: pull, push, login, and looks at what is there. Every call blocks, so every call has a thread; a client that goes away ends it.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::Request;
use hyper::body::Incoming;
use kakoi_api::image::{Progress as Line, ProgressDetail};
use kakoi_api::registry::{
    AUTH_HEADER, Attach, AuthAnswer, AuthConfig, Descriptor, DistributionInspect, Manifest,
    Platform as WirePlatform, Tags,
};
use kakoi_image::registry::{
    ATTACHMENT_BYTES_MAX, Access, Attachment, Cancel, Client, Credentials, LayerStep, Patience, Platform,
    Proxies, PullError, PullEvent, PullOptions, Pulled, PushError, PushEvent, PushStep, RegistryError,
    Repository, Resolved, SendError, check_login, platforms,
};
use kakoi_image::{Digest, Limits, Reference, client_message};

use super::hijack::Left;
use super::images::{Say, blocking, long, reader, tell};
use super::reply::{self, Reply};
use super::router::Asked;
use crate::config::read_registries;
use crate::engine::Engine;
use crate::life::create::image_refusal;
use crate::os;
use crate::refusal::{Answer, Refusal, chain};
use crate::trust::{self, Admission, PullRefusal};

/// What Docker's clients call the registry that is meant where none is named.
const DOCKER_HUB: [&str; 3] = ["index.docker.io", "docker.io", "registry-1.docker.io"];

/// A client with the owner's settings as they are now.
fn client(engine: &Engine) -> Answer<Client> {
    let registries =
        read_registries(&engine.paths.config).map_err(|error| Refusal::failed(chain(&error), error))?;
    engine.images.search_in(&registries.search);
    let proxies = Proxies::read(|name| std::env::var(name).ok());
    Ok(Client::new(registries, proxies, Patience::DEVICE))
}

/// Credentials of a request, and the registry that they are for; an empty one means any.
struct Sent {
    credentials: Option<Credentials>,
    registry: String,
}

impl Sent {
    fn read(request: &Request<Incoming>) -> Self {
        let header = request.headers().get(AUTH_HEADER);
        let header = header.and_then(|value| value.to_str().ok()).unwrap_or_default();
        // As with dockerd: clients put any word there for nobody's sake, and who has no credentials gets what anybody gets.
        let auth = AuthConfig::from_header(header).unwrap_or_else(|error| {
            tracing::debug!(%error, "ignoring credentials");
            AuthConfig::default()
        });
        Self::from(auth)
    }

    /// Credentials go to the registry they name, and to no other that a short name might lead to.
    fn for_registry(&self, registry: &str) -> Option<Credentials> {
        let is_meant = self.registry.is_empty() || self.registry == registry;
        self.credentials.clone().filter(|_| is_meant)
    }
}

impl From<AuthConfig> for Sent {
    fn from(auth: AuthConfig) -> Self {
        let credentials = Credentials {
            username: auth.username,
            password: auth.password,
            identity_token: auth.identitytoken,
            registry_token: auth.registrytoken,
        };
        Self {
            credentials: Some(credentials).filter(|credentials| !credentials.is_empty()),
            registry: host_of(&auth.serveraddress).to_owned(),
        }
    }
}

/// `https://index.docker.io/v1/` and `docker.io` are the same registry, and a scheme or a path is not part of a name.
fn host_of(address: &str) -> &str {
    let bare = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = bare.split('/').next().unwrap_or_default();
    match DOCKER_HUB.contains(&host) {
        true => "docker.io",
        false => host,
    }
}

/// What a client is told of a registry that fails.
pub fn registry_refusal(error: RegistryError) -> Refusal {
    let said = client_message(&error);
    let refusal = match &error {
        RegistryError::NotFound { .. } | RegistryError::NoPlatform { .. } => Refusal::missing(said),
        RegistryError::Unauthorized { .. } => Refusal::unauthorized(said),
        RegistryError::Denied { .. } => Refusal::forbidden(said),
        RegistryError::Platform { .. } => Refusal::bad(said),
        RegistryError::RateLimited { .. } => Refusal::unavailable(said),
        _ => return Refusal::failed(said, error),
    };
    Refusal {
        source: Some(Box::new(error)),
        ..refusal
    }
}

fn pull_refusal(error: PullError) -> Refusal {
    if error.is_disk_full() {
        return Refusal::failed(
            format!(
                "{}; remove images (kakoi image prune) or containers to make room",
                client_message(&error)
            ),
            error,
        );
    }
    match error {
        PullError::Registry(error) => registry_refusal(error),
        PullError::Refused(cause) => match cause.downcast::<PullRefusal>().map(|cause| *cause) {
            Ok(PullRefusal::Untrusted(refusal) | PullRefusal::Room(refusal)) => refusal,
            Ok(PullRefusal::Registry(error)) => registry_refusal(error),
            Err(cause) => Refusal::forbidden(client_message(&*cause)),
        },
        other => Refusal::failed(client_message(&other), other),
    }
}

fn short(digest: &Digest) -> String {
    digest.hex().chars().take(12).collect()
}

fn line(status: &str, id: String) -> Line {
    Line {
        status: status.to_owned(),
        id,
        ..Line::default()
    }
}

fn moving(status: &str, id: String, bytes: u64, total: u64) -> Line {
    let count = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    Line {
        progress_detail: Some(ProgressDetail {
            current: count(bytes),
            total: count(total),
        }),
        ..line(status, id)
    }
}

/// A pull's events in Docker's words.
fn pull_lines(event: PullEvent) -> Vec<Line> {
    match event {
        PullEvent::Layers(layers) => layers
            .iter()
            .map(|layer| line("Pulling fs layer", short(layer)))
            .collect(),
        PullEvent::Layer(layer, step) => vec![match step {
            LayerStep::Present => line("Already exists", short(&layer)),
            LayerStep::Fetching { bytes, total } => moving("Downloading", short(&layer), bytes, total),
            LayerStep::Done => line("Pull complete", short(&layer)),
        }],
    }
}

/// A push's events in Docker's words.
fn push_lines(event: PushEvent) -> Vec<Line> {
    match event {
        PushEvent::Layers(layers) => layers
            .iter()
            .map(|layer| line("Preparing", short(layer)))
            .collect(),
        PushEvent::Layer(layer, step) => vec![match step {
            PushStep::Packing => line("Packing", short(&layer)),
            PushStep::Present => line("Layer already exists", short(&layer)),
            PushStep::Mounted(from) => line(&format!("Mounted from {from}"), short(&layer)),
            PushStep::Sending { bytes, total } => moving("Pushing", short(&layer), bytes, total),
            PushStep::Done => line("Pushed", short(&layer)),
        }],
    }
}

/// The name that `fromImage` and `tag` make; a tag may be a digest, and takes the place of what the name says already, as with dockerd.
fn wanted_name(image: &str, tag: Option<&str>) -> String {
    // A client that wants all tags may leave the colon.
    let image = image.strip_suffix(':').unwrap_or(image);
    let untagged = || {
        let image = image.split_once('@').map_or(image, |(image, _)| image);
        let last = image.rfind('/').map_or(0, |slash| slash + 1);
        image[last..]
            .find(':')
            .map_or(image, |colon| &image[..last + colon])
    };
    let (tag, image) = match tag.filter(|tag| !tag.is_empty()) {
        Some(tag) => (Some(tag), untagged()),
        None => (None, image),
    };
    match tag {
        Some(digest) if digest.contains(':') => format!("{image}@{digest}"),
        Some(tag) => format!("{image}:{tag}"),
        None => image.to_owned(),
    }
}

/// `POST /images/create?fromImage=`
pub async fn pull(asked: Asked) -> Answer<Reply> {
    let query = &asked.query;
    let name = wanted_name(query.get("fromImage").unwrap_or_default(), query.get("tag"));
    let platform = match query.get("platform") {
        None => None,
        Some(text) => {
            let platform = Platform::parse(text).ok_or_else(|| {
                registry_refusal(RegistryError::Platform {
                    text: text.to_owned(),
                })
            })?;
            Some(platform)
        }
    };
    let sent = Sent::read(&asked.request);
    let client = client(&asked.engine)?;
    let candidates = client
        .settings()
        .candidates(&name)
        .map_err(|error| Refusal::bad(error.to_string()))?;
    trust::refuse_unasked(&asked.engine, &candidates)?;
    let (left, cancel) = (Left::of(&asked.request), client.cancel());
    let work = long(&asked.engine, move |engine, say| {
        let client = client;
        let count = candidates.len();
        for (number, reference) in candidates.iter().enumerate() {
            let last = number + 1 == count;
            match pull_one(engine, &client, reference, platform.clone(), &sent, say) {
                Err(PullError::Registry(error)) if error.is_elsewhere() && !last => {
                    tracing::debug!(%reference, %error, "looking in the next registry");
                }
                Err(error) => return Err(pull_refusal(error)),
                Ok(pulled) => return Ok(pull_end(engine, reference, &pulled)),
            }
        }
        Err(Refusal::bad("no registry to search in"))
    });
    while_wanted(work, left, &cancel).await
}

/// Fetches an image for whoever is no client: without credentials, told to nobody. Cut short when the future is dropped.
pub async fn fetch(engine: &Arc<Engine>, name: &str) -> Answer<String> {
    /// Ends the pull with whoever waits for it.
    struct Waiting(Arc<Cancel>);
    impl Drop for Waiting {
        fn drop(&mut self) {
            self.0.set();
        }
    }
    let client = client(engine)?;
    let candidates = client
        .settings()
        .candidates(name)
        .map_err(|error| Refusal::bad(error.to_string()))?;
    trust::refuse_unasked(engine, &candidates)?;
    let _waiting = Waiting(client.cancel());
    blocking(engine, move |engine| {
        let sent = Sent::from(AuthConfig::default());
        let count = candidates.len();
        for (number, reference) in candidates.iter().enumerate() {
            match pull_one(engine, &client, reference, None, &sent, &|_| true) {
                Err(PullError::Registry(error)) if error.is_elsewhere() && number + 1 < count => {}
                Err(error) => return Err(pull_refusal(error)),
                Ok(pulled) => {
                    drop(pull_end(engine, reference, &pulled));
                    return Ok(pulled.id.to_string());
                }
            }
        }
        Err(Refusal::bad("no registry to search in"))
    })
    .await
}

/// Waits for the beginning of an answer while there is somebody to have it: a registry that is silent may be for minutes, with all its attempts.
async fn while_wanted(
    work: impl Future<Output = Answer<Reply>>,
    left: Option<Left>,
    cancel: &Cancel,
) -> Answer<Reply> {
    let Some(left) = left else { return work.await };
    tokio::select! {
        reply = work => reply,
        () = left.wait() => {
            cancel.set();
            Err(Refusal::bad("the client has left"))
        }
    }
}

fn pull_one(
    engine: &Engine,
    client: &Client,
    reference: &Reference,
    platform: Option<Platform>,
    sent: &Sent,
    say: Say<'_>,
) -> Result<Pulled, PullError> {
    let what = reference.tag().map_or_else(
        || reference.digest().map(ToString::to_string).unwrap_or_default(),
        str::to_owned,
    );
    let has_begun = AtomicBool::new(false);
    let listener = |event: PullEvent| {
        // Said with the first layer, so that what fails before has a status of its own.
        let mut lines = Vec::new();
        if !has_begun.swap(true, Ordering::Relaxed) {
            let from = format!("Pulling from {}", reference.repository());
            lines.push(line(&from, what.clone()));
        }
        lines.extend(pull_lines(event));
        lines.into_iter().all(say)
    };
    let admit = |resolved: &Resolved<'_, '_>| {
        let evidence = trust::admit_pull(engine, resolved)?;
        // Only now: what may not come in takes nothing from what is there.
        super::room::make_now(engine).map_err(PullRefusal::Room)?;
        Ok(evidence)
    };
    let options = PullOptions {
        platform,
        credentials: sent.for_registry(reference.registry()),
        admit: Some(&admit),
    };
    engine.images.pull(client, reference, &options, &listener)
}

/// Judges the image of a registry; fetches documents and signatures, and no layer.
pub async fn examine(asked: &Asked, name: &str) -> Answer<Admission> {
    let client = client(&asked.engine)?;
    let candidates = client.settings().candidates(name);
    let reference = candidates
        .map_err(|error| Refusal::bad(error.to_string()))?
        .swap_remove(0);
    let credentials = Sent::read(&asked.request).for_registry(reference.registry());
    blocking(&asked.engine, move |engine| {
        let found = RefCell::new(None);
        let admit = |resolved: &Resolved<'_, '_>| {
            found.replace(Some(trust::judge_pull(engine, resolved)?));
            Err(Box::from("it was only looked at"))
        };
        let options = PullOptions {
            credentials,
            admit: Some(&admit),
            ..PullOptions::default()
        };
        let pulled = engine.images.pull(&client, &reference, &options, &|_| true);
        match (found.take(), pulled) {
            (Some(admission), _) => Ok(admission),
            (None, Err(error)) => Err(pull_refusal(error)),
            (None, Ok(_)) => Err(Refusal::broken("the image was not judged")),
        }
    })
    .await
}

fn pull_end(engine: &Engine, reference: &Reference, pulled: &Pulled) -> Vec<Line> {
    let name = reference.familiar();
    tell(engine, "pull", &name, &name);
    let status = match pulled.is_up_to_date {
        true => format!("Status: Image is up to date for {name}"),
        false => format!("Status: Downloaded newer image for {name}"),
    };
    vec![
        line(&format!("Digest: {}", pulled.digest), String::new()),
        Line {
            aux: Some(serde_json::json!({"ID": pulled.id.to_string(), "Name": name})),
            ..line(&status, String::new())
        },
    ]
}

/// `POST /images/{name}/push`
pub async fn push(asked: Asked, name: &str) -> Answer<Reply> {
    let name = wanted_name(name, asked.query.get("tag"));
    let reference = Reference::parse_tag(&name).map_err(|error| Refusal::bad(error.to_string()))?;
    let sent = Sent::read(&asked.request);
    let client = client(&asked.engine)?;
    let (left, cancel) = (Left::of(&asked.request), client.cancel());
    let work = long(&asked.engine, move |engine, say| {
        let client = client;
        let repository = format!("{}/{}", reference.registry(), reference.repository());
        let listener = |event: PushEvent| {
            let mut lines = Vec::new();
            if matches!(event, PushEvent::Layers(_)) {
                lines.push(line(
                    &format!("The push refers to repository [{repository}]"),
                    String::new(),
                ));
            }
            lines.extend(push_lines(event));
            lines.into_iter().all(say)
        };
        let credentials = sent.for_registry(reference.registry());
        let pushed = engine
            .images
            .push(&client, &reference, credentials, &listener)
            .map_err(push_refusal)?;
        let tag = reference.tag().unwrap_or_default();
        let name = reference.familiar();
        tell(engine, "push", &name, &name);
        let formerly = pushed.formerly.map(|was| {
            let said =
                "The registry had not all layers as they came, so they were packed anew: the digest was";
            line(
                &format!("{said} {was}, signatures are of that one"),
                String::new(),
            )
        });
        let status = format!("{tag}: digest: {} size: {}", pushed.digest, pushed.size);
        let aux = Line {
            aux: Some(serde_json::json!({"Tag": tag, "Digest": pushed.digest, "Size": pushed.size})),
            ..Line::default()
        };
        Ok(formerly
            .into_iter()
            .chain([line(&status, String::new()), aux])
            .collect())
    });
    while_wanted(work, left, &cancel).await
}

fn push_refusal(error: PushError) -> Refusal {
    match error {
        PushError::Registry(error) => registry_refusal(error),
        PushError::Store(error) => image_refusal(error),
        PushError::Digest => Refusal::bad(error.to_string()),
        other => Refusal::failed(client_message(&other), other),
    }
}

/// Where an operating system comes from that is named.
pub fn os_source(asked: &Asked, name: &str) -> Answer<os::From> {
    let reference = Reference::parse(name).map_err(|error| Refusal::bad(error.to_string()))?;
    let credentials = Sent::read(&asked.request).for_registry(reference.registry());
    Ok(os::From::Registry {
        client: Box::new(client(&asked.engine)?),
        reference,
        credentials,
    })
}

/// `POST /kakoi/v1/os/push?name=`
pub async fn push_os(asked: Asked) -> Answer<Reply> {
    let name = asked.query.get("name").unwrap_or_default();
    let reference = Reference::parse_tag(name).map_err(|error| Refusal::bad(error.to_string()))?;
    let credentials = Sent::read(&asked.request).for_registry(reference.registry());
    let client = client(&asked.engine)?;
    let archive = reader(asked.request.into_body());
    long(&asked.engine, move |_, _| {
        let repository = Repository::new(&client, &reference, credentials, Access::Push);
        let digest = repository
            .send_os(archive, reference.tag().unwrap_or_default())
            .map_err(send_refusal)?;
        let said = format!("{}@{digest}", repository.name());
        Ok(vec![Line {
            aux: Some(serde_json::json!({"Digest": digest.to_string()})),
            ..line(&said, String::new())
        }])
    })
    .await
}

fn send_refusal(error: SendError) -> Refusal {
    match error {
        SendError::Registry(error) => registry_refusal(error),
        SendError::Archive(error) => Refusal::bad(chain(&error)),
        SendError::Read(cause) => Refusal::bad(format!("the archive cannot be read: {cause}")),
    }
}

/// `POST /auth`: whether a registry takes credentials.
pub async fn auth(mut asked: Asked) -> Answer<Reply> {
    let auth: AuthConfig = asked.body().await?;
    let sent = Sent::from(auth);
    let registry = match sent.registry.as_str() {
        "" => String::from("docker.io"),
        named => named.to_owned(),
    };
    let client = client(&asked.engine)?;
    let checked =
        move |_: &Engine| check_login(&client, &registry, sent.credentials).map_err(registry_refusal);
    blocking(&asked.engine, checked).await?;
    Ok(reply::ok(&AuthAnswer {
        status: String::from("Login Succeeded"),
        identity_token: String::new(),
    }))
}

/// Does something with the repository of a name.
async fn with_repository<T: Send + 'static>(
    asked: &Asked,
    name: &str,
    work: impl FnOnce(&Repository<'_>, &str) -> Result<T, RegistryError> + Send + 'static,
) -> Answer<T> {
    let client = client(&asked.engine)?;
    let candidates = client.settings().candidates(name);
    let reference = candidates
        .map_err(|error| Refusal::bad(error.to_string()))?
        .swap_remove(0);
    let credentials = Sent::read(&asked.request).for_registry(reference.registry());
    blocking(&asked.engine, move |_| {
        let repository = Repository::new(&client, &reference, credentials, Access::Pull);
        let wanted = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        work(&repository, &wanted).map_err(registry_refusal)
    })
    .await
}

fn descriptor(digest: &Digest, media_type: String, size: usize) -> Descriptor {
    Descriptor {
        media_type,
        digest: digest.to_string(),
        size: i64::try_from(size).unwrap_or(i64::MAX),
    }
}

/// `GET /distribution/{name}/json`
pub async fn distribution(asked: &Asked, name: &str) -> Answer<Reply> {
    let found = with_repository(asked, name, |repository, wanted| {
        let served = repository.manifest(wanted, &Limits::DEVICE)?;
        let platforms = platforms(repository, &served, &Limits::DEVICE)?;
        Ok((served, platforms))
    })
    .await?;
    let (served, platforms) = found;
    let wire = |platform: Platform| WirePlatform {
        architecture: platform.architecture,
        os: platform.os,
        variant: platform.variant,
    };
    Ok(reply::ok(&DistributionInspect {
        descriptor: descriptor(&served.digest, served.media_type, served.bytes.len()),
        platforms: platforms.into_iter().map(wire).collect(),
    }))
}

/// `GET /kakoi/v1/registry/tags?name=`
pub async fn tags(asked: &Asked) -> Answer<Reply> {
    let name = asked.query.get("name").unwrap_or_default();
    let tags = with_repository(asked, name, |repository, _| {
        Ok(Tags {
            name: repository.name(),
            tags: repository.tags()?,
        })
    });
    Ok(reply::ok(&tags.await?))
}

/// `GET /kakoi/v1/registry/manifest?name=`
pub async fn manifest(asked: &Asked) -> Answer<Reply> {
    let name = asked.query.get("name").unwrap_or_default();
    let (repository, served) = with_repository(asked, name, |repository, wanted| {
        Ok((repository.name(), repository.manifest(wanted, &Limits::DEVICE)?))
    })
    .await?;
    Ok(reply::ok(&Manifest {
        repository,
        descriptor: descriptor(&served.digest, served.media_type, served.bytes.len()),
        document: String::from_utf8_lossy(&served.bytes).into_owned(),
    }))
}

/// `POST /kakoi/v1/registry/attach?name=`: sends what a client signed to where the image is.
pub async fn attach(mut asked: Asked) -> Answer<Reply> {
    let name = asked.query.get("name").unwrap_or_default().to_owned();
    let body: Attach = asked.body().await?;
    let bytes = body.blobs.iter().map(String::len).sum::<usize>() + body.manifest.len();
    if bytes > ATTACHMENT_BYTES_MAX {
        return Err(Refusal::bad(format!(
            "what is attached has {bytes} bytes, more than {ATTACHMENT_BYTES_MAX}"
        )));
    }
    let reference = Reference::parse(&name).map_err(|error| Refusal::bad(error.to_string()))?;
    let credentials = Sent::read(&asked.request).for_registry(reference.registry());
    let client = client(&asked.engine)?;
    let digest = blocking(&asked.engine, move |_| {
        let repository = Repository::new(&client, &reference, credentials, Access::Push);
        let blobs: Vec<Vec<u8>> = body.blobs.into_iter().map(String::into_bytes).collect();
        let attachment = Attachment {
            blobs: &blobs,
            manifest: body.manifest.as_bytes(),
            tag: Some(body.tag.as_str()).filter(|tag| !tag.is_empty()),
        };
        repository
            .attach(&attachment, &Limits::DEVICE)
            .map_err(registry_refusal)
    })
    .await?;
    Ok(reply::ok(&serde_json::json!({"Digest": digest.to_string()})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_stay_with_their_registry() {
        for (address, host) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("docker.io", "docker.io"),
            ("http://r.example:5000", "r.example:5000"),
            ("r.example/x", "r.example"),
            ("", ""),
        ] {
            assert_eq!(host_of(address), host);
        }
        let sent = Sent::from(AuthConfig {
            username: "u".into(),
            serveraddress: "https://r.example".into(),
            ..AuthConfig::default()
        });
        assert!(sent.for_registry("r.example").is_some());
        assert!(sent.for_registry("docker.io").is_none());
        let nobody = Sent::from(AuthConfig::default());
        assert!(nobody.for_registry("r.example").is_none());
    }

    #[test]
    fn names_are_put_together() {
        assert_eq!(wanted_name("a", None), "a");
        assert_eq!(wanted_name("a", Some("b")), "a:b");
        assert_eq!(wanted_name("a", Some("sha256:c")), "a@sha256:c");
        assert_eq!(wanted_name("a:x", Some("b")), "a:b");
        assert_eq!(wanted_name("r:5000/a", Some("b")), "r:5000/a:b");
        assert_eq!(wanted_name("r:5000/a:x@sha256:d", Some("b")), "r:5000/a:b");
        assert_eq!(wanted_name("r:5000/a:x", Some("sha256:c")), "r:5000/a@sha256:c");
        assert_eq!(wanted_name("a:x", Some("")), "a:x");
        assert_eq!(wanted_name("a:", None), "a");
    }
}
