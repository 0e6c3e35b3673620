//! The table over every state and event, and the driver over a world in memory: killed before and after each write and each act, over and over, an app
//! ends in the old version or the new one, and one of them runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, oneshot, watch};

use super::drive::{Act, Driver, End, Order, Trouble, World};
use super::table::{
    Blocked, Event, FETCH_ATTEMPTS, HISTORY_MAX, Phase, RESUMES_MAX, RETURN_ATTEMPTS, Release, Slot, State,
    Unfit, transition,
};

const NOW: &str = "2026-12-01T00:00:00Z";
const PHASES: [Phase; 9] = [
    Phase::Steady,
    Phase::Fetch,
    Phase::Verify,
    Phase::Stage,
    Phase::Switch,
    Phase::Trial,
    Phase::Commit,
    Phase::Rollback,
    Phase::Remove,
];

fn release(generation: u64, slot: Slot) -> Release {
    Release {
        generation,
        document: format!("document {generation}"),
        digest: format!("digest {generation}"),
        image_id: format!("image {generation}"),
        slot,
        attempts_max: 2,
        by_hand: false,
    }
}

fn events() -> Vec<Event> {
    let failed = |again| Event::Failed {
        reason: "why".into(),
        again,
    };
    vec![
        Event::Apply(Box::new(release(1, Slot::A))),
        Event::Apply(Box::new(release(2, Slot::A))),
        Event::Apply(Box::new(release(9, Slot::A))),
        Event::Fetched {
            image_id: "image 2".into(),
        },
        Event::Verified,
        Event::Staged,
        Event::Switched,
        Event::Healthy,
        Event::Done,
        failed(true),
        failed(false),
        Event::Restarted,
        Event::Resumed,
        Event::Rollback,
        Event::Unblock,
        Event::Pin { reason: "why".into() },
        Event::Unpin,
        Event::Remove { forgets: false },
        Event::Remove { forgets: true },
    ]
}

/// Every state that differs in what the table looks at: phase, what ran and what was kept, attempts, what is blocked.
fn states() -> Vec<State> {
    let mut all = Vec::new();
    for phase in PHASES {
        for (has_current, has_previous) in [(false, false), (true, false), (true, true)] {
            for attempt in 1..=RETURN_ATTEMPTS {
                for is_blocked in [false, true] {
                    let is_tried = !matches!(phase, Phase::Steady | Phase::Commit);
                    let blocked = Blocked {
                        digest: "digest 2".into(),
                        image_id: "image 2".into(),
                        generation: 2,
                        reason: "it failed before".into(),
                        at: NOW.into(),
                    };
                    all.push(State {
                        phase,
                        floor: 2,
                        floor_digest: "digest 2".into(),
                        current: has_current.then(|| release(1, Slot::A)),
                        previous: has_previous.then(|| release(0, Slot::B)),
                        candidate: is_tried.then(|| release(2, Slot::B)),
                        attempt,
                        blocked: is_blocked.then_some(blocked).into_iter().collect(),
                        ..State::new()
                    });
                }
            }
        }
    }
    all
}

