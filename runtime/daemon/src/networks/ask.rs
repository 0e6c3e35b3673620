//! What a container asks of networks: read, judged and written down when it is made or connected.
//!
//! Whether a network exists, and whether an address is free, is found out when the container starts: Docker accepts until then, and what is asked
//! for may come into being in between.

use std::collections::BTreeMap;
use std::net::IpAddr;

use kakoi_api::container::{ContainerConfig, CreateBody, HostConfig, NetworkingConfig};
use kakoi_api::network::EndpointSettings;
use kakoi_net::address::Mac;

use super::record::NetworkRecord;
use super::{BRIDGE, Networks};
use crate::refusal::{Answer, Refusal};

/// Networks that one container is in at most: each is an interface of its own.
const PLACES_MAX: usize = 64;
/// Link-local addresses of a container in one network: with those of its subnets they are what a link takes.
const LINK_LOCAL_MAX: usize = 8;
/// Names of a container in one network.
const ALIASES_MAX: usize = 128;
/// Longest name that DNS knows.
const ALIAS_BYTES_MAX: usize = 253;

/// What a container asks for, by name of network; a network that is there is named as it names itself.
pub type Asked = BTreeMap<String, EndpointSettings>;

/// Whether a network mode means networks of bridges, rather than nothing, the host's or another container's.
pub fn is_bridged(mode: &str) -> bool {
    !matches!(mode, "none" | "host") && !mode.starts_with("container:")
}

/// Reads what a new container asks for. `host.network_mode` is settled already, and is left as the network names itself.
pub fn settle(
    networks: &Networks,
    asked: &NetworkingConfig,
    host: &mut HostConfig,
    config: &ContainerConfig,
) -> Answer<Asked> {
    let mut all = Asked::new();
    for (name, settings) in &asked.endpoints_config {
        let settings = settings.clone().unwrap_or_default();
        let (name, settings) = named(networks, name, settings);
        if all.insert(name.clone(), settings).is_some() {
            return Err(Refusal::bad(format!("network {name} is named twice")));
        }
    }
    if !is_bridged(&host.network_mode) {
        let own = host.network_mode.split(':').next().unwrap_or_default();
        // The stock client names the mode as a network, with nothing in it.
        if all.keys().any(|name| name != own && *name != host.network_mode) {
            return Err(Refusal::bad(
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
            ));
        }
        return Ok(Asked::new());
    }
    let (primary, empty) = named(networks, &host.network_mode, EndpointSettings::default());
    host.network_mode.clone_from(&primary);
    let first = all.entry(primary).or_insert(empty);
    // Those of the host configuration are of the one network that there was when it was invented.
    if !host.links.is_empty() {
        first
            .links
            .get_or_insert_default()
            .extend(host.links.iter().cloned());
    }
    if !config.mac_address.is_empty() && first.mac_address.is_empty() {
        first.mac_address.clone_from(&config.mac_address);
    }
    if all.len() > PLACES_MAX {
        return Err(Refusal::bad(format!(
            "a container is in at most {PLACES_MAX} networks, not {}",
            all.len()
        )));
    }
    for (name, settings) in &all {
        let network = networks.find(name).ok();
        check(name, settings, network.as_ref())
            .map_err(|why| Refusal::bad(format!("invalid config for network {name}: {why}")))?;
    }
    Ok(all)
}

/// Refuses networks that are not there. That is the request's mistake (400): clients take a 404 of a creation for a missing image.
pub fn check_there(networks: &Networks, body: &CreateBody) -> Answer<()> {
    let mode = body.host_config.network_mode.as_str();
    let is_mode = |name: &str| matches!(name, "" | "default") || !is_bridged(name);
    let named = body.networking_config.endpoints_config.keys().map(String::as_str);
    for name in named.chain([mode]).filter(|name| !is_mode(name)) {
        if networks.find(name).is_err() {
            return Err(Refusal::bad(format!(
                "network {name} not found; make it first: kakoi network create {name}"
            )));
        }
    }
    Ok(())
}

/// The network's own name and id, where it is there.
fn named(networks: &Networks, name: &str, mut settings: EndpointSettings) -> (String, EndpointSettings) {
    let name = if name == "default" { BRIDGE } else { name };
    match networks.find(name) {
        Ok(network) => {
            settings.network_id = network.id;
            (network.name, settings)
        }
        Err(_) => {
            settings.network_id.clear();
            (name.to_owned(), settings)
        }
    }
}

