//! Logs: reading what a shim has written, across rotated files, and following what it writes.
//!
//! Knows the files' form (`log`, `log.1` … the newest first; one JSON object a line) and how a rotation looks to a reader: the file it has open gets
//! another name, and the next one is the one before it in the list. A line that is no such object is passed over.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::body::Bytes;
use jiff::Timestamp;
use kakoi_api::stream::{CONTENT_TYPE_FRAMED, CONTENT_TYPE_RAW, Output, frame};
use serde::Deserialize;
use tokio::net::unix::pipe;

use super::reply::{self, Reply, Sender};
use super::router::Asked;
use crate::clock;
use crate::engine::Engine;
use crate::life::container::Container;
use crate::refusal::{Answer, Refusal};

/// Bytes sent at a time.
const CHUNK_BYTES: usize = 32 << 10;
/// Longest line that is read: the shim breaks lines far below.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Bytes of past output that an attaching client is given.
const PAST_BYTES_MAX: usize = 8 << 20;

/// One entry of a log.
#[derive(Debug, Deserialize)]
struct Entry {
    log: String,
    stream: String,
    time: String,
}

/// What a client wants to see.
#[derive(Clone, Debug)]
struct Wanted {
    stdout: bool,
    stderr: bool,
    timestamps: bool,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    tty: bool,
}

impl Wanted {
    /// An entry as the client gets it; `None` where it does not want it.
    fn show(&self, line: &[u8]) -> Option<Vec<u8>> {
        let entry: Entry = serde_json::from_slice(line).ok()?;
        let output = if entry.stream == "stderr" {
            Output::Stderr
        } else {
            Output::Stdout
        };
        let is_wanted = match output {
            Output::Stdout => self.stdout,
            Output::Stderr => self.stderr,
        };
        if !is_wanted {
            return None;
        }
        if self.since.is_some() || self.until.is_some() {
            let time: Timestamp = entry.time.parse().ok()?;
            if self.since.is_some_and(|since| time < since) || self.until.is_some_and(|until| time > until) {
                return None;
            }
        }
        let mut bytes = Vec::new();
        if self.timestamps {
            bytes.extend_from_slice(entry.time.as_bytes());
            bytes.push(b' ');
        }
        bytes.extend_from_slice(entry.log.as_bytes());
        Some(if self.tty { bytes } else { frame(output, &bytes) })
    }
}

/// A container's log files, the oldest first.
fn files(state_dir: &Path) -> Vec<PathBuf> {
    let mut rotated: Vec<(u32, PathBuf)> = fs::read_dir(state_dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let number = entry.file_name().to_str()?.strip_prefix("log.")?.parse().ok()?;
            Some((number, entry.path()))
        })
        .collect();
    rotated.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    rotated
        .into_iter()
        .map(|(_, path)| path)
        .chain([state_dir.join("log")])
        .collect()
}

/// Reads entries in order, through rotations.
struct Reader {
    state_dir: PathBuf,
    ahead: VecDeque<File>,
    current: Option<(BufReader<File>, u64)>,
    partial: Vec<u8>,
}

impl Reader {
    /// Opens all files that there are now: a rotation takes none away.
    fn open(state_dir: &Path) -> Self {
        let ahead = files(state_dir)
            .into_iter()
            .filter_map(|path| File::open(path).ok())
            .collect();
        Self {
            state_dir: state_dir.to_owned(),
            ahead,
            current: None,
            partial: Vec::new(),
        }
    }

    /// The next whole line; `None` where there is none yet.
    fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if self.current.is_none() && !self.advance()? {
                return Ok(None);
            }
            let (file, _) = self.current.as_mut().expect("advanced");
            let room = LINE_BYTES_MAX.saturating_sub(self.partial.len());
            let count = io::Read::take(&mut *file, room as u64).read_until(b'\n', &mut self.partial)?;
            if self.partial.last() == Some(&b'\n') || self.partial.len() >= LINE_BYTES_MAX {
                return Ok(Some(std::mem::take(&mut self.partial)));
            }
            if count == 0 && !self.advance()? {
                return Ok(None);
            }
        }
    }

    /// Moves on to the next file; false where the current one is the last.
    fn advance(&mut self) -> io::Result<bool> {
        if self.ahead.is_empty()
            && let Some((_, inode)) = &self.current
        {
            let paths = files(&self.state_dir);
            let inodes: Vec<Option<u64>> = paths
                .iter()
                .map(|path| path.metadata().ok().map(|meta| meta.ino()))
                .collect();
            let next = inodes
                .iter()
                .position(|held| *held == Some(*inode))
                .map_or(0, |at| at + 1);
            self.ahead = paths[next..]
                .iter()
                .filter_map(|path| File::open(path).ok())
                .collect();
        } else if self.ahead.is_empty() {
            self.ahead = files(&self.state_dir)
                .iter()
                .filter_map(|path| File::open(path).ok())
                .collect();
        }
        let Some(file) = self.ahead.pop_front() else {
            return Ok(false);
        };
        let inode = file.metadata()?.ino();
        // What a rotation cut off belongs to no whole entry.
        self.partial.clear();
        self.current = Some((BufReader::with_capacity(CHUNK_BYTES, file), inode));
        Ok(true)
    }
}

