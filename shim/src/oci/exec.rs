//! `exec`.

use std::os::fd::AsFd;

use kakoi_container::capability;
use kakoi_container::handle::ProcessId;
use kakoi_container::join::{self, Added, ExecPlan, ExecStdio, Extras};
use kakoi_policy::confinement::{Confinement, Identity};
use nix::sys::signalfd::SignalFd;
use serde_json::{Value, json};

use super::args::Exec;
use super::create::write_pid;
use super::state::{Record, Root, Status};
use super::{Failed, chain, confine, policy, relay};

/// The largest process document.
const PROCESS_BYTES_MAX: u64 = 4 << 20;

pub(super) fn exec(root: &Root, flags: &Exec) -> Result<u8, Failed> {
    let record = root.load(&flags.id)?;
    may_enter(flags, record.status())?;
    let container = record
        .handle()
        .ok_or_else(|| Failed::new(format!("container {} is not running", flags.id)))?;
    let mut process = process(flags, &record.app)?;
    bound(flags, &record, &mut process)?;
    let process = process;
    let terminal = process["terminal"].as_bool().unwrap_or(false);
    has_other_end(flags, terminal)?;
    let (confinement, identity) = confined(flags, &record.confinement, &process)?;
    let cgroup = record.cgroup()?;
    let strings = |field: &str| confine::strings(process.get(field));
    let (args, env) = (strings("args"), strings("env"));
    let rlimits = confine::rlimits(&process)?;
    let size = relay::size_of(&process);
    let signals = (!flags.detach).then(relay::take_signals).transpose()?;
    let added = join::exec(ExecPlan {
        container: &container,
        cgroup: &cgroup,
        sub_cgroup: flags.cgroup.as_deref(),
        confinement: &confinement,
        identity,
        args: &args,
        env: &env,
        cwd: process["cwd"]
            .as_str()
            .filter(|cwd| !cwd.is_empty())
            .unwrap_or("/"),
        stdio: if terminal {
            ExecStdio::Terminal { size }
        } else {
            ExecStdio::Inherit
        },
        preserve_fds: flags.preserve_fds,
        oom_score_adj: process["oomScoreAdj"]
            .as_i64()
            .and_then(|score| i32::try_from(score).ok()),
        rlimits: &rlimits,
        extras: extras(&record.id, &process)?,
    })
    .map_err(|error| {
        Failed::kind(
            error.kind(),
            format!("exec in container {}: {}", flags.id, chain(&error)),
        )
    })?;
    attend(flags, added, signals)
}

/// Whether a process can be added now.
fn may_enter(flags: &Exec, status: Status) -> Result<(), Failed> {
    match status {
        Status::Running | Status::Created => Ok(()),
        Status::Paused if flags.ignore_paused => Err(Failed::new(
            "--ignore-paused: a process in a paused container would hang with it",
        )),
        status => Err(Failed::new(format!(
            "cannot exec in container {}: it is {}",
            flags.id,
            status.word()
        ))),
    }
}

/// A terminal needs somebody at its other end.
fn has_other_end(flags: &Exec, terminal: bool) -> Result<(), Failed> {
    match (terminal, flags.detach, &flags.console_socket) {
        (true, true, None) => Err(Failed::new("the process has a terminal: use --console-socket")),
        (false, _, Some(_)) => Err(Failed::new(
            "--console-socket is given, but the process has no terminal",
        )),
        _ => Ok(()),
    }
}

/// Tells the process id, hands the terminal over, and waits, as the flags say.
fn attend(flags: &Exec, added: Added, signals: Option<SignalFd>) -> Result<u8, Failed> {
    let ProcessId { pid, .. } = added.process.id();
    if let Some(path) = &flags.pid_file {
        write_pid(path, pid)?;
    }
    let mut terminal = added.terminal;
    if let (Some(socket), Some(master)) = (&flags.console_socket, &terminal) {
        relay::hand_over(socket, master.as_fd())?;
        terminal = None;
    }
    let Some(signals) = signals else {
        return Ok(0);
    };
    let pidfd = added
        .process
        .pidfd()
        .try_clone_to_owned()
        .map_err(|error| Failed::of("hold the process", &error))?;
    relay::wait(&pidfd, terminal.as_ref(), &signals)
}

