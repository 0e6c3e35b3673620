//! The peers of the bench: OCI runtimes on one bundle, engines on one root file system, each in folders of its own.

use std::path::Path;
use std::process::Command;

use kakoi_integration::bundle;
use kakoi_integration::command::run;

/// One competitor: a name, and the command of a round.
pub struct Peer {
    /// What the table calls it.
    pub name: String,
    make: Box<dyn FnMut(usize) -> Command>,
}

impl Peer {
    /// A competitor whose command may depend on the round, because ids must be new.
    pub fn new(name: &str, make: impl FnMut(usize) -> Command + 'static) -> Self {
        Self {
            name: name.into(),
            make: Box::new(make),
        }
    }

    /// The command of one round.
    pub fn command(&mut self, round: usize) -> Command {
        (self.make)(round)
    }
}

fn installed(name: &str) -> bool {
    run(Command::new("which").arg(name), b"").code == 0
}

fn version(name: &str) -> String {
    let ran = run(Command::new(name).arg("--version"), b"");
    ran.stdout
        .split_whitespace()
        .find(|word| word.starts_with(|first: char| first.is_ascii_digit()))
        .unwrap_or("")
        .to_owned()
}

/// `podman run`, and `docker run` where a daemon answers already: the bench starts no daemon of another's.
pub fn engines(folder: &Path, rootfs: &Path) -> Vec<Peer> {
    let mut found = Vec::new();
    if installed("podman") {
        let base = vec![
            format!("--root={}", folder.join("podman").display()),
            format!("--runroot={}", folder.join("podman-run").display()),
            "--cgroup-manager=cgroupfs".into(),
            "--events-backend=none".into(),
        ];
        let imported = run(
            Command::new("podman")
                .args(&base)
                .arg("import")
                .arg(rootfs)
                .arg("bench:1"),
            b"",
        );
        if imported.code != 0 {
            println!(
                "podman is left out: {}",
                imported.stderr.lines().last().unwrap_or_default()
            );
        } else {
            found.push(Peer::new(
                &format!("podman {} run --rm --network none", version("podman")),
                move |_| {
                    let mut command = Command::new("podman");
                    command.args(&base).args([
                        "run",
                        "--rm",
                        "--network",
                        "none",
                        "--ulimit",
                        "nofile=1024:1024",
                    ]);
                    command.args(["--ulimit", "nproc=4096:4096", "bench:1", "true"]);
                    command
                },
            ));
        }
    }
    if installed("docker") && run(Command::new("docker").arg("version"), b"").code == 0 {
        let imported = run(
            Command::new("docker")
                .arg("import")
                .arg(rootfs)
                .arg("kakoi-bench:1"),
            b"",
        );
        if imported.code == 0 {
            found.push(Peer::new("docker run --rm --network none", |_| {
                let mut command = Command::new("docker");
                command.args(["run", "--rm", "--network", "none", "kakoi-bench:1", "true"]);
                command
            }));
        }
    }
    found
}

/// `run` of Kakoi's own OCI command line and of every runtime that is installed.
pub fn runtimes(folder: &Path, release: &Path, rootfs: &Path) -> Vec<Peer> {
    let bundle = bundle::make(&folder.join("bundle"), rootfs, &bundle::document(&["/bin/true"]));
    let mut own: Vec<(String, Vec<String>)> = vec![(
        "kakoi-oci run".into(),
        vec![release.join("kakoi-shim").display().to_string(), "oci".into()],
    )];
    for name in ["crun", "runc", "youki"] {
        if installed(name) {
            own.push((format!("{name} {} run", version(name)), vec![name.into()]));
        }
    }
    own.into_iter()
        .map(|(name, program)| {
            let (bundle, state) = (
                bundle.clone(),
                folder.join(format!("state-{}", name.replace(' ', "-"))),
            );
            let prefix = name.split(' ').next().unwrap_or_default().to_owned();
            Peer::new(&name, move |round| {
                let mut command = Command::new(&program[0]);
                command
                    .args(&program[1..])
                    .arg("--root")
                    .arg(&state)
                    .args(["run", "--bundle"])
                    .arg(&bundle);
                command.arg(format!("bench-{prefix}-{}-{round}", std::process::id()));
                command
            })
        })
        .collect()
}
