//! A real registry on loopback, Debian's `docker-registry`, and the tools of others that talk to it.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::command::{Ran, run};
use crate::host::Host;
use crate::wait;

/// Arguments in one line, to a tool of others.
#[track_caller]
pub fn tool(program: &str, line: &str) -> Ran {
    run(Command::new(program).args(line.split_whitespace()), b"")
}

/// A `docker-registry` of a test's own, gone with it.
pub struct Registry {
    child: Child,
    /// Host and port.
    pub name: String,
    folder: tempfile::TempDir,
}

impl Registry {
    /// With a certificate of its own authority, and `user` with the password `secret`.
    pub fn guarded() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path();
        certificates(dir);
        let passwords = run(Command::new("htpasswd").args(["-Bbn", "user", "secret"]), b"").ok();
        std::fs::write(dir.join("htpasswd"), passwords + "\n").expect("written");
        let extra = format!(
            "  tls: {{certificate: {0}/server.crt, key: {0}/server.key}}\nauth:\n  htpasswd: {{realm: test, path: {0}/htpasswd}}\n",
            dir.display()
        );
        Self::start(folder, &extra)
    }

    /// Plain HTTP and open to all.
    pub fn open() -> Self {
        Self::start(tempfile::tempdir().expect("a folder"), "")
    }

    fn start(folder: tempfile::TempDir, extra: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let name = port.local_addr().expect("bound").to_string();
        drop(port);
        let dir = folder.path();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}/data}}\nhttp:\n  addr: {name}\n  secret: test\n{extra}",
            dir.display()
        );
        let path = dir.join("config.yml");
        std::fs::write(&path, config).expect("written");
        let log = std::fs::File::create(dir.join("log")).expect("a log");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("docker-registry is installed (integration/provision test)");
        let registry = Self { child, name, folder };
        let answers = wait::poll(Duration::from_secs(20), || {
            TcpStream::connect(&registry.name).ok()
        });
        assert!(answers.is_some(), "the registry listens");
        registry
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The same as text.
    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// A name of an image in it.
    pub fn image(&self, rest: &str) -> String {
        format!("{}/{rest}", self.name)
    }

    /// Lets a host know this registry.
    pub fn introduce(&self, host: &Host, entry: &str) {
        host.file(
            "config/registries.yaml",
            format!("registries:\n  \"{}\": {entry}\n", self.name),
        );
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("stopping the registry: {error}");
        }
    }
}

fn openssl(dir: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    run(command.current_dir(dir).args(arguments.split_whitespace()), b"").ok();
}

/// An authority, and a server's certificate for loopback.
fn certificates(dir: &Path) {
    std::fs::create_dir(dir.join("certs")).expect("a folder");
    std::fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1\n").expect("written");
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(
        dir,
        &format!("req -x509 {key} -keyout ca.key -out certs/ca.crt -subj /CN=authority -days 2"),
    );
    openssl(
        dir,
        &format!("req {key} -keyout server.key -out server.csr -subj /CN=registry"),
    );
    openssl(
        dir,
        "x509 -req -in server.csr -CA certs/ca.crt -CAkey ca.key -CAcreateserial -out server.crt -days 2 -extfile names",
    );
}

/// Makes an ECDSA key pair, `path` and `path`.pub, as openssl does; says the path of the private one.
#[track_caller]
pub fn key_pair(path: &Path) -> String {
    let path = path.display().to_string();
    tool(
        "openssl",
        &format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {path}"),
    )
    .ok();
    tool("openssl", &format!("pkey -in {path} -pubout -out {path}.pub")).ok();
    path
}
