//! Requests about one repository at one place, with one set of credentials.
//!
//! Owns the order of trying: ask, answer a challenge once, follow redirects, come again after a refusal that passes. Refuses to know what is
//! in the answers. Invariants: credentials and tokens go to the place they are for and to the token service it names, never along a redirect to
//! another host; nothing goes from TLS to plain HTTP; every loop is counted.

use std::io::{self, Read};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ureq::http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use ureq::{Body, SendBody};

use super::auth::{Challenge, Credentials, TokenAnswer, choose, encode};
use super::client::{Client, io_error, locked, transport_error};
use super::error::{RegistryError, message_of};
use super::settings::{Endpoint, Transport};
use crate::digest::Digest;

/// Most redirects of one request: registries make one to their storage, some storages a second.
const REDIRECTS_MAX: usize = 5;
/// Longest error document that is read.
const ERROR_BYTES_MAX: u64 = 16 << 10;
/// Longest answer of a token service; tokens of some are several kilobytes.
const TOKEN_BYTES_MAX: u64 = 256 << 10;
/// Longest `Location`; those signed by storages have about two kilobytes.
const LOCATION_BYTES_MAX: usize = 8 << 10;

/// What a request carries.
pub(crate) enum Payload<'a> {
    Nothing,
    Bytes(&'a [u8], &'a str),
    /// Opened anew for each attempt; and its length.
    Stream(&'a dyn Fn() -> io::Result<Box<dyn Read + 'a>>, u64),
}

/// One request.
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    /// Complete, or a path of the place.
    pub(crate) url: &'a str,
    /// What it is about, for errors.
    pub(crate) what: &'a str,
    /// What is being done, for errors.
    pub(crate) doing: &'static str,
    pub(crate) accept: &'a str,
    /// The first byte that is wanted.
    pub(crate) from: u64,
    /// The byte before which it ends, where that is not the end.
    pub(crate) until: Option<u64>,
    pub(crate) payload: Payload<'a>,
    /// The part of a blob that the payload is, start and end.
    pub(crate) range: Option<(u64, u64)>,
    /// False for what a registry may have taken although its answer was lost.
    pub(crate) is_repeatable: bool,
}

impl<'a> Ask<'a> {
    pub(crate) fn get(url: &'a str, what: &'a str, doing: &'static str) -> Self {
        Self {
            method: Method::GET,
            url,
            what,
            doing,
            accept: "*/*",
            from: 0,
            until: None,
            payload: Payload::Nothing,
            range: None,
            is_repeatable: true,
        }
    }
}

/// One repository at one place.
pub struct Session<'c> {
    pub(crate) client: &'c Client,
    pub(crate) endpoint: Endpoint,
    /// What is asked of a token service.
    scopes: Vec<String>,
    credentials: Option<Credentials>,
    authorization: Mutex<Option<String>>,
    attempts: u32,
}

impl<'c> Session<'c> {
    pub(crate) fn new(
        client: &'c Client,
        endpoint: Endpoint,
        scopes: Vec<String>,
        credentials: Option<Credentials>,
    ) -> Self {
        let token = credentials
            .as_ref()
            .filter(|credentials| !credentials.registry_token.is_empty())
            .map(|credentials| format!("Bearer {}", credentials.registry_token));
        Self {
            client,
            endpoint,
            scopes,
            credentials,
            authorization: Mutex::new(token),
            attempts: client.patience.attempts,
        }
    }

    /// The same place, asked for the first time.
    pub(crate) fn anew(&self) -> Self {
        let (scopes, credentials) = (self.scopes.clone(), self.credentials.clone());
        Self {
            attempts: self.attempts,
            ..Self::new(self.client, self.endpoint.clone(), scopes, credentials)
        }
    }

    /// Asks only once: there is another place to ask.
    pub(crate) fn once_only(self) -> Self {
        Self { attempts: 1, ..self }
    }

    /// Asks a token service for more.
    pub(crate) fn add_scopes(&mut self, scopes: impl Iterator<Item = String>) {
        self.scopes.extend(scopes);
    }

    /// The place's name, for errors.
    pub fn name(&self) -> &str {
        &self.endpoint.name
    }

    /// Asks until there is an answer, for as long as that makes sense. An error status is an error.
    pub(crate) fn send(&self, ask: &Ask<'_>) -> Result<Response<Body>, RegistryError> {
        self.trying(ask, Ok)
    }

    /// The same for a small answer, which is read whole, within its limit.
    pub(crate) fn document(
        &self,
        ask: &Ask<'_>,
        bytes_max: u64,
    ) -> Result<(HeaderMap, Vec<u8>), RegistryError> {
        self.trying(ask, |mut answer| {
            let bytes = self.read(&mut answer, ask.what, ask.doing, bytes_max)?;
            Ok((answer.into_parts().0.headers, bytes))
        })
    }

