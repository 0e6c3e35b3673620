//! WebSocket (RFC 6455), the server's side, as far as carrying bytes needs it.
//!
//! Knows handshakes and frames and nothing of what is carried. Payloads pass through as they come: no message is ever held, however long it is. Invariant:
//! after a client's close frame what the app says is still delivered, as on any other attached stream; crates of the field close both directions then.
//!
//! ```text
//! 82 03  6f 6b 0a                        "ok\n", one binary message of a server's
//! 82 83  01 02 03 04  6e 69 09           the same of a client's, masked with 01 02 03 04
//! 88 02  03 e8                           close, code 1000
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::Mutex;

use crate::refusal::{Answer, Refusal};

/// What a key is hashed with (RFC 6455, 4.2.2).
const KEY_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Bytes of a key, decoded.
const KEY_BYTES: usize = 16;
/// Bytes carried at a time.
const CHUNK_BYTES: usize = 32 << 10;
/// Payload of a control frame (RFC 6455, 5.5).
const CONTROL_BYTES_MAX: usize = 125;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The code of an end without trouble.
const NORMAL: u16 = 1000;
/// The code of a client that breaks the protocol.
const PROTOCOL_ERROR: u16 = 1002;

/// Looks at a request that wants to become a WebSocket, and says which headers the answer has.
pub fn accept(headers: &HeaderMap) -> Answer<Vec<(HeaderName, HeaderValue)>> {
    let text = |name: HeaderName| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let has = |name: HeaderName, word: &str| {
        let mut words = text(name).split(',');
        words.any(|held| held.trim().eq_ignore_ascii_case(word))
    };
    if !has(UPGRADE, "websocket") || !has(CONNECTION, "upgrade") {
        return Err(Refusal::bad("not websocket protocol"));
    }
    if text(SEC_WEBSOCKET_VERSION) != "13" {
        return Err(Refusal::bad(
            "missing or bad WebSocket Version: version 13 is spoken",
        ));
    }
    let key = text(SEC_WEBSOCKET_KEY).trim();
    if STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == KEY_BYTES) {
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{KEY_SUFFIX}").as_bytes());
        let value = HeaderValue::from_str(&STANDARD.encode(hash)).expect("base64 is ASCII");
        let mut answer = vec![
            (CONNECTION, HeaderValue::from_static("Upgrade")),
            (UPGRADE, HeaderValue::from_static("websocket")),
            (SEC_WEBSOCKET_ACCEPT, value),
        ];
        // No protocol means anything here, but a browser that asks for one gives up without.
        let protocol = text(SEC_WEBSOCKET_PROTOCOL).split(',').next().unwrap_or_default();
        if let Ok(value) = HeaderValue::from_str(protocol.trim())
            && !value.is_empty()
        {
            answer.push((SEC_WEBSOCKET_PROTOCOL, value));
        }
        return Ok(answer);
    }
    Err(Refusal::bad("missing or bad Sec-WebSocket-Key"))
}

/// Carries between a client's frames and the bytes of `inner` until one of them ends; a client's close is the end of its bytes, no more. Messages are text
/// where `is_text` says so, which clients of old expect.
pub async fn carry(
    mut reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Unpin,
    inner: DuplexStream,
    is_text: bool,
) {
    let opcode = if is_text { TEXT } else { BINARY };
    let writer = Mutex::new(writer);
    let (mut from_app, mut to_app) = tokio::io::split(inner);
    let code = {
        let input = async {
            let end = receive(&mut reader, &mut to_app, &writer).await;
            to_app.shutdown().await.ok();
            end
        };
        let output = async {
            let mut chunk = vec![0; CHUNK_BYTES];
            while let Ok(count) = from_app.read(&mut chunk).await
                && count > 0
                && send(&writer, opcode, &chunk[..count]).await
            {}
        };
        tokio::pin!(output);
        tokio::select! {
            () = &mut output => NORMAL,
            end = input => match end {
                End::Closed => {
                    output.await;
                    NORMAL
                }
                End::Broken => PROTOCOL_ERROR,
            },
        }
    };
    // The client may have left already.
    send(&writer, CLOSE, &code.to_be_bytes()).await;
    writer.into_inner().shutdown().await.ok();
}

/// How a client's frames ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It said so, or its direction is closed.
    Closed,
    /// It sent what no client may send.
    Broken,
}

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    is_last: bool,
    opcode: u8,
    length: u64,
    mask: [u8; 4],
}

