//! Arguments, the daemon's own settings, and where everything lies.

use std::path::{Path, PathBuf};

use kakoi_image::registry::Registries;
use serde::Deserialize;

/// The daemon's help text.
pub const USAGE: &str = "\
kakoid: the Kakoi daemon

usage: kakoid [--root DIR] [--run DIR] [--config DIR] [--shim FILE] [--debug]

  --root DIR     durable state (default /var/lib/kakoi)
  --run DIR      run-time state and the sockets kakoid.sock and docker.sock
                 (default /run/kakoi)
  --config DIR   kakoid.yaml, trust.yaml, registries.yaml, ceiling.yaml, host.yaml,
                 policies/ (default /etc/kakoi)
  --shim FILE    kakoi-shim (default: beside this program)
  --debug        log more
  --version      print the version

exit codes: 0 stopped as asked, 1 failed, 2 wrong arguments, 3 another daemon uses these folders
";

/// Wrong arguments or settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// An argument that is not known.
    #[error("unknown argument {0:?}; see kakoid --help")]
    Unknown(String),
    /// An argument without its value.
    #[error("{0} needs a value; see kakoid --help")]
    NoValue(String),
    /// A path that is not absolute.
    #[error("{option} must be an absolute path, not {value:?}")]
    Relative {
        /// The option.
        option: &'static str,
        /// What was given.
        value: PathBuf,
    },
    /// The own program cannot be found.
    #[error("finding the shim beside this program; name it with --shim")]
    Shim(#[source] std::io::Error),
    /// The settings cannot be read.
    #[error("reading {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// The settings are not valid.
    #[error("{} is not valid: {reason}", .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line, column and what is wrong.
        reason: String,
    },
    /// The ceiling allows what the daemon gave up when it started.
    #[error(
        "the ceiling allows more than this daemon kept when it started: {what}; start kakoid anew, which leaves containers running"
    )]
    GivenUp {
        /// By name.
        what: String,
    },
}

/// What the command line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve.
    Serve(Paths, bool),
    /// Print the usage.
    Help,
    /// Print the version.
    Version,
}

/// Where everything lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Durable state.
    pub root: PathBuf,
    /// Run-time state.
    pub run: PathBuf,
    /// The owner's files.
    pub config: PathBuf,
    /// The shim.
    pub shim: PathBuf,
}

impl Paths {
    /// A container's durable folder.
    pub fn state_dir(&self, id: &str) -> PathBuf {
        self.root.join("containers").join(id)
    }

    /// A container's run-time folder.
    pub fn run_dir(&self, id: &str) -> PathBuf {
        self.run.join("containers").join(id)
    }

    /// A volume's folder; its files are in `_data`.
    pub fn volume_dir(&self, name: &str) -> PathBuf {
        self.root.join("volumes").join(name)
    }

    /// The socket.
    pub fn socket(&self) -> PathBuf {
        self.run.join("kakoid.sock")
    }

    /// The socket for Docker's clients.
    pub fn docker_socket(&self) -> PathBuf {
        self.run.join("docker.sock")
    }
}

/// Reads the command line, without the program's own name.
pub fn parse_arguments(arguments: impl Iterator<Item = String>) -> Result<Command, ConfigError> {
    let mut root = PathBuf::from("/var/lib/kakoi");
    let mut run = PathBuf::from("/run/kakoi");
    let mut config = PathBuf::from("/etc/kakoi");
    let mut shim = None;
    let mut debug = false;
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let (name, mut inline) = match argument.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (argument, None),
        };
        let mut value = |option: &'static str| {
            let text = inline
                .take()
                .or_else(|| arguments.next())
                .ok_or_else(|| ConfigError::NoValue(option.into()))?;
            let path = PathBuf::from(text);
            if path.is_absolute() {
                Ok(path)
            } else {
                Err(ConfigError::Relative { option, value: path })
            }
        };
        match name.as_str() {
            "--root" => root = value("--root")?,
            "--run" => run = value("--run")?,
            "--config" => config = value("--config")?,
            "--shim" => shim = Some(value("--shim")?),
            "--debug" => debug = true,
            "--help" | "-h" => return Ok(Command::Help),
            "--version" => return Ok(Command::Version),
            _ => return Err(ConfigError::Unknown(name)),
        }
    }
    let shim = match shim {
        Some(shim) => shim,
        None => std::env::current_exe()
            .map_err(ConfigError::Shim)?
            .with_file_name("kakoi-shim"),
    };
    Ok(Command::Serve(
        Paths {
            root,
            run,
            config,
            shim,
        },
        debug,
    ))
}

