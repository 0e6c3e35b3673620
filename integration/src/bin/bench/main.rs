//! Times Kakoi beside its peers, in one run on one machine, and prints a table in Markdown.
//!
//! `bench RELEASE_FOLDER [pull|apps]`: the folder holds the release binaries, `pull` leaves out all but pulling, `apps` all but the change of versions of
//! an app; peers are whatever of crun, runc, podman and docker is installed. Rounds are
//! interleaved, so that a machine that slows down slows everyone down. Everything runs in a temporary folder and a daemon of its own.
#![forbid(unsafe_code)]

mod apps;
mod network;
mod peers;
mod pull;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use kakoi_integration::command::{Ran, run};
use kakoi_integration::{host, image, leaks, wait};
use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;
use peers::Peer;

/// Rounds of each command: enough for a median that a hiccup does not move.
const ROUNDS: usize = 30;
/// As the promise says: figures with 20 containers running.
const CONTAINERS: usize = 20;

/// One measured command.
struct Row {
    name: String,
    millis: Vec<f64>,
}

impl Row {
    fn median(&self) -> f64 {
        let mut sorted = self.millis.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

/// Kakoi's own daemon and folders for the bench.
struct Bench {
    folder: tempfile::TempDir,
    release: PathBuf,
    daemon: Child,
}

impl Bench {
    fn start(release: &Path, registry: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("kakoi-")
            .tempdir()
            .expect("making a temporary folder");
        for name in ["root", "run", "config"] {
            fs::create_dir(folder.path().join(name)).expect("making a folder");
        }
        fs::write(folder.path().join("config/trust.yaml"), host::TRUST).expect("writing trust.yaml");
        let registries = format!("registries:\n  \"{registry}\": {{transport: http}}\n");
        fs::write(folder.path().join("config/registries.yaml"), registries).expect("writing a file");
        // As /run is everywhere; seen by this process and what it starts alone.
        let none = None::<&str>;
        nix::mount::mount(
            Some("tmpfs"),
            &folder.path().join("run"),
            Some("tmpfs"),
            MsFlags::empty(),
            none,
        )
        .expect("mounting a tmpfs");
        let daemon = Command::new(release.join("kakoid"))
            .args(flags(folder.path()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("daemon.log")).expect("making a log"))
            .spawn()
            .expect("starting kakoid");
        let bench = Self {
            folder,
            release: release.to_path_buf(),
            daemon,
        };
        let socket = bench.folder.path().join("run/kakoid.sock");
        let listens = wait::poll(Duration::from_secs(20), || {
            std::os::unix::net::UnixStream::connect(&socket).ok()
        });
        assert!(listens.is_some(), "kakoid does not listen");
        bench
    }

    fn kakoi(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.release.join("kakoi"));
        command.args(flags(self.folder.path())).args(arguments);
        command
    }

    fn ok(&self, arguments: &[&str]) -> String {
        run(&mut self.kakoi(arguments), b"").ok()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let ids = run(&mut self.kakoi(&["ps", "--all", "--quiet"]), b"");
        for id in ids.stdout.lines() {
            let removed = run(&mut self.kakoi(&["rm", "--force", "--time", "0", id]), b"");
            if removed.code != 0 {
                eprintln!("{removed}");
            }
        }
        let pid = nix::unistd::Pid::from_raw(self.daemon.id() as i32);
        if let Err(errno) = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM) {
            eprintln!("stopping kakoid: {errno}");
        }
        if kakoi_integration::command::ended(&mut self.daemon, Duration::from_secs(20)).is_none() {
            eprintln!("kakoid did not stop when asked");
        }
        for left in leaks::processes(self.folder.path()) {
            eprintln!("left behind: {left:?}");
        }
        if let Err(errno) = nix::mount::umount2(&self.folder.path().join("run"), MntFlags::MNT_DETACH) {
            eprintln!("unmounting the tmpfs: {errno}");
        }
    }
}

fn flags(folder: &Path) -> [String; 3] {
    ["root", "run", "config"].map(|name| format!("--{name}={}", folder.join(name).display()))
}

fn timed(command: &mut Command) -> Result<f64, String> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let start = Instant::now();
    let output = command.output().map_err(|error| error.to_string())?;
    let millis = start.elapsed().as_secs_f64() * 1e3;
    if output.status.success() {
        return Ok(millis);
    }
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(stderr.lines().last().unwrap_or("no word of error").to_owned())
}