/// Reads a head; `None` where it is no client's.
async fn read_head(reader: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Option<Head>> {
    let first = reader.read_u8().await?;
    let second = reader.read_u8().await?;
    let length = match second & 0x7f {
        126 => u64::from(reader.read_u16().await?),
        127 => reader.read_u64().await?,
        length => u64::from(length),
    };
    // Reserved bits belong to extensions, none of which was agreed on; and a client masks.
    if first & 0x70 != 0 || second & 0x80 == 0 || length >> 63 != 0 {
        return Ok(None);
    }
    let mut mask = [0; 4];
    reader.read_exact(&mut mask).await?;
    Ok(Some(Head {
        is_last: first & 0x80 != 0,
        opcode: first & 0x0f,
        length,
        mask,
    }))
}

/// Passes on what a client says until it ends. Whether its text is UTF-8 is the app's business.
async fn receive<W: AsyncWrite + Unpin>(
    reader: &mut (impl AsyncRead + Unpin),
    to_app: &mut (impl AsyncWrite + Unpin),
    writer: &Mutex<W>,
) -> End {
    let mut is_within = false;
    loop {
        let head = match read_head(reader).await {
            Ok(Some(head)) => head,
            Ok(None) => return End::Broken,
            Err(_) => return End::Closed,
        };
        match head.opcode {
            CLOSE | PING | PONG => {
                if !head.is_last || head.length > CONTROL_BYTES_MAX as u64 {
                    return End::Broken;
                }
                let mut payload = vec![0; head.length as usize];
                if head.opcode == CLOSE || reader.read_exact(&mut payload).await.is_err() {
                    return End::Closed;
                }
                unmask(&mut payload, head.mask, 0);
                if head.opcode == PING && !send(writer, PONG, &payload).await {
                    return End::Closed;
                }
            }
            CONTINUATION | TEXT | BINARY if is_within == (head.opcode == CONTINUATION) => {
                is_within = !head.is_last;
                if !pass_on(reader, to_app, head).await {
                    return End::Closed;
                }
            }
            _ => return End::Broken,
        }
    }
}

/// Passes a payload on, bit by bit; false where either side ended. An app that has closed its input does not end the client's output: its bytes go nowhere.
async fn pass_on(
    reader: &mut (impl AsyncRead + Unpin),
    to_app: &mut (impl AsyncWrite + Unpin),
    head: Head,
) -> bool {
    let mut chunk = vec![0; CHUNK_BYTES.min(head.length as usize)];
    let mut done = 0_u64;
    while done < head.length {
        let room = chunk.len().min((head.length - done) as usize);
        let Ok(count @ 1..) = reader.read(&mut chunk[..room]).await else {
            return false;
        };
        unmask(&mut chunk[..count], head.mask, done);
        to_app.write_all(&chunk[..count]).await.ok();
        done += count as u64;
    }
    true
}

fn unmask(bytes: &mut [u8], mask: [u8; 4], offset: u64) {
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte ^= mask[(offset as usize + at) % mask.len()];
    }
}

