//! From phase to phase: does what a phase asks for, tells the table what came of it, and has that on disk before the next act.
//!
//! Owns the order of acts and writes; knows the engine only as a [`World`], which tests fake. Invariant: an act is begun only after the state that
//! names it is on disk, so that whoever comes after a kill or a power cut finds the intent and does it again; every act may be done again.

use std::fmt::Debug;
use std::pin::pin;

use tokio::sync::{mpsc, oneshot, watch};

use super::table::{Event, Phase, Release, State, Unfit, transition};

/// Why an act failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// In words.
    pub reason: String,
    /// Whether it may go well another time.
    pub again: bool,
}

/// What an act comes to.
pub type Act<T> = Result<T, Trouble>;

/// Everything that is not deciding: containers, images, the disk, the clock.
pub trait World: Send + Sync {
    /// Why the disk did not take something.
    type Error: Debug + Send;

    /// Has the image here; says its id.
    fn fetch(&self, release: &Release) -> impl Future<Output = Act<String>> + Send;
    /// Asks trust, policy and ceiling; makes nothing.
    fn verify(&self, release: &Release) -> impl Future<Output = Act<()>> + Send;
    /// Makes the container anew, in its slot.
    fn stage(&self, release: &Release) -> impl Future<Output = Act<()>> + Send;
    /// Stops what runs, and starts the candidate.
    fn switch(&self, from: Option<&Release>, to: &Release) -> impl Future<Output = Act<()>> + Send;
    /// Watches the candidate until it stood its trial or failed.
    fn trial(&self, release: &Release) -> impl Future<Output = Act<()>> + Send;
    /// Has exactly this version run; the container of one that is `left` goes, after the rest is down.
    fn settle(&self, runs: Option<&Release>, left: Option<&Release>) -> impl Future<Output = Act<()>> + Send;
    /// Whether a version's container runs.
    fn is_up(&self, release: &Release) -> impl Future<Output = bool> + Send;
    /// Empties both slots.
    fn clear(&self) -> impl Future<Output = Act<()>> + Send;
    /// Waits before another attempt.
    fn pause(&self, attempt: u64) -> impl Future<Output = ()> + Send;
    /// Puts a state on the disk.
    fn keep(&self, state: &State) -> impl Future<Output = Result<(), Self::Error>> + Send;
    /// Takes the record off the disk.
    fn forget(&self, state: &State) -> impl Future<Output = Result<(), Self::Error>> + Send;
    /// Now, RFC 3339.
    fn now(&self) -> String;
}

/// What the owner orders, and where the answer goes.
pub struct Order {
    /// The event.
    pub event: Event,
    /// The table's answer.
    pub answer: oneshot::Sender<Result<(), Rejected>>,
}

/// Why an order was not taken.
#[derive(Debug)]
pub enum Rejected {
    /// The table's word.
    Unfit(Unfit),
    /// The disk's.
    Disk(String),
}

/// One app, driven.
pub struct Driver<W> {
    world: W,
    state: watch::Sender<State>,
}

/// What ends the driving.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// The app is gone.
    Removed,
    /// Nobody can order anything any more.
    Orphaned,
    /// The disk does not take what must be on it, or does not let go of what must leave it: nothing more is begun until the next start.
    Stuck,
}

impl<W: World> Driver<W> {
    /// An app as its record says; whoever watches `state` sees it change.
    pub fn new(world: W, state: watch::Sender<State>) -> Self {
        Self { world, state }
    }

    /// Takes over from a daemon that is gone, and then does what there is to be done and is ordered, for as long as somebody may order.
    pub async fn run(&self, orders: &mut mpsc::Receiver<Order>) -> End {
        let state = self.now();
        let event = match &state.candidate {
            Some(tried) if state.phase == Phase::Trial && self.world.is_up(tried).await => Event::Resumed,
            _ => Event::Restarted,
        };
        if self.happen(event).await.is_err_and(|error| error.is_disk()) {
            return End::Stuck;
        }
        self.converge().await;
        loop {
            if let Err(end) = self.work(orders).await {
                return end;
            }
            let Some(order) = orders.recv().await else {
                return End::Orphaned;
            };
            self.obey(order).await;
        }
    }

    /// What should run in a steady state runs: content and containers of this device are all it takes.
    async fn converge(&self) {
        let state = self.now();
        if state.phase != Phase::Steady || state.current.is_none() {
            return;
        }
        let event = match self.world.settle(state.current.as_ref(), None).await {
            Ok(()) => Event::Done,
            Err(trouble) => failed(trouble),
        };
        // What cannot be written is told by `happen`, and nothing hangs on it here.
        drop(self.happen(event).await);
    }

