//! Long work: bars on a terminal, plain lines elsewhere.
//!
//! Owns uploads and the daemon's progress documents. Invariants: names and ids that scripts want go to standard output, everything else to standard
//! error; an error within the stream fails the command.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use kakoi_api::image::Progress;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::client::{Body, ClientError, JsonStream};
use crate::failure::Failure;
use crate::layout::LayoutTar;
use crate::{output, text};

/// How much is read at a time, and how many such pieces wait.
const CHUNK_BYTES: usize = 128 << 10;
const CHUNKS: usize = 4;
/// Digits of a layer's id; other ids are tags.
const LAYER_ID_LENGTH: usize = 12;
/// A layer that moves.
const LAYER_BAR: &str = "{prefix}: {msg} [{bar:30}] {bytes}/{total_bytes}";
/// How often a bar moves.
const TICK: Duration = Duration::from_millis(120);

/// Why long work fails.
#[derive(Debug, thiserror::Error)]
pub enum ProgressError {
    /// The archive cannot be read.
    #[error("reading {}", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A person's terminal is no archive.
    #[error("an archive is not typed: name it with -i FILE, or pipe it in")]
    Terminal,
    /// The daemon's words.
    #[error("{0}")]
    Failed(String),
}

/// An archive on its way to the daemon.
pub struct Upload {
    source: Box<dyn io::Read + Send>,
    length: Option<u64>,
    is_quiet: bool,
}

impl Upload {
    /// Opens a file, a folder that is an OCI layout, or standard input.
    pub fn open(path: Option<&Path>, is_quiet: bool) -> Result<Self, ProgressError> {
        let Some(path) = path else {
            if io::stdin().is_terminal() {
                return Err(ProgressError::Terminal);
            }
            return Ok(Self {
                source: Box::new(io::stdin()),
                length: None,
                is_quiet,
            });
        };
        let wrong = |cause| ProgressError::Open {
            path: path.to_owned(),
            cause,
        };
        let file = File::open(path).map_err(wrong)?;
        let found = file.metadata().map_err(wrong)?;
        if found.is_dir() {
            return Ok(Self {
                source: Box::new(LayoutTar::open(path).map_err(|error| match error.kind() {
                    // A folder of anything else.
                    io::ErrorKind::NotFound => wrong(io::ErrorKind::IsADirectory.into()),
                    _ => wrong(error),
                })?),
                length: None,
                is_quiet,
            });
        }
        let length = found.is_file().then_some(found.len());
        Ok(Self {
            source: Box::new(file),
            length,
            is_quiet,
        })
    }

    /// Sends what a reader gives, without a bar.
    pub fn reading(source: impl io::Read + Send + 'static) -> Self {
        Self {
            source: Box::new(source),
            length: None,
            is_quiet: true,
        }
    }

    /// Makes a request's body of it, and the bar that it moves.
    pub fn into_body(self) -> (Body, ProgressBar) {
        let bar = bar("Sending", self.length, self.is_quiet);
        let (sender, receiver) = mpsc::channel::<io::Result<Frame<Bytes>>>(CHUNKS);
        let moved = bar.clone();
        let mut source = self.source;
        std::thread::spawn(move || {
            let mut buffer = vec![0; CHUNK_BYTES];
            loop {
                let piece = match source.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(count) => Ok(Frame::data(Bytes::copy_from_slice(&buffer[..count]))),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let count = piece
                    .as_ref()
                    .ok()
                    .and_then(Frame::data_ref)
                    .map_or(0, Bytes::len);
                // A receiver that is gone means that the request has ended: its answer says why.
                if sender.blocking_send(piece).is_err() || count == 0 {
                    return;
                }
                moved.inc(count as u64);
            }
        });
        let stream = futures_util::stream::unfold(receiver, async |mut receiver| {
            receiver.recv().await.map(|piece| (piece, receiver))
        });
        (StreamBody::new(Box::pin(stream)).boxed_unsync(), bar)
    }
}

/// A bar that is told how far it is.
pub fn steps(verb: &'static str, is_quiet: bool) -> ProgressBar {
    bar(verb, Some(0), is_quiet)
}

/// A bar that counts bytes of an unknown sum.
pub fn counter(verb: &'static str, is_quiet: bool) -> ProgressBar {
    bar(verb, None, is_quiet)
}

fn bar(verb: &'static str, length: Option<u64>, is_quiet: bool) -> ProgressBar {
    if is_quiet || !io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(length, ProgressDrawTarget::hidden());
    }
    let template = match length {
        Some(_) => "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}",
        None => "{msg} {spinner} {bytes} {bytes_per_sec}",
    };
    let style = ProgressStyle::with_template(template)
        .expect("the template is a constant")
        .progress_chars("=> ");
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr())
        .with_style(style)
        .with_message(verb);
    bar.enable_steady_tick(TICK);
    bar
}

