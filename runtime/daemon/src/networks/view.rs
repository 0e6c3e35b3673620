//! Networks and places as clients see them.

use std::collections::BTreeMap;

use kakoi_api::container::{NetworkSettings, Port as SummaryPort, PortBinding};
use kakoi_api::network::{EndpointSettings, Ipam, IpamConfig, Network, NetworkMember};

use super::live::{Kept, Place};
use super::record::Subnet;
use super::{BRIDGE, FIXED, NetworkRecord, Networks};
use crate::engine::Engine;
use crate::refusal::Answer;
use crate::state::Record;

/// When the networks that are always there were made: before everything.
const EPOCH: &str = "1970-01-01T00:00:00Z";

impl Networks {
    /// Every network for the wire, those that are always there among them.
    pub fn to_wire(&self, engine: &Engine) -> Vec<Network> {
        let fixed = FIXED.iter().map(|(name, driver)| fixed(name, driver));
        let rows = self.all();
        let mut all: Vec<Network> = rows
            .iter()
            .map(|row| self.one_to_wire(engine, row))
            .chain(fixed)
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// One network for the wire.
    pub fn named_to_wire(&self, engine: &Engine, wanted: &str) -> Answer<Network> {
        let is_fixed = |(name, _): &&(&str, &str)| *name == wanted || fixed_id(name) == wanted;
        if let Some((name, driver)) = FIXED.iter().find(is_fixed) {
            return Ok(fixed(name, driver));
        }
        Ok(self.one_to_wire(engine, &self.find(wanted)?))
    }

    fn one_to_wire(&self, engine: &Engine, row: &NetworkRecord) -> Network {
        let mut containers = BTreeMap::new();
        for (id, place) in self.members(&row.id) {
            let name = engine
                .containers
                .find(&id)
                .map_or_else(|_| String::new(), |container| container.name());
            containers.insert(id, member(name, &place));
        }
        Network {
            name: row.name.clone(),
            id: row.id.clone(),
            created: row.created.clone(),
            scope: "local".into(),
            driver: "bridge".into(),
            enable_ipv4: row.subnet(false).is_some(),
            enable_ipv6: row.subnet(true).is_some(),
            ipam: Ipam {
                driver: "default".into(),
                options: row.ipam_options.clone(),
                config: row.subnets.iter().map(ipam).collect(),
            },
            internal: row.internal,
            attachable: row.attachable,
            containers,
            options: options(row),
            labels: row.labels.clone(),
            ..Network::default()
        }
    }

    /// Who is in a network, by container.
    pub(super) fn members(&self, network: &str) -> Vec<(String, Place)> {
        let state = self.state();
        let mut members = Vec::new();
        for (id, live) in &state.live {
            let places = live.kept.places.iter().filter(|place| place.network == network);
            members.extend(places.map(|place| (id.clone(), place.clone())));
        }
        members
    }

    fn kept(&self, id: &str) -> Kept {
        let state = self.state();
        state
            .live
            .get(id)
            .map(|live| live.kept.clone())
            .unwrap_or_default()
    }

    /// A container's places, by name of network: what it asked for, and what it has while it runs.
    pub fn places(&self, record: &Record) -> BTreeMap<String, EndpointSettings> {
        let mode = record.host_config.network_mode.as_str();
        if let Some((name, _)) = FIXED.iter().find(|(name, _)| *name == mode) {
            let settings = EndpointSettings {
                network_id: fixed_id(name),
                ..EndpointSettings::default()
            };
            return BTreeMap::from([((*name).to_owned(), settings)]);
        }
        let kept = self.kept(&record.id);
        let one = |(name, asked): (&String, &EndpointSettings)| {
            let row = self.find(name).ok();
            let id = row
                .as_ref()
                .map_or(asked.network_id.as_str(), |row| row.id.as_str());
            let place = kept.places.iter().find(|place| place.network == id);
            (name.clone(), endpoint(asked, id, place, row.as_ref()))
        };
        record.networks.iter().map(one).collect()
    }

    /// A container's network settings.
    pub fn settings(&self, record: &Record) -> NetworkSettings {
        let networks = self.places(record);
        let kept = self.kept(&record.id);
        let mut ports: BTreeMap<String, Option<Vec<PortBinding>>> = BTreeMap::new();
        if !kept.places.is_empty() {
            for port in record.config.exposed_ports.keys() {
                ports.insert(port.clone(), None);
            }
        }
        for port in &kept.ports {
            let bindings = ports
                .entry(format!("{}/{}", port.inside, port.protocol))
                .or_default();
            bindings.get_or_insert_default().push(PortBinding {
                host_ip: port.host.ip().to_string(),
                host_port: port.host.port().to_string(),
            });
        }
        let first = networks.get(BRIDGE).cloned().unwrap_or_default();
        NetworkSettings {
            sandbox_id: kept
                .places
                .first()
                .map(|place| place.endpoint_id.clone())
                .unwrap_or_default(),
            ports,
            endpoint_id: first.endpoint_id,
            gateway: first.gateway,
            ip_address: first.ip_address,
            ip_prefix_len: first.ip_prefix_len,
            ipv6_gateway: first.ipv6_gateway,
            global_ipv6_address: first.global_ipv6_address,
            global_ipv6_prefix_len: first.global_ipv6_prefix_len,
            mac_address: first.mac_address,
            networks,
            ..NetworkSettings::default()
        }
    }

    /// A container's ports for the list: those that are published, and those that are only exposed.
    pub fn ports(&self, record: &Record) -> Vec<SummaryPort> {
        let kept = self.kept(&record.id);
        let mut all: Vec<SummaryPort> = kept
            .ports
            .iter()
            .map(|port| SummaryPort {
                ip: port.host.ip().to_string(),
                private_port: port.inside,
                public_port: Some(port.host.port()),
                kind: port.protocol.clone(),
            })
            .collect();
        for text in record.config.exposed_ports.keys() {
            let Ok(inside) = super::ports::inside(text) else {
                continue;
            };
            let kind = inside.protocol.to_string();
            if !all
                .iter()
                .any(|port| port.private_port == inside.port && port.kind == kind)
            {
                all.push(SummaryPort {
                    private_port: inside.port,
                    kind,
                    ..SummaryPort::default()
                });
            }
        }
        all.sort_by(|a, b| (a.private_port, &a.kind, &a.ip).cmp(&(b.private_port, &b.kind, &b.ip)));
        all
    }
}

/// The id of a network that is always there: its name in hex digits, so that it outlives everything.
fn fixed_id(name: &str) -> String {
    let digits: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{digits:0<64}")
}

/// What a network was made with; of the one that is always there, what it would have been made with.
fn options(row: &NetworkRecord) -> BTreeMap<String, String> {
    let mut options = row.options.clone();
    if row.name == BRIDGE {
        for (name, value) in [
            ("com.docker.network.bridge.default_bridge", "true"),
            ("com.docker.network.bridge.enable_icc", "true"),
            ("com.docker.network.bridge.enable_ip_masquerade", "true"),
            ("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0"),
            ("com.docker.network.bridge.name", row.bridge.as_str()),
            ("com.docker.network.driver.mtu", "1500"),
        ] {
            options.entry(name.into()).or_insert_with(|| value.into());
        }
    }
    options
}

fn fixed(name: &str, driver: &str) -> Network {
    Network {
        name: name.into(),
        id: fixed_id(name),
        created: EPOCH.into(),
        scope: "local".into(),
        driver: driver.into(),
        enable_ipv4: true,
        ipam: Ipam {
            driver: "default".into(),
            ..Ipam::default()
        },
        ..Network::default()
    }
}

fn ipam(subnet: &Subnet) -> IpamConfig {
    IpamConfig {
        subnet: subnet.net.to_string(),
        ip_range: subnet.range.map(|range| range.to_string()).unwrap_or_default(),
        gateway: subnet.gateway.to_string(),
        auxiliary_addresses: subnet
            .auxiliary
            .iter()
            .map(|(name, address)| (name.clone(), address.to_string()))
            .collect(),
    }
}

fn member(name: String, place: &Place) -> NetworkMember {
    let text = |is_ipv6| {
        place
            .address(is_ipv6)
            .map(|net| net.to_string())
            .unwrap_or_default()
    };
    NetworkMember {
        name,
        endpoint_id: place.endpoint_id.clone(),
        mac_address: place.mac.clone(),
        ipv4_address: text(false),
        ipv6_address: text(true),
    }
}

/// A place: what was asked for, with what the container has while it runs.
fn endpoint(
    asked: &EndpointSettings,
    network: &str,
    place: Option<&Place>,
    row: Option<&NetworkRecord>,
) -> EndpointSettings {
    let mut settings = EndpointSettings {
        network_id: network.to_owned(),
        ..asked.clone()
    };
    let Some(place) = place else { return settings };
    settings.endpoint_id.clone_from(&place.endpoint_id);
    settings.mac_address.clone_from(&place.mac);
    settings.dns_names = (!place.names.is_empty()).then(|| place.names.clone());
    let gateway = |is_ipv6| {
        row.and_then(|row| row.subnet(is_ipv6))
            .map(|subnet| subnet.gateway.to_string())
            .unwrap_or_default()
    };
    if let Some(net) = place.address(false) {
        settings.ip_address = net.addr().to_string();
        settings.ip_prefix_len = net.prefix_len();
        settings.gateway = gateway(false);
    }
    if let Some(net) = place.address(true) {
        settings.global_ipv6_address = net.addr().to_string();
        settings.global_ipv6_prefix_len = net.prefix_len();
        settings.ipv6_gateway = gateway(true);
    }
    settings
}
