//! All that a handler needs, in one place.

use std::sync::{Arc, Mutex, RwLock};

use kakoi_api::kakoi::CheckFinding;
use kakoi_image::ImageStore;
use kakoi_policy::kernel::KernelFacts;

use crate::audit::Audit;
use crate::config::{ConfigError, Paths, Settings, read_registries};
use crate::denials::Denials;
use crate::events::Events;
use crate::exec::Execs;
use crate::ids::IdPool;
use crate::life::Table;
use crate::lockdown::Lockdown;
use crate::networks::Networks;
use crate::os::Os;
use crate::policy::{Most, Shelf};
use crate::secrets::Secrets;
use crate::shim::Program;
use crate::state::Store;
use crate::supervise::Apps;
use crate::trust::Gate;
use crate::volumes::Volumes;

/// The daemon's state.
pub struct Engine {
    /// Where everything lies.
    pub paths: Paths,
    /// The owner's settings.
    pub settings: Settings,
    /// The shim, as it was when this daemon started.
    pub shim: Program,
    /// What the kernel can enforce.
    pub facts: KernelFacts,
    /// Records.
    pub store: Store,
    /// Images.
    pub images: Arc<ImageStore>,
    /// What the owner trusts.
    pub trust: Gate,
    /// Containers.
    pub containers: Table,
    /// Apps.
    pub apps: Apps,
    /// The slots of the operating system, and the watchdog.
    pub os: Os,
    /// What of the device is open.
    pub lockdown: Lockdown,
    /// Volumes.
    pub volumes: Volumes,
    /// Secrets.
    pub secrets: Secrets,
    /// Networks.
    pub networks: Arc<Networks>,
    /// Further processes.
    pub execs: Execs,
    /// Ranges of host ids.
    pub ids: IdPool,
    /// What happened.
    pub events: Events,
    /// What was decided.
    pub audit: Audit,
    /// What containers were refused.
    pub denials: Denials,
    /// Damage that was healed at the start; told once by the next check.
    pub opening: Mutex<Vec<CheckFinding>>,
    /// Policies and ceiling.
    pub shelf: RwLock<Arc<Shelf>>,
    /// The most that containers could be given when this daemon started; the rest it holds no more.
    pub most: Most,
    /// A stable id of this engine.
    pub id: String,
    /// Held while an image becomes a container's, and while images go: neither may happen in the middle of the other.
    pub image_turn: tokio::sync::RwLock<()>,
}

impl Engine {
    /// Policies and ceiling as they are now.
    pub fn shelf(&self) -> Arc<Shelf> {
        self.shelf.read().expect("no panic while locked").clone()
    }

    /// Reads policies and ceiling anew; on an error those before stay in force. A ceiling that allows what this daemon has given up is an error:
    /// containers would be let through and then fail at their start.
    pub fn reload(&self) -> Result<(), ConfigError> {
        let shelf = Shelf::read(&self.paths.config, &self.settings)?;
        let more = shelf.most().names_beyond(self.most);
        if !more.is_empty() {
            return Err(ConfigError::GivenUp {
                what: more.join(", "),
            });
        }
        *self.shelf.write().expect("no panic while locked") = Arc::new(shelf);
        Ok(())
    }

    /// Tells the image store where short names are looked for. A file that cannot be read leaves it as it was; whoever pulls says why.
    pub fn search_images(&self) {
        match read_registries(&self.paths.config) {
            Ok(registries) => self.images.search_in(&registries.search),
            Err(error) => tracing::warn!(%error, "ignoring registries.yaml for names of images"),
        }
    }
}
