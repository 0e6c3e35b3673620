//! TLS: whose certificates are taken, and which are shown.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
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
        let now = jiff::Timestamp::now();
        let year = jiff::SignedDuration::from_hours(24 * 365);
        self.issue_for(name, (now - year, now + year))
    }

    /// One that holds between two times.
    fn issue_for(
        &self,
        name: &str,
        (from, until): (jiff::Timestamp, jiff::Timestamp),
    ) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let day = |time: jiff::Timestamp| {
            let date = time.to_zoned(jiff::tz::TimeZone::UTC).date();
            rcgen::date_time_ymd(i32::from(date.year()), date.month() as u8, date.day() as u8)
        };
        (params.not_before, params.not_after) = (day(from), day(until));
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.0).expect("signed"), key)
    }

    pub(super) fn server(&self, name: &str, clients: Option<&Self>) -> ServerConfig {
        Self::configured(self.issue(name), clients)
    }

    fn configured((certificate, key): (rcgen::Certificate, KeyPair), clients: Option<&Self>) -> ServerConfig {
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

/// Passes bytes on between a client and a server, and does something to what the server said, connection by connection. Ends with its process.
struct Tampering;

impl Tampering {
    fn start(behind: SocketAddr, harm: fn(&mut Vec<u8>) -> bool) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect(behind).expect("it listens");
                std::thread::spawn(move || Self::pass_on(client, server, harm));
            }
        });
        address
    }

    fn pass_on(mut client: TcpStream, mut server: TcpStream, harm: fn(&mut Vec<u8>) -> bool) {
        let (mut said, mut asked) = (
            client.try_clone().expect("a copy"),
            server.try_clone().expect("a copy"),
        );
        std::thread::spawn(move || drop(std::io::copy(&mut said, &mut asked)));
        let (mut seen, mut sent) = (Vec::new(), 0);
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = server.read(&mut buffer) {
            seen.extend_from_slice(&buffer[..count]);
            let whole = seen.len();
            let cuts = harm(&mut seen);
            if client.write_all(&seen[sent.min(seen.len())..]).is_err() || cuts && seen.len() < whole {
                break;
            }
            sent = seen.len();
        }
        drop(client.shutdown(Shutdown::Both));
        drop(server.shutdown(Shutdown::Both));
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
fn a_certificate_out_of_its_time_is_not_taken() {
    if !root("a_certificate_out_of_its_time_is_not_taken") {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let store = ImageStore::open(dir.path()).expect("open");
    let authority = Authority::new();
    let entry = Registry {
        ca: Some(authority.write(dir.path(), "ca.pem")),
        ..Registry::default()
    };
    let now = jiff::Timestamp::now();
    let days = |days: i64| jiff::SignedDuration::from_hours(24 * days);
    for (what, times) in [
        ("expired", (now - days(9), now - days(2))),
        ("not yet valid", (now + days(2), now + days(9))),
    ] {
        let shelf = Shelf::default();
        shelf.image("1", &layers(), &gzip);
        let config = Authority::configured(authority.issue_for("127.0.0.1", times), None);
        let server = Server::start_tls(config, move |request, wire| shelf.answer(request, wire));
        let refused = pull(
            &store,
            &tls_client(&server, entry.clone()),
            &reference(&server, "a:1"),
        );
        let error = refused.expect_err(what);
        assert!(
            matches!(error, PullError::Registry(RegistryError::Tls { .. })),
            "{what}: {error:?}"
        );
        let said = client_message(&error);
        assert!(
            said.contains("certificate") && !said.contains('\n'),
            "{what}: {said}"
        );
        assert!(
            server.requests().is_empty() && inventory(dir.path()).is_empty(),
            "{what}"
        );
    }
}

#[test]
fn tls_that_breaks_in_the_middle_is_no_end_of_a_body() {
    if !root("tls_that_breaks_in_the_middle_is_no_end_of_a_body") {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let store = ImageStore::open(dir.path()).expect("open");
    let authority = Authority::new();
    let entry = Registry {
        ca: Some(authority.write(dir.path(), "ca.pem")),
        ..Registry::default()
    };
    let shelf = Shelf::default();
    shelf.image("1", &layers()[..1], &gzip);
    // A proxy of bytes between the two: what it does to them is what a network can do.
    type Harm = fn(&mut Vec<u8>) -> bool;
    let cases: [(&str, Harm); 3] = [
        ("cut off in the handshake", |bytes| {
            bytes.truncate(40);
            true
        }),
        ("cut off in a body, without a farewell", |bytes| {
            bytes.truncate(9_000);
            true
        }),
        ("a bit that fell over", |bytes| {
            if let Some(byte) = bytes.get_mut(8_000) {
                *byte ^= 1;
            }
            false
        }),
    ];
    for (what, harm) in cases {
        let served = shelf.clone();
        let behind = Server::start_tls(authority.server("127.0.0.1", None), move |request, wire| {
            served.answer(request, wire);
        });
        let proxy = Tampering::start(behind.address, harm);
        let mut settings = Registries::default();
        settings.registries.insert(proxy.to_string(), entry.clone());
        let client = Client::new(settings, Proxies::default(), IMPATIENT);
        let name = Reference::parse(&format!("{proxy}/a:1")).expect("a name");
        let error = pull(&store, &client, &name).expect_err(what);
        let said = client_message(&error);
        assert!(matches!(error, PullError::Registry(_)), "{what}: {error:?}");
        assert!(!said.contains('\n') && said.len() < 600, "{what}: {said}");
        assert!(inventory(dir.path()).is_empty(), "{what}");
    }
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
