//! Running a command to its end with a limit, and looking at what came out.

use std::fmt;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// No command of a test takes this long, unless it hangs.
pub const LIMIT: Duration = Duration::from_secs(60);

/// What a command came to.
pub struct Ran {
    /// The command, for messages.
    pub command: String,
    /// Exit code; 128 + n after signal n.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl fmt::Display for Ran {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "`{}` exited with {}\nstdout: {}\nstderr: {}",
            self.command, self.code, self.stdout, self.stderr
        )
    }
}

impl Ran {
    /// Standard output without its last line end, of a command that succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self}");
        self.stdout.trim_end_matches(['\n', '\r']).to_owned()
    }

    /// Expects an exit code and a word in the error output.
    #[track_caller]
    pub fn fails(self, code: i32, word: &str) -> Self {
        assert_eq!(self.code, code, "{self}");
        assert!(
            self.stderr.to_lowercase().contains(&word.to_lowercase()),
            "no {word:?} in the error of {self}"
        );
        self
    }

    /// Expects one clear error: a few lines, no panic, no debug output.
    #[track_caller]
    pub fn is_one_clear_error(&self) {
        assert_ne!(self.code, 0, "{self}");
        let lines = self.stderr.lines().count();
        assert!((1..=16).contains(&lines), "{lines} lines of error from {self}");
        for word in ["panicked", "RUST_BACKTRACE", "Os { code"] {
            assert!(!self.stderr.contains(word), "{word} in the error of {self}");
        }
    }
}

/// The exit code that a shell would show.
pub fn code_of(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn drained(mut from: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // A reader that fails has seen all there is to see.
        let read = from.read_to_end(&mut bytes);
        drop((read, sender.send(bytes)));
    });
    receiver
}

/// Runs a command to its end; kills it and panics when that takes longer than [`LIMIT`].
#[track_caller]
pub fn run(command: &mut Command, input: &[u8]) -> Ran {
    let name = format!("{command:?}").replace('"', "");
    let mut child = command
        .stdin(if input.is_empty() {
            Stdio::null()
        } else {
            Stdio::piped()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("starting `{name}`: {error}"));
    let stdout = drained(child.stdout.take().expect("stdout was piped"));
    let stderr = drained(child.stderr.take().expect("stderr was piped"));
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_vec();
        // A command that does not read its input to the end closes it; that is its right.
        std::thread::spawn(move || drop(stdin.write_all(&input)));
    }
    let code = ended(&mut child, LIMIT).unwrap_or_else(|| panic!("`{name}` did not end in {LIMIT:?}"));
    let text = |bytes: mpsc::Receiver<Vec<u8>>| match bytes.recv_timeout(LIMIT) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => panic!("`{name}` ended, but something it started holds its output open"),
    };
    Ran {
        code,
        stdout: text(stdout),
        stderr: text(stderr),
        command: name,
    }
}

/// Waits for a child; kills it when it takes longer than `limit`, and then says `None`.
pub fn ended(child: &mut Child, limit: Duration) -> Option<i32> {
    let status = crate::wait::poll(limit, || child.try_wait().expect("waiting for a child of ours"));
    if status.is_none() {
        child.kill().expect("killing a child of ours");
        child.wait().expect("waiting for a child of ours");
    }
    status.map(code_of)
}
