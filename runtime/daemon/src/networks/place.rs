//! Choosing a container's places: addresses, names, interfaces and default routes.
//!
//! Pure but for random ids: what is taken comes in, places or a refusal in Docker's words go out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use kakoi_api::network::EndpointSettings;
use kakoi_net::IpNet;
use kakoi_net::address::{self, Mac};

use super::ask::{self, Asked};
use super::live::{Live, Place};
use super::record::{Subnet, option};
use super::{BRIDGE, NetworkRecord};
use crate::names;
use crate::refusal::{Answer, Refusal};

/// Digits of an endpoint's id that name its link on the host: with the prefix they are what fits.
const LINK_DIGITS: usize = 11;
/// Digits of an id that are a name.
const SHORT_ID_DIGITS: usize = 12;

/// Who takes a place.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// The container's id.
    pub id: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its host name, where it asked for one.
    pub hostname: &'a str,
}

/// What is taken of all networks.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    addresses: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Of all networks: the packet filter knows an address that has a policy by itself alone.
    link_local: BTreeSet<IpAddr>,
}

impl Taken {
    /// What the containers that run have.
    pub fn by(live: &BTreeMap<String, Live>) -> Self {
        let mut taken = Self::default();
        for place in live.values().flat_map(|live| &live.kept.places) {
            let of = taken.addresses.entry(place.network.clone()).or_default();
            of.extend(place.addresses.iter().map(IpNet::addr));
            taken.link_local.extend(place.link_local.iter().map(IpNet::addr));
        }
        taken
    }
}

/// The address of each network that was given out last, so that one that was freed is not given to the next container at once.
pub type Last = BTreeMap<(String, bool), IpAddr>;

