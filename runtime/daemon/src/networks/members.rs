//! Connecting containers to networks and taking them out again, on a person's behalf.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::StatusCode;
use kakoi_api::network::EndpointSettings;

use super::kernel::on_thread;
use super::{FIXED, Networks, ask, live};
use crate::engine::Engine;
use crate::life::container::{Container, Phase};
use crate::refusal::{Answer, Refusal};
use crate::state::{Record, copies};

impl Networks {
    /// Connects a container to a network; one that runs gets its link at once, another at its next start.
    pub async fn connect(
        &self,
        engine: &Arc<Engine>,
        wanted: &str,
        container: &Arc<Container>,
        settings: EndpointSettings,
    ) -> Answer<()> {
        let _container_turn = container.turn().await;
        let _turn = self.turn.lock().await;
        let (before, phase) = {
            let shared = container.shared();
            (shared.record.clone(), shared.phase)
        };
        check_phase(phase)?;
        check_mode(&before.host_config.network_mode, wanted)?;
        let row = self.find(wanted)?;
        if before.networks.contains_key(&row.name) {
            return Err(Refusal::forbidden(format!(
                "endpoint with name {} already exists in network {}",
                before.name, row.name
            )));
        }
        ask::check(&row.name, &settings, Some(&row))
            .map_err(|why| Refusal::bad(format!("invalid config for network {}: {why}", row.name)))?;
        let mut record = before.clone();
        let settings = EndpointSettings {
            network_id: row.id.clone(),
            ..settings
        };
        record.networks.insert(row.name.clone(), settings);
        if phase.is_up() {
            self.join(engine, &record, &row.name).await?;
        }
        if let Err(refusal) = keep_record(engine, &record).await {
            if phase.is_up() {
                self.part(engine, &before, &row.id).await?;
            }
            return Err(refusal);
        }
        container.shared().record.networks = record.networks;
        if phase.is_up() {
            self.tell_of(engine, "connect", &container.id, &row.id, &row.name);
        }
        Ok(())
    }

    /// Takes a container out of a network.
    pub async fn disconnect(
        &self,
        engine: &Arc<Engine>,
        wanted: &str,
        name: &str,
        force: bool,
    ) -> Answer<()> {
        let container = match engine.containers.find(name) {
            // It is gone, and its places with it.
            Err(refusal) if force && refusal.status == StatusCode::NOT_FOUND => {
                return self.find(wanted).map(drop);
            }
            found => found?,
        };
        let _container_turn = container.turn().await;
        let _turn = self.turn.lock().await;
        let (before, phase) = {
            let shared = container.shared();
            (shared.record.clone(), shared.phase)
        };
        check_phase(phase)?;
        let is_fixed = FIXED.iter().any(|(fixed, _)| *fixed == wanted);
        if is_fixed && before.host_config.network_mode == "host" {
            return Err(Refusal::bad(
                "container cannot be disconnected from host network or connected to host network",
            ));
        }
        let row = self.find(wanted)?;
        if !before.networks.contains_key(&row.name) {
            return Err(Refusal::broken(format!(
                "container {} is not connected to network {}",
                container.id, row.name
            )));
        }
        let mut record = before.clone();
        record.networks.remove(&row.name);
        // First the link: if the record then says otherwise, the next start connects it again.
        if phase.is_up() {
            self.part(engine, &record, &row.id).await?;
        }
        keep_record(engine, &record).await?;
        container.shared().record.networks.clone_from(&record.networks);
        if phase.is_up() {
            self.tell_of(engine, "disconnect", &container.id, &row.id, &row.name);
        }
        Ok(())
    }

    /// Lets a running container be found by its new name, and by its old one no more.
    pub async fn rename(&self, engine: &Arc<Engine>, id: &str, from: &str, to: &str) -> Answer<()> {
        let _turn = self.turn.lock().await;
        let (before, kept) = {
            let mut state = self.state();
            let Some(live) = state.live.get_mut(id) else {
                return Ok(());
            };
            let before = live.kept.clone();
            to.clone_into(&mut live.kept.name);
            for place in &mut live.kept.places {
                let is_new = !place.names.iter().any(|name| name.eq_ignore_ascii_case(to));
                let at = place.names.iter().position(|name| name == from);
                match at {
                    Some(at) if is_new => to.clone_into(&mut place.names[at]),
                    Some(at) => drop(place.names.remove(at)),
                    None => {}
                }
            }
            (before, live.kept.clone())
        };
        let (run_dir, telling) = (engine.paths.run_dir(id), engine.clone());
        // Policies name others by their names.
        let told = on_thread(move || {
            live::keep_while_it_runs(&run_dir, &kept)?;
            telling.networks.retell()
        })
        .await;
        if told.is_err()
            && let Some(live) = self.state().live.get_mut(id)
        {
            live.kept = before;
        }
        told
    }

