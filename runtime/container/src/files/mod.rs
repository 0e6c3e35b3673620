//! A container's files for those outside it: `docker cp`, `export`, `diff` and `commit`.
//!
//! Owns the work of one short-lived process, `kakoi-shim files`: it sees the container's root file system in a mount namespace of its own, makes that
//! its root, gives up every privilege but that over files, and only then reads or writes what the container may be changing at the same time. One request
//! on standard input, one answer line on standard output, then the archive: a tree on standard output, or, for [`Ask::Put`], on standard input after the
//! request's line, with the answer when it is done.
//!
//! A volume is served in the same way, by itself ([`serve_volume`]): a backup and its restore need no container.
//!
//! Invariants: nothing outside the container's root and its own mounts is in reach when foreign names are followed; the container itself notices nothing but
//! its files; what was mounted goes with the process.
//!
//! ```text
//! → {"up":false,"place":"/run/kakoi/containers","ask":{"get":{"path":"/etc/hosts"}}}
//! ← {"ready":{"name":"hosts","size":12,"mode":420,"mtime_s":1700000000,"mtime_ns":0,"link_target":""}}
//! ← (a tar)
//! ```

mod paths;
mod view;
mod volume;
mod words;

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use kakoi_archive::TreeError;
use kakoi_archive::changes::{Layers, Told};
use kakoi_archive::place::{PlaceError, Placing, place};
use kakoi_archive::tarball::Reader;
use kakoi_archive::walk::TreeWriter;
use kakoi_confine::{Granted, NarrowError, Part, narrow};
use nix::errno::Errno;
use serde::de::DeserializeOwned;

use crate::idmap;
use crate::plan::{IdMapping, RootfsDriver, RunPlan};
use crate::rootfs::{IDENTITY_FILES, RootfsError};
use crate::supervise::{SuperviseError, read_plan};
use paths::Found;
pub use volume::{ASIDE, serve_volume};
pub use words::{Answer, Ask, Failure, Owner, PathStat, Request, VolumeAsk};

/// Longest line of a request: a path at the kernel's limit, escaped.
const REQUEST_BYTES_MAX: u64 = 64 << 10;
/// Bytes that are written at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// Who owns what belongs to nobody inside: the kernel's overflow id.
const NOBODY: u32 = 65534;

