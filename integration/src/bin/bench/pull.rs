//! Pulls of one real image, beside the peers: time, bytes that reach the disk, and memory.
//!
//! The image comes from a `docker-registry` on loopback, so that nobody waits for a network. Whoever pulls is emptied between rounds. What
//! reaches the disk is counted at the block device, from one sync(1) to the next: it needs a machine that does nothing else.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kakoi_integration::command::run;
use kakoi_integration::wait;

use crate::{Bench, Row, field_kib, peers, timed};

/// Pulls of each: they take seconds, where commands take milliseconds.
const ROUNDS: usize = 5;
/// Bytes of a sector in the kernel's statistics of a block device, whatever the device says.
const SECTOR_BYTES: u64 = 512;

/// A registry with the image.
pub struct Registry {
    child: Child,
    name: String,
    layout: PathBuf,
}

/// Makes the image, an OCI layout; its packages come from outside.
pub fn make_image(layout: &Path) -> Result<(), String> {
    let make = Path::new(env!("CARGO_MANIFEST_DIR")).join("pull-image");
    // Downloads and unpacks packages: longer than a command of a test may take.
    let made = Command::new(make).arg(layout).stdout(Stdio::null()).status();
    match made.is_ok_and(|status| status.success()) {
        true => Ok(()),
        false => Err(String::from("the image was not made")),
    }
}

impl Registry {
    /// Starts it and fills it with the image; says why where a part is missing. `name` is where Kakoi was told that it will be.
    pub fn start(folder: &Path, name: &str, layout: &Path) -> Result<Self, String> {
        let folder = folder.join("registry");
        fs::create_dir(&folder).map_err(|error| error.to_string())?;
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}/data}}\nhttp: {{addr: \"{name}\", secret: bench}}\n",
            folder.display()
        );
        fs::write(folder.join("config.yml"), config).map_err(|error| error.to_string())?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(folder.join("config.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let registry = Self {
            child: child.map_err(|error| format!("docker-registry: {error}"))?,
            name: name.to_owned(),
            layout: layout.to_owned(),
        };
        let listens = wait::poll(Duration::from_secs(20), || TcpStream::connect(name).ok());
        listens.ok_or("docker-registry does not listen")?;
        registry.fill()?;
        Ok(registry)
    }

    fn fill(&self) -> Result<(), String> {
        let copied = Command::new("skopeo")
            .args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"])
            .arg(format!("oci:{}:1", self.layout.display()))
            .arg(format!("docker://{}", self.image()))
            .status();
        match copied.is_ok_and(|status| status.success()) {
            true => Ok(()),
            false => Err(String::from("the image was not pushed")),
        }
    }

    fn image(&self) -> String {
        format!("{}/debian:1", self.name)
    }

    /// The files of the image's layers, as the registry has them.
    fn blobs(&self) -> Vec<PathBuf> {
        let blobs = fs::read_dir(self.layout.join("blobs/sha256"));
        let blobs = blobs.into_iter().flatten().flatten().map(|entry| entry.path());
        blobs
            .filter(|path| fs::metadata(path).is_ok_and(|meta| meta.len() > 1 << 20))
            .collect()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait().map(drop)) {
            eprintln!("stopping the registry: {error}");
        }
    }
}

/// A place on loopback that nobody has.
pub fn free_place() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    listener.local_addr().expect("bound").to_string()
}

/// Somebody who pulls.
struct Puller {
    name: String,
    pull: Box<dyn Fn() -> Command>,
    empty: Box<dyn Fn() -> Command>,
}

struct Figures {
    row: Row,
    written: Vec<f64>,
}

/// Kakoi, and whoever of the peers runs.
fn pullers(bench: &Bench, image: &str) -> Vec<Puller> {
    let mut pullers = vec![{
        let (release, flags, image) = (
            bench.release.clone(),
            crate::flags(bench.folder.path()),
            image.to_owned(),
        );
        let kakoi = move |arguments: &[&str]| {
            let mut command = Command::new(release.join("kakoi"));
            command.args(&flags).args(arguments).arg(&image);
            command
        };
        let again = kakoi.clone();
        Puller {
            name: String::from("kakoi pull"),
            pull: Box::new(move || kakoi(&["pull", "--quiet"])),
            empty: Box::new(move || again(&["rmi"])),
        }
    }];
    for (name, base) in peers::bases(bench.folder.path()) {
        let (image, tls) = (image.to_owned(), name.starts_with("podman"));
        let command = move |arguments: &[&str]| {
            let mut command = Command::new(&base[0]);
            command.args(&base[1..]).args(arguments).arg(&image);
            command
        };
        let again = command.clone();
        let pull: &[&str] = match tls {
            true => &["pull", "--quiet", "--tls-verify=false"],
            false => &["pull", "--quiet"],
        };
        pullers.push(Puller {
            name: format!("{name} pull"),
            pull: Box::new(move || command(pull)),
            empty: Box::new(move || again(&["rmi"])),
        });
    }
    pullers
}

