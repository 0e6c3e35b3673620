//! A root file system, plans, and a daemon's side of the control socket, over a real shim.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kakoi_container::client::{FrameStream, Frames, Lines};
use kakoi_container::frames::{Event, Exit, Ready, Reply, Request, Streams};
use kakoi_container::plan::{
    IdMappings, LogDriver, LogPlan, NamespacePlan, NamespaceSource, PLAN_FORMAT, ProcessPlan, Resources,
    RootfsDriver, RootfsPlan, RunPlan,
};
use kakoi_policy::confinement::{
    CONFINEMENT_FORMAT, CapabilitySets, Confinement, DeviceAccess, DeviceKind, DeviceRule, Filesystem,
    Identity, Landlock, Limits, NetworkMode, PolicyIdentity, Reach, Seccomp, UserNamespace,
};
use kakoi_policy::kernel::Arch;

/// A shim answers and ends within this time, or the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// All streams.
pub const ALL: Streams = Streams {
    stdin: true,
    stdout: true,
    stderr: true,
};

/// No stream.
pub const NONE: Streams = Streams {
    stdin: false,
    stdout: false,
    stderr: false,
};

/// Docker's default capabilities.
const CAPABILITIES: u64 = 0xa804_25fb;

/// Tells whether the test can run; where it cannot, says so, and fails if CI asked for root.
pub fn can_run() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        crate::required::leave_out("root", "needs root");
        return false;
    }
    let has_busybox = Path::new("/bin/busybox").exists();
    if !has_busybox {
        crate::required::leave_out("root", "needs busybox-static");
    }
    has_busybox
}

/// Folders of one test; everything of it is gone when it is dropped, which also checks that.
pub struct Ground {
    dir: tempfile::TempDir,
    group: String,
    count: std::cell::Cell<u32>,
}

impl Ground {
    pub fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let layer = dir.path().join("layer");
        for folder in ["bin", "proc", "dev", "sys", "etc", "tmp"] {
            fs::create_dir_all(layer.join(folder)).expect("folder");
        }
        fs::copy("/bin/busybox", layer.join("bin/busybox")).expect("busybox");
        for applet in [
            "sh", "cat", "echo", "sleep", "stty", "tty", "kill", "seq", "tail", "head", "ps", "ls",
        ] {
            symlink("busybox", layer.join("bin").join(applet)).expect("applet");
        }
        let group = format!("/kakoi-test-{name}-{}", std::process::id());
        Self {
            dir,
            group,
            count: std::cell::Cell::new(0),
        }
    }

    /// A plan that runs `script` in a shell.
    pub fn plan(&self, script: &str) -> RunPlan {
        let number = self.count.get() + 1;
        self.count.set(number);
        let id = format!("{number:064x}");
        let state_dir = self.dir.path().join("root").join(&id);
        let run_dir = self.dir.path().join("run").join(&id);
        fs::create_dir_all(&state_dir).expect("folder");
        RunPlan {
            format: PLAN_FORMAT,
            name: format!("test-{number}"),
            cgroup: format!("{}/{id}", self.group),
            id,
            is_ephemeral: false,
            state_dir,
            run_dir,
            rootfs: RootfsPlan {
                layers: vec![self.dir.path().join("layer")],
                driver: RootfsDriver::Overlay,
            },
            process: process(&["sh", "-c", script]),
            hostname: "box".into(),
            domainname: None,
            mounts: Vec::new(),
            namespaces: NamespacePlan {
                pid: NamespaceSource::New,
                network: NamespaceSource::New,
                ipc: NamespaceSource::New,
                uts: NamespaceSource::New,
                cgroup: NamespaceSource::New,
            },
            id_mappings: IdMappings {
                uids: Vec::new(),
                gids: Vec::new(),
            },
            resources: Resources::default(),
            secret_environment: None,
            awaits_network: false,
            sysctls: BTreeMap::new(),
            shm_bytes: 1 << 20,
            log: LogPlan {
                driver: LogDriver::JsonFile,
                size_bytes_max: 0,
                files_max: 1,
            },
            annotations: BTreeMap::new(),
            confinement: confinement(),
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let mut left = Vec::new();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = self.dir.path().to_string_lossy().into_owned();
        left.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&own))
                .map(String::from),
        );
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let group = hierarchy.path().join(&self.group[1..]);
            // The containers' own groups must be gone; their common parent is the test's to remove.
            for entry in fs::read_dir(&group).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    left.push(entry.path().display().to_string());
                }
            }
            drop(fs::remove_dir(&group));
        }
        drop(fs::remove_dir(Path::new("/sys/fs/cgroup").join(&self.group[1..])));
        if !std::thread::panicking() {
            assert!(left.is_empty(), "left behind: {left:?}");
        }
    }
}

