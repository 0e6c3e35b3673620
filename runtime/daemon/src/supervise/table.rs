//! What an app does next: a table over its state and what happened, and nothing else.
//!
//! Pure: no clock, no disk, no container. Owns [`State`], which is the whole of what is remembered of an app; whoever acts writes it before the act.
//!
//! ```text
//!          apply            fetched           verified          staged           switched         healthy        done
//!  steady ───────► fetch ───────────► verify ───────────► stage ────────► switch ────────► trial ────────► commit ────► steady
//!                    │ failed            │ failed           │ failed        ▲ │  failed        │ failed
//!                    ▼ (3 times)         ▼                  ▼               └─┼────────────────┤ while attempts are left
//!                    └───────────────────┴──────────────────┴── rollback ◄────┴────────────────┘ else: blocked
//!                                                                  │ done
//!                                                                  ▼ steady, what worked before runs
//! ```
//!
//! Invariants: the generation never falls (`floor`); what failed its trial is in `blocked`; `current` is what runs, or ran last, when all is
//! steady; there is a candidate from `fetch` to `trial` and in `rollback` alone.

use serde::{Deserialize, Serialize};

/// How often an image is fetched before that is given up; each attempt is several of the registry's client.
pub const FETCH_ATTEMPTS: u64 = 3;
/// How often the return to what worked is tried in one go; each later start of the daemon tries anew.
pub const RETURN_ATTEMPTS: u64 = 5;
/// How often a trial goes on under another daemon before that counts as an attempt.
pub const RESUMES_MAX: u64 = 3;
/// Events that are remembered of one app.
pub const HISTORY_MAX: usize = 64;
/// Versions that are remembered as blocked; the oldest is forgotten.
const BLOCKED_MAX: usize = 32;
/// Characters of a reason: what an app printed may be in it.
const REASON_CHARS_MAX: usize = 1024;

/// Where an app stands: what is being done, or begins to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing is to be done.
    Steady,
    /// The image is looked for, and pulled where it is not here.
    Fetch,
    /// Trust, policy and ceiling are asked.
    Verify,
    /// The container is made.
    Stage,
    /// What ran is stopped, and the candidate started.
    Switch,
    /// The candidate is watched.
    Trial,
    /// The candidate is what counts now; what ran before is kept, down.
    Commit,
    /// What worked before comes back, and the candidate goes.
    Rollback,
    /// Everything of the app goes.
    Remove,
}

impl Phase {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Fetch => "fetch",
            Self::Verify => "verify",
            Self::Stage => "stage",
            Self::Switch => "switch",
            Self::Trial => "trial",
            Self::Commit => "commit",
            Self::Rollback => "rollback",
            Self::Remove => "remove",
        }
    }
}

/// One of the two places of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Its letter.
    pub fn word(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

/// A version of an app: its document, the image that the name in it led to, and its slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The document's generation.
    pub generation: u64,
    /// The document, as it was given.
    pub document: String,
    /// SHA-256 over what it says, its generation left out.
    pub digest: String,
    /// Id of the image; empty before it is known.
    pub image_id: String,
    /// Where its container is.
    pub slot: Slot,
    /// How often it is started before it has failed.
    pub attempts_max: u64,
    /// Whether a person asked for it in place of what ran.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_hand: bool,
}

/// A version that is not tried again by itself: this image with this document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blocked {
    /// The document's digest.
    pub digest: String,
    /// Id of the image.
    pub image_id: String,
    /// The generation under which it failed.
    pub generation: u64,
    /// Why.
    pub reason: String,
    /// When, RFC 3339.
    pub at: String,
}

/// Something that happened, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Happened {
    /// When, RFC 3339.
    pub at: String,
    /// `applied`, `committed`, `retried`, `rolled back`, `gave up`, `unblocked`, `pinned`, `unpinned`, `trouble`.
    pub what: String,
    /// The generation that it is about.
    pub generation: u64,
    /// Why, where something failed.
    pub reason: String,
}