    /// Goes from phase to phase until nothing is to be done.
    async fn work(&self, orders: &mut mpsc::Receiver<Order>) -> Result<(), End> {
        loop {
            let state = self.now();
            if state.attempt > 1 && state.phase != Phase::Trial && !self.waited(&state, orders).await {
                continue;
            }
            let event = match state.phase {
                Phase::Steady => return Ok(()),
                Phase::Remove => {
                    let cleared = match self.world.clear().await {
                        Ok(()) => self
                            .world
                            .forget(&state)
                            .await
                            .map_err(|error| format!("{error:?}")),
                        Err(trouble) => Err(trouble.reason),
                    };
                    match cleared {
                        Ok(()) => return Err(End::Removed),
                        Err(why) => {
                            tracing::error!(why, "an app cannot be removed; the next start goes on with it");
                            return Err(End::Stuck);
                        }
                    }
                }
                // Waiting for the network, or for time to pass, is what an owner may cut short; everything else ends by itself, soon.
                Phase::Fetch | Phase::Trial => {
                    let mut act = pin!(self.act(&state));
                    let came = loop {
                        tokio::select! {
                            event = &mut act => break Some(event),
                            Some(order) = orders.recv() => {
                                self.obey(order).await;
                                if self.now().phase != state.phase {
                                    break None;
                                }
                            }
                        }
                    };
                    match came {
                        Some(event) => event,
                        None => continue,
                    }
                }
                _ => self.act(&state).await,
            };
            match self.happen(event).await {
                Ok(()) => {}
                Err(Rejected::Disk(_)) => return Err(End::Stuck),
                Err(Rejected::Unfit(unfit)) => unreachable!("the table knows what a phase comes to: {unfit}"),
            }
        }
    }

    async fn act(&self, state: &State) -> Event {
        let none = || Trouble {
            reason: "its record names no candidate".to_owned(),
            again: false,
        };
        let candidate = state.candidate.as_ref();
        let came = match (state.phase, candidate) {
            (Phase::Commit, _) => {
                let settled = self.world.settle(state.current.as_ref(), None).await;
                settled.map(|()| Event::Done)
            }
            (Phase::Rollback, _) => {
                // What was to come back by hand is the fallback, whatever became of it.
                let left = candidate.filter(|candidate| !candidate.by_hand);
                let settled = self.world.settle(state.current.as_ref(), left).await;
                settled.map(|()| Event::Done)
            }
            (_, None) => Err(none()),
            (Phase::Fetch, Some(candidate)) => {
                let fetched = self.world.fetch(candidate).await;
                fetched.map(|image_id| Event::Fetched { image_id })
            }
            (Phase::Verify, Some(candidate)) => self.world.verify(candidate).await.map(|()| Event::Verified),
            (Phase::Stage, Some(candidate)) => self.world.stage(candidate).await.map(|()| Event::Staged),
            (Phase::Switch, Some(candidate)) => {
                let switched = self.world.switch(state.current.as_ref(), candidate).await;
                switched.map(|()| Event::Switched)
            }
            (Phase::Trial, Some(candidate)) => self.world.trial(candidate).await.map(|()| Event::Healthy),
            (Phase::Steady | Phase::Remove, _) => Err(none()),
        };
        came.unwrap_or_else(failed)
    }

    /// Waits before another attempt; an order that changes something ends the wait, and gives `false`.
    async fn waited(&self, state: &State, orders: &mut mpsc::Receiver<Order>) -> bool {
        let mut pause = pin!(self.world.pause(state.attempt));
        loop {
            tokio::select! {
                () = &mut pause => return true,
                Some(order) = orders.recv() => {
                    self.obey(order).await;
                    if self.now() != *state {
                        return false;
                    }
                }
            }
        }
    }

    /// Obeys an order, or says why not.
    async fn obey(&self, order: Order) {
        let answer = self.happen(order.event).await;
        if let Err(Rejected::Unfit(Unfit::Nothing)) = &answer {
            self.converge().await;
        }
        // Whoever has left does not want to know.
        drop(order.answer.send(answer));
    }

    fn now(&self) -> State {
        self.state.borrow().clone()
    }

    /// Asks the table, and has its answer on disk before anybody acts by it.
    async fn happen(&self, event: Event) -> Result<(), Rejected> {
        let state = self.now();
        let next = transition(&state, event, &self.world.now()).map_err(Rejected::Unfit)?;
        if let Err(error) = self.world.keep(&next).await {
            tracing::error!(
                ?error,
                "an app's state cannot be written; nothing more of it is done until the next start"
            );
            return Err(Rejected::Disk(format!("{error:?}")));
        }
        if next.phase != state.phase {
            tracing::info!(
                from = state.phase.word(),
                to = next.phase.word(),
                attempt = next.attempt,
                "an app's phase"
            );
        }
        self.state.send_replace(next);
        Ok(())
    }
}

impl Rejected {
    fn is_disk(&self) -> bool {
        matches!(self, Self::Disk(_))
    }
}

fn failed(trouble: Trouble) -> Event {
    Event::Failed {
        reason: trouble.reason,
        again: trouble.again,
    }
}
