//! What the device's owner says about registries: `registries.yaml`, and the proxies of the environment.
//!
//! Owns [`Registries`] and [`Proxies`] as values, and the way from a name to the places that are asked. Refuses to read files: the daemon does.
//! Invariant: plain HTTP and unverified TLS are spoken only to a place whose entry says so, loopback included.
//!
//! ```text
//! search: [docker.io, registry.example.com]     # where a name without a registry is looked for, in order
//! registries:
//!   docker.io:
//!     mirrors: [mirror.local:5000]              # asked first, without credentials of docker.io
//!   mirror.local:5000:
//!     transport: http                           # https (the default), http, or https-unverified
//!   registry.example.com:
//!     ca: /etc/kakoi/certs/example.pem          # trusted beside the system's own
//!     client_cert: /etc/kakoi/certs/device.pem
//!     client_key: /etc/kakoi/certs/device.key
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use crate::reference::{DEFAULT_REGISTRY, Reference, ReferenceError, is_registry};

/// The host that serves `docker.io`.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

/// How a registry is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// TLS, and the certificate is checked.
    Https,
    /// TLS with whoever answers.
    HttpsUnverified,
    /// No TLS.
    Http,
}

/// `registries.yaml`. Every key may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registries {
    /// Where a name without a registry is looked for; empty means `docker.io`.
    pub search: Vec<String>,
    /// By host and port.
    pub registries: BTreeMap<String, Registry>,
}

/// One registry, or mirror.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// How it is spoken to; `None` means [`Transport::Https`].
    pub transport: Option<Transport>,
    /// Places that are asked before it, in order.
    pub mirrors: Vec<String>,
    /// CA certificates in PEM form that are trusted beside the system's.
    pub ca: Option<PathBuf>,
    /// A certificate that this device shows, in PEM form.
    pub client_cert: Option<PathBuf>,
    /// Its key, in PEM form.
    pub client_key: Option<PathBuf>,
}

/// What is wrong with the settings.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A name that is no host.
    #[error("{text:?} is not a registry: write HOST or HOST:PORT, without a scheme or a path")]
    Host {
        /// The name.
        text: String,
    },
    /// A certificate without its key, or a key alone.
    #[error("{registry}: client_cert and client_key need each other")]
    HalfCertificate {
        /// The registry.
        registry: String,
    },
}

/// A place that is asked over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// As people and `registries.yaml` name it.
    pub(crate) name: String,
    /// Host and port that are connected to.
    pub(crate) host: String,
    pub(crate) transport: Transport,
}

impl Endpoint {
    pub(crate) fn base(&self) -> String {
        let scheme = match self.transport {
            Transport::Http => "http",
            Transport::Https | Transport::HttpsUnverified => "https",
        };
        format!("{scheme}://{}", self.host)
    }
}

impl Registries {
    /// Looks for mistakes that serde cannot see.
    pub fn check(&self) -> Result<(), SettingsError> {
        let names = self.registries.keys().chain(&self.search);
        let mirrors = self.registries.values().flat_map(|registry| &registry.mirrors);
        if let Some(bad) = names.chain(mirrors).find(|name| !is_registry(name)) {
            return Err(SettingsError::Host { text: bad.clone() });
        }
        for (name, registry) in &self.registries {
            if registry.client_cert.is_some() != registry.client_key.is_some() {
                return Err(SettingsError::HalfCertificate {
                    registry: name.clone(),
                });
            }
        }
        Ok(())
    }

    /// The entry of a registry.
    pub(crate) fn entry(&self, name: &str) -> Option<&Registry> {
        self.registries.get(name)
    }

    pub(crate) fn endpoint(&self, name: &str) -> Endpoint {
        let host = match name {
            DEFAULT_REGISTRY => DOCKER_HUB_HOST,
            other => other,
        };
        let transport = self.entry(name).and_then(|entry| entry.transport);
        Endpoint {
            name: name.to_owned(),
            host: host.to_owned(),
            transport: transport.unwrap_or(Transport::Https),
        }
    }

    /// Where a registry's content is looked for: its mirrors in order, then itself.
    pub(crate) fn sources(&self, name: &str) -> Vec<Endpoint> {
        let mirrors = self.entry(name).map(|entry| entry.mirrors.as_slice());
        let mut sources: Vec<_> = mirrors
            .unwrap_or_default()
            .iter()
            .map(|mirror| self.endpoint(mirror))
            .collect();
        sources.push(self.endpoint(name));
        sources
    }

    /// The complete names that a person's name may stand for, in order; one, unless it is short and there are several places to search.
    pub fn candidates(&self, text: &str) -> Result<Vec<Reference>, ReferenceError> {
        Reference::candidates(text, &self.search)
    }
}

/// The proxies that the environment names. What they are for is the scheme of the place that is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// `HTTPS_PROXY`.
    pub https: Option<String>,
    /// `HTTP_PROXY`.
    pub http: Option<String>,
    /// `NO_PROXY`: hosts, `.domain`, `*`, separated by commas.
    pub no_proxy: String,
}

