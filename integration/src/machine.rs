//! A machine of QEMU and its serial console: started, talked to, cut from its power.
//!
//! Owns the process and what the console said, which `KAKOI_DEVICE_CONSOLE=1` shows as it comes; knows nothing of what runs inside. Invariant: the process ends with its [`Machine`].

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long a machine may say nothing of what is waited for. An emulated processor on a busy one is a hundred times slower than it should be.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// A running machine.
pub struct Machine {
    process: Child,
    input: ChildStdin,
    output: Receiver<Vec<u8>>,
    /// What the console said since the last thing that was waited for.
    unread: String,
    /// All of it, for whoever has to find out why.
    said: String,
    commands: u32,
}

impl Machine {
    /// Starts a command whose standard streams are the machine's serial console.
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap_or_else(|error| panic!("starting {command:?}: {error}"));
        let input = process.stdin.take().expect("its input is a pipe");
        let mut console = process.stdout.take().expect("its output is a pipe");
        let (send, output) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = console.read(&mut bytes) {
                if send.send(bytes[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            process,
            input,
            output,
            unread: String::new(),
            said: String::new(),
            commands: 0,
        }
    }

    /// Takes what the console says next; false when it has been closed or `deadline` has come.
    fn hear(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.output.recv_timeout(left) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes).replace('\r', "");
                if std::env::var_os("KAKOI_DEVICE_CONSOLE").is_some() {
                    eprint!("{text}");
                }
                self.unread.push_str(&text);
                self.said.push_str(&text);
                true
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => false,
        }
    }

    /// Waits until the console has said one of `words` and says which, and what came before it.
    #[track_caller]
    pub fn expect_any(&mut self, words: &[&str]) -> (usize, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = words
                .iter()
                .enumerate()
                .filter_map(|(which, word)| Some((self.unread.find(word)?, which)))
                .min();
            if let Some((at, which)) = found {
                let before = self.unread[..at].to_owned();
                self.unread.drain(..at + words[which].len());
                return (which, before);
            }
            assert!(
                self.hear(deadline),
                "the console never says {words:?}:\n{}",
                self.said
            );
        }
    }

    /// Waits until the console has said `word`; says what came before it.
    #[track_caller]
    pub fn expect(&mut self, word: &str) -> String {
        self.expect_any(&[word]).1
    }

    /// Types a line.
    #[track_caller]
    pub fn send(&mut self, line: &str) {
        self.input
            .write_all(format!("{line}\n").as_bytes())
            .unwrap_or_else(|error| panic!("typing {line:?}: {error}:\n{}", self.said));
    }

    /// Runs a line in the shell that reads the console without echo; says its exit code and what it wrote.
    #[track_caller]
    pub fn run(&mut self, line: &str) -> (i32, String) {
        self.commands += 1;
        let (begin, end) = (
            format!("BEGIN-{}", self.commands),
            format!("END-{} ", self.commands),
        );
        self.send(&format!("echo {begin}; {{ {line}\n}} 2>&1; echo {end} $?"));
        self.expect(&format!("{begin}\n"));
        let wrote = self.expect(&end);
        let code = self.expect("\n");
        let code = code.trim().parse();
        (code.expect("the shell says a number"), wrote)
    }

    /// Runs a line that must succeed; says what it wrote.
    #[track_caller]
    pub fn ok(&mut self, line: &str) -> String {
        let (code, wrote) = self.run(line);
        assert_eq!(code, 0, "{line}: {wrote}\n\nthe console:\n{}", self.said);
        wrote
    }

    /// Takes its power away. The host's cache keeps what the machine wrote.
    pub fn cut(&mut self) {
        // One that has ended already needs no killing.
        drop(self.process.kill());
        drop(self.process.wait());
    }

    /// Waits until the machine has switched itself off; says what the console said meanwhile.
    #[track_caller]
    pub fn ended(&mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        while self.hear(deadline) {}
        assert!(Instant::now() < deadline, "it does not end:\n{}", self.said);
        let status = self.process.wait().expect("waiting for a child of ours");
        assert!(status.success(), "QEMU: {status}:\n{}", self.said);
        std::mem::take(&mut self.unread)
    }

    /// Everything that the console said.
    pub fn said(&self) -> &str {
        &self.said
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.cut();
    }
}
