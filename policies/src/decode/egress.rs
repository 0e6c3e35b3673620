//! `network.egress` and `network.peers`.

use super::fields::{Fields, choice, list, printable, scalar};
use super::sections::port_ranges;
use crate::confinement::{Destination, Target, Transport};
use crate::diagnostics::Report;
use crate::model::{Egress, EgressEntry, Sited};
use crate::yaml::{Kind, Node};

/// Destinations of one policy: each is an entry of the packet filter.
const DESTINATIONS_MAX: usize = 256;
/// Peers of one policy.
const PEERS_MAX: usize = 64;
/// Ports and ranges of one destination.
const PORTS_MAX: usize = 64;
/// Longest name of a container.
const NAME_BYTES_MAX: usize = 200;

pub(crate) const EGRESS_KEYS: [&str; 3] = ["to", "protocol", "ports"];

pub(crate) const TRANSPORTS: [(&str, Transport); 2] = [("tcp", Transport::Tcp), ("udp", Transport::Udp)];

pub(crate) fn decode(node: Node, report: &mut Report<'_>) -> Egress {
    let origin = report.origin(node.span);
    let mut egress = Egress {
        any: None,
        entries: Vec::new(),
        origin: origin.clone(),
    };
    if let Kind::Scalar { text, .. } = &node.kind
        && text == "any"
    {
        egress.any = Some(origin);
        return egress;
    }
    let span = node.span;
    egress.entries = list(node, "destinations", report)
        .into_iter()
        .filter_map(|node| destination(node, report))
        .collect();
    if egress.entries.len() > DESTINATIONS_MAX {
        let count = egress.entries.len();
        report
            .error(
                span,
                format!("{count} destinations, which is more than {DESTINATIONS_MAX}"),
            )
            .help("write networks instead of addresses, or `any`");
    }
    egress
}

/// `192.0.2.0/24`, or with `protocol` and `ports`.
pub(crate) fn destination(node: Node, report: &mut Report<'_>) -> Option<EgressEntry> {
    let origin = report.origin(node.span);
    if matches!(node.kind, Kind::Scalar { .. }) {
        let destination = Destination {
            to: target(&node, report)?,
            transport: None,
            ports: Vec::new(),
            rule: String::new(),
        };
        return Some(EgressEntry { destination, origin });
    }
    let span = node.span;
    let mut fields = Fields::open(node, "a destination", &EGRESS_KEYS, report)?;
    let to = fields
        .need("to", "a destination", report)
        .and_then(|node| target(&node, report));
    let transport = fields.take("protocol", report);
    let transport = transport.and_then(|node| choice(&node, "a protocol", &TRANSPORTS, report));
    let ports = fields.take("ports", report).map(|node| port_ranges(node, report));
    let count = ports.as_ref().map_or(0, Vec::len);
    if count > PORTS_MAX {
        report
            .error(span, format!("{count} ports, which is more than {PORTS_MAX}"))
            .help("write ranges such as `8000-8010`");
    }
    let has_ports = ports.as_ref().is_some_and(|ports| !ports.is_empty());
    let destination = Destination {
        to: to?,
        // Ports without a word are TCP's, as everywhere in a policy.
        transport: transport.or(has_ports.then_some(Transport::Tcp)),
        ports: ports.unwrap_or_default(),
        rule: String::new(),
    };
    Some(EgressEntry { destination, origin })
}

/// A network or an address, and no name.
pub(crate) fn network(node: &Node, report: &mut Report<'_>) -> Option<Target> {
    match target(node, report)? {
        found @ Target::Network { .. } => Some(found),
        Target::Name(name) => {
            report
                .error(
                    node.span,
                    format!("`{name}` is a name where a network is expected"),
                )
                .help("write a network such as `192.0.2.0/24`, or an address");
            None
        }
    }
}

fn target(node: &Node, report: &mut Report<'_>) -> Option<Target> {
    let text = scalar(node, "a destination", report)?;
    match text.parse() {
        Ok(target) => Some(target),
        Err(why) => {
            report
                .error(node.span, printable(&why))
                .help("write an address, a network such as `192.0.2.0/24`, or a name such as `broker.example.com` or `*.example.com`");
            None
        }
    }
}

pub(crate) fn peers(node: Node, report: &mut Report<'_>) -> Sited<Vec<String>> {
    let (span, origin) = (node.span, report.origin(node.span));
    let names: Vec<String> = list(node, "names of containers", report)
        .iter()
        .filter_map(|node| peer(node, report))
        .collect();
    if names.len() > PEERS_MAX {
        report.error(
            span,
            format!("{} peers, which is more than {PEERS_MAX}", names.len()),
        );
    }
    Sited::new(names, origin)
}

fn peer(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let name = scalar(node, "a container's name", report)?;
    let is_name = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if !is_name {
        report
            .error(
                node.span,
                format!("`{}` is not a name of a container", printable(&name)),
            )
            .help("write the name or an alias that it has in the network");
        return None;
    }
    Some(name)
}
