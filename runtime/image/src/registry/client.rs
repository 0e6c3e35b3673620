//! Connections to registries and mirrors: TLS, proxies, patience.
//!
//! Owns [`Client`]: one per operation, so that an idle daemon holds neither connections nor certificates. Refuses to follow a redirect or to
//! answer a challenge: `session` does, which knows whose credentials they are. Invariant: every wait has an end.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{Certificate, ClientCert, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

use super::error::RegistryError;
use super::settings::{Endpoint, Proxies, Registries, Registry, Transport};

/// Where distributions keep the CA certificates that they trust.
const SYSTEM_BUNDLES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];
/// Largest file of certificates: all that browsers trust are a quarter of it.
const PEM_BYTES_MAX: u64 = 1 << 20;
/// Largest head of an answer; token services send some with 10 KiB of cookies.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Bytes of a connection's buffer, each way.
const BUFFER_BYTES: usize = 64 << 10;

/// How long a registry is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For the head of an answer, and for a whole small document.
    pub answer: Duration,
    /// For the next bytes of a body.
    pub read: Duration,
    /// The time in which a body must bring [`Patience::window_bytes_min`]: a byte now and then is no progress.
    pub window: Duration,
    /// See [`Patience::window`].
    pub window_bytes_min: u64,
    /// How often the same is tried; progress of a layer starts the count anew.
    pub attempts: u32,
    /// The wait before the second attempt; each further one is twice as long.
    pub pause: Duration,
    /// The longest wait, also where the registry asks for a longer one.
    pub pause_max: Duration,
}

impl Patience {
    /// What suits a gateway on a mobile network: a link that is gone for a minute loses nothing.
    pub const DEVICE: Self = Self {
        connect: Duration::from_secs(20),
        answer: Duration::from_secs(60),
        read: Duration::from_secs(30),
        window: Duration::from_secs(60),
        window_bytes_min: 16 << 10,
        attempts: 6,
        pause: Duration::from_secs(1),
        pause_max: Duration::from_secs(60),
    };
}

/// Ends waits early.
#[derive(Debug, Default)]
pub struct Cancel {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl Cancel {
    /// From now on everything ends with [`RegistryError::Cancelled`].
    pub fn set(&self) {
        *locked(&self.is_set) = true;
        self.changed.notify_all();
    }

    pub(crate) fn check(&self) -> Result<(), RegistryError> {
        match *locked(&self.is_set) {
            true => Err(RegistryError::Cancelled),
            false => Ok(()),
        }
    }

    /// Waits, unless it is set meanwhile.
    pub(crate) fn pause(&self, time: Duration) -> Result<(), RegistryError> {
        let waited = self
            .changed
            .wait_timeout_while(locked(&self.is_set), time, |is_set| !*is_set);
        let (is_set, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match *is_set {
            true => Err(RegistryError::Cancelled),
            false => Ok(()),
        }
    }
}

/// What a mutex holds; a panic elsewhere leaves plain values true.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The way to registries, for one operation.
pub struct Client {
    pub(crate) settings: Registries,
    pub(crate) patience: Patience,
    pub(crate) cancel: Arc<Cancel>,
    proxies: Proxies,
    agents: Mutex<HashMap<String, Agent>>,
    system_certificates: OnceLock<Vec<Certificate<'static>>>,
}

impl Client {
    /// Makes a client; nothing is read or connected to yet.
    pub fn new(settings: Registries, proxies: Proxies, patience: Patience) -> Self {
        Self {
            settings,
            patience,
            cancel: Arc::default(),
            proxies,
            agents: Mutex::default(),
            system_certificates: OnceLock::new(),
        }
    }

    /// What ends this client's work early.
    pub fn cancel(&self) -> Arc<Cancel> {
        Arc::clone(&self.cancel)
    }

    /// The settings it was made with.
    pub fn settings(&self) -> &Registries {
        &self.settings
    }

