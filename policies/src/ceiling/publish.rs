//! Which ports of the host apps may publish: `publish`.
//!
//! Owns the reading of that list and its judgement. Nothing is ever trimmed: a port that nobody reaches is no service. Knows nothing of which ports
//! are free.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::network::is_any;
use super::{Fields, Judge};
use crate::compose::Composed;
use crate::confinement::{NetworkMode, PortRange, Target};
use crate::decode::egress::network;
use crate::decode::fields::{choice, list};
use crate::decode::sections::{port_range, port_ranges};
use crate::diagnostics::{Origin, Report};
use crate::model::Sited;
use crate::request::{PortProtocol, PortRequest};
use crate::yaml::{Kind, Node};

/// Entries of the list: each is compared with each port that is asked for.
const GRANTS_MAX: usize = 256;

const GRANT_KEYS: [&str; 3] = ["ports", "protocol", "address"];

const PROTOCOLS: [(&str, PortProtocol); 3] = [
    ("tcp", PortProtocol::Tcp),
    ("udp", PortProtocol::Udp),
    ("sctp", PortProtocol::Sctp),
];

/// Every port: what somebody asks for who takes any that is free.
const EVERY_PORT: PortRange = PortRange {
    first: 1,
    last: u16::MAX,
};

/// The ports that may be published; `None` is every one.
pub(super) type Publish = Option<Sited<Vec<Grant>>>;

/// Ports of the host that may be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    /// None is every port, any free one among them.
    ports: Vec<PortRange>,
    /// None is every protocol.
    protocol: Option<PortProtocol>,
    /// Addresses of the host; none is every one.
    address: Option<Target>,
}

pub(super) fn decode(fields: &mut Fields, whole: &Origin, report: &mut Report<'_>) -> Publish {
    let Some(node) = fields.take("publish", report) else {
        return Some(Sited::new(Vec::new(), whole.clone()));
    };
    if is_any(&node) {
        return None;
    }
    let (span, origin) = (node.span, report.origin(node.span));
    let grants: Vec<Grant> = list(node, "ports", report)
        .into_iter()
        .filter_map(|node| grant(node, report))
        .collect();
    if grants.len() > GRANTS_MAX {
        let count = grants.len();
        report
            .error(span, format!("{count} entries, which is more than {GRANTS_MAX}"))
            .help("write ranges such as `8000-8999`, or `any`");
    }
    Some(Sited::new(grants, origin))
}

/// `8000-8999`, which is TCP at every address, or `{ports: […], protocol: udp, address: 192.0.2.0/24}`.
fn grant(node: Node, report: &mut Report<'_>) -> Option<Grant> {
    if matches!(node.kind, Kind::Scalar { .. }) {
        let (first, last) = port_range(&node, report)?;
        return Some(Grant {
            ports: vec![PortRange { first, last }],
            protocol: Some(PortProtocol::Tcp),
            address: None,
        });
    }
    let span = node.span;
    let mut fields = Fields::open(node, "a rule of published ports", &GRANT_KEYS, report)?;
    let ports = fields.take("ports", report).map(|node| port_ranges(node, report));
    // An empty list is a slip, and must not become every port.
    if ports.as_ref().is_some_and(Vec::is_empty) {
        report
            .error(span, "a rule of published ports without a port")
            .help("leave `ports` out for every port");
        return None;
    }
    let protocol = fields.take("protocol", report);
    let protocol = protocol.map(|node| choice(&node, "a protocol", &PROTOCOLS, report));
    let address = fields.take("address", report).map(|node| network(&node, report));
    let has_ports = ports.is_some();
    Some(Grant {
        ports: ports.unwrap_or_default(),
        // Ports without a word are TCP's, as everywhere in a policy.
        protocol: match protocol {
            Some(read) => Some(read?),
            None => has_ports.then_some(PortProtocol::Tcp),
        },
        address: match address {
            Some(read) => Some(read?),
            None => None,
        },
    })
}

impl Grant {
    fn covers(&self, at: &Target, ports: PortRange, protocol: PortProtocol) -> bool {
        let has_ports = self.ports.is_empty()
            || self
                .ports
                .iter()
                .any(|range| range.first <= ports.first && ports.last <= range.last);
        has_ports
            && self.protocol.is_none_or(|own| own == protocol)
            && self.address.as_ref().is_none_or(|own| own.covers(at))
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports: Vec<String> = self.ports.iter().map(PortRange::to_string).collect();
        match ports.is_empty() {
            true => f.write_str("every port")?,
            false => f.write_str(&ports.join(","))?,
        }
        if let Some(protocol) = self.protocol {
            write!(f, " {protocol}")?;
        }
        match &self.address {
            Some(address) => write!(f, " at {address}"),
            None => Ok(()),
        }
    }
}

/// What is bound where an address is asked for: that one, or all of a family, or of both.
fn places(address: Option<IpAddr>) -> Vec<Target> {
    let every = |address: IpAddr| Target::Network { address, prefix: 0 };
    match address.map(|address| address.to_canonical()) {
        None => vec![
            every(Ipv4Addr::UNSPECIFIED.into()),
            every(Ipv6Addr::UNSPECIFIED.into()),
        ],
        Some(address) if address.is_unspecified() => vec![every(address)],
        Some(address) => vec![Target::Network {
            address,
            prefix: if address.is_ipv6() { 128 } else { 32 },
        }],
    }
}

fn shown(asked: &PortRequest) -> String {
    let ports = match asked.ports {
        Some(ports) => format!("port {ports} {}", asked.protocol),
        None => format!("any free port {}", asked.protocol),
    };
    match asked.address {
        Some(address) => format!("{ports} at {address}"),
        None => format!("{ports} at every address of the host"),
    }
}

impl Judge<'_> {
    /// Every port that may come to be bound must lie within one of the owner's.
    pub(super) fn publish(&mut self, policy: &Composed) {
        let Some(allowed) = &self.ceiling.publish else {
            return;
        };
        // Without a bridge nothing is published.
        if policy.network_mode() != NetworkMode::Bridge {
            return;
        }
        let list: Vec<String> = allowed.value.iter().map(Grant::to_string).collect();
        let list = match list.is_empty() {
            true => "no ports".to_owned(),
            false => list.join("; "),
        };
        let (allowed, line) = (allowed.value.clone(), allowed.origin.clone());
        for asked in &policy.published {
            let ports = asked.ports.unwrap_or(EVERY_PORT);
            let is_granted = places(asked.address).iter().all(|at| {
                let mut grants = allowed.iter();
                grants.any(|grant| grant.covers(at, ports, asked.protocol))
            });
            if is_granted {
                continue;
            }
            self.fatal = true;
            let remedy = "publish within these, or nothing; or the owner adds it to `publish`".to_owned();
            self.excess(
                shown(asked),
                &Origin::flag("--publish"),
                list.clone(),
                &line,
                remedy,
            );
        }
    }
}
