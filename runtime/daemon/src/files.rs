//! Files of containers and volumes, by way of a short-lived `kakoi-shim files`: the daemon carries bytes, and never opens what a container wrote.
//!
//! Owns when that process may run. Of a container that is up it looks at the mounted root file system, beside everything else that happens; when the
//! container is started anew meanwhile, it ends, since the same writable layer must not be used from two mounts. Of one that is down it has the
//! container's turn, so that a start waits for it. Of a volume it looks beside everything else. Invariant: the process ends with whoever asked for it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use kakoi_container::files::{ASIDE, Answer as Told, Ask, Failure, PathStat, Request, VolumeAsk};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::engine::Engine;
use crate::life::container::{Container, Phase};
use crate::refusal::{Answer, Refusal};
use crate::volumes::Held;
use kakoi_container::discard::remove_tree;

/// Copies at a time; further ones wait. Each is a process of some hundred kilobytes.
const AT_A_TIME: usize = 8;
static SLOTS: Semaphore = Semaphore::const_new(AT_A_TIME);
/// How long a copy of a container that is down may stand still: for so long its start waits for a client that does not read, and no longer.
const IDLE_MAX: Duration = Duration::from_secs(120);
/// Longest answer line: a path at the kernel's limit, escaped.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// Bytes carried at a time.
const CHUNK_BYTES: usize = 32 << 10;
/// What the process may say when it fails.
const TROUBLE_BYTES_MAX: u64 = 4096;

/// Bytes that come or go bit by bit.
pub type Chunks = mpsc::Receiver<io::Result<Bytes>>;
/// Where bytes go.
pub type Sink = mpsc::Sender<io::Result<Bytes>>;

/// Asks for something; bytes that come of it go to `sink`, after the answer. An archive for [`Ask::Put`] comes from `input`.
pub async fn ask(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    ask: Ask,
    input: Option<Chunks>,
    sink: Sink,
) -> Answer<Option<PathStat>> {
    let (told, answer) = oneshot::channel();
    let (engine, container) = (engine.clone(), container.clone());
    tokio::spawn(async move { carry(&engine, &container, ask, input, sink, told).await });
    answer
        .await
        .unwrap_or_else(|_| Err(Refusal::broken("the container's files cannot be reached")))
}

/// The same for what sends no bytes back.
pub async fn ask_only(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    what: Ask,
    input: Option<Chunks>,
) -> Answer<Option<PathStat>> {
    let (sink, mut bytes) = mpsc::channel(1);
    let answer = ask(engine, container, what, input, sink).await?;
    while bytes.recv().await.is_some() {}
    Ok(answer)
}

/// Archives a volume into `sink`, once that is certain to begin. The volume is held until the end.
pub async fn export_volume(engine: &Arc<Engine>, volume: Held, sink: Sink) -> Answer<()> {
    let (told, answer) = oneshot::channel();
    let engine = engine.clone();
    tokio::spawn(async move {
        let _slot = SLOTS.acquire().await.expect("the semaphore is never closed");
        match of_volume(&engine, &volume, VolumeAsk::Export, &mut None).await {
            Ok(running) => {
                if told.send(Ok(())).is_ok() {
                    OF_VOLUME.stream(running, &sink).await;
                }
            }
            Err(refusal) => drop(told.send(Err(refusal)).ok()),
        }
    });
    let lost = |_| Err(Refusal::broken("the volume's files cannot be reached"));
    answer.await.unwrap_or_else(lost)
}

/// Puts an archive into a volume. It goes on to its end, or its undoing, though nobody waits for it any more.
pub async fn import_volume(engine: &Arc<Engine>, volume: Held, input: Chunks) -> Answer<()> {
    let engine = engine.clone();
    let importing = tokio::spawn(async move {
        let _slot = SLOTS.acquire().await.expect("the semaphore is never closed");
        let outcome = of_volume(&engine, &volume, VolumeAsk::Import, &mut Some(input)).await;
        if outcome.is_err() {
            // The process may have been killed before it took away what it had unpacked.
            let left = engine.paths.volume_dir(volume.name()).join(ASIDE);
            if left.exists() {
                tokio::task::spawn_blocking(move || remove_tree(&left))
                    .await
                    .map_err(|cause| Refusal::failed("what is left of an import cannot be removed", cause))?
                    .map_err(|cause| Refusal::failed("what is left of an import cannot be removed", cause))?;
            }
        }
        outcome.map(drop)
    });
    importing
        .await
        .map_err(|cause| Refusal::failed("the volume's files cannot be reached", cause))?
}

