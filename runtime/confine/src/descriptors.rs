//! What a new program inherits beside its memory: descriptors.
//!
//! An inherited descriptor of a host directory is a way out of the container (CVE-2024-21626), and landlock does not restrict it.

use std::os::fd::RawFd;

use kakoi_policy::confinement::ReceiptStep;
use kakoi_sys::CallError;
use kakoi_sys::descriptors::{Inheritance, StandardStream, close_on_exec_from, inheritance, standard_stream};

use crate::apply::step;

/// How many numbers are read back one by one. Descriptors are handed out from the lowest number on, so a process that leaked some has
/// them here; the rest rests on close_range(2), which has no way to skip one.
const READ_BACK: RawFd = 256;

/// Why the descriptors are not safe.
#[derive(Debug, thiserror::Error)]
pub enum DescriptorError {
    /// A call failed.
    #[error("system call for the descriptors")]
    Call(#[source] CallError),
    /// A descriptor would be inherited.
    #[error("descriptor {0} would be inherited")]
    Inherited(RawFd),
    /// A standard stream is a directory, from which the host could be walked.
    #[error("standard stream {0} is a directory")]
    Directory(RawFd),
}

/// Marks everything from 3 on as close-on-exec, except `preserved`, and reads it back.
pub(crate) fn shut(preserved: &[RawFd]) -> Result<ReceiptStep, DescriptorError> {
    close_on_exec_from(3, preserved).map_err(DescriptorError::Call)?;
    for fd in (3..READ_BACK).filter(|fd| !preserved.contains(fd)) {
        if inheritance(fd).map_err(DescriptorError::Call)? == Inheritance::Inherited {
            return Err(DescriptorError::Inherited(fd));
        }
    }
    for fd in 0..3 {
        if standard_stream(fd).map_err(DescriptorError::Call)? == StandardStream::Directory {
            return Err(DescriptorError::Directory(fd));
        }
    }
    Ok(step(
        "descriptors",
        format!("0 to 2 and {preserved:?} are inherited"),
    ))
}