/// All that is remembered of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Where it stands.
    pub phase: Phase,
    /// The highest generation that was taken, and the digest of its document: nothing below it is taken.
    pub floor: u64,
    /// That digest.
    pub floor_digest: String,
    /// What runs, or ran before the update that is under way.
    pub current: Option<Release>,
    /// What is being tried.
    pub candidate: Option<Release>,
    /// What worked before `current`, kept and down; while a candidate is in its slot, and after that failed, its document and image alone, of which
    /// its container is made anew.
    pub previous: Option<Release>,
    /// Attempts at the phase, from 1; over switch and trial together.
    pub attempt: u64,
    /// Why the last update did not come to be; empty where it did.
    pub failure: String,
    /// What is wrong with what should run; empty where nothing is.
    pub trouble: String,
    /// What is not tried again by itself.
    pub blocked: Vec<Blocked>,
    /// What happened, the oldest first.
    pub history: Vec<Happened>,
    /// How often a trial was taken up again by another daemon, the candidate having run on.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub resumed: u64,
    /// Why the owner wants no other version than the one that runs; `None` where he takes what comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<String>,
    /// Whether its removal is to let go of its floor too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forgets: bool,
    /// When the phase began, RFC 3339.
    pub since: String,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The owner wants a version; `slot` and `by_hand` of it are not looked at.
    Apply(Box<Release>),
    /// The image is here.
    Fetched {
        /// Its id.
        image_id: String,
    },
    /// It may run.
    Verified,
    /// Its container is made.
    Staged,
    /// It was started.
    Switched,
    /// It stood its trial.
    Healthy,
    /// The phase's work is done.
    Done,
    /// The phase's work failed.
    Failed {
        /// Why.
        reason: String,
        /// Whether it may go well another time.
        again: bool,
    },
    /// A daemon takes over from one that was killed or whose device lost its power.
    Restarted,
    /// The same, and what was being tried ran on.
    Resumed,
    /// The owner wants what worked before.
    Rollback,
    /// The owner lets what is blocked be tried again.
    Unblock,
    /// The owner wants no other version until he says so.
    Pin {
        /// Why; may be empty.
        reason: String,
    },
    /// He does no more.
    Unpin,
    /// The owner wants the app to be gone.
    Remove {
        /// And that older generations may come again.
        forgets: bool,
    },
}

