//! A registry in a thread, as good or as bad as a test wants: raw bytes over `std::net`, with TLS where asked for.
//!
//! Owns [`Server`], which stops with its test, and [`Shelf`], the content of a good registry. An answer closes its connection, so that each
//! request is a connection of its own and a test can cut one.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::digest::Digest;
use crate::registry::{Client, Patience, Proxies, Registries, Registry, Transport};

/// What a client said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Both ends of a connection in one, TLS or not.
pub(crate) trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

type Handler = dyn Fn(&Request, &mut dyn Wire) + Send + Sync;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stopped: Arc<AtomicBool>,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub(crate) fn start(handler: impl Fn(&Request, &mut dyn Wire) + Send + Sync + 'static) -> Self {
        Self::listen(None, handler)
    }

    pub(crate) fn start_tls(
        tls: rustls::ServerConfig,
        handler: impl Fn(&Request, &mut dyn Wire) + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Some(Arc::new(tls)), handler)
    }

    fn listen(
        tls: Option<Arc<rustls::ServerConfig>>,
        handler: impl Fn(&Request, &mut dyn Wire) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        let stopped = Arc::new(AtomicBool::new(false));
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (is_stopped, noted, handler) = (stopped.clone(), requests.clone(), Arc::new(handler));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if is_stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (handler, noted, tls) = (handler.clone(), noted.clone(), tls.clone());
                std::thread::spawn(move || serve(stream, tls, &noted, &*handler));
            }
        });
        Self {
            address,
            stopped,
            requests,
        }
    }

    /// `127.0.0.1:port`.
    pub(crate) fn name(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("not poisoned").clone()
    }

    /// How many requests had a path that holds `part`.
    pub(crate) fn count(&self, part: &str) -> usize {
        self.requests()
            .iter()
            .filter(|request| request.path.contains(part))
            .count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
    }
}

fn serve(
    stream: TcpStream,
    tls: Option<Arc<rustls::ServerConfig>>,
    noted: &Mutex<Vec<Request>>,
    handler: &Handler,
) {
    let limit = Some(Duration::from_secs(20));
    stream.set_read_timeout(limit).expect("a limit");
    stream.set_write_timeout(limit).expect("a limit");
    let mut wire: Box<dyn Wire> = match tls {
        None => Box::new(stream),
        Some(config) => {
            let connection = rustls::ServerConnection::new(config).expect("a configuration");
            Box::new(rustls::StreamOwned::new(connection, stream))
        }
    };
    match read(&mut *wire) {
        Some(request) => {
            noted.lock().expect("not poisoned").push(request.clone());
            handler(&request, &mut *wire);
        }
        // TLS where none is spoken, or a client that hung up.
        None => reply(&mut *wire, 400, &[], b"no HTTP"),
    }
    drop(wire.flush());
}

fn read(wire: &mut dyn Wire) -> Option<Request> {
    let mut reader = BufReader::new(wire);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let mut words = line.split_whitespace();
    let mut request = Request {
        method: words.next()?.to_owned(),
        path: words.next()?.to_owned(),
        ..Request::default()
    };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        request
            .headers
            .insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = request.header("content-length").parse().unwrap_or(0);
    request.body = vec![0; length];
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
}

