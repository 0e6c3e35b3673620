//! Extended attributes of open files.
//!
//! Owns fsetxattr(2), fgetxattr(2) and flistxattr(2). Refuses to know which names are good. Invariant: works on a descriptor only, so no path is walked.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use crate::error::{Named, Result};

/// Sets an extended attribute, replacing one of that name. `trusted.*` needs CAP_SYS_ADMIN, `security.capability` CAP_SETFCAP.
pub fn set(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> Result<()> {
    // SAFETY: name is NUL-terminated, value is valid for its length, and the descriptor is open for as long as it is borrowed.
    let result = unsafe {
        libc::fsetxattr(
            file.as_raw_fd(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    Errno::result(result).map(drop).named("fsetxattr")
}

/// Reads an extended attribute; `None` where the file has none of that name. At most `value_bytes_max` bytes (ERANGE beyond).
pub fn get(file: BorrowedFd<'_>, name: &CStr, value_bytes_max: usize) -> Result<Option<Vec<u8>>> {
    let mut value = vec![0u8; value_bytes_max];
    // SAFETY: name is NUL-terminated, value is writable for its length, and the descriptor is open for as long as it is borrowed.
    let result = unsafe {
        libc::fgetxattr(
            file.as_raw_fd(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    match Errno::result(result) {
        Ok(length) => {
            value.truncate(usize::try_from(length).unwrap_or(0));
            Ok(Some(value))
        }
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno).named("fgetxattr"),
    }
}

/// The names of a file's attributes, at most `names_bytes_max` bytes of them; none where the file system has no attributes. `ERANGE` where there are more.
pub fn list(file: BorrowedFd<'_>, names_bytes_max: usize) -> Result<Vec<CString>> {
    let mut names = vec![0u8; names_bytes_max];
    // SAFETY: names is writable for its length, and the descriptor is open for as long as it is borrowed.
    let result = unsafe { libc::flistxattr(file.as_raw_fd(), names.as_mut_ptr().cast(), names.len()) };
    let length = match Errno::result(result) {
        Ok(length) => usize::try_from(length).unwrap_or(0),
        Err(Errno::EOPNOTSUPP) => 0,
        Err(errno) => return Err(errno).named("flistxattr"),
    };
    names.truncate(length);
    let names = names.split_inclusive(|byte| *byte == 0);
    Ok(names
        .filter_map(|name| CString::from_vec_with_nul(name.to_vec()).ok())
        .collect())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_was_set_is_read() {
        let path = std::env::temp_dir().join(format!("kakoi-sys-xattr-{}", std::process::id()));
        let file = File::create(&path).expect("file");
        assert_eq!(get(file.as_fd(), c"user.kakoi", 16), Ok(None));
        set(file.as_fd(), c"user.kakoi", b"wall").expect("set");
        assert_eq!(get(file.as_fd(), c"user.kakoi", 16), Ok(Some(b"wall".to_vec())));
        let short = get(file.as_fd(), c"user.kakoi", 2).map_err(|e| e.errno);
        assert_eq!(short, Err(Errno::ERANGE));
        let unknown = set(file.as_fd(), c"nonsense", b"x").map_err(|e| e.errno);
        assert_eq!(unknown, Err(Errno::EOPNOTSUPP));
        std::fs::remove_file(&path).expect("removed");
    }
}
