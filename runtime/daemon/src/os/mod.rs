//! The operating system of a device with two slots: how another image comes into the slot that does not run, and how it is kept or left.
//!
//! | file | owns |
//! |---|---|
//! | `settings.rs` | `<config>/host.yaml`, and what it makes of devices and boot control |
//! | `install.rs` | from a name or a file to a slot that is written, verified and armed |
//! | `source.rs` | where the blocks come from |
//! | `watch.rs` | whether the device is well: commits, gives up, feeds the watchdog |
//! | `view.rs` | how it stands, on the wire |
//!
//! Owns the one [`Device`] of `kakoi-host` and the turn to change it. What is trusted is `trust`'s to say, whether apps are well `supervise`'s. Invariants:
//! nothing is written before board, version, size and signatures were judged; one write at a time; what can wait for a disk or a program never
//! does so on the runtime's thread.

mod install;
pub(crate) mod settings;
mod source;
mod view;
mod watch;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use kakoi_host::slots::{Device, DeviceError, Moved, Reason, State};
use kakoi_image::registry::Cancel;
use kakoi_policy::host::{Host, Slots};
use kakoi_trust::{Digest, Release, Version};

use crate::clock;
use crate::config::{ConfigError, Paths};
use crate::engine::Engine;
use crate::refusal::{Answer, Refusal, chain};

pub use install::{From, Wanted, install};
pub use view::{history, status};
pub use watch::begin;

/// The operating system's slots, and the watchdog.
pub struct Os {
    host: Host,
    root: PathBuf,
    /// Held while a disk or a boot loader's program is waited for: never on the runtime's thread.
    device: Mutex<Option<Device>>,
    inner: Mutex<Inner>,
    /// One write at a time; who finds it taken is refused.
    writing: AtomicBool,
}

#[derive(Default)]
struct Inner {
    is_on_trial: bool,
    /// What is wrong with the slots, or was with the last write.
    trouble: String,
    work: Option<Work>,
    /// On trial: what is not well yet.
    waits_for: Vec<String>,
    watchdog: String,
}

/// A write that is under way.
struct Work {
    moved: Moved,
    total: u64,
    called_off: Arc<AtomicBool>,
    cancel: Option<Arc<Cancel>>,
}

impl Os {
    /// Reads host.yaml; nothing of it is opened yet.
    pub fn read(paths: &Paths) -> Result<Self, ConfigError> {
        Ok(Self {
            host: settings::read(&paths.config)?,
            root: paths.root.clone(),
            device: Mutex::new(None),
            inner: Mutex::default(),
            writing: AtomicBool::new(false),
        })
    }

    /// Whether the device's interfaces are declared.
    pub fn declares_lockdown(&self) -> bool {
        self.host.lockdown.is_some()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic while locked")
    }

    /// What host.yaml says of slots.
    fn slots(&self) -> Answer<&Slots> {
        self.host.slots.as_ref().ok_or_else(|| {
            Refusal::conflict(
                "this device has no slots that Kakoi knows of: describe them in host.yaml (slots:)",
            )
        })
    }

    /// Opens the device, which tells the boot loader what it was not told yet. May wait for a disk or a program.
    fn open(&self) -> Answer<()> {
        let slots = self.slots()?;
        let opened = settings::device(slots, &self.root, &clock::now());
        match opened {
            Ok(device) => {
                self.inner().is_on_trial = device.is_on_trial();
                *self.device() = Some(device);
                self.set_trouble("");
                Ok(())
            }
            Err(error) => {
                let said = chain(&error);
                self.set_trouble(&said);
                Err(Refusal::failed(said, error))
            }
        }
    }

