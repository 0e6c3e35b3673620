//! Cleaning up after a test that is killed.
//!
//! A test that hangs is ended by signals to its process group, and nothing of it is dropped. What it started lives on: containers outlive
//! their daemon, after all. A guard is a process outside that group which notices the end by the end of a pipe.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::command::ended;
use crate::host::binary;

/// The sweeper waits for processes and groups to go.
const SWEEP_LIMIT: Duration = Duration::from_secs(30);

/// Sweeps a folder unless it is told that there is no need.
#[derive(Debug)]
pub struct Guard(Child);

impl Guard {
    /// Watches over what is started from `folder`.
    pub fn over(folder: &Path) -> Self {
        let mut command = Command::new(binary("sweeper"));
        // By environment: the folder on its command line would make it a leftover itself.
        command.env("KAKOI_SWEEP", folder).process_group(0);
        // No stream of the test's: who waits for their end must not wait for the guard.
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(command.spawn().expect("starting the sweeper"))
    }

    /// Leaves the guard as a test does that is killed, and waits until it has swept.
    pub fn abandon(mut self) {
        drop(self.0.stdin.take());
        ended(&mut self.0, SWEEP_LIMIT).expect("the sweeper ends");
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(mut stdin) = self.0.stdin.take() else {
            return;
        };
        if let Err(error) = stdin.write_all(b"swept") {
            eprintln!("telling the sweeper: {error}");
        }
        drop(stdin);
        if ended(&mut self.0, SWEEP_LIMIT).is_none() {
            eprintln!("the sweeper did not end");
        }
    }
}
