//! How it stands, on the wire.

use kakoi_api::os::{OsBlocked, OsEvent, OsHeld, OsProgress, OsStatus};
use kakoi_host::slots::{Act, Held, Moved, Record, State, due};

use super::Os;
use crate::refusal::Answer;

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn held(held: &Held) -> OsHeld {
    OsHeld {
        image: held.image.clone(),
        version: held.version.clone(),
        reference: held.reference.clone(),
    }
}

/// Bytes of a write.
pub fn progress(moved: &Moved, total: u64) -> OsProgress {
    OsProgress {
        total: count(total),
        kept: count(moved.kept),
        zeros: count(moved.zeros),
        copied: count(moved.copied),
        fetched: count(moved.fetched),
        moved: count(moved.fetched + moved.beside),
    }
}

fn of_record(record: &Record) -> OsStatus {
    let upgrade = record.state.upgrade();
    let known = upgrade.and_then(|upgrade| {
        let candidates = [record.coming.as_ref(), record.slots.of(upgrade.into)];
        candidates
            .into_iter()
            .flatten()
            .find(|held| held.image == upgrade.image)
    });
    let told = upgrade.and_then(|upgrade| {
        let mut entries = record.history.iter().rev();
        entries.find(|entry| entry.image == upgrade.image && !entry.version.is_empty())
    });
    OsStatus {
        slot_a: record.slots.a.as_ref().map(held),
        slot_b: record.slots.b.as_ref().map(held),
        phase: record.state.word().to_owned(),
        image: upgrade.map(|upgrade| upgrade.image.clone()).unwrap_or_default(),
        version: known
            .map(|held| held.version.clone())
            .or(told.map(|entry| entry.version.clone()))
            .unwrap_or_default(),
        reason: match &record.state {
            State::RolledBack(_, reason) => reason.to_string(),
            _ => String::new(),
        },
        floor: record.floor.clone().unwrap_or_default(),
        blocked: record
            .blocked
            .iter()
            .map(|blocked| OsBlocked {
                image: blocked.image.clone(),
                reason: blocked.reason.clone(),
                at: blocked.at.clone(),
            })
            .collect(),
        ..OsStatus::default()
    }
}

/// How it stands. May wait for a disk or a program.
pub fn status(os: &Os) -> Answer<OsStatus> {
    let slots = os.slots()?;
    let mut status = OsStatus::default();
    if let Some(device) = os.device().as_mut() {
        status = of_record(device.record());
        let running = device.running();
        running.word().clone_into(&mut status.running);
        match device.control() {
            Ok(control) => {
                control.good.word().clone_into(&mut status.good);
                if let Some(trial) = control.trial {
                    trial.slot.word().clone_into(&mut status.trying);
                    status.left = i64::from(trial.left);
                }
                status.needs_restart = due(&device.record().state, running, control) == Act::Restart;
            }
            Err(error) => status.trouble = error.to_string(),
        }
    }
    let inner = os.inner();
    status.board.clone_from(&slots.board);
    status.repository.clone_from(&slots.image);
    if !inner.trouble.is_empty() {
        status.trouble.clone_from(&inner.trouble);
    }
    status.progress = inner.work.as_ref().map(|work| progress(&work.moved, work.total));
    if status.phase == "trial" {
        status.waits_for.clone_from(&inner.waits_for);
    }
    status.watchdog.clone_from(&inner.watchdog);
    Ok(status)
}

/// What happened, the earliest first.
pub fn history(os: &Os) -> Answer<Vec<OsEvent>> {
    os.with(|device| {
        let entries = device.record().history.iter().map(|entry| OsEvent {
            at: entry.at.clone(),
            what: entry.what.clone(),
            image: entry.image.clone(),
            version: entry.version.clone(),
            reason: entry.reason.clone(),
        });
        Ok(entries.collect())
    })
}