/// Judges what is asked of one network, in Docker's words.
pub fn check(name: &str, settings: &EndpointSettings, network: Option<&NetworkRecord>) -> Result<(), String> {
    let mut wrong = Vec::new();
    let ipam = settings.ipam_config.clone().unwrap_or_default();
    let aliases = settings.aliases.as_deref().unwrap_or_default();
    for (text, is_ipv6) in [(&ipam.ipv4_address, false), (&ipam.ipv6_address, true)] {
        if text.is_empty() {
            continue;
        }
        match text.parse::<IpAddr>() {
            Ok(address) if address.is_ipv6() == is_ipv6 => {
                if let Some(why) = unfit(name, address, network) {
                    wrong.push(why);
                }
            }
            _ => wrong.push(format!(
                "invalid IPv{} address: {text}",
                if is_ipv6 { 6 } else { 4 }
            )),
        }
    }
    if ipam.link_local_ips.len() > LINK_LOCAL_MAX {
        let count = ipam.link_local_ips.len();
        wrong.push(format!(
            "{count} link-local addresses, which is more than {LINK_LOCAL_MAX}"
        ));
    } else {
        let bad = ipam
            .link_local_ips
            .iter()
            .filter(|text| link_local(text).is_none());
        wrong.extend(bad.map(|text| format!("invalid link-local IP address: {text}")));
    }
    if !aliases.is_empty() && name == BRIDGE {
        wrong.push(
            "network-scoped alias is supported only for containers in user defined networks".to_owned(),
        );
    }
    let is_name = |alias: &String| {
        !alias.is_empty()
            && alias.len() <= ALIAS_BYTES_MAX
            && alias.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
    };
    if aliases.len() > ALIASES_MAX {
        wrong.push(format!(
            "{} aliases, which is more than {ALIASES_MAX}",
            aliases.len()
        ));
    } else if let Some(alias) = aliases.iter().find(|alias| !is_name(alias)) {
        wrong.push(format!("invalid alias {alias:?}"));
    }
    let links = settings.links.as_deref().unwrap_or_default();
    if links.len() > ALIASES_MAX {
        wrong.push(format!("{} links, which is more than {ALIASES_MAX}", links.len()));
    } else if let Some(text) = links
        .iter()
        .find(|text| link(text).is_none_or(|(_, alias)| !is_name(&alias.to_owned())))
    {
        wrong.push(format!("bad format for links: {text}"));
    }
    if !settings.mac_address.is_empty() && settings.mac_address.parse::<Mac>().is_err() {
        wrong.push(format!("invalid MAC address: {}", settings.mac_address));
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(format!("invalid endpoint settings:\n{}", wrong.join("\n")))
    }
}

/// A link-local address: no other is given beside those of a network's subnets, else a container could take a neighbour's or the host's.
pub fn link_local(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    let fits = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    fits.then_some(address)
}

/// A link: the other container, and what it is called here. Docker's clients write `name:alias`, its inspection `/name:/own/alias`.
pub fn link(text: &str) -> Option<(&str, &str)> {
    let (name, alias) = text.split_once(':').unwrap_or((text, text));
    let name = name.trim_start_matches('/');
    let alias = alias.rsplit('/').next().unwrap_or(alias);
    (!name.is_empty() && !alias.is_empty()).then_some((name, alias))
}

/// Why an address cannot be asked for in a network.
fn unfit(name: &str, address: IpAddr, network: Option<&NetworkRecord>) -> Option<String> {
    if name == BRIDGE {
        return Some("user specified IP address is supported on user defined networks only".to_owned());
    }
    let network = network?;
    if !network.is_subnet_asked {
        return Some(
            "user specified IP address is supported only when connecting to networks with user configured subnets"
                .to_owned(),
        );
    }
    let fits = network.subnets.iter().any(|subnet| subnet.net.contains(&address));
    (!fits).then(|| format!("no configured subnet contains IP address {address}"))
}

#[cfg(test)]
mod tests {
    use kakoi_api::network::EndpointIpam;

    use super::super::tests::{networks, record};
    use super::*;

