//! kakoid, the daemon: wiring, Docker's semantics, and the records of what exists.
//!
//! A process of its own, with privileges of its own. Contains no system calls and no parsers of untrusted bytes, and never forks a container: it
//! writes a plan and executes the shim. Containers outlive it.
#![forbid(unsafe_code)]

mod audit;
mod check;
mod clock;
mod config;
mod denials;
mod detach;
mod engine;
mod events;
mod exec;
mod files;
mod filters;
mod host;
mod ids;
mod life;
mod lockdown;
mod names;
mod networks;
mod os;
mod plan;
mod policy;
mod quota;
mod refusal;
mod restart;
mod secrets;
mod serve;
mod shim;
mod signal;
mod spare;
mod state;
mod supervise;
mod trust;
mod volumes;

use std::io::{self, Write};
use std::process::ExitCode;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, RwLock};

use kakoi_confine::{NarrowError, Part};
use kakoi_image::{ImageStore, Limits};
use kakoi_trust::audit::Verdict;
use tokio::signal::unix::{Signal, SignalKind, signal as on_signal};
use tokio::sync::watch;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Command, ConfigError, Paths, Settings};
use crate::engine::Engine;
use crate::host::HostError;
use crate::policy::{Door, Most, Shelf};
use crate::refusal::chain;
use crate::state::{Store, StoreError};

