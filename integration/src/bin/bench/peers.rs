//! The peers of the bench: OCI runtimes on one bundle, engines on one root file system, each in folders of its own.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kakoi_integration::command::{ended, run};
use kakoi_integration::{bundle, wait};

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

/// The parent of the peers' control groups, so that they can be taken away afterwards.
pub const CGROUP: &str = "kakoi-bench-peers";
/// How long dockerd and its containerd may take to come up or to go.
const DOCKER_WAIT: Duration = Duration::from_secs(30);

/// What the peers' commands need for as long as they run.
#[derive(Default)]
pub struct Engines {
    dockerd: Option<Child>,
}

impl Drop for Engines {
    fn drop(&mut self) {
        if let Some(dockerd) = &mut self.dockerd {
            let pid = nix::unistd::Pid::from_raw(dockerd.id() as i32);
            if let Err(errno) = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM) {
                eprintln!("stopping dockerd: {errno}");
            }
            if ended(dockerd, DOCKER_WAIT).is_none() {
                eprintln!("dockerd did not stop when asked");
            }
        }
        let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        for hierarchy in hierarchies.filter(|hierarchy| hierarchy.file_name() != "unified") {
            for name in [CGROUP, "libpod_parent"] {
                remove_group(&hierarchy.path().join(name));
            }
        }
    }
}

/// Removes a control group with those below it; not every hierarchy has one.
fn remove_group(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_group(&entry.path());
        }
    }
    if path.is_dir()
        && let Err(error) = fs::remove_dir(path)
    {
        eprintln!("{}: {error}", path.display());
    }
}

/// `podman run` and `docker run`, as far as they are installed, each in folders of its own.
pub fn engines(folder: &Path, rootfs: &Path) -> (Engines, Vec<Peer>) {
    let mut engines = Engines::default();
    let mut found = Vec::new();
    for (name, peer) in [
        ("podman", installed("podman").then(|| podman(folder, rootfs))),
        (
            "docker",
            (installed("docker") && installed("dockerd")).then(|| docker(&mut engines, folder, rootfs)),
        ),
    ] {
        match peer {
            None => println!("{name} is left out: it is not installed"),
            Some(Err(why)) => println!("{name} is left out: {why}"),
            Some(Ok(peer)) => found.push(peer),
        }
    }
    (engines, found)
}

fn import(mut engine: Command, rootfs: &Path) -> Result<(), String> {
    let imported = run(engine.arg("import").arg(rootfs).arg("kakoi-bench:1"), b"");
    match imported.code {
        0 => Ok(()),
        _ => Err(imported.stderr.lines().last().unwrap_or_default().to_owned()),
    }
}

/// Name, and the beginning of every command, of the engines that [`engines`] found.
pub fn bases(folder: &Path) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    if folder.join("podman").exists() {
        found.push((format!("podman {}", version("podman")), podman_base(folder)));
    }
    if dockerd_pid(folder).is_some() {
        let name = format!("docker {}", version("dockerd").trim_end_matches(','));
        found.push((
            name,
            vec![
                String::from("docker"),
                format!("--host={}", docker_socket(folder)),
            ],
        ));
    }
    found
}

/// The process of the dockerd that [`engines`] started.
pub fn dockerd_pid(folder: &Path) -> Option<u32> {
    fs::read_to_string(folder.join("run/docker.pid"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn docker_socket(folder: &Path) -> String {
    format!("unix://{}", folder.join("run/dockerd.sock").display())
}

fn podman_base(folder: &Path) -> Vec<String> {
    vec![
        String::from("podman"),
        format!("--root={}", folder.join("podman").display()),
        format!("--runroot={}", folder.join("run/podman").display()),
        format!("--tmpdir={}", folder.join("run/podman-tmp").display()),
        "--cgroup-manager=cgroupfs".into(),
        "--events-backend=none".into(),
    ]
}

fn podman(folder: &Path, rootfs: &Path) -> Result<Peer, String> {
    let base = podman_base(folder);
    let podman = move || {
        let mut command = Command::new(&base[0]);
        command.args(&base[1..]);
        command
    };
    import(podman(), rootfs)?;
    Ok(Peer::new(
        &format!("podman {} run --rm --network none", version("podman")),
        move |_| {
            let mut command = podman();
            command.args(["run", "--rm", "--network", "none", "--cgroup-parent", CGROUP]);
            // Its defaults are above what this machine may have.
            command.args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]);
            command.args(["kakoi-bench:1", "true"]);
            command
        },
    ))
}

fn docker(engines: &mut Engines, folder: &Path, rootfs: &Path) -> Result<Peer, String> {
    let socket = docker_socket(folder);
    let log = fs::File::create(folder.join("dockerd.log")).map_err(|error| error.to_string())?;
    let daemon = Command::new("dockerd")
        .arg(format!("--host={socket}"))
        .arg(format!("--data-root={}", folder.join("docker").display()))
        .arg(format!("--exec-root={}", folder.join("run/docker").display()))
        .arg(format!("--pidfile={}", folder.join("run/docker.pid").display()))
        .arg(format!("--cgroup-parent=/{CGROUP}"))
        // Not where Kakoi has its own: the two look for free subnets at different times.
        .args(["--bip=172.31.0.1/16", "--ip6tables=false"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn();
    engines.dockerd = Some(daemon.map_err(|error| error.to_string())?);
    let client = move || {
        let mut command = Command::new("docker");
        command.arg(format!("--host={socket}"));
        command
    };
    let answers = || (run(client().arg("version"), b"").code == 0).then_some(());
    if wait::poll(DOCKER_WAIT, answers).is_none() {
        let log = fs::read_to_string(folder.join("dockerd.log")).unwrap_or_default();
        return Err(log.lines().last().unwrap_or_default().to_owned());
    }
    import(client(), rootfs)?;
    Ok(Peer::new(
        &format!(
            "docker {} run --rm --network none",
            version("dockerd").trim_end_matches(',')
        ),
        move |_| {
            let mut command = client();
            command.args(["run", "--rm", "--network", "none", "kakoi-bench:1", "true"]);
            command
        },
    ))
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
                folder.join(format!("run/state-{}", name.replace(' ', "-"))),
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
