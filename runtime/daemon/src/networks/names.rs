//! The names that one container sees: those of the containers in its networks.

use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::reach;
use crate::engine::Engine;
use crate::refusal::chain;

/// Digits of an id from which on its beginning names a container.
const ID_DIGITS_MIN: usize = 12;

/// What the name server of a container knows.
pub(super) struct Seen {
    engine: Weak<Engine>,
    id: String,
}

impl Seen {
    pub(super) fn of(engine: &Arc<Engine>, id: &str) -> Self {
        Self {
            engine: Arc::downgrade(engine),
            id: id.to_owned(),
        }
    }
}

impl kakoi_net::names::Names for Seen {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let engine = self.engine.upgrade()?;
        engine.networks.addresses_of(&self.id, name)
    }

    fn name(&self, address: IpAddr) -> Option<String> {
        let engine = self.engine.upgrade()?;
        engine.networks.name_of(&self.id, address)
    }

    fn may_ask(&self, name: &str) -> bool {
        self.engine
            .upgrade()
            .is_some_and(|engine| engine.networks.may_ask(&self.id, name))
    }

    fn wants_resolved(&self) -> bool {
        let engine = self.engine.upgrade();
        engine.is_some_and(|engine| engine.networks.lists_names(&self.id))
    }

    fn resolved(&self, name: &str, addresses: &[(IpAddr, Duration)]) {
        let Some(engine) = self.engine.upgrade() else {
            return;
        };
        if let Err(refusal) = engine.networks.admit(&self.id, name, addresses) {
            tracing::warn!(container = %self.id, error = chain(&refusal), "a resolved name is not let through");
        }
    }
}

impl super::State {
    /// Addresses of a container in a network, by its name, its id or the beginning of one, or a name that it has there.
    pub(super) fn addresses_in(&self, network: &str, name: &str) -> Vec<IpAddr> {
        let mut found = Vec::new();
        for (id, live) in &self.live {
            for place in live.kept.places.iter().filter(|place| place.network == network) {
                let bears = |held: &String| held.eq_ignore_ascii_case(name);
                if live.kept.name == name
                    || (name.len() >= ID_DIGITS_MIN && id.starts_with(name))
                    || place.names.iter().any(bears)
                {
                    found.extend(place.addresses.iter().map(|net| net.addr()));
                }
            }
        }
        found
    }
}

impl super::Networks {
    /// The addresses of a name, as a container sees it.
    fn addresses_of(&self, id: &str, name: &str) -> Option<Vec<IpAddr>> {
        let state = self.state();
        let own = &state.live.get(id)?.kept.places;
        let is_near = |network: &String| own.iter().any(|place| place.network == *network);
        let mut found = Vec::new();
        for place in own {
            let linked = place
                .links
                .iter()
                .filter(|(alias, _)| alias.eq_ignore_ascii_case(name));
            found.extend(linked.flat_map(|(_, other)| state.addresses_in(&place.network, other)));
        }
        for place in state.live.values().flat_map(|live| &live.kept.places) {
            let bears = |held: &String| {
                held.eq_ignore_ascii_case(name)
                    || state.rows.get(&place.network).is_some_and(|row| {
                        name.strip_suffix(row.name.as_str())
                            .and_then(|rest| rest.strip_suffix('.'))
                            .is_some_and(|rest| held.eq_ignore_ascii_case(rest))
                    })
            };
            if is_near(&place.network) && place.names.iter().any(bears) {
                found.extend(place.addresses.iter().map(|net| net.addr()));
            }
        }
        (!found.is_empty()).then_some(found)
    }

    /// The name of an address, as a container sees it.
    fn name_of(&self, id: &str, address: IpAddr) -> Option<String> {
        let state = self.state();
        let own = &state.live.get(id)?.kept.places;
        state
            .live
            .values()
            .flat_map(|live| &live.kept.places)
            .filter(|place| own.iter().any(|near| near.network == place.network))
            .find(|place| place.addresses.iter().any(|net| net.addr() == address))
            .and_then(|place| {
                let network = state.rows.get(&place.network)?;
                Some(format!("{}.{}", place.names.first()?, network.name))
            })
    }

    /// Whether a container's policy lists names.
    fn lists_names(&self, id: &str) -> bool {
        let state = self.state();
        state
            .live
            .get(id)
            .is_some_and(|live| reach::has_names(&live.kept.reach))
    }

    /// Whether a name may be asked outside: one that the policy lets through, by a container that is not only in internal networks.
    fn may_ask(&self, id: &str, name: &str) -> bool {
        let state = self.state();
        let Some(live) = state.live.get(id) else {
            return false;
        };
        let mut rows = live
            .kept
            .places
            .iter()
            .filter_map(|place| state.rows.get(&place.network));
        rows.any(|row| !row.internal) && reach::may_ask(&live.kept.reach, name)
    }
}
