//! Making and removing networks.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use kakoi_api::network::{IpamConfig, NetworkBody};
use kakoi_net::IpNet;
use kakoi_net::address::{self, AddressError};
use kakoi_policy::NetworkRequest;

use super::kernel::on_thread;
use super::record::{Subnet, option};
use super::{BRIDGE, FIXED, NETWORKS_MAX, NetworkRecord, Networks, record};
use crate::clock;
use crate::engine::Engine;
use crate::names;
use crate::refusal::{Answer, Refusal, chain};

/// Longest name of a network.
const NAME_BYTES_MAX: usize = 255;
/// Addresses of a network that are never given out.
const AUXILIARY_MAX: usize = 256;

impl Networks {
    /// Reads the networks that were kept, and makes the network `bridge` where there is none yet. A file that cannot be read is set aside: containers
    /// in its networks do not start before somebody makes these again, and what else runs goes on.
    pub fn open(root: &Path, run_dir: &Path) -> Self {
        let networks = Self::new(run_dir);
        let kept = record::read(root).unwrap_or_else(|cause| {
            tracing::error!(%cause, "networks.json is damaged and is set aside as networks.json.damaged; make its networks again");
            if let Err(cause) = std::fs::rename(root.join("networks.json"), root.join("networks.json.damaged")) {
                tracing::warn!(%cause, "it cannot be set aside, ignoring");
            }
            Vec::new()
        });
        networks.state().rows = kept.into_iter().map(|row| (row.id.clone(), row)).collect();
        if networks.find(BRIDGE).is_err() {
            let body = NetworkBody {
                name: BRIDGE.into(),
                ..NetworkBody::default()
            };
            let made = networks.new_record(&body, Some(&bridge_name(&networks.scope)));
            let kept = made.and_then(|row| {
                networks.state().rows.insert(row.id.clone(), row);
                networks.keep(root)
            });
            if let Err(refusal) = kept {
                tracing::error!(
                    error = chain(&refusal),
                    "the network {BRIDGE} cannot be made or kept"
                );
            }
        }
        networks
    }

    /// Makes a network. Answers its id and what the user should know.
    pub async fn create(self: &Arc<Self>, engine: &Engine, body: &NetworkBody) -> Answer<(String, String)> {
        check(body)?;
        engine.shelf().network(&request(body))?;
        let _turn = self.turn.lock().await;
        if self.all().iter().any(|row| row.name == body.name) {
            return Err(Refusal::conflict(format!(
                "network with name {} already exists",
                body.name
            )));
        }
        if self.state().rows.len() >= NETWORKS_MAX {
            return Err(Refusal::unavailable(format!(
                "there are {NETWORKS_MAX} networks already; remove some first"
            )));
        }
        let (networks, wanted) = (self.clone(), body.clone());
        let row = on_thread(move || networks.new_record(&wanted, None)).await?;
        let (id, bridge) = (row.id.clone(), row.bridge.clone());
        self.state().rows.insert(id.clone(), row.clone());
        if let Err(refusal) = self.make_bridge(row).await {
            self.state().rows.remove(&id);
            return Err(refusal);
        }
        if let Err(refusal) = self.keep_aside(engine).await {
            self.state().rows.remove(&id);
            self.take_bridge(bridge).await;
            return Err(refusal);
        }
        engine
            .events
            .tell("network", "create", &id, attributes(&body.name));
        Ok((id, warning(body)))
    }

    /// Gives the network `bridge` another subnet where somebody else has taken its own meanwhile. It was chosen when there was no bridge yet that others
    /// could see, and nobody asked for it; once somebody is in it, it stays.
    pub(super) fn settle_bridge(&self, engine: &Engine) -> Answer<()> {
        let row = self.find(BRIDGE)?;
        if !self.members(&row.id).is_empty() || self.has_link(&row.bridge) {
            return Ok(());
        }
        let mut taken = self.taken_subnets();
        if row
            .subnets
            .iter()
            .all(|subnet| address::check_subnet(subnet.net, &taken).is_ok())
        {
            return Ok(());
        }
        let mut settled = row.clone();
        {
            let mut state = self.state();
            let others = state.rows.values().filter(|other| other.id != row.id);
            taken.extend(others.flat_map(|other| &other.subnets).map(|subnet| subnet.net));
            settled.subnets = vec![chosen(address::free_ipv4_subnet(&taken))?];
            state.rows.insert(row.id.clone(), settled);
        }
        self.keep(&engine.paths.root).inspect_err(|_| {
            self.state().rows.insert(row.id.clone(), row.clone());
        })
    }

