//! One container takes the place of another in front of the world: its published ports, and the names that both may bear.
//!
//! A container that is started *beside* another ([`Kept::is_beside`]) has addresses and its own name, and publishes nothing yet. Taking over gives it the
//! sockets that hold the ports, tells the packet filter in one transaction, and leaves connections that were there with the one that had them.
//! Invariant: at every moment each port leads to one of the two.

use std::net::IpAddr;
use std::sync::Arc;

use kakoi_api::network::EndpointSettings;
use kakoi_net::ports::{self as host_ports, Proxy};

use super::place::{self, Who};
use super::published::answer;
use super::{Kept, Live, keep_while_it_runs, on_thread, publish, target};
use crate::engine::Engine;
use crate::networks::{NetworkRecord, Networks};
use crate::refusal::{Answer, Refusal, chain};
use crate::state::Record;

/// What both had before.
struct Before {
    own: Kept,
    other: Option<Kept>,
}

impl Networks {
    /// Whether a container runs beside another and publishes nothing yet.
    pub fn is_beside(&self, id: &str) -> bool {
        let state = self.state();
        state.live.get(id).is_some_and(|live| live.kept.is_beside)
    }

    /// Gives a container that runs beside another what its record publishes: from `from`, what that has of it; the rest anew. Where that fails,
    /// everything is as it was.
    pub async fn take_over(&self, engine: &Arc<Engine>, record: &Record, from: Option<&str>) -> Answer<()> {
        let _turn = self.turn.lock().await;
        let rows = self.rows_of(record)?;
        let before = self.move_ports(record, from, &rows)?;
        let told = match before.published {
            Ok(()) => self.tell_both(engine, &record.id, from).await,
            Err(refusal) => Err(refusal),
        };
        match told {
            Ok(()) => self.move_proxies(&record.id, from),
            Err(refusal) => {
                self.undo(&record.id, from, before.kept);
                let telling = engine.clone();
                if let Err(again) = on_thread(move || telling.networks.retell()).await {
                    tracing::error!(container = %record.id, error = chain(&again), "a hand-over was not taken back whole");
                }
                Err(refusal)
            }
        }
    }

    fn rows_of(&self, record: &Record) -> Answer<Vec<NetworkRecord>> {
        let row = |(name, settings): (&String, &EndpointSettings)| {
            self.find(match settings.network_id.as_str() {
                "" => name,
                id => id,
            })
        };
        record.networks.iter().map(row).collect()
    }

    /// Moves what is held, in memory; says what was before, and how far that went well.
    fn move_ports(&self, record: &Record, from: Option<&str>, rows: &[NetworkRecord]) -> Answer<Moved> {
        let mut state = self.state();
        let own = state.live.remove(&record.id);
        let mut own = own.ok_or_else(|| Refusal::conflict("the container is not running"))?;
        let mut other = from.and_then(|id| Some((id, state.live.remove(id)?)));
        let kept = Before {
            own: own.kept.clone(),
            other: other.as_ref().map(|(_, other)| other.kept.clone()),
        };
        // What it has itself, where a daemon that was killed came as far as that.
        let mut had = Live::of(Kept {
            ports: std::mem::take(&mut own.kept.ports),
            ..Kept::default()
        });
        had.reservations = std::mem::take(&mut own.reservations);
        let mut holders = vec![&mut had];
        holders.extend(other.as_mut().map(|(_, other)| other));
        let published = publish(&mut own, &mut holders, rows, record);
        own.reservations.append(&mut had.reservations);
        own.kept.is_beside = false;
        give_names(
            &mut own.kept,
            other.as_mut().map(|(_, other)| &mut other.kept),
            rows,
            record,
        );
        state.live.insert(record.id.clone(), own);
        if let Some((id, other)) = other {
            state.live.insert(id.to_owned(), other);
        }
        Ok(Moved { kept, published })
    }

    async fn tell_both(&self, engine: &Arc<Engine>, own: &str, from: Option<&str>) -> Answer<()> {
        let kept: Vec<_> = {
            let state = self.state();
            let ids = std::iter::once(own).chain(from);
            ids.filter_map(|id| Some((engine.paths.run_dir(id), state.live.get(id)?.kept.clone())))
                .collect()
        };
        let telling = engine.clone();
        on_thread(move || {
            telling.networks.hand_over()?;
            // Of a daemon that is killed between the two, both have the ports in their files: the next one gives them to one, and the app's
            // supervisor looks which one it is to be.
            kept.iter()
                .try_for_each(|(run_dir, kept)| keep_while_it_runs(run_dir, kept))
        })
        .await
    }

