//! Which networks apps may have, and where their packets may go.
//!
//! Owns the reading of `egress` and the judgement of both. Neither is ever trimmed: an app without its server is no app.

use super::Judge;
use crate::compose::Composed;
use crate::confinement::{Destination, NetworkMode};
use crate::decode;
use crate::diagnostics::{Origin, Report};
use crate::egress;
use crate::model::Sited;
use crate::yaml::Node;

/// `egress`: destinations as a policy writes them.
pub(super) fn egress(node: Node, report: &mut Report<'_>) -> Option<Sited<Vec<Destination>>> {
    let egress = decode::egress::decode(node, report);
    if egress.any.is_some() {
        return None;
    }
    let destinations = egress.entries.into_iter().map(|entry| entry.destination);
    Some(Sited::new(destinations.collect(), egress.origin))
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
            let remedy = "name the destinations in `network: {egress: […]}` of the policy".to_owned();
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