/// Why nothing could be done; what the client may be told is an [`Answer::Failed`].
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The request.
    #[error("understand the request")]
    Request(#[source] io::Error),
    /// The plan.
    #[error(transparent)]
    Plan(#[from] SuperviseError),
    /// The container's file system could not be mounted.
    #[error(transparent)]
    Root(#[from] RootfsError),
    /// A step on the way into it.
    #[error("{act}")]
    Step {
        /// What was tried.
        act: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The container has ended since the request was made.
    #[error("the container has ended meanwhile")]
    Gone,
    /// Privileges that are not needed could not be given up.
    #[error("give up what is not needed")]
    Narrow(#[from] NarrowError),
    /// The tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The other side does not listen.
    #[error("answer")]
    Answer(#[source] io::Error),
}

fn step(act: &'static str) -> impl FnOnce(io::Error) -> FilesError {
    move |source| FilesError::Step { act, source }
}

/// Serves one request from standard input. Needs root and a process with one thread.
pub fn serve(plan_path: &Path) -> Result<(), FilesError> {
    let mut input = BufReader::with_capacity(CHUNK_BYTES, io::stdin());
    let request: Request = read_request(&mut input).map_err(FilesError::Request)?;
    let mut out = BufWriter::with_capacity(CHUNK_BYTES, io::stdout());
    let plan = read_plan(plan_path)?;
    let outcome = answer(&plan, &request, &mut input, &mut out);
    let told = match outcome {
        Err(FilesError::Gone) => Answer::failed(Failure::Gone, FilesError::Gone.to_string()),
        outcome => return outcome,
    };
    say(&mut out, &told)
}

fn read_request<T: DeserializeOwned>(input: &mut impl BufRead) -> io::Result<T> {
    let mut line = Vec::new();
    input.take(REQUEST_BYTES_MAX).read_until(b'\n', &mut line)?;
    Ok(serde_json::from_slice(&line)?)
}

fn say(out: &mut impl Write, answer: &Answer) -> Result<(), FilesError> {
    let mut line = serde_json::to_vec(answer).map_err(|cause| FilesError::Answer(cause.into()))?;
    line.push(b'\n');
    out.write_all(&line)
        .and_then(|()| out.flush())
        .map_err(FilesError::Answer)
}

fn answer(
    plan: &RunPlan,
    request: &Request,
    input: &mut impl Read,
    out: &mut impl Write,
) -> Result<(), FilesError> {
    // A user namespace's capabilities count only inside it, so nothing is kept to be handed on.
    let making = Granted {
        confinement: &plan.confinement,
        has_user_namespace: true,
    };
    narrow(Part::Making(making))?;
    match &request.ask {
        Ask::Changes | Ask::Layer => changed(plan, &request.ask, out),
        Ask::Export => {
            let root = enter(plan, request, None)?;
            say(out, &Answer::Ready(None))?;
            let ids = |uid, gid| inside(plan, uid, gid);
            let mut writer = TreeWriter::new(&mut *out, &ids);
            writer.contents(root.as_fd())?;
            writer.finish()?;
            out.flush().map_err(FilesError::Answer)
        }
        Ask::Stat { path } | Ask::Get { path } => {
            let root = enter(plan, request, Some(path))?;
            let found = match paths::find(&root, path) {
                Ok(found) => found,
                Err(failure) => return say(out, &failure),
            };
            say(out, &Answer::Ready(Some(found.stat.clone())))?;
            match &request.ask {
                Ask::Get { .. } => get(plan, &found, out),
                _ => Ok(()),
            }
        }
        Ask::Put {
            path,
            replaces_kinds,
            owner,
        } => {
            let root = enter(plan, request, Some(path))?;
            let base = match paths::folder(&root, path) {
                Ok(base) => base,
                Err(failure) => return say(out, &failure),
            };
            let placing = Placing {
                replaces_kinds: *replaces_kinds,
                named: None,
                owner: owner.map(|owner| outside(plan, owner.uid, owner.gid)),
                ids: &|uid, gid| outside(plan, uid, gid),
            };
            let mut archive = Reader::new(input);
            let placed = place(root.as_fd(), &base, &mut archive, &placing);
            let answer = match placed {
                Ok(_) => {
                    // What follows the archive's end is read, so that its writer sees no error.
                    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(FilesError::Request)?;
                    Answer::Done
                }
                Err(error) => Answer::failed(failure_of(&error), crate::executor::chain(&error)),
            };
            say(out, &answer)
        }
    }
}

fn failure_of(error: &PlaceError) -> Failure {
    match error {
        PlaceError::Entry { source, .. } | PlaceError::Remove(TreeError::File { source, .. }) => {
            match source.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EROFS) => Failure::ReadOnly,
                Some(Errno::ENOSPC | Errno::EDQUOT) => Failure::Full,
                _ => Failure::Refused,
            }
        }
        _ => Failure::Refused,
    }
}

fn get(plan: &RunPlan, found: &Found, out: &mut impl Write) -> Result<(), FilesError> {
    let ids = |uid, gid| inside(plan, uid, gid);
    let mut writer = TreeWriter::new(&mut *out, &ids);
    writer.tree(found.folder.as_fd(), &found.name, &found.archive_name)?;
    writer.finish()?;
    out.flush().map_err(FilesError::Answer)
}

/// Shows the container's root, makes it this process's own, and gives up what mounting needed. Mounts of the container are there where `path` leads to, else
/// only its root file system.
fn enter(plan: &RunPlan, request: &Request, path: Option<&str>) -> Result<view::Root, FilesError> {
    let root = view::show(plan, request, path)?;
    let own = || -> nix::Result<()> {
        nix::unistd::fchdir(root.as_raw_fd())?;
        nix::unistd::chroot(".")
    };
    own().map_err(|errno| step("make the container's root this process's own")(errno.into()))?;
    narrow(Part::Files { attributes: false })?;
    Ok(root)
}

fn changed(plan: &RunPlan, ask: &Ask, out: &mut impl Write) -> Result<(), FilesError> {
    if plan.rootfs.driver == RootfsDriver::Copy {
        let said = "changes are not kept apart from the image on a kernel without overlayfs";
        return say(out, &Answer::failed(Failure::Unsupported, said.to_owned()));
    }
    narrow(Part::Files { attributes: true })?;
    let upper = plan.state_dir.join("upper");
    let mounted = plan.mounts.iter().map(|mount| mount.target.as_str());
    let by_policy = plan.confinement.filesystem.mounts.iter();
    let by_policy = by_policy.map(|mount| mount.target.as_str());
    let names = IDENTITY_FILES.map(|name| format!("/etc/{name}"));
    let own = names.iter().map(String::as_str).chain(view::STANDARD);
    let mounts = mounted
        .chain(by_policy)
        .chain(own)
        .chain([plan.process.cwd.as_str()]);
    if !upper.exists() {
        // It never ran.
        say(out, &Answer::Ready(None))?;
        return match ask {
            Ask::Layer => out.write_all(&[0; 1024]).and_then(|()| out.flush()),
            _ => out.write_all(b"null\n").and_then(|()| out.flush()),
        }
        .map_err(FilesError::Answer);
    }
    let layers = Layers::open(&upper, &plan.rootfs.layers, mounts)?;
    let ids = |uid, gid| inside(plan, uid, gid);
    say(out, &Answer::Ready(None))?;
    match ask {
        Ask::Layer => {
            layers.write(&mut *out, &ids)?;
        }
        _ => list(&layers, &ids, out)?,
    }
    out.flush().map_err(FilesError::Answer)
}

/// The changes as Docker lists them; `null` where there are none.
fn list(layers: &Layers, ids: kakoi_archive::Ids<'_>, out: &mut impl Write) -> Result<(), FilesError> {
    let mut is_first = true;
    layers.changes(ids, &mut |told: &Told<'_>| {
        let row = serde_json::json!({
            "Kind": told.change as u8,
            "Path": format!("/{}", String::from_utf8_lossy(told.path)),
        });
        let begin = if std::mem::take(&mut is_first) { '[' } else { ',' };
        write!(out, "{begin}{row}").map_err(TreeError::Write)
    })?;
    writeln!(out, "{}", if is_first { "null" } else { "]" }).map_err(FilesError::Answer)
}

/// Ids as a process inside sees them.
fn inside(plan: &RunPlan, uid: u32, gid: u32) -> (u32, u32) {
    let map = |mappings: &[IdMapping], id| match mappings.is_empty() {
        true => id,
        false => idmap::inside(mappings, id).unwrap_or(NOBODY),
    };
    (map(&plan.id_mappings.uids, uid), map(&plan.id_mappings.gids, gid))
}

/// Ids of the disk; one that the container does not have becomes its root's.
fn outside(plan: &RunPlan, uid: u32, gid: u32) -> (u32, u32) {
    let map = |mappings: &[IdMapping], id: u32| {
        let has = |at: u32| {
            let hit = mappings
                .iter()
                .find(|m| at >= m.inside && at - m.inside < m.count)?;
            Some(hit.outside + (at - hit.inside))
        };
        match mappings.is_empty() {
            true => id,
            false => has(id).or_else(|| has(0)).unwrap_or(NOBODY),
        }
    };
    (map(&plan.id_mappings.uids, uid), map(&plan.id_mappings.gids, gid))
}
