//! Apply, try, confirm, go back, release, and watch.
//!
//! Owns the journal. Invariants: a phase is on disk before its first step; whoever is killed between two steps leaves the rest to [`Keeper::begin`]; a
//! trial that nobody confirms ends, by whichever process lives then.

use std::path::PathBuf;
use std::time::Duration;

use kakoi_policy::host::Lockdown;

use super::act::{self, Hands};
use super::item::{Item, Knob, Undo, Verdict};
use super::journal::{self, Journal, JournalError, Phase};
use super::place::Place;
use super::plan::{self, Purpose, Step};

/// The longest trial: longer is no trial.
const TRIAL_MAX: Duration = Duration::from_secs(24 * 3600);

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum LockdownError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The start of the device cannot be told from others.
    #[error("a trial needs /proc/uptime and /proc/sys/kernel/random/boot_id")]
    NoClock,
    /// A trial beyond the most.
    #[error("a trial lasts from a second to a day")]
    TooLong,
    /// There is nothing to confirm.
    #[error("no trial is under way")]
    NoTrial,
    /// There is nothing to release.
    #[error("nothing is enforced")]
    NotEnforced,
    /// The test's own cut.
    #[cfg(test)]
    #[error("killed")]
    Killed,
}

/// One step that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Which.
    pub step: Step,
    /// Why it failed, where it did.
    pub error: Option<String>,
}

/// How it stands, and what would be done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Everything that is declared, compared.
    pub items: Vec<Item>,
    /// What would be turned, in order.
    pub steps: Vec<Step>,
    /// What a trial leaves to the confirmation.
    pub withheld: Vec<String>,
}

/// The lockdown of one device.
pub struct Keeper {
    place: Place,
    folder: PathBuf,
    hands: Box<dyn Hands>,
    own_group: u32,
    journal: Journal,
    /// Steps until a test's cut.
    #[cfg(test)]
    pub(super) steps_left: Option<usize>,
}

impl Keeper {
    /// Reads the journal in `folder`; turns nothing. Interfaces of `own_group` are Kakoi's own.
    pub fn open(
        place: Place,
        folder: PathBuf,
        hands: Box<dyn Hands>,
        own_group: u32,
    ) -> Result<Self, JournalError> {
        Ok(Self {
            journal: journal::read(&folder)?,
            place,
            folder,
            hands,
            own_group,
            #[cfg(test)]
            steps_left: None,
        })
    }

    /// What is remembered.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Milliseconds until a trial ends; `None` where none is under way.
    pub fn trial_left_ms(&self) -> Option<u64> {
        let Phase::Trial { boot, until_ms } = &self.journal.phase else {
            return None;
        };
        let is_this_start = self.boot().as_ref() == Some(boot);
        let now = self.now_ms().filter(|_| is_this_start);
        Some(now.map_or(0, |now| until_ms.saturating_sub(now)))
    }

    /// How everything stands by a declaration, and what would be done.
    pub fn plan(&self, declared: &Lockdown) -> Plan {
        let items = super::judge(declared, &self.place, &*self.hands, self.own_group);
        Plan {
            steps: plan::steps(&items, &self.journal.former, Purpose::Keep),
            withheld: plan::withheld(&items),
            items,
        }
    }

    /// Has a declaration hold, for good or until the end of a trial.
    pub fn apply(
        &mut self,
        declared: &Lockdown,
        trial: Option<Duration>,
    ) -> Result<Vec<Outcome>, LockdownError> {
        let phase = match trial {
            None => Phase::On,
            Some(trial) if trial.is_zero() || trial > TRIAL_MAX => return Err(LockdownError::TooLong),
            Some(trial) => self.trial(trial)?,
        };
        let held = self.journal.declared.take();
        self.journal.before = match (&self.journal.phase, trial) {
            (_, None) => None,
            // What was tried before was never confirmed: the way back is the same.
            (Phase::Trial { .. }, Some(_)) => self.journal.before.take(),
            (Phase::On, Some(_)) => held,
            (Phase::Off | Phase::Release, Some(_)) => None,
        };
        if matches!(self.journal.phase, Phase::Off) {
            self.remember_closed(declared);
        }
        self.journal.phase = phase;
        self.journal.declared = Some(declared.clone());
        self.commit()?;
        self.enforce(|_| true)
    }