pub fn process(args: &[&str]) -> ProcessPlan {
    ProcessPlan {
        args: args.iter().map(ToString::to_string).collect(),
        env: vec!["PATH=/bin".into()],
        cwd: "/".into(),
        tty: false,
        stdin_open: false,
        stdin_once: false,
        init: false,
        terminal_size: None,
        oom_score_adj: 0,
        ulimits: Vec::new(),
    }
}

fn confinement() -> Confinement {
    let device = |major, minor| DeviceRule {
        kind: DeviceKind::Char,
        major: Some(major),
        minor,
        access: DeviceAccess {
            read: true,
            write: true,
            mknod: true,
        },
        path: None,
        rule: "test".into(),
    };
    let minors = [
        (1, Some(3)),
        (1, Some(5)),
        (1, Some(7)),
        (1, Some(8)),
        (1, Some(9)),
        (5, Some(0)),
        (5, Some(2)),
    ];
    Confinement {
        format: CONFINEMENT_FORMAT,
        arch: Arch::native().expect("a supported machine"),
        policy: PolicyIdentity {
            name: "test".into(),
            sha256: "00".into(),
        },
        identity: Identity {
            uid: 0,
            gid: 0,
            groups: Vec::new(),
            umask: 0o022,
        },
        no_new_privileges: true,
        capabilities: CapabilitySets {
            bounding: CAPABILITIES,
            permitted: CAPABILITIES,
            effective: CAPABILITIES,
            inheritable: 0,
            ambient: 0,
        },
        seccomp: Seccomp::Unconfined,
        landlock: Landlock::Unconfined,
        devices: minors
            .into_iter()
            .chain([(136, None)])
            .map(|(major, minor)| device(major, minor))
            .collect(),
        limits: Limits {
            memory_bytes: None,
            swap_bytes: None,
            cpu_millis: None,
            pids: None,
            open_files: None,
            io_read_bytes_per_second: None,
            io_write_bytes_per_second: None,
            tmpfs_bytes: None,
        },
        filesystem: Filesystem {
            read_only_root: false,
            masked_paths: vec!["/proc/kcore".into()],
            read_only_paths: vec!["/proc/sys".into()],
            mounts: Vec::new(),
        },
        network: NetworkMode::None,
        reach: Reach::Networks,
        user_namespace: UserNamespace::Host,
        losses: Vec::new(),
    }
}

/// A shim that runs, and what it said of the start.
pub struct Shim {
    pub plan: RunPlan,
    pub ready: Ready,
    child: Child,
}

