//! Apps: what should run, and how it comes from one version to the next and back.
//!
//! | file | owns |
//! |---|---|
//! | `table.rs` | pure: what an app does next |
//! | `drive.rs` | the order of acts and writes, over a world that tests fake |
//! | `request.rs` | pure: what a document asks for, on the wire |
//! | `act.rs` | the acts, by the engine's own ways |
//! | `handover.rs` | how a version takes over from one that runs on meanwhile |
//! | `record.rs` | the stored form |
//! | `graves.rs` | which generations of removed apps were taken |
//!
//! Owns the table of apps. One task per app does its work; whoever orders something waits for the table's word, not for the work. A daemon that
//! starts reads the records and goes on where the one before was: nothing here needs a network.

mod act;
#[cfg(test)]
mod cuts;
mod drive;
mod graves;
mod handover;
mod record;
pub mod request;
pub mod table;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use kakoi_policy::App;
use tokio::sync::{mpsc, oneshot, watch};

use self::act::Acts;
use self::drive::{Driver, End, Order, Rejected};
use self::table::{Event, Phase, Release, Slot, State, Unfit, transition};
use crate::clock;
use crate::engine::Engine;
use crate::life::create;
use crate::policy::Door;
use crate::refusal::{Answer, Refusal};

/// Apps of one device: each is a task and a record.
const APPS_MAX: usize = 256;
/// Orders that wait for one app.
const ORDERS_MAX: usize = 16;

/// How an app stands, to be looked at and waited for; closed when the app is gone.
pub type Standing = watch::Receiver<State>;

#[derive(Clone)]
struct Row {
    state: Standing,
    orders: mpsc::Sender<Order>,
}

/// All apps.
#[derive(Default)]
pub struct Apps {
    rows: Mutex<BTreeMap<String, Row>>,
    /// Apps whose record cannot be read, and why.
    damaged: Mutex<BTreeMap<String, String>>,
    /// Held while an app comes into being.
    turn: tokio::sync::Mutex<()>,
}

impl Apps {
    fn rows(&self) -> MutexGuard<'_, BTreeMap<String, Row>> {
        self.rows.lock().expect("no panic while locked")
    }

    fn damaged(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.damaged.lock().expect("no panic while locked")
    }

    /// Every app, by name.
    pub fn all(&self) -> Vec<(String, State)> {
        let rows = self.rows();
        let states = rows
            .iter()
            .map(|(name, row)| (name.clone(), row.state.borrow().clone()));
        states.collect()
    }

    /// Apps one of whose versions is of an image, whether its container is there or not, and whether it is the one that runs.
    pub fn using_image(&self, id: &str) -> Vec<(String, bool)> {
        let rows = self.rows();
        let using = rows.iter().filter_map(|(name, row)| {
            let state = row.state.borrow();
            let is_of = |release: &Option<Release>| release.as_ref().is_some_and(|it| it.image_id == id);
            let runs = is_of(&state.current);
            (runs || is_of(&state.candidate) || is_of(&state.previous)).then(|| (name.clone(), runs))
        });
        using.collect()
    }

    /// One app.
    pub fn find(&self, name: &str) -> Answer<Standing> {
        Ok(self.row(name)?.state)
    }

    fn row(&self, name: &str) -> Answer<Row> {
        if let Some(why) = self.damaged().get(name) {
            return Err(Refusal::broken(unreadable(name, why)));
        }
        let found = self.rows().get(name).cloned();
        found.ok_or_else(|| Refusal::missing(format!("No such app: {name}")))
    }

    /// The app that a container's name belongs to, and the slot.
    pub fn owner_of(&self, container: &str) -> Option<(String, Slot)> {
        let container = container.trim_start_matches('/');
        let (name, letter) = container.rsplit_once('-')?;
        let slot = Slot::BOTH.into_iter().find(|slot| slot.word() == letter)?;
        let is_known = self.rows().contains_key(name) || self.damaged().contains_key(name);
        is_known.then(|| (name.to_owned(), slot))
    }

    /// Refuses what nobody but the supervisor does to a container of an app.
    pub fn guard(&self, container: &str) -> Answer<()> {
        match self.owner_of(container) {
            None => Ok(()),
            Some((name, _)) => Err(Refusal::conflict(format!(
                "container {container} belongs to the app {name}: change it by its document (kakoi app apply), or remove it (kakoi app remove {name})"
            ))),
        }
    }

    /// Refuses to start what is not the version that should run.
    pub fn guard_start(&self, container: &str) -> Answer<()> {
        let Some((name, slot)) = self.owner_of(container) else {
            return Ok(());
        };
        let state = self.find(&name)?.borrow().clone();
        let runs = match state.phase {
            Phase::Steady | Phase::Commit => state.current.map(|release| release.slot),
            _ => None,
        };
        if runs == Some(slot) {
            return Ok(());
        }
        Err(Refusal::conflict(format!(
            "container {container} is not the version of the app {name} that should run: kakoi app status {name}"
        )))
    }
}