    /// Keeps what is on trial.
    pub fn confirm(&mut self) -> Result<Vec<Outcome>, LockdownError> {
        match self.trial_left_ms() {
            None | Some(0) => return Err(LockdownError::NoTrial),
            Some(_) => {}
        }
        self.journal.phase = Phase::On;
        self.journal.before = None;
        self.commit()?;
        self.enforce(|_| true)
    }

    /// Puts everything back.
    pub fn release(&mut self) -> Result<Vec<Outcome>, LockdownError> {
        if self.journal.phase == Phase::Off {
            return Err(LockdownError::NotEnforced);
        }
        self.journal.phase = Phase::Release;
        self.journal.declared = None;
        self.journal.before = None;
        self.commit()?;
        self.complete_release()
    }

    /// Takes up what a process before left: completes, or undoes what nobody confirmed.
    pub fn begin(&mut self) -> Result<Vec<Outcome>, LockdownError> {
        self.round(true)
    }

    /// Looks at everything, ends a trial that is over, and corrects what drifted where that is declared.
    pub fn look(&mut self) -> Result<Vec<Outcome>, LockdownError> {
        self.round(false)
    }

    /// What apps publish is other than it was: the packet filter hears of it, whatever is corrected otherwise.
    pub fn ports_changed(&self) -> std::io::Result<()> {
        match (&self.journal.phase, &self.journal.declared) {
            (Phase::Trial { .. } | Phase::On, Some(declared)) if declared.ports.only().is_some() => {
                self.hands.set_ports(Some(declared))
            }
            _ => Ok(()),
        }
    }

    fn round(&mut self, all: bool) -> Result<Vec<Outcome>, LockdownError> {
        match self.journal.phase {
            Phase::Off => Ok(Vec::new()),
            Phase::Release => self.complete_release(),
            Phase::Trial { .. } if self.trial_left_ms() == Some(0) => self.go_back(),
            Phase::Trial { .. } | Phase::On => self.enforce(|item| all || is_corrected(item)),
        }
    }

    /// Nobody confirmed.
    fn go_back(&mut self) -> Result<Vec<Outcome>, LockdownError> {
        let before = self.journal.before.take();
        self.journal.phase = match before {
            Some(_) => Phase::On,
            None => Phase::Release,
        };
        self.journal.declared = before;
        self.commit()?;
        match self.journal.phase {
            Phase::Release => self.complete_release(),
            _ => self.enforce(|_| true),
        }
    }

    fn complete_release(&mut self) -> Result<Vec<Outcome>, LockdownError> {
        let mut steps = plan::steps(&[], &self.journal.former, Purpose::Keep);
        let waiting = self.waiting();
        steps.extend(waiting);
        let former = self.journal.former.clone();
        let outcomes = self.perform(steps, None)?;
        if outcomes.iter().all(|outcome| outcome.error.is_none()) {
            self.journal = Journal::new();
        } else {
            // Each tells of its neighbours who closed them: all of it again.
            self.journal.former = former;
        }
        self.commit()?;
        Ok(outcomes)
    }

    /// Devices that were plugged in meanwhile wait for nobody any more, where their bus lets them in by itself again.
    fn waiting(&self) -> Vec<Step> {
        const USB: &str = "sys/bus/usb/devices";
        let formerly = |knob: &Knob| {
            let former = self.journal.former.iter().find(|former| former.knob == *knob);
            former.map(|former| former.value.clone())
        };
        let names = self.place.names(USB);
        let devices = names
            .iter()
            .filter(|name| !name.contains(':') && !name.starts_with("usb"));
        let steps = devices.filter_map(|name| {
            let bus = format!("{USB}/usb{}/authorized_default", name.split('-').next()?);
            let lets_in = formerly(&Knob::File(bus.clone())).or_else(|| self.place.word(&bus))? != "0";
            let file = format!("{USB}/{name}/authorized");
            let waits = self.place.word(&file)? == "0";
            let knob = Knob::File(file);
            (lets_in && waits && formerly(&knob).is_none()).then(|| Step {
                item: plan::spoken(&knob),
                knob,
                from: "0".to_owned(),
                to: "1".to_owned(),
                undo: Undo::Now,
                is_return: true,
            })
        });
        steps.collect()
    }