/// The process document: the file's, or the container's own with what the flags change.
fn process(flags: &Exec, app: &Value) -> Result<Value, Failed> {
    if let Some(path) = &flags.process {
        use std::io::Read;
        let failed = |error: &dyn std::error::Error| Failed::of(&format!("read {}", path.display()), error);
        let mut text = Vec::new();
        let file = std::fs::File::open(path).map_err(|error| failed(&error))?;
        file.take(PROCESS_BYTES_MAX)
            .read_to_end(&mut text)
            .map_err(|error| failed(&error))?;
        let mut process: Value = serde_json::from_slice(&text).map_err(|error| failed(&error))?;
        if !process.is_object() {
            return Err(Failed::new(format!("{} is not a JSON object", path.display())));
        }
        if flags.tty {
            process["terminal"] = json!(true);
        }
        return Ok(process);
    }
    let mut process = app.clone();
    if flags.args.is_empty() {
        return Err(Failed::new(
            "no program to run: give one after the container's name",
        ));
    }
    process["args"] = json!(flags.args);
    process["terminal"] = json!(flags.tty);
    if let Some(cwd) = &flags.cwd {
        process["cwd"] = json!(cwd);
    }
    let mut env = confine::strings(process.get("env"));
    for entry in &flags.env {
        let name = entry.split('=').next().unwrap_or_default();
        if name.is_empty() || !entry.contains('=') {
            return Err(Failed::new(format!("--env {entry:?} must be NAME=value")));
        }
        env.retain(|known| known.split('=').next() != Some(name));
        env.push(entry.clone());
    }
    process["env"] = json!(env);
    if let Some(user) = &flags.user {
        // Strictly numbers: a malformed user must never come out as user 0 (CVE-2026-30892).
        let bad = || Failed::new(format!("--user {user:?} must be UID or UID:GID, as numbers"));
        let strict = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits
                .then(|| text.parse::<u32>().ok())
                .flatten()
                .filter(|id| *id != u32::MAX)
                .ok_or_else(bad)
        };
        let (uid, gid) = match user.split_once(':') {
            Some((uid, gid)) => (strict(uid)?, Some(strict(gid)?)),
            None => (strict(user)?, None),
        };
        process["user"]["uid"] = json!(uid);
        if let Some(gid) = gid {
            process["user"]["gid"] = json!(gid);
        }
    }
    if !flags.additional_gids.is_empty() {
        process["user"]["additionalGids"] = json!(flags.additional_gids);
    }
    Ok(process)
}

/// What the container's policy says of every process and no set or filter holds: the user and the number of open files.
fn bound(flags: &Exec, record: &Record, process: &mut Value) -> Result<(), Failed> {
    if let Some(user) = record.user {
        let wanted = confine::identity(process, Some(&record.confinement.identity))?;
        // Root that somebody asked for by name is not the root of an engine that knows no better.
        if flags.user.is_some() && wanted.uid != user.uid {
            return Err(Failed::new(format!(
                "--user {}: the container's policy has user {}",
                wanted.uid, user.uid
            )));
        }
        let identity = user.of(wanted)?;
        process["user"]["uid"] = json!(identity.uid);
        process["user"]["gid"] = json!(identity.gid);
    }
    let mut rlimits = process["rlimits"].as_array().cloned().unwrap_or_default();
    policy::bound_files(&mut rlimits, record.confinement.limits.open_files);
    process["rlimits"] = Value::Array(rlimits);
    Ok(())
}

/// The stored confinement, within which the process document may move: a set may be smaller, never larger than the container's bounds.
fn confined(flags: &Exec, stored: &Confinement, process: &Value) -> Result<(Confinement, Identity), Failed> {
    let mut confinement = stored.clone();
    let user = confine::identity(process, Some(&stored.identity))?;
    if flags.process.is_some() {
        if process.get("capabilities").is_some_and(|sets| !sets.is_null()) {
            confinement.capabilities = confine::within(confine::capabilities(process)?, stored.capabilities);
        }
        if process["noNewPrivileges"].as_bool() == Some(true) {
            confinement.no_new_privileges = true;
        }
    }
    if flags.no_new_privs {
        confinement.no_new_privileges = true;
    }
    for name in &flags.cap {
        let bit = capability::bit(name).ok_or_else(|| Failed::new(format!("unknown capability {name:?}")))?;
        let sets = &mut confinement.capabilities;
        if stored.policy.name != confine::DOCUMENT_POLICY && stored.capabilities.bounding & bit == 0 {
            return Err(Failed::new(format!(
                "--cap {name}: the container's policy does not grant it"
            )));
        }
        for set in [&mut sets.bounding, &mut sets.permitted, &mut sets.effective] {
            *set |= bit;
        }
    }
    if flags
        .process_label
        .as_deref()
        .is_some_and(|label| !label.is_empty())
    {
        return Err(Failed::new("SELinux labels are not supported"));
    }
    if flags
        .apparmor
        .as_deref()
        .is_some_and(|profile| !profile.is_empty())
    {
        return Err(Failed::new(
            "AppArmor profiles of added processes are not supported",
        ));
    }
    // The confinement's own identity decides what sets another user gets, so the sets asked for are those of the process's user.
    confinement.identity = user.clone();
    if flags.process.is_none() && user.uid != stored.identity.uid && flags.cap.is_empty() {
        confinement.capabilities = kakoi_confine::capabilities_for(stored, &user);
    }
    Ok((confinement, user))
}

fn extras(id: &str, process: &Value) -> Result<Extras, Failed> {
    let io_priority = match process.get("ioPriority").filter(|value| !value.is_null()) {
        None => None,
        Some(value) => {
            let class = match value["class"].as_str() {
                Some("IOPRIO_CLASS_RT") => 1,
                Some("IOPRIO_CLASS_BE") => 2,
                Some("IOPRIO_CLASS_IDLE") => 3,
                other => return Err(Failed::new(format!("unknown I/O priority class {other:?}"))),
            };
            let level = value["priority"]
                .as_u64()
                .and_then(|level| u8::try_from(level).ok())
                .filter(|level| *level < 8);
            Some((
                class,
                level.ok_or_else(|| Failed::new("the I/O priority must be 0 to 7"))?,
            ))
        }
    };
    let affinity = |field: &str| process["execCPUAffinity"][field].as_str().map(str::to_owned);
    Ok(Extras {
        io_priority,
        affinity_initial: affinity("initial"),
        affinity_final: affinity("final"),
        keyring: Some(format!("_ses.{id}")),
    })
}
