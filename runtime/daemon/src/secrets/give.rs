//! What a container is given of secrets, and how it gets there.
//!
//! While a container is made, its secrets lie in a file system in memory of their own, in its run-time folder. The shim binds the files into the container
//! and reads the variables; then the file system is let go, and only the container's own mounts hold it. So a value is on no disk, and in no place of
//! the host's, while the app runs or after.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use hyper::StatusCode;
use kakoi_api::secret::SecretUse;
use kakoi_container::plan::{IdMapping, MountKind, MountPlan, RunPlan};
use kakoi_sys::Errno;
use kakoi_sys::mount::{Attributes, NewFilesystem, attach, detach, open_place};

use super::Secrets;
use crate::engine::Engine;
use crate::plan::mounts::{self, Asked, Source};
use crate::refusal::{Answer, Refusal};
use crate::state::Record;

/// Where files are where nothing is said.
const FOLDER: &str = "/run/secrets";
/// Their mode where nothing is said: Podman's.
const MODE: u32 = 0o444;
/// Secrets of one container: with each of the largest size they take 33 MB of memory.
const SECRETS_MAX: usize = 64;
/// The folder of one start.
const LAID_OUT: &str = "secrets";
/// The file of variables there.
const ENVIRONMENT: &str = "environment";

/// Those that are files, each with its number.
fn files(all: &[SecretUse]) -> impl Iterator<Item = (usize, &SecretUse)> {
    all.iter().enumerate().filter(|(_, used)| used.env.is_empty())
}

fn variables(all: &[SecretUse]) -> impl Iterator<Item = &SecretUse> {
    all.iter().filter(|used| !used.env.is_empty())
}

/// Judges what is asked for, and fills in what was left out.
pub fn settle(engine: &Engine, asked: &[SecretUse]) -> Answer<Vec<SecretUse>> {
    if asked.len() > SECRETS_MAX {
        return Err(Refusal::bad(format!(
            "a container is given at most {SECRETS_MAX} secrets"
        )));
    }
    let mut places = BTreeSet::new();
    let mut settled = Vec::new();
    for used in asked {
        // For clients, what is not there where a container is made is its image, which they would fetch.
        let there = engine.secrets.check_there(&used.name);
        there.map_err(|refusal| match refusal.status {
            StatusCode::NOT_FOUND => Refusal::bad(refusal.message),
            _ => refusal,
        })?;
        let mut used = used.clone();
        if used.env.is_empty() {
            if used.target.is_empty() {
                used.target = format!("{FOLDER}/{}", used.name);
            }
            used.target = mounts::target(&used.target)?;
            if used.mode == 0 {
                used.mode = MODE;
            }
            if used.mode > 0o777 {
                return Err(Refusal::bad(format!(
                    "secret {}: mode {:04o} is not one of 0001 to 0777",
                    used.name, used.mode
                )));
            }
        } else {
            check_variable(&used)?;
            variable(&engine.secrets, &used)?;
        }
        let place = if used.env.is_empty() {
            &used.target
        } else {
            &used.env
        };
        if !places.insert(place.clone()) {
            return Err(Refusal::bad(format!("two secrets at {place}")));
        }
        settled.push(used);
    }
    Ok(settled)
}

fn check_variable(used: &SecretUse) -> Answer<()> {
    let is_good = !used.env.starts_with(|c: char| c.is_ascii_digit())
        && used.env.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_good || !used.target.is_empty() || (used.uid, used.gid, used.mode) != (0, 0, 0) {
        return Err(Refusal::bad(format!(
            "secret {}: {:?} is no variable, or has a path, owner or mode, which only a file has",
            used.name, used.env
        )));
    }
    Ok(())
}

/// `NAME=value`; a value that no variable can hold is refused.
fn variable(secrets: &Secrets, used: &SecretUse) -> Answer<String> {
    let value = secrets.value(&used.name)?;
    let text = std::str::from_utf8(value.bytes()).ok();
    let text = text.filter(|text| !text.contains('\0')).ok_or_else(|| {
        Refusal::bad(format!(
            "secret {} holds what no variable can: give it as a file (type=mount)",
            used.name
        ))
    })?;
    Ok(format!("{}={text}", used.env))
}

/// The mounts of secrets, for whoever judges mounts and plans them.
pub fn mounts(settled: &[SecretUse]) -> impl Iterator<Item = Asked> {
    files(settled).map(|(number, used)| Asked {
        source: Source::Secret { number },
        target: used.target.clone(),
        read_only: true,
        options: ["nosuid", "nodev", "noexec"].map(String::from).to_vec(),
        copy_up: false,
        mode: String::new(),
    })
}

/// Where the file of a secret is at a start.
fn source(run_dir: &Path, number: usize) -> MountKind {
    MountKind::Secret(run_dir.join(LAID_OUT).join(number.to_string()))
}

/// Writes into a plan where its variables will be.
pub fn plan(settled: &[SecretUse], plan: &mut RunPlan) {
    let has_variables = variables(settled).next().is_some();
    plan.secret_environment = has_variables.then(|| plan.run_dir.join(LAID_OUT).join(ENVIRONMENT));
}

