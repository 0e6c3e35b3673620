//! How it stands, on the wire.

use kakoi_api::host::{HostItem, HostStatus, HostStep};
use kakoi_host::lockdown::{Item, Keeper, Knob, Outcome, Phase, Step};
use kakoi_policy::host::Lockdown;

use crate::engine::Engine;

/// Everything, by the declaration `by`.
pub fn status(
    engine: &Engine,
    keeper: &Keeper,
    written: Option<&Lockdown>,
    by: Option<&Lockdown>,
) -> HostStatus {
    let journal = keeper.journal();
    let mut status = HostStatus {
        phase: phase(&journal.phase).to_owned(),
        trial_left_ms: keeper
            .trial_left_ms()
            .map_or(0, |left| i64::try_from(left).unwrap_or(i64::MAX)),
        is_declared: written.is_some(),
        is_applied: written.is_some() && written == journal.declared.as_ref(),
        trouble: engine.lockdown.inner().trouble.clone(),
        ..HostStatus::default()
    };
    if let Some(by) = by {
        let plan = keeper.plan(by);
        status.corrects = by.corrects;
        status.items = plan.items.iter().map(|one| item(one, by)).collect();
        status.steps = plan.steps.iter().map(step).collect();
        status.withheld = plan.withheld;
    }
    status
}

fn phase(phase: &Phase) -> &'static str {
    match phase {
        Phase::Off => "off",
        Phase::Trial { .. } => "trial",
        Phase::On => "on",
        Phase::Release => "release",
    }
}

fn item(item: &Item, by: &Lockdown) -> HostItem {
    HostItem {
        name: item.name.clone(),
        declared: item.declared.clone(),
        actual: item.actual.clone(),
        verdict: item.verdict.word().to_owned(),
        how: item.how.clone(),
        breaks: item.breaks.clone(),
        undo: item.turn.as_ref().map_or("", |turn| turn.undo.word()).to_owned(),
        corrects: by.corrects && item.turn.is_some() && !by.report_only.contains(&item.section),
    }
}

fn step(step: &Step) -> HostStep {
    let what = match &step.knob {
        Knob::File(path) => format!("/{path}"),
        Knob::Link(name) => format!("interface {name}"),
        Knob::Unit(name) => format!("unit {name}"),
        Knob::Mount(at) => format!("options of {at}"),
        Knob::Filesystem(at) | Knob::Medium(at) => format!("mount at {at}"),
        Knob::Ports => "packet filter".to_owned(),
    };
    HostStep {
        item: step.item.clone(),
        what,
        from: step.from.clone(),
        to: step.to.clone(),
        undo: step.undo.word().to_owned(),
        is_return: step.is_return,
        error: String::new(),
    }
}

/// A step that was tried.
pub fn outcome(outcome: &Outcome) -> HostStep {
    HostStep {
        error: outcome.error.clone().unwrap_or_default(),
        ..step(&outcome.step)
    }
}