/// Starts the plan; standard output is the ready descriptor.
pub fn start(plan: RunPlan) -> Shim {
    let path = write_plan(&plan);
    // Descriptor 1 is handed over by the standard library; others would need an unsafe hook.
    let mut child = Command::new(env!("CARGO_BIN_EXE_kakoi-shim"))
        .args(["run", "--plan"])
        .arg(path)
        .args(["--ready-fd", "1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the shim starts");
    // To its end, as the daemon reads it: nobody but the shim may hold the pipe, and the shim only until the start.
    let mut line = String::new();
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_to_string(&mut line).expect("a line");
    let ready = serde_json::from_str(&line).expect("a ready line");
    Shim { plan, ready, child }
}

fn write_plan(plan: &RunPlan) -> PathBuf {
    let path = plan.state_dir.join("plan.json");
    fs::write(&path, serde_json::to_vec(plan).expect("a plan")).expect("written");
    path
}

impl Shim {
    /// The first process's id.
    pub fn pid(&self) -> i32 {
        match &self.ready {
            Ready::Ready { pid } => *pid,
            Ready::Created => panic!("it waits for a network"),
            Ready::Failed { message, .. } => panic!("not started: {message}"),
        }
    }

    pub fn connect(&self) -> Connection {
        let stream = UnixStream::connect(self.plan.run_dir.join("shim.sock")).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        Connection {
            stream,
            lines: Lines::default(),
        }
    }

    /// Asks and takes the answer.
    pub fn ask(&self, request: &Request) -> (Connection, Reply) {
        let mut connection = self.connect();
        connection.send(&kakoi_container::client::encode(request).expect("fits"));
        let reply = connection.word();
        (connection, reply)
    }

    /// Runs a shell script in the container, with all streams.
    pub fn exec(&self, exec_id: &str, script: &str, tty: bool) -> (Connection, Reply) {
        let mut process = process(&["sh", "-c", script]);
        process.tty = tty;
        self.ask(&Request::Exec {
            exec_id: exec_id.into(),
            process,
            user: None,
            attach: ALL,
        })
    }

    pub fn kill_container(&self, signal: i32) {
        assert_eq!(self.ask(&Request::Kill { signal, all: false }).1, Reply::Done);
    }

    /// Waits for the shim's end and reads how the container ended; the run-time folder must be gone.
    pub fn end(mut self) -> Exit {
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().expect("ours").is_none() {
            assert!(Instant::now() < deadline, "the shim does not end");
            std::thread::yield_now();
        }
        assert!(!self.plan.run_dir.exists(), "the run-time folder is left");
        self.exit().expect("exit.json")
    }

    pub fn exit(&self) -> Option<Exit> {
        let text = fs::read(self.plan.state_dir.join("exit.json")).ok()?;
        Some(serde_json::from_slice(&text).expect("an exit"))
    }

    /// Ends the shim without warning.
    pub fn murder(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }

    /// What a daemon does about a dead shim.
    pub fn clean(&self) -> bool {
        let path = self.plan.state_dir.join("plan.json");
        let mut command = Command::new(env!("CARGO_BIN_EXE_kakoi-shim"));
        let status = command
            .args(["clean", "--plan"])
            .arg(path)
            .stderr(Stdio::null())
            .status();
        status.expect("ran").success()
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill());
            drop(self.child.wait());
            self.clean();
        }
    }
}

/// One connection to a shim.
pub struct Connection {
    pub stream: UnixStream,
    lines: Lines,
}

impl Connection {
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("sent");
    }

    /// The next line, understood.
    pub fn word<T: serde::de::DeserializeOwned>(&mut self) -> T {
        let mut buffer = [0; 4096];
        loop {
            if let Some(word) = self.lines.next_word().expect("well-formed") {
                return word;
            }
            let count = self.stream.read(&mut buffer).expect("an answer in time");
            assert!(count > 0, "the shim closed the connection");
            self.lines.push(&buffer[..count]);
        }
    }

    pub fn event(&mut self) -> Event {
        self.word()
    }

    /// Waits for the first frame of output.
    pub fn first_output(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.lines).into_rest();
        loop {
            let mut frames = Frames::default();
            frames.push(&bytes);
            if let Some((_, output)) = frames.next_frame().expect("well-formed") {
                return output;
            }
            let mut buffer = [0; 4096];
            let count = self.stream.read(&mut buffer).expect("output in time");
            assert!(count > 0, "the shim closed the connection");
            bytes.extend_from_slice(&buffer[..count]);
        }
    }

    /// Sends the end of input and reads to the end.
    pub fn finish(self, input: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut frames = Frames::default();
        let raw = self.finish_raw(input);
        frames.push(&raw);
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some((stream, bytes)) = frames.next_frame().expect("well-formed") {
            match stream {
                FrameStream::Stdout => stdout.extend(bytes),
                FrameStream::Stderr => stderr.extend(bytes),
            }
        }
        frames.finish().expect("whole frames");
        (stdout, stderr)
    }

    /// The same without frames, as of a terminal.
    pub fn finish_raw(mut self, input: &[u8]) -> Vec<u8> {
        self.send(input);
        drop(self.stream.shutdown(Shutdown::Write));
        let mut bytes = std::mem::take(&mut self.lines).into_rest();
        self.stream.read_to_end(&mut bytes).expect("an end in time");
        bytes
    }
}
