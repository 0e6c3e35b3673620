//! `kakoi`, the command line.
//!
//! Owns words, tables and progress for people, and nothing else: every request goes to the daemon's socket, none to the disk or the kernel. The
//! crate is its own process because it runs as whoever types. Invariant: what goes wrong is said once, on standard error, and told by an exit
//! status of Podman's.
#![forbid(unsafe_code)]

mod arguments;
mod bounded;
mod client;
mod clock;
mod commands;
mod create;
mod credentials;
mod deferred;
mod detach_keys;
mod each;
mod failure;
mod frames;
mod layout;
mod listing;
mod output;
mod ports;
mod progress;
mod quadlet;
mod session;
mod table;
mod template;
mod terminal;
mod text;

use std::error::Error;

use clap::Parser as _;

use crate::arguments::Arguments;
use crate::failure::{ENGINE, Failure, describe};

/// The event loop cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("starting the event loop")]
struct LoopError(#[source] std::io::Error);

fn main() {
    let words: Vec<std::ffi::OsString> = std::env::args_os().collect();
    if words.get(1).is_some_and(|word| word == client::DETACH_COMMAND) {
        let Err(error) = client::detach_and_execute(&words[2..]);
        output::complain(&format!("Error: {}", describe(&error)));
        std::process::exit(ENGINE.into());
    }
    let found = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        terminal::restore();
        found(panic);
    }));
    let arguments = Arguments::try_parse_from(words).unwrap_or_else(|error| usage(&error));
    let status = match run(arguments) {
        Ok(status) => status,
        Err(Failure { status, error }) => {
            if let Some(error) = error {
                complain(error.as_ref());
            }
            status
        }
    };
    terminal::restore();
    // Not a return: a thread may sit in a read of standard input that never ends.
    std::process::exit(status.into());
}

fn run(arguments: Arguments) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(LoopError)?;
    let client = arguments.client()?;
    let outcome = runtime.block_on(commands::run(arguments.command, &client));
    runtime.shutdown_background();
    outcome
}

fn complain(error: &(dyn Error + 'static)) {
    output::complain(&format!("Error: {}", describe(error)));
}

/// Help and version go to standard output and are no failure; everything else is one, of Podman's status.
fn usage(error: &clap::Error) -> ! {
    let status = if error.use_stderr() { ENGINE } else { 0 };
    if error.print().is_err() {
        // Nobody reads: the status tells.
    }
    std::process::exit(status.into());
}