    /// What this process carries goes to the one that has the ports now; what it carries already stays where it is.
    fn move_proxies(&self, own: &str, from: Option<&str>) -> Answer<()> {
        let mut state = self.state();
        let mut had = match from.and_then(|id| state.live.get_mut(id)) {
            Some(other) => std::mem::take(&mut other.proxies),
            None => Vec::new(),
        };
        let Some(live) = state.live.get_mut(own) else {
            return Ok(());
        };
        let mut moved = Vec::new();
        for (reservation, port) in std::iter::zip(&live.reservations, &live.kept.ports) {
            let Some(to) = target(&live.kept, port) else {
                continue;
            };
            let is_carried = host_ports::needs_proxy(port.host.ip(), to);
            let fits = |proxy: &Proxy| proxy.serves(reservation) && proxy.is_carrying() == is_carried;
            let at = had.iter().position(fits);
            moved.push(match at.map(|at| had.swap_remove(at)) {
                Some(proxy) => {
                    proxy.retarget(to);
                    proxy
                }
                None => answer(reservation, to)?,
            });
        }
        live.proxies = moved;
        // One that does not fit answers the same socket: it goes.
        had.retain(|proxy| !live.reservations.iter().any(|held| proxy.serves(held)));
        // The rest is of ports that only the other one publishes.
        if let Some(other) = from.and_then(|id| state.live.get_mut(id)) {
            other.proxies = had;
        }
        Ok(())
    }

    fn undo(&self, own: &str, from: Option<&str>, before: Before) {
        let mut state = self.state();
        let Some(mut live) = state.live.remove(own) else {
            return;
        };
        let mut held = std::mem::take(&mut live.reservations);
        let mut other = from.and_then(|id| state.live.remove(id).map(|other| (id, other)));
        if let Some((_, other)) = &mut other {
            held.append(&mut other.reservations);
        }
        live.kept = before.own;
        live.hold(&mut held);
        state.live.insert(own.to_owned(), live);
        if let (Some((id, mut other)), Some(kept)) = (other, before.other) {
            other.kept = kept;
            other.hold(&mut held);
            state.live.insert(id.to_owned(), other);
        }
    }

    /// How many TCP connections a container has open, of those that the kernel follows.
    pub async fn connections(&self, engine: &Arc<Engine>, id: &str) -> Answer<usize> {
        let addresses: Vec<IpAddr> = match self.state().live.get(id) {
            Some(live) => {
                let places = live.kept.places.iter();
                places
                    .flat_map(super::Place::all_addresses)
                    .map(|net| net.addr())
                    .collect()
            }
            None => return Ok(0),
        };
        let asking = engine.clone();
        on_thread(move || asking.networks.count_connections(&addresses)).await
    }
}

impl Live {
    /// Takes back the sockets of its ports from those that the two had between them.
    fn hold(&mut self, held: &mut Vec<host_ports::Reservation>) {
        for port in &self.kept.ports {
            let is_its = |held: &host_ports::Reservation| {
                held.address() == port.host && held.protocol() == port.transport()
            };
            let at = held.iter().position(is_its);
            let at = at.expect("whatever either held is held by one of the two");
            self.reservations.push(held.swap_remove(at));
        }
    }
}

struct Moved {
    kept: Before,
    published: Answer<()>,
}

/// Gives the one all its names, and leaves the other those that the one does not bear.
fn give_names(own: &mut Kept, other: Option<&mut Kept>, rows: &[NetworkRecord], record: &Record) {
    let who = Who {
        id: &record.id,
        name: &record.name,
        hostname: &record.config.hostname,
    };
    for place in &mut own.places {
        let row = rows.iter().find(|row| row.id == place.network);
        if let Some((row, settings)) = row.and_then(|row| Some((row, record.networks.get(&row.name)?))) {
            place.names = place::names_of(row, settings, who);
        }
    }
    for place in other.into_iter().flat_map(|other| &mut other.places) {
        let now = own.places.iter().find(|now| now.network == place.network);
        if let Some(now) = now {
            place.names.retain(|name| !now.names.contains(name));
        }
    }
}

/// Leaves a container that starts beside another the names that it alone bears.
pub(super) fn keep_own_names(kept: &mut Kept, rows: &[NetworkRecord], record: &Record) {
    let who = Who {
        id: &record.id,
        name: &record.name,
        hostname: &record.config.hostname,
    };
    for (place, row) in std::iter::zip(&mut kept.places, rows) {
        place.names = place::names_of(row, &EndpointSettings::default(), who);
    }
}