    /// Removes a network that nobody is in.
    pub async fn remove(self: &Arc<Self>, engine: &Engine, wanted: &str) -> Answer<()> {
        if FIXED.iter().any(|(name, _)| *name == wanted) {
            return Err(predefined(wanted));
        }
        let _turn = self.turn.lock().await;
        let row = self.find(wanted)?;
        if row.name == BRIDGE {
            return Err(predefined(BRIDGE));
        }
        let members = self.members(&row.id);
        if !members.is_empty() {
            let list: Vec<String> = members
                .iter()
                .map(|(id, place)| {
                    let name = engine.containers.find(id).map(|container| container.name());
                    let endpoint = &place.endpoint_id[..12];
                    format!("name:\"{}\" id:\"{endpoint}\"", name.unwrap_or_default())
                })
                .collect();
            return Err(Refusal::forbidden(format!(
                "error while removing network: network {} has active endpoints ({})",
                row.name,
                list.join(", ")
            )));
        }
        self.state().rows.remove(&row.id);
        if let Err(refusal) = self.keep_aside(engine).await {
            self.state().rows.insert(row.id.clone(), row);
            return Err(refusal);
        }
        self.take_bridge(row.bridge).await;
        engine
            .events
            .tell("network", "destroy", &row.id, attributes(&row.name));
        Ok(())
    }

    async fn keep_aside(self: &Arc<Self>, engine: &Engine) -> Answer<()> {
        let (networks, root) = (self.clone(), engine.paths.root.clone());
        on_thread(move || networks.keep(&root)).await
    }

    fn keep(&self, root: &Path) -> Answer<()> {
        let rows = self.state().rows.values().cloned().collect();
        record::write(root, rows).map_err(|cause| Refusal::failed("the networks cannot be recorded", cause))
    }

    /// A network as asked for, with what was left open filled in.
    fn new_record(&self, body: &NetworkBody, bridge: Option<&str>) -> Answer<NetworkRecord> {
        let id = names::new_id().map_err(|cause| Refusal::failed("no random bytes for an id", cause))?;
        let ipam = body.ipam.clone().unwrap_or_default();
        let mut own: Vec<IpNet> = Vec::new();
        for row in self.state().rows.values() {
            own.extend(row.subnets.iter().map(|subnet| subnet.net));
        }
        let mut subnets = asked_subnets(&ipam.config, own.clone())?;
        let is_subnet_asked = !subnets.is_empty();
        own.extend(subnets.iter().map(|subnet| subnet.net));
        let missing = missing_families(body, &subnets)?;
        let of_host = self.taken_subnets();
        check_against_host(&subnets, &of_host)?;
        own.extend(of_host);
        for is_ipv6 in missing {
            let free = if is_ipv6 {
                let seed = std::fs::read("/etc/machine-id").unwrap_or_default();
                address::free_ipv6_subnet(&seed, &id, &own).map(IpNet::V6)
            } else {
                address::free_ipv4_subnet(&own)
            };
            subnets.push(chosen(free)?);
        }
        let named = body.options.get(option::BRIDGE_NAME).cloned();
        if let Some(name) = &named
            && let Some(other) = self.all().iter().find(|row| row.bridge == *name)
        {
            return Err(Refusal::forbidden(format!(
                "bridge {name} is network {}'s; choose another name for it",
                other.name
            )));
        }
        Ok(NetworkRecord {
            bridge: named
                .or(bridge.map(str::to_owned))
                .unwrap_or_else(|| format!("br-{}", &id[..12])),
            id,
            name: body.name.clone(),
            created: clock::now(),
            subnets,
            is_subnet_asked,
            internal: body.internal,
            attachable: body.attachable,
            options: body.options.clone(),
            ipam_options: ipam.options,
            labels: body.labels.clone(),
        })
    }
}

/// What the owner's ceiling judges. A subnet that is none is refused when it is read.
fn request(body: &NetworkBody) -> NetworkRequest {
    let configs = body.ipam.iter().flat_map(|ipam| &ipam.config);
    let nets = configs.filter_map(|config| config.subnet.parse::<IpNet>().ok());
    NetworkRequest {
        name: body.name.clone(),
        subnets: nets.map(|net| (net.addr(), net.prefix_len())).collect(),
    }
}

/// The subnets that are asked for, at most one of each family. `own` are those that are taken.
fn asked_subnets(configs: &[IpamConfig], mut own: Vec<IpNet>) -> Answer<Vec<Subnet>> {
    let mut subnets: Vec<Subnet> = Vec::new();
    for config in configs.iter().filter(|config| **config != IpamConfig::default()) {
        let subnet = subnet(config, &own)?;
        if subnets
            .iter()
            .any(|other| other.gateway.is_ipv6() == subnet.gateway.is_ipv6())
        {
            return Err(Refusal::bad("a network has at most one subnet of each family"));
        }
        own.push(subnet.net);
        subnets.push(subnet);
    }
    Ok(subnets)
}

