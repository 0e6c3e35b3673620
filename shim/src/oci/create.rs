//! `create`, `start` and `run`.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use kakoi_container::cgroup::Cgroup;
use kakoi_container::create::{self as container, Bundle, Created, Options, Stdio};
use kakoi_container::hook;
use serde_json::Value;

use super::args::Create;
use super::state::{Record, Root, Status};
use super::{Failed, chain, confine, delete, policy, relay};

/// The largest configuration that is read.
const CONFIG_BYTES_MAX: u64 = 16 << 20;

pub(super) fn create(root: &Root, flags: &Create) -> Result<(), Failed> {
    make(root, flags, true).map(drop)
}

pub(super) fn start(root: &Root, id: &str) -> Result<(), Failed> {
    let _held = root.lock(id)?;
    let record = root.load(id)?;
    match record.status() {
        Status::Created => go(root, record),
        status => Err(Failed::new(format!(
            "container {id} cannot be started: it is {}",
            status.word()
        ))),
    }
}

pub(super) fn run(root: &Root, flags: &Create) -> Result<u8, Failed> {
    let signals = (!flags.detach).then(relay::take_signals).transpose()?;
    let (made, console) = make(root, flags, flags.detach)?;
    let pidfd = made.process.pidfd().try_clone_to_owned();
    let record = root.load(&flags.id)?;
    let started = go(root, record);
    if let Err(error) = started {
        discard(root, &flags.id);
        return Err(error);
    }
    let Some(signals) = signals else {
        return Ok(0);
    };
    let pidfd = pidfd.map_err(|error| Failed::of("hold the first process", &error))?;
    let code = relay::wait(&pidfd, console.as_ref(), &signals);
    if !flags.keep {
        let _held = root.lock(&flags.id)?;
        let record = root.load(&flags.id)?;
        delete::take_away(root, &record)?;
    }
    code
}

/// Takes away a container that did not come to run.
fn discard(root: &Root, id: &str) {
    let gone = root.load(id).and_then(|record| {
        record
            .cgroup()?
            .kill_all()
            .map_err(|error| Failed::of("kill", &error))?;
        delete::take_away(root, &record)
    });
    if let Err(error) = gone {
        complain!("kakoi-oci: cannot take container {id} away: {}", error.message);
    }
}

/// Lets the first process go on, then runs the poststart hooks.
fn go(root: &Root, mut record: Record) -> Result<(), Failed> {
    let folder = root.folder(&record.id)?;
    container::start(&folder, &record.id).map_err(|error| {
        Failed::kind(
            error.kind(),
            format!("start container {}: {}", record.id, chain(&error)),
        )
    })?;
    record.started = true;
    root.save(&record)?;
    let state = record.hook_state(Status::Running);
    if let Err(error) = hook::run_all(&record.hooks.poststart, &state, None) {
        // As every runtime does: a container whose poststart hook fails is stopped and deleted.
        discard(root, &record.id);
        return Err(Failed::new(format!(
            "start container {}: poststart {}",
            record.id,
            chain(&error)
        )));
    }
    Ok(())
}

fn make(root: &Root, flags: &Create, detached: bool) -> Result<(Created, Option<OwnedFd>), Failed> {
    let bundle = fs::canonicalize(&flags.bundle)
        .map_err(|error| Failed::of(&format!("the bundle {}", flags.bundle.display()), &error))?;
    let mut spec = config(&bundle.join(&flags.config))?;
    let terminal = spec["process"]["terminal"].as_bool().unwrap_or(false);
    match (terminal, detached, &flags.console_socket) {
        (true, true, None) => return Err(Failed::new("the container has a terminal: use --console-socket")),
        (false, _, Some(_)) => {
            return Err(Failed::new(
                "--console-socket is given, but the container has no terminal",
            ));
        }
        _ => {}
    }
    let confinement = confine::from_spec(&spec, &bundle)?;
    let bounded = policy::apply(&mut spec, confinement, &bundle)?;
    let folder = root.make(&flags.id)?;
    let _making = root.making(&flags.id)?;
    let made = build(root, flags, &bundle, spec, &folder, &bounded, terminal);
    if made.is_err()
        && let Err(error) = fs::remove_dir_all(&folder)
    {
        complain!("kakoi-oci: cannot remove {}: {error}", folder.display());
    }
    made
}