impl Proxies {
    /// Reads variables as curl and Docker do: the lower-case name counts first, an empty value is none.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| {
            variable(&name.to_ascii_lowercase())
                .or_else(|| variable(name))
                .filter(|value| !value.is_empty())
        };
        Self {
            https: get("HTTPS_PROXY"),
            http: get("HTTP_PROXY"),
            no_proxy: get("NO_PROXY").unwrap_or_default(),
        }
    }

    /// The proxy for a place, with the name of its variable.
    pub(crate) fn of(&self, is_https: bool, host: &str) -> Option<(&'static str, &str)> {
        let (variable, proxy) = match is_https {
            true => ("HTTPS_PROXY", self.https.as_deref()?),
            false => ("HTTP_PROXY", self.http.as_deref()?),
        };
        (!self.is_exempt(host)).then_some((variable, proxy))
    }

    /// Loopback is never asked for through a proxy, as in Go.
    fn is_exempt(&self, host: &str) -> bool {
        let bare = bare_host(host);
        if bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()) {
            return true;
        }
        self.no_proxy.split(',').map(str::trim).any(|pattern| {
            let domain = pattern.trim_start_matches('*').trim_start_matches('.');
            match pattern {
                "" => false,
                "*" => true,
                _ => {
                    host.eq_ignore_ascii_case(pattern)
                        || bare.eq_ignore_ascii_case(domain)
                        || bare
                            .to_ascii_lowercase()
                            .ends_with(&format!(".{}", domain.to_ascii_lowercase()))
                }
            }
        })
    }
}

/// A host without its port and brackets.
pub(crate) fn bare_host(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Registries {
        let registry = |transport, mirrors: &[&str]| Registry {
            transport,
            mirrors: mirrors.iter().map(|&name| name.to_owned()).collect(),
            ..Registry::default()
        };
        Registries {
            search: vec![String::from("docker.io"), String::from("r.example")],
            registries: BTreeMap::from([
                (String::from("docker.io"), registry(None, &["m.local:5000"])),
                (String::from("m.local:5000"), registry(Some(Transport::Http), &[])),
            ]),
        }
    }

    #[test]
    fn mirrors_come_first_and_plain_http_only_where_it_is_configured() {
        let sources = settings().sources("docker.io");
        let bases: Vec<_> = sources.iter().map(Endpoint::base).collect();
        assert_eq!(bases, ["http://m.local:5000", "https://registry-1.docker.io"]);
        assert_eq!(
            settings().endpoint("127.0.0.1:5000").base(),
            "https://127.0.0.1:5000"
        );
    }

    #[test]
    fn only_short_names_are_searched_for() {
        let names = |text: &str| -> Vec<String> {
            let candidates = settings().candidates(text).expect("a name");
            candidates.iter().map(ToString::to_string).collect()
        };
        assert_eq!(names("a/b:1"), ["docker.io/a/b:1", "r.example/a/b:1"]);
        assert_eq!(
            names("app"),
            ["docker.io/library/app:latest", "r.example/app:latest"]
        );
        assert_eq!(names("docker.io/app"), ["docker.io/library/app:latest"]);
        assert_eq!(names("host:1/app"), ["host:1/app:latest"]);
        assert!(settings().candidates("UP").is_err());
    }

    #[test]
    fn mistakes_are_found() {
        assert_eq!(settings().check(), Ok(()));
        for bad in ["https://a", "a/b", "", "a b"] {
            let settings = Registries {
                search: vec![bad.to_owned()],
                ..Registries::default()
            };
            assert!(settings.check().is_err(), "{bad}");
        }
        let mut half = settings();
        half.registries.entry(String::from("x")).or_default().client_key = Some("k".into());
        assert!(half.check().is_err());
    }

    #[test]
    fn proxies_are_for_their_scheme_and_not_for_exempt_hosts() {
        let proxies = Proxies::read(|name| match name {
            "https_proxy" => Some(String::from("http://p:1")),
            "HTTP_PROXY" => Some(String::new()),
            "NO_PROXY" => Some(String::from("a.b, .c.d,e:5")),
            _ => None,
        });
        assert_eq!(proxies.of(true, "x"), Some(("HTTPS_PROXY", "http://p:1")));
        assert_eq!(proxies.of(false, "x"), None);
        for exempt in [
            "a.b",
            "z.a.b:5000",
            "c.d",
            "x.C.D",
            "e:5",
            "127.0.0.1:1",
            "[::1]:2",
            "localhost:3",
        ] {
            assert_eq!(proxies.of(true, exempt), None, "{exempt}");
        }
        for through in ["xa.b", "e:6", "10.0.0.1"] {
            assert!(proxies.of(true, through).is_some(), "{through}");
        }
    }
}