    fn device(&self) -> MutexGuard<'_, Option<Device>> {
        self.device.lock().expect("no panic while locked")
    }

    /// Does something with the device. May wait for a disk or a program.
    fn with<T>(&self, act: impl FnOnce(&mut Device) -> Result<T, DeviceError>) -> Answer<T> {
        self.slots()?;
        let mut held = self.device();
        let Some(device) = held.as_mut() else {
            let trouble = match self.inner().trouble.clone() {
                trouble if trouble.is_empty() => "they are being looked at".to_owned(),
                trouble => trouble,
            };
            return Err(Refusal::unavailable(format!(
                "the slots cannot be used: {trouble}"
            )));
        };
        let done = act(device);
        self.inner().is_on_trial = device.is_on_trial();
        done.map_err(device_refusal)
    }

    fn set_trouble(&self, trouble: impl Into<String>) {
        self.inner().trouble = trouble.into();
    }
}

fn device_refusal(error: DeviceError) -> Refusal {
    match error {
        DeviceError::Refused(_) | DeviceError::Blocked { .. } | DeviceError::NothingBefore(_) => {
            Refusal::conflict(error.to_string())
        }
        DeviceError::Record(_) | DeviceError::Control(_) => Refusal::failed(chain(&error), error),
    }
}

/// Makes the slot that runs the good one, whatever the apps say. What it is, is the floor from now on.
pub fn commit(engine: &Engine) -> Answer<()> {
    engine.os.with(|device| device.commit(&clock::now()))?;
    tracing::info!("the operating system was committed");
    raise_floors(engine)
}

/// Gives up what is under way, or goes back to what ran before the image that was committed.
pub fn rollback(engine: &Engine, restart: bool) -> Answer<()> {
    let os = &engine.os;
    {
        let inner = os.inner();
        if let Some(work) = &inner.work {
            // Whoever writes gives it up.
            work.called_off.store(true, Ordering::Relaxed);
            if let Some(cancel) = &work.cancel {
                cancel.set();
            }
            return Ok(());
        }
    }
    os.with(|device| match &device.record().state {
        State::Committed(_) => device.go_back(restart, &clock::now()),
        _ => device.give_up(Reason::Owner, &clock::now()),
    })?;
    restart_if_due(engine);
    Ok(())
}

/// What was committed bounds what may come: in the device's own record, and as a release among those that trust.yaml asks about.
fn raise_floors(engine: &Engine) -> Answer<()> {
    let held = engine.os.with(|device| {
        let record = device.record();
        let State::Committed(upgrade) = &record.state else {
            return Ok(None);
        };
        let held = record.slots.of(upgrade.into).cloned();
        Ok(held.map(|held| (held, record.floor.clone())))
    })?;
    let Some((held, floor)) = held else { return Ok(()) };
    let version = |text: &str| Version::parse(text).ok();
    let is_higher = match (version(&held.version), floor.as_deref().and_then(version)) {
        (Some(new), Some(floor)) => new > floor,
        (Some(_), None) => true,
        (None, _) => false,
    };
    if is_higher {
        engine.os.with(|device| device.raise_floor(&held.version))?;
    }
    if let Some((name, said)) = held.release
        && let (Some(version), Ok(digest)) = (version(&said), Digest::parse(&held.image))
    {
        engine.trust.commit(&Release {
            name,
            version,
            digest,
        })?;
    }
    Ok(())
}

/// Starts the device anew where that was promised, once.
fn restart_if_due(engine: &Engine) {
    match engine.os.with(Device::takes_restart) {
        Ok(true) => {
            let words = engine
                .os
                .slots()
                .map(|slots| slots.restart.clone())
                .unwrap_or_default();
            tracing::warn!(command = words.join(" "), "starting the device anew");
            if let Err(why) = settings::run(&words) {
                let said = format!("the device cannot be started anew: {} {why}", words.join(" "));
                tracing::error!("{said}");
                engine.os.set_trouble(said);
            }
        }
        Ok(false) => {}
        Err(refusal) => tracing::error!(
            error = chain(&refusal),
            "whether the device is to start anew is not known"
        ),
    }
}