/// Sends one frame that is a whole message; false where the client is gone.
async fn send<W: AsyncWrite + Unpin>(writer: &Mutex<W>, opcode: u8, payload: &[u8]) -> bool {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..126 => frame.push(length as u8),
        length @ 126..65536 => {
            frame.push(126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    let mut writer = writer.lock().await;
    writer.write_all(&frame).await.is_ok() && writer.flush().await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(rows: &[(&'static str, &'static str)]) -> HeaderMap {
        let rows = rows
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        rows.collect()
    }

    const GOOD: [(&str, &str); 4] = [
        ("upgrade", "WebSocket"),
        ("connection", "keep-alive, Upgrade"),
        ("sec-websocket-version", "13"),
        // The specification's own example (RFC 6455, 1.3).
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    #[test]
    fn answers_the_specifications_example() {
        let answer: HeaderMap = accept(&headers(&GOOD)).expect("valid").into_iter().collect();
        assert_eq!(answer[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(!answer.contains_key(SEC_WEBSOCKET_PROTOCOL));
        let mut asked = GOOD.to_vec();
        asked.push(("sec-websocket-protocol", "binary, base64"));
        let answer: HeaderMap = accept(&headers(&asked)).expect("valid").into_iter().collect();
        assert_eq!(answer[SEC_WEBSOCKET_PROTOCOL], "binary");
    }

    #[test]
    fn refuses_what_is_no_handshake() {
        for (at, value) in [
            (0, "tcp"),
            (1, "keep-alive"),
            (2, "8"),
            (2, ""),
            (3, ""),
            (3, "c2hvcnQ="),
            (3, "no base64 at all"),
        ] {
            let mut rows = GOOD;
            rows[at].1 = value;
            assert!(accept(&headers(&rows)).is_err(), "{:?}", rows[at]);
            let less = rows.iter().enumerate().filter(|(row, _)| *row != at);
            let less: Vec<_> = less.map(|(_, row)| *row).collect();
            assert!(accept(&headers(&less)).is_err(), "without {:?}", rows[at].0);
        }
    }

    /// Lets a client send frames and close its direction, and an app answer with `said`; gives back what the app got and what the client got.
    async fn talk(frames: &[u8], said: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (client, server) = tokio::io::duplex(1 << 20);
        let (inner, app) = tokio::io::duplex(64);
        let (reader, writer) = tokio::io::split(server);
        let (mut from_server, mut to_server) = tokio::io::split(client);
        let (mut from_client, mut to_client) = tokio::io::split(app);
        let mut got = (Vec::new(), Vec::new());
        let app = async {
            from_client.read_to_end(&mut got.0).await.expect("read");
            to_client.write_all(said).await.ok();
            to_client.shutdown().await.ok();
        };
        let client = async {
            to_server.write_all(frames).await.expect("written");
            to_server.shutdown().await.expect("closed");
            from_server.read_to_end(&mut got.1).await.expect("read");
        };
        tokio::join!(carry(reader, writer, inner, false), app, client);
        got
    }

    #[tokio::test]
    async fn the_drawing_in_the_header_holds() {
        let close = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8];
        let typed = [0x82, 0x83, 1, 2, 3, 4, 0x6e, 0x69, 0x09];
        // What comes behind a close is not looked at; what the app says afterwards arrives.
        let (app, client) = talk(&[&typed[..], &close, &typed].concat(), b"ok\n").await;
        assert_eq!(app, b"ok\n");
        assert_eq!(client, b"\x82\x03ok\n\x88\x02\x03\xe8");
    }

    #[tokio::test]
    async fn carries_fragments_long_payloads_and_pings() {
        let mut frames = b"\x02\x81\0\0\0\0a\x89\x81\0\0\0\0p\x80\x81\0\0\0\0b".to_vec();
        let long = vec![b'x'; 70_000];
        frames.extend_from_slice(b"\x81\xff");
        frames.extend_from_slice(&(long.len() as u64).to_be_bytes());
        frames.extend_from_slice(&[0; 4]);
        frames.extend_from_slice(&long);
        frames.extend_from_slice(b"\x82\xfe\x00\x80\0\0\0\0");
        frames.extend_from_slice(&long[..0x80]);
        let (app, client) = talk(&frames, &long[..300]).await;
        assert_eq!(app.len(), 2 + long.len() + 0x80);
        assert!(app.starts_with(b"abx"));
        assert!(client.starts_with(b"\x8a\x01p"), "a ping is answered first");
        let got = client.iter().filter(|byte| **byte == b'x').count();
        assert_eq!(got, 300);
    }

    #[tokio::test]
    async fn closes_with_1002_on_what_no_client_may_send() {
        for (what, frames) in [
            ("no mask", &b"\x82\x01a"[..]),
            ("a reserved bit", b"\xc2\x81\0\0\0\0a"),
            ("an unknown opcode", b"\x83\x81\0\0\0\0a"),
            ("a continuation of nothing", b"\x80\x81\0\0\0\0a"),
            (
                "a message within a message",
                b"\x02\x81\0\0\0\0a\x82\x81\0\0\0\0b",
            ),
            ("a ping in pieces", b"\x09\x81\0\0\0\0a"),
            ("a long ping", b"\x89\xfe\x00\x80\0\0\0\0"),
            (
                "a length with a sign",
                b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0",
            ),
        ] {
            let (_, client) = talk(frames, b"").await;
            assert_eq!(client, b"\x88\x02\x03\xea", "{what}");
        }
        // A frame that breaks off is a client that left.
        for half in [&b"\x82"[..], b"\x82\x85\0\0", b"\x82\x85\0\0\0\0ab"] {
            let (_, client) = talk(half, b"").await;
            assert_eq!(client, b"\x88\x02\x03\xe8", "{half:?}");
        }
    }
}