/// Where an event leads from a phase, whatever else the state holds; empty where it changes nothing.
fn expected(phase: Phase, event: &Event) -> &'static [Phase] {
    use Phase::{Commit, Fetch, Remove, Rollback, Stage, Steady, Switch, Trial, Verify};
    match (phase, event) {
        (_, Event::Remove { forgets: true }) => &[Remove],
        (Remove, _) => &[],
        (_, Event::Remove { .. }) => &[Remove],
        (Steady, Event::Apply(_)) => &[Fetch],
        (_, Event::Apply(_)) => &[],
        (_, Event::Unblock | Event::Pin { .. } | Event::Unpin) => match phase {
            Steady => &[Steady],
            Fetch => &[Fetch],
            Verify => &[Verify],
            Stage => &[Stage],
            Switch => &[Switch],
            Trial => &[Trial],
            Commit => &[Commit],
            Rollback => &[Rollback],
            Remove => &[],
        },
        (Steady, Event::Rollback) => &[Switch],
        (Fetch | Verify | Stage | Switch | Trial, Event::Rollback) => &[Rollback],
        (Steady, Event::Failed { .. }) => &[Steady],
        (Fetch, Event::Failed { again: true, .. }) => &[Fetch, Rollback],
        (Fetch | Verify | Stage, Event::Failed { .. }) => &[Rollback],
        (Trial, Event::Resumed) => &[Trial],
        (Switch | Trial, Event::Failed { .. } | Event::Restarted | Event::Resumed) => &[Switch, Rollback],
        (Commit, Event::Failed { .. }) => &[Commit, Steady],
        (Rollback, Event::Failed { .. }) => &[Rollback, Steady],
        (Fetch, Event::Fetched { .. }) => &[Verify, Rollback],
        (Verify, Event::Verified) => &[Stage],
        (Stage, Event::Staged) => &[Switch],
        (Switch, Event::Switched) => &[Trial],
        (Trial, Event::Healthy) => &[Commit],
        (Commit | Rollback, Event::Done) => &[Steady],
        _ => &[],
    }
}

/// What holds of every state that the table makes.
fn check_invariants(before: &State, event: &Event, after: &State) {
    let about = format!("{event:?} in {before:?} gives {after:?}");
    assert!(after.floor >= before.floor, "the floor falls: {about}");
    let is_tried = after.candidate.is_some();
    match after.phase {
        Phase::Steady | Phase::Commit => assert!(!is_tried, "a candidate is left: {about}"),
        Phase::Remove => {}
        _ => assert!(is_tried, "nothing is tried: {about}"),
    }
    if let (Some(current), Some(other)) = (
        &after.current,
        after.candidate.as_ref().or(after.previous.as_ref()),
    ) {
        assert_ne!(current.slot, other.slot, "two in one slot: {about}");
    }
    // What ran is given up for what stood its trial alone.
    if before.current != after.current {
        assert!(matches!(event, Event::Healthy | Event::Apply(_)), "{about}");
    }
    assert!(after.history.len() <= HISTORY_MAX, "{about}");
    assert_ne!(before, after, "a change that changes nothing is written: {about}");
}

#[test]
fn every_state_and_event_leads_where_the_table_says() {
    let (mut fits, mut misfits) = (0, 0);
    for state in states() {
        for event in events() {
            let allowed = expected(state.phase, &event);
            match transition(&state, event.clone(), NOW) {
                Ok(next) => {
                    fits += 1;
                    assert!(
                        allowed.contains(&next.phase),
                        "{event:?} in {state:?} gives {:?}",
                        next.phase
                    );
                    check_invariants(&state, &event, &next);
                }
                Err(unfit) => {
                    misfits += 1;
                    let is_refused = match (&event, &unfit) {
                        // By generation and by what failed: they have tests of their own.
                        (Event::Apply(_), _) => true,
                        (Event::Unblock, Unfit::Nothing) => state.blocked.is_empty(),
                        (Event::Unpin, Unfit::Nothing) => state.pinned.is_none(),
                        (Event::Rollback, Unfit::NoFallback) => state.previous.is_none(),
                        _ => false,
                    };
                    assert!(
                        allowed.is_empty() || is_refused,
                        "{event:?} in {state:?}: {unfit}"
                    );
                }
            }
        }
    }
    assert!(fits > 500 && misfits > 1000, "{fits} and {misfits}");
}

/// An app whose generation 5 runs.
fn steady() -> State {
    State {
        floor: 5,
        floor_digest: "digest 5".into(),
        current: Some(release(5, Slot::A)),
        ..State::new()
    }
}

/// A document with an image that is known already.
fn ask(state: &State, generation: u64, digest: &str) -> Result<State, Unfit> {
    let asked = Release {
        digest: digest.into(),
        image_id: "image 5".into(),
        ..release(generation, Slot::A)
    };
    transition(state, Event::Apply(Box::new(asked)), NOW)
}