    /// What somebody else had closed before Kakoi stays closed when it lets go.
    fn remember_closed(&mut self, declared: &Lockdown) {
        let items = super::judge(declared, &self.place, &*self.hands, self.own_group);
        for turn in items.iter().filter_map(|item| item.turn.as_ref()) {
            if turn.from == "0" && is_usb_device(&turn.knob) {
                self.journal.remember(&turn.knob, "0", &turn.to);
            }
        }
    }

    fn enforce(
        &mut self,
        is_allowed: impl Fn((&Item, &Lockdown)) -> bool,
    ) -> Result<Vec<Outcome>, LockdownError> {
        let Some(declared) = self.journal.declared.clone() else {
            return Ok(Vec::new());
        };
        let purpose = match self.journal.phase {
            Phase::Trial { .. } => Purpose::Try,
            _ => Purpose::Keep,
        };
        let items = super::judge(&declared, &self.place, &*self.hands, self.own_group);
        let mut steps = plan::steps(&items, &self.journal.former, purpose);
        steps.retain(|step| {
            let item = items.iter().find(|item| item.name == step.item);
            item.is_none_or(|item| is_allowed((item, &declared)))
        });
        let mut is_new = false;
        for step in &steps {
            // A device that is let in was closed by Kakoi's own default: nothing stood before that.
            let is_let_in = is_usb_device(&step.knob) && step.to == "1";
            if !step.is_return && step.undo == Undo::Now && !is_let_in {
                is_new |= self.journal.remember(&step.knob, &step.from, &step.to);
            }
        }
        if is_new {
            self.commit()?;
        }
        self.perform(steps, Some(&declared))
    }

    fn perform(
        &mut self,
        steps: Vec<Step>,
        declared: Option<&Lockdown>,
    ) -> Result<Vec<Outcome>, LockdownError> {
        let mut outcomes = Vec::new();
        let mut is_changed = false;
        for step in steps {
            #[cfg(test)]
            match &mut self.steps_left {
                Some(0) => return Err(LockdownError::Killed),
                Some(left) => *left -= 1,
                None => {}
            }
            let done = act::turn(&self.place, &*self.hands, declared, &step);
            if done.is_ok() && step.is_return {
                self.journal.former.retain(|former| former.knob != step.knob);
                is_changed = true;
            }
            outcomes.push(Outcome {
                step,
                error: done.err().map(|error| error.to_string()),
            });
        }
        if is_changed {
            self.commit()?;
        }
        Ok(outcomes)
    }

    fn commit(&self) -> Result<(), JournalError> {
        journal::commit(&self.folder, &self.journal)
    }

    fn trial(&self, trial: Duration) -> Result<Phase, LockdownError> {
        let (Some(boot), Some(now)) = (self.boot(), self.now_ms()) else {
            return Err(LockdownError::NoClock);
        };
        let until_ms = now + u64::try_from(trial.as_millis()).unwrap_or(u64::MAX);
        Ok(Phase::Trial { boot, until_ms })
    }

    /// Which start of the device it is.
    fn boot(&self) -> Option<String> {
        self.place.word("proc/sys/kernel/random/boot_id")
    }

    /// Milliseconds since it. Source: proc_uptime(5); suspension counts.
    fn now_ms(&self) -> Option<u64> {
        let text = self.place.word("proc/uptime")?;
        let (seconds, rest) = text.split_ascii_whitespace().next()?.split_once('.')?;
        let hundredths: u64 = rest.get(..2)?.parse().ok()?;
        Some(seconds.parse::<u64>().ok()? * 1000 + hundredths * 10)
    }
}

fn is_usb_device(knob: &Knob) -> bool {
    matches!(knob, Knob::File(path) if path.starts_with("sys/bus/usb") && path.ends_with("/authorized"))
}

/// Whether drift of an item is corrected, and not only told.
fn is_corrected((item, declared): (&Item, &Lockdown)) -> bool {
    debug_assert_eq!(item.verdict, Verdict::Drift);
    declared.corrects && !declared.report_only.contains(&item.section)
}