fn unreadable(name: &str, why: &str) -> String {
    format!(
        "the record of the app {name} cannot be read ({why}); what was taken of it is not known, so nothing is done with it"
    )
}

/// Goes on with every app where the daemon before was.
pub fn begin(engine: &Arc<Engine>) {
    let all = match record::read_all(&engine.paths.root) {
        Ok(all) => all,
        Err(cause) => {
            act::tell("all", &cause);
            return;
        }
    };
    for (name, state) in all {
        match state {
            Ok(state) => drop(spawn(engine, &name, state)),
            Err(cause) => {
                act::tell(&name, &cause);
                engine.apps.damaged().insert(name, cause.to_string());
            }
        }
    }
}

fn spawn(engine: &Arc<Engine>, name: &str, state: State) -> Row {
    let (sender, standing) = watch::channel(state);
    let (orders, mut ordered) = mpsc::channel(ORDERS_MAX);
    let row = Row {
        state: standing,
        orders,
    };
    engine.apps.rows().insert(name.to_owned(), row.clone());
    let world = Acts {
        engine: engine.clone(),
        name: name.to_owned(),
    };
    let (engine, name) = (engine.clone(), name.to_owned());
    tokio::spawn(async move {
        let driver = Driver::new(world, sender);
        if driver.run(&mut ordered).await == End::Removed {
            engine.apps.rows().remove(&name);
        }
    });
    row
}

/// Gives an app something to do; says how it stands once the table has spoken.
pub async fn order(engine: &Arc<Engine>, name: &str, event: Event) -> Answer<Standing> {
    let row = engine.apps.row(name)?;
    tell(name, &row, event).await?;
    Ok(row.state)
}

async fn tell(name: &str, row: &Row, event: Event) -> Answer<()> {
    let stuck = || {
        Refusal::broken(format!(
            "the app {name} is stuck since its state could not be written; the next start of the daemon goes on with it"
        ))
    };
    let (answer, answered) = oneshot::channel();
    let sent = row.orders.send(Order { event, answer }).await;
    sent.map_err(|_| stuck())?;
    match answered.await.map_err(|_| stuck())? {
        Ok(()) | Err(Rejected::Unfit(Unfit::Nothing)) => Ok(()),
        Err(Rejected::Unfit(unfit)) => Err(unfit_refusal(name, &unfit)),
        Err(Rejected::Disk(why)) => Err(Refusal::failed("the app's state cannot be written", why)),
    }
}

fn unfit_refusal(name: &str, unfit: &Unfit) -> Refusal {
    Refusal::conflict(format!("app {name}: {}", unfit.to_string().replace("NAME", name)))
}

