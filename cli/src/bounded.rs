//! Files that a person names, read within a bound.
//!
//! Owns the bound, and the refusal of what is no text. Refuses to know what the text means. Invariant: a device, a pipe or a huge file cannot fill memory.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system refuses.
    #[error("reading {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// It is too large.
    #[error("{} has more than {bytes_max} bytes", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        bytes_max: u64,
    },
    /// It is no text.
    #[error("{} is not UTF-8 text (byte {at})", .path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// Where it stops being text.
        at: usize,
    },
}

/// Reads a text; `-` is standard input.
pub fn read_text(path: &Path, bytes_max: u64) -> Result<String, ReadError> {
    let wrong = |cause| ReadError::Read {
        path: path.to_owned(),
        cause,
    };
    let mut bytes = Vec::new();
    let limit = bytes_max + 1;
    if path.as_os_str() == "-" {
        io::stdin()
            .lock()
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(wrong)?;
    } else {
        File::open(path)
            .and_then(|file| file.take(limit).read_to_end(&mut bytes))
            .map_err(wrong)?;
    }
    if bytes.len() as u64 > bytes_max {
        return Err(ReadError::TooLarge {
            path: path.to_owned(),
            bytes_max,
        });
    }
    String::from_utf8(bytes).map_err(|error| ReadError::NotText {
        path: path.to_owned(),
        at: error.utf8_error().valid_up_to(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_and_bytes_are_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("f");
        std::fs::write(&file, "ok").expect("written");
        assert_eq!(read_text(&file, 2).expect("read"), "ok");
        assert!(matches!(read_text(&file, 1), Err(ReadError::TooLarge { .. })));
        std::fs::write(&file, b"o\xff").expect("written");
        assert!(matches!(
            read_text(&file, 9),
            Err(ReadError::NotText { at: 1, .. })
        ));
        assert!(matches!(
            read_text(Path::new("/dev/zero"), 1024),
            Err(ReadError::TooLarge { .. })
        ));
        assert!(matches!(read_text(folder.path(), 1), Err(ReadError::Read { .. })));
    }
}