    /// The agent for a place: its own pool, certificates and proxy.
    pub(crate) fn agent(&self, endpoint: &Endpoint) -> Result<Agent, RegistryError> {
        let mut agents = locked(&self.agents);
        let key = endpoint.base();
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        let is_https = endpoint.transport != Transport::Http;
        let proxy = self
            .proxies
            .of(is_https, &endpoint.host)
            .map(|(variable, address)| {
                ureq::Proxy::new(address).map_err(|_| RegistryError::Proxy { variable })
            })
            .transpose()?;
        let patience = &self.patience;
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .https_only(is_https)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy)
            .user_agent(concat!("kakoi/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .max_response_header_size(HEAD_BYTES_MAX)
            .input_buffer_size(BUFFER_BYTES)
            .output_buffer_size(BUFFER_BYTES)
            .timeout_connect(Some(patience.connect))
            .timeout_resolve(Some(patience.connect))
            .timeout_send_request(Some(patience.answer))
            .timeout_recv_response(Some(patience.answer))
            .timeout_per_read(Some(patience.read))
            .timeout_per_write(Some(patience.read));
        if is_https {
            config = config.tls_config(self.tls(endpoint)?);
        }
        let agent = config.build().new_agent();
        agents.insert(key, agent.clone());
        Ok(agent)
    }

    fn tls(&self, endpoint: &Endpoint) -> Result<TlsConfig, RegistryError> {
        let entry = self.settings.entry(&endpoint.name);
        let is_unverified = endpoint.transport == Transport::HttpsUnverified;
        let mut roots = self.system_certificates().to_vec();
        if let Some(ca) = entry.and_then(|entry| entry.ca.as_deref()) {
            let own = certificates(&read_pem(&endpoint.name, ca)?);
            if own.is_empty() {
                return Err(unusable(&endpoint.name, ca, "it holds no certificate"));
            }
            roots.extend(own);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Ok(TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::new_with_certs(&roots))
            .client_cert(
                entry
                    .map(|entry| client_certificate(&endpoint.name, entry))
                    .transpose()?
                    .flatten(),
            )
            .disable_verification(is_unverified)
            .unversioned_rustls_crypto_provider(provider)
            .build())
    }

    /// What the distribution trusts; none where it keeps none, and then only named CAs count.
    fn system_certificates(&self) -> &[Certificate<'static>] {
        self.system_certificates.get_or_init(|| {
            let read = |path: &&str| read_bounded(Path::new(path)).ok();
            let bundle = SYSTEM_BUNDLES.iter().find_map(read);
            if bundle.is_none() {
                tracing::warn!(
                    "no CA certificates on this system: ignoring, only those of registries.yaml count"
                );
            }
            certificates(&bundle.unwrap_or_default())
        })
    }
}

fn certificates(pem: &[u8]) -> Vec<Certificate<'static>> {
    parse_pem(pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect()
}

/// The certificate that this device shows, checked here: the library below would panic at one that does not fit its key.
fn client_certificate(name: &str, entry: &Registry) -> Result<Option<ClientCert>, RegistryError> {
    let (Some(certificate), Some(key)) = (&entry.client_cert, &entry.client_key) else {
        return Ok(None);
    };
    let chain = certificates(&read_pem(name, certificate)?);
    let key_pem = read_pem(name, key)?;
    let private = parse_pem(&key_pem)
        .find_map(|item| match item {
            Ok(PemItem::PrivateKey(key)) => Some(key),
            _ => None,
        })
        .ok_or_else(|| unusable(name, key, "it holds no private key"))?;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let fits = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            let chain = chain
                .iter()
                .map(|one| CertificateDer::from(one.der().to_vec()))
                .collect();
            let key = PrivateKeyDer::from_pem_slice(&key_pem)
                .map_err(|_| rustls::Error::General(String::from("the key is no PEM")))?;
            builder
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_client_auth_cert(chain, key)
        });
    match fits {
        Ok(_) => Ok(Some(ClientCert::new_with_certs(&chain, private))),
        Err(error) => Err(unusable(name, certificate, &error.to_string())),
    }
}

fn read_pem(name: &str, path: &Path) -> Result<Vec<u8>, RegistryError> {
    read_bounded(path).map_err(|error| unusable(name, path, &error.to_string()))
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(PEM_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    match bytes.len() as u64 > PEM_BYTES_MAX {
        true => Err(io::Error::other("it is too large")),
        false => Ok(bytes),
    }
}

fn unusable(registry: &str, path: &Path, reason: &str) -> RegistryError {
    RegistryError::Settings {
        registry: registry.to_owned(),
        // Clients of the API learn no path of the host; the name tells the owner enough.
        path: path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        reason: reason.to_owned(),
    }
}

/// Sorts what the library below says.
pub(crate) fn transport_error(registry: &str, doing: &'static str, error: ureq::Error) -> RegistryError {
    let registry = registry.to_owned();
    match error {
        ureq::Error::Timeout(_) => RegistryError::TimedOut { registry, doing },
        ureq::Error::Io(source) => io_error(registry, doing, source),
        ureq::Error::Rustls(error) => RegistryError::Tls {
            registry,
            source: io::Error::other(error),
        },
        ureq::Error::Tls(_) | ureq::Error::TlsRequired => RegistryError::Tls {
            registry,
            source: error.into_io(),
        },
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed | ureq::Error::ConnectProxyFailed(_) => {
            RegistryError::Unreachable {
                registry,
                source: error.into_io(),
            }
        }
        other => RegistryError::Protocol {
            registry,
            reason: super::error::plain(&other.to_string()),
        },
    }
}

/// The same for what comes out of a body.
pub(crate) fn io_error(registry: String, doing: &'static str, source: io::Error) -> RegistryError {
    let inner = source.get_ref();
    if inner.is_some_and(|inner| inner.is::<rustls::Error>()) {
        return RegistryError::Tls { registry, source };
    }
    if inner.is_some_and(|inner| inner.is::<ureq::Error>()) {
        return transport_error(&registry, doing, ureq::Error::from(source));
    }
    match source.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => RegistryError::TimedOut { registry, doing },
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => RegistryError::Protocol {
            registry,
            reason: super::error::plain(&source.to_string()),
        },
        _ => RegistryError::Unreachable { registry, source },
    }
}
