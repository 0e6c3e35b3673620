//! What is to be done: from items and the journal to steps, in an order.
//!
//! Pure. Invariants: the packet filter comes first, so that nothing stands open while the rest is done; what only a new start undoes comes last, and not
//! at all while it is a trial.

use kakoi_policy::host::lockdown::Section;

use super::item::{Item, Knob, Undo, Verdict};
use super::journal::Former;

/// One thing to turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The item that asks for it; of what goes back, the knob's own name.
    pub item: String,
    /// What.
    pub knob: Knob,
    /// How it stands.
    pub from: String,
    /// How it will.
    pub to: String,
    /// When it can be turned back.
    pub undo: Undo,
    /// Whether it puts back what stood before Kakoi.
    pub is_return: bool,
}

/// Why a plan is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It is to hold.
    Keep,
    /// It is to hold for a while, and must be undone by then.
    Try,
}

fn rank(step: &Step) -> u8 {
    match (&step.knob, step.undo, step.is_return) {
        (Knob::Ports, _, false) => 0,
        (_, Undo::Restart, _) => 3,
        // Who is connected by it hears of the rest; and the filter goes when everything else went back.
        (Knob::Link(_), _, false) | (Knob::Ports, _, true) => 2,
        _ => 1,
    }
}

/// Sections that a knob may belong to.
fn sections(knob: &Knob) -> &'static [Section] {
    match knob {
        Knob::File(path) if path.starts_with("sys/bus/usb") => &[Section::Usb],
        Knob::File(path) if path.starts_with("sys/class/rfkill") => &[Section::Radios],
        Knob::File(_) | Knob::Filesystem(_) => &[Section::Kernel],
        Knob::Link(_) => &[Section::Links],
        Knob::Unit(_) => &[Section::Services, Section::Consoles],
        Knob::Mount(_) => &[Section::Mounts],
        Knob::Medium(_) => &[Section::Media],
        Knob::Ports => &[Section::Ports],
    }
}

/// Whether an item still asks for it, or may, since a part of its section cannot be seen.
fn is_held(knob: &Knob, items: &[Item]) -> bool {
    items.iter().any(|item| match (&item.turn, knob) {
        (Some(turn), knob) if turn.knob == *knob => true,
        // One that is unmounted shows no place.
        (_, Knob::Filesystem(_)) => item.name.starts_with("kernel/debugfs"),
        (None, knob) => {
            item.verdict == Verdict::Unknown
                && item.section != Section::Kernel
                && sections(knob).contains(&item.section)
        }
        (Some(_), _) => false,
    })
}

/// The steps from how it stands to how it ought to.
pub fn steps(items: &[Item], former: &[Former], purpose: Purpose) -> Vec<Step> {
    let mut steps = Vec::new();
    for item in items.iter().filter(|item| item.verdict == Verdict::Drift) {
        let Some(turn) = &item.turn else { continue };
        // What was turned already and is not right yet needs time, or a person.
        let waits = purpose == Purpose::Try && turn.undo != Undo::Now;
        if waits || turn.from == turn.to {
            continue;
        }
        steps.push(Step {
            item: item.name.clone(),
            knob: turn.knob.clone(),
            from: turn.from.clone(),
            to: turn.to.clone(),
            undo: turn.undo,
            is_return: false,
        });
    }
    for former in former.iter().filter(|former| !is_held(&former.knob, items)) {
        steps.push(Step {
            item: spoken(&former.knob),
            knob: former.knob.clone(),
            from: former.set.clone(),
            to: former.value.clone(),
            undo: Undo::Now,
            is_return: true,
        });
    }
    steps.sort_by_key(rank);
    steps
}

/// What waits for a confirmation, since a trial could not undo it.
pub fn withheld(items: &[Item]) -> Vec<String> {
    let drifts = items.iter().filter(|item| item.verdict == Verdict::Drift);
    drifts
        .filter(|item| item.turn.as_ref().is_some_and(|turn| turn.undo != Undo::Now))
        .map(|item| item.name.clone())
        .collect()
}

/// A knob, for people.
pub fn spoken(knob: &Knob) -> String {
    match knob {
        Knob::File(path) => format!("/{path}"),
        Knob::Link(name) => format!("interface {name}"),
        Knob::Unit(name) => name.clone(),
        Knob::Mount(at) => format!("options of {at}"),
        Knob::Filesystem(at) | Knob::Medium(at) => format!("mount at {at}"),
        Knob::Ports => "packet filter".to_owned(),
    }
}