    fn host(mode: &str) -> HostConfig {
        HostConfig {
            network_mode: mode.into(),
            ..HostConfig::default()
        }
    }

    fn asked(rows: &[(&str, EndpointSettings)]) -> NetworkingConfig {
        NetworkingConfig {
            endpoints_config: rows
                .iter()
                .map(|(name, settings)| ((*name).to_owned(), Some(settings.clone())))
                .collect(),
        }
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
    fn what_is_asked_for_names_networks_as_they_name_themselves() {
        let networks = networks(vec![
            record("bridge", "172.17.0.0/16"),
            record("app", "172.20.0.0/16"),
        ]);
        let config = ContainerConfig {
            mac_address: "02:42:ac:11:00:09".into(),
            ..ContainerConfig::default()
        };
        // The stock client's way to say nothing.
        let mut mode = host("default");
        let settled = settle(
            &networks,
            &asked(&[("default", EndpointSettings::default())]),
            &mut mode,
            &config,
        )
        .expect("right");
        assert_eq!(mode.network_mode, "bridge");
        assert_eq!(settled.keys().collect::<Vec<_>>(), ["bridge"]);
        assert_eq!(settled["bridge"].mac_address, config.mac_address);
        let id = networks.find("app").expect("it is there").id;
        let mut mode = host(&id[..12]);
        let settled = settle(&networks, &asked(&[]), &mut mode, &config).expect("right");
        assert_eq!(
            (mode.network_mode.as_str(), &settled["app"].network_id),
            ("app", &id)
        );
        // One that is not there yet is taken at its word.
        let mut mode = host("later");
        let settled = settle(&networks, &asked(&[]), &mut mode, &config).expect("right");
        assert!(settled["later"].network_id.is_empty());
        for none in ["none", "host", "container:x"] {
            let mut mode = host(none);
            let settled = settle(&networks, &asked(&[]), &mut mode, &config).expect("right");
            assert!(settled.is_empty(), "{none}");
            let both = settle(
                &networks,
                &asked(&[("app", EndpointSettings::default())]),
                &mut mode,
                &config,
            );
            assert_eq!(both.expect_err("both").status.as_u16(), 400, "{none}");
        }
    }

    #[test]
    fn what_a_network_cannot_give_is_refused() {
        let mut app = record("app", "172.20.0.0/16");
        app.is_subnet_asked = true;
        let plain = record("plain", "172.21.0.0/16");
        let alias = |name: &str| EndpointSettings {
            aliases: Some(vec![name.into()]),
            ..EndpointSettings::default()
        };
        let linked = |text: &str| EndpointSettings {
            links: Some(vec![text.into()]),
            ..EndpointSettings::default()
        };
        let mac = |text: &str| EndpointSettings {
            mac_address: text.into(),
            ..EndpointSettings::default()
        };
        for (name, network, settings, words) in [
            ("app", Some(&app), at("172.20.3.4"), ""),
            ("app", Some(&app), at("172.21.3.4"), "no configured subnet"),
            ("app", Some(&app), at("::1"), "invalid IPv4"),
            ("app", Some(&app), at("x"), "invalid IPv4"),
            ("plain", Some(&plain), at("172.21.3.4"), "user configured subnets"),
            ("bridge", None, at("172.17.0.9"), "user defined networks only"),
            ("later", None, at("10.0.0.9"), ""),
            ("app", Some(&app), alias("db"), ""),
            ("app", Some(&app), alias("d b"), "invalid alias"),
            ("app", Some(&app), alias(""), "invalid alias"),
            ("bridge", None, alias("db"), "network-scoped alias"),
            ("app", Some(&app), linked("db:store"), ""),
            ("bridge", None, linked("/db:/web/store"), ""),
            ("app", Some(&app), linked(":store"), "bad format"),
            ("app", Some(&app), linked("db:a b"), "bad format"),
            ("app", Some(&app), mac("02:42:ac:11:00:09"), ""),
            ("app", Some(&app), mac("02:42"), "invalid MAC"),
        ] {
            let judged = check(name, &settings, network);
            match words {
                "" => assert_eq!(judged, Ok(()), "{name} {settings:?}"),
                words => {
                    let why = judged.expect_err("it is refused");
                    assert!(why.contains(words), "{why}");
                }
            }
        }
    }
}
