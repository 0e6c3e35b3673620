//! A daemon that answers what a test wrote down: one thread per connection, raw bytes, no HTTP library, so that broken answers can be given too.
//!
//! Owns the socket and the record of requests. Invariant: a request that nothing was written down for gets 404 and stands in the record.
#![allow(dead_code)]

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What a request is answered with.
type Handler = Box<dyn Fn(&Request, &mut UnixStream) + Send + Sync>;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    /// `POST /kakoi/v1/…` with its query.
    pub line: String,
    /// The body, unchunked.
    pub body: Vec<u8>,
}

/// The requests so far.
#[derive(Default)]
struct Record {
    requests: Mutex<Vec<Request>>,
    changed: Condvar,
}

/// A fake daemon and the folder it lives in.
pub struct Fake {
    folder: tempfile::TempDir,
    record: Arc<Record>,
    handlers: Arc<Mutex<HashMap<String, Arc<Handler>>>>,
}

impl Fake {
    /// Listens.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("kakoid.sock")).expect("a socket");
        let record = Arc::new(Record::default());
        let handlers: Arc<Mutex<HashMap<String, Arc<Handler>>>> = Arc::default();
        let (its_record, its_handlers) = (Arc::clone(&record), Arc::clone(&handlers));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (record, handlers) = (Arc::clone(&its_record), Arc::clone(&its_handlers));
                std::thread::spawn(move || serve(stream, &record, &handlers));
            }
        });
        Self {
            folder,
            record,
            handlers,
        }
    }

    /// Writes an answer down; `route` is method and path without prefix and query.
    pub fn on(
        &self,
        route: &str,
        handler: impl Fn(&Request, &mut UnixStream) + Send + Sync + 'static,
    ) -> &Self {
        self.handlers
            .lock()
            .expect("not poisoned")
            .insert(route.to_owned(), Arc::new(Box::new(handler)));
        self
    }

    /// Writes a JSON answer down.
    pub fn json(&self, route: &str, status: u16, body: &str) -> &Self {
        let answer = answer(status, "application/json", body.as_bytes());
        self.on(route, move |_, stream| {
            stream.write_all(&answer).expect("written")
        })
    }

    /// The program, pointed at this daemon.
    pub fn kakoi(&self, words: &[&str]) -> Command {
        let mut command = kakoi(words);
        command.env(
            "KAKOI_HOST",
            format!("unix://{}", self.folder.path().join("kakoid.sock").display()),
        );
        command
    }

    /// Runs the program to its end, without input.
    pub fn run(&self, words: &[&str]) -> Ran {
        ran(self.kakoi(words).stdin(Stdio::null()).output().expect("it runs"))
    }

    /// Starts the program with pipes.
    pub fn spawn(&self, words: &[&str]) -> Child {
        self.kakoi(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts")
    }

    /// The request lines so far, without the prefix.
    pub fn lines(&self) -> Vec<String> {
        let requests = self.record.requests.lock().expect("not poisoned");
        requests
            .iter()
            .map(|request| request.line.replacen("/kakoi/v1", "", 1))
            .collect()
    }

    /// Waits for a request whose line begins so, and hands it out.
    pub fn wait_for(&self, beginning: &str) -> Request {
        let deadline = Instant::now() + PATIENCE;
        let mut requests = self.record.requests.lock().expect("not poisoned");
        loop {
            let found = requests
                .iter()
                .find(|request| request.line.replacen("/kakoi/v1", "", 1).starts_with(beginning));
            if let Some(request) = found {
                return request.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no request {beginning:?} among {requests:?}");
            requests = self
                .record
                .changed
                .wait_timeout(requests, left)
                .expect("not poisoned")
                .0;
        }
    }

    /// A file in the test's folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// The program.
pub fn kakoi(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kakoi"));
    command
        .args(words)
        .env_remove("KAKOI_HOST")
        .env("COLUMNS", "100")
        .env("NO_COLOR", "1");
    command
}

/// How the program ended.
#[derive(Debug)]
pub struct Ran {
    /// Exit status.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Reads how the program ended.
pub fn ran(output: Output) -> Ran {
    Ran {
        status: output.status.code().expect("it was not killed"),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

/// A whole answer.
pub fn answer(status: u16, kind: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// The head of an answer that hands the connection over.
pub const UPGRADE: &[u8] = b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";

/// A frame of output.
pub fn frame(stream: u8, bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![stream, 0, 0, 0];
    frame.extend_from_slice(&u32::try_from(bytes.len()).expect("short").to_be_bytes());
    frame.extend_from_slice(bytes);
    frame
}

/// A chunk of a chunked body.
pub fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

/// The head of a chunked answer.
pub const CHUNKED: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";

fn serve(stream: UnixStream, record: &Record, handlers: &Mutex<HashMap<String, Arc<Handler>>>) {
    let mut reader = BufReader::new(stream.try_clone().expect("cloned"));
    let mut writer = stream;
    while let Some(request) = read(&mut reader) {
        let route = request.line.replacen("/kakoi/v1", "", 1);
        let route = route.split('?').next().expect("there is a first part").to_owned();
        let handler = handlers.lock().expect("not poisoned").get(&route).cloned();
        record
            .requests
            .lock()
            .expect("not poisoned")
            .push(request.clone());
        record.changed.notify_all();
        match handler {
            Some(handler) => handler(&request, &mut writer),
            None => {
                let body = format!("{{\"message\":\"the fake knows no {route}\"}}");
                if writer
                    .write_all(&answer(404, "application/json", body.as_bytes()))
                    .is_err()
                {
                    return;
                }
            }
        }
    }
}

fn read(reader: &mut BufReader<UnixStream>) -> Option<Request> {
    let mut first = String::new();
    if reader.read_line(&mut first).ok()? == 0 {
        return None;
    }
    let (mut length, mut is_chunked) = (0usize, false);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length: ") {
            length = value.parse().expect("a length");
        }
        is_chunked |= header == "transfer-encoding: chunked";
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    while is_chunked {
        let mut size = String::new();
        reader.read_line(&mut size).ok()?;
        let size = usize::from_str_radix(size.trim_end(), 16).expect("a size");
        let mut piece = vec![0; size + 2];
        reader.read_exact(&mut piece).ok()?;
        body.extend_from_slice(&piece[..size]);
        is_chunked = size > 0;
    }
    let line = first
        .trim_end()
        .strip_suffix(" HTTP/1.1")
        .expect("HTTP/1.1")
        .to_owned();
    Some(Request { line, body })
}