    /// Brings the links, default routes and rules of a running container back, whoever took them away.
    pub async fn reload(&self, engine: &Arc<Engine>, container: &Arc<Container>) -> Answer<()> {
        let _container_turn = container.turn().await;
        let _turn = self.turn.lock().await;
        if !container.shared().phase.is_up() {
            return Err(Refusal::conflict(format!(
                "container {} is not running",
                container.name()
            )));
        }
        let Some((kept, network)) = self.held(&container.id)? else {
            return Ok(());
        };
        let kernel = engine.clone();
        on_thread(move || kernel.networks.mend(&kept, &network)).await
    }

    /// Takes a link away: `/container/alias`. dockerd's answers, whose mistakes of a client are its own.
    pub async fn unlink(&self, engine: &Arc<Engine>, link: &str) -> Answer<()> {
        let link = link.trim_start_matches('/');
        let Some((parent, alias)) = link.rsplit_once('/') else {
            engine.containers.find(link)?;
            return Err(Refusal::broken(
                "Conflict, cannot remove the default link name of the container",
            ));
        };
        let missing = || Refusal::missing(format!("No such container: {link}"));
        let container = engine.containers.find(parent).map_err(|_| missing())?;
        let _container_turn = container.turn().await;
        let _turn = self.turn.lock().await;
        let mut record = container.shared().record.clone();
        let before = record.clone();
        let stays = |text: &String| ask::link(text).is_none_or(|(_, name)| name != alias);
        record.host_config.links.retain(stays);
        for settings in record.networks.values_mut() {
            settings.links.iter_mut().for_each(|links| links.retain(stays));
        }
        if record.host_config.links == before.host_config.links && record.networks == before.networks {
            return Err(missing());
        }
        keep_record(engine, &record).await?;
        {
            let mut shared = container.shared();
            shared.record.host_config.links = record.host_config.links;
            shared.record.networks = record.networks;
        }
        let kept = self.state().live.get_mut(&container.id).map(|live| {
            for place in &mut live.kept.places {
                place.links.retain(|(name, _)| name != alias);
            }
            live.kept.clone()
        });
        let Some(kept) = kept else { return Ok(()) };
        let run_dir = engine.paths.run_dir(&container.id);
        on_thread(move || live::keep_while_it_runs(&run_dir, &kept)).await
    }

    /// Tells that a container is in a network, or no more.
    pub fn tell_of(&self, engine: &Engine, what: &str, container: &str, id: &str, name: &str) {
        let fixed = FIXED.iter().find(|(fixed, _)| *fixed == name);
        let driver = fixed.map_or("bridge", |(_, driver)| driver);
        let attributes = BTreeMap::from([
            ("container".into(), container.to_owned()),
            ("name".into(), name.to_owned()),
            ("type".into(), driver.to_owned()),
        ]);
        engine.events.tell("network", what, id, attributes);
    }
}

/// Records where a container is now, and in its copy too: one that comes back from that must not be in a network that it left.
async fn keep_record(engine: &Engine, record: &Record) -> Answer<()> {
    let done = engine.store.put(record).await;
    done.map_err(|cause| Refusal::failed("the container's networks cannot be recorded", cause))?;
    if !record.host_config.auto_remove {
        copies::keep(&engine.paths.state_dir(&record.id), record);
    }
    Ok(())
}

/// Whether a container of this mode can be connected to anything: Docker's refusals in its words.
fn check_mode(mode: &str, wanted: &str) -> Answer<()> {
    if mode.starts_with("container:") {
        return Err(Refusal::bad(
            "container sharing network namespace with another container or host cannot be connected to any other network",
        ));
    }
    if mode == "host" || wanted == "host" {
        return Err(Refusal::bad(
            "container cannot be disconnected from host network or connected to host network",
        ));
    }
    if mode == "none" || wanted == "none" {
        return Err(Refusal::bad(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        ));
    }
    Ok(())
}

/// Whether a container that is being removed can still be connected: it cannot.
fn check_phase(phase: Phase) -> Answer<()> {
    if matches!(phase, Phase::Removing | Phase::Dead) {
        return Err(Refusal::conflict(
            "container is marked for removal and cannot be connected or disconnected to the network",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_without_a_network_of_their_own_cannot_be_connected() {
        for (mode, wanted, is_right) in [
            ("bridge", "app", true),
            ("app", "bridge", true),
            ("host", "app", false),
            ("none", "app", false),
            ("container:x", "app", false),
            ("app", "host", false),
            ("app", "none", false),
        ] {
            assert_eq!(check_mode(mode, wanted).is_ok(), is_right, "{mode} {wanted}");
        }
        assert!(check_phase(Phase::Running).is_ok());
        assert!(check_phase(Phase::Dead).is_err());
    }
}