/// Puts its variables among those of a process that `exec` adds.
pub fn reveal(engine: &Engine, record: &Record, env: &mut Vec<String>) -> Answer<()> {
    for entry in environment(engine, record)? {
        let name = entry.split('=').next().unwrap_or_default();
        env.retain(|held| held.split('=').next() != Some(name));
        env.push(entry);
    }
    Ok(())
}

/// `NAME=value` of all variables.
fn environment(engine: &Engine, record: &Record) -> Answer<Vec<String>> {
    variables(&record.secrets)
        .map(|used| variable(&engine.secrets, used))
        .collect()
}

/// Secrets that lie in memory until this is dropped.
#[derive(Debug)]
pub struct LaidOut(PathBuf);

impl Drop for LaidOut {
    fn drop(&mut self) {
        if let Err(error) = take_back(&self.0) {
            tracing::error!(path = %self.0.display(), %error, "secrets of a start stay in memory");
        }
    }
}

/// Takes away what a daemon that was killed left, too.
fn take_back(folder: &Path) -> io::Result<()> {
    match detach(folder) {
        Err(error) if !matches!(error.errno, Errno::EINVAL | Errno::ENOENT) => {
            return Err(error.errno.into());
        }
        _ => {}
    }
    match fs::remove_dir(folder) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}

/// Takes away what a start that was cut off left.
pub fn sweep(run_dir: &Path) {
    if let Err(error) = take_back(&run_dir.join(LAID_OUT)) {
        tracing::error!(path = %run_dir.display(), %error, "secrets of a start stay in memory");
    }
}

/// Lays out what a container is given; `None` where that is nothing.
pub fn lay_out(engine: &Engine, record: &Record) -> Answer<Option<LaidOut>> {
    if record.secrets.is_empty() {
        return Ok(None);
    }
    let run_dir = engine.paths.run_dir(&record.id);
    let failed = |cause: io::Error| Refusal::failed("laying out the secrets failed", cause);
    let ids = crate::plan::read(&engine.paths.state_dir(&record.id))?.id_mappings;
    let folder = run_dir.join(LAID_OUT);
    take_back(&folder).map_err(failed)?;
    fs::create_dir(&folder).map_err(failed)?;
    let laid_out = LaidOut(folder.clone());
    mount_memory(&folder).map_err(failed)?;
    for (number, used) in files(&record.secrets) {
        let value = engine.secrets.value(&used.name)?;
        let owner = (outside(&ids.uids, used.uid)?, outside(&ids.gids, used.gid)?);
        let write = || {
            let mut file = crate::host::create_private_file(&folder.join(number.to_string()))?;
            file.write_all(value.bytes())?;
            fchown(&file, Some(owner.0), Some(owner.1))?;
            file.set_permissions(fs::Permissions::from_mode(used.mode))
        };
        write().map_err(failed)?;
    }
    let variables = environment(engine, record)?;
    if !variables.is_empty() {
        let write = || {
            let mut file = crate::host::create_private_file(&folder.join(ENVIRONMENT))?;
            variables.iter().try_for_each(|entry| {
                file.write_all(entry.as_bytes())
                    .and_then(|()| file.write_all(b"\0"))
            })
        };
        write().map_err(failed)?;
    }
    Ok(Some(laid_out))
}

/// An id of the container's as the host counts it.
fn outside(mappings: &[IdMapping], id: u32) -> Answer<u32> {
    if mappings.is_empty() {
        return Ok(id);
    }
    let found = mappings.iter().find_map(|range| {
        let at = id.checked_sub(range.inside).filter(|at| *at < range.count)?;
        range.outside.checked_add(at)
    });
    found.ok_or_else(|| {
        Refusal::bad(format!(
            "no id {id} in the container's user namespace owns a secret"
        ))
    })
}

fn mount_memory(folder: &Path) -> io::Result<()> {
    let from = |error: kakoi_sys::CallError| io::Error::from(error.errno);
    let memory = NewFilesystem::open("tmpfs").map_err(from)?;
    memory.set("mode", "0700").map_err(from)?;
    memory
        .set("size", &format!("{}", SECRETS_MAX * 2 * super::VALUE_BYTES_MAX))
        .map_err(from)?;
    // Since Linux 6.4; where it is unknown, what is swapped out is the owner's to encrypt.
    if let Err(error) = memory.set_flag("noswap") {
        tracing::debug!(%error, "this kernel may swap secrets out");
    }
    let attributes = Attributes::NO_SUID
        .with(Attributes::NO_DEVICES)
        .with(Attributes::NO_EXECUTE);
    let mounted = memory.mount(attributes).map_err(from)?;
    let place = open_place(folder).map_err(from)?;
    attach(mounted.as_fd(), place.as_fd()).map_err(from)
}

/// The plan of a secret's mount.
pub fn mount_plan(run_dir: &Path, number: usize, mount: Asked) -> MountPlan {
    MountPlan {
        target: mount.target,
        kind: source(run_dir, number),
        read_only: true,
        options: mount.options,
        copy_up: false,
    }
}
