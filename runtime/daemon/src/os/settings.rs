//! `<config>/host.yaml`, and what it makes: the device of its slots.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};

use kakoi_host::slots::{
    BootBlocks, BootCommand, BootControl, ControlError, Device, DeviceError, Slot, SystemdBoot,
    UbootEnvironment, booted,
};
use kakoi_policy::host::{Boot, Host, Slots, parse_host};

use crate::config::{ConfigError, read_owner_file};

/// The longest host.yaml.
const HOST_BYTES_MAX: u64 = 64 << 10;

/// Why the slots cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SlotsError {
    /// The kernel does not tell with what it was started.
    #[error("reading /proc/cmdline")]
    CommandLine(#[source] io::Error),
    /// A device of host.yaml.
    #[error("cannot open {path}")]
    Open {
        /// Which.
        path: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The boot control.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The record, or what it asks for.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Reads host.yaml; a missing file means no slots and no watchdog.
pub fn read(config: &Path) -> Result<Host, ConfigError> {
    let path = config.join("host.yaml");
    let Some(text) = read_owner_file(&path, HOST_BYTES_MAX)? else {
        return Ok(Host {
            lockdown: None,
            slots: None,
            watchdog: None,
        });
    };
    parse_host("host.yaml", &text).map_err(|found| ConfigError::Invalid {
        path,
        reason: found.to_string(),
    })
}

/// Opens what host.yaml describes, in the slot that the kernel was started from.
pub fn device(slots: &Slots, root: &Path, now: &str) -> Result<Device, SlotsError> {
    let line = std::fs::read_to_string("/proc/cmdline").map_err(SlotsError::CommandLine)?;
    let running = booted(&line, &slots.running)?;
    let boot = boot(&slots.boot, root)?;
    Ok(Device::open(root.to_owned(), boot, running, slots.tries, now)?)
}

fn boot(boot: &Boot, root: &Path) -> Result<Box<dyn BootControl + Send>, SlotsError> {
    let open = |path: &String| {
        let file = File::options().read(true).write(true).open(path);
        file.map_err(|cause| SlotsError::Open {
            path: path.clone(),
            cause,
        })
    };
    Ok(match boot {
        Boot::Blocks {
            device,
            first,
            second,
        } => Box::new(BootBlocks::new(open(device)?, *first, *second)?),
        Boot::Uboot {
            device,
            first,
            second,
            size,
        } => {
            let size = usize::try_from(*size).unwrap_or(usize::MAX);
            Box::new(UbootEnvironment::new(open(device)?, *first, *second, size)?)
        }
        Boot::SystemdBoot { entries } => Box::new(SystemdBoot::new(entries.into())),
        Boot::Command(words) => Box::new(BootCommand::new(words.clone(), root.to_owned())),
    })
}

/// The device of a slot.
pub fn path_of(slots: &Slots, slot: Slot) -> &str {
    match slot {
        Slot::A => &slots.a,
        Slot::B => &slots.b,
    }
}

/// A slot and its bytes.
pub fn open_slot(path: &str, writes: bool) -> io::Result<(File, u64)> {
    let mut file = match writes {
        true => kakoi_sys::system::open_exclusive(Path::new(path))?,
        false => File::open(path)?,
    };
    let bytes = file.seek(SeekFrom::End(0))?;
    Ok((file, bytes))
}

/// Runs what starts the device anew; it comes back before that happens.
pub fn run(words: &[String]) -> Result<(), String> {
    let (program, arguments) = words.split_first().ok_or("is not set")?;
    let ended = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("ended with {status}")),
        Err(cause) => Err(format!("does not run: {cause}")),
    }
}