#[test]
fn documents_are_refused_by_generation() {
    let steady = steady();
    assert_eq!(
        ask(&steady, 4, "digest 4"),
        Err(Unfit::Older { asked: 4, floor: 5 })
    );
    assert_eq!(ask(&steady, 5, "another"), Err(Unfit::Taken(5)));
    assert_eq!(ask(&steady, 5, "digest 5"), Err(Unfit::Nothing));
    // Back to what runs after another document failed: that is what the number stands for from then on.
    let failed = State {
        floor: 6,
        floor_digest: "failed".into(),
        ..steady.clone()
    };
    let back = ask(&failed, 7, "digest 5").expect("taken");
    assert_eq!(ask(&back, 7, "digest 5"), Err(Unfit::Nothing));
    assert_eq!(ask(&back, 7, "failed"), Err(Unfit::Taken(7)));
    // A number alone stops nothing.
    let counted = ask(&steady, 6, "digest 5").expect("taken");
    assert_eq!((counted.phase, counted.floor), (Phase::Steady, 6));
    assert_eq!(
        ask(&counted, 5, "digest 5"),
        Err(Unfit::Older { asked: 5, floor: 6 })
    );
}

#[test]
fn what_failed_its_trial_is_blocked_until_somebody_says_otherwise() {
    let steady = steady();
    let mut state = ask(&steady, 6, "digest 6").expect("taken");
    let failed = |reason: &str| Event::Failed {
        reason: reason.into(),
        again: true,
    };
    let fetched = || Event::Fetched {
        image_id: "image 5".to_owned(),
    };
    for event in [
        fetched(),
        Event::Verified,
        Event::Staged,
        failed("first"),
        Event::Switched,
        failed("second"),
        Event::Done,
    ] {
        state = transition(&state, event, NOW).expect("it fits");
    }
    assert_eq!(
        (state.phase, state.current.as_ref()),
        (Phase::Steady, steady.current.as_ref())
    );
    assert!(state.failure.contains("second"), "{}", state.failure);
    let refused = ask(&state, 7, "digest 6").expect_err("blocked");
    assert!(refused.to_string().contains("second"), "{refused}");
    ask(&state, 7, "digest 7").expect("another document");
    let unblocked = transition(&state, Event::Unblock, NOW).expect("it fits");
    ask(&unblocked, 7, "digest 6").expect("tried again");
    // An image that is fetched and found to be one that failed goes no further.
    let unknown = Release {
        digest: "digest 6".into(),
        image_id: String::new(),
        ..release(7, Slot::A)
    };
    let state = transition(&state, Event::Apply(Box::new(unknown)), NOW).expect("nobody knows yet");
    let state = transition(&state, fetched(), NOW).expect("it fits");
    assert_eq!(state.phase, Phase::Rollback);
}

#[test]
fn attempts_and_memories_have_an_end() {
    let again = || Event::Failed {
        reason: "x".repeat(1 << 20),
        again: true,
    };
    for (phase, most) in [
        (Phase::Fetch, FETCH_ATTEMPTS),
        (Phase::Switch, 2),
        (Phase::Trial, 2),
        (Phase::Commit, RETURN_ATTEMPTS),
        (Phase::Rollback, RETURN_ATTEMPTS),
    ] {
        let found = states()
            .into_iter()
            .find(|state| state.phase == phase && state.attempt == 1);
        let mut state = found.expect("there is one");
        for _ in 1..most {
            state = transition(&state, again(), NOW).expect("it fits");
            assert!(
                !matches!(state.phase, Phase::Steady) && state.attempt > 1,
                "{phase:?}"
            );
        }
        state = transition(&state, again(), NOW).expect("it fits");
        let is_over = match phase {
            Phase::Commit | Phase::Rollback => state.phase == Phase::Steady,
            _ => state.phase == Phase::Rollback,
        };
        assert!(is_over, "{phase:?}: {:?}", state.phase);
        assert!(state.failure.len() + state.trouble.len() < 4096);
    }
    let mut state = State::new();
    for number in 0..1000_u64 {
        let event = Event::Apply(Box::new(release(number + 1, Slot::A)));
        state = transition(&state, event, NOW).expect("taken");
        let event = Event::Rollback;
        state.phase = Phase::Trial;
        state = transition(&state, event, NOW).expect("it fits");
        state = transition(&state, Event::Done, NOW).expect("it fits");
    }
    assert!(state.history.len() <= HISTORY_MAX && state.blocked.len() <= 32);
}

