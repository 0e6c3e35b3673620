//! What policies let containers reach, in the packet filter's words.

use std::net::IpAddr;
use std::time::Duration;

use kakoi_net::IpNet;
use kakoi_net::firewall::{Admitted, Allowed, Egress, Service};
use kakoi_net::ports::Protocol;
use kakoi_policy::confinement::{Destination, Reach, Target, Transport};

use super::State;
use super::live::Kept;

/// What one container may reach; `None` where nothing bounds it.
pub(super) fn egress(state: &State, kept: &Kept) -> Option<Egress> {
    let Reach::Only { destinations, peers } = &kept.reach else {
        return None;
    };
    let allowed = destinations.iter().flat_map(|destination| match &destination.to {
        Target::Network { address, prefix } => {
            let network = IpNet::new(*address, *prefix).expect("it was read as a network");
            services(destination)
                .into_iter()
                .map(|service| Allowed { network, service })
                .collect()
        }
        Target::Name(_) => Vec::new(),
    });
    Some(Egress {
        allowed: allowed.collect(),
        peers: addresses(state, kept, peers),
    })
}

/// Addresses of the containers of these names in the networks of one.
fn addresses(state: &State, kept: &Kept, names: &[String]) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for other in state.live.values() {
        for place in &other.kept.places {
            let is_near = kept.places.iter().any(|own| own.network == place.network);
            // A host name is chosen by whoever starts the other; so are aliases, but by whoever is in charge of the network.
            let bears = |name: &String, held: &String| {
                held.eq_ignore_ascii_case(name) && !held.eq_ignore_ascii_case(&other.kept.hostname)
            };
            let is_named = names.iter().any(|name| {
                name.eq_ignore_ascii_case(&other.kept.name)
                    || place.names.iter().any(|held| bears(name, held))
            });
            if is_near && is_named {
                found.extend(place.addresses.iter().map(IpNet::addr));
            }
        }
    }
    found
}

fn services(destination: &Destination) -> Vec<Service> {
    let Some(transport) = destination.transport else {
        return vec![Service::Any];
    };
    let protocol = match transport {
        Transport::Tcp => Protocol::Tcp,
        Transport::Udp => Protocol::Udp,
    };
    if destination.ports.is_empty() {
        return vec![Service::Ports {
            protocol,
            ports: 0..=u16::MAX,
        }];
    }
    destination
        .ports
        .iter()
        .map(|range| Service::Ports {
            protocol,
            ports: range.first..=range.last,
        })
        .collect()
}

/// Whether a policy lists names, which are let through as they are resolved.
pub(super) fn has_names(reach: &Reach) -> bool {
    match reach {
        Reach::Networks => false,
        Reach::Only { destinations, .. } => destinations
            .iter()
            .any(|destination| matches!(destination.to, Target::Name(_))),
    }
}

/// Whether a name that is no container's may be asked of the servers outside: each question is a word that gets out.
pub(super) fn may_ask(reach: &Reach, name: &str) -> bool {
    let Reach::Only { destinations, .. } = reach else {
        return true;
    };
    destinations.iter().any(|destination| match &destination.to {
        Target::Network { prefix, .. } => *prefix == 0,
        Target::Name(_) => destination.to.covers_name(name),
    })
}

/// What is let through because a name that the policy lists was resolved.
pub(super) fn admitted(reach: &Reach, name: &str, addresses: &[(IpAddr, Duration)]) -> Vec<Admitted> {
    let Reach::Only { destinations, .. } = reach else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for destination in destinations
        .iter()
        .filter(|destination| destination.to.covers_name(name))
    {
        for service in services(destination) {
            all.extend(addresses.iter().map(|(address, lifetime)| Admitted {
                address: *address,
                service: service.clone(),
                lifetime: *lifetime,
            }));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use kakoi_policy::confinement::PortRange;

    use super::*;

    fn only(destinations: &[(&str, &[u16])]) -> Reach {
        let destinations = destinations.iter().map(|(to, ports)| Destination {
            to: to.parse().expect("well-formed"),
            transport: (!ports.is_empty()).then_some(Transport::Tcp),
            ports: ports
                .iter()
                .map(|port| PortRange {
                    first: *port,
                    last: *port,
                })
                .collect(),
            rule: String::new(),
        });
        Reach::Only {
            destinations: destinations.collect(),
            peers: vec![],
        }
    }

    #[test]
    fn only_names_of_the_policy_are_asked_for_and_let_through() {
        let reach = only(&[("*.example.com", &[443, 8883]), ("192.0.2.0/24", &[])]);
        for (name, is_allowed) in [
            ("a.example.com", true),
            ("example.com", false),
            ("secret.evil.test", false),
        ] {
            assert_eq!(may_ask(&reach, name), is_allowed, "{name}");
            let found = [(IpAddr::from([203, 0, 113, 5]), Duration::from_secs(5))];
            let admitted = admitted(&reach, name, &found);
            assert_eq!(admitted.len(), if is_allowed { 2 } else { 0 }, "{name}");
        }
        assert!(may_ask(&Reach::Networks, "secret.evil.test"));
        assert!(may_ask(&only(&[("0.0.0.0/0", &[])]), "anything.test"));
        assert!(!may_ask(&Reach::default(), "anything.test"));
    }

    #[test]
    fn networks_become_entries_and_names_wait_until_they_are_resolved() {
        let kept = Kept {
            reach: only(&[
                ("*.example.com", &[443]),
                ("192.0.2.0/24", &[80, 81]),
                ("::1", &[]),
            ]),
            ..Kept::default()
        };
        let egress = egress(&State::default(), &kept).expect("it is bounded");
        assert_eq!(egress.allowed.len(), 3);
        assert_eq!(egress.allowed[2].service, Service::Any);
        assert!(egress.peers.is_empty());
        let open = Kept {
            reach: Reach::Networks,
            ..Kept::default()
        };
        assert_eq!(super::egress(&State::default(), &open), None);
    }
}
