//! A volume's files: `kakoi-shim files --volume FOLDER`.
//!
//! Owns the way in. The folder holds `_data`, which containers write to, and nothing else that they reach; it becomes this process's root, every privilege but
//! that over files is given up, and names of the volume are followed no further than `_data`. Owners are those of the disk, as in Podman's exports: a
//! volume of a container with a user namespace comes back to the same one.
//!
//! ```text
//! → "export"            → "import" and a tar
//! ← {"ready":null}      ← "done"
//! ← (a tar)
//! ```

use std::ffi::OsStr;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use kakoi_archive::restore::{Folders, restore};
use kakoi_archive::tarball::Reader;
use kakoi_archive::walk::TreeWriter;
use kakoi_confine::{Part, narrow};
use kakoi_sys::path::{open_beneath, open_start};
use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::words::{Answer, VolumeAsk};
use super::{CHUNK_BYTES, FilesError, failure_of, read_request, say, step};

/// What containers see of a volume.
const DATA: &str = "_data";
/// Where an archive is unpacked first. It is left behind by a process that is killed.
pub const ASIDE: &str = "import";

/// Serves one request about the volume in a folder from standard input. Needs root and a process with one thread.
pub fn serve_volume(folder: &Path) -> Result<(), FilesError> {
    let mut input = BufReader::with_capacity(CHUNK_BYTES, io::stdin());
    let ask: VolumeAsk = read_request(&mut input).map_err(FilesError::Request)?;
    let mut out = BufWriter::with_capacity(CHUNK_BYTES, io::stdout());
    let call = |error: kakoi_sys::CallError| step("open the volume")(error.errno.into());
    let above = open_start(folder).map_err(call)?;
    let enter = || -> nix::Result<()> {
        nix::unistd::fchdir(above.as_raw_fd())?;
        nix::unistd::chroot(".")
    };
    enter().map_err(|errno: Errno| step("make the volume this process's root")(errno.into()))?;
    narrow(Part::Files { attributes: false })?;
    match ask {
        VolumeAsk::Export => export(above.as_fd(), &mut out),
        VolumeAsk::Import => {
            let answer = import(above.as_fd(), &mut input);
            say(&mut out, &answer)
        }
    }
}

fn export(above: BorrowedFd<'_>, out: &mut impl Write) -> Result<(), FilesError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let data = open_beneath(above, Path::new(DATA), flags, 0)
        .map_err(|error| step("open the volume")(error.errno.into()))?;
    say(out, &Answer::Ready(None))?;
    let ids = |uid, gid| (uid, gid);
    let mut writer = TreeWriter::backup(&mut *out, &ids);
    writer.tree(data.as_fd(), OsStr::new("."), b".")?;
    writer.finish()?;
    out.flush().map_err(FilesError::Answer)
}

fn import(above: BorrowedFd<'_>, input: &mut impl Read) -> Answer {
    let folders = Folders {
        name: DATA,
        aside: ASIDE,
    };
    match restore(above, folders, Reader::new(input), &|uid, gid| (uid, gid)) {
        Ok(()) => Answer::Done,
        Err(error) => Answer::failed(failure_of(&error), crate::executor::chain(&error)),
    }
}
