//! Which networks apps may have, and where their packets may go.
//!
//! Owns the reading of `egress` and `networks` and the judgement of all three. None is ever trimmed: an app without its server is no app.

use std::fmt;
use std::net::IpAddr;

use super::{Authority, Ceiling, ExcessItem, Judge};
use crate::compose::Composed;
use crate::confinement::{Destination, NetworkMode, Target};
use crate::decode;
use crate::decode::fields::{Fields, list};
use crate::diagnostics::{Origin, Report};
use crate::egress;
use crate::model::Sited;
use crate::request::NetworkRequest;
use crate::yaml::{Kind, Node};

/// `egress`: destinations as a policy writes them.
pub(super) fn egress(node: Node, report: &mut Report<'_>) -> Option<Sited<Vec<Destination>>> {
    let egress = decode::egress::decode(node, report);
    if egress.any.is_some() {
        return None;
    }
    let destinations = egress.entries.into_iter().map(|entry| entry.destination);
    Some(Sited::new(destinations.collect(), egress.origin))
}

/// The networks that clients may make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Networks {
    /// Any.
    Any,
    /// None: the owner says nothing of them.
    None(Origin),
    /// Any whose subnets the daemon chooses, or that names its subnets within these.
    Within(Sited<Vec<Target>>),
}

/// `networks: any`, or `{subnets: […]}`.
pub(super) fn networks(fields: &mut Fields, whole: &Origin, report: &mut Report<'_>) -> Networks {
    let Some(node) = fields.take("networks", report) else {
        return Networks::None(whole.clone());
    };
    let origin = report.origin(node.span);
    if is_any(&node) {
        return Networks::Any;
    }
    let Some(mut fields) = Fields::open(node, "`networks`", &["subnets"], report) else {
        return Networks::None(origin);
    };
    let Some(node) = fields.take("subnets", report) else {
        return Networks::Within(Sited::new(Vec::new(), origin));
    };
    if is_any(&node) {
        return Networks::Any;
    }
    let origin = report.origin(node.span);
    let nodes = list(node, "networks", report);
    let subnets = nodes
        .iter()
        .filter_map(|node| decode::egress::network(node, report));
    Networks::Within(Sited::new(subnets.collect(), origin))
}

pub(super) fn is_any(node: &Node) -> bool {
    matches!(&node.kind, Kind::Scalar { text, .. } if text == "any")
}

/// A client asks for a network that the owner's ceiling does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct NetworkExcess {
    /// The network's name.
    pub network: String,
    /// Everything that is too much.
    pub items: Vec<ExcessItem>,
}

impl fmt::Display for NetworkExcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "network `{}` is more than this device allows", self.network)?;
        self.items.iter().try_for_each(|item| item.fmt(f))
    }
}

/// Judges a network that a client wants to make.
///
/// # Errors
/// Everything that is too much.
pub fn bound_network(asked: &NetworkRequest, ceiling: &Ceiling) -> Result<(), NetworkExcess> {
    let item = |what: String, by: &str, allowed: String, line: &Origin, remedy: &str| ExcessItem {
        asked: what,
        asked_by: Origin::flag(by),
        allowed,
        ceiling: line.clone(),
        remedy: remedy.to_owned(),
        authority: Authority::Owner,
    };
    let items: Vec<ExcessItem> = match &ceiling.networks {
        Networks::Any => Vec::new(),
        Networks::None(line) => vec![item(
            "a network of one's own".to_owned(),
            "network create",
            "the network `bridge` alone".to_owned(),
            line,
            "use the network `bridge`; or the owner writes `networks: {}`, or with subnets that may be named",
        )],
        Networks::Within(subnets) => {
            let covers = |(address, prefix): &(IpAddr, u8)| {
                let asked = Target::Network {
                    address: *address,
                    prefix: *prefix,
                };
                subnets.value.iter().any(|grant| grant.covers(&asked))
            };
            let list: Vec<String> = subnets.value.iter().map(Target::to_string).collect();
            let list = match list.is_empty() {
                true => "a subnet that the device chooses".to_owned(),
                false => list.join(", "),
            };
            let beyond = asked.subnets.iter().filter(|subnet| !covers(subnet));
            beyond
                .map(|(address, prefix)| {
                    item(
                        format!("subnet {address}/{prefix}"),
                        "--subnet",
                        list.clone(),
                        &subnets.origin,
                        "leave the subnet out; or the owner adds it to `networks.subnets`",
                    )
                })
                .collect()
        }
    };
    if items.is_empty() {
        return Ok(());
    }
    Err(NetworkExcess {
        network: asked.name.clone(),
        items,
    })
}

impl Judge<'_> {
    pub(super) fn network(&mut self, policy: &Composed) {
        let mode = policy.network_mode();
        let allowed = &self.ceiling.network.value;
        if mode == NetworkMode::None || allowed.contains(&mode) {
            return;
        }
        self.fatal = true;
        let by = policy
            .rules
            .network
            .mode
            .as_ref()
            .map_or_else(|| Origin::flag("network"), |m| m.origin.clone());
        let word = |mode: &NetworkMode| match mode {
            NetworkMode::None => "none",
            NetworkMode::Host => "host",
            NetworkMode::Bridge => "bridge",
        };
        let list = allowed.iter().map(word).collect::<Vec<_>>().join(", ");
        let list = if list.is_empty() { "none".to_owned() } else { list };
        let name = word(&mode);
        let remedy = format!("use `--network none`; or the owner adds `{name}` to `network`");
        self.excess(
            format!("network {name}"),
            &by,
            list,
            &self.ceiling.network.origin.clone(),
            remedy,
        );
    }

    /// Each destination must lie within one of the owner's. One beyond is never trimmed: an app without its server is no app.
    pub(super) fn egress(&mut self, policy: &Composed) {
        let Some(allowed) = &self.ceiling.egress else {
            return;
        };
        if policy.network_mode() != NetworkMode::Bridge {
            return;
        }
        let list: Vec<String> = allowed.value.iter().map(Destination::to_string).collect();
        let list = if list.is_empty() {
            "nowhere".to_owned()
        } else {
            list.join(", ")
        };
        let Some((entries, _, _)) = egress::bounds(&policy.rules.network) else {
            self.fatal = true;
            let by = policy.rules.network.mode.as_ref();
            let by = by.map_or_else(|| Origin::flag("network"), |mode| mode.origin.clone());
            let remedy =
                "name the destinations in `network: {egress: […]}` of the policy; or the owner writes `egress: any`"
                    .to_owned();
            return self.excess(
                "packets to anywhere".to_owned(),
                &by,
                list,
                &allowed.origin.clone(),
                remedy,
            );
        };
        let (allowed, at) = (allowed.value.clone(), allowed.origin.clone());
        for entry in entries {
            if allowed.iter().any(|grant| grant.covers(&entry.destination)) {
                continue;
            }
            self.fatal = true;
            let asked = format!("packets to {}", entry.destination);
            let remedy = "leave it out; or the owner adds it to `egress`".to_owned();
            self.excess(asked, &entry.origin, list.clone(), &at, remedy);
        }
    }
}
