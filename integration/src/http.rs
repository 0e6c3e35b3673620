//! HTTP as bytes on a unix socket: what a client library would smooth over is what the tests look at.
//!
//! Knows heads, lengths and chunks, and Docker's frames. Invariant: nothing is read ahead of what was asked for, so that a stream can follow a head.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

/// An engine that says nothing for this long will not.
const LIMIT: Duration = Duration::from_secs(60);
/// Bytes of a head: more is no head.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// An engine's socket.
#[derive(Clone, Debug)]
pub struct Engine(pub PathBuf);

/// The head of an answer.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// The first line.
    pub line: String,
    /// The status; 0 where there is no answer.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// A header's value; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        let mut headers = self.headers.iter();
        headers
            .find(|(held, _)| held == name)
            .map_or("", |(_, value)| value)
    }
}

/// A whole answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Its head.
    pub head: Head,
    /// Its body, without chunks.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The `message` of an error.
    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }
}

impl Engine {
    /// The engine at a socket.
    pub fn at(socket: impl AsRef<Path>) -> Self {
        Self(socket.as_ref().to_owned())
    }

    /// A connection.
    #[track_caller]
    pub fn connect(&self) -> Talk {
        let stream = UnixStream::connect(&self.0).expect("the engine listens");
        stream.set_read_timeout(Some(LIMIT)).expect("setting a limit");
        stream.set_write_timeout(Some(LIMIT)).expect("setting a limit");
        Talk(stream)
    }

    /// Sends a request of this head (request line and headers, without the empty line) and waits for nothing.
    #[track_caller]
    pub fn send(&self, head: &str, body: &[u8]) -> Talk {
        let mut talk = self.connect();
        talk.write(format!("{}\r\n\r\n", head.replace('\n', "\r\n")).as_bytes());
        talk.write(body);
        talk
    }

    /// One request and its whole answer.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        self.ask_bytes(method, path, "application/json", &bytes)
    }

    /// The same with a body of any kind.
    #[track_caller]
    pub fn ask_bytes(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Answer {
        let kind = match body {
            [] => String::new(),
            _ => format!("\nContent-Type: {kind}"),
        };
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\nHost: docker{kind}\nContent-Length: {length}\nConnection: close"
        );
        self.send(&head, body).answer(method != "HEAD")
    }

    /// One request that must be answered with `status`; its JSON.
    #[track_caller]
    pub fn must(&self, status: u16, method: &str, path: &str, body: Option<&Value>) -> Value {
        let answer = self.ask(method, path, body);
        let text = answer.text();
        assert_eq!(answer.head.status, status, "{method} {path}: {text}");
        answer.json()
    }
}

/// A connection.
#[derive(Debug)]
pub struct Talk(pub UnixStream);

impl Talk {
    /// Writes; an engine that refuses early closes early, which shows when its answer is read.
    pub fn write(&mut self, bytes: &[u8]) {
        drop(self.0.write_all(bytes));
    }

    /// Closes this direction, as at the end of standard input.
    pub fn close_write(&self) {
        drop(self.0.shutdown(Shutdown::Write));
    }

    /// Reads so many bytes, or as many as there are before the end.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        // What breaks off is short.
        drop((&mut self.0).take(count as u64).read_to_end(&mut bytes));
        bytes
    }

    /// Reads to the end; panics where there is none in time.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.0.read_to_end(&mut bytes) {
            Ok(_) => bytes,
            // A connection that is reset has ended, too.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => bytes,
            Err(error) => panic!("{error} behind {:?}", String::from_utf8_lossy(&bytes)),
        }
    }

    /// Reads up to and with `end`.
    #[track_caller]
    pub fn until(&mut self, end: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(end) && bytes.len() < HEAD_BYTES_MAX {
            match self.take(1).as_slice() {
                [byte] => bytes.push(*byte),
                _ => break,
            }
        }
        bytes
    }

    /// Reads a head.
    #[track_caller]
    pub fn head(&mut self) -> Head {
        let text = self.until(b"\r\n\r\n");
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut lines = text.lines();
        let line = lines.next().unwrap_or_default().to_owned();
        let headers = lines.filter_map(|line| line.split_once(':'));
        Head {
            status: line
                .split(' ')
                .nth(1)
                .and_then(|word| word.parse().ok())
                .unwrap_or(0),
            headers: headers
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
                .collect(),
            line,
        }
    }

    /// Reads one chunk of a chunked body; empty at its end.
    #[track_caller]
    pub fn chunk(&mut self) -> Vec<u8> {
        let line = self.until(b"\r\n");
        let line = String::from_utf8_lossy(&line);
        let length = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
        let bytes = self.take(length);
        self.take(2);
        bytes
    }

    /// Reads an answer to its end; `false` for one that has no body, whatever its head says.
    #[track_caller]
    pub fn answer(&mut self, has_body: bool) -> Answer {
        let mut head = self.head();
        while head.status == 100 {
            head = self.head();
        }
        let mut body = Vec::new();
        if has_body && head.header("transfer-encoding") == "chunked" {
            loop {
                match self.chunk() {
                    chunk if chunk.is_empty() => break,
                    chunk => body.extend(chunk),
                }
            }
        } else if has_body && !matches!(head.status, 101 | 204 | 304) {
            body = match head.header("content-length").parse() {
                Ok(length) => self.take(length),
                Err(_) => self.rest(),
            };
        }
        Answer { head, body }
    }

    /// Reads one frame of Docker's; `None` at the end.
    #[track_caller]
    pub fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let header: [u8; 8] = self.take(8).try_into().ok()?;
        let [stream, 0, 0, 0, a, b, c, d] = header else {
            panic!("no frame: {header:?}");
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        Some((stream, self.take(length)))
    }
}

/// A stream of frames, taken apart: standard output and standard error.
#[track_caller]
pub fn unframed(bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut rest = bytes;
    while let Some((header, after)) = rest.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        assert!(length <= after.len(), "a frame that breaks off: {header:?}");
        match header[..4] {
            [1, 0, 0, 0] => out.extend_from_slice(&after[..length]),
            [2, 0, 0, 0] => err.extend_from_slice(&after[..length]),
            _ => panic!("no frame: {header:?}"),
        }
        rest = &after[length..];
    }
    assert!(rest.is_empty(), "half a frame: {rest:?}");
    (out, err)
}