/// Times everybody in turns and prints the table.
pub fn race(bench: &Bench, registry: &Registry) {
    let pullers = pullers(bench, &registry.image());
    let device = device(bench.folder.path());
    let mut figures: Vec<Figures> = Vec::new();
    for round in 0..=ROUNDS {
        for (number, puller) in pullers.iter().enumerate() {
            let before = settled(device);
            let millis = timed(&mut (puller.pull)());
            let written = settled(device) - before;
            let emptied = run(&mut (puller.empty)(), b"");
            if round == 0 {
                // Warms what is read, and is not counted.
                figures.push(Figures {
                    row: Row {
                        name: puller.name.clone(),
                        millis: Vec::new(),
                    },
                    written: Vec::new(),
                });
            }
            match millis {
                Ok(millis) if emptied.code == 0 && round > 0 => {
                    figures[number].row.millis.push(millis);
                    figures[number].written.push(written as f64);
                }
                Ok(_) => {}
                Err(why) => println!("\n{}, round {round}: {why}", puller.name),
            }
        }
    }
    let serial = serial(&registry.blobs());
    run(&mut (pullers[0].pull)(), b"").ok();
    let layers = bench.folder.path().join("root/images/layers");
    let (files, blocks) = size(&layers);
    print(bench, registry, &figures, &serial, (files, blocks));
}

/// Fetching, hashing and unpacking one after the other, with the tools everybody has: what the work itself takes.
fn serial(blobs: &[PathBuf]) -> Row {
    let script = "for blob; do cat \"$blob\" >/dev/null; sha256sum <\"$blob\" >/dev/null; gunzip <\"$blob\" >/dev/null; done";
    let mut millis = Vec::new();
    for _ in 0..ROUNDS {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).args(blobs);
        millis.extend(timed(&mut command));
    }
    Row {
        name: String::from("cat, sha256sum, gunzip, one layer after another"),
        millis,
    }
}

fn print(bench: &Bench, registry: &Registry, figures: &[Figures], serial: &Row, (files, blocks): (u64, u64)) {
    let packed: u64 = registry
        .blobs()
        .iter()
        .filter_map(|path| fs::metadata(path).ok())
        .map(|meta| meta.len())
        .sum();
    let mb = |bytes: u64| bytes as f64 / 1e6;
    println!(
        "\nAn image of {} layers, {:.0} MB packed, {:.0} MB of files, which take {:.0} MB of the file system's blocks.",
        registry.blobs().len(),
        mb(packed),
        mb(files),
        mb(blocks)
    );
    println!(
        "\n| pulling from loopback, medians of {ROUNDS} | time | beside Kakoi | written, beside the blocks |\n| --- | ---: | ---: | ---: |"
    );
    let own = figures.first().map_or(f64::NAN, |figures| figures.row.median());
    for Figures { row, written } in figures {
        let written = Row {
            name: String::new(),
            millis: written.clone(),
        };
        println!(
            "| {} | {:.2} s | {:.2}× | {:.2}× |",
            row.name,
            row.median() / 1e3,
            row.median() / own,
            written.median() / blocks as f64
        );
    }
    let (time, ratio) = (serial.median() / 1e3, serial.median() / own);
    println!("| {} | {time:.2} s | {ratio:.2}× | |", serial.name);
    let peak = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        field_kib(&status, "VmHWM:").unwrap_or(0) as f64 / 1024.0
    };
    println!("\n| peak memory after all pulls | figure | promise |\n| --- | ---: | ---: |");
    println!("| kakoid | {:.1} MiB | ≤ 64 MB |", peak(bench.daemon.id()));
    if let Some(pid) = peers::dockerd_pid(bench.folder.path()) {
        println!("| dockerd, without its helpers | {:.1} MiB | |", peak(pid));
    }
}

/// The number of the block device below a folder.
fn device(folder: &Path) -> u64 {
    fs::metadata(folder).expect("the bench's folder").dev()
}

/// Waits until everything is on the disks, and tells how much was ever written to one.
fn settled(device: u64) -> u64 {
    nix::unistd::sync();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let statistics = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).unwrap_or_default();
    let sectors = statistics
        .split_whitespace()
        .nth(6)
        .and_then(|field| field.parse::<u64>().ok());
    sectors.unwrap_or(0) * SECTOR_BYTES
}

/// Bytes of the files of a tree, and of the blocks that all of it takes; what has several names is counted once.
fn size(folder: &Path) -> (u64, u64) {
    let (mut files, mut blocks) = (0, 0);
    let mut seen = std::collections::BTreeSet::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(meta) = entry.path().symlink_metadata() else {
                continue;
            };
            if !seen.insert(meta.ino()) {
                continue;
            }
            blocks += meta.blocks() * SECTOR_BYTES;
            if meta.is_dir() {
                folders.push(entry.path());
            } else {
                files += meta.len();
            }
        }
    }
    (files, blocks)
}
