//! What is wanted, as elements of the tables' sets.
//!
//! Pure: a firewall is decided here and put into force elsewhere. Owns each set's layout beside its declaration in [`super::tables`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::boxes::{Box3, disjoint, protocol_number};
use super::{
    ADMITTED_COUNT_MAX, ADMITTED_EVICTED, ADMITTED_OF_ONE_MAX, AdmittedUntil, Egress, Endpoint,
    FirewallError, Life, Network, Published, Result, Wanted,
};
use crate::nft::{Element, Elements, Family, concat};

use Family::{Bridge, Inet};

/// Pieces of one endpoint's list after cutting. A list of 64 destinations without overlaps makes 64.
const PIECES_MAX: usize = 512;

/// Everything wanted but names, for the scope whose links are of this group.
pub(super) fn of(wanted: &Wanted, group: u32) -> Result<Elements> {
    let mut elements = Elements::new();
    put(&mut elements, (Bridge, "groups"), group.to_ne_bytes().to_vec());
    for network in &wanted.networks {
        put_network(&mut elements, network)?;
    }
    let quiet: BTreeSet<_> = wanted.networks.iter().filter(|network| !network.icc).collect();
    for endpoint in &wanted.endpoints {
        let is_quiet = quiet.iter().any(|network| network.bridge == endpoint.bridge);
        put_endpoint(&mut elements, endpoint, is_quiet)?;
    }
    for (from, to) in peers(&wanted.endpoints) {
        let (set, pair) = (
            per_family("peers4", "peers6", from),
            concat(&[&octets(from), &octets(to)]),
        );
        put(&mut elements, (Inet, set), pair.clone());
        put(&mut elements, (Bridge, set), pair);
    }
    for published in &wanted.published {
        put_published(&mut elements, published)?;
    }
    Ok(elements)
}

fn put(elements: &mut Elements, set: (Family, &'static str), key: Vec<u8>) {
    elements.entry(set).or_default().insert(Element::of(key));
}

pub(super) fn per_family(ipv4: &'static str, ipv6: &'static str, address: IpAddr) -> &'static str {
    if address.is_ipv4() { ipv4 } else { ipv6 }
}

