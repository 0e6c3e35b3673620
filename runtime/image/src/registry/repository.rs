//! What a repository has: manifests, small blobs, tags, referrers; asked of its mirrors first.
//!
//! Owns [`Repository`]: one name's sessions in order, and the checking of everything small against its digest. Refuses to keep anything.
//! Invariant: bytes that come out of here have the digest they were asked for by, or, asked for by tag, the digest that is given with them.

use serde::Deserialize;
use ureq::http::{HeaderMap, Method, header};

use super::auth::Credentials;
use super::client::Client;
use super::document::{ACCEPT, BlobDescriptor, Document, OCI_INDEX, Platform, is_index};
use super::error::RegistryError;
use super::session::{Ask, Session};
use crate::digest::Digest;
use crate::limits::Limits;
use crate::reference::Reference;

/// Most pages of a list of tags.
const PAGES_MAX: usize = 100;
/// Most tags of a repository that are listed.
const TAGS_MAX: usize = 100_000;
/// Largest page of tags.
const PAGE_BYTES_MAX: u64 = 4 << 20;

/// What is meant to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Pull,
    /// Writing too.
    Push,
}

/// A manifest or index as it was served.
#[derive(Clone, Debug)]
pub struct Served {
    /// Digest of the bytes.
    pub digest: Digest,
    /// The content type it was served under.
    pub media_type: String,
    /// Byte for byte.
    pub bytes: Vec<u8>,
}

/// A name's repository, in its mirrors and in its registry.
pub struct Repository<'c> {
    pub(crate) reference: Reference,
    /// The registry itself is the last.
    pub(crate) sessions: Vec<Session<'c>>,
}

impl<'c> Repository<'c> {
    /// Prepares for asking; the credentials are those for the registry, and no mirror sees them.
    pub fn new(
        client: &'c Client,
        reference: &Reference,
        credentials: Option<Credentials>,
        access: Access,
    ) -> Self {
        let actions = match access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        let scopes = vec![format!("repository:{}:{actions}", reference.repository())];
        let mut places = match access {
            Access::Pull => client.settings.sources(reference.registry()),
            Access::Push => vec![client.settings.endpoint(reference.registry())],
        };
        let own = places.pop().expect("a registry is its own last source");
        let mut sessions: Vec<_> = places
            .into_iter()
            .map(|mirror| Session::new(client, mirror, scopes.clone(), None).once_only())
            .collect();
        sessions.push(Session::new(client, own, scopes, credentials));
        Self {
            reference: reference.clone(),
            sessions,
        }
    }