/// Times the peers in turns; one that fails at its first round is left out, and why is said.
fn race(peers: &mut [Peer]) -> (Vec<Row>, Vec<String>) {
    let mut notes = Vec::new();
    let mut rows: Vec<Option<Row>> = Vec::new();
    for peer in peers.iter_mut() {
        // The first round warms caches and is not counted.
        rows.push(match timed(&mut peer.command(0)) {
            Ok(_) => Some(Row {
                name: peer.name.clone(),
                millis: Vec::new(),
            }),
            Err(why) => {
                notes.push(format!("{} is left out: {why}", peer.name));
                None
            }
        });
    }
    for round in 1..=ROUNDS {
        for (peer, row) in peers.iter_mut().zip(&mut rows) {
            let Some(row) = row else { continue };
            match timed(&mut peer.command(round)) {
                Ok(millis) => row.millis.push(millis),
                Err(why) => notes.push(format!("{}, round {round}: {why}", peer.name)),
            }
        }
    }
    (rows.into_iter().flatten().collect(), notes)
}

fn print_race(title: &str, (rows, notes): (Vec<Row>, Vec<String>)) {
    println!("\n| {title} | median | beside Kakoi |\n| --- | ---: | ---: |");
    let own = rows.first().map_or(f64::NAN, Row::median);
    for row in &rows {
        println!(
            "| {} | {:.1} ms | {:.2}× |",
            row.name,
            row.median(),
            row.median() / own
        );
    }
    for note in notes {
        println!("\n{note}");
    }
}

/// Proportional set size of a process in KiB.
fn pss_kib(pid: i32) -> Option<u64> {
    field_kib(
        &fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?,
        "Pss:",
    )
}

fn field_kib(text: &str, field: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(field)?.split_whitespace().next()?.parse().ok())
}

fn memory(bench: &Bench) {
    let status = |pid: u32| fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let idle = field_kib(&status(bench.daemon.id()), "VmRSS:").unwrap_or(0);
    for number in 0..CONTAINERS {
        bench.ok(&[
            "run",
            "-d",
            "--name",
            &format!("m{number}"),
            "--network",
            "none",
            "busybox:test",
            "sleep",
            "100000",
        ]);
    }
    let shims: Vec<_> = leaks::processes(bench.folder.path())
        .into_iter()
        .filter(|process| process.command.contains("kakoi-shim"))
        .filter_map(|process| pss_kib(process.pid))
        .collect();
    let busy = field_kib(&status(bench.daemon.id()), "VmRSS:").unwrap_or(0);
    let sum: u64 = shims.iter().sum();
    let mib = |kib: u64| kib as f64 / 1024.0;
    println!("\n| memory | figure | promise |\n| --- | ---: | ---: |");
    println!("| daemon, idle, resident | {:.1} MiB | ≤ 10 MB |", mib(idle));
    println!(
        "| daemon beside {CONTAINERS} containers, resident | {:.1} MiB | ≤ 16 MB |",
        mib(busy)
    );
    println!(
        "| shim, proportional, mean of {} | {:.2} MiB | ≤ 1.0 MB |",
        shims.len(),
        mib(sum) / shims.len().max(1) as f64
    );
    for number in 0..CONTAINERS {
        bench.ok(&["rm", "--force", "--time", "0", &format!("m{number}")]);
    }
}

fn sizes(release: &Path) {
    println!("\n| installed | size | promise |\n| --- | ---: | ---: |");
    let mut sum = 0;
    for name in ["kakoi", "kakoid", "kakoi-shim"] {
        let bytes = fs::metadata(release.join(name))
            .expect("the release was built")
            .len();
        sum += bytes;
        println!("| {name} | {:.1} MB | |", bytes as f64 / 1e6);
    }
    println!("| all | {:.1} MB | ≤ 15 MB |", sum as f64 / 1e6);
}