/// Takes a document: everything about it that can be refused is refused before anything changes.
pub async fn apply(engine: &Arc<Engine>, file: &str, text: &str) -> Answer<(String, Standing)> {
    let app = kakoi_policy::parse_app(file, text).map_err(|why| Refusal::bad(why.to_string()))?;
    let _turn = engine.apps.turn.lock().await;
    if let Some(why) = engine.apps.damaged().get(&app.name) {
        return Err(Refusal::conflict(unreadable(&app.name, why)));
    }
    let image_id = act::local_image(engine, &app.image)?;
    let event = Event::Apply(Box::new(Release {
        generation: app.generation,
        document: text.to_owned(),
        digest: request::digest(&app),
        image_id: image_id.clone().unwrap_or_default(),
        slot: Slot::A,
        attempts_max: app.update.attempts,
        by_hand: false,
    }));
    let known = engine.apps.rows().get(&app.name).cloned();
    let state = known.as_ref().map(|row| row.state.borrow().clone());
    let state = match state {
        Some(state) => state,
        None => unknown(engine, &app.name)?,
    };
    let asked = transition(&state, event.clone(), &clock::now());
    match asked {
        Ok(_) => judge(engine, &app, known.is_some(), image_id.is_some()).await?,
        Err(Unfit::Nothing) => {}
        Err(unfit) => return Err(unfit_refusal(&app.name, &unfit)),
    }
    let row = match &known {
        Some(row) => row.clone(),
        None => spawn(engine, &app.name, unknown(engine, &app.name)?),
    };
    let told = tell(&app.name, &row, event).await;
    if told.is_err() && known.is_none() {
        // Nothing of it was written: the task ends with the last who may order.
        engine.apps.rows().remove(&app.name);
    }
    told?;
    Ok((app.name, row.state))
}

/// The state of an app that is not there: what was taken of one of that name is not forgotten with it.
fn unknown(engine: &Engine, name: &str) -> Answer<State> {
    let graves = graves::read(&engine.paths.root).map_err(|cause| {
        Refusal::failed(
            "which generations of removed apps were taken cannot be read, so no app of a new name is",
            cause,
        )
    })?;
    Ok(graves.get(name).map_or_else(State::new, |grave| State {
        floor: grave.floor,
        floor_digest: grave.floor_digest.clone(),
        ..State::new()
    }))
}

/// Lets go of what was taken of an app that was removed before; says whether there was such a one.
pub async fn forget(engine: &Arc<Engine>, name: &str) -> Answer<bool> {
    let _turn = engine.apps.turn.lock().await;
    let is_known = engine.apps.rows().contains_key(name) || engine.apps.damaged().contains_key(name);
    let root = engine.paths.root.clone();
    let failed = |cause| Refusal::failed(format!("what was taken of {name} cannot be let go"), cause);
    if is_known || !graves::read(&root).map_err(failed)?.contains_key(name) {
        return Ok(false);
    }
    graves::put(&root, name, None).map_err(failed)?;
    Ok(true)
}

/// What can be known before the image is here.
async fn judge(engine: &Arc<Engine>, app: &App, is_known: bool, is_here: bool) -> Answer<()> {
    if !is_known {
        if engine.apps.rows().len() >= APPS_MAX {
            return Err(Refusal::conflict(format!("there are {APPS_MAX} apps already")));
        }
        for slot in Slot::BOTH {
            let name = request::container_name(&app.name, slot);
            let found = engine.containers.find(&name).ok();
            if found.is_some_and(|container| container.name() == name) {
                return Err(Refusal::conflict(format!(
                    "the app {} needs the name {name}, which a container has: rename or remove it",
                    app.name
                )));
            }
        }
    }
    if is_here {
        create::examine(engine, Door::Kakoi, request::body(app), None).await?;
    }
    Ok(())
}

/// Waits until nothing is being done, or the app is gone.
pub async fn until_steady(standing: &mut Standing) {
    // An error means that the app is gone.
    drop(standing.wait_for(|state| state.phase == Phase::Steady).await);
}
