//! What the daemon holds of its host: its folders, the lock on them, the socket, and the word to the init system.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::Paths;

/// The group whose members may use the socket.
const GROUP: &str = "kakoi";
/// The first descriptor that socket activation hands over. Source: sd_listen_fds(3).
const LISTEN_FD: i32 = 3;

/// How long the locks of a daemon that ended may outlive it: the kernel lets go of them one by one, and a child that it was just making has them until
/// it executes its program.
pub const ORPHAN_WAIT: Duration = Duration::from_secs(5);
/// Between two looks at such a lock. No event tells when it goes: who waits in flock(2) cannot be told that its holder lives.
pub const ORPHAN_STEP: Duration = Duration::from_millis(2);

/// A host that does not give what the daemon needs.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Another daemon has the folder.
    #[error("another kakoid (pid {pid}) already uses {}; stop it first, or give this one other --root and --run folders", .folder.display())]
    Taken {
        /// The folder.
        folder: PathBuf,
        /// The other's process id.
        pid: String,
    },
    /// A folder or file cannot be made.
    #[error("preparing {}", .path.display())]
    Prepare {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The inherited socket is none.
    #[error("taking over the socket from the init system")]
    Inherited(#[source] io::Error),
}

/// The locks; they hold for as long as this lives.
#[derive(Debug)]
pub struct Locks {
    _root: File,
    _run: File,
}

/// Makes the folders and locks both: neither records nor shims can have two masters.
pub fn prepare(paths: &Paths) -> Result<Locks, HostError> {
    make_private_folder(&paths.root)?;
    make_folder(&paths.run, 0o755)?;
    let root = lock(&paths.root)?;
    let run = lock(&paths.run)?;
    for folder in [
        paths.root.join("containers"),
        paths.root.join("volumes"),
        paths.root.join("apps"),
        paths.root.join("audit"),
        paths.root.join("secrets"),
        paths.run.join("containers"),
        paths.run.join("records"),
    ] {
        make_private_folder(&folder)?;
    }
    Ok(Locks {
        _root: root,
        _run: run,
    })
}

/// Makes a folder, with its parents, that only its owner enters; one that is there becomes one. What containers write keeps the owners and
/// modes that they give it, set-user-ID bits among them, and no user of the host may come near it (CVE-2021-41091). Containers need no way
/// through: the shim opens what they see, and mounts it where even the root of a user namespace may pass.
pub fn make_private_folder(path: &Path) -> Result<(), HostError> {
    make_folder(path, 0o700)?;
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(|cause| HostError::Prepare {
        path: path.to_owned(),
        cause,
    })
}

/// Makes a file, or empties one, that only its owner reads.
pub fn create_private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

/// Makes a folder with its parents.
pub fn make_folder(path: &Path, mode: u32) -> Result<(), HostError> {
    let prepare = |cause| HostError::Prepare {
        path: path.to_owned(),
        cause,
    };
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .map_err(prepare)?;
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(prepare)
}

/// Makes a folder with its parents where nothing is; a file that is there stays one. The path is the real one that was judged: where a part of it has
/// become a link since, nothing is made.
pub fn make_folder_if_missing(path: &Path) -> io::Result<()> {
    kakoi_sys::path::make_missing_folders(path, 0o755).map_err(|error| error.errno.into())
}

fn lock(folder: &Path) -> Result<File, HostError> {
    let path = folder.join("lock");
    let prepare = |cause| HostError::Prepare {
        path: path.clone(),
        cause,
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(prepare)?;
    let deadline = Instant::now() + ORPHAN_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(fs::TryLockError::WouldBlock) => {}
            Err(fs::TryLockError::Error(cause)) => return Err(prepare(cause)),
        }
        let mut pid = String::new();
        file.rewind().map_err(prepare)?;
        file.read_to_string(&mut pid).map_err(prepare)?;
        let pid = pid.trim();
        if is_running(pid) || Instant::now() > deadline {
            return Err(HostError::Taken {
                folder: folder.to_owned(),
                pid: pid.to_owned(),
            });
        }
        std::thread::park_timeout(ORPHAN_STEP);
    }
    file.rewind().map_err(prepare)?;
    file.set_len(0).map_err(prepare)?;
    writeln!(file, "{}", std::process::id()).map_err(prepare)?;
    Ok(file)
}

