//! The OCI runtime command line.

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the command that `args` name, the program's own name first.
pub(crate) fn main(args: &[OsString]) -> ExitCode {
    eprintln!("kakoi-oci: unknown command {:?}", args.get(1));
    ExitCode::FAILURE
}
