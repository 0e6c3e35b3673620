//! The OCI runtime command line.
//!
//! Owns the words and flags that runc and crun have agreed on, and the printing of one error. Each command is a file below. Invariant: a command
//! either does all of what it was told or fails with a code other than 0, leaving nothing half made.

mod args;
mod confine;
mod create;
mod delete;
mod exec;
mod features;
mod kill;
mod list;
mod policy;
mod relay;
mod spec;
mod state;
mod update;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use kakoi_container::frames::FailureKind;

use args::{Arguments, Command, LogFormat};

/// Why a command failed: an exit code and a chain of causes.
#[derive(Debug)]
pub(crate) struct Failed {
    code: u8,
    message: String,
}

impl Failed {
    /// An error of the runtime or of its caller.
    fn new(message: impl Into<String>) -> Self {
        Self {
            code: 1,
            message: message.into(),
        }
    }

    /// An error with its causes.
    fn of(what: &str, error: &dyn std::error::Error) -> Self {
        Self::new(format!("{what}: {}", chain(error)))
    }

    /// An error with the code that its kind has.
    fn kind(kind: FailureKind, message: String) -> Self {
        let code = match kind {
            FailureKind::CommandNotFound => 127,
            FailureKind::CommandNotExecutable => 126,
            _ => 1,
        };
        Self { code, message }
    }
}

/// An error and its causes, outermost first.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Runs one command; `arguments` start with the program's name.
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    let parsed = match Arguments::try_parse_from(arguments) {
        Ok(parsed) => parsed,
        Err(error) => {
            let code = if error.use_stderr() { 1 } else { 0 };
            if let Err(error) = error.print().and_then(|()| std::io::stdout().flush()) {
                complain!("kakoi-oci: cannot print: {error}");
                return ExitCode::FAILURE;
            }
            return ExitCode::from(code);
        }
    };
    start_logging(&parsed);
    let log = (parsed.global.log.clone(), parsed.global.log_format);
    match run(parsed) {
        Ok(code) => ExitCode::from(code),
        Err(failed) => {
            complain!("kakoi-oci: {}", failed.message);
            if let (Some(path), format) = log {
                note(&path, format, &failed.message);
            }
            ExitCode::from(failed.code)
        }
    }
}

fn run(arguments: Arguments) -> Result<u8, Failed> {
    let Arguments { global, command } = arguments;
    if let Some(log) = global
        .log
        .as_deref()
        .filter(|log| *log != Path::new("/dev/stderr"))
    {
        open_log(log).map_err(|error| Failed::of(&format!("open the log {}", log.display()), &error))?;
    }
    if global.systemd_cgroup || global.cgroup_manager.as_deref() == Some("systemd") {
        return Err(Failed::new(
            "the systemd cgroup manager is not supported: use cgroupfs",
        ));
    }
    if let Some(manager) = global
        .cgroup_manager
        .as_deref()
        .filter(|name| !["cgroupfs", "disabled"].contains(name))
    {
        return Err(Failed::new(format!(
            "unknown cgroup manager {manager:?}: use cgroupfs"
        )));
    }
    let root = state::Root::new(global.root.clone())?;
    if matches!(command, Command::Create(_) | Command::Run(_) | Command::Exec(_)) {
        // Before any process of ours is inside a container, from where it could be opened and written (CVE-2019-5736).
        kakoi_sys::sealed::ensure().map_err(|error| Failed::of("seal the runtime", &error))?;
    }
    match command {
        Command::Create(flags) => create::create(&root, &flags).map(|()| 0),
        Command::Run(flags) => create::run(&root, &flags),
        Command::Start { id } => create::start(&root, &id).map(|()| 0),
        Command::State { id } => list::state(&root, &id).map(|()| 0),
        Command::Kill(flags) => kill::kill(&root, &flags).map(|()| 0),
        Command::Delete(flags) => delete::delete(&root, &flags).map(|()| 0),
        Command::Exec(flags) => exec::exec(&root, &flags),
        Command::Ps(flags) => list::ps(&root, &flags).map(|()| 0),
        Command::List(flags) => list::list(&root, &flags).map(|()| 0),
        Command::Pause { id } => kill::pause(&root, &id).map(|()| 0),
        Command::Resume { id } => kill::resume(&root, &id).map(|()| 0),
        Command::Update(flags) => update::update(&root, &flags).map(|()| 0),
        Command::Events(flags) => update::events(&root, &flags).map(|()| 0),
        Command::Features => features::features().map(|()| 0),
        Command::Spec(flags) => spec::spec(&flags, global.rootless.as_deref() == Some("true")).map(|()| 0),
        Command::Checkpoint { .. } | Command::Restore { .. } => {
            Err(Failed::new("checkpoint and restore are not supported"))
        }
    }
}

/// Log lines only where they were asked for: they would mix with the app's own error stream.
fn start_logging(arguments: &Arguments) {
    let level = match (arguments.global.debug, arguments.global.log_level.as_deref()) {
        (true, _) | (_, Some("debug")) => tracing::Level::DEBUG,
        (_, Some("info")) => tracing::Level::INFO,
        _ => return,
    };
    let builder = tracing_subscriber::fmt().with_max_level(level).with_ansi(false);
    match arguments
        .global
        .log
        .as_deref()
        .filter(|path| *path != Path::new("/dev/stderr"))
        .map(open_log)
    {
        Some(Ok(file)) => builder.with_writer(std::sync::Mutex::new(file)).init(),
        _ => builder.with_writer(std::io::stderr).init(),
    }
}

fn open_log(path: &Path) -> std::io::Result<std::fs::File> {
    // A link in a folder that others write to must not lead the runtime elsewhere.
    OpenOptions::new()
        .create(true)
        .append(true)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC)
        .open(path)
}

/// Writes the failure where an engine looks for it.
fn note(path: &Path, format: LogFormat, message: &str) {
    let time = jiff::Timestamp::now();
    let line = match format {
        LogFormat::Json => {
            serde_json::json!({"level": "error", "msg": message, "time": time.to_string()}).to_string()
        }
        LogFormat::Text => format!("time=\"{time}\" level=error msg={message:?}"),
    };
    let target = if path == Path::new("/dev/stderr") {
        return;
    } else {
        path
    };
    if let Err(error) = open_log(target).and_then(|mut file| writeln!(file, "{line}")) {
        complain!("kakoi-oci: cannot write to {}: {error}", path.display());
    }
}