async fn of_volume(
    engine: &Engine,
    volume: &Held,
    ask: VolumeAsk,
    input: &mut Option<Chunks>,
) -> Answer<Running> {
    let command = engine.shim.volume_files(&engine.paths.volume_dir(volume.name()));
    let line = serde_json::to_vec(&ask).expect("a request is plain data");
    match OF_VOLUME.begin(command, line, input).await? {
        Some((_, running)) => Ok(running),
        None => Err(Refusal::broken("the volume's files cannot be reached")),
    }
}

type Tell = oneshot::Sender<Answer<Option<PathStat>>>;

async fn carry(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    ask: Ask,
    mut input: Option<Chunks>,
    sink: Sink,
    told: Tell,
) {
    let _slot = SLOTS.acquire().await.expect("the semaphore is never closed");
    // The second time where the container ended between two looks; an archive that was begun cannot be sent twice.
    for is_last in [false, true] {
        let mut turn = None;
        if !container.shared().phase.is_up() {
            turn = Some(container.turn().await);
            // Its shim may still be taking the last run apart.
            container.until(|pulse| !pulse.shim || pulse.up).await;
        }
        let phase = container.shared().phase;
        if matches!(phase, Phase::Removing | Phase::Dead) || container.pulse().borrow().gone {
            let said = format!("container {} is marked for removal", container.id);
            told.send(Err(Refusal::conflict(said))).ok();
            return;
        }
        if phase.is_up() {
            turn = None;
        }
        let request = Request {
            up: phase.is_up(),
            place: engine.paths.run.join("containers"),
            ask: ask.clone(),
        };
        let copy = Copy {
            container: Some(container),
            ends: container.pulse().borrow().ends,
            limit: turn.is_some().then_some(IDLE_MAX),
        };
        let command = engine.shim.files(&engine.paths.state_dir(&container.id));
        let line = serde_json::to_vec(&request).expect("a request is plain data");
        match copy.begin(command, line, &mut input).await {
            Ok(None) if !is_last && input.is_none() => continue,
            Ok(None) => {
                let said = format!("container {} ended meanwhile; try again", container.id);
                told.send(Err(Refusal::conflict(said))).ok();
            }
            Ok(Some((stat, running))) => {
                if told.send(Ok(stat)).is_ok() {
                    copy.stream(running, &sink).await;
                }
            }
            Err(refusal) => drop(told.send(Err(refusal)).ok()),
        }
        drop(turn);
        return;
    }
}

struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

/// What is there and a process that says more; `None` where the container has ended meanwhile.
type Begun = Option<(Option<PathStat>, Running)>;

struct Copy<'a> {
    /// Whose files these are; of a volume, nobody's.
    container: Option<&'a Arc<Container>>,
    /// How often the container had ended when this began.
    ends: u64,
    limit: Option<Duration>,
}

/// A copy that no start of a container ends.
const OF_VOLUME: Copy<'static> = Copy {
    container: None,
    ends: 0,
    limit: None,
};

fn spawn_failed(cause: io::Error) -> Refusal {
    Refusal::failed("the files cannot be reached", cause)
}