/// The owner's settings, `kakoid.yaml`. Every key may be left out.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The policy of containers that name none.
    pub default_policy: String,
    /// Bytes after which a container's log is rotated.
    pub log_size_bytes_max: u64,
    /// Log files kept per container.
    pub log_files_max: u32,
    /// First host id of the ranges that user namespaces get.
    pub subordinate_id_first: u32,
    /// How many ranges of 65536 ids there are.
    pub subordinate_ranges: u32,
    /// Seconds within which an app must run after its start; where a whole image must be copied on slow storage that takes its time.
    pub start_seconds_max: u32,
    /// Bytes that loading and pulling leave free.
    pub disk_reserve_bytes: u64,
    /// Below so many free bytes, images that nothing uses go by themselves; 0 means never.
    pub disk_low_bytes: u64,
    /// Whether those with a name go too.
    pub disk_low_takes_named: bool,
}

impl Default for Settings {
    /// Nothing here grants: the policy is the strictest one, and the log is bounded to what an eMMC device can spare.
    fn default() -> Self {
        Self {
            default_policy: "strict".into(),
            log_size_bytes_max: 10 << 20,
            log_files_max: 3,
            subordinate_id_first: 0x2000_0000,
            subordinate_ranges: 4096,
            start_seconds_max: 120,
            disk_reserve_bytes: 16 << 20,
            disk_low_bytes: 0,
            disk_low_takes_named: false,
        }
    }
}

/// Nobody waits longer than an hour for an app.
const START_SECONDS_MAX: u32 = 3600;

/// The index of images and the records must be written on a full disk too.
const DISK_RESERVE_BYTES_MIN: u64 = 1 << 20;
/// No gateway has more flash.
const DISK_BYTES_MAX: u64 = 1 << 44;

/// Longest `kakoid.yaml`.
const SETTINGS_BYTES_MAX: u64 = 64 << 10;

impl Settings {
    /// Reads `kakoid.yaml`; a missing file means every default.
    pub fn read(config: &Path) -> Result<Self, ConfigError> {
        let path = config.join("kakoid.yaml");
        let Some(text) = read_owner_file(&path, SETTINGS_BYTES_MAX)? else {
            return Ok(Self::default());
        };
        Self::parse(&text).map_err(|reason| ConfigError::Invalid { path, reason })
    }

    fn parse(text: &str) -> Result<Self, String> {
        if is_empty(text) {
            return Ok(Self::default());
        }
        let settings: Self = serde_saphyr::from_str(text).map_err(|cause| cause.to_string())?;
        let last = u64::from(settings.subordinate_id_first) + (u64::from(settings.subordinate_ranges) << 16);
        if settings.subordinate_id_first < 65536 || last > u64::from(u32::MAX) {
            return Err("subordinate ids must lie between 65536 and 4294967295".into());
        }
        if settings.log_size_bytes_max < 4096 || settings.log_files_max == 0 {
            return Err("a log needs at least one file of 4096 bytes".into());
        }
        if !(1..=START_SECONDS_MAX).contains(&settings.start_seconds_max) {
            return Err(format!("start_seconds_max must be 1 to {START_SECONDS_MAX}"));
        }
        if !(DISK_RESERVE_BYTES_MIN..=DISK_BYTES_MAX).contains(&settings.disk_reserve_bytes) {
            return Err(format!(
                "disk_reserve_bytes must be {DISK_RESERVE_BYTES_MIN} to {DISK_BYTES_MAX}"
            ));
        }
        let low = settings.disk_low_bytes;
        if low != 0 && !(settings.disk_reserve_bytes..=DISK_BYTES_MAX).contains(&low) {
            return Err(format!(
                "disk_low_bytes must be 0 (never), or disk_reserve_bytes to {DISK_BYTES_MAX}"
            ));
        }
        Ok(settings)
    }
}

