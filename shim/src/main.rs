//! kakoi-shim: the parent of one container, and the OCI runtime command line.
//!
//! Owns the choice of what to do by the words it was started with, and the printing of the one error chain. Everything else is in
//! `kakoi-container`. Invariant: the program runs under a seal before it makes any process that enters a container, so that nothing inside can
//! overwrite it (CVE-2019-5736).
//!
//! ```text
//! kakoi-shim run --plan PLAN --ready-fd N    run a container to its end
//! kakoi-shim spare RUN_DIR ROOM              wait for a plan on standard input, then do as `run` does
//! kakoi-shim clean --plan PLAN               end what a killed shim left
//! kakoi-shim files --plan PLAN               copy a container's files, as standard input asks
//! kakoi-shim files --volume FOLDER           back up or restore a volume, as standard input asks
//! kakoi-shim stage POINT FD                  a step inside container creation; started by the runtime itself
//! kakoi-shim oci …                           the OCI runtime command line, also by the name kakoi-oci
//! ```
#![forbid(unsafe_code)]

#[macro_use]
mod report;
mod oci;
mod run;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    let name = args
        .first()
        .map(std::path::Path::new)
        .and_then(|path| path.file_name());
    if name.is_some_and(|name| name == "kakoi-oci") {
        return oci::main(&args);
    }
    match args.get(1).and_then(|word| word.to_str()) {
        Some("oci") => {
            args.remove(1);
            oci::main(&args)
        }
        Some("run") => run::run(&args[2..]),
        Some("spare") => run::spare(&args[2..]),
        Some("clean") => run::clean(&args[2..]),
        Some("files") => run::files(&args[2..]),
        Some("stage") => run::stage(&args[2..]),
        Some("--version") => match writeln!(std::io::stdout(), "kakoi-shim {}", env!("CARGO_PKG_VERSION")) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                complain!("kakoi-shim: cannot print: {error}");
                ExitCode::FAILURE
            }
        },
        _ => {
            complain!(
                "kakoi-shim: started by kakoid as `run`, `clean` or `stage`; for the OCI command line type `kakoi-shim oci --help`"
            );
            ExitCode::from(2)
        }
    }
}