impl Copy<'_> {
    /// Starts the process, feeds it, and reads its answer.
    async fn begin(
        &self,
        mut command: Command,
        mut line: Vec<u8>,
        input: &mut Option<Chunks>,
    ) -> Answer<Begun> {
        let mut child = command.spawn().map_err(spawn_failed)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (Some(mut stdin), Some(stdout)) = (stdin, stdout) else {
            return Err(Refusal::broken("a process without its pipes"));
        };
        let mut out = BufReader::with_capacity(CHUNK_BYTES, stdout);
        line.push(b'\n');
        // It may have ended already; what it said is read all the same.
        stdin.write_all(&line).await.ok();
        let mut line = Vec::new();
        let feed = async {
            match input {
                Some(chunks) => self.feed(stdin, chunks).await,
                None => true,
            }
        };
        let mut limited = (&mut out).take(ANSWER_BYTES_MAX);
        let read = limited.read_until(b'\n', &mut line);
        tokio::pin!(feed, read);
        let is_read = tokio::select! {
            is_read = &mut read => is_read,
            is_whole = &mut feed => match is_whole {
                true => read.await,
                // Half an archive must not look like a whole one.
                false => {
                    child.kill().await.ok();
                    return Err(Refusal::bad("the archive broke off"));
                }
            },
            () = self.restarted() => {
                child.kill().await.ok();
                return Err(self.interrupted());
            }
        };
        is_read.map_err(spawn_failed)?;
        let running = Running { child, out };
        match serde_json::from_slice(&line) {
            Ok(Told::Ready(stat)) => Ok(Some((stat, running))),
            Ok(Told::Done) => Ok(Some((None, running))),
            Ok(Told::Failed {
                kind: Failure::Gone, ..
            }) => Ok(None),
            Ok(Told::Failed { kind, message }) => Err(refusal(kind, message)),
            Err(_) => {
                let said = trouble(running.child).await;
                Err(spawn_failed(io::Error::other(said)))
            }
        }
    }

    /// Hands an archive on; false where its sender broke off, or stands still for too long.
    async fn feed(&self, mut stdin: ChildStdin, chunks: &mut Chunks) -> bool {
        loop {
            let next = match self.limit {
                None => chunks.recv().await,
                Some(limit) => match tokio::time::timeout(limit, chunks.recv()).await {
                    Ok(next) => next,
                    Err(_) => return false,
                },
            };
            match next {
                None => return true,
                Some(Err(_)) => return false,
                // Whoever reads no more says why on the other pipe.
                Some(Ok(chunk)) => {
                    if stdin.write_all(&chunk).await.is_err() {
                        return true;
                    }
                }
            }
        }
    }

    /// Carries what comes to the client, to its end.
    async fn stream(&self, mut running: Running, sink: &Sink) {
        let mut chunk = vec![0; CHUNK_BYTES];
        let restarted = self.restarted();
        tokio::pin!(restarted);
        loop {
            let count = tokio::select! {
                count = running.out.read(&mut chunk) => count,
                () = sink.closed() => break,
                () = &mut restarted => {
                    sink.send(Err(io::Error::other("the container was started anew"))).await.ok();
                    break;
                }
            };
            let bytes = match count {
                Ok(0) => {
                    self.finish(running, sink).await;
                    return;
                }
                Ok(count) => Ok(Bytes::copy_from_slice(&chunk[..count])),
                Err(cause) => Err(cause),
            };
            let is_last = bytes.is_err();
            let sent = sink.send(bytes);
            let taken = match self.limit {
                None => sent.await.is_ok(),
                Some(limit) => tokio::time::timeout(limit, sent)
                    .await
                    .is_ok_and(|sent| sent.is_ok()),
            };
            if is_last || !taken {
                break;
            }
        }
        running.child.kill().await.ok();
    }

    /// What ended without having succeeded is cut off, so that the client sees that it is not whole.
    async fn finish(&self, mut running: Running, sink: &Sink) {
        match running.child.wait().await {
            Ok(status) if status.success() => {}
            _ => {
                let said = trouble(running.child).await;
                let container = self.container.map_or("", |container| &container.id);
                tracing::warn!(container, said, "a copy of files broke off");
                sink.send(Err(io::Error::other("the copy broke off"))).await.ok();
            }
        }
    }

    /// Waits until the container runs anew.
    async fn restarted(&self) {
        let ends = self.ends;
        match self.container {
            Some(container) => drop(container.until(|pulse| pulse.ends > ends && pulse.up).await),
            None => std::future::pending().await,
        }
    }

    fn interrupted(&self) -> Refusal {
        let container = self.container.map_or("", |container| &container.id);
        Refusal::conflict(format!(
            "container {container} was started anew meanwhile; try again"
        ))
    }
}

async fn trouble(mut child: Child) -> String {
    let mut said = Vec::new();
    if let Some(pipe) = child.stderr.take() {
        pipe.take(TROUBLE_BYTES_MAX).read_to_end(&mut said).await.ok();
    }
    child.kill().await.ok();
    String::from_utf8_lossy(&said).trim().to_owned()
}

fn refusal(kind: Failure, message: String) -> Refusal {
    match kind {
        Failure::Missing => Refusal::missing(message),
        Failure::NotFolder | Failure::Refused | Failure::Gone => Refusal::bad(message),
        Failure::ReadOnly => Refusal::forbidden(message),
        Failure::Full => Refusal::broken(message),
        Failure::Unsupported => Refusal::unsupported(message),
    }
}
