//! A daemon of one's own, with a busybox image, in a folder that goes away.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// How long the daemon may take to answer or to come up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a test cannot run here.
pub fn missing() -> Option<String> {
    let is_root = fs::metadata("/proc/self")
        .map(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
        .unwrap_or(false);
    let missing = if !is_root {
        "not root"
    } else if !shim().exists() {
        "kakoi-shim is not built (cargo build -p kakoi-shim)"
    } else if busybox().is_none() {
        "no static busybox"
    } else {
        return None;
    };
    Some(missing.to_owned())
}

macro_rules! needs_root {
    () => {
        if let Some(why) = crate::given::missing() {
            crate::required::leave_out("root", &why);
            return;
        }
        crate::given::own_network();
    };
}
pub(crate) use needs_root;

/// Moves the test's thread, and with it the daemons that it starts and starts again, into a network namespace of its own: a daemon that is killed
/// leaves its bridge, which ends with the namespace's last process. Audit records come to the machine's own namespace alone; no test here reads them.
pub fn own_network() {
    kakoi_sys::namespace::unshare(&[kakoi_sys::namespace::Kind::Net]).expect("root makes network namespaces");
    kakoi_sys::network::raise_loopback().expect("a new namespace has lo");
}

fn shim() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_kakoid")).with_file_name("kakoi-shim")
}

fn busybox() -> Option<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
}

/// A daemon.
pub struct Daemon {
    pub folder: tempfile::TempDir,
    child: Option<Child>,
}

impl Daemon {
    /// Starts one whose durable state lies in `root` below its folder.
    pub fn start() -> Self {
        let mut daemon = Self {
            folder: tempfile::tempdir().expect("a folder"),
            child: None,
        };
        daemon.up();
        daemon.load();
        daemon
    }

    /// Starts one under an owner's ceiling.
    pub fn under(ceiling: &str) -> Self {
        let mut daemon = Self::at(tempfile::tempdir().expect("a folder"));
        fs::create_dir(daemon.path("etc")).expect("a folder");
        fs::write(daemon.path("etc/ceiling.yaml"), format!("kakoi: 1\n{ceiling}\n")).expect("a ceiling");
        daemon.up();
        daemon.load();
        daemon
    }