fn build(
    root: &Root,
    flags: &Create,
    bundle: &Path,
    spec: Value,
    folder: &Path,
    bounded: &policy::Bounded,
    terminal: bool,
) -> Result<(Created, Option<OwnedFd>), Failed> {
    let (stdio, listener) = streams(flags, folder, terminal)?;
    let rootfs = bundle.join(spec["root"]["path"].as_str().unwrap_or_default());
    let size = relay::size_of(&spec["process"]);
    let group = container::control_group(&spec, &flags.id);
    let mut record = Record::new(&flags.id, bundle, rootfs, &spec, &group, bounded);
    // Before there is any process: a creation that is killed leaves behind where to find what it made.
    root.save(&record)?;
    let made = container::create(Bundle {
        id: &flags.id,
        state_dir: folder,
        bundle,
        spec,
        secrets: Vec::new(),
        confinement: &bounded.confinement,
        stdio,
        preserve_fds: flags.preserve_fds,
        options: Options {
            no_pivot: flags.no_pivot,
            no_new_keyring: flags.no_new_keyring,
            ..Options::default()
        },
    })
    .map_err(|error| {
        Failed::kind(
            error.kind(),
            format!("create container {}: {}", flags.id, chain(&error)),
        )
    })?;
    let cgroup = made.cgroup.clone();
    let finish = || -> Result<(Created, Option<OwnedFd>), Failed> {
        let console = listener
            .map(|listener| relay::accept(&listener, size))
            .transpose()?;
        record.hooks = made.hooks.clone();
        record.process = Some(made.process.id());
        if let Some(path) = &flags.pid_file {
            write_pid(path, made.process.id().pid)?;
        }
        root.save(&record)?;
        Ok((made, console))
    };
    finish().inspect_err(|_| give_up(&cgroup))
}

/// Ends a container that could not be written down.
fn give_up(cgroup: &Cgroup) {
    if let Err(error) = cgroup.kill_all().and_then(|()| cgroup.delete()) {
        complain!("kakoi-oci: cannot take the control group away: {}", chain(&error));
    }
}

/// Where the first process reads and writes, and the socket that a terminal of ours comes through.
fn streams(flags: &Create, folder: &Path, terminal: bool) -> Result<(Stdio, Option<UnixListener>), Failed> {
    match (&flags.console_socket, terminal) {
        (Some(socket), _) => {
            let socket =
                std::path::absolute(socket).map_err(|error| Failed::of("the console socket", &error))?;
            Ok((Stdio::Console(socket), None))
        }
        (None, true) => Ok((Stdio::Console(folder.join("console.sock")), Some(listen(folder)?))),
        (None, false) => Ok((Stdio::Inherit, None)),
    }
}

/// A socket in the container's folder, whose path may be longer than a socket's address can be.
fn listen(folder: &Path) -> Result<UnixListener, Failed> {
    use std::os::fd::AsRawFd;
    let failed = |error: std::io::Error| Failed::of("make the console socket", &error);
    let held = fs::File::open(folder).map_err(failed)?;
    UnixListener::bind(format!("/proc/self/fd/{}/console.sock", held.as_raw_fd())).map_err(failed)
}

/// Writes a process id aside and renames it, so that a reader never sees half a number.
pub(super) fn write_pid(path: &Path, pid: i32) -> Result<(), Failed> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let aside = PathBuf::from(aside);
    fs::write(&aside, pid.to_string())
        .and_then(|()| fs::rename(&aside, path))
        .map_err(|error| Failed::of(&format!("write {}", path.display()), &error))
}

fn config(path: &Path) -> Result<Value, Failed> {
    use std::io::Read;
    let failed = |error: &dyn std::error::Error| Failed::of(&format!("read {}", path.display()), error);
    let file = fs::File::open(path).map_err(|error| failed(&error))?;
    let mut text = Vec::new();
    file.take(CONFIG_BYTES_MAX)
        .read_to_end(&mut text)
        .map_err(|error| failed(&error))?;
    serde_json::from_slice(&text).map_err(|error| failed(&error))
}