/// A device in memory. What is on its disk and which containers run outlive the daemon; a power cut stops what runs, and what its restart policy
/// would start comes up again.
#[derive(Default)]
struct Device {
    disk: Option<State>,
    /// By slot: what was made there, whether it runs, and whether it was stopped by its supervisor.
    slots: BTreeMap<&'static str, (u64, bool, bool)>,
    /// Generations that fail their trial.
    bad: Vec<u64>,
    /// Generations whose image is nowhere.
    missing: Vec<u64>,
    /// Steps until the daemon is killed; counts down at each act and before and after each write.
    left: Option<u64>,
    steps: u64,
    writes: u64,
    pauses: u64,
}

#[derive(Clone)]
struct Fake(Arc<Mutex<Device>>);

impl Fake {
    fn device(&self) -> std::sync::MutexGuard<'_, Device> {
        self.0.lock().expect("no panic while locked")
    }

    /// One step; where the daemon is killed there, nothing comes after it.
    async fn step(&self) {
        let is_killed = {
            let mut device = self.device();
            device.steps += 1;
            match device.left.as_mut() {
                Some(0) => true,
                Some(left) => {
                    *left -= 1;
                    false
                }
                None => false,
            }
        };
        if is_killed {
            std::future::pending::<()>().await;
        }
    }

    fn runs(&self) -> Vec<u64> {
        let device = self.device();
        device
            .slots
            .values()
            .filter(|slot| slot.1)
            .map(|slot| slot.0)
            .collect()
    }

    fn cut_power(&self) {
        for slot in self.device().slots.values_mut() {
            slot.1 = slot.1 && !slot.2;
        }
    }
}

impl World for Fake {
    type Error = String;

    async fn fetch(&self, release: &Release) -> Act<String> {
        self.step().await;
        match self.device().missing.contains(&release.generation) {
            true => Err(Trouble {
                reason: "there is no such image".into(),
                again: true,
            }),
            false => Ok(format!("image {}", release.generation)),
        }
    }

    async fn verify(&self, _: &Release) -> Act<()> {
        self.step().await;
        Ok(())
    }

    async fn stage(&self, release: &Release) -> Act<()> {
        self.step().await;
        let made = (release.generation, false, false);
        self.device().slots.insert(release.slot.word(), made);
        self.step().await;
        Ok(())
    }

    async fn switch(&self, from: Option<&Release>, to: &Release) -> Act<()> {
        self.step().await;
        if let Some(from) = from
            && let Some(slot) = self.device().slots.get_mut(from.slot.word())
        {
            (slot.1, slot.2) = (false, true);
        }
        self.step().await;
        // What is not there is made anew, of what its record says.
        let made = (to.generation, true, false);
        self.device().slots.insert(to.slot.word(), made);
        self.step().await;
        Ok(())
    }

    async fn trial(&self, release: &Release) -> Act<()> {
        self.step().await;
        let device = self.device();
        let slot = device.slots.get(release.slot.word());
        assert_eq!(
            slot,
            Some(&(release.generation, true, false)),
            "it runs in its trial"
        );
        match device.bad.contains(&release.generation) {
            true => Err(Trouble {
                reason: "unhealthy".into(),
                again: true,
            }),
            false => Ok(()),
        }
    }

