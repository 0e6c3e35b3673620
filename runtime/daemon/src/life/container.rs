//! One container in the daemon's memory.

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use kakoi_api::container::Health;
use tokio::sync::{MutexGuard as TurnGuard, watch};
use tokio::task::AbortHandle;

use super::freeze::Freeze;
use crate::state::Record;

/// Where a container stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Never ran.
    Created,
    /// Its first process runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// It ended and waits to be started again.
    Restarting,
    /// It ended.
    Exited,
    /// Its files are being removed.
    Removing,
    /// Removing it failed.
    Dead,
}

impl Phase {
    /// Docker's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Removing => "removing",
            Self::Dead => "dead",
        }
    }

    /// Whether its first process exists.
    pub fn is_up(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

/// What those who wait look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// Whether its first process exists, or a start is under way.
    pub up: bool,
    /// Whether it waits to be started again.
    pub restarting: bool,
    /// How often it ended in this daemon's time.
    pub ends: u64,
    /// Exit code of the last end.
    pub exit_code: i32,
    /// Whether its shim may still hold mounts and files.
    pub shim: bool,
    /// Whether it is no more.
    pub gone: bool,
    /// Why removing it failed.
    pub trouble: String,
}

/// The parts that change.
#[derive(Debug)]
pub struct Shared {
    /// What is kept.
    pub record: Record,
    /// Where it stands.
    pub phase: Phase,
    /// The commits that keep it frozen; `None` where nobody does, or a person.
    pub freeze: Option<Freeze>,
    /// Its first process's id on the host; 0 when it is down.
    pub pid: i32,
    /// The control socket of the next run, made when a client attaches before it.
    pub listener: Option<UnixListener>,
    /// Health, where it is tested.
    pub health: Option<Health>,
    /// The task that tests health.
    pub health_task: Option<AbortHandle>,
    /// The task that starts it again.
    pub restart_task: Option<AbortHandle>,
    /// The last wait before a restart.
    pub last_wait: Duration,
    /// Why it is held back, as this daemon has told; empty where it has not.
    pub held_for: String,
    /// Exec instances by id.
    pub execs: Vec<String>,
}

/// A container.
#[derive(Debug)]
pub struct Container {
    /// 64 lower-case hex digits.
    pub id: String,
    shared: Mutex<Shared>,
    turn: tokio::sync::Mutex<()>,
    pulse: watch::Sender<Pulse>,
}

impl Container {
    /// A container that is down.
    pub fn new(record: Record, phase: Phase) -> Self {
        let pulse = Pulse {
            exit_code: record.life.exit_code,
            ..Pulse::default()
        };
        Self {
            id: record.id.clone(),
            shared: Mutex::new(Shared {
                record,
                phase,
                freeze: None,
                pid: 0,
                listener: None,
                health: None,
                health_task: None,
                restart_task: None,
                last_wait: Duration::ZERO,
                held_for: String::new(),
                execs: Vec::new(),
            }),
            turn: tokio::sync::Mutex::new(()),
            pulse: watch::Sender::new(pulse),
        }
    }

    /// The parts that change. Never held across an await.
    pub fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("no panic while locked")
    }

    /// The right to move it from state to state.
    pub async fn turn(&self) -> TurnGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Changes what those who wait look at.
    pub fn publish(&self, change: impl FnOnce(&mut Pulse)) {
        self.pulse.send_modify(change);
    }

    /// What those who wait look at.
    pub fn pulse(&self) -> watch::Receiver<Pulse> {
        self.pulse.subscribe()
    }

    /// Waits until `test` holds.
    pub async fn until(&self, test: impl FnMut(&Pulse) -> bool) -> Pulse {
        let mut pulse = self.pulse.subscribe();
        let seen = pulse.wait_for(test).await.expect("the container owns the sender");
        seen.clone()
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.shared().record.name.clone()
    }

    /// Attributes of its events: image, name and labels, as Docker has them.
    pub fn attributes(&self) -> BTreeMap<String, String> {
        let shared = self.shared();
        let mut attributes = shared.record.config.labels.clone();
        attributes.insert("image".into(), shared.record.config.image.clone());
        attributes.insert("name".into(), shared.record.name.clone());
        attributes
    }
}
