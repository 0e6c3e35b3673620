//! One private gateway: a daemon on folders of its own, and the command line that talks to it.
//!
//! Owns the folders, the daemon and the clean-up. Dropping it removes every container, stops the daemon, and looks for what is left;
//! leftovers are taken away, and reported by a panic unless the test is failing already.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::command::{Ran, ended, run};
use crate::guard::Guard;
use crate::{image, leaks, wait};

/// A daemon that does not answer after this long will not.
const START_LIMIT: Duration = Duration::from_secs(20);

/// The trust.yaml of hosts that are not about trust: everything runs. The tests of trust write their own.
pub const TRUST: &str = "version: 1\ndefault: audit\n";

/// A private gateway.
pub struct Host {
    folder: TempDir,
    daemon: RefCell<Option<Child>>,
    /// Ids of containers that were seen, for the search after they are gone.
    seen: RefCell<BTreeSet<String>>,
    /// Who was seen in their namespaces.
    members: RefCell<BTreeSet<leaks::Member>>,
    /// Cleans up if this process does not come to it.
    _guard: Guard,
}

/// Where the binaries of this build lie: beside the tests, or in the folder that `KAKOI_TEST_BINARIES` names (a release's).
pub fn binary(name: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os("KAKOI_TEST_BINARIES") {
        let path = PathBuf::from(folder).join(name);
        if path.exists() {
            return path;
        }
    }
    let own = std::env::current_exe().expect("a test knows its own path");
    // deps/test-… lies one folder below.
    let folder = own.parent().and_then(|deps| {
        if deps.ends_with("deps") {
            deps.parent()
        } else {
            Some(deps)
        }
    });
    let path = folder.expect("a build folder").join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo build --workspace --bins` first",
        path.display()
    );
    path
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// Starts a daemon on new folders, without an image.
    pub fn empty() -> Self {
        Self::trusting(Some(TRUST))
    }

    /// Starts a daemon on new folders with this trust.yaml, or with none.
    pub fn trusting(trust: Option<&str>) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("kakoi-")
            .tempdir()
            .expect("making a temporary folder");
        for name in ["root", "run", "config", "config/policies"] {
            fs::create_dir(folder.path().join(name)).expect("making a folder");
        }
        if let Some(trust) = trust {
            fs::write(folder.path().join("config/trust.yaml"), trust).expect("writing trust.yaml");
        }
        let host = Self {
            _guard: Guard::over(folder.path()),
            folder,
            daemon: RefCell::new(None),
            seen: RefCell::default(),
            members: RefCell::default(),
        };
        host.start_daemon();
        host
    }

    /// Starts a daemon on new folders and loads the image `busybox:test`.
    pub fn new() -> Self {
        let host = Self::empty();
        host.load(&image::busybox(&binary("attacker"))).ok();
        host
    }

    /// A path in the host's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file into the host's folder and says its path.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, content).expect("writing a test's file");
        path.to_str()
            .expect("a temporary folder's name is UTF-8")
            .to_owned()
    }

    fn flags(&self) -> [String; 3] {
        ["root", "run", "config"].map(|name| format!("--{name}={}", self.path(name).display()))
    }

    /// The daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.path("run/kakoid.sock")
    }

    /// A daemon's command line on this host's folders.
    pub fn daemon_command(&self) -> Command {
        let mut command = Command::new(binary("kakoid"));
        command.args(self.flags()).stdin(Stdio::null());
        // What the caller happens to have must not reach a container.
        command.env("KAKOI_TEST_CALLER", "leaked");
        command
    }

    /// Starts the daemon and waits until it answers.
    #[track_caller]
    pub fn start_daemon(&self) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("daemon.log"))
            .expect("making the daemon's log");
        let mut daemon = self
            .daemon_command()
            .stdout(log.try_clone().expect("duplicating a descriptor"))
            .stderr(log)
            .spawn()
            .expect("starting kakoid");
        let answered = wait::poll(START_LIMIT, || {
            if let Some(status) = daemon.try_wait().expect("waiting for a child of ours") {
                panic!("kakoid ended at once with {status}:\n{}", self.daemon_log());
            }
            UnixStream::connect(self.socket()).ok()
        });
        assert!(
            answered.is_some(),
            "kakoid does not listen after {START_LIMIT:?}:\n{}",
            self.daemon_log()
        );
        *self.daemon.borrow_mut() = Some(daemon);
    }

    /// What the daemon wrote so far.
    pub fn daemon_log(&self) -> String {
        fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }

    /// The daemon's process id.
    pub fn daemon_pid(&self) -> Pid {
        let daemon = self.daemon.borrow();
        Pid::from_raw(daemon.as_ref().expect("the daemon runs").id() as i32)
    }

    /// Kills the daemon where it stands.
    pub fn kill_daemon(&self) {
        if let Some(mut daemon) = self.daemon.borrow_mut().take() {
            daemon.kill().expect("killing a child of ours");
            daemon.wait().expect("waiting for a child of ours");
        }
    }

    /// Asks the daemon to stop and waits for it.
    #[track_caller]
    pub fn stop_daemon(&self) -> i32 {
        let mut daemon = self.daemon.borrow_mut().take().expect("the daemon runs");
        kill(Pid::from_raw(daemon.id() as i32), Signal::SIGTERM).expect("signalling a child of ours");
        ended(&mut daemon, START_LIMIT).expect("kakoid stops within its limit")
    }

    /// The command line, ready for more arguments.
    pub fn command(&self) -> Command {
        let mut command = Command::new(binary("kakoi"));
        command
            .args(self.flags())
            .env("NO_COLOR", "1")
            .env_remove("KAKOI_HOST");
        command
    }

    /// Runs `kakoi` with arguments.
    #[track_caller]
    pub fn kakoi(&self, arguments: &[&str]) -> Ran {
        self.kakoi_with(arguments, b"")
    }

    /// Runs `kakoi` with arguments and something to read.
    #[track_caller]
    pub fn kakoi_with(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let ran = run(self.command().args(arguments), input);
        self.note_containers();
        ran
    }

    /// Runs `kakoi` and expects success; says its output.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        self.kakoi(arguments).ok()
    }

    /// Starts `kakoi` with pipes, for talking to it while it runs.
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.command();
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().expect("starting kakoi")
    }

    /// Loads an archive through a pipe.
    #[track_caller]
    pub fn load(&self, archive: &[u8]) -> Ran {
        self.kakoi_with(&["load"], archive)
    }

    /// Loads an image of the usual files with a layer on top.
    #[track_caller]
    pub fn load_variant(&self, reference: &str, config: &Value, layer: image::Layer) -> Ran {
        let base = image::busybox_layer(&binary("attacker"));
        self.load(&image::archive(reference, config, &[base, layer.finish()]))
    }

    /// Inspects a container.
    #[track_caller]
    pub fn inspect(&self, name: &str) -> Value {
        let text = self.ok(&["inspect", name]);
        let mut documents: Vec<Value> =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
        assert_eq!(documents.len(), 1, "{text}");
        documents.remove(0)
    }

    /// The host's id of a running container's first process.
    #[track_caller]
    pub fn pid(&self, name: &str) -> Pid {
        let document = self.inspect(name);
        let pid = document["State"]["Pid"].as_i64().unwrap_or(0);
        assert!(pid > 1, "{name} runs: {}", document["State"]);
        Pid::from_raw(pid as i32)
    }

    /// Waits until a container's state has a value at a field (`Status`, `Running` …).
    #[track_caller]
    pub fn until_state(&self, name: &str, field: &str, value: &Value) {
        let mut last = Value::Null;
        let reached = wait::poll(Duration::from_secs(20), || {
            last = self.inspect(name)["State"].clone();
            (last[field] == *value).then_some(())
        });
        assert!(
            reached.is_some(),
            "{name}: {field} does not become {value}: {last}"
        );
    }

    /// A request on the daemon's socket, as bytes, and the whole answer.
    #[track_caller]
    pub fn raw_request(&self, request: &[u8]) -> String {
        use std::io::Read;
        let mut stream = UnixStream::connect(self.socket()).expect("the daemon listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("setting a limit");
        // A daemon that refuses early closes early.
        drop(stream.write_all(request));
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn note_containers(&self) {
        self.seen.borrow_mut().extend(leaks::ids(self.folder.path()));
        let seen = leaks::members(self.folder.path(), &self.seen.borrow());
        self.members.borrow_mut().extend(seen);
    }

    /// Whatever is on the machine because of this host's containers; empty lists when nothing is.
    pub fn traces(&self) -> Vec<String> {
        self.note_containers();
        let ids = self.seen.borrow();
        let mut traces: Vec<_> = leaks::cgroups(&ids)
            .iter()
            .map(|path| format!("cgroup {}", path.display()))
            .collect();
        let parents = leaks::empty_parents();
        traces.extend(parents.iter().map(|path| format!("cgroup {}", path.display())));
        traces.extend(
            leaks::mounts(self.folder.path())
                .iter()
                .map(|path| format!("mount {path}")),
        );
        traces.extend(
            leaks::holders(&self.members.borrow(), self.folder.path())
                .iter()
                .map(|holder| format!("namespace: {holder}")),
        );
        let daemon = self.daemon.borrow().as_ref().map(|daemon| daemon.id() as i32);
        // While the daemon runs it may have a shim wait for the next container.
        let spare = self.spare().filter(|_| daemon.is_some());
        for process in leaks::processes(self.folder.path()) {
            if Some(process.pid) != daemon && spare != Some(Pid::from_raw(process.pid)) {
                traces.push(format!("process {} {}", process.pid, process.command));
            }
        }
        traces
    }

    /// The shim that waits for a container, if one does.
    pub fn spare(&self) -> Option<Pid> {
        let words = format!("kakoi-shim spare {}", self.path("run").display());
        leaks::processes(self.folder.path())
            .into_iter()
            .find(|process| process.command.contains(&words))
            .map(|process| Pid::from_raw(process.pid))
    }

    /// Expects that nothing is left of any container: no record, folder, mount, control group, process.
    #[track_caller]
    pub fn is_clean(&self) {
        assert_eq!(self.ok(&["ps", "--all", "--quiet"]), "", "containers are listed");
        let left = wait::poll(Duration::from_secs(5), || self.traces().is_empty().then_some(()));
        assert!(left.is_some(), "left behind: {:#?}", self.traces());
        // Nobody waits for the files of a container that is gone.
        let folders = || -> Vec<_> {
            let folders = ["root/containers", "run/containers"].map(|folder| fs::read_dir(self.path(folder)));
            folders
                .into_iter()
                .flatten()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
                .collect()
        };
        let left = wait::poll(Duration::from_secs(5), || folders().is_empty().then_some(()));
        assert!(left.is_some(), "left behind: {:?}", folders());
    }

    fn remove_containers(&self) {
        let list = run(self.command().args(["ps", "--all", "--quiet", "--no-trunc"]), b"");
        for id in list.stdout.lines() {
            // Its failure shows in the search that follows.
            drop(run(
                self.command().args(["rm", "--force", "--time", "0", id]),
                b"",
            ));
        }
    }
}

/// Says what went wrong while cleaning up: nothing may stop the clean-up.
fn tell(result: nix::Result<()>) {
    if let Err(errno) = result {
        eprintln!("while cleaning up: {errno}");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.note_containers();
        let alive = self
            .daemon
            .borrow_mut()
            .as_mut()
            .is_some_and(|daemon| matches!(daemon.try_wait(), Ok(None)));
        if alive {
            // A command that hangs panics; that must not end the clean-up, nor the whole process when the test is failing already.
            let removed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.remove_containers()));
            if removed.is_err() {
                eprintln!("containers could not be removed in order; they are removed by force");
            }
        }
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.daemon_log());
        }
        if let Some(mut daemon) = self.daemon.borrow_mut().take() {
            tell(kill(Pid::from_raw(daemon.id() as i32), Signal::SIGTERM));
            if ended(&mut daemon, START_LIMIT).is_none() {
                eprintln!("kakoid did not stop when asked");
            }
        }
        let clean = wait::poll(Duration::from_secs(5), || self.traces().is_empty().then_some(()));
        let traces = self.traces();
        leaks::sweep(self.folder.path(), &self.seen.borrow());
        if clean.is_none() && !std::thread::panicking() {
            panic!("left behind by this test: {traces:#?}");
        }
    }
}