/// An answer as bytes.
pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} Whatever\r\nConnection: close\r\n");
    if !headers
        .iter()
        .any(|(name, _)| matches!(*name, "Content-Length" | "Transfer-Encoding"))
    {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

/// Sends an answer; a client that went away is its own affair.
pub(crate) fn reply(wire: &mut dyn Wire, status: u16, headers: &[(&str, &str)], body: &[u8]) {
    drop(wire.write_all(&answer(status, headers, body)));
}

/// What a good registry has: documents and blobs by digest, tags, uploads in progress.
#[derive(Clone, Default)]
pub(crate) struct Shelf {
    content: Arc<Mutex<Content>>,
}

#[derive(Default)]
struct Content {
    blobs: BTreeMap<String, Vec<u8>>,
    /// Tag or digest, content type, bytes.
    manifests: BTreeMap<String, (String, Vec<u8>)>,
    /// Uploads that were begun, ended ones among them: each has a name of its own.
    uploads_begun: u64,
    uploads: BTreeMap<String, Vec<u8>>,
}

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

impl Shelf {
    pub(crate) fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes).to_string();
        let mut content = self.content.lock().expect("not poisoned");
        content.blobs.insert(digest.clone(), bytes.to_vec());
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    pub(crate) fn manifest(&self, tag: &str, media_type: &str, document: &Value) -> Value {
        self.manifest_bytes(tag, media_type, &serde_json::to_vec(document).expect("json"))
    }

    pub(crate) fn manifest_bytes(&self, tag: &str, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes).to_string();
        let mut content = self.content.lock().expect("not poisoned");
        for name in [tag, &digest] {
            content
                .manifests
                .insert(name.to_owned(), (media_type.to_owned(), bytes.to_vec()));
        }
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// An image of layers that are given uncompressed, with what packs them.
    pub(crate) fn image(&self, tag: &str, layers: &[Vec<u8>], pack: &dyn Fn(&[u8]) -> Vec<u8>) -> Value {
        let config = super::super::build::config(layers, json!({}));
        let layers: Vec<Value> = layers.iter().map(|layer| self.blob(GZIP, &pack(layer))).collect();
        let config = self.blob(CONFIG, &config);
        let document = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        self.manifest(tag, MANIFEST, &document)
    }

    pub(crate) fn has_blob(&self, digest: &str) -> bool {
        self.content
            .lock()
            .expect("not poisoned")
            .blobs
            .contains_key(digest)
    }

    pub(crate) fn blob_of(&self, digest: &str) -> Option<Vec<u8>> {
        self.content
            .lock()
            .expect("not poisoned")
            .blobs
            .get(digest)
            .cloned()
    }

    pub(crate) fn manifest_of(&self, name: &str) -> Option<Vec<u8>> {
        let content = self.content.lock().expect("not poisoned");
        content.manifests.get(name).map(|(_, bytes)| bytes.clone())
    }

    /// Answers as the distribution project's registry does.
    pub(crate) fn answer(&self, request: &Request, wire: &mut dyn Wire) {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let mut content = self.content.lock().expect("not poisoned");
        let body = |bytes: &[u8]| match request.method.as_str() {
            "HEAD" => Vec::new(),
            _ => bytes.to_vec(),
        };
        match (request.method.as_str(), &parts[..]) {
            ("GET" | "HEAD", [.., "manifests", name]) => match content.manifests.get(*name) {
                Some((kind, bytes)) => {
                    let length = bytes.len().to_string();
                    let digest = Digest::of(bytes).to_string();
                    let headers = [
                        ("Content-Type", kind.as_str()),
                        ("Content-Length", &length),
                        ("Docker-Content-Digest", &digest),
                    ];
                    reply(wire, 200, &headers, &body(bytes));
                }
                None => missing(wire, "MANIFEST_UNKNOWN", "manifest unknown"),
            },
            ("GET" | "HEAD", [.., "blobs", digest]) => match content.blobs.get(*digest) {
                Some(bytes) => ranged(request, wire, bytes),
                None => missing(wire, "BLOB_UNKNOWN", "blob unknown to registry"),
            },
            ("POST", [.., "blobs", "uploads", ""]) => {
                let mounted = query.split('&').find_map(|pair| pair.strip_prefix("mount="));
                let mounted = mounted.map(|digest| digest.replace("%3A", ":"));
                if mounted.is_some_and(|digest| content.blobs.contains_key(&digest)) {
                    return reply(wire, 201, &[("Location", "/done")], b"");
                }
                content.uploads_begun += 1;
                let name = content.uploads_begun.to_string();
                content.uploads.insert(name.clone(), Vec::new());
                reply(
                    wire,
                    202,
                    &[("Location", &format!("/v2/uploads/{name}?state=x"))],
                    b"",
                );
            }
            ("PATCH" | "PUT", ["v2", "uploads", name]) => {
                let upload = content.uploads.get_mut(*name).expect("it was begun");
                upload.extend_from_slice(&request.body);
                let end = upload.len().saturating_sub(1);
                if request.method == "PATCH" {
                    let place = format!("/v2/uploads/{name}?state=y");
                    return reply(
                        wire,
                        202,
                        &[("Location", &place), ("Range", &format!("0-{end}"))],
                        b"",
                    );
                }
                let bytes = content.uploads.remove(*name).expect("it was begun");
                let digest = Digest::of(&bytes).to_string();
                let wanted = query.split('&').find_map(|pair| pair.strip_prefix("digest="));
                assert_eq!(
                    wanted.map(|wanted| wanted.replace("%3A", ":")),
                    Some(digest.clone())
                );
                content.blobs.insert(digest, bytes);
                reply(wire, 201, &[("Location", "/done")], b"");
            }
            ("PUT", [.., "manifests", name]) => {
                let kind = request.header("content-type").to_owned();
                let digest = Digest::of(&request.body).to_string();
                for name in [*name, &digest] {
                    content
                        .manifests
                        .insert(name.to_owned(), (kind.clone(), request.body.clone()));
                }
                reply(wire, 201, &[("Location", "/done")], b"");
            }
            _ => missing(wire, "NOT_FOUND", "page not found"),
        }
    }
}

fn missing(wire: &mut dyn Wire, code: &str, message: &str) {
    let document = json!({"errors": [{"code": code, "message": message}]});
    reply(wire, 404, &[], &serde_json::to_vec(&document).expect("json"));
}

fn ranged(request: &Request, wire: &mut dyn Wire, bytes: &[u8]) {
    let length = bytes.len();
    if request.method == "HEAD" {
        return reply(wire, 200, &[("Content-Length", &length.to_string())], b"");
    }
    let range = request.header("range").strip_prefix("bytes=");
    let range = range.and_then(|range| {
        let (first, last) = range.split_once('-')?;
        Some((first.parse::<usize>().ok()?, last.parse().unwrap_or(length - 1)))
    });
    match range {
        None => reply(wire, 200, &[], bytes),
        Some((first, last)) => {
            let range = format!("bytes {first}-{last}/{length}");
            reply(wire, 206, &[("Content-Range", &range)], &bytes[first..=last]);
        }
    }
}

/// Patience that a test has: everything that is slow is too slow.
pub(crate) const IMPATIENT: Patience = Patience {
    connect: Duration::from_secs(5),
    answer: Duration::from_millis(900),
    read: Duration::from_millis(400),
    window: Duration::from_millis(300),
    window_bytes_min: 4 << 10,
    attempts: 4,
    pause: Duration::from_millis(5),
    pause_max: Duration::from_millis(1500),
};

/// A client that may speak plain HTTP to the servers named.
pub(crate) fn client(servers: &[&Server]) -> Client {
    let mut settings = Registries::default();
    for server in servers {
        let registry = Registry {
            transport: Some(Transport::Http),
            ..Registry::default()
        };
        settings.registries.insert(server.name(), registry);
    }
    Client::new(settings, Proxies::default(), IMPATIENT)
}