    /// A folder in which a daemon can be started later.
    pub fn at(folder: tempfile::TempDir) -> Self {
        Self { folder, child: None }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kakoid"));
        command
            .arg("--root")
            .arg(self.path("root"))
            .arg("--run")
            .arg(self.path("run"))
            .arg("--config")
            .arg(self.path("etc"))
            .arg("--shim")
            .arg(shim())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// Starts the daemon and waits for its word that it is ready.
    pub fn up(&mut self) {
        let trust = self.path("etc/trust.yaml");
        if !trust.exists() {
            fs::create_dir_all(self.path("etc")).expect("a folder");
            fs::write(&trust, "version: 1\ndefault: audit\n").expect("a trust.yaml");
        }
        let notify = self.path("notify");
        fs::remove_file(&notify).ok();
        let socket = UnixDatagram::bind(&notify).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .expect("a log");
        self.child = Some(
            self.command()
                .env("NOTIFY_SOCKET", &notify)
                .stderr(log)
                .spawn()
                .expect("kakoid starts"),
        );
        let mut word = [0; 64];
        let count = socket
            .recv(&mut word)
            .unwrap_or_else(|_| panic!("no word from kakoid; its log:\n{}", self.log()));
        assert_eq!(&word[..count], b"READY=1");
    }

    /// What a second daemon on the same folders says: exit code and text.
    pub fn second(&self) -> (Option<i32>, String) {
        let output = self
            .command()
            .stderr(Stdio::piped())
            .output()
            .expect("kakoid starts");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("killed");
        child.wait().expect("reaped");
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Imports busybox as `bb`.
    pub fn load(&self) {
        let mut archive = tar::Builder::new(Vec::new());
        let program = fs::read(busybox().expect("checked")).expect("readable");
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(program.len() as u64);
        archive
            .append_data(&mut header, "bin/busybox", program.as_slice())
            .expect("appended");
        for name in ["sh", "true", "sleep", "echo", "cat"] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            archive
                .append_link(&mut header, format!("bin/{name}"), "busybox")
                .expect("appended");
        }
        let bytes = archive.into_inner().expect("whole");
        let (status, answer) = self
            .ask_bytes("POST", "/images/create?fromSrc=-&repo=bb", &bytes)
            .expect("an answer");
        assert_eq!(status, 200, "{answer}");
    }

    /// One request.
    pub fn ask(&self, method: &str, path: &str, body: Option<Value>) -> io::Result<(u16, Value)> {
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let (status, text) = self.ask_bytes(method, path, &bytes)?;
        Ok((
            status,
            serde_json::from_str(text.trim()).unwrap_or(Value::String(text)),
        ))
    }

    /// One request that must be answered with `status`.
    pub fn must(&self, status: u16, method: &str, path: &str, body: Option<Value>) -> Value {
        let (got, answer) = self.ask(method, path, body).expect("an answer");
        assert_eq!(got, status, "{method} {path}: {answer}\n{}", self.log());
        answer
    }

    fn ask_bytes(&self, method: &str, path: &str, body: &[u8]) -> io::Result<(u16, String)> {
        ask(&self.path("run/kakoid.sock"), method, path, body)
    }

    /// Makes a container.
    pub fn create(&self, name: &str, command: &[&str], host: Value) -> Value {
        let body = json!({"Image": "bb", "Cmd": command, "HostConfig": host});
        self.must(
            201,
            "POST",
            &format!("/containers/create?name={name}"),
            Some(body),
        )
    }

    pub fn state(&self, name: &str) -> Value {
        self.must(200, "GET", &format!("/containers/{name}/json"), None)["State"].clone()
    }

    /// Ids of the containers there are.
    pub fn ids(&self) -> Vec<String> {
        let rows = self.must(200, "GET", "/containers/json?all=1", None);
        let rows = rows.as_array().expect("a list").iter();
        rows.map(|row| row["Id"].as_str().expect("an id").to_owned())
            .collect()
    }

    /// Removes every container and checks that nothing is left of any.
    pub fn is_clean(&self) {
        for id in self.ids() {
            let (status, answer) = self
                .ask("DELETE", &format!("/containers/{id}?force=1&v=1"), None)
                .expect("an answer");
            assert!(status == 204 || status == 404, "{answer}");
        }
        // The files of a container that is gone, and the shim of one that removes itself, go by themselves, a little later.
        let end = std::time::Instant::now() + Duration::from_secs(10);
        for folder in ["root/containers", "run/containers", "run/records"] {
            let left = || entries(&self.path(folder));
            while !left().is_empty() && std::time::Instant::now() < end {
                std::thread::yield_now();
            }
            assert_eq!(left(), Vec::<String>::new(), "left in {folder}");
        }
        while !shims_below(self.folder.path()).is_empty() && std::time::Instant::now() < end {
            std::thread::yield_now();
        }
        assert_eq!(shims_below(self.folder.path()), Vec::<u32>::new(), "shims left");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.is_none() {
            return;
        }
        if let Ok((200, rows)) = self.ask("GET", "/containers/json?all=1", None) {
            for row in rows.as_array().into_iter().flatten() {
                let path = format!(
                    "/containers/{}?force=1&v=1",
                    row["Id"].as_str().unwrap_or_default()
                );
                self.ask("DELETE", &path, None).ok();
            }
        }
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// One request over a fresh connection.
pub fn ask(socket: &Path, method: &str, path: &str, body: &[u8]) -> io::Result<(u16, String)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: kakoi\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let broken = || io::Error::new(io::ErrorKind::UnexpectedEof, "half an answer");
    let end = find(&bytes, b"\r\n\r\n").ok_or_else(broken)?;
    let (head, body) = (
        String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase(),
        &bytes[end + 4..],
    );
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse().ok())
        .ok_or_else(broken)?;
    if let Some(length) = head.split("content-length: ").nth(1) {
        let length: usize = length
            .split("\r\n")
            .next()
            .and_then(|word| word.parse().ok())
            .ok_or_else(broken)?;
        if body.len() < length && method != "HEAD" {
            return Err(broken());
        }
    }
    let body = match head.contains("transfer-encoding: chunked") {
        true => unchunk(body).ok_or_else(broken)?,
        false => body.to_vec(),
    };
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn unchunk(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = find(body, b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).ok()?, 16).ok()?;
        let rest = &body[end + 2..];
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(rest.get(..size)?);
        body = rest.get(size + 2..)?;
    }
}

pub fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// Process ids of the shims whose plan lies below `folder`.
pub fn shims_below(folder: &Path) -> Vec<u32> {
    let wanted = folder.display().to_string();
    entries(Path::new("/proc"))
        .into_iter()
        .filter_map(|name| name.parse::<u32>().ok())
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            line.contains("kakoi-shim\0run") && line.contains(&wanted)
        })
        .collect()
}