/// Refuses subnets that the host itself uses, or in which its name servers are: what goes there would end up in a container.
fn check_against_host(subnets: &[Subnet], of_host: &[IpNet]) -> Answer<()> {
    let servers = kakoi_net::names::host_upstreams(Path::new("/"));
    for subnet in subnets {
        let is_used = of_host.iter().any(|taken| address::overlaps(subnet.net, *taken));
        if is_used || servers.iter().any(|server| subnet.net.contains(&server.ip())) {
            return Err(Refusal::forbidden(format!(
                "{}: {} is used by the host",
                AddressError::Overlaps,
                subnet.net
            )));
        }
    }
    Ok(())
}

/// The families that a network is to have and for which no subnet is asked: whether each is IPv6.
fn missing_families(body: &NetworkBody, subnets: &[Subnet]) -> Answer<Vec<bool>> {
    let has = |is_ipv6| subnets.iter().any(|subnet| subnet.gateway.is_ipv6() == is_ipv6);
    let (v4, v6) = (
        body.enable_ipv4.unwrap_or(true),
        body.enable_ipv6.unwrap_or(false),
    );
    if has(true) && !v6 {
        return Err(Refusal::bad(
            "a subnet of IPv6 needs a network with IPv6: pass EnableIPv6 (--ipv6)",
        ));
    }
    if has(false) && !v4 {
        return Err(Refusal::bad(
            "a subnet of IPv4 contradicts a network without IPv4",
        ));
    }
    if !v4 && !v6 {
        return Err(Refusal::bad("IPv4 or IPv6 must be enabled"));
    }
    let wanted = [(v4, false), (v6, true)];
    Ok(wanted
        .into_iter()
        .filter(|(is_on, is_ipv6)| *is_on && !has(*is_ipv6))
        .map(|(_, is_ipv6)| is_ipv6)
        .collect())
}

/// What the bridge of the network `bridge` is called: plainly where the daemon is the device's own, else after its tables.
fn bridge_name(scope: &kakoi_net::Scope) -> String {
    match scope.table().strip_prefix("kakoi-") {
        None => "kakoi0".into(),
        Some(hash) => format!("kk-{hash}"),
    }
}

/// What is wrong with a request whatever else there is.
fn check(body: &NetworkBody) -> Answer<()> {
    let name = body.name.as_str();
    if name.trim().is_empty() {
        return Err(Refusal::bad("invalid name: name is empty"));
    }
    if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) || name.contains('/') {
        return Err(Refusal::bad(format!(
            "invalid name {name:?}: at most {NAME_BYTES_MAX} bytes, without slashes and control characters"
        )));
    }
    if name == BRIDGE || name == "default" || FIXED.iter().any(|(fixed, _)| *fixed == name) {
        return Err(Refusal::forbidden(format!(
            "operation is not permitted on predefined {name} network"
        )));
    }
    if name.starts_with("container:") {
        return Err(Refusal::bad(format!(
            "invalid name {name:?}: `container:` means another container's network"
        )));
    }
    match body.driver.as_str() {
        "" | "bridge" | "default" => {}
        "host" | "null" => {
            return Err(Refusal::forbidden(format!(
                "only one instance of \"{}\" network is allowed",
                body.driver
            )));
        }
        other => return Err(Refusal::missing(format!("plugin \"{other}\" not found"))),
    }
    if body.ingress || body.config_only || body.scope == "swarm" {
        return Err(Refusal::unavailable(
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
        ));
    }
    if let Some(ipam) = &body.ipam
        && !matches!(ipam.driver.as_str(), "" | "default")
    {
        return Err(Refusal::missing(format!("plugin \"{}\" not found", ipam.driver)));
    }
    check_options(body)
}

