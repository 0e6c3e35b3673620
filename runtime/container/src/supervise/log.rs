//! The container's log: output cut into lines of JSON, rotated by size and count.
//!
//! Owns `log`, `log.1` … in the container's folder. Refuses to know where output comes from. Invariant: each line of the file is a whole
//! JSON object, also after a full disk: what does not fit is dropped and counted, and the program is never stopped by it. The format is that of Docker's
//! `json-file`:
//!
//! ```text
//! {"log":"hello\n","stream":"stdout","time":"2026-11-24T17:00:00.123456789Z"}
//! ```
//!
//! A line longer than [`LINE_BYTES_MAX`] becomes several objects of which only the last ends in `\n`. Bytes that are not UTF-8 become U+FFFD.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::plan::{LogDriver, LogPlan};

/// Output without a line end is written out after this many bytes, as Docker does.
pub const LINE_BYTES_MAX: usize = 16 << 10;

/// Which of the program's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, and all of a terminal's.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Why there is no log.
#[derive(Debug, Error)]
pub enum LogError {
    /// The file cannot be opened.
    #[error("open log {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The open log of one container.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    plan: LogPlan,
    file: Option<File>,
    size: u64,
    partial: [Vec<u8>; 2],
    lost_bytes: u64,
    has_warned: bool,
}

impl Log {
    /// Opens `log` in `folder` and goes on where an earlier run of the container ended.
    pub fn open(folder: &Path, plan: &LogPlan) -> Result<Self, LogError> {
        let path = folder.join("log");
        let (file, size) = match plan.driver {
            LogDriver::None => (None, 0),
            LogDriver::JsonFile => {
                let opened = open_log(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
                let (size, file) = opened.map_err(|source| LogError::Open {
                    path: path.clone(),
                    source,
                })?;
                (Some(file), size)
            }
        };
        let partial = [Vec::new(), Vec::new()];
        Ok(Self {
            path,
            plan: plan.clone(),
            file,
            size,
            partial,
            lost_bytes: 0,
            has_warned: false,
        })
    }

    /// Takes output as it was read; whole lines are written at once, the rest waits for its line end.
    pub fn take(&mut self, stream: Stream, mut bytes: &[u8], now: &str) {
        if self.file.is_none() {
            return;
        }
        let mut batch = Vec::new();
        let mut batched = 0;
        while !bytes.is_empty() {
            let room = LINE_BYTES_MAX - self.partial[stream as usize].len();
            let window = &bytes[..bytes.len().min(room)];
            let (piece, is_whole) = match window.iter().position(|byte| *byte == b'\n') {
                Some(end) => (&window[..=end], true),
                None => (window, window.len() == room),
            };
            bytes = &bytes[piece.len()..];
            let partial = &mut self.partial[stream as usize];
            if !is_whole {
                partial.extend_from_slice(piece);
                continue;
            }
            let text: &[u8] = if partial.is_empty() {
                piece
            } else {
                partial.extend_from_slice(piece);
                partial
            };
            // A character cut by the limit goes with the next piece.
            let cut = if text.ends_with(b"\n") {
                text.len()
            } else {
                whole_characters(text)
            };
            batched += cut as u64;
            entry(&mut batch, &text[..cut], stream, now);
            let rest = text[cut..].to_vec();
            *partial = rest;
            if self.is_full(batch.len()) {
                self.write(&batch, batched);
                batch.clear();
                batched = 0;
            }
        }
        if !batch.is_empty() {
            self.write(&batch, batched);
        }
    }

    /// Writes what still waits for its line end.
    pub fn flush(&mut self, now: &str) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let partial = std::mem::take(&mut self.partial[stream as usize]);
            if !partial.is_empty() && self.file.is_some() {
                let mut line = Vec::new();
                entry(&mut line, &partial, stream, now);
                self.write(&line, partial.len() as u64);
            }
        }
    }

    /// How many bytes of output a full disk has cost so far and that no line in the log tells yet.
    #[cfg(test)]
    fn lost_bytes(&self) -> u64 {
        self.lost_bytes
    }

    fn is_full(&self, more: usize) -> bool {
        let max = self.plan.size_bytes_max;
        max > 0 && self.size.saturating_add(more as u64) >= max
    }

    fn write(&mut self, lines: &[u8], output_bytes: u64) {
        if self.size > 0 && self.plan.size_bytes_max > 0 && self.size >= self.plan.size_bytes_max {
            self.rotate();
        }
        if self.lost_bytes > 0 {
            let text = format!("kakoi: {} bytes of output were lost here\n", self.lost_bytes);
            let mut notice = Vec::new();
            entry(&mut notice, text.as_bytes(), Stream::Stderr, &super::clock::now());
            if self.append(&notice).is_ok() {
                self.lost_bytes = 0;
            }
        }
        if let Err(error) = self.append(lines) {
            self.lost_bytes += output_bytes;
            if !self.has_warned {
                self.has_warned = true;
                tracing::warn!(path = %self.path.display(), %error, "log cannot be written, dropping output");
            }
        }
    }

    /// Appends all or nothing: half a line would spoil the file for its readers.
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        match file.write_all(lines) {
            Ok(()) => {
                self.size += lines.len() as u64;
                Ok(())
            }
            Err(error) => {
                file.set_len(self.size)?;
                Err(error)
            }
        }
    }

    /// `log` becomes `log.1`, `log.1` becomes `log.2`, and the oldest goes. On failure the current file grows on: output is worth more than
    /// the limit.
    fn rotate(&mut self) {
        let numbered = |number: u32| self.path.with_file_name(format!("log.{number}"));
        let shift = || -> io::Result<File> {
            if self.plan.files_max <= 1 {
                fs::remove_file(&self.path)?;
                return open_log(&self.path);
            }
            for number in (1..self.plan.files_max - 1).rev() {
                match fs::rename(numbered(number), numbered(number + 1)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            fs::rename(&self.path, numbered(1))?;
            open_log(&self.path)
        };
        match shift() {
            Ok(file) => {
                self.file = Some(file);
                self.size = 0;
            }
            Err(error) if !self.has_warned => {
                self.has_warned = true;
                tracing::warn!(path = %self.path.display(), %error, "ignoring a failed rotation of the log");
            }
            Err(_) => {}
        }
    }
}

/// The container's folder is ours, but a link in the log's place would still be an accident that is better not followed.
fn open_log(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits())
        .open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

/// The length of `text` without a character that its end cuts in two.
fn whole_characters(text: &[u8]) -> usize {
    let tail = text.len().saturating_sub(3);
    for start in (tail..text.len()).rev() {
        let width = match text[start] {
            byte if byte < 0x80 => return text.len(),
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            0x80..=0xBF => continue,
            _ => return text.len(),
        };
        return if start + width > text.len() {
            start
        } else {
            text.len()
        };
    }
    text.len()
}

fn entry(out: &mut Vec<u8>, text: &[u8], stream: Stream, now: &str) {
    out.extend_from_slice(b"{\"log\":\"");
    for chunk in text.utf8_chunks() {
        escape(out, chunk.valid());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{FFFD}".as_bytes());
        }
    }
    out.extend_from_slice(b"\",\"stream\":\"");
    out.extend_from_slice(stream.name().as_bytes());
    out.extend_from_slice(b"\",\"time\":\"");
    out.extend_from_slice(now.as_bytes());
    out.extend_from_slice(b"\"}\n");
}