/// Why something that happened changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is so already.
    #[error("nothing is to be done")]
    Nothing,
    /// It is older than what was taken.
    #[error(
        "generation {asked} is older than generation {floor}, which was taken already: raise the document's generation above it"
    )]
    Older {
        /// What was asked for.
        asked: u64,
        /// What was taken.
        floor: u64,
    },
    /// Another document has the generation.
    #[error("generation {0} is taken by another document: raise the document's generation")]
    Taken(u64),
    /// It failed before.
    #[error(
        "this image with this document is blocked since {at}: {reason}; change the document, or let it be tried again: kakoi app unblock NAME"
    )]
    Blocked {
        /// Why.
        reason: String,
        /// When.
        at: String,
    },
    /// The owner wants no other version.
    #[error(
        "it is pinned to the version that runs{}; let it take others again: kakoi app unpin NAME",
        if .0.is_empty() { String::new() } else { format!(": {}", .0) }
    )]
    Pinned(String),
    /// An update is under way.
    #[error("an update is under way (phase {0}): wait for its end, or stop it: kakoi app rollback NAME")]
    Busy(&'static str),
    /// Nothing worked before.
    #[error("there is no version to return to")]
    NoFallback,
    /// It does not happen in this phase.
    #[error("this does not happen in the phase {0}")]
    OutOfPlace(&'static str),
}

impl State {
    /// An app of which nothing is known.
    pub fn new() -> Self {
        Self {
            phase: Phase::Steady,
            floor: 0,
            floor_digest: String::new(),
            current: None,
            candidate: None,
            previous: None,
            attempt: 1,
            failure: String::new(),
            trouble: String::new(),
            blocked: Vec::new(),
            history: Vec::new(),
            resumed: 0,
            pinned: None,
            forgets: false,
            since: String::new(),
        }
    }

    /// Why an image with a document is blocked.
    pub fn blocked(&self, digest: &str, image_id: &str) -> Option<&Blocked> {
        let is_it = |blocked: &&Blocked| blocked.digest == digest && blocked.image_id == image_id;
        self.blocked.iter().find(is_it)
    }

    fn to(mut self, phase: Phase, now: &str) -> Self {
        self.phase = phase;
        self.attempt = 1;
        self.resumed = 0;
        self.since = now.to_owned();
        self
    }

    fn note(&mut self, what: &str, generation: u64, reason: &str, now: &str) {
        if self.history.len() == HISTORY_MAX {
            self.history.remove(0);
        }
        self.history.push(Happened {
            at: now.to_owned(),
            what: what.to_owned(),
            generation,
            reason: reason.to_owned(),
        });
    }

    fn block(&mut self, release: &Release, reason: &str, now: &str) {
        self.unblock(release);
        if self.blocked.len() == BLOCKED_MAX {
            self.blocked.remove(0);
        }
        self.blocked.push(Blocked {
            digest: release.digest.clone(),
            image_id: release.image_id.clone(),
            generation: release.generation,
            reason: reason.to_owned(),
            at: now.to_owned(),
        });
    }

    fn unblock(&mut self, release: &Release) {
        self.blocked
            .retain(|blocked| blocked.digest != release.digest || blocked.image_id != release.image_id);
    }

    fn generation(&self) -> u64 {
        let release = self.candidate.as_ref().or(self.current.as_ref());
        release.map_or(self.floor, |release| release.generation)
    }
}

/// The state after something happened at `now`.
///
/// # Errors
/// Why nothing changes.
pub fn transition(state: &State, event: Event, now: &str) -> Result<State, Unfit> {
    let phase = state.phase;
    match (phase, event) {
        (Phase::Remove, Event::Remove { forgets: true }) if !state.forgets => Ok(State {
            forgets: true,
            ..state.clone()
        }),
        (Phase::Remove, Event::Remove { .. } | Event::Restarted | Event::Resumed) => Err(Unfit::Nothing),
        (Phase::Remove, _) => Err(Unfit::OutOfPlace(phase.word())),
        (_, Event::Remove { forgets }) => Ok(State {
            forgets,
            ..state.clone().to(Phase::Remove, now)
        }),
        (_, Event::Apply(release)) => apply(state, *release, now),
        (_, Event::Unblock) => unblock(state, now),
        (_, Event::Pin { reason }) => pin(state, Some(shortened(&reason)), now),
        (_, Event::Unpin) => pin(state, None, now),
        (_, Event::Rollback) => rollback(state, now),
        (_, Event::Failed { reason, again }) => failed(state, &shortened(&reason), again, now),
        // Nothing ended by it. A daemon that ends again and again in a trial may do so because of what is tried.
        (Phase::Trial, Event::Resumed) if state.resumed < RESUMES_MAX => Ok(State {
            resumed: state.resumed + 1,
            ..state.clone()
        }),
        (Phase::Switch | Phase::Trial, Event::Restarted | Event::Resumed) => failed(
            state,
            "the daemon or the device was restarted in the middle of its trial",
            true,
            now,
        ),
        (_, Event::Restarted | Event::Resumed) => Err(Unfit::Nothing),
        (Phase::Fetch, Event::Fetched { image_id }) => fetched(state, image_id, now),
        (Phase::Verify, Event::Verified) => Ok(state.clone().to(Phase::Stage, now)),
        (Phase::Stage, Event::Staged) => Ok(state.clone().to(Phase::Switch, now)),
        (Phase::Switch, Event::Switched) => {
            let mut next = state.clone().to(Phase::Trial, now);
            next.attempt = state.attempt;
            Ok(next)
        }
        (Phase::Trial, Event::Healthy) => Ok(healthy(state, now)),
        (Phase::Commit, Event::Done) => Ok(settled(state, now)),
        (Phase::Rollback, Event::Done) => {
            let mut next = settled(state, now);
            next.candidate = None;
            Ok(next)
        }
        (Phase::Steady, Event::Done) if !state.trouble.is_empty() => Ok(settled(state, now)),
        (Phase::Steady, Event::Done) => Err(Unfit::Nothing),
        _ => Err(Unfit::OutOfPlace(phase.word())),
    }
}

fn apply(state: &State, asked: Release, now: &str) -> Result<State, Unfit> {
    if asked.generation < state.floor {
        return Err(Unfit::Older {
            asked: asked.generation,
            floor: state.floor,
        });
    }
    let is_same = asked.digest == state.floor_digest;
    if asked.generation == state.floor && !is_same {
        return Err(Unfit::Taken(asked.generation));
    }
    if state.phase != Phase::Steady {
        let is_tried = state.candidate.as_ref().or(state.current.as_ref());
        let is_tried = is_tried.is_some_and(|release| release.generation == asked.generation);
        return Err(match is_tried && state.phase != Phase::Rollback {
            true => Unfit::Nothing,
            false => Unfit::Busy(state.phase.word()),
        });
    }
    let is_running = |current: &Release| {
        current.digest == asked.digest && (asked.image_id.is_empty() || current.image_id == asked.image_id)
    };
    if let Some(current) = state.current.as_ref().filter(|current| is_running(current)) {
        if current.generation == asked.generation {
            return Err(Unfit::Nothing);
        }
        // It says what runs already: nothing is stopped for a number.
        let mut next = state.clone();
        next.floor = asked.generation;
        next.floor_digest.clone_from(&asked.digest);
        next.current = Some(Release {
            generation: asked.generation,
            document: asked.document,
            ..current.clone()
        });
        next.failure.clear();
        next.note("applied", asked.generation, "", now);
        return Ok(next);
    }
    if let Some(reason) = &state.pinned {
        return Err(Unfit::Pinned(reason.clone()));
    }
    if let Some(blocked) = state.blocked(&asked.digest, &asked.image_id) {
        return Err(Unfit::Blocked {
            reason: blocked.reason.clone(),
            at: blocked.at.clone(),
        });
    }
    let mut next = state.clone().to(Phase::Fetch, now);
    next.floor = asked.generation;
    next.floor_digest.clone_from(&asked.digest);
    next.failure.clear();
    next.note("applied", asked.generation, "", now);
    next.candidate = Some(Release {
        slot: state
            .current
            .as_ref()
            .map_or(Slot::A, |current| current.slot.other()),
        image_id: String::new(),
        by_hand: false,
        ..asked
    });
    Ok(next)
}

fn fetched(state: &State, image_id: String, now: &str) -> Result<State, Unfit> {
    let mut next = state.clone();
    let Some(candidate) = next.candidate.as_mut() else {
        return Err(Unfit::OutOfPlace(state.phase.word()));
    };
    candidate.image_id = image_id;
    let blocked = state.blocked(&candidate.digest, &candidate.image_id);
    match blocked.map(|blocked| format!("blocked since {}: {}", blocked.at, blocked.reason)) {
        Some(reason) => Ok(give_up(next, &reason, false, now)),
        None => Ok(next.to(Phase::Verify, now)),
    }
}

fn healthy(state: &State, now: &str) -> State {
    let mut next = state.clone().to(Phase::Commit, now);
    let left = next.current.take();
    if let Some(mut candidate) = next.candidate.take() {
        if candidate.by_hand {
            candidate.by_hand = false;
            if let Some(left) = &left {
                next.block(left, "it was left by hand for the version before it", now);
            }
        }
        next.unblock(&candidate);
        next.note("committed", candidate.generation, "", now);
        next.current = Some(candidate);
    }
    next.previous = left;
    next.trouble.clear();
    next
}

fn settled(state: &State, now: &str) -> State {
    let mut next = state.clone().to(Phase::Steady, now);
    next.trouble.clear();
    next
}

fn failed(state: &State, reason: &str, again: bool, now: &str) -> Result<State, Unfit> {
    let mut next = state.clone();
    match state.phase {
        Phase::Steady => {
            if next.trouble == reason {
                return Err(Unfit::Nothing);
            }
            next.trouble = reason.to_owned();
            let generation = next.generation();
            next.note("trouble", generation, reason, now);
            Ok(next)
        }
        Phase::Fetch if again && state.attempt < FETCH_ATTEMPTS => {
            next.attempt += 1;
            Ok(next)
        }
        Phase::Fetch | Phase::Verify | Phase::Stage => Ok(give_up(next, reason, false, now)),
        Phase::Switch | Phase::Trial => {
            let attempts_max = state.candidate.as_ref().map_or(1, |release| release.attempts_max);
            if state.attempt >= attempts_max {
                return Ok(give_up(next, reason, true, now));
            }
            let generation = next.generation();
            next.note("retried", generation, reason, now);
            let mut next = next.to(Phase::Switch, now);
            next.attempt = state.attempt + 1;
            Ok(next)
        }
        Phase::Commit | Phase::Rollback if state.attempt < RETURN_ATTEMPTS => {
            next.attempt += 1;
            Ok(next)
        }
        Phase::Commit | Phase::Rollback => {
            next.candidate = None;
            let mut next = next.to(Phase::Steady, now);
            next.trouble = reason.to_owned();
            let generation = next.generation();
            next.note("trouble", generation, reason, now);
            Ok(next)
        }
        Phase::Remove => Err(Unfit::OutOfPlace(state.phase.word())),
    }
}

fn rollback(state: &State, now: &str) -> Result<State, Unfit> {
    const BY_HAND: &str = "it was stopped by hand";
    let next = state.clone();
    match state.phase {
        Phase::Steady => {
            let Some(mut target) = state.previous.clone() else {
                return Err(Unfit::NoFallback);
            };
            target.by_hand = true;
            let mut next = next.to(Phase::Switch, now);
            next.failure.clear();
            next.note(
                "applied",
                target.generation,
                "asked for by hand: the version before",
                now,
            );
            next.candidate = Some(target);
            Ok(next)
        }
        Phase::Fetch | Phase::Verify | Phase::Stage => Ok(give_up(next, BY_HAND, false, now)),
        // It is under way.
        Phase::Switch | Phase::Trial if state.candidate.as_ref().is_some_and(|it| it.by_hand) => {
            Err(Unfit::Nothing)
        }
        Phase::Switch | Phase::Trial => Ok(give_up(next, BY_HAND, true, now)),
        Phase::Commit | Phase::Rollback | Phase::Remove => Err(Unfit::Busy(state.phase.word())),
    }
}

/// The candidate is given up; what worked before comes back.
fn give_up(mut state: State, reason: &str, is_blocked: bool, now: &str) -> State {
    if let Some(candidate) = state.candidate.clone() {
        if is_blocked {
            state.block(&candidate, reason, now);
        }
        let what = if is_blocked { "rolled back" } else { "gave up" };
        state.note(what, candidate.generation, reason, now);
        state.failure = format!(
            "generation {}, {}: {reason}",
            candidate.generation,
            state.phase.word()
        );
    }
    state.to(Phase::Rollback, now)
}

/// What is under way goes on: it was taken before.
fn pin(state: &State, reason: Option<String>, now: &str) -> Result<State, Unfit> {
    if state.pinned == reason {
        return Err(Unfit::Nothing);
    }
    let mut next = state.clone();
    let what = if reason.is_some() { "pinned" } else { "unpinned" };
    let generation = next.generation();
    next.note(what, generation, reason.as_deref().unwrap_or_default(), now);
    next.pinned = reason;
    Ok(next)
}

fn unblock(state: &State, now: &str) -> Result<State, Unfit> {
    if state.blocked.is_empty() {
        return Err(Unfit::Nothing);
    }
    let mut next = state.clone();
    next.blocked.clear();
    let generation = next.generation();
    next.note("unblocked", generation, "", now);
    Ok(next)
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn shortened(reason: &str) -> String {
    let text = reason.trim();
    match text.char_indices().nth(REASON_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