/// Shows the daemon's progress until the end.
pub async fn show(mut stream: JsonStream, bar: &ProgressBar, is_quiet: bool) -> Result<(), Failure> {
    let outcome = follow(&mut stream, bar, is_quiet).await;
    bar.finish_and_clear();
    outcome
}

async fn follow(stream: &mut JsonStream, bar: &ProgressBar, is_quiet: bool) -> Result<(), Failure> {
    while let Some(document) = stream.next().await? {
        let step: Progress = serde_json::from_value(document).map_err(|cause| ClientError::Json {
            request: "progress".to_owned(),
            cause,
        })?;
        if let Some(words) = failure(&step) {
            return Err(ProgressError::Failed(words).into());
        }
        let line = text::printable(step.stream.trim_end());
        if !line.is_empty() {
            bar.suspend(|| output::line(&line))?;
        }
        if step.status.is_empty() {
            continue;
        }
        let status = text::cell(&step.status);
        if step.id.is_empty() && status.starts_with("sha256:") {
            bar.suspend(|| output::line(&status))?;
            continue;
        }
        match step.progress_detail {
            Some(detail) if detail.total > 0 => {
                bar.set_length(u64::try_from(detail.total).unwrap_or(0));
                bar.set_position(u64::try_from(detail.current).unwrap_or(0));
                bar.set_message(spoken(&status, &step.id));
            }
            // Bytes so far of an unknown sum: a bar's business, too much for plain lines.
            Some(_) => bar.set_message(spoken(&status, &step.id)),
            None if bar.is_hidden() && !is_quiet => output::complain(&spoken(&status, &step.id)),
            None => bar.set_message(spoken(&status, &step.id)),
        }
    }
    Ok(())
}

/// Shows what becomes of each layer, one bar a layer as Docker's users know them; says what a program wants to know in the end.
pub async fn show_layers(mut stream: JsonStream, is_quiet: bool) -> Result<Option<Value>, Failure> {
    let has_bars = !is_quiet && io::stderr().is_terminal();
    let bars = MultiProgress::with_draw_target(match has_bars {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    });
    let mut layers: HashMap<String, ProgressBar> = HashMap::new();
    let mut aux = None;
    while let Some(document) = stream.next().await? {
        let step: Progress = serde_json::from_value(document).map_err(|cause| ClientError::Json {
            request: "progress".to_owned(),
            cause,
        })?;
        if let Some(words) = failure(&step) {
            return Err(ProgressError::Failed(words).into());
        }
        aux = step.aux.or(aux);
        let status = text::cell(&step.status);
        if status.is_empty() || is_quiet {
            continue;
        }
        let id = text::cell(&step.id);
        let moved = step.progress_detail.filter(|detail| detail.total > 0);
        if !has_bars {
            // Bytes so far are too much for plain lines.
            if moved.is_none() {
                output::complain(&spoken(&status, &id));
            }
            continue;
        }
        if id.len() != LAYER_ID_LENGTH {
            let line = spoken(&status, &id);
            bars.suspend(|| output::complain(&line));
            continue;
        }
        let bar = layers.entry(id.clone()).or_insert_with(|| {
            let style = ProgressStyle::with_template("{prefix}: {msg}").expect("the template is a constant");
            let bar = bars.add(ProgressBar::new(0).with_style(style));
            bar.with_prefix(id)
        });
        match moved {
            Some(detail) => {
                if bar.length().unwrap_or(0) == 0 {
                    let style = ProgressStyle::with_template(LAYER_BAR).expect("the template is a constant");
                    bar.set_style(style.progress_chars("=> "));
                }
                bar.set_length(u64::try_from(detail.total).unwrap_or(0));
                bar.set_position(u64::try_from(detail.current).unwrap_or(0));
            }
            None => {
                bar.set_style(
                    ProgressStyle::with_template("{prefix}: {msg}").expect("the template is a constant"),
                );
                bar.set_length(0);
            }
        }
        bar.set_message(status);
    }
    for bar in layers.values() {
        bar.abandon();
    }
    Ok(aux)
}

/// The daemon's words where a step is a failure.
/// What a line says went wrong.
pub fn failure(step: &Progress) -> Option<String> {
    let detail = step.error_detail.as_ref().map(|detail| detail.message.as_str());
    let words = detail.filter(|words| !words.is_empty()).unwrap_or(&step.error);
    (!words.is_empty()).then(|| text::printable(words))
}

fn spoken(status: &str, id: &str) -> String {
    if id.is_empty() {
        status.to_owned()
    } else {
        format!("{id}: {status}")
    }
}