/// What is wrong with options of the driver.
fn check_options(body: &NetworkBody) -> Answer<()> {
    let number = |option: &str, range: std::ops::RangeInclusive<u32>| match body.options.get(option) {
        Some(text) if text.parse().ok().is_none_or(|number| !range.contains(&number)) => {
            Err(Refusal::bad(format!(
                "invalid value for option {option}: {text:?} is not {} to {}",
                range.start(),
                range.end()
            )))
        }
        _ => Ok(()),
    };
    number(option::MTU, 68..=65535)?;
    for option in [option::GATEWAY_MODE_IPV4, option::GATEWAY_MODE_IPV6] {
        match body.options.get(option).map(String::as_str) {
            None | Some("" | "nat") => {}
            // Each of them changes who reaches the containers: nothing of that is passed over in silence.
            Some(mode @ ("nat-unprotected" | "routed" | "isolated")) => {
                return Err(Refusal::unsupported(format!(
                    "gateway mode {mode:?} ({option}) is not there: networks are `nat`, or `internal` with the host as the only neighbour outside"
                )));
            }
            Some(mode) => {
                return Err(Refusal::bad(format!(
                    "invalid value for option {option}: unknown gateway mode {mode}"
                )));
            }
        }
    }
    if let Some(text) = body.options.get(option::HOST_BINDING)
        && text.parse::<std::net::Ipv4Addr>().is_err()
    {
        return Err(Refusal::bad(format!(
            "invalid value for option {}: {text:?}",
            option::HOST_BINDING
        )));
    }
    for option in [option::BRIDGE_NAME, option::INTERFACE_PREFIX] {
        let is_name = |text: &String| {
            (1..=13).contains(&text.len())
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        if let Some(text) = body.options.get(option).filter(|text| !is_name(text)) {
            return Err(Refusal::bad(format!(
                "invalid value for option {option}: {text:?} is no interface name of at most 13 characters"
            )));
        }
    }
    Ok(())
}

/// What is kept and has no effect here.
fn warning(body: &NetworkBody) -> String {
    let unknown: Vec<&str> = body
        .options
        .keys()
        .map(String::as_str)
        .filter(|option| option.starts_with("com.docker.network.") && !option::ALL.contains(option))
        .collect();
    if unknown.is_empty() {
        String::new()
    } else {
        format!("options without effect here: {}", unknown.join(", "))
    }
}

fn subnet(config: &IpamConfig, own: &[IpNet]) -> Answer<Subnet> {
    let invalid =
        |what: &str, text: &str| Refusal::bad(format!("invalid network config:\ninvalid {what} {text}"));
    let text = config.subnet.as_str();
    if text.is_empty() {
        return Err(Refusal::bad(
            "invalid network config:\na gateway, a range or an address needs a subnet",
        ));
    }
    let net: IpNet = text.parse().map_err(|_| invalid("subnet", text))?;
    if net.trunc() != net {
        return Err(invalid(
            "subnet",
            &format!("{text}: it should be {}", net.trunc()),
        ));
    }
    let range = match config.ip_range.as_str() {
        "" => None,
        text => Some(text.parse::<IpNet>().map_err(|_| invalid("ip-range", text))?),
    };
    let gateway = match config.gateway.as_str() {
        "" => None,
        text => Some(text.parse::<IpAddr>().map_err(|_| invalid("gateway", text))?),
    };
    if config.auxiliary_addresses.len() > AUXILIARY_MAX {
        return Err(Refusal::bad(format!(
            "invalid network config:\nmore than {AUXILIARY_MAX} auxiliary addresses"
        )));
    }
    let mut auxiliary = BTreeMap::new();
    for (name, text) in &config.auxiliary_addresses {
        let address: IpAddr = text.parse().map_err(|_| invalid("auxiliary address", text))?;
        if !net.contains(&address) {
            return Err(invalid(
                "auxiliary address",
                &format!("{text}: it is not in {net}"),
            ));
        }
        auxiliary.insert(name.clone(), address);
    }
    let excluded = auxiliary.values().copied().collect();
    let pool = address::Subnet::new(net, range, gateway, excluded)
        .map_err(|error| Refusal::bad(error.to_string()))?;
    address::check_subnet(net, own).map_err(|error| Refusal::forbidden(error.to_string()))?;
    let gateway = match gateway {
        Some(gateway) => gateway,
        None => pool
            .default_gateway()
            .map_err(|error| Refusal::bad(format!("{net} is too small: {error}")))?,
    };
    Ok(Subnet {
        net,
        range: range.map(|range| range.trunc()),
        gateway,
        auxiliary,
    })
}

fn chosen(free: Result<IpNet, AddressError>) -> Answer<Subnet> {
    let refused = |error: AddressError| Refusal::forbidden(format!("{error}; name a subnet (--subnet)"));
    let net = free.map_err(refused)?;
    let pool = address::Subnet::new(net, None, None, Vec::new()).map_err(refused)?;
    Ok(Subnet {
        net,
        range: None,
        gateway: pool.default_gateway().map_err(refused)?,
        auxiliary: BTreeMap::new(),
    })
}

fn predefined(name: &str) -> Refusal {
    Refusal::forbidden(format!("{name} is a pre-defined network and cannot be removed"))
}

/// Attributes of a network's events.
fn attributes(name: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("name".into(), name.to_owned()), ("type".into(), "bridge".into())])
}