/// An interface name in a register: zeros behind it.
pub(super) fn name(name: &str) -> Result<[u8; 16]> {
    let mut register = [0; 16];
    if name.is_empty() || name.len() > 15 {
        return Err(FirewallError::Name {
            name: name.to_owned(),
        });
    }
    register[..name.len()].copy_from_slice(name.as_bytes());
    Ok(register)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn put_network(elements: &mut Elements, network: &Network) -> Result<()> {
    let bridge = name(&network.bridge)?;
    put(elements, (Inet, "bridges"), bridge.to_vec());
    put(elements, (Inet, "same"), concat(&[&bridge, &bridge]));
    for (wanted, set) in [
        (network.internal, "internal"),
        (network.icc, "icc"),
        (network.masquerade && !network.internal, "masquerade"),
    ] {
        if wanted {
            put(elements, (Inet, set), bridge.to_vec());
        }
    }
    Ok(())
}

fn put_endpoint(elements: &mut Elements, endpoint: &Endpoint, is_quiet: bool) -> Result<()> {
    let link = name(&endpoint.host_link)?;
    let bridge = name(&endpoint.bridge)?;
    put(elements, (Bridge, "ports"), link.to_vec());
    put(elements, (Bridge, "loops"), concat(&[&link, &link]));
    if is_quiet {
        put(elements, (Bridge, "quiet"), link.to_vec());
    }
    put(elements, (Bridge, "macs"), concat(&[&link, &endpoint.mac.0]));
    let mut own = endpoint.addresses.clone();
    if own.iter().any(IpAddr::is_ipv6) {
        own.push(IpAddr::V6(endpoint.mac.link_local()));
    }
    for address in &own {
        let set = per_family("members4", "members6", *address);
        put(elements, (Inet, set), concat(&[&bridge, &octets(*address)]));
        let set = per_family("own4", "own6", *address);
        put(elements, (Bridge, set), concat(&[&link, &octets(*address)]));
    }
    let Some(egress) = &endpoint.egress else {
        return Ok(());
    };
    put(elements, (Bridge, "limited"), link.to_vec());
    for address in own {
        put(
            elements,
            (Inet, per_family("limited4", "limited6", address)),
            octets(address),
        );
        put_allowed(elements, endpoint, address, egress)?;
    }
    Ok(())
}

fn put_allowed(elements: &mut Elements, endpoint: &Endpoint, from: IpAddr, egress: &Egress) -> Result<()> {
    let of_family = |network: &IpNet| network.addr().is_ipv4() == from.is_ipv4();
    let allowed = egress
        .allowed
        .iter()
        .filter(|allowed| of_family(&allowed.network));
    let pieces = disjoint(allowed.map(|allowed| (Box3::new(allowed.network, &allowed.service), ())));
    if pieces.len() > PIECES_MAX {
        return Err(FirewallError::TooManyAllowed {
            host_link: endpoint.host_link.clone(),
            pieces: pieces.len(),
            most: PIECES_MAX,
        });
    }
    let set = (Inet, per_family("allowed4", "allowed6", from));
    let ranges = pieces.into_iter().map(|(piece, ())| range(from, piece));
    elements.entry(set).or_default().extend(ranges);
    Ok(())
}

/// An element whose key is a source, and ranges of destinations, protocols and ports.
fn range(from: IpAddr, piece: Box3) -> Element {
    let end = |address: u128, protocol: u8, port: u16| {
        let address = match from {
            // Of this family, so that it fits.
            IpAddr::V4(_) => Ipv4Addr::from(address as u32).octets().to_vec(),
            IpAddr::V6(_) => Ipv6Addr::from(address).octets().to_vec(),
        };
        concat(&[&octets(from), &address, &[protocol], &port.to_be_bytes()])
    };
    let (addresses, protocols, ports) = (piece.addresses(), piece.protocols(), piece.ports());
    Element {
        key_end: Some(end(addresses.1, protocols.1, ports.1)),
        ..Element::of(end(addresses.0, protocols.0, ports.0))
    }
}

/// Pairs of addresses on one bridge that may talk, in both directions, where one of the two is limited: each has to list the other, and one
/// without a list lists everyone.
fn peers(endpoints: &[Endpoint]) -> BTreeSet<(IpAddr, IpAddr)> {
    let mut by_address: BTreeMap<(&str, IpAddr), &Endpoint> = BTreeMap::new();
    for endpoint in endpoints {
        for address in &endpoint.addresses {
            by_address.insert((&endpoint.bridge, *address), endpoint);
        }
    }
    let lists = |endpoint: &Endpoint, other: IpAddr| match &endpoint.egress {
        None => true,
        Some(egress) => egress.peers.contains(&other),
    };
    let mut pairs = BTreeSet::new();
    for endpoint in endpoints {
        let Some(egress) = &endpoint.egress else {
            continue;
        };
        // Itself, by a port that it published.
        pairs.extend(endpoint.addresses.iter().map(|own| (*own, *own)));
        for theirs in &egress.peers {
            let Some(other) = by_address.get(&(endpoint.bridge.as_str(), *theirs)) else {
                continue;
            };
            let own = endpoint.addresses.iter();
            for own in own.filter(|own| own.is_ipv4() == theirs.is_ipv4() && lists(other, **own)) {
                pairs.insert((*own, *theirs));
                pairs.insert((*theirs, *own));
            }
        }
    }
    pairs
}

fn put_published(elements: &mut Elements, published: &Published) -> Result<()> {
    let (host, target) = (published.host_address, published.target);
    if host.is_ipv4() != target.is_ipv4() {
        return Err(FirewallError::Families {
            host,
            port: published.host_port,
            target,
        });
    }
    let protocol = [protocol_number(published.protocol)];
    let host_port = published.host_port.to_be_bytes();
    let (address, port) = (octets(target.ip()), target.port().to_be_bytes());
    let (set, key) = if host.is_unspecified() {
        (per_family("any4", "any6", host), concat(&[&protocol, &host_port]))
    } else {
        let key = concat(&[&octets(host), &protocol, &host_port]);
        (per_family("at4", "at6", host), key)
    };
    elements.entry((Inet, set)).or_default().insert(Element {
        data: Some(concat(&[&address, &port])),
        ..Element::of(key)
    });
    let bridge = name(&published.bridge)?;
    let set = (Inet, per_family("targets4", "targets6", host));
    put(elements, set, concat(&[&bridge, &address, &protocol, &port]));
    Ok(())
}

/// Whether elements would have to leave a set of ranges.
pub(super) fn takes_ranges(there: &Elements, wanted: &Elements) -> bool {
    ["allowed4", "allowed6"].into_iter().any(|set| {
        let there = there.get(&(Inet, set)).into_iter().flatten();
        let wanted = wanted.get(&(Inet, set));
        there
            .into_iter()
            .any(|element| !wanted.is_some_and(|wanted| wanted.contains(element)))
    })
}

/// The sets that names feed.
pub(super) const NAMED: [(Family, &str); 2] = [(Inet, "named4"), (Inet, "named6")];

/// Whether an endpoint has a list.
pub(super) fn is_limited(elements: &Elements, address: IpAddr) -> bool {
    let set = elements.get(&(Inet, per_family("limited4", "limited6", address)));
    set.is_some_and(|set| set.contains(&Element::of(octets(address))))
}

/// Takes elements of a set that names feed for what was admitted. What does not look like one of ours is left out.
pub(super) fn take_over(admitted: &mut AdmittedUntil, there: &[Element], now: Instant) {
    for element in there {
        let Some((pair, whole)) = read_range(element) else {
            continue;
        };
        let until = now + Duration::from_millis(element.timeout.unwrap_or(0));
        let told = until;
        admitted
            .entry(pair)
            .or_default()
            .push(Life { whole, until, told });
    }
}

/// The reverse of [`range`], for one destination.
fn read_range(element: &Element) -> Option<((IpAddr, IpAddr), Box3)> {
    let read = |key: &[u8]| {
        let length = match key.len() {
            16 => 4,
            40 => 16,
            _ => return None,
        };
        let (from, rest) = key.split_at(length);
        let (to, rest) = rest.split_at(length);
        let address = |octets: &[u8]| match <[u8; 4]>::try_from(octets) {
            Ok(octets) => Some(IpAddr::from(octets)),
            Err(_) => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        };
        let port = u16::from_be_bytes([rest[4], rest[5]]);
        Some(((address(from)?, address(to)?), rest[0], port))
    };
    let (pair, protocol, port) = read(&element.key)?;
    let (end_pair, end_protocol, end_port) = read(element.key_end.as_deref()?)?;
    let whole = Box3::of_one(pair.1, (protocol, end_protocol), (port, end_port));
    (pair == end_pair).then_some((pair, whole))
}

/// Forgets what has run out.
pub(super) fn forget_old(admitted: &mut AdmittedUntil, now: Instant) {
    admitted.retain(|_, lives| {
        lives.retain(|life| life.until > now);
        !lives.is_empty()
    });
}

/// Makes room for what an endpoint is to be admitted. Tells whether something had to go.
pub(super) fn make_room(admitted: &mut AdmittedUntil, endpoint: IpAddr, added: usize) -> Result<bool> {
    if added > ADMITTED_OF_ONE_MAX {
        return Err(FirewallError::TooManyAtOnce { count: added });
    }
    let all: usize = admitted.values().map(Vec::len).sum();
    let own = admitted.iter().filter(|((from, _), _)| *from == endpoint);
    let mut ends: Vec<Instant> = own.flat_map(|(_, lives)| lives).map(|life| life.until).collect();
    let kept = if ends.len() + added > ADMITTED_OF_ONE_MAX {
        ends.len().min(ADMITTED_OF_ONE_MAX - added.max(ADMITTED_EVICTED))
    } else {
        ends.len()
    };
    let mut evicted = ends.len() - kept;
    if all - evicted + added > ADMITTED_COUNT_MAX {
        return Err(FirewallError::TooManyAdmitted);
    }
    if evicted == 0 {
        return Ok(false);
    }
    ends.sort_unstable();
    let last = ends[evicted - 1];
    for ((from, _), lives) in admitted.iter_mut() {
        lives.retain(|life| {
            let goes = *from == endpoint && life.until <= last && evicted > 0;
            evicted -= usize::from(goes);
            !goes
        });
    }
    admitted.retain(|_, lives| !lives.is_empty());
    Ok(true)
}

/// What names were resolved to. What several cover lives as long as the last of them.
pub(super) fn named(admitted: &AdmittedUntil, now: Instant) -> Elements {
    let mut elements = Elements::new();
    for ((from, to), lives) in admitted {
        let mut lives = lives.clone();
        lives.sort_by_key(|life| std::cmp::Reverse(life.until));
        for (piece, until) in disjoint(lives.into_iter().map(|life| (life.whole, life.until))) {
            let lifetime = until.saturating_duration_since(now).as_millis();
            let element = Element {
                timeout: Some(u64::try_from(lifetime).unwrap_or(u64::MAX).max(1)),
                ..range(*from, piece)
            };
            let set = (Inet, per_family("named4", "named6", *to));
            elements.entry(set).or_default().insert(element);
        }
    }
    elements
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Mac;

    fn endpoint(bridge: &str, address: &str, peers: Option<&[&str]>) -> Endpoint {
        let address: IpAddr = address.parse().expect("an address");
        Endpoint {
            host_link: format!("v{}", octets(address)[3]),
            bridge: bridge.to_owned(),
            mac: Mac([2, 0, 0, 0, 0, octets(address)[3]]),
            addresses: vec![address],
            egress: peers.map(|peers| Egress {
                allowed: Vec::new(),
                peers: peers
                    .iter()
                    .map(|peer| peer.parse().expect("an address"))
                    .collect(),
            }),
        }
    }

    #[test]
    fn both_have_to_say_so() {
        let both = [("10.0.0.2", "10.0.0.3"), ("10.0.0.3", "10.0.0.2")];
        type Row<'a> = (Option<&'a [&'a str]>, &'a str, Option<&'a [&'a str]>, bool);
        let rows: [Row<'_>; 7] = [
            (Some(&["10.0.0.3"]), "a", Some(&["10.0.0.2"]), true),
            (Some(&["10.0.0.3"]), "a", None, true),
            (None, "a", Some(&["10.0.0.2"]), true),
            (Some(&["10.0.0.3"]), "a", Some(&[]), false),
            (Some(&[]), "a", None, false),
            (Some(&["10.0.0.3"]), "b", Some(&["10.0.0.2"]), false),
            (Some(&["10.0.0.4"]), "a", Some(&["10.0.0.2"]), false),
        ];
        for (first, bridge, second, talk) in rows {
            let endpoints = [
                endpoint("a", "10.0.0.2", first),
                endpoint(bridge, "10.0.0.3", second),
            ];
            let pairs: Vec<_> = peers(&endpoints)
                .into_iter()
                .filter(|(from, to)| from != to)
                .map(|(from, to)| (from.to_string(), to.to_string()))
                .collect();
            let expected: Vec<_> = both
                .iter()
                .filter(|_| talk)
                .map(|(from, to)| ((*from).to_owned(), (*to).to_owned()))
                .collect();
            assert_eq!(pairs, expected, "{first:?} {bridge} {second:?}");
        }
    }
}