/// Nanoseconds a call, by the attacker's own clock: on the bare host, and under each profile.
fn calls(bench: &Bench) {
    let parse = |ran: Ran| -> Vec<String> {
        ran.ok()
            .lines()
            .filter_map(|line| line.split(' ').nth(1))
            .map(str::to_owned)
            .collect()
    };
    println!(
        "\n| ns a call | plain | argument checked | open and close | denied |\n| --- | ---: | ---: | ---: | ---: |"
    );
    let bare = parse(run(Command::new(host::binary("attacker")).arg("time"), b""));
    println!("| no container | {} |", bare.join(" | "));
    for policy in ["docker-default", "strict"] {
        let arguments = [
            "run",
            "--rm",
            "--network",
            "none",
            "--policy",
            policy,
            "busybox:test",
            "/attacker",
            "time",
        ];
        let confined = parse(run(&mut bench.kakoi(&arguments), b""));
        println!("| {policy} | {} |", confined.join(" | "));
    }
}

fn policies(bench: &Bench) {
    let mut peer = Peer::new("kakoi policy check", {
        let release = bench.release.clone();
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/examples/mosquitto.yaml");
        move |_| {
            let mut command = Command::new(release.join("kakoi"));
            command.args(["policy", "check"]).arg(&example);
            command
        }
    });
    let result = race(std::slice::from_mut(&mut peer));
    print_race("reading, composing and compiling a policy, whole command", result);
}

/// A mount namespace of our own: for the tmpfs, and without the unified hierarchy where version 1 ones are mounted beside it, because crun
/// refuses to run while it has a controller. Everybody runs in it.
fn leave_the_hosts_mounts() -> nix::Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    nix::mount::mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let unified = Path::new("/sys/fs/cgroup/unified");
    if unified.exists() {
        nix::mount::umount2(unified, MntFlags::MNT_DETACH)?;
        // What runtimes then leave there as plain folders goes with the namespace.
        nix::mount::mount(Some("tmpfs"), unified, Some("tmpfs"), MsFlags::empty(), none)?;
    }
    Ok(())
}

fn print_machine() {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!(
        "Linux {}, {} processors, {}; medians of {ROUNDS} interleaved rounds; everybody's run-time folders on a tmpfs.",
        kernel.trim(),
        cpus,
        std::env::consts::ARCH
    );
}

fn main() -> ExitCode {
    let Some(release) = std::env::args().nth(1).map(PathBuf::from) else {
        eprintln!("usage: bench RELEASE_FOLDER [pull|apps]");
        return ExitCode::from(2);
    };
    if let Err(errno) = leave_the_hosts_mounts() {
        eprintln!("bench: leaving the host's mounts: {errno}");
        return ExitCode::FAILURE;
    }
    let made = tempfile::tempdir().expect("making a temporary folder");
    let layout = made.path().join("layout");
    let only = std::env::args().nth(2).unwrap_or_default();
    let image = if only == "apps" {
        Ok(())
    } else {
        pull::make_image(&layout)
    };
    if let Err(why) = network::leave_the_hosts() {
        eprintln!("bench: leaving the host's network: {why}");
        return ExitCode::FAILURE;
    }
    let place = pull::free_place();
    let bench = Bench::start(&release, &place);
    let archive = image::busybox(&host::binary("attacker"));
    run(&mut bench.kakoi(&["load"]), &archive).ok();
    let rootfs = bench.folder.path().join("rootfs.tar");
    fs::write(&rootfs, image::busybox_layer(&host::binary("attacker")))
        .expect("writing the root file system");

    print_machine();

    if only == "apps" {
        apps::print(&bench);
        return ExitCode::SUCCESS;
    }
    let mut engines = vec![Peer::new("kakoi run --rm --network none", {
        let (release, flags) = (release.clone(), flags(bench.folder.path()));
        move |_| {
            let mut command = Command::new(release.join("kakoi"));
            command
                .args(&flags)
                .args(["run", "--rm", "--network", "none", "busybox:test", "true"]);
            command
        }
    })];
    let (running, found) = peers::engines(bench.folder.path(), &rootfs);
    engines.extend(found);
    if only != "pull" {
        print_race("a container's life, whole command", race(&mut engines));
        let mut runtimes = peers::runtimes(bench.folder.path(), &release, &rootfs);
        print_race(
            "create, start, wait, delete: the OCI runtime alone",
            race(&mut runtimes),
        );
        policies(&bench);
        calls(&bench);
        memory(&bench);
        sizes(&release);
        network::print(&bench);
        apps::print(&bench);
    }
    match image.and_then(|()| pull::Registry::start(bench.folder.path(), &place, &layout)) {
        Ok(registry) => pull::race(&bench, &registry),
        Err(why) => println!("\nPulling is left out: {why}"),
    }
    drop(running);
    ExitCode::SUCCESS
}
