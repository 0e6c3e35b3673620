//! Published ports of one run: the sockets that hold them, where they lead, and what this process carries itself.

use std::net::{IpAddr, SocketAddr};

use kakoi_net::ports::{self as host_ports, Proxy, Reservation};

use super::{Kept, Live, PORT_ATTEMPTS, Port, failed};
use crate::networks::record::option;
use crate::networks::{NetworkRecord, ports};
use crate::refusal::{Answer, Refusal, chain};
use crate::state::Record;

impl Live {
    /// Lets go of the sockets that hold a port, where it has them.
    fn release(&mut self, wanted: &ports::Wanted, hosts: &[IpAddr]) -> Vec<Reservation> {
        let mut released = Vec::new();
        for (at, held) in std::mem::take(&mut self.reservations)
            .into_iter()
            .enumerate()
            .rev()
        {
            let address = held.address();
            let is_wanted = held.protocol() == wanted.inside.protocol
                && hosts.contains(&address.ip())
                && wanted
                    .ports
                    .as_ref()
                    .is_some_and(|ports| ports.contains(&address.port()));
            if is_wanted {
                self.kept.ports.remove(at);
                released.push(held);
            } else {
                self.reservations.push(held);
            }
        }
        self.reservations.reverse();
        released
    }
}

/// Takes the ports that a container publishes, and says where they lead: those that others hold from these, the rest of the host.
pub(super) fn publish(
    live: &mut Live,
    others: &mut [&mut Live],
    rows: &[NetworkRecord],
    record: &Record,
) -> Answer<()> {
    for wanted in ports::wanted(&record.host_config, &record.config.exposed_ports)? {
        let otherwise = rows.iter().find_map(|row| {
            let text = row.options.get(option::HOST_BINDING)?;
            text.parse().ok()
        });
        // A network that leads nowhere publishes nothing: dockerd accepts it in silence, and so do its clients.
        if live.kept.places.iter().all(|place| place.gateways.is_empty()) {
            continue;
        }
        let hosts = wanted.hosts(otherwise);
        let mut held = others.iter_mut().map(|other| other.release(&wanted, &hosts));
        let reservations = match held.find(|held| !held.is_empty()) {
            Some(held) => Ok(held),
            None => reserve(&wanted, &hosts),
        };
        let reservations = reservations.map_err(|error| Refusal {
            message: format!(
                "failed to set up container networking: driver failed programming external connectivity on endpoint {} ({}): {error}",
                record.name,
                live.kept.places.first().map_or("", |place| &place.endpoint_id),
            ),
            ..Refusal::broken("")
        })?;
        for reservation in reservations {
            live.kept.ports.push(Port {
                inside: wanted.inside.port,
                protocol: wanted.inside.protocol.to_string(),
                host: reservation.address(),
            });
            live.reservations.push(reservation);
        }
    }
    Ok(())
}

/// The first port that is free at every address. A family that this kernel does not have is left out, if it is not the only one.
fn reserve(wanted: &ports::Wanted, hosts: &[IpAddr]) -> Result<Vec<Reservation>, host_ports::PortError> {
    let protocol = wanted.inside.protocol;
    let range = wanted.ports.clone().unwrap_or(0..=0);
    let mut from = range.clone();
    for attempt in 0.. {
        let first = host_ports::reserve(hosts[0], from.clone(), protocol)?;
        let port = first.address().port();
        let mut all = vec![first];
        let mut refusal = None;
        for host in &hosts[1..] {
            match host_ports::reserve(*host, port..=port, protocol) {
                Ok(reservation) => all.push(reservation),
                Err(error @ host_ports::PortError::Taken { .. }) => refusal = Some(error),
                Err(error) => {
                    tracing::debug!(%host, error = chain(&error), "a port is not published there, ignoring");
                }
            }
        }
        let Some(error) = refusal else { return Ok(all) };
        let is_last = attempt == PORT_ATTEMPTS || port == *range.end();
        if is_last {
            return Err(error);
        }
        if wanted.ports.is_some() {
            from = port + 1..=*range.end();
        }
    }
    unreachable!("the attempts are counted")
}

/// Where a published port leads: the place with the default route of its family, else of the other.
pub(in crate::networks) fn target(kept: &Kept, port: &Port) -> Option<SocketAddr> {
    let address = |is_ipv6: bool| {
        let mut places = kept.places.iter();
        let routed = places.find(|place| place.gateways.iter().any(|gateway| gateway.is_ipv6() == is_ipv6));
        Some(routed?.address(is_ipv6)?.addr())
    };
    let own = port.host.is_ipv6();
    address(own)
        .or_else(|| address(!own))
        .map(|address| SocketAddr::new(address, port.inside))
}

/// Answers what comes to the sockets themselves, for all ports that lead somewhere.
pub(super) fn proxies(live: &Live) -> Answer<Vec<Proxy>> {
    std::iter::zip(&live.reservations, &live.kept.ports)
        .filter_map(|(reservation, port)| Some(answer(reservation, target(&live.kept, port)?)))
        .collect()
}

/// Carries what the firewall cannot, and refuses what came before the firewall knew of the port.
pub(super) fn answer(reservation: &Reservation, target: SocketAddr) -> Answer<Proxy> {
    match host_ports::needs_proxy(reservation.address().ip(), target) {
        true => Proxy::start(reservation, target),
        false => Proxy::refuse(reservation),
    }
    .map_err(|cause| failed("", cause))
}
