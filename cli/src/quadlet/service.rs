//! From what a file comes to, to the service that systemd runs.
//!
//! Owns the text of units, and where they are wanted. Pure. Invariant: the service of a container is the command that is attached to it, so that its state,
//! its output and its exit code are the app's. Source: systemd.service(5), systemd.generator(7).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::file::Entry;
use super::translate::SYSTEMD;
use super::{Kind, Unit, words};

/// The service of the daemon.
const DAEMON: &str = "kakoid.service";

/// A unit, ready to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Its name.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Links to it, from the folder of units (`multi-user.target.wants/web.service`).
    pub links: Vec<PathBuf>,
}

/// Writes services; `program` is where this program lies.
pub fn services(units: &[Unit], program: &Path) -> Vec<Made> {
    let program = program.display().to_string();
    units.iter().map(|unit| made(unit, &program)).collect()
}

impl Unit {
    /// What this program is asked to do in order to start it.
    pub fn start(&self) -> Vec<String> {
        let mut line: Vec<String> = match self.kind {
            Kind::Container => vec![
                "run".to_owned(),
                format!("--name={}", self.resource),
                "--replace".to_owned(),
                "--rm".to_owned(),
            ],
            Kind::Network => vec!["network".to_owned(), "create".to_owned(), "--ignore".to_owned()],
            Kind::Volume => vec!["volume".to_owned(), "create".to_owned()],
            Kind::Image => vec!["pull".to_owned(), "--quiet".to_owned()],
        };
        line.extend(self.flags.iter().chain(&self.tail).cloned());
        line
    }

    fn entries<'u>(&'u self, section: &'u str) -> impl Iterator<Item = &'u Entry> {
        self.passed
            .iter()
            .filter(move |(name, _)| name == section)
            .map(|(_, entry)| entry)
    }
}

fn made(unit: &Unit, program: &str) -> Made {
    let mut text = format!(
        "# Made by 'kakoi quadlet generate' from {}, at each boot and each reload of systemd: edit that file.\n",
        unit.path.display()
    );
    for section in SYSTEMD {
        let own = match section {
            "Unit" => unit_section(unit),
            "Service" => service_section(unit, program),
            _ => String::new(),
        };
        if own.is_empty() && unit.entries(section).next().is_none() {
            continue;
        }
        put(&mut text, format_args!("\n[{section}]"));
        for entry in unit.entries(section) {
            put(&mut text, format_args!("{}={}", entry.key, entry.value));
        }
        text.push_str(&own);
    }
    Made {
        name: unit.service.clone(),
        text,
        links: links(unit),
    }
}

fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a string succeeds");
}

fn unit_section(unit: &Unit) -> String {
    let mut text = String::new();
    if unit.entries("Unit").all(|entry| entry.key != "Description") {
        put(
            &mut text,
            format_args!("Description={} {}", unit.kind.word(), unit.resource),
        );
    }
    put(&mut text, format_args!("SourcePath={}", unit.path.display()));
    let mut first = vec![DAEMON];
    if unit.has_default_dependencies {
        first.push("network-online.target");
    }
    // The daemon is wanted, not required: containers outlive it.
    put(&mut text, format_args!("Wants={0}\nAfter={0}", first.join(" ")));
    if !unit.needs.is_empty() {
        put(
            &mut text,
            format_args!("Requires={0}\nAfter={0}", unit.needs.join(" ")),
        );
    }
    for path in &unit.mounts {
        put(
            &mut text,
            format_args!("RequiresMountsFor={}", words::join(std::slice::from_ref(path))),
        );
    }
    text
}

fn service_section(unit: &Unit, program: &str) -> String {
    let mut text = String::new();
    let is_open = |key: &str| unit.entries("Service").all(|entry| entry.key != key);
    let command = |line: Vec<String>| {
        let whole: Vec<String> = std::iter::once(program.to_owned()).chain(line).collect();
        words::join(&whole)
    };
    let line = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    if is_open("Type") {
        let kind = if unit.kind == Kind::Container {
            "exec"
        } else {
            "oneshot"
        };
        put(&mut text, format_args!("Type={kind}"));
    }
    if unit.kind != Kind::Container && is_open("RemainAfterExit") {
        put(&mut text, format_args!("RemainAfterExit=yes"));
    }
    put(&mut text, format_args!("ExecStart={}", command(unit.start())));
    match unit.kind {
        Kind::Container => {
            if let Some(reload) = &unit.reload {
                put(&mut text, format_args!("ExecReload={}", command(reload.clone())));
            }
            let stop = command(line(&["stop", "--ignore", &unit.resource]));
            put(&mut text, format_args!("ExecStop={stop}"));
            let remove = command(line(&["rm", "--force", "--ignore", &unit.resource]));
            put(&mut text, format_args!("ExecStopPost=-{remove}"));
            // The app's own code after it was asked to stop.
            if is_open("SuccessExitStatus") {
                put(&mut text, format_args!("SuccessExitStatus=143"));
            }
            if is_open("KillMode") {
                put(&mut text, format_args!("KillMode=mixed"));
            }
            if is_open("SyslogIdentifier") {
                put(&mut text, format_args!("SyslogIdentifier=%N"));
            }
        }
        Kind::Network if unit.is_removed_at_stop => {
            let remove = command(line(&["network", "rm", "--force", &unit.resource]));
            put(&mut text, format_args!("ExecStopPost={remove}"));
        }
        Kind::Network | Kind::Volume | Kind::Image => {}
    }
    text
}

/// What `systemctl enable` would make, which does not take units that a generator made.
fn links(unit: &Unit) -> Vec<PathBuf> {
    let mut links = Vec::new();
    let is_name = |name: &&str| !name.contains('/') && !name.starts_with('.');
    for (key, ending) in [
        ("WantedBy", "wants"),
        ("RequiredBy", "requires"),
        ("UpheldBy", "upholds"),
    ] {
        for value in unit.passed("Install", key) {
            let targets = value.split_whitespace().filter(is_name);
            links.extend(targets.map(|target| Path::new(&format!("{target}.{ending}")).join(&unit.service)));
        }
    }
    for value in unit.passed("Install", "Alias") {
        let names = value.split_whitespace().filter(is_name);
        links.extend(names.filter(|name| *name != unit.service).map(PathBuf::from));
    }
    links
}