/// `GET /containers/{id}/logs`
pub async fn logs(asked: &Asked, id: &str) -> Answer<Reply> {
    let container = asked.engine.containers.find(id)?;
    let query = &asked.query;
    let now = Timestamp::now();
    let time = |name: &str| -> Answer<Option<Timestamp>> {
        match query.get(name) {
            None | Some("0") => Ok(None),
            Some(text) => clock::parse(text, now)
                .map(Some)
                .ok_or_else(|| Refusal::bad(format!("invalid value for \"{name}\": {text:?}"))),
        }
    };
    let (tty, driver) = {
        let shared = container.shared();
        (
            shared.record.config.tty,
            shared.record.host_config.log_config.kind.clone(),
        )
    };
    let wanted = Wanted {
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        timestamps: query.flag("timestamps"),
        since: time("since")?,
        until: time("until")?,
        tty,
    };
    if !wanted.stdout && !wanted.stderr {
        return Err(Refusal::bad(
            "Bad parameters: you must choose at least one stream",
        ));
    }
    if driver == "none" {
        return Err(Refusal::unsupported(
            "configured logging driver does not support reading",
        ));
    }
    let tail = match query.get("tail") {
        None | Some("all") => None,
        Some(text) => text.parse::<usize>().ok(),
    };
    // Clients before 1.42 know one content type for both.
    let (sender, reply) = reply::stream(match tty || asked.is_before(1, 42) {
        true => CONTENT_TYPE_RAW,
        false => CONTENT_TYPE_FRAMED,
    });
    let state_dir = asked.engine.paths.state_dir(&container.id);
    let follow = query.flag("follow");
    tokio::spawn(async move {
        if let Err(cause) = deliver(&state_dir, &container, &wanted, tail, follow, &sender).await {
            tracing::warn!(container = %container.id, %cause, "reading a log broke off");
            sender.send(Err(cause)).await.ok();
        }
    });
    Ok(reply)
}

async fn deliver(
    state_dir: &Path,
    container: &Arc<Container>,
    wanted: &Wanted,
    tail: Option<usize>,
    follow: bool,
    sender: &Sender,
) -> io::Result<()> {
    // The watch comes first: what is written while the past is read wakes it.
    let watch = if follow { Some(watch(state_dir)?) } else { None };
    let mut pulse = container.pulse();
    let mut reader = Reader::open(state_dir);
    if let Some(tail) = tail {
        skip_to_tail(state_dir, &mut reader, wanted, tail)?;
    }
    loop {
        // Taken before reading: what is written after it wakes the next round.
        let is_live = pulse.borrow_and_update().shim;
        if !drain(&mut reader, wanted, sender).await? {
            return Ok(());
        }
        let Some(watch) = &watch else { return Ok(()) };
        let is_past_until = wanted.until.is_some_and(|until| Timestamp::now() > until);
        if !is_live || is_past_until {
            return Ok(());
        }
        tokio::select! {
            ready = watch.readable() => {
                ready?;
                forget_changes(watch)?;
            }
            _ = pulse.changed() => {}
            () = sender.closed() => return Ok(()),
        }
    }
}

/// A queue of changes of the log's folder. It is no pipe, but it is read like one.
fn watch(state_dir: &Path) -> io::Result<pipe::Receiver> {
    let fd = kakoi_sys::event::watch_modified(state_dir)
        .map_err(|error| io::Error::from_raw_os_error(error.errno as i32))?;
    pipe::Receiver::from_owned_fd_unchecked(fd)
}

/// Empties the queue of changes: that there was one is all that counts.
fn forget_changes(watch: &pipe::Receiver) -> io::Result<()> {
    let mut events = [0; 4096];
    loop {
        match watch.try_read(&mut events) {
            Ok(_) => {}
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(cause) => return Err(cause),
        }
    }
}

/// Sends all that is there; false when the client is gone.
async fn drain(reader: &mut Reader, wanted: &Wanted, sender: &Sender) -> io::Result<bool> {
    let mut chunk = Vec::new();
    while let Some(line) = reader.next_line()? {
        if let Some(shown) = wanted.show(&line) {
            chunk.extend_from_slice(&shown);
        }
        if chunk.len() >= CHUNK_BYTES
            && sender
                .send(Ok(Bytes::from(std::mem::take(&mut chunk))))
                .await
                .is_err()
        {
            return Ok(false);
        }
    }
    Ok(chunk.is_empty() || sender.send(Ok(Bytes::from(chunk))).await.is_ok())
}

