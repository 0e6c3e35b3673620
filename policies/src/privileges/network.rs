//! What may be reached, and from where it is reached.

use super::{Found, HeldPort, Privileges};
use crate::confinement::{Destination, NetworkMode, PortRange, Reach};

pub(super) fn beyond(from: &Privileges, to: &Privileges, found: &mut Found) {
    let (was, is) = (from.confinement.network, to.confinement.network);
    if rank(is) > rank(was) {
        found.add_over("network", word(is), word(was));
    }
    if is == NetworkMode::Bridge && was != NetworkMode::Host {
        for network in to.networks.iter().filter(|name| !from.networks.contains(name)) {
            found.add("network", format!("the network {network}"));
        }
        reach(from, to, found);
    }
    for port in &to.ports {
        if !from.ports.iter().any(|had| had.covers(port)) {
            found.add("published ports", port.words());
        }
    }
}

fn reach(from: &Privileges, to: &Privileges, found: &mut Found) {
    let nothing = Reach::default();
    let was = match from.confinement.network {
        NetworkMode::None => &nothing,
        _ => &from.confinement.reach,
    };
    let (had, knew) = match was {
        Reach::Networks => return,
        Reach::Only { destinations, peers } => (destinations, peers),
    };
    match &to.confinement.reach {
        Reach::Networks => found.add("network", "packets to whatever its networks reach"),
        Reach::Only { destinations, peers } => {
            for destination in destinations {
                if !is_covered(had, destination) {
                    found.add("network", format!("packets to {destination}"));
                }
            }
            for peer in peers.iter().filter(|peer| !knew.contains(peer)) {
                found.add("network", format!("packets to the container {peer}"));
            }
        }
    }
}

/// Whether each port of a destination lies within some destination that was had.
fn is_covered(had: &[Destination], asked: &Destination) -> bool {
    let one = |ports: Vec<PortRange>| Destination {
        ports,
        ..asked.clone()
    };
    let within = |part: &Destination| had.iter().any(|had| had.covers(part));
    within(asked) || (!asked.ports.is_empty() && asked.ports.iter().all(|range| within(&one(vec![*range]))))
}

impl HeldPort {
    fn covers(&self, other: &Self) -> bool {
        // A port that the device chooses may be any.
        let is_chosen = self.first == 0 || other.first == 0;
        let has_ports = match is_chosen {
            true => self.first == other.first,
            false => self.first <= other.first && other.last <= self.last,
        };
        self.protocol == other.protocol
            && has_ports
            && (self.address.is_none() || self.address == other.address)
    }

    fn words(&self) -> String {
        let ports = match (self.first, self.last) {
            (0, _) => "a port that the device chooses".to_owned(),
            (first, last) if first == last => format!("port {first}"),
            (first, last) => format!("ports {first}-{last}"),
        };
        let place = match self.address {
            None => "every address of the device".to_owned(),
            Some(address) => address.to_string(),
        };
        format!("{ports}/{} on {place}", self.protocol)
    }
}

fn rank(mode: NetworkMode) -> u8 {
    match mode {
        NetworkMode::None => 0,
        NetworkMode::Bridge => 1,
        NetworkMode::Host => 2,
    }
}

fn word(mode: NetworkMode) -> &'static str {
    match mode {
        NetworkMode::None => "none",
        NetworkMode::Bridge => "a bridge",
        NetworkMode::Host => "the device's own",
    }
}
