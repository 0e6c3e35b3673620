//! Size limits of volumes, by project quota.
//!
//! Owns which project is a volume's, and what of a volume's options is a size. The kernel keeps both the project (at the volume's folder) and the limit, so
//! there is no record that could differ. Invariant: a project that has a file is given to nobody else.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use kakoi_sys::path::FilesystemKind;
use kakoi_sys::{CallError, quota};

use crate::refusal::{Answer, Refusal};

/// The first project of ours: far from what people number by hand in /etc/projid.
const PROJECT_FIRST: u32 = 0x4b00_0000;

/// Projects that are looked at for a free one: twice the volumes that one daemon takes.
const PROJECTS_MAX: u32 = 8192;

/// The largest block of the file systems that have project quotas: below it nothing can be written.
const SIZE_BYTES_MIN: u64 = 4096;

/// Why a folder has no size limit.
#[derive(Debug, thiserror::Error)]
pub enum QuotaError {
    /// The folder cannot be opened.
    #[error("opening {folder} failed")]
    Open {
        /// Which.
        folder: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The kernel refused.
    #[error("setting its size limit failed")]
    Call(#[from] CallError),
    /// All are taken.
    #[error("there is no free project: {PROJECTS_MAX} are taken")]
    Full,
}

/// The size that a volume's options ask for; `None` where there are none. What no option can be is refused: one of the local driver's mounts what it names,
/// which is for an owner to do and not for a client.
pub fn wanted(root: &Path, name: &str, options: &BTreeMap<String, String>) -> Answer<Option<u64>> {
    if options.is_empty() {
        return Ok(None);
    }
    if options.get("type").is_some_and(|kind| kind == "tmpfs") {
        return Err(Refusal::unsupported(format!(
            "create {name}: a volume in memory is not supported; give each container its own (--tmpfs PATH:size=SIZE)"
        )));
    }
    let unsupported = |option: &str| {
        Refusal::unsupported(format!(
            "create {name}: volume option {option:?} is not supported; mount on the host and bind the folder"
        ))
    };
    let mut sizes = Vec::new();
    for (option, value) in options {
        match option.as_str() {
            "size" => sizes.push(value.as_str()),
            "o" => {
                for word in value.split(',').map(str::trim) {
                    sizes.push(word.strip_prefix("size=").ok_or_else(|| unsupported(word))?);
                }
            }
            other => return Err(unsupported(other)),
        }
    }
    let [size] = sizes[..] else {
        return Err(Refusal::bad(format!(
            "create {name}: a volume has one size, not {}",
            sizes.len()
        )));
    };
    let bytes = bytes_of(size).ok_or_else(|| {
        Refusal::bad(format!(
            "create {name}: {size:?} is not a size of a volume: a whole number with k, m, g or t, of {SIZE_BYTES_MIN} bytes or more (64m)"
        ))
    })?;
    if !File::open(root).is_ok_and(|root| quota::is_enforced(root.as_fd())) {
        return Err(Refusal::unsupported(unkept(root, name, size)));
    }
    Ok(Some(bytes))
}

/// Why a size cannot be kept, and what would help.
fn unkept(root: &Path, name: &str, size: &str) -> String {
    let kind = file_system(root);
    let remedy = match kind.as_str() {
        "ext4" => {
            "unmount it, turn project quotas on (tune2fs -O quota,project -Q prjquota DEVICE) and mount it with the option prjquota"
        }
        "xfs" => {
            "mount it with the option prjquota, which for the first file system goes to the kernel as rootflags=prjquota"
        }
        _ => {
            "put the daemon's root on ext4 or xfs mounted with the option prjquota, or make a file system of that size on the host \
             (truncate -s SIZE FILE, mkfs.ext4 FILE, mount FILE FOLDER) and bind its folder"
        }
    };
    format!(
        "create {name}: a size limit ({size}) cannot be kept: volumes lie on {kind} in {}, on which no project quota is enforced; {remedy}",
        root.display()
    )
}

/// `64m`, `1G`, `4096`, `10MiB`; each unit is 1024 of the one below.
fn bytes_of(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let power = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    let bytes = number.parse::<u64>().ok()?.checked_mul(1 << power)?;
    // The kernel counts in signed numbers.
    (SIZE_BYTES_MIN..=i64::MAX as u64)
        .contains(&bytes)
        .then_some(bytes)
}

fn open(folder: &Path) -> Result<File, QuotaError> {
    File::open(folder).map_err(|cause| QuotaError::Open {
        folder: folder.display().to_string(),
        cause,
    })
}

/// Puts an empty folder into a project of its own: what is made in it from now on counts. [`limit`] bounds it.
pub fn begin(folder: &Path) -> Result<(), QuotaError> {
    let folder = open(folder)?;
    for project in PROJECT_FIRST..PROJECT_FIRST + PROJECTS_MAX {
        let usage = quota::usage(folder.as_fd(), project)?;
        // A limit without a file is what an interrupted removal left.
        if usage.inodes == 0 && usage.used_bytes == 0 {
            return Ok(quota::set_project(folder.as_fd(), project)?);
        }
    }
    Err(QuotaError::Full)
}

/// Bounds what may come into a folder's project beside what is in it: the daemon's own files are not the volume's.
pub fn limit(folder: &Path, bytes: u64) -> Result<(), QuotaError> {
    let folder = open(folder)?;
    let project = quota::project(folder.as_fd())?;
    let own = quota::usage(folder.as_fd(), project)?.used_bytes;
    Ok(quota::set_limit(
        folder.as_fd(),
        project,
        bytes.saturating_add(own),
    )?)
}

/// The project of a volume's folder, where it is one of ours.
pub fn project_of(folder: &Path) -> Option<u32> {
    let project = quota::project(open(folder).ok()?.as_fd()).ok()?;
    (PROJECT_FIRST..PROJECT_FIRST + PROJECTS_MAX)
        .contains(&project)
        .then_some(project)
}

/// Gives a project back whose files are gone. A failure costs nothing: a limit without files binds nobody.
pub fn release(volumes: &Path, project: u32) {
    let released = open(volumes).and_then(|folder| Ok(quota::set_limit(folder.as_fd(), project, 0)?));
    if let Err(error) = released {
        tracing::warn!(
            project,
            error = crate::refusal::chain(&error),
            "ignoring a size limit that cannot be taken away"
        );
    }
}

/// The name of a file system as mount(8) has it.
fn file_system(folder: &Path) -> String {
    let kind = kakoi_sys::path::open_start(folder)
        .and_then(|folder| kakoi_sys::path::filesystem_kind(folder.as_fd()));
    match kind {
        Ok(FilesystemKind::Tmpfs) => "tmpfs".to_owned(),
        Ok(FilesystemKind::Overlay) => "overlay".to_owned(),
        // linux/magic.h
        Ok(FilesystemKind::Other(0xef53)) => "ext4".to_owned(),
        Ok(FilesystemKind::Other(0x5846_5342)) => "xfs".to_owned(),
        Ok(FilesystemKind::Other(0x9123_683e)) => "btrfs".to_owned(),
        Ok(FilesystemKind::Other(0xf2f5_2010)) => "f2fs".to_owned(),
        Ok(FilesystemKind::Other(0x2405_1905)) => "ubifs".to_owned(),
        Ok(FilesystemKind::Other(magic)) => format!("a file system of kind {magic:#x}"),
        Ok(_) | Err(_) => "an unknown file system".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_or_refused() {
        let good = [
            ("4096", 4096),
            ("4k", 4096),
            ("64m", 64 << 20),
            ("64MiB", 64 << 20),
            ("1G", 1 << 30),
            ("2tb", 2 << 40),
        ];
        for (text, bytes) in good {
            assert_eq!(bytes_of(text), Some(bytes), "{text}");
        }
        let bad = [
            "",
            "0",
            "0m",
            "-1",
            "-64m",
            "+64m",
            "4095",
            "1k",
            "m",
            "64 m",
            "64x",
            "1.5g",
            "64mm",
            "18446744073709551615",
            "99999999999999999999",
            "8388608t",
            "ten",
            "0x1000",
        ];
        for text in bad {
            assert_eq!(bytes_of(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        let check = |options: &[(&str, &str)], words: &str| {
            let options = options
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect();
            let said = wanted(Path::new("/proc"), "v", &options)
                .expect_err("refused")
                .message;
            assert!(said.contains(words), "{said}");
        };
        check(&[("size", "64m")], "no project quota is enforced");
        check(&[("o", "size=64m")], "mounted with the option prjquota");
        check(&[("o", "size=0")], "not a size of a volume");
        check(&[("o", "size=")], "not a size of a volume");
        check(&[("o", "size=64m,size=1g")], "one size, not 2");
        check(&[("o", "size=64m"), ("size", "64m")], "one size, not 2");
        check(&[("o", "size=64m,uid=1")], "is not supported");
        check(&[("o", "bind"), ("size", "64m")], "is not supported");
        check(
            &[("device", "/dev/sda"), ("o", "size=64m")],
            "\"device\" is not supported",
        );
        check(
            &[("type", "tmpfs"), ("o", "size=64m")],
            "in memory is not supported",
        );
        assert!(matches!(
            wanted(Path::new("/proc"), "v", &BTreeMap::new()),
            Ok(None)
        ));
    }
}