/// Leaves the last `tail` entries that are wanted.
fn skip_to_tail(state_dir: &Path, reader: &mut Reader, wanted: &Wanted, tail: usize) -> io::Result<()> {
    let mut counter = Reader::open(state_dir);
    let mut count = 0_usize;
    while let Some(line) = counter.next_line()? {
        count += usize::from(wanted.show(&line).is_some());
    }
    let mut skip = count.saturating_sub(tail);
    while skip > 0 {
        let Some(line) = reader.next_line()? else {
            return Ok(());
        };
        skip -= usize::from(wanted.show(&line).is_some());
    }
    Ok(())
}

/// What a container has said so far, for a client that attaches with its past.
pub async fn past(
    engine: &Engine,
    container: &Container,
    stdout: bool,
    stderr: bool,
    tty: bool,
) -> Answer<Vec<u8>> {
    let wanted = Wanted {
        stdout,
        stderr,
        timestamps: false,
        since: None,
        until: None,
        tty,
    };
    let mut reader = Reader::open(&engine.paths.state_dir(&container.id));
    let mut entries = VecDeque::new();
    let mut bytes = 0;
    let mut next = || {
        reader
            .next_line()
            .map_err(|cause| Refusal::failed("reading the log failed", cause))
    };
    while let Some(line) = next()? {
        let Some(shown) = wanted.show(&line) else { continue };
        bytes += shown.len();
        entries.push_back(shown);
        while bytes > PAST_BYTES_MAX {
            bytes -= entries.pop_front().map_or(0, |entry: Vec<u8>| entry.len());
        }
    }
    Ok(entries.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn line(text: &str, second: u32) -> String {
        format!(
            "{{\"log\":\"{text}\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-24T00:00:{second:02}.000000000Z\"}}\n"
        )
    }

    fn texts(reader: &mut Reader, wanted: &Wanted) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(line) = reader.next_line().expect("readable") {
            if let Some(shown) = wanted.show(&line) {
                all.push(String::from_utf8(shown).expect("text").trim().to_owned());
            }
        }
        all
    }

    const ALL: Wanted = Wanted {
        stdout: true,
        stderr: true,
        timestamps: false,
        since: None,
        until: None,
        tty: true,
    };

    #[test]
    fn reads_through_rotations_before_and_while_it_reads() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("log.2"), line("a", 0)).expect("written");
        fs::write(path("log.1"), line("b", 1)).expect("written");
        fs::write(path("log"), line("c", 2)).expect("written");
        let mut reader = Reader::open(folder.path());
        assert_eq!(texts(&mut reader, &ALL), ["a", "b", "c"]);
        fs::OpenOptions::new()
            .append(true)
            .open(path("log"))
            .expect("open")
            .write_all(line("d", 3).as_bytes())
            .expect("written");
        // Two rotations while the reader looks away.
        fs::rename(path("log"), path("log.3")).expect("renamed");
        fs::remove_file(path("log.1")).expect("removed");
        fs::write(path("log.2"), line("e", 4)).expect("written");
        fs::write(path("log.1"), line("f", 5)).expect("written");
        fs::write(path("log"), line("g", 6)).expect("written");
        assert_eq!(texts(&mut reader, &ALL), ["d", "e", "f", "g"]);
        assert_eq!(texts(&mut reader, &ALL), Vec::<String>::new());
    }

    #[test]
    fn a_half_written_line_waits_for_its_other_half() {
        let folder = tempfile::tempdir().expect("a folder");
        let whole = line("whole", 0);
        let mut file = File::create(folder.path().join("log")).expect("made");
        file.write_all(&whole.as_bytes()[..10]).expect("written");
        let mut reader = Reader::open(folder.path());
        assert_eq!(texts(&mut reader, &ALL), Vec::<String>::new());
        file.write_all(&whole.as_bytes()[10..]).expect("written");
        assert_eq!(texts(&mut reader, &ALL), ["whole"]);
    }

    #[test]
    fn shows_what_is_wanted() {
        let folder = tempfile::tempdir().expect("a folder");
        let text: String = (0..5)
            .map(|second| line(&second.to_string(), second))
            .collect::<String>()
            + "garbage\n";
        fs::write(folder.path().join("log"), text).expect("written");
        let show = |wanted: &Wanted| texts(&mut Reader::open(folder.path()), wanted);
        let at = |second: u32| {
            Some(
                format!("2026-11-24T00:00:{second:02}Z")
                    .parse::<Timestamp>()
                    .expect("a time"),
            )
        };
        assert_eq!(show(&Wanted { since: at(3), ..ALL }), ["3", "4"]);
        assert_eq!(show(&Wanted { until: at(1), ..ALL }), ["0", "1"]);
        assert_eq!(show(&Wanted { stdout: false, ..ALL }), Vec::<String>::new());
        assert_eq!(
            show(&Wanted {
                timestamps: true,
                since: at(4),
                ..ALL
            }),
            ["2026-11-24T00:00:04.000000000Z 4"]
        );
        let mut reader = Reader::open(folder.path());
        skip_to_tail(folder.path(), &mut reader, &ALL, 2).expect("readable");
        assert_eq!(texts(&mut reader, &ALL), ["3", "4"]);
    }
}