    async fn settle(&self, runs: Option<&Release>, left: Option<&Release>) -> Act<()> {
        for slot in Slot::BOTH {
            self.step().await;
            if runs.is_none_or(|runs| runs.slot != slot)
                && let Some(slot) = self.device().slots.get_mut(slot.word())
            {
                (slot.1, slot.2) = (false, true);
            }
        }
        self.step().await;
        if let Some(runs) = runs {
            let mut device = self.device();
            let made = (runs.generation, true, false);
            device.slots.insert(runs.slot.word(), made);
        }
        self.step().await;
        let mut device = self.device();
        let is_there = |left: &&Release| {
            let made = device.slots.get(left.slot.word());
            made.is_some_and(|made| made.0 == left.generation)
        };
        if let Some(left) = left.filter(is_there) {
            device.slots.remove(left.slot.word());
        }
        Ok(())
    }

    async fn is_up(&self, release: &Release) -> bool {
        let device = self.device();
        let made = device.slots.get(release.slot.word());
        made.is_some_and(|made| made.0 == release.generation && made.1)
    }

    async fn clear(&self) -> Act<()> {
        for slot in Slot::BOTH {
            self.step().await;
            self.device().slots.remove(slot.word());
        }
        Ok(())
    }

    async fn pause(&self, _: u64) {
        self.device().pauses += 1;
    }

    async fn keep(&self, state: &State) -> Result<(), String> {
        self.step().await;
        {
            let mut device = self.device();
            assert_ne!(
                device.disk.as_ref(),
                Some(state),
                "nothing is written while nothing changes"
            );
            device.writes += 1;
            // Through its stored form, as the next daemon will find it.
            let bytes = serde_json::to_vec(state).expect("plain data");
            device.disk = Some(serde_json::from_slice(&bytes).expect("it is read back"));
        }
        self.step().await;
        Ok(())
    }

    async fn forget(&self, _: &State) -> Result<(), String> {
        self.step().await;
        self.device().disk = None;
        self.step().await;
        Ok(())
    }

    fn now(&self) -> String {
        NOW.into()
    }
}

/// Runs one daemon: takes over, obeys `orders`, and ends when all is done or at the kill. Says how it ended; `None` is the kill.
fn daemon(fake: &Fake, events: &[Event]) -> Option<End> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let state = fake.device().disk.clone().unwrap_or_else(State::new);
    let (sender, _standing) = watch::channel(state);
    let (orders, mut ordered) = mpsc::channel(4);
    for event in events {
        let (answer, _) = oneshot::channel();
        let event = event.clone();
        orders.try_send(Order { event, answer }).expect("there is room");
    }
    drop(orders);
    let driver = Driver::new(fake.clone(), sender);
    runtime.block_on(async {
        tokio::select! {
            biased;
            end = driver.run(&mut ordered) => Some(end),
            // Everything that is pending waits for the kill: no act of the fake waits for anything else.
            () = std::future::ready(()) => None,
        }
    })
}

fn device(bad: &[u64]) -> Fake {
    let fake = Fake(Arc::new(Mutex::new(Device {
        bad: bad.to_vec(),
        ..Device::default()
    })));
    let first = Event::Apply(Box::new(release(1, Slot::A)));
    assert_eq!(daemon(&fake, &[first]), Some(End::Orphaned));
    assert_eq!(fake.runs(), [1]);
    fake
}

/// Kills the daemon `first` steps into an order and, once more, `second` steps into what the next one does.
fn killed(bad: &[u64], event: &Event, first: u64, second: Option<u64>, is_cut: bool) -> (Fake, bool) {
    let fake = device(bad);
    fake.device().left = Some(first);
    let mut was_killed = daemon(&fake, std::slice::from_ref(event)).is_none();
    if is_cut {
        fake.cut_power();
    }
    if let Some(second) = second {
        fake.device().left = Some(second);
        was_killed |= daemon(&fake, &[]).is_none();
        if is_cut {
            fake.cut_power();
        }
    }
    fake.device().left = None;
    daemon(&fake, &[]);
    (fake, was_killed)
}