    /// The mirrors and the registry itself, each alone.
    pub(crate) fn places(&self) -> Vec<Self> {
        let alone = |session: &Session<'c>| Self {
            reference: self.reference.clone(),
            sessions: vec![session.anew()],
        };
        self.sessions.iter().map(alone).collect()
    }

    /// The same, asked once each: somebody else has answered already.
    pub(crate) fn once_only(self) -> Self {
        Self {
            sessions: self.sessions.into_iter().map(Session::once_only).collect(),
            ..self
        }
    }

    /// Registry and repository.
    pub fn name(&self) -> String {
        format!("{}/{}", self.reference.registry(), self.reference.repository())
    }

    /// Asks for the right to read other repositories too, to mount blobs from them.
    pub(crate) fn also_from(&mut self, repositories: &[String]) {
        let scopes = repositories.iter().map(|name| format!("repository:{name}:pull"));
        let own = self.sessions.last_mut().expect("the registry itself is there");
        own.add_scopes(scopes);
    }

    /// The registry's own session.
    pub(crate) fn own(&self) -> &Session<'c> {
        self.sessions.last().expect("the registry itself is there")
    }

    /// A path below this repository.
    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/v2/{}/{rest}", self.reference.repository())
    }

    /// Asks one place after the other; the registry's own error counts.
    fn any<T>(&self, ask: impl Fn(&Session<'c>) -> Result<T, RegistryError>) -> Result<T, RegistryError> {
        let (own, mirrors) = self.sessions.split_last().expect("the registry itself is there");
        for mirror in mirrors {
            match ask(mirror) {
                Err(RegistryError::Cancelled) => return Err(RegistryError::Cancelled),
                Err(error) => tracing::info!(mirror = mirror.name(), %error, "ignoring a mirror"),
                answer => return answer,
            }
        }
        ask(own)
    }

    /// Fetches what a tag or digest names.
    pub fn manifest(&self, name: &str, limits: &Limits) -> Result<Served, RegistryError> {
        let wanted = Digest::parse(name).ok();
        let mark = if wanted.is_some() { '@' } else { ':' };
        let what = format!("manifest {}{mark}{name}", self.reference.familiar_repository());
        let path = self.path(&format!("manifests/{name}"));
        self.any(|session| {
            let ask = Ask {
                accept: ACCEPT,
                ..Ask::get(&path, &what, "fetching a manifest")
            };
            let (headers, bytes) = session.document(&ask, limits.manifest_bytes_max)?;
            let media_type = content_type(&headers);
            let claimed = headers.get("docker-content-digest");
            let claimed = claimed.and_then(|value| Digest::parse(value.to_str().ok()?).ok());
            let digest = Digest::of(&bytes);
            match wanted.clone().or(claimed) {
                Some(expected) if expected != digest => {
                    Err(session.mismatch(what.clone(), &expected, digest))
                }
                _ => Ok(Served {
                    digest,
                    media_type,
                    bytes,
                }),
            }
        })
    }

    /// Whether a tag or digest is there, and which digest it has; nothing is fetched.
    pub fn head(&self, name: &str) -> Result<Option<Digest>, RegistryError> {
        let path = self.path(&format!("manifests/{name}"));
        let ask = Ask {
            method: Method::HEAD,
            accept: ACCEPT,
            ..Ask::get(&path, name, "looking for a manifest")
        };
        match self.own().send(&ask) {
            Ok(answer) => {
                let digest = answer.headers().get("docker-content-digest");
                Ok(digest.and_then(|value| Digest::parse(value.to_str().ok()?).ok()))
            }
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fetches a small blob whole: a configuration, a signature's payload.
    pub fn blob(&self, digest: &Digest, size: u64, bytes_max: u64) -> Result<Vec<u8>, RegistryError> {
        let what = format!("blob {digest}");
        let path = self.path(&format!("blobs/{digest}"));
        self.any(|session| {
            let registry = || session.name().to_owned();
            if size > bytes_max {
                return Err(RegistryError::TooLarge {
                    registry: registry(),
                    what: what.clone(),
                    bytes_max,
                });
            }
            let ask = Ask::get(&path, &what, "fetching a document");
            let (_, bytes) = session.document(&ask, size)?;
            let found = Digest::of(&bytes);
            if found != *digest {
                return Err(session.mismatch(what.clone(), digest, found));
            }
            if bytes.len() as u64 != size {
                return Err(RegistryError::Size {
                    registry: registry(),
                    digest: digest.clone(),
                    expected: size,
                    found: bytes.len() as u64,
                });
            }
            Ok(bytes)
        })
    }

    /// Lists the tags, page by page.
    pub fn tags(&self) -> Result<Vec<String>, RegistryError> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let what = format!("repository {}", self.reference.familiar_repository());
        let session = self.own();
        let mut url = self.path("tags/list?n=1000");
        let mut tags = Vec::new();
        for _ in 0..PAGES_MAX {
            let ask = Ask::get(&url, &what, "listing tags");
            let (headers, bytes) = session.document(&ask, PAGE_BYTES_MAX)?;
            let next = next_page(&headers);
            let page: Page = serde_json::from_slice(&bytes).map_err(|error| RegistryError::Document {
                registry: session.name().to_owned(),
                what: String::from("the list of tags"),
                reason: error.to_string(),
            })?;
            let names = page.tags.unwrap_or_default();
            // A name that is no tag could not be asked for, and is not shown.
            tags.extend(names.into_iter().filter(|name| crate::reference::is_tag(name)));
            match next {
                Some(next) if tags.len() < TAGS_MAX => url = next,
                _ => break,
            }
        }
        Ok(tags)
    }

    /// What refers to a digest: signatures, bills of materials, policies. From the referrers API, or where that has nothing from the fallback tag
    /// `sha256-<hex>` (distribution-spec 1.1). Empty where there is neither.
    pub fn referrers(&self, digest: &Digest, limits: &Limits) -> Result<Vec<BlobDescriptor>, RegistryError> {
        let path = self.path(&format!("referrers/{digest}"));
        let what = format!("referrers of {digest}");
        let listed = self.any(|session| {
            let ask = Ask {
                accept: OCI_INDEX,
                ..Ask::get(&path, &what, "looking for referrers")
            };
            let (headers, bytes) = session.document(&ask, limits.manifest_bytes_max)?;
            Ok((bytes, content_type(&headers)))
        });
        let read = |bytes: &[u8], media_type: &str| match Document::parse(bytes, media_type, limits) {
            Ok(Document::Index(manifests)) => Ok(manifests),
            Ok(Document::Manifest { .. }) => Ok(Vec::new()),
            Err(reason) => Err(RegistryError::Document {
                registry: self.own().name().to_owned(),
                what: what.clone(),
                reason,
            }),
        };
        match listed {
            Ok((bytes, media_type)) if is_index(&media_type) => {
                let manifests = read(&bytes, &media_type)?;
                // What was attached before the registry, or a mirror of it, came to know the API may be under the tag alone.
                if !manifests.is_empty() {
                    return Ok(manifests);
                }
            }
            // Registries without the API answer so, or with a page of their own.
            Ok(_) | Err(RegistryError::NotFound { .. } | RegistryError::Status { .. }) => {}
            Err(error) => return Err(error),
        }
        match self.manifest(&fallback_tag(digest), limits) {
            Ok(served) => read(&served.bytes, &served.media_type),
            Err(RegistryError::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// Asks a registry whether it takes credentials. One that lets everybody in takes any.
pub fn check_login(
    client: &Client,
    registry: &str,
    credentials: Option<Credentials>,
) -> Result<(), RegistryError> {
    if !crate::reference::is_registry(registry) {
        return Err(RegistryError::NotFound {
            registry: registry.to_owned(),
            what: String::from("a registry of that name"),
            message: String::new(),
        });
    }
    let session = Session::new(
        client,
        client.settings.endpoint(registry),
        Vec::new(),
        credentials,
    );
    let ask = Ask::get("/v2/", "the registry", "logging in");
    // A person waits, and can try again.
    session.once_only().send(&ask).map(drop)
}

/// What a manifest or index runs on.
pub fn platforms(
    repository: &Repository<'_>,
    served: &Served,
    limits: &Limits,
) -> Result<Vec<Platform>, RegistryError> {
    let parsed = Document::parse(&served.bytes, &served.media_type, limits);
    let document = parsed.map_err(|reason| RegistryError::Document {
        registry: repository.own().name().to_owned(),
        what: format!("manifest {}", served.digest),
        reason,
    })?;
    match document {
        Document::Index(manifests) => Ok(manifests.into_iter().filter_map(|one| one.platform).collect()),
        Document::Manifest { config, .. } => {
            let bytes = repository.blob(&config.digest, config.size, limits.config_bytes_max)?;
            // An artifact's configuration is of any shape, and runs on nothing.
            Ok(serde_json::from_slice(&bytes).into_iter().collect())
        }
    }
}

/// The tag under which referrers, and with `.sig` behind it classic cosign signatures, are kept where a registry has no API for them.
pub fn fallback_tag(digest: &Digest) -> String {
    format!("sha256-{}", digest.hex())
}

/// The content type without its parameters.
pub(crate) fn content_type(headers: &HeaderMap) -> String {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = value.unwrap_or_default().split(';').next().unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}

/// `Link: </v2/…>; rel="next"`
fn next_page(headers: &HeaderMap) -> Option<String> {
    let link = headers.get(header::LINK)?.to_str().ok()?;
    let (target, rest) = link.strip_prefix('<')?.split_once('>')?;
    (rest.contains("next") && target.starts_with('/')).then(|| target.to_owned())
}