/// Longest `registries.yaml`.
const REGISTRIES_BYTES_MAX: u64 = 256 << 10;

/// Reads `registries.yaml`; a missing file means every default. It is read for each operation, so that a change needs no restart.
pub fn read_registries(config: &Path) -> Result<Registries, ConfigError> {
    let path = config.join("registries.yaml");
    let Some(text) = read_owner_file(&path, REGISTRIES_BYTES_MAX)? else {
        return Ok(Registries::default());
    };
    parse_registries(&text).map_err(|reason| ConfigError::Invalid { path, reason })
}

fn parse_registries(text: &str) -> Result<Registries, String> {
    if is_empty(text) {
        return Ok(Registries::default());
    }
    let registries: Registries = serde_saphyr::from_str(text).map_err(|cause| cause.to_string())?;
    registries.check().map_err(|cause| cause.to_string())?;
    Ok(registries)
}

/// Nothing but comments.
fn is_empty(text: &str) -> bool {
    text.lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
}

/// Reads a file of the owner's; `None` where it does not exist.
pub fn read_owner_file(path: &Path, bytes_max: u64) -> Result<Option<String>, ConfigError> {
    let read = |cause| ConfigError::Read {
        path: path.to_owned(),
        cause,
    };
    match std::fs::metadata(path) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(read(cause)),
        Ok(metadata) if metadata.len() > bytes_max => {
            let reason = format!("it is longer than {bytes_max} bytes");
            return Err(ConfigError::Invalid {
                path: path.to_owned(),
                reason,
            });
        }
        Ok(_) => {}
    }
    std::fs::read_to_string(path).map(Some).map_err(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, ConfigError> {
        parse_arguments(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn reads_the_command_line() {
        let Command::Serve(paths, debug) =
            parse("--root /a --run=/b --config /c --shim /s --debug").expect("valid")
        else {
            panic!("serve was asked for")
        };
        assert!(debug);
        assert_eq!(paths.state_dir("x"), Path::new("/a/containers/x"));
        assert_eq!(paths.socket(), Path::new("/b/kakoid.sock"));
        for bad in ["--root", "--root a", "--rot /a", "serve"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    /// The file as the module that owns it draws it.
    #[test]
    fn registries_are_read_strictly() {
        let text = "search: [docker.io, r.example]\nregistries:\n  docker.io:\n    mirrors: [m.local:5000]\n  \"m.local:5000\":\n    transport: http\n";
        let read = parse_registries(text).expect("valid");
        assert_eq!(read.search.len(), 2);
        assert_eq!(read.registries["docker.io"].mirrors, ["m.local:5000"]);
        assert_eq!(parse_registries("# nothing\n"), Ok(Registries::default()));
        for bad in [
            "registry: {}",
            "registries: {x: {transport: ftp}}",
            "registries: {x: {insecure: true}}",
            "search: [https://x]",
            "registries: {x: {client_cert: /a}}",
        ] {
            assert!(parse_registries(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn settings_are_strict() {
        assert_eq!(Settings::parse("# nothing\n"), Ok(Settings::default()));
        assert_eq!(
            Settings::parse("log_files_max: 1").expect("valid").log_files_max,
            1
        );
        for bad in [
            "log_file_max: 1",
            "log_files_max: x",
            "log_files_max: 0",
            "start_seconds_max: 0",
            "disk_reserve_bytes: 0",
            "disk_reserve_bytes: 99999999999999",
            "disk_low_bytes: 1",
            "disk_low_bytes: -1",
            "disk_low_takes_named: 3",
            "disk_reserve_bytes: 4194304\ndisk_low_bytes: 2097152",
            "subordinate_id_first: 0",
        ] {
            assert!(Settings::parse(bad).is_err(), "{bad}");
        }
    }
}