fn check_cuts(bad: &[u64], event: &Event, ends: &[&[u64]]) -> u64 {
    let mut seen = std::collections::BTreeSet::new();
    let mut cuts = 0;
    for is_cut in [false, true] {
        for first in 0.. {
            let (_, was_killed) = killed(bad, event, first, None, is_cut);
            if !was_killed {
                break;
            }
            for second in [None].into_iter().chain((0..24).map(Some)) {
                let (fake, _) = killed(bad, event, first, second, is_cut);
                cuts += 1;
                let runs = fake.runs();
                let about = format!("{event:?} cut after {first} and {second:?} steps: {runs:?}");
                assert!(ends.contains(&runs.as_slice()), "{about}");
                let disk = fake.device().disk.clone();
                if let Some(state) = &disk {
                    assert_eq!(state.phase, Phase::Steady, "{about}");
                    let current = state.current.as_ref().map(|current| current.generation);
                    assert_eq!(current.as_slice(), runs.as_slice(), "{about}");
                    assert!(state.trouble.is_empty(), "{about}");
                } else {
                    assert!(runs.is_empty(), "{about}");
                }
                seen.insert(runs);
            }
        }
    }
    assert_eq!(seen.len(), ends.len(), "each end is seen: {seen:?}");
    cuts
}

#[test]
fn every_write_and_act_may_be_the_last_one() {
    let newer = Event::Apply(Box::new(release(2, Slot::A)));
    let mut cuts = check_cuts(&[], &newer, &[&[1], &[2]]);
    cuts += check_cuts(&[2], &newer, &[&[1]]);
    cuts += check_cuts(&[], &Event::Remove { forgets: false }, &[&[1], &[]]);
    assert!(cuts > 1000, "{cuts}");
    println!("{cuts} cuts");
}

#[test]
fn what_was_never_staged_costs_no_fallback() {
    let fake = device(&[]);
    daemon(&fake, &[Event::Apply(Box::new(release(2, Slot::A)))]);
    fake.device().missing = vec![3];
    let before = fake.device().slots.clone();
    daemon(&fake, &[Event::Apply(Box::new(release(3, Slot::A)))]);
    assert_eq!(fake.device().pauses, FETCH_ATTEMPTS - 1);
    assert_eq!(fake.device().slots, before, "both versions are where they were");
    let state = fake.device().disk.clone().expect("a record");
    assert!(state.failure.contains("no such image") && state.blocked.is_empty());
    let previous = state.previous.map(|release| release.generation);
    assert_eq!((previous, fake.runs()), (Some(1), vec![2]));
}

/// The version before is there whatever comes of an update: a candidate that had its place and failed costs it its container, not itself.
#[test]
fn a_failed_update_costs_no_fallback() {
    let fake = device(&[3]);
    daemon(&fake, &[Event::Apply(Box::new(release(2, Slot::A)))]);
    daemon(&fake, &[Event::Apply(Box::new(release(3, Slot::A)))]);
    let state = fake.device().disk.clone().expect("a record");
    assert_eq!((fake.runs(), state.blocked.len()), (vec![2], 1));
    let previous = |fake: &Fake| {
        let state = fake.device().disk.clone().expect("a record");
        state
            .previous
            .map(|release| (release.generation, release.by_hand))
    };
    assert_eq!(previous(&fake), Some((1, false)));
    daemon(&fake, &[Event::Rollback]);
    assert_eq!((fake.runs(), previous(&fake)), (vec![1], Some((2, false))));
    // One that fails as it comes back by hand is still what there is to come back to.
    fake.device().bad.push(2);
    daemon(&fake, &[Event::Rollback]);
    assert_eq!((fake.runs(), previous(&fake)), (vec![1], Some((2, false))));
    assert!(fake.device().slots.values().any(|slot| slot.0 == 2));
}