/// Threads for blocking work: image archives, removal. Each holds a stack only while it works.
const BLOCKING_THREADS_MAX: usize = 8;

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Images(#[from] kakoi_image::StoreError),
    #[error("probing the kernel")]
    Probe(#[from] kakoi_confine::ProbeError),
    #[error("giving up what the daemon does not need")]
    Narrow(#[source] NarrowError),
    #[error("reading /proc/self/task")]
    Threads(#[source] io::Error),
    #[error("marking that this daemon runs")]
    Mark(#[source] io::Error),
    #[error("opening the audit log")]
    Audit(#[source] io::Error),
    #[error("opening the secrets")]
    Secrets(#[source] io::Error),
    #[error("making an id")]
    Id(#[source] io::Error),
    #[error("serving")]
    Serve(#[source] io::Error),
}

fn main() -> ExitCode {
    let command = match config::parse_arguments(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("kakoid: {}", chain(&error));
            return ExitCode::from(2);
        }
    };
    let (paths, debug) = match command {
        Command::Help => return print(config::USAGE),
        Command::Version => return print(concat!("kakoid ", env!("CARGO_PKG_VERSION"), "\n")),
        Command::Serve(paths, debug) => (paths, debug),
    };
    log(debug);
    // As daemons do: no file system is kept busy by one. Every path was asked to be absolute; and a shim that is spawned without being told a
    // folder is spawned without copying the daemon's page tables (posix_spawn(3)).
    if let Err(cause) = std::env::set_current_dir("/") {
        eprintln!("kakoid: changing to /: {cause}");
        return ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_stack_size(512 << 10)
        .build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(run(paths));
            // A long image operation is not waited for: the store takes back what is half done.
            runtime.shutdown_background();
            result
        }
        Err(cause) => Err(Failure::Serve(cause)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kakoid: {}", chain(&error));
            ExitCode::from(if matches!(error, Failure::Host(HostError::Taken { .. })) {
                3
            } else {
                1
            })
        }
    }
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The level is `warn`, with `--debug` `debug`; `KAKOI_LOG` (`debug`, `kakoid=info,kakoi_image=debug`) has the last word.
fn log(debug: bool) {
    let level = if debug { "kakoid=debug" } else { "kakoid=warn" };
    let wanted = std::env::var("KAKOI_LOG").ok();
    let targets = wanted.as_deref().and_then(|words| Targets::from_str(words).ok());
    let targets = targets.unwrap_or_else(|| Targets::from_str(level).expect("the default is well-formed"));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(false);
    tracing_subscriber::registry()
        .with(lines.with_filter(targets))
        .init();
}

async fn run(paths: Paths) -> Result<(), Failure> {
    let settings = Settings::read(&paths.config)?;
    let shelf = Shelf::read(&paths.config, &settings)?;
    let os = os::Os::read(&paths)?;
    // Asked before anything is given up: what the kernel can do is not what the daemon holds.
    let facts = kakoi_confine::probe()?;
    let most = shelf.most();
    narrow(most, os.declares_lockdown())?;
    let _locks = host::prepare(&paths)?;
    // SIGHUP and SIGTERM are taken in before anything takes long: neither may kill a daemon that is taking over.
    let mut signals = signals()?;
    let was_cut_off = check::begin(&paths.root).map_err(Failure::Mark)?;
    let audit = audit::Audit::open(&paths.root).map_err(Failure::Audit)?;
    let (store, kept) = Store::open(&paths.root, &paths.run.join("records"))?;
    let engine = Arc::new(Engine {
        images: Arc::new(ImageStore::open_limited(&paths.root, limits(&settings))?),
        facts,
        id: names::new_id().map_err(Failure::Id)?,
        ids: ids::IdPool::new(&settings),
        trust: trust::Gate::open(&paths.config, &paths.root),
        volumes: volumes::Volumes::new(kept.volumes),
        secrets: secrets::Secrets::open(&paths.root).map_err(Failure::Secrets)?,
        networks: Arc::new(networks::Networks::open(&paths.root, &paths.run)),
        containers: life::Table::default(),
        apps: supervise::Apps::default(),
        os,
        lockdown: lockdown::Lockdown::new(),
        execs: exec::Execs::default(),
        events: events::Events::new(),
        audit,
        denials: denials::Denials::default(),
        most,
        opening: Mutex::new(kept.damage.iter().map(check::opening).collect()),
        shelf: RwLock::new(Arc::new(shelf)),
        image_turn: tokio::sync::RwLock::new(()),
        shim: shim::Program::seal(&paths.shim, &paths.run),
        store,
        settings,
        paths,
    });
    let version = concat!("start of version ", env!("CARGO_PKG_VERSION"));
    engine.audit.note_own(version, Verdict::Allowed, "");
    engine.trust.look();
    engine.search_images();
    life::boot::take_over(&engine, kept.containers, kept.is_damaged).await;
    begin(&engine);
    serve::images::release(&engine).await;
    if was_cut_off {
        check::after_unclean_stop(&engine).await;
    }
    let listener = host::listen(&engine.paths)?;
    let docker = host::listen_at(&engine.paths.docker_socket())?;
    let (stop, stopping) = watch::channel(false);
    let serve = |door, listener| tokio::spawn(serve::serve(engine.clone(), door, listener, stopping.clone()));
    let doors = [serve(Door::Kakoi, listener), serve(Door::Docker, docker)];
    host::notify("READY=1");
    tracing::info!(socket = %engine.paths.socket().display(), "ready");
    until_told_to_stop(&engine, &mut signals).await;
    host::notify("STOPPING=1");
    stop.send_replace(true);
    for serving in doors {
        match serving.await {
            Ok(served) => served.map_err(Failure::Serve)?,
            Err(cause) => return Err(Failure::Serve(io::Error::other(cause))),
        }
    }
    life::freeze::let_go(&engine).await;
    end(&engine);
    tracing::info!("stopped; containers keep running");
    Ok(())
}

/// Waits for SIGTERM or SIGINT; SIGHUP has the owner's files read anew.
async fn until_told_to_stop(engine: &Engine, [hang_up, terminate, interrupt]: &mut [Signal; 3]) {
    loop {
        tokio::select! {
            _ = hang_up.recv() => {
                reload(engine);
                // trust.yaml is read whenever somebody asks; those who are held back by it ask now.
                engine.trust.wake();
            }
            _ = terminate.recv() => return,
            _ = interrupt.recv() => return,
        }
    }
}

/// Leaves everything for the next daemon.
fn end(engine: &Engine) {
    engine.networks.put_away();
    engine.audit.note_own("stop", Verdict::Allowed, "");
    if let Err(error) = engine.audit.sync() {
        tracing::error!(%error, "the audit log cannot be synced");
    }
    check::end(&engine.paths.root);
}

/// Begins what goes on beside all requests.
fn begin(engine: &Arc<Engine>) {
    networks::guard(engine);
    denials::begin(engine);
    audit::begin(engine);
    supervise::begin(engine);
    os::begin(engine);
    lockdown::begin(engine);
}

/// SIGHUP, SIGTERM and SIGINT.
fn signals() -> Result<[Signal; 3], Failure> {
    let open = |kind| on_signal(kind).map_err(Failure::Serve);
    Ok([
        open(SignalKind::hangup())?,
        open(SignalKind::terminate())?,
        open(SignalKind::interrupt())?,
    ])
}

/// Gives up what neither the daemon nor any container under its ceiling needs. A second thread would keep what it has.
fn narrow(most: Most, guards_device: bool) -> Result<(), Failure> {
    let threads = std::fs::read_dir("/proc/self/task")
        .map_err(Failure::Threads)?
        .count();
    assert_eq!(
        threads, 1,
        "the daemon narrows itself before it has a second thread"
    );
    kakoi_confine::narrow(Part::Daemon {
        containers: most.capabilities,
        no_new_privileges: !most.new_privileges,
        guards_device,
    })
    .map_err(Failure::Narrow)
}

fn limits(settings: &Settings) -> Limits {
    Limits {
        reserve_bytes: settings.disk_reserve_bytes,
        ..Limits::DEVICE
    }
}

fn reload(engine: &Engine) {
    match engine.reload() {
        Ok(()) => tracing::info!("policies and ceiling were read anew"),
        Err(error) => tracing::error!(error = chain(&error), "policies and ceiling stay as they were"),
    }
}