/// Whether a process runs: one that is about to end gives up its memory first, and its files, locks and number after that.
fn is_running(pid: &str) -> bool {
    fs::read(Path::new("/proc").join(pid).join("cmdline")).is_ok_and(|command| !command.is_empty())
}

/// The listening socket: the init system's where it hands one over, else our own.
pub fn listen(paths: &Paths) -> Result<UnixListener, HostError> {
    match inherited()? {
        Some(listener) => Ok(listener),
        None => listen_at(&paths.socket()),
    }
}

/// A socket of our own is made aside, given to its group and then moved into place: nobody can connect before the permissions stand, and one that a dead
/// daemon left is replaced. That no living one is replaced, the lock has shown.
pub fn listen_at(path: &Path) -> Result<UnixListener, HostError> {
    let aside = path.with_extension("sock.new");
    let prepare = |cause| HostError::Prepare {
        path: path.to_owned(),
        cause,
    };
    match fs::remove_file(&aside) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(prepare(cause)),
        _ => {}
    }
    let listener = UnixListener::bind(&aside).map_err(prepare)?;
    fs::set_permissions(&aside, Permissions::from_mode(0o600)).map_err(prepare)?;
    if let Some(group) = group_id(&fs::read_to_string("/etc/group").unwrap_or_default(), GROUP) {
        std::os::unix::fs::chown(&aside, None, Some(group)).map_err(prepare)?;
    }
    fs::set_permissions(&aside, Permissions::from_mode(0o660)).map_err(prepare)?;
    fs::rename(&aside, path).map_err(prepare)?;
    Ok(listener)
}

fn inherited() -> Result<Option<UnixListener>, HostError> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) || number("LISTEN_FDS").unwrap_or(0) == 0 {
        return Ok(None);
    }
    let fd = kakoi_sys::descriptors::take_inherited(LISTEN_FD)
        .map_err(|cause| HostError::Inherited(io::Error::from_raw_os_error(cause.errno as i32)))?;
    let listener = UnixListener::from(fd);
    listener.local_addr().map_err(HostError::Inherited)?;
    Ok(Some(listener))
}

/// A group's number, from the text of `/etc/group`.
fn group_id(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// Tells the init system how the daemon stands. Source: sd_notify(3). Without `NOTIFY_SOCKET` nobody asked.
pub fn notify(state: &str) {
    let Ok(path) = std::env::var("NOTIFY_SOCKET") else {
        return;
    };
    let told = (|| {
        let address = match path.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&path)?,
        };
        UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)
    })();
    if let Err(cause) = told {
        tracing::warn!(%cause, state, "the init system cannot be told, ignoring");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(folder: &Path) -> Paths {
        Paths {
            root: folder.join("root"),
            run: folder.join("run"),
            config: folder.join("etc"),
            shim: folder.join("shim"),
        }
    }

    #[test]
    fn a_second_daemon_is_told_whose_the_folder_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let locks = prepare(&paths(folder.path())).expect("free");
        let Err(HostError::Taken { pid, .. }) = prepare(&paths(folder.path())) else {
            panic!("it was taken")
        };
        assert_eq!(pid, std::process::id().to_string());
        drop(locks);
        prepare(&paths(folder.path())).expect("free again");
    }

    #[test]
    fn a_dead_daemons_socket_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let paths = paths(folder.path());
        let _locks = prepare(&paths).expect("free");
        drop(listen(&paths).expect("a socket"));
        let _listener = listen(&paths).expect("the socket is replaced");
        std::os::unix::net::UnixStream::connect(paths.socket()).expect("it listens");
        let mode = fs::metadata(paths.socket())
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o660);
    }

    #[test]
    fn finds_a_group() {
        let text = "root:x:0:\nkakoi:x:42:a,b\nkakoix:x:43:\n";
        assert_eq!(group_id(text, "kakoi"), Some(42));
        assert_eq!(group_id(text, "kako"), None);
        assert_eq!(group_id("kakoi:x:many:", "kakoi"), None);
    }
}