    fn trying<T>(
        &self,
        ask: &Ask<'_>,
        finish: impl Fn(Response<Body>) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let patience = self.client.patience;
        let mut pause = patience.pause;
        for attempt in 1.. {
            self.client.cancel.check()?;
            let error = match self.authorized(ask).and_then(&finish) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let wait = match &error {
                RegistryError::RateLimited { seconds, .. } => Duration::from_secs(*seconds).max(pause),
                error if error.is_passing() => pause,
                _ => return Err(error),
            };
            // A longer wait than we have patience for is the caller's to decide.
            if !ask.is_repeatable || attempt >= self.attempts || wait > patience.pause_max {
                return Err(error);
            }
            tracing::debug!(registry = self.name(), %error, attempt, "trying again");
            self.client.cancel.pause(wait)?;
            pause = (pause * 2).min(patience.pause_max);
        }
        unreachable!("the loop ends by returning")
    }

    /// Asks, and once more with an answer to the challenge.
    fn authorized(&self, ask: &Ask<'_>) -> Result<Response<Body>, RegistryError> {
        let held = locked(&self.authorization).clone();
        let (answer, is_home) = self.redirected(ask, held.as_deref())?;
        // Another host's challenge is not answered: it would name a token service of its own to send our credentials to.
        if answer.status() != StatusCode::UNAUTHORIZED || !is_home {
            return self.judge(ask, answer);
        }
        let challenges = answer.headers().get_all(header::WWW_AUTHENTICATE);
        let challenge = choose(challenges.iter().filter_map(|value| value.to_str().ok()));
        let Some(header) = challenge.and_then(|challenge| self.answer_to(&challenge).transpose()) else {
            return self.judge(ask, answer);
        };
        let header = header?;
        let (answer, _) = self.redirected(ask, Some(&header))?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            *locked(&self.authorization) = Some(header);
        }
        self.judge(ask, answer)
    }

    /// The header that answers a challenge; `None` where we have nothing to answer with.
    fn answer_to(&self, challenge: &Challenge) -> Result<Option<String>, RegistryError> {
        match challenge {
            Challenge::Basic => {
                let known = self
                    .credentials
                    .as_ref()
                    .filter(|known| !known.username.is_empty());
                Ok(known.map(Credentials::basic))
            }
            Challenge::Bearer { realm, service } => self.token(realm, service).map(Some),
        }
    }

    /// Fetches a token (distribution project, token authentication; with an identity token the OAuth 2 variant).
    fn token(&self, realm: &str, service: &str) -> Result<String, RegistryError> {
        let doing = "asking for a token";
        let uri: Uri = realm
            .parse()
            .map_err(|_| self.protocol("its token service has no address"))?;
        let endpoint = self.place(&uri)?;
        let mut query = format!("service={}", encode(service));
        for scope in &self.scopes {
            query.push_str(&format!("&scope={}", encode(scope)));
        }
        let known = self.credentials.as_ref();
        let refresh = known.filter(|known| !known.identity_token.is_empty());
        let (request, form) = match refresh {
            Some(known) => {
                let token = encode(&known.identity_token);
                let form = format!("grant_type=refresh_token&client_id=kakoi&refresh_token={token}&{query}");
                (Request::post(realm), form)
            }
            None => {
                let separator = if uri.query().is_some() { '&' } else { '?' };
                let mut request = Request::get(format!("{realm}{separator}{query}"));
                if let Some(known) = known.filter(|known| !known.username.is_empty()) {
                    request = request.header(header::AUTHORIZATION, known.basic());
                }
                (request, String::new())
            }
        };
        let agent = self.client.agent(&endpoint)?;
        let failed = |error| transport_error(&endpoint.name, doing, error);
        let built = |error: ureq::http::Error| failed(ureq::Error::Http(error));
        let answer = match form.is_empty() {
            true => agent.run(request.body(()).map_err(built)?),
            false => agent.run(
                request
                    .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form)
                    .map_err(built)?,
            ),
        };
        let answer = answer.map_err(failed)?;
        let ask = Ask::get(realm, "a token", doing);
        let mut answer = match answer.status() {
            status if status.is_redirection() => return Err(self.protocol("its token service redirects")),
            _ => self.judge(&ask, answer)?,
        };
        let bytes = self.read(&mut answer, "a token", doing, TOKEN_BYTES_MAX)?;
        serde_json::from_slice::<TokenAnswer>(&bytes)
            .ok()
            .and_then(TokenAnswer::header)
            .ok_or_else(|| self.protocol("its token service sent no token"))
    }

    /// Asks and follows where it leads; tells whether the answer is of the place itself. Credentials stay behind on steps to another host.
    fn redirected(
        &self,
        ask: &Ask<'_>,
        authorization: Option<&str>,
    ) -> Result<(Response<Body>, bool), RegistryError> {
        let home: Uri = self
            .endpoint
            .base()
            .parse()
            .map_err(|_| self.protocol("its own address is none"))?;
        let mut url =
            join(&home, ask.url).ok_or_else(|| self.protocol("it names a place that is no address"))?;
        for _ in 0..=REDIRECTS_MAX {
            let here = self.place(&url)?;
            let is_home = same_place(&home, &url);
            let answer = self.once(ask, &here, &url, authorization.filter(|_| is_home))?;
            if !is_redirect(answer.status()) || ask.method != Method::GET && ask.method != Method::HEAD {
                return Ok((answer, is_home));
            }
            let next = location(answer.headers()).and_then(|location| join(&url, location));
            url = next.ok_or_else(|| self.protocol("it redirects to no address"))?;
        }
        Err(self.protocol("it redirects without end"))
    }

    /// Which settings hold for an address. Plain HTTP must be configured for its host, wherever the address comes from.
    fn place(&self, url: &Uri) -> Result<Endpoint, RegistryError> {
        let authority = url.authority().map(|authority| authority.as_str());
        let host = authority.filter(|host| !host.contains('@') && !host.is_empty());
        let host = host.ok_or_else(|| self.protocol("it names an address without a host"))?;
        let endpoint = match host == self.endpoint.host {
            true => self.endpoint.clone(),
            false => self.client.settings.endpoint(host),
        };
        match (url.scheme_str(), endpoint.transport) {
            (Some("https"), Transport::Https | Transport::HttpsUnverified) => Ok(endpoint),
            (Some("http"), Transport::Http) => Ok(endpoint),
            // TLS where it is not asked for is fine, and checked.
            (Some("https"), Transport::Http) => Ok(Endpoint {
                transport: Transport::Https,
                ..endpoint
            }),
            (Some("http"), _) => Err(self.protocol(&format!(
                "it leads to {host} over plain HTTP, which registries.yaml does not permit"
            ))),
            _ => Err(self.protocol("it names an address that is neither http nor https")),
        }
    }

    fn once(
        &self,
        ask: &Ask<'_>,
        endpoint: &Endpoint,
        url: &Uri,
        authorization: Option<&str>,
    ) -> Result<Response<Body>, RegistryError> {
        let mut request = Request::builder()
            .method(ask.method.clone())
            .uri(url.clone())
            .header(header::ACCEPT, ask.accept);
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        match ask.until {
            Some(until) => {
                let range = format!("bytes={}-{}", ask.from, until.saturating_sub(1));
                request = request.header(header::RANGE, range);
            }
            None if ask.from > 0 => {
                request = request.header(header::RANGE, format!("bytes={}-", ask.from));
            }
            None => {}
        }
        let failed = |error| transport_error(&endpoint.name, ask.doing, error);
        let built = |error: ureq::http::Error| failed(ureq::Error::Http(error));
        let agent = self.client.agent(endpoint)?;
        let answer = match &ask.payload {
            Payload::Nothing if ask.method == Method::GET || ask.method == Method::HEAD => {
                agent.run(request.body(()).map_err(built)?)
            }
            Payload::Nothing => agent.run(request.body(&b""[..]).map_err(built)?),
            Payload::Bytes(bytes, kind) => agent.run(
                request
                    .header(header::CONTENT_TYPE, *kind)
                    .body(*bytes)
                    .map_err(built)?,
            ),
            Payload::Stream(open, length) => {
                let mut reader =
                    open().map_err(|source| io_error(endpoint.name.clone(), ask.doing, source))?;
                request = request.header(header::CONTENT_TYPE, "application/octet-stream");
                request = request.header(header::CONTENT_LENGTH, *length);
                if let Some((start, end)) = ask.range {
                    request = request.header(header::CONTENT_RANGE, format!("{start}-{}", end - 1));
                }
                agent.run(request.body(SendBody::from_reader(&mut reader)).map_err(built)?)
            }
        };
        answer.map_err(failed)
    }

    /// Lets good answers pass and makes errors of the others.
    fn judge(&self, ask: &Ask<'_>, mut answer: Response<Body>) -> Result<Response<Body>, RegistryError> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let seconds = retry_after(answer.headers());
        let limit = ERROR_BYTES_MAX;
        let body = self
            .read(&mut answer, ask.what, ask.doing, limit)
            .unwrap_or_default();
        let (registry, message) = (self.name().to_owned(), message_of(&body));
        let what = ask.what.to_owned();
        Err(match status {
            StatusCode::UNAUTHORIZED => RegistryError::Unauthorized { registry, message },
            StatusCode::FORBIDDEN => RegistryError::Denied {
                registry,
                what,
                message,
            },
            StatusCode::NOT_FOUND => RegistryError::NotFound {
                registry,
                what,
                message,
            },
            StatusCode::TOO_MANY_REQUESTS => RegistryError::RateLimited {
                registry,
                message,
                seconds,
            },
            other => RegistryError::Status {
                registry,
                status: other.as_u16(),
                doing: ask.doing,
                message,
            },
        })
    }

    /// Reads a small body whole, within its limit and within the patience for an answer.
    fn read(
        &self,
        answer: &mut Response<Body>,
        what: &str,
        doing: &'static str,
        bytes_max: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let until = Instant::now() + self.client.patience.answer;
        let mut reader = answer.body_mut().as_reader();
        let mut bytes = Vec::new();
        let mut buffer = [0u8; 8 << 10];
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => return Ok(bytes),
                Ok(count) => count,
                Err(error) => return Err(io_error(self.name().to_owned(), doing, error)),
            };
            bytes.extend_from_slice(&buffer[..count]);
            if bytes.len() as u64 > bytes_max {
                return Err(RegistryError::TooLarge {
                    registry: self.name().to_owned(),
                    what: what.to_owned(),
                    bytes_max,
                });
            }
            if Instant::now() > until {
                return Err(RegistryError::TimedOut {
                    registry: self.name().to_owned(),
                    doing,
                });
            }
            self.client.cancel.check()?;
        }
    }

    pub(crate) fn mismatch(&self, what: String, expected: &Digest, found: Digest) -> RegistryError {
        RegistryError::DigestMismatch {
            registry: self.name().to_owned(),
            what,
            expected: expected.clone(),
            found,
        }
    }

    pub(crate) fn protocol(&self, reason: &str) -> RegistryError {
        RegistryError::Protocol {
            registry: self.name().to_owned(),
            reason: reason.to_owned(),
        }
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// The same host, port and scheme: what credentials were given for.
fn same_place(a: &Uri, b: &Uri) -> bool {
    let port = |uri: &Uri| {
        uri.port_u16()
            .unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 })
    };
    let host = |uri: &Uri| uri.host().unwrap_or_default().to_ascii_lowercase();
    a.scheme() == b.scheme() && host(a) == host(b) && port(a) == port(b)
}