/// Chooses a place in one network. `interface` is the number of the interface inside.
pub fn choose(
    network: &NetworkRecord,
    settings: &EndpointSettings,
    who: Who<'_>,
    interface: usize,
    taken: &Taken,
    last: &mut Last,
) -> Answer<Place> {
    let endpoint_id = names::new_id().map_err(|cause| Refusal::failed("no random bytes for an id", cause))?;
    let ipam = settings.ipam_config.clone().unwrap_or_default();
    let mut addresses = Vec::new();
    for subnet in &network.subnets {
        let asked = if subnet.gateway.is_ipv6() {
            &ipam.ipv6_address
        } else {
            &ipam.ipv4_address
        };
        let address = address_of(network, subnet, asked, taken, last)?;
        let net = IpNet::new(address, subnet.net.prefix_len()).expect("the prefix is of the same family");
        addresses.push(net);
    }
    let first_v4 = addresses.iter().find_map(|net| match net.addr() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    let mac = match settings.mac_address.as_str() {
        "" => first_v4.map_or_else(|| random_mac(&endpoint_id), Mac::of_ipv4),
        text => text
            .parse()
            .map_err(|_| Refusal::bad(format!("invalid MAC address: {text}")))?,
    };
    let prefix = network
        .options
        .get(option::INTERFACE_PREFIX)
        .map_or("eth", String::as_str);
    Ok(Place {
        network: network.id.clone(),
        host_link: format!("kk{}", &endpoint_id[..LINK_DIGITS]),
        endpoint_id,
        interface: format!("{prefix}{interface}"),
        mac: mac.to_string(),
        addresses,
        gateways: Vec::new(),
        names: names_of(network, settings, who),
        links: Vec::new(),
        link_local: link_local(&ipam.link_local_ips, taken)?,
    })
}

/// Names that lead to a container in a network; in the network `bridge` there are none, as with Docker.
pub(super) fn names_of(network: &NetworkRecord, settings: &EndpointSettings, who: Who<'_>) -> Vec<String> {
    if network.name == BRIDGE {
        return Vec::new();
    }
    let mut all = vec![who.name.to_owned()];
    all.extend(settings.aliases.iter().flatten().cloned());
    all.push(who.id[..SHORT_ID_DIGITS.min(who.id.len())].to_owned());
    if !who.hostname.is_empty() {
        all.push(who.hostname.to_owned());
    }
    let mut seen = BTreeSet::new();
    all.retain(|name| seen.insert(name.to_ascii_lowercase()));
    all
}

/// Link-local addresses that are asked for: with the length of prefix that Docker gives them.
fn link_local(asked: &[String], taken: &Taken) -> Answer<Vec<IpNet>> {
    let mut found: Vec<IpNet> = Vec::new();
    for text in asked {
        let address = ask::link_local(text)
            .ok_or_else(|| Refusal::bad(format!("invalid link-local IP address: {text}")))?;
        if taken.link_local.contains(&address) || found.iter().any(|net| net.addr() == address) {
            return Err(Refusal::forbidden(format!("Address already in use: {address}")));
        }
        let prefix = if address.is_ipv6() { 64 } else { 16 };
        found.push(IpNet::new(address, prefix).expect("the prefix is of the same family"));
    }
    Ok(found)
}

fn address_of(
    network: &NetworkRecord,
    subnet: &Subnet,
    asked: &str,
    taken: &Taken,
    last: &mut Last,
) -> Answer<IpAddr> {
    let none = BTreeSet::new();
    let taken = taken.addresses.get(&network.id).unwrap_or(&none);
    let excluded = subnet.auxiliary.values().copied().collect();
    let failed = |error: address::AddressError| Refusal::forbidden(error.to_string());
    let pool =
        address::Subnet::new(subnet.net, subnet.range, Some(subnet.gateway), excluded).map_err(failed)?;
    if !asked.is_empty() {
        let address = asked
            .parse()
            .map_err(|_| Refusal::bad(format!("invalid address: {asked}")))?;
        pool.check_static(address, taken).map_err(failed)?;
        return Ok(address);
    }
    let key = (network.id.clone(), subnet.gateway.is_ipv6());
    let address = pool
        .next_address(taken, last.get(&key).copied())
        .map_err(failed)?;
    last.insert(key, address);
    Ok(address)
}

/// A locally administered address for a network without IPv4.
fn random_mac(id: &str) -> Mac {
    let byte = |at: usize| u8::from_str_radix(&id[at..at + 2], 16).expect("an id is hex digits");
    Mac([0x02, 0x42, byte(0), byte(2), byte(4), byte(6)])
}

/// Gives the default routes to the places of the network with the highest priority that has a way out; of equals to that of the first name.
pub fn route(places: &mut [Place], asked: &Asked, network: impl Fn(&str) -> Option<NetworkRecord>) {
    let priority = |place: &Place| {
        let network = network(&place.network).filter(|network| !network.internal)?;
        let settings = asked.get(&network.name);
        let priority = settings.map_or(0, |settings| settings.gw_priority);
        Some((std::cmp::Reverse(priority), network.name.clone(), network))
    };
    for place in places.iter_mut() {
        place.gateways.clear();
    }
    for is_ipv6 in [false, true] {
        let best = places
            .iter()
            .enumerate()
            .filter(|(_, place)| place.address(is_ipv6).is_some())
            .filter_map(|(at, place)| priority(place).map(|(rank, name, network)| (rank, name, at, network)))
            .min_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        if let Some((_, _, at, network)) = best
            && let Some(subnet) = network.subnet(is_ipv6)
        {
            places[at].gateways.push(subnet.gateway);
        }
    }
}

#[cfg(test)]
mod tests {
    use kakoi_api::network::EndpointIpam;

    use super::super::live::Kept;
    use super::super::tests::record;
    use super::*;

    const WHO: Who<'static> = Who {
        id: "0123456789abcdef",
        name: "web",
        hostname: "front",
    };

    fn taken(places: Vec<Place>) -> Taken {
        let live = Live::of(Kept {
            places,
            ..Kept::default()
        });
        Taken::by(&BTreeMap::from([("x".to_owned(), live)]))
    }

    fn at(address: &str) -> EndpointSettings {
        EndpointSettings {
            ipam_config: Some(EndpointIpam {
                ipv4_address: address.into(),
                ..EndpointIpam::default()
            }),
            ..EndpointSettings::default()
        }
    }

    #[test]
    fn addresses_are_nobody_elses() {
        let app = record("app", "172.20.0.0/29");
        let mut last = Last::new();
        let mut places: Vec<Place> = Vec::new();
        for _ in 0..5 {
            let place = choose(&app, &at(""), WHO, 0, &taken(places.clone()), &mut last).expect("room");
            assert!(places.iter().all(|other| other.addresses != place.addresses));
            assert_ne!(place.addresses[0].addr(), app.subnets[0].gateway);
            places.push(place);
        }
        let full = choose(&app, &at(""), WHO, 0, &taken(places.clone()), &mut last).expect_err("full");
        assert!(full.message.contains("no available addresses"), "{full}");
        let used = places[0].addresses[0].addr().to_string();
        for (asked, words) in [(used.as_str(), "already in use"), ("10.0.0.1", "does not belong")] {
            let refusal =
                choose(&app, &at(asked), WHO, 0, &taken(places.clone()), &mut last).expect_err("refused");
            assert!(refusal.message.contains(words), "{refusal}");
            assert_eq!(refusal.status.as_u16(), 403);
        }
        places.remove(0);
        let place = choose(&app, &at(&used), WHO, 1, &taken(places), &mut last).expect("free again");
        assert_eq!(place.interface, "eth1");
        assert_eq!(place.mac, "02:42:ac:14:00:02");
    }

    #[test]
    fn link_local_addresses_are_nobody_elses_anywhere() {
        let with = |texts: &[&str]| EndpointSettings {
            ipam_config: Some(EndpointIpam {
                link_local_ips: texts.iter().map(|text| (*text).to_owned()).collect(),
                ..EndpointIpam::default()
            }),
            ..EndpointSettings::default()
        };
        let (app, other) = (record("app", "172.20.0.0/16"), record("other", "172.21.0.0/16"));
        let choose = |network, settings: &EndpointSettings, taken: &Taken| {
            choose(network, settings, WHO, 0, taken, &mut Last::new())
        };
        let place = choose(&app, &with(&["169.254.1.1", "fe80::1:2"]), &Taken::default()).expect("free");
        let told: Vec<String> = place.all_addresses().map(|net| net.to_string()).collect();
        assert_eq!(told, ["172.20.0.2/16", "169.254.1.1/16", "fe80::1:2/64"]);
        assert_eq!(place.address(true), None, "nobody looks for it there");
        let taken = taken(vec![place]);
        for (texts, status) in [
            (&["169.254.1.1"][..], 403),
            (&["169.254.1.2", "169.254.1.2"], 403),
            (&["10.0.0.1"], 400),
            (&["fe81::1"], 0),
            (&["169.254.1.2"], 0),
        ] {
            let chosen = choose(&other, &with(texts), &taken);
            let got = chosen.map_or_else(|refusal| refusal.status.as_u16(), |_| 0);
            assert_eq!(got, status, "{texts:?}");
        }
    }

    #[test]
    fn names_are_those_of_user_defined_networks() {
        let settings = EndpointSettings {
            aliases: Some(vec!["db".into(), "WEB".into()]),
            ..EndpointSettings::default()
        };
        let names = names_of(&record("app", "172.20.0.0/16"), &settings, WHO);
        assert_eq!(names, ["web", "db", "0123456789ab", "front"]);
        assert!(names_of(&record(BRIDGE, "172.17.0.0/16"), &settings, WHO).is_empty());
    }

    #[test]
    fn the_default_route_leads_out() {
        let mut rows = [
            record("a", "172.20.0.0/16"),
            record("b", "172.21.0.0/16"),
            record("inner", "172.22.0.0/16"),
        ];
        rows[2].internal = true;
        let find = |id: &str| rows.iter().find(|row| row.id == id).cloned();
        let mut places: Vec<Place> = rows
            .iter()
            .map(|row| choose(row, &at(""), WHO, 0, &Taken::default(), &mut Last::new()).expect("room"))
            .collect();
        route(&mut places, &Asked::new(), find);
        let routed = |places: &[Place]| -> Vec<bool> {
            places.iter().map(|place| !place.gateways.is_empty()).collect()
        };
        assert_eq!(routed(&places), [true, false, false]);
        let first = EndpointSettings {
            gw_priority: 5,
            ..EndpointSettings::default()
        };
        let asked = Asked::from([("b".to_owned(), first.clone()), ("inner".to_owned(), first)]);
        route(&mut places, &asked, find);
        assert_eq!(routed(&places), [false, true, false]);
        let mut inner = places.split_off(2);
        route(&mut inner, &asked, find);
        assert_eq!(routed(&inner), [false], "an internal network leads nowhere");
    }
}