/// A pinned app takes nothing but what runs, until its owner says otherwise, whatever its documents say; it may still go back.
#[test]
fn what_is_pinned_stays() {
    let reason = || String::from("in use until Friday");
    let pinned = transition(&steady(), Event::Pin { reason: reason() }, NOW).expect("it fits");
    assert_eq!(pinned.history.last().map(|it| it.what.as_str()), Some("pinned"));
    assert_eq!(ask(&pinned, 6, "another"), Err(Unfit::Pinned(reason())));
    assert_eq!(ask(&pinned, 6, "digest 5").expect("what runs").floor, 6);
    assert_eq!(
        ask(&pinned, 4, "digest 4"),
        Err(Unfit::Older { asked: 4, floor: 5 })
    );
    assert_eq!(
        transition(&pinned, Event::Pin { reason: reason() }, NOW),
        Err(Unfit::Nothing)
    );
    let other = transition(
        &pinned,
        Event::Pin {
            reason: String::new(),
        },
        NOW,
    )
    .expect("another reason");
    let said = ask(&other, 6, "another").expect_err("pinned").to_string();
    assert!(
        said.starts_with("it is pinned to the version that runs; let it"),
        "{said}"
    );
    let unpinned = transition(&other, Event::Unpin, NOW).expect("it fits");
    assert_eq!(ask(&unpinned, 6, "another").expect("taken").phase, Phase::Fetch);
}

/// Asked for twice, a version comes back once, and is not blocked for it.
#[test]
fn to_come_back_twice_is_to_come_back_once() {
    let steady = State {
        previous: Some(release(4, Slot::B)),
        ..steady()
    };
    let mut state = transition(&steady, Event::Rollback, NOW).expect("there is a version before");
    for event in [Event::Switched, Event::Healthy] {
        assert_eq!(transition(&state, Event::Rollback, NOW), Err(Unfit::Nothing));
        state = transition(&state, event, NOW).expect("it goes on");
    }
    assert!(state.blocked.iter().all(|blocked| blocked.generation != 4));
}

/// A trial goes on under the next daemon, a bounded number of times; what did not run on has used up an attempt.
#[test]
fn a_daemon_that_ends_alone_costs_no_attempt() {
    let mut state = State {
        phase: Phase::Trial,
        candidate: Some(release(6, Slot::B)),
        ..steady()
    };
    assert_eq!(
        transition(&state, Event::Restarted, NOW)
            .expect("it fits")
            .attempt,
        2
    );
    for _ in 0..RESUMES_MAX {
        state = transition(&state, Event::Resumed, NOW).expect("it fits");
        assert_eq!((state.phase, state.attempt), (Phase::Trial, 1));
    }
    let next = transition(&state, Event::Resumed, NOW).expect("it fits");
    assert_eq!((next.phase, next.attempt, next.resumed), (Phase::Switch, 2, 0));
}

#[test]
fn what_is_steady_is_written_no_more() {
    let fake = device(&[]);
    let newer = Event::Apply(Box::new(release(2, Slot::A)));
    assert_eq!(daemon(&fake, std::slice::from_ref(&newer)), Some(End::Orphaned));
    let writes = fake.device().writes;
    for _ in 0..3 {
        daemon(&fake, std::slice::from_ref(&newer));
        daemon(
            &fake,
            &[Event::Unblock, Event::Apply(Box::new(release(1, Slot::A)))],
        );
    }
    assert_eq!(fake.device().writes, writes);
    assert!(writes <= 16, "two applications in {writes} writes");
    // The version before, by hand, and forward again.
    daemon(&fake, &[Event::Rollback]);
    assert_eq!(fake.runs(), [1]);
    daemon(&fake, &[Event::Rollback]);
    assert_eq!(fake.runs(), [2]);
    assert_eq!(
        daemon(&fake, &[Event::Remove { forgets: false }]),
        Some(End::Removed)
    );
    assert!(fake.device().disk.is_none() && fake.device().slots.is_empty());
}