/// The place that an answer names.
pub(crate) fn location(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::LOCATION)?.to_str().ok()?;
    (value.len() <= LOCATION_BYTES_MAX).then_some(value)
}

/// Resolves an address against the one it was found at (RFC 3986, section 5, without dots in paths).
pub(crate) fn join(base: &Uri, reference: &str) -> Option<Uri> {
    let reference = reference.split('#').next().unwrap_or_default();
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let text = if reference.starts_with("http://") || reference.starts_with("https://") {
        reference.to_owned()
    } else if reference.starts_with("//") {
        format!("{scheme}:{reference}")
    } else if reference.starts_with('/') {
        format!("{scheme}://{authority}{reference}")
    } else if reference.is_empty() || reference.contains(':') {
        return None;
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{reference}")
    };
    text.parse().ok()
}

/// Seconds until the next attempt is welcome; 0 where the answer does not say. A date counts as not said: our own clock may be wrong.
fn retry_after(headers: &HeaderMap) -> u64 {
    let value = headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok());
    value.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_joined() {
        let base: Uri = "https://r.example:5000/v2/a/blobs/uploads/x?y=1"
            .parse()
            .expect("address");
        for (given, joined) in [
            ("https://s.example/z", Some("https://s.example/z")),
            ("http://s.example/z", Some("http://s.example/z")),
            ("//s.example/z", Some("https://s.example/z")),
            ("/v2/b?c=d#e", Some("https://r.example:5000/v2/b?c=d")),
            ("w?v=1", Some("https://r.example:5000/v2/a/blobs/uploads/w?v=1")),
            ("ftp://x/y", None),
            ("file:/etc/passwd", None),
            ("", None),
            ("https://", None),
        ] {
            let expected = joined.map(str::to_owned);
            assert_eq!(join(&base, given).map(|uri| uri.to_string()), expected, "{given}");
        }
    }

    #[test]
    fn places_are_compared_whole() {
        let same = |a: &str, b: &str| same_place(&a.parse().expect("uri"), &b.parse().expect("uri"));
        assert!(same("https://a/x", "https://A:443/y"));
        for other in ["http://a/", "https://a:444/", "https://a.b/", "https://ab/"] {
            assert!(!same("https://a/", other), "{other}");
        }
    }
}