/// Escapes as RFC 8259 section 7 asks, in runs: most output needs none.
fn escape(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut plain = 0;
    for (i, byte) in bytes.iter().enumerate() {
        let short = match byte {
            b'"' => b'"',
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..=0x1F => 0,
            _ => continue,
        };
        out.extend_from_slice(&bytes[plain..i]);
        plain = i + 1;
        if short == 0 {
            out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
        } else {
            out.extend_from_slice(&[b'\\', short]);
        }
    }
    out.extend_from_slice(&bytes[plain..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-24T17:00:00.123456789Z";

    fn plan(size_bytes_max: u64, files_max: u32) -> LogPlan {
        LogPlan {
            driver: LogDriver::JsonFile,
            size_bytes_max,
            files_max,
        }
    }

    fn lines(path: &Path) -> Vec<(String, String)> {
        let text = fs::read_to_string(path).expect("log is UTF-8");
        let parse = |line: &str| {
            let value: serde_json::Value = serde_json::from_str(line).expect("each line is JSON");
            assert_eq!(value["time"], NOW);
            let field = |name: &str| value[name].as_str().expect("a string").to_string();
            (field("stream"), field("log"))
        };
        text.lines().map(parse).collect()
    }

    #[test]
    fn the_header_shows_a_line_as_it_is_written() {
        let mut out = Vec::new();
        entry(&mut out, b"hello\n", Stream::Stdout, NOW);
        let line = String::from_utf8(out).expect("UTF-8");
        let header = include_str!("log.rs");
        assert!(header.contains(&format!("//! {line}")), "{line}");
    }

    #[test]
    fn output_is_cut_into_lines_whatever_the_reads_were() {
        let long = "x".repeat(LINE_BYTES_MAX + 5);
        let wide = format!("{}é\n", "y".repeat(LINE_BYTES_MAX - 1));
        let rows: Vec<(Vec<&[u8]>, Vec<String>)> = vec![
            (vec![b"a\nb\n"], vec!["a\n".into(), "b\n".into()]),
            (vec![b"a", b"b\nc"], vec!["ab\n".into(), "c".into()]),
            (vec![b"\n\n"], vec!["\n".into(), "\n".into()]),
            (
                vec![b"tab\t\"q\" \\ \x01\x1b[0m\r\n"],
                vec!["tab\t\"q\" \\ \u{1}\u{1b}[0m\r\n".into()],
            ),
            (
                vec![b"bad \xff\xfe end\n"],
                vec!["bad \u{FFFD}\u{FFFD} end\n".into()],
            ),
            (
                vec![long.as_bytes(), b"\n"],
                vec!["x".repeat(LINE_BYTES_MAX), "xxxxx\n".into()],
            ),
            (
                vec![wide.as_bytes()],
                vec!["y".repeat(LINE_BYTES_MAX - 1), "é\n".into()],
            ),
            (
                vec![
                    &wide.as_bytes()[..LINE_BYTES_MAX],
                    &wide.as_bytes()[LINE_BYTES_MAX..],
                ],
                vec!["y".repeat(LINE_BYTES_MAX - 1), "é\n".into()],
            ),
        ];
        for (reads, expected) in rows {
            let dir = tempfile::tempdir().expect("temporary folder");
            let mut log = Log::open(dir.path(), &plan(0, 1)).expect("open");
            for read in &reads {
                log.take(Stream::Stdout, read, NOW);
            }
            log.flush(NOW);
            let got: Vec<String> = lines(&dir.path().join("log"))
                .into_iter()
                .map(|(_, text)| text)
                .collect();
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn streams_keep_their_own_unfinished_lines() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mut log = Log::open(dir.path(), &plan(0, 1)).expect("open");
        log.take(Stream::Stdout, b"out", NOW);
        log.take(Stream::Stderr, b"err\n", NOW);
        log.take(Stream::Stdout, b" end\n", NOW);
        let got = lines(&dir.path().join("log"));
        assert_eq!(
            got,
            [
                ("stderr".into(), "err\n".into()),
                ("stdout".into(), "out end\n".into())
            ]
        );
    }

    #[test]
    fn files_rotate_by_size_and_the_oldest_goes() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mut log = Log::open(dir.path(), &plan(200, 3)).expect("open");
        for number in 0..20 {
            log.take(Stream::Stdout, format!("line {number:02}\n").as_bytes(), NOW);
        }
        let mut all = Vec::new();
        for name in ["log.2", "log.1", "log"] {
            let path = dir.path().join(name);
            assert!(
                fs::metadata(&path).expect("kept").len() < 200 + 100,
                "{name} is bounded"
            );
            all.extend(lines(&path).into_iter().map(|(_, text)| text));
        }
        assert!(
            !dir.path().join("log.3").exists(),
            "three files are kept, the current one included"
        );
        let last: Vec<String> = (20 - all.len()..20)
            .map(|number| format!("line {number:02}\n"))
            .collect();
        assert_eq!(all, last, "what is kept is the newest and without a hole");
    }

    #[test]
    fn one_large_read_rotates_too_and_one_file_starts_over() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mut log = Log::open(dir.path(), &plan(4096, 1)).expect("open");
        let read: String = (0..1000).map(|number| format!("{number}\n")).collect();
        log.take(Stream::Stdout, read.as_bytes(), NOW);
        let size = fs::metadata(dir.path().join("log")).expect("log").len();
        assert!(size < 3 * 4096, "{size}");
        assert_eq!(lines(&dir.path().join("log")).last().expect("a line").1, "999\n");
    }

    #[test]
    fn a_full_disk_costs_output_and_says_how_much() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mut log = Log::open(dir.path(), &plan(0, 1)).expect("open");
        log.take(Stream::Stdout, b"before\n", NOW);
        let real = log.file.replace(
            OpenOptions::new()
                .write(true)
                .open("/dev/full")
                .expect("/dev/full"),
        );
        log.take(Stream::Stdout, b"lost 1\n", NOW);
        log.take(Stream::Stdout, b"lost 2\n", NOW);
        assert_eq!(log.lost_bytes(), 14);
        log.file = real;
        log.take(Stream::Stdout, b"after\n", NOW);
        assert_eq!(log.lost_bytes(), 0);
        let text = fs::read_to_string(dir.path().join("log")).expect("log");
        let words: Vec<bool> = ["before", "14 bytes of output were lost", "after"]
            .map(|word| text.contains(word))
            .to_vec();
        assert_eq!(words, [true; 3], "{text}");
        assert!(!text.contains("lost 1"));
    }

    #[test]
    fn without_a_driver_nothing_is_written() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let none = LogPlan {
            driver: LogDriver::None,
            ..plan(0, 1)
        };
        let mut log = Log::open(dir.path(), &none).expect("open");
        log.take(Stream::Stdout, b"secret\n", NOW);
        log.flush(NOW);
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0);
    }
}
