//! TLS: whose certificates are taken, and which are shown.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::server::{IMPATIENT, Server, Shelf, reply};
use super::{gzip, inventory, layers, pull, reference, root};
use crate::registry::*;
use crate::*;

/// An authority, and what it signs.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.0).expect("signed"), key)
    }

    pub(super) fn server(&self, name: &str, clients: Option<&Self>) -> ServerConfig {
        let (certificate, key) = self.issue(name);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.0.der().clone()).expect("a root");
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.expect("a verifier"))
            }
        };
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
        builder.with_single_cert(chain, key).expect("a configuration")
    }

    pub(super) fn write(&self, folder: &Path, name: &str) -> std::path::PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, self.0.pem()).expect("written");
        path
    }
}

pub(super) fn tls_client(server: &Server, entry: Registry) -> Client {
    let mut settings = Registries::default();
    settings.registries.insert(server.name(), entry);
    Client::new(settings, Proxies::default(), IMPATIENT)
}

#[test]
fn only_a_certificate_that_is_trusted_for_the_name_is_taken() {
    if !root("only_a_certificate_that_is_trusted_for_the_name_is_taken") {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let store = ImageStore::open(dir.path()).expect("open");
    let shelf = Shelf::default();
    shelf.image("1", &layers(), &gzip);
    let (authority, other) = (Authority::new(), Authority::new());
    let start = |tls| {
        let served = shelf.clone();
        Server::start_tls(tls, move |request, wire| served.answer(request, wire))
    };
    let ca = Some(authority.write(dir.path(), "ca.pem"));
    let foreign = Some(other.write(dir.path(), "other.pem"));
    let trusting = |ca| Registry {
        ca,
        ..Registry::default()
    };
    let good = start(authority.server("127.0.0.1", None));
    let misnamed = start(authority.server("registry.example", None));
    let plain = Server::start(|_, wire| reply(wire, 200, &[], b"hello"));
    for (what, server, entry) in [
        ("unknown authority", &good, Registry::default()),
        ("another authority", &good, trusting(foreign)),
        ("another name", &misnamed, trusting(ca.clone())),
        ("no TLS at all", &plain, Registry::default()),
    ] {
        let refused = pull(&store, &tls_client(server, entry), &reference(server, "a:1"));
        assert!(
            matches!(refused, Err(PullError::Registry(RegistryError::Tls { .. }))),
            "{what}: {refused:?}"
        );
        assert!(server.requests().is_empty(), "{what}");
        assert!(inventory(dir.path()).is_empty(), "{what}");
    }
    for broken in ["nowhere.pem", "empty.pem"] {
        std::fs::write(dir.path().join("empty.pem"), "nothing").expect("written");
        let refused = pull(
            &store,
            &tls_client(&good, trusting(Some(dir.path().join(broken)))),
            &reference(&good, "a:1"),
        );
        assert!(
            matches!(refused, Err(PullError::Registry(RegistryError::Settings { .. }))),
            "{refused:?}"
        );
    }
    pull(&store, &tls_client(&good, trusting(ca)), &reference(&good, "a:1")).expect("trusted");
    let unverified = Registry {
        transport: Some(Transport::HttpsUnverified),
        ..Registry::default()
    };
    pull(
        &store,
        &tls_client(&misnamed, unverified),
        &reference(&misnamed, "a:1"),
    )
    .expect("the owner wants it so");
}

#[test]
fn this_device_shows_its_certificate_where_it_is_configured() {
    if !root("this_device_shows_its_certificate_where_it_is_configured") {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let store = ImageStore::open(dir.path()).expect("open");
    let shelf = Shelf::default();
    shelf.image("1", &layers(), &gzip);
    let authority = Authority::new();
    let server = Server::start_tls(
        authority.server("127.0.0.1", Some(&authority)),
        move |request, wire| {
            shelf.answer(request, wire);
        },
    );
    let (certificate, key) = authority.issue("device");
    let (_, foreign) = authority.issue("other");
    let file = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        Some(path)
    };
    let mut entry = Registry {
        ca: Some(authority.write(dir.path(), "ca.pem")),
        ..Registry::default()
    };
    let name = reference(&server, "a:1");
    assert!(pull(&store, &tls_client(&server, entry.clone()), &name).is_err());
    entry.client_cert = file("device.pem", certificate.pem());
    entry.client_key = file("other.key", foreign.serialize_pem());
    let refused = pull(&store, &tls_client(&server, entry.clone()), &name);
    assert!(
        matches!(refused, Err(PullError::Registry(RegistryError::Settings { .. }))),
        "{refused:?}"
    );
    entry.client_key = file("device.key", key.serialize_pem());
    pull(&store, &tls_client(&server, entry), &name).expect("known");
}
